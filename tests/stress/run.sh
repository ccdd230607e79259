#!/bin/sh
# `make stress`: a guest of Debian's packages works for minutes and checks its results, with one CPU and with two. A TAP line for
# each item of tests/stress/guest/items.
#   STRESS_ITEMS    names of those to run (default all)
#   STRESS_SECONDS  how long those run that take any time (20)
#   STRESS_CPUS     numbers of CPUs (1 2)
#   STRESS_ARGS     doppel's options (--engine bt)
#   STRESS_LIMIT    seconds until a guest that has not ended is ended (7200)
#   STRESS_LOGS     folder for what the guests print (default: none is kept)
#   DOPPEL, TORTURE
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}
torture=${TORTURE:-build/release/tests/guest-linux/torture}
tests/stress/make-root.sh
root=$(tests/stress/make-root.sh --where)
items=${STRESS_ITEMS:-$(sed -n 's/^\([a-z][a-z-]*\)[[:space:]].*/\1/p' tests/stress/guest/items)}
logs=${STRESS_LOGS:-$scratch}

# What is in the folder is unpacked over the packages' files.
mkdir -p "$scratch/over/stress" "$logs"
cp tests/stress/guest/* "$scratch/over/stress"
cp "$torture" "$scratch/over/stress"
mv "$scratch/over/stress/init" "$scratch/over/init"
chmod -R a+rX "$scratch/over"
(cd "$scratch/over" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --owner=0:0) | cat "$root/root.cpio" - >"$scratch/initrd"

# judge CPUS: reads what the guest prints; a TAP line for each item, with what was said in between if it failed.
judge() {
	said=
	# shellcheck disable=SC2086  # items are words
	set -- "$1" $items kernel
	cpus=$1
	shift
	while IFS= read -r line; do
		said="$said$line
"
		case $line in
		"stress: ${1:-end} ok"*) result ok "$1" ;;
		"stress: ${1:-end} failed"*) result "not ok" "$1" ;;
		*) continue ;;
		esac
		shift
	done
	while [ $# != 0 ]; do
		result "not ok" "$1 (the guest ended before)"
		shift
	done
}
result() {
	tap_count=$((tap_count + 1))
	echo "$1 $tap_count - $2, $cpus CPUs"
	[ "$1" = ok ] || echo "$said" | tail -n 60 | tr -cd '\11\12\40-\176' | sed 's/^/# /'
	said=
}

for cpus in ${STRESS_CPUS:-1 2}; do
	log=$logs/$cpus-cpus.txt
	# shellcheck disable=SC2086  # options and items are words
	timeout "${STRESS_LIMIT:-7200}" "$doppel" run --kernel "$root/vmlinuz" --initrd "$scratch/initrd" --memory 1200M --cpus "$cpus" \
		--append "console=ttyS0 quiet stress_items=$(echo $items | tr ' ' ,) stress_seconds=${STRESS_SECONDS:-20}" \
		${STRESS_ARGS:---engine bt} </dev/null 2>&1 | tee "$log" | judge "$cpus"
	# shellcheck disable=SC2086
	tap_count=$((tap_count + $(echo $items kernel | wc -w)))
done
finish
