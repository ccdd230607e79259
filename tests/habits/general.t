#!/bin/sh
# What runs while the vector registers are the guest's (src/engine/bt/fast.c) does not touch them, and calls nothing that might.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
objects=$(dirname "${DOPPEL:-build/release/doppel}")/obj

# Functions of this object, or of all under this folder but the floating-point unit's, that name a vector or x87 register.
uses_vectors() {
	objdump -d --no-show-raw-insn "$@" | awk '/^[0-9a-f]+ <.*>:$/ { name = $2 } /%(x|y|z)mm[0-9]|%mm[0-7]|%st/ { print name }' |
		sort -u
}
general() {
	# shellcheck disable=SC2046  # a list of files
	found=$(uses_vectors $(find "$objects/cpu" "$objects/mem" -name '*.o' ! -name 'fpu*' ! -name xsave.o) \
		"$objects/engine/bt/fast.o" "$objects/engine/bt/fast_insn.o" "$objects/engine/bt/code.o" "$objects/engine/bt/mode.o")
	echo "$found"
	[ -z "$found" ]
}
# fast.c and fast_insn.c call the functions of its table and those that end at the TLB: no C library, no devices.
calls_little() {
	strange=$(nm -u "$objects/engine/bt/fast.o" "$objects/engine/bt/fast_insn.o" | awk '/ U / { print $2 }' |
		grep -v -E '^(bt_.*|op_.*|cpu_load_slow|cpu_system_load|cpu_tlb_fill_marked|_GLOBAL_OFFSET_TABLE_)$')
	echo "$strange"
	[ -z "$strange" ]
}
finds_vectors() { [ -n "$(uses_vectors "$objects/cpu/fpu.o")" ]; }

check "cpu/, mem/ and the fast part of the translator keep to general registers" general
check "a file that does not is found" finds_vectors
check "the fast part calls nothing that leaves them" calls_little
finish
