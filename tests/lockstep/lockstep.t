#!/bin/sh
# Engine bt beside the interpreter, in short: bare-metal guests, the beginning of a boot; and that a difference is found. `make lockstep` runs
# whole boots.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
has_bt || { echo "1..0 # SKIP engine bt does not run on this host"; exit; }
lockstep=${LOCKSTEP:-build/release/tests/lockstep/lockstep}
guest_dir=${GUEST_DIR:-build/guest}
guest=$(scripts/get-guest.sh --where)

bare() { timeout 100 "$lockstep" --kernel "$guest_dir/test_$1.elf" --memory 64 --debug-exit --engine "$2"; }

# A difference that is made at an instruction is found at that one, and not by a run without it.
found() {
	timeout 100 "$lockstep" --kernel "$guest_dir/test_faults.elf" --memory 64 --debug-exit --inject "$1" >"$scratch/found"
	[ $? = 1 ] || { echo "no difference found"; return 1; }
	grep -A 1 "^DIFFERENCE: instruction $1, CPU 0" "$scratch/found" && grep -q '^  RBX .*<<<' "$scratch/found"
}

for name in faults paging interrupts syscall smc segments gates tasks v86 mode_changes paging32; do
	for engine in bt bt,block=1 bt,link=off; do
		check "$name: $engine" bare "$name" "$engine"
	done
done
for at in 40001 123456; do
	check "a difference at instruction $at is found there" found "$at"
done
for engine in bt bt,block=1 bt,link=off bt,tlb=2; do
	check "random code: $engine" timeout 100 "$lockstep" --random 1 --sessions 100 --engine "$engine"
done
# A byte of an undefined encoding changes behind its first one, which makes it an instruction.
check "random code: undefined code that changes" timeout 100 "$lockstep" --random 1796098173 --sessions 1
for cpus in 1 2; do
	check "the cloud kernel's first 200 million instructions, $cpus CPUs" timeout 200 "$lockstep" --cpus "$cpus" \
		--kernel "$guest/cloud/vmlinuz" --initrd "$guest/initrd.cpio.gz" --append "console=ttyS0" --end 200000000
done
finish
