#!/bin/sh
# Floppy disks: what Linux's driver writes is in the image, a protected one is not written, disks of several sizes are known by themselves; SeaBIOS and GRUB start from one.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
kernel=generic

head -c 1000000 /dev/urandom >"$scratch/data"
head -c 737280 /dev/urandom >"$scratch/b"
sum=$(sha256sum <"$scratch/data")
sum_b=$(sha256sum <"$scratch/b")
script="modprobe floppy
until [ -b /dev/fd0 ] && [ -b /dev/fd1 ]; do sleep 0.1; done
[ \"\$(sha256sum </dev/fd1)\" = '$sum_b' ]
if dd if=/data of=/dev/fd1 bs=512 count=1 2>/dev/null; then exit 1; fi
dd if=/data of=/dev/fd0 bs=18k conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
[ \"\$(head -c 1000000 /dev/fd0 | sha256sum)\" = '$sum' ]"
guest_with "$scratch/data"

# copies [doppel's options]
copies() {
	truncate -s 0 "$scratch/a" && truncate -s 1440K "$scratch/a" || return 1
	boot wait 'all is well' exit 0 absent 'Call Trace' -- --initrd "$scratch/initrd" \
		--floppy "$scratch/a,format=raw" --floppy "$scratch/b,format=raw,readonly" "$@" || return 1
	cmp -n 1000000 "$scratch/a" "$scratch/data" && [ "$(sha256sum <"$scratch/b")" = "$sum_b" ]
}
check "1440 KiB and 720 KiB" copies
finish
