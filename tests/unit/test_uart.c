/*
 * The 16550A with a character device of the test's own: transmission, FIFO and its trigger levels and timeout, flow control,
 * interrupts and their priorities, modem lines, loopback.
 */
#include "lib/board.h"

#define COM1 0x3f8
#define RBR  (COM1 + 0)
#define IER  (COM1 + 1)
#define IIR  (COM1 + 2)
#define FCR  (COM1 + 2)
#define LCR  (COM1 + 3)
#define MCR  (COM1 + 4)
#define LSR  (COM1 + 5)
#define MSR  (COM1 + 6)
#define SCR  (COM1 + 7)

/* Four characters at the divisor of 1 that the tests use. */
#define TIMEOUT (4 * 86806)

/* ---- the character device ---- */

struct chardev {
	const struct chardev_ops *ops;
	void *opaque;
	uint8_t output[256];
	size_t count, room;
	unsigned resumes;
};

void chardev_attach(struct chardev *chardev, const struct chardev_ops *ops, void *opaque)
{
	chardev->ops = ops;
	chardev->opaque = opaque;
}

size_t chardev_write(struct chardev *chardev, const void *data, size_t size)
{
	memcpy(chardev->output + chardev->count, data, size);
	chardev->count += size;
	return chardev->room;
}

size_t chardev_room(struct chardev *chardev) { return chardev->room; }

void chardev_resume(struct chardev *chardev) { chardev->resumes++; }

static struct chardev line;

static size_t receive(const char *text) { return line.ops->receive(line.opaque, (const uint8_t *)text, strlen(text)); }

/* ---- the machine ---- */

static int setup(void **state)
{
	struct board *b = board_create(1);

	line = (struct chardev){ .room = 1 << 20 };
	assert_int_equal(uart_create(b->bus, 0, &line, NULL), 0);
	board_pic_init(b);
	outb(b, LCR, 0x83);
	outb(b, RBR, 1);
	outb(b, IER, 0);
	outb(b, LCR, 0x03);
	outb(b, MCR, 0x0b);
	*state = b;
	return 0;
}

/* Edge-triggered: a new request since the last. */
static bool interrupt(struct board *b)
{
	int vector = board_take(b);

	assert_true(vector == -1 || vector == 0x24);
	if (vector < 0)
		return false;
	outb(b, 0x20, 0x20);
	return true;
}

static void transmits_at_once(void **state)
{
	struct board *b = *state;

	assert_int_equal(inb(b, LSR), 0x60);
	for (const char *c = "Hello"; *c; c++)
		outb(b, RBR, (uint8_t)*c);
	assert_int_equal(line.count, 5);
	assert_memory_equal(line.output, "Hello", 5);
	assert_int_equal(inb(b, LSR), 0x60);
}

static void busy_while_the_queue_is_nearly_full(void **state)
{
	struct board *b = *state;

	outb(b, IER, 2);
	inb(b, IIR);
	interrupt(b);
	line.room = 100;
	outb(b, RBR, 'x');
	assert_int_equal(line.count, 1); /* not lost */
	assert_int_equal(inb(b, LSR), 0);
	assert_int_equal(inb(b, IIR), 1);
	board_run(b, 10000000);
	assert_int_equal(inb(b, LSR), 0);
	line.room = 1 << 20;
	board_run(b, 10000000);
	assert_int_equal(inb(b, LSR), 0x60);
	assert_true(interrupt(b));
	assert_int_equal(inb(b, IIR), 2);
	assert_true(clock_next_deadline(b->clock) == VTIME_NEVER);
}

static void transmitter_interrupt(void **state)
{
	struct board *b = *state;

	assert_false(interrupt(b));
	outb(b, IER, 2); /* enabling it while empty makes one */
	assert_true(interrupt(b));
	assert_int_equal(inb(b, IIR), 0x02);
	assert_int_equal(inb(b, IIR), 0x01); /* reading cleared it */
	outb(b, IER, 2);
	assert_false(interrupt(b));
	outb(b, RBR, 'a');
	assert_true(interrupt(b));
	outb(b, MCR, 0); /* OUT2 is the gate */
	outb(b, MCR, 8);
	assert_true(interrupt(b));
	outb(b, IER, 0);
	assert_int_equal(inb(b, IIR), 0x01);
}

static void without_fifo_one_byte_at_a_time(void **state)
{
	struct board *b = *state;

	outb(b, IER, 1);
	assert_int_equal(receive("abc"), 1);
	assert_true(interrupt(b));
	assert_int_equal(inb(b, IIR), 0x04);
	assert_int_equal(inb(b, LSR), 0x61);
	assert_int_equal(receive("bc"), 0);
	line.resumes = 0;
	assert_int_equal(inb(b, RBR), 'a');
	assert_int_equal(line.resumes, 1);
	assert_int_equal(inb(b, LSR), 0x60);
	assert_int_equal(inb(b, IIR), 0x01);
	assert_int_equal(receive("bc"), 1);
	assert_int_equal(inb(b, RBR), 'b');
	assert_int_equal(inb(b, RBR), 'b'); /* empty: the last one again */
}

static void fifo_trigger_levels(void **state)
{
	static const struct {
		uint8_t fcr;
		unsigned level;
	} levels[] = { { 0x01, 1 }, { 0x41, 4 }, { 0x81, 8 }, { 0xc1, 14 } };
	struct board *b = *state;

	outb(b, IER, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(levels); i++) {
		outb(b, FCR, levels[i].fcr | 2);
		for (unsigned n = 1; n < levels[i].level; n++)
			assert_int_equal(receive("x"), 1);
		assert_int_equal(inb(b, IIR), 0xc1);
		receive("y");
		assert_int_equal(inb(b, IIR), 0xc4);
		assert_int_equal(inb(b, RBR), levels[i].level == 1 ? 'y' : 'x');
		assert_int_equal(inb(b, IIR), 0xc1); /* below the level again */
		for (unsigned n = 1; n < levels[i].level; n++)
			inb(b, RBR);
	}
}

static void fifo_timeout(void **state)
{
	struct board *b = *state;

	outb(b, FCR, 0x81);
	outb(b, IER, 1);
	receive("ab");
	assert_false(interrupt(b));
	board_run(b, TIMEOUT - 1);
	assert_false(interrupt(b));
	board_run(b, 1);
	assert_true(interrupt(b));
	assert_int_equal(inb(b, IIR), 0xcc);
	assert_int_equal(inb(b, RBR), 'a');
	assert_int_equal(inb(b, IIR), 0xc1); /* reading starts it again */
	board_run(b, TIMEOUT - 1);
	assert_int_equal(inb(b, IIR), 0xc1);
	receive("c"); /* receiving, too */
	board_run(b, TIMEOUT - 1);
	assert_int_equal(inb(b, IIR), 0xc1);
	board_run(b, 1);
	assert_int_equal(inb(b, IIR), 0xcc);
	inb(b, RBR);
	inb(b, RBR);
	assert_int_equal(inb(b, LSR), 0x60);
	assert_true(clock_next_deadline(b->clock) == VTIME_NEVER);
}

static void fifo_takes_sixteen_in_order(void **state)
{
	struct board *b = *state;

	outb(b, FCR, 0x01);
	assert_int_equal(receive("0123456789abcdefgh"), 16);
	assert_int_equal(receive("gh"), 0);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < 16; i++) {
			line.resumes = 0;
			assert_int_equal(inb(b, RBR), "0123456789abcdef"[i]);
			if (i == 15) {
				assert_int_equal(line.resumes, 1);
				assert_int_equal(receive("0123456789abcdef"), 16);
			}
		}
	for (unsigned i = 0; i < 16; i++)
		inb(b, RBR);
	outb(b, MCR, 0x1b);
	outb(b, RBR, 'x');
	assert_int_equal(inb(b, LSR), 0x61);
	outb(b, FCR, 0x00); /* switching it off empties it */
	outb(b, MCR, 0x0b);
	assert_int_equal(inb(b, LSR), 0x60);
	assert_int_equal(inb(b, IIR) & 0xc0, 0);
}

static void interrupt_priorities(void **state)
{
	struct board *b = *state;

	outb(b, MCR, 0x18);
	inb(b, MSR);
	outb(b, IER, 0x0f);
	outb(b, MCR, 0x1a); /* loopback, CTS rises */
	outb(b, RBR, 'a');
	outb(b, RBR, 'b'); /* overrun */
	assert_int_equal(inb(b, IIR), 0x06);
	assert_int_equal(inb(b, LSR), 0x63);
	assert_int_equal(inb(b, IIR), 0x04);
	assert_int_equal(inb(b, RBR), 'b'); /* without FIFO the newer one stays */
	assert_int_equal(inb(b, IIR), 0x02);
	assert_int_equal(inb(b, IIR), 0x00);
	inb(b, MSR);
	assert_int_equal(inb(b, IIR), 0x01);
}

static void loopback(void **state)
{
	struct board *b = *state;

	assert_int_equal(inb(b, MSR), 0xb0); /* somebody is there */
	outb(b, FCR, 0x01);
	outb(b, MCR, 0x10);
	assert_int_equal(inb(b, MSR), 0x0b); /* CTS, DSR, DCD fell */
	outb(b, MCR, 0x15);
	assert_int_equal(inb(b, MSR), 0x62); /* DSR and RI; RI counts when it ends */
	outb(b, MCR, 0x1b);
	assert_int_equal(inb(b, MSR), 0xbd);
	assert_int_equal(receive("x"), 0); /* the line is cut off */
	for (unsigned i = 0; i < 17; i++)
		outb(b, RBR, (uint8_t)i);
	assert_int_equal(line.count, 0);
	assert_int_equal(inb(b, LSR), 0x63); /* full: the newest is lost */
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(inb(b, RBR), i);
	line.resumes = 0;
	outb(b, MCR, 0x0b);
	assert_int_equal(line.resumes, 1);
	assert_int_equal(receive("x"), 1);
}

static void registers_keep_what_they_hold(void **state)
{
	struct board *b = *state;

	outb(b, SCR, 0x5a);
	outb(b, IER, 0xff);
	outb(b, MCR, 0xff);
	outb(b, LCR, 0x80);
	outb(b, RBR, 0x34);
	outb(b, IER, 0x12);
	assert_int_equal(inb(b, RBR), 0x34);
	assert_int_equal(inb(b, IER), 0x12);
	outb(b, LCR, 0x1b);
	assert_int_equal(inb(b, LCR), 0x1b);
	assert_int_equal(inb(b, IER), 0x0f);
	assert_int_equal(inb(b, MCR), 0x1f);
	assert_int_equal(inb(b, SCR), 0x5a);
	outb(b, LSR, 0xff);
	outb(b, MSR, 0xff);
	assert_int_equal(inb(b, LSR), 0x60);
	outb(b, FCR, 0xc0); /* nothing without the enable bit */
	assert_int_equal(inb(b, IIR) & 0xc0, 0);
	bus_reset(b->bus);
	assert_int_equal(inb(b, IER), 0);
	assert_int_equal(inb(b, MCR), 0);
	assert_int_equal(line.count, 0);
}

/* ---- input before the guest wants it, and when it clears its receiver ---- */

static void input_waits_until_the_port_is_open(void **state)
{
	struct board *b = *state;

	outb(b, MCR, 0);
	assert_int_equal(receive("a"), 0);
	outb(b, MCR, 0x01);
	assert_int_equal(receive("a"), 0);
	outb(b, FCR, 0x07);
	outb(b, MCR, 0x08);
	assert_int_equal(receive("a"), 0);
	line.resumes = 0;
	outb(b, MCR, 0x0b); /* DTR and RTS */
	assert_int_equal(line.resumes, 1);
	assert_int_equal(receive("a"), 1);
	assert_int_equal(inb(b, RBR), 'a');

	/* Guests that know no modem lines take interrupts, */
	outb(b, MCR, 0x08);
	outb(b, IER, 2);
	assert_int_equal(receive("b"), 0);
	line.resumes = 0;
	outb(b, IER, 1);
	assert_int_equal(line.resumes, 1);
	assert_int_equal(receive("b"), 1);
	assert_int_equal(inb(b, RBR), 'b');
	/* or look again and again; not only to see whether they may send. */
	outb(b, IER, 0);
	for (unsigned n = 0; n < 200; n++) {
		inb(b, LSR);
		outb(b, RBR, 'x');
	}
	assert_int_equal(receive("c"), 0);
	line.resumes = 0;
	for (unsigned n = 0; n < 200; n++)
		inb(b, LSR);
	assert_int_equal(line.resumes, 1);
	assert_int_equal(receive("c"), 1);
	assert_int_equal(inb(b, RBR), 'c');
	bus_reset(b->bus);
	assert_int_equal(receive("d"), 0);
}

/* Setting a port up clears it several times, and reads the receiver. */
static void what_is_cleared_comes_again(void **state)
{
	struct board *b = *state;

	outb(b, FCR, 0x01);
	assert_int_equal(receive("0123456789abcdefgh"), 16);
	assert_int_equal(inb(b, RBR), '0');
	outb(b, FCR, 0x03);
	assert_int_equal(inb(b, LSR), 0x60);
	inb(b, RBR);
	assert_int_equal(receive("gh"), 0); /* behind what is held back */
	outb(b, FCR, 0x00);
	outb(b, FCR, 0x01);
	board_run(b, 10000000);
	assert_int_equal(inb(b, LSR), 0x60);
	line.resumes = 0;
	board_run(b, 10000000);
	assert_int_equal(inb(b, RBR), '1');
	assert_int_equal(line.resumes, 1);
	assert_int_equal(receive("g"), 1);
	outb(b, MCR, 0x1b); /* loopback: what the guest sends itself is gone when it clears it */
	assert_int_equal(inb(b, LSR), 0x60);
	outb(b, RBR, 'x');
	outb(b, FCR, 0x03);
	outb(b, RBR, 'y');
	outb(b, MCR, 0x08);
	outb(b, FCR, 0x03);
	board_run(b, 30000000);
	assert_int_equal(inb(b, LSR), 0x60); /* nobody wants it */
	outb(b, FCR, 0x00);
	outb(b, MCR, 0x0b);
	board_run(b, 20000000);
	for (unsigned i = 2; i < 17; i++) { /* without FIFO one after the other */
		assert_int_equal(inb(b, LSR), 0x61);
		assert_int_equal(inb(b, RBR), "0123456789abcdefg"[i]);
	}
	assert_int_equal(inb(b, LSR), 0x60);
	assert_int_equal(receive("h"), 1);
	assert_int_equal(inb(b, RBR), 'h');
}

static void breaks(void **state)
{
	struct board *b = *state;

	outb(b, IER, 4);
	assert_true(line.ops->receive_break(line.opaque));
	assert_true(interrupt(b));
	assert_int_equal(inb(b, IIR), 0x06);
	assert_int_equal(inb(b, LSR), 0x79); /* BI, FE, DR */
	assert_int_equal(inb(b, LSR), 0x61);
	assert_false(line.ops->receive_break(line.opaque)); /* no room */
	assert_int_equal(inb(b, RBR), 0);
	assert_int_equal(inb(b, LSR), 0x60);

	/* In the FIFO it is told when it is the next to be read. */
	outb(b, FCR, 0x01);
	receive("ab");
	assert_true(line.ops->receive_break(line.opaque));
	receive("h");
	assert_false(interrupt(b));
	assert_int_equal(inb(b, LSR), 0xe1);
	assert_int_equal(inb(b, RBR), 'a');
	assert_int_equal(inb(b, LSR), 0xe1);
	assert_int_equal(inb(b, RBR), 'b');
	assert_true(interrupt(b));
	assert_int_equal(inb(b, LSR), 0xf9);
	assert_int_equal(inb(b, RBR), 0);
	assert_int_equal(inb(b, LSR), 0x61);
	assert_int_equal(inb(b, RBR), 'h');

	outb(b, MCR, 0x08);
	assert_false(line.ops->receive_break(line.opaque)); /* nobody wants it yet */
	outb(b, MCR, 0x0b);
	/* It does not come again. */
	receive("i");
	assert_true(line.ops->receive_break(line.opaque));
	outb(b, FCR, 0x03);
	board_run(b, 30000000);
	assert_int_equal(inb(b, RBR), 'i');
	assert_int_equal(inb(b, LSR), 0x60);
}

static void unconnected_and_quit(void **state)
{
	struct board *b = *state;
	struct error error;

	assert_int_equal(uart_create(b->bus, 1, NULL, NULL), 0);
	assert_int_equal(inb(b, 0x2fe), 0);
	outb(b, 0x2f8, 'x');
	assert_int_equal(inb(b, 0x2fd), 0x60);
	assert_true(uart_create(b->bus, 1, NULL, &error) < 0); /* its place is taken */
	line.ops->quit(line.opaque);
	assert_int_equal(b->requests[BUS_REQUEST_QUIT], 1);
}

static void two_uarts_share_a_line(void **state)
{
	struct board *b = *state;

	assert_int_equal(uart_create(b->bus, 2, NULL, NULL), 0);
	outb(b, 0x4d0, 0x10);
	outb(b, 0x3ec, 8);
	outb(b, IER, 2);
	outb(b, 0x3e9, 2);
	assert_true(interrupt(b));
	inb(b, IIR); /* COM1 is served, COM3 not */
	assert_true(interrupt(b));
	inb(b, 0x3ea);
	assert_false(interrupt(b));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
	const struct CMUnitTest tests[] = {
		TEST(transmits_at_once),
		TEST(busy_while_the_queue_is_nearly_full),
		TEST(transmitter_interrupt),
		TEST(without_fifo_one_byte_at_a_time),
		TEST(fifo_trigger_levels),
		TEST(fifo_timeout),
		TEST(fifo_takes_sixteen_in_order),
		TEST(interrupt_priorities),
		TEST(loopback),
		TEST(registers_keep_what_they_hold),
		TEST(input_waits_until_the_port_is_open),
		TEST(what_is_cleared_comes_again),
		TEST(breaks),
		TEST(unconnected_and_quit),
		TEST(two_uarts_share_a_line),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
