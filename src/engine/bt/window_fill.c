/*
 * Filling windows: what an access needs is mapped, together with neighbours that are alike, because the cost is one of calls to
 * the host more than one of pages.
 */
#include "engine/bt/window_private.h"

/* A fill adds at most this many whole regions: 64 MiB of a kernel's map of all memory. */
#define FILL_REGIONS 32u
/* Host mappings that one fill may take: a page splits what is around it; pages with code split a whole region. */
#define FILL_MAPPINGS 16u
/*
 * Faults in a row at one address: should filling not help, because there is too little room or a record is wrong, the guest still
 * gets on by the slow way.
 */
#define REPEAT_LIMIT 8

struct fill {
	struct bt_windows *w;
	struct window_cpu *cpu;
	struct window *at; /* where translated code's access went to and faulted; NULL: see windows_fill_missed() */
	struct window *window;
	struct table_walk walk;
	enum table_view view; /* from which it is accessed */
	uint64_t lin;
	bool write;			/* the access */
	bool writable;			/* the mapping, but for pages with code */
	uint64_t end;			/* what was mapped ends here */
	uint64_t entry[PAGES_PER_SPAN]; /* of the span at hand, as far as they were looked at */
};

/* ---- may it be mapped? ---- */

/* 4.6 with CR0.WP set. While it is clear, what it forbids is the interpreter's to do. */
static bool access_allowed(const struct fill *f)
{
	if (f->write && !f->walk.writable)
		return false;
	switch (f->view) {
	case TABLE_USER: return f->walk.user;
	case TABLE_SUPERVISOR: return !f->walk.user;
	default: return true;
	}
}

static bool has_code(const struct fill *f, uint64_t page)
{
	return atomic_load(&mem_page(f->w->mem, gpa(page))->code_chunks);
}

/* What is mapped must have been read under the lock: windows are younger than their `validated` says. */
static bool read_tables(struct fill *f)
{
	const struct mem_region *region;
	uint64_t offset;

	if (!windows_walk(f->w, f->cpu->space, f->cpu->vcpu, f->lin, &f->walk) || !access_allowed(f))
		return false;
	region = mem_find(f->w->mem, f->walk.page);
	if (!windows_offset(f->w, f->walk.page, PAGE_SIZE, &offset) ||
	    (f->write && (!region->writable || has_code(f, f->walk.page.v))))
		return false;
	f->writable = f->walk.writable && f->walk.dirty && region->writable && (f->write || !mem_is_logging(f->w->mem));
	return true;
}

static bool is_marked(const struct fill *f) { return f->walk.accessed && (!f->write || f->walk.dirty); }

/*
 * Set accessed and dirty bits, for an access that is going to be made. A table in whose page code was decoded is left to the slow way, which
 * tells the engine of the write. A page that becomes code behind our back is no worry: who decodes from it waits until every vCPU stands
 * between instructions, which this one does not here, and then reads the bytes.
 */
static bool mark_tables(const struct fill *f)
{
	const struct table_walk *t = &f->walk;

	for (unsigned n = 0; n < t->depth; n++) {
		uint64_t entry = t->entry[n], marked = entry | PTE_A;
		size_t offset = (size_t)((const uint8_t *)t->at[n] - f->w->mem->ram.file.base);

		if (n + 1 == t->depth && f->write)
			marked |= PTE_D;
		if (marked == entry)
			continue;
		if (!mem_allow_direct(f->w->mem, &f->w->mem->pages[offset >> PAGE_SHIFT], DIRECT_ENGINE) ||
		    !entry_mark(f->cpu->space->paging, t->at[n], entry, marked))
			return false;
	}
	return true;
}

/* Entries are remembered as they are when they are marked. */
static bool tables_allow(struct fill *f)
{
	if (!read_tables(f) || (f->cpu->young && f->walk.user))
		return false;
	return is_marked(f) || (f->at && mark_tables(f) && read_tables(f) && is_marked(f));
}

/* ---- pages ---- */

/* How a page of the same page table may be mapped. */
struct candidate {
	uint64_t frame; /* its address */
	bool mappable, writable, global;
};

static struct candidate candidate(struct fill *f, const struct mem_region *ram, unsigned page)
{
	const struct table_walk *t = &f->walk;
	unsigned here = page_number(f->lin);
	struct candidate c = { .global = t->global, .writable = f->writable };
	uint64_t entry;

	if (t->leaf == LEAF_4K && page != here) {
		entry = pte_read(f->window->paging, t->page_table, page);
		c.frame = entry & PTE_FRAME;
		f->entry[page % PAGES_PER_SPAN] = entry;
		/* The entries above are the same, so the rights that they give are too. */
		c.mappable = !((~entry & (PTE_P | PTE_A)) || ((entry ^ t->pte) & (PTE_U | PTE_NX)));
		c.writable = (entry & PTE_D) && (entry & PTE_W) && f->writable;
		if ((entry ^ t->pte) & (PTE_W | PTE_D | PTE_G))
			c.mappable = false;
	} else {
		c.frame = t->page.v + ((uint64_t)page - here) * PAGE_SIZE;
		f->entry[page % PAGES_PER_SPAN] = t->pte;
		c.mappable = true;
	}
	c.mappable &= c.frame - ram->start < ram->size;
	if (mem_has_origins(f->w->mem) && page != here)
		c.mappable = false;
	if (is_closed(f->window, f->lin + ((uint64_t)page - here) * PAGE_SIZE))
		c.mappable = false;
	/* While writes are logged only what is written. */
	if (mem_is_logging(f->w->mem) && page != here)
		c.writable = false;
	if (c.mappable && c.writable && !mem_allow_direct(f->w->mem, mem_page(f->w->mem, gpa(c.frame)), DIRECT_ENGINE))
		c.writable = false;
	return c;
}

static bool is_mapped(const struct span *s, unsigned n, uint64_t frame, bool writable)
{
	return s && (s->filled & BIT(n)) && s->frame[n] == frame >> PAGE_SHIFT && (!writable || (s->writable & BIT(n)));
}

/* Does the page continue the run, and is it worth it? */
static bool belongs(struct fill *f, const struct mem_region *ram, const struct span *s, unsigned page, uint64_t frame,
		    bool writable)
{
	struct candidate c = candidate(f, ram, page);

	return c.mappable && c.frame == frame && c.writable == writable &&
	       !is_mapped(s, page % PAGES_PER_SPAN, frame, writable) &&
	       !(writable && page_has_all_aliases(f->w, gpa(frame), false));
}

static enum window_result fill_pages(struct fill *f, struct region *r)
{
	unsigned here = page_number(f->lin), number = here / PAGES_PER_SPAN, first = here, last = here;
	const struct mem_region *ram = mem_find(f->w->mem, f->walk.page);
	struct candidate c = candidate(f, ram, here);
	const struct span *s = r ? span_of(f->w, r->span[number]) : NULL;

	if (is_mapped(s, here % PAGES_PER_SPAN, c.frame, c.writable))
		return WINDOW_FILLED; /* another vCPU was faster, or changed it for a moment */
	if (!r && !(r = region_add(f->w, f->window, region_number(f->lin), &f->walk)))
		return WINDOW_SLOW;
	while (first > number * PAGES_PER_SPAN &&
	       belongs(f, ram, s, first - 1, c.frame - (uint64_t)(here - first + 1) * PAGE_SIZE, c.writable))
		first--;
	while (last + 1 < (number + 1) * PAGES_PER_SPAN &&
	       belongs(f, ram, s, last + 1, c.frame + (uint64_t)(last + 1 - here) * PAGE_SIZE, c.writable))
		last++;
	region_note_global(f->w, r, c.global);
	if (span_map(f->w, r, number, first % PAGES_PER_SPAN, last - first + 1,
		     (uint32_t)(c.frame >> PAGE_SHIFT) - (here - first), c.writable, f->entry)) {
		region_drop(f->w, r);
		return WINDOW_SLOW;
	}
	f->end = f->lin + (uint64_t)(last + 1 - here) * PAGE_SIZE;
	f->w->stats.fills++;
	f->cpu->space->fills++;
	return WINDOW_FILLED;
}

/* ---- large pages ---- */

/* Is region `number`, in the same table as the one at hand, mapped by an entry just like it, and not in the window yet? */
static bool region_belongs(const struct fill *f, uint32_t number, uint64_t frame)
{
	const struct table_walk *t = &f->walk;
	uint32_t here = region_number(f->lin);
	uint64_t entry;

	if (region_find(f->w, f->window, number) || has_closed(f->window, number))
		return false;
	if (t->leaf == LEAF_1G)
		return true;
	entry = pde_read(f->window->paging, pde_move(f->window->paging, t->pde_at, here, number), number) &
		~(uint64_t)0x1000; /* PAT */
	return entry == ((t->pde & ~PTE_FRAME) | frame);
}

/* One more in the run, with so many cut out of it already: is it worth its mappings? */
static bool run_goes_on(const struct fill *f, uint64_t frame, unsigned *code_pages)
{
	*code_pages += region_code_pages(f->w, gpa(frame));
	return 2 * *code_pages < FILL_MAPPINGS && !page_has_all_aliases(f->w, gpa(frame), true);
}

/* The run of regions around `here` that can be mapped at once: in *first its first; returns how many. */
static unsigned whole_run(const struct fill *f, uint32_t here, uint64_t frame, uint32_t *first)
{
	uint32_t start = here & ~(FILL_REGIONS - 1), end = start + FILL_REGIONS, last = here;
	unsigned code_pages = 0;
	uint64_t offset, unused;

	*first = here;
	if (f->window->kind == WINDOW_USER || !windows_offset(f->w, gpa(frame), BIT(REGION_SHIFT), &offset))
		return 1;
	while (*first > start) {
		uint64_t before = frame - ((uint64_t)(here - *first + 1) << REGION_SHIFT);

		if (before > frame || !windows_offset(f->w, gpa(before), frame - before + BIT(REGION_SHIFT), &unused) ||
		    !region_belongs(f, *first - 1, before) || !run_goes_on(f, before, &code_pages))
			break;
		--*first;
	}
	while (last + 1 < end) {
		uint64_t count = last + 2 - here, after = frame + ((count - 1) << REGION_SHIFT);

		if (!windows_offset(f->w, gpa(frame), count << REGION_SHIFT, &unused) ||
		    !region_belongs(f, last + 1, after) || !run_goes_on(f, after, &code_pages))
			break;
		last++;
	}
	return last - *first + 1;
}

static enum window_result map_whole(struct fill *f)
{
	uint32_t here = region_number(f->lin), first;
	uint64_t frame = f->walk.page.v & ~(BIT(REGION_SHIFT) - 1);
	unsigned count = whole_run(f, here, frame, &first);
	struct table_walk t = f->walk;

	frame -= (uint64_t)(here - first) << REGION_SHIFT;
	for (unsigned n = 0; n < count; n++) {
		struct region *r;

		if (t.leaf == LEAF_2M) {
			t.pde_at = pde_move(f->window->paging, f->walk.pde_at, here, first + n);
			t.pde = (f->walk.pde & ~PTE_FRAME) | (frame + ((uint64_t)n << REGION_SHIFT));
		}
		r = region_add(f->w, f->window, first + n, &t);
		BUG_ON(!r); /* room was made */
		region_note_global(f->w, r, t.global);
	}
	/* A user's large page was just cleared by the guest, and will be used. A kernel's map of memory is mostly never touched. */
	if (regions_map_whole(f->w, f->window, first, count, (uint32_t)(frame >> PAGE_SHIFT), f->writable,
			      f->window->kind == WINDOW_USER))
		return WINDOW_SLOW;
	f->end = ((f->lin >> REGION_SHIFT) + first + count - here) << REGION_SHIFT;
	f->w->stats.fills++;
	f->cpu->space->fills++;
	return WINDOW_FILLED;
}

static enum window_result fill_whole(struct fill *f, struct region *r)
{
	if (r && (r->writable || !f->write))
		return WINDOW_FILLED;
	if (r)
		region_drop(f->w, r);
	return map_whole(f);
}

/* ---- one access ---- */

static enum window_kind kind_for(const struct fill *f)
{
	if (f->cpu->space->paging != PAGING_4_LEVEL)
		return kind_of_view(f->view);
	return f->walk.user ? WINDOW_USER : WINDOW_SUPERVISOR;
}

/* Is it a large page that is mapped as one? *mappings: what that takes; page by page if it is cut too often. */
static bool may_be_whole(const struct fill *f, unsigned *mappings)
{
	gpa_t frame = gpa(f->walk.page.v & ~(BIT(REGION_SHIFT) - 1));
	uint64_t offset;
	unsigned needed;

	*mappings = FILL_MAPPINGS;
	if (f->walk.leaf == LEAF_4K || mem_is_logging(f->w->mem) || mem_has_origins(f->w->mem) ||
	    has_closed(f->window, region_number(f->lin)) || !windows_offset(f->w, frame, BIT(REGION_SHIFT), &offset))
		return false;
	needed = FILL_MAPPINGS + 2 * region_code_pages(f->w, frame);
	if (needed > f->w->mapping_limit / 2)
		return false;
	*mappings = needed;
	return true;
}

static enum window_result fill(struct fill *f)
{
	unsigned mappings;
	struct region *r;
	bool whole;

	if (!f->cpu->current || !tables_allow(f))
		return WINDOW_SLOW;
	f->window = space_get_window(f->w, f->cpu, slot_of(f->lin), kind_for(f), &f->walk, !f->at);
	if (!f->window)
		return WINDOW_SLOW;
	if (f->window != f->at || !table_names(f->cpu->space, f->view, f->window)) {
		table_name(f->w, f->cpu->space, f->view, f->window);
		if (f->at)
			return WINDOW_SLOW; /* what has its address must be done again from the start */
		if (!table_names(f->cpu->space, f->view, f->window))
			return WINDOW_SLOW;
	}
	whole = may_be_whole(f, &mappings);
	if (is_closed(f->window, f->lin) ||
	    !windows_make_room(f->w, f->cpu->vcpu, mappings, whole ? FILL_REGIONS : 1) || f->window->unclean)
		return WINDOW_SLOW;
	if (whole || f->writable)
		page_limit_aliases(f->w, f->walk.page, whole);
	if (f->write && f->walk.leaf != LEAF_4K)
		page_unguard(f->w, f->walk.page); /* it holds no code any more */
	r = region_find(f->w, f->window, region_number(f->lin));
	if (r && (r->whole != whole || !region_matches(r, &f->walk))) {
		region_drop(f->w, r);
		r = NULL;
	}
	return whole ? fill_whole(f, r) : fill_pages(f, r);
}

static bool is_repeated(struct window_cpu *c, uint64_t lin)
{
	c->repeated = c->repeat_at == lin ? c->repeated + 1 : 0;
	c->repeat_at = lin;
	if (c->repeated < REPEAT_LIMIT)
		return false;
	c->repeated = 0;
	return true;
}

static enum window_result fill_locked(struct fill *f)
{
	enum window_result result;

	windows_lock(f->w);
	result = fill(f);
	if (unlikely(f->w->stats.pages_filled >= f->w->trim.look_at))
		windows_trim(f->w, f->cpu->vcpu);
	windows_unlock(f->w);
	return result;
}

/* In the page that narrow windows do without an access may fault for reasons that come before the page tables: nothing is marked. */
static bool is_closed_to(const struct window_cpu *c, uint64_t lin)
{
	return atomic_load(&c->space->table[0].narrow) && lin >> PAGE_SHIFT == CLOSED_PAGE;
}

/* Known without a look into the tables; else see tables_allow(). */
static bool is_young(const struct window_cpu *c, uint64_t lin)
{
	return c->young && c->space->paging == PAGING_4_LEVEL && !(lin >> 63);
}

enum window_result windows_fill(struct bt_windows *w, struct window_cpu *c, struct window *at, uint64_t lin, bool write)
{
	struct fill f = { .w = w, .cpu = c, .at = at, .view = windows_view(c->vcpu), .lin = lin, .write = write };

	return is_young(c, lin) || is_closed_to(c, lin) || is_repeated(c, lin) ? WINDOW_SLOW : fill_locked(&f);
}

void windows_note_missed(struct window_cpu *c, uint64_t lin, bool write)
{
	c->missed.space = is_young(c, lin) ? NULL : c->space;
	c->missed.view = windows_view(c->vcpu);
	c->missed.lin = lin;
	c->missed.write = write;
}

enum window_result windows_fill_missed(struct bt_windows *w, struct window_cpu *c)
{
	struct fill f = {
		.w = w, .cpu = c, .view = windows_view(c->vcpu), .lin = c->missed.lin, .write = c->missed.write
	};

	if (c->missed.space && c->missed.space != c->space)
		c->missed.space = NULL;
	if (!c->missed.space || c->missed.view != f.view)
		return WINDOW_SLOW;
	c->missed.space = NULL;
	return fill_locked(&f);
}

/* ---- all that an address space has used ---- */

/*
 * What one graduation may cost, in pages mapped (0.3 us each where it was measured): a mapping costs as much as 16 of them, looking
 * through a table as much as 2. So about a millisecond, if nothing else comes up; the rest comes as it is used.
 */
#define GRADUATE_BUDGET 4096
#define MAPPING_COST	16
#define TABLE_COST	2

struct graduation {
	struct fill fill;
	int64_t budget;
};

static bool goes_on(const struct graduation *g)
{
	return g->budget > 0 && !atomic_load_explicit(&g->fill.cpu->vcpu->events, memory_order_relaxed);
}

static void graduate_page(struct graduation *g, uint64_t lin)
{
	struct fill *f = &g->fill;

	if (lin < f->end)
		return;
	f->lin = lin;
	g->budget--;
	if (fill_locked(f) == WINDOW_FILLED && f->end > lin)
		g->budget -= MAPPING_COST + (int64_t)((f->end - lin) >> PAGE_SHIFT);
}

/* A table whose entries map 1 << shift bytes each, from linear address lin on. */
static void graduate_table(struct graduation *g, const uint64_t *table, unsigned entries, unsigned shift, uint64_t lin)
{
	g->budget -= TABLE_COST;
	for (unsigned n = 0; n < entries && goes_on(g); n++) {
		uint64_t entry = entry_read(&table[n]), at = lin + ((uint64_t)n << shift);
		const uint64_t *below;

		if (~entry & (PTE_P | PTE_A | PTE_U))
			continue;
		if (shift == PAGE_SHIFT || (entry & PTE_PS))
			graduate_page(g, at);
		else if ((below = windows_table_page(g->fill.w, entry)))
			graduate_table(g, below, 512, shift - 9, at);
	}
}

/* Page directories of 4-byte entries are left alone: what is missing comes as it is used. */
void windows_graduate(struct bt_windows *w, struct window_cpu *c)
{
	struct graduation g = { .fill = { .w = w, .cpu = c, .view = TABLE_USER }, .budget = GRADUATE_BUDGET };
	const uint64_t *table;

	if (c->space->paging == PAGING_4_LEVEL)
		graduate_table(&g, c->space->pml4, SLOTS / 2, SLOT_SHIFT, 0);
	for (unsigned n = 0; c->space->paging == PAGING_PAE && n < UPPER_ENTRIES; n++)
		if ((c->space->upper[n] & PTE_P) && (table = windows_table_page(w, c->space->upper[n])))
			graduate_table(&g, table, 512, REGION_SHIFT, (uint64_t)n << 30);
}
