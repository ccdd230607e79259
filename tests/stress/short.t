#!/bin/sh
# tests/guest-linux in a guest under the translator, and on the host itself, which shows that the program is right.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh
torture=${TORTURE:-build/release/tests/guest-linux/torture}

check "processes, signals, mappings, changing code, threads: on the host" "$torture" 0
mkdir "$scratch/root"
cp "$torture" "$scratch/root"
(cd "$scratch/root" && echo torture | cpio -o -H newc --quiet --owner=0:0) | cat - "$guest/initrd.cpio.gz" >"$scratch/initrd"
append='doppel_run="/torture 0"'
for cpus in 1 2; do
	check "the same in a guest, engine bt, $cpus CPUs" \
		boot wait 'torture: 0 failed' exit 0 absent 'Call Trace' -- --engine bt --cpus "$cpus" --initrd "$scratch/initrd"
done
# What little there is room for is thrown away all the time.
check "and with next to no room" \
	boot wait 'torture: 0 failed' exit 0 absent 'Call Trace' -- --engine bt,cache=4,windows=8,mappings=1024 --cpus 2 \
	--initrd "$scratch/initrd"
finish
