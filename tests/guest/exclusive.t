#!/bin/sh
# Processors that keep stopping each other get on: the guests about that, on one host CPU and on all of them, in a build that lets other
# threads come in between at the worst moments (DOPPEL_ASAN, see debug_yield()), or else in the usual one.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL_ASAN:-${DOPPEL:-build/release/doppel}}
guest_dir=${GUEST_DIR:-build/guest}
# The signal stack at a thread's end is not the one that it wants to find.
export ASAN_OPTIONS="${ASAN_OPTIONS:-use_sigaltstack=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0}"
first_cpu=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*\([0-9]*\).*/\1/p' /proc/self/status)

# run_guest NAME COMMAND...: it ends by itself and no check failed.
run_guest() {
	name=$1
	shift
	status=0
	timeout 100 "$@" "$doppel" run --kernel "$guest_dir/test_$name.elf" --memory 64M --serial null --debug-console stdio \
		--debug-exit --engine "$engine" --cpus "$cpus" >"$scratch/tap" 2>"$scratch/errors" </dev/null || status=$?
	grep -e '^not ok' -e '^Bail out' "$scratch/tap"
	cat "$scratch/errors"
	[ "$status" = 1 ] || echo "exit status $status, not 1; the last line: $(tail -n 1 "$scratch/tap")"
	[ "$status" = 1 ]
}

for engine in interp bt; do
	for cpus in 2${LONG:+ 3 4} 8; do
		check "smp_exclusive: $engine, $cpus CPUs" run_guest smp_exclusive env
		check "smp_exclusive: $engine, $cpus CPUs on one" run_guest smp_exclusive taskset -c "$first_cpu"
	done
done
engine=bt
for cpus in 2 3; do
	check "smp: bt, $cpus CPUs" run_guest smp env
	check "smp: bt, $cpus CPUs on one" run_guest smp taskset -c "$first_cpu"
done
# A kick takes nothing that a user has a limited number of, which one guest could use up for all.
cpus=4
check "smp_exclusive: bt, where no signal may be queued" run_guest smp_exclusive prlimit --sigpending=0
finish
