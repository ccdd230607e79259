/*
 * Chains that wait for the host.
 */
#include "devices/virtio/held.h"

#include <errno.h>

static uint64_t *heads_of(struct virtio_held *h, const struct virtio_queue *q)
{
	return h->heads + (size_t)(q->index - h->first) * HELD_WORDS;
}

static bool *again_of(struct virtio_held *h, const struct virtio_queue *q) { return &h->again[q->index - h->first]; }

void virtio_held_init(struct virtio_held *h, struct virtio_device *v, unsigned first, void (*retry)(struct bus_hold *))
{
	h->virtio = v;
	h->first = first;
	disk_hold_init(&h->hold, v->device.bus, retry);
}

void virtio_held_fini(struct virtio_held *h) { disk_hold_fini(&h->hold); }

void virtio_hold(struct virtio_held *h, struct virtio_queue *q, const struct virtio_chain *c, bool again,
		 const struct device *device, const struct block *block, const struct block_request *r)
{
	heads_of(h, q)[c->head / 64] |= BIT(c->head % 64);
	virtqueue_note(q, c); /* it may never be pushed */
	virtqueue_drop(q);
	if (!again)
		disk_hold_add(&h->hold, device, block, r);
}

bool virtio_held_again(struct virtio_held *h, const struct virtio_queue *q)
{
	bool again = *again_of(h, q);

	*again_of(h, q) = false;
	return again;
}

void virtio_held_serve_queue(struct virtio_held *h, struct virtio_queue *q,
			     void (*serve)(struct virtio_queue *, const struct virtio_chain *))
{
	uint64_t *words = heads_of(h, q);
	struct virtio_chain chain;

	lock_take(&q->lock);
	for (unsigned n = 0; n < HELD_WORDS; n++) {
		for (uint64_t heads = words[n]; heads; heads &= heads - 1) {
			unsigned bit = (unsigned)__builtin_ctzll(heads);

			words[n] &= ~BIT(bit);
			*again_of(h, q) = true;
			if (virtqueue_pop_again(q, (uint16_t)(n * 64 + bit), &chain))
				serve(q, &chain);
			/* It has become something else meanwhile. */
			if (virtio_held_again(h, q))
				disk_hold_forget(&h->hold, 1);
		}
	}
	virtqueue_publish(q);
	lock_drop(&q->lock);
}

void virtio_held_serve(struct virtio_held *h, void (*serve)(struct virtio_queue *, const struct virtio_chain *))
{
	for (unsigned n = h->first; n < h->virtio->queue_count; n++)
		virtio_held_serve_queue(h, &h->virtio->queues[n], serve);
}

void virtio_held_stop(struct virtio_held *h, const struct virtio_queue *q)
{
	unsigned count = 0;

	if (q->index < h->first)
		return;
	for (unsigned n = 0; n < HELD_WORDS; n++) {
		count += (unsigned)__builtin_popcountll(heads_of(h, q)[n]);
		heads_of(h, q)[n] = 0;
	}
	disk_hold_forget(&h->hold, count);
}

int virtio_held_check(const struct virtio_held *h, struct error *err)
{
	unsigned queues = h->virtio->queue_count - h->first;

	for (unsigned n = queues * HELD_WORDS; n < ARRAY_SIZE(h->heads); n++)
		if (h->heads[n])
			return error_set(err, EINVAL, "%s: requests of queue %u wait; there are %u queues",
					 h->virtio->device.name, n / HELD_WORDS, queues);
	return 0;
}

void virtio_held_loaded(struct virtio_held *h)
{
	unsigned count = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(h->heads); n++)
		count += (unsigned)__builtin_popcountll(h->heads[n]);
	disk_hold_set(&h->hold, count);
}
