#!/bin/sh
# Guests under engines that have next to no room for anything, and so forget everything all the time; with the address sanitizer where
# that was built. ENGINES and GUESTS choose, as in guests.t.
cd "$(dirname "$0")/../.." || exit 1
interp=interp,stubs=64,arena=8
bt=bt,stubs=64,arena=8,cache=1,blocks=8,tables=1,windows=8,mappings=1024
export DOPPEL="${DOPPEL_ASAN:-${DOPPEL:-build/release/doppel}}"
export ENGINES="${ENGINES:-$interp $bt}"
export GUESTS="${GUESTS:-room smc links shared_code compat segments v86 x87 step}"
exec tests/guest/guests.t
