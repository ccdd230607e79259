#!/bin/sh
# An image of Linux boot protocol 2.03 from its real-mode entry on: memdisk, of Debian's syslinux-common, with a floppy disk of tests/memdisk.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
expect=${TOOLS_DIR:-build/release/tests/tools}/expect
memdisk=/usr/lib/syslinux/memdisk
if ! [ -f "$memdisk" ]; then
	echo "1..0 # SKIP the package syslinux-common is not installed"
	exit 0
fi
cp "${GUEST_DIR:-build/guest}/disk.bin" "$scratch/floppy"
truncate -s 1440K "$scratch/floppy"

boots() {
	"$expect" -t 60 wait 'MEMDISK' wait 'e820: 0000000000100000 0000000003f00000 1' wait 'command line: floppy one' \
		wait '15E801: 0x3c00 0x02' wait 'the boot sector' wait 'the second sector, by INT 13h' exit 1 -- \
		"$doppel" run --kernel "$memdisk" --initrd "$scratch/floppy" --append 'floppy one' --memory 64M --serial null \
		--debug-console stdio --debug-exit "$@" </dev/null
}
for engine in ${ENGINES:-interp bt}; do
	check "memdisk, engine $engine" boots --engine "$engine"
	check "memdisk, engine $engine, virtual time" boots --engine "$engine" --clock virtual
done
finish
