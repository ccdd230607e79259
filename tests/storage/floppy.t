#!/bin/sh
# Floppy disks: what Linux's driver writes, a file system and beside it, is in the image, a protected one is not written, disks of several sizes are known by themselves.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
kernel=generic

head -c 600000 /dev/urandom >"$scratch/data"
head -c 737280 /dev/urandom >"$scratch/b"
sum=$(sha256sum <"$scratch/data")
sum_b=$(sha256sum <"$scratch/b")
script="modprobe crc32c_generic
modprobe ext4
modprobe floppy
until [ -b /dev/fd0 ] && [ -b /dev/fd1 ]; do sleep 0.1; done
[ \"\$(sha256sum </dev/fd1)\" = '$sum_b' ]
if dd if=/data of=/dev/fd1 bs=512 count=1 2>/message; then exit 1; fi
grep 'Read-only file system' /message
mke2fs -F /dev/fd0 1200 >/dev/null 2>&1
mkdir /mnt
mount -t ext4 /dev/fd0 /mnt
cp /data /mnt/data
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 -o ro /dev/fd0 /mnt
[ \"\$(sha256sum </mnt/data)\" = '$sum' ]
umount /mnt
dd if=/data of=/dev/fd0 bs=48k seek=25 count=5 conv=fsync 2>/dev/null
[ \$(cat /sys/block/fd0/size) = 2880 ]"
guest_with "$scratch/data"

# copies [doppel's options]
copies() {
	rm -f "$scratch/a"
	truncate -s 1440K "$scratch/a" || return 1
	well --floppy "$scratch/a,format=raw" --floppy "$scratch/b,format=raw,readonly" "$@" || return 1
	tail -c +1228801 "$scratch/a" | cmp -n 245760 - "$scratch/data" || return 1
	if command -v debugfs >/dev/null; then
		e2fsck -fn "$scratch/a" && debugfs -R "dump /data $scratch/copy" "$scratch/a" && cmp "$scratch/copy" "$scratch/data" || return 1
	fi
	[ "$(sha256sum <"$scratch/b")" = "$sum_b" ]
}
check "1440 KiB with a file system, 720 KiB protected" copies
finish
