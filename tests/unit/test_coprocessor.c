/*
 * The coprocessor's error port: FERR# sets a latch that requests IRQ 13, port 0xf0 clears it and asserts IGNNE# until FERR# goes.
 */
#include "lib/board.h"

#define PORT   0xf0
#define VECTOR 0x2d /* IRQ 13 as board_pic_init() has it */

static int setup(void **state)
{
	struct board *b = board_create(1);

	assert_int_equal(coprocessor_type.create(b->bus, NULL, NULL), 0);
	board_pic_init(b);
	*state = b;
	return 0;
}

/* Takes it, and ends it at both controllers. */
static bool interrupt(struct board *b)
{
	int vector = board_take(b);

	assert_true(vector == -1 || vector == VECTOR);
	if (vector < 0)
		return false;
	outb(b, 0xa0, 0x20);
	outb(b, 0x20, 0x20);
	return true;
}

static void error_interrupts_once(void **state)
{
	struct board *b = *state;

	assert_false(interrupt(b));
	assert_false(coprocessor_error(b->bus, true));
	assert_true(interrupt(b));
	assert_false(coprocessor_error(b->bus, true));
	assert_false(interrupt(b));
}

static void port_asserts_ignne_until_the_error_goes(void **state)
{
	struct board *b = *state;

	coprocessor_error(b->bus, true);
	assert_true(interrupt(b));
	outb(b, PORT, 0);
	assert_true(coprocessor_error(b->bus, true));
	assert_false(interrupt(b));
	assert_false(coprocessor_error(b->bus, false));
	assert_false(coprocessor_error(b->bus, true));
	assert_true(interrupt(b));
}

static void port_without_an_error_does_nothing(void **state)
{
	struct board *b = *state;

	outb(b, PORT, 0);
	assert_false(coprocessor_error(b->bus, true));
	assert_true(interrupt(b));
}

static void an_error_that_was_cleared_still_interrupts(void **state)
{
	struct board *b = *state;

	coprocessor_error(b->bus, true);
	coprocessor_error(b->bus, false);
	assert_true(interrupt(b));
	outb(b, PORT, 0);
	assert_false(coprocessor_error(b->bus, true));
	assert_true(interrupt(b));
}

static void reset_releases_all(void **state)
{
	struct board *b = *state;

	coprocessor_error(b->bus, true);
	outb(b, PORT, 0);
	bus_reset(b->bus);
	board_pic_init(b);
	assert_false(interrupt(b));
	assert_false(coprocessor_error(b->bus, true));
	assert_true(interrupt(b));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
	const struct CMUnitTest tests[] = {
		TEST(error_interrupts_once),
		TEST(port_asserts_ignne_until_the_error_goes),
		TEST(port_without_an_error_does_nothing),
		TEST(an_error_that_was_cleared_still_interrupts),
		TEST(reset_releases_all),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
