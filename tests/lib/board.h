/*
 * A machine without memory and processors for the tests of bus/ and devices/: a bus under a virtual clock, and CPUs that only
 * count what their local APICs tell them. Everything goes through bus_access(), as from a guest.
 */
#ifndef TESTS_LIB_BOARD_H
#define TESTS_LIB_BOARD_H

#include "bus/bus.h"
#include "devices/devices.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define BOARD_CPUS 4

struct board_cpu {
	atomic_uint interrupts, nmis, inits, sipis; /* from any thread */
	uint8_t sipi_vector;
	uint64_t tsc_offset;
};

struct board {
	struct clock *clock;
	struct bus *bus;
	struct guest_mem *mem; /* NULL: there is none */
	struct trace trace;
	struct board_cpu cpus[BOARD_CPUS];
	unsigned requests[5];  /* by enum bus_request */
	struct bus_hold *hold; /* the last one that has begun, unless one has ended since; the test is who retries */
};

static inline void board_interrupt(void *cpu) { ((struct board_cpu *)cpu)->interrupts++; }
static inline void board_nmi(void *cpu) { ((struct board_cpu *)cpu)->nmis++; }
static inline void board_init(void *cpu) { ((struct board_cpu *)cpu)->inits++; }

static inline void board_sipi(void *cpu, uint8_t vector)
{
	((struct board_cpu *)cpu)->sipis++;
	((struct board_cpu *)cpu)->sipi_vector = vector;
}

static inline uint64_t board_tsc_offset(void *cpu) { return ((struct board_cpu *)cpu)->tsc_offset; }

static inline void board_request(void *opaque, enum bus_request request)
{
	((struct board *)opaque)->requests[request]++;
}

static inline void board_hold(void *opaque, struct bus_hold *hold, bool begins)
{
	((struct board *)opaque)->hold = begins ? hold : NULL;
}

/* Interrupt controllers for `cpus` CPUs, nothing else. */
static inline struct board *board_create_with(unsigned cpus, enum clock_kind clock)
{
	static const struct lapic_ops ops = {
		.interrupt = board_interrupt,
		.nmi = board_nmi,
		.init = board_init,
		.sipi = board_sipi,
		.tsc_offset = board_tsc_offset,
	};
	struct board *board = calloc(1, sizeof(*board));
	void *opaque[BOARD_CPUS];

	for (unsigned i = 0; i < BOARD_CPUS; i++)
		opaque[i] = &board->cpus[i];
	board->clock = clock_create(clock, 0, NULL);
	board->bus = bus_create(NULL, board->clock, &board->trace, NULL);
	board->bus->request = board_request;
	board->bus->hold = board_hold;
	board->bus->request_opaque = board;
	if (irq_chip_create(board->bus, cpus, &ops, opaque, NULL))
		abort();
	return board;
}

static inline struct board *board_create(unsigned cpus) { return board_create_with(cpus, CLOCK_VIRTUAL); }

/* Before there are devices that want it. */
static inline void board_add_memory(struct board *board, uint64_t size)
{
	board->bus->mem = board->mem = mem_create(size, NULL);
}

/* As if of a device. */
static inline struct irq_line board_line(struct board *board, unsigned n)
{
	return irq_isa_line(bus_find_device(board->bus, "irq", 0), n);
}

static inline void board_destroy(struct board *board)
{
	bus_destroy(board->bus);
	mem_destroy(board->mem);
	clock_destroy(board->clock);
	free(board);
}

/* Of tests that plug devices. */
static inline void board_unplug(struct board *board)
{
	devices_unplug(board->bus);
	board_destroy(board);
}

/* Run timers one after the other until guest time t. */
static inline void board_run_until(struct board *board, vtime_t t)
{
	while (clock_next_deadline(board->clock) <= t) {
		clock_set(board->clock, clock_next_deadline(board->clock));
		clock_run(board->clock);
	}
	clock_set(board->clock, t);
}

static inline void board_run(struct board *board, vtime_t ns) { board_run_until(board, clock_now(board->clock) + ns); }

static inline uint64_t board_read(struct board *board, enum bus_space space, uint64_t address, unsigned size)
{
	struct bus_access access = { .space = space, .address = address, .size = (uint8_t)size };

	bus_access(board->bus, &access);
	return access.value;
}

static inline void board_write(struct board *board, enum bus_space space, uint64_t address, unsigned size,
			       uint64_t value)
{
	struct bus_access access = {
		.space = space, .address = address, .size = (uint8_t)size, .write = true, .value = value
	};

	bus_access(board->bus, &access);
}

static inline uint8_t inb(struct board *b, uint16_t port) { return (uint8_t)board_read(b, BUS_PIO, port, 1); }
static inline uint16_t inw(struct board *b, uint16_t port) { return (uint16_t)board_read(b, BUS_PIO, port, 2); }
static inline uint32_t inl(struct board *b, uint16_t port) { return (uint32_t)board_read(b, BUS_PIO, port, 4); }
static inline void outb(struct board *b, uint16_t port, uint8_t v) { board_write(b, BUS_PIO, port, 1, v); }
static inline void outw(struct board *b, uint16_t port, uint16_t v) { board_write(b, BUS_PIO, port, 2, v); }
static inline void outl(struct board *b, uint16_t port, uint32_t v) { board_write(b, BUS_PIO, port, 4, v); }

static inline uint32_t board_config_read(struct board *b, unsigned devfn, unsigned offset, unsigned size)
{
	outl(b, 0xcf8, 0x80000000u | devfn << 8 | (offset & 0xfc));
	return (uint32_t)board_read(b, BUS_PIO, 0xcfc + (offset & 3), size);
}

static inline void board_config_write(struct board *b, unsigned devfn, unsigned offset, unsigned size, uint32_t value)
{
	outl(b, 0xcf8, 0x80000000u | devfn << 8 | (offset & 0xfc));
	board_write(b, BUS_PIO, 0xcfc + (offset & 3), size, value);
}

static inline uint32_t board_ioapic_read(struct board *b, unsigned reg)
{
	board_write(b, BUS_MMIO, 0xfec00000, 4, reg);
	return (uint32_t)board_read(b, BUS_MMIO, 0xfec00010, 4);
}

static inline void board_ioapic_write(struct board *b, unsigned reg, uint32_t value)
{
	board_write(b, BUS_MMIO, 0xfec00000, 4, reg);
	board_write(b, BUS_MMIO, 0xfec00010, 4, value);
}

/* Redirection entry: high half first, so that it is complete when it is unmasked. */
static inline void board_ioapic_entry(struct board *b, unsigned pin, uint64_t entry)
{
	board_ioapic_write(b, 0x10 + 2 * pin + 1, (uint32_t)(entry >> 32));
	board_ioapic_write(b, 0x10 + 2 * pin, (uint32_t)entry);
}

/* Program the 8259 pair as every operating system does: vectors 0x20 and 0x28, nothing masked. */
static inline void board_pic_init(struct board *b)
{
	static const uint8_t writes[][2] = {
		{ 0x20, 0x11 }, { 0xa0, 0x11 }, { 0x21, 0x20 }, { 0xa1, 0x28 }, { 0x21, 0x04 },
		{ 0xa1, 0x02 }, { 0x21, 0x01 }, { 0xa1, 0x01 }, { 0x21, 0x00 }, { 0xa1, 0x00 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(writes); i++)
		outb(b, writes[i][0], writes[i][1]);
}

/* What CPU 0 would take now; -1 nothing. */
static inline int board_take(struct board *b) { return lapic_take(irq_lapic(b->bus, 0)); }

static inline uint32_t lapic_rd(struct board *b, unsigned cpu, unsigned offset)
{
	return (uint32_t)lapic_mmio_read(irq_lapic(b->bus, cpu), offset, 4);
}

static inline void lapic_wr(struct board *b, unsigned cpu, unsigned offset, uint32_t value)
{
	lapic_mmio_write(irq_lapic(b->bus, cpu), offset, 4, value);
}

/* Records of all devices, as a machine writes them. */
static inline struct writer board_save(struct board *b)
{
	struct writer writer = { 0 };
	struct device *device;

	list_for_each (device, &b->bus->devices, node)
		if (device->ops->state)
			assert_int_equal(state_save(device->ops->state, device->instance, device, &writer), 0);
	return writer;
}

/* All or none, at the guest time `now`. 0 or -errno. */
static inline int board_load(struct board *b, const struct writer *records, vtime_t now, struct error *err)
{
	struct reader reader = { records->data, records->size, 0 };
	struct state_changes changes = { 0 };
	struct device *device;
	int rc = 0;

	list_for_each (device, &b->bus->devices, node)
		if (!rc && device->ops->state)
			rc = state_load_part(&changes, device->ops->state, device->instance, device, &reader, err);
	if (!rc)
		rc = bus_loaded(b->bus, err);
	if (rc) {
		state_load_undo(&changes);
		return rc;
	}
	state_load_keep(&changes);
	clock_load(b->clock, now, clock_wall_ns(b->clock) - clock_now(b->clock) + now);
	bus_attach(b->bus);
	return 0;
}

/* Set-up and tear-down of tests that need the interrupt controllers only. */
static inline int board_setup(void **state)
{
	*state = board_create(BOARD_CPUS);
	return 0;
}

static inline int board_teardown(void **state)
{
	board_destroy(*state);
	return 0;
}

#define BOARD_TEST(name) cmocka_unit_test_setup_teardown(name, board_setup, board_teardown)

#endif
