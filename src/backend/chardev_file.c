/*
 * The character devices "file:PATH" and "null": output only.
 */
#include "backend/chardev_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int file_open(struct chardev *cd, const char *path, struct error *err)
{
	/* O_NONBLOCK: a FIFO that nobody reads is an error, not a wait. It says nothing to a regular file. */
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);

	if (fd < 0)
		return error_set_errno(err, errno, "cannot write to '%s'", path);
	cd->fd = fd;
	chardev_output_start(cd, fd, false);
	return 0;
}

static void file_close(struct chardev *cd) { close(cd->fd); }

static ssize_t file_send(struct chardev *cd, const uint8_t *data, size_t size)
{
	return chardev_write_fd(cd->out.fd, data, size);
}

static void file_output_failed(struct chardev *cd, int code)
{
	log_error("%s: %s; further output is dropped", cd->description, strerror(code));
}

const struct chardev_kind chardev_file = {
	.name = "file",
	.argument = "PATH",
	.open = file_open,
	.close = file_close,
	.send = file_send,
	.output_failed = file_output_failed,
};

static int null_open(struct chardev *cd, const char *argument, struct error *err)
{
	(void)cd;
	(void)argument;
	(void)err;
	return 0;
}

static void null_close(struct chardev *cd) { (void)cd; }

/* Never writable, so that all output is dropped by the common part. */
const struct chardev_kind chardev_null = {
	.name = "null",
	.open = null_open,
	.close = null_close,
};
