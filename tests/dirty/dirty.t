#!/bin/sh
# The log of written pages compared with all of memory: bare-metal guests at short intervals, and boots every 10 ms of guest time.
# `make dirty` boots for longer (DIRTY_END: how many instructions), and LONG=1 is more of them.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
dirty=${DIRTY:-build/release/tests/dirty/dirty}
guest_dir=${GUEST_DIR:-build/guest}
guest=$(scripts/get-guest.sh --where)
engines=interp
has_bt && engines="interp bt${LONG:+ bt,block=1 bt,tlb=0}"

# Those that run for long are compared less often: each time all of memory is.
bare() {
	timeout 600 "$dirty" --kernel "$guest_dir/test_$1.elf" --memory 64 --debug-exit --interval "$4" --engine "$2" --cpus "$3"
}

boot() {
	timeout "${DIRTY_LIMIT:-600}" "$dirty" --kernel "$guest/cloud/vmlinuz" --initrd "$guest/initrd.cpio.gz" --append "console=ttyS0" \
		--memory "${DIRTY_MEMORY:-128}" --interval 10000000 --end "${DIRTY_END:-300000000}" --engine "$@"
}

# Pages that come from elsewhere when they are needed: the guest does the same, to the last byte of RAM.
origin() {
	boot "$1" --cpus "$2" >"$scratch/all" && boot "$1" --cpus "$2" --origin >"$scratch/fetched" || return 1
	grep . "$scratch/all" "$scratch/fetched"
	all=$(sed -n 's/^RAM at the end: \([^;]*\);.*/\1/p' "$scratch/all")
	[ -n "$all" ] && grep -q "^RAM at the end: $all; [1-9]" "$scratch/fetched"
}

for engine in $engines; do
	for name in aliases gates modes odd pam paging paging32 segments shared_code smc syscall tasks v86 x87; do
		check "$name: $engine" bare "$name" "$engine" 1 50000
	done
	for name in apic interrupts wrap; do
		check "$name: $engine" bare "$name" "$engine" 1 5000000
	done
	check "smp: $engine" bare smp "$engine" 4 500000
done
for engine in $engines; do
	case $engine in
	*,*) ;;
	*)
		for cpus in 1 2; do
			[ "$engine$cpus" != interp2 ] || [ "${LONG:-}" ] || continue
			check "the cloud kernel's boot, and with all of memory elsewhere, $cpus CPUs: $engine" origin "$engine" "$cpus"
		done
		;;
	esac
done
finish
