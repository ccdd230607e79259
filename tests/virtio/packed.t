#!/bin/sh
# Packed rings under Debian's drivers, as transports.t has them: one queue and several, MSI-X and INTx, both engines, both clocks.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
. tests/virtio/ways.sh

uses $packed 4 PCI-MSI
check "4 queues, engine bt" works 4 ,packed --engine bt --cpus 4
uses $packed 1 PCI-MSI
long check "one queue, engine interp" works 1 ,packed --engine interp
append="$append pci=nomsi"
uses $packed 2 IO-APIC
check "modern alone, INTx, 2 queues, engine bt" works 2 ,packed,legacy=off --engine bt --cpus 2
append=doppel_run=/run
check "virtual time: the same run twice" same_twice ,packed
finish
