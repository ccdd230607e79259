#!/bin/bash
# kvm-unit-tests.sh [-g GROUP] FOLDER [TEST...]: runs the tests of kvm-unit-tests, built for x86 (its folder, or its folder x86), as its
# unittests.cfg says, each in a machine of doppel; results are TAP lines. Tests of group nodefault only when they or it are named.
#
#   DOPPEL          the program (build/release/doppel)
#   DOPPEL_OPTIONS  more of its options, e.g. '--engine interp'
#   LIMIT           seconds that a test may take, unless its timeout says more (120)
#   MAX_SMP         what $MAX_SMP in unittests.cfg means (4)
#
# Of the options for QEMU -append, -m and -smp are translated; -cpu, -enable-kvm and what -machine says of KVM itself are left out: doppel's CPU
# is as like the host's as can be. A test that wants anything else is skipped.
set -uf
group=
while getopts g: option; do
	case $option in
	g) group=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
folder=$1
shift
only=" $* "
here=$(cd "$(dirname "$0")/.." && pwd)
doppel=${DOPPEL:-$here/build/release/doppel}
[ -f "$folder/unittests.cfg" ] || folder=$folder/x86
[ -f "$folder/unittests.cfg" ] || { echo "kvm-unit-tests: there is no $folder/unittests.cfg" >&2; exit 2; }
# What it was built for.
arch=$(sed -n 's/^ARCH=//p' "$folder/../config.mak" 2>/dev/null)
arch=${arch:-x86_64}
MAX_SMP=${MAX_SMP:-4}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
count=0
failures=0

# result WORD [what follows the name]
result() {
	count=$((count + 1))
	echo "$1 $count - $name${2:-}"
}
skip() { result ok " # skip $1"; }

# Options for QEMU into $options; 1, with the reason in $why, for one that doppel does not have. The words are quoted as for a shell.
translate() {
	local words
	options=() memory=
	# The suite's own scripts evaluate them, too: $(...) and `...` are meant.
	eval "words=($1)"
	set -- "${words[@]+"${words[@]}"}"
	while [ $# -gt 0 ]; do
		case $1 in
		-append | --append) options+=(--append "${2-}") ;;
		-m) memory=${2-} ;;
		-smp) smp=${2-} ;;
		-cpu) ;;
		-initrd) options+=(--initrd "${2-}") ;;
		-enable-kvm | -nodefaults | -no-reboot) set -- "$1" "$@" ;;
		-device) [ "${2-}" = pc-testdev ] || { why="-device ${2-}"; return 1; } ;;
		-machine | -M)
			case ${2-} in
			kernel_irqchip=* | accel=* | pc | vmport=off) ;;
			*) why="-machine ${2-}"; return 1 ;;
			esac
			;;
		*) why="$1 ${2-}"; return 1 ;;
		esac
		shift $(($# < 2 ? $# : 2))
	done
}

# Memory as QEMU writes it: megabytes, or with a suffix.
memory_size() {
	case $1 in
	'') echo 128M ;;
	*[kKmMgG]) echo "${1^^}" ;;
	*) echo "${1}M" ;;
	esac
}

# What of the host has to be so: PATH=VALUE ...
host_is_so() {
	for condition in $1; do
		[ "$(cat "${condition%%=*}" 2>/dev/null)" = "${condition#*=}" ] || { why=$condition; return 1; }
	done
}

run() {
	local megabytes size status=0
	size=$(memory_size "$memory")
	megabytes=${size%[KMG]}
	[ "$size" = "${size%G}" ] || megabytes=$((megabytes * 1024))
	printf 'NR_CPUS=%s\nMEMSIZE=%s\nTEST_DEVICE=1\nBOOTLOADER=0\n' "$smp" "$megabytes" >"$scratch/env"
	# shellcheck disable=SC2086 # words
	timeout -k 5 "$1" "$doppel" run --kernel "$folder/$file" --initrd "$scratch/env" --memory "$size" --cpus "$smp" \
		--device pc-testdev --debug-exit ${DOPPEL_OPTIONS:-} "${options[@]+"${options[@]}"}" \
		>"$scratch/out" 2>&1 </dev/null || status=$?
	case $status in
	1) result ok ;;
	155) skip "$(grep -a -m 1 -i '^skip' "$scratch/out" | tr -cd '\40-\176')" ;;
	*)
		failures=$((failures + 1))
		result 'not ok'
		case $status in
		3) grep -a '^FAIL' "$scratch/out" ;;
		124 | 137) echo "not over after $1 s; the last it said:"; tail -n 5 "$scratch/out" ;;
		*) echo "status $status; the last it said:"; tail -n 15 "$scratch/out" ;;
		esac | tr -cd '\11\12\40-\176' | sed 's/^/# /' | head -n 40
		;;
	esac
}

one() {
	local limit=${LIMIT:-120}
	[ -n "$name" ] || return 0
	if [ "$only" = "  " ]; then
		case " $groups " in
		*" nodefault "*) [ "$group" = nodefault ] || return 0 ;;
		esac
		[ -z "$group" ] || case " $groups " in *" $group "*) ;; *) return 0 ;; esac
	else
		case $only in *" $name "*) ;; *) return 0 ;; esac
	fi
	if [ -n "$wanted" ] && [ "$wanted" != "$arch" ]; then
		skip "for $wanted"
	elif ! translate "$parameters"; then
		skip "doppel has no $why"
	elif ! host_is_so "$check"; then
		skip "the host has not $why"
	elif [ ! -f "$folder/$file" ]; then
		skip "$file was not built"
	else
		timeout=${timeout%s}
		[ "${timeout:-0}" -le "$limit" ] || limit=$timeout
		run "$limit"
	fi
}

begin() { name=$1 file='' smp=1 parameters='' wanted='' groups='' timeout='' check='' memory=''; }

begin ''
while IFS= read -r line || [ -n "$line" ]; do
	value=${line#*=}
	value=${value#"${value%%[! ]*}"}
	case $line in
	'#'*) ;;
	'['*']')
		one
		line=${line#[}
		begin "${line%]}"
		;;
	file*=*) file=$value ;;
	smp*=*) eval "smp=$value" ;; # $MAX_SMP, $((...))
	extra_params*=* | qemu_params*=*) parameters="$parameters $value" ;;
	test_args*=*)
		case $value in [\"\']*) ;; *) value=$(printf %q "$value") ;; esac
		parameters="$parameters -append $value"
		;;
	arch*=*) wanted=$value ;;
	groups*=*) groups=$value ;;
	timeout*=*) timeout=$value ;;
	check*=*) check="$check $value" ;;
	esac
done <"$folder/unittests.cfg"
one
echo "1..$count"
[ "$failures" = 0 ]
