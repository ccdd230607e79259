#!/bin/sh
# Systems that start by a firmware from IDE, AHCI and NVMe: GRUB of Debian's grub-rescue-pc from a CD and from a disk, which reads its menu and files, and turns the machine off.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
expect=${TOOLS_DIR:-build/release/tests/tools}/expect
image=/usr/lib/grub-rescue/grub-rescue-cdrom.iso

for file in "$image" /usr/share/seabios/bios-256k.bin; do
	[ -f "$file" ] || {
		echo "1..0 # SKIP $file is not there (packages grub-rescue-pc, seabios)"
		exit
	}
done

# Its configuration by one of the same size, that talks on the serial line.
place=$(grep -abo '# Sample GRUB configuration' "$image" | head -n 1 | cut -d: -f1)
cp "$image" "$scratch/image"
chmod 644 "$scratch/image"
{
	cat <<'END'
serial --unit=0
terminal_output serial
echo GRUB has its con"figuration"
if cmp /boot/grub/i386-pc/normal.mod /boot/grub/i386-pc/normal.mod; then echo the same "twice"; fi
echo root is "$root"
halt
END
	head -c 1705 /dev/zero | tr '\0' '\n'
} | head -c 1705 | dd of="$scratch/image" bs=1 seek=$((place - 2)) conv=notrunc 2>/dev/null

truncate -s 4M "$scratch/empty"

# starts WHERE [doppel's options]
starts() {
	where=$1
	shift
	"$expect" -t 120 wait 'GRUB has its configuration' wait 'the same twice' wait "root is $where" exit 0 -- \
		"$doppel" run "$@" </dev/null
}

for engine in ${ENGINES:-bt}; do
	check "from a CD, engine $engine" starts hd96 --cdrom "$scratch/image,format=raw" --engine "$engine"
	check "from a disk, engine $engine" starts hd0 --disk "$scratch/image,bus=ide,format=raw,readonly" --engine "$engine"
	check "from a CD on AHCI, engine $engine" starts hd96 --cdrom "$scratch/image,bus=sata,format=raw" --engine "$engine"
	check "from a disk on AHCI, before one on NVMe, engine $engine" starts hd0 --disk "$scratch/empty,bus=nvme,format=raw" \
		--disk "$scratch/image,bus=sata,format=raw,readonly,boot=1" --engine "$engine"
	check "from NVMe before a disk on AHCI, virtual time, engine $engine" starts hd0 --disk "$scratch/empty,bus=sata,format=raw" \
		--disk "$scratch/image,bus=nvme,format=raw,readonly,boot=1" --engine "$engine" --clock virtual
	check "from a CD before a disk, virtual time, engine $engine" starts hd96 --disk "$scratch/image,bus=ide,format=raw,readonly" \
		--cdrom "$scratch/image,format=raw,boot=1" --engine "$engine" --clock virtual
done
finish
