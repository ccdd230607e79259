/*
 * The translator, engine `bt`: the loop between translated blocks. It handles events, finds or translates the block at RIP,
 * enters it, and does what translated code left to C. Code in modes that are not translated is run by the interpreter.
 */
#include "engine/bt/runtime.h"

#include "engine/interp/host_exec.h"

#include <errno.h>
#include <stdlib.h>

/* How many instructions the interpreter runs before the translator looks again whether it could. */
#define INTERP_TURN 2000

/* ---- what cpu/ tells about the TLB ---- */

static void tlb_flush(struct vcpu *v)
{
	bt_window_hooks.tlb_flush(v);
	bt_of(v)->tlb_changed = true;
}

static void tlb_flush_page(struct vcpu *v, gva_t a)
{
	bt_window_hooks.tlb_flush_page(v, a);
	bt_of(v)->tlb_changed = true;
}

static void tlb_switched(struct vcpu *v, bool keep)
{
	bt_window_hooks.tlb_switched(v, keep);
	bt_of(v)->tlb_changed = true;
}

static void tlb_flush_pcid(struct vcpu *v, uint16_t pcid)
{
	bt_window_hooks.tlb_flush_pcid(v, pcid);
	bt_of(v)->tlb_changed = true;
}

/* ---- code that changes ---- */

static uint64_t code_written(struct vcpu *v, gpa_t at, size_t len, bool *hit)
{
	return bt_invalidate_bytes(v, at.v, len, hit) | interp_code_written(v, at, len, hit);
}

/* ---- finding code ---- */

/* A page that code is about to run from; NULL: no room. */
static struct code_page *fetch_page(struct vcpu *v, uint64_t lin, uint64_t *gpa)
{
	uint8_t *host;

	*gpa = cpu_fetch_translate(v, gva(lin), &host).v;
	if (v->cpl != 3 && !v->fetched_global)
		bt_of(v)->local_code = v->global_space;
	return bt_enter_page(v, *gpa, bt_key(v) & BT_KEY_ANYWHERE ? BT_ANYWHERE : lin);
}

/* Does a block that crosses go on where it did? */
static bool check_second(struct vcpu *v, struct bt_block *b)
{
	uint64_t second = (bt_linear(v, bt_address(v)) | (PAGE_SIZE - 1)) + 1, gpa2;

	if (!b->crosses)
		return true;
	fetch_page(v, v->code_mode == MODE_64 ? second : (uint32_t)second, &gpa2);
	b->second_space = bt_fetched_space(v);
	return gpa2 == b->gpa2;
}

/* NULL: no room. */
static struct bt_block *try_to_find(struct vcpu *v)
{
	uint64_t at;
	struct code_page *home = fetch_page(v, bt_linear(v, bt_address(v)), &at);
	struct bt_block *b = bt_find(v, at, bt_address(v), bt_key(v));

	/* Fetching may wait for other vCPUs' sections, which may change the code and forget the block. */
	if (b && check_second(v, b) && !b->dead)
		return b;
	if (b)
		bt_invalidate_block(v, b);
	while (home && (b = bt_translate(v, home))) {
		check_second(v, b);
		if (bt_is_fresh(b))
			return b;
		bt_invalidate_block(v, b);
	}
	return NULL;
}

/*
 * The one place where all is forgotten while the vCPU runs: nobody has a pointer to a block here, but for the link that waits for what
 * is found, which is told (code_epoch). Afterwards there is room for one interpreter's form, which a single step counts on.
 */
static struct bt_block *find_or_translate(struct vcpu *v)
{
	struct bt_block *b;

	if (unlikely(!bt_has_reserve(bt_of(v))))
		bt_code_flush(v);
	b = bt_jump_find(bt_jump_table(v, bt_key(v)), bt_address(v));
	if (b)
		return b;
	v->count[COUNT_BLOCK_LOOKUPS]++;
	while (!(b = try_to_find(v)))
		bt_code_flush(v);
	bt_jump_insert(v, bt_jump_table(v, b->key), bt_address(v), b);
	return b;
}

/* ---- counting, when time is virtual: see struct bt_cpu ---- */

/* s.icount is exact now; from here on it is what has been taken from the budget. */
static void start_counting(struct vcpu *v) { interp_of(v)->icount_end = v->s.icount + (uint64_t)v->budget; }

/* Translated code is to go on with so many; unless something comes in between. */
static void charge_resumed(struct vcpu *v, unsigned instructions)
{
	bt_of(v)->resumed = (int)instructions;
	bt_charge(v, bt_of(v)->resumed);
}

/* The interpreter runs one instruction alone: the budget is put aside, so that it does not go on behind it. */
static void begin_single(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);

	bt->single = true;
	bt->saved_budget = v->budget;
	interp_of(v)->icount_end -= (uint64_t)v->budget - 1;
	v->budget = 0;
}

static void end_single(struct vcpu *v, bool completed)
{
	struct bt_cpu *bt = bt_of(v);

	bt->single = false;
	interp_of(v)->icount_end += (uint64_t)bt->saved_budget - 1;
	v->budget = bt->saved_budget;
	bt_charge(v, completed);
}

/* ---- one instruction in C ---- */

/* Bytes of code on one physical page; where no memory is, the interpreter reads ones as well. */
static void copy_code(struct vcpu *v, uint64_t at, uint8_t *bytes, size_t len)
{
	const uint8_t *host = mem_map(v->mem, gpa(at), len, false);

	if (host)
		memcpy(bytes, host, len);
	else
		memset(bytes, 0xff, len);
}

/*
 * Instruction n of a block once more. The bytes are still what was translated, since writing to them would have invalidated the
 * block; what the guest's tables say of their address now may be something else, until the guest flushes.
 */
static void decode_again(struct vcpu *v, const struct bt_block *b, const struct bt_insn *record, struct insn *i)
{
	uint64_t at = b->gpa + record->guest;
	size_t avail = MIN(15u, PAGE_SIZE - (at & (PAGE_SIZE - 1)));
	struct insn_host h;
	uint8_t bytes[15];

	copy_code(v, at, bytes, avail);
	if (b->crosses) {
		copy_code(v, b->gpa2, bytes + avail, sizeof(bytes) - avail);
		avail = sizeof(bytes);
	}
	interp_decode_insn(v, bytes, avail, 0, i, &h);
}

/* The interpreter's form of an instruction, whole. NULL: no room. */
static struct block *single_of(struct vcpu *v, struct bt_block *b, struct bt_insn *record)
{
	struct block *single = bt_single_of(bt_of(v), record);
	struct insn i;

	if (single && interp_single_is_whole(v, single))
		return single;
	if (!single && !(single = bt_single_alloc(bt_of(v), record)))
		return NULL;
	decode_again(v, b, record, &i);
	interp_single(v, single, &i);
	return single;
}

/* Where R11's window would be for this register now; false if its value is no address. */
static bool window_of(struct vcpu *v, unsigned reg, uint64_t *r11)
{
	int64_t slot = (int64_t)v->s.gpr[reg] >> SLOT_SHIFT;

	if (slot < -256 || slot > 255)
		return false;
	*r11 = *(uint64_t *)(uintptr_t)(bt_vcpu(v)->slot_r15 - SLOT_SHIFT + (uint64_t)(slot * 8));
	return true;
}

static uint64_t data_address64(struct vcpu *v, const struct insn *i, bool write)
{
	bool pushes = i->op == OP_PUSH || i->op == OP_CALL;

	if (i->op == OP_LEAVE)
		return v->s.gpr[RBP];
	if (!(i->flags & INSN_MEM) || (pushes && write))
		return v->s.gpr[RSP] - (pushes ? 8 : 0);
	return cpu_ea(v, i) + (i->seg >= FS ? v->s.seg_base[i->seg] : 0);
}

static uint64_t data_address32(struct vcpu *v, const struct insn *i, bool write)
{
	uint64_t mask = v->stack_size == 2 ? 0xffff : UINT32_MAX;

	if (i->op == OP_LEAVE)
		return (uint32_t)(v->s.seg_base[SS] + (v->s.gpr[RBP] & mask));
	if (!(i->flags & INSN_MEM) || (write && (i->op == OP_PUSH || i->op == OP_CALL || i->op == OP_CALL_FAR)))
		return (uint32_t)(v->s.seg_base[SS] + ((v->s.gpr[RSP] - (write ? i->opsize : 0)) & mask));
	return (uint32_t)(v->s.seg_base[i->seg] + cpu_ea(v, i));
}

/* Where the instruction's access was that faulted, by its operand or on the stack: a guess, see bt_windows_accessed(). */
static uint64_t data_address(struct vcpu *v, const struct insn *i, bool write)
{
	return v->code_mode == MODE_64 ? data_address64(v, i, write) : data_address32(v, i, write);
}

/* Let the next access to where this one faulted find a window. */
static void note_access(struct vcpu *v, const struct insn *i, bool write)
{
	struct bt_cpu *bt = bt_of(v);
	uint64_t lin = data_address(v, i, write);

	if (bt_windows_accessed(bt->windows, bt->fault_at, &lin))
		bt_windows_missed(bt->windows, v, lin, write);
}

/* The kernel's accesses to young user addresses are not worth a second signal. */
static unsigned faults_allowed(const struct vcpu *v) { return bt_space_is_young(bt_of(v)) ? 1 : BT_FAULTS_FORCED; }

/*
 * Run instruction n of b by the interpreter. True when translated code can go on behind it: resume and r11 are set. Of the block
 * only what is before it has been charged.
 */
static bool run_alone(struct vcpu *v, struct bt_block *b, unsigned n, enum bt_exit_kind kind)
{
	struct bt_cpu *bt = bt_of(v);
	struct bt_insn *record = &b->insns[n], *following = record + 1;
	struct block *single;
	uint64_t next;
	uint32_t epoch;

	v->s.rip = bt_block_rip(v, b) + record->guest;
	next = v->s.rip + record->len;
	single = single_of(v, b, record);
	if (!single) /* all is forgotten when the next block is looked for, and the instruction found anew */
		return false;
	epoch = bt->code_epoch;
	if (kind == BT_EXIT_CALLOUT) {
		bt->stats.callouts[single->insns[0].op]++;
	} else {
		bt->stats.fault_ops[single->insns[0].op]++;
		bt_fault_begins(v);
		note_access(v, &single->insns[0], kind == BT_EXIT_FAULT_WRITE);
	}
	/* Before it runs: it may raise a page fault each time. */
	if (kind != BT_EXIT_CALLOUT && ++record->faults >= faults_allowed(v) && !b->dead) {
		bt_force(bt, b->gpa + record->guest);
		bt_invalidate_block(v, b);
	}
	begin_single(v);
	interp_run_single(v, single);
	end_single(v, !v->budget); /* 1: it is left unfinished, to be run again */
	if (kind != BT_EXIT_CALLOUT)
		bt_windows_fill_missed(bt->windows, v);
	bt_fault_ends(v, false);
	if (epoch != bt->code_epoch || b->dead || n + 1 >= b->count || v->s.rip != next || bt->tlb_changed ||
	    atomic_load(&v->events))
		return false;
	/* CLD, STD; FLDCW and whatever else unmasks x87 exceptions, which must not become the host's */
	if (!(v->s.rflags & FLAG_DF) != !(b->key & BT_KEY_DF) || (v->x87_watch && (b->key & BT_KEY_X87)))
		return false;
	/* Behind a callout nothing is known of R11; behind a fault translated code may count on it. */
	if (following->window_base >= 0 && !window_of(v, (unsigned)following->window_base, &bt_frame(v)->r11))
		return false;
	bt_resume_at(v, b, following->host);
	return true;
}

/* The same, and what translated code goes on with is charged. */
static bool run_single(struct vcpu *v, struct bt_block *b, unsigned n, enum bt_exit_kind kind)
{
	if (!run_alone(v, b, n, kind))
		return false;
	charge_resumed(v, b->count - n - 1);
	return true;
}

/* Instruction n of b goes on where it looked into the TLB, or is C's after all: a device, a code page, two pages, misaligned. */
static bool fill_tlb(struct vcpu *v, struct bt_block *b, unsigned n, bool write)
{
	struct bt_insn *record = &b->insns[n];

	bt_of(v)->stats.tlb_misses++;
	v->s.rip = bt_block_rip(v, b) + record->guest;
	/* In 32-bit code a limit may be in the operand's way, which is looked at before the page tables. */
	if (bt_is_code32(b->key) || bt_frame(v)->target & (MAX(record->align, 1) - 1u) ||
	    !cpu_tlb_fill(v, bt_frame(v)->target, write))
		return run_single(v, b, n, BT_EXIT_CALLOUT);
	if (b->dead)
		return false;
	bt_resume_at(v, b, record->host);
	charge_resumed(v, b->count - n);
	return true;
}

/* ---- the loop ---- */

enum bt_next { BT_GO_ON, BT_INTERPRET, BT_STEP, BT_LEAVE };

static enum bt_next handle_events(struct vcpu *v, enum exit_kind *kind)
{
	uint32_t events = atomic_load(&v->events);

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
	return atomic_load(&v->events) & EVENT_STEP ? BT_STEP : BT_GO_ON;
}

/* The slot table for the state the vCPU is in. False: let the interpreter run it. */
static bool find_table(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);
	const struct slot_table *table;

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

/* Where the x87 instruction executed last was: translated code only says which one. */
static void note_x87(struct vcpu *v)
{
	const struct bt_block *b = bt_of(v)->blocks[bt_exit_block(bt_frame(v)->x87)];
	const struct bt_insn *record = &b->insns[bt_exit_insn(bt_frame(v)->x87)];
	uint32_t data = bt_frame(v)->x87_data;

	v->s.fop = record->fop;
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

	decode_again(v, b, &b->insns[n], &i);
	if (i.op == OP_RET)
		v->s.gpr[RSP] -= 8 + (i.imm & 0xffff);
	return run_single(v, b, n, BT_EXIT_CALLOUT);
}

/* What the CPU model has the host's processor should have too. */
static _Noreturn void refuse_instruction(struct vcpu *v, struct bt_block *b, unsigned n)
{
	struct insn i;

	decode_again(v, b, &b->insns[n], &i);
	v->s.rip = bt_block_rip(v, b) + b->insns[n].guest;
	interp_host_refuse(v, &i);
}

/* What translated code came back with. True: resume it at once. */
static bool handle_exit(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);
	uint64_t arg = bt_frame(v)->exit_arg;
	struct bt_block *b = bt->blocks[bt_exit_block(arg)];
	unsigned n = bt_exit_insn(arg);
	enum bt_exit_kind kind = bt_exit_kind(arg);

	bt->got_on |= kind != BT_EXIT_TLB_READ && kind != BT_EXIT_TLB_WRITE;
	if (bt_frame(v)->x87)
		note_x87(v);
	bt_note_code_segment(v);
	switch (kind) {
	case BT_EXIT_LINK0:
	case BT_EXIT_LINK1:
		bt->pending = &b->links[kind - BT_EXIT_LINK0];
		v->s.rip = bt_rip(v, bt_link_target(v, bt->pending));
		return false;
	case BT_EXIT_LOOKUP0:
	case BT_EXIT_LOOKUP1: v->s.rip = bt_rip(v, bt_link_target(v, &b->links[kind - BT_EXIT_LOOKUP0])); return false;
	case BT_EXIT_INDIRECT:
		v->s.rip = bt_rip(v, bt_frame(v)->target);
		if ((uint64_t)sign_extend(v->s.rip, 48) == v->s.rip)
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
	case BT_EXIT_TLB_WRITE: return fill_tlb(v, b, n, kind == BT_EXIT_TLB_WRITE);
	default: return run_single(v, b, n, kind);
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
		end_single(v, false);
	bt_charge(v, 1); /* the delivery, as in the interpreter */
	alive = cpu_deliver_fault(v);
	if (alive && stepping)
		cpu_after_step(v);
	return alive;
}

/* The instruction at s.rip alone. */
static void run_one(struct vcpu *v)
{
	struct bt_block *b;

	bt_of(v)->pending = NULL;
	b = find_or_translate(v);
	bt_enter_at(v, b);
	v->step_next = v->s.rip + b->insns[0].len;
	run_alone(v, b, 0, BT_EXIT_CALLOUT);
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

static enum bt_next run_translated(struct vcpu *v, enum exit_kind *kind)
{
	struct bt_cpu *bt = bt_of(v);
	struct bt_block *b;
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
	for (;;) {
		bt->entering = NULL;
		bt->kicked = 0;
		bt_signals_seen(bt);
		debug_yield();
		if (bt->ticked) {
			bt->ticked = 0;
			bt_space_tick(v);
		}
		next = handle_events(v, kind);
		if (next == BT_LEAVE)
			return next;
		if (!ready_to_translate(v))
			return next == BT_STEP ? next : BT_INTERPRET;
		if (next == BT_STEP) {
			bt->got_on = true;
			step(v);
			continue;
		}
		if (!bt->got_on && atomic_load(&v->events) & EVENT_EXCLUSIVE) {
			bt->got_on = true;
			run_one(v);
			continue;
		}
		/* What was pending may be another's target by now: an event or a fault on the way led elsewhere. */
		struct bt_link *pending = bt->pending;
		uint32_t epoch = bt->code_epoch;
		bt->pending = NULL;
		b = find_or_translate(v);
		if (bt->counting && v->budget < b->count)
			return BT_INTERPRET;
		if (pending && epoch == bt->code_epoch && bt->options.link)
			bt_link(v, pending, b);
		bt_enter_at(v, b);
		do {
			/* Translated code may have gone on to another block, in another mode, before it came back. */
			b = bt->entering;
			bt_frame(v)->jump = bt_jump_pointer(bt->options.link ? bt_jump_table(v, b->key) : bt->nothing);
			if (bt->kicked || atomic_load(&v->events))
				break;
			debug_yield();
			bt->resumed = 0;
			v->repeating = false;
			bt->stats.enters++;
			bt->glue->enter(v);
		} while (handle_exit(v) && !atomic_load(&v->events) && ready_to_translate(v) &&
			 is_mode_of(v, bt->entering));
		bt_charge(v, -bt->resumed);
		bt->resumed = 0;
	}
}

/* ---- the engine's operations ---- */

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

static enum exit_kind bt_run(struct vcpu *v, struct exit *exit)
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

/*
 * What surrounds the guest's instructions: SARX, SHLX, RORX; CRC32; LAHF and SAHF. The guest's own are no question here: a CPU model offers
 * what this processor has (cpu/model.c).
 */
static int probe_processor(struct error *err)
{
	static const uint8_t needed[] = { FEATURE_BMI2, FEATURE_LAHF64, FEATURE_SSE42 };
	char missing[64] = "";
	size_t used = 0;

	for (size_t n = 0; n < ARRAY_SIZE(needed); n++)
		if (!cpu_host_has(needed[n]))
			used += (size_t)snprintf(missing + used, sizeof(missing) - used, "%s%s", used ? " and " : "",
						 cpu_feature_name(needed[n]));
	return used ? error_set(err, ENOTSUP, "needs a processor with %s, which this one lacks", missing) : 0;
}

static int probe_code(struct error *err)
{
	struct host_code code;
	int ret = host_code_create(&code, PAGE_SIZE, err);

	if (!ret)
		host_code_destroy(&code);
	return ret;
}

static int bt_probe(struct error *err)
{
	int ret;

	if ((ret = probe_processor(err)) || (ret = probe_code(err)) || (ret = bt_signals_probe(err)) ||
	    (ret = bt_windows_probe(err)))
		return ret;
	error_set(err, 0, "translates blocks of guest code to this processor's own instructions");
	return 0;
}

static void bt_destroy(struct vcpu *v)
{
	bt_code_destroy(v);
	bt_signals_destroy(v);
	free(bt_of(v));
	bt_vcpu(v)->bt = NULL;
	interp_engine.destroy(v);
}

static int bt_open(struct engine *e, struct error *err)
{
	e->shared = bt_windows_create(e->mem, &e->options, err);
	return e->shared ? 0 : -ENOMEM;
}

static void bt_close(struct engine *e) { bt_windows_destroy(e->shared); }

static void choose_glue(struct bt_cpu *bt)
{
	bool avx = __builtin_cpu_supports("avx");

	bt->glues[0] = avx ? &bt_glue_avx : &bt_glue_sse;
	bt->glues[1] = avx ? &bt_glue32_avx : &bt_glue32_sse;
}

static int bt_create(struct vcpu *v, struct error *err)
{
	struct bt_cpu *bt;
	int ret = interp_engine.create(v, err);

	if (ret)
		return ret;
	bt = bt_vcpu(v)->bt = calloc(1, sizeof(*bt));
	if (!bt) {
		interp_engine.destroy(v);
		return error_set(err, ENOMEM, "no memory for the translator");
	}
	bt->options = v->engine->options;
	bt->windows = v->engine->shared;
	bt->limits.boundary = bt_windows_limits(bt->windows);
	bt->counting = clock_kind(v->clock) == CLOCK_VIRTUAL;
	bt->tlb_changed = true;
	choose_glue(bt);
	bt_frame(v)->self = v;
	if ((ret = bt_code_create(v, err)) || (ret = bt_signals_install(err)) || (ret = bt_signals_create(v, err)))
		bt_destroy(v);
	return ret;
}

static void bt_kick(struct vcpu *v) { bt_signals_kick(v); }

static int bt_pull(struct vcpu *v, struct cpu_state *s) { return interp_engine.pull(v, s); }

static int bt_push(struct vcpu *v, const struct cpu_state *s) { return interp_engine.push(v, s); }

static void bt_invalidate(struct vcpu *v, gpa_t start, size_t size)
{
	interp_engine.invalidate(v, start, size);
	bt_code_flush(v);
}

static void tlb_protect(struct vcpu *v, gpa_t page) { bt_window_hooks.tlb_protect(v, page); }

static const struct vcpu_hooks hooks = {
	.code_written = code_written,
	.events_posted = interp_events_posted,
	.sync_icount = interp_sync_icount,
	.tlb_flush = tlb_flush,
	.tlb_flush_page = tlb_flush_page,
	.tlb_switched = tlb_switched,
	.tlb_flush_pcid = tlb_flush_pcid,
	.tlb_protect = tlb_protect,
};

const struct engine_ops bt_engine = {
	.name = "bt",
	.what = "binary translation to this processor's own instructions",
	.can = ENGINE_VIRTUAL_CLOCK,
	.vcpu_size = sizeof(struct bt_vcpu),
	.hooks = &hooks,
	.probe = bt_probe,
	.open = bt_open,
	.close = bt_close,
	.create = bt_create,
	.run = bt_run,
	.kick = bt_kick,
	.pull = bt_pull,
	.push = bt_push,
	.invalidate = bt_invalidate,
	.stats = bt_stats_print,
	.destroy = bt_destroy,
};
