/*
 * Decoding from memory: the decoding library takes some 200 ns for an instruction, and most instructions differ from one that was
 * decoded before by their displacement and immediate alone. A template is a decoded instruction filed under the bytes that
 * determine its form: prefixes, opcode, ModRM and SIB (the key). What follows them is data, copied into the template's fields.
 *
 * What this file knows of encodings is only how far the key reaches; that a key and its two data fields make up the whole
 * instruction is checked against what the library says before a template is kept. Whatever does not fit (more prefixes than
 * a key has room for, two immediates, an immediate that names a register, undefined encodings) is decoded plainly each time.
 */
#include "cpu/private.h"

#include <stdlib.h>

#define TEMPLATE_BITS 13
#define KEY_MAX	      8

struct template
{
	uint64_t key;
	uint8_t mode; /* enum code_mode */
	struct decode_layout layout;
	struct insn insn; /* at offset 0; len is 0 where nothing is kept */
	struct insn_host host;
};

struct decode_cache {
	const struct cpu_model *model;
	uint64_t missed;
	struct template templates[1u << TEMPLATE_BITS];
};

struct decode_cache *decode_cache_create(const struct cpu_model *model)
{
	struct decode_cache *c = calloc(1, sizeof(*c));

	if (c)
		c->model = model;
	return c;
}

void decode_cache_destroy(struct decode_cache *c) { free(c); }

uint64_t decode_cache_missed(const struct decode_cache *c) { return c->missed; }

/* ---- how far the key reaches ---- */

/* Bit n of element k: opcode 32 * k + n is followed by ModRM (SDM vol. 2 appendix A). */
static const uint32_t one_byte_modrm[8] = {
	0x0f0f0f0f, 0x0f0f0f0f, 0, 0x00000a0c, 0x0000ffff, 0, 0xff0f00f3, 0xc0c00000,
};
/* The same behind 0F. */
static const uint32_t two_byte_modrm[8] = {
	0xffffa00f, 0xff00ffff, 0xffffffff, 0xff7fffff, 0xffff0000, 0xfffff8f8, 0xffff00ff, 0xffffffff,
};

static bool has_bit(const uint32_t set[8], uint8_t n) { return set[n >> 5] >> (n & 31) & 1; }

static bool is_prefix(enum code_mode mode, uint8_t b)
{
	return cpu_is_legacy_prefix(b) || (mode == MODE_64 && (b & 0xf0) == 0x40);
}

/* Length of ModRM and of SIB behind it. 16-bit addresses have none: some of those get no template. */
static unsigned modrm_length(uint8_t modrm) { return modrm < 0xc0 && (modrm & 7) == 4 ? 2 : 1; }

/*
 * Length of the key, which depends on nothing but the bytes of the key: so no key is the beginning of another. More than KEY_MAX:
 * no template.
 */
static unsigned key_length(enum code_mode mode, const uint8_t bytes[16])
{
	unsigned at = 0;
	bool modrm = true;

	while (at < KEY_MAX && is_prefix(mode, bytes[at]))
		at++;
	if (at >= KEY_MAX - 2)
		return KEY_MAX + 1;
	switch (bytes[at]) {
	case 0x0f:
		at++;
		if (bytes[at] == 0x38 || bytes[at] == 0x3a)
			at++;
		else
			modrm = has_bit(two_byte_modrm, bytes[at]);
		break;
	case 0xc4:
	case 0xc5:
		if (mode != MODE_64) /* VEX, or LES and LDS */
			return KEY_MAX + 1;
		at += bytes[at] == 0xc4 ? 3 : 2;
		modrm = bytes[at] != 0x77; /* VZEROUPPER, VZEROALL */
		break;
	case 0x62:
		if (mode == MODE_64)
			return KEY_MAX + 1;
		break;
	default: modrm = has_bit(one_byte_modrm, bytes[at]); break;
	}
	at++;
	return modrm ? at + modrm_length(bytes[at]) : at;
}

static uint64_t key_of(const uint8_t *bytes, unsigned length)
{
	return load_le64(bytes) & (~0ull >> (64 - 8 * length));
}

static struct template *template_slot(struct decode_cache *c, enum code_mode mode, uint64_t key)
{
	return &c->templates[((key + mode) * 0x9e3779b97f4a7c15ull) >> (64 - TEMPLATE_BITS)];
}

/* ---- from template to instruction ---- */

static uint64_t data_field(const uint8_t *bytes, unsigned len, bool is_signed)
{
	switch (len) {
	case 1: return is_signed ? (uint64_t)(int8_t)bytes[0] : bytes[0];
	case 2: return is_signed ? (uint64_t)(int16_t)load_le16(bytes) : load_le16(bytes);
	case 4: return is_signed ? (uint64_t)(int32_t)load_le32(bytes) : load_le32(bytes);
	default: return load_le64(bytes);
	}
}

static void fill_in(const struct template *t, const uint8_t bytes[16], unsigned block_offset, struct insn *i,
		    struct insn_host *host)
{
	const struct decode_layout *l = &t->layout;

	*i = t->insn;
	memcpy(i->bytes, bytes, i->len);
	i->offset = (uint16_t)block_offset;
	if (l->disp_len)
		i->disp = (int32_t)data_field(bytes + l->disp_offset, l->disp_len, true);
	if (i->flags & INSN_RIPREL)
		decode_ip_relative(i, i->disp);
	if (l->imm_stored)
		i->imm = data_field(bytes + l->imm_offset, l->imm_len, l->imm_signed);
	if (host && l->host_filled)
		*host = t->host;
}

static bool fits_template(const struct decode_layout *l, unsigned key_length, unsigned len)
{
	return l->regular && key_length + l->disp_len + l->imm_len == len &&
	       (!l->disp_len || l->disp_offset == key_length) && (!l->imm_len || l->imm_offset == len - l->imm_len);
}

unsigned cpu_decode_cached(struct decode_cache *c, enum code_mode mode, const uint8_t *from, size_t avail,
			   unsigned block_offset, struct insn *i, struct insn_host *host)
{
	uint8_t bytes[16] = { 0 }; /* fetched once: another vCPU may be writing there */
	struct template *t = NULL;
	struct insn_host described;
	struct decode_layout layout;
	unsigned length, len;
	uint64_t key = 0;

	if (likely(avail >= sizeof(bytes)))
		memcpy(bytes, from, sizeof(bytes));
	else
		memcpy(bytes, from, avail);
	length = key_length(mode, bytes);
	if (length <= MIN(avail, KEY_MAX)) {
		key = key_of(bytes, length);
		t = template_slot(c, mode, key);
		if (likely(t->key == key && t->insn.len && t->mode == mode)) {
			if (t->insn.len > avail)
				return 0;
			fill_in(t, bytes, block_offset, i, host);
			return i->len;
		}
	}
	c->missed++;
	len = decode_with_layout(c->model, mode, bytes, MIN(avail, 15), block_offset, i, &described, &layout);
	if (host && layout.host_filled)
		*host = described;
	if (!t || !len || !fits_template(&layout, length, len))
		return len;
	*t = (struct template){ .key = key, .mode = (uint8_t)mode, .layout = layout, .insn = *i };
	if (layout.host_filled)
		t->host = described;
	return len;
}
