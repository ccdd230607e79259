/*
 * AHCI by the book (1.3): registers, commands with their FISes and tables, queued ones and their errors, packets, resets; commands that were issued go on elsewhere.
 */
#define _GNU_SOURCE
#include "devices/ata/ata.h"
#include "lib/board.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#define DISK_SIZE (4u << 20)
#define DISC_SIZE (1u << 20)
#define MEMORY	  (4u << 20)
#define BASE	  0xe0000000u
#define DEVFN	  0x18u
#define LISTS	  0x10000u /* of port 0; the next port's are 64 KiB behind */
#define FISES	  0x10400u
#define TABLES	  0x11000u /* one each 256 bytes */
#define DATA	  0x100000u

enum { CAP = 0, GHC = 4, IS = 8, PI = 12, VS = 16 };
enum {
	CLB = 0,
	FB = 8,
	PIS = 0x10,
	IE = 0x14,
	CMD = 0x18,
	TFD = 0x20,
	SIG = 0x24,
	SSTS = 0x28,
	SCTL = 0x2c,
	SERR = 0x30,
	SACT = 0x34,
	CI = 0x38
};

struct setup {
	struct board *b;
	int disk, disc;
	unsigned port; /* that commands go to */
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

static uint32_t hba(struct setup *s, unsigned n) { return (uint32_t)board_read(s->b, BUS_MMIO, BASE + n, 4); }
static void set_hba(struct setup *s, unsigned n, uint32_t value) { board_write(s->b, BUS_MMIO, BASE + n, 4, value); }
static uint32_t in(struct setup *s, unsigned n) { return hba(s, 0x100 + 0x80 * s->port + n); }
static void out(struct setup *s, unsigned n, uint32_t value) { set_hba(s, 0x100 + 0x80 * s->port + n, value); }
static uint32_t place(const struct setup *s, uint32_t of_port_0) { return of_port_0 + 0x10000 * s->port; }

static void start(struct setup *s)
{
	out(s, CLB, place(s, LISTS));
	out(s, FB, place(s, FISES));
	out(s, SERR, UINT32_MAX);
	out(s, PIS, UINT32_MAX);
	out(s, IE, UINT32_MAX);
	out(s, CMD, 0x11);
}

/* A disk on the first port, a CD on the second; their lists are set up and the ports run. */
static struct setup *create(enum clock_kind clock)
{
	struct setup *s = calloc(1, sizeof(*s));

	s->b = board_create_with(1, clock);
	s->disk = make_file(DISK_SIZE);
	s->disc = make_file(DISC_SIZE);
	board_add_memory(s->b, MEMORY);
	assert_int_equal(pci_bus_create(s->b->bus, NULL) || piix_type.create(s->b->bus, NULL, NULL), 0);
	add(s, "sata-disk", s->disk, ",discard,serial=abc");
	add(s, "sata-cd", s->disc, "");
	bus_reset(s->b->bus);
	bus_resume(s->b->bus);
	board_config_write(s->b, DEVFN, 0x24, 4, BASE);
	board_config_write(s->b, DEVFN, 0x04, 2, 6);
	set_hba(s, GHC, 0x80000002);
	for (s->port = 0; s->port < 2; s->port++)
		start(s);
	s->port = 0;
	return s;
}

static int setup(void **state)
{
	*state = create(CLOCK_VIRTUAL);
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

/* ---- commands ---- */

struct region {
	uint64_t at;
	uint32_t size;
};

/* The command FIS in a slot's table, with regions of memory; write: the header's bit. */
static void put_command(struct setup *s, unsigned slot, uint8_t code, uint16_t feature, uint16_t count, uint64_t lba,
			const struct region *regions, unsigned region_count)
{
	uint8_t fis[20] = { 0x27, 0x80, code, (uint8_t)feature }, header[32] = { 5 }, prd[16];
	uint32_t table = place(s, TABLES) + 0x100 * slot;

	for (unsigned n = 0; n < 3; n++) {
		fis[4 + n] = (uint8_t)(lba >> 8 * n);
		fis[8 + n] = (uint8_t)(lba >> (24 + 8 * n));
	}
	fis[7] = 0x40;
	fis[11] = (uint8_t)(feature >> 8);
	store_le16(fis + 12, count);
	store_le16(header + 2, (uint16_t)region_count);
	store_le32(header + 8, table);
	mem_write(s->b->mem, gpa(place(s, LISTS) + 32 * slot), header, sizeof(header));
	mem_write(s->b->mem, gpa(table), fis, sizeof(fis));
	for (unsigned n = 0; n < region_count; n++) {
		memset(prd, 0, sizeof(prd));
		store_le64(prd, regions[n].at);
		store_le32(prd + 12, regions[n].size - 1);
		mem_write(s->b->mem, gpa(table + 0x80 + 16 * n), prd, sizeof(prd));
	}
}

static void run_command(struct setup *s, uint8_t code, uint16_t count, uint64_t lba, uint32_t size)
{
	put_command(s, 0, code, 1, count, lba, &(struct region){ DATA, size }, size ? 1 : 0);
	out(s, CI, 1);
}

static void get(struct setup *s, uint64_t at, void *data, size_t size)
{
	assert_int_equal(mem_read(s->b->mem, gpa(at), data, size), 0);
}

static uint32_t word_at(struct setup *s, uint64_t at)
{
	uint8_t word[4];

	get(s, at, word, 4);
	return load_le32(word);
}

static uint32_t moved(struct setup *s, unsigned slot) { return word_at(s, place(s, LISTS) + 32 * slot + 4); }

/* Interrupt status, cleared. */
static uint32_t happened(struct setup *s)
{
	uint32_t status = in(s, PIS);

	out(s, PIS, status);
	return status;
}

#define ENDED(s, status)                                                                                               \
	do {                                                                                                           \
		assert_int_equal(happened(s), status);                                                                 \
		assert_int_equal(in(s, CI) | in(s, SACT), 0);                                                          \
		assert_int_equal(in(s, TFD) & 0xff, 0x50);                                                             \
	} while (0)

/* As a driver does: behind an error nothing is done until the port has been started again. */
static void restart(struct setup *s)
{
	out(s, CMD, 0x10);
	assert_int_equal(in(s, CMD) & 0x8001, 0);
	assert_int_equal(in(s, CI) | in(s, SACT), 0);
	out(s, PIS, UINT32_MAX);
	out(s, CMD, 0x11);
}

#define FAILED(s, status, error)                                                                                       \
	do {                                                                                                           \
		assert_int_equal(happened(s), (status) | 1u << 30);                                                    \
		assert_int_equal(in(s, TFD), 0x51 | (error) << 8);                                                     \
		restart(s);                                                                                            \
	} while (0)

/* ---- registers ---- */

static void what_there_is(void **state)
{
	struct setup *s = *state;

	assert_int_equal(board_config_read(s->b, DEVFN, 0, 4), 0x29228086);
	assert_int_equal(board_config_read(s->b, DEVFN, 8, 4), 0x01060102);
	assert_int_equal(hba(s, CAP), 0xc1241f05);
	assert_int_equal(hba(s, GHC), 0x80000002);
	assert_int_equal(hba(s, PI), 0x3f);
	assert_int_equal(hba(s, VS), 0x10300);
	assert_int_equal(in(s, SIG), 0x101);
	assert_int_equal(in(s, TFD), 0x150);
	assert_int_equal(in(s, SSTS), 0x123);
	assert_int_equal(in(s, CMD), 0xdf17);
	/* The FIS of the reset, which came when there was a place for it */
	assert_int_equal(word_at(s, FISES + 0x40), 0x01500034);
	s->port = 1;
	assert_int_equal(in(s, SIG), 0xeb140101);
	assert_int_equal(in(s, TFD), 0x100);
	s->port = 2;
	assert_int_equal(in(s, SSTS), 0);
	assert_int_equal(in(s, SIG), UINT32_MAX);
	out(s, CMD, 0x11);
	out(s, CI, 1);
	assert_int_equal(in(s, CI), 0);
	/* Parts of words are read; what is behind the ports is zeros. */
	assert_int_equal(board_read(s->b, BUS_MMIO, BASE + 0x125, 1), 1);
	assert_int_equal(hba(s, 0xff8), 0);
}

static void resets(void **state)
{
	struct setup *s = *state;
	uint8_t fis[20] = { 0x27 };

	/* COMRESET */
	out(s, CMD, 0x10);
	out(s, SCTL, 0x301);
	assert_int_equal(in(s, SSTS), 0);
	assert_int_equal(in(s, TFD), 0x7f);
	out(s, SCTL, 0x300);
	assert_int_equal(in(s, SSTS), 0x123);
	assert_int_equal(in(s, SERR), 0x04010000);
	assert_int_equal(in(s, PIS), 0x00400040);
	out(s, SERR, UINT32_MAX);
	assert_int_equal(in(s, PIS), 0);
	assert_int_equal(in(s, TFD), 0x150);
	/* SRST by two FISes */
	out(s, CMD, 0x11);
	put_command(s, 0, 0, 0, 0, 0, NULL, 0);
	fis[15] = 4;
	mem_write(s->b->mem, gpa(TABLES), fis, sizeof(fis));
	out(s, CI, 1);
	assert_int_equal(in(s, CI), 0);
	assert_int_equal(in(s, TFD), 0x80);
	fis[15] = 0;
	mem_write(s->b->mem, gpa(TABLES), fis, sizeof(fis));
	out(s, CI, 1);
	assert_int_equal(in(s, TFD), 0x150);
	/* The drive is off. */
	out(s, CMD, 0x10);
	out(s, SCTL, 4);
	assert_int_equal(in(s, SSTS), 4);
	/* All of it */
	set_hba(s, GHC, 0x80000001);
	assert_int_equal(hba(s, GHC), 0x80000000);
	assert_int_equal(in(s, CMD), 0x1f06);
	assert_int_equal(in(s, SSTS), 0x123);
	assert_int_equal(in(s, TFD), 0x150);
}

static void interrupts(void **state)
{
	struct setup *s = *state;

	board_pic_init(s->b);
	board_config_write(s->b, 8, 0x60, 4, 0x0a0a0a0a);
	outb(s->b, 0x4d1, 0x04);
	run_command(s, 0xe7, 0, 0, 0);
	assert_int_equal(hba(s, IS), 1);
	assert_int_equal(board_take(s->b), 0x2a);
	set_hba(s, IS, 1);
	assert_int_equal(hba(s, IS), 1);
	happened(s);
	assert_int_equal(hba(s, IS), 0);
	outb(s->b, 0xa0, 0x20);
	outb(s->b, 0x20, 0x20);
	assert_int_equal(board_take(s->b), -1);
	/* By message */
	lapic_wr(s->b, 0, 0xf0, 0x1ff);
	assert_int_equal(board_config_read(s->b, DEVFN, 0x34, 1), 0x40);
	assert_int_equal(board_config_read(s->b, DEVFN, 0x40, 4) & 0xffffff, 0x800005 & 0xff00ff);
	board_config_write(s->b, DEVFN, 0x44, 4, 0xfee00000);
	board_config_write(s->b, DEVFN, 0x4c, 2, 0x55);
	board_config_write(s->b, DEVFN, 0x42, 2, 1);
	run_command(s, 0xe7, 0, 0, 0);
	assert_int_equal(board_take(s->b), 0x55);
	lapic_wr(s->b, 0, 0xb0, 0);
	happened(s);
	assert_int_equal(board_take(s->b), -1);
}

/* ---- data ---- */

static void identifies(void **state)
{
	struct setup *s = *state;
	uint8_t data[512], sum = 0;

	run_command(s, 0xec, 0, 0, 512);
	ENDED(s, 2);
	assert_int_equal(moved(s, 0), 512);
	assert_int_equal(word_at(s, FISES + 0x20), 0x0058605f);
	assert_int_equal(word_at(s, FISES + 0x2c) >> 24, 0x50);
	get(s, DATA, data, 512);
	for (unsigned n = 0; n < 512; n++)
		sum += data[n];
	assert_int_equal(sum, 0);
	assert_memory_equal(data + 20, "ba c                ", 20);
	assert_int_equal(load_le16(data + 150), 31);
	assert_int_equal(load_le16(data + 152), 0x010e);
	assert_int_equal(load_le16(data + 186), 0);
}

static void reads_and_writes(void **state)
{
	struct setup *s = *state;
	struct region odd[] = { { DATA + 2, 510 }, { DATA + 0x1000, 1026 }, { DATA + 0x2000, 0x100000 } };
	uint8_t data[4096], disk[4096];

	put_command(s, 3, 0x25, 0, 4, 100, odd, 3);
	out(s, CI, 8);
	ENDED(s, 1);
	assert_int_equal(moved(s, 3), 2048);
	assert_int_equal(word_at(s, DATA + 2), 100);
	assert_int_equal(word_at(s, DATA + 0x1000 + 2), 101);
	assert_int_equal(word_at(s, DATA + 0x2000), 103);
	memset(data, 0x5a, sizeof(data));
	mem_write(s->b->mem, gpa(DATA), data, sizeof(data));
	run_command(s, 0x35, 8, 200, 4096);
	ENDED(s, 1);
	assert_int_equal(pread(s->disk, disk, 4096, 200 * 512), 4096);
	assert_memory_equal(disk, data, 4096);
	/* PIO */
	run_command(s, 0x20, 3, 7, 1536);
	ENDED(s, 2);
	assert_int_equal(word_at(s, DATA + 1024), 9);
	run_command(s, 0x34, 1, 300, 512);
	ENDED(s, 1);
	assert_int_equal(pread(s->disk, disk, 4, 300 * 512), 4);
	assert_int_equal(load_le32(disk), 7);
	/* Larger than one request */
	run_command(s, 0x25, 4096, 4000, 2 << 20);
	ENDED(s, 1);
	assert_int_equal(moved(s, 0), 2 << 20);
	assert_int_equal(word_at(s, DATA + (2 << 20) - 512), 8095);
	/* TRIM */
	memset(data, 0, 512);
	store_le64(data, 200 | 2ull << 48);
	mem_write(s->b->mem, gpa(DATA), data, 512);
	run_command(s, 0x06, 1, 0, 512);
	ENDED(s, 1);
}

static void queued(void **state)
{
	struct setup *s = *state;

	for (unsigned slot = 0; slot < 32; slot++)
		put_command(s, slot, 0x60, 2, (uint16_t)(slot << 3), 50 * slot,
			    &(struct region){ DATA + 0x1000 * slot, 1024 }, 1);
	out(s, SACT, UINT32_MAX);
	out(s, CI, UINT32_MAX);
	ENDED(s, 8);
	for (unsigned slot = 0; slot < 32; slot++) {
		assert_int_equal(word_at(s, DATA + 0x1000 * slot + 512), 50 * slot + 1);
		assert_int_equal(moved(s, slot), 1024);
	}
	assert_int_equal(word_at(s, FISES + 0x58), 0x005040a1);
	assert_int_equal(word_at(s, FISES), 0x00002041);
	/* One beyond the end of the disk: it is the log's, once. */
	put_command(s, 4, 0x61, 1, 4 << 3, DISK_SIZE / 512, &(struct region){ DATA, 512 }, 1);
	put_command(s, 5, 0x61, 1, 5 << 3, 7, &(struct region){ DATA, 512 }, 1);
	out(s, SACT, 0x30);
	out(s, CI, 0x30);
	assert_int_equal(happened(s), 1u << 30 | 8);
	assert_int_equal(in(s, SACT), 0x30);
	assert_int_equal(in(s, TFD), 0x1051);
	restart(s);
	for (unsigned n = 0; n < 2; n++) {
		run_command(s, 0x2f, 1, 0x10, 512);
		ENDED(s, 2);
		assert_int_equal(word_at(s, DATA), n ? 0x80 : 0x10510004);
	}
}

static void what_fails(void **state)
{
	struct setup *s = *state;
	struct region nowhere = { 1ull << 40, 512 };
	uint8_t bad = 0x34;

	run_command(s, 0x25, 1, DISK_SIZE / 512, 512);
	FAILED(s, 1u, 0x10);
	run_command(s, 0xff, 0, 0, 0);
	FAILED(s, 1u, 4);
	/* Fewer regions than data */
	run_command(s, 0x25, 2, 0, 512);
	FAILED(s, 1u | 1 << 24, 4);
	run_command(s, 0xec, 0, 0, 0);
	FAILED(s, 1u | 1 << 24, 4);
	/* Memory that is none: of data, a table, the list */
	put_command(s, 0, 0x25, 0, 1, 0, &nowhere, 1);
	out(s, CI, 1);
	FAILED(s, 1u | 1 << 29, 4);
	put_command(s, 0, 0x60, 1, 0, 0, &nowhere, 1);
	out(s, SACT, 1);
	out(s, CI, 1);
	FAILED(s, 8u | 1 << 29, 4);
	out(s, CMD, 0);
	out(s, CLB + 4, 0xffffffff);
	out(s, CMD, 0x11);
	out(s, CI, 1);
	assert_int_equal(happened(s), 1u << 29);
	assert_int_equal(in(s, CI), 1);
	out(s, CMD, 0);
	out(s, CLB + 4, 0);
	restart(s);
	/* No command FIS */
	put_command(s, 0, 0x25, 0, 1, 0, &nowhere, 1);
	mem_write(s->b->mem, gpa(TABLES), &bad, 1);
	out(s, CI, 3);
	assert_int_equal(happened(s), 1u << 27);
	restart(s);
	run_command(s, 0xe7, 0, 0, 0);
	ENDED(s, 1);
}

static void packet(struct setup *s, const char *cdb, bool dma, uint32_t size)
{
	put_command(s, 0, 0xa0, dma, 0, 0, &(struct region){ DATA, size }, size ? 1 : 0);
	mem_write(s->b->mem, gpa(place(s, TABLES) + 0x40), cdb, 12);
	out(s, CI, 1);
}

static void packets(void **state)
{
	struct setup *s = *state;

	s->port = 1;
	run_command(s, 0xec, 0, 0, 512);
	FAILED(s, 1u, 4);
	packet(s, "\0\0\0\0\0\0\0\0\0\0\0\0", false, 0);
	FAILED(s, 1u, 0x64);
	packet(s, "\3\0\0\0\22\0\0\0\0\0\0\0", true, 18);
	ENDED(s, 1);
	assert_int_equal(word_at(s, DATA) & 0xff, 0x70);
	for (unsigned dma = 0; dma < 2; dma++) {
		packet(s, "\50\0\0\0\0\4\0\0\100\0\0\0", dma, 128 << 10);
		ENDED(s, 1);
		assert_int_equal(moved(s, 0), 128 << 10);
		assert_int_equal(word_at(s, DATA + 63 * 2048 + 512), (4 + 63) * 4 + 1);
	}
	packet(s, "\45\0\0\0\0\0\0\0\0\0\0\0", true, 8);
	ENDED(s, 1);
	assert_int_equal(word_at(s, DATA), 0xff010000);
	packet(s, "\50\0\0\0\0\4\0\0\1\0\0\0", true, 1024);
	FAILED(s, 1u | 1 << 24, 4);
}

/* ---- real time ---- */

/* Commands that workers have, while others are issued, the port is stopped, and the machine is paused. */
static void workers(void **state)
{
	struct setup *s = create(CLOCK_HOST);

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned slot = 0; slot < 32; slot++)
			put_command(s, slot, slot & 1 ? 0x61 : 0x60, 128, (uint16_t)(slot << 3), 100 * slot,
				    &(struct region){ DATA + 0x10000 * slot, 65536 }, 1);
		out(s, SACT, UINT32_MAX);
		out(s, CI, UINT32_MAX);
		if (round % 4 == 1) {
			bus_pause(s->b->bus);
			bus_resume(s->b->bus);
		}
		if (round % 4 == 2) {
			out(s, CMD, 0x10);
			while (in(s, CMD) & 0x8000)
				sched_yield();
			out(s, CMD, 0x11);
		}
		while (in(s, SACT)) {
			assert_int_equal(in(s, TFD) & 1, 0);
			sched_yield();
		}
		assert_int_equal(in(s, TFD) & 0xff, 0x50);
	}
	out(s, SACT, 1);
	out(s, CI, 1);
	set_hba(s, GHC, 0x80000001);
	while (hba(s, GHC) & 1)
		sched_yield();
	destroy(s);
}

/* ---- saved ---- */

static struct setup *load(struct setup *s, struct writer *saved, bool must)
{
	struct setup *copy = create(CLOCK_VIRTUAL);
	struct error err = { 0 };
	uint8_t *memory = malloc(0xa0000);

	bus_pause(copy->b->bus);
	mem_read(s->b->mem, gpa(0), memory, 0xa0000);
	mem_write(copy->b->mem, gpa(0), memory, 0xa0000);
	if (board_load(copy->b, saved, clock_now(s->b->clock), &err) && must)
		fail_msg("%s", err.text);
	free(memory);
	copy->port = s->port;
	return copy;
}

/* Issued while the function was no bus master: as commands are that had not begun, or had to begin anew. */
static void issue_silently(struct setup *s)
{
	board_config_write(s->b, DEVFN, 0x04, 2, 2);
	for (unsigned slot = 0; slot < 3; slot++)
		put_command(s, slot, 0x60, 1, (uint16_t)(slot << 3), 50 * slot,
			    &(struct region){ DATA + 0x1000 * slot, 512 }, 1);
	out(s, SACT, 7);
	out(s, CI, 7);
	assert_int_equal(in(s, CI), 7);
}

static void goes_on_elsewhere(void **state)
{
	struct setup *s = *state, *copy;
	struct writer saved, again;

	issue_silently(s);
	saved = board_save(s->b);
	copy = load(s, &saved, true);
	again = board_save(copy->b);
	assert_int_equal(again.size, saved.size);
	assert_memory_equal(again.data, saved.data, saved.size);
	bus_resume(copy->b->bus);
	assert_int_equal(in(copy, CI), 7);
	board_config_write(copy->b, DEVFN, 0x04, 2, 6);
	out(copy, IE, UINT32_MAX);
	ENDED(copy, 8);
	assert_int_equal(word_at(copy, DATA + 0x2000), 100);
	writer_free(&saved);
	writer_free(&again);
	destroy(copy);
}

/* Any bit may be wrong: it is refused, or what follows is harmless. */
static void damaged_records(void **state)
{
	struct setup *s = *state;
	uint64_t seed = 1;

	issue_silently(s);
	board_config_write(s->b, DEVFN, 0x04, 2, 6);
	issue_silently(s);
	for (unsigned n = 0; n < 200; n++) {
		struct writer saved = board_save(s->b);
		struct setup *copy;

		for (unsigned m = 0; m < 3; m++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			saved.data[(seed >> 33) % saved.size] ^= (uint8_t)(1u << (seed >> 60) % 8);
		}
		copy = load(s, &saved, false);
		bus_resume(copy->b->bus);
		board_config_write(copy->b, DEVFN, 0x04, 2, 6);
		for (unsigned m = 0; m < 0x180; m += 4)
			set_hba(copy, m, hba(copy, m) | 0x11);
		writer_free(&saved);
		destroy(copy);
	}
}

static void a_drive_that_goes(void **state)
{
	struct setup *s = *state;

	bus_pause(s->b->bus);
	devices_unplug(s->b->bus);
	bus_resume(s->b->bus);
	/* The controller was made for it and stays. */
	assert_int_equal(in(s, SSTS), 0);
	assert_int_equal(in(s, PIS), 0x00400040);
	out(s, CI, 1);
	assert_int_equal(in(s, CI), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_there_is),	 TEST(resets),		 TEST(interrupts),
		TEST(identifies),	 TEST(reads_and_writes), TEST(queued),
		TEST(what_fails),	 TEST(packets),		 cmocka_unit_test(workers),
		TEST(goes_on_elsewhere), TEST(damaged_records),	 TEST(a_drive_that_goes),
	};

	log_set_level(LOG_ERROR);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
