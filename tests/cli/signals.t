#!/bin/sh
# SIGTERM, SIGINT and SIGHUP end a run in an orderly way, whatever the guest does: files and statistics are written, a line says so, and who waits
# sees the signal.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
expect=${TOOLS_DIR:-build/release/tests/tools}/expect

# guest NAME CODE: a multiboot image at 1 MiB that prints R on the debug console and goes on with CODE.
guest() {
	printf '\002\260\255\033\000\000\001\000\376\117\121\344\000\000\020\000\000\000\020\000\000\000\000\000\000\000\000\000\040\000\020\000' >"$scratch/$1"
	# shellcheck disable=SC2059  # the code is escapes
	printf "\\260R\\346\\351$2" >>"$scratch/$1"
}
guest spin '\353\376'
guest halt '\372\364\353\375'                 # cli; hlt, for good
guest print '\260.\346\351\353\372'           # prints dots
guest serial '\146\272\370\003\260.\356\356\260S\346\351\260.\356\353\373' # bytes to COM1, after the first two S on the debug console
guest fault '\017\013'                        # a triple fault, which resets, again and again

# ends NAME NUMBER STATUS [doppel's options]: with statistics, and a trace whose last line is whole
ends() {
	name=$1 number=$2 status=$3
	shift 3
	rm -f "$scratch/trace" "$scratch/com1"
	"$expect" -t 100 wait "$([ "$name" = serial ] && echo S || echo R)" signal "$number" wait 'the machine is stopped' wait 'instructions counted' exit "$status" -- \
		"$doppel" run --kernel "$scratch/$name" --memory 16M --serial "file:$scratch/com1" --debug-console stdio \
		--trace pio --trace-file "$scratch/trace" --stats "$@" </dev/null || return 1
	tail -c 200 "$scratch/trace"
	grep -q '^pio: out port 0x00e9 size 1 value 0x52$' "$scratch/trace" && [ "$(tail -c 1 "$scratch/trace" | od -An -c)" = '  \n' ]
}

written() { [ "$(head -c 2 "$scratch/com1")" = .. ]; }
for name in spin halt print fault serial; do
	check "SIGTERM, guest $name" ends $name 15 143
	check "SIGTERM, guest $name, virtual time, 2 CPUs" ends $name 15 143 --clock virtual --cpus 2
done
check "bytes on the serial port are in the file" written
check "SIGINT" ends spin 2 130
check "SIGHUP" ends halt 1 129 --engine interp

# Nobody reads what the guest prints: the vCPU waits in the middle of an instruction.
full() {
	mkfifo "$scratch/fifo"
	exec 3<>"$scratch/fifo" # holds it open
	"$doppel" run --kernel "$scratch/print" --memory 16M --serial null --debug-console null --trace pio --trace-limit 1T \
		2>"$scratch/fifo" </dev/null &
	pid=$!
	while kill -0 $pid && ! grep -q 'cpu0) S' /proc/$pid/task/*/stat; do sleep 0.1; done
	while kill $pid 2>/dev/null; do sleep 0.1; done # two at once are one
	status=0
	wait $pid || status=$?
	exec 3>&-
	[ $status = 143 ]
}
check "a second SIGTERM ends it when the guest's processor is stuck in the host" full

ignored() {
	# shellcheck disable=SC2016  # the inner shell's
	"$expect" -t 60 wait R signal 15 signal 2 wait 'Interrupt, the machine is stopped' exit 130 -- sh -c "trap '' TERM; exec \"\$@\"" - \
		"$doppel" run --kernel "$scratch/spin" --memory 16M --serial null --debug-console stdio
}
check "a signal that is ignored stays so" ignored
finish
