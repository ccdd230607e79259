/*
 * Windows of the translator: accesses as translated code makes them, with a SIGSEGV handler as the engine's, against page tables
 * that change.
 */
#define _GNU_SOURCE /* REG_ERR */
#include "lib/bare_cpu.h"

#include "engine/bt/window.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
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
#define FLAGS_LEAF (PTE_P | PTE_W | PTE_A)
#define FLAGS_ALL  (PTE_P | PTE_W | PTE_U | PTE_A)

struct bench {
	struct bare_cpu *b;
	struct vcpu *v;
	struct bt_windows *w;
};

/* ---- accesses ---- */

struct attempt {
	struct bt_windows *w;
	struct vcpu *v;
	sigjmp_buf slow;
	volatile bool active;
	unsigned faults;
};

static _Thread_local struct attempt attempt;

static void on_segv(int signal, siginfo_t *info, void *context)
{
	const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t at = regs[REG_TRAPNO] == EXC_PF ? (uint64_t)(uintptr_t)info->si_addr : 0;

	(void)signal;
	if (!attempt.active)
		abort();
	attempt.faults++;
	if (bt_windows_fault(attempt.w, attempt.v, at, regs[REG_ERR] & PF_W) == WINDOW_SLOW)
		siglongjmp(attempt.slow, 1);
}

static void install_handler(void)
{
	struct sigaction action = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t stack = { .ss_sp = malloc(65536), .ss_size = 65536 };

	assert_non_null(stack.ss_sp);
	assert_int_equal(sigaltstack(&stack, NULL), 0);
	assert_int_equal(sigaction(SIGSEGV, &action, NULL), 0);
}

static void remove_handler(void)
{
	stack_t stack;

	signal(SIGSEGV, SIG_DFL);
	sigaltstack(&(stack_t){ .ss_flags = SS_DISABLE }, &stack);
	free(stack.ss_sp);
}

/* Where translated code would access. */
static uint64_t host_address(const struct slot_table *t, uint64_t lin)
{
	return lin +
	       (uint64_t) * (int64_t *)(uintptr_t)(t->r15 - SLOT_SHIFT + (uint64_t)((int64_t)lin >> SLOT_SHIFT) * 8);
}

/* One 8-byte access; false: WINDOW_SLOW. */
static bool translated(struct bt_windows *w, struct vcpu *v, uint64_t lin, bool write, uint64_t *value)
{
	const struct slot_table *t = bt_windows_table(w, v);
	uint64_t at;

	assert_non_null(t);
	attempt.w = w;
	attempt.v = v;
	at = host_address(t, lin);
	attempt.active = true;
	if (sigsetjmp(attempt.slow, 1)) {
		attempt.active = false;
		return false;
	}
	/* Assembly, because sanitizers would look at the address first. */
	if (write)
		__asm__ volatile("movq %1, (%0)" : : "r"(at), "r"(*value) : "memory");
	else
		__asm__ volatile("movq (%1), %0" : "=r"(*value) : "r"(at) : "memory");
	attempt.active = false;
	return true;
}

/* With what the engine does for WINDOW_SLOW: a hint, then again. */
static bool translated_twice(struct bt_windows *w, struct vcpu *v, uint64_t lin, bool write, uint64_t *value)
{
	if (translated(w, v, lin, write, value))
		return true;
	bt_windows_touch(w, v, lin, write);
	return translated(w, v, lin, write, value);
}

static void reads(struct bench *b, uint64_t lin, uint64_t expected)
{
	uint64_t value = ~expected;

	if (!translated_twice(b->w, b->v, lin, false, &value))
		fail_msg("read of %#lx went the slow way", lin);
	assert_int_equal(value, expected);
}

static void writes(struct bench *b, uint64_t lin, uint64_t value)
{
	if (!translated_twice(b->w, b->v, lin, true, &value))
		fail_msg("write of %#lx went the slow way", lin);
}

static void is_slow(struct bench *b, uint64_t lin, bool write)
{
	uint64_t value = 0x510e510e;

	if (translated_twice(b->w, b->v, lin, write, &value))
		fail_msg("%s of %#lx was not to succeed", write ? "write" : "read", lin);
}

/* ---- a guest ---- */

static void set_cpl(struct vcpu *v, unsigned cpl)
{
	v->s.seg_attr[SS] = (uint16_t)((v->s.seg_attr[SS] & ~ATTR_DPL) | cpl << ATTR_DPL_SHIFT);
	cpu_update_mode(v);
}

static void set_ac(struct vcpu *v, bool on)
{
	v->s.rflags = on ? v->s.rflags | FLAG_AC : v->s.rflags & ~FLAG_AC;
	cpu_update_mode(v);
}

static void poke(struct bench *b, uint64_t at, uint64_t value)
{
	/* As a guest's own store would: not through mem_write, which would tell about code. */
	__atomic_store_n((uint64_t *)mem_map(b->b->mem, gpa(at), 8, true), value, __ATOMIC_SEQ_CST);
}

static uint64_t peek(struct bench *b, uint64_t at) { return get(b->b, at, 8); }

static uint64_t data(unsigned page) { return DATA + (uint64_t)page * PAGE_SIZE; }

/* User page n at USER, kernel page n at KERNEL. */
static uint64_t user(unsigned n) { return USER + (uint64_t)n * PAGE_SIZE; }
static uint64_t kernel(unsigned n) { return KERNEL + (uint64_t)n * PAGE_SIZE; }
static uint64_t user_entry(unsigned n) { return PT_U + 8ull * n; }
static uint64_t kernel_entry(unsigned n) { return PT_K + 8ull * n; }
static uint64_t pml4_entry(uint64_t pml4, uint64_t lin) { return pml4 + 8 * bits(lin, 47, 39); }
static uint64_t pd_entry(uint64_t pd, uint64_t lin) { return pd + 8 * bits(lin, 29, 21); }

static void build_tables(struct bench *b)
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

static struct bench *bench_create(const struct window_limits *limits)
{
	struct bench *b = test_calloc(1, sizeof(*b));
	struct error err = { 0 };
	struct vcpu *v;
	void *state;

	assert_int_equal(bare_cpu_setup(&state), 0);
	b->b = state;
	b->v = v = b->b->v;
	b->w = windows_create(b->b->mem, limits, &err);
	if (!b->w)
		fail_msg("%s", err.text);
	b->b->mem->engine_shared = b->w;
	v->tlb_hooks = &bt_tlb_hooks;
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

static void bench_destroy(struct bench *b)
{
	void *state = b->b;

	remove_handler();
	bt_windows_destroy(b->w);
	b->b->mem->engine_shared = NULL;
	b->v->tlb_hooks = NULL;
	bare_cpu_teardown(&state);
	test_free(b);
}

struct bench_test {
	void (*run)(struct bench *);
};

/* Not in a setup function: cmocka puts a signal handler of its own in front after that. */
static void on_bench(void **state)
{
	const struct bench_test *test = *state;
	struct bench *b = bench_create(&(struct window_limits){ .windows = 16, .spaces = 8 });

	test->run(b);
	bench_destroy(b);
}

static void load_cr3(struct bench *b, uint64_t cr3) { assert_false(RAISES(b->v, cpu_write_cr3(b->v, cr3))); }

static void use_pcids(struct bench *b)
{
	b->v->s.cr4 |= CR4_PCIDE;
	cpu_tlb_flush(b->v);
}

#define NO_FLUSH BIT(63)

/* ---- tests ---- */

static void test_tables(struct bench *b)
{
	const struct slot_table *t = bt_windows_table(b->w, b->v);

	assert_non_null(t);
	assert_int_equal(t->r15 % 64, SLOT_SHIFT);
	assert_ptr_equal(t->entry, t->r15 - SLOT_SHIFT);
	for (int n = -256; n < 256; n++)
		assert_int_equal(t->entry[n] + n * (int64_t)WINDOW_SIZE, b->w->absent);
	/* The same one as long as nothing changes, others for other views. */
	assert_ptr_equal(bt_windows_table(b->w, b->v), t);
	set_ac(b->v, true);
	assert_ptr_not_equal(bt_windows_table(b->w, b->v), t);
	set_ac(b->v, false);
	set_cpl(b->v, 3);
	assert_ptr_not_equal(bt_windows_table(b->w, b->v), t);
	set_cpl(b->v, 0);
	assert_ptr_equal(bt_windows_table(b->w, b->v), t);

	/* States without one. */
	b->v->s.cr0 &= ~CR0_WP;
	cpu_tlb_flush(b->v);
	assert_null(bt_windows_table(b->w, b->v));
	b->v->s.cr0 |= CR0_WP;
	b->v->s.dr[7] = 1 | 3 << 16;
	cpu_update_mode(b->v);
	assert_null(bt_windows_table(b->w, b->v));
	b->v->s.dr[7] = 0;
	cpu_update_mode(b->v);
	cpu_tlb_flush(b->v);
	assert_ptr_equal(bt_windows_table(b->w, b->v), t);
	load_cr3(b, NOWHERE & PTE_FRAME);
	assert_null(bt_windows_table(b->w, b->v));
	load_cr3(b, PML4);
	assert_non_null(bt_windows_table(b->w, b->v));
}

/* No table is in reach of another's slot numbers, all of which lead to addresses that fault. */
static void test_table_reach(struct bench *b)
{
	uint64_t value;

	set_cpl(b->v, 3);
	static const int64_t slots[] = { -(1 << 24), -(1 << 23), -257 - 512, 256 + 512, 1 << 23, (1 << 24) - 1 };
	load_cr3(b, PML4_B);
	bt_windows_table(b->w, b->v);
	load_cr3(b, PML4);
	for (unsigned n = 0; n < ARRAY_SIZE(slots); n++) {
		const struct slot_table *t = bt_windows_table(b->w, b->v);
		uint64_t at = (uint64_t)(uintptr_t)t->entry + (uint64_t)slots[n] * 8;

		attempt.w = b->w;
		attempt.v = b->v;
		attempt.active = true;
		if (!sigsetjmp(attempt.slow, 1)) {
			__asm__ volatile("movq (%1), %0" : "=r"(value) : "r"(at) : "memory");
			fail_msg("slot %ld can be read", slots[n]);
		}
		attempt.active = false;
	}
}

static void test_views(struct bench *b)
{
	poke(b, user_entry(0), data(0) | FLAGS_ALL);
	poke(b, user_entry(1), data(1) | (FLAGS_ALL & ~PTE_U));
	poke(b, kernel_entry(0), data(2) | FLAGS_LEAF);

	set_cpl(b->v, 3);
	reads(b, user(0), 0);
	is_slow(b, user(1), false);
	is_slow(b, kernel(0), false);

	set_cpl(b->v, 0);
	is_slow(b, user(0), false); /* SMAP */
	reads(b, kernel(0), 2);
	reads(b, user(1), 1);

	set_ac(b->v, true);
	reads(b, kernel(0), 2);
	reads(b, user(1), 1);	    /* the slot's supervisor window */
	is_slow(b, user(0), false); /* so not this */

	/* And still nothing for user mode. */
	set_ac(b->v, false);
	set_cpl(b->v, 3);
	is_slow(b, user(1), true);
	is_slow(b, kernel(0), true);
	reads(b, user(0), 0);
}

static void test_access_to_user_pages_with_ac(struct bench *b)
{
	poke(b, user_entry(0), data(0) | FLAGS_ALL);
	poke(b, user_entry(1), data(1) | (FLAGS_ALL & ~PTE_W));
	set_ac(b->v, true);
	reads(b, user(0), 0);
	writes(b, user(0), 77);
	reads(b, user(1), 1);
	is_slow(b, user(1), true); /* CR0.WP */
	set_cpl(b->v, 3);
	reads(b, user(0), 77);

	/* Without SMAP the ordinary view is that. */
	set_cpl(b->v, 0);
	set_ac(b->v, false);
	is_slow(b, user(0), false);
	b->v->s.cr4 &= ~CR4_SMAP;
	cpu_tlb_flush(b->v);
	cpu_update_mode(b->v);
	reads(b, user(0), 77);
}

/* Rights are those of all levels. */
static void test_rights(struct bench *b)
{
	const uint64_t entries[] = { pml4_entry(PML4, USER), PDPT_U, pd_entry(PD_U, USER), user_entry(3) };

	set_cpl(b->v, 3);
	poke(b, user_entry(3), data(3) | FLAGS_ALL);
	for (unsigned level = 0; level < 4; level++) {
		uint64_t entry = peek(b, entries[level]);

		poke(b, entries[level], entry & ~PTE_W);
		cpu_tlb_flush(b->v);
		reads(b, user(3), 3);
		is_slow(b, user(3), true);

		poke(b, entries[level], entry & ~PTE_U);
		cpu_tlb_flush(b->v);
		is_slow(b, user(3), false);

		poke(b, entries[level], entry & ~PTE_P);
		cpu_tlb_flush(b->v);
		is_slow(b, user(3), false);

		poke(b, entries[level], entry | PTE_NX); /* data may still be read and written */
		cpu_tlb_flush(b->v);
		reads(b, user(3), 3);
		writes(b, user(3), 3);

		b->v->s.efer &= ~EFER_NXE; /* now the bit is reserved */
		cpu_tlb_flush(b->v);
		is_slow(b, user(3), false);
		b->v->s.efer |= EFER_NXE;

		poke(b, entries[level], entry | BIT(45));
		cpu_tlb_flush(b->v);
		is_slow(b, user(3), false);

		poke(b, entries[level], entry);
		cpu_tlb_flush(b->v);
		reads(b, user(3), 3);
		writes(b, user(3), 3);
	}
}

static void test_accessed_and_dirty(struct bench *b)
{
	const uint64_t entries[] = { pml4_entry(PML4, USER), PDPT_U, pd_entry(PD_U, USER), user_entry(0) };

	set_cpl(b->v, 3);
	for (unsigned n = 0; n < 4; n++)
		poke(b, user_entry(n), data(n) | (FLAGS_ALL & ~PTE_A));
	for (unsigned n = 0; n < 3; n++)
		poke(b, entries[n], peek(b, entries[n]) & ~PTE_A);

	reads(b, user(0), 0);
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(peek(b, entries[n]) & (PTE_A | PTE_D), PTE_A);
	/* Neighbours were not accessed. */
	for (unsigned n = 1; n < 4; n++)
		assert_int_equal(peek(b, user_entry(n)) & (PTE_A | PTE_D), 0);
	writes(b, user(0), 5);
	assert_int_equal(peek(b, user_entry(0)) & (PTE_A | PTE_D), PTE_A | PTE_D);
	writes(b, user(1), 6);
	assert_int_equal(peek(b, user_entry(1)) & (PTE_A | PTE_D), PTE_A | PTE_D);

	/* Cleared, and flushed: they are set again. */
	poke(b, user_entry(0), data(0) | (FLAGS_ALL & ~PTE_A));
	cpu_tlb_flush_page(b->v, gva(user(0)));
	reads(b, user(0), 5);
	assert_int_equal(peek(b, user_entry(0)) & (PTE_A | PTE_D), PTE_A);
	poke(b, user_entry(1), data(1) | FLAGS_ALL);
	cpu_tlb_flush_page(b->v, gva(user(1)));
	reads(b, user(1), 6);
	assert_int_equal(peek(b, user_entry(1)) & PTE_D, 0);
	writes(b, user(1), 7);
	assert_int_equal(peek(b, user_entry(1)) & PTE_D, PTE_D);

	/* A page that cannot be written does not get dirty, nor accessed by what faults. */
	poke(b, user_entry(2), data(2) | (FLAGS_ALL & ~(PTE_A | PTE_W)));
	is_slow(b, user(2), true);
	assert_int_equal(peek(b, user_entry(2)) & (PTE_A | PTE_D), 0);
}

/* Runs of pages that were used already come in with the first. */
static void test_runs(struct bench *b)
{
	struct bt_window_stats before, after;

	set_cpl(b->v, 3);
	for (unsigned n = 0; n < 128; n++)
		poke(b, user_entry(n), data(n) | FLAGS_ALL | PTE_D);
	poke(b, user_entry(20), data(20) | FLAGS_ALL);		  /* clean */
	poke(b, user_entry(30), data(31) | FLAGS_ALL | PTE_D);	  /* elsewhere */
	poke(b, user_entry(40), data(40) | (FLAGS_ALL & ~PTE_A)); /* not used */
	reads(b, user(35), 35);
	attempt.faults = 0;
	bt_windows_stats(b->w, &before);
	for (unsigned n = 31; n < 40; n++)
		writes(b, user(n), n);
	assert_int_equal(attempt.faults, 0);
	reads(b, user(30), 31);
	reads(b, user(25), 25);
	reads(b, user(21), 21);
	assert_int_equal(attempt.faults, 2);
	reads(b, user(20), 20);
	reads(b, user(40), 40);
	reads(b, user(41), 41);
	reads(b, user(63), 63);
	reads(b, user(64), 64); /* another span */
	reads(b, user(127), 127);
	bt_windows_stats(b->w, &after);
	assert_int_equal(after.fills - before.fills, 6);
	assert_int_equal(attempt.faults, 6);
	assert_int_equal(peek(b, user_entry(20)) & PTE_D, 0);
	for (unsigned n = 0; n < 128; n++)
		if (n != 20 && n != 30)
			reads(b, user(n), n);
}

typedef void flush_fn(struct bench *b);

static void flush_all(struct bench *b) { cpu_tlb_flush(b->v); }
static void flush_cr3(struct bench *b) { load_cr3(b, b->v->s.cr3); }
static void flush_page(struct bench *b) { cpu_tlb_flush_page(b->v, gva(user(5))); }
static void flush_invpcid(struct bench *b) { bt_tlb_hooks.flush_pcid(b->v, b->v->s.cr3 & 0xfff); }

static void test_revalidation(struct bench *b)
{
	static flush_fn *const flushes[] = { flush_all, flush_cr3, flush_page, flush_invpcid };

	for (unsigned pcids = 0; pcids < 2; pcids++) {
		set_cpl(b->v, 3);
		if (pcids)
			use_pcids(b);
		for (unsigned n = 0; n < ARRAY_SIZE(flushes); n++) {
			for (unsigned page = 0; page < 10; page++)
				poke(b, user_entry(page), data(2 * page) | FLAGS_ALL | PTE_D);
			cpu_tlb_flush(b->v);
			for (unsigned page = 0; page < 10; page++)
				reads(b, user(page), 2 * page);

			/* Nothing changed: nothing is lost. */
			flushes[n](b);
			attempt.faults = 0;
			for (unsigned page = 0; page < 10; page++)
				writes(b, user(page), 2 * page);
			assert_int_equal(attempt.faults, 0);

			/* Another frame. */
			poke(b, user_entry(5), data(100) | FLAGS_ALL | PTE_D);
			flushes[n](b);
			reads(b, user(5), 100);
			assert_int_equal(attempt.faults, 1);
			reads(b, user(4), 8);
			reads(b, user(6), 12);
			assert_int_equal(attempt.faults, 1);

			/* Write-protected, as fork does: still readable without a fault. */
			poke(b, user_entry(5), data(100) | (FLAGS_ALL & ~PTE_W) | PTE_D);
			flushes[n](b);
			reads(b, user(5), 100);
			assert_int_equal(attempt.faults, 1);
			is_slow(b, user(5), true);

			poke(b, user_entry(5), 0);
			flushes[n](b);
			is_slow(b, user(5), false);
			poke(b, user_entry(5), DEVICE | FLAGS_ALL);
			flushes[n](b);
			is_slow(b, user(5), false);
		}
	}
}

/* What one CPU flushes is flushed for it, whatever another already looked at. */
static void test_upper_levels(struct bench *b)
{
	set_cpl(b->v, 3);
	poke(b, user_entry(0), data(1) | FLAGS_ALL);
	poke(b, PT_U2, data(2) | FLAGS_ALL);
	poke(b, PT_B, data(3) | FLAGS_ALL);
	for (unsigned n = 0; n < 3; n++) {
		reads(b, USER, 1);
		poke(b, pd_entry(PD_U, USER), PT_U2 | FLAGS_ALL);
		if (n == 0)
			cpu_tlb_flush(b->v);
		else if (n == 1)
			cpu_tlb_flush_page(b->v, gva(USER));
		else
			load_cr3(b, PML4);
		reads(b, USER, 2);
		poke(b, PDPT_U, PD_B | FLAGS_ALL);
		cpu_tlb_flush_page(b->v, gva(USER));
		reads(b, USER, 3);
		poke(b, PDPT_U, PD_U | FLAGS_ALL);
		poke(b, pd_entry(PD_U, USER), PT_U | FLAGS_ALL);
		cpu_tlb_flush(b->v);
		reads(b, USER, 1);
		poke(b, pml4_entry(PML4, USER), PDPT_B | FLAGS_ALL);
		cpu_tlb_flush_page(b->v, gva(USER));
		reads(b, USER, 3);
		poke(b, pml4_entry(PML4, USER), PDPT_U | FLAGS_ALL);
		cpu_tlb_flush_page(b->v, gva(USER));
		reads(b, USER, 1);
	}
	/* A top-level entry that changes and comes back, with INVLPG while it leads elsewhere. */
	poke(b, pml4_entry(PML4, USER), PDPT_B | FLAGS_ALL);
	poke(b, user_entry(0), data(9) | FLAGS_ALL);
	cpu_tlb_flush_page(b->v, gva(USER));
	poke(b, pml4_entry(PML4, USER), PDPT_U | FLAGS_ALL);
	reads(b, USER, 9);
}

static void test_spaces(struct bench *b)
{
	use_pcids(b);
	poke(b, user_entry(0), data(1) | FLAGS_ALL);
	poke(b, PT_B, data(2) | FLAGS_ALL);
	poke(b, kernel_entry(0), data(3) | FLAGS_LEAF | PTE_G);
	poke(b, kernel_entry(1), data(4) | FLAGS_LEAF);
	load_cr3(b, PML4 | 1);
	set_cpl(b->v, 3);
	reads(b, USER, 1);
	set_cpl(b->v, 0);
	reads(b, kernel(0), 3);
	reads(b, kernel(1), 4);
	load_cr3(b, PML4_B | 2);
	attempt.faults = 0;
	reads(b, kernel(0), 3); /* the kernel's window came along */
	reads(b, kernel(1), 4);
	assert_int_equal(attempt.faults, 0);
	set_cpl(b->v, 3);
	reads(b, USER, 2);

	/* Back and forth without flushes: all is still there. */
	attempt.faults = 0;
	for (unsigned n = 0; n < 4; n++) {
		load_cr3(b, PML4 | 1 | NO_FLUSH);
		reads(b, USER, 1);
		load_cr3(b, PML4_B | 2 | NO_FLUSH);
		reads(b, USER, 2);
	}
	assert_int_equal(attempt.faults, 0);

	/* The other space changes while it is away. */
	poke(b, user_entry(0), data(5) | FLAGS_ALL);
	bt_tlb_hooks.flush_pcid(b->v, 1);
	load_cr3(b, PML4 | 1 | NO_FLUSH);
	reads(b, USER, 5);

	/* With a flush. */
	poke(b, PT_B, data(6) | FLAGS_ALL);
	load_cr3(b, PML4_B | 2);
	reads(b, USER, 6);

	/* INVLPG is for the current PCID and what is global. */
	set_cpl(b->v, 0);
	poke(b, kernel_entry(0), data(7) | FLAGS_LEAF | PTE_G);
	poke(b, kernel_entry(1), data(8) | FLAGS_LEAF);
	cpu_tlb_flush_page(b->v, gva(kernel(0)));
	cpu_tlb_flush_page(b->v, gva(kernel(1)));
	load_cr3(b, PML4 | 1 | NO_FLUSH);
	reads(b, kernel(0), 7);
	bt_tlb_hooks.flush_pcid(b->v, 1);
	reads(b, kernel(1), 8);

	/* The same address space under another PCID has seen no flush of the first. */
	set_cpl(b->v, 3);
	reads(b, USER, 5);
	poke(b, user_entry(0), data(9) | FLAGS_ALL);
	bt_tlb_hooks.flush_pcid(b->v, 3);
	load_cr3(b, PML4 | 3 | NO_FLUSH);
	reads(b, USER, 9);

	/* A PCID that goes to another CR3 and back: INVLPG there is felt here. */
	load_cr3(b, PML4_B | 3 | NO_FLUSH);
	poke(b, user_entry(0), data(10) | FLAGS_ALL);
	cpu_tlb_flush_page(b->v, gva(USER));
	load_cr3(b, PML4 | 3 | NO_FLUSH);
	reads(b, USER, 10);
}

/* Global pages survive a write of CR3, others do not, and nothing is global without CR4.PGE. */
static void test_global(struct bench *b)
{
	poke(b, kernel_entry(0), data(1) | FLAGS_LEAF | PTE_G);
	poke(b, kernel_entry(100), data(2) | FLAGS_LEAF);
	reads(b, kernel(0), 1);
	reads(b, kernel(100), 2);
	poke(b, kernel_entry(0), data(3) | FLAGS_LEAF | PTE_G);
	poke(b, kernel_entry(100), data(4) | FLAGS_LEAF);
	load_cr3(b, PML4);
	reads(b, kernel(100), 4);
	cpu_tlb_flush(b->v);
	reads(b, kernel(0), 3);
	b->v->s.cr4 &= ~CR4_PGE;
	cpu_tlb_flush(b->v);
	reads(b, kernel(0), 3);
	poke(b, kernel_entry(0), data(5) | FLAGS_LEAF | PTE_G);
	load_cr3(b, PML4);
	reads(b, kernel(0), 5);
}

static void test_aliases(struct bench *b)
{
	poke(b, user_entry(0), data(50) | FLAGS_ALL);
	poke(b, user_entry(300), data(50) | FLAGS_ALL);
	poke(b, kernel_entry(9), data(50) | FLAGS_LEAF);
	set_cpl(b->v, 3);
	writes(b, user(0), 0x1111);
	reads(b, user(300), 0x1111);
	writes(b, user(300), 0x2222);
	reads(b, user(0), 0x2222);
	set_cpl(b->v, 0);
	reads(b, kernel(9), 0x2222);
	writes(b, kernel(9), 0x3333);
	set_cpl(b->v, 3);
	reads(b, user(0), 0x3333);
	assert_int_equal(peek(b, data(50)), 0x3333);
}

/* An access across two pages, the second of which is not there. */
static void test_page_crossing(struct bench *b)
{
	uint64_t value = 0;

	set_cpl(b->v, 3);
	poke(b, user_entry(0), data(10) | FLAGS_ALL);
	poke(b, user_entry(1), data(30) | FLAGS_ALL);
	is_slow(b, user(2) - 4, true);
	value = 0x1122334455667788;
	assert_true(translated_twice(b->w, b->v, user(1) - 4, true, &value));
	assert_int_equal(get(b->b, data(11) - 4, 4), 0x55667788);
	assert_int_equal(get(b->b, data(30), 4), 0x11223344);
	/* Out of the slot, on either side. */
	is_slow(b, WINDOW_SIZE - 4, false);
	is_slow(b, 0, false);
}

static void decode_from(struct bench *b, uint64_t page)
{
	cpu_code_begin(b->v, mem_page(b->b->mem, gpa(page)), gpa(page), 16);
}

static void test_code_pages(struct bench *b)
{
	poke(b, user_entry(0), data(50) | FLAGS_ALL);
	poke(b, user_entry(300), data(50) | FLAGS_ALL);
	poke(b, user_entry(1), data(51) | FLAGS_ALL | PTE_D);
	poke(b, kernel_entry(9), data(50) | FLAGS_LEAF);
	set_cpl(b->v, 3);
	writes(b, user(0), 1);
	writes(b, user(1), 1);
	writes(b, user(300), 1);
	set_cpl(b->v, 0);
	writes(b, kernel(9), 1);

	decode_from(b, data(50));
	attempt.faults = 0;
	is_slow(b, kernel(9), true);
	set_cpl(b->v, 3);
	is_slow(b, user(0), true);
	is_slow(b, user(300), true);
	assert_int_equal(attempt.faults, 6);
	reads(b, user(0), 1);
	writes(b, user(1), 2);
	assert_int_equal(attempt.faults, 6);

	/* A write the slow way ends it. */
	put(b->b, data(50), 5, 8);
	writes(b, user(0), 6);
	writes(b, user(300), 7);
	assert_int_equal(attempt.faults, 8);

	/* Code that is there first. */
	decode_from(b, data(60));
	poke(b, user_entry(5), data(60) | FLAGS_ALL | PTE_D);
	poke(b, user_entry(6), data(61) | FLAGS_ALL | PTE_D);
	reads(b, user(6), 61);
	reads(b, user(5), 60);
	is_slow(b, user(5), true);
	writes(b, user(6), 3);
}

/* Accessed bits in a page that holds code are not set from the signal handler. */
static void test_code_in_tables(struct bench *b)
{
	uint64_t value;

	set_cpl(b->v, 3);
	poke(b, user_entry(0), data(1) | FLAGS_ALL);
	poke(b, user_entry(1), data(2) | (FLAGS_ALL & ~PTE_A));
	decode_from(b, PT_U);
	reads(b, user(0), 1);
	is_slow(b, user(1), false);
	assert_int_equal(peek(b, user_entry(1)) & PTE_A, 0);
	assert_false(translated(b->w, b->v, user(0), true, &value));
}

static void test_large_pages(struct bench *b)
{
	struct bt_window_stats stats;

	/* Two 2 MiB pages next to each other, one elsewhere, one that is clean. */
	poke(b, pd_entry(PD_K, LARGE), DATA | FLAGS_LEAF | PTE_PS | PTE_D | PTE_G);
	poke(b, pd_entry(PD_K, LARGE) + 8, (DATA + 0x200000) | FLAGS_LEAF | PTE_PS | PTE_D | PTE_G);
	poke(b, pd_entry(PD_K, LARGE) + 16, DATA | FLAGS_LEAF | PTE_PS | PTE_D | PTE_G);
	poke(b, pd_entry(PD_K, LARGE) + 24, DATA | FLAGS_LEAF | PTE_PS | PTE_G);
	reads(b, LARGE, 0);
	attempt.faults = 0;
	reads(b, LARGE + 0x5000, 5);
	writes(b, LARGE + 0x3ff000, 1023);
	assert_int_equal(attempt.faults, 0);
	reads(b, LARGE + 0x407000, 7);
	assert_int_equal(attempt.faults, 1);
	reads(b, LARGE + 0x608000, 8);
	assert_int_equal(peek(b, pd_entry(PD_K, LARGE) + 24) & PTE_D, 0);
	writes(b, LARGE + 0x608000, 8);
	assert_int_equal(peek(b, pd_entry(PD_K, LARGE) + 24) & PTE_D, PTE_D);
	attempt.faults = 0;

	/* Code in the middle of it: read-only there, in every mapping, and only there. */
	decode_from(b, data(9));
	is_slow(b, LARGE + 0x9000, true);
	is_slow(b, LARGE + 0x409000, true);
	assert_int_equal(attempt.faults, 4);
	reads(b, LARGE + 0x9000, 9);
	writes(b, LARGE + 0x8000, 8);
	writes(b, LARGE + 0xa000, 10);
	assert_int_equal(attempt.faults, 4);
	put(b->b, data(9), 9, 8);
	writes(b, LARGE + 0x9000, 9);
	assert_int_equal(attempt.faults, 5);
	writes(b, LARGE + 0x409000, 9); /* all at once */
	assert_int_equal(attempt.faults, 5);

	/* And before it is mapped. */
	decode_from(b, data(20));
	decode_from(b, data(21));
	poke(b, pd_entry(PD_K, LARGE) + 40, DATA | FLAGS_LEAF | PTE_PS | PTE_D | PTE_G);
	writes(b, LARGE + 0xa16000, 22);
	is_slow(b, LARGE + 0xa14000, true);
	is_slow(b, LARGE + 0xa15000, true);
	reads(b, LARGE + 0xa15000, 21);

	/* INVLPG anywhere in the page drops all of it, and nothing else. */
	poke(b, pd_entry(PD_K, LARGE), (DATA + 0x400000) | FLAGS_LEAF | PTE_PS | PTE_D | PTE_G);
	cpu_tlb_flush_page(b->v, gva(LARGE + 0x77000));
	attempt.faults = 0;
	reads(b, LARGE + 0x200000, 512);
	assert_int_equal(attempt.faults, 0);
	reads(b, LARGE, 1024);
	/* Split into small pages. */
	poke(b, PT_K2, data(44) | FLAGS_LEAF);
	poke(b, pd_entry(PD_K, LARGE), PT_K2 | FLAGS_LEAF);
	cpu_tlb_flush_page(b->v, gva(LARGE + 0x1000));
	reads(b, LARGE, 44);
	is_slow(b, LARGE + 0x1000, false);
	poke(b, pd_entry(PD_K, LARGE), DATA | FLAGS_LEAF | PTE_PS | PTE_D | PTE_G);
	cpu_tlb_flush_page(b->v, gva(LARGE));
	reads(b, LARGE, 0);
	reads(b, LARGE + 0x1000, 1);
	/* Dirty bit cleared, writable bit cleared. */
	poke(b, pd_entry(PD_K, LARGE), DATA | FLAGS_LEAF | PTE_PS | PTE_G);
	cpu_tlb_flush(b->v);
	reads(b, LARGE + 0x1000, 1);
	assert_int_equal(peek(b, pd_entry(PD_K, LARGE)) & PTE_D, 0);
	writes(b, LARGE + 0x1000, 1);
	assert_int_equal(peek(b, pd_entry(PD_K, LARGE)) & PTE_D, PTE_D);
	poke(b, pd_entry(PD_K, LARGE), DATA | (FLAGS_LEAF & ~PTE_W) | PTE_PS | PTE_G | PTE_D);
	cpu_tlb_flush(b->v);
	is_slow(b, LARGE + 0x1000, true);
	reads(b, LARGE + 0x1000, 1);
	bt_windows_stats(b->w, &stats);
	assert_true(stats.mappings < 64);
}

/* A large page that is RAM only in part, and 1 GiB pages. */
static void test_large_pages_with_holes(struct bench *b)
{
	const uint64_t huge = KERNEL + (1ull << 30);

	poke(b, PDPT_K + 8, FLAGS_LEAF | PTE_PS);
	reads(b, huge + DATA, 0);
	reads(b, huge + data(700), 700);
	writes(b, huge + data(700), 700);
	assert_int_equal(peek(b, PDPT_K + 8) & PTE_D, PTE_D);
	reads(b, huge + PML4, peek(b, PML4));
	writes(b, huge + PML4, peek(b, PML4));
	is_slow(b, huge + DEVICE, false);
	is_slow(b, huge + BARE_RAM, false);
	is_slow(b, huge + (1ull << 30) - 8, true);
	/* One INVLPG anywhere is for all of it. */
	poke(b, PDPT_K + 8, (1ull << 30) | FLAGS_LEAF | PTE_PS | PTE_G);
	cpu_tlb_flush_page(b->v, gva(huge + 0x3ffff000));
	is_slow(b, huge + DATA, false);
	is_slow(b, huge + PML4, false);
	poke(b, PDPT_K + 8, FLAGS_LEAF | PTE_PS | BIT(13)); /* reserved */
	cpu_tlb_flush_page(b->v, gva(huge));
	is_slow(b, huge + DATA, false);
}

static void test_hostile_tables(struct bench *b)
{
	static const uint64_t frames[] = { DEVICE,  NOWHERE, PML4,     0xfffffff000,
					   BIT(39), BIT(51), BARE_RAM, BARE_RAM - 4096 };
	const uint64_t entries[] = { pml4_entry(PML4, USER), PDPT_U, pd_entry(PD_U, USER), user_entry(0) };
	uint64_t value;

	set_cpl(b->v, 3);
	for (unsigned level = 0; level < 4; level++) {
		for (unsigned n = 0; n < ARRAY_SIZE(frames); n++) {
			build_tables(b);
			poke(b, entries[level], frames[n] | FLAGS_ALL);
			cpu_tlb_flush(b->v);
			translated_twice(b->w, b->v, USER, false, &value);
			poke(b, entries[level], frames[n] | FLAGS_ALL | PTE_PS);
			cpu_tlb_flush(b->v);
			translated_twice(b->w, b->v, USER, false, &value);
		}
	}
	/* A table that maps itself: entries are changed through the window. */
	build_tables(b);
	poke(b, user_entry(0), PT_U | FLAGS_ALL);
	cpu_tlb_flush(b->v);
	writes(b, user(0) + 8 * 7, data(123) | FLAGS_ALL);
	reads(b, user(7), 123);
	/* Not canonical. */
	bt_windows_touch(b->w, b->v, 0x0000800000000000ull, true);
	bt_windows_touch(b->w, b->v, 0xffff7fffffffffffull, true);
}

/* ---- limits ---- */

static void test_eviction(void **state)
{
	struct bench *b = bench_create(&(struct window_limits){ .windows = 8, .spaces = 4, .mappings = 60 });
	struct bt_window_stats stats;
	(void)state;

	set_cpl(b->v, 3);
	/* Pages that all need mappings of their own. */
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned n = 0; n < 400; n += 2) {
			poke(b, user_entry(n), data(500 - n) | FLAGS_ALL);
			poke(b, PT_B + 8 * n, data(501 - n) | FLAGS_ALL);
		}
		for (unsigned n = 0; n < 400; n += 2) {
			load_cr3(b, PML4);
			reads(b, user(n), 500 - n);
			load_cr3(b, PML4_B);
			reads(b, user(n), 501 - n);
			bt_windows_stats(b->w, &stats);
			assert_true(stats.mappings <= 60);
		}
	}
	assert_true(stats.evictions > 10);
	/* More slots than windows, more address spaces than tables. */
	for (unsigned n = 0; n < 200; n++) {
		uint64_t pml4 = DATA + 0x800000 + n % 13 * PAGE_SIZE;

		memset(mem_map(b->b->mem, gpa(pml4), PAGE_SIZE, true), 0, PAGE_SIZE);
		for (unsigned slot = n % 7; slot < 7; slot++)
			poke(b, pml4 + 8 * slot, (slot & 1 ? PDPT_B : PDPT_U) | FLAGS_ALL);
		load_cr3(b, pml4);
		for (unsigned slot = n % 7; slot < 7; slot++) {
			reads(b, slot * WINDOW_SIZE + user(8), slot & 1 ? 493 : 492);
			writes(b, slot * WINDOW_SIZE + user(8), slot & 1 ? 493 : 492);
		}
	}
	bt_windows_stats(b->w, &stats);
	assert_true(stats.windows <= 8);
	assert_true(stats.spaces <= 4);
	/* More than there are in one address space: the last one goes the slow way, and nothing else happens. */
	for (unsigned slot = 0; slot < 12; slot++)
		poke(b, PML4_C + 8 * slot, PDPT_U | FLAGS_ALL);
	load_cr3(b, PML4_C);
	for (unsigned slot = 0; slot < 8; slot++)
		reads(b, slot * WINDOW_SIZE + user(8), 492);
	for (unsigned slot = 8; slot < 12; slot++)
		is_slow(b, slot * WINDOW_SIZE + user(8), false);
	bench_destroy(b);
}

/* ---- random tables, flushes and accesses against a reference that knows what a TLB may still hold ---- */

#define RANDOM_PAGES 80
#define VERSIONS     24 /* of the tables since the last flush of everything */
#define TABLES_SIZE  (TABLES_END - PML4)
#define ADDRESSES    (RANDOM_PAGES * 3)

struct reference {
	struct bench *b;
	uint64_t seed;
	uint8_t *version[VERSIONS]; /* copies of all tables */
	unsigned count;
	/* First version that a translation may come from, by what flushed: all, the PCID, the page in the PCID, globals too. */
	unsigned since_pcid[4], since_page[4][ADDRESSES], since_global[ADDRESSES];
	unsigned pcid;
	unsigned ok, slow, stale;
};

static uint64_t random_number(struct reference *r, uint64_t below)
{
	r->seed = r->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (r->seed >> 33) % below;
}

/* 80 pages of a user's table, 80 of the kernel's, 80 in a large page. */
static uint64_t random_address(unsigned n)
{
	unsigned page = n % RANDOM_PAGES;

	return n < RANDOM_PAGES ? user(page) : n < 2 * RANDOM_PAGES ? kernel(page) : LARGE + (uint64_t)page * PAGE_SIZE;
}

static void reference_flush(struct reference *r)
{
	r->count = 0;
	memset(r->since_pcid, 0, sizeof(r->since_pcid));
	memset(r->since_page, 0, sizeof(r->since_page));
	memset(r->since_global, 0, sizeof(r->since_global));
}

static void reference_note(struct reference *r)
{
	memcpy(r->version[r->count++], mem_map(r->b->b->mem, gpa(PML4), TABLES_SIZE, false), TABLES_SIZE);
}

struct translation {
	bool present, user, writable, global;
	uint64_t page;
};

/* 4.5, without reserved bits, on a copy of the tables. */
static struct translation reference_walk(const struct reference *r, unsigned version, uint64_t pml4, uint64_t lin)
{
	struct translation t = { .user = true, .writable = true };
	uint64_t table = pml4, entry;

	for (unsigned shift = 39;; shift -= 9) {
		if (table < PML4 || table >= TABLES_END)
			return (struct translation){ .present = false };
		memcpy(&entry, r->version[version] + (table - PML4) + 8 * bits(lin, shift + 8, shift), 8);
		if (!(entry & PTE_P))
			return (struct translation){ .present = false };
		t.user &= !!(entry & PTE_U);
		t.writable &= !!(entry & PTE_W);
		table = entry & PTE_FRAME;
		if (shift == 12 || (shift == 21 && (entry & PTE_PS))) {
			t.page = table + (lin & (BIT(shift) - 1) & PAGE_MASK);
			t.global = entry & PTE_G;
			t.present = true;
			return t;
		}
	}
}

static bool reference_allows(const struct vcpu *v, const struct translation *t, bool write)
{
	if (!t->present || (write && !t->writable))
		return false;
	return v->cpl == 3 ? t->user : !t->user || (v->s.rflags & FLAG_AC);
}

/* Could a TLB have made this access go to this page? */
static bool reference_permits(const struct reference *r, unsigned address, bool write, uint64_t page)
{
	const struct vcpu *v = r->b->v;

	for (unsigned n = 0; n < r->count; n++) {
		struct translation t = reference_walk(r, n, v->s.cr3 & PTE_FRAME, random_address(address));
		unsigned since = MAX(r->since_pcid[r->pcid], r->since_page[r->pcid][address]);

		if (t.global)
			since = r->since_global[address];
		if (n + 1 < r->count && n < since)
			continue;
		if (reference_allows(v, &t, write) && t.page == page)
			return true;
	}
	return false;
}

static uint64_t random_frame(struct reference *r)
{
	switch (random_number(r, 40)) {
	case 0: return DEVICE;
	case 1: return NOWHERE;
	default: return data((unsigned)random_number(r, 100));
	}
}

static uint64_t random_leaf(struct reference *r)
{
	uint64_t entry = random_frame(r) | PTE_P | PTE_W | PTE_U;

	for (unsigned n = 0; n < 3; n++)
		entry ^= (uint64_t[]){
			PTE_P, PTE_W, PTE_U, PTE_A, PTE_D, PTE_G, PTE_NX, PTE_A | PTE_D, 0, 0, 0, 0
		}[random_number(r, 12)];
	return entry;
}

static void random_upper(struct reference *r)
{
	static const uint64_t pd_frames[] = { PT_U, PT_U2, PT_B };
	static const uint64_t kernel_frames[] = { PT_K, PT_K2 };
	struct bench *b = r->b;
	uint64_t flags = (random_number(r, 4) ? PTE_W : 0) | (random_number(r, 10) ? PTE_P : 0) |
			 (random_number(r, 2) ? PTE_A : 0);

	switch (random_number(r, 9)) {
	case 0: poke(b, pd_entry(PD_U, USER), pd_frames[random_number(r, 3)] | flags | PTE_U); break;
	case 1: poke(b, PDPT_U, (random_number(r, 3) ? PD_U : PD_B) | flags | PTE_U); break;
	case 2: poke(b, pml4_entry(PML4, USER), (random_number(r, 3) ? PDPT_U : PDPT_B) | flags | PTE_U); break;
	case 3: poke(b, pd_entry(PD_K, KERNEL), kernel_frames[random_number(r, 2)] | flags); break;
	case 4:
		poke(b, pml4_entry(random_number(r, 2) ? PML4 : PML4_B, KERNEL),
		     PDPT_K | flags | (random_number(r, 3) ? 0 : PTE_U));
		break;
	case 5: poke(b, pd_entry(PD_K, LARGE), PT_K2 | flags); break;
	default:
		poke(b, pd_entry(PD_K, LARGE),
		     (DATA + (random_number(r, 3) << 21)) | flags | PTE_PS | (random_number(r, 2) ? PTE_G : 0) |
			     (random_number(r, 2) ? PTE_D : 0));
	}
}

/* Runs of entries, as kernels write them, or one. */
static void random_edit(struct reference *r)
{
	static const uint64_t tables[] = { PT_U, PT_B, PT_K, PT_U2, PT_K2 };
	uint64_t table = tables[random_number(r, 5)], leaf = random_leaf(r);
	unsigned first = (unsigned)random_number(r, RANDOM_PAGES), count = random_number(r, 3) ? 1 : 12;

	if (!random_number(r, 6)) {
		random_upper(r);
		return;
	}
	for (unsigned n = first; n < MIN(first + count, RANDOM_PAGES); n++, leaf += PAGE_SIZE)
		poke(r->b, table + 8 * n, leaf);
}

static void new_version(struct reference *r)
{
	if (r->count == VERSIONS) {
		cpu_tlb_flush(r->b->v);
		reference_flush(r);
	}
	reference_note(r);
}

static void random_flush(struct reference *r)
{
	unsigned address = (unsigned)random_number(r, ADDRESSES), now = r->count - 1, other;
	uint64_t lin = random_address(address);
	struct vcpu *v = r->b->v;

	switch (random_number(r, 8)) {
	case 0:
		cpu_tlb_flush(v);
		reference_flush(r);
		reference_note(r);
		break;
	case 1:
		load_cr3(r->b, v->s.cr3);
		r->since_pcid[r->pcid] = now;
		break;
	case 2:
	case 3:
		r->pcid = (unsigned)random_number(r, 2);
		load_cr3(r->b, (r->pcid ? PML4_B : PML4) | (r->pcid + 1) | NO_FLUSH);
		break;
	case 4:
		other = (unsigned)random_number(r, 2);
		bt_tlb_hooks.flush_pcid(v, (uint16_t)(other + 1));
		r->since_pcid[other] = now;
		break;
	default:
		cpu_tlb_flush_page(v, gva(lin));
		/* All of a large page goes; that only takes more away from what is allowed, so the page itself is enough. */
		r->since_page[r->pcid][address] = r->since_global[address] = now;
	}
}

static void random_mode(struct reference *r)
{
	struct vcpu *v = r->b->v;
	uint64_t page;

	switch (random_number(r, 8)) {
	case 0:
		page = data((unsigned)random_number(r, 100));
		decode_from(r->b, page);
		break;
	case 1:
		page = data((unsigned)random_number(r, 100));
		put(r->b->b, page, (page - DATA) / PAGE_SIZE, 8);
		break;
	default: set_ac(v, random_number(r, 2)); set_cpl(v, random_number(r, 2) ? 3 : 0);
	}
}

static bool holds_code(const struct reference *r, uint64_t page)
{
	return atomic_load(&mem_page(r->b->b->mem, gpa(page))->code_chunks);
}

/* Must the access succeed, now that a window was asked for? Not where a slot has both kinds of pages. */
static bool must_succeed(const struct reference *r, const struct translation *t, bool write)
{
	return reference_allows(r->b->v, t, write) && windows_view(r->b->v) != TABLE_BOTH && t->page >= DATA &&
	       t->page < BARE_RAM && !(write && holds_code(r, t->page));
}

static void random_access(struct reference *r)
{
	unsigned address = (unsigned)random_number(r, ADDRESSES);
	uint64_t lin = random_address(address), token = random_number(r, UINT32_MAX) << 8 | 1, value = token, page;
	bool write = random_number(r, 2);
	struct translation t = reference_walk(r, r->count - 1, r->b->v->s.cr3 & PTE_FRAME, lin);

	if (!translated_twice(r->b->w, r->b->v, lin + (write ? 64 : 0), write, &value)) {
		r->slow++;
		if (must_succeed(r, &t, write))
			fail_msg("%s of %#lx (page %#lx) went the slow way", write ? "write" : "read", lin, t.page);
		return;
	}
	r->ok++;
	if (write) {
		for (page = DATA; page < BARE_RAM && peek(r->b, page + 64) != token; page += PAGE_SIZE)
			;
		if (holds_code(r, page))
			fail_msg("a write to code at %#lx went unnoticed", page);
	} else {
		page = data((unsigned)value);
	}
	if (!reference_permits(r, address, write, page))
		fail_msg("%s of %#lx reached %#lx: %s", write ? "write" : "read", lin, page,
			 t.present ? "no translation since the flush says so" : "it is not mapped");
	if (page != t.page)
		r->stale++;
}

static void random_run(uint64_t seed, const struct window_limits *limits)
{
	struct reference r = { .b = bench_create(limits), .seed = seed };

	for (unsigned n = 0; n < VERSIONS; n++)
		r.version[n] = test_malloc(TABLES_SIZE);
	use_pcids(r.b);
	load_cr3(r.b, PML4 | 1);
	cpu_tlb_flush(r.b->v);
	reference_note(&r);
	for (unsigned n = 0; n < 6000; n++) {
		switch (random_number(&r, 8)) {
		case 0:
			new_version(&r);
			random_edit(&r);
			r.count--;
			new_version(&r);
			r.count--;
			new_version(&r);
			break;
		case 1: random_flush(&r); break;
		case 2: random_mode(&r); break;
		default: random_access(&r);
		}
	}
	assert_true(r.ok > 500);
	for (unsigned n = 0; n < VERSIONS; n++)
		test_free(r.version[n]);
	bench_destroy(r.b);
}

static void test_random(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 4; seed++)
		random_run(seed, &(struct window_limits){ .windows = 16, .spaces = 8 });
}

static void test_random_with_little_room(void **state)
{
	(void)state;
	for (uint64_t seed = 11; seed <= 14; seed++)
		random_run(seed, &(struct window_limits){ .windows = 8, .spaces = 2, .mappings = 40 });
}

#define BENCH_TEST(f)                                                                                                  \
	{                                                                                                              \
		.name = #f, .test_func = on_bench, .initial_state = &(struct bench_test) { f }                         \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BENCH_TEST(test_tables),
		BENCH_TEST(test_table_reach),
		BENCH_TEST(test_views),
		BENCH_TEST(test_access_to_user_pages_with_ac),
		BENCH_TEST(test_rights),
		BENCH_TEST(test_accessed_and_dirty),
		BENCH_TEST(test_runs),
		BENCH_TEST(test_revalidation),
		BENCH_TEST(test_upper_levels),
		BENCH_TEST(test_spaces),
		BENCH_TEST(test_global),
		BENCH_TEST(test_aliases),
		BENCH_TEST(test_page_crossing),
		BENCH_TEST(test_code_pages),
		BENCH_TEST(test_code_in_tables),
		BENCH_TEST(test_large_pages),
		BENCH_TEST(test_large_pages_with_holes),
		BENCH_TEST(test_hostile_tables),
		cmocka_unit_test(test_eviction),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_random_with_little_room),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
