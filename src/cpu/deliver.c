/*
 * Delivery of one interrupt or exception to its handler: real mode's vector table, gates of protected and long mode, stack
 * switches (SDM vol. 3A 6.12 to 6.14, 21.1.4; vol. 2 INT n). Which one is delivered, and what becomes of a fault on the
 * way, is event.c's.
 */
#include "cpu/segment.h"

/* Gate types, with the S bit (0) above: SDM vol. 3A table 3-2. */
enum gate_type { GATE_TASK = 5, GATE_INTERRUPT_16 = 6, GATE_TRAP_16 = 7, GATE_INTERRUPT_32 = 14, GATE_TRAP_32 = 15 };

#define TYPE_IS_32 8 /* bit of the type: 9 and 11 are 32-bit (64-bit in long mode), 1 and 3 are 16-bit */

struct gate {
	uint64_t offset;
	uint16_t selector;
	uint8_t type;
	uint8_t ist;
};

/* Where the frame is pushed. sp moves; nothing else of the processor does until commit. */
struct stack {
	struct descriptor ss;
	uint64_t sp;
	uint8_t sp_size; /* 2, 4, 8 */
	uint8_t width;	 /* of a push */
	bool user;
	uint32_t error; /* of #SS when it is too small */
};

static uint32_t external(const struct delivery *d) { return d->kind != DELIVERY_SOFTWARE; }

static uint32_t selector_error(const struct delivery *d, uint16_t selector)
{
	return (selector & 0xfffcu) | external(d);
}

static uint32_t vector_error(const struct delivery *d) { return d->vector * 8u + 2 + external(d); }

/* ---- gates ---- */

/* The handler's code segment, checked (marked as accessed only by enter_handler). */
static struct descriptor read_handler_code(struct vcpu *v, const struct delivery *d, uint16_t selector)
{
	struct descriptor cs;

	if (selector_is_null(selector))
		cpu_raise_error(v, EXC_GP, external(d));
	cpu_read_descriptor(v, selector, &cs, EXC_GP, external(d));
	if (!attr_is_code(cs.attr) || attr_dpl(cs.attr) > v->cpl)
		cpu_raise_error(v, EXC_GP, selector_error(d, selector));
	if (in_long_mode(v) && (cs.attr & (ATTR_L | ATTR_DB)) != ATTR_L)
		cpu_raise_error(v, EXC_GP, selector_error(d, selector));
	if (!(cs.attr & ATTR_P))
		cpu_raise_error(v, EXC_NP, selector_error(d, selector));
	return cs;
}

static struct gate read_gate(struct vcpu *v, const struct delivery *d)
{
	unsigned size = in_long_mode(v) ? 16 : 8;
	uint64_t where = v->s.idtr_base + d->vector * size, raw;
	struct gate gate;

	if (d->vector * size + size - 1 > v->s.idtr_limit)
		cpu_raise_error(v, EXC_GP, vector_error(d));
	raw = table_load(v, where);
	gate.type = bits(raw, 44, 40);
	gate.selector = bits(raw, 31, 16);
	gate.offset = bits(raw, 15, 0);
	gate.ist = size == 16 ? bits(raw, 34, 32) : 0;
	if (gate.type & TYPE_IS_32)
		gate.offset |= bits(raw, 63, 48) << 16;
	if (size == 16) {
		if (gate.type != GATE_INTERRUPT_32 && gate.type != GATE_TRAP_32)
			cpu_raise_error(v, EXC_GP, vector_error(d));
		gate.offset |= cpu_system_load(v, where + 8, 4) << 32;
	} else if (gate.type != GATE_TASK && (gate.type & ~9u) != GATE_INTERRUPT_16) {
		cpu_raise_error(v, EXC_GP, vector_error(d));
	}
	if (d->kind == DELIVERY_SOFTWARE && bits(raw, 46, 45) < v->cpl)
		cpu_raise_error(v, EXC_GP, vector_error(d));
	if (!bits(raw, 47, 47))
		cpu_raise_error(v, EXC_NP, vector_error(d));
	return gate;
}

/* ---- stacks ---- */

static uint64_t sp_mask(const struct stack *s)
{
	return s->sp_size == 8 ? UINT64_MAX : s->sp_size == 4 ? UINT32_MAX : 0xffff;
}

static void push(struct vcpu *v, struct stack *s, uint64_t value)
{
	uint64_t sp = (s->sp - s->width) & sp_mask(s), last = sp + s->width - 1, lin = s->ss.base + sp;

	if (s->sp_size != 8) {
		uint64_t top = s->ss.attr & ATTR_DB ? UINT32_MAX : 0xffff;
		bool outside = s->ss.attr & ATTR_EXPAND_DOWN ? sp <= s->ss.limit || last > top : last > s->ss.limit;
		/* A task switch that could not load SS leaves none to push on. */
		bool none = (v->s.cr0 & CR0_PE) && (!(s->ss.attr & ATTR_P) || !attr_is_writable_data(s->ss.attr));

		if (outside || none)
			cpu_raise_error(v, EXC_SS, s->error);
		if (!in_long_mode(v))
			lin = (uint32_t)lin;
	}
	if (s->user)
		cpu_store(v, lin, value, s->width, true);
	else
		cpu_system_store(v, lin, value, s->width);
	s->sp = sp;
}

static struct stack current_stack(struct vcpu *v, const struct delivery *d, unsigned width)
{
	return (struct stack){
		.ss = { .attr = v->s.seg_attr[SS], .limit = v->s.seg_limit[SS], .base = v->s.seg_base[SS] },
		.sp = v->s.gpr[RSP],
		.sp_size = v->stack_size,
		.width = (uint8_t)width,
		.user = v->cpl == 3,
		.error = external(d),
	};
}

/* A field of the TSS; #TS with TR's selector when the TSS is too small. */
static uint64_t read_tss(struct vcpu *v, const struct delivery *d, unsigned offset, unsigned size)
{
	if (offset + size - 1 > v->s.seg_limit[TR])
		cpu_raise_error(v, EXC_TS, selector_error(d, v->s.seg_sel[TR]));
	return cpu_system_load(v, v->s.seg_base[TR] + offset, size);
}

/* The stack that the TSS has for privilege level `cpl`, outside long mode. */
static struct stack tss_stack(struct vcpu *v, const struct delivery *d, unsigned cpl, unsigned width)
{
	struct stack s = { .width = (uint8_t)width };
	uint16_t selector;

	if (v->s.seg_attr[TR] & TYPE_IS_32) {
		/* One check for both fields: the manual faults if the last byte of SS is outside. */
		selector = (uint16_t)read_tss(v, d, 8 + 8 * cpl, 2);
		s.sp = read_tss(v, d, 4 + 8 * cpl, 4);
	} else {
		selector = (uint16_t)read_tss(v, d, 4 + 4 * cpl, 2);
		s.sp = read_tss(v, d, 2 + 4 * cpl, 2);
	}
	if (selector_is_null(selector))
		cpu_raise_error(v, EXC_TS, external(d));
	s.error = selector_error(d, selector);
	cpu_read_descriptor(v, selector, &s.ss, EXC_TS, external(d));
	cpu_check_stack_segment(v, &s.ss, cpl, EXC_TS, external(d));
	cpu_mark_descriptor(v, &s.ss, ATTR_ACCESSED);
	s.sp_size = s.ss.attr & ATTR_DB ? 4 : 2;
	return s;
}

/* ---- commit ---- */

/* What every delivery ends with. */
static void end_delivery(struct vcpu *v, const struct delivery *d)
{
	v->s.shadow = SHADOW_NONE;
	v->step_trap = false;
	v->s.activity = CPU_RUNNING;
	if (d->vector == EXC_DB && d->kind == DELIVERY_EXCEPTION)
		v->s.dr[7] &= ~DR7_GD;
	cpu_update_mode(v);
}

static uint64_t pushed_flags(const struct vcpu *v, const struct delivery *d)
{
	return cpu_rflags(v) | (d->resume ? FLAG_RF : 0);
}

static void set_sp(struct vcpu *v, const struct stack *s)
{
	v->s.gpr[RSP] = s->sp_size == 2 ? (v->s.gpr[RSP] & ~0xffffull) | s->sp : s->sp;
}

/* ---- the three kinds of machine ---- */

static void deliver_real(struct vcpu *v, const struct delivery *d)
{
	struct stack stack = current_stack(v, d, 2);
	uint32_t entry;

	if (d->vector * 4u + 3 > v->s.idtr_limit)
		cpu_raise_error(v, EXC_GP, vector_error(d));
	entry = (uint32_t)cpu_system_load(v, v->s.idtr_base + d->vector * 4u, 4);
	push(v, &stack, pushed_flags(v, d));
	push(v, &stack, v->s.seg_sel[CS]);
	push(v, &stack, d->return_rip);

	set_sp(v, &stack);
	cpu_set_real_segment(v, CS, (uint16_t)(entry >> 16));
	v->s.rip = entry & 0xffff;
	cpu_set_rflags(v, cpu_rflags(v) & ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF));
	end_delivery(v, d);
}

static void push_frame(struct vcpu *v, const struct delivery *d, struct stack *stack)
{
	push(v, stack, pushed_flags(v, d));
	push(v, stack, v->s.seg_sel[CS]);
	push(v, stack, d->return_rip);
	if (d->has_error)
		push(v, stack, d->error);
}

static void enter_handler(struct vcpu *v, const struct delivery *d, const struct gate *gate,
			  const struct descriptor *cs, unsigned cpl)
{
	uint64_t clear = FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM;

	if (!(gate->type & 1)) /* an interrupt gate */
		clear |= FLAG_IF;
	cpu_set_segment(v, CS, (uint16_t)((cs->selector & ~3u) | cpl), cs);
	v->s.rip = gate->offset;
	cpu_set_rflags(v, cpu_rflags(v) & ~clear);
	end_delivery(v, d);
}

/* Leaving virtual-8086 mode: its segments are on the stack, the handler finds null ones. */
static void null_data_segments(struct vcpu *v)
{
	static const enum seg segs[] = { ES, DS, FS, GS };

	for (unsigned n = 0; n < ARRAY_SIZE(segs); n++)
		cpu_set_null_segment(v, segs[n], 0);
}

static void deliver_protected(struct vcpu *v, const struct delivery *d)
{
	struct gate gate = read_gate(v, d);
	bool v86 = v->s.rflags & FLAG_VM, inner;
	unsigned width = gate.type & TYPE_IS_32 ? 4 : 2, cpl;
	struct descriptor cs;
	struct stack stack;

	if (gate.type == GATE_TASK) {
		cpu_task_switch(v, gate.selector, TASK_SWITCH_GATE, d->return_rip, d);
		end_delivery(v, d);
		return;
	}

	cs = read_handler_code(v, d, gate.selector);
	inner = !attr_is_conforming(cs.attr) && attr_dpl(cs.attr) < v->cpl;
	cpl = inner ? attr_dpl(cs.attr) : v->cpl;
	if (v86 && (!inner || cpl != 0))
		cpu_raise_error(v, EXC_GP, selector_error(d, gate.selector));
	stack = inner ? tss_stack(v, d, cpl, width) : current_stack(v, d, width);
	if (v86) {
		push(v, &stack, v->s.seg_sel[GS]);
		push(v, &stack, v->s.seg_sel[FS]);
		push(v, &stack, v->s.seg_sel[DS]);
		push(v, &stack, v->s.seg_sel[ES]);
	}
	if (inner) {
		push(v, &stack, v->s.seg_sel[SS]);
		push(v, &stack, v->s.gpr[RSP]);
	}
	push_frame(v, d, &stack);
	if (gate.offset > cs.limit)
		cpu_raise_error(v, EXC_GP, external(d));
	cpu_mark_descriptor(v, &cs, ATTR_ACCESSED);

	if (v86)
		null_data_segments(v);
	if (inner)
		cpu_set_segment(v, SS, stack.ss.selector, &stack.ss);
	set_sp(v, &stack);
	enter_handler(v, d, &gate, &cs, cpl);
}

static void deliver_long(struct vcpu *v, const struct delivery *d)
{
	struct gate gate = read_gate(v, d);
	struct descriptor cs = read_handler_code(v, d, gate.selector);
	bool inner = !attr_is_conforming(cs.attr) && attr_dpl(cs.attr) < v->cpl;
	unsigned cpl = inner ? attr_dpl(cs.attr) : v->cpl;
	struct stack stack = { .sp = v->s.gpr[RSP], .sp_size = 8, .width = 8, .user = cpl == 3 };

	if (gate.ist)
		stack.sp = read_tss(v, d, 36 + 8 * (gate.ist - 1u), 8);
	else if (inner)
		stack.sp = read_tss(v, d, 4 + 8 * cpl, 8);
	stack.sp &= ~15ull;
	if (!is_canonical(stack.sp - 1) || !is_canonical(stack.sp - 48))
		cpu_raise_error(v, EXC_SS, external(d));
	push(v, &stack, v->s.seg_sel[SS]);
	push(v, &stack, v->s.gpr[RSP]);
	push_frame(v, d, &stack);
	if (!is_canonical(gate.offset))
		cpu_raise_error(v, EXC_GP, external(d));
	cpu_mark_descriptor(v, &cs, ATTR_ACCESSED);

	if (inner) {
		cpu_set_null_segment(v, SS, (uint16_t)cpl);
		v->s.seg_attr[SS] = (uint16_t)(cpl << ATTR_DPL_SHIFT); /* see private.h */
	}
	v->s.gpr[RSP] = stack.sp;
	enter_handler(v, d, &gate, &cs, cpl);
}

void cpu_deliver(struct vcpu *v, const struct delivery *d)
{
	if (!(v->s.cr0 & CR0_PE))
		deliver_real(v, d);
	else if (in_long_mode(v))
		deliver_long(v, d);
	else
		deliver_protected(v, d);
}
