#!/bin/sh
# Both engines side by side: random code, and whole boots of both kernels with 1 and 2 CPUs, to power-off; of the 32-bit ones too, where
# `scripts/get-guest.sh --i386` has got them. Arguments go to lockstep.
cd "$(dirname "$0")/../.." || exit 1
lockstep=${LOCKSTEP:-build/release/tests/lockstep/lockstep}
guest=$(scripts/get-guest.sh --where)
status=0
echo "## random code"
"$lockstep" --random "$(date +%s)" --sessions 5000 "$@" || status=1
for kernel in cloud generic; do
	for cpus in 1 2; do
		echo "## $kernel kernel, $cpus CPUs"
		"$lockstep" --kernel "$guest/$kernel/vmlinuz" --initrd "$guest/initrd.cpio.gz" --cpus "$cpus" --memory 256 \
			--append "console=ttyS0 doppel_run=poweroff" "$@" || status=1
	done
done
for kernel in 686 686-pae; do
	[ -f "$guest/$kernel/vmlinuz" ] || continue
	echo "## $kernel kernel"
	"$lockstep" --kernel "$guest/$kernel/vmlinuz" --initrd "$guest/initrd-i386.cpio.gz" --memory 256 \
		--append "console=ttyS0 doppel_run=poweroff" "$@" || status=1
done
exit $status
