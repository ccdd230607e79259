#!/bin/sh
# A processor in thousands of random states: by the interpreter alone, with all that devices may do meanwhile, and beside engine bt; and
# cases that found something once.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
step=${STEP:-build/release/tests/step/step}

check "interp: 6000 cases" "$step" --seed 1 --cases 6000
check "interp and bt: 1500 cases" "$step" --seed 1 --cases 1500 --other bt,block=1
grep -v '^#' tests/step/seeds >"$scratch/seeds"
while read -r seed cases other what; do
	check "seed $seed, $other: $what" "$step" --seed "$seed" --cases "$cases" --other "$other"
done <"$scratch/seeds"
finish
