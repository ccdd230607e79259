#!/bin/sh
# Debian's Xen, a multiboot kernel, and under it Debian's Linux as its first domain, in ring 3: a monitor inside a machine.
# Skipped where `scripts/get-guest.sh --test` could not get it.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

if ! [ -f "$guest/xen/xen" ]; then
	echo "1..0 # SKIP no Xen: scripts/get-guest.sh --test gets it"
	exit 0
fi

for cpus in 1 2; do
	check "Linux on Xen, $cpus CPUs, powers off" \
		"$expect" -t "$limit" wait '(XEN) Bootloader: doppel' wait "Brought up $cpus CPUs" wait 'Building a PV Dom0' \
		wait 'type:xen' exit 0 -- \
		"$doppel" run --kernel "$guest/xen/xen" --append 'com1=115200 console=com1 loglvl=all' --cpus "$cpus" --memory 1G \
		--module "$guest/generic/vmlinuz,console=hvc0 quiet doppel_run=\"grep -H xen /sys/hypervisor/type\"" \
		--module "$guest/initrd.cpio.gz"
done
finish
