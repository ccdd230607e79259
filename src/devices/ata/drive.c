/*
 * What the commands of ATA mean (ATA-1 to ACS-3): which sectors, how they are moved, what a drive says and remembers. And drives as devices.
 */
#include "devices/ata/ata.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define NARROW_SECTORS	0x10000000u
#define WIDE_SECTORS	(1ull << 48)
#define SMART_SIGNATURE 0xc24f00u /* in the LBA registers */

/* ---- the outcome ---- */

void ata_end(struct ata_task *task, int result)
{
	task->status = ATA_DRDY | ATA_DSC;
	task->error = 0;
	if (!result)
		return;
	task->status |= ATA_ERR;
	task->error = result == -EINVAL ? ATA_IDNF : result == -EIO ? ATA_UNC : ATA_ABRT;
}

static void refuse(struct ata_task *task) { ata_end(task, -ENOTSUP); }

void ata_signature(const struct ata_drive *d, struct ata_task *task)
{
	task->count = 1;
	task->lba = ata_is_cd(d) ? 0xeb1401 : 0x000001;
	task->device = 0;
	task->error = 1; /* no fault was found */
	/* A packet device is not ready until it has had a command. */
	task->status = ata_is_cd(d) ? 0 : ATA_DRDY | ATA_DSC;
}

void ata_soft_reset(struct ata_drive *d)
{
	d->multiple = 0;
	d->standby = 0;
	d->queue_failed = false;
	memset(d->sense, 0, sizeof(d->sense));
}

/* ACS-3, A.14: LBA and count in two halves each, as in the registers. */
void ata_queue_failed(struct ata_drive *d, unsigned tag, const struct ata_task *task)
{
	uint8_t *log = d->queue_log;

	d->queue_failed = true;
	memset(log, 0, sizeof(d->queue_log));
	log[0] = (uint8_t)tag;
	log[2] = task->status;
	log[3] = task->error;
	for (unsigned n = 0; n < 3; n++) {
		log[4 + n] = (uint8_t)(task->lba >> 8 * n);
		log[8 + n] = (uint8_t)(task->lba >> (24 + 8 * n));
	}
	log[7] = task->device;
	store_le16(log + 12, task->count);
}

/* ---- which sectors ---- */

/* -EINVAL: there is no such sector. */
static int narrow_address(const struct ata_drive *d, const struct ata_task *task, uint64_t *lba)
{
	unsigned sector = task->lba & 0xff, cylinder = (unsigned)bits(task->lba, 23, 8), head = task->device & 15;

	if (task->device & ATA_DEVICE_LBA) {
		*lba = (task->lba & 0xffffff) | (uint64_t)head << 24;
		return 0;
	}
	*lba = ((uint64_t)cylinder * d->heads + head) * d->track + sector - 1;
	return !sector || sector > d->track || head >= d->heads ? -EINVAL : 0;
}

static int find_sectors(const struct ata_drive *d, const struct ata_task *task, bool wide, uint32_t count,
			struct ata_transfer *t)
{
	int rc = 0;

	if (wide) {
		t->lba = task->lba;
		t->count = count ? count : ATA_WIDE_MOST;
	} else {
		rc = narrow_address(d, task, &t->lba);
		t->count = count & 0xff ? count & 0xff : 256;
	}
	return rc || !range_ok(t->lba, t->count, d->sectors) ? -EINVAL : 0;
}

/* ---- commands; each has its row below ---- */

enum {
	WIDE = 1,     /* 48-bit */
	DMA = 2,      /* data go by DMA */
	MULTIPLE = 4, /* a DRQ block is as many sectors as SET MULTIPLE MODE said */
	FUA = 8,
	CD_TOO = 16, /* CD drives know it as well */
	QUEUED = 32,
};

struct command {
	uint8_t first, last; /* codes */
	uint8_t how;
	void (*run)(struct ata_drive *, struct ata_task *, struct ata_transfer *, unsigned how);
};

static void move(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how, enum ata_kind kind)
{
	uint32_t count = how & QUEUED ? task->feature : task->count;
	int rc = find_sectors(d, task, how & WIDE, count, t);

	if ((how & MULTIPLE && !d->multiple) || (how & QUEUED && !d->queues)) {
		refuse(task);
		return;
	}
	if (rc) {
		ata_end(task, rc);
		return;
	}
	if (kind == ATA_WRITE && d->info->readonly) {
		refuse(task);
		return;
	}
	d->standby = 0;
	t->kind = kind;
	t->dma = how & DMA;
	t->queued = how & QUEUED;
	t->fua = kind == ATA_WRITE && (how & FUA || !d->cached || (how & QUEUED && task->device & 0x80));
	t->block = ATA_SECTOR * (how & MULTIPLE ? d->multiple : 1u);
	t->size = t->count * ATA_SECTOR;
}

static void read_sectors(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	move(d, task, t, how, ATA_READ);
}

static void write_sectors(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	move(d, task, t, how, ATA_WRITE);
}

/* Whether they can be read the host says when they are. */
static void verify(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	ata_end(task, find_sectors(d, task, how & WIDE, task->count, t));
}

static void flush(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	(void)d, (void)task, (void)how;
	t->kind = ATA_FLUSH;
}

/* RECALIBRATE, SEEK and the like: there is nothing to move. */
static void do_nothing(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	(void)d, (void)t, (void)how;
	ata_end(task, 0);
}

static void identify(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	(void)task, (void)how;
	ata_identify(d, t->data);
	t->kind = ATA_DATA_IN;
	t->size = t->block = ATA_SECTOR;
}

static void set_translation(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	unsigned track = task->count & 0xff;

	(void)t, (void)how;
	if (!track) {
		refuse(task);
		return;
	}
	d->heads = (task->device & 15) + 1;
	d->track = (uint8_t)track;
	ata_end(task, 0);
}

static void set_multiple(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	unsigned count = task->count & 0xff;

	(void)t, (void)how;
	if (count > ATA_MULTIPLE_MOST || count & (count - 1)) {
		refuse(task);
		return;
	}
	d->multiple = (uint8_t)count;
	ata_end(task, 0);
}

/* Modes: PIO without and with IORDY, multiword DMA, Ultra DMA. */
static bool set_mode(struct ata_drive *d, unsigned mode)
{
	static const uint8_t least[] = { 0x00, 0x08, 0x20, 0x40 }, most[] = { 0x01, 0x0c, 0x22, 0x45 };

	for (unsigned n = 0; n < ARRAY_SIZE(least); n++) {
		if (mode < least[n] || mode > most[n])
			continue;
		if (mode & 0x60 || !(d->mode & 0x60))
			d->mode = (uint8_t)mode;
		return true;
	}
	return false;
}

static bool set_feature(struct ata_drive *d, unsigned feature, unsigned count)
{
	if (feature == 0x03)
		return set_mode(d, count);
	if (ata_is_cd(d))
		return false;
	switch (feature) {
	case 0x02:
	case 0x82: d->cached = feature == 0x02; return true;
	case 0x55:
	case 0xaa: d->ahead = feature == 0xaa; return true;
	case 0x66: /* settings stay over a reset by software, or not: they stay */
	case 0xcc: return true;
	default: return false;
	}
}

static void set_features(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	unsigned feature = task->feature & 0xff;

	(void)how;
	if (!set_feature(d, feature, task->count & 0xff))
		refuse(task);
	else if (feature == 0x82)
		t->kind = ATA_FLUSH; /* nothing stays in a cache that is off */
	else
		ata_end(task, 0);
}

static void set_power(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	unsigned what = task->command & 15; /* E0h to E6h, or 94h to 99h */

	(void)how;
	if (task->command < 0xa0)
		what -= 4;
	if (what == 5) {
		task->count = d->standby ? 0x00 : 0xff;
		ata_end(task, 0);
		return;
	}
	d->standby = what != 1 && what != 3;
	if (ata_is_cd(d))
		ata_end(task, 0);
	else
		t->kind = ATA_FLUSH;
}

/* As 28 bits, or 48, can say it. */
static void native_maximum(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	uint64_t last = MIN(d->sectors, how & WIDE ? WIDE_SECTORS : NARROW_SECTORS) - 1;

	(void)t;
	if (!(how & WIDE))
		task->device = (uint8_t)((task->device & 0xf0) | last >> 24);
	task->lba = how & WIDE ? last : last & 0xffffff;
	ata_end(task, 0);
}

/* ATA-8, 7.53: it is on, it is off, all is well; nobody has measured anything. */
static void smart(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	unsigned feature = task->feature & 0xff;

	(void)how;
	if ((task->lba & 0xffff00) != SMART_SIGNATURE || (!d->smart && feature != 0xd8)) {
		refuse(task);
		return;
	}
	switch (feature) {
	case 0xd0:
	case 0xd1:
		t->kind = ATA_DATA_IN;
		t->size = t->block = ATA_SECTOR;
		memset(t->data, 0, ATA_SECTOR);
		t->data[0] = 16; /* the structure's revision; attributes: none */
		t->data[511] = (uint8_t)-16;
		return;
	case 0xd2: /* attributes are saved by itself */
	case 0xda: ata_end(task, 0); return;
	case 0xd8:
	case 0xd9:
		d->smart = feature == 0xd8;
		ata_end(task, 0);
		return;
	default: refuse(task);
	}
}

static void manage_data(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	(void)how;
	if (task->feature != 1 || !d->info->can_discard || !task->count || task->count > ATA_TRIM_BLOCKS) {
		refuse(task);
		return;
	}
	t->kind = ATA_TRIM;
	t->dma = true;
	t->size = task->count * ATA_SECTOR;
}

/* Log 10h: which queued command failed, once. Log 0: which logs there are. */
static void read_log(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	unsigned page = task->lba & 0xff;

	if ((page && (page != 0x10 || !d->queues)) || task->count != 1 || task->lba & 0xffffff00) {
		refuse(task);
		return;
	}
	memset(t->data, 0, ATA_SECTOR);
	if (page) {
		t->data[0] = 0x80; /* not a queued one */
		if (d->queue_failed)
			memcpy(t->data, d->queue_log, sizeof(d->queue_log));
		d->queue_failed = false;
		for (unsigned n = 0; n < ATA_SECTOR - 1; n++)
			t->data[ATA_SECTOR - 1] -= t->data[n];
	} else {
		t->data[0] = 1;
		t->data[2 * 0x10] = d->queues;
	}
	t->kind = ATA_DATA_IN;
	t->dma = how & DMA;
	t->size = t->block = ATA_SECTOR;
}

static void identify_packet(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	if (ata_is_cd(d))
		identify(d, task, t, how);
	else
		refuse(task);
}

static void packet(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t, unsigned how)
{
	(void)how;
	/* Overlap (bit 1) is for drives that have said so. */
	if (!ata_is_cd(d) || task->feature & 2) {
		refuse(task);
		return;
	}
	t->kind = ATA_COMMAND;
	t->dma = task->feature & 1;
}

static const struct command commands[] = {
	{ 0x06, 0x06, 0, manage_data },
	{ 0x10, 0x1f, 0, do_nothing }, /* RECALIBRATE */
	{ 0x20, 0x21, 0, read_sectors },
	{ 0x24, 0x24, WIDE, read_sectors },
	{ 0x25, 0x25, WIDE | DMA, read_sectors },
	{ 0x27, 0x27, WIDE, native_maximum },
	{ 0x29, 0x29, WIDE | MULTIPLE, read_sectors },
	{ 0x2f, 0x2f, WIDE, read_log },
	{ 0x30, 0x31, 0, write_sectors },
	{ 0x34, 0x34, WIDE, write_sectors },
	{ 0x35, 0x35, WIDE | DMA, write_sectors },
	{ 0x39, 0x39, WIDE | MULTIPLE, write_sectors },
	{ 0x3c, 0x3c, 0, write_sectors }, /* WRITE VERIFY */
	{ 0x3d, 0x3d, WIDE | DMA | FUA, write_sectors },
	{ 0x40, 0x41, 0, verify },
	{ 0x42, 0x42, WIDE, verify },
	{ 0x47, 0x47, WIDE | DMA, read_log },
	{ 0x60, 0x60, WIDE | DMA | QUEUED, read_sectors },
	{ 0x61, 0x61, WIDE | DMA | QUEUED, write_sectors },
	{ 0x70, 0x7f, 0, do_nothing }, /* SEEK */
	{ 0x91, 0x91, 0, set_translation },
	{ 0x94, 0x99, CD_TOO, set_power },
	{ 0xa0, 0xa0, CD_TOO, packet },
	{ 0xa1, 0xa1, CD_TOO, identify_packet },
	{ 0xb0, 0xb0, 0, smart },
	{ 0xc4, 0xc4, MULTIPLE, read_sectors },
	{ 0xc5, 0xc5, MULTIPLE, write_sectors },
	{ 0xc6, 0xc6, 0, set_multiple },
	{ 0xc8, 0xc9, DMA, read_sectors },
	{ 0xca, 0xcb, DMA, write_sectors },
	{ 0xce, 0xce, WIDE | MULTIPLE | FUA, write_sectors },
	{ 0xe0, 0xe3, CD_TOO, set_power },
	{ 0xe5, 0xe6, CD_TOO, set_power },
	{ 0xe7, 0xe7, 0, flush },
	{ 0xea, 0xea, WIDE, flush },
	{ 0xec, 0xec, 0, identify },
	{ 0xef, 0xef, CD_TOO, set_features },
	{ 0xf8, 0xf8, 0, native_maximum },
};

/* IDENTIFY DEVICE and READ SECTORS tell hosts what is there instead: ATA/ATAPI-7, 6.16.5. */
static void tell_kind(const struct ata_drive *d, struct ata_task *task)
{
	uint8_t device = task->device;

	ata_signature(d, task);
	task->device = device;
	refuse(task);
}

void ata_begin(struct ata_drive *d, struct ata_task *task, struct ata_transfer *t)
{
	const struct command *c = commands;

	t->kind = ATA_NOTHING;
	t->dma = t->fua = t->queued = false;
	t->lba = t->count = t->size = 0;
	t->block = ATA_SECTOR;
	while (c < commands + ARRAY_SIZE(commands) && (task->command < c->first || task->command > c->last))
		c++;
	if (ata_is_cd(d) && (task->command == 0xec || task->command == 0x20))
		tell_kind(d, task);
	else if (c == commands + ARRAY_SIZE(commands) || (ata_is_cd(d) && !(c->how & CD_TOO)))
		refuse(task);
	else
		c->run(d, task, t, c->how);
}

bool ata_trim_range(const struct ata_drive *d, const uint8_t range[8], uint64_t *offset, uint64_t *size, bool *outside)
{
	uint64_t lba = load_le64(range) & (WIDE_SECTORS - 1), count = load_le16(range + 6);

	*outside = !range_ok(lba, count, d->sectors);
	*offset = lba * ATA_SECTOR;
	*size = count * ATA_SECTOR;
	return count;
}

/* ---- as devices ---- */

struct block *ata_block(const struct ata_drive *d) { return ata_is_cd(d) ? scsi_block(d->cd) : d->block; }

static void ata_saving(const void *object)
{
	((struct ata_drive *)object)->saved_sectors = ((const struct ata_drive *)object)->sectors;
}

static int ata_loaded(void *object, uint16_t version, struct error *err)
{
	const struct ata_drive *d = object;

	(void)version;
	if (d->saved_sectors != d->sectors)
		return error_set(err, EINVAL, "%s: the disk had %" PRIu64 " sectors; '%s' has %" PRIu64, d->device.name,
				 d->saved_sectors, d->info ? d->info->file : "a CD drive", d->sectors);
	if (!d->heads || !d->track || d->multiple & (d->multiple - 1))
		return error_set(err, EINVAL, "%s: %u heads, %u sectors a track, blocks of %u sectors", d->device.name,
				 d->heads, d->track, d->multiple);
	return 0;
}

static void ata_destroy(struct device *device)
{
	struct ata_drive *d = (struct ata_drive *)device;

	if (d->gone)
		d->gone(d);
	scsi_bus_end(&d->bus);
	block_close(d->block);
	free(d);
}

STATE_DESC(ata_state_desc, "ata-drive", 1, struct ata_drive, ATA_STATE, .loaded = ata_loaded, .saving = ata_saving);

/* A CD drive's target answers for it. */
static bool ata_boots(const struct device *device, struct device_boot *boot)
{
	const struct ata_drive *d = (const struct ata_drive *)device;

	*boot = (struct device_boot){ .kind = DEVICE_BOOT_DISK, .order = d->boot };
	return !ata_is_cd(d) && d->boot_path && d->boot_path(d, boot);
}

static bool cd_boot_path(const struct scsi_bus *bus, unsigned target, struct device_boot *boot)
{
	const struct ata_drive *d = container_of(bus, const struct ata_drive, bus);

	(void)target;
	return d->boot_path && d->boot_path(d, boot);
}

static const struct device_ops ata_ops = { .state = &ata_state_desc, .boots = ata_boots, .destroy = ata_destroy };

static void cd_changed(struct scsi_bus *bus, unsigned target, bool present)
{
	struct ata_drive *d = container_of(bus, struct ata_drive, bus);

	d->cd = present ? bus->targets[target] : NULL;
}

static struct ata_drive *create(struct bus *bus, struct lock *lock, unsigned number, struct error *err)
{
	struct ata_drive *d = calloc(1, sizeof(*d));

	if (!d) {
		error_set_errno(err, ENOMEM, "a drive");
		return NULL;
	}
	d->number = number;
	d->bus.changed = cd_changed;
	d->bus.boot_path = cd_boot_path;
	device_init_sharing(&d->device, bus, "ata-drive", &ata_ops, lock);
	state_reset(&ata_state_desc, d);
	snprintf(d->serial, sizeof(d->serial), "DOPPEL%05u", number);
	return d;
}

struct ata_drive *ata_disk_create(struct bus *bus, struct lock *lock, unsigned number, const struct disk_options *o,
				  struct error *err)
{
	int on_error = disk_on_error("ata-drive", o, err);
	struct block *block = on_error < 0 ? NULL : disk_open(bus, "ata-drive", o, err);
	struct ata_drive *d = block ? create(bus, lock, number, err) : NULL;

	if (!d) {
		block_close(block);
		return NULL;
	}
	d->block = block;
	d->on_error = (enum disk_on_error)on_error;
	d->info = block_info(block);
	d->sectors = MIN(d->info->size / ATA_SECTOR, WIDE_SECTORS);
	d->boot = o->boot;
	if (o->serial)
		snprintf(d->serial, sizeof(d->serial), "%s", o->serial);
	if (d->sectors)
		return d;
	error_set(err, EINVAL, "ata-drive: '%s' has no sectors", d->info->file);
	device_destroy(&d->device);
	return NULL;
}

struct ata_drive *ata_cd_create(struct bus *bus, struct lock *lock, unsigned number, const struct disk_options *o,
				struct error *err)
{
	struct ata_drive *d = create(bus, lock, number, err);

	if (!d || !scsi_cd_create(bus, &d->bus, o, 0, err))
		return d;
	device_destroy(&d->device);
	return NULL;
}
