/*
 * A net that is a stream to another program: QEMU, passt, gvproxy, another doppel. Its link is up while the other end is connected; a client connects
 * again when that went away, a server takes the next one.
 *
 * The stream knows of no offloads: frames to it are cut and summed up here.
 */
#define _GNU_SOURCE
#include "net/framing.h"
#include "net/net_private.h"
#include "net/offload.h"
#include "net/ring.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_TIMEOUT 10000 /* ms, at the start */
#define CONNECT_AGAIN	1000
/* The largest frame, cut into the smallest segments, each with all headers. */
#define OUT_SIZE (512u << 10)
#define IN_SIZE	 (256u << 10)

struct stream {
	struct host_listener listener; /* fd -1: a client */
	struct addrinfo *addresses;    /* of tcp */
	int fd;			       /* -1: nobody is there. Changed under send_lock */
	bool connecting;	       /* the net's thread's, as what follows */
	size_t in_first, in_end;
	uint8_t *in;
	/* Under send_lock: */
	struct frame_sink sink;
	size_t out_first, out_end;
	uint8_t *out;
	uint8_t frame[NET_FRAME_MAX];
};

/* ---- to the other end; send_lock held ---- */

static void put(struct frame_sink *sink, const uint8_t *frame, size_t size, const struct net_offload *offload)
{
	struct stream *s = container_of(sink, struct stream, sink);

	(void)offload;
	if (OUT_SIZE - s->out_end < FRAMING_HEADER + size)
		return;
	framing_header(s->out + s->out_end, size);
	memcpy(s->out + s->out_end + FRAMING_HEADER, frame, size);
	s->out_end += FRAMING_HEADER + size;
}

/* What does not go is sent later; that the other end is gone is found by reading. */
static void flush_out(struct stream *s)
{
	while (s->fd >= 0 && s->out_first < s->out_end) {
		ssize_t n = send(s->fd, s->out + s->out_first, s->out_end - s->out_first, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM))
			return;
		s->out_first = n < 0 ? s->out_end : s->out_first + (size_t)n;
	}
	s->out_first = s->out_end = 0;
}

static int stream_send(struct net *net, const struct iovec *iov, unsigned count, size_t size,
		       const struct net_offload *offload)
{
	struct stream *s = net->data;

	if (s->fd < 0 || s->connecting)
		return 0;
	if (s->out_end)
		return -EAGAIN;
	net_gather(s->frame, iov, count, 0, size);
	offload_apply(s->frame, size, offload, 0, &s->sink);
	flush_out(s);
	/* The thread is to wait for room. */
	if (s->out_end)
		wake_event(net->wake_fd);
	return 0;
}

static bool out_waits(struct net *net)
{
	bool waits;

	pthread_mutex_lock(&net->send_lock);
	waits = ((struct stream *)net->data)->out_end;
	pthread_mutex_unlock(&net->send_lock);
	return waits;
}

static void out_again(struct net *net)
{
	struct stream *s = net->data;

	pthread_mutex_lock(&net->send_lock);
	flush_out(s);
	pthread_mutex_unlock(&net->send_lock);
	if (!out_waits(net))
		net_writable(net);
}

/* ---- connections ---- */

static void set_connection(struct net *net, int fd, bool connecting)
{
	struct stream *s = net->data;
	const int on = 1;

	pthread_mutex_lock(&net->send_lock);
	if (s->fd >= 0 && s->fd != fd)
		close(s->fd);
	s->fd = fd;
	s->connecting = connecting;
	s->out_first = s->out_end = 0;
	pthread_mutex_unlock(&net->send_lock);
	s->in_first = s->in_end = 0;
	if (fd >= 0 && net->spec.kind == NET_STREAM_TCP)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	net_set_link(net, fd >= 0 && !connecting);
	net_writable(net);
}

static int connect_tcp(struct net *net, struct error *err)
{
	const struct addrinfo *a = ((struct stream *)net->data)->addresses;
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int code;

	if (fd < 0)
		return error_set_errno(err, errno, "cannot create a socket");
	if (!connect(fd, a->ai_addr, a->ai_addrlen) || errno == EINPROGRESS)
		return fd;
	code = errno;
	close(fd);
	return error_set_errno(err, code, "cannot connect to %s port %s", net->spec.where, net->spec.port);
}

/* A client: begins to; a Unix socket is connected at once. */
static int begin_to_connect(struct net *net, struct error *err)
{
	bool tcp = net->spec.kind == NET_STREAM_TCP;
	int fd = tcp ? connect_tcp(net, err) : host_unix_connect(net->spec.where, err);

	if (fd < 0)
		return fd;
	set_connection(net, fd, tcp);
	return 0;
}

/* The socket became writable: connected, or not. */
static int finish_connecting(struct net *net, struct error *err)
{
	struct stream *s = net->data;
	socklen_t size = sizeof(int);
	int code = 0;

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &code, &size))
		code = errno;
	set_connection(net, code ? -1 : s->fd, false);
	return code ? error_set_errno(err, code, "cannot connect to %s port %s", net->spec.where, net->spec.port) : 0;
}

/* False: as what finds the end of a connection says. */
static bool ended(const struct net *net, const char *why)
{
	const struct stream *s = net->data;

	log_guest("network: %s; %s", why, s->listener.fd >= 0 ? "waiting for another connection" : "connecting again");
	return false;
}

static void accept_one(struct net *net)
{
	struct stream *s = net->data;
	int fd = accept4(s->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0)
		set_connection(net, fd, false);
}

/* ---- from the other end ---- */

/* Frames that are there whole. False: the other end is not to be believed. */
static bool deliver_buffered(struct net *net)
{
	struct stream *s = net->data;
	struct net_frame frames[NET_BATCH];
	unsigned taken;
	size_t used;
	int count;

	while (!net_holds(net)) {
		count = framing_parse(s->in + s->in_first, s->in_end - s->in_first, frames, NET_BATCH, &used);
		if (count < 0)
			return ended(net, "the other end sent a length that no frame has");
		taken = count ? net_deliver(net, frames, (unsigned)count) : 0;
		if (taken < (unsigned)count)
			used = (size_t)(frames[taken].data - FRAMING_HEADER - (s->in + s->in_first));
		s->in_first += used;
		if (!used)
			break;
	}
	return true;
}

/* False: the connection ended. There is room: what is left in the buffer is no whole frame. */
static bool read_more(struct net *net)
{
	struct stream *s = net->data;
	ssize_t n;

	memmove(s->in, s->in + s->in_first, s->in_end - s->in_first);
	s->in_end -= s->in_first;
	s->in_first = 0;
	n = recv(s->fd, s->in + s->in_end, IN_SIZE - s->in_end, MSG_DONTWAIT);
	if (n > 0)
		s->in_end += (size_t)n;
	if (n == 0)
		return ended(net, "the other end is gone");
	return n > 0 || errno == EAGAIN || errno == EINTR || errno == ENOMEM || ended(net, strerror(errno));
}

/* ---- the thread ---- */

static unsigned stream_prepare(struct net *net, struct pollfd *fds, int *timeout)
{
	struct stream *s = net->data;

	if (s->fd < 0 && s->listener.fd >= 0) {
		fds[0] = (struct pollfd){ .fd = s->listener.fd, .events = POLLIN };
		return 1;
	}
	if (s->fd < 0) {
		*timeout = CONNECT_AGAIN;
		return 0;
	}
	fds[0] = (struct pollfd){ .fd = s->fd };
	if (s->connecting || out_waits(net))
		fds[0].events |= POLLOUT;
	if (!s->connecting && !net_holds(net))
		fds[0].events |= POLLIN;
	/* A hang-up would be told again and again. */
	if (!fds[0].events)
		fds[0].fd = -1;
	return 1;
}

static void stream_ready(struct net *net, const struct pollfd *fds)
{
	struct stream *s = net->data;
	bool good;

	if (s->fd < 0 && s->listener.fd < 0) {
		begin_to_connect(net, NULL);
		return;
	}
	if (s->fd < 0) {
		if (fds[0].revents)
			accept_one(net);
		return;
	}
	if (s->connecting) {
		if (fds[0].revents)
			finish_connecting(net, NULL);
		return;
	}
	if (fds[0].revents & POLLOUT)
		out_again(net);
	/* First what the card had no room for: then there is room for more. */
	good = deliver_buffered(net);
	if (good && fds[0].revents & (POLLIN | POLLHUP | POLLERR) && !net_holds(net))
		good = read_more(net) && deliver_buffered(net);
	if (!good)
		set_connection(net, -1, false);
}

/* ---- life ---- */

static int resolve(struct net *net, struct error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = net->spec.server ? AI_PASSIVE : 0 };
	struct stream *s = net->data;
	int code = getaddrinfo(net->spec.where, net->spec.port, &hints, &s->addresses);

	return code ? error_set(err, EINVAL, "'%s': %s", net->spec.where, gai_strerror(code)) : 0;
}

static int listen_tcp(struct net *net, struct error *err)
{
	struct stream *s = net->data;

	s->listener.fd = host_tcp_listen(s->addresses, 1, net->spec.where, net->spec.port, err);
	return MIN(s->listener.fd, 0);
}

static int connect_first(struct net *net, struct error *err)
{
	struct stream *s = net->data;
	struct pollfd wait = { .events = POLLOUT };
	int rc = begin_to_connect(net, err);

	if (rc || !s->connecting)
		return rc;
	wait.fd = s->fd;
	if (poll(&wait, 1, CONNECT_TIMEOUT) > 0)
		return finish_connecting(net, err);
	return error_set(err, ETIMEDOUT, "%s port %s does not answer", net->spec.where, net->spec.port);
}

static void stream_close(struct net *net)
{
	struct stream *s = net->data;

	host_unix_unlisten(&s->listener);
	if (s->fd >= 0)
		close(s->fd);
	if (s->addresses)
		freeaddrinfo(s->addresses);
	free(s->in);
	free(s->out);
	free(s);
}

static int stream_open(struct net *net, struct error *err)
{
	struct stream *s = calloc(1, sizeof(*s));
	bool tcp = net->spec.kind == NET_STREAM_TCP;
	int rc = 0;

	if (!s)
		return error_set_errno(err, ENOMEM, "network");
	*s = (struct stream){ .listener.fd = -1, .fd = -1, .in = malloc(IN_SIZE), .out = malloc(OUT_SIZE) };
	s->sink.put = put;
	net->data = s;
	atomic_store(&net->up, false);
	if (!s->in || !s->out)
		rc = error_set_errno(err, ENOMEM, "network");
	if (!rc && tcp)
		rc = resolve(net, err);
	if (!rc && net->spec.server)
		rc = tcp ? listen_tcp(net, err) : host_unix_listen(&s->listener, net->spec.where, err);
	else if (!rc)
		rc = connect_first(net, err);
	if (rc)
		stream_close(net);
	return rc;
}

const struct net_kind net_stream = {
	.open = stream_open,
	.close = stream_close,
	.send = stream_send,
	.prepare = stream_prepare,
	.ready = stream_ready,
};
