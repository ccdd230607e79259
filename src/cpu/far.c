/*
 * Far transfers: JMP, CALL and RET to another code segment, IRET, software interrupts. SDM vol. 3A 5.8, 6.12, 20.3;
 * vol. 2 for each instruction. Call gates, task gates and TSSs: gate.c and task.c.
 */
#include "cpu/segment.h"

/* ---- code segments ---- */

void cpu_check_target(struct vcpu *v, const struct descriptor *d, uint64_t offset)
{
	if (in_long_mode(v) && (d->attr & ATTR_L) ? !is_canonical(offset) : offset > d->limit)
		cpu_raise_error(v, EXC_GP, 0);
}

void cpu_enter_code(struct vcpu *v, const struct descriptor *d, unsigned cpl, uint64_t offset)
{
	cpu_set_segment(v, CS, (uint16_t)((d->selector & ~3u) | cpl), d);
	v->s.rip = offset;
	cpu_update_mode(v);
}

void cpu_check_code_present(struct vcpu *v, const struct descriptor *d)
{
	if (in_long_mode(v) && (d->attr & (ATTR_L | ATTR_DB)) == (ATTR_L | ATTR_DB))
		cpu_raise_error(v, EXC_GP, d->selector & ~3u);
	if (!(d->attr & ATTR_P))
		cpu_raise_error(v, EXC_NP, d->selector & ~3u);
}

/* A code segment that JMP or CALL names directly. */
static void check_direct_code(struct vcpu *v, const struct descriptor *d)
{
	unsigned dpl = attr_dpl(d->attr), rpl = d->selector & 3;

	if (attr_is_conforming(d->attr) ? dpl > v->cpl : (rpl > v->cpl || dpl != v->cpl))
		cpu_raise_error(v, EXC_GP, d->selector & ~3u);
	cpu_check_code_present(v, d);
}

/* A code segment that RET or IRET returns to, at the level of the selector's RPL. */
static void read_return_code(struct vcpu *v, uint16_t selector, struct descriptor *d)
{
	unsigned rpl = selector & 3;

	if (selector_is_null(selector))
		cpu_raise_error(v, EXC_GP, 0);
	cpu_read_descriptor(v, selector, d, EXC_GP, 0);
	if (!attr_is_code(d->attr) || rpl < v->cpl ||
	    (attr_is_conforming(d->attr) ? attr_dpl(d->attr) > rpl : attr_dpl(d->attr) != rpl))
		cpu_raise_error(v, EXC_GP, selector & ~3u);
	cpu_check_code_present(v, d);
}

/* The stack of a return to another level, or of any return by IRET of 64-bit mode. A null one is left null. */
static void read_return_stack(struct vcpu *v, uint16_t selector, const struct descriptor *code, struct descriptor *d)
{
	unsigned cpl = code->selector & 3;

	if (selector_is_null(selector)) {
		if (!in_long_mode(v) || !(code->attr & ATTR_L) || cpl == 3 || (selector & 3u) != cpl)
			cpu_raise_error(v, EXC_GP, 0);
		*d = (struct descriptor){ .selector = selector, .attr = (uint16_t)(cpl << ATTR_DPL_SHIFT) };
		return;
	}
	cpu_read_descriptor(v, selector, d, EXC_GP, 0);
	cpu_check_stack_segment(v, d, cpl, EXC_GP, 0);
	cpu_mark_descriptor(v, d, ATTR_ACCESSED);
}

static void set_stack(struct vcpu *v, const struct descriptor *d) { cpu_set_segment(v, SS, d->selector, d); }

/* ---- JMP and CALL ---- */

struct far_pointer {
	uint16_t selector;
	uint64_t offset;
};

static struct far_pointer far_operand(struct vcpu *v, const struct insn *i)
{
	struct far_pointer p;

	if (i->form != FORM_M)
		return (struct far_pointer){ (uint16_t)(i->imm >> 32), (uint32_t)i->imm };
	p.offset = cpu_load(v, cpu_operand(v, i, i->srcsize, ACCESS_READ), i->srcsize, i->seg == SS);
	p.selector = (uint16_t)cpu_load(v, cpu_operand_part(v, i, i->srcsize, 2, ACCESS_READ), 2, i->seg == SS);
	return p;
}

static void real_far_transfer(struct vcpu *v, const struct insn *i, struct far_pointer p, bool call)
{
	if (p.offset > v->s.seg_limit[CS])
		cpu_raise_error(v, EXC_GP, 0);
	if (call) {
		uint64_t rsp = v->s.gpr[RSP];

		stack_push(v, &rsp, v->s.seg_sel[CS], i->opsize);
		stack_push(v, &rsp, cpu_next_rip(v, i), i->opsize);
		set_stack_pointer(v, rsp);
	}
	cpu_set_real_segment(v, CS, p.selector);
	v->s.rip = p.offset;
	cpu_update_mode(v);
}

static void protected_far_transfer(struct vcpu *v, const struct insn *i, struct far_pointer p, bool call)
{
	uint64_t rsp = v->s.gpr[RSP];
	struct descriptor d;

	if (selector_is_null(p.selector))
		cpu_raise_error(v, EXC_GP, 0);
	cpu_read_descriptor(v, p.selector, &d, EXC_GP, 0);
	if (!(d.attr & ATTR_S)) {
		cpu_transfer_by_gate(v, i, &d, call);
		return;
	}
	if (!attr_is_code(d.attr))
		cpu_raise_error(v, EXC_GP, p.selector & ~3u);
	check_direct_code(v, &d);
	if (call) {
		stack_push(v, &rsp, v->s.seg_sel[CS], i->opsize);
		stack_push(v, &rsp, cpu_next_rip(v, i), i->opsize);
	}
	cpu_check_target(v, &d, p.offset); /* after the stack */
	cpu_mark_descriptor(v, &d, ATTR_ACCESSED);
	if (call)
		set_stack_pointer(v, rsp);
	cpu_enter_code(v, &d, v->cpl, p.offset);
}

static void far_transfer(struct vcpu *v, const struct insn *i, bool call)
{
	struct far_pointer p = far_operand(v, i);

	if (in_protected_mode(v))
		protected_far_transfer(v, i, p, call);
	else
		real_far_transfer(v, i, p, call);
}

void op_jmp_far(struct vcpu *v, const struct insn *i) { far_transfer(v, i, false); }
void op_call_far(struct vcpu *v, const struct insn *i) { far_transfer(v, i, true); }

/* ---- RET ---- */

static void real_far_return(struct vcpu *v, const struct insn *i, uint16_t release)
{
	uint64_t rsp = v->s.gpr[RSP];
	uint64_t rip = stack_pop(v, &rsp, i->opsize);
	uint16_t cs = (uint16_t)stack_pop(v, &rsp, i->opsize);

	if (rip > v->s.seg_limit[CS])
		cpu_raise_error(v, EXC_GP, 0);
	set_stack_pointer(v, rsp + release);
	cpu_set_real_segment(v, CS, cs);
	v->s.rip = rip;
	cpu_update_mode(v);
}

static void protected_far_return(struct vcpu *v, const struct insn *i, uint16_t release)
{
	uint64_t rsp = v->s.gpr[RSP], outer_rsp;
	uint64_t rip = stack_pop(v, &rsp, i->opsize);
	uint16_t cs = (uint16_t)stack_pop(v, &rsp, i->opsize), ss;
	struct descriptor code, stack;

	read_return_code(v, cs, &code);
	rsp += release;
	if ((cs & 3u) == v->cpl) {
		cpu_check_target(v, &code, rip);
		cpu_mark_descriptor(v, &code, ATTR_ACCESSED);
		set_stack_pointer(v, rsp);
		cpu_enter_code(v, &code, v->cpl, rip);
		return;
	}
	outer_rsp = stack_pop(v, &rsp, i->opsize);
	ss = (uint16_t)stack_pop(v, &rsp, i->opsize);
	read_return_stack(v, ss, &code, &stack);
	cpu_check_target(v, &code, rip);
	cpu_mark_descriptor(v, &code, ATTR_ACCESSED);
	set_stack(v, &stack);
	cpu_enter_code(v, &code, cs & 3, rip);
	set_stack_pointer(v, outer_rsp + release);
	cpu_drop_inner_segments(v);
	cpu_update_mode(v);
}

void op_ret_far(struct vcpu *v, const struct insn *i)
{
	uint16_t release = i->form == FORM_I ? (uint16_t)i->imm : 0;

	if (in_protected_mode(v))
		protected_far_return(v, i, release);
	else
		real_far_return(v, i, release);
}

/* ---- IRET ---- */

/* What IRET takes over at every level; the rest of the flags depends on the level and the operand size. */
#define IRET_FLAGS_16 (FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT)
#define IRET_FLAGS_32 (IRET_FLAGS_16 | FLAG_RF | FLAG_AC | FLAG_ID)

static uint64_t merge_flags(const struct vcpu *v, uint64_t popped, uint64_t mask)
{
	return (cpu_rflags(v) & ~mask) | (popped & mask);
}

static uint64_t returned_flags(const struct vcpu *v, uint64_t popped, unsigned opsize)
{
	uint64_t mask = opsize == 2 ? IRET_FLAGS_16 : IRET_FLAGS_32;

	if (v->cpl <= bits(v->s.rflags, 13, 12))
		mask |= FLAG_IF;
	if (v->cpl == 0)
		mask |= opsize == 2 ? FLAG_IOPL : FLAG_IOPL | FLAG_VIF | FLAG_VIP;
	return merge_flags(v, popped, mask);
}

static void real_iret(struct vcpu *v, const struct insn *i)
{
	uint64_t rsp = v->s.gpr[RSP];
	uint64_t rip = stack_pop(v, &rsp, i->opsize);
	uint16_t cs = (uint16_t)stack_pop(v, &rsp, i->opsize);
	uint64_t flags = stack_pop(v, &rsp, i->opsize);
	uint64_t mask = (i->opsize == 2 ? IRET_FLAGS_16 : IRET_FLAGS_32) | FLAG_IF;

	if (rip > v->s.seg_limit[CS])
		cpu_raise_error(v, EXC_GP, 0);
	if (!(v->s.rflags & FLAG_VM))
		mask |= FLAG_IOPL;
	set_stack_pointer(v, rsp);
	cpu_set_real_segment(v, CS, cs);
	v->s.rip = rip;
	cpu_set_rflags(v, merge_flags(v, flags, mask));
	cpu_update_mode(v);
}

/* Virtual-8086 mode with IOPL below 3: only the 16-bit form with VME, where IF means VIF (SDM vol. 3A 20.3.3.4). */
static void virtual_iret(struct vcpu *v, const struct insn *i)
{
	uint64_t rsp = v->s.gpr[RSP], rip, flags;
	uint16_t cs;

	if (!(v->s.cr4 & CR4_VME) || i->opsize != 2)
		cpu_raise_error(v, EXC_GP, 0);
	rip = stack_pop(v, &rsp, 2);
	cs = (uint16_t)stack_pop(v, &rsp, 2);
	flags = stack_pop(v, &rsp, 2);
	if ((flags & FLAG_TF) || ((flags & FLAG_IF) && (v->s.rflags & FLAG_VIP)))
		cpu_raise_error(v, EXC_GP, 0);
	if (rip > v->s.seg_limit[CS])
		cpu_raise_error(v, EXC_GP, 0);
	if (flags & FLAG_IF)
		flags |= FLAG_VIF;
	set_stack_pointer(v, rsp);
	cpu_set_real_segment(v, CS, cs);
	v->s.rip = rip;
	cpu_set_rflags(v, merge_flags(v, flags, IRET_FLAGS_16 | FLAG_VIF));
	cpu_update_mode(v);
}

/* IRETD of ring 0 with VM in the flags on the stack: SDM vol. 3A 20.2.4. */
static void return_to_virtual_8086(struct vcpu *v, uint64_t rsp, uint64_t rip, uint16_t cs, uint64_t flags)
{
	static const uint8_t order[] = { SS, ES, DS, FS, GS };
	uint64_t outer_rsp = stack_pop(v, &rsp, 4);
	uint16_t selectors[SEG_COUNT];

	for (unsigned n = 0; n < ARRAY_SIZE(order); n++)
		selectors[order[n]] = (uint16_t)stack_pop(v, &rsp, 4);
	if (rip > 0xffff)
		cpu_raise_error(v, EXC_GP, 0);
	cpu_set_rflags(v, flags);
	cpu_set_real_segment(v, CS, cs);
	for (unsigned n = 0; n < ARRAY_SIZE(order); n++)
		cpu_set_real_segment(v, order[n], selectors[order[n]]);
	v->s.gpr[RSP] = (uint32_t)outer_rsp;
	v->s.rip = rip;
	cpu_update_mode(v);
}

static void return_from_task(struct vcpu *v, const struct insn *i)
{
	uint16_t link = (uint16_t)cpu_system_load(v, v->s.seg_base[TR], 2);

	cpu_task_switch(v, link, TASK_SWITCH_IRET, cpu_next_rip(v, i), NULL);
}

/* To the same level in legacy mode and compatibility mode: the stack stays. */
static void return_same_level(struct vcpu *v, struct descriptor *code, uint64_t rsp, uint64_t rip, uint64_t flags)
{
	cpu_check_target(v, code, rip);
	cpu_mark_descriptor(v, code, ATTR_ACCESSED);
	set_stack_pointer(v, rsp);
	cpu_enter_code(v, code, v->cpl, rip);
	cpu_set_rflags(v, flags);
}

/* To an outer level, or to any level from 64-bit mode. */
static void return_with_stack(struct vcpu *v, struct descriptor *code, uint16_t ss, uint64_t rsp, uint64_t rip,
			      uint64_t flags)
{
	unsigned old_cpl = v->cpl;
	struct descriptor stack;

	read_return_stack(v, ss, code, &stack);
	cpu_check_target(v, code, rip);
	cpu_mark_descriptor(v, code, ATTR_ACCESSED);
	set_stack(v, &stack);
	cpu_set_segment(v, CS, code->selector, code);
	v->s.rip = rip;
	cpu_set_rflags(v, flags);
	cpu_update_mode(v);
	set_stack_pointer(v, rsp);
	if (v->cpl != old_cpl) {
		cpu_drop_inner_segments(v);
		if (v->code_mode != MODE_64)
			cpu_update_mode(v);
	}
}

/* The five quadwords that an IRETQ pops, usually in one page whose translation is at hand. */
static void pop_frame_64(struct vcpu *v, uint64_t frame[5])
{
	uint64_t rsp = v->s.gpr[RSP];
	const struct tlb_entry *e = tlb_slot(v, rsp);

	if (likely(e->read_tag == (((rsp + 39) & PAGE_MASK) | v->asid))) {
		memcpy(frame, (const void *)(rsp + e->addend), 40);
		return;
	}
	for (unsigned n = 0; n < 5; n++)
		frame[n] = stack_pop(v, &rsp, 8);
}

static void protected_iret(struct vcpu *v, const struct insn *i)
{
	uint64_t rsp = v->s.gpr[RSP], rip, flags, outer_rsp;
	struct descriptor code;
	uint16_t cs;

	rip = stack_pop(v, &rsp, i->opsize);
	cs = (uint16_t)stack_pop(v, &rsp, i->opsize);
	flags = stack_pop(v, &rsp, i->opsize);
	if ((flags & FLAG_VM) && v->cpl == 0 && i->opsize == 4 && !in_long_mode(v)) {
		return_to_virtual_8086(v, rsp, rip, cs, flags);
		return;
	}
	flags = returned_flags(v, flags, i->opsize);
	read_return_code(v, cs, &code);
	if (v->code_mode != MODE_64 && (cs & 3u) == v->cpl) {
		return_same_level(v, &code, rsp, rip, flags);
		return;
	}
	outer_rsp = stack_pop(v, &rsp, i->opsize);
	return_with_stack(v, &code, (uint16_t)stack_pop(v, &rsp, i->opsize), outer_rsp, rip, flags);
}

void op_iret(struct vcpu *v, const struct insn *i)
{
	if (unlikely(v->s.nmi_blocked))
		cpu_unblock_nmi(v);
	if (likely(v->code_mode == MODE_64 && i->opsize == 8 && !(v->s.rflags & FLAG_NT))) {
		uint64_t frame[5];
		struct descriptor code;

		pop_frame_64(v, frame);
		read_return_code(v, (uint16_t)frame[1], &code);
		return_with_stack(v, &code, (uint16_t)frame[4], frame[3], frame[0], returned_flags(v, frame[2], 8));
	} else if (in_protected_mode(v)) {
		if (!(v->s.rflags & FLAG_NT))
			protected_iret(v, i);
		else if (in_long_mode(v))
			cpu_raise_error(v, EXC_GP, 0);
		else
			return_from_task(v, i);
	} else if ((v->s.rflags & FLAG_VM) && (v->s.rflags & FLAG_IOPL) != FLAG_IOPL) {
		virtual_iret(v, i);
	} else {
		real_iret(v, i);
	}
}

/* ---- software interrupts ---- */

static void interrupt(struct vcpu *v, const struct insn *i, enum vector vector, enum delivery_kind kind)
{
	cpu_deliver(v, &(struct delivery){ .vector = (uint8_t)vector, .kind = kind, .return_rip = cpu_next_rip(v, i) });
}

/*
 * SDM vol. 3A 20.3.3: with CR4.VME a bitmap below the TSS's I/O bitmap says which INT n of virtual-8086 mode go through the
 * 8086 program's own vectors at linear address 0.
 */
static bool interrupt_is_redirected(struct vcpu *v, uint8_t vector)
{
	uint32_t map, byte;

	if (!(v->s.cr4 & CR4_VME) || (attr_type(v->s.seg_attr[TR]) & ~TSS_BUSY) != SYSTEM_TSS_32 ||
	    v->s.seg_limit[TR] < 103)
		return false;
	map = (uint32_t)cpu_system_load(v, v->s.seg_base[TR] + 102, 2);
	byte = map - 32 + vector / 8;
	if (map < 32 || byte > v->s.seg_limit[TR])
		return false;
	return !(cpu_system_load(v, v->s.seg_base[TR] + byte, 1) & BIT(vector % 8));
}

static void redirected_interrupt(struct vcpu *v, const struct insn *i, uint8_t vector)
{
	uint64_t rsp = v->s.gpr[RSP], flags = cpu_rflags(v), image = flags;
	uint32_t target = (uint32_t)cpu_load(v, vector * 4u, 4, false);
	uint64_t enable = FLAG_IF;

	if ((flags & FLAG_IOPL) != FLAG_IOPL) {
		image = (flags & ~FLAG_IF) | FLAG_IOPL | ((flags & FLAG_VIF) ? FLAG_IF : 0);
		enable = FLAG_VIF;
	}
	stack_push(v, &rsp, image, 2);
	stack_push(v, &rsp, v->s.seg_sel[CS], 2);
	stack_push(v, &rsp, cpu_next_rip(v, i), 2);
	set_stack_pointer(v, rsp);
	cpu_set_real_segment(v, CS, (uint16_t)(target >> 16));
	v->s.rip = target & 0xffff;
	cpu_set_rflags(v, flags & ~(enable | FLAG_TF | FLAG_NT));
	cpu_update_mode(v); /* where CS begins */
}

void op_int_n(struct vcpu *v, const struct insn *i)
{
	uint8_t vector = (uint8_t)i->imm;

	if (v->s.rflags & FLAG_VM) {
		if (interrupt_is_redirected(v, vector)) {
			redirected_interrupt(v, i, vector);
			return;
		}
		if ((v->s.rflags & FLAG_IOPL) != FLAG_IOPL)
			cpu_raise_error(v, EXC_GP, 0);
	}
	interrupt(v, i, vector, DELIVERY_SOFTWARE);
}

void op_int1(struct vcpu *v, const struct insn *i)
{
	cpu_report_debug(v, 0);
	interrupt(v, i, EXC_DB, DELIVERY_EXCEPTION);
}

void op_int3(struct vcpu *v, const struct insn *i) { interrupt(v, i, EXC_BP, DELIVERY_SOFTWARE); }

void op_into(struct vcpu *v, const struct insn *i)
{
	if (cpu_status(v) & FLAG_OF)
		interrupt(v, i, EXC_OF, DELIVERY_SOFTWARE);
	else
		v->s.rip = cpu_next_rip(v, i);
}
