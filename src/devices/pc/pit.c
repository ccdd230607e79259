/*
 * The 8254 interval timer (Intel 8254 data sheet, 231164) at 0x40..0x43 and system control port B (0x61), which gates channel 2
 * and shows its output.
 *
 * Nothing counts: a channel knows when its count began, and all else is computed from guest time. Only channel 0 has a timer, for
 * the edges of interrupt 0.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#define PIT_HZ	 1193182ull
#define CHANNELS 3

/*
 * Interrupts come no closer than this (ns), however small the count: no monitor could follow, and the guest could keep it from
 * doing anything else. Counter and output read as if nothing had been left out.
 */
#define MIN_PERIOD 20000

/* Per channel. Times are vtime_t; counts are 1..0x10000. */
#define PIT_STATE(_, T)                                                                                                \
	_(T, uint32_t, count, 3, 1, 0x10000, 0x10000) /* reload value in use */                                        \
	_(T, uint32_t, next_count, 3, 2, 0, 0x10000)  /* from the end of this period, modes 2 and 3; 0: none */        \
	_(T, uint64_t, start, 3, 3, 0, UINT64_MAX)    /* when the count was loaded */                                  \
	_(T, uint64_t, held, 3, 4, 0, UINT64_MAX)     /* ticks done when the gate closed */                            \
	_(T, uint8_t, mode, 3, 5, 0, 5)                                                                                \
	_(T, uint8_t, access, 3, 6, 3, 3) /* 1 low byte, 2 high byte, 3 low then high */                               \
	_(T, bool, bcd, 3, 7, 0, 1)                                                                                    \
	_(T, bool, counting, 3, 8, 0, 1) /* a count was loaded (and triggered), and goes on */                         \
	_(T, bool, gate, 3, 9, 1, 1)                                                                                   \
	_(T, bool, null_count, 3, 10, 1, 1) /* the written count is not in use yet */                                  \
	_(T, uint16_t, latch, 3, 11, 0, 0xffff)                                                                        \
	_(T, uint8_t, latched, 3, 12, 0, 3) /* latched bytes not read yet: 1 low, 2 high */                            \
	_(T, uint8_t, status, 3, 13, 0, 0xff)                                                                          \
	_(T, bool, status_latched, 3, 14, 0, 1)                                                                        \
	_(T, bool, read_high, 3, 15, 0, 1) /* access 3: the high byte is next */                                       \
	_(T, bool, write_high, 3, 16, 0, 1)                                                                            \
	_(T, uint8_t, write_low, 3, 17, 0, 0xff)                                                                       \
	_(T, bool, output, 3, 18, 0, 1) /* output while not counting */                                                \
	_(T, uint8_t, port_b, 1, 19, 0, 0x0f)                                                                          \
	_(T, uint64_t, seen, 1, 20, 0, UINT64_MAX) /* channel 0's edges are accounted for up to then */                \
	_(T, uint32_t, owed, 1, 21, 0, TICKS_MOST) /* and so many of them are still to be delivered */                 \
	_(T, uint32_t, masked, 1, 22, 0, TICKS_MOST)                                                                   \
	_(T, uint64_t, edge_at, 1, 23, VTIME_NEVER, UINT64_MAX) /* when the timer fires */

struct pit {
	struct device device;
	STATE_FIELDS(PIT_STATE)
	struct irq_line irq;
	struct timer timer;
	struct bus_range ranges[2];
};

#define PORT_B_GATE	BIT(0)
#define PORT_B_REFRESH	BIT(4)
#define PORT_B_OUTPUT	BIT(5)
#define PORT_B_WRITABLE 0x0f
#define REFRESH_NS	15085

static vtime_t now(const struct pit *pit) { return clock_now(pit->device.bus->clock); }

static uint64_t ns_to_ticks(uint64_t ns) { return (uint64_t)((unsigned __int128)ns * PIT_HZ / 1000000000); }

/* Rounded up: that many ticks are over then. */
static uint64_t ticks_to_ns(uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * 1000000000 + PIT_HZ - 1) / PIT_HZ);
}

/* ---- what a channel does at time t ---- */

static bool is_periodic(const struct pit *pit, unsigned c) { return pit->mode[c] == 2 || pit->mode[c] == 3; }

static uint64_t elapsed(const struct pit *pit, unsigned c, vtime_t t)
{
	if (!pit->counting[c])
		return pit->held[c];
	return t > pit->start[c] ? ns_to_ticks(t - pit->start[c]) : 0;
}

/* A count written during a period is used from its end on. */
static void advance(struct pit *pit, unsigned c, vtime_t t)
{
	if (!pit->next_count[c] || !pit->counting[c] || elapsed(pit, c, t) < pit->count[c])
		return;
	pit->start[c] += ticks_to_ns(pit->count[c]);
	pit->count[c] = pit->next_count[c];
	pit->next_count[c] = 0;
	pit->null_count[c] = false;
}

static uint16_t counter(struct pit *pit, unsigned c, vtime_t t)
{
	uint32_t count, modulus = pit->bcd[c] ? 10000 : 0x10000, value;
	uint64_t ticks;

	advance(pit, c, t);
	count = pit->count[c];
	ticks = elapsed(pit, c, t);
	switch (pit->mode[c]) {
	case 2: value = count - (uint32_t)(ticks % count); break;
	case 3: value = count - (uint32_t)(2 * (ticks % count) % count); break; /* counts by two, twice a period */
	default: value = count % modulus + modulus - (uint32_t)(ticks % modulus); break; /* wraps and goes on */
	}
	value %= modulus;
	if (pit->bcd[c])
		value = value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10;
	return (uint16_t)value;
}

static bool output(struct pit *pit, unsigned c, vtime_t t)
{
	uint32_t count;
	uint64_t ticks;

	advance(pit, c, t);
	if (!pit->counting[c] && (is_periodic(pit, c) || !pit->held[c]))
		return pit->output[c];
	count = pit->count[c];
	ticks = elapsed(pit, c, t);
	switch (pit->mode[c]) {
	case 0:
	case 1: return ticks >= count;
	case 2: return ticks % count != count - 1;
	case 3: return ticks % count < (count + 1) / 2;
	default: return ticks != count; /* a strobe of one tick */
	}
}

/* ---- interrupt 0: rising edges of channel 0's output ---- */

/* Edges that come too late are made up for, but not those that a guest cannot mean all to get. */
static bool reinjects(const struct pit *pit)
{
	return pit->device.bus->reinject && is_periodic(pit, 0) && pit->counting[0] &&
	       ticks_to_ns(pit->count[0]) >= MIN_PERIOD;
}

/* First rising edge after t, VTIME_NEVER if there is none. */
static vtime_t next_edge(struct pit *pit, vtime_t t)
{
	uint64_t count, ticks;

	advance(pit, 0, t);
	if (!pit->counting[0])
		return VTIME_NEVER;
	count = pit->count[0];
	ticks = elapsed(pit, 0, t);
	if (is_periodic(pit, 0)) {
		vtime_t edge = pit->start[0] + ticks_to_ns((ticks / count + 1) * count);

		if (pit->next_count[0] || reinjects(pit) || edge >= t + MIN_PERIOD)
			return edge;
		ticks = elapsed(pit, 0, t + MIN_PERIOD);
		return pit->start[0] + ticks_to_ns((ticks / count + 1) * count);
	}
	if (pit->mode[0] >= 4)
		count++; /* the end of the strobe */
	return ticks < count ? pit->start[0] + ticks_to_ns(count) : VTIME_NEVER;
}

/* The HPET interrupts instead; reading goes on. */
static bool is_replaced(const struct pit *pit) { return atomic_load(&pit->device.bus->timers_replaced); }

static void schedule(struct pit *pit, vtime_t t)
{
	pit->edge_at = is_replaced(pit) ? VTIME_NEVER : next_edge(pit, t);
	timer_arm(&pit->timer, pit->edge_at);
}

/*
 * The line goes low only to rise again: the low part of a mode 2 period is one tick, and that of mode 3 nobody looks at.
 */
static void raise_edge(struct pit *pit)
{
	irq_set(&pit->irq, false);
	irq_set(&pit->irq, true);
}

/* Periodic modes: how many edges came after `seen`. A count that began later began with one, see advance(). */
static uint64_t edges_until(struct pit *pit, vtime_t t)
{
	uint64_t edges;

	advance(pit, 0, t);
	edges = elapsed(pit, 0, t) / pit->count[0] - elapsed(pit, 0, pit->seen) / pit->count[0];
	edges += pit->seen < pit->start[0];
	pit->seen = t;
	return edges;
}

static struct ticks ticks_of(struct pit *pit) { return (struct ticks){ &pit->owed, &pit->masked }; }

static void forget_edges(struct pit *pit, vtime_t t)
{
	ticks_forget(pit->device.bus, ticks_of(pit));
	irq_watch_timer(pit->device.bus, NULL, NULL);
	pit->seen = t;
}

static void tick_taken(void *opaque);

/* In the thread that runs the clock, or that of a CPU that has taken an interrupt while edges are owed. */
static void edges_due(struct pit *pit)
{
	struct bus *bus = pit->device.bus;
	bool deliver = ticks_deliver(bus, ticks_of(pit), edges_until(pit, now(pit)), irq_isa_receiver(bus, 0));

	/* Before the edge, which a CPU may take at once. */
	irq_watch_timer(bus, pit->owed ? tick_taken : NULL, pit);
	if (deliver)
		raise_edge(pit);
}

static void tick_taken(void *opaque)
{
	struct pit *pit = opaque;

	lock_take(pit->device.lock);
	if (pit->owed)
		edges_due(pit);
	lock_drop(pit->device.lock);
}

static void edge_due(void *opaque)
{
	struct pit *pit = opaque;
	vtime_t t = now(pit);

	if (reinjects(pit)) {
		edges_due(pit);
	} else {
		forget_edges(pit, t);
		raise_edge(pit);
	}
	schedule(pit, t);
}

/* After a change by the guest. */
static void channel_changed(struct pit *pit, unsigned c, vtime_t t)
{
	if (c != 0)
		return;
	irq_set(&pit->irq, !is_replaced(pit) && output(pit, 0, t));
	schedule(pit, t);
}

void pit_replaced(struct bus *bus)
{
	struct pit *pit = (struct pit *)bus_find_device(bus, "pit", 0);

	if (!pit)
		return;
	lock_take(pit->device.lock);
	forget_edges(pit, now(pit));
	channel_changed(pit, 0, now(pit));
	lock_drop(pit->device.lock);
}

/* ---- programming ---- */

static void start_count(struct pit *pit, unsigned c, vtime_t t)
{
	if (c == 0)
		forget_edges(pit, t);
	pit->start[c] = t;
	pit->held[c] = 0;
	pit->counting[c] = true;
	pit->null_count[c] = false;
}

static void load_count(struct pit *pit, unsigned c, uint16_t written, vtime_t t)
{
	uint32_t count = written;

	if (pit->bcd[c])
		count = (written >> 12) * 1000u + (written >> 8 & 15) * 100u + (written >> 4 & 15) * 10u +
			(written & 15);
	if (!count)
		count = pit->bcd[c] ? 10000 : 0x10000;
	pit->null_count[c] = true;
	if (is_periodic(pit, c) && pit->counting[c]) {
		advance(pit, c, t);
		pit->next_count[c] = count;
		return;
	}
	pit->count[c] = count;
	switch (pit->mode[c]) {
	case 1:
	case 5: /* used by the next trigger */ break;
	default:
		start_count(pit, c, t);
		if (!pit->gate[c])
			pit->counting[c] = false;
		break;
	}
}

static void write_count(struct pit *pit, unsigned c, uint8_t value)
{
	vtime_t t = now(pit);

	if (pit->access[c] == 3 && !pit->write_high[c]) {
		pit->write_low[c] = value;
		pit->write_high[c] = true;
		/* Mode 0: the first byte stops the count, and the output is low. */
		if (pit->mode[c] == 0) {
			pit->counting[c] = false;
			pit->held[c] = 0;
			pit->output[c] = false;
			channel_changed(pit, c, t);
		}
		return;
	}
	switch (pit->access[c]) {
	case 1: load_count(pit, c, value, t); break;
	case 2: load_count(pit, c, (uint16_t)(value << 8), t); break;
	default: load_count(pit, c, (uint16_t)(value << 8 | pit->write_low[c]), t); break;
	}
	pit->write_high[c] = false;
	channel_changed(pit, c, t);
}

static void set_gate(struct pit *pit, unsigned c, bool gate)
{
	vtime_t t = now(pit);
	bool rose = gate && !pit->gate[c], fell = !gate && pit->gate[c];

	advance(pit, c, t);
	pit->gate[c] = gate;
	switch (pit->mode[c]) {
	case 0:
	case 4: /* the gate stops and continues */
		if (fell && pit->counting[c]) {
			pit->held[c] = elapsed(pit, c, t);
			pit->counting[c] = false;
		} else if (rose && !pit->counting[c] && !pit->null_count[c]) {
			pit->start[c] = t - MIN(t, ticks_to_ns(pit->held[c]));
			pit->counting[c] = true;
		}
		break;
	case 1:
	case 5: /* it triggers */
		if (rose)
			start_count(pit, c, t);
		break;
	default: /* closed, the output is high; opening begins a new period */
		if (fell && pit->counting[c]) {
			pit->counting[c] = false;
			pit->held[c] = 0;
			pit->output[c] = true;
		} else if (rose && !pit->null_count[c]) {
			if (pit->next_count[c])
				pit->count[c] = pit->next_count[c];
			pit->next_count[c] = 0;
			start_count(pit, c, t);
		}
		break;
	}
}

static void latch_count(struct pit *pit, unsigned c)
{
	if (pit->latched[c])
		return; /* kept until it is read */
	pit->latch[c] = counter(pit, c, now(pit));
	pit->latched[c] = pit->access[c];
}

static void latch_status(struct pit *pit, unsigned c)
{
	if (pit->status_latched[c])
		return;
	pit->status[c] = (uint8_t)(output(pit, c, now(pit)) << 7 | pit->null_count[c] << 6 | pit->access[c] << 4 |
				   pit->mode[c] << 1 | pit->bcd[c]);
	pit->status_latched[c] = true;
}

static void read_back(struct pit *pit, uint8_t value)
{
	for (unsigned c = 0; c < CHANNELS; c++) {
		if (!(value & 2 << c))
			continue;
		if (!(value & 0x20))
			latch_count(pit, c);
		if (!(value & 0x10))
			latch_status(pit, c);
	}
}

static void write_control(struct pit *pit, uint8_t value)
{
	unsigned c = value >> 6, mode = value >> 1 & 7;

	if (c == 3) {
		read_back(pit, value);
		return;
	}
	if (!(value & 0x30)) {
		latch_count(pit, c);
		return;
	}
	pit->access[c] = value >> 4 & 3;
	pit->mode[c] = mode > 5 ? mode - 4 : mode; /* 6 and 7 are 2 and 3 */
	pit->bcd[c] = value & 1;
	if (c == 0)
		forget_edges(pit, now(pit));
	pit->counting[c] = false;
	pit->next_count[c] = 0;
	pit->held[c] = 0;
	pit->null_count[c] = true;
	pit->latched[c] = 0;
	pit->status_latched[c] = false;
	pit->read_high[c] = false;
	pit->write_high[c] = false;
	pit->output[c] = pit->mode[c] != 0;
	channel_changed(pit, c, now(pit));
}

static uint8_t read_count(struct pit *pit, unsigned c)
{
	uint16_t value;
	bool high;

	if (pit->status_latched[c]) {
		pit->status_latched[c] = false;
		return pit->status[c];
	}
	if (pit->latched[c]) {
		high = !(pit->latched[c] & 1);
		pit->latched[c] &= high ? 0 : 2;
		return high ? pit->latch[c] >> 8 : pit->latch[c] & 0xff;
	}
	value = counter(pit, c, now(pit));
	high = pit->access[c] == 2 || (pit->access[c] == 3 && pit->read_high[c]);
	if (pit->access[c] == 3)
		pit->read_high[c] = !pit->read_high[c];
	return high ? value >> 8 : value & 0xff;
}

/* ---- ports ---- */

static uint64_t pit_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return offset < CHANNELS ? read_count((struct pit *)device, offset) : 0xff; /* the control word is write-only */
}

static void pit_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct pit *pit = (struct pit *)device;

	(void)size;
	if (offset < CHANNELS)
		write_count(pit, offset, (uint8_t)value);
	else
		write_control(pit, (uint8_t)value);
}

static uint64_t port_b_read(struct device *device, uint64_t offset, unsigned size)
{
	struct pit *pit = (struct pit *)device;
	vtime_t t = now(pit);

	(void)offset;
	(void)size;
	return pit->port_b | (t / REFRESH_NS & 1 ? PORT_B_REFRESH : 0) | (output(pit, 2, t) ? PORT_B_OUTPUT : 0);
}

static void port_b_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct pit *pit = (struct pit *)device;

	(void)offset;
	(void)size;
	pit->port_b = value & PORT_B_WRITABLE;
	set_gate(pit, 2, value & PORT_B_GATE);
}

/* ---- life ---- */

static void pit_reset(struct device *device)
{
	struct pit *pit = (struct pit *)device;

	timer_disarm(&pit->timer);
	irq_watch_timer(device->bus, NULL, NULL);
	pit->gate[2] = false; /* port 0x61 is 0 */
	irq_set(&pit->irq, false);
}

static void pit_destroy(struct device *device)
{
	struct pit *pit = (struct pit *)device;

	timer_disarm(&pit->timer);
	for (unsigned i = 0; i < ARRAY_SIZE(pit->ranges); i++)
		bus_unmap(device->bus, BUS_PIO, &pit->ranges[i]);
	irq_watch_timer(device->bus, NULL, NULL);
	irq_line_free(&pit->irq);
	free(pit);
}

static int pit_loaded(void *object, uint16_t version, struct error *err)
{
	struct pit *pit = object;

	(void)version;
	for (unsigned c = 0; c < CHANNELS; c++) {
		if (!pit->count[c] || !pit->access[c])
			return error_set(err, EINVAL, "pit: channel %u has count %u and access %u; neither can be 0", c,
					 pit->count[c], pit->access[c]);
	}
	return 0;
}

static void pit_attach(struct device *device)
{
	struct pit *pit = (struct pit *)device;

	/* Only a made-up record tells of the future. */
	for (unsigned c = 0; c < CHANNELS; c++)
		pit->start[c] = MIN(pit->start[c], now(pit));
	pit->seen = MIN(pit->seen, now(pit));
	irq_watch_timer(pit->device.bus, pit->owed ? tick_taken : NULL, pit);
	timer_arm(&pit->timer, pit->edge_at);
}

STATE_DESC(pit_state_desc, "pit", 1, struct pit, PIT_STATE, .loaded = pit_loaded);

static const struct device_ops pit_ops = {
	.state = &pit_state_desc, .reset = pit_reset, .attach = pit_attach, .destroy = pit_destroy
};

static int pit_create(struct bus *bus, const void *options, struct error *err)
{
	static const struct bus_range ranges[2] = {
		{ .start = 0x40, .size = 4, .sizes = 1, .read = pit_read, .write = pit_write },
		{ .start = 0x61, .size = 1, .sizes = 1, .read = port_b_read, .write = port_b_write },
	};
	struct pit *pit = calloc(1, sizeof(*pit));
	int result = 0;

	(void)options;
	if (!pit)
		return error_set(err, ENOMEM, "out of memory for the interval timer");
	device_init(&pit->device, bus, "pit", &pit_ops);
	device_timer_init(&pit->device, &pit->timer, "pit", edge_due, pit);
	pit->irq = irq_isa_line(&pit->device, 0);
	pit_reset(&pit->device);
	for (unsigned i = 0; i < ARRAY_SIZE(ranges) && !result; i++) {
		pit->ranges[i] = ranges[i];
		pit->ranges[i].device = &pit->device;
		result = bus_map(bus, BUS_PIO, &pit->ranges[i], err);
	}
	return result;
}

const struct device_type pit_type = {
	.name = "pit",
	.help = "8254 timer, and port 0x61",
	.most = 1,
	.in_every_pc = true,
	.create = pit_create,
};
