#!/bin/sh
# Every fuzz target for a fixed number of inputs from a fixed seed: seconds each, the same inputs every time.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
runs=${FUZZ_RUNS:-8000}

# Where the Makefile does not say which: all that were built.
for target in ${FUZZERS-build/fuzz/tests/fuzz/fuzz_*}; do
	# The isolation fuzzer takes a slow program for one that hangs: tests/isolation runs it without sanitizers.
	case $target in *.d | */fuzz_isolation) continue ;; esac
	inputs=$runs
	# Each is hundreds of decoded instructions, a machine saved and loaded some times, or an image opened and checked some times.
	case $target in */fuzz_step | */fuzz_machine_state | */fuzz_qcow2) inputs=$((runs / 8)) ;; esac
	check "${target##*/}: $inputs inputs" "$target" -runs="$inputs" -seed=1 -max_total_time=15 -timeout=10 -rss_limit_mb=4096 \
		-artifact_prefix="$scratch/"
done
finish
