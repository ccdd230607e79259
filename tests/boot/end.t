#!/bin/sh
# How a run ends, and that the terminal is as before.
cd "$(dirname "$0")/../.." || exit 1
. tests/boot/lib.sh

check "poweroff restores the terminal" \
	boot_terminal wait "$prompt" send 'poweroff\r' exit 0 cooked --

check "Ctrl-A h shows help, Ctrl-A x quits" \
	boot_terminal wait "$prompt" send '\x01h' wait 'Ctrl-A' send '\x01x' exit 0 cooked --

check "Ctrl-C is the guest's" \
	boot_terminal wait "$prompt" send 'sh -c "echo go\\ing; exec sleep 1000"\r' wait 'going' send '\x03' wait "$prompt" send '\x01x' exit 0 cooked --

# Whatever ends the run: by a signal that is sent once, in the middle of guest code, idle, or before there is any.
for engine in bt interp; do
	# SIGHUP, INT, QUIT, ILL, TRAP, ABRT, BUS, FPE, USR1, SEGV, USR2, ALRM, TERM, XCPU, SYS
	for signal in 1 2 3 4 5 6 7 8 10 11 12 14 15 24 31; do
		append="earlyprintk=ttyS0 loglevel=8"
		check "signal $signal ends it, engine $engine, and restores the terminal" \
			boot_terminal wait "e820: remove" signal "$signal" exit $((128 + signal)) cooked -- --engine "$engine"
	done
done
append=
check "SIGTERM ends it at the shell's prompt and restores the terminal" \
	boot_terminal wait "$prompt" signal 15 exit 143 cooked --
check "SIGSEGV, too" boot_terminal wait "$prompt" signal 11 exit 139 cooked --

check "a closed terminal ends it" \
	boot_terminal wait "$prompt" hangup exit 129 --

append="reboot=t"
check "a triple fault shows the CPU's state and has a status of its own" \
	boot wait "$prompt" send 'reboot\n' wait 'triple fault' wait 'RIP' exit 3 -- --no-reboot
finish
