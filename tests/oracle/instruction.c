/*
 * instruction: an encoding filled in: registers, immediate, prefixes; and its memory operand brought to where it is wanted, by the
 * registers that address it, or by displacement.
 */
#include "cases.h"

/* ---- addresses ---- */

/* Below the mapped pages, above them, or nowhere in user mode. */
static uint64_t wild_address(struct rng *r)
{
	switch (rng_below(r, 4)) {
	case 0: return DATA_AREA + rng_below(r, PAGE_SIZE);
	case 1: return READ_ONLY + PAGE_SIZE + rng_below(r, PAGE_SIZE);
	case 2: return 0xffff800000000000 | rng_next(r) >> 20;
	default: return BIT(47) + (rng_next(r) >> 18); /* not canonical */
	}
}

uint64_t data_address(struct rng *r, unsigned align)
{
	uint64_t near = rng_below(r, 70), at;

	switch (rng_below(r, 32)) {
	case 0:
	case 1: at = DATA + PAGE_SIZE - near; break;
	case 2:
	case 3: at = READ_ONLY - near; break;
	case 4: at = READ_ONLY + rng_below(r, PAGE_SIZE); break;
	case 5: at = READ_ONLY + PAGE_SIZE - near; break;
	case 6: at = DATA - near; break;
	case 7: at = wild_address(r); break;
	default: at = DATA + 512 + rng_below(r, 2 * PAGE_SIZE - 2048); break;
	}
	if (align > 1 ? !rng_one_in(r, 12) : rng_one_in(r, 2))
		at &= ~(uint64_t)(align > 1 ? align - 1 : 15);
	return at;
}

uint64_t stack_address(struct rng *r)
{
	switch (rng_below(r, 16)) {
	case 0: return STACK + rng_below(r, 40);
	case 1: return STACK + STACK_SIZE - rng_below(r, 40);
	case 2: return rng_one_in(r, 2) ? wild_address(r) : STACK_AREA + rng_below(r, 3 * PAGE_SIZE);
	case 3: return STACK + 1024 + rng_below(r, 2048);
	default: return STACK + 1024 + 8 * rng_below(r, 256);
	}
}

#define NEAR 0x10000 /* bit offsets, elements of strings and vectors */

uint64_t segment_offset(enum code_mode mode, struct user_state *s, enum seg seg, uint64_t at)
{
	uint64_t offset = at - (seg == FS ? s->fs_base : seg == GS ? s->gs_base : 0);

	if (mode != MODE_64)
		return (uint32_t)(at - linear_of(s, seg, 0));
	if (is_canonical(offset - NEAR) && is_canonical(offset + NEAR))
		return offset;
	s->fs_base = s->gs_base = 0;
	return at;
}

/* Around the first offset that is beyond the limit, or the last one of an expand-down segment that is. */
static uint32_t limit_offset(struct rng *r, const struct segment *s) { return s->limit + 16 - rng_below(r, 50); }

uint64_t segment_address(struct cases *c, const struct user_state *s, enum seg seg, unsigned align)
{
	struct segment d = segment_of(s->sel[seg]);
	uint64_t at = data_address(&c->rng, align);

	if (c->mode == MODE_64)
		return at;
	if (rng_one_in(&c->rng, 12))
		return linear_of(s, seg, limit_offset(&c->rng, &d));
	if (!(s->sel[seg] & 4) || segment_holds(&d, DATA))
		return at;
	return segment_holds(&d, STACK) ? STACK + (at & (PAGE_SIZE - 1)) : CODE + (at & (CODE_SIZE - 1));
}

uint64_t stack_offset(struct cases *c, const struct user_state *s)
{
	struct segment d = segment_of(s->sel[SS]);
	uint64_t at = stack_address(&c->rng), high = rng_next(&c->rng) << 16;

	if (c->mode == MODE_64)
		return at;
	at = rng_one_in(&c->rng, 10) ? limit_offset(&c->rng, &d) : at - d.base;
	return (uint32_t)(d.attr & ATTR_DB ? at : (at & 0xffff) | high);
}

uint64_t stack_top(const struct user_state *s)
{
	bool small = !(segment_of(s->sel[SS]).attr & ATTR_DB);

	return linear_of(s, SS, small ? s->gpr[RSP] & 0xffff : s->gpr[RSP]);
}

/* ---- the instruction ---- */

static void choose_memory(struct cases *c, const struct insn_form *form, struct encoding_fields *f)
{
	struct rng *r = &c->rng;
	unsigned how = rng_below(r, 12);

	f->mod = (uint8_t)rng_below(r, 3);
	if (c->no_address_registers) {
		f->base = (uint8_t)(c->mode == MODE_64 && rng_one_in(r, 2) ? BASE_RIP : BASE_NONE);
		f->index = BASE_NONE;
		return;
	}
	f->base = (uint8_t)(how == 0 ? BASE_NONE : how == 1 && c->mode == MODE_64 ? BASE_RIP : rng_below(r, 16));
	f->index = (uint8_t)(rng_one_in(r, 2) ? BASE_NONE : rng_below(r, 16));
	f->scale = (uint8_t)rng_below(r, 4);
	f->sib = rng_one_in(r, 8);
	if (form->op == OP_GATHER) {
		f->index = (uint8_t)rng_below(r, 16);
		f->base = (uint8_t)rng_below(r, 16);
	} else if (f->index == RSP) {
		f->index = BASE_NONE;
	}
	if (f->base == RSP && (form->op == OP_CALL_FAR || form->op == OP_JMP_FAR))
		f->base = RBX; /* the stack is where operands.c says */
	f->disp = f->mod == 1 ? (int8_t)rng_next(r) : (int32_t)edge_value(r);
	f->address_size = rng_one_in(r, c->mode == MODE_64 ? 12 : 3) || (c->mode == MODE_16 && form->op == OP_GATHER);
}

static void choose_fields(struct cases *c, const struct insn_form *form, const struct encoding *e,
			  struct encoding_fields *f)
{
	static const uint8_t segments[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 };
	struct rng *r = &c->rng;

	*f = (struct encoding_fields){ .base = BASE_NONE, .index = BASE_NONE };
	f->reg = (uint8_t)(e->reg + (rng_one_in(r, 3) ? 8 : 0));
	f->rm = (uint8_t)((e->rm_fixed ? e->rm : rng_below(r, 8)) + (rng_one_in(r, e->rm_fixed ? 16 : 3) ? 8 : 0));
	f->vvvv = (uint8_t)rng_below(r, 16);
	f->rex_always = rng_one_in(r, 4);
	f->short_vex = rng_one_in(r, 2);
	if (!e->modrm)
		f->reg = e->reg;
	if (e->memory)
		choose_memory(c, form, f);
	else
		f->address_size = rng_one_in(r, c->mode == MODE_64 ? 24 : 4);
	if (rng_one_in(r, 8) && !(e->memory && c->no_address_registers))
		f->segment = segments[rng_below(r, c->traits.bases ? 6 : 4)];
	if (f->segment && !form->undefined && rng_one_in(r, 8))
		f->more = (uint8_t)rng_below(r, 13);
	if (c->mode == MODE_64)
		return;
	f->reg &= 7;
	f->rm &= 7;
	f->vvvv &= 7;
	f->rex_always = false;
	if (f->base != BASE_NONE)
		f->base &= 7;
	if (f->index != BASE_NONE)
		f->index = f->index == 8 + RSP ? BASE_NONE : f->index & 7;
}

/*
 * Undefined for the disassembler and for doppel, and not always for hosts: VMCALL, INVLPGB and others of their group with
 * prefixes; LOCK MOV CR0, which is CR8 for AMD's processors; LOCK POP, VERR and VERW, where they look at memory first;
 * VPERMQ and VPERMPD without VEX.W, which AMD's processors do not look at.
 */
static bool host_may_have(const struct encoding *e)
{
	bool lock = memchr(e->prefixes, 0xf0, sizeof(e->prefixes));

	if (e->vex)
		return e->map == MAP_0F3A && e->opcode <= 1;
	if (e->map == MAP_ONE_BYTE)
		return lock && e->opcode == 0x8f;
	if (e->map != MAP_0F)
		return false;
	return (e->opcode == 0x01 && !e->memory) || (lock && (e->opcode == 0x00 || (e->opcode & 0xfd) == 0x20));
}

bool make_instruction(struct cases *c, const struct insn_form *form, const struct encoding *e,
		      struct encoding_fields *f, struct test_case *t)
{
	uint8_t bytes[ENCODED_MAX + 8] = { 0 };
	size_t len;

	choose_fields(c, form, e, f);
	len = encode(c->mode, e, f, bytes);
	c->body = (unsigned)len; /* what follows is immediate */
	store_le64(bytes + len, edge_value(&c->rng));
	if (rng_one_in(&c->rng, 2))
		bytes[len] = (uint8_t)rng_next(&c->rng);
	if (form->undefined) /* whatever the host makes of it, it is to stop there */
		memset(bytes + len, FILLER, sizeof(bytes) - len);
	t->len = cpu_decode(c->model, c->mode, bytes, 15, 0, &t->insn, &t->host);
	memcpy(t->bytes, bytes, 15);
	if (form->undefined) {
		t->len = 15;
		return t->insn.op == OP_INVALID && (strcmp(form->name, "(bad)") || !host_may_have(e));
	}
	/* Too long by its prefixes: still a case of this form. */
	return t->insn.op != OP_INVALID && (t->insn.op != OP_TOO_LONG || f->more);
}

/* Same memory operand with other displacement: for RIP-relative ones, and where nothing but the displacement can be chosen. */
static void encode_again(const struct cases *c, const struct encoding *e, const struct encoding_fields *f,
			 struct test_case *t)
{
	uint8_t bytes[ENCODED_MAX];
	size_t len = encode(c->mode, e, f, bytes);

	memcpy(t->bytes, bytes, MIN(len, 15));
	cpu_decode(c->model, c->mode, t->bytes, 15, 0, &t->insn, &t->host);
}

static uint16_t effective_16(const struct test_case *t)
{
	const struct insn *i = &t->insn;
	uint64_t base = i->base == 8 * REG_NONE ? 0 : t->before.gpr[i->base / 8];
	uint64_t index = i->index == 8 * REG_NONE ? 0 : t->before.gpr[i->index / 8];

	return (uint16_t)(base + index + (uint64_t)(int64_t)i->disp);
}

/*
 * 16-bit addresses cannot reach the data area: only a segment base can. They are kept from wrapping inside an operand, where
 * it is the processor's business how many accesses that makes.
 */
static void place_by_segment(struct cases *c, const struct encoding *e, struct encoding_fields *f, struct test_case *t,
			     uint64_t *segment)
{
	struct user_state *s = &t->before;

	if (effective_16(t) >= 0xf000) {
		if (t->insn.base != 8 * REG_NONE)
			s->gpr[t->insn.base / 8] -= 0x1000;
		f->disp &= t->insn.base == 8 * REG_NONE ? 0xfff : UINT32_MAX;
		encode_again(c, e, f, t);
	}
	*segment = (uint32_t)(c->target - effective_16(t));
}

static void place_16(struct cases *c, const struct encoding *e, struct encoding_fields *f, struct test_case *t)
{
	struct user_state *s = &t->before;
	unsigned seg = t->insn.seg;
	uint64_t *base = seg == FS ? &s->fs_base : seg == GS ? &s->gs_base : NULL, *reg;
	uint16_t more = (uint16_t)(segment_offset(c->mode, s, seg, c->target) - effective_16(t));

	if (base && !(s->sel[seg] & 4) && c->traits.bases) {
		place_by_segment(c, e, f, t, base);
	} else if (t->insn.base != 8 * REG_NONE) {
		reg = &s->gpr[t->insn.base / 8];
		*reg = (*reg & ~0xffffull) | ((*reg + more) & 0xffff);
	} else {
		f->disp += more;
		encode_again(c, e, f, t);
	}
}

/* One register is base and index: as near as it comes. */
static uint64_t place_twice(struct cases *c, uint64_t sum, unsigned factor)
{
	c->target -= sum % factor;
	return sum / factor;
}

void place_operand(struct cases *c, const struct encoding *e, struct encoding_fields *f, struct test_case *t)
{
	struct user_state *s = &t->before;
	uint64_t offset = segment_offset(c->mode, s, t->insn.seg, c->target), index = 0, base;

	if (t->insn.addrsize == 2) {
		place_16(c, e, f, t);
		return;
	}
	if (f->base == BASE_RIP) {
		f->disp = (int32_t)(offset - (s->rip + t->len));
		encode_again(c, e, f, t);
		return;
	}
	if (f->index != BASE_NONE && t->insn.op != OP_GATHER) {
		if (f->base == BASE_NONE)
			s->gpr[f->index] = (uint64_t)sign_extend(rng_next(&c->rng), 12);
		index = s->gpr[f->index] << f->scale;
	}
	if (f->base == BASE_NONE) {
		f->disp = (int32_t)(offset - index);
		encode_again(c, e, f, t);
		return;
	}
	base = offset - index - (uint64_t)(int64_t)t->insn.disp;
	if (f->base == f->index && t->insn.op != OP_GATHER)
		base = place_twice(c, offset - (uint64_t)(int64_t)t->insn.disp, 1 + (1u << f->scale));
	if (f->address_size)
		base = (uint32_t)base | rng_next(&c->rng) << 32;
	s->gpr[f->base] = base;
}
