/*
 * Whole regions: 2 MiB that are one mapping, or part of a larger one, but for pages that hold code.
 */
#include "engine/bt/window_private.h"

/* A page of a mapping that is to be writable: may it be? */
static bool page_may_be_written(struct bt_windows *w, uint32_t frame, uint32_t ram_page)
{
	return !page_is_guarded(w, ram_page) &&
	       mem_allow_direct(w->mem, mem_page(w->mem, gpa((uint64_t)frame << PAGE_SHIFT)), DIRECT_ENGINE);
}

/* Pages that hold code are read-only from the start: another vCPU may be writing already. */
static int map_pieces(struct bt_windows *w, uint64_t base, uint64_t pages, uint32_t frame, uint64_t offset,
		      bool writable, bool populate)
{
	uint32_t ram_page = (uint32_t)(offset >> PAGE_SHIFT);
	uint64_t start = 0, end;
	int rc;

	for (; start < pages; start = end) {
		bool write = writable && page_may_be_written(w, frame + (uint32_t)start, ram_page + (uint32_t)start);

		for (end = start + 1; end < pages; end++)
			if (writable &&
			    page_may_be_written(w, frame + (uint32_t)end, ram_page + (uint32_t)end) != write)
				break;
		if (!writable)
			end = pages;
		rc = windows_host_map(w, base + start * PAGE_SIZE, (end - start) * PAGE_SIZE,
				      offset + start * PAGE_SIZE, write, populate);
		if (rc)
			return rc;
	}
	return 0;
}

/* A new whole region has read-only what is guarded; what is code and was not guarded yet becomes so, everywhere. */
static void count_holes(struct bt_windows *w, struct region *r, uint32_t ram_page)
{
	const struct mem_page *page = mem_page(w->mem, gpa((uint64_t)r->frame << PAGE_SHIFT));

	for (unsigned n = 0; n < PAGES_PER_REGION; n++) {
		if (page_is_guarded(w, ram_page + n))
			r->holes++;
		else if (atomic_load(&page[n].code_chunks))
			page_guard_in_whole_regions(w, r->frame + n, ram_page + n);
	}
}

int regions_map_whole(struct bt_windows *w, struct window *window, uint32_t number, unsigned count, uint32_t frame,
		      bool writable, bool populate)
{
	uint64_t base = window->base + ((uint64_t)number << REGION_SHIFT), offset;
	int rc;

	BUG_ON(!windows_offset(w, gpa((uint64_t)frame << PAGE_SHIFT), (uint64_t)count << REGION_SHIFT, &offset));
	rc = map_pieces(w, base, (uint64_t)count * PAGES_PER_REGION, frame, offset, writable, populate);
	if (rc)
		windows_host_unmap(w, base, (uint64_t)count << REGION_SHIFT);
	for (unsigned n = 0; n < count; n++) {
		struct region *r = region_find(w, window, number + n);

		if (rc) {
			region_release(w, r);
			continue;
		}
		r->whole = true;
		r->writable = writable;
		r->frame = frame + n * PAGES_PER_REGION;
		whole_link(w, r);
		if (writable)
			count_holes(w, r, (uint32_t)(offset >> PAGE_SHIFT) + n * PAGES_PER_REGION);
		w->stats.pages_filled += PAGES_PER_REGION;
		whole_changed(w, r);
	}
	return rc;
}

void region_protect_whole(struct bt_windows *w, struct region *r)
{
	if (!may_split(w, 2) || !windows_host_protect(w, region_base(r), BIT(REGION_SHIFT))) {
		region_drop(w, r);
		return;
	}
	r->writable = false;
	r->holes = 0;
	whole_changed(w, r);
}

/* ---- all that may be written ---- */

static void protect_regions(struct bt_windows *w, struct list *regions)
{
	static const struct page_set all = { .bits = { [0 ... SPANS_PER_REGION - 1] = ~0ull } };
	struct region *r, *next;

	list_for_each_safe (r, next, regions, node) {
		if (!r->whole)
			region_protect_pages(w, r, &all);
		else if (r->writable)
			region_protect_whole(w, r);
	}
}

void windows_protect(struct bt_windows *w)
{
	for (unsigned n = 0; n < w->window_count; n++) {
		protect_regions(w, &w->window[n].local_regions);
		protect_regions(w, &w->window[n].global_regions);
	}
}
