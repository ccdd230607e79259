/*
 * AHCI: registers, command lists, FISes, packets and regions as the input has them, for a disk, a CD and an empty drive; the state saved, damaged and loaded. Whatever is asked for
 * ends, and stays inside of memory.
 */
#define _GNU_SOURCE
#include "devices/devices.h"
#include "lib/fuzz.h"
#include "lib/no_cpus.h"

#define ACTIONS 1000
#define BASE	0xe0000000u
#define LISTS	0x8000u /* 4 KiB for each port: the list, behind it tables of 256 bytes for the first slots */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bus *create(void)
{
	static struct trace trace;
	struct bus *bus = bus_create(mem_create(MEM_MIN, NULL), clock_create(CLOCK_VIRTUAL, 0, NULL), &trace, NULL);
	void *cpus[1] = { bus };

	if (irq_chip_create(bus, 1, &no_cpus, cpus, NULL) || pci_bus_create(bus, NULL) ||
	    piix_type.create(bus, NULL, NULL))
		abort();
	fuzz_plug_disk(bus, "sata-disk,file=/proc/self/fd/%d,format=raw,discard");
	fuzz_plug_disk(bus, "sata-cd,file=/proc/self/fd/%d,format=raw");
	fuzz_plug_disk(bus, "sata-cd");
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

static void start(struct bus *bus, unsigned port)
{
	unsigned base = 0x100 + 0x80 * port;

	out(bus, base + 0x18, 0);
	out(bus, base, LISTS + port * 0x1000);
	out(bus, base + 8, LISTS + 0x4000);
	out(bus, base + 0x18, 0x11);
}

/* A whole command, issued: found by chance it would take long. */
static void command(struct bus *bus, unsigned port, struct reader *input)
{
	unsigned slot = (unsigned)fuzz_take(input, 1) % 8, how = (unsigned)fuzz_take(input, 1);
	uint32_t list = LISTS + port * 0x1000, table = list + 0x400 + slot * 0x100;
	uint8_t header[32] = { how & 1 ? 5 : (uint8_t)fuzz_take(input, 1), 0, how >> 5 }, bytes[256] = { 0x27, 0x80 };

	store_le32(header + 8, table);
	for (unsigned n = 2; n < 14; n++)
		bytes[n] = (uint8_t)fuzz_take(input, 1);
	if (how & 2)
		bytes[1] = (uint8_t)fuzz_take(input, 1);
	if (how & 4)
		bytes[2] = port ? 0xa0 : 0x60 | (bytes[2] & 1);
	bytes[6] = bytes[8] = bytes[9] = 0;
	for (unsigned n = 0x40; n < 0x4c; n++)
		bytes[n] = (uint8_t)fuzz_take(input, 1);
	for (unsigned n = 0x80; n < 0x80 + (how >> 5) * 16; n += 16) {
		store_le64(bytes + n, fuzz_take(input, how & 8 ? 8 : 2));
		store_le32(bytes + n + 12, (uint32_t)fuzz_take(input, 3));
	}
	mem_write(bus->mem, gpa(list + slot * 32), header, sizeof(header));
	mem_write(bus->mem, gpa(table), bytes, sizeof(bytes));
	if (how & 4)
		out(bus, 0x134 + 0x80 * port, 1u << slot);
	out(bus, 0x138 + 0x80 * port, 1u << slot);
}

static void reload(struct bus *bus, struct reader *input)
{
	struct device *device = bus_find_device(bus, "ahci-port", (unsigned)fuzz_take(input, 1) % 3);
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
	unsigned action = (unsigned)fuzz_take(input, 1), port = (action >> 4) % 4;

	switch (action & 15) {
	case 0 ... 6: command(bus, port, input); break;
	case 7 ... 8:
		out(bus, 0x100 + 0x80 * port + (fuzz_take(input, 1) & 0x7c), (uint32_t)fuzz_take(input, 4));
		break;
	case 9: out(bus, (unsigned)fuzz_take(input, 1) & 0x3c, (uint32_t)fuzz_take(input, 1)); break;
	case 10: io(bus, BUS_MMIO, BASE + fuzz_take(input, 2) % 0x1000, 1u << port % 3, false, 0); break;
	case 11 ... 12: start(bus, port); break;
	case 13:
		if (action & 0x80)
			bus_reset(bus);
		config(bus, 0x24, BASE);
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
	config(bus, 0x24, BASE);
	config(bus, 0x04, 6);
	for (unsigned port = 0; port < 3; port++)
		start(bus, port);
	for (unsigned n = 0; n < ACTIONS && input.offset < input.size; n++)
		act(bus, &input);
	bus_pause(bus);
	return 0;
}
