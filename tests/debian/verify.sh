#!/bin/sh
# fio's verification in a whole Debian, on every bus, format and cache: what is written at random, in 4 to 64 KiB, at queue depth 16, with flushes, is found there; and the images have no
# errors afterwards.
#
#	verify.sh [MEGABYTES]	to each disk (32)
cd "$(dirname "$0")/../.." || exit 1
. tests/debian/lib.sh
# Many disks, on a host that may be busy.
limit=${BOOT_LIMIT:-3600}
megabytes=${1:-32}
caches="writeback none unsafe"
# A snapshot's writes are gone afterwards; an overlay's base has data.
formats="raw qcow2 small-clusters lazy overlay snapshot"
buses=virtio
! "$doppel" run --device virtio-blk,help | grep -q '^ *bus=' || buses="$buses scsi"

# make_disk FORMAT FILE
make_disk() {
	rm -f "$2" "$2.base"
	case $1 in
	raw | snapshot) "$doppel" image create --quiet -f raw "$2" 256M ;;
	qcow2) "$doppel" image create --quiet -f qcow2 "$2" 256M ;;
	small-clusters) "$doppel" image create --quiet -f qcow2 -o cluster_size=4k "$2" 256M ;;
	lazy) "$doppel" image create --quiet -f qcow2 -o lazy_refcounts=on "$2" 256M ;;
	overlay) head -c 256M /dev/urandom >"$2.base" && "$doppel" image create --quiet -f qcow2 -b "$2.base" -F raw "$2" ;;
	esac
}
option_of() {
	case $1 in
	raw) echo format=raw ;;
	snapshot) echo format=raw,snapshot=on ;;
	*) echo format=qcow2 ;;
	esac
}

# verifies SERIAL
verifies() {
	in_debian "fio --name=verify --filename=/dev/\$(lsblk -drno NAME,SERIAL | awk '\$2 == \"$1\" { print \$1 }') --rw=randwrite --bsrange=4k-64k --iodepth=16 \
		--ioengine=libaio --direct=1 --size=256M --io_size=${megabytes}M --fsync=32 --verify=crc32c --verify_fatal=1 --do_verify=1 --output-format=terse >/dev/null"
}
whole() { "$doppel" image check "$1" && { ! command -v qemu-img >/dev/null || qemu-img check "$1"; }; }

for bus in $buses; do
	for cache in $caches; do
		set --
		for format in $formats; do
			make_disk "$format" "$scratch/$format" || exit 1
			set -- "$@" --disk "$scratch/$format,$(option_of "$format"),cache=$cache,discard=on,serial=$format$([ "$bus" = virtio ] || echo ",bus=$bus")"
		done
		new_disk
		start --cpus 2 "$@"
		check "$bus, $cache: up" is_up
		for format in $formats; do check "$bus, $cache: $format" verifies "$format"; done
		check "$bus, $cache: it powers off" goes_down
		for format in qcow2 small-clusters lazy overlay; do check "$bus, $cache: $format is whole" whole "$scratch/$format"; done
	done
done
finish
