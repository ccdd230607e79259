#!/bin/sh
# shellcheck disable=SC2016  # nbdkit's own shell has $unixsocket
# Disks that servers have: nbdkit and qemu-nbd, with replies of both kinds, errors, and a server that goes away and comes back.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-$PWD/build/release/doppel}
block=${BLOCK:-$PWD/build/release/tests/block/block}
cd "$scratch" || exit 1
export doppel block

# A server that says nothing any more, from the middle of it on; what becomes of it takes half a minute, and is looked at below.
hang() {
	truncate -s 64M hang.raw
	qemu-nbd -t -f raw -k "$scratch/hang" hang.raw &
	hanging=$!
	until [ -S hang ]; do kill -0 "$hanging" || return 1; sleep 0.05; done
	"$block" speed "nbd:unix:$scratch/hang" write 4096 16384 >hang.out 2>hang.err &
	hung=$!
	until [ "$(du -k hang.raw | cut -f 1)" -gt 1000 ] || ! kill -0 $hung; do sleep 0.05; done
	kill -STOP "$hanging"
}
hung_up() {
	wait "$hung"
	status=$?
	kill -9 "$hanging"
	wait "$hanging"
	cat hang.err
	[ $status = 1 ] && grep -q 'the connection is lost' hang.err && grep -q 'requests fail until the server is back' hang.err && grep -q 'Input/output error' hang.err
}
[ -z "${LONG:-}" ] || ! command -v qemu-nbd >have || hang

if command -v nbdkit >have; then
	served() {
		script=$1
		shift
		nbdkit -U - "$@" --run "$script"
	}
	check "random requests to nbdkit" served '"$block" random "nbd:unix:$unixsocket" 1 300' memory 8M
	check "many requests at once" served '"$block" many "nbd:unix:$unixsocket" 1 20' --filter=delay memory 8M delay-read=1ms delay-write=1ms
	check "simple replies" served '"$block" random "nbd:unix:$unixsocket" 2 200' --no-sr memory 8M
	check "an export by its name" served '"$block" random "nbd+unix:///disk?socket=$unixsocket" 3 50' --filter=exportname memory 8M exportname=disk
	check "no export of that name" served '! "$block" random "nbd:unix:$unixsocket:exportname=nothing" 3 50 2>err && cat err && grep -q "the server refuses it" err' \
		--filter=exportname memory 8M exportname=disk exportname-strict=true
	check "read-only" served '! "$block" random "nbd:unix:$unixsocket" 3 50 2>err && cat err && grep -q "lets nobody write" err' -r memory 8M
	check "errors of the server are errors of the request" served \
		'! "$block" random "nbd:unix:$unixsocket" 4 500 2>err && cat err && grep -q "No space left" err' --filter=error memory 8M error-pwrite=ENOSPC error-pwrite-rate=100%
	check "converted from there" served '"$doppel" image convert -O qcow2 "nbd:unix:$unixsocket" n.qcow2 && "$doppel" image check n.qcow2' pattern 4M

	# Killed in the middle, and started again: nobody notices but the log.
	serve() {
		rm -f restart
		nbdkit -f -U "$scratch/restart" file disk.raw &
		until [ -S restart ]; do sleep 0.05; done
	}
	restarted() {
		truncate -s 64M disk.raw && serve && server=$!
		"$block" speed "nbd:unix:$scratch/restart" write 4096 16384 >speed.out 2>err &
		writer=$!
		until [ "$(du -k disk.raw | cut -f 1)" -gt 4000 ] || ! kill -0 $writer; do sleep 0.05; done
		kill -9 "$server"
		wait "$server"
		serve
		server=$!
		wait "$writer"
		status=$?
		kill "$server"
		wait "$server"
		cat err
		[ $status = 0 ] && grep -q 'the connection is lost' err && tr -d '\001' <disk.raw | cmp - /dev/null
	}
	check "the server is killed and comes back" restarted
else
	skip "nbdkit" "it is not installed"
fi

if command -v qemu-nbd >have; then
	qemu_served() {
		truncate -s 8M q.raw
		qemu-nbd -f raw -k "$scratch/qemu" -x disk q.raw &
		server=$!
		until [ -S qemu ]; do sleep 0.05; done
		"$block" random "nbd:unix:$scratch/qemu:exportname=disk" 5 300
		status=$?
		wait "$server"
		[ $status = 0 ]
	}
	check "random requests to qemu-nbd" qemu_served
	if [ -n "${LONG:-}" ]; then
		check "a server that says nothing any more: requests fail" hung_up
	else
		skip "a server that says nothing any more" "LONG=1 waits for that"
	fi
else
	skip "qemu-nbd" "it is not installed (qemu-utils)"
fi

refuses() {
	! "$doppel" image convert "$1" x.raw 2>err && cat err && grep -q "$2" err
}
check "nobody listens" refuses nbd:unix:nothing "cannot connect to 'nothing'"
check "no address" refuses nbd: "expected nbd:unix:PATH"
finish
