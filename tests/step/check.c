/*
 * What must be true of a processor after every step. Most of it a snapshot's reader insists on (cpu/valid.c); the rest is kept: a hostile
 * snapshot may lack it, but no instruction loses it.
 */
#include "step.h"

#include "cpu/private.h"

#include <stdlib.h>

/* ---- what instructions keep: in real mode nothing is said of segments ---- */

static bool control_registers(const struct vcpu *v)
{
	return !(v->s.cr4 & ~cpu_cr4_offered(v)) && !(v->s.xcr0 & ~cpu_xcr0_offered(v));
}

static bool code_segment(const struct vcpu *v)
{
	uint16_t attr = v->s.seg_attr[CS];
	unsigned dpl = (attr & ATTR_DPL) >> ATTR_DPL_SHIFT;
	const uint16_t code = ATTR_P | ATTR_S | ATTR_CODE;

	if (!in_protected_mode(v))
		return true;
	if ((attr & code) != code || (v->s.seg_sel[CS] & 3) != v->cpl)
		return false;
	if (in_long_mode(v) && (attr & (ATTR_L | ATTR_DB)) == (ATTR_L | ATTR_DB))
		return false;
	return attr & ATTR_EXPAND_DOWN ? dpl <= v->cpl : dpl == v->cpl;
}

static bool stack_segment(const struct vcpu *v)
{
	uint16_t attr = v->s.seg_attr[SS];

	if (!in_protected_mode(v))
		return true;
	/* Behind SYSCALL the selector's RPL is what STAR has there (SDM vol. 2, SYSCALL). */
	if (((attr & ATTR_DPL) >> ATTR_DPL_SHIFT) != v->cpl)
		return false;
	if (!(attr & ATTR_P)) /* null: in long mode */
		return in_long_mode(v) && !(attr & ~ATTR_DPL) && v->cpl < 3;
	return (attr & (ATTR_S | ATTR_CODE | ATTR_WRITABLE)) == (ATTR_S | ATTR_WRITABLE);
}

/* A present segment that is no code or data is one of the two system segments, and those are nothing else. */
static bool kinds_of_segments(const struct vcpu *v)
{
	uint16_t ldt = v->s.seg_attr[LDTR], tr = v->s.seg_attr[TR];

	for (unsigned seg = ES; seg <= GS; seg++)
		if ((v->s.seg_attr[seg] & (ATTR_P | ATTR_S)) == ATTR_P)
			return false;
	return (!(ldt & ATTR_P) || (ldt & (ATTR_S | ATTR_TYPE)) == 2) && ((tr & (ATTR_P | ATTR_S | 7)) == (ATTR_P | 3));
}

static const struct {
	const char *what;
	bool (*holds)(const struct vcpu *);
} kept[] = {
	{ "the model offers what control registers enable", control_registers },
	{ "CS is a code segment of this privilege level", code_segment },
	{ "SS is a stack segment of this privilege level", stack_segment },
	{ "system segments are in LDTR and TR and nowhere else", kinds_of_segments },
};

/* ---- what is always so ---- */

/* What is saved can be loaded, and is the same then. */
static void check_record(const struct world *w)
{
	struct cpu_state state, again;
	struct writer writer = { 0 };
	struct error err;

	w->ops->pull(w->v, &state);
	memset(&again, 0, sizeof(again));
	BUG_ON(state_save(cpu_state_desc, 0, &state, &writer));
	struct reader reader = { writer.data, writer.size, 0 };
	if (state_load(cpu_state_desc, 0, &again, &reader, &err))
		found("a snapshot of this would not be taken: %s", err.text);
	if (memcmp(&again, &state, sizeof(state)))
		found("a snapshot of this is something else");
	writer_free(&writer);
}

/* Whatever is derived from the registers is what they say. */
static void check_derived(struct vcpu *v)
{
	uint8_t cpl = v->cpl, code_mode = v->code_mode, view = v->tlb_view, stack_size = v->stack_size;
	uint32_t mode_key = v->mode_key, events = atomic_load(&v->events);
	struct tlb_entry *tlb = v->tlb;
	bool flat = v->flat;

	cpu_update_mode(v);
	if (cpl != v->cpl || code_mode != v->code_mode || view != v->tlb_view || stack_size != v->stack_size ||
	    mode_key != v->mode_key || tlb != v->tlb || flat != v->flat)
		found("the mode is not what the registers say: CPL %u, code %u, view %u, stack %u, key %#x, flat %u; "
		      "by "
		      "them CPL %u, code %u, view %u, stack %u, key %#x, flat %u",
		      cpl, code_mode, view, stack_size, mode_key, flat, v->cpl, v->code_mode, v->tlb_view,
		      v->stack_size, v->mode_key, v->flat);
	atomic_store(&v->events, events);
}

/* ---- the TLB: nothing in it that a walk would not find ---- */

/* Accessed and dirty bits alone may have come. */
static bool tables_unchanged(const struct world *w, const struct plan *p)
{
	const uint8_t *now = mem_map(w->mem, gpa(TABLES), TABLE_PAGES * PAGE_SIZE, false);
	uint64_t mask = ~(p->paging == PAGING_32 ? 0x6000000060ull : 0x60ull);

	for (unsigned at = 0; at < TABLE_PAGES * PAGE_SIZE; at += 8)
		if ((load_le64(now + at) ^ load_le64(p->image + TABLES + at)) & mask)
			return false;
	return true;
}

static void check_entry(struct world *w, unsigned view, const struct tlb_entry *e)
{
	uint64_t tag = e->read_tag ? e->read_tag : e->write_tag, lin = tag & PAGE_MASK;
	enum access access = e->write_tag ? ACCESS_WRITE : ACCESS_READ;
	struct vcpu *v = w->v;
	struct page_walk walk;
	struct fault fault;

	if (!tag || (tag & ~PAGE_MASK) != v->asid)
		return;
	if (cpu_walk(v, gva(lin), access, view == TLB_USER, view == TLB_KERNEL_AC, &walk, &fault))
		found("the TLB has page %#llx for access %u in view %u, a walk finds fault %u, error %#x",
		      (unsigned long long)lin, access, view, fault.vector, fault.error);
	if (walk.page.v != (e->gpa & PAGE_MASK) ||
	    mem_map(w->mem, walk.page, PAGE_SIZE, false) != (uint8_t *)(lin + e->addend))
		found("the TLB has page %#llx at %#llx, a walk finds it at %#llx", (unsigned long long)lin,
		      (unsigned long long)(e->gpa & PAGE_MASK), (unsigned long long)walk.page.v);
}

static void check_tlb(struct world *w, const struct plan *p)
{
	struct vcpu *v = w->v;
	uint64_t root = v->s.cr3 & CPU_PHYS_MASK & PAGE_MASK;
	bool known = root == TABLES || root == TABLES + 8 * PAGE_SIZE || !(v->s.cr0 & CR0_PG);

	for (unsigned n = 0; n < TLB_SIZE; n++)
		if (v->tlb_never[n].read_tag | v->tlb_never[n].write_tag)
			found("something is in the TLB that must stay empty");
	if (!known || p->hostile || w->meddling || (v->s.cr4 & CR4_PCIDE) || !tables_unchanged(w, p))
		return;
	for (unsigned view = 0; view < TLB_VIEWS; view++)
		for (unsigned n = 0; n < TLB_SIZE; n++)
			check_entry(w, view, &v->tlbs[view][n]);
}

/* ---- the order of things ---- */

static uint64_t what_holds(const struct vcpu *v)
{
	uint64_t held = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(kept); n++)
		held |= kept[n].holds(v) ? BIT(n) : 0;
	return held;
}

void check_begin(struct world *w, struct checked *c)
{
	c->held = w->v->s.cr0 & CR0_PE ? what_holds(w->v) : 0;
	c->count = w->v->s.icount;
	w->calls = 0;
}

void check_step(struct world *w, struct checked *c, const struct plan *p, int64_t budget, uint32_t events)
{
	struct vcpu *v = w->v;
	uint64_t now;

	if (v->s.icount - c->count > (uint64_t)budget)
		found("%llu instructions were counted, %lld allowed", (unsigned long long)(v->s.icount - c->count),
		      (long long)budget);
	/* One more for each element that one instruction may still have in work. */
	if (w->calls > CALLS_MAX + 600)
		found("devices were asked %u times: the processor cannot be stopped", w->calls);
	check_record(w);
	/* Shutdown is in the middle of something, and ends with a reset. */
	if (v->s.activity == CPU_SHUTDOWN)
		return;
	check_derived(v);
	check_tlb(w, p);
	/* Of several instructions one may have gone through real mode; INIT keeps nothing. */
	if (budget > 1 || (events & EVENT_INIT))
		return;
	now = what_holds(v);
	for (unsigned n = 0; n < ARRAY_SIZE(kept); n++)
		if (c->held & ~now & BIT(n))
			found("no longer so: %s", kept[n].what);
}
