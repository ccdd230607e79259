/*
 * Emitting host code: the pieces that everything is made of.
 *
 * Nothing here writes flags but the guest's own instruction: what surrounds it are MOV, LEA, MOVZX, RORX and SARX.
 *
 * Why a fault can always be restarted: of the host instructions that make up a guest instruction, one at most accesses guest
 * memory (special ones: emit_special.c). Before it only R10, R11 and R15 are written, which hold nothing of the guest's; after it
 * nothing faults, since the state is always there. Reading the slot table may fault too, before it.
 *
 * Why no access leaves windows and guards: see emit_address.c.
 */
#include "engine/bt/emit.h"

/* ---- bytes ---- */

void emit_bytes(struct emitter *e, const void *bytes, size_t len)
{
	if (e->full || (size_t)(e->end - e->at) < len + EMIT_SLACK) {
		e->full = true;
		return;
	}
	memcpy(e->at, bytes, len);
	e->at += len;
}

void emit_encoding(struct emitter *e, const struct encoding *c, const struct host_memory_operand *m)
{
	uint8_t bytes[ENCODING_MAX];
	struct host_memory_operand state;

	/* Where GS base is not the vCPU, R15 is. */
	if (m && m->state && e->code32) {
		state = based_operand(R15, m->disp);
		m = &state;
	}
	emit_bytes(e, bytes, encoding_write(c, m, bytes));
}

void emit_op(struct emitter *e, bool w, uint8_t opcode, unsigned reg, const struct host_memory_operand *m)
{
	struct encoding c = { .w = w, .opcode = { opcode }, .opcode_len = 1, .modrm = true, .reg = (uint8_t)reg };

	emit_encoding(e, &c, m);
}

/* ---- what is known about R11 ---- */

bool emit_window_known(const struct emitter *e, unsigned reg)
{
	return e->window_base >= 0 && (e->window_regs >> reg & 1);
}

void emit_forget(struct emitter *e, unsigned reg)
{
	if (e->window_base < 0)
		return;
	e->window_regs &= ~(1u << reg);
	if (reg == R11 || !e->window_regs)
		e->window_base = -1;
	else if (e->window_base == (int)reg)
		e->window_base = __builtin_ctz(e->window_regs);
}

void emit_moved(struct emitter *e, unsigned reg, unsigned from, uint64_t distance)
{
	if (!emit_window_known(e, from) || bt_spilled(reg) || distance > EMIT_MAX_DRIFT - e->window_drift) {
		emit_forget(e, reg);
		return;
	}
	e->window_drift += (uint32_t)distance;
	e->window_regs |= (uint16_t)(1u << reg);
}

static void set_window(struct emitter *e, unsigned base)
{
	e->window_base = bt_spilled(base) ? -1 : (int)base;
	e->window_regs = (uint16_t)(1u << base);
	e->window_drift = 0;
}

/* ---- pieces ---- */

void emit_load_state(struct emitter *e, unsigned reg, uint32_t offset)
{
	struct host_memory_operand m = state_operand(offset);

	emit_op(e, true, 0x8b, reg, &m);
	emit_forget(e, reg);
}

void emit_store_state(struct emitter *e, unsigned reg, uint32_t offset)
{
	struct host_memory_operand m = state_operand(offset);

	emit_op(e, true, 0x89, reg, &m);
}

void emit_set_state(struct emitter *e, uint32_t offset, uint32_t imm)
{
	struct encoding mov = { .opcode = { 0xc7 }, .opcode_len = 1, .modrm = true, .imm_len = 4 };
	struct host_memory_operand m = state_operand(offset);

	store_le32(mov.imm, imm);
	emit_encoding(e, &mov, &m);
}

void emit_jump_state(struct emitter *e, uint32_t offset)
{
	struct host_memory_operand m = state_operand(offset);

	emit_op(e, false, 0xff, 4, &m);
}

void emit_move(struct emitter *e, unsigned to, unsigned from)
{
	struct encoding c = {
		.w = true, .opcode = { 0x89 }, .opcode_len = 1, .modrm = true, .reg = (uint8_t)from, .rm = (uint8_t)to
	};

	emit_encoding(e, &c, NULL);
	emit_moved(e, to, from, 0);
}

void emit_mov_imm(struct emitter *e, unsigned reg, uint64_t imm)
{
	bool short_signed = imm > UINT32_MAX && (uint64_t)(int32_t)imm == imm;
	struct encoding c = { .w = imm > UINT32_MAX, .opcode_len = 1, .rm = (uint8_t)reg, .fields = FIELD_RM };

	c.opcode[0] = short_signed ? 0xc7 : 0xb8;
	c.modrm = short_signed;
	c.imm_len = c.w && !short_signed ? 8 : 4;
	store_le64(c.imm, imm);
	emit_encoding(e, &c, NULL);
	emit_forget(e, reg);
}

struct host_memory_operand emit_code_operand(struct emitter *e, unsigned reg, uint64_t address)
{
	int64_t offset = (int64_t)address;

	emit_load_state(e, reg, (uint32_t)offsetof(struct bt_vcpu, frame.code_base));
	/* 2 GiB to either side, and where in its page the instruction is. */
	if (offset != (int32_t)offset) {
		emit_lea(e, reg, reg, INT32_MAX);
		offset -= INT32_MAX;
	}
	return based_operand(reg, (int32_t)offset);
}

void emit_code_address(struct emitter *e, unsigned reg, uint64_t address)
{
	if (e->anywhere) {
		const struct host_memory_operand m = emit_code_operand(e, reg, address);

		emit_lea_operand(e, true, reg, &m);
	} else {
		emit_mov_imm(e, reg, address);
	}
}

void emit_lea_operand(struct emitter *e, bool w, unsigned reg, const struct host_memory_operand *m)
{
	emit_op(e, w, 0x8d, reg, m);
	if (w && m->base != HOST_NONE && m->index == HOST_NONE)
		emit_moved(e, reg, m->base, magnitude(m->disp));
	else
		emit_forget(e, reg);
}

void emit_lea(struct emitter *e, unsigned reg, unsigned base, int32_t disp)
{
	struct host_memory_operand m = based_operand(base, disp);

	emit_lea_operand(e, true, reg, &m);
}

void emit_count_down(struct emitter *e, bool w)
{
	struct host_memory_operand m = based_operand(RCX, -1);

	emit_lea_operand(e, w, RCX, &m);
}

/*
 * R15 is the address of the table's entry 0, plus 39; SARX's count is R15 mod 64 = 39, since entries are 8 bytes and the table
 * is aligned to 64. R11 is then the slot number, 25 bits with sign: the table's reserved surroundings take all of them.
 */
void emit_window(struct emitter *e, unsigned base)
{
	/* SARX: VEX.LZ.F3.0F38.W1 F7 */
	const struct encoding sarx = { .vex = true,
				       .map = 2,
				       .pp = 2,
				       .w = true,
				       .opcode = { 0xf7 },
				       .opcode_len = 1,
				       .modrm = true,
				       .reg = R11,
				       .rm = (uint8_t)base,
				       .vvvv = R15 };
	const struct host_memory_operand entry = { .base = R15, .index = R11, .scale = 3, .disp = -SLOT_SHIFT };

	if (emit_window_known(e, base))
		return;
	emit_encoding(e, &sarx, NULL);
	emit_op(e, true, 0x8b, R11, &entry);
	set_window(e, base);
}

void emit_check_canonical(struct emitter *e, unsigned reg)
{
	e->window_base = -1;
	emit_window(e, reg);
	e->window_base = -1;
}

void emit_load_guest(struct emitter *e, unsigned reg, unsigned base, int32_t disp)
{
	struct host_memory_operand m = emit_guest_operand(e, base, disp, 8, false);

	emit_op(e, true, 0x8b, reg, &m);
	emit_forget(e, reg);
}

/* PUSH stores first, then moves RSP, so that a fault leaves it. */
void emit_push_register(struct emitter *e, unsigned reg)
{
	const uint32_t kept = (uint32_t)offsetof(struct bt_vcpu, frame.value);
	bool keep = reg == R10 && e->way == BY_TLB; /* where the address will be */
	struct host_memory_operand top;

	if (keep)
		emit_store_state(e, R10, kept);
	top = emit_guest_operand(e, RSP, -8, 8, true);
	if (keep)
		emit_load_state(e, R10, kept);
	emit_op(e, true, 0x89, reg, &top);
	emit_lea(e, RSP, RSP, -8);
}

void emit_push_constant(struct emitter *e, uint64_t value)
{
	struct encoding c = { .w = true, .opcode = { 0xc7 }, .opcode_len = 1, .modrm = true, .imm_len = 4 };
	struct host_memory_operand top;

	top = emit_guest_operand(e, RSP, -8, 8, true);
	if ((uint64_t)(int32_t)value == value) {
		store_le32(c.imm, (uint32_t)value);
		emit_encoding(e, &c, &top);
	} else {
		emit_mov_imm(e, R10, value);
		emit_op(e, true, 0x89, R10, &top);
	}
	emit_lea(e, RSP, RSP, -8);
}

void emit_push_code_address(struct emitter *e, uint64_t address)
{
	struct host_memory_operand top;

	if (!e->anywhere) {
		emit_push_constant(e, address);
		return;
	}
	top = emit_guest_operand(e, RSP, -8, 8, true);
	emit_code_address(e, R10, address);
	emit_op(e, true, 0x89, R10, &top);
	emit_lea(e, RSP, RSP, -8);
}

void emit_pop_target(struct emitter *e, unsigned more)
{
	emit_load_guest(e, R10, RSP, 0);
	emit_lea(e, RSP, RSP, 8 + (int32_t)more);
}

void emit_not(struct emitter *e, unsigned reg)
{
	const struct encoding c = {
		.w = true, .opcode = { 0xf7 }, .opcode_len = 1, .modrm = true, .reg = 2, .rm = (uint8_t)reg
	};

	emit_encoding(e, &c, NULL);
}

uint8_t *emit_jump(struct emitter *e, int cc, const void *exec_target)
{
	uint8_t code[6] = { 0x0f, (uint8_t)(0x80 | (cc & 15)) };
	unsigned at = cc < 0 ? 1 : 2;

	if (cc < 0)
		code[0] = 0xe9;
	store_le32(code + at, (uint32_t)((uintptr_t)exec_target - ((uintptr_t)e->at + (uintptr_t)e->to_exec + at + 4)));
	emit_bytes(e, code, at + 4);
	return e->full ? NULL : e->at - 4;
}

void emit_rotate(struct emitter *e, bool w, unsigned to, unsigned from, unsigned count)
{
	/* VEX.LZ.F2.0F3A F0 */
	const struct encoding rorx = { .vex = true,
				       .map = 3,
				       .pp = 3,
				       .w = w,
				       .opcode = { 0xf0 },
				       .opcode_len = 1,
				       .modrm = true,
				       .reg = (uint8_t)to,
				       .rm = (uint8_t)from,
				       .imm = { (uint8_t)count },
				       .imm_len = 1 };

	emit_encoding(e, &rorx, NULL);
	emit_forget(e, to);
}

/* ---- an instruction ---- */

static enum emit_result emit64_insn(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip)
{
	switch (emit_special(e, i, h, rip)) {
	case SPECIAL_DONE: return EMIT_DONE;
	case SPECIAL_CALLOUT: return EMIT_CALLOUT;
	default: return emit64_copy(e, i, h, rip);
	}
}

enum emit_result emit_insn(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip)
{
	struct emitter before = *e;
	enum emit_result result = e->code32 ? emit32_insn(e, i, h) : emit64_insn(e, i, h, rip);

	if (result == EMIT_CALLOUT) {
		before.full |= e->full;
		*e = before;
	}
	return result;
}
