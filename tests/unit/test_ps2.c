/*
 * The 8042 with its keyboard and its mouse by the book: what drivers send and what they get, codes of the three sets, repetition, overrun; packets of the
 * three kinds of mice. And which device it is that gets what a viewer types.
 */
#include "display/display.h"
#include "lib/board.h"

#include <errno.h>
#include <linux/input-event-codes.h>

#define MS 1000000ull

#define STATUS_FULL 0x01
#define STATUS_AUX  0x20

struct world {
	struct board *b;
	struct event_loop *loop;
	struct display *display;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->b = board_create(1);
	w->loop = event_loop_create(NULL);
	w->display = display_create(w->loop, NULL);
	w->b->bus->display = w->display;
	assert_int_equal(kbc_type.create(w->b->bus, NULL, NULL), 0);
	board_pic_init(w->b);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	board_destroy(w->b);
	display_destroy(w->display);
	event_loop_destroy(w->loop);
	free(w);
	return 0;
}

/* ---- a driver ---- */

/* The next byte, its source in `aux`; -1: none comes within 20 ms. */
static int next_byte(struct board *b, bool *aux)
{
	for (unsigned n = 0; n < 200; n++) {
		uint8_t status = inb(b, 0x64);

		if (status & STATUS_FULL) {
			*aux = status & STATUS_AUX;
			return inb(b, 0x60);
		}
		board_run(b, MS / 10);
	}
	return -1;
}

static void expect(struct board *b, bool from_mouse, const uint8_t *bytes, unsigned count)
{
	bool aux;

	for (unsigned n = 0; n < count; n++) {
		int byte = next_byte(b, &aux);

		if (byte != bytes[n] || aux != from_mouse)
			fail_msg("byte %u is 0x%02x of port %d, expected 0x%02x", n, byte, aux, bytes[n]);
	}
}

#define BYTES(...)		((const uint8_t[]){ __VA_ARGS__ })
#define EXPECT_KEYBOARD(b, ...) expect(b, false, BYTES(__VA_ARGS__), sizeof(BYTES(__VA_ARGS__)))
#define EXPECT_MOUSE(b, ...)	expect(b, true, BYTES(__VA_ARGS__), sizeof(BYTES(__VA_ARGS__)))
#define EXPECT_QUIET(b)                                                                                                \
	do {                                                                                                           \
		bool aux_;                                                                                             \
		assert_int_equal(next_byte(b, &aux_), -1);                                                             \
	} while (0)

static void to_keyboard(struct board *b, uint8_t byte) { outb(b, 0x60, byte); }

static void to_mouse(struct board *b, uint8_t byte)
{
	outb(b, 0x64, 0xd4);
	outb(b, 0x60, byte);
}

/* One that is acknowledged. */
static void tell_keyboard(struct board *b, uint8_t byte)
{
	to_keyboard(b, byte);
	EXPECT_KEYBOARD(b, 0xfa);
}

static void tell_mouse(struct board *b, uint8_t byte)
{
	to_mouse(b, byte);
	EXPECT_MOUSE(b, 0xfa);
}

static void set_command_byte(struct board *b, uint8_t value)
{
	outb(b, 0x64, 0x60);
	outb(b, 0x60, value);
}

static bool interrupt(struct board *b, int vector)
{
	int taken = board_take(b);

	assert_true(taken == -1 || taken == vector);
	if (taken >= 0x28)
		outb(b, 0xa0, 0x20);
	if (taken >= 0)
		outb(b, 0x20, 0x20);
	return taken >= 0;
}

static void press(struct world *w, unsigned key)
{
	display_key(w->display, key, true);
	display_complete(w->display);
}

static void release(struct world *w, unsigned key)
{
	display_key(w->display, key, false);
	display_complete(w->display);
}

/* ---- the controller ---- */

static void controller_commands(void **state)
{
	struct board *b = ((struct world *)*state)->b;
	bool aux;

	outb(b, 0x64, 0xaa);
	EXPECT_KEYBOARD(b, 0x55);
	outb(b, 0x64, 0xab);
	EXPECT_KEYBOARD(b, 0x00);
	outb(b, 0x64, 0xa9);
	EXPECT_KEYBOARD(b, 0x00);
	set_command_byte(b, 0x47);
	outb(b, 0x64, 0x20);
	EXPECT_KEYBOARD(b, 0x47);
	outb(b, 0x64, 0xa7);
	outb(b, 0x64, 0xad);
	outb(b, 0x64, 0x20);
	EXPECT_KEYBOARD(b, 0x77);
	outb(b, 0x64, 0xd3);
	outb(b, 0x60, 0x5a);
	EXPECT_MOUSE(b, 0x5a);
	outb(b, 0x64, 0xd2);
	outb(b, 0x60, 0x1e);
	EXPECT_KEYBOARD(b, 0x1e);
	outb(b, 0x64, 0xd0);
	assert_int_equal(next_byte(b, &aux) & 3, 3);
	assert_int_equal(b->requests[BUS_REQUEST_INIT], 0);
	outb(b, 0x64, 0xfe);
	assert_int_equal(b->requests[BUS_REQUEST_INIT], 1);
	EXPECT_QUIET(b);
}

/* Interrupts as the command byte says, and the byte stays until the next one comes. */
static void bytes_take_their_time(void **state)
{
	struct world *w = *state;
	struct board *b = w->b;

	press(w, KEY_A);
	release(w, KEY_A);
	assert_int_equal(inb(b, 0x64) & STATUS_FULL, 0);
	board_run(b, MS);
	assert_int_equal(inb(b, 0x64) & STATUS_FULL, STATUS_FULL);
	assert_true(interrupt(b, 0x21));
	assert_int_equal(inb(b, 0x60), 0x1e);
	assert_int_equal(inb(b, 0x60), 0x1e);
	assert_int_equal(inb(b, 0x64) & STATUS_FULL, 0);
	assert_false(interrupt(b, 0x21));
	board_run(b, 2 * MS); /* 0xf0 is the controller's, then the code */
	assert_true(interrupt(b, 0x21));
	assert_int_equal(inb(b, 0x60), 0x9e);
	set_command_byte(b, 0x44);
	press(w, KEY_A);
	board_run(b, MS);
	assert_false(interrupt(b, 0x21));
	EXPECT_KEYBOARD(b, 0x1e);
	set_command_byte(b, 0x47);
	to_mouse(b, 0xf2);
	board_run(b, MS);
	assert_true(interrupt(b, 0x2c));
	EXPECT_MOUSE(b, 0xfa, 0x00);
}

/* What the controller answers is first, and what it displaced comes again. */
static void answers_displace_no_key(void **state)
{
	struct world *w = *state;

	press(w, KEY_B);
	board_run(w->b, MS);
	outb(w->b, 0x64, 0x20);
	EXPECT_KEYBOARD(w->b, 0x45, 0x30);
	EXPECT_QUIET(w->b);
	/* Of a port that is off nothing comes until it is on. */
	outb(w->b, 0x64, 0xad);
	press(w, KEY_C);
	EXPECT_QUIET(w->b);
	outb(w->b, 0x64, 0xae);
	EXPECT_KEYBOARD(w->b, 0x2e);
}

/* ---- the keyboard ---- */

static void keyboard_commands(void **state)
{
	struct board *b = ((struct world *)*state)->b;

	set_command_byte(b, 0x04); /* untranslated */
	to_keyboard(b, 0xff);
	EXPECT_KEYBOARD(b, 0xfa, 0xaa);
	to_keyboard(b, 0xee);
	EXPECT_KEYBOARD(b, 0xee);
	to_keyboard(b, 0xf2);
	EXPECT_KEYBOARD(b, 0xfa, 0xab, 0x83);
	to_keyboard(b, 0xfe);
	EXPECT_KEYBOARD(b, 0x83);
	tell_keyboard(b, 0xf0);
	to_keyboard(b, 0);
	EXPECT_KEYBOARD(b, 0xfa, 0x02);
	tell_keyboard(b, 0xf0);
	to_keyboard(b, 4);
	EXPECT_KEYBOARD(b, 0xfe);
	tell_keyboard(b, 0xed);
	tell_keyboard(b, 0xf4); /* a command in place of the parameter */
	tell_keyboard(b, 0xf3);
	tell_keyboard(b, 0x00);
	to_keyboard(b, 0xe1);
	EXPECT_KEYBOARD(b, 0xfe);
	EXPECT_QUIET(b);
}

static void lamps(void **state)
{
	struct world *w = *state;

	tell_keyboard(w->b, 0xed);
	tell_keyboard(w->b, LAMP_CAPS | LAMP_NUM);
	assert_int_equal(display_lamps(w->display), LAMP_CAPS | LAMP_NUM);
	to_keyboard(w->b, 0xff);
	EXPECT_KEYBOARD(w->b, 0xfa, 0xaa);
	assert_int_equal(display_lamps(w->display), 0);
}

static void choose_set(struct board *b, uint8_t set)
{
	tell_keyboard(b, 0xf0);
	tell_keyboard(b, set);
}

static void tap(struct world *w, unsigned key)
{
	press(w, key);
	release(w, key);
}

static void codes_of_set_2(void **state)
{
	struct world *w = *state;
	struct board *b = w->b;

	set_command_byte(b, 0x04);
	tap(w, KEY_A);
	EXPECT_KEYBOARD(b, 0x1c, 0xf0, 0x1c);
	tap(w, KEY_F7);
	EXPECT_KEYBOARD(b, 0x83, 0xf0, 0x83);
	tap(w, KEY_UP);
	EXPECT_KEYBOARD(b, 0xe0, 0x75, 0xe0, 0xf0, 0x75);
	tap(w, KEY_SYSRQ);
	EXPECT_KEYBOARD(b, 0xe0, 0x12, 0xe0, 0x7c, 0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12);
	tap(w, KEY_PAUSE);
	EXPECT_KEYBOARD(b, 0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77);
	press(w, KEY_LEFTALT);
	tap(w, KEY_SYSRQ);
	release(w, KEY_LEFTALT);
	EXPECT_KEYBOARD(b, 0x11, 0x84, 0xf0, 0x84, 0xf0, 0x11);
	press(w, KEY_RIGHTCTRL);
	tap(w, KEY_PAUSE);
	release(w, KEY_RIGHTCTRL);
	EXPECT_KEYBOARD(b, 0xe0, 0x14, 0xe0, 0x7e, 0xe0, 0xf0, 0x7e, 0xe0, 0xf0, 0x14);
	EXPECT_QUIET(b);
}

/* By the controller, and by the keyboard itself: the same. */
static void codes_of_set_1(void **state)
{
	struct world *w = *state;
	struct board *b = w->b;

	for (unsigned by_keyboard = 0; by_keyboard < 2; by_keyboard++) {
		set_command_byte(b, by_keyboard ? 0x04 : 0x44);
		choose_set(b, by_keyboard ? 1 : 2);
		tap(w, KEY_ESC);
		tap(w, KEY_102ND);
		EXPECT_KEYBOARD(b, 0x01, 0x81, 0x56, 0xd6);
		tap(w, KEY_DELETE);
		EXPECT_KEYBOARD(b, 0xe0, 0x53, 0xe0, 0xd3);
		tap(w, KEY_F7);
		tap(w, KEY_F12);
		EXPECT_KEYBOARD(b, 0x41, 0xc1, 0x58, 0xd8);
		tap(w, KEY_PAUSE);
		EXPECT_KEYBOARD(b, 0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5);
		tap(w, KEY_SYSRQ);
		EXPECT_KEYBOARD(b, 0xe0, 0x2a, 0xe0, 0x37, 0xe0, 0xb7, 0xe0, 0xaa);
		EXPECT_QUIET(b);
	}
}

static void codes_of_set_3(void **state)
{
	struct world *w = *state;
	struct board *b = w->b;

	set_command_byte(b, 0x04);
	choose_set(b, 3);
	tap(w, KEY_A);
	tap(w, KEY_F1);
	tap(w, KEY_LEFTSHIFT);
	tap(w, KEY_PAUSE);
	EXPECT_KEYBOARD(b, 0x1c, 0x07, 0x12, 0xf0, 0x12, 0x62);
	tell_keyboard(b, 0xfa);
	tap(w, KEY_F1);
	EXPECT_KEYBOARD(b, 0x07, 0xf0, 0x07);
	tell_keyboard(b, 0xfd);
	tell_keyboard(b, 0x07);
	tell_keyboard(b, 0x0f);
	tell_keyboard(b, 0xf4);
	tap(w, KEY_F1);
	tap(w, KEY_F2);
	tap(w, KEY_F3);
	EXPECT_KEYBOARD(b, 0x07, 0x0f, 0x17, 0xf0, 0x17);
	EXPECT_QUIET(b);
}

static unsigned codes_within(struct board *b, uint64_t ns, uint8_t code)
{
	unsigned count = 0;

	for (uint64_t past = 0; past < ns; past += MS) {
		board_run(b, MS);
		if (inb(b, 0x64) & STATUS_FULL) {
			assert_int_equal(inb(b, 0x60), code);
			count++;
		}
	}
	return count;
}

static void repetition(void **state)
{
	struct world *w = *state;
	struct board *b = w->b;

	press(w, KEY_A);
	EXPECT_KEYBOARD(b, 0x1e);
	press(w, KEY_A); /* a viewer that repeats by itself */
	assert_int_equal(codes_within(b, 470 * MS, 0x1e), 0);
	assert_in_range(codes_within(b, 1000 * MS, 0x1e), 10, 11);
	release(w, KEY_A);
	EXPECT_KEYBOARD(b, 0x9e);
	assert_int_equal(codes_within(b, 1000 * MS, 0), 0);
	tell_keyboard(b, 0xf3);
	tell_keyboard(b, 0x00); /* 30 a second behind 250 ms */
	press(w, KEY_B);
	EXPECT_KEYBOARD(b, 0x30);
	press(w, KEY_LEFTSHIFT); /* the last key that was pressed is the one */
	EXPECT_KEYBOARD(b, 0x2a);
	assert_int_equal(codes_within(b, 230 * MS, 0x2a), 0);
	assert_in_range(codes_within(b, 1000 * MS, 0x2a), 29, 31);
	release(w, KEY_B);
	release(w, KEY_LEFTSHIFT);
	EXPECT_KEYBOARD(b, 0xb0, 0xaa);
	EXPECT_QUIET(b);
}

/* Who does not look loses nothing of what a person types, and is told of more. */
static void overrun(void **state)
{
	struct world *w = *state;
	struct board *b = w->b;
	unsigned count = 0;
	bool aux;
	int byte;

	set_command_byte(b, 0x04);
	for (unsigned n = 0; n < 1000; n++)
		tap(w, KEY_A);
	while ((byte = next_byte(b, &aux)) > 0)
		count++;
	assert_int_equal(byte, 0);
	assert_in_range(count, 190, 250);
	EXPECT_QUIET(b);
	tap(w, KEY_A);
	EXPECT_KEYBOARD(b, 0x1c, 0xf0, 0x1c);
	/* Not scanning: nothing is kept. */
	tell_keyboard(b, 0xf5);
	tap(w, KEY_A);
	EXPECT_QUIET(b);
	tell_keyboard(b, 0xf4);
	EXPECT_QUIET(b);
	tap(w, KEY_A);
	EXPECT_KEYBOARD(b, 0x1c, 0xf0, 0x1c);
}

/* ---- the mouse ---- */

static void mouse_commands(void **state)
{
	struct board *b = ((struct world *)*state)->b;

	to_mouse(b, 0xff);
	EXPECT_MOUSE(b, 0xfa, 0xaa, 0x00);
	to_mouse(b, 0xf2);
	EXPECT_MOUSE(b, 0xfa, 0x00);
	to_mouse(b, 0xe9);
	EXPECT_MOUSE(b, 0xfa, 0x00, 0x02, 100);
	tell_mouse(b, 0xf3);
	tell_mouse(b, 40);
	tell_mouse(b, 0xe8);
	tell_mouse(b, 3);
	tell_mouse(b, 0xe7);
	tell_mouse(b, 0xf4);
	to_mouse(b, 0xe9);
	EXPECT_MOUSE(b, 0xfa, 0x30, 0x03, 40);
	/* What is no rate: twice, then an error. */
	tell_mouse(b, 0xf3);
	to_mouse(b, 41);
	EXPECT_MOUSE(b, 0xfe);
	to_mouse(b, 42);
	EXPECT_MOUSE(b, 0xfc);
	to_mouse(b, 0xe1);
	EXPECT_MOUSE(b, 0xfc);
	tell_mouse(b, 0xee);
	to_mouse(b, 0xf2);
	EXPECT_MOUSE(b, 0xf2);
	tell_mouse(b, 0xec);
	tell_mouse(b, 0xf6);
	to_mouse(b, 0xe9);
	EXPECT_MOUSE(b, 0xfa, 0x00, 0x02, 100);
	to_mouse(b, 0xfe);
	EXPECT_MOUSE(b, 100);
	EXPECT_QUIET(b);
}

static void move(struct world *w, int x, int y)
{
	display_move(w->display, x, y);
	display_complete(w->display);
}

static void button(struct world *w, unsigned code, bool down)
{
	display_button(w->display, code, down);
	display_complete(w->display);
}

static void packets(void **state)
{
	struct world *w = *state;
	struct board *b = w->b;

	move(w, 5, 5);
	EXPECT_QUIET(b);
	tell_mouse(b, 0xf4);
	EXPECT_QUIET(b); /* what was before does not count */
	move(w, 5, 3);
	EXPECT_MOUSE(b, 0x28, 5, 0xfd);
	move(w, -5, -3);
	EXPECT_MOUSE(b, 0x18, 0xfb, 3);
	button(w, BTN_LEFT, true);
	EXPECT_MOUSE(b, 0x09, 0, 0);
	button(w, BTN_RIGHT, true);
	button(w, BTN_MIDDLE, true);
	button(w, BTN_LEFT, false);
	EXPECT_MOUSE(b, 0x0b, 0, 0, 0x0f, 0, 0, 0x0e, 0, 0);
	/* Pressed and let go of before anybody looked. */
	board_run(b, 20 * MS);
	move(w, 1, 0);
	button(w, BTN_RIGHT, false);
	button(w, BTN_RIGHT, true);
	EXPECT_MOUSE(b, 0x0e, 1, 0, 0x0c, 0, 0, 0x0e, 0, 0);
	/* More than a packet has room for; and far too much. */
	button(w, BTN_RIGHT, false);
	button(w, BTN_MIDDLE, false);
	EXPECT_MOUSE(b, 0x0c, 0, 0, 0x08, 0, 0);
	move(w, 300, 0);
	EXPECT_MOUSE(b, 0x08, 255, 0, 0x08, 45, 0);
	move(w, 1, 1);
	for (unsigned n = 0; n < 5; n++)
		move(w, 10000, 0);
	EXPECT_MOUSE(b, 0x68, 255, 255, 0x08, 255, 0, 0x08, 255, 0);
	tell_mouse(b, 0xf5);
	move(w, 1, 1);
	EXPECT_QUIET(b);
	display_wheel(w->display, 1);
	display_complete(w->display);
	EXPECT_QUIET(b);
}

static void rates_and_scaling(void **state)
{
	struct world *w = *state;
	struct board *b = w->b;
	unsigned bytes = 0;

	tell_mouse(b, 0xf3);
	tell_mouse(b, 20);
	tell_mouse(b, 0xf4);
	for (unsigned n = 0; n < 1000; n++) {
		move(w, 1, 0);
		board_run(b, MS);
		if (inb(b, 0x64) & STATUS_FULL) {
			inb(b, 0x60);
			bytes++;
		}
	}
	assert_in_range(bytes, 57, 63);
	tell_mouse(b, 0xe7);
	tell_mouse(b, 0xf4);
	board_run(b, 100 * MS);
	move(w, 3, 0);
	EXPECT_MOUSE(b, 0x08, 3, 0);
	move(w, 5, -2);
	board_run(b, 50 * MS);
	EXPECT_MOUSE(b, 0x08, 9, 1);
}

static void remote_mode(void **state)
{
	struct world *w = *state;
	struct board *b = w->b;

	tell_mouse(b, 0xf0);
	move(w, 7, 0);
	EXPECT_QUIET(b);
	to_mouse(b, 0xeb);
	EXPECT_MOUSE(b, 0xfa, 0x08, 7, 0);
	to_mouse(b, 0xeb);
	EXPECT_MOUSE(b, 0xfa, 0x08, 0, 0);
	tell_mouse(b, 0xea);
	EXPECT_QUIET(b);
}

static void set_rates(struct board *b, uint8_t first, uint8_t second, uint8_t third)
{
	tell_mouse(b, 0xf3);
	tell_mouse(b, first);
	tell_mouse(b, 0xf3);
	tell_mouse(b, second);
	tell_mouse(b, 0xf3);
	tell_mouse(b, third);
}

static void wheels(void **state)
{
	struct world *w = *state;
	struct board *b = w->b;

	set_rates(b, 200, 100, 80);
	to_mouse(b, 0xf2);
	EXPECT_MOUSE(b, 0xfa, 3);
	tell_mouse(b, 0xf4);
	display_wheel(w->display, 1);
	display_complete(w->display);
	EXPECT_MOUSE(b, 0x08, 0, 0, 0xff);
	board_run(b, 20 * MS);
	display_wheel(w->display, -9);
	display_complete(w->display);
	EXPECT_MOUSE(b, 0x08, 0, 0, 7, 0x08, 0, 0, 2);
	set_rates(b, 200, 200, 80);
	to_mouse(b, 0xf2);
	EXPECT_MOUSE(b, 0xfa, 4);
	board_run(b, 20 * MS);
	button(w, BTN_SIDE, true);
	button(w, BTN_EXTRA, true);
	display_wheel(w->display, 1);
	display_complete(w->display);
	EXPECT_MOUSE(b, 0x08, 0, 0, 0x10, 0x08, 0, 0, 0x3f);
	to_mouse(b, 0xff);
	EXPECT_MOUSE(b, 0xfa, 0xaa, 0);
}

/* ---- who gets what ---- */

struct receiver {
	struct input input;
	unsigned keys, releases, buttons, places, completes;
	uint32_t x, y;
};

static void count_key(void *opaque, unsigned code, bool down)
{
	struct receiver *r = opaque;

	(void)code;
	r->keys += down;
	r->releases += !down;
}

static void count_button(void *opaque, unsigned code, bool down)
{
	(void)code;
	(void)down;
	((struct receiver *)opaque)->buttons++;
}

static void count_place(void *opaque, uint32_t x, uint32_t y)
{
	struct receiver *r = opaque;

	r->places++;
	r->x = x;
	r->y = y;
}

static void count_complete(void *opaque) { ((struct receiver *)opaque)->completes++; }

static const struct input_ops receiver_ops = {
	.key = count_key, .button = count_button, .place = count_place, .complete = count_complete
};

static void no_drawing(void *opaque, struct screen *screen)
{
	(void)opaque;
	(void)screen;
}

static void routing(void **state)
{
	static const struct screen_ops screen_ops = { .draw = no_drawing };
	struct world *w = *state;
	struct board *b = w->b;
	struct screen *screen = screen_create(w->display, &screen_ops, NULL);
	struct receiver keys = { .input = { .kind = INPUT_KEYS, .ops = &receiver_ops } };
	struct receiver tablet = { .input = { .kind = INPUT_ABSOLUTE, .ops = &receiver_ops } };

	screen_set_size(screen, 640, 480);
	keys.input.opaque = &keys;
	tablet.input.opaque = &tablet;
	input_add(w->display, &keys.input);
	input_add(w->display, &tablet.input);
	tell_mouse(b, 0xf4);
	press(w, KEY_A);
	keys.input.unwanted = true;
	release(w, KEY_A);
	assert_int_equal(keys.keys, 1);
	assert_int_equal(keys.releases, 1);
	assert_int_equal(keys.completes, 2);
	EXPECT_QUIET(b);
	press(w, KEY_B);
	release(w, KEY_B);
	release(w, KEY_B);
	EXPECT_KEYBOARD(b, 0x30, 0xb0);
	/* Absolute places, and as differences. */
	assert_true(display_points_absolutely(w->display));
	display_place(w->display, 70000, 5);
	button(w, BTN_LEFT, true);
	assert_int_equal(tablet.x, INPUT_PLACES - 1);
	assert_int_equal(tablet.y, 5);
	tablet.input.unwanted = true;
	assert_false(display_points_absolutely(w->display));
	button(w, BTN_LEFT, false);
	assert_int_equal(tablet.buttons, 2);
	EXPECT_QUIET(b);
	display_place(w->display, 0x4000, 0x4000);
	display_complete(w->display);
	EXPECT_QUIET(b);
	display_place(w->display, 0x4000 + INPUT_PLACES / 64, 0x4000 - INPUT_PLACES / 48);
	display_complete(w->display);
	EXPECT_MOUSE(b, 0x08, 10, 10);
	/* A device goes while its key is down. */
	keys.input.unwanted = false;
	press(w, KEY_C);
	input_remove(w->display, &keys.input);
	release(w, KEY_C);
	assert_int_equal(keys.releases, 1);
	input_remove(w->display, &tablet.input);
	screen_destroy(screen);
}

/* ---- state ---- */

/* In the middle of an answer, a packet, a repetition: it goes on in another machine. */
static void state_goes_on(void **state)
{
	struct world *w = *state, *other;
	struct writer saved;
	void *second;

	setup(&second);
	other = second;
	tell_mouse(w->b, 0xf4);
	tell_keyboard(w->b, 0xed);
	tell_keyboard(w->b, LAMP_SCROLL);
	press(w, KEY_X);
	move(w, 3, 4);
	EXPECT_KEYBOARD(w->b, 0x2d);
	EXPECT_MOUSE(w->b, 0x28);
	tell_keyboard(w->b, 0xf3);
	saved = board_save(w->b);
	assert_int_equal(board_load(other->b, &saved, clock_now(w->b->clock), NULL), 0);
	assert_int_equal(display_lamps(other->display), LAMP_SCROLL);
	for (unsigned n = 0; n < 2; n++) {
		struct board *b = n ? other->b : w->b;

		EXPECT_MOUSE(b, 3, 0xfc);
		tell_keyboard(b, 0);
		assert_in_range(codes_within(b, 1000 * MS, 0x2d), 10, 31);
	}
	writer_free(&saved);
	teardown(&second);
}

static void damaged_records(void **state)
{
	static const char *const names[] = { "kbc", "ps2-keyboard", "ps2-mouse" };
	struct world *w = *state;
	uint64_t seed = 1;
	unsigned refused = 0;

	for (unsigned n = 0; n < 3000; n++) {
		struct device *device = bus_find_device(w->b->bus, names[n % ARRAY_SIZE(names)], 0);
		struct writer record = { 0 };
		struct reader reader;
		struct error err = { 0 };

		assert_int_equal(state_save(device->ops->state, 0, device, &record), 0);
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		record.data[(seed >> 33) % record.size] ^= (uint8_t)(1u << (seed >> 20) % 8);
		reader = (struct reader){ record.data, record.size, 0 };
		if (state_load(device->ops->state, 0, device, &reader, &err)) {
			assert_int_equal(err.code, EINVAL);
			refused++;
		}
		bus_attach(w->b->bus);
		if (n % 3 == 0)
			press(w, KEY_A + n % 8);
		move(w, (int)(n % 700), 1);
		board_run(w->b, MS);
		inb(w->b, 0x60);
		if (n % 100 == 0)
			bus_reset(w->b->bus);
		writer_free(&record);
	}
	assert_in_range(refused, 300, 2900);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(controller_commands),
		TEST(bytes_take_their_time),
		TEST(answers_displace_no_key),
		TEST(keyboard_commands),
		TEST(lamps),
		TEST(codes_of_set_2),
		TEST(codes_of_set_1),
		TEST(codes_of_set_3),
		TEST(repetition),
		TEST(overrun),
		TEST(mouse_commands),
		TEST(packets),
		TEST(rates_and_scaling),
		TEST(remote_mode),
		TEST(wheels),
		TEST(routing),
		TEST(state_goes_on),
		TEST(damaged_records),
	};

	log_set_level(LOG_ERROR);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
