/*
 * The high precision event timers by their specification: the counter, comparators that match once and periodically, of 64 and 32 bits, edges and levels,
 * routes, legacy replacement of the 8254 and the RTC, halves of registers, records.
 */
#include "lib/board.h"

#include <errno.h>

#define TICK	    10u
#define CONFIG	    0x10
#define STATUS	    0x20
#define COUNTER	    0xf0
#define TIMER(n)    (0x100 + 0x20 * (n))
#define COMPARE(n)  (TIMER(n) + 8)
#define INTERRUPTS  BIT(2)
#define LEVEL	    BIT(1)
#define PERIODIC    BIT(3)
#define SET	    BIT(6)
#define NARROW	    BIT(8)
#define ROUTE(line) ((uint64_t)(line) << 9)
#define VECTOR	    0x40

static int setup(void **state)
{
	struct board *b = board_create(1);

	assert_int_equal(hpet_type.create(b->bus, NULL, NULL) || pit_type.create(b->bus, NULL, NULL) ||
				 rtc_create(b->bus, 1, NULL),
			 0);
	board_pic_init(b);
	/* The local APIC takes messages, and the 8259's interrupts by LINT0. */
	lapic_wr(b, 0, 0xf0, 0x1ff);
	lapic_wr(b, 0, 0x350, 0x700);
	*state = b;
	return 0;
}

static uint64_t get(struct board *b, unsigned offset) { return board_read(b, BUS_MMIO, HPET_ADDRESS + offset, 8); }
static void put(struct board *b, unsigned offset, uint64_t v) { board_write(b, BUS_MMIO, HPET_ADDRESS + offset, 8, v); }
static uint32_t get32(struct board *b, unsigned offset)
{
	return (uint32_t)board_read(b, BUS_MMIO, HPET_ADDRESS + offset, 4);
}
static void put32(struct board *b, unsigned offset, uint32_t v)
{
	board_write(b, BUS_MMIO, HPET_ADDRESS + offset, 4, v);
}

static bool taken(struct board *b, int vector)
{
	int got = board_take(b);

	assert_true(got == -1 || got == vector);
	if (got < 0)
		return false;
	if (vector >= 0x40)
		lapic_wr(b, 0, 0xb0, 0);
	if (vector >= 0x28 && vector < 0x30)
		outb(b, 0xa0, 0x20);
	if (vector < 0x30)
		outb(b, 0x20, 0x20);
	return true;
}

static void counts_while_enabled(void **state)
{
	struct board *b = *state;

	assert_int_equal(get(b, 0), 10000000ull << 32 | 0x8086a201);
	assert_int_equal(get32(b, 4), 10000000);
	board_run(b, 1000);
	assert_int_equal(get(b, COUNTER), 0);
	put(b, CONFIG, 1);
	board_run(b, 1000);
	assert_int_equal(get(b, COUNTER), 100);
	put(b, CONFIG, 0);
	board_run(b, 1000);
	assert_int_equal(get(b, COUNTER), 100);
	/* By halves, and over the middle */
	put32(b, COUNTER, 0xfffffffe);
	put32(b, COUNTER + 4, 7);
	put(b, CONFIG, ~0ull);
	assert_int_equal(get(b, CONFIG), 3);
	board_run(b, 5 * TICK);
	assert_int_equal(get(b, COUNTER), 8ull << 32 | 3);
	assert_int_equal(get32(b, COUNTER + 4), 8);
	/* What is not aligned, or not there */
	assert_int_equal(get32(b, COUNTER + 2), UINT32_MAX);
	put32(b, COUNTER + 2, 0xffff);
	assert_int_equal(get(b, COUNTER), 8ull << 32 | 3);
	assert_int_equal(get(b, 0x200), 0);
	put(b, 0x3f8, ~0ull);
	assert_int_equal(get(b, TIMER(0) + 0x10), 0);
}

static void matches_once(void **state)
{
	struct board *b = *state;

	board_ioapic_entry(b, 20, VECTOR);
	put(b, TIMER(2), INTERRUPTS | ROUTE(20));
	assert_int_equal(get(b, TIMER(2)), 0x00ff000000000030ull | INTERRUPTS | ROUTE(20));
	put(b, TIMER(2), INTERRUPTS | ROUTE(5)); /* no such route */
	assert_int_equal(get32(b, TIMER(2)), 0x30 | INTERRUPTS | ROUTE(20));
	put(b, COMPARE(2), 1000);
	put(b, CONFIG, 1);
	board_run(b, 1000 * TICK - 1);
	assert_false(taken(b, VECTOR));
	board_run(b, 1);
	assert_true(taken(b, VECTOR));
	board_run(b, NS_PER_S);
	assert_false(taken(b, VECTOR));
	/* In the past: not before it comes round, which one of 32 bits does. */
	put(b, COMPARE(2), get(b, COUNTER) - 1);
	board_run(b, NS_PER_S);
	assert_false(taken(b, VECTOR));
	put(b, TIMER(2), INTERRUPTS | NARROW | ROUTE(20));
	put(b, COMPARE(2), get(b, COUNTER) + 0x500000010ull);
	assert_int_equal(get(b, COMPARE(2)) >> 32, 0);
	board_run(b, 0x10 * TICK);
	assert_true(taken(b, VECTOR));
	board_run(b, (1ull << 32) * TICK - 1);
	assert_false(taken(b, VECTOR));
	board_run(b, 1);
	assert_true(taken(b, VECTOR));
	/* Masked, or halted, it is silent. */
	put(b, TIMER(2), ROUTE(20));
	put(b, COMPARE(2), get(b, COUNTER) + 10);
	board_run(b, 1000);
	put(b, TIMER(2), INTERRUPTS | ROUTE(20));
	put(b, COMPARE(2), get(b, COUNTER) + 10);
	put(b, CONFIG, 0);
	board_run(b, 1000);
	assert_false(taken(b, VECTOR));
}

static void matches_periodically(void **state)
{
	struct board *b = *state;

	board_ioapic_entry(b, 16, VECTOR);
	put(b, TIMER(1), INTERRUPTS | PERIODIC | SET | ROUTE(16));
	put(b, COMPARE(1), 5000);
	assert_int_equal(get(b, TIMER(1)) & SET, 0);
	put(b, COMPARE(1), 100000);
	assert_int_equal(get(b, COMPARE(1)), 5000);
	put(b, CONFIG, 1);
	board_run(b, 5000 * TICK);
	assert_true(taken(b, VECTOR));
	for (unsigned n = 0; n < 5; n++) {
		assert_int_equal(get(b, COMPARE(1)), 105000 + 100000 * n);
		board_run(b, 100000 * TICK - 1);
		assert_false(taken(b, VECTOR));
		board_run(b, 1);
		assert_true(taken(b, VECTOR));
	}
	/* Without interrupts the comparator goes on. */
	put(b, TIMER(1), PERIODIC | ROUTE(16));
	board_run(b, 100000 * TICK * 7);
	assert_int_equal(get(b, COMPARE(1)), 605000 + 700000);
	/* However short it is, time goes on. */
	put(b, TIMER(1), INTERRUPTS | PERIODIC | SET | NARROW | ROUTE(16));
	put(b, COMPARE(1), 1);
	board_run(b, NS_PER_S / 100);
	assert_true(taken(b, VECTOR));
	put(b, TIMER(1), INTERRUPTS | PERIODIC | SET | ROUTE(16));
	put(b, COMPARE(1), 0);
	board_run(b, NS_PER_S);
}

static void levels_wait_to_be_cleared(void **state)
{
	struct board *b = *state;

	board_ioapic_entry(b, 23, VECTOR | 0x8000);
	put(b, TIMER(0), INTERRUPTS | LEVEL | ROUTE(23));
	put(b, COMPARE(0), 10);
	put(b, CONFIG, 1);
	board_run(b, 100);
	assert_int_equal(get(b, STATUS), 1);
	assert_true(taken(b, VECTOR));
	assert_true(taken(b, VECTOR)); /* still high */
	put(b, STATUS, 6);
	assert_int_equal(get(b, STATUS), 1);
	put(b, STATUS, 1);
	assert_int_equal(get(b, STATUS), 0);
	assert_true(taken(b, VECTOR)); /* sent before */
	assert_false(taken(b, VECTOR));
	/* Status without interrupts; then with */
	put(b, TIMER(0), LEVEL | ROUTE(23));
	put(b, COMPARE(0), get(b, COUNTER) + 10);
	board_run(b, 100);
	assert_int_equal(get(b, STATUS), 1);
	assert_false(taken(b, VECTOR));
	put(b, TIMER(0), INTERRUPTS | LEVEL | ROUTE(23));
	assert_true(taken(b, VECTOR));
	put(b, TIMER(0), INTERRUPTS | ROUTE(23));
	assert_int_equal(get(b, STATUS), 0);
}

static void pit_program(struct board *b)
{
	outb(b, 0x43, 0x34);
	outb(b, 0x40, 0x9c);
	outb(b, 0x40, 0x2e); /* 100 Hz */
}

static void replaces_the_old_timers(void **state)
{
	struct board *b = *state;

	pit_program(b);
	taken(b, 0x20);
	board_run(b, NS_PER_S / 50);
	assert_true(taken(b, 0x20));
	put(b, TIMER(0), INTERRUPTS);
	put(b, COMPARE(0), 1000000 * 5);
	put(b, TIMER(1), INTERRUPTS);
	put(b, COMPARE(1), 1000000 * 6);
	put(b, CONFIG, 3);
	taken(b, 0x20);
	/* The RTC's flags come without its interrupt. */
	outb(b, 0x70, 0x0b);
	outb(b, 0x71, 0x12);
	board_run(b, 5000000 * TICK - 1);
	assert_false(taken(b, 0x20));
	board_run(b, 1);
	assert_true(taken(b, 0x20));
	board_run(b, 1000000 * TICK - 1);
	assert_false(taken(b, 0x20));
	board_run(b, 1);
	assert_true(taken(b, 0x28));
	board_run(b, 2 * NS_PER_S);
	outb(b, 0x70, 0x0c);
	assert_int_equal(inb(b, 0x71) & 0x90, 0x90);
	assert_false(taken(b, 0x28));
	/* And back */
	put(b, CONFIG, 1);
	board_run(b, NS_PER_S / 50);
	assert_true(taken(b, 0x20));
	put(b, CONFIG, 3);
	bus_reset(b->bus);
	board_pic_init(b);
	pit_program(b);
	taken(b, 0x20);
	board_run(b, NS_PER_S / 50);
	assert_true(taken(b, 0x20));
}

static void goes_on_in_another_machine(void **state)
{
	struct board *b = *state;
	struct board *other;
	struct writer writer;
	struct error err;
	void *there;

	setup(&there);
	other = there;
	put(b, TIMER(0), INTERRUPTS | PERIODIC | SET);
	put(b, COMPARE(0), 200000);
	put(b, CONFIG, 3);
	pit_program(b);
	board_run(b, 300000 * TICK);
	assert_true(taken(b, 0x20));
	writer = board_save(b);
	assert_int_equal(board_load(other, &writer, clock_now(b->clock), NULL), 0);
	assert_int_equal(get(other, COUNTER), get(b, COUNTER));
	board_run(other, 100000 * TICK - 1);
	assert_false(taken(other, 0x20));
	board_run(other, 1);
	assert_true(taken(other, 0x20));
	writer_free(&writer);
	/* A comparator that its timer cannot have */
	put(b, TIMER(0), NARROW);
	writer = board_save(b);
	for (size_t at = 0; at + 7 + 24 < writer.size; at++)
		if (load_le16(writer.data + at) == 6 && writer.data[at + 2] == 8 &&
		    load_le32(writer.data + at + 3) == 3 && load_le64(writer.data + at + 15) == UINT64_MAX)
			writer.data[at + 7 + 7] = 1;
	assert_int_equal(board_load(other, &writer, clock_now(b->clock), &err), -EINVAL);
	assert_non_null(strstr(err.text, "32 bits"));
	writer_free(&writer);
	board_destroy(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(counts_while_enabled),    TEST(matches_once),
		TEST(matches_periodically),    TEST(levels_wait_to_be_cleared),
		TEST(replaces_the_old_timers), TEST(goes_on_in_another_machine),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
