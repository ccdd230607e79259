/*
 * The VGA by the book: the processor's way to the planes against a model that goes bit by bit, what each mode shows, Bochs' modes, the beam, and its state.
 */
#define _GNU_SOURCE
#include "display/display.h"

#include "lib/board.h"

#include <errno.h>

#define SLOT  2
#define DEVFN (SLOT << 3)
#define BAR   0xe0000000u
#define BAR2  0xe1000000u

struct fixture {
	struct board *board;
	struct event_loop *loop;
	struct display *display;
	struct guest_mem *mem;
};

static struct fixture *create(void)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct device_request request = { .spec = "vga,width=1280,height=800" };

	f->board = board_create(1);
	board_add_memory(f->board, 2 * MIB);
	f->mem = f->board->mem;
	assert_int_equal(pci_bus_create(f->board->bus, NULL), 0);
	f->loop = event_loop_create(NULL);
	f->display = display_create(f->loop, NULL);
	assert_non_null(f->display);
	f->board->bus->display = f->display;
	assert_non_null(device_plug(f->board->bus, f->loop, &request, NULL));
	bus_reset(f->board->bus);
	bus_settle(f->board->bus);
	return f;
}

static void destroy(struct fixture *f)
{
	board_unplug(f->board);
	display_destroy(f->display);
	event_loop_destroy(f->loop);
	free(f);
}

static int setup(void **state)
{
	*state = create();
	return 0;
}

static int teardown(void **state)
{
	destroy(*state);
	return 0;
}

#define VGA_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* ---- as a guest does it: memory where there is some, else the bus ---- */

static bool is_plain(struct fixture *f, uint64_t address) { return mem_map(f->mem, gpa(address), 1, true) != NULL; }

static uint8_t peek(struct fixture *f, uint64_t address)
{
	const uint8_t *host = mem_map(f->mem, gpa(address), 1, false);

	return host ? *host : (uint8_t)board_read(f->board, BUS_MMIO, address, 1);
}

static void poke(struct fixture *f, uint64_t address, uint8_t value)
{
	if (is_plain(f, address))
		assert_int_equal(mem_write(f->mem, gpa(address), &value, 1), 0);
	else
		board_write(f->board, BUS_MMIO, address, 1, value);
}

static void set(struct fixture *f, uint16_t port, uint8_t index, uint8_t value)
{
	outw(f->board, port, (uint16_t)(index | value << 8));
}

static uint8_t get(struct fixture *f, uint16_t port, uint8_t index)
{
	outb(f->board, port, index);
	return inb(f->board, port + 1);
}

#define SEQ  0x3c4
#define GC   0x3ce
#define CRTC 0x3d4

static void set_attribute(struct fixture *f, uint8_t index, uint8_t value)
{
	inb(f->board, 0x3da);
	outb(f->board, 0x3c0, index);
	outb(f->board, 0x3c0, value);
	outb(f->board, 0x3c0, 0x20);
}

/* ---- the BIOS's modes ---- */

struct mode {
	uint8_t misc, sequencer[5], crtc[25], graphics[9], attribute[21];
};

static const struct mode mode_3 = {
	0x67,
	{ 0x03, 0x00, 0x03, 0x00, 0x02 },
	{ 0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
	  0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff },
	{ 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff },
	{ 0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00 },
};
static const struct mode mode_13 = {
	0x63,
	{ 0x03, 0x01, 0x0f, 0x00, 0x0e },
	{ 0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00,
	  0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff },
	{ 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0f, 0xff },
	{ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x41, 0x00, 0x0f, 0x00, 0x00 },
};
static const struct mode mode_12 = {
	0xe3,
	{ 0x03, 0x01, 0x0f, 0x00, 0x06 },
	{ 0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00,
	  0x00, 0x00, 0x00, 0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff },
	{ 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0f, 0xff },
	{ 0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x01, 0x00, 0x0f, 0x00, 0x00 },
};
static const struct mode
	mode_4 = {
		0x63,
		{ 0x03, 0x09, 0x03, 0x00, 0x02 },
		{ 0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
		  0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff },
		{ 0x00, 0x00, 0x00, 0x00, 0x00, 0x30, 0x0f, 0x0f, 0xff },
		{ 0,	0x13, 0x15, 0x17, 2,	4,    6,    7,	  0x10, 0x11, 0x12,
		  0x13, 0x14, 0x15, 0x16, 0x17, 0x01, 0x00, 0x03, 0x00, 0x00 },
	};
static const struct mode mode_6 = {
	0x63,
	{ 0x03, 0x01, 0x01, 0x00, 0x06 },
	{ 0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
	  0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x00, 0x96, 0xb9, 0xc2, 0xff },
	{ 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0d, 0x0f, 0xff },
	{ 0,	0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17,
	  0x17, 0x17, 0x17, 0x17, 0x17, 0x01, 0x00, 0x01, 0x00, 0x00 },
};

/* Colour n of the DAC is n in its red part and not n in its blue one. */
static uint32_t wide(uint8_t six) { return (uint32_t)(six << 2 | six >> 4); }
static uint32_t colour(uint8_t n) { return wide(n & 63) << 16 | wide(n >> 6) << 8 | wide(~n & 63); }

static void set_mode(struct fixture *f, const struct mode *m)
{
	outb(f->board, 0x3c2, m->misc);
	for (uint8_t n = 0; n < 5; n++)
		set(f, SEQ, n, m->sequencer[n]);
	set(f, CRTC, 0x11, 0);
	for (uint8_t n = 0; n < 25; n++)
		set(f, CRTC, n, m->crtc[n]);
	for (uint8_t n = 0; n < 9; n++)
		set(f, GC, n, m->graphics[n]);
	inb(f->board, 0x3da);
	for (uint8_t n = 0; n < 21; n++) {
		outb(f->board, 0x3c0, n);
		outb(f->board, 0x3c0, m->attribute[n]);
	}
	outb(f->board, 0x3c0, 0x20);
	outb(f->board, 0x3c8, 0);
	for (unsigned n = 0; n < 256; n++) {
		outb(f->board, 0x3c9, n & 63);
		outb(f->board, 0x3c9, (uint8_t)(n >> 6));
		outb(f->board, 0x3c9, ~n & 63);
	}
}

/* From 13h on, as programs make mode X of it. */
static void set_mode_x(struct fixture *f)
{
	set_mode(f, &mode_13);
	set(f, SEQ, 4, 0x06);
	set(f, CRTC, 0x14, 0x00);
	set(f, CRTC, 0x17, 0xe3);
}

static uint32_t pixel(const struct picture *p, unsigned x, unsigned y)
{
	assert_true(x < p->width && y < p->height);
	return p->pixels[(size_t)y * p->width + x];
}

static const struct picture *look(struct fixture *f, uint32_t width, uint32_t height)
{
	const struct picture *p = display_picture(f->display);

	assert_non_null(p);
	assert_int_equal(p->width, width);
	assert_int_equal(p->height, height);
	return p;
}

/* ---- registers ---- */

static void test_registers(void **state)
{
	struct fixture *f = *state;
	struct board *b = f->board;

	/* The CRT controller is at 3Bxh until the miscellaneous output register says colour. */
	outb(b, 0x3b4, 0x0e);
	assert_int_equal(inb(b, 0x3b4), 0x0e);
	assert_int_equal(inb(b, 0x3d4), 0xff);
	outb(b, 0x3c2, 0x67);
	assert_int_equal(inb(b, 0x3cc), 0x67);
	assert_int_equal(inb(b, 0x3b4), 0xff);
	assert_int_equal(inb(b, 0x3d4), 0x0e);

	set(f, CRTC, 0x0c, 0x12);
	assert_int_equal(get(f, CRTC, 0x0c), 0x12);
	/* Registers 0 to 7 are protected, but for one bit. */
	set(f, CRTC, 0, 0x5f);
	set(f, CRTC, 7, 0x00);
	set(f, CRTC, 0x11, 0x80);
	set(f, CRTC, 0, 0x11);
	set(f, CRTC, 7, 0xff);
	assert_int_equal(get(f, CRTC, 0), 0x5f);
	assert_int_equal(get(f, CRTC, 7), 0x10);

	/* Bits that there are. */
	set(f, SEQ, 2, 0xff);
	assert_int_equal(get(f, SEQ, 2), 0x0f);
	set(f, GC, 5, 0xff);
	assert_int_equal(get(f, GC, 5), 0x7b);
	/* Index and data alternate, until status is read. */
	inb(b, 0x3da);
	outb(b, 0x3c0, 0x10);
	outb(b, 0x3c0, 0x0c);
	outb(b, 0x3c0, 0x10);
	inb(b, 0x3da);
	outb(b, 0x3c0, 0x12);
	outb(b, 0x3c0, 0x0f);
	outb(b, 0x3c0, 0x10);
	assert_int_equal(inb(b, 0x3c1), 0x0c);
	inb(b, 0x3da);
	outb(b, 0x3c0, 0x32);
	assert_int_equal(inb(b, 0x3c0), 0x32);
	assert_int_equal(inb(b, 0x3c1), 0x0f);
}

static void test_dac(void **state)
{
	struct fixture *f = *state;
	struct board *b = f->board;

	outb(b, 0x3c8, 0xff);
	assert_int_equal(inb(b, 0x3c7), 0);
	for (uint8_t n = 1; n <= 6; n++)
		outb(b, 0x3c9, 0xc0 + n); /* of six bits; the index goes on by itself, and around */
	assert_int_equal(inb(b, 0x3c8), 1);
	outb(b, 0x3c7, 0xff);
	assert_int_equal(inb(b, 0x3c7), 3);
	for (uint8_t n = 1; n <= 6; n++)
		assert_int_equal(inb(b, 0x3c9), n);
	/* A colour is written when its third part is. */
	outb(b, 0x3c8, 5);
	outb(b, 0x3c9, 1);
	outb(b, 0x3c9, 2);
	outb(b, 0x3c7, 5);
	assert_int_equal(inb(b, 0x3c9), 0);
	/* Eight bits, if so asked. */
	outw(b, 0x1ce, 4);
	outw(b, 0x1cf, 0x20);
	outb(b, 0x3c8, 7);
	for (uint8_t n = 0; n < 3; n++)
		outb(b, 0x3c9, 0xfe);
	outb(b, 0x3c7, 7);
	assert_int_equal(inb(b, 0x3c9), 0xfe);
	outb(b, 0x3c6, 0x0f);
	assert_int_equal(inb(b, 0x3c6), 0x0f);
}

/* 640x480: 800 dots in 525 lines at 25.175 MHz. */
static void test_beam(void **state)
{
	struct fixture *f = *state;
	unsigned blank = 0, retrace = 0, edges = 0, samples = 60 * 525 * 8;
	uint8_t last = 0;

	set_mode(f, &mode_12);
	for (unsigned n = 0; n < samples; n++) {
		uint8_t status = inb(f->board, 0x3da);

		blank += status & 1;
		retrace += status >> 3 & 1;
		edges += status & ~last & 8 ? 1 : 0;
		last = status;
		board_run(f->board, NS_PER_S / samples);
	}
	/* 60 times a second, for 2 lines; 640 of 800 dots, 480 of 525 lines are seen. */
	assert_in_range(edges, 59, 60);
	assert_in_range(retrace, samples * 2 / 525 * 95 / 100, samples * 2 / 525 * 105 / 100);
	assert_in_range(samples - blank, samples * 0.8 * 480 / 525 * 0.98, samples * 0.8 * 480 / 525 * 1.02);
}

/* ---- the processor's way to the planes ---- */

struct model {
	uint8_t plane[4][65536], latch[4];
	uint8_t sequencer[5], graphics[9];
};

static unsigned bit(unsigned value, unsigned n) { return value >> n & 1; }

/* Which plane and where; false: not this plane's. */
static bool model_place(const struct model *m, uint32_t offset, unsigned plane, bool write, uint32_t *at)
{
	if (m->sequencer[4] & 8) {
		*at = offset >> 2;
		return plane == (offset & 3);
	}
	*at = (m->graphics[6] & 2 ? offset >> 1 : offset) & 0xffff;
	if (write)
		return m->sequencer[4] & 4 || (plane & 1) == (offset & 1);
	if (m->graphics[5] & 0x10)
		return plane == ((m->graphics[4] & 2) | (offset & 1));
	return plane == (m->graphics[4] & 3);
}

static unsigned model_bit(const struct model *m, unsigned plane, unsigned n, uint8_t value)
{
	unsigned mode = m->graphics[5] & 3, old = bit(m->latch[plane], n), mask = bit(m->graphics[8], n), new;
	unsigned rotated = bit(value, (n + (m->graphics[3] & 7)) & 7), set = bit(m->graphics[0], plane);

	if (mode == 1)
		return old;
	if (mode == 0)
		new = bit(m->graphics[1], plane) ? set : rotated;
	else
		new = mode == 2 ? bit(value, plane) : set;
	if (mode == 3)
		mask &= rotated;
	switch (m->graphics[3] >> 3) {
	case 1: new &= old; break;
	case 2: new |= old; break;
	case 3: new ^= old; break;
	}
	return mask ? new : old;
}

static void model_write(struct model *m, uint32_t offset, uint8_t value)
{
	uint32_t at;

	for (unsigned p = 0; p < 4; p++) {
		unsigned byte = 0;

		if (!bit(m->sequencer[2], p) || !model_place(m, offset, p, true, &at))
			continue;
		for (unsigned n = 0; n < 8; n++)
			byte |= model_bit(m, p, n, value) << n;
		m->plane[p][at] = (uint8_t)byte;
	}
}

static uint8_t model_read(struct model *m, uint32_t offset, bool latch)
{
	unsigned result = 0;
	uint32_t at = 0;

	model_place(m, offset, 0, false, &at);
	for (unsigned p = 0; p < 4 && latch; p++)
		m->latch[p] = m->plane[p][at];
	for (unsigned n = 0; n < 8 && m->graphics[5] & 8; n++) {
		bool same = true;

		for (unsigned p = 0; p < 4; p++)
			same &= !bit(m->graphics[7], p) || bit(m->plane[p][at], n) == bit(m->graphics[2], p);
		result |= (unsigned)same << n;
	}
	for (unsigned p = 0; p < 4 && !(m->graphics[5] & 8); p++)
		if (model_place(m, offset, p, false, &at))
			result = m->plane[p][at];
	return (uint8_t)result;
}

static const struct {
	uint32_t start, size;
} maps[] = { { 0xa0000, 0x20000 }, { 0xa0000, 0x10000 }, { 0xb0000, 0x8000 }, { 0xb8000, 0x8000 } };

static uint32_t seed = 1;
static uint32_t draw(void) { return seed = seed * 1664525 + 1013904223, seed >> 8; }

/* Any register, or those of a mode in which the window is plain memory. */
static void model_registers(struct fixture *f, struct model *m)
{
	static const struct mode *const modes[] = { &mode_3, &mode_13, &mode_12, &mode_4 };
	unsigned n = draw() % 9;

	if (draw() % 8 == 0) {
		const struct mode *mode = modes[draw() % 4];

		memcpy(m->sequencer, mode->sequencer, sizeof(m->sequencer));
		memcpy(m->graphics, mode->graphics, sizeof(m->graphics));
		for (n = 0; n < 9; n++)
			set(f, GC, (uint8_t)n, m->graphics[n]);
		for (n = 0; n < 5; n++)
			set(f, SEQ, (uint8_t)n, m->sequencer[n]);
	} else if (draw() % 3) {
		set(f, GC, (uint8_t)n, (uint8_t)draw());
		m->graphics[n] = get(f, GC, (uint8_t)n);
	} else {
		n = draw() % 2 ? 2 : 4;
		set(f, SEQ, (uint8_t)n, (uint8_t)draw());
		m->sequencer[n] = get(f, SEQ, (uint8_t)n);
	}
}

static void compare_planes(struct fixture *f, struct model *m)
{
	set_mode(f, &mode_12);
	for (uint8_t p = 0; p < 4; p++) {
		set(f, GC, 4, p);
		for (uint32_t n = 0; n < 65536; n++)
			if (peek(f, 0xa0000 + n) != m->plane[p][n])
				fail_msg("plane %u at %#x: %#x, expected %#x", p, n, peek(f, 0xa0000 + n),
					 m->plane[p][n]);
	}
}

/* Addresses that come again. */
static uint32_t some_offset(uint32_t size) { return draw() % 2 ? draw() % 64 : draw() % size; }

static void test_planes(void **state)
{
	struct fixture *f = *state;
	struct model *m = calloc(1, sizeof(*m));
	unsigned plain = 0;

	set_mode(f, &mode_12);
	memcpy(m->sequencer, mode_12.sequencer, sizeof(m->sequencer));
	memcpy(m->graphics, mode_12.graphics, sizeof(m->graphics));
	for (unsigned n = 0; n < 60000; n++) {
		unsigned map = m->graphics[6] >> 2 & 3;
		uint32_t offset = some_offset(maps[map].size);
		uint64_t at = maps[map].start + offset;
		uint8_t value = (uint8_t)draw(), expected;

		plain += is_plain(f, at);
		if (draw() % 8 == 0) {
			model_registers(f, m);
		} else if (draw() % 2) {
			poke(f, at, value);
			model_write(m, offset, value);
		} else {
			expected = model_read(m, offset, !is_plain(f, at));
			value = peek(f, at);
			if (value != expected)
				fail_msg("access %u at %#lx: %#x, expected %#x", n, (unsigned long)at, value, expected);
		}
	}
	assert_in_range(plain, 1000, 59000); /* both ways were taken */
	compare_planes(f, m);
	free(m);
}

/* Larger accesses are as many of bytes; nobody answers outside of the window's part, or when it is off. */
static void test_window(void **state)
{
	struct fixture *f = *state;

	set_mode(f, &mode_12);
	set(f, SEQ, 2, 0x01);
	board_write(f->board, BUS_MMIO, 0xa0010, 8, 0x1122334455667788);
	for (unsigned n = 0; n < 8; n++)
		assert_int_equal(peek(f, 0xa0010 + n), 0x88 - 0x11 * n);
	assert_int_equal(board_read(f->board, BUS_MMIO, 0xa0012, 4), 0x33445566);
	assert_int_equal(peek(f, 0xb0010), 0xff);
	outb(f->board, 0x3c2, 0xe1);
	assert_int_equal(peek(f, 0xa0010), 0xff);
	poke(f, 0xa0010, 0);
	outb(f->board, 0x3c2, 0xe3);
	assert_int_equal(peek(f, 0xa0010), 0x88);
}

/* ---- what modes show ---- */

/* A font of which each line of each character is known. */
static uint8_t glyph(unsigned font, unsigned character, unsigned line)
{
	return (uint8_t)(character * 7 + line * 29 + font * 101);
}

static void load_font(struct fixture *f, unsigned font, uint32_t at)
{
	set(f, SEQ, 2, 0x04);
	set(f, SEQ, 4, 0x06);
	set(f, GC, 5, 0x00);
	set(f, GC, 6, 0x04);
	for (unsigned character = 0; character < 256; character++)
		for (unsigned line = 0; line < 16; line++)
			poke(f, 0xa0000 + at + 32 * character + line, glyph(font, character, line));
	set(f, SEQ, 2, 0x03);
	set(f, SEQ, 4, 0x02);
	set(f, GC, 5, 0x10);
	set(f, GC, 6, 0x0e);
}

static void set_text(struct fixture *f)
{
	set_mode(f, &mode_3);
	load_font(f, 0, 0);
	for (unsigned n = 0; n < 80 * 26; n++) {
		poke(f, 0xb8000 + 2 * n, (uint8_t)(n * 3));
		poke(f, 0xb8000 + 2 * n + 1, (uint8_t)(n * 11) & 0x7f);
	}
}

/* The dot at column x of nine (or eight), line y of the cell: its colour's number. */
static uint8_t text_dot(unsigned font, unsigned cell, unsigned x, unsigned line)
{
	uint8_t character = (uint8_t)(cell * 3), attribute = (uint8_t)(cell * 11) & 0x7f;
	uint8_t dots = glyph(font, character, line);
	bool on = x < 8 ? dots >> (7 - x) & 1 : (character & 0xe0) == 0xc0 && dots & 1;

	return mode_3.attribute[on ? attribute & 15 : attribute >> 4];
}

static void expect_text(const struct picture *p, unsigned first_cell, unsigned rows, unsigned dots, unsigned font)
{
	for (unsigned y = 0; y < rows * 16; y++)
		for (unsigned x = 0; x < 80 * dots; x++) {
			unsigned cell = first_cell + y / 16 * 80 + x / dots;
			uint32_t expected = colour(text_dot(font, cell, x % dots, y % 16));

			if (pixel(p, x, y) != expected)
				fail_msg("text at %u, %u: %#x, expected %#x", x, y, pixel(p, x, y), expected);
		}
}

static void test_text(void **state)
{
	struct fixture *f = *state;

	set_text(f);
	assert_true(is_plain(f, 0xb8000));
	set(f, CRTC, 0x0a, 0x20);
	expect_text(look(f, 720, 400), 0, 25, 9, 0);
	/* Start address, eight dots, and another font */
	set(f, CRTC, 0x0d, 80);
	expect_text(look(f, 720, 400), 80, 25, 9, 0);
	set(f, SEQ, 1, 0x01);
	expect_text(look(f, 640, 400), 80, 25, 8, 0);
	load_font(f, 1, 0x4000);
	set(f, SEQ, 3, 0x05);
	expect_text(look(f, 640, 400), 80, 25, 8, 1);
	/* Both at once, by bit 3 of the attribute: cell 81 has it not, cell 84 has */
	set(f, SEQ, 3, 0x01);
	for (unsigned x = 0; x < 8; x++) {
		assert_int_equal(pixel(display_picture(f->display), 8 + x, 5),
				 colour(text_dot(!(81 * 11 & 8), 81, x, 5)));
		assert_int_equal(pixel(display_picture(f->display), 32 + x, 5),
				 colour(text_dot(!(84 * 11 & 8), 84, x, 5)));
	}
	/* Dots twice as wide: 40 columns of it */
	set(f, SEQ, 3, 0x00);
	set(f, SEQ, 1, 0x09);
	set(f, CRTC, 0x11, 0x0e);
	set(f, CRTC, 0x01, 39);
	assert_int_equal(pixel(look(f, 640, 400), 16 * 5 + 3, 2), colour(text_dot(0, 85, 1, 2)));
}

static void test_text_marks(void **state)
{
	struct fixture *f = *state;
	struct text_picture text = { .columns = 100, .rows = 100 };
	const struct picture *p;

	set_text(f);
	poke(f, 0xb8000, 'A');
	poke(f, 0xb8001, 0x01);
	poke(f, 0xb8002, 'B');
	poke(f, 0xb8003, 0x87);
	/* Underlined */
	set(f, CRTC, 0x14, 0x0c);
	for (unsigned x = 0; x < 9; x++)
		assert_int_equal(pixel(look(f, 720, 400), x, 12), colour(1));
	/* A cursor of lines 13 and 14 in the second row, which is there half of the time */
	set(f, CRTC, 0x0f, 82);
	for (unsigned x = 0; x < 9; x++)
		assert_int_equal(pixel(look(f, 720, 400), 2 * 9 + x, 16 + 14), colour(mode_3.attribute[82 * 11 & 15]));
	/* What blinks is there now, and not 16 frames later; nor is the cursor after 8 */
	assert_int_equal(pixel(look(f, 720, 400), 9, 0), colour(glyph(0, 'B', 0) & 0x80 ? 7 : 0));
	board_run(f->board, 8 * NS_PER_S / 70 + 1000);
	assert_int_equal(pixel(look(f, 720, 400), 2 * 9 + 3, 16 + 14), colour(text_dot(0, 82, 3, 14)));
	board_run(f->board, 8 * NS_PER_S / 70 + 1000);
	for (unsigned line = 0; line < 16; line++)
		for (unsigned x = 0; x < 9; x++)
			assert_int_equal(pixel(look(f, 720, 400), 9 + x, line), colour(0));
	/* Bit 7 of the attribute is a bright background if nothing blinks. */
	set_attribute(f, 0x10, 0x04);
	assert_int_equal(pixel(look(f, 720, 400), 9 + 8, 0), colour(0x38));

	text.cells = calloc(100 * 100, sizeof(*text.cells));
	assert_true(display_read_text(f->display, &text));
	assert_int_equal(text.columns, 80);
	assert_int_equal(text.rows, 25);
	assert_int_equal(text.cells[1].character, 'B');
	assert_int_equal(text.cells[1].attribute, 0x87);
	assert_int_equal(text.cells[24 * 80 + 79].character, (1999 * 3) & 0xff);
	assert_int_equal(text.cursor_row, 1);
	assert_int_equal(text.cursor_column, 2);
	set(f, CRTC, 0x0a, 0x20);
	text.columns = 10;
	text.rows = 2;
	assert_true(display_read_text(f->display, &text));
	assert_int_equal(text.cells[10].character, 240);
	assert_true(text.cursor_row >= text.rows);
	/* The screen is off, or shows pixels. */
	set(f, SEQ, 1, 0x20);
	assert_false(display_read_text(f->display, &text));
	p = look(f, 720, 400);
	for (unsigned n = 0; n < 720 * 400; n++)
		assert_int_equal(p->pixels[n], 0);
	set_mode(f, &mode_12);
	assert_false(display_read_text(f->display, &text));
	free(text.cells);
}

/* Pixel x, y of a 320x200 picture in the modes of 256 colours. */
static uint8_t byte_of(unsigned x, unsigned y) { return (uint8_t)(x * 5 + y * 3); }

static void expect_256(const struct picture *p, unsigned shift_x, unsigned from_y)
{
	for (unsigned y = from_y; y < 400; y++)
		for (unsigned x = 0; x < 640 - 2 * shift_x; x++)
			if (pixel(p, x, y) != colour(byte_of(x / 2 + shift_x, (y - from_y) / 2)))
				fail_msg("pixel %u, %u", x, y);
}

static void test_mode_13(void **state)
{
	struct fixture *f = *state;

	set_mode(f, &mode_13);
	assert_true(is_plain(f, 0xa0000));
	assert_false(is_plain(f, 0xb0000));
	for (unsigned y = 0; y < 200; y++)
		for (unsigned x = 0; x < 320; x++)
			poke(f, 0xa0000 + 320 * y + x, byte_of(x, y));
	expect_256(look(f, 640, 400), 0, 0);
	/* Three pixels to the left */
	set_attribute(f, 0x13, 6);
	expect_256(look(f, 640, 400), 3, 0);
	set_attribute(f, 0x13, 0);
	outb(f->board, 0x3c6, 0x00);
	assert_int_equal(pixel(look(f, 640, 400), 300, 300), colour(0));
}

static void test_mode_x(void **state)
{
	struct fixture *f = *state;

	set_mode_x(f);
	assert_false(is_plain(f, 0xa0000));
	for (unsigned plane = 0; plane < 4; plane++) {
		set(f, SEQ, 2, (uint8_t)(1 << plane));
		for (unsigned y = 0; y < 200; y++)
			for (unsigned x = plane; x < 320; x += 4)
				poke(f, 0xa4000 + 80 * y + x / 4, byte_of(x, y));
	}
	/* Another page; then it is below a split, whose upper part is empty */
	set(f, CRTC, 0x0c, 0x40);
	expect_256(look(f, 640, 400), 0, 0);
	set(f, SEQ, 2, 0x0f);
	set(f, GC, 5, 0x41);
	for (unsigned n = 0; n < 16000; n++) {
		peek(f, 0xa4000 + n); /* by the latches, four at once */
		poke(f, 0xa0000 + n, 0);
	}
	set(f, GC, 5, 0x40);
	set(f, CRTC, 0x0c, 0xc0);
	set_attribute(f, 0x13, 4);
	set_attribute(f, 0x10, 0x61);
	set(f, CRTC, 7, get(f, CRTC, 7) & ~0x10);
	set(f, CRTC, 9, get(f, CRTC, 9) & ~0x40);
	set(f, CRTC, 0x18, 99);
	assert_int_equal(pixel(look(f, 640, 400), 0, 99), colour(0));
	expect_256(look(f, 640, 400), 0, 100);
}

static uint8_t nibble_of(unsigned x, unsigned y) { return (uint8_t)(x * 3 + y * 7 + (x >> 3)) & 15; }

static void test_mode_12(void **state)
{
	struct fixture *f = *state;
	const struct picture *p;

	set_mode(f, &mode_12);
	for (unsigned y = 0; y < 480; y++)
		for (unsigned column = 0; column < 80; column++)
			for (unsigned plane = 0; plane < 4; plane++) {
				unsigned byte = 0;

				for (unsigned n = 0; n < 8; n++)
					byte |= bit(nibble_of(8 * column + n, y), plane) << (7 - n);
				set(f, SEQ, 2, (uint8_t)(1 << plane));
				poke(f, 0xa0000 + 80 * y + column, (uint8_t)byte);
			}
	p = look(f, 640, 480);
	for (unsigned y = 0; y < 480; y++)
		for (unsigned x = 0; x < 640; x++)
			assert_int_equal(pixel(p, x, y), colour(mode_12.attribute[nibble_of(x, y)]));
	/* Panned by a byte and three pixels, from the third row on, of planes 0 and 1 alone */
	set(f, CRTC, 0x0d, 160);
	set(f, CRTC, 0x08, 0x20);
	set_attribute(f, 0x13, 3);
	set_attribute(f, 0x12, 3);
	p = look(f, 640, 480);
	for (unsigned y = 0; y < 470; y++)
		for (unsigned x = 0; x < 600; x++)
			assert_int_equal(pixel(p, x, y), colour(mode_12.attribute[nibble_of(x + 11, y + 2) & 3]));
	/* Upper bits of colours by the select register */
	set_attribute(f, 0x14, 0x0e);
	set_attribute(f, 0x10, 0x81);
	assert_int_equal(pixel(look(f, 640, 480), 5, 7), colour(0xe0 | mode_12.attribute[nibble_of(16, 9) & 3]));
}

static void test_cga(void **state)
{
	struct fixture *f = *state;
	const struct picture *p;

	/* Lines by turns in two halves of 8 KiB; two bits a pixel, then one */
	set_mode(f, &mode_4);
	assert_true(is_plain(f, 0xb8000));
	for (unsigned y = 0; y < 200; y++)
		for (unsigned n = 0; n < 80; n++)
			poke(f, 0xb8000 + (y & 1) * 0x2000 + y / 2 * 80 + n, byte_of(n, y));
	p = look(f, 640, 400);
	for (unsigned y = 0; y < 400; y++)
		for (unsigned x = 0; x < 640; x++)
			assert_int_equal(pixel(p, x, y),
					 colour(mode_4.attribute[byte_of(x / 8, y / 2) >> (6 - 2 * (x / 2 % 4)) & 3]));
	set_mode(f, &mode_6);
	for (unsigned y = 0; y < 200; y++)
		for (unsigned n = 0; n < 80; n++)
			poke(f, 0xb8000 + (y & 1) * 0x2000 + y / 2 * 80 + n, byte_of(n, y));
	p = look(f, 640, 400);
	for (unsigned y = 0; y < 400; y++)
		for (unsigned x = 0; x < 640; x++)
			assert_int_equal(pixel(p, x, y),
					 colour(mode_6.attribute[byte_of(x / 8, y / 2) >> (7 - x % 8) & 1]));
}

/* ---- Bochs' modes ---- */

static void dispi(struct fixture *f, uint16_t index, uint16_t value)
{
	outw(f->board, 0x1ce, index);
	outw(f->board, 0x1cf, value);
}

static uint16_t dispi_get(struct fixture *f, uint16_t index)
{
	outw(f->board, 0x1ce, index);
	return inw(f->board, 0x1cf);
}

static void set_large(struct fixture *f, uint16_t width, uint16_t height, uint16_t depth, uint16_t flags)
{
	dispi(f, 4, 0);
	dispi(f, 1, width);
	dispi(f, 2, height);
	dispi(f, 3, depth);
	dispi(f, 4, 1 | flags);
}

static void map_bars(struct fixture *f)
{
	board_config_write(f->board, DEVFN, 0x10, 4, BAR);
	board_config_write(f->board, DEVFN, 0x18, 4, BAR2);
	board_config_write(f->board, DEVFN, 0x04, 2, 3);
}

static void test_dispi(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(board_config_read(f->board, DEVFN, 0, 4), 0x11111234);
	assert_int_equal(board_config_read(f->board, DEVFN, 8, 4) >> 8, 0x030000);
	assert_int_equal(dispi_get(f, 0), 0xb0c5);
	dispi(f, 0, 0xb0c2);
	assert_int_equal(dispi_get(f, 0), 0xb0c2);
	dispi(f, 0, 0xb0c6);
	dispi(f, 0, 0x1234);
	assert_int_equal(dispi_get(f, 0), 0xb0c2);
	assert_int_equal(dispi_get(f, 10), 256);
	dispi(f, 4, 2);
	assert_int_equal(dispi_get(f, 1), 2560);
	assert_int_equal(dispi_get(f, 2), 1600);
	assert_int_equal(dispi_get(f, 3), 32);
	/* What does not fit is cut. */
	set_large(f, 0xffff, 0xffff, 7, 0);
	assert_int_equal(dispi_get(f, 1), 2560);
	assert_int_equal(dispi_get(f, 2), 1600);
	assert_int_equal(dispi_get(f, 3), 8);
	set_large(f, 1024, 768, 32, 0x40);
	dispi(f, 6, 0xffff);
	assert_int_equal(dispi_get(f, 6), 5456); /* of 16 MiB, by 768 rows of 32 bits */
	assert_int_equal(dispi_get(f, 7), 768);
	dispi(f, 6, 1000);
	assert_int_equal(dispi_get(f, 6), 1024);
	assert_int_equal(dispi_get(f, 7), 4096);
	dispi(f, 8, 5);
	dispi(f, 9, 0xffff);
	assert_int_equal(dispi_get(f, 8), 0);
	assert_int_equal(dispi_get(f, 9), 4096 - 768);
	/* The same by BAR 2, and EDID */
	map_bars(f);
	assert_int_equal(board_read(f->board, BUS_MMIO, BAR2 + 0x500 + 2, 2), 1024);
	board_write(f->board, BUS_MMIO, BAR2 + 0x500 + 2 * 9, 2, 7);
	assert_int_equal(dispi_get(f, 9), 7);
	board_write(f->board, BUS_MMIO, BAR2 + 0x402, 1, 0x63);
	assert_int_equal(inb(f->board, 0x3cc), 0x63);
	assert_int_equal(board_read(f->board, BUS_MMIO, BAR2 + 0x40c, 1), 0x63);
	assert_int_equal(board_read(f->board, BUS_MMIO, BAR2 + 0x600, 4), 0);
}

static void test_edid(void **state)
{
	struct fixture *f = *state;
	uint8_t edid[128], sum = 0;

	map_bars(f);
	for (unsigned n = 0; n < 128; n++)
		sum += edid[n] = (uint8_t)board_read(f->board, BUS_MMIO, BAR2 + n, 1);
	assert_int_equal(sum, 0);
	assert_int_equal(board_read(f->board, BUS_MMIO, BAR2, 4), 0xffffff00);
	assert_int_equal(edid[54 + 2] | (edid[54 + 4] >> 4) << 8, 1280);
	assert_int_equal(edid[54 + 5] | (edid[54 + 7] >> 4) << 8, 800);
	/* 1440 by 823: 71 MHz */
	assert_in_range(load_le16(edid + 54), 7050, 7150);
}

static uint32_t value_of(unsigned x, unsigned y) { return x * 0x10305u + y * 0x70501u; }

/* Of 5 or 6 bits: they go on from the highest */
static uint32_t wider(uint32_t v, uint32_t most) { return most == 31 ? v * 33 >> 2 : v * 65 >> 4; }
static uint32_t rgb(uint32_t r, uint32_t g, uint32_t b) { return r << 16 | g << 8 | b; }

static uint32_t expected_of(unsigned depth, uint32_t v)
{
	switch (depth) {
	case 8: return colour((uint8_t)v);
	case 15: return rgb(wider(v >> 10 & 31, 31), wider(v >> 5 & 31, 31), wider(v & 31, 31));
	case 16: return rgb(wider(v >> 11 & 31, 31), wider(v >> 5 & 63, 63), wider(v & 31, 31));
	default: return v & 0xffffff;
	}
}

static void test_depths(void **state)
{
	static const uint8_t depths[] = { 8, 15, 16, 24, 32 };
	struct fixture *f = *state;

	set_mode(f, &mode_13);
	map_bars(f);
	for (unsigned n = 0; n < ARRAY_SIZE(depths); n++) {
		unsigned depth = depths[n], bytes = (depth + 7u) / 8;
		const struct picture *p;

		set_large(f, 648, 301, depth, 0x40);
		dispi(f, 6, 800);
		assert_true(is_plain(f, BAR));
		for (unsigned y = 0; y < 310; y++)
			for (unsigned x = 0; x < 800; x++) {
				uint32_t v = value_of(x, y);

				assert_int_equal(mem_write(f->mem, gpa(BAR + (800 * y + x) * bytes), &v, bytes), 0);
			}
		dispi(f, 8, 11);
		dispi(f, 9, 3);
		p = look(f, 648, 301);
		for (unsigned y = 0; y < 301; y++)
			for (unsigned x = 0; x < 648; x++)
				if (pixel(p, x, y) != expected_of(depth, value_of(x + 11, y + 3)))
					fail_msg("depth %u, pixel %u, %u: %#x", depth, x, y, pixel(p, x, y));
		/* A new mode begins with zeros, unless it keeps what there is. */
		set_large(f, 648, 301, depth, 0xc0);
		assert_int_not_equal(peek(f, BAR + 4 * bytes), 0);
		set_large(f, 648, 301, depth, 0x40);
		assert_int_equal(peek(f, BAR + 4 * bytes), 0);
	}
}

/* The window shows one bank, and BAR 0 the same memory: what one writes the other reads. */
static void test_banks(void **state)
{
	struct fixture *f = *state;

	map_bars(f);
	set_large(f, 1024, 768, 8, 0);
	assert_true(is_plain(f, 0xa0000));
	for (unsigned bank = 0; bank < 256; bank += 51) {
		uint32_t at = bank * 0x10000 + 0x1234;

		dispi(f, 5, (uint16_t)bank);
		poke(f, 0xa1234, (uint8_t)~bank);
		assert_int_equal(peek(f, BAR + at), (uint8_t)~bank);
		/* One address a page that is written */
		assert_false(is_plain(f, BAR + at));
		assert_true(is_plain(f, BAR + (at ^ 0x800000)));
		board_write(f->board, BUS_MMIO, BAR + at, 2, 0x4567);
		assert_int_equal(peek(f, 0xa1234), 0x67);
		assert_int_equal(peek(f, 0xa1235), 0x45);
		/* BAR 0 moves away, and back */
		board_config_write(f->board, DEVFN, 0x10, 4, BAR + 0x10000000);
		assert_true(is_plain(f, BAR + 0x10000000 + (at ^ 0x800000)));
		assert_false(is_plain(f, BAR + 0x10000000 + at));
		assert_int_equal(peek(f, BAR + 0x10000000 + at), 0x67);
		board_config_write(f->board, DEVFN, 0x10, 4, BAR);
	}
	/* With the linear flag the window is the bus's, and BAR 0 all memory; both as before. */
	dispi(f, 4, 0xc1);
	assert_false(is_plain(f, 0xa0000));
	assert_true(is_plain(f, BAR + 255 * 0x10000));
	assert_int_equal(peek(f, 0xa1234), 0x67);
	poke(f, 0xa1234, 0x99);
	assert_int_equal(peek(f, BAR + 255 * 0x10000 + 0x1234), 0x99);
	assert_int_equal(peek(f, 0xb8000), 0xff);
	/* The VGA's own modes have no banks. */
	dispi(f, 4, 0);
	assert_int_equal(dispi_get(f, 5), 0);
	set_mode(f, &mode_13);
	assert_int_equal(peek(f, 0xa1234), peek(f, BAR + 0x1234));
}

/* Four planes of more than 64 KiB */
static void test_large_planes(void **state)
{
	struct fixture *f = *state;
	const struct picture *p;

	set_mode(f, &mode_12);
	set_large(f, 1024, 768, 4, 0);
	for (unsigned n = 0; n < 0x18000; n++) {
		if (!(n & 0xffff))
			dispi(f, 5, (uint16_t)(n >> 16));
		set(f, SEQ, 2, 1 << (n & 3));
		poke(f, 0xa0000 + (n & 0xffff), (uint8_t)(n >> 2));
	}
	p = look(f, 1024, 768);
	for (unsigned y = 0; y < 768; y++)
		for (unsigned x = 0; x < 1024; x++) {
			unsigned n = y * 128 + x / 8, on = n >> 2 >> (7 - x % 8) & 1;

			assert_int_equal(pixel(p, x, y), colour(mode_12.attribute[on << (n & 3)]));
		}
}

/* ---- what viewers are told ---- */

static struct rectangle told[64];
static unsigned told_count;

static void note_resized(void *opaque, const struct picture *p)
{
	(void)opaque;
	told[told_count++ % 64] = (struct rectangle){ 0, 0, p->width, p->height };
}

static void note_changed(void *opaque, const struct picture *p, struct rectangle r)
{
	(void)opaque, (void)p;
	told[told_count++ % 64] = r;
}

static void test_changes(void **state)
{
	static const struct viewer_ops ops = { .resized = note_resized, .changed = note_changed };
	struct viewer viewer = { .ops = &ops };
	struct fixture *f = *state;

	set_text(f);
	set(f, CRTC, 0x0a, 0x20);
	set(f, SEQ, 1, 0x01);
	viewer_add(f->display, &viewer);
	told_count = 0;
	display_picture(f->display);
	assert_int_equal(told_count, 1);
	display_picture(f->display);
	assert_int_equal(told_count, 1);
	/* One character, of which at most its eight by sixteen dots change */
	poke(f, 0xb8000 + 2 * (3 * 80 + 7), (uint8_t) ~((3 * 80 + 7) * 3));
	display_picture(f->display);
	assert_in_range(told_count, 2, 18);
	for (unsigned n = 1; n < told_count; n++) {
		assert_in_range(told[n].x, 56, 63);
		assert_in_range(told[n].x + told[n].width, 57, 64);
		assert_in_range(told[n].y, 48, 63);
		assert_in_range(told[n].y + told[n].height, 49, 64);
	}
	map_bars(f);
	set_large(f, 640, 480, 32, 0x40);
	display_picture(f->display);
	told_count = 0;
	for (unsigned n = 0; n < 4; n++)
		poke(f, BAR + (100 * 640 + 50 + n * 641) * 4, 0xff);
	display_picture(f->display);
	assert_int_equal(told_count, 1);
	assert_memory_equal(&told[0], &((struct rectangle){ 50, 100, 4, 4 }), sizeof(told[0]));
	/* The byte that is no colour */
	poke(f, BAR + 3, 0xff);
	display_picture(f->display);
	assert_int_equal(told_count, 1);
	viewer_remove(f->display, &viewer);
}

/* ---- state ---- */

static void copy_memories(struct fixture *from, struct fixture *to)
{
	struct writer w = { 0 };
	struct reader r;

	assert_int_equal(mem_save(from->mem, &w, NULL), 0);
	r = (struct reader){ w.data, w.size, 0 };
	assert_int_equal(mem_check(to->mem, &r, NULL), 0);
	r.offset = 0;
	mem_load(to->mem, &r);
	writer_free(&w);
}

static void move_to(struct fixture *f, struct fixture *other)
{
	struct writer records = board_save(f->board), again;

	assert_int_equal(board_load(other->board, &records, clock_now(f->board->clock), NULL), 0);
	bus_settle(other->board->bus);
	copy_memories(f, other);
	again = board_save(other->board);
	assert_int_equal(again.size, records.size);
	assert_memory_equal(again.data, records.data, again.size);
	writer_free(&records);
	writer_free(&again);
}

/* In the middle of a DAC colour, with an index without its data, with characters as memory, with a bank. */
static void test_state(void **state)
{
	struct fixture *f = *state, *other = create();
	const struct picture *p;

	set_text(f);
	outb(f->board, 0x3c8, 9);
	outb(f->board, 0x3c9, 1);
	outb(f->board, 0x3c9, 2);
	inb(f->board, 0x3da);
	outb(f->board, 0x3c0, 0x31);
	set_mode(other, &mode_13);
	move_to(f, other);
	assert_true(is_plain(other, 0xb8000));
	outb(other->board, 0x3c9, 3);
	outb(other->board, 0x3c0, 0x17);
	outb(other->board, 0x3c7, 9);
	assert_int_equal(inb(other->board, 0x3c9), 1);
	assert_int_equal(inb(other->board, 0x3c1), 0x17);
	set(other, CRTC, 0x0a, 0x20);
	outb(other->board, 0x3c8, 9);
	outb(other->board, 0x3c9, 9);
	outb(other->board, 0x3c9, 0);
	outb(other->board, 0x3c9, ~9 & 63);
	p = look(other, 720, 400);
	expect_text(p, 0, 25, 9, 0);
	/* Characters go to the planes there as they would have here. */
	set(other, SEQ, 4, 0x06);
	set(other, GC, 5, 0x00);
	set(other, GC, 6, 0x04);
	assert_int_equal(peek(other, 0xa0001), 3);

	map_bars(f);
	set_large(f, 1024, 768, 8, 0);
	dispi(f, 5, 3);
	poke(f, 0xa0005, 0x77);
	move_to(f, other);
	assert_true(is_plain(other, 0xa0000));
	assert_int_equal(peek(other, BAR + 0x30005), 0x77);
	assert_false(is_plain(other, BAR + 0x30005));
	destroy(other);
}

/* Bochs' register n of the record, whatever it is now, is `value`. */
static void refuse(struct fixture *f, unsigned n, uint16_t value, const char *expected)
{
	static const uint8_t field[] = { 22, 0, 2, 11, 0, 0, 0 }; /* tag, size, count */
	struct fixture *other = create();
	struct writer records = board_save(f->board);
	uint8_t *at = memmem(records.data, records.size, field, sizeof(field));
	struct error err = { 0 };

	assert_non_null(at);
	store_le16(at + sizeof(field) + 2 * n, value);
	assert_int_equal(board_load(other->board, &records, 0, &err), -EINVAL);
	assert_non_null(strstr(err.text, expected));
	assert_int_equal(dispi_get(other, 4), 0);
	writer_free(&records);
	destroy(other);
}

static void test_damage(void **state)
{
	struct fixture *f = *state;

	refuse(f, 5, 1, "bank is 1");
	set_large(f, 1024, 768, 32, 0x40);
	refuse(f, 1, 4000, "does not fit");
	refuse(f, 1, 1023, "does not fit");
	refuse(f, 2, 0, "does not fit");
	refuse(f, 3, 5, "5 bits");
	refuse(f, 5, 256, "bank is 256");
	refuse(f, 6, 1000, "does not fit");
	refuse(f, 6, 10000, "rows of 10000");
	refuse(f, 8, 8, "does not fit");
	refuse(f, 9, 60000, "does not fit");
}

/* Everything as after power-on, and nothing that was plain still is. */
static void test_reset(void **state)
{
	struct fixture *f = *state;
	const struct picture *p;

	set_text(f);
	map_bars(f);
	assert_true(is_plain(f, 0xb8000));
	bus_reset(f->board->bus);
	bus_settle(f->board->bus);
	assert_false(is_plain(f, 0xb8000));
	assert_null(mem_map(f->mem, gpa(BAR), 1, false));
	assert_int_equal(inb(f->board, 0x3cc), 0);
	assert_int_equal(dispi_get(f, 0), 0xb0c5);
	p = look(f, 720, 400);
	for (unsigned n = 0; n < 720 * 400; n++)
		assert_int_equal(p->pixels[n], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VGA_TEST(test_registers),    VGA_TEST(test_dac),     VGA_TEST(test_beam),
		VGA_TEST(test_planes),	     VGA_TEST(test_window),  VGA_TEST(test_text),
		VGA_TEST(test_text_marks),   VGA_TEST(test_mode_13), VGA_TEST(test_mode_x),
		VGA_TEST(test_mode_12),	     VGA_TEST(test_cga),     VGA_TEST(test_dispi),
		VGA_TEST(test_edid),	     VGA_TEST(test_depths),  VGA_TEST(test_banks),
		VGA_TEST(test_large_planes), VGA_TEST(test_changes), VGA_TEST(test_state),
		VGA_TEST(test_damage),	     VGA_TEST(test_reset),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
