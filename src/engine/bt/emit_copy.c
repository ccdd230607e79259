/*
 * Instructions that are copied: the guest's own, with what stands for registers that the translator has taken and with the window of the
 * memory operand.
 */
#include "engine/bt/emit.h"

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

/* ---- effects on what is known about windows ---- */

/* ADD, SUB, AND, INC, DEC of a 64-bit register by constants move it a little; so does MOV of one that is known. */
static bool moved_a_little(struct emitter *e, const struct insn *i)
{
	unsigned reg = i->reg / 8u;

	if (i->opsize != 8 || bt_spilled(reg))
		return false;
	if (i->op == OP_MOV && i->form == FORM_RR && !bt_spilled(i->rm / 8u)) {
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
	if (moved_a_little(e, i))
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
	emit_accessed(e, i, h, &a.operand);
	store_stand_ins(e, &list);
	note_written(e, i, h);
	return EMIT_DONE;
}

enum emit_result emit64_copy(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip)
{
	struct encoding c;

	if (!encoding_take(&c, i, h, false))
		return EMIT_CALLOUT;
	return c.memory ? emit_memory(e, i, h, rip, &c) : emit_registers(e, i, h, &c);
}
