#include "cli/cli.h"
const struct cli_option doctor_options[] = {{ NULL, NULL, NULL, NULL, NULL, false }};
int command_doctor(int argc, char **argv)
{
	(void)argc; (void)argv;
	return 0;
}
