#!/bin/sh
# Machines that are saved in the middle of what they do and go on in a new process: bare-metal guests and boots, under both engines, from one
# to the other, under both clocks. See snapshot.c.
#   SNAPSHOT_ROUNDS   how often, each time at other moments (default: once, and not every guest)
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
snapshot=${SNAPSHOT:-build/release/tests/snapshot/snapshot}
snapshot_asan=${SNAPSHOT_ASAN:-}
guest_dir=${GUEST_DIR:-build/guest}
rounds=${SNAPSHOT_ROUNDS:-1}
# The signal stack at a thread's end is not the one that it wants to find.
export ASAN_OPTIONS="${ASAN_OPTIONS:-use_sigaltstack=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0}"

# The files themselves may be made anew while this runs.
guest=$scratch/guest
mkdir "$guest"
cp -R "$(scripts/get-guest.sh --where)"/* "$guest" 2>/dev/null

# run_guest NAME [options]: what all parts wrote together is the whole of the guest's results, and all of them are good.
run_guest() {
	name=$1
	shift
	rm -rf "$scratch/run"
	mkdir "$scratch/run"
	timeout 200 "$snapshot" --kernel "$guest_dir/test_$name.elf" --debug-exit --status 1 --folder "$scratch/run" "$@" ||
		return 1
	cat "$scratch/run"/console.[0-9] >"$scratch/tap"
	grep -A 3 -e '^not ok' -e '^Bail out' "$scratch/tap"
	plan=$(sed -n 's/^1\.\.//p' "$scratch/tap")
	good=$(grep -c '^ok ' "$scratch/tap")
	[ "$plan" = "$good" ] || { echo "$good good results, ${plan:-no} planned"; return 1; }
}

# boot KERNEL INITRD [options]: to the end of a boot.
boot() {
	kernel=$1
	initrd=$2
	shift 2
	rm -rf "$scratch/run"
	mkdir "$scratch/run"
	timeout 500 "$snapshot" --kernel "$guest/$kernel/vmlinuz" --initrd "$guest/$initrd" --memory 256 \
		--append "console=ttyS0 quiet doppel_run=poweroff" --folder "$scratch/run" "$@" || return 1
	cat "$scratch/run"/serial.[0-9] >"$scratch/said"
	grep -q 'reboot: Power down' "$scratch/said" || { tail -n 5 "$scratch/said"; return 1; }
}

cpu_counts() {
	case $1 in
	smp*) echo "2 4" ;;
	smc* | a20) echo "1 2" ;;
	*) echo 1 ;;
	esac
}

all=$(for f in tests/guest/test_*.c; do basename "$f" .c | sed s/^test_//; done)
if [ "$rounds" = 1 ]; then
	names="a20 apic breakpoints gates interrupts priority smp smc step timers v86 x87"
else
	names=$all
fi

round=1
while [ "$round" -le "$rounds" ]; do
	for name in $names; do
		for cpus in $(cpu_counts "$name"); do
			check "$name: $cpus CPUs, bt and interp in turns, virtual time, round $round" run_guest "$name" \
				--cpus "$cpus" --engine bt --load-engine interp --seed "$round" --stops 4
			check "$name: $cpus CPUs, bt, host's time, round $round" run_guest "$name" \
				--cpus "$cpus" --clock host --within 60 --seed "$round"
		done
	done
	if [ -f "$guest/cloud/vmlinuz" ]; then
		for cpus in ${LONG:+1} 2; do
			check "64-bit kernel, $cpus CPUs, virtual time, round $round" boot cloud initrd.cpio.gz \
				--cpus "$cpus" --seed "$round" --stops 2
		done
		check "64-bit kernel, 2 CPUs, host's time, round $round" boot cloud initrd.cpio.gz --cpus 2 --clock host \
			--within 2000 --seed "$round"
	else
		skip "64-bit kernel" "not here: scripts/get-guest.sh"
	fi
	if [ -f "$guest/686/vmlinuz" ] && [ -f "$guest/initrd-i386.cpio.gz" ]; then
		check "32-bit kernel, host's time, round $round" boot 686 initrd-i386.cpio.gz --clock host --within 2000 \
			--seed "$round"
		[ "$rounds" = 1 ] || check "32-bit kernel, virtual time, round $round" boot 686 initrd-i386.cpio.gz \
			--seed "$round" --stops 2
	else
		skip "32-bit kernel" "not here: scripts/get-guest.sh --test"
	fi
	round=$((round + 1))
done

# Damaged: refused, and the machine is as it was; or loaded, and the machine runs, whatever that comes to.
hostile() {
	timeout 500 "$1" --kernel "$guest_dir/test_faults.elf" --memory 4 --debug-exit --folder "$scratch" --hostile "$2" \
		--seed "$rounds" --engine "$3"
}
for engine in interp bt; do
	check "damaged records: $engine" hostile "$snapshot" $((rounds * 300)) "$engine"
	[ -z "$snapshot_asan" ] || check "damaged records: $engine, address sanitizer" hostile "$snapshot_asan" 200 "$engine"
done
finish
