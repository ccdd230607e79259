/*
 * Segment loads with their checks and error codes, linear addresses, stacks, descriptor table registers, LAR and kin.
 */
#include "lib/segment_fixture.h"

/* MOV Sreg, AX with this selector. */
static bool load(enum seg seg, uint16_t selector)
{
	s.f.v->s.gpr[RAX] = selector;
	return RUN(&s, 0x8e, (uint8_t)(0xc0 | seg << 3));
}

static void test_load_data(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	set_descriptor(&s, USER_DATA, make_descriptor(0x12345678, 0x1234, DATA(3u) | ATTR_DB));
	assert_true(load(ES, USER_DATA));
	assert_int_equal(v->s.seg_sel[ES], USER_DATA);
	assert_int_equal(v->s.seg_base[ES], 0x12345678);
	assert_int_equal(v->s.seg_limit[ES], 0x1234);
	assert_int_equal(v->s.seg_attr[ES], DATA(3u) | ATTR_DB | ATTR_ACCESSED);
	assert_true(get_descriptor(&s, USER_DATA) & BIT(40));
	assert_int_equal(v->s.rip, s.base + DATA_OFFSET + 2);
}

static void test_load_data_faults(void **state)
{
	(void)state;
	assert_fault(&s, load(DS, BEYOND), EXC_GP, BEYOND);
	assert_fault(&s, load(DS, KERNEL_DATA | 4), EXC_GP, KERNEL_DATA | 4); /* no LDT */
	assert_fault(&s, load(DS, TASK_STATE), EXC_GP, TASK_STATE);
	assert_fault(&s, load(DS, EXECUTE_ONLY), EXC_GP, EXECUTE_ONLY);
	assert_fault(&s, load(DS, KERNEL_DATA | 3), EXC_GP, KERNEL_DATA); /* RPL > DPL */
	assert_fault(&s, load(DS, NOT_PRESENT), EXC_NP, NOT_PRESENT);
	assert_false(get_descriptor(&s, NOT_PRESENT) & BIT(40));
	assert_true(load(DS, READ_ONLY));
	assert_true(load(DS, CONFORMING | 3)); /* privilege does not matter */
	enter_level(&s, 3, false);
	assert_fault(&s, load(DS, KERNEL_DATA), EXC_GP, KERNEL_DATA);
	assert_true(load(DS, 3)); /* null */
	assert_int_equal(s.f.v->s.seg_sel[DS], 3);
	assert_int_equal(s.f.v->s.seg_attr[DS], 0);
}

static void test_load_stack_faults(void **state)
{
	(void)state;
	assert_fault(&s, load(SS, 0), EXC_GP, 0);
	assert_fault(&s, load(SS, READ_ONLY), EXC_GP, READ_ONLY);
	assert_fault(&s, load(SS, USER_DATA), EXC_GP, USER_DATA & ~3);
	assert_fault(&s, load(SS, NOT_PRESENT), EXC_SS, NOT_PRESENT);
	assert_true(load(SS, KERNEL_DATA));
	assert_int_equal(s.f.v->s.shadow, SHADOW_MOV_SS);
	assert_true(s.f.v->events & EVENT_STEP);
}

static void test_null_stack_of_64_bit_mode(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	assert_fault(&s, load(SS, 3), EXC_GP, 0);
	assert_true(load(SS, 0));
	assert_int_equal(v->cpl, 0);
	enter_level(&s, 3, true);
	assert_fault(&s, load(SS, 3), EXC_GP, 0);
	assert_int_equal(v->cpl, 3);
}

/* A descriptor table that user mode cannot read is read all the same, and a missing one is a supervisor's page fault. */
static void test_tables_are_supervisor_accesses(void **state)
{
	(void)state;
	fixture_map(&s.f, 0, RAM_BASE, 3);
	enter_level(&s, 3, true);
	assert_true(load(DS, USER_DATA));
	assert_true(get_descriptor(&s, USER_DATA) & BIT(40));
	fixture_map(&s.f, 0, RAM_BASE, 0);
	assert_fault(&s, load(ES, USER_DATA), EXC_PF, 0);
	assert_int_equal(s.f.v->fault.address, s.base + GDT_OFFSET + (USER_DATA & ~7));
	/* Nor can it be marked when it may not be written. */
	set_descriptor(&s, USER_DATA, make_descriptor(0, 0xfffff, DATA(3u) | FLAT_32));
	fixture_map(&s.f, 0, RAM_BASE, 1);
	assert_fault(&s, load(ES, USER_DATA), EXC_PF, PF_P | PF_W);
}

static void test_local_table(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	poke(&s, LDT_OFFSET + 8, make_descriptor(0x1000, 0xfff, DATA(0)));
	v->s.gpr[RAX] = LOCAL_TABLE;
	assert_true(RUN(&s, 0x0f, 0x00, 0xd0)); /* lldt ax */
	assert_int_equal(v->s.seg_base[LDTR], s.base + LDT_OFFSET);
	assert_true(load(ES, 8 | 4));
	assert_int_equal(v->s.seg_base[ES], 0x1000);
	assert_fault(&s, load(ES, 0x100 | 4), EXC_GP, 0x100 | 4);
	v->s.gpr[RAX] = KERNEL_DATA;
	assert_fault(&s, RUN(&s, 0x0f, 0x00, 0xd0), EXC_GP, KERNEL_DATA);
	v->s.gpr[RAX] = LOCAL_TABLE | 4;
	assert_fault(&s, RUN(&s, 0x0f, 0x00, 0xd0), EXC_GP, LOCAL_TABLE | 4);
	v->s.gpr[RAX] = 0;
	assert_true(RUN(&s, 0x0f, 0x00, 0xd0));
	assert_fault(&s, load(ES, 8 | 4), EXC_GP, 8 | 4);
}

static void test_task_register(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.gpr[RAX] = TASK_STATE;
	assert_true(RUN(&s, 0x0f, 0x00, 0xd8)); /* ltr ax */
	assert_int_equal(v->s.seg_base[TR], s.base + TSS_OFFSET);
	assert_int_equal(v->s.seg_attr[TR], ATTR_P | 11);
	assert_int_equal(bits(get_descriptor(&s, TASK_STATE), 43, 40), 11);
	assert_fault(&s, RUN(&s, 0x0f, 0x00, 0xd8), EXC_GP, TASK_STATE); /* busy */
	v->s.gpr[RAX] = 0;
	assert_fault(&s, RUN(&s, 0x0f, 0x00, 0xd8), EXC_GP, 0);
	v->s.gpr[RBX] = ~0ull;
	assert_true(RUN(&s, 0x0f, 0x00, 0xcb)); /* str ebx: zero-extended */
	assert_int_equal(v->s.gpr[RBX], TASK_STATE);
	enter_level(&s, 3, v->code_mode == MODE_64);
	assert_fault(&s, RUN(&s, 0x0f, 0x00, 0xd8), EXC_GP, 0);
}

static void test_wide_system_segment_needs_type_zero(void **state)
{
	(void)state;
	set_descriptor(&s, TASK_STATE + 8, BIT(40));
	s.f.v->s.gpr[RAX] = TASK_STATE;
	assert_fault(&s, RUN(&s, 0x0f, 0x00, 0xd8), EXC_GP, TASK_STATE);
	set_descriptor(&s, TASK_STATE + 8, 0x00800000); /* base not canonical */
	assert_fault(&s, RUN(&s, 0x0f, 0x00, 0xd8), EXC_GP, TASK_STATE);
}

static bool linear(enum seg seg, uint64_t offset, unsigned size, enum access access, uint64_t *result)
{
	if (setjmp(s.f.v->fault_jmp))
		return false;
	*result = cpu_linear(s.f.v, seg, offset, size, access);
	return true;
}

static void test_linear_limits(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t lin;

	(void)state;
	put_segment(v, ES, KERNEL_DATA, 0xfff, DATA(0) | ATTR_DB);
	v->s.seg_base[ES] = 0xfffff000;
	assert_true(linear(ES, 0xffc, 4, ACCESS_WRITE, &lin));
	assert_int_equal(lin, 0xfffffffc);
	assert_false(linear(ES, 0xffd, 4, ACCESS_WRITE, &lin));
	assert_int_equal(v->fault.vector, EXC_GP);
	assert_false(linear(ES, 0xffffffff, 4, ACCESS_READ, &lin));
	v->s.seg_base[ES] = 0xfffff800;
	assert_true(linear(ES, 0x900, 4, ACCESS_READ, &lin)); /* wraps at 4 GiB */
	assert_int_equal(lin, 0x100);

	put_segment(v, SS, KERNEL_DATA, 0xfff, DATA(0) | ATTR_DB | ATTR_EXPAND_DOWN);
	assert_true(linear(SS, 0x1000, 4, ACCESS_WRITE, &lin));
	assert_false(linear(SS, 0xfff, 4, ACCESS_WRITE, &lin));
	assert_int_equal(v->fault.vector, EXC_SS);
	assert_int_equal(v->fault.error, 0);
	assert_false(linear(SS, 0xfffffffe, 4, ACCESS_WRITE, &lin));
	put_segment(v, SS, KERNEL_DATA, 0xfff, DATA(0) | ATTR_EXPAND_DOWN);
	assert_true(linear(SS, 0xfffc, 4, ACCESS_WRITE, &lin));
	assert_false(linear(SS, 0xfffd, 4, ACCESS_WRITE, &lin));
}

static void test_linear_types(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t lin;

	(void)state;
	put_segment(v, ES, READ_ONLY, UINT32_MAX, ATTR_P | ATTR_S | FLAT_32);
	assert_true(linear(ES, 0, 4, ACCESS_READ, &lin));
	assert_false(linear(ES, 0, 4, ACCESS_WRITE, &lin));
	put_segment(v, ES, EXECUTE_ONLY, UINT32_MAX, ATTR_P | ATTR_S | 8 | FLAT_32);
	assert_false(linear(ES, 0, 4, ACCESS_READ, &lin));
	assert_false(linear(CS, 0, 4, ACCESS_WRITE, &lin)); /* code is not written */
	v->s.seg_attr[ES] = 0;
	assert_false(linear(ES, 0, 1, ACCESS_READ, &lin));
	assert_int_equal(v->fault.error, 0);
	/* Real mode looks at limits only. */
	v->s.cr0 &= ~CR0_PE;
	cpu_update_mode(v);
	assert_true(linear(CS, 0, 4, ACCESS_WRITE, &lin));
}

static void test_linear_64(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t lin;

	(void)state;
	v->s.seg_base[DS] = 0x5000;
	v->s.seg_limit[DS] = 0;
	v->s.seg_base[FS] = 0xffff800000000000;
	assert_true(linear(DS, 0x123456789, 8, ACCESS_WRITE, &lin));
	assert_int_equal(lin, 0x123456789);
	assert_true(linear(FS, 0x10, 8, ACCESS_WRITE, &lin));
	assert_int_equal(lin, 0xffff800000000010);
}

static void test_stack_sizes(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.seg_sel[FS] = 0x1234;
	v->s.gpr[RSP] = s.base + STACK_TOP;
	assert_true(RUN(&s, 0x0f, 0xa0)); /* push fs */
	assert_int_equal(v->s.gpr[RSP], s.base + STACK_TOP - 4);
	assert_int_equal(peek(&s, STACK_TOP - 4, 4), 0x1234);

	/* A 16-bit stack pointer wraps within its 64 KiB and leaves the upper half alone. */
	put_segment(v, SS, KERNEL_DATA, 0xffff, DATA(0));
	v->s.seg_base[SS] = RAM_BASE;
	cpu_update_mode(v);
	v->s.gpr[RSP] = 0xabcd0002;
	assert_true(RUN(&s, 0x66, 0x0f, 0xa0));
	assert_int_equal(v->s.gpr[RSP], 0xabcd0000);
	assert_true(RUN(&s, 0x66, 0x0f, 0xa0));
	assert_int_equal(v->s.gpr[RSP], 0xabcdfffe);
	assert_int_equal(peek(&s, 0xfffe, 2), 0x1234);
	v->s.gpr[RSP] = 1; /* the item would straddle the end of the segment */
	assert_fault(&s, RUN(&s, 0x66, 0x0f, 0xa0), EXC_SS, 0);
}

static void test_pop_segment_restarts(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.gpr[RSP] = s.base + STACK_TOP - 8;
	poke(&s, STACK_TOP - 8, BEYOND);
	assert_fault(&s, RUN(&s, 0x0f, 0xa1), EXC_GP, BEYOND); /* pop fs */
	poke(&s, STACK_TOP - 8, KERNEL_DATA);
	assert_true(RUN(&s, 0x0f, 0xa1));
	assert_int_equal(v->s.gpr[RSP], s.base + STACK_TOP - 4);
	assert_int_equal(v->s.seg_sel[FS], KERNEL_DATA);
}

static void test_far_pointer_loads(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.gpr[RAX] = s.base + DATA_OFFSET;
	v->s.gpr[RBX] = 7;
	poke(&s, DATA_OFFSET, 0xabcdef01 | (uint64_t)NOT_PRESENT << 32);
	assert_fault(&s, RUN(&s, 0x0f, 0xb5, 0x18), EXC_NP, NOT_PRESENT); /* lgs ebx, [eax] */
	assert_int_equal(v->s.gpr[RBX], 7);
	poke(&s, DATA_OFFSET, 0xabcdef01 | (uint64_t)READ_ONLY << 32);
	assert_true(RUN(&s, 0x0f, 0xb5, 0x18));
	assert_int_equal(v->s.gpr[RBX], 0xabcdef01);
	assert_int_equal(v->s.seg_sel[GS], READ_ONLY);
}

static void test_table_registers(void **state)
{
	struct vcpu *v = s.f.v;
	bool wide = v->code_mode == MODE_64;

	(void)state;
	v->s.gpr[RAX] = s.base + DATA_OFFSET;
	poke(&s, DATA_OFFSET, 0x12 | 0x89abcdef0000ull | (wide ? 0x9789ull << 48 : 0));
	poke(&s, DATA_OFFSET + 8, wide ? 0xffff : 0);
	if (wide) {
		assert_true(RUN(&s, 0x0f, 0x01, 0x18)); /* lidt [rax] */
		assert_int_equal(v->s.idtr_base, 0xffff978989abcdef);
	}
	poke(&s, DATA_OFFSET, 0x12 | 0x89abcdef0000ull);
	poke(&s, DATA_OFFSET + 8, 0);
	assert_true(RUN(&s, 0x0f, 0x01, 0x18));
	assert_int_equal(v->s.idtr_base, 0x89abcdef);
	assert_int_equal(v->s.idtr_limit, 0x12);
	if (!wide) {
		assert_true(RUN(&s, 0x66, 0x0f, 0x01, 0x18)); /* 24 bits of base */
		assert_int_equal(v->s.idtr_base, 0xabcdef);
	}
	poke(&s, DATA_OFFSET + 0x10, ~0ull);
	poke(&s, DATA_OFFSET + 0x18, ~0ull);
	v->s.gpr[RAX] = s.base + DATA_OFFSET + 0x10;
	v->s.idtr_base = 0x1122334455667788;
	assert_true(RUN(&s, 0x0f, 0x01, 0x08)); /* sidt [rax] */
	assert_int_equal(peek(&s, DATA_OFFSET + 0x10, 2), 0x12);
	assert_int_equal(peek(&s, DATA_OFFSET + 0x12, 8), wide ? 0x1122334455667788 : 0xffffffff55667788);
	if (wide) {
		poke(&s, DATA_OFFSET + 0x18, 0x8000);
		assert_fault(&s, RUN(&s, 0x0f, 0x01, 0x18), EXC_GP, 0); /* not canonical */
	}
	enter_level(&s, 3, wide);
	assert_true(RUN(&s, 0x0f, 0x01, 0x08));
	assert_fault(&s, RUN(&s, 0x0f, 0x01, 0x18), EXC_GP, 0);
	v->s.cr4 |= CR4_UMIP;
	assert_fault(&s, RUN(&s, 0x0f, 0x01, 0x08), EXC_GP, 0);
	assert_fault(&s, RUN(&s, 0x0f, 0x00, 0xc8), EXC_GP, 0); /* str */
}

/* LAR EBX, AX; LSL; VERR; VERW. */
static bool zero_flag(void) { return cpu_status(s.f.v) & FLAG_ZF; }

static void test_lar_lsl(void **state)
{
	struct vcpu *v = s.f.v;
	bool wide = v->code_mode == MODE_64;

	(void)state;
	v->s.gpr[RBX] = 1;
	v->s.gpr[RAX] = USER_DATA;
	assert_true(RUN(&s, 0x0f, 0x02, 0xd8));
	assert_true(zero_flag());
	assert_int_equal(v->s.gpr[RBX], 0xcff200);
	assert_true(RUN(&s, 0x0f, 0x03, 0xd8));
	assert_int_equal(v->s.gpr[RBX], 0xffffffff);
	static const uint16_t invisible[] = { 0, 3, BEYOND, KERNEL_DATA | 3, 4 };
	for (unsigned n = 0; n < ARRAY_SIZE(invisible); n++) {
		v->s.gpr[RAX] = invisible[n];
		assert_true(RUN(&s, 0x0f, 0x02, 0xd8));
		assert_false(zero_flag());
		assert_int_equal(v->s.gpr[RBX], 0xffffffff);
	}
	v->s.gpr[RAX] = TASK_STATE;
	assert_true(RUN(&s, 0x0f, 0x03, 0xd8));
	assert_true(zero_flag());
	assert_int_equal(v->s.gpr[RBX], 103);
	/* A 16-bit TSS is no type of long mode; call gates have no limit. */
	set_descriptor(&s, OTHER_TASK, make_descriptor(0, 43, ATTR_P | 1));
	v->s.gpr[RAX] = OTHER_TASK;
	assert_true(RUN(&s, 0x0f, 0x03, 0xd8));
	assert_int_equal(zero_flag(), !wide);
	set_descriptor(&s, GATE, make_descriptor(0, 0, ATTR_P | 12));
	v->s.gpr[RAX] = GATE;
	assert_true(RUN(&s, 0x0f, 0x02, 0xd8));
	assert_true(zero_flag());
	assert_true(RUN(&s, 0x0f, 0x03, 0xd8));
	assert_false(zero_flag());
}

static void test_verify(void **state)
{
	static const struct {
		uint16_t selector;
		bool read, write;
	} cases[] = {
		{ KERNEL_DATA, true, true },	   { READ_ONLY, true, false },	    { KERNEL_CODE, true, false },
		{ EXECUTE_ONLY, false, false },	   { TASK_STATE, false, false },    { 0, false, false },
		{ KERNEL_DATA | 3, false, false }, { CONFORMING | 3, true, false }, { USER_DATA, true, true },
	};

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		s.f.v->s.gpr[RAX] = cases[n].selector;
		assert_true(RUN(&s, 0x0f, 0x00, 0xe0));
		assert_int_equal(zero_flag(), cases[n].read);
		assert_true(RUN(&s, 0x0f, 0x00, 0xe8));
		assert_int_equal(zero_flag(), cases[n].write);
	}
}

static void test_arpl(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.gpr[RCX] = 0x10;
	v->s.gpr[RAX] = 3;
	assert_true(RUN(&s, 0x63, 0xc1)); /* arpl cx, ax */
	assert_true(zero_flag());
	assert_int_equal(v->s.gpr[RCX], 0x13);
	v->s.gpr[RAX] = 1;
	assert_true(RUN(&s, 0x63, 0xc1));
	assert_false(zero_flag());
	v->s.gpr[RCX] = s.base + DATA_OFFSET;
	poke(&s, DATA_OFFSET, 0xffff0020);
	assert_true(RUN(&s, 0x63, 0x01));
	assert_int_equal(peek(&s, DATA_OFFSET, 4), 0xffff0021);
}

static void test_real_mode_loads(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	assert_true(load(ES, 0)); /* null */
	v->s.cr0 &= ~CR0_PE;
	v->s.seg_limit[DS] = UINT32_MAX;
	cpu_update_mode(v);
	assert_true(load(ES, 0x1234));
	assert_int_equal(v->s.seg_base[ES], 0x12340);
	assert_true(v->s.seg_attr[ES] & ATTR_P);
	assert_true(load(DS, 0xffff));
	assert_int_equal(v->s.seg_base[DS], 0xffff0);
	assert_int_equal(v->s.seg_limit[DS], UINT32_MAX);	/* "big real mode" */
	assert_fault(&s, RUN(&s, 0x0f, 0x00, 0xd8), EXC_UD, 0); /* ltr */
	v->s.rflags |= FLAG_VM;
	v->s.cr0 |= CR0_PE;
	cpu_update_mode(v);
	assert_true(load(DS, 0x1000));
	assert_int_equal(v->s.seg_limit[DS], 0xffff);
}

static void test_bases(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.seg_base[GS] = 1;
	v->s.msr_kernel_gs_base = 2;
	assert_true(RUN(&s, 0x0f, 0x01, 0xf8)); /* swapgs */
	assert_int_equal(v->s.seg_base[GS], 2);
	assert_int_equal(v->s.msr_kernel_gs_base, 1);
	assert_fault(&s, RUN(&s, 0xf3, 0x48, 0x0f, 0xae, 0xd1), EXC_UD, 0); /* wrfsbase rcx */
	v->s.cr4 |= CR4_FSGSBASE;
	enter_level(&s, 3, true);
	v->s.gpr[RCX] = 0xffff812345678900;
	assert_true(RUN(&s, 0xf3, 0x48, 0x0f, 0xae, 0xd1));
	assert_int_equal(v->s.seg_base[FS], 0xffff812345678900);
	assert_true(RUN(&s, 0xf3, 0x0f, 0xae, 0xc1)); /* rdfsbase ecx */
	assert_int_equal(v->s.gpr[RCX], 0x45678900);
	v->s.gpr[RCX] = 0x0000800000000000;
	assert_fault(&s, RUN(&s, 0xf3, 0x48, 0x0f, 0xae, 0xd9), EXC_GP, 0); /* wrgsbase rcx */
	assert_fault(&s, RUN(&s, 0x0f, 0x01, 0xf8), EXC_GP, 0);
}

static bool jump(uint64_t target, unsigned opsize)
{
	if (setjmp(s.f.v->fault_jmp))
		return false;
	cpu_jump(s.f.v, target, opsize);
	return true;
}

static void test_near_jumps(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	if (v->code_mode == MODE_64) {
		assert_fault(&s, jump(0x0000800000000000, 8), EXC_GP, 0);
		assert_true(jump(0xffff800000000000, 8));
		return;
	}
	v->s.seg_limit[CS] = 0x10fff;
	assert_fault(&s, jump(0x11000, 4), EXC_GP, 0);
	assert_true(jump(0x10fff, 4));
	assert_true(jump(0x11000, 2));
	assert_int_equal(v->s.rip, 0x1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_32(test_load_data),
		TEST_32(test_load_data_faults),
		TEST_32(test_load_stack_faults),
		TEST_64(test_null_stack_of_64_bit_mode),
		TEST_64(test_tables_are_supervisor_accesses),
		TEST_32(test_local_table),
		TEST_64(test_local_table),
		TEST_32(test_task_register),
		TEST_64(test_task_register),
		TEST_64(test_wide_system_segment_needs_type_zero),
		TEST_32(test_linear_limits),
		TEST_32(test_linear_types),
		TEST_64(test_linear_64),
		TEST_32(test_stack_sizes),
		TEST_32(test_pop_segment_restarts),
		TEST_32(test_far_pointer_loads),
		TEST_32(test_table_registers),
		TEST_64(test_table_registers),
		TEST_32(test_lar_lsl),
		TEST_64(test_lar_lsl),
		TEST_32(test_verify),
		TEST_32(test_arpl),
		TEST_32(test_real_mode_loads),
		TEST_64(test_bases),
		TEST_32(test_near_jumps),
		TEST_64(test_near_jumps),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
