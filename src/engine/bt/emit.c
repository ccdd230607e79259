/*
 * Emitting host code: the pieces that everything is made of, and the instructions that are copied, with or without a memory
 * operand and guest registers that live in memory.
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

static uint64_t magnitude(int64_t v) { return v < 0 ? -(uint64_t)v : (uint64_t)v; }

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

void emit_code_address(struct emitter *e, unsigned reg, uint64_t address)
{
	int64_t offset = (int64_t)address;

	if (!e->anywhere) {
		emit_mov_imm(e, reg, address);
		return;
	}
	emit_load_state(e, reg, (uint32_t)offsetof(struct bt_vcpu, frame.code_base));
	/* 2 GiB to either side, and where in its page the instruction is. */
	if (offset != (int32_t)offset) {
		emit_lea(e, reg, reg, INT32_MAX);
		offset -= INT32_MAX;
	}
	emit_lea(e, reg, reg, (int32_t)offset);
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

/* ---- guest registers that live in memory ---- */

/* R15 is the slot table again. */
static void restore_table(struct emitter *e) { emit_load_state(e, R15, (uint32_t)offsetof(struct bt_vcpu, slot_r15)); }

/* XOR or SUB of a register and itself, 32 or 64 bits. */
static bool clears(const struct insn *i)
{
	return (i->op == OP_XOR || i->op == OP_SUB) && i->form == FORM_RR && i->reg == i->rm && i->opsize >= 4;
}

/* Does the instruction, if it writes this operand, write all 64 bits of it, whatever it was? */
static bool writes_whole(const struct insn *i)
{
	if ((i->flags & INSN_HOST) || clears(i))
		return true;
	if (i->opsize < 4)
		return false;
	switch (i->op) {
	case OP_MOV:
	case OP_MOVZX:
	case OP_MOVSX:
	case OP_MOVSXD:
	case OP_MOVBE:
	case OP_POPCNT:
	case OP_TZCNT:
	case OP_LZCNT:
	case OP_ANDN:
	case OP_BEXTR:
	case OP_BLSI:
	case OP_BLSMSK:
	case OP_BLSR:
	case OP_BZHI:
	case OP_MULX:
	case OP_PDEP:
	case OP_PEXT:
	case OP_RORX:
	case OP_SARX:
	case OP_SHLX:
	case OP_SHRX: return true;
	case OP_IMUL: return i->form == FORM_RRI || i->form == FORM_RMI;
	default: return false;
	}
}

/* A guest register of the instruction that is not in its host register, and where it is put. */
struct stand_in {
	uint8_t guest, host;
	bool load, store;
	bool high; /* AH, CH, DH, BH: host holds the guest's register rotated by 8 */
};

struct stand_ins {
	struct stand_in s[3];
	unsigned count;
};

static void add_stand_in(struct stand_ins *list, const struct insn *i, const struct insn_host *h, unsigned guest)
{
	bool written = h->gpr_written >> guest & 1, read = h->gpr_read >> guest & 1 && !clears(i);

	if (!bt_spilled(guest))
		return;
	for (unsigned n = 0; n < list->count; n++)
		if (list->s[n].guest == guest)
			return;
	list->s[list->count++] =
		(struct stand_in){ .guest = (uint8_t)guest, .load = read || !writes_whole(i), .store = written };
}

/* The spilled registers that the fields name. False: the decoder knows of others. */
static bool find_stand_ins(struct stand_ins *list, const struct encoding *c, const struct insn *i,
			   const struct insn_host *h)
{
	unsigned named = 0, spilled = 1u << R10 | 1u << R11 | 1u << R15;

	*list = (struct stand_ins){ 0 };
	if (c->fields & FIELD_REG)
		add_stand_in(list, i, h, c->reg);
	if (c->fields & FIELD_RM)
		add_stand_in(list, i, h, c->rm);
	if (c->fields & FIELD_VVVV)
		add_stand_in(list, i, h, c->vvvv);
	for (unsigned n = 0; n < list->count; n++)
		named |= 1u << list->s[n].guest;
	return !((h->gpr_read | h->gpr_written) & spilled & ~named);
}

static uint8_t host_of(const struct stand_ins *list, uint8_t guest)
{
	for (unsigned n = 0; n < list->count; n++)
		if (list->s[n].guest == guest)
			return list->s[n].host;
	return guest;
}

static void rename_fields(struct encoding *c, const struct stand_ins *list)
{
	if (c->fields & FIELD_REG)
		c->reg = host_of(list, c->reg);
	if (c->fields & FIELD_RM)
		c->rm = host_of(list, c->rm);
	if (c->fields & FIELD_VVVV)
		c->vvvv = host_of(list, c->vvvv);
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

static void load_stand_ins(struct emitter *e, const struct stand_ins *list)
{
	for (unsigned n = 0; n < list->count; n++) {
		const struct stand_in *s = &list->s[n];

		if (s->high)
			emit_rotate(e, true, s->host, s->guest, 8);
		else if (s->load)
			emit_load_state(e, s->host, BT_GPR(s->guest));
		else
			emit_forget(e, s->host);
	}
}

static void store_stand_ins(struct emitter *e, const struct stand_ins *list)
{
	bool table_lost = false;

	for (unsigned n = 0; n < list->count; n++) {
		const struct stand_in *s = &list->s[n];

		if (s->high && s->store) {
			/* mov %r15b, %al between two rotations */
			const struct encoding mov = { .has_rex = true,
						      .opcode = { 0x88 },
						      .opcode_len = 1,
						      .modrm = true,
						      .reg = s->host,
						      .rm = s->guest };

			emit_rotate(e, true, s->guest, s->guest, 8);
			emit_encoding(e, &mov, NULL);
			emit_rotate(e, true, s->guest, s->guest, 56);
		} else if (s->store) {
			emit_store_state(e, s->host, BT_GPR(s->guest));
		}
		table_lost |= s->host == R15;
	}
	if (table_lost)
		restore_table(e);
}

/* ---- effects on what is known about R11 ---- */

/* ADD, SUB, AND, INC, DEC of a 64-bit register by constants move it a little; so does MOV of one that is known. */
static bool moved_a_little(struct emitter *e, const struct insn *i)
{
	unsigned reg = i->reg / 8u;

	if (i->opsize != 8)
		return false;
	if (i->op == OP_MOV && i->form == FORM_RR) {
		emit_moved(e, reg, i->rm / 8u, 0);
		return true;
	}
	if ((i->op == OP_INC || i->op == OP_DEC) && i->form == FORM_R) {
		emit_moved(e, reg, reg, 1);
		return true;
	}
	if (i->form != FORM_RI)
		return false;
	if (i->op == OP_ADD || i->op == OP_SUB)
		emit_moved(e, reg, reg, magnitude((int64_t)i->imm));
	else if (i->op == OP_AND)
		emit_moved(e, reg, reg, ~i->imm); /* clears no more than these bits */
	else
		return false;
	return true;
}

static void note_written(struct emitter *e, const struct insn *i, const struct insn_host *h)
{
	if (e->window_base < 0 || moved_a_little(e, i))
		return;
	for (unsigned n = 0; n < 16; n++)
		if (h->gpr_written >> n & 1 && !bt_spilled(n))
			emit_forget(e, n);
}

/* ---- copying ---- */

/* May the register operand be replaced by the guest register's place in memory? Only where that is the same instruction. */
static bool rm_may_be_memory(const struct insn *i, const struct insn_host *h, unsigned reg)
{
	bool written = h->gpr_written >> reg & 1;

	/* Writes of 32 bits clear the upper half of a register. */
	if (written && i->opsize == 4)
		return false;
	switch (i->op) {
	case OP_ADD:
	case OP_OR:
	case OP_ADC:
	case OP_SBB:
	case OP_AND:
	case OP_SUB:
	case OP_XOR:
	case OP_CMP:
	case OP_TEST:
	case OP_MOV:
	case OP_MOVZX:
	case OP_MOVSX:
	case OP_MOVSXD:
	case OP_INC:
	case OP_DEC:
	case OP_NOT:
	case OP_NEG:
	case OP_MUL:
	case OP_IMUL:
	case OP_DIV:
	case OP_IDIV:
	case OP_SHL:
	case OP_SHR:
	case OP_SAR:
	case OP_ROL:
	case OP_ROR: return true;
	default: return i->op >= OP_SETO && i->op <= OP_CMOVNLE;
	}
}

/*
 * Most two-register instructions have two encodings, one with the destination in ModRM.rm and one with the source: that one
 * with the spilled register there.
 */
static void turn_round(struct encoding *c)
{
	uint8_t op = c->opcode[0], reg = c->reg;
	bool both_ways = (op & 0xc4) == 0 || (op & 0xfc) == 0x88; /* ADD ... CMP; MOV */

	if (c->vex || c->opcode_len != 1 || !c->modrm || !bt_spilled(c->reg) || bt_spilled(c->rm))
		return;
	if (!both_ways && (op & 0xfe) != 0x84) /* TEST */
		return;
	c->opcode[0] ^= both_ways ? 2 : 0;
	c->reg = c->rm;
	c->rm = reg;
}

/* MOV of a small constant to a spilled register: to memory at once. */
static bool emit_constant(struct emitter *e, const struct encoding *c, const struct insn *i)
{
	uint64_t value = i->opsize == 4 ? (uint32_t)i->imm : i->imm;
	struct encoding mov = { .w = true, .opcode = { 0xc7 }, .opcode_len = 1, .modrm = true, .imm_len = 4 };
	struct host_memory_operand m;

	if (i->op != OP_MOV || i->form != FORM_RI || i->opsize < 4 || !bt_spilled(c->rm) ||
	    (uint64_t)(int32_t)value != value)
		return false;
	m = state_operand(BT_GPR(c->rm));
	store_le32(mov.imm, (uint32_t)value);
	emit_encoding(e, &mov, &m);
	return true;
}

static enum emit_result emit_registers(struct emitter *e, const struct insn *i, const struct insn_host *h,
				       struct encoding *c)
{
	static const uint8_t hosts[] = { R10, R11, R15 };
	struct stand_ins list;

	if (emit_constant(e, c, i))
		return EMIT_DONE;
	turn_round(c);
	if (!find_stand_ins(&list, c, i, h))
		return EMIT_CALLOUT;
	if (list.count == 1 && (c->fields & FIELD_RM) && bt_spilled(c->rm) &&
	    !((c->fields & FIELD_REG) && c->reg == c->rm) && c->modrm && rm_may_be_memory(i, h, c->rm)) {
		struct host_memory_operand m = state_operand(BT_GPR(c->rm));

		emit_encoding(e, c, &m);
		note_written(e, i, h);
		return EMIT_DONE;
	}
	for (unsigned n = 0; n < ARRAY_SIZE(hosts); n++)
		list.s[n].host = hosts[n];
	rename_fields(c, &list);
	load_stand_ins(e, &list);
	emit_encoding(e, c, NULL);
	store_stand_ins(e, &list);
	note_written(e, i, h);
	return EMIT_DONE;
}

/* Registers for stand-ins beside a memory operand: R10 if the address does not need it, R15, whose table has been read by then. */
static bool place_stand_ins(struct stand_ins *list, bool r10_used)
{
	bool r15_used = false;

	for (unsigned n = 0; n < list->count; n++) {
		struct stand_in *s = &list->s[n];

		/* What is only written may be what the address is in. */
		if (!r10_used || (!s->load && !s->high && list->count == 1)) {
			s->host = R10;
			r10_used = true;
		} else if (!r15_used) {
			s->host = R15;
			r15_used = true;
		} else {
			return false;
		}
	}
	return true;
}

/* AH, CH, DH, BH as the register operand: 1 with the register's number in *guest. R11 needs a REX prefix, which they cannot have. */
static bool high_byte(const struct encoding *c, const struct insn *i, uint8_t *guest)
{
	if (!(c->fields & FIELD_REG) || c->has_rex || (i->form != FORM_RM && i->form != FORM_MR) || !(i->reg & 7))
		return false;
	*guest = i->reg / 8u;
	return true;
}

/*
 * Address and window first, while R15 is the slot table; then stand-ins; then the instruction, which may fault; then what it
 * wrote goes where it belongs.
 */
static enum emit_result emit_memory(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip,
				    struct encoding *c)
{
	struct stand_ins list;
	struct address a;
	uint8_t guest;

	if (!find_stand_ins(&list, c, i, h) || !emit_address(e, i, h, rip, &a))
		return EMIT_CALLOUT;
	if (high_byte(c, i, &guest))
		list.s[list.count++] =
			(struct stand_in){ .guest = guest, .high = true, .store = h->gpr_written >> guest & 1 };
	if (!place_stand_ins(&list, a.uses_r10))
		return EMIT_CALLOUT;
	if (list.count && list.s[list.count - 1].high)
		c->reg = list.s[list.count - 1].host;
	else
		rename_fields(c, &list);
	load_stand_ins(e, &list);
	emit_encoding(e, c, &a.operand);
	store_stand_ins(e, &list);
	note_written(e, i, h);
	return EMIT_DONE;
}

static enum emit_result emit_copy(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip)
{
	struct encoding c;

	if (!encoding_take(&c, i, h, false))
		return EMIT_CALLOUT;
	return c.memory ? emit_memory(e, i, h, rip, &c) : emit_registers(e, i, h, &c);
}

static enum emit_result emit64_insn(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip)
{
	switch (emit_special(e, i, h, rip)) {
	case SPECIAL_DONE: return EMIT_DONE;
	case SPECIAL_CALLOUT: return EMIT_CALLOUT;
	default: return emit_copy(e, i, h, rip);
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
