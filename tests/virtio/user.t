#!/bin/sh
# The user network's further sides: connections from the host by IPv6 and by a Unix socket, names, ICMP, DHCP's options, the death of its process.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

# Ports that nobody has.
port=$(perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport')

up="modprobe virtio_net
ip link set lo up
ip link set eth0 up
printf '#!/bin/sh\nif [ \$1 = bound ]; then ip addr add \$ip/24 dev eth0; for r in \$router; do ip route add default via \$r; done; set >/tmp/dhcp-said; echo nameserver \$dns >/etc/resolv.conf; fi\n' >/tmp/dhcp
chmod 755 /tmp/dhcp
mkdir -p /etc
udhcpc -i eth0 -s /tmp/dhcp -n -q -f -O hostname -O mtu 2>/dev/null"

# client WHERE WHAT: an HTTP request to tcp:PORT, tcp6:PORT or unix:PATH, until there is an answer that has WHAT.
cat >"$scratch/client" <<'END'
use strict; use IO::Socket::IP; use IO::Socket::UNIX;
my ($kind, $where) = $ARGV[0] =~ /(\w+):(.*)/;
$SIG{ALRM} = sub { exit 1 };
alarm $ARGV[2];
for (;; select undef, undef, undef, 0.2) {
	my $s = $kind eq "unix" ? IO::Socket::UNIX->new(Peer => $where)
		: IO::Socket::IP->new(PeerHost => $kind eq "tcp6" ? "::1" : "127.0.0.1", PeerPort => $where) or next;
	local $SIG{PIPE} = "IGNORE";
	print $s "GET $ARGV[1] HTTP/1.0\r\n\r\n";
	$s->flush;
	my $answer = join "", <$s>;
	exit 0 if $answer =~ / 200 OK.*inside/s;
}
END
client() { perl "$scratch/client" "$1" "$2" "$limit"; }

# The guest serves until the host has asked for /end.
serve="mkdir -p /www/cgi-bin
echo inside >/www/data
printf '#!/bin/sh\necho HTTP/1.0 200 OK; echo; echo inside; echo >/tmp/end\n' >/www/cgi-bin/end
chmod 755 /www/cgi-bin/end
httpd -p [::]:80 -h /www
until [ -f /tmp/end ]; do sleep 0.2; done"

forwards() {
	clients="$*"
	(for c in $clients; do client "$c" /data || exit 1; done; client "tcp:$port" /cgi-bin/end) &
	others=$!
	well --engine bt --net "user,forward=tcp:127.0.0.1:$port-80,forward=tcp:[::1]:$port-:80,forward=unix:$scratch/socket-80"
	status=$?
	[ $status = 0 ] || kill $others
	wait $others && [ $status = 0 ]
}
script="$up
$serve"
guest_with -
if grep -q '^0\{31\}1 ' /proc/net/if_inet6 2>/dev/null; then
	check "connections by IPv4, IPv6 and a Unix socket, engine bt" forwards "tcp:$port" "tcp6:$port" "unix:$scratch/socket"
else
	skip "connections by IPv4, IPv6 and a Unix socket, engine bt" "no IPv6 here"
fi

# A server that takes whatever comes, and gives a little. It prints a line for each connection that a MiB came by.
sink=$((port + 1))
cat >"$scratch/sink" <<'END'
use strict; use IO::Socket::INET; use IO::Select;
my $l = IO::Socket::INET->new(Listen => 9, LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], ReuseAddr => 1) or die;
my $all = IO::Select->new($l);
my %bytes;
$SIG{PIPE} = "IGNORE";
$| = 1;
for (;;) {
	for my $s ($all->can_read) {
		if ($s == $l) { $s = $l->accept; syswrite $s, "hello\n"; $all->add($s); next }
		my $n = sysread $s, my $data, 1 << 16;
		print "flows\n" if ($bytes{$s} // 0) < 1 << 20 && ($bytes{$s} += $n // 0) >= 1 << 20;
		delete $bytes{$s}, $all->remove($s), close $s if !$n;
	}
}
END
# The process is killed while data goes through it: the link goes, the connection is reset, a new one serves.
script="$up
downs() { cat /sys/class/net/eth0/carrier_down_count; }
before=\$(downs)
for death in 1 2; do
	nc 10.0.2.2 $sink </dev/zero >/dev/null 2>&1 &
	wait \$! || :
	until [ \$(downs) = \$((before + death)) ] && [ \$(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.1; done
done
[ \"\$(nc 10.0.2.2 $sink </dev/null)\" = hello ]"
guest_with -
kill_helpers() {
	for death in 1 2; do
		until [ "$(grep -c flows "$scratch/flows")" = $death ]; do sleep 0.1; done
		kill -9 "$(pgrep -P "$(pgrep -f "^$doppel run .*$scratch/initrd")" -f net-helper)"
	done
}
deaths() {
	perl "$scratch/sink" "$sink" >"$scratch/flows" &
	server=$!
	kill_helpers &
	killer=$!
	boot wait 'started again in 1 s' wait 'started again in 2 s' wait 'all is well' exit 0 -- \
		--initrd "$scratch/initrd" --engine bt --net user
	status=$?
	kill "$server" "$killer" 2>/dev/null
	return $status
}
if command -v pgrep >/dev/null; then
	check "its process is killed: link, connections and a new one, engine bt" deaths
else
	skip "its process is killed: link, connections and a new one, engine bt" "no pgrep"
fi

# Names, by a resolver of ours: in namespaces where port 53 and /etc/resolv.conf are this user's.
cat >"$scratch/resolver" <<'END'
use strict; use IO::Socket::INET;
my $s = IO::Socket::INET->new(Proto => "udp", LocalAddr => "127.0.0.1", LocalPort => 53) or die;
while ($s->recv(my $q, 512)) {
	my ($name, $type) = substr($q, 12) =~ /^(.*?\0)(..)/s;
	my $known = $name eq "\4host\7example\0";
	my @answers = $known && $type eq "\0\1" ? "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x0a\1\2\3" : ();
	$s->send(substr($q, 0, 2) . pack("n5", $known ? 0x8180 : 0x8183, 1, scalar @answers, 0, 0) . $name . $type . "\0\1" . join "", @answers);
}
END
echo nameserver 127.0.0.1 >"$scratch/resolv.conf"
cat >"$scratch/resolved" <<END
'$guest/busybox/busybox' ifconfig lo 127.0.0.1 up && mount --bind '$scratch/resolv.conf' /etc/resolv.conf || exit 77
perl '$scratch/resolver' &
"\$@"
status=\$?
kill \$!
exit \$status
END
script="$up
grep -q hostname=.guest-7 /tmp/dhcp-said
[ \$(cat /sys/class/net/eth0/mtu) = 9000 ]
nslookup host.example | grep -q 10.1.2.3
if nslookup other.example; then exit 1; fi
ping -c 1 10.0.2.2 >/dev/null
ping -c 1 10.0.2.3 >/dev/null"
guest_with -
names() {
	printf '#!/bin/sh\nexec unshare -Urnm sh "%s" "%s" "$@"\n' "$scratch/resolved" "$doppel" >"$scratch/named"
	chmod 755 "$scratch/named"
	(doppel=$scratch/named; well --engine bt --net "user,hostname=guest-7,mtu=9000,capture=$scratch/names.pcap")
}
if unshare -Urnm sh "$scratch/resolved" true 2>/dev/null; then
	check "names, the host's answer to ping, DHCP's host name, the MTU, engine bt" names
else
	skip "names, the host's answer to ping, DHCP's host name, the MTU, engine bt" "no namespaces for this user"
fi
captured() { [ "$(tcpdump -nr - <"$scratch/names.pcap" 2>/dev/null | grep -cE 'A\? host.example|A 10.1.2.3|ICMP echo reply')" -ge 4 ]; }
if command -v tcpdump >/dev/null && [ -f "$scratch/names.pcap" ]; then
	check "tcpdump reads what was captured" captured
else
	skip "tcpdump reads what was captured" "no tcpdump, or nothing captured"
fi
finish
