/*
 * What the VGA shows. The lines of the picture are made as the CRT controller goes through the memory, whatever the mode is called. Nothing tells that the
 * guest has written: the memory is compared with a copy of what was drawn last.
 */
#include "devices/pc/vga.h"

#include <stdlib.h>

/* Of an off screen that never showed anything. */
#define OFF_WIDTH  720
#define OFF_HEIGHT 400

#define BLINK_FRAMES_NS                                                                                                \
	114285714u /* the cursor is on for eight frames, of 70 a second, and off for as many; characters twice as long */

#define CRTC_MODE_CGA_LINES   BIT(0) /* unless set */
#define CRTC_MODE_FOUR_BANKS  BIT(1) /* unless set */
#define CRTC_MODE_COUNT_BY_2  BIT(3)
#define CRTC_MODE_BYTES	      BIT(6)
#define CRTC_MODE_ON	      BIT(7)
#define UNDERLINE_COUNT_BY_4  BIT(5)
#define UNDERLINE_DOUBLEWORDS BIT(6)
#define MAX_SCAN_DOUBLE	      BIT(7)
#define CURSOR_OFF	      BIT(5)

#define CHARACTER_BYTES 32u /* of a font */

/* All that decides how memory looks. */
struct look {
	uint8_t sequencer[SEQUENCER_COUNT], graphics[GRAPHICS_COUNT], crtc[CRTC_COUNT], attribute[ATTRIBUTE_COUNT];
	uint8_t attribute_index, dac_mask, dac[768];
	uint16_t dispi[DISPI_COUNT];
	bool cells;
	uint8_t blink; /* bit 0: the cursor is off; bit 1: characters that blink are */
};

struct vga_drawn {
	bool valid;
	struct look look;
	uint32_t *words;       /* VGA_MEMORY of what was drawn, cells among the planes */
	uint32_t colours[256]; /* of what the memory's values mean */
	uint64_t spread[256];  /* the bits of a byte, the highest one first, each in a byte */
	uint32_t line[PICTURE_MAX_WIDTH + 32];
	struct rectangle changed; /* of rows that follow each other */
};

struct vga_drawn *vga_drawn_create(void)
{
	struct vga_drawn *d = calloc(1, sizeof(*d));

	if (d)
		d->words = calloc(1, VGA_MEMORY);
	if (!d || !d->words) {
		free(d);
		return NULL;
	}
	for (unsigned n = 0; n < 256; n++)
		for (unsigned bit = 0; bit < 8; bit++)
			d->spread[n] |= (uint64_t)(n >> (7 - bit) & 1) << (8 * bit);
	return d;
}

void vga_drawn_destroy(struct vga_drawn *d)
{
	if (d)
		free(d->words);
	free(d);
}

/* ---- registers ---- */

static bool is_text(const struct look *l)
{
	return !(l->dispi[DISPI_ENABLE] & DISPI_ENABLED) && !(l->graphics[GC_MISC] & GC_MISC_GRAPHICS);
}

static bool is_off(const struct look *l)
{
	if (!(l->attribute_index & ATTR_INDEX_ON) || l->sequencer[SEQ_CLOCKING] & CLOCKING_OFF)
		return true;
	return !(l->dispi[DISPI_ENABLE] & DISPI_ENABLED) && !(l->crtc[CRTC_MODE] & CRTC_MODE_ON);
}

static unsigned crtc_pair(const struct look *l, enum vga_crtc high) { return l->crtc[high] << 8 | l->crtc[high + 1]; }

static uint32_t crtc_long(const struct look *l, enum vga_crtc low, unsigned overflow_8)
{
	return l->crtc[low] | (l->crtc[CRTC_OVERFLOW] >> overflow_8 & 1) << 8;
}

/* With its bits 8 and 9. */
static uint32_t display_lines(const struct look *l)
{
	return (crtc_long(l, CRTC_V_DISPLAY_END, 1) | (l->crtc[CRTC_OVERFLOW] >> 6 & 1) << 9) + 1;
}

static uint32_t compared_line(const struct look *l)
{
	return crtc_long(l, CRTC_LINE_COMPARE, 4) | (l->crtc[CRTC_MAX_SCAN] >> 6 & 1) << 9;
}

static uint32_t dac_colour(const struct look *l, uint8_t index)
{
	const uint8_t *part = &l->dac[3 * (index & l->dac_mask)];
	uint32_t colour = 0;

	for (unsigned n = 0; n < 3; n++) {
		uint8_t six = part[n] & 0x3f;

		colour = colour << 8 | (l->dispi[DISPI_ENABLE] & DISPI_8_BIT_DAC ? part[n] : six << 2 | six >> 4);
	}
	return colour;
}

/* By the attribute controller's palette, of 16. */
static uint32_t palette_colour(const struct look *l, unsigned index)
{
	uint8_t value = l->attribute[index & l->attribute[ATTR_PLANES] & 15], select = l->attribute[ATTR_SELECT];

	if (l->attribute[ATTR_MODE] & ATTR_MODE_SELECT)
		value = (value & 0x0f) | (select & 3) << 4;
	return dac_colour(l, value | (select & 12) << 4);
}

static bool is_256(const struct look *l) { return !is_text(l) && l->graphics[GC_MODE] & MODE_256; }

static void make_colours(struct vga_drawn *d, bool direct)
{
	for (unsigned n = 0; n < 256; n++)
		d->colours[n] = direct ? dac_colour(&d->look, (uint8_t)n) : palette_colour(&d->look, n);
}

/* ---- the picture ---- */

static void report(struct vga_drawn *d, struct screen *screen)
{
	screen_changed(screen, d->changed);
	d->changed = (struct rectangle){ 0 };
}

/* Where the made line is not what the picture has. */
static bool find_difference(const struct vga_drawn *d, const uint32_t *row, uint32_t width, uint32_t *first,
			    uint32_t *end)
{
	if (!memcmp(row, d->line, width * sizeof(*row)))
		return false;
	for (*first = 0; row[*first] == d->line[*first]; ++*first)
		;
	for (*end = width; row[*end - 1] == d->line[*end - 1]; --*end)
		;
	return true;
}

static void put_line(struct vga_drawn *d, struct screen *screen, uint32_t y)
{
	struct picture *p = screen_picture(screen);
	uint32_t *row = p->pixels + (size_t)y * p->width, first, end;
	struct rectangle *r = &d->changed;

	if (!find_difference(d, row, p->width, &first, &end)) {
		report(d, screen);
		return;
	}
	memcpy(row + first, d->line + first, (end - first) * sizeof(*row));
	if (r->height) {
		end = MAX(end, r->x + r->width);
		first = MIN(first, r->x);
	} else {
		r->y = y;
	}
	r->x = first;
	r->width = end - first;
	r->height++;
}

static void draw_off(struct vga_drawn *d, struct screen *screen)
{
	struct picture *p = screen_picture(screen);

	if (!p->width)
		screen_set_size(screen, OFF_WIDTH, OFF_HEIGHT);
	memset(d->line, 0, p->width * sizeof(*d->line));
	for (uint32_t y = 0; y < p->height; y++)
		put_line(d, screen, y);
}

/* ---- lines by the CRT controller ---- */

/* In character clocks: 8 or 9 dots, which may be two pixels wide each. */
struct raster {
	unsigned columns, dots, height;
	unsigned wide;		/* 1: dots are twice as wide; no padding: it is compared as bytes */
	uint32_t address, step; /* of the row, and from one to the next */
	unsigned row_scan;	/* the line of the row */
	unsigned pan;		/* dots to the left */
	uint32_t mask;		/* of words there are, less one */
};

/* Where the word is that the address counter says. */
static uint32_t word_at(const struct look *l, const struct raster *r, uint32_t column)
{
	unsigned mode = l->crtc[CRTC_MODE], bit;
	uint32_t at;

	if (l->crtc[CRTC_UNDERLINE] & UNDERLINE_COUNT_BY_4)
		column >>= 2;
	else if (mode & CRTC_MODE_COUNT_BY_2)
		column >>= 1;
	at = r->address + column;
	/* Lines of a row, or rows by two, are in parts of the memory: an address bit is the line's. In words that is the one below. */
	bit = mode & CRTC_MODE_BYTES ? 13 : 12;
	if (!(mode & CRTC_MODE_CGA_LINES))
		at = (at & ~(1u << bit)) | (r->row_scan & 1) << bit;
	if (!(mode & CRTC_MODE_FOUR_BANKS))
		at = (at & ~(2u << bit)) | (r->row_scan >> 1 & 1) << (bit + 1);
	return at & r->mask;
}

/* Eight pixels of four bits, each in a byte. */
static uint64_t pixels_of(const struct vga_drawn *d, uint32_t word)
{
	if (d->look.graphics[GC_MODE] & MODE_INTERLEAVE) {
		uint64_t pixels = 0;

		/* Two bits a pixel, of planes 0 and 2, then 1 and 3. */
		for (unsigned n = 0; n < 8; n++) {
			unsigned shift = (n < 4 ? 0 : 8) + 6 - 2 * (n & 3);

			pixels |= (uint64_t)((word >> shift & 3) | (word >> (shift + 16) & 3) << 2) << (8 * n);
		}
		return pixels;
	}
	return d->spread[word & 0xff] | d->spread[word >> 8 & 0xff] << 1 | d->spread[word >> 16 & 0xff] << 2 |
	       d->spread[word >> 24] << 3;
}

static uint32_t *put_dots(const struct vga_drawn *d, uint32_t *to, uint64_t pixels)
{
	for (unsigned n = 0; n < 8; n++, pixels >>= 8)
		*to++ = d->colours[pixels & 15];
	return to;
}

/* Four pixels of a byte, two dots wide. */
static uint32_t *put_bytes(const struct vga_drawn *d, uint32_t *to, uint32_t word)
{
	for (unsigned n = 0; n < 4; n++, word >>= 8, to += 2)
		to[0] = to[1] = d->colours[word & 0xff];
	return to;
}

static void make_graphics(struct vga_drawn *d, const struct raster *r)
{
	uint32_t *to = d->line;

	for (unsigned column = 0; column <= r->columns; column++) {
		uint32_t word = d->words[word_at(&d->look, r, column)];

		to = is_256(&d->look) ? put_bytes(d, to, word) : put_dots(d, to, pixels_of(d, word));
	}
}

/* The words where the font of a character begins; two may be in use, by bit 3 of the attribute. */
static uint32_t font_of(const struct look *l, uint8_t attribute)
{
	unsigned fonts = l->sequencer[SEQ_FONTS];
	unsigned font = attribute & 8 ? (fonts >> 2 & 3) | (fonts >> 3 & 4) : (fonts & 3) | (fonts >> 2 & 4);

	return (font & 3) << 14 | (font & 4) << 11;
}

/* The dots of a character, from bit 8 on; the ninth is the eighth again for lines and boxes. */
static unsigned dots_of(const struct vga_drawn *d, const struct raster *r, uint8_t character, uint8_t attribute)
{
	uint32_t glyph = font_of(&d->look, attribute) + character * CHARACTER_BYTES + r->row_scan;
	unsigned dots = (d->words[glyph] >> 16 & 0xff) << 1;

	if ((character & 0xe0) == 0xc0 && d->look.attribute[ATTR_MODE] & ATTR_MODE_LINES)
		dots |= dots >> 1 & 1;
	if ((attribute & 7) == 1 && r->row_scan == (d->look.crtc[CRTC_UNDERLINE] & 31))
		dots = 0x1ff;
	return dots;
}

static bool cursor_has_line(const struct look *l, const struct raster *r)
{
	unsigned start = l->crtc[CRTC_CURSOR_START], end = l->crtc[CRTC_CURSOR_END] & 31;

	return !(start & CURSOR_OFF) && !(l->blink & 1) && r->row_scan >= (start & 31) && r->row_scan <= end;
}

static void make_text(struct vga_drawn *d, const struct raster *r)
{
	const struct look *l = &d->look;
	bool blinks = l->attribute[ATTR_MODE] & ATTR_MODE_BLINK, cursor = cursor_has_line(l, r);
	uint32_t cursor_at = crtc_pair(l, CRTC_CURSOR_HIGH) & r->mask, *to = d->line;

	for (unsigned column = 0; column <= r->columns; column++) {
		uint32_t at = word_at(l, r, column);
		uint8_t character = (uint8_t)d->words[at], attribute = (uint8_t)(d->words[at] >> 8);
		unsigned dots = dots_of(d, r, character, attribute);
		uint32_t front = d->colours[attribute & 15], back = d->colours[attribute >> 4 & (blinks ? 7 : 15)];

		if (blinks && attribute & 0x80 && l->blink & 2)
			dots = 0;
		if (cursor && at == cursor_at)
			dots = 0x1ff;
		for (unsigned n = 0; n < r->dots; n++)
			*to++ = dots & 0x100 >> n ? front : back;
	}
}

/* Each dot twice. */
static void widen(uint32_t *line, unsigned dots)
{
	while (dots--)
		line[2 * dots] = line[2 * dots + 1] = line[dots];
}

static void make_line(struct vga_drawn *d, const struct raster *r)
{
	unsigned dots = r->columns * r->dots;

	if (is_text(&d->look))
		make_text(d, r);
	else
		make_graphics(d, r);
	if (r->pan)
		memmove(d->line, d->line + r->pan, dots * sizeof(*d->line));
	if (r->wide)
		widen(d->line, dots);
}

static unsigned panning(const struct look *l, const struct raster *r)
{
	unsigned pan = l->attribute[ATTR_PANNING];

	if (r->dots == 9)
		return pan >= 8 ? 0 : pan + 1;
	return pan & 7;
}

static struct raster make_raster(const struct look *l)
{
	struct raster r = {
		.columns = l->crtc[CRTC_H_DISPLAY_END] + 1u,
		.dots = is_text(l) && !(l->sequencer[SEQ_CLOCKING] & CLOCKING_8_DOTS) ? 9 : 8,
		.height = display_lines(l),
		.wide = !!(l->sequencer[SEQ_CLOCKING] & CLOCKING_HALF),
		.address = crtc_pair(l, CRTC_START_HIGH) + (l->crtc[CRTC_PRESET_ROW] >> 5 & 3),
		.step = l->crtc[CRTC_OFFSET] * 2,
		.row_scan = l->crtc[CRTC_PRESET_ROW] & 31,
		.mask = VGA_PLANE_WORDS - 1,
	};

	r.pan = panning(l, &r);
	return r;
}

/* Four planes in a larger mode: rows without anything of the CRT controller's. */
static struct raster make_large_raster(const struct look *l)
{
	uint32_t stride = l->dispi[DISPI_VIRTUAL_WIDTH] / 8u;

	return (struct raster){ .columns = l->dispi[DISPI_WIDTH] / 8,
				.dots = 8,
				.height = l->dispi[DISPI_HEIGHT],
				.address = l->dispi[DISPI_Y] * stride + l->dispi[DISPI_X] / 8,
				.step = stride,
				.pan = l->dispi[DISPI_X] & 7,
				.mask = VGA_MEMORY / 4 - 1 };
}

static void next_row(const struct look *l, struct raster *r)
{
	if (r->row_scan != (l->crtc[CRTC_MAX_SCAN] & 31)) {
		r->row_scan = (r->row_scan + 1) & 31;
		return;
	}
	r->row_scan = 0;
	r->address += r->step;
}

static void next_line(const struct look *l, struct raster *r, uint32_t y)
{
	if (l->dispi[DISPI_ENABLE] & DISPI_ENABLED) {
		r->address += r->step;
	} else if (y == compared_line(l)) { /* the screen is split: the lower part is from the memory's beginning */
		r->address = r->row_scan = 0;
		if (l->attribute[ATTR_MODE] & ATTR_MODE_SPLIT)
			r->pan = 0;
	} else if (!(l->crtc[CRTC_MAX_SCAN] & MAX_SCAN_DOUBLE) || y & 1) {
		next_row(l, r);
	}
}

static void draw_planes(struct vga_drawn *d, struct screen *screen)
{
	const struct look *l = &d->look;
	bool large = l->dispi[DISPI_ENABLE] & DISPI_ENABLED;
	struct raster r = large ? make_large_raster(l) : make_raster(l), made = { 0 };
	unsigned across = r.dots * (r.wide ? 2 : 1);

	r.columns = MIN(r.columns, PICTURE_MAX_WIDTH / across);
	r.height = MIN(r.height, PICTURE_MAX_HEIGHT);
	make_colours(d, is_256(l));
	screen_set_size(screen, r.columns * across, r.height);
	for (uint32_t y = 0; y < r.height; y++) {
		if (!made.columns || memcmp(&made, &r, sizeof(r)))
			make_line(d, &r);
		made = r;
		put_line(d, screen, y);
		next_line(l, &r, y);
	}
}

/* ---- rows of pixels ---- */

static uint32_t scale_5(uint32_t v) { return v << 3 | v >> 2; }
static uint32_t scale_6(uint32_t v) { return v << 2 | v >> 4; }

static uint32_t colour_15(uint32_t v)
{
	return scale_5(v >> 10 & 31) << 16 | scale_5(v >> 5 & 31) << 8 | scale_5(v & 31);
}

static uint32_t colour_16(uint32_t v) { return scale_5(v >> 11) << 16 | scale_6(v >> 5 & 63) << 8 | scale_5(v & 31); }

static uint32_t colour_24(const uint8_t *at) { return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16; }

static void make_pixels(struct vga_drawn *d, const uint8_t *from, uint32_t width)
{
	uint32_t *to = d->line;

	switch (d->look.dispi[DISPI_DEPTH]) {
	case 8:
		for (uint32_t n = 0; n < width; n++)
			to[n] = d->colours[from[n]];
		break;
	case 15:
		for (uint32_t n = 0; n < width; n++)
			to[n] = colour_15(load_le16(from + 2 * n));
		break;
	case 16:
		for (uint32_t n = 0; n < width; n++)
			to[n] = colour_16(load_le16(from + 2 * n));
		break;
	case 24:
		for (uint32_t n = 0; n < width; n++)
			to[n] = colour_24(from + 3 * n);
		break;
	default:
		for (uint32_t n = 0; n < width; n++)
			to[n] = load_le32(from + 4 * n) & 0xffffff;
		break;
	}
}

/* Of the memory as it is at this moment: what the guest writes while its row is drawn is seen the next time. */
static void draw_pixels(struct vga_drawn *d, const uint8_t *memory, bool all, struct screen *screen)
{
	const struct look *l = &d->look;
	unsigned depth = l->dispi[DISPI_DEPTH];
	uint32_t width = l->dispi[DISPI_WIDTH], stride = vga_dispi_bytes(depth, l->dispi[DISPI_VIRTUAL_WIDTH]);
	uint32_t size = vga_dispi_bytes(depth, width);
	const uint8_t *from = memory + (size_t)l->dispi[DISPI_Y] * stride + vga_dispi_bytes(depth, l->dispi[DISPI_X]);
	uint8_t *drawn = (uint8_t *)d->words;

	if (all)
		make_colours(d, true);
	screen_set_size(screen, width, l->dispi[DISPI_HEIGHT]);
	for (uint32_t y = 0; y < l->dispi[DISPI_HEIGHT]; y++, from += stride, drawn += size) {
		if (!all && !memcmp(drawn, from, size)) {
			report(d, screen);
			continue;
		}
		memcpy(drawn, from, size);
		make_pixels(d, drawn, width);
		put_line(d, screen, y);
	}
}

/* ---- what has changed ---- */

static struct look look_at(const struct vga *v)
{
	uint64_t phase = clock_now(v->pci.device.bus->clock) / BLINK_FRAMES_NS;
	struct look look;

	memset(&look, 0, sizeof(look));
	memcpy(look.sequencer, v->sequencer, sizeof(look.sequencer));
	memcpy(look.graphics, v->graphics, sizeof(look.graphics));
	memcpy(look.crtc, v->crtc, sizeof(look.crtc));
	memcpy(look.attribute, v->attribute, sizeof(look.attribute));
	memcpy(look.dac, v->dac, sizeof(look.dac));
	memcpy(look.dispi, v->dispi, sizeof(look.dispi));
	look.attribute_index = v->attribute_index;
	look.dac_mask = v->dac_mask;
	look.cells = v->plain.kind == VGA_PLAIN_CELLS;
	if (is_text(&look))
		look.blink = phase & 3;
	return look;
}

/* Of the planes. Words of which half is elsewhere are put together. */
static bool copy_words(struct vga_drawn *d, const struct vga *v)
{
	size_t size = vga_is_large(v) ? (size_t)vga_dispi_stride(v) * (v->dispi[DISPI_Y] + v->dispi[DISPI_HEIGHT])
				      : VGA_PLANE_WORDS * sizeof(*d->words);
	const uint32_t *words = vga_words(v);
	const uint16_t *cells = vga_cells(v);
	bool differ = false;

	if (v->plain.kind != VGA_PLAIN_CELLS) {
		differ = memcmp(d->words, words, size);
		if (differ)
			memcpy(d->words, words, size);
		return differ;
	}
	for (unsigned n = 0; n < VGA_CELLS / 2; n++) {
		uint32_t word = (words[n] & 0xffff0000) | cells[n];

		differ |= d->words[n] != word;
		d->words[n] = word;
	}
	if (memcmp(d->words + VGA_CELLS / 2, words + VGA_CELLS / 2, size - 2 * VGA_CELLS)) {
		memcpy(d->words + VGA_CELLS / 2, words + VGA_CELLS / 2, size - 2 * VGA_CELLS);
		differ = true;
	}
	return differ;
}

/* Registers and planes as they are together. Returns whether there is another look, or other planes. */
static bool take(struct vga_drawn *d, struct vga *v, bool *other_look, bool *packed)
{
	struct look look;
	bool differ = false;

	lock_take(v->pci.device.lock);
	look = look_at(v);
	*packed = vga_is_packed(v);
	*other_look = !d->valid || memcmp(&look, &d->look, sizeof(look));
	if (!*packed)
		differ = copy_words(d, v);
	lock_drop(v->pci.device.lock);
	d->look = look;
	d->valid = true;
	return differ || *other_look;
}

static void draw(void *opaque, struct screen *screen)
{
	struct vga *v = opaque;
	struct vga_drawn *d = v->drawn;
	bool other_look, packed, differs = take(d, v, &other_look, &packed);

	if (is_off(&d->look) && (differs || packed))
		draw_off(d, screen);
	else if (packed)
		draw_pixels(d, vga_memory(v), other_look, screen);
	else if (differs)
		draw_planes(d, screen);
	report(d, screen);
}

/* ---- characters ---- */

static uint16_t cell_at(const struct vga *v, uint32_t at)
{
	return v->plain.kind == VGA_PLAIN_CELLS && at < VGA_CELLS / 2 ? vga_cells(v)[at] : (uint16_t)vga_words(v)[at];
}

static void read_cells(const struct vga *v, const struct look *l, struct text_picture *text)
{
	struct raster r = make_raster(l);
	uint32_t cursor = crtc_pair(l, CRTC_CURSOR_HIGH);

	text->cursor_row = text->rows;
	for (uint32_t n = 0; n < text->rows * text->columns; n++) {
		uint32_t row = n / text->columns, column = n % text->columns;
		uint32_t at = (r.address + row * r.step + column) & r.mask;

		text->cells[n].character = (uint8_t)cell_at(v, at);
		text->cells[n].attribute = (uint8_t)(cell_at(v, at) >> 8);
		if (at == cursor && !(l->crtc[CRTC_CURSOR_START] & CURSOR_OFF)) {
			text->cursor_row = row;
			text->cursor_column = column;
		}
	}
}

static bool read_text(void *opaque, struct text_picture *text)
{
	struct vga *v = opaque;
	struct look look;
	uint32_t lines;
	bool there;

	lock_take(v->pci.device.lock);
	look = look_at(v);
	there = is_text(&look) && !is_off(&look);
	if (there) {
		lines = ((look.crtc[CRTC_MAX_SCAN] & 31) + 1u) * (look.crtc[CRTC_MAX_SCAN] & MAX_SCAN_DOUBLE ? 2 : 1);
		text->columns = MIN(text->columns, look.crtc[CRTC_H_DISPLAY_END] + 1u);
		text->rows = MIN(text->rows, display_lines(&look) / lines);
		read_cells(v, &look, text);
	}
	lock_drop(v->pci.device.lock);
	return there;
}

const struct screen_ops vga_screen_ops = { .draw = draw, .read_text = read_text };
