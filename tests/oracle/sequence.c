/*
 * sequence: several instructions in a row, so that what one leaves another finds: flags, registers, the floating-point unit,
 * memory. All flags count here, undefined ones too: engines that are worth comparing let the host's instructions make them.
 */
#include "cases.h"

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

static bool append(struct cases *c, struct test_case *t)
{
	struct insn_form *form = &c->forms->form[rng_below(&c->rng, c->forms->count)];
	struct test_case one = { .form = form, .before = t->before };
	struct encoding_fields f;
	const struct encoding *e;

	if (!belongs(form))
		return false;
	e = &form->encodings[rng_below(&c->rng, form->encoding_count)];
	one.before.rip += t->len;
	if (!make_instruction(c, form, e, &f, &one) || (one.insn.flags & (INSN_ENDS | INSN_SYSTEM)) ||
	    !stays_near(&one.insn))
		return false;
	c->target = DATA + 512 + (rng_below(&c->rng, 2 * PAGE_SIZE - 2048) & ~(operand_alignment(&one) - 1));
	if (e->memory) {
		place_operand(c, e, &f, &one);
		element_values(c);
	}
	memcpy(t->bytes + t->len, one.bytes, one.len);
	t->len += one.len;
	return true;
}

bool sequence_make(struct cases *c, struct test_case *t)
{
	static const struct insn several = { .op = OP_NOP, .flags = INSN_SYSTEM };
	unsigned wanted = 2 + rng_below(&c->rng, SEQUENCE_MAX - 1), count = 0;

	t->insn = several;
	make_state(c, &several, &t->before);
	put_instruction(c, t, true);
	t->before.gpr[RSP] = segment_offset(c->mode, &t->before, SS, STACK + STACK_SIZE / 2);
	c->no_address_registers = true;
	for (unsigned n = 0; n < ATTEMPTS && count < wanted; n++)
		count += append(c, t);
	c->no_address_registers = false;
	return count != 0;
}
