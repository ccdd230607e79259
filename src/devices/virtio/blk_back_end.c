/*
 * virtio-blk whose disk is a vhost-user back end's (virtio-blk,file=vhost-user:PATH): what the disk is like is in the back end's configuration space, which is the driver's but for what our queues limit.
 */
#include "devices/virtio/back_end.h"
#include "devices/virtio/blk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define CONFIG_CAPACITY	 0
#define CONFIG_SEG_MAX	 12
#define CONFIG_WRITEBACK 32
#define CONFIG_QUEUES	 34
#define CONFIG_SIZE	 60

/* SIZE_MAX, SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES (virtio 1.2, 5.2.3) */
#define FEATURES                                                                                                       \
	(BIT(1) | BIT(2) | BIT(4) | BIT(5) | BIT(6) | BIT(9) | BIT(10) | F_CONFIG_WCE | F_MQ | BIT(13) | BIT(14))
#define F_CONFIG_WCE BIT(11)
#define F_MQ	     BIT(12)

#define HEADER_SIZE  16u
#define STATUS_IOERR 1

/* clang-format off */
#define BLK_STATE(_, T)                                                                                                \
	_(T, uint64_t, sectors, 1, 1, 0, UINT64_MAX) /* of the disk that was saved with the machine */                 \
	_(T, uint8_t, writeback, 1, 2, 1, 1)
/* clang-format on */

struct blk_back_end {
	struct virtio_device virtio;
	STATE_FIELDS(BLK_STATE)
	struct back_end back_end;
};

static struct blk_back_end *of(struct virtio_device *v) { return (struct blk_back_end *)v; }
static struct back_end *back_end_of(struct virtio_device *v) { return &of(v)->back_end; }

static uint64_t sectors_of(const struct blk_back_end *blk) { return load_le64(blk->virtio.config + CONFIG_CAPACITY); }

/* ---- requests ---- */

static bool valid(const struct virtio_chain *c) { return c->out_size >= HEADER_SIZE && c->in_size; }

static void fail(struct virtio_queue *q, const struct virtio_chain *c)
{
	const uint8_t status = STATUS_IOERR;

	virtio_chain_write(c, c->in_size - 1, &status, 1);
	virtqueue_push(q, c, c->in_size);
}

static void kick(struct virtio_queue *q) { back_end_kick(back_end_of(q->virtio), q); }

/* ---- configuration ---- */

static bool can_switch(const struct blk_back_end *blk) { return blk->back_end.features & F_CONFIG_WCE; }

static void copy_config(struct blk_back_end *blk)
{
	uint8_t *config = blk->virtio.config;

	memcpy(config, blk->back_end.config, CONFIG_SIZE);
	store_le32(config + CONFIG_SEG_MAX, MIN(load_le32(config + CONFIG_SEG_MAX), VIRTIO_QUEUE_SIZE - 2));
	store_le16(config + CONFIG_QUEUES, (uint16_t)blk->virtio.queue_count);
	if (can_switch(blk))
		config[CONFIG_WRITEBACK] = blk->writeback;
}

/*
 * Whether writes are in a cache when they come back, or on the disk. The first is told to the back end, too, whatever it says itself: that of QEMU 7.2 has a cache, and says that it has none.
 */
static void set_writeback(struct blk_back_end *blk, uint8_t writeback)
{
	blk->writeback = writeback;
	blk->virtio.config[CONFIG_WRITEBACK] = writeback;
	back_end_set_config(&blk->back_end, CONFIG_WRITEBACK, writeback);
}

static void config_written(struct virtio_device *v, unsigned offset, unsigned size)
{
	(void)offset, (void)size;
	if (can_switch(of(v)) && v->config[CONFIG_WRITEBACK] != of(v)->writeback)
		set_writeback(of(v), v->config[CONFIG_WRITEBACK]);
}

/* The disk may have grown. */
static void changed(struct virtio_device *v)
{
	uint8_t before[CONFIG_SIZE];

	memcpy(before, v->config, CONFIG_SIZE);
	copy_config(of(v));
	if (memcmp(before, v->config, CONFIG_SIZE) != 0)
		virtio_config_changed(v);
}

static const struct back_end_ops back_end_ops = {
	.config_size = CONFIG_SIZE, .drains = true, .valid = valid, .fail = fail, .changed = changed
};

/* ---- the machine's ---- */

static void started(struct virtio_device *v) { back_end_driver_ready(back_end_of(v)); }
static void queue_stops(struct virtio_queue *q) { back_end_queue_stops(back_end_of(q->virtio), q); }

static void reset(struct virtio_device *v)
{
	back_end_reset(back_end_of(v));
	if (can_switch(of(v)))
		set_writeback(of(v), 1);
}

static void loaded(struct virtio_device *v)
{
	back_end_loaded(back_end_of(v));
	if (can_switch(of(v)))
		set_writeback(of(v), of(v)->writeback);
}

static void pause_requests(struct virtio_device *v) { back_end_pause(back_end_of(v)); }
static void resume_requests(struct virtio_device *v) { back_end_resume(back_end_of(v)); }

static void blk_saving(const void *object)
{
	struct blk_back_end *blk = (struct blk_back_end *)object;

	blk->sectors = sectors_of(blk);
	virtio_saving(object);
}

static int blk_loaded(void *object, uint16_t version, struct error *err)
{
	const struct blk_back_end *blk = object;

	if (blk->sectors != sectors_of(blk))
		return error_set(err, EINVAL, "virtio-blk: the disk had %" PRIu64 " sectors; '%s' has %" PRIu64,
				 blk->sectors, blk->back_end.setup.path, sectors_of(blk));
	return virtio_loaded(object, version, err);
}

static void blk_destroy(struct device *device)
{
	struct blk_back_end *blk = (struct blk_back_end *)device;

	back_end_close(&blk->back_end);
	virtio_fini(&blk->virtio);
	free(blk);
}

#define BLK_ALL_STATE(_, T)                                                                                            \
	VIRTIO_STATE(_, T)                                                                                             \
	BLK_STATE(_, T)
STATE_DESC(blk_back_end_state_desc, "vhost-user-blk", 1, struct blk_back_end, BLK_ALL_STATE, .loaded = blk_loaded,
	   .saving = blk_saving);

static const struct device_ops blk_device_ops = { .state = &blk_back_end_state_desc,
						  VIRTIO_DEVICE_OPS,
						  .destroy = blk_destroy };
static const struct virtio_ops blk_ops = {
	.id = VIRTIO_ID_BLOCK,
	.pci_name = "vhost-user-blk-pci",
	.pci_class = 0x01000000,
	.started = started,
	.queue_stops = queue_stops,
	.reset = reset,
	.config_written = config_written,
	.loaded = loaded,
	.pause = pause_requests,
	.resume = resume_requests,
};

int blk_back_end_create(struct bus *bus, const char *path, unsigned queues, const struct virtio_options *options,
			struct error *err)
{
	struct blk_back_end *blk = calloc(1, sizeof(*blk));
	int rc;

	if (!blk)
		return error_set_errno(err, ENOMEM, "virtio-blk");
	virtio_init(&blk->virtio, bus, "vhost-user-blk", &blk_device_ops, &blk_ops);
	rc = back_end_open(&blk->back_end, &blk->virtio, &back_end_ops, path, 1, err);
	queues = MIN(queues, blk->back_end.rings_offered);
	for (unsigned n = 0; !rc && n < queues; n++)
		rc = virtio_add_queue(&blk->virtio, VIRTIO_QUEUE_SIZE, kick, err);
	if (rc)
		return rc;
	blk->virtio.config_size = CONFIG_SIZE;
	copy_config(blk);
	if (can_switch(blk)) {
		blk->virtio.config_mask[CONFIG_WRITEBACK] = 1;
		set_writeback(blk, 1);
	}
	blk->virtio.offered |= blk->back_end.features & (queues > 1 ? FEATURES : FEATURES & ~F_MQ);
	rc = back_end_start(&blk->back_end, queues, err);
	return rc ? rc : virtio_plug(&blk->virtio, options, err);
}
