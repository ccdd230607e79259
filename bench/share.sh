#!/bin/sh
# A folder of the host's over 9p, under doppel and under QEMU's TCG, in rounds, one after the other: seconds that the guest takes to unpack a tree of 3,000 files there, to
# look at each of them as git status does, to read them all, and to remove them.
#
#   bench/share.sh [ROUNDS (3)]
#
# Environment: DOPPEL, CPU (pin to this one; none). Needs qemu-system-x86 and what scripts/get-guest.sh gets.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3}
doppel=${DOPPEL:-build/release/doppel}
guest=$(scripts/get-guest.sh --where)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pin=
[ "${CPU:-none}" = none ] || pin="taskset -c $CPU"

mkdir -p "$work/root" "$work/folder"
for folder in $(seq 50); do
	mkdir -p "$work/tree/$folder"
	for file in $(seq 60); do head -c $((file * 150)) /dev/urandom >"$work/tree/$folder/$file"; done
done
tar -C "$work" -cf "$work/root/tree.tar" tree
cat >"$work/root/run" <<'end'
#!/bin/sh
modprobe virtio_pci
modprobe 9p
modprobe 9pnet_virtio
mkdir /mnt
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 shared /mnt
seconds() { read -r up _ </proc/uptime; echo "$up"; }
timed() {
	name=$1
	shift
	begin=$(seconds)
	"$@" >/dev/null
	echo "9p-figure $name $begin $(seconds)"
}
cd /mnt
timed untar tar -xf /tree.tar
timed status find tree -type f -newer /tree.tar
timed read grep -rc nothing-like-it tree
timed remove rm -rf tree
end
chmod 755 "$work/root/run"
(cd "$work/root" && find . | cpio -o -H newc --quiet --owner=0:0) |
	cat "$guest/generic-modules/modules.cpio" - "$guest/initrd.cpio.gz" >"$work/initrd"

# In what the peer's command prints.
figures() {
	peer=$1
	shift
	# shellcheck disable=SC2086  # a list of words
	timeout 600 $pin "$@" </dev/null | tr -d '\r' |
		awk -v peer="$peer" 'sub(/.*9p-figure /, "") { printf "%s %s %.2f\n", peer, $1, $3 - $2 }' >>"$work/figures"
}

for _ in $(seq "$rounds"); do
	figures doppel "$doppel" run --memory 512M --kernel "$guest/generic/vmlinuz" --initrd "$work/initrd" \
		--append "console=ttyS0 quiet doppel_run=/run" --share "$work/folder,tag=shared"
	figures qemu qemu-system-x86_64 -accel tcg -m 512 -nographic -no-reboot -kernel "$guest/generic/vmlinuz" -initrd "$work/initrd" \
		-append "console=ttyS0 quiet doppel_run=/run" -virtfs "local,path=$work/folder,mount_tag=shared,security_model=none"
done
sort -k2,2 -k1,1 -k3,3n "$work/figures" | awk '
{ value[$1, $2, ++count[$1, $2]] = $3; names[$2] = 1 }
function median(peer, name,   n) { n = count[peer, name]; return value[peer, name, int((n + 1) / 2)] }
END {
	printf "%-10s %10s %10s %10s\n", "", "doppel s", "qemu s", "ratio"
	for (name in names)
		printf "%-10s %10.2f %10.2f %10.2f\n", name, median("doppel", name), median("qemu", name),
			median("doppel", name) / (median("qemu", name) ? median("qemu", name) : 1)
}'
