/*
 * SCSI: disks and CD drives as targets, each with logical unit 0 alone, and the commands that they understand (SAM-5, SPC-4, SBC-3, MMC-6). Knows no transport: that
 * is a controller's (virtio/scsi.c), which says where a command's data are and has them moved.
 *
 *	more = scsi_begin(command);
 *	while (more)
 *		block_do(scsi_block(target), &command->block), more = scsi_go_on(command);
 *
 * or with a worker's help: block_submit(), and scsi_go_on() in done().
 *
 * A target is a device with a lock of its own, which scsi_begin() and scsi_go_on() take: the caller has none, or a queue's.
 */
#ifndef DOPPEL_DEVICES_SCSI_H
#define DOPPEL_DEVICES_SCSI_H

#include "devices/disk.h"

#define SCSI_TARGETS_MOST 64u
#define SCSI_CDB_SIZE	  16u
#define SCSI_SENSE_SIZE	  32u
#define SCSI_CD_BLOCK	  2048u /* bytes */

/* SAM-5, 5.3.1 */
enum scsi_status { SCSI_GOOD = 0x00, SCSI_CHECK_CONDITION = 0x02 };

/* Memory that is one side of a transfer. */
struct scsi_data {
	struct iovec *iov; /* the command's to change, until it is done */
	int count;
	size_t size; /* what their lengths add up to */
};

struct scsi_command {
	/* The controller's, before scsi_begin(); zero what it does not know. */
	struct scsi_target *target;
	bool other_unit; /* not for logical unit 0 */
	uint8_t cdb[SCSI_CDB_SIZE];
	struct scsi_data out, in; /* what the target reads, and writes */
	/* What is to be done between scsi_begin(), scsi_go_on() and the next one. Its done() is the controller's. */
	struct block_request block;
	/* When neither says that there is more: */
	enum scsi_status status;
	bool overrun; /* it asks for more than there is room for: nothing was done */
	uint8_t sense[SCSI_SENSE_SIZE];
	unsigned sense_size;
	size_t moved; /* bytes of out, or of in */
	/* private */
	void (*next)(struct scsi_command *);
	uint8_t *buffer;    /* freed when it is done */
	struct iovec piece; /* of that */
	uint64_t at, count;
};

/* True: command->block is to be done. */
bool scsi_begin(struct scsi_command *);
/* When that was. True: the next one. */
bool scsi_go_on(struct scsi_command *);
struct block *scsi_block(const struct scsi_target *);
const struct device *scsi_device(const struct scsi_target *);
/* When command->block is done instead of scsi_go_on(): is the host's error waited for? Then the command is given up, and begun anew later: all that they do may be done twice. */
bool scsi_waits(const struct scsi_command *);
void scsi_give_up(struct scsi_command *);
/* A logical unit's or target's reset by the controller. Nothing of it is under way, or what is ends as if before. */
void scsi_target_reset(struct scsi_target *);

/* A controller's: which targets it has, and who is told that one came or goes, with the machine paused. */
struct scsi_bus {
	struct scsi_target *targets[SCSI_TARGETS_MOST];
	bool can_hold; /* commands can wait for the host: on-error */
	void (*changed)(struct scsi_bus *, unsigned target, bool present);
	/* Completes what a target is to a firmware with its path; false: firmware does not find it. */
	bool (*boot_path)(const struct scsi_bus *, unsigned target, struct device_boot *);
};
/* They have none from now on. */
void scsi_bus_end(struct scsi_bus *);

/* virtio/scsi.c: the machine's controller, which is made if there is none. NULL with a sentence. */
struct scsi_bus *virtio_scsi_bus(struct bus *, struct error *);

/* As target `number`, or, where that is 0, the first that is free, of the machine's controller. */
int scsi_disk_create(struct bus *, const struct disk_options *, unsigned number, struct error *);
/* The same, of any controller. o->file NULL: no disc is in it. */
int scsi_cd_create(struct bus *, struct scsi_bus *, const struct disk_options *, unsigned number, struct error *);
/* With the machine paused: this disc is in it from now on, or none (NULL). It is the drive's. The tray is closed, whatever the guest wants. */
void scsi_cd_change(struct scsi_target *, struct block *);

#endif
