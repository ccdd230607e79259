#!/bin/sh
# virtio-console: a console, and channels with names; bytes both ways, more than queues hold at once, none lost.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

head -c 300000 /dev/urandom >"$scratch/data"

# The port called echo gets 300,000 bytes and says what they were; then it sends them back twice.
script="modprobe virtio_console
port=
until [ -n \"\$port\" ]; do
	port=\$(grep -l '^org.example.echo\$' /sys/class/virtio-ports/*/name || true)
done
port=/dev/\$(basename \${port%/name})
exec 3<>\$port
head -c 300000 <&3 >/tmp/got
sha256sum </tmp/got >&3
cat /tmp/got /tmp/got >&3
read -r answer <&3
[ \"\$answer\" = thanks ]
echo 'out of hvc0' >/dev/hvc0"

# The host's end: sends what there is, checks what comes back.
cat >"$scratch/peer.pl" <<'END'
use strict; use IO::Socket::UNIX; use Digest::SHA qw(sha256_hex);
my ($path, $file, $pid) = @ARGV;
my $s;
until ($s = IO::Socket::UNIX->new(Peer => $path)) { exit 1 unless kill 0, $pid; select undef, undef, undef, 0.05; }
local $/; open my $f, '<', $file or die; my $data = <$f>;
print $s $data; $s->flush;
my $want = sha256_hex($data) . "  -\n" . $data . $data;
my $got = '';
while (length $got < length $want) { sysread($s, $got, 65536, length $got) or last; }
print $s "thanks\n"; $s->flush;
1 while sysread($s, my $rest, 65536);
exit($got eq $want ? 0 : 1);
END

both_ways() {
	rm -f "$scratch/socket" "$scratch/hvc"
	timeout "$limit" "$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$scratch/initrd" --append "console=ttyS0 quiet $append" \
		--console "file:$scratch/hvc" --channel "org.example.echo,chardev=unix:$scratch/socket" "$@" >"$scratch/out" </dev/null &
	pid=$!
	peer=0
	perl "$scratch/peer.pl" "$scratch/socket" "$scratch/data" $pid || peer=$?
	wait $pid || return 1
	cat "$scratch/out"
	[ $peer = 0 ] && grep -q 'all is well' "$scratch/out" && grep -q 'out of hvc0' "$scratch/hvc"
}
guest_with -
check "a console and a channel, engine bt, 2 CPUs" both_ways --engine bt --cpus 2
long check "the same, engine interp" both_ways --engine interp
modprobe=force_legacy=1
append="$append pci=nomsi"
guest_with -
check "legacy, INTx" both_ways
finish
