#!/bin/sh
# The page for browsers: what is served to whom.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
pid=
trap '[ -z "$pid" ] || kill -9 $pid 2>/dev/null; rm -rf "$scratch"' EXIT
echo right-token >"$scratch/token"

# start PORT TOKEN-FILE [OPTION...]: its screen is at $url when this returns.
start() {
	served=$1,password-file=$2
	shift 2
	"$doppel" run --firmware bios --memory 64M --serial null --display "web:$served" "$@" </dev/null >"$scratch/log" 2>&1 &
	pid=$!
	tries=0
	until url=$(grep -o 'http://[^ ]*' "$scratch/log"); do
		if [ $((tries += 1)) -gt 600 ] || ! kill -0 "$pid"; then
			cat "$scratch/log"
			return 1
		fi
		sleep 0.1
	done
	port=${url#http://127.0.0.1:}
	port=${port%%/*}
}
stop() {
	kill "$pid"
	! wait "$pid" || return 1
	pid=
}

# answers STATUS METHOD TARGET [HEADER...]: what is answered is in $scratch/answer.
answers() {
	status=$1
	shift
	perl -MIO::Socket::INET -e 'my ($port, $method, $target, @headers) = @ARGV;
		my $s = IO::Socket::INET->new("127.0.0.1:$port") or die "$!\n";
		print $s map { "$_\r\n" } "$method $target HTTP/1.1", "Host: 127.0.0.1:$port", @headers, "";
		alarm 30;
		while (<$s>) { print; last if $headers[0] && /^\r/ }' "$port" "$@" >"$scratch/answer" || return 1
	grep -q "^HTTP/1.1 $status " "$scratch/answer" || { cat "$scratch/answer"; return 1; }
}
refuses_strangers() {
	for target in / '/?token=' '/?token=wrong-token' '/?token=right-toke' '/?token=right-token1' '/socket?token=wrong-token' /favicon.ico; do
		answers 403 GET "$target" && ! grep -q canvas "$scratch/answer" || return 1
	done
	answers 405 POST '/?token=right-token'
}
serves_page() {
	answers 200 GET '/?token=right-token' && sed '1,/^\r$/d' "$scratch/answer" | cmp - src/display/web_page.html &&
		grep -q "^Content-Security-Policy: default-src 'none'" "$scratch/answer"
}
# The key and what it becomes are RFC 6455's example.
opens_socket() {
	answers 400 GET '/socket?token=right-token' && answers 101 GET '/socket?token=right-token' 'Upgrade: websocket' 'Connection: Upgrade' \
		'Sec-WebSocket-Version: 13' 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' &&
		grep -q '^Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=' "$scratch/answer"
}

if ! dpkg-query -W seabios >/dev/null 2>&1; then
	skip "the page" "the package seabios is not installed"
	finish
	exit
fi
check "it listens" start 0 "$scratch/token"
check "who has no token gets nothing" refuses_strangers
check "who has it gets the page" serves_page
check "and a WebSocket" opens_socket
check "it ends" stop
finish
