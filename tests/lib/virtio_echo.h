/*
 * A virtio device for the tests of queues and transports: what it reads is written back, from the end to the beginning. Its driver is lib/virtio_driver.h's.
 */
#ifndef TESTS_LIB_VIRTIO_ECHO_H
#define TESTS_LIB_VIRTIO_ECHO_H

#include "lib/virtio_driver.h"

#define MOST 128 /* descriptors of queue 0; queue 1 has 8 */

static struct {
	unsigned served, last_out, last_in;
	bool keeps;    /* the first chain of a kick waits for queue_stops */
	unsigned adds; /* so many times it finds the driver adding while it serves */
	struct driver *d;
	struct virtio_queue *kept;
	struct virtio_chain chain; /* the one that is kept */
	struct iovec pieces[8];
	void (*watch)(struct driver *); /* of each chain, when it is served */
} echo;

static inline void echo_back(struct virtio_queue *q, const struct virtio_chain *c)
{
	uint8_t bytes[64];
	size_t size = virtio_chain_read(c, 0, bytes, sizeof(bytes));

	for (size_t n = 0; n < size / 2; n++) {
		uint8_t byte = bytes[n];

		bytes[n] = bytes[size - 1 - n];
		bytes[size - 1 - n] = byte;
	}
	virtqueue_push(q, c, virtio_chain_write(c, 0, bytes, size));
}

static inline void echo_serve(struct virtio_queue *q, const struct virtio_chain *c)
{
	echo.served++;
	echo.last_out = c->out_count;
	echo.last_in = c->in_count;
	if (echo.keeps) {
		echo.kept = q;
		echo.keeps = false;
		virtio_chain_copy(&echo.chain, c, echo.pieces);
		return;
	}
	echo_back(q, c);
	if (echo.watch)
		echo.watch(echo.d);
	if (echo.adds) {
		echo.adds--;
		driver_add(echo.d, &echo.d->queues[0], c->head);
	}
}

static inline void echo_kick(struct virtio_queue *q) { virtqueue_serve(q, echo_serve); }

/* What was kept is served now. */
static inline void echo_kept(void)
{
	struct virtio_queue *q = echo.kept;

	lock_take(&q->lock);
	echo_back(q, &echo.chain);
	virtqueue_publish(q);
	lock_drop(&q->lock);
	echo.kept = NULL;
}

static inline void echo_queue_stops(struct virtio_queue *q)
{
	if (!echo.kept)
		return;
	assert_ptr_equal(q, echo.kept);
	echo.kept = NULL;
	virtqueue_drop(q);
}

static inline void echo_destroy(struct device *device)
{
	virtio_fini((struct virtio_device *)device);
	free(device);
}

struct echo_device {
	struct virtio_device virtio;
};
STATE_DESC(echo_state_desc, "echo", 1, struct echo_device, VIRTIO_STATE, .loaded = virtio_loaded,
	   .saving = virtio_saving);
static const struct device_ops echo_device_ops = { .state = &echo_state_desc,
						   VIRTIO_DEVICE_OPS,
						   .destroy = echo_destroy };
static const struct virtio_ops echo_ops = {
	.id = VIRTIO_ID_RNG, .pci_name = "echo-pci", .pci_class = 0xff0000, .queue_stops = echo_queue_stops
};

static inline struct virtio_device *echo_plug_on(struct bus *bus, const struct virtio_options *options)
{
	struct virtio_device *v = calloc(1, sizeof(*v));

	virtio_init(v, bus, "echo", &echo_device_ops, &echo_ops);
	assert_int_equal(virtio_add_queue(v, MOST, echo_kick, NULL) || virtio_add_queue(v, 8, echo_kick, NULL), 0);
	assert_int_equal(virtio_plug(v, options, NULL), 0);
	return v;
}

static inline struct driver echo_plug(const struct virtio_options *options)
{
	struct driver d = driver_board();

	memset(&echo, 0, sizeof(echo));
	d.mmio = options->transport ? VIRTIO_MMIO_ADDRESS(0) : 0;
	echo_plug_on(d.b->bus, options);
	driver_reset_board(&d);
	return d;
}

static inline void check_in(struct driver *d, const char *expected)
{
	char bytes[64];

	assert_int_equal(mem_read(d->mem, gpa(0x201000), bytes, strlen(expected)), 0);
	assert_memory_equal(bytes, expected, strlen(expected));
}

#endif
