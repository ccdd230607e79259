/*
 * After a flush: is what windows map still what the guest's tables say? Compared is what decides where an access goes and
 * whether it may: frames, rights, and that accessed and dirty bits are still set, since no access will set them while the page is
 * mapped. Pages that differ are unmapped; those that only may not be written any more become read-only.
 */
#include "engine/bt/window_private.h"

#include <limits.h>

/* What the entry that maps a page of this region must have, and must not have. */
struct leaf_rule {
	uint64_t needed, forbidden;
};

static struct leaf_rule leaf_rule(const struct region *r)
{
	bool user = r->window->kind == WINDOW_USER;
	struct leaf_rule rule = { .needed = PTE_P | PTE_A,
				  .forbidden = entry_reserved(r->window->paging, r->window->nxe) };

	if (user)
		rule.needed |= PTE_U;
	else if (r->user_above && r->window->kind == WINDOW_SUPERVISOR)
		rule.forbidden |= PTE_U;
	return rule;
}

/* ---- pages mapped one by one ---- */

/* What is to be done with the pages of a region, and what was seen. */
struct findings {
	struct page_set gone, unwritable;
	bool differs;
	uint64_t any, all; /* bits that any of the entries has, that all have */
};

/* Entry n of the part of the page table that is the span's. */
static uint64_t span_entry(const struct region *r, const struct span *s, unsigned n)
{
	return pte_read(r->window->paging, r->page_table, s->number * PAGES_PER_SPAN + n);
}

static bool span_is_unchanged(const struct region *r, const struct span *s)
{
	if (!has_narrow_entries(r->window->paging))
		return !memcmp((const uint64_t *)r->page_table + s->number * PAGES_PER_SPAN, s->seen, sizeof(s->seen));
	for (unsigned n = 0; n < PAGES_PER_SPAN; n++)
		if (span_entry(r, s, n) != s->seen[n])
			return false;
	return true;
}

static void check_span(const struct span *s, const struct leaf_rule rule, uint64_t pages, struct findings *f)
{
	uint64_t drop = 0, protect = 0;

	for (uint64_t left = s->filled & pages; left; left &= left - 1) {
		unsigned n = (unsigned)__builtin_ctzll(left);
		uint64_t entry = s->seen[n];
		uint64_t wrong = ((entry ^ (uint64_t)s->frame[n] << PAGE_SHIFT) & PTE_FRAME) | (~entry & rule.needed) |
				 (entry & rule.forbidden);

		if (unlikely(wrong))
			drop |= BIT(n);
		else if (unlikely(~entry & (PTE_W | PTE_D)))
			protect |= BIT(n);
		f->any |= entry;
		f->all &= entry;
	}
	protect &= s->writable;
	f->gone.bits[s->number] = drop;
	f->unwritable.bits[s->number] = protect;
	f->differs |= drop | protect;
}

/*
 * Most of the time nothing changed, which is found out at several pages a nanosecond. Entries are read once: those that are compared
 * with the mappings are those that are remembered.
 */
static void check_whole_span(const struct region *r, struct span *s, const struct leaf_rule rule, struct findings *f)
{
	if (likely(span_is_unchanged(r, s)))
		return;
	for (unsigned n = 0; n < PAGES_PER_SPAN; n++)
		s->seen[n] = span_entry(r, s, n);
	check_span(s, rule, UINT64_MAX, f);
}

static void check_page(const struct region *r, struct span *s, unsigned n, const struct leaf_rule rule,
		       struct findings *f)
{
	s->seen[n] = span_entry(r, s, n);
	check_span(s, rule, BIT(n), f);
}

/* Entries may have become global since they were mapped, or not global any more. */
static void note_global(struct bt_windows *w, struct region *r, uint64_t any, uint64_t all)
{
	if (unlikely(any & PTE_G) && !r->global)
		region_note_global(w, r, true);
	if (!(all & PTE_G) && !r->local)
		region_note_global(w, r, false);
}

#define ALL_PAGES UINT_MAX

static unsigned count_set(const struct page_set *set)
{
	unsigned count = 0;

	for (unsigned n = 0; n < SPANS_PER_REGION; n++)
		count += (unsigned)__builtin_popcountll(set->bits[n]);
	return count;
}

/* page: its number in the region, or ALL_PAGES. */
static void check_pages(struct bt_windows *w, struct region *r, unsigned page)
{
	const struct leaf_rule rule = leaf_rule(r);
	struct findings f = { .all = UINT64_MAX };
	unsigned n;

	if (page == ALL_PAGES) {
		for (n = 0; n < SPANS_PER_REGION; n++)
			if (r->span[n])
				check_whole_span(r, span_of(w, r->span[n]), rule, &f);
	} else if (r->span[page / PAGES_PER_SPAN]) {
		check_page(r, span_of(w, r->span[page / PAGES_PER_SPAN]), page % PAGES_PER_SPAN, rule, &f);
	}
	note_global(w, r, f.any, f.all);
	if (!f.differs)
		return;
	if (!may_split(w, count_set(&f.unwritable) + count_set(&f.gone))) {
		region_drop(w, r);
		return;
	}
	region_protect_pages(w, r, &f.unwritable);
	region_unmap_pages(w, r, &f.gone);
}

/* ---- what a large page maps ---- */

/* The bits of a large page's frame; those below it are reserved, but for PAT. */
#define LARGE_FRAME (PTE_FRAME & ~(uint64_t)0x1000)

enum verdict { LEAF_SAME, LEAF_UNWRITABLE, LEAF_GONE };

static enum verdict check_large(const struct region *r, uint64_t then, uint64_t now)
{
	const struct leaf_rule rule = leaf_rule(r);

	if (((now ^ then) & (LARGE_FRAME | PTE_PS)) || (~now & rule.needed) || (now & rule.forbidden))
		return LEAF_GONE;
	return now & PTE_W && now & PTE_D ? LEAF_SAME : LEAF_UNWRITABLE;
}

static void make_unwritable(struct bt_windows *w, struct region *r)
{
	struct page_set all;

	if (r->whole && r->writable) {
		region_protect_whole(w, r);
	} else if (!r->whole) {
		memset(&all, 0xff, sizeof(all));
		region_protect_pages(w, r, &all);
	}
}

static void check_large_region(struct bt_windows *w, struct region *r, uint64_t then, uint64_t now)
{
	enum verdict verdict = check_large(r, then, now);

	note_global(w, r, now, now);
	if (verdict == LEAF_GONE)
		region_drop(w, r);
	else if (verdict == LEAF_UNWRITABLE)
		make_unwritable(w, r);
}

/* ---- regions ---- */

static void check_region(struct bt_windows *w, struct region *r, unsigned page)
{
	const struct window *window = r->window;
	uint64_t pdpte = entry_read(&window->pdpt[r->number >> 9]), pde;
	uint64_t reserved = entry_reserved(window->paging, window->nxe);

	if (r->leaf == LEAF_1G) {
		check_large_region(w, r, r->pdpte, pdpte);
		return;
	}
	pde = pde_read(window->paging, r->pde_at, r->number);
	if (!table_entry_same(pdpte, r->pdpte, reserved))
		region_drop(w, r);
	else if (r->leaf == LEAF_2M)
		check_large_region(w, r, r->pde, pde);
	else if (!table_entry_same(pde, r->pde, reserved))
		region_drop(w, r);
	else
		check_pages(w, r, page);
}

/*
 * A fill found other entries than the region was made from: then the region must go first. The large leaf's dirty and writable bits
 * may have come since, or may have been there when the mapping was made read-only.
 */
bool region_matches(const struct region *r, const struct table_walk *t)
{
	uint64_t reserved = entry_reserved(r->window->paging, r->window->nxe);

	if (r->leaf != t->leaf)
		return false;
	if (r->leaf == LEAF_1G)
		return check_large(r, r->pdpte, t->pdpte) != LEAF_GONE;
	if (!table_entry_same(t->pdpte, r->pdpte, reserved))
		return false;
	return r->leaf == LEAF_2M ? check_large(r, r->pde, t->pde) != LEAF_GONE
				  : table_entry_same(t->pde, r->pde, reserved);
}

static bool check_regions(struct bt_windows *w, struct list *regions, const struct vcpu *v)
{
	uint64_t calls = w->host_calls;
	struct region *r, *next;

	list_for_each_safe (r, next, regions, node) {
		check_region(w, r, ALL_PAGES);
		if (is_awaited(w, v, calls))
			return false;
	}
	return true;
}

bool window_validate(struct bt_windows *w, struct window *window, bool all, const struct vcpu *v)
{
	uint64_t now = atomic_load(&w->clock);

	w->stats.revalidations++;
	if (!check_regions(w, &window->local_regions, v))
		return false;
	window->validated_local = now;
	if (!all)
		return true;
	if (!check_regions(w, &window->global_regions, v))
		return false;
	window->validated = now;
	return true;
}

/* INVLPG: this page, but all of a large page, of which any address stands for all of it. */
void window_validate_page(struct bt_windows *w, struct window *window, uint64_t lin)
{
	uint32_t number = region_number(lin), first = number & ~511u;
	struct region *r = region_find(w, window, number);

	if (r && r->leaf != LEAF_1G)
		check_region(w, r, page_number(lin));
	/* The other half of what was one large page. */
	r = has_narrow_entries(window->paging) ? region_find(w, window, number ^ 1) : NULL;
	if (r && r->leaf == LEAF_2M)
		check_region(w, r, ALL_PAGES);
	for (uint32_t n = first; window->huge_count && n < first + 512; n++) {
		r = region_find(w, window, n);
		if (r && r->leaf == LEAF_1G)
			check_region(w, r, ALL_PAGES);
	}
}
