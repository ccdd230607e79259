/*
 * What moves the data of an IDE channel's drives: by PIO through its buffer, by DMA straight into the guest's memory, and packets.
 */
#include "devices/ata/channel.h"

#include <errno.h>

#define HERE_MOST (1u << 20) /* bytes that are moved at once where the guest asks */
#define DMA_PIECE (256u << 10)

/* 0 or -errno. What has failed is at ch->lba. */
static void end(struct channel *ch, int result)
{
	struct ata_task task = channel_task(ch, 0);

	ata_end(&task, result);
	if (result && (ch->kind == ATA_READ || ch->kind == ATA_WRITE) && task.device & ATA_DEVICE_LBA)
		task.lba = ch->lba;
	channel_end(ch, &task);
}

static void set_status(struct channel *ch, uint8_t status) { ch->status[selected(ch)] = status; }

static void begin_work(struct channel *ch)
{
	ch->phase = WORK;
	set_status(ch, ATA_BSY);
}

/* ---- the table of regions ---- */

/* A table does not leave its 64 KiB. */
static bool fetch_region(struct ata_regions *r)
{
	uint8_t entry[8];
	uint32_t size;

	if (mem_read(r->mem, gpa(r->next), entry, sizeof(entry)))
		return false;
	size = load_le16(entry + 4) & 0xfffe;
	r->at = load_le32(entry) & ~1u;
	r->left = size ? size : 0x10000;
	r->last = entry[7] & 0x80;
	r->next = (r->next & 0xffff0000) | ((r->next + 8) & 0xffff);
	return true;
}

static struct ata_regions regions_of(const struct channel *ch)
{
	return (struct ata_regions){ .mem = ch->device.bus->mem,
				     .fetch = fetch_region,
				     .next = ch->prd[PRD_NEXT],
				     .at = ch->prd[PRD_AT],
				     .left = ch->prd[PRD_LEFT],
				     .last = ch->prd_last };
}

static void move_to(struct channel *ch, const struct ata_regions *r)
{
	ch->prd[PRD_NEXT] = (uint32_t)r->next;
	ch->prd[PRD_AT] = (uint32_t)r->at;
	ch->prd[PRD_LEFT] = r->left;
	ch->prd_last = r->last;
}

static bool is_running(const struct channel *ch)
{
	return ch->bm_status & BM_ACTIVE && ch->bm_command & BM_START && atomic_load(ch->master);
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
static void starve(struct channel *ch, const struct ata_regions *r)
{
	if (r->failed) {
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

/* Between the buffer and the regions. False: it has ended, or waits. */
static bool copy_dma(struct channel *ch, uint32_t size, bool to_memory)
{
	struct ata_regions r = regions_of(ch);

	ch->at += ata_copy_regions(&r, ch->buffer + ch->at, size - ch->at, to_memory);
	move_to(ch, &r);
	if (ch->at < size)
		starve(ch, &r);
	return ch->at == size;
}

/* As many of the next `all` bytes of blocks as one request moves straight where they belong: its pieces, and where DMA is then. 0: it waits, or has ended. */
static uint32_t plan_dma(struct channel *ch, uint32_t block, uint64_t all, bool to_memory)
{
	uint32_t size;

	ch->then = regions_of(ch);
	if (!is_running(ch)) {
		wait_for_dma(ch);
		return 0;
	}
	size = ata_map_blocks(&ch->then, &ch->pieces, block, (uint32_t)MIN(all, DMA_PIECE), to_memory);
	if (!size)
		starve(ch, &ch->then);
	return size;
}

/* What was planned is done. */
static void finish_dma(struct channel *ch, bool to_memory)
{
	if (to_memory)
		ata_pieces_written(ch->device.bus->mem, &ch->pieces);
	move_to(ch, &ch->then);
}

/* ---- PIO: what is in the buffer, block by block ---- */

static void offer_block(struct channel *ch, bool tell)
{
	uint8_t *now = registers_of(ch, selected(ch));
	uint32_t size = MIN(ch->block, ch->filled - ch->at);

	ch->end = ch->at + size;
	set_status(ch, ATA_DRDY | ATA_DSC | ATA_DRQ);
	if (ch->kind == ATA_COMMAND) {
		channel_set_reason(ch, ch->phase == IN ? ATA_REASON_IN : 0);
		now[LBA_MID] = (uint8_t)size;
		now[LBA_HIGH] = (uint8_t)(size >> 8);
	}
	if (tell)
		channel_interrupt(ch);
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
	ch->own.iov = ch->pieces.iov;
	ch->own.iov_count = (int)ch->pieces.count;
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
		ch->pieces.iov[0] = (struct iovec){ ch->buffer, size };
		ch->pieces.count = 1;
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
		struct ata_task task = channel_task(ch, ATA_PACKET);

		ata_end(&task, 0);
		channel_end(ch, &task);
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
	struct ata_task task = channel_task(ch, ATA_PACKET);
	bool blocks = ch->packet.blocks, good = ata_packet_done(drive_of(ch), &ch->packet, &ch->scsi, &task);

	store_packet(ch);
	if (!good)
		channel_end(ch, &task);
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
		ch->pieces.iov[0] = (struct iovec){ ch->buffer, ch->left ? ch->left : most };
		ch->pieces.count = 1;
	}
	ch->scsi = (struct scsi_command){ .block.done = ch->scsi.block.done };
	ata_packet_piece(d, &ch->packet, &ch->scsi, most);
	*(ch->left ? &ch->scsi.out : &ch->scsi.in) =
		(struct scsi_data){ ch->pieces.iov, (int)ch->pieces.count, ch->left ? ch->left : most };
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
	case ATA_FLUSH: ch->pieces.count = 0; return ask(ch, BLOCK_FLUSH, 0, 0);
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

/* The host's error is waited for: all that is known of the transfer is as it was before this piece. */
static bool hold(struct channel *ch)
{
	const struct ata_drive *d = drive_of(ch);

	if (ch->request != &ch->own || !disk_waits(d->on_error, d->block, &ch->own))
		return false;
	if (ch->dma && ch->kind == ATA_READ)
		ata_pieces_written(ch->device.bus->mem, &ch->pieces);
	if (!ch->held)
		disk_hold_add(&ch->hold, &d->device, d->block, &ch->own);
	ch->held = true;
	return true;
}

void channel_end_hold(struct channel *ch)
{
	if (ch->held)
		disk_hold_forget(&ch->hold, 1);
	ch->held = false;
}

/* True: there may be more to be done. */
static bool finish(struct channel *ch)
{
	if (hold(ch))
		return false;
	if (ch->held)
		disk_hold_done(&ch->hold, ata_block(drive_of(ch)));
	ch->held = false;
	complete(ch);
	return true;
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
		if (!finish(ch))
			return;
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
		if (finish(ch))
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

void channel_drop(struct channel *ch)
{
	ch->dropped = ch->under_way;
	channel_end_hold(ch);
	ch->phase = IDLE;
	ch->kind = ATA_NOTHING;
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
	channel_set_reason(ch, ATA_REASON_COMMAND);
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
		struct ata_task task = channel_task(ch, ATA_PACKET);

		ata_end(&task, -ENOTSUP);
		channel_end(ch, &task);
	} else {
		begin_work(ch);
	}
	work_here(ch);
}

void channel_begin(struct channel *ch, const struct ata_transfer *t)
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

void channel_end_block(struct channel *ch)
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

/* ---- the channel's ---- */

void channel_start_dma(struct channel *ch)
{
	if (ch->phase != WAIT || !is_running(ch))
		return;
	begin_work(ch);
	work_here(ch);
}

void channel_go_on(struct channel *ch)
{
	ch->here_left = 0;
	if (!ch->under_way)
		work(ch);
}

void channel_retry(struct bus_hold *hold)
{
	struct channel *ch = container_of(hold, struct channel, hold.hold);

	lock_take(ch->device.lock);
	if (ch->held)
		channel_go_on(ch);
	lock_drop(ch->device.lock);
}

void channel_init_transfer(struct channel *ch)
{
	ch->own.done = own_done;
	ch->scsi.block.done = scsi_done;
	ch->pieces = (struct ata_pieces){ .iov = ch->iov, .room = ARRAY_SIZE(ch->iov) };
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

int channel_check_transfer(const struct channel *ch, struct error *err)
{
	const struct ata_drive *d = drive_of(ch);
	bool works = ch->phase == WORK || ch->phase == WAIT;

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
