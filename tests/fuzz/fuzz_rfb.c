/*
 * A viewer that sends whatever the input says, plainly or in a WebSocket, from the first byte or once it has been let in, and whose picture changes
 * meanwhile. Nothing may crash, what is sent has bounds, and a session that waits to say something says it.
 */
#include "display/web.h"

#include <stdlib.h>

#define MOST_PIECE (512u * 64 * 4 + 65536)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void draw(void *opaque, struct screen *screen)
{
	(void)opaque;
	(void)screen;
}

static void ignore_key(void *opaque, unsigned code, bool down)
{
	(void)opaque;
	if (code >= KEY_CNT)
		abort();
	(void)down;
}

static void ignore_move(void *opaque, int32_t x, int32_t y)
{
	(void)opaque;
	(void)x;
	(void)y;
}

static void check_place(void *opaque, uint32_t x, uint32_t y)
{
	(void)opaque;
	if (x >= INPUT_PLACES || y >= INPUT_PLACES)
		abort();
}

static void ignore_wheel(void *opaque, int32_t up)
{
	(void)opaque;
	(void)up;
}

static const struct input_ops input_ops = {
	.key = ignore_key, .button = ignore_key, .move = ignore_move, .place = check_place, .wheel = ignore_wheel
};

static int receive(void *opaque, const uint8_t *data, size_t size) { return rfb_receive(opaque, data, size); }

static void say(struct rfb *rfb)
{
	struct bytes out = { 0 };

	for (unsigned n = 0; n < 200 && rfb_waits(rfb); n++) {
		out.size = 0;
		if (rfb_produce(rfb, &out) || !out.size || out.size > MOST_PIECE)
			abort();
	}
	free(out.data);
}

/* What the input's first byte says. */
#define HAS_PASSWORD  BIT(0)
#define IS_READONLY   BIT(1)
#define IS_WEB	      BIT(2)
#define HAS_NO_SCREEN BIT(3)
#define HAS_TABLET    BIT(4)
#define IS_STRANGER   BIT(5) /* the input begins with the first byte of all */
#define HAS_NO_FRAMES BIT(6) /* they are the input's affair, too */

struct connection {
	struct rfb *rfb;
	struct web *web; /* NULL: plain RFB */
	bool framed;
	struct bytes answers;
};

static int tell(struct connection *c, const void *data, size_t size)
{
	/* One frame, whose mask changes nothing. */
	const uint8_t head[] = { 0x82, 0x80 | (uint8_t)size, 0, 0, 0, 0 };

	c->answers.size = 0;
	if (!c->web)
		return rfb_receive(c->rfb, data, size);
	if (c->framed && web_receive(c->web, head, sizeof(head), &c->answers, receive, c->rfb))
		abort();
	return web_receive(c->web, data, size, &c->answers, receive, c->rfb);
}

/* The viewer is let in, and wants what no viewer wants at once. */
static void be_let_in(struct connection *c, bool framed)
{
	static const char upgrade[] =
		"GET /socket?token=t HTTP/1.1\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n";
	static const char version[] = "RFB 003.008\n";
	static const uint8_t encodings[] = { 2,	   0,	 0,    6,    0,	   0,	 0,    16,   0xff, 0xff,
					     0xff, 0x21, 0xff, 0xff, 0xfe, 0xcc, 0xff, 0xff, 0xfe, 0xff,
					     0xff, 0xff, 0xfe, 0xfe, 0xff, 0xff, 0xfe, 0xfb };

	if (c->web && tell(c, upgrade, sizeof(upgrade) - 1))
		abort();
	c->framed = true;
	if (tell(c, version, sizeof(version) - 1))
		abort();
	say(c->rfb);
	if (tell(c, "\1", 1))
		abort();
	say(c->rfb);
	if (tell(c, "\1", 1) || !rfb_is_open(c->rfb))
		abort();
	say(c->rfb);
	if (tell(c, encodings, sizeof(encodings)) || tell(c, "\3\0\0\0\0\0\0\100\0\100", 10))
		abort();
	say(c->rfb);
	c->framed = framed;
}

/* The first byte says what the server is like, the second where each piece ends. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct screen_ops screen_ops = { .draw = draw };
	struct event_loop *loop = event_loop_create(NULL);
	struct display *display = display_create(loop, NULL);
	struct screen *screen = NULL;
	struct input keys = { .kind = INPUT_KEYS, .ops = &input_ops },
		     mouse = { .kind = INPUT_RELATIVE, .ops = &input_ops };
	struct input tablet = { .kind = INPUT_ABSOLUTE, .ops = &input_ops };
	uint8_t flags = size ? data[0] : 0, seed = size > 1 ? data[1] : 0;
	bool stranger = flags & (IS_STRANGER | HAS_PASSWORD);
	struct connection c = {
		.rfb = rfb_create(display, &(struct rfb_options){ .password = flags & HAS_PASSWORD ? "x" : NULL,
								  .readonly = flags & IS_READONLY }),
		.web = flags & IS_WEB ? web_create("t") : NULL,
	};
	int rc = 0;

	if (!(flags & HAS_NO_SCREEN)) {
		screen = screen_create(display, &screen_ops, NULL);
		screen_set_size(screen, 100, 70);
	}
	input_add(display, &keys);
	input_add(display, &mouse);
	if (flags & HAS_TABLET)
		input_add(display, &tablet);
	if (!stranger)
		be_let_in(&c, !(flags & HAS_NO_FRAMES));
	for (size_t at = 2; !rc && at < size;) {
		size_t piece = MIN(size - at, 1u + seed % 61u);

		rc = tell(&c, data + at, piece);
		at += piece;
		seed = (uint8_t)(seed * 5 + 1);
		if (seed % 4 == 0 && screen) {
			screen_set_size(screen, 50u + seed, 40u + seed % 16u);
			display_picture(display);
		} else if (screen) {
			screen_changed(screen, (struct rectangle){ seed, seed % 32u, 40, 40 });
		}
		say(c.rfb);
	}
	rfb_destroy(c.rfb);
	web_destroy(c.web);
	free(c.answers.data);
	input_remove(display, &keys);
	input_remove(display, &mouse);
	if (flags & HAS_TABLET)
		input_remove(display, &tablet);
	screen_destroy(screen);
	display_destroy(display);
	event_loop_destroy(loop);
	return 0;
}
