#!/bin/sh
# Every way in which Linux reboots a PC (its parameter reboot=): ACPI's register, the keyboard controller, a triple fault, the reset vector, port
# 0xcf9. The machine starts again, and with --no-reboot ends.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

# again [doppel's options]: the second boot's banner, behind a reboot
again() {
	boot wait "$prompt" send 'reboot\n' wait 'This is Linux' wait "$prompt" send 'poweroff\n' exit 0 -- "$@"
}
# ways "WAY..." [doppel's options]: one machine that reboots by each in turn; arch/x86/kernel/reboot.c has them.
ways() {
	words=$1
	shift
	count=$#
	for way in $words; do
		set -- "$@" wait "$prompt" send "echo $way >/sys/kernel/reboot/type && cat /sys/kernel/reboot/type && reboot\n" wait "$way" wait 'This is Linux'
	done
	set -- "$@" wait "$prompt" send 'poweroff\n' exit 0 --
	while [ "$count" -gt 0 ]; do
		set -- "$@" "$1"
		shift
		count=$((count - 1))
	done
	boot "$@"
}
append=
check "the ways of Linux to reboot: bios acpi kbd triple efi pci" ways "bios acpi kbd triple efi pci"
for way in c w h; do
	append="reboot=$way"
	long check "reboot=$way" again
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
long check "reboot=b, engine interp" again --engine interp

if ! [ -f "$guest/686/vmlinuz" ] || ! [ -f "$guest/initrd-i386.cpio.gz" ]; then
	skip "32-bit kernels" "scripts/get-guest.sh --test gets them"
	finish
	exit 0
fi
kernel=686-pae
append=
check "the same with 32 bits" ways "bios acpi kbd triple efi pci" --initrd "$guest/initrd-i386.cpio.gz"
finish
