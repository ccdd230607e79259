#!/bin/sh
# Some thousand hostile rounds, the same ones every time; `make isolation` goes on for longer.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
has_bt || { echo "1..0 # SKIP engine bt does not run on this host"; exit; }
"${ISOLATION:-build/release/tests/isolation/isolation}" --seed 1 --sessions 150
