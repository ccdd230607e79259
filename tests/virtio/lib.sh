# shellcheck shell=sh disable=SC2034
# What the tests of virtio devices under Linux share; they source it from the top of the tree. A kernel of Debian's ($kernel) with its drivers, and a script in the guest
# that uses them.
. tests/boot/lib.sh

# With modprobe's own parameters in $modprobe, e.g. force_legacy=1.
modprobe=
# -i386: the initial RAM disk of 32-bit kernels.
initrd_of=

# guest_with -|FILE...: what a guest finds in /, besides busybox and the drivers; with it $script, run instead of a shell.
guest_with() {
	rm -rf "$scratch/root"
	mkdir "$scratch/root"
	[ "${*:--}" = - ] || cp "$@" "$scratch/root"
	printf '#!/bin/sh\nset -e\nmodprobe virtio_pci %s\n%s\necho all is "we"ll\n' "$modprobe" "$script" >"$scratch/root/run"
	chmod 755 "$scratch/root/run"
	(cd "$scratch/root" && find . | cpio -o -H newc --quiet --owner=0:0) |
		cat "$guest/$kernel-modules/modules.cpio" - "$guest/initrd$initrd_of.cpio.gz" >"$scratch/initrd"
}

# well [doppel's options]: the guest's script comes to its end, and the kernel has nothing to complain of.
well() {
	boot wait 'all is well' exit 0 absent 'Call Trace' absent 'Oops' absent 'I/O error' -- --initrd "$scratch/initrd" "$@"
}

need_modules() {
	[ -f "$guest/$kernel-modules/modules.cpio" ] && return
	echo "1..0 # SKIP no drivers: run scripts/get-guest.sh"
	exit 0
}
need_modules
append=doppel_run=/run
