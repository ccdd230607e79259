/*
 * compare: the two outcomes and the two memories, but for what the manuals leave undefined: SDM vol. 1 appendix A (status
 * flags) and vol. 2; APM vol. 3 agrees in all of these.
 */
#include "oracle.h"

/* ---- what is undefined ---- */

static uint64_t shift_undefined(const struct test_case *t)
{
	const struct insn *i = &t->insn;
	bool immediate = i->form == FORM_RI || i->form == FORM_MI || i->form == FORM_RRI || i->form == FORM_MRI;
	unsigned count = (unsigned)(immediate ? i->imm : t->before.gpr[RCX]) & (i->opsize == 8 ? 63 : 31);
	bool rotate = i->op >= OP_ROL && i->op <= OP_RCR, twice = i->op == OP_SHLD || i->op == OP_SHRD;
	uint64_t f = 0;

	if (!count)
		return 0;
	if (count != 1)
		f |= FLAG_OF;
	if (rotate)
		return f;
	f |= FLAG_AF;
	if (count > 8u * i->opsize || (count == 8u * i->opsize && !twice))
		f |= FLAG_CF;
	if (twice && count > 8u * i->opsize)
		f |= FLAGS_STATUS;
	return f;
}

uint64_t undefined_flags(const struct test_case *t)
{
	switch (t->insn.op) {
	case OP_AND:
	case OP_OR:
	case OP_XOR:
	case OP_TEST: return FLAG_AF;
	case OP_MUL:
	case OP_IMUL: return FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF;
	case OP_DIV:
	case OP_IDIV: return FLAGS_STATUS;
	case OP_ROL:
	case OP_ROR:
	case OP_RCL:
	case OP_RCR:
	case OP_SHL:
	case OP_SHR:
	case OP_SAR:
	case OP_SHLD:
	case OP_SHRD: return shift_undefined(t);
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC: return FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF;
	case OP_BSF:
	case OP_BSR: return FLAG_CF | FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF;
	case OP_TZCNT:
	case OP_LZCNT: return FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF;
	case OP_ANDN:
	case OP_BLSI:
	case OP_BLSMSK:
	case OP_BLSR:
	case OP_BZHI: return FLAG_AF | FLAG_PF;
	case OP_AAA:
	case OP_AAS: return FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF;
	case OP_AAD:
	case OP_AAM: return FLAG_OF | FLAG_AF | FLAG_CF;
	case OP_DAA:
	case OP_DAS: return FLAG_OF;
	case OP_BEXTR: return FLAG_AF | FLAG_SF | FLAG_PF;
	default: return 0;
	}
}

/* ---- what is left to the processor ---- */

/* What of a case is then not compared. */
#define OTHER_FAULT BIT(0) /* both fault: which fault it is */
#define ANY_FAULT   BIT(1) /* both fault: which, and all that was done before */
#define ONE_FAULT   BIT(2) /* one faults, the other does not */
#define REGISTERS   BIT(3) /* general registers */
#define UPPER	    BIT(4) /* their upper halves */
#define MEMORY	    BIT(5) /* memory */
#define LAR_LIMIT   BIT(6) /* bits 19:16 of general registers */

struct leeway {
	enum op first, last;
	unsigned what;
	bool (*applies)(const struct test_case *, const struct outcome *native, const struct outcome *guest);
	const char *why;
};

static bool is_memory_fault(const struct outcome *o)
{
	return o->vector == EXC_PF || o->vector == EXC_GP || o->vector == EXC_SS || o->vector == EXC_AC;
}

static bool is_limit_fault(const struct outcome *o) { return o->vector == EXC_GP || o->vector == EXC_SS; }

static bool both_memory_faults(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)t;
	return is_memory_fault(n) && is_memory_fault(g);
}

static bool other_memory_fault(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)t;
	return n->vector != g->vector && (is_memory_fault(n) || is_memory_fault(g));
}

static bool finds_memory_first(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)t;
	return n->vector == EXC_PF || n->vector == EXC_SS || n->vector == EXC_AC || g->vector == EXC_PF;
}

static bool x87_sequence(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	return t->form->x87 && finds_memory_first(t, n, g);
}

static bool two_accesses(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	return t->host.mem_size == 10 && n->vector != g->vector;
}

static bool faults(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)t, (void)g;
	return n->vector != -1;
}

static bool implicit_mask(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	const char *name = t->form->name;

	return other_memory_fault(t, n, g) && (strstr(name, "maskmovdqu") || strstr(name, "maskmovq mm"));
}

static bool limit_fault(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)g;
	return t->code_mode != MODE_64 && is_limit_fault(n);
}

static bool ends_at_limit(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)g;
	return t->code_mode != MODE_64 && n->vector == EXC_GP && n->s.rip == t->before.rip &&
	       t->before.rip + t->insn.len == segment_of(t->before.sel[CS]).limit + 1ull;
}

static bool between_elements(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)g;
	return n->vector == EXC_DB && n->s.rip == t->before.rip;
}

static bool splits_lock(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	bool locks = (t->insn.flags & INSN_LOCK) || t->insn.op == OP_XCHG;

	(void)g;
	return locks && (n->vector == EXC_AC || n->vector == EXC_DB) && !(t->before.rflags & (FLAG_AC | FLAG_TF));
}

/* Only 5-level paging lets a program see such an address in its registers, or #PF for it. */
static bool beyond_48_bits(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)t, (void)g;
	return (n->vector == EXC_PF && !is_canonical(n->cr2)) || !is_canonical(n->s.rip) ||
	       !is_canonical(n->s.fs_base) || !is_canonical(n->s.gs_base);
}

static bool reaches_4g(const struct outcome *o)
{
	return o->vector == EXC_PF &&
	       (o->cr2 < PAGE_SIZE || (o->cr2 >= UINT32_MAX - PAGE_SIZE && o->cr2 <= UINT32_MAX));
}

static bool wraps_at_4g(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	return t->code_mode != MODE_64 &&
	       ((is_limit_fault(n) && reaches_4g(g)) || (reaches_4g(n) && is_limit_fault(g)));
}

static bool misaligned_beyond_limit(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	return t->host.mem_align > 1 && is_limit_fault(n) && is_limit_fault(g) && n->vector != g->vector;
}

static bool alignment_of_vectors(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	return !t->traits.aligns_vectors && (t->before.rflags & FLAG_AC) && n->vector != g->vector &&
	       (n->vector == EXC_AC || g->vector == EXC_AC);
}

static bool under_pvm(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)n, (void)g;
	return t->traits.pvm;
}

static bool is_ud0_or_ud1(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	const uint8_t *opcode = memchr(t->bytes, 0x0f, 14);

	(void)n, (void)g;
	return opcode && (opcode[1] == 0xff || opcode[1] == 0xb9);
}

static bool pushes_word(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)n, (void)g;
	return !t->traits.pushes_zeros && t->insn.opsize > 2;
}

static bool ends_well(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)t, (void)g;
	return n->vector == -1;
}

/* Shifts of 16 bits by more than 16. */
static bool count_too_large(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)g;
	return n->vector == -1 && (undefined_flags(t) & FLAG_ZF);
}

static bool zero_to_dword(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	(void)g;
	return t->code_mode == MODE_64 && t->insn.opsize == 4 && n->vector == -1 && (n->s.rflags & FLAG_ZF);
}

/* Several accesses and checks, in the processor's own order. */
#define OWN_ORDER(first, last, what)                                                                                   \
	{                                                                                                              \
		first, last, ANY_FAULT, finds_memory_first,                                                            \
			what ": several accesses and checks, in the processor's own order"                             \
	}

/* Where the manuals leave it to the processor, or contradict each other. The first row that applies decides. */
static const struct leeway leeways[] = {
	{ OP_XSAVE, OP_XRSTOR64, ANY_FAULT | ONE_FAULT, other_memory_fault,
	  "XSAVE and its kin: may fault for components that are not asked for" },
	OWN_ORDER(OP_FXSAVE, OP_XRSTOR64, "FXSAVE, XSAVE and their kin"),
	OWN_ORDER(OP_FNSAVE, OP_FLDENV, "x87 images"),
	{ OP_NOP, OP_NOP, ANY_FAULT, x87_sequence, "x87 images in sequences: the same" },
	{ OP_HOST, OP_HOST, ANY_FAULT, two_accesses,
	  "operands of 80 bits: two accesses, in the processor's own order" },
	{ OP_MASKMOV, OP_MASKMOV, ANY_FAULT | ONE_FAULT, implicit_mask,
	  "MASKMOVQ, MASKMOVDQU: may fault though the mask is empty (SDM vol. 2)" },
	{ OP_MASKMOV, OP_MASKMOV, ONE_FAULT, limit_fault,
	  "masked moves: Zen 5 asks the limit for all bytes, whatever the mask" },
	OWN_ORDER(OP_MASKMOV, OP_MASKMOV, "masked moves"),
	{ OP_GATHER, OP_GATHER, ANY_FAULT | ONE_FAULT, between_elements,
	  "gathers: a trap may come between elements (SDM vol. 2), or not" },
	{ OP_CALL, OP_CALL, ANY_FAULT, finds_memory_first, "near CALL: the push or the target's limit first" },
	OWN_ORDER(OP_JMP_FAR, OP_RET_FAR, "far transfers"),
	{ OP_CALL_FAR, OP_CALL_FAR, MEMORY, faults,
	  "far CALL: pushes before the target's limit is looked at (APM vol. 3) or after that (SDM vol. 2)" },
	OWN_ORDER(OP_IRET, OP_IRETQ, "IRET"),
	{ OP_ENTER, OP_ENTER, MEMORY, faults, "ENTER: what it pushed before it faulted" },
	{ OP_PUSHA, OP_PUSHAD, MEMORY, faults, "PUSHA: what it pushed before it faulted" },
	{ OP_POPA, OP_POPAD, REGISTERS, faults, "POPA: what it popped before it faulted" },
	{ OP_CMPSB, OP_CMPSQ, OTHER_FAULT, both_memory_faults,
	  "CMPS: either operand may be read first (AMD's with fast short CMPSB read DS:rSI, those without ES:rDI)" },
	{ OP_CMPSD_STRING, OP_CMPSD_STRING, OTHER_FAULT, both_memory_faults, "CMPSD: the same" },
	{ OP_SHLD, OP_SHRD, REGISTERS | MEMORY, count_too_large,
	  "SHLD, SHRD of 16 bits by more than 16: the result is undefined" },
	{ OP_LAR, OP_LAR, LAR_LIMIT, ends_well, "LAR: bits 19:16 are undefined (SDM vol. 2)" },
	{ OP_PUSH_SREG, OP_PUSH_SREG, MEMORY, pushes_word,
	  "PUSH of a segment register: some processors write 16 bits only (SDM vol. 2)" },
	{ OP_BSF, OP_BSR, UPPER, zero_to_dword,
	  "BSF, BSR of zero, 32 bits: the destination's upper half is kept or cleared (SDM vol. 2)" },
	{ OP_JO, OP_LOOPNE, ONE_FAULT, ends_at_limit,
	  "branches that end with the code segment: Zen 5 faults at times for what follows, which is not reached" },
	{ OP_SYSEXIT, OP_SYSEXIT, OTHER_FAULT, under_pvm, "SYSEXIT under PVM: #UD, which its emulation raises" },
	{ OP_INT, OP_INT, ANY_FAULT | ONE_FAULT, under_pvm, "INT n under PVM: some vectors are its own" },
	{ OP_RDFSBASE, OP_WRGSBASE, ANY_FAULT | ONE_FAULT, under_pvm,
	  "FSGSBASE under PVM: works, though CPUID denies it" },
	{ OP_TOO_LONG, OP_TOO_LONG, OTHER_FAULT, is_ud0_or_ud1,
	  "UD0, UD1 of more than 15 bytes: Zen 5 does not count what follows the opcode" },
	{ OP_HOST, OP_HOST, ANY_FAULT, misaligned_beyond_limit,
	  "operands that have to be aligned and are beyond the limit too: #GP or #SS" },
	{ 0, OP_COUNT, ANY_FAULT | ONE_FAULT, alignment_of_vectors,
	  "alignment checks of operands of more than 8 bytes: as processors like (SDM vol. 2 MOVUPS, vol. 3A 6.15)" },
	{ 0, OP_COUNT, ANY_FAULT | ONE_FAULT, wraps_at_4g,
	  "accesses across the end of a segment of 4 GiB: may fault (SDM vol. 3A 5.3)" },
	{ 0, OP_COUNT, ANY_FAULT | ONE_FAULT, beyond_48_bits,
	  "addresses of 49 to 57 bits: canonical on hosts with 5-level paging, which no model offers" },
	{ 0, OP_COUNT, ANY_FAULT | ONE_FAULT, splits_lock,
	  "locked accesses across cache lines: the host's kernel does not allow them (split_lock_detect)" },
};

static const struct leeway *leeway_of(const struct test_case *t, const struct outcome *n, const struct outcome *g)
{
	static const struct leeway none;
	unsigned count = (n->vector != -1) + (g->vector != -1);
	unsigned when = REGISTERS | UPPER | MEMORY | LAR_LIMIT;

	when |= count == 2 ? OTHER_FAULT | ANY_FAULT : count == 1 ? ONE_FAULT : 0;
	for (const struct leeway *l = leeways; l < leeways + ARRAY_SIZE(leeways); l++)
		if (t->insn.op >= l->first && t->insn.op <= l->last && (l->what & when) && l->applies(t, n, g))
			return l;
	return &none;
}

/* ---- differences ---- */

static void say(struct difference *d, const char *fmt, ...) printf_like(2, 3);
static void say(struct difference *d, const char *fmt, ...)
{
	size_t at = strlen(d->text);
	va_list ap;

	d->found = true;
	va_start(ap, fmt);
	vsnprintf(d->text + at, sizeof(d->text) - at, fmt, ap);
	va_end(ap);
}

static void check(struct difference *d, const char *name, uint64_t before, uint64_t native, uint64_t guest)
{
	if (native != guest)
		say(d, "#   %-7s host %#llx engine %#llx, before %#llx\n", name, (unsigned long long)native,
		    (unsigned long long)guest, (unsigned long long)before);
}

static void compare_general(const struct test_case *t, const struct user_state *n, const struct user_state *g,
			    unsigned leeway, struct difference *d)
{
	static const char *const gpr[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	static const char *const seg[6] = { "es", "cs", "ss", "ds", "fs", "gs" };
	const struct user_state *b = &t->before;
	/* Of upper halves nothing is said outside 64-bit mode, nor behind a way out of it: SDM vol. 1 3.4.1.1. */
	bool wide = t->code_mode == MODE_64 && n->sel[CS] == b->sel[CS] && !(leeway & UPPER);
	const uint64_t registers = (wide ? UINT64_MAX : UINT32_MAX) & ~(leeway & LAR_LIMIT ? 0xf0000ull : 0);

	for (unsigned k = 0; k < (t->code_mode == MODE_64 ? 16 : 8); k++)
		check(d, gpr[k], b->gpr[k], n->gpr[k] & registers, g->gpr[k] & registers);
	/* Null selectors become 0 on the host's way through its kernel. */
	for (unsigned k = 0; k < 6; k++)
		check(d, seg[k], b->sel[k], n->sel[k], g->sel[k] > 3 ? g->sel[k] : 0);
	check(d, "rip", b->rip, n->rip, g->rip);
	check(d, "fsbase", b->fs_base, n->fs_base, g->fs_base);
	check(d, "gsbase", b->gs_base, n->gs_base, g->gs_base);
}

static void compare_vectors(const struct test_case *t, const struct user_state *n, const struct user_state *g,
			    struct difference *d)
{
	char name[16];

	for (unsigned k = 0; k < 64; k++) {
		uint64_t native = n->vec[k / 4][k % 4], guest = g->vec[k / 4][k % 4];

		if (native == guest)
			continue;
		snprintf(name, sizeof(name), "ymm%u.%u", k / 4, k % 4);
		check(d, name, t->before.vec[k / 4][k % 4], native, guest);
	}
	check(d, "mxcsr", t->before.mxcsr, n->mxcsr, g->mxcsr);
}

static void compare_x87(const struct test_case *t, const struct user_state *n, const struct user_state *g,
			struct difference *d)
{
	const uint64_t pointer = t->traits.pvm ? UINT32_MAX : BIT(48) - 1;
	const struct user_state *b = &t->before;
	char name[16];

	for (unsigned k = 0; k < 8; k++) {
		if (n->st_mantissa[k] == g->st_mantissa[k] && n->st_exponent[k] == g->st_exponent[k])
			continue;
		snprintf(name, sizeof(name), "st%u", k);
		check(d, name, b->st_mantissa[k], n->st_mantissa[k], g->st_mantissa[k]);
		snprintf(name, sizeof(name), "st%u.exp", k);
		check(d, name, b->st_exponent[k], n->st_exponent[k], g->st_exponent[k]);
	}
	check(d, "fcw", b->fcw, n->fcw, g->fcw);
	check(d, "fsw", b->fsw, n->fsw, g->fsw);
	check(d, "tags", b->tags, n->tags, g->tags);
	if (t->traits.fop || (n->fsw & 0x80))
		check(d, "fop", b->fop, n->fop, g->fop);
	/* Processors keep 48 bits, or 57 where they know 5-level paging, offered or not; PVM's host at times 32. */
	if (t->traits.fip || (n->fsw & 0x80))
		check(d, "fip", b->fip, n->fip & pointer, g->fip & pointer);
	if (t->traits.fdp || (n->fsw & 0x80))
		check(d, "fdp", b->fdp, n->fdp & pointer, g->fdp & pointer);
}

/* The mask of MXCSR that FXSAVE and XSAVE store says what the processor has. */
static bool stores_mxcsr_mask(const struct test_case *t)
{
	return (t->insn.op >= OP_FXSAVE && t->insn.op <= OP_XSAVEOPT64) || t->form->x87;
}

/*
 * Parts of x87 images that processors fill differently while no exception is pending: SDM vol. 1 8.1.8 (FCS and FDS, deprecated; FDP
 * at exceptions only), 8.1.9 (FOP at exceptions only); as many bits of FIP and FDP as addresses have.
 */
static const struct image_part {
	uint64_t image;
	unsigned at, end;
	size_t unless; /* this trait; 0: always */
} image_parts[] = {
#define TRAIT(name) offsetof(struct host_traits, sees_##name)
	{ IMAGE_X87_16, 8, 10, TRAIT(selectors) },
	{ IMAGE_X87_16, 10, 12, TRAIT(fdp) },
	{ IMAGE_X87_16, 12, 14, TRAIT(selectors) },
	{ IMAGE_X87_32, 16, 18, TRAIT(selectors) },
	{ IMAGE_X87_32, 18, 20, TRAIT(fop) },
	{ IMAGE_X87_32, 20, 24, TRAIT(fdp) },
	{ IMAGE_X87_32, 24, 26, TRAIT(selectors) },
	{ IMAGE_XSAVE, 6, 8, TRAIT(fop) },
	{ IMAGE_XSAVE, 12, 14, TRAIT(selectors) },
	{ IMAGE_XSAVE, 14, 16, 0 },
	{ IMAGE_XSAVE, 16, 20, TRAIT(fdp) },
	{ IMAGE_XSAVE, 20, 22, TRAIT(selectors) },
	{ IMAGE_XSAVE, 22, 24, 0 },
#undef TRAIT
};

static bool image_part_left_open(const struct test_case *t, uint64_t at)
{
	for (const struct image_part *p = image_parts; t->form->x87 && p < image_parts + ARRAY_SIZE(image_parts); p++)
		if (at - p->image >= p->at && at - p->image < p->end &&
		    !(p->unless && *((const bool *)&t->traits + p->unless)))
			return true;
	return false;
}

static void compare_memory(const struct test_case *t, const struct areas *sides[2], struct difference *d)
{
	const struct {
		const uint8_t *native, *guest;
		uint64_t at;
		unsigned size;
	} areas[] = { { sides[0]->data, sides[1]->data, DATA, DATA_SIZE },
		      { sides[0]->stack, sides[1]->stack, STACK, STACK_SIZE } };

	for (unsigned n = 0; n < ARRAY_SIZE(areas); n++) {
		if (!memcmp(areas[n].native, areas[n].guest, areas[n].size))
			continue;
		for (unsigned k = 0; k < areas[n].size; k++)
			if (areas[n].native[k] != areas[n].guest[k] &&
			    !(stores_mxcsr_mask(t) && (areas[n].native[k] ^ areas[n].guest[k]) == 2) &&
			    !image_part_left_open(t, areas[n].at + k))
				say(d, "#   [%#llx] host %02x engine %02x\n", (unsigned long long)(areas[n].at + k),
				    areas[n].native[k], areas[n].guest[k]);
	}
}

/* Linux does not tell whether a page of the kernel's half was there. */
static uint32_t visible_error(const struct outcome *o)
{
	return o->vector == EXC_PF && o->cr2 >> 63 ? o->error | PF_P : o->error;
}

void compare(const struct test_case *t, const struct outcome *native, const struct outcome *guest,
	     const struct areas *sides[2], struct difference *d)
{
	/* Where TF is how the engine was made to stop, it is no result. */
	uint64_t flags = UINT64_MAX & ~(t->before.rflags & FLAG_TF ? 0 : FLAG_TF),
		 undefined = native->vector == -1 ? undefined_flags(t) : 0;
	const struct user_state *n = &native->s, *g = &guest->s;

	const struct leeway *leeway = leeway_of(t, native, guest);

	*d = (struct difference){ .left_open = leeway->why };
	if (leeway->what & (ANY_FAULT | ONE_FAULT))
		return;
	if (native->vector != guest->vector && !(leeway->what & OTHER_FAULT)) {
		say(d,
		    "#   host: vector %d error %#x cr2 %#llx at %x:%#llx, engine: vector %d error %#x cr2 %#llx at "
		    "%x:%#llx\n",
		    native->vector, native->error, (unsigned long long)native->cr2, n->sel[CS],
		    (unsigned long long)n->rip, guest->vector, guest->error, (unsigned long long)guest->cr2, g->sel[CS],
		    (unsigned long long)g->rip);
		return;
	}
	if (native->vector != -1 && !(leeway->what & OTHER_FAULT)) {
		check(d, "error", 0, visible_error(native), visible_error(guest));
		check(d, "cr2", 0, native->cr2, guest->cr2);
	}
	/* A trap between the rounds of a repeated string instruction: SDM vol. 3B 17.3.1.1 pushes RF set, AMD's processors do not. */
	if (native->vector == EXC_DB && n->rip == t->before.rip)
		flags &= ~FLAG_RF;
	if ((n->rflags ^ g->rflags) & flags & undefined)
		d->undefined_flags = true;
	flags &= ~undefined;
	if (!(leeway->what & REGISTERS))
		compare_general(t, n, g, leeway->what, d);
	check(d, "rflags", t->before.rflags, n->rflags & flags, g->rflags & flags);
	compare_vectors(t, n, g, d);
	compare_x87(t, n, g, d);
	if (!(leeway->what & MEMORY))
		compare_memory(t, sides, d);
	if (d->found && native->vector != -1)
		say(d, "#   both: vector %d at %#llx\n", native->vector, (unsigned long long)n->rip);
}
