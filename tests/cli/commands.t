#!/bin/sh
# help, version, completion and doctor say what they should; every option is in the manual page.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
guest_dir=${GUEST_DIR:-build/guest}

says() {
	text=$1
	shift
	"$doppel" "$@" >"$scratch/out" || return 1
	cat "$scratch/out"
	grep -q -e "$text" "$scratch/out"
}
check "help" says '^  run ' help
check "no command at all is help" says '^  run '
check "--help" says '^  run ' --help
check "help run" says '^  --memory SIZE ' help run
check "version" says '^doppel [0-9]' version
check "--version" says '^doppel [0-9]' --version

full_disk() {
	status=0
	"$doppel" "$@" >/dev/full 2>"$scratch/err" || status=$?
	cat "$scratch/err"
	[ "$status" = 1 ]
}
check "a full disk is an error" full_disk help

# Everything in the tables is in the manual page, and nothing else.
manual_agrees() {
	for c in run audit list stop wait gdb image doctor; do
		"$doppel" help "$c" | grep -o '^  --[a-z-]*'
	done | tr -d ' ' | sort -u >"$scratch/help"
	sed 's/\\-/-/g' docs/doppel.1 | grep -E '^\.BI? --' | grep -o -e '--[a-z-]*' | sort -u >"$scratch/manual"
	diff "$scratch/help" "$scratch/manual"
}
check "help and manual page have the same options" manual_agrees

completes() {
	want=$1
	shift
	"$doppel" completion bash >"$scratch/completion" || return 1
	bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _doppel; echo "${COMPREPLY[*]}"' "$scratch/completion" \
		doppel "$@" >"$scratch/words"
	cat "$scratch/words"
	[ "$(cat "$scratch/words")" = "$want" ]
}
check "completion of commands" completes "run" ru
check "completion of options" completes "--memory" run --me
check "completion of arguments" completes "virtual" run --clock v
check "completion of models" completes "v2 v3" run --cpu v
check "completion of audit's options" completes "--engine" audit --e

check "completion of image's options" completes "--shrink" image --sh
check "completion of devices" completes "pc-testdev" run --device pc
check "completion of a device's short form" completes "--debug-console" run --debug-c
check "completion of what it takes" completes "pty" run --debug-console p

check "--device help" says '^  pc-testdev ' run --device help
check "--device NAME,help" says '^  port=1..4 ' run --device uart,help
# Every device that can be asked for is in the manual page.
manual_has_devices() {
	"$doppel" run --device help | awk '!/in every machine/ { print $1 }' | while read -r name; do
		sed 's/\\-/-/g' docs/doppel.1 | grep -q -x -F ".B $name" || echo "$name"
	done >"$scratch/missing"
	cat "$scratch/missing"
	[ ! -s "$scratch/missing" ]
}
check "the manual page has the devices" manual_has_devices
# What a short form stands for does the same.
long_forms() {
	"$doppel" run --kernel "$guest_dir/test_start.elf" --memory 64M "$@" >"$scratch/out"
	cat "$scratch/out"
	grep -q '^ok' "$scratch/out"
}
check "devices by their names" long_forms --device uart,port=1,chardev=null --device debug-console,chardev=stdio --device debug-exit

check "doctor" says 'engine interp' doctor
check "doctor says what auto takes" says 'engine auto *takes ' doctor
for what in kernel FSGSBASE 'split locks' 'huge pages'; do
	check "doctor says of this host: $what" says "host $what  " doctor
done

# takes ENGINE [LIMIT]: what `auto` takes, with so many KiB of address space.
takes() (
	# shellcheck disable=SC3045  # dash and bash have it
	[ -z "$2" ] || ulimit -v "$2"
	"$doppel" run --kernel "$guest_dir/test_start.elf" --memory 64M --serial null --debug-console null --debug-exit \
		--stats 2>"$scratch/stats"
	cat "$scratch/stats"
	grep -q "^engine $1," "$scratch/stats"
)
if grep -q bmi2 /proc/cpuinfo; then
	check "auto takes bt" takes bt
else
	skip "auto takes bt" "no BMI2"
fi
check "auto takes interp where bt finds no address space" takes interp 4000000
json() { "$doppel" doctor --json | python3 -c 'import json, sys; r = json.load(sys.stdin); assert r["usable"] and r["findings"]'; }
if command -v python3 >/dev/null; then
	check "doctor --json is JSON" json
else
	skip "doctor --json is JSON" "no python3"
fi
finish
