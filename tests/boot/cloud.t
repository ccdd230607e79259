#!/bin/sh
# Debian's cloud kernel on one CPU: a shell that answers, power off, reboot.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

check "a shell answers, poweroff ends with status 0" \
	boot wait "$prompt" send 'echo $((6*7)) is it\n' wait '42 is it' \
	send 'head -c 1000000 /dev/urandom | sha256sum | wc -c\n' wait '68' \
	send 'poweroff\n' exit 0 absent 'Call Trace' absent 'Oops' --

check "reboot really reboots" \
	boot wait "$prompt" send 'reboot\n' wait 'This is Linux' wait "$prompt" send 'poweroff\n' exit 0 --

check "--cpu: flags decide what Linux defends itself against" \
	boot wait "$prompt" send 'cd /sys/devices/system/cpu/vulnerabilities\n' send 'cat meltdown mds\n' \
	wait 'Mitigation: PTI' wait 'Not affected' send 'poweroff\n' exit 0 -- --cpu v2,-RDCL_NO

check "--no-reboot: reboot ends it" \
	boot wait "$prompt" send 'reboot\n' exit 0 absent 'WARNING' -- --no-reboot
finish
