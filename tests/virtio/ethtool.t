#!/bin/sh
# virtio-net as Debian's driver may be told to use it: offloads, queues, addresses, MTU; after each change data both ways.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

# wget posts text only.
head -c 800000 /dev/urandom | base64 >"$scratch/data"
sum=$(sha256sum <"$scratch/data" | cut -c 1-64)

# GET gives the data, POST tells the sum of what came.
cat >"$scratch/server" <<'END'
use strict; use IO::Socket::INET; use Digest::SHA;
my $l = IO::Socket::INET->new(Listen => 9, LocalAddr => "127.0.0.1") or die;
open my $f, "<", $ARGV[0] or die; local $/; my $data = <$f>;
$| = 1; print $l->sockport, "\n"; close STDOUT;
$SIG{CHLD} = "IGNORE";
while (my $s = $l->accept) {
	if (fork) { close $s; next }
	local $/ = "\r\n";
	my $request = <$s>; my $length = 0;
	while ((my $line = <$s>) ne "\r\n") { $length = $1 if $line =~ /^content-length: (\d+)/i }
	my $answer = $data;
	if ($request =~ /^POST/) { read $s, my $got, $length; $answer = Digest::SHA::sha256_hex($got) }
	print $s "HTTP/1.0 200 OK\r\n\r\n", $answer; close $s; exit;
}
END
perl "$scratch/server" "$scratch/data" >"$scratch/port" &
server=$!
trap 'kill $server 2>/dev/null; rm -rf "$scratch"' EXIT
until [ -s "$scratch/port" ]; do kill -0 $server || exit 1; sleep 0.05; done
port=$(cat "$scratch/port")

up="modprobe virtio_net \$driver
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
both() {
	echo \"\$@\"
	\"\$@\"
	[ \"\$(wget -q -O - http://10.0.2.2:$port/data | sha256sum | cut -c 1-64)\" = $sum ]
	[ \"\$(wget -q -O - --post-file /data http://10.0.2.2:$port/)\" = $sum ]
}"

script="$up
both true
both ip link set eth0 mtu 1280
both ip link set eth0 mtu 1500
both ip link set eth0 promisc on
both ip link set eth0 promisc off
both ifconfig eth0 allmulti
ip link set eth0 down
ip link set eth0 address 52:54:00:12:34:56
both ip link set eth0 up"
guest_with "$scratch/data"
check "MTU, modes, address, engine bt" well --engine bt --net user
script="driver='csum=0 gso=0'
$script"
guest_with "$scratch/data"
check "the same without checksums and segmentation, engine bt" well --engine bt --net user

# changed NAME on|off: what the driver says of it.
script="$up
mkdir /lib64
ln -s /ld-linux-x86-64.so.2 /lib64
export LD_LIBRARY_PATH=/ PATH=\$PATH:/
changed() { ethtool -k eth0 | grep -q \"^\$1: \$2\"; }
for what in tso gso tx gro sg; do both ethtool -K eth0 \$what off; done
changed tx-checksumming off
changed tcp-segmentation-offload off
ethtool -K eth0 sg on tx on tso on gso on gro on
both changed tcp-segmentation-offload on
both changed rx-gro-hw on
ethtool -K eth0 rx-gro-hw off
both changed rx-gro-hw off
ethtool -K eth0 rx-gro-hw on
both changed rx-gro-hw on
both ethtool -L eth0 combined 4
ethtool -l eth0 | tail -n 2 | grep -q 'Combined:.*4'
both ethtool -L eth0 combined 2
both ethtool -L eth0 combined 1
ip link set eth0 down
both ip link set eth0 up"
if command -v ethtool >/dev/null; then
	# shellcheck disable=SC2046 # words
	guest_with "$scratch/data" "$(command -v ethtool)" $(ldd "$(command -v ethtool)" | sed -n 's|^[^/]*\(/[^ ]*\).*|\1|p')
	check "offloads, queues, engine bt" well --engine bt --cpus 4 --device virtio-net,queues=4
else
	skip "offloads, queues, engine bt" "no ethtool"
fi
finish
