/*
 * Messages on the socket: a header, what follows it, and descriptors. Whoever is at the other end may send anything at any rate, or nothing.
 */
#define _GNU_SOURCE
#include "vhost/private.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define FDS_MOST 16 /* that are received; the host's kernel closes what has no room */

const char *vhost_request_name(uint32_t request)
{
	switch (request) {
#define _(name, number)                                                                                                \
	case number: return #name;
		VHOST_REQUESTS(_)
#undef _
	default: return "unknown request";
	}
}

static int wait_for(int fd, short events, uint64_t deadline, struct error *err)
{
	struct pollfd p = { .fd = fd, .events = events };
	uint64_t now;

	while ((now = host_monotonic_ns()) < deadline) {
		uint64_t ms = (deadline - now) / 1000000 + 1;

		if (poll(&p, 1, (int)MIN(ms, 60000)) > 0)
			return 0;
	}
	return error_set(err, ETIMEDOUT, "no answer in time");
}

/* ---- to the back end ---- */

static ssize_t send_some(int fd, struct iovec *iov, const int *fds, unsigned count)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(VHOST_FDS * sizeof(int))];
	} control = { .room = { 0 } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };

	if (count) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(count * sizeof(int)),
						   .cmsg_level = SOL_SOCKET,
						   .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
	}
	return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void advance(struct iovec *iov, size_t bytes)
{
	for (unsigned n = 0; n < 2; n++) {
		size_t part = MIN(bytes, iov[n].iov_len);

		iov[n].iov_base = (uint8_t *)iov[n].iov_base + part;
		iov[n].iov_len -= part;
		bytes -= part;
	}
}

int vhost_send(int fd, const struct vhost_message *m, const int *fds, unsigned count, uint64_t deadline,
	       struct error *err)
{
	struct iovec iov[2] = { { (void *)m, VHOST_HEADER }, { (void *)&m->number, m->size } };

	while (iov[0].iov_len + iov[1].iov_len) {
		ssize_t sent = send_some(fd, iov, fds, count);

		if (sent >= 0) {
			advance(iov, (size_t)sent);
			count = 0; /* descriptors go with the first byte */
		} else if (errno == EAGAIN) {
			int rc = wait_for(fd, POLLOUT, deadline, err);

			if (rc)
				return rc;
		} else if (errno != EINTR) {
			return error_set_errno(err, errno, "cannot send");
		}
	}
	return 0;
}

/* ---- from it ---- */

static void close_all(struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t n = 0; n < count; n++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + n * sizeof(fd), sizeof(fd));
			close(fd);
		}
	}
}

static int receive_all(int fd, void *to, size_t size, uint64_t deadline, struct error *err)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(FDS_MOST * sizeof(int))];
	} control;
	uint8_t *at = to;

	while (size) {
		struct iovec iov = { at, size };
		struct msghdr m = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
		};
		ssize_t got = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

		if (got > 0) {
			close_all(&m);
			at += got;
			size -= (size_t)got;
		} else if (!got) {
			return error_set(err, ECONNRESET, "it has closed the connection");
		} else if (errno == EAGAIN) {
			int rc = wait_for(fd, POLLIN, deadline, err);

			if (rc)
				return rc;
		} else if (errno != EINTR) {
			return error_set_errno(err, errno, "cannot receive");
		}
	}
	return 0;
}

int vhost_receive(int fd, struct vhost_message *m, uint64_t deadline, struct error *err)
{
	int rc = receive_all(fd, m, VHOST_HEADER, deadline, err);

	if (rc)
		return rc;
	if ((m->flags & 3) != VHOST_VERSION)
		return error_set(err, EPROTO, "a message of version %u; expected %u", m->flags & 3, VHOST_VERSION);
	if (m->size > sizeof(*m) - offsetof(struct vhost_message, number))
		return error_set(err, EPROTO, "a message of %u bytes; expected at most %zu", m->size,
				 sizeof(*m) - offsetof(struct vhost_message, number));
	return receive_all(fd, &m->number, m->size, deadline, err);
}
