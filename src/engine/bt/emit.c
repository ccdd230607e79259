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

/* ---- what is known about R11 and R10 ---- */

static const uint8_t window_register[EMIT_WINDOWS] = { R11, R10 };

void emit_forget_windows(struct emitter *e)
{
	for (unsigned n = 0; n < EMIT_WINDOWS; n++)
		e->window[n].regs = 0;
}

static void forget_in(struct emit_window *w, unsigned reg)
{
	if (w->sum && (w->regs >> reg & 1))
		w->regs = 0;
	w->regs &= ~(1u << reg);
	if (w->base == reg && w->regs)
		w->base = (uint8_t)__builtin_ctz(w->regs);
}

void emit_forget(struct emitter *e, unsigned reg)
{
	for (unsigned n = 0; n < EMIT_WINDOWS; n++)
		if (reg == window_register[n])
			e->window[n].regs = 0;
		else
			forget_in(&e->window[n], reg);
}

/* Is what the window leads to still the same after the move? */
static bool moves(const struct emit_window *w, unsigned reg, unsigned from, uint64_t distance)
{
	uint32_t left = EMIT_MAX_DRIFT - w->drift;

	if (w->sum)
		return reg == w->index && from == reg && reg != w->base && distance <= left >> w->scale;
	return w->regs >> from & 1 && distance <= left;
}

void emit_moved(struct emitter *e, unsigned reg, unsigned from, uint64_t distance)
{
	if (bt_spilled(reg)) {
		emit_forget(e, reg);
		return;
	}
	for (unsigned n = 0; n < EMIT_WINDOWS; n++) {
		struct emit_window *w = &e->window[n];
		uint32_t moved = (uint32_t)distance << (w->sum ? w->scale : 0);

		if (!w->regs || !moves(w, reg, from, distance)) {
			forget_in(w, reg);
			continue;
		}
		w->drift += moved;
		w->near += moved;
		if (!w->sum)
			w->regs |= (uint16_t)(1u << reg);
	}
}

static void set_window(struct emitter *e, unsigned n, unsigned base)
{
	e->window[n] =
		(struct emit_window){ .regs = bt_spilled(base) ? 0 : (uint16_t)(1u << base), .base = (uint8_t)base };
	e->latest = n;
}

/* Not the one that was used last, if there is a choice. */
static unsigned choose_window(const struct emitter *e, bool r10_free)
{
	if (!r10_free || !e->window[0].regs)
		return 0;
	if (e->loop[0].regs)
		return 1;
	return !e->window[1].regs || e->latest == 0;
}

unsigned emit_window(struct emitter *e, unsigned base, bool r10_free)
{
	unsigned n;

	for (n = 0; n < (r10_free ? EMIT_WINDOWS : 1); n++)
		if (!e->window[n].sum && (e->window[n].regs >> base & 1)) {
			e->latest = n;
			return window_register[n];
		}
	n = choose_window(e, r10_free);
	emit_load_window(e, window_register[n], base);
	set_window(e, n, base);
	return window_register[n];
}

/* No hint, and nothing that leaves out elements or may access beside its operand. */
static bool always_accesses(const struct insn *i, const struct insn_host *h)
{
	return (i->op >= OP_ADD && i->op <= OP_MOVSXD) ||
	       ((i->flags & INSN_HOST) && h->mem_size && (h->vec_read | h->vec_written));
}

void emit_accessed(struct emitter *e, const struct insn *i, const struct insn_host *h,
		   const struct host_memory_operand *m)
{
	for (unsigned n = 0; n < EMIT_WINDOWS; n++) {
		struct emit_window *w = &e->window[n];

		if (w->regs && m->base == window_register[n] && always_accesses(i, h))
			w->near = (uint32_t)MIN(w->near, magnitude(m->disp) + 64 + w->drift);
	}
}

/* ---- sums ---- */

static bool is_sum(const struct emit_window *w, const struct host_memory_operand *m)
{
	return w->regs && w->sum && w->base == m->base && w->index == m->index && w->scale == m->scale;
}

static void make_sum(struct emitter *e, unsigned n, const struct host_memory_operand *m)
{
	unsigned reg = window_register[n];
	const struct host_memory_operand sum = { .base = (uint8_t)reg, .index = m->base };

	emit_op(e, true, 0x8d, reg, m);
	emit_load_window(e, reg, reg);
	emit_op(e, true, 0x8d, reg, &sum);
	e->window[n] = (struct emit_window){ .regs = (uint16_t)(1u << m->base | 1u << m->index),
					     .sum = true,
					     .base = m->base,
					     .index = m->index,
					     .scale = m->scale };
	e->latest = n;
}

void emit_keep(struct emitter *e, unsigned n, const struct host_memory_operand *m)
{
	if (m->index != HOST_NONE) {
		make_sum(e, n, m);
	} else {
		emit_load_window(e, window_register[n], m->base);
		set_window(e, n, m->base);
	}
	e->window[n].near = EMIT_LOOP_DRIFT;
	e->loop[n] = e->window[n];
}

/* Of what follows: is it an access by this base, index and scale? */
static bool is_operand(const struct insn *i, unsigned base, unsigned index, unsigned scale)
{
	const struct host_memory_operand m = guest_operand(i);

	return (i->flags & INSN_MEM) && i->op != OP_LEA && i->addrsize == 8 && i->seg < FS && m.base == base &&
	       m.index == index && m.scale == scale;
}

/* Will the operand be accessed again? Guest registers in memory take R10. */
static bool is_wanted_again(const struct emitter *e, const struct host_memory_operand *m)
{
	const unsigned spilled = 1u << R10 | 1u << R11 | 1u << R15, used = 1u << m->base | 1u << m->index;

	for (unsigned n = 0; n < e->later_count; n++) {
		const struct insn_host *h = &e->later_hosts[n];

		if (is_operand(&e->later[n], m->base, m->index, m->scale))
			return true;
		if ((h->gpr_written & used) || ((h->gpr_read | h->gpr_written) & spilled))
			return false;
	}
	return false;
}

/* Will R11, as it is, be used again? */
static bool is_window_wanted(const struct emitter *e)
{
	if (e->loop[0].regs)
		return true;
	for (unsigned n = 0; n < e->later_count && e->window[0].regs; n++) {
		const struct insn *i = &e->later[n];

		if (i->base < 8 * 16 && (e->window[0].regs >> i->base / 8u & 1) &&
		    is_operand(i, i->base / 8u, HOST_NONE, 0))
			return true;
		if (e->later_hosts[n].gpr_written & e->window[0].regs)
			return false;
	}
	return false;
}

unsigned emit_sum(struct emitter *e, const struct host_memory_operand *m)
{
	for (unsigned n = 0; n < EMIT_WINDOWS; n++)
		if (is_sum(&e->window[n], m)) {
			e->latest = n;
			return window_register[n];
		}
	if (!is_wanted_again(e, m) && !is_window_wanted(e))
		return HOST_NONE;
	make_sum(e, 1, m);
	return R10;
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
 * is aligned to 64. What it shifts into `to` is then the slot number, 25 bits with sign: the table's reserved surroundings take all of them.
 */
void emit_load_window(struct emitter *e, unsigned to, unsigned base)
{
	/* SARX: VEX.LZ.F3.0F38.W1 F7 */
	const struct encoding sarx = { .vex = true,
				       .map = 2,
				       .pp = 2,
				       .w = true,
				       .opcode = { 0xf7 },
				       .opcode_len = 1,
				       .modrm = true,
				       .reg = (uint8_t)to,
				       .rm = (uint8_t)base,
				       .vvvv = R15 };
	const struct host_memory_operand entry = { .base = R15, .index = (uint8_t)to, .scale = 3, .disp = -SLOT_SHIFT };

	emit_encoding(e, &sarx, NULL);
	emit_op(e, true, 0x8b, to, &entry);
}

void emit_check_canonical(struct emitter *e, unsigned reg)
{
	emit_load_window(e, R11, reg);
	emit_forget(e, R11);
}

void emit_load_guest(struct emitter *e, unsigned reg, unsigned base, int32_t disp)
{
	struct host_memory_operand m = emit_guest_operand(e, base, disp, 8, false, true);

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
	top = emit_guest_operand(e, RSP, -8, 8, true, reg != R10);
	if (keep)
		emit_load_state(e, R10, kept);
	emit_op(e, true, 0x89, reg, &top);
	emit_lea(e, RSP, RSP, -8);
}

void emit_push_constant(struct emitter *e, uint64_t value)
{
	struct encoding c = { .w = true, .opcode = { 0xc7 }, .opcode_len = 1, .modrm = true, .imm_len = 4 };
	struct host_memory_operand top;

	top = emit_guest_operand(e, RSP, -8, 8, true, (uint64_t)(int32_t)value == value);
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
	top = emit_guest_operand(e, RSP, -8, 8, true, false);
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
