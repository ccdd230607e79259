/* state: the registers that a case begins with: edge values, random ones, and what floating point finds special. */
#include "cases.h"

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
	if (c->traits.fop || (s->fsw & 0x80))
		s->fop = (uint16_t)(rng_next(r) & 0x7ff);
	if (c->traits.fip || (s->fsw & 0x80))
		s->fip = (uint64_t)sign_extend(rng_next(r), 48);
	if (c->traits.fdp || (s->fsw & 0x80))
		s->fdp = (uint64_t)sign_extend(rng_next(r), 48);
}

/* One that can be loaded, with the stack in SS's, and mostly the data in the others'. */
static uint16_t choose_segment(struct cases *c, enum seg seg)
{
	for (;;) {
		uint16_t selector = (uint16_t)(rng_below(&c->rng, LDT_SIZE) << 3 | 7);
		struct segment s = segment_of(selector);
		bool code = s.attr & ATTR_CODE, fits;

		if (!(s.attr & ATTR_P))
			continue;
		if (seg == CS)
			fits = code && !(s.attr & ATTR_DB) == (c->mode == MODE_16);
		else if (seg == SS)
			fits = !code && (s.attr & ATTR_WRITABLE) && segment_holds(&s, STACK);
		else
			fits = code ? (s.attr & ATTR_WRITABLE) && rng_one_in(&c->rng, 4)
				    : segment_holds(&s, DATA) || rng_one_in(&c->rng, 8);
		if (fits)
			return selector;
	}
}

/* Outside 64-bit mode: the flat ones, or any that are not. */
static void choose_segments(struct cases *c, struct user_state *s)
{
	if (c->mode == MODE_64 || !c->traits.ldt || (c->mode == MODE_32 && rng_one_in(&c->rng, 2)))
		return;
	for (enum seg seg = ES; seg <= GS; seg++)
		if (!rng_one_in(&c->rng, 12))
			s->sel[seg] = choose_segment(c, seg);
}

void make_state(struct cases *c, struct user_state *s)
{
	struct rng *r = &c->rng;

	*s = c->start;
	for (unsigned n = 0; n < 16; n++)
		s->gpr[n] = edge_value(r);
	choose_segments(c, s);
	s->gpr[RSP] = stack_offset(c, s);
	s->rflags |= rng_next(r) & FLAGS_STATUS;
	if (rng_one_in(r, 3))
		s->rflags |= FLAG_DF;
	if (rng_one_in(r, 16))
		s->rflags |= FLAG_AC;
	if (c->traits.bases && c->mode == MODE_64) {
		s->fs_base = rng_one_in(r, 2) ? rng_next(r) & 0x7ffff000 : (uint64_t)sign_extend(rng_next(r), 48);
		s->gs_base = rng_one_in(r, 2) ? rng_next(r) & 0x7ffff000 : (uint64_t)sign_extend(rng_next(r), 48);
	} else if (c->traits.bases) {
		s->fs_base = s->sel[FS] & 4 ? segment_of(s->sel[FS]).base : (uint32_t)rng_next(r);
		s->gs_base = s->sel[GS] & 4 ? segment_of(s->sel[GS]).base : (uint32_t)rng_next(r);
	}
	make_vectors(r, s);
	make_x87(c, s);
}

/* 32-bit code has eight registers of 32 bits; what becomes of the rest no manual says. */
void narrow_registers(struct user_state *s)
{
	for (unsigned n = 0; n < 16; n++)
		s->gpr[n] = n < 8 ? (uint32_t)s->gpr[n] : 0;
}
