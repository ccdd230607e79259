/*
 * virtio devices whose driver does whatever the input says: on PCI or in windows of memory, with split queues or packed ones; registers of all interfaces, rings, descriptors and
 * requests in guest memory, memory that goes and comes, resets, saved records cut up and loaded. Nothing may crash, hang or leave a request behind; disks keep their size.
 */
#define _GNU_SOURCE
#include "devices/devices.h"
#include "lib/fuzz.h"
#include "lib/no_cpus.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define CPUS	    2
#define MAX_ACTIONS 400
#define DISK_SIZE   (256u << 10)
#define DEVICES	    8
#define SCSI	    4
#define DISKS	    3
#define PMEM_SIZE   (2u << 20)
#define QUEUE_SIZE  16
#define PACKED_SIZE 7
/* Queue n's parts, and what it is to send */
#define TABLES(n) (0x10000u + (n)*0x4000u)
#define BUFFERS	  0x30000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the machine ---- */

struct pc {
	struct clock *clock;
	struct guest_mem *mem;
	struct bus *bus;
	struct trace trace;
	struct mem_layer hole;
	bool mmio, may_be_packed; /* all devices, by the input's size */
	struct {
		bool packed;
		uint16_t next; /* of the available ring; of a packed one, in two turns */
	} queues[DEVICES];
	struct reader input;
};

static uint64_t take(struct pc *pc, size_t bytes) { return fuzz_take(&pc->input, bytes); }

static void do_access(struct pc *pc, enum bus_space space, uint64_t address, unsigned size, bool write, uint64_t value)
{
	struct bus_access access = { space, address, (uint8_t)size, write, value & (~0ull >> (64 - 8 * size)) };

	bus_access(pc->bus, &access);
}

static uint64_t window(unsigned device) { return VIRTIO_MMIO_ADDRESS(device); }
static uint64_t registers(unsigned device) { return 0xe0000000u + device * 0x10000u; }
static uint64_t ports(unsigned device) { return 0xc000u + device * 0x100u; }

static void config_write(struct pc *pc, unsigned device, unsigned offset, uint32_t value)
{
	do_access(pc, BUS_PIO, 0xcf8, 4, true, 0x80000000u | (3 + device) << 11 | offset);
	do_access(pc, BUS_PIO, 0xcfc, 4, true, value);
}

static void power_on(struct pc *pc)
{
	bus_reset(pc->bus);
	for (unsigned n = 0; n < DEVICES; n++) {
		config_write(pc, n, 0x10, (uint32_t)ports(n));
		config_write(pc, n, 0x14, (uint32_t)registers(n) + 0x8000);
		config_write(pc, n, 0x20, (uint32_t)registers(n));
		config_write(pc, n, 0x04, 7);
		pc->queues[n].packed = false;
		pc->queues[n].next = 0;
	}
}

static bool plug_plain(struct pc *pc, const char *spec)
{
	return device_plug(pc->bus, NULL, &(struct device_request){ .spec = spec }, NULL);
}

static bool plug(struct pc *pc, const char *what)
{
	char spec[200];

	snprintf(spec, sizeof(spec), "%s,transport=%s,packed=%s", what, pc->mmio ? "mmio" : "pci",
		 pc->may_be_packed ? "on" : "off");
	return plug_plain(pc, spec);
}

static void pc_create(struct pc *pc, const int disks[DISKS], int file)
{
	void *cpus[CPUS] = { pc, pc };
	char disk[128], scsi_disk[128], scsi_cd[128], socket[64], pmem[64];
	struct bus *bus;

	snprintf(disk, sizeof(disk), "virtio-blk,file=/proc/self/fd/%d,format=raw,discard=%s,queues=%zu", disks[0],
		 pc->input.size & 1 ? "on" : "off", 1 + pc->input.size % 3);
	snprintf(scsi_disk, sizeof(scsi_disk), "scsi-disk,file=/proc/self/fd/%d,format=raw,discard=%s,serial=1",
		 disks[1], pc->input.size & 2 ? "on" : "off");
	snprintf(scsi_cd, sizeof(scsi_cd), "scsi-cd,file=/proc/self/fd/%d", disks[2]);
	pc->mmio = pc->input.size & 2;
	pc->may_be_packed = pc->input.size & 4;
	snprintf(socket, sizeof(socket), "virtio-vsock,socket=unix:/tmp/fuzz_virtio.%d", (int)getpid());
	snprintf(pmem, sizeof(pmem), "virtio-pmem,file=/proc/self/fd/%d", file);
	pc->clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	pc->mem = mem_create(MEM_MIN, NULL);
	pc->bus = bus = bus_create(pc->mem, pc->clock, &pc->trace, NULL);
	if (irq_chip_create(bus, CPUS, &no_cpus, cpus, NULL) || pci_bus_create(bus, NULL) ||
	    piix_type.create(bus, NULL, NULL) || !plug(pc, "virtio-rng") || !plug(pc, disk) ||
	    !plug(pc, "virtio-port,name=fuzz") || !plug(pc, "virtio-net,net=none,queues=2") ||
	    !plug(pc, "virtio-scsi") || !plug(pc, socket) || !plug(pc, "virtio-balloon,stats=1") || !plug(pc, pmem) ||
	    !plug_plain(pc, scsi_disk) || !plug_plain(pc, scsi_cd))
		abort();
	pc->hole = (struct mem_layer){
		.start = TABLES(0), .size = PAGE_SIZE, .priority = MEM_PRIORITY_SHADOW, .reads = true, .writes = true
	};
	power_on(pc);
	bus_resume(bus);
}

static void pc_destroy(struct pc *pc)
{
	bus_pause(pc->bus);
	devices_unplug(pc->bus);
	bus_destroy(pc->bus);
	mem_destroy(pc->mem);
	clock_destroy(pc->clock);
}

/* ---- what the driver does ---- */

static void store(struct pc *pc, uint64_t at, uint64_t value, size_t size)
{
	mem_write(pc->mem, gpa(at), &value, size);
}

static void mmio_write(struct pc *pc, unsigned device, unsigned offset, uint64_t value)
{
	do_access(pc, BUS_MMIO, window(device) + offset, 4, true, value);
}

static void start_mmio(struct pc *pc, unsigned device, uint64_t features, unsigned size)
{
	mmio_write(pc, device, 0x70, 0);
	for (unsigned n = 0; n < 2; n++) {
		mmio_write(pc, device, 0x24, n);
		mmio_write(pc, device, 0x20, features >> 32 * n);
	}
	mmio_write(pc, device, 0x70, 0xb);
	for (unsigned queue = 0; queue < 4; queue++) {
		mmio_write(pc, device, 0x30, queue);
		mmio_write(pc, device, 0x38, size);
		for (unsigned n = 0; n < 3; n++)
			mmio_write(pc, device, 0x80 + 0x10 * n, TABLES(device) + 0x1000 * n);
		mmio_write(pc, device, 0x44, 1);
	}
	mmio_write(pc, device, 0x70, 0xf);
}

static void start_pci(struct pc *pc, unsigned device, uint64_t features, unsigned size)
{
	static const uint32_t addresses[] = { 0, 0, 0x1000, 0, 0x2000, 0 };
	uint64_t base = registers(device), tables = TABLES(device);

	do_access(pc, BUS_MMIO, base + 0x14, 1, true, 0);
	for (unsigned n = 0; n < 2; n++) {
		do_access(pc, BUS_MMIO, base + 0x08, 4, true, n);
		do_access(pc, BUS_MMIO, base + 0x0c, 4, true, features >> 32 * n);
	}
	do_access(pc, BUS_MMIO, base + 0x14, 1, true, 0xb);
	for (unsigned queue = 0; queue < 4; queue++) {
		do_access(pc, BUS_MMIO, base + 0x16, 2, true, queue);
		do_access(pc, BUS_MMIO, base + 0x18, 2, true, size);
		for (unsigned n = 0; n < 6; n++)
			do_access(pc, BUS_MMIO, base + 0x20 + 4 * n, 4, true, n & 1 ? 0 : tables + addresses[n]);
		do_access(pc, BUS_MMIO, base + 0x1c, 2, true, 1);
	}
	do_access(pc, BUS_MMIO, base + 0x14, 1, true, 0xf);
}

/* As the specification says, up to DRIVER_OK, with features of the input's choice; but that all queues are the same memory. */
static void start(struct pc *pc, unsigned device)
{
	uint64_t features = take(pc, 4) | BIT(32);
	bool packed = pc->may_be_packed && take(pc, 1) % 4;

	if (packed)
		features |= BIT(34);
	if (pc->mmio)
		start_mmio(pc, device, features, packed ? PACKED_SIZE : QUEUE_SIZE);
	else
		start_pci(pc, device, features, packed ? PACKED_SIZE : QUEUE_SIZE);
	mem_fill(pc->mem, gpa(TABLES(device)), 0, 0x3000);
	pc->queues[device].packed = packed;
	pc->queues[device].next = 0;
}

static void descriptor(struct pc *pc, uint64_t at, uint64_t address, uint64_t length, uint64_t flags, uint64_t next)
{
	store(pc, at, address, 8);
	store(pc, at + 8, length, 4);
	store(pc, at + 12, flags, 2);
	store(pc, at + 14, next, 2);
}

/* The n-th of a chain that begins with descriptor 0, or where a packed queue goes on; it has a next one if `more`. */
static void chain_descriptor(struct pc *pc, unsigned device, unsigned n, uint64_t address, uint64_t length, bool write,
			     bool more)
{
	unsigned place = pc->queues[device].next + n, flags = (write ? 2 : 0) | more;

	if (pc->queues[device].packed)
		descriptor(pc, TABLES(device) + 16 * (place % PACKED_SIZE), address, length, place & 0xff,
			   flags | (place / PACKED_SIZE % 2 ? 0x8000 : 0x80));
	else
		descriptor(pc, TABLES(device) + 16 * n, address, length, flags, n + 1);
}

/* A chain of `count` descriptors that begins with `head`; of a packed queue, the next ones. */
static void make_available(struct pc *pc, unsigned device, uint16_t head, unsigned count)
{
	uint64_t ring = TABLES(device) + 0x1000;
	uint16_t *next = &pc->queues[device].next;

	if (pc->queues[device].packed) {
		*next = (uint16_t)((*next + count) % (2 * PACKED_SIZE));
		return;
	}
	store(pc, ring + 4 + 2 * (*next % QUEUE_SIZE), head, 2);
	store(pc, ring + 2, ++*next, 2);
}

static void kick(struct pc *pc, unsigned device)
{
	unsigned queue = (unsigned)take(pc, 1) % 4;

	if (pc->mmio)
		mmio_write(pc, device, 0x50, queue);
	else
		do_access(pc, BUS_MMIO, registers(device) + 0x3000 + 4 * queue, 2, true, 0);
}

/* A request for the disk, all of it right but for what the input chooses. */
static void request(struct pc *pc)
{
	static const uint8_t types[] = { 0, 1, 4, 8, 11, 13, 2 };
	uint64_t type = types[take(pc, 1) % sizeof(types)], choice = take(pc, 1);
	uint64_t length = 512 * (take(pc, 1) % 16) + (choice & 1);
	bool reads = type == 0 || type == 8;

	store(pc, BUFFERS, type, 8);
	store(pc, BUFFERS + 8, take(pc, 2), 8);
	store(pc, BUFFERS + 16, take(pc, 2), 8);
	store(pc, BUFFERS + 24, take(pc, 4), 8);
	chain_descriptor(pc, 1, 0, BUFFERS, choice & 2 ? 16 : take(pc, 1) % 40, false, true);
	chain_descriptor(pc, 1, 1, choice & 4 ? BUFFERS + 16 : BUFFERS + PAGE_SIZE, type > 8 ? 16 : length, reads,
			 true);
	chain_descriptor(pc, 1, 2, BUFFERS + 8 * PAGE_SIZE, choice & 8 ? take(pc, 1) : 1, true, false);
	make_available(pc, 1, 0, 3);
	kick(pc, 1);
}

/* Room for what a device says, or something for it to hear. */
static void buffer(struct pc *pc, unsigned device)
{
	unsigned choice = (unsigned)take(pc, 1);

	chain_descriptor(pc, device, 0, BUFFERS + 16 * (choice & 0xf0), take(pc, 2), choice & 1, false);
	make_available(pc, device, 0, 1);
	kick(pc, device);
}

/* A command for a target, or a request for the controller, as above; a kick says which of the two it is. */
static void scsi_request(struct pc *pc)
{
	static const uint8_t codes[] = { 0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x2b,
					 0x2f, 0x35, 0x41, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x52, 0x55, 0x5a, 0x88, 0x8a,
					 0x8f, 0x91, 0x93, 0x9e, 0xa0, 0xa3, 0xa8, 0xaa, 0xaf, 0xad, 0xbb, 0xbd, 0xbe };
	uint64_t choice = take(pc, 1), size = take(pc, 2) % 0x3000;
	bool in = choice & 1;

	store(pc, BUFFERS, choice & 6 ? 0x4000 | (choice >> 3 & 1) << 8 | 1 : take(pc, 8), 8);
	store(pc, BUFFERS + 8, take(pc, 1), 8);
	store(pc, BUFFERS + 16, 0, 3);
	store(pc, BUFFERS + 19, codes[take(pc, 1) % sizeof(codes)], 1);
	for (unsigned n = 1; n < 16; n++)
		store(pc, BUFFERS + 19 + n, take(pc, 1) & (n == 2 || choice & 16 ? 0xff : 0x03), 1);
	for (unsigned n = 0; n < 40; n += 8)
		store(pc, BUFFERS + PAGE_SIZE + n, take(pc, 1) << 8 * (n % 7), 8);
	chain_descriptor(pc, SCSI, 0, BUFFERS, choice & 32 ? 51 : take(pc, 1), false, true);
	if (in) {
		chain_descriptor(pc, SCSI, 1, BUFFERS + 8 * PAGE_SIZE, choice & 64 ? 108 : take(pc, 1), true, true);
		chain_descriptor(pc, SCSI, 2, BUFFERS + 9 * PAGE_SIZE, size, true, false);
	} else {
		chain_descriptor(pc, SCSI, 1, BUFFERS + PAGE_SIZE, size, false, true);
		chain_descriptor(pc, SCSI, 2, BUFFERS + 8 * PAGE_SIZE, choice & 64 ? 108 : take(pc, 1), true, false);
	}
	make_available(pc, SCSI, 0, 3);
	kick(pc, SCSI);
}

static void any_descriptor(struct pc *pc, unsigned device)
{
	uint64_t table = take(pc, 1) % 4 ? TABLES(device) : BUFFERS;
	uint64_t address = take(pc, 1) % 8 ? take(pc, 3) & 0xfffff : take(pc, 8);
	uint64_t length = take(pc, 1) % 8 ? take(pc, 2) : take(pc, 4), flags = take(pc, 1), next = take(pc, 1);

	if (pc->queues[device].packed)
		descriptor(pc, table + 16 * (next % PACKED_SIZE), address, length, next,
			   (flags % 8) | (flags & 0x80) | (flags & 0x40) << 9);
	else
		descriptor(pc, table + 16 * (take(pc, 1) % QUEUE_SIZE), address, length, flags % 8,
			   next % (QUEUE_SIZE + 1));
}

static void write_memory(struct pc *pc)
{
	uint64_t at = TABLES(0) + take(pc, 2) % 0x10000;
	unsigned count = (unsigned)take(pc, 1) % 64;

	while (count--)
		store(pc, at++, take(pc, 1), 1);
}

static void access_register(struct pc *pc, unsigned device)
{
	static const uint16_t pages[] = { 0, 0, 0, 0x1000, 0x2000, 0x3000, 0x8000 };
	uint64_t at = registers(device);
	unsigned size = 1u << take(pc, 1) % 3;

	if (pc->mmio)
		at = window(device) + (size == 4 ? take(pc, 2) % 0x140 & ~3u : take(pc, 2) % 0x140);
	else
		at += pages[take(pc, 1) % ARRAY_SIZE(pages)] + take(pc, 1) % 0x50;
	do_access(pc, BUS_MMIO, at, size, take(pc, 1) & 1, take(pc, 1) & 3 ? take(pc, 1) : take(pc, 4));
}

static void access_port(struct pc *pc, unsigned device)
{
	do_access(pc, BUS_PIO, ports(device) + take(pc, 1) % 0x60, 1u << take(pc, 1) % 3, take(pc, 1) & 1, take(pc, 4));
}

/* Save all devices, change some bytes, load: refused or not, they must still work. */
static void reload(struct pc *pc)
{
	struct state_changes changes = { 0 };
	struct device *device;
	struct writer writer = { 0 };
	struct reader reader;
	struct error error;
	int rc = 0;

	bus_pause(pc->bus);
	list_for_each (device, &pc->bus->devices, node)
		if (device->ops->state)
			state_save(device->ops->state, device->instance, device, &writer);
	for (unsigned i = (unsigned)take(pc, 1) % 8; i; i--)
		writer.data[take(pc, 3) % writer.size] ^= (uint8_t)take(pc, 1);
	reader = (struct reader){ writer.data, writer.size, 0 };
	list_for_each (device, &pc->bus->devices, node)
		if (!rc && device->ops->state)
			rc = state_load_part(&changes, device->ops->state, device->instance, device, &reader, &error);
	if (rc) {
		state_load_undo(&changes);
	} else {
		state_load_keep(&changes);
		bus_attach(pc->bus);
	}
	writer_free(&writer);
	bus_resume(pc->bus);
}

static void move_memory(struct pc *pc)
{
	if (pc->hole.added)
		mem_layer_remove(pc->mem, &pc->hole);
	else
		mem_layer_add(pc->mem, &pc->hole, NULL);
	mem_commit(pc->mem);
}

static void act(struct pc *pc, unsigned action)
{
	unsigned device = (unsigned)take(pc, 1) % DEVICES;

	switch (action & 0x7f) {
	case 0 ... 31: any_descriptor(pc, device); break;
	case 32 ... 43: make_available(pc, device, (uint16_t)(take(pc, 1) % (QUEUE_SIZE + 1)), 1); break;
	case 44 ... 51: buffer(pc, device); break;
	case 52 ... 59: kick(pc, device); break;
	case 60 ... 67: request(pc); break;
	case 68 ... 75: scsi_request(pc); break;
	case 76 ... 83: start(pc, device); break;
	case 84 ... 95: access_register(pc, device); break;
	case 96 ... 103: access_port(pc, device); break;
	case 104 ... 113: write_memory(pc); break;
	case 114 ... 116: move_memory(pc); break;
	case 117: config_write(pc, device, take(pc, 1) & 0xfc, (uint32_t)take(pc, 4)); break;
	case 118: power_on(pc); break;
	case 119 ... 121: reload(pc); break;
	default: do_access(pc, BUS_PIO, ports(device) + 8, 4, true, TABLES(device) >> 12); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pc pc = { .input = { data, size, 0 } };
	int disks[DISKS], file = memfd_create("pmem", 0);

	log_set_level(LOG_ERROR);
	for (unsigned n = 0; n < DISKS; n++) {
		disks[n] = memfd_create("disk", 0);
		if (disks[n] < 0 || ftruncate(disks[n], DISK_SIZE))
			abort();
	}
	if (file < 0 || ftruncate(file, PMEM_SIZE))
		abort();
	pc_create(&pc, disks, file);
	for (unsigned n = 0; n < DEVICES; n++)
		start(&pc, n);
	for (unsigned i = 0; i < MAX_ACTIONS && pc.input.offset < pc.input.size; i++)
		act(&pc, (unsigned)take(&pc, 1));
	pc_destroy(&pc);
	for (unsigned n = 0; n < DISKS; n++) {
		if (lseek(disks[n], 0, SEEK_END) != DISK_SIZE)
			abort();
		close(disks[n]);
	}
	close(file);
	return 0;
}
