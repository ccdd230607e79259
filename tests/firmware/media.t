#!/bin/sh
# What people start PCs from, on the screen of a terminal: memtest86+ from its CD, GRUB from a floppy, SYSLINUX from a FAT floppy and disk, ISOLINUX from a CD, iPXE from a CD; keys choose what
# they do. A package that is missing is a line that says so.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
expect=${TOOLS_DIR:-build/release/tests/tools}/expect
PATH=$PATH:/usr/sbin:/sbin
[ -f /usr/share/seabios/bios-256k.bin ] || {
	echo "1..0 # SKIP the package seabios is not installed"
	exit 0
}

# shows STEP... -- [doppel's options]
shows() {
	count=$#
	while [ "$count" -gt 0 ]; do
		word=$1
		shift
		set -- "$@" "$word"
		[ "$word" != -- ] || set -- "$@" "$doppel" run --display text
		count=$((count - 1))
	done
	"$expect" -t "${BOOT_LIMIT:-240}" -p "$@"
}
# with_package PACKAGE FILE NAME COMMAND...
with_package() {
	if [ -e "$2" ]; then
		shift 2
		check "$@"
	else
		skip "$3" "$2 is not there (package $1)"
	fi
}

memtest=/usr/lib/memtest86+/memtest86+x64.iso
with_package memtest86+ $memtest "memtest86+ from a CD tests memory" shows screen 'Memtest86+ v' screen 'Memory  :   64MB' screen 'Testing: 4MB' \
	send '\x1b' exit 0 cooked -- --cdrom "$memtest,format=raw" --memory 64M --no-reboot

rescue=/usr/lib/grub-rescue/grub-rescue-floppy.img
grub_floppy() {
	cp $rescue "$scratch/grub" && truncate -s 1440K "$scratch/grub" &&
		shows screen 'GNU GRUB' send 'c' screen 'grub>' send 'echo hel""lo\r' screen 'hello' send '\x01x' exit 0 cooked -- --floppy "$scratch/grub,format=raw"
}
with_package grub-rescue-pc $rescue "GRUB from a floppy, its command line" grub_floppy

# fat FILE KIBIBYTES MFORMAT'S OPTIONS: a FAT file system that SYSLINUX starts from
modules=/usr/lib/syslinux/modules/bios
printf 'PROMPT 1\nSAY Hello from here\nDEFAULT none\nLABEL off\nCOM32 poweroff.c32\n' >"$scratch/syslinux.cfg"
fat() {
	file=$1
	truncate -s "$2K" "$file"
	shift 2
	mformat -i "$file" "$@" :: && mcopy -i "$file" "$scratch/syslinux.cfg" $modules/poweroff.c32 $modules/libcom32.c32 :: && syslinux --install "$file"
}
turns_off() { shows screen 'Hello from here' screen 'boot: ' send 'off\r' exit 0 cooked -- "$@"; }
from_floppy() { fat "$scratch/floppy" 1440 -f 1440 && turns_off --floppy "$scratch/floppy,format=raw"; }
from_disk() { fat "$scratch/disk" 16128 -h 16 -s 63 -t 32 && turns_off --disk "$scratch/disk,bus=ide,format=raw"; }
from_cd() {
	mkdir "$scratch/cd" && cp /usr/lib/ISOLINUX/isolinux.bin $modules/ldlinux.c32 $modules/poweroff.c32 $modules/libcom32.c32 "$scratch/cd" &&
		cp "$scratch/syslinux.cfg" "$scratch/cd/isolinux.cfg" &&
		genisoimage -quiet -o "$scratch/iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table "$scratch/cd" && turns_off --cdrom "$scratch/iso,format=raw"
}
if command -v mformat >/dev/null && command -v syslinux >/dev/null; then
	check "SYSLINUX from a floppy" from_floppy
	check "SYSLINUX from a disk" from_disk
else
	skip "SYSLINUX from a floppy and a disk" "packages syslinux, syslinux-common, mtools are not all installed"
fi
if command -v genisoimage >/dev/null && [ -e /usr/lib/ISOLINUX/isolinux.bin ]; then
	check "ISOLINUX from a CD" from_cd
else
	skip "ISOLINUX from a CD" "packages isolinux, syslinux-common, genisoimage are not all installed"
fi

ipxe=/usr/lib/ipxe/ipxe.iso
with_package ipxe $ipxe "iPXE from a CD, its command line" shows screen 'Ctrl-B' send '\x02' screen 'iPXE> ' send '\x01x' exit 0 cooked -- --cdrom "$ipxe,format=raw"
finish
