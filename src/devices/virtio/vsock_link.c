/*
 * Connections of virtio-vsock: which there are, what the guest's packets do to them, what the host's sockets do, what is said to the guest. Credit (5.10.6.3) is kept by
 * three numbers for each direction, all modulo 2^32: bytes sent, bytes that the receiver has passed on, and the size of its buffer.
 */
#define _GNU_SOURCE
#include "devices/virtio/vsock_link.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_PORT  (1u << 30) /* of those that clients of the host's are given */
#define PIECES_MOST 1024u
#define BACKLOG	    128
#define TELL_TAKEN  (VSOCK_BUFFER / 2) /* a guest that knows of so much less credit than it has is told */
#define SUFFIX_MOST 11u		       /* _4294967295 */

static struct vsock_link *link_add(struct vsock_links *l, enum vsock_state state, int fd)
{
	struct vsock_link *link = l->count < VSOCK_LINKS_MOST ? calloc(1, sizeof(*link)) : NULL;

	if (!link)
		return NULL;
	link->state = state;
	link->fd = fd;
	list_append(&l->links, &link->node);
	l->count++;
	return link;
}

static void link_free(struct vsock_links *l, struct vsock_link *link)
{
	if (link->fd >= 0)
		close(link->fd);
	l->out_of_files = false;
	list_remove(&link->node);
	l->count--;
	free(link->waits);
	free(link);
}

/* One that is over is found while the guest has not been told. */
static struct vsock_link *find(struct vsock_links *l, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_link *link;

	list_for_each (link, &l->links, node)
		if (link->host_port == host_port && link->guest_port == guest_port && link->state != VSOCK_LINE &&
		    (link->state != VSOCK_OVER || link->says))
			return link;
	return NULL;
}

static bool has_waiting(const struct vsock_link *link) { return link->first < link->end; }

static void drop_waiting(struct vsock_link *link)
{
	link->taken += link->end - link->first;
	link->first = link->end = 0;
	free(link->waits);
	link->waits = NULL;
}

static void say(struct vsock_link *link, enum vsock_op op) { link->says |= 1u << op; }

/* For the guest: what it has sent may still be written. */
static void end_link(struct vsock_links *l, struct vsock_link *link, bool tell)
{
	link->state = VSOCK_OVER;
	link->says = tell ? 1u << VSOCK_OP_RST : 0;
	link->readable = false;
	l->thread_wanted = true;
}

static void reset_link(struct vsock_links *l, struct vsock_link *link)
{
	bool known = !(link->says & 1u << VSOCK_OP_REQUEST) && link->state != VSOCK_LINE;

	drop_waiting(link);
	end_link(l, link, known);
}

/* ---- to the host ---- */

/* Nobody reads the socket any more. */
static void set_deaf(struct vsock_link *link)
{
	drop_waiting(link);
	if (!link->deaf && link->state == VSOCK_CONNECTED)
		say(link, VSOCK_OP_SHUTDOWN);
	link->deaf = true;
}

/* How much of it the socket takes now. */
static size_t write_some(struct vsock_link *link, struct iovec *pieces, unsigned count)
{
	struct msghdr message = { .msg_iov = pieces, .msg_iovlen = count };
	ssize_t n;

	do
		n = sendmsg(link->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return (size_t)n;
	if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM)
		set_deaf(link);
	return 0;
}

/* Behind the last byte: the socket's other end sees the end of what is sent. */
static void shut_when_done(struct vsock_link *link)
{
	if (!(link->guest_flags & VSOCK_NO_SEND) || has_waiting(link) || link->shut || link->fd < 0)
		return;
	shutdown(link->fd, SHUT_WR);
	link->shut = true;
}

static void tell_taken(struct vsock_link *link)
{
	if (link->state == VSOCK_CONNECTED && link->taken - link->told >= TELL_TAKEN)
		say(link, VSOCK_OP_CREDIT_UPDATE);
}

static void write_waiting(struct vsock_link *link)
{
	struct iovec piece = { link->waits + link->first, link->end - link->first };
	size_t done = write_some(link, &piece, 1);

	if (!has_waiting(link))
		return;
	link->first += (uint32_t)done;
	link->taken += (uint32_t)done;
	if (!has_waiting(link))
		drop_waiting(link);
	tell_taken(link);
	shut_when_done(link);
}

/* False: there is no memory. The credit says that there is room. */
static bool keep(struct vsock_link *link, const struct iovec *pieces, unsigned count)
{
	if (!link->waits)
		link->waits = malloc(VSOCK_BUFFER);
	if (!link->waits)
		return false;
	memmove(link->waits, link->waits + link->first, link->end - link->first);
	link->end -= link->first;
	link->first = 0;
	for (unsigned n = 0; n < count; n++) {
		memcpy(link->waits + link->end, pieces[n].iov_base, pieces[n].iov_len);
		link->end += (uint32_t)pieces[n].iov_len;
	}
	return true;
}

/* The part [skip, skip + size) of the pieces, without copying; returns their number. */
static unsigned cut(const struct iovec *from, unsigned count, size_t skip, size_t size, struct iovec to[PIECES_MOST])
{
	unsigned used = 0;

	for (unsigned n = 0; n < count && size; n++) {
		size_t before = MIN(skip, from[n].iov_len), part = MIN(size, from[n].iov_len - before);

		skip -= before;
		size -= part;
		if (part)
			to[used++] = (struct iovec){ (uint8_t *)from[n].iov_base + before, part };
	}
	return used;
}

static void hear_data(struct vsock_links *l, struct vsock_link *link, uint32_t size, const struct iovec *from,
		      unsigned count, size_t skip)
{
	struct iovec pieces[PIECES_MOST];
	size_t done = 0;

	/* More than it had credit for, or behind its own end. */
	if (link->came - link->taken + size > VSOCK_BUFFER || size > VSOCK_BUFFER ||
	    link->guest_flags & VSOCK_NO_SEND) {
		reset_link(l, link);
		return;
	}
	link->came += size;
	if (!has_waiting(link) && !link->deaf)
		done = write_some(link, pieces, cut(from, count, skip, size, pieces));
	link->taken += (uint32_t)done;
	if (link->deaf) {
		link->taken += size - (uint32_t)done;
	} else if (done < size) {
		count = cut(from, count, skip + done, size - done, pieces);
		l->thread_wanted = true;
		if (!keep(link, pieces, count))
			reset_link(l, link);
	}
	tell_taken(link);
}

/* ---- packets of the guest's ---- */

static void reply_reset(struct vsock_links *l, const struct vsock_header *to)
{
	if (to->op == VSOCK_OP_RST)
		return;
	l->replies[(l->reply_first + l->reply_count++) % VSOCK_REPLIES_MOST] = (struct vsock_header){
		.src_cid = to->dst_cid,
		.dst_cid = l->guest_cid,
		.src_port = to->dst_port,
		.dst_port = to->src_port,
		.type = to->type,
		.op = VSOCK_OP_RST,
	};
	l->thread_wanted = true;
}

static void hear_request(struct vsock_links *l, const struct vsock_header *h)
{
	struct vsock_link *link = link_add(l, VSOCK_CONNECTS, -1);

	if (!link) {
		log_guest("vsock: the guest has %u connections, it gets no more", l->count);
		reply_reset(l, h);
		return;
	}
	link->host_port = h->dst_port;
	link->guest_port = h->src_port;
	link->guest_buffer = h->buf_alloc;
	link->guest_taken = h->fwd_cnt;
	l->thread_wanted = true;
}

static void hear_response(struct vsock_links *l, struct vsock_link *link)
{
	char line[32];
	struct iovec piece = { line, 0 };

	if (link->state != VSOCK_ASKED) {
		reset_link(l, link);
		return;
	}
	link->state = VSOCK_CONNECTED;
	l->thread_wanted = true;
	piece.iov_len = (size_t)snprintf(line, sizeof(line), "OK %u\n", link->host_port);
	if (write_some(link, &piece, 1) != piece.iov_len)
		reset_link(l, link);
}

static void hear_shutdown(struct vsock_links *l, struct vsock_link *link, uint32_t flags)
{
	link->guest_flags |= flags & (VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
	if (link->guest_flags & VSOCK_NO_RECEIVE) {
		link->readable = false;
		shutdown(link->fd, SHUT_RD);
	}
	shut_when_done(link);
	/* Both: it has closed it, and waits for a word that it may forget it. */
	if (link->guest_flags == (VSOCK_NO_RECEIVE | VSOCK_NO_SEND))
		end_link(l, link, true);
	l->thread_wanted = true;
}

/* What it sent before it closed is written, even if it has not waited for our word. */
static void hear_reset(struct vsock_links *l, struct vsock_link *link)
{
	if (!(link->guest_flags & VSOCK_NO_SEND))
		drop_waiting(link);
	end_link(l, link, false);
}

/* On a connection that stands. */
static void hear_on(struct vsock_links *l, struct vsock_link *link, const struct vsock_header *h,
		    const struct iovec *pieces, unsigned count, size_t skip)
{
	switch (h->op) {
	case VSOCK_OP_RW: hear_data(l, link, h->len, pieces, count, skip); break;
	case VSOCK_OP_SHUTDOWN: hear_shutdown(l, link, h->flags); break;
	case VSOCK_OP_CREDIT_UPDATE: break;
	case VSOCK_OP_CREDIT_REQUEST: say(link, VSOCK_OP_CREDIT_UPDATE); break;
	default: reset_link(l, link);
	}
}

void vsock_hear(struct vsock_links *l, const struct vsock_header *h, const struct iovec *pieces, unsigned count,
		size_t skip)
{
	struct vsock_link *link;

	BUG_ON(!vsock_hears(l));
	/* Nobody could get a reply. */
	if (h->src_cid != l->guest_cid) {
		log_guest("vsock: a packet from CID %llu, which is not the guest's", (unsigned long long)h->src_cid);
		return;
	}
	link = h->dst_cid == VSOCK_HOST_CID && h->type == VSOCK_TYPE_STREAM ? find(l, h->dst_port, h->src_port) : NULL;
	if (!link) {
		if (h->op == VSOCK_OP_REQUEST && h->dst_cid == VSOCK_HOST_CID && h->type == VSOCK_TYPE_STREAM)
			hear_request(l, h);
		else
			reply_reset(l, h);
		return;
	}
	if (link->guest_taken != h->fwd_cnt || link->guest_buffer != h->buf_alloc) {
		link->guest_taken = h->fwd_cnt;
		link->guest_buffer = h->buf_alloc;
		l->thread_wanted = true;
	}
	if (h->op == VSOCK_OP_RST)
		hear_reset(l, link);
	else if (h->op == VSOCK_OP_RESPONSE)
		hear_response(l, link);
	else if (link->state == VSOCK_CONNECTED)
		hear_on(l, link, h, pieces, count, skip);
	else if (link->state != VSOCK_OVER)
		reset_link(l, link);
	l->thread_wanted |= link->says != 0;
}

/* ---- to the guest ---- */

static uint32_t credit(const struct vsock_link *link)
{
	uint32_t on_the_way = link->sent - link->guest_taken;

	return on_the_way < link->guest_buffer ? link->guest_buffer - on_the_way : 0;
}

static bool receives(const struct vsock_link *link)
{
	return link->state == VSOCK_CONNECTED && !link->ended && !(link->guest_flags & VSOCK_NO_RECEIVE);
}

static bool may_read(const struct vsock_link *link) { return receives(link) && credit(link); }

static struct vsock_header header(const struct vsock_links *l, struct vsock_link *link, enum vsock_op op)
{
	link->told = link->taken;
	return (struct vsock_header){
		.src_cid = VSOCK_HOST_CID,
		.dst_cid = l->guest_cid,
		.src_port = link->host_port,
		.dst_port = link->guest_port,
		.type = VSOCK_TYPE_STREAM,
		.op = (uint16_t)op,
		.flags = op != VSOCK_OP_SHUTDOWN
				 ? 0
				 : (link->ended ? VSOCK_NO_SEND : 0) | (link->deaf ? VSOCK_NO_RECEIVE : 0),
		.buf_alloc = VSOCK_BUFFER,
		.fwd_cnt = link->taken,
	};
}

bool vsock_has_words(const struct vsock_links *l)
{
	const struct vsock_link *link;

	if (l->reply_count)
		return true;
	list_for_each (link, &l->links, node)
		if (link->says)
			return true;
	return false;
}

struct vsock_header vsock_say(struct vsock_links *l)
{
	struct vsock_link *link;
	enum vsock_op op;

	if (l->reply_count) {
		const struct vsock_header reply = l->replies[l->reply_first];

		l->reply_first = (l->reply_first + 1) % VSOCK_REPLIES_MOST;
		l->reply_count--;
		return reply;
	}
	list_for_each (link, &l->links, node)
		if (link->says)
			break;
	BUG_ON(&link->node == &l->links);
	op = (enum vsock_op)__builtin_ctz(link->says);
	link->says &= ~(1u << op);
	/* All but an end tell the credit as well. */
	if (op != VSOCK_OP_RST)
		link->says &= ~(1u << VSOCK_OP_CREDIT_UPDATE);
	return header(l, link, op);
}

bool vsock_has_data(const struct vsock_links *l)
{
	const struct vsock_link *link;

	list_for_each (link, &l->links, node)
		if (link->readable && may_read(link))
			return true;
	return false;
}

static size_t read_link(struct vsock_links *l, struct vsock_link *link, const struct iovec *from, unsigned count)
{
	struct iovec pieces[PIECES_MOST];
	struct msghdr message = { .msg_iov = pieces };
	size_t room = 0;
	ssize_t n;

	message.msg_iovlen = cut(from, count, 0, credit(link), pieces);
	for (size_t i = 0; i < message.msg_iovlen; i++)
		room += pieces[i].iov_len;
	do
		n = recvmsg(link->fd, &message, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	link->readable = n > 0 && (size_t)n == room;
	if (n > 0)
		return (size_t)n;
	if (!n || (errno != EAGAIN && errno != ENOMEM && errno != ENOBUFS)) {
		link->ended = true;
		if (n < 0)
			set_deaf(link);
		say(link, VSOCK_OP_SHUTDOWN);
		l->thread_wanted = true;
	}
	return 0;
}

size_t vsock_read(struct vsock_links *l, struct vsock_header *h, const struct iovec *pieces, unsigned count)
{
	struct vsock_link *link, *next;
	size_t size;

	list_for_each_safe (link, next, &l->links, node) {
		if (!link->readable || !may_read(link))
			continue;
		size = read_link(l, link, pieces, count);
		if (!size)
			continue;
		link->sent += (uint32_t)size;
		if (!credit(link))
			say(link, VSOCK_OP_CREDIT_REQUEST);
		*h = header(l, link, VSOCK_OP_RW);
		h->len = (uint32_t)size;
		/* Others have their turn. */
		list_remove(&link->node);
		list_append(&l->links, &link->node);
		return size;
	}
	return 0;
}

/* ---- the host's sockets ---- */

static uint32_t free_port(struct vsock_links *l, uint32_t guest_port)
{
	uint32_t port;

	do {
		port = l->next_port++;
		if (l->next_port >> 31)
			l->next_port = FIRST_PORT;
	} while (find(l, port, guest_port));
	return port;
}

/* "CONNECT 1234" */
static bool parse_line(const char *line, uint32_t *port)
{
	static const char word[] = "CONNECT ";
	char *rest;
	unsigned long long value;

	if (strncmp(line, word, sizeof(word) - 1) != 0 || line[8] < '0' || line[8] > '9')
		return false;
	value = strtoull(line + 8, &rest, 10);
	*port = (uint32_t)value;
	return (!*rest || !strcmp(rest, "\r")) && value < UINT32_MAX;
}

/* Not a byte of what is behind the line. False: it will never be one. */
static bool read_line(struct vsock_links *l, struct vsock_link *link)
{
	size_t room = VSOCK_LINE_MOST - link->line_size;
	char *at = link->line + link->line_size, *newline;
	ssize_t n = recv(link->fd, at, room, MSG_DONTWAIT | MSG_PEEK);

	if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOMEM))
		return true;
	newline = n > 0 ? memchr(at, '\n', (size_t)n) : NULL;
	if (newline)
		n = newline + 1 - at;
	if (n <= 0 || recv(link->fd, at, (size_t)n, MSG_DONTWAIT) != n)
		return false;
	link->line_size += (unsigned)n;
	if (!newline)
		return link->line_size < VSOCK_LINE_MOST;
	*newline = 0;
	if (strlen(link->line) + 1 != link->line_size || !parse_line(link->line, &link->guest_port))
		return false;
	link->host_port = free_port(l, link->guest_port);
	link->state = VSOCK_ASKED;
	say(link, VSOCK_OP_REQUEST);
	return true;
}

struct vsock_link *vsock_connects(struct vsock_links *l, char path[VSOCK_PATH_SIZE])
{
	struct vsock_link *link;

	list_for_each (link, &l->links, node) {
		if (link->state != VSOCK_CONNECTS)
			continue;
		snprintf(path, VSOCK_PATH_SIZE, "%s_%u", l->listener.path, link->host_port);
		return link;
	}
	return NULL;
}

void vsock_connected(struct vsock_links *l, struct vsock_link *link, int fd)
{
	link->fd = MAX(fd, -1);
	/* The guest may have changed its mind. */
	if (link->state != VSOCK_CONNECTS)
		return;
	if (fd < 0) {
		reset_link(l, link);
		return;
	}
	link->state = VSOCK_CONNECTED;
	say(link, VSOCK_OP_RESPONSE);
}

/* Clients that say nothing do not keep others away. */
static void limit_lines(struct vsock_links *l)
{
	struct vsock_link *link, *first = NULL;
	unsigned count = 0;

	list_for_each (link, &l->links, node) {
		if (link->state != VSOCK_LINE)
			continue;
		count++;
		first = first ? first : link;
	}
	if (count > VSOCK_LINES_MOST)
		reset_link(l, first);
}

static void accept_one(struct vsock_links *l)
{
	int fd = accept4(l->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		/* It would be told again at once, for ever. */
		l->out_of_files = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;
		if (l->out_of_files)
			log_guest("vsock: %s; nobody is let in until a connection ends", strerror(errno));
		return;
	}
	if (!link_add(l, VSOCK_LINE, fd))
		close(fd);
	limit_lines(l);
}

static short events_of(struct vsock_link *link, bool driver_receives)
{
	short events = has_waiting(link) ? POLLOUT : 0;

	if (link->state == VSOCK_LINE)
		events |= POLLIN;
	else if (driver_receives && !link->readable && may_read(link))
		events |= POLLIN;
	return events;
}

unsigned vsock_prepare(struct vsock_links *l, struct pollfd *fds, bool driver_receives)
{
	struct vsock_link *link;
	unsigned count = 0;

	fds[count++] = (struct pollfd){ .fd = l->listener.fd, .events = POLLIN };
	/* At the limit they wait, where the host lets them. */
	if (l->count == VSOCK_LINKS_MOST || l->out_of_files)
		fds[0].fd = -1;
	list_for_each (link, &l->links, node) {
		short events = events_of(link, driver_receives);

		link->polled = NULL;
		if (link->fd < 0 || (link->hung && !events))
			continue;
		link->polled = &fds[count];
		fds[count++] = (struct pollfd){ .fd = link->fd, .events = events };
	}
	return count;
}

/* The other end is gone: what it sent is still read. */
static void hang_up(struct vsock_links *l, struct vsock_link *link)
{
	link->hung = true;
	if (link->state == VSOCK_ASKED)
		reset_link(l, link);
	else
		set_deaf(link);
}

static void link_ready(struct vsock_links *l, struct vsock_link *link, short events, bool started)
{
	if (link->state == VSOCK_LINE) {
		if (events && !(read_line(l, link) && (started || link->state == VSOCK_LINE)))
			reset_link(l, link);
		return;
	}
	if (events & POLLOUT)
		write_waiting(link);
	if (events & (POLLHUP | POLLERR | POLLNVAL))
		hang_up(l, link);
	if (events & (POLLIN | POLLHUP | POLLERR) && receives(link))
		link->readable = true;
}

void vsock_ready(struct vsock_links *l, const struct pollfd *fds, bool started)
{
	struct vsock_link *link;

	list_for_each (link, &l->links, node)
		if (link->polled && link->polled->revents)
			link_ready(l, link, link->polled->revents, started);
	if (fds[0].revents)
		accept_one(l);
}

void vsock_reap(struct vsock_links *l)
{
	struct vsock_link *link, *next;

	list_for_each_safe (link, next, &l->links, node) {
		if (link->state != VSOCK_OVER || has_waiting(link))
			continue;
		if (!link->says) {
			link_free(l, link);
		} else if (link->fd >= 0) {
			close(link->fd);
			link->fd = -1;
		}
	}
}

/* ---- life ---- */

void vsock_forget(struct vsock_links *l)
{
	struct vsock_link *link;

	list_for_each (link, &l->links, node) {
		if (link->state == VSOCK_LINE)
			continue;
		if (!(link->guest_flags & VSOCK_NO_SEND))
			drop_waiting(link);
		end_link(l, link, false);
	}
	l->reply_count = 0;
	l->thread_wanted = true;
}

int vsock_open(struct vsock_links *l, const char *path, uint64_t guest_cid, struct error *err)
{
	int rc;

	*l = (struct vsock_links){ .listener.fd = -1, .guest_cid = guest_cid, .next_port = FIRST_PORT };
	list_init(&l->links);
	if (!*path || strlen(path) + SUFFIX_MOST >= sizeof(l->listener.path))
		return error_set(err, EINVAL,
				 "the path '%.128s' has %zu bytes; expected 1 to %zu, so that there is room for a port",
				 path, strlen(path), sizeof(l->listener.path) - SUFFIX_MOST - 1);
	rc = host_unix_listen(&l->listener, path, err);
	if (!rc && listen(l->listener.fd, BACKLOG))
		rc = error_set_errno(err, errno, "cannot listen on '%s'", path);
	return rc;
}

void vsock_close(struct vsock_links *l)
{
	struct vsock_link *link, *next;

	list_for_each_safe (link, next, &l->links, node)
		link_free(l, link);
	host_unix_unlisten(&l->listener);
}
