/*
 * display/text.c and terminal_keys.c: what a terminal shows of a screen's text, compared with the cells; what is sent again and what is not; its keys, and
 * how it is left.
 */
#define _GNU_SOURCE
#include "display/terminal_keys.h"
#include "display/text.h"
#include "lib/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#define COLUMNS 80u
#define ROWS	25u

struct world {
	struct event_loop *loop;
	struct display *display;
	struct screen *screen;
	struct text *text;
	struct input keys;
	char typed[1024]; /* "+30 -30 " */
	uint16_t cells[ROWS * COLUMNS];
	uint32_t cursor_row, cursor_column;
	bool graphics;
	unsigned quits;
	int master, slave;
	struct terminal terminal;
	struct event_source source;
	bool (*until)(struct world *);
	unsigned ticks;
};

static void draw(void *opaque, struct screen *screen)
{
	struct world *w = opaque;

	screen_set_size(screen, w->graphics ? 1024 : 720, w->graphics ? 768 : 400);
	screen_changed(screen, (struct rectangle){ 0, 0, 1, 1 });
}

static bool read_text(void *opaque, struct text_picture *text)
{
	struct world *w = opaque;

	assert_true(text->columns >= COLUMNS && text->rows >= ROWS);
	text->columns = COLUMNS;
	text->rows = ROWS;
	text->cursor_row = w->cursor_row;
	text->cursor_column = w->cursor_column;
	for (unsigned n = 0; n < ROWS * COLUMNS; n++) {
		text->cells[n].character = (uint8_t)w->cells[n];
		text->cells[n].attribute = (uint8_t)(w->cells[n] >> 8);
	}
	return !w->graphics;
}

static const struct screen_ops screen_ops = { .draw = draw, .read_text = read_text };

static void key(void *opaque, unsigned code, bool down)
{
	struct world *w = opaque;
	size_t at = strlen(w->typed);

	snprintf(w->typed + at, sizeof(w->typed) - at, "%c%u ", down ? '+' : '-', code);
}

static const struct input_ops input_ops = { .key = key };

static void quit(void *opaque) { ((struct world *)opaque)->quits++; }

static void terminal_ready(void *opaque, short revents)
{
	struct world *w = opaque;
	char bytes[4096];
	ssize_t n = read(w->master, bytes, sizeof(bytes));

	(void)revents;
	if (n > 0)
		terminal_write(&w->terminal, bytes, (size_t)n);
}

/* Before each wait: at most 10 ms until the next one. */
static uint64_t tick(void *opaque)
{
	struct world *w = opaque;

	if (w->until(w))
		event_loop_stop(w->loop);
	assert_true(w->ticks++ < 100000);
	return host_monotonic_ns() + 10000000;
}

static void run_until(struct world *w, bool (*until)(struct world *))
{
	w->until = until;
	w->ticks = 0;
	event_loop_set_tick(w->loop, tick, w);
	event_loop_run(w->loop);
}

static void set_size(struct world *w, unsigned columns, unsigned rows)
{
	const struct winsize size = { .ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows };

	terminal_begin(&w->terminal, columns, rows);
	assert_int_equal(ioctl(w->slave, TIOCSWINSZ, &size), 0);
}

static void print(struct world *w, unsigned row, unsigned column, uint8_t attribute, const char *text)
{
	for (unsigned n = 0; text[n]; n++)
		w->cells[row * COLUMNS + column + n] = (uint16_t)(attribute << 8 | (uint8_t)text[n]);
}

static struct world *create(bool readonly)
{
	struct world *w = calloc(1, sizeof(*w));
	char name[64];
	struct error err = { 0 };

	assert_non_null(w);
	w->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(w->master >= 0 && !grantpt(w->master) && !unlockpt(w->master) &&
		    !ptsname_r(w->master, name, sizeof(name)));
	w->slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(w->slave >= 0);
	set_size(w, 80, 25);
	w->loop = event_loop_create(NULL);
	w->display = display_create(w->loop, NULL);
	display_on_quit(w->display, quit, w);
	w->keys = (struct input){ .kind = INPUT_KEYS, .ops = &input_ops, .opaque = w };
	input_add(w->display, &w->keys);
	for (unsigned n = 0; n < ROWS * COLUMNS; n++)
		w->cells[n] = 0x0720;
	w->source = (struct event_source){ .fd = w->master, .events = POLLIN, .ready = terminal_ready, .opaque = w };
	event_loop_add(w->loop, &w->source);
	w->text = text_open(w->display, w->slave, w->slave, readonly, &err);
	assert_non_null(w->text);
	return w;
}

static void add_screen(struct world *w) { w->screen = screen_create(w->display, &screen_ops, w); }

static void destroy(struct world *w)
{
	text_close(w->text);
	event_loop_remove(w->loop, &w->source);
	input_remove(w->display, &w->keys);
	screen_destroy(w->screen);
	display_destroy(w->display);
	event_loop_destroy(w->loop);
	close(w->slave);
	close(w->master);
	free(w);
}

/* ---- pictures ---- */

static bool says_none(struct world *w) { return terminal_shows(&w->terminal, " no screen "); }
static bool says_hello(struct world *w) { return terminal_shows(&w->terminal, "Hello"); }
static bool says_more(struct world *w) { return terminal_shows(&w->terminal, "Hello, world"); }
static bool says_graphics(struct world *w) { return terminal_shows(&w->terminal, " graphics mode 1024x768 "); }
static bool says_last(struct world *w) { return terminal_shows(&w->terminal, "the last row") && w->terminal.cursor; }
static bool helps(struct world *w) { return terminal_shows(&w->terminal, "Ctrl-A x quits"); }
static bool has_cursor(struct world *w)
{
	return w->terminal.cursor && w->terminal.row == 3 && w->terminal.column == 17;
}

static bool any_drawn(struct world *w) { return w->terminal.drawn; }

static void test_pictures(void **state)
{
	struct world *w = create(false);
	unsigned drawn;

	(void)state;
	w->cursor_row = ROWS;
	run_until(w, says_none);
	assert_false(w->terminal.cursor);
	add_screen(w);
	print(w, 3, 10, 0x1e, "Hello");
	print(w, 4, 0, 0x87, "\x01\xb3\xff\x80\xe1");
	print(w, ROWS - 1, 75, 0x4c, "right");
	run_until(w, says_hello);
	assert_false(terminal_shows(&w->terminal, "no screen"));
	assert_true(terminal_shows(&w->terminal, "☺│ Çß"));
	/* Yellow on blue; grey on black that blinks; light red on red */
	assert_string_equal(w->terminal.looks[3][10], "0;93;44");
	assert_string_equal(w->terminal.looks[4][0], "0;5;37;40");
	assert_string_equal(w->terminal.looks[24][79], "0;91;41");
	assert_string_equal(w->terminal.cells[24][79], "t");
	assert_false(w->terminal.wraps);

	/* Only what changed; then the cursor alone. */
	drawn = w->terminal.drawn;
	print(w, 3, 15, 0x1e, ", world");
	run_until(w, says_more);
	assert_int_equal(w->terminal.drawn, drawn + 7);
	w->cursor_row = 3;
	w->cursor_column = 17;
	run_until(w, has_cursor);
	assert_int_equal(w->terminal.drawn, drawn + 7);

	w->graphics = true;
	run_until(w, says_graphics);
	assert_false(terminal_shows(&w->terminal, "Hello"));
	assert_false(w->terminal.cursor);
	w->graphics = false;
	run_until(w, says_more);
	destroy(w);
}

static void test_sizes(void **state)
{
	struct world *w = create(false);

	(void)state;
	add_screen(w);
	print(w, 0, 0, 7, "Hello");
	print(w, 24, 0, 7, "the last row");
	w->cursor_row = 0;
	run_until(w, says_hello);
	/* Too small: what the cursor is in */
	set_size(w, 40, 10);
	run_until(w, says_hello);
	assert_false(terminal_shows(&w->terminal, "the last row"));
	w->cursor_row = 24;
	w->cursor_column = 12;
	run_until(w, says_last);
	assert_false(terminal_shows(&w->terminal, "Hello"));
	assert_int_equal(w->terminal.row, 9);
	assert_int_equal(w->terminal.column, 12);
	set_size(w, 132, 50);
	run_until(w, says_last);
	assert_true(terminal_shows(&w->terminal, "Hello"));
	assert_int_equal(w->terminal.row, 24);
	/* No room for the cursor */
	set_size(w, 1, 1);
	run_until(w, any_drawn);
	assert_false(w->terminal.cursor);
	destroy(w);
}

/* ---- keys ---- */

struct sent {
	const char *bytes;
	const char *typed;
};

static const char *expected;
static bool typed(struct world *w) { return strlen(w->typed) >= strlen(expected); }
static bool has_quit(struct world *w) { return w->quits; }

static void type(struct world *w, const char *bytes, size_t size, const char *want)
{
	w->typed[0] = 0;
	expected = want;
	assert_int_equal(write(w->master, bytes, size), size);
	run_until(w, typed);
	assert_string_equal(w->typed, want);
}

static void test_keys(void **state)
{
	static const struct sent sent[] = {
		{ "aA1!", "+30 -30 +42 +30 -30 -42 +2 -2 +42 +2 -2 -42 " },
		{ "\r\t \x7f", "+28 -28 +15 -15 +57 -57 +14 -14 " },
		{ "\003\032", "+29 +46 -46 -29 +29 +44 -44 -29 " },
		{ "\033[A\033[B\033OC\033OD", "+103 -103 +108 -108 +106 -106 +105 -105 " },
		{ "\033[H\033[4~\033[2~\033[3~", "+102 -102 +107 -107 +110 -110 +111 -111 " },
		{ "\033OP\033[15~\033[21~\033[24~\033[[B", "+59 -59 +63 -63 +68 -68 +88 -88 +60 -60 " },
		{ "\033[1;5C\033[1;2P\033[3;3~\033[Z",
		  "+29 +106 -106 -29 +42 +59 -59 -42 +56 +111 -111 -56 +42 +15 -15 -42 " },
		{ "\033x\033\r", "+56 +45 -45 -56 +56 +28 -28 -56 " },
		{ "\033", "+1 -1 " },
		{ "\033\033[A", "+1 -1 +103 -103 " },
		{ "\033[", "+56 +26 -26 -56 " },
		/* What is no key, and then one */
		{ "\033[99~\033[?1u\033[200~\xff\xc3(\xe2\x98\xbaz", "+44 -44 " },
		{ "\033[1111111111111111111111111111111z", "+2 -2 +2 -2 +44 -44 " },
		{ "\001a\001\001", "+29 +30 -30 -29 +29 +30 -30 -29 " },
		{ "\001d", "+29 +56 +111 -111 -56 -29 " },
		{ "a very long text is typed", NULL },
	};
	struct world *w = create(false);

	(void)state;
	add_screen(w);
	for (unsigned n = 0; n + 1 < ARRAY_SIZE(sent); n++)
		type(w, sent[n].bytes, strlen(sent[n].bytes), sent[n].typed);
	type(w, "", 1, "+29 +57 -57 -29 ");
	/* As the guest's keyboard has it; Caps Lock is its own. */
	assert_int_equal(display_set_keyboard(w->display, "de", NULL), 0);
	type(w, "zß@Ü", 6, "+21 -21 +12 -12 +100 +16 -16 -100 +42 +26 -26 -42 ");
	display_set_lamps(w->display, LAMP_CAPS);
	type(w, "aB1", 3, "+42 +30 -30 -42 +48 -48 +2 -2 ");
	destroy(w);
}

static void test_commands(void **state)
{
	struct world *w = create(true);
	unsigned clears;

	(void)state;
	add_screen(w);
	print(w, 3, 10, 0x1e, "Hello");
	run_until(w, says_hello);
	clears = w->terminal.clears;
	assert_int_equal(write(w->master, "abc\001d\001l", 7), 7);
	terminal_clear(&w->terminal);
	run_until(w, says_hello);
	assert_true(w->terminal.clears > clears);
	assert_string_equal(w->typed, ""); /* readonly */
	assert_int_equal(write(w->master, "\001?", 2), 2);
	run_until(w, helps);
	assert_int_equal(write(w->master, "q", 1), 1);
	run_until(w, says_hello);
	assert_int_equal(write(w->master, "\001x", 2), 2);
	run_until(w, has_quit);
	destroy(w);
}

/* ---- how it begins and ends ---- */

static void test_ends(void **state)
{
	struct world *w = create(false);
	struct termios before, during;
	struct error err = { 0 };

	(void)state;
	add_screen(w);
	w->cursor_row = 3;
	w->cursor_column = 17;
	assert_int_equal(tcgetattr(w->slave, &during), 0);
	assert_false(during.c_lflag & (ICANON | ECHO | ISIG));
	assert_null(text_open(w->display, w->slave, w->slave, false, &err));
	assert_int_equal(err.code, EBUSY);
	run_until(w, has_cursor);
	/* The last picture is there, though nobody ran the loop. */
	print(w, 3, 10, 0x1e, "Hello");
	text_close(w->text);
	while (poll(&(struct pollfd){ .fd = w->master, .events = POLLIN }, 1, 100) > 0)
		terminal_ready(w, POLLIN);
	assert_true(says_hello(w));
	assert_true(w->terminal.wraps && w->terminal.cursor);
	assert_int_equal(w->terminal.row, 24);
	assert_int_equal(tcgetattr(w->slave, &before), 0);
	assert_true(before.c_lflag & ICANON);

	/* A terminal that is gone */
	w->text = text_open(w->display, w->slave, w->slave, false, &err);
	assert_non_null(w->text);
	event_loop_remove(w->loop, &w->source);
	close(w->master);
	run_until(w, has_quit);
	assert_int_equal(w->quits, 1);
	w->master = open("/dev/null", O_RDWR | O_CLOEXEC);
	destroy(w);
}

static void test_no_terminal(void **state)
{
	struct event_loop *loop = event_loop_create(NULL);
	struct display *d = display_create(loop, NULL);
	struct error err = { 0 };
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_null(text_open(d, ends[0], ends[1], false, &err));
	assert_int_equal(err.code, ENOTTY);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(display_check("text,readonly", NULL), 0);
	assert_int_equal(display_check("text,exclusive", &err), -EINVAL);
	assert_int_equal(display_check("text,password-env=A", &err), -EINVAL);
	assert_int_equal(display_check("texts", &err), -EINVAL);
	assert_true(display_is_text("text") && display_is_text("text,readonly"));
	assert_false(display_is_text("vnc:5900") || display_is_text(""));
	display_destroy(d);
	event_loop_destroy(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pictures), cmocka_unit_test(test_sizes), cmocka_unit_test(test_keys),
		cmocka_unit_test(test_commands), cmocka_unit_test(test_ends),  cmocka_unit_test(test_no_terminal),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
