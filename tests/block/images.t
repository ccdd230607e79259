#!/bin/sh
# doppel image: what it makes and copies is the same again; errors say what is wrong; writers that are killed lose nothing.
cd "$(dirname "$0")/../.." || exit 1
# Where there is room: memory, as syncs to a busy disk take long.
room=$(df -Pk /dev/shm 2>&1 | awk 'NR == 2 { print $4 }')
[ "${room:-0}" -lt 1000000 ] || export TMPDIR=/dev/shm
. tests/lib/tap.sh
doppel=${DOPPEL:-$PWD/build/release/doppel}
block=${BLOCK:-$PWD/build/release/tests/block/block}
cd "$scratch" || exit 1

image() {
	"$doppel" image "$@"
}

# A command fails with this status and says this.
refuses() {
	want=$1 text=$2
	shift 2
	status=0
	image "$@" >out 2>&1 || status=$?
	cat out
	[ "$status" = "$want" ] && grep -qF -e "$text" out
}

# A disk with data, zeros and holes.
make_disk() {
	{
		head -c 700000 /dev/urandom
		head -c 3000000 /dev/zero
		seq 1 100000
	} >"$1" && truncate -s 9M "$1"
}
make_disk disk.raw

# There and back again.
round_trip() {
	rm -f a.qcow2 back.raw
	image convert -O qcow2 -o "$1" disk.raw a.qcow2 && image check a.qcow2 && image convert a.qcow2 back.raw && cmp disk.raw back.raw
}
for options in cluster_size=64k cluster_size=512 cluster_size=2M compat=0.10 refcount_bits=1,cluster_size=1k refcount_bits=64 lazy_refcounts=on; do
	check "raw to qcow2 ($options) and back" round_trip "$options"
done

holes_stay() {
	image convert disk.raw sparse.raw && cmp disk.raw sparse.raw && [ "$(du -k sparse.raw | cut -f 1)" -le 2000 ]
}
check "zeros take no room" holes_stay

information() {
	image create -o cluster_size=4k,refcount_bits=8 i.qcow2 10G && image info i.qcow2 >out && cat out &&
		grep -qx 'virtual size: 10 GiB (10737418240 bytes)' out && grep -qx 'cluster size: 4096' out && grep -qx 'refcount bits: 8' out &&
		image info --json i.qcow2 | grep -q '"virtual-size": 10737418240'
}
check "info" information

# Layers: the overlay shows the disk; what is written to it goes down with commit.
layers() {
	cp disk.raw base.raw && rm -f top.qcow2 && image create -b base.raw -F raw top.qcow2 && "$block" random top.qcow2 5 100 unsafe &&
		image convert top.qcow2 shown.raw && cmp shown.raw top.qcow2.model && cmp disk.raw base.raw &&
		image commit top.qcow2 && image check top.qcow2 && cmp base.raw top.qcow2.model &&
		image convert top.qcow2 shown.raw && cmp shown.raw base.raw
}
check "an overlay, and commit" layers

rebases() {
	cp disk.raw old.raw && make_disk new.raw && rm -f r.qcow2 && image create -b old.raw -F raw r.qcow2 12M &&
		"$block" random r.qcow2 6 20 unsafe && image rebase -b new.raw -F raw r.qcow2 && rm old.raw && image check r.qcow2 &&
		image convert r.qcow2 shown.raw && cmp shown.raw r.qcow2.model &&
		image rebase -b '' r.qcow2 && rm new.raw && image convert r.qcow2 shown.raw && cmp shown.raw r.qcow2.model
}
check "rebase, and on nothing" rebases

rebases_unread() {
	cp disk.raw old.raw && rm -f r.qcow2 && image create -b old.raw -F raw r.qcow2 && mv old.raw moved.raw &&
		image rebase -u -b moved.raw -F raw r.qcow2 && image convert r.qcow2 shown.raw && cmp shown.raw disk.raw
}
check "rebase of a name alone" rebases_unread

resizes() {
	rm -f z.qcow2 && image convert -O qcow2 -o cluster_size=512 disk.raw z.qcow2 && image resize z.qcow2 +5G && image check z.qcow2 &&
		image info z.qcow2 | grep -q 5378146304 && image resize --shrink z.qcow2 1M && image resize z.qcow2 9M && image check z.qcow2 &&
		image convert z.qcow2 shown.raw && head -c 1M disk.raw >want && truncate -s 9M want && cmp shown.raw want &&
		cp disk.raw z.raw && image resize -f raw z.raw 10M && [ "$(stat -c %s z.raw)" = 10485760 ]
}
check "resize" resizes

# What is below may be longer than the overlay: it does not show when that grows.
grows_into_zeros() {
	rm -f g.qcow2 && image create -b disk.raw -F raw g.qcow2 100K && image resize g.qcow2 9M && image convert g.qcow2 shown.raw &&
		head -c 100K disk.raw >want && truncate -s 9M want && cmp shown.raw want
}
check "a larger disk has zeros at its end" grows_into_zeros

check "no size" refuses 2 "expected a size behind it, such as 10G" create x.qcow2
check "a wrong size" refuses 2 "'10X' is no size" create x.qcow2 10X
check "a wrong format" refuses 2 "format 'vmdk' cannot be made; expected raw or qcow2" create -f vmdk x 1M
check "a wrong cluster size" refuses 2 "cluster_size is 1000; expected a power of two from 512 to 2M" create -o cluster_size=1000 x.qcow2 1M
check "an option that nobody knows" refuses 2 "'prealloc' is unknown; expected cluster_size=" create -o prealloc=on x.qcow2 1M
check "a backing file without a format" refuses 2 "needs a format" create -b disk.raw x.qcow2
check "an option of another command" refuses 2 "info does not take -r" info -r all x.qcow2
check "a file that is not there" refuses 1 "cannot open 'nothing'" info nothing
check "a command that nobody knows" refuses 2 "'fsck' is unknown; expected create, info" fsck x
check "shrinking only when asked" refuses 2 "--shrink" resize -f raw disk.raw 1M
check "nothing of a failed image stays" test ! -e x.qcow2

# Where backing files may be.
far_away() {
	mkdir -p a b && cp disk.raw b/base.raw && rm -f a/top.qcow2 && image create --backing any -b ../b/base.raw -F raw a/top.qcow2 &&
		refuses 1 "is not a regular file in its own folder or below; backing=any allows it" convert a/top.qcow2 y.raw &&
		image convert --backing any a/top.qcow2 y.raw && cmp y.raw disk.raw &&
		ln -sf ../b/base.raw a/link.raw && image rebase -u -b link.raw -F raw a/top.qcow2 &&
		refuses 1 "is not a regular file in its own folder" convert a/top.qcow2 y.raw &&
		image rebase -u -b nbd://host/x -F raw a/top.qcow2 && refuses 2 "of the protocol 'nbd'" convert a/top.qcow2 y.raw &&
		image rebase -u -b top.qcow2 -F qcow2 a/top.qcow2 && refuses 1 "in a circle" convert a/top.qcow2 y.raw
}
check "backing files far away, behind links, of protocols, in a circle" far_away

damaged() {
	rm -f d.qcow2 && image convert -O qcow2 disk.raw d.qcow2 &&
		# The refcount block is the third cluster: one cluster more in use, one fewer.
		printf '\000\001' | dd of=d.qcow2 bs=1 seek=$((131072 + 2 * 1000)) conv=notrunc status=none &&
		{ image check d.qcow2; [ $? = 3 ]; } &&
		printf '\000\000' | dd of=d.qcow2 bs=1 seek=$((131072 + 2 * 6)) conv=notrunc status=none &&
		{ image check d.qcow2; [ $? = 2 ]; } && image check -r all d.qcow2 && image check d.qcow2 &&
		image convert d.qcow2 shown.raw && cmp shown.raw disk.raw
}
check "damaged refcounts are found and repaired" damaged

kills() {
	options=$1
	shift
	rm -f k.qcow2 && image create -o "$options" k.qcow2 8M && "$block" kill k.qcow2 "$$" "$@"
}
check "40 writers killed" kills cluster_size=4k 40 '' unsafe
check "20 writers killed, lazy refcounts" kills cluster_size=64k,lazy_refcounts=on 20 '' unsafe
check "20 writers killed, version 2" kills cluster_size=512,compat=0.10 20 '' unsafe
check "5 writers killed, with syncs" kills cluster_size=64k 5 ''
finish
