/*
 * Delivery of exceptions and interrupts in every mode, double and triple faults, priorities and shadows between
 * instructions, debug traps, INIT and SIPI.
 */
#include "cpu/private.h"
#include "lib/bare_cpu.h"

#define IDT	0x1000ull
#define GDT	0x2000ull
#define TSS	0x3000ull
#define PML4	0x10000ull
#define STACK	0x80000ull /* of the interrupted code */
#define RSP0	0x90000ull
#define IST1	0xa0ff0ull - 0x10000
#define HANDLER 0x45000ull
#define RIP	0x7123ull

/* Selectors */
#define CODE0		0x08 /* the mode's own code segment */
#define DATA0		0x10
#define CODE3		0x1b
#define DATA3		0x23
#define ABSENT		0x28 /* code, not present */
#define CODE_CONFORMING 0x30
#define SMALL		0x38 /* data, 16 bytes */
#define STRANGE		0x40 /* code of another size than the mode's */
#define TSS_SELECTOR	0x48
#define GDT_LIMIT	0x57

static void descriptor(struct bare_cpu *b, unsigned selector, uint16_t attr, uint32_t limit)
{
	uint64_t raw = bits(limit, 15, 0) | bits(limit, 19, 16) << 48 | (uint64_t)(attr & 0xff) << 40 |
		       (uint64_t)(attr >> 12) << 52;

	put(b, GDT + (selector & ~7u), raw, 8);
}

static void gdt(struct bare_cpu *b, uint16_t size)
{
	uint16_t code = ATTR_G | size | ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE;
	uint16_t data = ATTR_G | ATTR_DB | ATTR_P | ATTR_S | ATTR_WRITABLE;

	descriptor(b, CODE0, code, 0xfffff);
	descriptor(b, DATA0, data, 0xfffff);
	descriptor(b, CODE3, code | ATTR_DPL, 0xfffff);
	descriptor(b, DATA3, data | ATTR_DPL, 0xfffff);
	descriptor(b, ABSENT, code & ~ATTR_P, 0xfffff);
	descriptor(b, CODE_CONFORMING, code | ATTR_EXPAND_DOWN, 0xfffff);
	descriptor(b, SMALL, data & ~ATTR_G, 15);
	descriptor(b, STRANGE, (code & ~size) | (size == ATTR_L ? ATTR_DB : 0), 0xfffff);
	b->v->s.gdtr_base = GDT;
	b->v->s.gdtr_limit = GDT_LIMIT;
	b->v->s.idtr_base = IDT;
}

static void segment(struct vcpu *v, enum seg seg, uint16_t selector, uint16_t attr)
{
	v->s.seg_sel[seg] = selector;
	v->s.seg_base[seg] = 0;
	v->s.seg_limit[seg] = UINT32_MAX;
	v->s.seg_attr[seg] =
		attr | ATTR_P | ATTR_S | ATTR_ACCESSED | ATTR_WRITABLE | (uint16_t)((selector & 3) << ATTR_DPL_SHIFT);
}

static void set_code(struct vcpu *v, unsigned cpl, uint16_t size)
{
	segment(v, CS, cpl ? CODE3 : CODE0, ATTR_CODE | size | ATTR_G);
	segment(v, SS, cpl ? DATA3 : DATA0, ATTR_DB | ATTR_G);
	cpu_update_mode(v);
}

static void set_tr(struct vcpu *v, uint16_t type)
{
	v->s.seg_sel[TR] = TSS_SELECTOR;
	v->s.seg_base[TR] = TSS;
	v->s.seg_limit[TR] = 0x67;
	v->s.seg_attr[TR] = ATTR_P | type;
}

static void start(struct bare_cpu *b)
{
	b->v->s.rip = RIP;
	b->v->s.gpr[RSP] = STACK;
	cpu_set_rflags(b->v, FLAG_IF | FLAG_CF | FLAG_ZF | 2);
	cpu_tlb_flush(b->v);
}

/* ---- long mode ---- */

static void gate64(struct bare_cpu *b, unsigned vector, uint16_t selector, uint64_t offset, unsigned type, unsigned dpl,
		   unsigned ist)
{
	uint64_t low = bits(offset, 15, 0) | (uint64_t)selector << 16 | (uint64_t)ist << 32 | (uint64_t)type << 40 |
		       (uint64_t)dpl << 45 | 1ull << 47 | bits(offset, 31, 16) << 48;

	put(b, IDT + 16 * vector, low, 8);
	put(b, IDT + 16 * vector + 8, offset >> 32, 8);
}

static void long_mode(struct bare_cpu *b, unsigned cpl)
{
	struct vcpu *v = b->v;

	put(b, PML4, 0x11000 | 7, 8);
	put(b, 0x11000, 0x12000 | 7, 8);
	for (unsigned n = 0; n < 8; n++)
		put(b, 0x12000 + 8 * n, (uint64_t)n << 21 | 0x87, 8);
	v->s.cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET;
	v->s.cr4 = CR4_PAE | CR4_OSFXSR;
	v->s.cr3 = PML4;
	v->s.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	gdt(b, ATTR_L);
	set_tr(v, 11);
	put(b, TSS + 4, RSP0, 8);
	put(b, TSS + 36, IST1, 8);
	v->s.idtr_limit = 0xfff;
	set_code(v, cpl, ATTR_L);
	start(b);
}

static bool fault(struct bare_cpu *b, enum vector vector, bool has_error, uint32_t error)
{
	b->v->fault = (struct fault){ .vector = (uint8_t)vector, .has_error = has_error, .error = error };
	return cpu_deliver_fault(b->v);
}

static void test_long_same_level(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	uint64_t rsp;

	long_mode(b, 0);
	v->s.gpr[RSP] = STACK - 8;
	cpu_set_rflags(v, cpu_rflags(v) | FLAG_NT | FLAG_TF);
	gate64(b, EXC_GP, CODE0, 0x12345678, 14, 0, 0);
	assert_true(fault(b, EXC_GP, true, 0x1234));
	rsp = v->s.gpr[RSP];
	assert_int_equal(rsp, STACK - 16 - 48); /* aligned first */
	assert_int_equal(get(b, rsp, 8), 0x1234);
	assert_int_equal(get(b, rsp + 8, 8), RIP);
	assert_int_equal(get(b, rsp + 16, 8), CODE0);
	/* A fault: RF in the image. */
	assert_int_equal(get(b, rsp + 24, 8), FLAG_RF | FLAG_NT | FLAG_TF | FLAG_IF | FLAG_CF | FLAG_ZF | 2);
	assert_int_equal(get(b, rsp + 32, 8), STACK - 8);
	assert_int_equal(get(b, rsp + 40, 8), DATA0);
	assert_int_equal(v->s.rip, 0x12345678);
	assert_int_equal(cpu_rflags(v), FLAG_CF | FLAG_ZF | 2);
	assert_int_equal(v->s.seg_sel[SS], DATA0);
	assert_int_equal(v->s.seg_sel[CS], CODE0);
	/* The descriptor is marked as accessed. */
	assert_int_equal(get(b, GDT + CODE0 + 5, 1) & 1, 1);
	/* A trap gate leaves IF. */
	start(b);
	gate64(b, EXC_UD, CODE0, HANDLER, 15, 0, 0);
	assert_true(fault(b, EXC_UD, false, 0));
	assert_int_equal(v->s.gpr[RSP], STACK - 40);
	assert_int_equal(cpu_rflags(v) & FLAG_IF, FLAG_IF);
}

static void test_long_from_user(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 3);
	gate64(b, EXC_PF, CODE0, 0xffff800012345678, 14, 0, 0);
	v->fault = (struct fault){ .vector = EXC_PF, .has_error = true, .error = 7, .address = 0xdead000 };
	assert_true(cpu_deliver_fault(v));
	assert_int_equal(v->s.cr2, 0xdead000);
	assert_int_equal(v->s.gpr[RSP], RSP0 - 48);
	assert_int_equal(get(b, RSP0 - 8, 8), DATA3);
	assert_int_equal(get(b, RSP0 - 16, 8), STACK);
	assert_int_equal(get(b, RSP0 - 32, 8), CODE3);
	assert_int_equal(get(b, RSP0 - 40, 8), RIP);
	assert_int_equal(get(b, RSP0 - 48, 8), 7);
	assert_int_equal(v->s.rip, 0xffff800012345678);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->code_mode, MODE_64);
	assert_int_equal(v->s.seg_sel[CS], CODE0);
	assert_int_equal(v->s.seg_sel[SS], 0);
	assert_int_equal(v->count[COUNT_PAGE_FAULTS], 1);

	/* A conforming handler runs at CPL 3, on the user's stack. */
	long_mode(b, 3);
	gate64(b, EXC_PF, CODE_CONFORMING, HANDLER, 14, 0, 0);
	assert_true(fault(b, EXC_PF, true, 4));
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->s.gpr[RSP], STACK - 48);
	assert_int_equal(v->s.seg_sel[CS], CODE_CONFORMING | 3);
}

static void test_long_ist(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 0);
	gate64(b, EXC_NMI, CODE0, HANDLER, 14, 0, 1);
	assert_true(cpu_deliver_interrupt(v, EXC_NMI, true));
	assert_int_equal(v->s.gpr[RSP], (IST1)-40);
	assert_int_equal(get(b, (IST1)-16, 8), STACK);
	assert_int_equal(v->s.seg_sel[SS], DATA0); /* no change of level */
	assert_int_equal(v->s.nmi_blocked, 1);
	assert_int_equal(get(b, (IST1)-24, 8) & FLAG_RF, 0);
}

/* A gate for `vector` that cannot be used must become this exception with this error. */
static void expect_nested(struct bare_cpu *b, enum vector vector, uint32_t error)
{
	struct vcpu *v = b->v;

	assert_int_equal(v->s.rip, HANDLER + vector);
	assert_int_equal(get(b, v->s.gpr[RSP], 8), error);
	assert_int_equal(get(b, v->s.gpr[RSP] + 8, 8), RIP);
}

static void test_long_bad_gates(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	const struct {
		uint16_t selector;
		unsigned type;
		uint64_t offset;
		enum vector vector;
		uint32_t error;
	} cases[] = {
		{ CODE0, 12, HANDLER, EXC_GP, 0x80 * 8 + 3 },
		{ CODE0, 5, HANDLER, EXC_GP, 0x80 * 8 + 3 },
		{ CODE0, 6, HANDLER, EXC_GP, 0x80 * 8 + 3 },
		{ 0, 14, HANDLER, EXC_GP, 1 },
		{ GDT_LIMIT + 1, 14, HANDLER, EXC_GP, GDT_LIMIT + 1 + 1 },
		{ 0x0c, 14, HANDLER, EXC_GP, 0x0c + 1 }, /* no LDT */
		{ DATA0, 14, HANDLER, EXC_GP, DATA0 + 1 },
		{ CODE3, 14, HANDLER, EXC_GP, (CODE3 & ~3) + 1 },
		{ STRANGE, 14, HANDLER, EXC_GP, STRANGE + 1 },
		{ ABSENT, 14, HANDLER, EXC_NP, ABSENT + 1 },
		{ CODE0, 14, 0x800000000000, EXC_GP, 1 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		long_mode(b, 0);
		v->s.seg_attr[LDTR] = 0;
		for (unsigned vector = EXC_TS; vector <= EXC_PF; vector++)
			gate64(b, vector, CODE0, HANDLER + vector, 14, 0, 0);
		gate64(b, 0x80, cases[n].selector, cases[n].offset, cases[n].type, 0, 0);
		assert_true(cpu_deliver_interrupt(v, 0x80, false));
		expect_nested(b, cases[n].vector, cases[n].error);
	}

	/* Not present; beyond the limit. */
	long_mode(b, 0);
	put(b, IDT + 16 * 0x80 + 5, 0x0e, 1);
	assert_true(cpu_deliver_interrupt(v, 0x80, false));
	expect_nested(b, EXC_NP, 0x80 * 8 + 3);
	long_mode(b, 0);
	gate64(b, 0x80, CODE0, HANDLER, 14, 0, 0);
	v->s.idtr_limit = 16 * 0x80 + 14;
	assert_true(cpu_deliver_interrupt(v, 0x80, false));
	expect_nested(b, EXC_GP, 0x80 * 8 + 3);
	v->s.idtr_limit = 16 * 0x80 + 15;
	start(b);
	assert_true(cpu_deliver_interrupt(v, 0x80, false));
	assert_int_equal(v->s.rip, HANDLER);

	/* TSS too small for the stack; stack not canonical. */
	long_mode(b, 3);
	gate64(b, EXC_TS, CODE_CONFORMING, HANDLER + EXC_TS, 14, 0, 0);
	gate64(b, EXC_SS, CODE_CONFORMING, HANDLER + EXC_SS, 14, 0, 0);
	v->s.seg_limit[TR] = 10;
	assert_true(cpu_deliver_interrupt(v, 0x80, false));
	expect_nested(b, EXC_TS, TSS_SELECTOR + 1);
	long_mode(b, 3);
	put(b, TSS + 4, 0x800000000010, 8);
	assert_true(cpu_deliver_interrupt(v, 0x80, false));
	expect_nested(b, EXC_SS, 1);
}

static void test_software(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	struct fault soft = { .vector = EXC_BP, .soft = true };

	/* The gate's privilege counts; errors have EXT clear. */
	long_mode(b, 3);
	gate64(b, EXC_BP, CODE0, HANDLER + EXC_BP, 15, 0, 0);
	gate64(b, EXC_GP, CODE0, HANDLER + EXC_GP, 14, 0, 0);
	v->fault = soft;
	assert_true(cpu_deliver_fault(v));
	expect_nested(b, EXC_GP, EXC_BP * 8 + 2);

	long_mode(b, 3);
	gate64(b, EXC_BP, CODE0, HANDLER + EXC_BP, 15, 3, 0);
	v->fault = soft;
	assert_true(cpu_deliver_fault(v));
	assert_int_equal(v->s.rip, HANDLER + EXC_BP);
	assert_int_equal(get(b, RSP0 - 24, 8) & FLAG_RF, 0);
}

/* ---- double and triple faults ---- */

static void test_double_fault(void **state)
{
	static const struct {
		uint8_t first, second;
		bool is_double;
	} cases[] = {
		{ EXC_UD, EXC_GP, false }, { EXC_UD, EXC_PF, false }, { EXC_GP, EXC_GP, true },
		{ EXC_GP, EXC_PF, false }, { EXC_PF, EXC_GP, true },  { EXC_PF, EXC_PF, true },
		{ EXC_DE, EXC_NP, true },
	};
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		unsigned first = cases[n].first, second = cases[n].second;

		long_mode(b, 0);
		memset(b->mem->ram.file.base + IDT, 0, 0x1000);
		gate64(b, EXC_DF, CODE0, HANDLER + EXC_DF, 14, 0, 1);
		if (second != first)
			gate64(b, second, CODE0, HANDLER + second, 14, 0, 1);
		/* The first one's gate faults with the second. */
		gate64(b, first,
		       second == EXC_GP	  ? DATA0
		       : second == EXC_NP ? ABSENT
					  : CODE0,
		       HANDLER + first, 14, 0, 0);
		if (second == EXC_PF)
			v->s.gpr[RSP] = 0x1000100; /* not mapped */
		assert_true(fault(b, (enum vector)first, first != EXC_UD && first != EXC_DE, 0));
		assert_int_equal(v->s.rip, HANDLER + (cases[n].is_double ? (unsigned)EXC_DF : second));
		assert_int_equal(get(b, v->s.gpr[RSP] + 8, 8), RIP);
		if (cases[n].is_double)
			assert_int_equal(get(b, v->s.gpr[RSP], 8), 0);
		if (second == EXC_PF)
			assert_int_equal(v->s.cr2, 0x1000100 - 8);
		assert_false(v->delivering);
	}
}

static void test_triple_fault(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 0);
	v->s.idtr_limit = 0;
	assert_false(fault(b, EXC_UD, false, 0));
	assert_int_equal(v->s.activity, CPU_SHUTDOWN);
	assert_int_equal(v->s.rip, RIP);
	assert_int_equal(v->s.gpr[RSP], STACK);
	assert_int_equal(v->events & EVENT_HALTED, EVENT_HALTED);
	assert_false(cpu_has_work(v));
	vcpu_post(v, EVENT_INIT);
	assert_true(cpu_has_work(v));
}

/* ---- 32-bit ---- */

static void gate32(struct bare_cpu *b, unsigned vector, uint16_t selector, uint32_t offset, unsigned type, unsigned dpl)
{
	uint64_t raw = bits(offset, 15, 0) | (uint64_t)selector << 16 | (uint64_t)type << 40 | (uint64_t)dpl << 45 |
		       1ull << 47 | bits(offset, 31, 16) << 48;

	put(b, IDT + 8 * vector, raw, 8);
}

static void protected_mode(struct bare_cpu *b, unsigned cpl)
{
	struct vcpu *v = b->v;

	v->s.cr0 = CR0_PE | CR0_ET;
	gdt(b, ATTR_DB);
	set_tr(v, 11);
	put(b, TSS + 4, RSP0, 4);
	put(b, TSS + 8, DATA0, 4);
	v->s.idtr_limit = 0x7ff;
	set_code(v, cpl, ATTR_DB);
	start(b);
}

static void test_protected(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	protected_mode(b, 0);
	gate32(b, EXC_NP, CODE0, HANDLER, 14, 0);
	assert_true(fault(b, EXC_NP, true, 0xabc));
	assert_int_equal(v->s.gpr[RSP], STACK - 16);
	assert_int_equal(get(b, STACK - 16, 4), 0xabc);
	assert_int_equal(get(b, STACK - 12, 4), RIP);
	assert_int_equal(get(b, STACK - 8, 4), CODE0);
	assert_int_equal(get(b, STACK - 4, 4), FLAG_RF | FLAG_IF | FLAG_CF | FLAG_ZF | 2);
	assert_int_equal(v->s.rip, HANDLER);

	protected_mode(b, 3);
	assert_true(fault(b, EXC_NP, true, 0xabc));
	assert_int_equal(v->s.gpr[RSP], RSP0 - 24);
	assert_int_equal(get(b, RSP0 - 4, 4), DATA3);
	assert_int_equal(get(b, RSP0 - 8, 4), STACK);
	assert_int_equal(get(b, RSP0 - 20, 4), RIP);
	assert_int_equal(v->s.seg_sel[SS], DATA0);
	assert_int_equal(v->cpl, 0);
	assert_true(v->flat == false); /* DS and ES are not */

	/* A 16-bit gate and a 16-bit TSS. */
	protected_mode(b, 3);
	set_tr(v, 3);
	put(b, TSS + 2, 0x9000, 2);
	put(b, TSS + 4, DATA0, 2);
	gate32(b, 0x21, CODE0, 0xffff4567, 6, 0);
	assert_true(cpu_deliver_interrupt(v, 0x21, false));
	assert_int_equal(v->s.gpr[RSP], 0x9000 - 10);
	assert_int_equal(get(b, 0x9000 - 10, 2), RIP);
	assert_int_equal(get(b, 0x9000 - 4, 2), STACK & 0xffff);
	assert_int_equal(v->s.rip, 0x4567);
}

static void test_protected_bad_stacks(void **state)
{
	static const struct {
		uint16_t ss;
		uint32_t esp;
		enum vector vector;
		uint32_t error;
	} cases[] = {
		{ 0, RSP0, EXC_TS, 1 },
		{ DATA3, RSP0, EXC_TS, (DATA3 & ~3) + 1 },
		{ CODE0, RSP0, EXC_TS, CODE0 + 1 },
		{ GDT_LIMIT + 1, RSP0, EXC_TS, GDT_LIMIT + 2 },
		{ SMALL, 16, EXC_SS, SMALL + 1 },
	};
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		protected_mode(b, 3);
		gate32(b, 0x80, CODE0, HANDLER, 14, 3);
		gate32(b, EXC_TS, CODE_CONFORMING, HANDLER + EXC_TS, 14, 0);
		gate32(b, EXC_SS, CODE_CONFORMING, HANDLER + EXC_SS, 14, 0);
		put(b, TSS + 4, cases[n].esp, 4);
		put(b, TSS + 8, cases[n].ss, 2);
		assert_true(cpu_deliver_interrupt(v, 0x80, false));
		assert_int_equal(v->s.rip, HANDLER + cases[n].vector);
		assert_int_equal(get(b, v->s.gpr[RSP], 4), cases[n].error);
	}
}

/* Beyond the code segment; a stack that grows down to its limit, and wraps its 16-bit pointer above it. */
static void test_protected_limits(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	protected_mode(b, 0);
	descriptor(b, CODE_CONFORMING, ATTR_DB | ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE, HANDLER - 1);
	gate32(b, 0x80, CODE_CONFORMING, HANDLER, 14, 0);
	gate32(b, EXC_GP, CODE0, HANDLER + EXC_GP, 14, 0);
	gate32(b, EXC_DF, CODE0, HANDLER + EXC_DF, 14, 0);
	assert_true(cpu_deliver_interrupt(v, 0x80, false));
	assert_int_equal(v->s.rip, HANDLER + EXC_GP);
	assert_int_equal(get(b, v->s.gpr[RSP], 4), 1);
	descriptor(b, CODE_CONFORMING, ATTR_DB | ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE, HANDLER);
	assert_true(cpu_deliver_interrupt(v, 0x80, false));
	assert_int_equal(v->s.rip, HANDLER);

	v->s.seg_attr[SS] |= ATTR_EXPAND_DOWN;
	v->s.seg_limit[SS] = STACK - 13;
	start(b);
	assert_true(cpu_deliver_interrupt(v, 0x80, false));
	assert_int_equal(v->s.gpr[RSP], STACK - 12);
	v->s.seg_limit[SS] = STACK - 12;
	start(b);
	assert_false(cpu_deliver_interrupt(v, 0x80, false)); /* no room for any handler */
	v->s.seg_attr[SS] &= (uint16_t)~ATTR_DB;
	v->s.seg_limit[SS] = 0xff;
	cpu_update_mode(v);
	start(b);
	v->s.gpr[RSP] = 0x10002;
	assert_false(cpu_deliver_interrupt(v, 0x80, false));
}

static void test_virtual_8086(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	static const uint16_t selectors[] = {
		[ES] = 0x1111, [CS] = 0x2222, [SS] = 0x3333, [DS] = 0x4444, [FS] = 0x5555, [GS] = 0x6666
	};

	protected_mode(b, 3);
	for (enum seg seg = ES; seg <= GS; seg++) {
		segment(v, seg, selectors[seg], 0);
		v->s.seg_base[seg] = selectors[seg] * 16u;
		v->s.seg_limit[seg] = 0xffff;
		v->s.seg_attr[seg] |= ATTR_DPL;
	}
	v->s.gpr[RSP] = 0x4321;
	cpu_set_rflags(v, FLAG_VM | FLAG_IF | FLAG_IOPL | 2);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->code_mode, MODE_16);
	gate32(b, EXC_GP, CODE0, HANDLER, 14, 0);
	assert_true(fault(b, EXC_GP, true, 0));
	assert_int_equal(v->s.gpr[RSP], RSP0 - 40);
	static const uint32_t frame[] = { 0,	  RIP,	  0x2222, FLAG_VM | FLAG_IF | FLAG_IOPL | FLAG_RF | 2,
					  0x4321, 0x3333, 0x1111, 0x4444,
					  0x5555, 0x6666 };
	for (unsigned n = 0; n < ARRAY_SIZE(frame); n++)
		assert_int_equal(get(b, RSP0 - 40 + 4 * n, 4), frame[n]);
	assert_int_equal(v->s.seg_sel[DS], 0);
	assert_int_equal(v->s.seg_attr[GS], 0);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->code_mode, MODE_32);
	assert_int_equal(v->s.rflags & FLAG_VM, 0);
}

/* ---- real mode ---- */

static void test_real_mode(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	v->s.seg_base[SS] = 0x20000;
	v->s.seg_sel[SS] = 0x2000;
	start(b);
	v->s.gpr[RSP] = 0xabcd0002;
	put(b, 4 * 0x21, 0x12345678, 4);
	assert_true(cpu_deliver_interrupt(v, 0x21, false));
	assert_int_equal(v->s.seg_sel[CS], 0x1234);
	assert_int_equal(v->s.seg_base[CS], 0x12340);
	assert_int_equal(v->s.rip, 0x5678);
	assert_int_equal(v->s.gpr[RSP], 0xabcdfffc); /* SP wraps, the upper half stays */
	assert_int_equal(get(b, 0x20000, 2), FLAG_IF | FLAG_CF | FLAG_ZF | 2);
	assert_int_equal(get(b, 0x2fffe, 2), 0xf000);
	assert_int_equal(get(b, 0x2fffc, 2), RIP);
	assert_int_equal(cpu_rflags(v) & FLAG_IF, 0);

	/* No error codes; a table without entries is a triple fault. */
	v->s.gpr[RSP] = 0x100;
	put(b, 4 * EXC_GP, 0x00010002, 4);
	assert_true(fault(b, EXC_GP, true, 0x55));
	assert_int_equal(v->s.gpr[RSP], 0x100 - 6);
	v->s.idtr_limit = 0;
	assert_false(fault(b, EXC_GP, true, 0x55));
}

/* ---- events ---- */

static void test_interrupts_and_shadow(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 0);
	gate64(b, 0x40, CODE0, HANDLER, 14, 0, 0);
	cpu_set_rflags(v, 2);
	b->interrupt = 0x40;
	vcpu_post(v, EVENT_INTERRUPT);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, RIP);
	assert_int_equal(v->events, 0);
	assert_true(v->interrupt_wanted);

	/* STI: IF rises, the shadow holds for one instruction even if the engine comes and goes in between. */
	cpu_set_rflags(v, FLAG_IF | 2);
	v->s.shadow = SHADOW_STI;
	vcpu_post(v, EVENT_STEP);
	for (unsigned n = 0; n < 3; n++) {
		assert_true(cpu_handle_events(v));
		assert_int_equal(v->s.rip, RIP);
		assert_int_equal(v->events & (EVENT_STEP | EVENT_INTERRUPT), EVENT_STEP | EVENT_INTERRUPT);
	}
	v->s.rip += 2;
	cpu_after_step(v);
	assert_int_equal(v->s.shadow, SHADOW_NONE);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER);
	assert_int_equal(b->interrupts_taken, 1);
	assert_int_equal(get(b, v->s.gpr[RSP], 8), RIP + 2);
	assert_int_equal(v->events, 0);
	assert_int_equal(v->count[COUNT_INTERRUPTS], 1);
	/* A spurious post. */
	cpu_set_rflags(v, FLAG_IF | 2);
	vcpu_post(v, EVENT_INTERRUPT);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER);
}

/* After a load of SS neither debug traps nor NMIs may see half a stack. */
static void test_stack_shadow(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 0);
	gate64(b, EXC_DB, CODE0, HANDLER + EXC_DB, 14, 0, 0);
	gate64(b, EXC_NMI, CODE0, HANDLER + EXC_NMI, 14, 0, 0);
	v->s.shadow = SHADOW_MOV_SS;
	v->s.pending_debug = BIT(0);
	vcpu_post(v, EVENT_STEP | EVENT_NMI);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, RIP);
	cpu_after_step(v);
	assert_true(cpu_handle_events(v));
	/* The trap first; the NMI interrupts its handler. */
	assert_int_equal(v->s.rip, HANDLER + EXC_NMI);
	assert_int_equal(get(b, v->s.gpr[RSP], 8), HANDLER + EXC_DB);
	assert_int_equal(v->s.dr[6] & 0xf, BIT(0));
	/* STI's shadow does not hold NMIs off. */
	start(b);
	v->s.nmi_blocked = 0;
	v->s.shadow = SHADOW_STI;
	vcpu_post(v, EVENT_NMI);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER + EXC_NMI);
}

/* What the processor does instead of the instruction ends its shadow; RF is good for one instruction, breakpoints or not. */
static void test_shadow_of_what_does_not_end(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 0);
	gate64(b, 0x40, CODE0, HANDLER, 14, 0, 0);
	cpu_set_rflags(v, FLAG_IF | 2);
	v->s.shadow = SHADOW_STI;
	v->fault = (struct fault){ .freeze = true };
	assert_true(cpu_deliver_fault(v));
	assert_int_equal(v->s.activity, CPU_HALTED);
	b->interrupt = 0x40;
	vcpu_post(v, EVENT_INTERRUPT);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER);

	v->s.rflags |= FLAG_RF;
	vcpu_post(v, EVENT_STEP);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->events & EVENT_STEP, EVENT_STEP);
	cpu_after_step(v);
	assert_false(v->s.rflags & FLAG_RF);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->events, 0);

	v->s.shadow = SHADOW_STI;
	v->s.idtr_limit = 0;
	assert_false(fault(b, EXC_UD, false, 0));
	assert_int_equal(v->s.activity, CPU_SHUTDOWN);
	assert_int_equal(v->s.shadow, SHADOW_NONE);
}

/* Left in a repetition an interrupt pushes RF; INIT leaves none. */
static void test_repetition_and_init(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	for (unsigned init = 0; init < 2; init++) {
		long_mode(b, 0);
		gate64(b, EXC_NMI, CODE0, HANDLER, 14, 0, 0);
		v->repeating = true;
		if (init) {
			cpu_reset(v, true);
			long_mode(b, 0);
		}
		v->s.nmi_blocked = 0;
		vcpu_post(v, EVENT_NMI);
		assert_true(cpu_handle_events(v));
		assert_int_equal(get(b, v->s.gpr[RSP] + 16, 8) & FLAG_RF, init ? 0 : FLAG_RF);
	}
}

static void test_halt(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 0);
	gate64(b, 0x40, CODE0, HANDLER, 14, 0, 0);
	gate64(b, EXC_NMI, CODE0, HANDLER + 2, 14, 0, 0);
	v->s.activity = CPU_HALTED;
	assert_false(cpu_has_work(v));
	cpu_set_rflags(v, 2);
	b->interrupt = 0x40;
	vcpu_post(v, EVENT_INTERRUPT);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.activity, CPU_HALTED);
	assert_int_equal(v->events, EVENT_HALTED);
	assert_false(cpu_has_work(v));
	vcpu_post(v, EVENT_NMI);
	assert_true(cpu_has_work(v));
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.activity, CPU_RUNNING);
	assert_int_equal(v->s.rip, HANDLER + 2);
	assert_int_equal(v->events, 0);
	/* Another NMI waits for IRET. */
	vcpu_post(v, EVENT_NMI);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->count[COUNT_NMIS], 1);
	v->s.nmi_blocked = 0;
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->count[COUNT_NMIS], 2);
}

/* IRET, when NMIs are blocked; what is due then is looked at. */
static void end_nmi(struct vcpu *v)
{
	cpu_unblock_nmi(v);
	assert_true(v->events);
	assert_true(cpu_handle_events(v));
}

/* Of two that meet one is taken and one is kept; while NMIs are blocked one is kept, whatever comes. */
static void test_nmis_that_meet(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 0);
	gate64(b, EXC_NMI, CODE0, HANDLER, 14, 0, 0);
	for (unsigned n = 0; n < 5; n++)
		vcpu_post(v, EVENT_NMI);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->count[COUNT_NMIS], 1);
	assert_int_equal(v->s.nmi_pending, 1);
	for (unsigned n = 0; n < 5; n++)
		vcpu_post(v, EVENT_NMI);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->count[COUNT_NMIS], 1);
	assert_int_equal(v->s.nmi_pending, 1);
	end_nmi(v);
	assert_int_equal(v->count[COUNT_NMIS], 2);
	assert_int_equal(v->s.nmi_pending, 0);
	cpu_unblock_nmi(v);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->count[COUNT_NMIS], 2);

	/* A load of SS holds back two as well. */
	start(b);
	v->s.shadow = SHADOW_MOV_SS;
	vcpu_post(v, EVENT_NMI);
	assert_true(cpu_handle_events(v));
	vcpu_post(v, EVENT_NMI);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->count[COUNT_NMIS], 2);
	cpu_after_step(v);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->count[COUNT_NMIS], 3);
	end_nmi(v);
	assert_int_equal(v->count[COUNT_NMIS], 4);
}

/* A halted processor of a snapshot cannot be in a shadow: what waits wakes it. */
static void test_halted_in_a_shadow(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 0);
	gate64(b, EXC_DB, CODE0, HANDLER, 14, 0, 0);
	v->s.activity = CPU_HALTED;
	v->s.shadow = SHADOW_MOV_SS;
	v->s.pending_debug = BIT(0);
	assert_true(cpu_has_work(v));
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.activity, CPU_RUNNING);
	assert_int_equal(v->s.rip, HANDLER);
}

static void test_single_step(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 0);
	gate64(b, EXC_DB, CODE0, HANDLER, 14, 0, 0);
	cpu_set_rflags(v, FLAG_TF | 2);
	assert_int_equal(v->events & EVENT_STEP, EVENT_STEP);
	v->s.dr[7] |= BIT(13);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, RIP);
	v->s.rip++;
	cpu_after_step(v);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER);
	assert_int_equal(v->s.dr[6] & BIT(14), BIT(14));
	assert_int_equal(v->s.dr[7] & BIT(13), 0);
	assert_int_equal(get(b, v->s.gpr[RSP], 8), RIP + 1);
	assert_int_equal(get(b, v->s.gpr[RSP] + 16, 8), FLAG_TF | 2); /* a trap: no RF */
	assert_int_equal(v->events, 0);

	/* POPF that sets TF: the trap comes after the next instruction. One that loads SS is passed over. */
	start(b);
	cpu_set_rflags(v, 2);
	vcpu_post(v, EVENT_STEP);
	assert_true(cpu_handle_events(v));
	cpu_set_rflags(v, FLAG_TF | 2);
	cpu_after_step(v);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, RIP);
	v->s.shadow = SHADOW_MOV_SS;
	cpu_after_step(v);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, RIP);
	cpu_after_step(v);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER);

	/* A fault instead of completion: no trap of its own. */
	start(b);
	gate64(b, EXC_UD, CODE0, HANDLER + EXC_UD, 14, 0, 0);
	cpu_set_rflags(v, FLAG_TF | 2);
	assert_true(cpu_handle_events(v));
	assert_true(fault(b, EXC_UD, false, 0));
	cpu_after_step(v);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER + EXC_UD);
}

static void test_breakpoints(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b, 0);
	gate64(b, EXC_DB, CODE0, HANDLER, 14, 0, 0);
	v->s.dr[1] = RIP;
	v->s.dr[7] |= BIT(2);
	v->s.dr[2] = 0x50004;
	v->s.dr[7] |= BIT(5) | 0xdull << 24; /* writes of 4 bytes */
	cpu_update_mode(v);
	assert_int_equal(v->events & EVENT_STEP, EVENT_STEP);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER);
	assert_int_equal(v->s.dr[6] & 0xf, BIT(1));
	assert_int_equal(get(b, v->s.gpr[RSP] + 16, 8) & FLAG_RF, 0);

	/* The handler's IRET with RF passes the breakpoint once. */
	start(b);
	cpu_set_rflags(v, FLAG_RF | 2);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, RIP);
	cpu_after_step(v);
	assert_int_equal(v->s.rflags & FLAG_RF, 0);

	v->s.rip = RIP + 4;
	cpu_load(v, 0x50004, 4, false);
	cpu_store(v, 0x50000, 0, 4, false);
	assert_int_equal(v->s.pending_debug, 0);
	cpu_store(v, 0x50007, 0, 1, false);
	assert_int_equal(v->s.pending_debug, BIT(2));
	cpu_after_step(v);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER);
	assert_int_equal(v->s.dr[6] & 0xf, BIT(2)); /* B1 of the last one is gone */

	/* An instruction that faults after it met one does not trap. */
	start(b);
	v->s.rip = RIP + 4;
	gate64(b, EXC_UD, CODE0, HANDLER + EXC_UD, 14, 0, 0);
	cpu_store(v, 0x50004, 0, 4, false);
	assert_true(fault(b, EXC_UD, false, 0));
	cpu_after_step(v);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER + EXC_UD);

	/* A state that has RF, whatever DR7 says. */
	start(b);
	v->s.dr[7] = 0x400;
	v->s.rflags |= FLAG_RF;
	cpu_update_mode(v);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->events & EVENT_STEP, EVENT_STEP);
	cpu_after_step(v);
	assert_int_equal(v->s.rflags & FLAG_RF, 0);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->events, 0);

	/* Without breakpoints RF has nothing to do. */
	v->s.dr[7] = 0x400;
	cpu_set_rflags(v, FLAG_RF | 2);
	assert_int_equal(v->s.rflags & FLAG_RF, 0);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->events, 0);
}

/* A handler of CPL 3 whose frame is pushed on a stack that is not aligned: the alignment check comes on the way to its own handler. */
static void test_endless_faults(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	protected_mode(b, 3);
	v->s.cr0 |= CR0_AM;
	gate32(b, EXC_AC, CODE_CONFORMING, HANDLER, 14, 0);
	v->s.gpr[RSP] = STACK + 1;
	cpu_set_rflags(v, FLAG_AC | 2);
	cpu_update_mode(v);
	assert_true(fault(b, EXC_AC, true, 0));
	assert_int_equal(v->s.rip, RIP); /* to be begun again */
	assert_int_equal(v->s.gpr[RSP], STACK + 1);
}

/* A task switch that could not load SS leaves none to push on. */
static void test_no_stack_segment(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	protected_mode(b, 0);
	gate32(b, EXC_TS, CODE0, HANDLER, 14, 0);
	v->s.seg_attr[SS] = 0;
	cpu_update_mode(v);
	assert_false(fault(b, EXC_TS, true, 0));
	assert_int_equal(v->s.activity, CPU_SHUTDOWN);
}

/* What comes of delivery itself is looked at before the handler's first instruction. */
static void test_events_of_delivery(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	protected_mode(b, 3);
	gate32(b, 0x21, CODE_CONFORMING, HANDLER, 14, 0);
	gate32(b, EXC_DB, CODE_CONFORMING, HANDLER + EXC_DB, 14, 0);
	v->s.dr[0] = STACK - 4;
	v->s.dr[7] |= BIT(1) | 0xdull << 16; /* writes of 4 bytes */
	cpu_set_rflags(v, FLAG_IF | 2);
	cpu_update_mode(v);
	b->interrupt = 0x21;
	vcpu_post(v, EVENT_INTERRUPT);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, HANDLER + EXC_DB);
	assert_int_equal(get(b, v->s.gpr[RSP], 4), HANDLER);
	assert_int_equal(v->s.dr[6] & 15, 1);
}

static void test_reset_init_sipi(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	assert_int_equal(v->s.rip, 0xfff0);
	assert_int_equal(v->s.seg_base[CS], 0xffff0000);
	assert_int_equal(v->s.gpr[RDX], 0x306c3);
	assert_int_equal(v->s.dr[6], 0xffff0ff0);
	assert_int_equal(v->s.cr0, 0x60000010);
	assert_int_equal(cpu_rflags(v), 2);
	assert_int_equal(v->code_mode, MODE_16);
	assert_int_equal(v->cpl, 0);

	long_mode(b, 3);
	v->index = 1;
	v->s.vec[5] = 77;
	v->s.mxcsr = 0x1f00;
	v->s.fcw = 0x27f;
	v->s.st_mantissa[7] = 66;
	v->s.tsc_offset = 55;
	v->s.mtrr_var[3] = 88;
	v->s.gpr[RAX] = 99;
	v->s.icount = 1000;
	v->sipi_vector = 0x9a;
	vcpu_post(v, EVENT_SIPI); /* not waiting: ignored */
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.rip, RIP);
	vcpu_post(v, EVENT_INIT);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.activity, CPU_WAIT_SIPI);
	assert_int_equal(v->events, EVENT_HALTED);
	assert_int_equal(v->s.vec[5], 77);
	assert_int_equal(v->s.mxcsr, 0x1f00);
	assert_int_equal(v->s.fcw, 0x27f);
	assert_int_equal(v->s.st_mantissa[7], 66);
	assert_int_equal(v->s.tsc_offset, 55);
	assert_int_equal(v->s.mtrr_var[3], 88);
	assert_int_equal(v->s.gpr[RAX], 0);
	assert_int_equal(v->s.efer, 0);
	assert_int_equal(v->s.icount, 1000);
	assert_int_equal(v->s.cr0, 0x10); /* CD and NW are kept: they were clear */
	vcpu_post(v, EVENT_INTERRUPT | EVENT_NMI);
	assert_true(cpu_handle_events(v));
	assert_false(cpu_has_work(v));
	/* Both at once: INIT first. */
	vcpu_post(v, EVENT_INIT | EVENT_SIPI);
	assert_true(cpu_handle_events(v));
	assert_int_equal(v->s.activity, CPU_RUNNING);
	assert_int_equal(v->s.seg_sel[CS], 0x9a00);
	assert_int_equal(v->s.seg_base[CS], 0x9a000);
	assert_int_equal(v->s.rip, 0);
	assert_int_equal(v->events, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bare_cpu_setup, bare_cpu_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_long_same_level),	  TEST(test_long_from_user),	 TEST(test_long_ist),
		TEST(test_long_bad_gates),	  TEST(test_software),		 TEST(test_double_fault),
		TEST(test_triple_fault),	  TEST(test_protected),		 TEST(test_protected_bad_stacks),
		TEST(test_protected_limits),	  TEST(test_virtual_8086),	 TEST(test_real_mode),
		TEST(test_interrupts_and_shadow), TEST(test_stack_shadow),	 TEST(test_halt),
		TEST(test_nmis_that_meet),	  TEST(test_halted_in_a_shadow), TEST(test_single_step),
		TEST(test_breakpoints),		  TEST(test_reset_init_sipi),	 TEST(test_endless_faults),
		TEST(test_no_stack_segment),	  TEST(test_events_of_delivery), TEST(test_shadow_of_what_does_not_end),
		TEST(test_repetition_and_init),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
