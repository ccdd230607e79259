/*
 * Whole files in, all bytes out.
 */
#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The kernel refuses larger single reads. */
#define READ_CHUNK ((size_t)1 << 30)

static int read_to_end(int fd, size_t max, size_t expected, uint8_t **data, size_t *size)
{
	size_t capacity = MIN(expected, max) + 1, filled = 0;
	uint8_t *buffer = malloc(capacity + 1);

	if (!buffer)
		return -ENOMEM;
	for (;;) {
		ssize_t n = read(fd, buffer + filled, MIN(capacity - filled, READ_CHUNK));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int code = errno;

			free(buffer);
			return -code;
		}
		if (n == 0)
			break;
		filled += (size_t)n;
		if (filled > max) {
			free(buffer);
			return -EFBIG;
		}
		/* Files of /proc say that they are empty, and any file may grow while it is read. */
		if (filled == capacity) {
			size_t larger = MIN(capacity * 2 + 4096, max + 1);
			uint8_t *moved = realloc(buffer, larger + 1);

			if (!moved) {
				free(buffer);
				return -ENOMEM;
			}
			buffer = moved;
			capacity = larger;
		}
	}
	buffer[filled] = 0;
	*data = buffer;
	*size = filled;
	return 0;
}

int host_file_read(const char *path, size_t max, uint8_t **data, size_t *size, struct error *err)
{
	struct stat st;
	int fd, rc;

	*data = NULL;
	*size = 0;
	max = MIN(max, SIZE_MAX / 4);
	/* O_NONBLOCK: opening a FIFO must not wait for somebody to write to it. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot open '%s'", path);
	if (fstat(fd, &st))
		rc = error_set_errno(err, errno, "cannot examine '%s'", path);
	else if (!S_ISREG(st.st_mode))
		rc = error_set(err, EINVAL, "'%s' is %s; expected a regular file", path,
			       S_ISDIR(st.st_mode) ? "a directory" : "no regular file");
	else if ((uint64_t)st.st_size > max)
		rc = error_set(err, EFBIG, "'%s' has %llu bytes; at most %zu are allowed", path,
			       (unsigned long long)st.st_size, max);
	else {
		rc = read_to_end(fd, max, (size_t)st.st_size, data, size);
		if (rc == -EFBIG)
			rc = error_set(err, EFBIG, "'%s' has more than the %zu bytes that are allowed", path, max);
		else if (rc)
			rc = error_set_errno(err, -rc, "cannot read '%s'", path);
	}
	close(fd);
	return rc;
}

int host_write_all(int fd, const void *data, size_t size)
{
	const uint8_t *at = data;

	while (size) {
		ssize_t n = write(fd, at, MIN(size, READ_CHUNK));

		if (n < 0 && errno == EAGAIN) {
			struct pollfd wait = { .fd = fd, .events = POLLOUT };

			poll(&wait, 1, -1);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

int host_set_nonblocking(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	return fcntl(fd, F_SETFL, flags) ? -errno : 0;
}

int host_reopen(int fd, int mode, bool *may_block)
{
	char path[32];
	struct stat st;
	int again = -1;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		again = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	}
	*may_block = again < 0 && !S_ISREG(st.st_mode);
	if (again < 0)
		again = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return again < 0 ? -errno : again;
}
