/*
 * Task switches, SDM vol. 3A chapter 7: by JMP, CALL, IRET, INT n and exceptions, between TSSs of 32 and 16 bits; busy bits, links and
 * NT; what can be wrong before a switch, and after it, in the new task.
 */
#include "legacy.h"

#define TASK   LEGACY_FREE /* the second task's TSS */
#define THIRD  (LEGACY_FREE + 8)
#define GATE   (LEGACY_FREE + 16)
#define BAD    (LEGACY_FREE + 24) /* a segment with something wrong */
#define P      0x80
#define DPL(n) ((n) << 5)
#define FLAT   0xc000
#define BUSY   BIT(41)
enum { TSS_16 = 1, LDT = 2, TSS_16_BUSY = 3, TASK_GATE = 5, TSS_32 = 9, TSS_32_BUSY = 11 };
enum { DATA_RO = 0x10, DATA_RW = 0x12, CODE_X = 0x18, CODE_XR = 0x1a, CONFORMING = 0x1c };

/* SDM vol. 3A figure 7-10. */
struct tss_16 {
	u16 link, stack[6], ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
};

static struct tss_32 second, third;
static struct tss_16 small, small_main;
static u8 task_stack[2][2048] __attribute__((aligned(16)));
static struct {
	u32 offset;
	u16 selector;
} __attribute__((packed)) pointer;

#define STACK_OF(n) (LOW32(task_stack[n]) + 1024)

CODE32(jmp_task, "ljmp *(%ebx)\n" LABEL(jmp_task_next) "mov $0x77, %ebp")
CODE32(call_task, "lcall *(%ebx)\n" LABEL(call_task_next) "mov $0x77, %ebp")
CODE32(int_task, "int $0x50\n" LABEL(int_task_next) "mov $0x77, %ebp")
CODE32(undefined, "ud2")
CODE32(bad_load, "mov $0x1230, %eax; mov %eax, %ds")
CODE32(task_body, "nop")
CODE32(task_returns, "mov $0x88, %edx; " LABEL(task_returns_at) "iret\n" LABEL(task_returns_next) "mov $0x99, %edx")
CODE32(task_calls, "lcall *third_pointer; mov $0x66, %esi; iret")
extern const u8 iret_nested_at[], jmp_task_next[], call_task_next[], int_task_next[], task_returns_at[],
	task_returns_next[];
struct {
	u32 offset;
	u16 selector;
} __attribute__((packed)) third_pointer = { 0, THIRD };

static struct tss_32 new_task(const u8 *code, unsigned stack)
{
	return (struct tss_32){
		.stack = { { legacy_ring0_stack(), KERNEL_DS } },
		.eip = LOW32(code),
		.eflags = 2 | FLAG_CF | FLAG_DF,
		.eax = 0xa0000001,
		.ecx = 0xa0000002,
		.edx = 0xa0000003,
		.ebx = 0xa0000004,
		.esp = STACK_OF(stack),
		.ebp = 0xa0000005,
		.esi = 0xa0000006,
		.edi = 0xa0000007,
		.es = KERNEL_DS,
		.cs = KERNEL_CS32,
		.ss = KERNEL_DS,
		.ds = KERNEL_DS,
		.fs = USER_DS,
		.gs = 0,
		.io_map = sizeof(struct tss_32),
	};
}

static u64 tss_descriptor(const void *tss, unsigned access)
{
	return descriptor(LOW32(tss), sizeof(struct tss_32) - 1, access);
}

/* Two tasks: the one that runs, whose TSS is legacy_tss, and `second`. */
static void prepare(const u8 *code)
{
	legacy_reset_tss();
	second = new_task(code, 0);
	*legacy_descriptor(TASK) = tss_descriptor(&second, P | TSS_32 | DPL(3));
	*legacy_descriptor(GATE) = legacy_gate_to(TASK, 0, P | TASK_GATE | DPL(3), 0);
	*legacy_gate(0x50) = legacy_gate_to(TASK, 0, P | TASK_GATE | DPL(3), 0);
	pointer.selector = TASK;
}

static bool is_busy(u16 selector) { return *legacy_descriptor(selector) & BUSY; }

static bool is(const struct legacy_trap *t, u32 vector, u32 error, u16 tr)
{
	bool good = t->vector == vector && t->error == error && (u16)t->tr == tr;

	if (!good)
		print("# got vector %u error 0x%x tr 0x%x cs:eip 0x%x:0x%x esp 0x%x, expected %u, 0x%x, tr 0x%x\n",
		      t->vector, t->error, t->tr, t->cs, t->eip, t->esp, vector, error, tr);
	return good;
}

#define START(code, ...)                                                                                               \
	RING3_32(code, .ebx = LOW32(&pointer), .eax = 1, .ecx = 2, .edx = 3, .ebp = 5, .esi = 6, .edi = 7,             \
		 .eflags = 2 | (u32)FLAG_ZF, ##__VA_ARGS__)

/* What is in the old task's TSS once it was left. */
static bool saved(const u8 *next, u32 ring)
{
	const struct tss_32 *s = &legacy_tss;

	return s->eip == LOW32(next) && s->eax == 1 && s->ecx == 2 && s->edx == 3 && s->ebx == LOW32(&pointer) &&
	       s->ebp == 5 && s->esi == 6 && s->edi == 7 && s->esp == legacy_stack() &&
	       (s->eflags & ~(u32)FLAG_RF) == (2 | FLAG_ZF) && (u16)s->cs == (ring ? USER_CS32 : KERNEL_CS32) &&
	       (u16)s->ss == (ring ? USER_DS : KERNEL_DS) && (u16)s->ds == (u16)s->ss && (u16)s->gs == (u16)s->ss;
}

static bool loaded(const struct legacy_trap *t, u32 nt)
{
	return t->eax == 0xa0000001 && t->ecx == 0xa0000002 && t->edx == 0xa0000003 && t->ebx == 0xa0000004 &&
	       t->ebp == 0xa0000005 && t->esi == 0xa0000006 && t->edi == 0xa0000007 && t->cs == KERNEL_CS32 &&
	       t->ss == KERNEL_DS && t->fs == USER_DS && t->gs == 0 &&
	       (t->eflags & ~(u32)FLAG_RF) == (2 | FLAG_CF | FLAG_DF | nt);
}

static void test_switches(void)
{
	static const struct {
		const char *what;
		const u8 *code, *next;
		u16 selector;
		bool nested;
	} ways[] = {
		{ "JMP to a TSS", jmp_task, jmp_task_next, TASK, false },
		{ "JMP to a task gate", jmp_task, jmp_task_next, GATE, false },
		{ "CALL of a TSS", call_task, call_task_next, TASK, true },
		{ "CALL of a task gate", call_task, call_task_next, GATE, true },
		{ "INT n through a task gate", int_task, int_task_next, TASK, true },
	};
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(ways); n++) {
		bool nested = ways[n].nested;

		prepare(task_body);
		second.link = 0x5555;
		pointer.selector = ways[n].selector;
		t = START(ways[n].code);
		check(is(&t, END_VECTOR, 0, TASK) && loaded(&t, nested ? FLAG_NT : 0) && t.esp == STACK_OF(0),
		      "3A 7.3: %s: registers are the new task's", ways[n].what);
		check(saved(ways[n].next, 3), "3A 7.3: %s: the old task's are in its TSS", ways[n].what);
		check(is_busy(TASK) && is_busy(LEGACY_TSS) == nested, "3A 7.3: %s: busy: %s", ways[n].what,
		      nested ? "both" : "the new one");
		check(second.link == (nested ? LEGACY_TSS : 0x5555), "3A 7.4: %s: %s", ways[n].what,
		      nested ? "the new TSS has a link back" : "no link is written");
		check(t.cr0 & CR0_TS, "3A 7.3: %s: CR0.TS is set", ways[n].what);
	}
}

static void test_nested(void)
{
	struct legacy_trap t;

	prepare(task_returns);
	t = START(call_task);
	check(is(&t, END_VECTOR, 0, LEGACY_TSS) && t.ebp == 0x77 && t.eax == 1 && t.cs == USER_CS32 &&
		      t.esp == legacy_stack() && !(t.eflags & FLAG_NT),
	      "3A 7.4: IRET with NT goes back to the caller");
	check(!is_busy(TASK) && is_busy(LEGACY_TSS), "3A 7.4: and the task that it left is not busy any more");
	check(second.eip == LOW32(task_returns_next) && second.edx == 0x88 && !(second.eflags & FLAG_NT) &&
		      second.link == LEGACY_TSS,
	      "3A 7.3: its EIP is that behind the IRET, NT is clear in its TSS");
	prepare(task_calls);
	third = new_task(task_returns, 1);
	*legacy_descriptor(THIRD) = tss_descriptor(&third, P | TSS_32);
	t = START(call_task);
	check(is(&t, END_VECTOR, 0, LEGACY_TSS) && t.ebp == 0x77 && second.esi == 0x66 && !is_busy(TASK) &&
		      !is_busy(THIRD),
	      "3A 7.4: three tasks, nested");
	check(third.link == TASK && second.link == LEGACY_TSS, "3A 7.4: each has its link");
	prepare(task_returns);
	*legacy_gate(EXC_UD) = legacy_gate_to(TASK, 0, P | TASK_GATE, 0);
	t = START(int_task);
	check(is(&t, END_VECTOR, 0, LEGACY_TSS) && t.ebp == 0x77, "3A 7.4: back from an interrupt's task");
}

/* ---- exceptions ---- */

static void test_exceptions(void)
{
	struct legacy_trap t;

	prepare(task_body);
	*legacy_gate(EXC_UD) = legacy_gate_to(TASK, 0, P | TASK_GATE, 0);
	t = START(undefined);
	check(is(&t, END_VECTOR, 0, TASK) && saved(undefined, 3) && t.esp == STACK_OF(0),
	      "3A 6.12.2: #UD through a task gate: EIP in the old TSS is that of the instruction");
	check(legacy_tss.eflags & FLAG_RF, "3B 17.3.1.1: and RF is set there");
	legacy_reset_gate(EXC_UD);

	prepare(task_body);
	*legacy_gate(EXC_GP) = legacy_gate_to(TASK, 0, P | TASK_GATE, 0);
	t = START(bad_load);
	check(is(&t, END_VECTOR, 0, TASK) && t.esp == STACK_OF(0) - 4 && *(u32 *)(u64)t.esp == 0x1230,
	      "3A 6.12.2: #GP: the error code is on the new task's stack");
	prepare(task_body);
	*legacy_descriptor(BAD) = descriptor(LOW32(task_stack), 0xfff, P | DATA_RW | DPL(3) | 0x4000);
	second.cs = USER_CS32;
	second.ds = second.es = USER_DS;
	second.ss = BAD | 3;
	second.esp = 3;
	t = START(bad_load);
	check_fault_32(&t, EXC_DF, 0, "3A 6.15: no room for it: #SS while #GP is delivered: #DF");
	legacy_reset_gate(EXC_GP);

	prepare(task_body);
	*legacy_gate(EXC_DF) = legacy_gate_to(TASK, 0, P | TASK_GATE, 0);
	*legacy_gate(EXC_GP) = 0;
	t = START(bad_load);
	check(is(&t, END_VECTOR, 0, TASK) && t.esp == STACK_OF(0) - 4 && *(u32 *)(u64)t.esp == 0 &&
		      legacy_tss.eip == LOW32(bad_load) + 5,
	      "3A 6.15: a double fault has a task of its own, its error code is 0");
	legacy_reset_gate(EXC_DF);
	legacy_reset_gate(EXC_GP);
	prepare(task_body);
	second.trap = 1;
	pointer.selector = TASK;
	t = START(jmp_task);
	check(t.vector == EXC_DB && (u16)t.tr == TASK && t.eip == LOW32(task_body) && (t.dr6 & BIT(15)),
	      "3A 7.2.1: the T flag: #DB before the new task's first instruction, DR6.BT");
}

/* ---- what is found before the switch ---- */

static void test_before(void)
{
	static const struct {
		const char *what;
		u16 tss_access, gate_access;
		u32 limit;
		u8 through_gate, vector;
		u16 error;
	} cases[] = {
		{ "DPL 0 from ring 3", P | TSS_32, 0, 0x67, 0, EXC_GP, TASK },
		{ "a busy TSS", P | TSS_32_BUSY | DPL(3), 0, 0x67, 0, EXC_GP, TASK },
		{ "a busy TSS of 16 bits", P | TSS_16_BUSY | DPL(3), 0, 0x67, 0, EXC_GP, TASK },
		{ "an absent TSS", TSS_32 | DPL(3), 0, 0x67, 0, EXC_NP, TASK },
		{ "an absent busy TSS: type first", TSS_32_BUSY | DPL(3), 0, 0x67, 0, EXC_GP, TASK },
		{ "an absent TSS of DPL 0: privilege first", TSS_32, 0, 0x67, 0, EXC_GP, TASK },
		{ "a limit of 102: #TS", P | TSS_32 | DPL(3), 0, 0x66, 0, EXC_TS, TASK },
		{ "of 16 bits with a limit of 42: #TS", P | TSS_16 | DPL(3), 0, 0x2a, 0, EXC_TS, TASK },
		{ "an absent TSS of limit 0: presence first", TSS_32 | DPL(3), 0, 0, 0, EXC_NP, TASK },
		{ "a gate of DPL 0 from ring 3", P | TSS_32 | DPL(3), P | TASK_GATE, 0x67, 1, EXC_GP, GATE },
		{ "an absent gate", P | TSS_32, TASK_GATE | DPL(3), 0x67, 1, EXC_NP, GATE },
		{ "a gate to a busy TSS", P | TSS_32_BUSY, P | TASK_GATE | DPL(3), 0x67, 1, EXC_GP, TASK },
		{ "a gate to an absent TSS", TSS_32, P | TASK_GATE | DPL(3), 0x67, 1, EXC_NP, TASK },
		{ "a gate to a TSS that is too small", P | TSS_32, P | TASK_GATE | DPL(3), 0x66, 1, EXC_TS, TASK },
		{ "a gate to an LDT", P | LDT, P | TASK_GATE | DPL(3), 0x67, 1, EXC_GP, TASK },
		{ "a gate to a data segment", P | DATA_RW, P | TASK_GATE | DPL(3), 0x67, 1, EXC_GP, TASK },
	};
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		bool good = true;

		for (unsigned call = 0; call < 2; call++) {
			u64 before;

			prepare(task_body);
			before = *legacy_descriptor(TASK) =
				descriptor(LOW32(&second), cases[n].limit, cases[n].tss_access);
			*legacy_descriptor(GATE) = legacy_gate_to(TASK, 0, (u8)cases[n].gate_access, 0);
			pointer.selector = cases[n].through_gate ? GATE : TASK;
			t = START(call ? call_task : jmp_task);
			good = is(&t, cases[n].vector, cases[n].error, LEGACY_TSS) && good;
			good = good && t.eip == LOW32(call ? call_task : jmp_task) && t.eax == 1 &&
			       *legacy_descriptor(TASK) == before && is_busy(LEGACY_TSS);
		}
		check(good, "2 JMP, CALL: a task: %s", cases[n].what);
	}
	prepare(task_body);
	*legacy_descriptor(GATE) = legacy_gate_to(0, 0, P | TASK_GATE | DPL(3), 0);
	pointer.selector = GATE;
	t = START(jmp_task);
	check(is(&t, EXC_GP, 0, LEGACY_TSS), "2 JMP: a task gate with a null selector");
	*legacy_descriptor(GATE) = legacy_gate_to(TASK | 4, 0, P | TASK_GATE | DPL(3), 0);
	t = START(jmp_task);
	check(is(&t, EXC_GP, TASK | 4, LEGACY_TSS), "2 JMP: a task gate to an LDT's entry");
	*legacy_descriptor(GATE) = legacy_gate_to(LEGACY_GDT_ENTRIES * 8, 0, P | TASK_GATE | DPL(3), 0);
	t = START(jmp_task);
	check(is(&t, EXC_GP, LEGACY_GDT_ENTRIES * 8, LEGACY_TSS), "2 JMP: a task gate beyond the GDT");
	*legacy_gate(0x50) = legacy_gate_to(TASK, 0, P | TASK_GATE, 0);
	t = START(int_task);
	check(is(&t, EXC_GP, 0x50 * 8 + 2, LEGACY_TSS), "2 INT n: a task gate of DPL 0 from ring 3");
	*legacy_descriptor(TASK) = tss_descriptor(&second, P | TSS_32_BUSY);
	*legacy_gate(EXC_UD) = legacy_gate_to(TASK, 0, P | TASK_GATE, 0);
	t = START(undefined);
	check(is(&t, EXC_GP, TASK | 1, LEGACY_TSS), "3A 6.13: #UD's task is busy: #GP with EXT");
	legacy_reset_gate(EXC_UD);
}

CODE32(iret_nested, "pushf; orl $0x4000, (%esp); popf; " LABEL(iret_nested_at) "iret")

static void test_bad_returns(void)
{
	static const struct {
		const char *what;
		u16 link, access, limit;
		u8 vector;
		u16 error;
	} cases[] = {
		{ "null", 0, P | TSS_32_BUSY, 0x67, EXC_TS, 0 },
		{ "of the LDT", TASK | 4, P | TSS_32_BUSY, 0x67, EXC_TS, TASK | 4 },
		{ "beyond the GDT", LEGACY_GDT_ENTRIES * 8, P | TSS_32_BUSY, 0x67, EXC_TS, LEGACY_GDT_ENTRIES * 8 },
		{ "to a TSS that is not busy", TASK, P | TSS_32, 0x67, EXC_TS, TASK },
		{ "to a data segment", TASK, P | DATA_RW, 0x67, EXC_TS, TASK },
		{ "to an absent TSS", TASK, TSS_32_BUSY, 0x67, EXC_NP, TASK },
		{ "to a TSS that is too small", TASK, P | TSS_32_BUSY, 0x66, EXC_TS, TASK },
		{ "to a busy TSS: fine", TASK, P | TSS_32_BUSY, 0x67, END_VECTOR, 0 },
	};
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		bool good = cases[n].vector == END_VECTOR;

		prepare(task_body);
		legacy_tss.link = cases[n].link;
		*legacy_descriptor(TASK) = descriptor(LOW32(&second), cases[n].limit, cases[n].access);
		t = RING0_32(iret_nested);
		check(is(&t, cases[n].vector, cases[n].error, good ? TASK : LEGACY_TSS) &&
			      (good || t.eip == LOW32(iret_nested_at)) &&
			      (!good || (is_busy(TASK) && !is_busy(LEGACY_TSS) && !(t.eflags & FLAG_NT))),
		      "2 IRET: the link is %s", cases[n].what);
	}
}

/* ---- what is found in the new task: SDM vol. 3A table 7-1 ---- */

static void test_after(void)
{
	enum place { NEW_LDT, NEW_CS, NEW_SS, NEW_DS, NEW_GS };
	static const struct {
		const char *what;
		u8 place, rpl;
		u32 attributes, limit;
		u8 vector;
		bool zero;
	} cases[] = {
		{ "LDT: a data segment", NEW_LDT, 0, P | DATA_RW, 0xff, EXC_TS, false },
		{ "LDT: absent", NEW_LDT, 0, LDT, 0xff, EXC_TS, false },
		{ "LDT: of the LDT", NEW_LDT, 4, P | LDT, 0xff, EXC_TS, false },
		{ "CS: a data segment", NEW_CS, 0, P | DATA_RW | FLAT, 0xfffff, EXC_TS, false },
		{ "CS: DPL above RPL", NEW_CS, 0, P | CODE_X | DPL(3) | FLAT, 0xfffff, EXC_TS, false },
		{ "CS: absent", NEW_CS, 0, CODE_X | FLAT, 0xfffff, EXC_NP, false },
		{ "CS: conforming, DPL above RPL", NEW_CS, 0, P | CONFORMING | DPL(3) | FLAT, 0xfffff, EXC_TS, false },
		{ "CS: EIP beyond the limit", NEW_CS, 0, P | CODE_X | 0x4000, 0xff, EXC_GP, true },
		{ "SS: read-only", NEW_SS, 0, P | DATA_RO | FLAT, 0xfffff, EXC_TS, false },
		{ "SS: DPL 3", NEW_SS, 0, P | DATA_RW | DPL(3) | FLAT, 0xfffff, EXC_TS, false },
		{ "SS: RPL 3", NEW_SS, 3, P | DATA_RW | FLAT, 0xfffff, EXC_TS, false },
		{ "SS: absent", NEW_SS, 0, DATA_RW | FLAT, 0xfffff, EXC_SS, false },
		{ "DS: execute-only", NEW_DS, 0, P | CODE_X | FLAT, 0xfffff, EXC_TS, false },
		{ "DS: absent", NEW_DS, 0, DATA_RW | FLAT, 0xfffff, EXC_NP, false },
		{ "DS: a TSS", NEW_DS, 0, P | TSS_32, 0xfffff, EXC_TS, false },
		{ "DS: DPL below RPL", NEW_DS, 3, P | DATA_RW | FLAT, 0xfffff, EXC_TS, false },
		{ "GS: execute-only", NEW_GS, 0, P | CODE_X | FLAT, 0xfffff, EXC_TS, false },
		{ "GS: absent", NEW_GS, 0, DATA_RW | FLAT, 0xfffff, EXC_NP, false },
	};
	struct legacy_trap t;

	/* The handlers need nothing of the new task but its ring: from ring 0 SS must do, so the faults go to ring 0 by a task. */
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		static const u8 vectors[] = { EXC_TS, EXC_NP, EXC_SS, EXC_GP };
		u32 *places[] = { &second.ldt, &second.cs, &second.ss, &second.ds, &second.gs }, error;
		bool good;

		prepare(task_body);
		*places[cases[n].place] = BAD | cases[n].rpl;
		*legacy_descriptor(BAD) = descriptor(0, cases[n].limit, cases[n].attributes);
		third = new_task(task_body, 1);
		*legacy_descriptor(THIRD) = tss_descriptor(&third, P | TSS_32);
		for (unsigned v = 0; v < ARRAY_SIZE(vectors); v++)
			*legacy_gate(vectors[v]) = v + EXC_TS == cases[n].vector || vectors[v] == cases[n].vector
							   ? legacy_gate_to(THIRD, 0, P | TASK_GATE, 0)
							   : 0;
		t = START(jmp_task);
		error = cases[n].zero ? 0 : BAD | (cases[n].rpl & 4);
		good = is(&t, END_VECTOR, 0, THIRD) && t.esp == STACK_OF(1) - 4 && *(u32 *)(u64)t.esp == error &&
		       third.link == TASK;
		good = good && second.eip == LOW32(task_body) && second.eax == 0xa0000001 && saved(jmp_task_next, 3);
		if (!check(good, "3A 7.3: in the new task: %s", cases[n].what))
			print("#   error 0x%x\n", *(u32 *)(u64)t.esp);
		for (unsigned v = 0; v < ARRAY_SIZE(vectors); v++)
			legacy_reset_gate(vectors[v]);
	}
}

/* An LDT of its own, and rings other than 0. */
static void test_new_segments(void)
{
	static u64 ldt[2];
	struct legacy_trap t;

	prepare(task_body);
	ldt[1] = descriptor(0, 0xfffff, P | DATA_RW | FLAT);
	*legacy_descriptor(BAD) = descriptor(LOW32(ldt), sizeof(ldt) - 1, P | LDT);
	second.ldt = BAD;
	second.ds = 12;
	t = START(jmp_task);
	check(is(&t, END_VECTOR, 0, TASK) && t.ds == 12 && (u16)t.ldtr == BAD,
	      "3A 7.3: a task with an LDT, DS is in it");
	prepare(task_body);
	second.cs = USER_CS32;
	second.ss = second.ds = second.es = USER_DS;
	t = START(call_task);
	check(is(&t, END_VECTOR, 0, TASK) && t.cs == USER_CS32 && t.ss == USER_DS && t.esp == STACK_OF(0),
	      "3A 7.3: a task in ring 3");
}

/* ---- TSSs of 16 bits ---- */

static void test_small(void)
{
	struct legacy_trap t;

	prepare(task_body);
	small = (struct tss_16){
		.ip = 0,
		.flags = 2 | FLAG_CF,
		.ax = 0xb001,
		.cx = 0xb002,
		.dx = 0xb003,
		.bx = 0xb004,
		.sp = 1024,
		.bp = 0xb005,
		.si = 0xb006,
		.di = 0xb007,
		.es = KERNEL_DS,
		.cs = BAD,
		.ss = THIRD,
		.ds = KERNEL_DS,
	};
	*legacy_descriptor(BAD) = descriptor(LOW32(task_body), 0xffff, P | CODE_X | 0x4000);
	*legacy_descriptor(THIRD) = descriptor(LOW32(task_stack), 0xffff, P | DATA_RW);
	*legacy_descriptor(TASK) = descriptor(LOW32(&small), sizeof(small) - 1, P | TSS_16 | DPL(3));
	t = START(call_task);
	/* Their upper halves: an 80386's, docs/fidelity.md. */
	check(is(&t, END_VECTOR, 0, TASK) && t.eax == 0xffffb001 && t.ecx == 0xffffb002 && t.edx == 0xffffb003 &&
		      t.ebx == 0xffffb004 && t.ebp == 0xffffb005 && t.esi == 0xffffb006 && t.edi == 0xffffb007 &&
		      (u16)t.esp == 1024 && t.cs == BAD && t.ss == THIRD && t.ds == KERNEL_DS && t.eip == 3,
	      "3A 7.6: a TSS of 16 bits: registers");
	check(t.fs == 0 && t.gs == 0, "3A 7.6: FS and GS are null");
	check(is_busy(TASK) && small.link == LEGACY_TSS && (t.eflags & FLAG_NT) && saved(call_task_next, 3),
	      "3A 7.6: its link, NT, busy");

	prepare(task_body);
	small.cs = BAD;
	*legacy_descriptor(BAD) = descriptor(LOW32(task_returns), 0xffff, P | CODE_X | 0x4000);
	*legacy_descriptor(TASK) = descriptor(LOW32(&small), sizeof(small) - 1, P | TSS_16 | DPL(3));
	t = START(call_task);
	check(is(&t, END_VECTOR, 0, LEGACY_TSS) && t.ebp == 0x77 && t.eax == 1 && !is_busy(TASK) &&
		      small.ip == task_returns_next - task_returns && small.dx == 0x88 && !(small.flags & FLAG_NT),
	      "3A 7.6: IRET from it to a task of 32 bits");

	/* From 16 to 32 bits: what is saved, and the stacks that it has for inner rings. */
	prepare(task_body);
	small_main = (struct tss_16){ .stack = { (u16)0x1000, LEGACY_SS16 } };
	*legacy_descriptor(BAD) = descriptor(LOW32(&small_main), sizeof(small_main) - 1, P | TSS_16);
	t = START(jmp_task, .tr = BAD);
	check(is(&t, END_VECTOR, 0, TASK) && loaded(&t, 0) && !is_busy(BAD) && small_main.ax == 1 &&
		      small_main.di == 7 && small_main.ip == (u16)LOW32(jmp_task_next) && small_main.cs == USER_CS32 &&
		      small_main.ds == USER_DS && small_main.stack[0] == 0x1000,
	      "3A 7.6: from a task of 16 bits to one of 32");
	t = START(undefined, .tr = BAD);
	check(is(&t, EXC_UD, 0, BAD) && (u16)t.handler_esp == 0x1000, "3A 7.6: the inner stack of a TSS of 16 bits");
}

/* ---- virtual-8086 mode by tasks ---- */

CODE_LOW(low_body, "mov %cs, %ax; mov %ds, %bx; int $0x50")
CODE32(task_enters_86, "mov %gs, %eax; iret")

static void test_virtual(void)
{
	struct legacy_state s = { LEGACY_V86 };
	struct legacy_trap t;

	prepare(task_body);
	place_code(low_body);
	second = (struct tss_32){ .stack = { { legacy_ring0_stack(), KERNEL_DS } },
				  .eip = 0,
				  .eflags = 2 | FLAG_VM,
				  .esp = 0x800,
				  .cs = LOW_CODE >> 4,
				  .ss = LOW_STACK >> 4,
				  .ds = 0x1111,
				  .es = 0x2222,
				  .fs = 0x3333,
				  .gs = 0x4444 };
	t = START(jmp_task);
	check(is(&t, EXC_GP, 0, TASK) && (t.eflags & FLAG_VM) && t.eip == 4 && (u16)t.eax == LOW_CODE >> 4 &&
		      (u16)t.ebx == 0x1111 && t.es == 0x2222 && t.gs == 0x4444 && t.esp == 0x800,
	      "3A 20.2.5: JMP to a task of virtual-8086 mode");
	prepare(task_body);
	s.eflags |= (u32)FLAG_IOPL;
	t = legacy_run(&s);
	check(is(&t, END_VECTOR, 0, TASK) && loaded(&t, FLAG_NT) && (legacy_tss.eflags & FLAG_VM) &&
		      (u16)legacy_tss.cs == LOW_CODE >> 4 && (u16)legacy_tss.ds == LOW_DATA >> 4 && legacy_tss.eip == 6,
	      "3A 20.3.2: from virtual-8086 mode through a task gate");
	prepare(task_enters_86);
	s.eip = place_code(low_body);
	memcpy((void *)(LOW_CODE + 6), (u8[]){ 0x40, 0xcd, 0x40 }, 3); /* INC AX, INT END_VECTOR */
	t = legacy_run(&s);
	check(is(&t, END_VECTOR, 0, LEGACY_TSS) && (t.eflags & FLAG_VM) && t.eip == 9 &&
		      (u16)t.eax == (LOW_CODE >> 4) + 1 && t.gs == LOW_DATA >> 4,
	      "3A 20.2.5: and back by IRET");
}

/* ---- paging ---- */

static u32 directories[2][1024] __attribute__((aligned(4096)));

CODE32(task_reads, "mov 0x80000000, %eax")

static void test_cr3(void)
{
	struct legacy_trap t;

	for (unsigned d = 0; d < 2; d++) {
		for (u32 n = 0; n < 256; n++)
			directories[d][n] = n << 22 | (u32)(PTE_P | PTE_W | PTE_U | PTE_PS);
		directories[d][512] = d * 0x400000 | (u32)(PTE_P | PTE_PS);
	}
	*(volatile u32 *)0x400000 = 0xc0ffee;
	prepare(task_reads);
	second.cr3 = LOW32(directories[1]);
	t = START(jmp_task, .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG), .cr3 = LOW32(directories[0]), .cr4 = CR4_PSE);
	check(is(&t, END_VECTOR, 0, TASK) && t.eax == 0xc0ffee && t.cr3 == LOW32(directories[1]),
	      "3A 7.3: the new task has its CR3");
	check_equal(legacy_tss.cr3, 0, "3A 7.2.1: which is not saved in the old TSS");
	prepare(task_reads);
	second.cr3 = LOW32(directories[1]);
	directories[0][LOW32(&second) >> 22] &= ~(u32)PTE_W;
	t = START(jmp_task, .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG), .cr3 = LOW32(directories[0]), .cr4 = CR4_PSE);
	check(is(&t, END_VECTOR, 0, TASK), "3A 7.3: without WP the processor writes TSSs on read-only pages");
	directories[0][LOW32(&second) >> 22] |= (u32)PTE_W;
}

/* A page fault before the commit leaves everything as it was; TSSs are at T, a page of its own. */
static void test_page_faults(void)
{
	enum { ABSENT, READ_ONLY };
	static const struct {
		const char *what;
		const u8 *code;
		u8 page;
		bool faults;
		u32 error;
	} cases[] = {
		{ "JMP to a TSS on an absent page", jmp_task, ABSENT, true, 0 },
		{ "CALL of one", call_task, ABSENT, true, 0 },
		{ "INT n to one", int_task, ABSENT, true, 0 },
		{ "CALL of a TSS on a read-only page, where the link goes", call_task, READ_ONLY, true, PF_P | PF_W },
		{ "JMP to one, which is only read", jmp_task, READ_ONLY, false, 0 },
	};
	static u32 table[1024] __attribute__((aligned(4096)));
	static u8 page[4096] __attribute__((aligned(4096)));
	const u32 there = 0x80000000;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		struct legacy_trap t;
		bool good;

		prepare(task_body);
		second.cr3 = LOW32(directories[0]);
		memcpy(page, &second, sizeof(second));
		directories[0][512] = LOW32(table) | (u32)(PTE_P | PTE_W);
		table[0] = LOW32(page) | (u32)(cases[n].page == READ_ONLY ? PTE_P : 0);
		*legacy_descriptor(TASK) = descriptor(there, sizeof(second) - 1, P | TSS_32 | DPL(3));
		t = START(cases[n].code, .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG | CR0_WP), .cr3 = LOW32(directories[0]),
			  .cr4 = CR4_PSE);
		if (cases[n].faults)
			good = is(&t, EXC_PF, cases[n].error, LEGACY_TSS) && t.cr2 >> 12 == there >> 12 && t.eax == 1 &&
			       t.eip == LOW32(cases[n].code) && t.cs == USER_CS32 && t.esp == legacy_stack() &&
			       legacy_tss.eip == 0 && !is_busy(TASK) && is_busy(LEGACY_TSS) && !(t.cr0 & CR0_TS);
		else
			good = is(&t, END_VECTOR, 0, TASK) && loaded(&t, 0);
		check(good, "3A 7.3: %s%s", cases[n].what, cases[n].faults ? ": #PF, nothing has changed" : "");
	}
}

/* PAE: a task's CR3 loads PDPTEs, in the new task. */
static void test_pdptes(void)
{
	static u64 pointers[2][4] __attribute__((aligned(32))), low[512] __attribute__((aligned(4096)));
	struct legacy_trap t;

	for (u64 n = 0; n < 512; n++)
		low[n] = n << 21 | PTE_P | PTE_W | PTE_U | PTE_PS;
	for (unsigned bad = 0; bad < 2; bad++) {
		pointers[0][0] = pointers[1][0] = (u64)low | PTE_P;
		pointers[1][3] = bad ? PTE_P | BIT(1) : 0;
		prepare(task_body);
		second.cr3 = LOW32(pointers[1]);
		second.cs = USER_CS32;
		second.ss = second.ds = second.es = USER_DS;
		t = START(jmp_task, .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG), .cr3 = LOW32(pointers[0]),
			  .cr4 = (u32)CR4_PAE);
		check(is(&t, bad ? EXC_GP : END_VECTOR, 0, TASK) && t.cr3 == LOW32(pointers[!bad]),
		      bad ? "3A 4.4.1: a task's PDPTEs with a reserved bit: #GP(0) in the new task"
			  : "3A 4.4.1: a task's PDPTEs");
	}
}

void guest(void)
{
	test_switches();
	test_nested();
	test_exceptions();
	test_before();
	test_bad_returns();
	test_after();
	test_new_segments();
	test_small();
	test_virtual();
	test_cr3();
	test_page_faults();
	test_pdptes();
	legacy_reset_gate(0x50);
}
