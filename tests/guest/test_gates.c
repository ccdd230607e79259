/*
 * Transfers between code segments: far JMP, CALL and RET, call gates, INT through gates of 16 and 32 bits, IRET. Which are allowed,
 * what they push, and which fault the others give. SDM vol. 3A 5.8, 6.12; vol. 2 for each instruction.
 */
#include "legacy.h"

#define GATE   LEGACY_FREE
#define TARGET (LEGACY_FREE + 8)
#define STACK  (LEGACY_FREE + 16)
#define P      0x80
#define DPL(n) ((n) << 5)
#define BIG    0x4000
#define PAGES  0x8000
#define FLAT   (BIG | PAGES)
enum { DATA_RO = 0x10, DATA_RW = 0x12, DATA_DOWN = 0x16, CODE_X = 0x18, CODE_XR = 0x1a, CONFORMING = 0x1c };
enum { LDT = 2, CALL_16 = 4, INTERRUPT_16 = 6, TRAP_16, CALL_32 = 12, INTERRUPT_32 = 14, TRAP_32 };

static struct {
	u32 offset;
	u16 selector;
} __attribute__((packed)) pointer;
static u32 frame[16] __attribute__((aligned(64)));
static u8 inner_stack[4096] __attribute__((aligned(16)));
#define INNER_TOP (LOW32(inner_stack) + 4096 - 64)

CODE32(jmp_far, "ljmp *(%ebx)")
CODE32(call_far, "lcall *(%ebx)")
CODE32(jmp_far_16, "ljmpw *(%ebx)")
CODE32(call_direct, ".byte 0x9a; .long target; .word 0xa8") /* TARGET */
CODE32(call_far_16, "lcallw *(%ebx)")
CODE32(target, "mov %cs, %edi; mov %ss, %esi")
CODE32(iret_there, "mov %ecx, %esp; iret")
CODE32(ret_there, "mov %ecx, %esp; lret")
CODE32(ret_8_there, "mov %ecx, %esp; lret $8")
CODE32(int_50, "int $0x50")
CODE32(undefined, "ud2")

static void describe(u16 selector, u32 limit, u32 attributes)
{
	*legacy_descriptor(selector) = descriptor(0, limit, attributes);
}

static bool is(const struct legacy_trap *t, u32 vector, u32 error)
{
	bool good = t->vector == vector && t->error == error;

	if (!good)
		print("# got vector %u error 0x%x cs:eip 0x%x:0x%x, expected %u, 0x%x\n", t->vector, t->error, t->cs,
		      t->eip, vector, error);
	return good;
}

static struct legacy_trap from_ring(unsigned ring, const u8 *code)
{
	if (ring == 3)
		return RING3_32(code, .ebx = LOW32(&pointer), .ecx = LOW32(frame));
	return RING0_32(code, .ebx = LOW32(&pointer), .ecx = LOW32(frame));
}

/* ---- a code segment named directly ---- */

struct direct {
	const char *what;
	u32 attributes, limit;
	u8 ring, rpl, vector;
	bool zero; /* the error code is 0 and not the selector */
};
static const struct direct directs[] = {
	{ "the same ring", P | CODE_XR | DPL(3) | FLAT, 0xfffff, 3, 3, END_VECTOR, false },
	{ "ring 0", P | CODE_X | DPL(0) | FLAT, 0xfffff, 0, 0, END_VECTOR, false },
	{ "RPL 0 in ring 3", P | CODE_X | DPL(3) | FLAT, 0xfffff, 3, 0, END_VECTOR, false },
	{ "RPL 3 in ring 0", P | CODE_X | DPL(0) | FLAT, 0xfffff, 0, 3, EXC_GP, false },
	{ "an inner ring", P | CODE_X | DPL(0) | FLAT, 0xfffff, 3, 3, EXC_GP, false },
	{ "an outer ring", P | CODE_X | DPL(3) | FLAT, 0xfffff, 0, 0, EXC_GP, false },
	{ "conforming, of the same DPL", P | CONFORMING | DPL(3) | FLAT, 0xfffff, 3, 3, END_VECTOR, false },
	{ "conforming, of an inner DPL: CPL stays", P | CONFORMING | DPL(0) | FLAT, 0xfffff, 3, 3, END_VECTOR, false },
	{ "conforming, RPL is not looked at", P | CONFORMING | DPL(0) | FLAT, 0xfffff, 0, 3, END_VECTOR, false },
	{ "conforming, of an outer DPL", P | CONFORMING | DPL(3) | FLAT, 0xfffff, 0, 0, EXC_GP, false },
	{ "a data segment", P | DATA_RW | DPL(3) | FLAT, 0xfffff, 3, 3, EXC_GP, false },
	{ "an LDT", P | LDT | DPL(3), 0xfffff, 3, 3, EXC_GP, false },
	{ "an interrupt gate", P | INTERRUPT_32 | DPL(3), 0xfffff, 3, 3, EXC_GP, false },
	{ "a reserved type", P | 8 | DPL(3), 0xfffff, 3, 3, EXC_GP, false },
	{ "a busy TSS", P | 11 | DPL(3), 0xfffff, 3, 3, EXC_GP, false },
	{ "an absent one", CODE_X | DPL(3) | FLAT, 0xfffff, 3, 3, EXC_NP, false },
	{ "an absent conforming one", CONFORMING | DPL(0) | FLAT, 0xfffff, 3, 3, EXC_NP, false },
	{ "an absent one of an inner ring: privilege first", CODE_X | DPL(0) | FLAT, 0xfffff, 3, 3, EXC_GP, false },
	{ "an offset beyond the limit", P | CODE_X | DPL(3) | FLAT, 0x7f, 3, 3, EXC_GP, true },
	{ "an absent one with a bad offset: presence first", CODE_X | DPL(3) | FLAT, 0x7f, 3, 3, EXC_NP, false },
};

static void test_direct(void)
{
	struct legacy_trap t;
	u32 *stack = (u32 *)(u64)legacy_stack();

	for (unsigned n = 0; n < ARRAY_SIZE(directs); n++) {
		const struct direct *d = &directs[n];
		bool good = true;

		for (unsigned call = 0; call < 2; call++) {
			const u8 *code = call ? call_far : jmp_far;
			u32 error = d->zero || d->vector == END_VECTOR ? 0 : TARGET;

			describe(TARGET, d->limit, d->attributes);
			pointer.offset = LOW32(target);
			pointer.selector = (u16)(TARGET | d->rpl);
			stack[-1] = stack[-2] = 0;
			t = from_ring(d->ring, code);
			good = is(&t, d->vector, error) && good;
			if (d->vector != END_VECTOR) {
				good = good && t.eip == LOW32(code) && t.esp == legacy_stack();
				continue;
			}
			good = good && t.cs == (TARGET | d->ring) && t.esp == legacy_stack() - (call ? 8 : 0);
			good = good && (*legacy_descriptor(TARGET) >> 40 & 1);
			if (call)
				good = good && stack[-1] == (d->ring ? USER_CS32 : KERNEL_CS32) &&
				       stack[-2] == LOW32(code) + 2;
		}
		check(good, "2 JMP, CALL: far: %s", d->what);
	}
	describe(TARGET, 0xfffff, P | CODE_X | DPL(3) | FLAT);
	t = from_ring(3, call_direct);
	check(is(&t, END_VECTOR, 0) && stack[-2] == LOW32(call_direct) + 7,
	      "2 CALL: far, the pointer in the instruction");
	for (unsigned n = 0; n < 4; n++) {
		pointer.selector = (u16)n;
		t = from_ring(3, call_far);
		if (n == 0 || t.vector != EXC_GP || t.error)
			check_fault_32(&t, EXC_GP, 0, "2 CALL: far: a null selector");
	}
	pointer.selector = LEGACY_GDT_ENTRIES * 8 | 3;
	t = from_ring(3, jmp_far);
	check_fault_32(&t, EXC_GP, LEGACY_GDT_ENTRIES * 8, "2 JMP: far: beyond the GDT");
	pointer.selector = TARGET | 7;
	t = from_ring(3, jmp_far);
	check_fault_32(&t, EXC_GP, TARGET | 4, "2 JMP: far: an LDT that there is not");

	/* Operands of 16 bits: the target is in the first 64 KiB of its segment. */
	*legacy_descriptor(TARGET) = descriptor(LOW32(target), 0xfffff, P | CODE_X | DPL(3) | FLAT);
	pointer.offset = (u32)(TARGET | 3) << 16;
	t = from_ring(3, call_far_16);
	check(is(&t, END_VECTOR, 0) && t.esp == legacy_stack() - 4 && *(u16 *)(u64)(legacy_stack() - 2) == USER_CS32 &&
		      *(u16 *)(u64)(legacy_stack() - 4) == (u16)(LOW32(call_far_16) + 3),
	      "2 CALL: far, operands of 16 bits: pushes 4 bytes");
	t = from_ring(3, jmp_far_16);
	check(is(&t, END_VECTOR, 0) && t.edi == (TARGET | 3), "2 JMP: far, operands of 16 bits");
}

/* The stack is looked at before the offset: SDM vol. 2A CALL. */
static void test_call_order(void)
{
	struct legacy_trap t;

	describe(TARGET, 0x7f, P | CODE_X | DPL(3) | FLAT);
	*legacy_descriptor(STACK) = descriptor(LOW32(inner_stack), 0xfff, P | DATA_RW | DPL(3) | BIG);
	pointer.offset = LOW32(target);
	pointer.selector = TARGET | 3;
	t = RING3_32(call_far, .ebx = LOW32(&pointer), .ss = STACK | 3, .esp = 4);
	check_fault_32(&t, EXC_SS, 0, "2 CALL: far: no room, and an offset beyond the limit: #SS first");
	check_equal(t.esp, 4, "2 CALL: ESP stays");
	describe(TARGET, 0xfffff, P | CODE_X | DPL(3) | FLAT);
	t = RING3_32(call_far, .ebx = LOW32(&pointer), .ss = STACK | 3, .esp = 8);
	check_end_32(&t, "2 CALL: far: just enough room");
}

/* ---- call gates ---- */

struct gate_case {
	const char *what;
	u8 gate, target; /* access bytes */
	u8 ring, rpl;
	u8 call, jmp; /* expected vectors */
	u16 error;    /* GATE or TARGET */
};
static const struct gate_case gate_cases[] = {
	{ "to ring 0 from ring 3", P | CALL_32 | DPL(3), P | CODE_X | DPL(0), 3, 3, END_VECTOR, EXC_GP, TARGET },
	{ "to ring 3 from ring 3", P | CALL_32 | DPL(3), P | CODE_X | DPL(3), 3, 3, END_VECTOR, END_VECTOR, 0 },
	{ "to ring 0 from ring 0", P | CALL_32 | DPL(0), P | CODE_X | DPL(0), 0, 0, END_VECTOR, END_VECTOR, 0 },
	{ "to an outer ring", P | CALL_32 | DPL(3), P | CODE_X | DPL(3), 0, 0, EXC_GP, EXC_GP, TARGET },
	{ "to a conforming segment", P | CALL_32 | DPL(3), P | CONFORMING | DPL(0), 3, 3, END_VECTOR, END_VECTOR, 0 },
	{ "to a conforming segment of an outer DPL", P | CALL_32 | DPL(3), P | CONFORMING | DPL(3), 0, 0, EXC_GP,
	  EXC_GP, TARGET },
	{ "DPL below CPL", P | CALL_32 | DPL(0), P | CODE_X | DPL(0), 3, 0, EXC_GP, EXC_GP, GATE },
	{ "DPL below RPL", P | CALL_32 | DPL(0), P | CODE_X | DPL(0), 0, 3, EXC_GP, EXC_GP, GATE },
	{ "absent", CALL_32 | DPL(3), P | CODE_X | DPL(0), 3, 3, EXC_NP, EXC_NP, GATE },
	{ "absent, DPL below CPL: privilege first", CALL_32 | DPL(0), P | CODE_X | DPL(0), 3, 3, EXC_GP, EXC_GP, GATE },
	{ "to an absent segment", P | CALL_32 | DPL(3), CODE_X | DPL(3), 3, 3, EXC_NP, EXC_NP, TARGET },
	{ "to an absent segment of ring 0: for JMP privilege is first", P | CALL_32 | DPL(3), CODE_X | DPL(0), 3, 3,
	  EXC_NP, EXC_GP, TARGET },
	{ "to a data segment", P | CALL_32 | DPL(3), P | DATA_RW | DPL(3), 3, 3, EXC_GP, EXC_GP, TARGET },
	{ "to a call gate", P | CALL_32 | DPL(3), P | CALL_32 | DPL(3), 3, 3, EXC_GP, EXC_GP, TARGET },
};

static void test_gate_checks(void)
{
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(gate_cases); n++) {
		const struct gate_case *g = &gate_cases[n];
		bool good = true;

		for (unsigned call = 0; call < 2; call++) {
			u32 vector = call ? g->call : g->jmp;

			*legacy_descriptor(GATE) = legacy_gate_to(TARGET, LOW32(target), g->gate, 0);
			describe(TARGET, 0xfffff, g->target | FLAT);
			pointer.offset = 0x12345678; /* not used */
			pointer.selector = (u16)(GATE | g->rpl);
			t = from_ring(g->ring, call ? call_far : jmp_far);
			good = is(&t, vector, vector == END_VECTOR ? 0 : g->error) && good;
			if (vector != END_VECTOR)
				good = good && t.eip == LOW32(call ? call_far : jmp_far) && t.esp == legacy_stack();
		}
		check(good, "3A 5.8.3: a call gate %s", g->what);
	}
	pointer.selector = GATE | 3;
	*legacy_descriptor(GATE) = legacy_gate_to(3, LOW32(target), P | CALL_32 | DPL(3), 0);
	t = from_ring(3, call_far);
	check_fault_32(&t, EXC_GP, 0, "2 CALL: a gate with a null selector");
	*legacy_descriptor(GATE) = legacy_gate_to(LEGACY_GDT_ENTRIES * 8 + 3, 0, P | CALL_32 | DPL(3), 0);
	t = from_ring(3, call_far);
	check_fault_32(&t, EXC_GP, LEGACY_GDT_ENTRIES * 8, "2 CALL: a gate beyond the GDT");
	*legacy_descriptor(GATE) = legacy_gate_to(TARGET | 3, LOW32(target), P | CALL_32 | DPL(3), 0);
	describe(TARGET, 0xfffff, P | CODE_X | DPL(0) | FLAT);
	t = from_ring(3, call_far);
	check(is(&t, END_VECTOR, 0) && t.cs == TARGET, "2 CALL: a gate's RPL is not looked at, CS has the new CPL");
	describe(TARGET, 0x7f, P | CODE_X | DPL(0) | FLAT);
	t = from_ring(3, call_far);
	check_fault_32(&t, EXC_GP, 0, "2 CALL: a gate's offset beyond the limit");
}

/* The stack of the inner ring: SDM vol. 3A 5.8.5. */
static void test_gate_stacks(void)
{
	u32 top = legacy_ring0_stack(), outer = legacy_stack();
	u32 *stack = (u32 *)(u64)top, *parameters = (u32 *)(u64)outer;
	struct legacy_trap t;
	bool good;

	describe(TARGET, 0xfffff, P | CODE_X | DPL(0) | FLAT);
	pointer.selector = GATE | 3;
	for (unsigned count = 0; count < 32; count += 31) {
		for (unsigned n = 0; n < 31; n++)
			parameters[(int)n - 40] = 0x5000 + n;
		*legacy_descriptor(GATE) = legacy_gate_to(TARGET, LOW32(target), P | CALL_32 | DPL(3), (u8)count);
		t = RING3_32(call_far, .ebx = LOW32(&pointer), .esp = outer - 160);
		good = is(&t, END_VECTOR, 0) && t.ss == KERNEL_DS && t.esp == top - 16 - 4 * count &&
		       stack[-1] == USER_DS && stack[-2] == outer - 160 && *(u32 *)(u64)t.esp == LOW32(call_far) + 2 &&
		       *(u32 *)(u64)(t.esp + 4) == USER_CS32;
		for (unsigned n = 0; n < count; n++)
			good = good && ((u32 *)(u64)t.esp)[2 + n] == 0x5000 + n;
		check(good, "3A 5.8.5: a 32-bit gate copies %u doublewords", count);
	}
	*legacy_descriptor(TARGET) = descriptor(LOW32(target), 0xfffff, P | CODE_X | DPL(0) | FLAT);
	*legacy_descriptor(GATE) = legacy_gate_to(TARGET, 0xffff0000, P | CALL_16 | DPL(3), 3);
	t = RING3_32(call_far, .ebx = LOW32(&pointer), .esp = outer - 160);
	good = is(&t, END_VECTOR, 0) && t.esp == top - 8 - 6 && *(u16 *)(u64)(top - 2) == USER_DS &&
	       *(u16 *)(u64)(top - 4) == (u16)(outer - 160) && *(u16 *)(u64)(top - 6) == 0x5001 &&
	       *(u16 *)(u64)(top - 8) == 0 && *(u16 *)(u64)(top - 10) == 0x5000 &&
	       *(u16 *)(u64)(top - 12) == USER_CS32 && *(u16 *)(u64)t.esp == (u16)(LOW32(call_far) + 2);
	/* Words of the outer stack: 5000 0000 5001. */
	check(good, "3A 5.8.5: a 16-bit gate copies words, its offset has 16 bits");

	/* Rings 1 and 2 have their stacks, too. */
	for (unsigned ring = 1; ring < 3; ring++) {
		legacy_reset_tss();
		legacy_tss.stack[ring].esp = INNER_TOP;
		legacy_tss.stack[ring].ss = STACK | ring;
		describe(STACK, 0xfffff, P | DATA_RW | DPL(ring) | FLAT);
		describe(TARGET, 0xfffff, P | CODE_X | DPL(ring) | FLAT);
		*legacy_descriptor(GATE) = legacy_gate_to(TARGET, LOW32(target), P | CALL_32 | DPL(3), 0);
		t = RING3_32(call_far, .ebx = LOW32(&pointer));
		/* Its INT END_VECTOR goes on to ring 0. */
		check(is(&t, END_VECTOR, 0) && t.cs == (TARGET | ring) && t.ss == (STACK | ring) &&
			      t.esp == INNER_TOP - 16,
		      "3A 5.8.5: from ring 3 to ring %u", ring);
		check(*legacy_descriptor(STACK) >> 40 & 1, "3A 3.4.5.1: the stack segment is marked as accessed");
	}
	legacy_reset_tss();
}

/* What can be wrong with the inner stack: SDM vol. 2A CALL, more privilege; vol. 2A INT n, inter-privilege. */
struct stack_case {
	const char *what;
	u16 selector;
	u32 attributes, limit, esp;
	u8 vector;
	u16 error;
};
static const struct stack_case stack_cases[] = {
	{ "good", STACK, P | DATA_RW | FLAT, 0xfffff, 0, END_VECTOR, 0 },
	{ "a null selector: #TS", 0, P | DATA_RW | FLAT, 0xfffff, 0, EXC_TS, 0 },
	{ "beyond the GDT: #TS", LEGACY_GDT_ENTRIES * 8, 0, 0, 0, EXC_TS, LEGACY_GDT_ENTRIES * 8 },
	{ "RPL 1: #TS", STACK | 1, P | DATA_RW | FLAT, 0xfffff, 0, EXC_TS, STACK },
	{ "DPL 1: #TS", STACK, P | DATA_RW | DPL(1) | FLAT, 0xfffff, 0, EXC_TS, STACK },
	{ "read-only: #TS", STACK, P | DATA_RO | FLAT, 0xfffff, 0, EXC_TS, STACK },
	{ "code: #TS", STACK, P | CODE_XR | FLAT, 0xfffff, 0, EXC_TS, STACK },
	{ "a system segment: #TS", STACK, P | LDT, 0xfffff, 0, EXC_TS, STACK },
	{ "absent: #SS", STACK, DATA_RW | FLAT, 0xfffff, 0, EXC_SS, STACK },
	{ "absent and read-only: #TS", STACK, DATA_RO | FLAT, 0xfffff, 0, EXC_TS, STACK },
	{ "too small: #SS", STACK, P | DATA_RW | BIG, 0xfff, 12, EXC_SS, STACK },
	{ "too small by far: #SS", STACK, P | DATA_RW | BIG, 0xfff, 0x10004, EXC_SS, STACK },
	{ "expand-down: its end", STACK, P | DATA_DOWN | FLAT, 0, 0x100c, EXC_SS, STACK },
};

/* Faults are taken to ring 0 as well, so a task gate would be needed for those from ring 3: the calls go to ring 1 instead. */
static void test_bad_inner_stacks(void)
{
	static const struct {
		const char *name;
		const u8 *code;
		u32 ext;
	} ways[] = { { "2 CALL", call_far, 0 },
		     { "2 INT n", int_50, 0 },
		     { "3A 6.13: #UD, EXT is set", undefined, 1 } };
	struct legacy_trap t;

	for (unsigned w = 0; w < ARRAY_SIZE(ways); w++)
		for (unsigned n = 0; n < ARRAY_SIZE(stack_cases); n++) {
			const struct stack_case *s = &stack_cases[n];
			unsigned ring = 1;
			u16 selector = s->selector ? (u16)(s->selector ^ 1) : 0;
			u32 error = s->vector == END_VECTOR ? 0 : s->error | ways[w].ext;

			legacy_reset_tss();
			legacy_tss.stack[ring].esp = s->esp ? s->esp : INNER_TOP;
			legacy_tss.stack[ring].ss = selector;
			describe(STACK, s->limit, s->attributes ^ DPL(1));
			describe(TARGET, 0xfffff, P | CODE_X | DPL(1) | FLAT);
			*legacy_descriptor(GATE) = legacy_gate_to(TARGET, LOW32(target), P | CALL_32 | DPL(3), 0);
			*legacy_gate(0x50) = *legacy_gate(EXC_UD) =
				legacy_gate_to(TARGET, LOW32(target), P | INTERRUPT_32 | DPL(3), 0);
			pointer.selector = GATE | 3;
			t = RING3_32(ways[w].code, .ebx = LOW32(&pointer));
			check_fault_32(&t, s->vector, error, "%s: the inner stack: %s", ways[w].name, s->what);
		}
	/* The TSS itself: 12 + 5 is the last byte for ring 1. */
	for (unsigned w = 0; w < ARRAY_SIZE(ways); w++)
		for (unsigned limit = 16; limit < 18; limit++) {
			legacy_reset_tss();
			legacy_tss.stack[1].esp = INNER_TOP;
			legacy_tss.stack[1].ss = STACK | 1;
			describe(STACK, 0xfffff, P | DATA_RW | DPL(1) | FLAT);
			*legacy_descriptor(LEGACY_TSS) = descriptor(LOW32(&legacy_tss), limit, 0x89);
			t = RING3_32(ways[w].code, .ebx = LOW32(&pointer));
			check_fault_32(&t, limit < 17 ? EXC_TS : END_VECTOR, limit < 17 ? LEGACY_TSS | ways[w].ext : 0,
				       "%s: the TSS's limit is %u", ways[w].name, limit);
		}
	legacy_reset_tss();
	legacy_reset_gate(0x50);
	legacy_reset_gate(EXC_UD);
}

/* An inner stack on an absent page: the fault finds the caller as it was. The TSS's fields are read before. */
static void test_absent_inner_stacks(void)
{
	static const struct {
		const char *name;
		const u8 *code;
	} ways[] = { { "2 CALL: a gate", call_far }, { "2 INT n", int_50 } };
	static u32 directory[1024] __attribute__((aligned(4096)));
	struct legacy_trap t;

	for (u32 n = 0; n < 16; n++)
		directory[n] = n << 22 | (u32)(PTE_P | PTE_W | PTE_U | PTE_PS);
	legacy_reset_tss();
	legacy_tss.stack[1].esp = 0x80001000;
	legacy_tss.stack[1].ss = STACK | 1;
	describe(STACK, 0xfffff, P | DATA_RW | DPL(1) | FLAT);
	describe(TARGET, 0xfffff, P | CODE_X | DPL(1) | FLAT);
	*legacy_descriptor(GATE) = legacy_gate_to(TARGET, LOW32(target), P | CALL_32 | DPL(3), 4);
	*legacy_gate(0x50) = legacy_gate_to(TARGET, LOW32(target), P | INTERRUPT_32 | DPL(3), 0);
	pointer.selector = GATE | 3;
	for (unsigned w = 0; w < ARRAY_SIZE(ways); w++) {
		t = RING3_32(ways[w].code, .ebx = LOW32(&pointer), .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG),
			     .cr3 = LOW32(directory), .cr4 = CR4_PSE, .esp = legacy_stack() - 32);
		check(is(&t, EXC_PF, PF_W) && t.cr2 == 0x80000ffc && t.eip == LOW32(ways[w].code) &&
			      t.cs == USER_CS32 && t.ss == USER_DS && t.esp == legacy_stack() - 32,
		      "%s: an inner stack on an absent page: #PF of a supervisor's write, CS, SS, ESP stay",
		      ways[w].name);
	}
	legacy_reset_gate(0x50);
	legacy_reset_tss();
}

/* ---- RET and IRET ---- */

struct return_case {
	const char *what;
	u8 ring, cs_rpl;
	u32 cs_attributes;
	u8 ss_rpl;
	u32 ss_attributes;
	u8 vector;
	u16 error;
};
static const struct return_case returns[] = {
	{ "to the same ring", 3, 3, P | CODE_X | DPL(3) | FLAT, 3, 0, END_VECTOR, 0 },
	{ "from ring 0 to ring 0", 0, 0, P | CODE_X | DPL(0) | FLAT, 0, 0, END_VECTOR, 0 },
	{ "to ring 3", 0, 3, P | CODE_X | DPL(3) | FLAT, 3, P | DATA_RW | DPL(3) | FLAT, END_VECTOR, 0 },
	{ "to ring 1", 0, 1, P | CODE_X | DPL(1) | FLAT, 1, P | DATA_RW | DPL(1) | FLAT, END_VECTOR, 0 },
	{ "to ring 3 in a conforming segment of DPL 0", 0, 3, P | CONFORMING | DPL(0) | FLAT, 3,
	  P | DATA_RW | DPL(3) | FLAT, END_VECTOR, 0 },
	{ "inwards", 3, 0, P | CODE_X | DPL(0) | FLAT, 0, P | DATA_RW | DPL(0) | FLAT, EXC_GP, TARGET },
	{ "DPL above RPL", 0, 0, P | CODE_X | DPL(3) | FLAT, 0, 0, EXC_GP, TARGET },
	{ "DPL below RPL", 0, 3, P | CODE_X | DPL(0) | FLAT, 3, P | DATA_RW | DPL(3) | FLAT, EXC_GP, TARGET },
	{ "conforming, DPL above RPL", 0, 0, P | CONFORMING | DPL(3) | FLAT, 0, 0, EXC_GP, TARGET },
	{ "to a data segment", 0, 0, P | DATA_RW | DPL(0) | FLAT, 0, 0, EXC_GP, TARGET },
	{ "to a call gate", 0, 0, P | CALL_32 | DPL(0), 0, 0, EXC_GP, TARGET },
	{ "to an absent segment", 0, 0, CODE_X | DPL(0) | FLAT, 0, 0, EXC_NP, TARGET },
	{ "to an absent segment of ring 3", 0, 3, CODE_X | DPL(3) | FLAT, 3, P | DATA_RW | DPL(3) | FLAT, EXC_NP,
	  TARGET },
	{ "to an absent one of the wrong DPL: privilege first", 0, 0, CODE_X | DPL(3) | FLAT, 0, 0, EXC_GP, TARGET },
	{ "SS of RPL 0 to ring 3", 0, 3, P | CODE_X | DPL(3) | FLAT, 0, P | DATA_RW | DPL(3) | FLAT, EXC_GP, STACK },
	{ "SS of DPL 0 to ring 3", 0, 3, P | CODE_X | DPL(3) | FLAT, 3, P | DATA_RW | DPL(0) | FLAT, EXC_GP, STACK },
	{ "SS read-only", 0, 3, P | CODE_X | DPL(3) | FLAT, 3, P | DATA_RO | DPL(3) | FLAT, EXC_GP, STACK },
	{ "SS absent: #SS", 0, 3, P | CODE_X | DPL(3) | FLAT, 3, DATA_RW | DPL(3) | FLAT, EXC_SS, STACK },
	{ "SS code", 0, 3, P | CODE_X | DPL(3) | FLAT, 3, P | CODE_XR | DPL(3) | FLAT, EXC_GP, STACK },
};

/* EIP, CS, EFLAGS (IRET alone), ESP, SS as they are popped; `released` parameters in between. */
static void fill_frame(bool iret, u32 eip, u16 cs, u32 flags, u32 esp, u16 ss, unsigned released)
{
	u32 *at = frame;

	*at++ = eip;
	*at++ = cs | 0xabcd0000; /* upper halves are ignored */
	if (iret)
		*at++ = flags;
	at += released;
	*at++ = esp;
	*at = ss | 0xabcd0000;
}

static void test_returns(void)
{
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(returns); n++) {
		const struct return_case *r = &returns[n];
		bool good = true, outer = r->cs_rpl > r->ring;

		for (unsigned iret = 0; iret < 2; iret++) {
			describe(TARGET, 0xfffff, r->cs_attributes);
			describe(STACK, 0xfffff, r->ss_attributes);
			fill_frame(iret, LOW32(target), (u16)(TARGET | r->cs_rpl), 2, INNER_TOP,
				   (u16)(STACK | r->ss_rpl), 0);
			t = from_ring(r->ring, iret ? iret_there : ret_there);
			good = is(&t, r->vector, r->error) && good;
			if (r->vector != END_VECTOR)
				good = good && t.esp == LOW32(frame);
			else
				good = good && t.cs == (u32)(TARGET | r->cs_rpl) &&
				       t.esp == (outer ? INNER_TOP : LOW32(frame) + (iret ? 12 : 8)) &&
				       (!outer || t.ss == (u32)(STACK | r->ss_rpl));
		}
		check(good, "2 RET, IRET: %s", r->what);
	}
	for (unsigned iret = 0; iret < 2; iret++) {
		const u8 *code = iret ? iret_there : ret_there;
		const char *name = iret ? "IRET" : "RET";

		describe(TARGET, 0xfffff, P | CODE_X | DPL(3) | FLAT);
		describe(STACK, 0xfffff, P | DATA_RW | DPL(3) | FLAT);
		fill_frame(iret, LOW32(target), 3, 2, INNER_TOP, STACK | 3, 0);
		t = from_ring(0, code);
		check_fault_32(&t, EXC_GP, 0, "2 %s: a null CS", name);
		fill_frame(iret, LOW32(target), LEGACY_GDT_ENTRIES * 8 | 3, 2, INNER_TOP, STACK | 3, 0);
		t = from_ring(0, code);
		check_fault_32(&t, EXC_GP, LEGACY_GDT_ENTRIES * 8, "2 %s: CS beyond the GDT", name);
		fill_frame(iret, LOW32(target), TARGET | 3, 2, INNER_TOP, 3, 0);
		t = from_ring(0, code);
		check_fault_32(&t, EXC_GP, 0, "2 %s: a null SS", name);
		fill_frame(iret, LOW32(target), TARGET | 3, 2, INNER_TOP, LEGACY_GDT_ENTRIES * 8 | 3, 0);
		t = from_ring(0, code);
		check_fault_32(&t, EXC_GP, LEGACY_GDT_ENTRIES * 8, "2 %s: SS beyond the GDT", name);
		describe(TARGET, 0x7f, P | CODE_X | DPL(3) | FLAT);
		fill_frame(iret, LOW32(target), TARGET | 3, 2, INNER_TOP, STACK | 3, 0);
		t = from_ring(0, code);
		check_fault_32(&t, EXC_GP, 0, "2 %s: EIP beyond the limit", name);
		describe(STACK, 0xfffff, DATA_RW | DPL(3) | FLAT);
		t = from_ring(0, code);
		check_fault_32(&t, EXC_SS, STACK, "2 %s: an absent SS and EIP beyond the limit: SS first", name);
	}
	describe(TARGET, 0xfffff, P | CODE_X | DPL(3) | FLAT);
	describe(STACK, 0xfffff, P | DATA_RW | DPL(3) | FLAT);
	fill_frame(false, LOW32(target), TARGET | 3, 2, INNER_TOP, STACK | 3, 2);
	t = from_ring(0, ret_8_there);
	check(is(&t, END_VECTOR, 0) && t.esp == INNER_TOP + 8, "2 RET n: releases parameters of both stacks");
	t = RING3_32(ret_8_there, .ecx = LOW32(frame));
	check(is(&t, END_VECTOR, 0) && t.esp == LOW32(frame) + 16, "2 RET n: to the same ring");
}

CODE32(ret_16, "mov %ecx, %esp; lretw")
CODE32(iret_16, "mov %ecx, %esp; iretw")

static void test_returns_16(void)
{
	u16 *words = (u16 *)frame;
	struct legacy_trap t;

	*legacy_descriptor(TARGET) = descriptor(LOW32(target), 0xfffff, P | CODE_X | DPL(3) | FLAT);
	describe(STACK, 0xfffff, P | DATA_RW | DPL(3) | FLAT);
	memcpy(words, (u16[]){ 0, TARGET | 3, 0x1230, STACK | 3 }, 8);
	t = RING0_32(ret_16, .ecx = LOW32(frame));
	check(is(&t, END_VECTOR, 0) && t.esp == 0x1230 && t.cs == (TARGET | 3),
	      "2 RET: operands of 16 bits: ESP is zero-extended");
	memcpy(words, (u16[]){ 0, TARGET | 3, 0x3002, 0x1230, STACK | 3 }, 10);
	t = RING0_32(iret_16, .ecx = LOW32(frame));
	check(is(&t, END_VECTOR, 0) && t.esp == 0x1230 && (t.eflags & FLAG_IOPL) == FLAG_IOPL,
	      "2 IRET: operands of 16 bits");
	*legacy_descriptor(STACK) = descriptor(LOW32(inner_stack), 0xfff, P | DATA_RW | DPL(3));
	describe(TARGET, 0xfffff, P | CODE_X | DPL(3) | FLAT);
	fill_frame(true, LOW32(target), TARGET | 3, 2, 0x12340800, STACK | 3, 0);
	t = RING0_32(iret_there, .ecx = LOW32(frame));
	check(is(&t, END_VECTOR, 0) && (u16)t.esp == 0x800 && t.esp >> 16 == LOW32(frame) >> 16,
	      "2 IRET: to a stack of 16 bits: SP alone is loaded");
}

/* ---- which flags IRET and POPF take ---- */

CODE32(popf_there, "push %eax; popf")

static void test_flags(void)
{
	static const struct {
		const char *what;
		u32 ring, iopl, changed; /* of ~0 in the frame */
	} cases[] = {
		{ "ring 0", 0, 0, FLAG_IF | FLAG_IOPL | FLAG_VIF | FLAG_VIP },
		{ "ring 3, IOPL 3", 3, FLAG_IOPL, FLAG_IF },
		{ "ring 3, IOPL 2", 3, 2 << 12, 0 },
	};
	const u32 always = FLAG_CF | FLAG_ZF | FLAG_DF | FLAG_OF | FLAG_AC | FLAG_ID,
		  all = ~(u32)(FLAG_TF | FLAG_VM | FLAG_NT | FLAG_RF);

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		struct legacy_state s = { LEGACY_RING0, .ecx = LOW32(frame), .eip = LOW32(iret_there) };
		u32 cs = KERNEL_CS32,
		    looked_at = always | FLAG_IF | FLAG_IOPL | FLAG_VIF | FLAG_VIP | (1 << 3) | (1 << 15);
		struct legacy_trap t;

		if (cases[n].ring) {
			s = (struct legacy_state){ LEGACY_RING3, .ecx = LOW32(frame), .eip = LOW32(iret_there) };
			cs = USER_CS32;
		}
		s.eflags |= cases[n].iopl;
		fill_frame(true, LOW32(target), (u16)cs, all, 0, 0, 0);
		t = legacy_run(&s);
		check_equal(t.eflags & looked_at, always | cases[n].iopl | cases[n].changed, "2 IRET: flags in %s",
			    cases[n].what);
	}
}

/* ---- outer rings must not keep inner data segments ---- */

CODE32(drop_segments,
       "mov %esi, %ds; mov %edi, %es; mov %ebp, %fs; mov %edx, %gs; mov %ecx, %esp; mov %cs:(%ebx), %eax; test %eax, "
       "%eax; jz 1f; iret; 1: lret")

static void test_dropped(void)
{
	struct legacy_trap t;
	u32 iret;

	describe(GATE, 0xfffff, P | CONFORMING | 2 | DPL(0) | FLAT);
	for (iret = 0; iret < 2; iret++) {
		fill_frame(iret, LOW32(target), USER_CS32, 2, INNER_TOP, USER_DS, 0);
		t = RING0_32(drop_segments, .ecx = LOW32(frame), .ebx = LOW32(&iret), .esi = KERNEL_DS, .edi = USER_DS,
			     .ebp = GATE, .edx = KERNEL_CS32);
		check(is(&t, END_VECTOR, 0) && t.ds == 0 && t.es == USER_DS && t.fs == GATE && t.gs == 0,
		      iret ? "2 IRET: DS and GS of ring 0 become null, ES of ring 3 and a conforming FS stay"
			   : "2 RET: DS and GS of ring 0 become null, ES of ring 3 and a conforming FS stay");
		fill_frame(iret, LOW32(target), USER_CS32, 2, INNER_TOP, USER_DS, 0);
		t = RING0_32(drop_segments, .ecx = LOW32(frame), .ebx = LOW32(&iret), .esi = 1, .edi = 2, .ebp = 3,
			     .edx = 0);
		check(is(&t, END_VECTOR, 0) && t.ds == 0 && t.es == 0 && t.fs == 0 && t.gs == 0,
		      "2 %s: null selectors become 0 on the way to ring 3", iret ? "IRET" : "RET");
		fill_frame(iret, LOW32(target), KERNEL_CS32, 2, INNER_TOP, KERNEL_DS, 0);
		t = RING0_32(drop_segments, .ecx = LOW32(frame), .ebx = LOW32(&iret), .esi = 1, .edi = 2, .ebp = 3,
			     .edx = 0);
		check(is(&t, END_VECTOR, 0) && t.ds == 1 && t.es == 2 && t.fs == 3 && t.gs == 0,
		      "2 %s: and stay in ring 0", iret ? "IRET" : "RET");
	}
}

/* In 64-bit mode bases do not go with the selectors. */
CODE(drop_64,
     "mov %eax, %ds; inc %eax; mov %eax, %es; inc %eax; mov %eax, %fs; mov $0xc0000100, %ecx; mov %edi, %eax; xor "
     "%edx, %edx; wrmsr; test %ebx, %ebx; jz 1f; iretq; 1: lretq")
CODE(read_selectors, "mov %ds, %eax; mov %es, %ecx; mov %fs, %edx")

static void test_dropped_64(void)
{
	for (unsigned iret = 0; iret < 2; iret++) {
		u64 *stack = (u64 *)kernel_stack() - 8, n = 0;
		struct trap t;

		stack[n++] = USER(read_selectors);
		stack[n++] = USER_CS;
		if (iret)
			stack[n++] = 2;
		stack[n++] = user_stack();
		stack[n++] = USER_DS;
		t = KERNEL(drop_64, .rsp = (u64)stack, .rax = 1, .rbx = iret, .rdi = 0x12345000);
		check(t.vector == END_VECTOR && t.cs == USER_CS && t.rax == 0 && t.rcx == 0 && t.rdx == 0 &&
			      read_msr(MSR_FS_BASE) == 0x12345000,
		      "2 %s: likewise in 64-bit mode, where FS keeps its base", iret ? "IRET" : "RET");
		write_msr(MSR_FS_BASE, 0);
	}
}

/* ---- interrupts through gates of the IDT ---- */

CODE32(handler_32, "pushf; pop %eax; mov %cs, %edi")

static void test_interrupts(void)
{
	static const struct {
		const char *what;
		u8 gate;
		u32 target;
		u8 ring, vector;
		u16 error;
	} cases[] = {
		{ "a trap gate", P | TRAP_32 | DPL(3), P | CODE_X | DPL(0) | FLAT, 3, END_VECTOR, 0 },
		{ "a gate of DPL 0 from ring 3", P | TRAP_32 | DPL(0), P | CODE_X | DPL(0) | FLAT, 3, EXC_GP,
		  0x50 * 8 + 2 },
		{ "an absent gate", TRAP_32 | DPL(3), P | CODE_X | DPL(0) | FLAT, 3, EXC_NP, 0x50 * 8 + 2 },
		{ "an absent gate of DPL 0: privilege first", TRAP_32 | DPL(0), P | CODE_X | DPL(0) | FLAT, 3, EXC_GP,
		  0x50 * 8 + 2 },
		{ "a call gate", P | CALL_32 | DPL(3), P | CODE_X | DPL(0) | FLAT, 3, EXC_GP, 0x50 * 8 + 2 },
		{ "a data segment in the IDT", P | DATA_RW | DPL(3), P | CODE_X | DPL(0) | FLAT, 3, EXC_GP,
		  0x50 * 8 + 2 },
		{ "type 0", P | DPL(3), P | CODE_X | DPL(0) | FLAT, 3, EXC_GP, 0x50 * 8 + 2 },
		{ "to a data segment", P | TRAP_32 | DPL(3), P | DATA_RW | DPL(0) | FLAT, 3, EXC_GP, TARGET },
		{ "to an outer ring", P | TRAP_32 | DPL(3), P | CODE_X | DPL(3) | FLAT, 0, EXC_GP, TARGET },
		{ "to the same ring", P | TRAP_32 | DPL(3), P | CODE_X | DPL(3) | FLAT, 3, END_VECTOR, 0 },
		{ "to a conforming segment", P | TRAP_32 | DPL(3), P | CONFORMING | DPL(0) | FLAT, 3, END_VECTOR, 0 },
		{ "to an absent segment", P | TRAP_32 | DPL(3), CODE_X | DPL(0) | FLAT, 3, EXC_NP, TARGET },
		{ "to an absent one of an outer ring: privilege first", P | TRAP_32 | DPL(3), CODE_X | DPL(3) | FLAT, 0,
		  EXC_GP, TARGET },
	};
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		describe(TARGET, 0xfffff, cases[n].target);
		*legacy_gate(0x50) = legacy_gate_to(TARGET, LOW32(handler_32), cases[n].gate, 0);
		t = from_ring(cases[n].ring, int_50);
		check_fault_32(&t, cases[n].vector, cases[n].error, "2 INT n: %s", cases[n].what);
	}
	describe(TARGET, 0x7f, P | CODE_X | DPL(0) | FLAT);
	*legacy_gate(0x50) = legacy_gate_to(TARGET, LOW32(handler_32), P | TRAP_32 | DPL(3), 0);
	t = from_ring(3, int_50);
	check_fault_32(&t, EXC_GP, 0, "2 INT n: an offset beyond the limit");
	*legacy_gate(0x50) = legacy_gate_to(1, LOW32(handler_32), P | TRAP_32 | DPL(3), 0);
	t = from_ring(3, int_50);
	check_fault_32(&t, EXC_GP, 0, "2 INT n: a gate with a null selector");
	*legacy_gate(EXC_UD) = legacy_gate_to(1, LOW32(handler_32), P | TRAP_32, 0);
	t = from_ring(3, undefined);
	check_fault_32(&t, EXC_GP, 1, "3A 6.13: the same of #UD: EXT is set");
	*legacy_gate(EXC_UD) = legacy_gate_to(KERNEL_CS32, LOW32(handler_32), TRAP_32, 0);
	t = from_ring(3, undefined);
	check_fault_32(&t, EXC_NP, EXC_UD * 8 + 3, "3A 6.13: an absent gate of #UD: IDT and EXT are set");
	legacy_reset_gate(EXC_UD);
	legacy_idt_limit(0x50 * 8 + 6);
	t = from_ring(3, int_50);
	check_fault_32(&t, EXC_GP, 0x50 * 8 + 2, "2 INT n: a gate that the IDT's limit cuts");
	legacy_idt_limit(LEGACY_VECTORS * 8 - 1);
}

static void test_interrupt_frames(void)
{
	u32 top = legacy_ring0_stack(), *stack = (u32 *)(u64)top;
	u16 *words = (u16 *)(u64)top;
	struct legacy_trap t;

	describe(TARGET, 0xfffff, P | CODE_X | DPL(0) | FLAT);
	for (unsigned trap = 0; trap < 2; trap++) {
		*legacy_gate(0x50) =
			legacy_gate_to(TARGET, LOW32(handler_32), (u8)(P | (INTERRUPT_32 + trap) | DPL(3)), 0);
		t = RING3_32(int_50, .eflags = (u32)(2 | FLAG_IF | FLAG_NT | FLAG_AC | FLAG_DF));
		check(is(&t, END_VECTOR, 0) && t.esp == top - 20 && stack[-1] == USER_DS &&
			      stack[-2] == legacy_stack() &&
			      (stack[-3] & (FLAG_IF | FLAG_NT | FLAG_AC | FLAG_DF)) ==
				      (FLAG_IF | FLAG_NT | FLAG_AC | FLAG_DF) &&
			      stack[-4] == USER_CS32 && stack[-5] == LOW32(int_50) + 2,
		      "3A 6.12.1: a %s gate of 32 bits pushes SS, ESP, EFLAGS, CS, EIP", trap ? "trap" : "interrupt");
		check_equal(t.eax & (FLAG_IF | FLAG_NT | FLAG_AC | FLAG_DF), FLAG_AC | FLAG_DF | (trap ? FLAG_IF : 0),
			    trap ? "3A 6.12.1.3: a trap gate leaves IF; NT is cleared"
				 : "3A 6.12.1.3: an interrupt gate clears IF and NT");
	}
	*legacy_descriptor(TARGET) = descriptor(LOW32(handler_32), 0xfffff, P | CODE_X | DPL(0) | FLAT);
	*legacy_gate(0x50) = legacy_gate_to(TARGET, 0xabcd0000, P | INTERRUPT_16 | DPL(3), 0);
	t = RING3_32(int_50);
	check(is(&t, END_VECTOR, 0) && t.esp == top - 10 && words[-1] == USER_DS && words[-2] == (u16)legacy_stack() &&
		      words[-4] == USER_CS32 && words[-5] == (u16)(LOW32(int_50) + 2),
	      "3A 6.12.1: a gate of 16 bits pushes words, its offset has 16 bits");
	*legacy_gate(EXC_GP) = legacy_gate_to(TARGET, 0, P | TRAP_16, 0);
	*legacy_gate(0x50) = 0;
	t = RING3_32(int_50);
	check(is(&t, END_VECTOR, 0) && t.esp == top - 12 && words[-6] == 0x50 * 8 + 2,
	      "3A 6.13: and an error code of 16 bits");
	legacy_reset_gate(EXC_GP);
	legacy_reset_gate(0x50);
}

/* ---- long mode: call gates of 64 bits ---- */

CODE(call_far_64, "rex.w lcall *(%rbx)")
CODE(call_far_in_64, "lcall *(%rbx)")
CODE(jmp_far_in_64, "ljmp *(%rbx)")
CODE(target_64,
     "mov %cs, %edi; mov %ss, %esi; mov (%rsp), %r8; mov 8(%rsp), %r9; mov 16(%rsp), %r10; mov 24(%rsp), %r11")
CODE32(call_far_compat, "lcall *(%ebx)")

static void gate_64(u64 offset, u16 selector, u8 access)
{
	*gdt_entry(GDT_FREE) = legacy_gate_to(selector, LOW32(offset), access, 0);
	*gdt_entry(GDT_FREE + 8) = offset >> 32;
}

static void test_gates_64(void)
{
	static struct {
		u32 offset;
		u16 selector;
	} __attribute__((packed)) there;
	u64 at = USER(&there);
	struct trap t;

	there.selector = GDT_FREE | 3;
	gate_64((u64)target_64, KERNEL_CS, P | CALL_32 | DPL(3));
	t = USER_MODE(call_far_in_64, .rbx = at);
	check(t.vector == END_VECTOR && t.rdi == KERNEL_CS && t.rsi == 0 && t.r8 == USER(call_far_in_64) + 2 &&
		      t.r9 == USER_CS && t.r10 == user_stack() && t.r11 == USER_DS,
	      "3A 5.8.3.1: a 64-bit call gate to ring 0: four quadwords are pushed, SS is null");
	check_equal(t.rsp, tss()->rsp[0] - 32, "3A 5.8.5.2: on the stack of the TSS");
	asm volatile("mov %0, %%ds" ::"r"(USER_DS));
	t = USER_MODE(call_far_compat, .rbx = at, .cs = USER_CS32);
	check(t.vector == END_VECTOR && t.rdi == KERNEL_CS && t.r9 == USER_CS32, "3A 5.8.3.1: from compatibility mode");
	gate_64(USER(target_64), USER_CS, P | CALL_32 | DPL(3));
	t = USER_MODE(call_far_in_64, .rbx = at);
	check(t.vector == END_VECTOR && t.rdi == USER_CS && t.rsp == user_stack() - 16 && t.r9 == USER_CS,
	      "3A 5.8.3.1: to the same ring");
	t = USER_MODE(jmp_far_in_64, .rbx = at);
	check(t.vector == END_VECTOR && t.rdi == USER_CS && t.rsp == user_stack(), "2 JMP: through it");
	gate_64((u64)target_64, KERNEL_CS, P | CALL_32 | DPL(3));
	t = USER_MODE(jmp_far_in_64, .rbx = at);
	check_fault(&t, EXC_GP, KERNEL_CS, "2 JMP: through it to an inner ring");
	gate_64((u64)target_64, KERNEL_CS32, P | CALL_32 | DPL(3));
	t = USER_MODE(call_far_in_64, .rbx = at);
	check_fault(&t, EXC_GP, KERNEL_CS32, "3A 5.8.3.1: to a 32-bit segment: #GP");
	gate_64((u64)target_64, KERNEL_CS, P | CALL_32 | DPL(0));
	t = USER_MODE(call_far_in_64, .rbx = at);
	check_fault(&t, EXC_GP, GDT_FREE, "3A 5.8.4: DPL below CPL");
	gate_64((u64)target_64, KERNEL_CS, CALL_32 | DPL(3));
	t = USER_MODE(call_far_in_64, .rbx = at);
	check_fault(&t, EXC_NP, GDT_FREE, "2 CALL: an absent gate");
	gate_64(BIT(47), KERNEL_CS, P | CALL_32 | DPL(3));
	t = USER_MODE(call_far_in_64, .rbx = at);
	check_fault(&t, EXC_GP, 0, "2 CALL: a non-canonical offset");
	gate_64((u64)target_64, KERNEL_CS, P | CALL_32 | DPL(3));
	*gdt_entry(GDT_FREE + 8) |= BIT(40);
	t = USER_MODE(call_far_in_64, .rbx = at);
	check_fault(&t, EXC_GP, GDT_FREE, "3A 5.8.3.1: a type in the gate's second half: #GP");
	gate_64((u64)target_64, KERNEL_CS, P | CALL_16 | DPL(3));
	t = USER_MODE(call_far_in_64, .rbx = at);
	check_fault(&t, EXC_GP, GDT_FREE, "3A 3.5: there are no gates of 16 bits in long mode");
	gate_64(0, GDT_TSS, P | 5 | DPL(3));
	t = USER_MODE(call_far_in_64, .rbx = at);
	check_fault(&t, EXC_GP, GDT_FREE, "3A 7.7: nor task gates");
	*gdt_entry(GDT_FREE) = descriptor(0, 0x67, P | 9 | DPL(3));
	t = USER_MODE(jmp_far_in_64, .rbx = at);
	check_fault(&t, EXC_GP, GDT_FREE, "3A 7.7: nor a JMP to a TSS");
	*gdt_entry(GDT_FREE) = *gdt_entry(GDT_FREE + 8) = 0;
}

void guest(void)
{
	test_direct();
	test_call_order();
	test_gate_checks();
	test_gate_stacks();
	test_bad_inner_stacks();
	test_absent_inner_stacks();
	test_returns();
	test_returns_16();
	test_flags();
	test_dropped();
	test_dropped_64();
	test_interrupts();
	test_interrupt_frames();
	test_gates_64();
}
