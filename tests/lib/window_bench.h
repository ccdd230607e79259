/*
 * The translator's windows with a vCPU, RAM and page tables of its own: accesses are done as translated code does them, with a SIGSEGV
 * handler as the engine's. The test file defines _GNU_SOURCE.
 */
#ifndef TESTS_WINDOW_BENCH_H
#define TESTS_WINDOW_BENCH_H

#include "lib/bare_cpu.h"

#include "engine/bt/window_private.h"

#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>

/* Guest physical: tables, then data. */
#define PML4	   0x10000ull
#define PML4_B	   0x11000ull
#define PML4_C	   0x12000ull
#define PDPT_U	   0x13000ull
#define PD_U	   0x14000ull
#define PT_U	   0x15000ull
#define PDPT_B	   0x16000ull
#define PD_B	   0x17000ull
#define PT_B	   0x18000ull
#define PDPT_K	   0x19000ull
#define PD_K	   0x1a000ull
#define PT_K	   0x1b000ull
#define PT_U2	   0x1c000ull
#define PT_K2	   0x1d000ull
#define TABLES_END 0x1e000ull
#define DATA	   0x200000ull
#define DEVICE	   0xa0000ull
#define NOWHERE	   0xff000000ull

#define USER	   0x0000000000400000ull /* linear addresses: what PT_U maps */
#define KERNEL	   0xffff888000000000ull /* what PT_K maps */
#define LARGE	   (KERNEL + (16ull << 21))
#define LARGE_STEP (1ull << 21)
#define FLAGS_LEAF (PTE_P | PTE_W | PTE_A)
#define FLAGS_ALL  (PTE_P | PTE_W | PTE_U | PTE_A)

struct bench {
	struct bare_cpu *b;
	struct vcpu *v;
	struct bt_windows *w;
	struct engine engine; /* with nothing in it but the windows */
};

/* ---- accesses ---- */

struct attempt {
	struct bt_windows *w;
	struct vcpu *v;
	volatile uint64_t slow; /* where to go on after WINDOW_SLOW; 0: no access under way */
	unsigned faults;
};

static _Thread_local struct attempt attempt;

static void on_segv(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t at = regs[REG_TRAPNO] == EXC_PF ? (uint64_t)(uintptr_t)info->si_addr : 0;

	(void)signal;
	if (!attempt.slow)
		abort();
	attempt.faults++;
	if (bt_windows_fault(attempt.w, attempt.v, at, regs[REG_ERR] & PF_W) == WINDOW_SLOW)
		regs[REG_RIP] = (greg_t)attempt.slow;
}

static inline void install_handler(void)
{
	struct sigaction action = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t stack = { .ss_sp = malloc(65536), .ss_size = 65536 };

	assert_non_null(stack.ss_sp);
	assert_int_equal(sigaltstack(&stack, NULL), 0);
	assert_int_equal(sigaction(SIGSEGV, &action, NULL), 0);
}

static inline void remove_handler(void)
{
	stack_t stack;

	signal(SIGSEGV, SIG_DFL);
	sigaltstack(&(stack_t){ .ss_flags = SS_DISABLE }, &stack);
	free(stack.ss_sp);
}

/* One 8-byte access of a host address, in assembly because sanitizers would look at the address first. False: WINDOW_SLOW. */
#define ACCESS_HOST(insn, at, value)                                                                                   \
	({                                                                                                             \
		bool slow_ = true;                                                                                     \
		uint64_t scratch_;                                                                                     \
		__asm__ volatile("leaq 1f(%%rip), %0\n\tmovq %0, %1\n\t" insn "\n\tmovb $0, %2\n1:\n\tmovq $0, %1"     \
				 : "=&r"(scratch_), "+m"(attempt.slow), "+m"(slow_), "+r"(value)                       \
				 : "r"(at)                                                                             \
				 : "memory");                                                                          \
		!slow_;                                                                                                \
	})

static inline bool read_host(uint64_t at, uint64_t *value)
{
	uint64_t got = 0;
	bool ok = ACCESS_HOST("movq (%4), %3", at, got);

	*value = got;
	return ok;
}

static inline bool write_host(uint64_t at, uint64_t value) { return ACCESS_HOST("movq %3, (%4)", at, value); }

/* Where translated code would access. */
static inline uint64_t host_address(const struct slot_table *t, uint64_t lin)
{
	int64_t slot = (int64_t)lin >> SLOT_SHIFT;

	return lin + *(uint64_t *)(uintptr_t)(t->r15 - SLOT_SHIFT + (uint64_t)(slot * 8));
}

/* As translated code does it, from asking for the table on. False: WINDOW_SLOW. */
static inline bool translated(struct bt_windows *w, struct vcpu *v, uint64_t lin, bool write, uint64_t *value)
{
	const struct slot_table *t = bt_windows_table(w, v);
	uint64_t at;

	assert_non_null(t);
	attempt.w = w;
	attempt.v = v;
	at = host_address(t, lin);
	return write ? write_host(at, *value) : read_host(at, value);
}

/* A hint, and what was missed is looked for. */
static inline enum window_result touch(struct bt_windows *w, struct vcpu *v, uint64_t lin, bool write)
{
	bt_windows_missed(w, v, lin, write);
	return bt_windows_fill_missed(w, v);
}

/* With what the engine does for WINDOW_SLOW: the access, which marks its page, and a hint. Then once more. */
static inline bool translated_twice(struct bt_windows *w, struct vcpu *v, uint64_t lin, bool write, uint64_t *value)
{
	struct page_walk walk;
	struct fault fault;

	if (translated(w, v, lin, write, value))
		return true;
	bt_windows_missed(w, v, lin, write);
	if (!cpu_walk(v, gva(lin), write ? ACCESS_WRITE : ACCESS_READ, v->tlb_view == TLB_USER,
		      v->tlb_view == TLB_KERNEL_AC, &walk, &fault))
		bt_windows_fill_missed(w, v);
	return translated(w, v, lin, write, value);
}

static inline void reads(struct bench *b, uint64_t lin, uint64_t expected)
{
	uint64_t value = ~expected;

	if (!translated_twice(b->w, b->v, lin, false, &value))
		fail_msg("read of %#lx went the slow way", lin);
	assert_int_equal(value, expected);
}

static inline void writes(struct bench *b, uint64_t lin, uint64_t value)
{
	if (!translated_twice(b->w, b->v, lin, true, &value))
		fail_msg("write of %#lx went the slow way", lin);
}

static inline void is_slow(struct bench *b, uint64_t lin, bool write)
{
	uint64_t value = 0x510e510e;

	if (translated_twice(b->w, b->v, lin, write, &value))
		fail_msg("%s of %#lx was not to succeed", write ? "write" : "read", lin);
}

/* ---- a guest ---- */

static inline void set_cpl(struct vcpu *v, unsigned cpl)
{
	v->s.seg_attr[SS] = (uint16_t)((v->s.seg_attr[SS] & ~ATTR_DPL) | cpl << ATTR_DPL_SHIFT);
	cpu_update_mode(v);
}

static inline void set_ac(struct vcpu *v, bool on)
{
	v->s.rflags = on ? v->s.rflags | FLAG_AC : v->s.rflags & ~FLAG_AC;
	cpu_update_mode(v);
}

static inline void poke(struct bench *b, uint64_t at, uint64_t value)
{
	/* As a guest's own store would: not through mem_write, which would tell about code. */
	__atomic_store_n((uint64_t *)mem_map(b->b->mem, gpa(at), 8, true), value, __ATOMIC_SEQ_CST);
}

static inline uint64_t peek(struct bench *b, uint64_t at) { return get(b->b, at, 8); }

static inline uint64_t data(unsigned page) { return DATA + (uint64_t)page * PAGE_SIZE; }

/* User page n at USER, kernel page n at KERNEL. */
static inline uint64_t user(unsigned n) { return USER + (uint64_t)n * PAGE_SIZE; }
static inline uint64_t kernel(unsigned n) { return KERNEL + (uint64_t)n * PAGE_SIZE; }
static inline uint64_t user_entry(unsigned n) { return PT_U + 8ull * n; }
static inline uint64_t kernel_entry(unsigned n) { return PT_K + 8ull * n; }
static inline uint64_t pml4_entry(uint64_t pml4, uint64_t lin) { return pml4 + 8 * bits(lin, 47, 39); }
static inline uint64_t pd_entry(uint64_t pd, uint64_t lin) { return pd + 8 * bits(lin, 29, 21); }

static inline void build_tables(struct bench *b)
{
	memset(mem_map(b->b->mem, gpa(PML4), TABLES_END - PML4, true), 0, TABLES_END - PML4);
	for (uint64_t pml4 = PML4; pml4 <= PML4_C; pml4 += PAGE_SIZE)
		poke(b, pml4_entry(pml4, KERNEL), PDPT_K | FLAGS_LEAF);
	poke(b, pml4_entry(PML4, USER), PDPT_U | FLAGS_ALL);
	poke(b, PDPT_U, PD_U | FLAGS_ALL);
	poke(b, pd_entry(PD_U, USER), PT_U | FLAGS_ALL);
	poke(b, pml4_entry(PML4_B, USER), PDPT_B | FLAGS_ALL);
	poke(b, PDPT_B, PD_B | FLAGS_ALL);
	poke(b, pd_entry(PD_B, USER), PT_B | FLAGS_ALL);
	poke(b, PDPT_K, PD_K | FLAGS_LEAF);
	poke(b, pd_entry(PD_K, KERNEL), PT_K | FLAGS_LEAF);
	/* Every page of data begins with its number. */
	for (unsigned n = 0; data(n) < BARE_RAM; n++)
		poke(b, data(n), n);
}

static inline struct bench *bench_create(const struct window_limits *limits)
{
	struct bench *b = test_calloc(1, sizeof(*b));
	struct error err = { 0 };
	struct vcpu *v;
	void *state;

	assert_int_equal(bare_cpu_setup(&state), 0);
	b->b = state;
	b->v = v = b->b->v;
	v->clock = clock_create(CLOCK_VIRTUAL, 0, &err);
	assert_non_null(v->clock);
	b->w = windows_create(b->b->mem, limits, &err);
	if (!b->w)
		fail_msg("%s", err.text);
	b->engine.shared = b->w;
	v->engine = &b->engine;
	v->hooks = &bt_window_hooks;
	v->s.cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET;
	v->s.cr3 = PML4;
	v->s.cr4 = CR4_PAE | CR4_PGE | CR4_SMAP;
	v->s.efer = EFER_LME | EFER_LMA | EFER_NXE;
	v->s.seg_attr[CS] = ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | ATTR_L;
	v->s.seg_attr[SS] = ATTR_P | ATTR_S | ATTR_WRITABLE;
	cpu_update_mode(v);
	cpu_tlb_flush(v);
	build_tables(b);
	install_handler();
	return b;
}

static inline void bench_destroy(struct bench *b)
{
	void *state = b->b;

	remove_handler();
	bt_windows_destroy(b->w);
	b->v->hooks = &vcpu_no_hooks;
	clock_destroy(b->v->clock);
	bare_cpu_teardown(&state);
	test_free(b);
}

static inline void load_cr3(struct bench *b, uint64_t cr3) { assert_false(RAISES(b->v, cpu_write_cr3(b->v, cr3))); }

static inline void use_pcids(struct bench *b)
{
	b->v->s.cr4 |= CR4_PCIDE;
	cpu_tlb_flush(b->v);
}

#define NO_FLUSH BIT(63)

static inline void decode_from(struct bench *b, uint64_t page)
{
	cpu_code_begin(b->v, mem_page(b->b->mem, gpa(page)), gpa(page), 16);
}

#endif
