/*
 * IDE's registers, bus master and tables of regions as the input has them, for two disks, a CD and an empty drive; a transfer's state saved, damaged and loaded. Whatever is asked
 * for ends, and stays inside of buffers and memory.
 */
#define _GNU_SOURCE
#include "devices/devices.h"
#include "lib/fuzz.h"
#include "lib/no_cpus.h"

#define ACTIONS 2000
#define BM	0xc000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bus *create(void)
{
	static struct trace trace;
	struct bus *bus = bus_create(mem_create(MEM_MIN, NULL), clock_create(CLOCK_VIRTUAL, 0, NULL), &trace, NULL);
	void *cpus[1] = { bus };

	if (irq_chip_create(bus, 1, &no_cpus, cpus, NULL) || pci_bus_create(bus, NULL) ||
	    piix_type.create(bus, NULL, NULL))
		abort();
	fuzz_plug_disk(bus, "ide-disk,file=/proc/self/fd/%d,format=raw,discard");
	fuzz_plug_disk(bus, "ide-disk,file=/proc/self/fd/%d,format=raw,readonly");
	fuzz_plug_disk(bus, "ide-cd,file=/proc/self/fd/%d,format=raw");
	fuzz_plug_disk(bus, "ide-cd");
	return bus;
}

static uint64_t io(struct bus *bus, uint16_t port, unsigned size, bool write, uint64_t value)
{
	struct bus_access access = {
		.space = BUS_PIO, .address = port, .size = (uint8_t)size, .write = write, .value = value
	};

	bus_access(bus, &access);
	return access.value;
}

static void out(struct bus *bus, uint16_t port, uint8_t value) { io(bus, port, 1, true, value); }

static void config(struct bus *bus, uint8_t offset, uint32_t value)
{
	io(bus, 0xcf8, 4, true, 0x80000900u | offset);
	io(bus, 0xcfc, 4, true, value);
}

/* A packet in one action: found by chance it would take long. */
static void packet(struct bus *bus, uint16_t base, struct reader *input)
{
	out(bus, base + 1, (uint8_t)fuzz_take(input, 1) & 3);
	out(bus, base + 4, (uint8_t)fuzz_take(input, 1));
	out(bus, base + 5, (uint8_t)fuzz_take(input, 1) & 1);
	out(bus, base + 7, 0xa0);
	for (unsigned n = 0; n < 6; n++)
		io(bus, base, 2, true, fuzz_take(input, 2));
}

/* Regions at the beginning of memory, and the engine started. */
static void start(struct bus *bus, uint16_t bm, struct reader *input)
{
	uint8_t entries[64];
	uint32_t table = fuzz_take(input, 1) % 4 ? 0x8000 : (uint32_t)fuzz_take(input, 4);

	for (unsigned n = 0; n < sizeof(entries); n++)
		entries[n] = (uint8_t)fuzz_take(input, 1);
	for (unsigned n = 0; n < sizeof(entries); n += 8)
		if (entries[n + 3] % 8)
			entries[n + 2] &= 7, entries[n + 3] = 0;
	mem_write(bus->mem, gpa(0x8000), entries, sizeof(entries));
	out(bus, bm, 0);
	io(bus, bm + 4, 4, true, table);
	out(bus, bm, 9);
}

static void reload(struct bus *bus, struct reader *input)
{
	struct device *device = bus_find_device(bus, "ide-channel", (unsigned)fuzz_take(input, 1) & 1);
	struct writer saved = { 0 };
	struct reader reader;
	struct error error;

	if (state_save(device->ops->state, device->instance, device, &saved))
		abort();
	/* In front of the buffer, mostly. */
	for (unsigned n = (unsigned)fuzz_take(input, 1) % 8; n; n--)
		saved.data[fuzz_take(input, 2) % (n & 1 ? 300 : saved.size)] ^= (uint8_t)fuzz_take(input, 1);
	reader = (struct reader){ saved.data, saved.size, 0 };
	bus_pause(bus);
	if (!state_load(device->ops->state, device->instance, device, &reader, &error))
		bus_attach(bus);
	bus_resume(bus);
	writer_free(&saved);
}

static void act(struct bus *bus, struct reader *input)
{
	unsigned action = (unsigned)fuzz_take(input, 1), size = 1u << (action >> 5) % 3;
	uint16_t base = action & 0x80 ? 0x170 : 0x1f0, bm = action & 0x80 ? BM + 8 : BM;

	switch (action & 31) {
	case 0 ... 9: io(bus, (uint16_t)(base + (action & 31) % 8), 1, true, fuzz_take(input, 1)); break;
	case 10 ... 12: io(bus, (uint16_t)(base + fuzz_take(input, 1) % 8), size, false, 0); break;
	case 13 ... 15:
		for (unsigned n = (unsigned)fuzz_take(input, 1) * 16; n; n--)
			io(bus, base, 4, false, 0);
		break;
	case 16 ... 17:
		for (unsigned n = (unsigned)fuzz_take(input, 1) * 16; n; n--)
			io(bus, base, size, true, n * 0x01234567u);
		break;
	case 18: io(bus, (uint16_t)(bm + fuzz_take(input, 1) % 8), size, true, fuzz_take(input, 4)); break;
	case 19: io(bus, (uint16_t)(bm + fuzz_take(input, 1) % 8), size, false, 0); break;
	case 20: out(bus, base + 0x206, (uint8_t)fuzz_take(input, 1)); break;
	case 21 ... 24: packet(bus, base, input); break;
	case 25 ... 27: start(bus, bm, input); break;
	case 28: config(bus, (uint8_t)fuzz_take(input, 1), (uint32_t)fuzz_take(input, 4)); break;
	case 29: bus_reset(bus); break;
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
	config(bus, 0x20, BM);
	config(bus, 0x04, 5);
	for (unsigned n = 0; n < ACTIONS && input.offset < input.size; n++)
		act(bus, &input);
	return 0;
}
