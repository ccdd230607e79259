#!/bin/sh
# virtio-blk: what Linux writes to a disk is in the image, in every format and by every way to the device; a disk that may not be written is not.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

head -c 1000000 /dev/urandom >"$scratch/data"
sum=$(sha256sum <"$scratch/data")

# On vda a file system with ten copies, which are read again from the disk; on vdb the bytes themselves, from its second megabyte on.
script="modprobe virtio_blk
mke2fs -F /dev/vda >/dev/null 2>&1
mkdir /mnt
mount /dev/vda /mnt
for n in 0 1 2 3 4 5 6 7 8 9; do cp /data /mnt/\$n & done
wait
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -o ro /dev/vda /mnt
for n in 0 1 2 3 4 5 6 7 8 9; do [ \"\$(sha256sum </mnt/\$n)\" = '$sum' ]; done
umount /mnt
dd if=/data of=/dev/vdb bs=1M seek=1 conv=fsync 2>/dev/null
[ \"\$(dd if=/dev/vdb bs=4k skip=256 count=245 iflag=direct 2>/dev/null | head -c 1000000 | sha256sum)\" = '$sum' ]"

new_disks() {
	rm -f "$scratch/a" "$scratch/b"
	"$doppel" image create --quiet -f "$1" "$scratch/a" 64M && "$doppel" image create --quiet -f "$1" "$scratch/b" 8M >/dev/null
}

# same_data FORMAT: what is on the host afterwards.
same_data() {
	for disk in a b; do
		[ "$1" = raw ] || "$doppel" image check "$scratch/$disk" || return 1
		"$doppel" image convert --quiet -O raw "$scratch/$disk" "$scratch/$disk.raw" || return 1
	done
	tail -c +1048577 "$scratch/b.raw" | cmp -n 1000000 - "$scratch/data" || return 1
	! command -v e2fsck >/dev/null || e2fsck -fn "$scratch/a.raw"
}

# writes FORMAT OPTIONS [doppel's options]
writes() {
	format=$1 options=$2
	shift 2
	new_disks "$format" && well --disk "$scratch/a,format=$format,$options" --disk "$scratch/b,format=$format,$options" "$@" && same_data "$format"
}

guest_with "$scratch/data"
check "raw, engine bt, 2 CPUs" writes raw discard=on --engine bt --cpus 2
check "raw, past the host's cache, engine interp" writes raw cache=none --engine interp
check "qcow2, engine bt, 4 CPUs, one queue" writes qcow2 queues=1 --engine bt --cpus 4
check "qcow2, virtual time" writes qcow2 cache=unsafe --clock virtual
modprobe=force_legacy=1
append="$append pci=nomsi"
guest_with "$scratch/data"
check "raw, legacy, INTx" writes raw discard=off
modprobe=
append=doppel_run=/run

# The same run twice under virtual time: what the guest prints of its clock is the same.
script="$script
cat /proc/uptime /proc/interrupts
dmesg | tail -n 20"
guest_with "$scratch/data"
same_twice() {
	for n in 1 2; do
		new_disks raw
		timeout "$limit" "$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$scratch/initrd" --append "console=ttyS0 $append" --clock virtual --cpus 2 \
			--disk "$scratch/a,format=raw" --disk "$scratch/b,format=raw" >"$scratch/run$n" </dev/null || return 1
	done
	grep -q 'all is well' "$scratch/run1" && cmp "$scratch/run1" "$scratch/run2"
}
check "virtual time: the same run twice" same_twice

script="modprobe virtio_blk
[ \$(cat /sys/block/vda/ro /sys/block/vdb/ro | tr -d '\\n') = 10 ]
[ \"\$(cat /sys/block/vda/serial)\" = 'number one' ]
if dd if=/data of=/dev/vda bs=4k count=1 2>/dev/null; then exit 1; fi
dd if=/data of=/dev/vdb bs=4k count=1 conv=fsync 2>/dev/null
[ \$(cat /sys/block/vdb/queue/write_cache | tr -d ' ') = writeback ]
echo 'write through' >/sys/block/vdb/cache_type
[ \$(cat /sys/block/vdb/queue/write_cache | tr -d ' ') = writethrough ]"
guest_with "$scratch/data"
untouched() {
	new_disks raw && cp "$scratch/a" "$scratch/before" &&
		well --disk "$scratch/a,readonly,format=raw,serial=number one" --disk "$scratch/b,snapshot,format=raw" &&
		cmp "$scratch/a" "$scratch/before" && cmp -n 8388608 "$scratch/b" /dev/zero
}
# An overlay elsewhere than its backing file is opened when the user says so alone.
refused_backing() {
	new_disks qcow2 && mkdir -p "$scratch/elsewhere" && mv "$scratch/a" "$scratch/elsewhere/base" &&
		"$doppel" image create --quiet --backing any -f qcow2 -b "$scratch/elsewhere/base" -F qcow2 "$scratch/a" || return 1
	rm -rf "$scratch/deeper" && mkdir "$scratch/deeper" && mv "$scratch/a" "$scratch/deeper/a" || return 1
	for rule in "" ,backing=near ,backing=none ,backing=far; do
		! "$doppel" run --kernel "$guest/$kernel/vmlinuz" --disk "$scratch/deeper/a$rule" 2>>"$scratch/refusals" || return 1
	done
	cat "$scratch/refusals"
	[ "$(grep -c 'backing=any allows it' "$scratch/refusals")" -ge 2 ] && grep -q "'backing' is 'far'; expected near, any or none" "$scratch/refusals"
}
check "a backing file elsewhere is refused" refused_backing
check "readonly, snapshot, a serial number, the cache's switch" untouched
finish
