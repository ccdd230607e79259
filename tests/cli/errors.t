#!/bin/sh
# Wrong usage: one line on standard error that says what was wrong, and the right exit status.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
doppel=${DOPPEL:-build/release/doppel}

# refused STATUS TEXT ARGUMENT...: nothing on standard output, one line with TEXT in it on standard error.
refused() {
	want=$1 text=$2
	shift 2
	status=0
	"$doppel" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null || status=$?
	cat "$scratch/out" "$scratch/err"
	[ "$status" = "$want" ] || { echo "status $status, not $want"; return 1; }
	grep -q -F -e "$text" "$scratch/err" || { echo "nothing about '$text'"; return 1; }
	[ "$(wc -l <"$scratch/err")" = 1 ] || { echo "not one line"; return 1; }
	[ ! -s "$scratch/out" ] || { echo "something on standard output"; return 1; }
}
kernel=$scratch/kernel
echo "not a kernel" >"$kernel"

check "unknown command" refused 2 "'walk'" walk
check "run without a kernel" refused 2 "--kernel" run
check "a disk that is not there" refused 1 "'$scratch/none'" run "$scratch/none"
check "an order of starting that is none" refused 2 "'order' is 'cx'" run --boot order=cx "$kernel"
check "a file for the firmware without a name" refused 2 "'name'" run --kernel "$kernel" --fw-cfg string=x
check "a module of no multiboot kernel" refused 1 "takes no modules" run --kernel "$kernel" --module "$kernel,x"
check "a module that is not there" refused 1 "'$scratch/none'" run --kernel "$kernel" --module "$scratch/none,x"
check "unknown option" refused 2 "'--colour'" run --kernel "$kernel" --colour
check "unknown option with a value" refused 2 "'--colour'" run --kernel "$kernel" --colour=red
check "an argument that belongs to nothing" refused 2 "'stray'" audit stray
check "an option's argument is missing" refused 2 "--kernel" run --kernel
check "a switch with a value" refused 2 "'--pure'" run --kernel "$kernel" --pure=yes
for m in "" x 12Q 0 -1 1.5G 512MB 99999999999999999999 1000K 512K 1T 1024G 2T 17000000T; do
	check "memory '$m'" refused 2 "--memory: '$m'" run --kernel "$kernel" --memory "$m"
done
for n in "" 0 65 x 2x -1 99999999999999999999; do
	check "cpus '$n'" refused 2 "--cpus: '$n'" run --kernel "$kernel" --cpus "$n"
done
check "a triple fault with other consequences" refused 2 "--on-triple-fault: 'panic'" run --kernel "$kernel" --on-triple-fault panic
check "--debug-exit: an error that cannot be the guest's" refused 8 "$scratch/none" run --kernel "$scratch/none" --debug-exit
check "--debug-exit: wrong usage" refused 2 "--kernel" run --debug-exit
check "unknown clock" refused 2 "--clock: 'wall'" run --kernel "$kernel" --clock wall
check "unknown engine: says which there are" refused 2 "interp" run --kernel "$kernel" --engine steam
check "unknown option of an engine: says which there are" refused 2 "link" run --kernel "$kernel" --engine bt,colour=red
check "an option of another engine" refused 2 "'block'" run --kernel "$kernel" --engine interp,block=1
for o in block block= block=0 block=65 block=x link=1 link= cache=0 cache=513 windows=7 mappings=1023 mappings=1000001 \
	stubs=63 arena=7 arena=32769 blocks=7 tables=25; do
	check "engine option '$o'" refused 2 "option ${o%%=*} of engine 'bt'" run --kernel "$kernel" --engine "bt,$o"
done
check "unknown model: says which there are" refused 2 "v2" run --kernel "$kernel" --cpu 486
for f in AVX2 + +SSE9 -LM +MONITOR -HTT; do
	check "CPU flag '$f'" refused 2 "CPU flag '$f'" run --kernel "$kernel" --cpu "v2,$f"
done
check "a CPU flag without what it needs" refused 2 "XSAVEOPT needs XSAVE" run --kernel "$kernel" --cpu v2,+XSAVEOPT
check "a CPU flag of the other vendor" refused 2 "is AMD's" run --kernel "$kernel" --cpu v2,-BTC_NO
check "unknown trace point" refused 2 "dreams" run --kernel "$kernel" --trace dreams
check "unknown kind of serial port" refused 2 "carrier-pigeon" run --kernel "$kernel" --serial carrier-pigeon
check "more serial ports than there can be" refused 2 "--serial" run --kernel "$kernel" --serial null --serial null \
	--serial null --serial null --serial null
check "unknown device: says which there are" refused 2 "pc-testdev" run --kernel "$kernel" --device toaster
check "a name with a space" refused 2 "'web 1' is no name" run --kernel "$kernel" --name 'web 1'
check "a name of 64 characters" refused 2 "at most 62 more" run --kernel "$kernel" --name "$(printf 'n%.0s' $(seq 64))"
check "unknown option of a device" refused 2 "expected port, chardev" run --kernel "$kernel" --device uart,colour=red
check "a device without options" refused 2 "expected none" run --kernel "$kernel" --device pit,port=1
for value in 0 5 x -1 1x 0x5 99999999999999999999 ''; do
	check "a device's number '$value'" refused 2 "'port' is '$value'; expected a number from 1 to 4" run --kernel "$kernel" \
		--device "uart,port=$value"
done
check "a device's option without a value" refused 2 "port=VALUE" run --kernel "$kernel" --device uart,port
check "a device's option twice" refused 2 "'port' is given twice" run --kernel "$kernel" --device uart,port=1,port=2
check "a device's character device" refused 2 "uart: option 'chardev'" run --kernel "$kernel" --device uart,chardev=pigeon
check "a device of which there is one" refused 2 "at most 1 of 'pit'" run --kernel "$kernel" --device pit --device pit
check "a place that is taken" refused 1 "COM2 is there already" run --kernel "$kernel" --device uart,port=2 --device uart,port=2
check "help about no device" refused 2 "'toaster'" run --device toaster,help
check "no such kernel" refused 1 "$scratch/none" run --kernel "$scratch/none"
check "not a kernel" refused 1 "neither a Linux bzImage nor a multiboot image" run --kernel "$kernel"
check "a folder as kernel" refused 1 "$scratch" run --kernel "$scratch"
check "no such initrd" refused 1 "$scratch/none" run --kernel "$kernel" --initrd "$scratch/none"
check "a serial file that cannot be made" refused 1 "$scratch/no/file" run --kernel "$kernel" --serial "file:$scratch/no/file"
check "help about nothing" refused 2 "'walk'" help walk
check "version takes no arguments" refused 2 "'now'" version now
check "completion for an unknown shell" refused 2 "'cmd'" completion cmd
check "doctor: unknown option" refused 2 "'--loud'" doctor --loud
finish
