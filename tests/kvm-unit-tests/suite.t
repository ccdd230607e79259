#!/bin/sh
# scripts/kvm-unit-tests.sh with a suite of our own that has every kind of line and every end; then with kvm-unit-tests, where they are:
#   KVM_UNIT_TESTS (~/.cache/doppel/kvm-unit-tests): its folder, built
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
DOPPEL=${DOPPEL:-build/release/doppel}
export DOPPEL
suite=${KVM_UNIT_TESTS:-$HOME/.cache/doppel/kvm-unit-tests}

mkdir -p "$scratch/suite/x86"
cp "${GUEST_DIR:-build/guest}/kvm-unit-test.flat" "$scratch/suite/x86/one.flat"
echo "ARCH=x86_64" >"$scratch/suite/config.mak"
echo 7 >"$scratch/seven"
cat >"$scratch/suite/x86/unittests.cfg" <<END
# a comment

[passes]
file = one.flat
extra_params = -cpu max,+x2apic -append 'passes'
[fails]
file = one.flat
test_args = fails
groups = bad
[skips]
file = one.flat
test_args = "skips because"
[hangs]
file = one.flat
test_args = hangs
groups = bad other
[environment]
file = one.flat
smp = \$((MAX_SMP / 2))
extra_params = -m 2g -machine kernel_irqchip=split --append "e \`date +%s\`"
[device]
file = one.flat
qemu_params = -append device
[unusual]
file = one.flat
extra_params = -append p -device edu
[i386]
file = one.flat
arch = i386
[host]
file = one.flat
check = $scratch/seven=7 $scratch/seven=8
[here]
file = one.flat
check = $scratch/seven=7
extra_params = -append p
[absent]
file = two.flat
[chosen]
file = one.flat
extra_params = -append p
groups = nodefault
END
# Only what hangs is to find the limit.
sed -i '/^file/a timeout = 200' "$scratch/suite/x86/unittests.cfg"
sed -i '/^\[hangs\]/,/^timeout/s/^timeout.*//' "$scratch/suite/x86/unittests.cfg"
run() { LIMIT=3 scripts/kvm-unit-tests.sh "$@" >"$scratch/tap"; }
# says LINES: the results, in this order.
says() {
	grep -e '^ok' -e '^not ok' -e '^1\.\.' "$scratch/tap" >"$scratch/results"
	printf '%s\n' "$@" | diff - "$scratch/results"
}
all() {
	! run "$scratch/suite" &&
		says "ok 1 - passes" "not ok 2 - fails" "ok 3 - skips # skip " "not ok 4 - hangs" "ok 5 - environment" "ok 6 - device" \
			"ok 7 - unusual # skip doppel has no -device edu" "ok 8 - i386 # skip for i386" \
			"ok 9 - host # skip the host has not $scratch/seven=8" "ok 10 - here" "ok 11 - absent # skip two.flat was not built" "1..11" &&
		grep -q '^# not over after 3 s' "$scratch/tap"
}
named() { run "$scratch/suite/x86" chosen passes && says "ok 1 - passes" "ok 2 - chosen" "1..2"; }
group() { ! run -g bad "$scratch/suite" && says "not ok 1 - fails" "not ok 2 - hangs" "1..2"; }
no_suite() { ! scripts/kvm-unit-tests.sh "$scratch" 2>"$scratch/said" && grep -q "there is no .*unittests.cfg" "$scratch/said"; }

check "every kind of test and every end" all
check "tests by name, those of nodefault too" named
check "a group" group
check "a folder without tests is an error" no_suite
if [ -d "$suite" ]; then
	check "kvm-unit-tests" scripts/kvm-unit-tests.sh "$suite"
else
	skip "kvm-unit-tests" "there are none in $suite"
fi
finish
