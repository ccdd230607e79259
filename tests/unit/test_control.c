/*
 * Control and debug registers, mode switches, stale translations after them, and the flags that matter to the machine.
 */
#include "lib/segment_fixture.h"

/* MOV CRn, RAX. */
static bool write_cr(unsigned number, uint64_t value)
{
	s.f.v->s.gpr[RAX] = value;
	if (number == 8)
		return RUN(&s, 0x44, 0x0f, 0x22, 0xc0);
	return RUN(&s, 0x0f, 0x22, (uint8_t)(0xc0 | number << 3));
}

static bool load(uint64_t lin)
{
	if (setjmp(s.f.v->fault_jmp))
		return false;
	cpu_load(s.f.v, lin, 8, false);
	return true;
}

static bool store(uint64_t lin)
{
	if (setjmp(s.f.v->fault_jmp))
		return false;
	cpu_store(s.f.v, lin, 0, 8, false);
	return true;
}

static bool fetch(uint64_t lin)
{
	uint8_t *host;

	if (setjmp(s.f.v->fault_jmp))
		return false;
	cpu_fetch_translate(s.f.v, gva(lin), &host);
	return true;
}

/* ---- control registers ---- */

static void test_cr0_rules(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t cr0 = v->s.cr0;

	(void)state;
	assert_fault(&s, write_cr(0, CR0_PG), EXC_GP, 0);
	assert_fault(&s, write_cr(0, cr0 | CR0_NW), EXC_GP, 0);
	assert_true(write_cr(0, (cr0 | CR0_NW | CR0_CD | 0x1ff8ffc0) & ~CR0_ET));
	assert_int_equal(v->s.cr0, cr0 | CR0_NW | CR0_CD);
	enter_level(&s, 3, false);
	assert_fault(&s, write_cr(0, cr0), EXC_GP, 0);
	assert_fault(&s, RUN(&s, 0x0f, 0x20, 0xc0), EXC_GP, 0);
}

static void test_cr0_in_64_bit_mode(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t cr0 = v->s.cr0, rip = v->s.rip;

	(void)state;
	assert_fault(&s, write_cr(0, cr0 & ~CR0_PG), EXC_GP, 0);
	assert_fault(&s, write_cr(0, cr0 | BIT(32)), EXC_GP, 0);
	assert_true(write_cr(0, cr0 | CR0_TS));
	assert_int_equal(v->s.rip, rip + 3);
	assert_true(RUN(&s, 0x0f, 0x20, 0xc3)); /* mov rbx, cr0 */
	assert_int_equal(v->s.gpr[RBX], cr0 | CR0_TS);
	assert_true(RUN(&s, 0x0f, 0x06)); /* clts */
	assert_int_equal(v->s.cr0, cr0);
}

static void test_entering_and_leaving_long_mode(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t tables = 0x10000;

	(void)state;
	/* Identity map of 1 GiB by 2 MiB pages. */
	fixture_poke(&s.f, tables, (tables + 0x1000) | 7);
	fixture_poke(&s.f, tables + 0x1000, (tables + 0x2000) | 7);
	for (unsigned n = 0; n < 512; n++)
		fixture_poke(&s.f, tables + 0x2000 + 8 * n, (uint64_t)n << 21 | 0x87);
	v->s.efer = EFER_LME;
	assert_true(write_cr(3, tables));
	assert_fault(&s, write_cr(0, v->s.cr0 | CR0_PG), EXC_GP, 0); /* without PAE */
	assert_true(write_cr(4, CR4_PAE));
	v->s.seg_attr[TR] = ATTR_P | 3;
	assert_fault(&s, write_cr(0, v->s.cr0 | CR0_PG), EXC_GP, 0); /* with a 16-bit TSS */
	v->s.seg_attr[TR] = ATTR_P | 11;
	assert_true(write_cr(0, v->s.cr0 | CR0_PG));
	assert_true(v->s.efer & EFER_LMA);
	assert_int_equal(v->code_mode, MODE_32);
	assert_fault(&s, write_cr(4, 0), EXC_GP, 0); /* PAE is needed now */
	assert_true(RUN(&s, 0xea, 0, 0x40, 0x10, 0, CODE_64, 0));
	assert_int_equal(v->code_mode, MODE_64);
	assert_true(load(RAM_BASE));

	v->s.gpr[RSP] = RAM_BASE + STACK_TOP - 16;
	poke(&s, STACK_TOP - 16, RAM_BASE + 0x4000);
	poke(&s, STACK_TOP - 8, KERNEL_CODE);
	assert_true(RUN(&s, 0x48, 0xcb)); /* retfq to compatibility mode */
	assert_int_equal(v->code_mode, MODE_32);
	assert_true(write_cr(0, v->s.cr0 & ~CR0_PG));
	assert_false(v->s.efer & EFER_LMA);
	assert_true(write_cr(0, v->s.cr0 & ~CR0_PE));
	assert_int_equal(v->cpl, 0);
	assert_false(in_protected_mode(v));
}

static void test_cr3(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	assert_fault(&s, write_cr(3, FIXTURE_PML4 | BIT(45)), EXC_GP, 0);
	assert_fault(&s, write_cr(3, FIXTURE_PML4 | BIT(63)), EXC_GP, 0); /* without PCIDs */
	assert_true(load(s.base));
	fixture_poke(&s.f, FIXTURE_PT, 0);
	assert_true(load(s.base)); /* still in the TLB */
	assert_true(write_cr(3, FIXTURE_PML4));
	assert_false(load(s.base));
	assert_int_equal(v->fault.vector, EXC_PF);
}

static void test_pae_pointers_are_checked(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	assert_true(write_cr(4, CR4_PAE));
	fixture_poke(&s.f, 0x10000, 0x11000 | 1);
	fixture_poke(&s.f, 0x10008, 0x11000 | 3); /* bit 1 is reserved */
	assert_true(write_cr(3, 0x10000));
	assert_fault(&s, write_cr(0, v->s.cr0 | CR0_PG), EXC_GP, 0);
	assert_false(v->s.cr0 & CR0_PG);
	fixture_poke(&s.f, 0x10008, 0);
	assert_true(write_cr(0, v->s.cr0 | CR0_PG));
	assert_int_equal(v->s.pdpte[0], 0x11001);
	fixture_poke(&s.f, 0x10008, 2 | 1);
	assert_fault(&s, write_cr(3, 0x10000), EXC_GP, 0);
}

static void test_cr4_rules(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	assert_fault(&s, write_cr(4, CR4_PAE | CR4_LA57), EXC_GP, 0);
	assert_fault(&s, write_cr(4, CR4_PAE | BIT(31)), EXC_GP, 0);
	assert_fault(&s, write_cr(4, CR4_PAE | BIT(40)), EXC_GP, 0);
	s.f.model.features[FEATURE_SMEP] = false;
	assert_fault(&s, write_cr(4, CR4_PAE | CR4_SMEP), EXC_GP, 0);
	s.f.model.features[FEATURE_PCID] = true;
	v->s.cr3 |= 1;
	assert_fault(&s, write_cr(4, CR4_PAE | CR4_PCIDE), EXC_GP, 0);
	v->s.cr3 &= ~1ull;
	assert_true(write_cr(4, CR4_PAE | CR4_PCIDE));
	assert_true(write_cr(3, FIXTURE_PML4 | 5 | BIT(63)));
	assert_int_equal(v->s.cr3, FIXTURE_PML4 | 5);
	enter_level(&s, 0, false);
	assert_fault(&s, write_cr(0, v->s.cr0 & ~CR0_PG), EXC_GP, 0); /* with PCIDE */
}

static void test_cr8(void **state)
{
	(void)state;
	assert_true(write_cr(8, 9));
	assert_int_equal(s.tpr, 9);
	assert_true(RUN(&s, 0x44, 0x0f, 0x20, 0xc3)); /* mov rbx, cr8 */
	assert_int_equal(s.f.v->s.gpr[RBX], 9);
	assert_fault(&s, write_cr(8, 16), EXC_GP, 0);
}

/* ---- no stale translation ---- */

static void test_write_protect_takes_effect(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	fixture_map(&s.f, 3, RAM_BASE, 1);
	assert_true(write_cr(0, v->s.cr0 & ~CR0_WP));
	assert_true(store(s.base + 0x3000));
	assert_true(store(s.base + 0x3000));
	assert_true(write_cr(0, v->s.cr0 | CR0_WP));
	assert_false(store(s.base + 0x3000));
	assert_int_equal(v->fault.error, PF_P | PF_W);
}

static void test_smep_and_smap_take_effect(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	s.f.model.features[FEATURE_SMAP] = s.f.model.features[FEATURE_SMEP] = true;
	fixture_map(&s.f, 3, RAM_BASE, 7);
	assert_true(fetch(s.base + 0x3000));
	assert_true(load(s.base + 0x3000));
	assert_true(write_cr(4, CR4_PAE | CR4_SMEP | CR4_SMAP));
	assert_false(fetch(s.base + 0x3000));
	assert_false(load(s.base + 0x3000));
	assert_true(RUN(&s, 0x0f, 0x01, 0xcb)); /* stac */
	assert_true(v->s.rflags & FLAG_AC);
	assert_true(load(s.base + 0x3000));
	assert_true(RUN(&s, 0x0f, 0x01, 0xca)); /* clac */
	assert_false(load(s.base + 0x3000));
	assert_true(write_cr(4, CR4_PAE));
	assert_true(load(s.base + 0x3000));
	enter_level(&s, 3, true);
	assert_fault(&s, RUN(&s, 0x0f, 0x01, 0xcb), EXC_UD, 0);
}

static void test_stac_keeps_data_breakpoints(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	s.f.model.features[FEATURE_SMAP] = true;
	assert_true(write_cr(4, CR4_PAE | CR4_SMAP));
	v->s.gpr[RAX] = 1 | 1u << 16; /* break on writes at DR0 */
	assert_true(RUN(&s, 0x0f, 0x23, 0xf8));
	assert_ptr_equal(v->tlb, v->tlb_never);
	assert_true(RUN(&s, 0x0f, 0x01, 0xcb));
	assert_ptr_equal(v->tlb, v->tlb_never);
	v->s.gpr[RAX] = 0;
	assert_true(RUN(&s, 0x0f, 0x23, 0xf8));
	assert_ptr_equal(v->tlb, v->tlbs[TLB_KERNEL_AC]);
}

static void test_global_pages(void **state)
{
	(void)state;
	assert_true(write_cr(4, CR4_PAE | CR4_PGE));
	fixture_poke(&s.f, FIXTURE_PT + 8 * 3, RAM_BASE | BIT(8) | 7);
	assert_true(load(s.base + 0x3000));
	fixture_poke(&s.f, FIXTURE_PT + 8 * 3, 0);
	assert_true(write_cr(4, CR4_PAE));
	assert_false(load(s.base + 0x3000));
}

static void test_invlpg(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	assert_true(load(s.base + 0x3000));
	fixture_poke(&s.f, FIXTURE_PT + 8 * 3, 0);
	v->s.gpr[RAX] = s.base + 0x3123;
	assert_true(RUN(&s, 0x0f, 0x01, 0x38));
	assert_false(load(s.base + 0x3000));
	v->s.gpr[RAX] = 0x0000800000000000;
	assert_true(RUN(&s, 0x0f, 0x01, 0x38)); /* not canonical: nothing */
	enter_level(&s, 3, true);
	assert_fault(&s, RUN(&s, 0x0f, 0x01, 0x38), EXC_GP, 0);
}

/* INVPCID RCX, [RAX]. */
static bool invpcid(uint64_t type, uint64_t pcid, uint64_t address)
{
	poke(&s, DATA_OFFSET, pcid);
	poke(&s, DATA_OFFSET + 8, address);
	s.f.v->s.gpr[RAX] = s.base + DATA_OFFSET;
	s.f.v->s.gpr[RCX] = type;
	return RUN(&s, 0x66, 0x0f, 0x38, 0x82, 0x08);
}

static void test_invpcid(void **state)
{
	(void)state;
	s.f.model.features[FEATURE_INVPCID] = true;
	assert_fault(&s, invpcid(4, 0, 0), EXC_GP, 0);
	assert_fault(&s, invpcid(0, 0x1000, 0), EXC_GP, 0);
	assert_fault(&s, invpcid(0, 1, 0), EXC_GP, 0); /* without CR4.PCIDE */
	assert_fault(&s, invpcid(0, 0, 0x0000800000000000), EXC_GP, 0);
	for (unsigned type = 0; type < 4; type++) {
		fixture_poke(&s.f, FIXTURE_PT + 8 * 3, RAM_BASE | 7);
		assert_true(load(s.base + 0x3000));
		fixture_poke(&s.f, FIXTURE_PT + 8 * 3, 0);
		assert_true(invpcid(type, 0, s.base + 0x3000));
		assert_false(load(s.base + 0x3000));
	}
}

/* ---- the rest of the registers ---- */

static void test_machine_status_word(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.gpr[RAX] = CR0_TS | CR0_MP | CR0_WP;
	assert_true(RUN(&s, 0x0f, 0x01, 0xf0)); /* lmsw ax: PE stays, WP is not its */
	assert_int_equal(v->s.cr0, CR0_PE | CR0_ET | CR0_TS | CR0_MP);
	v->s.gpr[RBX] = ~0ull;
	assert_true(RUN(&s, 0x0f, 0x01, 0xe3)); /* smsw ebx */
	assert_int_equal(v->s.gpr[RBX], v->s.cr0);
	v->s.cr4 |= CR4_UMIP;
	enter_level(&s, 3, false);
	assert_fault(&s, RUN(&s, 0x0f, 0x01, 0xe3), EXC_GP, 0);
	assert_fault(&s, RUN(&s, 0x0f, 0x06), EXC_GP, 0);
}

static void test_debug_registers(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.gpr[RAX] = 0x12345678;
	assert_true(RUN(&s, 0x0f, 0x23, 0xc0)); /* mov dr0, rax */
	assert_int_equal(v->s.dr[0], 0x12345678);
	v->s.gpr[RAX] = 0;
	assert_true(RUN(&s, 0x0f, 0x23, 0xf0)); /* dr6 */
	assert_int_equal(v->s.dr[6], 0xffff0ff0);
	v->s.gpr[RAX] = 0xffffffff & ~(uint32_t)BIT(13);
	assert_true(RUN(&s, 0x0f, 0x23, 0xe8)); /* dr5 is dr7 */
	assert_int_equal(v->s.dr[7], 0xffff07ff);
	v->s.gpr[RAX] = BIT(32);
	assert_fault(&s, RUN(&s, 0x0f, 0x23, 0xf8), EXC_GP, 0);
	assert_true(write_cr(4, CR4_PAE | CR4_DE));
	assert_fault(&s, RUN(&s, 0x0f, 0x23, 0xe8), EXC_UD, 0);
	v->s.gpr[RAX] = BIT(13); /* general detect */
	assert_true(RUN(&s, 0x0f, 0x23, 0xf8));
	assert_fault(&s, RUN(&s, 0x0f, 0x21, 0xc0), EXC_DB, 0);
	assert_true(v->s.dr[6] & BIT(13));
	assert_false(v->s.dr[7] & BIT(13));
	enter_level(&s, 3, true);
	assert_fault(&s, RUN(&s, 0x0f, 0x21, 0xc0), EXC_GP, 0);
}

static void test_xcr0(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->s.gpr[RCX] = 0;
	assert_fault(&s, RUN(&s, 0x0f, 0x01, 0xd0), EXC_UD, 0);
	assert_true(write_cr(4, CR4_PAE | CR4_OSXSAVE));
	static const struct {
		uint64_t value;
		bool allowed;
	} cases[] = { { 0, false }, { 2, false }, { 3, true }, { 5, false }, { 7, true }, { 0xf, false }, { 1, true } };
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		v->s.gpr[RAX] = cases[n].value;
		v->s.gpr[RDX] = 0;
		assert_int_equal(RUN(&s, 0x0f, 0x01, 0xd1), cases[n].allowed);
		v->s.gpr[RAX] = v->s.gpr[RDX] = ~0ull;
		assert_true(RUN(&s, 0x0f, 0x01, 0xd0));
		assert_int_equal(v->s.gpr[RAX], v->s.xcr0);
		assert_int_equal(v->s.gpr[RDX], 0);
		if (cases[n].allowed)
			assert_int_equal(v->s.xcr0, cases[n].value);
	}
	v->s.gpr[RCX] = 2;
	assert_fault(&s, RUN(&s, 0x0f, 0x01, 0xd0), EXC_GP, 0);
	enter_level(&s, 3, true);
	v->s.gpr[RCX] = 0;
	assert_fault(&s, RUN(&s, 0x0f, 0x01, 0xd1), EXC_GP, 0);
}

/* ---- flags ---- */

static void test_cli_sti(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->events = 0;
	assert_true(RUN(&s, 0xfb));
	assert_true(v->s.rflags & FLAG_IF);
	assert_int_equal(v->s.shadow, SHADOW_STI);
	assert_int_equal(v->events, EVENT_STEP);
	v->events = 0;
	v->s.shadow = SHADOW_NONE;
	assert_true(RUN(&s, 0xfb)); /* IF was set: no shadow */
	assert_int_equal(v->s.shadow, SHADOW_NONE);
	assert_int_equal(v->events, 0);
	assert_true(RUN(&s, 0xfa));
	assert_false(v->s.rflags & FLAG_IF);
	v->interrupt_wanted = true;
	assert_true(RUN(&s, 0xfb));
	assert_true(v->events & EVENT_INTERRUPT);

	enter_level(&s, 3, true);
	assert_fault(&s, RUN(&s, 0xfa), EXC_GP, 0);
	v->s.rflags |= FLAG_IOPL;
	assert_true(RUN(&s, 0xfa));
	assert_false(v->s.rflags & FLAG_IF);
	v->s.rflags &= ~FLAG_IOPL;
	assert_true(v->s.cr4 & CR4_PAE);
	v->s.cr4 |= CR4_PVI;
	assert_true(RUN(&s, 0xfb)); /* IF means VIF now */
	assert_int_equal(v->s.rflags & (FLAG_IF | FLAG_VIF), FLAG_VIF);
	v->s.rflags |= FLAG_VIP;
	assert_fault(&s, RUN(&s, 0xfb), EXC_GP, 0);
	assert_true(RUN(&s, 0xfa));
	assert_false(v->s.rflags & FLAG_VIF);
}

/* PUSH the image, POPF; the flags then. */
static uint64_t popf(uint64_t image)
{
	struct vcpu *v = s.f.v;

	v->s.gpr[RSP] = s.base + STACK_TOP - 8;
	poke(&s, STACK_TOP - 8, image);
	assert_true(RUN(&s, 0x9d));
	assert_int_equal(v->s.gpr[RSP], s.base + STACK_TOP);
	return cpu_rflags(v);
}

static void test_popf_by_level(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	v->events = 0;
	assert_int_equal(popf(~0ull & ~FLAG_TF),
			 FLAGS_STATUS | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID | 2);
	assert_int_equal(v->events & EVENT_STEP, 0);
	assert_int_equal(popf(FLAG_TF), FLAG_TF | 2);
	assert_true(v->events & EVENT_STEP);
	cpu_set_rflags(v, FLAG_IF);
	enter_level(&s, 3, true);
	assert_int_equal(popf(FLAG_IOPL | FLAG_CF), FLAG_IF | FLAG_CF | 2); /* silently kept */
	cpu_set_rflags(v, FLAG_IF | FLAG_IOPL);
	assert_int_equal(popf(0), FLAG_IOPL | 2);
}

static void test_pushf(void **state)
{
	struct vcpu *v = s.f.v;

	(void)state;
	cpu_set_rflags(v, FLAG_ID | FLAG_CF);
	v->s.rflags |= FLAG_RF;
	assert_true(RUN(&s, 0x9c));
	assert_int_equal(peek(&s, STACK_TOP - 8, 8), FLAG_ID | FLAG_CF | 2);
	assert_true(RUN(&s, 0x66, 0x9c));
	assert_int_equal(v->s.gpr[RSP], s.base + STACK_TOP - 10);
}

static void test_halt(void **state)
{
	struct vcpu *v = s.f.v;
	uint64_t rip = v->s.rip;

	(void)state;
	assert_true(RUN(&s, 0xf4));
	assert_int_equal(v->s.activity, CPU_HALTED);
	assert_int_equal(v->s.rip, rip + 1);
	assert_true(v->events & EVENT_HALTED);
	v->s.activity = CPU_RUNNING;
	enter_level(&s, 3, true);
	assert_fault(&s, RUN(&s, 0xf4), EXC_GP, 0);
	assert_fault(&s, RUN(&s, 0x0f, 0x09), EXC_GP, 0); /* wbinvd */
	assert_fault(&s, RUN(&s, 0x0f, 0x08), EXC_GP, 0); /* invd */
	assert_fault(&s, RUN(&s, 0x0f, 0xaa), EXC_UD, 0); /* rsm */
}

/* Every operation that decoding can yield for this folder has a function. */
static void test_table_is_complete(void **state)
{
	static const enum op ops[] = {
		OP_MOVSD_STRING,
		OP_CMPSD_STRING,
		OP_MOV_SREG,
		OP_PUSH_SREG,
		OP_POP_SREG,
		OP_MOV_CR,
		OP_MOV_DR,
		OP_JMP_FAR,
		OP_CALL_FAR,
		OP_RET_FAR,
#define _(mnemonic, name, flags) OP_##mnemonic,
		CPU_SYSTEM_OPS(_)
#undef _
	};

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(ops); n++)
		assert_non_null(cpu_system_ops[ops[n]]);
	assert_null(cpu_system_ops[OP_ADD]);
	assert_null(cpu_system_ops[OP_INVALID]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_32(test_cr0_rules),
		TEST_64(test_cr0_in_64_bit_mode),
		TEST_32(test_entering_and_leaving_long_mode),
		TEST_64(test_cr3),
		TEST_32(test_pae_pointers_are_checked),
		TEST_64(test_cr4_rules),
		TEST_64(test_cr8),
		TEST_64(test_write_protect_takes_effect),
		TEST_64(test_smep_and_smap_take_effect),
		TEST_64(test_stac_keeps_data_breakpoints),
		TEST_64(test_global_pages),
		TEST_64(test_invlpg),
		TEST_64(test_invpcid),
		TEST_32(test_machine_status_word),
		TEST_64(test_debug_registers),
		TEST_64(test_xcr0),
		TEST_64(test_cli_sti),
		TEST_64(test_popf_by_level),
		TEST_64(test_pushf),
		TEST_64(test_halt),
		cmocka_unit_test(test_table_is_complete),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
