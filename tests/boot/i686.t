#!/bin/sh
# Debian's 32-bit kernels, with 32-bit paging and with PAE, and tests/guest-linux32 in them. Skipped where `scripts/get-guest.sh --test` could
# not get them.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh
user32=${USER32:-build/release/tests/guest-linux32/user32}

if ! [ -f "$guest/686/vmlinuz" ] || ! [ -f "$guest/initrd-i386.cpio.gz" ]; then
	echo "1..0 # SKIP no 32-bit kernels: scripts/get-guest.sh --test gets them"
	exit 0
fi
mkdir "$scratch/root"
cp "$user32" "$scratch/root"
(cd "$scratch/root" && echo user32 | cpio -o -H newc --quiet --owner=0:0) |
	cat - "$guest/initrd-i386.cpio.gz" >"$scratch/initrd"
append='doppel_run="/user32"'
for kernel in 686 686-pae; do
	for cpus in 1 2; do
		check "$kernel, $cpus CPUs, engine bt" boot wait 'user32: 0 failed' exit 0 absent 'Call Trace' -- \
			--engine bt --cpus "$cpus" --initrd "$scratch/initrd"
	done
done
# A minute of a busy host for each kernel: the one with the older paging is enough.
kernel=686
check "686, 1 CPU, engine interp" boot wait 'user32: 0 failed' exit 0 absent 'Call Trace' -- \
	--engine interp --initrd "$scratch/initrd"
finish
