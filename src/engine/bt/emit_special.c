/* Instructions that are not copied: those that use the stack, LEA, absolute moves, bit strings; and those that C does. */
#include "engine/bt/emit.h"

/* ---- the stack ---- */

static enum special_result emit_push(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip)
{
	if (i->opsize != 8)
		return SPECIAL_CALLOUT;
	if (i->form == FORM_I) {
		emit_push_constant(e, i->imm);
	} else if (i->form == FORM_R && !bt_spilled(i->reg / 8u)) {
		emit_push_register(e, i->reg / 8u);
	} else {
		/* Two accesses to memory: either may fault, since nothing but R10 and R11 is changed before the second. */
		if (emit_operand_r10(e, i, h, rip) != EMIT_DONE)
			return SPECIAL_CALLOUT;
		emit_push_register(e, R10);
	}
	return SPECIAL_DONE;
}

static enum special_result emit_pop(struct emitter *e, const struct insn *i)
{
	unsigned reg = i->reg / 8u;

	if (i->opsize != 8 || i->form != FORM_R)
		return SPECIAL_CALLOUT;
	if (bt_spilled(reg)) {
		emit_load_guest(e, R10, RSP, 0);
		emit_lea(e, RSP, RSP, 8);
		emit_store_state(e, R10, BT_GPR(reg));
	} else {
		emit_load_guest(e, reg, RSP, 0);
		if (reg != RSP)
			emit_lea(e, RSP, RSP, 8);
	}
	return SPECIAL_DONE;
}

static enum special_result emit_op_leave(struct emitter *e, const struct insn *i)
{
	if (i->opsize != 8)
		return SPECIAL_CALLOUT;
	emit_load_guest(e, R10, RBP, 0);
	emit_lea(e, RSP, RBP, 8);
	emit_move(e, RBP, R10);
	return SPECIAL_DONE;
}

/* ---- LEA ---- */

static enum special_result emit_lea_insn(struct emitter *e, const struct insn *i, const struct insn_host *h,
					 uint64_t rip)
{
	unsigned reg = i->reg / 8u, to = bt_spilled(reg) ? R10 : reg;
	struct host_memory_operand m;
	uint64_t constant;

	/* Of 16 bits: rare. */
	if (i->opsize < 4)
		return SPECIAL_CALLOUT;
	if (emit_effective(e, i, h, rip, &m, &constant))
		emit_lea_operand(e, i->opsize == 8 && i->addrsize == 8, to, &m);
	else
		emit_mov_imm(e, to, i->opsize == 8 ? constant : (uint32_t)constant);
	if (bt_spilled(reg))
		emit_store_state(e, to, BT_GPR(reg));
	return SPECIAL_DONE;
}

/* ---- MOV between the accumulator and an absolute address ---- */

static enum special_result emit_moffs(struct emitter *e, const struct insn *i)
{
	struct encoding c = { .prefixes = i->opsize == 2 ? PREFIX_66 : 0,
			      .w = i->opsize == 8,
			      .opcode_len = 1,
			      .modrm = true,
			      .reg = RAX };
	struct address a;

	if (!emit_absolute(e, i, i->imm, i->opsize, i->store, &a))
		return SPECIAL_CALLOUT;
	c.opcode[0] = (uint8_t)((i->store ? 0x88 : 0x8a) | (i->opsize != 1));
	emit_encoding(e, &c, &a.operand);
	if (!i->store)
		emit_forget(e, RAX);
	return SPECIAL_DONE;
}

/* ---- bit strings ---- */

/* R10 = base, displacement, and 8 bytes times a 256th of the offset in a register (`place`: or in memory); R11 its window. */
static void emit_bit_string_base(struct emitter *e, unsigned base, int32_t disp, unsigned offset,
				 const struct host_memory_operand *place)
{
	const struct encoding count = { .has_rex = true,
					.opcode = { 0xb0 },
					.opcode_len = 1,
					.rm = R11,
					.fields = FIELD_RM,
					.imm = { 8 },
					.imm_len = 1 };
	const struct encoding shift = { .vex = true,
					.map = 2,
					.pp = 2,
					.w = true,
					.opcode = { 0xf7 },
					.opcode_len = 1,
					.modrm = true,
					.reg = R11,
					.rm = (uint8_t)offset,
					.vvvv = R11 };
	struct host_memory_operand sum = { .base = HOST_NONE, .index = R11, .scale = 3 };

	emit_encoding(e, &count, NULL);
	emit_encoding(e, &shift, place);
	emit_lea_operand(e, true, R11, &sum);
	sum = (struct host_memory_operand){ .base = (uint8_t)base, .index = R11, .scale = 2, .disp = disp };
	emit_lea_operand(e, true, R10, &sum);
	emit_window(e, R10, false);
}

/*
 * BT, BTS, BTR, BTC of memory with a 64-bit offset in a register reach 2^60 bytes to either side. So 32 bytes times the
 * offset's bits above 8 are added to the address before its slot is looked up; what is left of the offset reaches 31 bytes.
 * (Offsets of 32 bits reach 256 MiB, with displacement and drift less than the guard: they are copied.)
 */
static enum special_result emit_bit_string(struct emitter *e, const struct insn *i, const struct insn_host *h,
					   uint64_t rip)
{
	struct encoding c,
		low = { .has_rex = true, .opcode = { 0x0f, 0xb6 }, .opcode_len = 2, .modrm = true, .reg = R15 };
	unsigned offset = i->reg / 8u;
	struct host_memory_operand state = state_operand(BT_GPR(offset)), *place = bt_spilled(offset) ? &state : NULL,
				   m;
	uint64_t constant;

	if (i->form != FORM_MR)
		return SPECIAL_NONE;
	/* The sum would be of 32 bits; what the TLB leads to is one page. */
	if (i->addrsize != 8 || e->way == BY_TLB)
		return SPECIAL_CALLOUT;
	if (i->opsize != 8)
		return SPECIAL_NONE;
	if (i->seg >= FS || !encoding_take(&c, i, h, false))
		return SPECIAL_CALLOUT;

	/* A register, or R10 = effective address */
	if (!emit_effective(e, i, h, rip, &m, &constant)) {
		emit_mov_imm(e, R10, constant);
		m = based_operand(R10, 0);
	} else if (m.index != HOST_NONE) {
		emit_lea_operand(e, true, R10, &m);
		m = based_operand(R10, 0);
	}
	emit_bit_string_base(e, m.base, m.disp, offset, place);
	/* R15 = the offset's low 8 bits */
	low.rm = (uint8_t)offset;
	emit_encoding(e, &low, place);
	c.reg = R15;
	m = windowed_operand(R11, R10, 0);
	emit_encoding(e, &c, &m);
	emit_load_state(e, R15, (uint32_t)offsetof(struct bt_vcpu, slot_r15));
	return SPECIAL_DONE;
}

/* ---- the operand of an indirect branch or PUSH ---- */

enum emit_result emit_operand_r10(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip)
{
	struct insn_host operand = *h;
	struct emitter before = *e;
	unsigned reg = i->reg / 8u;
	struct address a;

	/* What the instruction does to the stack is another access. */
	operand.mem_size = 8;
	operand.mem_written = false;
	if (e->code32)
		return emit32_operand_r10(e, i, h);
	if (i->opsize != 8 || (i->form != FORM_R && i->form != FORM_M))
		return EMIT_CALLOUT;
	if (i->form == FORM_R) {
		if (bt_spilled(reg))
			emit_load_state(e, R10, BT_GPR(reg));
		else
			emit_move(e, R10, reg);
		return EMIT_DONE;
	}
	if (!emit_address(e, i, &operand, rip, &a)) {
		before.full |= e->full;
		*e = before;
		return EMIT_CALLOUT;
	}
	emit_op(e, true, 0x8b, R10, &a.operand);
	emit_forget(e, R10);
	return EMIT_DONE;
}

/* ---- which is which ---- */

/* Hints, and branch targets of a feature no model has. */
bool emit_is_nothing(enum op op)
{
	return op == OP_NOP || op == OP_ENDBR32 || op == OP_ENDBR64 || (op >= OP_PREFETCH && op <= OP_PREFETCHT2);
}

bool emit_is_for_c(const struct insn *i)
{
	if (i->flags & (INSN_SYSTEM | INSN_ENDS))
		return true;
	switch (i->op) {
	/*
	 * DF is 0 in translated code; PAUSE lets others run; gathers and masked moves leave out elements, whose addresses may
	 * be anything; CLFLUSHOPT and CLWB are offered on hosts that have none; XLAT, ENTER: rare.
	 */
	case OP_CLD:
	case OP_STD:
	case OP_PAUSE:
	case OP_GATHER:
	case OP_MASKMOV:
	case OP_CLFLUSHOPT:
	case OP_CLWB:
	case OP_XLAT:
	case OP_ENTER: return true;
	default: return false;
	}
}

enum special_result emit_special(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip)
{
	if (emit_is_for_c(i))
		return SPECIAL_CALLOUT;
	if (emit_is_nothing(i->op))
		return SPECIAL_DONE;
	switch (i->op) {
	case OP_PUSH: return emit_push(e, i, h, rip);
	case OP_POP: return emit_pop(e, i);
	case OP_LEAVE: return emit_op_leave(e, i);
	case OP_LEA: return emit_lea_insn(e, i, h, rip);
	case OP_MOV: return i->form == FORM_OTHER ? emit_moffs(e, i) : SPECIAL_NONE;
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC: return emit_bit_string(e, i, h, rip);
	default: return SPECIAL_NONE;
	}
}
