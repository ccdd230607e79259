/*
 * The character device "pty": a new pseudo-terminal, to which any terminal program can be pointed.
 */
#define _GNU_SOURCE
#include "backend/chardev_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

struct pty {
	int master;
	/* Held open: without it the master would report a hang-up for as long as nobody else has the slave open. */
	int slave;
};

static void pty_close(struct chardev *cd)
{
	struct pty *pty = cd->data;

	if (pty->slave >= 0)
		close(pty->slave);
	if (pty->master >= 0)
		close(pty->master);
	free(pty);
}

static int open_pair(struct pty *pty, char *name, size_t size)
{
	struct termios mode;
	int rc;

	pty->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (pty->master < 0 || grantpt(pty->master) || unlockpt(pty->master))
		return -errno;
	rc = ptsname_r(pty->master, name, size);
	if (rc)
		return -rc;
	pty->slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	/* Raw from the start: an echoing terminal would send the guest's own output back to it. */
	if (pty->slave < 0 || tcgetattr(pty->slave, &mode))
		return -errno;
	cfmakeraw(&mode);
	if (tcsetattr(pty->slave, TCSANOW, &mode))
		return -errno;
	return host_set_nonblocking(pty->master, true);
}

static int pty_open(struct chardev *cd, const char *argument, struct error *err)
{
	struct pty *pty = malloc(sizeof(*pty));
	char name[128] = "";
	int rc;

	(void)argument;
	if (!pty)
		return error_set_errno(err, ENOMEM, "cannot open");
	*pty = (struct pty){ -1, -1 };
	cd->data = pty;
	rc = open_pair(pty, name, sizeof(name));
	if (!rc)
		rc = chardev_set_description(cd, "pty %s", name);
	if (rc) {
		pty_close(cd);
		return error_set_errno(err, -rc, "cannot create a pseudo-terminal");
	}
	log_info("serial line on %s", name);
	chardev_input_start(cd, pty->master);
	chardev_output_start(cd, pty->master, false);
	return 0;
}

static ssize_t pty_send(struct chardev *cd, const uint8_t *data, size_t size)
{
	return chardev_write_fd(cd->out.fd, data, size);
}

static void pty_output_failed(struct chardev *cd, int code)
{
	log_warning("%s: %s; further output is dropped", cd->description, strerror(code));
}

const struct chardev_kind chardev_pty = {
	.name = "pty",
	.reader_unknown = true,
	.open = pty_open,
	.close = pty_close,
	.send = pty_send,
	.output_failed = pty_output_failed,
};
