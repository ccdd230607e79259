#!/bin/sh
# --cloud-init: Linux finds a disc called cidata with the files as they were given, by Rock Ridge and by Joliet; an instance's name that files make.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

{ echo '#cloud-config'; head -c 5000 /dev/urandom | od -An -x; } >"$scratch/user"
echo 'version: 2' >"$scratch/network"
: >"$scratch/vendor"
printf 'instance-id: mine\n' >"$scratch/meta"

script="modprobe virtio_blk
modprobe isofs
mkdir /mnt
[ \"\$(dd if=/dev/vda bs=1 skip=32808 count=32 2>/dev/null)\" = 'cidata                          ' ]
[ \$(cat /sys/block/vda/ro) = 1 ]
for how in ro norock; do
mount -t iso9660 -o \$how /dev/vda /mnt
cmp /user /mnt/user-data
cmp /network /mnt/network-config
cmp /vendor /mnt/vendor-data
echo meta: \$(cat /mnt/meta-data) / \$(ls -a /mnt)
umount /mnt
done"
guest_with "$scratch/user" "$scratch/network" "$scratch/vendor"
end=' / '
names='. .. meta-data network-config user-data vendor-data'
seed() {
	boot wait "meta: $1" wait "$2$names" wait "meta: $1" wait "$2$names" wait 'all is well' exit 0 -- --initrd "$scratch/initrd" \
		--cloud-init "user-data=$scratch/user,network-config=$scratch/network,vendor-data=$scratch/vendor$3"
}
check "meta-data made up" seed 'instance-id: iid-' "local-hostname: doppel$end" ""
check "meta-data given" seed "instance-id: mine$end" "" ",meta-data=$scratch/meta"

# says WORDS ARGUMENT...: what is wrong is said.
says() {
	words=$1
	shift
	! "$doppel" run --kernel "$guest/$kernel/vmlinuz" "$@" 2>"$scratch/error" || return 1
	cat "$scratch/error"
	grep -qF -e "$words" "$scratch/error"
}
check "no user-data" says "option 'user-data' is not given; expected a file" --cloud-init "meta-data=$scratch/meta"
check "no such file" says "cannot open '/nonexistent'" --cloud-init user-data=/nonexistent
check "no such option" says "option 'userdata' is unknown; expected meta-data, network-config, user-data, vendor-data" --cloud-init userdata=x
check "a file without an end" says "has more than 16777216 bytes" --cloud-init user-data=/dev/zero
finish
