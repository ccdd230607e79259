/*
 * Making room: windows for a new use, host mappings, memory. What was used longest ago goes first, and nothing that would keep the
 * vCPU for long is done at once.
 */
#include "engine/bt/window_private.h"

/* What is dropped at a time, and then again until there is room: some 100 us. */
#define EVICT_MAPPINGS 128u
#define EVICT_REGIONS  CALLS_AT_ONCE
/* Below this the limit is not lowered. */
#define MIN_MAPPINGS 48u

/* ---- windows ---- */

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

void window_retire(struct bt_windows *w, struct window *window)
{
	BUG_ON(window->references);
	window->used = 0;
	if (!is_small(window))
		return;
	window_clear(w, window);
	window->pml4e = 0;
}

/* window_retire() at once. False: the vCPU is needed elsewhere before all of it was unmapped. */
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

static void remove_slots(struct bt_windows *w, struct space *space)
{
	for (unsigned slot = 0; slot < SLOTS; slot++)
		if (space->in_use[slot / 64] & BIT(slot % 64))
			space_remove_slot(w, space, slot);
}

struct space *space_evict(struct bt_windows *w)
{
	struct space *oldest = NULL;

	for (unsigned n = 0; n < w->space_count; n++) {
		struct space *space = &w->space[n];

		if (space->key && (!oldest || space->used < oldest->used) && !space_users(w, space))
			oldest = space;
	}
	if (!oldest)
		return NULL;
	remove_slots(w, oldest);
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

struct window *window_take(struct bt_windows *w, const struct window_cpu *self)
{
	struct window *window;
	bool waiting;

	while (!(window = find_unnamed(w, self, &waiting)))
		if (waiting || !space_evict(w))
			return NULL;
	if (window->pml4e) {
		if (!window_empty(w, window, self->vcpu))
			return NULL;
		w->stats.evictions++;
	}
	window->holders = 0;
	return window;
}

/* ---- all of them ---- */

/* Of address spaces that nobody enters any more. A vCPU may be using its table still, until it leaves translated code. */
#define KEY_DEAD 2ull

static void forget_space(struct bt_windows *w, struct space *space)
{
	remove_slots(w, space);
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

/* ---- mappings and memory ---- */

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
