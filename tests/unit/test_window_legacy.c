/*
 * Windows of the translator outside long mode: 32-bit paging with and without large pages, PAE, no paging. What is shared with
 * 4-level paging is test_window's.
 */
#define _GNU_SOURCE /* REG_ERR */
#include "lib/window_bench.h"

#define DIRECTORY   PML4 /* of 32-bit paging: 1,024 entries of 4 bytes */
#define DIRECTORY_B PML4_B
#define LOW	    0x00400000u /* linear addresses: the first that an entry of a directory maps */
#define HIGH	    0xc0000000u
#define HALF	    0x00200000u	  /* half of what it maps */
#define PDPT_A	    (PML4 + 0x20) /* of PAE: two in one page */
#define PDPT_C	    (PML4 + 0x40)

struct bench_test {
	void (*run)(struct bench *);
};

static void on_bench(void **state)
{
	const struct bench_test *test = *state;
	struct bench *b = bench_create(&(struct window_limits){ .windows = 16, .spaces = 8 });

	test->run(b);
	bench_destroy(b);
}

static void poke32(struct bench *b, uint64_t at, uint32_t value)
{
	__atomic_store_n((uint32_t *)mem_map(b->b->mem, gpa(at), 4, true), value, __ATOMIC_SEQ_CST);
}

static uint32_t peek32(struct bench *b, uint64_t at) { return (uint32_t)get(b->b, at, 4); }

static void protected_mode(struct bench *b, uint64_t cr0, uint64_t cr4, uint64_t cr3)
{
	struct vcpu *v = b->v;

	v->s.cr0 = CR0_PE | CR0_WP | CR0_ET | cr0;
	v->s.cr4 = cr4;
	v->s.efer = 0;
	v->s.seg_attr[CS] = ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | ATTR_DB;
	cpu_update_mode(v);
	cpu_tlb_flush(v);
	load_cr3(b, cr3);
}

/* ---- 32-bit paging ---- */

static uint64_t entry32(uint64_t table, unsigned n) { return table + 4ull * n; }

static void build_32_bit(struct bench *b, uint64_t cr4)
{
	memset(mem_map(b->b->mem, gpa(PML4), TABLES_END - PML4, true), 0, TABLES_END - PML4);
	poke32(b, entry32(DIRECTORY, LOW >> 22), PT_U | FLAGS_ALL);
	poke32(b, entry32(DIRECTORY, HIGH >> 22), PT_K | FLAGS_LEAF);
	poke32(b, entry32(DIRECTORY_B, LOW >> 22), PT_B | FLAGS_ALL);
	poke32(b, entry32(DIRECTORY_B, HIGH >> 22), PT_K | FLAGS_LEAF);
	protected_mode(b, CR0_PG, cr4, DIRECTORY);
}

static void test_32_bit_pages(struct bench *b)
{
	build_32_bit(b, 0);
	poke32(b, entry32(PT_U, 0), (uint32_t)data(1) | FLAGS_ALL);
	poke32(b, entry32(PT_U, 1), (uint32_t)data(2) | FLAGS_ALL);
	poke32(b, entry32(PT_U, 512), (uint32_t)data(3) | FLAGS_ALL); /* the first page of the second half */
	poke32(b, entry32(PT_U, 1023), (uint32_t)data(4) | FLAGS_ALL);
	reads(b, LOW, 1);
	reads(b, LOW + PAGE_SIZE, 2);
	reads(b, LOW + HALF, 3);
	reads(b, LOW + 2 * HALF - PAGE_SIZE, 4);
	is_slow(b, LOW + 2 * PAGE_SIZE, false);
	is_slow(b, LOW + HALF + PAGE_SIZE, false);
	is_slow(b, (1ull << 32) + LOW, false);

	/* INVLPG, and CR3. */
	poke32(b, entry32(PT_U, 512), (uint32_t)data(5) | FLAGS_ALL);
	poke32(b, entry32(PT_U, 1), (uint32_t)data(6) | FLAGS_ALL);
	cpu_tlb_flush_page(b->v, gva(LOW + HALF));
	reads(b, LOW + HALF, 5);
	load_cr3(b, DIRECTORY);
	reads(b, LOW + PAGE_SIZE, 6);
	reads(b, LOW, 1);
	poke32(b, entry32(DIRECTORY, LOW >> 22), 0);
	load_cr3(b, DIRECTORY);
	is_slow(b, LOW, false);
	is_slow(b, LOW + HALF, false);
}

/* Each entry has its own bits: the one beside it stays. */
static void test_32_bit_accessed_and_dirty(struct bench *b)
{
	const uint32_t fresh = PTE_P | PTE_W | PTE_U;

	build_32_bit(b, 0);
	poke32(b, entry32(DIRECTORY, LOW >> 22), PT_U | fresh);
	for (unsigned n = 0; n < 4; n++)
		poke32(b, entry32(PT_U, n), (uint32_t)data(n) | fresh);
	reads(b, LOW + PAGE_SIZE, 1);
	assert_int_equal(peek32(b, entry32(DIRECTORY, LOW >> 22)), PT_U | fresh | PTE_A);
	assert_int_equal(peek32(b, entry32(PT_U, 0)), data(0) | fresh);
	assert_int_equal(peek32(b, entry32(PT_U, 1)), data(1) | fresh | PTE_A);
	assert_int_equal(peek32(b, entry32(PT_U, 2)), data(2) | fresh);
	writes(b, LOW + 2 * PAGE_SIZE, 77);
	assert_int_equal(peek32(b, entry32(PT_U, 1)), data(1) | fresh | PTE_A);
	assert_int_equal(peek32(b, entry32(PT_U, 2)), data(2) | fresh | PTE_A | PTE_D);
	assert_int_equal(peek32(b, entry32(PT_U, 3)), data(3) | fresh);
	assert_int_equal(peek(b, data(2)), 77);
	/* Cleared, they are set again after a flush. */
	poke32(b, entry32(PT_U, 2), (uint32_t)data(2) | fresh | PTE_A);
	load_cr3(b, DIRECTORY);
	writes(b, LOW + 2 * PAGE_SIZE, 78);
	assert_int_equal(peek32(b, entry32(PT_U, 2)), data(2) | fresh | PTE_A | PTE_D);
}

static void test_views(struct bench *b)
{
	build_32_bit(b, 0);
	poke32(b, entry32(PT_U, 0), (uint32_t)data(1) | FLAGS_ALL);
	poke32(b, entry32(PT_U, 1), (uint32_t)data(2) | (FLAGS_ALL & ~PTE_W));
	poke32(b, entry32(PT_K, 0), (uint32_t)data(3) | FLAGS_LEAF);

	/* A supervisor has all in one place. */
	reads(b, LOW, 1);
	reads(b, HIGH, 3);
	reads(b, LOW + PAGE_SIZE, 2);
	is_slow(b, LOW + PAGE_SIZE, true);
	attempt.faults = 0;
	reads(b, LOW, 1);
	reads(b, HIGH, 3);
	assert_int_equal(attempt.faults, 0);

	set_cpl(b->v, 3);
	reads(b, LOW, 1);
	is_slow(b, HIGH, false);
	poke32(b, entry32(PT_U, 0), (uint32_t)data(1) | FLAGS_LEAF);
	cpu_tlb_flush_page(b->v, gva(LOW));
	is_slow(b, LOW, false);
	set_cpl(b->v, 0);
	reads(b, LOW, 1);

	/* With SMAP only its own, but for AC. */
	b->v->s.cr4 |= CR4_SMAP;
	cpu_tlb_flush(b->v);
	cpu_update_mode(b->v);
	reads(b, HIGH, 3);
	reads(b, LOW, 1);
	is_slow(b, LOW + PAGE_SIZE, false);
	set_ac(b->v, true);
	reads(b, LOW + PAGE_SIZE, 2);
	reads(b, HIGH, 3);
	set_ac(b->v, false);
	is_slow(b, LOW + PAGE_SIZE, false);
}

static void test_32_bit_spaces(struct bench *b)
{
	build_32_bit(b, CR4_PGE);
	poke32(b, entry32(PT_U, 0), (uint32_t)data(1) | FLAGS_ALL);
	poke32(b, entry32(PT_B, 0), (uint32_t)data(2) | FLAGS_ALL);
	poke32(b, entry32(PT_K, 0), (uint32_t)data(3) | FLAGS_LEAF | PTE_G);
	for (unsigned n = 0; n < 3; n++) {
		load_cr3(b, DIRECTORY);
		reads(b, LOW, 1);
		reads(b, HIGH, 3);
		load_cr3(b, DIRECTORY_B);
		reads(b, LOW, 2);
		reads(b, HIGH, 3);
	}
	/* INVLPG of what is global is felt in the other one, too. */
	poke32(b, entry32(PT_K, 0), (uint32_t)data(4) | FLAGS_LEAF | PTE_G);
	cpu_tlb_flush_page(b->v, gva(HIGH));
	load_cr3(b, DIRECTORY);
	reads(b, HIGH, 4);
}

/* ---- pages of 4 MiB: two regions of a window each ---- */

static void test_large_pages(struct bench *b)
{
	uint64_t entry = entry32(DIRECTORY, LOW >> 22);

	build_32_bit(b, CR4_PSE);
	poke32(b, entry, PTE_PS | FLAGS_ALL); /* the first 4 MiB of memory */
	reads(b, LOW + data(1), 1);
	reads(b, LOW + data(5), 5);
	assert_true(data(0) == HALF); /* so both were in the second half; and in the first: */
	reads(b, LOW + entry, peek(b, entry));
	assert_int_equal(peek32(b, entry), PTE_PS | FLAGS_ALL);
	writes(b, LOW + data(5), 55);
	assert_int_equal(peek(b, data(5)), 55);
	assert_int_equal(peek32(b, entry), PTE_PS | FLAGS_ALL | PTE_D);

	/* INVLPG of any address in it is of all of it. */
	poke32(b, entry, PT_U | FLAGS_ALL);
	cpu_tlb_flush_page(b->v, gva(LOW));
	is_slow(b, LOW + data(1), false);
	is_slow(b, LOW + DIRECTORY, false);
	poke32(b, entry, PTE_PS | FLAGS_ALL);
	load_cr3(b, DIRECTORY);
	reads(b, LOW + data(1), 1);
	poke32(b, entry, 0);
	cpu_tlb_flush_page(b->v, gva(LOW + data(7)));
	is_slow(b, LOW + DIRECTORY, false);
	is_slow(b, LOW + data(1), false);

	/* Reserved bit; more address than there is memory; without CR4.PSE it is a page table. */
	poke32(b, entry, PTE_PS | FLAGS_ALL | 1u << 21);
	load_cr3(b, DIRECTORY);
	is_slow(b, LOW, false);
	poke32(b, entry, PTE_PS | FLAGS_ALL | 1u << 20);
	load_cr3(b, DIRECTORY);
	is_slow(b, LOW, false);
	poke32(b, entry, PT_U | PTE_PS | FLAGS_ALL);
	poke32(b, entry32(PT_U, 0), (uint32_t)data(9) | FLAGS_ALL);
	protected_mode(b, CR0_PG, 0, DIRECTORY);
	reads(b, LOW, 9);
}

/* ---- PAE ---- */

static void test_pae(struct bench *b)
{
	memset(mem_map(b->b->mem, gpa(PML4), TABLES_END - PML4, true), 0, TABLES_END - PML4);
	poke(b, PDPT_A, PD_U | PTE_P);
	poke(b, PDPT_A + 24, PD_K | PTE_P);
	poke(b, PDPT_C, PD_B | PTE_P);
	poke(b, pd_entry(PD_U, LOW), PT_U | FLAGS_ALL);
	poke(b, pd_entry(PD_B, LOW), PT_B | FLAGS_ALL);
	poke(b, pd_entry(PD_K, HIGH), PT_K | FLAGS_LEAF);
	poke(b, PT_U, data(1) | FLAGS_ALL);
	poke(b, PT_B, data(2) | FLAGS_ALL);
	poke(b, PT_K, data(3) | FLAGS_LEAF);
	protected_mode(b, CR0_PG, CR4_PAE, PDPT_A);
	reads(b, LOW, 1);
	reads(b, HIGH, 3);
	is_slow(b, 0x40000000, false);
	load_cr3(b, PDPT_C);
	reads(b, LOW, 2);
	is_slow(b, HIGH, false);
	load_cr3(b, PDPT_A);
	reads(b, LOW, 1);

	/* Reserved bits, which four levels ignore: in the entry of a page, and of a table. */
	poke(b, PT_U, data(1) | FLAGS_ALL | BIT(57));
	cpu_tlb_flush(b->v);
	is_slow(b, LOW, false);
	poke(b, PT_U, data(1) | FLAGS_ALL);
	reads(b, LOW, 1);
	poke(b, pd_entry(PD_U, LOW), PT_U | FLAGS_ALL | BIT(52));
	cpu_tlb_flush(b->v);
	is_slow(b, LOW, false);
	poke(b, pd_entry(PD_U, LOW), PT_U | FLAGS_ALL);
	reads(b, LOW, 1);

	/* PDPTEs are in registers: a new one counts when CR3 is loaded. */
	poke(b, PDPT_A, PD_B | PTE_P);
	reads(b, LOW, 1);
	load_cr3(b, PDPT_A);
	reads(b, LOW, 2);
	poke(b, PDPT_A, 0);
	load_cr3(b, PDPT_A);
	is_slow(b, LOW, false);
	reads(b, HIGH, 3);
	set_cpl(b->v, 3);
	is_slow(b, HIGH, false);
}

/* ---- no paging, and from one kind to the other ---- */

static void test_no_paging(struct bench *b)
{
	build_32_bit(b, CR4_PSE);
	poke32(b, entry32(PT_U, 0), (uint32_t)data(7) | FLAGS_ALL);
	reads(b, LOW, 7);
	protected_mode(b, 0, CR4_PSE, DIRECTORY);
	reads(b, data(1), 1);
	reads(b, DIRECTORY, peek(b, DIRECTORY));
	writes(b, data(2), 22);
	assert_int_equal(peek(b, data(2)), 22);
	is_slow(b, NOWHERE, false);
	is_slow(b, DEVICE, false);
	set_cpl(b->v, 3);
	reads(b, data(3), 3);
	set_cpl(b->v, 0);
	protected_mode(b, CR0_PG, CR4_PSE, DIRECTORY);
	reads(b, LOW, 7);
	is_slow(b, data(1), false);

	/* Real mode has the same address space. */
	b->v->s.cr0 = CR0_ET;
	cpu_update_mode(b->v);
	cpu_tlb_flush(b->v);
	assert_non_null(bt_windows_table(b->w, b->v));
	assert_int_equal(peek(b, data(2)), 22);
}

#define BENCH_TEST(name)                                                                                               \
	{                                                                                                              \
#name, on_bench, NULL, NULL, &(struct bench_test) { name }                                             \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BENCH_TEST(test_32_bit_pages), BENCH_TEST(test_32_bit_accessed_and_dirty),
		BENCH_TEST(test_views),	       BENCH_TEST(test_32_bit_spaces),
		BENCH_TEST(test_large_pages),  BENCH_TEST(test_pae),
		BENCH_TEST(test_no_paging),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
