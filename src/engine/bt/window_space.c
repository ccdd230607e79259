/*
 * Address spaces: which windows they have, and that these are what the guest's tables say since the vCPU's last flush.
 */
#include "engine/bt/window_private.h"

/* Address spaces that are looked at for each new one. */
#define SWEEP 4u

/* ---- which window ---- */

/* Times after which a vCPU's translations must have been looked at. */
struct need {
	uint64_t all, local;
};

static struct need need_of(const struct window_cpu *c)
{
	return (struct need){ c->flushed, MAX(c->flushed, c->pcid[pcid_of(c->vcpu)].flushed) };
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

void space_narrow(struct bt_windows *w, struct space *space)
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
	space_set_window(w, c->space, window);
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

static void give_up_slot(struct bt_windows *w, struct space *space, unsigned slot)
{
	struct window *had[WINDOW_KINDS];

	for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++)
		had[kind] = space_window(w, space, slot, kind);
	space_remove_slot(w, space, slot);
	for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++)
		if (had[kind] && !had[kind]->references)
			window_retire(w, had[kind]);
}

void space_shed(struct bt_windows *w, struct space *space)
{
	for (unsigned slot = 0; slot < SLOTS / 2; slot++)
		if (space_window(w, space, slot, WINDOW_USER))
			give_up_slot(w, space, slot);
}

void space_check_slot(struct bt_windows *w, struct space *space, unsigned slot, uint64_t pml4e)
{
	for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++) {
		const struct window *window = space_window(w, space, slot, kind);

		if (window && !window_is_for(window, space, slot, pml4e)) {
			give_up_slot(w, space, slot);
			return;
		}
	}
}

static void check_slots(struct bt_windows *w, struct space *space)
{
	for (unsigned word = 0; word < SLOTS / 64; word++) {
		for (uint64_t left = space->in_use[word]; left; left &= left - 1) {
			unsigned slot = word * 64 + (unsigned)__builtin_ctzll(left);

			space_check_slot(w, space, slot, space_entry(space, slot));
		}
	}
}

struct window *space_get_window(struct bt_windows *w, struct window_cpu *c, unsigned slot, enum window_kind kind,
				const struct table_walk *t, bool make)
{
	struct space *space = c->space;
	struct window *window;

	space_check_slot(w, space, slot, t->pml4e);
	if (space->window[slot][kind])
		return space_window(w, space, slot, kind);
	window = find_window(w, space, slot, kind, t->pml4e);
	if (!window) {
		window = make ? window_take(w, c) : NULL;
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

struct space *space_find(struct bt_windows *w, const struct vcpu *v) { return find_space(w, space_key(v)); }

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
		space = space_evict(w);
	if (!space || (!space->table[TABLE_VIEWS - 1].entry && !space_make_tables(w, space)))
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

static bool bring_up_timed(struct bt_windows *w, struct window_cpu *c, struct window *window, struct need need)
{
	struct churn churn = churn_begin(w, c);
	bool done = bring_up(w, window, need, c->vcpu);

	churn_end(w, c, &churn);
	return done;
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

			space_check_slot(w, space, slot, space_entry(space, slot));
			for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++) {
				struct window *window = space_window(w, space, slot, kind);

				if (!window)
					continue;
				memcpy(window->upper, space->upper, sizeof(window->upper));
				if (!(kind == WINDOW_USER ? bring_up_timed(w, c, window, need)
							  : bring_up(w, window, need, c->vcpu)))
					return false;
			}
		}
	}
	return true;
}

bool space_enter(struct bt_windows *w, struct window_cpu *c)
{
	c->space = space_find(w, c->vcpu);
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
