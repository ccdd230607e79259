/*
 * 16- and 32-bit code: nearly every instruction is copied, with two prefixes before a memory operand.
 *
 * Registers while such code runs:
 *   - RAX..RDI hold the guest's, the upper halves 0: the host's instructions have operands of 32 bits or less, which keeps it so;
 *     the guest's R8..R15 are in vcpu.s.gpr[];
 *   - GS base = window of slot 0, R15 = the vCPU;
 *   - R8, R9, R13, R14 = bases of DS, SS, FS, GS, 32 bits; R10, R11, R12 are scratch;
 *   - all else as in 64-bit code (bt.h).
 *
 * Memory: op %gs:disp(base,index,scale) with the address-size prefix. The host adds up 32 bits, exactly as the guest's processor does,
 * then the window: so whatever the registers hold, an access begins in the window's first 4 GiB. A segment base is one more
 * register of the sum. GS base is set by C whenever it enters translated code and the slot's window is another one.
 *
 * Segments that are not plain (a limit, no right to write, expand-down, null) go to C: see bt_key().
 */
#include "engine/bt/emit.h"

/* ---- addresses ---- */

/* The register that holds a segment's base, loaded into R11 if it has none of its own. */
static unsigned segment_register(struct emitter *e, enum seg seg)
{
	switch (seg) {
	case DS: return R8;
	case SS: return R9;
	case FS: return R13;
	case GS: return R14;
	default: emit_load_state(e, R11, (uint32_t)(offsetof(struct vcpu, s.seg_base) + 8 * seg)); return R11;
	}
}

/* m, registers without a segment, becomes an operand in that segment. R10 may be used. */
static void add_segment(struct emitter *e, enum seg seg, struct host_memory_operand *m)
{
	unsigned base;

	m->guest = true;
	if (!(e->based_segments >> seg & 1))
		return;
	if (m->base != HOST_NONE && m->index != HOST_NONE) {
		m->guest = false;
		emit_lea_operand(e, false, R10, m);
		*m = (struct host_memory_operand){ .base = R10, .index = HOST_NONE, .guest = true };
	}
	base = segment_register(e, seg);
	if (m->base == HOST_NONE)
		m->base = (uint8_t)base;
	else
		m->index = (uint8_t)base;
}

/* movzx from(16 bits), to */
static void zero_extend16(struct emitter *e, unsigned to, unsigned from)
{
	const struct encoding movzx = {
		.opcode = { 0x0f, 0xb7 }, .opcode_len = 2, .modrm = true, .reg = (uint8_t)to, .rm = (uint8_t)from
	};

	emit_encoding(e, &movzx, NULL);
}

/* The effective address, before segmentation: 16-bit ones are summed up in R10. */
static struct host_memory_operand effective(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m = guest_operand(i);

	if (i->addrsize == 2) {
		emit_lea_operand(e, false, R10, &m);
		zero_extend16(e, R10, R10);
		m = based_operand(R10, 0);
	}
	return m;
}

/* May the access be done without a look at the segment? */
static bool segment_usable(const struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	return (e->plain_segments >> i->seg & 1) && (i->seg != CS || !h->mem_written);
}

static bool guest_address(struct emitter *e, const struct insn *i, const struct insn_host *h,
			  struct host_memory_operand *m)
{
	if (!segment_usable(e, i, h))
		return false;
	*m = effective(e, i);
	add_segment(e, i->seg, m);
	return true;
}

/* disp(ESP). The stack segment is always plain: others are no business of the translator. */
static struct host_memory_operand stack_operand(struct emitter *e, int32_t disp)
{
	struct host_memory_operand m = based_operand(RSP, disp);

	add_segment(e, SS, &m);
	return m;
}

static void move_stack(struct emitter *e, int32_t by)
{
	const struct host_memory_operand m = based_operand(RSP, by);

	emit_lea_operand(e, false, RSP, &m);
}

static void move32(struct emitter *e, unsigned to, unsigned from)
{
	const struct encoding mov = {
		.opcode = { 0x89 }, .opcode_len = 1, .modrm = true, .reg = (uint8_t)from, .rm = (uint8_t)to
	};

	emit_encoding(e, &mov, NULL);
}

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
	if (!guest_address(e, i, h, &m))
		return EMIT_CALLOUT;
	if (names_high_byte(&c, i) && (is_extended(m.base) || is_extended(m.index)))
		emit_high_byte(e, &c, h->gpr_written >> (i->reg / 8) & 1, &m);
	else
		emit_encoding(e, &c, &m);
	return EMIT_DONE;
}

/* ---- the stack ---- */

/* PUSH: stored first, then ESP moves, so that a fault leaves it. */
static void push_register(struct emitter *e, unsigned reg)
{
	const struct host_memory_operand m = stack_operand(e, -4);

	emit_op(e, false, 0x89, reg, &m);
	move_stack(e, -4);
}

void emit32_push_constant(struct emitter *e, uint32_t value)
{
	const struct host_memory_operand m = stack_operand(e, -4);
	struct encoding mov = { .opcode = { 0xc7 }, .opcode_len = 1, .modrm = true, .imm_len = 4 };

	store_le32(mov.imm, value);
	emit_encoding(e, &mov, &m);
	move_stack(e, -4);
}

void emit32_pop(struct emitter *e, unsigned reg, unsigned more)
{
	const struct host_memory_operand m = stack_operand(e, 0);

	emit_op(e, false, 0x8b, reg, &m);
	if (reg != RSP)
		move_stack(e, 4 + (int32_t)more);
}

/* Of memory: two accesses, of which either may fault, since nothing but scratch registers is changed before the second. */
static enum emit_result emit_push(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	if (i->opsize != 4)
		return EMIT_CALLOUT;
	if (i->form == FORM_I) {
		emit32_push_constant(e, (uint32_t)i->imm);
	} else if (i->form == FORM_R) {
		push_register(e, i->reg / 8u);
	} else {
		if (emit32_operand_r10(e, i, h) != EMIT_DONE)
			return EMIT_CALLOUT;
		push_register(e, R10);
	}
	return EMIT_DONE;
}

/* Into memory: addressed with ESP as it is behind the POP, SDM vol. 2B. The value waits in R12. */
static enum emit_result emit_pop_memory(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	struct host_memory_operand m = stack_operand(e, 0);
	struct insn behind = *i;

	emit_op(e, false, 0x8b, R12, &m);
	if (i->base == 8 * RSP)
		behind.disp += 4;
	if (!guest_address(e, &behind, h, &m))
		return EMIT_CALLOUT;
	emit_op(e, false, 0x89, R12, &m);
	move_stack(e, 4);
	return EMIT_DONE;
}

static enum emit_result emit_pop(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	if (i->opsize != 4)
		return EMIT_CALLOUT;
	if (i->form != FORM_R)
		return emit_pop_memory(e, i, h);
	emit32_pop(e, i->reg / 8u, 0);
	return EMIT_DONE;
}

static enum emit_result emit_leave(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m = based_operand(RBP, 0), above = based_operand(RBP, 4);

	if (i->opsize != 4)
		return EMIT_CALLOUT;
	add_segment(e, SS, &m);
	emit_op(e, false, 0x8b, R10, &m);
	emit_lea_operand(e, false, RSP, &above);
	move32(e, RBP, R10);
	return EMIT_DONE;
}

enum emit_result emit32_operand_r10(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	struct host_memory_operand m;

	if (i->opsize != 4 || (i->form != FORM_R && i->form != FORM_M))
		return EMIT_CALLOUT;
	if (i->form == FORM_R) {
		move32(e, R10, i->reg / 8u);
		return EMIT_DONE;
	}
	if (!guest_address(e, i, h, &m))
		return EMIT_CALLOUT;
	emit_op(e, false, 0x8b, R10, &m);
	return EMIT_DONE;
}

void emit32_effective_r10(struct emitter *e, const struct insn *i)
{
	const struct host_memory_operand m = effective(e, i);

	emit_lea_operand(e, false, R10, &m);
}

/* ---- segment registers that are read ---- */

/* A selector, zero-extended. */
static void load_selector(struct emitter *e, unsigned reg, enum seg seg)
{
	const struct host_memory_operand selector =
		state_operand((uint32_t)(offsetof(struct vcpu, s.seg_sel) + 2 * seg));
	const struct encoding movzx = { .opcode = { 0x0f, 0xb7 }, .opcode_len = 2, .modrm = true, .reg = (uint8_t)reg };

	emit_encoding(e, &movzx, &selector);
}

bool emit32_get_segment(struct emitter *e, const struct insn *i)
{
	if (i->op != OP_MOV_SREG || !i->store || (i->flags & INSN_MEM) || i->opsize != 4 || i->sreg > GS)
		return false;
	load_selector(e, i->reg / 8u, i->sreg);
	return true;
}

static enum emit_result emit_push_segment(struct emitter *e, const struct insn *i)
{
	if (i->opsize != 4)
		return EMIT_CALLOUT;
	load_selector(e, R10, i->sreg);
	push_register(e, R10);
	return EMIT_DONE;
}

/* ---- LEA, MOV of an absolute address ---- */

static enum emit_result emit_lea_insn(struct emitter *e, const struct insn *i)
{
	struct encoding lea = { .prefixes = i->opsize == 2 ? PREFIX_66 : 0,
				.opcode = { 0x8d },
				.opcode_len = 1,
				.modrm = true,
				.reg = i->reg / 8u };
	const struct host_memory_operand m = effective(e, i);

	emit_encoding(e, &lea, &m);
	return EMIT_DONE;
}

/* MOV between the accumulator and an absolute address: no ModRM. */
static enum emit_result emit_moffs(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	struct encoding mov = {
		.prefixes = i->opsize == 2 ? PREFIX_66 : 0, .opcode_len = 1, .modrm = true, .reg = RAX
	};
	struct host_memory_operand m;

	if (!guest_address(e, i, h, &m))
		return EMIT_CALLOUT;
	mov.opcode[0] = (uint8_t)((i->form == FORM_MR ? 0x88 : 0x8a) | (i->opsize != 1));
	emit_encoding(e, &mov, &m);
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

	if (i->opsize != 4 || i->addrsize != 4 || !segment_usable(e, i, h) || !encoding_take(&c, i, h, true))
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
	add_segment(e, i->seg, &m);
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

enum emit_result emit32_insn(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	if (i->op == OP_PUSH_SREG)
		return emit_push_segment(e, i);
	if (emit_is_for_c(i))
		return EMIT_CALLOUT;
	if (emit_is_nothing(i->op))
		return EMIT_DONE;
	switch (i->op) {
	case OP_PUSH: return emit_push(e, i, h);
	case OP_POP: return emit_pop(e, i, h);
	case OP_LEAVE: return emit_leave(e, i);
	case OP_LEA: return emit_lea_insn(e, i);
	case OP_MOV: return (i->flags & INSN_MEM) && !h->modrm_offset ? emit_moffs(e, i, h) : emit_copy(e, i, h);
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC: return i->form == FORM_MR ? emit_bit_string(e, i, h) : emit_copy(e, i, h);
	case OP_VZERO: return emit_vzero(e, i->imm);
	/* 64-bit code has none of these. */
	case OP_PUSHA:
	case OP_PUSHAD:
	case OP_POPA:
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
