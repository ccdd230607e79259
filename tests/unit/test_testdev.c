/*
 * pc-testdev: lines that software sets, its register in pieces and byte by byte, its memory; nothing is left behind a reset.
 */
#include "lib/board.h"

#include <errno.h>

#define MEMORY 0xff000000ull

static int setup(void **state)
{
	struct board *b = board_create(1);

	assert_int_equal(testdev_type.create(b->bus, NULL, NULL), 0);
	board_pic_init(b);
	*state = b;
	return 0;
}

static void lines_interrupt(void **state)
{
	struct board *b = *state;

	for (unsigned line = 3; line < 16; line++) {
		outb(b, (uint16_t)(0x2000 + line), 0x80);
		assert_int_equal(board_take(b), 0x20 + line);
		outb(b, (uint16_t)(0x2000 + line), 0);
		outb(b, 0xa0, 0x20);
		outb(b, 0x20, 0x20);
		assert_int_equal(board_take(b), -1);
	}
}

static void a_line_that_stays_high_interrupts_once(void **state)
{
	struct board *b = *state;

	outb(b, 0x2005, 1);
	assert_int_equal(board_take(b), 0x25);
	outb(b, 0x20, 0x20);
	outb(b, 0x2005, 2);
	assert_int_equal(board_take(b), -1);
}

static void several_lines_in_one_access(void **state)
{
	struct board *b = *state;

	outl(b, 0x2004, 0x01000100);
	assert_int_equal(board_take(b), 0x25);
	outb(b, 0x20, 0x20);
	assert_int_equal(board_take(b), 0x27);
}

static void register_has_bytes(void **state)
{
	struct board *b = *state;

	outl(b, 0xe0, 0x12345678);
	assert_int_equal(inl(b, 0xe0), 0x12345678);
	assert_int_equal(inb(b, 0xe1), 0x56);
	assert_int_equal(inw(b, 0xe2), 0x1234);
	outb(b, 0xe3, 0xab);
	assert_int_equal(inl(b, 0xe8), 0xab345678);
	outw(b, 0xe8, 0x9999);
	assert_int_equal(inl(b, 0xe0), 0xab349999);
	outl(b, 0xe4, 0x1000);
	assert_int_equal(inl(b, 0xe0), 0xab349999);
}

static void memory_is_kept(void **state)
{
	struct board *b = *state;

	board_write(b, BUS_MMIO, MEMORY + 0xfff8, 8, 0x1122334455667788);
	assert_int_equal(board_read(b, BUS_MMIO, MEMORY + 0xfffe, 2), 0x1122);
	assert_int_equal(board_read(b, BUS_MMIO, MEMORY, 8), 0);
	board_write(b, BUS_MMIO, MEMORY + 1, 4, 0xdeadbeef); /* misaligned: in pieces */
	assert_int_equal(board_read(b, BUS_MMIO, MEMORY, 8), 0xdeadbeef00);
}

static void reset_lowers_and_clears(void **state)
{
	struct board *b = *state;

	outl(b, 0xe0, 1);
	outb(b, 0x2005, 1);
	board_write(b, BUS_MMIO, MEMORY, 4, 1);
	bus_reset(b->bus);
	board_pic_init(b);
	assert_int_equal(inl(b, 0xe0), 0);
	assert_int_equal(board_read(b, BUS_MMIO, MEMORY, 4), 0);
	assert_int_equal(board_take(b), -1);
	outb(b, 0x2005, 1);
	assert_int_equal(board_take(b), 0x25);
}

static void a_second_one_is_refused(void **state)
{
	struct board *b = *state;
	struct error err = { 0 };

	assert_int_equal(testdev_type.create(b->bus, NULL, &err), -EBUSY);
	assert_non_null(strstr(err.text, "pc-testdev"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
		T(lines_interrupt),
		T(a_line_that_stays_high_interrupts_once),
		T(several_lines_in_one_access),
		T(register_has_bytes),
		T(memory_is_kept),
		T(reset_lowers_and_clears),
		T(a_second_one_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
