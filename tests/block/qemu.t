#!/bin/sh
# Images of qemu-img's here and the other way round: after random requests qemu-img finds nothing wrong, and shows the same.
cd "$(dirname "$0")/../.." || exit 1
# Where there is room: memory, as syncs to a busy disk take long.
room=$(df -Pk /dev/shm 2>&1 | awk 'NR == 2 { print $4 }')
[ "${room:-0}" -lt 1000000 ] || export TMPDIR=/dev/shm
. tests/lib/tap.sh
doppel=${DOPPEL:-$PWD/build/release/doppel}
block=${BLOCK:-$PWD/build/release/tests/block/block}
cd "$scratch" || exit 1
if ! command -v qemu-img >qemu || ! command -v qemu-io >qemu; then
	skip "images of QEMU" "qemu-img and qemu-io are not installed (qemu-utils)"
	finish
	exit
fi

same() {
	qemu-img check -q -f qcow2 "$1" && qemu-img compare -f qcow2 -F raw "$1" "$2"
}

# Made by qemu-img with these options.
theirs() {
	rm -f t.qcow2 && qemu-img create -q -f qcow2 -o "$1" t.qcow2 24M && "$block" random t.qcow2 1 150 unsafe discard && same t.qcow2 t.qcow2.model &&
		qemu-io -t unsafe -f qcow2 -c 'write -P 7 1M 3M' -c 'discard 2M 1M' -c 'write -P 9 20M 64k' t.qcow2 && "$block" random t.qcow2 2 150 unsafe &&
		same t.qcow2 t.qcow2.model && "$doppel" image check t.qcow2
}
for options in compat=0.10 cluster_size=512 cluster_size=2M lazy_refcounts=on,compression_type=zstd refcount_bits=1 refcount_bits=4 \
	refcount_bits=64 preallocation=metadata extended_l2=on extended_l2=on,cluster_size=16k extended_l2=on,cluster_size=2M,lazy_refcounts=on \
	extended_l2=on,preallocation=metadata; do
	check "made by qemu-img: $options" theirs "$options"
done

ours() {
	rm -f o.qcow2 && "$doppel" image create -o "$1" o.qcow2 24M && qemu-img check -q o.qcow2 && "$block" random o.qcow2 3 150 unsafe discard &&
		same o.qcow2 o.qcow2.model && qemu-io -t unsafe -f qcow2 -c 'write -P 7 1M 3M' -c 'write -z -u 5M 1M' o.qcow2 && "$doppel" image check o.qcow2 &&
		"$doppel" image convert o.qcow2 o.raw && qemu-img compare -f qcow2 -F raw o.qcow2 o.raw &&
		"$doppel" image resize o.qcow2 +20G && qemu-img check -q o.qcow2 && qemu-io -t unsafe -f qcow2 -c 'write 20G 64k' o.qcow2 && "$doppel" image check o.qcow2
}
for options in cluster_size=64k compat=0.10 refcount_bits=64,cluster_size=512 extended_l2=on extended_l2=on,cluster_size=16k; do
	check "made by doppel: $options" ours "$options"
done

head -c 3M /dev/urandom >disk.raw && seq 1 800000 >>disk.raw && truncate -s 16M disk.raw

compressed() {
	rm -f c.qcow2 && qemu-img convert -c -f raw -O qcow2 -o "$1" disk.raw c.qcow2 && "$doppel" image convert c.qcow2 c.raw && cmp c.raw disk.raw &&
		"$doppel" image check c.qcow2 | grep -q ' of them compressed' && "$block" random c.qcow2 4 200 unsafe && same c.qcow2 c.qcow2.model
}
check "compressed by zlib" compressed compression_type=zlib
check "compressed by zstd" compressed compression_type=zstd
check "compressed, large clusters" compressed compression_type=zlib,cluster_size=2M
check "compressed, small clusters" compressed compression_type=zlib,cluster_size=512
check "compressed, extended L2 entries" compressed compression_type=zlib,extended_l2=on,cluster_size=16k

extended() {
	rm -f x.qcow2 && qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k -b disk.raw -F raw x.qcow2 &&
		qemu-io -t unsafe -f qcow2 -c 'write -P 3 4k 12k' -c 'write -z 200k 8k' -c 'write -P 5 1M 1M' x.qcow2 &&
		"$doppel" image convert x.qcow2 x.raw && qemu-img compare -f qcow2 -F raw x.qcow2 x.raw && "$doppel" image check x.qcow2 &&
		"$block" random x.qcow2 10 300 unsafe discard && same x.qcow2 x.qcow2.model &&
		qemu-io -t unsafe -f qcow2 -c 'write -P 3 36k 4k' -c 'write -z 300k 8k' -c 'discard 1M 64k' x.qcow2 && "$doppel" image check x.qcow2 &&
		"$block" random x.qcow2 11 300 unsafe discard && same x.qcow2 x.qcow2.model && "$doppel" image check x.qcow2
}
check "extended L2 entries on a backing file" extended
# Snapshots inside stay what they were.
snapshots() {
	rm -f s.qcow2 && qemu-img create -q -f qcow2 -o "$1" s.qcow2 16M && "$block" random s.qcow2 5 150 unsafe && cp s.qcow2.model first &&
		qemu-img snapshot -c one s.qcow2 && "$block" random s.qcow2 6 150 unsafe discard && cp s.qcow2.model second &&
		qemu-img check -q s.qcow2 && qemu-img snapshot -c two s.qcow2 && "$block" random s.qcow2 7 150 unsafe discard && same s.qcow2 s.qcow2.model &&
		"$doppel" image check s.qcow2 && "$doppel" image info s.qcow2 | grep -q ' two ' &&
		qemu-img snapshot -a one s.qcow2 && same s.qcow2 first && qemu-img snapshot -a two s.qcow2 && same s.qcow2 second
}
check "snapshots inside" snapshots cluster_size=64k
check "snapshots inside, small clusters" snapshots cluster_size=1k
check "snapshots inside, refcounts of 4 bits" snapshots refcount_bits=4
check "snapshots inside, extended L2 entries" snapshots extended_l2=on,cluster_size=16k

chain() {
	rm -f base.qcow2 mid.qcow2 top.qcow2 && qemu-img convert -c -f raw -O qcow2 disk.raw base.qcow2 &&
		qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 20M && "$block" random mid.qcow2 8 50 unsafe &&
		qemu-img create -q -f qcow2 -o cluster_size=4k -b mid.qcow2 -F qcow2 top.qcow2 18M && "$block" random top.qcow2 9 100 unsafe discard &&
		same top.qcow2 top.qcow2.model && "$doppel" image rebase -b base.qcow2 -F qcow2 top.qcow2 && same top.qcow2 top.qcow2.model &&
		"$doppel" image commit top.qcow2 && same base.qcow2 top.qcow2.model
}
check "a chain of three, rebased and committed" chain

refused() {
	"$doppel" image info "$1" 2>err
	cat err
	grep -q "$2" err
}
encrypted() {
	qemu-img create -q -f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 e.qcow2 1M &&
		refused e.qcow2 "encrypted (LUKS)"
}
check "encrypted images are refused by name" encrypted
elsewhere() {
	qemu-img create -q -f qcow2 -o data_file=e.data e2.qcow2 1M && refused e2.qcow2 "external data file"
}
check "data in another file is refused by name" elsewhere

# Who has it open keeps the other out. Both wait for what they are told on a pipe.
we_hold() {
	mkfifo "$1.in" && { "$block" hold "$1" - - <"$1.in" >"$1.out" & } && exec 3>"$1.in" && until grep -q open "$1.out"; do :; done
	status=0
	qemu-io -f "$2" -c 'write 0 512' "$1" >err 2>&1 && status=1
	[ "$2" = raw ] || ! qemu-img info "$1" >>err 2>&1 || status=1
	cat err
	exec 3>&-
	wait
	[ $status = 0 ] && grep -q 'Failed to get' err && qemu-io -f "$2" -c 'write 0 512' "$1"
}
they_hold() {
	mkfifo "$1.q" && { qemu-io -f "$2" "$1" <"$1.q" >"$1.out2" 2>&1 & } && exec 4>"$1.q" && echo 'write 0 512' >&4 &&
		until grep -q '512/512' "$1.out2"; do sleep 0.05; done
	status=0
	"$block" random "$1" 1 1 >err 2>&1 && status=1
	"$doppel" image info "$1" >>err 2>&1 && status=1
	cat err
	"$doppel" image info -U "$1" || status=1
	exec 4>&-
	wait
	[ $status = 0 ] && grep -q 'in use by another program' err && "$block" random "$1" 1 1
}
for format in raw qcow2; do
	qemu-img create -q -f $format "l.$format" 1M
	check "an image that we write, $format: QEMU is kept out" we_hold "l.$format" $format
	check "an image that QEMU writes, $format: we are kept out" they_hold "l.$format" $format
done

kills() {
	options=$1
	shift
	rm -f k.qcow2 && qemu-img create -q -f qcow2 -o "$options" k.qcow2 8M && "$block" kill k.qcow2 "$$" "$@"
}
check "20 writers killed, and checked by qemu-img before any repair" kills cluster_size=4k 20 'qemu-img check -f qcow2' unsafe
check "5 writers killed, version 2" kills compat=0.10 5 'qemu-img check -f qcow2' unsafe
check "5 writers killed, small clusters" kills cluster_size=512 5 'qemu-img check -f qcow2' unsafe
finish
