/*
 * The 8042 keyboard controller at ports 0x60 and 0x64 (IBM PS/2 Technical Reference, "Keyboard and Auxiliary Device Controller"), with a keyboard and a
 * mouse, and system control port A (0x92). What PCs use it for besides: the reset pulse and the A20 gate. The gate is open after reset, and
 * one gate with two registers: the bit written last counts, in both.
 *
 * A byte of a device is in the output buffer until it is read, and its value may be read again until the next one is there, a byte's time later:
 * programs that hook the keyboard's interrupt depend on that.
 */
#include "devices/pc/ps2.h"

#include <errno.h>
#include <stdlib.h>

#define STATUS_OBF	BIT(0) /* output buffer full */
#define STATUS_SYSTEM	BIT(2)
#define STATUS_COMMAND	BIT(3) /* the last write was to port 0x64 */
#define STATUS_UNLOCKED BIT(4)
#define STATUS_AUX	BIT(5) /* the byte in the output buffer came from the second port */

/* Command byte, RAM byte 0 */
#define COMMAND_IRQ1	 BIT(0)
#define COMMAND_IRQ12	 BIT(1)
#define COMMAND_SYSTEM	 BIT(2)
#define COMMAND_NO_PORT1 BIT(4)
#define COMMAND_NO_PORT2 BIT(5)
#define COMMAND_XLATE	 BIT(6) /* codes of set 2 become those of set 1 */

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
	_(T, uint8_t, port_a, 1, 6, PORT_A_A20, 0xff)                                                                  \
	_(T, bool, from_device, 1, 7, 0, 1) /* what is in the output buffer */                                         \
	_(T, bool, released, 1, 8, 0, 1)    /* the keyboard has sent that a key's code follows that was let go of */   \
	_(T, uint16_t, displaced, 1, 9, 0, DISPLACED | STATUS_AUX << 8 | 0xff)                                         \
	_(T, uint64_t, transfer_at, 1, 10, VTIME_NEVER, UINT64_MAX) /* when the next byte is there */

#define COMMAND_BYTE_RESET (COMMAND_XLATE | COMMAND_SYSTEM | COMMAND_IRQ1)

/* A device's byte that was not read when the controller had an answer of its own, with its flags above: it comes again. */
#define DISPLACED 0x8000

#define PS2_PORTS    2
#define PS2_RELEASED 0xf0

struct kbc {
	struct device device;
	STATE_FIELDS(KBC_STATE)
	struct irq_line irq1, irq12;
	struct timer timer;
	struct ps2_device *ports[PS2_PORTS];
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

/* ---- bytes for the CPU ---- */

static void fill(struct kbc *kbc, uint8_t byte, uint8_t flags, bool from_device)
{
	kbc->output = byte;
	kbc->status = (kbc->status & ~STATUS_AUX) | STATUS_OBF | flags;
	kbc->from_device = from_device;
}

/* The controller's own, at once. */
static void put(struct kbc *kbc, uint8_t byte, uint8_t flags)
{
	if ((kbc->status & STATUS_OBF) && kbc->from_device)
		kbc->displaced = DISPLACED | (kbc->status & STATUS_AUX) << 8 | kbc->output;
	fill(kbc, byte, flags, false);
}

static bool port_enabled(const struct kbc *kbc, unsigned port)
{
	return !(kbc->ram[0] & (port ? COMMAND_NO_PORT2 : COMMAND_NO_PORT1));
}

static bool port_waits(const struct kbc *kbc, unsigned port)
{
	const struct ps2_device *d = kbc->ports[port];

	return port_enabled(kbc, port) && d->ops->waits(d);
}

static unsigned displaced_port(const struct kbc *kbc) { return kbc->displaced >> 8 & STATUS_AUX ? 1 : 0; }

static bool displaced_waits(const struct kbc *kbc) { return kbc->displaced && port_enabled(kbc, displaced_port(kbc)); }

/* After whatever may have emptied the output buffer, enabled a port or given a device something to say. */
static void schedule(struct kbc *kbc)
{
	if (kbc->transfer_at != VTIME_NEVER || (kbc->status & STATUS_OBF) ||
	    !(displaced_waits(kbc) || port_waits(kbc, 0) || port_waits(kbc, 1)))
		return;
	kbc->transfer_at = clock_now(kbc->device.bus->clock) + PS2_BYTE_NS;
	timer_arm(&kbc->timer, kbc->transfer_at);
}

/* Real controllers know no more of it than this. */
uint8_t ps2_translate(uint8_t code)
{
	static const uint8_t set_1[0x80] = {
		0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, /* 00 */
		0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, /* 10 */
		0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, /* 20 */
		0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, /* 30 */
		0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, /* 40 */
		0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, /* 50 */
		0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, /* 60 */
		0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, /* 70 */
	};

	switch (code) {
	case 0x83: return 0x41;
	case 0x84: return 0x54;
	default: return code < ARRAY_SIZE(set_1) ? set_1[code] : code;
	}
}

/* False: it is only the first half of what the CPU gets. */
static bool translate(struct kbc *kbc, uint8_t *byte)
{
	bool released = kbc->released;

	if (!(kbc->ram[0] & COMMAND_XLATE))
		return true;
	kbc->released = *byte == PS2_RELEASED;
	if (kbc->released)
		return false;
	*byte = ps2_translate(*byte);
	if (released)
		*byte |= 0x80;
	return true;
}

static void transfer(void *opaque)
{
	struct kbc *kbc = opaque;
	uint8_t byte;

	kbc->transfer_at = VTIME_NEVER;
	if (!(kbc->status & STATUS_OBF)) {
		if (displaced_waits(kbc)) {
			fill(kbc, (uint8_t)kbc->displaced, displaced_port(kbc) ? STATUS_AUX : 0, true);
			kbc->displaced = 0;
		} else if (port_waits(kbc, 0)) {
			if (kbc->ports[0]->ops->take(kbc->ports[0], &byte) && translate(kbc, &byte))
				fill(kbc, byte, 0, true);
		} else if (port_waits(kbc, 1) && kbc->ports[1]->ops->take(kbc->ports[1], &byte)) {
			fill(kbc, byte, STATUS_AUX, true);
		}
	}
	update_irqs(kbc);
	schedule(kbc);
}

void ps2_ready(struct ps2_device *device) { schedule(device->kbc); }

/* ---- commands ---- */

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

/* A byte for a device enables its port. */
static void send(struct kbc *kbc, unsigned port, uint8_t byte)
{
	kbc->ram[0] &= ~(port ? COMMAND_NO_PORT2 : COMMAND_NO_PORT1);
	kbc->ports[port]->ops->write(kbc->ports[port], byte);
}

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
	case 0xd4: send(kbc, 1, value); break;
	default: send(kbc, 0, value); break;
	}
}

static uint64_t data_read(struct device *device, uint64_t offset, unsigned size)
{
	struct kbc *kbc = (struct kbc *)device;

	(void)offset;
	(void)size;
	kbc->status &= ~(STATUS_OBF | STATUS_AUX);
	update_irqs(kbc);
	schedule(kbc);
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
	schedule(kbc);
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
	schedule(kbc);
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
	timer_disarm(&kbc->timer);
	update_irqs(kbc);
	update_a20(kbc);
}

static void kbc_attach(struct device *device)
{
	struct kbc *kbc = (struct kbc *)device;

	timer_arm(&kbc->timer, kbc->transfer_at);
	update_a20(kbc);
}

static void kbc_destroy(struct device *device)
{
	struct kbc *kbc = (struct kbc *)device;

	for (unsigned i = 0; i < ARRAY_SIZE(kbc->ranges); i++)
		bus_unmap(device->bus, BUS_PIO, &kbc->ranges[i]);
	timer_disarm(&kbc->timer);
	irq_line_free(&kbc->irq1);
	irq_line_free(&kbc->irq12);
	free(kbc);
}

/* ---- what is plugged in ---- */

void ps2_init(struct ps2_device *d, struct kbc *kbc, unsigned port, const char *name,
	      const struct device_ops *device_ops, const struct ps2_ops *ops)
{
	d->ops = ops;
	d->kbc = kbc;
	device_init_sharing(&d->device, kbc->device.bus, name, device_ops, kbc->device.lock);
	kbc->ports[port] = d;
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
	device_timer_init(&kbc->device, &kbc->timer, "kbc", transfer, kbc);
	kbc->irq1 = irq_isa_line(&kbc->device, 1);
	kbc->irq12 = irq_isa_line(&kbc->device, 12);
	kbc_reset(&kbc->device);
	for (unsigned i = 0; i < ARRAY_SIZE(ranges) && !result; i++) {
		kbc->ranges[i] = ranges[i];
		kbc->ranges[i].device = &kbc->device;
		result = bus_map(bus, BUS_PIO, &kbc->ranges[i], err);
	}
	if (!result)
		result = ps2_keyboard_create(kbc, err);
	return result ? result : ps2_mouse_create(kbc, err);
}

const struct device_type kbc_type = {
	.name = "kbc",
	.help = "8042 controller with a keyboard and a mouse, A20 gate, port 0x92",
	.most = 1,
	.in_every_pc = true,
	.create = kbc_create,
};
