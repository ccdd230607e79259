/*
 * The character device "stdio": standard input and output, usually a terminal, which is put in raw mode. There
 * Ctrl-A is the key for what is meant for doppel and not for the guest.
 */
#include "backend/chardev_private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ESCAPE_KEY 0x01 /* Ctrl-A */
/* What a terminal, pipe or socket that is ready for output takes without blocking. */
#define SURE_ROOM 256u

static const char help[] = "\r\n"
			   "Ctrl-A h       this help\r\n"
			   "Ctrl-A x       quit doppel\r\n"
			   "Ctrl-A b       send a break (Linux: SysRq, the next key says what)\r\n"
			   "Ctrl-A Ctrl-A  send a Ctrl-A (Ctrl-A a, too)\r\n";

struct stdio {
	int in, out;
	bool may_block; /* out is the shell's own open file */
	bool keys;	/* input is a terminal: Ctrl-A has a meaning */
	bool escaped;	/* the last key was Ctrl-A */
};

static void stdio_close(struct chardev *cd)
{
	struct stdio *stdio = cd->data;

	host_terminal_restore();
	if (stdio->in >= 0)
		close(stdio->in);
	close(stdio->out);
	free(stdio);
}

static int stdio_open(struct chardev *cd, const char *argument, struct error *err)
{
	struct stdio *stdio = calloc(1, sizeof(*stdio));
	bool input_may_block;
	struct stat st;
	int rc;

	(void)argument;
	if (!stdio)
		return error_set_errno(err, ENOMEM, "cannot open");
	stdio->out = host_reopen(STDOUT_FILENO, O_WRONLY, &stdio->may_block);
	if (stdio->out < 0) {
		rc = error_set_errno(err, -stdio->out, "standard output cannot be used");
		free(stdio);
		return rc;
	}
	/* Without standard input there is nothing to read. Reading follows a poll, so it may well block. */
	stdio->in = host_reopen(STDIN_FILENO, O_RDONLY, &input_may_block);
	cd->data = stdio;
	stdio->keys = stdio->in >= 0 && isatty(stdio->in);
	if (stdio->keys) {
		rc = host_terminal_raw(stdio->in, err);
		if (rc) {
			stdio_close(cd);
			return rc;
		}
	}
	if (stdio->in >= 0)
		chardev_input_start(cd, stdio->in);
	/* A terminal or pipe tells when its other side is gone, even if the guest has nothing to say. */
	chardev_output_start(cd, stdio->out, !fstat(stdio->out, &st) && !S_ISREG(st.st_mode));
	return 0;
}

static ssize_t stdio_send(struct chardev *cd, const uint8_t *data, size_t size)
{
	struct stdio *stdio = cd->data;

	if (stdio->may_block) {
		struct pollfd wait = { .fd = stdio->out, .events = POLLOUT };

		if (poll(&wait, 1, 0) <= 0)
			return 0;
		size = MIN(size, SURE_ROOM);
	}
	return chardev_write_fd(stdio->out, data, size);
}

static void quit(struct chardev *cd)
{
	if (cd->ops && cd->ops->quit)
		cd->ops->quit(cd->opaque);
}

static size_t stdio_filter(struct chardev *cd, uint8_t *data, size_t size)
{
	struct stdio *stdio = cd->data;
	size_t i, kept = 0;

	if (!stdio->keys)
		return size;
	for (i = 0; i < size; i++) {
		uint8_t key = data[i];

		if (!stdio->escaped) {
			stdio->escaped = key == ESCAPE_KEY;
			if (!stdio->escaped)
				data[kept++] = key;
			continue;
		}
		stdio->escaped = false;
		if (key == 'x' || key == 'X')
			quit(cd);
		else if (key == 'b' || key == 'B')
			chardev_input_break(cd, data, kept);
		else if (key == 'h' || key == 'H' || key == '?')
			chardev_write(cd, help, sizeof(help) - 1);
		else if (key == 'a' || key == ESCAPE_KEY)
			data[kept++] = ESCAPE_KEY;
	}
	return kept;
}

/* Nobody sees this machine any more. */
static void stdio_output_failed(struct chardev *cd, int code)
{
	log_warning("standard output: %s; further output is dropped", strerror(code));
	if (code == EPIPE || code == EIO)
		quit(cd);
}

const struct chardev_kind chardev_stdio = {
	.name = "stdio",
	.open = stdio_open,
	.close = stdio_close,
	.send = stdio_send,
	.filter = stdio_filter,
	.output_failed = stdio_output_failed,
};
