/*
 * doppel gdb: GDB on a machine with a name. GDB reaches the machine's socket through another doppel (--stdio), since the folder's path may be longer than a
 * socket's address.
 */
#include "cli/cli.h"
#include "control/control.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define PIECE 65536

struct gdb_arguments {
	const char *name;
	bool stdio;
};

static int set_stdio(void *target, const char *value, struct error *err)
{
	(void)value, (void)err;
	((struct gdb_arguments *)target)->stdio = true;
	return 0;
}

const struct cli_option gdb_options[] = {
	{ "--stdio", NULL, "the protocol itself on standard input and output, instead of GDB", set_stdio, NULL, false },
	{ NULL, NULL, NULL, NULL, NULL, false },
};

int gdb_operand(void *target, const char *word, struct error *err)
{
	struct gdb_arguments *a = target;

	if (a->name)
		return error_set(err, EINVAL, "unexpected argument '%.80s'; GDB's own follow '--'", word);
	a->name = word;
	return 0;
}

/* False: there is nothing more to come. */
static bool pass_on(int from, int to)
{
	static char data[PIECE];
	ssize_t n = read(from, data, sizeof(data));

	return n > 0 && !host_write_all(to, data, (size_t)n);
}

/* Both ways, until one of them ends. */
static int carry(int fd)
{
	struct pollfd fds[] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return EXIT_FAILED;
		if (fds[0].revents && !pass_on(STDIN_FILENO, fd))
			return 0;
		if (fds[1].revents && !pass_on(fd, STDOUT_FILENO))
			return 0;
	}
}

/* GDB with the words behind "--", in place of this process. */
static int become_gdb(const char *name, int count, char **words, struct error *err)
{
	char self[4096], target[MACHINE_NAME_MAX + 64];
	ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char **args;

	if (size < 0)
		return error_set_errno(err, errno, "cannot start gdb");
	args = calloc((size_t)count + 4, sizeof(*args));
	if (!args)
		return error_set_errno(err, errno, "cannot start gdb");
	self[size] = 0;
	setenv("DOPPEL", self, 1); /* whatever characters there are in it */
	snprintf(target, sizeof(target), "target remote | exec \"$DOPPEL\" gdb --stdio %s", name);
	args[0] = (char[]){ "gdb" };
	args[1] = (char[]){ "-ex" };
	args[2] = target;
	memcpy(args + 3, words, (size_t)count * sizeof(*args));
	execvp("gdb", args);
	free(args);
	return error_set_errno(err, errno, "cannot start gdb (Debian's package gdb has it)");
}

int command_gdb(int argc, char **argv)
{
	struct gdb_arguments a = { 0 };
	struct error err = { 0 };
	int own = 1, status, fd;

	while (own < argc && strcmp(argv[own], "--") != 0)
		own++;
	status = cli_parse(cli_find("gdb"), own, argv, &a);
	if (status)
		return status;
	if (!a.name) {
		error_set(&err, EINVAL, "no machine; expected its NAME");
		cli_complain("gdb", &err);
		return EXIT_USAGE;
	}
	/* Just to see that there is such a machine: the debugger's connection stops it. */
	fd = control_connect(a.name, a.stdio ? CONTROL_GDB : CONTROL_QMP, &err);
	if (fd >= 0 && a.stdio)
		return carry(fd);
	if (fd >= 0) {
		close(fd);
		become_gdb(a.name, argc - MIN(own + 1, argc), argv + MIN(own + 1, argc), &err);
	}
	cli_complain("gdb", &err);
	return EXIT_FAILED;
}
