/*
 * Two ports for people who develop kernels: 0xf4 ends doppel with a status of the guest's choice, 0xe9 prints, and so does
 * 0x402, where firmware does it (SeaBIOS, OVMF).
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#define EXIT_PORT     0xf4
#define CONSOLE_PORT  0xe9
#define FIRMWARE_PORT 0x402

/* clang-format off */
#define DEBUG_CONSOLE_OPTIONS(_, T)                                                                                    \
	_(T, CHARDEV, chardev, 0, 0, NULL, "where bytes go; by default nowhere")
/* clang-format on */

struct debug_console_options {
	DEVICE_OPTION_FIELDS(DEBUG_CONSOLE_OPTIONS)
};

struct debug_port {
	struct device device;
	struct bus_range range;
	struct chardev *chardev; /* the console's; may be NULL */
};

static void debug_port_destroy(struct device *device)
{
	struct debug_port *port = (struct debug_port *)device;

	bus_unmap(device->bus, BUS_PIO, &port->range);
	free(port);
}

static const struct device_ops debug_port_ops = { .destroy = debug_port_destroy };

static int debug_port_create(struct bus *bus, const char *name, const struct bus_range *range, struct chardev *chardev,
			     struct error *err)
{
	struct debug_port *port = calloc(1, sizeof(*port));

	if (!port)
		return error_set(err, ENOMEM, "out of memory for the device '%s'", name);
	device_init(&port->device, bus, name, &debug_port_ops);
	port->range = *range;
	port->range.device = &port->device;
	port->chardev = chardev;
	return bus_map(bus, BUS_PIO, &port->range, err);
}

static void exit_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct bus *bus = device->bus;

	(void)offset;
	(void)size;
	bus->exit_code = (int)((value << 1 | 1) & 0xff); /* an exit status has eight bits */
	if (bus->request)
		bus->request(bus->request_opaque, BUS_REQUEST_EXIT);
}

static int debug_exit_create(struct bus *bus, const void *options, struct error *err)
{
	static const struct bus_range range = {
		.start = EXIT_PORT, .size = 4, .sizes = 1 | 2 | 4, .write = exit_write
	};

	(void)options;
	return debug_port_create(bus, "debug-exit", &range, NULL, err);
}

static uint64_t console_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)device;
	(void)offset;
	(void)size;
	return CONSOLE_PORT; /* how software finds out that it is there */
}

/* It has nothing that would need a lock. */
static void console_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct debug_port *port = (struct debug_port *)device;
	uint8_t byte = (uint8_t)value;

	(void)offset;
	(void)size;
	if (!port->chardev)
		return;
	lock_waits(&device->bus->locks, true);
	chardev_write(port->chardev, &byte, 1);
	lock_waits(&device->bus->locks, false);
}

static int debug_console_create(struct bus *bus, const void *options, struct error *err)
{
	const struct debug_console_options *o = options;
	struct bus_range range = {
		CONSOLE_PORT, 1, 1, .takes_locks = true, .read = console_read, .write = console_write
	};
	int rc = debug_port_create(bus, "debug-console", &range, o->chardev, err);

	range.start = FIRMWARE_PORT;
	return rc ? rc : debug_port_create(bus, "debug-console", &range, o->chardev, err);
}

const struct device_type debug_exit_type = {
	.name = "debug-exit",
	.help = "port 0xf4: a byte n written there ends doppel with status 2n + 1",
	.most = 1,
	.short_form = { .name = "--debug-exit",
			.help = "port 0xf4: a byte n written there ends doppel with status 2n + 1" },
	.create = debug_exit_create,
};

const struct device_type debug_console_type = {
	.name = "debug-console",
	.help = "ports 0xe9 and 0x402: bytes written there go to the host",
	.most = 1,
	DEVICE_OPTIONS(DEBUG_CONSOLE_OPTIONS, struct debug_console_options),
	.short_form = { .name = "--debug-console",
			.option = "chardev",
			.argument = "SPEC",
			.help = "ports 0xe9 and 0x402: where bytes written there go" },
	.create = debug_console_create,
};
