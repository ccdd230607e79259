/*
 * doppel version
 */
#include "cli/cli.h"

int command_version(int argc, char **argv)
{
	(void)argv;
	if (argc > 1) {
		fprintf(stderr, "doppel version: unexpected argument '%s'; there are none\n", argv[1]);
		return EXIT_USAGE;
	}
	printf("doppel %s\n", DOPPEL_VERSION);
	return cli_finish_output("version");
}
