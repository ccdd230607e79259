/*
 * Address spaces, their slot tables, which windows those name, and what flushes mean for them.
 *
 * A window may be named by the tables of several address spaces. When a table stops naming it, the vCPUs that were using that table
 * may still have its address in a register, until they leave translated code. Hence a window is given a new meaning only when
 * each of these `holders` has been outside since: when it asks for a table it notes the epoch, which each removal advances.
 */
#include "engine/bt/window.h"

#include <stdlib.h>

/* Address spaces that are looked at for each new one. */
#define SWEEP 4u
/* What is dropped at a time, and then again until there is room: some 100 us. */
#define EVICT_MAPPINGS 128u
#define EVICT_REGIONS  CALLS_AT_ONCE
/* Below this the limit is not lowered. */
#define MIN_MAPPINGS 48u

/* ---- slot tables ---- */

/*
 * A slot number that SARX makes of a non-canonical address has 25 bits: 128 MiB of table on either side. Neighbouring tables
 * share what is between them, and are just out of each other's reach.
 */
#define TABLE_REACH  (8ull << 24)
#define TABLE_STRIDE (TABLE_REACH + PAGE_SIZE)

/* Sign-extended, as tables are indexed. */
static int slot_index(unsigned slot) { return slot < SLOTS / 2 ? (int)slot : (int)slot - SLOTS; }

static void set_entry(struct slot_table *table, unsigned slot, uint64_t base)
{
	__atomic_store_n(&table->entry[slot_index(slot)], (int64_t)(base - slot_start(slot)), __ATOMIC_RELEASE);
}

bool table_names(const struct space *space, enum table_view view, const struct window *window)
{
	return (uint64_t)space->table[view].entry[slot_index(window->slot)] == window->base - slot_start(window->slot);
}

static bool is_absent(const struct bt_windows *w, const struct space *space, enum table_view view, unsigned slot)
{
	return (uint64_t)space->table[view].entry[slot_index(slot)] == w->absent - slot_start(slot);
}

/*
 * Where supervisor code reaches user pages too, a slot that has both kinds leads to the supervisor's, once there is one: what it
 * has user pages for goes the slow way.
 */
void table_name(struct bt_windows *w, struct space *space, enum table_view view, const struct window *window)
{
	unsigned slot = window->slot;

	if (space->paging != PAGING_4_LEVEL) {
		if (window->kind == kind_of_view(view))
			set_entry(&space->table[view], slot, window->base);
		return;
	}
	if (window->kind == WINDOW_USER && view == TABLE_SUPERVISOR)
		return;
	if (window->kind == WINDOW_SUPERVISOR && view == TABLE_USER)
		return;
	if (window->kind == WINDOW_SUPERVISOR || is_absent(w, space, view, slot))
		set_entry(&space->table[view], slot, window->base);
}

static int make_tables(struct bt_windows *w, struct space *space)
{
	unsigned number = (unsigned)(space - w->space) * TABLE_VIEWS;

	for (enum table_view view = 0; view < TABLE_VIEWS; view++, number++) {
		uint64_t page = w->tables + TABLE_REACH + number * TABLE_STRIDE;
		struct slot_table *table = &space->table[view];

		if (!windows_open_page(w, page))
			return -1;
		table->entry = (int64_t *)(uintptr_t)(page + PAGE_SIZE / 2);
		table->r15 = page + PAGE_SIZE / 2 + SLOT_SHIFT;
		for (unsigned slot = 0; slot < SLOTS; slot++)
			set_entry(table, slot, w->absent);
	}
	return 0;
}

uint64_t windows_tables_size(unsigned spaces)
{
	return TABLE_REACH * 2 + (uint64_t)spaces * TABLE_VIEWS * TABLE_STRIDE;
}

/* ---- slots of address spaces ---- */

struct window *space_window(struct bt_windows *w, const struct space *space, unsigned slot, enum window_kind kind)
{
	unsigned number = space->window[slot][kind];

	return number ? &w->window[number - 1] : NULL;
}

static void slot_set(struct bt_windows *w, struct space *space, struct window *window)
{
	space->window[window->slot][window->kind] = (uint8_t)(window - w->window + 1);
	space->in_use[window->slot / 64] |= BIT(window->slot % 64);
	window->references++;
	window->used = ++w->uses;
}

/* The vCPUs that may be using this address space's tables. */
static uint64_t space_users(const struct bt_windows *w, const struct space *space)
{
	uint64_t users = 0;

	for (unsigned n = 0; n < w->cpu_count; n++)
		if (w->cpu[n] && w->cpu[n]->space == space)
			users |= BIT(n);
	return users;
}

static void slot_remove(struct bt_windows *w, struct space *space, unsigned slot)
{
	for (enum table_view view = 0; view < TABLE_VIEWS; view++)
		set_entry(&space->table[view], slot, w->absent);
	for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++) {
		struct window *window = space_window(w, space, slot, kind);

		space->window[slot][kind] = 0;
		if (window) {
			window->references--;
			window->removed = atomic_fetch_add(&w->epoch, 1);
			window->holders |= space_users(w, space);
		}
	}
	space->in_use[slot / 64] &= ~BIT(slot % 64);
}

/* ---- eviction ---- */

/* Nobody but self can have this window's address in a register. self is not in translated code. */
static bool window_quiet(const struct bt_windows *w, const struct window *window, const struct window_cpu *self)
{
	for (uint64_t left = window->holders; left; left &= left - 1) {
		const struct window_cpu *c = w->cpu[__builtin_ctzll(left)];

		if (c != self && c->space && atomic_load(&c->entered) <= window->removed)
			return false;
	}
	return true;
}

/* What is so little is unmapped with one call of the host. */
static bool is_small(const struct window *window)
{
	return window->region_count <= CALLS_AT_ONCE && window->mappings <= 4 * CALLS_AT_ONCE;
}

static void drop_regions(struct bt_windows *w, struct window *window);

/* Forget what a window was for, when no table names it. Where that takes long, it is the next to go, piece by piece. */
static void window_retire(struct bt_windows *w, struct window *window)
{
	BUG_ON(window->references);
	window->used = 0;
	if (!is_small(window))
		return;
	window_clear(w, window);
	window->pml4e = 0;
}

/* The same at once. False: the vCPU is needed elsewhere before all of it was unmapped. */
static bool window_empty(struct bt_windows *w, struct window *window, const struct vcpu *v)
{
	uint64_t calls = w->host_calls;

	while (!is_small(window)) {
		if (is_awaited(w, v, calls))
			return false;
		drop_regions(w, window);
	}
	window_retire(w, window);
	return true;
}

/* The address space used longest ago, but none that a vCPU is in. NULL: there is none. */
static struct space *evict_space(struct bt_windows *w)
{
	struct space *oldest = NULL;

	for (unsigned n = 0; n < w->space_count; n++) {
		struct space *space = &w->space[n];

		if (space->key && (!oldest || space->used < oldest->used) && !space_users(w, space))
			oldest = space;
	}
	if (!oldest)
		return NULL;
	for (unsigned slot = 0; slot < SLOTS; slot++)
		if (oldest->in_use[slot / 64] & BIT(slot % 64))
			slot_remove(w, oldest, slot);
	oldest->key = 0;
	w->stats.evictions++;
	return oldest;
}

/* A window that no table names: a free one, or else the one used longest ago. *waiting: there are some that are not quiet yet. */
static struct window *find_unnamed(struct bt_windows *w, const struct window_cpu *self, bool *waiting)
{
	struct window *best = NULL;

	*waiting = false;
	for (unsigned n = 0; n < w->window_count; n++) {
		struct window *window = &w->window[n];

		if (window->references)
			continue;
		if (window->unclean)
			continue;
		if (!window_quiet(w, window, self)) {
			*waiting = true;
			continue;
		}
		if (!window->pml4e)
			return window;
		if (!best || window->used < best->used)
			best = window;
	}
	return best;
}

/* Of address spaces that nobody enters any more. A vCPU may be using its table still, until it leaves translated code. */
#define KEY_DEAD 2ull

static void forget_space(struct bt_windows *w, struct space *space)
{
	for (unsigned slot = 0; slot < SLOTS; slot++)
		if (space->in_use[slot / 64] & BIT(slot % 64))
			slot_remove(w, space, slot);
	if (space->key)
		space->key = KEY_DEAD;
	space->used = 0;
}

void windows_forget(struct bt_windows *w)
{
	windows_lock(w);
	for (unsigned n = 0; n < w->space_count; n++)
		forget_space(w, &w->space[n]);
	for (unsigned n = 0; n < w->window_count; n++) {
		window_clear(w, &w->window[n]);
		w->window[n].pml4e = w->window[n].used = 0;
	}
	for (unsigned n = 0; n < w->cpu_count; n++) {
		if (!w->cpu[n])
			continue;
		w->cpu[n]->current = false;
		w->cpu[n]->missed.space = NULL;
	}
	windows_unlock(w);
}

/* A window for a new use. NULL: all are in use, or wait for a vCPU to come out of translated code. */
static struct window *take_window(struct bt_windows *w, const struct window_cpu *self)
{
	struct window *window;
	bool waiting;

	while (!(window = find_unnamed(w, self, &waiting)))
		if (waiting || !evict_space(w))
			return NULL;
	if (window->pml4e) {
		if (!window_empty(w, window, self->vcpu))
			return NULL;
		w->stats.evictions++;
	}
	window->holders = 0;
	return window;
}

/* Regions of large pages may take few mappings, but page tables of the host. */
static uint64_t weight(const struct window *window) { return window->mappings + 2 * window->region_count; }

/* Less than this in a window that was not used for long is not worth the faults that bring it back. */
static bool is_worth_evicting(const struct bt_windows *w, const struct window *window)
{
	return weight(window) >= w->mapping_limit / 16;
}

/* What nobody names, then what is large and was used longest ago, else what is largest: that may be the one that room is made in. */
static bool better_victim(const struct bt_windows *w, const struct window *window, const struct window *other)
{
	if (!window->references != !other->references)
		return !window->references;
	if (is_worth_evicting(w, window) && is_worth_evicting(w, other))
		return window->used < other->used;
	return weight(window) > weight(other);
}

static struct window *find_victim(struct bt_windows *w)
{
	struct window *victim = NULL;

	for (unsigned n = 0; n < w->window_count; n++) {
		struct window *window = &w->window[n];

		if (window->region_count && (!victim || better_victim(w, window, victim)))
			victim = window;
	}
	return victim;
}

/* Drops what has been in a window longest. */
static void drop_regions(struct bt_windows *w, struct window *window)
{
	uint64_t before = w->stats.mappings, enough = MIN(w->mapping_limit / 4, EVICT_MAPPINGS);

	for (unsigned n = 0; n < EVICT_REGIONS && before - w->stats.mappings < enough; n++) {
		struct list *list =
			list_empty(&window->local_regions) ? &window->global_regions : &window->local_regions;

		if (list_empty(list))
			break;
		region_drop(w, list_entry(list->next, struct region, node));
	}
}

bool windows_evict(struct bt_windows *w)
{
	struct window *victim = find_victim(w);

	if (!victim)
		return false;
	drop_regions(w, victim);
	w->stats.evictions++;
	return true;
}

/* The host gave no more mappings, so there are fewer than was thought. False: there is none at all, whatever is given back. */
static bool recover(struct bt_windows *w)
{
	struct window *victim;

	windows_clean(w);
	while (!spares_take(w) && w->spare_count < FEWEST_SPARES) {
		victim = find_victim(w);
		if (!victim)
			return false;
		w->mapping_limit = MIN(w->mapping_limit, MAX(w->stats.mappings / 2, MIN_MAPPINGS));
		window_clear(w, victim);
		w->stats.evictions++;
		windows_clean(w);
	}
	return true;
}

static bool has_room(const struct bt_windows *w, unsigned mappings, unsigned regions)
{
	return w->stats.mappings + mappings <= w->mapping_limit && pool_left(&w->regions) >= regions &&
	       pool_left(&w->spans) && overhead_left(&w->mem->overhead) >= overhead_of_regions(regions);
}

bool windows_make_room(struct bt_windows *w, const struct vcpu *v, unsigned mappings, unsigned regions)
{
	uint64_t calls = w->host_calls;

	if (unlikely(w->spare_count < SPARE_MAPPINGS || w->unclean) && !recover(w))
		return false;
	while (!has_room(w, mappings, regions))
		if (is_awaited(w, v, calls) || !windows_evict(w))
			return false;
	return true;
}

/* ---- which window ---- */

/* Times after which a vCPU's translations must have been looked at. */
struct need {
	uint64_t all, local;
};

static unsigned current_pcid(const struct vcpu *v) { return v->s.cr4 & CR4_PCIDE ? v->s.cr3 & 0xfff : 0; }

static struct need need_of(const struct window_cpu *c)
{
	return (struct need){ c->flushed, MAX(c->flushed, c->pcid[current_pcid(c->vcpu)].flushed) };
}

static bool bring_up(struct bt_windows *w, struct window *window, struct need need, const struct vcpu *v)
{
	window->used = ++w->uses;
	if (window->validated < need.all)
		return window_validate(w, window, true, v);
	return window->validated_local >= need.local || window_validate(w, window, false, v);
}

/*
 * 16- and 32-bit code adds up addresses of 32 bits, but the host does not wrap around what begins below 4 GiB and goes on above, be it an
 * operand or a repetition, and what 64-bit code has at 4 GiB must not be found there. So where such code runs, nothing is mapped in
 * the page before: all that is there faults, and is the interpreter's.
 */
static void window_narrow(struct bt_windows *w, struct window *window)
{
	struct region *r = region_find(w, window, region_number(UINT32_MAX));

	if (r && !window->narrow)
		region_drop(w, r);
	window->narrow = true;
}

/* Others read it without the lock: when it is said, it is so. */
static void set_narrow(struct space *space, bool narrow)
{
	for (enum table_view view = 0; view < TABLE_VIEWS; view++)
		atomic_store(&space->table[view].narrow, narrow);
}

static void space_narrow(struct bt_windows *w, struct space *space)
{
	for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++)
		if (space->window[0][kind])
			window_narrow(w, space_window(w, space, 0, kind));
	set_narrow(space, true);
}

/*
 * INVLPG looks only into the windows that the current table names and that have global pages. So a window that becomes part of
 * a table must have been looked at since the last one.
 */
static bool adopt(struct bt_windows *w, struct window_cpu *c, struct window *window)
{
	struct need need = need_of(c);

	memcpy(window->upper, c->space->upper, sizeof(window->upper));
	need.all = MAX(need.all, w->page_flushed);
	need.local = MAX(need.local, need.all);
	if (!bring_up(w, window, need, c->vcpu))
		return false;
	slot_set(w, c->space, window);
	if (!window->slot && atomic_load(&c->space->table[0].narrow))
		window_narrow(w, window);
	return true;
}

static bool window_is_for(const struct window *window, const struct space *space, unsigned slot, uint64_t pml4e)
{
	return window->pml4e && window->slot == slot && window->nxe == space->nxe && window->paging == space->paging &&
	       table_entry_same(pml4e, window->pml4e, entry_reserved(window->paging, window->nxe));
}

static struct window *find_window(struct bt_windows *w, const struct space *space, unsigned slot, enum window_kind kind,
				  uint64_t pml4e)
{
	for (unsigned n = 0; n < w->window_count; n++) {
		struct window *window = &w->window[n];

		if (window->kind == kind && window_is_for(window, space, slot, pml4e))
			return window;
	}
	return NULL;
}

/* The top-level entry is this now: a slot with windows for another one is emptied, and what they had is not coming back. */
static void check_slot(struct bt_windows *w, struct space *space, unsigned slot, uint64_t pml4e)
{
	struct window *had[WINDOW_KINDS];
	bool differs = false;

	for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++) {
		had[kind] = space_window(w, space, slot, kind);
		differs |= had[kind] && !window_is_for(had[kind], space, slot, pml4e);
	}
	if (!differs)
		return;
	slot_remove(w, space, slot);
	for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++)
		if (had[kind] && !had[kind]->references)
			window_retire(w, had[kind]);
}

static void check_slots(struct bt_windows *w, struct space *space)
{
	for (unsigned word = 0; word < SLOTS / 64; word++) {
		for (uint64_t left = space->in_use[word]; left; left &= left - 1) {
			unsigned slot = word * 64 + (unsigned)__builtin_ctzll(left);

			check_slot(w, space, slot, space_entry(space, slot));
		}
	}
}

struct window *space_get_window(struct bt_windows *w, struct window_cpu *c, unsigned slot, enum window_kind kind,
				const struct table_walk *t, bool make)
{
	struct space *space = c->space;
	struct window *window;

	check_slot(w, space, slot, t->pml4e);
	if (space->window[slot][kind])
		return space_window(w, space, slot, kind);
	window = find_window(w, space, slot, kind, t->pml4e);
	if (!window) {
		window = make ? take_window(w, c) : NULL;
		if (!window)
			return NULL;
		window->pml4e = t->pml4e;
		window->paging = (uint8_t)space->paging;
		window->pdpt = space->paging == PAGING_4_LEVEL ? t->pdpt : window->upper;
		window->slot = (uint16_t)slot;
		window->kind = (uint8_t)kind;
		window->nxe = space->nxe;
		window->narrow = false;
		window->validated = window->validated_local = atomic_load(&w->clock);
	}
	return adopt(w, c, window) ? window : NULL;
}

/* ---- address spaces ---- */

static enum paging paging_of(const struct vcpu *v)
{
	if (!(v->s.cr0 & CR0_PG))
		return PAGING_OFF;
	if (in_long_mode(v))
		return PAGING_4_LEVEL;
	return v->s.cr4 & CR4_PAE ? PAGING_PAE : v->s.cr4 & CR4_PSE ? PAGING_32_BIT_PSE : PAGING_32_BIT;
}

/* Never 0: the lowest bit. CR3's bits 4 and 3 are no part of an address, those from 5 on for PAE. */
static uint64_t space_key(const struct vcpu *v)
{
	enum paging paging = paging_of(v);
	uint64_t base = paging == PAGING_OFF ? 0 : v->s.cr3 & (paging == PAGING_PAE ? 0xffffffe0 : PTE_FRAME);

	return base | (uint64_t)paging << 2 | (v->s.efer & EFER_NXE ? 2 : 0) | 1;
}

static struct space *find_space(struct bt_windows *w, uint64_t key)
{
	for (unsigned n = 0; n < w->space_count; n++)
		if (w->space[n].key == key)
			return &w->space[n];
	return NULL;
}

/*
 * Address spaces that the guest gave up are found by their top-level tables: sooner or later these hold something else. A few are looked
 * at for each new one, so that they do not pile up.
 */
static void sweep(struct bt_windows *w)
{
	for (unsigned n = 0; n < SWEEP; n++) {
		struct space *space = &w->space[w->swept++ % w->space_count];

		if (space->key && !space_users(w, space))
			check_slots(w, space);
	}
}

static struct space *make_space(struct bt_windows *w, const struct vcpu *v)
{
	const uint64_t *pml4 = windows_table_page(w, v->s.cr3);
	enum paging paging = paging_of(v);
	struct space *space;

	if (!pml4 && paging == PAGING_4_LEVEL)
		return NULL;
	sweep(w);
	space = find_space(w, 0);
	if (!space)
		space = evict_space(w);
	if (!space || (!space->table[TABLE_VIEWS - 1].entry && make_tables(w, space)))
		return NULL;
	space->key = space_key(v);
	space->nxe = v->s.efer & EFER_NXE;
	space->pml4 = pml4;
	space->paging = paging;
	set_narrow(space, paging != PAGING_4_LEVEL);
	space_set_upper(space, v);
	space->fills = 0;
	return space;
}

/* A new address space mostly has the kernel's windows, which there are already. */
static void adopt_known_windows(struct bt_windows *w, struct window_cpu *c)
{
	struct space *space = c->space;

	for (unsigned n = 0; n < w->window_count; n++) {
		struct window *window = &w->window[n];

		if (!window->pml4e || !window_is_for(window, space, window->slot, space_entry(space, window->slot)))
			continue;
		if (!adopt(w, c, window))
			continue; /* found when it is needed */
		for (enum table_view view = 0; view < TABLE_VIEWS; view++)
			table_name(w, space, view, window);
	}
}

/* The top-level entries are few, so they are compared each time, whatever was flushed. False: not all was. */
static bool validate_space(struct bt_windows *w, struct window_cpu *c)
{
	struct need need = need_of(c);
	struct space *space = c->space;

	space->used = ++w->uses;
	for (unsigned word = 0; word < SLOTS / 64; word++) {
		for (uint64_t left = space->in_use[word]; left; left &= left - 1) {
			unsigned slot = word * 64 + (unsigned)__builtin_ctzll(left);

			check_slot(w, space, slot, space_entry(space, slot));
			for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++) {
				struct window *window = space_window(w, space, slot, kind);

				if (!window)
					continue;
				memcpy(window->upper, space->upper, sizeof(window->upper));
				if (!bring_up(w, window, need, c->vcpu))
					return false;
			}
		}
	}
	return true;
}

/* Put the vCPU into the address space of its CR3. */
static bool enter_space(struct bt_windows *w, struct window_cpu *c)
{
	c->space = find_space(w, space_key(c->vcpu));
	if (c->space) {
		if (c->space->paging != PAGING_4_LEVEL)
			space_set_upper(c->space, c->vcpu);
		return validate_space(w, c);
	}
	c->space = make_space(w, c->vcpu);
	if (!c->space)
		return false;
	c->space->created = atomic_load(&w->clock);
	c->space->used = ++w->uses;
	adopt_known_windows(w, c);
	return true;
}

/* ---- vCPUs ---- */

struct window_cpu *windows_cpu(struct bt_windows *w, const struct vcpu *v)
{
	struct window_cpu *c = v->index < MAX_CPUS ? w->cpu[v->index] : NULL;

	return c && c->vcpu == v ? c : NULL;
}

/* What windows hold may be older than this vCPU. */
static struct window_cpu *add_cpu(struct bt_windows *w, struct vcpu *v)
{
	struct window_cpu *c;

	if (v->index >= MAX_CPUS)
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->vcpu = v;
	c->flushed = atomic_fetch_add(&w->clock, 1) + 1;
	free(w->cpu[v->index]); /* another vCPU's, which is gone */
	w->cpu[v->index] = c;
	w->cpu_count = MAX(w->cpu_count, v->index + 1);
	return c;
}

enum table_view windows_view(const struct vcpu *v)
{
	if (v->tlb_view == TLB_USER)
		return TABLE_USER;
	return v->tlb_view == TLB_KERNEL_AC || !(v->s.cr4 & CR4_SMAP) ? TABLE_BOTH : TABLE_SUPERVISOR;
}

static bool can_translate(const struct vcpu *v) { return !(v->s.cr4 & CR4_LA57); }

/* The slow part of asking for a table: the vCPU is new, or something was flushed. */
static struct window_cpu *update_cpu(struct bt_windows *w, struct window_cpu *c, struct vcpu *v)
{
	windows_lock(w);
	if (!c)
		c = add_cpu(w, v);
	windows_trim(w, v);
	if (c)
		c->current = enter_space(w, c);
	windows_unlock(w);
	return c;
}

const struct slot_table *bt_windows_table(struct bt_windows *w, struct vcpu *v)
{
	struct window_cpu *c = windows_cpu(w, v);
	const struct slot_table *table;

	if (v->tlb == v->tlb_never)
		return NULL;
	if (unlikely(!c || !c->current)) {
		if (!can_translate(v)) {
			bt_windows_leave(w, v);
			return NULL;
		}
		c = update_cpu(w, c, v);
		if (!c || !c->current)
			return NULL;
	}
	if (c->missed.space)
		windows_fill_missed(w, c);
	atomic_store_explicit(&c->entered, atomic_load(&w->epoch), memory_order_relaxed);
	table = &c->space->table[windows_view(v)];
	if (v->code_mode != MODE_64 && !atomic_load(&table->narrow)) {
		windows_lock(w);
		space_narrow(w, c->space);
		windows_unlock(w);
	}
	return table;
}

void bt_windows_young(struct bt_windows *w, struct vcpu *v, bool young)
{
	struct window_cpu *c = windows_cpu(w, v);

	if (c)
		c->young = young;
}

void bt_windows_leave(struct bt_windows *w, struct vcpu *v)
{
	struct window_cpu *c = windows_cpu(w, v);

	if (!c || !c->space)
		return;
	windows_lock(w);
	c->space = NULL;
	c->current = false;
	windows_trim(w, v);
	windows_unlock(w);
}

/* ---- TLB maintenance: notes the time; the work is done when a table is asked for ---- */

static struct bt_windows *windows_of(const struct vcpu *v) { return v->engine->shared; }

/* NULL: this vCPU has used no window so far. */
static struct window_cpu *hook_cpu(const struct vcpu *v) { return windows_cpu(windows_of(v), v); }

static uint64_t next_time(const struct vcpu *v)
{
	struct bt_windows *w = windows_of(v);

	return atomic_fetch_add(&w->clock, 1) + 1;
}

static void hook_flush(struct vcpu *v)
{
	struct window_cpu *c = hook_cpu(v);

	if (!c)
		return;
	c->flushed = next_time(v);
	c->current = false;
}

/*
 * Without CR4.PGE nothing is global, whatever was when it was mapped. A PCID that moves to another CR3 without a flush counts as
 * flushed: INVLPG in the one address space must be felt in the other, but looks into one only.
 */
static void hook_switched(struct vcpu *v, bool keep)
{
	struct window_cpu *c = hook_cpu(v);
	unsigned pcid = current_pcid(v);

	if (!c)
		return;
	if (!keep || c->pcid[pcid].cr3 != (v->s.cr3 & PTE_FRAME))
		c->pcid[pcid].flushed = next_time(v);
	c->pcid[pcid].cr3 = v->s.cr3 & PTE_FRAME;
	if (!keep && !(v->s.cr4 & CR4_PGE))
		c->flushed = c->pcid[pcid].flushed;
	c->current = false;
}

static void hook_flush_pcid(struct vcpu *v, uint16_t pcid)
{
	struct window_cpu *c = hook_cpu(v);

	if (!c)
		return;
	if (!(v->s.cr4 & CR4_PCIDE))
		pcid = 0;
	c->pcid[pcid & 0xfff].flushed = next_time(v);
	if (!(v->s.cr4 & CR4_PGE))
		c->flushed = c->pcid[pcid & 0xfff].flushed;
	c->current = false;
}

static void flush_page(struct bt_windows *w, const struct vcpu *v, uint64_t lin)
{
	struct space *space = find_space(w, space_key(v));
	unsigned slot = slot_of(lin);

	for (unsigned n = 0; w->slot_global[slot] && n < w->window_count; n++)
		if (w->window[n].slot == slot && w->window[n].global_count)
			window_validate_page(w, &w->window[n], lin);
	if (!space || !(space->in_use[slot / 64] & BIT(slot % 64)))
		return;
	check_slot(w, space, slot, space_entry(space, slot));
	for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++) {
		struct window *window = space_window(w, space, slot, kind);

		if (window)
			window_validate_page(w, window, lin);
	}
}

static void hook_flush_page(struct vcpu *v, gva_t a)
{
	struct bt_windows *w = windows_of(v);

	if (!hook_cpu(v))
		return;
	windows_lock(w);
	w->page_flushed = next_time(v);
	flush_page(w, v, a.v);
	windows_unlock(w);
}

static void hook_protect(struct vcpu *v, gpa_t page)
{
	struct bt_windows *w = windows_of(v);

	windows_lock(w);
	page_guard(w, page);
	windows_unlock(w);
}

const struct vcpu_hooks bt_window_hooks = {
	.tlb_flush = hook_flush,
	.tlb_flush_page = hook_flush_page,
	.tlb_switched = hook_switched,
	.tlb_flush_pcid = hook_flush_pcid,
	.tlb_protect = hook_protect,
};
