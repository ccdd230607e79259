/*
 * System instructions that kernels execute all the time, done by cpu/'s functions without the loop (loop.c) and without saving
 * the vector registers: they stay the guest's in the host's.
 *
 * So this file, fast_insn.c, code.c and cpu/ (but for the floating-point unit's part) are compiled for general registers only (Makefile), and
 * nothing is called here that leaves them: no C library, no device, no walk of page tables, which may end anywhere. An
 * instruction is only done when all that it needs is at hand; all others leave as any callout. They may raise: cpu_raise() comes
 * back here by v->fast_catch, and what follows is the loop's business.
 */
#include "engine/bt/runtime.h"

/* ---- going on ---- */

/* Instruction n of b was done, and the next one is behind it. */
static bool go_on_behind(struct vcpu *v, struct bt_block *b, unsigned n)
{
	v->s.rip += b->insns[n].len;
	if (b->dead || n + 1 >= b->count)
		return false;
	bt_resume_at(v, b, b->insns[n + 1].host);
	return true;
}

/* Enter translated code of the mode and view that the vCPU is in now. */
static bool choose_mode(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);

	if (!bt_is_translated_mode(v) || v->tlb == v->tlb_never || bt->tlb_changed || !bt->view_r15[v->tlb_view] ||
	    !(bt->narrow || v->code_mode == MODE_64))
		return false;
	bt_vcpu(v)->slot_r15 = bt->view_r15[v->tlb_view];
	if (!bt_choose_glue(v))
		return false;
	bt->last_view = v->tlb_view;
	return true;
}

/* A segment register as it was before an instruction that may load it. */
struct segment_before {
	enum seg seg; /* SEG_COUNT: it loads none */
	uint64_t base;
	uint32_t limit;
	uint16_t attr;
};

static struct segment_before look_at_segment(const struct vcpu *v, const struct insn *i)
{
	if ((i->op != OP_MOV_SREG && i->op != OP_POP_SREG) || i->sreg > GS)
		return (struct segment_before){ .seg = SEG_COUNT };
	return (struct segment_before){ i->sreg, v->s.seg_base[i->sreg], v->s.seg_limit[i->sreg],
					v->s.seg_attr[i->sreg] };
}

/* Nothing that translated code depends on has changed: most segment registers are loaded with what is in them. */
static bool is_mode_as_it_was(const struct vcpu *v, const struct bt_block *b, const struct segment_before *before)
{
	enum seg seg = before->seg;

	if (!(v->s.rflags & FLAG_DF) != !(b->key & BT_KEY_DF) || v->tlb_view != bt_of(v)->last_view ||
	    v->tlb == v->tlb_never || bt_of(v)->tlb_changed)
		return false;
	return seg == SEG_COUNT || (v->s.seg_base[seg] == before->base && v->s.seg_limit[seg] == before->limit &&
				    v->s.seg_attr[seg] == before->attr);
}

/* b's last instruction, n, was done, and s.rip is behind it: through the block's link, if the mode is what b was translated for. */
static bool go_on_by_link(struct vcpu *v, struct bt_block *b, unsigned n, const struct segment_before *before)
{
	if (b->dead || (!is_mode_as_it_was(v, b, before) && (bt_key(v) != b->key || !choose_mode(v))))
		return false;
	bt_resume_at(v, b, b->insns[n + 1].host);
	return true;
}

/* At s.rip, perhaps in another mode and view. */
static bool go_on_elsewhere(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);
	struct jump_table *table;
	struct bt_block *b;

	if (!bt->options.link || !choose_mode(v))
		return false;
	table = bt_jump_table(v, bt_key(v));
	b = bt_jump_find(bt, table, bt_address(v));
	if (!b)
		return false;
	bt_enter_at(v, b);
	bt_frame(v)->jump = bt_jump_pointer(table);
	return true;
}

/*
 * After STI the next instruction comes first, which in translated code it does: nothing is looked at before the block's end. So there is
 * no need to run it alone, unless translated code must be left.
 */
static bool go_on_behind_sti(struct vcpu *v)
{
	bool shadow = v->s.shadow;

	if (!go_on_elsewhere(v) || (bt_of(v)->counting && v->budget < bt_of(v)->entering->count))
		return false;
	v->s.shadow = SHADOW_NONE;
	atomic_fetch_and(&v->events, ~(uint32_t)EVENT_STEP);
	if (!bt_of(v)->kicked && !atomic_load(&v->events))
		return true;
	if (shadow) {
		v->s.shadow = SHADOW_STI;
		vcpu_post(v, EVENT_STEP);
	}
	return false;
}

/* left: instructions of the block that were charged and do not run. */
static bool leave(struct vcpu *v, enum bt_exit_kind kind, int left)
{
	bt_charge(v, -left);
	bt_frame(v)->exit_arg = BT_EXIT_ARG(0, 0, kind);
	return false;
}

/* ---- computed targets ---- */

/* The translation of a fetch, if it is at hand. */
static bool find_fetched(struct vcpu *v, uint64_t lin, uint64_t *gpa)
{
	const struct fetch_entry *e = &v->fetch_tlb[v->cpl == 3][(lin >> PAGE_SHIFT) % FETCH_TLB_SIZE];
	bool global = (e->gpa & ~PAGE_MASK) == v->global_tag;

	/* Kernel code that is not global: see bt_jump_table(). */
	if ((e->tag & PAGE_MASK) != (lin & PAGE_MASK) || !(global || (v->cpl == 3 && (e->tag & ~PAGE_MASK) == v->asid)))
		return false;
	*gpa = (e->gpa & PAGE_MASK) | (lin & ~PAGE_MASK);
	return true;
}

/* Has bt_enter_page() nothing to do for what find_fetched() found? */
static bool is_entered(const struct vcpu *v, const struct code_page *page)
{
	return page->shared || page->space == (v->cpl == 3 ? v->address_space : bt_global_space(v));
}

/* The jump table did not have the target, but the block is there. */
static bool find_target(struct vcpu *v, uint64_t target)
{
	struct bt_cpu *bt = bt_of(v);
	struct jump_table *table;
	struct bt_block *b;
	uint64_t gpa;

	v->s.rip = bt_rip(v, target);
	if (!bt->options.link || !is_canonical(v->s.rip) || bt->tlb_changed || bt->kicked ||
	    !find_fetched(v, bt_linear(v, target), &gpa))
		return false;
	b = bt_find(v, gpa, target, bt_key(v));
	if (!b || b->crosses || cpu_is_cut(v, gpa) || !is_entered(v, bt_record(bt, b->home)))
		return false;
	bt->stats.found++;
	table = bt_jump_table(v, b->key);
	bt_jump_insert(v, table, target, b);
	bt_enter_at(v, b);
	bt_frame(v)->jump = bt_jump_pointer(table);
	return (!bt->kicked && !atomic_load(&v->events)) || leave(v, BT_EXIT_DONE, 0);
}

/* ---- the TLB ---- */

/*
 * An instruction with two accesses (PUSH and CALL of memory) begins anew when the second misses. When both pages have one place in the TLB,
 * that would never end.
 */
static bool misses_in_turn(struct bt_cpu *bt, uint64_t insn, uint64_t page)
{
	bool in_turn = bt->missed.insn == insn && bt->missed.page[1] == page;

	bt->missed.page[1] = bt->missed.insn == insn ? bt->missed.page[0] : 0;
	bt->missed.page[0] = page;
	bt->missed.insn = insn;
	return in_turn;
}

/* Instruction n of b looks again. */
static bool fill_tlb(struct vcpu *v, struct bt_block *b, unsigned n, bool write)
{
	uint64_t insn = bt_exec(bt_of(v), b) + b->insns[n].host;

	if (misses_in_turn(bt_of(v), insn, bt_frame(v)->target & PAGE_MASK)) {
		bt_frame(v)->exit_arg = BT_EXIT_ARG(b->index, n, BT_EXIT_CALLOUT);
		return false;
	}
	if (!cpu_tlb_fill_marked(v, bt_frame(v)->target, write))
		return false;
	bt_resume_at(v, b, b->insns[n].host);
	bt_of(v)->stats.tlb_misses++;
	return !bt_of(v)->kicked;
}

/* ---- instructions ---- */

/* The look-up table of what runs is made before the kick is looked for, so that a kick in between is not lost. */
static bool do_insn(struct vcpu *v, struct bt_block *b, unsigned n)
{
	const struct bt_insn *record = &b->insns[n];
	const struct block *single = bt_single_of(bt_of(v), b, n);
	const struct insn *i = single ? single->insns : NULL;
	struct segment_before before;
	void *landing[5];
	bool on;

	v->s.rip = bt_block_rip(v, b) + record->guest;
	if (!i || v->trace->mask || atomic_load(&v->events))
		return false;
	before = look_at_segment(v, i);
	if (__builtin_setjmp(landing)) {
		v->fast_catch = NULL;
		return leave(v, BT_EXIT_RAISED, b->count - (int)n);
	}
	v->fast_catch = landing;
	if (!bt_fast_can(v, i)) {
		v->fast_catch = NULL;
		return false;
	}
	bt_fast_do(v, i);
	v->fast_catch = NULL;
	bt_of(v)->stats.fast++;
	if (i->op == OP_STI)
		return go_on_behind_sti(v) || leave(v, BT_EXIT_DONE, 0);
	if (bt_turns(i)) {
		v->s.rip += record->len;
		on = go_on_elsewhere(v);
	} else if (!(i->flags & INSN_ENDS)) {
		on = go_on_behind(v, b, n);
	} else {
		on = (bt_is_fast_and_falls_through(i) && go_on_by_link(v, b, n, &before)) || go_on_elsewhere(v);
	}
	if (!on || bt_of(v)->kicked || atomic_load(&v->events))
		return leave(v, BT_EXIT_DONE, b->count - (int)n - 1);
	if (bt_turns(i))
		bt_charge(v, (int)n + 1 - b->count);
	return true;
}

bool bt_fast(struct vcpu *v)
{
	uint64_t arg = bt_frame(v)->exit_arg;
	struct bt_block *b = bt_block(bt_of(v), bt_exit_block(arg));
	unsigned n = bt_exit_insn(arg);

	bt_note_code_segment(v);
	switch (bt_exit_kind(arg)) {
	case BT_EXIT_LOOKUP0: return find_target(v, bt_link_target(v, b, &bt_links(b)[0]));
	case BT_EXIT_LOOKUP1: return find_target(v, bt_link_target(v, b, &bt_links(b)[1]));
	case BT_EXIT_INDIRECT: return find_target(v, bt_frame(v)->target);
	case BT_EXIT_TLB_READ: return fill_tlb(v, b, n, false);
	case BT_EXIT_TLB_WRITE: return fill_tlb(v, b, n, true);
	default: return do_insn(v, b, n);
	}
}
