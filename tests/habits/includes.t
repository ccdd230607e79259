#!/bin/sh
# The include rule holds, and the check of it finds what breaks it.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh

check "src/ keeps the include rule" scripts/check-includes src "${OBJECTS:-build/release/obj}"

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
# linked FILE CODE CALLED CODE: a tree of these two files, whose objects are looked at.
linked() {
	rm -rf "$scratch/src" "$scratch/obj"
	for file in "$1" "$3"; do
		mkdir -p "$scratch/src/$(dirname "$file")" "$scratch/obj/$(dirname "$file")"
	done
	echo "$2" >"$scratch/src/$1"
	echo "$4" >"$scratch/src/$3"
	for file in "$1" "$3"; do
		gcc -c -o "$scratch/obj/${file%.c}.o" "$scratch/src/$file" || return 1
	done
	scripts/check-includes "$scratch/src" "$scratch/obj"
}
not_linked() { ! linked "$@" && scripts/check-includes "$scratch/src"; }

check "cpu may call mem" linked cpu/a.c 'void f(void); void g(void) { f(); }' mem/b.c 'void f(void) {}'
check "it does not call the bus, whatever it declares" not_linked cpu/a.c 'void f(void); void g(void) { f(); }' bus/b.c 'void f(void) {}'
check "nor use its data" not_linked cpu/a.c 'extern int f; int g(void) { return f; }' bus/b.c 'int f = 1;'
check "the translator may call the interpreter" linked engine/bt/a.c 'void f(void); void g(void) { f(); }' engine/interp/b.c 'void f(void) {}'
check "the interpreter does not call the translator" not_linked engine/interp/a.c 'void f(void); void g(void) { f(); }' engine/bt/b.c 'void f(void) {}'
check "what is of the file alone may be called the same" linked cpu/a.c 'static void f(void) {} void g(void) { f(); }' bus/b.c 'void f(void) {}'
stale() {
	linked cpu/a.c 'void f(void); void g(void) { f(); }' mem/b.c 'void f(void) {}' && mv "$scratch/obj/mem" "$scratch/obj/bus" &&
		scripts/check-includes "$scratch/src" "$scratch/obj"
}
check "objects without a source do not count" stale
check "no objects at all is an error" sh -c "mkdir -p $scratch/none && ! scripts/check-includes src $scratch/none"
check "no sources at all is an error" sh -c "mkdir -p $scratch/none && ! scripts/check-includes $scratch/none"
finish
