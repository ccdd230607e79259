/*
 * Parsing and help of options, from a command's table.
 */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

void cli_complain(const char *command, const struct error *err)
{
	fprintf(stderr, "doppel %s: %s\n", command, err->text);
}

/* "--name" or "--name=value"; *value is what follows the '=' or NULL. */
static const struct cli_option *find_option(const struct cli_option *options, const char *word, const char **value)
{
	size_t length = strcspn(word, "=");

	*value = word[length] ? word + length + 1 : NULL;
	for (const struct cli_option *o = options; o && o->name; o++)
		if (strlen(o->name) == length && !strncmp(o->name, word, length))
			return o;
	return NULL;
}

/* Takes the option at argv[*i], and its argument. */
static int parse_option(const struct cli_command *command, int argc, char **argv, int *i, void *target,
			struct error *err)
{
	const char *word = argv[*i], *value;
	const struct cli_option *option = find_option(command->options, word, &value);
	int rc;

	if (!option && word[0] != '-')
		return error_set(err, EINVAL, "unexpected argument '%s'; 'doppel help %s' shows the usage", word,
				 command->name);
	if (!option)
		return error_set(err, EINVAL, "unknown option '%.*s'; 'doppel help %s' lists them",
				 (int)strcspn(word, "="), word, command->name);
	if (!option->argument && value)
		return error_set(err, EINVAL, "option '%s' takes no argument", option->name);
	if (option->argument && !value) {
		if (*i + 1 >= argc)
			return error_set(err, EINVAL, "option '%s' needs an argument: %s", option->name,
					 option->argument);
		value = argv[++*i];
	}
	rc = option->set(target, value, err);
	return rc ? error_prefix(err, "%s", option->name) : 0;
}

int cli_parse(const struct cli_command *command, int argc, char **argv, void *target)
{
	struct error err = { 0 };

	for (int i = 1; i < argc; i++) {
		if (parse_option(command, argc, argv, &i, target, &err)) {
			cli_complain(command->name, &err);
			return EXIT_USAGE;
		}
	}
	return 0;
}

#define WORDS_IN_HELP 6 /* longer lists are for completion only */

static void print_words(const struct cli_option *option, FILE *out)
{
	if (!option->word)
		return;
	for (unsigned n = 0; option->word(n); n++)
		if (n == WORDS_IN_HELP)
			return;
	for (unsigned n = 0; option->word(n); n++)
		fprintf(out, "%s%s", n ? ", " : ": ", option->word(n));
}

void cli_print_help(const struct cli_command *command, FILE *out)
{
	fprintf(out, "usage: doppel %s%s%s\n%s\n", command->name, *command->synopsis ? " " : "", command->synopsis,
		command->what);
	if (command->options)
		fprintf(out, "\n");
	for (const struct cli_option *o = command->options; o && o->name; o++) {
		char left[64];

		snprintf(left, sizeof(left), "%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
		fprintf(out, "  %-24s %s", left, o->help);
		print_words(o, out);
		fputc('\n', out);
	}
	if (command->notes)
		fprintf(out, "\n%s\n", command->notes);
}

const char *cli_engine_word(unsigned n)
{
	if (n == 0)
		return "auto";
	return engines[n - 1] ? engines[n - 1]->name : NULL;
}

const char *cli_cpu_word(unsigned n) { return cpu_models[n].name; }

int cli_finish_output(const char *command)
{
	struct error err = { 0 };

	if (fflush(stdout) || ferror(stdout)) {
		error_set_errno(&err, errno, "write to standard output");
		cli_complain(command, &err);
		return EXIT_FAILED;
	}
	return 0;
}
