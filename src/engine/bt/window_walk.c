/*
 * Reading the guest's page tables for windows. The entries themselves are wanted, with where they are, so that they can be
 * compared later.
 *
 * 32-bit paging has page directories of 1,024 entries for 4 MiB each: a region has half of what one maps. What is read becomes an entry of
 * 64 bits that maps the region alone; everything else handles those.
 */
#include "engine/bt/window_private.h"

bool windows_offset(struct bt_windows *w, gpa_t at, uint64_t size, uint64_t *offset)
{
	const struct mem_region *region = mem_find(w->mem, at);

	if (!region || !region->host || !range_ok(at.v - region->start, size, region->size))
		return false;
	*offset = ((uint64_t)(region->pages - w->mem->pages) << PAGE_SHIFT) + (at.v - region->start);
	return true;
}

const uint64_t *windows_table_page(struct bt_windows *w, uint64_t entry)
{
	const uint8_t *page = mem_map(w->mem, gpa(entry & PTE_FRAME), PAGE_SIZE, true);

	return page && range_ok((uint64_t)(page - w->mem->ram.file.base), PAGE_SIZE, w->mem->ram.file.size)
		       ? (const uint64_t *)page
		       : NULL;
}

/* ---- page directories ---- */

/* A 4 MiB page's entry: bits 39..32 of the address in 20..13, bit 21 is reserved (SDM vol. 3A table 4-4). */
static uint64_t half_of_large(uint64_t entry, uint32_t region)
{
	uint64_t frame = (entry & 0xffc00000) | bits(entry, 20, 13) << 32 | (uint64_t)(region & 1) << REGION_SHIFT;

	/* What is reserved there is so here: in a place that 40 bits of physical address do not reach. */
	return (entry & 0x1fff) | frame | (entry & BIT(21) ? BIT(51) : 0);
}

/* As an entry of 64 bits, for one region. */
static uint64_t widen(enum paging paging, uint64_t entry, uint32_t region)
{
	if (paging == PAGING_32_BIT)
		return entry & ~PTE_PS; /* ignored */
	return paging == PAGING_32_BIT_PSE && (entry & PTE_PS) ? half_of_large(entry, region) : entry;
}

uint64_t pde_read(enum paging paging, const void *at, uint32_t region)
{
	return widen(paging, pte_read(paging, at, 0), region);
}

const void *pde_move(enum paging paging, const void *at, uint32_t from, uint32_t to)
{
	if (has_narrow_entries(paging))
		return (const uint32_t *)at + ((int32_t)(to >> 1) - (int32_t)(from >> 1));
	return (const uint64_t *)at + (int32_t)(to - from);
}

/* ---- outside long mode ---- */

/* PDPTEs of PAE paging have no rights, and no accessed bit: SDM vol. 3A table 4-8. */
#define ALL_RIGHTS (PTE_P | PTE_W | PTE_U | PTE_A)

void space_set_upper(struct space *space, const struct vcpu *v)
{
	uint64_t base = space->paging == PAGING_OFF ? 0 : bits(v->s.cr3, 31, 5); /* PAE's has bits down to 5 */

	/* The kind is where no physical address reaches. */
	space->upper_pml4e = ALL_RIGHTS | base << PAGE_SHIFT | (uint64_t)space->paging << CPU_PHYS_BITS;
	for (unsigned n = 0; n < UPPER_ENTRIES; n++) {
		switch (space->paging) {
		case PAGING_PAE:
			space->upper[n] = v->s.pdpte[n] & PTE_P ? (v->s.pdpte[n] & PTE_FRAME) | ALL_RIGHTS : 0;
			break;
		case PAGING_OFF: space->upper[n] = (uint64_t)n << 30 | ALL_RIGHTS | PTE_D | PTE_PS; break;
		default: space->upper[n] = (v->s.cr3 & 0xfffff000) | ALL_RIGHTS; break;
		}
	}
}

/* ---- walking ---- */

static void note_entry(struct table_walk *t, const void *at, uint64_t entry)
{
	t->at[t->depth] = at;
	t->entry[t->depth++] = entry;
}

/* Use one entry; false if it is absent or reserved. */
static bool use_entry(struct table_walk *t, uint64_t entry, uint64_t reserved)
{
	if (!(entry & PTE_P) || (entry & reserved))
		return false;
	t->writable &= !!(entry & PTE_W);
	t->accessed &= !!(entry & PTE_A);
	return true;
}

/* The same for one of the guest's, false also if its table is missing. */
static bool read_upper(struct table_walk *t, const uint64_t *table, unsigned index, uint64_t reserved, uint64_t *entry)
{
	if (!table)
		return false;
	*entry = entry_read(&table[index]);
	note_entry(t, &table[index], *entry);
	return use_entry(t, *entry, reserved);
}

/* The entry of one of four GiB. */
static bool upper_entry(const struct space *space, uint64_t lin, struct table_walk *t)
{
	if (lin >= (uint64_t)UPPER_ENTRIES << 30)
		return false;
	t->pml4e = space->upper_pml4e;
	t->pdpt = space->upper;
	t->pdpte = space->upper[lin >> 30];
	return use_entry(t, t->pdpte, 0);
}

static void found_leaf(struct table_walk *t, const struct vcpu *v, enum leaf leaf, uint64_t lin, uint64_t entry,
		       unsigned shift)
{
	uint64_t offset = (BIT(shift) - 1) & PAGE_MASK;

	t->leaf = leaf;
	t->user = t->user_above && (entry & PTE_U);
	t->dirty = entry & PTE_D;
	t->global = (entry & PTE_G) && (v->s.cr4 & CR4_PGE);
	t->page = gpa((entry & PTE_FRAME & ~offset) | (lin & offset));
}

/* From the page directory on: one level of large pages, one of tables. */
static bool walk_directory(struct bt_windows *w, enum paging paging, const struct vcpu *v, uint64_t lin,
			   uint64_t reserved, struct table_walk *t)
{
	bool narrow = has_narrow_entries(paging);
	uint32_t region = region_number(lin);
	const uint8_t *table = (const uint8_t *)windows_table_page(w, t->pdpte);

	if (!table)
		return false;
	t->pde_at = narrow ? table + 4 * (lin >> 22) : table + 8 * bits(lin, 29, 21);
	t->pde = pte_read(paging, t->pde_at, 0);
	note_entry(t, t->pde_at, t->pde);
	t->pde = widen(paging, t->pde, region);
	if (!use_entry(t, t->pde, reserved))
		return false;
	if (t->pde & PTE_PS) {
		if (!narrow && bits(t->pde, 20, 13))
			return false;
		found_leaf(t, v, LEAF_2M, lin, t->pde, 21);
		return true;
	}
	t->user_above &= !!(t->pde & PTE_U);

	table = (const uint8_t *)windows_table_page(w, t->pde);
	if (!table)
		return false;
	t->page_table = narrow && (region & 1) ? table + PAGE_SIZE / 2 : table;
	t->pte = pte_read(paging, t->page_table, page_number(lin));
	note_entry(t, (const uint8_t *)t->page_table + (narrow ? 4 : 8) * page_number(lin), t->pte);
	if (!use_entry(t, t->pte, reserved))
		return false;
	found_leaf(t, v, LEAF_4K, lin, t->pte, 12);
	return true;
}

/* The two levels above it in long mode. */
static bool walk_long_mode(struct bt_windows *w, const struct space *space, const struct vcpu *v, uint64_t lin,
			   uint64_t reserved, struct table_walk *t)
{
	if (!read_upper(t, space->pml4, slot_of(lin), reserved | PTE_PS, &t->pml4e))
		return false;
	t->user_above &= !!(t->pml4e & PTE_U);

	t->pdpt = windows_table_page(w, t->pml4e);
	if (!has_feature(v, FEATURE_PDPE1GB))
		reserved |= PTE_PS;
	if (!read_upper(t, t->pdpt, bits(lin, 38, 30), reserved, &t->pdpte))
		return false;
	t->user_above &= t->pdpte & PTE_PS || t->pdpte & PTE_U;
	return !(t->pdpte & PTE_PS) || !bits(t->pdpte, 29, 13);
}

bool windows_walk(struct bt_windows *w, const struct space *space, const struct vcpu *v, uint64_t lin,
		  struct table_walk *t)
{
	uint64_t reserved = bits(PTE_FRAME, 51, CPU_PHYS_BITS) << CPU_PHYS_BITS |
			    entry_reserved(space->paging, v->s.efer & EFER_NXE);

	w->stats.walks++;
	*t = (struct table_walk){ .user_above = true, .writable = true, .accessed = true };
	if (space->paging == PAGING_4_LEVEL ? !walk_long_mode(w, space, v, lin, reserved, t)
					    : !upper_entry(space, lin, t))
		return false;
	if (!(t->pdpte & PTE_PS))
		return walk_directory(w, space->paging, v, lin, reserved, t);
	found_leaf(t, v, LEAF_1G, lin, t->pdpte, 30);
	return true;
}
