/*
 * A split virtqueue (virtio 1.2, 2.7) seen from the driver's side, without the event index: what is a descriptor's is kept here, in memory of our own, and only written to the ring; of what the
 * back end writes two things are read, each once: its index with an entry, and its flag.
 */
#define _GNU_SOURCE
#include "vhost/vhost.h"

#include <errno.h>
#include <unistd.h>

#define NEXT  1u
#define WRITE 2u

#define RING_INDEX 2u
#define RING_START 4u
#define NO_NOTIFY  1u
#define PIECE_MOST (1ull << 30) /* of one descriptor */
#define MASK	   (VHOST_RING_SIZE - 1u)

void vhost_ring_init(struct vhost_ring *r, uint8_t *memory, const struct host_memory *ram)
{
	r->memory = memory;
	r->ram = ram;
	r->free = VHOST_RING_SIZE;
	r->first_free = r->available = r->used = 0;
	memset(memory, 0, VHOST_RING_BYTES);
	memset(r->length, 0, sizeof(r->length));
	for (unsigned n = 0; n < VHOST_RING_SIZE; n++)
		r->next[n] = (uint16_t)(n + 1);
}

static bool in_ram(const struct host_memory *ram, const struct iovec *piece)
{
	return range_ok((uint64_t)((const uint8_t *)piece->iov_base - ram->base), piece->iov_len, ram->size);
}

unsigned vhost_ring_need(const struct host_memory *ram, const struct iovec *pieces, unsigned count)
{
	uint64_t need = 0;

	for (unsigned n = 0; n < count; n++) {
		if (!in_ram(ram, &pieces[n]))
			return 0;
		need += (pieces[n].iov_len + PIECE_MOST - 1) / PIECE_MOST;
	}
	return (unsigned)MIN(need, UINT32_MAX);
}

/* One descriptor, taken from the free ones; the last one of a chain is told so by its caller. */
static void put(struct vhost_ring *r, uint16_t n, uint64_t address, uint32_t length, unsigned flags)
{
	uint8_t *d = r->memory + 16u * n;

	store_le64(d, address);
	store_le32(d + 8, length);
	store_le16(d + 12, (uint16_t)flags);
	store_le16(d + 14, r->next[n]);
}

void vhost_ring_add(struct vhost_ring *r, const struct iovec *pieces, unsigned out, unsigned in, void *owner)
{
	uint16_t head = r->first_free, at = head;
	unsigned need = vhost_ring_need(r->ram, pieces, out + in), left = need;

	BUG_ON(!need || need > r->free);
	for (unsigned n = 0; n < out + in; n++) {
		uint64_t address = (uint64_t)((const uint8_t *)pieces[n].iov_base - r->ram->base);

		for (size_t rest = pieces[n].iov_len, part; rest; rest -= part, address += part) {
			part = MIN(rest, PIECE_MOST);
			put(r, at, address, (uint32_t)part, (n < out ? 0 : WRITE) | (--left ? NEXT : 0));
			at = r->next[at];
		}
	}
	r->first_free = at;
	r->free -= need;
	r->length[head] = (uint16_t)need;
	r->owner[head] = owner;
	store_le16(r->memory + VHOST_RING_AVAILABLE + RING_START + 2u * (r->available & MASK), head);
	atomic_store_explicit((_Atomic uint16_t *)(r->memory + VHOST_RING_AVAILABLE + RING_INDEX), ++r->available,
			      memory_order_release);
}

bool vhost_ring_wants_kick(const struct vhost_ring *r)
{
	atomic_thread_fence(memory_order_seq_cst); /* either we see that it wants one, or it sees what was added */
	return !(atomic_load_explicit((const _Atomic uint16_t *)(r->memory + VHOST_RING_USED), memory_order_relaxed) &
		 NO_NOTIFY);
}

void vhost_ring_kick(const struct vhost_ring *r)
{
	const uint64_t one = 1;

	if (write(r->kick_fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, which wakes the back end as well. */
	}
}

static void give_back(struct vhost_ring *r, uint16_t head)
{
	uint16_t last = head;

	for (unsigned n = 1; n < r->length[head]; n++)
		last = r->next[last];
	r->next[last] = r->first_free;
	r->first_free = head;
	r->free += r->length[head];
	r->length[head] = 0;
}

int vhost_ring_done(struct vhost_ring *r, void **owner, uint32_t *written)
{
	const uint8_t *ring = r->memory + VHOST_RING_USED;
	const uint8_t *entry = ring + RING_START + 8u * (r->used & MASK);
	uint16_t index = atomic_load_explicit((const _Atomic uint16_t *)(ring + RING_INDEX), memory_order_acquire);
	uint32_t head;

	if (index == r->used)
		return 0;
	head = __atomic_load_n((const uint32_t *)entry, __ATOMIC_RELAXED);
	*written = __atomic_load_n((const uint32_t *)(entry + 4), __ATOMIC_RELAXED);
	if (head >= VHOST_RING_SIZE || !r->length[head])
		return -EPROTO;
	*owner = r->owner[head];
	give_back(r, (uint16_t)head);
	r->used++;
	return 1;
}
