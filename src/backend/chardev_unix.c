/*
 * The character device "unix:PATH": a listening socket that talks to one client at a time. Output without a client
 * is kept, the newest part of it, for the next one.
 */
#define _GNU_SOURCE
#include "backend/chardev_private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct unix_socket {
	struct chardev *cd;
	struct sockaddr_un address;
	struct event_source listener; /* active while there is no client, or one that takes no output any more */
	int client;		      /* -1: none */
	bool bound;
	dev_t device; /* of the socket's file, to remove no other one */
	ino_t inode;
};

/* ---- the client; loop's thread ---- */

static void listen_again(struct unix_socket *sock)
{
	if (!sock->listener.active)
		event_loop_add(sock->cd->loop, &sock->listener);
}

static void disconnect(struct unix_socket *sock)
{
	if (sock->client < 0)
		return;
	chardev_input_stop(sock->cd);
	chardev_output_stop(sock->cd);
	close(sock->client);
	sock->client = -1;
	listen_again(sock);
}

static void unix_accept(void *opaque, short revents)
{
	struct unix_socket *sock = opaque;
	int fd = accept4(sock->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)revents;
	if (fd < 0) {
		/* Out of descriptors would be reported again at once, for ever: better to listen no more. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			log_error("%s: %s; no longer listening", sock->cd->description, strerror(errno));
			event_loop_remove(sock->cd->loop, &sock->listener);
		}
		return;
	}
	/* One may be left that takes no more output but whose input the guest has not read. */
	disconnect(sock);
	event_loop_remove(sock->cd->loop, &sock->listener);
	sock->client = fd;
	chardev_input_start(sock->cd, fd);
	chardev_output_start(sock->cd, fd, true);
}

/* A client that has shut down only its sending side still reads. */
static void unix_input_ended(struct chardev *cd, int code)
{
	if (code || cd->out.fd < 0)
		disconnect(cd->data);
}

/* What it sent before it left is still read. */
static void unix_output_failed(struct chardev *cd, int code)
{
	(void)code;
	if (cd->in.fd < 0)
		disconnect(cd->data);
	else
		listen_again(cd->data);
}

static ssize_t unix_send(struct chardev *cd, const uint8_t *data, size_t size)
{
	ssize_t n;

	do
		n = send(cd->out.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? 0 : -errno;
}

/* ---- life ---- */

static void unix_close(struct chardev *cd)
{
	struct unix_socket *sock = cd->data;
	struct stat st;

	if (sock->client >= 0)
		close(sock->client);
	event_loop_remove(cd->loop, &sock->listener);
	if (sock->listener.fd >= 0)
		close(sock->listener.fd);
	if (sock->bound && !lstat(sock->address.sun_path, &st) && st.st_dev == sock->device && st.st_ino == sock->inode)
		unlink(sock->address.sun_path);
	free(sock);
}

/* Removes a socket that an earlier process left behind; never a file of another type nor a socket in use. */
static int remove_stale(const struct sockaddr_un *address, struct error *err)
{
	struct stat st;
	int fd, code;

	if (lstat(address->sun_path, &st))
		return error_set_errno(err, errno, "cannot examine '%s'", address->sun_path);
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, EEXIST, "'%s' exists and is no socket", address->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot create a socket");
	code = connect(fd, (const struct sockaddr *)address, sizeof(*address)) ? errno : 0;
	close(fd);
	if (code != ECONNREFUSED)
		return error_set(err, EADDRINUSE, "another process listens on '%s'", address->sun_path);
	if (unlink(address->sun_path))
		return error_set_errno(err, errno, "cannot remove the old socket '%s'", address->sun_path);
	return 0;
}

static int bind_and_listen(struct unix_socket *sock, struct error *err)
{
	const struct sockaddr *address = (const struct sockaddr *)&sock->address;
	const char *path = sock->address.sun_path;
	struct stat st;
	int fd, rc;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	sock->listener.fd = fd;
	if (fd < 0)
		return error_set_errno(err, errno, "cannot create a socket");
	rc = bind(fd, address, sizeof(sock->address)) ? -errno : 0;
	if (rc == -EADDRINUSE) {
		rc = remove_stale(&sock->address, err);
		if (rc)
			return rc;
		rc = bind(fd, address, sizeof(sock->address)) ? -errno : 0;
	}
	if (rc)
		return error_set_errno(err, -rc, "cannot bind a socket to '%s'", path);
	if (!lstat(path, &st)) {
		sock->bound = true;
		sock->device = st.st_dev;
		sock->inode = st.st_ino;
	}
	if (listen(fd, 1))
		return error_set_errno(err, errno, "cannot listen on '%s'", path);
	return 0;
}

static int unix_open(struct chardev *cd, const char *path, struct error *err)
{
	struct unix_socket *sock;
	int rc;

	if (strlen(path) >= sizeof(sock->address.sun_path))
		return error_set(err, ENAMETOOLONG, "the path has %zu bytes; at most %zu are allowed", strlen(path),
				 sizeof(sock->address.sun_path) - 1);
	sock = calloc(1, sizeof(*sock));
	if (!sock)
		return error_set_errno(err, ENOMEM, "cannot open");
	sock->cd = cd;
	sock->client = -1;
	sock->address.sun_family = AF_UNIX;
	memcpy(sock->address.sun_path, path, strlen(path));
	sock->listener = (struct event_source){ .fd = -1, .events = POLLIN, .ready = unix_accept, .opaque = sock };
	cd->data = sock;
	rc = bind_and_listen(sock, err);
	if (rc) {
		unix_close(cd);
		return rc;
	}
	listen_again(sock);
	return 0;
}

const struct chardev_kind chardev_unix = {
	.name = "unix",
	.argument = "PATH",
	.reader_returns = true,
	.open = unix_open,
	.close = unix_close,
	.send = unix_send,
	.input_ended = unix_input_ended,
	.output_failed = unix_output_failed,
};
