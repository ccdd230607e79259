#!/bin/sh
# virtio-pmem: a file as a file system that the guest uses without a cache of its own (DAX); what it wrote is in the file; a file that is cut meanwhile.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
kernel=generic
need_modules

# The drivers of file systems came later to what is fetched.
has_dax() { cpio -it --quiet <"$guest/generic-modules/modules.cpio" | grep -q 'crc32c_generic.ko$' && command -v mke2fs >/dev/null; }
no_dax="no mke2fs, or no driver of ext4: remove the folder generic-modules of the cache, run scripts/get-guest.sh"
# dax NAME FUNCTION...: a check that needs them.
dax() {
	if has_dax; then
		check "$@"
	else
		skip "$1" "$no_dax"
	fi
}

pmem=$scratch/pmem
new_file() {
	rm -f "$pmem"
	truncate -s 64M "$pmem"
	mke2fs -q -t ext4 -b 4096 "$pmem"
}
head -c 8000000 /dev/urandom >"$scratch/data"
sum=$(sha256sum <"$scratch/data")
device="modprobe nd_pmem
modprobe virtio_pmem
until [ -b /dev/pmem0 ]; do sleep 0.1; done"
mount="$device
modprobe crc32c_generic
modprobe ext4
mkdir /mnt"

script="$device
dd if=/data of=/dev/pmem0 bs=4k seek=100 conv=fsync 2>/dev/null
[ \$(cat /sys/block/pmem0/size) = 131072 ]
[ \$(tail -c 8 /dev/pmem0) = the-end. ]"
guest_with "$scratch/data"
as_memory() {
	rm -f "$pmem"
	truncate -s 67108856 "$pmem"
	printf the-end. >>"$pmem"
	well --pmem "$pmem" "$@" && tail -c +409601 "$pmem" | head -c 8000000 | cmp - "$scratch/data"
}
check "a file as a disk, engine bt, 2 CPUs" as_memory --engine bt --cpus 2
long check "the same, engine interp, 4 GiB of memory" as_memory --engine interp --memory 4G
check "the same in virtual time" as_memory --clock virtual

script="$mount
mount -t ext4 -o dax /dev/pmem0 /mnt
grep '/mnt ext4.*dax' /proc/mounts
cp /data /mnt/data
cp /bin/busybox /mnt
/mnt/busybox sha256sum </mnt/data
sync
dd if=/mnt/data of=/mnt/again bs=64k conv=fsync 2>/dev/null
umount /mnt
mount -t ext4 -o dax /dev/pmem0 /mnt
cmp /mnt/again /data
umount /mnt"
guest_with "$scratch/data"
works() {
	new_file
	well --pmem "$pmem" "$@" || return 1
	e2fsck -fn "$pmem" || return 1
	debugfs -R 'cat /again' "$pmem" 2>/dev/null | sha256sum | grep -qF "${sum%% *}"
}
dax "ext4 with DAX, engine bt, 2 CPUs" works --engine bt --cpus 2
long dax "ext4, engine interp" works --engine interp
dax "ext4 in virtual time, 4 GiB of memory" works --clock virtual --memory 4G

script="$mount
mount -t ext4 -o ro,dax,noload /dev/pmem0 /mnt
cmp /mnt/again /data
umount /mnt"
guest_with "$scratch/data"
only_read() {
	before=$(sha256sum <"$pmem")
	chmod 444 "$pmem"
	well --pmem "$pmem,readonly" && [ "$(sha256sum <"$pmem")" = "$before" ]
}
dax "a file that is only read" only_read

# Cut while the guest runs: it reads zeros, and goes on.
script="$device
echo re\"ad\"y
until [ -z \"\$(dd if=/dev/pmem0 bs=1M skip=63 count=1 iflag=direct 2>/dev/null | tr -d '\\\\0' | head -c 1)\" ]; do sleep 0.1; done
dd if=/dev/zero of=/dev/pmem0 bs=1M count=64 conv=fsync 2>/dev/null"
guest_with -
cut() {
	head -c 67108864 /dev/zero | tr '\0' x >"$scratch/cut"
	timeout "$limit" "$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$scratch/initrd" --append "console=ttyS0 quiet $append" \
		--pmem "$scratch/cut" >"$scratch/out" 2>&1 </dev/null &
	pid=$!
	until grep -q ready "$scratch/out"; do kill -0 $pid 2>/dev/null || break; sleep 0.05; done
	: >"$scratch/cut"
	wait $pid
	status=$?
	cat "$scratch/out"
	[ $status = 0 ] && grep -q 'all is well' "$scratch/out" && grep -q 'somebody has cut a file' "$scratch/out" && [ "$(stat -c %s "$scratch/cut")" = 67108864 ]
}
check "a file that somebody cuts" cut
says() {
	! "$doppel" run --kernel "$guest/$kernel/vmlinuz" --pmem "$1" >"$scratch/says" 2>&1 && grep -qF "$2" "$scratch/says"
}
check "a size that Linux does not take" says "$scratch/data" "multiple of 2 MiB"
finish
