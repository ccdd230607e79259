#!/bin/sh
# The interpreter, the reference, boots what the default engine boots.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

for cpus in 1 2; do
	check "cloud kernel, engine interp, $cpus CPUs: a shell that answers" \
		boot wait "$prompt" send 'echo $((6 * 7)) processors: $(nproc)\n' wait "42 processors: $cpus" \
		send 'poweroff\n' exit 0 -- --engine interp --cpus "$cpus"
done
kernel=generic
check "the full kernel, engine interp" boot wait "$prompt" send 'poweroff\n' exit 0 -- --engine interp
finish
