/*
 * The vhost-user front end with a back end that answers as the input says: rightly but for something, or anything of any size; or a ring whose memory it writes as it likes. Nothing may crash or hang; what a ring gives back was put there, once.
 */
#define _GNU_SOURCE
#include "vhost/vhost.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RAM_SIZE     (64u << 10)
#define TIMEOUT_MS   5u
#define ACTIONS_MOST 500
#define CHAINS	     64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reader_of {
	const uint8_t *data;
	size_t left;
};

static uint64_t take(struct reader_of *in, size_t bytes)
{
	uint64_t value = 0;

	for (size_t n = 0; n < bytes && in->left; n++, in->left--)
		value |= (uint64_t)*in->data++ << (8 * n);
	return value;
}

/* ---- messages ---- */

struct back_end {
	int listens;
	struct reader_of in;
};

struct message {
	uint32_t request, flags, size;
	uint8_t data[512];
} __attribute__((packed));

static bool receive(int fd, void *to, size_t size) { return recv(fd, to, size, MSG_WAITALL) == (ssize_t)size; }

/* The number that a request is answered by, when the input does not want another one: that goes on. */
static uint64_t number_for(uint32_t request)
{
	return request == 1 ? 1ull << 32 | 1ull << 30 : request == 15 ? 0x229 : request == 17 ? 4 : 0;
}

/* Anything of any size, or what fits but for what the input changes. */
static void answer(int fd, struct message *m, struct reader_of *in)
{
	uint64_t choice = take(in, 1), number = number_for(m->request);
	size_t size = 12;

	if (choice > 200) {
		for (uint8_t *at = (uint8_t *)m; size < choice && size < sizeof(*m); size++)
			*at++ = (uint8_t)take(in, 1);
	} else if (m->request == 1 || m->request > 10 || m->flags & 8) {
		bool has_own = m->request == 24 || m->request == 11;

		m->flags = 5;
		if (!has_own || choice & 64) {
			m->size = 8;
			number ^= choice & 128 ? take(in, 8) : 0;
			memcpy(m->data, &number, 8);
		}
		m->size += choice % 32 == 7 ? (uint32_t)take(in, 4) : 0;
		size += MIN(m->size, sizeof(m->data));
	} else {
		return;
	}
	if (send(fd, m, size, MSG_NOSIGNAL) < 0)
		return;
}

static void *answer_all(void *opaque)
{
	struct back_end *b = opaque;
	int fd = accept(b->listens, NULL, NULL);
	struct message m;

	if (fd < 0)
		abort();
	while (receive(fd, &m, 12) && m.size <= sizeof(m.data) && (!m.size || receive(fd, m.data, m.size)))
		answer(fd, &m, &b->in);
	close(fd);
	return NULL;
}

static void use(struct vhost *v)
{
	uint8_t config[60];
	bool changed;

	if (!vhost_ring_start(v, 0, true, NULL) && !vhost_get_config(v, config, sizeof(config), NULL))
		vhost_ring_stop(v, 0, NULL);
	if (vhost_requests_fd(v) >= 0 && recv(vhost_requests_fd(v), config, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
		vhost_serve_request(v, &changed, NULL);
}

static void messages(const struct host_memory *ram, const uint8_t *data, size_t size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct back_end b = { .in = { data, size } };
	struct vhost_setup setup = { .ram = ram, .rings = 1, .timeout_ms = TIMEOUT_MS, .path = address.sun_path };
	struct vhost *v;
	pthread_t thread;

	snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/fuzz_vhost.%d", getpid());
	setup.config_size = size & 1 ? 60 : 0;
	unlink(address.sun_path);
	b.listens = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(b.listens, (struct sockaddr *)&address, sizeof(address)) || listen(b.listens, 1) ||
	    pthread_create(&thread, NULL, answer_all, &b))
		abort();
	v = vhost_open(&setup, NULL);
	if (v)
		use(v);
	vhost_close(v);
	pthread_join(thread, NULL);
	close(b.listens);
	unlink(address.sun_path);
}

/* ---- a ring ---- */

static void ring(const struct host_memory *ram, struct reader_of *in)
{
	struct vhost_ring *r = calloc(1, sizeof(*r));
	uint8_t *memory = calloc(1, VHOST_RING_BYTES);
	bool there[CHAINS] = { false };
	uint32_t written;
	void *owner;

	vhost_ring_init(r, memory, ram);
	for (unsigned n = 0; n < ACTIONS_MOST && in->left; n++) {
		uint64_t what = take(in, 1), which = take(in, 1) % CHAINS;
		struct iovec pieces[4];
		unsigned out = what >> 2 & 1, chain_in = 1 + (what >> 3 & 1);

		for (unsigned i = 0; i < ARRAY_SIZE(pieces); i++)
			pieces[i] = (struct iovec){ ram->base + take(in, 1), 1 + which };
		if (what % 4 == 0 && !there[which] && r->free >= out + chain_in) {
			vhost_ring_add(r, pieces, out, chain_in, &there[which]);
			there[which] = true;
		} else if (what % 4 == 1) {
			uint64_t at = take(in, 2) % VHOST_RING_BYTES;

			memory[at] = (uint8_t)take(in, 1);
		} else if (what % 4 == 2) {
			store_le32(memory + VHOST_RING_USED + 4 + 8 * (r->used % VHOST_RING_SIZE),
				   (uint32_t)take(in, 1));
			store_le16(memory + VHOST_RING_USED + 2, (uint16_t)(r->used + 1));
		} else if (vhost_ring_done(r, &owner, &written) > 0) {
			if (!*(bool *)owner)
				abort();
			*(bool *)owner = false;
		}
	}
	free(memory);
	free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader_of in = { data + 1, size - 1 };
	struct host_memory ram;

	if (!size)
		return 0;
	if (host_memory_create(&ram, "fuzz-ram", RAM_SIZE, NULL))
		abort();
	if (*data & 1)
		messages(&ram, data + 1, size - 1);
	else
		ring(&ram, &in);
	host_memory_destroy(&ram);
	return 0;
}
