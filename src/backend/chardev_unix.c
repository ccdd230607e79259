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
#include <unistd.h>

struct unix_socket {
	struct chardev *cd;
	struct host_listener socket;
	struct event_source listener; /* active while there is no client, or one that takes no output any more */
	int client;		      /* -1: none */
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

	if (sock->client >= 0)
		close(sock->client);
	event_loop_remove(cd->loop, &sock->listener);
	host_unix_unlisten(&sock->socket);
	free(sock);
}

static int unix_open(struct chardev *cd, const char *path, struct error *err)
{
	struct unix_socket *sock;
	int rc;

	sock = calloc(1, sizeof(*sock));
	if (!sock)
		return error_set_errno(err, ENOMEM, "cannot open");
	sock->cd = cd;
	sock->client = -1;
	rc = host_unix_listen(&sock->socket, path, err);
	if (rc) {
		free(sock);
		return rc;
	}
	sock->listener =
		(struct event_source){ .fd = sock->socket.fd, .events = POLLIN, .ready = unix_accept, .opaque = sock };
	cd->data = sock;
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
