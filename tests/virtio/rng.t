#!/bin/sh
# virtio-rng, and with it the ways in which a driver comes to a virtio device: modern and legacy interface, MSI-X and INTx, engines, processors, clocks.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

# reads FEATURES INTERRUPTS: 4 KiB of random bytes, and what the driver has negotiated with the device.
reads() {
	script="modprobe virtio-rng
[ \$(dd if=/dev/hwrng bs=64 count=64 2>/dev/null | sha256sum | wc -c) = 68 ]
[ \$(dd if=/dev/hwrng bs=4k count=1 2>/dev/null | gzip | wc -c) -gt 4000 ]
grep -q '^0\\{28\\}1100$1' /sys/bus/virtio/devices/virtio0/features
grep -q '$2.*virtio0' /proc/interrupts"
	guest_with -
}
modern=1
legacy=0

reads $modern PCI-MSI
check "modern, MSI-X, engine bt" well --engine bt --rng
check "modern, MSI-X, engine interp, 4 CPUs" well --engine interp --cpus 4 --rng
check "without legacy, engine bt, 4 CPUs" well --engine bt --cpus 4 --device virtio-rng,legacy=off
check "virtual time" well --clock virtual --cpus 2 --rng
modprobe=force_legacy=1
reads $legacy PCI-MSI
check "legacy, MSI-X, engine bt, 2 CPUs" well --engine bt --cpus 2 --rng
append="$append pci=nomsi"
reads $legacy IO-APIC
long check "legacy, INTx, engine interp" well --engine interp --rng
modprobe=
reads $modern IO-APIC
check "modern, INTx, engine bt, 4 CPUs" well --engine bt --cpus 4 --rng
finish
