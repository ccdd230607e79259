#!/bin/sh
# virtio-9p: a folder of the host's under Linux. What is unpacked there has the same contents on both sides, names come and go as on any file system, and nothing is
# changed where nothing may be.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
kernel=generic
need_modules

mount="modprobe 9p
modprobe 9pnet_virtio
mkdir /mnt
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144"

# A small tree, with a file larger than a message.
mkdir -p "$scratch/tree/a/b" "$scratch/folder"
for n in $(seq 60); do head -c $((n * 200)) /dev/urandom >"$scratch/tree/a/$n"; done
head -c 3000000 /dev/urandom >"$scratch/tree/a/b/large"
ln -s ../1 "$scratch/tree/a/b/link"
chmod 751 "$scratch/tree/a/b"
chmod 440 "$scratch/tree/a/7"
tar -C "$scratch" -cf "$scratch/tree.tar" tree
sums() { (cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum; }
sum=$(sums "$scratch/tree")

unpack="tar -C /mnt -xf /tree.tar
cd /mnt
[ \"\$(cd tree && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum)\" = '$(cd "$scratch/tree" && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum)' ]
[ \$(readlink tree/a/b/link) = ../1 ]
[ \$(ls tree/a | wc -l) = 61 ]"

# Of git's kind: files made beside their place and renamed into it, linked, appended to, cut, removed while they are open.
script="$mount shared /mnt
$unpack
cmp tree/a/1 tree/a/b/link
mkdir work
for n in 0 1 2 3 4 5 6 7 8 9; do echo \$n >work/.new.\$n; ln work/.new.\$n work/\$n; mv work/.new.\$n work/final; done
[ \$(cat work/final) = 9 ]
[ \$(cat work/[0-9] | tr -d '\\n') = 0123456789 ]
exec 3<work/5
rm work/5
read line <&3
exec 3<&-
[ \$line = 5 ]
echo more >>work/6
[ \$(cat work/6 | wc -l) = 2 ]
truncate -s 3 work/6
[ \$(stat -c %s work/6) = 3 ]
chmod 640 work/6
touch -d '2001-02-03 04:05:06' work/6
[ \$(stat -c %a work/6) = 640 ]
mkfifo work/fifo
( echo through >work/fifo & )
[ \$(cat work/fifo) = through ]
if mknod work/device c 1 3 2>/dev/null; then exit 1; fi
if mv work work/6 2>/dev/null; then exit 1; fi
mv work moved
ln -s /etc/passwd moved/escape
if cat moved/escape 2>/dev/null; then exit 1; fi
rmdir tree/a 2>/dev/null && exit 1
dd if=/dev/zero of=moved/synced bs=100k count=3 conv=fsync 2>/dev/null
df /mnt >/dev/null
cd /
umount /mnt"
same_tree() {
	[ "$(sums "$scratch/folder/tree")" = "$sum" ] && [ "$(stat -c %a "$scratch/folder/tree/a/b" "$scratch/folder/tree/a/7" | tr '\n' ' ')" = "751 440 " ] &&
		[ "$(cat "$scratch/folder/moved/9")" = 9 ] && [ "$(stat -c '%s %a %Y' "$scratch/folder/moved/6")" = "3 640 981173106" ] &&
		[ ! -e "$scratch/folder/moved/5" ] && [ "$(readlink "$scratch/folder/moved/escape")" = /etc/passwd ]
}
works() {
	rm -rf "$scratch/folder"
	mkdir "$scratch/folder"
	well --share "$scratch/folder,tag=shared" "$@" && same_tree
}
guest_with "$scratch/tree.tar"
check "a tree unpacked, and worked in, engine bt, 2 CPUs" works --engine bt --cpus 2
check "the same in virtual time" works --clock virtual
modprobe=force_legacy=1
guest_with "$scratch/tree.tar"
check "the same by the legacy interface" works --engine bt
modprobe=

# Owners, modes and devices of the guest's own, which the host sees as plain files.
script="$mount -o cache=loose shared /mnt
$unpack
chown 1234:567 tree/a/1
chmod 4755 tree/a/1
mknod device c 1 3
ln -s nowhere link
cd /
umount /mnt
mount -t 9p -o trans=virtio,version=9p2000.L shared /mnt
cd /mnt
[ \"\$(stat -c '%u %g %a' tree/a/1)\" = '1234 567 4755' ]
[ \"\$(stat -c '%F %t %T' device)\" = 'character special file 1 3' ]
head -c 1 device >/dev/null
[ \$(readlink link) = nowhere ]
cd /
umount /mnt"
mapped() {
	rm -rf "$scratch/folder"
	mkdir "$scratch/folder"
	well --share "$scratch/folder,tag=shared,security=mapped" &&
		[ "$(stat -c '%a %F' "$scratch/folder/device")" = '600 regular empty file' ] && [ "$(stat -c %a "$scratch/folder/tree/a/1")" = 600 ]
}
guest_with "$scratch/tree.tar"
check "mapped owners, modes and devices; a client that caches" mapped

# Two of them; one may not be written to.
script="$mount tree /mnt
mkdir /other
mount -t 9p -o trans=virtio,version=9p2000.L other /other
[ \$(cat /mnt/a/7 | wc -c) = 1400 ]
if touch /mnt/new 2>/dev/null; then exit 1; fi
if rm /mnt/a/1 2>/dev/null; then exit 1; fi
if chmod 600 /mnt/a/1 2>/dev/null; then exit 1; fi
if mv /mnt/a /mnt/c 2>/dev/null; then exit 1; fi
if dd if=/dev/zero of=/mnt/a/2 conv=notrunc count=1 2>/dev/null; then exit 1; fi
cp /mnt/a/b/large /other
umount /mnt /other"
readonly_too() {
	rm -rf "$scratch/folder"
	mkdir "$scratch/folder"
	well --share "$scratch/tree,readonly" --device "virtio-9p,folder=$scratch/folder,tag=other" && [ "$(sums "$scratch/tree")" = "$sum" ] &&
		cmp "$scratch/tree/a/b/large" "$scratch/folder/large"
}
guest_with
long check "two folders, one of them readonly, engine interp" readonly_too --engine interp

says() {
	! "$doppel" run --kernel "$guest/$kernel/vmlinuz" --share "$1" >"$scratch/says" 2>&1 && grep -qF "$2" "$scratch/says"
}
check "a folder that there is not" says "$scratch/nothing" "share '$scratch/nothing': open the folder: No such file or directory"
check "a file that is no folder" says "$scratch/tree.tar" "Not a directory"
check "security that there is not" says "$scratch,security=full" "expected none or mapped"
finish
