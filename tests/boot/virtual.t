#!/bin/sh
# Virtual time: the same guest gives the same output and the same instruction count, always, under every engine.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh
append="doppel_run=poweroff"

# boot_logged NAME [doppel's options]: a whole boot; what was said is in NAME.serial and NAME.text.
boot_logged() {
	name=$1
	shift
	"$expect" -t "$limit" -l "$scratch/$name.text" exit 0 -- "$doppel" run --kernel "$guest/$kernel/vmlinuz" \
		--initrd "$guest/initrd.cpio.gz" --append "console=ttyS0 $append" --clock virtual --stats \
		--serial "file:$scratch/$name.serial" "$@"
}
# The lines of --stats that count instructions: of all, and of each CPU.
instructions() { grep 'instructions counted$' "$scratch/$1.text" | sed 's/^engine [a-z]*, //'; }
# A boot takes millions.
counted() { instructions a | grep -q '[0-9]\{7\} instructions'; }
same_counts() {
	instructions a >"$scratch/a.counts"
	instructions b >"$scratch/b.counts"
	diff "$scratch/a.counts" "$scratch/b.counts"
}

for n in 1 2; do
	check "$n CPU(s): a boot under virtual time, engine interp" boot_logged a --cpus "$n" --engine interp
	check "$n CPU(s): the console said something" test -s "$scratch/a.serial"
	check "$n CPU(s): instructions are counted" counted
	for again in ${LONG:+interp} bt bt,block=1; do
		check "$n CPU(s): another one, engine $again" boot_logged b --cpus "$n" --engine "$again"
		check "$n CPU(s): identical serial output" cmp "$scratch/a.serial" "$scratch/b.serial"
		check "$n CPU(s): identical instruction counts" same_counts
	done
done
finish
