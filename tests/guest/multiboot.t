#!/bin/sh
# The multiboot guest of tests/multiboot as an ELF executable of either class and as a file with address fields, under every
# engine: it checks what it was given.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
guest_dir=${GUEST_DIR:-build/guest}

printf 'first %5000d.' 0 >"$scratch/first"
printf 'second.' >"$scratch/second"

# run_guest IMAGE [doppel's options]
run_guest() {
	status=0
	image=$1
	shift
	timeout 60 "$doppel" run --kernel "$guest_dir/$image" --append 'guest one  two' \
		--memory 64M --serial null --debug-console stdio --debug-exit --on-triple-fault report "$@" --module "$scratch/second" >"$scratch/tap" 2>&1 </dev/null || status=$?
	cat "$scratch/tap"
	[ "$status" = 1 ] && ! grep -q '^not ok' "$scratch/tap" && grep -q '^1\.\.15$' "$scratch/tap"
}

for engine in ${ENGINES:-interp bt}; do
	for image in multiboot.elf multiboot64.elf multiboot.bin; do
		check "$image, engine $engine" run_guest "$image" --engine "$engine" --module "$scratch/first,a,b c"
	done
done
finish
