#!/bin/sh
# What `make run` runs: a stock Debian kernel with an interactive shell on this terminal. Arguments are added to
# doppel's, e.g. make run ARGS='--cpus 2'.
set -eu
guest=$("$(dirname "$0")/get-guest.sh" --where)
exec "${DOPPEL:-doppel}" run --kernel "$guest/cloud/vmlinuz" --initrd "$guest/initrd.cpio.gz" --append "console=ttyS0" "$@"
