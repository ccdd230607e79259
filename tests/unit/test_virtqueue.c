/*
 * Split virtqueues, by the book and by drivers that do not read it: through the registers of a device that sends back what it gets.
 */
#include "lib/virtio_echo.h"

#include <errno.h>

static struct driver plug(void) { return echo_plug(&(struct virtio_options){ .legacy = true }); }

#define V1	 BIT(VIRTIO_F_VERSION_1)
#define INDIRECT (V1 | BIT(VIRTIO_F_INDIRECT_DESC))
#define EVENTS	 (V1 | BIT(VIRTIO_F_EVENT_IDX))

static struct driver_queue *start(struct driver *d, uint64_t features)
{
	struct driver_queue *q;

	assert_int_equal(driver_features(d, features) & VIRTIO_FEATURES_OK, VIRTIO_FEATURES_OK);
	q = driver_queue(d, 0, MOST);
	driver_ok(d);
	return q;
}

/* A chain of "out" at 0x200000 and `in` bytes at 0x201000, in descriptors n and n + 1. */
static void add_echo(struct driver *d, struct driver_queue *q, unsigned n, const char *out, uint32_t in)
{
	assert_int_equal(mem_write(d->mem, gpa(0x200000), out, strlen(out)), 0);
	driver_descriptor(d, q->descriptors, n, 0x200000, (uint32_t)strlen(out), D_NEXT, n + 1);
	driver_descriptor(d, q->descriptors, n + 1, 0x201000, in, D_WRITE, 0);
	driver_add(d, q, n);
}

/* The device still serves. */
static void check_works(struct driver *d, struct driver_queue *q)
{
	uint32_t length;

	add_echo(d, q, 0, "still here", 64);
	driver_kick(d, q);
	assert_int_equal(driver_used(d, q, &length), 0);
	assert_int_equal(length, 10);
	check_in(d, "ereh llits");
	assert_int_equal(driver_used(d, q, NULL), -1);
}

/* ---- by the book ---- */

static void chains_are_served(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, V1);
	uint32_t length;

	(void)state;
	check_works(&d, q);
	assert_true(driver_pin(&d));
	assert_int_equal(driver_isr(&d), VIRTIO_ISR_QUEUE);
	assert_false(driver_pin(&d));
	assert_int_equal(driver_isr(&d), 0);
	/* what is read is in three pieces, one of them empty; of what is written there is less than it could fill */
	mem_write(d.mem, gpa(0x200000), "abcdef", 6);
	driver_descriptor(&d, q->descriptors, 9, 0x200000, 2, D_NEXT, 7);
	driver_descriptor(&d, q->descriptors, 7, 0xfffffffffffff000, 0, D_NEXT, 100);
	driver_descriptor(&d, q->descriptors, 100, 0x200004, 2, D_NEXT, 2);
	driver_descriptor(&d, q->descriptors, 2, 0x201000, 3, D_NEXT | D_WRITE, 3);
	driver_descriptor(&d, q->descriptors, 3, 0x202000, 0xffff, D_WRITE, 9);
	driver_add(&d, q, 9);
	driver_kick(&d, q);
	assert_int_equal(driver_used(&d, q, &length), 9);
	assert_int_equal(length, 4);
	check_in(&d, "feb");
	assert_int_equal(driver_status(&d), 0xf);
	driver_end(&d);
}

/* All that there are with one interrupt; the indices wrap round. */
static void many_rounds(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, V1);

	(void)state;
	for (unsigned n = 0; n < 0x11000; n += 64) {
		for (unsigned i = 0; i < 64; i++)
			add_echo(&d, q, 2 * i, "x", 1);
		driver_kick(&d, q);
		for (unsigned i = 0; i < 64; i++)
			assert_int_equal(driver_used(&d, q, NULL), 2 * i);
		assert_int_equal(driver_used(&d, q, NULL), -1);
		assert_int_equal(driver_isr(&d), VIRTIO_ISR_QUEUE);
	}
	assert_int_equal(echo.served, 0x11000);
	driver_end(&d);
}

static void interrupts_as_asked_for(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, V1);

	(void)state;
	driver_store16(&d, q->available, 1); /* none, please */
	check_works(&d, q);
	assert_int_equal(driver_isr(&d), 0);
	driver_store16(&d, q->available, 0);
	check_works(&d, q);
	assert_int_equal(driver_isr(&d), VIRTIO_ISR_QUEUE);
	/* behind the third one from now on */
	q = start(&d, EVENTS);
	driver_store16(&d, q->available, 1); /* which means nothing then */
	driver_store16(&d, q->available + 4 + 2 * MOST, 2);
	check_works(&d, q);
	check_works(&d, q);
	assert_int_equal(driver_isr(&d), 0);
	check_works(&d, q);
	assert_int_equal(driver_isr(&d), VIRTIO_ISR_QUEUE);
	check_works(&d, q);
	assert_int_equal(driver_isr(&d), 0);
	/* the device's index says what it has seen: kick for what comes next */
	assert_int_equal(driver_load16(&d, q->used + 4 + 8 * MOST), 4);
	driver_end(&d);
}

static void indirect_tables(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, INDIRECT);
	uint32_t length;

	(void)state;
	mem_write(d.mem, gpa(0x200000), "indirect", 8);
	/* one descriptor in front; in the table 1000, of which the last is written */
	driver_descriptor(&d, q->descriptors, 5, 0x200000, 7, D_NEXT, 6);
	driver_descriptor(&d, q->descriptors, 6, 0x300001, 1000 * 16, D_INDIRECT, 0);
	for (unsigned n = 0; n < 999; n++)
		driver_descriptor(&d, 0x300001, n, 0x200007, n == 500, D_NEXT, n + 1);
	driver_descriptor(&d, 0x300001, 999, 0x201000, 64, D_WRITE, 0);
	driver_add(&d, q, 5);
	driver_kick(&d, q);
	assert_int_equal(driver_used(&d, q, &length), 5);
	assert_int_equal(length, 8);
	check_in(&d, "tceridni");
	assert_true(echo.last_out == 1 && echo.last_in == 1); /* they are neighbours */
	driver_end(&d);
}

/* What was in the queue before the driver was ready, and a kick before that. */
static void nothing_before_driver_ok(void **state)
{
	struct driver d = plug();
	struct driver_queue *q;

	(void)state;
	driver_features(&d, V1);
	q = driver_queue(&d, 0, 4);
	add_echo(&d, q, 0, "early", 64);
	driver_kick(&d, q);
	assert_int_equal(driver_used(&d, q, NULL), -1);
	driver_ok(&d);
	assert_int_equal(driver_used(&d, q, NULL), 0);
	check_works(&d, q);
	driver_end(&d);
}

/* A driver that adds as fast as it is served does not keep the thread. */
static void the_rest_is_done_later(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, V1);

	(void)state;
	echo.d = &d;
	echo.adds = 1000;
	add_echo(&d, q, 0, "again", 64);
	driver_kick(&d, q);
	assert_int_equal(echo.served, 2 * MOST);
	assert_int_equal(driver_load16(&d, q->used + 2), 2 * MOST);
	board_run(d.b, 1);
	assert_int_equal(echo.served, 1001);
	q->seen = 1001;
	check_works(&d, q);
	driver_end(&d);
}

static void queues_are_reset_one_by_one(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, V1 | BIT(VIRTIO_F_RING_RESET));

	(void)state;
	check_works(&d, q);
	echo.keeps = true;
	add_echo(&d, q, 0, "kept", 64);
	driver_kick(&d, q);
	assert_int_equal(driver_used(&d, q, NULL), -1);
	assert_non_null(echo.kept);
	driver_wr(&d, 0x16, 2, 0);
	driver_wr(&d, 0x3a, 2, 1);
	assert_null(echo.kept);
	assert_int_equal(driver_rd(&d, 0x3a, 2), 0);
	assert_int_equal(driver_rd(&d, 0x1c, 2), 0);
	assert_int_equal(driver_status(&d), 0xf);
	driver_kick(&d, q);
	assert_int_equal(driver_used(&d, q, NULL), -1);
	q = driver_queue(&d, 0, 2);
	check_works(&d, q);
	driver_end(&d);
}

/* Saved in the middle, into another board with the same memory. */
static void state_goes_along(void **state)
{
	struct driver d = plug(), other = plug();
	struct driver_queue *q = start(&d, EVENTS);
	struct writer saved, again;
	struct error err = { 0 };
	uint8_t *bytes = malloc(DRIVER_RAM);

	(void)state;
	check_works(&d, q);
	saved = board_save(d.b);
	assert_int_equal(mem_read(d.mem, gpa(MIB), bytes, DRIVER_RAM - MIB), 0);
	assert_int_equal(mem_write(other.mem, gpa(MIB), bytes, DRIVER_RAM - MIB), 0);
	if (board_load(other.b, &saved, clock_now(d.b->clock), &err))
		fail_msg("%s", err.text);
	again = board_save(other.b);
	assert_true(again.size == saved.size && !memcmp(again.data, saved.data, saved.size));
	other.queues[0] = *q;
	assert_true(driver_pin(&other));
	assert_int_equal(driver_isr(&other), VIRTIO_ISR_QUEUE);
	check_works(&other, &other.queues[0]);
	writer_free(&saved);
	writer_free(&again);
	free(bytes);
	driver_end(&d);
	driver_end(&other);
}

static void wrong_records_are_refused(void **state)
{
	struct driver d = plug();
	struct virtio_device *v = (struct virtio_device *)bus_find_device(d.b->bus, "echo", 0);
	struct error err;

	(void)state;
	virtio_saving(v);
	assert_int_equal(virtio_loaded(v, 1, &err), 0);
	v->saved.size[0] = 24;
	v->saved.enabled[0] = true;
	assert_int_equal(virtio_loaded(v, 1, &err), -EINVAL);
	v->saved.enabled[0] = false; /* a size that a driver of packed queues chose, and left */
	assert_int_equal(virtio_loaded(v, 1, &err), 0);
	v->saved.size[0] = 2 * MOST;
	assert_int_equal(virtio_loaded(v, 1, &err), -EINVAL);
	v->saved.size[0] = 0;
	assert_int_equal(virtio_loaded(v, 1, &err), -EINVAL);
	v->saved.size[0] = 64;
	v->saved.enabled[2] = true;
	assert_int_equal(virtio_loaded(v, 1, &err), -EINVAL);
	v->saved.enabled[2] = false;
	v->features = BIT(50);
	assert_int_equal(virtio_loaded(v, 1, &err), -EINVAL);
	v->features = 0;
	assert_int_equal(virtio_loaded(v, 1, &err), 0);
	driver_end(&d);
}

/* Kicks are asked for behind what was seen, and only that is something new. */
static void chains_go_back(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, EVENTS);
	struct virtio_queue *queue = &((struct virtio_device *)bus_find_device(d.b->bus, "echo", 0))->queues[0];
	struct virtio_chain chains[2], again;

	(void)state;
	add_echo(&d, q, 4, "first", 64);
	add_echo(&d, q, 8, "second", 64);
	lock_take(&queue->lock);
	assert_true(virtqueue_pop(queue, &chains[0]) && virtqueue_pop(queue, &chains[1]));
	assert_false(virtqueue_pop(queue, &again));
	virtqueue_unpop(queue, &chains[1]);
	virtqueue_unpop(queue, &chains[0]);
	assert_false(virtqueue_want_kicks(queue, true));
	assert_int_equal(driver_load16(&d, q->used + 4 + 8 * MOST), 2);
	add_echo(&d, q, 12, "third", 64);
	assert_true(virtqueue_want_kicks(queue, true));
	assert_true(virtqueue_pop(queue, &again) && again.head == 4);
	virtqueue_unpop(queue, &again);
	lock_drop(&queue->lock);
	driver_kick(&d, q);
	for (int n = 4; n <= 12; n += 4)
		assert_int_equal(driver_used(&d, q, NULL), n);
	driver_end(&d);
}

/* ---- drivers that break rules ---- */

static void chain_has_no_end(struct driver *d, struct driver_queue *q)
{
	for (unsigned n = 0; n < 3; n++)
		driver_descriptor(d, q->descriptors, n, 0x200000, 1, D_NEXT, (n + 1) % 3);
}

static void next_is_outside(struct driver *d, struct driver_queue *q)
{
	driver_descriptor(d, q->descriptors, 0, 0x200000, 1, D_NEXT, MOST);
}

static void head_is_outside(struct driver *d, struct driver_queue *q) { driver_add(d, q, 0xffff); }

static void index_jumps(struct driver *d, struct driver_queue *q)
{
	driver_store16(d, q->available + 2, (uint16_t)(q->next + MOST + 1));
}

static void read_behind_written(struct driver *d, struct driver_queue *q)
{
	driver_descriptor(d, q->descriptors, 0, 0x200000, 1, D_NEXT | D_WRITE, 1);
	driver_descriptor(d, q->descriptors, 1, 0x200000, 1, 0, 0);
}

#define BUFFER_AT(name, address, length, flags)                                                                        \
	static void name(struct driver *d, struct driver_queue *q)                                                     \
	{                                                                                                              \
		driver_descriptor(d, q->descriptors, 0, address, length, flags, 0);                                    \
	}
BUFFER_AT(buffer_in_a_hole, 0x9ffff, 2, 0)
BUFFER_AT(buffer_behind_ram, DRIVER_RAM - 1, 2, D_WRITE)
BUFFER_AT(buffer_is_a_device, DRIVER_BAR, 4, D_WRITE)
BUFFER_AT(buffer_is_a_rom, 0xf0000, 4, D_WRITE)
BUFFER_AT(buffer_wraps_round, UINT64_MAX, 2, 0)
BUFFER_AT(buffer_is_huge, 0x200000, UINT32_MAX, D_WRITE)
BUFFER_AT(table_was_not_negotiated, 0x200000, 16, D_INDIRECT)
BUFFER_AT(table_is_empty, 0x200000, 0, D_INDIRECT)
BUFFER_AT(table_is_no_multiple, 0x200000, 24, D_INDIRECT)
BUFFER_AT(table_is_too_long, 0x200000, 16 * 1025, D_INDIRECT)
BUFFER_AT(table_is_nowhere, DRIVER_BAR, 16, D_INDIRECT)
BUFFER_AT(table_and_more, 0x200000, 16, D_INDIRECT | D_NEXT)

static void table_in_a_table(struct driver *d, struct driver_queue *q)
{
	driver_descriptor(d, q->descriptors, 0, 0x300000, 16, D_INDIRECT, 0);
	driver_descriptor(d, 0x300000, 0, 0x300000, 16, D_INDIRECT, 0);
}

static void table_ends_before(struct driver *d, struct driver_queue *q)
{
	driver_descriptor(d, q->descriptors, 0, 0x300000, 16, D_INDIRECT, 0);
	driver_descriptor(d, 0x300000, 0, 0x200000, 1, D_NEXT, 1);
}

static void table_has_no_end(struct driver *d, struct driver_queue *q)
{
	driver_descriptor(d, q->descriptors, 0, 0x300000, 32, D_INDIRECT, 0);
	driver_descriptor(d, 0x300000, 0, 0x200000, 1, D_NEXT, 1);
	driver_descriptor(d, 0x300000, 1, 0x200000, 1, D_NEXT, 0);
}

static void too_many_buffers(struct driver *d, struct driver_queue *q)
{
	for (unsigned n = 0; n < 9; n++)
		driver_descriptor(d, q->descriptors, n, 0x200000 + 2 * n, 1, D_NEXT, n + 1);
	driver_descriptor(d, q->descriptors, 9, 0x300000, 1020 * 16, D_INDIRECT, 0);
	for (unsigned n = 0; n < 1020; n++)
		driver_descriptor(d, 0x300000, n, 0x200000 + 2 * n, 1, D_WRITE | (n < 1019 ? D_NEXT : 0), n + 1);
}

#define PART_AT(name, reg, at)                                                                                         \
	static void name(struct driver *d, struct driver_queue *q)                                                     \
	{                                                                                                              \
		(void)q;                                                                                               \
		driver_features(d, V1);                                                                                \
		driver_wr(d, 0x16, 2, 0);                                                                              \
		driver_write_address(d, 0x20, 0x100000);                                                               \
		driver_write_address(d, 0x28, 0x108000);                                                               \
		driver_write_address(d, 0x30, 0x10c000);                                                               \
		driver_write_address(d, reg, at);                                                                      \
		driver_wr(d, 0x1c, 2, 1);                                                                              \
		driver_ok(d);                                                                                          \
	}
PART_AT(descriptors_are_nowhere, 0x20, 0x123450000000)
PART_AT(descriptors_are_not_aligned, 0x20, 0x100008)
PART_AT(available_ring_ends_outside, 0x28, DRIVER_RAM - 8)
PART_AT(available_ring_is_not_aligned, 0x28, 0x108001)
PART_AT(used_ring_is_a_rom, 0x30, 0xf0000)
PART_AT(used_ring_is_not_aligned, 0x30, 0x10c002)

static void rules_are_broken(void **state)
{
	static const struct {
		const char *name;
		void (*breaks)(struct driver *, struct driver_queue *);
		uint64_t features;
	} cases[] = {
#define CASE(name, features) { #name, name, features }
		CASE(chain_has_no_end, V1),
		CASE(next_is_outside, V1),
		CASE(head_is_outside, V1),
		CASE(index_jumps, V1),
		CASE(read_behind_written, V1),
		CASE(buffer_in_a_hole, V1),
		CASE(buffer_behind_ram, V1),
		CASE(buffer_is_a_device, V1),
		CASE(buffer_is_a_rom, V1),
		CASE(buffer_wraps_round, V1),
		CASE(buffer_is_huge, V1),
		CASE(table_was_not_negotiated, V1),
		CASE(table_is_empty, INDIRECT),
		CASE(table_is_no_multiple, INDIRECT),
		CASE(table_is_too_long, INDIRECT),
		CASE(table_is_nowhere, INDIRECT),
		CASE(table_and_more, INDIRECT),
		CASE(table_in_a_table, INDIRECT),
		CASE(table_ends_before, INDIRECT),
		CASE(table_has_no_end, INDIRECT),
		CASE(too_many_buffers, INDIRECT),
		CASE(descriptors_are_nowhere, V1),
		CASE(descriptors_are_not_aligned, V1),
		CASE(available_ring_ends_outside, V1),
		CASE(available_ring_is_not_aligned, V1),
		CASE(used_ring_is_a_rom, V1),
		CASE(used_ring_is_not_aligned, V1),
	};
	static const uint8_t rom[PAGE_SIZE];
	struct driver d = plug();

	(void)state;
	assert_int_equal(mem_add_rom(d.mem, gpa(0xf0000), rom, sizeof(rom), NULL), 0);
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		struct driver_queue *q = start(&d, cases[n].features);
		unsigned served;

		check_works(&d, q);
		driver_isr(&d);
		served = echo.served;
		cases[n].breaks(&d, q);
		if (driver_load16(&d, q->available + 2) == q->seen)
			driver_add(&d, q, 0);
		driver_kick(&d, q);
		if (driver_status(&d) != 0x4f || driver_isr(&d) != VIRTIO_ISR_CONFIG || echo.served != served)
			fail_msg("%s: status 0x%x, %u served", cases[n].name, driver_status(&d), echo.served - served);
		/* until it is reset nothing is served, nor said again */
		driver_kick(&d, q);
		assert_int_equal(echo.served, served);
		assert_int_equal(driver_isr(&d), 0);
		check_works(&d, start(&d, V1));
	}
	driver_end(&d);
}

/* A map that changes under a queue is seen. */
static void memory_moves_away(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, V1);
	struct mem_layer hole = {
		.start = 0x100000, .size = 0x1000, .priority = MEM_PRIORITY_SHADOW, .reads = true, .writes = true
	};

	(void)state;
	check_works(&d, q);
	assert_int_equal(mem_layer_add(d.mem, &hole, NULL), 0);
	mem_commit(d.mem);
	driver_kick(&d, q);
	assert_int_equal(driver_status(&d), 0x4f);
	mem_layer_remove(d.mem, &hole);
	mem_commit(d.mem);
	check_works(&d, start(&d, V1));
	driver_end(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chains_are_served),	       cmocka_unit_test(many_rounds),
		cmocka_unit_test(interrupts_as_asked_for),     cmocka_unit_test(indirect_tables),
		cmocka_unit_test(nothing_before_driver_ok),    cmocka_unit_test(the_rest_is_done_later),
		cmocka_unit_test(queues_are_reset_one_by_one), cmocka_unit_test(state_goes_along),
		cmocka_unit_test(wrong_records_are_refused),   cmocka_unit_test(rules_are_broken),
		cmocka_unit_test(memory_moves_away),	       cmocka_unit_test(chains_go_back),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
