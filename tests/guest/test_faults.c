/*
 * Exceptions, SDM vol. 3A chapter 6: which, with what error code, what was pushed, what of the registers is left; double
 * faults; faults in the middle of string instructions; instructions that do not lie in one page.
 */
#include "guest.h"

#define T	   0x8000000000ull /* nothing mapped */
#define PAGE	   4096ull
#define CR4_OSFXSR BIT(9)
#define CR0_NW	   BIT(29)
#define STATUS	   0x8d5ull

/* ---- one instruction, one fault ---- */

CODE(div_zero, "div %rcx")
CODE(idiv_overflow, "idiv %rcx")
CODE(ud0, ".byte 0x0f, 0xff, 0xc0")
CODE(ud1, ".byte 0x0f, 0xb9, 0xc0")
CODE(ud2, "ud2")
CODE(push_es, ".byte 0x06")
CODE(aaa, ".byte 0x37")
CODE(into_64, ".byte 0xce")
CODE(far_jmp_direct, ".byte 0xea, 0, 0, 0, 0, 0x10, 0")
CODE(group1_82, ".byte 0x82, 0xc0, 1")
CODE(lock_mov, ".byte 0xf0; mov %rax, (%rdi)")
CODE(lock_register, ".byte 0xf0, 0x48, 0x01, 0xc0") /* lock add %rax, %rax */
CODE(lock_cmp, ".byte 0xf0; cmp %rax, (%rdi)")
CODE(mov_to_cs, ".byte 0x8e, 0xc8")
CODE(mov_cr1, ".byte 0x0f, 0x20, 0xc8")
CODE(lea_register, ".byte 0x8d, 0xc0")
CODE(do_hlt, "hlt")
CODE(do_cli, "cli")
CODE(do_sti, "sti")
CODE(do_in, "in $0x80, %al")
CODE(do_out, "out %al, $0x80")
CODE(do_rdmsr, "rdmsr")
CODE(do_wrmsr, "wrmsr")
CODE(do_lgdt, "lgdt (%rdi)")
CODE(do_lidt, "lidt (%rdi)")
CODE(do_lmsw, "lmsw %ax")
CODE(do_clts, "clts")
CODE(do_invd, "invd")
CODE(do_swapgs, "swapgs")
CODE(do_sysret, "sysretq")
CODE(mov_from_cr0, "mov %cr0, %rax")
CODE(mov_from_dr7, "mov %dr7, %rax")
CODE(set_cr0, "mov %rax, %cr0")
CODE(set_cr4, "mov %rax, %cr4")
CODE(set_cr8, "mov %rax, %cr8")
CODE(set_dr7, "mov %rax, %dr7")
CODE(movaps, "movaps (%rdi), %xmm0")
CODE(cx16, "lock cmpxchg16b (%rdi)")
CODE(fnop, "fnop")
CODE(do_xgetbv, "xgetbv")
CODE(int3, "int3")
CODE(nop_int3, "nop; int3")
CODE(int_0x50, "int $0x50")
CODE(do_rdtsc, "rdtsc")
CODE(do_rdpmc, "rdpmc")

struct single {
	const char *name;
	const u8 *code;
	u8 ring;
	u8 vector;
	u64 rax, rcx, rdx, rdi, error;
};

static u64 somewhere[4] __attribute__((aligned(16)));

static const struct single singles[] = {
	{ "2 DIV: by zero", div_zero, 3, EXC_DE, 5, 0, 0, 0, 0 },
	{ "2 DIV: quotient too large", div_zero, 0, EXC_DE, 0, 2, 2, 0, 0 },
	{ "2 IDIV: -2^127 / -1", idiv_overflow, 3, EXC_DE, 0, ~0ull, BIT(63), 0, 0 },
	{ "2 UD0", ud0, 3, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 UD1", ud1, 3, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 UD2", ud2, 0, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 PUSH ES in 64-bit mode", push_es, 3, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 AAA in 64-bit mode", aaa, 3, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 INTO in 64-bit mode", into_64, 3, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 JMP ptr16:32 in 64-bit mode", far_jmp_direct, 3, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2D A: opcode 82 in 64-bit mode", group1_82, 3, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 LOCK: with MOV", lock_mov, 3, EXC_UD, 0, 0, 0, USER(somewhere), 0 },
	{ "2 LOCK: with a register destination", lock_register, 3, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 LOCK: with CMP", lock_cmp, 3, EXC_UD, 0, 0, 0, USER(somewhere), 0 },
	{ "2 MOV: to CS", mov_to_cs, 0, EXC_UD, 0x10, 0, 0, 0, 0 },
	{ "2 MOV CR: CR1", mov_cr1, 0, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 LEA: of a register", lea_register, 3, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 HLT: ring 3", do_hlt, 3, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 CLI: ring 3", do_cli, 3, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 STI: ring 3", do_sti, 3, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 IN: ring 3", do_in, 3, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 OUT: ring 3", do_out, 3, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 RDMSR: ring 3", do_rdmsr, 3, EXC_GP, 0, MSR_EFER, 0, 0, 0 },
	{ "2 WRMSR: ring 3", do_wrmsr, 3, EXC_GP, 0, MSR_LSTAR, 0, 0, 0 },
	{ "2 WRMSR: EFER's reserved bits", do_wrmsr, 0, EXC_GP, 0xd01 | 0x80, MSR_EFER, 0, 0, 0 },
	{ "2 WRMSR: EFER.LME while paging", do_wrmsr, 0, EXC_GP, 0x800, MSR_EFER, 0, 0, 0 },
	{ "2 WRMSR: a non-canonical LSTAR", do_wrmsr, 0, EXC_GP, 0, MSR_LSTAR, 0x8000, 0, 0 },
	{ "2 WRMSR: a non-canonical FS base", do_wrmsr, 0, EXC_GP, 0, MSR_FS_BASE, 0x8000, 0, 0 },
	{ "2 WRMSR: PAT with a type that there is not", do_wrmsr, 0, EXC_GP, 2, 0x277, 0, 0, 0 },
	{ "2 LGDT: ring 3", do_lgdt, 3, EXC_GP, 0, 0, 0, USER(somewhere), 0 },
	{ "2 LIDT: ring 3", do_lidt, 3, EXC_GP, 0, 0, 0, USER(somewhere), 0 },
	{ "2 LMSW: ring 3", do_lmsw, 3, EXC_GP, 1, 0, 0, 0, 0 },
	{ "2 CLTS: ring 3", do_clts, 3, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 INVD: ring 3", do_invd, 3, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 SWAPGS: ring 3", do_swapgs, 3, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 SYSRET: without EFER.SCE", do_sysret, 0, EXC_UD, 0, 0, 0, 0, 0 },
	{ "2 MOV CR: ring 3", mov_from_cr0, 3, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 MOV DR: ring 3", mov_from_dr7, 3, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 MOV CR: CR0.PG without PE", set_cr0, 0, EXC_GP, CR0_PG, 0, 0, 0, 0 },
	{ "2 MOV CR: CR0.NW without CD", set_cr0, 0, EXC_GP, CR0_PG | CR0_PE | CR0_NW, 0, 0, 0, 0 },
	{ "2 MOV CR: CR0.PG cleared in 64-bit mode", set_cr0, 0, EXC_GP, CR0_PE, 0, 0, 0, 0 },
	{ "2 MOV CR: the upper half of CR0", set_cr0, 0, EXC_GP, CR0_PG | CR0_PE | BIT(32), 0, 0, 0, 0 },
	{ "2 MOV CR: CR4.PAE cleared in 64-bit mode", set_cr4, 0, EXC_GP, 0, 0, 0, 0, 0 },
	{ "2 MOV CR: CR4's reserved bits", set_cr4, 0, EXC_GP, CR4_PAE | BIT(31), 0, 0, 0, 0 },
	{ "2 MOV CR: the upper half of CR4", set_cr4, 0, EXC_GP, CR4_PAE | BIT(40), 0, 0, 0, 0 },
	{ "2 MOV CR: CR8 above 15", set_cr8, 0, EXC_GP, 16, 0, 0, 0, 0 },
	{ "2 MOV DR: the upper half of DR7", set_dr7, 0, EXC_GP, BIT(32), 0, 0, 0, 0 },
	{ "2 XGETBV: without CR4.OSXSAVE", do_xgetbv, 3, EXC_UD, 0, 0, 0, 0, 0 },
	{ "3A 6.12.1.1: INT to a gate of ring 0 from ring 3", int_0x50, 3, EXC_GP, 0, 0, 0, 0, 0x50 * 8 + 2 },
	{ "3A 6.12.1.1: INT3 to a gate of ring 0 from ring 3", int3, 3, EXC_GP, 0, 0, 0, 0, EXC_BP * 8 + 2 },
	{ "2 RDPMC: ring 3 without CR4.PCE", do_rdpmc, 3, EXC_GP, 0, 0, 0, 0, 0 },
};

static struct trap run_single(const struct single *s)
{
	struct frame f = { .rip = s->ring ? USER(s->code) : (u64)s->code,
			   .cs = s->ring ? USER_CS : KERNEL_CS,
			   .ss = s->ring ? USER_DS : KERNEL_DS,
			   .rsp = s->ring ? user_stack() : kernel_stack(),
			   .rflags = 2 | STATUS,
			   .rax = s->rax,
			   .rcx = s->rcx,
			   .rdx = s->rdx,
			   .rdi = s->rdi };

	return run(&f);
}

static void test_singles(void)
{
	for (unsigned n = 0; n < ARRAY_SIZE(singles); n++) {
		const struct single *s = &singles[n];
		struct trap t = run_single(s);
		bool kept = t.rax == s->rax && t.rcx == s->rcx && t.rdx == s->rdx && t.rdi == s->rdi &&
			    t.rip == (s->ring ? USER(s->code) : (u64)s->code) &&
			    t.rsp == (s->ring ? user_stack() : kernel_stack()) && (t.rflags & STATUS) == STATUS;

		if (check_fault(&t, s->vector, s->error, "%s", s->name) && !kept)
			check(false, "%s: registers and RIP stay", s->name);
	}
}

/* ---- branches to where there are no addresses ---- */

CODE(jmp_rax, "jmp *%rax")
CODE(call_rax, "call *%rax")
CODE(jmp_memory, "jmp *(%rdi)")
CODE(call_memory, "call *(%rdi)")
CODE(do_ret, "ret")
CODE(do_ret_16, "ret $16")

static void test_branches(void)
{
	static const u64 targets[] = { BIT(47), ~0ull << 47 ^ BIT(47), BIT(63), BIT(62) | 1, 0x4141414141414141 };
	static const struct {
		const char *name;
		const u8 *code;
	} branches[] = { { "JMP r64", jmp_rax },      { "CALL r64", call_rax }, { "JMP m64", jmp_memory },
			 { "CALL m64", call_memory }, { "RET", do_ret },	{ "RET imm16", do_ret_16 } };
	u64 *stack = (u64 *)(kernel_stack() - 64);

	for (unsigned n = 0; n < ARRAY_SIZE(targets); n++)
		for (unsigned k = 0; k < ARRAY_SIZE(branches); k++) {
			struct trap t;

			somewhere[0] = stack[0] = targets[n];
			stack[-1] = 0x5555;
			/* #GP has a stack of its own: below RSP must be what was there. */
			idt_gate(EXC_GP)->low |= 1ull << 32;
			t = KERNEL(branches[k].code, .rax = targets[n], .rdi = (u64)somewhere, .rsp = (u64)stack);
			reset_gate(EXC_GP);
			if (check_fault(&t, EXC_GP, 0, "2 %s: to %lx", branches[k].name, targets[n]))
				check(t.rip == (u64)branches[k].code && t.rsp == (u64)stack && stack[-1] == 0x5555,
				      "2 %s: RIP, RSP and the stack stay", branches[k].name);
		}
}

static void test_controlled(void)
{
	u64 cr0 = read_cr0(), cr4 = read_cr4();
	struct trap t;

	write_cr0(cr0 | CR0_TS);
	t = USER_MODE(fnop);
	check_fault(&t, EXC_NM, 0, "3A 2.5: x87 with CR0.TS");
	write_cr0((cr0 & ~CR0_TS) | CR0_EM);
	t = USER_MODE(fnop);
	check_fault(&t, EXC_NM, 0, "3A 2.5: x87 with CR0.EM");
	write_cr4(cr4 | CR4_OSFXSR);
	t = USER_MODE(movaps, .rdi = USER(somewhere));
	check_fault(&t, EXC_UD, 0, "3A 2.5: SSE with CR0.EM");
	write_cr0(cr0);
	t = USER_MODE(movaps, .rdi = USER(somewhere) + 8);
	check_fault(&t, EXC_GP, 0, "1 4.1.1: MOVAPS of a misaligned operand");
	t = USER_MODE(movaps, .rdi = USER(somewhere));
	check_end(&t, "1 4.1.1: and of an aligned one");
	write_cr4(cr4 & ~CR4_OSFXSR);
	t = USER_MODE(movaps, .rdi = USER(somewhere));
	check_fault(&t, EXC_UD, 0, "3A 2.5: SSE without CR4.OSFXSR");
	t = USER_MODE(cx16, .rdi = USER(somewhere) + 8);
	check_fault(&t, EXC_GP, 0, "2 CMPXCHG16B: misaligned");
	write_cr4(cr4 | CR4_TSD);
	t = USER_MODE(do_rdtsc);
	check_fault(&t, EXC_GP, 0, "2 RDTSC: CR4.TSD in ring 3");
	t = KERNEL(do_rdtsc);
	check_end(&t, "2 RDTSC: CR4.TSD in ring 0");
	write_cr4(cr4);
	if (has_umip()) {
		extern const u8 do_sgdt[];

		write_cr4(cr4 | CR4_UMIP);
		t = USER_MODE(do_sgdt, .rdi = USER(somewhere));
		check_fault(&t, EXC_GP, 0, "2 SGDT: CR4.UMIP in ring 3");
		write_cr4(cr4);
		t = USER_MODE(do_sgdt, .rdi = USER(somewhere));
		check_end(&t, "2 SGDT: in ring 3 without UMIP");
	}
}
CODE(do_sgdt, "sgdt (%rdi)")

/* ---- what is pushed ---- */

static u64 handler_frame;

static void note_frame(struct frame *f)
{
	handler_frame = (u64)f;
	f->rip = (u64)int_0x50 + 2; /* go on with the snippet's end */
	f->cs = KERNEL_CS;
}

static void test_frames(void)
{
	struct trap t;

	t = KERNEL(ud2);
	check(t.rflags & FLAG_RF, "3A 17.3.1.1: faults push RF set");
	t = KERNEL(int3);
	check_fault(&t, EXC_BP, 0, "3A 6.15: INT3");
	check(t.rip == (u64)int3 + 1 && !(t.rflags & FLAG_RF),
	      "3A 6.5: a trap: RIP is that of the next instruction, RF clear");
	t = KERNEL(nop_int3, .rflags = 2 | FLAG_RF);
	check(t.vector == EXC_BP && !(t.rflags & FLAG_RF), "3B 17.3.1.1: RF that IRET loads lasts for one instruction");
	t = KERNEL(int_0x50);
	check_fault(&t, 0x50, 0, "3A 6.4.4: INT n");
	check(t.rip == (u64)int_0x50 + 2 && t.cs == KERNEL_CS && t.ss == KERNEL_DS, "3A 6.4.4: with RIP, CS and SS");
	set_gate(EXC_BP, idt_gate(EXC_BP)->low & 0xffff, KERNEL_CS, GATE_INTERRUPT, 3, 0);
	reset_gate(EXC_BP);
	idt_gate(EXC_BP)->low |= 3ull << 45;
	t = USER_MODE(int3);
	check_fault(&t, EXC_BP, 0, "3A 6.12.1.1: INT3 from ring 3 to a gate of ring 3");
	check(t.cs == USER_CS && t.ss == USER_DS && t.rsp == user_stack() && t.rip == USER(int3) + 1,
	      "3A 6.14.2: with the state of ring 3");
	reset_gate(EXC_BP);

	set_handler(0x50, note_frame);
	for (unsigned n = 0; n < 16; n += 5) {
		u64 rsp = kernel_stack() - 64 - n;

		t = KERNEL(int_0x50, .rsp = rsp);
		check(t.vector == END_VECTOR && handler_frame + sizeof(struct frame) == (rsp & ~15ull) && t.rsp == rsp,
		      "3A 6.14.2: the frame is aligned to 16 bytes, RSP comes back: %u", n);
	}
	reset_gate(0x50);
	idt_gate(0x50)->low |= 3ull << 32;
	t = KERNEL(int_0x50);
	check(t.vector == END_VECTOR && handler_frame + sizeof(struct frame) == (tss()->ist[2] & ~15ull),
	      "3A 6.14.5: a gate with IST 3 takes its stack");
	check_equal(t.rsp, kernel_stack(), "3A 6.14.5: and IRETQ goes back to the old one");
	tss()->ist[2] -= 3;
	t = KERNEL(int_0x50);
	check(t.vector == END_VECTOR && handler_frame + sizeof(struct frame) == (tss()->ist[2] & ~15ull),
	      "3A 6.14.5: an IST entry is aligned too");
	tss()->ist[2] += 3;
	set_handler(0x50, NULL);
	reset_gate(0x50);
}

/* ---- segments: #NP, #SS, #GP with a selector, #TS ---- */

CODE(load_ds, "mov %eax, %ds")
CODE(load_ss, "mov %eax, %ss")
CODE(load_fs, "mov %eax, %fs")
CODE(do_lldt, "lldt %ax")
CODE(do_ltr, "ltr %ax")

static void try_descriptor(const u8 *code, unsigned ring, u64 d, unsigned rpl, u64 vector, const char *name)
{
	u64 selector = GDT_FREE | rpl;
	struct trap t;

	*gdt_entry(GDT_FREE) = d;
	*gdt_entry(GDT_FREE + 8) = 0;
	t = ring ? USER_MODE(code, .rax = selector) : KERNEL(code, .rax = selector);
	if (vector == END_VECTOR)
		check_end(&t, "%s", name);
	else
		check_fault(&t, vector, GDT_FREE, "%s", name);
	*gdt_entry(GDT_FREE) = 0;
	asm volatile("mov %0, %%ds; mov %0, %%fs" ::"r"(KERNEL_DS));
}

static void test_segments(void)
{
	u64 data = descriptor(0, 0xfffff, ATTR_DATA32), code = descriptor(0, 0xfffff, ATTR_CODE32);
	u64 absent = BIT(47), user = 3ull << 45, readable = BIT(41), writable = BIT(41), system = BIT(44);
	struct trap t;

	try_descriptor(load_ds, 0, data, 0, END_VECTOR, "2 MOV: a data segment into DS");
	try_descriptor(load_ds, 0, data & ~absent, 0, EXC_NP, "2 MOV: an absent one: #NP");
	try_descriptor(load_ds, 0, code, 0, END_VECTOR, "2 MOV: a readable code segment into DS");
	try_descriptor(load_ds, 0, code & ~readable, 0, EXC_GP, "2 MOV: an execute-only one");
	try_descriptor(load_ds, 0, data & ~system, 0, EXC_GP, "2 MOV: a system descriptor");
	try_descriptor(load_ds, 3, data, 3, EXC_GP, "2 MOV: DS of ring 0 in ring 3");
	try_descriptor(load_ds, 0, data, 3, EXC_GP, "2 MOV: DS with RPL 3 and DPL 0 in ring 0");
	try_descriptor(load_fs, 3, data | user, 3, END_VECTOR, "2 MOV: FS of ring 3 in ring 3");
	try_descriptor(load_ss, 0, data, 0, END_VECTOR, "2 MOV: SS");
	try_descriptor(load_ss, 0, data & ~absent, 0, EXC_SS, "2 MOV: an absent SS: #SS");
	try_descriptor(load_ss, 0, data & ~writable, 0, EXC_GP, "2 MOV: a read-only SS");
	try_descriptor(load_ss, 0, code, 0, EXC_GP, "2 MOV: a code segment into SS");
	try_descriptor(load_ss, 0, data | user, 0, EXC_GP, "2 MOV: SS with DPL 3 in ring 0");
	try_descriptor(load_ss, 0, data | user, 3, EXC_GP, "2 MOV: SS with RPL 3 in ring 0");
	try_descriptor(do_lldt, 0, descriptor(0, 7, 0x02), 0, EXC_NP, "2 LLDT: absent");
	try_descriptor(do_lldt, 0, data, 0, EXC_GP, "2 LLDT: not an LDT");
	try_descriptor(do_ltr, 0, descriptor(0, 0x67, 0x09), 0, EXC_NP, "2 LTR: absent");
	try_descriptor(do_ltr, 0, descriptor(0, 0x67, 0x8b), 0, EXC_GP, "2 LTR: busy");
	t = KERNEL(load_ds, .rax = 0x1000);
	check_fault(&t, EXC_GP, 0x1000, "2 MOV: a selector beyond the GDT");
	t = KERNEL(load_ds, .rax = 7);
	check_fault(&t, EXC_GP, 4, "2 MOV: a selector of the LDT without one");
	t = KERNEL(load_ds, .rax = 0x1003);
	check_fault(&t, EXC_GP, 0x1000, "3A 6.13: RPL is not in the error code");
	t = KERNEL(load_ss, .rax = 0);
	check_end(&t, "2 MOV: a null SS in ring 0 of 64-bit mode");
	t = KERNEL(load_ss, .rax = 3);
	check_fault(&t, EXC_GP, 0, "2 MOV: a null SS with another RPL");
	t = USER_MODE(load_ss, .rax = 3);
	check_fault(&t, EXC_GP, 0, "2 MOV: a null SS in ring 3");
	t = USER_MODE(load_ds, .rax = 0);
	check_end(&t, "2 MOV: a null DS");
	t = KERNEL(do_ltr, .rax = 0);
	check_fault(&t, EXC_GP, 0, "2 LTR: null");
}

/* ---- faults on the way to a handler ---- */

static void absent_gate(u8 vector) { idt_gate(vector)->low &= ~BIT(47); }

static void test_gates(void)
{
	struct trap t;

	absent_gate(0x50);
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_NP, 0x50 * 8 + 2, "3A 6.13: an absent gate: #NP with IDT set, EXT clear for INT n");
	check_equal(t.rip, (u64)int_0x50, "3A 6.5: RIP is the INT's");
	set_gate(0x50, 0x1000, KERNEL_CS, 5, 0, 0);
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_GP, 0x50 * 8 + 2, "3A 6.14.1: a task gate in long mode");
	set_gate(0x50, 0x1000, KERNEL_DS, GATE_INTERRUPT, 0, 0);
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_GP, KERNEL_DS, "3A 6.12.1: a gate to a data segment");
	set_gate(0x50, 0x1000, KERNEL_CS32, GATE_INTERRUPT, 0, 0);
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_GP, KERNEL_CS32, "3A 6.14.1: a gate to a 32-bit segment");
	set_gate(0x50, 0x1000, 0, GATE_INTERRUPT, 0, 0);
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_GP, 0, "3A 6.12.1: a gate with a null selector");
	set_gate(0x50, 0x1000, 0x2000, GATE_INTERRUPT, 0, 0);
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_GP, 0x2000, "3A 6.12.1: a gate with a selector beyond the GDT");
	*gdt_entry(GDT_FREE) = descriptor(0, 0, ATTR_CODE64 & ~0x80);
	set_gate(0x50, 0x1000, GDT_FREE, GATE_INTERRUPT, 0, 0);
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_NP, GDT_FREE, "3A 6.12.1: a gate to an absent segment");
	set_gate(0x50, 0x1000, USER_CS & ~3, GATE_INTERRUPT, 0, 0);
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_GP, USER_CS & ~3, "3A 6.12.1.1: a gate to ring 3 from ring 0");
	set_gate(0x50, BIT(47), KERNEL_CS, GATE_INTERRUPT, 0, 0);
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_GP, 0, "3A 6.14.1: a gate to a non-canonical address");
	reset_gate(0x50);

	load_idt(idt_base, 0x4f * 16 + 15);
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_GP, 0x50 * 8 + 2, "3A 6.10: a vector beyond the IDT");
	load_idt(idt_base, 0xfff);
	absent_gate(EXC_UD);
	t = KERNEL(ud2);
	check_fault(&t, EXC_NP, EXC_UD * 8 + 3, "3A 6.13: EXT is set when an exception was on its way");
	check_equal(t.rip, (u64)ud2, "3A 6.5: RIP is the one of the first");
	reset_gate(EXC_UD);
}

/* The TSS must have the whole entry that is used. */
static void test_tss_limit(void)
{
	static struct tss copy __attribute__((aligned(16)));
	struct tss *old = tss();
	struct trap t;

	memcpy(&copy, old, sizeof(copy));
	*gdt_entry(GDT_TSS) = descriptor((u32)(u64)&copy, 90, 0x89); /* the last byte of IST7 is at 91 */
	asm volatile("ltr %w0" ::"r"(GDT_TSS));
	idt_gate(0x50)->low |= 7ull << 32;
	t = KERNEL(int_0x50);
	check_fault(&t, EXC_TS, GDT_TSS, "3A 6.14.5: an IST entry beyond the TSS: #TS with TR");
	reset_gate(0x50);
	*gdt_entry(GDT_TSS) = descriptor((u32)(u64)old, sizeof(*old) - 1, 0x89);
	asm volatile("ltr %w0" ::"r"(GDT_TSS));
}

static void test_io_permission(void)
{
	static struct {
		struct tss tss;
		u8 map[0x80 / 8 + 2];
	} big __attribute__((aligned(16)));
	struct tss *old = tss();
	struct trap t;

	memcpy(&big.tss, old, sizeof(*old));
	big.tss.io_map = sizeof(struct tss);
	memset(big.map, 0xff, sizeof(big.map));
	*gdt_entry(GDT_TSS) = descriptor((u32)(u64)&big, sizeof(big) - 1, 0x89);
	asm volatile("ltr %w0" ::"r"(GDT_TSS));
	t = USER_MODE(do_out);
	check_fault(&t, EXC_GP, 0, "1 19.5.2: a port whose bit is set");
	big.map[0x80 / 8] &= ~1;
	t = USER_MODE(do_out);
	check_end(&t, "1 19.5.2: a port whose bit is clear");
	t = USER_MODE(do_out, .rflags = 2 | FLAG_IOPL);
	check_end(&t, "1 19.5.1: any port with IOPL 3");
	*gdt_entry(GDT_TSS) = descriptor((u32)(u64)&big, sizeof(big) - 2, 0x89);
	asm volatile("ltr %w0" ::"r"(GDT_TSS));
	t = USER_MODE(do_out);
	check_fault(&t, EXC_GP, 0, "1 19.5.2: two bytes are read, both must be in the TSS");
	*gdt_entry(GDT_TSS) = descriptor((u32)(u64)old, sizeof(*old) - 1, 0x89);
	asm volatile("ltr %w0" ::"r"(GDT_TSS));
}

/* ---- double faults ---- */

CODE(load_there, "mov (%rdi), %rax")
CODE(push_there, "push %rax")

static void test_double(void)
{
	u64 rsp0 = tss()->rsp[0], ist2 = tss()->ist[1];
	struct trap t;

	absent_gate(EXC_GP);
	t = KERNEL(load_there, .rdi = BIT(47));
	check_fault(&t, EXC_DF, 0, "3A 6.15: #NP while #GP is delivered: #DF");
	check(t.cs == KERNEL_CS && t.ss == KERNEL_DS && t.rsp == kernel_stack(),
	      "3A 6.15: on its IST stack, with the old one");
	reset_gate(EXC_GP);
	absent_gate(EXC_PF);
	t = KERNEL(load_there, .rdi = T);
	check_fault(&t, EXC_DF, 0, "3A 6.15: #NP while #PF is delivered: #DF");
	check_equal(t.cr2, T, "3A 6.15: CR2 is the first fault's");
	reset_gate(EXC_PF);
	absent_gate(EXC_DE);
	t = USER_MODE(div_zero);
	check_fault(&t, EXC_DF, 0, "3A 6.15: #NP while #DE is delivered: #DF");
	reset_gate(EXC_DE);

	t = KERNEL(push_there, .rsp = T + 64);
	check_fault(&t, EXC_DF, 0, "3A 6.15: a push without a stack: #PF, #PF: #DF");
	check_equal(t.rsp, T + 64, "3A 6.15: with RSP as it was");
	tss()->rsp[0] = T + 64;
	t = USER_MODE(ud2);
	check_fault(&t, EXC_DF, 0, "3A 6.15: #UD of ring 3 without a stack of ring 0");
	check(t.cs == USER_CS && t.rip == USER(ud2) && t.rsp == user_stack(), "3A 6.15: with ring 3's state");
	tss()->rsp[0] = BIT(47);
	t = USER_MODE(ud2);
	check_fault(&t, EXC_DF, 0, "3A 6.15: and with a non-canonical one: #SS, #SS: #DF");
	tss()->rsp[0] = rsp0;

	/* #GP whose stack is absent: a page fault after a contributory exception is delivered by itself. */
	tss()->ist[1] = T + 64;
	idt_gate(EXC_GP)->low |= 2ull << 32;
	t = KERNEL(load_there, .rdi = BIT(47));
	check_page_fault(&t, PF_W, T + 56, "3A 6.15: #PF while #GP is delivered: handled after it");
	check_equal(t.rip, (u64)load_there, "3A 6.15: with the same RIP");
	reset_gate(EXC_GP);
	idt_gate(EXC_PF)->low |= 2ull << 32;
	t = KERNEL(load_there, .rdi = T + PAGE);
	check_fault(&t, EXC_DF, 0, "3A 6.15: #PF while #PF is delivered: #DF");
	check_equal(t.cr2, T + 56, "3A 6.15: CR2 is the second one's");
	reset_gate(EXC_PF);
	tss()->ist[1] = ist2;
}

/* A handler that faults in turn, and so on: each has its frame. */
static unsigned depth;

static void fault_again(struct frame *f)
{
	if (++depth < 20)
		asm volatile("ud2");
	f->rip += 2;
}

static void test_nested(void)
{
	struct trap t;

	set_handler(EXC_UD, fault_again);
	t = KERNEL(ud2);
	check(t.vector == END_VECTOR && depth == 20, "3A 6.12: 20 handlers, each interrupted by the next");
	set_handler(EXC_UD, NULL);
}

/* ---- alignment ---- */

CODE(load_16, "mov (%rdi), %ax")
CODE(load_32, "mov (%rdi), %eax")
CODE(load_8, "mov (%rdi), %al")
CODE(pop_rax, "pop %rax")

static void test_alignment(void)
{
	u64 at = USER(somewhere);
	struct trap t;

	write_cr0(read_cr0() | CR0_AM);
	t = USER_MODE(load_32, .rdi = at + 2, .rflags = 2 | FLAG_AC);
	check_fault(&t, EXC_AC, 0, "3A 6.15: #AC of 4 bytes");
	t = USER_MODE(load_16, .rdi = at + 1, .rflags = 2 | FLAG_AC);
	check_fault(&t, EXC_AC, 0, "3A 6.15: #AC of 2 bytes");
	t = USER_MODE(load_there, .rdi = at + 4, .rflags = 2 | FLAG_AC);
	check_fault(&t, EXC_AC, 0, "3A 6.15: #AC of 8 bytes");
	t = USER_MODE(pop_rax, .rsp = user_stack() - 20, .rflags = 2 | FLAG_AC);
	check_fault(&t, EXC_AC, 0, "3A 6.15: #AC of a pop");
	check_equal(t.rsp, user_stack() - 20, "3A 6.15: RSP stays");
	t = USER_MODE(load_8, .rdi = at + 3, .rflags = 2 | FLAG_AC);
	check_end(&t, "3A 6.15: no #AC of a byte");
	t = USER_MODE(load_there, .rdi = at + 8, .rflags = 2 | FLAG_AC);
	check_end(&t, "3A 6.15: none when aligned");
	t = USER_MODE(load_32, .rdi = at + 2);
	check_end(&t, "3A 6.15: none without RFLAGS.AC");
	t = KERNEL(load_32, .rdi = (u64)somewhere + 2, .rflags = 2 | FLAG_AC);
	check_end(&t, "3A 6.15: none in ring 0");
	write_cr0(read_cr0() & ~CR0_AM);
	t = USER_MODE(load_32, .rdi = at + 2, .rflags = 2 | FLAG_AC);
	check_end(&t, "3A 6.15: none without CR0.AM");
}

/* ---- compatibility mode's own ---- */

CODE32(into_32, "into")
CODE32(bound_32, "bound %eax, (%edi)")

static void test_compatibility(void)
{
	static u32 bounds[2] = { 2, 5 };
	struct trap t;

	idt_gate(EXC_OF)->low |= 3ull << 45;
	t = USER_MODE(into_32, .cs = USER_CS32, .rflags = 2 | FLAG_OF);
	check_fault(&t, EXC_OF, 0, "3A 6.15: INTO with OF in compatibility mode: #OF");
	check_equal(t.rip, USER(into_32) + 1, "3A 6.15: a trap");
	t = USER_MODE(into_32, .cs = USER_CS32);
	check_end(&t, "3A 6.15: INTO without OF");
	reset_gate(EXC_OF);
	t = USER_MODE(into_32, .cs = USER_CS32, .rflags = 2 | FLAG_OF);
	check_fault(&t, EXC_GP, EXC_OF * 8 + 2, "3A 6.12.1.1: INTO to a gate of ring 0 from ring 3");
	asm volatile("mov %0, %%ds" ::"r"(USER_DS));
	t = USER_MODE(bound_32, .cs = USER_CS32, .rdi = USER(bounds), .rax = 6);
	check_fault(&t, EXC_BR, 0, "3A 6.15: BOUND: #BR");
	check_equal(t.rip, USER(bound_32), "3A 6.15: a fault, whatever the gate's DPL");
	asm volatile("mov %0, %%ds" ::"r"(USER_DS));
	t = USER_MODE(bound_32, .cs = USER_CS32, .rdi = USER(bounds), .rax = 5);
	check_end(&t, "3A 6.15: BOUND within its bounds");
	asm volatile("mov %0, %%ds" ::"r"(KERNEL_DS));
}

/* ---- a memory operand that is not there: nothing has changed ---- */

#define ABSENT_OPERAND(_)                                                                                              \
	_(mov_load, "mov (%rdi), %rbx")                                                                                \
	_(mov_store, "mov %rbx, (%rdi)")                                                                               \
	_(add, "add %rbx, (%rdi)")                                                                                     \
	_(adc_load, "adc (%rdi), %rbx")                                                                                \
	_(inc, "incl (%rdi)")                                                                                          \
	_(neg, "negq (%rdi)")                                                                                          \
	_(not_, "notb (%rdi)")                                                                                         \
	_(shl, "shlq $3, (%rdi)")                                                                                      \
	_(rcr, "rcrl %cl, (%rdi)")                                                                                     \
	_(shld, "shld %cl, %rbx, (%rdi)")                                                                              \
	_(bts, "bts %rbx, (%rdi)")                                                                                     \
	_(bsf, "bsf (%rdi), %rbx")                                                                                     \
	_(xchg, "xchg %rbx, (%rdi)")                                                                                   \
	_(xadd, "xadd %rbx, (%rdi)")                                                                                   \
	_(cmpxchg, "cmpxchg %rbx, (%rdi)")                                                                             \
	_(cmpxchg8b, "cmpxchg8b (%rdi)")                                                                               \
	_(cmpxchg16b, "cmpxchg16b (%rdi)")                                                                             \
	_(lock_xadd, "lock xadd %rbx, (%rdi)")                                                                         \
	_(lock_cmpxchg, "lock cmpxchg %ebx, (%rdi)")                                                                   \
	_(mul, "mulq (%rdi)")                                                                                          \
	_(imul, "imul (%rdi), %rbx")                                                                                   \
	_(div, "divq (%rdi)")                                                                                          \
	_(movzx, "movzwl (%rdi), %ebx")                                                                                \
	_(movsx, "movslq (%rdi), %rbx")                                                                                \
	_(cmov, "cmovo (%rdi), %rbx")                                                                                  \
	_(setcc, "seto (%rdi)")                                                                                        \
	_(push, "push (%rdi)")                                                                                         \
	_(pop, "pop (%rdi)")                                                                                           \
	_(call, "call *(%rdi)")                                                                                        \
	_(jmp, "jmp *(%rdi)")                                                                                          \
	_(movs, "movsq")                                                                                               \
	_(stos, "stosl")                                                                                               \
	_(lods, "xchg %rsi, %rdi; lodsb")                                                                              \
	_(cmps, "cmpsb")                                                                                               \
	_(scas, "scasw")                                                                                               \
	_(cmp, "cmp %rbx, (%rdi)")                                                                                     \
	_(test, "test %ebx, (%rdi)")                                                                                   \
	_(movnti, "movnti %rbx, (%rdi)")                                                                               \
	_(sgdt, "sgdt (%rdi)")                                                                                         \
	_(smsw, "smsw (%rdi)")                                                                                         \
	_(xlat, "xchg %rbx, %rdi; xlatb")                                                                              \
	_(mov_moffs, "movabs 0x8000000000, %rax")                                                                      \
	_(far_jmp, "ljmp *(%rdi)")                                                                                     \
	_(verw, "verw (%rdi)")                                                                                         \
	_(lar, "lar (%rdi), %ebx")                                                                                     \
	_(mov_seg, "mov (%rdi), %ds")                                                                                  \
	_(str, "str (%rdi)")                                                                                           \
	_(ret, "mov %rdi, %rsp; ret")                                                                                  \
	_(ret_imm, "mov %rdi, %rsp; ret $16")                                                                          \
	_(popf, "mov %rdi, %rsp; popf")                                                                                \
	_(leave, "mov %rdi, %rbp; leave")                                                                              \
	_(iretq, "mov %rdi, %rsp; iretq")                                                                              \
	_(lret, "mov %rdi, %rsp; lretq")                                                                               \
	_(mulx, "mulx (%rdi), %rbx, %rcx")                                                                             \
	_(pdep, "pdep (%rdi), %rcx, %rbx")                                                                             \
	_(popcnt, "popcnt (%rdi), %rbx")                                                                               \
	_(movbe, "movbe (%rdi), %rbx")                                                                                 \
	_(crc32, "crc32q (%rdi), %rbx")

#define _(name, text) CODE(absent_##name, text)
ABSENT_OPERAND(_)
#undef _

static bool same_registers(const struct trap *a, const struct frame *b)
{
	return a->rbx == b->rbx && a->rcx == b->rcx && a->rdx == b->rdx && a->rsi + a->rdi == b->rsi + b->rdi &&
	       a->r8 == b->r8 && a->rax == b->rax;
}

/* Instructions of ABSENT_OPERAND that some processors do not have. */
static bool is_offered(const u8 *code)
{
	if (code == absent_mulx || code == absent_pdep)
		return has_bmi2();
	return code != absent_movbe || has_movbe();
}

static void test_absent_operands(void)
{
	static const struct {
		const u8 *code;
		const char *name;
	} all[] = {
#define _(name, text) { absent_##name, text },
		ABSENT_OPERAND(_)
#undef _
	};

	for (unsigned n = 0; n < ARRAY_SIZE(all); n++) {
		struct frame f = { .rip = (u64)all[n].code,
				   .cs = KERNEL_CS,
				   .ss = KERNEL_DS,
				   .rsp = kernel_stack(),
				   .rflags = 2 | STATUS,
				   .rax = 0x1111,
				   .rbx = 0,
				   .rcx = 3,
				   .rdx = 0x4444,
				   .rsi = (u64)somewhere,
				   .rdi = T,
				   .r8 = 0x8888,
				   .rbp = 0x5555 };
		struct trap t;

		if (!is_offered(all[n].code)) {
			skip(all[n].name, "not offered");
			continue;
		}
		if (all[n].code == absent_xlat)
			f.rax = 0;
		/* Without a stack to push on: in ring 3. */
		f.rip = USER(f.rip);
		f.cs = USER_CS;
		f.ss = USER_DS;
		f.rsp = user_stack();
		f.rsi = USER(somewhere);
		t = run(&f);
		if (all[n].code == absent_xlat) {
			t.rdi = f.rdi;
			t.rbx = f.rbx;
		}
		check(t.vector == EXC_PF && t.cr2 == T && (t.rflags & STATUS) == STATUS && same_registers(&t, &f) &&
			      (t.rsp == user_stack() || t.rsp == T) && (t.rbp == 0x5555 || t.rbp == T),
		      "3A 6.5: %s on an absent page leaves all registers", all[n].name);
	}
}

/* ---- string instructions stop in the middle, and go on ---- */

CODE(rep_movsb, "rep movsb")
CODE(rep_movsq, "rep movsq")
CODE(rep_stosl, "rep stosl")
CODE(rep_lodsb, "rep lodsb")
CODE(repe_cmpsb, "repe cmpsb")
CODE(repne_scasb, "repne scasb")
CODE(std_movsw, "std; rep movsw")
CODE(std_stosb, "std; rep stosb")

static u8 *page_a, *page_b;

/* Continue where the fault was. */
static struct trap go_on(const struct trap *t)
{
	struct frame f;

	memcpy(&f, t, sizeof(f));
	return run(&f);
}

static void test_strings(void)
{
	struct trap t;

	map_page(T, (u64)page_a, PTE_P | PTE_W);
	for (unsigned n = 0; n < PAGE; n++)
		page_b[n] = (u8)(n * 7 + 1);

	t = KERNEL(rep_movsb, .rdi = T + PAGE - 100, .rsi = (u64)page_b, .rcx = 300);
	check_page_fault(&t, PF_W, T + PAGE, "2 REP MOVSB: into an absent page");
	check(t.rip == (u64)rep_movsb && t.rcx == 200 && t.rdi == T + PAGE && t.rsi == (u64)page_b + 100 &&
		      !memcmp(page_a + PAGE - 100, page_b, 100),
	      "2 REP: registers say what is left, what was done is done");
	u8 *second = frame_alloc();
	map_page(T + PAGE, (u64)second, PTE_P | PTE_W);
	t = go_on(&t);
	check(t.vector == END_VECTOR && t.rcx == 0 && !memcmp(second, page_b + 100, 200), "2 REP: it goes on");
	unmap_page(T + PAGE);

	t = KERNEL(rep_movsq, .rdi = T + PAGE - 20, .rsi = (u64)page_b, .rcx = 10);
	check_page_fault(&t, PF_W, T + PAGE, "2 REP MOVSQ: an element over the boundary");
	check(t.rcx == 8 && t.rdi == T + PAGE - 4 && t.rsi == (u64)page_b + 16, "2 REP: two elements are done");
	t = KERNEL(rep_movsb, .rdi = (u64)second, .rsi = T + PAGE - 10, .rcx = 11);
	check_page_fault(&t, 0, T + PAGE, "2 REP MOVSB: from an absent page");
	check(t.rcx == 1 && t.rsi == T + PAGE && t.rdi == (u64)second + 10, "2 REP: the last one is missing");
	t = KERNEL(rep_stosl, .rdi = T + PAGE - 64, .rcx = 100, .rax = 0xabcdef01);
	check_page_fault(&t, PF_W, T + PAGE, "2 REP STOSD: into an absent page");
	check(t.rcx == 84 && *(u32 *)(page_a + PAGE - 4) == 0xabcdef01, "2 REP: 16 elements are done");
	t = KERNEL(rep_lodsb, .rsi = T + PAGE - 5, .rcx = 9);
	check(t.vector == EXC_PF && t.rcx == 4 && t.rsi == T + PAGE, "2 REP LODSB: from an absent page");
	memcpy(page_a + PAGE - 50, page_b, 50);
	t = KERNEL(repe_cmpsb, .rsi = (u64)page_b, .rdi = T + PAGE - 50, .rcx = 60);
	check(t.vector == EXC_PF && t.rcx == 10 && t.rsi == (u64)page_b + 50, "2 REPE CMPSB: with an absent page");
	t = KERNEL(repne_scasb, .rdi = T + PAGE - 50, .rcx = 60, .rax = 0);
	check(t.vector == EXC_PF && t.rcx == 10 && t.rdi == T + PAGE, "2 REPNE SCASB: over an absent page");

	map_page(T + PAGE, (u64)page_a, PTE_P | PTE_W);
	unmap_page(T);
	t = KERNEL(std_movsw, .rdi = T + PAGE + 20, .rsi = (u64)page_b + 100, .rcx = 20);
	check_page_fault(&t, PF_W, T + PAGE - 2, "2 REP MOVSW: downwards into an absent page");
	check(t.rcx == 9 && t.rdi == T + PAGE - 2 && t.rsi == (u64)page_b + 78, "2 REP: registers");
	t = KERNEL(std_stosb, .rdi = T + PAGE + 5, .rcx = 20);
	check(t.vector == EXC_PF && t.cr2 == T + PAGE - 1 && t.rcx == 14, "2 REP STOSB: downwards");

	/* Zero repetitions touch nothing; overlapping ones see their own stores. */
	t = KERNEL(rep_movsb, .rdi = T, .rsi = T, .rcx = 0);
	check_end(&t, "2 REP: with a count of 0 nothing is accessed");
	map_page(T, (u64)page_b, PTE_P | PTE_W);
	page_b[0] = 0x5a;
	t = KERNEL(rep_movsb, .rdi = T + 1, .rsi = T, .rcx = PAGE - 1);
	bool good = t.vector == END_VECTOR;
	for (unsigned n = 0; n < PAGE; n++)
		good &= page_b[n] == 0x5a;
	check(good, "2 REP MOVSB: one byte spread over a page");
}

/* ---- where instructions lie ---- */

static const u8 mov_2[] = { 0xb8, 2, 0, 0, 0, 0xcd, END_VECTOR }; /* mov $2, %eax; int $0x40 */

static void test_straddling(void)
{
	struct trap t;

	map_page(T, (u64)page_a, PTE_P | PTE_W);
	for (unsigned before = 1; before < 5; before++) {
		u64 at = T + PAGE - before;

		memcpy(page_a + PAGE - before, mov_2, before);
		memcpy(page_b, mov_2 + before, sizeof(mov_2) - before);
		unmap_page(T + PAGE);
		t = KERNEL(at);
		check_page_fault(&t, has_nx() ? PF_I : 0, T + PAGE,
				 "3A 4.7: %u bytes of an instruction, the rest absent", before);
		check_equal(t.rip, at, "3A 6.5: RIP is its start");
		map_page(T + PAGE, (u64)page_b, PTE_P);
		t = KERNEL(at);
		check(t.vector == END_VECTOR && t.rax == 2, "3A 4.7: there, it runs");
		if (has_nx()) {
			map_page(T + PAGE, (u64)page_b, PTE_P | PTE_NX);
			t = KERNEL(at);
			check_page_fault(&t, PF_P | PF_I, T + PAGE, "3A 4.7: the rest not executable");
		}
		page_b[5 - before - 1] = 1;
		map_page(T + PAGE, (u64)page_b, PTE_P);
		t = KERNEL(at);
		check_equal(t.rax, before < 5 ? 0x01000002 : 0, "3A 8.1.3: changed in its second page");
	}
	unmap_page(T + PAGE);
	memcpy(page_a + PAGE - 5, mov_2, 5);
	t = KERNEL(T + PAGE - 5, .rax = 1);
	check_page_fault(&t, has_nx() ? PF_I : 0, T + PAGE, "3A 4.7: an instruction that ends with its page");
	check(t.rax == 2 && t.rip == T + PAGE, "3A 4.7: is executed before the next is fetched");
	memcpy(page_a, mov_2, sizeof(mov_2));
	page_a[PAGE - 5] = 0xe9; /* jmp T */
	*(u32 *)(page_a + PAGE - 4) = (u32)-PAGE;
	t = KERNEL(T + PAGE - 5);
	check(t.vector == END_VECTOR && t.rax == 2, "3A 4.7: a jump at the end of a page needs no next page");
	page_a[PAGE - 2] = 0x0f;
	page_a[PAGE - 1] = 0x0b;
	t = KERNEL(T + PAGE - 2);
	check_fault(&t, EXC_UD, 0, "2 UD2: at the end of a page");
}

static void test_length(void)
{
	struct trap t;

	memset(page_a, 0x66, 16);
	page_a[14] = 0x90;
	memcpy(page_a + 15, mov_2, sizeof(mov_2));
	t = KERNEL(T);
	check(t.vector == END_VECTOR && t.rax == 2, "1 2.2.1: an instruction of 15 bytes");
	page_a[14] = 0x66;
	page_a[15] = 0x90;
	t = KERNEL(T);
	check_fault(&t, EXC_GP, 0, "2A 2.3.11: one of 16 bytes: #GP(0)");
	check_equal(t.rip, T, "2A 2.3.11: RIP is its start");
	memset(page_a + PAGE - 15, 0x66, 15);
	page_a[PAGE - 1] = 0x90;
	t = KERNEL(T + PAGE - 15);
	check_page_fault(&t, has_nx() ? PF_I : 0, T + PAGE, "1 2.2.1: 15 bytes up to the end of a page");
}

void guest(void)
{
	page_a = frame_alloc();
	page_b = frame_alloc();
	test_singles();
	test_branches();
	test_controlled();
	test_frames();
	test_segments();
	test_gates();
	test_tss_limit();
	test_io_permission();
	test_double();
	test_nested();
	test_alignment();
	test_compatibility();
	test_absent_operands();
	test_strings();
	test_straddling();
	test_length();
}
