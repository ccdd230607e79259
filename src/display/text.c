/*
 * The screen's text on a terminal, and its keys to the guest. A picture of characters is composed when something changed and the terminal has taken all of
 * the one before; what it shows already is not sent. Rows and columns that the terminal has no room for are not shown, but the cursor's row always is.
 */
#include "display/text.h"
#include "display/keymap.h"
#include "display/terminal_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MOST_COLUMNS 256u
#define MOST_ROWS    128u
#define UNKNOWN	     UINT32_MAX /* what the terminal shows there */
#define BLANK	     0x0720u
#define MESSAGE	     0x7000u /* its attribute */

#define ESCAPE_KEY 0x01 /* Ctrl-A: the next key is doppel's */
static const char help[] = " Ctrl-A x quits, d sends Ctrl-Alt-Delete, l draws all anew, a sends Ctrl-A ";

/* A guest that takes its keys never has more than its keyboard keeps. */
#define KEYS_AT_ONCE	8
#define PERIOD_MS	30u
#define PERIOD_STILL_MS 250u

/* Attributes, lines that wrap, the cursor; then below all. */
#define HELLO	 "\033[?7l\033[?25l\033[0m\033[2J"
#define FAREWELL "\033[0m\033[?7h\033[?25h\033[999;1H\r\n"

struct text {
	struct display *display;
	struct viewer viewer;
	struct event_source in, out, timer;
	bool readonly, may_block;
	bool gone; /* the terminal */
	bool posted, changed;
	bool escaped, helps; /* Ctrl-A was the last key; help is shown */
	struct terminal_keys keys;
	unsigned columns, rows; /* the terminal's */
	struct bytes bytes;	/* for it */
	size_t sent;
	unsigned at_row, at_column; /* where it writes next, */
	uint32_t look;		    /* with this attribute, or UNKNOWN */
	bool cursor;		    /* it is seen */
	struct text_picture picture;
	uint32_t shown[MOST_ROWS * MOST_COLUMNS], wanted[MOST_ROWS * MOST_COLUMNS]; /* attribute << 8 | character */
};

/* ---- code page 437 ---- */

static const char16_t code_page[] = u" ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼ !\"#$%&'()*+,-./0123456789:;<=>?"
				    u"@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~⌂"
				    u"ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐"
				    u"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ";
_Static_assert(ARRAY_SIZE(code_page) == 257, "256 characters and an end");

static unsigned put_character(char *out, uint8_t character)
{
	char16_t c = code_page[character];

	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	out[0] = (char)(0xe0 | c >> 12);
	out[1] = (char)(0x80 | (c >> 6 & 0x3f));
	out[2] = (char)(0x80 | (c & 0x3f));
	return 3;
}

/* ---- what is to be shown ---- */

static void compose_message(struct text *t, const char *message)
{
	unsigned length = MIN((unsigned)strlen(message), t->columns);
	uint32_t *to = t->wanted + t->rows / 2 * MOST_COLUMNS + (t->columns - length) / 2;

	for (unsigned n = 0; n < length; n++)
		to[n] = MESSAGE | (uint8_t)message[n];
}

/* False: without a cursor, else at row, column of the terminal. */
static bool compose_picture(struct text *t, unsigned *row, unsigned *column)
{
	const struct text_picture *p = &t->picture;
	bool cursor = p->cursor_row < p->rows;
	unsigned first = cursor && p->cursor_row >= t->rows ? p->cursor_row - t->rows + 1 : 0;

	for (unsigned y = 0; y < MIN(t->rows, p->rows - first); y++)
		for (unsigned x = 0; x < MIN(t->columns, p->columns); x++) {
			size_t n = (size_t)(first + y) * p->columns + x;

			t->wanted[y * MOST_COLUMNS + x] = p->cells[n].attribute << 8u | p->cells[n].character;
		}
	*row = p->cursor_row - first;
	*column = p->cursor_column;
	return cursor && *column < t->columns;
}

static bool compose(struct text *t, unsigned *row, unsigned *column)
{
	const struct picture *seen = display_seen(t->display);
	char message[64] = " no screen ";

	for (unsigned n = 0; n < MOST_ROWS * MOST_COLUMNS; n++)
		t->wanted[n] = BLANK;
	t->picture.columns = MOST_COLUMNS;
	t->picture.rows = MOST_ROWS;
	if (t->helps) {
		compose_message(t, help);
		return false;
	}
	if (display_read_text(t->display, &t->picture))
		return compose_picture(t, row, column);
	if (seen)
		snprintf(message, sizeof(message), " graphics mode %ux%u ", seen->width, seen->height);
	compose_message(t, message);
	return false;
}

/* ---- how it gets there ---- */

static void put(struct text *t, const char *what, unsigned size) { bytes_add(&t->bytes, what, size); }

static void go_to(struct text *t, unsigned row, unsigned column)
{
	char sequence[32];

	if (t->at_row != row || t->at_column != column)
		put(t, sequence, (unsigned)snprintf(sequence, sizeof(sequence), "\033[%u;%uH", row + 1, column + 1));
	t->at_row = row;
	t->at_column = column;
}

/* The VGA's colours have blue where a terminal's have red. */
static unsigned colour(unsigned n) { return (n & 2) | (n & 1) << 2 | (n >> 2 & 1); }

static void set_look(struct text *t, uint32_t attribute)
{
	char sequence[32];
	unsigned front = attribute & 15, back = attribute >> 4 & 7;

	if (t->look == attribute)
		return;
	t->look = attribute;
	put(t, sequence,
	    (unsigned)snprintf(sequence, sizeof(sequence), "\033[0;%s%u;%um", attribute & 0x80 ? "5;" : "",
			       (front & 8 ? 90 : 30) + colour(front), 40 + colour(back)));
}

static void put_cell(struct text *t, unsigned row, unsigned column)
{
	uint32_t cell = t->wanted[row * MOST_COLUMNS + column];
	char character[4];

	t->shown[row * MOST_COLUMNS + column] = cell;
	go_to(t, row, column);
	set_look(t, cell >> 8);
	put(t, character, put_character(character, (uint8_t)cell));
	t->at_column++;
}

static void set_cursor(struct text *t, bool on)
{
	static const char show[] = "\033[?25h", hide[] = "\033[?25l";

	if (t->cursor != on)
		put(t, on ? show : hide, sizeof(show) - 1);
	t->cursor = on;
}

/* All is to be drawn anew. */
static void forget_shown(struct text *t)
{
	for (unsigned n = 0; n < MOST_ROWS * MOST_COLUMNS; n++)
		t->shown[n] = UNKNOWN;
	t->look = UNKNOWN;
	t->at_row = t->at_column = UINT32_MAX;
	t->cursor = false;
	put(t, HELLO, sizeof(HELLO) - 1);
}

static void draw(struct text *t)
{
	unsigned row = 0, column = 0;
	bool cursor = compose(t, &row, &column);

	for (unsigned y = 0; y < t->rows; y++)
		for (unsigned x = 0; x < t->columns; x++)
			if (t->wanted[y * MOST_COLUMNS + x] != t->shown[y * MOST_COLUMNS + x]) {
				set_cursor(t, false);
				put_cell(t, y, x);
			}
	if (cursor)
		go_to(t, row, column);
	set_cursor(t, cursor);
}

/* Has the terminal another size? */
static bool measure(struct text *t)
{
	struct winsize size = { 0 };
	unsigned columns, rows;

	(void)ioctl(t->out.fd, TIOCGWINSZ, &size);
	columns = size.ws_col ? MIN(size.ws_col, MOST_COLUMNS) : 80;
	rows = size.ws_row ? MIN(size.ws_row, MOST_ROWS) : 25;
	if (columns == t->columns && rows == t->rows)
		return false;
	t->columns = columns;
	t->rows = rows;
	forget_shown(t);
	return true;
}

/* ---- the event loop ---- */

static bool send_some(struct text *t)
{
	ssize_t n = 0;

	while (t->sent < t->bytes.size) {
		/* What may block takes what a terminal that is ready for output has room for. */
		size_t size = MIN(t->bytes.size - t->sent, t->may_block ? 256u : SIZE_MAX);
		struct pollfd ready = { .fd = t->out.fd, .events = POLLOUT };

		n = !t->may_block || poll(&ready, 1, 0) > 0 ? write(t->out.fd, t->bytes.data + t->sent, size) : 0;
		if (n <= 0)
			break;
		t->sent += (size_t)n;
	}
	if (t->sent == t->bytes.size)
		t->bytes.size = t->sent = 0;
	return n >= 0 || errno == EAGAIN || errno == EINTR;
}

static void lost(struct text *t)
{
	event_loop_remove(t->display->loop, &t->in);
	event_loop_remove(t->display->loop, &t->out);
	t->gone = true;
	if (t->display->quit)
		t->display->quit(t->display->quit_opaque);
}

static void proceed(void *opaque)
{
	struct text *t = opaque;

	t->posted = false;
	if (t->gone)
		return;
	if (!t->bytes.size && t->changed) {
		t->changed = false;
		draw(t);
	}
	if (!send_some(t))
		lost(t);
	else
		event_loop_modify(t->display->loop, &t->out, t->bytes.size || t->changed ? POLLOUT : 0);
}

/* Of a screen that is being drawn: later. */
static void look_again(struct text *t)
{
	t->changed = true;
	if (!t->posted)
		event_loop_post(t->display->loop, proceed, t);
	t->posted = true;
}

static void changed(void *opaque, const struct picture *picture, struct rectangle area)
{
	(void)picture;
	(void)area;
	look_again(opaque);
}

static void resized(void *opaque, const struct picture *picture)
{
	(void)picture;
	look_again(opaque);
}

static void out_ready(void *opaque, short revents)
{
	if (revents & (POLLERR | POLLHUP | POLLNVAL))
		lost(opaque);
	else
		proceed(opaque);
}

/* ---- keys ---- */

static void press_all(struct display *d, const unsigned *codes, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		display_key(d, codes[n], true);
	display_complete(d);
	while (count)
		display_key(d, codes[--count], false);
	display_complete(d);
}

static void type(struct text *t, const struct terminal_key *key)
{
	struct keymap_key place = { .code = key->code };
	unsigned codes[5], count = 0;

	if (t->readonly ||
	    (key->character && !keymap_keysym(t->display->keymap, KEYMAP_CHARACTER(key->character), &place)))
		return;
	if (key->ctrl)
		codes[count++] = KEY_LEFTCTRL;
	if (key->alt)
		codes[count++] = KEY_LEFTALT;
	if (key->shift || keymap_wants_shift(&place, display_lamps(t->display)))
		codes[count++] = KEY_LEFTSHIFT;
	if (place.alt_gr)
		codes[count++] = KEY_RIGHTALT;
	codes[count++] = place.code;
	press_all(t->display, codes, count);
}

/* Behind Ctrl-A */
static void command(struct text *t, uint8_t key)
{
	static const unsigned reset[] = { KEY_LEFTCTRL, KEY_LEFTALT, KEY_DELETE };

	switch (key) {
	case 'x':
	case 'X':
		if (t->display->quit)
			t->display->quit(t->display->quit_opaque);
		break;
	case 'd':
		if (!t->readonly)
			press_all(t->display, reset, ARRAY_SIZE(reset));
		break;
	case 'l':
		forget_shown(t);
		look_again(t);
		break;
	case 'a':
	case ESCAPE_KEY: type(t, &(struct terminal_key){ .character = 'a', .ctrl = true }); break;
	default:
		t->helps = true;
		look_again(t);
		break;
	}
}

static void take_byte(struct text *t, uint8_t byte)
{
	struct terminal_key key;

	if (t->helps) {
		t->helps = false;
		look_again(t);
	} else if (t->escaped) {
		t->escaped = false;
		command(t, byte);
	} else if (byte == ESCAPE_KEY) {
		t->escaped = true;
	} else if (terminal_keys_add(&t->keys, byte, &key)) {
		type(t, &key);
	}
}

static void arm(struct text *t, unsigned ms)
{
	const struct itimerspec in = { .it_value.tv_nsec = ms * 1000000l };

	BUG_ON(timerfd_settime(t->timer.fd, 0, &in, NULL));
}

static void in_ready(void *opaque, short revents)
{
	struct text *t = opaque;
	uint8_t bytes[KEYS_AT_ONCE];
	ssize_t n = read(t->in.fd, bytes, sizeof(bytes));

	(void)revents;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		lost(t);
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		take_byte(t, bytes[i]);
	event_loop_modify(t->display->loop, &t->in, 0);
	arm(t, PERIOD_MS);
}

static void timer_ready(void *opaque, short revents)
{
	struct text *t = opaque;
	struct pollfd more = { .fd = t->in.fd, .events = POLLIN };
	struct terminal_key key;
	uint64_t expired;

	(void)revents;
	if (read(t->timer.fd, &expired, sizeof(expired)) < 0 || t->gone)
		return;
	if (poll(&more, 1, 0) == 0 && terminal_keys_end(&t->keys, &key))
		type(t, &key);
	event_loop_modify(t->display->loop, &t->in, POLLIN);
	if (measure(t))
		look_again(t);
	arm(t, PERIOD_STILL_MS);
}

/* ---- from beginning to end ---- */

static const struct viewer_ops viewer_ops = { .resized = resized, .changed = changed };

/* Its descriptors and memory. */
static int set_up(struct text *t, int in, int out, struct error *err)
{
	bool ignored;

	t->in = (struct event_source){ .events = POLLIN, .ready = in_ready, .opaque = t };
	t->out = (struct event_source){ .ready = out_ready, .opaque = t };
	t->timer = (struct event_source){ .events = POLLIN, .ready = timer_ready, .opaque = t };
	t->in.fd = host_reopen(in, O_RDONLY, &ignored);
	t->out.fd = host_reopen(out, O_WRONLY, &t->may_block);
	t->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	t->picture.cells = calloc((size_t)MOST_ROWS * MOST_COLUMNS, sizeof(*t->picture.cells));
	if (t->in.fd < 0 || t->out.fd < 0 || t->timer.fd < 0 || !t->picture.cells)
		return error_set_errno(err, errno, "cannot use the terminal");
	return host_terminal_raw(t->out.fd, err); /* which is told things at the end, too */
}

static void take_down(struct text *t)
{
	host_terminal_restore();
	if (t->in.fd >= 0)
		close(t->in.fd);
	if (t->out.fd >= 0)
		close(t->out.fd);
	if (t->timer.fd >= 0)
		close(t->timer.fd);
	free(t->picture.cells);
	free(t->bytes.data);
	free(t);
}

static bool is_one_terminal(int in, int out)
{
	struct stat input, output;

	return isatty(in) && isatty(out) && !fstat(in, &input) && !fstat(out, &output) &&
	       input.st_rdev == output.st_rdev;
}

struct text *text_open(struct display *d, int in, int out, bool readonly, struct error *err)
{
	struct text *t;

	if (!is_one_terminal(in, out)) {
		error_set(err, ENOTTY, "standard input and output are not a terminal, the same one");
		return NULL;
	}
	if (host_terminal_is_raw()) {
		error_set(err, EBUSY,
			  "something else uses the terminal already; expected another place for it, such as "
			  "--serial pty");
		return NULL;
	}
	t = calloc(1, sizeof(*t));
	if (!t) {
		error_set_errno(err, ENOMEM, "cannot use the terminal");
		return NULL;
	}
	t->display = d;
	t->readonly = readonly;
	if (set_up(t, in, out, err)) {
		take_down(t);
		return NULL;
	}
	host_terminal_farewell(FAREWELL);
	t->viewer = (struct viewer){ .ops = &viewer_ops, .opaque = t };
	event_loop_add(d->loop, &t->in);
	event_loop_add(d->loop, &t->out);
	event_loop_add(d->loop, &t->timer);
	viewer_add(d, &t->viewer);
	arm(t, PERIOD_STILL_MS);
	measure(t);
	look_again(t);
	return t;
}

/* The last picture: a terminal that takes nothing goes without. */
static void finish(struct text *t)
{
	struct pollfd ready = { .fd = t->out.fd, .events = POLLOUT };

	display_picture(t->display);
	t->changed = true;
	while (!t->gone && (t->changed || t->bytes.size) && poll(&ready, 1, 200) > 0)
		proceed(t);
}

void text_close(struct text *t)
{
	struct event_loop *loop;

	if (!t)
		return;
	loop = t->display->loop;
	finish(t);
	viewer_remove(t->display, &t->viewer);
	event_loop_cancel_posts(loop, t);
	event_loop_remove(loop, &t->in);
	event_loop_remove(loop, &t->out);
	event_loop_remove(loop, &t->timer);
	take_down(t);
}
