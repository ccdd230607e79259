#!/bin/sh
# Debian's GDB on the bare-metal guest tests/guest/test_debugged.c: what it sees, where it stops, and that the guest notices nothing.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
image=${GUEST_DIR:-build/guest}/test_debugged.elf
export TSAN_OPTIONS="${TSAN_OPTIONS:-suppressions=tests/guest/tsan.supp}"
command -v gdb >/dev/null || { echo "1..0 # SKIP no gdb"; exit 0; }
trap '[ -z "$pid" ] || kill -9 $pid 2>/dev/null; rm -rf "$scratch"' EXIT
pid=

# start GDB-OPTIONS [doppel's options]: a machine that waits for a debugger.
start() {
	where=$scratch/gdb.sock
	rm -f "$where"
	gdb_options=$1
	shift
	"$doppel" run --kernel "$image" --memory 64M --serial null --debug-console stdio --debug-exit --on-triple-fault report \
		--gdb "unix:$where,wait$gdb_options" "$@" </dev/null >"$scratch/console" 2>&1 &
	pid=$!
	tries=0
	until [ -S "$where" ]; do
		[ $((tries += 1)) -lt 300 ] || { cat "$scratch/console"; return 1; }
		sleep 0.1
	done
}
# gdb_does [OPTION...]: what GDB says to the commands on standard input.
gdb_does() {
	cat >"$scratch/commands"
	timeout 120 gdb -nx -batch -iex 'set confirm off' -iex 'set width 0' "$@" -ex "target remote $where" -x "$scratch/commands" >"$scratch/said" 2>&1
}
# The lines of standard input are what it said, in their order, others between.
said() {
	perl -e 'local $/; open my $f, "<", $ARGV[0]; my $said = <$f>; my $at = 0;
		for my $line (split /\n/, <STDIN>) {
			my $found = index($said, $line, $at);
			if ($found < 0) { print "$said\nmissing: $line\n"; exit 1 }
			$at = $found + length $line;
		}' "$scratch/said"
}
# The guest passed.
passes() {
	status=0
	wait "$pid" || status=$?
	pid=
	echo "status $status"
	cat "$scratch/console"
	[ "$status" = 1 ] && ! grep -q '^not ok' "$scratch/console"
}

all_of_it() {
	start "" "$@" && gdb_does "$image" <<-'COMMANDS' && passes
		printf "mode %d, at %d\n", $efer >> 10 & 1, $pc == (long)entry_32
		break *add_up
		continue
		printf "long mode %d, CPL %d, n %d\n", $efer >> 10 & 1, $cs & 3, $rdi
		ignore 1 7
		continue
		printf "n %d, sum %d, code %#x\n", $rdi, sum, *(unsigned char *)$pc == 0xcc
		delete
		# A watch stops behind the store.
		watch sum
		continue
		printf "sum %d, at the end of add_up %d\n", sum, $pc == (long)added_up
		delete
		# User mode, by the address that it has there.
		set $user = 0x40000000
		hbreak *((long)user_place + $user)
		continue
		printf "CPL %d, rax %d\n", $cs & 3, $rax
		delete
		awatch *(long *)((long)&watched + $user)
		continue
		printf "watched %d, behind the store %d\n", watched, $pc == (long)user_stored + $user
		delete
		# An exception is a step to its handler.
		break *invalid_place
		continue
		stepi
		printf "pushed %d, IF %d\n", *(long *)$rsp == (long)invalid_place, $eflags >> 9 & 1
		delete
		# One element a step; a watch stops behind the one that hits it.
		tbreak *repeated_place
		continue
		stepi 2
		printf "left %d, still there %d\n", $rcx, $pc == (long)repeated_place
		watch *(char *)&buffer[5]
		continue
		printf "left %d, buffer %d %d\n", $rcx, buffer[5], buffer[6]
		delete
		tbreak *repeated_end
		continue
		printf "left %d\n", $rcx
		# Steps are not disturbed by interrupts, unless asked for.
		tbreak *allowed
		continue
		stepi 3
		printf "stepped over a pending interrupt %d, %d\n", $pc == (long)allowed_next + 1, interrupted
		monitor interrupts on
		stepi
		printf "pushed %d\n", *(long *)$rsp == (long)allowed_next + 1
		monitor interrupts off
		# Real mode: LOW_CODE, which no symbol knows.
		break *0x10000
		continue
		printf "PE %d, cs %#x, ip %#x, code %#x\n", $cr0 & 1, $cs, $rip, *(short *)0x10001
		stepi
		printf "ax %#x, ip %#x\n", $ax, $rip
		stepi
		printf "ax %#x, ip %#x\n", $ax, $rip
		delete
		# Code that was translated long ago.
		set *(char *)((long)answer + 1) = 42
		continue
	COMMANDS
}
saw_all() {
	said <<-'SAID'
		mode 0, at 1
		long mode 1, CPL 0, n 0
		n 8, sum 28, code 0
		Hardware watchpoint 2: sum
		Old value = 28
		New value = 36
		sum 36, at the end of add_up 1
		CPL 3, rax 2
		watched 3, behind the store 1
		pushed 1, IF 0
		left 14, still there 1
		left 10, buffer 7 0
		left 0
		stepped over a pending interrupt 1, 0
		pushed 1
		PE 0, cs 0x1000, ip 0, code 0x1234
		ax 0x1234, ip 0x3
		ax 0x1235, ip 0x4
		exited with code 01
	SAID
}
answers_42() { grep -q 'the answer is 42' "$scratch/console"; }

for engine in interp bt; do
	for clock in host virtual; do
		check "engine $engine, $clock clock" all_of_it --engine "$engine" --clock "$clock"
		check "what it saw, engine $engine, $clock clock" saw_all
		check "code that it changed, engine $engine, $clock clock" answers_42
	done
done

# Processors are threads: all stop, one may be let go alone.
two() {
	start "" "$@" && gdb_does "$image" <<-'COMMANDS' && passes
		break *second_place
		continue
		printf "thread %d, second %d\n", $_thread, second
		info threads
		thread 1
		set $here = $pc
		thread 2
		set scheduler-locking on
		stepi 3
		thread 1
		printf "the first stood still %d\n", $pc == $here
		set scheduler-locking off
		delete
		continue
	COMMANDS
	said <<-'SAID'
		thread 2, second 5
		Thread 1 (CPU 0 [
		* 2
		Thread 2 (CPU 1 [running])
		the first stood still 1
		exited with code 01
	SAID
}
check "two processors, engine interp, virtual time" two --engine interp --cpus 2 --clock virtual
check "two processors, engine bt" two --engine bt --cpus 2

# Under virtual time a stop comes behind the same instructions, whoever executes them, however often it stopped on the way.
counts() {
	start "" --clock virtual "$@" && gdb_does "$image" && passes && sed -n 's/.* \([0-9]*\) instructions$/\1/p' "$scratch/said"
}
is_the_same() {
	first=$(printf 'break *invalid_place\ncontinue\nmonitor info registers\ndelete\ncontinue\n' | counts --engine interp) || return 1
	second=$(printf 'break *add_up\nbreak *invalid_place\nignore 1 3\ncontinue\nstepi 20\ndelete 1\ncontinue\nmonitor info registers\ndelete\ncontinue\n' |
		counts --engine bt) || return 1
	echo "$first, $second"
	[ -n "$first" ] && [ "$first" = "$second" ]
}
check "the same instructions under virtual time, engines interp and bt" is_the_same

old_code() {
	start ,i8086 "$@" && gdb_does <<-'COMMANDS' && passes
		printf "eip %#x\n", $eip
		break *0x10000
		continue
		x/3i $cs * 16 + $eip
		stepi
		info registers ax
		delete
		continue
	COMMANDS
	said <<-'SAID'
		eip 0x100000
		0x10000:	mov    $0x1234,%ax
		0x10003:	inc    %ax
		0x10004:	mov    %ax,0x10
		0x1234
		exited with code 01
	SAID
}
check "16-bit code, registers of 32 bits, engine bt" old_code --engine bt

# Whatever comes by the socket: answers, and the machine goes on when the connection is gone. packets PACKET...: of perl's strings.
packets() {
	start "" && perl -e 'use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => shift) or die; $SIG{PIPE} = "IGNORE"; alarm 60;
		for (@ARGV) { my $p = eval(qq("$_")); my $sum = 0; $sum = ($sum + ord) & 255 for split //, $p; printf $s "\$%s#%02x", $p, $sum; $s->flush;
			my $got = ""; $got .= $_ while $got !~ /#..$/ && sysread($s, $_, 1); print "$p: $got\n" }' "$where" "$@" >"$scratch/said" && passes
}
hostile() {
	packets g 'p9999' 'p' 'Gzz' 'P10=' 'mffffffffffffffff,ffffffffffffffff' 'm0' 'M0,4:00' 'X0,ffffffffffffffff:a' 'Z1,0,ffffffffffffffff' \
		'Z2,ffffffffffffffff,2' 'Z2,0,0' 'Z9,0,0' 'vCont;' 'vCont;x' 'vCont;c:99' 'Hg77' 'T0' 'qXfer:features:read:target.xml:ffffffff,ffffffff' \
		'qXfer:features:read:../../etc/passwd:0,10' 'qRcmd,zz' 'nonsense' 'P1a=ffffffffffffffff' 'P28=1' 'cxyz' || return 1
	said <<-'SAID'
		p9999: +$E16
		P10=: +$E16
		m0: +$E16
		Z1,0,ffffffffffffffff: +$OK
		Z2,ffffffffffffffff,2: +$E16
		vCont;: +$E16
		vCont;c:99: +$E16
		target.xml:ffffffff,ffffffff: +$l#
		passwd:0,10: +$E
		nonsense: +$#00
	SAID
}
check "packets that ask for what there is not" hostile
finish
