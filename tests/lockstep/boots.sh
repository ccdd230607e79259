#!/bin/sh
# Whole boots under both engines side by side: both kernels, 1 and 2 CPUs, to power-off. Arguments go to lockstep.
cd "$(dirname "$0")/../.." || exit 1
lockstep=${LOCKSTEP:-build/release/tests/lockstep/lockstep}
guest=$(scripts/get-guest.sh --where)
status=0
for kernel in cloud generic; do
	for cpus in 1 2; do
		echo "## $kernel kernel, $cpus CPUs"
		"$lockstep" --kernel "$guest/$kernel/vmlinuz" --initrd "$guest/initrd.cpio.gz" --cpus "$cpus" --memory 256 \
			--append "console=ttyS0 doppel_run=poweroff" "$@" || status=1
	done
done
exit $status
