/*
 * vCPUs: which slot table each uses, and what flushes mean for it.
 */
#include "engine/bt/window_private.h"

#include <stdlib.h>

/* ---- tables for vCPUs ---- */

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
		c->current = space_enter(w, c);
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

uint64_t bt_windows_churn(struct bt_windows *w, const struct vcpu *v)
{
	const struct window_cpu *c = windows_cpu(w, v);

	return c ? c->churn : 0;
}

void bt_windows_shed(struct bt_windows *w, struct vcpu *v)
{
	struct window_cpu *c = windows_cpu(w, v);

	if (!c || !c->current)
		return;
	windows_lock(w);
	space_shed(w, c->space);
	windows_unlock(w);
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
	unsigned pcid = pcid_of(v);

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
	struct space *space = space_find(w, v);
	unsigned slot = slot_of(lin);

	for (unsigned n = 0; w->slot_global[slot] && n < w->window_count; n++)
		if (w->window[n].slot == slot && w->window[n].global_count)
			window_validate_page(w, &w->window[n], lin);
	if (!space || !(space->in_use[slot / 64] & BIT(slot % 64)))
		return;
	space_check_slot(w, space, slot, space_entry(space, slot));
	for (enum window_kind kind = 0; kind < WINDOW_KINDS; kind++) {
		struct window *window = space_window(w, space, slot, kind);

		if (window)
			window_validate_page(w, window, lin);
	}
}

static void hook_flush_page(struct vcpu *v, gva_t a)
{
	struct bt_windows *w = windows_of(v);
	struct window_cpu *c = hook_cpu(v);
	struct churn churn;

	if (!c)
		return;
	windows_lock(w);
	churn = churn_begin(w, c);
	w->page_flushed = next_time(v);
	flush_page(w, v, a.v);
	if (!(a.v >> 63))
		churn_end(w, c, &churn);
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
