/*
 * Breakpoints on data and ports, SDM vol. 3B 17.2.4 and 17.2.5: every length at every address against every size of access, and every
 * kind of instruction that accesses memory: it must strike for the bytes it touches and for no other. (test_debug has the rest.)
 */
#include "guest.h"

#define DR6_NONE   0xffff0ff0
#define DR7_NONE   0x400
#define CR4_OSFXSR BIT(9)
#define MIDDLE	   512

enum { EXECUTE, WRITE, PORT, ACCESS };

static u8 memory[2048] __attribute__((aligned(64)));
static unsigned hits;
static u64 hit_dr6;

/* RF, so that REP goes on. */
static void on_debug(struct frame *f)
{
	hits++;
	hit_dr6 |= read_dr6();
	write_dr6(DR6_NONE);
	f->rflags |= FLAG_RF;
}

static u64 dr7_of(unsigned kind, unsigned length)
{
	static const u8 codes[9] = { [1] = 0, [2] = 1, [4] = 3, [8] = 2 };

	return DR7_NONE | 1 << 4 | (u64)kind << 24 | (u64)codes[length] << 26; /* DR2 */
}

static void watch(u64 address, unsigned kind, unsigned length)
{
	hits = 0;
	hit_dr6 = DR6_NONE;
	write_dr6(DR6_NONE);
	write_dr2(address);
	write_dr7(dr7_of(kind, length));
}

static bool struck(const struct trap *t)
{
	write_dr7(DR7_NONE);
	if (t->vector != END_VECTOR)
		print("# vector %lu at 0x%lx\n", t->vector, t->rip);
	return hits && hit_dr6 == (DR6_NONE | BIT(2));
}

/* ---- lengths ---- */

CODE(load_1, "mov (%rdi), %al")
CODE(load_2, "mov (%rdi), %ax")
CODE(load_4, "mov (%rdi), %eax")
CODE(load_8, "mov (%rdi), %rax")
CODE(store_1, "mov %al, (%rdi)")
CODE(store_2, "mov %ax, (%rdi)")
CODE(store_4, "mov %eax, (%rdi)")
CODE(store_8, "mov %rax, (%rdi)")

static void test_lengths(void)
{
	static const u8 *const loads[] = { load_1, load_2, load_4, load_8 };
	static const u8 *const stores[] = { store_1, store_2, store_4, store_8 };
	const int at = (int)(u64)memory + MIDDLE;

	for (unsigned length = 1; length <= 8; length *= 2) {
		bool good = true;

		for (int offset = 0; offset < 8; offset++)
			for (unsigned s = 0; s < 4; s++)
				for (int access = -8; access < 16; access++) {
					int size = 1 << s, start = offset & -(int)length;
					bool wanted = access < start + (int)length && access + size > start,
					     store = access & 1;
					struct trap t;

					watch((u64)(at + offset), store ? WRITE : ACCESS, length);
					t = KERNEL((store ? stores : loads)[s], .rdi = (u64)(at + access));
					if (struck(&t) == wanted)
						continue;
					good = false;
					print("# breakpoint at +%u, access of %u at +%u-8: %u hits\n", (unsigned)offset,
					      (unsigned)size, (unsigned)access + 8, hits);
				}
		check(good, "3B 17.2.5: breakpoints of %u bytes, aligned down, at all places", length);
	}
}

/* ---- instructions ---- */

/*
 * (name, instructions on RDI or RSP, from where to where they read, from where to where they write), relative to RDI. RSI is RDI +
 * 256, RCX 3, RAX 0.
 */
#define ROWS(_)                                                                                                        \
	_(movups_load, "movups (%rdi), %xmm0", 0, 16, 0, 0)                                                            \
	_(movups_store, "movups %xmm0, (%rdi)", 0, 0, 0, 16)                                                           \
	_(fld_80, "fninit; fldt (%rdi)", 0, 10, 0, 0)                                                                  \
	_(fstp_80, "fninit; fldz; fstpt (%rdi)", 0, 0, 0, 10)                                                          \
	_(fnstcw, "fnstcw (%rdi)", 0, 0, 0, 2)                                                                         \
	_(fnstenv, "fnstenv (%rdi)", 0, 0, 0, 28)                                                                      \
	_(fnsave, "fnsave (%rdi)", 0, 0, 0, 108)                                                                       \
	_(fxsave, "fxsave (%rdi)", 0, 0, 0, 416)                                                                       \
	_(stmxcsr, "stmxcsr (%rdi)", 0, 0, 0, 4)                                                                       \
	_(add_memory, "add %eax, (%rdi)", 0, 4, 0, 4)                                                                  \
	_(lock_add, "lock add %rax, (%rdi)", 0, 8, 0, 8)                                                               \
	_(cmp_memory, "cmp %eax, (%rdi)", 0, 4, 0, 0)                                                                  \
	_(xchg, "xchg %ax, (%rdi)", 0, 2, 0, 2)                                                                        \
	_(cmpxchg_fails, "mov $9, %al; cmpxchg %ecx, (%rdi)", 0, 4, 0, 4)                                              \
	_(cmpxchg8b, "xor %edx, %edx; cmpxchg8b (%rdi)", 0, 8, 0, 8)                                                   \
	_(bts_negative, "mov $-1, %rax; bts %rax, (%rdi)", -8, 0, -8, 0)                                               \
	_(push, "mov %rdi, %rsp; push %rax", 0, 0, -8, 0)                                                              \
	_(push_memory, "push (%rdi)", 0, 8, 0, 0)                                                                      \
	_(pop, "mov %rsp, %r8; mov %rdi, %rsp; pop %rax; mov %r8, %rsp", 0, 8, 0, 0)                                   \
	_(pop_memory, "push $0; pop (%rdi)", 0, 0, 0, 8)                                                               \
	_(call, "mov %rdi, %rsp; call 1f; 1:", 0, 0, -8, 0)                                                            \
	_(enter, "mov %rdi, %rsp; enter $0, $0", 0, 0, -8, 0)                                                          \
	_(leave, "mov %rsp, %r8; mov %rdi, %rbp; leave; mov %r8, %rsp", 0, 8, 0, 0)                                    \
	_(pushf, "mov %rdi, %rsp; pushf", 0, 0, -8, 0)                                                                 \
	_(movsl, "movsl", 256, 260, 0, 4)                                                                              \
	_(rep_movsw, "rep movsw", 256, 262, 0, 6)                                                                      \
	_(rep_stosl, "rep stosl", 0, 0, 0, 12)                                                                         \
	_(rep_stosb_down, "std; rep stosb; cld", 0, 0, -2, 1)                                                          \
	_(lodsq, "lodsq", 256, 264, 0, 0)                                                                              \
	_(cmpsb, "cmpsb", 0, 1, 0, 0)                                                                                  \
	_(scasw, "scasw", 0, 2, 0, 0)                                                                                  \
	_(xlat, "mov %rdi, %rbx; mov $3, %al; xlat", 3, 4, 0, 0)                                                       \
	_(lgs, "lgs (%rdi), %eax", 0, 6, 0, 0)                                                                         \
	_(mov_sreg, "mov %ds, (%rdi)", 0, 0, 0, 2)                                                                     \
	_(sgdt, "sgdt (%rdi)", 0, 0, 0, 10)                                                                            \
	_(movnti, "movnti %rax, (%rdi)", 0, 0, 0, 8)                                                                   \
	_(insb, "mov $0x80, %edx; insb", 0, 0, 0, 1)                                                                   \
	_(outsb, "mov $0x80, %edx; outsb", 256, 257, 0, 0)                                                             \
	_(lea, "lea (%rdi), %rax", 0, 0, 0, 0)                                                                         \
	_(nop_memory, "nopl (%rdi)", 0, 0, 0, 0)                                                                       \
	_(prefetch, "prefetcht0 (%rdi)", 0, 0, 0, 0)                                                                   \
	_(maskmovq, "mov $0x8000, %eax; movd %eax, %mm0; maskmovq %mm0, %mm0; emms", 0, 0, 1, 2)
#define _(name, text, ...) CODE(name, text)
ROWS(_)
#undef _

struct row {
	const char *name;
	const u8 *code;
	int read, read_end, write, write_end;
};

static bool strikes_at(const struct row *r, int offset, unsigned kind)
{
	u64 at = (u64)memory + MIDDLE;
	struct trap t;

	memset(memory, 0, sizeof(memory));
	watch(at + (u64)(long)offset, kind, 1);
	t = KERNEL(r->code, .rdi = at, .rsi = at + 256, .rcx = 3);
	return struck(&t);
}

static bool inside(int offset, int from, int to) { return offset >= from && offset < to; }

static void test_row(const struct row *r)
{
	const int places[] = { r->read - 1,  r->read,  r->read_end - 1,	 r->read_end,
			       r->write - 1, r->write, r->write_end - 1, r->write_end };
	bool good = true;

	for (unsigned n = 0; n < ARRAY_SIZE(places); n++) {
		int p = places[n];
		bool written = inside(p, r->write, r->write_end), read = inside(p, r->read, r->read_end);
		bool on_write = strikes_at(r, p, WRITE), on_access = strikes_at(r, p, ACCESS);

		if (on_write == written && on_access == (written || read))
			continue;
		good = false;
		print("# %s at %c%u: write breakpoint %u, wanted %u; access breakpoint %u, wanted %u\n", r->name,
		      p < 0 ? '-' : '+', (unsigned)(p < 0 ? -p : p), on_write, written, on_access, written || read);
	}
	check(good, "3B 17.2.5: %s: the bytes it touches and no other", r->name);
}

static void test_instructions(void)
{
#define _(name, text, ...) { #name, name, __VA_ARGS__ },
	static const struct row rows[] = { ROWS(_) };
#undef _

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++)
		test_row(&rows[n]);
}

/* ---- ports ---- */

CODE(in_1, "in %dx, %al")
CODE(in_2, "in %dx, %ax")
CODE(in_4, "in %dx, %eax")
CODE(out_1, "out %al, %dx")
CODE(rep_out, "rep outsb")

static void test_ports(void)
{
	static const u8 *const ins[] = { in_1, in_2, in_4 };
	bool good = true;
	struct trap t;

	write_cr4(read_cr4() | CR4_DE);
	for (unsigned length = 1; length <= 4; length *= 2)
		for (unsigned s = 0; s < 3; s++)
			for (unsigned port = 0x7c; port < 0x88; port++) {
				bool wanted = port < 0x80 + length && port + (1u << s) > 0x80;

				watch(0x80 + (port & 1 & (length > 1)), PORT, length);
				t = KERNEL(ins[s], .rdx = port);
				good &= struck(&t) == wanted;
			}
	check(good, "3B 17.2.5: breakpoints on ports, of 1, 2 and 4");
	watch(0x80, PORT, 1);
	t = KERNEL(out_1, .rdx = 0x80);
	check(struck(&t), "3B 17.2.5: OUT");
	watch(0x80, PORT, 1);
	t = KERNEL(rep_out, .rdx = 0x80, .rsi = (u64)memory, .rcx = 3);
	check(struck(&t) && hits == 3, "3B 17.2.5: REP OUTSB, behind each iteration");
	watch((u64)memory, PORT, 4);
	t = KERNEL(store_4, .rdi = (u64)memory);
	check(!struck(&t), "3B 17.2.5: a port's breakpoint is none on memory");
	watch(0x80, WRITE, 1);
	t = KERNEL(out_1, .rdx = 0x80);
	check(!struck(&t), "3B 17.2.5: nor the other way");
	write_cr4(read_cr4() & ~CR4_DE);
	watch(0x80, PORT, 1);
	t = KERNEL(out_1, .rdx = 0x80);
	check(!struck(&t), "3B 17.2.4: without CR4.DE there are none on ports");
}

/* ---- registers ---- */

static void test_registers(void)
{
	static const u64 patterns[] = { 0, 0xffffffff, 0x155, 0x2aa, 0xffff0000, 0x2000, 0xdc00 };
	bool good = true;

	for (unsigned n = 0; n < ARRAY_SIZE(patterns); n++) {
		u64 value = patterns[n] & ~0xffull; /* none enabled, GD off */

		write_dr7(value & ~BIT(13));
		good &= read_dr7() == ((value & 0xffff0300 & ~BIT(13)) | 0x400);
	}
	check(good, "3B 17.2.4: DR7: bits 10, 11, 12, 14, 15 are fixed");
	write_dr7(DR7_NONE);
	write_dr6(0xffffffff);
	check_equal(read_dr6(), 0xffffefff,
		    "3B 17.2.3: DR6: bit 12 is 0, the other reserved ones are 1, RTM and BLD among them");
	write_dr6(0);
	check_equal(read_dr6(), DR6_NONE, "3B 17.2.3: whatever is written");
	write_dr0(~0ull);
	write_dr3(0x123456789abcdef0);
	good = true;
	asm volatile("mov %%db0, %%rax; cmp $-1, %%rax; sete %0" : "=r"(good)::"rax", "cc");
	check(good, "3B 17.2.1: DR0 has 64 bits");
}

void guest(void)
{
	write_cr4(read_cr4() | CR4_OSFXSR);
	set_handler(EXC_DB, on_debug);
	test_lengths();
	test_instructions();
	test_ports();
	test_registers();
}
