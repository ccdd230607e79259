/*
 * Frames between two processes: a channel is a memory that both map, with a ring for each direction. Each ring has one writer and one reader, and the
 * other process is hostile to both: what it writes is fetched once and checked, and bad indices end the channel.
 */
#ifndef DOPPEL_NET_RING_H
#define DOPPEL_NET_RING_H

#include "net/net.h"

/* Room for some dozens of the largest frames; small enough for a processor's cache. A power of two. */
#define RING_SIZE (1u << 21)

/* Of indices: bytes that were ever written or read, modulo 2^32. */
struct ring_shared {
	_Alignas(64) _Atomic uint32_t written;
	_Atomic uint32_t reader_waits; /* the writer is to wake the reader */
	_Alignas(64) _Atomic uint32_t read;
	_Atomic uint32_t writer_waits; /* the other way round */
};

/* One end of a ring. */
struct ring {
	struct ring_shared *shared;
	uint8_t *data; /* mapped twice in a row: a frame is in one piece wherever it begins */
	uint32_t at;   /* our index: what we have written, or read */
	int wake_fd;   /* an eventfd, on which the other end sleeps */
};

struct channel_shared {
	struct ring_shared to_guest, from_guest;
	_Atomic uint32_t can; /* NET_CAN_... of the guest, written by the monitor */
};

struct channel {
	int fd; /* of the memory; its size is sealed */
	int monitor_event, helper_event;
	struct channel_shared *shared;
	uint8_t *mapped;
	struct ring to_guest, from_guest;
};

/* The monitor's end makes it: memory and eventfds. */
int channel_create(struct channel *, struct error *);
/* The helper's end, of descriptors that it was given. */
int channel_open(struct channel *, int fd, int monitor_event, int helper_event, struct error *);
void channel_close(struct channel *);

/* ---- the writer ---- */

/*
 * Where a frame of `size` can be put together; NULL: there is no room, and the reader will wake this end when there is. ring_write() then makes it the
 * reader's, which ring_wake() has to follow soon, once for several frames. -EPROTO in *code: the other end broke the ring.
 */
uint8_t *ring_reserve(struct ring *, size_t size, int *code);
void ring_write(struct ring *, size_t size, const struct net_offload *);
void ring_wake(struct ring *);
/* False: there are fewer free bytes (less than half of the ring), and the reader will wake this end. */
bool ring_has_room(struct ring *, uint32_t bytes);

/* ---- the reader ---- */

/* Looks at up to `most` frames; how many, or -EPROTO. They stay where they are until ring_release(). */
int ring_peek(struct ring *, struct net_frame *, unsigned most);
/* The first `count` of those that were looked at are done with. */
void ring_release(struct ring *, const struct net_frame *, unsigned count);
bool ring_has_frames(const struct ring *);
/* False: there are frames, do not sleep. True: the writer will wake this end. */
bool ring_sleep(struct ring *);
/* A wait is over: no more wakes are needed. */
void ring_awake(struct ring *);

void wake_event(int fd);
void drain_event(int fd);

#endif
