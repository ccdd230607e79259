/*
 * virtio-fs (virtio 1.2, 5.11): a folder of the host's, by FUSE requests that a vhost-user back end (virtiofsd) serves. What a guest has open is the back end's to know: when that is gone, so is all of it.
 */
#include "devices/virtio/fs.h"
#include "devices/virtio/back_end.h"

#include <errno.h>
#include <stdlib.h>

#define QUEUES	    2 /* one for what goes before all else, one for requests */
#define QUEUE_SIZE  128
#define CONFIG_SIZE (FS_TAG_SIZE + 4)

/* struct fuse_in_header: length, opcode, unique...; struct fuse_out_header: length, error, unique */
#define UNIQUE	    8u
#define REPLY_SIZE  16u
#define HEADER_SIZE 40u

/* A driver had started when the machine was saved. */
#define FS_STATE(_, T) _(T, bool, was_started, 1, 1, 0, 1)

struct virtio_fs {
	struct virtio_device virtio;
	STATE_FIELDS(FS_STATE)
	struct back_end back_end;
};

static struct back_end *back_end_of(struct virtio_device *v) { return &((struct virtio_fs *)v)->back_end; }

/* ---- requests ---- */

static bool valid(const struct virtio_chain *c) { return c->out_size >= HEADER_SIZE; }

/* With EIO, unless nobody waits for a reply (FORGET). */
static void fail(struct virtio_queue *q, const struct virtio_chain *c)
{
	uint8_t reply[REPLY_SIZE] = { 0 };

	store_le32(reply, REPLY_SIZE);
	store_le32(reply + 4, (uint32_t)-EIO);
	virtio_chain_read(c, UNIQUE, reply + 8, 8);
	virtqueue_push(q, c, virtio_chain_write(c, 0, reply, REPLY_SIZE));
}

static void kick(struct virtio_queue *q) { back_end_kick(back_end_of(q->virtio), q); }

static const struct back_end_ops back_end_ops = { .once = true, .drains = true, .valid = valid, .fail = fail };

/* ---- the machine's ---- */

static void started(struct virtio_device *v) { back_end_driver_ready(back_end_of(v)); }
static void queue_stops(struct virtio_queue *q) { back_end_queue_stops(back_end_of(q->virtio), q); }
static void reset(struct virtio_device *v) { back_end_reset(back_end_of(v)); }
static void pause_requests(struct virtio_device *v) { back_end_pause(back_end_of(v)); }
static void resume_requests(struct virtio_device *v) { back_end_resume(back_end_of(v)); }

static void fs_saving(const void *object)
{
	struct virtio_fs *fs = (struct virtio_fs *)object;

	fs->was_started = virtio_is_started(&fs->virtio);
	virtio_saving(object);
}

static int fs_loaded(void *object, uint16_t version, struct error *err)
{
	const struct virtio_fs *fs = object;

	if (fs->was_started)
		return error_set(err, EINVAL,
				 "virtio-fs: the guest used the share when it was saved, and what it had open is in a "
				 "back end that is gone; expected one whose driver had let go of the device before");
	return virtio_loaded(object, version, err);
}

static void fs_destroy(struct device *device)
{
	struct virtio_fs *fs = (struct virtio_fs *)device;

	back_end_close(&fs->back_end);
	virtio_fini(&fs->virtio);
	free(fs);
}

#define FS_ALL_STATE(_, T)                                                                                             \
	VIRTIO_STATE(_, T)                                                                                             \
	FS_STATE(_, T)
STATE_DESC(fs_state_desc, "virtio-fs", 1, struct virtio_fs, FS_ALL_STATE, .loaded = fs_loaded, .saving = fs_saving);

static const struct device_ops fs_device_ops = { .state = &fs_state_desc, VIRTIO_DEVICE_OPS, .destroy = fs_destroy };
static const struct virtio_ops fs_ops = {
	.id = VIRTIO_ID_FS,
	.pci_name = "virtio-fs-pci",
	.pci_class = 0x01800000,
	.modern_only = true,
	.started = started,
	.queue_stops = queue_stops,
	.reset = reset,
	.pause = pause_requests,
	.resume = resume_requests,
};

int fs_create(struct bus *bus, const char *path, const char *tag, struct error *err)
{
	struct virtio_fs *fs = calloc(1, sizeof(*fs));
	int rc;

	if (!fs)
		return error_set_errno(err, ENOMEM, "virtio-fs");
	virtio_init(&fs->virtio, bus, "virtio-fs", &fs_device_ops, &fs_ops);
	rc = back_end_open(&fs->back_end, &fs->virtio, &back_end_ops, path, QUEUES, err);
	for (unsigned n = 0; !rc && n < QUEUES; n++)
		rc = virtio_add_queue(&fs->virtio, QUEUE_SIZE, kick, err);
	if (rc)
		return rc;
	fs->virtio.config_size = CONFIG_SIZE;
	memcpy(fs->virtio.config, tag, MIN(strlen(tag) + 1, FS_TAG_SIZE));
	store_le32(fs->virtio.config + FS_TAG_SIZE, QUEUES - 1);
	rc = back_end_start(&fs->back_end, QUEUES, err);
	return rc ? rc : virtio_plug(&fs->virtio, &(struct virtio_options){ .legacy = false }, err);
}
