/*
 * cases: what an instruction is tried on. Each case is a function of seed, form and number: an encoding of the form with
 * registers, address and immediate filled in, a state and memory of edge values and random ones, with what the instruction
 * asks for in its place (operands.c).
 */
#include "cases.h"

#include <stdlib.h>

/* ---- values ---- */

uint64_t edge_value(struct rng *r)
{
	static const uint64_t limits[] = { 0x7f,
					   0x80,
					   0xff,
					   0x7fff,
					   0x8000,
					   0xffff,
					   INT32_MAX,
					   0x80000000,
					   UINT32_MAX,
					   INT64_MAX,
					   BIT(63),
					   UINT64_MAX,
					   0xffffffff80000000,
					   0x100000000 };
	uint64_t v = rng_next(r);

	switch (rng_below(r, 10)) {
	case 0: return v & 31;
	case 1: return -(v & 15);
	case 2: return BIT(v & 63);
	case 3: return ~BIT(v & 63);
	case 4: return limits[v % ARRAY_SIZE(limits)] + (v >> 32) % 3 - 1;
	case 5: return v >> (v & 63);
	case 6: return (v & 0xff) * 0x0101010101010101;
	case 7: return v & 1 ? 0 : UINT64_MAX;
	default: return v;
	}
}

static uint64_t float_value(struct rng *r)
{
	static const uint32_t special[] = { 0,		0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
					    0xff800000, 0x7fc00000, 0x7fa00001, 1,	    0x807fffff,
					    0x00800000, 0x7f7fffff, 0x4f000000, 0xcf000000, 0x5f000000,
					    0x3f000000, 0x3fc00000, 0x33800000, 0x477fe000, 0x38800000 };
	uint64_t v = 0;

	for (unsigned n = 0; n < 2; n++) {
		uint32_t x = (uint32_t)rng_next(r);

		switch (rng_below(r, 4)) {
		case 0: x = special[x % ARRAY_SIZE(special)]; break;
		case 1: x = (x & 0x807fffff) | (0x78 + (x >> 24 & 15)) << 23; break;
		case 2: x = (x & 0x807ff000) | (0x7d + (x >> 28 & 7)) << 23; break;
		}
		v = v << 32 | x;
	}
	return v;
}

static uint64_t double_value(struct rng *r)
{
	static const uint64_t special[] = { 0,
					    BIT(63),
					    0x3ff0000000000000,
					    0xbff0000000000000,
					    0x7ff0000000000000,
					    0xfff0000000000000,
					    0x7ff8000000000000,
					    0x7ff4000000000001,
					    1,
					    0x800fffffffffffff,
					    0x0010000000000000,
					    0x7fefffffffffffff,
					    0x43e0000000000000,
					    0xc3e0000000000000,
					    0x41e0000000000000,
					    0x3fe0000000000000,
					    0x36a0000000000000,
					    0x47efffffe0000000,
					    0x3810000000000000 };
	uint64_t x = rng_next(r);

	switch (rng_below(r, 4)) {
	case 0: return special[x % ARRAY_SIZE(special)];
	case 1: return (x & 0x800fffffffffffff) | (0x3f8 + (x >> 55 & 15)) << 52;
	case 2: return (x & 0x800fffff00000000) | (0x3fc + (x >> 60 & 7)) << 52;
	default: return x;
	}
}

uint64_t lane_value(struct rng *r, enum lanes kind)
{
	switch (kind) {
	case LANES_FLOAT: return float_value(r);
	case LANES_DOUBLE: return double_value(r);
	case LANES_SMALL: return rng_next(r) & rng_next(r) & 0x0303030303030303;
	case LANES_EDGE: return edge_value(r);
	default: return rng_next(r);
	}
}

static void extended_value(struct rng *r, uint16_t *exponent, uint64_t *mantissa)
{
	uint64_t m = rng_next(r), x = rng_next(r);
	uint16_t sign = x >> 63 ? 0x8000 : 0;

	*mantissa = m | BIT(63);
	switch (rng_below(r, 12)) {
	case 0: *exponent = sign, *mantissa = 0; break;
	case 1: *exponent = sign, *mantissa = m & ~BIT(63); break;     /* denormal */
	case 2: *exponent = 0x7fff | sign, *mantissa = BIT(63); break; /* infinity */
	case 3: *exponent = 0x7fff | sign; break;		       /* NaN, quiet or not */
	case 4: *exponent = (uint16_t)x; break;
	case 5: *exponent = (uint16_t)x, *mantissa = m & ~BIT(63); break; /* often no number at all */
	case 6: *exponent = 0x3fff | sign, *mantissa = BIT(63); break;
	case 7:
		*exponent = (uint16_t)(0x3fff + (x & 63)) | sign, *mantissa &= ~0ull << (63 - (x & 63));
		break; /* integer */
	default: *exponent = (uint16_t)(0x3ff0 + (x & 31)) | sign; break;
	}
}

/* ---- the state before ---- */

static void make_vectors(struct rng *r, struct user_state *s)
{
	for (unsigned n = 0; n < 16; n++) {
		enum lanes kind = rng_below(r, LANES_KINDS);

		for (unsigned k = 0; k < 4; k++)
			s->vec[n][k] = lane_value(r, kind);
	}
	/* Mostly all exceptions masked; rounding, DAZ and FZ at random. */
	s->mxcsr = 0x1f80;
	if (rng_one_in(r, 2))
		s->mxcsr |= (uint32_t)rng_next(r) & 0xe07f;
	if (rng_one_in(r, 5))
		s->mxcsr ^= (uint32_t)rng_next(r) & 0x1f80;
}

static void make_x87(struct cases *c, struct user_state *s)
{
	struct rng *r = &c->rng;

	for (unsigned n = 0; n < 8; n++)
		extended_value(r, &s->st_exponent[n], &s->st_mantissa[n]);
	s->fcw = 0x37f;
	if (rng_one_in(r, 2))
		s->fcw = (uint16_t)(0x7f | (rng_next(r) & 0xf00));
	if (rng_one_in(r, 6))
		s->fcw &= (uint16_t)(~0x3fu | rng_next(r));
	s->fsw = (uint16_t)(rng_next(r) & 0x7f7f);
	/* Exceptions that are pending already, rarely. */
	if (!rng_one_in(r, 8))
		s->fsw &= (uint16_t) ~(~s->fcw & 0x3f);
	if (s->fsw & ~s->fcw & 0x3f)
		s->fsw |= 0x8080;
	s->tags = rng_one_in(r, 3) ? (uint8_t)rng_next(r) : rng_one_in(r, 8) ? 0 : 0xff;
	if (!c->traits.pointers && !(s->fsw & 0x80))
		return;
	s->fop = (uint16_t)(rng_next(r) & 0x7ff);
	s->fip = (uint64_t)sign_extend(rng_next(r), 48);
	s->fdp = (uint64_t)sign_extend(rng_next(r), 48);
}

/* Alignment checks of vectors are the processor's business: SDM vol. 2 leaves it open, AMD's check all of 16 and 32 bytes. */
static bool checks_alignment(const struct insn *i)
{
	return !(i->flags & (INSN_HOST | INSN_SYSTEM)) && i->op != OP_GATHER && i->op != OP_MASKMOV;
}

static void make_state(struct cases *c, const struct insn *i, struct user_state *s)
{
	struct rng *r = &c->rng;

	*s = c->start;
	for (unsigned n = 0; n < 16; n++)
		s->gpr[n] = edge_value(r);
	s->gpr[RSP] = stack_address(r);
	s->rflags |= rng_next(r) & FLAGS_STATUS;
	if (rng_one_in(r, 3))
		s->rflags |= FLAG_DF;
	if (checks_alignment(i) && rng_one_in(r, 16))
		s->rflags |= FLAG_AC;
	if (c->traits.bases && c->mode == MODE_64) {
		s->fs_base = rng_one_in(r, 2) ? rng_next(r) & 0x7ffff000 : (uint64_t)sign_extend(rng_next(r), 48);
		s->gs_base = rng_one_in(r, 2) ? rng_next(r) & 0x7ffff000 : (uint64_t)sign_extend(rng_next(r), 48);
	} else if (c->traits.bases) {
		s->fs_base = (uint32_t)rng_next(r);
		s->gs_base = (uint32_t)rng_next(r);
	}
	make_vectors(r, s);
	make_x87(c, s);
}

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
static bool is_canonical(uint64_t a) { return (uint64_t)sign_extend(a, 48) == a; }

uint64_t segment_offset(enum code_mode mode, struct user_state *s, unsigned seg, uint64_t at)
{
	uint64_t offset = at - (seg == FS ? s->fs_base : seg == GS ? s->gs_base : 0);

	if (mode != MODE_64)
		return (uint32_t)offset;
	if (is_canonical(offset - NEAR) && is_canonical(offset + NEAR))
		return offset;
	s->fs_base = s->gs_base = 0;
	return at;
}

/* ---- memory ---- */

static uint8_t *side_at(const struct areas *a, uint64_t at, unsigned len)
{
	if (at - DATA < DATA_SIZE && len <= DATA + DATA_SIZE - at)
		return a->data + (at - DATA);
	if (at - STACK < STACK_SIZE && len <= STACK + STACK_SIZE - at)
		return a->stack + (at - STACK);
	return NULL;
}

void put_bytes(struct cases *c, uint64_t at, const void *bytes, unsigned len)
{
	for (unsigned n = 0; n < 2; n++) {
		uint8_t *p = side_at(c->sides[n], at, len);

		if (p)
			memcpy(p, bytes, len);
	}
}

void put_value(struct cases *c, uint64_t at, uint64_t value, unsigned len) { put_bytes(c, at, &value, len); }

uint64_t peek_value(struct cases *c, uint64_t at, unsigned len)
{
	const uint8_t *p = side_at(c->sides[0], at, len);
	uint64_t value = 0;

	if (p)
		memcpy(&value, p, len);
	return value;
}

static void make_memory(struct cases *c)
{
	size_t from = 8 * rng_below(&c->rng, (POOL_SIZE - DATA_SIZE - STACK_SIZE) / 8);

	for (unsigned n = 0; n < 2; n++) {
		memcpy(c->sides[n]->data, c->pool + from, DATA_SIZE);
		memcpy(c->sides[n]->stack, c->pool + from + DATA_SIZE, STACK_SIZE);
	}
}

/* ---- the instruction ---- */

/* Where the instruction is: mostly inside a page, sometimes across two, sometimes where code ends. */
static uint64_t code_address(struct rng *r, unsigned len)
{
	switch (rng_below(r, 24)) {
	case 0:
	case 1: return CODE + PAGE_SIZE - rng_below(r, len + 1);
	case 2: return CODE + CODE_SIZE - len;
	case 3: return CODE + CODE_SIZE - 1 - rng_below(r, len);
	default: return CODE + 256 + rng_below(r, CODE_SIZE - 512);
	}
}

static void choose_memory(struct cases *c, const struct insn_form *form, struct encoding_fields *f)
{
	struct rng *r = &c->rng;
	unsigned how = rng_below(r, 12);

	f->mod = (uint8_t)rng_below(r, 3);
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
	f->address_size = rng_one_in(r, 12);
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
		f->address_size = rng_one_in(r, 24);
	if (rng_one_in(r, 8))
		f->segment = segments[rng_below(r, c->traits.bases ? 6 : 4)];
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
 * VMCALL, INVLPGB and others with prefixes that make them undefined: what hypervisors and hosts do with system instructions
 * of this group is theirs.
 */
static bool is_group_7(const uint8_t bytes[15])
{
	for (unsigned n = 0; n < 12; n++)
		if (bytes[n] == 0x0f && bytes[n + 1] == 0x01 && bytes[n + 2] >= 0xc0)
			return true;
	return false;
}

static bool make_instruction(struct cases *c, const struct insn_form *form, const struct encoding *e,
			     struct encoding_fields *f, struct test_case *t)
{
	uint8_t bytes[32] = { 0 };
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
		return t->insn.op == OP_INVALID && (strcmp(form->name, "(bad)") || !is_group_7(bytes));
	}
	return t->insn.op != OP_INVALID && t->insn.op != OP_TOO_LONG;
}

/* Same memory operand with other displacement: for RIP-relative ones, and where nothing but the displacement can be chosen. */
static void encode_again(const struct cases *c, const struct encoding *e, const struct encoding_fields *f,
			 struct test_case *t)
{
	uint8_t bytes[15];
	size_t len = encode(c->mode, e, f, bytes);

	memcpy(t->bytes, bytes, len);
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
			     uint64_t at)
{
	struct user_state *s = &t->before;
	uint64_t *segment = f->segment == 0x64 ? &s->fs_base : f->segment == 0x65 ? &s->gs_base : NULL;

	if (effective_16(t) >= 0xf000) {
		if (t->insn.base != 8 * REG_NONE)
			s->gpr[t->insn.base / 8] -= 0x1000;
		f->disp &= t->insn.base == 8 * REG_NONE ? 0xfff : UINT32_MAX;
		encode_again(c, e, f, t);
	}
	if (segment)
		*segment = (uint32_t)(at - effective_16(t));
}

/*
 * Make the memory operand lie at `at`, by registers or displacement. Where one register is base and index at once, only
 * nearly.
 */
static void place_operand(struct cases *c, const struct encoding *e, struct encoding_fields *f, struct test_case *t,
			  uint64_t at)
{
	struct user_state *s = &t->before;
	unsigned segment = f->segment == 0x64 ? FS : f->segment == 0x65 ? GS : DS;
	uint64_t offset = segment_offset(c->mode, s, segment, at), index = 0, base;

	if (t->insn.addrsize == 2) {
		place_by_segment(c, e, f, t, at);
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
		base = (offset - (uint64_t)(int64_t)t->insn.disp) / (1 + (1u << f->scale));
	if (f->address_size)
		base = (uint32_t)base | rng_next(&c->rng) << 32;
	s->gpr[f->base] = base;
}

/* 32-bit code has eight registers of 32 bits; what becomes of the rest no manual says. */
static void narrow_registers(struct user_state *s)
{
	for (unsigned n = 0; n < 16; n++)
		s->gpr[n] = n < 8 ? (uint32_t)s->gpr[n] : 0;
}

static void put_code(struct cases *c, const struct test_case *t)
{
	uint64_t at = t->before.rip - CODE;
	unsigned len = (unsigned)MIN(t->len, CODE_SIZE - at);

	for (unsigned n = 0; n < 2; n++) {
		memset(c->sides[n]->code + c->code_at, FILLER, c->code_len);
		memcpy(c->sides[n]->code + at, t->bytes, len);
	}
	c->code_at = at;
	c->code_len = len;
}

/* ---- one case ---- */

static uint64_t case_seed(uint64_t seed, const char *name, uint64_t number)
{
	uint64_t h = seed ^ 14695981039346656037ull;

	while (*name)
		h = (h ^ (uint8_t)*name++) * 1099511628211ull;
	return h ^ number * 0x9e3779b97f4a7c15ull;
}

bool cases_make(struct cases *c, struct insn_form *form, uint64_t number, struct test_case *t,
		const struct areas *sides[2])
{
	const struct encoding *e = &form->encodings[number % form->encoding_count];
	struct encoding_fields f;
	bool made = false;

	c->rng.state = case_seed(c->seed, form->name, number);
	c->sides[0] = sides[0];
	c->sides[1] = sides[1];
	memset(t, 0, sizeof(*t));
	for (unsigned attempt = 0; attempt < 8 && !made; attempt++)
		made = make_instruction(c, form, e, &f, t);
	if (!made)
		return false;
	t->traits = c->traits;
	t->code_mode = c->mode;
	t->form = form;
	if (!form->undefined)
		t->form = forms_of(c->forms, t->bytes, t->len);
	if (!t->form || t->form->reason)
		return false;
	t->mode = rng_below(&c->rng, RUN_MODES);
	make_state(c, &t->insn, &t->before);
	if (c->mode != MODE_64)
		narrow_registers(&t->before);
	make_memory(c);
	/* Where an undefined instruction ends nobody can say: all of it is there to be fetched. */
	t->before.rip = form->undefined || t->insn.op == OP_UD0 || t->insn.op == OP_UD1
				? CODE + rng_below(&c->rng, CODE_SIZE - 64)
				: code_address(&c->rng, t->len);
	c->target = data_address(&c->rng, operand_alignment(t));
	operands_before(c, t);
	if (e->memory && !form->undefined)
		place_operand(c, e, &f, t, c->target);
	if (!form->undefined && !operands_after(c, t))
		return false;
	if (c->mode != MODE_64)
		narrow_registers(&t->before);
	put_code(c, t);
	return true;
}

/* ---- life ---- */

struct cases *cases_create(struct forms *forms, const struct cpu_model *model, const struct user_state *start,
			   struct host_traits traits, uint64_t seed)
{
	struct cases *c = calloc(1, sizeof(*c));
	struct rng r = { seed };

	if (!c)
		return NULL;
	c->forms = forms;
	c->mode = forms->mode;
	c->model = model;
	c->start = *start;
	c->traits = traits;
	c->seed = seed;
	for (unsigned n = 0; n < POOL_SIZE; n += 8)
		store_le64(c->pool + n, lane_value(&r, (n >> 6) % LANES_KINDS));
	return c;
}

void cases_begin(struct cases *c)
{
	c->code_at = 0;
	c->code_len = CODE_SIZE;
}

void cases_destroy(struct cases *c) { free(c); }
