/*
 * Instructions that only older code uses, in the modes that have them: decimal adjustment, XLAT, SALC, LOOP and JCXZ by address
 * size, far pointers, software interrupts by mode, DPL and IOPL; and instructions of many accesses that fault in the middle: they
 * must leave everything as it was, or be resumable. SDM vol. 2 under their names.
 */
#include "legacy.h"

#define STATUS	(FLAG_CF | BIT(2) | BIT(4) | FLAG_ZF | BIT(7) | FLAG_OF)
#define FLAG_AF BIT(4)
#define ABSENT	0x80010000u /* nothing mapped here and around */
#define PAGE	0x1000

/* ---- decimal adjustment: all 8-bit operands, against the manual's pseudocode; flags that it defines ---- */

CODE32(run_daa, "daa")
CODE32(run_das, "das")
CODE32(run_aaa, "aaa")
CODE32(run_aas, "aas")
CODE32(run_aam, "aam")
CODE32(run_aad, "aad")
CODE32(run_salc, ".byte 0xd6")

struct decimal {
	u32 ax;
	bool cf, af;
};

static struct decimal daa(u32 al, bool cf, bool af, bool subtract)
{
	u32 old = al, six = subtract ? (u32)-6 : 6, sixty = subtract ? (u32)-0x60 : 0x60;
	struct decimal r = { .af = (al & 15) > 9 || af };
	bool borrow = false;

	if (r.af) {
		borrow = subtract ? al < 6 : al + 6 > 0xff;
		al = (al + six) & 0xff;
	}
	r.cf = cf || borrow;
	if (old > 0x99 || cf) {
		al = (al + sixty) & 0xff;
		r.cf = true;
	} else if (!subtract) {
		r.cf = false;
	}
	r.ax = al;
	return r;
}

static struct decimal aaa(u32 ax, bool af, bool subtract)
{
	struct decimal r = { ax & 0xff0f, false, false };

	if ((ax & 15) > 9 || af) {
		ax = subtract ? ((ax - 6) & 0xffff) - 0x100 : ax + 0x106;
		r = (struct decimal){ ax & 0xff0f, true, true };
	}
	return r;
}

static void test_adjust(const char *name, const u8 *code, bool ascii, bool subtract)
{
	unsigned bad = 0;

	for (u32 n = 0; n < 256 * 4; n++) {
		bool cf = n & 0x100, af = n & 0x200;
		u32 ax = ascii ? 0x1200 | (n & 0xff) : n & 0xff;
		struct decimal want = ascii ? aaa(ax, af, subtract) : daa(ax, cf, af, subtract);
		struct trap t = KERNEL(code, .cs = KERNEL_CS32, .rax = ax,
				       .rflags = 2 | (cf ? FLAG_CF : 0) | (af ? FLAG_AF : 0));

		if ((t.rax & 0xffff) == want.ax && !(t.rflags & FLAG_CF) == !want.cf &&
		    !(t.rflags & FLAG_AF) == !want.af)
			continue;
		if (!bad++)
			print("# AX 0x%x CF %u AF %u: AX 0x%lx flags 0x%lx, wanted 0x%x CF %u AF %u\n", ax, cf, af,
			      t.rax & 0xffff, t.rflags, want.ax, want.cf, want.af);
	}
	check(!bad, "2 %s: all of AL, CF and AF", name);
}

CODE32(aam_16, ".byte 0xd4, 0x10")
CODE32(aam_0, ".byte 0xd4, 0x00")
CODE32(aad_16, ".byte 0xd5, 0x10")

static void test_decimal(void)
{
	struct trap t;
	bool good = true;

	test_adjust("DAA", run_daa, false, false);
	test_adjust("DAS", run_das, false, true);
	test_adjust("AAA", run_aaa, true, false);
	test_adjust("AAS", run_aas, true, true);
	for (u32 al = 0; al < 256; al++) {
		t = KERNEL(run_aam, .cs = KERNEL_CS32, .rax = 0x5500 | al);
		good &= (t.rax & 0xffff) == (al / 10 << 8 | al % 10) && !(t.rflags & FLAG_ZF) == !!(al % 10);
		t = KERNEL(aam_16, .cs = KERNEL_CS32, .rax = al);
		good &= (t.rax & 0xffff) == (al >> 4 << 8 | (al & 15));
		t = KERNEL(run_aad, .cs = KERNEL_CS32, .rax = 0x0300 | al);
		good &= (t.rax & 0xffff) == ((al + 30) & 0xff);
		t = KERNEL(aad_16, .cs = KERNEL_CS32, .rax = 0x0300 | al);
		good &= (t.rax & 0xffff) == ((al + 0x30) & 0xff);
	}
	check(good, "2 AAM, AAD: all of AL, by 10 and by 16");
	t = KERNEL(aam_0, .cs = KERNEL_CS32, .rax = 0x1234);
	check(t.vector == EXC_DE && t.rax == 0x1234 && t.rip == (u64)aam_0, "2 AAM: by 0: #DE");
	t = KERNEL(run_salc, .cs = KERNEL_CS32, .rax = 0x1234, .rflags = 2 | FLAG_CF);
	check_equal(t.rax, 0x12ff, "APM vol. 3 SALC: AL from CF");
	t = KERNEL(run_salc, .cs = KERNEL_CS32, .rax = 0x1234, .rflags = 2 | (STATUS - FLAG_CF));
	check(t.rax == 0x1200 && (t.rflags & STATUS) == STATUS - FLAG_CF, "APM vol. 3 SALC: and no flag");
}

/* ---- address sizes ---- */

CODE(loop_64, "loop 1f; nop; 1:")
CODE(loop_32, "addr32 loop 1f; nop; 1:")
CODE(loope, "loope 1f; int $0x41; 1:")
CODE(loopne, "loopne 1f; int $0x41; 1:")
CODE(jrcxz, "jrcxz 1f; int $0x41; 1:")
CODE(jecxz, "jecxz 1f; int $0x41; 1:")
CODE32(loop_16, "addr16 loop 1f; nop; 1:")
CODE32(jcxz, "jcxz 1f; int $0x41; 1:")
CODE(xlat_64, "xlat")
CODE(xlat_32, "addr32 xlat")
CODE(xlat_gs, "xlat %gs:(%rbx)")
CODE_LOW(low_loop, "loop 1f; nop; 1: nop")
CODE_LOW(low_loopd, "addr32 loop 1f; nop; 1: nop")
CODE_LOW(low_jecxz, "jecxz 1f; int $0x41; 1: nop")
CODE_LOW(low_xlat, "xlat; xchg %ax, %dx; mov %cl, %al; xlat %es:(%bx)")
static u8 table[256];

#define TAKEN(t) ((t).vector == END_VECTOR)

static void test_counts(void)
{
	struct legacy_trap l;
	struct trap t;

	t = KERNEL(loop_64, .rcx = BIT(32));
	check_equal(t.rcx, BIT(32) - 1, "2 LOOP: counts RCX in 64-bit mode");
	t = KERNEL(loop_32, .rcx = 0x500000000);
	check_equal(t.rcx, 0xffffffff, "2 LOOP: with 67 ECX, and clears the upper half");
	t = KERNEL(loop_16, .cs = KERNEL_CS32, .rcx = 0x70000);
	check_equal(t.rcx, 0x7ffff, "2 LOOP: with 67 in 32-bit code CX alone");
	t = KERNEL(loope, .rcx = 2, .rflags = 2 | FLAG_ZF);
	check(TAKEN(t) && t.rcx == 1, "2 LOOPE: taken with ZF");
	t = KERNEL(loope, .rcx = 2);
	check(t.vector != END_VECTOR && t.rcx == 1, "2 LOOPE: not without");
	t = KERNEL(loopne, .rcx = 1);
	check(t.vector != END_VECTOR && t.rcx == 0, "2 LOOPNE: not when the count is used up");
	t = KERNEL(jrcxz, .rcx = BIT(32));
	check(!TAKEN(t), "2 JRCXZ: looks at all of RCX");
	t = KERNEL(jecxz, .rcx = BIT(32));
	check(TAKEN(t), "2 JECXZ: at ECX");
	t = KERNEL(jcxz, .cs = KERNEL_CS32, .rcx = 0x10000);
	check(TAKEN(t), "2 JCXZ: at CX");
	l = legacy_run(&(struct legacy_state){ LEGACY_REAL, .eip = place_code(low_loop), .ecx = 0x30000 });
	check_equal(l.ecx, 0x3ffff, "2 LOOP: CX in 16-bit code");
	l = legacy_run(&(struct legacy_state){ LEGACY_REAL, .eip = place_code(low_loopd), .ecx = 0x30000 });
	check_equal(l.ecx, 0x2ffff, "2 LOOP: ECX with 67");
	l = legacy_run(&(struct legacy_state){ LEGACY_REAL, .eip = place_code(low_jecxz), .ecx = 0x30000 });
	check(l.vector == 0x41, "2 JECXZ: with 67 in 16-bit code, ECX");

	for (unsigned n = 0; n < sizeof(table); n++)
		table[n] = (u8)(n ^ 0xa5);
	t = KERNEL(xlat_64, .rbx = (u64)table, .rax = 0x7fff);
	check_equal(t.rax, 0x7f5a, "2 XLAT: AL is unsigned");
	t = KERNEL(xlat_32, .rbx = 0xff00000000 | (u64)table, .rax = 1);
	check_equal(t.rax, 0xa4, "2 XLAT: with 67 EBX");
	write_msr(MSR_GS_BASE, 0x10);
	t = KERNEL(xlat_gs, .rbx = (u64)table, .rax = 1);
	check_equal(t.rax, 0x11 ^ 0xa5, "2 XLAT: with a segment override");
	write_msr(MSR_GS_BASE, 0);
	memcpy(low_data(0xfff0), table, 16);
	memcpy(low_data(0), table + 0x80, 16);
	l = legacy_run(&(struct legacy_state){ LEGACY_REAL, .eip = place_code(low_xlat), .ebx = 0xfff0, .eax = 2,
					       .ecx = 0x18, .es = LOW_DATA >> 4 });
	check((l.edx & 0xff) == (2 ^ 0xa5) && (l.eax & 0xff) == (0x88 ^ 0xa5), "2 XLAT: BX + AL wraps at 64 KiB");
}

/* ---- far pointers ---- */

static struct {
	u32 offset;
	u16 selector;
} __attribute__((packed)) far_pointer;

#define POINTERS(_)                                                                                                    \
	_(lds, "lds (%edi), %eax; mov %ds, %ecx", "lds (%edi), %ax; mov %ds, %ecx")                                    \
	_(les, "les (%edi), %eax; mov %es, %ecx", "les (%edi), %ax; mov %es, %ecx")                                    \
	_(lss, "lss (%edi), %eax; mov %ss, %ecx", "lss (%edi), %ax; mov %ss, %ecx")                                    \
	_(lfs, "lfs (%edi), %eax; mov %fs, %ecx", "lfs (%edi), %ax; mov %fs, %ecx")                                    \
	_(lgs, "lgs (%edi), %eax; mov %gs, %ecx", "lgs (%edi), %ax; mov %gs, %ecx")
#define _(name, text32, text16) CODE32(name##_32, text32) CODE32(name##_16, text16)
POINTERS(_)
#undef _
#define _(name, text32, text16) { #name, name##_32, name##_16 },

static void test_far_pointers(void)
{
	static const struct {
		const char *name;
		const u8 *code_32, *code_16;
	} rows[] = { POINTERS(_) };
#undef _
	u16 words[2] = { 0x5678, KERNEL_DS };

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		struct legacy_trap t;

		far_pointer.offset = 0x12345678;
		far_pointer.selector = KERNEL_DS;
		t = RING0_32(rows[n].code_32, .edi = LOW32(&far_pointer), .eax = 0xffffffff);
		check(t.vector == END_VECTOR && t.eax == 0x12345678 && (u16)t.ecx == KERNEL_DS, "2 %s: 16:32",
		      rows[n].name);
		memcpy(&far_pointer, words, 4);
		t = RING0_32(rows[n].code_16, .edi = LOW32(&far_pointer), .eax = 0xffffffff);
		check(t.vector == END_VECTOR && t.eax == 0xffff5678 && (u16)t.ecx == KERNEL_DS, "2 %s: 16:16",
		      rows[n].name);
		far_pointer.offset = 0;
		far_pointer.selector = 0xfff8;
		t = RING0_32(rows[n].code_32, .edi = LOW32(&far_pointer), .eax = 0x11111111);
		check(t.vector == EXC_GP && t.error == 0xfff8 && t.eax == 0x11111111 && t.eip == LOW32(rows[n].code_32),
		      "2 %s: a bad selector: #GP, and the register stays", rows[n].name);
	}
}

/* ---- software interrupts ---- */

CODE_LOW(low_int, "int $0x50")
CODE_LOW(low_int3, "int3")
CODE_LOW(low_int_3, ".byte 0xcd, 3")
CODE_LOW(low_into, "mov $0x7f, %al; inc %al; into")
CODE_LOW(low_int1, ".byte 0xf1")
CODE_LOW(low_bound, "bound %ax, (%di)")

struct software {
	const char *name;
	const u8 *code, *end;
	u8 vector, length; /* of the instruction, and how far it is from the start */
	u8 offset;
	bool iopl; /* #GP in virtual-8086 mode unless IOPL is 3 */
	bool dpl;  /* the gate's DPL counts */
	bool is_fault;
};
#define SOFTWARE(name, code, ...)                                                                                      \
	{                                                                                                              \
		name, code, code##_end, __VA_ARGS__                                                                    \
	}
static const struct software software[] = {
	SOFTWARE("INT n", low_int, 0x50, 2, 0, true, true, false),
	SOFTWARE("INT3", low_int3, EXC_BP, 1, 0, false, true, false),
	SOFTWARE("INT 3 of two bytes", low_int_3, EXC_BP, 2, 0, true, true, false),
	SOFTWARE("INTO", low_into, EXC_OF, 1, 4, false, true, false),
	SOFTWARE("INT1", low_int1, EXC_DB, 1, 0, false, false, false),
	SOFTWARE("BOUND", low_bound, EXC_BR, 0, 0, false, false, true),
};

static bool reached(const struct legacy_trap *t, const struct software *s)
{
	bool good = t->vector == s->vector && t->eip == (u32)(s->offset + s->length) && !t->error;

	if (!good)
		print("# vector %u error 0x%x at 0x%x\n", t->vector, t->error, t->eip);
	return good;
}

static void set_dpl(u8 vector, unsigned dpl)
{
	*legacy_gate(vector) = (*legacy_gate(vector) & ~(3ull << 45)) | (u64)dpl << 45;
}

static void test_software(const struct software *s)
{
	struct legacy_trap t;

	place_low(s->code, s->end);
	memset(low_data(0), 0xff, 4); /* for BOUND: -1 to -1 */
	t = legacy_run(&(struct legacy_state){ LEGACY_REAL });
	check(reached(&t, s), "2 %s: real mode", s->name);
	set_dpl(s->vector, 3);
	t = legacy_run(&(struct legacy_state){ LEGACY_RING0_16 });
	check(reached(&t, s), "2 %s: 16-bit protected mode", s->name);
	t = legacy_run(&(struct legacy_state){ LEGACY_RING3_16 });
	check(reached(&t, s), "2 %s: ring 3, gate of ring 3", s->name);
	t = legacy_run(&(struct legacy_state){ LEGACY_V86, .eflags = 2 | FLAG_VM | FLAG_IOPL });
	check(reached(&t, s), "2 %s: virtual-8086 mode, IOPL 3, gate of ring 3", s->name);
	t = legacy_run(&(struct legacy_state){ LEGACY_V86, .eflags = 2 | FLAG_VM | 2 << 12 });
	if (s->iopl)
		check_fault_32(&t, EXC_GP, 0, "2 %s: virtual-8086 mode, IOPL 2: #GP(0)", s->name);
	else
		check(reached(&t, s), "2 %s: virtual-8086 mode, IOPL 2", s->name);
	set_dpl(s->vector, 0);
	t = legacy_run(&(struct legacy_state){ LEGACY_RING3_16 });
	if (s->dpl)
		check(t.vector == EXC_GP && t.error == s->vector * 8u + 2 && t.eip == s->offset,
		      "2 %s: ring 3, gate of ring 0: #GP with the gate", s->name);
	else
		check(reached(&t, s), "2 %s: ring 3, gate of ring 0", s->name);
	t = legacy_run(&(struct legacy_state){ LEGACY_V86, .eflags = 2 | FLAG_VM | FLAG_IOPL });
	if (s->dpl)
		check_fault_32(&t, EXC_GP, s->vector * 8u + 2,
			       "2 %s: virtual-8086 mode, gate of ring 0: #GP with the gate", s->name);
	else
		check(reached(&t, s), "2 %s: virtual-8086 mode, gate of ring 0", s->name);
}

/* ---- many accesses, a fault in the middle ---- */

CODE32(pusha_32, "pusha")
CODE32(popa_32, "popa")
CODE32(pushaw_32, "pushaw")
CODE32(enter_32, "enter $16, $4")
CODE32(far_call_32, "lcall *(%esi)")
CODE32(push_memory_32, "push (%esi)")
CODE32(rep_movsl_32, "rep movsl")
CODE32(rep_stosw_16, "addr16 rep stosw")
CODE32(les_esi, "les (%esi), %eax")
CODE32(bound_32, "bound %eax, (%esi)")
CODE32(iret_32, "iretl")
CODE32(fsave_32, "fnsave (%esi)")
CODE32(cmpxchg8b_32, "lock cmpxchg8b (%esi)")

/* All general registers and flags as they went in, RIP at the instruction. */
static bool unchanged(const struct trap *t, const struct frame *f)
{
	return t->rax == f->rax && t->rbx == f->rbx && t->rcx == f->rcx && t->rdx == f->rdx && t->rsi == f->rsi &&
	       t->rdi == f->rdi && t->rbp == f->rbp && t->rsp == f->rsp && t->rip == f->rip && t->cs == f->cs &&
	       (t->rflags & ~(u64)FLAG_RF) == f->rflags;
}

struct middle {
	const char *name;
	const u8 *code;
	u32 rsp, rsi, rbp; /* from ABSENT: 0 to PAGE is a page, what is below and above is not there */
	u32 error, cr2;
};

static void test_middle(void)
{
	/* The handler's stack is another one: ring 3. */
	static const struct middle rows[] = {
		{ "PUSHA over the lower end", pusha_32, 16, 0, 0, PF_W | PF_U, (u32)-4 },
		{ "PUSHAW over the lower end", pushaw_32, 8, 0, 0, PF_W | PF_U, (u32)-2 },
		{ "POPA over the upper end", popa_32, PAGE - 16, 0, 0, PF_U, PAGE },
		{ "ENTER with its frames over the lower end", enter_32, 8, 0, PAGE - 64, PF_W | PF_U, (u32)-4 },
		{ "ENTER with a frame that it cannot read", enter_32, PAGE - 64, 0, 8, PF_U, (u32)-4 },
		{ "ENTER whose new top is not there", enter_32, 20, 0, PAGE - 64, PF_W | PF_U, (u32)-16 },
		{ "PUSH of memory that is not there", push_memory_32, 64, PAGE, 0, PF_U, PAGE },
		{ "PUSH of memory to a stack that is not there", push_memory_32, 0, 16, 0, PF_W | PF_U, (u32)-4 },
		{ "LES over the upper end", les_esi, 64, PAGE - 4, 0, PF_U, PAGE },
		{ "BOUND over the upper end", bound_32, 64, PAGE - 4, 0, PF_U, PAGE },
		{ "IRET over the upper end", iret_32, PAGE - 8, 0, 0, PF_U, PAGE },
		{ "FNSAVE over the upper end", fsave_32, 64, PAGE - 64, 0, PF_W | PF_U, PAGE },
		{ "LOCK CMPXCHG8B over the upper end", cmpxchg8b_32, 64, PAGE - 4, 0, PF_W | PF_U, PAGE },
	};
	u8 *page = frame_alloc();

	map_page(ABSENT, (u64)page, PTE_P | PTE_W | PTE_U);
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		const struct middle *m = &rows[n];
		struct frame f = {
			.rip = USER(m->code),
			.cs = USER_CS32,
			.ss = USER_DS,
			.rflags = 2,
			.rsp = ABSENT + m->rsp,
			.rsi = ABSENT + m->rsi,
			.rbp = ABSENT + m->rbp,
			.rax = 0x11111111,
			.rcx = 0x22222222,
			.rdx = 0x33333333,
			.rbx = 0x44444444,
			.rdi = 0x55555555,
		};
		struct trap t;

		memset(page, 0, PAGE);
		asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(USER_DS));
		t = run(&f);
		if (!check(t.vector == EXC_PF && t.error == m->error && t.cr2 == (u32)(ABSENT + m->cr2) &&
				   unchanged(&t, &f),
			   "2 %s: #PF, and no register changes", m->name))
			print("# vector %lu error 0x%lx CR2 0x%lx RSP 0x%lx\n", t.vector, t.error, t.cr2, t.rsp);
	}
	unmap_page(ABSENT);
	asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(KERNEL_DS));
}

/* A handler that maps what was missing: the instruction then ends as if nothing had been. */
static unsigned faults;
static u8 *next_page;
static void map_it(struct frame *f)
{
	(void)f;
	faults++;
	map_page(read_cr2() & ~0xfffull, (u64)next_page, PTE_P | PTE_W | PTE_U);
}

static void test_resumed(void)
{
	static const struct {
		const char *name;
		const u8 *code;
		u32 rsp, rsi, rbp;
		u32 rsp_after;
	} rows[] = {
		{ "PUSHA", pusha_32, 16, 0, 0, (u32)-16 },
		{ "POPA", popa_32, PAGE - 16, 0, 0, PAGE + 16 },
		{ "ENTER", enter_32, 8, 0, PAGE - 64, (u32)(8 - 5 * 4 - 16) },
		{ "a far CALL", far_call_32, 4, 0, 0, (u32)-4 },
	};
	u8 *page = frame_alloc();

	next_page = frame_alloc();
	set_handler(EXC_PF, map_it);
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		struct trap t;

		map_page(ABSENT, (u64)page, PTE_P | PTE_W | PTE_U);
		faults = 0;
		asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(USER_DS));
		if (rows[n].code == far_call_32) {
			/* To where it ends: the INT behind it. */
			u32 pointer[2] = { (u32)USER(far_call_32) + 2, USER_CS32 };

			memcpy(page + 512, pointer, 8);
		}
		t = USER_MODE(rows[n].code, .cs = USER_CS32, .rsp = ABSENT + rows[n].rsp, .rsi = ABSENT + 512,
			      .rbp = ABSENT + rows[n].rbp);
		check(t.vector == END_VECTOR && faults == 1 && t.rsp == (u32)(ABSENT + rows[n].rsp_after),
		      "2 %s: resumed behind a page fault in its middle", rows[n].name);
		unmap_page(ABSENT - PAGE);
		unmap_page(ABSENT);
		unmap_page(ABSENT + PAGE);
	}
	set_handler(EXC_PF, NULL);
	asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(KERNEL_DS));
}

static void test_strings(void)
{
	u8 *page = frame_alloc();
	struct trap t;

	map_page(ABSENT, (u64)page, PTE_P | PTE_W | PTE_U);
	asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(USER_DS));
	t = USER_MODE(rep_movsl_32, .cs = USER_CS32, .rsi = ABSENT, .rdi = ABSENT + PAGE - 32, .rcx = 20);
	check(t.vector == EXC_PF && t.cr2 == ABSENT + PAGE && t.rcx == 12 && t.rsi == ABSENT + 32 &&
		      t.rdi == ABSENT + PAGE && (t.rflags & FLAG_RF),
	      "2 REP MOVSD: at the end of a page: ECX, ESI, EDI say what is done");
	t = USER_MODE(rep_movsl_32, .cs = USER_CS32, .rsi = ABSENT + PAGE - 6, .rdi = ABSENT, .rcx = 20);
	check(t.vector == EXC_PF && t.cr2 == ABSENT + PAGE && t.rcx == 19 && t.rsi == ABSENT + PAGE - 2 &&
		      t.rdi == ABSENT + 4,
	      "2 REP MOVSD: an element over the end");
	t = USER_MODE(rep_stosw_16, .cs = USER_CS32, .rdi = 0xabcd0000, .rcx = 0x12340000);
	check(t.vector == END_VECTOR && t.rdi == 0xabcd0000 && t.rcx == 0x12340000, "2 REP: 67: a count of CX, here 0");
	unmap_page(ABSENT);
	asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(KERNEL_DS));
}

void guest(void)
{
	write_cr4(read_cr4() | BIT(9)); /* OSFXSR */
	test_decimal();
	test_counts();
	test_far_pointers();
	for (unsigned n = 0; n < ARRAY_SIZE(software); n++)
		test_software(&software[n]);
	test_middle();
	test_resumed();
	test_strings();
}
