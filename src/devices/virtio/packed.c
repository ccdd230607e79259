/*
 * Packed virtqueues (virtio 1.2, 2.8): one ring of descriptors, which the driver makes available, and the device overwrites when they are used, both in order. Where a side
 * is in the ring is a position: an index, and a bit that says in which of two turns, as both sides' flags do.
 */
#include "devices/virtio/ring.h"

#define WRAP VIRTIO_PACKED_WRAP

/* Flags of descriptors, besides those of all */
#define AVAILABLE    0x0080u
#define USED	     0x8000u
#define ID_OFFSET    12u
#define FLAGS_OFFSET 14u
#define LEN_OFFSET   8u

/* Event suppression, virtio 1.2, 2.8.14: a position, and what it means */
#define EVENT_SIZE    4u
#define EVENT_FLAGS   2u
#define EVENT_ENABLE  0u
#define EVENT_DISABLE 1u
#define EVENT_AT      2u

static uint8_t *entry_at(struct virtio_queue *q, uint16_t position)
{
	return q->descriptor_part + (position & ~WRAP) * DESCRIPTOR_SIZE;
}

/* At most the queue's size. */
static uint16_t forward(const struct virtio_queue *q, uint16_t position, unsigned by)
{
	unsigned index = (position & ~WRAP) + by;

	return (uint16_t)(index < q->size ? (position & WRAP) | index : (~position & WRAP) | (index - q->size));
}

static uint16_t back(const struct virtio_queue *q, uint16_t position, unsigned by)
{
	unsigned index = position & ~WRAP;

	return (uint16_t)(index >= by ? (position & WRAP) | (index - by) : (~position & WRAP) | (index + q->size - by));
}

/* Of two turns. */
static unsigned place(const struct virtio_queue *q, uint16_t position)
{
	return (position & ~WRAP) + (position & WRAP ? 0 : q->size);
}

static unsigned distance(const struct virtio_queue *q, uint16_t from, uint16_t to)
{
	return (place(q, to) + 2u * q->size - place(q, from)) % (2u * q->size);
}

static bool find(struct virtio_queue *q)
{
	q->descriptor_part = ring_find_part(q, q->descriptors, (size_t)q->size * DESCRIPTOR_SIZE, 16, true);
	q->available_part = ring_find_part(q, q->available, EVENT_SIZE, 4, false);
	q->used_part = ring_find_part(q, q->used, EVENT_SIZE, 4, true);
	return q->descriptor_part && q->available_part && q->used_part;
}

static bool is_available(struct virtio_queue *q, uint16_t position)
{
	uint16_t flags = ring_load16(entry_at(q, position) + FLAGS_OFFSET);
	bool wrap = position & WRAP;

	return !!(flags & AVAILABLE) == wrap && !!(flags & USED) != wrap;
}

/* All of it, in order; a table's descriptors have no flag but one, the others are ignored. */
static bool add_table(struct virtio_queue *q, struct virtio_chain *c, const struct descriptor *d)
{
	unsigned count;
	const uint8_t *table = ring_find_table(q, d, d->packed.flags, &count);

	for (unsigned n = 0; table && n < count; n++) {
		struct descriptor one = ring_fetch(table, n);

		if (!ring_add_buffer(q, c, &one, one.packed.flags))
			return false;
	}
	return table;
}

static bool add(struct virtio_queue *q, struct virtio_chain *c, const struct descriptor *d)
{
	return d->packed.flags & DESCRIPTOR_INDIRECT ? add_table(q, c, d) : ring_add_buffer(q, c, d, d->packed.flags);
}

/* The chain's descriptors follow one another; its number is in the last one. */
static bool pop(struct virtio_queue *q, struct virtio_chain *c)
{
	unsigned taken = distance(q, q->next_used, q->next_available);
	struct descriptor d;

	if (!is_available(q, q->next_available))
		return false;
	do {
		if (taken + c->slots >= q->size)
			return ring_broken(q, "more descriptors than it has room for, or a chain without an end");
		d = ring_fetch(entry_at(q, forward(q, q->next_available, c->slots)), 0);
		c->slots++;
		if (!add(q, c, &d))
			return false;
	} while (d.packed.flags & DESCRIPTOR_NEXT);
	c->head = d.packed.id;
	q->next_available = forward(q, q->next_available, c->slots);
	return true;
}

static void unpop(struct virtio_queue *q, const struct virtio_chain *c)
{
	q->next_available = back(q, q->next_available, c->slots);
}

/* The driver, which looks at one after the other, sees none of them before it sees the first, which publish() shows it. */
static void push(struct virtio_queue *q, const struct virtio_chain *c, uint32_t written)
{
	uint16_t flags = (uint16_t)((q->next_used & WRAP ? AVAILABLE | USED : 0) | (written ? DESCRIPTOR_WRITE : 0));
	uint8_t *entry = entry_at(q, q->next_used);

	store_le32(entry + LEN_OFFSET, written);
	store_le16(entry + ID_OFFSET, c->head);
	ring_written(q, entry + LEN_OFFSET, FLAGS_OFFSET - LEN_OFFSET);
	if (q->next_used == q->published)
		q->first_flags = flags;
	else
		ring_store16(q, entry + FLAGS_OFFSET, flags);
	q->next_used = forward(q, q->next_used, c->slots);
}

static void publish(struct virtio_queue *q)
{
	ring_store16(q, entry_at(q, q->published) + FLAGS_OFFSET, q->first_flags);
}

static bool wants_interrupt(struct virtio_queue *q)
{
	uint16_t flags = ring_load16(q->available_part + EVENT_FLAGS), event;

	if (flags != EVENT_AT || !virtio_has(q->virtio, VIRTIO_F_EVENT_IDX))
		return flags != EVENT_DISABLE;
	event = ring_load16(q->available_part);
	return (event & ~WRAP) >= q->size || distance(q, q->published, event) < distance(q, q->published, q->next_used);
}

/* The driver reads both halves at once. */
static void want_kicks(struct virtio_queue *q, bool want)
{
	bool at = want && virtio_has(q->virtio, VIRTIO_F_EVENT_IDX);
	uint32_t flags = !want ? EVENT_DISABLE : at ? EVENT_AT : EVENT_ENABLE;

	ring_store32(q, q->used_part, (at ? q->looked : 0u) | flags << 16);
}

static bool has_more(struct virtio_queue *q) { return is_available(q, q->looked); }

const struct ring_ops packed_ring = {
	.find = find,
	.pop = pop,
	.unpop = unpop,
	.push = push,
	.publish = publish,
	.wants_interrupt = wants_interrupt,
	.want_kicks = want_kicks,
	.has_more = has_more,
};
