#!/bin/sh
# NVMe: what Linux's driver writes to disks, by several queues, is in their images, what it trims and zeroes is given back; a disk that is read-only is not written.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
kernel=generic

head -c 1000000 /dev/urandom >"$scratch/data"
sum=$(sha256sum <"$scratch/data")

# Which is which their serial numbers say.
script="modprobe crc32c_generic
modprobe ext4
modprobe nvme
until [ -b /dev/nvme0n1 ] && [ -b /dev/nvme1n1 ] && [ -b /dev/nvme2n1 ]; do sleep 0.1; done
for n in 0 1 2; do
	case \$(cat /sys/class/nvme/nvme\$n/serial) in a*) a=nvme\${n}n1 ;; b*) b=nvme\${n}n1 ;; *) c=nvme\${n}n1 ;; esac
done
[ \$(cat /sys/block/\$a/size) = 131072 ]
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
dd if=/data of=/dev/\$b bs=64k seek=96 count=12 conv=fsync 2>/dev/null
blkdiscard -o 6291456 -l 524288 /dev/\$b
[ \"\$(head -c 1000000 /dev/\$c | sha256sum)\" = '$sum' ]
if dd if=/data of=/dev/\$c bs=4k count=1 conv=fsync 2>/dev/null; then exit 1; fi
[ \$(cat /sys/class/nvme/nvme0/queue_count) = \$((\$(nproc) + 1)) ]
grep 'MSI.*nvme0q1' /proc/interrupts"
guest_with "$scratch/data"

# writes [doppel's options]
writes() {
	rm -f "$scratch/a" "$scratch/b"
	"$doppel" image create --quiet -f raw "$scratch/a" 64M && "$doppel" image create --quiet -f qcow2 "$scratch/b" 200G &&
		cp "$scratch/data" "$scratch/c" && truncate -s 1000448 "$scratch/c" || return 1
	sum_c=$(sha256sum <"$scratch/c")
	well --disk "$scratch/a,bus=nvme,format=raw,serial=a1" --disk "$scratch/b,bus=nvme,discard=on,serial=b1" \
		--disk "$scratch/c,bus=nvme,format=raw,readonly" "$@" || return 1
	"$doppel" image check "$scratch/b" || return 1
	"$doppel" image convert --quiet -O raw "$scratch/b" "$scratch/b.raw" && tail -c +209715200001 "$scratch/b.raw" | cmp -n 1000000 - "$scratch/data" || return 1
	tail -c +6291457 "$scratch/b.raw" | cmp -n 524288 - /dev/zero || return 1
	[ "$(sha256sum <"$scratch/c")" = "$sum_c" ] || return 1
	! command -v e2fsck >/dev/null || e2fsck -fn "$scratch/a"
}
check "NVMe, engine bt, 2 CPUs" writes --engine bt --cpus 2
check "NVMe, virtual time" writes --clock virtual
finish
