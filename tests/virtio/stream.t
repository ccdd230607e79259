#!/bin/sh
# Networks that are streams: two machines on one cable, one of them QEMU's; passt as the way out.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

others=
trap 'kill $others 2>/dev/null; rm -rf "$scratch"' EXIT
# passt is not root any more when it makes its socket.
chmod 711 "$scratch"
mkdir -m 777 "$scratch/open"
socket=$scratch/open/socket

# address N SCRIPT: a machine of the cable, and what it does.
address() {
	script="modprobe virtio_net
ip link set lo up
ip link set eth0 up
ip addr add 10.9.8.$1/24 dev eth0
$2"
	guest_with -
	mv "$scratch/initrd" "$scratch/initrd$1"
}
# The second machine serves a file until the first one has fetched it and says so; each tries until the other is there.
address 1 'until timeout 20 wget -q -O /got http://10.9.8.2/data; do :; done
[ "$(sha256sum </got)" = "$(head -c 3000000 /dev/zero | sha256sum)" ]
until echo done | nc -w 5 10.9.8.2 99; do :; done'
address 2 'mkdir /www
head -c 3000000 /dev/zero >/www/data
httpd -p 80 -h /www
nc -l -p 99 >/tmp/word
[ "$(cat /tmp/word)" = done ]'

# pair OTHER...: the command runs the second machine.
pair() {
	timeout "$limit" "$@" >"$scratch/second" 2>&1 </dev/null &
	others=$!
	until [ -S "$socket" ]; do kill -0 "$others" 2>/dev/null || { cat "$scratch/second"; return 1; }; sleep 0.05; done
	cp "$scratch/initrd1" "$scratch/initrd"
	well --net "stream:unix:$socket,mac=52:54:00:00:00:01"
	status=$?
	[ $status = 0 ] || kill "$others" 2>/dev/null
	wait "$others"
	rm -f "$socket"
	tail -n 5 "$scratch/second"
	[ $status = 0 ] && grep 'all is well' "$scratch/second"
}

check "two machines on a cable" pair "$doppel" run --kernel "$guest/cloud/vmlinuz" --initrd "$scratch/initrd2" \
	--append "console=ttyS0 quiet doppel_run=/run" --net "stream:unix:$socket,server,mac=52:54:00:00:00:02"
if command -v qemu-system-x86_64 >/dev/null; then
	check "a machine of QEMU's at the other end" pair qemu-system-x86_64 -accel tcg -cpu max -m 512 -nodefaults -display none -serial stdio -no-reboot \
		-kernel "$guest/cloud/vmlinuz" -initrd "$scratch/initrd2" -append "console=ttyS0 quiet doppel_run=/run" \
		-netdev "stream,id=n,server=on,addr.type=unix,addr.path=$socket" -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:02
else
	skip "a machine of QEMU's at the other end" "no qemu-system-x86"
fi

# DHCP with the host's address.
through_passt() {
	timeout -k 1 "$limit" passt -f -s "$socket" >"$scratch/passt" 2>&1 &
	others=$!
	until [ -S "$socket" ]; do kill -0 "$others" 2>/dev/null || { cat "$scratch/passt"; return 1; }; sleep 0.05; done
	well --net "stream:unix:$socket"
	status=$?
	kill "$others" 2>/dev/null
	wait "$others" 2>/dev/null
	cat "$scratch/passt"
	return $status
}
script="modprobe virtio_net
ip link set eth0 up
printf '#!/bin/sh\n[ \$1 != bound ] || echo \$ip >/tmp/ip\n' >/tmp/dhcp
chmod 755 /tmp/dhcp
udhcpc -i eth0 -s /tmp/dhcp -n -q -f 2>/dev/null
grep -q '[0-9]\\.' /tmp/ip"
guest_with -
if command -v passt >/dev/null && ip route 2>/dev/null | grep -q default; then
	check "passt" through_passt
else
	skip "passt" "no passt, or no network here"
fi
finish
