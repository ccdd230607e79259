/*
 * 16- and 32-bit code: nearly every instruction is copied, with two prefixes before a memory operand, and an operand-size prefix where
 * operands have 16 bits.
 *
 * Registers while such code runs:
 *   - RAX..RDI hold the guest's, the upper halves 0: the host's instructions have operands of 32 bits or less, which keeps it so;
 *     the guest's R8..R15 are in vcpu.s.gpr[];
 *   - GS base = window of slot 0, R15 = the vCPU;
 *   - R8, R9, R13, R14 = bases of DS, SS, FS, GS, 32 bits; R10, R11, R12 are scratch (emit.h says which for what);
 *   - all else as in 64-bit code (bt.h).
 *
 * Memory by windows: op %gs:disp(base,index,scale) with the address-size prefix. The host adds up 32 bits, exactly as the guest's processor does,
 * then the window: so whatever the registers hold, an access begins in the window's first 4 GiB. A segment base is one more
 * register of the sum. GS base is set by C whenever it enters translated code and the slot's window is another one.
 *
 * Accesses in segments that are not plain (a limit, no right to write, expand-down, null) are compared with a limit first: see
 * emit_segment.c and limits.c.
 */
#include "engine/bt/emit.h"

/* ---- copying ---- */

static bool is_extended(uint8_t reg) { return reg >= R8 && reg < HOST_NONE; }

/*
 * AH, CH, DH, BH beside a register that needs a REX prefix: R12B does it in their place, and what was written goes back between two
 * rotations.
 */
static void emit_high_byte(struct emitter *e, struct encoding *c, bool written, const struct host_memory_operand *m)
{
	unsigned guest = c->reg - 4u;
	const struct encoding mov = {
		.has_rex = true, .opcode = { 0x88 }, .opcode_len = 1, .modrm = true, .reg = R12, .rm = (uint8_t)guest
	};

	emit_rotate(e, false, R12, guest, 8);
	c->reg = R12;
	emit_encoding(e, c, m);
	if (written) {
		emit_rotate(e, false, guest, guest, 8);
		emit_encoding(e, &mov, NULL);
		emit_rotate(e, false, guest, guest, 24);
	}
}

static bool names_high_byte(const struct encoding *c, const struct insn *i)
{
	return (c->fields & FIELD_REG) && (i->form == FORM_RM || i->form == FORM_MR) && (i->reg & 7);
}

static enum emit_result emit_copy(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	struct host_memory_operand m;
	struct encoding c;

	if (!encoding_take(&c, i, h, true))
		return EMIT_CALLOUT;
	if (!c.memory) {
		emit_encoding(e, &c, NULL);
		return EMIT_DONE;
	}
	if (!emit32_operand(e, i, h, &m))
		return EMIT_CALLOUT;
	if (names_high_byte(&c, i) && (is_extended(m.base) || is_extended(m.index)))
		emit_high_byte(e, &c, h->gpr_written >> (i->reg / 8) & 1, &m);
	else
		emit_encoding(e, &c, &m);
	return EMIT_DONE;
}

/* ---- computed targets ---- */

enum emit_result emit32_operand_r10(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	const struct encoding movzx = { .opcode = { 0x0f, 0xb7 }, .opcode_len = 2, .modrm = true, .reg = R10 };
	struct host_memory_operand m;

	(void)h;
	if (i->form == FORM_R && i->opsize == 2) {
		emit_zero_extend16(e, R10, i->reg / 8u);
	} else if (i->form == FORM_R) {
		emit_move_sized(e, 4, R10, i->reg / 8u);
	} else if (i->form == FORM_M) {
		emit32_operand_sized(e, i, i->opsize, false, &m);
		if (i->opsize == 2)
			emit_encoding(e, &movzx, &m);
		else
			emit_op(e, false, 0x8b, R10, &m);
	} else {
		return EMIT_CALLOUT;
	}
	return EMIT_DONE;
}

void emit32_check_target(struct emitter *e, unsigned opsize)
{
	if (e->code_limit != UINT32_MAX && (opsize != 2 || e->code_limit < 0xffff))
		emit_check_limit(e, (uint32_t)offsetof(struct bt_vcpu, frame.code_limit), 1);
}

void emit32_code_address(struct emitter *e)
{
	const struct host_memory_operand sum = { .base = R10, .index = R11 };

	if (!e->code_base)
		return;
	emit_mov_imm(e, R11, (uint64_t)e->code_base << 32);
	emit_lea_operand(e, true, R10, &sum);
}

void emit32_effective_r10(struct emitter *e, const struct insn *i)
{
	const struct host_memory_operand m = emit_offset(e, i);

	emit_lea_operand(e, false, R10, &m);
}

/* ---- LEA, MOV of an absolute address ---- */

static enum emit_result emit_lea_insn(struct emitter *e, const struct insn *i)
{
	struct encoding lea = { .prefixes = i->opsize == 2 ? PREFIX_66 : 0,
				.opcode = { 0x8d },
				.opcode_len = 1,
				.modrm = true,
				.reg = i->reg / 8u };
	const struct host_memory_operand m = emit_offset(e, i);

	emit_encoding(e, &lea, &m);
	return EMIT_DONE;
}

/* MOV between the accumulator and an absolute address: no ModRM. */
static enum emit_result emit_moffs(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m;

	emit32_operand_sized(e, i, i->opsize, i->form == FORM_MR, &m);
	emit_op_sized(e, i->opsize, i->form == FORM_MR ? 0x89 : 0x8b, RAX, &m);
	return EMIT_DONE;
}

/* AL = the byte at rBX + AL. Decoding tells the segment alone. */
static enum emit_result emit_xlat(struct emitter *e, const struct insn *i)
{
	const struct encoding movzx = {
		.opcode = { 0x0f, 0xb6 }, .opcode_len = 2, .modrm = true, .reg = R10, .rm = RAX
	};
	struct host_memory_operand m = { .base = RBX, .index = R10 };

	emit_encoding(e, &movzx, NULL);
	emit_lea_operand(e, false, R10, &m);
	if (i->addrsize == 2)
		emit_zero_extend16(e, R10, R10);
	m = based_operand(R10, 0);
	emit_in_segment(e, i->seg, i->addrsize, 1, false, &m);
	emit_op_sized(e, 1, 0x8b, RAX, &m);
	return EMIT_DONE;
}

/* ---- bit strings ---- */

/*
 * BT, BTS, BTR, BTC of memory with a 32-bit offset in a register: 32 bytes times the offset's bits above 8 are added to the address
 * in 32 bits, where it may wrap; what is left of the offset reaches 31 bytes.
 */
static enum emit_result emit_bit_string(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	const struct encoding count = { .has_rex = true,
					.opcode = { 0xb0 },
					.opcode_len = 1,
					.rm = R11,
					.fields = FIELD_RM,
					.imm = { 8 },
					.imm_len = 1 };
	/* SARX: VEX.LZ.F3.0F38.W0 F7 */
	struct encoding shift = { .vex = true,
				  .map = 2,
				  .pp = 2,
				  .opcode = { 0xf7 },
				  .opcode_len = 1,
				  .modrm = true,
				  .reg = R11,
				  .vvvv = R11,
				  .rm = i->reg / 8u };
	struct encoding low = {
		.has_rex = true, .opcode = { 0x0f, 0xb6 }, .opcode_len = 2, .modrm = true, .reg = R12, .rm = i->reg / 8u
	};
	struct host_memory_operand m = guest_operand(i), times8 = { .base = HOST_NONE, .index = R11, .scale = 3 };
	struct encoding c;

	/* What the TLB leads to is one page. */
	if (i->opsize != 4 || i->addrsize != 4 || e->way == BY_TLB || i->seg == CS || !emit_is_flat(e, i->seg) ||
	    !encoding_take(&c, i, h, true))
		return EMIT_CALLOUT;
	if (m.index != HOST_NONE) {
		emit_lea_operand(e, false, R10, &m);
		m = based_operand(R10, 0);
	}
	emit_encoding(e, &count, NULL);
	emit_encoding(e, &shift, NULL);
	emit_lea_operand(e, false, R11, &times8);
	m.index = R11;
	m.scale = 2;
	emit_lea_operand(e, false, R10, &m);
	m = based_operand(R10, 0);
	m.guest = true;
	emit_encoding(e, &low, NULL);
	c.reg = R12;
	emit_encoding(e, &c, &m);
	return EMIT_DONE;
}

/* ---- VZEROUPPER, VZEROALL ---- */

/* Of eight registers; in 64-bit mode they would be sixteen. VMOVAPS to itself, or VPXOR. */
static enum emit_result emit_vzero(struct emitter *e, bool all)
{
	for (uint8_t n = 0; n < 8; n++) {
		const struct encoding c = { .vex = true,
					    .map = 1,
					    .pp = all,
					    .opcode = { all ? 0xef : 0x28 },
					    .opcode_len = 1,
					    .modrm = true,
					    .reg = n,
					    .rm = n,
					    .vvvv = all ? n : 0 };

		emit_encoding(e, &c, NULL);
	}
	return EMIT_DONE;
}

/* ---- which is which ---- */

/* Faults in protected mode. */
static bool writes_to_code(const struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	return !e->real && (i->flags & INSN_MEM) && i->seg == CS && h->mem_written;
}

enum emit_result emit32_insn(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	if (writes_to_code(e, i, h))
		return EMIT_CALLOUT;
	/* Needs no look at the machine. */
	if (i->op == OP_PUSH_SREG) {
		emit_load_state16(e, R12, BT_SELECTOR(i->sreg));
		emit32_push_register(e, R12, i->opsize);
		return EMIT_DONE;
	}
	if (i->op == OP_PUSHF && emit_pushf(e, i))
		return EMIT_DONE;
	if (i->op == OP_XLAT)
		return emit_xlat(e, i);
	if (emit_is_for_c(i))
		return EMIT_CALLOUT;
	if (emit_is_nothing(i->op))
		return EMIT_DONE;
	switch (i->op) {
	case OP_PUSH:
	case OP_POP:
	case OP_LEAVE:
	case OP_PUSHA:
	case OP_PUSHAD:
	case OP_POPA: return emit32_stack(e, i);
	case OP_LEA: return emit_lea_insn(e, i);
	case OP_MOV: return (i->flags & INSN_MEM) && !h->modrm_offset ? emit_moffs(e, i) : emit_copy(e, i, h);
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC: return i->form == FORM_MR ? emit_bit_string(e, i, h) : emit_copy(e, i, h);
	case OP_VZERO: return emit_vzero(e, i->imm);
	/* 64-bit code has none of these. */
	case OP_POPAD:
	case OP_AAA:
	case OP_AAS:
	case OP_AAD:
	case OP_AAM:
	case OP_DAA:
	case OP_DAS:
	case OP_BOUND:
	case OP_SALC: return EMIT_CALLOUT;
	default: return emit_copy(e, i, h);
	}
}
