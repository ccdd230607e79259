#!/bin/sh
# A processor in thousands of random states: by the interpreter alone, with all that devices may do meanwhile, and beside engine bt; and
# cases that found something once.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
step=${STEP:-build/release/tests/step/step}

check "interp: 6000 cases" "$step" --seed 1 --cases 6000
check "interp and bt: 1500 cases" "$step" --seed 1 --cases 1500 --other bt,block=1
# As tests/guest/room.t, with the address sanitizer where that was built.
check "interp without room: 2000 cases" "${STEP_ASAN:-$step}" --seed 1 --cases 2000 --first interp,stubs=64,arena=8
check "interp and bt without room: 500 cases" "${STEP_ASAN:-$step}" --seed 1 --cases 500 --first interp,stubs=64,arena=8 \
	--other bt,stubs=64,arena=8,cache=1,blocks=8,tables=1,windows=8,mappings=1024
grep -v '^#' tests/step/seeds >"$scratch/seeds"
while read -r seed cases other what; do
	check "seed $seed, $other: $what" "$step" --seed "$seed" --cases "$cases" --other "$other"
done <"$scratch/seeds"
finish
