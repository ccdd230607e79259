/*
 * The table of commands.
 */
#include "cli/cli.h"

#define _(engine, name, values, least, most, by_default, what) "  " #engine "," #name "=" values ": " what "\n"
#define ENGINE_OPTIONS_HELP				       ENGINE_OPTIONS(_)

const struct cli_command cli_commands[] = {
	{ "run", "[DISK...] [OPTION...]", "run a new virtual machine: from its disks, or a kernel", run_options,
	  command_run,
	  "With --serial stdio, Ctrl-A x ends doppel and Ctrl-A h shows the other keys.\n"
	  "SIZE is a number with K, M, G or T. file: and unix: are followed by a path.\n"
	  "An engine's name may be followed by options, with commas before them (bt,link=off):\n" ENGINE_OPTIONS_HELP
	  "Exit status: 0 power-off or Ctrl-A x, 1 error, 2 wrong usage, 3 triple fault, 4 engine failure. With "
	  "--debug-exit\n"
	  "odd ones are the guest's and even ones doppel's: 6 triple fault, 8 error. 128 + N: ended by signal N.",
	  run_short_form, run_operand },
	{ "audit", "[OPTION...]", "what the sensitive instructions of the x86 show a guest's user mode", audit_options,
	  command_audit,
	  "A built-in guest executes every instruction that user mode may execute though it depends on the machine's\n"
	  "state, or does something else than in its kernel: those that break a monitor which waits for traps. Each\n"
	  "line says where, what such a monitor would show or break, and what the guest saw under this engine.\n"
	  "Exit status: 0 all is as the guest's kernel set it up, 1 something is not, or an error, 2 wrong usage.",
	  NULL, NULL },
	{ "image", "COMMAND [OPTION...] FILE...", "make, examine, check and copy disk images", image_options,
	  command_image, image_notes, NULL, image_operand },
	{ "list", "[--json]", "the machines with names that run", list_options, command_list, NULL, NULL, NULL },
	{ "info", "NAME [--json]", "what a machine is and does", list_options, command_info, NULL, NULL,
	  machine_operand },
	{ "pause", "NAME", "a machine's processors and its time stand still", NULL, command_simple, NULL, NULL,
	  machine_operand },
	{ "resume", "NAME", "they go on", NULL, command_simple, NULL, NULL, machine_operand },
	{ "reset", "NAME", "the machine's reset button", NULL, command_simple, NULL, NULL, machine_operand },
	{ "stop", "NAME [--force] [--timeout SECONDS]", "press a machine's power button, and wait until it is off",
	  stop_options, command_stop, NULL, NULL, machine_operand },
	{ "wait", "NAME [--timeout SECONDS]", "until a machine has ended", wait_options, command_wait, NULL, NULL,
	  machine_operand },
	{ "qmp", "NAME COMMAND", "have a machine execute a command of QMP's, and print what it returns", NULL,
	  command_qmp, "COMMAND is a name, or {\"execute\": NAME, \"arguments\": {...}}. query-commands lists them.",
	  NULL, qmp_operand },
	{ "gdb", "NAME [--stdio] [-- ARG...]", "start GDB on a machine; it has all of its processors stand still",
	  gdb_options, command_gdb,
	  "The ARGs are GDB's: an executable with the guest's symbols, for example. GDB's \"detach\" lets the machine "
	  "go on,\n"
	  "\"kill\" ends it, \"monitor help\" shows what doppel does besides.",
	  NULL, gdb_operand },
	{ "qemu", "[OPTION...]", "doppel run, with the options of QEMU's command line", NULL, command_qemu,
	  "Also by the name doppel-qemu, or any that begins with qemu. '-help' lists the options, '-doppel-print' "
	  "shows them\n"
	  "as doppel run has them. What doppel cannot do is one line that names the option. Exit statuses are QEMU's.",
	  NULL, NULL },
	{ "doctor", "[--json]", "what this host offers, and what follows for doppel", doctor_options, command_doctor,
	  NULL, NULL, NULL },
	{ "help", "[COMMAND]", "this list, or a command's options", NULL, command_help, NULL, NULL, NULL },
	{ "version", "", "doppel's version", NULL, command_version, NULL, NULL, NULL },
	{ "completion", "bash", "a completion script for a shell", NULL, command_completion,
	  "To use it: source <(doppel completion bash)", NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL },
};

const struct cli_command *cli_find(const char *name)
{
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}
