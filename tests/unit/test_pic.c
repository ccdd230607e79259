/*
 * The 8259 pair: initialisation, priorities, the ways of ending an interrupt, special modes, level inputs, spurious interrupts.
 */
#include "lib/board.h"

#define MASTER 0x20
#define SLAVE  0xa0

static struct irq_line lines[16];

static int setup(void **state)
{
	struct board *b = board_create(1);

	for (unsigned i = 0; i < 16; i++)
		lines[i] = board_line(b, i);
	board_pic_init(b);
	*state = b;
	return 0;
}

static uint8_t read_irr(struct board *b, uint16_t port)
{
	outb(b, port, 0x0a);
	return inb(b, port);
}
static uint8_t read_isr(struct board *b, uint16_t port)
{
	outb(b, port, 0x0b);
	return inb(b, port);
}

static void edge_is_latched_and_delivered_once(void **state)
{
	struct board *b = *state;

	assert_int_equal(board_take(b), -1);
	irq_set(&lines[4], true);
	assert_true(b->cpus[0].interrupts > 0);
	assert_int_equal(read_irr(b, MASTER), 0x10);
	assert_true(lapic_pending(irq_lapic(b->bus, 0)));
	assert_int_equal(board_take(b), 0x24);
	assert_int_equal(read_irr(b, MASTER), 0);
	assert_int_equal(read_isr(b, MASTER), 0x10);
	assert_int_equal(board_take(b), -1);
	outb(b, MASTER, 0x20);
	assert_int_equal(read_isr(b, MASTER), 0);
	assert_int_equal(board_take(b), -1); /* still high: no new edge */
	irq_set(&lines[4], false);
	irq_set(&lines[4], true);
	assert_int_equal(board_take(b), 0x24);
}

static void lower_priority_waits_for_eoi(void **state)
{
	struct board *b = *state;

	irq_set(&lines[4], true);
	assert_int_equal(board_take(b), 0x24);
	irq_set(&lines[5], true);
	assert_int_equal(board_take(b), -1);
	irq_set(&lines[3], true); /* more important: nests */
	assert_int_equal(board_take(b), 0x23);
	outb(b, MASTER, 0x20); /* ends 3 */
	assert_int_equal(read_isr(b, MASTER), 0x10);
	assert_int_equal(board_take(b), -1);
	outb(b, MASTER, 0x64); /* specific, 4 */
	assert_int_equal(board_take(b), 0x25);
}

static void slave_through_cascade(void **state)
{
	struct board *b = *state;

	irq_set(&lines[12], true);
	irq_set(&lines[8], true);
	assert_int_equal(board_take(b), 0x28);
	assert_int_equal(read_isr(b, MASTER), 0x04);
	assert_int_equal(read_isr(b, SLAVE), 0x01);
	irq_set(&lines[3], true); /* input 2 is more important than 3 */
	assert_int_equal(board_take(b), -1);
	outb(b, SLAVE, 0x20);
	outb(b, MASTER, 0x20);
	assert_int_equal(board_take(b), 0x2c); /* 12 comes before 3 */
	outb(b, SLAVE, 0x20);
	outb(b, MASTER, 0x20);
	assert_int_equal(board_take(b), 0x23);
}

static void masked_input_is_kept(void **state)
{
	struct board *b = *state;

	outb(b, MASTER + 1, 0x10);
	assert_int_equal(inb(b, MASTER + 1), 0x10);
	irq_set(&lines[4], true);
	assert_int_equal(board_take(b), -1);
	outb(b, MASTER + 1, 0);
	assert_int_equal(board_take(b), 0x24);
}

static void withdrawn_request_is_lost(void **state)
{
	struct board *b = *state;

	irq_set(&lines[4], true);
	irq_set(&lines[4], false);
	assert_int_equal(board_take(b), -1);
	assert_int_equal(read_irr(b, MASTER), 0);
}

static void level_input_asks_again(void **state)
{
	struct board *b = *state;

	outb(b, 0x4d0, 0xff);
	outb(b, 0x4d1, 0xff);
	assert_int_equal(inb(b, 0x4d0), 0xf8); /* 0, 1, 2, 8, 13 stay edge-triggered */
	assert_int_equal(inb(b, 0x4d1), 0xde);
	irq_set(&lines[11], true);
	assert_int_equal(board_take(b), 0x2b);
	outb(b, SLAVE, 0x20);
	outb(b, MASTER, 0x20);
	assert_int_equal(board_take(b), 0x2b);
	irq_set(&lines[11], false);
	outb(b, SLAVE, 0x20);
	outb(b, MASTER, 0x20);
	assert_int_equal(board_take(b), -1);
}

static void automatic_eoi_with_rotation(void **state)
{
	struct board *b = *state;

	outb(b, MASTER, 0x11);
	outb(b, MASTER + 1, 0x40);
	outb(b, MASTER + 1, 0x04);
	outb(b, MASTER + 1, 0x03); /* 8086, AEOI */
	outb(b, MASTER, 0x80);	   /* rotate in AEOI mode */
	irq_set(&lines[3], true);
	irq_set(&lines[5], true);
	assert_int_equal(board_take(b), 0x43);
	assert_int_equal(read_isr(b, MASTER), 0);
	irq_set(&lines[3], false);
	irq_set(&lines[3], true); /* now 4 is the highest, 3 the lowest */
	assert_int_equal(board_take(b), 0x45);
	assert_int_equal(board_take(b), 0x43);
	outb(b, MASTER, 0x00);
	irq_set(&lines[3], false);
	irq_set(&lines[3], true);
	irq_set(&lines[4], true);
	assert_int_equal(board_take(b), 0x44); /* as rotated last */
}

static void set_priority_and_rotate_on_eoi(void **state)
{
	struct board *b = *state;

	outb(b, MASTER, 0xc0 | 4); /* 4 the lowest: 5 the highest */
	irq_set(&lines[4], true);
	irq_set(&lines[5], true);
	irq_set(&lines[3], true);
	assert_int_equal(board_take(b), 0x25);
	outb(b, MASTER, 0xa0); /* rotate on non-specific EOI: 5 the lowest */
	irq_set(&lines[6], true);
	assert_int_equal(board_take(b), 0x26);
	outb(b, MASTER, 0xe0 | 6); /* rotate on specific EOI */
	assert_int_equal(board_take(b), 0x23);
	outb(b, MASTER, 0x20);
	assert_int_equal(board_take(b), 0x24);
}

static void special_mask_lets_lower_ones_pass(void **state)
{
	struct board *b = *state;

	irq_set(&lines[3], true);
	assert_int_equal(board_take(b), 0x23);
	irq_set(&lines[6], true);
	assert_int_equal(board_take(b), -1);
	outb(b, MASTER + 1, 0x08);
	assert_int_equal(board_take(b), -1);
	outb(b, MASTER, 0x68); /* special mask mode */
	assert_int_equal(board_take(b), 0x26);
	outb(b, MASTER, 0x20); /* passes over the masked 3 */
	assert_int_equal(read_isr(b, MASTER), 0x08);
	outb(b, MASTER, 0x20);
	assert_int_equal(read_isr(b, MASTER), 0x08);
	outb(b, MASTER, 0x48);
	outb(b, MASTER, 0x20);
	assert_int_equal(read_isr(b, MASTER), 0);
}

static void special_fully_nested_master(void **state)
{
	struct board *b = *state;

	outb(b, MASTER, 0x11);
	outb(b, MASTER + 1, 0x20);
	outb(b, MASTER + 1, 0x04);
	outb(b, MASTER + 1, 0x11);
	irq_set(&lines[12], true);
	assert_int_equal(board_take(b), 0x2c);
	irq_set(&lines[9], true); /* more important on the same slave */
	assert_int_equal(board_take(b), 0x29);
	outb(b, SLAVE, 0x20);
	assert_int_equal(read_isr(b, SLAVE), 0x10);
}

static void poll_acknowledges(void **state)
{
	struct board *b = *state;

	outb(b, MASTER, 0x0c);
	assert_int_equal(inb(b, MASTER), 0);
	irq_set(&lines[6], true);
	outb(b, MASTER, 0x0c);
	assert_int_equal(inb(b, MASTER), 0x86);
	assert_int_equal(read_isr(b, MASTER), 0x40);
	assert_int_equal(board_take(b), -1);
	irq_set(&lines[14], true);
	outb(b, SLAVE, 0x0c);
	assert_int_equal(inb(b, SLAVE), 0x86);
	assert_int_equal(read_isr(b, SLAVE), 0x40);
}

static void initialisation_without_icw4_or_slave(void **state)
{
	struct board *b = *state;

	irq_set(&lines[4], true);
	outb(b, MASTER, 0x12); /* single, no ICW4 */
	outb(b, MASTER + 1, 0x7f);
	outb(b, MASTER + 1, 0xef); /* OCW1 already */
	assert_int_equal(inb(b, MASTER + 1), 0xef);
	assert_int_equal(board_take(b), -1); /* the edge before ICW1 is forgotten */
	irq_set(&lines[4], false);
	irq_set(&lines[4], true);
	assert_int_equal(board_take(b), 0x7c);
}

static void shared_line_is_high_while_any_source_is(void **state)
{
	struct board *b = *state;
	struct irq_line other = board_line(b, 4);

	outb(b, 0x4d0, 0x10);
	irq_set(&lines[4], true);
	irq_set(&other, true);
	irq_set(&lines[4], false);
	assert_int_equal(read_irr(b, MASTER), 0x10);
	irq_set(&other, false);
	assert_int_equal(read_irr(b, MASTER), 0);
}

static void reset_masks_and_forgets(void **state)
{
	struct board *b = *state;

	irq_set(&lines[4], true);
	bus_reset(b->bus);
	assert_int_equal(board_take(b), -1);
	assert_int_equal(inb(b, MASTER + 1), 0xff);
	outb(b, MASTER + 1, 0);
	assert_int_equal(board_take(b), -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
	const struct CMUnitTest tests[] = {
		TEST(edge_is_latched_and_delivered_once),
		TEST(lower_priority_waits_for_eoi),
		TEST(slave_through_cascade),
		TEST(masked_input_is_kept),
		TEST(withdrawn_request_is_lost),
		TEST(level_input_asks_again),
		TEST(automatic_eoi_with_rotation),
		TEST(set_priority_and_rotate_on_eoi),
		TEST(special_mask_lets_lower_ones_pass),
		TEST(special_fully_nested_master),
		TEST(poll_acknowledges),
		TEST(initialisation_without_icw4_or_slave),
		TEST(shared_line_is_high_while_any_source_is),
		TEST(reset_masks_and_forgets),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
