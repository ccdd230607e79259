# shellcheck shell=sh disable=SC2034
# What the boot tests share; they source it from the top of the tree. Real kernels from Debian's packages, driven over their
# serial console.
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
expect=${TOOLS_DIR:-build/release/tests/tools}/expect
guest=$(scripts/get-guest.sh --where)
prompt='guest:/# '
limit=${BOOT_LIMIT:-240}

kernel=cloud
append=

# boot STEP... -- [doppel's options]: the kernel $kernel with $append at the end of its command line.
boot() { boot_on "" "$@"; }
# The same on a pseudo-terminal.
boot_terminal() { boot_on -p "$@"; }

boot_on() {
	terminal=$1
	shift
	[ -f "$guest/$kernel/vmlinuz" ] || { echo "no kernel: run scripts/get-guest.sh"; return 1; }
	# The command goes in front of the options, behind the --.
	count=$#
	while [ "$count" -gt 0 ]; do
		word=$1
		shift
		set -- "$@" "$word"
		[ "$word" != -- ] || set -- "$@" "$doppel" run --kernel "$guest/$kernel/vmlinuz" \
			--initrd "$guest/initrd.cpio.gz" --append "console=ttyS0 quiet $append"
		count=$((count - 1))
	done
	# shellcheck disable=SC2086  # no terminal, no word
	"$expect" -t "$limit" $terminal "$@"
}
