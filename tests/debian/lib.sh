# shellcheck shell=sh
# What the tests of a whole Debian share; they source it from the top of the tree. It runs from an overlay over its disk, and is worked in
# over ssh.
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
expect=${TOOLS_DIR:-build/release/tests/tools}/expect
debian=$(scripts/get-debian.sh --where)
limit=${BOOT_LIMIT:-600}
# Processes that end with the test.
machine='' server=''
trap 'for pid in $machine $server; do kill "$pid"; done; rm -rf "$scratch"' EXIT

need() {
	[ -d "$debian" ] || { echo "1..0 # SKIP no Debian: make debian makes it"; exit 0; }
	for program in ssh scp python3; do
		command -v "$program" >/dev/null || { echo "1..0 # SKIP no $program: it is one of the packages of make debian"; exit 0; }
	done
}
need

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

new_disk() { "$doppel" image create --quiet --backing any -f qcow2 -b "$debian/root.qcow2" -F qcow2 "$scratch/disk"; }

# start [doppel's options]: a Debian with $scratch/disk, whose end has to be a power-off.
start() {
	port=$(free_port)
	"$expect" -t "$limit" wait 'debian login: ' absent 'Call Trace' wait 'Power down' absent 'I/O error' exit 0 -- \
		"$doppel" run --kernel "$debian/vmlinuz" --initrd "$debian/initrd.img" --append "console=ttyS0 root=/dev/vda" --memory 1G \
		--disk "$scratch/disk,backing=any" --net "user,forward=tcp:127.0.0.1:$port-:22" --rng "$@" >"$scratch/machine" 2>&1 &
	machine=$!
}

# in_debian COMMAND: a line for its shell.
in_debian() { ssh -F "$debian/ssh_config" -p "$port" -o ConnectTimeout=60 -o LogLevel=ERROR debian "$@"; }
copy() { scp -q -F "$debian/ssh_config" -P "$port" "$@"; }

# It lets nobody in before it is there; an attempt waits until then, or fails at once.
is_up() {
	until in_debian true; do
		kill -0 "$machine" || { cat "$scratch/machine"; return 1; }
	done
	state=$(in_debian 'systemctl is-system-running --wait')
	echo "systemd: $state"
	[ "$state" = running ] || { in_debian 'systemctl --failed; journalctl -p err'; return 1; }
}
has_network() {
	in_debian 'networkctl status; ip route; /lib/systemd/systemd-networkd-wait-online --timeout=60 && ip -4 route show default | grep "via 10.0.2.2 "'
}

# both_ways MEGABYTES: random bytes to the guest by scp and back through a pipe.
both_ways() {
	head -c "$(($1 << 20))" /dev/urandom >"$scratch/there" || return 1
	copy "$scratch/there" debian:/root/there || return 1
	[ "$(in_debian 'sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum </root/there')" = "$(sha256sum <"$scratch/there")" ] || return 1
	in_debian 'cat /root/there; rm /root/there' | cmp - "$scratch/there"
}

# It goes down by itself, and nothing was wrong on its console.
goes_down() {
	in_debian 'systemctl poweroff' || true
	wait "$machine"
	ended=$?
	machine=
	[ "$ended" = 0 ] || { tail -n 60 "$scratch/machine"; return 1; }
}

is_clean() {
	"$doppel" image check "$scratch/disk" || return 1
	! command -v qemu-img >/dev/null || qemu-img check "$scratch/disk" || return 1
	"$doppel" image convert --quiet --backing any -O raw "$scratch/disk" "$scratch/disk.raw" || return 1
	PATH=$PATH:/usr/sbin:/sbin e2fsck -fn "$scratch/disk.raw" || return 1
	rm "$scratch/disk.raw"
}
