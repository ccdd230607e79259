/*
 * IDE: the function of the PIIX3 beside the ISA bridge, 00:01.1 (Intel 82371SB data sheet, 290550, 2.3 and 2.6): two channels at the ports and interrupts that PCs have always
 * had, with two drives each, and bus master DMA (Programming Interface for Bus Master IDE Controller, 1.0).
 *
 * A transfer goes on in pieces: each is a request of the block layer's, done where the guest asks if the host has the data in memory, else by a worker, in whose thread the next
 * one follows. Between two pieces all that is known of the transfer is in the channel's state: there a machine is saved.
 */
#include "devices/ata/ata.h"

#include <errno.h>
#include <stdlib.h>

#define CHANNELS	 2u
#define HERE_MOST	 (1u << 20) /* bytes that are moved at once where the guest asks */
#define DMA_PIECE	 (256u << 10)
#define PIECES		 1024u /* of memory, of one request: a block of 2,048 bytes in regions of two */
#define PIECES_OF_REGION 32u

/* PCI configuration: timing, with the bit that has the ports decoded */
#define IDETIM	0x40u
#define BAR_DMA 4u

/* Registers of a channel; of its control block there is one */
enum { DATA, ERROR, COUNT, LBA_LOW, LBA_MID, LBA_HIGH, DEVICE, STATUS, REGISTERS };
#define FEATURE	     ERROR
#define COMMAND	     STATUS
#define PER_DRIVE    6u /* of which each drive has its own */
#define CONTROL_NIEN 0x02u
#define CONTROL_SRST 0x04u
#define CONTROL_HOB  0x80u

/* Bus master registers of a channel */
enum { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4, BM_SIZE = 8 };
#define BM_START	0x01u
#define BM_COMMAND_BITS 0x09u
#define BM_ACTIVE	0x01u
#define BM_ERROR	0x02u
#define BM_INTERRUPT	0x04u
#define BM_CAPABLE	0x60u
#define PRD_LAST	0x80000000u

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

struct ide;
struct channel {
	struct device device;
	STATE_FIELDS(CHANNEL_STATE)
	struct ide *ide;
	struct ata_drive *drives[2];
	struct irq_line line;
	struct bus_range registers, control_port;
	bool in_line; /* virtual time */
	bool paused;
	bool under_way; /* a worker has a request */
	bool dropped;	/* whose outcome is of no interest any more */
	bool goes_on;	/* of a packet command's piece, which is not at its end */
	size_t here_left;
	struct ata_packet packet;
	struct scsi_command scsi;
	struct block_request own, *request; /* its own, or the SCSI command's */
	struct iovec pieces[PIECES + PIECES_OF_REGION];
	unsigned piece_count;
	/* Where DMA is when that is done. */
	uint32_t then[PRD_FIELDS];
	bool then_last;
};

struct ide {
	struct pci_device pci;
	_Atomic bool master; /* as the command register says */
	struct channel channels[CHANNELS];
};

static unsigned selected(const struct channel *ch) { return ch->device_register & ATA_DEVICE_1 ? 1 : 0; }
static struct ata_drive *drive_of(const struct channel *ch) { return ch->drives[selected(ch)]; }
static struct guest_mem *mem_of(const struct channel *ch) { return ch->device.bus->mem; }
static bool is_empty(const struct channel *ch) { return !ch->drives[0] && !ch->drives[1]; }

static uint8_t *registers_of(struct channel *ch, unsigned drive) { return ch->now + (size_t)drive * PER_DRIVE; }
static uint8_t *before_of(struct channel *ch, unsigned drive) { return ch->before + (size_t)drive * PER_DRIVE; }

/* ---- the interrupt ---- */

static void update_line(struct channel *ch) { irq_set(&ch->line, ch->interrupt && !(ch->control & CONTROL_NIEN)); }

static void assert_interrupt(struct channel *ch)
{
	ch->interrupt = true;
	if (!(ch->control & CONTROL_NIEN))
		ch->bm_status |= BM_INTERRUPT;
	update_line(ch);
}

static void withdraw_interrupt(struct channel *ch)
{
	ch->interrupt = false;
	update_line(ch);
}

/* ---- task files ---- */

static struct ata_task get_task(struct channel *ch, uint8_t command)
{
	const uint8_t *now = registers_of(ch, selected(ch)), *before = before_of(ch, selected(ch));

	return (struct ata_task){
		.command = command,
		.device = ch->device_register,
		.feature = (uint16_t)(now[FEATURE] | before[FEATURE] << 8),
		.count = (uint16_t)(now[COUNT] | before[COUNT] << 8),
		.lba = now[LBA_LOW] | (uint32_t)now[LBA_MID] << 8 | (uint32_t)now[LBA_HIGH] << 16 |
		       (uint64_t)before[LBA_LOW] << 24 | (uint64_t)before[LBA_MID] << 32 |
		       (uint64_t)before[LBA_HIGH] << 40,
	};
}

static void put_task(struct channel *ch, unsigned drive, const struct ata_task *task)
{
	uint8_t *now = registers_of(ch, drive), *before = before_of(ch, drive);

	now[COUNT] = (uint8_t)task->count;
	before[COUNT] = (uint8_t)(task->count >> 8);
	for (unsigned n = 0; n < 3; n++) {
		now[LBA_LOW + n] = (uint8_t)(task->lba >> 8 * n);
		before[LBA_LOW + n] = (uint8_t)(task->lba >> (24 + 8 * n));
	}
	if (drive == selected(ch))
		ch->device_register = (uint8_t)((ch->device_register & 0xf0) | (task->device & 0x0f));
	ch->status[drive] = task->status;
	ch->error[drive] = task->error;
}

static void set_reason(struct channel *ch, uint8_t reason) { registers_of(ch, selected(ch))[COUNT] = reason; }

static void end_with(struct channel *ch, const struct ata_task *task)
{
	ch->phase = IDLE;
	put_task(ch, selected(ch), task);
	if (ch->kind == ATA_COMMAND)
		set_reason(ch, ATA_REASON_COMMAND | ATA_REASON_IN);
	assert_interrupt(ch);
}

/* 0 or -errno. What has failed is at ch->lba. */
static void end(struct channel *ch, int result)
{
	struct ata_task task = get_task(ch, 0);

	ata_end(&task, result);
	if (result && (ch->kind == ATA_READ || ch->kind == ATA_WRITE) && task.device & ATA_DEVICE_LBA)
		task.lba = ch->lba;
	end_with(ch, &task);
}

static void set_status(struct channel *ch, uint8_t status) { ch->status[selected(ch)] = status; }

static void begin_work(struct channel *ch)
{
	ch->phase = WORK;
	set_status(ch, ATA_BSY);
}

/* ---- the table of regions ---- */

struct cursor {
	uint32_t field[PRD_FIELDS];
	bool last;
	bool failed; /* the table is nowhere */
};

static struct cursor cursor_of(const struct channel *ch)
{
	return (struct cursor){ .field = { ch->prd[PRD_NEXT], ch->prd[PRD_AT], ch->prd[PRD_LEFT] },
				.last = ch->prd_last };
}

static void move_cursor(struct channel *ch, const struct cursor *c)
{
	memcpy(ch->prd, c->field, sizeof(ch->prd));
	ch->prd_last = c->last;
}

/* So that something of a region is left; false: there is none. A table does not leave its 64 KiB. */
static bool find_region(const struct channel *ch, struct cursor *c)
{
	uint8_t entry[8];
	uint32_t size;

	if (c->field[PRD_LEFT])
		return true;
	if (c->last)
		return false;
	c->failed = mem_read(mem_of(ch), gpa(c->field[PRD_NEXT]), entry, sizeof(entry));
	if (c->failed)
		return false;
	size = load_le16(entry + 4) & 0xfffe;
	c->field[PRD_AT] = load_le32(entry) & ~1u;
	c->field[PRD_LEFT] = size ? size : 0x10000;
	c->last = entry[7] & 0x80;
	c->field[PRD_NEXT] = (c->field[PRD_NEXT] & 0xffff0000) | ((c->field[PRD_NEXT] + 8) & 0xffff);
	return true;
}

static void take_region(struct cursor *c, uint32_t size)
{
	c->field[PRD_AT] += size;
	c->field[PRD_LEFT] -= size;
}

static bool is_running(const struct channel *ch)
{
	return ch->bm_status & BM_ACTIVE && ch->bm_command & BM_START && atomic_load(&ch->ide->master);
}

/* Data are to be moved, and no engine moves them. */
static void wait_for_dma(struct channel *ch)
{
	ch->phase = WAIT;
	set_status(ch, ATA_DRDY | ATA_DSC | ATA_DRQ);
}

static void dma_error(struct channel *ch)
{
	ch->bm_status = (uint8_t)((ch->bm_status & ~BM_ACTIVE) | BM_ERROR);
	end(ch, -EFAULT);
}

/* The engine has come to the end of its table and the drive wants more: it stops, and the drive waits. */
static void starve(struct channel *ch, const struct cursor *c)
{
	if (c->failed) {
		dma_error(ch);
		return;
	}
	ch->bm_status &= (uint8_t)~BM_ACTIVE;
	wait_for_dma(ch);
}

/* A transfer is at its end; the engine as well if that was all of its table. */
static void end_dma(struct channel *ch)
{
	if (ch->prd_last && !ch->prd[PRD_LEFT])
		ch->bm_status &= (uint8_t)~BM_ACTIVE;
}

/* Adds what the next `size` bytes of regions are in host memory. -EAGAIN: there are fewer, or too many pieces; -EFAULT: no memory. */
static int map_bytes(struct channel *ch, struct cursor *c, uint32_t size, bool to_memory)
{
	while (size) {
		uint32_t part;

		if (!find_region(ch, c) || ch->piece_count >= PIECES)
			return c->failed ? -EFAULT : -EAGAIN;
		part = MIN(size, c->field[PRD_LEFT]);
		if (mem_dma_map(mem_of(ch), gpa(c->field[PRD_AT]), part, to_memory, ch->pieces, &ch->piece_count,
				ARRAY_SIZE(ch->pieces)))
			return -EFAULT;
		take_region(c, part);
		size -= part;
	}
	return 0;
}

/* As many whole blocks as there are regions for, `most` bytes of them at most: the pieces, and where DMA is then. 0: none; c->failed: and that is an error. */
static uint32_t map_blocks(struct channel *ch, struct cursor *c, uint32_t block, uint32_t most, bool to_memory)
{
	uint32_t done = 0;

	ch->piece_count = 0;
	while (done < most && (find_region(ch, c) || !done)) {
		struct cursor before = *c;
		unsigned count = ch->piece_count;
		struct iovec piece = count ? ch->pieces[count - 1] : (struct iovec){ 0 };
		uint32_t size = (uint32_t)MAX(align_down(MIN(c->field[PRD_LEFT], most - done), block), block);
		int rc = map_bytes(ch, c, size, to_memory);

		if (!rc) {
			done += size;
			continue;
		}
		/* What was found of this block is found again, with the rest of it. */
		*c = before;
		c->failed = rc == -EFAULT;
		ch->piece_count = count;
		if (count)
			ch->pieces[count - 1] = piece;
		break;
	}
	return done;
}

/* Between the buffer and the regions. False: it has ended, or waits. */
static bool copy_dma(struct channel *ch, uint32_t size, bool to_memory)
{
	struct cursor c = cursor_of(ch);

	while (ch->at < size) {
		uint32_t part;

		if (!find_region(ch, &c)) {
			starve(ch, &c);
			return false;
		}
		part = MIN(size - ch->at, c.field[PRD_LEFT]);
		if (to_memory ? mem_write(mem_of(ch), gpa(c.field[PRD_AT]), ch->buffer + ch->at, part)
			      : mem_read(mem_of(ch), gpa(c.field[PRD_AT]), ch->buffer + ch->at, part)) {
			dma_error(ch);
			return false;
		}
		take_region(&c, part);
		ch->at += part;
		move_cursor(ch, &c);
	}
	return true;
}

/* As many of the next `all` bytes of blocks as one request moves straight where they belong: its pieces, and where DMA is then. 0: it waits, or has ended. */
static uint32_t plan_dma(struct channel *ch, uint32_t block, uint64_t all, bool to_memory)
{
	struct cursor c = cursor_of(ch);
	uint32_t size;

	if (!is_running(ch)) {
		wait_for_dma(ch);
		return 0;
	}
	size = map_blocks(ch, &c, block, (uint32_t)MIN(all, DMA_PIECE), to_memory);
	if (!size) {
		starve(ch, &c);
		return 0;
	}
	memcpy(ch->then, c.field, sizeof(ch->then));
	ch->then_last = c.last;
	return size;
}

/* What was planned is done. */
static void finish_dma(struct channel *ch, bool to_memory)
{
	for (unsigned n = 0; n < ch->piece_count && to_memory; n++)
		mem_dma_written(mem_of(ch), ch->pieces[n].iov_base, ch->pieces[n].iov_len);
	memcpy(ch->prd, ch->then, sizeof(ch->prd));
	ch->prd_last = ch->then_last;
}

/* ---- PIO: what is in the buffer, block by block ---- */

static void offer_block(struct channel *ch, bool tell)
{
	uint8_t *now = registers_of(ch, selected(ch));
	uint32_t size = MIN(ch->block, ch->filled - ch->at);

	ch->end = ch->at + size;
	set_status(ch, ATA_DRDY | ATA_DSC | ATA_DRQ);
	if (ch->kind == ATA_COMMAND) {
		set_reason(ch, ch->phase == IN ? ATA_REASON_IN : 0);
		now[LBA_MID] = (uint8_t)size;
		now[LBA_HIGH] = (uint8_t)(size >> 8);
	}
	if (tell)
		assert_interrupt(ch);
}

static void read_buffer(struct channel *ch, uint32_t size)
{
	ch->phase = IN;
	ch->at = 0;
	ch->filled = size;
	offer_block(ch, true);
}

/* As much as is left, or as the buffer holds of whole blocks. */
static void write_buffer(struct channel *ch, bool tell)
{
	uint32_t room = ATA_PIECE / ch->block * ch->block;

	ch->phase = OUT;
	ch->at = 0;
	ch->filled = (uint32_t)MIN((uint64_t)ch->left * ATA_SECTOR, room);
	offer_block(ch, tell);
}

/* ---- what is to be done next; each returns true where that is ch->request ---- */

static bool ask(struct channel *ch, enum block_op op, uint64_t offset, uint64_t size)
{
	ch->own.op = op;
	ch->own.offset = offset;
	ch->own.size = size;
	ch->own.iov = ch->pieces;
	ch->own.iov_count = (int)ch->piece_count;
	ch->own.fua = ch->fua;
	ch->request = &ch->own;
	return true;
}

static bool ask_sectors(struct channel *ch, uint32_t size)
{
	return ask(ch, ch->kind == ATA_READ ? BLOCK_READ : BLOCK_WRITE, ch->lba * ATA_SECTOR, size);
}

static bool prepare_sectors(struct channel *ch)
{
	uint64_t all = (uint64_t)ch->left * ATA_SECTOR;
	uint32_t size;

	if (!ch->dma) {
		size = ch->kind == ATA_READ ? (uint32_t)MIN(all, ATA_PIECE) : ch->filled;
		ch->pieces[0] = (struct iovec){ ch->buffer, size };
		ch->piece_count = 1;
		return ask_sectors(ch, size);
	}
	size = plan_dma(ch, ATA_SECTOR, all, ch->kind == ATA_READ);
	return size && ask_sectors(ch, size);
}

static bool prepare_trim(struct channel *ch)
{
	struct ata_drive *d = drive_of(ch);
	uint64_t offset, size;

	if (!ch->filled) {
		ch->filled = ch->left;
		ch->gathers = true;
	}
	if (ch->gathers) {
		if (!is_running(ch)) {
			wait_for_dma(ch);
			return false;
		}
		if (!copy_dma(ch, ch->filled, false))
			return false;
		end_dma(ch);
		ch->gathers = false;
		ch->at = 0;
	}
	for (; ch->at < ch->filled; ch->at += 8) {
		bool outside;

		if (!ata_trim_range(d, ch->buffer + ch->at, &offset, &size, &outside))
			continue;
		if (!outside)
			return ask(ch, BLOCK_DISCARD, offset, size);
		end(ch, -EINVAL);
		return false;
	}
	end(ch, 0);
	return false;
}

/* ---- packets ---- */

static void store_packet(struct channel *ch)
{
	ch->packet_lba = ch->packet.lba;
	ch->packet_blocks = ch->packet.blocks;
}

/* The reply is in the buffer. */
static void deliver(struct channel *ch, uint32_t size)
{
	if (!size) {
		struct ata_task task = get_task(ch, ATA_PACKET);

		ata_end(&task, 0);
		end_with(ch, &task);
	} else if (!ch->dma) {
		read_buffer(ch, size);
	} else {
		ch->at = 0;
		ch->filled = size;
		begin_work(ch);
	}
}

static bool deliver_by_dma(struct channel *ch)
{
	if (!is_running(ch)) {
		wait_for_dma(ch);
	} else if (copy_dma(ch, ch->filled, true)) {
		end_dma(ch);
		ch->filled = 0;
		deliver(ch, 0);
	}
	return false;
}

/* Blocks went where they belong. */
static void blocks_by_dma(struct channel *ch)
{
	finish_dma(ch, true);
	end_dma(ch);
	if (ch->packet.blocks)
		begin_work(ch);
	else
		deliver(ch, 0);
}

static void end_piece(struct channel *ch)
{
	struct ata_task task = get_task(ch, ATA_PACKET);
	bool blocks = ch->packet.blocks, good = ata_packet_done(drive_of(ch), &ch->packet, &ch->scsi, &task);

	store_packet(ch);
	if (!good)
		end_with(ch, &task);
	else if (blocks && ch->dma)
		blocks_by_dma(ch);
	else
		deliver(ch, ch->scsi.in.size ? (uint32_t)ch->scsi.moved : 0);
}

static bool prepare_packet(struct channel *ch)
{
	struct ata_drive *d = drive_of(ch);
	uint32_t most = ATA_PIECE;

	if (ch->goes_on)
		return true;
	if (ch->filled && ch->dma)
		return deliver_by_dma(ch);
	memcpy(ch->packet.cdb, ch->cdb, sizeof(ch->packet.cdb));
	ch->packet.lba = ch->packet_lba;
	ch->packet.blocks = ch->packet_blocks;
	if (ch->packet.blocks && ch->dma) {
		most = plan_dma(ch, SCSI_CD_BLOCK, (uint64_t)ch->packet.blocks * SCSI_CD_BLOCK, true);
		if (!most)
			return false;
	} else {
		ch->pieces[0] = (struct iovec){ ch->buffer, ch->left ? ch->left : most };
		ch->piece_count = 1;
	}
	ch->scsi = (struct scsi_command){ .block.done = ch->scsi.block.done };
	ata_packet_piece(d, &ch->packet, &ch->scsi, most);
	*(ch->left ? &ch->scsi.out : &ch->scsi.in) =
		(struct scsi_data){ ch->pieces, (int)ch->piece_count, ch->left ? ch->left : most };
	ch->goes_on = scsi_begin(&ch->scsi);
	ch->request = &ch->scsi.block;
	if (!ch->goes_on)
		end_piece(ch);
	return ch->goes_on;
}

/* ---- the work ---- */

static bool prepare(struct channel *ch)
{
	switch (ch->kind) {
	case ATA_READ:
	case ATA_WRITE: return prepare_sectors(ch);
	case ATA_FLUSH: ch->piece_count = 0; return ask(ch, BLOCK_FLUSH, 0, 0);
	case ATA_TRIM: return prepare_trim(ch);
	default: return prepare_packet(ch);
	}
}

static void sectors_done(struct channel *ch)
{
	uint32_t count = (uint32_t)(ch->own.size / ATA_SECTOR);

	if (ch->dma)
		finish_dma(ch, ch->kind == ATA_READ);
	if (ch->own.result) {
		ch->bm_status &= (uint8_t) ~(ch->dma ? BM_ACTIVE : 0);
		end(ch, ch->own.result);
		return;
	}
	ch->lba = (ch->lba + count) & 0xffffffffffff;
	ch->left -= MIN(count, ch->left);
	if (!ch->dma && ch->kind == ATA_READ) {
		read_buffer(ch, (uint32_t)ch->own.size);
	} else if (!ch->left) {
		if (ch->dma)
			end_dma(ch);
		end(ch, 0);
	} else if (!ch->dma) {
		write_buffer(ch, true);
	}
}

static void complete(struct channel *ch)
{
	switch (ch->kind) {
	case ATA_READ:
	case ATA_WRITE: sectors_done(ch); break;
	case ATA_FLUSH: end(ch, ch->own.result); break;
	case ATA_TRIM:
		ch->at += 8;
		if (ch->own.result)
			end(ch, ch->own.result);
		break;
	default:
		ch->goes_on = scsi_go_on(&ch->scsi);
		if (!ch->goes_on)
			end_piece(ch);
	}
}

static bool done_here(struct channel *ch, struct block *block)
{
	struct block_request *r = ch->request;
	uint64_t size = r->op == BLOCK_READ || r->op == BLOCK_WRITE ? r->size : 0;

	if (size > ch->here_left || block_try(block, r))
		return false;
	ch->here_left -= size;
	return true;
}

/* Until the guest, or a worker, has the next turn. While the machine is paused nothing begins. */
static void work(struct channel *ch)
{
	while (ch->phase == WORK && (!ch->paused || ch->goes_on)) {
		struct block *block = ata_block(drive_of(ch));

		if (!prepare(ch))
			continue; /* there may be more of it, or it is another phase */
		if (ch->in_line) {
			block_do(block, ch->request);
		} else if (!done_here(ch, block)) {
			ch->under_way = true;
			block_submit(block, ch->request);
			return;
		}
		complete(ch);
	}
}

static void work_here(struct channel *ch)
{
	ch->here_left = HERE_MOST;
	work(ch);
}

/* In a worker's thread. */
static void done(struct channel *ch)
{
	lock_take(ch->device.lock);
	ch->under_way = false;
	ch->here_left = 0;
	if (!ch->dropped) {
		complete(ch);
		work(ch);
	} else if (ch->goes_on) {
		/* The target is told, as it has begun. */
		ch->goes_on = scsi_go_on(&ch->scsi);
		ch->under_way = ch->goes_on;
		if (ch->goes_on)
			block_submit(scsi_block(ch->scsi.target), ch->request);
	}
	ch->dropped = ch->dropped && ch->under_way;
	lock_drop(ch->device.lock);
}

static void own_done(struct block_request *r) { done(container_of(r, struct channel, own)); }
static void scsi_done(struct block_request *r) { done(container_of(r, struct channel, scsi.block)); }

/* ---- resets ---- */

/* What a worker has of it comes to nothing; until then the channel is busy. */
static void drop_transfer(struct channel *ch)
{
	ch->dropped = ch->under_way;
	ch->phase = IDLE;
	ch->kind = ATA_NOTHING;
}

static void set_signature(struct channel *ch, unsigned drive)
{
	struct ata_task task;

	if (!ch->drives[drive])
		return;
	ata_signature(ch->drives[drive], &task);
	put_task(ch, drive, &task);
}

/* Of both drives, when a reset or a diagnostic is over. */
static void set_signatures(struct channel *ch)
{
	ch->device_register = 0;
	set_signature(ch, 0);
	set_signature(ch, 1);
}

static void soft_reset(struct channel *ch)
{
	drop_transfer(ch);
	withdraw_interrupt(ch);
	for (unsigned n = 0; n < 2; n++)
		if (ch->drives[n])
			ata_soft_reset(ch->drives[n]);
	set_signatures(ch);
}

static void diagnose(struct channel *ch)
{
	set_signatures(ch);
	assert_interrupt(ch);
}

/* ATA/ATAPI-7, 6.10: without an interrupt, at any time. */
static void device_reset(struct channel *ch)
{
	uint8_t device = ch->device_register & 0xf0;

	drop_transfer(ch);
	ata_soft_reset(drive_of(ch));
	set_signature(ch, selected(ch));
	ch->device_register = device;
}

/* ---- commands ---- */

static void begin_packet(struct channel *ch)
{
	uint8_t *now = registers_of(ch, selected(ch));
	uint32_t limit = now[LBA_MID] | (uint32_t)now[LBA_HIGH] << 8;

	/* Blocks end at even bytes; 0 would be none. */
	limit = limit ? limit & 0xfffe : 0xfffe;
	ch->block = MAX(limit, 2);
	ch->phase = PACKET;
	ch->at = ch->filled = 0;
	ch->end = ATA_PACKET_SIZE;
	ch->left = 0;
	memset(ch->cdb, 0, sizeof(ch->cdb));
	set_status(ch, ATA_DRDY | ATA_DSC | ATA_DRQ);
	set_reason(ch, ATA_REASON_COMMAND);
}

/* The packet is there. */
static void run_packet(struct channel *ch)
{
	uint32_t size = 0;

	memcpy(ch->packet.cdb, ch->cdb, sizeof(ch->packet.cdb));
	ch->left = ata_packet_begin(&ch->packet);
	store_packet(ch);
	ch->at = ch->filled = 0;
	if (ata_packet_sense(drive_of(ch), &ch->packet, ch->buffer, &size)) {
		deliver(ch, size);
	} else if (ch->left && !ch->dma) {
		ch->phase = OUT;
		ch->filled = ch->left;
		offer_block(ch, true);
		return;
	} else if (ch->left) {
		/* Parameters by DMA: nobody sends them so. */
		struct ata_task task = get_task(ch, ATA_PACKET);

		ata_end(&task, -ENOTSUP);
		end_with(ch, &task);
	} else {
		begin_work(ch);
	}
	work_here(ch);
}

static void begin_transfer(struct channel *ch, const struct ata_transfer *t)
{
	ch->error[selected(ch)] = 0;
	ch->kind = (uint8_t)t->kind;
	ch->dma = t->dma;
	ch->fua = t->fua;
	ch->lba = t->lba;
	ch->block = t->block;
	ch->at = ch->filled = 0;
	ch->gathers = false;
	ch->left = t->kind == ATA_TRIM ? t->size : t->count;
	switch (t->kind) {
	case ATA_DATA_IN:
		memcpy(ch->buffer, t->data, t->size);
		read_buffer(ch, t->size);
		break;
	case ATA_COMMAND: begin_packet(ch); break;
	case ATA_WRITE:
		if (!t->dma) {
			write_buffer(ch, false);
			break;
		}
		/* fallthrough */
	default: begin_work(ch); work_here(ch);
	}
}

static void begin_command(struct channel *ch, uint8_t command)
{
	struct ata_drive *d = drive_of(ch);
	struct ata_transfer t;
	struct ata_task task;

	if (ch->control & CONTROL_SRST)
		return;
	if (d && ata_is_cd(d) && command == ATA_DEVICE_RESET) {
		device_reset(ch);
		return;
	}
	if (ch->phase != IDLE || ch->under_way)
		return;
	withdraw_interrupt(ch);
	if (command == ATA_DIAGNOSTIC && !is_empty(ch)) {
		diagnose(ch);
	} else if (d) {
		task = get_task(ch, command);
		ata_begin(d, &task, &t);
		if (t.kind == ATA_NOTHING) {
			ch->kind = ATA_NOTHING;
			end_with(ch, &task);
		} else {
			begin_transfer(ch, &t);
		}
	}
}

/* ---- ports ---- */

/* The block that was offered has been read, or written. */
static void end_block(struct channel *ch)
{
	if (ch->phase == PACKET) {
		run_packet(ch);
	} else if (ch->at < ch->filled) {
		offer_block(ch, true);
	} else if (ch->phase == OUT) {
		begin_work(ch);
		work_here(ch);
	} else if (ch->kind == ATA_COMMAND ? ch->packet_blocks : ch->left) {
		ch->at = ch->filled = 0;
		begin_work(ch);
		work_here(ch);
	} else if (ch->kind == ATA_COMMAND) {
		deliver(ch, 0);
	} else {
		ch->phase = IDLE;
		set_status(ch, ATA_DRDY | ATA_DSC);
	}
}

static uint64_t read_data(struct channel *ch, unsigned size)
{
	uint32_t part = MIN(size, ch->end - ch->at);
	uint64_t value = 0;

	if (ch->phase != IN)
		return ~0ull;
	memcpy(&value, ch->buffer + ch->at, part);
	ch->at += part;
	if (ch->at == ch->end)
		end_block(ch);
	return value;
}

static void write_data(struct channel *ch, unsigned size, uint64_t value)
{
	uint32_t part = MIN(size, ch->end - ch->at);

	if (ch->phase != OUT && ch->phase != PACKET)
		return;
	memcpy((ch->phase == OUT ? ch->buffer : ch->cdb) + ch->at, &value, part);
	ch->at += part;
	if (ch->at == ch->end)
		end_block(ch);
}

/* A drive 1 that is not there drive 0 answers for: with zeros. */
static uint8_t status_of(const struct channel *ch)
{
	if (is_empty(ch))
		return 0xff;
	if (!drive_of(ch))
		return 0;
	return ch->control & CONTROL_SRST || ch->under_way ? ATA_BSY : ch->status[selected(ch)];
}

static uint8_t read_register(struct channel *ch, unsigned n)
{
	unsigned drive = drive_of(ch) ? selected(ch) : !selected(ch);
	uint8_t status;

	switch (n) {
	case STATUS:
		status = status_of(ch);
		withdraw_interrupt(ch);
		return status;
	case DEVICE: return is_empty(ch) ? 0xff : ch->device_register | 0xa0;
	case ERROR: return is_empty(ch) ? 0xff : ch->error[drive];
	default:
		if (is_empty(ch))
			return 0xff;
		return (ch->control & CONTROL_HOB ? before_of(ch, drive) : registers_of(ch, drive))[n];
	}
}

/* Both drives see what is written. */
static void write_register(struct channel *ch, unsigned n, uint8_t value)
{
	ch->control &= (uint8_t)~CONTROL_HOB;
	if (n == COMMAND) {
		begin_command(ch, value);
		return;
	}
	if (ch->phase != IDLE || ch->under_way || ch->control & CONTROL_SRST)
		return;
	if (n == DEVICE) {
		ch->device_register = value;
		return;
	}
	for (unsigned drive = 0; drive < 2; drive++) {
		before_of(ch, drive)[n] = registers_of(ch, drive)[n];
		registers_of(ch, drive)[n] = value;
	}
}

static struct channel *channel_of(struct device *device) { return container_of(device, struct channel, device); }

static uint64_t port_read(struct device *device, uint64_t offset, unsigned size)
{
	struct channel *ch = channel_of(device);
	uint64_t value = 0;

	if (offset == DATA)
		return read_data(ch, size);
	for (unsigned n = 0; n < size; n++)
		value |= (uint64_t)(offset + n < REGISTERS ? read_register(ch, (unsigned)offset + n) : 0xff) << 8 * n;
	return value;
}

static void port_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct channel *ch = channel_of(device);

	if (offset == DATA) {
		write_data(ch, size, value);
		return;
	}
	for (unsigned n = 0; n < size && offset + n < REGISTERS; n++)
		write_register(ch, (unsigned)offset + n, (uint8_t)(value >> 8 * n));
}

static uint64_t control_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)offset, (void)size;
	return status_of(channel_of(device));
}

static void control_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct channel *ch = channel_of(device);
	bool resets = value & ~(uint64_t)ch->control & CONTROL_SRST;

	(void)offset, (void)size;
	ch->control = (uint8_t)value & (CONTROL_NIEN | CONTROL_SRST | CONTROL_HOB);
	if (resets)
		soft_reset(ch);
	update_line(ch);
}

/* ---- bus master ---- */

static void bm_set_command(struct channel *ch, uint8_t value)
{
	bool starts = value & ~ch->bm_command & BM_START;

	ch->bm_command = value & BM_COMMAND_BITS;
	if (!(value & BM_START))
		ch->bm_status &= (uint8_t)~BM_ACTIVE;
	if (!starts)
		return;
	ch->prd[PRD_NEXT] = ch->table;
	ch->prd[PRD_LEFT] = 0;
	ch->prd_last = false;
	ch->bm_status |= BM_ACTIVE;
	if (ch->phase == WAIT && is_running(ch)) {
		begin_work(ch);
		work_here(ch);
	}
}

static uint8_t bm_read_byte(const struct channel *ch, unsigned n)
{
	switch (n) {
	case BM_COMMAND: return ch->bm_command;
	case BM_STATUS: return ch->bm_status;
	case BM_TABLE ... BM_SIZE - 1: return (uint8_t)(ch->table >> 8 * (n - BM_TABLE));
	default: return 0;
	}
}

static void bm_write_byte(struct channel *ch, unsigned n, uint8_t value)
{
	unsigned shift = 8 * (n & 3);

	switch (n) {
	case BM_COMMAND: bm_set_command(ch, value); break;
	case BM_STATUS:
		ch->bm_status &= (uint8_t) ~(value & (BM_ERROR | BM_INTERRUPT)) & ~BM_CAPABLE;
		ch->bm_status |= value & BM_CAPABLE;
		break;
	case BM_TABLE ... BM_SIZE - 1:
		ch->table = ((ch->table & ~(0xffu << shift)) | (uint32_t)value << shift) & ~3u;
		break;
	default: break;
	}
}

static uint64_t bm_read(struct device *device, uint64_t offset, unsigned size)
{
	struct ide *ide = (struct ide *)device;
	uint64_t value = 0;

	for (unsigned n = 0; n < size; n++)
		value |= (uint64_t)bm_read_byte(&ide->channels[offset / BM_SIZE], (offset + n) % BM_SIZE) << 8 * n;
	return value;
}

static void bm_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct ide *ide = (struct ide *)device;

	for (unsigned n = 0; n < size; n++)
		bm_write_byte(&ide->channels[offset / BM_SIZE], (offset + n) % BM_SIZE, (uint8_t)(value >> 8 * n));
}

/* ---- channels as devices ---- */

static void channel_reset(struct device *device)
{
	struct channel *ch = channel_of(device);

	ch->goes_on = false;
	update_line(ch);
	set_signatures(ch);
}

static void channel_pause(struct device *device)
{
	struct channel *ch = channel_of(device);

	lock_take(device->lock);
	ch->paused = true;
	lock_drop(device->lock);
	for (unsigned n = 0; n < 2; n++)
		if (ch->drives[n] && ata_block(ch->drives[n]))
			block_drain(ata_block(ch->drives[n]));
}

static void channel_resume(struct device *device)
{
	struct channel *ch = channel_of(device);

	lock_take(device->lock);
	ch->paused = false;
	ch->here_left = 0;
	if (!ch->under_way)
		work(ch);
	lock_drop(device->lock);
}

static void channel_destroy(struct device *device)
{
	struct channel *ch = channel_of(device);

	bus_unmap(device->bus, BUS_PIO, &ch->registers);
	bus_unmap(device->bus, BUS_PIO, &ch->control_port);
	irq_line_free(&ch->line);
}

static bool has_sane_buffer(const struct channel *ch)
{
	bool moves = ch->phase == IN || ch->phase == OUT, sectors = ch->kind == ATA_READ || ch->kind == ATA_WRITE;

	if (!ch->block)
		return false;
	if (ch->phase == PACKET)
		return ch->at < ch->end && ch->end == ATA_PACKET_SIZE && ch->kind == ATA_COMMAND;
	if (ch->at > ch->filled || (ch->kind == ATA_TRIM && !ch->gathers && (ch->at | ch->filled) % 8))
		return false;
	if (moves && (ch->at >= ch->end || ch->end > ch->filled))
		return false;
	if (ch->phase == OUT && ch->kind != ATA_COMMAND && (ch->kind != ATA_WRITE || ch->filled % ATA_SECTOR))
		return false;
	if (ch->phase == WORK && ch->kind == ATA_WRITE && !ch->dma && (!ch->filled || ch->filled % ATA_SECTOR))
		return false;
	return !sectors || ch->block % ATA_SECTOR == 0;
}

/* What a transfer in its middle cannot be. */
static int channel_loaded(void *object, uint16_t version, struct error *err)
{
	const struct channel *ch = object;
	const struct ata_drive *d = drive_of(ch);
	bool works = ch->phase == WORK || ch->phase == WAIT;

	(void)version;
	if (ch->phase == IDLE)
		return 0;
	if (!d || ch->kind == ATA_NOTHING || (ch->kind != ATA_DATA_IN && ata_is_cd(d) != (ch->kind == ATA_COMMAND)) ||
	    (works && ch->kind == ATA_DATA_IN) || (ch->phase == WAIT && (!ch->dma || ch->kind == ATA_FLUSH)))
		return error_set(err, EINVAL, "%s: a transfer of kind %u in phase %u, which there is not",
				 ch->device.name, ch->kind, ch->phase);
	if (!has_sane_buffer(ch) || (ch->kind == ATA_COMMAND && ch->left > ATA_PIECE - 1) ||
	    (ch->kind == ATA_TRIM && ch->left > ATA_TRIM_BLOCKS * ATA_SECTOR))
		return error_set(err, EINVAL,
				 "%s: a transfer of %u that is at byte %u of %u, in a block that ends at %u",
				 ch->device.name, ch->left, ch->at, ch->filled, ch->end);
	return 0;
}

STATE_DESC(channel_state_desc, "ide-channel", 1, struct channel, CHANNEL_STATE, .loaded = channel_loaded);

static const struct device_ops channel_ops = { .state = &channel_state_desc,
					       .reset = channel_reset,
					       .pause = channel_pause,
					       .resume = channel_resume,
					       .destroy = channel_destroy };

static int channel_create(struct ide *ide, unsigned n, struct error *err)
{
	static const struct {
		uint16_t registers, control;
		uint8_t line;
	} places[CHANNELS] = { { 0x1f0, 0x3f6, 14 }, { 0x170, 0x376, 15 } };
	struct channel *ch = &ide->channels[n];
	struct bus *bus = ide->pci.device.bus;
	int rc;

	ch->ide = ide;
	ch->in_line = clock_kind(bus->clock) == CLOCK_VIRTUAL;
	ch->own.done = own_done;
	ch->scsi.block.done = scsi_done;
	device_init_sharing(&ch->device, bus, "ide-channel", &channel_ops, ide->pci.device.lock);
	state_reset(&channel_state_desc, ch);
	ch->line = irq_isa_line(&ch->device, places[n].line);
	ch->registers = (struct bus_range){ .start = places[n].registers,
					    .size = REGISTERS,
					    .sizes = 1 | 2 | 4,
					    .device = &ch->device,
					    .read = port_read,
					    .write = port_write };
	ch->control_port = (struct bus_range){ .start = places[n].control,
					       .size = 1,
					       .sizes = 1,
					       .device = &ch->device,
					       .read = control_read,
					       .write = control_write };
	rc = bus_map(bus, BUS_PIO, &ch->registers, err);
	return rc ? rc : bus_map(bus, BUS_PIO, &ch->control_port, err);
}

/* ---- the function ---- */

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	(void)offset, (void)size;
	atomic_store(&((struct ide *)pci)->master, pci->config[0x04] & 4);
}

static void ide_reset(struct device *device)
{
	struct ide *ide = (struct ide *)device;

	pci_reset(&ide->pci);
	config_written(&ide->pci, 0, 0);
}

static int ide_loaded(void *object, uint16_t version, struct error *err)
{
	(void)version;
	return pci_loaded(object, err);
}

static void ide_attach(struct device *device)
{
	struct ide *ide = (struct ide *)device;

	pci_attach(&ide->pci);
	config_written(&ide->pci, 0, 0);
}

static void ide_destroy(struct device *device)
{
	pci_remove((struct pci_device *)device);
	free(device);
}

STATE_DESC(ide_state_desc, "piix3-ide", 1, struct ide, PCI_CONFIG_STATE, .loaded = ide_loaded);

static const struct device_ops ide_ops = {
	.state = &ide_state_desc, .reset = ide_reset, .attach = ide_attach, .destroy = ide_destroy
};

static int ide_create(struct bus *bus, const void *options, struct error *err)
{
	struct ide *ide = calloc(1, sizeof(*ide));
	struct pci_device *pci = &ide->pci;
	int rc;

	(void)options;
	if (!ide)
		return error_set_errno(err, ENOMEM, "ide");
	device_init(&pci->device, bus, "piix3-ide", &ide_ops);
	pci_init_config(pci, 0x8086, 0x7010, 0x01018000, 0, 0, 0); /* a bus master, at compatible ports */
	store_le16(&pci->config[0x06], 0x0280);
	/* Both channels are decoded, as firmware leaves them; their ports are whatever is said here. */
	store_le16(&pci->config[IDETIM], 0x8000);
	store_le16(&pci->config[IDETIM + 2], 0x8000);
	memset(&pci->config_mask[IDETIM], 0xff, 5);
	pci->bars[BAR_DMA].size = CHANNELS * BM_SIZE;
	pci->bars[BAR_DMA].io = true;
	pci->bars[BAR_DMA].range.sizes = 1 | 2 | 4;
	pci->bars[BAR_DMA].range.read = bm_read;
	pci->bars[BAR_DMA].range.write = bm_write;
	pci->config_written = config_written;
	rc = pci_add(bus, pci, PIIX_SLOT, 1, err);
	for (unsigned n = 0; !rc && n < CHANNELS; n++)
		rc = channel_create(ide, n, err);
	return rc;
}

/* ---- drives ---- */

#define DRIVES (2 * CHANNELS)

static struct ide *find_ide(struct bus *bus, struct error *err)
{
	if (!bus_find_device(bus, "piix3-ide", 0) && device_create_own(bus, ide_create, NULL, err))
		return NULL;
	return (struct ide *)bus_find_device(bus, "piix3-ide", 0);
}

static struct ata_drive **place_of(struct ide *ide, unsigned n) { return &ide->channels[n / 2].drives[n % 2]; }

static bool boot_path(const struct ata_drive *d, struct device_boot *boot)
{
	const struct channel *ch = d->controller;
	char behind[32];

	snprintf(behind, sizeof(behind), "/drive@%u/disk@%u", d->number / 2, d->number % 2);
	pci_boot_path(&ch->ide->pci, "ide", behind, boot);
	return true;
}

static void drive_gone(struct ata_drive *d)
{
	struct channel *ch = d->controller;

	if (ch->drives[selected(ch)] == d)
		drop_transfer(ch);
	ch->drives[d->number % 2] = NULL;
}

/* -1 with a sentence. */
static int free_place(struct ide *ide, const unsigned order[DRIVES], int wanted, struct error *err)
{
	if (wanted >= 0 && *place_of(ide, (unsigned)wanted))
		return error_set(err, EBUSY, "ide: there is a drive %d already", wanted), -1;
	if (wanted >= 0)
		return wanted;
	for (unsigned n = 0; n < DRIVES; n++)
		if (!*place_of(ide, order[n]))
			return (int)order[n];
	error_set(err, EBUSY, "ide: there are %u drives already", DRIVES);
	return -1;
}

static int add_drive(struct bus *bus, const struct disk_options *o, bool cd, int wanted, struct error *err)
{
	/* CDs first where PCs had them: on the second channel. */
	static const unsigned orders[2][DRIVES] = { { 0, 1, 2, 3 }, { 2, 3, 0, 1 } };
	struct ide *ide = find_ide(bus, err);
	int n = ide ? free_place(ide, orders[cd], wanted, err) : -1;
	struct ata_drive *d = NULL;

	if (n >= 0)
		d = (cd ? ata_cd_create : ata_disk_create)(bus, ide->pci.device.lock, (unsigned)n, o, err);
	if (!d)
		return err ? -err->code : -EINVAL;
	d->controller = &ide->channels[n / 2];
	d->gone = drive_gone;
	d->boot_path = boot_path;
	*place_of(ide, (unsigned)n) = d;
	set_signature(&ide->channels[n / 2], (unsigned)n % 2);
	return 0;
}

int ide_disk_create(struct bus *bus, const struct disk_options *o, struct error *err)
{
	return add_drive(bus, o, false, -1, err);
}

int ide_cd_create(struct bus *bus, const struct disk_options *o, struct error *err)
{
	return add_drive(bus, o, true, -1, err);
}

/* clang-format off */
#define UNIT_OPTION(_, T)                                                                                              \
	_(T, TEXT, unit, 0, 0, NULL, "0, 1: on the first channel; 2, 3: on the second; by default one that is free")
#define IDE_DISK_OPTIONS(_, T)                                                                                         \
	DISK_OPTIONS(_, T)                                                                                             \
	UNIT_OPTION(_, T)
#define IDE_CD_OPTIONS(_, T)                                                                                           \
	_(T, TEXT, file, 0, 0, NULL, "the disc's image, or a block device; without it the drive is empty")             \
	_(T, TEXT, format, 0, 0, "auto", "raw, qcow2, or auto: what its first bytes say")                              \
	_(T, NUMBER, boot, 1, DEVICE_BOOT_ORDER_MOST, NULL, "its turn when a firmware looks for a system")             \
	UNIT_OPTION(_, T)
/* clang-format on */

struct ide_disk_options {
	DEVICE_OPTION_FIELDS(IDE_DISK_OPTIONS)
};

struct ide_cd_options {
	DEVICE_OPTION_FIELDS(IDE_CD_OPTIONS)
};

/* -1: any; or -EINVAL. */
static int unit_of(const char *unit, int *n, struct error *err)
{
	*n = -1;
	if (!unit)
		return 0;
	if (*unit < '0' || *unit > '3' || unit[1])
		return error_set(err, EINVAL, "ide: option 'unit' is '%.64s'; expected a number from 0 to 3", unit);
	*n = *unit - '0';
	return 0;
}

static int disk_create(struct bus *bus, const void *options, struct error *err)
{
	const struct ide_disk_options *o = options;
	int n, rc = unit_of(o->unit, &n, err);

	return rc ? rc : add_drive(bus, &DISK_OPTIONS_OF(o), false, n, err);
}

static int cd_create(struct bus *bus, const void *options, struct error *err)
{
	const struct ide_cd_options *o = options;
	struct disk_options disk = DISC_OPTIONS_OF(o);
	int n, rc = unit_of(o->unit, &n, err);

	return rc ? rc : add_drive(bus, &disk, true, n, err);
}

const struct device_type ide_type = {
	.name = "ide",
	.help = "an IDE controller, for --disk FILE,bus=ide and --cdrom FILE,bus=ide; made with the first of them "
		"otherwise",
	.most = 1,
	.create = ide_create,
};

const struct device_type ide_disk_type = {
	.name = "ide-disk",
	.help = "a disk on the IDE controller",
	.most = DRIVES,
	.starts = true,
	DEVICE_OPTIONS(IDE_DISK_OPTIONS, struct ide_disk_options),
	.create = disk_create,
};

const struct device_type ide_cd_type = {
	.name = "ide-cd",
	.help = "a CD or DVD drive on the IDE controller",
	.most = DRIVES,
	.starts = true,
	DEVICE_OPTIONS(IDE_CD_OPTIONS, struct ide_cd_options),
	.create = cd_create,
};
