/*
 * What is mapped in windows: host mappings together with the records of them, so that the two always agree. Whole regions are
 * window_whole.c's.
 */
#include "engine/bt/window_private.h"

#include <errno.h>

/* ---- regions ---- */

static unsigned window_number(const struct bt_windows *w, const struct window *window)
{
	return (unsigned)(window - w->window);
}

static pool_index *hash_head(struct bt_windows *w, const struct window *window, uint32_t number)
{
	return &w->hash[(number * 0x9e3779b1u + window_number(w, window) * 0x85ebca6bu) >> (32 - REGION_HASH_BITS)];
}

struct region *region_find(struct bt_windows *w, const struct window *window, uint32_t number)
{
	struct region *r = region_of(w, *hash_head(w, window, number));

	while (r && (r->number != number || r->window != window))
		r = region_of(w, r->hash_next);
	return r;
}

/* Page tables of the host that a region has alone, when its GiB and its window have so many others. */
static uint64_t tables_of(const struct window *window, uint32_t number, unsigned others)
{
	uint64_t size = REGION_TABLES;

	if (window->regions_in[number >> (GIB_SHIFT - REGION_SHIFT)] == others)
		size += GIB_TABLES;
	if (window->region_count == others)
		size += WINDOW_TABLES;
	return size;
}

struct region *region_add(struct bt_windows *w, struct window *window, uint32_t number, const struct table_walk *t)
{
	pool_index *head = hash_head(w, window, number), index;
	uint64_t tables = tables_of(window, number, 0);
	struct region *r;

	if (!windows_take(w, tables))
		return NULL;
	index = pool_take(w, &w->regions);
	if (!index) {
		windows_give(w, tables);
		return NULL;
	}
	r = region_of(w, index);
	r->hash_next = *head;
	*head = index;
	r->number = number;
	r->window = window;
	r->page_table = t->page_table;
	r->pde_at = t->pde_at;
	r->pdpte = t->pdpte;
	r->pde = t->pde;
	r->leaf = (uint8_t)t->leaf;
	r->user_above = t->user_above;
	window->huge_count += r->leaf == LEAF_1G;
	window->region_count++;
	window->regions_in[number >> (GIB_SHIFT - REGION_SHIFT)]++;
	list_append(&window->global_regions, &r->node);
	return r;
}

void region_note_global(struct bt_windows *w, struct region *r, bool global)
{
	if (global && !r->global) {
		r->global = true;
		r->window->global_count++;
		w->slot_global[r->window->slot]++;
	}
	if (!global && !r->local) {
		r->local = true;
		list_remove(&r->node);
		list_append(&r->window->local_regions, &r->node);
	}
}

/* Whole regions that continue their neighbour are the same host mapping. */
static bool continues(struct bt_windows *w, const struct region *r)
{
	const struct region *before = r->number ? region_find(w, r->window, r->number - 1) : NULL;

	return before && before->whole && before->writable == r->writable &&
	       before->frame + PAGES_PER_SPAN * SPANS_PER_REGION == r->frame;
}

/* Each piece is a mapping, and so is the gap behind it. */
void region_recount(struct bt_windows *w, struct region *r)
{
	uint32_t count = 0;

	for (unsigned n = 0; n < SPANS_PER_REGION; n++)
		if (r->span[n])
			count += span_of(w, r->span[n])->mappings;
	if (r->whole)
		count += (continues(w, r) ? 0 : 2) + 2u * r->holes;
	w->stats.mappings += (uint64_t)count - r->mappings;
	r->window->mappings += (uint64_t)count - r->mappings;
	r->mappings = count;
}

void whole_changed(struct bt_windows *w, struct region *r)
{
	struct region *after = region_find(w, r->window, r->number + 1);

	region_recount(w, r);
	if (after && after->whole)
		region_recount(w, after);
}

/* ---- spans ---- */

static uint64_t span_base(const struct bt_windows *w, const struct span *s)
{
	return region_base(region_of(w, s->region)) + (uint64_t)s->number * PAGES_PER_SPAN * PAGE_SIZE;
}

static uint64_t page_bits(unsigned first, unsigned count) { return (~0ull >> (64 - count)) << first; }

static void span_recount(struct span *s)
{
	uint64_t starts = s->filled & ~(s->filled << 1);
	unsigned pieces = (unsigned)__builtin_popcountll(starts);

	s->mappings = (uint16_t)pieces; /* gaps */
	for (uint64_t left = s->filled & ~starts; left; left &= left - 1) {
		unsigned n = (unsigned)__builtin_ctzll(left);

		pieces += s->frame[n] != s->frame[n - 1] + 1 || !(s->writable & BIT(n)) != !(s->writable & BIT(n - 1));
	}
	s->mappings += (uint16_t)pieces;
}

/* The records of pages that are not mapped any more. */
static void span_forget(struct bt_windows *w, struct span *s, uint64_t pages)
{
	for (uint64_t left = pages & s->writable; left; left &= left - 1)
		page_unlink(w, s, (unsigned)__builtin_ctzll(left));
	w->stats.pages_dropped += (unsigned)__builtin_popcountll(pages & s->filled);
	s->filled &= ~pages;
}

static void span_release(struct bt_windows *w, struct region *r, unsigned number)
{
	struct span *s = span_of(w, r->span[number]);

	span_forget(w, s, s->filled);
	pool_give(&w->spans, r->span[number]);
	r->span[number] = 0;
}

int span_map(struct bt_windows *w, struct region *r, unsigned number, unsigned first, unsigned count, uint32_t frame,
	     bool writable, const uint64_t entries[PAGES_PER_SPAN])
{
	uint64_t pages = page_bits(first, count), offset;
	struct span *s;
	int rc;

	if (!r->span[number]) {
		r->span[number] = pool_take(w, &w->spans);
		if (!r->span[number])
			return -ENOMEM;
		s = span_of(w, r->span[number]);
		s->region = pool_index_of(&w->regions, r);
		s->number = (uint8_t)number;
	}
	s = span_of(w, r->span[number]);
	BUG_ON(!windows_offset(w, gpa((uint64_t)frame << PAGE_SHIFT), (uint64_t)count * PAGE_SIZE, &offset));
	for (uint64_t left = pages & s->writable; left; left &= left - 1)
		page_unlink(w, s, (unsigned)__builtin_ctzll(left));
	rc = windows_host_map(w, span_base(w, s) + first * PAGE_SIZE, (uint64_t)count * PAGE_SIZE, offset, writable,
			      true);
	if (rc) {
		span_forget(w, s, pages);
	} else {
		s->filled |= pages;
		w->stats.pages_filled += count;
		for (unsigned n = first; n < first + count; n++) {
			s->frame[n] = frame + (n - first);
			s->seen[n] = entries[n];
			if (writable)
				page_link(w, r->span[number], s, n);
		}
	}
	if (s->filled)
		span_recount(s);
	else
		span_release(w, r, number);
	region_recount(w, r);
	return rc;
}

/* ---- pages of a region's spans ---- */

static bool set_has(const struct page_set *set, unsigned page)
{
	return set->bits[page / PAGES_PER_SPAN] & BIT(page % PAGES_PER_SPAN);
}

static bool page_filled(const struct bt_windows *w, const struct region *r, unsigned page)
{
	const struct span *s = span_of(w, r->span[page / PAGES_PER_SPAN]);

	return s && (s->filled & BIT(page % PAGES_PER_SPAN));
}

/* One call for all pages between which no page stays. */
static void unmap_ranges(struct bt_windows *w, const struct region *r, const struct page_set *set)
{
	unsigned start = 0, end = 0; /* pages to unmap, none if equal */

	for (unsigned n = 0; n < PAGES_PER_REGION; n++) {
		if (!r->span[n / PAGES_PER_SPAN]) {
			n |= PAGES_PER_SPAN - 1;
			continue;
		}
		if (set_has(set, n)) {
			if (start == end)
				start = n;
			end = n + 1;
		} else if (start != end && page_filled(w, r, n)) {
			windows_host_unmap(w, region_base(r) + start * PAGE_SIZE, (end - start) * PAGE_SIZE);
			start = end;
		}
	}
	if (start != end)
		windows_host_unmap(w, region_base(r) + start * PAGE_SIZE, (end - start) * PAGE_SIZE);
}

static bool has_others(const struct bt_windows *w, const struct region *r, const struct page_set *set)
{
	bool any = r->whole;

	for (unsigned n = 0; n < SPANS_PER_REGION && !any; n++)
		any = r->span[n] && (span_of(w, r->span[n])->filled & ~set->bits[n]);
	return any;
}

void region_unmap_pages(struct bt_windows *w, struct region *r, const struct page_set *set)
{
	if (!has_others(w, r, set)) {
		region_drop(w, r);
		return;
	}
	unmap_ranges(w, r, set);
	for (unsigned n = 0; n < SPANS_PER_REGION; n++) {
		struct span *s = span_of(w, r->span[n]);

		if (!s)
			continue;
		if (set->bits[n]) {
			span_forget(w, s, set->bits[n]);
			span_recount(s);
		}
		if (!s->filled)
			span_release(w, r, n);
	}
	region_recount(w, r);
}

void span_protect(struct bt_windows *w, struct span *s, unsigned first, unsigned count)
{
	uint64_t pages = page_bits(first, count);

	for (unsigned n = first; n < first + count; n++)
		page_unlink(w, s, n);
	if (!windows_host_protect(w, span_base(w, s) + first * PAGE_SIZE, (uint64_t)count * PAGE_SIZE))
		span_forget(w, s, pages);
	span_recount(s);
}

void region_protect_pages(struct bt_windows *w, struct region *r, const struct page_set *set)
{
	for (unsigned number = 0; number < SPANS_PER_REGION; number++) {
		struct span *s = span_of(w, r->span[number]);
		uint64_t left;

		if (!s)
			continue;
		for (left = set->bits[number] & s->writable; left;) {
			unsigned first = (unsigned)__builtin_ctzll(left);
			uint64_t inverted = ~(left >> first);
			unsigned count = inverted ? (unsigned)__builtin_ctzll(inverted) : 64;

			span_protect(w, s, first, count);
			left &= ~page_bits(first, count);
		}
	}
	region_recount(w, r);
}

/* ---- the end of regions ---- */

void region_release(struct bt_windows *w, struct region *r)
{
	pool_index index = pool_index_of(&w->regions, r), *at = hash_head(w, r->window, r->number);
	struct window *window = r->window;
	uint32_t number = r->number;
	bool whole = r->whole;

	while (*at != index)
		at = &region_of(w, *at)->hash_next;
	*at = r->hash_next;
	for (unsigned n = 0; n < SPANS_PER_REGION; n++)
		if (r->span[n])
			span_release(w, r, n);
	if (whole) {
		whole_unlink(w, r);
		w->stats.pages_dropped += PAGES_PER_REGION;
	}
	window->huge_count -= r->leaf == LEAF_1G;
	windows_give(w, tables_of(window, number, 1));
	window->region_count--;
	window->regions_in[number >> (GIB_SHIFT - REGION_SHIFT)]--;
	if (r->global) {
		window->global_count--;
		w->slot_global[window->slot]--;
	}
	w->stats.mappings -= r->mappings;
	window->mappings -= r->mappings;
	list_remove(&r->node);
	pool_give(&w->regions, index);
	if (whole) {
		struct region *after = region_find(w, window, number + 1);

		if (after && after->whole)
			region_recount(w, after);
	}
}

/*
 * The host frees a page table when all that it is for is unmapped at once. So a region goes as a whole, and the last one of a GiB, or of
 * the window, takes that along.
 */
void region_drop(struct bt_windows *w, struct region *r)
{
	const struct window *window = r->window;
	uint64_t size = BIT(REGION_SHIFT);

	if (window->region_count == 1)
		size = WINDOW_SIZE;
	else if (window->regions_in[r->number >> (GIB_SHIFT - REGION_SHIFT)] == 1)
		size = BIT(GIB_SHIFT);
	windows_host_unmap(w, window->base + ((region_base(r) - window->base) & ~(size - 1)), size);
	region_release(w, r);
}

static void release_all(struct bt_windows *w, struct window *window)
{
	struct region *r, *next;

	list_for_each_safe (r, next, &window->local_regions, node)
		region_release(w, r);
	list_for_each_safe (r, next, &window->global_regions, node)
		region_release(w, r);
}

void window_clear(struct bt_windows *w, struct window *window)
{
	if (!window->region_count)
		return;
	windows_host_unmap(w, window->base, WINDOW_SIZE);
	release_all(w, window);
}

bool windows_clean(struct bt_windows *w)
{
	bool unclean = false;

	for (unsigned n = 0; n < w->window_count; n++) {
		struct window *window = &w->window[n];

		if (!window->unclean)
			continue;
		release_all(w, window);
		window->unclean = windows_host_reserve(window->base, WINDOW_SIZE);
		unclean |= window->unclean;
	}
	w->unclean = unclean;
	return !unclean;
}
