#!/bin/sh
# virtio-vsock: connections both ways between programs of the guest's and the host's, many at once, 20 MiB on one, all of whose bytes come back; ends that are not there.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

others=
trap 'kill $others 2>/dev/null; rm -rf "$scratch"' EXIT
streams=$scratch/streams
gcc -std=gnu17 -O2 -static -o "$streams" tests/virtio/streams.c || exit 1
socket=$scratch/socket

# Until somebody of the host's is at port 99: it has done its part by then.
guest_script() {
	script="modprobe vmw_vsock_virtio_transport
/streams echo vsock:4294967295:1234 &
/streams check vsock:2:80 1 $1
/streams check vsock:2:80 $2 10000
/streams check vsock:2:80 $2 10
if /streams check vsock:2:81 1 1 2>/dev/null; then exit 1; fi
if /streams check vsock:7:80 1 1 2>/dev/null; then exit 1; fi
until /streams check vsock:2:99 1 1 2>/dev/null; do sleep 0.1; done"
	guest_with "$streams"
}

# both_ways SIZE COUNT [doppel's options]
both_ways() {
	size=$1 count=$2
	shift 2
	rm -f "$socket"_*
	"$streams" echo "unix:${socket}_80" &
	others=$!
	timeout "$limit" "$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$scratch/initrd" --append "console=ttyS0 quiet $append" \
		--vsock "unix:$socket" "$@" >"$scratch/out" 2>&1 </dev/null &
	pid=$!
	others="$others $pid"
	until "$streams" check "hybrid:$socket:1234" 1 1 2>/dev/null; do kill -0 $pid 2>/dev/null || break; sleep 0.05; done
	status=0
	"$streams" check "hybrid:$socket:1234" 1 "$size" && "$streams" check "hybrid:$socket:1234" "$count" 10000 &&
		! "$streams" check "hybrid:$socket:1235" 1 1 2>/dev/null || status=1
	"$streams" echo "unix:${socket}_99" &
	others="$others $!"
	wait $pid || status=1
	# shellcheck disable=SC2086
	kill $others 2>/dev/null
	others=
	cat "$scratch/out"
	[ $status = 0 ] && grep -q 'all is well' "$scratch/out" && [ ! -e "$socket" ]
}
guest_script 20971520 100
check "20 MiB, and 100 connections, both ways, engine bt, 2 CPUs" both_ways 20971520 100 --engine bt --cpus 2
guest_script 1000000 10
long check "the same, less of it, engine interp" both_ways 1000000 10 --engine interp
check "the same in virtual time" both_ways 1000000 10 --clock virtual

says() {
	! "$doppel" run --kernel "$guest/$kernel/vmlinuz" --vsock "$1" >"$scratch/says" 2>&1 && grep -qF "$2" "$scratch/says"
}
: >"$scratch/file"
check "a path with another file" says "unix:$scratch/file" "exists and is no socket"
check "no path" says "$scratch/file" "expected unix:PATH"
check "an address that is the host's" says "unix:$socket,guest-cid=2" "a number from 3"
taken() {
	"$streams" echo "unix:$socket" &
	others=$!
	until [ -S "$socket" ]; do sleep 0.05; done
	says "unix:$socket" "another process listens on '$socket'"
	status=$?
	kill "$others"
	return $status
}
check "a path that is in use" taken
finish
