/*
 * Split virtqueues (virtio 1.2, 2.7): chains out of the available ring, and into the used ring. Each value is fetched once.
 */
#include "devices/virtio/ring.h"

/* Rings: flags, index, entries, and the other side's event index */
#define RING_FLAGS 0u
#define RING_INDEX 2u
#define RING_START 4u
#define USED_SIZE  8u /* of an entry */
#define NO_NOTIFY  1u /* both ways */

static uint8_t *used_event(struct virtio_queue *q) { return q->available_part + RING_START + 2u * q->size; }
static uint8_t *available_event(struct virtio_queue *q) { return q->used_part + RING_START + USED_SIZE * q->size; }

static bool find(struct virtio_queue *q)
{
	q->descriptor_part = ring_find_part(q, q->descriptors, (size_t)q->size * DESCRIPTOR_SIZE, 16, false);
	q->available_part = ring_find_part(q, q->available, RING_START + 2u * q->size + 2u, 2, false);
	q->used_part = ring_find_part(q, q->used, RING_START + USED_SIZE * q->size + 2u, 4, true);
	return q->descriptor_part && q->available_part && q->used_part;
}

/* A chain that is being taken apart. */
struct walk {
	const uint8_t *table;
	unsigned size, at;
	unsigned steps; /* descriptors, in all tables */
	bool indirect;
};

static bool enter_table(struct virtio_queue *q, struct walk *w, const struct descriptor *d)
{
	if (w->indirect)
		return ring_broken(q, "an indirect table in an indirect table");
	w->table = ring_find_table(q, d, d->split.flags, &w->size);
	w->at = 0;
	w->indirect = true;
	return w->table;
}

/* The descriptor at hand, and on to the next one. *more: there is one. */
static bool step(struct virtio_queue *q, struct walk *w, struct virtio_chain *c, bool *more)
{
	struct descriptor d = ring_fetch(w->table, w->at);

	*more = true;
	if (++w->steps > q->size + (w->indirect ? VIRTIO_MAX_PIECES : 0u))
		return ring_broken(q, "a chain without an end");
	if (d.split.flags & DESCRIPTOR_INDIRECT)
		return enter_table(q, w, &d);
	if (!ring_add_buffer(q, c, &d, d.split.flags))
		return false;
	*more = d.split.flags & DESCRIPTOR_NEXT;
	w->at = d.split.next;
	return !*more || w->at < w->size ? true : ring_broken(q, "a descriptor that there is not");
}

static bool take_apart(struct virtio_queue *q, struct virtio_chain *c, uint16_t head)
{
	struct walk w = { .table = q->descriptor_part, .size = q->size, .at = head };
	bool more = true;

	c->head = head;
	if (head >= q->size)
		return ring_broken(q, "a chain that begins with a descriptor that there is not");
	while (more)
		if (!step(q, &w, c, &more))
			return false;
	return true;
}

static bool pop(struct virtio_queue *q, struct virtio_chain *c)
{
	uint16_t waiting = (uint16_t)(ring_load16(q->available_part + RING_INDEX) - q->next_available);

	if (!waiting)
		return false;
	if (waiting > q->size)
		return ring_broken(q, "more chains than it has room for");
	if (!take_apart(q, c, ring_load16(q->available_part + RING_START + 2u * (q->next_available & (q->size - 1u)))))
		return false;
	q->next_available++;
	return true;
}

static void unpop(struct virtio_queue *q, const struct virtio_chain *c)
{
	(void)c;
	q->next_available--;
}

static void push(struct virtio_queue *q, const struct virtio_chain *c, uint32_t written)
{
	uint8_t *entry = q->used_part + RING_START + USED_SIZE * (q->next_used & (q->size - 1u));

	store_le32(entry, c->head);
	store_le32(entry + 4, written);
	ring_written(q, entry, USED_SIZE);
	q->next_used++;
}

static void publish(struct virtio_queue *q) { ring_store16(q, q->used_part + RING_INDEX, q->next_used); }

static bool wants_interrupt(struct virtio_queue *q)
{
	if (virtio_has(q->virtio, VIRTIO_F_EVENT_IDX)) {
		uint16_t event = ring_load16(used_event(q));

		return (uint16_t)(q->next_used - event - 1) < (uint16_t)(q->next_used - q->published);
	}
	return !(ring_load16(q->available_part + RING_FLAGS) & NO_NOTIFY);
}

static void want_kicks(struct virtio_queue *q, bool want)
{
	if (!virtio_has(q->virtio, VIRTIO_F_EVENT_IDX))
		ring_store16(q, q->used_part + RING_FLAGS, want ? 0 : NO_NOTIFY);
	else if (want)
		ring_store16(q, available_event(q), q->looked);
}

static bool has_more(struct virtio_queue *q) { return ring_load16(q->available_part + RING_INDEX) != q->looked; }

const struct ring_ops split_ring = {
	.find = find,
	.pop = pop,
	.pop_again = take_apart,
	.unpop = unpop,
	.push = push,
	.publish = publish,
	.wants_interrupt = wants_interrupt,
	.want_kicks = want_kicks,
	.has_more = has_more,
};
