/*
 * Chains of a virtio disk, or of a controller with several, that wait for the host (devices/disk.h): they stay the device's, known by their heads, and are served once more
 * when it may be able to. So they are saved with the machine. Of split rings alone: in a packed one descriptors may be overwritten.
 *
 * What is said of a queue is under its lock.
 */
#ifndef DOPPEL_DEVICES_VIRTIO_HELD_H
#define DOPPEL_DEVICES_VIRTIO_HELD_H

#include "devices/disk.h"
#include "devices/virtio/virtio.h"

#define HELD_QUEUES 16u
#define HELD_WORDS  (VIRTIO_QUEUE_SIZE / 64)
_Static_assert(HELD_QUEUES *HELD_WORDS == 64, "as in the list below");

/* In the device's list, with a number of its own; the device's member is `held`. */
#define VIRTIO_HELD_STATE(_, T, number) _(T, uint64_t, held.heads, 64, number, 0, UINT64_MAX)

struct virtio_held {
	struct disk_hold hold;
	struct virtio_device *virtio;
	unsigned first;				  /* queue of requests */
	uint64_t heads[HELD_QUEUES * HELD_WORDS]; /* a bit each, of the queues from there on */
	bool again[HELD_QUEUES];		  /* what is served just now was held */
};

void virtio_held_init(struct virtio_held *, struct virtio_device *, unsigned first, void (*retry)(struct bus_hold *));
void virtio_held_fini(struct virtio_held *);
/* The chain, whose request has failed so that disk_waits(), is held. again: it was before, see virtio_held_again(). */
void virtio_hold(struct virtio_held *, struct virtio_queue *, const struct virtio_chain *, bool again,
		 const struct device *, const struct block *, const struct block_request *);
/* Those of all queues, or of one, are popped and served by this. Takes the queue's lock. */
void virtio_held_serve(struct virtio_held *, void (*serve)(struct virtio_queue *, const struct virtio_chain *));
void virtio_held_serve_queue(struct virtio_held *, struct virtio_queue *,
			     void (*serve)(struct virtio_queue *, const struct virtio_chain *));
/*
 * Was the chain that is served one of those? Who asks takes it over: a request that gets `true` ends by virtio_hold(), or disk_hold_done(), or disk_hold_forget(). Nobody
 * has to ask.
 */
bool virtio_held_again(struct virtio_held *, const struct virtio_queue *);
/* Of virtio_ops.queue_stops: those of the queue are forgotten. */
void virtio_held_stop(struct virtio_held *, const struct virtio_queue *);
/* Of the state's description, and of virtio_ops.loaded. */
int virtio_held_check(const struct virtio_held *, struct error *);
void virtio_held_loaded(struct virtio_held *);

#endif
