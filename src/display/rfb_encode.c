/*
 * Pixels for viewers: in any format they may want, as they are (Raw) or compressed (ZRLE; RFC 6143, 7.7.1 and 7.7.6).
 */
#include "display/rfb.h"

#include <stdlib.h>
#include <zlib.h>

/* A compromise: a picture of a desktop takes a tenth of the bytes, and some milliseconds. */
#define LEVEL 2
#define TILE  64

/* ---- formats ---- */

static void fill_table(const struct pixel_format *f, uint32_t table[256], unsigned most, unsigned shift)
{
	for (unsigned n = 0; n < 256; n++) {
		uint32_t pixel = (uint32_t)((n * most + 127) / 255) << shift;

		if (f->big_endian && f->bits == 32)
			pixel = __builtin_bswap32(pixel);
		else if (f->big_endian && f->bits == 16)
			pixel = __builtin_bswap16((uint16_t)pixel);
		table[n] = pixel;
	}
}

static bool channel_fits(const struct pixel_format *f, unsigned most, unsigned shift)
{
	return shift < f->bits && (uint64_t)most << shift < BIT(f->bits);
}

/* Compressed pixels are without the byte that says nothing, if there is one at an end. */
static void set_compact(struct encoder *e)
{
	const struct pixel_format *f = &e->format;
	uint32_t used = (uint32_t)f->red_max << f->red_shift | (uint32_t)f->green_max << f->green_shift |
			(uint32_t)f->blue_max << f->blue_shift;

	e->compact_size = f->bits / 8;
	e->compact_first = 0;
	if (f->bits != 32 || f->depth > 24)
		return;
	if (!(used >> 24)) {
		e->compact_size = 3;
		e->compact_first = f->big_endian;
	} else if (!(used & 0xff)) {
		e->compact_size = 3;
		e->compact_first = !f->big_endian;
	}
}

bool encoder_set_format(struct encoder *e, const struct pixel_format *format)
{
	/* A palette of all colours that 8 bits make by themselves. */
	static const struct pixel_format by_palette = { .bits = 8,
							.depth = 8,
							.palette = true,
							.red_max = 7,
							.green_max = 7,
							.blue_max = 3,
							.green_shift = 3,
							.blue_shift = 6 };
	const struct pixel_format *f = format->palette ? &by_palette : format;

	if (format->palette && format->bits != 8)
		return false;
	if ((f->bits != 8 && f->bits != 16 && f->bits != 32) || !channel_fits(f, f->red_max, f->red_shift) ||
	    !channel_fits(f, f->green_max, f->green_shift) || !channel_fits(f, f->blue_max, f->blue_shift))
		return false;
	e->format = *f;
	fill_table(f, e->red, f->red_max, f->red_shift);
	fill_table(f, e->green, f->green_max, f->green_shift);
	fill_table(f, e->blue, f->blue_max, f->blue_shift);
	set_compact(e);
	return true;
}

void encoder_init(struct encoder *e)
{
	static const struct pixel_format own = { .bits = 32,
						 .depth = 24,
						 .red_max = 255,
						 .green_max = 255,
						 .blue_max = 255,
						 .red_shift = 16,
						 .green_shift = 8 };

	*e = (struct encoder){ .zlib = NULL };
	encoder_set_format(e, &own);
}

void encoder_end(struct encoder *e)
{
	if (e->zlib)
		deflateEnd(e->zlib);
	free(e->zlib);
	free(e->tiles.data);
}

static uint32_t convert(const struct encoder *e, uint32_t pixel)
{
	return e->red[pixel >> 16 & 0xff] | e->green[pixel >> 8 & 0xff] | e->blue[pixel & 0xff];
}

/* Of a picture's row; black where there is none. */
static void take_row(const struct picture *p, uint32_t x, uint32_t y, uint32_t width, uint32_t *row)
{
	uint32_t there = p && y < p->height && x < p->width ? MIN(width, p->width - x) : 0;

	if (there)
		memcpy(row, p->pixels + (size_t)y * p->width + x, there * sizeof(*row));
	memset(row + there, 0, (width - there) * sizeof(*row));
}

/* ---- Raw ---- */

bool encode_raw(struct encoder *e, const struct picture *picture, struct rectangle r, struct bytes *out)
{
	unsigned size = e->format.bits / 8;
	uint32_t row[ENCODE_MOST_WIDTH];

	for (uint32_t y = 0; y < r.height; y++) {
		uint8_t *to = bytes_extend(out, (size_t)r.width * size);

		if (!to)
			return false;
		take_row(picture, r.x, r.y + y, r.width, row);
		for (uint32_t x = 0; x < r.width; x++, to += size) {
			uint32_t pixel = convert(e, row[x]);

			memcpy(to, &pixel, size);
		}
	}
	return true;
}

/* ---- ZRLE ---- */

#define MOST_COLOURS 127
#define HASH	     256

struct tile {
	uint32_t width, height, count;
	uint32_t pixels[TILE * TILE];
	/* Colours, if they are not too many. */
	unsigned colours;
	uint32_t palette[MOST_COLOURS];
	uint8_t hash[HASH]; /* index + 1 */
	/* Runs of equal pixels: how many, those of one pixel, and bytes for the lengths of the longer ones. */
	unsigned runs, single_runs, length_bytes;
};

static unsigned hash_of(uint32_t pixel) { return (pixel * 0x9e3779b1u) >> 24; }

/* MOST_COLOURS: it is not in the palette. */
static unsigned colour_index(const struct tile *t, uint32_t pixel)
{
	for (unsigned h = hash_of(pixel); t->hash[h]; h = (h + 1) % HASH)
		if (t->palette[t->hash[h] - 1] == pixel)
			return t->hash[h] - 1u;
	return MOST_COLOURS;
}

static void add_colour(struct tile *t, uint32_t pixel)
{
	unsigned h = hash_of(pixel);

	if (t->colours > MOST_COLOURS || colour_index(t, pixel) < MOST_COLOURS)
		return;
	if (t->colours++ == MOST_COLOURS)
		return;
	while (t->hash[h])
		h = (h + 1) % HASH;
	t->hash[h] = (uint8_t)t->colours;
	t->palette[t->colours - 1] = pixel;
}

static unsigned run_at(const struct tile *t, unsigned at)
{
	unsigned end = at + 1;

	while (end < t->count && t->pixels[end] == t->pixels[at])
		end++;
	return end - at;
}

static unsigned length_bytes(unsigned run) { return (run - 1) / 255 + 1; }

static void examine(struct tile *t)
{
	t->colours = t->runs = t->single_runs = t->length_bytes = 0;
	memset(t->hash, 0, sizeof(t->hash));
	for (unsigned at = 0, run; at < t->count; at += run) {
		run = run_at(t, at);
		add_colour(t, t->pixels[at]);
		t->runs++;
		if (run == 1)
			t->single_runs++;
		else
			t->length_bytes += length_bytes(run);
	}
}

static void put_byte(struct encoder *e, unsigned byte) { bytes_add(&e->tiles, &(uint8_t){ (uint8_t)byte }, 1); }

static void put_pixel(struct encoder *e, uint32_t pixel)
{
	uint8_t converted[4];

	pixel = convert(e, pixel);
	memcpy(converted, &pixel, sizeof(pixel));
	bytes_add(&e->tiles, converted + e->compact_first, e->compact_size);
}

static void put_palette(struct encoder *e, const struct tile *t)
{
	for (unsigned n = 0; n < t->colours; n++)
		put_pixel(e, t->palette[n]);
}

static void put_length(struct encoder *e, unsigned run)
{
	for (run--; run >= 255; run -= 255)
		put_byte(e, 255);
	put_byte(e, run);
}

/* 1, 2 or 4 bits a pixel, each row from a byte's beginning. */
static unsigned packed_bits(const struct tile *t) { return t->colours <= 2 ? 1 : t->colours <= 4 ? 2 : 4; }

static void put_packed(struct encoder *e, const struct tile *t)
{
	unsigned width = packed_bits(t);

	put_byte(e, t->colours);
	put_palette(e, t);
	for (unsigned y = 0; y < t->height; y++) {
		unsigned byte = 0, used = 0;

		for (unsigned x = 0; x < t->width; x++) {
			byte = byte << width | colour_index(t, t->pixels[y * t->width + x]);
			used += width;
			if (used == 8) {
				put_byte(e, byte);
				byte = used = 0;
			}
		}
		if (used)
			put_byte(e, byte << (8 - used));
	}
}

static void put_runs(struct encoder *e, const struct tile *t, bool by_palette)
{
	put_byte(e, by_palette ? 128 + t->colours : 128);
	if (by_palette)
		put_palette(e, t);
	for (unsigned at = 0, run; at < t->count; at += run) {
		run = run_at(t, at);
		if (!by_palette) {
			put_pixel(e, t->pixels[at]);
			put_length(e, run);
		} else {
			put_byte(e, colour_index(t, t->pixels[at]) | (run > 1 ? 128 : 0));
			if (run > 1)
				put_length(e, run);
		}
	}
}

static void put_tile(struct encoder *e, struct tile *t)
{
	unsigned pixel = e->compact_size, raw, packed, by_palette, plain;

	examine(t);
	raw = t->count * pixel;
	packed = t->colours <= 16 ? t->colours * pixel + t->height * ((t->width * packed_bits(t) + 7) / 8) : UINT32_MAX;
	by_palette = t->colours <= MOST_COLOURS ? t->colours * pixel + t->runs + t->length_bytes : UINT32_MAX;
	plain = t->runs * pixel + t->single_runs + t->length_bytes;
	if (t->colours == 1) {
		put_byte(e, 1);
		put_palette(e, t);
	} else if (packed <= by_palette && packed <= plain && packed < raw) {
		put_packed(e, t);
	} else if (MIN(by_palette, plain) < raw) {
		put_runs(e, t, by_palette <= plain);
	} else {
		put_byte(e, 0);
		for (unsigned n = 0; n < t->count; n++)
			put_pixel(e, t->pixels[n]);
	}
}

static bool start_zlib(struct encoder *e)
{
	if (e->zlib)
		return true;
	e->zlib = calloc(1, sizeof(*e->zlib));
	if (e->zlib && deflateInit(e->zlib, LEVEL) == Z_OK)
		return true;
	free(e->zlib);
	e->zlib = NULL;
	return false;
}

/* Behind the size of what it becomes, all of what is in tiles. */
static bool compress_tiles(struct encoder *e, struct bytes *out)
{
	size_t at = out->size, room = deflateBound(e->zlib, e->tiles.size) + 64;
	uint8_t *to = bytes_extend(out, 4 + room);

	if (!to)
		return false;
	e->zlib->next_in = e->tiles.data;
	e->zlib->avail_in = (uInt)e->tiles.size;
	e->zlib->next_out = to + 4;
	e->zlib->avail_out = (uInt)room;
	if (deflate(e->zlib, Z_SYNC_FLUSH) != Z_OK || e->zlib->avail_in || !e->zlib->avail_out)
		return false;
	out->size = at + 4 + room - e->zlib->avail_out;
	store_be32(out->data + at, (uint32_t)(out->size - at - 4));
	return true;
}

bool encode_zrle(struct encoder *e, const struct picture *picture, struct rectangle r, struct bytes *out)
{
	struct tile t;
	size_t most = 0;

	if (!start_zlib(e))
		return false;
	/* Room for the worst case, so that nothing of it can fail. */
	for (uint32_t x = 0; x < r.width; x += TILE)
		most += (size_t)TILE * TILE * (e->compact_size + 1) + 1;
	e->tiles.size = 0;
	if (!bytes_extend(&e->tiles, most * ((r.height + TILE - 1) / TILE)))
		return false;
	e->tiles.size = 0;
	for (uint32_t y = 0; y < r.height; y += TILE)
		for (uint32_t x = 0; x < r.width; x += TILE) {
			t.width = MIN(TILE, r.width - x);
			t.height = MIN(TILE, r.height - y);
			t.count = t.width * t.height;
			for (uint32_t row = 0; row < t.height; row++)
				take_row(picture, r.x + x, r.y + y + row, t.width, t.pixels + (size_t)row * t.width);
			put_tile(e, &t);
		}
	return compress_tiles(e, out);
}
