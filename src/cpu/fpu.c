/*
 * fpu: the vCPU's x87 and MMX registers and MXCSR, which live in the host's unit while v->fpu_live, and the rules by
 * which the control registers let a guest use them.
 *
 * Two things are kept in software always: the instruction and data pointers (the host's would be addresses of the
 * monitor), and the report of unmasked x87 exceptions. The host must never be the one to report those: it would do so
 * at some later instruction. So once FCW unmasks an exception, FSW.ES is looked at after each x87 instruction, and the
 * next waiting one raises the guest's #MF before the host sees it (x87_watch); or, with CR0.NE = 0, asserts FERR#, from which
 * a PC makes IRQ 13.
 */
#include "cpu/fpu.h"
#include "cpu/private.h"

#define XMM_CLOBBERS                                                                                                   \
	"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",     \
		"xmm13", "xmm14", "xmm15"

uint8_t fpu_short_tags(uint16_t tags)
{
	unsigned used = 0;

	for (unsigned n = 0; n < 8; n++)
		if ((tags >> (2 * n) & 3) != 3)
			used |= 1u << n;
	return (uint8_t)used;
}

/* SDM vol. 1 8.1.7: 0 valid, 1 zero, 2 special (invalid, infinity, denormal), 3 empty. */
static unsigned classify(uint16_t exponent, uint64_t mantissa)
{
	exponent &= 0x7fff;
	if (!exponent)
		return mantissa ? 2 : 1;
	return exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

uint16_t fpu_full_tags(const struct cpu_state *s, uint8_t short_tags)
{
	unsigned top = s->fsw >> 11 & 7, tags = TAGS_EMPTY;

	for (unsigned n = 0; n < 8; n++) {
		unsigned st = (n - top) & 7;

		if (short_tags & 1u << n)
			tags ^= (3 ^ classify(s->st_exponent[st], s->st_mantissa[st])) << (2 * n);
	}
	return (uint16_t)tags;
}

/* Returns whether IGNNE# is asserted. */
static bool drive_ferr(struct vcpu *v, bool asserted)
{
	v->s.ferr = asserted;
	return v->env->fpu_error && v->env->fpu_error(v, asserted);
}

void cpu_fpu_watch(struct vcpu *v)
{
	uint16_t control, status;

	__asm__ volatile("fnstcw %0\n\tfnstsw %1" : "=m"(control), "=a"(status));
	v->x87_watch = (uint8_t)((~control & 0x3f ? X87_UNMASKED : 0) | (status & FSW_ES ? X87_PENDING : 0));
	if (unlikely(v->s.ferr) && !(v->x87_watch & X87_PENDING))
		drive_ferr(v, false);
}

void cpu_fpu_report(struct vcpu *v)
{
	if (v->s.cr0 & CR0_NE)
		cpu_raise(v, EXC_MF);
	if (!drive_ferr(v, true))
		cpu_freeze(v);
}

/* FNSTENV's image of the live unit. */
struct environment {
	uint32_t control, status, rest[5];
};

/* FNSTENV masks all exceptions and FNCLEX forgets them, so that FLDENV, which waits, does not meet any. */
static void change_status(uint16_t clear, uint16_t set)
{
	struct environment e;

	__asm__ volatile("fnstenv %0\n\tfnclex" : "=m"(e));
	e.status = (e.status & ~(uint32_t)clear) | set;
	__asm__ volatile("fldenv %0" : : "m"(e));
}

uint16_t cpu_fpu_hide_pending(struct vcpu *v)
{
	uint16_t status;

	if (likely(!(v->x87_watch & X87_PENDING)))
		return 0;
	__asm__ volatile("fnstsw %0" : "=a"(status));
	change_status(FSW_EXCEPTIONS, 0);
	return status & FSW_EXCEPTIONS;
}

void cpu_fpu_show_pending(uint16_t hidden)
{
	if (unlikely(hidden))
		change_status(0, hidden);
}

void cpu_fpu_load(struct vcpu *v)
{
	struct fxsave_image image;

	memset(&image, 0, offsetof(struct fxsave_image, xmm));
	image.fcw = v->s.fcw;
	image.fsw = v->s.fsw;
	image.tags = fpu_short_tags(v->s.ftw);
	image.mxcsr = v->s.mxcsr & MXCSR_MASK;
	for (unsigned n = 0; n < 8; n++) {
		image.st[n].mantissa = v->s.st_mantissa[n];
		image.st[n].exponent = v->s.st_exponent[n];
	}
	/* The XMM registers take whatever the stack holds: they are nobody's now. */
	__asm__ volatile("fxrstor64 %0" : : "m"(image) : XMM_CLOBBERS);
	v->fpu_live = true;
	cpu_fpu_watch(v);
}

void fpu_sync(struct vcpu *v)
{
	struct fxsave_image image;

	if (!v->fpu_live)
		return;
	__asm__ volatile("fxsave64 %0" : "=m"(image));
	v->s.fcw = image.fcw;
	v->s.fsw = image.fsw;
	v->s.mxcsr = image.mxcsr & MXCSR_MASK;
	for (unsigned n = 0; n < 8; n++) {
		v->s.st_mantissa[n] = image.st[n].mantissa;
		v->s.st_exponent[n] = image.st[n].exponent;
	}
	v->s.ftw = fpu_full_tags(&v->s, image.tags);
}

void cpu_fpu_save(struct vcpu *v)
{
	static const uint32_t mxcsr = MXCSR_DEFAULT;

	if (!v->fpu_live)
		return;
	fpu_sync(v);
	__asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
	v->fpu_live = false;
	v->x87_watch = 0;
}

bool fpu_keeps_pointers(const struct vcpu *v) { return !is_amd(v->model) || (v->s.fsw & FSW_ES); }

uint64_t cpu_xinuse(struct vcpu *v)
{
	const struct cpu_state *s = &v->s;
	uint64_t used = 0, low = 0, high = 0, x87;

	fpu_sync(v);
	x87 = s->fsw;
	if (fpu_keeps_pointers(v))
		x87 |= s->fop | s->fcs | s->fds | s->fip | s->fdp;
	for (unsigned n = 0; n < 8; n++)
		x87 |= s->st_mantissa[n] | s->st_exponent[n];
	for (unsigned n = 0; n < 16; n++) {
		low |= s->vec[4 * n] | s->vec[4 * n + 1];
		high |= s->vec[4 * n + 2] | s->vec[4 * n + 3];
	}
	if (x87 || s->fcw != FCW_DEFAULT || s->ftw != TAGS_EMPTY)
		used |= XCR0_X87;
	if (low)
		used |= XCR0_SSE;
	if (high)
		used |= XCR0_AVX;
	return used;
}

/* ---- who may use the unit: SDM vol. 3A 2.5 (table 9-3 for EM, MP, TS), 13.1 and vol. 1 14.3 ---- */

void fpu_check_available(struct vcpu *v, uint64_t cr0_bits)
{
	if (v->s.cr0 & cr0_bits)
		cpu_raise(v, EXC_NM);
}

static void make_live(struct vcpu *v)
{
	if (!v->fpu_live)
		cpu_fpu_load(v);
}

static void check_pending(struct vcpu *v)
{
	if (v->x87_watch & X87_PENDING)
		cpu_fpu_report(v);
}

void cpu_fpu_check_x87(struct vcpu *v, bool waiting)
{
	fpu_check_available(v, CR0_EM | CR0_TS);
	make_live(v);
	if (waiting)
		check_pending(v);
}

void cpu_fpu_check_mmx(struct vcpu *v)
{
	if (v->s.cr0 & CR0_EM)
		cpu_raise(v, EXC_UD);
	fpu_check_available(v, CR0_TS);
	make_live(v);
	check_pending(v);
}

void cpu_fpu_check_sse(struct vcpu *v)
{
	if ((v->s.cr0 & CR0_EM) || !(v->s.cr4 & CR4_OSFXSR))
		cpu_raise(v, EXC_UD);
	fpu_check_available(v, CR0_TS);
	make_live(v);
}

void cpu_fpu_check_avx(struct vcpu *v)
{
	const uint64_t components = XCR0_SSE | XCR0_AVX;

	if (!in_protected_mode(v) || !(v->s.cr4 & CR4_OSXSAVE) || (v->s.xcr0 & components) != components)
		cpu_raise(v, EXC_UD);
	fpu_check_available(v, CR0_TS);
	make_live(v);
}

void cpu_fpu_note(struct vcpu *v, const struct insn *i, uint64_t data_offset)
{
	const uint8_t *opcode = i->bytes;

	while ((*opcode & 0xf8) != 0xd8) /* past the prefixes */
		opcode++;
	v->s.fop = (uint16_t)((opcode[0] & 7) << 8 | opcode[1]);
	v->s.fip = v->s.rip;
	v->s.fcs = v->s.seg_sel[CS];
	if (i->flags & INSN_MEM) {
		v->s.fdp = data_offset;
		v->s.fds = v->s.seg_sel[i->seg];
	}
}

void cpu_fpu_clear_pointers(struct vcpu *v)
{
	v->s.fop = v->s.fcs = v->s.fds = 0;
	v->s.fip = v->s.fdp = 0;
}

/* ---- operations on the unit as such ---- */

void op_fwait(struct vcpu *v, const struct insn *i)
{
	(void)i;
	if ((v->s.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		cpu_raise(v, EXC_NM);
	make_live(v);
	check_pending(v);
}

void op_emms(struct vcpu *v, const struct insn *i)
{
	uint16_t hidden;

	(void)i;
	cpu_fpu_check_mmx(v);
	hidden = cpu_fpu_hide_pending(v);
	__asm__ volatile("emms");
	cpu_fpu_show_pending(hidden);
}

static void check_mxcsr_access(struct vcpu *v, const struct insn *i)
{
	if (i->op == OP_VLDMXCSR || i->op == OP_VSTMXCSR)
		cpu_fpu_check_avx(v);
	else
		cpu_fpu_check_sse(v);
}

void op_ldmxcsr(struct vcpu *v, const struct insn *i)
{
	uint32_t value;

	check_mxcsr_access(v, i);
	value = (uint32_t)cpu_load(v, cpu_operand(v, i, 4, ACCESS_READ), 4, i->seg == SS);
	if (value & ~MXCSR_MASK)
		cpu_raise_error(v, EXC_GP, 0);
	__asm__ volatile("ldmxcsr %0" : : "m"(value));
}

void op_stmxcsr(struct vcpu *v, const struct insn *i)
{
	uint32_t value;

	check_mxcsr_access(v, i);
	__asm__ volatile("stmxcsr %0" : "=m"(value));
	cpu_store(v, cpu_operand(v, i, 4, ACCESS_WRITE), value & MXCSR_MASK, 4, i->seg == SS);
}
