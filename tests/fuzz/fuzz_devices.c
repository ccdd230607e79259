/*
 * A PC without processors whose guest does whatever the input says: port and memory-mapped accesses anywhere, registers of the
 * local APICs, interrupt acknowledges, input on the serial line, time passing, resets, records of a snapshot cut up and put
 * together again. Nothing may crash or hang; time always moves on.
 */
#define _GNU_SOURCE
#include "backend/backend.h"
#include "bus/bus.h"
#include "devices/devices.h"
#include "lib/fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define CPUS	    2
#define MAX_ACTIONS 4096
#define MAX_STEP    10000000 /* ns of guest time run at once */
#define MAX_TIMERS  4000     /* callbacks in that time: each device bounds how often it fires */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- a character device ---- */

struct chardev {
	const struct chardev_ops *ops;
	void *opaque;
	size_t room;
};

void chardev_attach(struct chardev *chardev, const struct chardev_ops *ops, void *opaque)
{
	chardev->ops = ops;
	chardev->opaque = opaque;
}

size_t chardev_write(struct chardev *chardev, const void *data, size_t size)
{
	(void)data;
	(void)size;
	return chardev->room;
}

size_t chardev_room(struct chardev *chardev) { return chardev->room; }

void chardev_resume(struct chardev *chardev) { (void)chardev; }

/* Of devices that are plugged: none of them has any. */
struct chardev *chardev_open(const char *spec, struct event_loop *loop, struct error *err)
{
	(void)loop;
	error_set(err, ENODEV, "no character device '%s' here", spec);
	return NULL;
}

void chardev_close(struct chardev *chardev) { (void)chardev; }

/* ---- CPUs that nothing impresses ---- */

static void ignore(void *cpu) { (void)cpu; }

static void ignore_sipi(void *cpu, uint8_t vector)
{
	(void)cpu;
	(void)vector;
}

static uint64_t tsc_offset(void *cpu) { return *(uint64_t *)cpu; }

static const struct lapic_ops lapic_ops = {
	.interrupt = ignore,
	.nmi = ignore,
	.init = ignore,
	.sipi = ignore_sipi,
	.tsc_offset = tsc_offset,
};

/* ---- a PCI device with BARs and an interrupt ---- */

struct card {
	struct pci_device pci;
};

static uint64_t card_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	irq_set(&((struct card *)device)->pci.intx, offset & 4);
	return offset;
}

#include "lib/card.h"

static void card_plug(struct bus *bus)
{
	struct card *card = calloc(1, sizeof(*card));

	device_init(&card->pci.device, bus, "card", &card_ops);
	pci_init_config(&card->pci, 1, 2, 3, 4, 5, 1);
	card->pci.bars[0].size = 4096;
	card->pci.bars[1].size = 64;
	card->pci.bars[1].io = true;
	card->pci.bars[2].size = 1 << 20;
	card->pci.bars[2].wide = true;
	for (unsigned i = 0; i < 3; i++) {
		card->pci.bars[i].range.sizes = 1 | 2 | 4 | 8;
		card->pci.bars[i].range.read = card_read;
	}
	if (pci_add(bus, &card->pci, 5, 0, NULL))
		abort();
}

/* ---- the machine ---- */

struct pc {
	struct clock *clock;
	struct bus *bus;
	struct trace trace;
	uint64_t tsc_offsets[CPUS];
	struct chardev serial;
	struct reader input;
};

static void request(void *opaque, enum bus_request what)
{
	(void)opaque;
	(void)what;
}

/* Of 160 KiB, zeros at first. */
static bool floppy_plug(struct bus *bus)
{
	int fd = memfd_create("floppy", 0);
	char spec[64];
	bool plugged;

	if (fd < 0 || ftruncate(fd, 160 << 10))
		abort();
	snprintf(spec, sizeof(spec), "floppy,file=/proc/self/fd/%d,format=raw", fd);
	plugged = device_plug(bus, NULL, &(struct device_request){ .spec = spec }, NULL);
	close(fd);
	return plugged;
}

/* The debugging console and pc-testdev have ports in common: inputs of even and of odd size. */
static void pc_create(struct pc *pc)
{
	void *cpus[CPUS] = { &pc->tsc_offsets[0], &pc->tsc_offsets[1] };
	struct bus *bus;
	struct chardev *nowhere = NULL; /* debug-console has one option */
	int failed;

	pc->clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	pc->bus = bus = bus_create(NULL, pc->clock, &pc->trace, NULL);
	bus->request = request;
	bus->reinject = pc->input.size & 2; /* late timers, made up for or not */
	failed = irq_chip_create(bus, CPUS, &lapic_ops, cpus, NULL) || !floppy_plug(bus) ||
		 dma_type.create(bus, NULL, NULL) || pci_bus_create(bus, NULL) || piix_type.create(bus, NULL, NULL) ||
		 hpet_type.create(bus, NULL, NULL) || pit_type.create(bus, NULL, NULL) || rtc_create(bus, 1, NULL) ||
		 kbc_type.create(bus, NULL, NULL) || uart_create(bus, 0, &pc->serial, NULL) ||
		 uart_create(bus, 2, NULL, NULL) ||
		 !device_plug(bus, NULL, &(struct device_request){ .spec = "fw-cfg,once=n" }, NULL) ||
		 debug_exit_type.create(bus, NULL, NULL) ||
		 (pc->input.size & 1 ? testdev_type.create(bus, NULL, NULL)
				     : debug_console_type.create(bus, &nowhere, NULL));
	if (failed)
		abort();
	card_plug(bus);
}

static uint64_t take(struct pc *pc, size_t bytes) { return fuzz_take(&pc->input, bytes); }

/* Most accesses go where a device is. */
static void access_port(struct pc *pc, bool write)
{
	static const struct {
		uint16_t start, size;
	} places[] = {
		{ 0x20, 2 },
		{ 0xa0, 2 },
		{ 0x4d0, 2 },
		{ 0x40, 4 },
		{ 0x61, 1 },
		{ 0x70, 2 },
		{ 0x60, 1 },
		{ 0x64, 1 },
		{ 0x92, 1 },
		{ 0x00, 16 },
		{ 0x80, 16 },
		{ 0xc0, 32 },
		{ 0x3f0, 8 },
		{ 0x3f8, 8 },
		{ 0x3e8, 8 },
		{ 0xcf8, 8 },
		{ ACPI_PM_BASE, 16 },
		{ ACPI_GPE0_BASE, 4 },
		{ 0xf4, 4 },
		{ 0xe9, 1 },
		{ 0xe0, 12 },
		{ 0x2000, 24 },
		{ FW_CFG_PORT, FW_CFG_PORTS },
	};
	unsigned place = (unsigned)take(pc, 1);
	struct bus_access access = { .space = BUS_PIO, .size = (uint8_t)(1 << take(pc, 1) % 3), .write = write };

	if (place < 240) {
		unsigned n = place % ARRAY_SIZE(places);

		access.address = places[n].start + place / ARRAY_SIZE(places) % places[n].size;
	} else {
		access.address = take(pc, 2);
	}
	if (write)
		access.value = take(pc, access.size);
	bus_access(pc->bus, &access);
	if (!write && access.size < 8 && access.value >> (8 * access.size))
		abort();
}

static void access_memory(struct pc *pc, bool write)
{
	struct bus_access access = { .space = BUS_MMIO, .size = (uint8_t)(1 << take(pc, 1) % 4), .write = write };

	switch (take(pc, 1) % 8) {
	case 0: access.address = take(pc, 8); break;
	case 1: access.address = HPET_ADDRESS + 4 * take(pc, 1); break;
	case 2: access.address = HPET_ADDRESS + 0x100 + 8 * (take(pc, 1) % 16); break;
	default: access.address = 0xfec00000 + take(pc, 1) % 0x48; break;
	}
	if (write)
		access.value = take(pc, access.size);
	bus_access(pc->bus, &access);
}

static void access_ioapic(struct pc *pc)
{
	struct bus_access index = { BUS_MMIO, 0xfec00000, 4, true, take(pc, 1) % 0x42 };
	struct bus_access data = { BUS_MMIO, 0xfec00010, 4, true, take(pc, 4) };

	bus_access(pc->bus, &index);
	bus_access(pc->bus, &data);
}

static void access_config(struct pc *pc)
{
	static const uint8_t functions[] = { 0x00, 0x08, 0x0b, 0x28 };
	uint64_t function = functions[take(pc, 1) % ARRAY_SIZE(functions)];
	struct bus_access address = { BUS_PIO, 0xcf8, 4, true, 0x80000000 | function << 8 | take(pc, 1) };
	struct bus_access data = { BUS_PIO, 0xcfc, 4, true, take(pc, 4) };

	bus_access(pc->bus, &address);
	bus_access(pc->bus, &data);
}

/* In whichever mode it is. */
static void write_lapic(struct lapic *lapic, uint32_t offset, uint32_t value)
{
	if (lapic_claims(lapic, gpa(0xfee00000)))
		lapic_mmio_write(lapic, offset, 4, value);
	else
		lapic_msr_write(lapic, 0x800 + (offset >> 4), value);
}

/* A running timer is too many right writes in a row to be found by chance. */
static void program_lapic_timer(struct pc *pc, struct lapic *lapic)
{
	write_lapic(lapic, 0xf0, 0x1ff);
	write_lapic(lapic, 0x320, (uint32_t)(take(pc, 1) % 8 << 16 | take(pc, 1)));
	write_lapic(lapic, 0x3e0, (uint32_t)take(pc, 1) & 0xb);
	write_lapic(lapic, 0x380, (uint32_t)take(pc, 3));
}

static void access_lapic(struct pc *pc, struct lapic *lapic, unsigned how)
{
	uint64_t value, offset = take(pc, 1) << 4;

	switch (how % 8) {
	case 0: lapic_mmio_write(lapic, offset, 4, take(pc, 4)); break;
	case 1: lapic_mmio_read(lapic, take(pc, 2), 1u << take(pc, 1) % 4); break;
	case 2: lapic_msr_write(lapic, (uint32_t)(0x800 + (offset >> 4)), take(pc, 8)); break;
	case 3: lapic_msr_read(lapic, (uint32_t)(0x800 + (offset >> 4)), &value); break;
	case 5: program_lapic_timer(pc, lapic); break;
	case 6: lapic_mmio_read(lapic, 0x390, 4); break;
	case 4: lapic_msr_write(lapic, 0x1b, 0xfee00000 | (take(pc, 1) << 4 & 0xd00)); break;
	default: lapic_msr_write(lapic, 0x6e0, clock_now(pc->clock) + take(pc, 4)); break;
	}
}

static void run_timers(struct pc *pc, vtime_t until)
{
	unsigned callbacks = 0;

	while (clock_next_deadline(pc->clock) <= until) {
		vtime_t deadline = clock_next_deadline(pc->clock);

		if (callbacks++ > MAX_TIMERS)
			abort();
		clock_set(pc->clock, deadline);
		clock_run(pc->clock);
	}
	clock_set(pc->clock, until);
}

static void receive_input(struct pc *pc)
{
	uint8_t text[20];
	size_t length = take(pc, 1) % sizeof(text);

	for (size_t i = 0; i < length; i++)
		text[i] = (uint8_t)take(pc, 1);
	pc->serial.ops->receive(pc->serial.opaque, text, length);
	if (!length)
		pc->serial.ops->receive_break(pc->serial.opaque);
}

/* Save a device, change some bytes, load: refused or not, the device must still work. */
static void reload(struct pc *pc)
{
	unsigned n = (unsigned)take(pc, 1) % 24;
	struct device *device;
	struct writer writer = { 0 };
	struct reader reader;
	struct error error;

	list_for_each (device, &pc->bus->devices, node)
		if (!n--)
			break;
	if (&device->node == &pc->bus->devices || !device->ops->state)
		return;
	if (!state_save(device->ops->state, device->instance, device, &writer)) {
		for (unsigned i = (unsigned)take(pc, 1) % 8; i; i--)
			writer.data[take(pc, 2) % writer.size] ^= (uint8_t)take(pc, 1);
		reader = (struct reader){ writer.data, writer.size, 0 };
		state_load(device->ops->state, device->instance, device, &reader, &error);
		bus_attach(pc->bus);
	}
	writer_free(&writer);
}

static void act(struct pc *pc, unsigned action)
{
	struct lapic *lapic = irq_lapic(pc->bus, action >> 7);

	switch (action & 0x7f) {
	case 0 ... 39: access_port(pc, true); break;
	case 40 ... 59: access_port(pc, false); break;
	case 60 ... 64: access_memory(pc, true); break;
	case 65 ... 67: access_memory(pc, false); break;
	case 68 ... 73: access_ioapic(pc); break;
	case 74 ... 79: access_config(pc); break;
	case 80 ... 95: access_lapic(pc, lapic, action); break;
	case 96 ... 103: lapic_take(lapic); break;
	case 104: lapic_mmio_write(lapic, 0xb0, 4, 0); break;
	case 105: lapic_set_tpr(lapic, (uint8_t)take(pc, 1)); break;
	case 106: irq_msi(pc->bus, 0xfee00000 | take(pc, 3), (uint32_t)take(pc, 2)); break;
	case 107:
		pc->tsc_offsets[action >> 7] = take(pc, 8);
		lapic_tsc_changed(lapic);
		break;
	case 108 ... 111: run_timers(pc, clock_now(pc->clock) + take(pc, 2)); break;
	case 112 ... 114: run_timers(pc, clock_now(pc->clock) + take(pc, 4) % MAX_STEP); break;
	case 115: clock_set(pc->clock, clock_now(pc->clock) + take(pc, 5)); break; /* late, as on a busy host */
	case 116 ... 119: receive_input(pc); break;
	case 120: pc->serial.room = take(pc, 2); break;
	case 121: piix_power_button(pc->bus); break;
	case 122: lapic_reset(lapic, true); break;
	case 123: bus_reset(pc->bus); break;
	default: reload(pc); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pc pc = { .input = { data, size, 0 }, .serial = { .room = 1 << 20 } };

	log_set_level(LOG_ERROR);
	pc_create(&pc);
	for (unsigned i = 0; i < MAX_ACTIONS && pc.input.offset < pc.input.size; i++)
		act(&pc, (unsigned)take(&pc, 1));
	/* Whatever was left running is bounded. */
	run_timers(&pc, clock_now(pc.clock) + MAX_STEP);
	devices_unplug(pc.bus);
	bus_destroy(pc.bus);
	if (clock_next_deadline(pc.clock) != VTIME_NEVER)
		abort(); /* somebody left a timer behind */
	clock_destroy(pc.clock);
	return 0;
}
