#!/bin/sh
# Bad kernels, initrds and hosts: one line that says what was wrong, never a crash.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh
cloud=$guest/cloud/vmlinuz

# refused STATUS TEXT [doppel's options]: ends with that status and a single line that has TEXT in it.
refused() {
	want=$1 text=$2
	shift 2
	status=0
	"$doppel" run "$@" >"$scratch/said" 2>&1 </dev/null || status=$?
	cat "$scratch/said"
	[ "$status" = "$want" ] || { echo "status $status, not $want"; return 1; }
	grep -q -e "$text" "$scratch/said" || { echo "nothing about '$text'"; return 1; }
	[ "$(wc -l <"$scratch/said")" = 1 ] || { echo "more than one line"; return 1; }
}

head -c 100000 "$cloud" >"$scratch/truncated"
head -c 600 "$cloud" >"$scratch/header"
: >"$scratch/empty"
echo "not a kernel, whatever you say, and long enough to have a header if it were one" >"$scratch/text"
truncate -s 200M "$scratch/large"

# The sanitizers' build too, when there is one: what a loader reads beyond a file shows there.
release=$doppel
for doppel in "$release" ${DOPPEL_ASAN:-}; do
	check "a truncated kernel" refused 1 truncated --kernel "$scratch/truncated"
	check "only a kernel's header" refused 1 header --kernel "$scratch/header"
	check "an empty file" refused 1 empty --kernel "$scratch/empty"
	check "a text file" refused 1 text --kernel "$scratch/text"
	check "no such file" refused 1 'none-such' --kernel "$scratch/none-such"
	check "a folder" refused 1 "$scratch" --kernel "$scratch"
	check "an initrd larger than memory" refused 1 large --kernel "$cloud" --initrd "$scratch/large" --memory 128M
	check "too little memory for the kernel" refused 1 memory --kernel "$cloud" --memory 2M
	check "no such initrd" refused 1 'none-such' --kernel "$cloud" --initrd "$scratch/none-such"
done
doppel=$release

append="doppel_run=poweroff"
check "a full disk under a serial file: the guest goes on, the error names the file" \
	boot wait '/dev/full' exit 0 -- --serial file:/dev/full
check "a serial file that cannot be made" refused 1 '/nonexistent/serial' --kernel "$cloud" --serial file:/nonexistent/serial
finish
