/*
 * xsave: FXSAVE, XSAVE, XSAVEC, XSAVEOPT and back: the images of the x87, SSE and AVX state in guest memory (SDM vol. 1
 * 10.5 and chapter 13). Component 2 is at byte 576 in the standard and in the compacted format, so both have one layout.
 */
#include "cpu/fpu.h"

#define COMPACTED BIT(63) /* of XCOMP_BV */

struct xsave_image {
	struct fxsave_image legacy;
	uint64_t xstate_bv, xcomp_bv;
	uint64_t reserved[6];
	uint64_t ymm_high[16][2];
};
_Static_assert(offsetof(struct xsave_image, ymm_high) == 576, "CPUID leaf 0xd says so");

static bool is_64(const struct insn *i)
{
	return i->op == OP_FXSAVE64 || i->op == OP_FXRSTOR64 || i->op == OP_XSAVE64 || i->op == OP_XRSTOR64 ||
	       i->op == OP_XSAVEC64 || i->op == OP_XSAVEOPT64;
}

/* XMM and YMM registers that the mode can name: others are neither stored nor loaded. */
static unsigned vector_registers(const struct vcpu *v) { return v->code_mode == MODE_64 ? 16 : 8; }

/* ---- pieces of the image ---- */

static void put_x87(const struct vcpu *v, struct fxsave_image *image, bool is64)
{
	const struct cpu_state *s = &v->s;

	memset(image, 0, offsetof(struct fxsave_image, mxcsr));
	memset(image->st, 0, sizeof(image->st));
	image->fcw = s->fcw;
	image->fsw = s->fsw;
	image->tags = fpu_short_tags(s->ftw);
	if (fpu_keeps_pointers(v)) {
		image->fop = s->fop;
		image->fip = is64 ? s->fip : (uint32_t)s->fip | (uint64_t)s->fcs << 32;
		image->fdp = is64 ? s->fdp : (uint32_t)s->fdp | (uint64_t)s->fds << 32;
	}
	for (unsigned n = 0; n < 8; n++) {
		image->st[n].mantissa = s->st_mantissa[n];
		image->st[n].exponent = s->st_exponent[n];
	}
}

static void get_x87(struct cpu_state *s, const struct fxsave_image *image, bool is64)
{
	s->fcw = image->fcw;
	s->fsw = image->fsw;
	s->fop = image->fop & 0x7ff;
	/* Processors keep as many bits as addresses have. */
	s->fip = is64 ? (uint64_t)sign_extend(image->fip, 48) : (uint32_t)image->fip;
	s->fdp = is64 ? (uint64_t)sign_extend(image->fdp, 48) : (uint32_t)image->fdp;
	s->fcs = is64 ? 0 : (uint16_t)(image->fip >> 32);
	s->fds = is64 ? 0 : (uint16_t)(image->fdp >> 32);
	for (unsigned n = 0; n < 8; n++) {
		s->st_mantissa[n] = image->st[n].mantissa;
		s->st_exponent[n] = image->st[n].exponent;
	}
	s->ftw = fpu_full_tags(s, image->tags);
}

static void init_x87(struct cpu_state *s)
{
	static const struct fxsave_image initial = { .fcw = FCW_DEFAULT };

	get_x87(s, &initial, true);
}

static void put_xmm(const struct cpu_state *s, struct fxsave_image *image, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		memcpy(image->xmm[n], &s->vec[4 * n], 16);
}

static void get_xmm(struct cpu_state *s, const struct fxsave_image *image, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		memcpy(&s->vec[4 * n], image->xmm[n], 16);
}

static void put_mxcsr(const struct cpu_state *s, struct fxsave_image *image)
{
	image->mxcsr = s->mxcsr;
	image->mxcsr_mask = MXCSR_MASK;
}

static uint64_t xsave_operand(struct vcpu *v, const struct insn *i, unsigned size, enum access access)
{
	cpu_check_aligned(v, i, 64);
	return cpu_operand(v, i, size, access);
}

/* Both pages are checked, so that stores of parts cannot fault between them. */
static void probe(struct vcpu *v, const struct insn *i, uint64_t address, unsigned size)
{
	uint64_t last = address + size - 1;

	cpu_probe_write(v, address, 1, i->seg == SS);
	if ((address ^ last) & PAGE_MASK)
		cpu_probe_write(v, last & PAGE_MASK, 1, i->seg == SS);
}

/* Store bytes [from, to) of an image whose first byte is at `address`. */
static void store_part(struct vcpu *v, const struct insn *i, uint64_t address, const void *image, size_t from,
		       size_t to)
{
	cpu_store_bytes(v, address + from, (const uint8_t *)image + from, (unsigned)(to - from), i->seg == SS);
}

/* ---- FXSAVE, FXRSTOR ---- */

/* Misaligned: #GP(0), or where alignment is checked #AC(0), of which processors ask 4 bytes here (SDM vol. 2 FXSAVE, as AMD's do). */
static uint64_t fxsave_operand(struct vcpu *v, const struct insn *i, enum access access)
{
	const unsigned size = sizeof(struct fxsave_image);

	if (unlikely(v->tlb == v->tlb_never))
		cpu_check_alignment(v, cpu_operand(v, i, size, access), 4);
	cpu_check_aligned(v, i, 16);
	return cpu_operand(v, i, size, access);
}

void op_fxsave(struct vcpu *v, const struct insn *i)
{
	unsigned count = v->s.cr4 & CR4_OSFXSR ? vector_registers(v) : 0;
	size_t end = offsetof(struct fxsave_image, xmm) + 16 * count;
	struct fxsave_image image;
	uint64_t address;

	fpu_check_available(v, CR0_EM | CR0_TS);
	address = fxsave_operand(v, i, ACCESS_WRITE);
	probe(v, i, address, sizeof(image)); /* also what is not written */
	fpu_sync(v);
	put_x87(v, &image, is_64(i));
	put_mxcsr(&v->s, &image);
	put_xmm(&v->s, &image, count);
	store_part(v, i, address, &image, 0, end);
}

void op_fxrstor(struct vcpu *v, const struct insn *i)
{
	struct fxsave_image image;

	fpu_check_available(v, CR0_EM | CR0_TS);
	cpu_load_bytes(v, fxsave_operand(v, i, ACCESS_READ), &image, sizeof(image), i->seg == SS);
	fpu_sync(v);
	if (v->s.cr4 & CR4_OSFXSR) {
		if (image.mxcsr & ~MXCSR_MASK)
			cpu_raise_error(v, EXC_GP, 0);
		v->s.mxcsr = image.mxcsr;
		get_xmm(&v->s, &image, vector_registers(v));
	}
	get_x87(&v->s, &image, is_64(i));
	cpu_fpu_load(v);
}

/* ---- XSAVE and its kin ---- */

static uint64_t requested_components(const struct vcpu *v)
{
	return v->s.xcr0 & ((v->s.gpr[RDX] & UINT32_MAX) << 32 | (v->s.gpr[RAX] & UINT32_MAX));
}

static void check_xsave(struct vcpu *v)
{
	if (!(v->s.cr4 & CR4_OSXSAVE))
		cpu_raise(v, EXC_UD);
	fpu_check_available(v, CR0_TS);
}

/*
 * Build in *image and store what the components of `write` need; mxcsr: MXCSR and its mask too. The header's first
 * `header` bytes are stored from *image.
 */
static void store_components(struct vcpu *v, const struct insn *i, uint64_t address, struct xsave_image *image,
			     uint64_t write, bool mxcsr, unsigned header)
{
	unsigned count = vector_registers(v);

	if (write & XCR0_X87) {
		put_x87(v, &image->legacy, is_64(i));
		store_part(v, i, address, image, 0, offsetof(struct fxsave_image, mxcsr));
		store_part(v, i, address, image, offsetof(struct fxsave_image, st), offsetof(struct fxsave_image, xmm));
	}
	if (mxcsr) {
		put_mxcsr(&v->s, &image->legacy);
		store_part(v, i, address, image, offsetof(struct fxsave_image, mxcsr),
			   offsetof(struct fxsave_image, st));
	}
	if (write & XCR0_SSE) {
		put_xmm(&v->s, &image->legacy, count);
		store_part(v, i, address, image, offsetof(struct fxsave_image, xmm),
			   offsetof(struct fxsave_image, xmm) + 16 * count);
	}
	if (write & XCR0_AVX) {
		for (unsigned n = 0; n < count; n++)
			memcpy(image->ymm_high[n], &v->s.vec[4 * n + 2], 16);
		store_part(v, i, address, image, offsetof(struct xsave_image, ymm_high),
			   offsetof(struct xsave_image, ymm_high) + 16 * count);
	}
	store_part(v, i, address, image, offsetof(struct xsave_image, xstate_bv),
		   offsetof(struct xsave_image, xstate_bv) + header);
}

static unsigned area_size(uint64_t components)
{
	return components & XCR0_AVX ? sizeof(struct xsave_image) : offsetof(struct xsave_image, ymm_high);
}

/* SDM vol. 1 13.7 and 13.9: the two differ in what they do about components in their initial configuration. */
static void save_standard(struct vcpu *v, const struct insn *i, bool optimised)
{
	uint64_t wanted = requested_components(v), in_use, address;
	unsigned size = area_size(wanted);
	struct xsave_image image;

	check_xsave(v);
	address = xsave_operand(v, i, size, ACCESS_WRITE);
	probe(v, i, address, size);
	in_use = cpu_xinuse(v);
	image.xstate_bv = cpu_load(v, address + offsetof(struct xsave_image, xstate_bv), 8, i->seg == SS);
	image.xstate_bv = (image.xstate_bv & ~wanted) | (in_use & wanted);
	store_components(v, i, address, &image, optimised ? wanted & in_use : wanted, wanted & (XCR0_SSE | XCR0_AVX),
			 8);
}

void op_xsave(struct vcpu *v, const struct insn *i) { save_standard(v, i, false); }
void op_xsaveopt(struct vcpu *v, const struct insn *i) { save_standard(v, i, true); }

/* SDM vol. 1 13.10 */
void op_xsavec(struct vcpu *v, const struct insn *i)
{
	uint64_t wanted = requested_components(v), address;
	unsigned size = area_size(wanted);
	struct xsave_image image;

	check_xsave(v);
	address = xsave_operand(v, i, size, ACCESS_WRITE);
	probe(v, i, address, size);
	image.xstate_bv = cpu_xinuse(v) & wanted;
	if (v->s.mxcsr != MXCSR_DEFAULT)
		image.xstate_bv |= wanted & XCR0_SSE;
	image.xcomp_bv = wanted | COMPACTED;
	store_components(v, i, address, &image, image.xstate_bv, image.xstate_bv & XCR0_SSE, 16);
}

/* SDM vol. 1 13.8: what a header may say. */
static bool header_ok(const struct vcpu *v, const struct xsave_image *image)
{
	if (!(image->xcomp_bv & COMPACTED))
		return !(image->xstate_bv & ~v->s.xcr0) && !image->xcomp_bv && !image->reserved[0];
	if (!has_feature(v, FEATURE_XSAVEC) || (image->xcomp_bv & ~COMPACTED & ~v->s.xcr0) ||
	    (image->xstate_bv & ~(image->xcomp_bv & ~COMPACTED)))
		return false;
	for (unsigned n = 0; n < ARRAY_SIZE(image->reserved); n++)
		if (image->reserved[n])
			return false;
	return true;
}

static void load_vectors(struct vcpu *v, const struct xsave_image *image, uint64_t wanted)
{
	unsigned count = vector_registers(v);

	if (wanted & XCR0_SSE) {
		if (image->xstate_bv & XCR0_SSE)
			get_xmm(&v->s, &image->legacy, count);
		else
			for (unsigned n = 0; n < count; n++)
				memset(&v->s.vec[4 * n], 0, 16);
	}
	if (wanted & XCR0_AVX) {
		for (unsigned n = 0; n < count; n++)
			if (image->xstate_bv & XCR0_AVX)
				memcpy(&v->s.vec[4 * n + 2], image->ymm_high[n], 16);
			else
				memset(&v->s.vec[4 * n + 2], 0, 16);
	}
}

void op_xrstor(struct vcpu *v, const struct insn *i)
{
	uint64_t wanted = requested_components(v), address;
	bool compacted, mxcsr;
	struct xsave_image image;

	check_xsave(v);
	address = xsave_operand(v, i, area_size(wanted), ACCESS_READ);
	cpu_load_bytes(v, address, &image, offsetof(struct xsave_image, ymm_high), i->seg == SS);
	if (!header_ok(v, &image))
		cpu_raise_error(v, EXC_GP, 0);
	if (wanted & image.xstate_bv & XCR0_AVX)
		cpu_load_bytes(v, address + offsetof(struct xsave_image, ymm_high), image.ymm_high,
			       sizeof(image.ymm_high[0]) * vector_registers(v), i->seg == SS);
	compacted = image.xcomp_bv & COMPACTED;
	mxcsr = wanted & (compacted ? XCR0_SSE : XCR0_SSE | XCR0_AVX);
	if (compacted && !(image.xstate_bv & XCR0_SSE))
		image.legacy.mxcsr = MXCSR_DEFAULT;
	if (mxcsr && (image.legacy.mxcsr & ~MXCSR_MASK))
		cpu_raise_error(v, EXC_GP, 0);

	fpu_sync(v);
	if (mxcsr)
		v->s.mxcsr = image.legacy.mxcsr;
	load_vectors(v, &image, wanted);
	if (wanted & XCR0_X87) {
		if (image.xstate_bv & XCR0_X87)
			get_x87(&v->s, &image.legacy, is_64(i));
		else
			init_x87(&v->s);
	}
	cpu_fpu_load(v);
}
