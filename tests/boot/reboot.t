#!/bin/sh
# Every way in which Linux reboots a PC (its parameter reboot=): ACPI's register, the keyboard controller, a triple fault, the reset vector, port
# 0xcf9. The machine starts again, and with --no-reboot ends.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

# again [doppel's options]: the second boot's banner, behind a reboot
again() {
	boot wait "$prompt" send 'reboot\n' wait 'This is Linux' wait "$prompt" send 'poweroff\n' exit 0 -- "$@"
}
# A letter that Linux does not know leaves it at its default; what it does know is in arch/x86/kernel/reboot.c.
for way in t k b a e p c w h; do
	append="reboot=$way"
	check "reboot=$way" again
done
append="reboot=b,f"
check "reboot=b, 2 CPUs" again --cpus 2
append="reboot=b"
check "reboot=b, --no-reboot" boot wait "$prompt" send 'reboot\n' exit 0 absent 'triple fault' -- --no-reboot
append="reboot=t"
check "reboot=t, 2 CPUs" again --cpus 2
check "reboot=t, --no-reboot: a status of its own" boot wait "$prompt" send 'reboot\n' wait 'triple fault' wait 'RIP' exit 3 -- --no-reboot
check "reboot=t, --no-reboot --on-triple-fault reset" \
	boot wait "$prompt" send 'reboot\n' wait 'resets the machine' exit 0 -- --no-reboot --on-triple-fault reset
append="reboot=b"
check "reboot=b, engine interp" again --engine interp

if ! [ -f "$guest/686/vmlinuz" ] || ! [ -f "$guest/initrd-i386.cpio.gz" ]; then
	skip "32-bit kernels" "scripts/get-guest.sh --test gets them"
	finish
	exit 0
fi
kernel=686-pae
for way in t k b a e p; do
	append="reboot=$way"
	check "32 bits, reboot=$way" again --initrd "$guest/initrd-i386.cpio.gz"
done
finish
