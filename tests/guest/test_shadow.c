/*
 * The shadow of MOV SS and POP SS with a data breakpoint on the word that they load (SDM vol. 3A 6.8.3, vol. 3B 17.3.1.2; APM vol. 2
 * 8.1.3): the #DB comes once, behind the instruction that follows, whatever that is and wherever it leads, and is lost if that one
 * faults. In long mode and the older ones. DR6's bits 0 to 3, and a code breakpoint behind MOV SS.
 */
#include "legacy.h"

#define DR6_NONE 0xffff0ff0ull
#define DR6_BS	 BIT(14)
#define DR6_BD	 BIT(13)
#define DR7_NONE 0x400ull
#define DR7_GD	 BIT(13)
#define DR7_WORD (DR7_NONE | BIT(2) | 7ull << 20) /* DR1: two bytes, read or written */
#define SKIP	 2				  /* length of the instructions that fault */

static u16 watched __attribute__((aligned(4)));
static u8 buffer[16];

static void watch(u64 address)
{
	write_dr1(address);
	write_dr6(DR6_NONE);
	write_dr7(DR7_WORD);
}

static void watch_nothing(void)
{
	write_dr7(DR7_NONE);
	write_dr6(DR6_NONE);
}

/* ---- long mode ---- */

static struct {
	u64 vector, rip, dr6, rflags, rcx;
} log[8];
static unsigned logged;

static void note(struct frame *f)
{
	if (logged < ARRAY_SIZE(log)) {
		log[logged].vector = f->vector;
		log[logged].rip = f->rip;
		log[logged].dr6 = read_dr6();
		log[logged].rflags = f->rflags;
		log[logged].rcx = f->rcx;
	}
	logged++;
	write_dr6(DR6_NONE);
	f->rflags &= ~FLAG_TF;
}

static void note_and_skip(struct frame *f)
{
	note(f);
	f->rip += SKIP;
}

static void handle(u8 vector, handler_fn *fn)
{
	set_handler(vector, fn);
	logged = 0;
}

static void print_log(void)
{
	for (unsigned n = 0; n < logged && n < ARRAY_SIZE(log); n++)
		print("# vector %lu at 0x%lx, DR6 0x%lx\n", log[n].vector, log[n].rip, log[n].dr6);
}

static u64 stub_of(u8 vector)
{
	const struct gate *g = idt_gate(vector);

	return (g->low & 0xffff) | (g->low >> 48 << 16) | g->high << 32;
}

/* (name, what follows MOV SS): the #DB is to come once, at the label `name`_then. RDI is the watched word, RBX a target. */
#define IN_LINE(_)                                                                                                     \
	_(nop, "nop; 1:")                                                                                              \
	_(mov_ss_again, "mov (%rdi), %ss; 1:")                                                                         \
	_(lss, "lss (%rdx), %eax; 1:")                                                                                 \
	_(int1, ".byte 0xf1; 1:")                                                                                      \
	_(hlt, "hlt; 1:")                                                                                              \
	_(sti, "sti; 1: cli")                                                                                          \
	_(popf, "popf; 1:")                                                                                            \
	_(cpuid, "cpuid; 1:")                                                                                          \
	_(wrmsr, "wrmsr; 1:")                                                                                          \
	_(out, "out %al, $0x80; 1:")                                                                                   \
	_(xchg, "xchg %rax, (%rsp); 1:")                                                                               \
	_(movsb, "movsb; 1:")                                                                                          \
	_(repeated, "1: rep movsb")                                                                                    \
	_(call, "call 1f; nop; 1:")                                                                                    \
	_(far_return, "lretq; nop; 1:")                                                                                \
	_(far_jump, "ljmpl *(%rsi); nop; 1:")                                                                          \
	_(iret, "iretq; nop; 1:")
#define _(name, text)                                                                                                  \
	CODE(then_##name, "mov (%rdi), %ss\n" text "\n.set then_" #name "_end, 1b; .globl then_" #name "_end")         \
	extern const u8 then_##name##_end[];
IN_LINE(_)
#undef _

static void test_in_line(void)
{
	static const struct {
		const char *name;
		const u8 *code, *end;
	} rows[] = {
#define _(name, text) { #name, then_##name, then_##name##_end },
		IN_LINE(_)
#undef _
	};
	static struct {
		u32 offset;
		u16 selector;
	} __attribute__((packed)) pointer;

	watched = KERNEL_DS;
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		u64 *stack = (u64 *)kernel_stack() - 5, rsi = (u64)buffer;
		struct trap t;

		if (rows[n].code == then_iret || rows[n].code == then_far_return) {
			stack[0] = (u64)rows[n].end;
			stack[1] = KERNEL_CS;
			stack[2] = 2;
			stack[3] = kernel_stack();
			stack[4] = KERNEL_DS;
		} else {
			stack[0] = 2;
		}
		if (rows[n].code == then_far_jump) {
			pointer.offset = LOW32(rows[n].end);
			pointer.selector = KERNEL_CS;
			rsi = (u64)&pointer;
		} else {
			pointer.offset = 1;
			pointer.selector = KERNEL_DS;
		}
		handle(EXC_DB, note);
		watch((u64)&watched);
		t = KERNEL(rows[n].code, .rdi = (u64)&watched, .rsi = rsi, .rsp = (u64)stack,
			   .rdx = rows[n].code == then_wrmsr ? 0 : (u64)&pointer,
			   .rcx = rows[n].code == then_wrmsr ? MSR_LSTAR : 3);
		watch_nothing();
		/* MOVSB writes to RDI. */
		if (rows[n].code == then_movsb || rows[n].code == then_repeated)
			watched = KERNEL_DS;
		if (!check(t.vector == END_VECTOR && logged >= 1 && log[0].rip == (u64)rows[n].end &&
				   log[0].dr6 == (DR6_NONE | 2) && (logged == 1 || rows[n].code == then_repeated),
			   "3A 6.8.3: MOV SS of a watched word, then %s: one #DB, behind that", rows[n].name)) {
			print("# %u times; ended by vector %lu at 0x%lx\n", logged, t.vector, t.rip);
			print_log();
		}
		if (rows[n].code == then_repeated)
			check(log[0].rcx == 2 && (log[0].rflags & FLAG_RF),
			      "3A 6.8.3: behind the first iteration of a repeated one, with RF");
	}
	handle(EXC_DB, note);
	watch((u64)&watched);
	KERNEL(then_nop, .rdi = (u64)&watched, .rflags = 2 | FLAG_TF);
	watch_nothing();
	check(logged == 1 && log[0].rip == (u64)then_nop_end && log[0].dr6 == (DR6_NONE | DR6_BS | 2),
	      "3A 6.8.3: with TF: one #DB for both, and none between the two");
	handle(EXC_DB, NULL);
}

CODE(ss_int_50, "mov (%rdi), %ss; int $0x50\n" LABEL(ss_int_50_end))
CODE(ss_int3, "mov (%rdi), %ss; int3\n" LABEL(ss_int3_end))
CODE(ss_int_1, "mov (%rdi), %ss; .byte 0xcd, 1\n" LABEL(ss_int_1_end))
CODE(ss_int1, "mov (%rdi), %ss; .byte 0xf1\n" LABEL(ss_int1_end))
CODE(ss_syscall, "mov (%rdi), %ss; syscall")
CODE(ss_sysret, "mov (%rdi), %ss; sysretq")
CODE(ss_nop, "mov (%rdi), %ss; nop\n" LABEL(ss_nop_end))
CODE(syscall_target, "nop; nop")
CODE(ss_ud2, "mov (%rdi), %ss; ud2; nop; nop")
CODE(ss_page_fault, "mov (%rdi), %ss; mov (%rax), %eax; nop; nop")
CODE(ss_divide, "mov (%rdi), %ss; div %ecx; nop; nop")
CODE(ss_hlt, "mov (%rdi), %ss; hlt; nop; nop; nop")
CODE(ss_mov_dr, "mov (%rdi), %ss\n" LABEL(ss_mov_dr_at) "mov %db0, %rax\n" LABEL(ss_mov_dr_end))
extern const u8 ss_int_50_end[], ss_int3_end[], ss_int_1_end[], ss_int1_end[], ss_nop_end[], ss_mov_dr_at[],
	ss_mov_dr_end[];

static struct trap from_ring(unsigned ring, const u8 *code, u64 rcx)
{
	watched = ring ? USER_DS : KERNEL_DS;
	watch(ring ? USER(&watched) : (u64)&watched);
	if (ring)
		return USER_MODE(code, .rdi = USER(&watched), .rcx = rcx, .rax = 0x8000000000);
	return KERNEL(code, .rdi = (u64)&watched, .rcx = rcx, .rax = 0x8000000000, .r11 = 2, .rsp = user_stack() - 64);
}

/* Into a handler: the #DB comes before its first instruction. */
static void test_software_interrupts(void)
{
	static const struct {
		const char *name;
		const u8 *code, *end;
		u8 vector;
	} rows[] = {
		{ "INT n", ss_int_50, ss_int_50_end, 0x50 },
		{ "INT3", ss_int3, ss_int3_end, EXC_BP },
		{ "INT 1", ss_int_1, ss_int_1_end, EXC_DB },
	};

	for (unsigned ring = 0; ring <= 3; ring += 3)
		for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
			u64 stub = stub_of(rows[n].vector), end = ring ? USER(rows[n].end) : (u64)rows[n].end;

			set_gate(rows[n].vector, stub, KERNEL_CS, GATE_INTERRUPT, 3, 0);
			set_handler(rows[n].vector, note);
			handle(EXC_DB, note);
			from_ring(ring, rows[n].code, 0);
			watch_nothing();
			if (!check(logged == 2 && log[0].vector == EXC_DB && log[0].rip == stub &&
					   log[0].dr6 == (DR6_NONE | 2) && log[1].vector == rows[n].vector &&
					   log[1].rip == end && log[1].dr6 == DR6_NONE,
				   "3B 17.3.1.2: then %s, ring %u: before its handler's first instruction",
				   rows[n].name, ring))
				print_log();
			set_handler(rows[n].vector, NULL);
			reset_gate(rows[n].vector);
		}
	for (unsigned ring = 0; ring <= 3; ring += 3) {
		handle(EXC_DB, note);
		from_ring(ring, ss_int1, 0);
		watch_nothing();
		if (!check(logged == 1 && log[0].rip == (ring ? USER(ss_int1_end) : (u64)ss_int1_end) &&
				   log[0].dr6 == (DR6_NONE | 2),
			   "3A 6.8.3: then INT1, ring %u: its own #DB, and no other", ring))
			print_log();
	}
	handle(EXC_DB, NULL);
}

static void test_system_calls(void)
{
	struct trap t;

	write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_SCE);
	write_msr(MSR_STAR, (u64)KERNEL_CS << 32 | (u64)USER_CS32 << 48);
	write_msr(MSR_LSTAR, (u64)syscall_target);
	write_msr(MSR_FMASK, FLAG_TF);
	t = from_ring(3, ss_syscall, 0);
	check(t.vector == EXC_DB && t.rip == (u64)syscall_target && t.cs == KERNEL_CS && t.dr6 == (DR6_NONE | 2),
	      "3A 6.8.3: then SYSCALL: before LSTAR's first instruction");
	t = from_ring(0, ss_sysret, USER(ss_nop));
	check(t.vector == EXC_DB && t.rip == USER(ss_nop) && t.cs == USER_CS && t.dr6 == (DR6_NONE | 2),
	      "3A 6.8.3: then SYSRET: before the program's next instruction");
	write_msr(MSR_EFER, read_msr(MSR_EFER) & ~EFER_SCE);
	watch_nothing();
}

static void test_faults(void)
{
	static const struct {
		const char *name;
		const u8 *code;
		u8 vector;
		bool user;
	} rows[] = {
		{ "#UD", ss_ud2, EXC_UD, false },	   { "#PF", ss_page_fault, EXC_PF, false },
		{ "#DE", ss_divide, EXC_DE, false },	   { "#UD in ring 3", ss_ud2, EXC_UD, true },
		{ "#GP in ring 3", ss_hlt, EXC_GP, true },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		set_handler(rows[n].vector, note_and_skip);
		handle(EXC_DB, note);
		from_ring(rows[n].user ? 3 : 0, rows[n].code, 0);
		watch_nothing();
		if (!check(logged == 1 && log[0].vector == rows[n].vector && log[0].dr6 == DR6_NONE,
			   "3B 17.3.1.2: then %s: the breakpoint is lost", rows[n].name))
			print_log();
		set_handler(rows[n].vector, NULL);
	}
	handle(EXC_DB, NULL);
	watched = KERNEL_DS;
	watch((u64)&watched);
	write_dr7(DR7_WORD | DR7_GD);
	struct trap t = KERNEL(ss_mov_dr, .rdi = (u64)&watched);
	check(t.vector == EXC_DB && t.rip == (u64)ss_mov_dr_at && t.dr6 == (DR6_NONE | DR6_BD | 2),
	      "3B 17.2.4: then general detect: one #DB says both");
	watch_nothing();
}

/* ---- the older modes ---- */

#define WORD	0x200 /* of LOW_DATA */
#define POINTER 0x210
#define STACK	0xffe /* of LOW_DATA, where SP begins before POP SS: what it leads to has no watched word */

enum mode { REAL, V86, PROTECTED_16, RING3_16, MODES };
static const char *const mode_names[MODES] = { "real mode", "virtual-8086 mode", "16-bit protected mode",
					       "ring 3, 16 bits" };
static const u16 stacks[MODES] = { LOW_STACK >> 4, LOW_STACK >> 4, LEGACY_SS16, LEGACY_USER_SS16 };

static struct legacy_state start_of(enum mode mode)
{
	switch (mode) {
	case REAL: return (struct legacy_state){ LEGACY_REAL };
	case V86: return (struct legacy_state){ LEGACY_V86, .eflags = 2 | FLAG_VM | FLAG_IOPL };
	case PROTECTED_16: return (struct legacy_state){ LEGACY_RING0_16 };
	default: return (struct legacy_state){ LEGACY_RING3_16, .eflags = 2 | FLAG_IOPL };
	}
}

/* (name, what follows, how it ends: in line, in the handler of a vector, by a fault) */
enum end { LINE, HANDLER, FAULT };
#define OLD(_)                                                                                                         \
	_(nop, "nop", LINE, 0)                                                                                         \
	_(int1, ".byte 0xf1", LINE, 0)                                                                                 \
	_(int_50, "int $0x50", HANDLER, 0x50)                                                                          \
	_(int3, "int3", HANDLER, EXC_BP)                                                                               \
	_(into, "into", HANDLER, EXC_OF)                                                                               \
	_(mov_ss, "mov (%bx), %ss", LINE, 0)                                                                           \
	_(lss, "lss (%si), %sp", LINE, 0)                                                                              \
	_(sti, "sti", LINE, 0)                                                                                         \
	_(pushf, "pushf", LINE, 0)                                                                                     \
	_(stosb, "stosb", LINE, 0)                                                                                     \
	_(cbw, "cbw", LINE, 0)                                                                                         \
	_(push, "push %ax", LINE, 0)                                                                                   \
	_(jump, "jmp 1f; 1:", LINE, 0)                                                                                 \
	_(undefined, "ud2", FAULT, EXC_UD)                                                                             \
	_(bound, "bound %ax, (%di)", FAULT, EXC_BR)                                                                    \
	_(divide, "div %cl", FAULT, EXC_DE)
#define _(name, text, ...)                                                                                             \
	CODE_LOW(mov_##name, "mov (%bx), %ss;" text)                                                                   \
	CODE_LOW(pop_##name, "pop %ss;" text)
OLD(_)
#undef _

struct old {
	const char *name;
	const u8 *code[2], *end[2];
	enum end how;
	u8 vector;
};

static bool is_in_handler(enum mode mode, const struct legacy_trap *t, u8 vector)
{
	u64 gate = *legacy_gate(vector);

	if (mode == REAL)
		return t->cs == REAL_PAGE >> 4;
	return (t->cs & 3) == 0 && t->cs == (gate >> 16 & 0xffff) && t->eip == ((gate & 0xffff) | gate >> 48 << 16);
}

static bool ends_well(enum mode mode, const struct old *o, unsigned pop)
{
	u32 size = (u32)(o->end[pop] - o->code[pop]) - 2; /* without INT END_VECTOR */
	struct legacy_state s = start_of(mode);
	struct legacy_trap t;
	u64 dr6;
	bool good;

	s.eip = place_low(o->code[pop], o->end[pop]);
	s.ebx = WORD;
	s.esi = POINTER;
	s.edi = 0x300;
	s.eax = 0x100;
	if (pop) {
		s.ss = s.ds;
		s.esp = STACK;
	}
	s.eflags |= FLAG_OF;
	*(u16 *)low_data(WORD) = *(u16 *)low_data(STACK) = stacks[mode];
	*(u16 *)low_data(POINTER) = STACK;
	*(u16 *)low_data(POINTER + 2) = stacks[mode];
	watch(LOW_DATA + (pop ? STACK : WORD));
	t = legacy_run(&s);
	dr6 = read_dr6();
	watch_nothing();
	switch (o->how) {
	case LINE: good = t.vector == EXC_DB && t.eip == s.eip + size && dr6 == (DR6_NONE | 2); break;
	case HANDLER: good = t.vector == EXC_DB && is_in_handler(mode, &t, o->vector) && dr6 == (DR6_NONE | 2); break;
	default: good = t.vector == o->vector && t.eip == s.eip + (pop ? 1 : 2) && dr6 == DR6_NONE; break;
	}
	if (!good)
		print("# %s, %s, %s: vector %u at 0x%x:0x%x (from 0x%x), DR6 0x%lx\n", o->name, mode_names[mode],
		      pop ? "POP SS" : "MOV SS", t.vector, t.cs, t.eip, s.eip, dr6);
	return good;
}

static void test_older_modes(void)
{
	static const struct old rows[] = {
#define _(name, text, how, vector)                                                                                     \
	{ #name, { mov_##name, pop_##name }, { mov_##name##_end, pop_##name##_end }, how, vector },
		OLD(_)
#undef _
	};
	u64 breakpoint = *legacy_gate(EXC_BP), overflow = *legacy_gate(EXC_OF), other = *legacy_gate(0x50);

	*legacy_gate(EXC_BP) |= (u64)ATTR_DPL3 << 40;
	*legacy_gate(EXC_OF) |= (u64)ATTR_DPL3 << 40;
	*legacy_gate(0x50) |= (u64)ATTR_DPL3 << 40;
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++)
		for (unsigned mode = 0; mode < MODES; mode++) {
			bool good = ends_well(mode, &rows[n], 0);

			good = ends_well(mode, &rows[n], 1) && good;
			check(good, "3A 6.8.3: %s: MOV SS or POP SS of a watched word, then %s", mode_names[mode],
			      rows[n].name);
		}
	*legacy_gate(EXC_BP) = breakpoint;
	*legacy_gate(EXC_OF) = overflow;
	*legacy_gate(0x50) = other;
}

/* 32-bit code, and a switch to another task. */
CODE32(mov_int1_32, "mov (%ebx), %ss; .byte 0xf1\n" LABEL(mov_int1_32_end))
CODE32(pop_int1_32, "pop %ss; .byte 0xf1\n" LABEL(pop_int1_32_end))
CODE32(mov_jump_task, "mov (%ebx), %ss; ljmp $0xa8, $0")
CODE32(task_code, "nop; nop")
extern const u8 mov_int1_32_end[], pop_int1_32_end[];

static void test_32_bits(void)
{
	static struct tss_32 task;
	u32 *stack = (u32 *)(u64)legacy_stack() - 1;
	struct legacy_trap t;

	for (unsigned ring = 0; ring <= 3; ring += 3) {
		watched = ring ? USER_DS : KERNEL_DS;
		watch((u64)&watched);
		t = ring ? RING3_32(mov_int1_32, .ebx = LOW32(&watched))
			 : RING0_32(mov_int1_32, .ebx = LOW32(&watched));
		watch_nothing();
		check(t.vector == EXC_DB && t.eip == LOW32(mov_int1_32_end) && t.dr6 == (DR6_NONE | 2),
		      "3A 6.8.3: 32-bit code, ring %u: MOV SS, then INT1: its own #DB", ring);
	}
	*stack = USER_DS;
	watch((u64)stack);
	t = RING3_32(pop_int1_32, .esp = LOW32(stack));
	watch_nothing();
	check(t.vector == EXC_DB && t.eip == LOW32(pop_int1_32_end) && t.dr6 == (DR6_NONE | 2),
	      "3A 6.8.3: 32-bit code: POP SS, then INT1: its own #DB");
	task = (struct tss_32){ .eip = LOW32(task_code),
				.eflags = 2,
				.esp = legacy_ring0_stack() - 512,
				.cs = KERNEL_CS32,
				.ss = KERNEL_DS,
				.ds = KERNEL_DS,
				.es = KERNEL_DS,
				.fs = KERNEL_DS,
				.gs = KERNEL_DS,
				.io_map = sizeof(task) };
	*legacy_descriptor(LEGACY_FREE + 8) = descriptor(LOW32(&task), sizeof(task) - 1, 0x89);
	watched = KERNEL_DS;
	watch((u64)&watched);
	write_dr7((DR7_WORD & ~BIT(2)) | BIT(3)); /* G1: the switch clears the local ones */
	t = RING0_32(mov_jump_task, .ebx = LOW32(&watched));
	check(t.vector == EXC_DB && t.eip == LOW32(task_code) && t.tr == LEGACY_FREE + 8 && t.dr6 == (DR6_NONE | 2),
	      "3A 6.8.3: MOV SS, then a JMP to another task: before that one's first instruction");
	watch_nothing();
}

/* ---- DR6 and code breakpoints ---- */

CODE(two_stores, "mov %al, (%rdi)\n" LABEL(two_stores_1) "mov %al, (%rsi)\n" LABEL(two_stores_2) "nop")
CODE(plain_int1, ".byte 0xf1")
CODE(read_db0, "mov %db0, %rax")
extern const u8 two_stores_1[], two_stores_2[];

static void test_dr6(void)
{
	struct trap t;

	write_dr0((u64)buffer);
	write_dr1((u64)&buffer[8]);
	write_dr7(DR7_NONE | 5 | 0x11ull << 16); /* one byte each, written */
	write_dr6(DR6_NONE);
	t = KERNEL(two_stores, .rdi = (u64)buffer, .rsi = (u64)&buffer[8]);
	check(t.vector == EXC_DB && t.dr6 == (DR6_NONE | 1), "3B 17.2.3: the first breakpoint");
	t = KERNEL(two_stores_1, .rsi = (u64)&buffer[8]);
	check(t.vector == EXC_DB && t.dr6 == (DR6_NONE | 2),
	      "3B 17.2.3: the second: B0 to B3 are set anew, not collected");
	write_dr6(DR6_NONE | DR6_BS | 8);
	t = KERNEL(two_stores_1, .rsi = (u64)&buffer[8]);
	check(t.vector == EXC_DB && t.dr6 == (DR6_NONE | DR6_BS | 2), "3B 17.2.3: BS stays until it is cleared");
	write_dr0((u64)two_stores);
	write_dr7(DR7_NONE | 1);
	write_dr6(DR6_NONE | 0xe);
	t = KERNEL(two_stores, .rdi = (u64)buffer, .rsi = (u64)&buffer[8]);
	check(t.vector == EXC_DB && t.dr6 == (DR6_NONE | 1), "3B 17.2.3: a code breakpoint likewise");
	write_dr6(DR6_NONE | 3);
	write_dr7(DR7_NONE | DR7_GD);
	t = KERNEL(read_db0);
	check(t.vector == EXC_DB && t.dr6 == (DR6_NONE | DR6_BD), "APM 2 13.1.1.3: general detect likewise");
	write_dr7(DR7_NONE);
	write_dr6(DR6_NONE | 3);
	t = KERNEL(plain_int1);
	check(t.vector == EXC_DB && t.dr6 == (DR6_NONE | 3), "3B 17.3.1.6: INT1 leaves DR6 as it is");
	watch_nothing();
}

static void test_code_breakpoint(void)
{
	struct trap t;

	watched = KERNEL_DS;
	write_dr0((u64)ss_int1_end - 1);
	write_dr6(DR6_NONE);
	write_dr7(DR7_NONE | 1);
	t = KERNEL(ss_int1, .rdi = (u64)&watched);
	check(t.vector == EXC_DB && (vendor_is_amd() ? t.rip == (u64)ss_int1_end - 1 && t.dr6 == (DR6_NONE | 1)
						     : t.rip == (u64)ss_int1_end && t.dr6 == DR6_NONE),
	      "3B 17.3.1.1: a code breakpoint behind MOV SS strikes on AMD's processors alone");
	watch((u64)&watched);
	write_dr7(DR7_WORD | 1);
	t = KERNEL(ss_int1, .rdi = (u64)&watched);
	check(t.vector == EXC_DB && (vendor_is_amd() ? t.rip == (u64)ss_int1_end - 1 && t.dr6 == (DR6_NONE | 3)
						     : t.rip == (u64)ss_int1_end && t.dr6 == (DR6_NONE | 2)),
	      "3B 17.3.1.1: and with the watched word");
	watch_nothing();
}

void guest(void)
{
	watch_nothing();
	test_in_line();
	test_software_interrupts();
	test_system_calls();
	test_faults();
	test_older_modes();
	test_32_bits();
	test_dr6();
	test_code_breakpoint();
}
