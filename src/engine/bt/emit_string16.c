/*
 * String instructions of 16- and 32-bit code: one element by ordinary accesses, in any segment and direction; and repetitions with SI,
 * DI and CX in real-address and virtual-8086 mode, which become themselves as those of 64-bit code do (emit_string.c): once it is
 * known that neither pointer wraps or passes a limit on the way, RSI and RDI are moved into the window, and back.
 */
#include "engine/bt/emit.h"

enum { MOVS = 0xa4, CMPS = 0xa6, STOS = 0xaa, LODS = 0xac, SCAS = 0xae };

/* ---- one element ---- */

static struct host_memory_operand element(struct emitter *e, const struct insn *i, enum seg seg, unsigned pointer,
					  bool write)
{
	struct host_memory_operand m = based_operand(pointer, 0);

	if (i->addrsize == 2) {
		emit_zero_extend16(e, R10, pointer);
		m = based_operand(R10, 0);
	}
	emit_in_segment(e, seg, i->addrsize, i->opsize, write, &m);
	return m;
}

static void advance(struct emitter *e, const struct insn *i, unsigned pointer)
{
	const struct host_memory_operand m = based_operand(pointer, e->down ? -(int32_t)i->opsize : i->opsize);

	emit_op_sized(e, i->addrsize, 0x8d, pointer, &m);
}

/* Nothing of the guest's is changed before the last access. */
bool emit_string_element(struct emitter *e, const struct insn *i, uint8_t opcode, uint8_t pointers)
{
	const uint8_t load = 0x8b, store = 0x89, compare = 0x3b;
	bool two = pointers == (BT_STRING_SOURCE | BT_STRING_DESTINATION);
	unsigned value = two ? R12 : RAX;
	struct host_memory_operand m;

	if (i->flags & (INSN_REP | INSN_REPNE))
		return false;
	if (pointers & BT_STRING_SOURCE) {
		m = element(e, i, i->seg, RSI, false);
		emit_op_sized(e, i->opsize, load, value, &m);
	}
	if (pointers & BT_STRING_DESTINATION) {
		bool writes = opcode == MOVS || opcode == STOS;

		m = element(e, i, ES, RDI, writes);
		emit_op_sized(e, i->opsize, writes ? store : compare, value, &m);
	}
	if (pointers & BT_STRING_SOURCE)
		advance(e, i, RSI);
	if (pointers & BT_STRING_DESTINATION)
		advance(e, i, RDI);
	return true;
}

/* ---- repetitions ---- */

/* Faults if the elements from the pointer on do not all lie below 64 KiB: R11 is CX. */
static void check_string_span(struct emitter *e, const struct insn *i, unsigned pointer)
{
	const struct host_memory_operand end = { .base = R10,
						 .index = R11,
						 .scale = (uint8_t)__builtin_ctz(i->opsize) };

	emit_zero_extend16(e, R11, RCX);
	emit_zero_extend16(e, R10, pointer);
	emit_lea_operand(e, false, R10, &end);
	emit_check_limit(e, BT_WRAP_LIMIT, 0);
}

/* Where the segment's offset 0 is, R12 being the window, to `to`. */
static void emit_segment_start(struct emitter *e, enum seg seg, unsigned to)
{
	const struct host_memory_operand sum = { .base = (uint8_t)to, .index = R12 };

	if (seg == CS)
		emit_mov_imm(e, to, e->code_base);
	else
		emit_load_state(e, to, BT_BASE(seg));
	emit_lea_operand(e, true, to, &sum);
}

static void enter_window(struct emitter *e, unsigned pointer, unsigned start, uint32_t saved)
{
	const struct host_memory_operand sum = { .base = (uint8_t)pointer, .index = (uint8_t)start };

	emit_store_state(e, pointer, saved);
	emit_zero_extend16(e, pointer, pointer);
	emit_lea_operand(e, true, pointer, &sum);
}

/* The low 16 bits of the pointer are what it was moved by; the others are as they were. `start` is lost. */
static void leave_window(struct emitter *e, unsigned pointer, unsigned start, uint32_t saved)
{
	const struct host_memory_operand sum = { .base = (uint8_t)pointer, .index = (uint8_t)start, .disp = 1 };

	emit_not(e, start);
	emit_lea_operand(e, false, start, &sum);
	emit_load_state(e, pointer, saved);
	emit_move_sized(e, 2, pointer, start);
}

bool emit_string_repeated16(struct emitter *e, const struct insn *i, uint8_t opcode, uint8_t pointers)
{
	const uint32_t saved = (uint32_t)offsetof(struct bt_vcpu, frame.string_saved);
	const struct host_memory_operand slot_0 = based_operand(R12, -SLOT_SHIFT);
	bool source = pointers & BT_STRING_SOURCE, destination = pointers & BT_STRING_DESTINATION;

	if (!e->real || e->down || e->way == BY_TLB || i->addrsize != 2 || !(i->flags & (INSN_REP | INSN_REPNE)) ||
	    (source && !emit_spans_parts(e, i->seg)) || (destination && !emit_spans_parts(e, ES)))
		return false;
	if (source)
		check_string_span(e, i, RSI);
	if (destination)
		check_string_span(e, i, RDI);
	emit_load_state(e, R12, (uint32_t)offsetof(struct bt_vcpu, slot_r15));
	emit_op(e, true, 0x8b, R12, &slot_0);
	if (source)
		emit_segment_start(e, i->seg, R10);
	if (destination)
		emit_segment_start(e, ES, R11);
	if (source)
		enter_window(e, RSI, R10, saved);
	if (destination)
		enter_window(e, RDI, R11, saved + 8);
	emit_move_sized(e, 4, R12, RCX);
	emit_zero_extend16(e, RCX, RCX);
	e->string_at = e->at;
	e->string_pointers = pointers | BT_STRING_16;
	emit_string_instruction(e, i, opcode);
	if (source)
		leave_window(e, RSI, R10, saved);
	if (destination)
		leave_window(e, RDI, R11, saved + 8);
	emit_move_sized(e, 2, R12, RCX);
	emit_move_sized(e, 4, RCX, R12);
	return true;
}
