/*
 * What the files of queue.c share: a queue's chains come out of rings of two layouts, split (split.c) and packed (packed.c); what is in a chain, and when a queue is
 * served, is the same in both.
 */
#ifndef DOPPEL_DEVICES_VIRTIO_RING_H
#define DOPPEL_DEVICES_VIRTIO_RING_H

#include "devices/virtio/virtio.h"

/* Flags of descriptors */
#define DESCRIPTOR_NEXT	    1u
#define DESCRIPTOR_WRITE    2u
#define DESCRIPTOR_INDIRECT 4u
#define DESCRIPTOR_SIZE	    16u

/* As in the guest's memory. */
struct descriptor {
	uint64_t address;
	uint32_t length;
	union {
		struct {
			uint16_t flags, next;
		} split;
		struct {
			uint16_t id, flags;
		} packed;
	};
};
_Static_assert(sizeof(struct descriptor) == DESCRIPTOR_SIZE, "as in the guest's memory");

/* Under the queue's lock; its parts have been found, but for `find`. */
struct ring_ops {
	/* Where its parts are in the host. False: they are not all there. */
	bool (*find)(struct virtio_queue *);
	/* The next chain, its buffers in q->pieces. False: there is none, or the device is broken now. */
	bool (*pop)(struct virtio_queue *, struct virtio_chain *);
	/* The chain that begins there, once more. NULL: it is not in the ring any more. */
	bool (*pop_again)(struct virtio_queue *, struct virtio_chain *, uint16_t head);
	void (*unpop)(struct virtio_queue *, const struct virtio_chain *);
	void (*push)(struct virtio_queue *, const struct virtio_chain *, uint32_t written);
	/* The driver gets to know what was pushed, which is something; does it want an interrupt for that? */
	void (*publish)(struct virtio_queue *);
	bool (*wants_interrupt)(struct virtio_queue *);
	void (*want_kicks)(struct virtio_queue *, bool);
	/* Has the driver added something behind q->looked? */
	bool (*has_more)(struct virtio_queue *);
};
extern const struct ring_ops split_ring, packed_ring;

/* In front of what is read afterwards. */
uint16_t ring_load16(const uint8_t *at);
/* Behind what was written before. */
void ring_store16(struct virtio_queue *, uint8_t *at, uint16_t value);
void ring_store32(struct virtio_queue *, uint8_t *at, uint32_t value);
/* Other bytes of a part, which were written, and are not announced yet. */
void ring_written(struct virtio_queue *, uint8_t *at, size_t size);
/* Once: the compiler is not to look there again. */
struct descriptor ring_fetch(const uint8_t *table, unsigned n);
/* NULL: it is not in one piece of memory, or not aligned. */
uint8_t *ring_find_part(struct virtio_queue *, uint64_t at, size_t size, unsigned alignment, bool write);
/* virtio_break(), and false. */
bool ring_broken(struct virtio_queue *, const char *why);
/* The buffer of a descriptor goes to the end of the chain; false: it may not be there. */
bool ring_add_buffer(struct virtio_queue *, struct virtio_chain *, const struct descriptor *, unsigned flags);
/* The table that a descriptor stands for, of so many descriptors; NULL: it may not. */
const uint8_t *ring_find_table(struct virtio_queue *, const struct descriptor *, unsigned flags, unsigned *count);

#endif
