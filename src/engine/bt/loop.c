/*
 * The loop between translated blocks. It handles events, enters the block at RIP, and does what translated code left to C. Code in
 * modes that are not translated is run by the interpreter.
 */
#include "engine/bt/runtime.h"

#include "engine/interp/host_exec.h"

/* How many instructions the interpreter runs before the translator looks again whether it could. */
#define INTERP_TURN 2000

/* ---- what comes first ---- */

enum bt_next { BT_GO_ON, BT_INTERPRET, BT_STEP, BT_LEAVE };

static enum bt_next handle_events(struct vcpu *v, enum exit_kind *kind)
{
	uint32_t events = atomic_load(&v->events);

	if (events & EVENT_STOP) {
		atomic_fetch_and(&v->events, ~(uint32_t)EVENT_STOP);
		*kind = EXIT_DEBUG;
		return BT_LEAVE;
	}
	if (events & EVENT_EXIT || (events & EVENT_EXCLUSIVE && bt_of(v)->got_on)) {
		atomic_fetch_and(&v->events, ~(uint32_t)(EVENT_EXIT | EVENT_EXCLUSIVE));
		*kind = EXIT_KICK;
		return BT_LEAVE;
	}
	if (events) {
		if (bt_of(v)->counting)
			interp_sync_icount(v);
		atomic_fetch_and(&v->events, ~(uint32_t)EVENT_CODE);
		if (!cpu_handle_events(v)) {
			*kind = EXIT_SHUTDOWN;
			return BT_LEAVE;
		}
		if (!v->fpu_live) /* INIT took it out of the unit */
			cpu_fpu_load(v);
	}
	if (v->s.activity != CPU_RUNNING) {
		*kind = EXIT_HALT;
		return BT_LEAVE;
	}
	if (bt_of(v)->counting && v->budget <= 0) {
		*kind = EXIT_BUDGET;
		return BT_LEAVE;
	}
	if (cpu_stops_here(v)) {
		*kind = EXIT_DEBUG;
		return BT_LEAVE;
	}
	return atomic_load(&v->events) & EVENT_STEP ? BT_STEP : BT_GO_ON;
}

/* The slot table for the state the vCPU is in. False: let the interpreter run it. */
static bool find_table(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);
	const struct slot_table *table;
	bool changed = bt->tlb_changed;

	if (!bt->tlb_changed && bt->last_view == v->tlb_view && v->tlb != v->tlb_never &&
	    (bt->narrow || v->code_mode == MODE_64))
		return true;
	if (bt->tlb_changed)
		memset(bt->view_r15, 0, sizeof(bt->view_r15));
	bt->tlb_changed = false;
	bt_space_enter(v);
	table = bt_windows_table(bt->windows, v);
	if (!table) {
		bt->tlb_changed = true;
		return false;
	}
	if (changed)
		bt_space_weigh(v);
	bt_windows_young(bt->windows, v, bt_space_is_young(bt));
	bt->narrow = atomic_load(&table->narrow);
	bt->last_view = v->tlb_view;
	bt_vcpu(v)->slot_r15 = bt->view_r15[v->tlb_view] = table->r15;
	return true;
}

static bool ready_to_translate(struct vcpu *v)
{
	if (!bt_is_translated_mode(v) || !find_table(v))
		return false;
	if (!bt_choose_glue(v))
		bt_set_gs_base(v, bt_wanted_gs_base(v));
	return true;
}

/* ---- what translated code came back with ---- */

/* Where the x87 instruction executed last was: translated code only says which one. */
static void note_x87(struct vcpu *v)
{
	const struct bt_block *b = bt_block(bt_of(v), bt_exit_block(bt_frame(v)->x87));
	const struct bt_insn *record = &b->insns[bt_exit_insn(bt_frame(v)->x87)];
	uint32_t data = bt_frame(v)->x87_data;

	v->s.fop = record->more;
	bt_frame(v)->x87 = bt_frame(v)->x87_data = 0;
	v->s.fip = b->rip + record->guest + (b->key & BT_KEY_ANYWHERE ? bt_frame(v)->x87_base : 0);
	if (bt_is_code32(b->key))
		v->s.fip = (uint32_t)v->s.fip;
	/* Where translated code loads segment registers it notes selectors itself. */
	if (bt_is_real(b->key))
		return;
	v->s.fcs = v->s.seg_sel[CS];
	if (data)
		v->s.fds = v->s.seg_sel[data - 1];
}

/* JMP or RET to an address that is not canonical faults itself, with nothing done. (CALL: see emit_call.) */
static bool refuse_target(struct vcpu *v, struct bt_block *b, unsigned n)
{
	struct insn i;

	bt_decode_again(v, b, &b->insns[n], &i);
	if (i.op == OP_RET)
		v->s.gpr[RSP] -= 8 + (i.imm & 0xffff);
	return bt_run_single(v, b, n, BT_EXIT_CALLOUT);
}

/* What the CPU model has the host's processor should have too. */
static _Noreturn void refuse_instruction(struct vcpu *v, struct bt_block *b, unsigned n)
{
	struct insn i;

	bt_decode_again(v, b, &b->insns[n], &i);
	v->s.rip = bt_block_rip(v, b) + b->insns[n].guest;
	interp_host_refuse(v, &i);
}

/* What translated code came back with. True: resume it at once. */
static bool handle_exit(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);
	uint64_t arg = bt_frame(v)->exit_arg;
	struct bt_block *b = bt_block(bt, bt_exit_block(arg));
	unsigned n = bt_exit_insn(arg);
	enum bt_exit_kind kind = bt_exit_kind(arg);

	bt->got_on |= kind != BT_EXIT_TLB_READ && kind != BT_EXIT_TLB_WRITE;
	if (bt_frame(v)->x87)
		note_x87(v);
	bt_note_code_segment(v);
	switch (kind) {
	case BT_EXIT_LINK0:
	case BT_EXIT_LINK1:
		bt->pending = &bt_links(b)[kind - BT_EXIT_LINK0];
		v->s.rip = bt_rip(v, bt_link_target(v, b, bt->pending));
		return false;
	case BT_EXIT_LOOKUP0:
	case BT_EXIT_LOOKUP1:
		v->s.rip = bt_rip(v, bt_link_target(v, b, &bt_links(b)[kind - BT_EXIT_LOOKUP0]));
		return false;
	case BT_EXIT_INDIRECT:
		v->s.rip = bt_rip(v, bt_frame(v)->target);
		if (is_canonical(v->s.rip))
			return false;
		break;
	case BT_EXIT_GONE: v->s.rip = bt_rip(v, bt_frame(v)->target); return false;
	case BT_EXIT_DONE: return false;
	case BT_EXIT_RAISED: cpu_raise_again(v);
	default: break;
	}
	/* The block is left at instruction n. */
	bt_charge(v, (int)n - b->count);
	switch (kind) {
	case BT_EXIT_INDIRECT: return refuse_target(v, b, n);
	case BT_EXIT_STRING:
		v->s.rip = bt_block_rip(v, b) + b->insns[n].guest;
		v->repeating = true;
		return false;
	case BT_EXIT_ILLEGAL: refuse_instruction(v, b, n);
	case BT_EXIT_TLB_READ:
	case BT_EXIT_TLB_WRITE: return bt_fill_tlb(v, b, n, kind == BT_EXIT_TLB_WRITE);
	default: return bt_run_single(v, b, n, kind);
	}
}

/* After cpu_raise: as the interpreter does. */
static bool deliver_fault(struct vcpu *v)
{
	bool alive, stepping = bt_of(v)->stepping;

	bt_fault_ends(v, true);
	bt_of(v)->stepping = false;
	if (v->current) {
		if (!v->switching)
			v->s.rip = v->s.ip_base;
		v->current = NULL;
	}
	interp_of(v)->current = NULL;
	v->restart = false;
	if (bt_of(v)->single)
		bt_end_single(v, false);
	bt_charge(v, 1); /* the delivery, as in the interpreter */
	alive = cpu_deliver_fault(v);
	if (alive && stepping)
		cpu_after_step(v);
	return alive;
}

/* ---- the loop ---- */

/* The instruction at s.rip alone. */
static void run_one(struct vcpu *v)
{
	struct bt_block *b;

	bt_of(v)->pending = NULL;
	b = bt_find_or_translate(v);
	bt_enter_at(v, b);
	v->step_next = v->s.rip + b->insns[0].len;
	bt_run_alone(v, b, 0, BT_EXIT_CALLOUT);
}

/* EVENT_STEP */
static void step(struct vcpu *v)
{
	bt_of(v)->stepping = true;
	run_one(v);
	bt_of(v)->stepping = false;
	cpu_after_step(v);
}

/* Was the block that is to be gone on with translated for the mode that the vCPU is in now, as far as what it may do depends on it? */
static bool is_mode_of(const struct vcpu *v, const struct bt_block *b)
{
	return !((b->key ^ v->mode_key) & BT_KEY_MODE);
}

/* Translated code, from where it is to be entered, and what it asks C for; until the loop has to look at events or find a block. */
static void enter_code(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);

	do {
		/* Translated code may have gone on to another block, in another mode, before it came back. */
		struct bt_block *b = bt->entering;

		bt_frame(v)->jump = bt_jump_pointer(bt->options.link ? bt_jump_table(v, b->key) : bt->nothing);
		if (bt->kicked || atomic_load(&v->events))
			break;
		debug_yield();
		bt->resumed = 0;
		v->repeating = false;
		bt->stats.enters++;
		bt->glue->enter(v);
	} while (handle_exit(v) && !atomic_load(&v->events) && ready_to_translate(v) && is_mode_of(v, bt->entering));
	bt_charge(v, -bt->resumed);
	bt->resumed = 0;
}

/* From the block at s.rip on. False: the budget does not suffice for it. */
static bool run_blocks(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);
	/* What was pending may be another's target by now: an event or a fault on the way led elsewhere. */
	struct bt_link *pending = bt->pending;
	uint32_t epoch = bt->code_epoch;
	struct bt_block *b;

	bt->pending = NULL;
	b = bt_find_or_translate(v);
	if (bt->counting && v->budget < b->count)
		return false;
	if (pending && epoch == bt->code_epoch && bt->options.link)
		bt_link(v, pending, b);
	bt_enter_at(v, b);
	enter_code(v);
	return true;
}

/* Events were seen to: go on for a while. */
static enum bt_next go_on(struct vcpu *v, enum bt_next next)
{
	struct bt_cpu *bt = bt_of(v);

	if (!ready_to_translate(v))
		return next == BT_STEP ? next : BT_INTERPRET;
	if (next == BT_STEP) {
		bt->got_on = true;
		step(v);
	} else if (!bt->got_on && atomic_load(&v->events) & EVENT_EXCLUSIVE) {
		bt->got_on = true;
		run_one(v);
	} else if (!run_blocks(v)) {
		return BT_INTERPRET;
	}
	return BT_GO_ON;
}

static enum bt_next run_translated(struct vcpu *v, enum exit_kind *kind)
{
	struct bt_cpu *bt = bt_of(v);
	enum bt_next next;

	v->current = NULL;
	bt_frame(v)->tsc_native = clock_tsc_native(v->clock, &bt_frame(v)->tsc_offset);
	bt_signals_enter(v);
	interp_host_enter(v);
	cpu_fpu_load(v);
	if (setjmp(v->fault_jmp) && !deliver_fault(v)) {
		*kind = EXIT_SHUTDOWN;
		return BT_LEAVE;
	}
	do {
		bt->entering = NULL;
		bt->kicked = 0;
		bt_signals_seen(bt);
		debug_yield();
		if (bt->ticked) {
			bt->ticked = 0;
			bt_space_tick(v);
		}
		next = handle_events(v, kind);
		if (next != BT_LEAVE)
			next = go_on(v, next);
	} while (next == BT_GO_ON);
	return next;
}

/* ---- the engine ---- */

/* s.icount is exact now; from here on it is what has been taken from the budget. */
static void start_counting(struct vcpu *v) { interp_of(v)->icount_end = v->s.icount + (uint64_t)v->budget; }

/* At most so many instructions by the interpreter. */
static enum exit_kind run_interpreter(struct vcpu *v, int64_t most, struct exit *exit)
{
	int64_t budget = v->budget, turn = bt_of(v)->counting ? MIN(most, budget) : most;
	enum exit_kind kind;

	if (bt_of(v)->counting)
		interp_sync_icount(v);
	v->budget = turn;
	kind = interp_engine.run(v, exit);
	v->budget = budget - (bt_of(v)->counting ? turn - v->budget : 0);
	start_counting(v);
	return kind;
}

static enum exit_kind run_mixed(struct vcpu *v, struct exit *exit)
{
	enum exit_kind kind = EXIT_BUDGET;

	while (kind == EXIT_BUDGET) {
		switch (run_translated(v, &kind)) {
		case BT_STEP: kind = run_interpreter(v, 1, exit); break;
		case BT_INTERPRET: kind = run_interpreter(v, INTERP_TURN, exit); break;
		default: return kind;
		}
	}
	return kind;
}

enum exit_kind bt_run(struct vcpu *v, struct exit *exit)
{
	int64_t budget = v->budget;
	enum exit_kind kind;

	if (!bt_of(v)->counting)
		v->budget = 0; /* none is used: the interpreter's singles want it so */
	bt_of(v)->got_on = false;
	start_counting(v);
	kind = run_mixed(v, exit);
	bt_of(v)->entering = NULL;
	bt_windows_leave(bt_of(v)->windows, v);
	bt_of(v)->tlb_changed = true;
	bt_signals_leave(v);
	interp_host_leave(v);
	cpu_fpu_save(v);
	v->current = NULL;
	if (bt_of(v)->counting)
		interp_sync_icount(v);
	else
		v->budget = budget;
	v->count[COUNT_EXIT_HALT] += kind == EXIT_HALT;
	v->count[COUNT_EXIT_KICK] += kind == EXIT_KICK;
	return kind;
}
