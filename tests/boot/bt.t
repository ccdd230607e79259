#!/bin/sh
# The translator boots what the interpreter boots.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

for cpus in 1 2; do
	check "cloud kernel, engine bt, $cpus CPUs: a shell that answers" \
		boot wait "$prompt" send 'echo $((6 * 7)) processors: $(nproc)\n' wait "42 processors: $cpus" \
		send 'cat /dev/urandom | head -c 1000000 | sha256sum | wc -c\n' wait '68' send 'poweroff\n' exit 0 -- \
		--engine bt --cpus "$cpus"
done
kernel=generic
check "the full kernel, engine bt" boot wait "$prompt" send 'poweroff\n' exit 0 -- --engine bt
finish
