/*
 * Slot tables, and which windows an address space has in its slots.
 *
 * A window may be named by the tables of several address spaces. When a table stops naming it, the vCPUs that were using that table
 * may still have its address in a register, until they leave translated code. Hence a window is given a new meaning only when
 * each of these `holders` has been outside since (window_evict.c): when it asks for a table it notes the epoch, which each removal advances.
 */
#include "engine/bt/window_private.h"

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

bool space_make_tables(struct bt_windows *w, struct space *space)
{
	unsigned number = (unsigned)(space - w->space) * TABLE_VIEWS;

	for (enum table_view view = 0; view < TABLE_VIEWS; view++, number++) {
		uint64_t page = w->tables + TABLE_REACH + number * TABLE_STRIDE;
		struct slot_table *table = &space->table[view];

		if (!windows_open_page(w, page))
			return false;
		table->entry = (int64_t *)(uintptr_t)(page + PAGE_SIZE / 2);
		table->r15 = page + PAGE_SIZE / 2 + SLOT_SHIFT;
		for (unsigned slot = 0; slot < SLOTS; slot++)
			set_entry(table, slot, w->absent);
	}
	return true;
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

void space_set_window(struct bt_windows *w, struct space *space, struct window *window)
{
	space->window[window->slot][window->kind] = (uint8_t)(window - w->window + 1);
	space->in_use[window->slot / 64] |= BIT(window->slot % 64);
	window->references++;
	window->used = ++w->uses;
}

uint64_t space_users(const struct bt_windows *w, const struct space *space)
{
	uint64_t users = 0;

	for (unsigned n = 0; n < w->cpu_count; n++)
		if (w->cpu[n] && w->cpu[n]->space == space)
			users |= BIT(n);
	return users;
}

void space_remove_slot(struct bt_windows *w, struct space *space, unsigned slot)
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
