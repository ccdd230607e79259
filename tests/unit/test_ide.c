/*
 * IDE by the book (ATA/ATAPI-7, Bus Master IDE 1.0): registers and signatures, PIO and bus master DMA with odd tables, packets; a transfer saved in its middle.
 */
#define _GNU_SOURCE
#include "devices/ata/ata.h"
#include "lib/board.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define DISK_SIZE (4u << 20)
#define SECTORS	  (DISK_SIZE / 512)
#define DISC_SIZE (1u << 20)
#define MEMORY	  (4u << 20)
#define BASE	  0x1f0u
#define SECOND	  0x170u
#define CONTROL	  0x3f6u
#define BM	  0xc000u
#define IDE_DEVFN 9u
#define TABLE	  0x1000u
#define DATA	  0x10000u

enum { ERROR = 1, COUNT, LOW, MID, HIGH, DEVICE, STATUS };

struct setup {
	struct board *b;
	int disk, disc;
	unsigned base; /* of the channel that commands go to */
};

static void add(struct setup *s, const char *type, int fd, const char *options)
{
	struct error err = { 0 };
	char spec[160];

	snprintf(spec, sizeof(spec), "%s%s", type, options);
	if (fd >= 0)
		snprintf(spec, sizeof(spec), "%s,file=/proc/self/fd/%d,format=raw%s", type, fd, options);
	if (!device_plug(s->b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
}

/* Block n of 512 bytes begins with n. */
static int make_file(uint32_t size)
{
	int fd = memfd_create("disk", 0);

	assert_int_equal(ftruncate(fd, size), 0);
	for (uint32_t n = 0; n < size / 512; n++)
		assert_int_equal(pwrite(fd, &n, 4, (off_t)n * 512), 4);
	return fd;
}

/* A disk alone on the first channel, a CD and an empty drive on the second. */
static struct setup *create_with(enum clock_kind clock, const char *disk_options)
{
	struct setup *s = calloc(1, sizeof(*s));

	s->b = board_create_with(1, clock);
	s->base = BASE;
	s->disk = make_file(DISK_SIZE);
	s->disc = make_file(DISC_SIZE);
	board_add_memory(s->b, MEMORY);
	assert_int_equal(pci_bus_create(s->b->bus, NULL) || piix_type.create(s->b->bus, NULL, NULL), 0);
	add(s, "ide-disk", s->disk, disk_options);
	add(s, "ide-cd", s->disc, "");
	add(s, "ide-cd", -1, "");
	bus_reset(s->b->bus);
	bus_resume(s->b->bus);
	board_pic_init(s->b);
	board_config_write(s->b, IDE_DEVFN, 0x20, 4, BM);
	board_config_write(s->b, IDE_DEVFN, 0x04, 2, 5);
	return s;
}

static struct setup *create(void) { return create_with(CLOCK_VIRTUAL, ",discard,serial=abc"); }

static int setup(void **state)
{
	*state = create();
	return 0;
}

static void destroy(struct setup *s)
{
	bus_pause(s->b->bus);
	devices_unplug(s->b->bus);
	board_destroy(s->b);
	close(s->disk);
	close(s->disc);
	free(s);
}

static int teardown(void **state)
{
	destroy(*state);
	return 0;
}

static uint8_t in(struct setup *s, unsigned n) { return inb(s->b, (uint16_t)(s->base + n)); }
static void out(struct setup *s, unsigned n, uint8_t value) { outb(s->b, (uint16_t)(s->base + n), value); }

/* Of the first channel; acknowledged. */
static bool interrupt(struct setup *s)
{
	int vector = board_take(s->b);

	if (vector < 0)
		return false;
	assert_int_equal(vector, s->base == BASE ? 0x2e : 0x2f);
	outb(s->b, 0xa0, 0x20);
	outb(s->b, 0x20, 0x20);
	return true;
}

static void command(struct setup *s, uint8_t code, uint8_t count, uint32_t lba)
{
	out(s, DEVICE, (uint8_t)(0xe0 | lba >> 24));
	out(s, COUNT, count);
	out(s, LOW, (uint8_t)lba);
	out(s, MID, (uint8_t)(lba >> 8));
	out(s, HIGH, (uint8_t)(lba >> 16));
	out(s, STATUS, code);
}

/* Both halves. */
static void wide_command(struct setup *s, uint8_t code, uint16_t count, uint64_t lba)
{
	out(s, DEVICE, 0xe0);
	out(s, COUNT, (uint8_t)(count >> 8));
	out(s, LOW, (uint8_t)(lba >> 24));
	out(s, MID, (uint8_t)(lba >> 32));
	out(s, HIGH, (uint8_t)(lba >> 40));
	out(s, COUNT, (uint8_t)count);
	out(s, LOW, (uint8_t)lba);
	out(s, MID, (uint8_t)(lba >> 8));
	out(s, HIGH, (uint8_t)(lba >> 16));
	out(s, STATUS, code);
}

static void read_words(struct setup *s, void *to, unsigned size)
{
	for (unsigned n = 0; n < size; n += 2)
		store_le16((uint8_t *)to + n, inw(s->b, (uint16_t)s->base));
}

static void write_words(struct setup *s, const void *from, unsigned size)
{
	for (unsigned n = 0; n < size; n += 2)
		outw(s->b, (uint16_t)s->base, load_le16((const uint8_t *)from + n));
}

static void check_end(struct setup *s, uint8_t status, uint8_t error, int line)
{
	uint8_t is = in(s, STATUS), why = in(s, ERROR);

	if (is != status || why != error)
		fail_msg("line %d: status %02x, error %02x", line, is, why);
}
#define ENDED(s)       check_end(s, 0x50, 0, __LINE__)
#define FAILED(s, why) check_end(s, 0x51, why, __LINE__)

static uint32_t sector_number(const uint8_t *sector) { return load_le32(sector); }

/* ---- what there is ---- */

static void says_what_it_is(void **state)
{
	struct setup *s = *state;
	uint8_t data[512], sum = 0;

	assert_int_equal(board_config_read(s->b, IDE_DEVFN, 0, 4), 0x70108086);
	assert_int_equal(board_config_read(s->b, IDE_DEVFN, 8, 4), 0x01018000);
	command(s, 0xec, 0, 0);
	assert_true(interrupt(s));
	assert_int_equal(in(s, STATUS), 0x58);
	read_words(s, data, 512);
	ENDED(s);
	assert_false(interrupt(s));
	for (unsigned n = 0; n < 512; n++)
		sum += data[n];
	assert_int_equal(sum, 0);
	assert_memory_equal(data + 20, "ba c                ", 20);
	assert_memory_equal(data + 54, "ODPPLED SI K", 12);
	assert_int_equal(load_le16(data + 2), SECTORS / 1008);
	assert_int_equal(load_le16(data + 6), 16);
	assert_int_equal(load_le16(data + 12), 63);
	assert_int_equal(load_le32(data + 120), SECTORS);
	assert_int_equal(load_le64(data + 200), SECTORS);
	assert_int_equal(load_le16(data + 338), 1);
}

static void a_drive_that_is_not_there(void **state)
{
	struct setup *s = *state;

	out(s, DEVICE, 0xf0);
	assert_int_equal(in(s, STATUS), 0);
	out(s, STATUS, 0xec);
	assert_int_equal(in(s, STATUS), 0);
	assert_false(interrupt(s));
	out(s, DEVICE, 0xe0);
	assert_int_equal(in(s, STATUS), 0x50);
}

static void signatures(void **state)
{
	struct setup *s = *state;

	for (unsigned n = 0; n < 2; n++) {
		command(s, 0xe7, 0x55, 0xaaaaaa);
		outb(s->b, CONTROL, 4);
		assert_int_equal(in(s, STATUS), 0x80);
		outb(s->b, CONTROL, 0);
		assert_int_equal(in(s, ERROR) << 24 | in(s, COUNT) << 16 | in(s, LOW) << 8 | in(s, MID), 0x01010100);
		assert_int_equal(in(s, STATUS), 0x50);
		interrupt(s);
		s->base = BASE;
	}
	out(s, STATUS, 0x90);
	assert_true(interrupt(s));
	assert_int_equal(in(s, ERROR), 1);
	s->base = SECOND;
	assert_int_equal(in(s, MID) | in(s, HIGH) << 8, 0xeb14);
	assert_int_equal(in(s, STATUS), 0);
	out(s, DEVICE, 0xf0);
	assert_int_equal(in(s, MID) | in(s, HIGH) << 8, 0xeb14);
	out(s, STATUS, 0xec);
	FAILED(s, 4);
	out(s, STATUS, 0x08);
	assert_int_equal(in(s, STATUS), 0);
}

static void no_interrupts_with_nien(void **state)
{
	struct setup *s = *state;

	outb(s->b, CONTROL, 2);
	command(s, 0xe5, 0, 0);
	assert_false(interrupt(s));
	assert_int_equal(inb(s->b, CONTROL), 0x50);
	outb(s->b, CONTROL, 0);
	assert_true(interrupt(s));
	assert_int_equal(in(s, COUNT), 0xff);
}

/* ---- PIO ---- */

static void reads_and_writes(void **state)
{
	struct setup *s = *state;
	uint8_t data[4 * 512], disk[4 * 512];

	command(s, 0x20, 3, 7);
	for (unsigned n = 0; n < 3; n++) {
		assert_true(interrupt(s));
		assert_int_equal(in(s, STATUS), 0x58);
		read_words(s, data, 512);
		assert_int_equal(sector_number(data), 7 + n);
	}
	ENDED(s);
	memset(data, 0x5a, sizeof(data));
	command(s, 0x30, 2, 100);
	assert_false(interrupt(s));
	write_words(s, data, 512);
	assert_true(interrupt(s));
	assert_int_equal(in(s, STATUS), 0x58);
	write_words(s, data, 512);
	assert_true(interrupt(s));
	ENDED(s);
	assert_int_equal(pread(s->disk, disk, 2 * 512, 100 * 512), 1024);
	assert_memory_equal(disk, data, 1024);
	/* Blocks of four sectors, the last one short; 32-bit accesses. */
	command(s, 0xc6, 4, 0);
	ENDED(s);
	interrupt(s);
	wide_command(s, 0x29, 6, 200);
	assert_true(interrupt(s));
	assert_int_equal(in(s, STATUS), 0x58);
	for (unsigned n = 0; n < 4 * 128; n++)
		store_le32(data + 4 * n, inl(s->b, BASE));
	assert_int_equal(sector_number(data + 3 * 512), 203);
	assert_true(interrupt(s));
	read_words(s, data, 2 * 512);
	assert_int_equal(sector_number(data + 512), 205);
	ENDED(s);
	command(s, 0xc6, 3, 0);
	FAILED(s, 4);
	command(s, 0xe7, 0, 0);
	ENDED(s);
}

static void large_ones(void **state)
{
	struct setup *s = *state;
	uint8_t data[512];

	wide_command(s, 0x24, 700, 1000);
	for (unsigned n = 0; n < 700; n++) {
		read_words(s, data, 512);
		assert_int_equal(sector_number(data), 1000 + n);
	}
	ENDED(s);
	command(s, 0x30, 0, 0);
	for (unsigned n = 0; n < 256; n++)
		write_words(s, data, 512);
	ENDED(s);
}

static void cylinders_heads_sectors(void **state)
{
	struct setup *s = *state;
	uint8_t data[512];

	/* 2, 3, 4 of 16 and 63 */
	out(s, DEVICE, 0xa3);
	out(s, COUNT, 1);
	out(s, LOW, 4);
	out(s, MID, 2);
	out(s, HIGH, 0);
	out(s, STATUS, 0x20);
	read_words(s, data, 512);
	assert_int_equal(sector_number(data), (2 * 16 + 3) * 63 + 3);
	/* The same of 4 and 10 */
	out(s, DEVICE, 0xa3);
	out(s, COUNT, 10);
	out(s, STATUS, 0x91);
	ENDED(s);
	out(s, COUNT, 1);
	out(s, STATUS, 0x20);
	read_words(s, data, 512);
	assert_int_equal(sector_number(data), (2 * 4 + 3) * 10 + 3);
	out(s, LOW, 11);
	out(s, STATUS, 0x20);
	FAILED(s, 0x10);
	out(s, LOW, 0);
	out(s, STATUS, 0x20);
	FAILED(s, 0x10);
}

static void what_is_refused(void **state)
{
	struct setup *s = *state;
	static const uint8_t unknown[] = { 0x00, 0x01, 0xa1, 0xa0, 0xf1, 0xff, 0x60, 0x92 };

	for (unsigned n = 0; n < ARRAY_SIZE(unknown); n++) {
		command(s, unknown[n], 1, 0);
		assert_true(interrupt(s));
		FAILED(s, 4);
	}
	command(s, 0x20, 2, SECTORS - 1);
	FAILED(s, 0x10);
	wide_command(s, 0x25, 1, 0xffffffffffff);
	FAILED(s, 0x10);
	out(s, ERROR, 0xd8);
	command(s, 0xb0, 0, 0xc24f00);
	ENDED(s);
	out(s, ERROR, 0xda);
	command(s, 0xb0, 0, 0xc24f00);
	ENDED(s);
	assert_int_equal(in(s, MID) | in(s, HIGH) << 8, 0xc24f);
}

/* ---- DMA ---- */

static void put_region(struct setup *s, unsigned n, uint32_t address, uint32_t size, bool last)
{
	uint8_t entry[8] = { 0 };

	store_le32(entry, address);
	store_le16(entry + 4, (uint16_t)size);
	entry[7] = last ? 0x80 : 0;
	assert_int_equal(mem_write(s->b->mem, gpa(TABLE + 8 * n), entry, 8), 0);
}

static void start_dma(struct setup *s)
{
	outb(s->b, BM + 2, 6);
	outl(s->b, BM + 4, TABLE);
	outb(s->b, BM, 9);
}

static void dma_in_pieces(void **state)
{
	struct setup *s = *state;
	uint8_t data[8 * 512], expected[8 * 512];

	/* Regions that end in the middle of sectors; in front of the command, or behind it. */
	put_region(s, 0, DATA, 2, false);
	put_region(s, 1, DATA + 2, 700, false);
	put_region(s, 2, DATA + 702, 8 * 512 - 702, true);
	for (unsigned n = 0; n < 2; n++) {
		assert_int_equal(mem_fill(s->b->mem, gpa(DATA), 0xee, sizeof(data)), 0);
		if (n)
			start_dma(s);
		command(s, 0xc8, 8, 50);
		assert_int_equal(interrupt(s), n);
		if (!n)
			start_dma(s);
		assert_int_equal(interrupt(s), !n);
		assert_int_equal(inb(s->b, BM + 2), 4);
		outb(s->b, BM, 0);
		ENDED(s);
		mem_read(s->b->mem, gpa(DATA), data, sizeof(data));
		assert_int_equal(pread(s->disk, expected, sizeof(expected), 50 * 512), sizeof(expected));
		assert_memory_equal(data, expected, sizeof(data));
	}
	/* Written to another place. */
	wide_command(s, 0x35, 8, 300);
	start_dma(s);
	assert_true(interrupt(s));
	ENDED(s);
	assert_int_equal(pread(s->disk, data, sizeof(data), 300 * 512), sizeof(data));
	assert_memory_equal(data, expected, sizeof(data));
}

static void tables_that_do_not_fit(void **state)
{
	struct setup *s = *state;

	/* Too long: the engine stays active. */
	put_region(s, 0, DATA, 0, true);
	command(s, 0xc8, 1, 0);
	start_dma(s);
	assert_true(interrupt(s));
	assert_int_equal(inb(s->b, BM + 2), 5);
	outb(s->b, BM, 0);
	assert_int_equal(inb(s->b, BM + 2), 4);
	ENDED(s);
	/* Too short: it stops, the drive waits; another table goes on. */
	put_region(s, 0, DATA, 512, true);
	command(s, 0xc8, 2, 5);
	start_dma(s);
	assert_false(interrupt(s));
	assert_int_equal(inb(s->b, BM + 2), 0);
	assert_int_equal(in(s, STATUS), 0x58);
	outb(s->b, BM, 0);
	start_dma(s);
	assert_true(interrupt(s));
	ENDED(s);
	/* Memory, or a table, that is not there. */
	outb(s->b, BM, 0);
	put_region(s, 0, 0xf0000000, 512, true);
	command(s, 0xc8, 1, 0);
	start_dma(s);
	assert_true(interrupt(s));
	assert_int_equal(inb(s->b, BM + 2), 6);
	FAILED(s, 4);
	outb(s->b, BM, 0);
	command(s, 0xca, 1, 0);
	outl(s->b, BM + 4, 0xf0000000);
	outb(s->b, BM, 1);
	FAILED(s, 4);
}

static void no_bus_master(void **state)
{
	struct setup *s = *state;

	board_config_write(s->b, IDE_DEVFN, 0x04, 2, 1);
	put_region(s, 0, DATA, 512, true);
	command(s, 0xc8, 1, 0);
	start_dma(s);
	assert_false(interrupt(s));
	outb(s->b, CONTROL, 4);
	outb(s->b, CONTROL, 0);
	assert_int_equal(in(s, STATUS), 0x50);
}

static void trims(void **state)
{
	struct setup *s = *state;
	uint8_t ranges[512] = { 0 }, data[512], zeros[512] = { 0 };

	store_le64(ranges, 100ull | 8ull << 48);
	store_le64(ranges + 16, 200ull | 1ull << 48);
	put_region(s, 0, DATA, 512, true);
	mem_write(s->b->mem, gpa(DATA), ranges, 512);
	out(s, ERROR, 0);
	out(s, ERROR, 1);
	wide_command(s, 0x06, 1, 0);
	start_dma(s);
	assert_true(interrupt(s));
	ENDED(s);
	assert_int_equal(pread(s->disk, data, 512, 104 * 512), 512);
	assert_memory_equal(data, zeros, 512);
	assert_int_equal(pread(s->disk, data, 512, 201 * 512), 512);
	assert_int_equal(sector_number(data), 201);
	store_le64(ranges, SECTORS | 1ull << 48);
	mem_write(s->b->mem, gpa(DATA), ranges, 512);
	outb(s->b, BM, 0);
	wide_command(s, 0x06, 1, 0);
	start_dma(s);
	FAILED(s, 0x10);
}

/* ---- packets ---- */

static void packet(struct setup *s, const char *cdb, bool dma, uint16_t limit)
{
	out(s, ERROR, dma);
	out(s, MID, (uint8_t)limit);
	out(s, HIGH, (uint8_t)(limit >> 8));
	out(s, STATUS, 0xa0);
	assert_int_equal(in(s, STATUS), 0x58);
	assert_int_equal(in(s, COUNT), 1);
	write_words(s, cdb, 12);
}

static void use_cd(struct setup *s, unsigned drive)
{
	s->base = SECOND;
	out(s, DEVICE, (uint8_t)(0xa0 | drive << 4));
}

static void check_sense(struct setup *s, uint32_t code, int line)
{
	uint8_t sense[18];

	packet(s, "\3\0\0\0\22\0\0\0\0\0\0\0", false, 0xfffe);
	assert_int_equal(in(s, STATUS), 0x58);
	read_words(s, sense, 18);
	if (((uint32_t)sense[2] << 16 | sense[12] << 8 | sense[13]) != code)
		fail_msg("line %d: sense %02x %02x %02x", line, sense[2], sense[12], sense[13]);
}
#define SENSE(s, code) check_sense(s, code, __LINE__)

static void tell_attention(struct setup *s)
{
	packet(s, "\0\0\0\0\0\0\0\0\0\0\0\0", false, 0);
	FAILED(s, 0x64);
	SENSE(s, 0x062900);
	packet(s, "\0\0\0\0\0\0\0\0\0\0\0\0", false, 0);
	interrupt(s);
}

static void packets(void **state)
{
	struct setup *s = *state;
	uint8_t data[4096];

	use_cd(s, 0);
	tell_attention(s);
	ENDED(s);
	/* INQUIRY in two parts */
	packet(s, "\22\0\0\0\44\0\0\0\0\0\0\0", false, 20);
	assert_true(interrupt(s));
	assert_int_equal(in(s, STATUS), 0x58);
	assert_int_equal(in(s, COUNT), 2);
	assert_int_equal(in(s, MID) | in(s, HIGH) << 8, 20);
	read_words(s, data, 20);
	assert_true(interrupt(s));
	assert_int_equal(in(s, STATUS), 0x58);
	assert_int_equal(in(s, MID) | in(s, HIGH) << 8, 16);
	read_words(s, data + 20, 16);
	assert_true(interrupt(s));
	assert_int_equal(in(s, COUNT), 3);
	ENDED(s);
	assert_memory_equal(data + 8, "DOPPEL  CD-ROM", 14);
	/* 40 blocks from 3 on: more than the buffer holds. */
	packet(s, "\50\0\0\0\0\3\0\0\50\0\0\0", false, 2048);
	for (unsigned n = 0; n < 40; n++) {
		assert_int_equal(in(s, STATUS), 0x58);
		read_words(s, data, 2048);
		assert_int_equal(sector_number(data), 4 * (3 + n));
	}
	ENDED(s);
	/* By DMA */
	put_region(s, 0, DATA, 2048 + 2, false);
	put_region(s, 1, DATA + 2050, 2046, true);
	packet(s, "\250\0\0\0\0\5\0\0\0\2\0\0", true, 0);
	outb(s->b, BM + 8 + 2, 6);
	outl(s->b, BM + 8 + 4, TABLE);
	outb(s->b, BM + 8, 9);
	interrupt(s);
	ENDED(s);
	mem_read(s->b->mem, gpa(DATA), data, sizeof(data));
	assert_int_equal(sector_number(data), 20);
	assert_int_equal(sector_number(data + 2048), 24);
	outb(s->b, BM + 8, 0);
	/* Behind the end */
	packet(s, "\50\0\0\0\2\0\0\0\1\0\0\0", false, 2048);
	FAILED(s, 0x54);
	SENSE(s, 0x052100);
}

static void change_of_medium(void **state)
{
	struct setup *s = *state;
	struct block_options options = { .readonly = true, .format = "raw" };
	struct ata_drive *d = (struct ata_drive *)bus_find_device(s->b->bus, "ata-drive", 2);
	char name[32];

	use_cd(s, 1);
	tell_attention(s);
	FAILED(s, 0x24);
	SENSE(s, 0x023a01);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", s->disc);
	options.file = name;
	bus_pause(s->b->bus);
	scsi_cd_change(d->cd, block_open(&options, NULL));
	bus_resume(s->b->bus);
	packet(s, "\0\0\0\0\0\0\0\0\0\0\0\0", false, 0);
	FAILED(s, 0x64);
	SENSE(s, 0x062800);
	packet(s, "\0\0\0\0\0\0\0\0\0\0\0\0", false, 0);
	ENDED(s);
	bus_pause(s->b->bus);
	scsi_cd_change(d->cd, NULL);
	bus_resume(s->b->bus);
	packet(s, "\0\0\0\0\0\0\0\0\0\0\0\0", false, 0);
	FAILED(s, 0x24);
}

/* ---- saved in the middle ---- */

static struct setup *copy_of(struct setup *s)
{
	struct setup *copy = create();
	struct writer saved, again;
	struct error err = { 0 };
	uint8_t *memory = malloc(MEMORY);

	bus_pause(s->b->bus);
	bus_pause(copy->b->bus);
	saved = board_save(s->b);
	if (board_load(copy->b, &saved, clock_now(s->b->clock), &err))
		fail_msg("%s", err.text);
	again = board_save(copy->b);
	assert_int_equal(again.size, saved.size);
	assert_memory_equal(again.data, saved.data, saved.size);
	mem_read(s->b->mem, gpa(0), memory, 0xa0000);
	mem_write(copy->b->mem, gpa(0), memory, 0xa0000);
	bus_resume(copy->b->bus);
	bus_resume(s->b->bus);
	writer_free(&saved);
	writer_free(&again);
	free(memory);
	copy->base = s->base;
	return copy;
}

static void goes_on_elsewhere(void **state)
{
	struct setup *s = *state, *copy;
	uint8_t data[512];

	wide_command(s, 0x24, 300, 10);
	for (unsigned n = 0; n < 200; n++)
		read_words(s, data, 512);
	read_words(s, data, 100);
	copy = copy_of(s);
	read_words(copy, data, 412);
	for (unsigned n = 201; n < 300; n++) {
		read_words(copy, data, 512);
		assert_int_equal(sector_number(data), 10 + n);
	}
	ENDED(copy);
	destroy(copy);
	/* DMA that waits for its next table */
	outb(s->b, CONTROL, 4);
	outb(s->b, CONTROL, 0);
	put_region(s, 0, DATA, 512, true);
	command(s, 0xc8, 3, 77);
	start_dma(s);
	copy = copy_of(s);
	outb(copy->b, BM, 0);
	put_region(copy, 0, DATA, 1024, true);
	start_dma(copy);
	ENDED(copy);
	mem_read(copy->b->mem, gpa(DATA + 512), data, 512);
	assert_int_equal(sector_number(data), 79);
	destroy(copy);
	/* A packet's blocks */
	use_cd(s, 0);
	tell_attention(s);
	packet(s, "\50\0\0\0\0\0\0\0\100\0\0\0", false, 2048);
	read_words(s, data, 512);
	copy = copy_of(s);
	for (unsigned n = 1; n < 64 * 4; n++) {
		read_words(copy, data, 512);
		assert_int_equal(sector_number(data), n);
	}
	ENDED(copy);
	destroy(copy);
}

/* ---- errors that the machine waits for ---- */

static void cut(struct setup *s)
{
	bus_pause(s->b->bus);
	assert_int_equal(ftruncate(s->disk, 0), 0);
	bus_resume(s->b->bus);
}

static void heal(struct setup *s)
{
	/* What is tried meanwhile finds all of a sector, or that it is not there */
	for (uint32_t n = 0; n < SECTORS; n++)
		assert_int_equal(pwrite(s->disk, &n, 4, (off_t)n * 512), 4);
	assert_int_equal(ftruncate(s->disk, DISK_SIZE), 0);
}

static struct bus_hold *held(struct setup *s)
{
	struct bus_hold *hold;

	bus_pause(s->b->bus);
	hold = s->b->hold;
	bus_resume(s->b->bus);
	return hold;
}

/* A read of sectors that are not in the file any more, by PIO or DMA. */
static struct setup *create_and_hold(enum clock_kind clock, bool dma)
{
	struct setup *s = create_with(clock, ",discard,on-error=stop");

	cut(s);
	put_region(s, 0, DATA, 1024, true);
	command(s, dma ? 0xc8 : 0x20, 2, 50);
	if (dma)
		start_dma(s);
	assert_non_null(held(s));
	assert_string_equal(s->b->hold->why.device, "ata-drive");
	assert_false(interrupt(s));
	return s;
}

static void check_read(struct setup *s, bool dma)
{
	uint8_t data[1024];

	assert_true(interrupt(s));
	if (dma) {
		mem_read(s->b->mem, gpa(DATA), data, sizeof(data));
	} else {
		read_words(s, data, 512);
		interrupt(s);
		read_words(s, data + 512, 512);
	}
	ENDED(s);
	assert_int_equal(sector_number(data), 50);
	assert_int_equal(sector_number(data + 512), 51);
}

static void waits_for_the_host(void **state)
{
	static const enum clock_kind clocks[] = { CLOCK_VIRTUAL, CLOCK_HOST };

	(void)state;
	for (unsigned n = 0; n < 4; n++) {
		struct setup *s = create_and_hold(clocks[n / 2], n % 2);
		struct bus_hold *hold = s->b->hold;

		hold->retry(hold);
		assert_ptr_equal(held(s), hold);
		assert_int_equal(in(s, STATUS), 0x80);
		heal(s);
		hold->retry(hold);
		assert_null(held(s));
		check_read(s, n % 2);
		hold->retry(hold);
		assert_null(held(s));
		destroy(s);
	}
}

/* A write that waits has its data still. */
static void a_write_that_waits(void **state)
{
	static const enum clock_kind clocks[] = { CLOCK_VIRTUAL, CLOCK_HOST };
	struct rlimit all, few;
	uint8_t data[512];

	(void)state;
	memset(data, 0x5a, sizeof(data));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
	few = all;
	few.rlim_cur = 4096;
	signal(SIGXFSZ, SIG_IGN);
	for (unsigned n = 0; n < ARRAY_SIZE(clocks); n++) {
		struct setup *s = create_with(clocks[n], ",on-error=enospc");
		uint8_t disk[512];

		cut(s);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
		command(s, 0x30, 1, 100);
		write_words(s, data, 512);
		assert_non_null(held(s));
		assert_true(s->b->hold->why.writes);
		assert_int_equal(s->b->hold->why.error, -EFBIG);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
		held(s); /* when devices go on it is tried, too */
		assert_null(held(s));
		assert_true(interrupt(s));
		ENDED(s);
		assert_int_equal(pread(s->disk, disk, 512, 100 * 512), 512);
		assert_memory_equal(disk, data, 512);
		destroy(s);
	}
}

/* Resets, a machine that is loaded, and a drive that goes: nobody waits any more. Saved, it goes on in another one. */
static void what_ends_waiting(void **state)
{
	for (unsigned n = 0; n < 8; n++) {
		struct setup *s = create_and_hold(n % 2 ? CLOCK_HOST : CLOCK_VIRTUAL, true), *copy = NULL;
		struct writer idle;

		(void)state;
		switch (n / 2) {
		case 0:
			outb(s->b, CONTROL, 4);
			outb(s->b, CONTROL, 0);
			break;
		case 1:
			bus_pause(s->b->bus);
			bus_reset(s->b->bus);
			bus_resume(s->b->bus);
			break;
		case 2:
			copy = create();
			idle = board_save(copy->b);
			bus_pause(s->b->bus);
			assert_int_equal(board_load(s->b, &idle, clock_now(s->b->clock), NULL), 0);
			bus_resume(s->b->bus);
			writer_free(&idle);
			break;
		default:
			copy = copy_of(s);
			check_read(copy, true);
			bus_pause(s->b->bus);
			device_unplug(device_plug_find(s->b->bus, "ata-drive", 0));
			bus_resume(s->b->bus);
		}
		assert_null(held(s));
		if (copy)
			destroy(copy);
		destroy(s);
	}
}

/* Any bit of a record of a transfer may be wrong: it is refused, or what follows is harmless. */
static void damaged_records(void **state)
{
	struct setup *s = *state;
	uint64_t seed = 1;
	uint8_t data[512];

	for (unsigned kind = 0; kind < 3; kind++) {
		outb(s->b, CONTROL, 4);
		outb(s->b, CONTROL, 0);
		put_region(s, 0, DATA, 512, true);
		if (kind == 0)
			wide_command(s, 0x24, 300, 10);
		else if (kind == 1)
			wide_command(s, 0x34, 200, 10);
		else
			command(s, 0xc8, 3, 10);
		for (unsigned n = 0; n < 40; n++) {
			struct writer saved = board_save(s->b);
			struct setup *copy = create();
			struct error err = { 0 };

			for (unsigned m = 0; m < 3; m++) {
				/* Buffers are most of it. */
				seed = seed * 6364136223846793005u + 1442695040888963407u;
				saved.data[(seed >> 33) % MIN(saved.size, 2600)] ^= (uint8_t)(1u << (seed >> 60) % 8);
			}
			bus_pause(copy->b->bus);
			board_load(copy->b, &saved, 0, &err);
			bus_resume(copy->b->bus);
			for (unsigned m = 0; m < 40; m++) {
				read_words(copy, data, 512);
				write_words(copy, data, 512);
				start_dma(copy);
			}
			writer_free(&saved);
			destroy(copy);
		}
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(says_what_it_is),
		TEST(a_drive_that_is_not_there),
		TEST(signatures),
		TEST(no_interrupts_with_nien),
		TEST(reads_and_writes),
		TEST(large_ones),
		TEST(cylinders_heads_sectors),
		TEST(what_is_refused),
		TEST(dma_in_pieces),
		TEST(tables_that_do_not_fit),
		TEST(no_bus_master),
		TEST(trims),
		TEST(packets),
		TEST(change_of_medium),
		TEST(goes_on_elsewhere),
		cmocka_unit_test(waits_for_the_host),
		cmocka_unit_test(a_write_that_waits),
		cmocka_unit_test(what_ends_waiting),
		TEST(damaged_records),
	};

	log_set_level(LOG_ERROR);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
