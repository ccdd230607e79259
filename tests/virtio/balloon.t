#!/bin/sh
# virtio-balloon: memory that a guest has filled and freed is the host's again, by its reports and by the balloon; a guest that needs what is in the balloon gets it back.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

trap 'kill $pid 2>/dev/null; rm -rf "$scratch"' EXIT
pid=

# MiB of guest memory (shared memory; mapped several times it counts once) that the host has provided.
used() { awk '/^Pss_Shmem:/ { print int($2 / 1024); found = 1 } END { if (!found) print 0 }' "/proc/$pid/smaps_rollup" 2>/dev/null; }

# until_said WORD: the guest has printed it.
until_said() {
	until grep -q "$1" "$scratch/out"; do kill -0 "$pid" 2>/dev/null || return 1; sleep 0.1; done
}
# until_used CONDITION MIB
until_used() {
	until test "$(used)" "$1" "$2"; do
		kill -0 "$pid" 2>/dev/null || return 1
		sleep 0.2
	done
}

# run [doppel's options]: in the background, with a terminal's input to be had by descriptor 3.
run() {
	mkfifo "$scratch/in"
	: >"$scratch/out"
	rm -f "$scratch/pid"
	# shellcheck disable=SC2016  # the inner shell's, which becomes doppel
	timeout "$limit" sh -c 'echo $$ >"$0"; exec "$@"' "$scratch/pid" "$doppel" run --kernel "$guest/$kernel/vmlinuz" \
		--initrd "$scratch/initrd" --append "console=ttyS0 quiet $append" "$@" <"$scratch/in" >"$scratch/out" 2>&1 &
	timeout=$!
	exec 3>"$scratch/in"
	rm "$scratch/in"
	until pid=$(cat "$scratch/pid" 2>/dev/null) && [ "$pid" ]; do kill -0 $timeout || return 1; sleep 0.05; done
}
ended_well() {
	exec 3>&-
	wait "$timeout" && grep -q 'all is well' "$scratch/out"
}

# tmpfs gives all of a file's pages back when it is removed.
fill="mkdir /fill
mount -t tmpfs -o size=100% fill /fill
dd if=/dev/zero of=/fill/file bs=1M count=512 2>/dev/null"
script="modprobe virtio_balloon
$fill
echo f\"ill\"ed
read -r line
rm /fill/file
echo r\"emov\"ed
read -r line"
guest_with -
reported() {
	run --memory 1G --balloon 0 "$@" && until_said filled || return 1
	full=$(used)
	echo >&3
	until_said removed && until_used -lt 350 || return 1
	echo "# with 512 MiB filled $full MiB, then $(used) MiB"
	[ "$full" -ge 512 ] || return 1
	echo >&3
	ended_well
}
check "free pages are reported, engine bt" reported --engine bt
long check "free pages are reported, 2 CPUs, engine interp" reported --engine interp --cpus 2

# More than the balloon leaves it: the statistics say what is in it.
script="modprobe virtio_balloon
until [ \$(awk '/^MemFree/ { print int(\$2 / 1024) }' /proc/meminfo) -lt 450 ]; do sleep 0.1; done
sleep 2
$fill
[ \$(stat -c %s /fill/file) = 536870912 ]"
guest_with -
deflates() {
	run --memory 768M --balloon 400,stats=1 --stats "$@" && ended_well || return 1
	grep -E 'balloon:|bytes of memory' "$scratch/out"
	grep -q 'balloon: [0-9]* of 400 MiB' "$scratch/out" && grep -q 'guest: bytes of memory' "$scratch/out"
}
check "a guest that needs memory takes it out of the balloon" deflates
check "the same in virtual time" deflates --clock virtual
says() {
	! "$doppel" run --kernel "$guest/$kernel/vmlinuz" --balloon "$1" >"$scratch/says" 2>&1 && grep -qF "$2" "$scratch/says"
}
check "more than the guest has" says 513 "the guest has 512 MiB"
finish
