/*
 * doppel in QEMU's place: its command line in doppel's words, and then doppel run.
 */
#include "qemu/qemu.h"

#include "cli/cli.h"

#include <stdlib.h>

/* Words of a shell. */
static void print_line(const struct qemu_line *line)
{
	printf("doppel run");
	for (unsigned n = 0; n < line->count; n++) {
		putchar(' ');
		if (*line->words[n] && !strpbrk(line->words[n], " \t\n\"'\\$`*?[]{}()<>|&;~#!")) {
			fputs(line->words[n], stdout);
			continue;
		}
		putchar('\'');
		for (const char *c = line->words[n]; *c; c++)
			fputs(*c == '\'' ? "'\\''" : (char[]){ *c, 0 }, stdout);
		putchar('\'');
	}
	putchar('\n');
}

static int run(const struct qemu_line *line)
{
	char **words = calloc(line->count + 2, sizeof(*words));
	int status;

	if (!words)
		return EXIT_FAILED;
	words[0] = (char[]){ "run" };
	memcpy(words + 1, line->words, line->count * sizeof(*words));
	status = command_run((int)line->count + 1, words);
	free(words);
	return status == EXIT_USAGE ? EXIT_FAILED : status;
}

int command_qemu(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
	struct error err = { 0 };
	struct qemu_line line;
	int status = 0;

	if (qemu_translate(&line, argc, argv, &err)) {
		fprintf(stderr, "%s: %s\n", name, err.text);
		status = EXIT_FAILED;
	} else if (line.help) {
		fputs(line.help, stdout);
		status = cli_finish_output(name);
	} else if (line.prints) {
		print_line(&line);
		status = cli_finish_output(name);
	} else {
		status = run(&line);
	}
	qemu_free(&line);
	return status;
}
