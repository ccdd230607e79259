/*
 * AHCI (Serial ATA Advanced Host Controller Interface 1.3): ports of a drive each, with 32 commands that the guest has in memory. ahci.c is the registers, ahci_command.c what the
 * commands do.
 *
 * A command that has begun and is not at its end when the machine is paused begins anew behind that: all that says what it is is in the guest's memory.
 */
#ifndef DOPPEL_DEVICES_ATA_AHCI_H
#define DOPPEL_DEVICES_ATA_AHCI_H

#include "devices/ata/ata.h"

#define AHCI_PORTS  6u
#define AHCI_SLOTS  32u
#define AHCI_PIECES (256u + ATA_PIECES_OF_REGION) /* of memory, of one request */

/* Interrupt status of a port */
#define IS_REGISTER  BIT(0) /* a D2H register FIS, */
#define IS_PIO	     BIT(1) /* a PIO setup FIS */
#define IS_BITS	     BIT(3) /* or a set device bits FIS has come */
#define IS_CONNECTED BIT(6)
#define IS_PHY	     BIT(22)
#define IS_OVERFLOW  BIT(24)
#define IS_INTERFACE BIT(27)
#define IS_HOST	     BIT(29) /* guest memory that is none */
#define IS_TASK_FILE BIT(30)
#define IS_CLEARED   0xfd8000afu /* by ones that are written */
#define IS_ENABLE    0xfdc000ffu
/* Command and status of a port */
#define CMD_START    BIT(0)
#define CMD_FIS	     BIT(4)
#define CMD_FIS_RUNS BIT(14)
#define CMD_RUNS     BIT(15)
#define CMD_KEPT     0x03000011u /* ATAPI, its LED, FRE, ST */
/* Error register of a port */
#define SERR_PHY       BIT(16)
#define SERR_EXCHANGED BIT(26)
#define SERR_WRITABLE  0x07ff0f03u

#define AHCI_PORT_STATE(_, T)                                                                                          \
	_(T, uint64_t, list, 1, 1, 0, ~0x3ffull)    /* of commands; */                                                 \
	_(T, uint64_t, received, 1, 2, 0, ~0xffull) /* where FISes go */                                               \
	_(T, uint32_t, status, 1, 3, 0, IS_CLEARED)                                                                    \
	_(T, uint32_t, enable, 1, 4, 0, IS_ENABLE)                                                                     \
	_(T, uint32_t, command, 1, 5, 0, CMD_KEPT)                                                                     \
	_(T, uint32_t, task_file, 1, 6, 0x7f, 0xffff)                                                                  \
	_(T, uint32_t, signature, 1, 7, UINT32_MAX, UINT32_MAX)                                                        \
	_(T, uint32_t, control, 1, 8, 0, 0xfff)                                                                        \
	_(T, uint32_t, error, 1, 9, 0, SERR_WRITABLE)                                                                  \
	_(T, uint32_t, queued, 1, 10, 0, UINT32_MAX)  /* SACT: slots of queued commands */                             \
	_(T, uint32_t, issued, 1, 11, 0, UINT32_MAX)  /* CI */                                                         \
	_(T, uint32_t, pending, 1, 12, 0, UINT32_MAX) /* slots that are not done */                                    \
	_(T, uint8_t, last, 1, 13, 31, 31)	      /* slot that has begun last */                                   \
	_(T, bool, halted, 1, 14, 0, 1)		      /* an error: until ST is cleared */                              \
	_(T, bool, resets, 1, 15, 0, 1)		      /* SRST is set */                                                \
	_(T, bool, greets, 1, 16, 0, 1)		      /* the FIS of a reset waits for FRE */

struct ahci_port;

struct ahci_command {
	struct ahci_port *port;
	unsigned slot;
	bool dropped;	 /* its outcome is of no interest any more */
	bool goes_on;	 /* of a packet command's piece, which is not at its end */
	bool queued;	 /* NCQ */
	uint64_t header; /* the guest's */
	struct ata_task task;
	struct ata_transfer transfer; /* lba, count: what is left */
	uint32_t moved;		      /* bytes */
	uint32_t at;		      /* in ranges of TRIM, which are in the port's buffer; 0: they are not yet */
	struct ata_packet packet;
	unsigned parameters; /* bytes, of a packet command */
	struct scsi_command scsi;
	struct block_request own, *request; /* its own, or the SCSI command's */
	struct ata_regions regions;
	struct ata_pieces pieces;
	struct iovec iov[AHCI_PIECES];
};

struct ahci_port {
	struct device device;
	STATE_FIELDS(AHCI_PORT_STATE)
	struct ahci *ahci;
	unsigned number;
	struct ata_drive *drive;
	struct ahci_command *commands; /* AHCI_SLOTS; NULL: there has never been a drive */
	uint32_t active;	       /* slots that are being done, or were dropped and a worker has them still */
	bool alone;		       /* one that is not queued */
	bool in_line;		       /* virtual time */
	bool paused;
	size_t here_left;
	uint8_t buffer[ATA_PIECE]; /* of a command that is not queued */
};

#define AHCI_STATE(_, T) _(T, bool, interrupts, 1, 1, 0, 1)

struct ahci {
	struct pci_device pci;
	STATE_FIELDS(AHCI_STATE)
	_Atomic bool master; /* as the command register says */
	struct ahci_port ports[AHCI_PORTS];
};

/* ---- ahci.c ---- */

/* Status bits of the port, and an interrupt if they are enabled. */
void ahci_event(struct ahci_port *, uint32_t status);
/* The drive's registers after a reset, and the FIS that says so. */
void ahci_greet(struct ahci_port *);

/* ---- ahci_command.c ---- */

/* Where the drive is, once. */
int ahci_init_commands(struct ahci_port *, struct error *);
/* Commands that are issued, as far as they can begin. here: where the guest asks. */
void ahci_run(struct ahci_port *, bool here);
/* All that were: what workers have of them comes to nothing. */
void ahci_drop(struct ahci_port *);
/* A D2H register FIS of the task file, and its interrupt. */
void ahci_send_task(struct ahci_port *, const struct ata_task *, bool interrupt);

#endif
