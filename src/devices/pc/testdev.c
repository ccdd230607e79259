/*
 * pc-testdev, with which test suites for kernels and monitors try what no device of a PC does at their command (kvm-unit-tests):
 * interrupt lines that software sets, a register at ports and a piece of memory on the bus.
 *
 *	0xe0..0xe3       a register of 32 bits, in accesses of 1, 2 or 4 bytes
 *	0xe4             written: a guest physical address, whose page the monitor forgets what it knows of; nothing that a guest sees
 *	0xe8..0xeb       the same register, carried out byte by byte
 *	0x2000 + n       written: level of interrupt line n (0 to 23), high unless 0
 *	0xff000000       64 KiB that are read as they were written
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#define REGISTER_PORT 0xe0
#define FLUSH_PORT    0xe4
#define BYTES_PORT    0xe8
#define LINES_PORT    0x2000
#define LINES	      24
#define MEMORY	      0xff000000ull
#define MEMORY_SIZE   0x10000

#define TESTDEV_STATE(_, T)                                                                                            \
	_(T, uint8_t, data, 4, 1, 0, 0xff)                                                                             \
	_(T, uint8_t, lines, 24, 2, 0, 1)                                                                              \
	_(T, uint8_t, memory, 65536, 3, 0, 0xff)

struct testdev {
	struct device device;
	STATE_FIELDS(TESTDEV_STATE)
	struct irq_line irq[LINES];
	struct bus_range ranges[5];
};

static struct testdev *testdev_of(struct device *device) { return (struct testdev *)device; }

/* The bus keeps accesses inside of a range. */
static uint64_t get(const uint8_t *from, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, from, size);
	return value;
}

static uint64_t register_read(struct device *device, uint64_t offset, unsigned size)
{
	return get(testdev_of(device)->data + offset, size);
}

static void register_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	memcpy(testdev_of(device)->data + offset, &value, size);
}

static void flush_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)device, (void)offset, (void)size, (void)value;
}

static void line_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct testdev *t = testdev_of(device);

	(void)size;
	t->lines[offset] = value != 0;
	irq_set(&t->irq[offset], t->lines[offset]);
}

static uint64_t memory_read(struct device *device, uint64_t offset, unsigned size)
{
	return get(testdev_of(device)->memory + offset, size);
}

static void memory_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	memcpy(testdev_of(device)->memory + offset, &value, size);
}

static const struct {
	enum bus_space space;
	struct bus_range range;
} ranges[] = {
	{ BUS_PIO, { REGISTER_PORT, 4, 1 | 2 | 4, .read = register_read, .write = register_write } },
	{ BUS_PIO, { FLUSH_PORT, 4, 4, .write = flush_write } },
	{ BUS_PIO, { BYTES_PORT, 4, 1, .read = register_read, .write = register_write } },
	{ BUS_PIO, { LINES_PORT, LINES, 1, .write = line_write } },
	{ BUS_MMIO, { MEMORY, MEMORY_SIZE, 1 | 2 | 4 | 8, .read = memory_read, .write = memory_write } },
};

static void testdev_reset(struct device *device)
{
	struct testdev *t = testdev_of(device);

	for (unsigned n = 0; n < LINES; n++)
		irq_set(&t->irq[n], t->lines[n]);
}

static void testdev_destroy(struct device *device)
{
	struct testdev *t = testdev_of(device);

	for (unsigned n = 0; n < ARRAY_SIZE(ranges); n++)
		bus_unmap(device->bus, ranges[n].space, &t->ranges[n]);
	for (unsigned n = 0; n < LINES; n++)
		irq_line_free(&t->irq[n]);
	free(t);
}

STATE_DESC(testdev_state_desc, "pc-testdev", 1, struct testdev, TESTDEV_STATE);

static const struct device_ops testdev_ops = { .state = &testdev_state_desc,
					       .reset = testdev_reset,
					       .destroy = testdev_destroy };

static int testdev_create(struct bus *bus, const void *options, struct error *err)
{
	struct testdev *t = calloc(1, sizeof(*t));
	int rc = 0;

	(void)options;
	if (!t)
		return error_set(err, ENOMEM, "out of memory for pc-testdev");
	device_init(&t->device, bus, "pc-testdev", &testdev_ops);
	for (unsigned n = 0; n < LINES; n++)
		t->irq[n] = irq_isa_line(&t->device, n);
	for (unsigned n = 0; !rc && n < ARRAY_SIZE(ranges); n++) {
		t->ranges[n] = ranges[n].range;
		t->ranges[n].device = &t->device;
		rc = bus_map(bus, ranges[n].space, &t->ranges[n], err);
	}
	return rc;
}

const struct device_type testdev_type = {
	.name = "pc-testdev",
	.help = "interrupt lines, ports and memory for test suites (kvm-unit-tests)",
	.most = 1,
	.create = testdev_create,
};
