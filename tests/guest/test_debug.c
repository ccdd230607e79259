/*
 * Debug exceptions, SDM vol. 3B chapter 17: single steps, breakpoints on instructions and data, the debug registers.
 */
#include "guest.h"

#define DR6_NONE 0xffff0ff0ull
#define DR6_BS	 BIT(14)
#define DR6_BD	 BIT(13)
#define DR7_NONE 0x400ull
#define DR7_GD	 BIT(13)
#define T	 0x8000000000ull /* nothing mapped */
#define B	 0x70

enum { EXECUTE, WRITE, PORT, ACCESS };

static u64 dr7_of(unsigned n, unsigned kind, unsigned length)
{
	static const u8 codes[9] = { [1] = 0, [2] = 1, [4] = 3, [8] = 2 };

	return BIT(2 * n) | (u64)kind << (16 + 4 * n) | (u64)codes[length] << (18 + 4 * n);
}

static void no_breakpoints(void)
{
	write_dr7(DR7_NONE);
	write_dr6(DR6_NONE);
}

/* ---- a handler that writes down where it stepped ---- */

#define STEPS 64
static struct {
	u64 rip, dr6, rflags, rcx;
} steps[STEPS];
static unsigned step_count;

static void note_step(struct frame *f)
{
	if (step_count < STEPS) {
		steps[step_count].rip = f->rip;
		steps[step_count].dr6 = read_dr6();
		steps[step_count].rflags = f->rflags;
		steps[step_count].rcx = f->rcx;
	}
	step_count++;
	write_dr6(DR6_NONE);
	if (step_count > 200)
		f->rflags &= ~FLAG_TF;
}

/* Steps were at `base` plus these offsets, up to -1, and then somewhere else (the library's INT). All were BS alone. */
static bool stepped(const u8 *base, const int *offsets)
{
	unsigned n = 0;
	bool good = true;

	for (; offsets[n] >= 0; n++)
		good &= n < step_count && steps[n].rip == (u64)base + (unsigned)offsets[n] &&
			steps[n].dr6 == (DR6_NONE | DR6_BS);
	good &= step_count == n;
	for (unsigned i = 0; !good && i < step_count && i < STEPS; i++)
		print("# step %u: RIP 0x%lx (%d from the start), DR6 0x%lx\n", i, steps[i].rip,
		      (int)(steps[i].rip - (u64)base), steps[i].dr6);
	return good;
}
#define AT(...) ((const int[]){ __VA_ARGS__, -1 })

static struct trap step(const u8 *code, u64 rdi, u64 rcx)
{
	struct trap t;

	step_count = 0;
	write_dr6(DR6_NONE);
	set_handler(EXC_DB, note_step);
	t = KERNEL(code, .rflags = 2 | FLAG_TF, .rdi = rdi, .rcx = rcx, .rsi = rdi, .rdx = KERNEL_DS);
	set_handler(EXC_DB, NULL);
	return t;
}

/* ---- single steps ---- */

CODE(nops, "nop; nop; nop")
CODE(popf_off, "pushq $2; popf; nop; nop")
CODE(popf_on, "pushq $0x102; popf; nop; pushq $2; popf; nop")
CODE(mov_ss, "mov %edx, %ss; nop; nop")
CODE(rep_stosb, "rep stosb; nop")
CODE(rep_none, "rep stosb; nop")
CODE(jump_back, "jmp 1f; nop; 1: nop; call 2f; nop; int $0x40; 2: ret")
CODE(step_int, "int $0x50; nop; nop")
CODE(step_hlt, "hlt; nop")
CODE(step_iret, "mov %ss, %rax; mov %rsp, %rbx; push %rax; push %rbx; pushf; push $0x10; lea 1f(%rip), %rax; push "
		"%rax; iretq; nop; 1: nop; nop")
CODE(step_fault, "nop; mov (%rdi), %rax; nop")
CODE(step_cpuid, "cpuid; wrmsr; nop")
CODE(step_int3, "nop; int3; nop")
CODE(pushf_tf, "pushf; pop %rax")
CODE(do_syscall, "syscall\n" LABEL(after_syscall) "nop; nop")
CODE(syscall_target, "nop; nop")
CODE(sysret_tf, "sysretq")
extern const u8 after_syscall[];

static void do_nothing(struct frame *f) { (void)f; }

static void map_and_go_on(struct frame *f)
{
	(void)f;
	map_page(T, (u64)frame_alloc(), PTE_P | PTE_W);
}

static void test_steps(void)
{
	static u8 buffer[16];
	struct trap t;

	t = KERNEL(nops, .rflags = 2 | FLAG_TF);
	check(t.vector == EXC_DB && t.rip == (u64)nops + 1 && t.dr6 == (DR6_NONE | DR6_BS),
	      "3B 17.3.1.4: TF that IRET loads traps after the next instruction, with BS");
	check((t.rflags & (FLAG_TF | FLAG_RF)) == FLAG_TF, "3B 17.3.1.4: pushed flags have TF, not RF");
	t = USER_MODE(nops, .rflags = 2 | FLAG_TF);
	check(t.vector == EXC_DB && t.rip == USER(nops) + 1 && t.cs == USER_CS, "3B 17.3.1.4: in ring 3");
	t = step(nops, 0, 0);
	check(t.vector == END_VECTOR && stepped(nops, AT(1, 2, 3)), "3B 17.3.1.4: every instruction, and not INT");
	t = step(popf_off, 0, 0);
	check(stepped(popf_off, AT(2, 3)), "3B 17.3.1.4: after the POPF that clears TF once more");
	step_count = 0;
	set_handler(EXC_DB, note_step);
	write_dr6(DR6_NONE);
	t = KERNEL(popf_on);
	check(stepped(popf_on, AT(7, 9, 10)), "3B 17.3.1.4: not after the POPF that sets it, but from the next on");
	t = step(mov_ss, 0, 0);
	check(stepped(mov_ss, AT(3, 4)), "3B 17.3.1.4: not after a load of SS");
	t = step(jump_back, 0, 0);
	check(t.vector == END_VECTOR && step_count == 5 && steps[0].rip == (u64)jump_back + 3 &&
		      steps[2].rip == (u64)jump_back + 12 && steps[3].rip == (u64)jump_back + 9,
	      "3B 17.3.1.4: over jumps, calls and returns");
	t = step(rep_stosb, (u64)buffer, 4);
	check(stepped(rep_stosb, AT(0, 0, 0, 2, 3)), "3B 17.3.1.4: after each iteration of REP STOSB");
	check((steps[0].rflags & FLAG_RF) && !(steps[3].rflags & FLAG_RF),
	      "3B 17.3.1.1: with RF pushed but for the last");
	check(steps[0].rcx == 3 && steps[2].rcx == 1 && steps[3].rcx == 0, "3B 17.3.1.4: and registers up to date");
	t = step(rep_none, (u64)buffer, 0);
	check(stepped(rep_none, AT(2, 3)), "3B 17.3.1.4: once for a count of 0");
	set_handler(0x50, do_nothing);
	t = step(step_int, 0, 0);
	check(stepped(step_int, AT(3, 4)), "3B 17.3.1.4: INT clears TF: no trap before its IRET's next instruction");
	set_handler(0x50, NULL);
	t = step(step_iret, 0, 0);
	check(t.vector == END_VECTOR && stepped(step_iret, AT(2, 5, 6, 7, 8, 10, 17, 18, 21, 22, 23)),
	      "3B 17.3.1.4: over IRET");
	t = step(step_hlt, 0, 0);
	check(t.vector == END_VECTOR && stepped(step_hlt, AT(1, 2)), "2 HLT: a debug trap wakes it");
	set_handler(EXC_PF, map_and_go_on);
	t = step(step_fault, T, 0);
	check(t.vector == END_VECTOR && stepped(step_fault, AT(1, 4, 5)),
	      "3B 17.3.1.4: a fault is no step, its instruction run again is");
	set_handler(EXC_PF, NULL);
	unmap_page(T);
	t = step(step_int3, 0, 0);
	check(t.vector == EXC_BP && stepped(step_int3, AT(1)), "3B 17.3.2: INT3 is no step");
	t = step(step_cpuid, 0, MSR_LSTAR);
	check(step_count >= 1 && steps[0].rip == (u64)step_cpuid + 2, "3B 17.3.1.4: CPUID");
	t = step(pushf_tf, 0, 0);
	check(t.rax & FLAG_TF, "2 PUSHF: TF is seen");
}

static void test_step_syscall(void)
{
	struct trap t;

	write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_SCE);
	write_msr(MSR_STAR, (u64)KERNEL_CS << 32 | (u64)USER_CS32 << 48);
	write_msr(MSR_LSTAR, (u64)syscall_target);
	write_msr(MSR_FMASK, FLAG_TF);
	t = USER_MODE(do_syscall, .rflags = 2 | FLAG_TF);
	check(t.vector == END_VECTOR && (t.r11 & FLAG_TF) && !(t.rflags & FLAG_TF),
	      "2 SYSCALL: with TF in FMASK there is no trap");
	write_msr(MSR_FMASK, 0);
	t = USER_MODE(do_syscall, .rflags = 2 | FLAG_TF);
	check(t.vector == EXC_DB && t.rip == (u64)syscall_target && t.cs == KERNEL_CS,
	      "2 SYSCALL: without, it is at LSTAR");
	t = KERNEL(sysret_tf, .rcx = USER(nops), .r11 = 2 | FLAG_TF, .rsp = user_stack());
	check(t.vector == EXC_DB && t.rip == USER(nops) && t.cs == USER_CS,
	      "2 SYSRET: TF in R11 traps before the next instruction");
	write_msr(MSR_EFER, read_msr(MSR_EFER) & ~EFER_SCE);
}

/* A trap comes before an interrupt that waits at the same boundary (3A 6.9). */
CODE(sti_two, "sti; nop; nop")
CODE(cr8_down, "mov %rax, %cr8\n" LABEL(cr8_down_after) "nop; nop")
extern const u8 cr8_down_after[];

static void test_step_and_interrupt(void)
{
	struct trap t;

	apic_ipi(0, ICR_SELF | B);
	t = KERNEL(sti_two, .rflags = 2 | FLAG_TF);
	check(t.vector == EXC_DB && t.rip == (u64)sti_two + 1, "3A 6.9: TF traps in the shadow of STI");
	t = KERNEL(nops, .rflags = 2 | FLAG_IF);
	check(t.vector == B, "3A 6.9: the interrupt still waits");
	apic_eoi();
	set_handler(EXC_DB, note_step);
	step_count = 0;
	write_dr6(DR6_NONE);
	apic_ipi(0, ICR_SELF | B);
	write_cr8(15);
	t = KERNEL(cr8_down, .rflags = 2 | FLAG_TF | FLAG_IF, .rax = 0);
	check(t.vector == B && t.rip == (u64)cr8_down_after && step_count == 1,
	      "3A 6.9: at one boundary the trap comes before the interrupt");
	apic_eoi();
	set_handler(EXC_DB, NULL);
}

/* ---- INT1, the registers ---- */

CODE(int1, ".byte 0xf1; nop")
CODE(read_dr4, "mov %db4, %rax")
CODE(write_dr0_code, "mov %rax, %dr0")
CODE(read_dr6_code, "mov %dr6, %rax")
CODE(write_dr6_code, "mov %rax, %dr6")

static void test_registers(void)
{
	u64 cr4 = read_cr4();
	struct trap t;

	no_breakpoints();
	t = KERNEL(int1);
	check(t.vector == EXC_DB && t.rip == (u64)int1 + 1 && t.dr6 == DR6_NONE,
	      "3B 17.3.1.6: INT1 is a trap and leaves DR6");
	t = USER_MODE(int1);
	check(t.vector == EXC_DB && t.cs == USER_CS, "3B 17.3.1.6: INT1 asks no DPL");
	check_equal(read_dr7(), DR7_NONE, "3A 9.1.1: DR7 without breakpoints");
	write_dr6(0);
	check_equal(read_dr6(), DR6_NONE, "3B 17.2.3: reserved bits of DR6 are ones");
	write_dr6(0xe00f);
	check_equal(read_dr6() & 0xe00f, 0xe00f, "3B 17.2.3: the others can be written");
	write_dr6(DR6_NONE);
	t = KERNEL(read_dr4);
	check(t.vector == END_VECTOR && t.rax == DR6_NONE, "3B 17.2.2: DR4 is DR6 without CR4.DE");
	write_cr4(cr4 | CR4_DE);
	t = KERNEL(read_dr4);
	check_fault(&t, EXC_UD, 0, "3B 17.2.2: #UD with it");
	write_cr4(cr4);
	t = KERNEL(write_dr0_code, .rax = BIT(47));
	check_end(&t, "3B 17.2.6: DR0 takes addresses that are not canonical");
	t = KERNEL(write_dr6_code, .rax = BIT(32));
	check_fault(&t, EXC_GP, 0, "3B 17.2.6: DR6 takes 32 bits");

	write_dr7(DR7_NONE | DR7_GD);
	t = KERNEL(read_dr6_code);
	check(t.vector == EXC_DB && t.rip == (u64)read_dr6_code && (t.dr6 & DR6_BD),
	      "3B 17.2.4: GD: access to a debug register faults");
	check(!(read_dr7() & DR7_GD), "3B 17.2.4: and GD is clear in the handler");
	no_breakpoints();
}

/* ---- instruction breakpoints ---- */

CODE(loop_code, "mov $3, %ecx\n1:\n" LABEL(loop_here) "nop; dec %ecx; jnz 1b; nop")
CODE(there, "nop\n" LABEL(there_2) "nop\n nop")
extern const u8 loop_here[], there_2[];

static void note_and_resume(struct frame *f)
{
	note_step(f);
	f->rflags |= FLAG_RF;
}

static void test_instruction(void)
{
	struct trap t;

	no_breakpoints();
	write_dr0((u64)there_2);
	write_dr7(DR7_NONE | dr7_of(0, EXECUTE, 1));
	t = KERNEL(there);
	check(t.vector == EXC_DB && t.rip == (u64)there_2 && t.dr6 == (DR6_NONE | 1),
	      "3B 17.3.1.1: a breakpoint on an instruction, before it");
	check(!(t.rflags & FLAG_RF), "3B 17.3.1.1: RF is pushed as it was");
	t = KERNEL(there_2, .rflags = 2 | FLAG_RF);
	check_end(&t, "3B 17.3.1.1: with RF it does not strike");
	t = KERNEL(there, .rflags = 2 | FLAG_RF);
	check_fault(&t, EXC_DB, 0, "3B 17.3.1.1: RF lasts one instruction");
	write_dr7(DR7_NONE | dr7_of(0, EXECUTE, 1) << 1); /* G0 instead of L0 */
	write_dr7(DR7_NONE | 2);
	write_dr6(DR6_NONE);
	t = KERNEL(there);
	check(t.vector == EXC_DB && t.dr6 == (DR6_NONE | 1), "3B 17.2.4: globally enabled");
	write_dr7(DR7_NONE);
	t = KERNEL(there);
	check_end(&t, "3B 17.2.4: not enabled");
	write_dr0(USER(there_2));
	write_dr7(DR7_NONE | dr7_of(0, EXECUTE, 1));
	t = USER_MODE(there);
	check(t.vector == EXC_DB && t.rip == USER(there_2), "3B 17.3.1.1: in ring 3");
	t = KERNEL(there);
	check_end(&t, "3B 17.2.1: it is the linear address that counts");

	write_dr3((u64)loop_here);
	write_dr7(DR7_NONE | dr7_of(3, EXECUTE, 1));
	step_count = 0;
	set_handler(EXC_DB, note_and_resume);
	write_dr6(DR6_NONE);
	t = KERNEL(loop_code);
	check(t.vector == END_VECTOR && step_count == 3 && steps[2].rip == (u64)loop_here &&
		      steps[2].dr6 == (DR6_NONE | 8),
	      "3B 17.3.1.1: in a loop each time, resumed with RF");
	set_handler(EXC_DB, NULL);
	no_breakpoints();
}

/* ---- data and port breakpoints ---- */

static u64 watched[4] __attribute__((aligned(16)));

CODE(store_32, "mov %eax, (%rdi); nop")
CODE(store_8, "movb %al, (%rdi); nop")
CODE(store_64, "mov %rax, (%rdi); nop")
CODE(load_32, "mov (%rdi), %eax; nop")
CODE(lock_inc, "lock incl (%rdi); nop")
CODE(push_pop, "mov %rdi, %rsp; push %rax; nop")
CODE(string_move, "rep movsb; nop")
CODE(store_fault, "mov (%rdi), %rbx; mov %rbx, (%rsi); nop")
CODE(port_in, "in $0x80, %al; nop")
CODE(port_out, "out %al, $0x80; nop")

static struct trap watch(const u8 *code, u64 address, unsigned kind, unsigned length, u64 rdi)
{
	struct trap t;

	write_dr1(address);
	write_dr6(DR6_NONE);
	write_dr7(DR7_NONE | dr7_of(1, kind, length));
	t = KERNEL(code, .rdi = rdi, .rsi = rdi, .rcx = 4);
	write_dr7(DR7_NONE);
	return t;
}

static void strikes(const struct trap *t, const u8 *code, unsigned size, const char *name)
{
	if (!check(t->vector == EXC_DB && t->rip == (u64)code + size && t->dr6 == (DR6_NONE | 2), "3B 17.2.5: %s",
		   name))
		print("# vector %lu RIP 0x%lx (%d from the start) DR6 0x%lx\n", t->vector, t->rip,
		      (int)(t->rip - (u64)code), t->dr6);
}

static void test_data(void)
{
	u64 w = (u64)watched;
	struct trap t;

	t = watch(store_32, w, WRITE, 4, w);
	strikes(&t, store_32, 2, "a write, trapped after its instruction");
	t = watch(load_32, w, WRITE, 4, w);
	check_end(&t, "3B 17.2.5: a read is no write");
	t = watch(load_32, w, ACCESS, 4, w);
	strikes(&t, load_32, 2, "a read, when reads are watched");
	t = watch(store_32, w, ACCESS, 4, w);
	strikes(&t, store_32, 2, "a write, when both are");
	t = watch(store_8, w + 3, WRITE, 1, w + 3);
	strikes(&t, store_8, 3 - 1, "one byte");
	t = watch(store_8, w + 3, WRITE, 1, w + 2);
	check_end(&t, "3B 17.2.5: the byte before it");
	t = watch(store_8, w + 3, WRITE, 1, w + 4);
	check_end(&t, "3B 17.2.5: the byte behind it");
	t = watch(store_32, w + 4, WRITE, 2, w + 2);
	strikes(&t, store_32, 2, "a write that overlaps it");
	t = watch(store_64, w + 8, WRITE, 8, w + 1);
	strikes(&t, store_64, 3, "8 bytes, touched by the last of a misaligned write");
	t = watch(store_64, w + 8, WRITE, 8, w);
	check_end(&t, "3B 17.2.5: and not touched");
	t = watch(lock_inc, w, WRITE, 4, w);
	strikes(&t, lock_inc, 3, "a locked instruction");
	t = watch(push_pop, w, WRITE, 8, w + 8);
	strikes(&t, push_pop, 4, "a push");
	t = watch(string_move, w + 2, WRITE, 1, w);
	check(t.vector == EXC_DB && t.rip == (u64)string_move && t.rcx == 1 && t.rdi == w + 3 && (t.rflags & FLAG_RF),
	      "3B 17.2.5: REP MOVSB, after the iteration that struck");
	t = watch(store_fault, w, ACCESS, 8, w);
	strikes(&t, store_fault, 3, "the first of two accesses");
	watched[0] = T;
	t = watch(store_32, T, WRITE, 4, T);
	check_page_fault(&t, 2, T, "3B 17.2.5: a write that faults");
	check(t.dr6 == DR6_NONE, "3B 17.2.5: does not strike");

	write_dr1(w);
	write_dr2(w + 2);
	write_dr7(DR7_NONE | dr7_of(1, WRITE, 4) | dr7_of(2, ACCESS, 2));
	t = KERNEL(store_32, .rdi = w);
	check(t.vector == EXC_DB && t.dr6 == (DR6_NONE | 6), "3B 17.2.3: two at once");
	write_dr6(DR6_NONE);
	t = KERNEL(store_32, .rdi = w, .rflags = 2 | FLAG_TF);
	check(t.vector == EXC_DB && t.dr6 == (DR6_NONE | 6 | DR6_BS), "3B 17.2.3: and a single step");
	write_dr7(DR7_NONE);
	t = KERNEL(store_32, .rdi = w);
	check_end(&t, "3B 17.2.4: none enabled");

	u64 cr4 = read_cr4();

	write_cr4(cr4 | CR4_DE);
	t = watch(port_out, 0x80, PORT, 1, 0);
	strikes(&t, port_out, 2, "an output to a port, with CR4.DE");
	t = watch(port_in, 0x80, PORT, 1, 0);
	strikes(&t, port_in, 2, "an input");
	t = watch(port_in, 0x81, PORT, 1, 0);
	check_end(&t, "3B 17.2.5: another port");
	write_cr4(cr4);
	no_breakpoints();
}

void guest(void)
{
	no_breakpoints();
	test_steps();
	test_step_syscall();
	test_step_and_interrupt();
	test_registers();
	test_instruction();
	test_data();
}
