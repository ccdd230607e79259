#!/bin/bash
# as-user.sh COMMAND...: runs it as a user without any privilege, in a copy of this tree with what was built in it. doppel's promise is
# that it needs no root: `.ci/run` checks so with `make check`. Who is no root already runs it as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || exec "$@"

user=$(id -u nobody) group=$(id -g nobody)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$folder/tree/build" "$folder/home"
tar -c --exclude=./build --exclude=./.git . | tar -x -C "$folder/tree"
for part in release guest; do
	[ ! -d "build/$part" ] || cp -a "build/$part" "$folder/tree/build"
done
chown -R "$user:$group" "$folder"
cd "$folder/tree"
setpriv --reuid="$user" --regid="$group" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
	env -i PATH="$PATH" HOME="$folder/home" TERM="${TERM:-dumb}" "$@"
