#!/bin/sh
# The same guest and the same program under doppel and, where installed, QEMU's TCG and Bochs, and natively, one after the
# other.
#
#   bench/run.sh [-p PERCENT] [-b NAME,...] [-t SECONDS] [PEER...]
#
# PEER: native doppel qemu bochs (default: all that are there). -p: operations in the guests, in percent of what the host
# does (10). -b: which benchmarks (all). -t: time limit of a guest (900).
# Environment: DOPPEL, DOPPEL_ARGS (more of doppel's options), BUILD, CPU (pin to this one; none).
# Printed: nanoseconds natively, then ratios to that, of CPU time that the monitor used: fair where other work shares the host.
# BOCHS needs an ISO with a fixed command line: grub-pc-bin grub-common xorriso mtools.
# shellcheck disable=SC2046,SC2086  # some variables are lists of words
set -eu
here=$(cd "$(dirname "$0")" && pwd)
percent=10 benches=all limit=900
while getopts p:b:t: option; do
	case $option in
	p) percent=$OPTARG ;;
	b) benches=$OPTARG ;;
	t) limit=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
out=${BUILD:-build}/bench
doppel=${DOPPEL:-build/release/doppel}
mkdir -p "$out"
out=$(cd "$out" && pwd)
pin=
[ "${CPU:-none}" = none ] || pin="taskset -c $CPU"

if [ $# = 0 ]; then
	set -- native doppel
	! command -v qemu-system-x86_64 >/dev/null || set -- "$@" qemu
	if command -v bochs >/dev/null && command -v grub-mkrescue >/dev/null && command -v xorriso >/dev/null; then
		set -- "$@" bochs
	fi
fi

"$here/../scripts/get-guest.sh"
guest=$("$here/../scripts/get-guest.sh" --where)
# -ffp-contract: the same roundings on every CPU model.
gcc -std=gnu17 -O2 -static -ffp-contract=off -fno-math-errno -Wall -Wextra -o "$out/gbench" "$here"/gbench.c \
	"$here/compute.c" "$here/vector.c" "$here/system.c" -lm
gcc -std=gnu17 -O2 -Wall -Wextra -o "$out/vmtime" "$here/vmtime.c"
rm -rf "$out/root"
mkdir -p "$out/root/bin" "$out/root/dev" "$out/root/proc" "$out/root/tmp"
cp "$guest/busybox/busybox" "$out/gbench" "$out/root/bin/"
cp "$here/init" "$out/root/init"
chmod 755 "$out/root/init"
(cd "$out/root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --owner=0:0) | gzip -9n >"$out/initrd.gz"
kernel=$guest/cloud/vmlinuz
words="console=ttyS0 quiet gbench=$benches gscale=$percent"

run_bochs() {
	rm -rf "$out/iso"
	mkdir -p "$out/iso/boot/grub"
	cp "$kernel" "$out/initrd.gz" "$out/iso/boot/"
	printf 'set timeout=0\nmenuentry guest {\n\tlinux /boot/vmlinuz %s\n\tinitrd /boot/initrd.gz\n}\n' "$words" \
		>"$out/iso/boot/grub/grub.cfg"
	grub-mkrescue -o "$out/guest.iso" "$out/iso" >/dev/null 2>&1
	sed "s|ISO|$out/guest.iso|; s|SERIAL|$out/bochs.fifo|" "$here/bochsrc.in" >"$out/bochsrc"
	# Debian's Bochs has its debugger built in: "c" lets it go.
	echo c >"$out/bochs.debugger"
	"$out/vmtime" -t "$limit" -s "$out/bochs.fifo" -- $pin bochs -q -f "$out/bochsrc" -rc "$out/bochs.debugger"
}

failed=0
for peer in "$@"; do
	echo "bench: $peer" >&2
	case $peer in
	native)
		# shellcheck disable=SC2046,SC2086  # lists of words
		"$out/vmtime" -t "$limit" -- $pin sh -c '"$@"; status=$?; echo BENCHMARKS END; exit $status' - "$out/gbench" -m $(echo $benches | tr , ' ')
		;;
	doppel)
		# shellcheck disable=SC2086
		"$out/vmtime" -t "$limit" -- $pin "$doppel" run --kernel "$kernel" --initrd "$out/initrd.gz" --append "$words" \
			--memory 512M --no-reboot ${DOPPEL_ARGS:-}
		;;
	qemu)
		# shellcheck disable=SC2086
		"$out/vmtime" -t "$limit" -- $pin qemu-system-x86_64 -accel tcg -cpu max -m 512 -display none -no-reboot \
			-nodefaults -serial stdio -kernel "$kernel" -initrd "$out/initrd.gz" -append "$words"
		;;
	bochs) run_bochs ;;
	*)
		echo "bench: no such peer: $peer; expected native, doppel, qemu or bochs" >&2
		exit 2
		;;
	esac >"$out/$peer.txt" || { failed=1; echo "bench: $peer did not come to a good end" >&2; grep WRONG "$out/$peer.txt" >&2 || :; }
done

# shellcheck disable=SC2016  # awk's
awk -v peers="$*" '
function geometric(a, b,   k, n, sum) {	# mean of a over b where both are; on a virtual host CPUID is the host above at work
	for (k = 1; k <= names; k++)
		if (name[k] != "cpuid" && (a, name[k]) in cost && (b, name[k]) in cost && cost[a, name[k]] > 0 && cost[b, name[k]] > 0) {
			sum += log(cost[a, name[k]] / cost[b, name[k]])
			n++
		}
	return n ? sprintf("%.2f", exp(sum / n)) : "-"
}
FNR == 1 { peer = FILENAME; sub(/.*\//, "", peer); sub(/\.txt$/, "", peer) }
$1 == "up" { up[peer] = $2; next }
NF == 4 {
	if (!($1 in seen)) { seen[$1] = 1; name[++names] = $1 }
	cost[peer, $1] = peer == "native" ? $2 : $4
}
END {
	n = split(peers, p, " ")
	printf "%-12s%14s", "", "native ns"
	for (i = 1; i <= n; i++) if (p[i] != "native") printf "%10s", p[i]
	print ""
	for (k = 1; k <= names; k++) {
		printf "%-12s%14s", name[k], (("native", name[k]) in cost) ? cost["native", name[k]] : "-"
		for (i = 1; i <= n; i++) if (p[i] != "native")
			printf "%10s", ((p[i], name[k]) in cost && cost["native", name[k]] > 0) ? sprintf("%.2f", cost[p[i], name[k]] / cost["native", name[k]]) : "-"
		print ""
	}
	printf "%-12s%14s", "mean", "geometric"
	for (i = 1; i <= n; i++) if (p[i] != "native") printf "%10s", geometric(p[i], "native")
	print ""
	printf "%-12s%14s", "userspace", "seconds"
	for (i = 1; i <= n; i++) if (p[i] != "native") printf "%10s", p[i] in up ? sprintf("%.2f", up[p[i]]) : "-"
	print ""
	for (i = 1; i <= n; i++)
		if (p[i] != "native" && p[i] != "doppel" && ("doppel" in up)) {
			printf "%s / doppel: mean %s", p[i], geometric(p[i], "doppel")
			if (p[i] in up) printf ", time to userspace %.2f", up[p[i]] / up["doppel"]
			print ""
		}
}' $(for peer in "$@"; do echo "$out/$peer.txt"; done)
exit $failed
