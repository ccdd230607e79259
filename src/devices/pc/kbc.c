/*
 * The 8042 keyboard controller at ports 0x60 and 0x64 with nothing plugged in, and system control port A (0x92). What PCs use
 * it for besides keyboards: the reset pulse and the A20 gate. The gate is open after reset, and
 * one gate with two registers: the bit written last counts, in both.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#define STATUS_OBF	BIT(0) /* output buffer full */
#define STATUS_SYSTEM	BIT(2)
#define STATUS_COMMAND	BIT(3) /* the last write was to port 0x64 */
#define STATUS_UNLOCKED BIT(4)
#define STATUS_AUX	BIT(5) /* the byte in the output buffer came from the second port */
#define STATUS_TIMEOUT	BIT(6)

/* Command byte, RAM byte 0 */
#define COMMAND_IRQ1	 BIT(0)
#define COMMAND_IRQ12	 BIT(1)
#define COMMAND_SYSTEM	 BIT(2)
#define COMMAND_NO_PORT1 BIT(4)
#define COMMAND_NO_PORT2 BIT(5)

#define OUTPUT_NO_RESET BIT(0)
#define OUTPUT_A20	BIT(1)
#define OUTPUT_OBF1	BIT(4)
#define OUTPUT_OBF2	BIT(5)

#define PORT_A_RESET BIT(0)
#define PORT_A_A20   BIT(1)

/* Reset values are what a PC's firmware leaves: translation on, interrupt of the first port enabled, A20 open. */
#define KBC_STATE(_, T)                                                                                                \
	_(T, uint8_t, ram, 32, 1, 0, 0xff)                                                                             \
	_(T, uint8_t, status, 1, 2, STATUS_SYSTEM | STATUS_UNLOCKED, 0xff)                                             \
	_(T, uint8_t, output, 1, 3, 0, 0xff) /* output buffer */                                                       \
	_(T, uint8_t, output_port, 1, 4, OUTPUT_NO_RESET | OUTPUT_A20, 0xff)                                           \
	_(T, uint8_t, command, 1, 5, 0, 0xff) /* whose parameter is expected at port 0x60; 0: a keyboard's */          \
	_(T, uint8_t, port_a, 1, 6, PORT_A_A20, 0xff)

#define COMMAND_BYTE_RESET (0x40 | COMMAND_SYSTEM | COMMAND_IRQ1)

struct kbc {
	struct device device;
	STATE_FIELDS(KBC_STATE)
	struct irq_line irq1, irq12;
	struct bus_range ranges[3];
};

static void request_reset(struct kbc *kbc)
{
	struct bus *bus = kbc->device.bus;

	if (bus->request)
		bus->request(bus->request_opaque, BUS_REQUEST_INIT);
}

static void update_irqs(struct kbc *kbc)
{
	bool full = kbc->status & STATUS_OBF, aux = kbc->status & STATUS_AUX;

	irq_set(&kbc->irq1, full && !aux && (kbc->ram[0] & COMMAND_IRQ1));
	irq_set(&kbc->irq12, full && aux && (kbc->ram[0] & COMMAND_IRQ12));
}

/* A byte for the CPU; flags: STATUS_AUX, STATUS_TIMEOUT. */
static void put(struct kbc *kbc, uint8_t byte, uint8_t flags)
{
	kbc->output = byte;
	kbc->status = (kbc->status & ~(STATUS_AUX | STATUS_TIMEOUT)) | STATUS_OBF | flags;
}

static void update_a20(struct kbc *kbc)
{
	struct bus *bus = kbc->device.bus;
	bool closed = !(kbc->output_port & OUTPUT_A20);

	if (atomic_exchange(&bus->a20_closed, closed) != closed && bus->a20.fn)
		bus_defer(bus, &bus->a20);
}

static void write_output_port(struct kbc *kbc, uint8_t value)
{
	kbc->output_port = value;
	kbc->port_a = value & OUTPUT_A20 ? kbc->port_a | PORT_A_A20 : kbc->port_a & ~PORT_A_A20;
	update_a20(kbc);
	if (!(value & OUTPUT_NO_RESET))
		request_reset(kbc);
}

static uint8_t read_output_port(const struct kbc *kbc)
{
	uint8_t value = kbc->output_port & ~(OUTPUT_OBF1 | OUTPUT_OBF2);

	if (kbc->status & STATUS_OBF)
		value |= kbc->status & STATUS_AUX ? OUTPUT_OBF2 : OUTPUT_OBF1;
	return value;
}

static void command(struct kbc *kbc, uint8_t value)
{
	kbc->command = 0;
	switch (value) {
	case 0x20 ... 0x3f: put(kbc, kbc->ram[value & 0x1f], 0); break;
	case 0x60 ... 0x7f:
	case 0xd1 ... 0xd4: kbc->command = value; break; /* a parameter follows */
	case 0xa7: kbc->ram[0] |= COMMAND_NO_PORT2; break;
	case 0xa8: kbc->ram[0] &= ~COMMAND_NO_PORT2; break;
	case 0xa9:
	case 0xab: put(kbc, 0x00, 0); break; /* interface tests: no error */
	case 0xaa:
		kbc->ram[0] |= COMMAND_SYSTEM;
		kbc->status |= STATUS_SYSTEM;
		put(kbc, 0x55, 0);
		break;
	case 0xad: kbc->ram[0] |= COMMAND_NO_PORT1; break;
	case 0xae: kbc->ram[0] &= ~COMMAND_NO_PORT1; break;
	case 0xc0: put(kbc, 0x80, 0); break; /* input port: keyboard not locked */
	case 0xd0: put(kbc, read_output_port(kbc), 0); break;
	case 0xf0 ... 0xff: /* pulse output lines low, those with a 0 bit */
		if (!(value & OUTPUT_NO_RESET))
			request_reset(kbc);
		break;
	default: break;
	}
}

/* A byte for a device that is not there: the controller says so, as the real one does after some milliseconds. */
static void no_device(struct kbc *kbc, uint8_t flags) { put(kbc, 0xfe, STATUS_TIMEOUT | flags); }

static void data(struct kbc *kbc, uint8_t value)
{
	uint8_t to = kbc->command;

	kbc->command = 0;
	switch (to) {
	case 0x60 ... 0x7f:
		kbc->ram[to & 0x1f] = value;
		if (to == 0x60)
			kbc->status =
				value & COMMAND_SYSTEM ? kbc->status | STATUS_SYSTEM : kbc->status & ~STATUS_SYSTEM;
		break;
	case 0xd1: write_output_port(kbc, value); break;
	case 0xd2: put(kbc, value, 0); break; /* as if from the keyboard */
	case 0xd3: put(kbc, value, STATUS_AUX); break;
	case 0xd4: no_device(kbc, STATUS_AUX); break;
	default: no_device(kbc, 0); break;
	}
}

static uint64_t data_read(struct device *device, uint64_t offset, unsigned size)
{
	struct kbc *kbc = (struct kbc *)device;

	(void)offset;
	(void)size;
	kbc->status &= ~(STATUS_OBF | STATUS_AUX | STATUS_TIMEOUT);
	update_irqs(kbc);
	return kbc->output;
}

static void data_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct kbc *kbc = (struct kbc *)device;

	(void)offset;
	(void)size;
	kbc->status &= ~STATUS_COMMAND;
	data(kbc, (uint8_t)value);
	update_irqs(kbc);
}

static uint64_t status_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)offset;
	(void)size;
	return ((struct kbc *)device)->status;
}

static void command_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct kbc *kbc = (struct kbc *)device;

	(void)offset;
	(void)size;
	kbc->status |= STATUS_COMMAND;
	command(kbc, (uint8_t)value);
	update_irqs(kbc);
}

static uint64_t port_a_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)offset;
	(void)size;
	return ((struct kbc *)device)->port_a;
}

static void port_a_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct kbc *kbc = (struct kbc *)device;
	bool reset = value & ~kbc->port_a & PORT_A_RESET; /* when it rises */

	(void)offset;
	(void)size;
	kbc->port_a = (uint8_t)value;
	kbc->output_port = value & PORT_A_A20 ? kbc->output_port | OUTPUT_A20 : kbc->output_port & ~OUTPUT_A20;
	update_a20(kbc);
	if (reset)
		request_reset(kbc);
}

/* ---- life ---- */

static void kbc_reset(struct device *device)
{
	struct kbc *kbc = (struct kbc *)device;

	kbc->ram[0] = COMMAND_BYTE_RESET;
	update_irqs(kbc);
	update_a20(kbc);
}

static void kbc_attach(struct device *device) { update_a20((struct kbc *)device); }

static void kbc_destroy(struct device *device)
{
	struct kbc *kbc = (struct kbc *)device;

	for (unsigned i = 0; i < ARRAY_SIZE(kbc->ranges); i++)
		bus_unmap(device->bus, BUS_PIO, &kbc->ranges[i]);
	irq_line_free(&kbc->irq1);
	irq_line_free(&kbc->irq12);
	free(kbc);
}

STATE_DESC(kbc_state_desc, "kbc", 1, struct kbc, KBC_STATE);

static const struct device_ops kbc_ops = {
	.state = &kbc_state_desc, .reset = kbc_reset, .attach = kbc_attach, .destroy = kbc_destroy
};

static int kbc_create(struct bus *bus, const void *options, struct error *err)
{
	static const struct bus_range ranges[3] = {
		{ .start = 0x60, .size = 1, .sizes = 1, .read = data_read, .write = data_write },
		{ .start = 0x64, .size = 1, .sizes = 1, .read = status_read, .write = command_write },
		{ .start = 0x92, .size = 1, .sizes = 1, .read = port_a_read, .write = port_a_write },
	};
	struct kbc *kbc = calloc(1, sizeof(*kbc));
	int result = 0;

	(void)options;
	if (!kbc)
		return error_set(err, ENOMEM, "out of memory for the keyboard controller");
	device_init(&kbc->device, bus, "kbc", &kbc_ops);
	kbc->irq1 = irq_isa_line(&kbc->device, 1);
	kbc->irq12 = irq_isa_line(&kbc->device, 12);
	kbc_reset(&kbc->device);
	for (unsigned i = 0; i < ARRAY_SIZE(ranges) && !result; i++) {
		kbc->ranges[i] = ranges[i];
		kbc->ranges[i].device = &kbc->device;
		result = bus_map(bus, BUS_PIO, &kbc->ranges[i], err);
	}
	return result;
}

const struct device_type kbc_type = {
	.name = "kbc",
	.help = "8042 keyboard controller, A20 gate, port 0x92",
	.most = 1,
	.in_every_pc = true,
	.create = kbc_create,
};
