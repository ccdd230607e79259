#!/bin/sh
# OVMF as the machine's firmware: its shell over the serial line, a variable that is there at the next start, power-off.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
expect=${TOOLS_DIR:-build/release/tests/tools}/expect
dpkg-query -W ovmf >/dev/null 2>&1 || {
	echo "1..0 # SKIP the package ovmf is not installed"
	exit 0
}
guid='-guid 9a1f4f9d-3b36-4c58-8a0e-5d6f9f0c2b11'

# shell COMMAND TEXT [doppel's options]: the shell's first command prints the text; then it powers off.
shell() {
	command=$1
	text=$2
	shift 2
	"$expect" -t 120 wait 'seconds to skip' send '\x1b' wait 'Shell>' send "$command\\r" wait "$text" wait 'Shell>' send 'reset -s\r' exit 0 -- \
		"$doppel" run --firmware uefi "$@" </dev/null
}
check "a variable is set, engine bt" shell "setvar doppel $guid -bs -nv =0x4142" 'Shell' --nvram "$scratch/nvram" --engine bt
check "and is there at the next start, with 2 CPUs" shell "setvar doppel $guid" '41 42' --nvram "$scratch/nvram" --cpus 2
check "two machines do not share a file" sh -c '
	exec 9<"$1"; flock -n 9 || exit 1
	"$2" run --firmware uefi --nvram "$1" 2>&1 | grep "is in use by another machine"' sh "$scratch/nvram" "$doppel"
finish
