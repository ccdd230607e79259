/*
 * Which mappings of a physical page may be written. They must all go when an engine decodes code from the page, while everybody waits: so
 * there is a bound on their number.
 */
#include "engine/bt/window_private.h"

/* ---- lists of them ---- */

/* The page's number (struct memory), by its address's. */
static uint32_t ram_page_of(struct bt_windows *w, uint32_t frame)
{
	uint64_t offset;

	BUG_ON(!windows_offset(w, gpa((uint64_t)frame << PAGE_SHIFT), PAGE_SIZE, &offset));
	return (uint32_t)(offset >> PAGE_SHIFT);
}

void page_link(struct bt_windows *w, pool_index index, struct span *s, unsigned n)
{
	uint32_t *head = &w->page_mappings[ram_page_of(w, s->frame[n])], id = index * PAGES_PER_SPAN + n;

	s->next[n] = *head;
	s->previous[n] = 0;
	if (*head)
		span_of(w, *head / PAGES_PER_SPAN)->previous[*head % PAGES_PER_SPAN] = id;
	*head = id;
	s->writable |= BIT(n);
}

void page_unlink(struct bt_windows *w, struct span *s, unsigned n)
{
	uint32_t next = s->next[n], previous = s->previous[n];

	if (next)
		span_of(w, next / PAGES_PER_SPAN)->previous[next % PAGES_PER_SPAN] = previous;
	if (previous)
		span_of(w, previous / PAGES_PER_SPAN)->next[previous % PAGES_PER_SPAN] = next;
	else
		w->page_mappings[ram_page_of(w, s->frame[n])] = next;
	s->writable &= ~BIT(n);
}

static pool_index *large_head(struct bt_windows *w, uint32_t frame)
{
	return &w->large_mappings[frame >> (REGION_SHIFT - PAGE_SHIFT)];
}

void whole_link(struct bt_windows *w, struct region *r)
{
	pool_index *head = large_head(w, r->frame), index = pool_index_of(&w->regions, r);

	r->large_next = *head;
	r->large_previous = 0;
	if (*head)
		region_of(w, *head)->large_previous = index;
	*head = index;
}

void whole_unlink(struct bt_windows *w, struct region *r)
{
	if (r->large_next)
		region_of(w, r->large_next)->large_previous = r->large_previous;
	if (r->large_previous)
		region_of(w, r->large_previous)->large_next = r->large_next;
	else
		*large_head(w, r->frame) = r->large_next;
}

bool page_is_guarded(const struct bt_windows *w, uint32_t ram_page)
{
	return w->guarded[ram_page / 64] & BIT(ram_page % 64);
}

/* What may be written of a page, and where its 2 MiB are as a whole. In *last the oldest. */
static unsigned count_pages(struct bt_windows *w, uint32_t ram_page, uint32_t *last)
{
	unsigned count = 0;

	for (uint32_t id = w->page_mappings[ram_page]; id; count++) {
		*last = id;
		id = span_of(w, id / PAGES_PER_SPAN)->next[id % PAGES_PER_SPAN];
	}
	return count;
}

static unsigned count_whole(struct bt_windows *w, uint32_t frame, struct region **last)
{
	unsigned count = 0;

	for (struct region *r = region_of(w, *large_head(w, frame)); r; count++) {
		*last = r;
		r = region_of(w, r->large_next);
	}
	return count;
}

/* Each may have to be cut. */
static unsigned count_aliases(struct bt_windows *w, uint32_t frame, uint32_t ram_page)
{
	struct region *region;
	uint32_t last;

	return count_pages(w, ram_page, &last) + count_whole(w, frame, &region);
}

/* ---- pages that hold code ---- */

void page_guard_in_whole_regions(struct bt_windows *w, uint32_t frame, uint32_t ram_page)
{
	uint64_t offset = (uint64_t)(frame % PAGES_PER_REGION) * PAGE_SIZE;
	struct region *r, *next;

	for (r = region_of(w, *large_head(w, frame)); r; r = next) {
		next = region_of(w, r->large_next);
		if (!r->writable)
			continue;
		if (!windows_host_protect(w, region_base(r) + offset, PAGE_SIZE)) {
			region_drop(w, r);
			continue;
		}
		r->holes++;
		region_recount(w, r);
	}
	w->guarded[ram_page / 64] |= BIT(ram_page % 64);
}

void page_guard(struct bt_windows *w, gpa_t at)
{
	uint32_t frame = (uint32_t)(at.v >> PAGE_SHIFT), ram_page;
	uint64_t offset;

	if (!windows_offset(w, gpa(at.v & PAGE_MASK), PAGE_SIZE, &offset))
		return;
	ram_page = (uint32_t)(offset >> PAGE_SHIFT);
	while (!may_split(w, count_aliases(w, frame, ram_page)) && windows_evict(w))
		continue;
	while (w->page_mappings[ram_page]) {
		uint32_t id = w->page_mappings[ram_page];
		struct span *s = span_of(w, id / PAGES_PER_SPAN);

		span_protect(w, s, id % PAGES_PER_SPAN, 1);
		region_recount(w, region_of(w, s->region));
	}
	if (!page_is_guarded(w, ram_page) && *large_head(w, frame))
		page_guard_in_whole_regions(w, frame, ram_page);
}

void page_unguard(struct bt_windows *w, gpa_t at)
{
	uint32_t frame = (uint32_t)(at.v >> PAGE_SHIFT), ram_page = ram_page_of(w, frame);
	uint64_t offset = (uint64_t)(frame % PAGES_PER_REGION) * PAGE_SIZE;
	struct region *r, *next;

	if (!page_is_guarded(w, ram_page) || !mem_allow_direct(w->mem, mem_page(w->mem, at), DIRECT_ENGINE))
		return;
	w->guarded[ram_page / 64] &= ~BIT(ram_page % 64);
	for (r = region_of(w, *large_head(w, frame)); r; r = next) {
		next = region_of(w, r->large_next);
		if (!r->writable)
			continue;
		if (windows_host_map(w, region_base(r) + offset, PAGE_SIZE, (uint64_t)ram_page << PAGE_SHIFT, true,
				     true)) {
			region_drop(w, r);
			continue;
		}
		r->holes--;
		region_recount(w, r);
	}
}

unsigned region_code_pages(struct bt_windows *w, gpa_t at)
{
	const struct mem_page *page = mem_page(w->mem, at);
	unsigned count = 0;

	for (unsigned n = 0; n < PAGES_PER_REGION; n++)
		count += atomic_load_explicit(&page[n].code_chunks, memory_order_relaxed) != 0;
	return count;
}

/* ---- a bound ---- */

bool page_has_all_aliases(struct bt_windows *w, gpa_t at, bool whole)
{
	uint32_t frame = (uint32_t)(at.v >> PAGE_SHIFT), last;
	struct region *region;

	return (whole ? count_whole(w, frame, &region) : count_pages(w, ram_page_of(w, frame), &last)) >= MAX_ALIASES;
}

void page_limit_aliases(struct bt_windows *w, gpa_t at, bool whole)
{
	uint32_t frame = (uint32_t)(at.v >> PAGE_SHIFT), last;
	struct page_set set = { 0 };
	struct region *region;
	struct span *s;

	if (whole) {
		if (count_whole(w, frame, &region) >= MAX_ALIASES)
			region_drop(w, region);
		return;
	}
	if (count_pages(w, ram_page_of(w, frame), &last) < MAX_ALIASES)
		return;
	s = span_of(w, last / PAGES_PER_SPAN);
	set.bits[s->number] = BIT(last % PAGES_PER_SPAN);
	region_unmap_pages(w, region_of(w, s->region), &set);
}
