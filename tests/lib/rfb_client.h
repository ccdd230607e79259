/*
 * The viewer's side of RFB for tests, between bytes: it says what it wants, and decodes what comes to a picture of its own.
 */
#ifndef TESTS_LIB_RFB_CLIENT_H
#define TESTS_LIB_RFB_CLIENT_H

#include "base/base.h"

#include <nettle/des.h>
#include <stdlib.h>
#include <zlib.h>

struct rfb_client {
	/* What came and has not been looked at; reads at its end fail. */
	const uint8_t *in;
	size_t left;
	bool failed;
	z_stream zlib;
	bool inflates;
	uint32_t width, height, *pixels;
	/* The pixels' format: bits and order; red's and so on are as the server's own, or of 16 bits 5, 6, 5, of 8 bits 3, 3, 2. */
	unsigned bits;
	bool big_endian;
	/* What else it was told. */
	unsigned updates, rectangles, sizes, leds, key_extensions, pointer_changes, size_reason, size_result, lamps;
	bool absolute;
};

static inline const uint8_t *rfb_take(struct rfb_client *c, size_t size)
{
	static const uint8_t nothing[65536];
	const uint8_t *data = c->in;

	if (size > c->left) {
		c->failed = true;
		return nothing;
	}
	c->in += size;
	c->left -= size;
	return data;
}

static inline unsigned rfb_take8(struct rfb_client *c) { return *rfb_take(c, 1); }
static inline unsigned rfb_take16(struct rfb_client *c) { return load_be16(rfb_take(c, 2)); }
static inline uint32_t rfb_take32(struct rfb_client *c) { return load_be32(rfb_take(c, 4)); }

static inline void rfb_set_size(struct rfb_client *c, uint32_t width, uint32_t height)
{
	c->width = width;
	c->height = height;
	free(c->pixels);
	c->pixels = calloc((size_t)width * height, sizeof(*c->pixels));
}

/* What the server should make of a pixel in the format, as 0x00RRGGBB again. */
static inline uint32_t rfb_expected(const struct rfb_client *c, uint32_t pixel)
{
	unsigned r = pixel >> 16 & 0xff, g = pixel >> 8 & 0xff, b = pixel & 0xff;

	if (c->bits == 32)
		return pixel & 0xffffff;
	if (c->bits == 16)
		return (r * 31 + 127) / 255 << 16 | (g * 63 + 127) / 255 << 8 | (b * 31 + 127) / 255;
	return (r * 7 + 127) / 255 << 16 | (g * 7 + 127) / 255 << 8 | (b * 3 + 127) / 255;
}

static inline uint32_t rfb_unpack(const struct rfb_client *c, const uint8_t *p, unsigned size)
{
	uint32_t v = 0;

	for (unsigned n = 0; n < size; n++)
		v |= (uint32_t)p[c->big_endian ? size - 1 - n : n] << (8 * n);
	if (c->bits == 32)
		return v & 0xffffff;
	if (c->bits == 16)
		return (v >> 11) << 16 | (v >> 5 & 63) << 8 | (v & 31);
	return (v >> 5) << 16 | (v >> 2 & 7) << 8 | (v & 3);
}

static inline void rfb_put(struct rfb_client *c, uint32_t x, uint32_t y, uint32_t pixel)
{
	if (x < c->width && y < c->height)
		c->pixels[(size_t)y * c->width + x] = pixel;
	else
		c->failed = true;
}

static inline void rfb_raw(struct rfb_client *c, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
	unsigned size = c->bits / 8;

	for (uint32_t n = 0; n < w * h && !c->failed; n++)
		rfb_put(c, x + n % w, y + n / w, rfb_unpack(c, rfb_take(c, size), size));
}

static inline void rfb_tile(struct rfb_client *c, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
	unsigned size = c->bits == 32 ? 3 : c->bits / 8, kind = rfb_take8(c), colours = kind & 127;
	uint32_t palette[128] = { 0 };

	for (unsigned n = 0; kind != 128 && n < colours; n++)
		palette[n] = rfb_unpack(c, rfb_take(c, size), size);
	if (kind > 16 && kind < 128)
		c->failed = true;
	for (uint32_t n = 0, run = 0; n < w * h && !c->failed; n += run) {
		uint32_t pixel = palette[0];
		unsigned byte = 0;

		run = 1;
		if (kind == 0) {
			pixel = rfb_unpack(c, rfb_take(c, size), size);
		} else if (kind >= 2 && kind <= 16) {
			unsigned bits = kind == 2 ? 1 : kind <= 4 ? 2 : 4, per_byte = 8 / bits, in_row = n % w;
			static unsigned packed;

			if (in_row % per_byte == 0)
				packed = rfb_take8(c);
			pixel = palette[packed >> (8 - bits - in_row % per_byte * bits) & ((1u << bits) - 1)];
		} else if (kind >= 128) {
			bool more = true;

			if (kind == 128) {
				pixel = rfb_unpack(c, rfb_take(c, size), size);
			} else {
				byte = rfb_take8(c);
				pixel = palette[byte & 127];
				more = byte & 128;
			}
			do
				run += byte = more ? rfb_take8(c) : 0;
			while (byte == 255 && !c->failed);
		}
		if (n + run > w * h)
			c->failed = true;
		for (uint32_t k = n; k < n + run && !c->failed; k++)
			rfb_put(c, x + k % w, y + k / w, pixel);
	}
}

static inline void rfb_zrle(struct rfb_client *c, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
	static uint8_t tiles[4 << 20];
	uint32_t size = rfb_take32(c);
	struct rfb_client plain;

	if (!c->inflates)
		c->failed |= inflateInit(&c->zlib) != Z_OK;
	c->inflates = true;
	c->zlib.next_in = (uint8_t *)rfb_take(c, size);
	c->zlib.avail_in = c->failed ? 0 : size;
	c->zlib.next_out = tiles;
	c->zlib.avail_out = sizeof(tiles);
	if (c->failed || (inflate(&c->zlib, Z_SYNC_FLUSH) != Z_OK) || c->zlib.avail_in) {
		c->failed = true;
		return;
	}
	plain = *c;
	plain.in = tiles;
	plain.left = sizeof(tiles) - c->zlib.avail_out;
	for (uint32_t ty = 0; ty < h; ty += 64)
		for (uint32_t tx = 0; tx < w; tx += 64)
			rfb_tile(&plain, x + tx, y + ty, MIN(64, w - tx), MIN(64, h - ty));
	c->failed |= plain.failed || plain.left;
}

static inline void rfb_rectangle(struct rfb_client *c)
{
	uint32_t x = rfb_take16(c), y = rfb_take16(c), w = rfb_take16(c), h = rfb_take16(c);
	int32_t encoding = (int32_t)rfb_take32(c);

	switch (encoding) {
	case 0: rfb_raw(c, x, y, w, h); break;
	case 16: rfb_zrle(c, x, y, w, h); break;
	case -308:
		rfb_take(c, 4);
		rfb_take(c, 16);
		c->size_reason = x;
		c->size_result = y;
		/* fall through */
	case -223:
		c->sizes++;
		if (w != c->width || h != c->height)
			rfb_set_size(c, w, h);
		return;
	case -257:
		c->pointer_changes++;
		c->absolute = x;
		return;
	case -258: c->key_extensions++; return;
	case -261:
		c->leds++;
		c->lamps = rfb_take8(c);
		return;
	default: c->failed = true; return;
	}
	c->rectangles++;
}

/* What the server sent behind its hello. */
static inline void rfb_decode(struct rfb_client *c, const uint8_t *data, size_t size)
{
	c->in = data;
	c->left = size;
	while (c->left && !c->failed) {
		unsigned type = rfb_take8(c);

		if (type == 1) {
			rfb_take(c, 3);
			rfb_take(c, 6 * rfb_take16(c));
			continue;
		}
		c->failed |= type != 0;
		rfb_take8(c);
		for (unsigned n = rfb_take16(c); n && !c->failed; n--)
			rfb_rectangle(c);
		c->updates++;
	}
}

static inline void rfb_answer(const char *password, const uint8_t challenge[16], uint8_t answer[16])
{
	uint8_t key[8] = { 0 };
	struct des_ctx des;

	for (unsigned n = 0; n < 8 && password[n]; n++)
		for (unsigned bit = 0; bit < 8; bit++)
			key[n] |= (uint8_t)((password[n] >> bit & 1) << (7 - bit));
	des_set_key(&des, key);
	des_encrypt(&des, 16, answer, challenge);
}

static inline void rfb_client_end(struct rfb_client *c)
{
	if (c->inflates)
		inflateEnd(&c->zlib);
	free(c->pixels);
}

#endif
