#!/bin/sh
# A stock kernel whose keyboard and mouse are a VNC viewer's: what is typed there comes to its console, lamps come back, the mouse moves.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
rfb=${TOOLS_DIR:-build/release/tests/tools}/rfb
kernel=generic
need_modules

# typed: what a viewer types is read on the guest's first console, with Caps Lock told to the viewer and what its mouse did.
script='modprobe psmouse
modprobe evdev
while ! grep -q "mouse0\|PS/2.*Mouse" /proc/bus/input/devices; do sleep 1; done
mouse=$(sed -n "/Mouse/,/^$/s/.*Handlers=.*\(event[0-9]*\).*/\1/p" /proc/bus/input/devices)
hexdump -v -e "1/8 \"\" 1/8 \"\" 1/2 \"type %d \" 1/2 \"code %d \" 1/4 \"value %d\n\"" /dev/input/$mouse >/events &
sleep 1
exec 3</dev/tty1
echo ready to type
read -r line <&3
echo "line: $line"
sleep 1
sed "s/^/mouse: /" /events'
guest_with -

# viewer WHAT... -- [doppel's options]: when the guest is ready a viewer does that.
with_viewer() {
	actions=
	while [ "$1" != -- ]; do
		actions="$actions $1"
		shift
	done
	shift
	rm -f "$scratch/go"
	# shellcheck disable=SC2086  # words
	(
		while ! grep -q 'ready to type' "$scratch/log" 2>/dev/null; do sleep 0.2; done
		"$rfb" "$scratch/vnc" $actions >"$scratch/viewer" 2>&1
		echo "its status is $?" >>"$scratch/viewer"
	) &
	"$expect" -t "$limit" -l "$scratch/log" wait 'ready to type' wait 'line: Hello-World_42' wait 'mouse: type 2 code 0 value 30' \
		wait 'mouse: type 2 code 1 value -7' wait 'mouse: type 1 code 272 value 1' wait 'all is well' exit 0 -- \
		"$doppel" run --kernel "$guest/$kernel/vmlinuz" --append "console=ttyS0 quiet $append" --initrd "$scratch/initrd" \
		--display "vnc:unix:$scratch/vnc" "$@"
	status=$?
	wait
	cat "$scratch/viewer"
	[ $status = 0 ] && grep -q 'its status is 0' "$scratch/viewer"
}
check "keys, lamps and the mouse of a viewer, engine bt" with_viewer move 30 -7 click key 3a lamps 4 key 3a lamps 0 type 'Hello-World_42\n' --
finish
