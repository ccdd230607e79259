/*
 * Where addresses of 32 bits end, SDM vol. 1 3.3.7, vol. 3A 5.3: what begins below 4 GiB and goes on above. String instructions of every
 * kind, repeated or not, up and down, operands, code, breakpoints, accessed and dirty bits, in every mode, with memory at 4 GiB that
 * only 64-bit code may find. Behind the last address of 32 bits comes 0; an offset that goes on behind a limit of 4 GiB faults.
 */
#include "legacy.h"

#define LAST	   0xfffff000u
#define PORT	   0xe9	    /* the debug console's */
#define EDGE	   256	    /* bytes looked at on either side */
#define BASED	   GDT_FREE /* data: ends of linear addresses in the middle */
#define BASED_CODE (GDT_FREE + 16)
#define LOW(value) ((u32)(value))

enum { BELOW, WRAPPED, ABOVE, BESIDE, PLACES }; /* the pages at LAST, 0 and 4 GiB; another one */

static u8 memory[PLACES][4096] __attribute__((aligned(4096)));
static u8 wanted[PLACES][2 * EDGE];
static u64 zero_table[512] __attribute__((aligned(4096)));

/* What is looked at of a page. */
static u8 *edge_of(unsigned place) { return place == BELOW ? memory[BELOW] + 4096 - EDGE : memory[place]; }
static unsigned edge_size(unsigned place) { return place == BESIDE ? 2 * EDGE : EDGE; }

static void map_places(u64 flags)
{
	map_page(LAST, (u64)memory[BELOW], flags);
	map_page(0, (u64)memory[WRAPPED], flags);
	map_page(BIT(32), (u64)memory[ABOVE], flags);
}

static void prepare(void)
{
	const u64 all = PTE_P | PTE_W | PTE_U;

	for (u64 n = 0; n < 512; n++)
		zero_table[n] = n << 12 | PTE_P | PTE_W;
	*entry_of(0, 3) |= PTE_U;
	*entry_of(0, 2) = (u64)zero_table | all;
	*entry_of(LAST, 3) |= PTE_U;
	*entry_of(LAST, 2) = (u64)frame_alloc() | all;
	flush_tlb();
	map_places(all);
}

/* ---- what must happen ---- */

struct way {
	const char *name;
	unsigned bits; /* of the code */
	unsigned offset_size;
	u32 base;
};
static const struct way ways[] = {
	{ "32-bit code", 32, 4, 0 },
	{ "32-bit code, segments with a base", 32, 4, 0xfffffc00 },
	{ "32-bit code, 16-bit addresses", 32, 2, 0xffff8000 },
	{ "64-bit code, 32-bit addresses", 64, 4, 0 },
	{ "64-bit code", 64, 8, 0 },
};

struct registers {
	u64 rdi, rsi, rcx, rax;
};

struct operation {
	const char *name;
	u8 opcode;
	bool source, destination;
};
enum { INS = 0x6c, MOVS = 0xa4, CMPS = 0xa6, STOS = 0xaa, LODS = 0xac, SCAS = 0xae };
static const struct operation operations[] = {
	{ "MOVS", MOVS, true, true }, { "STOS", STOS, false, true }, { "LODS", LODS, true, false },
	{ "CMPS", CMPS, true, true }, { "SCAS", SCAS, false, true }, { "INS", INS, false, true },
};

struct string {
	const struct way *way;
	const struct operation *op;
	unsigned size;
	bool down, repeat;
};

static u64 cut(const struct string *s, u64 value)
{
	return s->way->offset_size == 2 ? (u16)value : s->way->offset_size == 4 ? LOW(value) : value;
}

static u64 ones(const struct string *s) { return UINT64_MAX >> (64 - 8 * s->size); }

/* NULL: the element faults. */
static u8 *byte_at(const struct string *s, u64 offset, unsigned n)
{
	u64 linear = offset + n;

	if (s->way->bits == 32) {
		if (offset + s->size - 1 > 0xffffffff)
			return NULL;
		linear = LOW(linear + s->way->base);
	}
	if (linear >= LAST && linear <= 0xffffffff)
		return &wanted[BELOW][linear - LAST - (4096 - EDGE)];
	if (linear < EDGE)
		return &wanted[WRAPPED][linear];
	if (linear - BIT(32) < EDGE)
		return &wanted[ABOVE][linear - BIT(32)];
	if (linear - USER(memory[BESIDE]) < 2 * EDGE)
		return &wanted[BESIDE][linear - USER(memory[BESIDE])];
	die("the test's own model is at 0x%lx", linear);
}

static bool load(const struct string *s, u64 offset, u64 *value)
{
	*value = 0;
	for (unsigned n = 0; n < s->size; n++) {
		const u8 *at = byte_at(s, offset, n);

		if (!at)
			return false;
		*value |= (u64)*at << 8 * n;
	}
	return true;
}

static bool store(const struct string *s, u64 offset, u64 value)
{
	for (unsigned n = 0; n < s->size; n++) {
		u8 *at = byte_at(s, offset, n);

		if (!at)
			return false;
		*at = (u8)(value >> 8 * n);
	}
	return true;
}

/* One element. False: it faults, and nothing has changed. *on: may the repetition go on? */
static bool element(const struct string *s, struct registers *r, bool *on)
{
	u64 step = s->down ? -(u64)s->size : s->size, from = r->rax & ones(s), to;

	if (s->op->source && !load(s, cut(s, r->rsi), &from))
		return false;
	if (s->op->opcode == INS)
		from = in32(PORT) & ones(s);
	if (s->op->opcode == CMPS || s->op->opcode == SCAS) {
		if (!load(s, cut(s, r->rdi), &to))
			return false;
		*on = from == to;
	} else if (s->op->destination && !store(s, cut(s, r->rdi), from)) {
		return false;
	}
	if (s->op->opcode == LODS)
		r->rax = s->size == 4 ? from : (r->rax & ~ones(s)) | from;
	if (s->op->source)
		r->rsi = (r->rsi & ~cut(s, UINT64_MAX)) | cut(s, r->rsi + step);
	if (s->op->destination)
		r->rdi = (r->rdi & ~cut(s, UINT64_MAX)) | cut(s, r->rdi + step);
	return true;
}

/* The vector that it ends with. */
static unsigned expect(const struct string *s, struct registers *r)
{
	bool on = true;

	if (!s->repeat)
		return element(s, r, &on) ? END_VECTOR : EXC_GP;
	while (on && cut(s, r->rcx)) {
		if (!element(s, r, &on))
			return EXC_GP;
		r->rcx = (r->rcx & ~cut(s, UINT64_MAX)) | cut(s, r->rcx - 1);
	}
	return END_VECTOR;
}

/* ---- what happens ---- */

/* Each somewhere else: an engine may remember how it fared with an instruction. */
static u8 codes[0x10000] __attribute__((aligned(4096)));

static const u8 *make_code(const struct string *s)
{
	static unsigned used;
	u8 *code = &codes[used++ * 16 % sizeof(codes)], *at = code;

	/* An engine may find its way to memory by other instructions only: push %eax; pop %eax. */
	*at++ = 0x50;
	*at++ = 0x58;
	*at++ = s->down ? 0xfd : 0xfc;
	if (s->way->offset_size * 8 != s->way->bits)
		*at++ = 0x67;
	if (s->size == 2)
		*at++ = 0x66;
	if (s->repeat)
		*at++ = 0xf3;
	if (s->size == 8)
		*at++ = 0x48;
	*at++ = (u8)(s->op->opcode + (s->size > 1));
	*at++ = 0xcd;
	*at = END_VECTOR;
	return code;
}

/* Equal bytes for comparisons, until one behind the end; others for all else. */
static void fill(const struct string *s)
{
	bool compares = s->op->opcode == CMPS || s->op->opcode == SCAS;

	for (unsigned place = 0; place < PLACES; place++) {
		for (unsigned n = 0; n < edge_size(place); n++)
			wanted[place][n] = (u8)(compares ? 0x55 : 7 * n + 64 * place);
		if (compares && place == (s->down ? BELOW : WRAPPED))
			wanted[place][s->down ? EDGE - 30 : 30] = 0x77;
		memcpy(edge_of(place), wanted[place], edge_size(place));
	}
}

static void load_segments(u16 data) { asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(data)); }

static struct trap run_string(const struct string *s, const u8 *code, unsigned ring, const struct registers *r)
{
	struct frame f = { .rip = ring ? USER(code) : (u64)code,
			   .ss = ring ? USER_DS : KERNEL_DS,
			   .rsp = ring ? user_stack() : kernel_stack(),
			   .rflags = 2,
			   .rdi = r->rdi,
			   .rsi = r->rsi,
			   .rcx = r->rcx,
			   .rax = r->rax,
			   .rdx = PORT };
	struct trap t;

	if (s->way->bits == 32)
		f.cs = ring ? USER_CS32 : KERNEL_CS32;
	else
		f.cs = ring ? USER_CS : KERNEL_CS;
	load_segments(s->way->base ? BASED | ring : USER_DS);
	t = run(&f);
	load_segments(USER_DS);
	return t;
}

/* With the operands, or one of them, across the edge. */
static bool try_string(const struct string *s, unsigned ring, unsigned distance, bool source, bool destination)
{
	u64 edge = s->down ? distance : BIT(32) - distance;
	u64 across = cut(s, s->way->bits == 64 ? edge : LOW(edge - s->way->base));
	u64 beside = cut(s, USER(memory[BESIDE]) + EDGE - s->way->base);
	u64 fives = 0x5555555555555555ull >> (64 - s->way->bits);
	struct registers start = { destination ? across : beside, source ? across : beside, 24, fives }, r;
	const u8 *code = make_code(s);
	bool good = true;

	if (s->op->source && s->op->destination && source && destination)
		start.rsi = cut(s, across + s->size);
	for (unsigned n = 0; n < 2; n++) {
		unsigned vector;
		struct trap t;

		fill(s);
		r = start;
		vector = expect(s, &r);
		t = run_string(s, code, ring, &start);
		good = t.vector == vector && t.rdi == r.rdi && t.rsi == r.rsi && t.rcx == r.rcx && t.rax == r.rax;
		for (unsigned place = 0; place < PLACES; place++)
			good &= !memcmp(edge_of(place), wanted[place], edge_size(place));
		if (good)
			continue;
		print("# ring %u, %s of %u bytes %s, %u before the edge, ESI %x EDI %x: vector %lu error 0x%lx cr2 "
		      "0x%lx rdi 0x%lx rsi 0x%lx rcx 0x%lx, expected %u 0x%lx 0x%lx 0x%lx\n",
		      ring, s->repeat ? "repetition" : "one", s->size, s->down ? "down" : "up", distance,
		      LOW(start.rsi), LOW(start.rdi), t.vector, t.error, t.cr2, t.rdi, t.rsi, t.rcx, vector, r.rdi,
		      r.rsi, r.rcx);
		return false;
	}
	return good;
}

static bool try_operands(const struct string *s, unsigned ring, unsigned distance)
{
	bool good = true;

	if (s->op->destination)
		good &= try_string(s, ring, distance, false, true);
	if (s->op->source)
		good &= try_string(s, ring, distance, true, false);
	if (s->op->source && s->op->destination)
		good &= try_string(s, ring, distance, true, true);
	return good;
}

static void test_strings(const struct way *way, const struct operation *op)
{
	static const u8 distances[] = { 16, 17, 6, 1, 33 };
	bool good = true;

	*gdt_entry(BASED) = descriptor(way->base, 0xfffff, ATTR_DATA32 | ATTR_DPL3);
	for (unsigned ring = 0; ring <= 3; ring += 3)
		for (unsigned size = 1; size <= way->bits / 8; size *= 2)
			for (unsigned variant = 0; variant < 4 * ARRAY_SIZE(distances); variant++) {
				struct string s = { way, op, size, variant & 1, variant & 2 };

				/* Ports have 32 bits, and are the kernel's. Below 0, 64-bit code has another end. */
				if ((op->opcode == INS && (size == 8 || ring)) || (s.down && way->offset_size == 8))
					continue;
				/* The page beside is beyond a reach of 64 KiB. */
				if (way->offset_size == 2)
					good &= !(op->source && op->destination)
							? try_operands(&s, ring, distances[variant / 4])
							: try_string(&s, ring, distances[variant / 4], true, true);
				else
					good &= try_operands(&s, ring, distances[variant / 4]);
			}
	check(good, "2 %s: across 4 GiB in %s", op->name, way->name);
}

/* ---- operands ---- */

/* (name, instructions on EDI, on what they fault in a segment whose limit is 4 GiB); EDI is so that the operand's first byte is in BELOW */
#define OPERANDS(_)                                                                                                    \
	_(mov_load, "mov (%edi), %eax", 2, EXC_GP)                                                                     \
	_(mov_store, "mov %ax, (%edi)", 1, EXC_GP)                                                                     \
	_(add_store, "add %eax, (%edi)", 3, EXC_GP)                                                                    \
	_(lock_add, "lock add %eax, (%edi)", 1, EXC_GP)                                                                \
	_(exchange, "xchg %ax, (%edi)", 1, EXC_GP)                                                                     \
	_(bit_set, "bts %ecx, -4(%edi)", 2, EXC_GP)                                                                    \
	_(cmpxchg8b, "cmpxchg8b (%edi)", 5, EXC_GP)                                                                    \
	_(sse_load, "movups (%edi), %xmm0", 8, EXC_GP)                                                                 \
	_(sse_store, "movups %xmm0, (%edi)", 15, EXC_GP)                                                               \
	_(x87_store, "fninit; fld1; fstpt (%edi)", 9, EXC_GP)                                                          \
	_(fxsave, "fxsave (%edi)", 16, EXC_GP)                                                                         \
	_(push, "lea 4(%edi), %esp; push %eax", 1, EXC_SS)                                                             \
	_(pop, "mov %edi, %esp; pop %eax", 3, EXC_SS)                                                                  \
	_(call, "lea 4(%edi), %esp; call 1f; 1:", 2, EXC_SS)                                                           \
	_(leave, "mov %edi, %ebp; leave", 2, EXC_SS)                                                                   \
	_(push_memory, "push (%edi)", 2, EXC_GP)                                                                       \
	_(pop_memory, "push %eax; pop (%edi)", 1, EXC_GP)

#define _(name, text, distance, vector) CODE32(name, text)
OPERANDS(_)
#undef _

static const struct {
	const char *name;
	const u8 *code;
	unsigned distance;
	u64 vector;
} operands[] = {
#define _(name, text, distance, vector) { #name, name, distance, vector },
	OPERANDS(_)
#undef _
};

static struct trap run_32(const u8 *at, u16 data, u32 edi)
{
	struct trap t;

	load_segments(data);
	t = USER_MODE(at, .cs = USER_CS32, .rdi = edi, .rcx = 32, .rax = 0xa1a2a3a4);
	load_segments(USER_DS);
	return t;
}

static u64 marks(void) { return (*entry_of(LAST, 1) | *entry_of(0, 1) | *entry_of(BIT(32), 1)) & (PTE_A | PTE_D); }

/* What 64-bit code has used stays at hand for an engine. */
static void use_from_64(void)
{
	*(volatile u64 *)(u64)(LAST + 4096 - 8) = 0;
	*(volatile u64 *)BIT(32) = 0;
}

/* Often enough that an engine has its best way for it. */
static void test_operands(u32 base, const char *where)
{
	*gdt_entry(BASED) = descriptor(base, 0xfffff, ATTR_DATA32 | ATTR_DPL3);
	for (unsigned n = 0; n < ARRAY_SIZE(operands); n++) {
		u16 data = base && operands[n].vector != EXC_SS ? BASED | 3 : USER_DS;
		bool good = true;

		for (unsigned k = 0; good && k < 12; k++) {
			struct trap t;

			use_from_64();
			map_places(PTE_P | PTE_W | PTE_U);
			t = run_32(operands[n].code, data, -operands[n].distance);
			good = t.vector == operands[n].vector && !t.error && !marks();
			if (!good)
				print("# %u: vector %lu error 0x%lx cr2 0x%lx, marks 0x%lx\n", k, t.vector, t.error,
				      t.cr2, marks());
		}
		check(good, "3A 5.3: %s, whose offset goes on behind 4 GiB, %s", operands[n].name, where);
	}
}

CODE32(store_wrapping, "mov %eax, (%edi)")
CODE32(load_wrapping, "mov (%edi), %eax")
CODE32(add_wrapping, "lock add %eax, (%edi)")
CODE(store_64, "mov %eax, (%edi)")

static void test_wrapping(void)
{
	u32 *end = (u32 *)(memory[BELOW] + 4092), *start = (u32 *)memory[WRAPPED], *above = (u32 *)memory[ABOVE];
	const u64 both = PTE_A | PTE_D;
	bool good = true, marked = true;
	struct trap t;

	*gdt_entry(BASED) = descriptor(LAST, 0xfffff, ATTR_DATA32 | ATTR_DPL3);
	for (unsigned k = 0; k < 12; k++) {
		*end = *start = *above = 0;
		map_places(PTE_P | PTE_W | PTE_U);
		t = run_32(store_wrapping, BASED | 3, 0xffe);
		good &= t.vector == END_VECTOR && *end == 0xa3a40000 && *start == 0xa1a2 && !*above;
		marked &= (*entry_of(LAST, 1) & *entry_of(0, 1) & both) == both && !(*entry_of(BIT(32), 1) & both);
	}
	check(good, "1 3.3.7: where a segment's base leads over 4 GiB, an operand goes on at 0");
	check(marked, "3A 4.8: accessed and dirty is what it was in, and nothing else");
	t = run_32(load_wrapping, BASED | 3, 0xffe);
	check_equal(LOW(t.rax), 0xa1a2a3a4, "1 3.3.7: and is read so");
	for (unsigned k = 0; k < 12; k++)
		t = run_32(add_wrapping, BASED | 3, 0xffe);
	check(t.vector == END_VECTOR && *end == 0x4f540000 && *start == 0x3542 && !*above,
	      "1 3.3.7: and a locked one is added to so");
	*start = 0;
	t = USER_MODE(store_64, .rdi = 0xfffffffe, .rax = 0xb1b2b3b4);
	check(t.vector == END_VECTOR && *end == 0xb3b40000 && !*start && *above == 0xb1b2,
	      "1 3.3.7: an address of 32 bits in 64-bit code wraps, its operand does not");
	map_page(0, (u64)memory[WRAPPED], PTE_P | PTE_U);
	*end = 0;
	t = run_32(store_wrapping, BASED | 3, 0xffe);
	check_page_fault(&t, PF_P | PF_W | PF_U, 0, "3A 4.7: its second page may not be written");
	check(!*end, "3A 6.5: and nothing was");
	map_places(PTE_P | PTE_W | PTE_U);
}

/* ---- code ---- */

static void test_code(void)
{
	static const u8 bytes[] = { 0xb8, 0x44, 0x33, 0x22, 0x11, 0x43, 0xcd, END_VECTOR }; /* mov $, %eax; inc %ebx */
	struct trap t;

	*gdt_entry(BASED_CODE) = descriptor(LAST, 0xfffff, ATTR_CODE32 | ATTR_DPL3);
	memset(memory[ABOVE], 0xcc, sizeof(memory[ABOVE]));
	for (unsigned before = 1; before < sizeof(bytes); before++) {
		memcpy(memory[BELOW] + 4096 - before, bytes, before);
		memcpy(memory[WRAPPED], bytes + before, sizeof(bytes) - before);
		t = USER_MODE(store_wrapping, .rip = 0x1000 - before, .cs = BASED_CODE | 3, .rbx = 1);
		if (t.vector != END_VECTOR || LOW(t.rax) != 0x11223344 || LOW(t.rbx) != 2)
			break;
	}
	check(t.vector == END_VECTOR && LOW(t.rax) == 0x11223344 && LOW(t.rbx) == 2,
	      "1 3.3.7: code goes on over 4 GiB at 0");
}

/* ---- breakpoints ---- */

#define DR7_NONE 0x400

static unsigned hits;

static void on_debug(struct frame *f)
{
	hits++;
	f->rflags |= FLAG_RF;
}

/* Hits of a breakpoint on `length` (1 or 4) bytes that are written, or also read. */
static unsigned hits_of(u64 address, unsigned length, bool write, const u8 *at, u16 data, u32 edi)
{
	hits = 0;
	write_dr0(address);
	write_dr7(DR7_NONE | 2 | (write ? 1 : 3) << 16 | (length - 1) << 18);
	run_32(at, data, edi);
	write_dr7(DR7_NONE);
	return hits;
}

CODE32(fill_16, "cld; mov $16, %ecx; rep stosb")
CODE32(fill_16_words, "cld; mov $16, %ecx; rep stosl")
CODE32(fill_16_down, "std; mov $16, %ecx; rep stosb")
CODE32(scan_16, "cld; mov $16, %ecx; mov (%edi), %al; repe scasb")

static void test_breakpoints(void)
{
	const u32 middle = 0xfffffff8;

	*gdt_entry(BASED) = descriptor(LAST, 0xfffff, ATTR_DATA32 | ATTR_DPL3);
	memset(memory, 0, sizeof(memory));
	set_handler(EXC_DB, on_debug);
	check_equal(hits_of(0xffffffff, 1, true, fill_16, USER_DS, middle), 1, "3B 17.2.4: REP STOS, the last byte");
	check_equal(hits_of(0, 1, true, fill_16, USER_DS, middle), 1, "3B 17.2.4: REP STOS, byte 0 behind it");
	check_equal(hits_of(4, 4, true, fill_16, USER_DS, middle), 4, "3B 17.2.4: REP STOS, four bytes behind it");
	check_equal(hits_of(8, 1, true, fill_16, USER_DS, middle), 0, "3B 17.2.4: REP STOS, behind its end");
	check_equal(hits_of(BIT(32), 4, true, fill_16, USER_DS, middle), 0, "3B 17.2.4: REP STOS, not at 4 GiB");
	check_equal(hits_of(0, 4, true, fill_16_words, USER_DS, middle), 1, "3B 17.2.4: REP STOS of four bytes");
	check_equal(hits_of(0xffffffff, 1, true, fill_16_down, USER_DS, 7), 1, "3B 17.2.4: REP STOS downwards");
	check_equal(hits_of(0, 1, false, scan_16, USER_DS, middle), 1, "3B 17.2.4: REPE SCAS");
	check_equal(hits_of(0, 1, true, store_wrapping, BASED | 3, 0xffe), 1, "3B 17.2.4: an operand's second part");
	check_equal(hits_of(1, 1, false, load_wrapping, BASED | 3, 0xffe), 1, "3B 17.2.4: its last byte");
	check_equal(hits_of(0xffffffff, 1, false, load_wrapping, BASED | 3, 0xffe), 1, "3B 17.2.4: its first part");
	check_equal(hits_of(2, 1, false, load_wrapping, BASED | 3, 0xffe), 0, "3B 17.2.4: the byte behind it");
	check_equal(hits_of(BIT(32), 4, true, store_wrapping, BASED | 3, 0xffe), 0, "3B 17.2.4: and none at 4 GiB");
	set_handler(EXC_DB, NULL);
}

/* ---- outside long mode ---- */

static u32 directory[1024] __attribute__((aligned(4096))), first[1024] __attribute__((aligned(4096)));
static u32 last[1024] __attribute__((aligned(4096)));

CODE32(move_down_and_up, "cld; rep movsb; std; dec %edi; dec %esi; mov $24, %ecx; rep stosb; cld")

static void test_legacy(void)
{
	const u32 all = PTE_P | PTE_W | PTE_U;
	struct legacy_trap t;
	bool good = true;

	for (u32 n = 0; n < 1024; n++) {
		first[n] = n << 12 | all;
		directory[n] = n << 22 | all | (u32)PTE_PS;
	}
	first[0] = LOW32(memory[WRAPPED]) | all;
	last[1023] = LOW32(memory[BELOW]) | all;
	directory[0] = LOW32(first) | all;
	directory[1023] = LOW32(last) | all;
	for (unsigned k = 0; k < 2; k++) {
		memset(memory, 0, sizeof(memory));
		memset(memory[BESIDE], 0x33, 24);
		t = RING0_32(fill_16_words, .edi = 0xffffffe0, .eax = 0x44444444,
			     .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG), .cr3 = LOW32(directory), .cr4 = CR4_PSE);
		good &= t.vector == END_VECTOR && t.edi == 0x20 && memory[BELOW][4095] == 0x44 &&
			memory[WRAPPED][31] == 0x44 && !memory[WRAPPED][32];
		t = RING3_32(move_down_and_up, .esi = LOW32(memory[BESIDE]), .edi = 0xfffffff0, .ecx = 24, .eax = 0x55,
			     .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG), .cr3 = LOW32(directory), .cr4 = CR4_PSE);
		good &= t.vector == END_VECTOR && t.edi == 0xffffffef && memory[BELOW][4080] == 0x55 &&
			memory[BELOW][4079] == 0x44 && memory[WRAPPED][7] == 0x55 && memory[WRAPPED][8] == 0x44;
	}
	check(good, "2 REP MOVS, STOS: across 4 GiB outside long mode");
	for (unsigned k = 0; k < ARRAY_SIZE(operands); k++) {
		first[0] = LOW32(memory[WRAPPED]) | all;
		last[1023] = LOW32(memory[BELOW]) | all;
		t = RING3_32(operands[k].code, .edi = -operands[k].distance, .ecx = 32, .eax = 0xa1a2a3a4,
			     .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG), .cr3 = LOW32(directory), .cr4 = CR4_PSE | 1 << 9);
		good = t.vector == operands[k].vector && !t.error && !((first[0] | last[1023]) & (PTE_A | PTE_D));
		if (!good)
			print("# %s: vector %u error 0x%x cr2 0x%x, marks 0x%x 0x%x\n", operands[k].name, t.vector,
			      t.error, t.cr2, first[0], last[1023]);
		check(good, "3A 5.3: %s outside long mode", operands[k].name);
	}
}

void guest(void)
{
	write_cr4(read_cr4() | 1 << 9); /* OSFXSR */
	prepare();
	for (unsigned n = 0; n < ARRAY_SIZE(ways); n++)
		for (unsigned k = 0; k < ARRAY_SIZE(operations); k++)
			test_strings(&ways[n], &operations[k]);
	test_operands(0, "at the end of all linear addresses");
	test_operands(0x40000001, "in a segment with a base");
	test_wrapping();
	test_code();
	test_breakpoints();
	test_legacy();
	finish();
}
