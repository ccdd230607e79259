/*
 * Segments of protected mode: loading their registers, what an access may do with them, stacks, and the instructions that ask about
 * selectors. SDM vol. 3A chapter 5, vol. 2 for each instruction.
 */
#include "legacy.h"

#define SELECTOR LEGACY_FREE
#define ACCESSED 0x01
#define P	 0x80
#define S	 0x10
#define DPL(n)	 ((n) << 5)
#define BIG	 0x4000 /* D/B */
#define PAGES	 0x8000 /* G */
enum {
	DATA_RO = 0x10,
	DATA_RW = 0x12,
	DATA_DOWN_RO = 0x14,
	DATA_DOWN = 0x16,
	CODE_X = 0x18,
	CODE_XR = 0x1a,
	CONFORMING_X = 0x1c,
	CONFORMING_XR = 0x1e
};

static u32 words[64] __attribute__((aligned(64)));

/* ---- loading segment registers ---- */

CODE32(mov_ds, "mov %ax, %ds")
CODE32(mov_ss, "mov %ax, %ss")
CODE32(pop_ds, "push %eax; " LABEL(pop_ds_at) "pop %ds")
CODE32(pop_ss, "push %eax; " LABEL(pop_ss_at) "pop %ss")
CODE32(lds_there, "lds (%ecx), %edi")
CODE32(les_there, "les (%ecx), %edi")
CODE32(lfs_there, "lfs (%ecx), %edi")
CODE32(lgs_there, "lgs (%ecx), %edi")
CODE32(lss_there, "lss (%ecx), %edi")

static const struct way {
	const u8 *code, *at; /* at: of the instruction; NULL: the same */
	const char *name;
	bool ss;
} ways[] = {
	{ mov_ds, NULL, "MOV", false },	   { pop_ds, NULL, "POP", false },    { lds_there, NULL, "LDS", false },
	{ les_there, NULL, "LES", false }, { lfs_there, NULL, "LFS", false }, { lgs_there, NULL, "LGS", false },
	{ mov_ss, NULL, "MOV", true },	   { pop_ss, NULL, "POP", true },     { lss_there, NULL, "LSS", true },
};

struct load {
	const char *what;
	u8 access, ring, rpl, vector;
};

/* SDM vol. 2B MOV: the checks, each alone and together with what is checked after it. */
static const struct load data_loads[] = {
	{ "a writable data segment", P | DATA_RW | DPL(3), 3, 3, END_VECTOR },
	{ "a read-only data segment", P | DATA_RO | DPL(3), 3, 3, END_VECTOR },
	{ "an expand-down data segment", P | DATA_DOWN | DPL(3), 3, 3, END_VECTOR },
	{ "a readable code segment", P | CODE_XR | DPL(3), 3, 3, END_VECTOR },
	{ "a readable conforming code segment", P | CONFORMING_XR | DPL(3), 3, 3, END_VECTOR },
	{ "a readable conforming code segment, DPL 0 in ring 3", P | CONFORMING_XR | DPL(0), 3, 3, END_VECTOR },
	{ "DPL 3 with RPL 0 in ring 3", P | DATA_RW | DPL(3), 3, 0, END_VECTOR },
	{ "DPL 3 with RPL 3 in ring 0", P | DATA_RW | DPL(3), 0, 3, END_VECTOR },
	{ "DPL 1 with RPL 1 in ring 0", P | DATA_RW | DPL(1), 0, 1, END_VECTOR },
	{ "DPL 1 with RPL 2 in ring 0", P | DATA_RW | DPL(1), 0, 2, EXC_GP },
	{ "DPL 0 with RPL 0 in ring 3", P | DATA_RW | DPL(0), 3, 0, EXC_GP },
	{ "DPL 2 with RPL 0 in ring 3", P | DATA_RW | DPL(2), 3, 0, EXC_GP },
	{ "DPL 0 of readable code in ring 3", P | CODE_XR | DPL(0), 3, 3, EXC_GP },
	{ "an execute-only code segment", P | CODE_X | DPL(3), 3, 3, EXC_GP },
	{ "an execute-only conforming code segment", P | CONFORMING_X | DPL(3), 3, 3, EXC_GP },
	{ "an LDT", P | 2 | DPL(3), 0, 0, EXC_GP },
	{ "a TSS", P | 9 | DPL(3), 0, 0, EXC_GP },
	{ "a call gate", P | 12 | DPL(3), 0, 0, EXC_GP },
	{ "type 0", P | 0 | DPL(3), 0, 0, EXC_GP },
	{ "an absent data segment", DATA_RW | DPL(3), 3, 3, EXC_NP },
	{ "an absent code segment", CODE_XR | DPL(3), 3, 3, EXC_NP },
	{ "an absent one of too low a DPL: privilege first", DATA_RW | DPL(0), 3, 3, EXC_GP },
	{ "an absent execute-only one: type first", CODE_X | DPL(3), 3, 3, EXC_GP },
	{ "an absent system segment: type first", 2, 0, 0, EXC_GP },
};
static const struct load stack_loads[] = {
	{ "of ring 3", P | DATA_RW | DPL(3), 3, 3, END_VECTOR },
	{ "of ring 0", P | DATA_RW | DPL(0), 0, 0, END_VECTOR },
	{ "expand-down", P | DATA_DOWN | DPL(3), 3, 3, END_VECTOR },
	{ "read-only", P | DATA_RO | DPL(3), 3, 3, EXC_GP },
	{ "read-only, expand-down", P | DATA_DOWN_RO | DPL(3), 3, 3, EXC_GP },
	{ "readable code", P | CODE_XR | DPL(3), 3, 3, EXC_GP },
	{ "conforming code", P | CONFORMING_XR | DPL(3), 3, 3, EXC_GP },
	{ "a TSS", P | 9 | DPL(3), 3, 3, EXC_GP },
	{ "RPL 0 in ring 3", P | DATA_RW | DPL(3), 3, 0, EXC_GP },
	{ "RPL 3 in ring 0", P | DATA_RW | DPL(0), 0, 3, EXC_GP },
	{ "DPL 3 in ring 0", P | DATA_RW | DPL(3), 0, 0, EXC_GP },
	{ "DPL 0 in ring 3", P | DATA_RW | DPL(0), 3, 3, EXC_GP },
	{ "absent: #SS", DATA_RW | DPL(3), 3, 3, EXC_SS },
	{ "absent with RPL 0 in ring 3: privilege first", DATA_RW | DPL(3), 3, 0, EXC_GP },
	{ "absent and read-only: type first", DATA_RO | DPL(3), 3, 3, EXC_GP },
};

static struct legacy_trap load_by(const struct way *way, unsigned ring, u16 selector)
{
	words[0] = 0x12345678;
	words[1] = selector;
	return ring ? RING3_32(way->code, .eax = selector, .ecx = LOW32(words), .edi = 77)
		    : RING0_32(way->code, .eax = selector, .ecx = LOW32(words), .edi = 77);
}

static bool loads_by(const struct way *way, const struct load *load)
{
	u64 before = descriptor(0, 0xfffff, (u32)load->access | BIG | PAGES);
	u64 *entry = legacy_descriptor(SELECTOR);
	struct legacy_trap t;
	bool faults = load->vector != END_VECTOR, pops, good;

	*entry = before;
	t = load_by(way, load->ring, SELECTOR | load->rpl);
	pops = way->code == pop_ds || way->code == pop_ss;
	good = t.vector == load->vector && t.error == (faults ? SELECTOR : 0);
	if (faults)
		good = good && *entry == before && t.edi == 77 && t.esp == legacy_stack() - (pops ? 4 : 0) &&
		       (t.eip == LOW32(way->code) || pops);
	else
		good = good && *entry == (before | (u64)ACCESSED << 40);
	if (!good)
		print("# %s: vector %u error 0x%x eip 0x%x (0x%x) esp 0x%x edi 0x%x descriptor 0x%lx\n", way->name,
		      t.vector, t.error, t.eip, LOW32(way->code), t.esp, t.edi, *entry);
	return good;
}

static void test_loads(void)
{
	for (unsigned ss = 0; ss < 2; ss++) {
		const struct load *loads = ss ? stack_loads : data_loads;
		unsigned count = ss ? ARRAY_SIZE(stack_loads) : ARRAY_SIZE(data_loads);

		for (unsigned n = 0; n < count; n++) {
			bool good = true;

			for (unsigned w = 0; w < ARRAY_SIZE(ways); w++)
				if (ways[w].ss == ss)
					good = loads_by(&ways[w], &loads[n]) && good;
			check(good, ss ? "2 MOV, POP, LSS: SS: %s" : "2 MOV, POP, LDS, LES, LFS, LGS: %s",
			      loads[n].what);
		}
	}
}

static const u64 *some_ldt(void)
{
	static u64 ldt[4];

	for (unsigned n = 0; n < 4; n++)
		ldt[n] = descriptor(0, 0xfffff, P | DATA_RW | DPL(3) | BIG | PAGES);
	return ldt;
}

static void test_selectors(void)
{
	static const u16 nulls[] = { 0, 1, 2, 3 };
	u16 ldt_selector = LEGACY_FREE + 8;
	bool good[2] = { true, true };
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(nulls); n++)
		for (unsigned w = 0; w < ARRAY_SIZE(ways); w++) {
			t = load_by(&ways[w], 3, nulls[n]);
			good[ways[w].ss] &= t.vector == (ways[w].ss ? EXC_GP : END_VECTOR) && t.error == 0;
		}
	check(good[0], "2 MOV, POP, LDS ...: null selectors 0 to 3 may be loaded");
	check(good[1], "2 MOV, POP, LSS: SS: they give #GP(0)");

	*legacy_descriptor(ldt_selector) = descriptor(LOW32(some_ldt()), 2 * 8 + 6, P | 2);
	t = RING3_32(mov_ds, .eax = 0x0f, .ldtr = ldt_selector);
	check_end_32(&t, "3A 3.5.1: a selector of the LDT");
	check_equal(t.ldtr, ldt_selector, "3A 3.5.1: which LDTR names");
	t = RING3_32(mov_ds, .eax = 0x17, .ldtr = ldt_selector);
	check_fault_32(&t, EXC_GP, 0x14, "3A 3.5.1: an entry that the LDT's limit cuts: #GP with TI");
	t = RING3_32(mov_ds, .eax = 7);
	check_fault_32(&t, EXC_GP, 4, "3A 3.5.1: no LDT");
	t = RING3_32(mov_ds, .eax = LEGACY_GDT_ENTRIES * 8 + 3);
	check_fault_32(&t, EXC_GP, LEGACY_GDT_ENTRIES * 8, "3A 3.5.1: beyond the GDT: #GP without RPL");
	*legacy_descriptor(LEGACY_GDT_ENTRIES * 8 - 8) = *legacy_descriptor(USER_DS);
	t = RING3_32(mov_ds, .eax = LEGACY_GDT_ENTRIES * 8 - 5);
	check_end_32(&t, "3A 3.5.1: its last entry");
	t = RING3_32(mov_ss, .eax = LEGACY_GDT_ENTRIES * 8 + 3);
	check_fault_32(&t, EXC_GP, LEGACY_GDT_ENTRIES * 8, "2 MOV: SS beyond the GDT");
}

CODE32(mov_cs, ".byte 0x8e, 0xc8")
CODE32(mov_segment_6, ".byte 0x8e, 0xf0")
CODE32(store_segment_7, ".byte 0x8c, 0xf8")
CODE32(store_selectors, "mov %fs, %eax; mov %fs, %bx; mov %fs, (%ecx); push %fs; pop %edx; pushw %fs; popw %si")

static void test_moves(void)
{
	struct legacy_trap t = RING3_32(mov_cs, .eax = USER_CS32);

	check_fault_32(&t, EXC_UD, 0, "2 MOV: to CS");
	t = RING3_32(mov_segment_6);
	check_fault_32(&t, EXC_UD, 0, "2 MOV: to segment register 6");
	t = RING3_32(store_segment_7);
	check_fault_32(&t, EXC_UD, 0, "2 MOV: from segment register 7");
	words[0] = words[1] = 0xffffffff;
	t = RING3_32(store_selectors, .eax = 0xffffffff, .ebx = 0xffffffff, .edx = 0xffffffff, .esi = 0xffffffff,
		     .ecx = LOW32(words));
	check_equal(t.eax, USER_DS, "2 MOV: from a segment register to one of 32 bits: zero-extended");
	check_equal(t.ebx, 0xffff0000 | USER_DS, "2 MOV: to one of 16 bits");
	check_equal(words[0], 0xffff0000 | USER_DS, "2 MOV: to memory: always 16 bits");
	check_equal(t.edx & 0xffff, USER_DS, "2 PUSH: a segment register with operands of 32 bits: 4 bytes");
	check(t.esi == (0xffff0000 | USER_DS) && t.esp == legacy_stack(),
	      "2 PUSH, POP: with operands of 16 bits: 2 bytes");
}

/* ---- accesses ---- */

/* By FS: #GP. By SS: #SS. */
CODE32(read_1, "movb %fs:(%ebx), %al")
CODE32(read_2, "movw %fs:(%ebx), %ax")
CODE32(read_4, "movl %fs:(%ebx), %eax")
CODE32(write_1, "movb %al, %fs:(%ebx)")
CODE32(write_2, "movw %ax, %fs:(%ebx)")
CODE32(write_4, "movl %eax, %fs:(%ebx)")
CODE32(add_4, "addl %eax, %fs:(%ebx)")
CODE32(read_8, "fninit; "
	       "fildll %fs:(%ebx)")
CODE32(read_10, "fninit; fldt %fs:(%ebx)")
CODE32(lods_4, "mov %ebx, %esi; lodsl %fs:(%esi)")

struct access {
	const char *what;
	u16 attributes; /* with D/B and G */
	u32 limit, offset;
	const u8 *code;
	u8 vector;
};

#define DATA32 (P | DATA_RW | DPL(3) | BIG)
#define DOWN16 (P | DATA_DOWN | DPL(3))
#define DOWN32 (P | DATA_DOWN | DPL(3) | BIG)
/* The base is chosen so that all of the offsets are in RAM: see try_access(). */
static const struct access accesses[] = {
	{ "3A 5.3: the last byte", DATA32, 0xff, 0xff, read_1, END_VECTOR },
	{ "3A 5.3: the byte behind", DATA32, 0xff, 0x100, read_1, EXC_GP },
	{ "3A 5.3: a word at the limit", DATA32, 0xff, 0xff, read_2, EXC_GP },
	{ "3A 5.3: the last word", DATA32, 0xff, 0xfe, write_2, END_VECTOR },
	{ "3A 5.3: the last doubleword", DATA32, 0xff, 0xfc, add_4, END_VECTOR },
	{ "3A 5.3: a doubleword that its last byte takes over the limit", DATA32, 0xff, 0xfd, add_4, EXC_GP },
	{ "3A 5.3: the last quadword", DATA32, 0xff, 0xf8, read_8, END_VECTOR },
	{ "3A 5.3: a quadword over the limit", DATA32, 0xff, 0xf9, read_8, EXC_GP },
	{ "3A 5.3: the last 10 bytes", DATA32, 0xff, 0xf6, read_10, END_VECTOR },
	{ "3A 5.3: 10 bytes over the limit", DATA32, 0xff, 0xf7, read_10, EXC_GP },
	{ "3A 5.3: a string operand over the limit", DATA32, 0xff, 0xfd, lods_4, EXC_GP },
	{ "3A 5.3: limit 0, its byte", DATA32, 0, 0, read_1, END_VECTOR },
	{ "3A 5.3: limit 0, a word", DATA32, 0, 0, read_2, EXC_GP },
	{ "3A 5.3: granularity of pages: the last byte", DATA32 | PAGES, 1, 0x1fff, write_1, END_VECTOR },
	{ "3A 5.3: granularity of pages: the byte behind", DATA32 | PAGES, 1, 0x2000, write_1, EXC_GP },
	{ "3A 5.3: granularity of pages, limit 0: 4 KiB", DATA32 | PAGES, 0, 0xffc, read_4, END_VECTOR },
	{ "3A 5.3: granularity of pages, limit 0: 4 KiB and no more", DATA32 | PAGES, 0, 0xffd, read_4, EXC_GP },
	{ "3A 5.3: an offset of almost 4 GiB", DATA32, 0xff, 0xfffffffe, read_1, EXC_GP },
	{ "3A 5.3: a limit of 1 MiB: its end", DATA32, 0xfffff, 0xffffc, read_4, END_VECTOR },
	{ "3A 5.3: beyond 1 MiB", DATA32, 0xfffff, 0x100000, read_4, EXC_GP },
	{ "3A 5.3: B = 0 does not bound an expand-up segment", P | DATA_RW | DPL(3), 0x1ffff, 0x10000, read_4,
	  END_VECTOR },
	{ "3A 5.3: expand-down: at the limit", DOWN32, 0xff, 0xff, read_1, EXC_GP },
	{ "3A 5.3: expand-down: the first byte", DOWN32, 0xff, 0x100, read_1, END_VECTOR },
	{ "3A 5.3: expand-down: a word whose first byte is below", DOWN32, 0xff, 0xff, read_2, EXC_GP },
	{ "3A 5.3: expand-down: offset 0", DOWN32, 0xff, 0, write_4, EXC_GP },
	{ "3A 5.3: expand-down of 16 bits: its last byte", DOWN16, 0xff, 0xffff, write_1, END_VECTOR },
	{ "3A 5.3: expand-down of 16 bits: a word over 64 KiB", DOWN16, 0xff, 0xffff, write_2, EXC_GP },
	{ "3A 5.3: expand-down of 16 bits: beyond 64 KiB", DOWN16, 0xff, 0x10000, read_1, EXC_GP },
	{ "3A 5.3: expand-down of 32 bits: beyond 64 KiB", DOWN32, 0xff, 0x10000, read_4, END_VECTOR },
	{ "3A 5.3: expand-down of 32 bits: a word over 64 KiB", DOWN32, 0xff, 0xffff, write_2, END_VECTOR },
	{ "3A 5.3: expand-down with pages: at the limit", DOWN32 | PAGES, 0, 0xfff, read_1, EXC_GP },
	{ "3A 5.3: expand-down with pages: above", DOWN32 | PAGES, 0, 0x1000, read_1, END_VECTOR },
	{ "3A 5.3: expand-down, limit FFFF of 16 bits: nothing is in it", DOWN16, 0xffff, 0, read_1, EXC_GP },
	{ "3A 5.3: expand-down, limit FFFF of 16 bits: not even beyond", DOWN16, 0xffff, 0x10000, read_1, EXC_GP },
	{ "3A 5.5: reading a read-only segment", P | DATA_RO | DPL(3) | BIG, 0xff, 0, read_4, END_VECTOR },
	{ "3A 5.5: writing it", P | DATA_RO | DPL(3) | BIG, 0xff, 0, write_4, EXC_GP },
	{ "3A 5.5: changing it", P | DATA_RO | DPL(3) | BIG, 0xff, 0, add_4, EXC_GP },
	{ "3A 5.5: writing a read-only expand-down segment", P | DATA_DOWN_RO | DPL(3) | BIG, 0xff, 0x100, write_4,
	  EXC_GP },
	{ "3A 5.5: reading a readable code segment", P | CODE_XR | DPL(3) | BIG, 0xff, 0, read_4, END_VECTOR },
	{ "3A 5.5: writing it", P | CODE_XR | DPL(3) | BIG, 0xff, 0, write_4, EXC_GP },
	{ "3A 5.3: its limit", P | CODE_XR | DPL(3) | BIG, 0xff, 0xfd, read_4, EXC_GP },
	{ "3A 5.3: conforming is not expand-down", P | CONFORMING_XR | DPL(3) | BIG, 0xff, 0xfc, read_4, END_VECTOR },
};

static void test_accesses(void)
{
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(accesses); n++) {
		const struct access *a = &accesses[n];

		/* LOW_CODE: RAM from there on, of 512 KiB; other offsets wrap to it. */
		*legacy_descriptor(SELECTOR) = descriptor(LOW_CODE, a->limit, a->attributes);
		t = RING3_32(a->code, .ebx = a->offset, .fs = SELECTOR | 3, .cr0 = (u32)(CR0_PE | CR0_NE));
		check_fault_32(&t, a->vector, 0, "%s", a->what);
	}
	*legacy_descriptor(SELECTOR) = descriptor(0xfffffff0, 0xfffff, DATA32 | PAGES);
	words[0] = 0x99887766;
	t = RING3_32(read_4, .ebx = LOW32(words) + 0x10, .fs = SELECTOR | 3);
	check_equal(t.eax, 0x99887766, "3A 3.3: base and offset wrap at 4 GiB");
	t = RING3_32(read_4, .fs = 0);
	check_fault_32(&t, EXC_GP, 0, "3A 3.4.2: an access by a null selector");
	t = RING3_32(write_1, .fs = 3);
	check_fault_32(&t, EXC_GP, 0, "3A 3.4.2: whatever its RPL");
}

CODE32(read_flat, "mov (%ebx), %eax")
CODE32(write_flat, "mov %ax, (%ebx)")
CODE32(push_flat, "push %eax")

/* SDM vol. 3A 5.3 leaves this open. On AMD's Zen 3 the limit counts: nothing wraps. */
static void test_top(void)
{
	struct legacy_trap t = RING3_32(read_flat, .ebx = 0xfffffffe);

	check_fault_32(&t, EXC_GP, 0, "3A 5.3: a doubleword over 4 GiB in a flat segment");
	t = RING3_32(write_flat, .ebx = 0xffffffff);
	check_fault_32(&t, EXC_GP, 0, "3A 5.3: a word over 4 GiB");
	t = RING3_32(push_flat, .esp = 2);
	check_fault_32(&t, EXC_SS, 0, "3A 5.3: a push over 4 GiB");
}

/* ---- descriptors are cached: SDM vol. 3A 3.4.3 ---- */

CODE32(change_descriptor,
       "mov %ax, %fs; movl %edi, (%ecx); movl %esi, 4(%ecx); mov %fs:(%ebx), %edx; mov %ax, %fs\n" LABEL(
	       change_descriptor_at) "mov %fs:(%ebx), %edx")

static void test_cached(void)
{
	extern const u8 change_descriptor_at[];
	struct legacy_trap t;

	*legacy_descriptor(SELECTOR) = descriptor(LOW_DATA, 0xfffff, DATA32 | PAGES);
	*(u32 *)low_data(0x40) = 0xfeedbeef;
	t = RING3_32(change_descriptor, .eax = SELECTOR | 3, .ebx = 0x40, .ecx = LOW32(legacy_descriptor(SELECTOR)),
		     .edi = LOW32(descriptor(LOW_DATA, 0x3f, DATA32)),
		     .esi = (u32)(descriptor(LOW_DATA, 0x3f, DATA32) >> 32));
	check(t.vector == EXC_GP && t.edx == 0xfeedbeef && t.eip == LOW32(change_descriptor_at),
	      "3A 3.4.3: a change of a descriptor counts from the next load of the register");
}

/* ---- stacks ---- */

CODE_LOW(push_ax, "push %ax")
CODE_LOW(push_eax, "pushl %eax")
CODE_LOW(pop_ax, "pop %ax")
CODE_LOW(pop_eax, "popl %eax")
CODE_LOW(call_near, "call 1f; 1: nop")
CODE_LOW(ret_near, "ret; nop; nop; nop")
CODE_LOW(push_all, "pusha")
CODE_LOW(push_all_32, "pushal")
CODE_LOW(pop_all, "popa")
CODE_LOW(enter_flat, "enter $0x10, $0")
CODE_LOW(leave_there, "leave")
CODE_LOW(push_flags, "pushf")

struct stack_case {
	const char *what;
	const u8 *code, *end;
	u32 sp, sp_after; /* with the upper half of ESP, which IRET to a 16-bit stack does not load */
	u8 vector;	  /* in protected and virtual-8086 mode */
};
#define STACK_CASE(what, code, ...)                                                                                    \
	{                                                                                                              \
		what, code, code##_end, __VA_ARGS__                                                                    \
	}
#define UPPER 0x55aa0000u
static const struct stack_case stack_cases[] = {
	STACK_CASE("2 PUSH: SP 0 wraps to FFFE", push_ax, UPPER | 0, UPPER | 0xfffe, END_VECTOR),
	STACK_CASE("2 PUSH: SP 2", push_ax, UPPER | 2, UPPER, END_VECTOR),
	STACK_CASE("2 PUSH: SP 1: over the end, #SS", push_ax, UPPER | 1, UPPER | 1, EXC_SS),
	STACK_CASE("2 PUSH: 4 bytes, SP 2: over the end", push_eax, UPPER | 2, UPPER | 2, EXC_SS),
	STACK_CASE("2 PUSH: 4 bytes, SP 4", push_eax, UPPER | 4, UPPER, END_VECTOR),
	STACK_CASE("2 PUSH: 4 bytes, SP 0 wraps to FFFC", push_eax, UPPER | 0, UPPER | 0xfffc, END_VECTOR),
	STACK_CASE("2 POP: SP FFFE wraps to 0", pop_ax, UPPER | 0xfffe, UPPER, END_VECTOR),
	STACK_CASE("2 POP: SP FFFF: over the end", pop_ax, UPPER | 0xffff, UPPER | 0xffff, EXC_SS),
	STACK_CASE("2 POP: 4 bytes, SP FFFC", pop_eax, UPPER | 0xfffc, UPPER, END_VECTOR),
	STACK_CASE("2 POP: 4 bytes, SP FFFE: over the end", pop_eax, UPPER | 0xfffe, UPPER | 0xfffe, EXC_SS),
	STACK_CASE("2 CALL: SP 0", call_near, UPPER | 0, UPPER | 0xfffe, END_VECTOR),
	STACK_CASE("2 CALL: SP 1", call_near, UPPER | 1, UPPER | 1, EXC_SS),
	STACK_CASE("2 RET: SP FFFF", ret_near, UPPER | 0xffff, UPPER | 0xffff, EXC_SS),
	STACK_CASE("2 PUSHF: SP 1", push_flags, UPPER | 1, UPPER | 1, EXC_SS),
	STACK_CASE("2 PUSHA: SP 0", push_all, UPPER | 0, UPPER | 0xfff0, END_VECTOR),
	STACK_CASE("2 PUSHA: SP 8 wraps in the middle", push_all, UPPER | 8, UPPER | 0xfff8, END_VECTOR),
	STACK_CASE("2 PUSHA: SP 7: the fourth is over the end", push_all, UPPER | 7, UPPER | 7, EXC_SS),
	STACK_CASE("2 PUSHAD: SP 12 wraps in the middle", push_all_32, UPPER | 12, UPPER | 0xffec, END_VECTOR),
	STACK_CASE("2 PUSHAD: SP 14: the fourth is over the end", push_all_32, UPPER | 14, UPPER | 14, EXC_SS),
	STACK_CASE("2 POPA: SP FFF8 wraps in the middle", pop_all, UPPER | 0xfff8, UPPER | 8, END_VECTOR),
	STACK_CASE("2 POPA: SP FFF9: the fourth is over the end", pop_all, UPPER | 0xfff9, UPPER | 0xfff9, EXC_SS),
	STACK_CASE("2 ENTER: SP 2", enter_flat, UPPER | 2, UPPER | 0xfff0, END_VECTOR),
	STACK_CASE("2 ENTER: SP 1", enter_flat, UPPER | 1, UPPER | 1, EXC_SS),
	STACK_CASE("2 ENTER: the new top is over the end", enter_flat, UPPER | 0x11, UPPER | 0x11, EXC_SS),
	STACK_CASE("2 LEAVE: BP FFFE", leave_there, UPPER | 0x100, UPPER, END_VECTOR), /* BP: see below */
};

static void test_stacks(void)
{
	static const struct {
		const char *name;
		struct legacy_state state;
	} modes[] = {
		{ "16-bit protected mode", { LEGACY_RING3_16 } },
		{ "virtual-8086 mode", { LEGACY_V86 } },
	};

	for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
		for (unsigned n = 0; n < ARRAY_SIZE(stack_cases); n++) {
			const struct stack_case *c = &stack_cases[n];
			struct legacy_state s = modes[m].state;
			struct legacy_trap t;
			bool good;

			memset(low_stack(0), 0, 16);
			memset(low_stack(0xfff0), 0, 16);
			s.eip = place_low(c->code, c->end);
			s.esp = c->sp;
			s.ebp = 0xfffe;
			s.eflags |= (u32)FLAG_IOPL; /* INT END_VECTOR and PUSHF of virtual-8086 mode */
			t = legacy_run(&s);
			good = t.vector == c->vector && t.error == 0 &&
			       (s.eflags & FLAG_VM ? t.esp == c->sp_after : (u16)t.esp == (u16)c->sp_after);
			if (!check(good, "%s (%s)", c->what, modes[m].name))
				print("#   vector %u error 0x%x esp 0x%x ip 0x%x\n", t.vector, t.error, t.esp, t.eip);
		}
}

CODE32(push_down, "push %eax")
CODE32(pop_down, "pop %eax")

static void test_stack_down(void)
{
	static const struct {
		const char *what;
		const u8 *code;
		u32 attributes, esp;
		u8 vector;
	} cases[] = {
		{ "PUSH just above the limit", push_down, DOWN32, 0x1004, END_VECTOR },
		{ "PUSH over it", push_down, DOWN32, 0x1003, EXC_SS },
		{ "POP at it", pop_down, DOWN32, 0xfff, EXC_SS },
		{ "POP above it", pop_down, DOWN32, 0x1000, END_VECTOR },
		{ "PUSH on one of 16 bits, at its top", push_down, DOWN16, 0, END_VECTOR },
		{ "POP over the top of one of 16 bits", pop_down, DOWN16, 0xfffe, EXC_SS },
	};
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		*legacy_descriptor(SELECTOR) = descriptor(LOW_DATA, 0xfff, cases[n].attributes);
		t = RING3_32(cases[n].code, .ss = SELECTOR | 3, .esp = cases[n].esp);
		check_fault_32(&t, cases[n].vector, 0, "3A 3.4.5.1: an expand-down stack: %s", cases[n].what);
	}
}

/* In real mode #SS of such a push cannot be delivered; others are. */
CODE_LOW(read_end, "mov 0xffff, %ax")
CODE_LOW(read_end_ss, "mov %ss:0xffff, %ax")
CODE_LOW(read_behind, "mov %ds:0x10000(,%eax,1), %al")
CODE_LOW(read_last, "mov 0xffff, %al")
CODE_LOW(index_wraps, "mov (%bx,%si), %al")
CODE_LOW(displacement_wraps, "mov 0x20(%bx), %al")
CODE_LOW(jump_wraps, ".byte 0xe9; .word 0x2000 - 3")
CODE_LOW(jump_32, "jmpl *%eax")
CODE_LOW(string_end, "mov $0xffff, %di; stosw")
CODE_LOW(string_wraps, "mov $0xfffe, %di; cld; mov $2, %cx; rep stosw")

static const struct wrap {
	const char *what;
	const u8 *code, *end;
	u8 vector;
} wraps[] = {
#define WRAP(what, code, vector)                                                                                       \
	{                                                                                                              \
		what, code, code##_end, vector                                                                         \
	}
	WRAP("a word at FFFF: #GP", read_end, EXC_GP),
	WRAP("a word of the stack at FFFF: #SS", read_end_ss, EXC_SS),
	WRAP("a 32-bit offset behind the segment: #GP", read_behind, EXC_GP),
	WRAP("the byte at FFFF", read_last, END_VECTOR),
	WRAP("base and index wrap at 64 KiB", index_wraps, END_VECTOR),
	WRAP("base and displacement wrap", displacement_wraps, END_VECTOR),
	WRAP("a 32-bit jump behind the segment: #GP", jump_32, EXC_GP),
	WRAP("STOSW at FFFF: #GP", string_end, EXC_GP),
	WRAP("REP STOSW from FFFE: DI wraps", string_wraps, END_VECTOR),
};

static void test_wraps(void)
{
	static const struct {
		const char *name;
		struct legacy_state state;
	} modes[] = {
		{ "16-bit protected mode", { LEGACY_RING3_16 } },
		{ "virtual-8086 mode", { LEGACY_V86 } },
		{ "real mode", { LEGACY_REAL } },
	};

	for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
		for (unsigned n = 0; n < ARRAY_SIZE(wraps); n++) {
			const struct wrap *w = &wraps[n];
			struct legacy_state s = modes[m].state;
			struct legacy_trap t;

			s.eip = place_low(w->code, w->end);
			s.eflags |= (u32)FLAG_IOPL;
			s.eax = w->code == jump_32 ? 0x10000 : 0;
			s.ebx = 0xfff0;
			s.esi = 0x40;
			*(u8 *)low_data(0x30) = 0x5a;
			*(u8 *)low_data(0x10) = 0xa5;
			t = legacy_run(&s);
			check(t.vector == w->vector && t.error == 0 && (w->code != index_wraps || (u8)t.eax == 0x5a) &&
				      (w->code != displacement_wraps || (u8)t.eax == 0xa5) &&
				      (w->code != string_wraps || ((u16)t.edi == 2 && (u16)t.ecx == 0)),
			      "3A 5.3: %s (%s)", w->what, modes[m].name);
		}
}

/* Instructions and the end of the code segment. */
CODE_LOW(runs_out, "nop")
CODE_LOW(jumps_back, ".byte 0xeb, 0x10")

static void test_code_limit(void)
{
	static const u8 last_nop[] = { 0x90 }, jump_over[] = { 0xeb, 0x10 };
	struct legacy_state s = { LEGACY_RING3_16, .eip = 0xffff };
	struct legacy_trap t;

	memcpy((void *)(LOW_CODE + 0xffff), last_nop, 1);
	t = legacy_run(&s);
	check(t.vector == EXC_GP && t.error == 0 && t.eip == 0x10000,
	      "3A 5.3: execution runs over the limit: #GP(0), EIP is 10000");
	s = (struct legacy_state){ LEGACY_V86, .eip = 0xffff };
	t = legacy_run(&s);
	check(t.vector == EXC_GP && t.error == 0 && t.eip == 0x10000, "3A 5.3: in virtual-8086 mode");
	place_code(runs_out);
	memcpy((void *)(LOW_CODE + 0xfffe), jump_over, 2);
	memcpy((void *)(LOW_CODE + 0x10), runs_out, (size_t)(runs_out_end - runs_out));
	s = (struct legacy_state){ LEGACY_RING3_16, .eip = 0xfffe };
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && t.eip == 0x13, "2 JMP: a 16-bit jump wraps at 64 KiB");
	*legacy_descriptor(SELECTOR) = descriptor(LOW_CODE, 0xff, P | CODE_XR | DPL(3));
	memset((void *)(LOW_CODE + 0xf8), 0x90, 8);
	*(u8 *)(LOW_CODE + 0xff) = 0xb0; /* MOV AL, of which the second byte is outside */
	s = (struct legacy_state){ LEGACY_RING3_16, .cs = SELECTOR | 3, .eip = 0xf8 };
	t = legacy_run(&s);
	check(t.vector == EXC_GP && t.error == 0 && t.eip == 0xff,
	      "3A 5.3: an instruction that the limit cuts: #GP(0)");
	place_code(jump_32);
	s = (struct legacy_state){ LEGACY_RING3_16, .cs = SELECTOR | 3, .eax = 0x100 };
	t = legacy_run(&s);
	check(t.vector == EXC_GP && t.eip == 0, "2 JMP: near, to beyond the limit: EIP is the jump's");
}

/* ---- LAR, LSL, VERR, VERW, ARPL ---- */

CODE32(ask, "mov $0x11111111, %ecx; mov $0x22222222, %edx\n"
	    "lar %ax, %ecx; sete %bl; lsl %ax, %edx; sete %bh; verr %ax; setz %al; mov %al, %ch; mov %esi, %eax\n"
	    "verw %ax; setz %ah; mov %ch, %al")
CODE(ask_64,
     "mov $0x22222222, %edx; mov %eax, %esi; lar %ax, %ecx; sete %bl; lsl %ax, %edx; sete %bh; verr %ax; setz %al; mov "
     "%al, %r8b; mov %esi, %eax; verw %ax; setz %ah; mov %r8b, %al")

enum { LAR = 1, LSL = 2, VERR = 4, VERW = 8 };

/* Which types each instruction accepts: SDM vol. 2A tables 3-53 and 3-58, VERR and VERW. */
static u8 answers(unsigned type, bool long_mode)
{
	static const u8 system[16] = { [1] = LAR | LSL, [2] = LAR | LSL, [3] = LAR | LSL,  [4] = LAR,
				       [5] = LAR,	[9] = LAR | LSL, [11] = LAR | LSL, [12] = LAR };
	static const u8 system_64[16] = { [2] = LAR | LSL, [9] = LAR | LSL, [11] = LAR | LSL, [12] = LAR };

	if (!(type & S))
		return long_mode ? system_64[type] : system[type];
	if (!(type & 8))
		return LAR | LSL | VERR | (type & 2 ? VERW : 0);
	return LAR | LSL | (type & 2 ? VERR : 0);
}

static u8 answers_32(unsigned ring, u16 selector, u32 *limit)
{
	struct legacy_trap t = ring ? RING3_32(ask, .eax = selector, .esi = selector)
				    : RING0_32(ask, .eax = selector, .esi = selector);
	u8 got =
		(t.ebx & 1 ? LAR : 0) | (t.ebx & 0x100 ? LSL : 0) | (t.eax & 1 ? VERR : 0) | (t.eax & 0x100 ? VERW : 0);

	*limit = t.edx;
	return t.vector == END_VECTOR ? got : 0xff;
}

static u8 answers_64(unsigned ring, u16 selector, u32 *limit)
{
	struct trap t = ring ? USER_MODE(ask_64, .rax = selector) : KERNEL(ask_64, .rax = selector);
	u8 got =
		(t.rbx & 1 ? LAR : 0) | (t.rbx & 0x100 ? LSL : 0) | (t.rax & 1 ? VERR : 0) | (t.rax & 0x100 ? VERW : 0);

	*limit = (u32)t.rdx;
	return t.vector == END_VECTOR ? got : 0xff;
}

/* Each type with DPL 0 and 3, RPL 0 and 3, from ring 0 and 3. */
static bool ask_about(unsigned type, bool long_mode)
{
	bool good = true;

	for (unsigned n = 0; n < 8; n++) {
		unsigned dpl = n & 1 ? 3 : 0, rpl = n & 2 ? 3 : 0, ring = n & 4 ? 3 : 0;
		bool conforming = (type & (S | 12)) == (S | 12);
		u8 wanted = answers(type, long_mode), got;
		u64 d = descriptor(0x1000, 0x12345, P | type | DPL(dpl) | PAGES);
		u32 limit;

		if (!conforming && (ring > dpl || rpl > dpl))
			wanted = 0;
		*legacy_descriptor(SELECTOR) = *gdt_entry(SELECTOR) = d;
		*gdt_entry(SELECTOR + 8) = 0;
		got = long_mode ? answers_64(ring, SELECTOR | rpl, &limit) : answers_32(ring, SELECTOR | rpl, &limit);
		if (got != wanted || (wanted & LSL ? limit != 0x12345fff : limit != 0x22222222)) {
			print("# type 0x%x dpl %u rpl %u ring %u: got 0x%x, expected 0x%x; limit 0x%x\n", type, dpl,
			      rpl, ring, got, wanted, limit);
			good = false;
		}
	}
	return good;
}

CODE32(lar_32, "lar %ax, %ecx")
CODE32(lar_16, "lar %ax, %cx")
CODE32(lsl_16, "lsl %ax, %cx")
CODE32(lar_memory, "lar (%ebx), %ecx")
CODE32(arpl_memory, "arpl %ax, (%ebx)")
CODE_LOW(lar_low, "lar %ax, %cx")
CODE_LOW(lsl_low, "lsl %ax, %cx")
CODE_LOW(verr_low, "verr %ax")
CODE_LOW(verw_low, "verw %ax")
CODE_LOW(arpl_low, "arpl %ax, %cx")
CODE_LOW(lldt_low, "lldt %ax")
CODE_LOW(ltr_low, "ltr %ax")
CODE_LOW(sldt_low, "sldt %ax")
CODE_LOW(str_low, "str %ax")

static void test_undefined_outside(void)
{
	static const struct {
		const char *name;
		const u8 *code, *end;
	} only_protected[] = {
		{ "LAR", lar_low, lar_low_end },    { "LSL", lsl_low, lsl_low_end },
		{ "VERR", verr_low, verr_low_end }, { "VERW", verw_low, verw_low_end },
		{ "ARPL", arpl_low, arpl_low_end }, { "LLDT", lldt_low, lldt_low_end },
		{ "LTR", ltr_low, ltr_low_end },    { "SLDT", sldt_low, sldt_low_end },
		{ "STR", str_low, str_low_end },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(only_protected); n++) {
		struct legacy_state real = { LEGACY_REAL,
					     .eip = place_low(only_protected[n].code, only_protected[n].end) };
		struct legacy_state v86 = { LEGACY_V86 };
		struct legacy_trap r = legacy_run(&real), v = legacy_run(&v86);

		check(r.vector == EXC_UD && v.vector == EXC_UD, "2 %s: #UD in real and virtual-8086 mode",
		      only_protected[n].name);
	}
}

static void test_questions(void)
{
	struct legacy_trap t;
	u32 limit;

	for (unsigned type = 0; type < 32; type++)
		check(ask_about(type, false), "2 LAR, LSL, VERR, VERW: type %x, all privileges", type);
	for (unsigned type = 0; type < 32; type++)
		check(ask_about(type, true), "2 LAR, LSL, VERR, VERW: 64-bit mode: type %x, all privileges", type);
	check(answers_32(0, 0, &limit) == 0 && answers_32(3, 3, &limit) == 0, "2 LAR ...: a null selector clears ZF");
	check_equal(answers_32(0, LEGACY_GDT_ENTRIES * 8, &limit), 0, "2 LAR ...: beyond the GDT");
	check_equal(answers_32(0, 4, &limit), 0, "2 LAR ...: no LDT");
	*legacy_descriptor(SELECTOR) = descriptor(0x1000, 0xabcde, DATA_RW | BIG);
	check_equal(answers_32(0, SELECTOR, &limit), LAR | LSL | VERR | VERW, "2 LAR ...: P is not asked for");
	check_equal(limit, 0xabcde, "2 LSL: a limit in bytes");
	*legacy_descriptor(SELECTOR) = descriptor(0xffffffff, 0xabcde, P | DATA_RW | DPL(3) | BIG | PAGES | 0x3000);
	t = RING3_32(lar_32, .eax = SELECTOR, .ecx = 0xffffffff);
	check_equal(t.ecx & 0xfff0ff00, 0x00f0f200, "2 LAR: access byte and bits 20 to 23");
	check(!(t.ecx & 0xff0000ff), "2 LAR: nothing of the base");
	check(t.eflags & FLAG_ZF, "2 LAR: ZF");
	t = RING3_32(lar_16, .eax = SELECTOR, .ecx = 0xffffffff);
	check_equal(t.ecx, 0xfffff200, "2 LAR: operands of 16 bits: the access byte alone");
	t = RING3_32(lsl_16, .eax = SELECTOR, .ecx = 0xffffffff);
	check_equal(t.ecx, 0xffffefff, "2 LSL: operands of 16 bits: the lower half of the limit");
	words[0] = SELECTOR;
	t = RING3_32(lar_memory, .ebx = LOW32(words), .ecx = 5);
	check_equal(t.ecx & 0xff00, 0xf200, "2 LAR: a selector in memory");
	*legacy_descriptor(LEGACY_FREE + 8) = descriptor(LOW32(words), 0xfe, DATA32 & ~BIG);
	t = RING3_32(lar_memory, .ebx = 0xfe, .ds = (LEGACY_FREE + 8) | 3);
	check_fault_32(&t, EXC_GP, 0, "2 LAR: a word over the segment's limit");

	words[0] = 0xffff0008;
	t = RING3_32(arpl_memory, .eax = 3, .ebx = LOW32(words));
	check(words[0] == 0xffff000b && (t.eflags & FLAG_ZF), "2 ARPL: raises RPL, in memory 16 bits");
	t = RING3_32(arpl_memory, .eax = 2, .ebx = LOW32(words), .eflags = 2 | (u32)FLAG_ZF);
	check(words[0] == 0xffff000b && !(t.eflags & FLAG_ZF), "2 ARPL: never lowers it");
	test_undefined_outside();
}

/* ---- LLDT, LTR ---- */

CODE32(do_lldt, "lldt %ax")
CODE32(do_ltr, "ltr %ax")

static void test_system_segments(void)
{
	static const struct {
		const char *what;
		const u8 *code;
		u16 access, selector;
		u8 vector;
	} cases[] = {
		{ "LLDT: an LDT", do_lldt, P | 2, SELECTOR, END_VECTOR },
		{ "LLDT: DPL and RPL do not matter", do_lldt, P | 2, SELECTOR | 3, END_VECTOR },
		{ "LLDT: an absent one", do_lldt, 2, SELECTOR, EXC_NP },
		{ "LLDT: a TSS", do_lldt, P | 9, SELECTOR, EXC_GP },
		{ "LLDT: an absent TSS: type first", do_lldt, 9, SELECTOR, EXC_GP },
		{ "LLDT: a data segment", do_lldt, P | DATA_RW, SELECTOR, EXC_GP },
		{ "LTR: a TSS of 32 bits", do_ltr, P | 9, SELECTOR, END_VECTOR },
		{ "LTR: a TSS of 16 bits", do_ltr, P | 1, SELECTOR, END_VECTOR },
		{ "LTR: an absent one", do_ltr, 9, SELECTOR, EXC_NP },
		{ "LTR: an absent one of 16 bits", do_ltr, 1, SELECTOR, EXC_NP },
		{ "LTR: a busy one", do_ltr, P | 11, SELECTOR, EXC_GP },
		{ "LTR: a busy one of 16 bits", do_ltr, P | 3, SELECTOR, EXC_GP },
		{ "LTR: a busy absent one: type first", do_ltr, 11, SELECTOR, EXC_GP },
		{ "LTR: an LDT", do_ltr, P | 2, SELECTOR, EXC_GP },
		{ "LTR: a code segment", do_ltr, P | CODE_XR, SELECTOR, EXC_GP },
	};
	struct legacy_trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		u64 *entry = legacy_descriptor(SELECTOR), before = descriptor(LOW32(words), 0x67, cases[n].access);
		bool loads = cases[n].vector == END_VECTOR, ltr = cases[n].code == do_ltr, good;

		*entry = before;
		t = RING0_32(cases[n].code, .eax = cases[n].selector);
		good = t.vector == cases[n].vector && t.error == (loads ? 0 : SELECTOR) &&
		       *entry == before + (loads && ltr ? BIT(41) : 0) &&
		       (!loads || (ltr ? t.tr : t.ldtr) == cases[n].selector);
		if (!check(good, "2 %s", cases[n].what))
			print("#   vector %u error 0x%x descriptor 0x%lx\n", t.vector, t.error, *entry);
	}
	*legacy_descriptor(SELECTOR) = descriptor(0, 0x67, P | 9);
	t = RING0_32(do_ltr, .eax = 0);
	check_fault_32(&t, EXC_GP, 0, "2 LTR: null");
	t = RING0_32(do_ltr, .eax = SELECTOR | 4);
	check_fault_32(&t, EXC_GP, SELECTOR | 4, "2 LTR: of the LDT");
	t = RING0_32(do_lldt, .eax = SELECTOR | 4);
	check_fault_32(&t, EXC_GP, SELECTOR | 4, "2 LLDT: of the LDT");
	t = RING0_32(do_lldt, .eax = 3);
	check_end_32(&t, "2 LLDT: null, with any RPL: no LDT");
	t = RING0_32(do_lldt, .eax = LEGACY_GDT_ENTRIES * 8);
	check_fault_32(&t, EXC_GP, LEGACY_GDT_ENTRIES * 8, "2 LLDT: beyond the GDT");
	t = RING3_32(do_lldt, .eax = SELECTOR);
	check_fault_32(&t, EXC_GP, 0, "2 LLDT: ring 3");
	t = RING3_32(do_ltr, .eax = SELECTOR);
	check_fault_32(&t, EXC_GP, 0, "2 LTR: ring 3");
}

/* In long mode these descriptors have 16 bytes: SDM vol. 3A 3.5. */
CODE(lldt_64, "lldt %ax; sldt %ecx")
CODE(ltr_64, "ltr %ax")

static void test_system_segments_64(void)
{
	static const struct {
		const char *what;
		const u8 *code;
		u64 access, upper;
		u8 vector;
	} cases[] = {
		{ "LLDT: an LDT", lldt_64, P | 2, 0, END_VECTOR },
		{ "LLDT: in the upper half of the address space", lldt_64, P | 2, 0xffff8000, END_VECTOR },
		{ "LLDT: a base that is not canonical", lldt_64, P | 2, 0x8000, EXC_GP },
		{ "LLDT: a type in the second half", lldt_64, P | 2, BIT(32 + 9), EXC_GP },
		{ "LLDT: a TSS", lldt_64, P | 9, 0, EXC_GP },
		{ "LLDT: absent", lldt_64, 2, 0, EXC_NP },
		{ "LTR: a TSS of 16 bits", ltr_64, P | 1, 0, EXC_GP },
		{ "LTR: a busy one", ltr_64, P | 11, 0, EXC_GP },
		{ "LTR: absent", ltr_64, 9, 0, EXC_NP },
		{ "LTR: a base that is not canonical", ltr_64, P | 9, 0x8000, EXC_GP },
		{ "LTR: a type in the second half", ltr_64, P | 9, BIT(32 + 12), EXC_GP },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		struct trap t;

		*gdt_entry(GDT_FREE) = descriptor(0x1000, 0x67, (u32)cases[n].access);
		*gdt_entry(GDT_FREE + 8) = cases[n].upper;
		t = KERNEL(cases[n].code, .rax = GDT_FREE);
		check_fault(&t, cases[n].vector, cases[n].vector == END_VECTOR ? 0 : GDT_FREE, "2 %s (64-bit mode)",
			    cases[n].what);
	}
	*gdt_entry(GDT_FREE) = *gdt_entry(GDT_FREE + 8) = 0;
	asm volatile("lldt %w0" ::"r"(0));
}

/* ---- BOUND, ENTER, LEAVE ---- */

CODE32(bound_32, "bound %eax, (%ebx)")
CODE32(bound_16, "bound %ax, (%ebx)")
CODE32(enter_31, "enter $0x20, $31")
CODE32(enter_32, "enter $0x20, $32")
CODE32(enter_1, "enter $0x20, $1")
CODE32(enter_0, "enter $0xfff0, $0")
CODE32(enter_16, "data16 enter $0x20, $3")
CODE32(enter_leave, "enter $0x20, $2; leave")

static void test_frames(void)
{
	u32 top = legacy_stack(), *stack = (u32 *)(u64)top;
	struct legacy_trap t;
	bool good = true;

	words[0] = (u32)-5;
	words[1] = 7;
	for (int value = -7; value < 10; value++) {
		bool inside = value >= -5 && value <= 7;

		t = RING3_32(bound_32, .eax = (u32)value, .ebx = LOW32(words));
		good = good && t.vector == (inside ? END_VECTOR : EXC_BR) && (inside || t.eip == LOW32(bound_32));
	}
	check(good, "2 BOUND: signed bounds, both inside; #BR is a fault");
	words[0] = 0x7fff8000;
	t = RING3_32(bound_16, .eax = 0x12348000, .ebx = LOW32(words));
	check_end_32(&t, "2 BOUND: of 16 bits");
	*legacy_descriptor(SELECTOR) = descriptor(LOW32(words), 6, DATA32);
	t = RING3_32(bound_32, .ds = SELECTOR | 3);
	check_fault_32(&t, EXC_GP, 0, "2 BOUND: bounds over the segment's limit");

	for (unsigned n = 1; n < 40; n++)
		stack[-(int)n - 100] = 0x1000 + n;
	t = RING3_32(enter_0, .ebp = 0x1234);
	check(t.vector == END_VECTOR && t.ebp == top - 4 && t.esp == top - 4 - 0xfff0 && stack[-1] == 0x1234,
	      "2 ENTER: level 0");
	t = RING3_32(enter_1, .ebp = 0x1234);
	check(t.esp == top - 8 - 0x20 && t.ebp == top - 4 && stack[-1] == 0x1234 && stack[-2] == top - 4,
	      "2 ENTER: level 1: the frame's own pointer");
	t = RING3_32(enter_31, .ebp = top - 400);
	good = t.esp == top - 4 * 32 - 0x20 && t.ebp == top - 4 && stack[-1] == top - 400 && stack[-32] == top - 4;
	for (unsigned n = 1; n < 31; n++)
		good = good && stack[-1 - (int)n] == 0x1000 + n;
	check(good, "2 ENTER: level 31: 30 pointers of outer frames");
	t = RING3_32(enter_32, .ebp = 0x1234);
	check(t.esp == top - 4 - 0x20, "2 ENTER: levels are counted modulo 32");
	t = RING3_32(enter_16, .ebp = top - 400);
	check(t.vector == END_VECTOR && t.esp == top - 8 - 0x20 && (u16)t.ebp == (u16)(top - 2) &&
		      *(u16 *)(u64)(top - 2) == (u16)(top - 400) &&
		      *(u16 *)(u64)(top - 4) == *(u16 *)(u64)(top - 402) && *(u16 *)(u64)(top - 8) == (u16)(top - 2),
	      "2 ENTER: operands of 16 bits on a stack of 32");
	t = RING3_32(enter_leave, .ebp = top - 400);
	check(t.esp == top && t.ebp == top - 400, "2 LEAVE: undoes it");
}

void guest(void)
{
	test_loads();
	test_selectors();
	test_moves();
	test_accesses();
	test_top();
	test_cached();
	test_stacks();
	test_stack_down();
	test_wraps();
	test_code_limit();
	test_questions();
	test_system_segments();
	test_system_segments_64();
	test_frames();
}
