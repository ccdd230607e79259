#!/bin/sh
# scripts/packages.sh reads packages.txt rightly and never installs what is not asked for.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh

# A copy of the tree's part that matters, with package tools that only say what they are asked.
mkdir -p "$scratch/tree/scripts" "$scratch/bin"
cp scripts/packages.sh "$scratch/tree/scripts/"
printf '# a comment\n\nhere\nhalf # not quite\nforeign\nprober\ttest\n' >"$scratch/tree/packages.txt"
cat >"$scratch/bin/dpkg-query" <<'END'
#!/bin/sh
for p; do :; done
case $p in
here) echo installed ;;
half) echo half-installed ;;
foreign) printf 'not-installed\ninstalled\n' ;;
*) exit 1 ;;
esac
END
printf '#!/bin/sh\necho "${UID_FOR_TEST:-1000}"\n' >"$scratch/bin/id"
printf '#!/bin/sh\necho "apt-get $*" >>"%s/asked"\n' "$scratch" >"$scratch/bin/apt-get"
chmod +x "$scratch"/bin/*
packages() { PATH="$scratch/bin:$PATH" "$scratch/tree/scripts/packages.sh" "$@"; }

user_is_told() {
	! packages >"$scratch/said" 2>&1 && cat "$scratch/said" &&
		grep -q 'apt-get install .* half$' "$scratch/said" && [ ! -e "$scratch/asked" ]
}
check "a user is told what to run, and that it stopped" user_is_told
target_packages() { ! packages test >"$scratch/said" 2>&1 && cat "$scratch/said" && grep -q 'apt-get install .* half prober$' "$scratch/said"; }
check "a target's own packages come with the target" target_packages
root_installs() { UID_FOR_TEST=0 packages && cat "$scratch/asked" && grep -q '^apt-get -qq install .* half$' "$scratch/asked"; }
check "root gets what is missing" root_installs
nothing_missing() { echo here >"$scratch/tree/packages.txt"; rm -f "$scratch/asked"; UID_FOR_TEST=0 packages && [ ! -e "$scratch/asked" ]; }
check "nothing is done when nothing is missing" nothing_missing
finish
