/*
 * Packed virtqueues, by the book and by drivers that do not read it: through the registers of a device that sends back what it gets.
 */
#include "lib/virtio_echo.h"

#include <errno.h>

#define PACKED	 (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_PACKED))
#define INDIRECT (PACKED | BIT(VIRTIO_F_INDIRECT_DESC))
#define EVENTS	 (PACKED | BIT(VIRTIO_F_EVENT_IDX))
#define WRAP	 VIRTIO_PACKED_WRAP

static struct driver plug(void) { return echo_plug(&(struct virtio_options){ .packed = true }); }

static struct virtio_device *device_of(struct driver *d)
{
	return (struct virtio_device *)bus_find_device(d->b->bus, "echo", 0);
}

static struct driver_queue *start(struct driver *d, uint64_t features, unsigned size)
{
	struct driver_queue *q;

	assert_int_equal(driver_features(d, features) & VIRTIO_FEATURES_OK, VIRTIO_FEATURES_OK);
	q = driver_packed_queue(d, 0, size);
	driver_ok(d);
	return q;
}

/* "out" at 0x200000 and `in` bytes at 0x201000, in two descriptors. */
static void add_echo(struct driver *d, struct driver_queue *q, unsigned id, const char *out, uint32_t in)
{
	const struct driver_piece pieces[] = { { 0x200000, (uint32_t)strlen(out), 0 }, { 0x201000, in, D_WRITE } };

	assert_int_equal(mem_write(d->mem, gpa(0x200000), out, strlen(out)), 0);
	driver_packed_add(d, q, pieces, 2, id);
}

static void add_one(struct driver *d, struct driver_queue *q, struct driver_piece piece, unsigned id)
{
	driver_packed_add(d, q, &piece, 1, id);
}

/* The device still serves. */
static void check_works(struct driver *d, struct driver_queue *q)
{
	uint32_t length;

	add_echo(d, q, 0x1234, "still here", 64);
	driver_kick(d, q);
	assert_int_equal(driver_packed_used(d, q, 2, &length), 0x1234);
	assert_int_equal(length, 10);
	check_in(d, "ereh llits");
	assert_int_equal(driver_packed_used(d, q, 1, NULL), -1);
}

/* ---- by the book ---- */

static void it_is_an_option(void **state)
{
	struct driver d = echo_plug(&(struct virtio_options){ .legacy = true });

	(void)state;
	assert_false(driver_offered(&d) & BIT(VIRTIO_F_RING_PACKED));
	driver_end(&d);
	d = plug();
	assert_true(driver_offered(&d) & BIT(VIRTIO_F_RING_PACKED));
	/* its driver need not take it */
	assert_int_equal(driver_features(&d, BIT(VIRTIO_F_VERSION_1)), 0xb);
	driver_wr(&d, 0x16, 2, 0);
	driver_wr(&d, 0x18, 2, 5);
	assert_int_equal(driver_rd(&d, 0x18, 2), MOST);
	driver_features(&d, PACKED);
	driver_wr(&d, 0x18, 2, 5);
	assert_int_equal(driver_rd(&d, 0x18, 2), 5);
	driver_end(&d);
}

static void chains_are_served(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, PACKED, MOST);
	const struct driver_piece pieces[] = {
		{ 0x200000, 2, 0 },	  { 0xfffffffffffff000, 0, 0 },	 { 0x200004, 2, 0 },
		{ 0x201000, 3, D_WRITE }, { 0x202000, 0xffff, D_WRITE },
	};
	uint32_t length;

	(void)state;
	check_works(&d, q);
	assert_true(driver_pin(&d));
	assert_int_equal(driver_isr(&d), VIRTIO_ISR_QUEUE);
	assert_int_equal(driver_isr(&d), 0);
	mem_write(d.mem, gpa(0x200000), "abcdef", 6);
	driver_packed_add(&d, q, pieces, 5, 0xffff);
	driver_kick(&d, q);
	assert_int_equal(driver_packed_used(&d, q, 5, &length), 0xffff);
	assert_int_equal(length, 4);
	check_in(&d, "feb");
	/* nothing is written: no WRITE flag */
	add_one(&d, q, (struct driver_piece){ 0x200000, 6, 0 }, 3);
	driver_kick(&d, q);
	assert_int_equal(driver_packed_used(&d, q, 1, &length), 3);
	assert_int_equal(length, 0);
	assert_int_equal(driver_status(&d), 0xf);
	driver_end(&d);
}

/* Sizes that chains of two fill, and those that they do not: they go over the ring's end. */
static void many_rounds(void **state)
{
	static const unsigned sizes[] = { 2, 3, 5, 64, 127, MOST };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct driver d = plug();
		struct driver_queue *q = start(&d, PACKED, sizes[i]);
		unsigned batch = sizes[i] / 2;

		for (unsigned round = 0; round < 1000; round++) {
			for (unsigned n = 0; n < batch; n++)
				add_echo(&d, q, round + n, "x", 1);
			driver_kick(&d, q);
			for (unsigned n = 0; n < batch; n++)
				assert_int_equal(driver_packed_used(&d, q, 2, NULL), round + n);
			assert_int_equal(driver_packed_used(&d, q, 2, NULL), -1);
			assert_int_equal(driver_isr(&d), VIRTIO_ISR_QUEUE);
		}
		assert_int_equal(echo.served, 1000 * batch);
		assert_int_equal(driver_status(&d), 0xf);
		driver_end(&d);
	}
}

static void nothing_is_used_yet(struct driver *d)
{
	assert_int_equal(driver_packed_used(d, &d->queues[0], 2, NULL), -1);
}

/* A driver that looks while chains are pushed sees none, and then all. */
static void batches_show_at_once(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, PACKED, MOST);

	(void)state;
	echo.d = &d;
	echo.watch = nothing_is_used_yet;
	for (unsigned n = 0; n < 3; n++)
		add_echo(&d, q, n, "x", 1);
	driver_kick(&d, q);
	assert_int_equal(echo.served, 3);
	for (int n = 0; n < 3; n++)
		assert_int_equal(driver_packed_used(&d, q, 2, NULL), n);
	driver_end(&d);
}

static void chains_end_out_of_order(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, PACKED, 6);
	const struct driver_piece three[] = { { 0x200000, 1, 0 }, { 0x201000, 1, D_WRITE }, { 0x201001, 1, D_WRITE } };

	(void)state;
	echo.keeps = true;
	add_echo(&d, q, 7, "kept", 64);
	driver_packed_add(&d, q, three, 3, 9);
	driver_kick(&d, q);
	assert_int_equal(driver_packed_used(&d, q, 3, NULL), 9);
	assert_int_equal(driver_packed_used(&d, q, 2, NULL), -1);
	echo_kept();
	assert_int_equal(driver_packed_used(&d, q, 2, NULL), 7);
	check_works(&d, q);
	assert_int_equal(driver_status(&d), 0xf);
	driver_end(&d);
}

static void set_event(struct driver *d, struct driver_queue *q, unsigned position, unsigned flags)
{
	driver_store16(d, q->available, (uint16_t)position);
	driver_store16(d, q->available + 2, (uint16_t)flags);
}

/* Is an interrupt sent behind each of these chains? */
static void check_interrupts(struct driver *d, struct driver_queue *q, const char *expected)
{
	for (; *expected; expected++) {
		check_works(d, q);
		assert_int_equal(driver_isr(d), *expected == '1');
	}
}

static void interrupts_as_asked_for(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, PACKED, 8);

	(void)state;
	set_event(&d, q, 0, 1);
	check_interrupts(&d, q, "00");
	set_event(&d, q, 0, 0);
	check_interrupts(&d, q, "11");
	set_event(&d, q, 6, 2); /* was not negotiated: as if it were 0 */
	check_interrupts(&d, q, "11");

	q = start(&d, EVENTS, 8);
	set_event(&d, q, 0, 1);
	check_interrupts(&d, q, "0");
	set_event(&d, q, WRAP | 4, 2); /* behind the third chain, which begins there */
	check_interrupts(&d, q, "01000000");
	set_event(&d, q, 2, 2); /* in the other turn: chains are at 2, 4, 6 of the first; 0, 2 of the next */
	check_interrupts(&d, q, "00001000");
	set_event(&d, q, WRAP | 1, 2); /* in the middle of a chain, which is passed */
	q = start(&d, EVENTS, 8);
	set_event(&d, q, WRAP | 1, 2);
	check_interrupts(&d, q, "1000");
	set_event(&d, q, WRAP | 8, 2); /* there is no such place */
	check_interrupts(&d, q, "11");
	set_event(&d, q, 0, 3);
	check_interrupts(&d, q, "1");
	driver_end(&d);
}

/* What the device says of kicks: none while it serves; then all, or those behind what it has seen. */
static void device_not_to_be_kicked(struct driver *d) { assert_int_equal(driver_load16(d, d->queues[0].used + 2), 1); }

static void kicks_as_asked_for(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, PACKED, 7);

	(void)state;
	echo.d = &d;
	echo.watch = device_not_to_be_kicked;
	check_works(&d, q);
	assert_int_equal(driver_load16(&d, q->used + 2), 0);
	q = start(&d, EVENTS, 7);
	for (unsigned n = 1; n < 20; n++) {
		check_works(&d, q);
		assert_int_equal(driver_load16(&d, q->used + 2), 2);
		assert_int_equal(driver_load16(&d, q->used), q->next);
	}
	driver_end(&d);
}

static void chains_go_back(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, EVENTS, 5);
	struct virtio_queue *queue = &device_of(&d)->queues[0];
	struct virtio_chain chains[2], again;
	uint16_t end;

	(void)state;
	check_works(&d, q); /* what follows goes over the end */
	add_echo(&d, q, 4, "first", 64);
	add_one(&d, q, (struct driver_piece){ 0x201000, 64, D_WRITE }, 8);
	end = q->next;
	lock_take(&queue->lock);
	assert_true(virtqueue_pop(queue, &chains[0]) && virtqueue_pop(queue, &chains[1]));
	assert_false(virtqueue_pop(queue, &again));
	virtqueue_unpop(queue, &chains[1]);
	virtqueue_unpop(queue, &chains[0]);
	assert_int_equal(queue->next_available, WRAP | 2);
	assert_false(virtqueue_want_kicks(queue, true));
	assert_int_equal(driver_load16(&d, q->used), end);
	add_one(&d, q, (struct driver_piece){ 0x201000, 64, D_WRITE }, 12);
	assert_true(virtqueue_want_kicks(queue, true));
	assert_true(virtqueue_pop(queue, &again) && again.head == 4);
	virtqueue_unpop(queue, &again);
	lock_drop(&queue->lock);
	driver_kick(&d, q);
	assert_int_equal(driver_packed_used(&d, q, 2, NULL), 4);
	assert_int_equal(driver_packed_used(&d, q, 1, NULL), 8);
	assert_int_equal(driver_packed_used(&d, q, 1, NULL), 12);
	check_works(&d, q);
	driver_end(&d);
}

/* Of all flags in a table one means something. */
static void indirect_tables(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, INDIRECT, MOST);
	const struct driver_piece pieces[] = { { 0x200000, 7, 0 }, { 0x300001, 1000 * 16, D_INDIRECT } };
	uint32_t length;

	(void)state;
	mem_write(d.mem, gpa(0x200000), "indirect", 8);
	for (unsigned n = 0; n < 999; n++)
		driver_descriptor(&d, 0x300001, n, 0x200007, n == 500, 0xabcd, 0xffff & ~D_WRITE);
	driver_descriptor(&d, 0x300001, 999, 0x201000, 64, 0, D_WRITE);
	driver_packed_add(&d, q, pieces, 2, 5);
	driver_kick(&d, q);
	assert_int_equal(driver_packed_used(&d, q, 2, &length), 5);
	assert_int_equal(length, 8);
	check_in(&d, "tceridni");
	driver_end(&d);
}

static void nothing_before_driver_ok(void **state)
{
	struct driver d = plug();
	struct driver_queue *q;

	(void)state;
	driver_features(&d, PACKED);
	q = driver_packed_queue(&d, 0, 4);
	add_echo(&d, q, 1, "early", 64);
	driver_kick(&d, q);
	assert_int_equal(driver_packed_used(&d, q, 2, NULL), -1);
	driver_ok(&d);
	assert_int_equal(driver_packed_used(&d, q, 2, NULL), 1);
	check_works(&d, q);
	driver_end(&d);
}

static void queues_are_reset_one_by_one(void **state)
{
	struct driver d = plug();
	struct driver_queue *q = start(&d, PACKED | BIT(VIRTIO_F_RING_RESET), 7);

	(void)state;
	for (unsigned n = 0; n < 5; n++)
		check_works(&d, q);
	echo.keeps = true;
	add_echo(&d, q, 0, "kept", 64);
	driver_kick(&d, q);
	assert_int_equal(driver_packed_used(&d, q, 2, NULL), -1);
	driver_wr(&d, 0x16, 2, 0);
	driver_wr(&d, 0x3a, 2, 1);
	assert_null(echo.kept);
	assert_int_equal(driver_rd(&d, 0x1c, 2), 0);
	assert_int_equal(driver_status(&d), 0xf);
	driver_kick(&d, q);
	q = driver_packed_queue(&d, 0, 3);
	for (unsigned n = 0; n < 5; n++)
		check_works(&d, q);
	driver_end(&d);
}

/* Saved in the middle of a turn, into another board with the same memory. */
static void state_goes_along(void **state)
{
	uint8_t *bytes = malloc(DRIVER_RAM);

	(void)state;
	for (unsigned rounds = 1; rounds < 8; rounds++) {
		struct driver d = plug(), other = plug();
		struct driver_queue *q = start(&d, EVENTS, 5);
		struct writer saved, again;
		struct error err = { 0 };

		for (unsigned n = 0; n < rounds; n++)
			check_works(&d, q);
		saved = board_save(d.b);
		assert_int_equal(mem_read(d.mem, gpa(MIB), bytes, DRIVER_RAM - MIB), 0);
		assert_int_equal(mem_write(other.mem, gpa(MIB), bytes, DRIVER_RAM - MIB), 0);
		if (board_load(other.b, &saved, clock_now(d.b->clock), &err))
			fail_msg("%s", err.text);
		again = board_save(other.b);
		assert_true(again.size == saved.size && !memcmp(again.data, saved.data, saved.size));
		other.queues[0] = *q;
		for (unsigned n = 0; n < 7; n++)
			check_works(&other, &other.queues[0]);
		writer_free(&saved);
		writer_free(&again);
		driver_end(&d);
		driver_end(&other);
	}
	free(bytes);
}

static void wrong_records_are_refused(void **state)
{
	struct driver d = plug();
	struct virtio_device *v = device_of(&d);
	struct error err;

	(void)state;
	start(&d, PACKED, 5);
	virtio_saving(v);
	assert_int_equal(virtio_loaded(v, 1, &err), 0);
	v->saved.next_available[0] = 4;
	v->saved.next_used[0] = WRAP | 4;
	assert_int_equal(virtio_loaded(v, 1, &err), 0);
	v->saved.next_available[0] = 5;
	assert_int_equal(virtio_loaded(v, 1, &err), -EINVAL);
	v->saved.next_available[0] = 0;
	v->saved.next_used[0] = WRAP | 0x7fff;
	assert_int_equal(virtio_loaded(v, 1, &err), -EINVAL);
	v->saved.next_used[0] = 0;
	v->features &= ~BIT(VIRTIO_F_RING_PACKED); /* five are no size then */
	assert_int_equal(virtio_loaded(v, 1, &err), -EINVAL);
	v->features = PACKED;
	assert_int_equal(virtio_loaded(v, 1, &err), 0);
	v->offered &= ~BIT(VIRTIO_F_RING_PACKED);
	assert_int_equal(virtio_loaded(v, 1, &err), -EINVAL);
	driver_end(&d);
}

/* ---- drivers that break rules; 8 descriptors, of which the first two were served ---- */

#define SIZE 8

static void chain_has_no_end(struct driver *d, struct driver_queue *q)
{
	for (unsigned n = 0; n < SIZE; n++)
		driver_descriptor(d, q->descriptors, n, 0x200000, 1, 0, D_NEXT | (n < 2 ? D_USED : D_AVAILABLE));
}

/* What was popped, and is not pushed, is made available once more. */
static void more_than_room(struct driver *d, struct driver_queue *q)
{
	struct virtio_queue *queue = &device_of(d)->queues[0];
	struct virtio_chain c;

	for (unsigned n = 0; n < SIZE / 2; n++)
		add_echo(d, q, n, "x", 1);
	lock_take(&queue->lock);
	for (unsigned n = 0; n < SIZE / 2; n++)
		assert_true(virtqueue_pop(queue, &c));
	add_echo(d, q, 0, "x", 1);
	assert_false(virtqueue_pop(queue, &c));
	for (unsigned n = 0; n < SIZE / 2; n++)
		virtqueue_drop(queue);
	lock_drop(&queue->lock);
}

static void read_behind_written(struct driver *d, struct driver_queue *q)
{
	driver_packed_add(d, q, (const struct driver_piece[]){ { 0x200000, 1, D_WRITE }, { 0x200000, 1, 0 } }, 2, 0);
}

#define BUFFER_AT(name, address, length, flags)                                                                        \
	static void name(struct driver *d, struct driver_queue *q)                                                     \
	{                                                                                                              \
		add_one(d, q, (struct driver_piece){ address, length, flags }, 0);                                     \
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

static void too_many_buffers(struct driver *d, struct driver_queue *q)
{
	struct driver_piece pieces[] = { { 0x200000, 1, 0 }, { 0x300000, 1024 * 16, D_INDIRECT } };

	for (unsigned n = 0; n < 1024; n++)
		driver_descriptor(d, 0x300000, n, 0x200000 + 2 * n, 1, 0, D_WRITE);
	driver_packed_add(d, q, pieces, 2, 0);
}

static void table_reads_behind_written(struct driver *d, struct driver_queue *q)
{
	driver_descriptor(d, 0x300000, 0, 0x200000, 1, 0, D_WRITE);
	driver_descriptor(d, 0x300000, 1, 0x200000, 1, 0, 0);
	add_one(d, q, (struct driver_piece){ 0x300000, 32, D_INDIRECT }, 0);
}

#define PART_AT(name, reg, at)                                                                                         \
	static void name(struct driver *d, struct driver_queue *q)                                                     \
	{                                                                                                              \
		(void)q;                                                                                               \
		driver_features(d, PACKED);                                                                            \
		driver_wr(d, 0x16, 2, 0);                                                                              \
		driver_write_address(d, 0x20, 0x100000);                                                               \
		driver_write_address(d, 0x28, 0x108000);                                                               \
		driver_write_address(d, 0x30, 0x10c000);                                                               \
		driver_write_address(d, reg, at);                                                                      \
		driver_wr(d, 0x1c, 2, 1);                                                                              \
		driver_ok(d);                                                                                          \
	}
PART_AT(ring_is_nowhere, 0x20, 0x123450000000)
PART_AT(ring_is_a_rom, 0x20, 0xf0000)
PART_AT(ring_is_not_aligned, 0x20, 0x100008)
PART_AT(drivers_events_are_nowhere, 0x28, DRIVER_RAM)
PART_AT(drivers_events_are_not_aligned, 0x28, 0x108002)
PART_AT(devices_events_are_a_rom, 0x30, 0xf0000)
PART_AT(devices_events_are_not_aligned, 0x30, 0x10c001)

/* Set while the queue was to be packed. */
static void size_is_for_packed_ones(struct driver *d, struct driver_queue *q)
{
	(void)q;
	driver_features(d, 0);
	driver_wr(d, 0x08, 4, 1);
	driver_wr(d, 0x0c, 4, PACKED >> 32);
	driver_wr(d, 0x16, 2, 0);
	driver_wr(d, 0x18, 2, 5);
	driver_wr(d, 0x0c, 4, 1);
	driver_set_status(d, 0xf);
	driver_isr(d);
	driver_wr(d, 0x1c, 2, 1);
}

static void rules_are_broken(void **state)
{
	static const struct {
		const char *name;
		void (*breaks)(struct driver *, struct driver_queue *);
		uint64_t features;
	} cases[] = {
#define CASE(name, features) { #name, name, features }
		CASE(chain_has_no_end, PACKED),
		CASE(more_than_room, PACKED),
		CASE(read_behind_written, PACKED),
		CASE(buffer_in_a_hole, PACKED),
		CASE(buffer_behind_ram, PACKED),
		CASE(buffer_is_a_device, PACKED),
		CASE(buffer_is_a_rom, PACKED),
		CASE(buffer_wraps_round, PACKED),
		CASE(buffer_is_huge, PACKED),
		CASE(table_was_not_negotiated, PACKED),
		CASE(table_is_empty, INDIRECT),
		CASE(table_is_no_multiple, INDIRECT),
		CASE(table_is_too_long, INDIRECT),
		CASE(table_is_nowhere, INDIRECT),
		CASE(table_and_more, INDIRECT),
		CASE(too_many_buffers, INDIRECT),
		CASE(table_reads_behind_written, INDIRECT),
		CASE(ring_is_nowhere, PACKED),
		CASE(ring_is_a_rom, PACKED),
		CASE(ring_is_not_aligned, PACKED),
		CASE(drivers_events_are_nowhere, PACKED),
		CASE(drivers_events_are_not_aligned, PACKED),
		CASE(devices_events_are_a_rom, PACKED),
		CASE(devices_events_are_not_aligned, PACKED),
		CASE(size_is_for_packed_ones, PACKED),
	};
	static const uint8_t rom[PAGE_SIZE];
	struct driver d = plug();

	(void)state;
	assert_int_equal(mem_add_rom(d.mem, gpa(0xf0000), rom, sizeof(rom), NULL), 0);
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		struct driver_queue *q = start(&d, cases[n].features, SIZE);
		unsigned served;

		check_works(&d, q);
		driver_isr(&d);
		served = echo.served;
		cases[n].breaks(&d, q);
		driver_kick(&d, q);
		if (driver_status(&d) != 0x4f || driver_isr(&d) != VIRTIO_ISR_CONFIG || echo.served != served)
			fail_msg("%s: status 0x%x, %u served", cases[n].name, driver_status(&d), echo.served - served);
		/* until it is reset nothing is served, nor said again */
		driver_kick(&d, q);
		assert_int_equal(echo.served, served);
		assert_int_equal(driver_isr(&d), 0);
		check_works(&d, start(&d, PACKED, SIZE));
	}
	driver_end(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_an_option),
		cmocka_unit_test(chains_are_served),
		cmocka_unit_test(many_rounds),
		cmocka_unit_test(batches_show_at_once),
		cmocka_unit_test(chains_end_out_of_order),
		cmocka_unit_test(interrupts_as_asked_for),
		cmocka_unit_test(kicks_as_asked_for),
		cmocka_unit_test(chains_go_back),
		cmocka_unit_test(indirect_tables),
		cmocka_unit_test(nothing_before_driver_ok),
		cmocka_unit_test(queues_are_reset_one_by_one),
		cmocka_unit_test(state_goes_along),
		cmocka_unit_test(wrong_records_are_refused),
		cmocka_unit_test(rules_are_broken),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
