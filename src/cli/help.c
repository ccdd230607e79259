/*
 * doppel help [COMMAND]
 */
#include "cli/cli.h"

#include <errno.h>

int command_help(int argc, char **argv)
{
	const struct cli_command *command = argc > 2 ? NULL : argc == 2 ? cli_find(argv[1]) : cli_commands;

	if (!command) {
		fprintf(stderr, "doppel help: unknown command '%s'; 'doppel help' lists them\n", argv[argc - 1]);
		return EXIT_USAGE;
	}
	if (argc == 2) {
		cli_print_help(command, stdout);
		return cli_finish_output("help");
	}
	printf("usage: doppel COMMAND [OPTION...]\n\n");
	for (; command->name; command++)
		printf("  %-12s %s\n", command->name, command->what);
	printf("\n'doppel help COMMAND' shows a command's options.\n");
	return cli_finish_output("help");
}
