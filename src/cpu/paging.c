/*
 * From linear to physical addresses: walks of the guest's page tables (SDM vol. 3A chapter 4), and the bookkeeping of
 * the software TLBs: which address space a tag stands for, what a flush must drop. Filling the data TLB is access.c's.
 */
#include "cpu/private.h"

/* Of a page-table entry, besides what regs.h has. */
#define PTE_HIGH       (PTE_FRAME & ~CPU_PHYS_MASK) /* reserved: above MAXPHYADDR */
#define PDPTE_RESERVED (~CPU_PHYS_MASK | 0x1e6)	    /* PAE, table 4-8 */

/* ---- the walk ---- */

/* One level of a walk, for setting accessed and dirty bits afterwards. */
struct step {
	uint8_t *host; /* NULL: not in RAM that can be written */
	gpa_t address;
	uint64_t entry;
};

/* The result of reading the tables, before rights are checked. */
struct tables {
	struct step steps[4];
	unsigned count; /* steps used */
	unsigned size;	/* bytes of an entry */
	unsigned shift; /* of the mapping */
	uint64_t frame; /* base of the mapping */
	bool user, writable, executable;
};

enum walk_result { WALK_OK, WALK_ABSENT, WALK_RESERVED, WALK_RETRY };

/* What is not RAM or ROM answers all ones, as a bus nobody drives does; walks do not reach devices. */
static uint64_t read_entry(struct vcpu *v, struct tables *t, uint64_t address)
{
	struct step *step = &t->steps[t->count++];
	const struct mem_region *region;

	address &= v->mem->address_lines;
	region = mem_find(v->mem, gpa(address));
	step->address = gpa(address);
	step->host = NULL;
	if (!region || !region->host) {
		step->entry = UINT64_MAX;
		return t->size == 4 ? UINT32_MAX : UINT64_MAX;
	}
	uint8_t *host = region->host + (address - region->start);
	if (t->size == 4)
		step->entry = __atomic_load_n((uint32_t *)host, __ATOMIC_ACQUIRE);
	else
		step->entry = __atomic_load_n((uint64_t *)host, __ATOMIC_ACQUIRE);
	if (region->writable)
		step->host = host;
	return step->entry;
}

static enum walk_result walk_legacy(struct vcpu *v, uint32_t a, struct tables *t)
{
	uint64_t entry;

	t->size = 4;
	entry = read_entry(v, t, (v->s.cr3 & 0xfffff000) + bits(a, 31, 22) * 4);
	if (!(entry & PTE_P))
		return WALK_ABSENT;
	t->user = entry & PTE_U;
	t->writable = entry & PTE_W;
	t->executable = true;
	if ((entry & PTE_PS) && (v->s.cr4 & CR4_PSE)) {
		/* Table 4-4: bits 20..13 are address bits 39..32 (PSE-36); bit 21 has nothing to mean with 40 bits. */
		uint64_t reserved = has_feature(v, FEATURE_PSE36) ? BIT(21) : 0x3fe000;

		if (entry & reserved)
			return WALK_RESERVED;
		t->shift = 22;
		t->frame = (entry & 0xffc00000) | bits(entry, 20, 13) << 32;
		return WALK_OK;
	}
	entry = read_entry(v, t, (entry & 0xfffff000) + bits(a, 21, 12) * 4);
	if (!(entry & PTE_P))
		return WALK_ABSENT;
	t->user &= !!(entry & PTE_U);
	t->writable &= !!(entry & PTE_W);
	t->shift = 12;
	t->frame = entry & 0xfffff000;
	return WALK_OK;
}

/* The levels that PAE and 4-level paging share, from the table at `table` whose entries map 2^shift bytes. */
static enum walk_result walk_wide(struct vcpu *v, uint64_t a, uint64_t table, unsigned shift, uint64_t always_reserved,
				  struct tables *t)
{
	for (;; shift -= 9) {
		uint64_t entry = read_entry(v, t, table + bits(a, shift + 8, shift) * 8);
		uint64_t reserved = always_reserved;
		bool leaf = shift == 12;

		if (!(entry & PTE_P))
			return WALK_ABSENT;
		if (shift > 12 && (entry & PTE_PS)) {
			if (shift == 39 || (shift == 30 && !has_feature(v, FEATURE_PDPE1GB)))
				return WALK_RESERVED;
			leaf = true;
			reserved |= (BIT(shift) - 1) & ~(uint64_t)0x1fff; /* below the frame, above PAT */
		}
		if (entry & reserved)
			return WALK_RESERVED;
		t->user &= !!(entry & PTE_U);
		t->writable &= !!(entry & PTE_W);
		t->executable &= !(entry & PTE_NX);
		if (leaf) {
			t->shift = shift;
			t->frame = entry & PTE_FRAME & ~(BIT(shift) - 1);
			return WALK_OK;
		}
		table = entry & PTE_FRAME;
	}
}

static enum walk_result walk_tables(struct vcpu *v, uint64_t a, struct tables *t)
{
	uint64_t nx = v->s.efer & EFER_NXE ? 0 : PTE_NX;

	t->count = 0;
	if (!(v->s.cr4 & CR4_PAE))
		return walk_legacy(v, (uint32_t)a, t);
	t->size = 8;
	t->user = t->writable = t->executable = true;
	if (in_long_mode(v))
		return walk_wide(v, a, v->s.cr3 & PTE_FRAME, 39, PTE_HIGH | nx, t);
	/* PAE: PDPTEs are registers without rights (4.4.1); bits 62..52 are reserved too. */
	if (!(v->s.pdpte[bits(a, 31, 30)] & PTE_P))
		return WALK_ABSENT;
	return walk_wide(v, a, v->s.pdpte[bits(a, 31, 30)] & PTE_FRAME, 21, PTE_HIGH | (BIT(63) - BIT(52)) | nx, t);
}

/* Set bits in an entry that still is as it was read. False: it changed meanwhile, walk again. */
static bool mark_entry(struct vcpu *v, const struct tables *t, struct step *step, uint64_t marks)
{
	uint64_t marked = step->entry | marks;

	if (marked == step->entry || !step->host)
		return true;
	if (t->size == 4) {
		uint32_t expected = (uint32_t)step->entry;

		if (!__atomic_compare_exchange_n((uint32_t *)step->host, &expected, (uint32_t)marked, false,
						 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return false;
	} else {
		uint64_t expected = step->entry;

		if (!__atomic_compare_exchange_n((uint64_t *)step->host, &expected, marked, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			return false;
	}
	step->entry = marked;
	cpu_note_write(v, step->address, t->size);
	return true;
}

/* 4.8: every entry used is accessed, the one that maps the page is dirty once written through. */
static bool mark_tables(struct vcpu *v, struct tables *t, bool write)
{
	for (unsigned n = 0; n < t->count; n++) {
		bool leaf = n + 1 == t->count;

		if (!mark_entry(v, t, &t->steps[n], PTE_A | (leaf && write ? PTE_D : 0)))
			return false;
	}
	return true;
}

/* 4.6: may this access use the translation? */
static bool access_allowed(const struct vcpu *v, const struct tables *t, enum access access, bool user, bool ac)
{
	if (access == ACCESS_FETCH) {
		if (!t->executable)
			return false;
		return user ? t->user : !(t->user && (v->s.cr4 & CR4_SMEP));
	}
	if (user)
		return t->user && (access == ACCESS_READ || t->writable);
	if (t->user && (v->s.cr4 & CR4_SMAP) && !ac)
		return false;
	return access == ACCESS_READ || t->writable || !(v->s.cr0 & CR0_WP);
}

static int page_fault(const struct vcpu *v, uint64_t a, enum access access, bool user, uint32_t error,
		      struct fault *fault)
{
	if (access == ACCESS_WRITE)
		error |= PF_W;
	if (user)
		error |= PF_U;
	if (access == ACCESS_FETCH && ((v->s.cr4 & CR4_SMEP) || ((v->s.cr4 & CR4_PAE) && (v->s.efer & EFER_NXE))))
		error |= PF_I;
	*fault = (struct fault){ .vector = EXC_PF, .has_error = true, .error = error, .address = a };
	return -1;
}

/* Walk, and may the access? */
static int try_walk(struct vcpu *v, uint64_t a, enum access access, bool user, bool ac, struct tables *t,
		    struct fault *fault)
{
	enum walk_result result = walk_tables(v, a, t);

	if (result == WALK_ABSENT)
		return page_fault(v, a, access, user, 0, fault);
	if (result == WALK_RESERVED)
		return page_fault(v, a, access, user, PF_P | PF_RSVD, fault);
	if (!access_allowed(v, t, access, user, ac))
		return page_fault(v, a, access, user, PF_P, fault);
	return 0;
}

static void remember_large_page(struct vcpu *v, uint64_t a, unsigned shift)
{
	/* A page of 4 MiB is two regions: invalidating one half must find the other. */
	uint64_t region = a >> 21 & (shift == 22 ? ~1ull : ~0ull);
	struct tlb_filter *filter = &v->tlb_filter[cpu_half(v, a)];

	filter->large_pages[region % LARGE_PAGE_BITS / 64] |= BIT(region % 64);
	if (shift == 22)
		filter->large_pages[region % LARGE_PAGE_BITS / 64] |= BIT((region | 1) % 64);
	if (shift == 30)
		filter->huge_pages |= BIT((a >> 30) % 64);
}

static struct page_walk walked(struct vcpu *v, uint64_t a, const struct tables *t)
{
	uint64_t leaf = t->steps[t->count - 1].entry;

	if (t->shift > 12)
		remember_large_page(v, a, t->shift);
	return (struct page_walk){
		.page = gpa((t->frame | (a & (BIT(t->shift) - 1) & PAGE_MASK)) & v->mem->address_lines),
		.shift = t->shift,
		.user = t->user,
		.writable = t->writable,
		.executable = t->executable,
		.dirty = leaf & PTE_D,
		.global = (leaf & PTE_G) && (v->s.cr4 & CR4_PGE),
	};
}

int cpu_walk(struct vcpu *v, gva_t address, enum access access, bool user, bool ac, struct page_walk *walk,
	     struct fault *fault)
{
	uint64_t a = address.v;
	struct tables t;

	if (!in_long_mode(v)) {
		a = (uint32_t)a;
	} else if (!is_canonical(a)) {
		*fault = (struct fault){ .vector = EXC_GP, .has_error = true };
		return -1;
	}
	if (!(v->s.cr0 & CR0_PG)) {
		*walk = (struct page_walk){ .page = gpa(a & PAGE_MASK & v->mem->address_lines),
					    .shift = 12,
					    .user = true,
					    .writable = true,
					    .executable = true,
					    .dirty = true };
		return 0;
	}
	do {
		if (try_walk(v, a, access, user, ac, &t, fault))
			return -1;
	} while (!mark_tables(v, &t, access == ACCESS_WRITE));
	*walk = walked(v, a, &t);
	return 0;
}

bool cpu_walk_marked(struct vcpu *v, gva_t address, enum access access, bool user, bool ac, struct page_walk *walk)
{
	struct fault fault;
	struct tables t;

	if (!in_long_mode(v) || !is_canonical(address.v) || try_walk(v, address.v, access, user, ac, &t, &fault))
		return false;
	for (unsigned n = 0; n < t.count; n++)
		if (!(t.steps[n].entry & PTE_A))
			return false;
	if (access == ACCESS_WRITE && !(t.steps[t.count - 1].entry & PTE_D))
		return false;
	*walk = walked(v, address.v, &t);
	return true;
}

int cpu_translate_debug(struct vcpu *v, gva_t address, gpa_t *out)
{
	uint64_t a = address.v;
	struct tables t;

	if (!in_long_mode(v))
		a = (uint32_t)a;
	else if (!is_canonical(a))
		return -1;
	if (!(v->s.cr0 & CR0_PG)) {
		*out = gpa(a & v->mem->address_lines);
		return 0;
	}
	if (walk_tables(v, a, &t) != WALK_OK)
		return -1;
	*out = gpa((t.frame | (a & (BIT(t.shift) - 1))) & v->mem->address_lines);
	return 0;
}

void cpu_load_pdptes(struct vcpu *v, uint64_t cr3)
{
	struct tables t = { .size = 8 };
	uint64_t pdpte[4];

	for (unsigned n = 0; n < 4; n++) {
		pdpte[n] = read_entry(v, &t, (cr3 & 0xffffffe0) + 8 * n);
		cpu_check_memory(v);
		if ((pdpte[n] & PTE_P) && (pdpte[n] & PDPTE_RESERVED))
			cpu_raise_error(v, EXC_GP, 0);
	}
	memcpy(v->s.pdpte, pdpte, sizeof(pdpte));
}

/* ---- address spaces and flushes ---- */

static void enter_space(struct vcpu *v, uint64_t space)
{
	v->address_space = space;
	v->asid = space % TLB_ASIDS;
}

/* A number never used before. When its tag is about to stand for something again, nothing old may be left that has it. */
static uint64_t new_space(struct vcpu *v)
{
	if (++v->last_space % TLB_ASIDS == 0) {
		v->last_space++; /* asid 0 is no address space */
		memset(v->tlbs, 0, sizeof(v->tlbs));
		memset(v->fetch_tlb, 0, sizeof(v->fetch_tlb));
		memset(v->pcids, 0, sizeof(v->pcids));
	}
	return v->last_space;
}

/* All that is not global and of the upper half. */
static void flush_local(struct vcpu *v)
{
	v->count[COUNT_TLB_FLUSHES]++;
	memset(&v->tlb_filter[0], 0, sizeof(v->tlb_filter[0]));
	memset(v->pcids, 0, sizeof(v->pcids));
	enter_space(v, new_space(v));
	if (v->s.cr4 & CR4_PCIDE)
		v->pcids[0] = (struct pcid_slot){ .pcid = v->s.cr3 & 0xfff, .space = v->address_space };
}

static void flush_all(struct vcpu *v)
{
	if (++v->global_space % TLB_ASIDS == 0) {
		v->global_space++; /* tag 0 is not global */
		memset(v->tlbs, 0, sizeof(v->tlbs));
		memset(v->fetch_tlb, 0, sizeof(v->fetch_tlb));
	}
	v->global_tag = v->global_space % TLB_ASIDS;
	memset(&v->tlb_filter[1], 0, sizeof(v->tlb_filter[1]));
	flush_local(v);
}

void cpu_tlb_flush(struct vcpu *v)
{
	flush_all(v);
	if (v->hooks->tlb_flush)
		v->hooks->tlb_flush(v);
}

static struct pcid_slot *find_pcid(struct vcpu *v, uint16_t pcid)
{
	for (unsigned n = 0; n < PCID_SLOTS; n++)
		if (v->pcids[n].space && v->pcids[n].pcid == pcid)
			return &v->pcids[n];
	return NULL;
}

static void switch_space(struct vcpu *v, bool keep)
{
	uint16_t pcid = v->s.cr3 & 0xfff;
	struct pcid_slot *slot;
	uint64_t space;

	if (!(v->s.cr4 & CR4_PCIDE)) {
		flush_local(v);
		return;
	}
	slot = find_pcid(v, pcid);
	if (keep && slot) {
		enter_space(v, slot->space);
		return;
	}
	v->count[COUNT_TLB_FLUSHES]++;
	space = new_space(v); /* may forget all slots, so before choosing one */
	if (!slot)
		slot = &v->pcids[v->next_pcid++ % PCID_SLOTS];
	*slot = (struct pcid_slot){ .pcid = pcid, .space = space };
	enter_space(v, space);
}

void cpu_tlb_switch(struct vcpu *v, bool keep)
{
	switch_space(v, keep);
	if (v->hooks->tlb_switched)
		v->hooks->tlb_switched(v, keep && (v->s.cr4 & CR4_PCIDE));
}

void cpu_tlb_flush_pcid(struct vcpu *v, uint16_t pcid)
{
	struct pcid_slot *slot = find_pcid(v, pcid);

	if (!(v->s.cr4 & CR4_PCIDE) || pcid == (v->s.cr3 & 0xfff))
		switch_space(v, false);
	else if (slot)
		slot->space = 0;
	if (v->hooks->tlb_flush_pcid)
		v->hooks->tlb_flush_pcid(v, pcid);
}

static void drop_data_entry(struct tlb_entry *e, uint64_t page)
{
	if (((e->read_tag ? e->read_tag : e->write_tag) & PAGE_MASK) == page)
		*e = (struct tlb_entry){ 0 };
}

/*
 * The page's entries in all address spaces: INVLPG must drop global ones of every PCID. Fetches from the page, and large
 * pages (one INVLPG drops all of such a page, wherever in it the address is), are remembered only roughly, and then all is
 * dropped.
 */
void cpu_tlb_flush_page(struct vcpu *v, gva_t address)
{
	uint64_t a = in_long_mode(v) ? address.v : (uint32_t)address.v;
	uint64_t page = a & PAGE_MASK, number = a >> PAGE_SHIFT, region = a >> 21;
	const struct tlb_filter *filter = &v->tlb_filter[cpu_half(v, a)];

	if ((filter->huge_pages & BIT((a >> 30) % 64)) ||
	    (filter->large_pages[region % LARGE_PAGE_BITS / 64] & BIT(region % 64)) ||
	    (filter->fetched[number % FETCHED_BITS / 64] & BIT(number % 64))) {
		if (cpu_half(v, a))
			flush_all(v);
		else
			flush_local(v);
		goto tell;
	}
	for (unsigned view = 0; view < TLB_VIEWS; view++)
		drop_data_entry(&v->tlbs[view][number % TLB_SIZE], page);
tell:
	if (v->hooks->tlb_flush_page)
		v->hooks->tlb_flush_page(v, gva(a));
}

static void protect_slot(struct vcpu *v, gpa_t page, unsigned slot)
{
	for (unsigned view = 0; view < TLB_VIEWS; view++)
		if ((v->tlbs[view][slot].gpa & PAGE_MASK) == page.v)
			v->tlbs[view][slot].write_tag = 0;
}

void cpu_tlb_protect(struct vcpu *v, gpa_t page, uint16_t direct)
{
	if (direct == MEM_DIRECT_ANY)
		for (unsigned slot = 0; slot < TLB_SIZE; slot++)
			protect_slot(v, page, slot);
	else if (direct != DIRECT_ENGINE)
		protect_slot(v, page, direct - DIRECT_TLB(0));
	if (v->hooks->tlb_protect && (direct == MEM_DIRECT_ANY || direct == DIRECT_ENGINE))
		v->hooks->tlb_protect(v, page);
}

bool cpu_space_is_alive(const struct vcpu *v, uint64_t space)
{
	for (unsigned n = 0; n < PCID_SLOTS; n++)
		if (space && v->pcids[n].space == space)
			return true;
	return space == v->address_space;
}

/* ---- instruction fetch ---- */

static bool is_global(const struct vcpu *v, uint64_t entry_gpa) { return (entry_gpa & ~PAGE_MASK) == v->global_tag; }

gpa_t cpu_fetch_translate(struct vcpu *v, gva_t a, uint8_t **host)
{
	uint64_t lin = v->code_mode == MODE_64 ? a.v : (uint32_t)a.v;
	uint64_t number = lin >> PAGE_SHIFT, tag = (lin & PAGE_MASK) | v->asid;
	bool user = v->cpl == 3;
	struct fetch_entry *e = &v->fetch_tlb[user][number % FETCH_TLB_SIZE];
	struct page_walk walk;
	struct fault fault;
	uint8_t *page;
	int failed;

	if (unlikely(e->tag != tag) && is_global(v, e->gpa) && (e->tag & PAGE_MASK) == (lin & PAGE_MASK))
		e->tag = tag;
	if (unlikely(e->tag != tag)) {
		v->count[COUNT_TLB_MISSES]++;
		failed = cpu_walk(v, gva(lin), ACCESS_FETCH, user, false, &walk, &fault);
		page = failed ? NULL : mem_map(v->mem, walk.page, PAGE_SIZE, false);
		cpu_check_memory(v);
		if (failed)
			cpu_raise_fault(v, fault);
		*e = (struct fetch_entry){ .tag = tag,
					   .gpa = walk.page.v | cpu_global_tag(v, lin, &walk),
					   .host = page };
		v->tlb_filter[cpu_half(v, lin)].fetched[number % FETCHED_BITS / 64] |= BIT(number % 64);
	}
	v->fetched_global = is_global(v, e->gpa);
	*host = e->host ? e->host + (lin & ~PAGE_MASK) : NULL;
	return gpa((e->gpa & PAGE_MASK) | (lin & ~PAGE_MASK));
}
