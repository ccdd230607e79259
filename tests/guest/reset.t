#!/bin/sh
# The guest of tests/reset: every way through the reset vector, what INT 11h to 1Ah say, the timer's vector; and --on-triple-fault.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
expect=${TOOLS_DIR:-build/release/tests/tools}/expect
image=${GUEST_DIR:-build/guest}/reset.bin

run() { "$expect" -t 60 "$@" </dev/null; }

# all [doppel's options]
all() {
	run wait 'started 0' wait 'ROM in both places' wait 'started 1' wait 'memory and equipment as they are' wait 'timer by vector 08h' \
		wait 'started 2' wait 'on behind a jump' wait "on behind the keyboard controller's reset" wait 'on behind port 92h' \
		wait 'on behind a soft reset' wait 'on behind a triple fault' wait 'on behind INIT' \
		wait 'started 3' wait 'all resets done' exit 1 -- \
		"$doppel" run --kernel "$image" --memory 64M --serial null --debug-console stdio --debug-exit "$@"
}

for engine in ${ENGINES:-interp bt}; do
	check "all resets, engine $engine" all --engine "$engine"
	check "all resets, virtual time, engine $engine" all --engine "$engine" --clock virtual
	check "all resets, 3 CPUs, engine $engine" all --engine "$engine" --cpus 3
	check "the first jump ends it, engine $engine" \
		run wait 'started 0' exit 0 absent 'started 1' -- "$doppel" run --engine "$engine" --kernel "$image" --memory 64M \
		--serial null --debug-console stdio --debug-exit --no-reboot
	check "a triple fault is reported, engine $engine" \
		run wait 'on behind a soft reset' wait 'triple fault' wait 'RIP' exit 6 -- "$doppel" run --engine "$engine" \
		--kernel "$image" --memory 64M --serial null --debug-console stdio --debug-exit --on-triple-fault report
	check "the same without --debug-exit, engine $engine" \
		run wait 'triple fault' wait 'RIP' exit 3 -- "$doppel" run --engine "$engine" \
		--kernel "$image" --memory 64M --serial null --on-triple-fault report
done
finish
