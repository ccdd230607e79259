/*
 * One instruction in C, for translated code that left it: because it faulted, or calls for it each time.
 */
#include "engine/bt/runtime.h"

#include "engine/interp/host_exec.h"

/* ---- counting, when time is virtual: see struct bt_cpu ---- */

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

void bt_end_single(struct vcpu *v, bool completed)
{
	struct bt_cpu *bt = bt_of(v);

	bt->single = false;
	interp_of(v)->icount_end += (uint64_t)bt->saved_budget - 1;
	v->budget = bt->saved_budget;
	bt_charge(v, completed);
}

/* ---- the instruction ---- */

/* Bytes of code on one physical page; where no memory is, the interpreter reads ones as well. */
static void copy_code(struct vcpu *v, uint64_t at, uint8_t *bytes, size_t len)
{
	const uint8_t *host = mem_map(v->mem, gpa(at), len, false);

	if (host)
		memcpy(bytes, host, len);
	else
		memset(bytes, 0xff, len);
}

void bt_decode_again(struct vcpu *v, const struct bt_block *b, const struct bt_insn *record, struct insn *i)
{
	uint64_t at = b->gpa + record->guest;
	size_t avail = MIN(15u, PAGE_SIZE - (at & (PAGE_SIZE - 1)));
	struct insn_host h;
	uint8_t bytes[15];

	copy_code(v, at, bytes, avail);
	if (b->crosses) {
		copy_code(v, bt_second(b)->gpa, bytes + avail, sizeof(bytes) - avail);
		avail = sizeof(bytes);
	}
	interp_decode_insn(v, bytes, avail, 0, i, &h);
}

/* The interpreter's form of an instruction, whole. NULL: no room. */
static struct block *single_of(struct vcpu *v, struct bt_block *b, unsigned n)
{
	struct block *single = bt_single_of(bt_of(v), b, n);
	struct insn i;

	if (single && interp_single_is_whole(v, single))
		return single;
	if (!single && !(single = bt_single_alloc(bt_of(v), b, n)))
		return NULL;
	bt_decode_again(v, b, &b->insns[n], &i);
	interp_single(v, single, &i);
	return single;
}

/* ---- where it accessed memory ---- */

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

/* ---- running it ---- */

/* What R11 or R10 leads to now, as the record says; false if a register's value is no address, and where C cannot make it. */
static bool window_of(struct vcpu *v, unsigned record, uint64_t *to)
{
	int64_t slot;

	if (!record || record == BT_WINDOW_SUM)
		return !record;
	slot = (int64_t)v->s.gpr[record - 1] >> SLOT_SHIFT;
	if (slot < -256 || slot > 255)
		return false;
	*to = *(uint64_t *)(uintptr_t)(bt_vcpu(v)->slot_r15 - SLOT_SHIFT + (uint64_t)(slot * 8));
	return true;
}

/* The kernel's accesses to young user addresses are not worth a second signal. */
static unsigned faults_allowed(const struct vcpu *v) { return bt_space_is_young(bt_of(v)) ? 1 : BT_FAULTS_FORCED; }

bool bt_run_alone(struct vcpu *v, struct bt_block *b, unsigned n, enum bt_exit_kind kind)
{
	struct bt_cpu *bt = bt_of(v);
	struct bt_insn *record = &b->insns[n], *following = record + 1;
	struct block *single;
	uint64_t next;
	uint32_t epoch;

	v->s.rip = bt_block_rip(v, b) + record->guest;
	next = v->s.rip + record->len;
	single = single_of(v, b, n);
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
	bt_end_single(v, !v->budget); /* 1: it is left unfinished, to be run again */
	if (kind != BT_EXIT_CALLOUT)
		bt_windows_fill_missed(bt->windows, v);
	bt_fault_ends(v, false);
	if (epoch != bt->code_epoch || b->dead || n + 1 >= b->count || v->s.rip != next || bt->tlb_changed ||
	    atomic_load(&v->events))
		return false;
	/* CLD, STD; FLDCW and whatever else unmasks x87 exceptions, which must not become the host's */
	if (!(v->s.rflags & FLAG_DF) != !(b->key & BT_KEY_DF) || (v->x87_watch && (b->key & BT_KEY_X87)))
		return false;
	/* Behind a callout nothing is known of R11 and R10; behind a fault translated code may count on them. */
	if (!window_of(v, following->r11, &bt_frame(v)->r11) || !window_of(v, following->r10, &bt_frame(v)->r10))
		return false;
	bt_resume_at(v, b, following->host);
	return true;
}

bool bt_run_single(struct vcpu *v, struct bt_block *b, unsigned n, enum bt_exit_kind kind)
{
	if (!bt_run_alone(v, b, n, kind))
		return false;
	charge_resumed(v, b->count - n - 1);
	return true;
}

bool bt_fill_tlb(struct vcpu *v, struct bt_block *b, unsigned n, bool write)
{
	struct bt_insn *record = &b->insns[n];

	bt_of(v)->stats.tlb_misses++;
	v->s.rip = bt_block_rip(v, b) + record->guest;
	/* In 32-bit code a limit may be in the operand's way, which is looked at before the page tables. */
	if (bt_is_code32(b->key) || bt_frame(v)->target & ((1u << record->align_shift) - 1) ||
	    !cpu_tlb_fill(v, bt_frame(v)->target, write))
		return bt_run_single(v, b, n, BT_EXIT_CALLOUT);
	if (b->dead)
		return false;
	bt_resume_at(v, b, record->host);
	charge_resumed(v, b->count - n);
	return true;
}
