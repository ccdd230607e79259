#!/bin/sh
# A processor in thousands of random states: by the interpreter alone, with all that devices may do meanwhile, and beside engine bt.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
step=${STEP:-build/release/tests/step/step}

check "interp: 4000 cases" "$step" --seed 1 --cases 4000
check "interp and bt: 300 cases" "$step" --seed 1 --cases 300 --other bt,block=1
finish
