#!/bin/sh
# Makes what `make debian` boots: Debian 12 on a disk, by mmdebstrap from a mirror, without a loop device. As root, or as a user where user
# namespaces may be made.
#
#   get-debian.sh          makes $DOPPEL_CACHE/debian, when not there yet:
#       root.qcow2              its disk, one ext4 file system, with GRUB; who boots it does so through an overlay
#       vmlinuz, initrd.img     its kernel, and Debian's own initial RAM disk with the drivers for that disk
#       key, key.pub            opens root's account over ssh
#       ssh_config              for ssh -F and scp -F: the name `debian' is that account, on the host's port 2222
#       known_hosts             that name's host key
#       packages                what is on it
#   get-debian.sh --where  prints that folder
#
# $DEBIAN_MIRROR is the mirror, deb.debian.org by default; $DOPPEL makes the image. Remove the folder to have it made anew.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$("$here/get-guest.sh" --where)
if [ "${1:-}" = --where ]; then
	echo "$cache/debian"
	exit
fi
[ ! -e "$cache/debian" ] || exit 0

say() { echo "get-debian: $*" >&2; }

# In a namespace of its own a user is root, and has the ids that /etc/subuid and /etc/subgid give him.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		unshare --map-root-user --map-auto "$@"
	fi
}
if ! as_root true; then
	say "a user can make this only in a user namespace (see above): newuidmap of the package uidmap, a line for you in /etc/subuid and in"
	say "/etc/subgid, and a kernel that allows it (sysctl kernel.unprivileged_userns_clone) are needed. Else run this as root, and copy $cache/debian."
	exit 1
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/.new-debian.XXXXXX")
trap 'as_root rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work/out" "$work/root"
ssh-keygen -q -t ed25519 -N '' -C doppel -f "$work/out/key"

cat >"$work/out/ssh_config" <<CONFIG
Host debian
	HostName 127.0.0.1
	HostKeyAlias debian
	Port 2222
	User root
	IdentityFile "$cache/debian/key"
	IdentitiesOnly yes
	UserKnownHostsFile "$cache/debian/known_hosts"
	StrictHostKeyChecking yes
CONFIG

# Written into the new system before it is packed; $1 is its root. An empty machine-id is filled when it boots.
cat >"$work/setup" <<'SETUP'
set -eu
cd "$1"
echo debian >etc/hostname
echo '127.0.0.1 localhost debian' >etc/hosts
echo '/dev/vda / ext4 errors=remount-ro 0 1' >etc/fstab
printf '[Match]\nType=ether\n[Network]\nDHCP=yes\n' >etc/systemd/network/ether.network
: >etc/machine-id
# On a busy host a start takes longer than systemd's 90 s.
mkdir -p etc/systemd/system.conf.d
printf '[Manager]\nDefaultTimeoutStartSec=15min\nDefaultDeviceTimeoutSec=15min\n' >etc/systemd/system.conf.d/timeouts.conf
mkdir -m 700 -p root/.ssh
printf 'MODULES=list\nFSTYPE=ext4\nCOMPRESS=gzip\n' >etc/initramfs-tools/conf.d/disk
printf 'virtio_pci\nvirtio_blk\next4\n' >>etc/initramfs-tools/modules
chroot . sh -c 'update-initramfs -u
	systemctl -q enable systemd-networkd systemd-resolved
	systemctl -q disable apt-daily.timer apt-daily-upgrade.timer
	passwd -qd root
	apt-get clean'
SETUP

packages=systemd,systemd-sysv,systemd-resolved,udev,dbus,libpam-systemd,kmod,e2fsprogs,fdisk,initramfs-tools,linux-image-cloud-amd64
packages=$packages,openssh-server,iproute2,iputils-ping,ca-certificates,procps,less,nano,fio,iperf3
say "Debian 12 from ${DEBIAN_MIRROR:-deb.debian.org}: minutes"
# mmdebstrap's users have other ids than the owner of $work: it is given what it reads and its output.
mmdebstrap --quiet --variant=apt --architectures=amd64 --include="$packages" \
	--customize-hook="upload '$work/setup' /setup" --customize-hook='sh "$1/setup" "$1" && rm "$1/setup"' \
	--customize-hook="upload '$work/out/key.pub' /root/.ssh/authorized_keys" \
	bookworm - ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$work/root.tar"

say "its disk"
# shellcheck disable=SC2016 # for the shell inside
as_root sh -euc 'cd "$1"
	PATH=$PATH:/usr/sbin:/sbin
	tar -x --numeric-owner --xattrs --xattrs-include="*" --exclude="./dev/*" -f root.tar -C root
	cp root/boot/vmlinuz-* out/vmlinuz
	cp root/boot/initrd.img-* out/initrd.img
	dpkg-query --admindir=root/var/lib/dpkg -W >out/packages
	sed "s/^/debian /" root/etc/ssh/ssh_host_ed25519_key.pub >out/known_hosts
	mkdir -p root/boot/grub
	for kernel in root/boot/vmlinuz-*; do
		printf "serial\nterminal_input serial\nterminal_output serial\nset timeout=1\nmenuentry Debian {\n\tlinux %s %s\n\tinitrd %s\n}\n" \
			"${kernel#root}" "root=/dev/vda console=ttyS0" "/boot/initrd.img-${kernel#root/boot/vmlinuz-}"
	done >root/boot/grub/grub.cfg
	"$2" -w root.raw 8192 root -L debian' sh "$work" "$here/make-disk.sh"
"${DOPPEL:-doppel}" image convert --quiet -f raw -O qcow2 "$work/root.raw" "$work/out/root.qcow2"
chmod 755 "$work/out"
mv -T "$work/out" "$cache/debian"
say "made: $cache/debian"
