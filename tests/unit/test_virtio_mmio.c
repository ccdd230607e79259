/*
 * virtio in windows of memory: registers, level-triggered interrupts by the IOAPIC, windows and who is in them; and queues of both layouts served through one.
 */
#define _GNU_SOURCE /* memmem() */
#include "lib/virtio_echo.h"

#include <errno.h>

#define V1	BIT(VIRTIO_F_VERSION_1)
#define OFFERED (V1 | BIT(VIRTIO_F_INDIRECT_DESC) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_RING_RESET))
#define LINE	VIRTIO_MMIO_LINE(0)
#define VECTOR	0x51

static const struct virtio_options mmio = { .transport = "mmio", .legacy = true };
static const struct virtio_options mmio_packed = { .transport = "mmio", .packed = true };

static struct virtio_device *device_of(struct driver *d)
{
	return (struct virtio_device *)bus_find_device(d->b->bus, "echo", 0);
}

static void registers(void **state)
{
	static const unsigned written_only[] = { 0x14, 0x20, 0x24, 0x30, 0x38, 0x50, 0x64, 0x80,
						 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xac, 0xc0, 0x54 };
	struct driver d = echo_plug(&mmio);

	(void)state;
	assert_int_equal(driver_mmio_rd(&d, 0x00), 0x74726976);
	assert_int_equal(driver_mmio_rd(&d, 0x04), 2);
	assert_int_equal(driver_mmio_rd(&d, 0x08), VIRTIO_ID_RNG);
	assert_int_equal(driver_mmio_rd(&d, 0x0c), 0x1af4);
	for (unsigned n = 0; n < 4; n++) {
		driver_mmio_wr(&d, 0x14, n);
		assert_int_equal(driver_mmio_rd(&d, 0x10), n < 2 ? (uint32_t)(OFFERED >> 32 * n) : 0);
	}
	for (unsigned n = 0; n < ARRAY_SIZE(written_only); n++)
		assert_int_equal(driver_mmio_rd(&d, written_only[n]), 0);
	for (unsigned offset = 0xb0; offset < 0xc0; offset += 4) /* there is no shared memory */
		assert_int_equal(driver_mmio_rd(&d, offset), UINT32_MAX);
	/* registers have 32 bits */
	for (unsigned size = 1; size <= 2; size++) {
		assert_int_equal(board_read(d.b, BUS_MMIO, d.mmio, size), 0);
		board_write(d.b, BUS_MMIO, d.mmio + 0x70, size, 3);
	}
	assert_int_equal(driver_status(&d), 0);
	assert_int_equal(board_read(d.b, BUS_MMIO, d.mmio + 4, 8), (uint64_t)VIRTIO_ID_RNG << 32 | 2);
	driver_end(&d);
}

static void features_and_status(void **state)
{
	struct driver d = echo_plug(&mmio);

	(void)state;
	assert_int_equal(driver_features(&d, 0), 3); /* there is no legacy interface */
	driver_set_status(&d, 7);
	assert_int_equal(driver_status(&d), 3);
	assert_int_equal(driver_features(&d, UINT64_MAX), 0xb);
	assert_true(device_of(&d)->features == (OFFERED | BIT(VIRTIO_F_ANY_LAYOUT)));
	driver_ok(&d);
	assert_int_equal(driver_status(&d), 0xf);
	driver_set_status(&d, 0);
	assert_true(driver_status(&d) == 0 && device_of(&d)->features == 0);
	driver_end(&d);
}

static void queue_registers(void **state)
{
	static const unsigned sizes[] = { MOST, 8, 0 };
	struct driver d = echo_plug(&mmio);
	const struct virtio_queue *q = &device_of(&d)->queues[1];

	(void)state;
	driver_features(&d, V1 | BIT(VIRTIO_F_RING_RESET));
	for (unsigned n = 0; n < 3; n++) {
		driver_mmio_wr(&d, 0x30, n);
		assert_int_equal(driver_mmio_rd(&d, 0x34), sizes[n]);
		assert_int_equal(driver_mmio_rd(&d, 0x44), 0);
	}
	driver_mmio_wr(&d, 0x44, 1); /* there is no queue 2 */
	driver_mmio_wr(&d, 0x30, 1);
	driver_mmio_wr(&d, 0x38, 16); /* too many */
	assert_int_equal(q->size, 8);
	driver_mmio_wr(&d, 0x38, 4);
	for (unsigned n = 0; n < 6; n++)
		driver_mmio_wr(&d, 0x80 + 0x10 * (n / 2) + 4 * (n % 2), 0x11111110 * (n + 1));
	assert_true(q->descriptors == 0x2222222011111110 && q->available == 0x4444444033333330 &&
		    q->used == 0x6666666055555550);
	driver_mmio_wr(&d, 0x44, 2);
	assert_int_equal(driver_mmio_rd(&d, 0x44), 0);
	driver_mmio_wr(&d, 0x44, 1);
	assert_int_equal(driver_mmio_rd(&d, 0x44), 1);
	driver_mmio_wr(&d, 0x80, 0);
	driver_mmio_wr(&d, 0x38, 2);
	assert_true(q->descriptors == 0x2222222011111110 && q->size == 4);
	driver_mmio_wr(&d, 0xc0, 1);
	assert_int_equal(driver_mmio_rd(&d, 0xc0), 0);
	assert_int_equal(driver_mmio_rd(&d, 0x44), 0);
	driver_mmio_wr(&d, 0x44, 1);
	driver_mmio_wr(&d, 0x44, 0); /* stops it as well */
	assert_true(!q->enabled && q->size == 8 && q->descriptors == 0);
	driver_end(&d);
}

static void configuration_space(void **state)
{
	struct driver d = echo_plug(&mmio);
	struct virtio_device *v = device_of(&d);

	(void)state;
	v->config_size = 6;
	memcpy(v->config, "012345", 6);
	v->config_mask[1] = 0x0f;
	assert_int_equal(driver_mmio_rd(&d, 0x100), 0x33323130);
	assert_int_equal(board_read(d.b, BUS_MMIO, d.mmio + 0x105, 1), '5');
	assert_int_equal(board_read(d.b, BUS_MMIO, d.mmio + 0x106, 2), 0);
	assert_int_equal(driver_mmio_rd(&d, 0xffc), 0);
	board_write(d.b, BUS_MMIO, d.mmio + 0x100, 2, 0xffff);
	assert_int_equal(driver_mmio_rd(&d, 0x100), 0x33323f30);
	driver_features(&d, V1);
	driver_ok(&d);
	lock_take(&v->lock);
	virtio_config_changed(v);
	lock_drop(&v->lock);
	assert_int_equal(driver_mmio_rd(&d, 0xfc), 1);
	assert_int_equal(driver_isr(&d), VIRTIO_ISR_CONFIG);
	driver_end(&d);
}

/* ---- interrupts ---- */

static void route(struct driver *d, unsigned line)
{
	lapic_wr(d->b, 0, 0xf0, 0x1ff);
	board_ioapic_entry(d->b, line, BIT(15) | VECTOR);
}

/* Taken and ended; is it there again at once? */
static bool taken(struct driver *d)
{
	int vector = board_take(d->b);

	assert_true(vector == -1 || vector == VECTOR);
	if (vector == VECTOR)
		lapic_wr(d->b, 0, 0xb0, 0);
	return vector == VECTOR;
}

static void interrupts_have_a_level(void **state)
{
	struct driver d = echo_plug(&mmio);
	struct virtio_device *v = device_of(&d);

	(void)state;
	route(&d, LINE);
	assert_false(taken(&d));
	v->transport->queue_interrupt(v, 0);
	assert_true(taken(&d) && taken(&d));
	v->transport->config_interrupt(v);
	assert_int_equal(driver_mmio_rd(&d, 0x60), 3);
	driver_mmio_wr(&d, 0x64, 1);
	assert_int_equal(driver_mmio_rd(&d, 0x60), 2);
	assert_true(taken(&d));
	driver_mmio_wr(&d, 0x64, 0xfffffffd);
	assert_true(taken(&d));
	driver_mmio_wr(&d, 0x64, 2);
	taken(&d); /* what was latched before */
	assert_false(taken(&d));
	/* a reset takes it away */
	v->transport->queue_interrupt(v, 1);
	driver_set_status(&d, 0);
	taken(&d);
	assert_false(taken(&d));
	assert_int_equal(driver_mmio_rd(&d, 0x60), 0);
	driver_end(&d);
}

/* ---- queues ---- */

static void start(struct driver *d, const struct virtio_options *options)
{
	assert_int_equal(driver_features(d, OFFERED | (options->packed ? BIT(VIRTIO_F_RING_PACKED) : 0)), 0xb);
	if (options->packed)
		driver_packed_queue(d, 0, 5);
	else
		driver_queue(d, 0, 8);
	driver_ok(d);
}

/* One chain there and back. */
static void check_works(struct driver *d, const struct virtio_options *options)
{
	const struct driver_piece pieces[] = { { 0x200000, 4, 0 }, { 0x201000, 64, D_WRITE } };
	struct driver_queue *q = &d->queues[0];
	uint32_t length;

	mem_write(d->mem, gpa(0x200000), "echo", 4);
	if (options->packed) {
		driver_packed_add(d, q, pieces, 2, 3);
		driver_store16(d, q->available + 2, 0);
	} else {
		driver_descriptor(d, q->descriptors, 3, 0x200000, 4, D_NEXT, 4);
		driver_descriptor(d, q->descriptors, 4, 0x201000, 64, D_WRITE, 0);
		driver_store16(d, q->available + 4 + 2 * q->size, q->next);
		driver_add(d, q, 3);
	}
	driver_kick(d, q);
	assert_int_equal(options->packed ? driver_packed_used(d, q, 2, &length) : driver_used(d, q, &length), 3);
	assert_int_equal(length, 4);
	check_in(d, "ohce");
	assert_int_equal(driver_isr(d), VIRTIO_ISR_QUEUE);
}

static void queues_are_served(void **state)
{
	const struct virtio_options *const options[] = { &mmio, &mmio_packed };

	(void)state;
	for (unsigned n = 0; n < 2; n++) {
		struct driver d = echo_plug(options[n]);

		for (unsigned i = 0; i < 2; i++) { /* before and after a reset */
			start(&d, options[n]);
			for (unsigned round = 0; round < 20; round++)
				check_works(&d, options[n]);
		}
		driver_mmio_wr(&d, 0x50, 2); /* there is none */
		driver_mmio_wr(&d, 0x50, UINT32_MAX);
		assert_int_equal(driver_status(&d), 0xf);
		driver_end(&d);
	}
}

/* With an interrupt that nobody has taken. */
static void state_goes_along(void **state)
{
	struct driver d = echo_plug(&mmio_packed), other = echo_plug(&mmio_packed);
	struct writer saved, again;
	struct error err = { 0 };
	uint8_t *bytes = malloc(DRIVER_RAM);

	(void)state;
	start(&d, &mmio_packed);
	for (unsigned n = 0; n < 7; n++)
		check_works(&d, &mmio_packed);
	route(&d, LINE);
	device_of(&d)->transport->queue_interrupt(device_of(&d), 0);
	saved = board_save(d.b);
	assert_int_equal(mem_read(d.mem, gpa(MIB), bytes, DRIVER_RAM - MIB), 0);
	assert_int_equal(mem_write(other.mem, gpa(MIB), bytes, DRIVER_RAM - MIB), 0);
	if (board_load(other.b, &saved, clock_now(d.b->clock), &err))
		fail_msg("%s", err.text);
	again = board_save(other.b);
	assert_true(again.size == saved.size && !memcmp(again.data, saved.data, saved.size));
	other.queues[0] = d.queues[0];
	assert_true(taken(&other) && taken(&other));
	assert_int_equal(driver_isr(&other), VIRTIO_ISR_QUEUE);
	taken(&other);
	assert_false(taken(&other));
	check_works(&other, &mmio_packed);
	writer_free(&saved);
	writer_free(&again);
	free(bytes);
	driver_end(&d);
	driver_end(&other);
}

/* ---- windows ---- */

/* The echo device is no type, and unplugged by its parts. */
static void unplug(struct driver *d, unsigned instance)
{
	device_destroy(bus_find_device(d->b->bus, "echo-mmio", instance));
	device_destroy(bus_find_device(d->b->bus, "echo", instance));
}

static void windows_are_taken_one_by_one(void **state)
{
	struct driver d = echo_plug(&mmio);
	struct bus *bus = d.b->bus;
	struct error err;

	(void)state;
	assert_int_equal(virtio_mmio_windows(bus), 1);
	assert_int_equal(board_read(d.b, BUS_MMIO, VIRTIO_MMIO_ADDRESS(1), 4), UINT32_MAX);
	for (unsigned n = 1; n < VIRTIO_MMIO_WINDOWS; n++)
		echo_plug_on(bus, &mmio);
	assert_int_equal(virtio_mmio_windows(bus), UINT32_MAX);
	for (unsigned n = 0; n < VIRTIO_MMIO_WINDOWS; n++)
		assert_int_equal(board_read(d.b, BUS_MMIO, VIRTIO_MMIO_ADDRESS(n), 4), 0x74726976);
	assert_int_equal(virtio_plug(device_of(&d), &mmio, &err), -EBUSY);
	assert_non_null(strstr(err.text, "32 windows"));
	/* window 8 has the line of window 0 */
	route(&d, LINE);
	for (unsigned n = 0; n < 9; n += 8) {
		struct virtio_device *v = (struct virtio_device *)bus_find_device(bus, "echo", n);

		v->transport->queue_interrupt(v, 0);
		assert_true(taken(&d));
		d.mmio = VIRTIO_MMIO_ADDRESS(n);
		driver_isr(&d);
		taken(&d);
		assert_false(taken(&d));
	}
	/* one that goes leaves its window, with the line low, to the next one */
	device_of(&d)->transport->queue_interrupt(device_of(&d), 0);
	unplug(&d, 0);
	taken(&d);
	assert_false(taken(&d));
	assert_int_equal(virtio_mmio_windows(bus), UINT32_MAX - 1);
	assert_int_equal(board_read(d.b, BUS_MMIO, VIRTIO_MMIO_ADDRESS(0), 4), UINT32_MAX);
	echo_plug_on(bus, &mmio);
	assert_int_equal(virtio_mmio_windows(bus), UINT32_MAX);
	driver_end(&d);
}

/* Two in one window, says a record: the first one answers, until another record says better. */
static void windows_of_records(void **state)
{
	static const uint8_t second[] = { 5, 0, 1, 1, 0, 0, 0, 1 };
	struct driver d = echo_plug(&mmio);
	struct writer saved;
	uint8_t *window;

	(void)state;
	echo_plug_on(d.b->bus, &mmio);
	saved = board_save(d.b);
	window = memmem(saved.data, saved.size, second, sizeof(second));
	assert_non_null(window);
	window[7] = 0;
	assert_int_equal(board_load(d.b, &saved, 0, NULL), 0);
	assert_int_equal(virtio_mmio_windows(d.b->bus), 1);
	assert_int_equal(driver_mmio_rd(&d, 0), 0x74726976);
	assert_int_equal(board_read(d.b, BUS_MMIO, VIRTIO_MMIO_ADDRESS(1), 4), UINT32_MAX);
	window[7] = 32;
	assert_int_equal(board_load(d.b, &saved, 0, NULL), -EINVAL);
	window[7] = 31;
	assert_int_equal(board_load(d.b, &saved, 0, NULL), 0);
	assert_int_equal(virtio_mmio_windows(d.b->bus), 0x80000001);
	assert_int_equal(board_read(d.b, BUS_MMIO, VIRTIO_MMIO_ADDRESS(31), 4), 0x74726976);
	writer_free(&saved);
	driver_end(&d);
}

static void unknown_transport(void **state)
{
	struct driver d = echo_plug(&mmio);
	struct error err;

	(void)state;
	assert_int_equal(virtio_plug(device_of(&d), &(struct virtio_options){ .transport = "ccw" }, &err), -EINVAL);
	assert_string_equal(err.text, "echo: option 'transport' is 'ccw'; expected pci or mmio");
	driver_end(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers),
		cmocka_unit_test(features_and_status),
		cmocka_unit_test(queue_registers),
		cmocka_unit_test(configuration_space),
		cmocka_unit_test(interrupts_have_a_level),
		cmocka_unit_test(queues_are_served),
		cmocka_unit_test(state_goes_along),
		cmocka_unit_test(windows_are_taken_one_by_one),
		cmocka_unit_test(windows_of_records),
		cmocka_unit_test(unknown_transport),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
