/*
 * Private to the interpreter: decoded blocks and how handlers go from one instruction to the next.
 *
 * A block is a run of decoded instructions of one page in one mode. Each instruction has a handler; a handler does its work
 * and continues with the next one's (direct threading). Where the compiler turns calls in tail position into jumps (release
 * builds) handlers chain for ever; elsewhere each returns the next instruction to the loop in run().
 */
#ifndef DOPPEL_INTERP_H
#define DOPPEL_INTERP_H

#include "engine/interp/host_exec.h"

#define INTERP_MAX_INSNS  64 /* in a block */
#define INTERP_ARENA_PART 4  /* of what a vCPU's code may take its arena has at most one, whatever the option says */
#define INTERP_HASH_BITS  14 /* blocks by physical address */
#define INTERP_JUMP_BITS  12 /* blocks by linear address */

struct block {
	struct block *hash_next;
	uint64_t gpa; /* of the first byte */
	uint32_t mode_key;
	uint32_t gen[2];		/* code generations when it was decoded */
	const struct mem_page *page[2]; /* [1]: NULL unless the (only) instruction crosses a page */
	uint64_t gpa2;			/* of the second page */
	uint64_t stub_epoch;		/* interp_host_epoch() of its host stubs */
	uint16_t count;			/* instructions, without the sentinel */
	uint16_t capacity;		/* insns[] has room for so many, with the sentinel */
	uint16_t bytes;
	struct insn insns[]; /* count of them, then a sentinel that leaves the block */
};

struct jump_entry {
	uint64_t linear;
	uint64_t key; /* address_space and mode_key */
	struct block *block;
};

struct interp {
	struct block *current;	  /* being run; valid while v->current or a handler is */
	enum exit_kind exit_kind; /* why run() returns */
	uint64_t icount_end;	  /* s.icount + budget, constant while instructions run */
	bool got_on;		  /* run() has executed something: EVENT_EXCLUSIVE may end it */
	bool step_event;	  /* EVENT_STEP asked for the current step, which ends with cpu_after_step() */
	bool stepping;		  /* one instruction is run alone, budget put aside: */
	int64_t saved_budget;
	uint64_t saved_icount_end;
	uint8_t *
		arena; /* blocks that are kept: all are forgotten when it is full, or the host stubs that they point to are */
	size_t arena_size, arena_used;
	struct block *hash[1u << INTERP_HASH_BITS];
	struct jump_entry jump[1u << INTERP_JUMP_BITS];
	struct block *step;			  /* block of one instruction, reused */
	struct block *scratch;			  /* decoded into, then copied to the arena */
	struct insn_host hosts[INTERP_MAX_INSNS]; /* of the block decoded last */
	struct decode_cache *decoder;
	uint64_t flushes;
	uint64_t op_count[OP_COUNT]; /* callouts, for --stats */
};

static inline struct interp *interp_of(const struct vcpu *v) { return interp_vcpu(v)->interp; }

/* As vcpu_hooks has them, for it and for an engine that has it inside. */
uint64_t interp_code_written(struct vcpu *, gpa_t, size_t len, bool *hit);
void interp_events_posted(struct vcpu *);
void interp_sync_icount(struct vcpu *);

/* Runs its instruction and returns the next one to run, or NULL to go through interp_slow(). */
typedef const struct insn *handler_fn(struct vcpu *, const struct insn *);
#define HANDLER(name) const struct insn *name(struct vcpu *v, const struct insn *i)

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) &&                        \
	!defined(INTERP_NO_TAILCALLS)
#define CONTINUE(v, insn) return ((handler_fn *)(insn)->handler)(v, insn)
#else
#define CONTINUE(v, insn) return ((void)(v), (insn))
#endif
#define NEXT CONTINUE(v, i + 1)

/* Address of this instruction, and of the next one. */
static inline uint64_t this_rip(const struct vcpu *v, const struct insn *i)
{
	uint64_t rip = v->s.ip_base + i->offset;
	return likely(v->code_mode == MODE_64) ? rip : (uint32_t)rip;
}
static inline uint64_t after_rip(const struct vcpu *v, const struct insn *i)
{
	uint64_t rip = v->s.ip_base + i->offset + i->len;
	return likely(v->code_mode == MODE_64) ? rip : (uint32_t)rip;
}

static inline uint64_t interp_key(const struct vcpu *v) { return v->address_space << 16 | v->mode_key; }

static inline struct jump_entry *jump_slot(struct interp *in, uint64_t linear)
{
	return &in->jump[(linear ^ linear >> INTERP_JUMP_BITS) & ((1u << INTERP_JUMP_BITS) - 1)];
}

static inline bool block_fresh(const struct block *b)
{
	return atomic_load_explicit(&b->page[0]->code_gen, memory_order_acquire) == b->gen[0] &&
	       (!b->page[1] || atomic_load_explicit(&b->page[1]->code_gen, memory_order_acquire) == b->gen[1]);
}

/* s.rip is set: the first instruction of the next block if it is at hand and nothing else is to be done first, else NULL. */
static inline const struct insn *next_block(struct vcpu *v)
{
	struct interp *in = interp_of(v);
	struct jump_entry *e = jump_slot(in, v->s.rip);
	struct block *b = e->block;

	if (unlikely(atomic_load_explicit(&v->events, memory_order_relaxed)))
		return NULL;
	if (unlikely(e->linear != v->s.rip || e->key != interp_key(v)))
		return NULL;
	if (unlikely(v->budget < b->count || !block_fresh(b)))
		return NULL;
	v->budget -= b->count;
	v->s.ip_base = v->s.rip;
	in->current = b;
	return b->insns;
}

/* The end of a block: go on with the block at s.rip. */
#define LEAVE                                                                                                          \
	do {                                                                                                           \
		const struct insn *next_ = next_block(v);                                                              \
		if (unlikely(!next_))                                                                                  \
			return NULL;                                                                                   \
		CONTINUE(v, next_);                                                                                    \
	} while (0)

/* select.c: the handler for a decoded instruction. */
handler_fn *interp_select(const struct vcpu *, const struct insn *);
handler_fn *select_alu(const struct insn *);
handler_fn *select_move(const struct insn *);
handler_fn *select_bits(const struct insn *);
handler_fn *select_flow(const struct vcpu *, const struct insn *);

/* flow.c */
handler_fn interp_op_fall_through, interp_op_poisoned;
/* cpu_decode_cached() in v's mode, of which more than its kind counts: VEX is undefined in real and virtual-8086 mode. */
unsigned interp_decode_insn(struct vcpu *, const uint8_t *bytes, size_t avail, unsigned offset, struct insn *,
			    struct insn_host *);
/*
 * interp.c, for other engines that let it do what they cannot: a decoded block of at most max instructions at linear (s.rip),
 * page marked as code, in scratch memory that the next call overwrites; hosts[n] describes insns[n]. Raises what fetching raises.
 */
const struct block *interp_decode(struct vcpu *v, uint64_t linear, unsigned max, const struct insn_host **hosts);
/*
 * Fill b, which has room for 2, with the one instruction i of a decoded block, as a block of its own. Its host stub lives until these
 * are forgotten for want of room, which making another block may do: before it is run it must be asked whether it is whole, and
 * else be made again.
 */
void interp_single(struct vcpu *v, struct block *b, const struct insn *i);
static inline bool interp_single_is_whole(const struct vcpu *v, const struct block *b)
{
	return b->stub_epoch == interp_host_epoch(v);
}
/*
 * Run such a block's instruction at s.rip; v->budget must be 0, and is then 1 if the instruction is to be run again (v->restart).
 * s.rip is then the next one's. Raises.
 */
static inline void interp_run_single(struct vcpu *v, struct block *b)
{
	const struct insn *i = b->insns;

	interp_of(v)->current = b;
	v->s.ip_base = v->s.rip;
	do /* once, where handlers chain */
		i = ((handler_fn *)i->handler)(v, i);
	while (i);
	v->current = NULL;
	interp_of(v)->current =
		NULL; /* the caller's block may be gone when a device of another instruction posts an event */
}
/* interp.c: instructions of the current block from i on will not run: give them back to the budget. */
void interp_refund(struct vcpu *, const struct insn *i);
/* interp.c: leave the block behind i, because something is pending: a handler returns what this returns. */
const struct insn *interp_leave_behind(struct vcpu *, const struct insn *i);

/* rmw.c: read-modify-write where the fast path fails; see there. */
/* A locked access that the host's kernel would end this process for, or put it to sleep. */
static inline bool splits_lock(const struct vcpu *v, uint64_t lin, unsigned size)
{
	return unlikely((lin & (CACHE_LINE - 1)) + size > CACHE_LINE) && interp_vcpu(v)->splits_trap;
}
typedef uint64_t rmw_fn(struct vcpu *, const struct insn *, uint64_t old);
void interp_rmw_slow(struct vcpu *, const struct insn *, uint64_t lin, unsigned size, rmw_fn *);

/* ---- operands ---- */

static inline uint64_t operand(struct vcpu *v, const struct insn *i, unsigned size, enum access access)
{
	v->current = i;
	return cpu_operand(v, i, size, access);
}
#define LOAD(N)		cpu_load(v, operand(v, i, N / 8, ACCESS_READ), N / 8, i->seg == SS)
#define STORE(N, value) cpu_store(v, operand(v, i, N / 8, ACCESS_WRITE), value, N / 8, i->seg == SS)

/* Write a register: 32-bit writes clear the upper half. */
#define SET8(off, value)  (REG8(v, off) = (uint8_t)(value))
#define SET16(off, value) (REG16(v, off) = (uint16_t)(value))
#define SET32(off, value) (REG64(v, off) = (uint32_t)(value))
#define SET64(off, value) (REG64(v, off) = (uint64_t)(value))

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

/* The host's own instructions, in assembly: suffixes and operand modifiers by the number of bits. */
#define SUFFIX_8   "b"
#define SUFFIX_16  "w"
#define SUFFIX_32  "l"
#define SUFFIX_64  "q"
#define OPERAND_8  "b"
#define OPERAND_16 "w"
#define OPERAND_32 "k"
#define OPERAND_64 "q"
/* Behind one: flags into AX, as vcpu.status wants them. */
#define SAVE_FLAGS "lahf\n\tseto %%al"

/* Handlers by size_index(). */
/* clang-format off */
#define BY_SIZE(name) { name##_8, name##_16, name##_32, name##_64 }
/* clang-format on */
/* Index of an operand size in handler tables: 1, 2, 4, 8 bytes -> 0..3. */
static inline unsigned size_index(unsigned bytes) { return bytes == 8 ? 3 : bytes == 4 ? 2 : bytes == 2 ? 1 : 0; }

#endif
