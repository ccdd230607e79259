#!/bin/sh
# --pure tells the guest nothing; without it, stock Linux finds and uses the paravirtual interface.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

clocksource='cat /sys/devices/system/clocksource/clocksource0/available_clocksource'

check "told, Linux has the paravirtual clock" \
	boot wait "$prompt" send "$clocksource; echo e\"\"nd\\n" wait 'kvm-clock' wait 'end' \
	send 'echo "hypervisor: $(grep -c -w hypervisor /proc/cpuinfo)"\n' wait 'hypervisor: 1' send 'poweroff\n' exit 0 --

check "--pure: no sign of a hypervisor" \
	boot wait "$prompt" send "$clocksource; echo e\"\"nd\\n" wait 'end' \
	send 'echo "hypervisor: $(grep -c -w hypervisor /proc/cpuinfo)"\n' wait 'hypervisor: 0' \
	send 'echo "sign: $(dmesg | grep -c -i -E "kvm|doppel|hypervisor detected")"\n' wait 'sign: 0' \
	send 'poweroff\n' exit 0 absent 'kvm-clock' -- --pure
finish
