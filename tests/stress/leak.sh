#!/bin/sh
# Thousands of fork and exec in a guest (programs with libraries, at other addresses each time): the monitor's memory, page tables and
# host mappings must stop growing. TAP; what was measured is in comments.
#   STRESS_ROUNDS   of 3 * 100 programs each (40); the first half is to warm up
#   STRESS_CPUS     numbers of CPUs (1 2)
#   STRESS_ARGS     doppel's options (--engine bt)
#   DOPPEL
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
rounds=${STRESS_ROUNDS:-40}
tests/stress/make-root.sh
root=$(tests/stress/make-root.sh --where)

cat >"$scratch/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
round=0
while [ $round -le $stress_rounds ]; do
	n=0
	while [ $n -lt 100 ]; do
		/usr/bin/sort /init | /usr/bin/sha256sum >/dev/null
		/usr/bin/id >/dev/null
		n=$((n + 1))
	done
	round=$((round + 1))
	echo "round $round" # the last one is for the measurement of the one before
done
/bin/busybox poweroff -f
END
chmod 755 "$scratch/init"
(cd "$scratch" && echo init | cpio -o -H newc --quiet --owner=0:0) | cat "$root/root.cpio" - >"$scratch/initrd"

# KiB that are not the guest's RAM; KiB of the host's page tables; host mappings.
measure() {
	own=$(awk '/^[0-9a-f]+-/ { name = $6 } /^Pss:/ && name !~ /guest-ram/ { sum += $2 } END { print sum }' "/proc/$1/smaps" 2>/dev/null)
	tables=$(sed -n 's/^VmPTE:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$1/status" 2>/dev/null)
	[ -z "$own$tables" ] || echo "$own $tables $(wc -l <"/proc/$1/maps")"
}

watch() {
	while IFS= read -r line; do
		case $line in
		round*) measure "$(cat "$scratch/pid")" ;;
		esac
	done
}

# steady FILE COLUMN SLACK: the second half's maximum is at most the first half's and so much more.
steady() {
	awk -v c="$2" -v slack="$3" -v half=$((rounds / 2)) '
	{ if (NR <= half) first = $c > first ? $c : first; else second = $c > second ? $c : second }
	END { print NR " rounds; at most " first ", then " second; exit NR < 2 * half || second > first + slack }' "$1"
}

for cpus in ${STRESS_CPUS:-1 2}; do
	# shellcheck disable=SC2016,SC2086  # the inner shell's; options are words
	sh -c 'echo $$ >"$0"; exec "$@"' "$scratch/pid" "$doppel" run --kernel "$root/vmlinuz" --initrd "$scratch/initrd" --memory 1000M \
		--cpus "$cpus" --append "console=ttyS0 quiet stress_rounds=$rounds" ${STRESS_ARGS:---engine bt} </dev/null |
		watch >"$scratch/measured"
	sed -n '1p;5~5p' "$scratch/measured" | sed 's/^/# KiB, KiB of page tables, mappings: /'
	check "$cpus CPUs: the monitor's memory beside the guest's" steady "$scratch/measured" 1 4096
	check "$cpus CPUs: the host's page tables" steady "$scratch/measured" 2 2048
	check "$cpus CPUs: host mappings" steady "$scratch/measured" 3 500
done
finish
