#!/bin/sh
# virtio-scsi: what Linux's sd writes to a disk is in the image, what it trims is given back; a disc that sr mounts is what it was made of; disks that come and go while it runs.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

head -c 1000000 /dev/urandom >"$scratch/data"
sum=$(sha256sum <"$scratch/data")

new_disks() {
	rm -f "$scratch/a" "$scratch/b"
	"$doppel" image create --quiet -f "$1" "$scratch/a" 64M && "$doppel" image create --quiet -f "$1" "$scratch/b" 8M
}

# Which of them is sda is chance: Linux looks at them at the same time.
probe="modprobe virtio_scsi
modprobe sd_mod
disk() { ls /sys/bus/scsi/devices/0:0:\$1:0/block 2>/dev/null; }
until [ -b /dev/\$(disk 0) ] && [ -b /dev/\$(disk 1) ]; do sleep 0.1; done
a=\$(disk 0)
b=\$(disk 1)"

# On the first a file system with ten copies, which are read again from the disk; on the second the bytes themselves. What was trimmed is no more in the image.
script="$probe
mke2fs -F /dev/\$a >/dev/null 2>&1
mkdir /mnt
mount /dev/\$a /mnt
for n in 0 1 2 3 4 5 6 7 8 9; do cp /data /mnt/\$n & done
wait
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -o ro /dev/\$a /mnt
for n in 0 1 2 3 4 5 6 7 8 9; do [ \"\$(sha256sum </mnt/\$n)\" = '$sum' ]; done
umount /mnt
dd if=/data of=/dev/\$b bs=1M seek=1 conv=fsync 2>/dev/null
[ \"\$(dd if=/dev/\$b bs=4k skip=256 count=245 iflag=direct 2>/dev/null | head -c 1000000 | sha256sum)\" = '$sum' ]
dd if=/data of=/dev/\$b bs=64k seek=96 count=8 conv=fsync 2>/dev/null
blkdiscard -o 6291456 -l 524288 /dev/\$b"

same_data() {
	for disk in a b; do
		[ "$1" = raw ] || "$doppel" image check "$scratch/$disk" || return 1
		"$doppel" image convert --quiet -O raw "$scratch/$disk" "$scratch/$disk.raw" || return 1
	done
	tail -c +1048577 "$scratch/b.raw" | cmp -n 1000000 - "$scratch/data" || return 1
	tail -c +6291457 "$scratch/b.raw" | cmp -n 524288 - /dev/zero || return 1
	! command -v e2fsck >/dev/null || e2fsck -fn "$scratch/a.raw"
}

# writes FORMAT OPTIONS [doppel's options]
writes() {
	format=$1 options=$2
	shift 2
	new_disks "$format" && well --disk "$scratch/a,bus=scsi,format=$format,$options" --disk "$scratch/b,bus=scsi,format=$format,$options" "$@" &&
		same_data "$format"
}

guest_with "$scratch/data"
check "raw, engine bt, 2 CPUs" writes raw discard=on --engine bt --cpus 2
long check "raw, past the host's cache, engine interp" writes raw cache=none,discard=on --engine interp
check "qcow2, 4 CPUs, one queue" writes qcow2 discard=on --device virtio-scsi,queues=1 --cpus 4
check "qcow2, virtual time" writes qcow2 cache=unsafe,discard=on --clock virtual
modprobe=force_legacy=1
append="$append pci=nomsi"
guest_with "$scratch/data"
check "raw, legacy, INTx" writes raw discard=on
modprobe=
append=doppel_run=/run

# What it is, as sysfs has it: vital product data, read-only, the cache's switch by MODE SELECT.
script="$probe
cd /sys/bus/scsi/devices/0:0:0:0
[ \$(cat vendor model rev type | tr -d ' \\n') = DOPPELDISK10 ]
[ \$(tail -c +5 vpd_pg80) = number-one ]
tail -c +9 vpd_pg83 | grep -q '^DOPPEL  number-one'
[ \$(cat /sys/block/\$a/ro /sys/block/\$b/ro | tr -d '\\n') = 10 ]
if dd if=/data of=/dev/\$a bs=4k count=1 conv=fsync 2>/dev/null; then exit 1; fi
dd if=/data of=/dev/\$b bs=4k count=1 conv=fsync 2>/dev/null
cd /sys/class/scsi_disk/0:0:1:0
[ \"\$(cat cache_type) \$(cat FUA)\" = 'write back 1' ]
echo 'write through' >cache_type
[ \"\$(cat cache_type)\" = 'write through' ]
dd if=/data of=/dev/\$b bs=4k count=1 oflag=direct 2>/dev/null
dd if=/dev/zero of=/dev/\$b bs=1M count=8 oflag=direct 2>/dev/null
[ \$(cat provisioning_mode) = full ]"
guest_with "$scratch/data"
described() {
	new_disks raw && cp "$scratch/a" "$scratch/before" &&
		well --disk "$scratch/a,bus=scsi,readonly,format=raw,serial=number-one" --disk "$scratch/b,bus=scsi,snapshot=off,format=raw" &&
		cmp "$scratch/a" "$scratch/before"
}
check "what it says of itself" described

# A disc: its bytes; and, where the host can make one, its files.
script="modprobe virtio_scsi
modprobe sr_mod
modprobe isofs
until [ -b /dev/sr0 ]; do sleep 0.1; done
[ \$(cat /sys/block/sr0/ro /sys/block/sr0/removable | tr -d '\\n') = 11 ]
[ \"\$(sha256sum </dev/sr0)\" = \"\$(cat /disc.sum)\" ]
if dd if=/dev/zero of=/dev/sr0 bs=2k count=1 2>/dev/null; then exit 1; fi
[ ! -f /is-iso ] || { mkdir /mnt; mount -t iso9660 /dev/sr0 /mnt; [ \"\$(sha256sum </mnt/a-file.with_a.Long.name)\" = '$sum' ]; umount /mnt; }"
disc() {
	disc=$1
	shift
	sha256sum <"$disc" >"$scratch/disc.sum"
	guest_with "$scratch/disc.sum" "$@"
	well --cdrom "$disc"
}
head -c 3000320 /dev/urandom >"$scratch/disc"
check "a disc" disc "$scratch/disc"
make_iso=$(command -v genisoimage || command -v xorrisofs || true)
if [ -n "$make_iso" ]; then
	mkdir "$scratch/tree"
	cp "$scratch/data" "$scratch/tree/a-file.with_a.Long.name"
	"$make_iso" -quiet -R -o "$scratch/iso" "$scratch/tree" && : >"$scratch/is-iso"
	check "a disc with files" disc "$scratch/iso" "$scratch/is-iso"
else
	skip "a disc with files" "neither genisoimage nor xorriso is installed"
fi
finish
