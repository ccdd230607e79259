/*
 * doppel's entry: finds the command.
 */
#include "cli/cli.h"

int main(int argc, char **argv)
{
	const struct cli_command *command;
	const char *name = argc > 1 ? argv[1] : "help";

	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	if (!strcmp(name, "--version"))
		name = "version";
	command = cli_find(name);
	if (!command) {
		fprintf(stderr, "doppel: unknown command '%s'; 'doppel help' lists them\n", name);
		return EXIT_USAGE;
	}
	if (argc < 2)
		return command->run(argc, argv);
	return command->run(argc - 1, argv + 1);
}
