/*
 * Encodings: taking the guest's instruction apart into fields, and putting fields together as bytes the host executes.
 * What is legal but means nothing (segment prefixes, REP on what does not repeat, REX before other prefixes) does not survive.
 */
#include "engine/bt/emit.h"

/* ---- which fields are general registers ---- */

/* Opcodes of which ModRM.reg is part of the opcode, or nothing. */
static bool is_group(const struct encoding *c)
{
	uint8_t op = c->opcode[c->opcode_len - 1];

	if (c->opcode_len == 1)
		return (op >= 0x80 && op <= 0x83) || op == 0x8f || (op & 0xfe) == 0xc0 || (op & 0xfe) == 0xc6 ||
		       (op & 0xfc) == 0xd0 || (op & 0xf6) == 0xf6;
	if (c->opcode_len == 2)
		return (op & 0xf0) == 0x90 || op == 0xba || op == 0xc7 || op == 0xae || op == 0x0d ||
		       (op & 0xf8) == 0x18;
	return false;
}

/* BMI: the only VEX-encoded instructions on general registers. */
static unsigned vex_fields(const struct encoding *c)
{
	if (c->map == 3)
		return FIELD_REG | FIELD_RM; /* RORX */
	return c->opcode[0] == 0xf3 ? FIELD_VVVV | FIELD_RM : FIELD_REG | FIELD_VVVV | FIELD_RM;
}

static unsigned register_fields(const struct encoding *c, const struct insn *i, const struct insn_host *h)
{
	unsigned fields;

	if (i->flags & INSN_HOST)
		fields = h->gpr_place == 1 ? FIELD_REG : h->gpr_place == 2 ? FIELD_RM : 0;
	else if (i->op == OP_VZERO || i->op == OP_LFENCE || i->op == OP_MFENCE || i->op == OP_SFENCE)
		return 0;
	else if (c->vex)
		fields = vex_fields(c);
	else if (c->modrm)
		fields = is_group(c) ? FIELD_RM : FIELD_REG | FIELD_RM;
	else
		return c->fields; /* those of the opcode */
	return c->memory ? fields & ~FIELD_RM : fields;
}

/* ---- taking apart ---- */

/* Opcodes that name a register in their low three bits: XCHG, MOV of an immediate, BSWAP. PUSH and POP are not copied. */
static bool opcode_has_register(const struct encoding *c)
{
	uint8_t op = c->opcode[c->opcode_len - 1];

	if (c->opcode_len == 1)
		return (op & 0xf8) == 0x90 || (op & 0xf0) == 0xb0;
	return c->opcode_len == 2 && (op & 0xf8) == 0xc8;
}

/* Instructions of which F2 or F3 is part of the opcode; elsewhere they mean nothing, or (XACQUIRE) nothing that is missed. */
static bool keeps_repeat(const struct insn *i)
{
	switch (i->op) {
	case OP_POPCNT:
	case OP_TZCNT:
	case OP_LZCNT:
	case OP_CRC32:
	case OP_ADOX: return true;
	default: return i->flags & INSN_HOST;
	}
}

static unsigned take_prefixes(struct encoding *c, const struct insn *i, const struct insn_host *h, bool code32,
			      uint8_t *rex)
{
	unsigned at = 0;

	for (*rex = 0;; at++) {
		uint8_t b = i->bytes[at];

		switch (b) {
		case 0x66: c->prefixes |= PREFIX_66; break;
		/* The last of the two counts. */
		case 0xf2: c->prefixes = (c->prefixes & ~PREFIX_F3) | PREFIX_F2; break;
		case 0xf3: c->prefixes = (c->prefixes & ~PREFIX_F2) | PREFIX_F3; break;
		case 0xf0: c->prefixes |= PREFIX_LOCK; break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x64:
		case 0x65:
		case 0x67: break;
		default:
			if (!code32 && (b & 0xf0) == 0x40 && at + 1u < i->len) {
				*rex = b;
				continue;
			}
			goto out;
		}
		*rex = 0; /* only the last byte before the opcode is one */
	}
out:
	if (!keeps_repeat(i))
		c->prefixes &= ~(PREFIX_F2 | PREFIX_F3);
	if (h->x87)
		c->prefixes = 0;
	return at;
}

static unsigned take_vex(struct encoding *c, const uint8_t *from, uint8_t *rex)
{
	bool two = from[0] == 0xc5;
	uint8_t last = from[two ? 1 : 2];

	c->vex = true;
	c->map = two ? 1 : from[1] & 0x1f;
	c->pp = last & 3;
	c->l = last & 4;
	c->w = !two && last & 0x80;
	c->vvvv = (uint8_t)(~last >> 3 & 15);
	*rex = (uint8_t)(two ? ~from[1] >> 5 & 4 : ~from[1] >> 5 & 7);
	c->opcode[0] = from[two ? 2 : 3];
	c->opcode_len = 1;
	return two ? 3 : 4;
}

static unsigned take_opcode(struct encoding *c, const uint8_t *from)
{
	c->opcode_len = from[0] != 0x0f ? 1 : (from[1] == 0x38 || from[1] == 0x3a) ? 3 : 2;
	memcpy(c->opcode, from, c->opcode_len);
	return c->opcode_len;
}

/*
 * Where VEX.W means nothing in 32-bit code, but the size of general registers in 64-bit code: everything on general registers
 * alone, the moves and conversions of map 1, and of map 3 insertions, extractions and PCMPESTR.
 */
static bool ignores_w(const struct encoding *c, const struct insn *i)
{
	uint8_t op = c->opcode[0];

	if (!c->vex || !c->w)
		return false;
	return !(i->flags & INSN_HOST) || c->map == 1 ||
	       (c->map == 3 && ((op >= 0x14 && op <= 0x22) || (op & 0xfe) == 0x60));
}

/* A fourth register in the immediate: VBLENDVPS, VBLENDVPD, VPBLENDVB. */
static bool has_register_immediate(const struct encoding *c)
{
	return c->vex && c->map == 3 && c->opcode[0] >= 0x4a && c->opcode[0] <= 0x4c;
}

/* What 64-bit mode spells otherwise: INC and DEC of a register, and the copy of opcode 80. */
static void respell(struct encoding *c)
{
	uint8_t op = c->opcode[0];

	if (c->vex || c->opcode_len != 1)
		return;
	if (op == 0x82)
		c->opcode[0] = 0x80;
	if ((op & 0xf0) != 0x40)
		return;
	c->opcode[0] = 0xff;
	c->modrm = true;
	c->reg = op >> 3 & 1;
	c->rm = op & 7;
	c->fields = FIELD_RM;
}

/*
 * The operand-size prefix means the other size in 16-bit code. Where it is part of the opcode it stays; LFENCE and its like have no
 * operand, and with it they are something else.
 */
static void resize(struct encoding *c, const struct insn *i)
{
	bool small = i->op == OP_CRC32 ? i->srcsize == 2 : i->opsize == 2;

	if ((i->flags & INSN_HOST) || i->op == OP_ADCX || (i->op >= OP_LFENCE && i->op <= OP_SFENCE))
		return;
	c->prefixes = (uint8_t)((c->prefixes & ~PREFIX_66) | (small ? PREFIX_66 : 0));
}

/* Bytes of SIB and displacement behind a ModRM byte that names memory. */
static unsigned address_length(const uint8_t *modrm, unsigned addrsize)
{
	unsigned mod = modrm[0] >> 6, rm = modrm[0] & 7, sib = 0;

	if (addrsize == 2)
		return mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;

	if (rm == 4) {
		sib = 1;
		rm = modrm[1] & 7;
	}
	return sib + (mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0);
}

bool encoding_take(struct encoding *c, const struct insn *i, const struct insn_host *h, bool code32)
{
	uint8_t rex;
	unsigned at;

	*c = (struct encoding){ 0 };
	at = take_prefixes(c, i, h, code32, &rex);
	if (h->vex) {
		at += take_vex(c, i->bytes + at, &rex);
		if (code32 && (rex || c->vvvv > 7))
			return false;
		if (code32 && ignores_w(c, i))
			c->w = false;
	} else {
		at += take_opcode(c, i->bytes + at);
		c->has_rex = rex;
		c->w = rex & 8;
	}
	c->modrm = h->modrm_offset;
	if (c->modrm) {
		uint8_t modrm = i->bytes[at];

		if (h->modrm_offset != at)
			return false;
		c->memory = modrm < 0xc0;
		c->reg = (uint8_t)((modrm >> 3 & 7) | (rex & 4) << 1);
		c->rm = (uint8_t)((modrm & 7) | (rex & 1) << 3);
		at += 1 + (c->memory ? address_length(i->bytes + at, i->addrsize) : 0);
	} else if (opcode_has_register(c)) {
		c->rm = (uint8_t)((c->opcode[c->opcode_len - 1] & 7) | (rex & 1) << 3);
		c->fields = FIELD_RM;
	}
	if (at > i->len || i->len - at > (int)sizeof(c->imm))
		return false;
	c->imm_len = (uint8_t)(i->len - at);
	memcpy(c->imm, i->bytes + at, c->imm_len);
	if (code32) {
		resize(c, i);
		respell(c);
		if (has_register_immediate(c))
			c->imm[0] &= 0x7f; /* means nothing there, either */
	}
	c->fields = (uint8_t)register_fields(c, i, h);
	return c->memory == !!(i->flags & INSN_MEM);
}

/* ---- putting together ---- */

/* ModRM, SIB and displacement, and the register bits that go elsewhere. */
struct tail {
	uint8_t bytes[6], len;
	uint8_t x, b;
};

static void tail_add(struct tail *t, uint8_t byte) { t->bytes[t->len++] = byte; }

static void tail_disp(struct tail *t, int32_t disp, unsigned size)
{
	if (size == 1)
		tail_add(t, (uint8_t)disp);
	if (size == 4) {
		store_le32(t->bytes + t->len, (uint32_t)disp);
		t->len += 4;
	}
}

static struct tail memory_tail(unsigned reg, const struct host_memory_operand *m)
{
	unsigned base = m->base, index = m->index, field = (reg & 7) << 3, size, mod;
	struct tail t = { .len = 0 };

	if (base == HOST_NONE) {
		/* No base, disp32, and an index or none. Without SIB it would be RIP-relative. */
		t.x = index == HOST_NONE ? 0 : index >> 3;
		tail_add(&t, (uint8_t)(field | 4));
		tail_add(&t, (uint8_t)(m->scale << 6 | (index == HOST_NONE ? 4 : index & 7) << 3 | 5));
		tail_disp(&t, m->disp, 4);
		return t;
	}
	/* RSP cannot be an index. */
	if (index == RSP) {
		index = base;
		base = RSP;
	}
	/* RBP and R13 as a base need a displacement. */
	if ((base & 7) == RBP && !m->disp && index != HOST_NONE && !m->scale && (index & 7) != RBP) {
		unsigned swap = base;

		base = index;
		index = swap;
	}
	size = !m->disp && (base & 7) != RBP ? 0 : m->disp == (int8_t)m->disp ? 1 : 4;
	mod = size == 0 ? 0 : size == 1 ? 0x40 : 0x80;
	t.b = base >> 3 & 1;
	if (index == HOST_NONE && (base & 7) != RSP) {
		tail_add(&t, (uint8_t)(mod | field | (base & 7)));
	} else {
		t.x = index == HOST_NONE ? 0 : index >> 3;
		tail_add(&t, (uint8_t)(mod | field | 4));
		tail_add(&t, (uint8_t)(m->scale << 6 | (index == HOST_NONE ? 4 : index & 7) << 3 | (base & 7)));
	}
	tail_disp(&t, m->disp, size);
	return t;
}

static uint8_t *put_vex(uint8_t *p, const struct encoding *c, const struct tail *t)
{
	uint8_t last = (uint8_t)((~c->vvvv & 15) << 3 | c->l << 2 | c->pp), r = c->reg >> 3 ? 0 : 0x80;

	if (!t->x && !t->b && !c->w && c->map == 1) {
		*p++ = 0xc5;
		*p++ = r | last;
	} else {
		*p++ = 0xc4;
		*p++ = (uint8_t)(r | (t->x ? 0 : 0x40) | (t->b ? 0 : 0x20) | c->map);
		*p++ = (uint8_t)(c->w << 7 | last);
	}
	*p++ = c->opcode[0];
	return p;
}

static uint8_t *put_legacy(uint8_t *p, const struct encoding *c, const struct tail *t)
{
	uint8_t rex = (uint8_t)(c->w << 3 | (c->modrm ? c->reg >> 3 : 0) << 2 | t->x << 1 | t->b);

	if (c->prefixes & PREFIX_LOCK)
		*p++ = 0xf0;
	if (c->prefixes & PREFIX_66)
		*p++ = 0x66;
	if (c->prefixes & (PREFIX_F2 | PREFIX_F3))
		*p++ = c->prefixes & PREFIX_F2 ? 0xf2 : 0xf3;
	if (rex || c->has_rex)
		*p++ = 0x40 | rex;
	memcpy(p, c->opcode, c->opcode_len);
	return p + c->opcode_len;
}

unsigned encoding_write(const struct encoding *c, const struct host_memory_operand *m, uint8_t bytes[ENCODING_MAX])
{
	struct tail t = { .b = c->rm >> 3 };
	uint8_t *p = bytes;

	if (m)
		t = memory_tail(c->reg, m);
	else if (c->modrm)
		tail_add(&t, (uint8_t)(0xc0 | (c->reg & 7) << 3 | (c->rm & 7)));
	if (m && (m->state || m->guest))
		*p++ = 0x65;
	if (m && m->guest)
		*p++ = 0x67;
	p = c->vex ? put_vex(p, c, &t) : put_legacy(p, c, &t);
	if (!c->modrm && c->fields & FIELD_RM)
		p[-1] = (uint8_t)((p[-1] & ~7) | (c->rm & 7));
	memcpy(p, t.bytes, t.len);
	p += t.len;
	memcpy(p, c->imm, c->imm_len);
	return (unsigned)(p + c->imm_len - bytes);
}
