/*
 * RFB sessions and their servers: each version's handshake, passwords, pictures in every format compared with what was drawn, sizes, keys and pointers of
 * every form, viewers that are hostile or never read; and the same through sockets and WebSockets.
 */
#include "display/keymap.h"
#include "display/web.h"
#include "lib/rfb_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a machine: a screen, and what was typed ---- */

struct world {
	struct event_loop *loop;
	struct display *display;
	struct screen *screen;
	uint32_t wished_width, wished_height;
	struct input keys, mouse, tablet;
	char typed[512]; /* "+30 -30 " */
	int32_t x, y, wheel;
	uint32_t place_x, place_y;
	unsigned completes;
};

static void draw(void *opaque, struct screen *screen)
{
	(void)opaque;
	(void)screen;
}

static void wish(void *opaque, uint32_t width, uint32_t height)
{
	((struct world *)opaque)->wished_width = width;
	((struct world *)opaque)->wished_height = height;
}

static void typed(void *opaque, unsigned code, bool down)
{
	struct world *w = opaque;
	size_t used = strlen(w->typed);

	snprintf(w->typed + used, sizeof(w->typed) - used, "%c%u ", down ? '+' : '-', code);
}

static void moved(void *opaque, int32_t x, int32_t y)
{
	((struct world *)opaque)->x += x;
	((struct world *)opaque)->y += y;
}

static void placed(void *opaque, uint32_t x, uint32_t y)
{
	((struct world *)opaque)->place_x = x;
	((struct world *)opaque)->place_y = y;
}

static void wheeled(void *opaque, int32_t up) { ((struct world *)opaque)->wheel += up; }
static void completed(void *opaque) { ((struct world *)opaque)->completes++; }

static const struct input_ops input_ops = {
	.key = typed, .button = typed, .move = moved, .place = placed, .wheel = wheeled, .complete = completed
};

static int setup(void **state)
{
	static const struct screen_ops screen_ops = { .draw = draw, .wish_size = wish };
	struct world *w = calloc(1, sizeof(*w));

	w->loop = event_loop_create(NULL);
	w->display = display_create(w->loop, NULL);
	w->screen = screen_create(w->display, &screen_ops, w);
	screen_set_size(w->screen, 200, 100);
	w->keys = (struct input){ .kind = INPUT_KEYS, .ops = &input_ops, .opaque = w };
	w->mouse = (struct input){ .kind = INPUT_RELATIVE, .ops = &input_ops, .opaque = w };
	w->tablet = (struct input){ .kind = INPUT_ABSOLUTE, .ops = &input_ops, .opaque = w };
	input_add(w->display, &w->keys);
	input_add(w->display, &w->mouse);
	input_add(w->display, &w->tablet);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	input_remove(w->display, &w->keys);
	input_remove(w->display, &w->mouse);
	input_remove(w->display, &w->tablet);
	screen_destroy(w->screen);
	display_destroy(w->display);
	event_loop_destroy(w->loop);
	free(w);
	return 0;
}

static void expect_typed(struct world *w, const char *what)
{
	assert_string_equal(w->typed, what);
	*w->typed = 0;
}

static uint64_t next(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return *seed >> 33;
}

/* Something of everything that encoders tell apart: one colour, few, many, runs, noise. */
static void paint(struct world *w, uint64_t seed)
{
	struct picture *p = screen_picture(w->screen);
	static const unsigned colours[] = { 1, 2, 3, 4, 9, 16, 17, 100, 127, 128, 1000, 1u << 24 };

	for (uint32_t y = 0; y < p->height; y++)
		for (uint32_t x = 0; x < p->width; x++) {
			unsigned kind = (x / 37 + y / 23 * 5 + (unsigned)seed) % 24;
			uint32_t *at = &p->pixels[(size_t)y * p->width + x];

			*at = kind < 12 || x % 11 == 0
				      ? (uint32_t)(next(&seed) % colours[kind % 12] * 0x3b9ac9) & 0xffffff
				      : at[-1];
		}
	screen_changed(w->screen, (struct rectangle){ 0, 0, p->width, p->height });
}

/* ---- a session ---- */

struct session {
	struct world *w;
	struct rfb *rfb;
	struct rfb_client c;
	unsigned pieces;
};

static struct bytes produced(struct session *s)
{
	struct bytes all = { 0 };

	while (rfb_waits(s->rfb)) {
		size_t before = all.size;

		assert_int_equal(rfb_produce(s->rfb, &all), 0);
		assert_true(all.size > before);
		assert_true(all.size - before < 200000);
		s->pieces++;
	}
	return all;
}

static void expect_bytes(struct session *s, const void *bytes, size_t size)
{
	struct bytes all = produced(s);

	assert_int_equal(all.size, size);
	assert_memory_equal(all.data, bytes, size);
	free(all.data);
}

static int tell(struct session *s, const void *bytes, size_t size) { return rfb_receive(s->rfb, bytes, size); }
#define TELL(s, ...)                                                                                                   \
	assert_int_equal(tell(s, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })), 0)
#define EXPECT(s, ...) expect_bytes(s, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static struct session session(struct world *w, const char *password, bool readonly)
{
	struct session s = { .w = w, .c = { .bits = 32 } };

	s.rfb = rfb_create(w->display, &(struct rfb_options){ .password = password, .readonly = readonly });
	expect_bytes(&s, "RFB 003.008\n", 12);
	return s;
}

static void end(struct session *s)
{
	rfb_destroy(s->rfb);
	rfb_client_end(&s->c);
}

static void expect_hello(struct session *s)
{
	struct bytes all = produced(s);

	assert_int_equal(all.size, 24 + 6);
	rfb_set_size(&s->c, load_be16(all.data), load_be16(all.data + 2));
	assert_memory_equal(all.data + 24, "doppel", 6);
	free(all.data);
}

static struct session open_session(struct world *w, bool readonly)
{
	struct session s = session(w, NULL, readonly);

	assert_int_equal(tell(&s, "RFB 003.008\n", 12), 0);
	EXPECT(&s, 1, 1);
	TELL(&s, 1);
	EXPECT(&s, 0, 0, 0, 0);
	TELL(&s, 1);
	expect_hello(&s);
	return s;
}

static void request(struct session *s, bool incremental)
{
	TELL(s, 3, incremental, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff);
}

static void receive(struct session *s)
{
	struct bytes all = produced(s);

	rfb_decode(&s->c, all.data, all.size);
	assert_false(s->c.failed);
	free(all.data);
}

static void compare(struct session *s)
{
	const struct picture *p = screen_picture(s->w->screen);

	assert_int_equal(p->width, s->c.width);
	assert_int_equal(p->height, s->c.height);
	for (uint32_t n = 0; n < p->width * p->height; n++)
		if (s->c.pixels[n] != rfb_expected(&s->c, p->pixels[n]))
			fail_msg("%u bits: point %u, %u is 0x%06x, expected 0x%06x", s->c.bits, n % p->width,
				 n / p->width, s->c.pixels[n], rfb_expected(&s->c, p->pixels[n]));
}

/* ---- handshakes ---- */

static void versions(void **state)
{
	struct session s = open_session(*state, false);

	end(&s);
	s = session(*state, NULL, false);
	assert_int_equal(tell(&s, "RFB 003.007\n", 12), 0);
	EXPECT(&s, 1, 1);
	TELL(&s, 1, 1);
	expect_hello(&s);
	end(&s);
	s = session(*state, NULL, false);
	assert_int_equal(tell(&s, "RFB 003.003\n", 12), 0);
	EXPECT(&s, 0, 0, 0, 1);
	TELL(&s, 0);
	expect_hello(&s);
	end(&s);
	s = session(*state, NULL, false);
	assert_int_equal(tell(&s, "GET / HTTP/1.1", 14), -EPROTO);
	end(&s);
	s = session(*state, NULL, false);
	assert_int_equal(tell(&s, "RFB 003.889\n", 12), 0); /* one of those with a number of their own */
	EXPECT(&s, 1, 1);
	assert_int_equal(tell(&s, "\2", 1), -EACCES);
	end(&s);
}

static void passwords(void **state)
{
	for (unsigned minor = 3; minor <= 8; minor += minor == 3 ? 4 : 1)
		for (unsigned right = 0; right < 2; right++) {
			struct session s = session(*state, "geheim!", false);
			char version[13];
			struct bytes challenge;
			uint8_t answer[16];

			snprintf(version, sizeof(version), "RFB 003.%03u\n", minor);
			assert_int_equal(tell(&s, version, 12), 0);
			if (minor > 3) {
				EXPECT(&s, 1, 2);
				TELL(&s, 2);
			}
			challenge = produced(&s);
			assert_int_equal(challenge.size, minor > 3 ? 16 : 20);
			rfb_answer(right ? "geheim!" : "geheim", challenge.data + challenge.size - 16, answer);
			free(challenge.data);
			assert_int_equal(tell(&s, answer, 16), right ? 0 : -EACCES);
			assert_false(rfb_is_open(s.rfb));
			if (right) {
				EXPECT(&s, 0, 0, 0, 0);
				TELL(&s, 1);
				expect_hello(&s);
				assert_true(rfb_is_open(s.rfb));
			} else if (minor == 8) {
				expect_bytes(&s, "\0\0\0\1\0\0\0\x0ewrong password", 22);
			} else {
				EXPECT(&s, 0, 0, 0, 1);
			}
			end(&s);
		}
}

/* ---- pictures ---- */

static void set_format(struct session *s, unsigned bits, bool big_endian)
{
	s->c.bits = bits;
	s->c.big_endian = big_endian;
	if (bits == 32)
		TELL(s, 0, 0, 0, 0, 32, 24, big_endian, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0);
	else if (bits == 16)
		TELL(s, 0, 0, 0, 0, 16, 16, big_endian, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0);
	else
		TELL(s, 0, 0, 0, 0, 8, 8, big_endian, 1, 0, 7, 0, 7, 0, 3, 5, 2, 0, 0, 0, 0);
}

static void formats_and_encodings(void **state)
{
	struct world *w = *state;

	screen_set_size(w->screen, 701, 333);
	for (unsigned zrle = 0; zrle < 2; zrle++) {
		struct session s = open_session(w, false);

		TELL(&s, 2, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, zrle ? 16 : 0);
		for (unsigned n = 0; n < 12; n++) {
			set_format(&s, 8u << n % 3, n / 3 % 2);
			paint(w, n);
			request(&s, n % 2);
			receive(&s);
			compare(&s);
		}
		assert_int_equal(s.c.updates, 12);
		end(&s);
	}
}

static void other_formats(void **state)
{
	static const struct {
		uint8_t message[20];
		int rc;
	} formats[] = {
		{ { 0, 0, 0, 0, 8, 8, 0, 0 }, 0 }, /* a palette */
		{ { 0, 0, 0, 0, 16, 16, 0, 0 }, -EPROTO },
		{ { 0, 0, 0, 0, 24, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0 }, -EPROTO },
		{ { 0, 0, 0, 0, 16, 16, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0 }, -EPROTO },
		{ { 0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 255, 8, 0 }, -EPROTO },
		{ { 0, 0, 0, 0, 32, 32, 1, 1, 0xff, 0xff, 0, 0, 0, 1, 16, 8, 0 }, 0 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(formats); n++) {
		struct session s = open_session(*state, false);
		struct bytes all;

		assert_int_equal(tell(&s, formats[n].message, 20), formats[n].rc);
		if (!formats[n].rc) {
			request(&s, true);
			all = produced(&s);
			assert_int_equal(all.data[0], n ? 0 : 1);
			free(all.data);
		}
		end(&s);
	}
}

/* Only what has changed; nothing while nothing has; and the newest of what changes again and again while nobody asks. */
static void changes(void **state)
{
	struct world *w = *state;
	struct session s = open_session(w, false);
	struct picture *p = screen_picture(w->screen);

	TELL(&s, 2, 0, 0, 1, 0, 0, 0, 16);
	request(&s, true);
	receive(&s);
	compare(&s);
	s.c.rectangles = 0;
	request(&s, true);
	assert_false(rfb_waits(s.rfb));
	p->pixels[5 * 200 + 190] = 0xff00ff;
	screen_changed(w->screen, (struct rectangle){ 190, 5, 1, 1 });
	assert_true(rfb_waits(s.rfb));
	receive(&s);
	assert_int_equal(s.c.rectangles, 1);
	compare(&s);
	s.pieces = 0;
	for (unsigned n = 0; n < 1000; n++)
		paint(w, n);
	assert_false(rfb_waits(s.rfb));
	request(&s, true);
	receive(&s);
	compare(&s);
	assert_true(s.pieces < 10);
	screen_changed(w->screen, (struct rectangle){ 0, 0, 1, 1 });
	request(&s, false);
	receive(&s);
	end(&s);
}

static void sizes(void **state)
{
	struct world *w = *state;
	struct session s = open_session(w, false), old = open_session(w, false), reader = open_session(w, true);

	TELL(&s, 2, 0, 0, 2, 0, 0, 0, 16, 0xff, 0xff, 0xfe, 0xcc);
	TELL(&reader, 2, 0, 0, 2, 0, 0, 0, 0, 0xff, 0xff, 0xfe, 0xcc);
	request(&s, true);
	receive(&s);
	assert_int_equal(s.c.sizes, 1);
	screen_set_size(w->screen, 320, 222);
	display_picture(w->display);
	paint(w, 5);
	request(&s, true);
	receive(&s);
	assert_int_equal(s.c.sizes, 2);
	assert_int_equal(s.c.size_reason, 0);
	compare(&s);
	/* A viewer that knows no sizes keeps its own. */
	request(&old, true);
	receive(&old);
	assert_int_equal(old.c.width, 200);
	assert_int_equal(old.c.pixels[199], screen_picture(w->screen)->pixels[199]);
	screen_set_size(w->screen, 100, 50);
	display_picture(w->display);
	request(&old, false);
	receive(&old);
	assert_int_equal(old.c.pixels[199], 0);
	/* Wishes. */
	TELL(&s, 251, 0, 3, 32, 2, 88, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 32, 2, 88, 0, 0, 0, 0);
	assert_int_equal(w->wished_width, 800);
	assert_int_equal(w->wished_height, 600);
	request(&s, true);
	receive(&s);
	assert_int_equal(s.c.size_reason, 1);
	assert_int_equal(s.c.size_result, 4);
	TELL(&reader, 251, 0, 4, 0, 3, 0, 0, 0);
	assert_int_equal(w->wished_width, 800);
	request(&reader, true);
	receive(&reader);
	assert_int_equal(reader.c.size_result, 1);
	end(&s);
	end(&old);
	end(&reader);
}

/* ---- keys and pointers ---- */

static void keysym(struct session *s, uint32_t keysym, bool down)
{
	TELL(s, 4, down, 0, 0, (uint8_t)(keysym >> 24), (uint8_t)(keysym >> 16), (uint8_t)(keysym >> 8),
	     (uint8_t)keysym);
}

static void keys(void **state)
{
	struct world *w = *state;
	struct session s = open_session(w, false), reader = open_session(w, true);

	TELL(&s, 2, 0, 0, 2, 0xff, 0xff, 0xfe, 0xfe, 0xff, 0xff, 0xfe, 0xfb);
	request(&s, true);
	receive(&s);
	assert_int_equal(s.c.key_extensions, 1);
	assert_int_equal(s.c.leds, 1);
	TELL(&s, 255, 0, 0, 1, 0, 0, 0, 'z', 0, 0, 0, 0x15);
	TELL(&s, 255, 0, 0, 1, 0, 0, 0, 'z', 0, 0, 0, 0x15);
	TELL(&s, 255, 0, 0, 0, 0, 0, 0, 'z', 0, 0, 0, 0x15);
	expect_typed(w, "+21 -21 ");
	TELL(&s, 255, 0, 0, 1, 0, 0, 0xff, 0x52, 0, 0, 0, 0xc8);
	TELL(&s, 255, 0, 0, 0, 0, 0, 0xff, 0x52, 0, 0, 0, 0xc8);
	expect_typed(w, "+103 -103 ");
	/* By characters, with the modifiers that these need. */
	keysym(&s, 'a', true);
	keysym(&s, 'a', false);
	keysym(&s, 'A', true);
	keysym(&s, 'A', false);
	expect_typed(w, "+30 -30 +42 +30 -42 -30 ");
	keysym(&s, 0xffe1, true);
	keysym(&s, 'A', true);
	keysym(&s, 'A', false);
	keysym(&s, '7', true);
	keysym(&s, '7', false);
	keysym(&s, 0xffe1, false);
	expect_typed(w, "+42 +30 -30 -42 +8 +42 -8 -42 ");
	/* Caps Lock is the guest's. */
	display_set_lamps(w->display, LAMP_CAPS);
	keysym(&s, 'A', true);
	keysym(&s, 'A', false);
	expect_typed(w, "+30 -30 ");
	display_set_lamps(w->display, 0);
	assert_int_equal(display_set_keyboard(w->display, "de", NULL), 0);
	keysym(&s, '@', true);
	keysym(&s, '@', false);
	keysym(&s, 0xfc, true);
	keysym(&s, 0xfc, false);
	keysym(&s, '^', true);
	keysym(&s, '^', false);
	keysym(&s, 0x10020ac, true);
	keysym(&s, 0x10020ac, false);
	expect_typed(w, "+100 +16 -100 -16 +26 -26 +41 -41 +100 +18 -100 -18 ");
	keysym(&s, 0x1234567, true);
	keysym(&reader, 'a', true);
	expect_typed(w, "");
	assert_int_equal(display_set_keyboard(w->display, "xx", NULL), -EINVAL);
	/* What is down when a viewer goes comes up. */
	keysym(&s, 0xffe3, true);
	keysym(&s, 'c', true);
	end(&s);
	expect_typed(w, "+29 +46 -29 -46 ");
	end(&reader);
}

static void every_layout_has_its_keys(void **state)
{
	struct keymap_key key;

	(void)state;
	for (unsigned n = 0; display_keyboard_name(n); n++) {
		const struct keymap *map = keymap_find(display_keyboard_name(n));

		for (uint32_t c = 0x21; c < 0x7f; c++)
			if (!keymap_keysym(map, c, &key) && strcmp(display_keyboard_name(n), "tr") != 0 && c != '`' &&
			    c != '~' && c != '^')
				fail_msg("%s has no %c", display_keyboard_name(n), (char)c);
	}
	assert_true(keymap_keysym(keymap_find("fr"), 'a', &key));
	assert_int_equal(key.code, KEY_Q);
	assert_true(keymap_keysym(keymap_find("us"), '{', &key));
	assert_true(key.shift && !key.letter);
}

static void pointers(void **state)
{
	struct world *w = *state;
	struct session s = open_session(w, false);

	TELL(&s, 5, 0, 0, 100, 0, 50);
	assert_int_equal(w->place_x, 0x4000);
	assert_int_equal(w->place_y, 0x4000);
	TELL(&s, 5, 0, 0xff, 0xff, 0xff, 0xff);
	assert_int_equal(w->place_x, 199 * INPUT_PLACES / 200 + 1);
	TELL(&s, 5, 1, 0, 1, 0, 1);
	TELL(&s, 5, 6, 0, 1, 0, 1);
	TELL(&s, 5, 0, 0, 1, 0, 1);
	expect_typed(w, "+272 -272 +274 +273 -274 -273 ");
	TELL(&s, 5, 8, 0, 1, 0, 1);
	TELL(&s, 5, 0, 0, 1, 0, 1);
	TELL(&s, 5, 8, 0, 1, 0, 1);
	TELL(&s, 5, 16, 0, 1, 0, 1);
	TELL(&s, 5, 16, 0, 1, 0, 1);
	assert_int_equal(w->wheel, 1);
	/* The guest has only a mouse now: differences, of one who cannot tell them; movements, of one who can. */
	w->tablet.unwanted = true;
	TELL(&s, 5, 0, 0, 10, 0, 10);
	TELL(&s, 5, 0, 0, 30, 0, 5);
	assert_int_equal(w->x, 20);
	assert_int_equal(w->y, -5);
	TELL(&s, 2, 0, 0, 1, 0xff, 0xff, 0xfe, 0xff);
	request(&s, true);
	receive(&s);
	assert_int_equal(s.c.pointer_changes, 1);
	assert_false(s.c.absolute);
	TELL(&s, 5, 0, 0x80, 0x04, 0x7f, 0xfc);
	assert_int_equal(w->x, 25);
	assert_int_equal(w->y, -8);
	w->tablet.unwanted = false;
	TELL(&s, 5, 0, 0x80, 0x04, 0x7f, 0xfc);
	assert_int_equal(w->x, 25);
	request(&s, true);
	receive(&s);
	assert_true(s.c.absolute);
	end(&s);
}

/* Whatever comes, in whatever pieces; and text for the clipboard is passed over, however much it is. */
static void hostile_viewers(void **state)
{
	struct world *w = *state;

	for (uint64_t seed = 0; seed < 2000; seed++) {
		struct session s = open_session(w, false);
		uint64_t random = seed;
		int rc = 0;

		for (unsigned n = 0; !rc && n < 50; n++) {
			static const uint8_t types[] = { 0, 2, 3, 3, 4, 5, 6, 251, 255, 1, 77 };
			uint8_t m[64];
			struct bytes all;

			for (unsigned k = 0; k < sizeof(m); k++)
				m[k] = next(&random) % 3 ? 0 : (uint8_t)next(&random);
			m[0] = types[next(&random) % ARRAY_SIZE(types)];
			rc = tell(&s, m, 1 + next(&random) % sizeof(m));
			all = produced(&s);
			free(all.data);
		}
		end(&s);
		*w->typed = 0;
	}
	struct session s = open_session(w, false);

	TELL(&s, 6, 0, 0, 0, 0, 1, 0, 0);
	for (unsigned n = 0; n < 65536 / 16; n++)
		assert_int_equal(tell(&s, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16), 0);
	keysym(&s, 'a', true);
	expect_typed(w, "+30 ");
	assert_int_equal(tell(&s, "\xff\1", 2), -EPROTO);
	end(&s);
}

/* ---- WebSockets ---- */

struct received {
	char text[256];
	size_t size;
};

static int take_payload(void *opaque, const uint8_t *data, size_t size)
{
	struct received *r = opaque;

	assert_true(r->size + size < sizeof(r->text));
	memcpy(r->text + r->size, data, size);
	r->size += size;
	return 0;
}

static int web_tell(struct web *web, const char *text, size_t size, struct bytes *out, struct received *r)
{
	int rc = 0;

	for (size_t n = 0; n < size && !rc; n++)
		rc = web_receive(web, (const uint8_t *)text + n, 1, out, take_payload, r);
	bytes_add(out, "", 1);
	return rc;
}

static void web(void **state)
{
	/* RFC 6455, 1.3 */
	static const char upgrade[] = "GET /socket?token=abc HTTP/1.1\r\nHost: x\r\nUpgrade: "
				      "websocket\r\nsec-websocket-key:  dGhlIHNhbXBsZSBub25jZQ== \r\n"
				      "Sec-WebSocket-Version: 13\r\n\r\n";
	static const struct {
		const char *request, *status;
	} requests[] = {
		{ "GET /?token=abc HTTP/1.1\r\n\r\n", "HTTP/1.1 200 " },
		{ "GET /?token=abcd HTTP/1.1\r\n\r\n", "HTTP/1.1 403 " },
		{ "GET /?token=ab HTTP/1.1\r\n\r\n", "HTTP/1.1 403 " },
		{ "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 403 " },
		{ "GET /socket?token=x HTTP/1.1\r\n\r\n", "HTTP/1.1 403 " },
		{ "GET /socket?token=abc HTTP/1.1\r\n\r\n", "HTTP/1.1 400 " },
		{ "POST /?token=abc HTTP/1.1\r\n\r\n", "HTTP/1.1 405 " },
		{ "\r\n\r\n", "HTTP/1.1 405 " },
	};
	static const char frames[] = "\x82\x83\1\2\3\4```" /* abc */
				     "\2\x81\0\0\0\0d"
				     "\x89\x82\0\0\0\0hi"
				     "\x80\x81\0\0\0\0e"
				     "\x82\xfe\0\1\0\0\0\0f"
				     "\x82\x80\0\0\0\0"
				     "\x88\x82\0\0\0\0\3\xe8";
	struct received received = { 0 };
	struct bytes out = { 0 };
	struct web *w = web_create("abc");

	(void)state;
	assert_int_equal(web_tell(w, upgrade, sizeof(upgrade) - 1, &out, &received), 0);
	assert_true(web_is_open(w));
	assert_non_null(strstr((char *)out.data, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
	out.size = 0;
	assert_int_equal(web_tell(w, frames, sizeof(frames) - 1, &out, &received), -ESHUTDOWN);
	assert_int_equal(received.size, 6);
	assert_memory_equal(received.text, "abcdef", 6);
	assert_memory_equal(out.data, "\x8a\2hi\x88\2\3\xe8", 8);
	out.size = 0;
	for (size_t size = 0; size < 70000; size += 17500) {
		struct bytes message = { calloc(1, 70000), size, 70000 };

		out.size = 0;
		assert_true(web_wrap(&message, &out));
		assert_int_equal(out.size - size, size < 126 ? 2 : size < 65536 ? 4 : 10);
		free(message.data);
	}
	web_destroy(w);
	for (unsigned n = 0; n < ARRAY_SIZE(requests); n++) {
		w = web_create("abc");
		out.size = 0;
		assert_int_equal(web_tell(w, requests[n].request, strlen(requests[n].request), &out, &received),
				 -ESHUTDOWN);
		assert_memory_equal(out.data, requests[n].status, 13);
		web_destroy(w);
	}
	/* No mask; a text; too long a ping. */
	for (unsigned n = 0; n < 3; n++) {
		static const char *const bad[] = { "\x82\1a\1\1\1", "\x81\x81\0\0\0\0", "\x89\xfe\1\1\0\0\0\0" };
		static const size_t lengths[] = { 6, 6, 8 };

		w = web_create("abc");
		assert_int_equal(web_tell(w, upgrade, sizeof(upgrade) - 1, &out, &received), 0);
		assert_int_equal(web_tell(w, bad[n], lengths[n], &out, &received), -EPROTO);
		web_destroy(w);
	}
	w = web_create("abc");
	for (unsigned n = 0; n < 8192; n++)
		assert_int_equal(web_tell(w, "x", 1, &out, &received), 0);
	assert_int_equal(web_tell(w, "x", 1, &out, &received), -ESHUTDOWN);
	web_destroy(w);
	free(out.data);
}

/* ---- servers ---- */

/* The loop runs in the test's own thread, for so many looks at what is there. */
struct turns {
	struct world *w;
	unsigned left;
};

static uint64_t count_turn(void *opaque)
{
	struct turns *t = opaque;

	if (!t->left--)
		event_loop_stop(t->w->loop);
	return 0;
}

static void turn(struct world *w, unsigned rounds)
{
	struct turns turns = { w, rounds };

	event_loop_set_tick(w->loop, count_turn, &turns);
	event_loop_run(w->loop);
	event_loop_set_tick(w->loop, NULL, NULL);
}

static int connect_unix(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void handshake(struct world *w, int fd)
{
	char data[64];

	turn(w, 3);
	assert_int_equal(recv(fd, data, 12, 0), 12);
	assert_int_equal(send(fd, "RFB 003.008\n\1\1", 14, 0), 14);
	turn(w, 6);
	assert_int_equal(recv(fd, data, 36, 0), 36);
}

static void viewers_by_socket(void **state)
{
	struct world *w = *state;
	char path[64], spec[128], data[4096];
	int quick, slow, many[20];
	struct error err = { 0 };
	ssize_t n;
	size_t received = 0;

	snprintf(path, sizeof(path), "/tmp/test-rfb-%d", getpid());
	snprintf(spec, sizeof(spec), "vnc:unix:%s,exclusive", path);
	screen_set_size(w->screen, 1024, 768);
	assert_int_equal(display_show(w->display, spec, &err), 0);
	assert_int_equal(display_show(w->display, spec, &err), -EADDRINUSE);
	slow = connect_unix(path);
	handshake(w, slow);
	quick = connect_unix(path);
	handshake(w, quick);
	/* One asks and never takes; the other goes on. */
	for (unsigned k = 0; k < 50; k++) {
		assert_int_equal(send(slow, "\3\0\0\0\0\0\4\0\3\0", 10, 0), 10);
		paint(w, k);
		turn(w, 5);
	}
	assert_int_equal(send(quick, "\3\0\0\0\0\0\4\0\3\0", 10, 0), 10);
	for (unsigned k = 0; k < 5000 && received < 1024 * 768 * 4; k++) {
		turn(w, 1);
		while ((n = recv(quick, data, sizeof(data), 0)) > 0)
			received += (size_t)n;
	}
	assert_true(received > 1024 * 768 * 4);
	/* More than there is room for: those who say nothing make room. */
	for (unsigned k = 0; k < ARRAY_SIZE(many); k++) {
		many[k] = connect_unix(path);
		turn(w, 3);
	}
	assert_int_equal(recv(many[0], data, 12, 0), 12);
	assert_int_equal(recv(many[0], data, 1, 0), 0);
	assert_int_equal(recv(many[19], data, 12, 0), 12);
	/* One who wants to be alone. */
	assert_int_equal(send(many[19], "RFB 003.008\n\1\0", 14, 0), 14);
	turn(w, 8);
	while ((n = recv(quick, data, sizeof(data), 0)) > 0)
		;
	assert_int_equal(n, 0);
	assert_true(recv(many[19], data, sizeof(data), 0) > 20);
	close(quick);
	close(slow);
	for (unsigned k = 0; k < ARRAY_SIZE(many); k++)
		close(many[k]);
	turn(w, 4);
}

static void specs(void **state)
{
	static const char *const good[] = { "none", "vnc:5900", "vnc:0.0.0.0:1",
					    "web:[::1]:6080,password-file=x,readonly", "vnc:unix:/x,exclusive" };
	static const char *const bad[] = { "",
					   "vnc",
					   "vnc:",
					   "vnc:x",
					   "vnc:65536",
					   "vnc:unix:",
					   "web:unix:/x",
					   "vnc:1,password=x",
					   "vnc:1,readonly=1",
					   "vnc:1,",
					   "vnc:1,password-file=",
					   "vnc:1,password-file=a,password-env=b" };
	struct world *w = *state;
	struct error err = { 0 };
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t size = sizeof(address);
	char text[64];
	int fd;

	for (unsigned n = 0; n < ARRAY_SIZE(good); n++)
		assert_int_equal(display_check(good[n], &err), 0);
	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++)
		if (display_check(bad[n], &err) != -EINVAL)
			fail_msg("'%s' is taken", bad[n]);
	/* Who has a port is said. */
	fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)) || listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	snprintf(text, sizeof(text), "vnc:%u", ntohs(address.sin_port));
	assert_int_equal(display_show(w->display, text, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "already in use by test_rfb"));
	close(fd);
	assert_int_equal(display_show(w->display, "vnc:localhost:0", &err), -EINVAL);
	setenv("TEST_RFB_PASSWORD", "123456789", 1);
	assert_int_equal(display_show(w->display, "vnc:0,password-env=TEST_RFB_PASSWORD", &err), -EINVAL);
	assert_int_equal(display_show(w->display, "web:0,password-env=TEST_RFB_PASSWORD", &err), 0);
	setenv("TEST_RFB_PASSWORD", "a&b", 1);
	assert_int_equal(display_show(w->display, "web:0,password-env=TEST_RFB_PASSWORD", &err), -EINVAL);
	assert_int_equal(display_show(w->display, "vnc:0,password-env=TEST_RFB_NO", &err), -EINVAL);
	assert_int_equal(display_show(w->display, "vnc:0,password-file=/nowhere", &err), -ENOENT);
	assert_int_equal(display_show(w->display, "none", &err), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(versions),
		TEST(passwords),
		TEST(formats_and_encodings),
		TEST(other_formats),
		TEST(changes),
		TEST(sizes),
		TEST(keys),
		TEST(every_layout_has_its_keys),
		TEST(pointers),
		TEST(hostile_viewers),
		TEST(web),
		TEST(viewers_by_socket),
		TEST(specs),
	};

	log_set_level(LOG_ERROR);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
