#!/bin/sh
# doppel is killed (SIGKILL) at random moments while a Linux guest writes to file systems on four disks, raw and qcow2, with and without the host's page cache: what the guest saw
# flushed is there, journals recover, images have no errors. And the same below it, many times faster: a process that writes to an image by src/block and is killed.
#
#	crash.sh [KILLS [OF WRITERS]]	of machines (20), of writers alone (ten times as many)
#
# Where the kills come is random: SEED (this process's number), which the first line says, chooses when, and the host's scheduler the rest.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
PATH=$PATH:/usr/sbin:/sbin
block=${BLOCK:-build/release/tests/block/block}
kills=${1:-20} writers=${2:-$((${1:-20} * 10))} seed=${SEED:-$$}
machine=
trap '[ -z "$machine" ] || kill -9 "$machine"; rm -rf "$scratch"' EXIT
for program in mke2fs e2fsck debugfs; do
	command -v "$program" >/dev/null || { echo "1..0 # SKIP no $program (e2fsprogs)"; exit 0; }
done
echo "# seed $seed"
exec 4>&1 # past what check keeps
disks="raw,writeback raw,none qcow2,writeback qcow2,none"
slots=8

# A file system each, with a journal. Files are written anew, flushed, and renamed over the old ones; B: begun, F: flushed with its name.
# shellcheck disable=SC2034
script="modprobe virtio_blk
for word in \$(cat /proc/cmdline); do case \$word in from=*) from=\${word#from=} ;; esac; done
writes() {
	n=\$from
	while :; do
		n=\$((n + 1)) slot=\$((n % $slots))
		echo \"B \$1 \$n\"
		yes \$n | dd of=/mnt/\$1/new bs=\$((n % 7 * 9000 + 500)) count=1 iflag=fullblock conv=fsync 2>/dev/null
		mv /mnt/\$1/new /mnt/\$1/\$slot
		sync
		echo \"F \$1 \$n\"
	done
}
for disk in vda vdb vdc vdd; do
	mkdir -p /mnt/\$disk
	mount -t ext4 /dev/\$disk /mnt/\$disk
done
for disk in vda vdb vdc vdd; do writes \$disk & done
wait"
guest_with -

new_disks() {
	truncate -s 24M "$scratch/fs" && mke2fs -q -t ext4 -J size=4 "$scratch/fs" || return 1
	set --
	for disk in $disks; do
		name=$scratch/$disk
		"$doppel" image convert --quiet -O "${disk%,*}" "$scratch/fs" "$name" || return 1
	done
}

# One machine, until it is killed.
kills_one() {
	set --
	for disk in $disks; do
		# A comma ends a name.
		ln -sf "$disk" "$scratch/${disk%,*}-${disk#*,}"
		set -- "$@" --disk "$scratch/${disk%,*}-${disk#*,},format=${disk%,*},cache=${disk#*,}"
	done
	"$doppel" run --kernel "$guest/$kernel/vmlinuz" --initrd "$scratch/initrd" --append "console=ttyS0 quiet $append from=$from" "$@" >"$scratch/said" 2>&1 </dev/null &
	machine=$!
	until grep -q '^F vdd' "$scratch/said"; do
		kill -0 "$machine" || { cat "$scratch/said"; return 1; }
		sleep 0.05
	done
	sleep "$(awk -v seed="$seed$from" 'BEGIN { srand(seed); printf "%.3f", rand() * 1.5 }')"
	kill -9 "$machine"
	wait "$machine" 2>/dev/null
	machine=
	tr -d '\r' <"$scratch/said" | grep -E '^[BF] vd[a-d] [0-9]+$' >>"$scratch/all"
	from=$(awk '{ if ($3 > n) n = $3 } END { print n }' "$scratch/all")
}

# image_is_whole FORMAT FILE: leaks are allowed.
image_is_whole() {
	[ "$1" = raw ] && return
	if command -v qemu-img >/dev/null; then
		qemu-img check -q -f "$1" "$2"
		status=$?
		[ $status = 0 ] || [ $status = 3 ] || return 1
	fi
	"$doppel" image check "$2" >"$scratch/check"
	status=$?
	[ $status = 0 ] || [ $status = 3 ] || { cat "$scratch/check"; return 1; }
}

# files_are_there DISK FILE: each slot's last flushed file, or one that was begun later.
files_are_there() {
	e2fsck -p "$2"
	[ $? -le 1 ] || return 1
	e2fsck -fn "$2" >"$scratch/fsck" 2>&1 || { cat "$scratch/fsck"; return 1; }
	slot=0
	while [ $slot -lt $slots ]; do
		rm -f "$scratch/file"
		debugfs -R "dump /$slot $scratch/file" "$2" >"$scratch/debugfs" 2>&1
		[ -e "$scratch/file" ] || : >"$scratch/file"
		awk -v disk="$1" -v slot=$slot -v slots=$slots '
			FNR == NR { if ($2 == disk && $3 % slots == slot) { if ($1 == "B") begun[$3] = 1; else if ($3 > flushed) flushed = $3 } next }
			FNR == 1 { first = $1 }
			$1 != first && !(length($1) < length(first) && index(first, $1) == 1) { print "two files in one: " first ", " $1; bad = 1 }
			{ size += length($0) + 1 }
			END {
				if (!bad && flushed && (first < flushed || !begun[first])) { print disk " slot " slot ": flushed " flushed ", there is " first; bad = 1 }
				exit bad
			}' "$scratch/all" "$scratch/file" || return 1
		slot=$((slot + 1))
	done
}

all_is_there() {
	number=0
	for disk in $disks; do
		number=$((number + 1))
		echo "disk $disk"
		image_is_whole "${disk%,*}" "$scratch/$disk" || return 1
		"$doppel" image convert --quiet -U -f "${disk%,*}" -O raw "$scratch/$disk" "$scratch/shown" || return 1
		files_are_there "vd$(echo abcd | cut -c $number)" "$scratch/shown" || return 1
	done
}

machines() {
	from=0
	: >"$scratch/all"
	new_disks || return 1
	killed=0
	while [ $killed -lt "$kills" ]; do
		echo "kill $((killed + 1)) of seed $seed"
		kills_one || return 1
		all_is_there || return 1
		killed=$((killed + 1))
		[ $((killed % 20)) != 0 ] || echo "# $(date +%T) $killed machines killed, $(grep -c ^F "$scratch/all") flushes seen" >&4
	done
}
check "$kills machines killed" machines

# kills_writers FORMAT OPTIONS CACHE: with lazy refcounts qemu-img has errors to tell of until they are counted anew.
kills_writers() {
	checker="qemu-img check -q"
	case $1$2 in raw | *lazy*) checker= ;; esac
	command -v qemu-img >/dev/null || checker=
	rm -f "$scratch/image"
	"$doppel" image create --quiet -f "$1" ${2:+-o "$2"} "$scratch/image" 8M && "$block" kill "$scratch/image" "$seed" $((writers / 6 + 1)) \
		"$checker" "$3"
}
for words in raw::unsafe raw::none qcow2:cluster_size=4k:unsafe qcow2:cluster_size=64k:none qcow2:lazy_refcounts=on:unsafe qcow2:compat=0.10,cluster_size=512:unsafe; do
	format=${words%%:*} rest=${words#*:}
	check "$((writers / 6 + 1)) writers killed: $words" kills_writers "$format" "${rest%:*}" "${rest#*:}"
done
finish
