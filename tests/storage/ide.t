#!/bin/sh
# IDE: what Linux's drivers write to disks by PIO and by DMA is in their images, what they trim is given back; a disc is what it was made of; an empty drive says that it is.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

head -c 1000000 /dev/urandom >"$scratch/data"
sum=$(sha256sum <"$scratch/data")
head -c 3000320 /dev/urandom >"$scratch/disc"
sha256sum <"$scratch/disc" >"$scratch/disc.sum"

# On the first a file system with copies, which are read again from the disk; on the second, past 128 GiB, the bytes themselves; what was trimmed is no more in the image.
commands="until [ -b /dev/sdb ] && [ -b /dev/sr0 ]; do sleep 0.1; done
a=sda b=sdb
[ \$(cat /sys/block/sda/size) = 131072 ] || { a=sdb b=sda; }
mke2fs -F /dev/\$a >/dev/null 2>&1
mkdir /mnt
mount /dev/\$a /mnt
for n in 0 1 2 3 4 5; do cp /data /mnt/\$n & done
wait
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -o ro /dev/\$a /mnt
for n in 0 1 2 3 4 5; do [ \"\$(sha256sum </mnt/\$n)\" = '$sum' ]; done
umount /mnt
dd if=/data of=/dev/\$b bs=1M seek=200000 conv=fsync 2>/dev/null
[ \"\$(dd if=/dev/\$b bs=4k skip=51200000 count=245 iflag=direct 2>/dev/null | head -c 1000000 | sha256sum)\" = '$sum' ]
dd if=/data of=/dev/\$b bs=64k seek=96 count=8 conv=fsync 2>/dev/null
[ -f /pio ] || blkdiscard -o 6291456 -l 524288 /dev/\$b
[ \"\$(sha256sum </dev/sr0)\" = \"\$(cat /disc.sum)\" ]
[ \"\$(cat /sys/block/\$a/device/model)\" = 'DOPPEL DISK     ' ]
modprobe isofs
if mount /dev/sr1 /mnt 2>/dev/null; then exit 1; fi
"
modules="modprobe sd_mod
modprobe sr_mod"

# writes [doppel's options]
writes() {
	rm -f "$scratch/a" "$scratch/b"
	"$doppel" image create --quiet -f raw "$scratch/a" 64M && "$doppel" image create --quiet -f qcow2 "$scratch/b" 200G &&
		well --disk "$scratch/a,bus=ide,format=raw" --disk "$scratch/b,bus=ide,discard=on" \
			--cdrom "$scratch/disc,bus=ide" --device ide-cd "$@" || return 1
	"$doppel" image check "$scratch/b" || return 1
	"$doppel" image convert --quiet -O raw "$scratch/b" "$scratch/b.raw" && tail -c +209715200001 "$scratch/b.raw" | cmp -n 1000000 - "$scratch/data" || return 1
	[ -n "$pio" ] || tail -c +6291457 "$scratch/b.raw" | cmp -n 524288 - /dev/zero || return 1
	! command -v e2fsck >/dev/null || e2fsck -fn "$scratch/a"
}

script="$modules
modprobe ata_piix
$commands"
guest_with "$scratch/data" "$scratch/disc.sum"
pio=
check "DMA, engine bt, 2 CPUs" writes --engine bt --cpus 2
check "DMA, virtual time" writes --clock virtual
append="$append libata.dma=0"
: >"$scratch/pio"
pio=1
guest_with "$scratch/data" "$scratch/disc.sum" "$scratch/pio"
check "PIO, multiple sectors" writes
append="doppel_run=/run pci=off"
script="$modules
modprobe pata_legacy
$commands"
guest_with "$scratch/data" "$scratch/disc.sum" "$scratch/pio"
check "at the compatible ports, without PCI" writes
finish
