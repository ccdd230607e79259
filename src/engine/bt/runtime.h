/* Private to the translator: what it knows of a vCPU, and what goes on between C and translated code. */
#ifndef DOPPEL_BT_RUNTIME_H
#define DOPPEL_BT_RUNTIME_H

#include "engine/bt/block.h"

#include <signal.h>

#define BT_SPACES	 64 /* address spaces whose age is known */
#define BT_SPACE_ENTRIES 4
#define BT_TICK_NS	 4000000    /* of the vCPU thread's CPU time */
#define BT_YOUNG_TICKS	 2	    /* this many found in its user code make an address space grown up, */
#define BT_YOUNG_AGAIN	 4	    /* so many times as many when it became young again, */
#define BT_YOUNG_MOST	 64	    /* but not more than this */
#define BT_CHURN_NS	 BT_TICK_NS /* what its windows may take between two of these ticks */
#define BT_OLD_TICKS	 100	    /* and this many old */

/* (field, what it counts) */
/* clang-format off */
#define BT_COUNTERS(_)                                                                                                 \
	_(translated, "blocks translated") _(guest_insns, "of guest instructions") _(guest_bytes, "of guest bytes")    \
	_(code_bytes, "to host bytes") _(invalidated, "blocks forgotten: code changed, or retranslated")               \
	_(forced, "instructions retranslated: they faulted again and again")                                           \
	_(grown, "address spaces retranslated: for windows") _(shed, "address spaces without windows again")           \
	_(aged, "address spaces retranslated: for their addresses") _(flushes, "whole code cache forgotten")                  \
	_(links, "links made") _(unlinked, "links undone") _(enters, "translated code entered from C")                 \
	_(found, "look-ups past the jump table")                 \
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
	uint8_t ticks;	/* saturates at BT_OLD_TICKS */
	uint8_t needed; /* to be grown up */
	uint64_t churn; /* ns that its windows took since the last tick */
	bool ages;	/* without paging none is young */
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
	size_t code_used; /* code grows up from the cache's start, */
	size_t cold;	  /* what seldom runs down from its end, in the same order of blocks */
	uint8_t *meta;
	size_t meta_used;
	struct block_slot *hash; /* by physical and linear address and key; grows with the blocks */
	unsigned hash_bits;
	uint32_t hash_used;
	bt_ref pages[1u << BT_PAGE_BITS]; /* blocks by physical page */
	bt_ref homes[BT_CODE_PAGES];	  /* pages of code */
	bt_ref *blocks;			  /* by index, which is also the order of code */
	struct {
		const struct mem_page *page[2]; /* NULL: none */
		uint32_t gen[2];
	} decoded; /* what the block translated last was decoded from: bt_is_fresh() */
	uint32_t block_count;
	struct jump_table *tables, *nothing; /* table_count of them; one in which nothing is found */
	unsigned table_count, tables_used;   /* what is behind those used so far was never written */
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
	uint64_t churn_seen;	/* of bt_windows_churn() */

	const struct bt_glue *glues[2], *glue; /* for 64-bit code, for other; for what is entered next */
	uint64_t gs_base;		       /* of this thread now */
	bool has_wrgsbase;		       /* Linux lets processes use it */
	struct bt_limits limits;
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
	 * budget; what C is asked to do instead is given back first (single.c, loop.c). Otherwise nobody counts.
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
	bool timed; /* there is the timer */
	struct {
		int64_t regs[23];	    /* of a signal frame: NGREG */
		unsigned count;		    /* how often running with these was refused */
	} refusal;			    /* signal.c */
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

/* Records by reference, and back. */
static inline void *bt_record(const struct bt_cpu *bt, bt_ref ref)
{
	return ref ? bt->meta + (size_t)ref * BT_REF_UNIT : NULL;
}
static inline bt_ref bt_ref_of(const struct bt_cpu *bt, const void *record)
{
	return (bt_ref)((size_t)((const uint8_t *)record - bt->meta) / BT_REF_UNIT);
}
static inline struct bt_block *bt_block(const struct bt_cpu *bt, uint32_t index)
{
	return bt_record(bt, bt->blocks[index]);
}

static inline uint64_t bt_exec_at(const struct bt_cpu *bt, uint32_t offset)
{
	return (uint64_t)(uintptr_t)bt->cache.exec + offset;
}
static inline uint64_t bt_exec(const struct bt_cpu *bt, const struct bt_block *b) { return bt_exec_at(bt, b->code); }
/* Where look-ups lead: before its code comes what notes bt_frame.code_base, or that is among what seldom runs. */
static inline uint32_t bt_entry(const struct bt_block *b)
{
	return (b->key & BT_KEY_ANYWHERE) && !b->inner_entry ? b->cold : b->code;
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

/* glue.c, and glue32.c for 16- and 32-bit code */
struct bt_glue {
	void (*enter)(struct vcpu *); /* returns when translated code leaves through the exit */
	void (*exit)(void);
	void (*miss)(void);   /* a look-up in the jump table failed */
	void (*fast)(void);   /* to bt_fast(): the vector registers stay where they are */
	void (*reload)(void); /* and back, perhaps into code of the other kind */
};
extern const struct bt_glue bt_glue_avx, bt_glue_sse, bt_glue32_avx, bt_glue32_sse;

/* glue.c, for signal.c: jumped to where the host's kernel does not return to. */
void bt_return(void);
extern char bt_return_end[];
/* signal.c: is this signal's frame (its general registers) one of a return that the kernel refused? True: it has been changed to go on there. */
bool bt_return_was_refused(long long regs[], struct vcpu *);

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

/* limits.c */
/* Of the segments as they are now. Before 16- or 32-bit code is entered. */
void bt_limits_update(struct vcpu *);

/* young.c */
/* After CR3 may have changed. */
void bt_space_enter(struct vcpu *);
/* Behind a flush, and so not in the middle of a block: what keeping its windows up to date has taken is known by now, is it worth them? */
void bt_space_weigh(struct vcpu *);
/* The timer found user code of the current space running. */
void bt_space_tick(struct vcpu *);
enum bt_tlb_use { BT_TLB_LITTLE, BT_TLB_YOUNG, BT_TLB_ALL }; /* engine option tlb */
static inline bool bt_space_is_young(const struct bt_cpu *bt)
{
	return bt->timed && bt->options.tlb != BT_TLB_LITTLE && bt->space->ages && bt->space->ticks < bt->space->needed;
}

/* Where Linux grants no timer all are. */
static inline bool bt_space_is_old(const struct bt_cpu *bt)
{
	return !bt->timed || !bt->space->ages || bt->space->ticks >= BT_OLD_TICKS;
}

/* find.c */
/*
 * The block at s.rip. The one place where all is forgotten while the vCPU runs: nobody has a pointer to a block here, but for the link that waits
 * for what is found, which is told (code_epoch). Afterwards there is room for one interpreter's form, which a single step counts on.
 */
struct bt_block *bt_find_or_translate(struct vcpu *);

/* single.c */
/*
 * Run instruction n of b by the interpreter. True when translated code can go on behind it: resume and r11 are set. Of the block
 * only what is before it has been charged.
 */
bool bt_run_alone(struct vcpu *, struct bt_block *b, unsigned n, enum bt_exit_kind);
/* The same, and what translated code goes on with is charged. */
bool bt_run_single(struct vcpu *, struct bt_block *b, unsigned n, enum bt_exit_kind);
/* It raised: an end to its counting. */
void bt_end_single(struct vcpu *, bool completed);
/* Instruction n of b goes on where it looked into the TLB, or is C's after all: a device, a code page, two pages, misaligned. */
bool bt_fill_tlb(struct vcpu *, struct bt_block *b, unsigned n, bool write);
/*
 * Instruction n of a block once more. The bytes are still what was translated, since writing to them would have invalidated the
 * block; what the guest's tables say of their address now may be something else, until the guest flushes.
 */
void bt_decode_again(struct vcpu *, const struct bt_block *, const struct bt_insn *record, struct insn *);

/* loop.c */
enum exit_kind bt_run(struct vcpu *, struct exit *);

/* fast_insn.c */
/* Is it worth asking bt_fast()? */
bool bt_is_fast(const struct insn *);
/* The same for one that ends its block: does what follows come next, in the mode that it was? Mostly; else bt_fast() finds out. */
bool bt_is_fast_and_falls_through(const struct insn *);
/* Of one that bt_is_fast(): is all that it needs at hand? May raise, as doing it may. */
bool bt_fast_can(struct vcpu *, const struct insn *);
void bt_fast_do(struct vcpu *, const struct insn *);
/* These end no block, but what follows was translated for the other direction. */
static inline bool bt_turns(const struct insn *i) { return i->op == OP_CLD || i->op == OP_STD; }

/* fast.c */
/*
 * Called by the glue for bt_frame.exit_arg: a system instruction, a computed target, an address that the TLB does not have. True: translated
 * code goes on at bt_frame.resume. False: loop.c must see to bt_frame.exit_arg.
 */
bool bt_fast(struct vcpu *);

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
