#!/bin/sh
# vhost-user: disks of qemu-storage-daemon, which is killed while the guest writes; a folder of virtiofsd's; a network card whose other end goes away and comes back.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

socket=$scratch/socket
server=
trap 'kill -9 $server 2>/dev/null; rm -rf "$scratch"' EXIT
head -c 1000000 /dev/urandom >"$scratch/data"
sum=$(sha256sum <"$scratch/data")

# A back end in the background, as soon as it listens.
serve() {
	rm -f "$socket"
	"$@" >"$scratch/server" 2>&1 &
	server=$!
	until [ -S "$socket" ] || ! kill -0 $server 2>/dev/null; do sleep 0.05; done
}
# In the background; what it says can be waited for.
machine() {
	timeout "$limit" "$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$scratch/initrd" --append "console=ttyS0 $append" "$@" \
		>"$scratch/said" 2>&1 </dev/null &
	machine=$!
}
wait_says() { until grep -q "$1" "$scratch/said" || ! kill -0 "$machine" 2>/dev/null; do sleep 0.05; done; }
ends_well() {
	wait "$machine"
	status=$?
	cat "$scratch/said"
	[ $status = 0 ] && grep -q 'all is well' "$scratch/said"
}
stop() { kill -9 "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; }

# ---- disks ----

storage_daemon() {
	serve qemu-storage-daemon --blockdev driver=file,filename="$scratch/disk",node-name=disk --export \
		type=vhost-user-blk,id=disk,node-name=disk,writable=on,num-queues=4,addr.type=unix,addr.path="$socket"
}

# disk [doppel's options]: what the guest's script writes to a new disk is there afterwards, on a good file system.
disk() {
	rm -f "$scratch/disk" && truncate -s 64M "$scratch/disk" && storage_daemon && well --disk "vhost-user:$socket" "$@" && stop &&
		{ ! command -v e2fsck >/dev/null || e2fsck -fn "$scratch/disk"; }
}

# round: a file system with ten copies, which are read again from the disk.
files="modprobe virtio_blk
mkdir /mnt
round() {
	mke2fs -F /dev/vda >/dev/null 2>&1
	mount /dev/vda /mnt
	for n in 0 1 2 3 4 5 6 7 8 9; do cp /data /mnt/\$n & done
	wait
	umount /mnt
	echo 3 >/proc/sys/vm/drop_caches
	mount -o ro /dev/vda /mnt
	for n in 0 1 2 3 4 5 6 7 8 9; do [ \"\$(sha256sum </mnt/\$n)\" = '$sum' ]; done
	umount /mnt
}
[ \"\$(cat /sys/block/vda/cache_type)\" = 'write back' ]
echo 'write through' >/sys/block/vda/cache_type
[ \"\$(cat /sys/block/vda/cache_type)\" = 'write through' ]
echo here it is
end=\$((\$(cut -d. -f1 /proc/uptime) + \$(cat /seconds)))
round
while [ \$(cut -d. -f1 /proc/uptime) -lt \$end ]; do round; done"

# Each write that came back is there; and says which one it was.
writes="modprobe virtio_blk
block() { seq \$1 \$((\$1 + 2000)) | head -c 4096 >/block; }
echo here it is
end=\$((\$(cut -d. -f1 /proc/uptime) + 5))
count=0
while [ \$(cut -d. -f1 /proc/uptime) -lt \$end ]; do
	block \$count
	dd if=/block of=/dev/vda bs=4k seek=\$count oflag=direct conv=notrunc 2>/dev/null
	count=\$((count + 1))
done
for n in \$(seq 0 \$((count - 1))); do
	block \$n
	dd if=/dev/vda bs=4k skip=\$n count=1 iflag=direct 2>/dev/null | cmp - /block
done"

# A back end that is killed again and again while the guest works, for as long as it does.
killed() {
	rm -f "$scratch/disk" && truncate -s 64M "$scratch/disk" && storage_daemon
	machine --disk "vhost-user:$socket" "$@"
	wait_says 'here it is'
	kills=0
	while kill -0 $machine 2>/dev/null; do
		sleep 0.5
		stop
		kills=$((kills + 1))
		storage_daemon
	done
	stop
	echo "killed $kills times"
	ends_well && ! grep 'I/O error' "$scratch/said" && [ $kills -ge 2 ]
}

if command -v qemu-storage-daemon >/dev/null; then
	script=$files
	echo 5 >"$scratch/seconds"
	guest_with "$scratch/data" "$scratch/seconds"
	check "qemu-storage-daemon is killed while files are written" killed --cpus 2
	echo 0 >"$scratch/seconds"
	guest_with "$scratch/data" "$scratch/seconds"
	check "a disk of its, engine bt, 2 CPUs" disk --engine bt --cpus 2
	modprobe=force_legacy=1
	guest_with "$scratch/data" "$scratch/seconds"
	check "a legacy driver" disk
	modprobe=
	script=$writes
	guest_with -
	check "it is killed while blocks are written" killed
else
	skip "disks of qemu-storage-daemon" "it is not installed (qemu-system-common)"
fi

# ---- folders ----

virtiofsd=/usr/lib/qemu/virtiofsd
folder="modprobe virtiofs
mkdir /mnt
mount -t virtiofs shared /mnt"

# As a user in a namespace of its own, who has a /run there.
file_server() {
	# shellcheck disable=SC2016  # the inner shell's
	serve unshare -rm sh -c 'mount -t tmpfs t /run && exec "$0" --socket-path="$1" -o source="$2" -o sandbox=chroot' $virtiofsd "$socket" "$scratch/folder"
}
share() {
	file_server
	"$@" --share "vhost-user:$socket,tag=shared"
	status=$?
	stop
	return $status
}
folder_is_same() { share well "$@" && cmp "$scratch/data" "$scratch/folder/copy" && [ "$(cat "$scratch"/folder/many/* | wc -l)" = 40 ]; }

# What the guest has asked for when the server is killed, and whatever it asks for later, fails.
fails_without() {
	file_server
	machine --share "vhost-user:$socket,tag=shared"
	wait_says 'here it is'
	pkill -9 -P $server
	stop
	ends_well && grep 'all requests fail from now on' "$scratch/said"
}

if [ -x $virtiofsd ] && unshare -rm true 2>/dev/null; then
	mkdir "$scratch/folder"
	cp "$scratch/data" "$scratch/folder/data"
	script="$folder
[ \"\$(sha256sum </mnt/data)\" = '$sum' ]
cp /mnt/data /mnt/copy
ln -s data /mnt/link
cmp /mnt/link /mnt/copy
mkdir /mnt/many
for i in 1 2 3 4; do (for j in 1 2 3 4 5 6 7 8 9 10; do echo \$i \$j >/mnt/many/\$i.\$j; done) & done
wait
umount /mnt
mount -t virtiofs shared /mnt
[ \$(cat /mnt/many/* | wc -l) = 40 ]
umount /mnt"
	guest_with -
	check "a folder of virtiofsd's, 2 CPUs" folder_is_same --cpus 2
	script="$folder
echo here it is
while cat /mnt/data >/dev/null 2>&1 && echo 3 >/proc/sys/vm/drop_caches; do :; done
if ls /mnt/many; then exit 1; fi
! umount /mnt || true"
	guest_with -
	check "virtiofsd is killed" fails_without
else
	skip "folders of virtiofsd's" "it is not installed (qemu-system-common), or there are no user namespaces"
fi

# ---- network ----

net_server=${TOOLS_DIR:-build/release/tests/tools}/vhost_net
script="modprobe virtio_net
cpus=\$(grep -c ^processor /proc/cpuinfo)
[ \$(ls -d /sys/class/net/eth0/queues/tx-* | wc -l) = \$cpus ]
ip addr add 10.0.9.2/24 dev eth0
ip link set eth0 up
ping -c 50 -i 0.01 10.0.9.1 >/dev/null
echo here it is
while [ \$(cat /sys/class/net/eth0/carrier) = 1 ]; do :; done
echo cable is out
until [ \$(cat /sys/class/net/eth0/carrier) = 1 ]; do :; done
ping -c 50 -i 0.01 -w 60 10.0.9.1 >/dev/null
ping -c 5 -s 1400 10.0.9.1 >/dev/null"
guest_with -

pings() {
	serve "$net_server" "$socket"
	machine --device "virtio-net,net=vhost-user:$socket,queues=2" "$@"
	wait_says 'here it is'
	stop
	wait_says 'cable is out'
	serve "$net_server" "$socket"
	ends_well
	status=$?
	stop
	return $status
}
check "a network card with two pairs of queues, whose other end goes and comes back" pings --cpus 2
finish
