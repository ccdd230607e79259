#!/bin/sh
# Some thousand hostile rounds, the same ones every time, and sessions that found something once; `make isolation` goes on for longer.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
has_bt || { echo "1..0 # SKIP engine bt does not run on this host"; exit; }
isolation=${ISOLATION:-build/release/tests/isolation/isolation}

# Both sides say what happens, and as little as nothing is a mistake.
traces() {
	"$isolation" --seed 7 --sessions 1 --trace "$scratch/trace" && grep -q '^exceptions: ' "$scratch/trace.interp" &&
		grep -q '^exceptions: ' "$scratch/trace.bt"
}

check "150 sessions" "$isolation" --seed 1 --sessions 150
# As tests/guest/room.t, with the address sanitizer where that was built.
check "40 sessions without room" "${ISOLATION_ASAN:-$isolation}" --seed 1 --sessions 40 --interp interp,stubs=64,arena=8 \
	--engine bt,stubs=64,arena=8,cache=1,blocks=8,tables=1,windows=8,mappings=1024
check "traces" traces
grep -v '^#' tests/isolation/seeds >"$scratch/seeds"
while read -r seed steps engine what; do
	[ "$engine" = - ] && engine=
	check "seed $seed: $what" "$isolation" --seed "$seed" --sessions 1 --step "$steps" ${engine:+--engine "$engine"}
done <"$scratch/seeds"
finish
