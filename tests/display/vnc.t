#!/bin/sh
# A stock kernel whose keyboard is a VNC viewer's: what is typed there comes to its console, lamps come back.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
rfb=${TOOLS_DIR:-build/release/tests/tools}/rfb
need_modules

# typed: what a viewer types is read on the guest's first console and Caps Lock told to the viewer.
script='exec 3</dev/tty1
echo ready to type
read -r line <&3
echo "line: $line"'
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
	"$expect" -t "$limit" -l "$scratch/log" wait 'ready to type' wait 'line: Hello-World_42' wait 'all is well' exit 0 -- \
		"$doppel" run --kernel "$guest/$kernel/vmlinuz" --append "console=ttyS0 quiet $append" --initrd "$scratch/initrd" \
		--display "vnc:unix:$scratch/vnc" "$@"
	status=$?
	wait
	cat "$scratch/viewer"
	[ $status = 0 ] && grep -q 'its status is 0' "$scratch/viewer"
}
check "keys and lamps of a viewer, engine bt" with_viewer key 3a lamps 4 key 3a lamps 0 type 'Hello-World_42\n' --
finish
