#!/bin/sh
# What is sent to a serial port before the guest has opened it, and while it sets it up, is not lost; and breaks.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

# 10 KB of short lines, of which each adds its number to a sum, and then the sum.
lines=700
script() {
	n=1
	while [ "$n" -le "$lines" ]; do
		echo "i=\$((i+$n))"
		n=$((n + 1))
	done
	echo "echo sum \$i of"
	echo poweroff
}
sum="sum $((lines * (lines + 1) / 2)) of"
script >"$scratch/script"

by_pipe() {
	timeout "$limit" "$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$guest/initrd.cpio.gz" \
		--append "console=ttyS0 quiet $append" <"$scratch/input" >"$scratch/out" &
	pid=$!
	cat "$scratch/script" >"$scratch/input"
	wait $pid
	grep -a -q "^$sum" "$scratch/out"
}
mkfifo "$scratch/input"

check "a script of 10 KB on standard input" by_pipe
append="earlyprintk=ttyS0"
check "with an early console, that sets the port up, too" by_pipe
append=

# wait_for TEXT FILE PID: until a process that is to write it has, or is gone.
wait_for() {
	until grep -q "$1" "$2" 2>/dev/null; do
		kill -0 "$3" 2>/dev/null || return 1
		sleep 0.1
	done
}

by_pty() {
	timeout "$limit" "$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$guest/initrd.cpio.gz" \
		--append "console=ttyS0 quiet" --serial pty 2>"$scratch/errors" &
	pid=$!
	wait_for /dev/pts "$scratch/errors" $pid || return 1
	line=$(sed -n 's|.*\(/dev/pts/[0-9]*\).*|\1|p' "$scratch/errors")
	cat "$line" >"$scratch/out" &
	cat "$scratch/script" >"$line"
	wait $pid
	grep -a -q "^$sum" "$scratch/out"
}
check "over a pseudo-terminal" by_pty

by_socket() {
	timeout "$limit" "$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$guest/initrd.cpio.gz" \
		--append "console=ttyS0 quiet" --serial "unix:$scratch/socket" &
	pid=$!
	perl -MIO::Socket::UNIX -e '
		until ($s = IO::Socket::UNIX->new(Peer => $ARGV[0])) { exit 1 unless kill 0, $ARGV[1]; }
		open($f, "<", $ARGV[2]);
		print $s $_ while <$f>;
		$s->flush;
		print while <$s>;' "$scratch/socket" $pid "$scratch/script" >"$scratch/out"
	wait $pid
	grep -a -q "^$sum" "$scratch/out"
}
check "over a Unix socket" by_socket

check "Ctrl-A b and h: SysRq's help, at the prompt and while the guest boots" \
	boot_terminal wait "$prompt" send '\x01bh' wait 'sysrq: HELP' send '\x01b' send 'h' wait 'sysrq: HELP' send '\x01x' exit 0 cooked --
finish
