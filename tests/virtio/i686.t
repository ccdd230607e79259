#!/bin/sh
# virtio devices under Debian's 32-bit kernel: transitional ones by their legacy interface, and in windows with packed rings.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
. tests/virtio/ways.sh

kernel=686
initrd_of=-i386
need_modules
modprobe=force_legacy=1
uses $transitional 1 PCI-MSI
check "transitional, by the legacy interface" works 1 "" --memory 512M
modprobe=
uses $split 1 PCI-MSI
long check "transitional, by the modern interface, engine interp" works 1 "" --memory 512M --engine interp
uses $packed 1 IO-APIC
check "in windows, packed" works 1 ,transport=mmio,packed --memory 512M
finish
