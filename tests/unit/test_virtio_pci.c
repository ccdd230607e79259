/*
 * virtio on PCI: capabilities, registers of the modern and of the legacy interface, MSI-X and INTx, the window in the configuration space; of a device with a
 * configuration space of its own and two queues.
 */
#include "lib/virtio_driver.h"

#include <errno.h>

#define OWN_FEATURE BIT(3)
#define QUEUE_SIZE  64
#define VECTOR(n)   (0x40 + (n))

static struct {
	unsigned kicks[2], started, resets, writes;
} seen;

static void kick(struct virtio_queue *q) { seen.kicks[q->index]++; }
static void started(struct virtio_device *v) { seen.started += v->status & VIRTIO_DRIVER_OK; }
static void reset(struct virtio_device *v) { seen.resets += v->status == 0; }

static void config_written(struct virtio_device *v, unsigned offset, unsigned size)
{
	(void)v, (void)offset, (void)size;
	seen.writes++;
}

static void nil_destroy(struct device *device)
{
	virtio_fini((struct virtio_device *)device);
	free(device);
}

struct nil {
	struct virtio_device virtio;
};
STATE_DESC(nil_state_desc, "nil", 1, struct nil, VIRTIO_STATE, .loaded = virtio_loaded, .saving = virtio_saving);
static const struct device_ops nil_device_ops = { .state = &nil_state_desc, VIRTIO_DEVICE_OPS, .destroy = nil_destroy };
static const struct virtio_ops nil_ops = { .id = VIRTIO_ID_NET,
					   .pci_name = "nil-pci",
					   .pci_class = 0x020000 << 8,
					   .started = started,
					   .reset = reset,
					   .config_written = config_written };
static const struct virtio_ops modern_ops = {
	.id = VIRTIO_ID_VSOCK, .pci_name = "modern-pci", .pci_class = 0xff0000 << 8, .modern_only = true
};

static struct virtio_device *device_of(struct driver *d)
{
	return (struct virtio_device *)bus_find_device(d->b->bus, "nil", 0);
}

static struct driver plug(const struct virtio_ops *ops, bool legacy)
{
	struct driver d = driver_board();
	struct virtio_device *v = calloc(1, sizeof(*v));

	memset(&seen, 0, sizeof(seen));
	virtio_init(v, d.b->bus, "nil", &nil_device_ops, ops);
	assert_int_equal(virtio_add_queue(v, QUEUE_SIZE, kick, NULL) || virtio_add_queue(v, 8, kick, NULL), 0);
	v->offered |= OWN_FEATURE;
	v->config_size = 10;
	memcpy(v->config, "0123456789", 10);
	memset(v->config_mask + 4, 0x0f, 2);
	assert_int_equal(virtio_plug(v, &(struct virtio_options){ .legacy = legacy }, NULL), 0);
	driver_reset_board(&d);
	memset(&seen, 0, sizeof(seen));
	return d;
}

static uint32_t config(struct driver *d, unsigned offset, unsigned size)
{
	return board_config_read(d->b, DRIVER_SLOT, offset, size);
}

static void header_and_capabilities(void **state)
{
	struct driver d = plug(&nil_ops, true);
	static const unsigned offsets[] = { 0, 0, 0x3000, 0x1000, 0x2000 }, sizes[] = { 0, 0x3c, 8, 1, 10 };
	unsigned types = 0;

	(void)state;
	assert_int_equal(config(&d, 0x00, 4), 0x10001af4);
	assert_int_equal(config(&d, 0x08, 4), 0x02000000);
	assert_int_equal(config(&d, 0x2c, 4), 0x00011af4);
	for (unsigned at = config(&d, 0x34, 1); at; at = config(&d, at + 1, 1)) {
		unsigned type = config(&d, at + 3, 1);

		if (config(&d, at, 1) != 9)
			continue;
		types |= 1u << type;
		assert_int_equal(config(&d, at + 2, 1), type == 2 || type == 5 ? 20 : 16);
		if (type == 5)
			continue;
		assert_int_equal(config(&d, at + 4, 1), 4);
		assert_int_equal(config(&d, at + 8, 4), offsets[type]);
		assert_int_equal(config(&d, at + 12, 4), sizes[type]);
		if (type == 2)
			assert_int_equal(config(&d, at + 16, 4), 4);
	}
	assert_int_equal(types, 0x3e);
	driver_end(&d);
	d = plug(&nil_ops, false);
	assert_int_equal(config(&d, 0x00, 4), 0x10411af4);
	assert_int_equal(config(&d, 0x08, 1), 1);
	assert_int_equal(config(&d, 0x10, 4), 0); /* no legacy BAR */
	driver_end(&d);
	d = plug(&modern_ops, true);
	assert_int_equal(config(&d, 0x00, 4), 0x10531af4);
	assert_int_equal(config(&d, 0x10, 4), 0);
	driver_end(&d);
}

static void features_are_negotiated(void **state)
{
	struct driver d = plug(&nil_ops, true);
	uint64_t offered = driver_offered(&d);

	(void)state;
	assert_true(offered == (OWN_FEATURE | BIT(28) | BIT(29) | BIT(32) | BIT(40)));
	driver_wr(&d, 0x00, 4, 2);
	assert_int_equal(driver_rd(&d, 0x04, 4), 0);
	/* what is not offered is not taken, and what is not modern not agreed to */
	assert_int_equal(driver_features(&d, offered | BIT(33)), 0xb);
	driver_wr(&d, 0x08, 4, 1);
	assert_int_equal(driver_rd(&d, 0x0c, 4), offered >> 32);
	assert_int_equal(driver_features(&d, OWN_FEATURE), 3);
	driver_wr(&d, 0x14, 1, 7); /* nor is a driver ready without */
	assert_int_equal(driver_status(&d), 3);
	assert_int_equal(driver_features(&d, BIT(32) | OWN_FEATURE), 0xb);
	/* they are fixed now */
	driver_wr(&d, 0x08, 4, 0);
	driver_wr(&d, 0x0c, 4, 0);
	assert_int_equal(driver_rd(&d, 0x0c, 4), OWN_FEATURE);
	assert_int_equal(seen.started, 0);
	driver_ok(&d);
	assert_int_equal(seen.started, 4);
	assert_int_equal(driver_status(&d), 0xf);
	driver_wr(&d, 0x14, 1, 0x31); /* bits are not cleared, and others not set */
	assert_int_equal(driver_status(&d), 0xf);
	driver_wr(&d, 0x14, 1, 0);
	assert_int_equal(driver_status(&d), 0);
	assert_int_equal(driver_rd(&d, 0x0c, 4), 0);
	driver_end(&d);
}

static void queue_registers(void **state)
{
	static const unsigned sizes[] = { QUEUE_SIZE, 8, 0 }, not_sizes[] = { 0, 3, 2 * QUEUE_SIZE, 0xffff };
	struct driver d = plug(&nil_ops, true);

	(void)state;
	assert_int_equal(driver_rd(&d, 0x12, 2), 2);
	for (unsigned n = 0; n < 3; n++) {
		driver_wr(&d, 0x16, 2, n);
		assert_int_equal(driver_rd(&d, 0x18, 2), sizes[n]);
		assert_int_equal(driver_rd(&d, 0x1a, 2), 0xffff);
		assert_int_equal(driver_rd(&d, 0x1e, 2), n < 2 ? n : 0);
		assert_int_equal(driver_rd(&d, 0x1c, 2), 0);
	}
	driver_wr(&d, 0x1c, 2, 1); /* there is no queue 2 */
	driver_wr(&d, 0x20, 4, 1);
	driver_wr(&d, 0x16, 2, 0);
	for (unsigned n = 0; n < 6; n++)
		driver_wr(&d, 0x20 + 4 * n, 4, 0x11111111 * (n + 1));
	for (unsigned n = 0; n < 6; n++)
		assert_int_equal(driver_rd(&d, 0x20 + 4 * n, 4), 0x11111111 * (n + 1));
	for (unsigned n = 0; n < ARRAY_SIZE(not_sizes); n++)
		driver_wr(&d, 0x18, 2, not_sizes[n]);
	assert_int_equal(driver_rd(&d, 0x18, 2), QUEUE_SIZE);
	driver_wr(&d, 0x18, 2, 16);
	driver_wr(&d, 0x1c, 2, 2);
	assert_int_equal(driver_rd(&d, 0x1c, 2), 0);
	driver_wr(&d, 0x1c, 2, 1);
	driver_wr(&d, 0x18, 2, 8); /* nothing moves while it is enabled */
	driver_wr(&d, 0x20, 4, 0);
	assert_int_equal(driver_rd(&d, 0x18, 2), 16);
	assert_int_equal(driver_rd(&d, 0x20, 4), 0x11111111);
	driver_wr(&d, 0x3a, 2, 1); /* RING_RESET was not negotiated */
	assert_int_equal(driver_rd(&d, 0x1c, 2), 1);
	/* accesses of a wrong size */
	assert_int_equal(driver_rd(&d, 0x18, 4), 0);
	assert_int_equal(driver_rd(&d, 0x12, 1), 0);
	driver_wr(&d, 0x14, 4, 0);
	assert_int_equal(driver_rd(&d, 0x1c, 2), 1);
	driver_wr(&d, 0x14, 1, 0);
	driver_wr(&d, 0x16, 2, 0);
	assert_int_equal(driver_rd(&d, 0x1c, 2), 0);
	assert_int_equal(driver_rd(&d, 0x18, 2), QUEUE_SIZE);
	driver_end(&d);
}

static void configuration_space(void **state)
{
	struct driver d = plug(&nil_ops, true);
	struct virtio_device *v = device_of(&d);

	(void)state;
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG, 4), 0x33323130);
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG + 8, 4), 0x3938);
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG + 0x800, 1), 0);
	driver_wr(&d, DRIVER_CONFIG + 4, 4, 0xffffffff);
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG + 4, 4), 0x37363f3f);
	assert_int_equal(seen.writes, 1);
	driver_wr(&d, DRIVER_CONFIG + 8, 4, 0); /* over its end */
	assert_int_equal(seen.writes, 1);
	/* a change is told to a driver that is ready */
	lock_take(&v->lock);
	virtio_config_changed(v);
	lock_drop(&v->lock);
	assert_int_equal(driver_rd(&d, 0x15, 1), 1);
	assert_int_equal(driver_isr(&d), 0);
	driver_features(&d, BIT(32));
	driver_ok(&d);
	lock_take(&v->lock);
	virtio_config_changed(v);
	lock_drop(&v->lock);
	assert_int_equal(driver_rd(&d, 0x15, 1), 2);
	assert_true(driver_pin(&d));
	assert_int_equal(driver_isr(&d), VIRTIO_ISR_CONFIG);
	assert_false(driver_pin(&d));
	driver_end(&d);
}

static void notifications(void **state)
{
	struct driver d = plug(&nil_ops, true);

	(void)state;
	driver_wr(&d, DRIVER_NOTIFY + 4, 2, 1);
	driver_wr(&d, DRIVER_NOTIFY + 4, 4, 1);
	driver_wr(&d, DRIVER_NOTIFY + 8, 2, 2); /* there is no queue 2 */
	assert_int_equal(driver_rd(&d, DRIVER_NOTIFY, 2), 0);
	assert_true(seen.kicks[0] == 0 && seen.kicks[1] == 2);
	outw(d.b, DRIVER_PORTS + 0x10, 0);
	outw(d.b, DRIVER_PORTS + 0x10, 2);
	assert_true(seen.kicks[0] == 1 && seen.kicks[1] == 2);
	driver_end(&d);
}

/* ---- interrupts ---- */

static void interrupt(struct driver *d, unsigned queue)
{
	struct virtio_device *v = device_of(d);

	v->transport->queue_interrupt(v, queue);
}

static void msix_entry(struct driver *d, unsigned n, bool masked)
{
	uint64_t at = DRIVER_MSIX + 16 * n;

	board_write(d->b, BUS_MMIO, at, 8, 0xfee00000);
	board_write(d->b, BUS_MMIO, at + 8, 4, VECTOR(n));
	board_write(d->b, BUS_MMIO, at + 12, 4, masked);
}

static int taken(struct driver *d)
{
	int vector = board_take(d->b);

	if (vector >= 0)
		lapic_wr(d->b, 0, 0xb0, 0);
	return vector;
}

static void enable_msix(struct driver *d)
{
	unsigned at = config(d, 0x34, 1);

	while (config(d, at, 1) != 0x11)
		at = config(d, at + 1, 1);
	assert_int_equal(config(d, at + 2, 2), 2); /* three vectors */
	board_config_write(d->b, DRIVER_SLOT, at + 2, 2, 0x8000);
	lapic_wr(d->b, 0, 0xf0, 0x1ff);
	for (unsigned n = 0; n < 3; n++)
		msix_entry(d, n, false);
}

static void message_signalled_interrupts(void **state)
{
	struct driver d = plug(&nil_ops, true);
	struct virtio_device *v = device_of(&d);

	(void)state;
	enable_msix(&d);
	driver_features(&d, BIT(32));
	driver_wr(&d, 0x10, 2, 0);
	driver_wr(&d, 0x16, 2, 1);
	driver_wr(&d, 0x1a, 2, 3); /* there is none */
	assert_int_equal(driver_rd(&d, 0x1a, 2), 0xffff);
	interrupt(&d, 1);
	assert_int_equal(taken(&d), -1);
	driver_wr(&d, 0x1a, 2, 2);
	assert_int_equal(driver_rd(&d, 0x1a, 2), 2);
	interrupt(&d, 1);
	assert_int_equal(taken(&d), VECTOR(2));
	interrupt(&d, 0);
	assert_int_equal(taken(&d), -1);
	driver_ok(&d);
	lock_take(&v->lock);
	virtio_config_changed(v);
	lock_drop(&v->lock);
	assert_int_equal(taken(&d), VECTOR(0));
	assert_false(driver_pin(&d));
	assert_int_equal(driver_isr(&d), VIRTIO_ISR_CONFIG);
	driver_wr(&d, 0x14, 1, 0); /* vectors are forgotten */
	assert_int_equal(driver_rd(&d, 0x10, 2), 0xffff);
	interrupt(&d, 1);
	assert_int_equal(taken(&d), -1);
	driver_end(&d);
}

/* ---- legacy ---- */

static void legacy_registers(void **state)
{
	struct driver d = plug(&nil_ops, true);
	struct board *b = d.b;

	(void)state;
	assert_int_equal(inl(b, DRIVER_PORTS), OWN_FEATURE | BIT(27) | BIT(28) | BIT(29));
	outb(b, DRIVER_PORTS + 0x12, 3);
	outl(b, DRIVER_PORTS + 4, 0xffffffff);
	assert_int_equal(inl(b, DRIVER_PORTS + 4), OWN_FEATURE | BIT(27) | BIT(28) | BIT(29));
	outw(b, DRIVER_PORTS + 0xe, 1);
	assert_int_equal(inw(b, DRIVER_PORTS + 0xc), 8);
	outw(b, DRIVER_PORTS + 0xe, 2);
	assert_int_equal(inw(b, DRIVER_PORTS + 0xc), 0);
	outw(b, DRIVER_PORTS + 0xe, 0);
	outl(b, DRIVER_PORTS + 8, 0x100);
	assert_int_equal(inl(b, DRIVER_PORTS + 8), 0x100);
	assert_true(device_of(&d)->queues[0].used == 0x101000 && device_of(&d)->queues[0].available == 0x100400);
	outb(b, DRIVER_PORTS + 0x12, 7);
	assert_int_equal(inb(b, DRIVER_PORTS + 0x12), 7);
	/* the device's configuration, and where it goes when MSI-X is enabled */
	assert_int_equal(inl(b, DRIVER_PORTS + 0x14), 0x33323130);
	assert_int_equal(inb(b, DRIVER_PORTS + 0x1d), '9');
	interrupt(&d, 0);
	assert_int_equal(inb(b, DRIVER_PORTS + 0x13), VIRTIO_ISR_QUEUE);
	assert_int_equal(inb(b, DRIVER_PORTS + 0x13), 0);
	enable_msix(&d);
	assert_int_equal(inl(b, DRIVER_PORTS + 0x18), 0x33323130);
	assert_int_equal(inw(b, DRIVER_PORTS + 0x14), 0xffff);
	outw(b, DRIVER_PORTS + 0x16, 1);
	assert_int_equal(inw(b, DRIVER_PORTS + 0x16), 1);
	interrupt(&d, 0);
	assert_int_equal(taken(&d), VECTOR(1));
	outb(b, DRIVER_PORTS + 0x12, 0);
	assert_int_equal(inl(b, DRIVER_PORTS + 8), 0);
	assert_int_equal(inl(b, DRIVER_PORTS + 4), 0);
	driver_end(&d);
}

/* ---- the window in the configuration space ---- */

static unsigned window(struct driver *d)
{
	unsigned at = config(d, 0x34, 1);

	while (config(d, at, 1) != 9 || config(d, at + 3, 1) != 5)
		at = config(d, at + 1, 1);
	return at;
}

static void set_window(struct driver *d, unsigned bar, uint32_t offset, uint32_t size)
{
	board_config_write(d->b, DRIVER_SLOT, window(d) + 4, 1, bar);
	board_config_write(d->b, DRIVER_SLOT, window(d) + 8, 4, offset);
	board_config_write(d->b, DRIVER_SLOT, window(d) + 12, 4, size);
}

static void registers_through_a_window(void **state)
{
	static const struct {
		uint32_t bar, offset, size;
	} wrong[] = { { 4, 0x12, 0 }, { 4, 0x12, 3 }, { 4, 0x13, 2 }, { 4, 0x4000, 4 }, { 4, 0xfffffffc, 4 },
		      { 2, 0, 4 },    { 5, 0, 4 },    { 6, 0, 4 },    { 255, 0, 4 },	{ 1, 0, 2 } };
	struct driver d = plug(&nil_ops, true);
	unsigned data = window(&d) + 16;

	(void)state;
	set_window(&d, 4, 0x12, 2);
	assert_int_equal(config(&d, data, 2), 2);
	set_window(&d, 4, 0x14, 1);
	board_config_write(d.b, DRIVER_SLOT, data, 1, 3);
	assert_int_equal(driver_status(&d), 3);
	assert_int_equal(config(&d, data, 1), 3);
	set_window(&d, 4, DRIVER_NOTIFY, 2);
	board_config_write(d.b, DRIVER_SLOT, data, 2, 0);
	assert_int_equal(seen.kicks[0], 1);
	set_window(&d, 0, 0x14, 4);
	assert_int_equal(config(&d, data, 4), 0x33323130);
	for (unsigned n = 0; n < ARRAY_SIZE(wrong); n++) {
		set_window(&d, wrong[n].bar, wrong[n].offset, wrong[n].size);
		board_config_write(d.b, DRIVER_SLOT, data, 4, 0xffffffff);
		assert_int_equal(config(&d, data, 4), 0);
	}
	driver_end(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header_and_capabilities), cmocka_unit_test(features_are_negotiated),
		cmocka_unit_test(queue_registers),	   cmocka_unit_test(configuration_space),
		cmocka_unit_test(notifications),	   cmocka_unit_test(message_signalled_interrupts),
		cmocka_unit_test(legacy_registers),	   cmocka_unit_test(registers_through_a_window),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
