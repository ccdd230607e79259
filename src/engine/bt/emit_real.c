/*
 * Segment registers of 16- and 32-bit code. Storing them needs nothing. Loading them is C's in protected mode; in real-address and
 * virtual-8086 mode it sets a base, as long as nothing else of the segment changes (mode.c: the segment is plain or wide). So there far
 * transfers are jumps to other addresses of code (bt_address()): the key of blocks is the same whatever the bases are.
 *
 * What C has derived of CS is put right when it comes next: bt_note_code_segment().
 */
#include "engine/bt/emit.h"
#include "engine/bt/runtime.h"

bool emit_sets_base_alone(const struct emitter *e, enum seg seg) { return e->real && emit_spans_parts(e, seg); }

/* The selector in R11, zero-extended, is loaded; R11 is the base then. */
static void emit_load_segment(struct emitter *e, enum seg seg)
{
	static const uint8_t registers[] = { [DS] = R8, [SS] = R9, [FS] = R13, [GS] = R14 };

	emit_store_state16(e, R11, BT_SELECTOR(seg));
	emit_rotate(e, false, R11, R11, 28); /* times 16 */
	emit_store_state(e, R11, BT_BASE(seg));
	if (seg != ES && seg != CS)
		emit_move_sized(e, 4, registers[seg], R11);
}

/* ---- MOV, PUSH, POP, LDS and its like ---- */

static enum emit_far emit_store(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m;

	if (i->sreg > GS)
		return FAR_CALLOUT;
	if (i->form == FORM_M) {
		emit32_operand_sized(e, i, 2, true, &m);
		emit_load_state16(e, R12, BT_SELECTOR(i->sreg));
		emit_op_sized(e, 2, 0x89, R12, &m);
	} else {
		emit_load_state16(e, R10, BT_SELECTOR(i->sreg));
		emit_move_sized(e, i->opsize, i->reg / 8u, R10);
	}
	return FAR_NEXT;
}

/* Behind a load of SS comes a shadow: C's. */
static bool is_loaded_here(const struct emitter *e, enum seg seg)
{
	return seg != SS && seg != CS && seg <= GS && emit_sets_base_alone(e, seg);
}

static enum emit_far emit_mov(struct emitter *e, const struct insn *i)
{
	const struct encoding movzx = { .opcode = { 0x0f, 0xb7 }, .opcode_len = 2, .modrm = true, .reg = R11 };
	struct host_memory_operand m;

	if (i->store)
		return emit_store(e, i);
	if (!is_loaded_here(e, i->sreg))
		return FAR_CALLOUT;
	if (i->form == FORM_M) {
		emit32_operand_sized(e, i, 2, false, &m);
		emit_encoding(e, &movzx, &m);
	} else {
		emit_zero_extend16(e, R11, i->reg / 8u);
	}
	emit_load_segment(e, i->sreg);
	return FAR_NEXT;
}

static enum emit_far emit_pop_segment(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m;

	if (!is_loaded_here(e, i->sreg))
		return FAR_CALLOUT;
	m = emit_stack_operand(e, 0, i->opsize, false);
	emit_op_sized(e, i->opsize, 0x8b, R12, &m);
	emit_move_stack(e, i->opsize);
	emit_zero_extend16(e, R11, R12);
	emit_load_segment(e, i->sreg);
	return FAR_NEXT;
}

static enum emit_far emit_far_pointer(struct emitter *e, const struct insn *i)
{
	if (!(i->flags & INSN_MEM) || !is_loaded_here(e, i->sreg) || !emit_load_far_pointer(e, i))
		return FAR_CALLOUT;
	emit_move_sized(e, 2, i->reg / 8u, R12);
	emit_rotate(e, false, R11, R12, 16);
	emit_zero_extend16(e, R11, R11);
	emit_load_segment(e, i->sreg);
	return FAR_NEXT;
}

/* ---- far transfers ---- */

void emit_far_return_r12(struct emitter *e, uint32_t next)
{
	const struct host_memory_operand sum = based_operand(R12, (int32_t)(next & 0xffff));

	emit_load_state16(e, R12, BT_SELECTOR(CS));
	emit_rotate(e, false, R12, R12, 16);
	emit_lea_operand(e, false, R12, &sum);
}

/* CS and IP onto the stack, in one store as they will be in one load. R12 is lost. */
static void emit_push_return(struct emitter *e, uint32_t next)
{
	struct host_memory_operand m = emit_stack_parts(e, -4, 4);

	emit_far_return_r12(e, next);
	emit_op(e, false, 0x89, R12, &m);
	emit_move_stack(e, -4);
}

void emit_go_far(struct emitter *e)
{
	const struct host_memory_operand sum = { .base = R10, .index = R11 };

	emit_rotate(e, false, R11, R12, 16);
	emit_zero_extend16(e, R11, R11);
	emit_load_segment(e, CS);
	emit_rotate(e, true, R11, R11, 32);
	emit_zero_extend16(e, R10, R12);
	emit_lea_operand(e, true, R10, &sum);
}

static enum emit_far emit_transfer(struct emitter *e, const struct insn *i, uint32_t next, uint64_t *target)
{
	const uint32_t kept = (uint32_t)offsetof(struct bt_vcpu, frame.call);
	bool call = i->op == OP_CALL_FAR;
	uint16_t selector = (uint16_t)(i->imm >> 32);

	if (i->opsize != 2 || !emit_sets_base_alone(e, CS) || (call && !emit_spans_parts(e, SS)))
		return FAR_CALLOUT;
	if (i->form == FORM_M) {
		if (!emit_load_far_pointer(e, i))
			return FAR_CALLOUT;
		if (call) {
			emit_store_state(e, R12, kept);
			emit_push_return(e, next);
			emit_load_state(e, R12, kept);
		}
		emit_go_far(e);
		return FAR_COMPUTED;
	}
	if (call)
		emit_push_return(e, next);
	emit_mov_imm(e, R11, selector);
	emit_load_segment(e, CS);
	*target = (uint64_t)selector << 36 | (uint16_t)i->imm;
	return FAR_DIRECT;
}

static enum emit_far emit_return(struct emitter *e, const struct insn *i)
{
	uint16_t release = i->form == FORM_I ? (uint16_t)i->imm : 0;
	struct host_memory_operand m;

	if (i->opsize != 2 || !emit_sets_base_alone(e, CS) || !emit_spans_parts(e, SS))
		return FAR_CALLOUT;
	m = emit_stack_parts(e, 0, 4);
	emit_op(e, false, 0x8b, R12, &m);
	emit_move_stack(e, 4 + release);
	emit_go_far(e);
	return FAR_COMPUTED;
}

/* ---- which is which ---- */

enum emit_far emit_segment_insn(struct emitter *e, const struct insn *i, uint32_t next, uint64_t *target)
{
	switch (i->op) {
	case OP_MOV_SREG: return emit_mov(e, i);
	case OP_POP_SREG: return emit_pop_segment(e, i);
	case OP_LDS:
	case OP_LES:
	case OP_LFS:
	case OP_LGS: return emit_far_pointer(e, i);
	case OP_JMP_FAR:
	case OP_CALL_FAR: return emit_transfer(e, i, next, target);
	case OP_RET_FAR: return emit_return(e, i);
	default: return emit_interrupt_insn(e, i, next);
	}
}
