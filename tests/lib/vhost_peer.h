/*
 * A vhost-user back end for the tests, in one thread: it serves one front end after the other, and does wrong what it is told to. What it does with chains is its owner's.
 */
#ifndef TESTS_LIB_VHOST_PEER_H
#define TESTS_LIB_VHOST_PEER_H

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define PEER_RINGS   8
#define PEER_REGIONS 8
#define PEER_PIECES  64

enum {
	PEER_GET_FEATURES = 1,
	PEER_SET_FEATURES = 2,
	PEER_SET_OWNER = 3,
	PEER_SET_MEM_TABLE = 5,
	PEER_SET_VRING_NUM = 8,
	PEER_SET_VRING_ADDR = 9,
	PEER_SET_VRING_BASE = 10,
	PEER_GET_VRING_BASE = 11,
	PEER_SET_VRING_KICK = 12,
	PEER_SET_VRING_CALL = 13,
	PEER_GET_PROTOCOL_FEATURES = 15,
	PEER_SET_PROTOCOL_FEATURES = 16,
	PEER_GET_QUEUE_NUM = 17,
	PEER_SET_VRING_ENABLE = 18,
	PEER_SET_BACKEND_REQ_FD = 21,
	PEER_GET_CONFIG = 24,
	PEER_SET_CONFIG = 25,
};
#define PEER_F_PROTOCOL	   (1ull << 30)
#define PEER_F_VERSION_1   (1ull << 32)
#define PEER_P_MQ	   1u
#define PEER_P_REPLY_ACK   8u
#define PEER_P_BACKEND_REQ 32u
#define PEER_P_CONFIG	   512u

/* What is done wrong with a request. */
enum peer_wrong {
	PEER_RIGHT,
	PEER_SILENT,
	PEER_CLOSES,
	PEER_OTHER_REQUEST,
	PEER_NO_REPLY_FLAG,
	PEER_VERSION,
	PEER_SHORT,
	PEER_LONG,
	PEER_HUGE, /* it says so */
	PEER_REFUSES,
	PEER_TWICE,
	PEER_WITH_FDS, /* which is not wrong, but nobody wants them */
	PEER_WRONGS,
};

struct peer_message {
	uint32_t request, flags, size;
	uint8_t data[400];
} __attribute__((packed));

struct peer_ring {
	unsigned size;
	uint8_t *descriptors, *available, *used;
	int kick_fd, call_fd;
	bool started;
	_Atomic bool enabled;
	uint16_t next_available, next_used;
};

struct peer_chain {
	uint16_t head;
	unsigned out_count, in_count;
	struct iovec out[PEER_PIECES], in[PEER_PIECES];
};

struct vhost_peer {
	/* What it says; set before it runs. */
	uint64_t features;
	uint32_t protocol;
	uint64_t queues;
	uint8_t config[256];
	void *opaque;
	/* Chains may be in the ring. NULL: they stay there. */
	void (*kicked)(struct vhost_peer *, unsigned ring);
	/* Something is to be done at the next turn of the loop: peer_poke() */
	void (*poked)(struct vhost_peer *);
	/* A descriptor more that is waited for; -1. */
	int more_fd;
	void (*more)(struct vhost_peer *);
	_Atomic unsigned wrong_request; /* 0: any */
	_Atomic int wrong;
	_Atomic unsigned connections; /* there were so many */
	_Atomic uint64_t driver_features;
	char path[108];
	/* Private */
	int listen_fd, fd, requests_fd, poke_fd, end_fd;
	uint32_t agreed; /* protocol features */
	struct {
		uint64_t guest, size, user;
		uint8_t *mapped;
		size_t mapped_size;
	} regions[PEER_REGIONS];
	unsigned region_count;
	struct peer_ring rings[PEER_RINGS];
};

static inline void peer_init(struct vhost_peer *p)
{
	*p = (struct vhost_peer){ .fd = -1, .requests_fd = -1, .listen_fd = -1, .more_fd = -1 };
	p->features = PEER_F_PROTOCOL | PEER_F_VERSION_1;
	p->protocol = PEER_P_MQ | PEER_P_REPLY_ACK | PEER_P_BACKEND_REQ | PEER_P_CONFIG;
	p->queues = PEER_RINGS;
	p->poke_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned n = 0; n < PEER_RINGS; n++)
		p->rings[n].kick_fd = p->rings[n].call_fd = -1;
}

/* In place of what was at the path. */
static inline bool peer_listen(struct vhost_peer *p, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(p->path, sizeof(p->path), "%s", path);
	memcpy(address.sun_path, p->path, sizeof(address.sun_path));
	p->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(path);
	return !bind(p->listen_fd, (struct sockaddr *)&address, sizeof(address)) && !listen(p->listen_fd, 4);
}

static inline void peer_signal(int fd)
{
	const uint64_t one = 1;

	if (fd >= 0 && write(fd, &one, sizeof(one)) < 0)
		return;
}

static inline void peer_poke(struct vhost_peer *p) { peer_signal(p->poke_fd); }
static inline void peer_end(struct vhost_peer *p) { peer_signal(p->end_fd); }

static inline void peer_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static inline void peer_forget_regions(struct vhost_peer *p)
{
	while (p->region_count) {
		p->region_count--;
		munmap(p->regions[p->region_count].mapped, p->regions[p->region_count].mapped_size);
	}
}

static inline void peer_disconnect(struct vhost_peer *p)
{
	peer_close_fd(&p->fd);
	peer_close_fd(&p->requests_fd);
	peer_forget_regions(p);
	for (unsigned n = 0; n < PEER_RINGS; n++) {
		peer_close_fd(&p->rings[n].kick_fd);
		peer_close_fd(&p->rings[n].call_fd);
		p->rings[n] = (struct peer_ring){ .kick_fd = -1, .call_fd = -1 };
	}
	p->agreed = 0;
}

static inline void peer_free(struct vhost_peer *p)
{
	peer_disconnect(p);
	peer_close_fd(&p->listen_fd);
	peer_close_fd(&p->poke_fd);
	peer_close_fd(&p->end_fd);
	unlink(p->path);
}

/* ---- memory ---- */

static inline uint8_t *peer_find(struct vhost_peer *p, uint64_t at, uint64_t size, bool user)
{
	for (unsigned n = 0; n < p->region_count; n++) {
		uint64_t start = user ? p->regions[n].user : p->regions[n].guest;

		if (at - start < p->regions[n].size && size <= p->regions[n].size - (at - start))
			return p->regions[n].mapped + (p->regions[n].mapped_size - p->regions[n].size) + (at - start);
	}
	return NULL;
}

static inline uint64_t peer_load(const void *at, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, at, size);
	return value;
}

static inline bool peer_map(struct vhost_peer *p, const struct peer_message *m, const int *fds, unsigned count)
{
	peer_forget_regions(p);
	for (unsigned n = 0; n < peer_load(m->data, 4) && n < count && n < PEER_REGIONS; n++) {
		const uint8_t *r = m->data + 8 + 32 * n;
		uint64_t offset = peer_load(r + 24, 8);
		size_t size = peer_load(r + 8, 8) + offset;
		void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[n], 0);

		if (mapped == MAP_FAILED)
			return false;
		p->regions[n].guest = peer_load(r, 8);
		p->regions[n].size = size - offset;
		p->regions[n].user = peer_load(r + 16, 8);
		p->regions[n].mapped = mapped;
		p->regions[n].mapped_size = size;
		p->region_count = n + 1;
	}
	return true;
}

/* ---- rings ---- */

static inline bool peer_add_piece(struct iovec *pieces, unsigned *count, void *base, size_t size)
{
	if (!base || *count == PEER_PIECES)
		return false;
	pieces[(*count)++] = (struct iovec){ base, size };
	return true;
}

static inline bool peer_has(const struct peer_ring *r)
{
	return r->started && r->available &&
	       atomic_load_explicit((_Atomic uint16_t *)(r->available + 2), memory_order_acquire) != r->next_available;
}

/* The next chain. */
static inline bool peer_pop(struct vhost_peer *p, unsigned n, struct peer_chain *c)
{
	struct peer_ring *r = &p->rings[n];
	unsigned at;

	if (!peer_has(r))
		return false;
	at = (unsigned)peer_load(r->available + 4 + 2 * (r->next_available++ % r->size), 2);
	c->head = (uint16_t)at;
	c->out_count = c->in_count = 0;
	for (unsigned steps = 0; steps <= r->size; steps++) {
		const uint8_t *d = r->descriptors + 16 * (at % r->size);
		uint64_t size = peer_load(d + 8, 4), flags = peer_load(d + 12, 2);
		void *base = peer_find(p, peer_load(d, 8), size, false);

		if (flags & 2 ? !peer_add_piece(c->in, &c->in_count, base, size)
			      : !peer_add_piece(c->out, &c->out_count, base, size))
			abort();
		if (!(flags & 1))
			break;
		at = (unsigned)peer_load(d + 14, 2);
	}
	return true;
}

/* `index`: of the ring, what the front end is told. */
static inline void peer_push_raw(struct peer_ring *r, uint32_t head, uint32_t written, uint16_t index)
{
	uint8_t *entry = r->used + 4 + 8 * (r->next_used++ % r->size);

	memcpy(entry, &head, 4);
	memcpy(entry + 4, &written, 4);
	atomic_store_explicit((_Atomic uint16_t *)(r->used + 2), index, memory_order_release);
}

static inline void peer_push(struct vhost_peer *p, unsigned n, uint16_t head, uint32_t written)
{
	struct peer_ring *r = &p->rings[n];

	peer_push_raw(r, head, written, (uint16_t)(r->next_used + 1));
	peer_signal(r->call_fd);
}

static inline size_t peer_copy(const struct iovec *pieces, unsigned count, size_t offset, void *data, size_t size,
			       bool write)
{
	size_t done = 0;

	for (unsigned n = 0; n < count && done < size; n++) {
		size_t skip = offset < pieces[n].iov_len ? offset : pieces[n].iov_len;
		size_t part = pieces[n].iov_len - skip < size - done ? pieces[n].iov_len - skip : size - done;
		uint8_t *piece = (uint8_t *)pieces[n].iov_base + skip;

		memcpy(write ? piece : (uint8_t *)data + done, write ? (uint8_t *)data + done : piece, part);
		offset -= skip;
		done += part;
	}
	return done;
}

/* ---- messages ---- */

static inline bool peer_read_all(int fd, void *to, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t got = read(fd, (uint8_t *)to + done, size - done);

		if (got <= 0)
			return false;
		done += (size_t)got;
	}
	return true;
}

static inline bool peer_receive(struct vhost_peer *p, struct peer_message *m, int *fds, unsigned *count)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(PEER_REGIONS * sizeof(int))];
	} control;
	struct iovec iov = { m, 12 };
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	ssize_t got = recvmsg(p->fd, &h, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&h) : NULL;

	*count = 0;
	if (c && c->cmsg_type == SCM_RIGHTS) {
		*count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), *count * sizeof(int));
	}
	return got == 12 && m->size <= sizeof(m->data) && peer_read_all(p->fd, m->data, m->size);
}

static inline void peer_send(int fd, const struct peer_message *m, size_t size, bool with_fds)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(20 * sizeof(int))];
	} control = { .room = { 0 } };
	struct iovec iov = { (void *)m, size };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (with_fds) {
		h.msg_control = &control;
		h.msg_controllen = sizeof(control.room);
		control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(20 * sizeof(int)),
						   .cmsg_level = SOL_SOCKET,
						   .cmsg_type = SCM_RIGHTS };
		for (unsigned n = 0; n < 20; n++)
			memcpy(CMSG_DATA(&control.header) + n * sizeof(int), &fd, sizeof(fd));
	}
	if (sendmsg(fd, &h, MSG_NOSIGNAL) < 0)
		return;
}

/* False: the connection is over. */
static inline bool peer_reply(struct vhost_peer *p, struct peer_message *m, uint32_t size)
{
	unsigned request = atomic_load(&p->wrong_request);
	int wrong = !request || request == m->request ? atomic_load(&p->wrong) : PEER_RIGHT;

	m->flags = 1 | 4;
	m->size = size;
	switch (wrong) {
	case PEER_SILENT: return true;
	case PEER_CLOSES: return false;
	case PEER_OTHER_REQUEST: m->request++; break;
	case PEER_NO_REPLY_FLAG: m->flags = 1; break;
	case PEER_VERSION: m->flags = 4 | 2; break;
	case PEER_SHORT: m->size = size - 1; break;
	case PEER_LONG: m->size = size + 8; break;
	case PEER_HUGE: m->size = UINT32_MAX - 3; break;
	default: break;
	}
	peer_send(p->fd, m, 12 + (m->size < sizeof(m->data) ? m->size : 8), wrong == PEER_WITH_FDS);
	if (wrong == PEER_TWICE)
		peer_send(p->fd, m, 12 + m->size, false);
	return true;
}

static inline bool peer_reply_number(struct vhost_peer *p, struct peer_message *m, uint64_t number)
{
	memcpy(m->data, &number, 8);
	return peer_reply(p, m, 8);
}

static inline void peer_take_fd(int *to, int *fds, unsigned count)
{
	peer_close_fd(to);
	if (count)
		*to = fds[0];
	fds[0] = count ? -1 : fds[0];
}

static inline bool peer_handle(struct vhost_peer *p, struct peer_message *m, int *fds, unsigned count)
{
	struct peer_ring *r = &p->rings[peer_load(m->data, 1) % PEER_RINGS];
	uint64_t value = peer_load(m->data + 4, 4);
	unsigned request = atomic_load(&p->wrong_request);

	switch (m->request) {
	case PEER_GET_FEATURES: return peer_reply_number(p, m, p->features);
	case PEER_GET_PROTOCOL_FEATURES: return peer_reply_number(p, m, p->protocol);
	case PEER_GET_QUEUE_NUM: return peer_reply_number(p, m, p->queues);
	case PEER_GET_CONFIG: memcpy(m->data + 12, p->config, sizeof(p->config)); return peer_reply(p, m, m->size);
	case PEER_SET_CONFIG:
		if (peer_load(m->data, 4) < sizeof(p->config) && peer_load(m->data + 4, 4) == 1)
			p->config[peer_load(m->data, 4)] = m->data[12];
		break;
	case PEER_GET_VRING_BASE:
		r->started = false;
		value = r->next_available;
		memcpy(m->data + 4, &value, 4);
		return peer_reply(p, m, 8);
	case PEER_SET_FEATURES: atomic_store(&p->driver_features, peer_load(m->data, 8)); break;
	case PEER_SET_PROTOCOL_FEATURES: p->agreed = (uint32_t)peer_load(m->data, 4); break;
	case PEER_SET_MEM_TABLE:
		if (!peer_map(p, m, fds, count))
			abort();
		break;
	case PEER_SET_VRING_NUM: r->size = (unsigned)value; break;
	case PEER_SET_VRING_BASE: r->next_available = r->next_used = (uint16_t)value; break;
	case PEER_SET_VRING_ADDR:
		r->descriptors = peer_find(p, peer_load(m->data + 8, 8), 16ull * r->size, true);
		r->used = peer_find(p, peer_load(m->data + 16, 8), 8ull * r->size, true);
		r->available = peer_find(p, peer_load(m->data + 24, 8), 2ull * r->size, true);
		break;
	case PEER_SET_VRING_KICK:
		peer_take_fd(&r->kick_fd, fds, count);
		r->started = true;
		break;
	case PEER_SET_VRING_CALL: peer_take_fd(&r->call_fd, fds, count); break;
	case PEER_SET_VRING_ENABLE: r->enabled = value; break;
	case PEER_SET_BACKEND_REQ_FD: peer_take_fd(&p->requests_fd, fds, count); break;
	default: break;
	}
	if (!(m->flags & 8))
		return true;
	return peer_reply_number(p, m, atomic_load(&p->wrong) == PEER_REFUSES && (!request || request == m->request));
}

static inline bool peer_serve_message(struct vhost_peer *p)
{
	int fds[PEER_REGIONS];
	unsigned count;
	struct peer_message m = { 0 };
	bool good = peer_receive(p, &m, fds, &count) && peer_handle(p, &m, fds, count);

	for (unsigned n = 0; n < count; n++)
		peer_close_fd(&fds[n]);
	return good;
}

/* Its configuration has changed; with an answer that the front end is asked for. */
static inline void peer_say_config(struct vhost_peer *p, uint32_t request, uint32_t flags)
{
	struct peer_message m = { .request = request, .flags = flags };

	peer_send(p->requests_fd, &m, 12, false);
}

/* ---- the loop: until peer_end() ---- */

static inline void peer_drain(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		return;
}

static inline void peer_run(struct vhost_peer *p)
{
	for (;;) {
		struct pollfd fds[5 + PEER_RINGS] = {
			{ p->end_fd, POLLIN, 0 },
			{ p->poke_fd, POLLIN, 0 },
			{ p->fd < 0 ? p->listen_fd : -1, POLLIN, 0 },
			{ p->fd, POLLIN, 0 },
			{ p->more_fd, POLLIN, 0 },
		};

		for (unsigned n = 0; n < PEER_RINGS; n++)
			fds[5 + n] = (struct pollfd){ p->rings[n].started ? p->rings[n].kick_fd : -1, POLLIN, 0 };
		if (poll(fds, 5 + PEER_RINGS, -1) < 0 && errno != EINTR)
			abort();
		if (fds[0].revents)
			return;
		if (fds[1].revents) {
			peer_drain(p->poke_fd);
			if (p->poked)
				p->poked(p);
		}
		if (fds[2].revents) {
			p->fd = accept(p->listen_fd, NULL, NULL);
			atomic_fetch_add(&p->connections, 1);
		}
		for (unsigned n = 0; n < PEER_RINGS; n++)
			if (fds[5 + n].revents && p->rings[n].started) {
				peer_drain(p->rings[n].kick_fd);
				if (p->kicked)
					p->kicked(p, n);
			}
		if (fds[4].revents && p->more)
			p->more(p);
		if (fds[3].revents && p->fd == fds[3].fd && !peer_serve_message(p))
			peer_disconnect(p);
	}
}

static inline void *peer_thread(void *peer)
{
	peer_run(peer);
	return NULL;
}

#endif
