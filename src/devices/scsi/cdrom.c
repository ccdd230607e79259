/*
 * A CD or DVD drive with a disc of one data track, which is an image (MMC-6). What is too large for a CD is a DVD.
 */
#include "devices/scsi/target.h"

#include <errno.h>

#define MMC_6	       0x04e0
#define CD_BLOCKS_MOST (80u * 60 * 75) /* 80 minutes */
#define LEAD_IN	       150u	       /* blocks in front of the first, in minutes and seconds */
#define DVD_FIRST      0x30000u	       /* physical number of a DVD's first sector */
#define LEAD_OUT       0xaau	       /* as a track's number */
#define PROFILE_CD     0x0008
#define PROFILE_DVD    0x0010

static bool is_dvd(const struct scsi_target *t) { return t->blocks > CD_BLOCKS_MOST; }

/* ---- reading ---- */

/* User data of sectors that are mode 1 (table 351, byte 9), and no sub-channel. */
static void read_cd(struct scsi_command *c)
{
	uint32_t count = load_be32(c->cdb + 5) & 0xffffff;
	unsigned type = c->cdb[1] >> 2 & 7;

	if (type && type != 2) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 1, 4);
		return;
	}
	if (c->cdb[9] && c->cdb[9] != 0x10) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 9, 7);
		return;
	}
	if (!c->cdb[9])
		return;
	/* As READ (12), which has the number of blocks elsewhere. */
	c->cdb[0] = 0xa8;
	store_be32(c->cdb + 6, count);
	scsi_read(c);
}

/* ---- what the disc is ---- */

static void put_address(uint8_t *to, uint64_t block, bool as_time)
{
	block = MIN(block, UINT32_MAX - LEAD_IN);
	if (!as_time) {
		store_be32(to, (uint32_t)block);
		return;
	}
	block += LEAD_IN;
	to[0] = 0;
	to[1] = (uint8_t)MIN(block / 75 / 60, 255);
	to[2] = (uint8_t)(block / 75 % 60);
	to[3] = (uint8_t)(block % 75);
}

static unsigned put_track(uint8_t *to, unsigned track, uint64_t block, bool as_time)
{
	to[1] = 0x14; /* a data track; its position */
	to[2] = (uint8_t)track;
	put_address(to + 4, block, as_time);
	return 8;
}

/* Formats 0, tracks, and 1, sessions. */
static void read_toc(struct scsi_command *c)
{
	unsigned format = c->cdb[2] & 0x0f, first = c->cdb[6], size = 4;
	bool as_time = c->cdb[1] & 2;
	uint8_t data[20] = { 0, 0, 1, 1 };

	if (!format)
		format = c->cdb[9] >> 6; /* where ATAPI drives of old had it */
	if (format > 1) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 2, 3);
		return;
	}
	if (!format && first > 1 && first != LEAD_OUT) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 6, -1);
		return;
	}
	if (format || first <= 1)
		size += put_track(data + size, 1, 0, as_time);
	if (!format)
		size += put_track(data + size, LEAD_OUT, c->target->blocks, as_time);
	store_be16(data, (uint16_t)(size - 2));
	scsi_reply(c, data, size, load_be16(c->cdb + 7));
}

static void read_disc_information(struct scsi_command *c)
{
	/* Finished, as its last session is; one session with one track; no more will be */
	uint8_t data[34] = { 0, sizeof(data) - 2, 0x0e, 1, 1, 1, 1, 0x20 };

	if (c->cdb[1] & 7) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 1, 2);
		return;
	}
	memset(data + 16, 0xff, 8);
	scsi_reply(c, data, sizeof(data), load_be16(c->cdb + 7));
}

/* By block, track, or session. */
static void read_track_information(struct scsi_command *c)
{
	unsigned by = c->cdb[1] & 3;
	uint32_t what = load_be32(c->cdb + 2);
	uint8_t data[36] = { 0, sizeof(data) - 2, 1, 1, 0, 0x04, 0x01 };

	if (by == 3 || (by ? what != 1 : what >= c->target->blocks)) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, by == 3 ? 1 : 2, -1);
		return;
	}
	store_be32(data + 24, (uint32_t)MIN(c->target->blocks, UINT32_MAX));
	scsi_reply(c, data, sizeof(data), load_be16(c->cdb + 7));
}

/* Formats 0, physical, and 1, copyright: there is none. */
static void read_dvd_structure(struct scsi_command *c)
{
	unsigned format = c->cdb[7], size = format ? 8 : 4 + SCSI_CD_BLOCK;
	uint8_t data[4 + SCSI_CD_BLOCK] = { 0 };

	if (!is_dvd(c->target)) {
		scsi_fail(c, SENSE_OTHER_MEDIUM);
		return;
	}
	if (format > 1 || c->cdb[6]) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, format > 1 ? 7 : 6, -1);
		return;
	}
	store_be16(data, (uint16_t)(size - 2));
	if (!format) {
		data[4] = 0x01; /* DVD-ROM, version 1 */
		data[5] = 0x0f; /* 120 mm, at any rate */
		data[6] = 0x01; /* one layer, embossed */
		store_be32(data + 8, DVD_FIRST);
		store_be32(data + 12, (uint32_t)MIN(DVD_FIRST + c->target->blocks - 1, UINT32_MAX));
	}
	scsi_reply(c, data, size, load_be16(c->cdb + 8));
}

/* ---- what the drive can do, and does ---- */

struct feature {
	uint16_t code;
	uint8_t version; /* << 2 | persistent << 1 | current */
	uint8_t size;
	uint8_t data[8];
};

/* Profiles are first; which is current the disc says. */
static const struct feature features[] = {
	{ 0x0000, 0x03, 8, { 0x00, PROFILE_DVD, 0, 0, 0x00, PROFILE_CD, 0, 0 } },
	{ 0x0001, 0x0b, 8, { 0, 0, 0, 1, 0x01 } },    /* core: a SCSI interface, DBE */
	{ 0x0003, 0x03, 4, { 0x29 } },		      /* removable: a tray that can be locked and ejects */
	{ 0x0010, 0x00, 8, { 0, 0, 8, 0, 0, 1, 0 } }, /* random readable: blocks of 2,048 bytes */
	{ 0x001e, 0x08, 4, { 0 } },		      /* reads CDs */
	{ 0x001f, 0x00, 0, { 0 } },		      /* reads DVDs */
};

static unsigned profile(const struct scsi_target *t)
{
	if (t->open || !t->block)
		return 0;
	return is_dvd(t) ? PROFILE_DVD : PROFILE_CD;
}

static bool is_current(const struct scsi_target *t, const struct feature *f)
{
	switch (f->code) {
	case 0x0010: return profile(t);
	case 0x001e: return profile(t) == PROFILE_CD;
	case 0x001f: return profile(t) == PROFILE_DVD;
	default: return true;
	}
}

static unsigned put_feature(const struct scsi_target *t, const struct feature *f, uint8_t *to)
{
	store_be16(to, f->code);
	to[2] = f->version | is_current(t, f);
	to[3] = f->size;
	memcpy(to + 4, f->data, f->size);
	if (!f->code) {
		to[6] = profile(t) == PROFILE_DVD;
		to[10] = profile(t) == PROFILE_CD;
	}
	return 4u + f->size;
}

static void get_configuration(struct scsi_command *c)
{
	unsigned which = c->cdb[1] & 3, from = load_be16(c->cdb + 2), size = 8;
	uint8_t data[8 + ARRAY_SIZE(features) * 12] = { 0 };

	if (which == 3) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 1, 1);
		return;
	}
	for (unsigned n = 0; n < ARRAY_SIZE(features); n++) {
		const struct feature *f = &features[n];

		if (which == 2 ? f->code == from : f->code >= from && (!which || is_current(c->target, f)))
			size += put_feature(c->target, f, data + size);
	}
	store_be32(data, size - 4);
	store_be16(data + 6, (uint16_t)profile(c->target));
	scsi_reply(c, data, size, load_be16(c->cdb + 7));
}

/* Polled; of the media alone. */
static void get_event_status(struct scsi_command *c)
{
	struct scsi_target *t = c->target;
	bool media = c->cdb[4] & 0x10;
	uint8_t data[8] = { 0, 0, media ? 0x04 : 0x80, 0x10, t->news, t->open ? 0x01 : t->block ? 0x02 : 0x00 };

	if (!(c->cdb[1] & 1)) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 1, 0);
		return;
	}
	data[1] = media ? 6 : 2;
	scsi_reply(c, data, media ? 8 : 4, load_be16(c->cdb + 7));
	if (media && c->moved > 4)
		t->news = NEWS_NONE;
}

static void mechanism_status(struct scsi_command *c)
{
	uint8_t data[8] = { 0, c->target->open ? 0x10 : 0, 0, 0, 0, 1 };

	scsi_reply(c, data, sizeof(data), load_be16(c->cdb + 8));
}

/* As fast as it goes, whatever is asked for. */
static void set_speed(struct scsi_command *c) { (void)c; }

static const struct scsi_opcode opcodes[] = {
	{ 0x28, NO_ACTION, 10, 0, { 0xff, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff }, scsi_read },
	{ 0xa8, NO_ACTION, 12, 0, { 0xff, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80 }, scsi_read },
	{ 0xbe, NO_ACTION, 12, 0, { 0xff, 0x1c, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf8 }, read_cd },
	{ 0x25, NO_ACTION, 10, 0, { 0xff }, scsi_read_capacity },
	{ 0x2b, NO_ACTION, 10, 0, { 0xff, 0, 0xff, 0xff, 0xff, 0xff }, scsi_seek },
	{ 0x2f, NO_ACTION, 10, 0, { 0xff, 0x16, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff }, scsi_verify },
	{ 0x43, NO_ACTION, 10, 0, { 0xff, 0x02, 0x0f, 0, 0, 0, 0xff, 0xff, 0xff, 0xc0 }, read_toc },
	{ 0x46, NO_ACTION, 10, SCSI_ANY_TIME, { 0xff, 0x03, 0xff, 0xff, 0, 0, 0, 0xff, 0xff }, get_configuration },
	{ 0x4a, NO_ACTION, 10, SCSI_ANY_TIME, { 0xff, 0x01, 0, 0, 0xff, 0, 0, 0xff, 0xff }, get_event_status },
	{ 0x51, NO_ACTION, 10, 0, { 0xff, 0x07, 0, 0, 0, 0, 0, 0xff, 0xff }, read_disc_information },
	{ 0x52, NO_ACTION, 10, 0, { 0xff, 0x03, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff }, read_track_information },
	{ 0xad,
	  NO_ACTION,
	  12,
	  0,
	  { 0xff, 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc0 },
	  read_dvd_structure },
	{ 0xbb, NO_ACTION, 12, SCSI_UNREADY, { 0xff, 0x03, 0xff, 0xff, 0xff, 0xff }, set_speed },
	{ 0xbd, NO_ACTION, 12, SCSI_UNREADY, { 0xff, [8] = 0xff, 0xff }, mechanism_status },
	SCSI_COMMON_OPCODES,
};

/* ---- mode pages ---- */

static void get_recovery(const struct scsi_target *t, uint8_t *page) { (void)t, (void)page; }

static void get_capabilities(const struct scsi_target *t, uint8_t *page)
{
	page[0] = 0x3b;				 /* reads CD-R, CD-RW, DVD-ROM, DVD-R, DVD-RAM */
	page[4] = 0x29 | (t->prevented ? 2 : 0); /* a tray that can be locked, and is; ejects */
}

static const struct scsi_mode_page pages[] = {
	{ 0x01, 10, get_recovery, NULL, NULL },
	{ 0x2a, 20, get_capabilities, NULL, NULL },
};

/* ---- life ---- */

static unsigned vital(const struct scsi_target *t, unsigned page, uint8_t *content)
{
	(void)t, (void)page, (void)content;
	return 0;
}

STATE_DESC(cd_state_desc, "scsi-cd", 1, struct scsi_target, SCSI_STATE, .loaded = scsi_target_loaded,
	   .saving = scsi_target_saving);

static const struct device_ops cd_ops = { .state = &cd_state_desc,
					  .boots = scsi_target_boots,
					  .destroy = scsi_target_destroy };

static const struct scsi_kind cd_kind = {
	.name = "scsi-cd",
	.product = "CD-ROM",
	.opcodes = opcodes,
	.opcode_count = ARRAY_SIZE(opcodes),
	.pages = pages,
	.page_count = ARRAY_SIZE(pages),
	.type = 0x05,
	.removable = true,
	.standard = MMC_6,
	.device = &cd_ops,
	.vital = vital,
	.vital_pages = (const uint8_t[]){ 0 },
};

/* clang-format off */
#define CD_OPTIONS(_, T)                                                                                               \
	_(T, TEXT, file, 0, 0, NULL, "the disc's image, or a block device; without it the drive is empty")             \
	_(T, TEXT, bus, 0, 0, "auto", "scsi, ide or sata; auto: ide with a firmware, else scsi")                             \
	_(T, TEXT, format, 0, 0, "auto", "raw, qcow2, or auto: what its first bytes say")                              \
	_(T, NUMBER, target, 0, SCSI_TARGETS_MOST - 1, NULL, "its number; 0: the first that is free")                  \
	_(T, NUMBER, boot, 1, DEVICE_BOOT_ORDER_MOST, NULL, "its turn when a firmware looks for a system")
/* clang-format on */

struct cd_options {
	DEVICE_OPTION_FIELDS(CD_OPTIONS)
};

int scsi_cd_create(struct bus *bus, struct scsi_bus *scsi, const struct disk_options *o, unsigned number,
		   struct error *err)
{
	struct block *block = o->file ? disk_open(bus, "scsi-cd", o, err) : NULL;

	if (o->file && !block)
		return err ? -err->code : -EINVAL;
	if (scsi_target_create(bus, scsi, &cd_kind, block, NULL, SCSI_CD_BLOCK, number, o->boot, err))
		return 0;
	return err ? -err->code : -EINVAL;
}

void scsi_cd_change(struct scsi_target *t, struct block *block)
{
	struct block *old = t->block;

	lock_take(t->device.lock);
	scsi_target_set_medium(t, block);
	t->open = 0;
	t->news = block ? NEWS_MEDIUM : NEWS_REMOVED;
	if (block)
		t->attention |= ATTENTION_MEDIUM;
	lock_drop(t->device.lock);
	block_close(old);
}

static int cd_create(struct bus *bus, const void *options, struct error *err)
{
	const struct cd_options *o = options;
	struct disk_options disk = DISC_OPTIONS_OF(o);
	const char *name = strcmp(o->bus, "auto") ? o->bus : bus->firmware ? "ide" : "scsi";
	struct scsi_bus *scsi;

	if (!strcmp(name, "ide"))
		return ide_cd_create(bus, &disk, err);
	if (!strcmp(name, "sata"))
		return sata_cd_create(bus, &disk, err);
	if (strcmp(name, "scsi") != 0)
		return error_set(err, EINVAL, "scsi-cd: option 'bus' is '%.64s'; expected scsi, ide, sata or auto",
				 o->bus);
	scsi = virtio_scsi_bus(bus, err);
	return scsi ? scsi_cd_create(bus, scsi, &disk, (unsigned)o->target, err) : err ? -err->code : -EINVAL;
}

const struct device_type scsi_cd_type = {
	.name = "scsi-cd",
	.help = "a CD or DVD drive",
	.most = SCSI_TARGETS_MOST,
	.starts = true,
	DEVICE_OPTIONS(CD_OPTIONS, struct cd_options),
	.short_form = { .name = "--cdrom",
			.option = "file",
			.options_follow = true,
			.argument = "FILE[,...]",
			.help = "a CD or DVD in a drive; again for more" },
	.create = cd_create,
};
