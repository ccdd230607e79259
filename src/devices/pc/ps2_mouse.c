/*
 * The mouse of a PS/2 (IBM PS/2 Technical Reference, "Mouse"; Microsoft's for the wheel): three buttons; with a wheel, or a wheel and five buttons, for who
 * knows the sample rates that ask for that. Counts are the host's: resolution is told, not applied.
 *
 * What happened waits until there is a packet for it: movements are added up, but a button that was pressed and let go of is two packets.
 */
#include "devices/pc/ps2.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>

#define EVENTS	    16
#define REPLY_SIZE  4
#define PACKET_SIZE 4
#define MOST_COUNTS 255
#define FAR	    0x4000 /* what is further away than this is lost, and the packet says so */

/* Rates and what was done: the last three sample rates set. */
#define MOUSE_STATE(_, T)                                                                                              \
	_(T, uint8_t, packet, 4, 1, 0, 0xff)                                                                           \
	_(T, uint8_t, packet_count, 1, 2, 0, PACKET_SIZE)                                                              \
	_(T, uint8_t, reply, 4, 3, 0, 0xff)                                                                            \
	_(T, uint8_t, replies, 1, 4, 0, REPLY_SIZE)                                                                    \
	_(T, uint16_t, x, 16, 5, 0, UINT16_MAX) /* events: counts to the right, up, and notches down, signed */        \
	_(T, uint16_t, y, 16, 6, 0, UINT16_MAX)                                                                        \
	_(T, uint16_t, z, 16, 7, 0, UINT16_MAX)                                                                        \
	_(T, uint8_t, pressed, 16, 8, 0, 0x1f)                                                                         \
	_(T, uint8_t, far, 16, 9, 0, 3)                                                                                \
	_(T, uint8_t, events, 1, 10, 0, EVENTS)                                                                        \
	_(T, uint8_t, buttons, 1, 11, 0, 0x1f) /* as they are */                                                       \
	_(T, uint8_t, told, 1, 12, 0, 0x1f)    /* as the last packet said */                                           \
	_(T, uint8_t, last, 1, 13, 0, 0xff)    /* byte sent */                                                         \
	_(T, uint8_t, command, 1, 14, 0, 0xff) /* that waits for its parameter; 0: none */                             \
	_(T, uint8_t, id, 1, 15, ID_STANDARD, ID_EXPLORER)                                                             \
	_(T, uint8_t, rates, 3, 16, 0, 0xff) /* the last ones that were set, the last one first */                     \
	_(T, uint8_t, rate, 1, 17, RATE_RESET, 200)                                                                    \
	_(T, uint8_t, resolution, 1, 18, RESOLUTION_RESET, 3)                                                          \
	_(T, bool, doubled, 1, 19, 0, 1) /* scaling 2:1 */                                                             \
	_(T, bool, remote, 1, 20, 0, 1)                                                                                \
	_(T, bool, reporting, 1, 21, 0, 1)                                                                             \
	_(T, bool, wrapping, 1, 22, 0, 1)                                                                              \
	_(T, bool, refused, 1, 23, 0, 1)			  /* the last byte was wrong, too */                   \
	_(T, uint64_t, next_at, 1, 24, VTIME_NEVER, UINT64_MAX)	  /* no packet before */                               \
	_(T, uint64_t, tested_at, 1, 25, VTIME_NEVER, UINT64_MAX) /* when the self-test behind a reset ends */

#define ID_STANDARD	 0
#define ID_WHEEL	 3
#define ID_EXPLORER	 4
#define RATE_RESET	 100
#define RESOLUTION_RESET 2 /* 2^2 counts a millimeter */

#define BUTTON_LEFT   BIT(0)
#define BUTTON_RIGHT  BIT(1)
#define BUTTON_MIDDLE BIT(2)
#define BUTTON_SIDE   BIT(3)
#define BUTTON_EXTRA  BIT(4)
#define BUTTONS_FIRST 7 /* those in a packet's first byte */

#define FIRST_ALWAYS BIT(3)
#define FIRST_X_SIGN BIT(4)
#define FIRST_Y_SIGN BIT(5)
#define FIRST_X_FAR  BIT(6)
#define FIRST_Y_FAR  BIT(7)

#define FAR_X BIT(0)
#define FAR_Y BIT(1)

#define COMMAND_RESOLUTION 0xe8
#define COMMAND_READ	   0xeb
#define COMMAND_UNWRAP	   0xec
#define COMMAND_RATE	   0xf3
#define COMMAND_RESET	   0xff

struct mouse {
	struct ps2_device ps2;
	STATE_FIELDS(MOUSE_STATE)
	struct timer timer;
	struct input input;
	/* What belongs to one moment, between calls of complete(); host's side. */
	int32_t dx, dy, dz;
};

static vtime_t now(const struct mouse *m) { return clock_now(m->ps2.device.bus->clock); }

static void arm(struct mouse *m) { timer_arm(&m->timer, MIN(m->next_at, m->tested_at)); }

static int signed_of(uint16_t value) { return (int16_t)value; }

/* ---- packets ---- */

/* 2:1: what is fast gets faster. */
static int doubled(int counts)
{
	static const uint8_t slow[] = { 0, 1, 1, 3, 6, 9 };
	int size = abs(counts);

	size = size < (int)ARRAY_SIZE(slow) ? slow[size] : MIN(2 * size, MOST_COUNTS);
	return counts < 0 ? -size : size;
}

/* As much of it as a packet has room for is taken out. */
static int take_counts(uint16_t *counts, int most)
{
	int all = signed_of(*counts), taken = MAX(-most, MIN(all, most));

	*counts = (uint16_t)(all - taken);
	return taken;
}

/* The first event's, or that nothing happened. */
static void fill_packet(struct mouse *m, bool scale)
{
	bool any = m->events, wheel = m->id != ID_STANDARD;
	int x = any ? take_counts(&m->x[0], MOST_COUNTS) : 0, y = any ? take_counts(&m->y[0], MOST_COUNTS) : 0;
	int z = any && wheel ? take_counts(&m->z[0], 7) : 0;
	uint8_t far = any ? m->far[0] : 0;

	if (any)
		m->told = m->pressed[0];
	if (scale && m->doubled) {
		x = doubled(x);
		y = doubled(y);
	}
	m->packet[0] = (m->told & BUTTONS_FIRST) | FIRST_ALWAYS | (x < 0 ? FIRST_X_SIGN : 0) |
		       (y < 0 ? FIRST_Y_SIGN : 0) | (far & FAR_X ? FIRST_X_FAR : 0) | (far & FAR_Y ? FIRST_Y_FAR : 0);
	m->packet[1] = (uint8_t)x;
	m->packet[2] = (uint8_t)y;
	m->packet[3] = m->id == ID_EXPLORER ? (uint8_t)((z & 0xf) | (m->told & (BUTTON_SIDE | BUTTON_EXTRA)) << 1)
					    : (uint8_t)z;
	m->packet_count = wheel ? PACKET_SIZE : PACKET_SIZE - 1;
	if (!any)
		return;
	m->far[0] = 0;
	if (m->x[0] || m->y[0] || (wheel && m->z[0]))
		return; /* more of it in the next one */
	m->events--;
	memmove(m->x, m->x + 1, m->events * sizeof(m->x[0]));
	memmove(m->y, m->y + 1, m->events * sizeof(m->y[0]));
	memmove(m->z, m->z + 1, m->events * sizeof(m->z[0]));
	memmove(m->pressed, m->pressed + 1, m->events);
	memmove(m->far, m->far + 1, m->events);
}

/* In stream mode: when the last packet is gone, and not more often than the driver wants. */
static void report(struct mouse *m)
{
	if (!m->reporting || m->remote || m->wrapping || m->command || m->packet_count || !m->events ||
	    m->tested_at != VTIME_NEVER || m->next_at != VTIME_NEVER)
		return;
	fill_packet(m, true);
	m->next_at = now(m) + NS_PER_S / MAX(m->rate, 1);
	arm(m);
	ps2_ready(&m->ps2);
}

static void forget_events(struct mouse *m)
{
	m->events = 0;
	m->packet_count = 0;
	m->told = m->buttons;
}

static bool mouse_waits(const struct ps2_device *device)
{
	const struct mouse *m = (const struct mouse *)device;

	return m->replies || (m->packet_count && !m->command);
}

static bool mouse_take(struct ps2_device *device, uint8_t *byte)
{
	struct mouse *m = (struct mouse *)device;

	if (!ps2_shift(m->reply, &m->replies, byte) && !ps2_shift(m->packet, &m->packet_count, byte))
		return false;
	m->last = *byte;
	report(m);
	return true;
}

/* ---- the host's side ---- */

static void button(void *opaque, unsigned code, bool down)
{
	static const struct {
		uint16_t code;
		uint8_t bit;
	} buttons[] = {
		{ BTN_LEFT, BUTTON_LEFT }, { BTN_RIGHT, BUTTON_RIGHT }, { BTN_MIDDLE, BUTTON_MIDDLE },
		{ BTN_SIDE, BUTTON_SIDE }, { BTN_EXTRA, BUTTON_EXTRA },
	};
	struct mouse *m = opaque;

	lock_take(m->ps2.device.lock);
	for (unsigned n = 0; n < ARRAY_SIZE(buttons); n++)
		if (buttons[n].code == code)
			m->buttons = down ? m->buttons | buttons[n].bit : m->buttons & ~buttons[n].bit;
	lock_drop(m->ps2.device.lock);
}

static void move(void *opaque, int32_t x, int32_t y)
{
	struct mouse *m = opaque;

	m->dx = MAX(-FAR, MIN(m->dx + MAX(-FAR, MIN(x, FAR)), FAR));
	m->dy = MAX(-FAR, MIN(m->dy - MAX(-FAR, MIN(y, FAR)), FAR));
}

static void wheel(void *opaque, int32_t up)
{
	struct mouse *m = opaque;

	m->dz = MAX(-FAR, MIN(m->dz - MAX(-FAR, MIN(up, FAR)), FAR));
}

/* True: some were too many. */
static bool add_counts(uint16_t *to, int32_t counts)
{
	int32_t sum = signed_of(*to) + counts, kept = MAX(-FAR, MIN(sum, FAR));

	*to = (uint16_t)kept;
	return kept != sum;
}

static void add_event(struct mouse *m)
{
	unsigned n = m->events ? m->events - 1u : 0;

	if (!m->events || (m->pressed[n] != m->buttons && m->events < EVENTS)) {
		n = m->events++;
		m->x[n] = m->y[n] = m->z[n] = 0;
		m->far[n] = 0;
	}
	m->pressed[n] = m->buttons;
	if (add_counts(&m->x[n], m->dx))
		m->far[n] |= FAR_X;
	if (add_counts(&m->y[n], m->dy))
		m->far[n] |= FAR_Y;
	add_counts(&m->z[n], m->dz);
}

static void complete(void *opaque)
{
	struct mouse *m = opaque;
	bool happened;

	lock_take(m->ps2.device.lock);
	happened = m->dx || m->dy || (m->dz && m->id != ID_STANDARD) ||
		   m->buttons != (m->events ? m->pressed[m->events - 1] : m->told);
	if (happened && (m->reporting || m->remote) && m->tested_at == VTIME_NEVER)
		add_event(m);
	m->dx = m->dy = m->dz = 0;
	report(m);
	lock_drop(m->ps2.device.lock);
}

/* ---- commands ---- */

static void reply(struct mouse *m, uint8_t byte)
{
	if (m->replies == REPLY_SIZE)
		return;
	m->reply[m->replies++] = byte;
	ps2_ready(&m->ps2);
}

static void set_defaults(struct mouse *m)
{
	m->rate = RATE_RESET;
	m->resolution = RESOLUTION_RESET;
	m->doubled = m->remote = m->reporting = m->wrapping = false;
	memset(m->rates, 0, sizeof(m->rates));
	forget_events(m);
}

static void tell_status(struct mouse *m)
{
	reply(m, (m->remote ? BIT(6) : 0) | (m->reporting ? BIT(5) : 0) | (m->doubled ? BIT(4) : 0) |
			 (m->buttons & BUTTON_LEFT ? BIT(2) : 0) | (m->buttons & BUTTON_MIDDLE ? BIT(1) : 0) |
			 (m->buttons & BUTTON_RIGHT ? BIT(0) : 0));
	reply(m, m->resolution);
	reply(m, m->rate);
}

/* A wheel shows itself to who sets these one after the other, which nobody does by chance. */
static void set_rate(struct mouse *m, uint8_t rate)
{
	m->rate = rate;
	m->rates[2] = m->rates[1];
	m->rates[1] = m->rates[0];
	m->rates[0] = rate;
	if (m->rates[2] == 200 && m->rates[1] == 100 && rate == 80)
		m->id = ID_WHEEL;
	else if (m->rates[2] == 200 && m->rates[1] == 200 && rate == 80)
		m->id = ID_EXPLORER;
}

static bool is_rate(uint8_t rate)
{
	static const uint8_t rates[] = { 10, 20, 40, 60, 80, 100, 200 };

	return memchr(rates, rate, sizeof(rates));
}

static void refuse(struct mouse *m)
{
	reply(m, m->refused ? PS2_ERROR : PS2_RESEND);
	m->refused = true;
}

static void parameter(struct mouse *m, uint8_t command, uint8_t byte)
{
	if (command == COMMAND_RESOLUTION ? byte > 3 : !is_rate(byte)) {
		m->command = m->refused ? 0 : command; /* once more */
		refuse(m);
		return;
	}
	m->refused = false;
	reply(m, PS2_ACKNOWLEDGE);
	if (command == COMMAND_RESOLUTION)
		m->resolution = byte;
	else
		set_rate(m, byte);
}

static void reset_by_command(struct mouse *m)
{
	set_defaults(m);
	m->id = ID_STANDARD;
	m->tested_at = now(m) + PS2_SELF_TEST_NS;
	arm(m);
}

static void command(struct mouse *m, uint8_t byte)
{
	if (byte == 0xfe) {
		reply(m, m->last);
		return;
	}
	if (!(byte >= 0xe6 && byte <= 0xec) && byte != 0xee && byte != 0xf0 && !(byte >= 0xf2 && byte <= 0xf6) &&
	    byte != COMMAND_RESET) {
		refuse(m);
		return;
	}
	m->refused = false;
	reply(m, PS2_ACKNOWLEDGE);
	switch (byte) {
	case 0xe6:
	case 0xe7: m->doubled = byte & 1; break;
	case COMMAND_RESOLUTION:
	case COMMAND_RATE: m->command = byte; break;
	case 0xe9: tell_status(m); break;
	case 0xea: m->remote = false; break;
	case COMMAND_READ: fill_packet(m, false); break;
	case 0xee: m->wrapping = true; break;
	case 0xf0:
		m->remote = true;
		forget_events(m);
		break;
	case 0xf2: reply(m, m->id); break;
	case 0xf4:
		m->reporting = true;
		forget_events(m);
		break;
	case 0xf5:
		m->reporting = false;
		forget_events(m);
		break;
	case 0xf6: set_defaults(m); break;
	case COMMAND_RESET: reset_by_command(m); break;
	default: break; /* COMMAND_UNWRAP: it is in no wrap mode */
	}
}

/* What was not fetched of the last answer, and of a packet, is lost. */
static void mouse_write(struct ps2_device *device, uint8_t byte)
{
	struct mouse *m = (struct mouse *)device;
	uint8_t waiting = m->command;

	m->replies = 0;
	m->packet_count = 0;
	m->command = 0;
	if (m->wrapping && byte != COMMAND_UNWRAP && byte != COMMAND_RESET) {
		reply(m, byte);
	} else if (m->wrapping && byte == COMMAND_UNWRAP) {
		m->wrapping = false;
		reply(m, PS2_ACKNOWLEDGE);
	} else if (waiting && byte < 0xe6) {
		parameter(m, waiting, byte);
	} else {
		command(m, byte);
	}
	report(m);
	ps2_ready(device);
}

static void due(void *opaque)
{
	struct mouse *m = opaque;

	if (m->tested_at <= now(m)) {
		m->tested_at = VTIME_NEVER;
		reply(m, PS2_SELF_TESTED);
		reply(m, m->id);
	}
	if (m->next_at <= now(m))
		m->next_at = VTIME_NEVER;
	report(m);
	arm(m);
}

/* ---- life ---- */

static const struct ps2_ops mouse_ps2_ops = { .write = mouse_write, .take = mouse_take, .waits = mouse_waits };
static const struct input_ops mouse_input_ops = {
	.button = button, .move = move, .wheel = wheel, .complete = complete
};

static void mouse_reset(struct device *device) { arm((struct mouse *)device); }

static void mouse_destroy(struct device *device)
{
	struct mouse *m = (struct mouse *)device;

	input_remove(device->bus->display, &m->input);
	timer_disarm(&m->timer);
	free(m);
}

static int mouse_loaded(void *object, uint16_t version, struct error *err)
{
	const struct mouse *m = object;

	(void)version;
	for (unsigned n = 0; n < EVENTS; n++)
		if (abs(signed_of(m->x[n])) > FAR || abs(signed_of(m->y[n])) > FAR || abs(signed_of(m->z[n])) > FAR)
			return error_set(err, EINVAL, "fields 'x', 'y', 'z' are %d, %d, %d; expected at most %d counts",
					 signed_of(m->x[n]), signed_of(m->y[n]), signed_of(m->z[n]), FAR);
	return 0;
}

STATE_DESC(mouse_state_desc, "ps2-mouse", 1, struct mouse, MOUSE_STATE, .loaded = mouse_loaded);

static const struct device_ops mouse_ops = {
	.state = &mouse_state_desc, .reset = mouse_reset, .attach = mouse_reset, .destroy = mouse_destroy
};

int ps2_mouse_create(struct kbc *kbc, struct error *err)
{
	struct mouse *m = calloc(1, sizeof(*m));

	if (!m)
		return error_set(err, ENOMEM, "out of memory for the mouse");
	ps2_init(&m->ps2, kbc, 1, "ps2-mouse", &mouse_ops, &mouse_ps2_ops);
	device_timer_init(&m->ps2.device, &m->timer, "ps2-mouse", due, m);
	m->input = (struct input){ .kind = INPUT_RELATIVE, .ops = &mouse_input_ops, .opaque = m };
	input_add(m->ps2.device.bus->display, &m->input);
	return 0;
}
