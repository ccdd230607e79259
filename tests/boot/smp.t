#!/bin/sh
# Several CPUs: all come up, work and answer interrupts.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

for n in 2 4; do
	check "$n CPUs come up and run a process each" \
		boot wait "$prompt" send 'for i in 0 1 2 3; do taskset -c $i echo "ran on $i" 2>/dev/null; done; echo "nproc=$(nproc)"\n' \
		wait 'ran on 0' wait "ran on $((n - 1))" wait "nproc=$n" \
		send 'echo "$(grep -c LOC /proc/interrupts) cpus $(grep -c ^processor /proc/cpuinfo)"\n' wait "1 cpus $n" \
		send 'poweroff\n' exit 0 absent 'Call Trace' absent 'soft lockup' -- --cpus "$n"
done
finish
