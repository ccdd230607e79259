/*
 * AHCI's commands: fetched from the guest's list, done by the drive with data straight in the guest's memory, their outcome as a FIS (AHCI 1.3, 4 and 5.3).
 */
#include "devices/ata/ahci.h"

#include <errno.h>
#include <stdlib.h>

#define HERE_MOST   (1u << 20) /* bytes that are moved at once where the guest asks */
#define PIECE	    (512u << 10)
#define HEADER_SIZE 32u
#define TABLE_ACMD  0x40u
#define TABLE_PRDT  0x80u
#define PRD_SIZE    16u

/* The header's first words */
#define HEADER_LENGTH(w)  ((w)&0x1f) /* of the command FIS, in words */
#define HEADER_ENTRIES(w) ((w) >> 16)

/* FISes: Serial ATA 3.0, 10.3; where each goes: AHCI 1.3, 4.2.1 */
enum { FIS_H2D = 0x27, FIS_D2H = 0x34, FIS_BITS = 0xa1, FIS_DMA = 0x41, FIS_PIO = 0x5f };
enum { AREA_DMA = 0x00, AREA_PIO = 0x20, AREA_D2H = 0x40, AREA_BITS = 0x58 };
#define FIS_SIZE      20u
#define FIS_COMMAND   0x80u /* else a device control */
#define FIS_INTERRUPT 0x40u
#define FIS_TO_HOST   0x20u
#define CONTROL_SRST  0x04u

static struct guest_mem *mem_of(const struct ahci_port *p) { return p->device.bus->mem; }

/* ---- FISes ---- */

/* Received where the guest has said; into no memory: a host bus error. */
static void receive(struct ahci_port *p, unsigned area, const uint8_t *fis, unsigned size)
{
	if (p->command & CMD_FIS && mem_write(mem_of(p), gpa(p->received + area), fis, size)) {
		p->halted = true;
		p->status |= IS_HOST;
	}
}

static void put_task(uint8_t *fis, const struct ata_task *task)
{
	fis[2] = task->status;
	fis[3] = task->error;
	for (unsigned n = 0; n < 3; n++) {
		fis[4 + n] = (uint8_t)(task->lba >> 8 * n);
		fis[8 + n] = (uint8_t)(task->lba >> (24 + 8 * n));
	}
	fis[7] = task->device;
	store_le16(fis + 12, task->count);
}

static void set_task_file(struct ahci_port *p, uint8_t status, uint8_t error)
{
	p->task_file = status | (uint32_t)error << 8;
}

void ahci_send_task(struct ahci_port *p, const struct ata_task *task, bool interrupt)
{
	uint8_t fis[FIS_SIZE] = { FIS_D2H, interrupt ? FIS_INTERRUPT : 0 };

	set_task_file(p, task->status, task->error);
	put_task(fis, task);
	receive(p, AREA_D2H, fis, sizeof(fis));
	ahci_event(p, (interrupt ? IS_REGISTER : 0) | (task->status & ATA_ERR ? IS_TASK_FILE : 0));
}

/* In front of data that the host reads by PIO; with the status behind them, for which no other FIS comes. */
static void send_pio_setup(struct ahci_port *p, const struct ata_task *task, uint32_t size)
{
	uint8_t fis[FIS_SIZE] = { FIS_PIO, FIS_INTERRUPT | FIS_TO_HOST };

	set_task_file(p, task->status, task->error);
	put_task(fis, task);
	fis[2] = ATA_DRDY | ATA_DSC | ATA_DRQ;
	fis[15] = task->status;
	store_le16(fis + 16, (uint16_t)size);
	receive(p, AREA_PIO, fis, sizeof(fis));
	ahci_event(p, IS_PIO);
}

static void send_dma_setup(struct ahci_port *p, const struct ahci_command *c)
{
	uint8_t fis[28] = { FIS_DMA, c->transfer.kind == ATA_READ ? FIS_TO_HOST : 0 };

	fis[4] = (uint8_t)c->slot;
	store_le32(fis + 20, c->transfer.size);
	receive(p, AREA_DMA, fis, sizeof(fis));
}

/* The outcome of a queued command. */
static void send_bits(struct ahci_port *p, const struct ata_task *task, uint32_t slots)
{
	uint8_t fis[8] = { FIS_BITS, FIS_INTERRUPT, task->status & 0x77, task->error };

	store_le32(fis + 4, slots);
	set_task_file(p, task->status, task->error);
	p->queued &= ~slots;
	receive(p, AREA_BITS, fis, sizeof(fis));
	ahci_event(p, IS_BITS | (task->status & ATA_ERR ? IS_TASK_FILE : 0));
}

/* ---- the end ---- */

static bool is_done(const struct ahci_command *c) { return !(c->port->active & BIT(c->slot)); }

static void leave(struct ahci_command *c)
{
	c->port->active &= ~(uint32_t)BIT(c->slot);
	if (!c->port->active)
		c->port->alone = false;
}

/* Where the list or a table should be is no memory, or the FIS is none. */
static void fail(struct ahci_command *c, uint32_t status)
{
	struct ahci_port *p = c->port;

	leave(c);
	p->pending &= ~(uint32_t)BIT(c->slot);
	p->halted = true;
	ahci_event(p, status);
}

/* As the guest's driver finds it in front of its table. */
static void store_moved(const struct ahci_command *c)
{
	uint8_t moved[4];

	store_le32(moved, c->moved);
	mem_write(mem_of(c->port), gpa(c->header + 4), moved, sizeof(moved));
}

static void end_queued(struct ahci_command *c)
{
	struct ahci_port *p = c->port;

	if (!(c->task.status & ATA_ERR)) {
		send_bits(p, &c->task, (uint32_t)BIT(c->slot));
		return;
	}
	/* The drive forgets all that were queued. */
	ata_queue_failed(p->drive, c->slot, &c->task);
	ahci_drop(p);
	p->halted = true;
	send_bits(p, &c->task, 0);
}

/* The task says how. */
static void end_task(struct ahci_command *c)
{
	struct ahci_port *p = c->port;
	bool good = !(c->task.status & ATA_ERR);

	leave(c);
	p->pending &= ~(uint32_t)BIT(c->slot);
	if (c->transfer.kind == ATA_COMMAND)
		c->task.count = ATA_REASON_COMMAND | ATA_REASON_IN;
	store_moved(c);
	if (c->queued) {
		end_queued(c);
		return;
	}
	if (good)
		p->issued &= ~(uint32_t)BIT(c->slot);
	else
		p->halted = true;
	if (good && !c->transfer.dma && (c->transfer.kind == ATA_READ || c->transfer.kind == ATA_DATA_IN))
		send_pio_setup(p, &c->task, MIN(c->moved, c->transfer.block));
	else
		ahci_send_task(p, &c->task, true);
}

/* 0 or -errno. What has failed is at transfer.lba. */
static void end(struct ahci_command *c, int result)
{
	ata_end(&c->task, result);
	if (result && (c->transfer.kind == ATA_READ || c->transfer.kind == ATA_WRITE))
		c->task.lba = c->transfer.lba;
	end_task(c);
}

/* There are no regions for what is to be moved, or they are no memory. */
static void starve(struct ahci_command *c)
{
	c->port->status |= c->regions.failed ? IS_HOST : IS_OVERFLOW;
	end(c, -EFAULT);
}

/* ---- what is to be done next; each returns true where that is c->request ---- */

static bool ask(struct ahci_command *c, enum block_op op, uint64_t offset, uint64_t size)
{
	c->own.op = op;
	c->own.offset = offset;
	c->own.size = size;
	c->own.iov = c->iov;
	c->own.iov_count = (int)c->pieces.count;
	c->own.fua = c->transfer.fua;
	c->request = &c->own;
	return true;
}

static bool prepare_sectors(struct ahci_command *c)
{
	struct ata_transfer *t = &c->transfer;
	uint32_t size = ata_map_blocks(&c->regions, &c->pieces, ATA_SECTOR,
				       (uint32_t)MIN((uint64_t)t->count * ATA_SECTOR, PIECE), t->kind == ATA_READ);

	if (size)
		return ask(c, t->kind == ATA_READ ? BLOCK_READ : BLOCK_WRITE, t->lba * ATA_SECTOR, size);
	starve(c);
	return false;
}

/* Between the port's buffer, or the task's data, and the regions. False: there are too few. */
static bool copy(struct ahci_command *c, uint8_t *data, uint32_t size, bool to_memory)
{
	if (ata_copy_regions(&c->regions, data, size, to_memory) < size) {
		starve(c);
		return false;
	}
	c->moved += size;
	return true;
}

static bool prepare_trim(struct ahci_command *c)
{
	struct ahci_port *p = c->port;

	if (!c->moved && !copy(c, p->buffer, c->transfer.size, false))
		return false;
	for (; c->at < c->transfer.size; c->at += 8) {
		uint64_t offset, size;
		bool outside;

		if (!ata_trim_range(p->drive, p->buffer + c->at, &offset, &size, &outside))
			continue;
		if (!outside)
			return ask(c, BLOCK_DISCARD, offset, size);
		end(c, -EINVAL);
		return false;
	}
	end(c, 0);
	return false;
}

static bool prepare_data(struct ahci_command *c)
{
	if (copy(c, c->transfer.data, c->transfer.size, true))
		end(c, 0);
	return false;
}

/* ---- packets ---- */

static void end_piece(struct ahci_command *c)
{
	bool blocks = c->packet.blocks, good = ata_packet_done(c->port->drive, &c->packet, &c->scsi, &c->task);

	if (!good) {
		end_task(c);
		return;
	}
	if (blocks) {
		ata_pieces_written(mem_of(c->port), &c->pieces);
		c->moved += (uint32_t)c->scsi.moved;
	} else if (c->scsi.in.size && !copy(c, c->port->buffer, (uint32_t)c->scsi.moved, true)) {
		return;
	}
	if (!c->packet.blocks)
		end_task(c);
}

/* REQUEST SENSE of what was kept, or what the packet wants from the guest. False: it has ended. */
static bool begin_packet(struct ahci_command *c)
{
	struct ahci_port *p = c->port;
	uint32_t size = 0;

	c->at = 1;
	c->parameters = ata_packet_begin(&c->packet);
	if (ata_packet_sense(p->drive, &c->packet, p->buffer, &size)) {
		if (copy(c, p->buffer, size, true))
			end(c, 0);
		return false;
	}
	return !c->parameters || copy(c, p->buffer, c->parameters, false);
}

static bool prepare_packet(struct ahci_command *c)
{
	struct ahci_port *p = c->port;
	uint32_t most = ATA_PIECE;

	if (c->goes_on)
		return true;
	if (!c->at && !begin_packet(c))
		return false;
	if (c->packet.blocks) {
		most = ata_map_blocks(&c->regions, &c->pieces, SCSI_CD_BLOCK,
				      (uint32_t)MIN((uint64_t)c->packet.blocks * SCSI_CD_BLOCK, PIECE), true);
		if (!most) {
			starve(c);
			return false;
		}
	} else {
		c->iov[0] = (struct iovec){ p->buffer, c->parameters ? c->parameters : most };
		c->pieces.count = 1;
	}
	c->scsi = (struct scsi_command){ .block.done = c->scsi.block.done };
	ata_packet_piece(p->drive, &c->packet, &c->scsi, most);
	*(c->parameters ? &c->scsi.out : &c->scsi.in) =
		(struct scsi_data){ c->iov, (int)c->pieces.count, c->parameters ? c->parameters : most };
	c->goes_on = scsi_begin(&c->scsi);
	c->request = &c->scsi.block;
	if (!c->goes_on)
		end_piece(c);
	return c->goes_on;
}

/* ---- the work ---- */

static bool prepare(struct ahci_command *c)
{
	switch (c->transfer.kind) {
	case ATA_READ:
	case ATA_WRITE: return prepare_sectors(c);
	case ATA_FLUSH: c->pieces.count = 0; return ask(c, BLOCK_FLUSH, 0, 0);
	case ATA_TRIM: return prepare_trim(c);
	case ATA_DATA_IN: return prepare_data(c);
	default: return prepare_packet(c);
	}
}

static void sectors_done(struct ahci_command *c)
{
	uint32_t size = (uint32_t)c->own.size;

	if (c->transfer.kind == ATA_READ)
		ata_pieces_written(mem_of(c->port), &c->pieces);
	if (!c->own.result) {
		c->moved += size;
		c->transfer.lba += size / ATA_SECTOR;
		c->transfer.count -= size / ATA_SECTOR;
	}
	if (c->own.result || !c->transfer.count)
		end(c, c->own.result);
}

static void complete(struct ahci_command *c)
{
	switch (c->transfer.kind) {
	case ATA_READ:
	case ATA_WRITE: sectors_done(c); break;
	case ATA_FLUSH: end(c, c->own.result); break;
	case ATA_TRIM:
		c->at += 8;
		if (c->own.result)
			end(c, c->own.result);
		break;
	default:
		c->goes_on = scsi_go_on(&c->scsi);
		if (!c->goes_on)
			end_piece(c);
	}
}

static bool done_here(struct ahci_command *c, struct block *block)
{
	struct block_request *r = c->request;
	uint64_t size = r->op == BLOCK_READ || r->op == BLOCK_WRITE ? r->size : 0;

	if (size > c->port->here_left || block_try(block, r))
		return false;
	c->port->here_left -= size;
	return true;
}

/* Until it has ended, or a worker has the next turn. While the machine is paused it stops between two pieces, and begins anew. */
static void work(struct ahci_command *c)
{
	struct ahci_port *p = c->port;

	while (!is_done(c)) {
		struct block *block = ata_block(p->drive);

		if (p->paused && !c->goes_on) {
			leave(c);
			return;
		}
		if (!prepare(c))
			continue;
		if (p->in_line) {
			block_do(block, c->request);
		} else if (!done_here(c, block)) {
			block_submit(block, c->request);
			return;
		}
		complete(c);
	}
}

/* In a worker's thread. */
static void done(struct ahci_command *c)
{
	struct ahci_port *p = c->port;

	lock_take(p->device.lock);
	p->here_left = 0;
	if (!c->dropped) {
		complete(c);
		work(c);
	} else {
		/* The target is told, as it has begun. */
		c->goes_on = c->goes_on && scsi_go_on(&c->scsi);
		if (c->goes_on)
			block_submit(scsi_block(c->scsi.target), c->request);
		else
			leave(c);
	}
	ahci_run(p, false);
	lock_drop(p->device.lock);
}

static void own_done(struct block_request *r) { done(container_of(r, struct ahci_command, own)); }
static void scsi_done(struct block_request *r) { done(container_of(r, struct ahci_command, scsi.block)); }

/* ---- the beginning ---- */

static bool fetch_region(struct ata_regions *r)
{
	uint8_t entry[PRD_SIZE];

	if (!r->entries) {
		r->last = true;
		return true;
	}
	if (mem_read(r->mem, gpa(r->next), entry, sizeof(entry)))
		return false;
	r->at = load_le64(entry) & ~1ull;
	r->left = (load_le32(entry + 12) & 0x3ffffe) + 2;
	r->next += PRD_SIZE;
	r->last = !--r->entries;
	return true;
}

static void get_task(struct ata_task *task, const uint8_t *fis)
{
	*task = (struct ata_task){ .command = fis[2],
				   .device = fis[7],
				   .feature = (uint16_t)(fis[3] | fis[11] << 8),
				   .count = load_le16(fis + 12),
				   .lba = fis[4] | (uint32_t)fis[5] << 8 | (uint32_t)fis[6] << 16 |
					  (uint64_t)fis[8] << 24 | (uint64_t)fis[9] << 32 | (uint64_t)fis[10] << 40 };
}

/* The header, the FIS and the packet. False: it has failed. */
static bool fetch(struct ahci_command *c, uint8_t fis[FIS_SIZE])
{
	struct ahci_port *p = c->port;
	uint8_t header[HEADER_SIZE];
	uint64_t table;
	uint32_t how;

	c->header = p->list + (uint64_t)c->slot * HEADER_SIZE;
	if (mem_read(mem_of(p), gpa(c->header), header, sizeof(header))) {
		fail(c, IS_HOST);
		return false;
	}
	how = load_le32(header);
	table = load_le64(header + 8) & ~0x7full;
	if (mem_read(mem_of(p), gpa(table), fis, FIS_SIZE) ||
	    mem_read(mem_of(p), gpa(table + TABLE_ACMD), c->packet.cdb, SCSI_CDB_SIZE)) {
		fail(c, IS_HOST);
		return false;
	}
	if (HEADER_LENGTH(how) * 4 < FIS_SIZE || fis[0] != FIS_H2D) {
		fail(c, IS_INTERFACE);
		return false;
	}
	c->regions = (struct ata_regions){
		.mem = mem_of(p), .fetch = fetch_region, .next = table + TABLE_PRDT, .entries = HEADER_ENTRIES(how)
	};
	return true;
}

/* SRST set, and cleared: ATA/ATAPI-7, 9.3, as FISes. */
static void control(struct ahci_command *c, const uint8_t *fis)
{
	struct ahci_port *p = c->port;
	bool set = fis[15] & CONTROL_SRST, ends = p->resets && !set;

	leave(c);
	p->pending &= ~(uint32_t)BIT(c->slot);
	p->issued &= ~(uint32_t)BIT(c->slot);
	p->resets = set;
	if (set) {
		set_task_file(p, ATA_BSY, 0);
	} else if (ends) {
		ata_soft_reset(p->drive);
		ahci_greet(p);
	}
}

static bool is_queued(const struct ahci_command *c)
{
	return (c->task.command & 0xfe) == 0x60 && !ata_is_cd(c->port->drive);
}

static void run_command(struct ahci_command *c)
{
	struct ahci_port *p = c->port;
	struct ata_transfer *t = &c->transfer;

	if (ata_is_cd(p->drive) && c->task.command == ATA_DEVICE_RESET) {
		ata_soft_reset(p->drive);
		ata_signature(p->drive, &c->task);
		end_task(c);
		return;
	}
	if (c->task.command == ATA_DIAGNOSTIC) {
		ata_signature(p->drive, &c->task);
		end_task(c);
		return;
	}
	ata_begin(p->drive, &c->task, t);
	if (t->queued)
		send_dma_setup(p, c);
	if (t->kind == ATA_NOTHING)
		end_task(c);
	work(c);
}

/* False: not while others are being done. */
static bool begin(struct ahci_port *p, unsigned slot)
{
	struct ahci_command *c = &p->commands[slot];
	uint8_t fis[FIS_SIZE];

	c->dropped = c->goes_on = false;
	c->moved = c->at = c->parameters = 0;
	c->transfer.kind = ATA_NOTHING;
	p->active |= (uint32_t)BIT(slot);
	if (!fetch(c, fis))
		return true;
	get_task(&c->task, fis);
	c->queued = fis[1] & FIS_COMMAND && is_queued(c);
	if (!c->queued && p->active != BIT(slot)) {
		leave(c);
		return false;
	}
	p->last = (uint8_t)slot;
	if (!(fis[1] & FIS_COMMAND)) {
		control(c, fis);
		return true;
	}
	p->alone = !c->queued;
	if (c->queued)
		p->issued &= ~(uint32_t)BIT(slot); /* the drive has it */
	else
		set_task_file(p, ATA_BSY, 0);
	run_command(c);
	return true;
}

/* The next one in turn, as real ones go. */
static unsigned next_slot(uint32_t slots, unsigned last)
{
	uint32_t behind = slots & ~(uint32_t)(BIT(last + 1) - 1);

	return (unsigned)__builtin_ctz(behind ? behind : slots);
}

void ahci_run(struct ahci_port *p, bool here)
{
	p->here_left = here ? HERE_MOST : 0;
	while (p->drive && p->command & CMD_START && !p->halted && !p->paused && !p->alone &&
	       atomic_load(&p->ahci->master)) {
		uint32_t waiting = p->pending & ~p->active;

		if (!waiting || !begin(p, next_slot(waiting, p->last)))
			return;
	}
}

void ahci_drop(struct ahci_port *p)
{
	for (unsigned n = 0; n < AHCI_SLOTS; n++)
		if (p->active & BIT(n))
			p->commands[n].dropped = true;
	p->pending = 0;
}

int ahci_init_commands(struct ahci_port *p, struct error *err)
{
	if (!p->commands)
		p->commands = calloc(AHCI_SLOTS, sizeof(*p->commands));
	if (!p->commands)
		return error_set_errno(err, ENOMEM, "ahci");
	for (unsigned n = 0; n < AHCI_SLOTS; n++) {
		struct ahci_command *c = &p->commands[n];

		c->port = p;
		c->slot = n;
		c->own.done = own_done;
		c->scsi.block.done = scsi_done;
		c->pieces = (struct ata_pieces){ .iov = c->iov, .room = ARRAY_SIZE(c->iov) };
	}
	return 0;
}
