#!/bin/sh
# The same guest and the same program under doppel and, where installed, QEMU's TCG, and natively: in rounds, one after the other, so
# that what disturbs the host disturbs all.
#
#   bench/run.sh [-n ROUNDS] [-p PERCENT] [-b NAME,...] [-t SECONDS] [-3] [PEER...]
#
# PEER: native doppel qemu interp bochs (default: native, doppel, and qemu where it is). interp is doppel's interpreter. native32, doppel32,
# qemu32 and interp32 are the same with Debian's 32-bit kernel and the program compiled for it; -3: the default ones' too. -n: rounds (3).
# -p: operations in the guests, in percent of what the host does (10). -b: which benchmarks (all). -t: time limit of a guest (900).
# Environment: DOPPEL, DOPPEL_ARGS (more of doppel's options), BUILD, CPU (pin to this one; none).
# What is printed, and what it is compared with: bench/report.awk. Each peer's figures of each round stay in $BUILD/bench.
# BOCHS needs an ISO with a fixed command line: grub-pc-bin grub-common xorriso mtools. The 32-bit program needs gcc-multilib.
# shellcheck disable=SC2046,SC2086  # some variables are lists of words
set -eu
here=$(cd "$(dirname "$0")" && pwd)
percent=10 benches=all limit=900 rounds=3 both=
while getopts n:p:b:t:3 option; do
	case $option in
	n) rounds=$OPTARG ;;
	p) percent=$OPTARG ;;
	b) benches=$OPTARG ;;
	t) limit=$OPTARG ;;
	3) both=1 ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
out=${BUILD:-build}/bench
doppel=${DOPPEL:-build/release/doppel}
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -f "$out"/*.txt
pin=
[ "${CPU:-none}" = none ] || pin="taskset -c $CPU"
memory=512
# The parallel work takes a second at 100 %, which is enough.
case $percent in
0*) pair_percent=$percent ;;
*) pair_percent=100 ;;
esac

if [ $# = 0 ]; then
	set -- native doppel
	! command -v qemu-system-x86_64 >/dev/null || set -- "$@" qemu
	[ -z "$both" ] || set -- "$@" $(for peer in "$@"; do echo "${peer}32"; done)
fi

# make_guest WIDTH KERNEL BUSYBOX [COMPILER'S OPTION...]: gbench, and $out/guestWIDTH with the kernel and an initramfs.
make_guest() {
	guest=$out/guest$1 kernel=$2 busybox=$3
	shift 3
	rm -rf "$guest"
	mkdir -p "$guest/root/bin" "$guest/root/dev" "$guest/root/proc" "$guest/root/tmp"
	# -ffp-contract: the same roundings on every CPU model.
	gcc -std=gnu17 -O2 -static -pthread -ffp-contract=off -fno-math-errno -Wall -Wextra "$@" -o "$guest/gbench" "$here/gbench.c" \
		"$here/compute.c" "$here/vector.c" "$here/system.c" -lm
	cp "$cache/$busybox/busybox" "$guest/gbench" "$guest/root/bin/"
	cp "$here/init" "$guest/root/init"
	chmod 755 "$guest/root/init"
	(cd "$guest/root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --owner=0:0) | gzip -9n >"$guest/initrd.gz"
	cp "$cache/$kernel/vmlinuz" "$guest/vmlinuz"
}

get=$here/../scripts/get-guest.sh
cache=$("$get" --where)
gcc -std=gnu17 -O2 -Wall -Wextra -o "$out/vmtime" "$here/vmtime.c"
case " $* " in
*32\ *)
	"$get" --test
	make_guest 32 686-pae busybox-i386 -m32 -march=pentium4 -mfpmath=sse
	;;
*) "$get" ;;
esac
make_guest 64 cloud busybox
gcc -m32 -c -o "$out/real.o" "$here/real.S"
ld -m elf_i386 -T "$here/real.ld" -z max-page-size=4096 -z noexecstack --build-id=none --no-warn-rwx-segments \
	-o "$out/real.elf" "$out/real.o"

run_doppel() { # ENGINE CPUS WORDS
	"$out/vmtime" -t "$limit" -g $memory -- $pin "$doppel" run --engine "$1" --kernel "$guest/vmlinuz" --initrd "$guest/initrd.gz" \
		--append "console=ttyS0 quiet $3" --memory ${memory}M --cpus "$2" --no-reboot ${DOPPEL_ARGS:-}
}

run_qemu() { # CPUS WORDS
	"$out/vmtime" -t "$limit" -g $memory -- $pin qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m $memory -smp "$1" \
		-display none -no-reboot -nodefaults -serial stdio -kernel "$guest/vmlinuz" -initrd "$guest/initrd.gz" \
		-append "console=ttyS0 quiet $2"
}

run_native() { # ARGUMENTS OF GBENCH
	"$out/vmtime" -t "$limit" -- $pin sh -c '"$@"; status=$?; echo BENCHMARKS END; exit $status' - "$guest/gbench" -m "$@"
}

run_bochs() { # WORDS
	rm -rf "$out/iso"
	mkdir -p "$out/iso/boot/grub"
	cp "$guest/vmlinuz" "$guest/initrd.gz" "$out/iso/boot/"
	printf 'set timeout=0\nmenuentry guest {\n\tlinux /boot/vmlinuz %s\n\tinitrd /boot/initrd.gz\n}\n' \
		"console=ttyS0 quiet $1" >"$out/iso/boot/grub/grub.cfg"
	grub-mkrescue -o "$out/guest.iso" "$out/iso" >/dev/null 2>&1
	sed "s|ISO|$out/guest.iso|; s|SERIAL|$out/bochs.fifo|" "$here/bochsrc.in" >"$out/bochsrc"
	# Debian's Bochs has its debugger built in: "c" lets it go.
	echo c >"$out/bochs.debugger"
	"$out/vmtime" -t "$limit" -s "$out/bochs.fifo" -- $pin bochs -q -f "$out/bochsrc" -rc "$out/bochs.debugger"
}

# What a peer runs: its name without the width.
choose_guest() {
	case $1 in
	*32) guest=$out/guest32 ;;
	*) guest=$out/guest64 ;;
	esac
}

# run_peer PEER: one CPU, all of the benchmarks.
run_peer() {
	choose_guest "$1"
	case ${1%32} in
	native) run_native $(echo $benches | tr , ' ') ;;
	doppel) run_doppel auto 1 "gbench=$benches gscale=$percent" ;;
	interp) run_doppel interp 1 "gbench=$benches gscale=$percent" ;;
	qemu) run_qemu 1 "gbench=$benches gscale=$percent" ;;
	bochs) run_bochs "gbench=$benches gscale=$percent" ;;
	*)
		echo "bench: no such peer: $1; expected native, doppel, qemu, interp, each also with 32 behind it, or bochs" >&2
		return 2
		;;
	esac
}

# run_pair PEER: two CPUs, the parallel work by one thread and by two. Nothing for those without.
run_pair() {
	choose_guest "$1"
	case ${1%32} in
	native) run_native -p $pair_percent -j 1 && run_native -p $pair_percent -j 2 ;;
	doppel) run_doppel auto 2 "gthreads=1,2 gscale=$pair_percent" ;;
	qemu) run_qemu 2 "gthreads=1,2 gscale=$pair_percent" ;;
	esac
}

# run_real PEER: loops of real-mode code. Nothing for those without.
run_real() {
	case $1 in
	doppel | interp)
		engine=$1
		[ "$1" = interp ] || engine=auto
		"$out/vmtime" -t "$limit" -- $pin "$doppel" run --engine $engine --kernel "$out/real.elf" --memory 64M --serial null \
			--debug-console stdio --debug-exit
		;;
	qemu)
		"$out/vmtime" -t "$limit" -- $pin qemu-system-x86_64 -accel tcg -cpu max -m 64 -display none -no-reboot -nodefaults \
			-kernel "$out/real.elf" -debugcon stdio -device isa-debug-exit,iobase=0xf4,iosize=1
		;;
	esac
}

failed=0
complain() {
	failed=1
	echo "bench: $1 did not come to a good end" >&2
	grep WRONG "$2" >&2 || :
}
round=1
while [ "$round" -le "$rounds" ]; do
	for peer in "$@"; do
		echo "bench: round $round of $rounds: $peer" >&2
		run_peer "$peer" >"$out/$peer.$round.txt" || complain "$peer" "$out/$peer.$round.txt"
		[ "$benches" != all ] || run_pair "$peer" >>"$out/$peer.$round.txt" || complain "$peer" "$out/$peer.$round.txt"
		[ "$benches" != all ] || run_real "$peer" >>"$out/$peer.$round.txt" || complain "$peer" "$out/$peer.$round.txt"
	done
	round=$((round + 1))
done
"$out/guest64/gbench" list | awk -v peers="$*" -f "$here/report.awk" - $(for peer in "$@"; do echo "$out/$peer".*.txt; done)
exit $failed
