# shellcheck shell=sh
# What the shell tests share; they source it. Results are TAP lines, for prove.
#
#   check NAME COMMAND...   runs it; ok when its status is 0, else its output is shown
#   long ...              the same where LONG=1 asks for what takes long and shows little that others do not
#   skip NAME REASON
#   finish                  last line of a test
# A check whose name or words ask for engine bt is skipped where this host's processor cannot run it (doppel doctor).
# A test has a folder of its own, $scratch, removed at its end.
tap_count=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

has_bt() {
	[ -n "${tap_bt:-}" ] || tap_bt=$("${DOPPEL:-build/release/doppel}" doctor 2>/dev/null | grep 'engine bt ' || echo unknown)
	case $tap_bt in
	*"not usable"*) return 1 ;;
	esac
}

check() {
	case " $* " in
	*[!a-z]bt[!a-z]*) has_bt || { skip "$1" "engine bt does not run on this host"; return; } ;;
	esac
	tap_count=$((tap_count + 1))
	tap_name=$1
	shift
	if "$@" >"$scratch/.out" 2>&1; then
		echo "ok $tap_count - $tap_name"
	else
		echo "not ok $tap_count - $tap_name"
		printf "failed: %s\n" "$*" | sed "s/^/# /"
		# Guests clear screens and ask terminals where the cursor is: nothing of that gets out.
		tail -n 40 "$scratch/.out" | tr -cd '\11\12\40-\176' | sed 's/^/# /'
	fi
}

long() { [ -z "${LONG:-}" ] || "$@"; }

skip() {
	tap_count=$((tap_count + 1))
	echo "ok $tap_count - $1 # skip $2"
}

finish() {
	echo "1..$tap_count"
}
