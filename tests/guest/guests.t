#!/bin/sh
# The bare-metal guests under every engine and both clocks; with virtual time on another processor model, for the other vendor's
# ways. A guest prints TAP of its own; here one line stands for each run.
#   ENGINES   words, as --engine takes them (default: below)
#   LONG      if set, with the translator's switches by the host's clock too
#   GUESTS    names of the guests to run (default all)
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
guest_dir=${GUEST_DIR:-build/guest}
# For a doppel that was built with the thread sanitizer.
export TSAN_OPTIONS="${TSAN_OPTIONS:-suppressions=tests/guest/tsan.supp}"

# A guest without its PVH note is started in 64-bit mode, at its ELF entry.
plain_elf() {
	objcopy -R .note "$guest_dir/test_start.elf" "$scratch/plain.elf" || return 1
	status=0
	"$doppel" run --kernel "$scratch/plain.elf" --memory 64M --serial null --debug-console stdio --debug-exit </dev/null ||
		status=$?
	[ "$status" = 1 ]
}

# run_guest NAME [doppel's options]: fine when it ends by itself, with all of its checks made and none failed.
run_guest() {
	name=$1
	shift
	status=0
	timeout 60 "$doppel" run --kernel "$guest_dir/test_$name.elf" --memory 64M --serial null --debug-console stdio \
		--debug-exit --on-triple-fault report "$@" >"$scratch/tap" 2>"$scratch/errors" </dev/null || status=$?
	grep -A 3 -e '^not ok' -e '^Bail out' "$scratch/tap"
	cat "$scratch/errors"
	plan=$(sed -n 's/^1\.\.//p' "$scratch/tap")
	results=$(grep -c -e '^ok ' -e '^not ok ' "$scratch/tap")
	[ "$status" = 1 ] || echo "exit status $status, not 1"
	[ "$plan" = "$results" ] || echo "$results results, ${plan:-no} planned; the last: $(tail -n 1 "$scratch/tap")"
	[ "$status" = 1 ] && [ "$plan" = "$results" ]
}

# How many processors a guest is run with.
cpu_counts() {
	case $1 in
	smp*) echo "2 4" ;;
	smc* | a20) echo "1 2" ;;
	pam) echo "1 2 4" ;;
	*) echo 1 ;;
	esac
}

names=${GUESTS:-$(for f in tests/guest/test_*.c; do basename "$f" .c | sed s/^test_//; done)}
check "start: as a plain ELF64 executable" plain_elf
for engine in ${ENGINES:-interp bt bt,block=1 bt,link=off bt,tlb=0 bt,tlb=2}; do
	for run in "host host" "virtual v2"; do
		clock=${run% *}
		case $engine,$clock,${LONG:-} in bt,*,host,) continue ;; esac
		model=${run#* }
		for guest in $names; do
			for cpus in $(cpu_counts "$guest"); do
				check "$guest: $engine, $clock clock, CPU model $model, $cpus CPUs" \
					run_guest "$guest" --engine "$engine" --clock "$clock" --cpu "$model" --cpus "$cpus"
			done
		done
	done
done
finish
