/*
 * doppel completion bash: a completion script made from the tables of commands and options.
 */
#include "cli/cli.h"

static void print_words(const struct cli_option *option)
{
	for (unsigned n = 0; option->word(n); n++)
		printf("%s%s", n ? " " : "", option->word(n));
}

/* One case of what can follow an option. */
static void print_argument_case(const struct cli_command *command, const struct cli_option *option)
{
	if (!option->argument)
		return;
	printf("\t'%s %s') ", command->name, option->name);
	if (option->files) {
		printf("COMPREPLY=($(compgen -f -- \"$word\"))");
	} else if (option->word) {
		printf("COMPREPLY=($(compgen -W '");
		print_words(option);
		printf("' -- \"$word\"))");
	} else {
		printf("COMPREPLY=()");
	}
	printf("; return ;;\n");
}

static void print_options_case(const struct cli_command *command)
{
	const struct device_type *type;
	struct cli_option o;

	printf("\t%s) words='", command->name);
	for (unsigned n = 0; cli_option_at(command, n, &o, &type); n++)
		printf("%s%s", n ? " " : "", o.name);
	printf("' ;;\n");
}

static void print_bash(void)
{
	const struct device_type *type;
	struct cli_option option;

	printf("# bash completion for doppel; made by 'doppel completion bash'\n"
	       "_doppel()\n{\n"
	       "\tlocal word=${COMP_WORDS[COMP_CWORD]} words=\n"
	       "\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n\t\tCOMPREPLY=($(compgen -W '");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		printf("%s%s", c == cli_commands ? "" : " ", c->name);
	printf("' -- \"$word\"))\n\t\treturn\n\tfi\n"
	       "\tcase \"${COMP_WORDS[1]} ${COMP_WORDS[COMP_CWORD-1]}\" in\n");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		for (unsigned n = 0; cli_option_at(c, n, &option, &type); n++)
			print_argument_case(c, &option);
	printf("\tesac\n\tcase ${COMP_WORDS[1]} in\n");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (c->options)
			print_options_case(c);
	printf("\tesac\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n}\ncomplete -F _doppel doppel\n");
}

int command_completion(int argc, char **argv)
{
	if (argc != 2 || strcmp(argv[1], "bash")) {
		fprintf(stderr, "doppel completion: %s%s%s; expected: doppel completion bash\n",
			argc < 2 ? "no shell" : "shell '", argc < 2 ? "" : argv[1], argc < 2 ? "" : "' is unknown");
		return EXIT_USAGE;
	}
	print_bash();
	return cli_finish_output("completion");
}
