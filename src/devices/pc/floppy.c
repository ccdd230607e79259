/*
 * Floppy disks: an 82077AA controller (Intel data sheet, 290166) at 0x3f0, interrupt 6, DMA channel 2, with two drives. A disk is in memory as a whole: what is read is there at once,
 * what is written goes to its image behind the guest's back, by a worker, the tracks in order.
 */
#include "devices/disk.h"

#include <errno.h>
#include <stdlib.h>

#define DRIVES	    2u
#define SECTOR	    512u
#define SIZE_CODE   2u /* 128 << 2 */
#define DMA_CHANNEL 2u
#define LINE	    6u

/* Sizes, by KiB; drive types are CMOS 0x10's; rates the configuration control register's. */
static const struct medium {
	uint16_t size;
	uint8_t tracks, heads, sectors, drive;
	uint8_t rates; /* bits */
} media[] = {
	{ 160, 40, 1, 8, 1, BIT(1) | BIT(2) }, { 180, 40, 1, 9, 1, BIT(1) | BIT(2) },
	{ 320, 40, 2, 8, 1, BIT(1) | BIT(2) }, { 360, 40, 2, 9, 1, BIT(1) | BIT(2) },
	{ 720, 80, 2, 9, 4, BIT(2) },	       { 1200, 80, 2, 15, 2, BIT(0) },
	{ 1440, 80, 2, 18, 4, BIT(0) },	       { 1680, 80, 2, 21, 4, BIT(0) },
	{ 2880, 80, 2, 36, 5, BIT(3) },
};
#define IMAGE_MOST (2880u << 10)

/* Registers */
enum { SRA, SRB, DOR, TDR, MSR, FIFO, UNUSED, DIR };
#define DSR	 MSR
#define CCR	 DIR
#define DOR_RUNS 0x04u
#define DOR_GATE 0x08u
enum { MSR_RQM = 0x80, MSR_IN = 0x40, MSR_NDMA = 0x20, MSR_BUSY = 0x10 };
enum { ST0_ABNORMAL = 0x40, ST0_INVALID = 0x80, ST0_READY_CHANGED = 0xc0, ST0_SEEK_END = 0x20, ST0_EQUIPMENT = 0x10 };
enum { ST1_END = 0x80, ST1_OVERRUN = 0x10, ST1_NO_DATA = 0x04, ST1_PROTECTED = 0x02, ST1_NO_MARK = 0x01 };
enum { ST2_DELETED = 0x40, ST2_WRONG_CYLINDER = 0x10, ST2_EQUAL = 0x08, ST2_NOT_EQUAL = 0x04 };

enum phase { COMMAND, EXECUTION, RESULT, PHASES };

#define FLOPPY_STATE(_, T)                                                                                             \
	_(T, uint8_t, dor, 1, 1, 0x0c, 0xff)                                                                           \
	_(T, uint8_t, tape, 1, 2, 0, 3)                                                                                \
	_(T, uint8_t, rate, 1, 3, 2, 3)                                                                                \
	_(T, uint8_t, phase, 1, 4, COMMAND, PHASES - 1)                                                                \
	_(T, uint8_t, bytes, 16, 5, 0, 0xff) /* a command, or its result */                                            \
	_(T, uint8_t, at, 1, 6, 0, 15)                                                                                 \
	_(T, uint8_t, size, 1, 7, 0, 15)                                                                               \
	_(T, bool, interrupt, 1, 8, 0, 1)                                                                              \
	_(T, uint8_t, told, 4, 9, 0, 0xff)   /* ST0 for SENSE INTERRUPT STATUS, by drive; */                           \
	_(T, uint8_t, to_tell, 1, 10, 0, 15) /* which drives have one */                                               \
	_(T, uint8_t, cylinder, 4, 11, 0, 0xff)                                                                        \
	_(T, uint8_t, specified, 2, 12, 0, 0xff)                                                                       \
	_(T, uint8_t, configured, 2, 13, 0, 0xff)                                                                      \
	_(T, bool, locked, 1, 14, 0, 1)                                                                                \
	_(T, uint8_t, perpendicular, 1, 15, 0, 0xff)                                                                   \
	_(T, uint8_t, changed, 1, 16, 3, 3)	/* which disks are others than those that were looked at */            \
	_(T, uint8_t, sector, 512, 17, 0, 0xff) /* without DMA: what the guest reads or writes of it */                \
	_(T, uint16_t, place, 1, 18, 0, 511)                                                                           \
	_(T, uint8_t, last_sector, 1, 19, 0, 0xff) /* EOT of the last transfer */

/* With its disk; the controller's lock is its own. */
struct drive {
	struct device device; /* its instance is its number */
	struct floppy *floppy;
	struct block *block;
	const struct medium *medium;
	uint8_t *data; /* all of it */
	uint8_t dirty[IMAGE_MOST / SECTOR / 8];
	struct block_request request;
	struct iovec piece;
	uint8_t copy[36 * SECTOR];
	bool under_way;
	uint64_t boot; /* its turn when a firmware looks for a system; 0: its kind's */
};

struct floppy {
	struct device device;
	STATE_FIELDS(FLOPPY_STATE)
	struct drive *drives[DRIVES]; /* NULL: there is none */
	struct irq_line line;
	struct bus_range ports, dir_port;
	bool in_line; /* virtual time */
};

static unsigned unit_of(const struct floppy *f) { return f->bytes[1] & 3; }
static unsigned head_of(const struct floppy *f) { return f->bytes[1] >> 2 & 1; }

/* NULL: there is no disk. */
static struct drive *drive_of(const struct floppy *f) { return unit_of(f) < DRIVES ? f->drives[unit_of(f)] : NULL; }

/* ---- what goes to the image ---- */

static bool is_dirty(const struct drive *d, uint32_t n) { return d->dirty[n / 8] & BIT(n % 8); }

/* The next sectors that differ from it, at most a track; they are copied, as the guest may write them again. */
static bool next_dirty(struct drive *d)
{
	uint32_t all = d->medium->size * 2u, first = 0, count = 0;

	while (first < all && !is_dirty(d, first))
		first++;
	while (first + count < all && count < sizeof(d->copy) / SECTOR && is_dirty(d, first + count)) {
		d->dirty[(first + count) / 8] &= (uint8_t)~BIT((first + count) % 8);
		count++;
	}
	memcpy(d->copy, d->data + (size_t)first * SECTOR, (size_t)count * SECTOR);
	d->piece = (struct iovec){ d->copy, (size_t)count * SECTOR };
	d->request.op = BLOCK_WRITE;
	d->request.offset = (uint64_t)first * SECTOR;
	d->request.size = (uint64_t)count * SECTOR;
	d->request.iov = &d->piece;
	d->request.iov_count = 1;
	return count;
}

static void look_at_result(const struct drive *d)
{
	if (d->request.result)
		log_warning("floppy '%s': a write failed: %s", block_info(d->block)->file,
			    strerror(-d->request.result));
}

static void write_back(struct drive *d)
{
	if (d->under_way || !next_dirty(d))
		return;
	if (!d->floppy->in_line) {
		d->under_way = true;
		block_submit(d->block, &d->request);
		return;
	}
	do {
		block_do(d->block, &d->request);
		look_at_result(d);
	} while (next_dirty(d));
}

/* In a worker's thread. */
static void written(struct block_request *r)
{
	struct drive *d = container_of(r, struct drive, request);

	lock_take(d->floppy->device.lock);
	look_at_result(d);
	d->under_way = false;
	write_back(d);
	lock_drop(d->floppy->device.lock);
}

/* ---- interrupts, phases ---- */

static void set_interrupt(struct floppy *f, bool on)
{
	f->interrupt = on;
	irq_set(&f->line, on && f->dor & DOR_GATE);
}

static void tell(struct floppy *f, unsigned drive, uint8_t st0)
{
	f->told[drive] = st0;
	f->to_tell |= (uint8_t)BIT(drive);
	set_interrupt(f, true);
}

static void await_command(struct floppy *f)
{
	f->phase = COMMAND;
	f->at = f->size = 0;
}

static void give_result(struct floppy *f, const uint8_t *bytes, unsigned size)
{
	memcpy(f->bytes, bytes, size);
	f->phase = RESULT;
	f->at = 0;
	f->size = (uint8_t)size;
}
#define RESULT_OF(f, ...) give_result(f, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* A read, write, or what is like them: C, H, R, N are in the command's bytes. */
static void end_transfer(struct floppy *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
	uint8_t drive = f->bytes[1] & 7;

	RESULT_OF(f, st0 | drive, st1, st2, f->bytes[2], f->bytes[3], f->bytes[4], f->bytes[5]);
	set_interrupt(f, true);
}

static void fail(struct floppy *f, uint8_t st1, uint8_t st2) { end_transfer(f, ST0_ABNORMAL, st1, st2); }

/* ---- transfers ---- */

/* Operations by the low bits of the code */
enum {
	READ_TRACK = 2,
	WRITE = 5,
	READ = 6,
	WRITE_DELETED = 9,
	READ_ID = 10,
	READ_DELETED = 12,
	FORMAT = 13,
	VERIFY = 22
};

static unsigned operation(const struct floppy *f) { return f->bytes[0] & 0x1f; }

static bool is_write(const struct floppy *f) { return operation(f) == WRITE || operation(f) == WRITE_DELETED; }
static bool is_scan(const struct floppy *f) { return (operation(f) & 0x13) == 0x11; } /* 11h, 19h, 1dh */
static bool by_dma(const struct floppy *f) { return !(f->specified[1] & 1); }

/* Why nothing under this head can be read; true: it has failed. */
static bool has_no_track(struct floppy *f)
{
	const struct drive *d = drive_of(f);
	unsigned cylinder = f->cylinder[unit_of(f)];

	if (d && d->medium->rates & BIT(f->rate) && cylinder < d->medium->tracks && head_of(f) < d->medium->heads)
		return false;
	fail(f, ST1_NO_MARK, 0);
	return true;
}

/* The sector that C, H, R, N name; NULL: it has failed. */
static uint8_t *find_sector(struct floppy *f)
{
	const struct drive *d = drive_of(f);
	const uint8_t *id = f->bytes + 2;
	unsigned cylinder = f->cylinder[unit_of(f)];

	if (id[0] != cylinder || cylinder >= d->medium->tracks) {
		fail(f, ST1_NO_DATA, ST2_WRONG_CYLINDER);
		return NULL;
	}
	if (id[1] >= d->medium->heads || !id[2] || id[2] > d->medium->sectors || id[3] != SIZE_CODE) {
		fail(f, ST1_NO_DATA, 0);
		return NULL;
	}
	return d->data + (size_t)((cylinder * d->medium->heads + id[1]) * d->medium->sectors + id[2] - 1) * SECTOR;
}

static void set_dirty(struct floppy *f, const uint8_t *sector)
{
	struct drive *d = drive_of(f);
	uint32_t n = (uint32_t)((sector - d->data) / SECTOR);

	d->dirty[n / 8] |= (uint8_t)BIT(n % 8);
}

/* C, H and R of the next sector. True: there is none, this was EOT's. */
static bool next_sector(struct floppy *f)
{
	uint8_t *id = f->bytes + 2, end = f->bytes[6];
	bool many = f->bytes[0] & 0x80;

	if (id[2] != end) {
		id[2]++;
		return false;
	}
	id[2] = 1;
	if (many && !id[1]) {
		id[1] = 1;
		f->bytes[1] |= 4;
		return false;
	}
	if (many) {
		id[1] = 0;
		f->bytes[1] &= (uint8_t)~4;
	}
	id[0]++;
	return true;
}

/* One sector was moved; last: the host wants no more. True: the next one is at hand. */
static bool go_on(struct floppy *f, bool last)
{
	bool end = next_sector(f);

	if (!last && !end)
		return true;
	if (is_write(f))
		write_back(drive_of(f));
	if (last)
		end_transfer(f, 0, 0, 0);
	else
		fail(f, ST1_END, 0);
	return false;
}

static void run_dma(struct floppy *f)
{
	struct bus *bus = f->device.bus;
	uint8_t scratch[SECTOR];
	bool last;

	do {
		uint8_t *sector = find_sector(f);
		unsigned moved;

		if (!sector)
			return;
		if (is_write(f)) {
			memset(scratch, 0, sizeof(scratch));
			moved = isa_dma_transfer(bus, DMA_CHANNEL, scratch, SECTOR, false, &last);
			if (moved) {
				memcpy(sector, scratch, SECTOR);
				set_dirty(f, sector);
			}
		} else {
			memcpy(scratch, sector, SECTOR);
			moved = isa_dma_transfer(bus, DMA_CHANNEL, scratch, SECTOR, true, &last);
		}
		if (moved < SECTOR && !last) {
			write_back(drive_of(f));
			fail(f, ST1_OVERRUN, 0);
			return;
		}
	} while (go_on(f, last));
}

/* Without DMA: the guest is asked for each byte. */
static void offer_sector(struct floppy *f)
{
	const uint8_t *sector = find_sector(f);

	if (!sector)
		return;
	f->phase = EXECUTION;
	f->place = 0;
	memcpy(f->sector, sector, SECTOR);
	set_interrupt(f, true);
}

static void verify(struct floppy *f)
{
	unsigned count = f->bytes[8];
	bool counts = f->bytes[1] & 0x80;

	do {
		if (!find_sector(f))
			return;
	} while (go_on(f, counts && !--count));
}

static void transfer(struct floppy *f)
{
	f->last_sector = f->bytes[6];
	if (has_no_track(f))
		return;
	if (is_write(f) && block_info(drive_of(f)->block)->readonly)
		fail(f, ST1_PROTECTED, 0);
	else if (operation(f) == VERIFY)
		verify(f);
	else if (operation(f) == READ_DELETED || is_scan(f))
		fail(f, ST1_NO_MARK, 0); /* there are no such marks; and nobody scans */
	else if (by_dma(f))
		run_dma(f);
	else
		offer_sector(f);
}

static void read_track(struct floppy *f)
{
	/* Sectors in their order, whatever R says. */
	f->bytes[4] = 1;
	transfer(f);
}

static void read_id(struct floppy *f)
{
	if (has_no_track(f))
		return;
	f->bytes[2] = f->cylinder[unit_of(f)];
	f->bytes[3] = (uint8_t)head_of(f);
	f->bytes[4] = 1;
	f->bytes[5] = SIZE_CODE;
	end_transfer(f, 0, 0, 0);
}

/* As many sectors as it has, each with C, H, R, N from the host; only what the disk is can be made of it. */
static void format(struct floppy *f)
{
	const struct drive *d = drive_of(f);
	uint8_t count = f->bytes[3], fill = f->bytes[5], size = f->bytes[2], id[4];
	bool last = false;

	/* What the result says. */
	f->bytes[2] = f->cylinder[unit_of(f)];
	f->bytes[3] = (uint8_t)head_of(f);
	f->bytes[4] = 1;
	f->bytes[5] = size;
	if (has_no_track(f))
		return;
	if (block_info(d->block)->readonly) {
		fail(f, ST1_PROTECTED, 0);
		return;
	}
	for (unsigned n = 0; n < count && !last; n++) {
		uint8_t *sector;

		if (!by_dma(f) || isa_dma_transfer(f->device.bus, DMA_CHANNEL, id, 4, false, &last) < 4) {
			fail(f, ST1_OVERRUN, 0);
			return;
		}
		memcpy(f->bytes + 2, id, 4);
		sector = find_sector(f);
		if (!sector)
			return;
		memset(sector, fill, SECTOR);
		set_dirty(f, sector);
	}
	write_back(drive_of(f));
	end_transfer(f, 0, 0, 0);
}

/* ---- other commands ---- */

static void seek(struct floppy *f, unsigned to, uint8_t st0)
{
	unsigned n = unit_of(f);

	await_command(f);
	if (n >= DRIVES) {
		tell(f, n, ST0_ABNORMAL | ST0_SEEK_END | ST0_EQUIPMENT | (uint8_t)n);
		return;
	}
	/* A step tells the drive of the disk that is in it now. */
	if (f->drives[n] && f->cylinder[n] != to)
		f->changed &= (uint8_t)~BIT(n);
	f->cylinder[n] = (uint8_t)to;
	tell(f, n, ST0_SEEK_END | st0 | (uint8_t)n);
}

static void recalibrate(struct floppy *f) { seek(f, 0, 0); }

static void seek_to(struct floppy *f) { seek(f, MIN(f->bytes[2], 84), f->bytes[1] & 4); }

static void relative_seek(struct floppy *f)
{
	unsigned n = unit_of(f), now = f->cylinder[n], by = f->bytes[2];

	seek(f, f->bytes[0] & 0x40 ? MIN(now + by, 84) : now - MIN(now, by), f->bytes[1] & 4);
}

static void sense_interrupt(struct floppy *f)
{
	unsigned n = 0;

	set_interrupt(f, false);
	if (!f->to_tell) {
		RESULT_OF(f, ST0_INVALID);
		return;
	}
	while (!(f->to_tell & BIT(n)))
		n++;
	f->to_tell &= (uint8_t)~BIT(n);
	RESULT_OF(f, f->told[n], f->cylinder[n]);
	if (f->to_tell && f->told[n] >> 6 != 3)
		set_interrupt(f, true);
}

static void sense_drive(struct floppy *f)
{
	const struct drive *d = drive_of(f);
	bool protected = d && block_info(d->block)->readonly;

	RESULT_OF(f, (uint8_t)((f->bytes[1] & 7) | 0x28 | (protected ? 0x40 : 0) |
			       (unit_of(f) < DRIVES && !f->cylinder[unit_of(f)] ? 0x10 : 0)));
}

static void specify(struct floppy *f)
{
	memcpy(f->specified, f->bytes + 1, 2);
	await_command(f);
}

static void configure(struct floppy *f)
{
	memcpy(f->configured, f->bytes + 2, 2);
	await_command(f);
}

static void set_perpendicular(struct floppy *f)
{
	f->perpendicular = f->bytes[1];
	await_command(f);
}

static void lock(struct floppy *f)
{
	f->locked = f->bytes[0] & 0x80;
	RESULT_OF(f, f->locked ? 0x10 : 0);
}

static void dump_registers(struct floppy *f)
{
	RESULT_OF(f, f->cylinder[0], f->cylinder[1], f->cylinder[2], f->cylinder[3], f->specified[0], f->specified[1],
		  f->last_sector, (uint8_t)((f->locked ? 0x80 : 0) | (f->perpendicular & 0x3f)), f->configured[0],
		  f->configured[1]);
}

static void version(struct floppy *f) { RESULT_OF(f, 0x90); }
static void invalid(struct floppy *f) { RESULT_OF(f, ST0_INVALID); }

static const struct command {
	uint8_t code, mask; /* bits that say what it is */
	uint8_t size;
	void (*run)(struct floppy *);
} commands[] = {
	{ 0x02, 0x1f, 9, read_track },
	{ 0x03, 0xff, 3, specify },
	{ 0x04, 0xff, 2, sense_drive },
	{ 0x05, 0x1f, 9, transfer },
	{ 0x06, 0x1f, 9, transfer },
	{ 0x07, 0xff, 2, recalibrate },
	{ 0x08, 0xff, 1, sense_interrupt },
	{ 0x09, 0x1f, 9, transfer },
	{ 0x0a, 0x1f, 2, read_id },
	{ 0x0c, 0x1f, 9, transfer },
	{ 0x0d, 0x1f, 6, format },
	{ 0x0e, 0xff, 1, dump_registers },
	{ 0x8f, 0xbf, 3, relative_seek },
	{ 0x0f, 0xff, 3, seek_to },
	{ 0x10, 0xff, 1, version },
	{ 0x11, 0x1f, 9, transfer },
	{ 0x12, 0xff, 2, set_perpendicular },
	{ 0x13, 0xff, 4, configure },
	{ 0x14, 0x7f, 1, lock },
	{ 0x16, 0x1f, 9, transfer },
	{ 0x19, 0x1f, 9, transfer },
	{ 0x1d, 0x1f, 9, transfer },
};
static const struct command unknown = { 0, 0, 1, invalid };

static const struct command *find_command(uint8_t code)
{
	for (unsigned n = 0; n < ARRAY_SIZE(commands); n++)
		if ((code & commands[n].mask) == commands[n].code)
			return &commands[n];
	return &unknown;
}

/* ---- registers ---- */

static void soft_reset(struct floppy *f)
{
	set_interrupt(f, false);
	await_command(f);
	f->to_tell = 0;
	memset(f->cylinder, 0, sizeof(f->cylinder));
	if (!f->locked)
		memset(f->configured, 0, sizeof(f->configured));
}

/* It tells of all four drives, that they are ready now. */
static void end_reset(struct floppy *f)
{
	for (unsigned n = 0; n < 4; n++)
		tell(f, n, (uint8_t)(ST0_READY_CHANGED | n));
}

static void write_dor(struct floppy *f, uint8_t value)
{
	uint8_t before = f->dor;

	f->dor = value;
	if (!(value & DOR_RUNS))
		soft_reset(f);
	else if (!(before & DOR_RUNS))
		end_reset(f);
	set_interrupt(f, f->interrupt);
}

static void write_dsr(struct floppy *f, uint8_t value)
{
	f->rate = value & 3;
	if (!(value & 0x80) || !(f->dor & DOR_RUNS))
		return;
	soft_reset(f);
	end_reset(f);
}

static uint8_t read_msr(const struct floppy *f)
{
	if (!(f->dor & DOR_RUNS))
		return 0;
	switch (f->phase) {
	case RESULT: return MSR_RQM | MSR_IN | MSR_BUSY;
	case EXECUTION: return MSR_RQM | MSR_NDMA | MSR_BUSY | (is_write(f) ? 0 : MSR_IN);
	default: return (uint8_t)(MSR_RQM | (f->at ? MSR_BUSY : 0));
	}
}

/* A byte of a sector without DMA is through. */
static void next_byte(struct floppy *f)
{
	uint8_t *sector;

	if (++f->place < SECTOR)
		return;
	f->place = 0;
	sector = find_sector(f);
	if (!sector)
		return;
	if (is_write(f)) {
		memcpy(sector, f->sector, SECTOR);
		set_dirty(f, sector);
	}
	set_interrupt(f, false);
	if (go_on(f, false))
		offer_sector(f);
}

static uint8_t read_fifo(struct floppy *f)
{
	uint8_t value;

	if (f->phase == EXECUTION && !is_write(f)) {
		value = f->sector[f->place];
		next_byte(f);
		return value;
	}
	if (f->phase != RESULT)
		return 0;
	if (!f->at)
		set_interrupt(f, f->to_tell && f->size == 2 && f->interrupt);
	value = f->bytes[f->at++];
	if (f->at == f->size)
		await_command(f);
	return value;
}

static void write_fifo(struct floppy *f, uint8_t value)
{
	const struct command *command;

	if (!(f->dor & DOR_RUNS))
		return;
	if (f->phase == EXECUTION && is_write(f)) {
		f->sector[f->place] = value;
		next_byte(f);
	}
	if (f->phase != COMMAND)
		return;
	if (!f->at)
		memset(f->bytes, 0, sizeof(f->bytes));
	f->bytes[f->at++] = value;
	command = find_command(f->bytes[0]);
	if (f->at >= command->size)
		command->run(f);
}

static uint8_t read_dir(const struct floppy *f)
{
	unsigned n = f->dor & 3;

	/* The line of the drive whose motor turns. */
	return n < DRIVES && f->dor & BIT(4 + n) && (f->changed & BIT(n) || !f->drives[n]) ? 0x80 : 0;
}

static uint64_t port_read(struct device *device, uint64_t offset, unsigned size)
{
	struct floppy *f = (struct floppy *)device;

	(void)size;
	switch (offset) {
	case SRA: return (uint64_t)(f->interrupt ? 0x80 : 0) | (f->drives[1] ? 0 : 0x40);
	case SRB: return 0xc0 | ((f->dor & 1) << 5) | (f->dor >> 4 & 3);
	case DOR: return f->dor;
	case TDR: return f->tape;
	case MSR: return read_msr(f);
	case FIFO: return read_fifo(f);
	default: return 0xff;
	}
}

static void port_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct floppy *f = (struct floppy *)device;

	(void)size;
	switch (offset) {
	case DOR: write_dor(f, (uint8_t)value); break;
	case TDR: f->tape = value & 3; break;
	case DSR: write_dsr(f, (uint8_t)value); break;
	case FIFO: write_fifo(f, (uint8_t)value); break;
	default: break;
	}
}

static uint64_t dir_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)offset, (void)size;
	return read_dir((struct floppy *)device);
}

static void ccr_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)offset, (void)size;
	((struct floppy *)device)->rate = value & 3;
}

/* ---- life ---- */

static void floppy_reset(struct device *device) { set_interrupt((struct floppy *)device, false); }

static void floppy_destroy(struct device *device)
{
	struct floppy *f = (struct floppy *)device;

	bus_unmap(device->bus, BUS_PIO, &f->ports);
	bus_unmap(device->bus, BUS_PIO, &f->dir_port);
	irq_line_free(&f->line);
	free(f);
}

static int floppy_loaded(void *object, uint16_t version, struct error *err)
{
	struct floppy *f = object;

	(void)version;
	if (f->phase == RESULT ? f->at >= f->size
			       : f->phase == COMMAND && f->at && f->at >= find_command(f->bytes[0])->size)
		return error_set(err, EINVAL, "floppy: byte %u of %u, in phase %u", f->at, f->size, f->phase);
	if (f->phase == EXECUTION &&
	    (!drive_of(f) || (operation(f) != READ && operation(f) != READ_TRACK && !is_write(f))))
		return error_set(err, EINVAL, "floppy: command 0x%02x of drive %u moves data, which it cannot",
				 f->bytes[0], unit_of(f));
	return 0;
}

STATE_DESC(floppy_state_desc, "floppy-controller", 1, struct floppy, FLOPPY_STATE, .loaded = floppy_loaded);

static const struct device_ops floppy_ops = { .state = &floppy_state_desc,
					      .reset = floppy_reset,
					      .destroy = floppy_destroy };

static int create_controller(struct bus *bus, const void *options, struct error *err)
{
	struct floppy *f = calloc(1, sizeof(*f));
	int rc;

	(void)options;
	if (!f)
		return error_set_errno(err, ENOMEM, "floppy");
	device_init(&f->device, bus, "floppy-controller", &floppy_ops);
	state_reset(&floppy_state_desc, f);
	f->in_line = clock_kind(bus->clock) == CLOCK_VIRTUAL;
	f->line = irq_isa_line(&f->device, LINE);
	f->ports = (struct bus_range){
		.start = 0x3f0, .size = 6, .sizes = 1, .device = &f->device, .read = port_read, .write = port_write
	};
	f->dir_port = (struct bus_range){
		.start = 0x3f7, .size = 1, .sizes = 1, .device = &f->device, .read = dir_read, .write = ccr_write
	};
	rc = bus_map(bus, BUS_PIO, &f->ports, err);
	return rc ? rc : bus_map(bus, BUS_PIO, &f->dir_port, err);
}

static const struct medium *find_medium(uint64_t size)
{
	for (unsigned n = 0; n < ARRAY_SIZE(media); n++)
		if (size == (uint64_t)media[n].size << 10)
			return &media[n];
	return NULL;
}

static int read_disk(struct drive *d, struct error *err)
{
	const struct block_info *info = block_info(d->block);
	struct iovec piece;
	struct block_request r = { .op = BLOCK_READ, .size = info->size, .iov = &piece, .iov_count = 1 };

	d->medium = find_medium(info->size);
	if (!d->medium)
		return error_set(
			err, EINVAL,
			"floppy: '%s' has %llu bytes; expected 160, 180, 320, 360, 720, 1200, 1440, 1680 or 2880 KiB",
			info->file, (unsigned long long)info->size);
	d->data = malloc(info->size);
	if (!d->data)
		return error_set_errno(err, ENOMEM, "floppy '%s'", info->file);
	piece = (struct iovec){ d->data, info->size };
	if (block_do(d->block, &r))
		return error_set(err, -r.result, "floppy '%s': %s", info->file, strerror(-r.result));
	return 0;
}

/* CMOS: the drives' types, and how many there are. */
static void tell_firmware(const struct floppy *f)
{
	unsigned a = f->drives[0] ? f->drives[0]->medium->drive : 0;
	unsigned b = f->drives[1] ? f->drives[1]->medium->drive : 0;

	rtc_set_cmos(f->device.bus, 0x10, (uint8_t)(a << 4 | b));
	rtc_set_cmos(f->device.bus, 0x14, (uint8_t)(0x07 | (b ? 0x40 : 0))); /* and a floating-point unit, a display */
}

static void drive_pause(struct device *device) { block_drain(((struct drive *)device)->block); }

/* Firmware starts only from drive A. */
static bool drive_boots(const struct device *device, struct device_boot *boot)
{
	*boot = (struct device_boot){ .kind = DEVICE_BOOT_FLOPPY, .order = ((const struct drive *)device)->boot };
	snprintf(boot->path, sizeof(boot->path), "/pci@i0cf8/isa@%x/fdc@03f0/floppy@0", PIIX_SLOT);
	return !device->instance;
}

/* What moved to or from its disk is over. */
static void drive_destroy(struct device *device)
{
	struct drive *d = (struct drive *)device;
	struct floppy *f = d->floppy;

	block_close(d->block);
	if (f->phase == EXECUTION && drive_of(f) == d)
		await_command(f);
	f->drives[device->instance] = NULL;
	f->changed |= (uint8_t)BIT(device->instance);
	free(d->data);
	free(d);
}

static const struct device_ops drive_ops = { .pause = drive_pause, .boots = drive_boots, .destroy = drive_destroy };

/* The first drive brings it, in a machine that is being made: firmware and systems look for it once, and it goes before ISA DMA, whose lock it takes. */
static struct floppy *find_controller(struct bus *bus, struct error *err)
{
	if (!bus_find_device(bus, "floppy-controller", 0)) {
		if (bus_find_device(bus, "dma", 0)) {
			error_set(err, EBUSY,
				  "floppy: this machine was made without a controller; expected --floppy at its start");
			return NULL;
		}
		if (device_create_own(bus, create_controller, NULL, err))
			return NULL;
	}
	return (struct floppy *)bus_find_device(bus, "floppy-controller", 0);
}

/* clang-format off */
#define FLOPPY_OPTIONS(_, T)                                                                                           \
	DISK_OPTIONS(_, T)
/* clang-format on */

struct floppy_options {
	DEVICE_OPTION_FIELDS(FLOPPY_OPTIONS)
};

static int create(struct bus *bus, const void *options, struct error *err)
{
	const struct floppy_options *o = options;
	struct floppy *f = find_controller(bus, err);
	struct drive *d = f ? calloc(1, sizeof(*d)) : NULL;

	if (!f)
		return -err->code;
	if (!d)
		return error_set_errno(err, ENOMEM, "floppy");
	d->floppy = f;
	d->boot = o->boot;
	d->request.done = written;
	d->block = disk_open(bus, "floppy", &DISK_OPTIONS_OF(o), err);
	if (!d->block || read_disk(d, err)) {
		block_close(d->block);
		free(d->data);
		free(d);
		return -err->code;
	}
	device_init_sharing(&d->device, bus, "floppy", &drive_ops, f->device.lock);
	f->drives[d->device.instance] = d;
	tell_firmware(f);
	return 0;
}

const struct device_type floppy_type = {
	.name = "floppy",
	.help = "a floppy disk in drive A, or B, of an 82077 controller",
	.most = DRIVES,
	.starts = true,
	DEVICE_OPTIONS(FLOPPY_OPTIONS, struct floppy_options),
	.short_form = { .name = "--floppy",
			.option = "file",
			.options_follow = true,
			.argument = "FILE[,...]",
			.help = "a floppy disk in drive A; again for B" },
	.create = create,
};
