#!/bin/sh
# doppel audit: everything is ok, under each engine and CPU model, and its exit status says so.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}

audits() {
	"$doppel" audit "$@" >"$scratch/out" || return 1
	grep -e '^not ok' -e 'instead of' "$scratch/out"
	grep -q -E '^[0-9]+ ok, 0 not ok' "$scratch/out"
}
offered() { "$doppel" doctor | grep -q -E "^ok +$1 +$2 "; }

for engine in interp bt; do
	offered "engine" "$engine" || {
		skip "audit: engine $engine" "not usable on this host"
		continue
	}
	for model in v2 v3 host; do
		if [ "$model" = host ] || offered "cpu model" "$model"; then
			check "audit: engine $engine, CPU model $model" audits --engine "$engine" --cpu "$model"
		else
			skip "audit: engine $engine, CPU model $model" "not possible on this host"
		fi
	done
done
# The seventeen of Robin and Irvine (2000), MOV in both directions, PUSH and POP of segments.
all_there() {
	for instruction in SGDT SIDT SLDT SMSW PUSHF POPF LAR LSL VERR VERW 'POP seg' 'PUSH seg' 'CALL far' 'JMP far' 'INT n' \
		'RET far' STR 'MOV from seg' 'MOV to seg'; do
		grep -q -E "^ok +$instruction " "$scratch/out" || {
			echo "no $instruction"
			return 1
		}
	done
}
check "audit: all of Robin and Irvine's instructions" all_there
json() {
	"$doppel" audit --json | python3 -c 'import json, sys; r = json.load(sys.stdin); assert r["ok"] and len(r["checks"]) > 100
assert all(c["verdict"] in ("ok", "not offered") for c in r["checks"])'
}
if command -v python3 >/dev/null; then
	check "audit --json is JSON" json
else
	skip "audit --json is JSON" "no python3"
fi
# Without an engine the table is about the host, and shows it.
naive() {
	status=0
	"$doppel" audit --naive >"$scratch/out" || status=$?
	cat "$scratch/out"
	[ "$status" = 1 ] && for instruction in SIDT STR PUSHF 'MOV to seg' 'INT n' SYSCALL CPUID RDTSC; do
		grep -q -E "^not ok +$instruction " "$scratch/out" || return 1
	done
}
check "audit --naive: the host's own processor does not pass" naive
fails_with() {
	want=$1 status=0
	shift
	"$doppel" "$@" 2>"$scratch/err" || status=$?
	cat "$scratch/err"
	[ "$status" = "$want" ] && grep -q '^doppel audit: ' "$scratch/err"
}
check "audit: an unknown engine" fails_with 2 audit --engine nothing
check "audit: an unknown option" fails_with 2 audit --kernel x
finish
