/*
 * More code than an engine has room for what it knows about it: more kinds of vector instructions, more instructions, more blocks,
 * by turns, so that all is forgotten in the middle of everything else. What ran before goes on as before, in every mode, also
 * instruction by instruction.
 */
#include "guest.h"

#define CR4_OSFXSR BIT(9)
#define NOWHERE	   0xd0000000ull /* no memory: reads ones, and no engine can do it without asking */
#define KINDS	   20000
#define BATCH	   50
#define PLAIN_SIZE (64u << 10)
#define PLAIN_PART (16u << 10)

static u8 plain[PLAIN_SIZE + 16] __attribute__((aligned(4096)));
static u8 vectors[4096] __attribute__((aligned(4096)));
static struct {
	u64 low, high;
} out __attribute__((aligned(16)));

/* Adds the first word of memory to RAX, by way of vector registers, which are all ones in the end. */
#define KEPT                                                                                                           \
	"movdqu (%" SI "), %xmm1\nmovdqu (%" DI "), %xmm2\npand %xmm2, %xmm1\nmovd %xmm1, %ecx\nadd %ecx, %eax\n"      \
	"pcmpeqd %xmm1, %xmm1\npcmpeqd %xmm2, %xmm2"
#define KEPT_INSTRUCTIONS 7
#define SI		  "rsi"
#define DI		  "rdi"
CODE(kept, KEPT)
#undef SI
#undef DI
#define SI "esi"
#define DI "edi"
CODE32(kept_32, KEPT)

static unsigned steps;

static void count_step(struct frame *f)
{
	(void)f;
	steps++;
}

static void run_kept(const char *after, unsigned n)
{
	const u64 number = 0x11110000 + n;
	struct trap t, user, user_32, stepped;

	out.low = number;
	t = KERNEL(kept, .rdi = NOWHERE, .rsi = (u64)&out, .rax = 1);
	user = USER_MODE(kept, .rdi = USER(&out), .rsi = USER(&out), .rax = 2);
	asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(USER_DS));
	user_32 = USER_MODE(kept_32, .cs = USER_CS32, .rdi = USER(&out), .rsi = USER(&out), .rax = 3);
	steps = 0;
	set_handler(EXC_DB, count_step);
	stepped = KERNEL(kept, .rdi = NOWHERE, .rsi = (u64)&out, .rax = 4, .rflags = 2 | FLAG_TF);
	set_handler(EXC_DB, NULL);
	check(t.vector == END_VECTOR && t.rax == number + 1 && user.vector == END_VECTOR && user.rax == number + 2 &&
		      user_32.vector == END_VECTOR && user_32.rax == number + 3,
	      "what was there before, after %s %u", after, n);
	check(stepped.vector == END_VECTOR && stepped.rax == number + 4 && steps == KEPT_INSTRUCTIONS,
	      "3B 17.3.1.4: and in single steps, %u", steps);
}

static void call(const void *code, u64 from, void *to)
{
	asm volatile("call *%0" ::"r"(code), "D"(from), "S"(to) : "rax", "memory");
}

/* PSHUFD, PSHUFHW, PSHUFLW, SHUFPD, SHUFPS $imm, (%rdi), %xmmN: of all ones they make all ones. A kind for each n. */
static u8 *put_kind(u8 *at, unsigned n)
{
	static const u8 prefixes[] = { 0x66, 0xf3, 0xf2, 0x66, 0x3e }, opcodes[] = { 0x70, 0x70, 0x70, 0xc6, 0xc6 };
	unsigned which = n / 4096 % ARRAY_SIZE(opcodes);
	const u8 bytes[] = { prefixes[which], 0x40 | (n & 8) >> 1, 0x0f,
			     opcodes[which],  0x07 | (n & 7) << 3, (u8)(n >> 4) };

	memcpy(at, bytes, sizeof(bytes));
	return at + sizeof(bytes);
}

/* Kinds first, first + 1 ...; the last one's register to (%rsi). */
static void make_kinds(unsigned first)
{
	u8 *at = vectors;
	unsigned last = 0;

	for (unsigned n = first; n < first + BATCH; n++) {
		at = put_kind(at, n);
		last = n & 15;
	}
	/* MOVDQU %xmmN, (%rsi); RET */
	memcpy(at, (const u8[]){ 0xf3, 0x40 | (last & 8) >> 1, 0x0f, 0x7f, 0x06 | (last & 7) << 3, 0xc3 }, 6);
}

static bool run_kinds(void)
{
	out.low = out.high = 0;
	call(vectors, NOWHERE, &out);
	return out.low == ~0ull && out.high == ~0ull;
}

/* What replaced old code is run, then much else, which takes the place of what was forgotten, then it again. */
static bool run_twice(void)
{
	bool good = run_kinds();

	call(plain + PLAIN_SIZE - PLAIN_PART, 0, NULL);
	return run_kinds() && good;
}

static void test_kinds(void)
{
	unsigned wrong = 0;

	for (unsigned n = 0; n < KINDS; n += BATCH) {
		make_kinds(n);
		wrong += !run_twice();
		if (n % (KINDS / 8) == 0)
			run_kept("kinds of instructions:", n);
	}
	check_equal(wrong, 0, "vector instructions of all kinds");
}

/* INC %eax, again and again. Each time that it runs somewhere else in between the kinds have run. */
static void test_plain(void)
{
	u64 sum;

	for (unsigned n = 0; n < 3; n++) {
		asm volatile("call *%1" : "=a"(sum) : "r"(plain), "a"(n) : "memory");
		check_equal(sum, PLAIN_SIZE / 2 + n, "many instructions");
		run_kept("many instructions,", n);
		/* In the middle something changes, and what was known of it is replaced. */
		plain[PLAIN_SIZE / 2 + 1] = n & 1 ? 0xc0 : 0xc8; /* DEC %eax */
		asm volatile("call *%1" : "=a"(sum) : "r"(plain), "a"(n) : "memory");
		check_equal(sum, PLAIN_SIZE / 2 + n - (n & 1 ? 0 : 2), "one of which has changed");
		plain[PLAIN_SIZE / 2 + 1] = 0xc0;
	}
}

void guest(void)
{
	write_cr4(read_cr4() | CR4_OSFXSR);
	write_cr0((read_cr0() & ~(CR0_EM | BIT(3))) | CR0_MP);
	for (unsigned n = 0; n < PLAIN_SIZE; n += 2)
		memcpy(plain + n, (const u8[]){ 0xff, 0xc0 }, 2);
	plain[PLAIN_SIZE] = 0xc3;
	run_kept("nothing,", 0);
	test_kinds();
	test_plain();
	run_kept("everything,", 1);
}
