/*
 * Virtual-8086 mode, SDM vol. 3A chapter 20: what IOPL stops, how it is left and entered, its extensions (CR4.VME: a virtual
 * interrupt flag, INT n that stay inside), and the same flag for protected mode (CR4.PVI).
 */
#include "legacy.h"

#define P      0x80
#define DPL(n) ((n) << 5)
#define FLAT   0xc000
#define TARGET LEGACY_FREE
enum { CODE_X = 0x18, CONFORMING = 0x1c, INTERRUPT_16 = 6, TRAP_16, INTERRUPT_32 = 14, TRAP_32 };
enum { IOPL_0, IOPL_3 = 3 };

CODE_LOW(cli, "cli")
CODE_LOW(sti, "sti; nop")
CODE_LOW(pushf_low, "pushf; pop %ax")
CODE_LOW(pushfl_low, "pushfl; popl %eax")
CODE_LOW(popf_low, "push %ax; popf; nop")
CODE_LOW(popfl_low, "pushl %eax; popfl; nop")
CODE_LOW(iret_low, "push %ax; push %cs; push $1f - iret_low; iret; 1: nop")
CODE_LOW(iretl_low, "pushl %eax; pushl %ebx; pushl $1f - iretl_low; iretl; 1: nop")
CODE_LOW(int_50, "int $0x50; 1: mov $0x99, %dl")
CODE_LOW(int3_low, "int3")
CODE_LOW(into_low, "mov $0x7f, %al; inc %al; into")
CODE_LOW(hlt_low, "hlt")
CODE_LOW(lgdt_low, "lgdtw 0")
CODE_LOW(mov_cr0, "mov %cr0, %eax")
CODE_LOW(clts_low, "clts")
CODE_LOW(undefined, "ud2")
CODE_LOW(empty, "nop")
CODE_LOW(bad_read, "mov 0xffff, %ax")

struct code {
	const char *name;
	const u8 *from, *end;
	u8 prelude; /* bytes before the instruction that is tested */
};
#define CODE_OF(name, code, prelude)                                                                                   \
	{                                                                                                              \
		name, code, code##_end, prelude                                                                        \
	}

static struct legacy_trap run_86(const struct code *c, unsigned iopl, u32 cr4, u32 flags, u32 eax)
{
	struct legacy_state s = { LEGACY_V86, .ebx = LOW_CODE >> 4, .eax = eax, .cr4 = cr4 };

	s.eip = place_low(c->from, c->end);
	s.eflags |= iopl << 12 | flags;
	return legacy_run(&s);
}

/* INT END_VECTOR is the code's last instruction: #GP(0) there with IOPL below 3. */
static bool reached_end(const struct legacy_trap *t, const struct code *c)
{
	return t->vector == END_VECTOR || (t->vector == EXC_GP && !t->error && t->eip == (u32)(c->end - c->from) - 2);
}

static bool stopped(const struct legacy_trap *t, const struct code *c)
{
	return t->vector == EXC_GP && !t->error && t->eip == c->prelude && (t->eflags & FLAG_VM);
}

static bool show(bool good, const struct legacy_trap *t)
{
	if (!good)
		print("# vector %u error 0x%x eip 0x%x eflags 0x%x eax 0x%x esp 0x%x\n", t->vector, t->error, t->eip,
		      t->eflags, t->eax, t->esp);
	return good;
}

/* ---- IOPL: SDM vol. 3A 20.2.7 ---- */

static void test_iopl(void)
{
	static const struct code sensitive[] = {
		CODE_OF("CLI", cli, 0),		  CODE_OF("STI", sti, 0),	  CODE_OF("PUSHF", pushf_low, 0),
		CODE_OF("PUSHFD", pushfl_low, 0), CODE_OF("POPF", popf_low, 1),	  CODE_OF("POPFD", popfl_low, 2),
		CODE_OF("IRET", iret_low, 0),	  CODE_OF("IRETD", iretl_low, 0), CODE_OF("INT n", int_50, 0),
	};
	static const struct code privileged[] = {
		CODE_OF("HLT", hlt_low, 0),
		CODE_OF("LGDT", lgdt_low, 0),
		CODE_OF("MOV CR", mov_cr0, 0),
		CODE_OF("CLTS", clts_low, 0),
	};
	struct legacy_trap t;

	*legacy_gate(0x50) |= (u64)DPL(3) << 40;
	for (unsigned n = 0; n < ARRAY_SIZE(sensitive); n++) {
		const struct code *c = &sensitive[n];

		for (unsigned iopl = 0; iopl < 3; iopl++) {
			t = run_86(c, iopl, 0, 0, 0x3202);
			show(t.vector == EXC_GP && !t.error && !reached_end(&t, c), &t);
			check(t.vector == EXC_GP && !t.error && !reached_end(&t, c),
			      "3A 20.2.7: %s with IOPL %u: #GP(0)", c->name, iopl);
		}
		t = run_86(c, 3, 0, 0, 0x3202);
		check(show(t.vector == (c->from == int_50 ? 0x50 : END_VECTOR), &t), "3A 20.2.7: %s with IOPL 3",
		      c->name);
	}
	for (unsigned n = 0; n < ARRAY_SIZE(privileged); n++) {
		t = run_86(&privileged[n], 3, 0, 0, 0);
		check(show(stopped(&t, &privileged[n]), &t), "3A 20.2.8: %s: #GP(0), whatever IOPL is",
		      privileged[n].name);
	}
	legacy_reset_gate(0x50);
}

static void test_flags(void)
{
	static const struct code push_32 = CODE_OF("", pushfl_low, 0), pop_16 = CODE_OF("", popf_low, 1),
				 pop_32 = CODE_OF("", popfl_low, 2), iret_16 = CODE_OF("", iret_low, 0),
				 iret_32 = CODE_OF("", iretl_low, 0);
	const u32 kept = FLAG_VM | FLAG_IOPL | FLAG_VIF | FLAG_VIP;
	struct legacy_trap t;

	t = run_86(&push_32, 3, 0, FLAG_VIF, 0);
	check_equal(t.eax, 2 | FLAG_IOPL | FLAG_VIF, "2 PUSHFD: VM is not in the image");
	t = run_86(&pop_32, 3, 0, FLAG_VIF, ~(u32)(FLAG_TF | FLAG_NT | FLAG_RF));
	check(show(t.vector == END_VECTOR && (t.eflags & (kept | FLAG_IF | FLAG_AC)) ==
						     (FLAG_VM | FLAG_IOPL | FLAG_VIF | FLAG_IF | FLAG_AC),
		   &t),
	      "2 POPFD: VM, IOPL, VIF, VIP stay; IF is loaded");
	t = run_86(&pop_16, 3, 0, 0, 0);
	check(show((t.eflags & (kept | FLAG_IF)) == (FLAG_VM | FLAG_IOPL), &t), "2 POPF: IOPL stays");
	t = run_86(&iret_32, 3, 0, FLAG_VIP, (u32)FLAG_IF);
	check(show(t.vector == END_VECTOR &&
			   (t.eflags & (kept | FLAG_IF)) == (FLAG_VM | FLAG_IOPL | FLAG_VIP | FLAG_IF),
		   &t),
	      "2 IRETD: VM, IOPL, VIF, VIP stay");
	t = run_86(&iret_16, 3, 0, 0, 0);
	check(show((t.eflags & (kept | FLAG_IF)) == (FLAG_VM | FLAG_IOPL), &t), "2 IRET: IOPL stays");
	t = run_86(&iret_32, 3, 0, 0, (u32)(FLAG_IF | FLAG_NT));
	check(show(t.vector == END_VECTOR && (t.eflags & FLAG_NT), &t), "2 IRETD: NT is only a flag in this mode");
	t = run_86(&iret_32, 3, 0, (u32)FLAG_NT, 0);
	check(show(t.vector == END_VECTOR, &t), "2 IRETD: and returns to no task");
}

/* ---- the way out: SDM vol. 3A 20.3.1 ---- */

CODE32(handler_32, "mov %ds, %eax; mov %es, %ebx; mov %fs, %ecx; mov %gs, %edx")

static void test_leaving(void)
{
	static const struct code int_n = CODE_OF("", int_50, 0), bp = CODE_OF("", int3_low, 0),
				 of = CODE_OF("", into_low, 4), ud = CODE_OF("", undefined, 0),
				 read = CODE_OF("", bad_read, 0);
	u32 top = legacy_ring0_stack(), *stack = (u32 *)(u64)top;
	u16 *words = (u16 *)(u64)top;
	struct legacy_trap t;

	*legacy_gate(0x50) = legacy_gate_to(KERNEL_CS32, LOW32(handler_32), P | INTERRUPT_32 | DPL(3), 0);
	t = run_86(&int_n, 3, 0, 0, 0);
	check(show(t.vector == END_VECTOR && t.cs == KERNEL_CS32 && t.esp == top - 36, &t),
	      "3A 20.3.1: nine doublewords are pushed");
	check(stack[-1] == LOW_DATA >> 4 && stack[-4] == LOW_DATA >> 4 && stack[-5] == LOW_STACK >> 4 &&
		      stack[-6] == 0x1000 && (stack[-7] & (FLAG_VM | FLAG_IOPL)) == (FLAG_VM | FLAG_IOPL) &&
		      stack[-8] == LOW_CODE >> 4 && stack[-9] == 2,
	      "3A 20.3.1: GS, FS, DS, ES, SS, ESP, EFLAGS with VM, CS, EIP");
	check(t.eax == 0 && t.ebx == 0 && t.ecx == 0 && t.edx == 0, "3A 20.3.1: the handler finds null segments");
	check(!(t.eflags & FLAG_VM), "3A 20.3.1: VM is clear");
	*legacy_descriptor(TARGET) = descriptor(LOW32(handler_32), 0xfffff, P | CODE_X | FLAT);
	*legacy_gate(0x50) = legacy_gate_to(TARGET, 0, P | INTERRUPT_16 | DPL(3), 0);
	t = run_86(&int_n, 3, 0, 0, 0);
	check(show(t.vector == END_VECTOR && t.esp == top - 18 && words[-1] == LOW_DATA >> 4 && words[-9] == 2 &&
			   words[-8] == LOW_CODE >> 4 && words[-5] == LOW_STACK >> 4,
		   &t),
	      "3A 20.3.1: through a gate of 16 bits: nine words");

	static const struct {
		const char *what;
		u32 attributes;
		u8 gate, vector;
		u16 error;
	} cases[] = {
		{ "to ring 3", P | CODE_X | DPL(3) | FLAT, P | INTERRUPT_32 | DPL(3), EXC_GP, TARGET },
		{ "to ring 1", P | CODE_X | DPL(1) | FLAT, P | INTERRUPT_32 | DPL(3), EXC_GP, TARGET },
		{ "to a conforming segment", P | CONFORMING | FLAT, P | INTERRUPT_32 | DPL(3), EXC_GP, TARGET },
		{ "a gate of DPL 0", P | CODE_X | FLAT, P | INTERRUPT_32, EXC_GP, 0x50 * 8 + 2 },
		{ "an absent gate", P | CODE_X | FLAT, INTERRUPT_32 | DPL(3), EXC_NP, 0x50 * 8 + 2 },
		{ "to an absent segment", CODE_X | FLAT, P | INTERRUPT_32 | DPL(3), EXC_NP, TARGET },
	};
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		*legacy_descriptor(TARGET) = descriptor(0, 0xfffff, cases[n].attributes);
		*legacy_gate(0x50) = legacy_gate_to(TARGET, LOW32(handler_32), cases[n].gate, 0);
		t = run_86(&int_n, 3, 0, 0, 0);
		check_fault_32(&t, cases[n].vector, cases[n].error, "2 INT n: from virtual-8086 mode: %s",
			       cases[n].what);
	}
	legacy_reset_gate(0x50);

	t = run_86(&bp, 0, 0, 0, 0);
	check(show(t.vector == EXC_GP && t.error == EXC_BP * 8 + 2, &t),
	      "3A 20.3.3: INT3 needs no IOPL, but a gate of DPL 3");
	*legacy_gate(EXC_BP) |= (u64)DPL(3) << 40;
	*legacy_gate(EXC_OF) |= (u64)DPL(3) << 40;
	t = run_86(&bp, 0, 0, 0, 0);
	check(show(t.vector == EXC_BP && t.eip == 1, &t), "3A 20.3.3: INT3 with IOPL 0");
	t = run_86(&of, 0, 0, 0, 0);
	check(show(t.vector == EXC_OF && t.eip == 5, &t), "3A 20.3.3: INTO with IOPL 0");
	legacy_reset_gate(EXC_BP);
	legacy_reset_gate(EXC_OF);
	t = run_86(&ud, 0, 0, 0, 0);
	check(show(t.vector == EXC_UD && t.eip == 0 && (t.eflags & FLAG_VM), &t), "3A 20.3.1: #UD");
	t = run_86(&read, 0, 0, 0, 0);
	check(show(t.vector == EXC_GP && t.error == 0 && t.eip == 0, &t), "3A 20.2.3: a word at FFFF: #GP(0)");
}

/* ---- the way in: SDM vol. 3A 20.2.5 ---- */

static u32 frame[9];
CODE32(iret_there, "mov %ecx, %esp; iret")
CODE32(after_iret, "nop")

static void test_entering(void)
{
	static const struct code c = CODE_OF("", empty, 0);
	struct legacy_trap t;

	memcpy(frame,
	       (u32[]){ 0x10000, LOW_CODE >> 4, 2 | FLAG_VM, 0x12340100, 0x0003, 0x0004, 0x0005, 0x0006, 0x0007 },
	       sizeof(frame));
	place_low(c.from, c.end);
	t = RING0_32(iret_there, .ecx = LOW32(frame));
	check(show(t.vector == EXC_GP && !t.error && t.cs == KERNEL_CS32, &t),
	      "2 IRET: to virtual-8086 mode, EIP above FFFF: #GP(0)");
	frame[0] = 0;
	t = RING0_32(iret_there, .ecx = LOW32(frame));
	check(show((t.eflags & FLAG_VM) && t.eip == 1 && t.esp == 0x12340100, &t),
	      "2 IRET: to virtual-8086 mode: selectors that no table has; ESP has 32 bits");
	check(t.ss == 3 && t.es == 4 && t.ds == 5 && t.fs == 6 && t.gs == 7, "2 IRET: SS, ES, DS, FS, GS");
	memcpy(frame, (u32[]){ LOW32(after_iret), USER_CS32, 2 | FLAG_VM }, 12);
	t = RING3_32(iret_there, .ecx = LOW32(frame));
	check(show(t.vector == END_VECTOR && t.cs == USER_CS32 && !(t.eflags & FLAG_VM), &t),
	      "2 IRET: in ring 3 VM does not count");
}

/* ---- segments: SDM vol. 3A 20.1.1, 20.2.1 ---- */

CODE_LOW(segments, "mov $0x2100, %ax; mov %ax, %ds; mov 0x10, %bx; lesw 0x20, %si; mov %es:(%si), %cx; ljmpw $(0x10000 "
		   ">> 4) + 1, $1f - "
		   "segments - 16; 1: mov %cs, %dx")
CODE_LOW(far_call,
	 "lcallw $0xffe, $far_target - far_call + 32; jmp 1f; " LABEL(far_target) "mov %cs, %dx; lretw; 1: nop")

static void test_segments(void)
{
	static const struct code s = CODE_OF("", segments, 0), f = CODE_OF("", far_call, 0);
	struct legacy_trap t;

	*(u16 *)low_data(0x1010) = 0x5a5a;
	*(u32 *)low_data(0x1020) = 0x22000040;
	*(u16 *)low_data(0x2040) = 0x1234;
	t = run_86(&s, 3, 0, 0, 0);
	check(show(t.vector == END_VECTOR && t.ds == 0x2100 && (u16)t.ebx == 0x5a5a && t.es == 0x2200 &&
			   (u16)t.ecx == 0x1234 && (u16)t.edx == 0x1001 && t.cs == 0x1001,
		   &t),
	      "3A 20.1.1: MOV, LES and a far JMP load segments as paragraphs");
	t = run_86(&f, 3, 0, 0, 0);
	check(show(t.vector == END_VECTOR && (u16)t.edx == 0xffe && t.cs == LOW_CODE >> 4 && t.esp == 0x1000, &t),
	      "2 CALL, RET: far, in virtual-8086 mode");
}

/* ---- CR4.VME: the virtual interrupt flag, SDM vol. 3A 20.3.2.2 and vol. 2's tables ---- */

static void maps(bool redirect)
{
	legacy_reset_tss();
	legacy_tss.io_map = sizeof(struct tss_32) + 32;
	*legacy_descriptor(LEGACY_TSS) = descriptor(LOW32(&legacy_tss), sizeof(legacy_system) - 1, 0x89);
	if (redirect)
		legacy_system.redirection[0x50 / 8] &= (u8)~BIT(0x50 % 8);
}

static void test_virtual_flag(void)
{
	static const struct {
		const char *what;
		struct code code;
		u32 flags, eax;
		bool faults;
		u32 looked_at, wanted;
	} cases[] = {
		{ "CLI clears VIF", CODE_OF("", cli, 0), FLAG_VIF | FLAG_IF, 0, false, FLAG_VIF | FLAG_IF, FLAG_IF },
		{ "STI sets VIF", CODE_OF("", sti, 0), 0, 0, false, FLAG_VIF | FLAG_IF, FLAG_VIF },
		{ "STI with VIP: #GP(0)", CODE_OF("", sti, 0), FLAG_VIP, 0, true, FLAG_VIF, 0 },
		{ "CLI with VIP", CODE_OF("", cli, 0), FLAG_VIP, 0, false, FLAG_VIF | FLAG_VIP, FLAG_VIP },
		{ "POPF: IF goes to VIF", CODE_OF("", popf_low, 1), FLAG_IF, 0x0202, false, FLAG_VIF | FLAG_IF,
		  FLAG_VIF | FLAG_IF },
		{ "POPF: IF 0 clears VIF", CODE_OF("", popf_low, 1), FLAG_VIF | FLAG_IF, 0x3002, false,
		  FLAG_VIF | FLAG_IF | FLAG_IOPL, FLAG_IF },
		{ "POPF: IF with VIP: #GP(0)", CODE_OF("", popf_low, 1), FLAG_VIP, 0x0202, true, FLAG_VIF, 0 },
		{ "POPF: IF 0 with VIP", CODE_OF("", popf_low, 1), FLAG_VIP, 0x0002, false, FLAG_VIF | FLAG_VIP,
		  FLAG_VIP },
		{ "POPF: TF: #GP(0)", CODE_OF("", popf_low, 1), 0, 0x0102, true, FLAG_TF, 0 },
		{ "POPFD: #GP(0)", CODE_OF("", popfl_low, 2), 0, 0x0202, true, FLAG_VIF, 0 },
		{ "PUSHFD: #GP(0)", CODE_OF("", pushfl_low, 0), 0, 0, true, 0, 0 },
		{ "IRETD: #GP(0)", CODE_OF("", iretl_low, 0), 0, 0, true, 0, 0 },
		{ "IRET: IF goes to VIF", CODE_OF("", iret_low, 0), 0, 0x0202, false, FLAG_VIF | FLAG_IF, FLAG_VIF },
		{ "IRET: IF 0 clears VIF", CODE_OF("", iret_low, 0), FLAG_VIF, 0x3002, false, FLAG_VIF | FLAG_IOPL, 0 },
		{ "IRET: IF with VIP: #GP(0)", CODE_OF("", iret_low, 0), FLAG_VIP, 0x0202, true, FLAG_VIF, 0 },
		{ "IRET: TF: #GP(0)", CODE_OF("", iret_low, 0), 0, 0x0102, true, FLAG_TF, 0 },
		{ "INT n with its bit set: #GP(0)", CODE_OF("", int_50, 0), 0, 0, true, 0, 0 },
	};
	static const struct code push_16 = CODE_OF("", pushf_low, 0);
	struct legacy_trap t;
	bool good;

	maps(false);
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		const struct code *c = &cases[n].code;

		t = run_86(c, 0, CR4_VME, cases[n].flags, cases[n].eax);
		good = t.vector == EXC_GP && !t.error && reached_end(&t, c) != cases[n].faults &&
		       (t.eflags & cases[n].looked_at) == cases[n].wanted && (t.eflags & FLAG_VM);
		check(show(good, &t), "3A 20.3.2.2: VME: %s", cases[n].what);
	}
	t = run_86(&push_16, 0, CR4_VME, FLAG_VIF, 0);
	check_equal((u16)t.eax, 2 | FLAG_IOPL | FLAG_IF, "3A 20.3.2.2: VME: PUSHF: VIF as IF, IOPL 3");
	t = run_86(&push_16, 0, CR4_VME, (u32)FLAG_IF, 0);
	check_equal((u16)t.eax, 2 | FLAG_IOPL, "3A 20.3.2.2: VME: PUSHF: IF itself is not shown");
	t = run_86(&cases[0].code, 3, CR4_VME, FLAG_VIF | FLAG_IF, 0);
	check(show(t.vector == END_VECTOR && (t.eflags & (FLAG_VIF | FLAG_IF)) == FLAG_VIF, &t),
	      "3A 20.3.2.2: VME with IOPL 3: CLI clears IF");
	t = run_86(&push_16, 3, CR4_VME, FLAG_VIF, 0);
	check_equal((u16)t.eax, 2 | FLAG_IOPL, "3A 20.3.2.2: VME with IOPL 3: PUSHF shows IF");
}

/* ---- CR4.VME: INT n through the program's own vectors, SDM vol. 3A 20.3.3 ---- */

CODE_LOW(own_handler, "pop %bx; pop %cx; pop %dx; push %dx; pushl $0; popl %eax")

static void test_redirection(void)
{
	static const struct code int_n = CODE_OF("", int_50, 0);
	volatile u32 *vectors = NULL;
	struct legacy_trap t;

	asm("" : "+r"(vectors)); /* address 0 */
	memcpy((void *)(LOW_CODE + 0x100), own_handler, (size_t)(own_handler_end - own_handler));
	vectors[0x50] = (LOW_CODE >> 4) << 16 | 0x100;
	maps(true);
	t = run_86(&int_n, 0, CR4_VME, FLAG_VIF | FLAG_IF, 0);
	check(show(t.vector == EXC_GP && t.eip == 0x100 + (u32)(own_handler_end - own_handler) - 2 && (u16)t.ebx == 2 &&
			   (u16)t.ecx == LOW_CODE >> 4,
		   &t),
	      "3A 20.3.3.4: method 6: INT n with its bit clear goes through the vectors at 0");
	check_equal((u16)t.edx, 2 | FLAG_IOPL | FLAG_IF, "3A 20.3.3.4: its flags show VIF as IF, IOPL 3");
	check_equal(t.eflags & (FLAG_VIF | FLAG_IF), FLAG_IF, "3A 20.3.3.4: VIF is cleared, IF is not");
	t = run_86(&int_n, 3, CR4_VME, FLAG_VIF | FLAG_IF, 0);
	check(show(t.vector == END_VECTOR && (u16)t.edx == (2 | FLAG_IOPL | FLAG_IF) &&
			   (t.eflags & (FLAG_VIF | FLAG_IF)) == FLAG_VIF,
		   &t),
	      "3A 20.3.3.3: method 5, IOPL 3: IF is pushed and cleared");
	{
		struct legacy_state s = { LEGACY_V86, .cr4 = CR4_VME, .tr = TARGET };

		/* What a TSS of 32 bits would have for maps is there, and clear. */
		*legacy_descriptor(TARGET) = descriptor(LOW_DATA, 0x3fff, 0x81);
		memset(low_data(0), 0, 0x200);
		((u16 *)low_data(0))[1] = 0x2000;
		((u16 *)low_data(0))[2] = LEGACY_SS16;
		((u16 *)low_data(0))[51] = 0x100;
		s.eip = place_low(int_n.from, int_n.end);
		memcpy((void *)(LOW_CODE + 0x100), own_handler, (size_t)(own_handler_end - own_handler));
		t = legacy_run(&s);
		check(show(t.vector == EXC_GP && t.eip == 0, &t), "3A 20.3.3: a TSS of 16 bits has no redirection map");
	}
	*legacy_gate(0x50) |= (u64)DPL(3) << 40;
	maps(false);
	t = run_86(&int_n, 3, CR4_VME, 0, 0);
	check(show(t.vector == 0x50, &t), "3A 20.3.3.2: the bit set, IOPL 3: the gate");
	maps(true);
	t = run_86(&int_n, 3, 0, 0, 0);
	check(show(t.vector == 0x50, &t), "3A 20.3.3: without VME the map does not count");
	legacy_reset_gate(0x50);
	legacy_reset_tss();
}

/* ---- CR4.PVI: SDM vol. 3A 20.4 ---- */

static void test_protected(void)
{
	static const struct {
		const char *what;
		const u8 *from, *end;
		u32 cr4, iopl, flags, ring;
		u8 vector;
		u32 looked_at, wanted;
	} cases[] = {
#define PVI(what, code, ...) { what, code, code##_end, __VA_ARGS__ }
		PVI("CLI clears VIF", cli, CR4_PVI, 0, FLAG_VIF | FLAG_IF, 3, END_VECTOR, FLAG_VIF | FLAG_IF, FLAG_IF),
		PVI("STI sets VIF", sti, CR4_PVI, 2, 0, 3, END_VECTOR, FLAG_VIF | FLAG_IF, FLAG_VIF),
		PVI("STI with VIP: #GP(0)", sti, CR4_PVI, 0, FLAG_VIP, 3, EXC_GP, FLAG_VIF, 0),
		PVI("CLI with IOPL 3: IF", cli, CR4_PVI, 3, FLAG_VIF | FLAG_IF, 3, END_VECTOR, FLAG_VIF | FLAG_IF,
		    FLAG_VIF),
		PVI("CLI in ring 0: IF", cli, CR4_PVI, 0, FLAG_VIF | FLAG_IF, 0, END_VECTOR, FLAG_VIF | FLAG_IF,
		    FLAG_VIF),
		PVI("CLI without PVI: #GP(0)", cli, 0, 0, FLAG_VIF, 3, EXC_GP, FLAG_VIF, FLAG_VIF),
		PVI("STI with VME alone: #GP(0)", sti, CR4_VME, 0, 0, 3, EXC_GP, FLAG_VIF, 0),
		PVI("POPF leaves VIF and IF", popf_low, CR4_PVI, 0, FLAG_VIF, 3, END_VECTOR, FLAG_VIF | FLAG_IF,
		    FLAG_VIF),
	};
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		struct legacy_state s = { LEGACY_RING3_16 };

		if (!cases[n].ring)
			s = (struct legacy_state){ LEGACY_RING0_16 };
		s.eip = place_low(cases[n].from, cases[n].end);
		s.cr4 = cases[n].cr4;
		s.eflags |= cases[n].iopl << 12 | cases[n].flags;
		s.eax = 0x202;
		t = legacy_run(&s);
		check(show(t.vector == cases[n].vector && !t.error &&
				   (t.eflags & cases[n].looked_at) == cases[n].wanted,
			   &t),
		      "3A 20.4: PVI: %s", cases[n].what);
	}
}

void guest(void)
{
	if (!(cpuid(1, 0).d & BIT(1)))
		die("no VME");
	test_iopl();
	test_flags();
	test_leaving();
	test_entering();
	test_segments();
	test_virtual_flag();
	test_redirection();
	test_protected();
}
