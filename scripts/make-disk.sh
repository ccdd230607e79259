#!/bin/sh
# Makes a disk that a PC's BIOS starts: GRUB, and one ext4 file system with the contents of a folder; without being root, and without a loop device.
#
#   make-disk.sh [-w] FILE MEGABYTES FOLDER [OPTIONS]    FILE is a raw image; OPTIONS are more of mke2fs's
#
# The file system is the first partition, or, with -w, all of the disk: GRUB is then a file in it, /boot/grub/core.img, which stays where it is. GRUB reads /boot/grub/grub.cfg of that folder. What it may use there is in $modules. Needs the packages grub-pc-bin, grub-common and e2fsprogs.
set -eu
whole=
[ "$1" != -w ] || {
	whole=1
	shift
}
file=$1
size=$2
folder=$3
shift 3
PATH=$PATH:/usr/sbin:/sbin
grub=/usr/lib/grub/i386-pc
modules='biosdisk part_msdos ext2 normal configfile linux linux16 multiboot serial terminal echo test search search_label search_fs_uuid gzio reboot halt sleep minicmd ls cat'
start=2048 # of the file system, in sectors; GRUB is in front of it

if [ ! -d "$grub" ] || ! command -v grub-mkimage >/dev/null; then
	echo "make-disk: no GRUB; install grub-pc-bin and grub-common" >&2
	exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Bytes of a number of 32 bits, little-endian, for printf.
le32() {
	for shift in 0 8 16 24; do
		printf '\\%03o' $(($1 >> shift & 255))
	done
}
at() { dd of="$file" bs=1 seek="$1" conv=notrunc status=none; }

# core PREFIX: GRUB, its first sector being a list of where the others are.
core() {
	# shellcheck disable=SC2086 # words
	grub-mkimage -O i386-pc -d "$grub" -o "$work/core" -p "$1" $modules
}
file_system() { mke2fs -q -t ext4 -E "offset=$((start * 512)),lazy_itable_init=0,lazy_journal_init=0" -d "$folder" "$@"; }

# The blocks of /boot/grub/core.img, in sectors: where each run of them begins, and how many there are.
runs() {
	debugfs -R 'blocks /boot/grub/core.img' "$file" 2>/dev/null | tr ' ' '\n' | awk -v per="$1" '
		NF && $1 == last + 1 { count++; last = $1; next }
		NF { if (count) print first * per, count * per; first = last = $1; count = 1 }
		END { if (count) print first * per, count * per }'
}

# The first sector of that file is the boot sector's to load; it has, from its end on, 12 bytes for each run of the others: start, 64 bits, sectors and segment.
list_blocks() {
	per=$(($(dumpe2fs -h "$file" 2>/dev/null | sed -n 's/^Block size: *//p') / 512))
	runs "$per" >"$work/runs"
	[ "$(wc -l <"$work/runs")" -le 8 ]
	at_byte=500
	segment=$((0x820))
	first=
	while read -r sector count; do
		if [ -z "$first" ]; then
			first=$sector
			sector=$((sector + 1))
			count=$((count - 1))
		fi
		# shellcheck disable=SC2059
		printf "$(le32 "$sector")\\0\\0\\0\\0$(le32 $((count | segment << 16)))" |
			dd of="$file" bs=1 seek=$((first * 512 + at_byte)) conv=notrunc status=none
		at_byte=$((at_byte - 12))
		segment=$((segment + count * 32))
	done <"$work/runs"
	# shellcheck disable=SC2059
	printf "$(le32 "$first")" | at 92
}

rm -f "$file"
truncate -s "${size}M" "$file"
if [ "$whole" ]; then
	start=0
	core '(hd0)/boot/grub'
	mkdir -p "$folder/boot/grub"
	cp "$work/core" "$folder/boot/grub/core.img"
	file_system "$@" "$file" "${size}M"
	head -c 440 "$grub/boot.img" | at 0
	list_blocks
else
	core '(hd0,msdos1)/boot/grub'
	[ "$(wc -c <"$work/core")" -lt $(((start - 1) * 512)) ]
	sectors=$((size * 2048 - start))
	file_system "$@" "$file" "$((sectors / 2))k"
	# GRUB's first sector looks for the others behind it, and they are; then the table of partitions, with one that is active and Linux's.
	head -c 440 "$grub/boot.img" | at 0
	# shellcheck disable=SC2059
	printf "\\200\\0\\0\\0\\203\\0\\0\\0$(le32 $start)$(le32 $sectors)" | at 446
	dd if="$work/core" of="$file" bs=512 seek=1 conv=notrunc status=none
fi
printf '\125\252' | at 510
