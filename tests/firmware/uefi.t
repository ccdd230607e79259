#!/bin/sh
# OVMF as the machine's firmware: its shell over the serial line, power-off; its variables' file.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
expect=${TOOLS_DIR:-build/release/tests/tools}/expect
dpkg-query -W ovmf >/dev/null 2>&1 || {
	echo "1..0 # SKIP the package ovmf is not installed"
	exit 0
}
shell() {
	"$expect" -t 240 wait 'Shell>' send 'reset -s\r' exit 0 -- "$doppel" run --firmware uefi "$@" </dev/null
}
check "its shell, engine bt" shell --nvram "$scratch/nvram" --engine bt
check "two machines do not share a file" sh -c '
	exec 9<"$1"; flock -n 9 || exit 1
	"$2" run --firmware uefi --nvram "$1" 2>&1 | grep "is in use by another machine"' sh "$scratch/nvram" "$doppel"
finish
