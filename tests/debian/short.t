#!/bin/sh
# A whole Debian from a qcow2 image: systemd, network, ssh, and its disk is whole afterwards. Where make debian has made it.
cd "$(dirname "$0")/../.." || exit 1
. tests/debian/lib.sh

has_bt || { echo "1..0 # SKIP engine bt does not run on this host"; exit 0; }
new_disk
start --cpus 2
check "systemd starts everything; ssh by key" is_up
check "the network is up by DHCP" has_network
check "20 MiB both ways" both_ways 20
check "it powers off" goes_down
check "its image and file system are whole" is_clean
finish
