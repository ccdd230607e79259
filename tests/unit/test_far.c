/*
 * Transfers of control: far JMP, CALL and RET, call gates, IRET in every mode, software interrupts, fast system calls and
 * task switches: selectors, attributes, privilege, error codes.
 */
#include "lib/segment_fixture.h"

/* jmp/call far [rax] with a 4-byte offset. */
static bool transfer(uint16_t selector, uint32_t offset, bool call)
{
	poke(&s, DATA_OFFSET + 0x100, offset | (uint64_t)selector << 32);
	s.f.v->s.gpr[RAX] = s.base + DATA_OFFSET + 0x100;
	return call ? RUN(&s, 0xff, 0x18) : RUN(&s, 0xff, 0x28);
}

static bool jump_far(uint16_t selector, uint32_t offset) { return transfer(selector, offset, false); }
static bool call_far(uint16_t selector, uint32_t offset) { return transfer(selector, offset, true); }

/* Items of `size` bytes, the first at the lowest address, and RSP there. */
static void push_items(unsigned size, unsigned count, const uint64_t *items)
{
	uint64_t at = STACK_TOP - count * size;

	for (unsigned n = 0; n < count; n++)
		assert_int_equal(mem_write(s.f.mem, gpa(RAM_BASE + at + n * size), &items[n], size), 0);
	s.f.v->s.gpr[RSP] = s.base + at;
}
#define STACK(size, ...) push_items(size, sizeof((uint64_t[]){ __VA_ARGS__ }) / 8, (const uint64_t[]){ __VA_ARGS__ })

static void set_gate(uint16_t selector, unsigned type, unsigned dpl, uint16_t target, uint64_t offset,
		     unsigned parameters)
{
	set_descriptor(&s, selector,
		       bits(offset, 15, 0) | (uint64_t)target << 16 | (uint64_t)parameters << 32 |
			       (uint64_t)(ATTR_P | type | dpl << 5) << 40 | bits(offset, 31, 16) << 48);
	if (s.f.v->code_mode == MODE_64)
		set_descriptor(&s, selector + 8, offset >> 32);
}

/* ---- JMP, CALL, RET ---- */

static void test_jump_far(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	assert_fault(&s, jump_far(0, 0), EXC_GP, 0);
	assert_fault(&s, jump_far(BEYOND, 0), EXC_GP, BEYOND);
	assert_fault(&s, jump_far(KERNEL_DATA, 0), EXC_GP, KERNEL_DATA);
	assert_fault(&s, jump_far(USER_CODE, 0), EXC_GP, USER_CODE & ~3);
	assert_fault(&s, jump_far(KERNEL_CODE | 3, 0), EXC_GP, KERNEL_CODE);
	set_descriptor(&s, EXECUTE_ONLY, make_descriptor(0, 0xfff, CODE(0) | ATTR_DB));
	assert_fault(&s, jump_far(EXECUTE_ONLY, 0x1000), EXC_GP, 0);
	set_descriptor(&s, EXECUTE_ONLY, make_descriptor(0, 0xfff, (CODE(0) | ATTR_DB) & ~(uint32_t)ATTR_P));
	assert_fault(&s, jump_far(EXECUTE_ONLY, 0), EXC_NP, EXECUTE_ONLY);
	assert_true(jump_far(KERNEL_CODE, 0x1234));
	assert_int_equal(v->s.rip, 0x1234);
	assert_int_equal(v->s.seg_sel[CS], KERNEL_CODE);
	assert_true(get_descriptor(&s, KERNEL_CODE) & BIT(40));
	enter_level(&s, 3, false);
	assert_true(jump_far(CONFORMING, 0x10)); /* stays at level 3 */
	assert_int_equal(v->s.seg_sel[CS], CONFORMING | 3);
	assert_int_equal(v->cpl, 3);
}

static void test_jump_between_long_modes(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	set_descriptor(&s, EXECUTE_ONLY, make_descriptor(0, 0xfffff, CODE(0) | FLAT_32 | ATTR_L));
	assert_fault(&s, jump_far(EXECUTE_ONLY, 0), EXC_GP, EXECUTE_ONLY);
	assert_true(jump_far(KERNEL_CODE, 0x400100));
	assert_int_equal(v->code_mode, MODE_32);
	assert_true(jump_far(CODE_64, 0x400200));
	assert_int_equal(v->code_mode, MODE_64);
	assert_int_equal(v->s.rip, 0x400200);
	/* The 8-byte form: an offset that is not canonical. */
	poke(&s, DATA_OFFSET, 0x0000800000000000);
	poke(&s, DATA_OFFSET + 8, CODE_64);
	v->s.gpr[RAX] = s.base + DATA_OFFSET;
	assert_fault(&s, RUN(&s, 0x48, 0xff, 0x28), EXC_GP, 0);
	poke(&s, DATA_OFFSET, 0xffff800000000000);
	assert_true(RUN(&s, 0x48, 0xff, 0x28));
	assert_int_equal(v->s.rip, 0xffff800000000000);
}

static void test_call_and_return(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t rip = v->s.rip, rsp = v->s.gpr[RSP];

	(void)state;
	assert_true(call_far(KERNEL_CODE, 0x4321));
	assert_int_equal(v->s.rip, 0x4321);
	assert_int_equal(v->s.gpr[RSP], rsp - 8);
	assert_int_equal(peek(&s, STACK_TOP - 8, 4), (uint32_t)rip + 2);
	assert_int_equal(peek(&s, STACK_TOP - 4, 4), v->code_mode == MODE_64 ? CODE_64 : KERNEL_CODE);
	assert_true(RUN(&s, 0xcb)); /* retf */
	assert_int_equal(v->s.rip, (uint32_t)rip + 2);
	assert_int_equal(v->s.gpr[RSP], rsp);
}

static void test_call_faults_leave_stack(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	put_segment(v, SS, KERNEL_DATA, (uint32_t)v->s.gpr[RSP] - 6, DATA(0) | ATTR_DB);
	assert_fault(&s, call_far(KERNEL_CODE, 0x4321), EXC_SS, 0);
	assert_int_equal(v->s.seg_sel[CS], KERNEL_CODE);
}

static void test_return_outwards(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	STACK(4, 0x1000, USER_CODE, 0xaaaa, 0x8000, USER_DATA);
	assert_true(RUN(&s, 0xca, 4, 0)); /* retf 4: released on both stacks */
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->s.seg_sel[CS], USER_CODE);
	assert_int_equal(v->s.seg_sel[SS], USER_DATA);
	assert_int_equal(v->s.gpr[RSP], 0x8004);
	assert_int_equal(v->s.rip, 0x1000);
	/* Data segments of ring 0 are gone. */
	assert_int_equal(v->s.seg_sel[DS], 0);
	assert_int_equal(v->s.seg_attr[DS], 0);
	/* No return inwards. */
	enter_level(&s, 3, false);
	STACK(4, 0x1000, KERNEL_CODE);
	assert_fault(&s, RUN(&s, 0xcb), EXC_GP, KERNEL_CODE);
}

static void test_return_faults(void **state)
{
	(void)state;
	STACK(4, 0x1000, 0);
	assert_fault(&s, RUN(&s, 0xcb), EXC_GP, 0);
	STACK(4, 0x1000, BEYOND);
	assert_fault(&s, RUN(&s, 0xcb), EXC_GP, BEYOND);
	STACK(4, 0x1000, USER_CODE & ~3);
	assert_fault(&s, RUN(&s, 0xcb), EXC_GP, USER_CODE & ~3); /* DPL is not RPL */
	STACK(4, 0x1000, USER_CODE, 0x8000, 0);
	assert_fault(&s, RUN(&s, 0xcb), EXC_GP, 0);
	STACK(4, 0x1000, USER_CODE, 0x8000, KERNEL_DATA);
	assert_fault(&s, RUN(&s, 0xcb), EXC_GP, KERNEL_DATA);
	STACK(4, 0x1000, USER_CODE, 0x8000, KERNEL_DATA | 3);
	assert_fault(&s, RUN(&s, 0xcb), EXC_GP, KERNEL_DATA);
	set_descriptor(&s, USER_DATA, make_descriptor(0, 0xfffff, (DATA(3u) | FLAT_32) & ~(uint32_t)ATTR_P));
	STACK(4, 0x1000, USER_CODE, 0x8000, USER_DATA);
	assert_fault(&s, RUN(&s, 0xcb), EXC_SS, USER_DATA & ~3);
}

/* ---- call gates ---- */

static void test_call_gate_inwards(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t rip = v->s.rip;

	(void)state;
	set_gate(GATE, 12, 3, KERNEL_CODE, 0x12345678, 2);
	enter_level(&s, 3, false);
	v->s.gpr[RSP] = s.base + USER_STACK;
	poke(&s, USER_STACK, 0x2222222211111111);
	assert_true(call_far(GATE | 3, 0));
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->s.rip, 0x12345678);
	assert_int_equal(v->s.seg_sel[CS], KERNEL_CODE);
	assert_int_equal(v->s.seg_sel[SS], KERNEL_DATA);
	assert_int_equal(v->s.gpr[RSP], s.base + STACK_TOP - 24);
	assert_int_equal(peek(&s, STACK_TOP - 4, 4), USER_DATA);
	assert_int_equal(peek(&s, STACK_TOP - 8, 4), s.base + USER_STACK);
	assert_int_equal(peek(&s, STACK_TOP - 16, 8), 0x2222222211111111);
	assert_int_equal(peek(&s, STACK_TOP - 20, 4), USER_CODE);
	assert_int_equal(peek(&s, STACK_TOP - 24, 4), rip + 2);
	/* And back, releasing the parameters. */
	v->s.seg_limit[CS] = UINT32_MAX;
	assert_true(RUN(&s, 0xca, 8, 0));
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->s.gpr[RSP], s.base + USER_STACK + 8);
}

static void test_call_gate_faults(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	set_gate(GATE, 12, 0, KERNEL_CODE, 0x1000, 0);
	enter_level(&s, 3, false);
	assert_fault(&s, call_far(GATE | 3, 0), EXC_GP, GATE); /* DPL of the gate */
	set_gate(GATE, 12, 3, KERNEL_CODE, 0x1000, 0);
	assert_fault(&s, jump_far(GATE | 3, 0), EXC_GP, KERNEL_CODE); /* JMP does not go inwards */
	set_gate(GATE, 12, 3, 0, 0x1000, 0);
	assert_fault(&s, call_far(GATE | 3, 0), EXC_GP, 0);
	set_gate(GATE, 12, 3, KERNEL_DATA, 0x1000, 0);
	assert_fault(&s, call_far(GATE | 3, 0), EXC_GP, KERNEL_DATA);
	set_descriptor(&s, GATE, get_descriptor(&s, GATE) & ~BIT(47));
	assert_fault(&s, call_far(GATE | 3, 0), EXC_NP, GATE);

	set_gate(GATE, 12, 3, KERNEL_CODE, 0x1000, 0);
	v->s.seg_limit[TR] = 8;
	assert_fault(&s, call_far(GATE | 3, 0), EXC_TS, TASK_STATE);
	v->s.seg_limit[TR] = 103;
	poke(&s, TSS_OFFSET + 4, s.base + STACK_TOP);
	assert_fault(&s, call_far(GATE | 3, 0), EXC_TS, 0);
	poke(&s, TSS_OFFSET + 4, (s.base + STACK_TOP) | (uint64_t)USER_DATA << 32);
	assert_fault(&s, call_far(GATE | 3, 0), EXC_TS, USER_DATA & ~3);
	poke(&s, TSS_OFFSET + 4, (s.base + STACK_TOP) | (uint64_t)NOT_PRESENT << 32);
	assert_fault(&s, call_far(GATE | 3, 0), EXC_SS, NOT_PRESENT);
	set_descriptor(&s, KERNEL_DATA, make_descriptor(0, 0xff, DATA(0) | ATTR_DB));
	poke(&s, TSS_OFFSET + 4, (s.base + STACK_TOP) | (uint64_t)KERNEL_DATA << 32);
	assert_fault(&s, call_far(GATE | 3, 0), EXC_SS, KERNEL_DATA);
	assert_int_equal(v->cpl, 3);
}

static void test_call_gate_16(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t rsp = v->s.gpr[RSP];

	(void)state;
	set_gate(GATE, 4, 0, KERNEL_CODE, 0xdead1234, 0);
	assert_true(call_far(GATE, 0));
	assert_int_equal(v->s.rip, 0x1234);
	assert_int_equal(v->s.gpr[RSP], rsp - 4);
	assert_int_equal(peek(&s, STACK_TOP - 2, 2), KERNEL_CODE);
}

static void test_call_gate_64(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t rip = v->s.rip;

	(void)state;
	set_gate(GATE, 12, 3, CODE_64, 0xffff800012345678, 0);
	enter_level(&s, 3, true);
	v->s.gpr[RSP] = s.base + USER_STACK;
	assert_true(call_far(GATE | 3, 0));
	assert_int_equal(v->s.rip, 0xffff800012345678);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->s.seg_sel[SS], 0);
	assert_int_equal(v->s.gpr[RSP], s.base + STACK_TOP - 32);
	assert_int_equal(peek(&s, STACK_TOP - 32, 8), rip + 2);
	assert_int_equal(peek(&s, STACK_TOP - 24, 8), USER_CODE_64);
	assert_int_equal(peek(&s, STACK_TOP - 16, 8), s.base + USER_STACK);
	assert_int_equal(peek(&s, STACK_TOP - 8, 8), USER_DATA);
	enter_level(&s, 3, true);
	set_descriptor(&s, GATE + 8, BIT(40));
	assert_fault(&s, call_far(GATE | 3, 0), EXC_GP, GATE);
	set_gate(GATE, 12, 3, KERNEL_CODE, 0x1000, 0);
	assert_fault(&s, call_far(GATE | 3, 0), EXC_GP, KERNEL_CODE); /* not 64-bit code */
	set_gate(GATE, 4, 3, CODE_64, 0x1000, 0);
	assert_fault(&s, call_far(GATE | 3, 0), EXC_GP, GATE);
	/* There are no tasks to switch to. */
	enter_level(&s, 0, true);
	assert_fault(&s, jump_far(OTHER_TASK, 0), EXC_GP, OTHER_TASK);
}

/* ---- IRET ---- */

static void test_iret_64_to_user(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.nmi_blocked = 1;
	v->interrupt_wanted = true;
	v->s.seg_base[FS] = 0x1234;
	v->s.seg_attr[FS] = 0;
	STACK(8, 0x400123, USER_CODE_64, 0x246 | FLAG_RF | FLAG_VM | FLAG_AC, 0x7fffffffe000, USER_DATA);
	assert_true(RUN(&s, 0x48, 0xcf));
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->s.rip, 0x400123);
	assert_int_equal(v->s.gpr[RSP], 0x7fffffffe000);
	assert_int_equal(v->s.seg_sel[CS], USER_CODE_64);
	assert_int_equal(v->s.seg_sel[SS], USER_DATA);
	assert_int_equal(v->tlb_view, TLB_USER);
	assert_int_equal(cpu_rflags(v) & ~FLAG_RF, 0x246 | FLAG_AC);
	assert_int_equal(v->s.seg_base[FS], 0x1234); /* an unusable segment keeps its base */
	assert_int_equal(v->s.nmi_blocked, 0);
	assert_true(v->events & EVENT_INTERRUPT);
	assert_int_equal(v->s.seg_attr[DS], 0); /* ring 0's */
}

static void test_iret_64_same_level(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	STACK(8, 0x400123, CODE_64, FLAG_IF | FLAG_IOPL, 0x1000, 0);
	assert_true(RUN(&s, 0x48, 0xcf));
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->s.seg_sel[SS], 0);
	assert_int_equal(v->s.gpr[RSP], 0x1000);
	assert_int_equal(cpu_rflags(v), FLAG_IF | FLAG_IOPL | 2);
	/* The quick way and the slow way (the frame crosses a page) read the same. */
	v->s.gpr[RSP] = s.base + 0x4fe0;
	poke(&s, 0x4fe0, 0x400456);
	poke(&s, 0x4fe8, CODE_64);
	poke(&s, 0x4ff0, 2);
	poke(&s, 0x4ff8, 0x2000);
	poke(&s, 0x5000, KERNEL_DATA);
	assert_true(RUN(&s, 0x48, 0xcf));
	assert_int_equal(v->s.rip, 0x400456);
	assert_int_equal(v->s.seg_sel[SS], KERNEL_DATA);
	assert_int_equal(v->s.gpr[RSP], 0x2000);
}

static void test_iret_64_faults(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	STACK(8, 0x0000800000000000, CODE_64, 2, 0x1000, 0);
	assert_fault(&s, RUN(&s, 0x48, 0xcf), EXC_GP, 0);
	STACK(8, 0, 0, 2, 0x1000, 0);
	assert_fault(&s, RUN(&s, 0x48, 0xcf), EXC_GP, 0);
	STACK(8, 0, KERNEL_DATA, 2, 0x1000, 0);
	assert_fault(&s, RUN(&s, 0x48, 0xcf), EXC_GP, KERNEL_DATA);
	STACK(8, 0x1000, USER_CODE_64, 2, 0x1000, 3);
	assert_fault(&s, RUN(&s, 0x48, 0xcf), EXC_GP, 0); /* null SS in ring 3 */
	STACK(8, 0x1000, KERNEL_CODE, 2, 0x1000, 0);
	assert_fault(&s, RUN(&s, 0x48, 0xcf), EXC_GP, 0); /* null SS outside 64-bit mode */
	STACK(8, 0x1000, USER_CODE_64, 2, 0x1000, KERNEL_DATA);
	assert_fault(&s, RUN(&s, 0x48, 0xcf), EXC_GP, KERNEL_DATA);
	v->s.rflags |= FLAG_NT;
	STACK(8, 0x1000, CODE_64, 2, 0x1000, 0);
	assert_fault(&s, RUN(&s, 0x48, 0xcf), EXC_GP, 0);
	v->s.rflags &= ~FLAG_NT;
	v->s.nmi_blocked = 1;
	v->s.gpr[RSP] = 0x700000; /* not mapped */
	assert_fault(&s, RUN(&s, 0x48, 0xcf), EXC_PF, 0);
	assert_int_equal(v->s.nmi_blocked, 0); /* also when it fails */
}

static void test_iret_to_compatibility_mode(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	STACK(8, 0x123, USER_CODE, 0x202, 0x100008000, USER_DATA);
	assert_true(RUN(&s, 0x48, 0xcf));
	assert_int_equal(v->code_mode, MODE_32);
	assert_int_equal(v->s.gpr[RSP], 0x8000);
	/* With a 16-bit stack only SP is loaded. */
	enter_level(&s, 0, true);
	set_descriptor(&s, USER_DATA, make_descriptor(0, 0xffff, DATA(3u)));
	STACK(8, 0x123, USER_CODE, 0x202, 0x12345678, USER_DATA);
	assert_true(RUN(&s, 0x48, 0xcf));
	assert_int_equal(v->s.gpr[RSP], ((s.base + STACK_TOP) & ~0xffffull) | 0x5678);
}

static void test_iret_flags_by_level(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	/* Ring 3, IOPL 0: IF and IOPL stay as they are. */
	enter_level(&s, 3, false);
	v->s.rflags = FLAG_IF | 2;
	STACK(4, 0x1000, USER_CODE, FLAG_IOPL | FLAG_DF | FLAG_CF | FLAG_ID | FLAG_VIP);
	assert_true(RUN(&s, 0xcf));
	assert_int_equal(cpu_rflags(v), FLAG_IF | FLAG_DF | FLAG_CF | FLAG_ID | 2);
	assert_int_equal(v->s.gpr[RSP], s.base + STACK_TOP);
	/* IOPL 3: IF is its own. */
	v->s.rflags = FLAG_IF | FLAG_IOPL | 2;
	STACK(4, 0x1000, USER_CODE, 0);
	assert_true(RUN(&s, 0xcf));
	assert_int_equal(cpu_rflags(v), FLAG_IOPL | 2);
	/* The 16-bit form leaves the upper half. */
	enter_level(&s, 0, false);
	cpu_set_rflags(v, FLAG_ID | FLAG_AC);
	STACK(2, 0x1000, KERNEL_CODE, FLAG_NT | FLAG_IF);
	assert_true(RUN(&s, 0x66, 0xcf));
	assert_int_equal(cpu_rflags(v), FLAG_ID | FLAG_AC | FLAG_NT | FLAG_IF | 2);
}

static void test_iret_to_virtual_8086(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	STACK(4, 0x1234, 0x2000, FLAG_VM | FLAG_IOPL | 2, 0xfff0, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000);
	assert_true(RUN(&s, 0xcf));
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->code_mode, MODE_16);
	assert_int_equal(v->s.seg_base[CS], 0x20000);
	assert_int_equal(v->s.seg_base[SS], 0x30000);
	assert_int_equal(v->s.seg_base[ES], 0x40000);
	assert_int_equal(v->s.seg_base[DS], 0x50000);
	assert_int_equal(v->s.seg_base[FS], 0x60000);
	assert_int_equal(v->s.seg_base[GS], 0x70000);
	assert_int_equal(v->s.seg_limit[GS], 0xffff);
	assert_int_equal(v->s.gpr[RSP], 0xfff0);
	assert_int_equal(v->s.rip, 0x1234);
}

static void test_real_mode_transfers(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.cr0 &= ~CR0_PE;
	for (enum seg seg = ES; seg <= GS; seg++) {
		v->s.seg_attr[seg] &= (uint16_t)~ATTR_DB;
		v->s.seg_limit[seg] = 0xffff;
		v->s.seg_base[seg] = RAM_BASE;
	}
	cpu_update_mode(v);
	v->s.rip = 0x100;
	v->s.gpr[RSP] = STACK_TOP;
	assert_true(RUN(&s, 0x9a, 0x34, 0x12, 0x00, 0xf0)); /* call 0xf000:0x1234 */
	assert_int_equal(v->s.seg_base[CS], 0xf0000);
	assert_int_equal(v->s.rip, 0x1234);
	assert_int_equal(peek(&s, STACK_TOP - 4, 4), 0x105 | (uint32_t)KERNEL_CODE << 16);
	assert_true(RUN(&s, 0xca, 2, 0));
	assert_int_equal(v->s.gpr[RSP], STACK_TOP + 2);
	assert_int_equal(v->s.seg_base[CS], KERNEL_CODE << 4);
	v->s.gpr[RSP] = STACK_TOP - 6;
	poke(&s, STACK_TOP - 6, 0x4321 | 0x1000u << 16 | (FLAG_IF | FLAG_IOPL | FLAG_CF) << 32);
	assert_true(RUN(&s, 0xcf));
	assert_int_equal(v->s.rip, 0x4321);
	assert_int_equal(v->s.seg_base[CS], 0x10000);
	assert_int_equal(cpu_rflags(v), FLAG_IF | FLAG_IOPL | FLAG_CF | 2);
	assert_fault(&s, RUN(&s, 0x66, 0xea, 0, 0, 1, 0, 0, 0), EXC_GP, 0); /* beyond 64 KiB */
}

/* ---- INT n ---- */

static void set_interrupt_gate(unsigned vector, unsigned dpl, uint16_t target, uint64_t offset)
{
	unsigned size = s.f.v->code_mode == MODE_64 ? 16 : 8;

	poke(&s, IDT_OFFSET + vector * size,
	     bits(offset, 15, 0) | (uint64_t)target << 16 | (uint64_t)(ATTR_P | 14 | dpl << 5) << 40 |
		     bits(offset, 31, 16) << 48);
}

static void test_software_interrupts(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t rip = v->s.rip;

	(void)state;
	set_interrupt_gate(0x80, 3, KERNEL_CODE, 0x1111);
	set_interrupt_gate(EXC_BP, 0, KERNEL_CODE, 0x2222);
	set_interrupt_gate(EXC_DB, 0, KERNEL_CODE, 0x3333);
	set_interrupt_gate(EXC_OF, 3, KERNEL_CODE, 0x4444);
	enter_level(&s, 3, false);
	assert_true(RUN(&s, 0xcd, 0x80));
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->s.rip, 0x1111);
	assert_int_equal(peek(&s, STACK_TOP - 20, 4), rip + 2);
	assert_true(RUN(&s, 0xcf));
	assert_int_equal(v->s.rip, rip + 2);
	assert_int_equal(v->cpl, 3);
	assert_fault(&s, RUN(&s, 0xcc), EXC_GP, EXC_BP * 8 + 2); /* the gate's DPL */
	assert_true(RUN(&s, 0xf1));				 /* INT1 is no software interrupt to it */
	assert_int_equal(v->s.rip, 0x3333);
	enter_level(&s, 3, false);
	v->s.rip = rip;
	cpu_set_status(v, 0);
	assert_true(RUN(&s, 0xce));
	assert_int_equal(v->s.rip, rip + 1);
	cpu_set_status(v, FLAG_OF);
	assert_true(RUN(&s, 0xce));
	assert_int_equal(v->s.rip, 0x4444);
}

static void enter_virtual_8086(unsigned iopl)
{
	struct vcpu *v = s.f.v;

	v->s.rflags = FLAG_VM | (uint64_t)iopl << 12 | 2;
	for (enum seg seg = ES; seg <= GS; seg++)
		cpu_load_segment(v, seg, (RAM_BASE >> 4) - 0x1000);
	v->s.seg_base[SS] = RAM_BASE;
	v->s.gpr[RSP] = 0x8000;
	v->s.rip = 0x50;
	cpu_update_mode(v);
}

static void test_virtual_8086_interrupts(void **state)
{
	struct vcpu *v = s.f.v;
	uint32_t mode_key;
	uint32_t vector_10 = 0xc0001234;

	(void)state;
	set_interrupt_gate(0x10, 3, KERNEL_CODE, 0x1111);
	enter_virtual_8086(0);
	assert_fault(&s, RUN(&s, 0xcd, 0x10), EXC_GP, 0);
	assert_fault(&s, RUN(&s, 0x9c), EXC_GP, 0);
	assert_fault(&s, RUN(&s, 0xcf), EXC_GP, 0);
	assert_fault(&s, RUN(&s, 0xfa), EXC_GP, 0);
	enter_virtual_8086(3);
	assert_true(RUN(&s, 0xcd, 0x10));
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->s.rip, 0x1111);
	assert_false(v->s.rflags & FLAG_VM);

	/* CR4.VME: the bitmap is clear for 0x10, which goes to the 8086 program itself; 0x11 is not. */
	v->s.cr4 |= CR4_VME;
	v->s.seg_limit[TR] = 0x1ff;
	poke(&s, TSS_OFFSET + 100, 0x0088ull << 16);
	poke(&s, TSS_OFFSET + 0x68, 0);
	poke(&s, TSS_OFFSET + 0x6a, 2);
	assert_int_equal(mem_write(s.f.mem, gpa(0x40), &vector_10, 4), 0);
	enter_virtual_8086(0);
	v->s.rflags |= FLAG_VIF;
	assert_true(RUN(&s, 0xcd, 0x10));
	assert_true(v->s.rflags & FLAG_VM);
	assert_false(v->s.rflags & FLAG_VIF);
	assert_int_equal(v->s.seg_base[CS], 0xc0000);
	mode_key = v->mode_key;
	cpu_update_mode(v);
	assert_int_equal(mode_key, v->mode_key);
	assert_int_equal(v->s.rip, 0x1234);
	assert_int_equal(peek(&s, 0x7ffa, 2), 0x52);
	assert_int_equal(peek(&s, 0x7ffe, 2), FLAG_IF | FLAG_IOPL | 2);
	assert_true(RUN(&s, 0xcf)); /* IF on the stack comes back as VIF */
	assert_true(v->s.rflags & FLAG_VIF);
	assert_int_equal(v->s.rip, 0x52);
	assert_fault(&s, RUN(&s, 0xcd, 0x11), EXC_GP, 0);
}

/* ---- fast system calls ---- */

static void setup_syscall(void)
{
	struct vcpu *v = s.f.v;

	v->s.efer |= EFER_SCE;
	v->s.msr_star = (uint64_t)0x23 << 48 | (uint64_t)0x10 << 32;
	v->s.msr_lstar = 0xffffffff81000000;
	v->s.msr_cstar = 0xffffffff82000000;
	v->s.msr_fmask = FLAG_IF | FLAG_TF | FLAG_DF | FLAG_CF | FLAG_AC;
}

static void test_syscall(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t rip = v->s.rip;

	(void)state;
	enter_level(&s, 3, true);
	assert_fault(&s, RUN(&s, 0x0f, 0x05), EXC_UD, 0);
	setup_syscall();
	cpu_set_rflags(v, FLAG_IF | FLAG_CF | FLAG_ZF);
	assert_true(RUN(&s, 0x0f, 0x05));
	assert_int_equal(v->s.rip, 0xffffffff81000000);
	assert_int_equal(v->s.gpr[RCX], rip + 2);
	assert_int_equal(v->s.gpr[R11], FLAG_IF | FLAG_CF | FLAG_ZF | 2);
	assert_int_equal(cpu_rflags(v), FLAG_ZF | 2);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->s.seg_sel[CS], 0x10);
	assert_int_equal(v->s.seg_attr[CS], 0xa09b);
	assert_int_equal(v->s.seg_sel[SS], 0x18);
	assert_int_equal(v->s.seg_attr[SS], 0xc093);

	v->s.gpr[R11] |= FLAG_VM | FLAG_RF | BIT(3) | BIT(40);
	v->interrupt_wanted = true;
	assert_true(RUN(&s, 0x48, 0x0f, 0x07));
	assert_int_equal(v->s.rip, rip + 2);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->s.seg_sel[CS], 0x33);
	assert_int_equal(v->s.seg_attr[CS], 0xa0fb);
	assert_int_equal(v->s.seg_sel[SS], 0x2b);
	assert_int_equal(v->s.seg_attr[SS], 0xc0f3);
	assert_int_equal(cpu_rflags(v), FLAG_IF | FLAG_CF | FLAG_ZF | 2);
	assert_true(v->events & EVENT_INTERRUPT);
	assert_fault(&s, RUN(&s, 0x48, 0x0f, 0x07), EXC_GP, 0);

	enter_level(&s, 0, true);
	assert_true(RUN(&s, 0x0f, 0x07)); /* without REX.W: compatibility mode */
	assert_int_equal(v->code_mode, MODE_32);
	assert_int_equal(v->s.seg_sel[CS], 0x23);
	assert_int_equal(v->s.seg_attr[CS], 0xc0fb);
}

static void test_vendors_differ(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	setup_syscall();
	v->s.msr_sysenter_cs = 0x10;
	v->s.gpr[RCX] = 0x0000800000000000;
	strcpy(s.f.model.vendor, "GenuineIntel");
	assert_fault(&s, RUN(&s, 0x48, 0x0f, 0x07), EXC_GP, 0); /* not canonical: in ring 0 */
	enter_level(&s, 3, false);
	assert_fault(&s, RUN(&s, 0x0f, 0x05), EXC_UD, 0);
	assert_true(RUN(&s, 0x0f, 0x34));

	strcpy(s.f.model.vendor, "AuthenticAMD");
	enter_level(&s, 3, false);
	assert_fault(&s, RUN(&s, 0x0f, 0x34), EXC_UD, 0);
	assert_true(RUN(&s, 0x0f, 0x05));
	assert_int_equal(v->s.rip, 0xffffffff82000000);
	assert_int_equal(v->code_mode, MODE_64);
	v->s.gpr[RCX] = 0x0000800000000000;
	assert_true(RUN(&s, 0x48, 0x0f, 0x07));
	assert_int_equal(v->cpl, 3);
}

static void test_sysenter(void **state)
{
	struct vcpu *v = s.f.v;
	bool wide = v->code_mode == MODE_64;

	(void)state;
	strcpy(s.f.model.vendor, "GenuineIntel");
	enter_level(&s, 3, wide);
	v->s.msr_sysenter_cs = 3;
	assert_fault(&s, RUN(&s, 0x0f, 0x34), EXC_GP, 0);
	v->s.msr_sysenter_cs = 0x13;
	v->s.msr_sysenter_esp = 0xffff800000001000;
	v->s.msr_sysenter_eip = 0xffff800000002000;
	cpu_set_rflags(v, FLAG_IF);
	assert_true(RUN(&s, 0x0f, 0x34));
	assert_int_equal(v->s.seg_sel[CS], 0x10);
	assert_int_equal(v->s.seg_sel[SS], 0x18);
	assert_int_equal(v->s.seg_attr[CS], wide ? 0xa09b : 0xc09b);
	assert_int_equal(v->s.rip, wide ? 0xffff800000002000 : 0x2000);
	assert_int_equal(v->s.gpr[RSP], wide ? 0xffff800000001000 : 0x1000);
	assert_int_equal(cpu_rflags(v), 2);
	v->s.gpr[RDX] = 0x1234;
	v->s.gpr[RCX] = 0x8000;
	assert_true(RUN(&s, 0x0f, 0x35));
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->s.seg_sel[CS], 0x23);
	assert_int_equal(v->s.seg_sel[SS], 0x2b);
	assert_int_equal(v->s.rip, 0x1234);
	assert_int_equal(v->s.gpr[RSP], 0x8000);
	assert_fault(&s, RUN(&s, 0x0f, 0x35), EXC_GP, 0);
}

/* ---- tasks ---- */

static void poke32(uint64_t offset, uint32_t value)
{
	assert_int_equal(mem_write(s.f.mem, gpa(RAM_BASE + offset), &value, 4), 0);
}

static void fill_other_task(void)
{
	static const uint16_t segments[] = { KERNEL_DATA, KERNEL_CODE, KERNEL_DATA, KERNEL_DATA, 0, 0 };

	poke32(TSS2_OFFSET + 28, 0);
	poke32(TSS2_OFFSET + 32, 0x5000);
	poke32(TSS2_OFFSET + 36, FLAG_ZF | 2);
	for (unsigned n = 0; n < 8; n++)
		poke32(TSS2_OFFSET + 40 + 4 * n, n == RSP ? RAM_BASE + USER_STACK : 0x100 + n);
	for (unsigned n = 0; n < 6; n++)
		poke32(TSS2_OFFSET + 72 + 4 * n, segments[n]);
	poke32(TSS2_OFFSET + 96, LOCAL_TABLE);
	poke32(TSS2_OFFSET + 100, 0);
}

static unsigned tss_type(uint16_t selector) { return (unsigned)bits(get_descriptor(&s, selector), 43, 40); }

static void test_task_call_and_return(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t rip = v->s.rip;

	(void)state;
	set_descriptor(&s, TASK_STATE, make_descriptor((uint32_t)s.base + TSS_OFFSET, 103, ATTR_P | 11));
	set_descriptor(&s, TASK_GATE, (uint64_t)OTHER_TASK << 16 | (uint64_t)(ATTR_P | 5 | 0x60) << 40);
	fill_other_task();
	v->s.gpr[RBX] = 0xbbbb;
	assert_true(call_far(TASK_GATE | 3, 0));
	assert_int_equal(v->s.rip, 0x5000);
	assert_int_equal(v->s.gpr[RBX], 0x100 + RBX);
	assert_int_equal(v->s.gpr[RSP], RAM_BASE + USER_STACK);
	assert_int_equal(v->s.seg_sel[TR], OTHER_TASK);
	assert_int_equal(v->s.seg_sel[LDTR], LOCAL_TABLE);
	assert_int_equal(v->s.seg_sel[FS], 0);
	assert_int_equal(cpu_rflags(v), FLAG_ZF | FLAG_NT | 2);
	assert_true(v->s.cr0 & CR0_TS);
	assert_int_equal(peek(&s, TSS2_OFFSET, 2), TASK_STATE);
	assert_int_equal(tss_type(TASK_STATE), 11);
	assert_int_equal(tss_type(OTHER_TASK), 11);
	assert_int_equal(peek(&s, TSS_OFFSET + 32, 4), rip + 2);
	assert_int_equal(peek(&s, TSS_OFFSET + 40 + 4 * RBX, 4), 0xbbbb);

	assert_true(RUN(&s, 0xcf));
	assert_int_equal(v->s.rip, rip + 2);
	assert_int_equal(v->s.gpr[RBX], 0xbbbb);
	assert_int_equal(v->s.seg_sel[TR], TASK_STATE);
	assert_int_equal(tss_type(OTHER_TASK), 9);
	assert_false(peek(&s, TSS2_OFFSET + 36, 4) & FLAG_NT);
	assert_true(jump_far(OTHER_TASK, 0));
	assert_int_equal(tss_type(TASK_STATE), 9);
	assert_int_equal(tss_type(OTHER_TASK), 11);
	assert_false(cpu_rflags(v) & FLAG_NT);
}

static void test_task_faults(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	fill_other_task();
	set_descriptor(&s, OTHER_TASK, make_descriptor((uint32_t)s.base + TSS2_OFFSET, 102, ATTR_P | 9));
	assert_fault(&s, jump_far(OTHER_TASK, 0), EXC_TS, OTHER_TASK);
	set_descriptor(&s, OTHER_TASK, make_descriptor((uint32_t)s.base + TSS2_OFFSET, 103, 9));
	assert_fault(&s, jump_far(OTHER_TASK, 0), EXC_NP, OTHER_TASK);
	set_descriptor(&s, OTHER_TASK, make_descriptor((uint32_t)s.base + TSS2_OFFSET, 103, ATTR_P | 11));
	assert_fault(&s, jump_far(OTHER_TASK, 0), EXC_GP, OTHER_TASK);
	enter_level(&s, 3, false);
	set_descriptor(&s, OTHER_TASK, make_descriptor((uint32_t)s.base + TSS2_OFFSET, 103, ATTR_P | 9));
	assert_fault(&s, jump_far(OTHER_TASK, 0), EXC_GP, OTHER_TASK);
	enter_level(&s, 0, false);
	/* The new task's own fault: in it, with its registers. */
	poke32(TSS2_OFFSET + 80, BEYOND);
	assert_false(jump_far(OTHER_TASK, 0));
	assert_int_equal(v->fault.vector, EXC_TS);
	assert_int_equal(v->fault.error, BEYOND);
	assert_int_equal(v->s.rip, 0x5000);
	assert_int_equal(v->s.seg_sel[TR], OTHER_TASK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_32(test_jump_far),
		TEST_64(test_jump_between_long_modes),
		TEST_32(test_call_and_return),
		TEST_32(test_call_faults_leave_stack),
		TEST_32(test_return_outwards),
		TEST_32(test_return_faults),
		TEST_32(test_call_gate_inwards),
		TEST_32(test_call_gate_faults),
		TEST_32(test_call_gate_16),
		TEST_64(test_call_gate_64),
		TEST_64(test_iret_64_to_user),
		TEST_64(test_iret_64_same_level),
		TEST_64(test_iret_64_faults),
		TEST_64(test_iret_to_compatibility_mode),
		TEST_32(test_iret_flags_by_level),
		TEST_32(test_iret_to_virtual_8086),
		TEST_32(test_real_mode_transfers),
		TEST_32(test_software_interrupts),
		TEST_32(test_virtual_8086_interrupts),
		TEST_64(test_syscall),
		TEST_64(test_vendors_differ),
		TEST_32(test_sysenter),
		TEST_64(test_sysenter),
		TEST_32(test_task_call_and_return),
		TEST_32(test_task_faults),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
