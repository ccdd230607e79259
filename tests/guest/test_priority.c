/*
 * What comes first when several things happen at one instruction boundary or in one instruction, SDM vol. 3A table 6-2; what RF
 * and the shadow of MOV SS take out of that order, SDM vol. 3A 6.8.3 and 3B 17.3.1.1.
 */
#include "guest.h"

#define A	   0x60
#define B	   0x70
#define ABSENT	   0x8000000000ull /* nothing mapped */
#define BAD	   BIT(47)	   /* not canonical */
#define CR4_OSFXSR BIT(9)
#define DR6_NONE   0xffff0ff0
#define DR6_BS	   BIT(14)
#define DR6_BD	   BIT(13)
#define DR7_NONE   0x400
#define DR7_GD	   BIT(13)

/* ---- boundaries: what was taken, in order ---- */

static struct {
	u8 vector;
	u64 rip, dr6;
} log[8];
static unsigned logged;
static u32 watched __attribute__((aligned(4)));

static void note(struct frame *f)
{
	if (logged < ARRAY_SIZE(log)) {
		log[logged].vector = (u8)f->vector;
		log[logged].rip = f->rip;
		log[logged].dr6 = read_dr6();
	}
	logged++;
	write_dr6(DR6_NONE);
	if (f->vector >= 32)
		apic_eoi();
}

/* A code breakpoint's handler sets RF; all end single steps. */
static void note_and_resume(struct frame *f)
{
	bool code = read_dr6() & 1;

	note(f);
	f->rflags = (f->rflags & ~(u64)FLAG_TF) | (code ? FLAG_RF : 0);
}

static void watch(bool on)
{
	logged = 0;
	write_dr6(DR6_NONE);
	set_handler(EXC_DB, on ? note_and_resume : NULL);
	set_handler(EXC_NMI, on ? note : NULL);
	set_handler(A, on ? note : NULL);
	set_handler(B, on ? note : NULL);
}

static bool order(u8 first, u8 second, u8 third)
{
	const u8 wanted[] = { first, second, third };
	bool good = true;
	unsigned n = 0;

	for (; n < 3 && wanted[n]; n++)
		good &= logged > n && log[n].vector == wanted[n];
	good &= logged == n;
	for (unsigned k = 0; !good && k < logged && k < ARRAY_SIZE(log); k++)
		print("# taken: vector %u at 0x%lx, DR6 0x%lx\n", log[k].vector, log[k].rip, log[k].dr6);
	return good;
}

static void execute_breakpoint(u64 at)
{
	write_dr0(at);
	write_dr7(DR7_NONE | 1);
}

static void no_breakpoints(void)
{
	write_dr7(DR7_NONE);
	write_dr6(DR6_NONE);
}

/* ---- classes 4 to 7: traps, NMI, interrupts, code breakpoints ---- */

CODE(nmi_xapic, "mov %eax, (%rbx)\n" LABEL(nmi_xapic_after) "nop; nop")
CODE(nmi_x2apic, "wrmsr\n" LABEL(nmi_x2apic_after) "nop; nop")
CODE(lower_priority, "mov %rax, %cr8\n" LABEL(lower_priority_after) "nop; nop")
CODE(nops, "nop\n" LABEL(nops_2) "nop; nop")
CODE(to_there, "jmp *%rdi")
CODE(store, "mov %eax, (%rdi)\n" LABEL(store_after) "nop; nop")
extern const u8 nmi_xapic_after[], nmi_x2apic_after[], lower_priority_after[], nops_2[], store_after[];

/* Sends an NMI to this CPU, with other things due behind the same instruction. */
static u64 send_nmi(u64 rflags, bool breakpoint)
{
	bool x2apic = read_msr(MSR_APIC_BASE) & BIT(10);
	u64 after = (u64)(x2apic ? nmi_x2apic_after : nmi_xapic_after);

	if (breakpoint)
		execute_breakpoint(after);
	KERNEL(x2apic ? nmi_x2apic : nmi_xapic, .rax = ICR_NMI, .rbx = 0xfee00300, .rcx = MSR_X2APIC + APIC_ICR,
	       .rflags = rflags);
	no_breakpoints();
	return after;
}

/* In a handler of an NMI: another one and an interrupt wait for its IRET. */
static void nmi_and_interrupt(struct frame *f)
{
	(void)f;
	set_handler(EXC_NMI, note);
	apic_ipi(0, ICR_SELF | A);
	apic_ipi(0, ICR_NMI);
}

static u64 stub_of(u8 vector)
{
	const struct gate *g = idt_gate(vector);

	return (g->low & 0xffff) | (g->low >> 48 << 16) | g->high << 32;
}

static void test_boundaries(void)
{
	u64 after;

	watch(true);
	after = send_nmi(2 | FLAG_TF, false);
	check(order(EXC_NMI, EXC_DB, 0) && log[1].rip == after && log[0].rip == stub_of(EXC_DB),
	      "3A table 6-2: class 4, the trap on the previous instruction, then class 5, an NMI, before its handler "
	      "begins");
	watch(true);
	set_handler(EXC_NMI, nmi_and_interrupt);
	after = send_nmi(2 | FLAG_IF, false);
	check(order(EXC_NMI, A, 0), "3A table 6-2: class 5, NMI, before class 6, interrupts");
	watch(true);
	after = send_nmi(2, true);
	check(order(EXC_NMI, EXC_DB, 0) && log[1].rip == after,
	      "3A table 6-2: class 5, NMI, before class 7, code breakpoints");
	watch(true);
	write_cr8(15);
	apic_ipi(0, ICR_SELF | A);
	execute_breakpoint((u64)lower_priority_after);
	KERNEL(lower_priority, .rax = 0, .rflags = 2 | FLAG_IF);
	no_breakpoints();
	check(order(A, EXC_DB, 0) && log[1].rip == (u64)lower_priority_after,
	      "3A table 6-2: class 6, an interrupt, before class 7, a code breakpoint");
	watch(true);
	write_cr8(15);
	apic_ipi(0, ICR_SELF | A);
	KERNEL(lower_priority, .rax = 0, .rflags = 2 | FLAG_IF | FLAG_TF);
	check(order(EXC_DB, A, 0), "3A table 6-2: class 4, a single step, before class 6");
	watch(true);
	write_dr0((u64)nops_2);
	write_dr7(DR7_NONE | 1);
	KERNEL(nops, .rflags = 2 | FLAG_TF);
	check(order(EXC_DB, EXC_DB, 0) && log[0].dr6 == (DR6_NONE | DR6_BS) && log[1].dr6 == (DR6_NONE | 1) &&
		      log[0].rip == log[1].rip,
	      "3A table 6-2: class 4, a single step, before class 7, a code breakpoint");
	watch(true);
	execute_breakpoint((u64)store_after);
	write_dr1((u64)&watched);
	write_dr7(read_dr7() | 1 << 2 | 0xdull << 20);
	KERNEL(store, .rdi = (u64)&watched);
	check(order(EXC_DB, EXC_DB, 0) && log[0].dr6 == (DR6_NONE | 2) && log[1].dr6 == (DR6_NONE | 1),
	      "3A table 6-2: likewise a data breakpoint");
	no_breakpoints();
	watch(false);
}

/* ---- classes 7 to 10: one instruction ---- */

CODE(load, "mov (%rdi), %rax")
CODE(fld, "fldl (%rdi)")
CODE(pending_fld, "fninit; push $0x340; fldcw (%rsp); fld1; fldz; fdivrp; fldl (%rdi)")
CODE(movaps, "movaps (%rdi), %xmm0")
CODE(undefined_sse, ".byte 0xf0, 0x0f, 0x10, 0x07") /* LOCK MOVUPS */
CODE(lock_hlt, ".byte 0xf0, 0xf4")
CODE(long_hlt, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0xf4")
CODE(mov_cr1, ".byte 0x0f, 0x20, 0xc8")
CODE(mov_dr4, "mov %db4, %rax")
CODE(mov_dr0, "mov %db0, %rax")
CODE(divide_there, "xor %eax, %eax; xor %edx, %edx; divl (%rdi)")
CODE(xsetbv_3, "mov $1, %ecx; xsetbv")
CODE(out_absent, "outsb")
CODE(movs_both, "movsb")
CODE(cmpxchg16b, "cmpxchg16b (%rdi)")

struct contest {
	const char *name;
	const u8 *code;
	u64 rdi;
	u64 cr0, cr4; /* set in addition */
	u8 vector;
	bool user;
};

static void test_instruction(void)
{
	static const struct contest rows[] = {
		{ "#UD of LOCK before #NM of the unit", undefined_sse, 0, CR0_TS, 0, EXC_UD, false },
		{ "#UD of LOCK before #GP of HLT in ring 3", lock_hlt, 0, 0, 0, EXC_UD, true },
		{ "#GP of 16 bytes before #GP of HLT in ring 3", long_hlt, 0, 0, 0, EXC_GP, true },
		{ "#UD of CR1 before the privilege check", mov_cr1, 0, 0, 0, EXC_UD, true },
		{ "#GP of ring 3 before #UD of DR4 with CR4.DE, as on AMD's", mov_dr4, 0, 0, CR4_DE, EXC_GP, true },
		{ "#NM before #GP of the operand", fld, BAD, CR0_TS, 0, EXC_NM, false },
		{ "#NM before #PF of the operand", fld, ABSENT, CR0_TS, 0, EXC_NM, false },
		{ "#MF before #PF of the operand", pending_fld, ABSENT, 0, 0, EXC_MF, false },
		{ "#MF before #GP of the operand", pending_fld, BAD, 0, 0, EXC_MF, false },
		{ "#GP of a misaligned operand before its #PF", movaps, ABSENT + 8, 0, 0, EXC_GP, false },
		{ "#GP of CMPXCHG16B's alignment before its #PF", cmpxchg16b, ABSENT + 8, 0, 0, EXC_GP, false },
		{ "#PF of the divisor before #DE", divide_there, ABSENT, 0, 0, EXC_PF, false },
		{ "#GP of MOVSB's source before #PF of its destination", movs_both, ABSENT, 0, 0, EXC_GP, false },
		{ "#GP of OUTSB's port before the operand's #PF", out_absent, 0, 0, 0, EXC_GP, true },
	};
	u64 cr0 = read_cr0(), cr4 = read_cr4();

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		const struct contest *c = &rows[n];
		struct trap t;

		if (c->code == cmpxchg16b && !has_cx16())
			continue;
		write_cr0(cr0 | c->cr0);
		write_cr4(cr4 | c->cr4);
		t = c->user ? USER_MODE(c->code, .rdi = c->rdi, .rsi = ABSENT, .rdx = 0x80)
			    : KERNEL(c->code, .rdi = c->rdi, .rsi = BAD);
		write_cr0(cr0);
		write_cr4(cr4);
		asm volatile("fninit");
		if (!check(t.vector == c->vector, "3A table 6-2: %s", c->name))
			print("# vector %lu error 0x%lx\n", t.vector, t.error);
	}
}

/* While DR7.GD is set not even the library can read DR6: the snippets end by its #DB. */
static u64 skipped;
static void note_and_skip(struct frame *f)
{
	skipped = f->vector;
	f->rip += 3; /* a MOV of a debug register */
}

static void test_fetch(void)
{
	struct trap t;

	execute_breakpoint(ABSENT);
	t = KERNEL(to_there, .rdi = ABSENT);
	check(t.vector == EXC_DB && t.rip == ABSENT,
	      "3A table 6-2: class 7, a code breakpoint, before class 8, #PF of the fetch");
	t = KERNEL(to_there, .rdi = BAD);
	check(t.vector == EXC_GP && t.rip == (u64)to_there,
	      "2 JMP: an address that is not canonical is the jump's #GP");
	no_breakpoints();

	set_handler(EXC_GP, note_and_skip);
	set_handler(EXC_UD, note_and_skip);
	skipped = 0;
	write_dr7(DR7_NONE | DR7_GD);
	USER_MODE(mov_dr0);
	check_equal(skipped, EXC_GP, "3B 17.2.4: general detect comes behind the privilege check");
	write_dr7(DR7_NONE | DR7_GD);
	write_cr4(read_cr4() | CR4_DE);
	KERNEL(mov_dr4);
	check_equal(skipped, EXC_UD, "3B 17.2.2: and behind #UD of DR4");
	write_cr4(read_cr4() & ~CR4_DE);
	set_handler(EXC_GP, NULL);
	set_handler(EXC_UD, NULL);
	write_dr7(DR7_NONE | DR7_GD);
	t = KERNEL(mov_dr4);
	check(t.vector == EXC_DB && (t.dr6 & DR6_BD) && t.rip == (u64)mov_dr4,
	      "3B 17.2.4: DR4, which is DR6, is guarded as well");
	no_breakpoints();
}

/* ---- the shadow of MOV SS, SDM vol. 3A 6.8.3 ---- */

CODE(ss_nop, "mov (%rsi), %ss\n" LABEL(ss_nop_1) "nop\n" LABEL(ss_nop_2) "nop; nop")
CODE(ss_int, "mov (%rsi), %ss; int $0x50; nop")
CODE(ss_fault, "mov (%rsi), %ss\n" LABEL(ss_fault_at) "mov (%rdi), %rax")
CODE(ss_register, "mov %ecx, %ss; nop\n" LABEL(ss_register_2) "nop")
extern const u8 ss_nop_1[], ss_nop_2[], ss_fault_at[], ss_register_2[];

static u32 selector __attribute__((aligned(4))) = KERNEL_DS;
static u64 seen_in_50;
static void on_50(struct frame *f) { seen_in_50 = f->rip; }

static void test_shadow(void)
{
	struct trap t;

	write_dr1((u64)&selector);
	write_dr7(DR7_NONE | 1 << 2 | 0xfull << 20); /* 4 bytes, reads and writes */
	t = KERNEL(ss_nop, .rsi = (u64)&selector);
	check(t.vector == EXC_DB && t.rip == (u64)ss_nop_2 && (t.dr6 & 2),
	      "3A 6.8.3: a data breakpoint of MOV SS strikes behind the next instruction");
	set_handler(0x50, on_50);
	write_dr6(DR6_NONE);
	t = KERNEL(ss_int, .rsi = (u64)&selector);
	check(t.vector == EXC_DB && (t.dr6 & 2) && t.cs == KERNEL_CS && t.rip != (u64)ss_int + 4,
	      "3A 6.8.3: if that is INT n, in its handler");
	set_handler(0x50, NULL);
	write_dr6(DR6_NONE);
	t = KERNEL(ss_fault, .rsi = (u64)&selector, .rdi = ABSENT);
	check(t.vector == EXC_PF && t.rip == (u64)ss_fault_at, "3A 6.8.3: if that faults, the fault comes");
	no_breakpoints();

	execute_breakpoint((u64)ss_register_2);
	t = KERNEL(ss_register, .rcx = KERNEL_DS);
	check(t.vector == EXC_DB && t.rip == (u64)ss_register_2,
	      "3B 17.3.1.1: a code breakpoint behind the shadow of MOV SS strikes");
	no_breakpoints();
	watch(true);
	t = KERNEL(ss_register, .rcx = KERNEL_DS, .rflags = 2 | FLAG_TF);
	check(order(EXC_DB, 0, 0) && log[0].rip == (u64)ss_register_2, "3A 6.8.3: no single step behind MOV SS either");
	watch(false);
}

/* ---- RF, SDM vol. 3B 17.3.1.1 ---- */

CODE(popf_rf, "pushf; orl $0x10000, (%rsp); popf; pushf; pop %rax")
CODE(iret_rf,
     "mov %ss, %eax; mov %rsp, %rbx; push %rax; push %rbx; push %rcx; mov %cs, %eax; push %rax; push %rdi; iretq")
CODE(pushf_there, LABEL(pushf_there_at) "pushf; pop %rax")
CODE(int3, "int3")
CODE(int1, ".byte 0xf1")
CODE(undefined, "ud2")
CODE(divide, "xor %ecx, %ecx; div %ecx")
CODE(hlt, "hlt; nop")
extern const u8 pushf_there_at[];

static void test_resume(void)
{
	static const struct {
		const char *name;
		const u8 *code;
		u64 vector;
		bool user, rf;
	} rows[] = {
		{ "#UD", undefined, EXC_UD, false, true }, { "#DE", divide, EXC_DE, false, true },
		{ "#GP", hlt, EXC_GP, true, true },	   { "INT3", int3, EXC_BP, false, false },
		{ "INT1", int1, EXC_DB, false, false },
	};
	struct trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		t = rows[n].user ? USER_MODE(rows[n].code) : KERNEL(rows[n].code);
		check(t.vector == rows[n].vector && !(t.rflags & FLAG_RF) == !rows[n].rf,
		      "3B 17.3.1.1: %s pushes RF %s", rows[n].name, rows[n].rf ? "set" : "clear");
	}
	t = KERNEL(load, .rdi = ABSENT);
	check(t.vector == EXC_PF && (t.rflags & FLAG_RF), "3B 17.3.1.1: #PF pushes RF set");
	t = KERNEL(nops, .rflags = 2 | FLAG_TF);
	check(t.vector == EXC_DB && !(t.rflags & FLAG_RF), "3B 17.3.1.1: a single step pushes RF clear");
	t = KERNEL(popf_rf);
	check(t.vector == END_VECTOR && !(t.rax & FLAG_RF), "2 POPF: does not set RF; PUSHF pushes it clear");
	execute_breakpoint((u64)pushf_there_at);
	t = KERNEL(iret_rf, .rdi = (u64)pushf_there, .rcx = 2 | FLAG_RF);
	check(t.vector == END_VECTOR && !(t.rax & FLAG_RF), "2 PUSHF: RF that IRET loaded is pushed clear");
	t = KERNEL(iret_rf, .rdi = (u64)pushf_there, .rcx = 2);
	check(t.vector == EXC_DB && t.rip == (u64)pushf_there_at, "2 IRET: without RF its target's breakpoint strikes");
	no_breakpoints();
}

void guest(void)
{
	apic_init();
	write_cr4(read_cr4() | CR4_OSFXSR);
	test_boundaries();
	test_instruction();
	test_fetch();
	test_shadow();
	test_resume();
}
