#!/bin/sh
# Exit statuses: with --debug-exit odd ones are the guest's and even ones doppel's, whatever the guest says.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}

# guest CODE: a multiboot image at 1 MiB
guest() {
	printf '\002\260\255\033\000\000\001\000\376\117\121\344\000\000\020\000\000\000\020\000\000\000\000\000\000\000\000\000\040\000\020\000' >"$scratch/guest"
	# shellcheck disable=SC2059  # the code is escapes
	printf "$1" >>"$scratch/guest"
}

# ends STATUS [doppel's options]
ends() {
	want=$1
	shift
	status=0
	"$doppel" run --kernel "$scratch/guest" --memory 16M --serial null "$@" </dev/null || status=$?
	[ "$status" = "$want" ] || { echo "status $status, not $want"; return 1; }
}

for n in 0 1 2 3 4 63 64 127 128 255; do
	guest "\\260\\$(printf %03o $n)\\346\\364\\364" # mov al, n; out 0xf4, al; hlt
	check "the guest's $n" ends $(((n * 2 + 1) % 256)) --debug-exit
done
guest '\017\013' # ud2, without an IDT
check "a triple fault" ends 3 --on-triple-fault report
check "a triple fault with --debug-exit" ends 6 --debug-exit --on-triple-fault report
check "a triple fault with --no-reboot" ends 3 --no-reboot
check "a triple fault that resets, with --no-reboot" ends 0 --no-reboot --on-triple-fault reset
guest '\146\272\004\006\146\270\000\040\146\357\364' # out 0x604, 0x2000
check "power off" ends 0 --debug-exit
guest '\146\272\371\014\260\006\356\364' # out 0xcf9, 6
check "a reset with --no-reboot" ends 0 --debug-exit --no-reboot
printf x >"$scratch/guest"
check "no kernel" ends 1
check "no kernel with --debug-exit" ends 8 --debug-exit
check "wrong usage with --debug-exit" ends 2 --debug-exit --cpus 0
finish
