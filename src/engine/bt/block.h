/*
 * Private to the translator: blocks of translated code, how they are found and lead to each other.
 */
#ifndef DOPPEL_BT_BLOCK_H
#define DOPPEL_BT_BLOCK_H

#include "engine/bt/bt.h"
#include "engine/interp/interp.h"

#define BT_CODE_PART 5 /* thirteenths of the cache's size that are for code, the rest is for what is known about it */
#define BT_CACHE_PART                                                                                                  \
	3 /* quarters of what the CPU's code may take are the cache's at most, the rest is the interpreter's */
#define BT_CACHE_PART_OF 4
#define BT_HASH_BITS	 16 /* of the smallest table of blocks */
#define BT_PAGE_BITS	 12
#define BT_JUMP_BITS	 15
#define BT_JUMP_TABLES	 16
#define BT_TABLES_PART	 4 /* the tables take at most one part in so many of what the cache may take */
#define BT_JUMP_GUESSES	 64
#define BT_JUMP_NOTED	 2048u
#define BT_CODE_PAGES	 32768	    /* slots of a hash table */
#define BT_MAX_BLOCKS	 (1u << 21) /* what an exit argument can name: option `blocks` has at most that */
#define BT_FORCED	 4096	    /* instructions that are better done in C: slots of a hash table */

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

/*
 * Records are many: they name each other by where they are in bt_cpu.meta, in units of BT_REF_UNIT. 0: none.
 */
typedef uint32_t bt_ref;
#define BT_REF_UNIT 8u

struct bt_link {
	uint64_t target;       /* as bt_block.rip */
	bt_ref from, to;       /* blocks; to: while linked */
	bt_ref next, previous; /* links to the same block */
	uint32_t
		rel32 : 30; /* code offset of the jump's distance; 0: there is no jump, the stub, a look-up, is where it would be */
	uint32_t conditional : 1; /* the jump is a Jcc */
	uint32_t
		last : 1; /* the jump, of BT_LINK_JUMP bytes, ends the block's code: it goes when `to` comes right behind */
	uint32_t stub : 31;	 /* code offset to which it jumps when not linked */
	uint32_t other_page : 1; /* rests on more than the translation of its own page, or may do */
};
#define BT_LINK_JUMP 6
#define BT_REL32_MAX (BIT(30) - 1)

struct bt_insn {
	uint64_t host : 16;  /* offset of its host code from the block's */
	uint64_t guest : 10; /* offset of its bytes */
	uint64_t len : 4;
	uint64_t r11 : 5,
		r10 : 5; /* what these lead to there: 1 + register whose window that is, 0: nothing, BT_WINDOW_SUM */
	uint64_t align_shift : 3; /* alignment that its memory operand must have */
	uint64_t faults : 4;	  /* times it went to C by a fault, BT_FAULTS_FORCED at most */
	uint64_t
		is_string : 1; /* `more` is BT_STRING_* and, above, how far behind its host code's start is itself; else FOP (x87) */
	uint64_t more : 11;
};
#define BT_FAULTS_FORCED 8
#define BT_WINDOW_SUM	 31 /* C cannot make that again */
#define BT_MAX_LINKS	 2
static inline unsigned bt_string_pointers(const struct bt_insn *i) { return i->is_string ? i->more & 7 : 0; }
static inline unsigned bt_string_at(const struct bt_insn *i) { return i->more >> 3; }

/* Behind its instructions there is a struct bt_second if it crosses into a second page, then its links. */
struct bt_block {
	uint64_t gpa; /* first byte's */
	uint64_t rip; /* see bt_address(); BT_KEY_ANYWHERE: relative to its page, as the links' targets are */
	uint32_t key;
	uint32_t code_limit; /* see bt_code_limit() */
	uint32_t index;
	uint32_t code;	  /* offset in the cache */
	uint32_t cold;	  /* of what seldom runs; it ends where that of the block before begins */
	bt_ref page_next; /* blocks of the same physical page */
	bt_ref home;	  /* struct code_page of its first byte */
	bt_ref home_next; /* of the blocks of that */
	bt_ref incoming;  /* links that lead here */
	bt_ref singles;	  /* interpreter's forms of its instructions */
	struct {
		uint16_t restart, end; /* offsets from its code; 0: none */
	} lookups[2];
	uint16_t code_size;
	uint16_t count : 7, link_count : 2;
	uint16_t inner_entry : 5; /* for those who know that bt_frame.code_base is right: offset from its code */
	uint16_t crosses : 1;
	uint16_t dead : 1;  /* the guest's code changed; not in any table any more */
	uint8_t loop_entry; /* for its own link, offset from its code: behind what a loop keeps (emit_loop.c); 0: none */
	struct bt_insn insns[]; /* `count`, and one for what follows */
};

/* Of a block that crosses. */
struct bt_second {
	uint64_t gpa;
	uint64_t space; /* for which its translation was found last */
	bt_ref page_next;
};

/* An interpreter's form of an instruction, and of which. The form is behind it. */
struct bt_single {
	bt_ref next;
	uint32_t insn;
	uint64_t unused;
};

/* The blocks that begin in one page of linear addresses in one physical page, in user mode or not: see link.c. */
struct code_page {
	bt_ref hash_next;
	bt_ref blocks;	   /* some may be dead */
	uint64_t gpa, lin; /* BT_ANYWHERE: may be at any linear address */
	uint64_t space;	   /* for which its links to other pages are; see bt_fetched_space() */
	bool user;
	bool shared; /* by address spaces: it has no such links */
};

/* Where a block is by its addresses and key. Open addressing: beside each other, so that a look is into one cache line mostly. */
struct block_slot {
	uint32_t tag; /* upper bits: the place where the search begins */
	bt_ref block; /* 0: empty */
};

struct jump_target {
	uint64_t nkey; /* the negated address: compared by adding, see emit_branch.c */
	uint64_t code;
};

/* Address, as bt_address() says, -> code in one address space and mode. */
struct jump_table {
	_Alignas(64) struct jump_target to[1u << BT_JUMP_BITS];
	bt_ref block[1u << BT_JUMP_BITS];
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

/* ---- addresses ---- */

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

/* ---- code.c: the cache of blocks ---- */

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
 * User code that is mostly shared by many address spaces at different addresses may be at any linear address: until its space is old, and
 * of programs that are linked for their addresses only while it is young. Not near the end of the lower half, so that direct branches lead
 * to canonical addresses.
 */
#define BT_KEY_ANYWHERE	  (1u << 31)
#define BT_ANYWHERE_START BIT(32)
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
#define BT_SINGLE_SIZE align_up(sizeof(struct bt_single) + sizeof(struct block) + 2 * sizeof(struct insn), 16)
bool bt_has_reserve(const struct bt_cpu *);
/* The interpreter's form of instruction n, maybe without its host stub (interp_single_is_whole()); NULL when it has none yet. */
struct block *bt_single_of(const struct bt_cpu *, const struct bt_block *, unsigned n);
/* Room for one, also in the reserve; NULL when full. */
struct block *bt_single_alloc(struct bt_cpu *, struct bt_block *, unsigned n);
/* Is there place for one more block in the table of blocks? */
bool bt_make_place(struct bt_cpu *);
/* What was allocated last ends here. */
void bt_meta_trim(struct bt_cpu *, const void *end);
void bt_insert(struct vcpu *, struct bt_block *);
/* Forgets what was translated from these bytes of one page; as vcpu_hooks.code_written. */
uint64_t bt_invalidate_bytes(struct vcpu *, uint64_t gpa, size_t len, bool *hit);
void bt_invalidate_block(struct vcpu *, struct bt_block *);
struct jump_table *bt_jump_table(struct vcpu *, uint32_t key);
struct bt_block *bt_jump_find(const struct bt_cpu *, const struct jump_table *, uint64_t rip);
void bt_jump_insert(struct vcpu *, struct jump_table *, uint64_t rip, struct bt_block *);
/* Nothing is found any more by computed jumps of user code in the current address space, until C has been asked. */
void bt_jump_forget_user(struct vcpu *);
bool bt_is_forced(const struct bt_cpu *, uint64_t gpa);
void bt_force(struct bt_cpu *, uint64_t gpa);

/* RIP at the start of a block that runs, or is about to. */
static inline uint64_t bt_block_rip(const struct vcpu *v, const struct bt_block *b)
{
	if (bt_is_code32(b->key))
		return (uint32_t)b->rip;
	return b->rip + (b->key & BT_KEY_ANYWHERE ? bt_frame(v)->code_base : 0);
}
/* Address of the target of one of its links. */
static inline uint64_t bt_link_target(const struct vcpu *v, const struct bt_block *b, const struct bt_link *l)
{
	return l->target + (b->key & BT_KEY_ANYWHERE ? bt_frame(v)->code_base : 0);
}
static inline struct bt_second *bt_second(const struct bt_block *b)
{
	return (struct bt_second *)(uintptr_t)&b->insns[b->count + 1];
}
static inline struct bt_link *bt_links(const struct bt_block *b)
{
	return b->crosses ? (struct bt_link *)(bt_second(b) + 1) : (struct bt_link *)bt_second(b);
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

/* ---- link.c, translate.c ---- */

/* All global translations of the upper half, as one address space. */
static inline uint64_t bt_global_space(const struct vcpu *v) { return v->global_space | BIT(63); }
/* The address space of what cpu_fetch_translate() returned last: vcpu.address_space or bt_global_space(). */
uint64_t bt_fetched_space(const struct vcpu *);
/* C has just fetched from this page: its links are from now on those of that address space. NULL: no room. */
struct code_page *bt_enter_page(struct vcpu *, uint64_t gpa, uint64_t lin);
/* Where links between the blocks lead: code offset. */
static inline uint32_t bt_link_entry(const struct bt_block *from, const struct bt_block *to)
{
	return to->code + (from == to && to->loop_entry ? to->loop_entry : to->inner_entry);
}
/* Link to a block just found, if the link leads there and would hold. */
void bt_link(struct vcpu *, struct bt_link *, struct bt_block *to);
void bt_unlink(struct vcpu *, struct bt_link *);
/* Point a block's direct exits at its stubs, so that it comes back to C. Async-signal-safe for the thread that runs it. */
void bt_unlink_exits(struct vcpu *, struct bt_block *);

/* translate.c: the block at s.rip, in this page; NULL: no room. Raises what fetching raises. */
struct bt_block *bt_translate(struct vcpu *, struct code_page *);
/* Is what was just translated what the bytes still say? From then on it is told when they change (bt_invalidate_bytes()). */
bool bt_is_fresh(const struct vcpu *);

#endif
