#!/bin/sh
# Gets what the boot tests and `make run` boot: Debian's stock kernels and busybox, downloaded from the
# machine's own apt sources, unpacked but not installed, and an initramfs made of busybox and
# scripts/guest-init.
#
#   get-guest.sh          makes, when not there yet:
#       $DOPPEL_CACHE/cloud/vmlinuz      linux-image-cloud-amd64
#       $DOPPEL_CACHE/generic/vmlinuz    linux-image-amd64
#       $DOPPEL_CACHE/busybox/busybox     busybox-static
#       $DOPPEL_CACHE/initrd.cpio.gz
#       $DOPPEL_CACHE/cloud-modules/modules.cpio     drivers of the cloud kernel, to be put in front of an initrd
#       $DOPPEL_CACHE/generic-modules/modules.cpio   the same of the other kernel: 9p is not in the cloud kernel
#   get-guest.sh --test   also what else the tests boot:
#       $DOPPEL_CACHE/xen/xen                   xen-hypervisor-*-amd64, unpacked
#       $DOPPEL_CACHE/memtest/memtest86+x64.bin, $DOPPEL_CACHE/memtest32/memtest86+ia32.bin
#       and, with package lists of its own in $DOPPEL_CACHE/apt-i386:
#       $DOPPEL_CACHE/686/vmlinuz        linux-image-686, 32-bit paging
#       $DOPPEL_CACHE/686-modules/modules.cpio
#       $DOPPEL_CACHE/686-pae/vmlinuz    linux-image-686-pae
#       $DOPPEL_CACHE/busybox-i386/busybox, $DOPPEL_CACHE/initrd-i386.cpio.gz
#   get-guest.sh --missing  says what of all that is not there; its status is 1 then
#   get-guest.sh --where  prints $DOPPEL_CACHE (default: ${XDG_CACHE_HOME:-~/.cache}/doppel)
#
# What cannot be had is tried again $DOPPEL_TRIES (4) times, some time apart: indices of mirrors are at times in the middle of an update.
# Every result is made beside its place and renamed into it, so that what is there is complete.
# Remove a folder to have it made anew from the newest package.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${DOPPEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/doppel}
if [ "${1:-}" = --where ]; then
	echo "$cache"
	exit
fi
mkdir -p "$cache"

say() { echo "get-guest: $*" >&2; }

if [ "${1:-}" = --missing ]; then
	missing=
	for name in cloud/vmlinuz cloud-modules/modules.cpio generic/vmlinuz generic-modules/modules.cpio busybox/busybox initrd.cpio.gz xen/xen memtest/memtest86+x64.bin \
		memtest32/memtest86+ia32.bin 686/vmlinuz 686-modules/modules.cpio 686-pae/vmlinuz busybox-i386/busybox initrd-i386.cpio.gz; do
		[ -e "$cache/$name" ] || missing="$missing $name"
	done
	[ -n "$missing" ] || exit 0
	say "not in $cache, so what boots it was skipped:$missing"
	exit 1
fi
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Options for apt when it is to look at another architecture; words.
foreign=

# 0: apt's package lists are new.
update_lists() {
	if [ "$(id -u)" != 0 ] && [ -z "$foreign" ]; then
		say "apt's package lists are missing or too old; run this, then again what you ran:"
		echo "    sudo apt-get update" >&2
		exit 1
	fi
	say "apt-get update"
	# shellcheck disable=SC2086
	apt-get $foreign -qq -o Acquire::Retries=3 -o APT::Update::Error-Mode=any update
}

# A metapackage stands for the newest kernel or hypervisor that it depends on; any other name for itself.
real_package() {
	# shellcheck disable=SC2086
	real=$(apt-cache $foreign depends --no-recommends --no-suggests "$1" 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*\|xen-hypervisor-[0-9].*\)/\1/p' | head -n 1)
	echo "${real:-$1}"
}

# download PACKAGE FOLDER: its .deb in FOLDER. apt checks size and hash.
download() {
	# shellcheck disable=SC2086
	(cd "$2" && apt-get $foreign -qq -o APT::Sandbox::User=root download "$(real_package "$1")" >&2)
}

# fetch PACKAGE FOLDER: download(), again and again.
fetch() {
	pause=15
	# shellcheck disable=SC2086
	apt-cache $foreign show "$1" >/dev/null 2>&1 || update_lists || true
	for try in $(seq "${DOPPEL_TRIES:-4}"); do
		if [ "$try" != 1 ]; then
			say "again in $pause s"
			sleep "$pause"
			pause=$((2 * pause))
			update_lists || say "not all package lists could be had; perhaps it goes without"
		fi
		say "downloading $(real_package "$1")"
		! download "$1" "$2" || return 0
	done
	say "apt-get could not download $1 (see above)"
	exit 1
}

# unpack PACKAGE NAME PATH: $cache/NAME/PATH out of the package, without version and .gz.
unpack() {
	[ ! -e "$cache/$2" ] || return 0
	work=$(mktemp -d "$cache/.new.XXXXXX")
	mkdir "$work/deb" "$work/root" "$work/out"
	fetch "$1" "$work/deb"
	dpkg-deb -x "$work"/deb/*.deb "$work/root"
	# Paths in the package are patterns: the kernel's has its version in it.
	# shellcheck disable=SC2086
	set -- "$1" "$2" "$work"/root/$3 "${3##*/}"
	if [ ! -f "$3" ]; then
		say "$1 has no file like $3"
		exit 1
	fi
	basename "$work"/deb/*.deb .deb >"$work/out/package"
	case $3 in
	*.gz) gunzip -c "$3" >"$work/out/${4%%-*}" ;;
	*) cp "$3" "$work/out/${4%%-*}" ;;
	esac
	chmod 755 "$work/out" "$work/out/${4%%-*}"
	mv -T "$work/out" "$cache/$2"
	rm -rf "$work"
	work=
}

# Drivers that guests load by modprobe; what they need comes along.
modules='virtio_pci virtio_mmio virtio-rng virtio_blk virtio_net virtio_console virtio_balloon virtio_pmem virtio_scsi virtiofs
	vmw_vsock_virtio_transport nd_pmem sd_mod sr_mod isofs crc32c_generic ext4 xfs btrfs 9p 9pnet_virtio
	ata_piix ata_generic pata_legacy ahci nvme floppy bochs'

# pack_modules ROOT: ROOT/modules.cpio of the modules in ROOT/lib/modules, and of no others.
pack_modules() {
	version=$(ls "$1/lib/modules")
	"$cache/busybox/busybox" depmod -b "$1" "$version"
	# shellcheck disable=SC2086
	wanted=$(for module in $modules; do
		grep -E "(^|/)$module\.ko:" "$1/lib/modules/$version/modules.dep" | tr -d :
	done | tr ' ' '\n' | sort -u)
	(cd "$1" && {
		echo lib
		echo lib/modules
		echo "lib/modules/$version"
		echo "lib/modules/$version/modules.dep"
		echo "$wanted" | sed "s|^|lib/modules/$version/|"
		echo "$wanted" | while read -r path; do
			while path=${path%/*} && [ "$path" != kernel ]; do echo "lib/modules/$version/$path"; done
			echo "lib/modules/$version/kernel"
		done
	} | LC_ALL=C sort -u | cpio -o -H newc --quiet --owner=0:0 >modules.cpio)
}

# make_modules NAME PACKAGE: $cache/NAME-modules, of the package that $cache/NAME's kernel is of: if that is not to be had any more, the kernel is made anew as well.
# What was made of another list is made anew.
make_modules() {
	[ "$(cat "$cache/$1-modules/list" 2>/dev/null)" != "$modules" ] || return 0
	work=$(mktemp -d "$cache/.new.XXXXXX")
	mkdir "$work/deb" "$work/root" "$work/out" "$work/kernel"
	fetch "$2" "$work/deb"
	dpkg-deb -x "$work"/deb/*.deb "$work/root"
	pack_modules "$work/root"
	basename "$work"/deb/*.deb .deb | tee "$work/kernel/package" >"$work/out/package"
	mv "$work/root/modules.cpio" "$work/out"
	echo "$modules" >"$work/out/list"
	if ! cmp -s "$work/out/package" "$cache/$1/package"; then
		mv "$work"/root/boot/vmlinuz-* "$work/kernel/vmlinuz"
		chmod 755 "$work/kernel" "$work/kernel/vmlinuz"
		rm -rf "${cache:?}/$1"
		mv -T "$work/kernel" "$cache/$1"
	fi
	chmod 755 "$work/out"
	rm -rf "${cache:?}/$1-modules"
	mv -T "$work/out" "$cache/$1-modules"
	rm -rf "$work"
	work=
}

# make_initrd NAME BUSYBOX: $cache/NAME of busybox in $cache/BUSYBOX.
make_initrd() {
	if [ -f "$cache/$1" ] && [ -z "$(find "$here/guest-init" "$cache/$2/busybox" -newer "$cache/$1")" ]; then
		return
	fi
	work=$(mktemp -d "$cache/.new.XXXXXX")
	mkdir -p "$work/root/bin" "$work/root/dev" "$work/root/proc" "$work/root/sys" "$work/root/tmp" "$work/root/root"
	cp "$cache/$2/busybox" "$work/root/bin/busybox"
	cp "$here/guest-init" "$work/root/init"
	chmod 755 "$work/root/init" "$work/root/bin/busybox"
	(cd "$work/root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --owner=0:0 >../initrd.cpio)
	gzip -9n "$work/initrd.cpio"
	mv "$work/initrd.cpio.gz" "$cache/$1"
	rm -rf "$work"
	work=
}

if command -v flock >/dev/null; then
	exec 9>"$cache/.lock"
	flock 9
	rm -rf "$cache"/.new.* # of a run that was killed
fi
unpack linux-image-cloud-amd64 cloud 'boot/vmlinuz-*'
unpack linux-image-amd64 generic 'boot/vmlinuz-*'
unpack busybox-static busybox 'bin/busybox'
make_initrd initrd.cpio.gz busybox
make_modules cloud linux-image-cloud-amd64
make_modules generic linux-image-amd64
[ "${1:-}" = --test ] || exit 0

unpack xen-system-amd64 xen 'boot/xen-*.gz'
unpack memtest86+ memtest 'boot/memtest86+x64.bin'
unpack memtest86+ memtest32 'boot/memtest86+ia32.bin'
lists=$cache/apt-i386
mkdir -p "$lists/state/lists/partial" "$lists/cache/archives/partial"
foreign="-o APT::Architecture=i386 -o APT::Architectures::=i386 -o APT::Sandbox::User=root
	-o Dir::State=$lists/state -o Dir::Cache=$lists/cache -o Dir::State::status=/dev/null"
unpack linux-image-686 686 'boot/vmlinuz-*'
unpack linux-image-686-pae 686-pae 'boot/vmlinuz-*'
unpack busybox-static busybox-i386 'bin/busybox'
make_initrd initrd-i386.cpio.gz busybox-i386
make_modules 686 linux-image-686
rm -rf "$lists"
