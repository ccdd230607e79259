/*
 * From mode to mode, SDM vol. 3A 2.2, 9.8 and 9.9: real and protected mode and what real mode keeps of protected mode's segments
 * ("unreal"), into long mode and out of it and what stands against that, 64-bit and compatibility mode by far transfers. (Virtual-8086
 * mode: test_v86; by tasks: test_tasks. The way out of long mode and back is also every use of legacy_run().)
 */
#include "legacy.h"

#define P	0x80
#define DPL(n)	((n) << 5)
#define CODE_X	0x18
#define CODE_XR 0x1a

/* ---- real mode ---- */

CODE_LOW(real_state, "mov %cs, %ax; mov %ss, %bx; mov %ds, %cx; smsw %dx")
CODE_LOW(set_protection,
	 "mov %cr0, %eax; or $1, %al; mov %eax, %cr0\n" /* protected mode, with the segments of real mode */
	 "mov %cs, %si; mov 0x40, %bx; push %bx; pop %cx; smsw %dx\n"
	 "mov %cr0, %eax; and $0xfe, %al; mov %eax, %cr0")
CODE_LOW(far_offset, "movl %fs:(%ebx), %eax")
CODE_LOW(far_offset_gs, "movl %gs:(%ebx), %eax")
CODE_LOW(keeps_limit, "mov $0x1234, %ax; mov %ax, %fs; movl %fs:(%ebx), %eax")
CODE_LOW(makes_limit, "mov $0x18, %cx\n" /* KERNEL_DS */
		      "mov %cr0, %eax; or $1, %al; mov %eax, %cr0; mov %cx, %gs; and $0xfe, %al; mov %eax, %cr0\n"
		      "xor %cx, %cx; mov %cx, %gs; movl %gs:(%ebx), %eax")
CODE_LOW(loads_protected, "mov %cr0, %eax; or $1, %al; mov %eax, %cr0\n"
			  "mov $0x68, %cx; mov %cx, %ds; mov 0x40, %bx\n" /* LEGACY_DS16 */
			  "mov %ds, %dx; and $0xfe, %al; mov %eax, %cr0; mov 0x42, %si")
CODE_LOW(jump_protected,
	 "mov %cr0, %eax; or $1, %al; mov %eax, %cr0; ljmpw $0x60, $1f - jump_protected\n" /* LEGACY_CS16 */
	 "1: mov %cs, %bx; mov %cr0, %eax; and $0xfe, %al; mov %eax, %cr0; mov %cs, %cx\n"
	 "ljmpw $0x1000, $2f - jump_protected; 2: mov %cs, %dx")
CODE_LOW(lmsw_on, "mov $1, %ax; lmsw %ax; smsw %bx; xor %ax, %ax; lmsw %ax; smsw %cx; mov %cr0, %eax; and $0xfe, %al; "
		  "mov %eax, %cr0")
CODE_LOW(calls, "lcallw $0xffe, $real_callee - calls + 32; mov %cs, %bx; jmp 1f; " LABEL(
			real_callee) "mov %cs, %dx; lretw; 1: nop")
CODE_LOW(large_jump, "mov $0x10000, %eax; pushl $0x1000; pushl %eax; lretl")
CODE_LOW(int_60, "int $0x20")

static u32 far_word = 0x600df00d;

static void test_real(void)
{
	struct legacy_state s = { LEGACY_REAL, .eip = place_code(real_state) };
	struct legacy_trap t = legacy_run(&s);

	check(t.vector == END_VECTOR && (u16)t.eax == LOW_CODE >> 4 && (u16)t.ebx == LOW_STACK >> 4 &&
		      (u16)t.ecx == LOW_DATA >> 4 && !(t.edx & CR0_PE),
	      "3A 9.9.2: real mode");
	*(u32 *)low_data(0x40) = 0x56781234;
	/* Low bits of CS that would be ring 3. */
	s.cs = (LOW_CODE >> 4) + 3;
	memcpy((void *)(LOW_CODE + 0x30), set_protection, (size_t)(set_protection_end - set_protection));
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && (t.edx & CR0_PE) && t.esi == s.cs && (u16)t.ebx == 0x1234 &&
		      (u16)t.ecx == 0x1234,
	      "3A 9.9.1: with PE set, segments stay those of real mode until they are loaded; CPL is 0 whatever CS is");
	s.cs = LOW_CODE >> 4;
	place_code(loads_protected);
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && (u16)t.ebx == 0x1234 && (u16)t.edx == LEGACY_DS16 && (u16)t.esi == 0x5678,
	      "3A 9.9.2: with PE clear, segments stay those of protected mode until they are loaded");
	place_code(jump_protected);
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && (u16)t.ebx == LEGACY_CS16 && (u16)t.ecx == LEGACY_CS16 && (u16)t.edx == 0x1000,
	      "3A 9.9: far JMPs to 16-bit protected mode and back");
	place_code(lmsw_on);
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && (t.ebx & 1) && (t.ecx & 1) && !(t.cr0 & 1),
	      "2 LMSW: sets PE and cannot clear it");
	place_code(calls);
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && (u16)t.edx == 0xffe && (u16)t.ebx == 0x1000 && (u16)t.esp == 0x1000,
	      "2 CALL, RET: far, in real mode");
	place_code(large_jump);
	t = legacy_run(&s);
	check(t.vector == EXC_GP && t.eip == (u32)(large_jump_end - large_jump) - 4,
	      "2 RET: far, to offset 10000: #GP");
	place_code(int_60);
	t = legacy_run(&s);
	check(t.vector == 0x20 && t.eip == 2, "3A 20.1.4: INT n through the vectors at 0");
}

static void test_unreal(void)
{
	struct legacy_state s = { LEGACY_REAL, .fs = 0, .gs = 0, .ebx = LOW32(&far_word) };
	struct legacy_trap t;

	s.eip = place_code(far_offset);
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && t.eax == far_word,
	      "3A 20.1: a limit of 4 GiB from protected mode stays in real mode");
	place_code(far_offset_gs);
	t = legacy_run(&s);
	check(t.vector == EXC_GP && t.eip == 0, "3A 20.1.1: a limit of 64 KiB does as well: #GP");
	s.ebx = LOW32(&far_word) - 0x12340;
	place_code(keeps_limit);
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && t.eax == far_word,
	      "3A 20.1.1: a load in real mode changes the base, not the limit");
	s.ebx = LOW32(&far_word);
	place_code(makes_limit);
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && t.eax == far_word, "3A 9.9: from real mode and back for a limit of 4 GiB");
}

/* ---- into long mode and out of it: SDM vol. 3A 9.8.5 ---- */

/* EDX: CR3 of 4-level paging, the identity. ESI: what EFER gets. */
#define ACTIVATE(where)                                                                                                \
	"mov %edx, %cr3; mov %ebp, %cr4; mov $0xc0000080, %ecx; xor %edx, %edx; mov %esi, %eax; wrmsr\n"               \
	"mov %cr0, %eax; bts $31, %eax\n" LABEL(where) "mov %eax, %cr0\n"

CODE32(activate, ACTIVATE(activate_at) "nop")
CODE32(tour, ACTIVATE(tour_at) "mov $0xc0000080, %ecx; rdmsr; mov %eax, %edi\n" /* compatibility mode */
			       "lcall $0x10, $1f\n"				/* KERNEL_CS */
			       "mov %cr0, %eax; btr $31, %eax; mov %eax, %cr0\n"
			       "mov $0xc0000080, %ecx; rdmsr; mov %eax, %esi; xor %eax, %eax; wrmsr\n"
			       "xor %eax, %eax; mov %eax, %cr4; jmp 2f\n"
			       ".code64\n"
			       "1: mov $0x123456789abcdef0, %rax; mov %rax, %r8; shr $32, %r8; mov %r8d, %ebx; mov "
			       "%cs, %ebp; lretl\n"
			       ".code32\n"
			       "2: nop")
extern const u8 activate_at[];

static void test_activation(void)
{
	static const struct {
		const char *what;
		u32 cr4, efer, cs_attributes;
		u16 tss;
		bool fails;
	} cases[] = {
		{ "without CR4.PAE", 0, (u32)EFER_LME, 0xc000, 0x89, true },
		{ "with CS.L", (u32)CR4_PAE, (u32)EFER_LME, 0xe000, 0x89, true },
		{ "with a TSS of 16 bits", (u32)CR4_PAE, (u32)EFER_LME, 0xc000, 0x81, true },
		{ "as it should be", (u32)CR4_PAE, (u32)EFER_LME, 0xc000, 0x89, false },
	};
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		*legacy_descriptor(LEGACY_FREE) = descriptor(0, 0xfffff, P | CODE_XR | cases[n].cs_attributes);
		*legacy_descriptor(LEGACY_FREE + 8) = descriptor(LOW32(&legacy_tss), 0x67, cases[n].tss);
		if (!cases[n].fails)
			continue; /* the tour below */
		t = RING0_32(activate, .cs = LEGACY_FREE, .tr = LEGACY_FREE + 8, .edx = LOW32(read_cr3()),
			     .ebp = cases[n].cr4, .esi = cases[n].efer);
		check(t.vector == EXC_GP && t.error == 0 && t.eip == LOW32(activate_at) && !(t.cr0 & CR0_PG),
		      "3A 9.8.5: paging with EFER.LME %s: #GP(0)", cases[n].what);
	}
	t = RING0_32(tour, .edx = LOW32(read_cr3()), .ebp = (u32)CR4_PAE, .esi = (u32)EFER_LME);
	check(t.vector == END_VECTOR && (t.edi & EFER_LMA) && (t.edi & EFER_LME),
	      "3A 9.8.5: long mode begins in compatibility mode, LMA is set");
	check(t.ebx == 0x12345678 && (u16)t.ebp == KERNEL_CS, "3A 9.8.5: a far CALL leads to 64-bit mode, RET back");
	check(!(t.esi & EFER_LMA) && (t.esi & EFER_LME) && !(t.cr0 & CR0_PG),
	      "3A 9.8.5.4: paging off ends long mode, LMA is clear, LME stays");
}

CODE(clear_pg, "mov %cr0, %rax; btr $31, %rax; mov %rax, %cr0")
CODE(clear_pae, "mov %cr4, %rax; btr $5, %rax; mov %rax, %cr4")
CODE(clear_lme, "mov $0xc0000080, %ecx; rdmsr; btr $8, %eax; wrmsr")
CODE(clear_pe, "mov %cr0, %rax; btr $0, %rax; mov %rax, %cr0")
CODE(nw_alone, "mov %cr0, %rax; btr $30, %rax; bts $29, %rax; mov %rax, %cr0")
CODE(cr0_high, "mov %cr0, %rax; bts $32, %rax; mov %rax, %cr0")
CODE32(pg_alone, "mov $0x80000010, %eax; mov %eax, %cr0")
CODE32(pcid_on, "mov %cr4, %eax; bts $17, %eax; mov %eax, %cr4")
CODE32(lme_with_paging, "mov $0xc0000080, %ecx; rdmsr; bts $8, %eax; wrmsr")

static u32 directory[1024] __attribute__((aligned(4096)));

static void test_forbidden(void)
{
	static const struct {
		const char *what;
		const u8 *code;
	} in_64_bit_mode[] = {
		{ "2 MOV CR: CR0.PG cleared in 64-bit mode", clear_pg },
		{ "3A 4.1.2: CR4.PAE cleared in long mode", clear_pae },
		{ "3A 4.1.2: EFER.LME changed with paging", clear_lme },
		{ "2 MOV CR: CR0.PE cleared with PG", clear_pe },
		{ "2 MOV CR: CR0.NW without CD", nw_alone },
		{ "2 MOV CR: bits 63:32 of CR0", cr0_high },
	};
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(in_64_bit_mode); n++) {
		struct trap trap = KERNEL(in_64_bit_mode[n].code);

		check_fault(&trap, EXC_GP, 0, "%s: #GP(0)", in_64_bit_mode[n].what);
	}
	t = RING0_32(pg_alone);
	check_fault_32(&t, EXC_GP, 0, "2 MOV CR: CR0.PG without PE: #GP(0)");
	if (has_pcid()) {
		t = RING0_32(pcid_on);
		check_fault_32(&t, EXC_GP, 0, "3A 4.10.1: CR4.PCIDE outside long mode: #GP(0)");
	}
	for (u32 n = 0; n < 16; n++)
		directory[n] = n << 22 | (u32)(PTE_P | PTE_W | PTE_PS);
	t = RING0_32(lme_with_paging, .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG), .cr3 = LOW32(directory), .cr4 = CR4_PSE);
	check_fault_32(&t, EXC_GP, 0, "3A 4.1.2: EFER.LME set with paging: #GP(0)");
}

/* ---- 64-bit and compatibility mode by far transfers: SDM vol. 3A 5.2.1, 5.8.1 ---- */

/*
 * The same bytes in three modes: INC EAX or a REX prefix; MOV ECX, imm32, or MOV CX, imm16 and two NOPs. EAX tells 64-bit mode, ECX
 * 16-bit code.
 */
#define TELL ".byte 0x31, 0xc0, 0x40, 0x90, 0xb9, 1, 0, 0x90, 0x90\n"
CODE(tell_then_end, TELL)
CODE(tell_then_return, TELL ".byte 0xcb\n")	     /* RETF of the code's own operand size */
CODE(tell_then_return_32, TELL ".byte 0x66, 0xcb\n") /* of 32 bits in 16-bit code */
CODE(jump_64, "ljmp *(%rbx)")
CODE(call_64, "lcall *(%rbx); mov %cs, %edx")
CODE32(jump_32, "ljmp *(%ebx)")
CODE32(call_32, "lcall *(%ebx); mov %cs, %edx")
CODE(return_to, "push %rdi; push %rsi; lretq")

enum { IS_64, IS_32, IS_16 };

static unsigned told(const struct trap *t)
{
	if ((u32)t->rax == 0 && (u32)t->rcx == 0x90900001)
		return IS_64;
	if ((u32)t->rax == 1 && (u32)t->rcx == 0x90900001)
		return IS_32;
	return (u16)t->rax == 1 && (u16)t->rcx == 1 ? IS_16 : 99;
}

static struct {
	u32 offset;
	u16 selector;
} __attribute__((packed)) pointer;

static void test_far_64(void)
{
	static const char *const names[] = { "64-bit", "32-bit", "16-bit" };
	static const u16 selectors[] = { USER_CS, USER_CS32, GDT_FREE | 3 };
	struct trap t;

	/* Reached with offset 0. */
	for (unsigned to = IS_64; to <= IS_16; to++)
		for (unsigned from = IS_64; from <= IS_32; from++) {
			u64 at = USER(&pointer);

			asm volatile("mov %0, %%ds" ::"r"(USER_DS));
			*gdt_entry(GDT_FREE) = descriptor(LOW32(USER(tell_then_end)), 0xffff, P | CODE_X | DPL(3));
			pointer.offset = to == IS_16 ? 0 : LOW32(USER(tell_then_end));
			pointer.selector = selectors[to];
			t = USER_MODE(from == IS_64 ? jump_64 : jump_32, .cs = selectors[from], .rbx = at, .rcx = 0);
			check(t.vector == END_VECTOR && told(&t) == to && t.cs == selectors[to],
			      "2 JMP: far, from %s to %s code", names[from], names[to]);
			asm volatile("mov %0, %%ds" ::"r"(USER_DS));
			*gdt_entry(GDT_FREE) =
				descriptor(LOW32(USER(tell_then_return_32)), 0xffff, P | CODE_X | DPL(3));
			pointer.offset = to == IS_16 ? 0 : LOW32(USER(tell_then_return));
			t = USER_MODE(from == IS_64 ? call_64 : call_32, .cs = selectors[from], .rbx = at, .rcx = 0);
			check(t.vector == END_VECTOR && told(&t) == to && t.cs == selectors[from] &&
				      (u16)t.rdx == selectors[from] && t.rsp == user_stack(),
			      "2 CALL, RET: far, from %s to %s code", names[from], names[to]);
		}
	*gdt_entry(GDT_FREE) = descriptor(LOW32(USER(tell_then_end)), 0xffff, P | CODE_X | DPL(3));
	for (unsigned to = IS_64; to <= IS_16; to++) {
		t = USER_MODE(return_to, .rdi = selectors[to], .rsi = to == IS_16 ? 0 : USER(tell_then_end));
		check(t.vector == END_VECTOR && told(&t) == to, "2 RET: far with REX.W, from 64-bit to %s code",
		      names[to]);
		t = run(&(struct frame){ .rip = to == IS_16 ? 0 : USER(tell_then_end),
					 .cs = selectors[to],
					 .ss = USER_DS,
					 .rsp = user_stack(),
					 .rflags = 2 });
		check(t.vector == END_VECTOR && told(&t) == to, "2 IRET: from 64-bit to %s code of ring 3", names[to]);
	}
	*gdt_entry(GDT_FREE) = descriptor(0, 0xfffff, P | CODE_X | DPL(3) | 0xe000);
	pointer.selector = GDT_FREE | 3;
	t = USER_MODE(jump_64, .rbx = USER(&pointer));
	check_fault(&t, EXC_GP, GDT_FREE, "2 JMP: to a segment with both L and D: #GP");
	t = USER_MODE(return_to, .rdi = GDT_FREE | 3, .rsi = USER(tell_then_end));
	check_fault(&t, EXC_GP, GDT_FREE, "2 RET: to one");
	t = USER_MODE(return_to, .rdi = USER_CS32, .rsi = BIT(32));
	check_fault(&t, EXC_GP, 0, "2 RET: to 32-bit code above 4 GiB: its limit: #GP(0)"); /* so does AMD's Zen 3 */
	t = USER_MODE(return_to, .rdi = USER_CS, .rsi = BIT(47));
	check_fault(&t, EXC_GP, 0, "2 RET: to a non-canonical address: #GP(0)");
	*gdt_entry(GDT_FREE) = 0;
}

void guest(void)
{
	test_real();
	test_unreal();
	test_activation();
	test_forbidden();
	test_far_64();
}
