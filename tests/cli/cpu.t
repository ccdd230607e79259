#!/bin/sh
# --cpu MODEL,+FLAG,-FLAG: what is taken away is gone for the guest, and the manual page names all that can be chosen.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
guest_dir=${GUEST_DIR:-build/guest}

flags() { sed -n 's/^\t_(\([A-Z0-9_]*\), \(V2\|V3\|HOST\|ASKED\), \(DOPPEL\|HOST\).*/\1/p' src/cpu/model.c; }
named() {
	[ "$(flags | wc -l)" -gt 60 ] || { echo "src/cpu/model.c has another form"; return 1; }
	for flag in $(flags); do
		grep -q -w "$flag" docs/doppel.1 || { echo "$flag is not there"; return 1; }
	done
}
check "doppel(1) names every flag" named

# test_features tries each instruction: #UD unless it is announced.
features() {
	status=0
	timeout 60 "$doppel" run --kernel "$guest_dir/test_features.elf" --memory 64M --serial null --debug-console stdio \
		--debug-exit "$@" >"$scratch/tap" 2>"$scratch/errors" </dev/null || status=$?
	grep -e '^not ok' -e '^Bail out' "$scratch/tap"
	cat "$scratch/errors"
	[ "$status" = 1 ]
}
without="-SSE42,-SSE41,-SSSE3,-SSE3,-POPCNT,-CX16,-RDPID,-RDTSCP,-FSGSBASE,-SMAP,-SMEP,-UMIP,-INVPCID,-PCID,-CLFLUSHOPT,-CLWB,-X2APIC,-SEP,-LAHF64,-VME,-PDPE1GB"
for engine in interp bt; do
	check "what is taken away is gone: $engine" features --engine "$engine" --cpu "v2,$without"
	check "what is added is there: $engine" features --engine "$engine" --cpu "v2,+XSAVE,+XSAVEOPT,+XSAVEC,+XGETBV1,+RDRAND,+RDSEED"
done
finish
