/*
 * A virtio driver for the tests of devices/virtio: a board with RAM, whose only PCI device beyond the chipset is at DRIVER_SLOT; registers by the modern interface, or of a
 * window of memory; queues, split or packed, whose memory the test writes.
 */
#ifndef TESTS_LIB_VIRTIO_DRIVER_H
#define TESTS_LIB_VIRTIO_DRIVER_H

#include "devices/virtio/virtio.h"
#include "lib/board.h"

#define DRIVER_RAM   (8u << 20)
#define DRIVER_SLOT  (3u << 3) /* devfn */
#define DRIVER_BAR   0xe0000000ull
#define DRIVER_MSIX  0xe0100000ull
#define DRIVER_PORTS 0xc000u

/* The parts of the modern BAR, and registers of the common one: virtio 1.2, 4.1.4.3 */
#define DRIVER_ISR    0x1000u
#define DRIVER_CONFIG 0x2000u
#define DRIVER_NOTIFY 0x3000u

#define D_NEXT	   1u
#define D_WRITE	   2u
#define D_INDIRECT 4u

#define D_AVAILABLE 0x80u /* of packed ones */
#define D_USED	    0x8000u

struct driver_queue {
	unsigned index, size;
	uint64_t descriptors, available, used;
	uint16_t next; /* of the available ring; packed: a position */
	uint16_t seen; /* of the used ring */
};

struct driver {
	struct board *b;
	uint64_t mmio; /* its window; 0: it is on PCI */
	struct guest_mem *mem;
	struct driver_queue queues[8];
};

/* With PCI, interrupts and RAM; the device is the caller's to create. */
static inline struct driver driver_board_with(enum clock_kind clock)
{
	struct driver d = { .b = board_create_with(BOARD_CPUS, clock) };

	board_add_memory(d.b, DRIVER_RAM);
	d.mem = d.b->mem;
	assert_int_equal(pci_bus_create(d.b->bus, NULL) || piix_type.create(d.b->bus, NULL, NULL), 0);
	return d;
}

static inline struct driver driver_board(void) { return driver_board_with(CLOCK_VIRTUAL); }

static inline void driver_end(struct driver *d) { board_destroy(d->b); }

static inline uint32_t driver_rd(struct driver *d, unsigned offset, unsigned size)
{
	return (uint32_t)board_read(d->b, BUS_MMIO, DRIVER_BAR + offset, size);
}

static inline void driver_wr(struct driver *d, unsigned offset, unsigned size, uint32_t value)
{
	board_write(d->b, BUS_MMIO, DRIVER_BAR + offset, size, value);
}

/* Of a window. */
static inline uint32_t driver_mmio_rd(struct driver *d, unsigned offset)
{
	return (uint32_t)board_read(d->b, BUS_MMIO, d->mmio + offset, 4);
}

static inline void driver_mmio_wr(struct driver *d, unsigned offset, uint32_t value)
{
	board_write(d->b, BUS_MMIO, d->mmio + offset, 4, value);
}

static inline uint8_t driver_status(struct driver *d)
{
	return (uint8_t)(d->mmio ? driver_mmio_rd(d, 0x70) : driver_rd(d, 0x14, 1));
}

static inline void driver_set_status(struct driver *d, uint8_t status)
{
	if (d->mmio)
		driver_mmio_wr(d, 0x70, status);
	else
		driver_wr(d, 0x14, 1, status);
}

/* Power on; BARs are where the driver looks for them. */
static inline void driver_reset_board(struct driver *d)
{
	bus_reset(d->b->bus);
	bus_resume(d->b->bus);
	if (d->mmio)
		return;
	board_config_write(d->b, DRIVER_SLOT, 0x10, 4, DRIVER_PORTS);
	board_config_write(d->b, DRIVER_SLOT, 0x14, 4, (uint32_t)DRIVER_MSIX);
	board_config_write(d->b, DRIVER_SLOT, 0x20, 4, (uint32_t)DRIVER_BAR);
	board_config_write(d->b, DRIVER_SLOT, 0x04, 2, 7);
}

static inline uint64_t driver_offered(struct driver *d)
{
	uint64_t features;

	driver_wr(d, 0x00, 4, 1);
	features = (uint64_t)driver_rd(d, 0x04, 4) << 32;
	driver_wr(d, 0x00, 4, 0);
	return features | driver_rd(d, 0x04, 4);
}

/* Up to FEATURES_OK; returns the status. */
static inline uint8_t driver_features(struct driver *d, uint64_t features)
{
	driver_set_status(d, 0);
	driver_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	for (unsigned n = 0; n < 2; n++) {
		uint32_t half = (uint32_t)(features >> 32 * n);

		if (d->mmio) {
			driver_mmio_wr(d, 0x24, n);
			driver_mmio_wr(d, 0x20, half);
		} else {
			driver_wr(d, 0x08, 4, n);
			driver_wr(d, 0x0c, 4, half);
		}
	}
	driver_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
	return driver_status(d);
}

static inline void driver_write_address(struct driver *d, unsigned offset, uint64_t address)
{
	driver_wr(d, offset, 4, (uint32_t)address);
	driver_wr(d, offset + 4, 4, (uint32_t)(address >> 32));
}

static inline void driver_enable_mmio(struct driver *d, const struct driver_queue *q)
{
	const uint64_t parts[] = { q->descriptors, q->available, q->used };

	driver_mmio_wr(d, 0x30, q->index);
	driver_mmio_wr(d, 0x38, q->size);
	for (unsigned n = 0; n < ARRAY_SIZE(parts); n++) {
		driver_mmio_wr(d, 0x80 + 0x10 * n, (uint32_t)parts[n]);
		driver_mmio_wr(d, 0x84 + 0x10 * n, (uint32_t)(parts[n] >> 32));
	}
	driver_mmio_wr(d, 0x44, 1);
}

static inline void driver_enable(struct driver *d, const struct driver_queue *q)
{
	if (d->mmio) {
		driver_enable_mmio(d, q);
		return;
	}
	driver_wr(d, 0x16, 2, q->index);
	driver_wr(d, 0x18, 2, q->size);
	driver_write_address(d, 0x20, q->descriptors);
	driver_write_address(d, 0x28, q->available);
	driver_write_address(d, 0x30, q->used);
	driver_wr(d, 0x1c, 2, 1);
}

/* Queue n has its parts in 64 KiB from 0x100000 on, zeroed, and is enabled. */
static inline struct driver_queue *driver_queue(struct driver *d, unsigned n, unsigned size)
{
	struct driver_queue *q = &d->queues[n];
	uint64_t at = 0x100000 + n * 0x10000;

	*q = (struct driver_queue){ n, size, at, at + 0x8000, at + 0xc000, 0, 0 };
	mem_fill(d->mem, gpa(at), 0, 0x10000);
	driver_enable(d, q);
	return q;
}

static inline void driver_ok(struct driver *d) { driver_set_status(d, driver_status(d) | VIRTIO_DRIVER_OK); }

static inline void driver_kick(struct driver *d, const struct driver_queue *q)
{
	if (d->mmio)
		driver_mmio_wr(d, 0x50, q->index);
	else
		driver_wr(d, DRIVER_NOTIFY + 4 * q->index, 2, q->index);
}

static inline uint16_t driver_load16(struct driver *d, uint64_t at)
{
	uint16_t value;

	assert_int_equal(mem_read(d->mem, gpa(at), &value, 2), 0);
	return value;
}

static inline void driver_store16(struct driver *d, uint64_t at, uint16_t value)
{
	assert_int_equal(mem_write(d->mem, gpa(at), &value, 2), 0);
}

/* Descriptor n of the table at `table`. */
static inline void driver_descriptor(struct driver *d, uint64_t table, unsigned n, uint64_t address, uint32_t length,
				     unsigned flags, unsigned next)
{
	uint8_t bytes[16];

	store_le64(bytes, address);
	store_le32(bytes + 8, length);
	store_le16(bytes + 12, (uint16_t)flags);
	store_le16(bytes + 14, (uint16_t)next);
	assert_int_equal(mem_write(d->mem, gpa(table + 16 * n), bytes, 16), 0);
}

/* The chain that begins with this descriptor is available; not yet kicked. */
static inline void driver_add(struct driver *d, struct driver_queue *q, unsigned head)
{
	driver_store16(d, q->available + 4 + 2 * (q->next % q->size), (uint16_t)head);
	driver_store16(d, q->available + 2, ++q->next);
}

/* The next one that was used: its head, and how much was written; or -1. */
static inline int driver_used(struct driver *d, struct driver_queue *q, uint32_t *length)
{
	uint32_t entry[2];

	if (driver_load16(d, q->used + 2) == q->seen)
		return -1;
	assert_int_equal(mem_read(d->mem, gpa(q->used + 4 + 8 * (q->seen % q->size)), entry, 8), 0);
	q->seen++;
	if (length)
		*length = entry[1];
	return (int)entry[0];
}

/* ---- packed queues ---- */

/* Of the queue that driver_queue() made. */
static inline struct driver_queue *driver_packed_queue(struct driver *d, unsigned n, unsigned size)
{
	struct driver_queue *q = driver_queue(d, n, size);

	q->next = q->seen = VIRTIO_PACKED_WRAP;
	return q;
}

static inline uint16_t driver_forward(const struct driver_queue *q, uint16_t position, unsigned by)
{
	unsigned index = (position & 0x7fff) + by;

	return (uint16_t)(index < q->size ? (position & 0x8000) | index : (~position & 0x8000) | (index - q->size));
}

struct driver_piece {
	uint64_t address;
	uint32_t length;
	unsigned flags; /* but for NEXT, and those of the turn */
};

/* A chain of these is available, which is shown last; not yet kicked. */
static inline void driver_packed_add(struct driver *d, struct driver_queue *q, const struct driver_piece *pieces,
				     unsigned count, unsigned id)
{
	for (unsigned n = count; n--;) {
		uint16_t at = driver_forward(q, q->next, n);
		unsigned turn = at & 0x8000 ? D_AVAILABLE : D_USED;

		driver_descriptor(d, q->descriptors, at & 0x7fff, pieces[n].address, pieces[n].length, id,
				  pieces[n].flags | turn | (n + 1 < count ? D_NEXT : 0));
	}
	q->next = driver_forward(q, q->next, count);
}

/* The next one that was used, which is of so many descriptors: its number, and how much was written; or -1. */
static inline int driver_packed_used(struct driver *d, struct driver_queue *q, unsigned count, uint32_t *length)
{
	uint64_t at = q->descriptors + 16 * (q->seen & 0x7fff);
	uint16_t flags = driver_load16(d, at + 14), turn = q->seen & 0x8000 ? D_AVAILABLE | D_USED : 0;

	if ((flags & (D_AVAILABLE | D_USED)) != turn)
		return -1;
	q->seen = driver_forward(q, q->seen, count);
	if (length) {
		assert_int_equal(mem_read(d->mem, gpa(at + 8), length, 4), 0);
		assert_int_equal(!!(flags & D_WRITE), !!*length);
	}
	return driver_load16(d, at + 12);
}

/* Reads the ISR status: 1 a queue, 2 the configuration; the pin goes low. */
static inline unsigned driver_isr(struct driver *d)
{
	uint32_t isr = d->mmio ? driver_mmio_rd(d, 0x60) : driver_rd(d, DRIVER_ISR, 1);

	if (d->mmio)
		driver_mmio_wr(d, 0x64, isr);
	return isr;
}
static inline bool driver_pin(struct driver *d) { return board_config_read(d->b, DRIVER_SLOT, 0x06, 2) & 8; }

#endif
