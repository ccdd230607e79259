/*
 * sequence: several instructions in a row, so that what one leaves another finds: flags, registers, the floating-point unit,
 * memory. All flags count here, undefined ones too: engines that are worth comparing let the host's instructions make them.
 */
#include "cases.h"

#include <stdlib.h>

#define SEQUENCE_MAX 10
#define ATTEMPTS     40

/* Plain computation: neither branches nor what would fault once registers are no longer what cases.c made them. */
static bool belongs(const struct insn_form *f)
{
	if (f->undefined || f->sequence || f->reason || f->op <= OP_RET_FAR || cpu_system_ops[f->op])
		return f->op == OP_HOST;
	if (f->op >= OP_CALL && f->op <= OP_LOOPNE)
		return false;
	switch (f->op) {
	case OP_GATHER:
	case OP_MASKMOV:
	case OP_DIV:
	case OP_IDIV:
	case OP_ENTER:
	case OP_LEAVE:
	case OP_XLAT:
	case OP_BOUND:
	case OP_PUSHA:
	case OP_PUSHAD:
	case OP_POPA:
	case OP_POPAD:
	case OP_UD0:
	case OP_UD1:
	case OP_UD2: return false;
	default: return true;
	}
}

/* Bit offsets in registers reach anywhere. */
static bool stays_near(const struct insn *i)
{
	return !(i->op >= OP_BT && i->op <= OP_BTC && i->form == FORM_MR) && i->form != FORM_OTHER;
}

/* ---- x87 ---- */

/* MMX and x87 computation and control; `environment`: what stores and loads state in memory, and EMMS and FWAIT. */
static bool belongs_x87(const struct insn_form *f, bool environment)
{
	if (f->undefined || f->sequence || f->reason || f->name[0] == 'v')
		return false;
	if (f->host)
		return !environment && (f->name[0] == 'f' || (strstr(f->name, "mm") && !strstr(f->name, "xmm")));
	switch (f->op) {
	case OP_FXSAVE:
	case OP_FXSAVE64:
	case OP_FXRSTOR:
	case OP_FXRSTOR64:
	case OP_XSAVE:
	case OP_XSAVE64:
	case OP_XRSTOR:
	case OP_XRSTOR64:
	case OP_LDMXCSR:
	case OP_STMXCSR:
	case OP_FNSAVE:
	case OP_FRSTOR:
	case OP_FNSTENV:
	case OP_FLDENV:
	case OP_FWAIT:
	case OP_EMMS: return environment;
	default: return false;
	}
}

bool sequence_prepare(struct cases *c)
{
	c->x87_forms = calloc(c->forms->count, sizeof(*c->x87_forms));
	c->environment_forms = calloc(c->forms->count, sizeof(*c->environment_forms));
	if (!c->x87_forms || !c->environment_forms)
		return false;
	for (uint32_t n = 0; n < c->forms->count; n++) {
		if (belongs_x87(&c->forms->form[n], false))
			c->x87_forms[c->x87_count++] = n;
		if (belongs_x87(&c->forms->form[n], true))
			c->environment_forms[c->environment_count++] = n;
	}
	return true;
}

static uint64_t image_place(const struct insn *i)
{
	switch (i->op) {
	case OP_FNSAVE:
	case OP_FRSTOR:
	case OP_FNSTENV:
	case OP_FLDENV: return i->opsize == 2 ? IMAGE_X87_16 : IMAGE_X87_32;
	case OP_LDMXCSR:
	case OP_STMXCSR: return IMAGE_MXCSR;
	default: return i->flags & INSN_SYSTEM ? IMAGE_XSAVE : 0;
	}
}

static void put_images(struct cases *c)
{
	fix_environment(c, IMAGE_X87_16, 2);
	fix_environment(c, IMAGE_X87_32, 4);
	fix_xsave(c, IMAGE_XSAVE);
	put_value(c, IMAGE_MXCSR, rng_next(&c->rng) & 0xffff, 4);
}

static struct insn_form *choose_form(struct cases *c, bool x87)
{
	if (!x87)
		return &c->forms->form[rng_below(&c->rng, c->forms->count)];
	if (rng_one_in(&c->rng, 2))
		return &c->forms->form[c->environment_forms[rng_below(&c->rng, c->environment_count)]];
	return &c->forms->form[c->x87_forms[rng_below(&c->rng, c->x87_count)]];
}

/* ---- all ---- */

/* MOV EAX, a mask of components: what it was may have been replaced. */
static void put_component_mask(struct cases *c, struct test_case *t)
{
	if (c->mode == MODE_16)
		t->bytes[t->len++] = 0x66;
	t->bytes[t->len++] = 0xb8;
	store_le32(t->bytes + t->len, rng_one_in(&c->rng, 2) ? MODEL_COMPONENTS : rng_below(&c->rng, 8));
	t->len += 4;
}

static bool append(struct cases *c, struct test_case *t, bool x87)
{
	struct insn_form *form = choose_form(c, x87);
	struct test_case one = { .form = form, .before = t->before };
	struct encoding_fields f;
	const struct encoding *e;
	uint64_t image;

	if (!x87 && !belongs(form))
		return false;
	e = &form->encodings[rng_below(&c->rng, form->encoding_count)];
	one.before.rip += t->len;
	if (!make_instruction(c, form, e, &f, &one) || one.insn.op == OP_TOO_LONG || !stays_near(&one.insn) ||
	    (one.insn.flags & (x87 ? INSN_ENDS : INSN_ENDS | INSN_SYSTEM)))
		return false;
	image = x87 ? image_place(&one.insn) : 0;
	c->target = DATA + 512 + (rng_below(&c->rng, 2 * PAGE_SIZE - 2048) & ~(operand_alignment(&one) - 1));
	if (x87)
		c->target = image ? image : DATA + PAGE_SIZE + (c->target & 0x7ff);
	if (e->memory) {
		place_operand(c, e, &f, &one);
		if (!image)
			element_values(c);
	}
	if (has_component_mask(one.insn.op))
		put_component_mask(c, t);
	memcpy(t->bytes + t->len, one.bytes, one.len);
	t->len += one.len;
	return true;
}

bool sequence_make(struct cases *c, struct test_case *t, bool x87)
{
	static const struct insn several = { .op = OP_NOP, .flags = INSN_SYSTEM };
	unsigned wanted = 2 + rng_below(&c->rng, SEQUENCE_MAX - 1), count = 0;
	struct segment data;

	t->insn = several;
	make_state(c, &t->before);
	data = segment_of(t->before.sel[DS]);
	if (x87 && c->mode != MODE_64 && !segment_holds(&data, DATA))
		return false; /* there are no images to load */
	put_instruction(c, t, true);
	t->before.gpr[RSP] = segment_offset(c->mode, &t->before, SS, STACK + STACK_SIZE / 2);
	if (x87) {
		put_images(c);
		t->before.gpr[RDX] = 0;
	}
	c->no_address_registers = true;
	for (unsigned n = 0; n < ATTEMPTS && count < wanted; n++)
		count += append(c, t, x87);
	c->no_address_registers = false;
	return count != 0;
}
