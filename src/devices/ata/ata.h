/*
 * ATA: disks, and CD drives that take SCSI commands in packets, as drives on a cable: what each command means (ATA/ATAPI-7, ACS-3), whatever controller the cable belongs
 * to. A controller (channel.h, ahci.c) has the task file and moves the data:
 *
 *	ata_begin(drive, &task, &transfer);	says what is to be moved, and where
 *	ata_end(drive, &task, transfer.kind, result);
 *
 * Everything here is called with the controller's lock, which is the drives' as well.
 */
#ifndef DOPPEL_DEVICES_ATA_H
#define DOPPEL_DEVICES_ATA_H

#include "devices/disk.h"
#include "devices/scsi/scsi.h"

#define ATA_SECTOR	  512u
#define ATA_MULTIPLE_MOST 16u /* sectors of a block */
#define ATA_PACKET_SIZE	  12u
#define ATA_TRIM_BLOCKS	  8u	 /* of ranges, of one DATA SET MANAGEMENT */
#define ATA_WIDE_MOST	  65536u /* sectors of one command */

/* Status and error registers */
enum { ATA_BSY = 0x80, ATA_DRDY = 0x40, ATA_DF = 0x20, ATA_DSC = 0x10, ATA_DRQ = 0x08, ATA_ERR = 0x01 };
enum { ATA_UNC = 0x40, ATA_IDNF = 0x10, ATA_ABRT = 0x04 };
/* Interrupt reason: the count register of a packet command */
enum { ATA_REASON_COMMAND = 1, ATA_REASON_IN = 2 };
#define ATA_DEVICE_LBA 0x40u
#define ATA_DEVICE_1   0x10u

/* Commands that a controller knows itself */
enum {
	ATA_DEVICE_RESET = 0x08,
	ATA_DIAGNOSTIC = 0x90,
	ATA_PACKET = 0xa0,
};

/* A task file: what the host has written, and what it reads when the command is done. Of narrow commands the low halves count. */
struct ata_task {
	uint8_t command, device;
	uint16_t feature, count;
	uint64_t lba; /* 48 bits, as the registers have them */
	uint8_t status, error;
};

enum ata_kind {
	ATA_NOTHING, /* task.status and .error say how it ended */
	ATA_DATA_IN, /* `size` bytes that are in `data` */
	ATA_READ,    /* `count` sectors from `lba` on */
	ATA_WRITE,
	ATA_FLUSH,
	ATA_TRIM,    /* `size` bytes from the host: ranges */
	ATA_COMMAND, /* a packet */
	ATA_KINDS,
};

struct ata_transfer {
	enum ata_kind kind;
	bool dma, fua;
	bool queued; /* NCQ */
	uint64_t lba;
	uint32_t count;
	uint32_t size;	/* a multiple of ATA_SECTOR */
	uint32_t block; /* bytes of one DRQ block, with PIO */
	uint8_t data[ATA_SECTOR];
};

#define ATA_STATE(_, T)                                                                                                \
	_(T, uint64_t, saved_sectors, 1, 1, 0, UINT64_MAX) /* of the disk that was saved with the machine */           \
	_(T, uint8_t, heads, 1, 2, 16, 16)		   /* the translation of cylinders, heads and sectors */       \
	_(T, uint8_t, track, 1, 3, 63, 0xff)                                                                           \
	_(T, uint8_t, multiple, 1, 4, 0, ATA_MULTIPLE_MOST) /* sectors; 0: not set */                                  \
	_(T, uint8_t, mode, 1, 5, 0x0c, 0x45)		    /* of transfers, as SET FEATURES sets it */                \
	_(T, bool, cached, 1, 6, 1, 1)                                                                                 \
	_(T, bool, ahead, 1, 7, 1, 1) /* looks ahead, the guest may think */                                           \
	_(T, bool, smart, 1, 8, 1, 1)                                                                                  \
	_(T, bool, standby, 1, 9, 0, 1)                                                                                \
	_(T, uint8_t, sense, 18, 10, 0, 0xff) /* of the last packet command that failed; key 0: none */                \
	_(T, bool, queue_failed, 1, 11, 0, 1) /* the log of that is there: ACS-3, A.14 */                              \
	_(T, uint8_t, queue_log, 14, 12, 0, 0xff)

struct ata_drive {
	struct device device;
	STATE_FIELDS(ATA_STATE)
	unsigned number;     /* of its controller's */
	bool queues;	     /* it is on Serial ATA, whose controller can do NCQ */
	struct block *block; /* a disk's; NULL: a CD drive */
	const struct block_info *info;
	uint64_t sectors;
	enum disk_on_error on_error;
	char serial[DISK_SERIAL_SIZE + 1];
	struct scsi_bus bus;
	struct scsi_target *cd;		  /* who answers packets; the bus's */
	uint64_t boot;			  /* its turn when a firmware looks for a system */
	void (*gone)(struct ata_drive *); /* its controller is told that it goes */
	/* Completes what it is to a firmware with its path. */
	bool (*boot_path)(const struct ata_drive *, struct device_boot *);
	void *controller;
};

static inline bool ata_is_cd(const struct ata_drive *d) { return !d->block; }

/* ---- drive.c ---- */

/* What the command wants; of ATA_NOTHING it has been done. */
void ata_begin(struct ata_drive *, struct ata_task *, struct ata_transfer *);
/* Status and error of a command that has ended so: 0, or -errno of what was done for it. */
void ata_end(struct ata_task *, int result);
/* A queued command has failed with that: what READ LOG says of it until it is read. */
void ata_queue_failed(struct ata_drive *, unsigned tag, const struct ata_task *);
/* As power-on, or a reset by hardware or software, leaves the registers: the signature, by which hosts know what it is. */
void ata_signature(const struct ata_drive *, struct ata_task *);
/* What a reset by software changes. */
void ata_soft_reset(struct ata_drive *);
/* One range of TRIM's data; false: there is none, or it is empty. -> bytes. outside: it is not on the disk. */
bool ata_trim_range(const struct ata_drive *, const uint8_t range[8], uint64_t *offset, uint64_t *size, bool *outside);

/* Of what it reads and writes now; NULL: there is no medium. */
struct block *ata_block(const struct ata_drive *);

/* Opened as the options say. A drive shares `lock`, its controller's, who sets gone. NULL with a sentence. */
struct ata_drive *ata_disk_create(struct bus *, struct lock *, unsigned number, const struct disk_options *,
				  struct error *);
/* o NULL: no disc is in it. */
struct ata_drive *ata_cd_create(struct bus *, struct lock *, unsigned number, const struct disk_options *,
				struct error *);

/* ---- identify.c ---- */

void ata_identify(const struct ata_drive *, uint8_t data[ATA_SECTOR]);

/* ---- regions.c: the guest memory that a transfer goes to or comes from, as a table of a controller's says ---- */

struct ata_regions {
	struct guest_mem *mem;
	/* The table's next entry becomes what is left, and last is set with the last one; only while it is not. False: the table is in no memory. */
	bool (*fetch)(struct ata_regions *);
	uint64_t next; /* fetch's: where that entry is */
	uint64_t at;   /* what is left of a region */
	uint32_t left;
	uint32_t entries; /* fetch's */
	bool last;
	bool failed; /* the table, or what it says, is in no memory */
};

/* Host memory of one request. */
struct ata_pieces {
	struct iovec *iov;
	unsigned count, room;
};
#define ATA_PIECES_OF_REGION 32u /* so many of them have no block any more that begins there */

/* As many whole blocks as there are regions and pieces for, `most` bytes of them at most. 0: none; failed: and that is an error. */
uint32_t ata_map_blocks(struct ata_regions *, struct ata_pieces *, uint32_t block, uint32_t most, bool to_memory);
/* Returns how many bytes it has copied: fewer, if the regions end before, or with failed set. */
uint32_t ata_copy_regions(struct ata_regions *, uint8_t *data, uint32_t size, bool to_memory);
/* The host has written what was mapped so. */
void ata_pieces_written(struct guest_mem *, const struct ata_pieces *);

/* ---- packet.c: a packet command in pieces that are done one after the other ---- */

#define ATA_PIECE 65536u /* bytes of one piece, at most */

/* What is left of a command that reads blocks; of others blocks is 0. */
struct ata_packet {
	uint8_t cdb[SCSI_CDB_SIZE];
	uint32_t lba, blocks;
};
/* Of a whole command. Returns how many bytes of parameters it wants from the host. */
unsigned ata_packet_begin(struct ata_packet *);
/* The next piece as a command, for which scsi_begin() is to be called with in, or out, set. `most`: bytes that it may move. */
void ata_packet_piece(struct ata_drive *, const struct ata_packet *, struct scsi_command *, uint32_t most);
/* When that is done: true, it went well, and the rest is less. Else sense data are kept and the task's status and error say so. */
bool ata_packet_done(struct ata_drive *, struct ata_packet *, const struct scsi_command *, struct ata_task *);
/* REQUEST SENSE of what was kept: true, and data is it. */
bool ata_packet_sense(struct ata_drive *, const struct ata_packet *, uint8_t data[18], uint32_t *size);

#endif
