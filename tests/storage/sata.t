#!/bin/sh
# AHCI: what Linux's driver writes to disks, with queued commands, is in their images, what it trims is given back; a disc is what it was made of; an empty drive says that it is.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
kernel=generic

head -c 1000000 /dev/urandom >"$scratch/data"
sum=$(sha256sum <"$scratch/data")
head -c 3000320 /dev/urandom >"$scratch/disc"
sha256sum <"$scratch/disc" >"$scratch/disc.sum"

script="modprobe crc32c_generic
modprobe ext4
modprobe sd_mod
modprobe sr_mod
modprobe isofs
modprobe ahci
until [ -b /dev/sdb ] && [ -b /dev/sr1 ]; do sleep 0.1; done
a=sda b=sdb
[ \$(cat /sys/block/sda/size) = 131072 ] || { a=sdb b=sda; }
[ \$(cat /sys/block/\$a/device/queue_depth) = 32 ]
mke2fs -F /dev/\$a >/dev/null 2>&1
mkdir /mnt
mount -t ext4 /dev/\$a /mnt
for n in 0 1 2 3 4 5; do cp /data /mnt/\$n & done
wait
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 -o ro /dev/\$a /mnt
for n in 0 1 2 3 4 5; do [ \"\$(sha256sum </mnt/\$n)\" = '$sum' ]; done
umount /mnt
dd if=/data of=/dev/\$b bs=1M seek=200000 conv=fsync 2>/dev/null
[ \"\$(dd if=/dev/\$b bs=4k skip=51200000 count=245 iflag=direct 2>/dev/null | head -c 1000000 | sha256sum)\" = '$sum' ]
dd if=/data of=/dev/\$b bs=64k seek=96 count=8 conv=fsync 2>/dev/null
blkdiscard -o 6291456 -l 524288 /dev/\$b
[ \"\$(sha256sum </dev/sr0)\" = \"\$(cat /disc.sum)\" ]
grep 'MSI.*ahci' /proc/interrupts
if mount -t iso9660 /dev/sr1 /mnt 2>/dev/null; then exit 1; fi"
guest_with "$scratch/data" "$scratch/disc.sum"

# writes [doppel's options]
writes() {
	rm -f "$scratch/a" "$scratch/b"
	"$doppel" image create --quiet -f raw "$scratch/a" 64M && "$doppel" image create --quiet -f qcow2 "$scratch/b" 200G &&
		well --disk "$scratch/a,bus=sata,format=raw" --disk "$scratch/b,bus=sata,discard=on" \
			--cdrom "$scratch/disc,bus=sata" --device sata-cd "$@" || return 1
	"$doppel" image check "$scratch/b" || return 1
	"$doppel" image convert --quiet -O raw "$scratch/b" "$scratch/b.raw" && tail -c +209715200001 "$scratch/b.raw" | cmp -n 1000000 - "$scratch/data" || return 1
	tail -c +6291457 "$scratch/b.raw" | cmp -n 524288 - /dev/zero || return 1
	! command -v e2fsck >/dev/null || e2fsck -fn "$scratch/a"
}
check "AHCI, engine bt, 2 CPUs" writes --engine bt --cpus 2
check "AHCI, virtual time" writes --clock virtual
finish
