#!/bin/sh
# Debian's GDB on Debian's kernel, by the machine's name: stops in kernel and user code, the guest goes on without it, and it comes again.
cd "$(dirname "$0")/../.." || exit 1
command -v gdb >/dev/null || { echo "1..0 # SKIP no gdb"; exit 0; }
. tests/virtio/lib.sh

trap 'kill -9 $pid 2>/dev/null; rm -rf "$scratch"' EXIT
pid=
# Longer than the address of a socket may be.
XDG_RUNTIME_DIR=$scratch/$(printf '%0120d' 0)
export XDG_RUNTIME_DIR
mkdir -m 700 "$XDG_RUNTIME_DIR"

script='grep " T __x64_sys_sync$" /proc/kallsyms
n=0
while :; do n=$((n + 1)); echo "round $n"; sync; sleep 0.1; done'
guest_with -
# Where each program begins.
entry=$(od -An -tx8 -j24 -N8 "$guest/busybox/busybox" | tr -d ' ')

rounds() { sed -n 's/^round \([0-9]*\).*/\1/p' "$scratch/console" | tail -n 1; }
# comes ROUND: within the time that a boot may take.
comes() {
	tries=0
	until [ "$(rounds)" -ge "$1" ] 2>/dev/null; do
		[ $((tries += 1)) -lt $((limit * 10)) ] || { tail "$scratch/console"; return 1; }
		sleep 0.1
	done
}
start() {
	"$doppel" run --name one --kernel "$guest/$kernel/vmlinuz" --initrd "$scratch/initrd" --append "console=ttyS0 quiet $append" --balloon 0 \
		"$@" </dev/null >"$scratch/console" 2>&1 &
	pid=$!
	comes 2
	sys_sync=$(sed -n 's/^\([0-9a-f]*\) T __x64_sys_sync.*/\1/p' "$scratch/console")
	[ -n "$sys_sync" ]
}
debugs() { timeout 120 "$doppel" gdb one -- -nx -batch "$@" >"$scratch/said" 2>&1; }
said() { grep -qF "$1" "$scratch/said" || { echo "missing: $1"; cat "$scratch/said"; return 1; }; }

stops() {
	debugs -ex "break *0x$sys_sync" -ex continue -ex 'printf "kernel: CPL %d at %lx\n", $cs & 3, $pc' -ex 'x/i $pc' -ex 'stepi 5' -ex 'delete' \
		-ex "break *0x$entry" -ex continue -ex 'printf "user: CPL %d at %016lx\n", $cs & 3, $pc' -ex 'info threads' -ex stepi -ex detach &&
		said "kernel: CPL 0 at $sys_sync" && said "user: CPL 3 at $entry" && said 'Thread 2 (CPU 1' && said 'detached'
}
stands() {
	debugs -ex 'shell sleep 1' -ex 'info registers rip cr3' -ex "shell \"$doppel\" info one" && said 'status           debug'
}
goes_on() { comes $(($(rounds) + 3)); }
is_killed() {
	debugs -ex kill && said 'killed' && ! wait "$pid"
	pid=
	! "$doppel" info one
}

for engine in bt ${LONG:+interp}; do
	check "it runs, engine $engine" start --engine "$engine" --cpus 2
	check "stops in kernel and user code, engine $engine" stops
	check "it goes on, engine $engine" goes_on
	check "attached again, it stands still, engine $engine" stands
	check "a debugger that hangs up lets it go on, engine $engine" goes_on
	check "one that kills ends it, engine $engine" is_killed
done
finish
