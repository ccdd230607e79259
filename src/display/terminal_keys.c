/*
 * Bytes of a terminal to keys: UTF-8, control characters, and the sequences of ECMA-48's kind that xterm, the Linux console and their like send (xterm's
 * ctlseqs, console_codes(4)). Alt is an ESC in front.
 */
#include "display/terminal_keys.h"

#include <linux/input-event-codes.h>
#include <stdlib.h>

#define ESC 0x1b

enum outcome { MORE, KEY, NOTHING };

/* Modifiers of a sequence's second number, less one. */
#define SHIFT BIT(0)
#define ALT   BIT(1)
#define CTRL  BIT(2)

/* "ESC [ n ~" */
static unsigned numbered_key(unsigned long n)
{
	static const uint16_t codes[] = {
		[1] = KEY_HOME,	    [2] = KEY_INSERT, [3] = KEY_DELETE, [4] = KEY_END,	[5] = KEY_PAGEUP,
		[6] = KEY_PAGEDOWN, [7] = KEY_HOME,   [8] = KEY_END,	[11] = KEY_F1,	[12] = KEY_F2,
		[13] = KEY_F3,	    [14] = KEY_F4,    [15] = KEY_F5,	[17] = KEY_F6,	[18] = KEY_F7,
		[19] = KEY_F8,	    [20] = KEY_F9,    [21] = KEY_F10,	[23] = KEY_F11, [24] = KEY_F12,
	};

	return n < ARRAY_SIZE(codes) ? codes[n] : 0;
}

/* The last byte of "ESC [ ..." and "ESC O ..." */
static unsigned lettered_key(uint8_t letter)
{
	switch (letter) {
	case 'A': return KEY_UP;
	case 'B': return KEY_DOWN;
	case 'C': return KEY_RIGHT;
	case 'D': return KEY_LEFT;
	case 'E': return KEY_KP5;
	case 'F': return KEY_END;
	case 'H': return KEY_HOME;
	case 'M': return KEY_KPENTER;
	case 'P': return KEY_F1;
	case 'Q': return KEY_F2;
	case 'R': return KEY_F3;
	case 'S': return KEY_F4;
	case 'Z': return KEY_TAB;
	default: return 0;
	}
}

static enum outcome set_code(struct terminal_key *key, unsigned code)
{
	key->code = code;
	return code ? KEY : NOTHING;
}

/* Behind "ESC [": numbers with semicolons between, and one byte that ends it. */
static enum outcome control_sequence(const uint8_t *bytes, unsigned size, struct terminal_key *key)
{
	unsigned long first, second = 1;
	uint8_t last = size ? bytes[size - 1] : 0;
	char *rest;

	/* The Linux console's F1 to F5 */
	if (size && *bytes == '[')
		return size == 1 ? MORE : set_code(key, last >= 'A' && last <= 'E' ? KEY_F1 + (last - 'A') : 0);
	if (last < 0x40 || last > 0x7e)
		return MORE;
	first = strtoul((const char *)bytes, &rest, 10);
	if (*rest == ';')
		second = strtoul(rest + 1, NULL, 10);
	second = second ? second - 1 : 0;
	key->shift = last == 'Z' || (second & SHIFT);
	key->alt = second & ALT;
	key->ctrl = second & CTRL;
	return set_code(key, last == '~' ? numbered_key(first) : lettered_key(last));
}

static enum outcome utf8(const uint8_t *bytes, unsigned size, struct terminal_key *key)
{
	unsigned length = *bytes < 0x80 ? 1 : *bytes >> 5 == 6 ? 2 : *bytes >> 4 == 14 ? 3 : *bytes >> 3 == 30 ? 4 : 0;

	if (!length)
		return NOTHING;
	if (size > 1 && bytes[size - 1] >> 6 != 2)
		return NOTHING;
	if (size < length)
		return MORE;
	key->character = length == 1 ? *bytes : *bytes & (0x7fu >> length);
	for (unsigned n = 1; n < length; n++)
		key->character = key->character << 6 | (bytes[n] & 0x3f);
	return KEY;
}

static enum outcome plain(const uint8_t *bytes, unsigned size, struct terminal_key *key)
{
	uint8_t byte = *bytes;

	switch (byte) {
	case '\t': return set_code(key, KEY_TAB);
	case '\r': return set_code(key, KEY_ENTER);
	case '\b':
	case 0x7f: return set_code(key, KEY_BACKSPACE);
	case ' ': return set_code(key, KEY_SPACE);
	case 0: key->ctrl = true; return set_code(key, KEY_SPACE);
	default: break;
	}
	if (byte > ' ')
		return utf8(bytes, size, key);
	key->ctrl = true;
	key->character = byte <= 26 ? 'a' + byte - 1u : byte + 0x40u;
	return KEY;
}

/* bytes: a NUL behind them */
static enum outcome decode(const uint8_t *bytes, unsigned size, struct terminal_key *key)
{
	enum outcome outcome;

	*key = (struct terminal_key){ 0 };
	if (*bytes != ESC)
		return plain(bytes, size, key);
	if (size == 1)
		return MORE;
	if (bytes[1] == '[')
		return control_sequence(bytes + 2, size - 2, key);
	if (bytes[1] == 'O')
		return size == 2 ? MORE : set_code(key, lettered_key(bytes[2]));
	outcome = plain(bytes + 1, size - 1, key);
	key->alt = true;
	return outcome;
}

bool terminal_keys_add(struct terminal_keys *keys, uint8_t byte, struct terminal_key *key)
{
	enum outcome outcome;

	/* ESC begins anew; a second one says that the first one was the key. */
	if (byte == ESC && keys->size) {
		bool alone = keys->size == 1 && *keys->bytes == ESC;

		*keys = (struct terminal_keys){ .bytes = { ESC }, .size = 1 };
		*key = (struct terminal_key){ .code = KEY_ESC };
		return alone;
	}
	keys->bytes[keys->size++] = byte;
	keys->bytes[keys->size] = 0;
	outcome = decode(keys->bytes, keys->size, key);
	if (outcome != MORE || keys->size == sizeof(keys->bytes) - 1)
		keys->size = 0;
	return outcome == KEY;
}

bool terminal_keys_end(struct terminal_keys *keys, struct terminal_key *key)
{
	unsigned size = keys->size;

	keys->size = 0;
	*key = (struct terminal_key){ .code = KEY_ESC };
	if (size == 2 && *keys->bytes == ESC)
		*key = (struct terminal_key){ .character = keys->bytes[1], .alt = true };
	return size && size <= 2 && *keys->bytes == ESC;
}
