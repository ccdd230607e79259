/*
 * The 8254: modes of channel 0 as interrupt 0 shows them, counter and output as channel 2 shows them, latches, byte order, BCD.
 */
#include "lib/board.h"

#define HZ	1193182ull
#define CONTROL 0x43

static int setup(void **state)
{
	struct board *b = board_create(1);

	assert_int_equal(pit_type.create(b->bus, NULL, NULL), 0);
	board_pic_init(b);
	*state = b;
	return 0;
}

/* First moment at which n ticks are over. */
static vtime_t ticks(uint64_t n) { return (n * 1000000000 + HZ - 1) / HZ; }

static void program(struct board *b, unsigned channel, unsigned mode, uint16_t count)
{
	outb(b, CONTROL, (uint8_t)(channel << 6 | 0x30 | mode << 1));
	outb(b, 0x40 + channel, count & 0xff);
	outb(b, 0x40 + channel, count >> 8);
}

static uint16_t counter(struct board *b, unsigned channel)
{
	uint8_t low;

	outb(b, CONTROL, (uint8_t)(channel << 6));
	low = inb(b, 0x40 + channel);
	return (uint16_t)(inb(b, 0x40 + channel) << 8 | low);
}

static uint8_t status(struct board *b, unsigned channel)
{
	outb(b, CONTROL, (uint8_t)(0xe0 | 2 << channel));
	return inb(b, 0x40 + channel);
}

static bool interrupt(struct board *b)
{
	int vector = board_take(b);

	assert_true(vector == -1 || vector == 0x20);
	if (vector < 0)
		return false;
	outb(b, 0x20, 0x20);
	return true;
}

static bool output2(struct board *b) { return inb(b, 0x61) & 0x20; }

static void rate_generator_interrupts_every_period(void **state)
{
	struct board *b = *state;

	program(b, 0, 2, 11932); /* 100 Hz */
	interrupt(b);		 /* the output rises when the mode is set */
	for (unsigned i = 1; i <= 10; i++) {
		board_run_until(b, ticks(11932 * i) - 1);
		assert_false(interrupt(b));
		assert_int_equal(counter(b, 0), 1);
		board_run_until(b, ticks(11932 * i));
		assert_true(interrupt(b));
		assert_int_equal(counter(b, 0), 11932);
	}
}

static void square_wave_interrupts_every_period(void **state)
{
	struct board *b = *state;

	program(b, 0, 3, 0); /* 65,536: the PC's 18.2 Hz */
	interrupt(b);
	for (unsigned i = 1; i <= 4; i++) {
		board_run_until(b, ticks(65536 * i) - 1);
		assert_false(interrupt(b));
		board_run_until(b, ticks(65536 * i));
		assert_true(interrupt(b));
	}
}

static void terminal_count_interrupts_once(void **state)
{
	struct board *b = *state;

	program(b, 0, 0, 5000);
	assert_false(interrupt(b));
	assert_int_equal(status(b, 0), 0x30);
	board_run_until(b, ticks(5000) - 1);
	assert_false(interrupt(b));
	board_run_until(b, ticks(5000));
	assert_true(interrupt(b));
	assert_int_equal(status(b, 0), 0xb0);
	board_run_until(b, ticks(5001));
	assert_int_equal(counter(b, 0), 0xffff); /* wraps and goes on */
	board_run_until(b, ticks(200000));
	assert_false(interrupt(b));
	outb(b, 0x40, 0x10); /* a new count: low again */
	outb(b, 0x40, 0x27);
	board_run(b, ticks(10000) + 1000);
	assert_true(interrupt(b));
}

static void software_strobe_interrupts_once(void **state)
{
	struct board *b = *state;

	program(b, 0, 4, 5000);
	interrupt(b);
	board_run_until(b, ticks(5000));
	assert_int_equal(status(b, 0), 0x38); /* low for one tick */
	assert_false(interrupt(b));
	board_run_until(b, ticks(5001));
	assert_int_equal(status(b, 0), 0xb8);
	assert_true(interrupt(b));
	board_run_until(b, ticks(200000));
	assert_false(interrupt(b));
}

static void gate_less_modes_never_trigger_channel_0(void **state)
{
	struct board *b = *state;

	program(b, 0, 1, 100);
	interrupt(b);
	board_run(b, 1000000);
	assert_false(interrupt(b));
	assert_int_equal(status(b, 0) & 0xc0, 0xc0); /* high; the count was never used */
}

static void new_rate_counts_from_the_next_period(void **state)
{
	struct board *b = *state;

	program(b, 0, 2, 10000);
	interrupt(b);
	board_run_until(b, ticks(4000));
	outb(b, 0x40, 20000 & 0xff);
	outb(b, 0x40, 20000 >> 8);
	assert_int_equal(status(b, 0) & 0x40, 0x40); /* null count */
	assert_int_equal(counter(b, 0), 6000);
	board_run_until(b, ticks(10000));
	assert_true(interrupt(b));
	assert_int_equal(status(b, 0) & 0x40, 0);
	board_run_until(b, ticks(10000) + ticks(20000) - 1);
	assert_false(interrupt(b));
	board_run_until(b, ticks(10000) + ticks(20000));
	assert_true(interrupt(b));
}

/* A period of a microsecond must not keep the monitor busy for ever. */
static void shortest_period_is_bounded(void **state)
{
	struct board *b = *state;
	unsigned runs = 0;

	program(b, 0, 2, 1);
	while (clock_next_deadline(b->clock) <= 1000000) {
		clock_set(b->clock, clock_next_deadline(b->clock));
		clock_run(b->clock);
		runs++;
	}
	assert_in_range(runs, 10, 100);
	assert_true(interrupt(b));
}

/* ---- the host was late ---- */

/* It is so late, and everything due is done at once. */
static void sleep_until(struct board *b, vtime_t t)
{
	clock_set(b->clock, t);
	clock_run(b->clock);
}

static unsigned interrupts(struct board *b)
{
	unsigned n = 0;

	while (interrupt(b))
		n++;
	return n;
}

static void late_edges_come_later(void **state)
{
	struct board *b = *state;
	vtime_t start;

	b->bus->reinject = true;
	program(b, 0, 2, 1193);
	interrupts(b);
	start = clock_now(b->clock);
	sleep_until(b, start + ticks(10 * 1193) + 5000);
	assert_int_equal(interrupts(b), 10);
	assert_int_equal(b->bus->ticks.late, 9);
	assert_int_equal(b->bus->ticks.reinjected, 9);
	/* The next one keeps its time, however near it is now, and the CPU may as well be what is late. */
	sleep_until(b, start + ticks(11 * 1193) - 1);
	assert_int_equal(interrupts(b), 0);
	board_run_until(b, start + ticks(21 * 1193));
	assert_int_equal(interrupts(b), 11);
	/* A CPU that takes them late finds also what the clock's thread had no time for. */
	board_run_until(b, start + ticks(24 * 1193));
	assert_true(interrupt(b));
	clock_set(b->clock, start + ticks(27 * 1193));
	assert_int_equal(interrupts(b), 5);
	sleep_until(b, start + ticks(27 * 1193));
	assert_int_equal(interrupts(b), 0);
	assert_int_equal(b->bus->ticks.late, b->bus->ticks.reinjected);

	/* A new rate begins with an edge of its own. */
	outb(b, 0x40, 2386 & 0xff);
	outb(b, 0x40, 2386 >> 8);
	sleep_until(b, start + ticks(28 * 1193) + ticks(3 * 2386) + 10);
	assert_int_equal(interrupts(b), 4);

	/* There is a bound. */
	sleep_until(b, start + ticks(2386ull * (TICKS_MOST + 1000)));
	assert_in_range(interrupts(b), TICKS_MOST, TICKS_MOST + 1);
	assert_true(b->bus->ticks.given_up > 500);
	/* Programmed anew it owes nothing. */
	board_run(b, ticks(10 * 2386));
	program(b, 0, 2, 1193);
	assert_in_range(interrupts(b), 0, 1);
}

static void masked_edges_are_lost(void **state)
{
	struct board *b = *state;

	b->bus->reinject = true;
	program(b, 0, 3, 1193);
	interrupts(b);
	/* While it is served a guest may mask it, however long the host makes that. */
	outb(b, 0x21, 0xff);
	board_run(b, ticks(20 * 1193));
	outb(b, 0x21, 0xfe);
	assert_int_equal(interrupts(b), 20);
	assert_int_equal(b->bus->ticks.given_up, 0);
	outb(b, 0x21, 0xff);
	board_run(b, ticks((TICKS_MASKED + 20) * 1193));
	outb(b, 0x21, 0xfe);
	assert_int_equal(interrupts(b), 1);
	/* What waits is given up, too. */
	board_run(b, ticks(20 * 1193));
	outb(b, 0x21, 0xff);
	board_run(b, ticks((TICKS_MASKED + 20) * 1193));
	outb(b, 0x21, 0xfe);
	assert_int_equal(interrupts(b), 1);
	/* Too fast to follow, as before. */
	program(b, 0, 2, 2);
	interrupts(b);
	board_run(b, 1000000);
	assert_int_equal(interrupts(b), 1);
	/* Virtual time has no late edges. */
	b->bus->reinject = false;
	program(b, 0, 2, 1193);
	interrupts(b);
	board_run(b, ticks(20 * 1193));
	assert_int_equal(interrupts(b), 1);
}

static void channel_2_by_its_gate(void **state)
{
	struct board *b = *state;

	/* As kernels calibrate their clocks: mode 0, gate opened, poll the output. */
	outb(b, 0x61, 0);
	program(b, 2, 0, 11932);
	assert_false(output2(b));
	board_run(b, 50000000);
	assert_false(output2(b));
	assert_int_equal(counter(b, 2), 11932);
	outb(b, 0x61, 1);
	assert_int_equal(inb(b, 0x61) & 0x2f, 1);
	board_run(b, ticks(10000));
	outb(b, 0x61, 0); /* holds */
	board_run(b, 50000000);
	assert_int_equal(counter(b, 2), 1932);
	outb(b, 0x61, 1);
	board_run(b, ticks(1931));
	assert_false(output2(b));
	board_run(b, ticks(2));
	assert_true(output2(b));
}

static void hardware_triggered_one_shot(void **state)
{
	struct board *b = *state;

	outb(b, 0x61, 0);
	program(b, 2, 1, 1000);
	assert_true(output2(b));
	outb(b, 0x61, 1);
	assert_false(output2(b));
	board_run(b, ticks(600));
	outb(b, 0x61, 0); /* only the rise counts: it triggers again */
	outb(b, 0x61, 1);
	board_run(b, ticks(600));
	assert_false(output2(b));
	board_run(b, ticks(401));
	assert_true(output2(b));
}

static void square_wave_output_and_gate(void **state)
{
	struct board *b = *state;

	outb(b, 0x61, 1);
	program(b, 2, 3, 1001); /* odd: high for one tick more */
	board_run_until(b, ticks(500));
	assert_true(output2(b));
	board_run_until(b, ticks(501));
	assert_false(output2(b));
	outb(b, 0x61, 0);
	assert_true(output2(b)); /* a closed gate forces it high */
	board_run(b, 12345678);
	outb(b, 0x61, 3);
	assert_int_equal(counter(b, 2), 1001);
	assert_int_equal(inb(b, 0x61) & 0x2f, 0x23);
}

static void latches_hold_until_read(void **state)
{
	struct board *b = *state;
	uint8_t low, high;

	program(b, 0, 2, 50000);
	board_run_until(b, ticks(1000));
	outb(b, CONTROL, 0x00);
	board_run_until(b, ticks(9000));
	outb(b, CONTROL, 0x00); /* ignored */
	low = inb(b, 0x40);
	high = inb(b, 0x40);
	assert_int_equal(high << 8 | low, 49000);
	low = inb(b, 0x40);
	high = inb(b, 0x40);
	assert_int_equal(high << 8 | low, 41000);
	/* Read-back of status and count: status comes first. */
	outb(b, CONTROL, 0xc2);
	assert_int_equal(inb(b, 0x40), 0xb4);
	low = inb(b, 0x40);
	high = inb(b, 0x40);
	assert_int_equal(high << 8 | low, 41000);
	assert_int_equal(inb(b, CONTROL), 0xff);
}

static void single_bytes_and_bcd(void **state)
{
	struct board *b = *state;

	outb(b, 0x61, 1);
	outb(b, CONTROL, 0x94); /* channel 2, low byte, mode 2 */
	outb(b, 0x42, 200);
	board_run_until(b, ticks(50));
	assert_int_equal(inb(b, 0x42), 150);
	assert_int_equal(inb(b, 0x42), 150);
	outb(b, CONTROL, 0xa4); /* high byte */
	outb(b, 0x42, 2);
	assert_int_equal(inb(b, 0x42), 2);
	outb(b, CONTROL, 0xb5); /* BCD */
	outb(b, 0x42, 0x34);
	outb(b, 0x42, 0x12);
	assert_int_equal(counter(b, 2), 0x1234);
	board_run(b, ticks(235));
	assert_int_equal(counter(b, 2), 0x0999);
	outb(b, CONTROL, 0xb5);
	outb(b, 0x42, 0xff); /* no BCD digits */
	outb(b, 0x42, 0xff);
	counter(b, 2);
	outb(b, CONTROL, 0xb5);
	outb(b, 0x42, 0); /* 10,000 */
	outb(b, 0x42, 0);
	board_run(b, ticks(1));
	assert_int_equal(counter(b, 2), 0x9999);
}

static void refresh_toggles(void **state)
{
	struct board *b = *state;
	unsigned changes = 0, last = inb(b, 0x61) & 0x10;

	for (unsigned i = 0; i < 100; i++) {
		unsigned bit;

		board_run(b, 5000);
		bit = inb(b, 0x61) & 0x10;
		changes += bit != last;
		last = bit;
	}
	assert_in_range(changes, 30, 36);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
	const struct CMUnitTest tests[] = {
		TEST(rate_generator_interrupts_every_period),
		TEST(square_wave_interrupts_every_period),
		TEST(terminal_count_interrupts_once),
		TEST(software_strobe_interrupts_once),
		TEST(gate_less_modes_never_trigger_channel_0),
		TEST(new_rate_counts_from_the_next_period),
		TEST(shortest_period_is_bounded),
		TEST(late_edges_come_later),
		TEST(masked_edges_are_lost),
		TEST(channel_2_by_its_gate),
		TEST(hardware_triggered_one_shot),
		TEST(square_wave_output_and_gate),
		TEST(latches_hold_until_read),
		TEST(single_bytes_and_bcd),
		TEST(refresh_toggles),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
