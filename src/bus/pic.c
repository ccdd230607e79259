/*
 * The 8259A pair (Intel 8259A data sheet, 231468) with the PIIX's edge/level control registers: master at 0x20, slave
 * at 0xa0 on the master's input 2, ELCR at 0x4d0. All under irq_lock.
 */
#include "bus/private.h"

#include <errno.h>
#include <stdlib.h>

#define CASCADE 2

/* Per chip: [0] master, [1] slave. */
#define PIC_STATE(_, T)                                                                                                \
	_(T, uint8_t, lines, 2, 1, 0, 0xff) /* levels of the inputs */                                                 \
	_(T, uint8_t, irr, 2, 2, 0, 0xff)                                                                              \
	_(T, uint8_t, imr, 2, 3, 0xff, 0xff) /* no firmware has set up vectors yet: quiet until the guest does */      \
	_(T, uint8_t, isr, 2, 4, 0, 0xff)                                                                              \
	_(T, uint8_t, elcr, 2, 5, 0, 0xff)                                                                             \
	_(T, uint8_t, icw1, 2, 6, 0, 0x1f)                                                                             \
	_(T, uint8_t, icw2, 2, 7, 0, 0xf8)                                                                             \
	_(T, uint8_t, icw3, 2, 8, 0, 0xff)                                                                             \
	_(T, uint8_t, icw4, 2, 9, 0, 0x1f)                                                                             \
	_(T, uint8_t, init_step, 2, 10, 0, 4) /* next ICW expected: 2, 3, 4; 0: operational */                         \
	_(T, uint8_t, read_isr, 2, 11, 0, 1)  /* OCW3 RR/RIS */                                                        \
	_(T, uint8_t, poll, 2, 12, 0, 1)                                                                               \
	_(T, uint8_t, special_mask, 2, 13, 0, 1)                                                                       \
	_(T, uint8_t, rotate_on_aeoi, 2, 14, 0, 1)                                                                     \
	_(T, uint8_t, top, 2, 15, 0, 7) /* input with the highest priority */

struct pic {
	struct device device;
	STATE_FIELDS(PIC_STATE)
	struct irq_chip *chip;
	struct bus_range ranges[3];
	bool output;
};

#define ICW1_IC4  0x01
#define ICW1_SNGL 0x02
#define ICW1_LTIM 0x08
#define ICW1_INIT 0x10
#define ICW4_AEOI 0x02
#define ICW4_SFNM 0x10
#define OCW3	  0x08

static const uint8_t elcr_writable[2] = { 0xf8, 0xde }; /* 0, 1, 2, 8 and 13 are always edge-triggered */

static uint8_t level_inputs(const struct pic *pic, unsigned c)
{
	return pic->icw1[c] & ICW1_LTIM ? 0xff : pic->elcr[c];
}

/* The highest-priority bit's number in rotated order, 8 if none: 0 is the highest priority. */
static unsigned priority(const struct pic *pic, unsigned c, uint8_t set)
{
	unsigned rotated = (set | set << 8) >> pic->top[c] & 0xff;

	return rotated ? (unsigned)__builtin_ctz(rotated) : 8;
}

/* The input that asks for service now, or -1. */
static int pending_input(const struct pic *pic, unsigned c)
{
	unsigned request = priority(pic, c, pic->irr[c] & ~pic->imr[c]);
	uint8_t blocking = pic->isr[c];

	if (pic->special_mask[c])
		blocking &= ~pic->imr[c];
	/* Special fully nested: a slave in service may ask for a more important one of its inputs. */
	if (c == 0 && (pic->icw4[0] & ICW4_SFNM))
		blocking &= ~(1 << CASCADE);
	if (request == 8 || request >= priority(pic, c, blocking))
		return -1;
	return (request + pic->top[c]) & 7;
}

static void set_input(struct pic *pic, unsigned c, unsigned n, bool level)
{
	uint8_t bit = (uint8_t)(1 << n);

	if (!level) {
		/* The 8259 wants a request held until INTA, with either trigger: a dropped one becomes IR7's. */
		pic->lines[c] &= ~bit;
		pic->irr[c] &= ~bit;
	} else {
		if (!(pic->lines[c] & bit) || (level_inputs(pic, c) & bit))
			pic->irr[c] |= bit;
		pic->lines[c] |= bit;
	}
}

static void pic_update(struct pic *pic)
{
	bool output;

	set_input(pic, 0, CASCADE, pending_input(pic, 1) >= 0);
	output = pending_input(pic, 0) >= 0;
	if (output != pic->output) {
		pic->output = output;
		irq_pic_output(pic->chip, output);
	}
}

void pic_set_line(struct pic *pic, unsigned n, bool level)
{
	if (n == CASCADE)
		return;
	set_input(pic, n >> 3, n & 7, level);
	pic_update(pic);
}

enum irq_receiver pic_receiver(struct pic *pic, unsigned n)
{
	uint8_t bit = (uint8_t)(1 << (n & 7));

	if (!(pic->irr[n >> 3] & bit))
		return IRQ_READY;
	return pic->imr[n >> 3] & bit ? IRQ_NOBODY : IRQ_WAITS;
}

/* An INTA for one chip: the input that won, or -1 when nobody asks any more. */
static int acknowledge(struct pic *pic, unsigned c)
{
	int n = pending_input(pic, c);

	if (n < 0)
		return -1;
	if (!(level_inputs(pic, c) & (1 << n)))
		pic->irr[c] &= ~(1 << n);
	if (!(pic->icw4[c] & ICW4_AEOI))
		pic->isr[c] |= 1 << n;
	else if (pic->rotate_on_aeoi[c])
		pic->top[c] = (n + 1) & 7;
	return n;
}

uint8_t pic_acknowledge(struct pic *pic, bool *timer)
{
	int n = acknowledge(pic, 0);
	uint8_t vector;

	if (n == CASCADE) {
		int slave = acknowledge(pic, 1);

		vector = pic->icw2[1] | (slave < 0 ? 7 : slave);
		/* INTA ends the slave's request: its next one is a new edge for the master. */
		set_input(pic, 0, CASCADE, false);
	} else {
		vector = pic->icw2[0] | (n < 0 ? 7 : n);
	}
	pic_update(pic);
	*timer = n == 0;
	return vector;
}

/* ---- registers ---- */

static void end_of_interrupt(struct pic *pic, unsigned c, unsigned n, bool rotate)
{
	pic->isr[c] &= ~(1 << n);
	if (rotate)
		pic->top[c] = (n + 1) & 7;
}

static void write_ocw2(struct pic *pic, unsigned c, uint8_t value)
{
	bool rotate = value & 0x80;
	uint8_t served = pic->isr[c];
	unsigned highest;

	switch (value >> 5) {
	case 0: /* rotation in automatic EOI mode off and on */
	case 4: pic->rotate_on_aeoi[c] = rotate; break;
	case 1: /* non-specific EOI; in special mask mode it passes over masked inputs */
	case 5:
		if (pic->special_mask[c])
			served &= ~pic->imr[c];
		highest = priority(pic, c, served);
		if (highest < 8)
			end_of_interrupt(pic, c, (highest + pic->top[c]) & 7, rotate);
		break;
	case 3: /* specific EOI */
	case 7: end_of_interrupt(pic, c, value & 7, rotate); break;
	case 6: /* set priority: the given input becomes the lowest */ pic->top[c] = (value + 1) & 7; break;
	default: break;
	}
}

static void write_ocw3(struct pic *pic, unsigned c, uint8_t value)
{
	if (value & 0x40)
		pic->special_mask[c] = value >> 5 & 1;
	if (value & 0x02)
		pic->read_isr[c] = value & 1;
	pic->poll[c] = value >> 2 & 1;
}

static void write_icw1(struct pic *pic, unsigned c, uint8_t value)
{
	pic->icw1[c] = value & 0x1f;
	pic->imr[c] = 0;
	pic->isr[c] = 0;
	pic->irr[c] = pic->lines[c] & level_inputs(pic, c); /* the edge detectors are reset */
	pic->top[c] = 0;
	pic->special_mask[c] = 0;
	pic->read_isr[c] = 0;
	pic->poll[c] = 0;
	pic->rotate_on_aeoi[c] = 0;
	pic->icw4[c] = 0;
	pic->init_step[c] = 2;
}

static void write_data(struct pic *pic, unsigned c, uint8_t value)
{
	bool wants_icw4 = pic->icw1[c] & ICW1_IC4;

	switch (pic->init_step[c]) {
	case 2:
		pic->icw2[c] = value & 0xf8;
		pic->init_step[c] = !(pic->icw1[c] & ICW1_SNGL) ? 3 : wants_icw4 ? 4 : 0;
		break;
	case 3:
		pic->icw3[c] = value;
		pic->init_step[c] = wants_icw4 ? 4 : 0;
		break;
	case 4:
		pic->icw4[c] = value & 0x1f;
		pic->init_step[c] = 0;
		break;
	default: pic->imr[c] = value; break;
	}
}

static void pic_write(struct device *device, unsigned c, uint64_t offset, uint8_t value)
{
	struct pic *pic = (struct pic *)device;

	if (offset & 1)
		write_data(pic, c, value);
	else if (value & ICW1_INIT)
		write_icw1(pic, c, value);
	else if (value & OCW3)
		write_ocw3(pic, c, value);
	else
		write_ocw2(pic, c, value);
	pic_update(pic);
}

/* *timer: see pic_acknowledge(). */
static uint64_t pic_read(struct pic *pic, unsigned c, uint64_t offset, bool *timer)
{
	*timer = false;
	if (pic->poll[c]) { /* the read after a poll command is the INTA */
		int n = acknowledge(pic, c);

		pic->poll[c] = 0;
		if (c == 1 && n >= 0)
			set_input(pic, 0, CASCADE, false);
		pic_update(pic);
		*timer = c == 0 && n == 0;
		return n < 0 ? 0 : 0x80 | n;
	}
	if (offset & 1)
		return pic->imr[c];
	return pic->read_isr[c] ? pic->isr[c] : pic->irr[c];
}

/* A poll may take the timer's interrupt, which the timer is told of without the lock: these take it themselves. */
static uint64_t master_read(struct device *device, uint64_t offset, unsigned size)
{
	struct pic *pic = (struct pic *)device;
	uint64_t value;
	bool timer;

	(void)size;
	lock_take(device->lock);
	value = pic_read(pic, 0, offset, &timer);
	lock_drop(device->lock);
	if (timer)
		irq_timer_taken(pic->chip);
	return value;
}

static void master_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	lock_take(device->lock);
	pic_write(device, 0, offset, (uint8_t)value);
	lock_drop(device->lock);
}

static uint64_t slave_read(struct device *device, uint64_t offset, unsigned size)
{
	bool timer;

	(void)size;
	return pic_read((struct pic *)device, 1, offset, &timer);
}

static void slave_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	pic_write(device, 1, offset, (uint8_t)value);
}

static uint64_t elcr_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return ((struct pic *)device)->elcr[offset];
}

static void elcr_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct pic *pic = (struct pic *)device;

	(void)size;
	pic->elcr[offset] = value & elcr_writable[offset];
	pic->irr[offset] |= pic->lines[offset] & level_inputs(pic, offset);
	pic_update(pic);
}

/* ---- life ---- */

static void pic_reset(struct device *device)
{
	struct pic *pic = (struct pic *)device;

	pic->output = false;
	irq_pic_output(pic->chip, false);
}

static void pic_destroy(struct device *device)
{
	struct pic *pic = (struct pic *)device;

	for (unsigned i = 0; i < ARRAY_SIZE(pic->ranges); i++)
		bus_unmap(device->bus, BUS_PIO, &pic->ranges[i]);
	free(pic);
}

static int pic_loaded(void *object, uint16_t version, struct error *err)
{
	struct pic *pic = object;

	(void)version;
	for (unsigned c = 0; c < 2; c++)
		if (pic->init_step[c] == 1)
			return error_set(err, EINVAL, "8259: init_step 1 is no step; expected 0, 2, 3 or 4");
	return 0;
}

/* Not by irq_pic_output(): to LINT0 as a fixed interrupt or an NMI the output's edge was sent before. */
static void pic_attach(struct device *device)
{
	struct pic *pic = (struct pic *)device;

	pic->output = pending_input(pic, 0) >= 0;
	atomic_store(&pic->chip->intr, pic->output);
}

STATE_DESC(pic_state_desc, "pic", 1, struct pic, PIC_STATE, .loaded = pic_loaded);

static const struct device_ops pic_ops = {
	.state = &pic_state_desc, .reset = pic_reset, .attach = pic_attach, .destroy = pic_destroy
};

struct pic *pic_create(struct irq_chip *chip, struct error *err)
{
	static const struct bus_range ranges[3] = {
		{ 0x20, 2, 1, .takes_locks = true, .read = master_read, .write = master_write },
		{ .start = 0xa0, .size = 2, .sizes = 1, .read = slave_read, .write = slave_write },
		{ .start = 0x4d0, .size = 2, .sizes = 1, .read = elcr_read, .write = elcr_write },
	};
	struct pic *pic = calloc(1, sizeof(*pic));

	if (!pic) {
		error_set(err, ENOMEM, "out of memory for the 8259 pair");
		return NULL;
	}
	pic->chip = chip;
	device_init_sharing(&pic->device, chip->device.bus, "pic", &pic_ops, chip->device.lock);
	for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++) {
		pic->ranges[i] = ranges[i];
		pic->ranges[i].device = &pic->device;
		if (bus_map(chip->device.bus, BUS_PIO, &pic->ranges[i], err))
			return NULL; /* destroyed with the bus */
	}
	return pic;
}
