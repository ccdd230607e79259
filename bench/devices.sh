#!/bin/bash
# Disks and network of a whole Debian (scripts/get-debian.sh) under doppel and QEMU's TCG, in rounds one after the other: medians and ratios.
#
#   bench/devices.sh [-n ROUNDS] [-s SECONDS] [-w disks|network]
#
# -n: rounds (3), -s: seconds of each measurement (5), -w: only these (both). Environment: DOPPEL, BUILD, DOPPEL_ARGS. Each figure of each round stays in
# $BUILD/bench/devices.txt: PEER ROW VALUE. Needs qemu-system-x86, iperf3 and python3.
# Both have one processor, 1 GiB, a random number generator, the same kernel and images, and the user network, which both do by libslirp. QEMU's
# virtio devices are served in the processor's thread (ioeventfd=off), which is its fastest.
#
#   boot         s from the start to "login:", by the host's clock
#   read1 ...    fio's IOPS: 4 KiB at random, queue depth 1 and 32, O_DIRECT in the guest, a raw file in the host's page cache
#   seq_...      MB/s of 1 MiB at queue depth 4, with the host's page cache, and past it (cache=none)
#   raw_new      MB/s of 1 MiB written to a raw file that is all a hole: what allocation costs the host
#   qcow_new, qcow_old  the same to a new qcow2 image, and again to what it has
#   up, down     Mbit/s of TCP, guest to host and host to guest
#   ping         us, round trip to 10.0.2.2, mean
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=3 seconds=5 what='disks network'
while getopts n:s:w: option; do
	case $option in
	n) rounds=$OPTARG ;;
	s) seconds=$OPTARG ;;
	w) what=$OPTARG ;;
	*) exit 2 ;;
	esac
done
for program in qemu-system-x86_64 iperf3 python3 ssh; do
	command -v "$program" >/dev/null || { echo "bench: no $program" >&2; exit 1; }
done
doppel=${DOPPEL:-build/release/doppel}
debian=$(scripts/get-debian.sh --where)
out=${BUILD:-build}/bench
mkdir -p "$out"
figures=$out/devices.txt
: >"$figures"
scratch=$(mktemp -d)
machine='' server=''
trap 'kill $machine $server 2>/dev/null || true; rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
in_debian() { ssh -F "$debian/ssh_config" -p "$port" -o ConnectTimeout=300 -o LogLevel=ERROR debian "$@"; }

# vda is the system, vdb raw through the page cache, vdc raw past it, vdd qcow2, vde raw and empty.
append="console=ttyS0 quiet root=/dev/vda"
start_doppel() {
	# shellcheck disable=SC2086 # words
	exec "$doppel" run --kernel "$debian/vmlinuz" --initrd "$debian/initrd.img" --append "$append" --memory 1G --rng \
		--disk "$scratch/root,backing=any" --disk "$scratch/raw,format=raw" --disk "$scratch/raw2,format=raw,cache=none" \
		--disk "$scratch/qcow2" --disk "$scratch/hole,format=raw" --net "user,forward=tcp:127.0.0.1:$port-:22" ${DOPPEL_ARGS:-}
}
start_qemu() {
	local drives=()
	add_drive() { drives+=(-drive "file=$scratch/$1,id=$1,if=none,$2" -device "virtio-blk-pci,drive=$1,ioeventfd=off"); }
	add_drive root format=qcow2
	add_drive raw format=raw
	add_drive raw2 format=raw,cache=none
	add_drive qcow2 format=qcow2
	add_drive hole format=raw
	exec qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 1G -nodefaults -display none -serial stdio -no-reboot \
		-kernel "$debian/vmlinuz" -initrd "$debian/initrd.img" -append "$append" -device virtio-rng-pci "${drives[@]}" \
		-netdev "user,id=n,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-pci,netdev=n,ioeventfd=off
}

new_disks() {
	rm -f "$scratch"/{root,raw,raw2,qcow2,hole}
	"$doppel" image create --quiet --backing any -f qcow2 -b "$debian/root.qcow2" -F qcow2 "$scratch/root"
	"$doppel" image create --quiet -f qcow2 "$scratch/qcow2" 1G
	truncate -s 1G "$scratch/hole"
	head -c 512M /dev/urandom >"$scratch/raw"
	cp "$scratch/raw" "$scratch/raw2"
	sync "$scratch/raw" "$scratch/raw2"
	# A virtual host gets memory when it uses it first, which takes longer than all else that is measured: it has it from here on.
	head -c 1536M /dev/zero >"$scratch/warm"
	rm "$scratch/warm"
}

figure() { echo "$peer $1 $2" | tee -a "$figures" >&2; }
now() { date +%s.%N; }

# fio_row ROW DISK RW BLOCK DEPTH WHAT [OPTION...]: WHAT is iops, or bw in MB/s.
fio_row() {
	local row=$1 disk=$2 rw=$3 block=$4 depth=$5 what=$6
	shift 6
	figure "$row" "$(in_debian "fio --name=x --filename=/dev/$disk --rw=$rw --bs=$block --iodepth=$depth --ioengine=libaio --direct=1 \
		--size=512M --output-format=json $*" | python3 -c '
import json, sys
text = sys.stdin.read()
job = json.loads(text[text.index("{"):])["jobs"][0]
side = job["write" if "write" in sys.argv[1] else "read"]
print(round(side["iops"] if sys.argv[2] == "iops" else side["bw_bytes"] / 1e6, 1))' "$rw" "$what")"
}
timed() { fio_row "$@" --time_based --runtime="$seconds"; }

measure_disks() {
	timed read1 vdb randread 4k 1 iops
	timed write1 vdb randwrite 4k 1 iops
	timed read32 vdb randread 4k 32 iops
	timed write32 vdb randwrite 4k 32 iops
	timed seq_read vdb read 1M 4 bw
	timed seq_write vdb write 1M 4 bw
	timed seq_read_none vdc read 1M 4 bw
	timed seq_write_none vdc write 1M 4 bw
	fio_row raw_new vde write 1M 4 bw
	fio_row qcow_new vdd write 1M 4 bw
	fio_row qcow_old vdd write 1M 4 bw
}

iperf() { # ROW OPTION...
	local row=$1
	shift
	figure "$row" "$(in_debian "iperf3 -J -c 10.0.2.2 -p $iperf_port -t $seconds $*" |
		python3 -c 'import json, sys; print(round(json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"] / 1e6, 1))')"
}
measure_network() {
	iperf_port=$(free_port)
	iperf3 -s -B 127.0.0.1 -p "$iperf_port" >/dev/null 2>&1 &
	server=$!
	iperf up
	iperf down -R
	kill "$server"
	wait "$server" || true
	server=
	figure ping "$(in_debian 'ping -q -c 200 -i 0.01 10.0.2.2' | sed -n 's|^rtt[^=]*= [^/]*/\([^/]*\)/.*|\1|p' | awk '{ print $1 * 1000 }')"
}

# boots: from the start to the login on its console.
boots() {
	local begin text
	port=$(free_port)
	mkfifo "$scratch/console"
	begin=$(now)
	"start_$peer" </dev/null >"$scratch/console" 2>&1 &
	machine=$!
	exec 3<"$scratch/console"
	rm "$scratch/console"
	# A prompt has no newline.
	text=
	until [[ $text == *'debian login' ]]; do
		IFS= read -r -d : text <&3 || { echo "bench: $peer ended without a login" >&2; exit 1; }
	done
	figure boot "$(awk -v a="$begin" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }')"
	cat <&3 >/dev/null &
	exec 3<&-
	until in_debian 'systemctl is-system-running --wait >/dev/null'; do kill -0 "$machine" || exit 1; done
}

for ((n = 0; n < rounds; n++)); do
	for peer in doppel qemu; do
		new_disks
		boots
		[[ $what != *disks* ]] || measure_disks
		[[ $what != *network* ]] || measure_network
		in_debian 'systemctl poweroff' || true
		wait "$machine"
		machine=
	done
done

python3 - "$figures" <<'REPORT'
import statistics, sys
figures = {}
for line in open(sys.argv[1]):
	peer, row, value = line.split()
	figures.setdefault(row, {}).setdefault(peer, []).append(float(value))
print(f"{'':16}{'doppel':>12}{'qemu':>12}  doppel/qemu")
for row, peers in figures.items():
	a, b = (statistics.median(peers[peer]) for peer in ("doppel", "qemu"))
	print(f"{row:16}{a:12.1f}{b:12.1f}{a / b if b else 0:12.2f}")
if "qcow_new" not in figures:
	sys.exit()
new, old = (statistics.median(figures[row]["doppel"]) for row in ("qcow_new", "qcow_old"))
raw, hole = (statistics.median(figures[row]["doppel"]) for row in ("seq_write", "raw_new"))
print(f"\nqcow2 / raw, both with allocation {new / hole:.2f}, both without {old / raw:.2f}; qcow2 with / raw without {new / raw:.2f}")
REPORT
