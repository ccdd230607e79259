/*
 * Windows of the translator: what they must hold and must not, flush by flush, right by right.
 */
#define _GNU_SOURCE /* REG_ERR */
#include "lib/window_bench.h"

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
	b->v->s.cr4 |= CR4_LA57;
	cpu_tlb_flush(b->v);
	assert_null(bt_windows_table(b->w, b->v));
	b->v->s.cr4 &= ~CR4_LA57;
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
		if (read_host(at, &value))
			fail_msg("slot %ld can be read", slots[n]);
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

	/* Another address space with the same windows. */
	poke(b, pml4_entry(PML4_C, USER), PDPT_U | FLAGS_ALL);
	load_cr3(b, PML4_C);
	attempt.faults = 0;
	reads(b, user(0), 0);
	assert_int_equal(attempt.faults, 0);
	is_slow(b, user(1), false);
	is_slow(b, kernel(0), false);
	set_cpl(b->v, 0);
	is_slow(b, user(0), false);
	reads(b, user(1), 1);
	reads(b, kernel(0), 2);

	/* A supervisor's page that becomes the user's, and back. */
	poke(b, user_entry(1), data(1) | FLAGS_ALL);
	cpu_tlb_flush_page(b->v, gva(user(1)));
	is_slow(b, user(1), false);
	set_cpl(b->v, 3);
	reads(b, user(1), 1);
	poke(b, user_entry(1), data(1) | (FLAGS_ALL & ~PTE_U));
	cpu_tlb_flush_page(b->v, gva(user(1)));
	is_slow(b, user(1), false);
}

/* An address space that comes to windows which are there already, seen from every view. */
static void test_known_windows(struct bench *b)
{
	poke(b, user_entry(0), data(1) | FLAGS_ALL);
	poke(b, pml4_entry(PML4_C, USER), PDPT_U | FLAGS_ALL);
	set_cpl(b->v, 3);
	reads(b, USER, 1);
	load_cr3(b, PML4_C);
	set_cpl(b->v, 0);
	is_slow(b, USER, false);
	set_ac(b->v, true);
	attempt.faults = 0;
	reads(b, USER, 1);
	assert_int_equal(attempt.faults, 0);
}

/* Translated code may go on with a window's address in a register when a table leads elsewhere already. */
static void test_old_window(struct bench *b)
{
	uint64_t old, value;

	set_cpl(b->v, 3);
	poke(b, user_entry(0), data(1) | FLAGS_ALL);
	poke(b, PT_B, data(3) | FLAGS_ALL);
	reads(b, USER, 1);
	old = host_address(bt_windows_table(b->w, b->v), USER);
	poke(b, pml4_entry(PML4, USER), PDPT_B | FLAGS_ALL);
	reads(b, USER + 0, 1); /* nobody flushed */
	attempt.faults = 0;
	assert_false(read_host(old + PAGE_SIZE, &value));
	assert_int_equal(attempt.faults, 1);
	touch(b->w, b->v, USER, false);
	reads(b, USER, 3);
	attempt.faults = 0;
	assert_false(read_host(old + PAGE_SIZE, &value));
	assert_int_equal(attempt.faults, 1);
}

static void test_access_to_user_pages_with_ac(struct bench *b)
{
	poke(b, user_entry(0), data(0) | FLAGS_ALL);
	poke(b, user_entry(1), data(1) | (FLAGS_ALL & ~PTE_W));
	set_ac(b->v, true);
	reads(b, user(0), 0);
	writes(b, user(0), 77);
	reads(b, user(1), 1);
	is_slow(b, user(1), true); /* CR0.WP; and without it the interpreter knows */
	b->v->s.cr0 &= ~CR0_WP;
	cpu_tlb_flush(b->v);
	reads(b, user(1), 1);
	is_slow(b, user(1), true);
	b->v->s.cr0 |= CR0_WP;
	cpu_tlb_flush(b->v);
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

/* A page that its handler put in place is there before the access is tried again, but nothing that the access must do is done. */
static void test_after_a_page_fault(struct bench *b)
{
	for (unsigned write = 0; write < 2; write++) {
		poke(b, user_entry(0), 0);
		poke(b, user_entry(64), 0);
		cpu_tlb_flush(b->v);
		set_cpl(b->v, 3);
		is_slow(b, user(0), write);
		bt_windows_missed(b->w, b->v, user(0), write);
		set_cpl(b->v, 0);
		bt_windows_table(b->w, b->v);
		poke(b, user_entry(0), data(1) | FLAGS_ALL | (write ? PTE_D : 0));
		set_cpl(b->v, 3);
		attempt.faults = 0;
		if (write)
			writes(b, user(0), 1);
		else
			reads(b, user(0), 1);
		assert_int_equal(attempt.faults, 0);

		bt_windows_missed(b->w, b->v, user(64), write);
		set_cpl(b->v, 0);
		bt_windows_table(b->w, b->v);
		poke(b, user_entry(64), data(2) | (write ? FLAGS_ALL : FLAGS_ALL & ~PTE_A));
		set_cpl(b->v, 3);
		bt_windows_table(b->w, b->v);
		assert_int_equal(peek(b, user_entry(64)), data(2) | (write ? FLAGS_ALL : FLAGS_ALL & ~PTE_A));
		reads(b, user(64), 2);
	}
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
static void flush_invpcid(struct bench *b) { bt_window_hooks.tlb_flush_pcid(b->v, b->v->s.cr3 & 0xfff); }

/* All user pages that were used, by as few mappings as they need. */
static void test_graduate(struct bench *b)
{
	struct bt_window_stats stats;
	uint64_t value;

	for (unsigned n = 0; n < 200; n++)
		poke(b, user_entry(n), data(n) | FLAGS_ALL | PTE_D);
	for (unsigned n = 300; n < 320; n++) /* backwards: a mapping each */
		poke(b, user_entry(n), data(900 - n) | FLAGS_ALL);
	poke(b, user_entry(400), data(400) | (FLAGS_ALL & ~PTE_A));
	poke(b, user_entry(401), data(401) | (FLAGS_ALL & ~PTE_U));
	poke(b, user_entry(402), DEVICE | FLAGS_ALL);
	poke(b, user_entry(403), NOWHERE | FLAGS_ALL);
	poke(b, user_entry(404), 0);
	poke(b, pd_entry(PD_U, USER + LARGE_STEP), DATA | FLAGS_ALL | PTE_PS | PTE_D);
	poke(b, pd_entry(PD_U, USER + 2 * LARGE_STEP), PD_U | FLAGS_ALL); /* an odd table */
	poke(b, kernel_entry(0), data(10) | FLAGS_LEAF);

	bt_windows_graduate(b->w, b->v);
	bt_windows_stats(b->w, &stats);
	assert_in_range(stats.fills, 4 + 20 + 1, 4 + 20 + 1 + 8);
	set_cpl(b->v, 3);
	attempt.faults = 0;
	for (unsigned n = 0; n < 200; n++) {
		assert_true(translated(b->w, b->v, user(n), false, &value));
		assert_int_equal(value, n);
		assert_true(translated(b->w, b->v, user(n), true, &value));
	}
	for (unsigned n = 300; n < 320; n++) {
		assert_true(translated(b->w, b->v, user(n), false, &value));
		assert_int_equal(value, 900 - n);
	}
	assert_true(translated(b->w, b->v, USER + LARGE_STEP + 7 * PAGE_SIZE, true, &(uint64_t){ 7 }));
	assert_int_equal(attempt.faults, 0);
	assert_false(peek(b, user_entry(400)) & PTE_A);
	assert_false(peek(b, user_entry(300)) & PTE_D);
	is_slow(b, user(401), false);
	is_slow(b, user(402), false);
	is_slow(b, user(403), false);
	is_slow(b, user(404), false);
	reads(b, user(400), 400);
	writes(b, user(300), 600);
	assert_true(peek(b, user_entry(300)) & PTE_D);

	/* Again: there is nothing left to do. */
	bt_windows_stats(b->w, &stats);
	value = stats.pages_filled;
	bt_windows_graduate(b->w, b->v);
	bt_windows_stats(b->w, &stats);
	assert_true(stats.pages_filled - value <= 2);
}

/* Tables that lead everywhere and never end take no more time than others. */
static void test_graduate_without_end(struct bench *b)
{
	struct bt_window_stats stats;
	uint64_t value;

	/* Each table is each other table, in all of its entries. */
	for (unsigned n = 0; n < 512; n++)
		poke(b, DATA + 8 * n, DATA | FLAGS_ALL | PTE_D);
	load_cr3(b, DATA);
	bt_windows_graduate(b->w, b->v);
	bt_windows_stats(b->w, &stats);
	assert_in_range(stats.fills, 1, 4096 / 16);
	set_cpl(b->v, 3);
	attempt.faults = 0;
	assert_true(translated(b->w, b->v, 8, false, &value));
	assert_int_equal(value, DATA | FLAGS_ALL | PTE_D);
	assert_int_equal(attempt.faults, 0);

	/* A state without windows. */
	load_cr3(b, NOWHERE & PTE_FRAME);
	bt_windows_graduate(b->w, b->v);
}

/* What flushes cost is counted when something had to be unmapped, but takes no virtual time; user windows go, a kernel's stay, and all may come back. */
static void test_shed(struct bench *b)
{
	struct bt_window_stats before, after;
	struct clock *virtual = b->v->clock, *real;
	uint64_t churn, value;
	struct error err;

	real = clock_create(CLOCK_HOST, 0, &err);
	assert_non_null(real);
	clock_start(real);
	poke(b, user_entry(1), data(1) | FLAGS_ALL);
	poke(b, kernel_entry(0), data(10) | FLAGS_LEAF);
	reads(b, KERNEL, 10);
	set_cpl(b->v, 3);
	reads(b, user(1), 1);
	churn = bt_windows_churn(b->w, b->v);
	cpu_tlb_flush(b->v);
	reads(b, user(1), 1);
	assert_int_equal(bt_windows_churn(b->w, b->v), churn);
	poke(b, user_entry(1), data(3) | FLAGS_ALL);
	cpu_tlb_flush(b->v);
	reads(b, user(1), 3);
	assert_int_equal(bt_windows_churn(b->w, b->v), churn);
	poke(b, user_entry(1), data(2) | FLAGS_ALL);
	b->v->clock = real;
	cpu_tlb_flush(b->v);
	reads(b, user(1), 2);
	b->v->clock = virtual;
	clock_destroy(real);
	assert_in_range(bt_windows_churn(b->w, b->v), churn + 1, churn + 8 * 20000);

	bt_windows_stats(b->w, &before);
	bt_windows_shed(b->w, b->v);
	bt_windows_young(b->w, b->v, true);
	bt_windows_stats(b->w, &after);
	assert_int_equal(after.windows, before.windows - 1);
	is_slow(b, user(1), false);
	set_cpl(b->v, 0);
	attempt.faults = 0;
	assert_true(translated(b->w, b->v, KERNEL, false, &value));
	assert_int_equal(value, 10);
	assert_int_equal(attempt.faults, 0);
	set_cpl(b->v, 3);
	bt_windows_young(b->w, b->v, false);
	bt_windows_graduate(b->w, b->v);
	assert_true(translated(b->w, b->v, user(1), false, &value));
	assert_int_equal(value, 2);
}

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
	poke(b, user_entry(1), data(7) | FLAGS_ALL);
	reads(b, user(1), 7);
	poke(b, pml4_entry(PML4, USER), PDPT_B | FLAGS_ALL);
	poke(b, user_entry(1), data(9) | FLAGS_ALL);
	cpu_tlb_flush_page(b->v, gva(user(1)));
	poke(b, pml4_entry(PML4, USER), PDPT_U | FLAGS_ALL);
	reads(b, user(0), 1);
	reads(b, user(1), 9);
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
	bt_window_hooks.tlb_flush_pcid(b->v, 1);
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
	bt_window_hooks.tlb_flush_pcid(b->v, 1);
	reads(b, kernel(1), 8);

	/* The same address space under another PCID has seen no flush of the first. */
	set_cpl(b->v, 3);
	reads(b, USER, 5);
	poke(b, user_entry(0), data(9) | FLAGS_ALL);
	bt_window_hooks.tlb_flush_pcid(b->v, 3);
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
	poke(b, pd_entry(PD_K, LARGE), PT_K2 | FLAGS_LEAF);
	poke(b, PT_K2, data(2) | FLAGS_LEAF);
	reads(b, kernel(0), 1);
	reads(b, LARGE, 2);
	poke(b, kernel_entry(0), data(3) | FLAGS_LEAF | PTE_G);
	poke(b, PT_K2, data(4) | FLAGS_LEAF);
	load_cr3(b, PML4);
	reads(b, LARGE, 4);
	cpu_tlb_flush(b->v);
	reads(b, kernel(0), 3);
	/* The bit is what it was when the page was last looked at. */
	poke(b, kernel_entry(0), data(3) | FLAGS_LEAF);
	cpu_tlb_flush(b->v);
	reads(b, kernel(0), 3);
	poke(b, kernel_entry(0), data(8) | FLAGS_LEAF);
	load_cr3(b, PML4);
	reads(b, kernel(0), 8);

	poke(b, pd_entry(PD_K, LARGE), PT_K2 | FLAGS_LEAF);
	poke(b, PT_K2, data(3) | FLAGS_LEAF | PTE_G);
	cpu_tlb_flush(b->v);
	reads(b, LARGE, 3);
	b->v->s.cr4 &= ~CR4_PGE;
	cpu_tlb_flush(b->v);
	reads(b, LARGE, 3);
	poke(b, PT_K2, data(5) | FLAGS_LEAF | PTE_G);
	load_cr3(b, PML4);
	reads(b, LARGE, 5);
}

/* INVLPG of a global page is felt in all address spaces, also when it became global after it was mapped. */
static void test_global_page_elsewhere(struct bench *b)
{
	use_pcids(b);
	for (unsigned late = 0; late < 2; late++) {
		/* Address spaces with tables of their own for this address. */
		poke(b, pml4_entry(PML4_B, KERNEL), PDPT_B | FLAGS_LEAF);
		poke(b, PDPT_B, PD_B | FLAGS_LEAF);
		poke(b, pd_entry(PD_B, KERNEL), PT_B | FLAGS_LEAF);
		poke(b, kernel_entry(0), data(1) | FLAGS_LEAF | (late ? 0 : PTE_G));
		poke(b, PT_B, data(2) | FLAGS_LEAF | PTE_G);
		load_cr3(b, PML4_B | 2);
		cpu_tlb_flush(b->v);
		reads(b, kernel(0), 2);
		load_cr3(b, PML4 | 1);
		reads(b, kernel(0), 1);
		poke(b, kernel_entry(0), data(1) | FLAGS_LEAF | PTE_G);
		load_cr3(b, PML4 | 1);
		reads(b, kernel(0), 1);
		load_cr3(b, PML4_B | 2 | NO_FLUSH);
		poke(b, kernel_entry(0), data(3) | FLAGS_LEAF | PTE_G);
		cpu_tlb_flush_page(b->v, gva(kernel(0)));
		load_cr3(b, PML4 | 1 | NO_FLUSH);
		reads(b, kernel(0), 3);
	}
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
	uint64_t value = 0;

	set_cpl(b->v, 3);
	poke(b, user_entry(0), data(1) | FLAGS_ALL);
	poke(b, user_entry(1), data(2) | (FLAGS_ALL & ~PTE_A));
	decode_from(b, PT_U);
	reads(b, user(0), 1);
	assert_false(translated(b->w, b->v, user(1), false, &value));
	assert_int_equal(touch(b->w, b->v, user(1), false), WINDOW_SLOW);
	assert_int_equal(peek(b, user_entry(1)) & PTE_A, 0);
	assert_false(translated(b->w, b->v, user(0), true, &value));

	/* Who decodes code from a table that was written to learns that it was. */
	poke(b, kernel_entry(0), data(1) | (FLAGS_LEAF & ~PTE_A));
	poke(b, kernel_entry(1), data(2) | FLAGS_LEAF);
	assert_int_equal(mem_page(b->b->mem, gpa(PT_K))->direct, 0);
	set_cpl(b->v, 0);
	reads(b, kernel(1), 2);
	reads(b, kernel(0), 1);
	assert_int_not_equal(mem_page(b->b->mem, gpa(PT_K))->direct, 0);
}

/* A hint may be wrong: the instruction that it is about marks what it accesses, and nobody else. */
static void test_hints_mark_nothing(struct bench *b)
{
	set_cpl(b->v, 3);
	bt_windows_table(b->w, b->v);
	for (unsigned write = 0; write < 2; write++) {
		const uint64_t marks = PTE_A | PTE_D;

		poke(b, user_entry(write), data(1) | (FLAGS_ALL & ~marks) | (write ? PTE_A : 0));
		assert_int_equal(touch(b->w, b->v, user(write), write), WINDOW_SLOW);
		assert_int_equal(peek(b, user_entry(write)) & marks, write ? PTE_A : 0);
	}
}

static uint64_t walks_of(struct bench *b, uint64_t lin, bool write)
{
	uint64_t before = b->w->stats.walks, value = 0;

	translated(b->w, b->v, lin, write, &value);
	return b->w->stats.walks - before;
}

/* Filling reads the tables once; again, when it has changed them. */
static void test_one_walk(struct bench *b)
{
	set_cpl(b->v, 3);
	poke(b, user_entry(0), data(1) | FLAGS_ALL);
	poke(b, user_entry(1), data(2) | FLAGS_ALL);
	poke(b, user_entry(2), data(4) | FLAGS_ALL | PTE_D);
	poke(b, user_entry(3), 0);
	reads(b, user(0), 1);
	assert_int_equal(walks_of(b, user(2), true), 1);
	assert_int_equal(walks_of(b, user(2), false), 0);
	assert_int_equal(walks_of(b, user(1), true), 2);
	assert_int_equal(walks_of(b, user(3), true), 1);
}

static void set_code_mode(struct bench *b, enum code_mode mode)
{
	b->v->s.seg_attr[CS] = ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | (mode == MODE_64 ? ATTR_L : ATTR_DB);
	b->v->s.seg_limit[CS] = UINT32_MAX;
	cpu_update_mode(b->v);
	assert_int_equal(b->v->code_mode, mode);
}

#define LAST_PAGE  0xfffff000ull
#define ABOVE_LAST BIT(32)

/* The two 2 MiB below 4 GiB and those above, by large pages or not, in an address space of their own. */
static void map_around_4_gib(struct bench *b, bool large, uint64_t flags)
{
	const uint64_t pdpt = large ? PDPT_B : PDPT_U;

	poke(b, pdpt + 8 * 3, PD_B | FLAGS_ALL);
	poke(b, pdpt + 8 * 4, PT_K2 | FLAGS_ALL);
	poke(b, pd_entry(PD_B, LAST_PAGE - LARGE_STEP), DATA | flags | PTE_PS);
	poke(b, pd_entry(PD_B, LAST_PAGE), large ? (DATA + LARGE_STEP) | flags | PTE_PS : PT_B | FLAGS_ALL);
	poke(b, pd_entry(PT_K2, ABOVE_LAST), large ? (DATA + LARGE_STEP) | flags | PTE_PS : PT_U2 | FLAGS_ALL);
	for (unsigned n = 0; n < 512; n++)
		poke(b, PT_B + 8 * n, data(n) | flags);
	poke(b, PT_U2, data(9) | flags);
	load_cr3(b, large ? PML4_B : PML4);
}

/*
 * Where 16- or 32-bit code has run, the last page below 4 GiB is in no window, neither in one that is there, nor as a neighbour, nor in a
 * large page, and no bits are set for it. Where there is 64-bit code alone it is a page like others.
 */
static void check_narrow(struct bench *b, bool large, uint64_t flags)
{
	const uint64_t marks = PTE_A | PTE_D, entry = large ? pd_entry(PD_B, LAST_PAGE) : PT_B + 8 * 511;
	uint64_t value = 0;

	map_around_4_gib(b, large, flags);
	set_code_mode(b, MODE_64);
	writes(b, LAST_PAGE + 8, 5);
	writes(b, ABOVE_LAST, 6);

	set_code_mode(b, MODE_32);
	assert_false(translated(b->w, b->v, LAST_PAGE + 8, false, &value));
	is_slow(b, LAST_PAGE + 8, true);
	writes(b, LAST_PAGE - 8, 7);
	writes(b, LAST_PAGE - LARGE_STEP, 7);
	is_slow(b, LAST_PAGE + 8, false);
	poke(b, entry, peek(b, entry) & ~marks);
	cpu_tlb_flush(b->v);
	assert_false(translated(b->w, b->v, LAST_PAGE, true, &value));
	assert_int_equal(peek(b, entry) & marks, 0);

	/* As long as the address space lives. */
	set_code_mode(b, MODE_64);
	is_slow(b, LAST_PAGE + 8, false);
	writes(b, ABOVE_LAST, 8);
}

static void test_narrow(struct bench *b)
{
	for (unsigned large = 0; large < 2; large++)
		check_narrow(b, large, FLAGS_LEAF | PTE_D);
}

static void test_narrow_user(struct bench *b)
{
	set_cpl(b->v, 3);
	for (unsigned large = 0; large < 2; large++)
		check_narrow(b, large, FLAGS_ALL | PTE_D);
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

	/* A page that was code once, in a mapping made before it is code again. */
	put(b->b, data(20), 20, 8);
	poke(b, pd_entry(PD_K, LARGE) + 48, DATA | FLAGS_LEAF | PTE_PS | PTE_D | PTE_G);
	reads(b, LARGE + 0xc00000, 0);
	decode_from(b, data(20));
	is_slow(b, LARGE + 0xc14000, true);
	reads(b, LARGE + 0xc14000, 20);

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
	touch(b->w, b->v, 0x0000800000000000ull, true);
	touch(b->w, b->v, 0xffff7fffffffffffull, true);
}

/* ---- limits ---- */

/* What was touched once weighs nothing after a while, and is there all the same. */
static void test_trim(struct bench *b)
{
	uint64_t before = host_shared_pages(), value, trims;
	struct bt_window_stats stats;

	set_cpl(b->v, 3);
	for (unsigned n = 1; n <= 12; n++) {
		poke(b, PD_U + 8 * n, DATA | FLAGS_ALL | PTE_PS | PTE_D);
		writes(b, ((uint64_t)n << 21) + 5 * PAGE_SIZE + 8 * n, n);
	}
	assert_true(host_shared_pages() >= before + 12 * 512);
	/* Where the host makes huge pages of shared memory, one was due before. */
	bt_windows_stats(b->w, &stats);
	trims = stats.trims;
	clock_set(b->v->clock, 1000000000);
	load_cr3(b, PML4);
	bt_windows_table(b->w, b->v);
	assert_true(host_shared_pages() < before + 512);
	attempt.faults = 0;
	for (unsigned n = 1; n <= 12; n++)
		for (unsigned k = 1; k <= 12; k++) {
			assert_true(translated(b->w, b->v, ((uint64_t)n << 21) + 5 * PAGE_SIZE + 8 * k, false, &value));
			assert_int_equal(value, k);
		}
	assert_int_equal(attempt.faults, 0);
	bt_windows_stats(b->w, &stats);
	assert_int_equal(stats.trims, trims + 1);
}

/* Windows of an address space whose tables are used for something else by now. */
static void test_dead_spaces(struct bench *b)
{
	struct bt_window_stats stats;
	uint64_t mappings;

	poke(b, PT_B, data(2) | FLAGS_ALL);
	set_cpl(b->v, 3);
	load_cr3(b, PML4_B);
	reads(b, USER, 2);
	bt_windows_stats(b->w, &stats);
	mappings = stats.mappings;
	for (unsigned n = 0; n < 40; n++) {
		for (unsigned page = 0; page < 40; page += 2)
			poke(b, user_entry(page), data(100 - page) | FLAGS_ALL);
		load_cr3(b, PML4);
		for (unsigned page = 0; page < 40; page += 2)
			reads(b, user(page), 100 - page);
		poke(b, pml4_entry(PML4, USER), 0);
		/* Others come and go; each has a look at some that were there before. */
		for (unsigned other = 0; other < 8; other++) {
			uint64_t pml4 = DATA + 0x800000 + other * PAGE_SIZE;

			memcpy(mem_map(b->b->mem, gpa(pml4), PAGE_SIZE, true),
			       mem_map(b->b->mem, gpa(PML4_B), PAGE_SIZE, false), PAGE_SIZE);
			load_cr3(b, pml4);
			reads(b, USER, 2);
		}
		bt_windows_stats(b->w, &stats);
		assert_int_equal(stats.mappings, mappings);
		poke(b, pml4_entry(PML4, USER), PDPT_U | FLAGS_ALL);
	}
	/* The window that the others share is still there. */
	attempt.faults = 0;
	load_cr3(b, PML4_B);
	reads(b, USER, 2);
	assert_int_equal(attempt.faults, 0);
}

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

#define BENCH_TEST(f)                                                                                                  \
	{                                                                                                              \
		.name = #f, .test_func = on_bench, .initial_state = &(struct bench_test) { f }                         \
	}

/* A window that one vCPU took out of the table which another is using is not used for anything else meanwhile. */
static void test_window_held_by_another(void **state)
{
	struct bench *b = bench_create(&(struct window_limits){ .windows = 8, .spaces = 4 });
	struct error err;
	struct vcpu *other = vcpu_create(sizeof(struct vcpu), 1, &b->b->model, b->b->mem, b->v->clock, &b->b->trace,
					 &bare_env, b->b, &err);
	uint64_t old, value;
	(void)state;

	assert_non_null(other);
	other->engine = &b->engine;
	other->hooks = &bt_window_hooks;
	set_cpl(b->v, 3);
	other->s = b->v->s;
	cpu_update_mode(other);
	for (unsigned slot = 0; slot < 12; slot++)
		poke(b, PML4 + 8 * slot, PDPT_U | FLAGS_ALL);
	poke(b, user_entry(0), data(1) | FLAGS_ALL);
	poke(b, PT_B, data(2) | FLAGS_ALL);
	assert_true(translated_twice(b->w, other, USER, false, &value));
	old = host_address(bt_windows_table(b->w, other), USER);

	poke(b, PML4, PDPT_B | FLAGS_ALL);
	cpu_tlb_flush(b->v);
	for (unsigned slot = 0; slot < 7; slot++)
		reads(b, slot * WINDOW_SIZE + USER, slot ? 1 : 2);
	is_slow(b, 7 * WINDOW_SIZE + USER, false);
	attempt.v = other;
	assert_false(read_host(old, &value));

	bt_windows_table(b->w, other);
	reads(b, 7 * WINDOW_SIZE + USER, 1);
	attempt.v = other;
	bt_windows_leave(b->w, other);
	vcpu_destroy(other);
	bench_destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BENCH_TEST(test_tables),
		BENCH_TEST(test_table_reach),
		BENCH_TEST(test_views),
		BENCH_TEST(test_known_windows),
		BENCH_TEST(test_old_window),
		BENCH_TEST(test_access_to_user_pages_with_ac),
		BENCH_TEST(test_rights),
		BENCH_TEST(test_accessed_and_dirty),
		BENCH_TEST(test_after_a_page_fault),
		BENCH_TEST(test_runs),
		BENCH_TEST(test_graduate),
		BENCH_TEST(test_graduate_without_end),
		BENCH_TEST(test_shed),
		BENCH_TEST(test_revalidation),
		BENCH_TEST(test_upper_levels),
		BENCH_TEST(test_spaces),
		BENCH_TEST(test_global),
		BENCH_TEST(test_global_page_elsewhere),
		BENCH_TEST(test_aliases),
		BENCH_TEST(test_page_crossing),
		BENCH_TEST(test_code_pages),
		BENCH_TEST(test_code_in_tables),
		BENCH_TEST(test_hints_mark_nothing),
		BENCH_TEST(test_one_walk),
		BENCH_TEST(test_narrow),
		BENCH_TEST(test_narrow_user),
		BENCH_TEST(test_large_pages),
		BENCH_TEST(test_large_pages_with_holes),
		BENCH_TEST(test_hostile_tables),
		BENCH_TEST(test_trim),
		BENCH_TEST(test_dead_spaces),
		cmocka_unit_test(test_eviction),
		cmocka_unit_test(test_window_held_by_another),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
