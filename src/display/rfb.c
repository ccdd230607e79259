/*
 * One session of RFB: handshake, what the viewer says, and the updates that it gets (RFC 6143; the extensions' numbers are in its IANA registry and in the
 * community's rfbproto.rst).
 *
 * What has changed is a bit a tile, so that a viewer that is slow gets the newest of everything, and costs the same whatever happens meanwhile. An update
 * is produced a rectangle at a time: the event loop, which guest time depends on, goes on in between.
 */
#include "display/rfb.h"
#include "display/keymap.h"

#include <errno.h>
#include <stdlib.h>

#define TILE	     32
#define TILE_COLUMNS (PICTURE_MAX_WIDTH / TILE)
#define TILE_ROWS    (PICTURE_MAX_HEIGHT / TILE)
#define MOST_TILES   (ENCODE_MOST_WIDTH / TILE) /* in a rectangle, side by side */
#define MOST_AREAS   (TILE_ROWS * ((TILE_COLUMNS + 1) / 2 + 1))
#define INPUT_SIZE   4096
#define NO_WIDTH     640 /* while there is no screen */
#define NO_HEIGHT    480

/* Of what follows it is one's turn. */
enum stage { VERSION, SECURITY, ANSWER, CLIENT_INIT, OPEN, OVER };

/* What a viewer sends. */
enum {
	SET_PIXEL_FORMAT = 0,
	SET_ENCODINGS = 2,
	UPDATE_REQUEST = 3,
	KEY_EVENT = 4,
	POINTER_EVENT = 5,
	CUT_TEXT = 6,
	SET_DESKTOP_SIZE = 251,
	QEMU_MESSAGE = 255,
};
#define QEMU_KEY 0

#define ENCODING_RAW  0
#define ENCODING_ZRLE 16
/* What a viewer understands besides. _(suffix, number) */
#define EXTENSIONS(_)                                                                                                  \
	_(DESKTOP_SIZE, -223)                                                                                          \
	_(EXTENDED_DESKTOP_SIZE, -308)                                                                                 \
	_(POINTER_CHANGE, -257)                                                                                        \
	_(EXTENDED_KEYS, -258)                                                                                         \
	_(LED_STATE, -261)
enum {
#define _(name, number) NUMBER_##name = (number),
	EXTENSIONS(_)
#undef _
};
enum extension {
#define _(name, number) EXTENSION_##name,
	EXTENSIONS(_)
#undef _
		EXTENSION_COUNT
};

#define SIZE_BY_SERVER	    0 /* why there is another size */
#define SIZE_BY_VIEWER	    1
#define SIZE_PROHIBITED	    1 /* what came of a wish */
#define SIZE_WISH_IS_PASSED 4
#define SECURITY_NONE	    1
#define SECURITY_VNC	    2
#define POINTER_MIDDLE	    0x7fff /* relative movements are told as places around this one */
#define WHEEL_UP	    BIT(3)
#define WHEEL_DOWN	    BIT(4)

struct area {
	uint16_t x, y, width, height;
};

struct rfb {
	struct display *display;
	struct rfb_options options;
	struct viewer viewer;
	enum stage stage;
	unsigned minor; /* of version 3 */
	uint8_t challenge[RFB_CHALLENGE];
	struct bytes handshake; /* to be sent */

	uint8_t in[INPUT_SIZE];
	size_t in_size;
	uint64_t skip;		 /* bytes of no interest */
	unsigned encodings_left; /* of a list that comes */
	bool encoding_found;

	/* The viewer's idea of the picture; and of how it is told. */
	struct encoder encoder;
	uint32_t width, height;
	bool zrle;
	uint32_t extensions; /* bits */
	uint32_t announce;   /* those that something is to be said of in the next update */
	bool palette_told;
	uint16_t size_reason, size_result; /* for EXTENDED_DESKTOP_SIZE */
	unsigned lamps;
	bool absolute; /* the pointer, as it was told */

	bool requested;
	uint64_t dirty[TILE_ROWS][(TILE_COLUMNS + 63) / 64];
	bool any_dirty;
	/* The update that is being sent. */
	struct area areas[MOST_AREAS];
	unsigned area_count, area_next;

	uint8_t buttons;
	uint16_t pointer_x, pointer_y;
	uint8_t pressed[KEY_CNT / 8];
};

static const struct picture *picture_of(const struct rfb *r) { return display_seen(r->display); }

static void wake(struct rfb *r)
{
	if (r->options.waits)
		r->options.waits(r->options.opaque);
}

/* ---- what has changed ---- */

static void mark(struct rfb *r, struct rectangle a)
{
	uint32_t right, bottom;

	if (a.x >= r->width || a.y >= r->height || !a.width || !a.height)
		return;
	right = MIN((uint64_t)a.x + a.width, r->width);
	bottom = MIN((uint64_t)a.y + a.height, r->height);
	for (uint32_t row = a.y / TILE; row <= (bottom - 1) / TILE; row++)
		for (uint32_t column = a.x / TILE; column <= (right - 1) / TILE; column++)
			r->dirty[row][column / 64] |= BIT(column % 64);
	r->any_dirty = true;
}

static void mark_all(struct rfb *r) { mark(r, (struct rectangle){ 0, 0, r->width, r->height }); }

static bool is_dirty(const struct rfb *r, uint32_t row, uint32_t column)
{
	return r->dirty[row][column / 64] & BIT(column % 64);
}

/* Tiles side by side are one rectangle. */
static void collect_areas(struct rfb *r)
{
	uint32_t columns = (r->width + TILE - 1) / TILE, rows = (r->height + TILE - 1) / TILE;

	r->area_count = r->area_next = 0;
	for (uint32_t row = 0; row < rows && r->any_dirty; row++)
		for (uint32_t column = 0; column < columns;) {
			uint32_t first = column;
			struct area *a = &r->areas[r->area_count];

			while (column < columns && column - first < MOST_TILES && is_dirty(r, row, column))
				column++;
			if (column == first) {
				column++;
				continue;
			}
			a->x = (uint16_t)(first * TILE);
			a->y = (uint16_t)(row * TILE);
			a->width = (uint16_t)(MIN(column * TILE, r->width) - a->x);
			a->height = (uint16_t)(MIN((row + 1) * TILE, r->height) - a->y);
			r->area_count++;
		}
	memset(r->dirty, 0, sizeof(r->dirty));
	r->any_dirty = false;
}

static bool knows(const struct rfb *r, enum extension e) { return r->extensions & BIT(e); }

static void announce(struct rfb *r, enum extension e)
{
	if (knows(r, e))
		r->announce |= BIT(e);
	wake(r);
}

/* ---- as a viewer of the display's ---- */

static void picture_resized(void *opaque, const struct picture *picture)
{
	struct rfb *r = opaque;
	bool other = picture->width != r->width || picture->height != r->height;

	if (other && picture->width && picture->height &&
	    (knows(r, EXTENSION_DESKTOP_SIZE) || knows(r, EXTENSION_EXTENDED_DESKTOP_SIZE))) {
		if (!(r->announce & BIT(EXTENSION_EXTENDED_DESKTOP_SIZE)))
			r->size_reason = r->size_result = 0;
		r->announce |= BIT(knows(r, EXTENSION_EXTENDED_DESKTOP_SIZE) ? EXTENSION_EXTENDED_DESKTOP_SIZE
									     : EXTENSION_DESKTOP_SIZE);
	}
	mark_all(r);
	wake(r);
}

static void picture_changed(void *opaque, const struct picture *picture, struct rectangle a)
{
	struct rfb *r = opaque;

	(void)picture;
	mark(r, a);
	if (r->requested)
		wake(r);
}

static void lamps_changed(void *opaque, unsigned lamps)
{
	struct rfb *r = opaque;

	r->lamps = lamps;
	announce(r, EXTENSION_LED_STATE);
}

static const struct viewer_ops viewer_ops = { .resized = picture_resized,
					      .changed = picture_changed,
					      .lamps = lamps_changed };

/* ---- updates ---- */

static void put_be16(struct bytes *out, unsigned value)
{
	uint8_t b[2];

	store_be16(b, (uint16_t)value);
	bytes_add(out, b, sizeof(b));
}

static void put_be32(struct bytes *out, uint32_t value)
{
	uint8_t b[4];

	store_be32(b, value);
	bytes_add(out, b, sizeof(b));
}

static void put_header(struct bytes *out, unsigned x, unsigned y, unsigned width, unsigned height, int encoding)
{
	put_be16(out, x);
	put_be16(out, y);
	put_be16(out, width);
	put_be16(out, height);
	put_be32(out, (uint32_t)encoding);
}

static void put_announcement(struct rfb *r, struct bytes *out, enum extension e)
{
	switch (e) {
	case EXTENSION_DESKTOP_SIZE: put_header(out, 0, 0, r->width, r->height, NUMBER_DESKTOP_SIZE); break;
	case EXTENSION_EXTENDED_DESKTOP_SIZE:
		put_header(out, r->size_reason, r->size_result, r->width, r->height, NUMBER_EXTENDED_DESKTOP_SIZE);
		bytes_add(out, "\1\0\0\0", 4); /* one screen, that is all of it; its number and flags are 0 */
		put_be32(out, 0);
		put_be32(out, 0);
		put_be16(out, r->width);
		put_be16(out, r->height);
		put_be32(out, 0);
		r->size_reason = r->size_result = 0;
		break;
	case EXTENSION_POINTER_CHANGE:
		put_header(out, r->absolute, 0, r->width, r->height, NUMBER_POINTER_CHANGE);
		break;
	case EXTENSION_EXTENDED_KEYS: put_header(out, 0, 0, 0, 0, NUMBER_EXTENDED_KEYS); break;
	case EXTENSION_LED_STATE:
		put_header(out, 0, 0, 0, 0, NUMBER_LED_STATE);
		bytes_add(out, &(uint8_t){ (uint8_t)r->lamps }, 1);
		break;
	case EXTENSION_COUNT: break;
	}
}

/* The size is as the picture is now, if the viewer is told. */
static void take_size(struct rfb *r)
{
	const struct picture *picture = picture_of(r);

	if (!(r->announce & (BIT(EXTENSION_DESKTOP_SIZE) | BIT(EXTENSION_EXTENDED_DESKTOP_SIZE))))
		return;
	if (!picture || !picture->width || !picture->height ||
	    (picture->width == r->width && picture->height == r->height))
		return;
	r->width = picture->width;
	r->height = picture->height;
	memset(r->dirty, 0, sizeof(r->dirty));
	mark_all(r);
}

static void begin_update(struct rfb *r, struct bytes *out)
{
	uint32_t told = r->announce;

	take_size(r);
	collect_areas(r);
	bytes_add(out, "\0\0", 2);
	put_be16(out, r->area_count + (unsigned)__builtin_popcount(told));
	for (unsigned e = 0; e < EXTENSION_COUNT; e++)
		if (told & BIT(e))
			put_announcement(r, out, e);
	r->announce = 0;
	r->requested = false;
}

static bool put_area(struct rfb *r, struct bytes *out)
{
	struct area a = r->areas[r->area_next++];
	struct rectangle where = { a.x, a.y, a.width, a.height };

	put_header(out, a.x, a.y, a.width, a.height, r->zrle ? ENCODING_ZRLE : ENCODING_RAW);
	return r->zrle ? encode_zrle(&r->encoder, picture_of(r), where, out)
		       : encode_raw(&r->encoder, picture_of(r), where, out);
}

/* Colours of the palette that stands for all. */
static void put_palette(struct rfb *r, struct bytes *out)
{
	const struct pixel_format *f = &r->encoder.format;

	bytes_add(out, "\1\0\0\0\1\0", 6); /* from colour 0 on, 256 */
	for (unsigned n = 0; n < 256; n++) {
		put_be16(out, (n >> f->red_shift & f->red_max) * 0xffff / f->red_max);
		put_be16(out, (n >> f->green_shift & f->green_max) * 0xffff / f->green_max);
		put_be16(out, (n >> f->blue_shift & f->blue_max) * 0xffff / f->blue_max);
	}
	r->palette_told = true;
}

static bool tells_palette(const struct rfb *r) { return r->encoder.format.palette && !r->palette_told; }

bool rfb_waits(const struct rfb *r)
{
	return r->handshake.size || (r->stage == OPEN && (r->area_next < r->area_count || tells_palette(r) ||
							  (r->requested && (r->announce || r->any_dirty))));
}

int rfb_produce(struct rfb *r, struct bytes *out)
{
	size_t before = out->size;

	if (r->handshake.size) {
		if (!bytes_add(out, r->handshake.data, r->handshake.size))
			return -ENOMEM;
		r->handshake.size = 0;
		return 0;
	}
	if (!rfb_waits(r))
		return 0;
	if (r->area_next < r->area_count)
		return put_area(r, out) ? 0 : -ENOMEM;
	if (tells_palette(r))
		put_palette(r, out);
	else
		begin_update(r, out);
	return out->size > before ? 0 : -ENOMEM;
}

/* ---- keys ---- */

static bool is_pressed(const struct rfb *r, unsigned code) { return r->pressed[code / 8] >> (code % 8) & 1; }

static void press(struct rfb *r, unsigned code, bool down)
{
	uint8_t bit = (uint8_t)(1u << code % 8);

	r->pressed[code / 8] = down ? r->pressed[code / 8] | bit : r->pressed[code / 8] & ~bit;
	display_key(r->display, code, down);
	display_complete(r->display);
}

/* Around a character's key, modifiers are as it needs them: as if the other hand did it. */
static void set_modifier(struct rfb *r, unsigned code, unsigned other, bool down, bool *restore, bool *restore_other)
{
	bool have = is_pressed(r, code), have_other = other && is_pressed(r, other);

	if ((have || have_other) == down)
		return;
	if (down || have)
		display_key(r->display, code, down);
	if (!down && have_other)
		display_key(r->display, other, false);
	display_complete(r->display);
	*restore = down || have;
	*restore_other = !down && have_other;
}

static void press_character(struct rfb *r, const struct keymap_key *key)
{
	bool shift = keymap_wants_shift(key, display_lamps(r->display));
	bool left = false, right = false, alt = false, none = false;

	set_modifier(r, KEY_LEFTSHIFT, KEY_RIGHTSHIFT, shift, &left, &right);
	set_modifier(r, KEY_RIGHTALT, 0, key->alt_gr, &alt, &none);
	press(r, key->code, true);
	if (left)
		display_key(r->display, KEY_LEFTSHIFT, !shift);
	if (right)
		display_key(r->display, KEY_RIGHTSHIFT, true);
	if (alt)
		display_key(r->display, KEY_RIGHTALT, !key->alt_gr);
	display_complete(r->display);
}

static void type_keysym(struct rfb *r, uint32_t keysym, bool down)
{
	struct keymap_key key;

	if (!keymap_keysym(r->display->keymap, keysym, &key))
		return;
	if (down && key.character && !is_pressed(r, key.code))
		press_character(r, &key);
	else
		press(r, key.code, down);
}

static void release_all(struct rfb *r)
{
	for (unsigned code = 0; code < KEY_CNT; code++)
		if (is_pressed(r, code))
			press(r, code, false);
}

/* ---- the pointer ---- */

static void set_buttons(struct rfb *r, uint8_t buttons)
{
	static const struct {
		uint8_t bit;
		uint16_t code;
	} codes[] = { { BIT(0), BTN_LEFT }, { BIT(1), BTN_MIDDLE }, { BIT(2), BTN_RIGHT }, { BIT(7), BTN_SIDE } };
	uint8_t pressed = buttons & ~r->buttons, changed = buttons ^ r->buttons;

	for (unsigned n = 0; n < ARRAY_SIZE(codes); n++)
		if (changed & codes[n].bit)
			display_button(r->display, codes[n].code, buttons & codes[n].bit);
	if (pressed & WHEEL_UP)
		display_wheel(r->display, 1);
	if (pressed & WHEEL_DOWN)
		display_wheel(r->display, -1);
	r->buttons = buttons;
}

static uint32_t place(uint32_t at, uint32_t size) { return (MIN(at, size - 1) * INPUT_PLACES + size - 1) / size; }

static void point(struct rfb *r, uint8_t buttons, uint16_t x, uint16_t y)
{
	bool absolute = display_points_absolutely(r->display) || !knows(r, EXTENSION_POINTER_CHANGE);

	if (absolute != r->absolute) {
		r->absolute = absolute; /* what came is told the other way */
		announce(r, EXTENSION_POINTER_CHANGE);
	} else if (!absolute) {
		display_move(r->display, x - POINTER_MIDDLE, y - POINTER_MIDDLE);
	} else if (x != r->pointer_x || y != r->pointer_y) {
		display_place(r->display, place(x, r->width), place(y, r->height));
		r->pointer_x = x;
		r->pointer_y = y;
	}
	set_buttons(r, buttons);
	display_complete(r->display);
}

/* ---- messages ---- */

static int set_pixel_format(struct rfb *r, const uint8_t *m)
{
	struct pixel_format f = {
		.bits = m[0],
		.depth = m[1],
		.big_endian = m[2],
		.palette = !m[3],
		.red_max = load_be16(m + 4),
		.green_max = load_be16(m + 6),
		.blue_max = load_be16(m + 8),
		.red_shift = m[10],
		.green_shift = m[11],
		.blue_shift = m[12],
	};

	if (!encoder_set_format(&r->encoder, &f))
		return -EPROTO;
	r->palette_told = false;
	mark_all(r);
	return 0;
}

static void begin_encodings(struct rfb *r, unsigned count)
{
	r->encodings_left = count;
	r->encoding_found = r->zrle = false;
	r->extensions = 0;
}

static void end_encodings(struct rfb *r)
{
	r->absolute = display_points_absolutely(r->display) || !knows(r, EXTENSION_POINTER_CHANGE);
	r->lamps = display_lamps(r->display);
	r->announce = r->extensions & ~BIT(EXTENSION_DESKTOP_SIZE);
	if (picture_of(r))
		picture_resized(r, picture_of(r));
}

static void add_encoding(struct rfb *r, int32_t number)
{
	if (!r->encoding_found && (number == ENCODING_RAW || number == ENCODING_ZRLE)) {
		r->encoding_found = true;
		r->zrle = number == ENCODING_ZRLE;
	}
	switch (number) {
#define _(name, value)                                                                                                 \
	case NUMBER_##name: r->extensions |= BIT(EXTENSION_##name); break;
		EXTENSIONS(_)
#undef _
	default: break;
	}
}

static void request_update(struct rfb *r, const uint8_t *m)
{
	if (!m[0])
		mark(r, (struct rectangle){ load_be16(m + 1), load_be16(m + 3), load_be16(m + 5), load_be16(m + 7) });
	r->requested = true;
}

static void wish_size(struct rfb *r, uint32_t width, uint32_t height)
{
	r->size_reason = SIZE_BY_VIEWER;
	r->size_result = r->options.readonly ? SIZE_PROHIBITED : SIZE_WISH_IS_PASSED;
	announce(r, EXTENSION_EXTENDED_DESKTOP_SIZE);
	if (!r->options.readonly && width && height && width <= PICTURE_MAX_WIDTH && height <= PICTURE_MAX_HEIGHT)
		display_wish_size(r->display, width, height);
}

static void extended_key(struct rfb *r, const uint8_t *m)
{
	unsigned code = keymap_set_1(load_be32(m + 8));

	if (r->options.readonly)
		return;
	if (code)
		press(r, code, load_be16(m + 2));
	else
		type_keysym(r, load_be32(m + 4), load_be16(m + 2));
}

/* How long the message is that begins so; 0: there is none like that, or its size is not there yet: see *more. */
static size_t message_size(const uint8_t *m, size_t size, bool *more)
{
	*more = false;
	switch (m[0]) {
	case SET_PIXEL_FORMAT: return 20;
	case SET_ENCODINGS: return 4;
	case UPDATE_REQUEST: return 10;
	case KEY_EVENT: return 8;
	case POINTER_EVENT: return 6;
	case CUT_TEXT: return 8;
	case SET_DESKTOP_SIZE: *more = size < 8; return *more ? 0 : 8 + 16 * (size_t)m[6];
	case QEMU_MESSAGE: *more = size < 2; return !*more && m[1] == QEMU_KEY ? 12 : 0;
	default: return 0;
	}
}

static int message(struct rfb *r, const uint8_t *m)
{
	int32_t length;

	switch (m[0]) {
	case SET_PIXEL_FORMAT: return set_pixel_format(r, m + 4);
	case SET_ENCODINGS:
		begin_encodings(r, load_be16(m + 2));
		if (!r->encodings_left)
			end_encodings(r);
		break;
	case UPDATE_REQUEST: request_update(r, m + 1); break;
	case KEY_EVENT:
		if (!r->options.readonly)
			type_keysym(r, load_be32(m + 4), m[1]);
		break;
	case POINTER_EVENT:
		if (!r->options.readonly)
			point(r, m[1], load_be16(m + 2), load_be16(m + 4));
		break;
	case CUT_TEXT: /* nobody takes it; the extended form has its size negative */
		length = (int32_t)load_be32(m + 4);
		r->skip = (uint64_t)(length < 0 ? -(int64_t)length : length);
		break;
	case SET_DESKTOP_SIZE: wish_size(r, load_be16(m + 2), load_be16(m + 4)); break;
	case QEMU_MESSAGE: extended_key(r, m); break;
	default: break;
	}
	return 0;
}

/* ---- handshake ---- */

static void say(struct rfb *r, const void *data, size_t size)
{
	bytes_add(&r->handshake, data, size);
	wake(r);
}

static void say_text(struct rfb *r, const char *text)
{
	put_be32(&r->handshake, (uint32_t)strlen(text));
	say(r, text, strlen(text));
}

static void ask_password(struct rfb *r)
{
	rfb_challenge(r->challenge);
	say(r, r->challenge, sizeof(r->challenge));
	r->stage = ANSWER;
}

/* Of version 3.3 the server decides. */
static int version(struct rfb *r, const uint8_t *m)
{
	unsigned minor;
	char text[13] = { 0 }, newline;
	uint8_t type = r->options.password ? SECURITY_VNC : SECURITY_NONE;

	memcpy(text, m, 12);
	if (sscanf(text, "RFB 003.%3u%c", &minor, &newline) != 2 || newline != '\n')
		return -EPROTO;
	r->minor = minor >= 8 ? 8 : minor == 7 ? 7 : 3;
	if (r->minor > 3) {
		say(r, (uint8_t[]){ 1, type }, 2);
		r->stage = SECURITY;
		return 0;
	}
	say(r, (uint8_t[]){ 0, 0, 0, type }, 4);
	if (r->options.password)
		ask_password(r);
	else
		r->stage = CLIENT_INIT;
	return 0;
}

static int refuse(struct rfb *r, const char *why)
{
	say(r, "\0\0\0\1", 4);
	if (r->minor >= 8)
		say_text(r, why);
	r->stage = OVER;
	return -EACCES;
}

static int security(struct rfb *r, const uint8_t *m)
{
	if (m[0] != (r->options.password ? SECURITY_VNC : SECURITY_NONE))
		return refuse(r, "this kind of security was not offered");
	if (r->options.password) {
		ask_password(r);
		return 0;
	}
	if (r->minor >= 8)
		say(r, "\0\0\0\0", 4);
	r->stage = CLIENT_INIT;
	return 0;
}

static int answer(struct rfb *r, const uint8_t *m)
{
	if (!rfb_answers(r->options.password, r->challenge, m))
		return refuse(r, "wrong password");
	say(r, "\0\0\0\0", 4);
	r->stage = CLIENT_INIT;
	return 0;
}

static int client_init(struct rfb *r, const uint8_t *m)
{
	static const uint8_t format[] = { 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0 };
	const struct picture *picture = display_picture(r->display);

	if (!m[0] && r->options.alone)
		r->options.alone(r->options.opaque);
	if (picture && picture->width && picture->height) {
		r->width = picture->width;
		r->height = picture->height;
	}
	put_be16(&r->handshake, r->width);
	put_be16(&r->handshake, r->height);
	say(r, format, sizeof(format));
	say_text(r, "doppel");
	r->stage = OPEN;
	viewer_add(r->display, &r->viewer);
	mark_all(r);
	return 0;
}

/* ---- bytes that come ---- */

/* How many bytes are wanted before something can be done; 0: what came is nothing that there is. */
static size_t wanted(const struct rfb *r)
{
	bool more;
	size_t size;

	switch (r->stage) {
	case VERSION: return 12;
	case SECURITY:
	case CLIENT_INIT: return 1;
	case ANSWER: return RFB_CHALLENGE;
	default: break;
	}
	if (r->encodings_left)
		return 4;
	if (!r->in_size)
		return 1;
	size = message_size(r->in, r->in_size, &more);
	return more ? r->in_size + 1 : size;
}

static int step(struct rfb *r)
{
	switch (r->stage) {
	case VERSION: return version(r, r->in);
	case SECURITY: return security(r, r->in);
	case ANSWER: return answer(r, r->in);
	case CLIENT_INIT: return client_init(r, r->in);
	default: break;
	}
	if (r->encodings_left) {
		add_encoding(r, (int32_t)load_be32(r->in));
		if (!--r->encodings_left)
			end_encodings(r);
		return 0;
	}
	return message(r, r->in);
}

int rfb_receive(struct rfb *r, const uint8_t *data, size_t size)
{
	while (size) {
		size_t need, n;
		int rc;

		if (r->stage == OVER)
			return -EPROTO;
		if (r->skip) {
			n = MIN(r->skip, size);
			r->skip -= n;
			data += n;
			size -= n;
			continue;
		}
		need = wanted(r);
		if (!need)
			return -EPROTO;
		n = MIN(need - MIN(need, r->in_size), size);
		memcpy(r->in + r->in_size, data, n);
		r->in_size += n;
		data += n;
		size -= n;
		need = wanted(r); /* with more of it there may be more */
		if (!need)
			return -EPROTO;
		if (r->in_size < need)
			continue;
		rc = step(r);
		r->in_size = 0;
		if (rc)
			return rc;
	}
	if (rfb_waits(r))
		wake(r);
	return 0;
}

/* ---- life ---- */

bool rfb_is_open(const struct rfb *r) { return r->stage == OPEN; }

struct rfb *rfb_create(struct display *display, const struct rfb_options *options)
{
	struct rfb *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->display = display;
	r->options = *options;
	r->viewer = (struct viewer){ .ops = &viewer_ops, .opaque = r };
	encoder_init(&r->encoder);
	r->width = NO_WIDTH;
	r->height = NO_HEIGHT;
	r->absolute = true;
	if (!bytes_add(&r->handshake, "RFB 003.008\n", 12)) {
		free(r);
		return NULL;
	}
	return r;
}

void rfb_destroy(struct rfb *r)
{
	if (r->stage == OPEN) {
		release_all(r);
		set_buttons(r, 0);
		display_complete(r->display);
		viewer_remove(r->display, &r->viewer);
	}
	encoder_end(&r->encoder);
	free(r->handshake.data);
	free(r);
}
