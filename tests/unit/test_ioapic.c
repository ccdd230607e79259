/*
 * The IOAPIC: registers, edge and level inputs, remote IRR and redelivery, destinations of its messages and of MSIs.
 */
#include "lib/board.h"

#define ENABLED	   0x1ff
#define LEVEL	   BIT(15)
#define MASKED	   BIT(16)
#define LOGICAL	   BIT(11)
#define REMOTE_IRR BIT(14)
#define TO(cpu)	   ((uint64_t)(cpu) << 56)
#define LOWEST	   (1 << 8)

static int setup(void **state)
{
	struct board *b = board_create(BOARD_CPUS);

	for (unsigned i = 0; i < BOARD_CPUS; i++)
		lapic_wr(b, i, 0xf0, ENABLED);
	*state = b;
	return 0;
}

static int take(struct board *b, unsigned cpu) { return lapic_take(irq_lapic(b->bus, cpu)); }
static void eoi(struct board *b, unsigned cpu) { lapic_wr(b, cpu, 0xb0, 0); }
static uint32_t entry_low(struct board *b, unsigned pin) { return board_ioapic_read(b, 0x10 + 2 * pin); }

static void registers(void **state)
{
	struct board *b = *state;

	assert_int_equal(board_ioapic_read(b, 1), 0x20 | 23 << 16);
	assert_int_equal(entry_low(b, 23), MASKED);
	board_ioapic_write(b, 0, 0xffffffff);
	assert_int_equal(board_ioapic_read(b, 0), 0x0f000000);
	board_ioapic_entry(b, 5, ~0ull);
	assert_int_equal(entry_low(b, 5), 0x1afff); /* no delivery status, no remote IRR */
	assert_int_equal(board_ioapic_read(b, 0x1b), 0xff000000);
	assert_int_equal(board_ioapic_read(b, 0x40), 0); /* beyond the table */
	assert_int_equal(board_read(b, BUS_MMIO, 0xfec00000, 4), 0x40);
	assert_int_equal(board_read(b, BUS_MMIO, 0xfec00010, 1), 0xff); /* 32-bit accesses only */
}

static void edge_comes_once(void **state)
{
	struct board *b = *state;
	struct irq_line line = board_line(b, 4);

	board_ioapic_entry(b, 4, TO(1) | 0x41);
	irq_set(&line, true);
	assert_int_equal(take(b, 0), -1);
	assert_int_equal(take(b, 1), 0x41);
	eoi(b, 1);
	assert_int_equal(take(b, 1), -1);
	irq_set(&line, false);
	irq_set(&line, true);
	assert_int_equal(take(b, 1), 0x41);
	assert_int_equal(lapic_rd(b, 1, 0x180 + 0x20), 0); /* TMR: edge */
}

static void masked_edge_is_lost(void **state)
{
	struct board *b = *state;
	struct irq_line line = board_line(b, 4);

	board_ioapic_entry(b, 4, MASKED | 0x41);
	irq_set(&line, true);
	board_ioapic_entry(b, 4, 0x41);
	assert_int_equal(take(b, 0), -1);
}

static void isa_interrupt_0_is_on_input_2(void **state)
{
	struct board *b = *state;
	struct irq_line line0 = board_line(b, 0), line2 = board_line(b, 2);

	board_ioapic_entry(b, 0, 0x50);
	board_ioapic_entry(b, 2, 0x52);
	irq_set(&line2, true);
	assert_int_equal(take(b, 0), -1);
	irq_set(&line0, true);
	assert_int_equal(take(b, 0), 0x52);
}

static void level_waits_for_eoi_and_comes_again(void **state)
{
	struct board *b = *state;
	struct irq_line line = board_line(b, 20);

	board_ioapic_entry(b, 20, LEVEL | 0x61);
	irq_set(&line, true);
	assert_int_equal(entry_low(b, 20), LEVEL | REMOTE_IRR | 0x61);
	assert_int_equal(take(b, 0), 0x61);
	assert_int_equal(lapic_rd(b, 0, 0x180 + 0x30), 1 << 1); /* TMR */
	irq_set(&line, false);
	irq_set(&line, true); /* remote IRR holds it back */
	assert_int_equal(take(b, 0), -1);
	eoi(b, 0);
	assert_int_equal(take(b, 0), 0x61);
	irq_set(&line, false);
	eoi(b, 0);
	assert_int_equal(take(b, 0), -1);
	assert_int_equal(entry_low(b, 20), LEVEL | 0x61);
}

static void level_comes_when_unmasked(void **state)
{
	struct board *b = *state;
	struct irq_line line = board_line(b, 20);

	board_ioapic_entry(b, 20, MASKED | LEVEL | 0x61);
	irq_set(&line, true);
	assert_int_equal(take(b, 0), -1);
	board_ioapic_entry(b, 20, LEVEL | 0x61);
	assert_int_equal(take(b, 0), 0x61);
}

static void eoi_register_and_change_to_edge_clear_remote_irr(void **state)
{
	struct board *b = *state;
	struct irq_line line = board_line(b, 20);

	board_ioapic_entry(b, 20, LEVEL | 0x61);
	irq_set(&line, true);
	assert_int_equal(take(b, 0), 0x61);
	irq_set(&line, false);
	board_write(b, BUS_MMIO, 0xfec00040, 4, 0x60);
	assert_int_equal(entry_low(b, 20) & REMOTE_IRR, REMOTE_IRR);
	board_write(b, BUS_MMIO, 0xfec00040, 4, 0x61);
	assert_int_equal(entry_low(b, 20) & REMOTE_IRR, 0);
	irq_set(&line, true);
	assert_int_equal(entry_low(b, 20) & REMOTE_IRR, REMOTE_IRR);
	board_ioapic_write(b, 0x10 + 40, MASKED | 0x61);
	board_ioapic_write(b, 0x10 + 40, MASKED | LEVEL | 0x61);
	assert_int_equal(entry_low(b, 20) & REMOTE_IRR, 0);
}

static void level_without_taker_does_not_wait(void **state)
{
	struct board *b = *state;
	struct irq_line line = board_line(b, 20);

	lapic_wr(b, 1, 0xf0, 0xff); /* software-disabled */
	board_ioapic_entry(b, 20, TO(1) | LEVEL | 0x61);
	irq_set(&line, true);
	assert_int_equal(entry_low(b, 20) & REMOTE_IRR, 0);
	board_ioapic_entry(b, 20, TO(2) | LEVEL | 0x61);
	assert_int_equal(take(b, 2), 0x61);
}

static void logical_destinations(void **state)
{
	struct board *b = *state;
	struct irq_line line = board_line(b, 21);

	for (unsigned i = 0; i < BOARD_CPUS; i++)
		lapic_wr(b, i, 0xd0, 1u << (24 + i));
	board_ioapic_entry(b, 21, TO(0x0a) | LOGICAL | 0x71);
	irq_set(&line, true);
	assert_int_equal(take(b, 0), -1);
	assert_int_equal(take(b, 1), 0x71);
	assert_int_equal(take(b, 2), -1);
	assert_int_equal(take(b, 3), 0x71);
	irq_set(&line, false);

	for (unsigned i = 0; i < BOARD_CPUS; i++) { /* cluster model: clusters 1 and 2 with two CPUs each */
		eoi(b, i);
		lapic_wr(b, i, 0xe0, 0x0fffffff);
		lapic_wr(b, i, 0xd0, (i / 2 + 1) << 28 | 1u << (24 + i % 2));
	}
	board_ioapic_entry(b, 21, TO(0x22) | LOGICAL | 0x72);
	irq_set(&line, true);
	assert_int_equal(take(b, 1), -1);
	assert_int_equal(take(b, 2), -1);
	assert_int_equal(take(b, 3), 0x72);
}

static void lowest_priority_takes_the_least_busy(void **state)
{
	struct board *b = *state;

	lapic_set_tpr(irq_lapic(b->bus, 0), 5);
	lapic_set_tpr(irq_lapic(b->bus, 1), 2);
	lapic_set_tpr(irq_lapic(b->bus, 2), 3);
	lapic_wr(b, 3, 0xf0, 0xff); /* disabled ones do not take part */
	irq_msi(b->bus, 0xfeeff000, LOWEST | 0x81);
	assert_int_equal(take(b, 1), 0x81); /* and is busy with it now */
	irq_msi(b->bus, 0xfeeff000, LOWEST | 0x82);
	assert_int_equal(take(b, 2), 0x82);
	assert_int_equal(take(b, 0), -1);
}

static void message_signalled(void **state)
{
	struct board *b = *state;

	irq_msi(b->bus, 0xfee02000, 0x91);
	assert_int_equal(take(b, 2), 0x91);
	irq_msi(b->bus, 0xfeeff000, 0xa1); /* broadcast */
	for (unsigned i = 0; i < BOARD_CPUS; i++)
		assert_int_equal(take(b, i), 0xa1);
	irq_msi(b->bus, 0xfee01000, 4 << 8); /* NMI */
	assert_int_equal(b->cpus[1].nmis, 1);
	irq_msi(b->bus, 0xfed00000, 0xb1); /* not an interrupt address */
	assert_int_equal(take(b, 0), -1);
	/* Redirection hint: one of those addressed */
	lapic_wr(b, 2, 0xd0, 0x04000000);
	lapic_wr(b, 3, 0xd0, 0x08000000);
	irq_msi(b->bus, 0xfee0c00c, 0xc1);
	assert_int_equal(take(b, 2), 0xc1);
	assert_int_equal(take(b, 3), -1);
}

static void extint_message_fetches_the_8259s_vector(void **state)
{
	struct board *b = *state;
	struct irq_line line = board_line(b, 5);

	board_pic_init(b);
	lapic_wr(b, 0, 0x350, MASKED);
	irq_set(&line, true);
	assert_int_equal(take(b, 0), -1);
	irq_msi(b->bus, 0xfee03000, 7 << 8);
	assert_int_equal(take(b, 0), -1);
	assert_int_equal(take(b, 3), 0x25);
	assert_int_equal(take(b, 3), -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
	const struct CMUnitTest tests[] = {
		TEST(registers),
		TEST(edge_comes_once),
		TEST(masked_edge_is_lost),
		TEST(isa_interrupt_0_is_on_input_2),
		TEST(level_waits_for_eoi_and_comes_again),
		TEST(level_comes_when_unmasked),
		TEST(eoi_register_and_change_to_edge_clear_remote_irr),
		TEST(level_without_taker_does_not_wait),
		TEST(logical_destinations),
		TEST(lowest_priority_takes_the_least_busy),
		TEST(message_signalled),
		TEST(extint_message_fetches_the_8259s_vector),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
