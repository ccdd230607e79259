/*
 * Single steps in the older modes, SDM vol. 3B 17.3.1.4: real, virtual-8086, 16-bit and 32-bit protected mode. Each snippet runs
 * twice: as it is, and step by step, going on from what each #DB found; where it stops and what it leaves must be the same.
 */
#include "legacy.h"

#define DR6_BS	  BIT(14)
#define MAX_STEPS 40
#define IRETD	  0x800 /* in LOW_CODE */

enum mode { REAL, V86, PROTECTED_16, RING3_16, MODES };
static const char *const mode_names[MODES] = { "real mode", "virtual-8086 mode", "16-bit protected mode",
					       "ring 3, 16 bits" };

static struct legacy_state start_of(enum mode mode)
{
	switch (mode) {
	case REAL: return (struct legacy_state){ LEGACY_REAL };
	case V86: return (struct legacy_state){ LEGACY_V86, .eflags = 2 | FLAG_VM | FLAG_IOPL };
	case PROTECTED_16: return (struct legacy_state){ LEGACY_RING0_16 };
	default: return (struct legacy_state){ LEGACY_RING3_16, .eflags = 2 | FLAG_IOPL };
	}
}

static struct legacy_state going_on(const struct legacy_state *old, const struct legacy_trap *t)
{
	struct legacy_state s = *old;

	s.gs = t->gs, s.fs = t->fs, s.es = t->es, s.ds = t->ds, s.ss = t->ss, s.cs = t->cs;
	s.edi = t->edi, s.esi = t->esi, s.ebp = t->ebp, s.ebx = t->ebx, s.edx = t->edx, s.ecx = t->ecx, s.eax = t->eax;
	s.eip = t->eip, s.esp = t->esp, s.eflags = t->eflags;
	return s;
}

/* Where it stepped to, and how it ended. */
static struct {
	u32 ip[MAX_STEPS];
	bool rf[MAX_STEPS];
	unsigned count;
	bool only_bs;
	struct legacy_trap end;
} steps;

/*
 * From s with its TF. To real mode and ring 0 the library does not go by IRET, whose TF traps behind the next instruction only: an
 * IRETD of our own does it.
 */
static struct legacy_trap step_from(enum mode mode, struct legacy_state s)
{
	static const u8 iretd[] = { 0x66, 0xcf };
	u32 frame[3] = { s.eip, s.cs, s.eflags };

	if (mode == V86 || mode == RING3_16)
		return legacy_run(&s);
	s.esp -= sizeof(frame);
	memcpy(low_stack(s.esp), frame, sizeof(frame));
	memcpy((void *)(LOW_CODE + IRETD), iretd, sizeof(iretd));
	s.eip = IRETD;
	s.eflags = 2;
	return legacy_run(&s);
}

static void run_steps(enum mode mode, u32 ax)
{
	struct legacy_state s = start_of(mode);

	s.eax = ax;
	s.edi = s.esi = 0x100;
	s.eflags |= FLAG_TF;
	steps.count = 0;
	steps.only_bs = true;
	for (;;) {
		write_dr6(0);
		steps.end = step_from(mode, s);
		if (steps.end.vector != EXC_DB || steps.count == MAX_STEPS)
			return;
		steps.only_bs &= (read_dr6() & 0xe00f) == DR6_BS;
		steps.rf[steps.count] = steps.end.eflags & FLAG_RF;
		steps.ip[steps.count++] = steps.end.eip;
		s = going_on(&s, &steps.end);
	}
}

/* ---- snippets: (name, text, initial AX, where the steps end) ---- */

#define PLAIN(_)                                                                                                       \
	_(moves, "nop; mov $0x1234, %ebx; xchg %bx, %dx; nop", 0, 1, 7, 9, 10)                                         \
	_(jumps, "jmp 1f; nop; 1: call 2f; jmp 3f; 2: ret; 3: nop", 0, 3, 8, 6, 9, 10)                                 \
	_(loops, "mov $2, %cx; 1: loop 1b; jcxz 2f; nop; 2: nop", 0, 3, 3, 5, 8, 9)                                    \
	_(strings, "mov $3, %cx; rep movsb; nop", 0, 3, 3, 3, 5, 6)                                                    \
	_(no_strings, "xor %cx, %cx; rep stosw; nop", 0, 2, 4, 5)                                                      \
	_(compares, "mov $9, %cx; repne scasb; nop", 0, 3, 5, 6)                                                       \
	_(pushes, "pusha; popa; enter $4, $1; leave; nop", 0, 1, 2, 6, 7, 8)                                           \
	_(load_ss, "mov %ss, %ax; mov %ax, %ss; nop; nop", 0, 2, 5, 6)                                                 \
	_(pop_ss, "push %ss; pop %ss; nop; nop", 0, 1, 3, 4)                                                           \
	_(load_ds, "mov %ds, %ax; mov %ax, %ds; push %es; pop %es; nop", 0, 2, 4, 5, 6, 7)                             \
	_(flags_kept, "pushf; popf; nop", 0, 1, 2, 3)                                                                  \
	_(flags_sti, "sti; nop; cli; nop", 0, 1, 2, 3, 4)                                                              \
	_(flags_off, "pushf; pop %bx; and $0xfeff, %bx; push %bx; popf; nop; nop", 0, 1, 2, 6, 7, 8)                   \
	_(far_jump, "push %cs; push $1f - far_jump; lret; nop; 1: nop", 0, 1, 4, 6, 7)                                 \
	_(interrupt_return, "pushf; push %cs; push $1f - interrupt_return; iret; nop; 1: nop; nop", 0, 1, 2, 5, 7, 8,  \
	  9)                                                                                                           \
	_(x87, "fninit; fld1; fwait; fstp %st(0); nop", 0, 2, 4, 5, 7, 8)                                              \
	_(decimal, "daa; aaa; aam; cbw; cwd; nop", 0x1234, 1, 2, 4, 5, 6, 7)

#define _(name, text, ...) CODE_LOW(name, text)
PLAIN(_)
#undef _

struct row {
	const char *name;
	const u8 *code, *end;
	u32 ax;
	u8 ip[10];
};

static bool same_end(const struct legacy_trap *a, const struct legacy_trap *b)
{
	return a->vector == b->vector && a->eip == b->eip && a->esp == b->esp && a->eax == b->eax && a->ebx == b->ebx &&
	       a->ecx == b->ecx && a->edx == b->edx && a->esi == b->esi && a->edi == b->edi;
}

static void show_steps(void)
{
	for (unsigned n = 0; n < steps.count; n++)
		print("# step %u: IP 0x%x\n", n, steps.ip[n]);
	print("# end: vector %u at 0x%x\n", steps.end.vector, steps.end.eip);
}

static void test_row(const struct row *r, enum mode mode)
{
	struct legacy_state s = start_of(mode);
	struct legacy_trap t;
	unsigned wanted = 0;
	bool good = true;

	place_low(r->code, r->end);
	s.eax = r->ax;
	s.edi = s.esi = 0x100;
	memset(low_data(0x100), 1, 64);
	*(u8 *)low_data(0x100) = 0;
	t = legacy_run(&s);
	memset(low_data(0x100), 1, 64);
	*(u8 *)low_data(0x100) = 0;
	run_steps(mode, r->ax);
	while (r->ip[wanted])
		wanted++;
	for (unsigned n = 0; n < wanted; n++)
		good &= n < steps.count && steps.ip[n] == r->ip[n];
	good &= steps.count == wanted && steps.only_bs;
	if (!check(good, "3B 17.3.1.4: %s: %s: where it steps", mode_names[mode], r->name))
		show_steps();
	if (!check(same_end(&t, &steps.end), "3B 17.3.1.4: %s: %s: what it leaves", mode_names[mode], r->name))
		print("# plain: vector %u at 0x%x, EAX 0x%x EBX 0x%x; stepped: vector %u at 0x%x, EAX 0x%x EBX 0x%x\n",
		      t.vector, t.eip, t.eax, t.ebx, steps.end.vector, steps.end.eip, steps.end.eax, steps.end.ebx);
}

static void test_plain(void)
{
#define _(name, text, ax, ...) { #name, name, name##_end, ax, { __VA_ARGS__ } },
	static const struct row rows[] = { PLAIN(_) };
#undef _

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++)
		for (unsigned mode = 0; mode < MODES; mode++)
			test_row(&rows[n], mode);
}

/* ---- what ends single-stepping, or begins it ---- */

CODE_LOW(low_int, "nop; int $0x50; nop")
CODE_LOW(low_int1, "nop; .byte 0xf1; nop")
CODE_LOW(low_popf_on, "pushf; pop %bx; or $0x100, %bx; push %bx; popf; nop; nop")
CODE_LOW(low_rep, "mov $2, %cx; rep stosb; nop")
CODE_LOW(low_divide, "xor %cx, %cx; div %cx")

static void test_ends(void)
{
	struct legacy_state s;
	struct legacy_trap t;

	for (unsigned mode = 0; mode < MODES; mode++) {
		const char *name = mode_names[mode];

		place_code(low_int);
		*legacy_gate(0x50) |= 3ull << 45;
		run_steps(mode, 0);
		check(steps.count == 1 && steps.end.vector == 0x50 && steps.end.eip == 3 &&
			      (steps.end.eflags & FLAG_TF),
		      "3B 17.3.1.4: %s: INT n is no step, and pushes TF", name);
		place_code(low_int1);
		s = start_of(mode);
		s.eip = 1;
		s.eflags |= FLAG_TF;
		write_dr6(0);
		t = step_from(mode, s);
		check(t.vector == EXC_DB && t.eip == 2 && !(read_dr6() & DR6_BS),
		      "3B 17.3.1.6: %s: INT1 with TF: one #DB, without BS", name);
		place_code(low_popf_on);
		s = start_of(mode);
		write_dr6(0);
		t = legacy_run(&s);
		check(t.vector == EXC_DB && t.eip == 9 && (read_dr6() & DR6_BS),
		      "3B 17.3.1.4: %s: POPF that sets TF traps behind the next instruction", name);
		place_code(low_rep);
		run_steps(mode, 0);
		check(steps.count == 4 && steps.ip[1] == 3 && (mode == REAL || (steps.rf[1] && !steps.rf[2])),
		      "3B 17.3.1.1: %s: between iterations RF is pushed set", name);
		place_code(low_divide);
		run_steps(mode, 1);
		check(steps.count == 1 && steps.end.vector == EXC_DE && steps.end.eip == 2 &&
			      (steps.end.eflags & FLAG_TF),
		      "3B 17.3.1.4: %s: a fault is no step", name);
	}
}

void guest(void)
{
	test_plain();
	test_ends();
}
