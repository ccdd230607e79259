/*
 * System instructions that kernels execute all the time, done by cpu/'s functions without the loop of bt.c and without saving
 * the vector registers: they stay the guest's in the host's.
 *
 * So this file, code.c and cpu/ (but for the floating-point unit's part) are compiled for general registers only (Makefile), and
 * nothing is called here that leaves them: no C library, no device, no walk of page tables, which may end anywhere. An
 * instruction is only done when all that it needs is at hand; all others leave as any callout. They may raise: cpu_raise() comes
 * back here by v->fast_catch, and what follows is bt.c's business.
 */
#include "engine/bt/runtime.h"

/* ---- what must be at hand ---- */

static bool in_page(const struct tlb_entry *e, const struct vcpu *v, uint64_t lin, unsigned size, bool write)
{
	uint64_t last = (lin + size - 1) & PAGE_MASK, tag = write ? e->write_tag : e->read_tag;

	/* Without the access the tag is 0, which is also page 0 of no address space. */
	if (last != (lin & PAGE_MASK) || (tag & PAGE_MASK) != last || !tag)
		return false;
	return (tag & ~PAGE_MASK) == v->asid || (e->gpa & ~PAGE_MASK) == v->global_tag;
}

/* The TLB has it, so that an access by it ends without a walk. (A global one of another address space is renewed without, too.) */
static bool is_reachable(struct vcpu *v, enum tlb_view view, uint64_t lin, unsigned size, bool write)
{
	return in_page(&v->tlbs[view][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)], v, lin, size, write);
}

/* Where the stack pointer + from is. */
static uint64_t stack_linear(const struct vcpu *v, int64_t from)
{
	uint64_t offset = v->s.gpr[RSP] + (uint64_t)from;

	if (v->code_mode == MODE_64)
		return offset;
	return (uint32_t)(v->s.seg_base[SS] + (v->stack_size == 2 ? (uint16_t)offset : offset));
}

/* from: relative to the top of the stack. What wraps around inside is none; what is beyond a limit raises. */
static bool stack_is_reachable(struct vcpu *v, int64_t from, unsigned size, bool write)
{
	uint64_t first = stack_linear(v, from);

	return v->tlb != v->tlb_never &&
	       (v->code_mode == MODE_64 || stack_linear(v, from + size - 1) == first + size - 1) &&
	       is_reachable(v, v->tlb_view, first, size, write);
}

/* A word of it that is. */
static uint64_t stack_word(struct vcpu *v, unsigned from, unsigned size)
{
	return cpu_load(v, stack_linear(v, from), size, true);
}

/* None, or a descriptor of the GDT that was used before: its accessed bit need not be written. */
static bool descriptor_is_reachable(struct vcpu *v, uint16_t selector)
{
	uint64_t at = v->s.gdtr_base + (selector & ~7u);
	uint64_t descriptor;

	if (!(selector & ~3u))
		return true;
	if (selector & 4 || (selector | 7u) > v->s.gdtr_limit || !is_reachable(v, TLB_KERNEL, at, 8, false))
		return false;
	descriptor = cpu_system_load(v, at, 8);
	return descriptor & BIT(40);
}

/* ---- which instructions, and when ---- */

static bool is_real_address(const struct vcpu *v) { return !(v->s.cr0 & CR0_PE); }

static bool can_kernel(struct vcpu *v, const struct insn *i)
{
	(void)i;
	return v->cpl == 0;
}

static bool can_always(struct vcpu *v, const struct insn *i)
{
	(void)v, (void)i;
	return true;
}

/* An interrupt that waits is taken behind the next instruction: bt.c's business. */
static bool can_sti(struct vcpu *v, const struct insn *i)
{
	(void)i;
	return v->cpl == 0 && !v->interrupt_wanted;
}

static bool can_push(struct vcpu *v, const struct insn *i)
{
	return stack_is_reachable(v, -(int64_t)i->opsize, i->opsize, true);
}

static bool can_pop(struct vcpu *v, const struct insn *i) { return stack_is_reachable(v, 0, i->opsize, false); }

static bool can_iret(struct vcpu *v, const struct insn *i)
{
	uint64_t rsp = v->s.gpr[RSP];

	return i->opsize == 8 && v->cpl == 0 && !v->s.nmi_blocked && stack_is_reachable(v, 0, 40, false) &&
	       descriptor_is_reachable(v, (uint16_t)cpu_load(v, rsp + 8, 8, true)) &&
	       descriptor_is_reachable(v, (uint16_t)cpu_load(v, rsp + 32, 8, true));
}

/* Without long mode: EIP, CS and EFLAGS, and the stack of an outer level. */
static bool can_iretd(struct vcpu *v, const struct insn *i)
{
	uint16_t cs;

	if (i->opsize != 4 || v->code_mode != MODE_32 || in_long_mode(v) || v->cpl || v->s.nmi_blocked ||
	    (v->s.rflags & FLAG_NT) || !stack_is_reachable(v, 0, 12, false) || (stack_word(v, 8, 4) & FLAG_VM))
		return false;
	cs = (uint16_t)stack_word(v, 4, 4);
	if (!descriptor_is_reachable(v, cs))
		return false;
	return !(cs & 3) ||
	       (stack_is_reachable(v, 0, 20, false) && descriptor_is_reachable(v, (uint16_t)stack_word(v, 16, 4)));
}

/* Three words, and no descriptors. Flags that it sets may have to be looked at: go_on_elsewhere() sees events. */
static bool can_iret16(struct vcpu *v, const struct insn *i)
{
	return i->opsize == 2 && is_real_address(v) && !v->s.nmi_blocked && stack_is_reachable(v, 0, 6, false);
}

/* Through the vector table of real-address mode. */
static bool can_int(struct vcpu *v, const struct insn *i)
{
	uint32_t vector = (uint32_t)(v->s.idtr_base + (i->imm & 0xff) * 4);

	return is_real_address(v) && is_reachable(v, TLB_KERNEL, vector, 4, false) &&
	       stack_is_reachable(v, -6, 6, true);
}

static bool can_load_segment(struct vcpu *v, unsigned seg, uint16_t selector)
{
	return seg != CS && seg != SS && (!in_protected_mode(v) || descriptor_is_reachable(v, selector));
}

static bool can_pop_sreg(struct vcpu *v, const struct insn *i)
{
	return can_pop(v, i) && can_load_segment(v, i->sreg, (uint16_t)stack_word(v, 0, i->opsize));
}

/* The operand in memory is reachable, at *lin; in a segment that needs no look, as all of 64-bit code's. */
static bool operand_is_reachable(struct vcpu *v, const struct insn *i, unsigned size, bool write, uint64_t *lin)
{
	if (i->flags & INSN_RIPREL) /* ip_base is set where the interpreter runs the instruction */
		return false;
	*lin = cpu_ea(v, i);
	if (v->code_mode != MODE_64) {
		if (!v->flat || i->seg >= FS)
			return false;
		*lin = (uint32_t)*lin;
	} else if (i->seg >= FS) {
		*lin += v->s.seg_base[i->seg];
	}
	return v->tlb != v->tlb_never && is_reachable(v, v->tlb_view, *lin, size, write);
}

static bool can_mov_sreg(struct vcpu *v, const struct insn *i)
{
	uint64_t lin;

	if (!(i->flags & INSN_MEM))
		return i->store || can_load_segment(v, i->sreg, REG16(v, i->reg));
	if (!operand_is_reachable(v, i, 2, i->store, &lin))
		return false;
	return i->store || can_load_segment(v, i->sreg, (uint16_t)cpu_load(v, lin, 2, i->seg == SS));
}

static bool can_mov_cr(struct vcpu *v, const struct insn *i)
{
	return v->cpl == 0 && i->sreg != 8 && (i->store || i->sreg == 2);
}

/* They end no block, but what follows was translated for the other direction. */
static bool turns(const struct insn *i) { return i->op == OP_CLD || i->op == OP_STD; }

static void do_turn(struct vcpu *v, const struct insn *i)
{
	v->s.rflags = i->op == OP_STD ? v->s.rflags | FLAG_DF : v->s.rflags & ~FLAG_DF;
}

static const struct {
	bool (*can)(struct vcpu *, const struct insn *);
	void (*do_it)(struct vcpu *, const struct insn *);
	bool falls_through; /* of those that end a block */
} fast[OP_COUNT] = {
	[OP_CLI] = { can_kernel, op_cli, true },
	[OP_STI] = { can_sti, op_sti, false },
	[OP_CLAC] = { can_kernel, op_clac, true },
	[OP_STAC] = { can_kernel, op_stac, true },
	[OP_PUSHF] = { can_push, op_pushf, false },
	[OP_POPF] = { can_pop, op_popf, true },
	[OP_PUSHFQ] = { can_push, op_pushf, false },
	[OP_POPFQ] = { can_pop, op_popf, true },
	[OP_PUSHFD] = { can_push, op_pushf, false },
	[OP_POPFD] = { can_pop, op_popf, true },
	[OP_CLD] = { can_always, do_turn, false },
	[OP_STD] = { can_always, do_turn, false },
	[OP_SWAPGS] = { can_kernel, op_swapgs, false },
	[OP_RDFSBASE] = { can_always, op_rdfsbase, false },
	[OP_RDGSBASE] = { can_always, op_rdgsbase, false },
	[OP_WRFSBASE] = { can_always, op_wrfsbase, false },
	[OP_WRGSBASE] = { can_always, op_wrgsbase, false },
	[OP_SYSCALL] = { can_always, op_syscall, false },
	[OP_SYSRET] = { can_kernel, op_sysret, false },
	[OP_SYSENTER] = { can_always, op_sysenter, false },
	[OP_SYSEXIT] = { can_kernel, op_sysexit, false },
	[OP_IRETQ] = { can_iret, op_iret, false },
	[OP_IRETD] = { can_iretd, op_iret, false },
	[OP_MOV_SREG] = { can_mov_sreg, op_mov_sreg, true },
	[OP_PUSH_SREG] = { can_push, op_push_sreg, false },
	[OP_POP_SREG] = { can_pop_sreg, op_pop_sreg, true },
	[OP_IRET] = { can_iret16, op_iret, false },
	[OP_INT] = { can_int, op_int_n, false },
	[OP_MOV_CR] = { can_mov_cr, op_mov_cr, true },
};

/* What sanitizers and fuzzers put in between uses vector registers. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define POSSIBLE false
#else
#define POSSIBLE true
#endif

bool bt_is_fast(const struct insn *i) { return POSSIBLE && fast[i->op].can; }

bool bt_is_fast_and_falls_through(const struct insn *i) { return bt_is_fast(i) && fast[i->op].falls_through; }

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
	b = bt_jump_find(table, bt_address(v));
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
	if (!bt->options.link || (uint64_t)sign_extend(v->s.rip, 48) != v->s.rip || bt->tlb_changed || bt->kicked ||
	    !find_fetched(v, bt_linear(v, target), &gpa))
		return false;
	b = bt_find(v, gpa, target, bt_key(v));
	if (!b || b->crosses || !is_entered(v, b->home))
		return false;
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
	struct bt_insn *record = &b->insns[n];
	const struct block *single = bt_single_of(bt_of(v), record);
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
	if (!fast[i->op].can(v, i)) {
		v->fast_catch = NULL;
		return false;
	}
	fast[i->op].do_it(v, i);
	v->fast_catch = NULL;
	bt_of(v)->stats.fast++;
	if (i->op == OP_STI)
		return go_on_behind_sti(v) || leave(v, BT_EXIT_DONE, 0);
	if (turns(i)) {
		v->s.rip += record->len;
		on = go_on_elsewhere(v);
	} else if (!(i->flags & INSN_ENDS)) {
		on = go_on_behind(v, b, n);
	} else {
		on = (fast[i->op].falls_through && go_on_by_link(v, b, n, &before)) || go_on_elsewhere(v);
	}
	if (!on || bt_of(v)->kicked || atomic_load(&v->events))
		return leave(v, BT_EXIT_DONE, b->count - (int)n - 1);
	if (turns(i))
		bt_charge(v, (int)n + 1 - b->count);
	return true;
}

bool bt_fast(struct vcpu *v)
{
	uint64_t arg = bt_frame(v)->exit_arg;
	struct bt_block *b = bt_of(v)->blocks[bt_exit_block(arg)];
	unsigned n = bt_exit_insn(arg);

	bt_note_code_segment(v);
	switch (bt_exit_kind(arg)) {
	case BT_EXIT_LOOKUP0: return find_target(v, bt_link_target(v, &b->links[0]));
	case BT_EXIT_LOOKUP1: return find_target(v, bt_link_target(v, &b->links[1]));
	case BT_EXIT_INDIRECT: return find_target(v, bt_frame(v)->target);
	case BT_EXIT_TLB_READ: return fill_tlb(v, b, n, false);
	case BT_EXIT_TLB_WRITE: return fill_tlb(v, b, n, true);
	default: return do_insn(v, b, n);
	}
}
