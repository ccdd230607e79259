/*
 * JMP and CALL through system descriptors: call gates, with a change to an inner level's stack where the gate leads
 * inwards; TSSs and task gates, which switch tasks (task.c). SDM vol. 3A 5.8.3 to 5.8.5, vol. 2A CALL.
 */
#include "cpu/segment.h"

struct call_gate {
	uint16_t selector; /* of the target code segment */
	uint64_t offset;
	uint8_t size; /* of the items it pushes: 2, 4, 8 */
	uint8_t parameters;
};

static uint32_t error_of(const struct descriptor *d) { return d->selector & ~3u; }

/* The checks that all system descriptors share when a program names them. */
static void check_access(struct vcpu *v, const struct descriptor *d)
{
	if (attr_dpl(d->attr) < MAX(v->cpl, d->selector & 3u))
		cpu_raise_error(v, EXC_GP, error_of(d));
	if (!(d->attr & ATTR_P))
		cpu_raise_error(v, EXC_NP, error_of(d));
}

static struct call_gate read_call_gate(struct vcpu *v, const struct descriptor *d)
{
	struct call_gate gate = {
		.selector = (uint16_t)bits(d->raw, 31, 16),
		.offset = bits(d->raw, 15, 0) | bits(d->raw, 63, 48) << 16,
		.size = attr_type(d->attr) == SYSTEM_CALL_GATE_16 ? 2 : 4,
		.parameters = (uint8_t)bits(d->raw, 36, 32),
	};
	uint64_t upper;

	if (in_long_mode(v)) {
		if (!cpu_upper_half(v, d, &upper))
			cpu_raise_error(v, EXC_GP, error_of(d));
		gate.offset |= upper << 32;
		gate.size = 8;
		gate.parameters = 0;
	} else if (gate.size == 2) {
		gate.offset &= 0xffff;
	}
	return gate;
}

static bool is_inner(const struct vcpu *v, const struct descriptor *code)
{
	return !attr_is_conforming(code->attr) && attr_dpl(code->attr) < v->cpl;
}

/* The code segment that a gate leads to: no outer level's, and by JMP no inner one's. */
static void read_gate_target(struct vcpu *v, const struct call_gate *gate, bool call, struct descriptor *code)
{
	if (selector_is_null(gate->selector))
		cpu_raise_error(v, EXC_GP, 0);
	cpu_read_descriptor(v, gate->selector, code, EXC_GP, 0);
	if (!attr_is_code(code->attr) || attr_dpl(code->attr) > v->cpl || (!call && is_inner(v, code)))
		cpu_raise_error(v, EXC_GP, error_of(code));
	if (in_long_mode(v) && (code->attr & (ATTR_L | ATTR_DB)) != ATTR_L)
		cpu_raise_error(v, EXC_GP, error_of(code));
	cpu_check_code_present(v, code);
}

/* ---- the stack of an inner level ---- */

struct inner_stack {
	struct descriptor ss; /* long mode: null */
	uint64_t rsp;
};

/* The TSS's stack for a level: SDM vol. 3A 7.2.1 and 7.7. */
static struct inner_stack read_inner_stack(struct vcpu *v, unsigned cpl)
{
	bool tss_16 = !in_long_mode(v) && (attr_type(v->s.seg_attr[TR]) & ~TSS_BUSY) == SYSTEM_TSS_16;
	unsigned size = in_long_mode(v) ? 8 : tss_16 ? 2 : 4;
	unsigned offset = in_long_mode(v) ? 4 + 8 * cpl : (tss_16 ? 2 : 4) + 2 * size * cpl;
	unsigned last = offset + (size == 8 ? 7 : size + 1); /* of SS, which has 2 bytes */
	struct inner_stack stack = { 0 };
	uint16_t selector;

	if (last > v->s.seg_limit[TR])
		cpu_raise_error(v, EXC_TS, v->s.seg_sel[TR] & ~3u);
	stack.rsp = cpu_system_load(v, v->s.seg_base[TR] + offset, size);
	if (size == 8) {
		if (!is_canonical(stack.rsp))
			cpu_raise_error(v, EXC_SS, 0);
		stack.ss.selector = (uint16_t)cpl;
		stack.ss.attr = (uint16_t)(cpl << ATTR_DPL_SHIFT);
		return stack;
	}
	selector = (uint16_t)cpu_system_load(v, v->s.seg_base[TR] + offset + size, 2);
	if (selector_is_null(selector))
		cpu_raise_error(v, EXC_TS, 0);
	cpu_read_descriptor(v, selector, &stack.ss, EXC_TS, 0);
	cpu_check_stack_segment(v, &stack.ss, cpl, EXC_TS, 0);
	return stack;
}

static void inner_push(struct vcpu *v, struct inner_stack *stack, uint64_t value, unsigned size)
{
	uint64_t lin;

	stack->rsp -= size;
	if (in_long_mode(v)) {
		lin = stack->rsp;
		if (!is_canonical(lin))
			cpu_raise_error(v, EXC_SS, 0);
	} else {
		uint32_t offset = (uint32_t)(stack->rsp & ((stack->ss.attr & ATTR_DB) ? UINT32_MAX : 0xffff));

		if (!cpu_segment_contains(stack->ss.attr, stack->ss.limit, offset, size))
			cpu_raise_error(v, EXC_SS, error_of(&stack->ss));
		lin = (uint32_t)(stack->ss.base + offset);
	}
	cpu_system_store(v, lin, value, size);
}

static void copy_parameters(struct vcpu *v, struct inner_stack *stack, const struct call_gate *gate)
{
	uint64_t values[32], rsp = v->s.gpr[RSP];

	for (unsigned n = 0; n < gate->parameters; n++)
		values[n] = stack_pop(v, &rsp, gate->size);
	for (unsigned n = gate->parameters; n > 0; n--)
		inner_push(v, stack, values[n - 1], gate->size);
}

static void call_inner(struct vcpu *v, const struct insn *i, const struct call_gate *gate,
		       const struct descriptor *code)
{
	unsigned cpl = attr_dpl(code->attr);
	struct inner_stack stack = read_inner_stack(v, cpl);

	inner_push(v, &stack, v->s.seg_sel[SS], gate->size);
	inner_push(v, &stack, v->s.gpr[RSP], gate->size);
	copy_parameters(v, &stack, gate);
	inner_push(v, &stack, v->s.seg_sel[CS], gate->size);
	inner_push(v, &stack, cpu_next_rip(v, i), gate->size);
	cpu_check_target(v, code, gate->offset);
	if (stack.ss.attr & ATTR_P)
		cpu_mark_descriptor(v, &stack.ss, ATTR_ACCESSED);
	cpu_mark_descriptor(v, code, ATTR_ACCESSED);
	cpu_set_segment(v, SS, stack.ss.selector, &stack.ss);
	cpu_enter_code(v, code, cpl, gate->offset);
	set_stack_pointer(v, stack.rsp);
}

static void transfer_same_level(struct vcpu *v, const struct insn *i, const struct call_gate *gate,
				const struct descriptor *code, bool call)
{
	uint64_t rsp = v->s.gpr[RSP];

	if (call) {
		stack_push(v, &rsp, v->s.seg_sel[CS], gate->size);
		stack_push(v, &rsp, cpu_next_rip(v, i), gate->size);
	}
	cpu_check_target(v, code, gate->offset);
	cpu_mark_descriptor(v, code, ATTR_ACCESSED);
	if (call)
		set_stack_pointer(v, rsp);
	cpu_enter_code(v, code, v->cpl, gate->offset);
}

static void transfer_by_call_gate(struct vcpu *v, const struct insn *i, const struct descriptor *d, bool call)
{
	struct descriptor code;
	struct call_gate gate;

	check_access(v, d);
	gate = read_call_gate(v, d);
	read_gate_target(v, &gate, call, &code);
	if (is_inner(v, &code))
		call_inner(v, i, &gate, &code);
	else
		transfer_same_level(v, i, &gate, &code, call);
}

/* ---- the choice ---- */

void cpu_transfer_by_gate(struct vcpu *v, const struct insn *i, const struct descriptor *d, bool call)
{
	enum task_switch_kind kind = call ? TASK_SWITCH_CALL : TASK_SWITCH_JMP;
	unsigned type = attr_type(d->attr);

	if (type == SYSTEM_CALL_GATE_32 || (type == SYSTEM_CALL_GATE_16 && !in_long_mode(v))) {
		transfer_by_call_gate(v, i, d, call);
	} else if (in_long_mode(v)) {
		cpu_raise_error(v, EXC_GP, error_of(d));
	} else if (type == SYSTEM_TASK_GATE) {
		check_access(v, d);
		cpu_task_switch(v, (uint16_t)bits(d->raw, 31, 16), kind, cpu_next_rip(v, i), NULL);
	} else if (type == SYSTEM_TSS_16 || type == SYSTEM_TSS_32) {
		check_access(v, d);
		cpu_task_switch(v, d->selector, kind, cpu_next_rip(v, i), NULL);
	} else {
		cpu_raise_error(v, EXC_GP, error_of(d));
	}
}
