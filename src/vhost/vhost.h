/*
 * vhost: the front end of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst): another process, the back end, serves the queues of a virtio device. Knows of sockets, of
 * memory that both have, and of rings in it; not of guests' queues.
 *
 * The rings are not the guest's. They are in memory of the connection's own, and what the guest's rings have is copied there and back (ring.c): so every buffer that the back end
 * has written is known before the guest is told of it, and who has what is known when the back end is gone. Guest RAM is the back end's to read and write, all of it.
 *
 * The back end is believed in nothing that it says: sizes, replies, indices, identifiers are checked, descriptors that come are closed. What is wrong is an error, behind which the
 * connection is of no use any more.
 *
 * Threads: functions of a connection are called by one thread at a time, those of a ring too.
 */
#ifndef DOPPEL_VHOST_H
#define DOPPEL_VHOST_H

#include "base/base.h"
#include "host/host.h"

#include <sys/uio.h>

#define VHOST_PREFIX	  "vhost-user:" /* in front of a socket's path, where the user may name other things, too */
#define VHOST_RINGS_MOST  16
#define VHOST_RING_SIZE	  1024u
#define VHOST_CONFIG_MOST 256u

/* ---- client.c: the connection ---- */

struct vhost_setup {
	const char *path;
	const struct host_memory *ram; /* buffers are there; it outlives the connection */
	unsigned rings;		       /* that are wanted at least; at most VHOST_RINGS_MOST are used */
	bool pairs;		       /* what the back end counts as a queue is two: of network cards */
	unsigned config_size; /* bytes of the configuration space that the back end has; 0: it need not have one */
	unsigned timeout_ms;  /* of this, and of each function that asks the back end for something */
};

struct vhost;

/* The path behind VHOST_PREFIX; NULL: this is none. */
const char *vhost_path(const char *spec);
/* Connects, and agrees on everything but features. NULL with a sentence that names the path. */
struct vhost *vhost_open(const struct vhost_setup *, struct error *);
/* May be NULL. Rings end with it. */
void vhost_close(struct vhost *);

uint64_t vhost_features(const struct vhost *); /* that the back end has, bits of virtio and of its device */
unsigned vhost_ring_count(const struct vhost *);
/* Of those that vhost_features() has; while no ring is started. 0 or -errno, as the following. */
int vhost_set_features(struct vhost *, uint64_t features, struct error *);
int vhost_get_config(struct vhost *, uint8_t *config, unsigned size, struct error *);
/* A byte of it, as its driver wrote it. */
int vhost_set_config(struct vhost *, unsigned offset, uint8_t value, struct error *);

/* For poll(): the socket, on which nothing comes unasked but its end; and where the back end asks for something, -1 if it never does. */
int vhost_fd(const struct vhost *);
int vhost_requests_fd(const struct vhost *);
/* What is wrong when vhost_fd() has something to read. */
int vhost_lost(struct vhost *, struct error *);
/* One request of the back end's. *config: its configuration space has changed. */
int vhost_serve_request(struct vhost *, bool *config, struct error *);

/* ---- ring.c: a ring that a back end serves ---- */

struct vhost_ring {
	uint8_t *memory; /* descriptors, available and used ring; the back end may write all of it */
	const struct host_memory *ram;
	int kick_fd, call_fd; /* eventfds; readable call_fd: look for what is done */
	unsigned free;	      /* descriptors */
	uint16_t first_free, available, used;
	uint16_t next[VHOST_RING_SIZE];	  /* of free ones, and of chains */
	uint16_t length[VHOST_RING_SIZE]; /* of the chain that begins here; 0: none does */
	void *owner[VHOST_RING_SIZE];
};

/* Ring n, empty, is the back end's from now on, which does nothing with one that is not enabled. */
int vhost_ring_start(struct vhost *, unsigned n, bool enabled, struct error *);
int vhost_ring_enable(struct vhost *, unsigned n, bool, struct error *);
/* When it returns 0, the back end has taken note that it is not. What was not done never will be. */
int vhost_ring_stop(struct vhost *, unsigned n, struct error *);
struct vhost_ring *vhost_ring(struct vhost *, unsigned n);

/* Descriptors that a chain needs; 0: a part of it is no guest RAM. */
unsigned vhost_ring_need(const struct host_memory *ram, const struct iovec *, unsigned count);
/*
 * A chain: first `out` pieces that the back end reads, then `in` pieces that it writes, of vhost_ring_need() descriptors, which are more than 0, and free. The back end knows of it;
 * it wants a kick when vhost_ring_wants_kick() says so.
 */
void vhost_ring_add(struct vhost_ring *, const struct iovec *, unsigned out, unsigned in, void *owner);
bool vhost_ring_wants_kick(const struct vhost_ring *);
void vhost_ring_kick(const struct vhost_ring *);
/* 1: a chain is done, with what the back end says that it has written, which may be anything. 0: none is. -EPROTO: what is in the ring makes no sense. */
int vhost_ring_done(struct vhost_ring *, void **owner, uint32_t *written);

/* For client.c: the memory is VHOST_RING_BYTES, of which the parts are at these offsets. */
#define VHOST_RING_AVAILABLE (VHOST_RING_SIZE * 16u)
#define VHOST_RING_USED	     (VHOST_RING_AVAILABLE + PAGE_SIZE)
#define VHOST_RING_BYTES     (VHOST_RING_USED + 3 * PAGE_SIZE)
void vhost_ring_init(struct vhost_ring *, uint8_t *memory, const struct host_memory *ram);

#endif
