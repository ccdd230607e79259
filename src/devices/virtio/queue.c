/*
 * Split virtqueues (virtio 1.2, 2.7): chains out of the available ring, and into the used ring. A driver may write anything at any time: each value is fetched
 * once, checked, and used. What the specification does not allow breaks the device (virtio_break), and costs no more than a chain of the longest allowed.
 *
 * The three parts of a queue are found in the host once for each map of memory, and accessed there.
 */
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>

/* Descriptors */
#define DESCRIPTOR_SIZE 16u
#define NEXT		1u
#define WRITE		2u
#define INDIRECT	4u

/* Rings: flags, index, entries, and the other side's event index */
#define RING_FLAGS  0u
#define RING_INDEX  2u
#define RING_START  4u
#define USED_SIZE   8u /* of an entry */
#define NO_NOTIFY   1u /* both ways */
#define ROUNDS_MOST 2u /* sizes of the queue that one kick serves */

struct descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags, next;
};
_Static_assert(sizeof(struct descriptor) == DESCRIPTOR_SIZE, "as in the guest's memory");

/* ---- the parts in the host ---- */

static struct guest_mem *mem_of(const struct virtio_queue *q) { return q->virtio->device.bus->mem; }

static uint16_t load16(const uint8_t *at)
{
	return atomic_load_explicit((const _Atomic uint16_t *)at, memory_order_acquire);
}

/* Behind what was written before. */
static void store16(struct virtio_queue *q, uint8_t *at, uint16_t value)
{
	atomic_store_explicit((_Atomic uint16_t *)at, value, memory_order_release);
	mem_dma_written(mem_of(q), at, sizeof(value));
}

/* Once: the compiler is not to look there again. */
static struct descriptor fetch(const uint8_t *table, unsigned n)
{
	struct descriptor d;

	memcpy(&d, table + n * DESCRIPTOR_SIZE, sizeof(d));
	__asm__ volatile("" : "+m"(d));
	return d;
}

static uint8_t *used_event(struct virtio_queue *q) { return q->available_ring + RING_START + 2u * q->size; }
static uint8_t *available_event(struct virtio_queue *q) { return q->used_ring + RING_START + USED_SIZE * q->size; }

/* NULL: it is not in one piece of memory, or not aligned. */
static uint8_t *find_part(struct virtio_queue *q, uint64_t at, size_t size, unsigned alignment, bool write)
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
	q->descriptor_table = find_part(q, q->descriptors, (size_t)q->size * DESCRIPTOR_SIZE, 16, false);
	q->available_ring = find_part(q, q->available, RING_START + 2u * q->size + 2u, 2, false);
	q->used_ring = find_part(q, q->used, RING_START + USED_SIZE * q->size + 2u, 4, true);
	q->mapped = q->descriptor_table && q->available_ring && q->used_ring;
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
}

/* ---- chains ---- */

/* One that is being taken apart. */
struct walk {
	const uint8_t *table;
	unsigned size, at;
	unsigned steps; /* descriptors, in all tables */
	bool indirect;
};

static bool broken(struct virtio_queue *q, const char *why)
{
	virtio_break(q->virtio, "queue %u: %s", q->index, why);
	return false;
}

static bool enter_table(struct virtio_queue *q, struct walk *w, const struct descriptor *d)
{
	if (!virtio_has(q->virtio, VIRTIO_F_INDIRECT_DESC) || w->indirect || d->flags & NEXT)
		return broken(q, "an indirect table where none may be");
	if (!d->length || d->length % DESCRIPTOR_SIZE || d->length / DESCRIPTOR_SIZE > VIRTIO_MAX_PIECES)
		return broken(q, "an indirect table of a wrong length");
	w->table = find_part(q, d->address, d->length, 1, false);
	w->size = d->length / DESCRIPTOR_SIZE;
	w->at = 0;
	w->indirect = true;
	return w->table ? true : broken(q, "an indirect table that is not in one piece of memory");
}

static bool add_buffer(struct virtio_queue *q, struct virtio_chain *c, const struct descriptor *d)
{
	bool write = d->flags & WRITE;
	unsigned used = c->out_count + (write ? c->in_count : 0);
	struct iovec *to = q->pieces + (write ? c->out_count : 0);

	if (!write && c->in_size)
		return broken(q, "something to read behind what is to be written");
	if (mem_dma_map(mem_of(q), gpa(d->address), d->length, write, to, write ? &c->in_count : &c->out_count,
			VIRTIO_MAX_PIECES - (write ? c->out_count : 0)))
		return broken(q, used < VIRTIO_MAX_PIECES ? "a buffer that is not in memory" : "too many buffers");
	*(write ? &c->in_size : &c->out_size) += d->length;
	return true;
}

/* The descriptor at hand, and on to the next one. *more: there is one. */
static bool step(struct virtio_queue *q, struct walk *w, struct virtio_chain *c, bool *more)
{
	struct descriptor d = fetch(w->table, w->at);

	*more = true;
	if (++w->steps > q->size + (w->indirect ? VIRTIO_MAX_PIECES : 0u))
		return broken(q, "a chain without an end");
	if (d.flags & INDIRECT)
		return enter_table(q, w, &d);
	if (!add_buffer(q, c, &d))
		return false;
	*more = d.flags & NEXT;
	w->at = d.next;
	return !*more || w->at < w->size ? true : broken(q, "a descriptor that there is not");
}

static bool take_apart(struct virtio_queue *q, struct virtio_chain *c)
{
	struct walk w = { .table = q->descriptor_table, .size = q->size, .at = c->head };
	bool more = true;

	while (more)
		if (!step(q, &w, c, &more))
			return false;
	c->out = q->pieces;
	c->in = q->pieces + c->out_count;
	return true;
}

bool virtqueue_pop(struct virtio_queue *q, struct virtio_chain *c)
{
	uint16_t waiting;

	if (!is_served(q))
		return false;
	waiting = (uint16_t)(load16(q->available_ring + RING_INDEX) - q->next_available);
	if (!waiting)
		return false;
	if (waiting > q->size)
		return broken(q, "more chains than it has room for");
	*c = (struct virtio_chain){ .head = load16(q->available_ring + RING_START +
						   2u * (q->next_available & (q->size - 1u))) };
	if (c->head >= q->size)
		return broken(q, "a chain that begins with a descriptor that there is not");
	if (!take_apart(q, c))
		return false;
	q->next_available++;
	q->popped++;
	return true;
}

bool virtqueue_pop_again(struct virtio_queue *q, uint16_t head, struct virtio_chain *c)
{
	if (!is_served(q))
		return false;
	*c = (struct virtio_chain){ .head = head };
	if (head >= q->size)
		return broken(q, "a chain that begins with a descriptor that there is not");
	if (!take_apart(q, c))
		return false;
	q->popped++;
	return true;
}

static void one_less(struct virtio_queue *q)
{
	BUG_ON(!q->popped);
	if (!--q->popped)
		pthread_cond_broadcast(&q->pushed);
}

void virtqueue_unpop(struct virtio_queue *q)
{
	q->next_available--;
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

void virtqueue_push(struct virtio_queue *q, const struct virtio_chain *c, size_t written)
{
	BUG_ON(written > c->in_size);
	note_written(q, c, written);
	if (q->enabled && find_parts(q)) {
		uint8_t *entry = q->used_ring + RING_START + USED_SIZE * (q->next_used & (q->size - 1u));

		store_le32(entry, c->head);
		store_le32(entry + 4, (uint32_t)written);
		mem_dma_written(mem_of(q), entry, USED_SIZE);
		q->next_used++;
	}
	one_less(q);
}

static bool wants_interrupt(struct virtio_queue *q, uint16_t before)
{
	if (virtio_has(q->virtio, VIRTIO_F_EVENT_IDX)) {
		uint16_t event = load16(used_event(q));

		return (uint16_t)(q->next_used - event - 1) < (uint16_t)(q->next_used - before);
	}
	return !(load16(q->available_ring + RING_FLAGS) & NO_NOTIFY);
}

void virtqueue_publish(struct virtio_queue *q)
{
	uint16_t before = q->published;

	if (before == q->next_used || !q->enabled || !find_parts(q))
		return;
	store16(q, q->used_ring + RING_INDEX, q->next_used);
	q->published = q->next_used;
	/* Either the driver sees the index when it has said that it wants to be told, or we see that it wants to be. */
	atomic_thread_fence(memory_order_seq_cst);
	if (wants_interrupt(q, before))
		q->virtio->transport->queue_interrupt(q->virtio, q->index);
}

bool virtqueue_want_kicks(struct virtio_queue *q, bool want)
{
	if (!is_served(q))
		return false;
	if (!virtio_has(q->virtio, VIRTIO_F_EVENT_IDX))
		store16(q, q->used_ring + RING_FLAGS, want ? 0 : NO_NOTIFY);
	else if (want)
		store16(q, available_event(q), q->next_available);
	if (!want)
		return false;
	atomic_thread_fence(memory_order_seq_cst); /* as above, the other way round */
	return load16(q->available_ring + RING_INDEX) != q->next_available;
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

void virtqueue_stop(struct virtio_queue *q)
{
	if (q->virtio->ops->queue_stops)
		q->virtio->ops->queue_stops(q);
	q->enabled = false; /* nothing is popped from now on, what is under way comes to an end unseen */
	while (q->popped)
		lock_wait(&q->lock, &q->pushed);
	timer_disarm(&q->again);
	q->size = q->most;
	q->descriptors = q->available = q->used = 0;
	q->next_available = q->next_used = 0;
	virtqueue_forget(q);
}
