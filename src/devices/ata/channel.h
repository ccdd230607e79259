/*
 * An IDE channel: two drives behind one set of registers (ATA/ATAPI-7, 5 and 9), and what the bus master has of it. channel.c is the registers, transfer.c what moves the data,
 * ide.c the PCI function.
 *
 * A transfer goes on in pieces: each is a request of the block layer's, done where the guest asks if the host has the data in memory, else by a worker, in whose thread the next
 * one follows. Between two pieces all that is known of the transfer is in the channel's state: there a machine is saved.
 */
#ifndef DOPPEL_DEVICES_ATA_CHANNEL_H
#define DOPPEL_DEVICES_ATA_CHANNEL_H

#include "devices/ata/ata.h"

#define PIECES (1024u + ATA_PIECES_OF_REGION) /* of memory, of one request: a block of 2,048 bytes in regions of two */

/* Registers of a channel; of its control block there is one */
enum { DATA, ERROR, COUNT, LBA_LOW, LBA_MID, LBA_HIGH, DEVICE, STATUS, REGISTERS };
#define FEATURE	     ERROR
#define COMMAND	     STATUS
#define PER_DRIVE    6u /* of which each drive has its own */
#define CONTROL_NIEN 0x02u
#define CONTROL_SRST 0x04u
#define CONTROL_HOB  0x80u

/* Of its bus master registers: command and status */
#define BM_START	0x01u
#define BM_COMMAND_BITS 0x09u
#define BM_ACTIVE	0x01u
#define BM_ERROR	0x02u
#define BM_INTERRUPT	0x04u
#define BM_CAPABLE	0x60u

enum phase {
	IDLE,
	IN,	/* the guest reads data, */
	OUT,	/* or writes them, */
	PACKET, /* or a packet command */
	WORK,	/* the host is to do something */
	WAIT,	/* for bus master DMA to be started */
	PHASES,
};

/* Where in the table of regions DMA is: the next entry, and what is left of this one. */
enum { PRD_NEXT, PRD_AT, PRD_LEFT, PRD_FIELDS };
_Static_assert(PRD_FIELDS == 3 && PER_DRIVE == 6 && ATA_PIECE == 65536 && SCSI_CDB_SIZE == 16, "as in the list below");

#define CHANNEL_STATE(_, T)                                                                                            \
	_(T, uint8_t, now, 12, 1, 0, 0xff)    /* registers, of both drives */                                          \
	_(T, uint8_t, before, 12, 2, 0, 0xff) /* what was in them before, for 48-bit addresses */                      \
	_(T, uint8_t, error, 2, 3, 0, 0xff)                                                                            \
	_(T, uint8_t, status, 2, 4, 0, 0xff)                                                                           \
	_(T, uint8_t, device_register, 1, 5, 0, 0xff)                                                                  \
	_(T, uint8_t, control, 1, 6, 0, 0xff)                                                                          \
	_(T, bool, interrupt, 1, 7, 0, 1)                                                                              \
	_(T, uint8_t, phase, 1, 8, IDLE, PHASES - 1)                                                                   \
	_(T, uint8_t, kind, 1, 9, ATA_NOTHING, ATA_KINDS - 1)                                                          \
	_(T, bool, dma, 1, 10, 0, 1)                                                                                   \
	_(T, bool, fua, 1, 11, 0, 1)                                                                                   \
	_(T, uint64_t, lba, 1, 12, 0, 0xffffffffffff)                                                                  \
	_(T, uint32_t, left, 1, 13, 0, ATA_WIDE_MOST) /* sectors, or bytes of parameters */                            \
	_(T, uint32_t, block, 1, 14, 0, ATA_PIECE)    /* bytes between two interrupts */                               \
	_(T, uint32_t, at, 1, 15, 0, ATA_PIECE)	      /* in the buffer; */                                             \
	_(T, uint32_t, end, 1, 16, 0, ATA_PIECE)      /* of the block */                                               \
	_(T, uint32_t, filled, 1, 17, 0, ATA_PIECE)   /* of what is in the buffer, or is to be */                      \
	_(T, uint8_t, cdb, 16, 18, 0, 0xff)                                                                            \
	_(T, uint32_t, packet_lba, 1, 19, 0, UINT32_MAX)                                                               \
	_(T, uint32_t, packet_blocks, 1, 20, 0, UINT32_MAX)                                                            \
	_(T, uint8_t, bm_command, 1, 21, 0, BM_COMMAND_BITS)                                                           \
	_(T, uint8_t, bm_status, 1, 22, 0, BM_CAPABLE | 7)                                                             \
	_(T, uint32_t, table, 1, 23, 0, UINT32_MAX)                                                                    \
	_(T, uint32_t, prd, 3, 24, 0, UINT32_MAX)                                                                      \
	_(T, bool, prd_last, 1, 25, 0, 1)                                                                              \
	_(T, bool, gathers, 1, 26, 0, 1) /* the ranges of TRIM are not all there */                                    \
	_(T, uint8_t, buffer, 65536, 27, 0, 0xff)

struct channel {
	struct device device;
	STATE_FIELDS(CHANNEL_STATE)
	struct pci_device *pci; /* the function that it is part of; */
	_Atomic bool *master;	/* whether its command register lets it be a bus master */
	struct ata_drive *drives[2];
	struct irq_line line;
	struct bus_range registers, control_port;
	bool in_line; /* virtual time */
	bool paused;
	bool under_way; /* a worker has a request */
	bool dropped;	/* whose outcome is of no interest any more */
	bool held;	/* the piece at hand waits for the host, or is tried again: it is begun anew */
	struct disk_hold hold;
	bool goes_on; /* of a packet command's piece, which is not at its end */
	size_t here_left;
	struct ata_packet packet;
	struct scsi_command scsi;
	struct block_request own, *request; /* its own, or the SCSI command's */
	struct iovec iov[PIECES];
	struct ata_pieces pieces;
	struct ata_regions then; /* where DMA is when that is done */
};

static inline unsigned selected(const struct channel *ch) { return ch->device_register & ATA_DEVICE_1 ? 1 : 0; }
static inline struct ata_drive *drive_of(const struct channel *ch) { return ch->drives[selected(ch)]; }
static inline bool is_empty(const struct channel *ch) { return !ch->drives[0] && !ch->drives[1]; }

static inline uint8_t *registers_of(struct channel *ch, unsigned drive) { return ch->now + (size_t)drive * PER_DRIVE; }
static inline uint8_t *before_of(struct channel *ch, unsigned drive) { return ch->before + (size_t)drive * PER_DRIVE; }

/* ---- channel.c ---- */

/* The channel of these registers, at its ports, without drives. */
int ide_channel_create(struct channel *, struct pci_device *, _Atomic bool *master, unsigned number, struct error *);
void channel_interrupt(struct channel *);
struct ata_task channel_task(struct channel *, uint8_t command);
/* The command is done, and this is what the registers say. */
void channel_end(struct channel *, const struct ata_task *);
void channel_set_reason(struct channel *, uint8_t reason);
/* As after power-on; nothing without a drive. */
void channel_set_signature(struct channel *, unsigned drive);

/* ---- transfer.c ---- */

void channel_init_transfer(struct channel *);
/* A command that moves data, or asks something of the host. */
void channel_begin(struct channel *, const struct ata_transfer *);
/* The block that was offered has been read, or written. */
void channel_end_block(struct channel *);
/* The bus master runs. */
void channel_start_dma(struct channel *);
/* Goes on behind a pause. */
void channel_go_on(struct channel *);
/* What a worker has of the transfer comes to nothing; until then the channel is busy. */
void channel_drop(struct channel *);
/* What waits for the host is tried once more. Takes the lock. */
void channel_retry(struct bus_hold *);
/* It waits no more. */
void channel_end_hold(struct channel *);
/* What a transfer in its middle cannot be: -EINVAL. */
int channel_check_transfer(const struct channel *, struct error *);

#endif
