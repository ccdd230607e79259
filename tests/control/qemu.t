#!/bin/sh
# doppel in QEMU's place: its command line, its monitor and QMP where tools expect them, its exit statuses.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

trap 'kill $pid 2>/dev/null; rm -rf "$scratch"' EXIT
pid=
qemu=$scratch/qemu-system-x86_64
ln -s "$(realpath "$doppel")" "$qemu"
export XDG_RUNTIME_DIR="$scratch"

answers() {
	timeout 100 "$qemu" "$@" >"$scratch/said" 2>"$scratch/error" || { cat "$scratch/error"; return 1; }
	grep -q -e "$wanted" "$scratch/said" || { cat "$scratch/said"; return 1; }
}
refuses() {
	status=0
	"$qemu" "$@" >"$scratch/said" 2>&1 || status=$?
	cat "$scratch/said"
	[ $status = 1 ] && [ "$(wc -l <"$scratch/said")" = 1 ] && grep -qF -e "$wanted" "$scratch/said"
}
wanted='^QEMU emulator version 7.2.0 (doppel' check "-version" answers -version
wanted='^name "virtio-scsi-pci", bus PCI' check "-device help" answers -display none -device help
wanted="doppel run --memory 1G --append 'a b' --net user --serial stdio .*--kernel k" check "-doppel-print" answers -m 1G -doppel-print -append 'a b' -kernel k
wanted='qemu-system-x86_64: -tpmdev: doppel has no TPM' check "what it has not is one line" refuses -tpmdev emulator,id=t
wanted='cannot open' check "a file that is not there is one line" refuses -nographic -nodefaults -hda "$scratch/none"

# As libguestfs asks: what comes in at once, no machine, no disk.
probe() {
	printf '%s' '{ "execute": "qmp_capabilities" }{ "execute": "query-kvm" }{ "execute": "quit" }' |
		answers -display none -machine accel=kvm:tcg -qmp stdio
}
wanted='"present":false' check "QMP on standard input" probe
types() { { echo 'info status'; echo quit; } | answers -nodefaults -S -monitor stdio; }
wanted='VM status: paused' check "the monitor on standard input" types

# shellcheck disable=SC2034
script='lsblk -dno NAME,SIZE 2>/dev/null || true
for d in /sys/block/[sv]d?; do echo ${d##*/} has $(cat $d/size); done
cat /sys/class/virtio-ports/*/name
echo it r"uns"
read line; echo "<$line>"
while :; do sleep 1; done'
modprobe='; modprobe -a virtio_blk virtio_scsi sd_mod virtio_console virtio_rng'
guest_with -
truncate -s 8M "$scratch/a,b.img"
truncate -s 16M "$scratch/c.img"

becomes() {
	tries=0
	until "$@"; do
		[ $((tries += 1)) -lt $((limit * 10)) ] || { cat "$scratch/console"; return 1; }
		sleep 0.1
	done
}
start() {
	mkfifo "$scratch/in"
	"$qemu" -name one -machine q35,accel=kvm:tcg -cpu max -m 512 -smp 2 -kernel "$guest/$kernel/vmlinuz" -initrd "$scratch/initrd" \
		-append "console=ttyS0 quiet $append" -nodefaults -display none -no-reboot -serial stdio -pidfile "$scratch/pid" \
		-drive "file=$scratch/a,,b.img,if=none,id=d0,format=raw,cache=unsafe" -device virtio-blk-pci,drive=d0 \
		-blockdev "{\"driver\":\"file\",\"filename\":\"$scratch/c.img\",\"node-name\":\"f\"}" -blockdev driver=raw,file=f,node-name=n \
		-device virtio-scsi-pci,id=scsi -device scsi-hd,drive=n -object rng-random,id=r -device virtio-rng-pci,rng=r \
		-chardev "socket,path=$scratch/port,server=on,wait=off,id=c" -device virtio-serial -device virtserialport,chardev=c,name=org.example.port \
		-monitor "unix:$scratch/monitor,server=on,wait=off" -qmp tcp:127.0.0.1:"$port",server,nowait <>"$scratch/in" >"$scratch/console" 2>&1 &
	pid=$!
	becomes grep -q 'it runs' "$scratch/console"
}
port=$((20000 + $$ % 20000))
check "a line with all kinds of devices" start
check "the disk with a comma is 8 MiB" grep -q 'vda has 16384' "$scratch/console"
check "the one of two nodes is 16 MiB" grep -q 'sda has 32768' "$scratch/console"
check "the port has its name" grep -q 'org.example.port' "$scratch/console"
check "-pidfile" eval '[ "$(cat "$scratch/pid")" = "$pid" ]'
wanted=running check "-name: it is listed" eval '"$doppel" list | grep "one .*running"'
cat >"$scratch/talk" <<'PERL'
use strict;
use IO::Socket::UNIX;
use IO::Socket::INET;
my ($where, $until, $text) = @ARGV;
my $s = $where =~ /^\// ? IO::Socket::UNIX->new(Peer => $where) : IO::Socket::INET->new(PeerAddr => $where);
$s or die "$where: $!";
syswrite $s, $text;
my $all = '';
alarm 100;
while (sysread($s, my $data, 4096)) { $all .= $data; if ($all =~ /$until/) { print $all; exit 0 } }
print $all; exit 1;
PERL
talk() { perl "$scratch/talk" "$@"; }
check "the monitor on a socket" talk "$scratch/monitor" 'VM status: running' "info status
"
check "QMP by TCP" talk 127.0.0.1:"$port" '"name":"one"' '{"execute":"qmp_capabilities"}{"execute":"query-name"}'
echo hello >"$scratch/in"
check "standard input is the guest's" becomes grep -q '<hello>' "$scratch/console"
ends() { kill "$pid" && wait "$pid" && [ ! -e "$scratch/pid" ]; }
check "SIGTERM ends it with status 0" ends

# -daemonize returns when it runs.
daemon() {
	"$qemu" -daemonize -nodefaults -display none -pidfile "$scratch/pid" -monitor "unix:$scratch/monitor,server=on,wait=off" || return 1
	pid=$(cat "$scratch/pid")
	talk "$scratch/monitor" running "info status
quit
" && becomes eval '! kill -0 $pid 2>/dev/null'
}
check "-daemonize, and quit" daemon
wanted=cannot check "-daemonize of what does not start" refuses -daemonize -hda "$scratch/none"
finish
