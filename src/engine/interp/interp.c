/*
 * The interpreter, engine `interp`: the reference. This file finds, decodes and caches blocks and runs them; what the
 * instructions do is in alu.c, bits.c, move.c, flow.c (plain computation), host.c (vectors and x87) and in cpu/.
 *
 * Instructions are counted exactly: the budget is charged for a whole block when it is entered and refunded for what did
 * not run. Each delivery of a fault is charged as one instruction too, so that a guest that only faults still gets on in
 * virtual time.
 */
#include "engine/interp/interp.h"

#include "engine/interp/host_exec.h"

#include <errno.h>
#include <stdlib.h>

/* ---- handlers for what cpu/ and host.c do ---- */

static HANDLER(op_system)
{
	v->current = i;
	v->s.rip = this_rip(v, i);
	interp_of(v)->op_count[i->op]++;
	cpu_system_ops[i->op](v, i);
	if (unlikely(v->restart)) {
		v->restart = false;
		interp_refund(v, i);
		return NULL;
	}
	if (unlikely(atomic_load_explicit(&v->events, memory_order_relaxed)))
		return interp_leave_behind(v, i);
	NEXT;
}

static HANDLER(op_system_end)
{
	v->current = i;
	v->s.rip = this_rip(v, i);
	interp_of(v)->op_count[i->op]++;
	cpu_system_ops[i->op](v, i);
	LEAVE;
}

/* What host.c and simd_memory.c do. */
#define HANDLER_VIA(name, run)                                                                                         \
	static HANDLER(name)                                                                                           \
	{                                                                                                              \
		v->current = i;                                                                                        \
		v->s.rip = this_rip(v, i);                                                                             \
		run(v, i);                                                                                             \
		NEXT;                                                                                                  \
	}
HANDLER_VIA(op_host, interp_host_run)
HANDLER_VIA(op_gather, interp_gather)
HANDLER_VIA(op_maskmov, interp_maskmov)
HANDLER_VIA(op_vzero, interp_vzero)

static HANDLER(op_undefined)
{
	v->current = i;
	cpu_raise(v, EXC_UD);
}

static HANDLER(op_too_long)
{
	v->current = i;
	cpu_raise_error(v, EXC_GP, 0);
}

handler_fn *interp_select(const struct vcpu *v, const struct insn *i)
{
	handler_fn *fn;

	if (i->flags & INSN_SYSTEM)
		return i->flags & INSN_ENDS ? op_system_end : op_system;
	switch (i->op) {
	case OP_HOST: return op_host;
	case OP_GATHER: return op_gather;
	case OP_MASKMOV: return op_maskmov;
	case OP_VZERO: return op_vzero;
	case OP_TOO_LONG: return op_too_long;
	case OP_INVALID:
	case OP_UD0:
	case OP_UD1:
	case OP_UD2: return op_undefined;
	default: break;
	}
	if ((fn = select_alu(i)) || (fn = select_move(i)) || (fn = select_flow(v, i)) || (fn = select_bits(i)))
		return fn;
	return op_undefined;
}

/* ---- counting ---- */

void interp_refund(struct vcpu *v, const struct insn *i)
{
	const struct block *b = interp_of(v)->current;

	v->budget += b->count - (i - b->insns);
}

const struct insn *interp_leave_behind(struct vcpu *v, const struct insn *i)
{
	v->s.rip = after_rip(v, i);
	interp_refund(v, i + 1);
	return NULL;
}

void interp_sync_icount(struct vcpu *v)
{
	const struct interp *in = interp_of(v);
	int64_t ahead = v->current ? in->current->count - (v->current - in->current->insns) : 0;

	v->s.icount = in->icount_end - (uint64_t)(v->budget + ahead);
}

/* ---- the block cache ---- */

static size_t block_size(unsigned insns) { return sizeof(struct block) + insns * sizeof(struct insn); }

/* Between instructions, where nobody has a pointer to a block (docs/engines.md, lifetimes). */
static void flush_blocks(struct vcpu *v)
{
	struct interp *in = interp_of(v);

	BUG_ON(v->current);
	in->current = NULL;
	memset(in->hash, 0, sizeof(in->hash));
	memset(in->jump, 0, sizeof(in->jump));
	for (unsigned n = 0; n < ARRAY_SIZE(in->jump); n++)
		in->jump[n].key = UINT64_MAX;
	memory_taken_back(in->arena, in->arena_size);
	in->arena_used = 0;
	in->flushes++;
}

static struct block **hash_slot(struct interp *in, uint64_t address, uint32_t mode_key)
{
	uint64_t h = (address ^ (uint64_t)mode_key << 20) * 0x9e3779b97f4a7c15ull;

	return &in->hash[h >> (64 - INTERP_HASH_BITS)];
}

static const struct mem_page no_page; /* for code in device memory, which is never cached: its generation stays 0 */

unsigned interp_decode_insn(struct vcpu *v, const uint8_t *bytes, size_t avail, unsigned offset, struct insn *i,
			    struct insn_host *h)
{
	unsigned len = cpu_decode_cached(interp_of(v)->decoder, v->code_mode, bytes, avail, offset, i, h);

	if (unlikely(len && i->flags & INSN_VEX) && !in_protected_mode(v)) {
		i->op = OP_INVALID;
		i->flags = INSN_ENDS;
	}
	return len;
}

/*
 * One instruction that begins on this page and ends on the next. Both pages are fetched first, so that a fault names the
 * second page's address.
 */
static unsigned decode_crossing(struct vcpu *v, struct block *b, uint64_t linear, const uint8_t *host, size_t avail,
				struct insn *i, struct insn_host *h)
{
	uint8_t bytes[16], *host2;
	gpa_t second;

	memcpy(bytes, host, avail);
	second = cpu_fetch_translate(v, gva(linear + avail), &host2);
	if (host2)
		memcpy(bytes + avail, host2, sizeof(bytes) - avail);
	else
		memset(bytes + avail, 0xff, sizeof(bytes) - avail);
	b->page[1] = host2 ? mem_page(v->mem, second) : &no_page;
	b->gpa2 = second.v;
	return interp_decode_insn(v, bytes, 15, 0, i, h);
}

/*
 * Segment limit of an instruction fetch. #GP(0) only when the first instruction is beyond it: the rest is left for later. Behind
 * the last byte of 64 KiB the instruction pointer does not wrap in 16-bit code either: it is the limit that stops it there.
 */
static bool beyond_limit(struct vcpu *v, unsigned offset, unsigned len)
{
	uint64_t last = (uint32_t)v->s.rip + (uint64_t)offset + len - 1;

	return v->code_mode != MODE_64 && last > v->s.seg_limit[CS];
}

/* Decode up to max instructions at linear into b, without marking the page as code. */
static void decode_run(struct vcpu *v, struct block *b, uint64_t linear, const uint8_t *host, unsigned max)
{
	struct insn_host *hosts = interp_of(v)->hosts;
	size_t avail = PAGE_SIZE - (linear & (PAGE_SIZE - 1)), offset = 0;

	b->count = 0;
	b->page[1] = NULL;
	while (b->count < max && offset < avail) {
		struct insn *i = &b->insns[b->count];
		struct insn_host *h = &hosts[b->count];
		unsigned len;

		if (b->count && cpu_is_cut(v, linear + offset))
			break;
		len = interp_decode_insn(v, host + offset, avail - offset, (unsigned)offset, i, h);

		if (!len) {
			if (b->count)
				break;
			if (beyond_limit(v, 0, (unsigned)avail + 1))
				cpu_raise_error(v, EXC_GP, 0);
			len = decode_crossing(v, b, linear, host, avail, i, h);
		}
		if (beyond_limit(v, (unsigned)offset, len)) {
			if (b->count)
				break;
			cpu_raise_error(v, EXC_GP, 0);
		}
		offset += len;
		b->count++;
		if ((i->flags & INSN_ENDS) || b->page[1])
			break;
	}
	b->bytes = (uint16_t)offset;
	b->insns[b->count] =
		(struct insn){ .handler = (const void *)interp_op_fall_through, .offset = (uint16_t)offset };
}

static bool bytes_unchanged(const struct block *b, const uint8_t *host)
{
	for (unsigned n = 0; n < b->count; n++)
		if (memcmp(host + b->insns[n].offset, b->insns[n].bytes, b->insns[n].len))
			return false;
	return true;
}

/* What holds code in device memory is the bus with nobody on it. */
static const uint8_t ones[PAGE_SIZE] = { [0 ... PAGE_SIZE - 1] = 0xff };

static uint32_t code_begin(struct vcpu *v, const struct mem_page *page, gpa_t at, size_t len)
{
	return page == &no_page ? 0 : cpu_code_begin(v, (struct mem_page *)page, at, len);
}

/*
 * Decode a block at s.rip into b. The page is marked as code before the bytes that count are read (mem.h), but how many
 * count is only known after decoding them: so decode, mark, and if they changed meanwhile do it again with all marked.
 */
static void decode_block(struct vcpu *v, struct block *b, uint64_t linear, unsigned max)
{
	uint8_t *host;
	const uint8_t *code;
	gpa_t at;
	const struct mem_page *page;

	v->count[COUNT_BLOCKS]++;
	for (unsigned attempt = 0;; attempt++) {
		size_t rest = PAGE_SIZE - (linear & (PAGE_SIZE - 1));

		at = cpu_fetch_translate(v, gva(linear), &host);
		page = host ? mem_page(v->mem, at) : &no_page;
		code = host ? host : ones;
		b->gpa = at.v;
		b->mode_key = v->mode_key;
		b->page[0] = page;
		if (attempt)
			b->gen[0] = code_begin(v, page, at, rest);
		decode_run(v, b, linear, code, max);
		if (b->page[1]) {
			/* Rare: mark both pages whole, then decode once more with the generations in hand. */
			b->gen[0] = code_begin(v, page, at, rest);
			b->gen[1] = code_begin(v, b->page[1], gpa(b->gpa2), 16);
			decode_run(v, b, linear, code, max);
			return;
		}
		if (attempt)
			return;
		b->gen[0] = code_begin(v, page, at, MAX(b->bytes, 1));
		if (bytes_unchanged(b, code))
			return;
	}
}

/*
 * Make a decoded block one that can be run here; hosts[n] describes its instruction n. It is nobody's yet: where there is no room
 * for all of its stubs, stubs and blocks are forgotten first.
 */
static void prepare_block(struct vcpu *v, struct block *b, const struct insn_host *hosts)
{
	unsigned stubs = 0;

	for (unsigned n = 0; n < b->count; n++)
		stubs += !!(b->insns[n].flags & INSN_HOST);
	if (!interp_host_has_room(v, stubs)) {
		flush_blocks(v);
		interp_host_reset(v);
	}
	for (unsigned n = 0; n < b->count; n++) {
		struct insn *i = &b->insns[n];

		if (i->flags & INSN_HOST)
			interp_host_prepare(v, i, &hosts[n]);
		i->handler = (const void *)interp_select(v, i);
	}
	b->stub_epoch = interp_host_epoch(v);
}

const struct block *interp_decode(struct vcpu *v, uint64_t linear, unsigned max, const struct insn_host **hosts)
{
	struct interp *in = interp_of(v);

	decode_block(v, in->scratch, linear, MIN(max, INTERP_MAX_INSNS));
	*hosts = in->hosts;
	return in->scratch;
}

/* Behind an instruction that is run alone: control goes back to the caller. */
static HANDLER(op_stop)
{
	v->s.rip = this_rip(v, i);
	return NULL;
}

void interp_single(struct vcpu *v, struct block *b, const struct insn *i)
{
	struct insn_host h;

	*b = (struct block){
		.mode_key = v->mode_key, .page = { &no_page }, .count = 1, .capacity = 2, .bytes = i->len
	};
	b->insns[0] = *i;
	/* Decoded once more for the offset, which RIP-relative operands contain. */
	if (i->op != OP_INVALID && i->op != OP_TOO_LONG)
		interp_decode_insn(v, i->bytes, i->len, 0, &b->insns[0], &h);
	prepare_block(v, b, &h);
	b->insns[1] = (struct insn){ .handler = (const void *)op_stop, .offset = i->len };
}

/* First: what the bytes are now may no longer reach into the next page, which then must not fault. */
static bool is_stale(const struct block *b) { return !block_fresh(b) || b->page[0] == &no_page; }

/* A stale block of the same address with so much room, or NULL. */
static struct block *find_stale(struct interp *in, const struct block *decoded, unsigned insns)
{
	struct block *b = *hash_slot(in, decoded->gpa, decoded->mode_key);

	while (b && (b->gpa != decoded->gpa || b->mode_key != decoded->mode_key || !is_stale(b) || b->capacity < insns))
		b = b->hash_next;
	return b;
}

/* Keep a decoded block: in the place of a stale one of the same address where it fits, which is looked for when there is room. */
static struct block *keep_block(struct vcpu *v, const struct block *decoded)
{
	struct interp *in = interp_of(v);
	unsigned insns = decoded->count + 1u;
	struct block *b, **slot;

	if (in->arena_used + block_size(insns) > in->arena_size)
		flush_blocks(v);
	b = find_stale(in, decoded, insns);
	if (!b) {
		b = (struct block *)(in->arena + in->arena_used);
		memory_given_out(b, block_size(insns));
		in->arena_used += align_up(block_size(insns), 64);
		b->capacity = (uint16_t)insns;
		slot = hash_slot(in, decoded->gpa, decoded->mode_key);
		b->hash_next = *slot;
		*slot = b;
	}
	struct block *next = b->hash_next;
	uint16_t capacity = b->capacity;
	memcpy(b, decoded, block_size(insns));
	b->hash_next = next;
	b->capacity = capacity;
	return b;
}

/* The block at s.rip, decoded if need be. Raises what fetching raises. */
static struct block *find_block(struct vcpu *v, uint64_t linear)
{
	struct interp *in = interp_of(v);
	uint8_t *host;
	gpa_t at = cpu_fetch_translate(v, gva(linear), &host);
	struct block *b;

	v->count[COUNT_BLOCK_LOOKUPS]++;
	for (b = *hash_slot(in, at.v, v->mode_key); b; b = b->hash_next) {
		if (b->gpa != at.v || b->mode_key != v->mode_key || is_stale(b))
			continue;
		if (!b->page[1])
			break;
		uint8_t *host2;
		uint64_t next_page = (linear | (PAGE_SIZE - 1)) + 1; /* a fetch wraps it */

		if (cpu_fetch_translate(v, gva(next_page), &host2).v == b->gpa2)
			break;
	}
	if (!b) {
		decode_block(v, in->scratch, linear, INTERP_MAX_INSNS);
		prepare_block(v, in->scratch, in->hosts);
		b = keep_block(v, in->scratch);
		TRACE(v->trace, BLOCKS, "cpu %u: %#llx (physical %#llx): %u instructions, %u bytes", v->index,
		      (unsigned long long)linear, (unsigned long long)b->gpa, b->count, b->bytes);
	}
	if (linear == v->s.rip && !cpu_is_cut(v, linear))
		*jump_slot(in, linear) = (struct jump_entry){ linear, interp_key(v), b };
	return b;
}

/* Nothing that follows in this block runs; it is not fresh any more, and will be decoded again. */
static void poison(struct block *b)
{
	for (unsigned n = 0; n <= b->count; n++)
		b->insns[n].handler = (const void *)interp_op_poisoned;
}

/* Was it the block that runs? All others are looked at when they are wanted. */
uint64_t interp_code_written(struct vcpu *v, gpa_t at, size_t len, bool *hit)
{
	struct block *b = interp_of(v)->current;

	(void)at, (void)len, (void)hit;
	if (b && !block_fresh(b))
		poison(b);
	return 0;
}

/* Rare enough to decode the block again. What is run alone, and code in device memory, ends behind the instruction anyway. */
void interp_events_posted(struct vcpu *v)
{
	struct block *b = interp_of(v)->current;

	if (!b || b->page[0] == &no_page)
		return;
	poison(b);
	b->gen[0] = atomic_load(&b->page[0]->code_gen) - 1;
}

/* ---- running ---- */

/* Run one instruction alone: the budget is put aside, so that no other block is entered behind it. */
static const struct insn *start_step(struct vcpu *v, uint64_t linear)
{
	struct interp *in = interp_of(v);

	decode_block(v, in->step, linear, 1);
	prepare_block(v, in->step, in->hosts);
	in->stepping = true;
	in->saved_budget = v->budget;
	in->saved_icount_end = in->icount_end;
	in->icount_end -= (uint64_t)v->budget - 1;
	v->budget = 0;
	v->s.ip_base = v->s.rip;
	v->step_next = v->s.rip + in->step->insns[0].len;
	in->current = in->step;
	return in->step->insns;
}

/* ran: instructions completed, as the budget now says. */
static void end_step(struct vcpu *v)
{
	struct interp *in = interp_of(v);

	in->stepping = false;
	v->budget = in->saved_budget - 1 + v->budget; /* a refunded instruction left 1 there */
	in->icount_end = in->saved_icount_end;
	if (in->step_event)
		cpu_after_step(v);
}

/* Between blocks, off the fast path: events, the budget, finding the next block. NULL: leave run() with exit_kind. */
static const struct insn *interp_slow(struct vcpu *v)
{
	struct interp *in = interp_of(v);
	uint32_t events = atomic_load(&v->events);
	uint64_t linear;
	struct block *b;

	v->current = NULL;
	in->step_event = false;
	if (events) {
		interp_sync_icount(v);
		if (events & EVENT_STOP) {
			atomic_fetch_and(&v->events, ~(uint32_t)EVENT_STOP);
			in->exit_kind = EXIT_DEBUG;
			return NULL;
		}
		if (events & EVENT_EXIT || (events & EVENT_EXCLUSIVE && in->got_on)) {
			atomic_fetch_and(&v->events, ~(uint32_t)(EVENT_EXIT | EVENT_EXCLUSIVE));
			in->exit_kind = EXIT_KICK;
			return NULL;
		}
		atomic_fetch_and(&v->events, ~(uint32_t)EVENT_CODE);
		if (!cpu_handle_events(v)) {
			in->exit_kind = EXIT_SHUTDOWN;
			return NULL;
		}
		in->step_event = atomic_load(&v->events) & EVENT_STEP;
	}
	if (v->s.activity != CPU_RUNNING) {
		in->exit_kind = EXIT_HALT;
		return NULL;
	}
	if (v->budget <= 0) {
		in->exit_kind = EXIT_BUDGET;
		return NULL;
	}
	if (cpu_stops_here(v)) {
		in->exit_kind = EXIT_DEBUG;
		return NULL;
	}
	in->got_on = true;
	linear = v->code_mode == MODE_64 ? v->s.rip : (uint32_t)(v->s.seg_base[CS] + v->s.rip);
	if (in->step_event)
		return start_step(v, linear);
	b = find_block(v, linear);
	if (v->budget < b->count || beyond_limit(v, 0, b->bytes))
		return start_step(v, linear);
	v->budget -= b->count;
	v->s.ip_base = v->s.rip;
	in->current = b;
	return b->insns;
}

/* After cpu_raise: state is as before v->current, which did not run, nor what follows it in its block. */
static bool deliver_fault(struct vcpu *v)
{
	struct interp *in = interp_of(v);
	bool running = v->current;
	bool alive;

	if (running) {
		if (!v->switching)
			v->s.rip = this_rip(v, v->current);
		interp_refund(v, v->current);
		v->current = NULL;
	}
	in->current = NULL;
	if (in->stepping) {
		in->stepping = false;
		v->budget = in->saved_budget;
		in->icount_end = in->saved_icount_end;
	}
	v->restart = false;
	interp_sync_icount(v);
	v->budget--;
	alive = cpu_deliver_fault(v);
	if (alive && in->step_event)
		cpu_after_step(v);
	return alive;
}

static enum exit_kind interp_run(struct vcpu *v, struct exit *exit)
{
	struct interp *in = interp_of(v);
	enum exit_kind kind;
	const struct insn *i;

	(void)exit;
	in->icount_end = v->s.icount + (uint64_t)v->budget;
	in->current = NULL;
	in->got_on = false;
	in->step_event = false;
	in->exit_kind = EXIT_SHUTDOWN; /* unless something else ends it: deliver_fault() failed */
	v->current = NULL;
	interp_host_enter(v);
	if (!setjmp(v->fault_jmp) || deliver_fault(v)) {
		while ((i = interp_slow(v))) {
			while (i)
				i = ((handler_fn *)i->handler)(v, i);
			v->current = NULL;
			if (in->stepping)
				end_step(v);
		}
	}
	kind = in->exit_kind;
	v->current = NULL;
	in->current = NULL;
	interp_sync_icount(v);
	interp_host_leave(v);
	cpu_fpu_save(v);
	v->count[COUNT_EXIT_HALT] += kind == EXIT_HALT;
	v->count[COUNT_EXIT_KICK] += kind == EXIT_KICK;
	TRACE(v->trace, EXITS, "cpu %u: exit %d at %#llx after %llu instructions", v->index, kind,
	      (unsigned long long)v->s.rip, (unsigned long long)v->s.icount);
	return kind;
}

/* ---- the engine's other operations ---- */

static int interp_probe(struct error *err)
{
	error_set(err, 0, "interprets every instruction: works everywhere, 30 to 100 times slower than the processor");
	return 0;
}

static void interp_destroy(struct vcpu *v)
{
	struct interp *in = interp_of(v);

	interp_host_destroy(v);
	if (in->arena)
		overhead_give(&v->mem->overhead, OVERHEAD_CODE, in->arena_size);
	free(in->arena);
	free(in->step);
	free(in->scratch);
	decode_cache_destroy(in->decoder);
}

static int interp_create(struct vcpu *v, struct error *err)
{
	struct interp *in = interp_of(v);
	int ret;

	memset(in, 0, sizeof(*in));
	in->splits_trap = host_detects_split_locks();
	in->arena_size = MIN((size_t)engine_options_of(v)->arena << 10,
			     align_up(v->mem->overhead.code_share / INTERP_ARENA_PART, PAGE_SIZE));
	if (overhead_take(&v->mem->overhead, OVERHEAD_CODE, in->arena_size) &&
	    !(in->arena = aligned_alloc(64, in->arena_size)))
		overhead_give(&v->mem->overhead, OVERHEAD_CODE, in->arena_size);
	in->step = calloc(1, block_size(2));
	in->scratch = calloc(1, block_size(INTERP_MAX_INSNS + 1));
	in->decoder = decode_cache_create(v->model);
	if (!in->arena || !in->step || !in->scratch || !in->decoder)
		ret = error_set(err, ENOMEM, "no memory for the interpreter");
	else
		ret = interp_host_init(v, err);
	if (ret)
		interp_destroy(v);
	else
		flush_blocks(v);
	return ret;
}

static void interp_kick(struct vcpu *v) { (void)v; /* events are polled before every block */ }

static int interp_pull(struct vcpu *v, struct cpu_state *s)
{
	*s = v->s;
	s->rflags = cpu_rflags(v);
	s->ip_base = 0; /* of some instruction */
	return 0;
}

static int interp_push(struct vcpu *v, const struct cpu_state *s)
{
	v->s = *s;
	cpu_set_status(v, s->rflags);
	v->fpu_live = v->repeating = false;
	cpu_tlb_flush(v);
	cpu_update_mode(v);
	/* Whatever the new state waits for or is in the middle of: have it looked at. */
	vcpu_post(v, EVENT_STEP | EVENT_INTERRUPT | EVENT_HALTED);
	return 0;
}

static void interp_invalidate(struct vcpu *v, gpa_t start, size_t size)
{
	(void)start, (void)size;
	flush_blocks(v);
	cpu_tlb_flush(v);
}

static void interp_stats(struct vcpu *v, FILE *out)
{
	const struct interp *in = interp_of(v);
	bool shown[OP_COUNT] = { false };

	fprintf(out, "  decoded blocks: %zu KiB, forgotten %llu times; %llu instructions decoded anew\n",
		in->arena_used >> 10, (unsigned long long)(in->flushes - 1),
		(unsigned long long)decode_cache_missed(in->decoder));
	for (unsigned n = 0; n < 12; n++) {
		unsigned best = 0;

		for (unsigned op = 0; op < OP_COUNT; op++)
			if (!shown[op] && in->op_count[op] > in->op_count[best])
				best = op;
		if (!in->op_count[best] || shown[best])
			break;
		shown[best] = true;
		fprintf(out, "  %-20s %12llu\n", cpu_op_name(best), (unsigned long long)in->op_count[best]);
	}
}

static const struct vcpu_hooks hooks = {
	.code_written = interp_code_written,
	.events_posted = interp_events_posted,
	.sync_icount = interp_sync_icount,
};

const struct engine_ops interp_engine = {
	.name = "interp",
	.what = "interpreter: the reference, works everywhere",
	.can = ENGINE_COUNTS | ENGINE_VIRTUAL_CLOCK | ENGINE_TLB_ALONE,
	.vcpu_size = sizeof(struct interp_vcpu),
	.hooks = &hooks,
	.probe = interp_probe,
	.create = interp_create,
	.run = interp_run,
	.kick = interp_kick,
	.pull = interp_pull,
	.push = interp_push,
	.invalidate = interp_invalidate,
	.stats = interp_stats,
	.destroy = interp_destroy,
};
