/*
 * The high precision event timers (IA-PC HPET Specification 1.0a): a counter of 64 bits and three comparators, each of which interrupts once or periodically.
 * Nothing counts: the counter is computed from guest time, and each comparator has a timer for its next match alone.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#define TIMERS	   3
#define TICK_NS	   10u
#define FS_PER_NS  1000000ull
#define MIN_PERIOD 20000 /* ns; periodic interrupts come no closer, as the 8254's */

enum {
	CAPABILITIES = 0x00,
	CONFIGURATION = 0x10,
	STATUS = 0x20,
	COUNTER = 0xf0,
	FIRST_TIMER = 0x100,
	TIMER_SIZE = 0x20
};
/* Of a timer: */
enum { TIMER_CONFIGURATION = 0x00, TIMER_COMPARATOR = 0x08 };

#define ENABLE BIT(0)
#define LEGACY BIT(1)

#define TIMER_LEVEL	 BIT(1)
#define TIMER_INTERRUPTS BIT(2)
#define TIMER_PERIODIC	 BIT(3)
#define TIMER_SET	 BIT(6) /* the next write of the comparator is one, in periodic mode too */
#define TIMER_32	 BIT(8)
#define TIMER_ROUTE	 (31ull << 9)
#define TIMER_WRITABLE	 (TIMER_LEVEL | TIMER_INTERRUPTS | TIMER_PERIODIC | TIMER_SET | TIMER_32 | TIMER_ROUTE)
#define TIMER_CAN	 (BIT(4) | BIT(5)) /* be periodic; has 64 bits */

/* Inputs of the IOAPIC that a timer may be routed to; lines 0 and 8 are those of legacy replacement. */
#define FIRST_ROUTE 16u
#define ROUTES	    8u
#define ROUTABLE    ((BIT(ROUTES) - 1) << FIRST_ROUTE)
#define LINES	    (ROUTES + 2)
#define LINE_PIT    ROUTES
#define LINE_RTC    (ROUTES + 1)
#define NO_LINE	    LINES

#define HPET_STATE(_, T)                                                                                               \
	_(T, uint64_t, config, 1, 1, 0, ENABLE | LEGACY)                                                               \
	_(T, uint64_t, status, 1, 2, 0, BIT(TIMERS) - 1)                                                               \
	_(T, uint64_t, counter, 1, 3, 0, UINT64_MAX) /* as it was at: */                                               \
	_(T, uint64_t, since, 1, 4, 0, UINT64_MAX)                                                                     \
	_(T, uint64_t, timer_config, 3, 5, 0, TIMER_WRITABLE)                                                          \
	_(T, uint64_t, comparator, 3, 6, UINT64_MAX, UINT64_MAX)                                                       \
	_(T, uint64_t, period, 3, 7, 0, UINT64_MAX)                                                                    \
	_(T, uint64_t, match_at, 3, 8, VTIME_NEVER, UINT64_MAX) /* when each timer fires */

struct hpet {
	struct device device;
	STATE_FIELDS(HPET_STATE)
	struct irq_line lines[LINES];
	struct match {
		struct hpet *hpet;
		struct timer timer;
	} matches[TIMERS];
	struct bus_range range;
};

static vtime_t now(const struct hpet *h) { return clock_now(h->device.bus->clock); }

/* ---- counting ---- */

static bool counts(const struct hpet *h) { return h->config & ENABLE; }

static uint64_t elapsed(const struct hpet *h, vtime_t t)
{
	return counts(h) && t > h->since ? (t - h->since) / TICK_NS : 0;
}

static uint64_t counter(const struct hpet *h, vtime_t t) { return h->counter + elapsed(h, t); }

static void set_counter(struct hpet *h, uint64_t value, vtime_t t)
{
	h->counter = value;
	h->since = t;
}

static uint64_t width_mask(const struct hpet *h, unsigned n)
{
	return h->timer_config[n] & TIMER_32 ? UINT32_MAX : UINT64_MAX;
}

/* In periodic mode a comparator that was reached is the next one. */
static void advance(struct hpet *h, unsigned n, vtime_t t)
{
	uint64_t mask = width_mask(h, n), period = h->period[n] & mask, passed;

	if (!(h->timer_config[n] & TIMER_PERIODIC) || !period || !counts(h))
		return;
	passed = (counter(h, t) - h->comparator[n]) & mask;
	if (passed <= mask / 2)
		h->comparator[n] = (h->comparator[n] + (passed / period + 1) * period) & mask;
}

/* When it is reached next, behind t. */
static vtime_t next_match(const struct hpet *h, unsigned n, vtime_t t)
{
	uint64_t mask = width_mask(h, n), ahead = (h->comparator[n] - counter(h, t)) & mask;
	unsigned __int128 at = ahead ? ahead : (unsigned __int128)mask + 1;

	at = h->since + (at + elapsed(h, t)) * TICK_NS;
	return at < VTIME_NEVER ? (vtime_t)at : VTIME_NEVER;
}

/* No sooner than at `least`. Whose match nobody would see needs no timer. */
static void schedule(struct hpet *h, unsigned n, vtime_t t, vtime_t least)
{
	advance(h, n, t);
	h->match_at[n] = VTIME_NEVER;
	if (counts(h) && (h->timer_config[n] & (TIMER_INTERRUPTS | TIMER_LEVEL)))
		h->match_at[n] = MAX(next_match(h, n, t), least);
	timer_arm(&h->matches[n].timer, h->match_at[n]);
}

static void schedule_all(struct hpet *h, vtime_t t)
{
	for (unsigned n = 0; n < TIMERS; n++)
		schedule(h, n, t, 0);
}

/* ---- interrupts ---- */

static unsigned line_of(const struct hpet *h, unsigned n)
{
	uint64_t route = (h->timer_config[n] & TIMER_ROUTE) >> 9;

	if ((h->config & LEGACY) && n < 2)
		return n ? LINE_RTC : LINE_PIT;
	return route >= FIRST_ROUTE && route < FIRST_ROUTE + ROUTES ? (unsigned)route - FIRST_ROUTE : NO_LINE;
}

static bool wants(const struct hpet *h, unsigned n) { return counts(h) && (h->timer_config[n] & TIMER_INTERRUPTS); }

/* What timers of level-triggered interrupts hold up; the others' edges are over. */
static void update_lines(struct hpet *h)
{
	bool high[LINES + 1] = { false };

	for (unsigned n = 0; n < TIMERS; n++)
		if (h->status & BIT(n) && wants(h, n))
			high[line_of(h, n)] = true;
	for (unsigned line = 0; line < LINES; line++)
		irq_set(&h->lines[line], high[line]);
}

/* An 8259 loses a request whose line goes low again; an input of the IOAPIC may be shared, and keeps its edge. */
static void send_edge(struct hpet *h, unsigned line)
{
	if (line == NO_LINE)
		return;
	irq_set(&h->lines[line], false);
	irq_set(&h->lines[line], true);
	if (line < ROUTES)
		update_lines(h);
}

static void matched(void *opaque)
{
	struct match *match = opaque;
	struct hpet *h = match->hpet;
	unsigned n = (unsigned)(match - h->matches);
	vtime_t t = now(h);

	if (h->timer_config[n] & TIMER_LEVEL) {
		h->status |= BIT(n);
		update_lines(h);
	} else if (wants(h, n)) {
		send_edge(h, line_of(h, n));
	}
	schedule(h, n, t, t + MIN_PERIOD);
}

/* ---- registers ---- */

static uint64_t read_timer(struct hpet *h, unsigned n, unsigned offset)
{
	switch (offset) {
	case TIMER_CONFIGURATION: return ROUTABLE << 32 | TIMER_CAN | h->timer_config[n];
	case TIMER_COMPARATOR: advance(h, n, now(h)); return h->comparator[n];
	default: return 0; /* there is no FSB delivery */
	}
}

static uint64_t read_register(struct hpet *h, unsigned offset)
{
	if (offset >= FIRST_TIMER && offset < FIRST_TIMER + TIMERS * TIMER_SIZE)
		return read_timer(h, (offset - FIRST_TIMER) / TIMER_SIZE, offset % TIMER_SIZE);
	switch (offset) {
	case CAPABILITIES: return TICK_NS * FS_PER_NS << 32 | HPET_ID;
	case CONFIGURATION: return h->config;
	case STATUS: return h->status;
	case COUNTER: return counter(h, now(h));
	default: return 0;
	}
}

static void write_timer_configuration(struct hpet *h, unsigned n, uint64_t value, vtime_t t)
{
	advance(h, n, t);
	value &= TIMER_WRITABLE;
	/* A route that is not possible is not taken, which a driver reads. */
	if (!(ROUTABLE >> (value >> 9 & 31) & 1))
		value = (value & ~TIMER_ROUTE) | (h->timer_config[n] & TIMER_ROUTE);
	h->timer_config[n] = value;
	if (!(value & TIMER_LEVEL))
		h->status &= ~BIT(n);
	h->comparator[n] &= width_mask(h, n);
	update_lines(h);
	schedule(h, n, t, 0);
}

static uint64_t merge(uint64_t old, uint64_t value, uint64_t mask) { return (old & ~mask) | (value & mask); }

static void write_comparator(struct hpet *h, unsigned n, uint64_t value, uint64_t mask, vtime_t t)
{
	if (!(h->timer_config[n] & TIMER_PERIODIC) || (h->timer_config[n] & TIMER_SET))
		h->comparator[n] = merge(h->comparator[n], value, mask) & width_mask(h, n);
	h->period[n] = merge(h->period[n], value, mask) & width_mask(h, n);
	h->timer_config[n] &= ~TIMER_SET;
	schedule(h, n, t, 0);
}

/* The 8254 and the RTC have no interrupts meanwhile. */
static void replace(struct hpet *h)
{
	struct bus *bus = h->device.bus;

	atomic_store(&bus->timers_replaced, h->config & LEGACY);
	pit_replaced(bus);
	rtc_replaced(bus);
}

static void write_configuration(struct hpet *h, uint64_t value, vtime_t t)
{
	uint64_t changed = (h->config ^ value) & (ENABLE | LEGACY);

	for (unsigned n = 0; n < TIMERS; n++)
		advance(h, n, t);
	if (changed & ENABLE)
		set_counter(h, counter(h, t), t);
	h->config ^= changed;
	if (changed)
		update_lines(h);
	if (changed & LEGACY)
		replace(h);
	schedule_all(h, t);
}

/* mask: of the bits that are written */
static void write_register(struct hpet *h, unsigned offset, uint64_t value, uint64_t mask)
{
	unsigned n = (offset - FIRST_TIMER) / TIMER_SIZE;
	vtime_t t = now(h);

	switch (offset) {
	case CONFIGURATION: write_configuration(h, merge(h->config, value, mask), t); return;
	case STATUS:
		h->status &= ~(value & mask);
		update_lines(h);
		return;
	case COUNTER:
		set_counter(h, merge(counter(h, t), value, mask), t);
		schedule_all(h, t);
		return;
	default: break;
	}
	if (offset < FIRST_TIMER || n >= TIMERS)
		return;
	if (offset % TIMER_SIZE == TIMER_CONFIGURATION)
		write_timer_configuration(h, n, merge(h->timer_config[n], value, mask), t);
	else if (offset % TIMER_SIZE == TIMER_COMPARATOR)
		write_comparator(h, n, value, mask, t);
}

/* Registers have 64 bits, and are reached by halves, too; nothing else comes from the bus. */
static uint64_t hpet_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return read_register((struct hpet *)device, (unsigned)offset & ~7u) >> (offset & 4) * 8;
}

static void hpet_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	unsigned shift = (unsigned)(offset & 4) * 8;

	write_register((struct hpet *)device, (unsigned)offset & ~7u, value << shift,
		       size == 8 ? UINT64_MAX : (uint64_t)UINT32_MAX << shift);
}

/* ---- life ---- */

static void hpet_reset(struct device *device)
{
	struct hpet *h = (struct hpet *)device;

	atomic_store(&device->bus->timers_replaced, false);
	for (unsigned n = 0; n < TIMERS; n++)
		timer_disarm(&h->matches[n].timer);
	update_lines(h);
}

static int hpet_loaded(void *object, uint16_t version, struct error *err)
{
	const struct hpet *h = object;

	(void)version;
	for (unsigned n = 0; n < TIMERS; n++)
		if ((h->comparator[n] | h->period[n]) & ~width_mask(h, n))
			return error_set(err, EINVAL, "hpet: timer %u is of 32 bits, but its comparator is not", n);
	return 0;
}

static void hpet_attach(struct device *device)
{
	struct hpet *h = (struct hpet *)device;

	h->since = MIN(h->since, now(h)); /* only a made-up record tells of the future */
	atomic_store(&device->bus->timers_replaced, h->config & LEGACY);
	for (unsigned n = 0; n < TIMERS; n++)
		timer_arm(&h->matches[n].timer, h->match_at[n]);
}

static void hpet_destroy(struct device *device)
{
	struct hpet *h = (struct hpet *)device;

	atomic_store(&device->bus->timers_replaced, false);
	for (unsigned n = 0; n < TIMERS; n++)
		timer_disarm(&h->matches[n].timer);
	bus_unmap(device->bus, BUS_MMIO, &h->range);
	for (unsigned line = 0; line < LINES; line++)
		irq_line_free(&h->lines[line]);
	free(h);
}

STATE_DESC(hpet_state_desc, "hpet", 1, struct hpet, HPET_STATE, .loaded = hpet_loaded);

static const struct device_ops hpet_ops = {
	.state = &hpet_state_desc, .reset = hpet_reset, .attach = hpet_attach, .destroy = hpet_destroy
};

bool hpet_is_here(struct bus *bus) { return bus_find_device(bus, "hpet", 0); }

static int hpet_create(struct bus *bus, const void *options, struct error *err)
{
	static const char *const names[TIMERS] = { "hpet 0", "hpet 1", "hpet 2" };
	struct hpet *h = calloc(1, sizeof(*h));

	(void)options;
	if (!h)
		return error_set_errno(err, ENOMEM, "high precision event timers");
	device_init(&h->device, bus, "hpet", &hpet_ops);
	for (unsigned n = 0; n < TIMERS; n++) {
		h->matches[n].hpet = h;
		device_timer_init(&h->device, &h->matches[n].timer, names[n], matched, &h->matches[n]);
	}
	for (unsigned line = 0; line < LINES; line++)
		h->lines[line] = irq_isa_line(&h->device, line == LINE_PIT   ? 0
							  : line == LINE_RTC ? 8
									     : FIRST_ROUTE + line);
	hpet_reset(&h->device);
	h->range = (struct bus_range){ .start = HPET_ADDRESS,
				       .size = HPET_SIZE,
				       .sizes = 4 | 8,
				       .device = &h->device,
				       .read = hpet_read,
				       .write = hpet_write };
	return bus_map(bus, BUS_MMIO, &h->range, err);
}

const struct device_type hpet_type = {
	.name = "hpet",
	.help = "high precision event timers",
	.most = 1,
	.create = hpet_create,
};
