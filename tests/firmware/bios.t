#!/bin/sh
# SeaBIOS as the machine's firmware: its text where there is nothing to start; GRUB and Linux from disks on virtio-blk and SCSI; which disk it takes; what it is told, and
# Linux by it, compared with a kernel that is started directly.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
expect=${TOOLS_DIR:-build/release/tests/tools}/expect
for package in seabios grub-pc-bin e2fsprogs; do
	dpkg-query -W "$package" >/dev/null 2>&1 || {
		echo "1..0 # SKIP the package $package is not installed"
		exit 0
	}
done

# disk FILE WORD [mke2fs's options]: GRUB on its serial line, then the kernel with $script, which is told the word.
disk() {
	mkdir -p "$scratch/folder/boot/grub"
	cp "$guest/cloud/vmlinuz" "$scratch/initrd" "$scratch/folder/boot"
	printf 'serial\nterminal_input serial\nterminal_output serial\necho GRUB of %s\nlinux /boot/vmlinuz %s word=%s\ninitrd /boot/initrd\nboot\n' \
		"$2" "console=ttyS0 quiet panic=-1 doppel_run=/run" "$2" >"$scratch/folder/boot/grub/grub.cfg"
	scripts/make-disk.sh "$scratch/$1" 48 "$scratch/folder"
}
nothing() {
	"$expect" -t 60 wait 'SeaBIOS' wait 'No bootable device' signal 15 exit 143 -- "$doppel" run --serial null --debug-console stdio "$@" </dev/null
}
starts() {
	word=$1
	shift
	"$expect" -t 240 -l "$scratch/output" wait "GRUB of $word" wait "word=$word" wait 'all is well' exit 0 absent 'Call Trace' absent 'ACPI BIOS Error' absent 'ACPI Error' -- \
		"$doppel" run "$@" </dev/null
}
# A menu on the screen, of which a key takes the second entry; GRUB then powers off by the ACPI tables.
on_terminal() {
	mkdir -p "$scratch/menu/boot/grub"
	cat >"$scratch/menu/boot/grub/grub.cfg" <<-'EOF'
		terminal_output console
		set timeout=-1
		menuentry "number one" { echo wrong; }
		menuentry "number two" { echo this is number two; sleep --interruptible 60; halt; }
	EOF
	scripts/make-disk.sh "$scratch/menu.raw" 16 "$scratch/menu"
	"$expect" -t 120 -p screen 'SeaBIOS (version' screen 'GNU GRUB' screen '│ number two' screen '*number one' size 100 30 screen '└──────' \
		send '\x1b[B' screen '*number two' send '\r' screen 'this is number two' send '\x1b' exit 0 cooked -- "$doppel" run "$scratch/menu.raw" --net none --display text "$@"
}
left() {
	"$expect" -t 60 -p "$@" cooked -- "$doppel" run --firmware bios --display text
}

# A table's bytes as the guest printed them, without what is elsewhere: the addresses in it, and its checksum.
table() { tr -d '\r' <"$1" | sed -n "s/^table $2 //p"; }
same_tables() {
	set -- --cpus 2 --fw-cfg name=opt/word,string=told --device hpet --generation-id 324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87 \
		--smbios type=1,serial=S-1,uuid=724e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87 --smbios 'type=2,product=a board,,b'
	starts tables --disk "$scratch/tables,readonly,legacy=off" "$@" || return 1
	"$expect" -t 240 -l "$scratch/direct" wait 'all is well' exit 0 -- "$doppel" run --kernel "$guest/cloud/vmlinuz" --initrd "$scratch/tables.initrd" \
		--append 'console=ttyS0 quiet doppel_run=/run' "$@" </dev/null || return 1
	for name in DSDT APIC FACP HPET DMI; do
		table "$scratch/output" "$name" >"$scratch/a"
		table "$scratch/direct" "$name" >"$scratch/b"
		[ -s "$scratch/a" ] || { echo "no $name"; return 1; }
		cmp "$scratch/a" "$scratch/b" || return 1
	done
}

# Addresses in the FADT: 36..44, 132..148; checksums: 9.
script='t=/sys/firmware/acpi/tables
cat /proc/cmdline
d=/sys/class/dmi/id
grep hpet /sys/devices/system/clocksource/clocksource0/available_clocksource
[ $(cat $d/product_serial) = S-1 ]
[ "$(cat $d/board_name)" = "a board,b" ]
[ $(cat $d/product_uuid) = 724e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87 ]
grep -x acpi:QEMUVGID:VM_GEN_COUNTER: /sys/bus/acpi/devices/QEMUVGID:00/modalias
echo table DMI $(hexdump -v -e "1/1 \"%02x\"" /sys/firmware/dmi/tables/DMI)
for name in DSDT APIC HPET; do echo table $name $(hexdump -v -e "1/1 \"%02x\"" $t/$name | cut -c 1-18,21-); done
echo table FACP $(hexdump -v -e "1/1 \"%02x\"" $t/FACP | cut -c 1-18,21-72,89-264,297-)'
guest_with -
disk tables tables
mv "$scratch/initrd" "$scratch/tables.initrd"
script='test -e /sys/firmware/acpi/tables/APIC
modprobe virtio_blk; modprobe virtio_scsi; modprobe sd_mod; cat /proc/cmdline'
guest_with -
disk first first
disk second second

check "GRUB's menu on a terminal, engine bt" on_terminal --engine bt
check "Ctrl-A x leaves it" left screen 'No bootable device' send '\x01x' exit 0
check "a signal leaves it" left screen 'SeaBIOS' signal 15 exit 143
check "nothing to start from, engine bt" nothing --firmware bios --engine bt --cpus 2 --clock virtual
check "a disk on virtio-blk, engine interp" starts first "$scratch/first" --engine interp --net none
check "SCSI before virtio by its number, 2 CPUs, 4 GiB" starts second --disk "$scratch/first" --disk "$scratch/second,bus=scsi,boot=1" \
	--cpus 2 --memory 4G
check "ACPI's tables are those of direct boot" same_tables
finish
