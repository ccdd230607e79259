/*
 * A connection: what both sides can do, the memory that they share, rings that start and stop.
 *
 * The back end knows guest RAM and the rings' memory as two regions of addresses, which are ours alone: RAM is at 0 as its file is, however the guest's map shows it.
 */
#define _GNU_SOURCE
#include "vhost/private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define F_PROTOCOL  BIT(30) /* among virtio's features: there are those of the protocol */
#define F_VERSION_1 BIT(32)

/* Features of the protocol */
#define P_MQ	      BIT(0)
#define P_REPLY_ACK   BIT(3)
#define P_BACKEND_REQ BIT(5)
#define P_CONFIG      BIT(9)
#define P_WANTED      (P_MQ | P_REPLY_ACK | P_BACKEND_REQ | P_CONFIG)

struct vhost {
	int fd, requests_fd;
	const struct host_memory *ram;
	struct host_memory rings_memory;
	uint64_t features, protocol, deadline;
	unsigned timeout_ms, ring_count;
	struct vhost_ring rings[VHOST_RINGS_MOST];
};

const char *vhost_path(const char *spec)
{
	return strncmp(spec, VHOST_PREFIX, strlen(VHOST_PREFIX)) ? NULL : spec + strlen(VHOST_PREFIX);
}

static void set_deadline(struct vhost *v) { v->deadline = host_monotonic_ns() + v->timeout_ms * 1000000ull; }

/* ---- requests ---- */

static int ask(struct vhost *v, struct vhost_message *m, const int *fds, unsigned count, struct error *err)
{
	uint32_t request = m->request;
	int rc = vhost_send(v->fd, m, fds, count, v->deadline, err);

	if (!rc)
		rc = vhost_receive(v->fd, m, v->deadline, err);
	if (!rc && (m->request != request || !(m->flags & VHOST_REPLY)))
		rc = error_set(err, EPROTO, "message %u came; expected the reply", m->request);
	return rc ? error_prefix(err, "%s", vhost_request_name(request)) : 0;
}

/* A reply of this size. */
static int check_size(const struct vhost_message *m, unsigned size, struct error *err)
{
	if (m->size == size)
		return 0;
	return error_set(err, EPROTO, "%s: a reply of %u bytes; expected %u", vhost_request_name(m->request), m->size,
			 size);
}

static int ask_number(struct vhost *v, enum vhost_request request, uint64_t *number, struct error *err)
{
	struct vhost_message m = { .request = request, .flags = VHOST_VERSION };
	int rc = ask(v, &m, NULL, 0, err);

	if (!rc)
		rc = check_size(&m, sizeof(m.number), err);
	if (!rc)
		*number = m.number;
	return rc;
}

/* What has no reply of its own has one if both know of that: an error. */
static int tell(struct vhost *v, struct vhost_message *m, const int *fds, unsigned count, struct error *err)
{
	uint32_t request = m->request;
	int rc;

	m->flags = VHOST_VERSION;
	if (!(v->protocol & P_REPLY_ACK)) {
		rc = vhost_send(v->fd, m, fds, count, v->deadline, err);
		return rc ? error_prefix(err, "%s", vhost_request_name(request)) : 0;
	}
	m->flags |= VHOST_NEED_REPLY;
	rc = ask(v, m, fds, count, err);
	if (!rc)
		rc = check_size(m, sizeof(m->number), err);
	if (!rc && m->number)
		rc = error_set(err, EPROTO, "%s: the back end refuses it", vhost_request_name(request));
	return rc;
}

static int tell_number(struct vhost *v, enum vhost_request request, uint64_t number, int fd, struct error *err)
{
	struct vhost_message m = { .request = request, .size = sizeof(m.number), .number = number };

	return tell(v, &m, &fd, fd >= 0, err);
}

static int tell_ring(struct vhost *v, enum vhost_request request, unsigned n, uint32_t value, struct error *err)
{
	struct vhost_message m = { .request = request, .size = sizeof(m.ring), .ring = { n, value } };

	return tell(v, &m, NULL, 0, err);
}

/* ---- the beginning ---- */

static uint64_t rings_address(const struct vhost *v) { return align_up(v->ram->size, 1ull << 30); }

static int share_memory(struct vhost *v, struct error *err)
{
	const struct host_memory *rings = &v->rings_memory;
	struct vhost_message m = {
		.request = VHOST_SET_MEM_TABLE,
		.size = sizeof(m.memory),
		.memory = { .count = 2,
			    .regions = { { 0, v->ram->size, (uintptr_t)v->ram->base, 0 },
					 { rings_address(v), rings->size, (uintptr_t)rings->base, 0 } } },
	};

	return tell(v, &m, (const int[]){ v->ram->fd, rings->fd }, 2, err);
}

/* Where the back end says that its configuration space has changed. */
static int give_requests_fd(struct vhost *v, struct error *err)
{
	int fds[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
		return error_set_errno(err, errno, "cannot create a socket");
	v->requests_fd = fds[0];
	{
		struct vhost_message m = { .request = VHOST_SET_BACKEND_REQ_FD };

		rc = tell(v, &m, &fds[1], 1, err);
	}
	close(fds[1]);
	return rc;
}

static int agree_on_protocol(struct vhost *v, const struct vhost_setup *setup, struct error *err)
{
	uint64_t protocol = 0, rings = 0;
	int rc;

	if (!(v->features & F_PROTOCOL))
		return 0;
	rc = ask_number(v, VHOST_GET_PROTOCOL_FEATURES, &protocol, err);
	if (rc)
		return rc;
	protocol &= setup->config_size ? P_WANTED : P_WANTED & ~(P_CONFIG | P_BACKEND_REQ);
	rc = tell_number(v, VHOST_SET_PROTOCOL_FEATURES, protocol, -1, err);
	v->protocol = protocol; /* replies to what follows */
	if (!rc && protocol & P_MQ) {
		rc = ask_number(v, VHOST_GET_QUEUE_NUM, &rings, err);
		v->ring_count = (unsigned)MIN(MIN(rings, VHOST_RINGS_MOST) * (setup->pairs ? 2 : 1), VHOST_RINGS_MOST);
	}
	return rc;
}

static int check_setup(struct vhost *v, const struct vhost_setup *setup, struct error *err)
{
	if (!(v->features & F_VERSION_1))
		return error_set(err, ENOTSUP, "the back end knows nothing of virtio 1.0 (VIRTIO_F_VERSION_1)");
	if (setup->config_size && !(v->protocol & P_CONFIG))
		return error_set(
			err, ENOTSUP,
			"the back end does not tell its configuration (VHOST_USER_PROTOCOL_F_CONFIG): is it one for "
			"this kind of device?");
	if (v->ring_count < setup->rings)
		return error_set(err, ENOTSUP, "the back end serves %u queues; expected at least %u", v->ring_count,
				 setup->rings);
	return 0;
}

static int shake_hands(struct vhost *v, const struct vhost_setup *setup, struct error *err)
{
	struct vhost_message owner = { .request = VHOST_SET_OWNER };
	int rc = ask_number(v, VHOST_GET_FEATURES, &v->features, err);

	if (!rc)
		rc = agree_on_protocol(v, setup, err);
	if (!rc)
		rc = check_setup(v, setup, err);
	if (!rc)
		rc = tell(v, &owner, NULL, 0, err);
	if (!rc && v->protocol & P_BACKEND_REQ)
		rc = give_requests_fd(v, err);
	return rc ? rc : share_memory(v, err);
}

static int open_ring(struct vhost *v, unsigned n, struct error *err)
{
	struct vhost_ring *r = &v->rings[n];

	vhost_ring_init(r, v->rings_memory.base + n * VHOST_RING_BYTES, v->ram);
	r->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return r->kick_fd < 0 || r->call_fd < 0 ? error_set_errno(err, errno, "cannot create an eventfd") : 0;
}

static int open_all(struct vhost *v, const struct vhost_setup *setup, struct error *err)
{
	int rc = host_memory_create(&v->rings_memory, "vhost-rings", (size_t)VHOST_RINGS_MOST * VHOST_RING_BYTES, err);

	for (unsigned n = 0; !rc && n < VHOST_RINGS_MOST; n++)
		rc = open_ring(v, n, err);
	if (rc)
		return rc;
	v->fd = host_unix_connect(setup->path, err);
	if (v->fd < 0)
		return v->fd;
	rc = shake_hands(v, setup, err);
	return rc ? error_prefix(err, "vhost-user back end '%s'", setup->path) : 0;
}

struct vhost *vhost_open(const struct vhost_setup *setup, struct error *err)
{
	struct vhost *v = calloc(1, sizeof(*v));

	if (!v) {
		error_set_errno(err, ENOMEM, "vhost-user back end '%s'", setup->path);
		return NULL;
	}
	v->fd = v->requests_fd = v->rings_memory.fd = -1;
	for (unsigned n = 0; n < VHOST_RINGS_MOST; n++)
		v->rings[n].kick_fd = v->rings[n].call_fd = -1;
	v->ram = setup->ram;
	v->timeout_ms = setup->timeout_ms;
	/* Without the protocol's features there is no asking: back ends of those days had a pair of queues, for a network card. */
	v->ring_count = 2;
	set_deadline(v);
	if (!open_all(v, setup, err))
		return v;
	vhost_close(v);
	return NULL;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void vhost_close(struct vhost *v)
{
	if (!v)
		return;
	close_fd(v->fd);
	close_fd(v->requests_fd);
	for (unsigned n = 0; n < VHOST_RINGS_MOST; n++) {
		close_fd(v->rings[n].kick_fd);
		close_fd(v->rings[n].call_fd);
	}
	host_memory_destroy(&v->rings_memory);
	free(v);
}

/* ---- what the back end is ---- */

uint64_t vhost_features(const struct vhost *v) { return v->features & ~F_PROTOCOL; }
unsigned vhost_ring_count(const struct vhost *v) { return v->ring_count; }

int vhost_set_features(struct vhost *v, uint64_t features, struct error *err)
{
	set_deadline(v);
	return tell_number(v, VHOST_SET_FEATURES, features | (v->features & F_PROTOCOL), -1, err);
}

int vhost_get_config(struct vhost *v, uint8_t *config, unsigned size, struct error *err)
{
	unsigned bytes = (unsigned)offsetof(struct vhost_message, config.bytes) -
			 (unsigned)offsetof(struct vhost_message, config) + size;
	struct vhost_message m = {
		.request = VHOST_GET_CONFIG, .flags = VHOST_VERSION, .size = bytes, .config.size = size
	};
	int rc;

	BUG_ON(size > VHOST_CONFIG_MOST);
	set_deadline(v);
	rc = ask(v, &m, NULL, 0, err);
	if (!rc)
		rc = check_size(&m, bytes, err);
	if (!rc)
		memcpy(config, m.config.bytes, size);
	return rc;
}

int vhost_set_config(struct vhost *v, unsigned offset, uint8_t value, struct error *err)
{
	struct vhost_message m = { .request = VHOST_SET_CONFIG,
				   .size = offsetof(struct vhost_message, config.bytes) + 1 -
					   offsetof(struct vhost_message, config),
				   .config = { .offset = offset, .size = 1, .bytes = { value } } };
	uint64_t features;
	int rc;

	set_deadline(v);
	rc = tell(v, &m, NULL, 0, err);
	/* As for rings: an answer to something else says that it was read. */
	if (!rc && !(v->protocol & P_REPLY_ACK))
		rc = ask_number(v, VHOST_GET_FEATURES, &features, err);
	return rc;
}

int vhost_fd(const struct vhost *v) { return v->fd; }
int vhost_requests_fd(const struct vhost *v) { return v->requests_fd; }

int vhost_lost(struct vhost *v, struct error *err)
{
	char byte;
	ssize_t got = recv(v->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);

	if (got > 0)
		return error_set(err, EPROTO, "it sent something unasked");
	return error_set(err, ECONNRESET, "it has closed the connection");
}

int vhost_serve_request(struct vhost *v, bool *config, struct error *err)
{
	struct vhost_message m;
	int rc;

	set_deadline(v);
	rc = vhost_receive(v->requests_fd, &m, v->deadline, err);
	if (rc)
		return rc;
	*config = m.request == VHOST_BACKEND_CONFIG_CHANGE && !m.size;
	if (!(m.flags & VHOST_NEED_REPLY))
		return 0;
	m.flags = VHOST_VERSION | VHOST_REPLY;
	m.size = sizeof(m.number);
	m.number = !*config;
	return vhost_send(v->requests_fd, &m, NULL, 0, v->deadline, err);
}

/* ---- rings ---- */

struct vhost_ring *vhost_ring(struct vhost *v, unsigned n)
{
	BUG_ON(n >= v->ring_count);
	return &v->rings[n];
}

static int tell_addresses(struct vhost *v, unsigned n, struct error *err)
{
	uint64_t at = (uintptr_t)v->rings[n].memory;
	struct vhost_message m = { .request = VHOST_SET_VRING_ADDR,
				   .size = sizeof(m.address),
				   .address = { .index = n,
						.descriptors = at,
						.available = at + VHOST_RING_AVAILABLE,
						.used = at + VHOST_RING_USED } };

	return tell(v, &m, NULL, 0, err);
}

/* Without the protocol's features all are, always. */
int vhost_ring_enable(struct vhost *v, unsigned n, bool enabled, struct error *err)
{
	set_deadline(v);
	return v->features & F_PROTOCOL ? tell_ring(v, VHOST_SET_VRING_ENABLE, n, enabled, err) : 0;
}

int vhost_ring_start(struct vhost *v, unsigned n, bool enabled, struct error *err)
{
	struct vhost_ring *r = vhost_ring(v, n);
	uint64_t features;
	int rc;

	set_deadline(v);
	vhost_ring_init(r, r->memory, v->ram);
	rc = tell_ring(v, VHOST_SET_VRING_NUM, n, VHOST_RING_SIZE, err);
	if (!rc)
		rc = tell_ring(v, VHOST_SET_VRING_BASE, n, 0, err);
	if (!rc)
		rc = tell_addresses(v, n, err);
	if (!rc)
		rc = tell_number(v, VHOST_SET_VRING_KICK, n, r->kick_fd, err);
	if (!rc)
		rc = tell_number(v, VHOST_SET_VRING_CALL, n, r->call_fd, err);
	if (!rc)
		rc = vhost_ring_enable(v, n, enabled, err);
	/* Without acknowledgements an answer to something else says that all this was read. */
	if (!rc && !(v->protocol & P_REPLY_ACK))
		rc = ask_number(v, VHOST_GET_FEATURES, &features, err);
	return rc;
}

int vhost_ring_stop(struct vhost *v, unsigned n, struct error *err)
{
	struct vhost_message m = {
		.request = VHOST_GET_VRING_BASE, .flags = VHOST_VERSION, .size = sizeof(m.ring), .ring = { n, 0 }
	};
	int rc;

	set_deadline(v);
	rc = ask(v, &m, NULL, 0, err);
	if (!rc)
		rc = check_size(&m, sizeof(m.ring), err);
	if (!rc && m.ring.index != n)
		rc = error_set(err, EPROTO, "GET_VRING_BASE: the reply is of queue %u; expected %u", m.ring.index, n);
	return rc;
}
