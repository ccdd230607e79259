#!/bin/sh
# Some thousand hostile rounds, the same ones every time; `make isolation` goes on for longer.
cd "$(dirname "$0")/../.." || exit 1
exec "${ISOLATION:-build/release/tests/isolation/isolation}" --seed 1 --sessions 150
