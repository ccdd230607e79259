/*
 * NVMe by the book (1.4): registers, queues with their phases and doorbells, admin commands, data by PRPs, and what a hostile driver sends; queues go on elsewhere.
 */
#define _GNU_SOURCE
#include "lib/board.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#define DISK_SIZE (4u << 20)
#define SECTORS	  (DISK_SIZE / 512)
#define MEMORY	  (8u << 20)
#define BASE	  0xe0000000u
#define DEVFN	  0x18u
#define ENTRIES	  8u
#define SQ(n)	  (0x10000u + 0x2000u * (n))
#define CQ(n)	  (0x11000u + 0x2000u * (n))
#define LIST	  0x80000u
#define DATA	  0x100000u
#define DNR	  0x4000u

enum { CAP = 0, VS = 8, INTMS = 0x0c, INTMC = 0x10, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30 };
#define CC_ON 0x00460001u

struct setup {
	struct board *b;
	int disk;
	unsigned tail[3], head[3];
	uint32_t result; /* of the last command */
};

static uint32_t in(struct setup *s, unsigned n) { return (uint32_t)board_read(s->b, BUS_MMIO, BASE + n, 4); }
static void out(struct setup *s, unsigned n, uint32_t value) { board_write(s->b, BUS_MMIO, BASE + n, 4, value); }
static void ring_sq(struct setup *s, unsigned q, uint32_t value) { out(s, 0x1000 + 8 * q, value); }
static void ring_cq(struct setup *s, unsigned q, uint32_t value) { out(s, 0x1004 + 8 * q, value); }

static void enable(struct setup *s)
{
	memset(s->tail, 0, sizeof(s->tail));
	memset(s->head, 0, sizeof(s->head));
	out(s, AQA, (ENTRIES - 1) | (ENTRIES - 1) << 16);
	out(s, ASQ, SQ(0));
	out(s, ACQ, CQ(0));
	out(s, CC, CC_ON);
	assert_int_equal(in(s, CSTS), 1);
}

static struct setup *create(enum clock_kind clock, const char *options)
{
	struct setup *s = calloc(1, sizeof(*s));
	struct error err = { 0 };
	char spec[160];

	s->b = board_create_with(1, clock);
	s->disk = memfd_create("disk", 0);
	assert_int_equal(ftruncate(s->disk, DISK_SIZE), 0);
	for (uint32_t n = 0; n < SECTORS; n++)
		assert_int_equal(pwrite(s->disk, &n, 4, (off_t)n * 512), 4);
	board_add_memory(s->b, MEMORY);
	assert_int_equal(pci_bus_create(s->b->bus, NULL) || piix_type.create(s->b->bus, NULL, NULL), 0);
	snprintf(spec, sizeof(spec), "nvme,file=/proc/self/fd/%d,format=raw,serial=abc%s", s->disk, options);
	if (!device_plug(s->b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
	bus_reset(s->b->bus);
	bus_resume(s->b->bus);
	board_config_write(s->b, DEVFN, 0x10, 4, BASE);
	board_config_write(s->b, DEVFN, 0x04, 2, 6);
	enable(s);
	return s;
}

static int setup(void **state)
{
	*state = create(CLOCK_VIRTUAL, ",discard");
	return 0;
}

static void destroy(struct setup *s)
{
	bus_pause(s->b->bus);
	devices_unplug(s->b->bus);
	board_destroy(s->b);
	close(s->disk);
	free(s);
}

static int teardown(void **state)
{
	destroy(*state);
	return 0;
}

/* ---- commands ---- */

struct command {
	uint8_t opcode, flags;
	uint32_t namespace;
	uint64_t prp1, prp2;
	uint32_t words[6];
};

static void put(struct setup *s, unsigned q, uint16_t id, struct command c)
{
	uint8_t entry[64] = { c.opcode, c.flags };

	store_le16(entry + 2, id);
	store_le32(entry + 4, c.namespace);
	store_le64(entry + 24, c.prp1);
	store_le64(entry + 32, c.prp2);
	for (unsigned n = 0; n < 6; n++)
		store_le32(entry + 40 + 4 * n, c.words[n]);
	assert_int_equal(mem_write(s->b->mem, gpa(SQ(q) + 64 * s->tail[q]), entry, sizeof(entry)), 0);
	s->tail[q] = (s->tail[q] + 1) % ENTRIES;
}

static void get_entry(struct setup *s, unsigned q, uint8_t entry[16])
{
	mem_read(s->b->mem, gpa(CQ(q) + 16 * (s->head[q] % ENTRIES)), entry, 16);
}

/* A completion has come: its phase says so. head counts on, so that it says which phase that is. */
static bool has_come(struct setup *s, unsigned q)
{
	uint8_t entry[16];

	get_entry(s, q, entry);
	return (entry[14] & 1) != (s->head[q] / ENTRIES % 2);
}

static unsigned take(struct setup *s, unsigned q, uint16_t *id)
{
	uint8_t entry[16];

	while (!has_come(s, q))
		sched_yield();
	get_entry(s, q, entry);
	s->head[q]++;
	s->result = load_le32(entry);
	*id = load_le16(entry + 12);
	ring_cq(s, q, s->head[q] % ENTRIES);
	return load_le16(entry + 14) >> 1;
}

static unsigned run(struct setup *s, unsigned q, struct command c)
{
	unsigned status;
	uint16_t id;

	put(s, q, 0x1234, c);
	ring_sq(s, q, s->tail[q]);
	assert_true(has_come(s, q));
	status = take(s, q, &id);
	assert_int_equal(id, 0x1234);
	return status;
}

#define ADMIN(s, ...) run(s, 0, (struct command){ __VA_ARGS__ })
#define IO(s, ...)    run(s, 1, (struct command){ __VA_ARGS__ })

static void make_queues(struct setup *s)
{
	assert_int_equal(ADMIN(s, .opcode = 5, .prp1 = CQ(1), .words = { (ENTRIES - 1) << 16 | 1, 1 << 16 | 3 }), 0);
	assert_int_equal(ADMIN(s, .opcode = 1, .prp1 = SQ(1), .words = { (ENTRIES - 1) << 16 | 1, 1 << 16 | 1 }), 0);
}

static uint32_t word_at(struct setup *s, uint64_t at)
{
	uint8_t word[4];

	assert_int_equal(mem_read(s->b->mem, gpa(at), word, 4), 0);
	return load_le32(word);
}

/* ---- registers and admin commands ---- */

static void what_there_is(void **state)
{
	struct setup *s = *state;
	uint8_t data[4096];

	assert_int_equal(board_config_read(s->b, DEVFN, 0, 4), 0x00101b36);
	assert_int_equal(board_config_read(s->b, DEVFN, 8, 4), 0x01080202);
	assert_int_equal(board_read(s->b, BUS_MMIO, BASE + CAP, 8), 0x20140103ff);
	assert_int_equal(in(s, VS), 0x10400);
	assert_int_equal(ADMIN(s, .opcode = 6, .prp1 = DATA + 2048, .prp2 = DATA + 8192, .words = { 1 }), 0);
	mem_read(s->b->mem, gpa(DATA + 2048), data, 2048);
	assert_memory_equal(data + 4, "abc                 DOPPEL NVME ", 32);
	assert_int_equal(data[77], 7);
	assert_int_equal(load_le32(data + 516), 1);
	assert_int_equal(load_le16(data + 520), 12);
	assert_int_equal(word_at(s, DATA + 8192), 2500);
	assert_int_equal(ADMIN(s, .opcode = 6, .namespace = 1, .prp1 = DATA), 0);
	assert_int_equal(word_at(s, DATA), SECTORS);
	assert_int_equal(word_at(s, DATA + 128), 9 << 16);
	assert_int_equal(ADMIN(s, .opcode = 6, .prp1 = DATA, .words = { 2 }), 0);
	assert_int_equal(word_at(s, DATA), 1);
	assert_int_equal(ADMIN(s, .opcode = 6, .namespace = 1, .prp1 = DATA, .words = { 2 }), 0);
	assert_int_equal(word_at(s, DATA), 0);
	assert_int_equal(ADMIN(s, .opcode = 6, .namespace = 1, .prp1 = DATA, .words = { 3 }), 0);
	assert_int_equal(word_at(s, DATA), 0x801);
	assert_int_equal(ADMIN(s, .opcode = 6, .namespace = 2, .prp1 = DATA), 0x0b | DNR);
	assert_int_equal(ADMIN(s, .opcode = 6, .prp1 = DATA, .words = { 0x77 }), 0x02 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 0x7f), 0x01 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 6, .flags = 0x40, .prp1 = DATA, .words = { 1 }), 0x02 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 8), 0);
	assert_int_equal(s->result, 1);
}

static void queues(void **state)
{
	struct setup *s = *state;

	assert_int_equal(ADMIN(s, .opcode = 9, .words = { 7, 0x00ff00ff }), 0);
	assert_int_equal(s->result, 0x000f000f);
	assert_int_equal(ADMIN(s, .opcode = 1, .prp1 = SQ(1), .words = { 7 << 16 | 1, 1 << 16 | 1 }), 0x100 | DNR);
	make_queues(s);
	assert_int_equal(ADMIN(s, .opcode = 5, .prp1 = CQ(1), .words = { 7 << 16 | 1, 3 }), 0x101 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 5, .prp1 = CQ(1), .words = { 7 << 16 | 17, 3 }), 0x101 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 5, .prp1 = CQ(1), .words = { 7 << 16, 3 }), 0x101 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 5, .prp1 = CQ(1), .words = { 2, 3 }), 0x102 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 5, .prp1 = CQ(1), .words = { 1024u << 16 | 2, 3 }), 0x102 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 5, .prp1 = CQ(1), .words = { 7 << 16 | 2, 2 }), 0x02 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 5, .prp1 = CQ(1) + 4, .words = { 7 << 16 | 2, 3 }), 0x13 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 5, .prp1 = CQ(1), .words = { 7 << 16 | 2, 17 << 16 | 3 }), 0x108 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 4, .words = { 1 }), 0x10c | DNR);
	assert_int_equal(IO(s, .opcode = 0, .namespace = 1), 0);
	assert_int_equal(ADMIN(s, .opcode = 0, .words = { 1 }), 0);
	assert_int_equal(ADMIN(s, .opcode = 0, .words = { 1 }), 0x101 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 4, .words = { 1 }), 0);
	assert_int_equal(ADMIN(s, .opcode = 4, .words = { 0 }), 0x101 | DNR);
}

static void features(void **state)
{
	struct setup *s = *state;

	assert_int_equal(ADMIN(s, .opcode = 10, .words = { 6 }), 0);
	assert_int_equal(s->result, 1);
	assert_int_equal(ADMIN(s, .opcode = 9, .words = { 6, 0 }), 0);
	assert_int_equal(ADMIN(s, .opcode = 10, .words = { 6 }), 0);
	assert_int_equal(s->result, 0);
	assert_int_equal(ADMIN(s, .opcode = 9, .words = { 1, 0x010203ff }), 0);
	assert_int_equal(ADMIN(s, .opcode = 10, .words = { 1 }), 0);
	assert_int_equal(s->result, 0x010203ff);
	assert_int_equal(ADMIN(s, .opcode = 10, .words = { 9, 5 }), 0);
	assert_int_equal(s->result, 0x10005);
	assert_int_equal(ADMIN(s, .opcode = 10, .words = { 9, 17 }), 2 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 10, .words = { 4 }), 0);
	assert_int_equal(s->result, 343);
	assert_int_equal(ADMIN(s, .opcode = 10, .words = { 4, 3 << 20 }), 2 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 9, .words = { 0x80000001u }), 0x10d | DNR);
	assert_int_equal(ADMIN(s, .opcode = 10, .words = { 3 }), 2 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 9, .words = { 7, 0xffff }), 2 | DNR);
}

static void events_and_logs(void **state)
{
	struct setup *s = *state;
	uint16_t id;

	for (uint16_t n = 0; n < 5; n++)
		put(s, 0, n, (struct command){ .opcode = 12 });
	ring_sq(s, 0, s->tail[0]);
	/* One more than there may be */
	assert_int_equal(take(s, 0, &id), 0x105 | DNR);
	assert_int_equal(id, 4);
	assert_false(has_come(s, 0));
	ring_sq(s, 5, 1);
	assert_int_equal(take(s, 0, &id), 0);
	assert_int_equal(s->result, 0x010000);
	/* Nothing more of that kind, until its log has been read */
	ring_sq(s, 0, ENTRIES);
	assert_false(has_come(s, 0));
	assert_int_equal(ADMIN(s, .opcode = 2, .prp1 = DATA, .words = { 15 << 16 | 1 << 15 | 1 }), 0);
	assert_int_equal(word_at(s, DATA), 1);
	ring_sq(s, 0, ENTRIES);
	assert_false(has_come(s, 0));
	assert_int_equal(ADMIN(s, .opcode = 2, .prp1 = DATA, .words = { 15 << 16 | 1 }), 0);
	ring_cq(s, 0, (s->head[0] + 1) % ENTRIES);
	assert_int_equal(take(s, 0, &id), 0);
	assert_int_equal(s->result, 0x010100);
	assert_int_equal(ADMIN(s, .opcode = 9, .words = { 11, 2 }), 0);
	put(s, 0, 9, (struct command){ .opcode = 9, .words = { 4, 300 } });
	ring_sq(s, 0, s->tail[0]);
	assert_int_equal(take(s, 0, &id), 0);
	assert_int_equal(s->result, 0x020101);
	assert_int_equal(take(s, 0, &id), 0);
	assert_int_equal(id, 9);
	assert_int_equal(ADMIN(s, .opcode = 2, .prp1 = DATA, .words = { 127 << 16 | 2 }), 0);
	assert_int_equal(word_at(s, DATA) & 0xffffff, 313 << 8 | 2);
	assert_int_equal(ADMIN(s, .opcode = 2, .prp1 = DATA, .words = { 1 << 16 | 3 }), 0);
	assert_int_equal(word_at(s, DATA), 1);
	assert_int_equal(ADMIN(s, .opcode = 2, .prp1 = DATA, .words = { 4 }), 0x109 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 2, .prp1 = DATA, .words = { 2, 0, 512 }), 2 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 2, .prp1 = DATA, .words = { 0xffff0002, 0xffff }), 0);
}

/* ---- data ---- */

static void put_list(struct setup *s, uint64_t at, unsigned count, uint64_t first)
{
	uint8_t entry[8];

	for (unsigned n = 0; n < count; n++) {
		store_le64(entry, first + (uint64_t)4096 * n);
		mem_write(s->b->mem, gpa(at + 8 * n), entry, 8);
	}
}

static void reads_and_writes(void **state)
{
	struct setup *s = *state;
	uint8_t data[4096], disk[4096];

	make_queues(s);
	assert_int_equal(
		IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA + 3584, .prp2 = DATA + 8192, .words = { 10, 0, 1 }), 0);
	assert_int_equal(word_at(s, DATA + 3584), 10);
	assert_int_equal(word_at(s, DATA + 8192), 11);
	/* As much as goes into one command, with an odd beginning, the list in two pieces */
	put_list(s, LIST + 4096 - 16, 1, DATA + 0x10000);
	put_list(s, LIST + 4096 - 8, 1, LIST + 0x2000);
	put_list(s, LIST + 0x2000, 127, DATA + 0x11000);
	assert_int_equal(IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA + 512, .prp2 = LIST + 4096 - 16,
			    .words = { 1000, 0, 1023 }),
			 0);
	assert_int_equal(word_at(s, DATA + 512), 1000);
	assert_int_equal(word_at(s, DATA + 0x10000), 1007);
	assert_int_equal(word_at(s, DATA + 0x10000 + 127 * 4096), 1000 + 7 + 127 * 8);
	memset(data, 0x5a, sizeof(data));
	mem_write(s->b->mem, gpa(DATA), data, sizeof(data));
	assert_int_equal(IO(s, .opcode = 1, .namespace = 1, .prp1 = DATA, .words = { 200, 0, 1u << 30 | 7 }), 0);
	assert_int_equal(pread(s->disk, disk, 4096, 200 * 512), 4096);
	assert_memory_equal(disk, data, 4096);
	assert_int_equal(IO(s, .opcode = 8, .namespace = 1, .words = { 201, 0, 1 }), 0);
	assert_int_equal(pread(s->disk, disk, 2048, 200 * 512), 2048);
	assert_int_equal(disk[511] << 16 | disk[512] << 8 | disk[1535], 0x5a0000);
	assert_int_equal(disk[1536], 0x5a);
	/* Two ranges, one of nothing between them */
	memset(data, 0, 48);
	store_le32(data + 4, 8);
	store_le64(data + 8, 400);
	store_le32(data + 36, 8);
	store_le64(data + 40, 800);
	mem_write(s->b->mem, gpa(DATA), data, 48);
	assert_int_equal(IO(s, .opcode = 9, .namespace = 1, .prp1 = DATA, .words = { 2, 4 }), 0);
	assert_int_equal(pread(s->disk, disk, 4, 800 * 512), 4);
	assert_int_equal(load_le32(disk), 0);
	assert_int_equal(IO(s, .opcode = 0, .namespace = UINT32_MAX), 0);
	assert_int_equal(ADMIN(s, .opcode = 2, .prp1 = DATA, .words = { 127 << 16 | 2 }), 0);
	assert_int_equal(word_at(s, DATA + 64), 2);
	assert_int_equal(word_at(s, DATA + 80), 2);
}

static void what_fails(void **state)
{
	struct setup *s = *state;
	uint8_t range[16] = { 0 };

	make_queues(s);
	assert_int_equal(IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA, .words = { SECTORS - 1, 0, 1 }), 0x80 | DNR);
	assert_int_equal(IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA, .words = { UINT32_MAX, UINT32_MAX, 1 }),
			 0x80 | DNR);
	assert_int_equal(IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA, .words = { 0, 0, 1024 }), 2 | DNR);
	assert_int_equal(IO(s, .opcode = 2, .namespace = 2, .prp1 = DATA), 0x0b | DNR);
	assert_int_equal(IO(s, .opcode = 2, .namespace = UINT32_MAX, .prp1 = DATA), 0x0b | DNR);
	assert_int_equal(IO(s, .opcode = 5, .namespace = 1), 1 | DNR);
	assert_int_equal(IO(s, .opcode = 2, .flags = 1, .namespace = 1, .prp1 = DATA), 2 | DNR);
	/* Memory that is none, its own registers, the end of addresses; offsets where none may be */
	assert_int_equal(IO(s, .opcode = 2, .namespace = 1, .prp1 = BASE), 4 | DNR);
	assert_int_equal(IO(s, .opcode = 1, .namespace = 1, .prp1 = UINT64_MAX - 4095), 4 | DNR);
	assert_int_equal(IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA, .prp2 = 1ull << 50, .words = { 0, 0, 63 }),
			 4 | DNR);
	assert_int_equal(IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA + 1), 0x13 | DNR);
	assert_int_equal(IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA, .prp2 = DATA + 8, .words = { 0, 0, 15 }),
			 0x13 | DNR);
	assert_int_equal(IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA, .prp2 = LIST + 4, .words = { 0, 0, 63 }),
			 0x13 | DNR);
	/* A list whose last entry leads to itself */
	put_list(s, LIST + 4096 - 8, 1, LIST + 4096 - 8);
	assert_int_equal(
		IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA, .prp2 = LIST + 4096 - 8, .words = { 0, 0, 63 }),
		0x13 | DNR);
	store_le32(range + 4, 2);
	store_le64(range + 8, SECTORS - 1);
	mem_write(s->b->mem, gpa(DATA), range, 16);
	assert_int_equal(IO(s, .opcode = 9, .namespace = 1, .prp1 = DATA, .words = { 0, 4 }), 0x80 | DNR);
	assert_int_equal(ADMIN(s, .opcode = 6, .prp1 = BASE, .words = { 1 }), 4);
	assert_int_equal(IO(s, .opcode = 2, .namespace = 1, .prp1 = DATA), 0);
}

static void fatal_ones(void **state)
{
	struct setup *s = *state;

	/* Queues in no memory */
	for (unsigned n = 0; n < 2; n++) {
		out(s, CC, 0);
		assert_int_equal(in(s, CSTS), 0);
		enable(s);
		out(s, CC, 0);
		out(s, n ? ASQ : ACQ, BASE);
		out(s, CC, CC_ON);
		put(s, 0, 1, (struct command){ .opcode = 8 });
		ring_sq(s, 0, 1);
		assert_int_equal(in(s, CSTS), 3);
		ring_sq(s, 0, 2);
	}
	/* Pages of 8 KiB, and another command set, there are not. */
	out(s, CC, 0);
	out(s, CC, CC_ON | 0x80);
	assert_int_equal(in(s, CSTS), 2);
	out(s, CC, 0);
	out(s, AQA, 0);
	out(s, CC, CC_ON);
	assert_int_equal(in(s, CSTS), 2);
	out(s, CC, 0);
	enable(s);
	assert_int_equal(ADMIN(s, .opcode = 8), 0);
	/* Shut down, and not any more */
	out(s, CC, CC_ON | 0x4000);
	assert_int_equal(in(s, CSTS), 9);
	out(s, CC, CC_ON);
	assert_int_equal(in(s, CSTS), 1);
}

static void interrupts(void **state)
{
	struct setup *s = *state;
	uint16_t id;

	board_pic_init(s->b);
	board_config_write(s->b, 8, 0x60, 4, 0x0a0a0a0a);
	outb(s->b, 0x4d1, 0x04);
	put(s, 0, 1, (struct command){ .opcode = 8 });
	out(s, INTMS, 1);
	ring_sq(s, 0, s->tail[0]);
	assert_int_equal(board_take(s->b), -1);
	out(s, INTMC, 1);
	assert_int_equal(board_take(s->b), 0x2a);
	take(s, 0, &id);
	outb(s->b, 0xa0, 0x20);
	outb(s->b, 0x20, 0x20);
	assert_int_equal(board_take(s->b), -1);
	/* Vector 1 by message */
	lapic_wr(s->b, 0, 0xf0, 0x1ff);
	make_queues(s);
	out(s, 0x2010, 0xfee00000);
	out(s, 0x2018, 0x55);
	out(s, 0x201c, 0);
	board_config_write(s->b, DEVFN, 0x42, 2, 0x8000);
	assert_int_equal(IO(s, .opcode = 0, .namespace = 1), 0);
	assert_int_equal(board_take(s->b), 0x55);
}

/* Without room for their completions commands stay where they are. */
static void fill(struct setup *s)
{
	for (uint16_t n = 0; n < ENTRIES - 1; n++)
		put(s, 1, n, (struct command){ .opcode = 2, .namespace = 1, .prp1 = DATA + 4096 * n, .words = { n } });
	ring_sq(s, 1, s->tail[1]);
	for (uint16_t n = 0; n < 4; n++)
		put(s, 1, 100 + n,
		    (struct command){ .opcode = 2, .namespace = 1, .prp1 = DATA + 0x10000, .words = { 50 + n } });
	ring_sq(s, 1, s->tail[1]);
}

static void drain(struct setup *s)
{
	uint16_t id;

	for (uint16_t n = 0; n < ENTRIES + 3; n++) {
		assert_int_equal(take(s, 1, &id), 0);
		assert_int_equal(id, n < ENTRIES - 1 ? n : 100 + n - (ENTRIES - 1));
	}
	assert_false(has_come(s, 1));
}

static void no_room(void **state)
{
	struct setup *s = *state;

	make_queues(s);
	fill(s);
	assert_int_equal(word_at(s, DATA + 4096 * 6), 6);
	assert_int_equal(word_at(s, DATA + 0x10000), 0);
	drain(s);
	assert_int_equal(word_at(s, DATA + 0x10000), 53);
}

static void read_only(void **state)
{
	struct setup *s = create(CLOCK_VIRTUAL, ",readonly");

	(void)state;
	make_queues(s);
	assert_int_equal(IO(s, .opcode = 1, .namespace = 1, .prp1 = DATA), 0x182 | DNR);
	assert_int_equal(IO(s, .opcode = 8, .namespace = 1), 0x182 | DNR);
	assert_int_equal(IO(s, .opcode = 9, .namespace = 1, .prp1 = DATA, .words = { 0, 4 }), 0x182 | DNR);
	assert_int_equal(IO(s, .opcode = 0, .namespace = 1), 0);
	assert_int_equal(ADMIN(s, .opcode = 6, .namespace = 1, .prp1 = DATA), 0);
	assert_int_equal(word_at(s, DATA + 96) >> 24, 1);
	destroy(s);
}

/* Commands that workers have, while the machine is paused, their queue is deleted, and the controller disabled. */
static void workers(void **state)
{
	struct setup *s = create(CLOCK_HOST, "");
	uint16_t id;

	(void)state;
	put_list(s, LIST, 127, DATA);
	for (unsigned round = 0; round < 20; round++) {
		put(s, 0, 1, (struct command){ .opcode = 5, .prp1 = CQ(1), .words = { 7 << 16 | 1, 1 << 16 | 3 } });
		put(s, 0, 2, (struct command){ .opcode = 1, .prp1 = SQ(1), .words = { 7 << 16 | 1, 1 << 16 | 1 } });
		ring_sq(s, 0, s->tail[0]);
		take(s, 0, &id);
		take(s, 0, &id);
		for (uint16_t n = 0; n < 7; n++)
			put(s, 1, n,
			    (struct command){ .opcode = n % 2 + 1,
					      .namespace = 1,
					      .prp1 = DATA,
					      .prp2 = LIST,
					      .words = { 1000 * n, 0, 1000 } });
		ring_sq(s, 1, s->tail[1]);
		if (round % 4 == 1) {
			bus_pause(s->b->bus);
			bus_resume(s->b->bus);
		}
		if (round % 4 == 2) {
			out(s, CC, 0);
			while (in(s, CSTS) & 1)
				sched_yield();
			enable(s);
		} else {
			put(s, 0, 3, (struct command){ .opcode = 0, .words = { 1 } });
			put(s, 0, 4, (struct command){ .opcode = 4, .words = { 1 } });
			ring_sq(s, 0, s->tail[0]);
			assert_int_equal(take(s, 0, &id), 0);
			assert_int_equal(take(s, 0, &id), 0);
		}
		/* Phases begin anew with the queue. */
		for (unsigned n = 0; n < 0x80; n += 4)
			mem_write(s->b->mem, gpa(CQ(1) + n), &(uint32_t){ 0 }, 4);
		if (round % 4 == 2)
			for (unsigned n = 0; n < 0x80; n += 4)
				mem_write(s->b->mem, gpa(CQ(0) + n), &(uint32_t){ 0 }, 4);
		s->head[1] = s->tail[1] = 0;
	}
	out(s, CC, CC_ON | 0x4000);
	while (in(s, CSTS) != 9)
		sched_yield();
	destroy(s);
}

/* ---- saved ---- */

static struct setup *load(struct setup *s, struct writer *saved, bool must)
{
	struct setup *copy = create(CLOCK_VIRTUAL, ",discard");
	struct error err = { 0 };
	uint8_t *memory = malloc(0xa0000);

	bus_pause(copy->b->bus);
	mem_read(s->b->mem, gpa(0), memory, 0xa0000);
	mem_write(copy->b->mem, gpa(0), memory, 0xa0000);
	if (board_load(copy->b, saved, clock_now(s->b->clock), &err) && must)
		fail_msg("%s", err.text);
	free(memory);
	memcpy(copy->head, s->head, sizeof(s->head));
	memcpy(copy->tail, s->tail, sizeof(s->tail));
	return copy;
}

static void goes_on_elsewhere(void **state)
{
	struct setup *s = *state, *copy;
	struct writer saved, again;

	make_queues(s);
	fill(s);
	saved = board_save(s->b);
	copy = load(s, &saved, true);
	again = board_save(copy->b);
	assert_int_equal(again.size, saved.size);
	assert_memory_equal(again.data, saved.data, saved.size);
	bus_resume(copy->b->bus);
	drain(copy);
	assert_int_equal(word_at(copy, DATA + 0x10000), 53);
	writer_free(&saved);
	writer_free(&again);
	destroy(copy);
}

/* Any bit may be wrong: it is refused, or what follows is harmless. */
static void damaged_records(void **state)
{
	struct setup *s = *state;
	uint64_t seed = 1;

	make_queues(s);
	fill(s);
	for (unsigned n = 0; n < 200; n++) {
		struct writer saved = board_save(s->b);
		struct setup *copy;

		for (unsigned m = 0; m < 3; m++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			saved.data[(seed >> 33) % saved.size] ^= (uint8_t)(1u << (seed >> 60) % 8);
		}
		copy = load(s, &saved, false);
		bus_resume(copy->b->bus);
		for (unsigned m = 0; m < 40; m++)
			out(copy, 0x1000 + m % 6 * 4, m % ENTRIES);
		writer_free(&saved);
		destroy(copy);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_there_is),
		TEST(queues),
		TEST(features),
		TEST(events_and_logs),
		TEST(reads_and_writes),
		TEST(what_fails),
		TEST(fatal_ones),
		TEST(interrupts),
		TEST(no_room),
		cmocka_unit_test(read_only),
		cmocka_unit_test(workers),
		TEST(goes_on_elsewhere),
		TEST(damaged_records),
	};

	log_set_level(LOG_ERROR);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
