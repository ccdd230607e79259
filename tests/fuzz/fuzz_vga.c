/*
 * The VGA: accesses to its ports, windows and BARs in any order, its record with wrong bytes, and somebody who looks at any moment.
 */
#define _GNU_SOURCE
#include "bus/bus.h"
#include "devices/devices.h"
#include "display/display.h"
#include "lib/fuzz.h"

#include <stdlib.h>

#define MAX_ACTIONS 200
#define MAX_SHOWN   6		/* they take their time */
#define CONFIG	    0x80001000u /* 00:02.0 */
#define BAR	    0xe0000000u
#define BAR2	    0xe1000000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct pc {
	struct clock *clock;
	struct guest_mem *mem;
	struct bus *bus;
	struct event_loop *loop;
	struct display *display;
	struct trace trace;
	struct reader input;
	unsigned shown;
};

static void put(struct pc *pc, enum bus_space space, uint64_t address, unsigned size, uint64_t value)
{
	struct bus_access access = { space, address, (uint8_t)size, true, value };

	bus_access(pc->bus, &access);
}

static uint64_t take(struct pc *pc, size_t bytes) { return fuzz_take(&pc->input, bytes); }

static void create(struct pc *pc)
{
	struct device_request request = { .spec = "vga" };

	pc->clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	pc->mem = mem_create(MEM_MIN, NULL);
	pc->bus = bus_create(pc->mem, pc->clock, &pc->trace, NULL);
	pc->loop = event_loop_create(NULL);
	pc->display = display_create(pc->loop, NULL);
	pc->bus->display = pc->display;
	if (pci_bus_create(pc->bus, NULL) || !device_plug(pc->bus, pc->loop, &request, NULL))
		abort();
	bus_reset(pc->bus);
	bus_settle(pc->bus);
}

static void destroy(struct pc *pc)
{
	devices_unplug(pc->bus);
	bus_destroy(pc->bus);
	mem_destroy(pc->mem);
	display_destroy(pc->display);
	event_loop_destroy(pc->loop);
	clock_destroy(pc->clock);
}

/* ---- actions ---- */

static void set_config(struct pc *pc, uint32_t offset, uint32_t value)
{
	put(pc, BUS_PIO, 0xcf8, 4, CONFIG | offset);
	put(pc, BUS_PIO, 0xcfc, 4, value);
}

static void map(struct pc *pc)
{
	set_config(pc, 0x10, BAR);
	set_config(pc, 0x18, BAR2);
	set_config(pc, 0x04, 3);
}

static void access_port(struct pc *pc)
{
	unsigned what = (unsigned)take(pc, 1);
	struct bus_access access = { BUS_PIO, 0x3b4 + take(pc, 1) % 0x30, (uint8_t)(1 << what % 3), what & 0x80, 0 };

	if (access.write)
		access.value = take(pc, access.size);
	bus_access(pc->bus, &access);
}

/* Index and data, as programs do it */
static void set_register(struct pc *pc)
{
	static const uint16_t ports[] = { 0x3c4, 0x3ce, 0x3d4, 0x3d4, 0x3b4 };

	put(pc, BUS_PIO, ports[take(pc, 1) % ARRAY_SIZE(ports)], 2, take(pc, 1) % 0x20 | take(pc, 1) << 8);
}

static void set_attribute(struct pc *pc)
{
	struct bus_access status = { BUS_PIO, 0x3da, 1, false, 0 };

	bus_access(pc->bus, &status);
	put(pc, BUS_PIO, 0x3c0, 1, take(pc, 1));
	put(pc, BUS_PIO, 0x3c0, 1, take(pc, 1));
	put(pc, BUS_PIO, 0x3c0, 1, 0x20);
}

static void set_dispi(struct pc *pc)
{
	unsigned index = (unsigned)take(pc, 1) % 12;

	put(pc, BUS_PIO, 0x1ce, 2, index);
	put(pc, BUS_PIO, 0x1cf, 2, take(pc, 2));
}

/* Pixels of all depths, and of any size but the largest, which takes its time */
static void set_large(struct pc *pc)
{
	static const uint16_t depths[] = { 4, 8, 15, 16, 24, 32 };
	uint16_t values[] = { 0, (uint16_t)(take(pc, 2) & 0x1ff), (uint16_t)(take(pc, 1)), depths[take(pc, 1) % 6],
			      (uint16_t)(1 | take(pc, 1)) };

	for (unsigned n = 0; n < ARRAY_SIZE(values); n++) {
		put(pc, BUS_PIO, 0x1ce, 2, n ? n : 4);
		put(pc, BUS_PIO, 0x1cf, 2, values[n]);
	}
}

/* As a processor: memory where there is some, else the bus. */
static void access_memory(struct pc *pc)
{
	static const uint64_t places[] = { 0xa0000,	   0xb0000, 0xb8000,	  BAR,
					   BAR + 0xff0000, BAR2,    BAR2 + 0x400, BAR2 + 0x500 };
	unsigned what = (unsigned)take(pc, 1), size = 1u << what % 4;
	uint64_t address = places[what / 4 % 8] + take(pc, 2), value = 0;
	struct bus_access access = { BUS_MMIO, address, (uint8_t)size, what & 0x80, 0 };

	if (access.write)
		access.value = value = take(pc, size);
	if (access.write ? mem_write(pc->mem, gpa(address), &value, size)
			 : mem_read(pc->mem, gpa(address), &value, size))
		bus_access(pc->bus, &access);
	bus_settle(pc->bus);
}

static void show(struct pc *pc)
{
	static struct text_picture text;
	const struct picture *p = display_picture(pc->display);

	if (!p || p->width > PICTURE_MAX_WIDTH || p->height > PICTURE_MAX_HEIGHT)
		abort();
	if (!text.cells)
		text.cells = malloc(64 * 64 * sizeof(*text.cells));
	text.columns = text.rows = 64;
	if (display_read_text(pc->display, &text) && (text.columns > 64 || text.rows > 64))
		abort();
}

/* Saved, some bytes changed, loaded: refused or not, it still works. */
static void reload(struct pc *pc)
{
	struct device *device = bus_find_device(pc->bus, "vga", 0);
	struct writer writer = { 0 };
	struct reader reader;
	struct error error;

	if (!state_save(device->ops->state, 0, device, &writer)) {
		for (unsigned i = (unsigned)take(pc, 1) % 8; i; i--)
			writer.data[take(pc, 2) % writer.size] ^= (uint8_t)take(pc, 1);
		reader = (struct reader){ writer.data, writer.size, 0 };
		state_load(device->ops->state, 0, device, &reader, &error);
		bus_attach(pc->bus);
		bus_settle(pc->bus);
	}
	writer_free(&writer);
}

static void act(struct pc *pc, unsigned action)
{
	switch (action % 64) {
	case 0 ... 9: access_port(pc); break;
	case 10 ... 24: set_register(pc); break;
	case 25 ... 29: set_attribute(pc); break;
	case 30 ... 33: set_dispi(pc); break;
	case 34 ... 35: set_large(pc); break;
	case 36 ... 52: access_memory(pc); break;
	case 53: map(pc); break;
	case 54: set_config(pc, (uint32_t)take(pc, 1) & 0x3c, (uint32_t)take(pc, 4)); break;
	case 55: clock_set(pc->clock, clock_now(pc->clock) + take(pc, 4)); break;
	case 56: put(pc, BUS_PIO, 0x3c2, 1, take(pc, 1)); break;
	case 57 ... 60:
		if (pc->shown++ < MAX_SHOWN)
			show(pc);
		break;
	case 61: bus_reset(pc->bus), bus_settle(pc->bus); break;
	default: reload(pc); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pc pc = { .input = { data, size, 0 } };

	log_set_level(LOG_ERROR);
	create(&pc);
	map(&pc);
	put(&pc, BUS_PIO, 0x3c2, 1, 0x67);
	for (unsigned i = 0; i < MAX_ACTIONS && pc.input.offset < pc.input.size; i++)
		act(&pc, (unsigned)take(&pc, 1));
	show(&pc);
	destroy(&pc);
	return 0;
}
