/*
 * A disk: a direct access block device (SBC-3).
 */
#include "devices/scsi/target.h"

#include <errno.h>

#define SBC_3 0x04c0

/* ---- commands ---- */

/* clang-format off */
/* Where each group has the blocks, and how many; byte 1 has what else there is to say. */
#define RANGE_6 { 0xff, 0x1f, 0xff, 0xff, 0xff }
#define RANGE_10(byte1) { 0xff, byte1, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff }
#define RANGE_12(byte1) { 0xff, byte1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }
#define RANGE_16(byte1) { 0xff, byte1, [2 ... 13] = 0xff }
#define DPO_FUA 0x18
#define CHECKS	0x16 /* DPO, BYTCHK */
/* clang-format on */

static const struct scsi_opcode opcodes[] = {
	{ 0x28, NO_ACTION, 10, 0, RANGE_10(DPO_FUA), scsi_read },
	{ 0x2a, NO_ACTION, 10, 0, RANGE_10(DPO_FUA), scsi_write },
	{ 0x88, NO_ACTION, 16, 0, RANGE_16(DPO_FUA), scsi_read },
	{ 0x8a, NO_ACTION, 16, 0, RANGE_16(DPO_FUA), scsi_write },
	{ 0x08, NO_ACTION, 6, 0, RANGE_6, scsi_read },
	{ 0x0a, NO_ACTION, 6, 0, RANGE_6, scsi_write },
	{ 0xa8, NO_ACTION, 12, 0, RANGE_12(DPO_FUA), scsi_read },
	{ 0xaa, NO_ACTION, 12, 0, RANGE_12(DPO_FUA), scsi_write },
	{ 0x2f, NO_ACTION, 10, 0, RANGE_10(CHECKS), scsi_verify },
	{ 0xaf, NO_ACTION, 12, 0, RANGE_12(CHECKS), scsi_verify },
	{ 0x8f, NO_ACTION, 16, 0, RANGE_16(CHECKS), scsi_verify },
	{ 0x35, NO_ACTION, 10, 0, RANGE_10(0x02), scsi_synchronize_cache },
	{ 0x91, NO_ACTION, 16, 0, RANGE_16(0x02), scsi_synchronize_cache },
	{ 0x41, NO_ACTION, 10, 0, RANGE_10(0x08), scsi_write_same },
	{ 0x93, NO_ACTION, 16, 0, RANGE_16(0x09), scsi_write_same },
	{ 0x42, NO_ACTION, 10, SCSI_DISCARDS, { 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff }, scsi_unmap },
	{ 0x25, NO_ACTION, 10, 0, { 0xff }, scsi_read_capacity },
	{ 0x9e, 0x10, 16, 0, { 0xff, 0x1f, [10] = 0xff, 0xff, 0xff, 0xff }, scsi_read_capacity },
	SCSI_COMMON_OPCODES,
};

/* ---- mode pages ---- */

static void get_recovery(const struct scsi_target *t, uint8_t *page)
{
	(void)t;
	page[0] = 0x80; /* AWRE: what cannot be written is put elsewhere */
}

static const uint8_t caching_changeable[18] = { 0x04 };

static void get_caching(const struct scsi_target *t, uint8_t *page) { page[0] = t->cached ? 0x04 : 0; }

static void set_caching(struct scsi_target *t, const uint8_t *page) { t->cached = page[0] & 0x04 ? 1 : 0; }

static const uint8_t control_changeable[10] = { 0x04 };

static void get_control(const struct scsi_target *t, uint8_t *page)
{
	page[0] = t->descriptors ? 0x04 : 0;
	page[1] = 0x10;			  /* commands may be done in any order */
	store_be16(page + 6, UINT16_MAX); /* it may be busy for any time */
}

static void set_control(struct scsi_target *t, const uint8_t *page) { t->descriptors = page[0] & 0x04 ? 1 : 0; }

static const struct scsi_mode_page pages[] = {
	{ 0x01, 10, get_recovery, NULL, NULL },
	{ 0x08, 18, get_caching, caching_changeable, set_caching },
	{ 0x0a, 10, get_control, control_changeable, set_control },
};

/* ---- vital product data ---- */

#define BLOCK_LIMITS	0xb0
#define CHARACTERISTICS 0xb1
#define PROVISIONING	0xb2

static unsigned block_limits(const struct scsi_target *t, uint8_t *content)
{
	content[0] = 1; /* WSNZ: WRITE SAME of no blocks is refused */
	store_be16(content + 2, (uint16_t)MAX(t->info->physical_size / t->block_size, 1u));
	if (scsi_discards(t)) {
		store_be32(content + 16, SCSI_UNMAP_BLOCKS_MOST);
		store_be32(content + 20, SCSI_UNMAP_DESCRIPTORS_MOST);
		store_be32(content + 24, MAX(t->info->discard_size / t->block_size, 1u));
	}
	store_be64(content + 32, SCSI_UNMAP_BLOCKS_MOST);
	return 0x3c;
}

static unsigned vital(const struct scsi_target *t, unsigned page, uint8_t *content)
{
	switch (page) {
	case BLOCK_LIMITS: return block_limits(t, content);
	case CHARACTERISTICS: store_be16(content, 1); return 0x3c; /* nothing turns */
	case PROVISIONING:
		if (scsi_discards(t)) {
			content[1] = 0xe0; /* UNMAP, and WRITE SAME (16) and (10) with UNMAP */
			content[2] = 2;	   /* thin */
		}
		return 4;
	default: return 0;
	}
}

/* ---- life ---- */

STATE_DESC(disk_state_desc, "scsi-disk", 1, struct scsi_target, SCSI_STATE, .loaded = scsi_target_loaded,
	   .saving = scsi_target_saving);

static const struct device_ops disk_ops = { .state = &disk_state_desc,
					    .boots = scsi_target_boots,
					    .destroy = scsi_target_destroy };

static const struct scsi_kind disk_kind = {
	.name = "scsi-disk",
	.product = "DISK",
	.opcodes = opcodes,
	.opcode_count = ARRAY_SIZE(opcodes),
	.pages = pages,
	.page_count = ARRAY_SIZE(pages),
	.type = 0x00,
	.standard = SBC_3,
	.device = &disk_ops,
	.vital = vital,
	.vital_pages = (const uint8_t[]){ BLOCK_LIMITS, CHARACTERISTICS, PROVISIONING, 0 },
};

/* As enum disk_on_error, or -EINVAL. */
static int on_error_of(const struct scsi_bus *scsi, const struct disk_options *o, struct error *err)
{
	int on_error = disk_on_error("scsi-disk", o, err);

	if (on_error <= DISK_REPORT || scsi->can_hold)
		return on_error;
	return error_set(err, EINVAL,
			 "scsi-disk: option 'on-error' is '%s'; expected report on a controller with packed=on",
			 o->on_error);
}

int scsi_disk_create(struct bus *bus, const struct disk_options *o, unsigned number, struct error *err)
{
	struct block *block = disk_open(bus, "scsi-disk", o, err);
	struct scsi_bus *scsi = block ? virtio_scsi_bus(bus, err) : NULL;
	int on_error = scsi ? on_error_of(scsi, o, err) : -EINVAL;
	struct scsi_target *t;

	if (on_error < 0) {
		block_close(block);
		return err ? -err->code : -EINVAL;
	}
	t = scsi_target_create(bus, scsi, &disk_kind, block, o->serial, block_info(block)->logical_size, number,
			       o->boot, err);
	if (!t)
		return err ? -err->code : -EINVAL;
	t->on_error = (enum disk_on_error)on_error;
	return 0;
}

/* clang-format off */
#define SCSI_DISK_OPTIONS(_, T)                                                                                        \
	WAITING_DISK_OPTIONS(_, T)                                                                                             \
	_(T, NUMBER, target, 0, SCSI_TARGETS_MOST - 1, NULL, "its number; 0: the first that is free")
/* clang-format on */

struct scsi_disk_options {
	DEVICE_OPTION_FIELDS(SCSI_DISK_OPTIONS)
};

static int disk_create(struct bus *bus, const void *options, struct error *err)
{
	const struct scsi_disk_options *o = options;

	return scsi_disk_create(bus, &WAITING_DISK_OPTIONS_OF(o), (unsigned)o->target, err);
}

const struct device_type scsi_disk_type = {
	.name = "scsi-disk",
	.help = "a disk on the SCSI controller",
	.most = SCSI_TARGETS_MOST,
	.starts = true,
	DEVICE_OPTIONS(SCSI_DISK_OPTIONS, struct scsi_disk_options),
	.create = disk_create,
};
