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

/* SHLD and SHRD of 16 bits by more than 16. */
static bool result_undefined(const struct test_case *t)
{
	return (t->insn.op == OP_SHLD || t->insn.op == OP_SHRD) && (undefined_flags(t) & FLAG_ZF);
}

/*
 * Several accesses or checks, in an order that is the processor's own business, so that it may be another of their faults
 * that comes, or from another byte, or
 * that some of them were done already.
 */
static bool order_undefined(enum op op)
{
	switch (op) {
	case OP_FXSAVE:
	case OP_FXSAVE64:
	case OP_FXRSTOR:
	case OP_FXRSTOR64:
	case OP_XSAVE:
	case OP_XSAVE64:
	case OP_XSAVEC:
	case OP_XSAVEC64:
	case OP_XSAVEOPT:
	case OP_XSAVEOPT64:
	case OP_XRSTOR:
	case OP_XRSTOR64:
	case OP_FNSAVE:
	case OP_FRSTOR:
	case OP_FNSTENV:
	case OP_FLDENV:
	case OP_MASKMOV:
	case OP_CALL:
	case OP_CALL_FAR:
	case OP_JMP_FAR:
	case OP_RET_FAR:
	case OP_IRET:
	case OP_IRETD:
	case OP_IRETQ: return true;
	default: return false;
	}
}

/* An operand of 80 bits is two accesses: their faults are found in an order of the processor's own. */
static bool two_accesses(const struct test_case *t) { return t->insn.op == OP_HOST && t->host.mem_size == 10; }

/* Those that may fault for bytes that they neither load nor store: masked moves, and components that are not asked for. */
static bool may_fault_more(const struct test_case *t)
{
	const char *name = t->form->name;

	if (t->insn.op == OP_MASKMOV)
		return strstr(name, "maskmovdqu") || strstr(name, "maskmovq mm");
	return t->insn.op >= OP_XSAVE && t->insn.op <= OP_XRSTOR64;
}

/*
 * What an instruction that faulted did before, behind the stack pointer or to registers that it will load again, is the processor's
 * business: PUSHA, POPA; a far call pushes before it looks at the target's limit (APM vol. 3) or after that (SDM vol. 2).
 */
static bool begins_to_push(enum op op) { return op == OP_CALL_FAR || op == OP_PUSHA || op == OP_PUSHAD; }
static bool begins_to_pop(enum op op) { return op == OP_POPA || op == OP_POPAD; }

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
			    struct difference *d)
{
	static const char *const gpr[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	static const char *const seg[6] = { "es", "cs", "ss", "ds", "fs", "gs" };
	const struct user_state *b = &t->before;
	/* Of upper halves nothing is said outside 64-bit mode, nor behind a way out of it: SDM vol. 1 3.4.1.1. */
	bool wide = t->code_mode == MODE_64 && n->sel[CS] == b->sel[CS];
	const uint64_t registers = wide ? UINT64_MAX : UINT32_MAX;

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
	if (t->traits.fip || (n->fsw & 0x80))
		check(d, "fip", b->fip, n->fip, g->fip);
	if (t->traits.fdp || (n->fsw & 0x80))
		check(d, "fdp", b->fdp, n->fdp, g->fdp);
}

/* The mask of MXCSR that FXSAVE and XSAVE store says what the processor has. */
static bool stores_mxcsr_mask(const struct test_case *t)
{
	return (t->insn.op >= OP_FXSAVE && t->insn.op <= OP_XSAVEOPT64) || t->form->x87;
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
			    !(stores_mxcsr_mask(t) && (areas[n].native[k] ^ areas[n].guest[k]) == 2))
				say(d, "#   [%#llx] host %02x engine %02x\n", (unsigned long long)(areas[n].at + k),
				    areas[n].native[k], areas[n].guest[k]);
	}
}

/* Linux does not tell whether a page of the kernel's half was there. */
static uint32_t visible_error(const struct outcome *o)
{
	return o->vector == EXC_PF && o->cr2 >> 63 ? o->error | PF_P : o->error;
}

static bool is_memory_fault(const struct outcome *o)
{
	return o->vector == EXC_PF || o->vector == EXC_GP || o->vector == EXC_SS || o->vector == EXC_AC;
}

void compare(const struct test_case *t, const struct outcome *native, const struct outcome *guest,
	     const struct areas *sides[2], struct difference *d)
{
	/* Where TF is how the engine was made to stop, it is no result. */
	uint64_t flags = UINT64_MAX & ~(t->before.rflags & FLAG_TF ? 0 : FLAG_TF),
		 undefined = native->vector == -1 ? undefined_flags(t) : 0;
	const struct user_state *n = &native->s, *g = &guest->s;

	*d = (struct difference){ 0 };
	if (native->vector != guest->vector && (is_memory_fault(native) || is_memory_fault(guest)) && may_fault_more(t))
		return;
	if (native->vector != -1 && guest->vector != -1 && native->vector != guest->vector && two_accesses(t))
		return;
	if ((order_undefined(t->insn.op) || t->form->x87) && native->vector != -1 && guest->vector != -1 &&
	    (native->vector == EXC_PF || native->vector == EXC_SS || native->vector == EXC_AC ||
	     guest->vector == EXC_PF))
		return;
	/* Between the elements of a gather a trap may come (SDM vol. 2), or not. */
	if (t->insn.op == OP_GATHER && native->vector == EXC_DB && n->rip == t->before.rip)
		return;
	if (native->vector != guest->vector) {
		say(d,
		    "#   host: vector %d error %#x cr2 %#llx at %x:%#llx, engine: vector %d error %#x cr2 %#llx at "
		    "%x:%#llx\n",
		    native->vector, native->error, (unsigned long long)native->cr2, n->sel[CS],
		    (unsigned long long)n->rip, guest->vector, guest->error, (unsigned long long)guest->cr2, g->sel[CS],
		    (unsigned long long)g->rip);
		return;
	}
	if (native->vector != -1) {
		check(d, "error", 0, visible_error(native), visible_error(guest));
		check(d, "cr2", 0, native->cr2, guest->cr2);
	}
	/* A trap between the rounds of a repeated string instruction: SDM vol. 3B 17.3.1.1 pushes RF set, AMD's processors do not. */
	if (native->vector == EXC_DB && n->rip == t->before.rip)
		flags &= ~FLAG_RF;
	if ((n->rflags ^ g->rflags) & flags & undefined)
		d->undefined_flags = true;
	flags &= ~undefined;
	if (native->vector == -1 ? !result_undefined(t) : !begins_to_pop(t->insn.op))
		compare_general(t, n, g, d);
	check(d, "rflags", t->before.rflags, n->rflags & flags, g->rflags & flags);
	compare_vectors(t, n, g, d);
	compare_x87(t, n, g, d);
	if (!result_undefined(t) && !(begins_to_push(t->insn.op) && native->vector != -1))
		compare_memory(t, sides, d);
	if (d->found && native->vector != -1)
		say(d, "#   both: vector %d at %#llx\n", native->vector, (unsigned long long)n->rip);
}
