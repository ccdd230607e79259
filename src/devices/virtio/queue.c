/*
 * Virtqueues, whichever their layout (ring.h): what a chain may consist of, when a queue is served, and how it begins and ends. A driver may write anything at any time: each
 * value is fetched once, checked, and used. What the specification does not allow breaks the device (virtio_break), and costs no more than a chain of the longest
 * allowed.
 *
 * The three parts of a queue are found in the host once for each map of memory, and accessed there.
 */
#include "devices/virtio/ring.h"

#include <errno.h>
#include <stdlib.h>

#define ROUNDS_MOST   2u	  /* sizes of the queue that one kick serves */
#define STOP_PATIENCE 3000000000u /* ns without a chain that is done, for a driver that resets the queue */

static const struct ring_ops *ring_of(const struct virtio_queue *q)
{
	return virtio_has(q->virtio, VIRTIO_F_RING_PACKED) ? &packed_ring : &split_ring;
}

/* ---- the parts in the host ---- */

static struct guest_mem *mem_of(const struct virtio_queue *q) { return q->virtio->device.bus->mem; }

uint16_t ring_load16(const uint8_t *at)
{
	return atomic_load_explicit((const _Atomic uint16_t *)at, memory_order_acquire);
}

void ring_store16(struct virtio_queue *q, uint8_t *at, uint16_t value)
{
	atomic_store_explicit((_Atomic uint16_t *)at, value, memory_order_release);
	mem_dma_written(mem_of(q), at, sizeof(value));
}

void ring_store32(struct virtio_queue *q, uint8_t *at, uint32_t value)
{
	atomic_store_explicit((_Atomic uint32_t *)at, value, memory_order_release);
	mem_dma_written(mem_of(q), at, sizeof(value));
}

void ring_written(struct virtio_queue *q, uint8_t *at, size_t size) { mem_dma_written(mem_of(q), at, size); }

struct descriptor ring_fetch(const uint8_t *table, unsigned n)
{
	struct descriptor d;

	memcpy(&d, table + n * DESCRIPTOR_SIZE, sizeof(d));
	__asm__ volatile("" : "+m"(d));
	return d;
}

uint8_t *ring_find_part(struct virtio_queue *q, uint64_t at, size_t size, unsigned alignment, bool write)
{
	struct iovec piece = { NULL, 0 };
	unsigned count = 0;

	if (at & (alignment - 1) || mem_dma_map(mem_of(q), gpa(at), size, write, &piece, &count, 1))
		return NULL;
	return piece.iov_base;
}

static bool find_parts(struct virtio_queue *q)
{
	uint64_t generation = atomic_load(&mem_of(q)->map_generation);

	if (likely(q->mapped && q->map_generation == generation))
		return true;
	q->mapped = ring_of(q)->find(q);
	q->map_generation = generation;
	if (!q->mapped)
		virtio_break(q->virtio, "queue %u at 0x%llx, 0x%llx, 0x%llx is not in memory, or not aligned", q->index,
			     (unsigned long long)q->descriptors, (unsigned long long)q->available,
			     (unsigned long long)q->used);
	return q->mapped;
}

/* Legacy drivers use queues before they say that they are ready. */
static bool is_served(struct virtio_queue *q)
{
	const struct virtio_device *v = q->virtio;
	uint8_t status = v->status;

	return q->enabled && !(status & VIRTIO_NEEDS_RESET) && (status & VIRTIO_DRIVER_OK || virtio_is_legacy(v)) &&
	       find_parts(q);
}

void virtqueue_forget(struct virtio_queue *q)
{
	q->mapped = false;
	q->published = q->next_used;
	q->looked = q->next_available;
}

/* ---- chains ---- */

bool ring_broken(struct virtio_queue *q, const char *why)
{
	virtio_break(q->virtio, "queue %u: %s", q->index, why);
	return false;
}

const uint8_t *ring_find_table(struct virtio_queue *q, const struct descriptor *d, unsigned flags, unsigned *count)
{
	const uint8_t *table;

	if (!virtio_has(q->virtio, VIRTIO_F_INDIRECT_DESC) || flags & DESCRIPTOR_NEXT) {
		ring_broken(q, "an indirect table where none may be");
		return NULL;
	}
	*count = d->length / DESCRIPTOR_SIZE;
	if (!d->length || d->length % DESCRIPTOR_SIZE || *count > VIRTIO_MAX_PIECES) {
		ring_broken(q, "an indirect table of a wrong length");
		return NULL;
	}
	table = ring_find_part(q, d->address, d->length, 1, false);
	if (!table)
		ring_broken(q, "an indirect table that is not in one piece of memory");
	return table;
}

bool ring_add_buffer(struct virtio_queue *q, struct virtio_chain *c, const struct descriptor *d, unsigned flags)
{
	bool write = flags & DESCRIPTOR_WRITE;
	unsigned used = c->out_count + (write ? c->in_count : 0);
	struct iovec *to = q->pieces + (write ? c->out_count : 0);

	if (!write && c->in_size)
		return ring_broken(q, "something to read behind what is to be written");
	if (mem_dma_map(mem_of(q), gpa(d->address), d->length, write, to, write ? &c->in_count : &c->out_count,
			VIRTIO_MAX_PIECES - (write ? c->out_count : 0)))
		return ring_broken(q, used < VIRTIO_MAX_PIECES ? "a buffer that is not in memory" : "too many buffers");
	*(write ? &c->in_size : &c->out_size) += d->length;
	return true;
}

static bool take(struct virtio_queue *q, struct virtio_chain *c, const uint16_t *head)
{
	bool popped;

	if (!is_served(q))
		return false;
	*c = (struct virtio_chain){ .out = q->pieces };
	popped = head ? ring_of(q)->pop_again(q, c, *head) : ring_of(q)->pop(q, c);
	c->in = q->pieces + c->out_count;
	q->popped += popped;
	if (!head)
		q->looked = q->next_available;
	return popped;
}

bool virtqueue_pop(struct virtio_queue *q, struct virtio_chain *c) { return take(q, c, NULL); }

bool virtqueue_pop_again(struct virtio_queue *q, uint16_t head, struct virtio_chain *c) { return take(q, c, &head); }

static void one_less(struct virtio_queue *q)
{
	BUG_ON(!q->popped);
	if (!--q->popped)
		pthread_cond_broadcast(&q->pushed);
}

void virtqueue_unpop(struct virtio_queue *q, const struct virtio_chain *c)
{
	ring_of(q)->unpop(q, c);
	one_less(q);
}

void virtqueue_drop(struct virtio_queue *q) { one_less(q); }

static void note_written(struct virtio_queue *q, const struct virtio_chain *c, size_t written)
{
	for (unsigned n = 0; n < c->in_count && written; n++) {
		size_t part = MIN(written, c->in[n].iov_len);

		mem_dma_written(mem_of(q), c->in[n].iov_base, part);
		written -= part;
	}
}

void virtqueue_note(struct virtio_queue *q, const struct virtio_chain *c) { note_written(q, c, c->in_size); }

void virtqueue_push(struct virtio_queue *q, const struct virtio_chain *c, size_t written)
{
	BUG_ON(written > c->in_size);
	note_written(q, c, written);
	if (q->enabled && find_parts(q))
		ring_of(q)->push(q, c, (uint32_t)written);
	one_less(q);
}

void virtqueue_publish(struct virtio_queue *q)
{
	bool wanted;

	if (q->published == q->next_used || !q->enabled || !find_parts(q))
		return;
	ring_of(q)->publish(q);
	/* Either the driver sees what was pushed when it has said that it wants to be told, or we see that it wants to be. */
	atomic_thread_fence(memory_order_seq_cst);
	wanted = ring_of(q)->wants_interrupt(q);
	q->published = q->next_used;
	if (wanted)
		q->virtio->transport->queue_interrupt(q->virtio, q->index);
}

bool virtqueue_want_kicks(struct virtio_queue *q, bool want)
{
	if (!is_served(q))
		return false;
	ring_of(q)->want_kicks(q, want);
	if (!want)
		return false;
	atomic_thread_fence(memory_order_seq_cst); /* as above, the other way round */
	return ring_of(q)->has_more(q);
}

void virtqueue_later(struct virtio_queue *q) { timer_arm(&q->again, clock_now(q->virtio->device.bus->clock)); }

void virtqueue_serve(struct virtio_queue *q, void (*serve)(struct virtio_queue *, const struct virtio_chain *))
{
	unsigned left = ROUNDS_MOST * q->size;
	struct virtio_chain chain;

	do {
		virtqueue_want_kicks(q, false);
		for (; left && virtqueue_pop(q, &chain); left--)
			serve(q, &chain);
		virtqueue_publish(q);
		if (!left) {
			virtqueue_later(q);
			return;
		}
	} while (virtqueue_want_kicks(q, true));
}

/* ---- pieces ---- */

void virtio_chain_copy(struct virtio_chain *to, const struct virtio_chain *from, struct iovec *pieces)
{
	*to = *from;
	to->out = pieces;
	to->in = pieces + from->out_count;
	memcpy(pieces, from->out, from->out_count * sizeof(*pieces));
	memcpy(pieces + from->out_count, from->in, from->in_count * sizeof(*pieces));
}

static size_t copy(const struct iovec *pieces, unsigned count, size_t offset, uint8_t *data, size_t size, bool write)
{
	size_t done = 0;

	for (unsigned n = 0; n < count && done < size; n++) {
		size_t skip = MIN(offset, pieces[n].iov_len), part = MIN(size - done, pieces[n].iov_len - skip);
		uint8_t *piece = (uint8_t *)pieces[n].iov_base + skip;

		memcpy(write ? piece : data + done, write ? data + done : piece, part);
		offset -= skip;
		done += part;
	}
	return done;
}

size_t virtio_chain_read(const struct virtio_chain *c, size_t offset, void *data, size_t size)
{
	return copy(c->out, c->out_count, offset, data, size, false);
}

size_t virtio_chain_write(const struct virtio_chain *c, size_t offset, const void *data, size_t size)
{
	return copy(c->in, c->in_count, offset, (uint8_t *)data, size, true);
}

/* ---- life ---- */

static void serve_again(void *queue)
{
	struct virtio_queue *q = queue;

	q->kick(q);
}

int virtqueue_init(struct virtio_queue *q, struct virtio_device *v, unsigned size)
{
	struct bus *bus = v->device.bus;

	q->pieces = malloc(VIRTIO_MAX_PIECES * sizeof(*q->pieces));
	if (!q->pieces)
		return -ENOMEM;
	q->virtio = v;
	q->most = q->size = (uint16_t)size;
	lock_init(&q->lock, &bus->locks, LOCK_QUEUE);
	pthread_cond_init(&q->pushed, NULL);
	timer_init(&q->again, bus->clock, "virtqueue", serve_again, q);
	q->again.lock = &q->lock;
	return 0;
}

void virtqueue_fini(struct virtio_queue *q)
{
	timer_disarm(&q->again);
	pthread_cond_destroy(&q->pushed);
	lock_destroy(&q->lock);
	free(q->pieces);
}

/* Takes the lock that it drops. */
static void give_up(struct virtio_queue *q)
{
	struct virtio_device *v = q->virtio;

	lock_drop(&q->lock);
	lock_waits(q->lock.group, true);
	v->ops->give_up(v);
	lock_waits(q->lock.group, false);
	lock_take(&q->lock);
}

void virtqueue_stop(struct virtio_queue *q)
{
	bool waits = true;

	if (q->virtio->ops->queue_stops)
		q->virtio->ops->queue_stops(q);
	q->enabled = false; /* nothing is popped from now on, what is under way comes to an end unseen */
	while (q->popped && waits)
		waits = lock_wait_for(&q->lock, &q->pushed, STOP_PATIENCE);
	if (q->popped && q->virtio->ops->give_up)
		give_up(q);
	while (q->popped)
		lock_wait(&q->lock, &q->pushed);
	timer_disarm(&q->again);
	q->size = q->most;
	q->descriptors = q->available = q->used = 0;
	q->next_available = q->next_used = 0;
	virtqueue_forget(q);
}
