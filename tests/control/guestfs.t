#!/bin/sh
# libguestfs with doppel in QEMU's place: its own test, and a disk that is made, filled and read again. It builds its appliance of what is installed, from a kernel
# that SUPERMIN_KERNEL and SUPERMIN_MODULES name or that is in /boot.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}

if ! command -v guestfish >/dev/null || ! { [ -n "${SUPERMIN_KERNEL:-}" ] || ls /boot/vmlinuz-* >/dev/null 2>&1; }; then
	echo "1..0 # SKIP needs libguestfs-tools, and a kernel in /boot"
	exit 0
fi
ln -s "$(realpath "$doppel")" "$scratch/qemu-system-x86_64"
export LIBGUESTFS_BACKEND=direct LIBGUESTFS_HV="$scratch/qemu-system-x86_64"

check "libguestfs-test-tool" timeout 600 libguestfs-test-tool
fills() {
	truncate -s 200M "$scratch/disk"
	echo hello >"$scratch/file"
	timeout 600 guestfish --format=raw -a "$scratch/disk" run : part-disk /dev/sda gpt : mkfs ext4 /dev/sda1 : mount /dev/sda1 / : \
		mkdir /etc : upload "$scratch/file" /etc/hello : umount-all : fsck ext4 /dev/sda1 &&
		[ "$(timeout 600 guestfish --ro --format=raw -a "$scratch/disk" -m /dev/sda1 cat /etc/hello)" = hello ]
}
check "guestfish makes, fills and reads a disk" fills
finish
