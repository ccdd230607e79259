/*
 * Code that changes while it runs, SDM vol. 3A 8.1.3 and 11.6: by the next instruction, from far and near, through every kind
 * of store, through another linear address, by remapping, by an interrupt handler and by another processor.
 */
#include "guest.h"

#define T	   0x8000000000ull
#define PAGE	   4096ull
#define CR4_OSFXSR BIT(9)
#define B	   0x70

static u8 *page, *page_2; /* frames for code, identity-mapped; also mapped one after the other at T */

static const u8 return_1[] = { 0xb8, 1, 0, 0, 0, 0xc3 }; /* mov $1, %eax; ret */

typedef u32 code_fn(void);
#define CALL(at) (((code_fn *)(u64)(at))())

static void put(void *at, u8 number)
{
	memcpy(at, return_1, sizeof(return_1));
	((u8 *)at)[1] = number;
}

/* ---- the store is near ---- */

CODE(next, "movb $2, 1f+1(%rip)\n1: mov $1, %eax")
CODE(ahead, "movb $7, 1f+1(%rip)\nmov $1, %ecx\nadd %ecx, %ecx\nlea (%rcx,%rcx), %edx\nnop\n1: mov $1, %eax")
CODE(backwards,
     "xor %eax, %eax; xor %ecx, %ecx\n1: add $0x11111111, %eax\nmov %ecx, 1b+1(%rip)\ninc %ecx\ncmp $10, %ecx\njne 1b")
CODE(own_bytes, "1: movb $0x90, 1b(%rip)\nmov $3, %eax") /* changes its own first byte */
CODE(opcode, "movb $0xb9, 1f(%rip)\n1: mov $5, %eax")	 /* to mov $5, %ecx */
CODE(longer, "movl $0x0000b890, 1f(%rip)\n1: nop; nop; nop; nop; nop; nop; nop; nop")
CODE(jump_target, "movb $2f-1f-2, 1f+1(%rip)\n1: jmp 3f\n2: mov $1, %eax; int $0x40; 3: mov $2, %eax")
CODE(rep_over, "rep movsb\n" LABEL(rep_over_1) "mov $1, %eax; mov $1, %ecx; mov $1, %edx")
CODE(rep_next, "mov $0xb8, %al; stosb\n" LABEL(rep_next_1) ".byte 0xb9; .long 6")
CODE(call_over, "mov %rsp, %rbp; lea 1f+10(%rip), %rsp; call 2f\n2: mov %rbp, %rsp\n1: movabs $0x1111111111111111, "
		"%rax; lea 2b(%rip), %rcx")
extern const u8 rep_over_1[], rep_next_1[];

/* Each runs twice from fresh bytes: the second time the processor (and an engine) knows the code. */
static struct trap run_copy(const u8 *code, u64 rdi, u64 rsi, u64 rcx)
{
	struct trap t;

	for (unsigned n = 0; n < 2; n++) {
		memcpy(page, code, 256);
		t = KERNEL(page, .rdi = rdi, .rsi = rsi, .rcx = rcx, .rax = 0, .rdx = 0);
	}
	return t;
}

static void test_near(void)
{
	static const u8 sevens[] = { 0xb8, 7, 0, 0, 0, 0xb9, 7, 0, 0, 0, 0xba, 7, 0, 0, 0 };
	struct trap t;

	t = run_copy(next, 0, 0, 0);
	check_equal(t.rax, 2, "3A 11.6: a store into the next instruction");
	t = run_copy(ahead, 0, 0, 0);
	check_equal(t.rax, 7, "3A 11.6: into one a few further");
	t = run_copy(backwards, 0, 0, 0);
	check_equal((u32)t.rax, 0x11111111 + 0 + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8, "3A 11.6: backwards, in a loop");
	t = run_copy(own_bytes, 0, 0, 0);
	check(t.vector == END_VECTOR && t.rax == 3 && page[0] == 0x90, "3A 11.6: into itself: it is done as it was");
	t = run_copy(opcode, 0, 0, 0);
	check(t.rax == 0 && t.rcx == 5, "3A 11.6: another opcode");
	t = run_copy(longer, 0, 0, 0);
	check_equal((u32)t.rax, 0x90900000, "3A 11.6: a longer instruction than there was");
	t = run_copy(jump_target, 0, 0, 0);
	check_equal(t.rax, 1, "3A 11.6: a jump's displacement");
	t = run_copy(rep_over, (u64)page + (u64)(rep_over_1 - rep_over), (u64)sevens, sizeof(sevens));
	check(t.rax == 7 && t.rcx == 7 && t.rdx == 7, "3A 11.6: REP MOVSB over what follows it");
	t = run_copy(rep_next, (u64)page + (u64)(rep_next_1 - rep_next), 0, 0);
	check(t.rax == 6, "3A 11.6: STOSB into the next instruction");
	t = run_copy(call_over, 0, 0, 0);
	check(t.vector == END_VECTOR && t.rax == t.rcx, "3A 11.6: a return address pushed over code");
}

/* ---- every kind of store ---- */

#define STORES(_)                                                                                                      \
	_(mov_8, "movb $9, (%rdi)")                                                                                    \
	_(mov_16, "movw $9, (%rdi)")                                                                                   \
	_(mov_32, "movl $9, (%rdi)")                                                                                   \
	_(mov_64, "mov -8(%rdi), %rax; mov %rax, -8(%rdi); mov (%rdi), %rax; mov $9, %al; mov %rax, (%rdi)")           \
	_(stosb, "mov $9, %al; stosb")                                                                                 \
	_(movsb, "lea 1f(%rip), %rsi; movsb; jmp 2f; 1: .byte 9; 2:")                                                  \
	_(xchg, "mov $9, %eax; xchg %al, (%rdi)")                                                                      \
	_(add, "addb $8, (%rdi)")                                                                                      \
	_(lock_add, "lock addb $8, (%rdi)")                                                                            \
	_(lock_xadd, "mov $8, %eax; lock xadd %eax, (%rdi)")                                                           \
	_(inc, "incb (%rdi); addb $7, (%rdi)")                                                                         \
	_(lock_cmpxchg, "mov $1, %eax; mov $9, %ecx; lock cmpxchg %ecx, (%rdi)")                                       \
	_(bts, "btsl $3, (%rdi)")                                                                                      \
	_(lock_bts, "lock btsl $3, (%rdi)")                                                                            \
	_(neg, "movb $-9, (%rdi); negb (%rdi)")                                                                        \
	_(shl, "shlb $3, (%rdi); orb $1, (%rdi)")                                                                      \
	_(setcc, "stc; setc (%rdi); addb $8, (%rdi)")                                                                  \
	_(pop, "mov (%rdi), %rax; mov $9, %al; push %rax; pop (%rdi)")                                                 \
	_(push, "mov (%rdi), %rax; mov $9, %al; mov %rsp, %rbp; lea 8(%rdi), %rsp; push %rax; mov %rbp, %rsp")         \
	_(movnti, "mov (%rdi), %rax; mov $9, %al; movnti %rax, (%rdi)")                                                \
	_(cmpxchg8b,                                                                                                   \
	  "mov (%rdi), %eax; mov 4(%rdi), %edx; mov %edx, %ecx; mov %eax, %ebx; mov $9, %bl; lock cmpxchg8b (%rdi)")   \
	_(movups, "mov (%rdi), %rax; mov 8(%rdi), %rdx; mov $9, %al; push %rdx; push %rax; movups (%rsp), %xmm0; "     \
		  "movups %xmm0, (%rdi); pop %rax; pop %rax")                                                          \
	_(movq, "mov (%rdi), %rax; mov $9, %al; movq %rax, %xmm0; movq %xmm0, (%rdi)")                                 \
	_(maskmov, "mov $9, %eax; movd %eax, %xmm0; mov $0x80, %eax; movd %eax, %xmm1; maskmovdqu %xmm1, %xmm0")       \
	_(fistp, "movl $9, %eax; push %rax; fninit; fildl (%rsp); pop %rax; fistps (%rdi)")                            \
	_(rep_stosl, "mov $9, %eax; mov $1, %ecx; rep stosl")

#define _(name, text) CODE(store_##name, text)
STORES(_)
#undef _
CODE(store_cx16,
     "mov (%rdi), %rax; mov 8(%rdi), %rdx; mov %rax, %rbx; mov %rdx, %rcx; mov $9, %bl; lock cmpxchg16b (%rdi)")

/* Code that has run is changed, as a target that the store's own code knows nothing of, and run again. */
static bool changes(const u8 *store, u8 *target)
{
	struct trap t;

	put(target - 1, 1);
	for (unsigned n = 0; n < 3; n++)
		CALL(target - 1);
	t = KERNEL(store, .rdi = (u64)target);
	return t.vector == END_VECTOR && CALL(target - 1) == 9;
}

static void test_stores(void)
{
	static const struct {
		const u8 *code;
		const char *name;
	} all[] = {
#define _(name, text) { store_##name, #name },
		STORES(_)
#undef _
			{ store_cx16, "cmpxchg16b" },
	};
	u64 cr4 = read_cr4();

	write_cr4(cr4 | CR4_OSFXSR);
	for (unsigned n = 0; n < ARRAY_SIZE(all); n++) {
		if (all[n].code == store_cx16 && !has_cx16())
			continue;
		check(changes(all[n].code, page + 0x110), "3A 11.6: code changed by %s", all[n].name);
	}
	write_cr4(cr4);
	/* Over a page boundary: the second page's first bytes are what is code. */
	u8 *both = (u8 *)T;

	map_page(T, (u64)page, PTE_P | PTE_W);
	map_page(T + PAGE, (u64)page_2, PTE_P | PTE_W);
	for (unsigned n = 1; n < 6; n++) {
		u8 *code = both + PAGE - n;

		put(code, 1);
		CALL(code);
		CALL(code);
		*(volatile u32 *)(code + 1) = 0x01020304 * n;
		check_equal(CALL(code), 0x01020304 * n, "3A 11.6: an instruction over a page boundary, changed: %u", n);
		if (n < 5 && n > 1) {
			*(volatile u8 *)(both + PAGE) = 0x55;
			check(CALL(code) != 0x01020304 * n, "3A 11.6: and in the second page alone: %u", n);
		}
	}
}

/* What the processor itself pushes may be code, too. */
CODE(int_there, "mov %rsp, %rbp; mov %rdi, %rsp; int $0x50; mov %rbp, %rsp")
static void do_nothing(struct frame *f) { (void)f; }

static void test_pushed(void)
{
	u8 *code = page + 0x800; /* the frame of an INT with RSP = code + 16 begins with SS, at code + 8 */
	struct trap t;

	static u32 target[64] __attribute__((aligned(256)));

	memset(code, 0x90, 16);
	memcpy(code + 16, "\xcd\x40", 2); /* int $0x40 */
	KERNEL(code + 8);
	set_handler(0x50, do_nothing);
	t = KERNEL(int_there, .rdi = (u64)code + 16);
	set_handler(0x50, NULL);
	check(t.vector == END_VECTOR && *(u64 *)(code + 8) == KERNEL_DS, "3A 11.6: a frame pushed over code");
	/* SS is 0x18: 18 00 is SBB %al, (%rax); 00 00 is ADD %al, (%rax). */
	target[0] = 100;
	t = KERNEL(code + 8, .rax = (u64)target + 1);
	check(t.vector == END_VECTOR && target[0] == 100 + (2 << 8), "3A 11.6: is executed as what it is");
}

/* ---- many times ---- */

static void test_loops(void)
{
	volatile u32 *counter = (u32 *)(page + 0x400);
	bool good = true;

	for (u32 n = 0; n < 2000; n++) {
		*(volatile u32 *)(page + 1) = n;
		if (!n)
			put(page, 0);
		*(volatile u32 *)(page + 1) = n;
		good &= CALL(page) == n;
	}
	check(good, "3A 11.6: a function changed and called 2000 times");

	good = true;
	put(page, 5);
	*counter = 0;
	for (u32 n = 0; n < 10000; n++) {
		good &= CALL(page) == 5;
		++*counter;
	}
	check(good && *counter == 10000, "3A 11.6: data on the same page as code");
	for (u32 n = 0; n < 5000; n++) {
		good &= CALL(page) == 5;
		page[0x10 + n % 16] = (u8)n;
	}
	check(good, "3A 11.6: and in the same cache line");

	for (unsigned n = 0; n < 64; n++)
		put(page + 64 * n, (u8)n);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned n = 0; n < 64; n++)
			good &= CALL(page + 64 * n) == (u8)(n + round);
		for (unsigned n = 0; n < 64; n++)
			put(page + 64 * n, (u8)(n + round + 1));
	}
	check(good, "3A 11.6: 64 functions of a page, all written anew 20 times");
}

/* ---- other addresses ---- */

CODE(where_am_i, "lea where_am_i(%rip), %rax")

static void serialize(void) { cpuid(0, 0); }

static void test_aliases(void)
{
	u64 alias = T + 4 * PAGE, second = T + 5 * PAGE;
	struct trap a, b;
	bool good = true;

	map_page(alias, (u64)page, PTE_P | PTE_W);
	map_page(second, (u64)page, PTE_P | PTE_W);
	put(page, 1);
	for (u32 n = 0; n < 200; n++) {
		*(volatile u8 *)(alias + 1) = (u8)n;
		serialize();
		good &= CALL(page) == (u8)n;
		good &= CALL(second) == (u8)n;
	}
	check(good, "3A 11.6: code written through another linear address, then CPUID");

	memcpy(page, where_am_i, 32);
	for (unsigned n = 0; n < 3; n++) {
		a = KERNEL(alias);
		b = KERNEL(second);
		good &= a.rax == alias && b.rax == second;
	}
	check(good, "1 3.5.1: RIP-relative addresses of one page at two places");

	/* Another frame behind the same address. */
	put(page, 1);
	put(page_2, 2);
	for (unsigned n = 0; n < 100; n++) {
		map_page(alias, (u64)(n & 1 ? page_2 : page), PTE_P | PTE_W);
		good &= CALL(alias) == (n & 1) + 1;
	}
	check(good, "3A 4.10.4: other code at the same address after INVLPG");
	u64 old = read_cr3(), other = address_space();
	u64 top_entry = *entry_of(T, 4);

	map_page(alias, (u64)page, PTE_P | PTE_W);
	write_cr3(other);
	*entry_of(T, 4) = 0;
	flush_tlb();
	map_page(alias, (u64)page_2, PTE_P | PTE_W);
	for (unsigned n = 0; n < 100; n++) {
		write_cr3(n & 1 ? other : old);
		good &= CALL(alias) == (n & 1) + 1;
	}
	write_cr3(old);
	check(good && *entry_of(T, 4) == top_entry, "3A 4.10.4: and in two address spaces");
	/* The frame freed and used for something else, then for code again. */
	memset(page, 0xcc, PAGE);
	put(page, 77);
	check_equal(CALL(alias), 77, "3A 11.6: a page filled, then given code");
}

/* The mode belongs to the meaning of bytes: the same ones as 64-bit and as 32-bit code. */
CODE(two_modes, ".byte 0x48; nop") /* REX.W NOP, or DEC EAX; NOP */

static void test_modes(void)
{
	bool good = true;

	for (unsigned n = 0; n < 10; n++) {
		struct trap t = KERNEL(two_modes, .rax = 5, .cs = n & 1 ? KERNEL_CS32 : KERNEL_CS);

		good &= t.vector == END_VECTOR && t.rax == (n & 1 ? 4 : 5);
	}
	check(good, "3A 2.2: the same bytes as 64-bit and as 32-bit code");
}

/* ---- changed from outside of the loop that runs ---- */

CODE(endless, "1: jmp 1b\nmov $1, %eax")
CODE(endless_calls, "1: call 2f; jmp 1b; 2: ret")

static void patch(struct frame *f)
{
	(void)f;
	*(volatile u16 *)page = 0x9090;
	apic_eoi();
}

static void arm(handler_fn *fn)
{
	set_handler(B, fn);
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, B);
	apic_write(APIC_TIMER_INITIAL, 300000);
}

static void test_interrupt(void)
{
	struct trap t;

	memcpy(page, endless, 32);
	arm(patch);
	t = KERNEL(page, .rflags = 2 | FLAG_IF);
	check(t.vector == END_VECTOR && t.rax == 1, "3A 11.6: a handler patches the loop that it interrupted");
	set_handler(B, NULL);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

/* ---- two processors (8.1.3) ---- */

static volatile u32 turn, rounds_good;
#define ROUNDS 300

/* The documented way: the writer finishes and sets a flag, the other sees it, serializes, executes. */
static void execute_in_turn(u64 unused_argument)
{
	(void)unused_argument;
	for (u32 n = 1; n <= ROUNDS; n++) {
		while (turn != 2 * n - 1)
			cpu_pause();
		serialize();
		if (CALL(page) == n)
			rounds_good++;
		turn = 2 * n;
	}
}

static volatile u32 stop, seen_old, seen_new, seen_other;

static void execute_always(u64 unused_argument)
{
	(void)unused_argument;
	while (!stop) {
		u32 value = CALL(page);

		if (value == 0x01010101)
			seen_old = 1;
		else if (value == 0x02010101)
			seen_new = 1;
		else
			seen_other = value;
	}
}

static volatile u32 breakpoints;

static void over_breakpoint(struct frame *f)
{
	breakpoints++;
	f->rip--; /* try again */
	cpu_pause();
}

static volatile u32 synchronised;

static void synchronise(struct frame *f)
{
	(void)f;
	serialize();
	__atomic_fetch_add(&synchronised, 1, __ATOMIC_SEQ_CST);
	apic_eoi();
}

static void execute_patched(u64 unused_argument)
{
	(void)unused_argument;
	interrupts_on();
	while (!stop) {
		u32 value = CALL(page);

		if (value != 3 && value != 0x04040404)
			seen_other = value;
	}
	interrupts_off();
}

static void everybody_serializes(void)
{
	synchronised = 0;
	apic_ipi(0, ICR_OTHERS | B);
	while (synchronised != cpus_online() - 1)
		cpu_pause();
}

/* As Linux patches running code: a breakpoint over the first byte, then the rest, then the first byte. */
static void patch_with_breakpoint(u8 opcode, u32 rest)
{
	*(volatile u8 *)page = 0xcc;
	everybody_serializes();
	*(volatile u32 *)(page + 1) = rest;
	everybody_serializes();
	*(volatile u8 *)page = opcode;
	everybody_serializes();
}

static void test_processors(void)
{
	put(page, 0);
	turn = 0;
	smp_run(1, execute_in_turn, 0);
	for (u32 n = 1; n <= ROUNDS; n++) {
		*(volatile u32 *)(page + 1) = n;
		turn = 2 * n - 1;
		while (turn != 2 * n)
			cpu_pause();
	}
	smp_wait(1);
	check_equal(rounds_good, ROUNDS, "3A 8.1.3: code that another processor wrote, by the documented protocol");

	/* One byte of an instruction that the other executes all the time: old or new, never anything else. */
	*(volatile u32 *)(page + 1) = 0x01010101;
	stop = 0;
	smp_run(1, execute_always, 0);
	for (u64 n = 0; n < 100000 && !(seen_old && seen_new && n > 50); n++) {
		delay_us(100);
		*(volatile u8 *)(page + 4) = n & 1 ? 1 : 2;
	}
	stop = 1;
	smp_wait(1);
	check(seen_old && seen_new && !seen_other, "3A 8.1.3: one byte changed under the other's feet is seen");
	if (seen_other)
		print("# 0x%x\n", seen_other);

	seen_other = 0;
	put(page, 3);
	set_handler(EXC_BP, over_breakpoint);
	set_handler(B, synchronise);
	stop = 0;
	for (unsigned n = 1; n < cpus_online(); n++)
		smp_run(n, execute_patched, 0);
	for (unsigned n = 0; n < 50; n++)
		patch_with_breakpoint(0xb8, n & 1 ? 3 : 0x04040404);
	stop = 1;
	for (unsigned n = 1; n < cpus_online(); n++)
		smp_wait(n);
	check(!seen_other, "3A 8.1.3: instructions replaced behind a breakpoint, %s", "as kernels do it");
	set_handler(EXC_BP, NULL);
	set_handler(B, NULL);
}

void guest(void)
{
	page = frame_alloc();
	page_2 = frame_alloc();
	test_near();
	test_stores();
	test_pushed();
	test_loops();
	test_aliases();
	test_modes();
	test_interrupt();
	if (smp_start() > 1)
		test_processors();
}
