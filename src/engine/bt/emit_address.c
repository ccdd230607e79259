/*
 * Addresses: from the guest's memory operand to one of the host's.
 *
 * Why no access leaves windows and guards, whatever the guest's registers hold: an access is at window + address, where
 * the window is that of the slot of
 *   - a register B, read from the slot table by B's own bits 63..39 (emit_window): B + window is inside the window, the access
 *     is at most 2^31 beyond by its displacement, and its operand at most 64 bytes long;
 *   - a register that was B, or a copy of B, when R11 or R10 was computed, and was moved since by constants of EMIT_MAX_DRIFT = 2^30 at
 *     most together (emit_moved): 2^31 + 2^30 + 64 < WINDOW_GUARD;
 *   - a constant, whose slot's entry is read: address and window belong together exactly;
 *   - a register B with an index, of which the same is true: their sum's slot was looked up, B plus that window kept (emit_sum), and the
 *     index moved, scaled, by EMIT_MAX_DRIFT at most since, B not at all;
 *   - B, or such a sum, from round to round of a loop: emit_loop.c;
 *   - a 32-bit address in R10, zero-extended, and slot 0.
 * Index registers and segment bases never reach the access itself: LEA adds them to R10 first, and R10's slot is looked up.
 * Whatever R11 or R10 was is not trusted once its base register was written by anything else (emit_forget).
 * An address that is not canonical has a slot number beyond the table's 512 entries: reading it faults.
 */
#include "engine/bt/emit.h"

static bool is_spilled(unsigned reg) { return reg < HOST_NONE && bt_spilled(reg); }

struct host_memory_operand guest_operand(const struct insn *i)
{
	struct host_memory_operand m = {
		.base = i->base / 8u, .index = i->index / 8u, .scale = i->scale, .disp = i->disp
	};

	if (m.base >= HOST_NONE)
		m.base = HOST_NONE;
	if (m.index >= HOST_NONE)
		m.index = HOST_NONE;
	/* [x*1] and [x*2] without a base have shorter forms. */
	if (m.base == HOST_NONE && m.index != HOST_NONE && m.scale <= 1) {
		m.base = m.index;
		if (m.scale == 0)
			m.index = HOST_NONE;
		m.scale = 0;
	}
	return m;
}

static uint64_t rip_relative(const struct insn *i, const struct insn_host *h, uint64_t rip)
{
	return rip + i->len + (uint64_t)(int32_t)load_le32(i->bytes + h->disp_offset);
}

static bool constant_address(const struct insn *i, const struct insn_host *h, uint64_t rip, uint64_t *address)
{
	struct host_memory_operand m = guest_operand(i);

	if (i->flags & INSN_RIPREL)
		*address = rip_relative(i, h, rip);
	else if (m.base == HOST_NONE && m.index == HOST_NONE)
		*address = (uint64_t)(int64_t)m.disp;
	else
		return false;
	if (i->addrsize == 4)
		*address = (uint32_t)*address;
	return true;
}

/* Spilled registers of an operand go to R10, or a second one to R11. */
static void load_spilled(struct emitter *e, struct host_memory_operand *m)
{
	uint8_t base = m->base, index = m->index;

	if (is_spilled(base)) {
		emit_load_state(e, R10, BT_GPR(base));
		m->base = R10;
	}
	if (is_spilled(index) && index == base) {
		m->index = R10;
	} else if (is_spilled(index)) {
		m->index = m->base == R10 ? R11 : R10;
		emit_load_state(e, m->index, BT_GPR(index));
	}
}

bool emit_effective(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip,
		    struct host_memory_operand *m, uint64_t *constant)
{
	if (e->anywhere && (i->flags & INSN_RIPREL)) {
		*m = emit_code_operand(e, R10, rip_relative(i, h, rip));
		return true;
	}
	if (constant_address(i, h, rip, constant))
		return false;
	*m = guest_operand(i);
	load_spilled(e, m);
	return true;
}

/* R10 += segment base */
static void add_segment(struct emitter *e, uint32_t segment_base)
{
	struct host_memory_operand sum = { .base = R10, .index = R11 };

	emit_load_state(e, R11, segment_base);
	emit_lea_operand(e, true, R10, &sum);
}

static uint32_t segment_base_of(const struct insn *i)
{
	return i->seg >= FS ? (uint32_t)(offsetof(struct vcpu, s.seg_base) + 8 * i->seg) : 0;
}

/* ---- by the TLB ---- */

/* R10 is the address. */
static bool use_tlb(struct emitter *e, unsigned size, bool write, struct address *a)
{
	if (!size || size > 64)
		return false;
	emit_tlb_lookup(e, size, write);
	*a = (struct address){ .operand = based_operand(R11, 0) };
	return true;
}

static bool use_tlb_constant(struct emitter *e, uint32_t segment_base, uint64_t address, unsigned size, bool write,
			     struct address *a)
{
	emit_mov_imm(e, R10, address);
	if (segment_base)
		add_segment(e, segment_base);
	return use_tlb(e, size, write, a);
}

/* ---- windows ---- */

/* R11 = window of a slot known now. */
static void emit_slot(struct emitter *e, int64_t slot)
{
	struct host_memory_operand entry = based_operand(R15, (int32_t)(8 * slot - SLOT_SHIFT));

	emit_op(e, true, 0x8b, R11, &entry);
	emit_forget(e, R11);
}

/* The operand is at disp(base), in base's slot. */
static void use_register(struct emitter *e, unsigned base, int32_t disp, struct address *a)
{
	unsigned window = emit_window(e, base, base != R10);

	a->operand = windowed_operand(window, base, disp);
	a->uses_r10 = base == R10 || window == R10;
}

/* The operand is at disp from a sum of two of the host's registers. False: nothing was emitted. */
static bool use_sum(struct emitter *e, const struct insn *i, const struct host_memory_operand *m, int32_t disp,
		    struct address *a)
{
	unsigned sum;

	if (i->addrsize != 8 || i->seg >= FS || m->disp || m->base == HOST_NONE || bt_spilled(m->base) ||
	    m->index == HOST_NONE || bt_spilled(m->index) || (sum = emit_sum(e, m)) == HOST_NONE)
		return false;
	*a = (struct address){ .operand = { .base = (uint8_t)sum, .index = m->index, .scale = m->scale, .disp = disp },
			       .uses_r10 = sum == R10 };
	return true;
}

static bool use_constant(struct emitter *e, uint64_t address, struct address *a)
{
	if (!is_canonical(address))
		return false;
	a->uses_r10 = (uint64_t)(int32_t)address != address;
	if (a->uses_r10)
		emit_mov_imm(e, R10, address);
	emit_slot(e, (int64_t)address >> SLOT_SHIFT);
	a->operand = a->uses_r10 ? windowed_operand(R11, R10, 0) : based_operand(R11, (int32_t)address);
	return true;
}

/* R10 = segment base + constant; what fits stays in the operand. */
static void use_segment_constant(struct emitter *e, uint32_t segment_base, uint64_t offset, struct address *a)
{
	int32_t disp = (int32_t)offset;

	emit_load_state(e, R10, segment_base);
	if ((uint64_t)disp != offset) {
		struct host_memory_operand sum = { .base = R10, .index = R11 };

		emit_mov_imm(e, R11, offset);
		emit_lea_operand(e, true, R10, &sum);
		disp = 0;
	} else if (disp < EMIT_FAR_DISPLACEMENT) {
		emit_lea(e, R10, R10, disp);
		disp = 0;
	}
	use_register(e, R10, disp, a);
}

bool emit_absolute(struct emitter *e, const struct insn *i, uint64_t address, unsigned size, bool write,
		   struct address *a)
{
	uint32_t segment_base = segment_base_of(i);

	if (e->way == BY_TLB)
		return use_tlb_constant(e, segment_base, address, size, write, a);
	if (!segment_base)
		return use_constant(e, address, a);
	use_segment_constant(e, segment_base, address, a);
	return true;
}

bool emit_address(struct emitter *e, const struct insn *i, const struct insn_host *h, uint64_t rip, struct address *a)
{
	uint32_t segment_base = segment_base_of(i);
	struct host_memory_operand m;
	uint64_t constant;
	int32_t disp = 0; /* what stays in the access */

	if (!emit_effective(e, i, h, rip, &m, &constant))
		return emit_absolute(e, i, constant, h->mem_size, h->mem_written, a);
	if (e->way == BY_TLB) {
		emit_lea_operand(e, i->addrsize == 8, R10, &m);
		if (segment_base)
			add_segment(e, segment_base);
		return use_tlb(e, h->mem_size, h->mem_written, a);
	}
	if (i->addrsize == 8 && m.disp >= EMIT_FAR_DISPLACEMENT && m.base != HOST_NONE) {
		disp = m.disp;
		m.disp = 0;
	}
	if (use_sum(e, i, &m, disp, a))
		return true;
	if (segment_base && i->addrsize == 8 && m.index == HOST_NONE && m.base != R10) {
		/* One register and the segment base. */
		emit_load_state(e, R10, segment_base);
		m.index = m.base;
		m.base = R10;
		segment_base = 0;
	}
	if (i->addrsize != 8 || m.index != HOST_NONE || m.disp) {
		emit_lea_operand(e, i->addrsize == 8, R10, &m);
		m.base = R10;
	}
	if (segment_base)
		add_segment(e, segment_base);
	if (i->addrsize == 8 || segment_base) {
		use_register(e, m.base, disp, a);
	} else {
		emit_slot(e, 0);
		*a = (struct address){ .operand = windowed_operand(R11, R10, 0), .uses_r10 = true };
	}
	return true;
}
