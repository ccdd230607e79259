#!/bin/sh
# Machines with names: doppel's commands for them, and the socket below, which speaks QMP, also to who does not.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

trap 'kill -9 $pid 2>/dev/null; rm -rf "$scratch"' EXIT
pid=
# Longer than the address of a socket may be.
long=$(printf '%0120d' 0)
export XDG_RUNTIME_DIR="$scratch/$long"
mkdir -m 700 "$XDG_RUNTIME_DIR"

# shellcheck disable=SC2034
script="echo it r\"uns\"
while :; do sleep 1; done"
guest_with -

# becomes COMMAND...: within the time that a boot may take.
becomes() {
	tries=0
	until "$@"; do
		[ $((tries += 1)) -lt $((limit * 10)) ] || return 1
		sleep 0.1
	done
}
# start [OPTION...]: a machine 'one', which runs when this returns.
# shellcheck disable=SC2120
start() {
	"$doppel" run --name one --kernel "$guest/$kernel/vmlinuz" --initrd "$scratch/initrd" --append "console=ttyS0 quiet $append" --balloon 0 \
		"$@" </dev/null >"$scratch/console" 2>&1 &
	pid=$!
	becomes grep -q 'it runs' "$scratch/console" || { cat "$scratch/console"; return 1; }
}
ended() { ! wait "$pid" || return 0; }
says() { "$doppel" "$@" 2>&1 | grep -qF "$wanted"; }
refuses() { ! "$doppel" "$@" >"$scratch/error" 2>&1 && grep -qF "$wanted" "$scratch/error"; }
lists_nothing() { [ -z "$("$doppel" list)" ] && [ "$("$doppel" list --json)" = "[]" ]; }
leaves_nothing() { lists_nothing && [ "$(find "$XDG_RUNTIME_DIR" -mindepth 1)" = "$XDG_RUNTIME_DIR/doppel" ]; }
guest_time() { "$doppel" info one --json | sed -n 's/.*"guest-time-ns": \([0-9]*\).*/\1/p'; }

check "no machine is listed" lists_nothing
check "it runs" start
wanted=running check "list shows it" says list
wanted='"pid": '$pid check "info says which process it is" says info one --json
wanted="a machine with the name 'one' runs" check "there are no two of a name" refuses run --name one --kernel "$guest/$kernel/vmlinuz"
wanted="no machine 'two' runs" check "there is no other" refuses info two
wanted="no machine '../one' runs" check "a path is no name" refuses info ../one
wanted="no machine; expected its NAME" check "a name is needed" refuses pause

stands_still() {
	"$doppel" pause one && [ "$("$doppel" list --json | grep -c '"paused"')" = 1 ] || return 1
	before=$(guest_time)
	sleep 0.3
	[ -n "$before" ] && [ "$(guest_time)" = "$before" ] || return 1
	"$doppel" pause one
}
moved() { [ "$(guest_time)" != "$before" ]; }
goes_on() {
	before=$(guest_time)
	"$doppel" resume one && [ "$("$doppel" list --json | grep -c '"running"')" = 1 ] || return 1
	becomes moved
}
check "paused, its time stands still" stands_still
check "resumed, it goes on" goes_on

wanted='"actual": 536870912' check "a command that returns something" says qmp one query-balloon
wanted="Parameter 'value' is missing" check "a command without what it needs" refuses qmp one balloon
wanted="Invalid parameter type for 'value', expected: integer" check "a wrong type" refuses qmp one '{"execute": "balloon", "arguments": {"value": "1"}}'
wanted="expected: 0 to" check "a wrong number" refuses qmp one '{"execute": "balloon", "arguments": {"value": -1}}'
wanted="Parameter 'x' is unexpected" check "an argument that there is not" refuses qmp one '{"execute": "stop", "arguments": {"x": 1}}'
wanted="The command nonsense has not been found" check "a command that there is not" refuses qmp one nonsense
wanted="is no command" check "what is no command" refuses qmp one '{"no": 1}'

# Conversations byte by byte. talk BYTES...: perl's strings, sent one after the other; prints what comes until the machine closes the connection or is silent for a second.
cat >"$scratch/talk" <<'PERL'
use strict;
$| = 1;
use IO::Socket::UNIX;
use IO::Select;
chdir "$ENV{XDG_RUNTIME_DIR}/doppel/one" or die "$!";
my $socket = IO::Socket::UNIX->new(Peer => 'control.sock') or die "connect: $!";
$SIG{PIPE} = 'IGNORE';
for my $bytes (@ARGV) { syswrite $socket, eval(qq("$bytes")) or last; }
my $select = IO::Select->new($socket);
while ($select->can_read($ENV{SILENCE} || 1)) { sysread($socket, my $data, 65536) or do { print "closed\n"; last }; print $data; }
PERL
talk() { perl "$scratch/talk" "$@" >"$scratch/said" 2>&1; }
answers() {
	talk "$@"
	grep -qF "$wanted" "$scratch/said" || { cut -c1-300 "$scratch/said"; return 1; }
}
hello='{\"execute\":\"qmp_capabilities\"}'
wanted='"QMP"' check "the greeting" answers
wanted='before command' check "capabilities come first" answers '{\"execute\":\"query-name\",\"id\":7}'
wanted='"id":[1,{"a":null}]' check "an id comes back as it was" answers "$hello" '{\"execute\":\"query-name\",\"id\":[1,{\"a\":null}]}'
wanted='{"return":{"name":"one"}}' check "two texts at once, and one in pieces" answers "$hello{\\\"exe" 'cute\":\"query-na' 'me\"}'
wanted='JSON parse error' check "what is no JSON" answers 'hello\n'
wanted='{"return":{"name":"one"}}' check "what comes behind it" answers 'hello\n' "$hello" '{\"execute\":\"query-name\"}'
wanted='JSON parse error' check "braces around nothing" answers '{{}}'
wanted='must be a JSON object' check "a list" answers '[1]'
wanted='JSON parse error' check "one that is nested too deeply" answers '@{[\"[\" x 100000]}\n'
wanted=closed check "one that is too long" answers '[@{[\" \" x 3000000]}'
wanted='JSON parse error' check "bytes that are no UTF-8" answers '{\"execute\":\"\xff\xfe\"}'
wanted='is unexpected' check "another member" answers "$hello" '{\"execute\":\"stop\",\"exec-oob\":1}'
# 100,000 commands by one who reads nothing.
never_reads() {
	perl -e 'use IO::Socket::UNIX; chdir "$ENV{XDG_RUNTIME_DIR}/doppel/one"; $SIG{PIPE} = "IGNORE";
		my $s = IO::Socket::UNIX->new(Peer => "control.sock") or die; $s->blocking(0);
		my $text = "{\"execute\":\"query-commands\",\"id\":1}" x 1000;
		syswrite $s, "{\"execute\":\"qmp_capabilities\"}"; for (1 .. 400) { syswrite($s, $text) or select undef, undef, undef, 0.005; }'
}
check "one who never reads" never_reads
wanted='"name": "one"' check "none of them was noticed by others" says info one --json

# What happens is told to who listens.
listens() {
	SILENCE=$limit perl "$scratch/talk" "$hello" >"$scratch/events" 2>&1 &
	listener=$!
	becomes grep -q return "$scratch/events"
}
hears() { becomes grep -q "\"$1\"" "$scratch/events" || { cat "$scratch/events"; return 1; }; }
check "one listens" listens
check "he hears of a pause" eval '"$doppel" pause one && hears STOP'
check "and that it is over" eval '"$doppel" resume one && hears RESUME'
check "of a reset" eval '"$doppel" reset one && hears RESET'
wanted="still runs after 1 seconds" check "a guest may leave the power button alone" refuses stop one --timeout 1
check "he hears of the button" hears POWERDOWN
wanted="still runs" check "wait waits" refuses wait one --timeout 1
check "stop --force ends it" "$doppel" stop one --force --timeout 100
hears_end() { hears SHUTDOWN && wait "$listener" && grep -q closed "$scratch/events"; }
check "he hears of the end" hears_end
check "its process has ended well" ended
check "nothing is left" leaves_nothing

killed() {
	# shellcheck disable=SC2119
	start || return 1
	kill -9 "$pid"
	! wait "$pid"
}
check "a machine is killed" killed
check "what it left is cleared" leaves_nothing
check "its name is free, another socket is served, too" start --qmp "unix:$scratch/qmp"
other_socket() { perl -e 'use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "$!"; print scalar <$s>;' "$scratch/qmp" | grep -q '"QMP"'; }
check "it greets" other_socket
has_socket() { find "/proc/$1/fd" -lname 'socket:*' | grep -q .; }
wait_ends() {
	"$doppel" wait one --timeout 100 &
	waiter=$!
	becomes has_socket $waiter && "$doppel" info one && sleep 0.5 && kill "$pid" && wait $waiter
}
check "a wait ends with the machine" wait_ends
ended
check "nothing is left of it" eval 'leaves_nothing && [ ! -e "$scratch/qmp" ]'

chmod 755 "$XDG_RUNTIME_DIR/doppel"
wanted="with mode 755; expected" check "a folder that others may read is refused" refuses list
finish
