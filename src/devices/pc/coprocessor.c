/*
 * How a PC reports floating-point errors when CR0.NE is 0 (SDM vol. 1 D.2): the processor pulls FERR#, which sets a latch that
 * requests IRQ 13; the handler writes port 0xf0, which clears the latch and pulls IGNNE#, so that the processor goes on, until
 * FERR# is released. Only the boot processor's two pins are wired: systems set NE on the others.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#define PORT		0xf0
#define COPROCESSOR_IRQ 13

/* Pins are active low; here 1 is asserted. */
#define COPROCESSOR_STATE(_, T)                                                                                        \
	_(T, uint8_t, error, 1, 1, 0, 1)  /* FERR# */                                                                  \
	_(T, uint8_t, latch, 1, 2, 0, 1)  /* requests IRQ 13 */                                                        \
	_(T, uint8_t, ignore, 1, 3, 0, 1) /* IGNNE# */

struct coprocessor {
	struct device device;
	STATE_FIELDS(COPROCESSOR_STATE)
	struct irq_line irq;
	struct bus_range range;
};

static void port_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct coprocessor *c = (struct coprocessor *)device;

	(void)offset, (void)size, (void)value;
	c->ignore = c->error;
	c->latch = 0;
	irq_set(&c->irq, false);
}

static void coprocessor_reset(struct device *device)
{
	struct coprocessor *c = (struct coprocessor *)device;

	irq_set(&c->irq, c->latch);
}

static void coprocessor_destroy(struct device *device)
{
	struct coprocessor *c = (struct coprocessor *)device;

	bus_unmap(device->bus, BUS_PIO, &c->range);
	irq_line_free(&c->irq);
	free(c);
}

STATE_DESC(coprocessor_state_desc, "coprocessor", 1, struct coprocessor, COPROCESSOR_STATE);

static const struct device_ops coprocessor_ops = { .state = &coprocessor_state_desc,
						   .reset = coprocessor_reset,
						   .destroy = coprocessor_destroy };

static bool set_error(struct coprocessor *c, bool asserted)
{
	if (asserted && !c->error) {
		c->latch = 1;
		irq_set(&c->irq, true);
	}
	c->error = asserted;
	c->ignore &= c->error;
	return c->ignore;
}

bool coprocessor_error(struct bus *bus, bool asserted)
{
	struct device *device;
	bool ignore = false;

	list_for_each (device, &bus->devices, node) {
		if (device->ops == &coprocessor_ops) {
			lock_take(device->lock);
			ignore = set_error((struct coprocessor *)device, asserted);
			lock_drop(device->lock);
		}
	}
	return ignore;
}

static int coprocessor_create(struct bus *bus, const void *options, struct error *err)
{
	struct coprocessor *c = calloc(1, sizeof(*c));

	(void)options;
	if (!c)
		return error_set(err, ENOMEM, "out of memory for the coprocessor's error port");
	device_init(&c->device, bus, "coprocessor", &coprocessor_ops);
	c->irq = irq_isa_line(&c->device, COPROCESSOR_IRQ);
	c->range =
		(struct bus_range){ .start = PORT, .size = 1, .sizes = 1, .device = &c->device, .write = port_write };
	return bus_map(bus, BUS_PIO, &c->range, err);
}

const struct device_type coprocessor_type = {
	.name = "coprocessor",
	.help = "FERR#, IGNNE#, port 0xf0, and IRQ 13",
	.most = 1,
	.in_every_pc = true,
	.create = coprocessor_create,
};
