/*
 * The character devices "unix:PATH" and "tcp:HOST:PORT": a listening socket that talks to one client at a time. Output without a client
 * is kept, the newest part of it, for the next one. And "unix-connect:PATH", "tcp-connect:HOST:PORT": a connection to who listens there already, once.
 */
#define _GNU_SOURCE
#include "backend/chardev_private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct socket_chardev {
	struct chardev *cd;
	struct host_listener socket;
	struct event_source listener; /* active while there is no client, or one that takes no output any more */
	int client;		      /* -1: none */
};

/* ---- the client; loop's thread ---- */

static void listen_again(struct socket_chardev *sock)
{
	if (!sock->listener.active && sock->listener.fd >= 0)
		event_loop_add(sock->cd->loop, &sock->listener);
}

static void disconnect(struct socket_chardev *sock)
{
	if (sock->client < 0)
		return;
	chardev_input_stop(sock->cd);
	chardev_output_stop(sock->cd);
	close(sock->client);
	sock->client = -1;
	listen_again(sock);
}

static void accept_client(void *opaque, short revents)
{
	struct socket_chardev *sock = opaque;
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
static void input_ended(struct chardev *cd, int code)
{
	if (code || cd->out.fd < 0)
		disconnect(cd->data);
}

/* What it sent before it left is still read. */
static void output_failed(struct chardev *cd, int code)
{
	(void)code;
	if (cd->in.fd < 0)
		disconnect(cd->data);
	else
		listen_again(cd->data);
}

static ssize_t send_some(struct chardev *cd, const uint8_t *data, size_t size)
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

static void socket_close(struct chardev *cd)
{
	struct socket_chardev *sock = cd->data;

	if (sock->client >= 0)
		close(sock->client);
	event_loop_remove(cd->loop, &sock->listener);
	host_unix_unlisten(&sock->socket);
	free(sock);
}

/* Takes a descriptor, or an error. */
static int begin(struct chardev *cd, int fd, bool listens)
{
	struct socket_chardev *sock = cd->data;

	if (fd < 0)
		return fd;
	if (listens) {
		sock->listener.fd = fd;
		listen_again(sock);
		return 0;
	}
	sock->client = fd;
	chardev_input_start(cd, fd);
	chardev_output_start(cd, fd, true);
	return 0;
}

static int open_any(struct chardev *cd, const char *where, struct error *err)
{
	struct socket_chardev *sock = calloc(1, sizeof(*sock));
	bool listens = cd->kind == &chardev_unix || cd->kind == &chardev_tcp;
	int rc;

	if (!sock)
		return error_set_errno(err, ENOMEM, "cannot open");
	*sock = (struct socket_chardev){ .cd = cd, .client = -1, .socket.fd = -1 };
	sock->listener = (struct event_source){ .fd = -1, .events = POLLIN, .ready = accept_client, .opaque = sock };
	cd->data = sock;
	if (cd->kind == &chardev_unix) {
		rc = host_unix_listen(&sock->socket, where, err);
		rc = rc ? rc : begin(cd, sock->socket.fd, listens);
	} else if (cd->kind == &chardev_unix_connect) {
		rc = begin(cd, host_unix_connect(where, err), listens);
	} else {
		rc = begin(cd, host_tcp_open(where, listens, 1, err), listens);
		sock->socket.fd = sock->listener.fd;
	}
	if (rc)
		free(sock);
	return rc;
}

#define KIND(kind, its_name, its_argument, returns)                                                                    \
	const struct chardev_kind kind = {                                                                             \
		.name = its_name,                                                                                      \
		.argument = its_argument,                                                                              \
		.reader_returns = returns,                                                                             \
		.open = open_any,                                                                                      \
		.close = socket_close,                                                                                 \
		.send = send_some,                                                                                     \
		.input_ended = input_ended,                                                                            \
		.output_failed = output_failed,                                                                        \
	}
KIND(chardev_unix, "unix", "PATH", true);
KIND(chardev_tcp, "tcp", "HOST:PORT", true);
KIND(chardev_unix_connect, "unix-connect", "PATH", false);
KIND(chardev_tcp_connect, "tcp-connect", "HOST:PORT", false);
