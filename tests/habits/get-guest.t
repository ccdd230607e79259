#!/bin/sh
# scripts/get-guest.sh where the packages' index is in the middle of an update: tried again, then a failure that says what is not there.
# apt and dpkg are played by scripts: `fails` holds how many downloads fail before one works.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
mkdir "$scratch/bin" "$scratch/cache"

cat >"$scratch/bin/apt-get" <<'END'
#!/bin/sh
case "$*" in
*update*) echo "$*" >>"$SCRATCH/updates" ;;
*download*)
	left=$(cat "$SCRATCH/fails")
	echo $((left - 1)) >"$SCRATCH/fails"
	[ "$left" -le 0 ] && echo deb >package.deb
	;;
esac
END
cat >"$scratch/bin/dpkg-deb" <<'END'
#!/bin/sh
mkdir -p "$3/boot" "$3/bin" "$3/lib/modules/1/kernel"
echo kernel >"$3/boot/vmlinuz-1"
echo module >"$3/lib/modules/1/kernel/virtio_pci.ko"
echo kernel/virtio_pci.ko: >"$3/lib/modules/1/modules.dep"
printf '#!/bin/sh\nexit 0\n' >"$3/bin/busybox"
chmod +x "$3/bin/busybox"
END
printf '#!/bin/sh\nexit 0\n' >"$scratch/bin/apt-cache"
printf '#!/bin/sh\necho "$1" >>"$SCRATCH/pauses"\n' >"$scratch/bin/sleep"
printf '#!/bin/sh\necho 0\n' >"$scratch/bin/id"
chmod +x "$scratch"/bin/*

# get FAILS [argument]: with a cache that is empty.
get() {
	rm -rf "$scratch/cache" "$scratch/updates" "$scratch/pauses"
	echo "$1" >"$scratch/fails"
	shift
	get_more "$@"
}
get_more() { PATH="$scratch/bin:$PATH" SCRATCH=$scratch DOPPEL_CACHE=$scratch/cache scripts/get-guest.sh "$@"; }
tried_again() {
	get 2 && [ "$(wc -l <"$scratch/updates")" = 2 ] && [ "$(wc -l <"$scratch/pauses")" = 2 ] && [ -s "$scratch/cache/initrd.cpio.gz" ] &&
		cpio -it <"$scratch/cache/cloud-modules/modules.cpio" 2>/dev/null | grep -q '^lib/modules/1/kernel/virtio_pci.ko$'
}
given_up() { ! get 100 && [ "$(wc -l <"$scratch/pauses")" = 3 ] && [ ! -e "$scratch/cache/cloud" ]; }
said() { get 0 && ! DOPPEL_CACHE=$scratch/cache scripts/get-guest.sh --missing 2>"$scratch/said" && grep -q 'xen/xen.* 686-pae/vmlinuz' "$scratch/said"; }

other_list() {
	get 0 && echo none >"$scratch/cache/cloud-modules/list" && echo old | tee "$scratch/cache/cloud-modules/modules.cpio" >"$scratch/cache/generic-modules/modules.cpio" &&
		get_more && ! grep -qx old "$scratch/cache/cloud-modules/modules.cpio" && grep -qx old "$scratch/cache/generic-modules/modules.cpio"
}

check "a download that fails twice is tried again" tried_again
check "one that fails always is a failure, and nothing is half there" given_up
check "what is missing is named" said
check "drivers of another list are packed anew" other_list
finish
