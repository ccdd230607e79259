/*
 * doppel's entry: finds the command.
 */
#include "cli/cli.h"
#include "net/net.h"

#include <signal.h>

/* QEMU's name, or one that says that its words are meant. */
static bool stands_for_qemu(const char *program)
{
	const char *slash = strrchr(program, '/'), *name = slash ? slash + 1 : program;

	return !strncmp(name, "qemu", 4) || !strcmp(name, "doppel-qemu") || !strcmp(name, "kvm");
}

int main(int argc, char **argv)
{
	const struct cli_command *command;
	const char *name = argc > 1 ? argv[1] : "help";

	/* What is too large for a limit on files (ulimit -f) is an error like others: guest memory, a trace. */
	signal(SIGXFSZ, SIG_IGN);
	if (argc && stands_for_qemu(argv[0]))
		return command_qemu(argc, argv);
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	if (!strcmp(name, "--version"))
		name = "version";
	if (!strcmp(name, NET_HELPER_COMMAND))
		return net_helper_main();
	command = cli_find(name);
	if (!command) {
		fprintf(stderr, "doppel: unknown command '%s'; 'doppel help' lists them\n", name);
		return EXIT_USAGE;
	}
	if (argc < 2)
		return command->run(argc, argv);
	return command->run(argc - 1, argv + 1);
}
