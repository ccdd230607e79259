#!/bin/sh
# An engine is one file (step.c) and one row (table.c): what was written for two runs a third one, which nothing but these knows of.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${MORE_ENGINES:-build/release/tests/engines/engines}
guest_dir=${GUEST_DIR:-build/guest}

# What a guest counts under this engine and virtual time, and the engine's own lines of --stats, are in NAME.stats.
counted() {
	status=0
	timeout 100 "$doppel" run --kernel "$guest_dir/test_$1.elf" --memory 64M --cpus "$3" --engine "$2" --clock virtual --stats \
		--serial null --debug-console "file:$scratch/$2.tap" --debug-exit --on-triple-fault report \
		</dev/null >"$scratch/$2.stats" 2>&1 || status=$?
	[ "$status" = 1 ]
}
counts() { grep 'instructions counted' "$scratch/$1.stats" | sed 's/^engine [a-z]*, //'; }
same() {
	counted "$1" interp "$2" && counted "$1" step "$2" && cmp "$scratch/interp.tap" "$scratch/step.tap" || return 1
	counts interp >"$scratch/interp.counts"
	counts step >"$scratch/step.counts"
	diff "$scratch/interp.counts" "$scratch/step.counts"
}
# Each instruction was a step of its own, and the vCPUs' steps are the machine's.
one_by_one() {
	all=$(sed -n 's/.*guest time.* \([0-9]*\) instructions counted$/\1/p' "$scratch/step.stats")
	sed -n 's/^  \([0-9]*\) single steps, of \([0-9]*\); .*/\1 \2/p' "$scratch/step.stats" |
		awk -v all="$all" '{ sum += $1; if ($2 != all) exit 1 } END { print sum, all; exit sum != all }'
}
is_told() { grep -q 'told of [1-9][0-9]* writes to code, [1-9][0-9]* flushes' "$scratch/step.stats"; }
is_named() { "$doppel" run --kernel x --engine none 2>&1 | grep "there are: auto, step, interp, bt"; }

check "doctor knows it" sh -c "'$doppel' doctor | grep 'engine step  *usable: interprets one instruction at a time'"
check "so does who asks for what there is not" is_named
check "it takes the options of all engines" counted smc step,arena=8 1
for guest in smc faults smp; do
	for cpus in 1 2; do
		[ "$guest $cpus" != "smp 1" ] || continue
		check "$guest, $cpus CPUs: to the guest it is the interpreter" same "$guest" "$cpus"
		check "$guest, $cpus CPUs: every instruction was counted, alone" one_by_one
	done
done
check "it was told of code and translations that changed" is_told
check "bare-metal guests, both clocks" env DOPPEL="$doppel" ENGINES=step \
	GUESTS="a20 debug faults interrupts modes paging segments shadow smc smp step tasks timers v86" tests/guest/guests.t
finish
