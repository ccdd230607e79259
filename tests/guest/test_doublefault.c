/*
 * An exception while another exception or interrupt is delivered, SDM vol. 3A 6.15 and table 6-5: each kind of the first with each
 * kind of the second; double faults through a task gate and in real mode.
 */
#include "legacy.h"

#define ABSENT	       0x8000000000ull /* nothing mapped */
#define IST	       3	       /* the stack that the second exception comes from */
#define INTERRUPT      0x60
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define EXC_XM	       19

enum class { BENIGN, CONTRIBUTORY, PAGE_FAULT };

/* ---- the first ---- */

CODE(divide, "xor %ecx, %ecx; div %ecx")
CODE(int1, ".byte 0xf1")
CODE(int3, "int3")
CODE(undefined, "ud2")
CODE(no_fpu, "mov %cr0, %rax; or $8, %rax; mov %rax, %cr0; fld1")
CODE(absent_segment, "mov %eax, %ds")
CODE(stack_fault, "mov (%rbp), %rax")
CODE(protection, "mov (%rdi), %rax")
CODE(page_fault, "mov (%rsi), %rax")
CODE(x87_error, "fninit; push $0x340; fldcw (%rsp); fld1; fldz; fdivrp; fwait")
CODE(simd_error, "push $0; ldmxcsr (%rsp); xorps %xmm0, %xmm0; divps %xmm0, %xmm0")
CODE(int_n, "int $0x60")
CODE(nops, "nop; nop")
CODE(nmi_xapic, "mov %eax, (%rbx); nop; nop")
CODE(nmi_x2apic, "wrmsr; nop; nop")
CODE(bad_iret, "push $0x18; push $0x1000; push $2; push $0x10; push %rdi; iretq") /* RIP is not canonical */

#define FIRST(_)                                                                                                       \
	_("#DE", EXC_DE, CONTRIBUTORY, true, divide)                                                                   \
	_("INT1", EXC_DB, BENIGN, true, int1)                                                                          \
	_("INT3", EXC_BP, BENIGN, false, int3)                                                                         \
	_("#UD", EXC_UD, BENIGN, true, undefined)                                                                      \
	_("#NM", EXC_NM, BENIGN, true, no_fpu)                                                                         \
	_("#NP", EXC_NP, CONTRIBUTORY, true, absent_segment)                                                           \
	_("#SS", EXC_SS, CONTRIBUTORY, true, stack_fault)                                                              \
	_("#GP", EXC_GP, CONTRIBUTORY, true, protection)                                                               \
	_("#PF", EXC_PF, PAGE_FAULT, true, page_fault)                                                                 \
	_("#MF", EXC_MF, BENIGN, true, x87_error)                                                                      \
	_("#XM", EXC_XM, BENIGN, true, simd_error)                                                                     \
	_("INT n", INTERRUPT, BENIGN, false, int_n)                                                                    \
	_("an interrupt", INTERRUPT, BENIGN, true, nops)                                                               \
	_("#GP of IRET", EXC_GP, CONTRIBUTORY, true, bad_iret)

struct first {
	const char *name;
	u8 vector;
	enum class class;
	bool external; /* error codes on the way have EXT */
	const u8 *code;
};

/* ---- the second: what is wrong with the gate of the first ---- */

static void absent_gate(u8 vector) { idt_gate(vector)->low &= ~BIT(47); }
static void wrong_type(u8 vector) { idt_gate(vector)->low &= ~(15ull << 40); }
static void null_selector(u8 vector) { idt_gate(vector)->low &= ~(0xffffull << 16); }
static void absent_code(u8 vector)
{
	*gdt_entry(GDT_FREE) = descriptor(0, 0xfffff, ATTR_CODE64 & ~0x80);
	idt_gate(vector)->low = (idt_gate(vector)->low & ~(0xffffull << 16)) | (u64)GDT_FREE << 16;
}
static void stack_not_canonical(u8 vector)
{
	tss()->ist[IST - 1] = BIT(47) + 0x1000;
	idt_gate(vector)->low |= (u64)IST << 32;
}
static void stack_absent(u8 vector)
{
	tss()->ist[IST - 1] = ABSENT + 0x1000;
	idt_gate(vector)->low |= (u64)IST << 32;
}

enum error { OF_VECTOR, OF_NOTHING, OF_SELECTOR, OF_PAGE };
#define SECOND(_)                                                                                                      \
	_("#NP of an absent gate", EXC_NP, CONTRIBUTORY, OF_VECTOR, absent_gate)                                       \
	_("#GP of a wrong gate", EXC_GP, CONTRIBUTORY, OF_VECTOR, wrong_type)                                          \
	_("#GP of a null code segment", EXC_GP, CONTRIBUTORY, OF_NOTHING, null_selector)                               \
	_("#NP of an absent code segment", EXC_NP, CONTRIBUTORY, OF_SELECTOR, absent_code)                             \
	_("#SS of a stack", EXC_SS, CONTRIBUTORY, OF_NOTHING, stack_not_canonical)                                     \
	_("#PF of a stack", EXC_PF, PAGE_FAULT, OF_PAGE, stack_absent)

struct second {
	const char *name;
	u8 vector;
	enum class class;
	enum error error;
	void (*arrange)(u8 vector);
};

static u64 error_code(const struct first *first, const struct second *second)
{
	switch (second->error) {
	case OF_VECTOR: return first->vector * 8u + 2 + first->external;
	case OF_SELECTOR: return GDT_FREE + first->external;
	case OF_PAGE: return PF_W;
	default: return first->external;
	}
}

/* Table 6-5. */
static bool becomes_double(enum class first, enum class second)
{
	return first == PAGE_FAULT || (first == CONTRIBUTORY && second == CONTRIBUTORY);
}

static void test_pair(const struct first *first, const struct second *second)
{
	bool to_double = becomes_double(first->class, second->class);
	u64 vector = to_double ? EXC_DF : second->vector, error = to_double ? 0 : error_code(first, second);
	bool interrupt = first->code == nops;
	struct trap t;

	/* The same vector twice: its own handler cannot be told from the broken one. */
	if (first->vector == second->vector && !to_double)
		return;
	*gdt_entry(GDT_FREE + 8) = descriptor(0, 0xfffff, ATTR_DATA32 & ~0x80);
	second->arrange(first->vector);
	if (interrupt)
		apic_ipi(0, ICR_SELF | INTERRUPT);
	t = KERNEL(first->code, .rdi = BIT(47), .rbp = BIT(47), .rsi = ABSENT, .rax = GDT_FREE + 8,
		   .rflags = 2 | (interrupt ? FLAG_IF : 0));
	asm volatile("clts; fninit");
	reset_gate(first->vector);
	if (interrupt)
		apic_eoi();
	check_fault(&t, vector, error, "3A table 6-5: %s, then %s: %s", first->name, second->name,
		    to_double ? "#DF" : "the second");
	if (!to_double && second->class == PAGE_FAULT)
		check_equal(t.cr2 & ~0xfffull, ABSENT, "3A 6.15: with CR2 of the second");
}

static void test_pairs(void)
{
#define _(...) { __VA_ARGS__ },
	static const struct first firsts[] = { FIRST(_) };
	static const struct second seconds[] = { SECOND(_) };
#undef _

	for (unsigned n = 0; n < ARRAY_SIZE(firsts); n++)
		for (unsigned m = 0; m < ARRAY_SIZE(seconds); m++)
			test_pair(&firsts[n], &seconds[m]);
}

/* ---- what a double fault leaves ---- */

static unsigned nmis;
static void count_nmi(struct frame *f)
{
	(void)f;
	nmis++;
}

static void test_state(void)
{
	struct trap t;

	absent_gate(EXC_GP);
	t = KERNEL(protection, .rdi = BIT(47), .rax = 0x1234, .rflags = 2 | FLAG_CF | FLAG_DF);
	check(t.vector == EXC_DF && t.rax == 0x1234 && t.rip == (u64)protection &&
		      (t.rflags & ~(u64)FLAG_RF) == (2 | FLAG_CF | FLAG_DF),
	      "3A 6.15: the state saved is that of the first fault");
	reset_gate(EXC_GP);

	/* An NMI whose delivery faults: NMIs are blocked all the same, until an IRET. */
	absent_gate(EXC_NMI);
	set_handler(EXC_NMI, count_nmi);
	t = KERNEL(read_msr(MSR_APIC_BASE) & BIT(10) ? nmi_x2apic : nmi_xapic, .rax = ICR_NMI, /* to APIC 0, this one */
		   .rbx = 0xfee00300, .rcx = MSR_X2APIC + APIC_ICR);
	check_fault(&t, EXC_NP, EXC_NMI * 8 + 3, "3A 6.13: #NP while an NMI is delivered: EXT");
	reset_gate(EXC_NMI);
	apic_ipi(0, ICR_NMI);
	check(!nmis, "3A 6.7.1: and NMIs are blocked from then on");
	KERNEL(nops);
	check_equal(nmis, 1, "3A 6.7.1: until the next IRET");
	set_handler(EXC_NMI, NULL);
}

/* ---- through a task gate ---- */

#define DF_TSS (LEGACY_FREE + 0)
static struct tss_32 df_tss;
static u8 df_stack[256] __attribute__((aligned(16)));

CODE32(df_task, "pop %eax; mov %cr0, %ebx; str %cx; pushf; pop %edx")
CODE32(end_32, "nop")
CODE32(divide_32, "mov $0x77, %esi; xor %ecx, %ecx\n" LABEL(divide_32_at) "div %ecx")
extern const u8 divide_32_at[];

static void make_df_task(void)
{
	memset(&df_tss, 0, sizeof(df_tss));
	df_tss.cs = KERNEL_CS32;
	df_tss.ss = df_tss.ds = df_tss.es = df_tss.fs = df_tss.gs = KERNEL_DS;
	df_tss.esp = LOW32(df_stack + sizeof(df_stack));
	df_tss.eip = LOW32(df_task);
	df_tss.eflags = 2;
	df_tss.io_map = sizeof(df_tss);
	*legacy_descriptor(DF_TSS) = descriptor(LOW32(&df_tss), sizeof(df_tss) - 1, 0x89);
	*legacy_gate(EXC_DF) = legacy_gate_to(DF_TSS, 0, 0x85, 0);
}

static void test_task_gate(void)
{
	struct legacy_trap t;

	make_df_task();
	legacy_reset_tss();
	*legacy_gate(EXC_DE) &= ~BIT(47);
	t = RING0_32(divide_32);
	check(t.vector == END_VECTOR && t.ecx == DF_TSS, "3A 6.15: a double fault by a task gate");
	check_equal(t.eax, 0, "3A 7.3: its error code, 0, is on the new task's stack");
	check(df_tss.link == LEGACY_TSS && (t.edx & FLAG_NT) && (t.ebx & CR0_TS),
	      "3A 7.3: a nested task: back link, NT, CR0.TS");
	check(legacy_tss.eip == LOW32(divide_32_at) && legacy_tss.esi == 0x77 && legacy_tss.cs == KERNEL_CS32,
	      "3A 7.3: the interrupted task is in its TSS");
	legacy_reset_gate(EXC_DE);

	/* In 32-bit code, with a stack of ring 0 that is not there: #TS or #SS while a fault of ring 3 is delivered. */
	make_df_task();
	legacy_reset_tss();
	legacy_tss.stack[0].ss = 0;
	t = RING3_32(divide_32);
	check(t.vector == END_VECTOR && t.ecx == DF_TSS && legacy_tss.cs == USER_CS32,
	      "3A table 6-5: #DE, then #TS of a null stack: #DF");
	legacy_reset_tss();
	legacy_reset_gate(EXC_DF);
	legacy_tss.stack[0].ss = 0;
	*legacy_gate(EXC_TS) = legacy_gate_to(DF_TSS, 0, 0x85, 0);
	make_df_task();
	legacy_reset_gate(EXC_DF);
	t = RING3_32(end_32);
	check(t.vector == END_VECTOR && t.ecx == DF_TSS && (t.eax & ~1u) == 0,
	      "3A table 6-5: INT n, then #TS of a null stack: #TS, by a task gate");
	legacy_reset_gate(EXC_TS);
	legacy_reset_tss();
}

/* ---- real mode ---- */

CODE_LOW(real_int, "lidt (%di); int $0x30")
CODE_LOW(real_divide, "xor %cx, %cx; div %cx")

/* INT 0x30 with so many vectors in the table. */
static struct legacy_trap int_30(u16 vectors)
{
	u16 limit = 4 * vectors - 1;

	memset(low_data(0), 0, 8);
	memcpy(low_data(0), &limit, 2);
	return legacy_run(&(struct legacy_state){ LEGACY_REAL, .eip = place_code(real_int) });
}

static void test_real(void)
{
	struct legacy_trap t = int_30(EXC_GP + 1);

	check(t.vector == EXC_GP && t.eip == 3 && t.cs == LOW_CODE >> 4,
	      "3A 20.1.4: real mode: INT beyond the table's limit: #GP without an error code");
	t = int_30(EXC_DF + 1);
	check(t.vector == EXC_DF && t.eip == 3, "3A 20.1.4: with #GP beyond it as well: #DF");
	t = legacy_run(&(struct legacy_state){ LEGACY_REAL, .eip = place_code(real_divide) });
	check(t.vector == EXC_DE && t.eip == 2, "3A 20.1.4: #DE, at the DIV");
}

void guest(void)
{
	apic_init();
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	test_pairs();
	test_state();
	test_task_gate();
	test_real();
}
