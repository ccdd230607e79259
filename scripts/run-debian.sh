#!/bin/sh
# What `make debian` runs: Debian from its disk on this terminal, with a network; the host's port 2222 ($PORT) leads to its ssh. What it
# writes is kept in disk.qcow2 of scripts/get-debian.sh's folder: removed, it begins anew. Arguments are added to doppel's, e.g.
# make debian ARGS='--cpus 2'.
set -eu
debian=$("$(dirname "$0")/get-debian.sh" --where)
doppel=${DOPPEL:-doppel}
[ -e "$debian/disk.qcow2" ] || "$doppel" image create --quiet -f qcow2 -b root.qcow2 -F qcow2 "$debian/disk.qcow2"
echo "root's password is empty, here alone; from outside: ssh -F $debian/ssh_config${PORT:+ -p $PORT} debian"
exec "$doppel" run --kernel "$debian/vmlinuz" --initrd "$debian/initrd.img" --append "console=ttyS0 root=/dev/vda" --memory 1G \
	--disk "$debian/disk.qcow2" --net "user,forward=tcp:127.0.0.1:${PORT:-2222}-:22" --rng "$@"
