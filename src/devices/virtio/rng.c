/*
 * virtio-rng (virtio 1.2, 5.4): whatever the driver offers is filled with random bytes: the host's, or, under virtual time, where the same run must give the same trace, a
 * sequence that goes on from where a saved machine left it.
 */
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define AT_ONCE 256u  /* bytes: so many getrandom() gives in one piece */
#define MOST	4096u /* of one request: a driver that wants more asks again */

/* clang-format off */
#define RNG_STATE(_, T)                                                                                                \
	_(T, uint64_t, sequence, 1, 1, 0, UINT64_MAX)
/* clang-format on */

struct virtio_rng {
	struct virtio_device virtio;
	STATE_FIELDS(RNG_STATE)
};

/* A bijection that mixes well (splitmix64's finaliser, Steele et al. 2014). */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* How many of AT_ONCE bytes there are. */
static size_t random_bytes(struct virtio_rng *rng, uint8_t bytes[AT_ONCE])
{
	ssize_t got;

	if (clock_kind(rng->virtio.device.bus->clock) == CLOCK_VIRTUAL) {
		for (unsigned n = 0; n < AT_ONCE; n += 8)
			store_le64(bytes + n, mix(rng->sequence += 0x9e3779b97f4a7c15));
		return AT_ONCE;
	}
	got = getrandom(bytes, AT_ONCE, GRND_NONBLOCK);
	return got < 0 ? 0 : (size_t)got;
}

static void serve(struct virtio_queue *q, const struct virtio_chain *c)
{
	uint8_t bytes[AT_ONCE];
	size_t done = 0, wanted = MIN(c->in_size, MOST);

	while (done < wanted) {
		size_t got = MIN(random_bytes((struct virtio_rng *)q->virtio, bytes), wanted - done);

		if (!got)
			break;
		done += virtio_chain_write(c, done, bytes, got);
	}
	virtqueue_push(q, c, done);
}

static void kick(struct virtio_queue *q) { virtqueue_serve(q, serve); }

static void rng_destroy(struct device *device)
{
	struct virtio_rng *rng = (struct virtio_rng *)device;

	virtio_fini(&rng->virtio);
	free(rng);
}

#define RNG_ALL_STATE(_, T)                                                                                            \
	VIRTIO_STATE(_, T)                                                                                             \
	RNG_STATE(_, T)
STATE_DESC(rng_state_desc, "virtio-rng", 1, struct virtio_rng, RNG_ALL_STATE, .loaded = virtio_loaded,
	   .saving = virtio_saving);

static const struct device_ops rng_device_ops = { .state = &rng_state_desc, VIRTIO_DEVICE_OPS, .destroy = rng_destroy };
static const struct virtio_ops rng_ops = { .id = VIRTIO_ID_RNG, .pci_name = "virtio-rng-pci", .pci_class = 0x00ff0000 };

static int rng_create(struct bus *bus, const void *options, struct error *err)
{
	struct virtio_rng *rng = calloc(1, sizeof(*rng));
	int rc;

	if (!rng)
		return error_set_errno(err, ENOMEM, "virtio-rng");
	virtio_init(&rng->virtio, bus, "virtio-rng", &rng_device_ops, &rng_ops);
	rc = virtio_add_queue(&rng->virtio, VIRTIO_QUEUE_SIZE, kick, err);
	return rc ? rc : virtio_plug(&rng->virtio, options, err);
}

const struct device_type virtio_rng_type = {
	.name = "virtio-rng",
	.help = "random numbers of the host's",
	.most = 1,
	DEVICE_OPTIONS(VIRTIO_OPTIONS, struct virtio_options),
	.short_form = { .name = "--rng", .help = "a virtio device with random numbers of the host's" },
	.create = rng_create,
};
