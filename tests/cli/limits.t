#!/bin/sh
# Limits of the host: doppel works within them, or says in one line which one it is. Its own limit on memory beyond the guest's is kept.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
guest_dir=${GUEST_DIR:-build/guest}

# run_guest GUEST COMMAND...: it runs to its end, all well.
run_guest() {
	guest=$1
	shift
	status=0
	"$@" --kernel "$guest_dir/test_$guest.elf" --serial null --debug-console "file:$scratch/tap" --debug-exit \
		</dev/null >"$scratch/out" 2>"$scratch/err" || status=$?
	cat "$scratch/out" "$scratch/err"
	grep '^not ok' "$scratch/tap" && return 1
	[ "$status" = 1 ] && grep -q '^1\.\.' "$scratch/tap"
}
# refused TEXT COMMAND...: one line with that, and a status that says so.
refused() {
	text=$1
	shift
	status=0
	"$@" --kernel "$guest_dir/test_faults.elf" --serial null </dev/null >"$scratch/out" 2>"$scratch/err" || status=$?
	cat "$scratch/out" "$scratch/err"
	case $status in 1 | 4) ;; *) return 1 ;; esac
	grep -q -e "$text" "$scratch/err" && [ "$(wc -l <"$scratch/err")" = 1 ]
}
# POSIX leaves most of ulimit's letters to the shell.
limited() {
	limit=$1
	shift
	bash -c "ulimit $limit; exec \"\$@\"" limited "$@"
}

# ---- limits of the process ----

check "ulimit -f: too little for guest memory" refused "ulimit -f" limited "-f 1024" "$doppel" run
check "ulimit -f: enough" run_guest faults limited "-f 131072" "$doppel" run --memory 64M
long_trace() {
	status=0
	limited "-f 70000" timeout 60 "$doppel" run --memory 64M --kernel "$guest_dir/test_faults.elf" --serial null --debug-exit \
		--trace all --trace-file "$scratch/trace" </dev/null >"$scratch/out" 2>&1 || status=$?
	cat "$scratch/out"
	[ "$status" = 1 ]
}
check "ulimit -f: a long trace" long_trace
check "ulimit -v: too little for anything" refused "no memory\|ulimit -v" limited "-v 100000" "$doppel" run
check "ulimit -v: too little for translation" refused "ulimit -v" limited "-v 4000000" "$doppel" run --engine bt
check "ulimit -v: the interpreter" run_guest faults limited "-v 4000000" "$doppel" run --memory 64M
check "ulimit -v: translation with few windows" run_guest aliases limited "-v 8000000000" "$doppel" run --memory 64M
check "no signals may be pending" run_guest interrupts limited "-i 0" "$doppel" run --memory 64M
doctor_names() {
	limited "-f 1024" "$doppel" doctor >"$scratch/out"
	cat "$scratch/out"
	grep -q '^fair *limit file size *1 MiB' "$scratch/out"
}
check "doctor names a limit" doctor_names

# Threads are counted by user, and root has no such limit.
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
if [ "$(id -u)" = 0 ] && as_nobody test -r "$guest_dir/test_faults.elf" -a -x "$doppel" 2>/dev/null; then
	check "no more threads" refused "cannot start thread" as_nobody bash -c 'ulimit -u 1; exec "$@"' limited "$doppel" run
else
	skip "no more threads" "needs root, and files that another user may read"
fi

# ---- a control group with little memory ----

group=
if [ -w /sys/fs/cgroup/cgroup.procs ] && grep -q memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; then
	group=/sys/fs/cgroup/doppel-test-$$
	mkdir "$group" 2>/dev/null && [ -w "$group/memory.max" ] || group=
elif [ -w /sys/fs/cgroup/memory/cgroup.procs ]; then
	group=/sys/fs/cgroup/memory/doppel-test-$$
	mkdir "$group" 2>/dev/null || group=
fi
# RAM and what is beyond, together: the kernel counts page tables too.
in_group() {
	echo $((400 << 20)) >"$group/$memory_limit" || return 1
	# shellcheck disable=SC2016
	sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@"
}
if [ -n "$group" ]; then
	memory_limit=memory.max
	[ -e "$group/memory.max" ] || memory_limit=memory.limit_in_bytes
	check "a control group with memory for RAM and the default overhead" run_guest aliases in_group "$doppel" run --memory 64M
	rmdir "$group"
else
	skip "a control group with memory for RAM and the default overhead" "no control group can be made here"
fi

# ---- memory beyond the guest's ----

refused_overhead() {
	status=0
	"$doppel" run --kernel "$guest_dir/test_faults.elf" --overhead "$1" >"$scratch/out" 2>"$scratch/err" </dev/null || status=$?
	cat "$scratch/out" "$scratch/err"
	[ "$status" = 2 ] && grep -q "$2" "$scratch/err" && [ "$(wc -l <"$scratch/err")" = 1 ]
}
check "--overhead: no size" refused_overhead x "no size"
check "--overhead: out of range" refused_overhead 2T "from 1M to 1T"
check "--overhead: too little for this machine" refused_overhead 2M "at least"

# What the host says that doppel takes, when the guest has mapped more than may be kept: KiB; 0 when it was too quick.
measure() {
	: >"$scratch/tap"
	"$doppel" run --memory 64M --kernel "$guest_dir/test_aliases.elf" --serial null --debug-exit \
		--debug-console "file:$scratch/tap" "$@" </dev/null >"$scratch/out" 2>&1 &
	pid=$!
	until grep -q 'sparse pages, 0' "$scratch/tap" || ! kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
	kill -STOP "$pid" 2>/dev/null
	cat "/proc/$pid/status" >"$scratch/status" 2>/dev/null
	kill -CONT "$pid" 2>/dev/null
	wait "$pid"
	awk '/^(VmRSS|VmPTE):/ { sum += $2 } END { print sum + 0 }' "$scratch/status"
}
# MIB OPTIONS...: RAM and so much more is what it may take. Pages of RAM count once for each mapping (twice here), 8 MiB are the program's.
keeps_within() {
	most=$((($1 + 2 * 64 + 8) * 1024))
	shift
	taken=0
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		[ "$taken" != 0 ] || taken=$(measure "$@")
	done
	echo "$taken KiB, of $most at most"
	cat "$scratch/out" "$scratch/tap"
	[ "$taken" -gt 1000 ] && [ "$taken" -le "$most" ] && ! grep '^not ok' "$scratch/tap" && grep -q '^1\.\.' "$scratch/tap"
}
for engine in bt,tlb=0 bt,windows=8,tlb=0; do
	check "--overhead is kept: $engine" keeps_within 34 --overhead 34M --engine "$engine"
done
# Room for many processors is not that of one, many times.
many_cpus() {
	run_guest faults "$doppel" run --memory 64M --cpus 64 --stats || return 1
	limit=$(sed -n 's/^ *at most  *//p' "$scratch/err") most=$(sed -n 's/^ *most that was taken  *//p' "$scratch/err")
	echo "$most of $limit KiB"
	[ "$most" -le "$limit" ] && [ "$limit" -le $((64 * 40 * 1024)) ]
}
check "64 processors" many_cpus
few_for_many_cpus() { run_guest faults "$doppel" run --memory 64M --cpus 64 --overhead 1G; }
check "64 processors with little" few_for_many_cpus

# ---- signals from outside end doppel, whatever it is doing ----

ends_by() {
	"$doppel" run --memory 64M --kernel "$guest_dir/test_aliases.elf" --serial null --debug-exit --engine "$2" \
		--debug-console "file:$scratch/tap" </dev/null >"$scratch/out" 2>&1 &
	pid=$!
	until [ -s "$scratch/tap" ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
	kill -s "$1" "$pid"
	status=0
	wait "$pid" || status=$?
	cat "$scratch/out"
	[ "$status" = $((128 + $1)) ]
}
check "SIGBUS from outside: bt" ends_by 7 bt,tlb=0
check "SIGFPE from outside: bt" ends_by 8 bt,tlb=0
check "SIGSEGV from outside: bt" ends_by 11 bt,tlb=0
finish
