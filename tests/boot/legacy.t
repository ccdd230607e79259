#!/bin/sh
# What systems find without ACPI: processors and interrupts by the MP table, PCI interrupts by $PIR; and what inventories find: SMBIOS.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh
kernel=generic # the cloud kernel knows no MP table

# mp [doppel's options]: both processors, the timer by the I/O APIC, an interrupt of PCI
mp() {
	append="acpi=off apic=verbose ignore_loglevel" boot wait 'found SMP MP-table at [mem 0x000f' wait 'Intel MultiProcessor Specification v1.4' \
		wait 'IOAPIC[0]: apic_id 2, version 32, address 0xfec00000, GSI 0-23' \
		wait 'Int: type 0, pol 0, trig 0, bus 01, IRQ 00, APIC ID 2, APIC INT 02' \
		wait 'Int: type 0, pol 1, trig 3, bus 00, IRQ 0c, APIC ID 2, APIC INT 0b' \
		wait 'Brought up 1 node, 2 CPUs' wait "$prompt" send 'grep -c ^processor /proc/cpuinfo\n' wait '2' wait "$prompt" \
		send 'grep -c IO-APIC.*ttyS0 /proc/interrupts\n' wait '1' wait "$prompt" signal 15 exit 143 absent 'MP-BIOS bug' -- --cpus 2 "$@"
}

# The router is the bridge, and the table what makes Linux look for one.
pir() {
	append="acpi=off noapic ignore_loglevel" boot wait 'PIIX/ICH IRQ router [8086:7000]' wait "$prompt" \
		send 'grep -c XT-PIC.*ttyS0 /proc/interrupts\n' wait '1' wait "$prompt" signal 15 exit 143 -- "$@"
}

dmi() {
	append="ignore_loglevel" boot wait 'SMBIOS 2.8 present' wait 'DMI: Intel 440FX, BIOS 1.0 01/01/2026' wait "$prompt" \
		send 'cd /sys/class/dmi/id; cat sys_vendor product_name bios_vendor chassis_type\n' \
		wait 'Intel' wait '440FX' wait 'Intel' wait '1' wait "id# " send 'poweroff\n' exit 0 absent 'DMI not present' -- "$@"
}

check "acpi=off, 2 CPUs by the MP table" mp
check "acpi=off noapic: PCI interrupts by \$PIR" pir
check "SMBIOS" dmi --cpus 3
check "SMBIOS, 5 GiB" dmi --memory 5G
if [ -f "$guest/686-pae/vmlinuz" ] && [ -f "$guest/initrd-i386.cpio.gz" ]; then
	kernel=686-pae
	check "acpi=off, 2 CPUs by the MP table, 32 bits" mp --initrd "$guest/initrd-i386.cpio.gz"
	check "acpi=off noapic: PCI interrupts by \$PIR, 32 bits" pir --initrd "$guest/initrd-i386.cpio.gz"
else
	skip "32-bit kernels" "scripts/get-guest.sh --test gets them"
fi
finish
