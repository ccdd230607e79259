#!/bin/sh
# Some thousand hostile rounds, the same ones every time, and sessions that found something once; `make isolation` goes on for longer.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
has_bt || { echo "1..0 # SKIP engine bt does not run on this host"; exit; }
isolation=${ISOLATION:-build/release/tests/isolation/isolation}

check "150 sessions" "$isolation" --seed 1 --sessions 150
grep -v '^#' tests/isolation/seeds >"$scratch/seeds"
while read -r seed steps engine what; do
	[ "$engine" = - ] && engine=
	check "seed $seed: $what" "$isolation" --seed "$seed" --sessions 1 --step "$steps" ${engine:+--engine "$engine"}
done <"$scratch/seeds"
finish
