#!/bin/sh
# The include rule holds, and the check of it finds what breaks it.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh

check "src/ keeps the include rule" scripts/check-includes src

# refused FILE LINE: a tree with just that line in that file does not pass.
refused() {
	rm -rf "$scratch/src"
	mkdir -p "$scratch/src/$(dirname "$1")"
	echo "$2" >"$scratch/src/$1"
	! scripts/check-includes "$scratch/src"
}
allowed() { ! refused "$@"; }

check "cpu may include mem" allowed cpu/a.c '#include "mem/mem.h"'
check "its own private header too" allowed cpu/a.c '#include "cpu/private.h"'
check "and libc" allowed cpu/a.c '#include <stdio.h>'
check "the translator may use the interpreter" allowed engine/bt/a.c '#include "engine/interp/interp.h"'
check "base includes nobody" refused base/a.c '#include "host/host.h"'
check "cpu does not include the bus" refused cpu/a.c '#include "bus/bus.h"'
check "also with blanks in odd places" refused cpu/a.c '  #  include   "bus/bus.h"'
check "engines do not see the bus" refused engine/interp/a.c '#include "bus/bus.h"'
check "private headers stay private" refused engine/interp/a.c '#include "cpu/private.h"'
check "the interpreter does not use the translator" refused engine/interp/a.c '#include "engine/bt/bt.h"'
check "only decode.c sees Zydis" refused cpu/a.c '#include <Zydis/Zydis.h>'
check "which does" allowed cpu/decode.c '#include <Zydis/Zydis.h>'
check "a header is named with its folder" refused cpu/a.c '#include "private.h"'
check "an unknown folder" refused cpu/a.c '#include "gpu/gpu.h"'
check "a file in an unknown folder" refused gpu/a.c '#include "base/base.h"'
check "computed includes" refused cpu/a.c '#include HEADER'
check "no sources at all is an error" sh -c "mkdir -p $scratch/none && ! scripts/check-includes $scratch/none"
finish
