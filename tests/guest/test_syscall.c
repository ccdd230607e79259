/*
 * Between rings and code segments: SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, IRET, far jumps, calls and returns, call gates,
 * between 64-bit and compatibility mode. SDM vol. 3A 5.8, vol. 2 for each instruction, APM vol. 2 6.1 for what is AMD's.
 */
#include "guest.h"

#define FLAGS_ALL                                                                                                      \
	(2 | 0x8d5 | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID) /* what ring 3 may have set without an effect here */

CODE(nothing, "nop")
CODE(do_syscall, "syscall\n" LABEL(after_syscall) "nop")
CODE32(do_syscall_32, "syscall\n" LABEL(after_syscall_32) "nop")
CODE(kernel_entry, "mov $0x1234, %eax")
CODE(sysret_64, "sysretq")
CODE(sysret_32, "sysretl")
CODE32(which_mode, ".byte 0x48\nnop\n") /* DEC EAX; a REX prefix in 64-bit mode */
CODE(do_sysenter, "sysenter")
CODE32(do_sysenter_32, "sysenter")
CODE(sysexit_64, "sysexitq")
CODE(sysexit_32, "sysexitl")
extern const u8 after_syscall[], after_syscall_32[];

static void enable_syscall(bool on)
{
	write_msr(MSR_EFER, (read_msr(MSR_EFER) & ~EFER_SCE) | (on ? EFER_SCE : 0));
	write_msr(MSR_STAR, (u64)KERNEL_CS << 32 | (u64)USER_CS32 << 48);
	write_msr(MSR_LSTAR, (u64)kernel_entry);
	write_msr(MSR_CSTAR, (u64)kernel_entry);
	write_msr(MSR_FMASK, 0);
}

/* ---- SYSCALL, SYSRET ---- */

static void test_syscall(void)
{
	struct trap t;

	enable_syscall(false);
	t = USER_MODE(do_syscall);
	check_fault(&t, EXC_UD, 0, "2 SYSCALL: #UD without EFER.SCE");
	enable_syscall(true);
	t = USER_MODE(do_syscall, .rflags = FLAGS_ALL | FLAG_IF);
	check_end(&t, "2 SYSCALL: enters LSTAR");
	check(t.rax == 0x1234 && t.cs == KERNEL_CS && t.ss == KERNEL_DS, "2 SYSCALL: CS and SS are STAR's");
	check_equal(t.rcx, USER(after_syscall), "2 SYSCALL: RCX is the next RIP");
	check_equal(t.r11, FLAGS_ALL | FLAG_IF, "2 SYSCALL: R11 is RFLAGS");
	check_equal(t.rflags, FLAGS_ALL | FLAG_IF, "2 SYSCALL: with FMASK 0 RFLAGS stays");
	check_equal(t.rsp, user_stack(), "2 SYSCALL: RSP stays");
	write_msr(MSR_FMASK, FLAG_IF | FLAG_DF | FLAG_AC | FLAG_NT | FLAG_CF | 2);
	t = USER_MODE(do_syscall, .rflags = FLAGS_ALL | FLAG_IF);
	check_equal(t.rflags, FLAGS_ALL & ~(FLAG_IF | FLAG_DF | FLAG_AC | FLAG_NT | FLAG_CF),
		    "2 SYSCALL: FMASK clears flags");
	write_msr(MSR_FMASK, 0xffffffff);
	t = USER_MODE(do_syscall, .rflags = FLAGS_ALL);
	check_equal(t.rflags, 2, "2 SYSCALL: FMASK of all ones");
	write_msr(MSR_FMASK, 0);
	t = KERNEL(do_syscall);
	check(t.vector == END_VECTOR && t.rax == 0x1234 && t.rcx == (u64)after_syscall, "2 SYSCALL: in ring 0 as well");

	t = USER_MODE(do_syscall_32, .cs = USER_CS32);
	if (vendor_is_amd()) {
		check(t.vector == END_VECTOR && t.rax == 0x1234 && t.cs == KERNEL_CS && t.rcx == USER(after_syscall_32),
		      "APM SYSCALL: from compatibility mode enters CSTAR");
	} else {
		check_fault(&t, EXC_UD, 0, "2 SYSCALL: #UD in compatibility mode");
	}
}

static void test_sysret(void)
{
	u64 flags = FLAGS_ALL | FLAG_IF;
	struct trap t;

	t = KERNEL(sysret_64, .rcx = USER(nothing), .r11 = flags | FLAG_RF | BIT(17) | BIT(15) | BIT(5) | BIT(40),
		   .rsp = user_stack());
	check_end(&t, "2 SYSRET: to 64-bit mode");
	check(t.cs == USER_CS && t.ss == USER_DS, "2 SYSRET: CS and SS are STAR's, with RPL 3");
	check_equal(t.rflags, flags, "2 SYSRET: RFLAGS is R11 but for RF, VM and reserved bits");
	check_equal(t.rsp, user_stack(), "2 SYSRET: RSP stays");
	t = KERNEL(sysret_64, .rcx = USER(nothing), .r11 = FLAG_IOPL, .rsp = user_stack());
	check_equal(t.rflags, FLAG_IOPL | 2, "2 SYSRET: IOPL too");
	t = KERNEL(sysret_32, .rcx = BIT(40) | USER(which_mode), .r11 = 2, .rsp = user_stack(), .rax = 7);
	check_end(&t, "2 SYSRET: to compatibility mode, RIP has 32 bits");
	check(t.cs == USER_CS32 && t.ss == USER_DS && t.rax == 6, "2 SYSRET: in a 32-bit code segment");
	t = USER_MODE(sysret_64, .rcx = USER(nothing));
	check_fault(&t, EXC_GP, 0, "2 SYSRET: #GP in ring 3");
	t = KERNEL(sysret_64, .rcx = BIT(47), .r11 = 2);
	check_fault(&t, EXC_GP, 0, "2 SYSRET: a non-canonical RCX");
	if (vendor_is_amd())
		check(t.cs == USER_CS && t.rip == BIT(47), "APM SYSRET: faults at the target, in ring 3");
	else
		check(t.cs == KERNEL_CS && t.rip == (u64)sysret_64, "2 SYSRET: faults in ring 0");
	enable_syscall(false);
}

/* ---- SYSENTER, SYSEXIT ---- */

static void test_sysenter(void)
{
	struct trap t;

	if (!(cpuid(1, 0).d & BIT(11))) {
		skip("2 SYSENTER", "not offered");
		return;
	}
	write_msr(MSR_SYSENTER_CS, KERNEL_CS);
	write_msr(MSR_SYSENTER_ESP, kernel_stack() - 64);
	write_msr(MSR_SYSENTER_EIP, (u64)kernel_entry);
	if (vendor_is_amd()) {
		t = USER_MODE(do_sysenter);
		check_fault(&t, EXC_UD, 0, "APM SYSENTER: #UD in long mode");
		t = KERNEL(sysexit_64);
		check_fault(&t, EXC_UD, 0, "APM SYSEXIT: #UD in long mode");
		return;
	}
	t = USER_MODE(do_sysenter, .rflags = FLAGS_ALL | FLAG_IF);
	check(t.vector == END_VECTOR && t.rax == 0x1234 && t.cs == KERNEL_CS && t.ss == KERNEL_DS &&
		      t.rsp == kernel_stack() - 64,
	      "2 SYSENTER: CS, RIP and RSP are the MSRs'");
	check_equal(t.rflags, FLAGS_ALL, "2 SYSENTER: clears IF");
	t = USER_MODE(do_sysenter_32, .cs = USER_CS32);
	check(t.vector == END_VECTOR && t.rax == 0x1234, "2 SYSENTER: from compatibility mode");
	t = KERNEL(sysexit_64, .rcx = user_stack() - 16, .rdx = USER(nothing));
	check(t.vector == END_VECTOR && t.cs == USER_CS && t.ss == USER_DS2 && t.rsp == user_stack() - 16,
	      "2 SYSEXIT: to 64-bit mode");
	t = KERNEL(sysexit_32, .rcx = user_stack() - 16, .rdx = USER(which_mode), .rax = 7);
	check(t.vector == END_VECTOR && t.cs == USER_CS32 && t.ss == USER_DS && t.rax == 6,
	      "2 SYSEXIT: to compatibility mode");
	t = KERNEL(sysexit_64, .rcx = BIT(47), .rdx = USER(nothing));
	check_fault(&t, EXC_GP, 0, "2 SYSEXIT: a non-canonical RSP");
	t = KERNEL(sysexit_64, .rcx = user_stack(), .rdx = BIT(47));
	check_fault(&t, EXC_GP, 0, "2 SYSEXIT: a non-canonical RIP");
	t = USER_MODE(sysexit_64);
	check_fault(&t, EXC_GP, 0, "2 SYSEXIT: ring 3");
	write_msr(MSR_SYSENTER_CS, 3);
	t = USER_MODE(do_sysenter);
	check_fault(&t, EXC_GP, 0, "2 SYSENTER: with a null IA32_SYSENTER_CS");
	t = KERNEL(sysexit_64, .rcx = user_stack(), .rdx = USER(nothing));
	check_fault(&t, EXC_GP, 0, "2 SYSEXIT: with a null IA32_SYSENTER_CS");
}

/* ---- FS and GS ---- */

CODE(swap_and_read, "mov %gs:0, %rax; swapgs; mov %gs:0, %rcx; swapgs; mov %gs:0, %rdx")
CODE(read_fs, "mov %fs:8, %rax")
CODE(load_fs, "mov %eax, %fs; mov %fs:0, %rcx")
CODE(bases, "wrfsbase %rax; wrgsbase %rcx; rdfsbase %rsi; rdgsbase %rdi")

static void test_bases(void)
{
	static u64 a[2] = { 0xa, 0xaa }, b[2] = { 0xb, 0xbb };
	u64 cr4 = read_cr4();
	struct trap t;

	write_msr(MSR_GS_BASE, (u64)a);
	write_msr(MSR_KERNEL_GS_BASE, (u64)b);
	t = KERNEL(swap_and_read);
	check(t.rax == 0xa && t.rcx == 0xb && t.rdx == 0xa, "2 SWAPGS: exchanges GS base and IA32_KERNEL_GS_BASE");
	check(read_msr(MSR_GS_BASE) == (u64)a && read_msr(MSR_KERNEL_GS_BASE) == (u64)b, "2 SWAPGS: and back");
	write_msr(MSR_FS_BASE, BIT(47) - 8);
	t = KERNEL(read_fs);
	check_fault(&t, EXC_GP, 0, "1 3.3.7.1: a base makes an address non-canonical");
	write_msr(MSR_FS_BASE, (u64)a);
	t = KERNEL(read_fs);
	check_equal(t.rax, 0xaa, "3A 3.4.4: 64-bit FS base");
	*gdt_entry(GDT_FREE) = descriptor((u32)(u64)b, 0, ATTR_DATA32);
	t = KERNEL(load_fs, .rax = GDT_FREE);
	check_equal(t.rcx, 0xb, "3A 3.4.4: a load of FS takes the descriptor's base, and no limit in 64-bit mode");
	check_equal(read_msr(MSR_FS_BASE), (u64)b, "3A 3.4.4: seen in the MSR");
	*gdt_entry(GDT_FREE) = 0;

	if (!has_fsgsbase()) {
		skip("2 WRFSBASE", "not offered");
		return;
	}
	t = USER_MODE(bases, .rax = 5, .rcx = 6);
	check_fault(&t, EXC_UD, 0, "2 WRFSBASE: #UD without CR4.FSGSBASE");
	write_cr4(cr4 | CR4_FSGSBASE);
	t = USER_MODE(bases, .rax = 5, .rcx = 6ull << 40);
	check(t.vector == END_VECTOR && t.rsi == 5 && t.rdi == 6ull << 40, "2 WRFSBASE, WRGSBASE: in ring 3");
	t = USER_MODE(bases, .rax = BIT(47));
	check_fault(&t, EXC_GP, 0, "2 WRFSBASE: non-canonical");
	write_cr4(cr4);
}

/* ---- IRET ---- */

CODE(do_iretq, "mov %rdi, %rsp; iretq")
CODE(do_iretd, "mov %rdi, %rsp; iretl")
CODE(do_iretw, "mov %rdi, %rsp; iretw")
CODE(push_flags, "pushf; pop %rax")
CODE(pop_flags, "push %rdx; popf; pushf; pop %rax")
CODE(read_segments, "mov %ds, %eax; mov %es, %ecx; mov %fs, %edx; mov %gs, %ebx")

static u64 image[5]; /* RIP, CS, RFLAGS, RSP, SS */

static struct trap iret_to(u64 rip, u64 cs, u64 rflags, u64 rsp, u64 ss)
{
	image[0] = rip;
	image[1] = cs;
	image[2] = rflags;
	image[3] = rsp;
	image[4] = ss;
	return KERNEL(do_iretq, .rdi = (u64)image);
}

static void iret_faults(u64 rip, u64 cs, u64 ss, u64 vector, u64 error, const char *what)
{
	struct trap t = iret_to(rip, cs, 2, user_stack(), ss);

	if (check_fault(&t, vector, error, "2 IRET: %s", what) &&
	    (t.cs != KERNEL_CS || t.rip != (u64)do_iretq + 3 || t.rsp != (u64)image))
		check(false, "2 IRET: %s: nothing has changed", what);
}

static void test_iret_faults(void)
{
	u64 user = USER(nothing), code = descriptor(0, 0xfffff, ATTR_CODE64 | ATTR_DPL3);
	u64 data = descriptor(0, 0xfffff, ATTR_DATA32 | ATTR_DPL3), absent = BIT(47);
	struct trap t;

	iret_faults(BIT(47), USER_CS, USER_DS, EXC_GP, 0, "a non-canonical RIP");
	iret_faults(user, 0, USER_DS, EXC_GP, 0, "a null CS");
	iret_faults(user, 3, USER_DS, EXC_GP, 0, "a null CS with RPL 3");
	iret_faults(user, USER_DS, USER_DS, EXC_GP, USER_DS & ~3, "a data segment for CS");
	iret_faults(user, USER_CS & ~3, USER_DS, EXC_GP, USER_CS & ~3, "CS with RPL 0 and DPL 3");
	iret_faults(user, KERNEL_CS | 3, USER_DS, EXC_GP, KERNEL_CS, "CS with RPL 3 and DPL 0");
	iret_faults(user, 0x2003, USER_DS, EXC_GP, 0x2000, "CS beyond the GDT");
	iret_faults(user, USER_CS, 0, EXC_GP, 0, "a null SS to ring 3");
	iret_faults(user, USER_CS, 3, EXC_GP, 0, "a null SS with RPL 3");
	iret_faults(user, USER_CS, KERNEL_DS | 3, EXC_GP, KERNEL_DS, "SS with DPL 0 to ring 3");
	iret_faults(user, USER_CS, USER_DS & ~3, EXC_GP, USER_DS & ~3, "SS with RPL 0 to ring 3");
	iret_faults(user, USER_CS, USER_CS, EXC_GP, USER_CS & ~3, "a code segment for SS");
	*gdt_entry(GDT_FREE) = code & ~absent;
	iret_faults(user, GDT_FREE | 3, USER_DS, EXC_NP, GDT_FREE, "an absent CS");
	*gdt_entry(GDT_FREE) = code | BIT(54);
	iret_faults(user, GDT_FREE | 3, USER_DS, EXC_GP, GDT_FREE, "CS with L and D");
	*gdt_entry(GDT_FREE) = data & ~absent;
	iret_faults(user, USER_CS, GDT_FREE | 3, EXC_SS, GDT_FREE, "an absent SS");
	*gdt_entry(GDT_FREE) = data & ~BIT(41);
	iret_faults(user, USER_CS, GDT_FREE | 3, EXC_GP, GDT_FREE, "a read-only SS");
	*gdt_entry(GDT_FREE) = descriptor(0, 0xf, (ATTR_CODE32 & ~0x8000) | ATTR_DPL3);
	iret_faults(user, GDT_FREE | 3, USER_DS, EXC_GP, 0, "RIP beyond a 32-bit segment's limit");
	*gdt_entry(GDT_FREE) = 0;
	image[0] = user;
	image[1] = USER_CS;
	t = KERNEL(do_iretq, .rdi = (u64)image, .rflags = 2 | FLAG_NT);
	check_fault(&t, EXC_GP, 0, "2 IRET: NT in long mode");
}

static void test_iret(void)
{
	u16 short_image[5] = { 0 };
	u32 *middle_image = (u32 *)image;
	struct trap t;

	t = iret_to((u64)push_flags, KERNEL_CS, 2, kernel_stack() - 8, KERNEL_DS);
	check(t.vector == END_VECTOR && t.rsp == kernel_stack() - 8, "2 IRETQ: pops RSP and SS in ring 0 too");
	t = iret_to((u64)push_flags, KERNEL_CS, 2, kernel_stack(), 0);
	check(t.vector == END_VECTOR && t.ss == 0, "2 IRETQ: a null SS in ring 0 of 64-bit mode");
	t = iret_to(USER(which_mode), USER_CS32, 2, BIT(40) | user_stack(), USER_DS);
	check(t.vector == END_VECTOR && (u32)t.rax == ~0u, "2 IRETQ: to compatibility mode");
	t = iret_to(USER(push_flags), USER_CS, FLAGS_ALL | FLAG_IF | FLAG_IOPL, user_stack(), USER_DS);
	check_equal(t.rax, FLAGS_ALL | FLAG_IF | FLAG_IOPL, "2 IRETQ: from ring 0 sets IF and IOPL");
	t = iret_to((u64)push_flags, KERNEL_CS, 0xffffffff & ~(FLAG_TF | FLAG_IF | BIT(17)), kernel_stack(), KERNEL_DS);
	check_equal(t.rax & ~(3ull << 19), (FLAGS_ALL | FLAG_IOPL), "1 3.4.3: reserved flags cannot be set");

	middle_image[0] = (u32)(u64)push_flags;
	middle_image[1] = KERNEL_CS;
	middle_image[2] = 2 | FLAG_CF;
	middle_image[3] = (u32)kernel_stack();
	middle_image[4] = KERNEL_DS;
	t = KERNEL(do_iretd, .rdi = (u64)image);
	check(t.vector == END_VECTOR && t.rax == (2 | FLAG_CF) && t.rsp == kernel_stack(),
	      "2 IRETD: in 64-bit mode, 4 bytes each");
	short_image[0] = 0x8000; /* IP of 16 bits: code that is there */
	short_image[1] = KERNEL_CS;
	short_image[2] = 2 | FLAG_CF;
	short_image[3] = 0x9000;
	short_image[4] = KERNEL_DS;
	memcpy((void *)0x8000, push_flags, 16);
	t = KERNEL(do_iretw, .rdi = (u64)short_image, .rflags = 2 | FLAG_AC);
	check(t.vector == END_VECTOR && t.rax == (2 | FLAG_CF | FLAG_AC) && t.rsp == 0x9000,
	      "2 IRET: of 16 bits, the upper half of RFLAGS stays");

	image[0] = USER(push_flags);
	image[1] = USER_CS;
	image[2] = FLAG_IF | FLAG_IOPL | FLAG_CF;
	image[3] = user_stack();
	image[4] = USER_DS;
	t = USER_MODE(do_iretq, .rdi = USER(image));
	check_equal(t.rax, 2 | FLAG_CF, "2 IRETQ: in ring 3 changes neither IF nor IOPL");
	image[1] = KERNEL_CS;
	t = USER_MODE(do_iretq, .rdi = USER(image));
	check_fault(&t, EXC_GP, KERNEL_CS, "2 IRETQ: in ring 3 to ring 0");
	t = USER_MODE(pop_flags, .rdx = FLAG_IF | FLAG_IOPL | FLAG_CF | FLAG_AC);
	check_equal(t.rax, 2 | FLAG_CF | FLAG_AC, "2 POPF: in ring 3 changes neither IF nor IOPL");
	t = USER_MODE(pop_flags, .rdx = FLAG_IF, .rflags = 2 | FLAG_IOPL);
	check_equal(t.rax, 2 | FLAG_IF | FLAG_IOPL, "2 POPF: IF with IOPL 3");
	t = KERNEL(pop_flags, .rdx = FLAG_IOPL | FLAG_RF | BIT(17));
	check_equal(t.rax, 2 | FLAG_IOPL, "2 POPF: in ring 0 changes IOPL, not RF and VM");

	asm volatile("mov %0, %%ds; mov %1, %%es; mov %0, %%fs; mov %1, %%gs" ::"r"(KERNEL_DS), "r"(USER_DS));
	t = USER_MODE(read_segments);
	check(t.rax == 0 && t.rcx == USER_DS && t.rdx == 0 && t.rbx == USER_DS,
	      "2 IRET: to ring 3 leaves no data segment of ring 0");
	asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs" ::"r"(KERNEL_DS));
}

/* ---- far jumps, calls, returns ---- */

static struct {
	u32 offset;
	u16 selector;
} __attribute__((packed)) far_pointer;
static struct {
	u64 offset;
	u16 selector;
} __attribute__((packed)) far_pointer_64;

CODE(far_jmp, "ljmp *(%rdi)")
CODE(far_call, "lcall *(%rdi)\n" LABEL(far_call_after) "mov %cs, %edx")
CODE(far_call_64, "rex.w lcall *(%rdi)\nmov %cs, %edx")
CODE32(far_callee, ".byte 0x48\nmov %esp, %ebx\nlret")
CODE(far_callee_64, "mov %rsp, %rbx; lretq")
CODE(far_ret, "push %rcx; push %rdx; lretq")
CODE(far_ret_outer, "push %rsi; push %rbx; push %rcx; push %rdx; lretq")
CODE(far_ret_imm, "push %rsi; push %rbx; push $0; push $0; push %rcx; push %rdx; lretq $16")
/* 32-bit code of ring 3 that goes to 64-bit code, comes back by a far return, and says what it saw. */
CODE32(there_and_back, "mov %esp, %ebp\nmov $1, %ecx\nlcall *(%edi)\nmov %esp, %ebx\nnop")
extern const u8 far_call_after[];
CODE(callee_64, ".byte 0x48, 0xff, 0xc1; lretl") /* inc %rcx; 32 bits: DEC EAX, INC ECX */

static struct trap far_jump(u16 selector, u64 offset)
{
	far_pointer.offset = (u32)offset;
	far_pointer.selector = selector;
	return KERNEL(far_jmp, .rdi = (u64)&far_pointer, .rax = 5);
}

static void test_far_jump_faults(void)
{
	u64 code = descriptor(0, 0xfffff, ATTR_CODE64);
	static const struct {
		u16 selector;
		const char *what;
	} bad[] = {
		{ KERNEL_DS, "a data segment" },      { 0x2000, "a selector beyond the GDT" },
		{ GDT_TSS, "a TSS in long mode" },    { USER_CS & ~3, "a segment of DPL 3 in ring 0" },
		{ KERNEL_CS | 3, "RPL 3 in ring 0" },
	};
	struct trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		t = far_jump(bad[n].selector, (u64)nothing);
		check_fault(&t, EXC_GP, bad[n].selector & ~3, "2 JMP: far, to %s", bad[n].what);
	}
	t = far_jump(0, (u64)nothing);
	check_fault(&t, EXC_GP, 0, "2 JMP: far, null");
	*gdt_entry(GDT_FREE) = code & ~BIT(47);
	t = far_jump(GDT_FREE, (u64)nothing);
	check_fault(&t, EXC_NP, GDT_FREE, "2 JMP: far, to an absent segment");
	*gdt_entry(GDT_FREE) = code | BIT(54);
	t = far_jump(GDT_FREE, (u64)nothing);
	check_fault(&t, EXC_GP, GDT_FREE, "2 JMP: far, to one with L and D");
	*gdt_entry(GDT_FREE) = descriptor(0, 0xfff, ATTR_CODE32 & ~0x8000);
	t = far_jump(GDT_FREE, 0x1000);
	check_fault(&t, EXC_GP, 0, "2 JMP: far, beyond the limit");
	*gdt_entry(GDT_FREE) = code | BIT(42) | 3ull << 45; /* conforming, of an outer ring */
	t = far_jump(GDT_FREE, (u64)nothing);
	check_fault(&t, EXC_GP, GDT_FREE, "2 JMP: far, to a conforming segment of an outer ring");
	*gdt_entry(GDT_FREE) = 0;
}

static void test_far(void)
{
	struct trap t;

	t = far_jump(KERNEL_CS32, (u64)which_mode);
	check(t.vector == END_VECTOR && t.cs == KERNEL_CS32 && t.rax == 4, "2 JMP: far, to compatibility mode");
	t = far_jump(KERNEL_CS, (u64)which_mode);
	check(t.vector == END_VECTOR && t.cs == KERNEL_CS && t.rax == 5, "2 JMP: far, to 64-bit mode");
	*gdt_entry(GDT_FREE) = descriptor(0x1000, 0xfffff, ATTR_CODE32);
	t = far_jump(GDT_FREE, (u64)which_mode - 0x1000);
	check(t.vector == END_VECTOR && t.rax == 4 && t.rip < (u64)which_mode,
	      "3A 5.2.1: compatibility mode has segment bases");
	*gdt_entry(GDT_FREE) = descriptor(0x1000, 0, ATTR_CODE64);
	t = far_jump(GDT_FREE, (u64)which_mode);
	check(t.vector == END_VECTOR && t.rax == 5, "3A 5.2.1: 64-bit mode has not, nor limits");
	*gdt_entry(GDT_FREE) = descriptor(0, 0xfffff, ATTR_CODE64 & ~1);
	t = far_jump(GDT_FREE, (u64)nothing);
	check(t.vector == END_VECTOR && (*gdt_entry(GDT_FREE) & BIT(40)),
	      "3A 3.4.5.1: a load of CS sets the accessed bit");
	*gdt_entry(GDT_FREE) = 0;

	far_pointer.offset = (u32)USER(far_callee);
	far_pointer.selector = USER_CS32;
	t = USER_MODE(far_call, .rdi = USER(&far_pointer), .rax = 5);
	check(t.vector == END_VECTOR && t.rax == 4 && t.rdx == USER_CS && t.rsp == user_stack(),
	      "2 CALL: far, to compatibility mode and back");
	check_equal(t.rbx, user_stack() - 8, "2 CALL: far, pushed two doublewords");
	far_pointer_64.offset = (u64)far_callee_64;
	far_pointer_64.selector = KERNEL_CS;
	if (!vendor_is_amd()) {
		t = KERNEL(far_call_64, .rdi = (u64)&far_pointer_64);
		check(t.vector == END_VECTOR && t.rbx == kernel_stack() - 16 && t.rdx == KERNEL_CS,
		      "2 CALL: far, with REX.W: quadwords");
	}
	far_pointer.offset = (u32)USER(callee_64);
	far_pointer.selector = USER_CS;
	asm volatile("mov %0, %%ds" ::"r"(USER_DS));
	t = USER_MODE(there_and_back, .cs = USER_CS32, .rdi = USER(&far_pointer));
	asm volatile("mov %0, %%ds" ::"r"(KERNEL_DS));
	check(t.vector == END_VECTOR && t.rcx == 2 && t.rbx == t.rbp && t.cs == USER_CS32,
	      "2 CALL: far, from compatibility to 64-bit mode and back");

	t = KERNEL(far_ret, .rcx = KERNEL_CS, .rdx = (u64)nothing);
	check(t.vector == END_VECTOR && t.rsp == kernel_stack(), "2 RET: far, same level");
	t = KERNEL(far_ret_outer, .rcx = USER_CS, .rdx = USER(nothing), .rbx = user_stack() - 8, .rsi = USER_DS);
	check(t.vector == END_VECTOR && t.cs == USER_CS && t.ss == USER_DS && t.rsp == user_stack() - 8,
	      "2 RET: far, to ring 3");
	t = KERNEL(far_ret_imm, .rcx = USER_CS, .rdx = USER(nothing), .rbx = user_stack() - 64, .rsi = USER_DS);
	check(t.vector == END_VECTOR && t.cs == USER_CS && t.rsp == user_stack() - 64 + 16,
	      "2 RET: far, releases parameters of both stacks");
	t = USER_MODE(far_ret, .rcx = KERNEL_CS, .rdx = (u64)nothing);
	check_fault(&t, EXC_GP, KERNEL_CS, "2 RET: far, to an inner ring");
	t = KERNEL(far_ret, .rcx = KERNEL_CS, .rdx = BIT(47));
	check_fault(&t, EXC_GP, 0, "2 RET: far, to a non-canonical address");
}

/* ---- call gates ---- */

#define GATE (GDT_FREE | 3)
CODE(gate_target, "mov %rsp, %rbx; mov %cs, %eax; mov %ss, %edx;"
		  "mov (%rsp), %r8; mov 8(%rsp), %r9; mov 16(%rsp), %r10; mov 24(%rsp), %r11; lretq")
CODE(gate_call, "lcall *(%rdi)\n" LABEL(gate_call_after) "mov %cs, %ecx")
CODE(gate_jump, "ljmp *(%rdi)")
extern const u8 gate_call_after[];

static void make_gate(u64 target, u16 selector, unsigned dpl, bool present)
{
	gdt_entry(GDT_FREE)[0] = (target & 0xffff) | (u64)selector << 16 | 0xcull << 40 | (u64)dpl << 45 |
				 (u64)present << 47 | (target >> 16 & 0xffff) << 48;
	gdt_entry(GDT_FREE)[1] = target >> 32;
	far_pointer.offset = 0x12345678; /* not used */
	far_pointer.selector = GATE;
}

static struct trap call_gate(void) { return USER_MODE(gate_call, .rdi = USER(&far_pointer)); }

static void test_call_gates(void)
{
	struct trap t;

	make_gate((u64)gate_target, KERNEL_CS, 3, true);
	t = call_gate();
	check_end(&t, "3A 5.8.3.1: ring 3 calls ring 0 through a 64-bit call gate, and far RET comes back");
	check(t.rax == KERNEL_CS && t.rdx == 0 && t.rbx == tss()->rsp[0] - 32,
	      "3A 5.8.5.1: on the TSS's stack, SS null");
	check(t.r11 == USER_DS && t.r10 == user_stack() && t.r9 == USER_CS && t.r8 == USER(gate_call_after),
	      "3A 5.8.5.1: old SS, RSP, CS and RIP are on it");
	check(t.rcx == USER_CS && t.rsp == user_stack(), "3A 5.8.6: back in ring 3");
	make_gate((u64)gate_target, KERNEL_CS, 0, true);
	t = call_gate();
	check_fault(&t, EXC_GP, GDT_FREE, "3A 5.8.4: a gate of DPL 0");
	make_gate((u64)gate_target, KERNEL_CS, 3, false);
	t = call_gate();
	check_fault(&t, EXC_NP, GDT_FREE, "3A 5.8.4: an absent gate");
	make_gate((u64)gate_target, KERNEL_CS32, 3, true);
	t = call_gate();
	check_fault(&t, EXC_GP, KERNEL_CS32, "3A 5.8.3.1: to a segment that is not 64-bit");
	make_gate((u64)gate_target, KERNEL_DS, 3, true);
	t = call_gate();
	check_fault(&t, EXC_GP, KERNEL_DS, "3A 5.8.4: to a data segment");
	make_gate((u64)gate_target, 0, 3, true);
	t = call_gate();
	check_fault(&t, EXC_GP, 0, "3A 5.8.4: with a null selector");
	make_gate(BIT(47), KERNEL_CS, 3, true);
	t = call_gate();
	check_fault(&t, EXC_GP, 0, "3A 5.8.3.1: to a non-canonical address");
	make_gate((u64)gate_target, KERNEL_CS, 3, true);
	gdt_entry(GDT_FREE)[1] |= BIT(40);
	t = call_gate();
	check_fault(&t, EXC_GP, GDT_FREE, "3A 5.8.3.1: with a type in its upper half");
	make_gate((u64)gate_target, KERNEL_CS, 3, true);
	t = USER_MODE(gate_jump, .rdi = USER(&far_pointer));
	check_fault(&t, EXC_GP, KERNEL_CS, "3A 5.8.4: JMP to an inner ring");
	make_gate(USER(nothing), USER_CS, 3, true);
	t = USER_MODE(gate_jump, .rdi = USER(&far_pointer));
	check_end(&t, "3A 5.8.4: JMP through a gate to the same ring");
	u64 rsp0 = tss()->rsp[0];
	make_gate((u64)gate_target, KERNEL_CS, 3, true);
	tss()->rsp[0] = 0x9123456789000ull;
	t = call_gate();
	check_fault(&t, EXC_DF, 0, "3A 5.8.5.1: without a stack of ring 0 (nor one for #SS)");
	tss()->rsp[0] = rsp0;
	gdt_entry(GDT_FREE)[0] = gdt_entry(GDT_FREE)[1] = 0;
}

/* ---- compatibility mode: 32 and 16 bits ---- */

CODE32(code_32, "push $0x12345678\npop %eax\nmov %esp, %ebx\nmov 4(%edi), %ecx\ninc %edx")
CODE16(code_16, "push $0x1234\npop %ax\ninc %dx\nmov %sp, %bx")
CODE32(wrap_32, "mov 0x10(%edi), %eax")
CODE32(load_es, "mov %es:(%edi), %eax")

static void test_compatibility(void)
{
	static u32 words[4] = { 1, 2, 3, 4 };
	struct trap t;

	asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(USER_DS));
	t = USER_MODE(code_32, .cs = USER_CS32, .rdi = USER(words), .rdx = 0xffffffff, .rcx = ~0ull);
	check(t.vector == END_VECTOR && t.rax == 0x12345678 && t.rbx == user_stack() && t.rcx == 2 && t.rdx == 0,
	      "3A 2.2: 32-bit code of compatibility mode");
	asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(USER_DS));
	t = USER_MODE(wrap_32, .cs = USER_CS32, .rdi = USER(words) - 8 - 0x10 + 12);
	check(t.vector == END_VECTOR && t.rax == 2, "1 3.3.7: addresses of 32 bits");
	*gdt_entry(GDT_FREE) = descriptor((u32)USER(words), 7, (ATTR_DATA32 & ~0x8000) | ATTR_DPL3);
	asm volatile("mov %0, %%es; mov %1, %%ds" ::"r"(GDT_FREE | 3), "r"(USER_DS));
	t = USER_MODE(load_es, .cs = USER_CS32, .rdi = 4);
	check(t.vector == END_VECTOR && t.rax == 2, "3A 5.3: bases and limits of data segments count");
	asm volatile("mov %0, %%es; mov %1, %%ds" ::"r"(GDT_FREE | 3), "r"(USER_DS));
	t = USER_MODE(load_es, .cs = USER_CS32, .rdi = 5);
	check_fault(&t, EXC_GP, 0, "3A 5.3: beyond the limit");
	asm volatile("mov %0, %%es; mov %1, %%ds" ::"r"(0), "r"(USER_DS));
	t = USER_MODE(load_es, .cs = USER_CS32, .rdi = 0);
	check_fault(&t, EXC_GP, 0, "3A 5.4.1: a null segment");
	asm volatile("mov %0, %%es; mov %0, %%ds" ::"r"(KERNEL_DS));

	/* 16 bits: the snippet and a stack in low memory. */
	memcpy((void *)0x8000, code_16, 64);
	*gdt_entry(GDT_FREE) = descriptor((u32)USER(0), 0xffff, ATTR_DATA16 | ATTR_DPL3);
	*gdt_entry(GDT_FREE + 8) = descriptor((u32)USER(0), 0xffff, ATTR_CODE16 | ATTR_DPL3);
	struct frame f = { .rip = 0x8000,
			   .cs = (GDT_FREE + 8) | 3,
			   .ss = GDT_FREE | 3,
			   .rsp = 0x9000,
			   .rflags = 2,
			   .rdx = 0x1ffff,
			   .rbx = 0x55550000 };
	t = run(&f);
	check(t.vector == END_VECTOR && t.rax == 0x1234 && t.rdx == 0x10000 && t.rbx == 0x55559000 &&
		      (u16)t.rsp == 0x9000,
	      "3A 2.2: 16-bit code of compatibility mode, with a 16-bit stack");
	gdt_entry(GDT_FREE)[0] = gdt_entry(GDT_FREE)[1] = 0;
}

void guest(void)
{
	test_syscall();
	test_sysret();
	test_sysenter();
	test_bases();
	test_iret_faults();
	test_iret();
	test_far_jump_faults();
	test_far();
	test_call_gates();
	test_compatibility();
}
