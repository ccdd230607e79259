#!/bin/sh
# A guest at its prompt costs the host nothing.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

# The kernel's own start-up work goes on for a while after the prompt: what it does in its first seconds is not idling.
for n in 1 2; do
	check "$n CPU(s): under 1 % of a host CPU at the prompt" \
		boot wait "$prompt" send 'sleep 5; echo set""tled\n' wait settled idle 10 1 \
		send 'echo still""here\n' wait stillhere send 'poweroff\n' exit 0 -- --cpus "$n"
done
finish
