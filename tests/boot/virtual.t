#!/bin/sh
# Virtual time: the same guest gives the same output and the same instruction count, always.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh
append="doppel_run=poweroff"

# A whole boot, said things in NAME.serial and NAME.text.
boot_logged() {
	"$expect" -t "$limit" -l "$scratch/$1.text" exit 0 -- "$doppel" run --kernel "$guest/$kernel/vmlinuz" \
		--initrd "$guest/initrd.cpio.gz" --append "console=ttyS0 $append" --clock virtual --stats \
		--serial "file:$scratch/$1.serial"
}
instructions() { grep -i 'instructions' "$scratch/$1.text" | head -n 1; }
counted() { instructions a | grep -q '[1-9][0-9][0-9][0-9]'; }
same_count() {
	instructions a
	instructions b
	[ "$(instructions a)" = "$(instructions b)" ]
}

check "a first boot under virtual time" boot_logged a
check "a second one" boot_logged b
check "the console said something" test -s "$scratch/a.serial"
check "identical serial output" cmp "$scratch/a.serial" "$scratch/b.serial"
check "instructions are counted" counted
check "identical instruction counts" same_count
finish
