/*
 * The stack of 16- and 32-bit code: operands of two or four bytes on a stack whose pointer is SP or ESP. The store comes before the
 * pointer moves, so that a fault restarts the whole.
 */
#include "engine/bt/emit.h"

/* ---- pieces ---- */

static struct host_memory_operand stack_offset(struct emitter *e, int32_t disp)
{
	struct host_memory_operand m = based_operand(RSP, disp);

	if (!e->stack16)
		return m;
	if (disp)
		emit_lea_operand(e, false, R10, &m);
	emit_zero_extend16(e, R10, disp ? R10 : RSP);
	return based_operand(R10, 0);
}

struct host_memory_operand emit_stack_operand(struct emitter *e, int32_t disp, unsigned size, bool write)
{
	struct host_memory_operand m = stack_offset(e, disp);

	emit_in_segment(e, SS, e->stack16 ? 2 : 4, size, write, &m);
	return m;
}

struct host_memory_operand emit_stack_parts(struct emitter *e, int32_t disp, unsigned size)
{
	struct host_memory_operand m = stack_offset(e, disp);

	if (!e->stack16)
		emit_in_segment(e, SS, 4, size, true, &m);
	else {
		emit_check_limit(e, BT_WRAP_LIMIT, (int)size);
		emit_add_base(e, SS, &m);
	}
	return m;
}

/* The pointer's register to that of another one plus so much. */
static void set_stack(struct emitter *e, unsigned from, int32_t disp)
{
	const struct host_memory_operand m = based_operand(from, disp);

	emit_op_sized(e, e->stack16 ? 2 : 4, 0x8d, RSP, &m);
}

void emit_move_stack(struct emitter *e, int32_t by) { set_stack(e, RSP, by); }

/* ---- PUSH ---- */

void emit32_push_register(struct emitter *e, unsigned reg, unsigned size)
{
	const struct host_memory_operand m = emit_stack_operand(e, -(int32_t)size, size, true);

	emit_op_sized(e, size, 0x89, reg, &m);
	emit_move_stack(e, -(int32_t)size);
}

void emit32_push_constant(struct emitter *e, uint32_t value, unsigned size)
{
	const struct host_memory_operand m = emit_stack_operand(e, -(int32_t)size, size, true);
	struct encoding mov = { .prefixes = size == 2 ? PREFIX_66 : 0,
				.opcode = { 0xc7 },
				.opcode_len = 1,
				.modrm = true,
				.imm_len = (uint8_t)size };

	store_le32(mov.imm, value);
	emit_encoding(e, &mov, &m);
	emit_move_stack(e, -(int32_t)size);
}

/* Of memory: two accesses, of which either may fault, since nothing but scratch registers is changed before the second. */
static enum emit_result emit_push(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m;

	if (i->form == FORM_I) {
		emit32_push_constant(e, (uint32_t)i->imm, i->opsize);
	} else if (i->form == FORM_R) {
		emit32_push_register(e, i->reg / 8u, i->opsize);
	} else {
		emit32_operand_sized(e, i, i->opsize, false, &m);
		emit_op_sized(e, i->opsize, 0x8b, R12, &m);
		emit32_push_register(e, R12, i->opsize);
	}
	return EMIT_DONE;
}

/* ---- POP ---- */

/* Into memory: addressed with ESP as it is behind the POP, SDM vol. 2B. The value waits in R12. */
static enum emit_result emit_pop_memory(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m = emit_stack_operand(e, 0, i->opsize, false);
	struct insn behind = *i;

	if (i->base == 8 * RSP) {
		if (e->stack16)
			return EMIT_CALLOUT;
		behind.disp += i->opsize;
	}
	emit_op_sized(e, i->opsize, 0x8b, R12, &m);
	emit32_operand_sized(e, &behind, i->opsize, true, &m);
	emit_op_sized(e, i->opsize, 0x89, R12, &m);
	emit_move_stack(e, i->opsize);
	return EMIT_DONE;
}

static enum emit_result emit_pop(struct emitter *e, const struct insn *i)
{
	unsigned reg = i->reg / 8u;
	struct host_memory_operand m;

	if (i->form != FORM_R)
		return emit_pop_memory(e, i);
	/* SP of an ESP that moves. */
	if (reg == RSP && i->opsize == 2 && !e->stack16)
		return EMIT_CALLOUT;
	m = emit_stack_operand(e, 0, i->opsize, false);
	emit_op_sized(e, i->opsize, 0x8b, reg, &m);
	if (reg != RSP)
		emit_move_stack(e, i->opsize);
	return EMIT_DONE;
}

void emit32_pop_target(struct emitter *e, unsigned size, unsigned more)
{
	const struct encoding movzx = { .opcode = { 0x0f, 0xb7 }, .opcode_len = 2, .modrm = true, .reg = R10 };
	const struct host_memory_operand m = emit_stack_operand(e, 0, size, false);

	if (size == 2)
		emit_encoding(e, &movzx, &m);
	else
		emit_op(e, false, 0x8b, R10, &m);
	emit32_check_target(e, size);
	emit_move_stack(e, (int32_t)(size + more));
}

static enum emit_result emit_op_leave(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m = based_operand(RBP, 0);

	if (e->stack16) {
		emit_zero_extend16(e, R10, RBP);
		m = based_operand(R10, 0);
	}
	emit_in_segment(e, SS, e->stack16 ? 2 : 4, i->opsize, false, &m);
	emit_op_sized(e, i->opsize, 0x8b, R12, &m);
	set_stack(e, RBP, i->opsize);
	emit_move_sized(e, i->opsize, RBP, R12);
	return EMIT_DONE;
}

/* ---- all registers ---- */

/* Eight stores: were there page faults, one could come in the middle, when nothing may have been written. */
static enum emit_result emit_pusha(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m;

	if (!e->no_paging || !emit_spans_parts(e, SS))
		return EMIT_CALLOUT;
	m = emit_stack_parts(e, -8 * i->opsize, 8 * i->opsize);
	for (unsigned reg = RAX; reg <= RDI; reg++) {
		struct host_memory_operand at = m;

		at.disp += (int32_t)((RDI - reg) * i->opsize);
		emit_op_sized(e, i->opsize, 0x89, reg, &at);
	}
	emit_move_stack(e, -8 * i->opsize);
	return EMIT_DONE;
}

/* What the 64 bits in `from` hold goes to registers, the lowest first; SP's is left out. `from` is lost. */
static void pop_words(struct emitter *e, unsigned from, unsigned first)
{
	for (unsigned n = 0; n < 4; n++) {
		if (first - n != RSP)
			emit_move_sized(e, 2, first - n, from);
		if (n < 3)
			emit_rotate(e, true, from, from, 16);
	}
}

/* All is loaded before the first register is written, so that a fault leaves them. POPAD has more than scratch registers hold. */
static enum emit_result emit_popa(struct emitter *e)
{
	struct host_memory_operand m;

	if (!emit_spans_parts(e, SS))
		return EMIT_CALLOUT;
	m = emit_stack_parts(e, 0, 16);
	emit_op(e, true, 0x8b, R12, &m);
	m.disp += 8;
	emit_op(e, true, 0x8b, R11, &m);
	pop_words(e, R12, RDI);
	pop_words(e, R11, RBX);
	emit_move_stack(e, 16);
	return EMIT_DONE;
}

/* ---- which is which ---- */

enum emit_result emit32_stack(struct emitter *e, const struct insn *i)
{
	switch (i->op) {
	case OP_PUSH: return emit_push(e, i);
	case OP_POP: return emit_pop(e, i);
	case OP_LEAVE: return emit_op_leave(e, i);
	case OP_PUSHA:
	case OP_PUSHAD: return emit_pusha(e, i);
	case OP_POPA: return emit_popa(e);
	default: return EMIT_CALLOUT;
	}
}
