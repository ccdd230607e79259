/* Private to the translator: blocks, the code cache, what goes on between C and translated code. */
#ifndef DOPPEL_BT_RUNTIME_H
#define DOPPEL_BT_RUNTIME_H

#include "engine/bt/bt.h"
#include "engine/interp/interp.h"

#include <signal.h>

#define BT_CODE_PART 4 /* thirteenths of the cache's size that are for code, the rest is for what is known about it */
#define BT_CACHE_PART                                                                                                  \
	3 /* quarters of what the CPU's code may take are the cache's at most, the rest is the interpreter's */
#define BT_CACHE_PART_OF 4
#define BT_HASH_BITS	 16
#define BT_PAGE_BITS	 12
#define BT_JUMP_BITS	 12
#define BT_JUMP_TABLES	 24
#define BT_JUMP_GUESSES	 64
#define BT_JUMP_NOTED	 256u
#define BT_CODE_PAGES	 4096	    /* slots of a hash table */
#define BT_MAX_BLOCKS	 (1u << 21) /* what an exit argument can name: option `blocks` has at most that */
#define BT_FORCED	 4096	    /* instructions that are better done in C: slots of a hash table */

#define BT_SPACES	 64 /* address spaces whose age is known */
#define BT_SPACE_ENTRIES 4
#define BT_TICK_NS	 4000000 /* of the vCPU thread's CPU time */
#define BT_YOUNG_TICKS	 2	 /* this many found in its user code make an address space grown up */

/* Why translated code came back: exit_arg = block index << 10 | instruction << 4 | this. */
enum bt_exit_kind {
	BT_EXIT_LINK0, /* direct exit 0 of the block, not linked yet */
	BT_EXIT_LINK1,
	BT_EXIT_LOOKUP0, /* direct exit 0 to another page: not in the jump table */
	BT_EXIT_LOOKUP1,
	BT_EXIT_INDIRECT, /* computed target not in the jump table; or the budget does not suffice for the block at the target */
	BT_EXIT_CALLOUT, /* the instruction is C's business */
	BT_EXIT_FAULT,	 /* the instruction's host code faulted (set by the signal handler) */
	BT_EXIT_FAULT_WRITE,
	BT_EXIT_TLB_READ, /* the TLB does not have the address in bt_frame.target */
	BT_EXIT_TLB_WRITE,
	BT_EXIT_GONE,	 /* a look-up led to a block that was invalidated */
	BT_EXIT_STRING,	 /* a kick came in the middle of a string instruction, which goes on later */
	BT_EXIT_DONE,	 /* fast.c did the instruction; s.rip is the next one */
	BT_EXIT_RAISED,	 /* and this one raised v->fault */
	BT_EXIT_ILLEGAL, /* the host's processor does not know it (the signal handler) */
};
#define BT_EXIT_ARG(block, insn, kind) ((block) << 10 | (insn) << 4 | (kind))
static inline uint32_t bt_exit_block(uint64_t arg) { return (uint32_t)(arg >> 10); }
static inline unsigned bt_exit_insn(uint64_t arg) { return (arg >> 4) & 63; }
static inline enum bt_exit_kind bt_exit_kind(uint64_t arg) { return arg & 15; }

struct bt_block;

struct bt_link {
	struct list node; /* in to->incoming while linked */
	struct bt_block *from, *to;
	uint64_t target; /* as bt_block.rip */
	uint8_t *rel32;	 /* in the jump; writable view */
	uint32_t stub;	 /* code offset to which it jumps when not linked */
	bool other_page; /* rests on more than the translation of its own page, or may do */
};

struct bt_insn {
	uint16_t host;	    /* offset of its host code from the block's */
	uint16_t guest;	    /* offset of its bytes */
	uint16_t fop;	    /* of an x87 instruction */
	int8_t window_base; /* register whose window R11 holds there, -1 none */
	uint8_t len;
	uint8_t string_pointers : 3; /* BT_STRING_*; 0: no string instruction */
	uint8_t string_at;	     /* how far behind its host code's start that is itself */
	uint8_t align;		     /* bytes of alignment that its memory operand must have */
	uint8_t faults;		     /* times it went to C by a fault; saturates at BT_FAULTS_FORCED */
	uint32_t single;	     /* bt_single_of(): where the interpreter's form is, 0: it was not needed yet */
};
#define BT_FAULTS_FORCED 8
#define BT_MAX_LINKS	 2

struct bt_block {
	struct bt_block *hash_next;
	struct bt_block *page_next[2]; /* blocks of the same physical page */
	uint64_t gpa, gpa2;	       /* first byte's; second page's if it crosses */
	uint64_t rip; /* see bt_address(); BT_KEY_ANYWHERE: relative to its page, as the links' targets are */
	uint32_t key;
	uint32_t code_limit; /* see bt_code_limit() */
	uint32_t index;
	uint32_t code, code_size; /* offsets in the cache */
	uint16_t inner_entry;	  /* for those who know that bt_frame.code_base is right: offset from its code */
	uint8_t count, link_count;
	bool dead; /* the guest's code changed; not in any table any more */
	bool crosses;
	struct {
		uint16_t restart, end; /* offsets from its code; 0: none */
	} lookups[2];
	const struct mem_page *page[2];
	uint32_t gen[2];
	struct code_page *home; /* of its first byte */
	uint64_t second_space;	/* crosses: for which its second page's translation was found last */
	struct list home_node;
	struct list incoming;
	struct bt_link *links; /* link_count of them, behind the instructions */
	struct bt_insn insns[];
};

/* The blocks that begin in one page of linear addresses in one physical page, in user mode or not: see link.c. */
struct code_page {
	struct code_page *hash_next;
	uint64_t gpa, lin; /* BT_ANYWHERE: may be at any linear address */
	uint64_t space;	   /* for which its links to other pages are; see bt_fetched_space() */
	bool user;
	bool shared; /* by address spaces: it has no such links */
	struct list blocks;
};

struct jump_target {
	uint64_t nkey; /* the negated address: compared by adding, see emit_branch.c */
	uint64_t code;
};

/* Address, as bt_address() says, -> code in one address space and mode. */
struct jump_table {
	_Alignas(64) struct jump_target to[1u << BT_JUMP_BITS];
	struct bt_block *block[1u << BT_JUMP_BITS];
	/* Which entries were put in since it was empty; more than BT_JUMP_NOTED: some others, too. */
	uint16_t noted[BT_JUMP_NOTED];
	unsigned inserted;
};

/* What a jump table is for: beside each other, since they are searched. */
struct jump_use {
	uint64_t space; /* as bt_fetched_space() */
	uint32_t key, code_limit;
	uint64_t used; /* for choosing which to reuse */
};

/* (field, what it counts) */
/* clang-format off */
#define BT_COUNTERS(_)                                                                                                 \
	_(translated, "blocks translated") _(guest_insns, "of guest instructions") _(guest_bytes, "of guest bytes")    \
	_(code_bytes, "to host bytes") _(invalidated, "blocks forgotten: code changed, or retranslated")               \
	_(forced, "instructions retranslated: they faulted again and again")                                           \
	_(grown, "address spaces retranslated: for windows") _(flushes, "whole code cache forgotten")                  \
	_(links, "links made") _(unlinked, "links undone") _(enters, "translated code entered from C")                 \
	_(tlb_misses, "TLB misses of translated code") _(fast, "system instructions done at once")                     \
	_(faults, "host faults in translated code")
/* What such a fault turned out to be. */
#define BT_FAULT_CAUSES(_)                                                                                             \
	_(FILLED, "filled a window") _(PAGE_FAULT, "guest's page fault") _(EXCEPTION, "guest's other exception")       \
	_(DEVICE, "device memory") _(CODE, "write to code") _(OTHER, "other: not for a window")
/* clang-format on */

enum bt_fault_cause {
#define _(name, what) BT_FAULT_##name,
	BT_FAULT_CAUSES(_)
#undef _
		BT_FAULT_CAUSE_COUNT
};

struct bt_stats {
#define _(field, what) uint64_t field;
	BT_COUNTERS(_)
#undef _
	uint64_t causes[BT_FAULT_CAUSE_COUNT];
	uint64_t callouts[OP_COUNT];
	uint64_t fault_ops[OP_COUNT];
	/* An instruction is being done in C because it faulted; what the vCPU had counted before. */
	bool in_fault;
	uint64_t device_accesses, code_writes;
};

/*
 * How long an address space's user code has run: see young.c. A space is known by its CR3, until its tables are no more what they
 * were.
 */
struct bt_space {
	uint64_t key;			    /* the part of CR3 that is an address */
	uint64_t entries[BT_SPACE_ENTRIES]; /* of user addresses, in young.c's order; 0: none */
	uint16_t slots[BT_SPACE_ENTRIES];
	uint8_t ticks; /* saturates at BT_YOUNG_TICKS: grown up */
	bool ages;     /* without paging none is young */
};

/* limits.c: what limits are compared with, and the segments that bt_vcpu.frame has the limits of. */
struct bt_limits {
	uint64_t boundary;
	uint32_t limit[6];
	uint16_t attr[SEG_COUNT], idtr_limit;
	bool protected, known;
};

struct bt_cpu {
	struct bt_windows *windows;
	/* Bytes of translated code and about blocks: when either is used up, all is forgotten. */
	size_t code_size, meta_size;
	struct host_code cache;
	size_t code_used;
	uint8_t *meta;
	size_t meta_used;
	struct bt_block *hash[1u << BT_HASH_BITS];
	struct bt_block *pages[1u << BT_PAGE_BITS]; /* by physical page */
	struct code_page *homes[BT_CODE_PAGES];
	struct bt_block **blocks; /* by index, which is also the order of code */
	uint32_t block_count;
	struct jump_table *tables, *nothing; /* BT_JUMP_TABLES of them; one in which nothing is found */
	struct jump_use uses[BT_JUMP_TABLES];
	unsigned jump;			  /* the current table's number */
	uint8_t guesses[BT_JUMP_GUESSES]; /* where each use's table probably is, by a hash */
	uint64_t table_clock;
	uint64_t local_code; /* vcpu.global_space in which supervisor code was found in pages that are not global */
	uint64_t forced[BT_FORCED];	   /* physical addresses of instructions, 0 empty */
	struct tlb_lookup *tlb_lookups[2]; /* for 64-bit code, for other */
	struct {
		uint64_t insn, page[2]; /* where the TLB was missed last, and the pages, last first */
	} missed;
	struct bt_space spaces[BT_SPACES];
	struct bt_space *space; /* current */

	const struct bt_glue *glues[2], *glue; /* for 64-bit code, for other; for what is entered next */
	uint64_t gs_base;		       /* of this thread now */
	bool has_wrgsbase;		       /* Linux lets processes use it */
	struct bt_limits limits;
	/* the interpreter's hook, which this engine's stands in front of */
	struct engine_options options;
	bool stepping;	  /* one instruction is run for EVENT_STEP */
	bool got_on;	  /* run() has executed something: EVENT_EXCLUSIVE may end it */
	bool tlb_changed; /* the slot table must be asked for again */
	bool narrow;	  /* slot_table.narrow */
	uint8_t last_view;
	uint64_t view_r15[TLB_VIEWS]; /* bt_vcpu.slot_r15 of each view, while the TLB has not changed; 0: not known */
	struct bt_link *pending;      /* link this to the block that comes next */
	/*
	 * Virtual time: instructions are counted as the interpreter counts them. A block begins by taking its instructions from the
	 * budget; what C is asked to do instead is given back first (bt.c). Otherwise nobody counts.
	 */
	bool counting;
	bool single;	      /* C runs one instruction: */
	int64_t saved_budget; /* what it was before that */
	int resumed; /* instructions charged for translated code that is about to be entered again in the middle of a block */
	uint32_t code_epoch; /* counts flushes of the cache */

	/*
	 * Kicks, from any thread: BT_RUNS while the vCPU is in run_translated(), BT_KICKED when a signal is on its way, or came, that the loop
	 * there has not seen yet: then no other is sent.
	 */
	_Atomic uint32_t kick;
	pid_t process, thread_id;

	/* shared with the signal handlers of this thread */
	volatile sig_atomic_t kicked;
	volatile sig_atomic_t ticked; /* the timer found translated code of a young address space running */
	timer_t timer;
	bool timed;			    /* there is the timer */
	uint64_t fault_at;		    /* host address of the access that BT_EXIT_FAULT is about; 0: it was none */
	struct bt_block *volatile entering; /* block that C is about to enter, or has entered: bt_resume_at() says it */
	pthread_t thread;
	bool thread_known;
	uint8_t *signal_stack;

	struct bt_stats stats;
};

/* Take so many instructions from the budget, if somebody counts; below 0: give them back. */
static inline void bt_charge(struct vcpu *v, int instructions)
{
	if (bt_of(v)->counting)
		v->budget -= instructions;
}

/* glue.c, and glue32.c for 16- and 32-bit code */
struct bt_glue {
	void (*enter)(struct vcpu *); /* returns when translated code leaves through the exit */
	void (*exit)(void);
	void (*miss)(void);   /* a look-up in the jump table failed */
	void (*fast)(void);   /* to bt_fast(): the vector registers stay where they are */
	void (*reload)(void); /* and back, perhaps into code of the other kind */
};
extern const struct bt_glue bt_glue_avx, bt_glue_sse, bt_glue32_avx, bt_glue32_sse;

/* Is what was just translated what the bytes still say? From then on it is told when they change (bt_invalidate_bytes()). */
static inline bool bt_is_fresh(const struct bt_block *b)
{
	return atomic_load(&b->page[0]->code_gen) == b->gen[0] &&
	       (!b->crosses || atomic_load(&b->page[1]->code_gen) == b->gen[1]);
}

/* emit_branch.c */
/* Leave to C with this argument. */
void emit_leave(struct emitter *, uint32_t arg);
/* To bt_fast(). */
void emit_fast(struct emitter *, uint32_t arg);
/*
 * Go on at the linear address in R10, or at a constant one; leave with `arg` when it is not in the jump table. Returns from where on
 * the look-up can be begun again.
 */
uint8_t *emit_lookup(struct emitter *, uint32_t arg);
uint8_t *emit_lookup_constant(struct emitter *, uint64_t target, uint32_t arg);
/* Where a look-up leads to in a block that may be anywhere: R10 is its linear address, `offset` of which is in its page. */
void emit_note_code_base(struct emitter *, unsigned offset);

/* mode.c */
uint32_t bt_key(const struct vcpu *);
/* Any but 16-bit code whose EIP has more than 16 bits. */
bool bt_is_translated_mode(const struct vcpu *);
/* What code of the current mode is entered and left by, and GS base for it. False: that takes a system call: bt_set_gs_base(). */
bool bt_choose_glue(struct vcpu *);
static inline uint64_t bt_wanted_gs_base(const struct vcpu *v)
{
	const int64_t *slot0 = (const int64_t *)(uintptr_t)(bt_vcpu(v)->slot_r15 - SLOT_SHIFT);

	return v->code_mode == MODE_64 ? (uint64_t)(uintptr_t)v : (uint64_t)__atomic_load_n(slot0, __ATOMIC_ACQUIRE);
}

/*
 * Addresses of code, as blocks, links and jump tables know them: in 64-bit code linear; in other code EIP, and the base of CS in the
 * upper half.
 */
static inline uint64_t bt_address(const struct vcpu *v)
{
	return v->code_mode == MODE_64 ? v->s.rip : v->s.seg_base[CS] << 32 | (uint32_t)v->s.rip;
}
static inline uint64_t bt_rip(const struct vcpu *v, uint64_t address)
{
	return v->code_mode == MODE_64 ? address : (uint32_t)address;
}
static inline uint64_t bt_linear(const struct vcpu *v, uint64_t address)
{
	return v->code_mode == MODE_64 ? address : (uint32_t)(address + (address >> 32));
}
/* What blocks depend on besides their address and key: where direct branches and the block itself have to end. */
static inline uint32_t bt_code_limit(const struct vcpu *v)
{
	return v->code_mode == MODE_64 ? UINT32_MAX : v->s.seg_limit[CS];
}
/* Far transfers of translated code (emit_real.c) change CS, and leave this to C, which calls this first. */
static inline void bt_note_code_segment(struct vcpu *v)
{
	if (v->code_mode != MODE_64)
		v->mode_key = (v->mode_key & ~(uint32_t)MODE_KEY_BASE_0) | (v->s.seg_base[CS] ? 0 : MODE_KEY_BASE_0);
}

/* limits.c */
/* Of the segments as they are now. Before 16- or 32-bit code is entered. */
void bt_limits_update(struct vcpu *);

/* code.c: the cache of blocks */
int bt_code_create(struct vcpu *, struct error *);
void bt_code_destroy(struct vcpu *);
void bt_code_flush(struct vcpu *);
/* What blocks depend on besides their address: vcpu.mode_key, and which floating-point units may be used as they are. */
#define BT_KEY_MODE   (MODE_KEY_BASE_0 - 1) /* vcpu.mode_key, but for what blocks have of CS themselves */
#define BT_KEY_USER   (1u << 2)		    /* of that: CPL is 3 */
#define BT_KEY_X87    (1u << 16)
#define BT_KEY_SSE    (1u << 17)
#define BT_KEY_AVX    (1u << 18)
#define BT_KEY_DF     (1u << 15) /* RFLAGS.DF; vcpu.mode_key has fewer bits */
#define BT_KEY_NO_TSC (1u << 30) /* CR4.TSD: RDTSC faults */
#define BT_KEY_TLB    (1u << 19) /* guest memory by the TLB, not by windows */
/* In 16- and 32-bit code: segments ES to GS, ES to GS, ES to DS; see struct emitter. */
#define BT_KEY_WIDE_SHIFT  9
#define BT_KEY_PLAIN_SHIFT 20
#define BT_KEY_BASED_SHIFT 26
/*
 * Code of young address spaces, most of which is shared by many at different addresses, may be at any linear address. Not near the
 * end of the lower half, so that direct branches lead to canonical addresses.
 */
#define BT_KEY_ANYWHERE	  (1u << 31)
#define BT_ANYWHERE_LIMIT (BIT(47) - BIT(32))
#define BT_ANYWHERE	  1 /* in place of a page's linear address */
static inline bool bt_is_code32(uint32_t key) { return (key & 3) != MODE_64; }
/* Of 16- and 32-bit code: in real-address or virtual-8086 mode, where a segment's base is its selector times 16. */
static inline bool bt_is_real(uint32_t key) { return bt_is_code32(key) && !(key & MODE_KEY_PROTECTED); }
struct bt_block *bt_find(struct vcpu *, uint64_t gpa, uint64_t rip, uint32_t key);
/* The block that contains this exec address, or NULL. Async-signal-safe. */
struct bt_block *bt_block_at(struct bt_cpu *, uint64_t exec);
/* NULL when full. What is then left has still room for one interpreter's form of an instruction, unless that was taken since. */
void *bt_meta_alloc(struct bt_cpu *, size_t);
#define BT_SINGLE_SIZE align_up(sizeof(struct block) + 2 * sizeof(struct insn), 16)
bool bt_has_reserve(const struct bt_cpu *);
/* Room for an instruction's interpreter's form, also in the reserve; NULL when full. */
struct block *bt_single_alloc(struct bt_cpu *, struct bt_insn *);
/* What was allocated last ends here. */
void bt_meta_trim(struct bt_cpu *, const void *end);
/* The interpreter's form of an instruction, maybe without its host stub (interp_single_is_whole()); NULL when it has none yet. */
static inline struct block *bt_single_of(const struct bt_cpu *bt, const struct bt_insn *record)
{
	return record->single ? (struct block *)(bt->meta + record->single) : NULL;
}
void bt_insert(struct vcpu *, struct bt_block *);
/* Forgets what was translated from these bytes of one page; as vcpu_hooks.code_written. */
uint64_t bt_invalidate_bytes(struct vcpu *, uint64_t gpa, size_t len, bool *hit);
void bt_invalidate_block(struct vcpu *, struct bt_block *);
struct jump_table *bt_jump_table(struct vcpu *, uint32_t key);
struct bt_block *bt_jump_find(struct jump_table *, uint64_t rip);
void bt_jump_insert(struct vcpu *, struct jump_table *, uint64_t rip, struct bt_block *);
bool bt_is_forced(const struct bt_cpu *, uint64_t gpa);
void bt_force(struct bt_cpu *, uint64_t gpa);

static inline uint64_t bt_exec(const struct bt_cpu *bt, const struct bt_block *b)
{
	return (uint64_t)(uintptr_t)bt->cache.exec + b->code;
}
/* RIP at the start of a block that runs, or is about to. */
static inline uint64_t bt_block_rip(const struct vcpu *v, const struct bt_block *b)
{
	if (bt_is_code32(b->key))
		return (uint32_t)b->rip;
	return b->rip + (b->key & BT_KEY_ANYWHERE ? bt_frame(v)->code_base : 0);
}
/* Address of a link's target. */
static inline uint64_t bt_link_target(const struct vcpu *v, const struct bt_link *l)
{
	return l->target + (l->from->key & BT_KEY_ANYWHERE ? bt_frame(v)->code_base : 0);
}
/* Translated code is to be entered in b, at this offset from its code. */
static inline void bt_resume_at(struct vcpu *v, struct bt_block *b, uint32_t offset)
{
	bt_frame(v)->resume = bt_exec(bt_of(v), b) + offset;
	bt_of(v)->entering = b;
}
/* The same at its start, which is at s.rip. */
static inline void bt_enter_at(struct vcpu *v, struct bt_block *b)
{
	bt_frame(v)->code_base = v->s.rip & PAGE_MASK;
	bt_resume_at(v, b, b->inner_entry);
}
/* As emitted code computes it. */
static inline unsigned bt_jump_index(uint64_t address)
{
	uint64_t crc = 0;

	__asm__("crc32q %1, %0" : "+r"(crc) : "r"(address));
	return (unsigned)(crc >> (32 - BT_JUMP_BITS));
}
/* What bt_frame.jump holds: the table's address, plus the count that index bits are shifted by. */
static inline uint64_t bt_jump_pointer(const struct jump_table *t)
{
	return (uint64_t)(uintptr_t)t->to + (32 - BT_JUMP_BITS);
}
/*
 * The key of an entry with nothing in it: that of an address which is never looked up there, so that it matches nothing, whatever the
 * guest jumps to. Address 0 is looked up in entry 0, address 1 elsewhere.
 */
static inline uint64_t bt_jump_empty(unsigned n) { return n ? -(uint64_t)0 : -(uint64_t)1; }

/* young.c */
/* After CR3 may have changed. */
void bt_space_enter(struct vcpu *);
/* The timer found user code of the current space running. */
void bt_space_tick(struct vcpu *);
enum bt_tlb_use { BT_TLB_LITTLE, BT_TLB_YOUNG, BT_TLB_ALL }; /* engine option tlb */
static inline bool bt_space_is_young(const struct bt_cpu *bt)
{
	return bt->timed && bt->options.tlb != BT_TLB_LITTLE && bt->space->ages && bt->space->ticks < BT_YOUNG_TICKS;
}

/* fast.c */
/* Is it worth asking bt_fast()? */
bool bt_is_fast(const struct insn *);
/* The same for one that ends its block: does what follows come next, in the mode that it was? Mostly; else bt_fast() finds out. */
bool bt_is_fast_and_falls_through(const struct insn *);
/*
 * Called by the glue for bt_frame.exit_arg: a system instruction, a computed target, an address that the TLB does not have. True: translated code goes on at bt_frame.resume. False: bt.c must see to
 * bt_frame.exit_arg.
 */
bool bt_fast(struct vcpu *);

/* link.c */
/* All global translations of the upper half, as one address space. */
static inline uint64_t bt_global_space(const struct vcpu *v) { return v->global_space | BIT(63); }
/* The address space of what cpu_fetch_translate() returned last: vcpu.address_space or bt_global_space(). */
uint64_t bt_fetched_space(const struct vcpu *);
/* C has just fetched from this page: its links are from now on those of that address space. NULL: no room. */
struct code_page *bt_enter_page(struct vcpu *, uint64_t gpa, uint64_t lin);
/* Link to a block just found, if the link leads there and would hold. */
void bt_link(struct vcpu *, struct bt_link *, struct bt_block *to);
void bt_unlink(struct vcpu *, struct bt_link *);
/* Point a block's direct exits at its stubs, so that it comes back to C. Async-signal-safe for the thread that runs it. */
void bt_unlink_exits(struct vcpu *, struct bt_block *);

/* translate.c: the block at s.rip, in this page; NULL: no room. Raises what fetching raises. */
struct bt_block *bt_translate(struct vcpu *, struct code_page *);

/* report.c */
void bt_report_block(struct vcpu *, const struct bt_block *, const struct block *decoded);
void bt_stats_print(struct vcpu *, FILE *);
/* Around an instruction that C does because it faulted: to find out why. The end is looked for whenever C may have raised, too. */
void bt_fault_begins(struct vcpu *);
void bt_fault_ends(struct vcpu *, bool raised);

/* signal.c */
int bt_signals_probe(struct error *);
int bt_signals_install(struct error *);
int bt_signals_create(struct vcpu *, struct error *);
/* In the vCPU's thread, before translated code runs. */
void bt_signals_enter(struct vcpu *);
void bt_signals_leave(struct vcpu *);
void bt_signals_destroy(struct vcpu *);
void bt_signals_kick(struct vcpu *);
#define BT_RUNS	  1u
#define BT_KICKED 2u
/*
 * In the loop, when bt->kicked is 0 and before it looks at events: a kick from here on sends a signal again. In this order: whoever finds
 * BT_KICKED set while translated code runs knows that a signal is still to come, or has come since and made bt->kicked 1.
 */
static inline void bt_signals_seen(struct bt_cpu *bt)
{
	if (atomic_load_explicit(&bt->kick, memory_order_relaxed) & BT_KICKED)
		atomic_exchange(&bt->kick, BT_RUNS);
}
/* GS base of this thread, for translated code. */
void bt_set_gs_base(struct vcpu *, uint64_t);

#endif
