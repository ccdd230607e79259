#!/bin/sh
# virtio devices in windows of memory instead of on PCI, with rings of both layouts: found by ACPI, or, by a kernel that has none, on its command line.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
. tests/virtio/ways.sh

uses $split 2 IO-APIC
check "2 queues, engine bt" works 2 ,transport=mmio --engine bt --cpus 2
uses $packed 1 IO-APIC
long check "packed, one queue, engine interp" works 1 ,transport=mmio,packed --engine interp
check "virtual time: the same run twice" same_twice ,transport=mmio,packed

# Debian's driver is built without what looks on the command line. With both, others would find each device twice.
script="grep -o 'virtio_mmio.device=.*' /proc/cmdline || echo 'nothing there'"
guest_with -
append="$append acpi=off"
check "on the command line, without ACPI" boot wait 'virtio_mmio.device=4K@0xfec10000:16' -- --initrd "$scratch/initrd" --device virtio-rng,transport=mmio
append=doppel_run=/run
check "not there, with ACPI" boot wait 'nothing there' exit 0 -- --initrd "$scratch/initrd" --device virtio-rng,transport=mmio

kernel=generic
if [ -f "$guest/$kernel-modules/modules.cpio" ]; then
	uses $packed 2 IO-APIC
	check "packed, Debian's full kernel" works 2 ,transport=mmio,packed --cpus 2
fi
finish
