#!/bin/sh
# Makes the guest of `make stress` out of Debian's packages, from the machine's own apt sources, unpacked but not installed:
#
#   make-root.sh          makes, when not there yet:
#       $DOPPEL_CACHE/stress/vmlinuz     linux-image-cloud-amd64
#       $DOPPEL_CACHE/stress/root.cpio   stress-ng, gcc, LuaJIT, node, perl, busybox and all that they depend on
#   make-root.sh --where  prints $DOPPEL_CACHE/stress
#
# Remove that folder to have it made anew from the newest packages.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$("$here/../../scripts/get-guest.sh" --where)
if [ "${1:-}" = --where ]; then
	echo "$cache/stress"
	exit
fi
[ ! -e "$cache/stress" ] || exit 0
mkdir -p "$cache"
work=$(mktemp -d "$cache/.stress.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

say() { echo "make-root: $*" >&2; }

packages="busybox-static stress-ng gcc libc6-dev luajit nodejs perl-base linux-image-cloud-amd64"

# As for a machine on which nothing is installed yet: apt then names everything that is needed.
fetch() {
	# shellcheck disable=SC2086  # packages are words
	apt-get -qq -y -d -o Dir::State::status="$work/status" -o Dir::Cache::archives="$work/deb" -o Debug::NoLocking=1 \
		-o APT::Sandbox::User=root -o APT::Install-Recommends=false install $packages >&2
}

mkdir -p "$work/deb/partial" "$work/root" "$work/out"
: >"$work/status"
say "downloading $packages and what they depend on"
if ! fetch; then
	say "apt-get update"
	apt-get -qq update
	fetch || {
		say "apt-get could not download them (see above)"
		exit 1
	}
fi
# What the unpacked programs never open.
for deb in "$work"/deb/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work/root" --no-same-owner --exclude='./usr/share/doc*' \
		--exclude='./usr/share/man*' --exclude='./usr/share/locale*' --exclude='./usr/share/icons*' \
		--exclude='*/udev' --exclude='*/lto1' --exclude='*lto-dump*' --exclude='*/lto-wrapper' --exclude='*.a.gz'
done
cd "$work/root"
cp boot/vmlinuz-* "$work/out/vmlinuz"
# A swap device: its module and those that it needs.
mkdir -p "$work/root/modules"
for module in crypto/lzo crypto/lzo-rle lib/lzo/lzo_compress lib/lzo/lzo_decompress mm/zsmalloc drivers/block/zram/zram; do
	find lib/modules -path "*/kernel/$module.ko" -exec cp {} modules/ \;
done
rm -rf boot lib/modules lib/firmware
mkdir -p dev proc sys tmp run root
find . | LC_ALL=C sort | cpio -o -H newc --quiet --owner=0:0 >"$work/out/root.cpio"
cd "$cache"
mv -T "$work/out" "$cache/stress"
