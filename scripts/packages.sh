#!/bin/sh
# Sees to it that the packages of packages.txt are installed: those for everybody, and those of the
# targets given as arguments (test, lint). As root installs what is missing, else prints the one
# line to run.
set -eu
cd "$(dirname "$0")/.."

wanted=$(awk -v targets=" $* " '{ sub(/#.*/, "") } NF == 1 || (NF == 2 && index(targets, " " $2 " ")) { print $1 }' packages.txt)

if ! command -v dpkg-query >/dev/null; then
	echo "packages: this is no Debian system; going on in the hope that what these packages hold is here:" >&2
	echo "$wanted" | sed 's/^/    /' >&2
	exit 0
fi

missing=
for p in $wanted; do
	# There may be a line for each architecture.
	dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "packages: these are missing:$missing" >&2
	echo "packages: run this, then again what you ran:" >&2
	echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
	exit 1
fi
echo "packages: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086  # a list of words
apt-get -qq install -y --no-install-recommends $missing >/dev/null
