/*
 * What is mapped in windows: host mappings together with the records of them, so that the two always agree. Physical pages
 * know their writable mappings, because those must go when an engine decodes code from a page.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS, MAP_POPULATE, syscall */
#include "engine/bt/window.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- pools: so that nothing is allocated in a signal handler, and there is a limit ---- */

int pool_create(struct pool *p, size_t item_size, uint32_t capacity, struct error *err)
{
	void *items = mmap(NULL, item_size * capacity, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (items == MAP_FAILED)
		return error_set_errno(err, errno, "cannot map %zu bytes for windows' records", item_size * capacity);
	*p = (struct pool){ .items = items, .item_size = item_size, .capacity = capacity };
	return 0;
}

void pool_destroy(struct pool *p)
{
	if (p->items)
		munmap(p->items, p->item_size * p->capacity);
	p->items = NULL;
}

static bool windows_take(struct bt_windows *w, uint64_t size)
{
	if (!overhead_take(&w->mem->overhead, OVERHEAD_WINDOWS, size))
		return false;
	w->overhead += size;
	return true;
}

static void windows_give(struct bt_windows *w, uint64_t size)
{
	overhead_give(&w->mem->overhead, OVERHEAD_WINDOWS, size);
	w->overhead -= size;
}

/* A zeroed item, 0 when there is none left. */
static pool_index pool_take(struct bt_windows *w, struct pool *p)
{
	pool_index i = p->free;

	if (i)
		memcpy(&p->free, pool_item(p, i), sizeof(p->free));
	else if (p->fresh < p->capacity && windows_take(w, p->item_size))
		i = ++p->fresh;
	else
		return 0;
	p->taken++;
	memset(pool_item(p, i), 0, p->item_size);
	return i;
}

static void pool_give(struct pool *p, pool_index i)
{
	memcpy(pool_item(p, i), &p->free, sizeof(p->free));
	p->free = i;
	p->taken--;
}

static pool_index pool_index_of(const struct pool *p, const void *item)
{
	return (pool_index)((size_t)((const uint8_t *)item - p->items) / p->item_size) + 1;
}

/* ---- host mappings ---- */

static void *host_pointer(uint64_t at) { return (void *)(uintptr_t)at; }

/*
 * The system call itself: mmap() of a sanitizer keeps a shadow of everything it maps, here of half a terabyte a window. Nothing but
 * translated code ever uses these addresses.
 */
static int host_mmap(uint64_t at, uint64_t size, int protection, int flags, int fd, uint64_t offset)
{
	return syscall(SYS_mmap, at, size, protection, flags, fd, offset) == -1 ? -errno : 0;
}

uint64_t windows_reserve(uint64_t size)
{
	long at = syscall(SYS_mmap, 0, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == -1 ? 0 : (uint64_t)at;
}

void windows_release(uint64_t at, uint64_t size)
{
	if (at)
		syscall(SYS_munmap, at, size);
}

/* Each is one mapping, whatever is beside it: shared ones with memory of their own do not become one. */
bool spares_take(struct bt_windows *w)
{
	while (w->spare_count < SPARE_MAPPINGS) {
		long at = syscall(SYS_mmap, 0, PAGE_SIZE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (at == -1)
			return false;
		w->spare[w->spare_count++] = (uint64_t)at;
	}
	return true;
}

static bool spare_give(struct bt_windows *w)
{
	return w->spare_count && !syscall(SYS_munmap, w->spare[--w->spare_count], PAGE_SIZE);
}

void spares_release(struct bt_windows *w)
{
	while (spare_give(w))
		continue;
}

bool windows_open_page(struct bt_windows *w, uint64_t at)
{
	do {
		if (!mprotect(host_pointer(at), PAGE_SIZE, PROT_READ | PROT_WRITE))
			return true;
	} while (spare_give(w));
	return false;
}

static int host_reserve(uint64_t at, uint64_t size)
{
	return host_mmap(at, size, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static struct window *window_of(struct bt_windows *w, uint64_t at)
{
	return &w->window[(at - w->first) / (WINDOW_SIZE + WINDOW_GUARD)];
}

/*
 * Give addresses of a window back to the reservation. What was there may not be used any more, whatever happens; but the host gives a
 * process so many mappings, others may have taken the last ones (or its limit became lower), and a piece in the middle of a mapping
 * takes two more. So there are some to spare. When these do not help, taking all rights away does as well, which needs no further
 * mapping where nothing is cut: last of all for the whole window, at whose ends there never were any rights. What is left of it then
 * is seen to later.
 */
static void host_unmap(struct bt_windows *w, uint64_t at, uint64_t size)
{
	struct window *window = window_of(w, at);

	w->host_calls++;
	do {
		if (!host_reserve(at, size))
			return;
	} while (spare_give(w));
	BUG_ON(mprotect(host_pointer(at), size, PROT_NONE) &&
	       mprotect(host_pointer(window->base), WINDOW_SIZE, PROT_NONE));
	window->unclean = w->unclean = true;
}

/* On failure nothing is mapped there. */
static int host_map(struct bt_windows *w, uint64_t at, uint64_t size, uint64_t offset, bool writable, bool populate)
{
	const struct memory *memory = mem_memory_of(w->mem, offset >> PAGE_SHIFT);
	int rc = host_mmap(at, size, writable ? PROT_READ | PROT_WRITE : PROT_READ,
			   MAP_FIXED | MAP_SHARED | MAP_NORESERVE | (populate ? MAP_POPULATE : 0), memory->file.fd,
			   offset - (memory->first << PAGE_SHIFT));

	w->host_calls++;
	if (rc)
		host_unmap(w, at, size);
	return rc;
}

/* Needs up to two more mappings, which the host may not give: then nothing is mapped there afterwards. */
static bool host_protect(struct bt_windows *w, uint64_t at, uint64_t size)
{
	w->host_calls++;
	if (!mprotect(host_pointer(at), size, PROT_READ))
		return true;
	host_unmap(w, at, size);
	return false;
}

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

static uint64_t region_base(const struct region *r) { return r->window->base + ((uint64_t)r->number << REGION_SHIFT); }

/* Whole regions that continue their neighbour are the same host mapping. */
static bool continues(struct bt_windows *w, const struct region *r)
{
	const struct region *before = r->number ? region_find(w, r->window, r->number - 1) : NULL;

	return before && before->whole && before->writable == r->writable &&
	       before->frame + PAGES_PER_SPAN * SPANS_PER_REGION == r->frame;
}

/* Each piece is a mapping, and so is the gap behind it. */
static void region_recount(struct bt_windows *w, struct region *r)
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

static void whole_changed(struct bt_windows *w, struct region *r)
{
	struct region *after = region_find(w, r->window, r->number + 1);

	region_recount(w, r);
	if (after && after->whole)
		region_recount(w, after);
}

/* ---- which mappings of a physical page may be written ---- */

static uint32_t ram_page_of(struct bt_windows *w, uint32_t frame)
{
	uint64_t offset;

	BUG_ON(!windows_offset(w, gpa((uint64_t)frame << PAGE_SHIFT), PAGE_SIZE, &offset));
	return (uint32_t)(offset >> PAGE_SHIFT);
}

static void link_page(struct bt_windows *w, pool_index index, struct span *s, unsigned n)
{
	uint32_t *head = &w->page_mappings[ram_page_of(w, s->frame[n])], id = index * PAGES_PER_SPAN + n;

	s->next[n] = *head;
	s->previous[n] = 0;
	if (*head)
		span_of(w, *head / PAGES_PER_SPAN)->previous[*head % PAGES_PER_SPAN] = id;
	*head = id;
	s->writable |= BIT(n);
}

static void unlink_page(struct bt_windows *w, struct span *s, unsigned n)
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

static void link_whole(struct bt_windows *w, struct region *r)
{
	pool_index *head = large_head(w, r->frame), index = pool_index_of(&w->regions, r);

	r->large_next = *head;
	r->large_previous = 0;
	if (*head)
		region_of(w, *head)->large_previous = index;
	*head = index;
}

static void unlink_whole(struct bt_windows *w, struct region *r)
{
	if (r->large_next)
		region_of(w, r->large_next)->large_previous = r->large_previous;
	if (r->large_previous)
		region_of(w, r->large_previous)->large_next = r->large_next;
	else
		*large_head(w, r->frame) = r->large_next;
}

static bool is_guarded(const struct bt_windows *w, uint32_t ram_page)
{
	return w->guarded[ram_page / 64] & BIT(ram_page % 64);
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
		unlink_page(w, s, (unsigned)__builtin_ctzll(left));
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
		unlink_page(w, s, (unsigned)__builtin_ctzll(left));
	rc = host_map(w, span_base(w, s) + first * PAGE_SIZE, (uint64_t)count * PAGE_SIZE, offset, writable, true);
	if (rc) {
		span_forget(w, s, pages);
	} else {
		s->filled |= pages;
		w->stats.pages_filled += count;
		for (unsigned n = first; n < first + count; n++) {
			s->frame[n] = frame + (n - first);
			s->seen[n] = entries[n];
			if (writable)
				link_page(w, r->span[number], s, n);
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

#define PAGES_PER_REGION (PAGES_PER_SPAN * SPANS_PER_REGION)

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
			host_unmap(w, region_base(r) + start * PAGE_SIZE, (end - start) * PAGE_SIZE);
			start = end;
		}
	}
	if (start != end)
		host_unmap(w, region_base(r) + start * PAGE_SIZE, (end - start) * PAGE_SIZE);
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

/* Pages [first, first + count) of a span lose write access. */
static void span_protect(struct bt_windows *w, struct span *s, unsigned first, unsigned count)
{
	uint64_t pages = page_bits(first, count);

	for (unsigned n = first; n < first + count; n++)
		unlink_page(w, s, n);
	if (!host_protect(w, span_base(w, s) + first * PAGE_SIZE, (uint64_t)count * PAGE_SIZE))
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

/* ---- whole regions ---- */

/* A page of a mapping that is to be writable: may it be? */
static bool page_may_be_written(struct bt_windows *w, uint32_t frame, uint32_t ram_page)
{
	return !is_guarded(w, ram_page) &&
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
		rc = host_map(w, base + start * PAGE_SIZE, (end - start) * PAGE_SIZE, offset + start * PAGE_SIZE, write,
			      populate);
		if (rc)
			return rc;
	}
	return 0;
}

static void guard_in_whole_regions(struct bt_windows *w, uint32_t frame, uint32_t ram_page);
static void region_release(struct bt_windows *w, struct region *r);

/* A new whole region has read-only what is guarded; what is code and was not guarded yet becomes so, everywhere. */
static void count_holes(struct bt_windows *w, struct region *r, uint32_t ram_page)
{
	const struct mem_page *page = mem_page(w->mem, gpa((uint64_t)r->frame << PAGE_SHIFT));

	for (unsigned n = 0; n < PAGES_PER_REGION; n++) {
		if (is_guarded(w, ram_page + n))
			r->holes++;
		else if (atomic_load(&page[n].code_chunks))
			guard_in_whole_regions(w, r->frame + n, ram_page + n);
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
		host_unmap(w, base, (uint64_t)count << REGION_SHIFT);
	for (unsigned n = 0; n < count; n++) {
		struct region *r = region_find(w, window, number + n);

		if (rc) {
			region_release(w, r);
			continue;
		}
		r->whole = true;
		r->writable = writable;
		r->frame = frame + n * PAGES_PER_REGION;
		link_whole(w, r);
		if (writable)
			count_holes(w, r, (uint32_t)(offset >> PAGE_SHIFT) + n * PAGES_PER_REGION);
		w->stats.pages_filled += PAGES_PER_REGION;
		whole_changed(w, r);
	}
	return rc;
}

void region_protect_whole(struct bt_windows *w, struct region *r)
{
	if (!may_split(w, 2) || !host_protect(w, region_base(r), BIT(REGION_SHIFT))) {
		region_drop(w, r);
		return;
	}
	r->writable = false;
	r->holes = 0;
	whole_changed(w, r);
}

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

static void guard_in_whole_regions(struct bt_windows *w, uint32_t frame, uint32_t ram_page)
{
	uint64_t offset = (uint64_t)(frame % PAGES_PER_REGION) * PAGE_SIZE;
	struct region *r, *next;

	for (r = region_of(w, *large_head(w, frame)); r; r = next) {
		next = region_of(w, r->large_next);
		if (!r->writable)
			continue;
		if (!host_protect(w, region_base(r) + offset, PAGE_SIZE)) {
			region_drop(w, r);
			continue;
		}
		r->holes++;
		region_recount(w, r);
	}
	w->guarded[ram_page / 64] |= BIT(ram_page % 64);
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
	if (!is_guarded(w, ram_page) && *large_head(w, frame))
		guard_in_whole_regions(w, frame, ram_page);
}

void page_unguard(struct bt_windows *w, gpa_t at)
{
	uint32_t frame = (uint32_t)(at.v >> PAGE_SHIFT), ram_page = ram_page_of(w, frame);
	uint64_t offset = (uint64_t)(frame % PAGES_PER_REGION) * PAGE_SIZE;
	struct region *r, *next;

	if (!is_guarded(w, ram_page) || !mem_allow_direct(w->mem, mem_page(w->mem, at), DIRECT_ENGINE))
		return;
	w->guarded[ram_page / 64] &= ~BIT(ram_page % 64);
	for (r = region_of(w, *large_head(w, frame)); r; r = next) {
		next = region_of(w, r->large_next);
		if (!r->writable)
			continue;
		if (host_map(w, region_base(r) + offset, PAGE_SIZE, (uint64_t)ram_page << PAGE_SHIFT, true, true)) {
			region_drop(w, r);
			continue;
		}
		r->holes--;
		region_recount(w, r);
	}
}

/* ---- a bound on the mappings of one page ---- */

unsigned region_code_pages(struct bt_windows *w, gpa_t at)
{
	const struct mem_page *page = mem_page(w->mem, at);
	unsigned count = 0;

	for (unsigned n = 0; n < PAGES_PER_REGION; n++)
		count += atomic_load_explicit(&page[n].code_chunks, memory_order_relaxed) != 0;
	return count;
}

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

/* ---- the end of regions ---- */

/* The record of a region of which nothing is mapped any more. */
static void region_release(struct bt_windows *w, struct region *r)
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
		unlink_whole(w, r);
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
	host_unmap(w, window->base + ((region_base(r) - window->base) & ~(size - 1)), size);
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
	host_unmap(w, window->base, WINDOW_SIZE);
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
		window->unclean = host_reserve(window->base, WINDOW_SIZE);
		unclean |= window->unclean;
	}
	w->unclean = unclean;
	return !unclean;
}
