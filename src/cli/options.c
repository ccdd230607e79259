/*
 * Parsing and help of options, from a command's table.
 */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

void cli_complain(const char *command, const struct error *err)
{
	fprintf(stderr, "doppel %s: %s\n", command, err->text);
}

static const struct device_type *short_form(unsigned n)
{
	for (const struct device_type *const *t = device_types; *t; t++)
		if ((*t)->short_form.name && !n--)
			return *t;
	return NULL;
}

/* Is the argument of its short form a character device? */
static bool takes_chardev(const struct device_type *type)
{
	for (const struct device_option *o = type->options; o && o->name; o++)
		if (type->short_form.option && !strcmp(o->name, type->short_form.option))
			return o->kind == DEVICE_CHARDEV;
	return false;
}

bool cli_option_at(const struct cli_command *command, unsigned n, struct cli_option *option,
		   const struct device_type **type)
{
	const struct cli_option *o = command->options;
	unsigned rows = 0;

	*type = NULL;
	while (o && o[rows].name)
		if (rows++ == n) {
			*option = o[n];
			return true;
		}
	*type = command->short_form ? short_form(n - rows) : NULL;
	if (!*type)
		return false;
	*option = (struct cli_option){
		.name = (*type)->short_form.name,
		.argument = (*type)->short_form.argument,
		.help = (*type)->short_form.help,
		.word = takes_chardev(*type) ? cli_chardev_word : NULL,
	};
	return true;
}

/* "--name" or "--name=value"; *value is what follows the '=' or NULL. */
static bool find_option(const struct cli_command *command, const char *word, const char **value,
			struct cli_option *option, const struct device_type **type)
{
	size_t length = strcspn(word, "=");

	*value = word[length] ? word + length + 1 : NULL;
	for (unsigned n = 0; cli_option_at(command, n, option, type); n++)
		if (strlen(option->name) == length && !strncmp(option->name, word, length))
			return true;
	return false;
}

/* Takes the option at argv[*i], and its argument. */
static int parse_option(const struct cli_command *command, int argc, char **argv, int *i, void *target,
			struct error *err)
{
	const char *word = argv[*i], *value;
	const struct device_type *type;
	struct cli_option option;
	bool found = find_option(command, word, &value, &option, &type);
	int rc;

	if (!found && word[0] != '-' && command->operand)
		return command->operand(target, word, err);
	if (!found && word[0] != '-')
		return error_set(err, EINVAL, "unexpected argument '%s'; 'doppel help %s' shows the usage", word,
				 command->name);
	if (!found)
		return error_set(err, EINVAL, "unknown option '%.*s'; 'doppel help %s' lists them",
				 (int)strcspn(word, "="), word, command->name);
	if (!option.argument && value)
		return error_set(err, EINVAL, "option '%s' takes no argument", option.name);
	if (option.argument && !value) {
		if (*i + 1 >= argc)
			return error_set(err, EINVAL, "option '%s' needs an argument: %s", option.name,
					 option.argument);
		value = argv[++*i];
	}
	rc = type ? command->short_form(target, type, value, err) : option.set(target, value, err);
	return rc ? error_prefix(err, "%s", option.name) : 0;
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

int cli_parse_size(const char *text, uint64_t *size, struct error *err)
{
	static const char suffixes[] = "KMGT";
	unsigned shift = 0;
	char *rest;
	uint64_t number;

	errno = 0;
	number = strtoull(text, &rest, 10);
	if (*rest) {
		const char *suffix = strchr(suffixes, toupper((unsigned char)*rest));

		if (suffix && !rest[1])
			shift = 10 * (unsigned)(suffix - suffixes + 1);
	}
	if (*text < '0' || *text > '9' || errno || (*rest && !shift))
		return error_set(err, EINVAL, "'%s' is no size; expected a number with K, M, G or T, such as 512M",
				 text);
	if (number > UINT64_MAX >> shift)
		return error_set(err, EINVAL, "'%s' is too large", text);
	*size = number << shift;
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
	const struct device_type *type;
	struct cli_option o;

	fprintf(out, "usage: doppel %s%s%s\n%s\n", command->name, *command->synopsis ? " " : "", command->synopsis,
		command->what);
	if (command->options)
		fprintf(out, "\n");
	for (unsigned n = 0; cli_option_at(command, n, &o, &type); n++) {
		char left[64];

		snprintf(left, sizeof(left), "%s%s%s", o.name, o.argument ? " " : "", o.argument ? o.argument : "");
		fprintf(out, "  %-24s %s", left, o.help);
		print_words(&o, out);
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

const char *cli_chardev_word(unsigned n)
{
	static const char *const words[] = { "stdio", "pty", "file:", "unix:", "tcp:", "null", NULL };

	return words[n];
}

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
