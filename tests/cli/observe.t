#!/bin/sh
# What shows the inside of a running machine: statistics, traces, names for perf.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
guest_dir=${GUEST_DIR:-build/guest}
linux=$(scripts/get-guest.sh --where)
guest=$guest_dir/test_smc.elf

# run COMMAND...: leaves what it says on standard error in $scratch/errors and its number in $pid.
run() {
	"$@" </dev/null >"$scratch/out" 2>"$scratch/errors" &
	pid=$!
	wait "$pid"
}
# run_guest [OPTION...]: fine when the guest ends well.
run_guest() {
	run "$doppel" run --kernel "$guest" --memory 64M --serial null --debug-console null --debug-exit --engine bt "$@"
	status=$?
	cat "$scratch/errors"
	[ "$status" = 1 ]
}
run_linux() {
	run "$doppel" run --kernel "$linux/cloud/vmlinuz" --initrd "$linux/initrd.cpio.gz" --serial null \
		--append "console=ttyS0 quiet doppel_run=poweroff" --engine bt "$@"
}
nm "$guest" >"$scratch/symbols"

# ---- statistics ----

counts() {
	run_guest --stats || return 1
	for what in 'blocks translated' 'of guest instructions' 'of guest bytes' 'to host bytes' 'links made' 'links undone' \
		'blocks forgotten' 'host faults in translated code' 'write to code'; do
		grep -q "^    $what.* [1-9][0-9]*$" "$scratch/errors" || { echo "not counted: $what"; return 1; }
	done
	grep -q '^  its callouts by instruction' "$scratch/errors"
}
check "--stats counts what the translator does" counts
# Every fault has one cause.
causes() {
	awk '/host faults in translated code/ { faults += $NF } /^  / && !/^    / { here = /faults by cause/ }
		here && /^    / { causes += $NF } END { print faults, causes; exit !faults || faults != causes }' "$scratch/errors"
}
check "the causes of faults add up" causes

# ---- traces ----

trace=$scratch/trace
traced() {
	run_guest --trace blocks --trace-file "$trace" --perf-map --guest-symbols "$scratch/symbols" || return 1
	map=/tmp/perf-$pid.map
	mv "$map" "$scratch/map"
}
check "a guest with traces and a perf map" traced
# Guest instructions are indented by four, the host's that they became by eight; bytes, then text.
readable() {
	grep -q '^blocks: cpu 0: block [0-9]*, k64:pic_init+0, physical 0x' "$trace" || return 1
	grep -A 1 '^blocks:     0*1[0-9a-f]*  55  *push rbp' "$trace" >"$scratch/push"
	head "$scratch/push"
	grep -q '^blocks:         0*7[0-9a-f]*  [0-9a-f ]* [a-z]' "$scratch/push" || return 1
	grep -q 'exit 0 to k64:' "$trace" && grep -q 'jmp qword ptr guest.leave' "$trace"
}
check "--trace blocks: guest and host instructions, exits, names" readable
# Every guest instruction that is announced is there.
complete() {
	awk '/^blocks: cpu.* block/ { if (left) exit bad = 1; left = $(NF - 7) } /^blocks:     [0-9a-f]+  / { left-- }
		END { print NR, left; exit bad || left || !NR }' "$trace"
}
check "--trace blocks: every instruction of a block" complete
limited() {
	run_guest --trace blocks --trace-file "$trace" --trace-limit 10K || return 1
	wc -c "$trace"
	tail -n 1 "$trace" | grep -q 'limit is reached' && [ "$(wc -c <"$trace")" -lt 12000 ]
}
check "--trace-limit" limited
no_symbols() {
	echo "0000000000000000 T start" >"$scratch/none"
	run_guest --guest-symbols "$scratch/none" && return 1
	grep -q "none': no symbol of code" "$scratch/errors"
}
check "symbols without addresses are refused" no_symbols

# ---- perf maps ----

# Lines "START SIZE NAME", and no two pieces of code at one address.
well_formed() {
	head -n 3 "$1"
	[ -s "$1" ] || return 1
	! grep -v -E '^[0-9a-f]+ [0-9a-f]+ [ku](16|32|64):[^ ]+$' "$1" || return 1
	python3 - "$1" <<-'END'
		import sys
		end = 0
		for start, size in sorted([int(word, 16) for word in line.split()[:2]] for line in open(sys.argv[1])):
		    assert size > 0 and start >= end, hex(start)
		    end = start + size
	END
}
check "perf map: its lines" well_formed "$scratch/map"
check "perf map: the guest's own names" grep -q ' k64:pic_init+0$' "$scratch/map"
# What the trace says is there.
where_code_is() {
	run_guest --trace blocks --trace-file "$trace" --perf-map || return 1
	mv "/tmp/perf-$pid.map" "$scratch/map"
	awk '/^blocks:         / && first { print $2; first = 0 } /^blocks:     [0-9a-f]+  / && head { first = 1; head = 0 }
		/^blocks: cpu.* block/ { head = 1 }' "$trace" | sort >"$scratch/traced"
	cut -d' ' -f1 "$scratch/map" | sort >"$scratch/mapped"
	[ -s "$scratch/traced" ] && [ -z "$(comm -23 "$scratch/traced" "$scratch/mapped")" ]
}
check "perf map: where the code is" where_code_is
long_map() {
	run_linux --perf-map --stats || return 1
	grep 'whole code cache' "$scratch/errors"
	mv "/tmp/perf-$pid.map" "$scratch/map" && well_formed "$scratch/map"
}
check "perf map of a whole boot: no address twice" long_map

profile() {
	run_linux_under_perf || { cat "$scratch/errors"; return 1; }
	perf report -i "$scratch/perf.data" --stdio 2>/dev/null >"$scratch/report"
	head -n 20 "$scratch/report"
	rm -f "/tmp/perf-$(perf script -i "$scratch/perf.data" -F pid,comm 2>/dev/null | awk '$1 == "cpu0" { print $2; exit }').map"
	grep -q ' k64:0x' "$scratch/report"
}
run_linux_under_perf() {
	doppel_alone=$doppel
	doppel=perf_record
	run_linux --perf-map
	status=$?
	doppel=$doppel_alone
	return $status
}
perf_record() { perf record -q -e cpu-clock -F 500 -o "$scratch/perf.data" -- "$doppel_alone" "$@"; }
if perf record -q -e cpu-clock -o "$scratch/perf.data" true >/dev/null 2>&1; then
	check "perf names guest blocks" profile
else
	skip "perf names guest blocks" "no perf here, or not allowed"
fi
finish
