#!/bin/sh
# What the VGA shows, in pictures that were looked at once: SeaBIOS' text, by Debian's vgabios and its font; Linux' console in a frame buffer of bochs-drm's.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
picture=${TOOLS_DIR:-build/release/tests/tools}/picture
kernel=generic

# shows FILE PART EXPECTED
shows() {
	"$picture" "$1" "$2" >"$scratch/seen" || return 1
	[ "$(cat "$scratch/seen")" = "$3" ] || { echo "$1, $2: $(cat "$scratch/seen"), expected $3"; return 1; }
}

# "Boot failed: could not read the boot disk", the sixth line; the first one has a version.
seabios() {
	rm -f "$scratch/bios.png"
	"$expect" -t 120 wait 'No bootable device' signal 15 exit 143 -- "$doppel" run --firmware bios --memory 64M --serial null --debug-console stdio \
		--screenshot "$scratch/bios.png" "$@" </dev/null || return 1
	shows "$scratch/bios.png" 0,80,720,16 "720x400 3d78e045"
}
bochs_drm() {
	rm -f "$scratch/drm.png"
	well --screenshot "$scratch/drm.png" "$@" && shows "$scratch/drm.png" 0,0,1024,752 "1024x768 9458d25a"
}

if dpkg-query -W seabios >/dev/null 2>&1; then
	check "SeaBIOS, engine bt" seabios --engine bt
	check "SeaBIOS, engine interp" seabios --engine interp
fi
if grep -q bochs "$guest/generic-modules/list"; then
	# The cursor is in the last line.
	script='modprobe bochs
n=0; while [ $n -lt 60 ]; do printf "\033[1;%dmline %d of colours\033[0m\n" $((31 + n % 7)) $n >/dev/tty0; n=$((n + 1)); done
grep bochs /proc/fb'
	guest_with -
	check "bochs-drm, engine bt" bochs_drm --engine bt
fi
finish
