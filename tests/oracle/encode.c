/* encode: the bytes of an encoding with given registers, address and prefixes. */
#include "cases.h"

/* 16-bit addressing: ModRM.rm names a pair of registers. */
static size_t put_memory_16(const struct encoding_fields *f, uint8_t reg, uint8_t *p)
{
	uint8_t mod = f->base == BASE_NONE ? 0 : f->mod, rm = f->base == BASE_NONE ? 6 : f->base & 7;

	p[0] = (uint8_t)(mod << 6 | reg << 3 | rm);
	store_le16(p + 1, (uint16_t)f->disp);
	if (mod == 0)
		return rm == 6 ? 3 : 1;
	return mod == 1 ? 2 : 3;
}

static size_t put_memory(enum code_mode mode, const struct encoding_fields *f, uint8_t reg, uint8_t *p)
{
	uint8_t *start = p, mod = f->mod, rm = f->base & 7;
	bool sib = f->sib || f->index != BASE_NONE || rm == RSP;
	unsigned disp_len;

	if (f->base == BASE_RIP) {
		*p++ = (uint8_t)(reg << 3 | 5);
		store_le32(p, (uint32_t)f->disp);
		return 5;
	}
	if (f->base == BASE_NONE) {
		rm = 5;
		mod = 0;
		sib |= mode == MODE_64; /* without it, it would be RIP-relative */
		disp_len = 4;
	} else {
		if (mod == 0 && rm == RBP)
			mod = 1;
		disp_len = mod == 0 ? 0 : mod == 1 ? 1 : 4;
	}
	*p++ = (uint8_t)(mod << 6 | reg << 3 | (sib ? 4 : rm));
	if (sib)
		*p++ = (uint8_t)(f->scale << 6 | (f->index == BASE_NONE ? 4 : f->index & 7) << 3 | rm);
	if (disp_len == 4)
		store_le32(p, (uint32_t)f->disp);
	else if (disp_len)
		*p = (uint8_t)f->disp;
	return (size_t)(p - start) + disp_len;
}

static uint8_t *put_vex(const struct encoding *e, const struct encoding_fields *f, unsigned r, unsigned x, unsigned b,
			uint8_t *p)
{
	unsigned vvvv = (e->vvvv_used ? ~f->vvvv & 15u : 15u) << 3, tail = vvvv | (unsigned)e->l << 2 | e->vex_pp;

	if (f->short_vex && e->map == MAP_0F && !e->w && !x && !b) {
		*p++ = 0xc5;
		*p++ = (uint8_t)(!r << 7 | tail);
	} else {
		*p++ = 0xc4;
		*p++ = (uint8_t)(!r << 7 | !x << 6 | !b << 5 | e->map);
		*p++ = (uint8_t)(e->w << 7 | tail);
	}
	return p;
}

size_t encode(enum code_mode mode, const struct encoding *e, const struct encoding_fields *f,
	      uint8_t bytes[ENCODED_MAX])
{
	static const uint8_t escapes[MAP_COUNT][2] = {
		[MAP_0F] = { 0x0f }, [MAP_0F38] = { 0x0f, 0x38 }, [MAP_0F3A] = { 0x0f, 0x3a }
	};
	unsigned r = f->reg >> 3 & 1, x = 0, b;
	uint8_t *p = bytes;

	if (e->modrm && e->memory) {
		x = f->index != BASE_NONE && f->index >= 8;
		b = f->base < BASE_NONE && f->base >= 8;
	} else {
		b = f->rm >> 3 & 1;
	}
	for (unsigned n = 0; f->segment && n <= f->more; n++)
		*p++ = f->segment;
	if (f->address_size)
		*p++ = 0x67;
	for (unsigned n = 0; n < sizeof(e->prefixes) && e->prefixes[n]; n++)
		*p++ = e->prefixes[n];
	if (e->vex) {
		p = put_vex(e, f, r, x, b, p);
	} else {
		if (e->w || r || x || b || f->rex_always)
			*p++ = (uint8_t)(0x40 | e->w << 3 | r << 2 | x << 1 | b);
		for (unsigned n = 0; n < 2 && escapes[e->map][n]; n++)
			*p++ = escapes[e->map][n];
	}
	*p++ = e->opcode;
	if (!e->modrm)
		return (size_t)(p - bytes);
	if (e->memory && mode == (f->address_size ? MODE_32 : MODE_16))
		return (size_t)(p - bytes) + put_memory_16(f, f->reg & 7, p);
	if (e->memory)
		return (size_t)(p - bytes) + put_memory(mode, f, f->reg & 7, p);
	*p++ = (uint8_t)(0xc0 | (f->reg & 7) << 3 | (f->rm & 7));
	return (size_t)(p - bytes);
}
