#!/bin/sh
# Disks whose host fails them: no room, a limit on files, errors of the host's disk, a file that becomes shorter or is not to be opened any more, a server that goes away.
# By on-error the guest gets an I/O error, or waits until the host can do it, and nothing is lost.
cd "$(dirname "$0")/../.." || exit 1
# A file system of its own that can be full needs a namespace.
if [ -z "${FAULTS_INSIDE:-}" ] && unshare --map-root-user --mount true 2>/dev/null; then
	FAULTS_INSIDE=1 exec unshare --map-root-user --mount "$0" "$@"
fi
. tests/virtio/lib.sh
shim=${TOOLS_DIR:-build/release/tests/tools}/../shims/failing_io.so
machine='' server=''
trap 'for pid in $machine $server; do kill -9 "$pid"; done; [ -z "${FAULTS_INSIDE:-}" ] || umount -l "$scratch/small" 2>/dev/null; rm -rf "$scratch"' EXIT

head -c 4000000 /dev/urandom >"$scratch/data"
sum=$(sha256sum <"$scratch/data")
# What guests call: write and read DISK go to and come from its second megabyte; fails COMMAND; asks for what the host is to do, and waits for a word.
functions="modprobe virtio_blk
write() { dd if=/data of=/dev/\$1 bs=64k seek=16 conv=fsync 2>/dev/null; }
read() { [ \"\$(dd if=/dev/\$1 bs=64k skip=16 count=62 iflag=direct 2>/dev/null | head -c 4000000 | sha256sum)\" = '$sum' ]; }
block() { dd if=/dev/\$1 of=/dev/null bs=64k skip=\$2 count=1 iflag=direct 2>/dev/null; }
fails() { if \"\$@\"; then echo \"\$* did not fail\"; exit 1; fi; }
asks() { echo \"please \$1\"; head -n 1 >/dev/null; }
"
guest_does() {
	script=$functions$1
	guest_with "$scratch/data"
}

# start [doppel's options]: its console is $scratch/out, and descriptor 3.
start() {
	rm -f "$scratch/in" && mkfifo "$scratch/in" || return 1
	"$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$scratch/initrd" --append "console=ttyS0 quiet $append" "$@" >"$scratch/out" 2>&1 <"$scratch/in" &
	machine=$!
	exec 3>"$scratch/in"
}
says() {
	until grep -qF -e "$1" "$scratch/out"; do
		kill -0 "$machine" || { cat "$scratch/out"; return 1; }
		sleep 0.1
	done
}
ends_well() {
	wait "$machine"
	status=$?
	machine=
	exec 3>&-
	cat "$scratch/out"
	[ $status = 0 ] && grep -q 'all is well' "$scratch/out"
}
# holds_data IMAGE...
holds_data() {
	for image; do
		"$doppel" image convert --quiet -O raw "$image" "$scratch/shown" && tail -c +1048577 "$scratch/shown" | cmp -n 4000000 - "$scratch/data" || return 1
	done
}

# ---- no room ----

small() {
	mkdir -p "$scratch/small"
	umount "$scratch/small" 2>/dev/null
	mount -t tmpfs -o size=3m none "$scratch/small" && "$doppel" image create --quiet -f raw "$scratch/small/a" 64M &&
		"$doppel" image create --quiet -f qcow2 "$scratch/small/b" 64M
}
start_small() { small && start --disk "$scratch/small/a,format=raw,on-error=$1" --disk "$scratch/small/b,on-error=$2"; }
waits_for_room() {
	start_small enospc stop && says "small/a': a write failed: No space left on device; the machine waits" && mount -o remount,size=6m "$scratch/small" &&
		says "small/b': a write failed: No space left on device; the machine waits" && mount -o remount,size=100m "$scratch/small" && ends_well &&
		grep -q "small/b': the host can do it again; the machine goes on" "$scratch/out" && holds_data "$scratch/small/a" "$scratch/small/b"
}
# A user ends the machine that waits; the image has leaks at most.
ends_while_it_waits() {
	start_small report stop && says "small/b': a write failed" && kill -TERM "$machine" || return 1
	wait "$machine"
	status=$?
	machine=
	exec 3>&-
	cat "$scratch/out"
	[ $status = 143 ] || return 1
	"$doppel" image check "$scratch/small/b"
	status=$?
	[ $status = 0 ] || [ $status = 3 ]
}
reports_no_room() { start_small report report && ends_well; }

if [ -n "${FAULTS_INSIDE:-}" ]; then
	guest_does 'for disk in vda vdb; do write $disk; done
echo 3 >/proc/sys/vm/drop_caches
for disk in vda vdb; do read $disk; done'
	check "no room: the machine waits for it" waits_for_room
	guest_does 'for disk in vda vdb; do fails write $disk; done'
	check "no room: an I/O error" reports_no_room
	check "a machine that waits can be ended" ends_while_it_waits
else
	skip "no room" "no user namespace"
fi

# ---- errors ----

# shimmed CALLS ON-ERROR [NAME [BUS BUS [doppel's options]]]: they fail while $scratch/failing is there.
shimmed() {
	rm -f "$scratch/raw" "$scratch/qcow2"
	"$doppel" image create --quiet -f raw "$scratch/raw" 64M && "$doppel" image create --quiet -f qcow2 "$scratch/qcow2" 64M && touch "$scratch/failing" || return 1
	export LD_PRELOAD="$shim" FAIL_NAME="${3:-}" FAIL_CALLS="$1" FAIL_WHILE="$scratch/failing"
	on_error=$2 first=${4:-virtio} second=${5:-virtio}
	shift $(($# < 5 ? $# : 5))
	start --disk "$scratch/raw,format=raw,bus=$first,on-error=$on_error" --disk "$scratch/qcow2,bus=$second,on-error=$on_error" "$@"
	unset LD_PRELOAD FAIL_NAME FAIL_CALLS FAIL_WHILE
}
io_error() { shimmed "$@" && ends_well && ! grep 'the machine waits' "$scratch/out"; }
waits() {
	shimmed write stop && says "raw': a write failed: Input/output error; the machine waits" && rm "$scratch/failing" && ends_well &&
		grep -q "raw': the host can do it again" "$scratch/out" && holds_data "$scratch/raw" "$scratch/qcow2"
}
guest_does 'for disk in vda vdb; do fails write $disk; done'
check "writes fail: an I/O error" io_error write report
check "on-error=enospc waits for nothing else" io_error write enospc
check "syncs fail: an I/O error, and no end of waiting" io_error sync stop
guest_does 'fails block vda 1'
check "reads fail: an I/O error" io_error read report /raw
guest_does 'for disk in vda vdb; do write $disk; done
echo 3 >/proc/sys/vm/drop_caches
for disk in vda vdb; do read $disk; done'
check "the machine waits until writes do not fail any more" waits

# The same of SCSI and IDE disks; who listens by QMP is told which disk it is, and why.
listen() {
	perl -e 'use IO::Socket::UNIX; my $s; until ($s = IO::Socket::UNIX->new(Peer => $ARGV[0])) { select undef, undef, undef, 0.1 }
		$s->print("{\"execute\":\"qmp_capabilities\"}"); $| = 1; print while <$s>' "$scratch/qmp" >"$scratch/events" &
	server=$!
}
tells() { grep -q "BLOCK_IO_ERROR.*\"device\":\"$1\",\"operation\":\"write\",\"action\":\"stop\",\"nospace\":false,\"reason\":\"Input/output error\"" "$scratch/events"; }
other_buses() {
	listen
	shimmed write stop '' ide scsi --qmp "unix:$scratch/qmp" && says 'a write failed: Input/output error; the machine waits' && rm "$scratch/failing" &&
		says 'please fail again' && touch "$scratch/failing" && echo >&3 || return 1
	until tells scsi-disk0 && tells ata-drive0; do kill -0 "$machine" || return 1; done
	rm "$scratch/failing" && ends_well && holds_data "$scratch/raw" "$scratch/qcow2"
}
kernel=generic guest_does 'modprobe ata_piix
modprobe virtio_scsi
modprobe sd_mod
until [ -b /dev/sda ] && [ -b /dev/sdb ]; do sleep 0.1; done
write sda
asks "fail again"
write sdb
echo 3 >/proc/sys/vm/drop_caches
for disk in sda sdb; do read $disk; done'
kernel=generic check "disks on IDE and SCSI wait as well, and QMP says so" other_buses

# ---- a file that something happens to ----

happens() {
	rm -f "$scratch/raw"
	truncate -s 64M "$scratch/raw" && start --disk "$scratch/raw,format=raw" && says 'please take its permissions' && chmod 000 "$scratch/raw" && echo >&3 &&
		says 'please limit it' && prlimit --fsize=8388608 --pid "$machine" && echo >&3 && says 'please cut it' && truncate -s 2M "$scratch/raw" && echo >&3 &&
		says 'please remove it' && rm "$scratch/raw" && echo >&3 && ends_well
}
guest_does 'asks "take its permissions"
write vda
read vda
asks "limit it"
write vda
fails dd if=/data of=/dev/vda bs=64k seek=200 count=1 conv=fsync 2>/dev/null
asks "cut it"
block vda 1
fails block vda 100
asks "remove it"
dd if=/data of=/dev/vda bs=64k seek=16 count=8 conv=fsync 2>/dev/null'
check "its permissions go, a limit comes, it becomes shorter, it is removed" happens

refuses() {
	! "$doppel" run --kernel "$guest/$kernel/vmlinuz" --disk "$1" >"$scratch/out" 2>&1 && cat "$scratch/out" && grep -qF -e "$2" "$scratch/out"
}
check "on-error=other is refused" refuses "$scratch/raw,on-error=other" "'on-error' is 'other'; expected report, stop or enospc"
check "/dev/full is no disk" refuses /dev/full,format=raw "'/dev/full' is neither file nor disk"

# ---- a server that goes away ----

serve() {
	rm -f "$scratch/socket"
	qemu-nbd -t -f raw -k "$scratch/socket" "$scratch/raw" &
	server=$!
	until [ -S "$scratch/socket" ]; do kill -0 "$server" || return 1; sleep 0.05; done
}
kill_server() {
	kill -9 "$server"
	wait "$server"
	server=
}
# on_server ON-ERROR WHAT: it is killed, and back when WHAT is said.
on_server() {
	rm -f "$scratch/raw"
	truncate -s 64M "$scratch/raw" && serve && start --disk "nbd:unix:$scratch/socket,on-error=$1" && says 'please kill it' && kill_server && echo >&3 &&
		says "$2" && serve && echo >&3 && ends_well && kill_server
}
if command -v qemu-nbd >/dev/null; then
	guest_does 'asks "kill it"
fails write vda
asks "start it"
until write vda; do :; done
echo 3 >/proc/sys/vm/drop_caches
read vda'
	check "a server that goes away: an I/O error, until it is back" on_server report 'please start it'
	guest_does 'asks "kill it"
write vda
echo 3 >/proc/sys/vm/drop_caches
read vda'
	check "a server that goes away: the machine waits until it is back" on_server stop 'the machine waits'
else
	skip "a server that goes away" "no qemu-nbd (qemu-utils)"
fi
finish
