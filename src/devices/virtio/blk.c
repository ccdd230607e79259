/*
 * virtio-blk (virtio 1.2, 5.2): a disk. What the host has in memory is read and written where the driver kicks; all else is a worker's (block/block.h), which
 * completes the request itself. Under virtual time everything is done where the driver kicks, however long that takes: the guest sees no order but its own.
 */
#include "devices/virtio/blk.h"

#include "devices/scsi/scsi.h"
#include "devices/virtio/held.h"
#include "vhost/vhost.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define SECTOR	     512u
#define QUEUES_MOST  HELD_QUEUES
#define HEADER_SIZE  16u
#define SEGMENT_SIZE 16u	/* of a discard */
#define SECTORS_MOST (1u << 22) /* of one discard, or zeroes */
#define DISKS_MOST   24
#define HERE_MOST                                                                                                      \
	(1u << 20) /* bytes that one kick reads and writes where the driver kicks: other vCPUs may wait for it */
/* What CHS counts up to */
#define HEADS	       16u
#define TRACK_SECTORS  63u
#define CYLINDERS_MOST 65535u

/* Features, virtio 1.2, 5.2.3 */
#define F_SEG_MAX      BIT(2)
#define F_GEOMETRY     BIT(4)
#define F_RO	       BIT(5)
#define F_BLK_SIZE     BIT(6)
#define F_FLUSH	       BIT(9)
#define F_TOPOLOGY     BIT(10)
#define F_CONFIG_WCE   BIT(11)
#define F_MQ	       BIT(12)
#define F_DISCARD      BIT(13)
#define F_WRITE_ZEROES BIT(14)

/* Offsets in the configuration space, virtio 1.2, 5.2.4 */
enum {
	CONFIG_CAPACITY = 0,
	CONFIG_SEG_MAX = 12,
	CONFIG_CYLINDERS = 16,
	CONFIG_HEADS = 18,
	CONFIG_TRACK_SECTORS = 19,
	CONFIG_BLK_SIZE = 20,
	CONFIG_PHYSICAL_EXPONENT = 24,
	CONFIG_MIN_IO_SIZE = 26,
	CONFIG_OPT_IO_SIZE = 28,
	CONFIG_WRITEBACK = 32,
	CONFIG_QUEUES = 34,
	CONFIG_MAX_DISCARD_SECTORS = 36,
	CONFIG_MAX_DISCARD_SEGMENTS = 40,
	CONFIG_DISCARD_ALIGNMENT = 44,
	CONFIG_MAX_ZEROES_SECTORS = 48,
	CONFIG_MAX_ZEROES_SEGMENTS = 52,
	CONFIG_ZEROES_MAY_UNMAP = 56,
	CONFIG_SIZE = 60,
};

/* Requests and their outcome, virtio 1.2, 5.2.6 */
enum {
	TYPE_IN = 0,
	TYPE_OUT = 1,
	TYPE_FLUSH = 4,
	TYPE_GET_ID = 8,
	TYPE_DISCARD = 11,
	TYPE_WRITE_ZEROES = 13,
};
#define TYPE_BARRIER 0x80000000u /* legacy: nothing */
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

#define BLK_STATE(_, T)                                                                                                \
	_(T, uint8_t, writeback, 1, 1, 1, 1)                                                                           \
	_(T, uint64_t, sectors, 1, 2, 0, UINT64_MAX) /* of the disk that was saved with the machine */

/* clang-format off */
#define BLK_OPTIONS(_, T)                                                                                              \
	WAITING_DISK_OPTIONS(_, T)                                                                                     \
	_(T, TEXT, bus, 0, 0, "virtio", "virtio; scsi: on the SCSI controller; ide: as a PC of old has it; sata: on AHCI; nvme")              \
	_(T, NUMBER, queues, 1, QUEUES_MOST, NULL, "queues; by default one for each processor")                        \
	VIRTIO_OPTIONS(_, T)
/* clang-format on */

struct blk_options {
	DEVICE_OPTION_FIELDS(BLK_OPTIONS)
};

struct blk_request {
	struct block_request block;
	struct virtio_queue *queue;
	bool again; /* it was held, and counts as that */
	struct virtio_chain chain;
	struct iovec pieces[]; /* the chain's */
};

struct virtio_blk {
	struct virtio_device virtio;
	STATE_FIELDS(BLK_STATE)
	struct block *block;
	const struct block_info *info;
	const char *serial;
	bool in_line; /* virtual time */
	enum disk_on_error on_error;
	uint64_t boot; /* its turn */
	struct virtio_held held;
	struct blk_request *here[QUEUES_MOST]; /* what is being done where the driver kicks */
	size_t here_left[QUEUES_MOST];	       /* bytes */
};

static struct virtio_blk *of(struct virtio_device *v) { return (struct virtio_blk *)v; }

/* ---- outcome ---- */

static uint8_t status_of(int result) { return !result ? STATUS_OK : result == -ENOTSUP ? STATUS_UNSUPP : STATUS_IOERR; }

/* The status is the last byte of what is written. */
static void finish(struct virtio_queue *q, const struct virtio_chain *c, uint8_t status)
{
	virtio_chain_write(c, c->in_size - 1, &status, 1);
	virtqueue_push(q, c, c->in_size);
}

/* ---- requests ---- */

/* Without so many bytes at the beginning. */
static void cut_front(struct iovec *pieces, size_t bytes)
{
	for (; bytes; pieces++) {
		size_t part = MIN(bytes, pieces->iov_len);

		pieces->iov_base = (uint8_t *)pieces->iov_base + part;
		pieces->iov_len -= part;
		bytes -= part;
	}
}

/* The chain in r->pieces as the block layer wants it: without the header, and without the status, which finish_request() puts there. */
static void set_data(struct blk_request *r)
{
	struct virtio_chain *c = &r->chain;
	bool reads = r->block.op == BLOCK_READ;

	if (reads)
		r->pieces[c->out_count + c->in_count - 1].iov_len--;
	else
		cut_front(r->pieces, HEADER_SIZE);
	r->block.iov = reads ? c->in : c->out;
	r->block.iov_count = (int)(reads ? c->in_count : c->out_count);
	r->block.size = reads ? c->in_size - 1 : c->out_size - HEADER_SIZE;
}

static void finish_request(struct blk_request *r)
{
	struct virtio_blk *blk = of(r->queue->virtio);

	if (r->queue->enabled && disk_waits(blk->on_error, blk->block, &r->block)) {
		virtio_hold(&blk->held, r->queue, &r->chain, r->again, &blk->virtio.device, blk->block, &r->block);
		return;
	}
	if (r->block.op == BLOCK_READ)
		r->pieces[r->chain.out_count + r->chain.in_count - 1].iov_len++;
	finish(r->queue, &r->chain, status_of(r->block.result));
	if (r->again)
		disk_hold_done(&blk->held.hold, blk->block);
}

/* In a worker's thread. */
static void done(struct block_request *block)
{
	struct blk_request *r = container_of(block, struct blk_request, block);
	struct virtio_queue *q = r->queue;

	lock_take(&q->lock);
	finish_request(r);
	virtqueue_publish(q);
	lock_drop(&q->lock);
	free(r);
}

/* False: there is no memory for one more. */
static bool hand_over(struct virtio_blk *blk, const struct blk_request *here)
{
	size_t pieces = virtio_chain_pieces(&here->chain);
	struct blk_request *r = malloc(sizeof(*r) + pieces * sizeof(r->pieces[0]));

	if (!r)
		return false;
	*r = *here;
	virtio_chain_copy(&r->chain, &here->chain, r->pieces);
	r->block.iov = here->block.iov ? r->pieces + (here->block.iov - here->pieces) : NULL;
	block_submit(blk->block, &r->block);
	return true;
}

/* Done without waiting for anything? */
static bool done_here(struct virtio_blk *blk, struct blk_request *r)
{
	size_t *left = &blk->here_left[r->queue->index];

	if (r->block.size > *left || block_try(blk->block, &r->block))
		return false;
	*left -= r->block.size;
	return true;
}

static void submit(struct virtio_blk *blk, struct blk_request *r)
{
	bool here = true;

	if (blk->in_line)
		block_do(blk->block, &r->block);
	else
		here = done_here(blk, r);
	if (!here && !hand_over(blk, r)) {
		r->block.result = -ENOMEM;
		here = true;
	}
	if (here)
		finish_request(r);
}

/* Are writes to be on the disk when they are done? */
static bool writes_through(struct virtio_blk *blk)
{
	if (blk->virtio.features & F_CONFIG_WCE)
		return !__atomic_load_n(&blk->writeback, __ATOMIC_RELAXED);
	return !(blk->virtio.features & F_FLUSH);
}

static struct blk_request *new_request(struct virtio_queue *q, const struct virtio_chain *c, enum block_op op,
				       uint64_t sector)
{
	struct virtio_blk *blk = of(q->virtio);
	struct blk_request *r = blk->here[q->index];

	r->block = (struct block_request){
		.op = op,
		.offset = sector * SECTOR,
		.fua = op != BLOCK_READ && op != BLOCK_FLUSH && writes_through(blk),
		.done = done,
	};
	r->queue = q;
	r->again = virtio_held_again(&blk->held, q);
	virtio_chain_copy(&r->chain, c, r->pieces);
	return r;
}

static void read_or_write(struct virtio_queue *q, const struct virtio_chain *c, enum block_op op, uint64_t sector)
{
	struct blk_request *r;

	if (sector >= of(q->virtio)->info->size / SECTOR) {
		finish(q, c, STATUS_IOERR);
		return;
	}
	r = new_request(q, c, op, sector);
	set_data(r);
	submit(of(q->virtio), r);
}

/* One segment, as the configuration space says. */
static void discard_or_zero(struct virtio_queue *q, const struct virtio_chain *c, enum block_op op, uint64_t feature)
{
	struct virtio_blk *blk = of(q->virtio);
	uint8_t segment[SEGMENT_SIZE];
	uint64_t sector, count;
	struct blk_request *r;
	uint32_t flags;

	if (virtio_chain_read(c, HEADER_SIZE, segment, SEGMENT_SIZE) != SEGMENT_SIZE ||
	    c->out_size != HEADER_SIZE + SEGMENT_SIZE) {
		finish(q, c, STATUS_IOERR);
		return;
	}
	sector = load_le64(segment);
	count = load_le32(segment + 8);
	flags = load_le32(segment + 12);
	if (!(blk->virtio.features & feature) || flags > (op == BLOCK_WRITE_ZEROES)) {
		finish(q, c, STATUS_UNSUPP);
		return;
	}
	if (count > SECTORS_MOST || !range_ok(sector, count, blk->info->size / SECTOR)) {
		finish(q, c, STATUS_IOERR);
		return;
	}
	r = new_request(q, c, op, sector);
	r->block.size = count * SECTOR;
	r->block.may_unmap = flags;
	submit(blk, r);
}

static void get_id(struct virtio_queue *q, const struct virtio_chain *c)
{
	char id[DISK_SERIAL_SIZE] = "";

	memcpy(id, of(q->virtio)->serial, strlen(of(q->virtio)->serial));
	virtio_chain_write(c, 0, id, MIN(sizeof(id), c->in_size - 1));
	finish(q, c, STATUS_OK);
}

static void serve(struct virtio_queue *q, const struct virtio_chain *c)
{
	uint8_t header[HEADER_SIZE];
	uint64_t sector;

	if (virtio_chain_read(c, 0, header, HEADER_SIZE) != HEADER_SIZE || !c->in_size) {
		virtio_break(q->virtio, "a request without a header, or without room for its status");
		virtqueue_drop(q);
		return;
	}
	sector = load_le64(header + 8);
	switch (load_le32(header) & ~TYPE_BARRIER) {
	case TYPE_IN: read_or_write(q, c, BLOCK_READ, sector); break;
	case TYPE_OUT: read_or_write(q, c, BLOCK_WRITE, sector); break;
	case TYPE_FLUSH: submit(of(q->virtio), new_request(q, c, BLOCK_FLUSH, 0)); break;
	case TYPE_GET_ID: get_id(q, c); break;
	case TYPE_DISCARD: discard_or_zero(q, c, BLOCK_DISCARD, F_DISCARD); break;
	case TYPE_WRITE_ZEROES: discard_or_zero(q, c, BLOCK_WRITE_ZEROES, F_WRITE_ZEROES); break;
	default: finish(q, c, STATUS_UNSUPP);
	}
}

static void kick(struct virtio_queue *q)
{
	of(q->virtio)->here_left[q->index] = HERE_MOST;
	virtqueue_serve(q, serve);
}

static void serve_again(struct virtio_queue *q, const struct virtio_chain *c)
{
	of(q->virtio)->here_left[q->index] = HERE_MOST;
	serve(q, c);
}

static void retry(struct bus_hold *hold)
{
	virtio_held_serve(container_of(hold, struct virtio_held, hold.hold), serve_again);
}

/* ---- configuration ---- */

static void set_writeback(struct virtio_blk *blk, uint8_t writeback)
{
	__atomic_store_n(&blk->writeback, writeback, __ATOMIC_RELAXED);
	blk->virtio.config[CONFIG_WRITEBACK] = writeback;
}

static void config_written(struct virtio_device *v, unsigned offset, unsigned size)
{
	(void)offset, (void)size;
	set_writeback(of(v), v->config[CONFIG_WRITEBACK]);
}

static void blk_reset(struct virtio_device *v) { set_writeback(of(v), 1); }

static void blk_config_loaded(struct virtio_device *v)
{
	set_writeback(of(v), of(v)->writeback);
	virtio_held_loaded(&of(v)->held);
}

static uint8_t exponent(uint32_t ratio)
{
	uint8_t n = 0;

	while (ratio > 1 && n < 8) {
		ratio /= 2;
		n++;
	}
	return n;
}

static void set_config(struct virtio_blk *blk, unsigned queues)
{
	const struct block_info *info = blk->info;
	uint8_t *config = blk->virtio.config;
	uint64_t cylinders = info->size / SECTOR / (HEADS * TRACK_SECTORS);

	blk->virtio.config_size = CONFIG_SIZE;
	blk->virtio.config_mask[CONFIG_WRITEBACK] = 1;
	store_le64(config + CONFIG_CAPACITY, info->size / SECTOR);
	store_le32(config + CONFIG_SEG_MAX, VIRTIO_QUEUE_SIZE - 2);
	store_le16(config + CONFIG_CYLINDERS, (uint16_t)MIN(cylinders, CYLINDERS_MOST));
	config[CONFIG_HEADS] = HEADS;
	config[CONFIG_TRACK_SECTORS] = TRACK_SECTORS;
	store_le32(config + CONFIG_BLK_SIZE, info->logical_size);
	config[CONFIG_PHYSICAL_EXPONENT] = exponent(info->physical_size / info->logical_size);
	store_le16(config + CONFIG_MIN_IO_SIZE, (uint16_t)(info->physical_size / info->logical_size));
	store_le16(config + CONFIG_QUEUES, (uint16_t)queues);
	store_le32(config + CONFIG_MAX_DISCARD_SECTORS, SECTORS_MOST);
	store_le32(config + CONFIG_MAX_DISCARD_SEGMENTS, 1);
	store_le32(config + CONFIG_DISCARD_ALIGNMENT, info->discard_size / SECTOR);
	store_le32(config + CONFIG_MAX_ZEROES_SECTORS, SECTORS_MOST);
	store_le32(config + CONFIG_MAX_ZEROES_SEGMENTS, 1);
	config[CONFIG_ZEROES_MAY_UNMAP] = info->can_discard;
}

static uint64_t features_of(const struct block_info *info, unsigned queues)
{
	uint64_t features = F_SEG_MAX | F_GEOMETRY | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE;

	if (queues > 1)
		features |= F_MQ;
	if (info->readonly)
		return features | F_RO;
	return features | F_WRITE_ZEROES | (info->can_discard ? F_DISCARD : 0);
}

/* ---- the machine's ---- */

static void blk_pause(struct virtio_device *v) { block_drain(of(v)->block); }

static void blk_resume(struct virtio_device *v) { virtio_held_serve(&of(v)->held, serve_again); }

static void queue_stops(struct virtio_queue *q) { virtio_held_stop(&of(q->virtio)->held, q); }

static void blk_give_up(struct virtio_device *v) { block_give_up(of(v)->block); }

static void blk_saving(const void *object)
{
	struct virtio_blk *blk = (struct virtio_blk *)object;

	blk->sectors = blk->info->size / SECTOR;
	virtio_saving(object);
}

static int blk_loaded(void *object, uint16_t version, struct error *err)
{
	const struct virtio_blk *blk = object;

	if (blk->sectors != blk->info->size / SECTOR)
		return error_set(err, EINVAL, "virtio-blk: the disk had %" PRIu64 " sectors; '%s' has %" PRIu64,
				 blk->sectors, blk->info->file, blk->info->size / SECTOR);
	if (virtio_held_check(&blk->held, err))
		return -EINVAL;
	return virtio_loaded(object, version, err);
}

/* ---- life ---- */

static void blk_destroy(struct device *device)
{
	struct virtio_blk *blk = (struct virtio_blk *)device;

	virtio_held_fini(&blk->held);
	block_close(blk->block);
	virtio_fini(&blk->virtio);
	for (unsigned n = 0; n < QUEUES_MOST; n++)
		free(blk->here[n]);
	free(blk);
}

#define BLK_ALL_STATE(_, T)                                                                                            \
	VIRTIO_STATE(_, T)                                                                                             \
	BLK_STATE(_, T)                                                                                                \
	VIRTIO_HELD_STATE(_, T, 3)
STATE_DESC(blk_state_desc, "virtio-blk", 1, struct virtio_blk, BLK_ALL_STATE, .loaded = blk_loaded,
	   .saving = blk_saving);

static bool blk_boots(const struct device *device, struct device_boot *boot)
{
	const struct virtio_blk *blk = (const struct virtio_blk *)device;

	*boot = (struct device_boot){ .kind = DEVICE_BOOT_DISK, .order = blk->boot };
	return virtio_boot_path(&blk->virtio, "scsi", "/disk@0,0", boot);
}

static const struct device_ops blk_device_ops = {
	.state = &blk_state_desc, VIRTIO_DEVICE_OPS, .boots = blk_boots, .destroy = blk_destroy
};
static const struct virtio_ops blk_ops = {
	.id = VIRTIO_ID_BLOCK,
	.pci_name = "virtio-blk-pci",
	.pci_class = 0x01000000,
	.reset = blk_reset,
	.config_written = config_written,
	.loaded = blk_config_loaded,
	.queue_stops = queue_stops,
	.give_up = blk_give_up,
	.pause = blk_pause,
	.resume = blk_resume,
};

static int open_disk(struct virtio_blk *blk, const struct disk_options *o, const struct virtio_options *virtio_options,
		     struct error *err)
{
	int on_error = disk_on_error("virtio-blk", o, err);

	if (on_error < 0)
		return on_error;
	blk->on_error = (enum disk_on_error)on_error;
	if (blk->on_error != DISK_REPORT && virtio_options->packed)
		return error_set(err, EINVAL, "virtio-blk: option 'on-error' is '%s'; expected report with packed=on",
				 o->on_error);
	blk->block = disk_open(blk->virtio.device.bus, "virtio-blk", o, err);
	if (!blk->block)
		return err ? -err->code : -EINVAL;
	blk->info = block_info(blk->block);
	blk->serial = o->serial ? o->serial : "";
	blk->boot = o->boot;
	return 0;
}

static int add_queues(struct virtio_blk *blk, unsigned count, struct error *err)
{
	int rc = 0;

	for (unsigned n = 0; !rc && n < count; n++) {
		blk->here[n] = calloc(1, sizeof(*blk->here[n]) + VIRTIO_MAX_PIECES * sizeof(struct iovec));
		rc = blk->here[n] ? virtio_add_queue(&blk->virtio, VIRTIO_QUEUE_SIZE, kick, err)
				  : error_set_errno(err, ENOMEM, "virtio-blk");
	}
	return rc;
}

/* What there is to choose about an image is the back end's to know. */
static int check_back_end_options(const struct blk_options *o, struct error *err)
{
	const char *name = strcmp(o->bus, "virtio")	   ? "bus"
			   : strcmp(o->format, "auto")	   ? "format"
			   : strcmp(o->cache, "writeback") ? "cache"
			   : strcmp(o->backing, "near")	   ? "backing"
			   : o->readonly		   ? "readonly"
			   : o->snapshot		   ? "snapshot"
			   : o->discard			   ? "discard"
			   : o->serial			   ? "serial"
			   : o->boot			   ? "boot"
			   : strcmp(o->on_error, "report") ? "on-error"
							   : NULL;

	return name ? error_set(err, EINVAL, "virtio-blk: option '%s' is for an image; expected none with '%s'", name,
				o->file)
		    : 0;
}

int blk_disk_create(struct bus *bus, const struct disk_options *o, unsigned queues,
		    const struct virtio_options *virtio_options, struct error *err)
{
	struct virtio_blk *blk = calloc(1, sizeof(*blk));
	int rc;

	if (!queues)
		queues = MIN(irq_cpu_count(bus), QUEUES_MOST);
	if (!blk)
		return error_set_errno(err, ENOMEM, "virtio-blk");
	virtio_init(&blk->virtio, bus, "virtio-blk", &blk_device_ops, &blk_ops);
	virtio_held_init(&blk->held, &blk->virtio, 0, retry);
	blk->in_line = clock_kind(bus->clock) == CLOCK_VIRTUAL;
	rc = open_disk(blk, o, virtio_options, err);
	if (!rc)
		rc = add_queues(blk, queues, err);
	if (rc)
		return rc;
	set_config(blk, queues);
	blk->virtio.offered |= features_of(blk->info, queues);
	return virtio_plug(&blk->virtio, virtio_options, err);
}

static int scsi_create(struct bus *bus, const struct disk_options *o, struct error *err)
{
	return scsi_disk_create(bus, o, 0, err);
}

static const struct {
	const char *name;
	int (*create)(struct bus *, const struct disk_options *, struct error *);
	bool waits; /* it knows on-error */
} other_buses[] = { { "scsi", scsi_create, true },
		    { "ide", ide_disk_create, true },
		    { "sata", sata_disk_create, false },
		    { "nvme", nvme_disk_create, false } };

static int wrong_queues(const struct blk_options *o, struct error *err)
{
	if (strcmp(o->bus, "scsi") != 0)
		return error_set(err, EINVAL, "virtio-blk: option 'queues' is %" PRIu64 "; bus=%s has none", o->queues,
				 o->bus);
	return error_set(err, EINVAL,
			 "virtio-blk: option 'queues' is %" PRIu64
			 "; with bus=scsi they are the controller's: --device virtio-scsi,queues=%" PRIu64,
			 o->queues, o->queues);
}

static int blk_create(struct bus *bus, const void *options, struct error *err)
{
	const struct blk_options *o = options;
	const char *back_end = o->file ? vhost_path(o->file) : NULL;
	unsigned queues = o->queues ? (unsigned)o->queues : MIN(irq_cpu_count(bus), QUEUES_MOST);
	int rc;

	if (back_end) {
		rc = check_back_end_options(o, err);
		return rc ? rc : blk_back_end_create(bus, back_end, queues, VIRTIO_OPTIONS_OF(o), err);
	}
	if (!strcmp(o->bus, "virtio"))
		return blk_disk_create(bus, &WAITING_DISK_OPTIONS_OF(o), (unsigned)o->queues, VIRTIO_OPTIONS_OF(o),
				       err);
	for (unsigned n = 0; n < ARRAY_SIZE(other_buses); n++) {
		if (strcmp(o->bus, other_buses[n].name) != 0)
			continue;
		if (o->queues)
			return wrong_queues(o, err);
		if (!other_buses[n].waits && strcmp(o->on_error, "report") != 0)
			return error_set(err, EINVAL,
					 "virtio-blk: option 'on-error' is '%.64s'; expected report with bus=%s",
					 o->on_error, o->bus);
		return other_buses[n].create(bus, &WAITING_DISK_OPTIONS_OF(o), err);
	}
	return error_set(err, EINVAL, "virtio-blk: option 'bus' is '%.64s'; expected virtio, scsi, ide, sata or nvme",
			 o->bus);
}

const struct device_type virtio_blk_type = {
	.name = "virtio-blk",
	.help = "a disk",
	.most = DISKS_MOST,
	.starts = true,
	DEVICE_OPTIONS(BLK_OPTIONS, struct blk_options),
	.short_form = { .name = "--disk",
			.option = "file",
			.options_follow = true,
			.argument = "FILE[,...]",
			.help = "a disk, with OPTION=VALUE as for --device virtio-blk; again for more" },
	.create = blk_create,
};
