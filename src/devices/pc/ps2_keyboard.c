/*
 * The keyboard of a PS/2 (IBM PS/2 Technical Reference, "Keyboards (101- and 102-Key)"): scan code sets 1, 2 and 3, lamps, typematic repetition by guest
 * time, the commands. What is typed waits in two places: keys on the host's side for as long as the keyboard's own buffer of 16 bytes is full, and
 * bytes there until the controller fetches them.
 */
#include "devices/pc/ps2.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>

/* ---- keys ---- */

#define E0 0x100 /* behind a byte 0xe0 */

/* _(key, code in sets 2 and 1, in set 3; 0: it has none there). That of set 1 is what the controller makes of set 2's. */
#define KEYS(_)                                                                                                        \
	_(ESC, 0x76, 0x08)                                                                                             \
	_(1, 0x16, 0x16)                                                                                               \
	_(2, 0x1e, 0x1e)                                                                                               \
	_(3, 0x26, 0x26)                                                                                               \
	_(4, 0x25, 0x25)                                                                                               \
	_(5, 0x2e, 0x2e)                                                                                               \
	_(6, 0x36, 0x36)                                                                                               \
	_(7, 0x3d, 0x3d)                                                                                               \
	_(8, 0x3e, 0x3e)                                                                                               \
	_(9, 0x46, 0x46)                                                                                               \
	_(0, 0x45, 0x45)                                                                                               \
	_(MINUS, 0x4e, 0x4e)                                                                                           \
	_(EQUAL, 0x55, 0x55)                                                                                           \
	_(BACKSPACE, 0x66, 0x66)                                                                                       \
	_(TAB, 0x0d, 0x0d)                                                                                             \
	_(Q, 0x15, 0x15)                                                                                               \
	_(W, 0x1d, 0x1d)                                                                                               \
	_(E, 0x24, 0x24)                                                                                               \
	_(R, 0x2d, 0x2d)                                                                                               \
	_(T, 0x2c, 0x2c)                                                                                               \
	_(Y, 0x35, 0x35)                                                                                               \
	_(U, 0x3c, 0x3c)                                                                                               \
	_(I, 0x43, 0x43)                                                                                               \
	_(O, 0x44, 0x44)                                                                                               \
	_(P, 0x4d, 0x4d)                                                                                               \
	_(LEFTBRACE, 0x54, 0x54)                                                                                       \
	_(RIGHTBRACE, 0x5b, 0x5b)                                                                                      \
	_(ENTER, 0x5a, 0x5a)                                                                                           \
	_(LEFTCTRL, 0x14, 0x11)                                                                                        \
	_(A, 0x1c, 0x1c)                                                                                               \
	_(S, 0x1b, 0x1b)                                                                                               \
	_(D, 0x23, 0x23)                                                                                               \
	_(F, 0x2b, 0x2b)                                                                                               \
	_(G, 0x34, 0x34)                                                                                               \
	_(H, 0x33, 0x33)                                                                                               \
	_(J, 0x3b, 0x3b)                                                                                               \
	_(K, 0x42, 0x42)                                                                                               \
	_(L, 0x4b, 0x4b)                                                                                               \
	_(SEMICOLON, 0x4c, 0x4c)                                                                                       \
	_(APOSTROPHE, 0x52, 0x52)                                                                                      \
	_(GRAVE, 0x0e, 0x0e)                                                                                           \
	_(LEFTSHIFT, 0x12, 0x12)                                                                                       \
	_(BACKSLASH, 0x5d, 0x5c)                                                                                       \
	_(Z, 0x1a, 0x1a)                                                                                               \
	_(X, 0x22, 0x22)                                                                                               \
	_(C, 0x21, 0x21)                                                                                               \
	_(V, 0x2a, 0x2a)                                                                                               \
	_(B, 0x32, 0x32)                                                                                               \
	_(N, 0x31, 0x31)                                                                                               \
	_(M, 0x3a, 0x3a)                                                                                               \
	_(COMMA, 0x41, 0x41)                                                                                           \
	_(DOT, 0x49, 0x49)                                                                                             \
	_(SLASH, 0x4a, 0x4a)                                                                                           \
	_(RIGHTSHIFT, 0x59, 0x59)                                                                                      \
	_(KPASTERISK, 0x7c, 0x7e)                                                                                      \
	_(LEFTALT, 0x11, 0x19)                                                                                         \
	_(SPACE, 0x29, 0x29)                                                                                           \
	_(CAPSLOCK, 0x58, 0x14)                                                                                        \
	_(F1, 0x05, 0x07)                                                                                              \
	_(F2, 0x06, 0x0f)                                                                                              \
	_(F3, 0x04, 0x17)                                                                                              \
	_(F4, 0x0c, 0x1f)                                                                                              \
	_(F5, 0x03, 0x27)                                                                                              \
	_(F6, 0x0b, 0x2f)                                                                                              \
	_(F7, 0x83, 0x37)                                                                                              \
	_(F8, 0x0a, 0x3f)                                                                                              \
	_(F9, 0x01, 0x47)                                                                                              \
	_(F10, 0x09, 0x4f)                                                                                             \
	_(F11, 0x78, 0x56)                                                                                             \
	_(F12, 0x07, 0x5e)                                                                                             \
	_(NUMLOCK, 0x77, 0x76)                                                                                         \
	_(SCROLLLOCK, 0x7e, 0x5f)                                                                                      \
	_(KP7, 0x6c, 0x6c)                                                                                             \
	_(KP8, 0x75, 0x75)                                                                                             \
	_(KP9, 0x7d, 0x7d)                                                                                             \
	_(KPMINUS, 0x7b, 0x84)                                                                                         \
	_(KP4, 0x6b, 0x6b)                                                                                             \
	_(KP5, 0x73, 0x73)                                                                                             \
	_(KP6, 0x74, 0x74)                                                                                             \
	_(KPPLUS, 0x79, 0x7c)                                                                                          \
	_(KP1, 0x69, 0x69)                                                                                             \
	_(KP2, 0x72, 0x72)                                                                                             \
	_(KP3, 0x7a, 0x7a)                                                                                             \
	_(KP0, 0x70, 0x70)                                                                                             \
	_(KPDOT, 0x71, 0x71)                                                                                           \
	_(102ND, 0x61, 0x13)                                                                                           \
	_(KPENTER, E0 | 0x5a, 0x79)                                                                                    \
	_(RIGHTCTRL, E0 | 0x14, 0x58)                                                                                  \
	_(KPSLASH, E0 | 0x4a, 0x77)                                                                                    \
	_(SYSRQ, E0 | 0x7c, 0x57)                                                                                      \
	_(RIGHTALT, E0 | 0x11, 0x39)                                                                                   \
	_(HOME, E0 | 0x6c, 0x6e)                                                                                       \
	_(UP, E0 | 0x75, 0x63)                                                                                         \
	_(PAGEUP, E0 | 0x7d, 0x6f)                                                                                     \
	_(LEFT, E0 | 0x6b, 0x61)                                                                                       \
	_(RIGHT, E0 | 0x74, 0x6a)                                                                                      \
	_(END, E0 | 0x69, 0x65)                                                                                        \
	_(DOWN, E0 | 0x72, 0x60)                                                                                       \
	_(PAGEDOWN, E0 | 0x7a, 0x6d)                                                                                   \
	_(INSERT, E0 | 0x70, 0x67)                                                                                     \
	_(DELETE, E0 | 0x71, 0x64)                                                                                     \
	_(PAUSE, E0 | 0x7e, 0x62) /* with Ctrl */                                                                      \
	_(LEFTMETA, E0 | 0x1f, 0x8b)                                                                                   \
	_(RIGHTMETA, E0 | 0x27, 0x8c)                                                                                  \
	_(COMPOSE, E0 | 0x2f, 0x8d)                                                                                    \
	_(RO, 0x51, 0x51)                                                                                              \
	_(YEN, 0x6a, 0x5d)                                                                                             \
	_(KATAKANAHIRAGANA, 0x13, 0x87)                                                                                \
	_(HENKAN, 0x64, 0x86)                                                                                          \
	_(MUHENKAN, 0x67, 0x85)                                                                                        \
	_(KPCOMMA, 0x6d, 0)                                                                                            \
	_(KPEQUAL, 0x0f, 0)                                                                                            \
	_(F13, 0x08, 0)                                                                                                \
	_(F14, 0x10, 0)                                                                                                \
	_(F15, 0x18, 0)                                                                                                \
	_(F16, 0x20, 0)                                                                                                \
	_(F17, 0x28, 0)                                                                                                \
	_(F18, 0x30, 0)                                                                                                \
	_(F19, 0x38, 0)                                                                                                \
	_(F20, 0x40, 0)                                                                                                \
	_(F21, 0x48, 0)                                                                                                \
	_(F22, 0x50, 0)                                                                                                \
	_(F23, 0x57, 0)                                                                                                \
	_(F24, 0x5f, 0)                                                                                                \
	_(MUTE, E0 | 0x23, 0)                                                                                          \
	_(VOLUMEDOWN, E0 | 0x21, 0)                                                                                    \
	_(VOLUMEUP, E0 | 0x32, 0)                                                                                      \
	_(PLAYPAUSE, E0 | 0x34, 0)                                                                                     \
	_(STOPCD, E0 | 0x3b, 0)                                                                                        \
	_(NEXTSONG, E0 | 0x4d, 0)                                                                                      \
	_(PREVIOUSSONG, E0 | 0x15, 0)                                                                                  \
	_(MAIL, E0 | 0x48, 0)                                                                                          \
	_(CALC, E0 | 0x2b, 0)                                                                                          \
	_(HOMEPAGE, E0 | 0x3a, 0)                                                                                      \
	_(SEARCH, E0 | 0x10, 0)                                                                                        \
	_(BACK, E0 | 0x38, 0)                                                                                          \
	_(FORWARD, E0 | 0x30, 0)                                                                                       \
	_(REFRESH, E0 | 0x20, 0)                                                                                       \
	_(STOP, E0 | 0x28, 0)                                                                                          \
	_(BOOKMARKS, E0 | 0x18, 0)                                                                                     \
	_(COMPUTER, E0 | 0x40, 0)                                                                                      \
	_(POWER, E0 | 0x37, 0)                                                                                         \
	_(SLEEP, E0 | 0x3f, 0)                                                                                         \
	_(WAKEUP, E0 | 0x5e, 0)

#define KEY_COUNT 256 /* keys of a keyboard have smaller codes */

static const struct {
	uint16_t set_2;
	uint8_t set_3;
} keys[KEY_COUNT] = {
#define _(name, set_2, set_3) [KEY_##name] = { set_2, set_3 },
	KEYS(_)
#undef _
};

/* What a key of set 3 sends besides the code when it is pressed, as set by commands. */
#define TYPE_REPEATS  BIT(0)
#define TYPE_RELEASES BIT(1)

/* Modifiers that change what Print Screen and Pause send; by key. */
#define MODIFIERS(_)                                                                                                   \
	_(LEFTSHIFT)                                                                                                   \
	_(RIGHTSHIFT)                                                                                                  \
	_(LEFTCTRL)                                                                                                    \
	_(RIGHTCTRL)                                                                                                   \
	_(LEFTALT)                                                                                                     \
	_(RIGHTALT)
enum modifier {
#define _(name) MODIFIER_##name,
	MODIFIERS(_)
#undef _
		MODIFIER_COUNT
};
#define SHIFTS (BIT(MODIFIER_LEFTSHIFT) | BIT(MODIFIER_RIGHTSHIFT))
#define CTRLS  (BIT(MODIFIER_LEFTCTRL) | BIT(MODIFIER_RIGHTCTRL))
#define ALTS   (BIT(MODIFIER_LEFTALT) | BIT(MODIFIER_RIGHTALT))

/* ---- the keyboard ---- */

#define BUFFER_SIZE    16
#define REPLY_SIZE     4
#define TYPED_SIZE     128
#define KEY_RELEASED   0x8000 /* in typed[] */
#define OVERRUN	       0      /* there, instead of a key: more was typed than all places have room for */
#define RATE_RESET     0x2b   /* 10.9 a second, behind 500 ms */
#define LONGEST_CODE   8
#define SET_3_KEYS     256
#define KEYBOARD_ID_0  0xab
#define KEYBOARD_ID_1  0x83
#define FIRST_COMMAND  0xed
#define COMMAND_LAMPS  0xed
#define COMMAND_SET    0xf0
#define COMMAND_RATE   0xf3
#define COMMAND_RESET  0xff
#define COMMAND_RESEND 0xfe
#define SET_RESET      2

#define KEYBOARD_STATE(_, T)                                                                                           \
	_(T, uint8_t, buffer, 16, 1, 0, 0xff)                                                                          \
	_(T, uint8_t, buffered, 1, 2, 0, BUFFER_SIZE)                                                                  \
	_(T, uint8_t, reply, 4, 3, 0, 0xff) /* answers to commands come first */                                       \
	_(T, uint8_t, replies, 1, 4, 0, REPLY_SIZE)                                                                    \
	_(T, uint16_t, typed, 128, 5, 0, KEY_RELEASED | (KEY_COUNT - 1))                                               \
	_(T, uint8_t, typed_count, 1, 6, 0, TYPED_SIZE)                                                                \
	_(T, uint8_t, last, 1, 7, 0, 0xff)    /* byte sent */                                                          \
	_(T, uint8_t, command, 1, 8, 0, 0xff) /* that waits for its parameter; 0: none */                              \
	_(T, uint8_t, set, 1, 9, SET_RESET, 3)                                                                         \
	_(T, bool, scanning, 1, 10, true, 1)                                                                           \
	_(T, uint8_t, rate, 1, 12, RATE_RESET, 0x7f)                                                                   \
	_(T, uint8_t, lamps, 1, 13, 0, 7)                                                                              \
	_(T, uint8_t, modifiers, 1, 14, 0, (1 << MODIFIER_COUNT) - 1)                                                  \
	_(T, uint8_t, repeated, 1, 15, 0, 0xff) /* key that is down; 0: none */                                        \
	_(T, uint64_t, repeat_at, 1, 16, VTIME_NEVER, UINT64_MAX)                                                      \
	_(T, uint64_t, tested_at, 1, 17, VTIME_NEVER, UINT64_MAX) /* when the self-test behind a reset ends */         \
	_(T, uint8_t, types, 256, 18, 0, TYPE_REPEATS | TYPE_RELEASES)

struct keyboard {
	struct ps2_device ps2;
	STATE_FIELDS(KEYBOARD_STATE)
	struct timer timer;
	struct input input;
};

static vtime_t now(const struct keyboard *k) { return clock_now(k->ps2.device.bus->clock); }

static void arm(struct keyboard *k) { timer_arm(&k->timer, MIN(k->repeat_at, k->tested_at)); }

static void stop_repeating(struct keyboard *k)
{
	k->repeated = 0;
	k->repeat_at = VTIME_NEVER;
	arm(k);
}

/* Bits 5 and 6: a delay of 250 ms and multiples; the others: (8 + A) * 2^B * 1/240 s between repetitions. */
static uint64_t repeat_delay(const struct keyboard *k) { return ((k->rate >> 5 & 3) + 1) * (NS_PER_S / 4); }
static uint64_t repeat_period(const struct keyboard *k)
{
	return (8 + (k->rate & 7)) * (1u << (k->rate >> 3 & 3)) * (NS_PER_S / 240);
}

/* ---- codes ---- */

struct code {
	uint8_t bytes[LONGEST_CODE];
	unsigned count;
};

static void add_byte(struct code *c, uint8_t byte) { c->bytes[c->count++] = byte; }

/* One of set 2, or of set 1. */
static void add_code(const struct keyboard *k, struct code *c, unsigned code, bool down)
{
	if (code & E0)
		add_byte(c, 0xe0);
	if (k->set == 1) {
		add_byte(c, ps2_translate((uint8_t)code) | (down ? 0 : 0x80));
		return;
	}
	if (!down)
		add_byte(c, 0xf0);
	add_byte(c, (uint8_t)code);
}

/* With Alt it is another key; alone it is pressed together with a shift that old programs want to see. */
static void print_screen(const struct keyboard *k, struct code *c, bool down)
{
	if (k->modifiers & ALTS) {
		add_code(k, c, 0x84, down);
	} else if (k->modifiers & (SHIFTS | CTRLS)) {
		add_code(k, c, E0 | 0x7c, down);
	} else if (down) {
		add_code(k, c, E0 | 0x12, true);
		add_code(k, c, E0 | 0x7c, true);
	} else {
		add_code(k, c, E0 | 0x7c, false);
		add_code(k, c, E0 | 0x12, false);
	}
}

/* All of it when it is pressed. With Ctrl it is Break. */
static void pause_key(const struct keyboard *k, struct code *c, bool down)
{
	static const uint8_t set_1[] = { 0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5 };
	static const uint8_t set_2[] = { 0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77 };

	if (!down)
		return;
	if (k->modifiers & CTRLS) {
		add_code(k, c, E0 | 0x7e, true);
		add_code(k, c, E0 | 0x7e, false);
	} else if (k->set == 1) {
		memcpy(c->bytes, set_1, sizeof(set_1));
		c->count = sizeof(set_1);
	} else {
		memcpy(c->bytes, set_2, sizeof(set_2));
		c->count = sizeof(set_2);
	}
}

static struct code code_of(const struct keyboard *k, unsigned key, bool down)
{
	struct code c = { .count = 0 };

	if (key == OVERRUN) {
		add_byte(&c, k->set == 1 ? 0xff : 0x00);
	} else if (k->set == 3) {
		uint8_t code = keys[key].set_3;

		if (code && (down || (k->types[code] & TYPE_RELEASES))) {
			if (!down)
				add_byte(&c, 0xf0);
			add_byte(&c, code);
		}
	} else if (key == KEY_SYSRQ) {
		print_screen(k, &c, down);
	} else if (key == KEY_PAUSE) {
		pause_key(k, &c, down);
	} else if (keys[key].set_2) {
		add_code(k, &c, keys[key].set_2, down);
	}
	return c;
}

/* ---- buffers ---- */

static bool has_room(const struct keyboard *k, const struct code *c) { return k->buffered + c->count <= BUFFER_SIZE; }

static void store(struct keyboard *k, const struct code *c)
{
	memcpy(k->buffer + k->buffered, c->bytes, c->count);
	k->buffered += (uint8_t)c->count;
	ps2_ready(&k->ps2);
}

static bool repeats(const struct keyboard *k, unsigned key)
{
	if (k->set == 3)
		return k->types[keys[key].set_3] & TYPE_REPEATS;
	return key != KEY_PAUSE;
}

static void note_modifier(struct keyboard *k, unsigned key, bool down)
{
	static const uint8_t modifiers[MODIFIER_COUNT] = {
#define _(name) [MODIFIER_##name] = KEY_##name,
		MODIFIERS(_)
#undef _
	};

	for (unsigned n = 0; n < MODIFIER_COUNT; n++)
		if (modifiers[n] == key)
			k->modifiers = down ? k->modifiers | 1 << n : k->modifiers & ~(1 << n);
}

/* The key's code is in the buffer. */
static void pressed(struct keyboard *k, unsigned key, bool down)
{
	note_modifier(k, key, down);
	if (down && key != OVERRUN && repeats(k, key)) {
		k->repeated = (uint8_t)key;
		k->repeat_at = now(k) + repeat_delay(k);
		arm(k);
	} else if (down || key == k->repeated) {
		stop_repeating(k);
	}
}

/* Keys that wait get into the buffer while it has room. */
static void type(struct keyboard *k)
{
	unsigned n;

	for (n = 0; n < k->typed_count; n++) {
		unsigned key = k->typed[n] & (KEY_COUNT - 1);
		bool down = !(k->typed[n] & KEY_RELEASED);
		struct code c = code_of(k, key, down);

		if (!has_room(k, &c))
			break;
		store(k, &c);
		pressed(k, key, down);
	}
	k->typed_count -= (uint8_t)n;
	memmove(k->typed, k->typed + n, k->typed_count * sizeof(k->typed[0]));
}

static void clear(struct keyboard *k)
{
	k->buffered = 0;
	k->typed_count = 0;
	stop_repeating(k);
}

static void add_typed(struct keyboard *k, unsigned code, bool down)
{
	if (k->typed_count == TYPED_SIZE - 1)
		code = OVERRUN;
	if (k->typed_count < TYPED_SIZE)
		k->typed[k->typed_count++] = (uint16_t)(code | (down ? 0 : KEY_RELEASED));
	if (k->typed_count == TYPED_SIZE)
		stop_repeating(k); /* its end may be what is lost */
	type(k);
}

static void key(void *opaque, unsigned code, bool down)
{
	struct keyboard *k = opaque;

	if (code >= KEY_COUNT || !(keys[code].set_2 || keys[code].set_3))
		return;
	lock_take(k->ps2.device.lock);
	if (k->scanning && k->tested_at == VTIME_NEVER)
		add_typed(k, code, down);
	else
		note_modifier(k, code, down);
	lock_drop(k->ps2.device.lock);
}

static bool keyboard_waits(const struct ps2_device *device)
{
	const struct keyboard *k = (const struct keyboard *)device;

	return k->replies || (k->buffered && !k->command);
}

static bool keyboard_take(struct ps2_device *device, uint8_t *byte)
{
	struct keyboard *k = (struct keyboard *)device;

	if (!ps2_shift(k->reply, &k->replies, byte) && !ps2_shift(k->buffer, &k->buffered, byte))
		return false;
	k->last = *byte;
	type(k);
	return true;
}

/* ---- time ---- */

static void repeat(struct keyboard *k)
{
	struct code c = code_of(k, k->repeated, true);

	if (has_room(k, &c))
		store(k, &c);
	k->repeat_at = now(k) + repeat_period(k);
}

static void reply(struct keyboard *k, uint8_t byte)
{
	if (k->replies == REPLY_SIZE)
		return;
	k->reply[k->replies++] = byte;
	ps2_ready(&k->ps2);
}

static void due(void *opaque)
{
	struct keyboard *k = opaque;

	if (k->tested_at <= now(k)) {
		k->tested_at = VTIME_NEVER;
		reply(k, PS2_SELF_TESTED);
	}
	if (k->repeat_at <= now(k))
		repeat(k);
	arm(k);
}

/* ---- commands ---- */

static void set_lamps(struct keyboard *k, uint8_t lamps)
{
	k->lamps = lamps & 7;
	if (k->ps2.device.bus->display)
		display_set_lamps(k->ps2.device.bus->display, k->lamps);
}

/* Keys of set 3: those of the typewriter repeat, modifiers tell of their release, others do neither. */
static void set_default_types(struct keyboard *k)
{
	static const uint8_t releases[] = { 0x11, 0x12, 0x14, 0x19, 0x59 };
	static const uint8_t silent[] = { 0x08, 0x58, 0x39, 0x65, 0x67, 0x6d, 0x6e, 0x6f };
	static const uint8_t repeating[] = { 0x60, 0x61, 0x63, 0x64, 0x6a, 0x7c };

	memset(k->types, 0, sizeof(k->types));
	for (unsigned code = 0x0d; code <= 0x66; code++)
		if ((code & 7) != 7 || code == 0x0d)
			k->types[code] = TYPE_REPEATS;
	for (unsigned n = 0; n < ARRAY_SIZE(silent); n++)
		k->types[silent[n]] = 0;
	for (unsigned n = 0; n < ARRAY_SIZE(repeating); n++)
		k->types[repeating[n]] = TYPE_REPEATS;
	for (unsigned n = 0; n < ARRAY_SIZE(releases); n++)
		k->types[releases[n]] = TYPE_RELEASES;
}

static void set_defaults(struct keyboard *k)
{
	k->set = SET_RESET;
	k->rate = RATE_RESET;
	set_default_types(k);
	clear(k);
}

/* Commands 0xf7 to 0xfa, for all keys, and 0xfb to 0xfd, for those that follow. */
static uint8_t type_of_command(uint8_t command)
{
	switch (command) {
	case 0xf7:
	case 0xfb: return TYPE_REPEATS;
	case 0xf8:
	case 0xfc: return TYPE_RELEASES;
	case 0xf9:
	case 0xfd: return 0;
	default: return TYPE_REPEATS | TYPE_RELEASES;
	}
}

static void choose_set(struct keyboard *k, uint8_t set)
{
	if (set > 3) {
		reply(k, PS2_RESEND);
		return;
	}
	reply(k, PS2_ACKNOWLEDGE);
	if (!set) {
		reply(k, k->set);
		return;
	}
	k->set = set;
	clear(k);
}

static void parameter(struct keyboard *k, uint8_t command, uint8_t byte)
{
	switch (command) {
	case COMMAND_SET: choose_set(k, byte); return;
	case COMMAND_LAMPS: set_lamps(k, byte); break;
	case COMMAND_RATE: k->rate = byte & 0x7f; break;
	default:
		k->types[byte] = type_of_command(command);
		k->command = command; /* more keys may follow */
		break;
	}
	reply(k, PS2_ACKNOWLEDGE);
}

static void reset_by_command(struct keyboard *k)
{
	set_defaults(k);
	set_lamps(k, 0);
	k->scanning = true;
	k->tested_at = now(k) + PS2_SELF_TEST_NS;
	arm(k);
}

static void command(struct keyboard *k, uint8_t byte)
{
	switch (byte) {
	case COMMAND_RESEND: reply(k, k->last); return;
	case 0xee: reply(k, 0xee); return; /* echo */
	case COMMAND_LAMPS:
	case COMMAND_SET:
	case COMMAND_RATE:
	case 0xfb ... 0xfd: k->command = byte; break;
	case 0xf2:
		reply(k, PS2_ACKNOWLEDGE);
		reply(k, KEYBOARD_ID_0);
		reply(k, KEYBOARD_ID_1);
		return;
	case 0xf4:
		clear(k);
		k->scanning = true;
		break;
	case 0xf5:
		set_defaults(k);
		k->scanning = false;
		break;
	case 0xf6: set_defaults(k); break;
	case 0xf7 ... 0xfa: memset(k->types, type_of_command(byte), sizeof(k->types)); break;
	case COMMAND_RESET: reset_by_command(k); break;
	default: reply(k, PS2_RESEND); return;
	}
	reply(k, PS2_ACKNOWLEDGE);
}

/* What was not fetched of the last answer is lost. */
static void keyboard_write(struct ps2_device *device, uint8_t byte)
{
	struct keyboard *k = (struct keyboard *)device;
	uint8_t waiting = k->command;

	k->replies = 0;
	k->command = 0;
	if (waiting && byte < FIRST_COMMAND)
		parameter(k, waiting, byte);
	else
		command(k, byte);
	ps2_ready(device);
}

/* ---- life ---- */

static const struct ps2_ops keyboard_ps2_ops = { .write = keyboard_write,
						 .take = keyboard_take,
						 .waits = keyboard_waits };
static const struct input_ops keyboard_input_ops = { .key = key };

static void keyboard_reset(struct device *device)
{
	struct keyboard *k = (struct keyboard *)device;

	set_defaults(k);
	set_lamps(k, 0);
}

static void keyboard_attach(struct device *device)
{
	struct keyboard *k = (struct keyboard *)device;

	set_lamps(k, k->lamps);
	arm(k);
}

static void keyboard_destroy(struct device *device)
{
	struct keyboard *k = (struct keyboard *)device;

	input_remove(device->bus->display, &k->input);
	timer_disarm(&k->timer);
	free(k);
}

static int keyboard_loaded(void *object, uint16_t version, struct error *err)
{
	const struct keyboard *k = object;

	(void)version;
	if (!k->set)
		return error_set(err, EINVAL, "field 'set' is 0; a keyboard's scan code set is 1, 2 or 3");
	return 0;
}

STATE_DESC(keyboard_state_desc, "ps2-keyboard", 1, struct keyboard, KEYBOARD_STATE, .loaded = keyboard_loaded);

static const struct device_ops keyboard_ops = {
	.state = &keyboard_state_desc, .reset = keyboard_reset, .attach = keyboard_attach, .destroy = keyboard_destroy
};

int ps2_keyboard_create(struct kbc *kbc, struct error *err)
{
	struct keyboard *k = calloc(1, sizeof(*k));

	if (!k)
		return error_set(err, ENOMEM, "out of memory for the keyboard");
	ps2_init(&k->ps2, kbc, 0, "ps2-keyboard", &keyboard_ops, &keyboard_ps2_ops);
	device_timer_init(&k->ps2.device, &k->timer, "ps2-keyboard", due, k);
	k->input = (struct input){ .kind = INPUT_KEYS, .ops = &keyboard_input_ops, .opaque = k };
	keyboard_reset(&k->ps2.device);
	input_add(k->ps2.device.bus->display, &k->input);
	return 0;
}
