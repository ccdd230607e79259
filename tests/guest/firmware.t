#!/bin/sh
# --firmware: the ROM of tests/firmware from the reset vector to protected mode, through a reset, to power-off; sizes; and SeaBIOS to where it
# looks for a disk.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
expect=${TOOLS_DIR:-build/release/tests/tools}/expect
rom=${GUEST_DIR:-build/guest}/rom.bin
seabios=/usr/share/seabios

# runs FILE [doppel's options]: once, and after the reset once more.
runs() {
	file=$1
	shift
	"$expect" -t 60 wait 'in protected mode' wait 'not to be written' \
		wait 'signature in EDX' wait 'at the top of 4 GiB' wait 'below 1 MiB' wait 'in protected mode' \
		wait 'the same bytes in both places' wait 'not to be written' wait 'again after a reset' exit 0 -- \
		"$doppel" run --firmware "$file" "$@" </dev/null
}

# refused STATUS WORDS [doppel's options]
refused() {
	wanted=$1
	words=$2
	shift 2
	status=0
	"$doppel" run --serial null "$@" 2>"$scratch/error" || status=$?
	cat "$scratch/error"
	[ "$status" = "$wanted" ] && grep -q -- "$words" "$scratch/error" && [ "$(wc -l <"$scratch/error")" = 1 ]
}

post() {
	"$expect" -t 60 wait 'SeaBIOS' wait 'Found 2 cpu(s)' wait 'Copying SMBIOS' wait 'No bootable device' signal 15 exit 143 -- \
		"$doppel" run --serial null --debug-console stdio --firmware "$@" </dev/null
}

for engine in ${ENGINES:-interp bt}; do
	check "a ROM of 8 KiB, engine $engine" runs "$rom" --engine "$engine"
	check "with virtual time, engine $engine" runs "$rom" --engine "$engine" --clock virtual --memory 1M
	check "with 2 CPUs and 4 GiB of memory, engine $engine" runs "$rom" --engine "$engine" --cpus 2 --memory 4G
done

dd if=/dev/zero of="$scratch/large" bs=8192 count=2047 2>/dev/null
cat "$rom" >>"$scratch/large"
check "a ROM of 16 MiB" runs "$scratch/large"
cat "$rom" >>"$scratch/large"
check "a larger one" refused 1 "at most 16 MiB" --firmware "$scratch/large"
for size in 0 1 4095 4097 8191; do
	head -c "$size" "$rom" >"$scratch/odd"
	check "a ROM of $size bytes" refused 1 "multiple of 4096" --firmware "$scratch/odd"
done
check "a folder" refused 1 "firmware" --firmware "$scratch"
check "no file" refused 1 "'$scratch/none'" --firmware "$scratch/none"
check "a kernel besides" refused 2 "alone" --firmware "$rom" --kernel "$rom"
check "a command line besides" refused 2 "alone" --firmware "$rom" --append x

for bios in bios.bin bios-256k.bin; do
	if [ ! -f "$seabios/$bios" ]; then
		check "SeaBIOS, $bios # SKIP the package seabios is not installed" true
		continue
	fi
	for engine in ${ENGINES:-interp bt}; do
		check "SeaBIOS, $bios, engine $engine" post "$seabios/$bios" --engine "$engine" --cpus 2
	done
done
finish
