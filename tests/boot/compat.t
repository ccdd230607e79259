#!/bin/sh
# 32-bit programs under Debian's 64-bit kernel: tests/guest-linux32, which checks itself, under both engines, and on the host if that
# runs 32-bit programs.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh
user32=${USER32:-build/release/tests/guest-linux32/user32}

if "$user32" again >/dev/null 2>&1; [ $? = 42 ]; then
	check "32-bit programs: on the host" "$user32"
else
	echo "# the host runs no 32-bit programs"
fi
mkdir "$scratch/root"
cp "$user32" "$scratch/root"
(cd "$scratch/root" && echo user32 | cpio -o -H newc --quiet --owner=0:0) | cat - "$guest/initrd.cpio.gz" >"$scratch/initrd"
append='doppel_run="/user32"'
check "the same in a guest, engine bt" \
	boot wait 'user32: 0 failed' exit 0 absent 'Call Trace' -- --engine bt --initrd "$scratch/initrd"
check "the same with two CPUs" \
	boot wait 'user32: 0 failed' exit 0 absent 'Call Trace' -- --engine bt --cpus 2 --initrd "$scratch/initrd"
long check "engine interp" \
	boot wait 'user32: 0 failed' exit 0 absent 'Call Trace' -- --engine interp --initrd "$scratch/initrd"
finish
