#!/bin/sh
# Minutes of work in a whole Debian, and after each its images are whole: packages over the network, large copies, file systems that are
# filled, fio's verification.
#
#	long.sh [CPUS,FORMAT,CACHE...]		(1,raw,none 2,qcow2,writeback 4,qcow2,none)
cd "$(dirname "$0")/../.." || exit 1
. tests/debian/lib.sh

# A repository of one package, signed by nobody, on the host's loopback address: the guest's 10.0.2.2.
make_repository() {
	root=$scratch/package
	mkdir -p "$root/DEBIAN" "$root/usr/share/greeting" "$scratch/repository" &&
		printf 'Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: none <none@localhost>\nDescription: for a test\n' >"$root/DEBIAN/control" &&
		head -c 20000000 /dev/urandom >"$root/usr/share/greeting/data" &&
		dpkg-deb -Znone --root-owner-group -b "$root" "$scratch/repository/greeting_1.0_all.deb" >/dev/null &&
		(cd "$scratch/repository" && dpkg-scanpackages . >Packages)
}
serve() {
	python3 -u -m http.server --bind 127.0.0.1 --directory "$scratch/repository" 0 >"$scratch/http" 2>&1 &
	server=$!
	# Its first line, which says its port, comes when it listens.
	until http=$(sed -n 's/^Serving.* port \([0-9]*\) .*/\1/p' "$scratch/http") && [ -n "$http" ]; do
		kill -0 "$server" || return 1
	done
}
installs() {
	in_debian "echo 'deb [trusted=yes] http://10.0.2.2:$http ./' >/etc/apt/sources.list
		apt-get -q update && apt-get -qy install greeting && dpkg -s greeting" || return 1
	[ "$(in_debian 'sha256sum </usr/share/greeting/data')" = "$(sha256sum <"$root/usr/share/greeting/data")" ] || return 1
	in_debian 'apt-get -qy remove greeting && ! test -e /usr/share/greeting/data'
}

# fills DISK: a file system of it, filled, checked, and gone over again from the disk.
fills() {
	in_debian "set -e; mke2fs -q -t ext4 /dev/$1; mount /dev/$1 /mnt; cp -a /usr/bin /usr/lib /mnt; umount /mnt
		e2fsck -fn /dev/$1; echo 3 >/proc/sys/vm/drop_caches; mount -o ro /dev/$1 /mnt; diff -r --no-dereference /usr/bin /mnt/bin
		diff -r --no-dereference /usr/lib /mnt/lib; umount /mnt"
}
# verifies DISK: what fio writes there it finds there, in 4 to 64 KiB, at queue depth 16, with flushes.
verifies() {
	in_debian "fio --name=verify --filename=/dev/$1 --rw=randwrite --bsrange=4k-64k --iodepth=16 --ioengine=libaio --direct=1 --size=512M \
		--io_size=128M --fsync=64 --verify=crc32c --verify_fatal=1 --do_verify=1 --output-format=terse >/dev/null"
}

# works CPUS FORMAT CACHE: on two more disks.
works() {
	words="$1 CPU, $2, cache=$3"
	for disk in b c; do
		rm -f "$scratch/$disk"
		"$doppel" image create --quiet -f "$2" "$scratch/$disk" 2G
	done
	new_disk
	start --cpus "$1" --disk "$scratch/b,format=$2,cache=$3,discard=on" --disk "$scratch/c,format=$2,cache=$3"
	check "$words: up" is_up
	check "$words: 200 MiB both ways" both_ways 200
	check "$words: a package of a repository" installs
	check "$words: a file system is made, filled, compared" fills vdb
	check "$words: fio verifies" verifies vdc
	check "$words: it powers off" goes_down
	check "$words: its disk is whole" is_clean
	[ "$2" = raw ] || check "$words: so are the other images" both_checked
}
both_checked() { "$doppel" image check "$scratch/b" && "$doppel" image check "$scratch/c"; }

check "a repository is made" make_repository
check "it is served" serve
[ $# != 0 ] || set -- 1,raw,none 2,qcow2,writeback 4,qcow2,none
for words; do
	# shellcheck disable=SC2046 # three words
	works $(echo "$words" | tr , ' ')
done
finish
