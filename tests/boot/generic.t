#!/bin/sh
# Debian's full kernel for PCs.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh
kernel=generic

check "linux-image-amd64 comes to a shell that answers" \
	boot wait "$prompt" send 'echo "$((6*7)) is it, $(uname -r | grep -c cloud) cloud"\n' wait '42 is it, 0 cloud' \
	send 'poweroff\n' exit 0 absent 'Call Trace' absent 'Oops' --
finish
