/*
 * Memory operands of 16- and 32-bit code: offsets, limits, bases.
 *
 * An access is op %gs:offset(base) with the address-size prefix: the sum has 32 bits, and begins in the window's first 4 GiB whatever
 * offset and base are. So limits (limits.c) are the guest's business alone: no access of the guest can get out for want of one. By the TLB the
 * same sum is what is looked up.
 */
#include "engine/bt/emit.h"

/* ---- pieces ---- */

void emit_zero_extend16(struct emitter *e, unsigned to, unsigned from)
{
	const struct encoding movzx = {
		.opcode = { 0x0f, 0xb7 }, .opcode_len = 2, .modrm = true, .reg = (uint8_t)to, .rm = (uint8_t)from
	};

	emit_encoding(e, &movzx, NULL);
}

void emit_move_sized(struct emitter *e, unsigned size, unsigned to, unsigned from)
{
	const struct encoding mov = { .prefixes = size == 2 ? PREFIX_66 : 0,
				      .opcode = { 0x89 },
				      .opcode_len = 1,
				      .modrm = true,
				      .reg = (uint8_t)from,
				      .rm = (uint8_t)to };

	emit_encoding(e, &mov, NULL);
}

void emit_op_sized(struct emitter *e, unsigned size, uint8_t opcode, unsigned reg, const struct host_memory_operand *m)
{
	const struct encoding c = { .prefixes = size == 2 ? PREFIX_66 : 0,
				    .opcode = { (uint8_t)(opcode - (size == 1)) },
				    .opcode_len = 1,
				    .modrm = true,
				    .reg = (uint8_t)reg };

	emit_encoding(e, &c, m);
}

void emit_load_state16(struct emitter *e, unsigned reg, uint32_t offset)
{
	const struct encoding movzx = { .opcode = { 0x0f, 0xb7 }, .opcode_len = 2, .modrm = true, .reg = (uint8_t)reg };
	const struct host_memory_operand m = state_operand(offset);

	emit_encoding(e, &movzx, &m);
}

void emit_store_state16(struct emitter *e, unsigned reg, uint32_t offset)
{
	const struct host_memory_operand m = state_operand(offset);

	emit_op_sized(e, 2, 0x89, reg, &m);
}

/* ---- offsets ---- */

static bool is_constant(const struct host_memory_operand *m) { return m->base == HOST_NONE && m->index == HOST_NONE; }

/* Is it what a register holds? */
static bool is_register(const struct host_memory_operand *m)
{
	return m->base != HOST_NONE && m->index == HOST_NONE && !m->disp;
}

static void sum_in_r10(struct emitter *e, struct host_memory_operand *m)
{
	if (!is_register(m) || m->base != R10)
		emit_lea_operand(e, false, R10, m);
	*m = based_operand(R10, 0);
}

struct host_memory_operand emit_offset(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m = guest_operand(i);

	if (i->addrsize != 2)
		return m;
	if (is_constant(&m)) {
		m.disp &= 0xffff;
		return m;
	}
	if (is_register(&m)) {
		emit_zero_extend16(e, R10, m.base);
	} else {
		emit_lea_operand(e, false, R10, &m);
		emit_zero_extend16(e, R10, R10);
	}
	return based_operand(R10, 0);
}

/* ---- limits ---- */

void emit_check_limit(struct emitter *e, uint32_t limit, int size)
{
	const struct host_memory_operand last = { .base = R11, .index = R10, .disp = size - 1 };

	emit_load_state(e, R11, limit);
	emit_op(e, false, 0x8a, R11, &last);
}

/* Is the operand, of so many bytes at an offset of so many bytes, below `end` without a look? */
static bool ends_below(const struct host_memory_operand *m, unsigned offset_size, unsigned size, uint64_t end)
{
	uint64_t offset = is_constant(m) ? (uint32_t)m->disp : offset_size == 2 ? 0xffff : UINT32_MAX;

	return offset + size <= end;
}

/*
 * Without a limit there is still 4 GiB: an offset that goes on behind it faults. Where the base is 0 the linear address does, too, and
 * nothing is mapped there (window_space.c, emit_tlb.c).
 */
static bool is_within(const struct emitter *e, enum seg seg, unsigned offset_size, unsigned size, bool write,
		      const struct host_memory_operand *m)
{
	if ((e->plain_segments >> seg & 1) && !(seg == CS && write))
		return !emit_is_based(e, seg) || ends_below(m, offset_size, size, BIT(32));
	return (e->wide_segments >> seg & 1) && ends_below(m, offset_size, size, BIT(16));
}

/* ---- bases ---- */

/* The register that holds a segment's base, loaded into R11 if it has none of its own. */
static unsigned segment_register(struct emitter *e, enum seg seg)
{
	switch (seg) {
	case DS: return R8;
	case SS: return R9;
	case FS: return R13;
	case GS: return R14;
	default: emit_load_state(e, R11, BT_BASE(seg)); return R11;
	}
}

void emit_add_base(struct emitter *e, enum seg seg, struct host_memory_operand *m)
{
	unsigned base;

	m->guest = true;
	if (seg == CS)
		m->disp = (int32_t)((uint32_t)m->disp + e->code_base);
	if (seg == CS || !(e->based_segments >> seg & 1))
		return;
	if (m->base != HOST_NONE && m->index != HOST_NONE) {
		m->guest = false;
		sum_in_r10(e, m);
		m->guest = true;
	}
	base = segment_register(e, seg);
	if (m->base == HOST_NONE)
		m->base = (uint8_t)base;
	else
		m->index = (uint8_t)base;
}

/* By the TLB what was summed up is looked up; what is too large for that is found by the window. */
static void reach(struct emitter *e, unsigned size, bool write, struct host_memory_operand *m)
{
	if (e->way == BY_WINDOWS || size > 64)
		return;
	m->guest = false;
	emit_lea_operand(e, false, R10, m);
	emit_tlb_lookup(e, size, write);
	*m = based_operand(R11, 0);
}

void emit_in_segment(struct emitter *e, enum seg seg, unsigned offset_size, unsigned size, bool write,
		     struct host_memory_operand *m)
{
	const uint32_t limits = write ? (uint32_t)offsetof(struct bt_vcpu, frame.write_limit)
				      : (uint32_t)offsetof(struct bt_vcpu, frame.read_limit);

	if (!is_within(e, seg, offset_size, size, write, m)) {
		sum_in_r10(e, m);
		emit_check_limit(e, limits + 8 * seg, (int)size);
	}
	emit_add_base(e, seg, m);
	reach(e, size, write, m);
}

/* ---- operands ---- */

void emit32_operand_sized(struct emitter *e, const struct insn *i, unsigned size, bool write,
			  struct host_memory_operand *m)
{
	*m = emit_offset(e, i);
	emit_in_segment(e, i->seg, i->addrsize, size, write, m);
}

bool emit32_operand(struct emitter *e, const struct insn *i, const struct insn_host *h, struct host_memory_operand *m)
{
	if (!h->mem_size)
		return false;
	emit32_operand_sized(e, i, h->mem_size, h->mem_written, m);
	return true;
}

bool emit_load_far_pointer(struct emitter *e, const struct insn *i)
{
	struct host_memory_operand m;

	if (i->srcsize != 2 || i->addrsize != 2 || !emit_spans_parts(e, i->seg))
		return false;
	m = emit_offset(e, i);
	sum_in_r10(e, &m);
	emit_check_limit(e, BT_WRAP_LIMIT, 4);
	emit_add_base(e, i->seg, &m);
	emit_op(e, false, 0x8b, R12, &m);
	return true;
}
