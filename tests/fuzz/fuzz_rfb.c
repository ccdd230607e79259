/*
 * A viewer that sends whatever the input says, plainly or in a WebSocket, and whose picture changes meanwhile. Nothing may crash, what is sent has bounds,
 * and a session that waits to say something says it.
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

/* The first bytes say what the server is like and where each piece ends. */
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
	struct rfb *rfb =
		rfb_create(display, &(struct rfb_options){ .password = flags & 1 ? "x" : NULL, .readonly = flags & 2 });
	struct web *web = flags & 4 ? web_create("t") : NULL;
	struct bytes answers = { 0 };
	int rc = 0;

	if (!(flags & 8)) {
		screen = screen_create(display, &screen_ops, NULL);
		screen_set_size(screen, 100, 70);
	}
	input_add(display, &keys);
	input_add(display, &mouse);
	if (flags & 16)
		input_add(display, &tablet);
	for (size_t at = 2; !rc && at < size;) {
		size_t piece = MIN(size - at, 1u + seed % 61u);

		rc = web ? web_receive(web, data + at, piece, &answers, receive, rfb)
			 : rfb_receive(rfb, data + at, piece);
		at += piece;
		seed = (uint8_t)(seed * 5 + 1);
		if (seed % 4 == 0 && screen) {
			screen_set_size(screen, 50u + seed, 40u + seed % 16u);
			display_picture(display);
		} else if (screen) {
			screen_changed(screen, (struct rectangle){ seed, seed % 32u, 40, 40 });
		}
		say(rfb);
	}
	rfb_destroy(rfb);
	web_destroy(web);
	free(answers.data);
	input_remove(display, &keys);
	input_remove(display, &mouse);
	if (flags & 16)
		input_remove(display, &tablet);
	screen_destroy(screen);
	display_destroy(display);
	event_loop_destroy(loop);
	return 0;
}
