#!/bin/sh
# `make bench` in small: every row is measured, natively and in the guest, and every result is right. Speeds are not looked at.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
export DOPPEL="${DOPPEL:-build/release/doppel}" BUILD="$scratch"

measured() { bench/run.sh -n 1 -p 0.01 -t 120 native doppel >"$scratch/table" 2>"$scratch/errors" || { cat "$scratch/errors"; return 1; }; }
check "the benchmarks run, and their results are right" measured
every_row() {
	cat "$scratch/table"
	"$scratch/bench/guest64/gbench" list | while read -r name _; do
		case $name in avx2) optional=1 ;; *) optional= ;; esac
		grep -q -E "^$name +[0-9.]+ +[0-9.]+" "$scratch/table" || [ "$optional" ] || { echo "no row: $name"; exit 1; }
	done
}
check "every benchmark has its row" every_row
summary() {
	grep -q -E '^computing: doppel / native +[0-9.]+ +<= 2.00  (ok|short)' "$scratch/table" &&
		grep -q -E '^MiB beyond guest RAM after the benchmarks +[0-9.]+ +<= 160.00' "$scratch/table" &&
		grep -q -E '^two CPUs / one, parallel work +[0-9.]+ +>= 1.75' "$scratch/table"
}
check "the summary says what must be reached" summary
# The report's arithmetic, on figures made up.
report() {
	mkdir "$scratch/made-up"
	echo "one COMPUTE 1 a" >"$scratch/list"
	for round in 1 2 3; do
		echo "one $round 9 9" >"$scratch/made-up/native.$round.txt"
		printf 'up %s 1\none 9 9 %s\n' "$round" "$((round * round))" >"$scratch/made-up/doppel.$round.txt"
		printf 'up 1 1\none 9 9 16\n' >"$scratch/made-up/qemu.$round.txt"
	done
	awk -v peers="native doppel qemu" -f bench/report.awk - "$scratch"/made-up/*.txt <"$scratch/list" >"$scratch/report"
	cat "$scratch/report"
	# Best of native is 1, the median of doppel 4, of qemu 16.
	grep -q -E '^one +1.00 +4.00 +16.00 +0.25  <= 1.00  ok$' "$scratch/report" &&
		grep -q -E '^computing: doppel / native +4.00  <= 2.00  short +qemu 16.00$' "$scratch/report" &&
		grep -q -E '^start to userspace: doppel / qemu +2.00  <= 0.90  short' "$scratch/report"
}
check "medians, ratios and verdicts" report
# The same by a 32-bit guest, where there is one and a compiler for it: every result is right, and figures are over the same program's.
kernel32=$(scripts/get-guest.sh --where)/686-pae/vmlinuz
if [ -f "$kernel32" ] && echo 'int main(void) { return 0; }' | gcc -m32 -static -xc -o /dev/null - 2>/dev/null; then
	narrow() {
		bench/run.sh -n 1 -p 0.01 -t 120 doppel native32 doppel32 >"$scratch/table" 2>"$scratch/errors" || {
			cat "$scratch/errors"
			return 1
		}
		cat "$scratch/table"
		grep -q -E '^sieve +- +- +- +[0-9.]+' "$scratch/table" &&
			grep -q -E "^32-bit guest, all: doppel / doppel's 64-bit +[0-9.]+ +<= 1.30  (ok|short)" "$scratch/table"
	}
	long check "a 32-bit guest" narrow
fi
wrong() {
	sed 's/return counter - 2 . swaps/return 1/' bench/compute.c >"$scratch/compute.c"
	gcc -std=gnu17 -O1 -static -pthread -Ibench -o "$scratch/gbench" bench/gbench.c "$scratch/compute.c" bench/vector.c bench/system.c \
		-lm || return 1
	"$scratch/gbench" -p 0.01 locked && return 1
	"$scratch/gbench" -p 0.01 locked | grep -q '^WRONG locked'
}
check "a wrong result is an error" wrong
finish
