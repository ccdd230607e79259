/*
 * NVMe: registers, doorbells and queue entries as the input has them, PRPs near memory; the state saved, damaged and loaded. Whatever is asked for ends, and stays inside of memory.
 */
#define _GNU_SOURCE
#include "devices/devices.h"
#include "lib/fuzz.h"
#include "lib/no_cpus.h"

#define ACTIONS 1000
#define BASE	0xe0000000u
#define QUEUES	0x8000u /* 4 KiB for each; entries of all of them are the same memory's */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bus *create(void)
{
	static struct trace trace;
	struct bus *bus = bus_create(mem_create(MEM_MIN, NULL), clock_create(CLOCK_VIRTUAL, 0, NULL), &trace, NULL);
	void *cpus[1] = { bus };

	if (irq_chip_create(bus, 1, &no_cpus, cpus, NULL) || pci_bus_create(bus, NULL) ||
	    piix_type.create(bus, NULL, NULL))
		abort();
	fuzz_plug_disk(bus, "nvme,file=/proc/self/fd/%d,format=raw,discard");
	return bus;
}

static void io(struct bus *bus, enum bus_space space, uint64_t address, unsigned size, bool write, uint64_t value)
{
	struct bus_access access = {
		.space = space, .address = address, .size = (uint8_t)size, .write = write, .value = value
	};

	bus_access(bus, &access);
}

static void out(struct bus *bus, unsigned n, uint32_t value) { io(bus, BUS_MMIO, BASE + n, 4, true, value); }

static void config(struct bus *bus, uint8_t offset, uint32_t value)
{
	io(bus, BUS_PIO, 0xcf8, 4, true, 0x80001800u | offset);
	io(bus, BUS_PIO, 0xcfc, 4, true, value);
}

/* Mostly in memory, at the beginning of a page. */
static uint64_t address(struct reader *input)
{
	unsigned how = (unsigned)fuzz_take(input, 1);

	return how % 8 ? QUEUES + (how >> 3) * 0x1000u : fuzz_take(input, 8);
}

static void entry(struct bus *bus, struct reader *input)
{
	unsigned at = (unsigned)fuzz_take(input, 1);
	uint8_t data[64] = { at % 4 ? (uint8_t)(fuzz_take(input, 1) % 16) : (uint8_t)fuzz_take(input, 1) };

	data[4] = at % 8 != 7;
	for (unsigned n = 24; n < 40; n += 8)
		store_le64(data + n, address(input));
	for (unsigned n = 40; n < 52; n++)
		data[n] = (uint8_t)fuzz_take(input, 1);
	mem_write(bus->mem, gpa(QUEUES + (at >> 6) * 0x1000u + (at >> 2) % 16 * 64), data, sizeof(data));
}

static void start(struct bus *bus, struct reader *input)
{
	out(bus, 0x14, 0);
	out(bus, 0x24, (uint32_t)fuzz_take(input, 1) % 16 | ((uint32_t)fuzz_take(input, 1) % 16) << 16);
	out(bus, 0x28, (uint32_t)address(input));
	out(bus, 0x30, (uint32_t)address(input));
	out(bus, 0x14, 0x00460001);
}

static void reload(struct bus *bus, struct reader *input)
{
	struct device *device = bus_find_device(bus, "nvme", 0);
	struct writer saved = { 0 };
	struct reader reader;
	struct error error;

	bus_pause(bus);
	if (state_save(device->ops->state, device->instance, device, &saved))
		abort();
	for (unsigned n = (unsigned)fuzz_take(input, 1) % 8; n; n--)
		saved.data[fuzz_take(input, 2) % saved.size] ^= (uint8_t)fuzz_take(input, 1);
	reader = (struct reader){ saved.data, saved.size, 0 };
	if (!state_load(device->ops->state, device->instance, device, &reader, &error))
		bus_attach(bus);
	bus_resume(bus);
	writer_free(&saved);
}

static void act(struct bus *bus, struct reader *input)
{
	unsigned action = (unsigned)fuzz_take(input, 1);

	switch (action & 15) {
	case 0 ... 4: entry(bus, input); break;
	case 5 ... 9: out(bus, 0x1000 + (action >> 4) % 6 * 4, (uint32_t)fuzz_take(input, 1) % 20); break;
	case 10: out(bus, 0x1000 + (unsigned)fuzz_take(input, 1) * 4, (uint32_t)fuzz_take(input, 4)); break;
	case 11: out(bus, (unsigned)fuzz_take(input, 1) & ~3u, (uint32_t)fuzz_take(input, 4)); break;
	case 12: io(bus, BUS_MMIO, BASE + fuzz_take(input, 2) % 0x4000, 4u << (action >> 7), false, 0); break;
	case 13: start(bus, input); break;
	case 14:
		if (action & 0x80)
			bus_reset(bus);
		config(bus, 0x10, BASE);
		config(bus, 0x04, action & 0x40 ? 2 : 6);
		break;
	default: reload(bus, input);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct bus *bus; /* made once */
	struct reader input = { data, size, 0 };

	log_set_level(LOG_ERROR);
	if (!bus)
		bus = create();
	bus_reset(bus);
	bus_resume(bus);
	config(bus, 0x10, BASE);
	config(bus, 0x04, 6);
	start(bus, &input);
	for (unsigned n = 0; n < ACTIONS && input.offset < input.size; n++)
		act(bus, &input);
	bus_pause(bus);
	return 0;
}
