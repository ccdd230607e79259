/*
 * The real-time clock: the date in each format, setting it, update-in-progress, the three interrupts, CMOS, reset. The virtual
 * clock begins on Thursday 2026-01-01 00:00:00.
 */
#include "lib/board.h"

#define SEC 1000000000ull
#define MS  1000000ull

static int setup(void **state)
{
	struct board *b = board_create(1);

	assert_int_equal(rtc_create(b->bus, 3, NULL), 0);
	board_pic_init(b);
	*state = b;
	return 0;
}

static uint8_t get(struct board *b, uint8_t index)
{
	outb(b, 0x70, index);
	return inb(b, 0x71);
}

static void set(struct board *b, uint8_t index, uint8_t value)
{
	outb(b, 0x70, index);
	outb(b, 0x71, value);
}

static void set_date(struct board *b, const uint8_t date[8])
{
	static const uint8_t registers[8] = { 0, 2, 4, 6, 7, 8, 9, 0x32 };

	for (unsigned i = 0; i < 8; i++)
		set(b, registers[i], date[i]);
}

/* seconds, minutes, hours, day of week, day, month, year, century */
static void check_date(struct board *b, const uint8_t date[8])
{
	static const uint8_t registers[8] = { 0, 2, 4, 6, 7, 8, 9, 0x32 };

	for (unsigned i = 0; i < 8; i++)
		if (get(b, registers[i]) != date[i])
			fail_msg("register 0x%02x is 0x%02x, expected 0x%02x", registers[i], get(b, registers[i]),
				 date[i]);
}

static bool interrupt(struct board *b)
{
	int vector = board_take(b);

	assert_true(vector == -1 || vector == 0x28);
	if (vector < 0)
		return false;
	outb(b, 0xa0, 0x20);
	outb(b, 0x20, 0x20);
	return true;
}

static void date_in_each_format(void **state)
{
	struct board *b = *state;

	check_date(b, (const uint8_t[8]){ 0x00, 0x00, 0x00, 5, 0x01, 0x01, 0x26, 0x20 });
	board_run_until(b, (13 * 3600 + 45 * 60 + 59) * SEC);
	check_date(b, (const uint8_t[8]){ 0x59, 0x45, 0x13, 5, 0x01, 0x01, 0x26, 0x20 });
	set(b, 0xb, 0x00); /* 12 hours */
	assert_int_equal(get(b, 4), 0x81);
	set(b, 0xb, 0x06); /* binary */
	check_date(b, (const uint8_t[8]){ 59, 45, 13, 5, 1, 1, 26, 20 });
	set(b, 0xb, 0x04);
	assert_int_equal(get(b, 4), 0x81);
	board_run_until(b, 86400 * SEC);
	assert_int_equal(get(b, 4), 12);
	assert_int_equal(get(b, 7), 2);
	assert_int_equal(get(b, 0xd), 0x80);
	assert_int_equal(get(b, 0xa), 0x26);
}

static void setting_the_date(void **state)
{
	struct board *b = *state;

	board_run_until(b, 300 * MS);
	set(b, 0xb, 0x82); /* SET: the registers stand still */
	set_date(b, (const uint8_t[8]){ 0x58, 0x59, 0x23, 1, 0x28, 0x02, 0x24, 0x20 });
	board_run_until(b, 5300 * MS);
	check_date(b, (const uint8_t[8]){ 0x58, 0x59, 0x23, 1, 0x28, 0x02, 0x24, 0x20 });
	set(b, 0xb, 0x02);
	check_date(b, (const uint8_t[8]){ 0x58, 0x59, 0x23, 4, 0x28, 0x02, 0x24, 0x20 });
	board_run(b, 700 * MS); /* the second goes on where it was */
	assert_int_equal(get(b, 0), 0x59);
	board_run(b, SEC);
	check_date(b, (const uint8_t[8]){ 0x00, 0x00, 0x00, 5, 0x29, 0x02, 0x24, 0x20 });
	set(b, 2, 0x30); /* without SET */
	check_date(b, (const uint8_t[8]){ 0x00, 0x30, 0x00, 5, 0x29, 0x02, 0x24, 0x20 });
	set(b, 0x32, 0x19);
	assert_int_equal(get(b, 9), 0x24);
	assert_int_equal(get(b, 0x32), 0x19);
	assert_int_equal(get(b, 6), 6); /* 1924-02-29 was a Friday */
}

static void divider_reset_starts_half_a_second_later(void **state)
{
	struct board *b = *state;

	board_run_until(b, 300 * MS);
	set(b, 0xa, 0x76);
	board_run_until(b, 10100 * MS);
	assert_int_equal(get(b, 0), 0);
	set(b, 0xa, 0x26);
	board_run(b, 499 * MS);
	assert_int_equal(get(b, 0), 0);
	board_run(b, 2 * MS);
	assert_int_equal(get(b, 0), 1);
}

static void hostile_dates_are_some_date(void **state)
{
	struct board *b = *state;

	for (unsigned mode = 0; mode < 8; mode += 2) {
		set(b, 0xb, 0x80 | mode);
		set_date(b, (const uint8_t[8]){ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff });
		set(b, 0xb, (uint8_t)mode);
		get(b, 0);
		set_date(b, (const uint8_t[8]){ 0 });
		board_run(b, SEC);
		get(b, 0);
	}
}

static void update_in_progress(void **state)
{
	struct board *b = *state;

	board_run_until(b, 997 * MS);
	assert_int_equal(get(b, 0xa) & 0x80, 0);
	board_run_until(b, 998 * MS);
	assert_int_equal(get(b, 0xa) & 0x80, 0x80);
	assert_int_equal(get(b, 0), 0x00);
	board_run_until(b, 1000 * MS);
	assert_int_equal(get(b, 0xa) & 0x80, 0);
	assert_int_equal(get(b, 0), 0x01);
	set(b, 0xb, 0x82);
	board_run_until(b, 1999 * MS);
	assert_int_equal(get(b, 0xa) & 0x80, 0);
}

static void periodic_interrupt(void **state)
{
	struct board *b = *state;

	get(b, 0xc);
	set(b, 0xa, 0x2f); /* 2 Hz */
	set(b, 0xb, 0x42);
	board_run_until(b, 499 * MS);
	assert_false(interrupt(b));
	board_run_until(b, 500 * MS);
	assert_true(interrupt(b));
	board_run_until(b, 3600 * MS);
	assert_false(interrupt(b)); /* the flag is still set */
	assert_true(clock_next_deadline(b->clock) == VTIME_NEVER);
	assert_int_equal(get(b, 0xc) & 0xc0, 0xc0);
	assert_int_equal(get(b, 0xc), 0);
	board_run_until(b, 4000 * MS);
	assert_true(interrupt(b));
	set(b, 0xa, 0x26); /* 1,024 Hz */
	get(b, 0xc);
	for (unsigned i = 1; i <= 100; i++) {
		board_run_until(b, 4000 * MS + (i * SEC + 1023) / 1024);
		assert_true(interrupt(b));
		assert_int_equal(get(b, 0xc) & 0x40, 0x40);
	}
}

static void update_ended_interrupt(void **state)
{
	struct board *b = *state;

	board_run_until(b, 1500 * MS);
	assert_int_equal(get(b, 0xc), 0x50); /* flags come without their interrupts, too */
	set(b, 0xb, 0x12);
	board_run_until(b, 1999 * MS);
	assert_false(interrupt(b));
	board_run_until(b, 2000 * MS);
	assert_true(interrupt(b));
	assert_int_equal(get(b, 0xc) & 0x90, 0x90);
	set(b, 0xb, 0x92); /* SET clears UIE */
	assert_int_equal(get(b, 0xb), 0x82);
}

static void alarm_interrupt(void **state)
{
	struct board *b = *state;

	set(b, 1, 0x30);
	set(b, 3, 0x15);
	set(b, 5, 0x07);
	set(b, 0xb, 0x22);
	board_run_until(b, (7 * 3600 + 15 * 60 + 30) * SEC - 1);
	assert_false(interrupt(b));
	board_run_until(b, (7 * 3600 + 15 * 60 + 30) * SEC);
	assert_true(interrupt(b));
	assert_int_equal(get(b, 0xc) & 0xa0, 0xa0);
	board_run_until(b, (86400 + 7 * 3600 + 15 * 60 + 30) * SEC);
	assert_true(interrupt(b)); /* every day */
	get(b, 0xc);
	set(b, 3, 0xff); /* every hour, each minute at :30 */
	set(b, 5, 0xc0);
	board_run(b, 59 * SEC);
	assert_false(interrupt(b));
	board_run(b, SEC);
	assert_true(interrupt(b));
	get(b, 0xc);
	set(b, 1, 0x75); /* no such second: never */
	board_run(b, 86400 * SEC);
	assert_false(interrupt(b));
}

static void alarm_in_the_afternoon(void **state)
{
	struct board *b = *state;

	set(b, 0xb, 0x24); /* binary, 12 hours, alarm */
	set(b, 1, 0);
	set(b, 3, 0);
	set(b, 5, 0x81);
	board_run_until(b, 13 * 3600 * SEC - 1);
	assert_false(interrupt(b));
	board_run_until(b, 13 * 3600 * SEC);
	assert_true(interrupt(b));
}

static void nothing_enabled_no_timer(void **state)
{
	struct board *b = *state;

	assert_true(clock_next_deadline(b->clock) == VTIME_NEVER);
	set(b, 0xb, 0x72);
	assert_true(clock_next_deadline(b->clock) != VTIME_NEVER);
	set(b, 0xb, 0x02);
	assert_true(clock_next_deadline(b->clock) == VTIME_NEVER);
}

static void cmos_and_date_survive_a_reset(void **state)
{
	struct board *b = *state;

	set(b, 0x40, 0xa5);
	set(b, 0x7f, 0x5a);
	set(b, 4, 0x12);
	set(b, 0xb, 0x42);
	set(b, 0xc, 0xff);
	set(b, 0xd, 0x00);
	bus_reset(b->bus);
	assert_int_equal(get(b, 0x40), 0xa5);
	assert_int_equal(get(b, 0x7f), 0x5a);
	assert_int_equal(get(b, 0xff), 0x5a); /* bit 7 is the NMI mask */
	assert_int_equal(get(b, 4), 0x12);
	assert_int_equal(get(b, 0xb), 0x02);
	assert_int_equal(get(b, 0xd), 0x80);
	assert_int_equal(inb(b, 0x70), 0xff);
}

static void memory_sizes(void **state)
{
	struct clock *clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	struct guest_mem *mem = mem_create(64ull << 20, NULL);
	struct trace trace = { 0 };
	struct board b = { .clock = clock, .bus = bus_create(mem, clock, &trace, NULL) };
	void *cpus[1] = { &b.cpus[0] };
	static const struct lapic_ops ops = { .interrupt = board_interrupt };

	(void)state;
	assert_int_equal(irq_chip_create(b.bus, 1, &ops, cpus, NULL), 0);
	assert_int_equal(rtc_create(b.bus, 2, NULL), 0);
	assert_int_equal(get(&b, 0x15) | get(&b, 0x16) << 8, 640);
	assert_int_equal(get(&b, 0x17) | get(&b, 0x18) << 8, 63 << 10);
	assert_int_equal(get(&b, 0x30) | get(&b, 0x31) << 8, 63 << 10);
	assert_int_equal(get(&b, 0x5f), 1);
	assert_int_equal(get(&b, 0x34) | get(&b, 0x35) << 8, 48 << 4);
	assert_int_equal(get(&b, 0x5b) | get(&b, 0x5c) << 8 | get(&b, 0x5d) << 16, 0);
	bus_destroy(b.bus);
	mem_destroy(mem);
	clock_destroy(clock);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
	const struct CMUnitTest tests[] = {
		TEST(date_in_each_format),
		TEST(setting_the_date),
		TEST(divider_reset_starts_half_a_second_later),
		TEST(hostile_dates_are_some_date),
		TEST(update_in_progress),
		TEST(periodic_interrupt),
		TEST(update_ended_interrupt),
		TEST(alarm_interrupt),
		TEST(alarm_in_the_afternoon),
		TEST(nothing_enabled_no_timer),
		TEST(cmos_and_date_survive_a_reset),
		cmocka_unit_test(memory_sizes),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
