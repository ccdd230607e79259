/*
 * Reading the guest's page tables for windows. The entries themselves are wanted, with where they are, so that they can be
 * compared later. Only 4-level paging.
 */
#include "engine/bt/window.h"

bool windows_ram_offset(struct bt_windows *w, gpa_t at, uint64_t size, uint64_t *offset)
{
	const struct mem_region *region = mem_find(w->mem, at);

	if (!region || !region->writable || !range_ok(at.v - region->start, size, region->size))
		return false;
	*offset = (uint64_t)(region->host - w->mem->ram.base) + (at.v - region->start);
	return range_ok(*offset, size, w->mem->ram.size);
}

const uint64_t *windows_table_page(struct bt_windows *w, uint64_t entry)
{
	return (const uint64_t *)mem_map(w->mem, gpa(entry & PTE_FRAME), PAGE_SIZE, true);
}

/* Read one entry; false if it is absent, reserved or its table is missing. */
static bool read_entry(struct table_walk *t, const uint64_t *table, unsigned index, uint64_t reserved, uint64_t *entry)
{
	if (!table)
		return false;
	*entry = entry_read(&table[index]);
	t->at[t->depth] = &table[index];
	t->entry[t->depth++] = *entry;
	if (!(*entry & PTE_P) || (*entry & reserved))
		return false;
	t->writable &= !!(*entry & PTE_W);
	t->accessed &= !!(*entry & PTE_A);
	return true;
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

bool windows_walk(struct bt_windows *w, const struct space *space, const struct vcpu *v, uint64_t lin,
		  struct table_walk *t)
{
	uint64_t reserved = bits(PTE_FRAME, 51, PHYSICAL_BITS) << PHYSICAL_BITS;
	const uint64_t *pd;

	if (!(v->s.efer & EFER_NXE))
		reserved |= PTE_NX;
	*t = (struct table_walk){ .user_above = true, .writable = true, .accessed = true };
	if (!read_entry(t, space->pml4, slot_of(lin), reserved | PTE_PS, &t->pml4e))
		return false;
	t->user_above &= !!(t->pml4e & PTE_U);

	t->pdpt = windows_table_page(w, t->pml4e);
	if (!has_feature(v, FEATURE_PDPE1GB))
		reserved |= PTE_PS;
	if (!read_entry(t, t->pdpt, bits(lin, 38, 30), reserved, &t->pdpte))
		return false;
	if (t->pdpte & PTE_PS) {
		if (bits(t->pdpte, 29, 13))
			return false;
		found_leaf(t, v, LEAF_1G, lin, t->pdpte, 30);
		return true;
	}
	t->user_above &= !!(t->pdpte & PTE_U);

	reserved &= ~PTE_PS;
	pd = windows_table_page(w, t->pdpte);
	if (!read_entry(t, pd, bits(lin, 29, 21), reserved, &t->pde))
		return false;
	t->pde_at = t->at[2];
	if (t->pde & PTE_PS) {
		if (bits(t->pde, 20, 13))
			return false;
		found_leaf(t, v, LEAF_2M, lin, t->pde, 21);
		return true;
	}
	t->user_above &= !!(t->pde & PTE_U);

	t->page_table = windows_table_page(w, t->pde);
	if (!read_entry(t, t->page_table, bits(lin, 20, 12), reserved, &t->pte))
		return false;
	found_leaf(t, v, LEAF_4K, lin, t->pte, 12);
	return true;
}
