/*
 * What the files of scsi/ share: a target, its table of commands, how a command answers.
 */
#ifndef DOPPEL_DEVICES_SCSI_TARGET_H
#define DOPPEL_DEVICES_SCSI_TARGET_H

#include "devices/scsi/scsi.h"

/* Sense key, additional sense code and its qualifier (SPC-4, 4.5.6 and annex F), as 0xKKAAQQ */
enum scsi_sense_code {
	SENSE_NONE = 0x000000,
	SENSE_STOPPED = 0x020402,	      /* initializing command required */
	SENSE_NO_MEDIUM = 0x023a01,	      /* medium not present, tray closed */
	SENSE_TRAY_OPEN = 0x023a02,	      /* medium not present, tray open */
	SENSE_WRITE_ERROR = 0x030c00,	      /* */
	SENSE_READ_ERROR = 0x031100,	      /* unrecovered */
	SENSE_INTERNAL_FAILURE = 0x044400,    /* of the target */
	SENSE_LIST_LENGTH = 0x051a00,	      /* parameter list length error */
	SENSE_INVALID_OPCODE = 0x052000,      /* */
	SENSE_OUT_OF_RANGE = 0x052100,	      /* logical block address */
	SENSE_INVALID_FIELD = 0x052400,	      /* in CDB */
	SENSE_INVALID_UNIT = 0x052500,	      /* logical unit not supported */
	SENSE_INVALID_PARAMETER = 0x052600,   /* invalid field in parameter list */
	SENSE_OTHER_MEDIUM = 0x053000,	      /* incompatible medium installed */
	SENSE_NO_SAVED_PARAMETERS = 0x053900, /* saving parameters not supported */
	SENSE_REMOVAL_PREVENTED = 0x055302,   /* medium removal prevented */
	SENSE_MEDIUM_CHANGED = 0x062800,      /* not ready to ready change */
	SENSE_POWER_ON = 0x062900,	      /* power on, reset, or bus device reset occurred */
	SENSE_TARGET_RESET = 0x062903,	      /* bus device reset function occurred */
	SENSE_WRITE_PROTECTED = 0x072700,     /* */
	SENSE_NO_SPACE = 0x072707,	      /* space allocation failed write protect */
	SENSE_MISCOMPARE = 0x0e1d00,	      /* during verify operation */
};

/* Attention that a unit wants, as bits: those on the left are told first. */
#define ATTENTION_POWER_ON 1u
#define ATTENTION_RESET	   2u
#define ATTENTION_MEDIUM   4u

/* Both types'; a disk's tray is closed, a CD has no cache. */
#define SCSI_STATE(_, T)                                                                                               \
	_(T, uint8_t, saved_number, 1, 1, 0, 0xff) /* number and blocks of what was saved with the machine */          \
	_(T, uint64_t, saved_blocks, 1, 2, 0, UINT64_MAX)                                                              \
	_(T, uint8_t, attention, 1, 3, ATTENTION_POWER_ON, 7)                                                          \
	_(T, uint8_t, cached, 1, 4, 1, 1)      /* WCE: writes are done before they are durable */                      \
	_(T, uint8_t, descriptors, 1, 5, 0, 1) /* D_SENSE: sense data have that format */                              \
	_(T, uint8_t, stopped, 1, 6, 0, 1)                                                                             \
	_(T, uint8_t, prevented, 1, 7, 0, 1) /* the medium's removal */                                                \
	_(T, uint8_t, open, 1, 8, 0, 1)	     /* the tray */                                                            \
	_(T, uint8_t, news, 1, 9, 0, 3)	     /* of the medium, that nobody has asked for yet: enum scsi_news */

/* Media events, MMC-6, 6.6.2.6 */
enum scsi_news { NEWS_NONE = 0, NEWS_EJECT = 1, NEWS_MEDIUM = 2, NEWS_REMOVED = 3 };

struct scsi_kind;
struct scsi_target {
	struct device device;
	STATE_FIELDS(SCSI_STATE)
	const struct scsi_kind *kind;
	struct scsi_bus *bus;	       /* NULL: the controller is gone */
	struct block *block;	       /* NULL: there is no medium */
	const struct block_info *info; /* of it; of none */
	const char *serial;	       /* "" */
	uint64_t blocks;
	uint32_t block_size;
	uint8_t number; /* on its bus */
	uint64_t boot;	/* its turn when a firmware looks for a system; 0: its kind's */
	enum disk_on_error on_error;
};

#define NO_ACTION 0xffu /* the operation code alone says what it is */

/* When a command is not served. */
#define SCSI_ANY_TIME 1u /* also while the unit wants attention, or is not ready */
#define SCSI_UNREADY  2u /* also while it is stopped or open */
#define SCSI_DISCARDS 4u /* only where discards do something */
#define SCSI_ANY_UNIT 8u /* of logical units that there are not, too */

struct scsi_opcode {
	uint8_t code, action; /* service action, or NO_ACTION */
	uint8_t size;	      /* of the CDB */
	uint8_t when;
	uint8_t usage[SCSI_CDB_SIZE]; /* which bits mean anything (SPC-4, 6.35.3); others must be 0 */
	void (*run)(struct scsi_command *);
};

/* A page of mode parameters, without its first two bytes. */
struct scsi_mode_page {
	uint8_t code, size;
	void (*get)(const struct scsi_target *, uint8_t *page);
	/* Bits that MODE SELECT may change; NULL: none. */
	const uint8_t *changeable;
	void (*set)(struct scsi_target *, const uint8_t *page);
};

struct scsi_kind {
	const char *name, *product; /* "scsi-disk"; as INQUIRY says */
	const struct scsi_opcode *opcodes;
	const struct scsi_mode_page *pages;
	unsigned opcode_count, page_count;
	uint8_t type; /* peripheral device type */
	bool removable;
	uint16_t standard;		 /* version descriptor */
	const struct device_ops *device; /* with a state of that name */
	/* Vital product data beyond those of all: returns the size of the page's content, or 0: there is no such page. */
	unsigned (*vital)(const struct scsi_target *, unsigned page, uint8_t *content);
	const uint8_t *vital_pages; /* in order, ended by 0 */
};

/* ---- target.c ---- */

/* Opens nothing: takes the block, also when it fails. Block NULL: there is no medium. NULL with a sentence. */
struct scsi_target *scsi_target_create(struct bus *, struct scsi_bus *, const struct scsi_kind *, struct block *,
				       const char *serial, uint32_t block_size, unsigned number, uint64_t boot,
				       struct error *);
/* Another medium, or none, which the target has from now on. */
void scsi_target_set_medium(struct scsi_target *, struct block *);
/* Of struct device_ops and of the state's description. */
void scsi_target_destroy(struct device *);
void scsi_target_saving(const void *);
bool scsi_target_boots(const struct device *, struct device_boot *);
int scsi_target_loaded(void *, uint16_t version, struct error *);

/* ---- answers (sense.c); the target's lock is held ---- */

/* Parameter data, of which the initiator wants `allocated` bytes at most. */
void scsi_reply(struct scsi_command *, const void *, size_t size, size_t allocated);
/* Exactly `size` bytes of parameter data; false: there are fewer, and the command has failed. */
bool scsi_fetch(struct scsi_command *, size_t offset, void *, size_t size);
void scsi_fail(struct scsi_command *, enum scsi_sense_code);
/* The same, of a byte, and a bit of it (7 is the left one; negative: all of it), of the CDB or the parameter list. */
void scsi_fail_field(struct scsi_command *, enum scsi_sense_code, unsigned byte, int bit);
void scsi_fail_with(struct scsi_command *, enum scsi_sense_code, uint64_t information);
/* By what the block layer said: -errno. */
void scsi_fail_block(struct scsi_command *, int result);
/* Sense data of that code as parameter data: returns the size. */
unsigned scsi_sense(uint8_t sense[SCSI_SENSE_SIZE], enum scsi_sense_code, bool descriptors);

/* ---- common.c: commands of all targets; the target's lock is held ---- */

/* clang-format off */
#define SCSI_COMMON_OPCODES                                                                                            \
	{ 0x00, NO_ACTION, 6, 0, { 0xff }, scsi_test_unit_ready },                                                     \
	{ 0x03, NO_ACTION, 6, SCSI_ANY_TIME | SCSI_ANY_UNIT, { 0xff, 0x01, 0, 0, 0xff }, scsi_request_sense },                         \
	{ 0x12, NO_ACTION, 6, SCSI_ANY_TIME | SCSI_ANY_UNIT, { 0xff, 0x01, 0xff, 0xff, 0xff }, scsi_inquiry },                         \
	{ 0x15, NO_ACTION, 6, SCSI_UNREADY, { 0xff, 0x11, 0, 0, 0xff }, scsi_mode_select },                            \
	{ 0x1a, NO_ACTION, 6, SCSI_UNREADY, { 0xff, 0x08, 0xff, 0xff, 0xff }, scsi_mode_sense },                       \
	{ 0x1b, NO_ACTION, 6, SCSI_UNREADY, { 0xff, 0x01, 0, 0, 0xf7 }, scsi_start_stop },                             \
	{ 0x1e, NO_ACTION, 6, SCSI_UNREADY, { 0xff, 0, 0, 0, 0x03 }, scsi_prevent_removal },                           \
	{ 0x55, NO_ACTION, 10, SCSI_UNREADY, { 0xff, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff }, scsi_mode_select },            \
	{ 0x5a, NO_ACTION, 10, SCSI_UNREADY, { 0xff, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff }, scsi_mode_sense },       \
	{ 0xa0, NO_ACTION, 12, SCSI_ANY_TIME | SCSI_ANY_UNIT, { 0xff, 0, 0xff, [6] = 0xff, 0xff, 0xff, 0xff },               \
	  scsi_report_luns },                                                                                          \
	{ 0xa3, 0x0c, 12, SCSI_UNREADY, { 0xff, 0x1f, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },                \
	  scsi_report_opcodes }
/* clang-format on */
void scsi_test_unit_ready(struct scsi_command *);
void scsi_request_sense(struct scsi_command *);
void scsi_inquiry(struct scsi_command *);
void scsi_mode_select(struct scsi_command *);
void scsi_mode_sense(struct scsi_command *);
void scsi_start_stop(struct scsi_command *);
void scsi_prevent_removal(struct scsi_command *);
void scsi_report_luns(struct scsi_command *);
void scsi_report_opcodes(struct scsi_command *);

/* The attention that is wanted most, which is wanted no more; SENSE_NONE: none is. */
enum scsi_sense_code scsi_take_attention(struct scsi_target *);
/* Why it is not ready; SENSE_NONE: it is. */
enum scsi_sense_code scsi_not_ready(const struct scsi_target *);
/* May discards and zeroes give room back? */
static inline bool scsi_discards(const struct scsi_target *t) { return t->info->can_discard; }

/* ---- transfer.c: commands that move blocks; the target's lock is held ---- */

void scsi_read(struct scsi_command *);
void scsi_write(struct scsi_command *);
void scsi_verify(struct scsi_command *);
void scsi_write_same(struct scsi_command *);
void scsi_unmap(struct scsi_command *);
void scsi_synchronize_cache(struct scsi_command *);
void scsi_read_capacity(struct scsi_command *);
void scsi_seek(struct scsi_command *);

#define SCSI_UNMAP_BLOCKS_MOST	    (1u << 22) /* of one descriptor, and of WRITE SAME */
#define SCSI_UNMAP_DESCRIPTORS_MOST 256u

#endif
