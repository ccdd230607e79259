# shellcheck shell=sh disable=SC2034,SC2154
# What the tests of rings and transports share; sourced behind lib.sh. A disk, random numbers and a network card at once, and their driver let go of the disk and taken again.

head -c 1000000 /dev/urandom >"$scratch/data"
sum=$(sha256sum <"$scratch/data")

# uses FEATURES QUEUES INTERRUPTS: bits 32 to 34 of all devices' features, queues of the disk, where a device's interrupts come from. The disk is written to and read, before and
# behind a reset by its driver.
uses() {
	script="modprobe virtio_mmio
modprobe virtio_blk
modprobe virtio_net
modprobe virtio-rng
sum() { dd if=/dev/vda bs=4k skip=\$1 count=245 iflag=direct 2>/dev/null | head -c 1000000 | sha256sum; }
dd if=/data of=/dev/vda bs=4k conv=fsync 2>/dev/null
[ \"\$(sum 0)\" = '$sum' ]
device=\$(basename \$(readlink -f /sys/block/vda/device))
cd /sys/bus/virtio/drivers/virtio_blk
echo \$device >unbind
[ ! -e /sys/block/vda ]
echo \$device >bind
cd /
[ \"\$(sum 0)\" = '$sum' ]
dd if=/data of=/dev/vda bs=4k seek=1000 conv=fsync 2>/dev/null
[ \"\$(sum 1000)\" = '$sum' ]
[ \$(ls /sys/block/vda/mq | wc -l) = $2 ]
[ \$(grep -c '^.\\{32\\}$1' /sys/bus/virtio/devices/*/features | grep -c ':1\$') = 3 ]
grep -q '$3.*virtio' /proc/interrupts
[ \$(dd if=/dev/hwrng bs=64 count=64 2>/dev/null | gzip | wc -c) -gt 4000 ]
ip link set eth0 up
printf '#!/bin/sh\n[ \$1 = bound ] && ip addr add \$ip/24 dev eth0\n' >/tmp/dhcp
chmod 755 /tmp/dhcp
udhcpc -i eth0 -s /tmp/dhcp -n -q -f 2>/dev/null
ping -c 3 -s 1400 10.0.2.2 >/dev/null
head -c 300000 /dev/vda >/dev/null"
	guest_with "$scratch/data"
}

# works QUEUES OPTIONS [doppel's options]
works() {
	queues=$1 options=$2
	shift 2
	rm -f "$scratch/disk"
	truncate -s 64M "$scratch/disk"
	well --disk "$scratch/disk,format=raw,queues=$queues$options" --device "virtio-rng$options" --device "virtio-net,net=user$options" "$@" &&
		cmp -n 1000000 "$scratch/disk" "$scratch/data"
}

packed=1.1
split=1.0
transitional=0.0

# The same run twice under virtual time: what the guest prints of its clock and its interrupts is the same.
same_twice() {
	options=$1
	script="modprobe virtio_mmio
modprobe virtio_blk
dd if=/data of=/dev/vda bs=4k conv=fsync 2>/dev/null
sha256sum /dev/vda
cat /proc/uptime /proc/interrupts
dmesg | tail -n 20"
	guest_with "$scratch/data"
	for n in 1 2; do
		rm -f "$scratch/disk"
		truncate -s 4M "$scratch/disk"
		timeout "$limit" "$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$scratch/initrd" --append "console=ttyS0 $append" --clock virtual --cpus 2 \
			--disk "$scratch/disk,format=raw$options" >"$scratch/run$n" </dev/null || return 1
	done
	grep -q 'all is well' "$scratch/run1" && cmp "$scratch/run1" "$scratch/run2"
}
