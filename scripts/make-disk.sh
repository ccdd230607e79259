#!/bin/sh
# Makes a disk that a PC's BIOS starts: GRUB, and one ext4 file system with the contents of a folder; without being root, and without a loop device.
#
#   make-disk.sh FILE MEGABYTES FOLDER [OPTIONS]    FILE is a raw image; OPTIONS are more of mke2fs's
#
# GRUB reads /boot/grub/grub.cfg of that folder. What it may use there is in $modules. Needs the packages grub-pc-bin, grub-common and e2fsprogs.
set -eu
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

# shellcheck disable=SC2086 # words
grub-mkimage -O i386-pc -d "$grub" -o "$work/core" -p '(hd0,msdos1)/boot/grub' $modules
[ "$(wc -c <"$work/core")" -lt $(((start - 1) * 512)) ]
rm -f "$file"
truncate -s "${size}M" "$file"
sectors=$((size * 2048 - start))
mke2fs -q -t ext4 -E "offset=$((start * 512)),lazy_itable_init=0,lazy_journal_init=0" -d "$folder" "$@" "$file" "$((sectors / 2))k"
# GRUB's first sector looks for the others behind it, and they are; then the table of partitions, with one that is active and Linux's.
head -c 440 "$grub/boot.img" | at 0
# shellcheck disable=SC2059
printf "\\200\\0\\0\\0\\203\\0\\0\\0$(le32 $start)$(le32 $sectors)" | at 446
printf '\125\252' | at 510
dd if="$work/core" of="$file" bs=512 seek=1 conv=notrunc status=none
