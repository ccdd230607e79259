#!/bin/sh
# memtest86+, of 64 and of 32 bits, which start by the Linux protocols and bring their own drivers: its first tests find nothing. The screen
# is sent every two seconds, and each test has to last longer than that to be seen.
# Skipped where `scripts/get-guest.sh --test` could not get it.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

if ! [ -f "$guest/memtest/memtest86+x64.bin" ] || ! [ -f "$guest/memtest32/memtest86+ia32.bin" ]; then
	echo "1..0 # SKIP no memtest86+: scripts/get-guest.sh --test gets it"
	exit 0
fi

# memtest IMAGE MEMORY ENGINE: up to its tests 3 to 6, then Ctrl-A x.
memtest() {
	"$expect" -t "$limit" -p wait 'Memtest86+' wait 'Testing' wait 'Moving inversions' wait 'Errors: 0 ' send '\x01x' exit 0 -- \
		"$doppel" run --kernel "$guest/$1" --append console=ttyS0,115200 --memory "$2" --engine "$3"
}

for engine in interp,12M bt,64M; do
	check "64 bits, engine ${engine%,*}" memtest memtest/memtest86+x64.bin "${engine#*,}" "${engine%,*}"
	check "32 bits, engine ${engine%,*}" memtest memtest32/memtest86+ia32.bin "${engine#*,}" "${engine%,*}"
done
finish
