#!/bin/sh
# Makes the root of bench/programs/run.py, when not there yet, by mmdebstrap from a mirror ($DEBIAN_MIRROR, deb.debian.org by default); as root. It is
# $DOPPEL_CACHE/programs: root/ for a chroot, root.ext4 the same as a disk, vmlinuz and initrd.img. `--where` prints it. Remove the folder to have it
# made anew.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$("$here/../../scripts/get-guest.sh" --where)
if [ "${1:-}" = --where ]; then
	echo "$cache/programs"
	exit
fi
[ ! -e "$cache/programs" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "make-root: only root can make it: it is a chroot" >&2; exit 1; }

mkdir -p "$cache"
work=$(mktemp -d "$cache/.new-programs.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/out/root"
cat >"$work/setup" <<'SETUP'
set -eu
cd "$1"
printf 'MODULES=list\nFSTYPE=ext4\nCOMPRESS=gzip\n' >etc/initramfs-tools/conf.d/disk
printf 'virtio_pci\nvirtio_blk\next4\n' >>etc/initramfs-tools/modules
chroot . sh -c 'set -e
	update-initramfs -u
	cd /bench/data
	apt-get -q download perl-modules-5.36
	mv *.deb package.deb
	/bench/inside.sh prepare
	apt-get clean'
SETUP
packages=kmod,iproute2,procps,mount,initramfs-tools,linux-image-cloud-amd64,$(sed 's/#.*//; /^$/d' "$here/packages.txt" | paste -sd,)
echo "make-root: Debian 12 with the programs, from ${DEBIAN_MIRROR:-deb.debian.org}: minutes" >&2
mmdebstrap --quiet --variant=apt --architectures=amd64 --include="$packages" \
	--customize-hook="mkdir -p \"\$1/bench/data\" && cp '$here/inside.sh' \"\$1/bench\" && cp -r '$here/../../src' \"\$1/bench/data\"" \
	--customize-hook="sh '$work/setup' \"\$1\"" bookworm "$work/out/root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
cp "$work"/out/root/boot/vmlinuz-* "$work/out/vmlinuz"
cp "$work"/out/root/boot/initrd.img-* "$work/out/initrd.img"
PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -d "$work/out/root" "$work/out/root.ext4" 4G
mv -T "$work/out" "$cache/programs"
chmod 755 "$cache/programs"
