/*
 * virtio-balloon: pages that go into the balloon or are reported are zeros and the host's again, and no others; statistics by their period; what drivers should not do; a
 * saved machine; the host's side of it.
 */
#define _GNU_SOURCE
#include "lib/virtio_driver.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

/* Guest memory, which the driver reads when it sees by a read of it that the thread is done, as on hardware. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:mem_write\nrace:mem_read\nrace:driver_\nrace:mem_fill\n"; }
#endif

#define F_STATS	    BIT(1)
#define F_POISON    BIT(4)
#define F_REPORTING BIT(5)
#define ALL	    (F_STATS | BIT(2) | F_POISON | F_REPORTING)
#define NUMBERS	    0x200000u
#define PAGES	    0x400000u /* 2 MiB to give away */
#define STATS	    0x300000u
#define RING	    16u

enum { INFLATE, DEFLATE, STATS_QUEUE };

static void ready(struct driver *d, uint64_t features)
{
	assert_int_equal(driver_features(d, features | BIT(VIRTIO_F_VERSION_1)) & VIRTIO_FEATURES_OK,
			 VIRTIO_FEATURES_OK);
	for (unsigned n = 0; n < 5; n++)
		driver_queue(d, n, RING);
	driver_ok(d);
	mem_fill(d->mem, gpa(PAGES), 0xaa, 2 * MIB);
}

static struct driver start(enum clock_kind clock, const char *spec)
{
	struct driver d = driver_board_with(clock);
	struct error err;

	if (!device_plug(d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
	driver_reset_board(&d);
	ready(&d, ALL);
	return d;
}

static void end(struct driver *d)
{
	bus_pause(d->b->bus);
	devices_unplug(d->b->bus);
	driver_end(d);
}

/* Until the chain is used. */
static void serve(struct driver *d, unsigned queue)
{
	struct driver_queue *q = &d->queues[queue];
	uint32_t length;

	driver_add(d, q, 0);
	driver_kick(d, q);
	while (driver_used(d, q, &length) < 0)
		sched_yield();
	assert_int_equal(length, 0);
}

static void put_numbers(struct driver *d, unsigned queue, const uint32_t *numbers, unsigned count)
{
	assert_int_equal(mem_write(d->mem, gpa(NUMBERS), numbers, 4 * count), 0);
	driver_descriptor(d, d->queues[queue].descriptors, 0, NUMBERS, 4 * count, 0, 0);
}

static void report(struct driver *d, unsigned queue, uint64_t at, uint32_t size)
{
	driver_descriptor(d, d->queues[queue].descriptors, 0, at, size, D_WRITE, 0);
	serve(d, queue);
}

static bool is_zero(struct driver *d, uint64_t at)
{
	uint8_t byte = 1;

	assert_int_equal(mem_read(d->mem, gpa(at), &byte, 1), 0);
	assert_true(!byte || byte == 0xaa);
	return !byte;
}

static struct balloon_info info(struct driver *d)
{
	struct balloon_info info;

	assert_int_equal(balloon_query(d->b->bus, &info, NULL), 0);
	return info;
}

static void inflate_and_deflate(enum clock_kind clock)
{
	struct driver d = start(clock, "virtio-balloon,size=1");
	uint32_t numbers[] = { PAGES / PAGE_SIZE,
			       PAGES / PAGE_SIZE + 1,
			       PAGES / PAGE_SIZE + 7,
			       0xa0,
			       DRIVER_RAM / PAGE_SIZE,
			       UINT32_MAX,
			       0xfee00 };
	struct error err;

	assert_int_equal(driver_offered(&d) & 0x3f, ALL);
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG, 4), 256);
	put_numbers(&d, INFLATE, numbers, ARRAY_SIZE(numbers));
	serve(&d, INFLATE);
	for (unsigned n = 0; n < 9; n++)
		assert_int_equal(is_zero(&d, PAGES + n * PAGE_SIZE + 100), n == 0 || n == 1 || n == 7);
	driver_wr(&d, DRIVER_CONFIG + 4, 4, 3);
	driver_wr(&d, DRIVER_CONFIG, 4, 77); /* the host's */
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG, 4), 256);
	assert_int_equal(info(&d).wanted, MIB);
	assert_int_equal(info(&d).actual, 3 * PAGE_SIZE);
	assert_int_equal(info(&d).given_back, 3 * PAGE_SIZE);
	put_numbers(&d, DEFLATE, numbers, 3);
	serve(&d, DEFLATE);
	/* The host changes its mind: the driver is told. */
	driver_isr(&d);
	assert_int_equal(balloon_set(d.b->bus, 2 * MIB, &err), 0);
	assert_int_equal(driver_isr(&d), VIRTIO_ISR_CONFIG);
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG, 4), 512);
	assert_int_equal(balloon_set(d.b->bus, DRIVER_RAM + PAGE_SIZE, &err), -EINVAL);
	assert_int_equal(balloon_set(d.b->bus, 1, &err), -EINVAL);
	driver_reset_board(&d);
	assert_int_equal(info(&d).wanted, 2 * MIB);
	assert_int_equal(info(&d).actual, 0);
	end(&d);
}

static void by_the_thread(void **state)
{
	(void)state;
	inflate_and_deflate(CLOCK_HOST);
}

static void in_line(void **state)
{
	(void)state;
	inflate_and_deflate(CLOCK_VIRTUAL);
}

static void reports(void **state)
{
	/* Where a driver has its queue: behind all, or behind those that it uses. */
	static const struct {
		uint64_t features;
		unsigned queue;
	} ways[] = { { ALL, 4 }, { ALL, 3 }, { F_REPORTING, 2 } };
	struct driver d = start(CLOCK_HOST, "virtio-balloon");

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(ways); n++) {
		ready(&d, ways[n].features);
		report(&d, ways[n].queue, PAGES + 0x1000, 0x20000);
		assert_false(is_zero(&d, PAGES + 0xfff));
		assert_true(is_zero(&d, PAGES + 0x1000));
		assert_true(is_zero(&d, PAGES + 0x20fff));
		assert_false(is_zero(&d, PAGES + 0x21000));
		report(&d, ways[n].queue, PAGES + 0x22001, PAGE_SIZE);
		assert_false(is_zero(&d, PAGES + 0x22001));
	}
	/* A driver that fills free pages itself; one that has not said that it reports. */
	ready(&d, ALL);
	driver_wr(&d, DRIVER_CONFIG + 12, 4, 0xaaaaaaaa);
	report(&d, 3, PAGES, 2 * PAGE_SIZE);
	assert_false(is_zero(&d, PAGES));
	ready(&d, F_STATS);
	report(&d, 3, PAGES, 2 * PAGE_SIZE);
	assert_false(is_zero(&d, PAGES));
	end(&d);
}

static void too_many_numbers(void **state)
{
	struct driver d = start(CLOCK_HOST, "virtio-balloon");

	(void)state;
	driver_descriptor(&d, d.queues[INFLATE].descriptors, 0, NUMBERS, 4 * 1024 + 4, 0, 0);
	driver_add(&d, &d.queues[INFLATE], 0);
	driver_kick(&d, &d.queues[INFLATE]);
	while (!(driver_status(&d) & VIRTIO_NEEDS_RESET))
		sched_yield();
	ready(&d, ALL);
	report(&d, 3, PAGES, PAGE_SIZE);
	assert_true(is_zero(&d, PAGES));
	end(&d);
}

static void put_stat(struct driver *d, unsigned n, uint16_t tag, uint64_t value)
{
	uint8_t bytes[10];

	store_le16(bytes, tag);
	store_le64(bytes + 2, value);
	assert_int_equal(mem_write(d->mem, gpa(STATS + 10 * n), bytes, 10), 0);
}

static void answer(struct driver *d, uint64_t free)
{
	struct driver_queue *q = &d->queues[STATS_QUEUE];

	put_stat(d, 0, BALLOON_STAT_FREE, free);
	put_stat(d, 1, BALLOON_STAT_TOTAL, 1 << 20);
	put_stat(d, 2, 500, 7);
	driver_descriptor(d, q->descriptors, 0, STATS, 35, 0, 0); /* a half one at the end */
	driver_add(d, q, 0);
	driver_kick(d, q);
}

static void statistics(void **state)
{
	struct driver d = start(CLOCK_VIRTUAL, "virtio-balloon,stats=2");
	struct driver_queue *q = &d.queues[STATS_QUEUE];
	struct writer records;
	struct error err;

	(void)state;
	assert_int_equal(info(&d).stats_known, 0);
	answer(&d, 1000);
	assert_int_equal(info(&d).stats_known, BIT(BALLOON_STAT_FREE) | BIT(BALLOON_STAT_TOTAL));
	assert_int_equal(info(&d).stats[BALLOON_STAT_FREE], 1000);
	board_run(d.b, 19 * NS_PER_S / 10);
	assert_int_equal(driver_used(&d, q, NULL), -1);
	board_run(d.b, NS_PER_S / 10);
	assert_int_equal(driver_used(&d, q, NULL), 0); /* asked again */
	/* It takes its time: once more is not asked meanwhile. */
	board_run(d.b, 10 * NS_PER_S);
	assert_int_equal(driver_used(&d, q, NULL), -1);
	answer(&d, 2000);
	assert_int_equal(info(&d).stats[BALLOON_STAT_FREE], 2000);
	board_run(d.b, NS_PER_S);
	/* In another machine it is asked when it would have been. */
	bus_pause(d.b->bus);
	records = board_save(d.b);
	if (board_load(d.b, &records, clock_now(d.b->clock), &err))
		fail_msg("%s", err.text);
	bus_resume(d.b->bus);
	assert_int_equal(info(&d).stats[BALLOON_STAT_FREE], 2000);
	board_run(d.b, 9 * NS_PER_S / 10);
	assert_int_equal(driver_used(&d, q, NULL), -1);
	board_run(d.b, NS_PER_S / 5);
	assert_int_equal(driver_used(&d, q, NULL), 0);
	writer_free(&records);
	end(&d);
}

static void saved(void **state)
{
	struct driver d = start(CLOCK_HOST, "virtio-balloon,size=3");
	struct writer records;
	struct error err;
	const uint8_t tag[] = { 6, 0, 4, 1, 0, 0, 0 };
	uint8_t *field;

	(void)state;
	driver_wr(&d, DRIVER_CONFIG + 4, 4, 5);
	driver_wr(&d, DRIVER_CONFIG + 12, 4, 0xaaaaaaaa);
	bus_pause(d.b->bus);
	records = board_save(d.b);
	balloon_set(d.b->bus, 0, NULL);
	driver_wr(&d, DRIVER_CONFIG + 4, 4, 0);
	driver_wr(&d, DRIVER_CONFIG + 12, 4, 0);
	if (board_load(d.b, &records, 0, &err))
		fail_msg("%s", err.text);
	bus_resume(d.b->bus);
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG, 4), 768);
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG + 4, 4), 5);
	report(&d, 3, PAGES, PAGE_SIZE);
	assert_false(is_zero(&d, PAGES));
	/* A statistic that there is not. */
	bus_pause(d.b->bus);
	field = memmem(records.data, records.size, "virtio-balloon.0", 16);
	field = memmem(field, records.size - (size_t)(field - records.data), tag, sizeof(tag));
	field[sizeof(tag) + 1] = 4;
	assert_int_equal(board_load(d.b, &records, 0, &err), -EINVAL);
	assert_non_null(strstr(err.text, "stats_known"));
	bus_resume(d.b->bus);
	writer_free(&records);
	end(&d);
}

static void no_balloon(void **state)
{
	struct driver d = driver_board();
	struct balloon_info info;
	struct error err;

	(void)state;
	assert_int_equal(balloon_set(d.b->bus, 0, &err), -ENOENT);
	assert_int_equal(balloon_query(d.b->bus, &info, &err), -ENOENT);
	assert_null(device_plug(d.b->bus, NULL, &(struct device_request){ .spec = "virtio-balloon,size=9" }, &err));
	assert_non_null(strstr(err.text, "8 MiB"));
	driver_end(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_the_thread),    cmocka_unit_test(in_line),	  cmocka_unit_test(reports),
		cmocka_unit_test(too_many_numbers), cmocka_unit_test(statistics), cmocka_unit_test(saved),
		cmocka_unit_test(no_balloon),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
