/*
 * Page walks, rights and error codes, accessed and dirty bits, the TLB and its flushes, slow paths of memory accesses.
 */
#include "lib/bare_cpu.h"

#include "cpu/private.h"

#define P  BIT(0)
#define W  BIT(1)
#define U  BIT(2)
#define A  BIT(5)
#define D  BIT(6)
#define PS BIT(7)
#define G  BIT(8)
#define NX BIT(63)

/* Tables; the pages that they map are elsewhere. */
#define PML4	   0x10000ull
#define PDPT	   0x11000ull
#define PD	   0x12000ull
#define PT	   0x13000ull
#define PML4_OTHER 0x14000ull

#define LIN   0xffff800012345678ull
#define FRAME 0x345000ull /* the page of LIN */

static uint64_t slot(uint64_t table, uint64_t lin, unsigned shift) { return table + bits(lin, shift + 8, shift) * 8; }

static void long_mode(struct bare_cpu *b)
{
	struct vcpu *v = b->v;

	v->s.cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET;
	v->s.cr3 = PML4;
	v->s.cr4 = CR4_PAE | CR4_PGE;
	v->s.efer = EFER_LME | EFER_LMA | EFER_NXE;
	v->s.seg_attr[CS] = ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | ATTR_L;
	v->s.seg_attr[SS] = ATTR_P | ATTR_S | ATTR_WRITABLE;
	cpu_update_mode(v);
	cpu_tlb_flush(v);
}

static void set_cpl(struct vcpu *v, unsigned cpl)
{
	v->s.seg_attr[SS] = (uint16_t)((v->s.seg_attr[SS] & ~ATTR_DPL) | cpl << ATTR_DPL_SHIFT);
	cpu_update_mode(v);
}

/* Map LIN's page at every level with these bits in the leaf and all rights above. */
static void map_4k(struct bare_cpu *b, uint64_t leaf)
{
	long_mode(b);
	put(b, slot(PML4, LIN, 39), PDPT | P | W | U, 8);
	put(b, slot(PDPT, LIN, 30), PD | P | W | U, 8);
	put(b, slot(PD, LIN, 21), PT | P | W | U, 8);
	put(b, slot(PT, LIN, 12), leaf, 8);
}

static void expect_ok(struct bare_cpu *b, uint64_t lin, enum access access, bool user, bool ac, uint64_t page)
{
	struct page_walk walk;
	struct fault fault = { 0 };
	int result = cpu_walk(b->v, gva(lin), access, user, ac, &walk, &fault);

	if (result)
		fail_msg("walk of %#lx: vector %u error %#x", lin, fault.vector, fault.error);
	assert_int_equal(walk.page.v, page);
}

static void expect_fault(struct bare_cpu *b, uint64_t lin, enum access access, bool user, bool ac, unsigned error)
{
	struct page_walk walk;
	struct fault fault = { 0 };

	assert_int_equal(cpu_walk(b->v, gva(lin), access, user, ac, &walk, &fault), -1);
	assert_int_equal(fault.vector, EXC_PF);
	assert_true(fault.has_error);
	assert_int_equal(fault.error, error);
	assert_int_equal(fault.address, lin);
}

/* ---- 4-level ---- */

static void test_no_paging(void **state)
{
	struct bare_cpu *b = *state;

	expect_ok(b, 0x12345678, ACCESS_WRITE, false, false, 0x12345000);
	expect_ok(b, 0x1f2345678, ACCESS_WRITE, false, false, 0xf2345000); /* linear addresses have 32 bits */
}

static void test_4k_rights(void **state)
{
	static const enum access all[] = { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };
	struct bare_cpu *b = *state;

	/* Every combination of rights at each level: the strictest counts. */
	for (unsigned level = 0; level < 4; level++) {
		for (unsigned rights = 0; rights < 8; rights++) {
			uint64_t entry = P | (rights & 1 ? W : 0) | (rights & 2 ? U : 0) | (rights & 4 ? NX : 0);
			const uint64_t where[] = { slot(PML4, LIN, 39), slot(PDPT, LIN, 30), slot(PD, LIN, 21),
						   slot(PT, LIN, 12) };
			const uint64_t target[] = { PDPT, PD, PT, FRAME };

			map_4k(b, FRAME | P | W | U);
			put(b, where[level], target[level] | entry, 8);
			for (unsigned n = 0; n < 3; n++) {
				unsigned base = PF_P | (all[n] == ACCESS_WRITE ? PF_W : 0) |
						(all[n] == ACCESS_FETCH ? PF_I : 0);
				bool right = all[n] == ACCESS_WRITE   ? entry & W
					     : all[n] == ACCESS_FETCH ? !(entry & NX)
								      : true;

				if (right && (entry & U))
					expect_ok(b, LIN, all[n], true, false, FRAME);
				else
					expect_fault(b, LIN, all[n], true, false, base | PF_U);
				if (right)
					expect_ok(b, LIN, all[n], false, false, FRAME);
				else
					expect_fault(b, LIN, all[n], false, false, base);
			}
		}
	}
}

static void test_not_present(void **state)
{
	struct bare_cpu *b = *state;
	const uint64_t where[] = { slot(PML4, LIN, 39), slot(PDPT, LIN, 30), slot(PD, LIN, 21), slot(PT, LIN, 12) };

	for (unsigned level = 0; level < 4; level++) {
		map_4k(b, FRAME | P | W | U);
		put(b, where[level], get(b, where[level], 8) & ~P, 8);
		expect_fault(b, LIN, ACCESS_READ, false, false, 0);
		expect_fault(b, LIN, ACCESS_WRITE, true, false, PF_W | PF_U);
		expect_fault(b, LIN, ACCESS_FETCH, true, false, PF_I | PF_U);
	}
}

static void test_reserved(void **state)
{
	struct bare_cpu *b = *state;
	const uint64_t where[] = { slot(PML4, LIN, 39), slot(PDPT, LIN, 30), slot(PD, LIN, 21), slot(PT, LIN, 12) };

	for (unsigned level = 0; level < 4; level++) {
		for (unsigned bit = 40; bit < 64; bit++) {
			map_4k(b, FRAME | P | W | U);
			put(b, where[level], get(b, where[level], 8) | BIT(bit), 8);
			b->v->s.efer &= ~EFER_NXE;
			if (bit < 52 || bit == 63)
				expect_fault(b, LIN, ACCESS_WRITE, true, false, PF_P | PF_W | PF_U | PF_RSVD);
			else
				expect_ok(b, LIN, ACCESS_WRITE, true, false, FRAME);
			/* Without NXE and SMEP the I bit is not reported. */
			if (bit == 63)
				expect_fault(b, LIN, ACCESS_FETCH, false, false, PF_P | PF_RSVD);
		}
	}
	map_4k(b, FRAME | P | W | U);
	put(b, slot(PML4, LIN, 39), PDPT | P | W | U | PS, 8);
	expect_fault(b, LIN, ACCESS_READ, false, false, PF_P | PF_RSVD);
}

static void test_large_pages(void **state)
{
	struct bare_cpu *b = *state;

	map_4k(b, FRAME | P | W | U);
	put(b, slot(PD, LIN, 21), 0x800000 | P | W | U | PS, 8);
	expect_ok(b, LIN, ACCESS_READ, true, false, 0x800000 | (LIN & 0x1ff000));
	for (unsigned bit = 13; bit <= 20; bit++) {
		put(b, slot(PD, LIN, 21), 0x800000 | P | W | U | PS | BIT(bit), 8);
		expect_fault(b, LIN, ACCESS_READ, true, false, PF_P | PF_U | PF_RSVD);
	}
	put(b, slot(PD, LIN, 21), 0x800000 | P | W | U | PS | BIT(12), 8); /* PAT */
	expect_ok(b, LIN, ACCESS_READ, true, false, 0x800000 | (LIN & 0x1ff000));

	put(b, slot(PDPT, LIN, 30), 0x80000000 | P | W | U | PS, 8);
	expect_ok(b, LIN, ACCESS_WRITE, true, false, 0x80000000 | (LIN & 0x3ffff000));
	assert_int_equal(get(b, slot(PDPT, LIN, 30), 8), 0x80000000 | P | W | U | PS | A | D);
	for (unsigned bit = 13; bit <= 29; bit++) {
		put(b, slot(PDPT, LIN, 30), 0x80000000 | P | W | U | PS | BIT(bit), 8);
		expect_fault(b, LIN, ACCESS_READ, true, false, PF_P | PF_U | PF_RSVD);
	}
	put(b, slot(PDPT, LIN, 30), 0x80000000 | P | W | U | PS, 8);
	b->model.features[FEATURE_PDPE1GB] = false;
	expect_fault(b, LIN, ACCESS_READ, true, false, PF_P | PF_U | PF_RSVD);
}

static void test_accessed_dirty(void **state)
{
	struct bare_cpu *b = *state;
	const uint64_t where[] = { slot(PML4, LIN, 39), slot(PDPT, LIN, 30), slot(PD, LIN, 21), slot(PT, LIN, 12) };

	map_4k(b, FRAME | P | U);
	/* A refused access leaves no trace. */
	expect_fault(b, LIN, ACCESS_WRITE, true, false, PF_P | PF_W | PF_U);
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(get(b, where[n], 8) & (A | D), 0);
	expect_ok(b, LIN, ACCESS_READ, true, false, FRAME);
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(get(b, where[n], 8) & (A | D), A);
	put(b, where[3], FRAME | P | U | W, 8);
	expect_ok(b, LIN, ACCESS_WRITE, true, false, FRAME);
	assert_int_equal(get(b, where[3], 8), FRAME | P | U | W | A | D);
	for (unsigned n = 0; n < 3; n++)
		assert_int_equal(get(b, where[n], 8) & (A | D), A);
}

static void test_debug_translation(void **state)
{
	struct bare_cpu *b = *state;
	gpa_t where;

	map_4k(b, FRAME | P);
	assert_int_equal(cpu_translate_debug(b->v, gva(LIN), &where), 0);
	assert_int_equal(where.v, FRAME | (LIN & 0xfff));
	assert_int_equal(get(b, slot(PT, LIN, 12), 8), FRAME | P);
	put(b, slot(PT, LIN, 12), 0, 8);
	assert_int_equal(cpu_translate_debug(b->v, gva(LIN), &where), -1);
	assert_int_equal(cpu_translate_debug(b->v, gva(0x800000000000), &where), -1);
}

static void test_canonical(void **state)
{
	struct bare_cpu *b = *state;
	struct page_walk walk;
	struct fault fault;

	long_mode(b);
	assert_int_equal(cpu_walk(b->v, gva(0x800000000000), ACCESS_READ, false, false, &walk, &fault), -1);
	assert_int_equal(fault.vector, EXC_GP);
	assert_true(fault.has_error);
	assert_int_equal(fault.error, 0);
	assert_true(RAISES(b->v, cpu_load(b->v, 0xffff7ffffffffff8, 8, false)));
	assert_int_equal(b->v->fault.vector, EXC_GP);
	assert_true(RAISES(b->v, cpu_store(b->v, 0xffff7ffffffffff8, 0, 8, true)));
	assert_int_equal(b->v->fault.vector, EXC_SS);
}

static void test_wp_smep_smap(void **state)
{
	struct bare_cpu *b = *state;

	map_4k(b, FRAME | P | U);
	expect_fault(b, LIN, ACCESS_WRITE, false, false, PF_P | PF_W);
	b->v->s.cr0 &= ~CR0_WP;
	expect_ok(b, LIN, ACCESS_WRITE, false, false, FRAME);
	expect_fault(b, LIN, ACCESS_WRITE, true, false, PF_P | PF_W | PF_U);

	expect_ok(b, LIN, ACCESS_FETCH, false, false, FRAME);
	b->v->s.cr4 |= CR4_SMEP;
	expect_fault(b, LIN, ACCESS_FETCH, false, false, PF_P | PF_I);
	expect_ok(b, LIN, ACCESS_FETCH, true, false, FRAME);
	/* SMEP alone makes the I bit visible. */
	b->v->s.efer &= ~EFER_NXE;
	expect_fault(b, LIN, ACCESS_FETCH, false, false, PF_P | PF_I);

	expect_ok(b, LIN, ACCESS_READ, false, false, FRAME);
	b->v->s.cr4 |= CR4_SMAP;
	expect_fault(b, LIN, ACCESS_READ, false, false, PF_P);
	expect_fault(b, LIN, ACCESS_WRITE, false, false, PF_P | PF_W);
	expect_ok(b, LIN, ACCESS_READ, false, true, FRAME);
	expect_ok(b, LIN, ACCESS_READ, true, false, FRAME);
}

static void test_tables_outside_ram(void **state)
{
	struct bare_cpu *b = *state;

	/* All ones: the reserved bits are set. */
	map_4k(b, FRAME | P | W | U);
	b->v->s.cr3 = 0xfe000000;
	expect_fault(b, LIN, ACCESS_READ, false, false, PF_P | PF_RSVD);
	b->v->s.cr3 = PML4;
	put(b, slot(PD, LIN, 21), 0x4000000000 | P | W | U, 8);
	expect_fault(b, LIN, ACCESS_WRITE, true, false, PF_P | PF_RSVD | PF_U | PF_W);
}

/* ---- 32-bit and PAE ---- */

static void test_legacy(void **state)
{
	struct bare_cpu *b = *state;
	const uint64_t lin = 0x12345678, pde = PD + bits(lin, 31, 22) * 4, pte = PT + bits(lin, 21, 12) * 4;

	b->v->s.cr0 = CR0_PE | CR0_PG | CR0_WP;
	b->v->s.cr3 = PD;
	cpu_update_mode(b->v);
	expect_fault(b, lin, ACCESS_READ, false, false, 0);
	put(b, pde, PT | P | W | U, 4);
	expect_fault(b, lin, ACCESS_WRITE, true, false, PF_W | PF_U);
	put(b, pte, FRAME | P | U, 4);
	expect_ok(b, lin, ACCESS_FETCH, true, false, FRAME);
	expect_fault(b, lin, ACCESS_WRITE, true, false, PF_P | PF_W | PF_U);
	assert_int_equal(get(b, pde, 4), PT | P | W | U | A);
	assert_int_equal(get(b, pte, 4), FRAME | P | U | A);
	put(b, pte, FRAME | P | W, 4);
	expect_fault(b, lin, ACCESS_FETCH, true, false, PF_P | PF_U);
	expect_ok(b, lin, ACCESS_WRITE, false, false, FRAME);
	assert_int_equal(get(b, pte, 4), FRAME | P | W | A | D);

	/* PS means nothing without CR4.PSE. */
	put(b, pde, PT | P | W | U | PS, 4);
	expect_ok(b, lin, ACCESS_READ, false, false, FRAME);
	b->v->s.cr4 = CR4_PSE;
	put(b, pde, 0xc00000 | P | W | U | PS | 0x5 << 13, 4);
	expect_ok(b, lin, ACCESS_WRITE, true, false, 0x500000000 | 0xc00000 | (lin & 0x3ff000));
	assert_int_equal(get(b, pde, 4), 0xc00000 | P | W | U | PS | 0x5 << 13 | A | D);
	put(b, pde, 0xc00000 | P | W | U | PS | BIT(21), 4);
	expect_fault(b, lin, ACCESS_READ, true, false, PF_P | PF_RSVD | PF_U);
	b->model.features[FEATURE_PSE36] = false;
	put(b, pde, 0xc00000 | P | W | U | PS | 1 << 13, 4);
	expect_fault(b, lin, ACCESS_READ, true, false, PF_P | PF_RSVD | PF_U);
}

static void cpu_write_pdptes(struct bare_cpu *b, uint64_t cr3, uint64_t entry)
{
	b->v->s.cr3 = cr3;
	b->v->s.pdpte[0] = b->v->s.pdpte[1] = b->v->s.pdpte[2] = 0;
	b->v->s.pdpte[3] = entry;
}

static void test_pae(void **state)
{
	struct bare_cpu *b = *state;
	const uint64_t lin = 0xd2345678;

	b->v->s.cr0 = CR0_PE | CR0_PG | CR0_WP;
	b->v->s.cr4 = CR4_PAE;
	b->v->s.efer = EFER_NXE;
	cpu_update_mode(b->v);
	cpu_write_pdptes(b, PDPT, 0);
	expect_fault(b, lin, ACCESS_READ, true, false, PF_U);
	cpu_write_pdptes(b, PDPT, PD | P);
	put(b, slot(PD, lin, 21), PT | P | W | U, 8);
	put(b, slot(PT, lin, 12), FRAME | P | W | U | NX, 8);
	expect_ok(b, lin, ACCESS_WRITE, true, false, FRAME);
	expect_fault(b, lin, ACCESS_FETCH, true, false, PF_P | PF_U | PF_I);
	put(b, slot(PD, lin, 21), 0x800000 | P | W | PS, 8);
	expect_ok(b, lin, ACCESS_READ, false, false, 0x800000 | (lin & 0x1ff000));
	/* Bits 62..52 are reserved here, unlike in 4-level paging. */
	for (unsigned bit = 40; bit < 63; bit++) {
		put(b, slot(PD, lin, 21), 0x800000 | P | W | PS | BIT(bit), 8);
		expect_fault(b, lin, ACCESS_READ, false, false, PF_P | PF_RSVD);
	}
}

/* ---- TLB ---- */

static void test_tlb(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	uint64_t misses;

	map_4k(b, FRAME | P | W);
	put(b, FRAME + 0x678, 0x1122334455667788, 8);
	assert_int_equal(cpu_load(v, LIN, 8, false), 0x1122334455667788);
	/* Read first: the page is not dirty, so a write must walk. */
	assert_int_equal(tlb_slot(v, LIN)->write_tag, 0);
	cpu_store(v, LIN, 0xaa, 1, false);
	assert_int_equal(get(b, slot(PT, LIN, 12), 8) & D, D);
	misses = v->count[COUNT_TLB_MISSES];
	assert_int_equal(cpu_load(v, LIN, 8, false), 0x11223344556677aa);
	cpu_store(v, LIN, 0xbb, 1, false);
	assert_non_null(cpu_rmw(v, LIN, 8, false));
	assert_int_equal(v->count[COUNT_TLB_MISSES], misses);

	/* The table may change unseen until the flush. */
	put(b, slot(PT, LIN, 12), 0, 8);
	assert_int_equal(cpu_load(v, LIN, 1, false), 0xbb);
	cpu_tlb_flush_page(v, gva(LIN));
	assert_true(RAISES(v, cpu_load(v, LIN, 1, false)));
	assert_int_equal(v->fault.vector, EXC_PF);
	assert_int_equal(v->fault.address, LIN);

	/* Supervisor pages are not there for users. */
	put(b, slot(PT, LIN, 12), FRAME | P | W, 8);
	cpu_load(v, LIN, 1, false);
	set_cpl(v, 3);
	assert_true(RAISES(v, cpu_load(v, LIN, 1, false)));
	assert_int_equal(v->fault.error, PF_P | PF_U);
	assert_int_equal(cpu_system_load(v, LIN, 1), 0xbb);
}

static void test_tlb_asids_run_out(void **state)
{
	struct bare_cpu *b = *state;

	map_4k(b, FRAME | P | W);
	cpu_load(b->v, LIN, 1, false);
	put(b, slot(PT, LIN, 12), (FRAME + 0x1000) | P | W, 8);
	put(b, FRAME + 0x1678, 0x77, 1);
	for (unsigned n = 0; n < 2 * TLB_ASIDS + 3; n++) {
		uint64_t before = b->v->address_space;

		cpu_tlb_flush(b->v);
		assert_true(b->v->address_space > before);
		assert_in_range(b->v->asid, 1, TLB_ASIDS - 1);
		if (n % 1000 == 0)
			assert_int_equal(cpu_load(b->v, LIN, 1, false), 0x77);
	}
	/* The same tag, one round later: the entry must not be taken for a new one. */
	cpu_load(b->v, LIN, 1, false);
	put(b, slot(PT, LIN, 12), 0, 8);
	for (uint64_t asid = b->v->asid, n = 0; n == 0 || b->v->asid != asid; n++)
		cpu_tlb_flush(b->v);
	assert_true(RAISES(b->v, cpu_load(b->v, LIN, 1, false)));
}

static void test_pcids_when_asids_run_out(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	uint64_t first;

	map_4k(b, FRAME | P | W);
	v->s.cr4 |= CR4_PCIDE;
	v->s.cr3 = PML4 | 1;
	cpu_tlb_switch(v, false);
	first = v->address_space;
	cpu_load(v, LIN, 1, false);
	v->s.cr3 = PML4 | 2;
	put(b, slot(PT, LIN, 12), 0, 8);
	for (unsigned n = 0; n < TLB_ASIDS + 10; n++)
		cpu_tlb_switch(v, false);
	/* PCID 1's tag may be another's by now. */
	v->s.cr3 = PML4 | 1;
	cpu_tlb_switch(v, true);
	assert_int_not_equal(v->address_space, first);
	assert_true(RAISES(v, cpu_load(v, LIN, 1, false)));
}

static void test_flush_of_one_pcid(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	uint64_t one, two;

	map_4k(b, FRAME | P | W);
	v->s.cr4 |= CR4_PCIDE;
	v->s.cr3 = PML4 | 1;
	cpu_tlb_switch(v, false);
	one = v->address_space;
	v->s.cr3 = PML4 | 2;
	cpu_tlb_switch(v, false);
	two = v->address_space;
	cpu_tlb_flush_pcid(v, 1);
	assert_int_equal(v->address_space, two);
	v->s.cr3 = PML4 | 1;
	cpu_tlb_switch(v, true);
	assert_int_not_equal(v->address_space, one);
	one = v->address_space;
	cpu_tlb_flush_pcid(v, 1);
	assert_int_not_equal(v->address_space, one);
	v->s.cr3 = PML4 | 2;
	cpu_tlb_switch(v, true);
	assert_int_equal(v->address_space, two);
}

/* A dirty page that may only be read, by whom: the entry of a read must not let writes through. */
static void test_dirty_is_not_writable(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	map_4k(b, FRAME | P | U | D);
	cpu_load(v, LIN, 1, false);
	assert_true(RAISES(v, cpu_store(v, LIN, 1, 1, false)));
	assert_int_equal(v->fault.error, PF_P | PF_W);
	v->s.cr0 &= ~CR0_WP;
	cpu_tlb_flush(v);
	cpu_load(v, LIN, 1, false);
	assert_int_not_equal(tlb_slot(v, LIN)->write_tag, 0);
	set_cpl(v, 3);
	cpu_load(v, LIN, 1, false);
	assert_true(RAISES(v, cpu_store(v, LIN, 1, 1, false)));
	assert_int_equal(v->fault.error, PF_P | PF_W | PF_U);
}

static void test_pcid(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	uint64_t first;

	map_4k(b, FRAME | P | W);
	v->s.cr4 |= CR4_PCIDE;
	v->s.cr3 = PML4 | 1;
	cpu_tlb_switch(v, false);
	first = v->address_space;
	put(b, FRAME + 0x678, 1, 1);
	assert_int_equal(cpu_load(v, LIN, 1, false), 1);

	v->s.cr3 = PML4_OTHER | 2;
	cpu_tlb_switch(v, true); /* new to us: nothing to keep */
	assert_int_not_equal(v->address_space, first);
	assert_true(RAISES(v, cpu_load(v, LIN, 1, false)));

	/* Back without a flush: the translation is still there although the table has changed. */
	put(b, slot(PT, LIN, 12), 0, 8);
	v->s.cr3 = PML4 | 1;
	cpu_tlb_switch(v, true);
	assert_int_equal(v->address_space, first);
	assert_int_equal(cpu_load(v, LIN, 1, false), 1);
	/* With a flush it is gone. */
	cpu_tlb_switch(v, false);
	assert_int_not_equal(v->address_space, first);
	assert_true(RAISES(v, cpu_load(v, LIN, 1, false)));

	/* More address spaces than slots. */
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned pcid = 1; pcid < 40; pcid++) {
			v->s.cr3 = PML4 | pcid;
			cpu_tlb_switch(v, true);
			put(b, slot(PT, LIN, 12), FRAME | P | W, 8);
			assert_int_equal(cpu_load(v, LIN, 1, false), 1);
		}
	}
	/* INVLPG reaches the others too: a global page is everybody's. */
	put(b, slot(PT, LIN, 12), 0, 8);
	cpu_tlb_flush_page(v, gva(LIN));
	v->s.cr3 = PML4 | 38;
	cpu_tlb_switch(v, true);
	assert_true(RAISES(v, cpu_load(v, LIN, 1, false)));
}

static void test_invlpg_of_large_page(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	/* Any address in the page will do. */
	map_4k(b, 0);
	put(b, slot(PD, LIN, 21), 0x800000 | P | W | PS, 8);
	cpu_load(v, LIN, 1, false);
	put(b, slot(PD, LIN, 21), 0, 8);
	cpu_tlb_flush_page(v, gva((LIN & ~0x1fffffull) + 0x1000));
	assert_true(RAISES(v, cpu_load(v, LIN, 1, false)));

	put(b, slot(PDPT, LIN, 30), P | W | PS, 8); /* 1 GiB at 0 */
	cpu_load(v, (LIN & ~0x3fffffffull) + 0x345678, 1, false);
	put(b, slot(PDPT, LIN, 30), 0, 8);
	cpu_tlb_flush_page(v, gva((LIN & ~0x3fffffffull) + 0x3fff0000));
	assert_true(RAISES(v, cpu_load(v, (LIN & ~0x3fffffffull) + 0x345678, 1, false)));
}

static void test_fetch(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	uint8_t *host;
	uint64_t space;

	map_4k(b, FRAME | P | U);
	put(b, FRAME + 0x678, 0x90, 1);
	assert_int_equal(cpu_fetch_translate(v, gva(LIN), &host).v, FRAME | 0x678);
	assert_int_equal(*host, 0x90);
	v->s.cr4 |= CR4_SMEP;
	cpu_tlb_flush(v);
	assert_true(RAISES(v, cpu_fetch_translate(v, gva(LIN), &host)));
	assert_int_equal(v->fault.error, PF_P | PF_I);
	set_cpl(v, 3);
	assert_int_equal(cpu_fetch_translate(v, gva(LIN), &host).v, FRAME | 0x678);

	/* Who keeps (address, address_space) -> code must see that a page it fetched from was invalidated. */
	space = v->address_space;
	cpu_tlb_flush_page(v, gva(LIN + 0x100000));
	assert_int_equal(v->address_space, space);
	put(b, slot(PT, LIN, 12), 0, 8);
	cpu_tlb_flush_page(v, gva(LIN));
	assert_int_not_equal(v->address_space, space);
	assert_true(RAISES(v, cpu_fetch_translate(v, gva(LIN), &host)));
	assert_int_equal(v->fault.error, PF_U | PF_I);

	/* A device has no host address. */
	put(b, slot(PT, LIN, 12), 0xfee00000 | P | U, 8);
	assert_int_equal(cpu_fetch_translate(v, gva(LIN), &host).v, 0xfee00678);
	assert_null(host);
}

/* ---- slow paths ---- */

/* One host pointer leads to both pages; not while one holds code. */
static void check_crossing_rmw(struct bare_cpu *b, uint64_t lin)
{
	struct mem_page *page = mem_page(b->mem, gpa(0x500000));
	u64_any *both = cpu_rmw(b->v, lin, 8, false);

	assert_non_null(both);
	assert_int_equal(*both, 0x8877665544332211);
	__atomic_fetch_add(both, 1, __ATOMIC_SEQ_CST);
	assert_int_equal(get(b, FRAME + 0xffd, 3), 0x332212);
	assert_ptr_equal(cpu_rmw(b->v, lin, 8, false), both);
	/* Another page behind the first, and back. */
	put(b, 0x600000, 0xaa99, 2);
	put(b, slot(PT, lin + 3, 12), 0x600000 | P | W, 8);
	cpu_tlb_flush(b->v);
	assert_int_equal(*(u64_any *)cpu_rmw(b->v, lin, 4, false) & UINT32_MAX, 0x99332212);
	put(b, slot(PT, lin + 3, 12), 0x500000 | P | W, 8);
	cpu_tlb_flush(b->v);
	assert_int_equal(*(u64_any *)cpu_rmw(b->v, lin, 8, false), 0x8877665544332212);
	cpu_code_begin(b->v, page, gpa(0x500000), 1);
	assert_null(cpu_rmw(b->v, lin, 8, false));
	mem_note_write(b->mem, gpa(0x500000), 1);
}

static void test_page_crossing(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	const uint64_t lin = (LIN & PAGE_MASK) + 0xffd;

	map_4k(b, FRAME | P | W);
	put(b, FRAME + 0xffd, 0x332211, 3);
	put(b, 0x500000, 0x8877665544, 5);
	/* The second page is absent: nothing of the first is written. */
	assert_true(RAISES(v, cpu_store(v, lin, UINT64_MAX, 8, false)));
	assert_int_equal(v->fault.address, lin + 3);
	assert_int_equal(get(b, FRAME + 0xffd, 3), 0x332211);
	put(b, slot(PT, lin + 3, 12), 0x500000 | P | W, 8);
	assert_int_equal(cpu_load(v, lin, 8, false), 0x8877665544332211);
	check_crossing_rmw(b, lin);
	cpu_store(v, lin, 0x0102030405060708, 8, false);
	assert_int_equal(get(b, FRAME + 0xffd, 3), 0x060708);
	assert_int_equal(get(b, 0x500000, 5), 0x0102030405);

	/* Half memory, half device. */
	put(b, slot(PT, lin + 3, 12), 0xfed00000 | P | W, 8);
	cpu_tlb_flush(v);
	assert_int_equal(cpu_load(v, lin, 8, false), 0x0403020100060708);
	assert_int_equal(b->device_accesses, 2); /* 4 and 1 bytes */
}

static void test_devices_and_rom(void **state)
{
	static uint8_t __attribute__((aligned(4096))) rom[4096] = { 0x12, 0x34 };
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	cpu_update_mode(v);
	assert_int_equal(cpu_load(v, 0xfed00010, 4, false), 0x13121110);
	assert_int_equal(b->device_size, 4);
	cpu_store(v, 0xfed00010, 0xffffffff12345678, 2, false);
	assert_int_equal(b->device_value, 0x5678);
	assert_int_equal(b->device_address.v, 0xfed00010);
	assert_null(cpu_rmw(v, 0xfed00010, 4, false));

	assert_int_equal(mem_add_rom(b->mem, gpa(0xfffff000), rom, sizeof(rom), NULL), 0);
	assert_int_equal(cpu_load(v, 0xfffff000, 2, false), 0x3412);
	cpu_store(v, 0xfffff000, 0, 2, false);
	assert_int_equal(rom[0], 0x12);
	assert_null(cpu_rmw(v, 0xfffff000, 2, false));
	assert_int_equal(v->count[COUNT_MMIO_READS], 1);
}

/* Whatever raises goes where fast.c catches while that is asked for: with the guest's vector registers in the host's nobody else may. */
static __attribute__((noinline)) bool is_caught_fast(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg)
{
	void *landing[5];
	bool volatile caught = false;

	if (__builtin_setjmp(landing)) {
		caught = true;
	} else {
		v->fast_catch = landing;
		fn(v, arg);
	}
	v->fast_catch = NULL;
	return caught;
}

static void load_nowhere(struct vcpu *v, void *arg)
{
	(void)arg;
	cpu_load(v, LIN, 4, false);
}

static void fetch_nowhere(struct vcpu *v, void *arg)
{
	uint8_t *host;

	(void)arg;
	cpu_fetch_translate(v, gva(LIN), &host);
}

static void raise_plainly(struct vcpu *v, void *arg)
{
	(void)arg;
	cpu_raise_error(v, EXC_GP, 0);
}

static void raise_in_section(struct vcpu *v, void *fn) { cpu_exclusive(v, (void (*)(struct vcpu *, void *))fn, NULL); }

static void test_one_way_to_raise(void **state)
{
	static void (*const ways[])(struct vcpu *, void *) = { load_nowhere, fetch_nowhere, raise_plainly };
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	long_mode(b);
	if (setjmp(v->fault_jmp))
		fail_msg("raised beside fast_catch");
	for (unsigned n = 0; n < ARRAY_SIZE(ways); n++) {
		assert_true(is_caught_fast(v, ways[n], NULL));
		assert_int_equal(v->fault.vector, ways[n] == raise_plainly ? EXC_GP : EXC_PF);
		/* Out of an exclusive section only when that has ended. */
		assert_true(is_caught_fast(v, raise_in_section, (void *)ways[n]));
		assert_int_equal(b->exclusive_sections, n + 1);
		assert_int_equal(b->sections_left, n + 1);
	}
}

static unsigned code_written_calls;

static uint64_t count_code_written(struct vcpu *v, gpa_t at, size_t len, bool *hit)
{
	(void)v, (void)hit;
	assert_int_equal(at.v & PAGE_MASK, 0x5000);
	assert_true(len);
	code_written_calls++;
	return 0;
}

static void write_while_protecting(struct bare_cpu *b)
{
	uint64_t value = 1;

	b->in_exclusive = NULL;
	mem_write(b->mem, gpa(0x5040), &value, 1);
}

static void test_code_writes(void **state)
{
	static const struct vcpu_hooks hooks = { .code_written = count_code_written };
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	struct mem_page *page = mem_page(b->mem, gpa(0x5000));
	uint32_t generation;

	v->hooks = &hooks;
	code_written_calls = 0;
	cpu_store(v, 0x5040, 0x90, 1, false);
	assert_non_null(cpu_rmw(v, 0x5040, 1, false)); /* direct */
	generation = cpu_code_begin(v, page, gpa(0x5040), 16);
	assert_int_equal(b->exclusive_sections, 1);
	assert_int_equal(cpu_code_begin(v, page, gpa(0x5080), 16), generation);
	assert_int_equal(b->exclusive_sections, 1);
	assert_null(cpu_rmw(v, 0x5040, 1, false));

	cpu_store(v, 0x5200, 1, 4, false); /* elsewhere on the page */
	assert_int_equal(page->code_gen, generation);
	assert_int_equal(v->events & EVENT_CODE, 0);
	cpu_store(v, 0x503e, 1, 4, false); /* reaches into the decoded chunk */
	assert_int_not_equal(page->code_gen, generation);
	assert_int_equal(v->events & EVENT_CODE, EVENT_CODE);
	assert_int_equal(code_written_calls, 1);
	assert_int_equal(v->count[COUNT_CODE_WRITES], 1);

	/* Stores of bytes and across pages are noticed as well. */
	generation = cpu_code_begin(v, page, gpa(0x5000), 16);
	cpu_store_bytes(v, 0x5000, &generation, 3, false);
	assert_int_not_equal(page->code_gen, generation);
	generation = cpu_code_begin(v, page, gpa(0x5000), 16);
	cpu_store(v, 0x4ffe, 0, 4, false);
	assert_int_not_equal(page->code_gen, generation);
	assert_int_equal(code_written_calls, 3);

	/* A write between marking and protecting must not leave the page unmarked. */
	b->in_exclusive = write_while_protecting;
	generation = cpu_code_begin(v, page, gpa(0x5040), 16);
	assert_int_equal(page->code_gen, generation);
	assert_int_not_equal(page->code_chunks, 0);
	assert_null(cpu_rmw(v, 0x5040, 1, false));
}

static void test_byte_runs(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;
	const uint64_t lin = (LIN & PAGE_MASK) + 0xff0;
	uint8_t data[64], back[64];

	for (unsigned n = 0; n < sizeof(data); n++)
		data[n] = (uint8_t)(n + 1);
	map_4k(b, FRAME | P | W);
	assert_true(RAISES(v, cpu_store_bytes(v, lin, data, sizeof(data), false)));
	assert_int_equal(get(b, FRAME + 0xff0, 8), 0);
	put(b, slot(PT, lin + 0x10, 12), 0x500000 | P | W, 8);
	cpu_store_bytes(v, lin, data, sizeof(data), false);
	cpu_load_bytes(v, lin, back, sizeof(back), false);
	assert_memory_equal(data, back, sizeof(data));
	assert_int_equal(get(b, 0x500000, 1), 0x11);
}

static void test_smap_views(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	map_4k(b, FRAME | P | W | U);
	v->s.cr4 |= CR4_SMAP;
	cpu_update_mode(v);
	cpu_tlb_flush(v);
	assert_true(RAISES(v, cpu_load(v, LIN, 1, false)));
	assert_int_equal(v->fault.error, PF_P);
	cpu_set_rflags(v, cpu_rflags(v) | FLAG_AC);
	assert_int_equal(v->tlb_view, TLB_KERNEL_AC);
	cpu_store(v, LIN, 0x42, 1, false);
	assert_int_equal(cpu_load(v, LIN, 1, false), 0x42);
	/* Implicit accesses do not profit from AC. */
	assert_true(RAISES(v, cpu_system_load(v, LIN, 1)));
	cpu_set_rflags(v, cpu_rflags(v) & ~FLAG_AC);
	assert_true(RAISES(v, cpu_load(v, LIN, 1, false)));
	set_cpl(v, 3);
	assert_int_equal(cpu_load(v, LIN, 1, false), 0x42);
}

static void test_alignment(void **state)
{
	struct bare_cpu *b = *state;
	struct vcpu *v = b->v;

	map_4k(b, FRAME | P | W | U);
	set_cpl(v, 3);
	cpu_load(v, LIN + 1, 4, false);
	v->s.cr0 |= CR0_AM;
	cpu_set_rflags(v, cpu_rflags(v) | FLAG_AC);
	assert_true(RAISES(v, cpu_load(v, LIN + 1, 4, false)));
	assert_int_equal(v->fault.vector, EXC_AC);
	assert_int_equal(v->fault.error, 0);
	assert_true(v->fault.has_error);
	assert_true(RAISES(v, cpu_store(v, LIN + 4, 0, 8, false)));
	assert_false(RAISES(v, cpu_load(v, LIN, 8, false)));
	cpu_set_rflags(v, cpu_rflags(v) & ~FLAG_AC);
	assert_false(RAISES(v, cpu_load(v, LIN + 1, 4, false)));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bare_cpu_setup, bare_cpu_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_no_paging),
		TEST(test_4k_rights),
		TEST(test_not_present),
		TEST(test_reserved),
		TEST(test_large_pages),
		TEST(test_accessed_dirty),
		TEST(test_debug_translation),
		TEST(test_canonical),
		TEST(test_wp_smep_smap),
		TEST(test_tables_outside_ram),
		TEST(test_legacy),
		TEST(test_pae),
		TEST(test_tlb),
		TEST(test_tlb_asids_run_out),
		TEST(test_pcid),
		TEST(test_invlpg_of_large_page),
		TEST(test_fetch),
		TEST(test_page_crossing),
		TEST(test_devices_and_rom),
		TEST(test_code_writes),
		TEST(test_one_way_to_raise),
		TEST(test_byte_runs),
		TEST(test_pcids_when_asids_run_out),
		TEST(test_flush_of_one_pcid),
		TEST(test_dirty_is_not_writable),
		TEST(test_smap_views),
		TEST(test_alignment),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
