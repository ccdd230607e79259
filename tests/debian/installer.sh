#!/bin/sh
# Debian's installer (package debian-installer-12-netboot-amd64), started by its kernel and initial RAM disk, gets its parts over doppel's network and comes to its partitioner, which shows
# the disk. Parts that the mirror does not have any more are made from what it has (libparted) or stand in for it in a few lines (below); what runs is the installer's own.
#
#	installer.sh [doppel's options]
#
# $DEBIAN_MIRROR is the mirror, deb.debian.org by default.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
machine='' server=''
trap 'for pid in $machine $server; do kill "$pid"; done; rm -rf "$scratch"' EXIT
for program in wget apt-get dpkg-deb python3 cpio xz; do
	command -v "$program" >/dev/null || { echo "1..0 # SKIP no $program"; exit 0; }
done

here=$scratch/mirror
index=dists/bookworm/main/debian-installer/binary-amd64
mkdir -p "$here/$index" "$here/pool" "$scratch/package"

fetch() {
	(cd "$scratch" && apt-get download -q debian-installer-12-netboot-amd64 libparted2 libparted-fs-resize0 libdevmapper1.02.1 libblkid1 libuuid1 libselinux1) >/dev/null 2>&1
	dpkg-deb -x "$scratch"/debian-installer-12-netboot-amd64_*.deb "$scratch/package" 2>/dev/null
	images=$scratch/package/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64
	[ -f "$images/linux" ] && wget -q -O "$scratch/all.xz" "$mirror/$index/Packages.xz" && xz -d "$scratch/all.xz"
}
if ! fetch; then
	echo "1..0 # SKIP no installer, or no list of its parts, at $mirror"
	exit 0
fi

# made NAME [WHAT ELSE IT IS]: a part that stands in for one; its files go to $root.
made() {
	root=$scratch/made/$1
	mkdir -p "$root/DEBIAN"
	printf 'Package: %s\nVersion: 99\nArchitecture: amd64\nMaintainer: doppel\nSection: debian-installer\nPriority: standard\nDescription: stands in\n' "$1" >"$root/DEBIAN/control"
	[ -z "${2:-}" ] || echo "Provides: $2" >>"$root/DEBIAN/control"
}
script() {
	mkdir -p "$(dirname "$1")"
	cat >"$1"
	chmod 755 "$1"
}
made partman-utils
script "$root/bin/parted_devices" <<'END'
#!/bin/sh
for disk in /sys/block/[hsv]d* /sys/block/nvme*; do
	[ ! -e "$disk/size" ] || printf '/dev/%s\t%s\t%s\n' "${disk##*/}" "$(($(cat "$disk/size") * 512))" "Disk ${disk##*/}"
done
END
made di-utils-mapdevfs
script "$root/usr/bin/mapdevfs" <<'END'
#!/bin/sh
readlink -f "$1"
END
made disk-detect harddrive-detection
script "$root/DEBIAN/postinst" <<'END'
#!/bin/sh
depmod
for driver in virtio_blk virtio_scsi sd_mod ahci ata_piix nvme; do modprobe $driver; done
udevadm settle
END
for name in partman-partitioning partman-target libparted-fs-resize0-udeb; do made $name; done
made libparted2-udeb
for deb in "$scratch"/lib*.deb; do dpkg-deb -x "$deb" "$root"; done
rm -rf "${root:?}/usr/share"
for root in "$scratch"/made/*; do dpkg-deb --build "$root" "$here/pool" >/dev/null; done

# The installer's own, as the mirror lists them: the partitioner, the disks' drivers for its kernel.
kernel_version=$(strings "$images/linux" | sed -n 's/^\(6\.1\.[0-9-]*-amd64\) (.*/\1/p' | head -n 1)
for name in partman-base "scsi-core-modules-$kernel_version-di" "scsi-modules-$kernel_version-di" "ata-modules-$kernel_version-di" "sata-modules-$kernel_version-di" \
	"cdrom-core-modules-$kernel_version-di"; do
	awk -v RS= -v name="$name" 'index($0, "Package: " name "\n") == 1 { print $0 "\n" }' "$scratch/all" >"$scratch/one"
	file=$(sed -n 's/^Filename: //p' "$scratch/one" | tail -n 1)
	wget -q -P "$here/pool" "$mirror/$file" || echo "# no $name"
done
(cd "$here" && for udeb in pool/*; do
	case $udeb in
	*.deb) mv "$udeb" "${udeb%.deb}.udeb"; udeb=${udeb%.deb}.udeb ;;
	esac
	dpkg-deb -f "$udeb"
	echo "Filename: $udeb"
	echo "Size: $(stat -c %s "$udeb")"
	echo "MD5sum: $(md5sum <"$udeb" | cut -d' ' -f1)"
	echo "SHA256: $(sha256sum <"$udeb" | cut -d' ' -f1)"
	echo
done >$index/Packages)
gzip -k "$here/$index/Packages"
(
	printf 'Suite: bookworm\nCodename: bookworm\nArchitectures: amd64\nComponents: main\nSHA256:\n'
	cd "$here/dists/bookworm" && for file in main/debian-installer/binary-amd64/*; do
		echo " $(sha256sum <"$file" | cut -d' ' -f1) $(stat -c %s "$file") $file"
	done
) >"$here/dists/bookworm/Release"
mkdir "$here/dists/bookworm/main/binary-amd64"
echo 'Architecture: amd64' >"$here/dists/bookworm/main/binary-amd64/Release"
mkdir "$scratch/www"
mv "$here" "$scratch/www/debian"

python3 -u -m http.server --bind 127.0.0.1 --directory "$scratch/www" 0 >"$scratch/http" 2>"$scratch/asked" &
server=$!
until port=$(sed -n 's/^Serving.* port \([0-9]*\) .*/\1/p' "$scratch/http") && [ -n "$port" ]; do
	kill -0 $server || exit 1
	sleep 0.1
done

installs() {
	truncate -s 2G "$scratch/disk"
	"$expect" -t "${BOOT_LIMIT:-1200}" wait "Partition disks" wait 'Virtual disk 1 (vda) - 2.1 GB' signal 15 exit 143 absent 'Call Trace' -- "$doppel" run --kernel "$images/linux" --initrd "$images/initrd.gz" \
		--append "console=ttyS0 DEBIAN_FRONTEND=text priority=critical locale=en_US.UTF-8 keymap=us hostname=guest domain=local mirror/country=manual mirror/protocol=http \
mirror/http/hostname=10.0.2.2:$port mirror/http/directory=/debian mirror/http/proxy= mirror/suite=bookworm mirror/udeb/suite=bookworm debian-installer/allow_unauthenticated=true netcfg/dhcp_timeout=60" \
		--memory 1G --disk "$scratch/disk,format=raw" --net user "$@"
	status=$?
	cat "$scratch/asked"
	return $status
}
check "the installer comes to its partitioner" installs "$@"
finish
