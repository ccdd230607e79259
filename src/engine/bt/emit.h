/* How translated code is written: an instruction at a time, for translate.c; then what emit*.c share. */
#ifndef DOPPEL_BT_EMIT_H
#define DOPPEL_BT_EMIT_H

#include "engine/bt/bt.h"

/* How translated code reaches guest memory. */
enum memory_way {
	BY_WINDOWS,
	/*
	 * By the software TLB that C uses too (cpu/access.h), in line: slower, but what it misses costs no signal and no host mapping.
	 * For code whose address space is too young to be worth windows, and instructions that windows keep failing.
	 */
	BY_TLB,
};

struct tlb_lookup; /* emit_tlb.c */

/*
 * What a scratch register is known to lead to, R11 by number 0, R10 by number 1.
 * A window: regs are the guest's registers that point into its slot, or less than EMIT_MAX_DRIFT beside it. `base` is one of them: the
 * window can be had from its value again.
 * A sum: base plus its window, for operands base + index << scale.
 */
struct emit_window {
	uint16_t regs; /* bit n: register n; 0: nothing is known */
	bool sum;
	uint8_t base, index, scale;
	uint32_t
		drift; /* the sum of all distances by which these registers (of a sum: its index, scaled) were moved since */
	uint32_t near; /* so far at most they, or the sum, are beside the slot */
};
#define EMIT_WINDOWS 2

/* Where code is written: the writable view; the host runs it at exec. */
struct emitter {
	uint8_t *at, *end; /* end: leave EMIT_SLACK free */
	int64_t to_exec;   /* exec address = at + to_exec */
	bool full;	   /* something did not fit: nothing more was written */
	struct emit_window window[EMIT_WINDOWS];
	struct emit_window loop[EMIT_WINDOWS]; /* what they are at the start of each round of a loop; see emit_loop.c */
	unsigned latest;		       /* of them, the one used last */
	const struct insn
		*later; /* what follows the instruction at hand in its block: looked at for what will be used again */
	const struct insn_host *later_hosts;
	unsigned later_count;
	enum memory_way way;
	const struct tlb_lookup *tlb_lookup; /* for BY_TLB: ready-made code */
	/* The string instruction that was emitted last, and which pointers it moves. */
	uint8_t *string_at;
	uint8_t string_pointers; /* BT_STRING_* */
	uint32_t
		exit_arg; /* BY_TLB: what the code leaves to C with when the TLB has no entry, for reading; + 1: for writing */
	/*
	 * 16- or 32-bit code: emit32.c. Segments are bits by enum seg: those that may be used up to 4 GiB without a look at
	 * limit and rights, those that may be used for reading and writing up to 64 KiB, and those whose base may be other than 0.
	 */
	bool code32;
	uint8_t plain_segments, wide_segments, based_segments;
	bool stack16;	     /* the stack pointer is SP */
	bool real;	     /* real-address or virtual-8086 mode: a segment's base is its selector times 16 */
	bool no_paging;	     /* real-address mode */
	bool down;	     /* RFLAGS.DF */
	uint32_t code_base;  /* of CS */
	uint32_t code_limit; /* of CS, too */
	/* The rel32 of jumps to where C does the instruction at hand, which that ends its block with. */
	uint8_t *slow[3];
	unsigned slow_count;
	/*
	 * The block may be at any linear address. Its addresses of code are relative to the page it begins in, which is in
	 * bt_frame.code_base.
	 */
	bool anywhere;
};
#define BT_STRING_SOURCE      BIT(0) /* RSI, in R10's window */
#define BT_STRING_DESTINATION BIT(1) /* RDI, in R11's window */
#define BT_STRING_16	      BIT(2) /* SI, DI and CX: the rest of their registers is in bt_frame.string_saved and R12 */

/* With a 32-bit displacement and an operand still inside WINDOW_GUARD. */
#define EMIT_MAX_DRIFT (1u << 30)
#define EMIT_SLACK     64
/* Of what a loop keeps, from its slot, at the start of a round. */
#define EMIT_LOOP_DRIFT (1u << 29)
/*
 * Displacements below are the addresses of kernel tables, and the register is the index: they belong to another slot than the
 * register's value, so they are added before the slot is looked up. Others seldom leave the slot; when they do, the access
 * faults in the guard, and the interpreter does it.
 */
#define EMIT_FAR_DISPLACEMENT (-(1 << 20))

/* How emit_insn() dealt with an instruction. */
enum emit_result {
	EMIT_DONE,    /* translated; falls through to what follows */
	EMIT_CALLOUT, /* nothing was emitted: the caller lets C do it */
};

/*
 * Translate one instruction that does not end a block (branches are the caller's, see translate.c) at linear
 * address rip. Everything it emits keeps the invariants at the head of this file at every host instruction that may fault:
 * guest registers (as defined above) have the values they had before the guest instruction, so that it can be restarted.
 */
enum emit_result emit_insn(struct emitter *, const struct insn *, const struct insn_host *, uint64_t rip);

/* Pieces that translate.c uses for branches. Host registers are numbered as the guest's. */
void emit_bytes(struct emitter *, const void *, size_t);
/* mov $imm, offset(state), 32 bits; jmp *offset(state). offset: from the start of struct bt_vcpu. */
void emit_set_state(struct emitter *, uint32_t offset, uint32_t imm);
void emit_jump_state(struct emitter *, uint32_t offset);
/* mov reg, imm: the shortest form. */
void emit_mov_imm(struct emitter *, unsigned reg, uint64_t imm);
/* An address of code, or that of a RIP-relative operand, to reg. */
void emit_code_address(struct emitter *, unsigned reg, uint64_t address);
/* State -> reg, 64 bits; and the other way. */
void emit_load_state(struct emitter *, unsigned reg, uint32_t offset);
void emit_store_state(struct emitter *, unsigned reg, uint32_t offset);
/* RCX - 1, or ECX - 1, without flags; w: 64 bits. */
void emit_count_down(struct emitter *, bool w);
/* lea disp(base) -> reg, 64 bits, no flags. */
void emit_lea(struct emitter *, unsigned reg, unsigned base, int32_t disp);
/* Faults if the register's value is not canonical: reads the slot table. R11 is lost. */
void emit_check_canonical(struct emitter *, unsigned reg);
/* Guest memory at disp(base) -> reg, 64 bits. */
void emit_load_guest(struct emitter *, unsigned reg, unsigned base, int32_t disp);
/* The value to -8(RSP), then RSP - 8. A register may be R10. R10 and R11 are lost. */
void emit_push_register(struct emitter *, unsigned reg);
void emit_push_constant(struct emitter *, uint64_t value);
void emit_push_code_address(struct emitter *, uint64_t address);
/* Return address into R10, then RSP moves behind it and `more` bytes. */
void emit_pop_target(struct emitter *, unsigned more);
/*
 * The value of an instruction's only operand (register or memory, e.g. of an indirect JMP or CALL, or the r/m of
 * PUSH) into R10. EMIT_CALLOUT if it cannot.
 */
enum emit_result emit_operand_r10(struct emitter *, const struct insn *, const struct insn_host *, uint64_t rip);
/* The effective address of the instruction's memory operand of 16- or 32-bit code into R10. */
void emit32_effective_r10(struct emitter *, const struct insn *);
/* A return address of 16- or 32-bit code of `size` bytes onto the stack. R12 is kept. */
void emit32_push_constant(struct emitter *, uint32_t value, unsigned size);
/* One from the stack into R10, compared with the limit of CS; then the stack pointer moves behind it and `more` bytes. */
void emit32_pop_target(struct emitter *, unsigned size, unsigned more);
/* R10 is EIP after a near transfer with operands of this size: compared with the limit of CS. R11 is lost. */
void emit32_check_target(struct emitter *, unsigned opsize);
/* R10 is EIP, and becomes an address of code (bt_address()). R11 is lost. */
void emit32_code_address(struct emitter *);
/* jmp/jcc rel32 to an exec address; returns where the rel32 is (writable view), NULL when full. cc: 0..15 as in the opcode, -1 for jmp */
uint8_t *emit_jump(struct emitter *, int cc, const void *exec_target);

/* Makes the code of the TLB's look-up once for each kind of code; NULL: no memory. Freed with free(). */
struct tlb_lookup *bt_tlb_lookup_create(bool code32);

/* ---- emit_branch.c ---- */

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

/* ---- private to emit*.c: host instructions before they are bytes ---- */

#define HOST_NONE 16 /* no base, no index */

/*
 * A memory operand of the host: disp(base, index << scale). state: the vCPU's, at disp. guest: of 32-bit code; the sum has 32
 * bits, and GS base is added (emit32.c).
 */
struct host_memory_operand {
	uint8_t base, index, scale;
	bool state, guest;
	int32_t disp;
};

/* Which fields of an instruction name general registers. */
#define FIELD_REG  BIT(0) /* ModRM.reg */
#define FIELD_RM   BIT(1) /* ModRM.rm, a register, or the register in the opcode's low bits */
#define FIELD_VVVV BIT(2)

#define PREFIX_66   BIT(0)
#define PREFIX_F2   BIT(1)
#define PREFIX_F3   BIT(2)
#define PREFIX_LOCK BIT(3)

/* An instruction's encoding taken apart: register numbers with their REX or VEX bits, everything else as it was. */
struct encoding {
	uint8_t prefixes; /* PREFIX_*; segments and address size are not kept: addresses are computed before */
	bool vex;
	bool has_rex;		       /* a REX prefix must be there: SPL, BPL, SIL, DIL */
	bool w, l;		       /* REX.W or VEX.W; VEX.L */
	uint8_t map, pp;	       /* VEX.mmmmm, VEX.pp */
	uint8_t opcode[3], opcode_len; /* with the escape bytes unless VEX */
	bool modrm;
	bool memory; /* ModRM names memory */
	uint8_t reg, rm, vvvv;
	uint8_t fields; /* FIELD_* */
	uint8_t imm[8], imm_len;
};

/* The longest instruction: 15 bytes; a new segment prefix and SIB may add to what the guest's had. */
#define ENCODING_MAX 20

/* ---- emit_encode.c ---- */

/*
 * False for what must not be copied: bytes that do not look as the decoder says. code32: bytes of 16- or 32-bit code; what comes
 * out is the same instruction for the host's 64-bit mode.
 */
bool encoding_take(struct encoding *, const struct insn *, const struct insn_host *, bool code32);
/* Writes the instruction with this memory operand in place of its own; NULL: with its registers alone. */
unsigned encoding_write(const struct encoding *, const struct host_memory_operand *, uint8_t bytes[ENCODING_MAX]);

/* ---- emit.c: small pieces. None of them writes flags. ---- */

void emit_encoding(struct emitter *, const struct encoding *, const struct host_memory_operand *);
/* One-byte opcode with ModRM: opcode reg, memory; w: 64 bits. */
void emit_op(struct emitter *, bool w, uint8_t opcode, unsigned reg, const struct host_memory_operand *);
/* 64-bit move between registers. */
void emit_move(struct emitter *, unsigned to, unsigned from);
/* LEA of any kind; w: 64 bits, else the result is truncated to 32. */
void emit_lea_operand(struct emitter *, bool w, unsigned reg, const struct host_memory_operand *);
/* rorx count, from, to; w: 64 bits. */
void emit_rotate(struct emitter *, bool w, unsigned to, unsigned from, unsigned count);
/* The register does not hold what it did: what R11 and R10 lead to may be unknown now. */
void emit_forget(struct emitter *, unsigned reg);
/* Nothing is known of R10 and R11. */
void emit_forget_windows(struct emitter *);
/* The register was set to `from` (itself, or another) plus or minus at most so many bytes. */
void emit_moved(struct emitter *, unsigned reg, unsigned from, uint64_t distance);
static inline uint64_t magnitude(int64_t v) { return v < 0 ? -(uint64_t)v : (uint64_t)v; }

static inline struct host_memory_operand state_operand(uint32_t offset)
{
	return (struct host_memory_operand){
		.base = HOST_NONE, .index = HOST_NONE, .state = true, .disp = (int32_t)offset
	};
}
static inline struct host_memory_operand based_operand(unsigned base, int32_t disp)
{
	return (struct host_memory_operand){ .base = (uint8_t)base, .index = HOST_NONE, .disp = disp };
}
/* In the window that a register leads to: base's slot. */
static inline struct host_memory_operand windowed_operand(unsigned window, unsigned base, int32_t disp)
{
	return (struct host_memory_operand){ .base = (uint8_t)window, .index = (uint8_t)base, .disp = disp };
}

/* Where code may be anywhere: an address of it, or of a RIP-relative operand, as what lies beside this register. */
struct host_memory_operand emit_code_operand(struct emitter *, unsigned reg, uint64_t address);

/* to = window displacement for the slot of host register `base`. What is known of `to` is not changed. */
void emit_load_window(struct emitter *, unsigned to, unsigned base);
/* The same, unless R11 or R10 is known to be that. Returns which; R11 unless R10 is free: not needed until the access is done. */
unsigned emit_window(struct emitter *, unsigned base, bool r10_free);
/*
 * R10 or R11, plus index << scale, = host address of the operand with this base, index and scale, without its displacement. HOST_NONE:
 * nothing was emitted, since that is not worth it.
 */
unsigned emit_sum(struct emitter *, const struct host_memory_operand *);
/* The instruction at hand has accessed this operand, and went on: what its register leads to was in the window. */
void emit_accessed(struct emitter *, const struct insn *, const struct insn_host *, const struct host_memory_operand *);
/* Look this operand's window, or sum, up, in front of a loop that keeps it as window[n]. */
void emit_keep(struct emitter *, unsigned n, const struct host_memory_operand *);

/* ---- emit_loop.c ---- */

/* What a block that leads to itself keeps from round to round. False: nothing. */
bool emit_loop_begin(struct emitter *, const struct insn *, const struct insn_host *, unsigned count);
/* At the end of a round: is all as it was at its beginning? */
bool emit_loop_holds(const struct emitter *);

/* NOT of 64 bits. */
void emit_not(struct emitter *, unsigned reg);

/* ---- emit_copy.c ---- */

/* What emit_insn() is for all 64-bit instructions that are not special. */
enum emit_result emit64_copy(struct emitter *, const struct insn *, const struct insn_host *, uint64_t rip);

/* ---- emit_string.c ---- */

/* False: this one is C's. */
bool emit_string(struct emitter *, const struct insn *);
/* The host's instruction, opcode being of the form for bytes. */
void emit_string_instruction(struct emitter *, const struct insn *, uint8_t opcode);

/* ---- emit_time.c ---- */

/* RDTSC; with_aux: RDTSCP. */
void emit_tsc(struct emitter *, bool with_aux);

/* ---- emit_tlb.c ---- */

/* R10 is a linear address: R11 = host address of `size` bytes there, or the code leaves to C. All else is kept. */
void emit_tlb_lookup(struct emitter *, unsigned size, bool write);
/* The guest's `size` bytes at disp(base), by the emitter's way; by the TLB R10 is lost. r10_free: see emit_window(). */
struct host_memory_operand emit_guest_operand(struct emitter *, unsigned base, int32_t disp, unsigned size, bool write,
					      bool r10_free);

/* ---- emit32.c ---- */

/* What emit_insn() and emit_operand_r10() are in 16- and 32-bit code. */
enum emit_result emit32_insn(struct emitter *, const struct insn *, const struct insn_host *);
enum emit_result emit32_operand_r10(struct emitter *, const struct insn *, const struct insn_host *);

/* ---- emit_segment.c: memory operands of 16- and 32-bit code. R10 and R11 may be used for an operand, R12 is not. ---- */

/* movzx from(16 bits), to; mov of 16 or 32 bits. */
void emit_zero_extend16(struct emitter *, unsigned to, unsigned from);
void emit_move_sized(struct emitter *, unsigned size, unsigned to, unsigned from);
/* One-byte opcode of the form for 16 and 32 bits (of the form for bytes: one less) with a memory operand. */
void emit_op_sized(struct emitter *, unsigned size, uint8_t opcode, unsigned reg, const struct host_memory_operand *);
/* State of 16 bits, to a register's 64 bits; and from its low 16 bits. */
void emit_load_state16(struct emitter *, unsigned reg, uint32_t offset);
void emit_store_state16(struct emitter *, unsigned reg, uint32_t offset);
#define BT_SELECTOR(seg) ((uint32_t)(offsetof(struct vcpu, s.seg_sel) + 2 * (seg)))
#define BT_BASE(seg)	 ((uint32_t)(offsetof(struct vcpu, s.seg_base) + 8 * (seg)))

/* The effective address, before segmentation: 16-bit ones are summed up in R10. */
struct host_memory_operand emit_offset(struct emitter *, const struct insn *);
/* Faults unless R10 + size - 1 is at most what this limit of the state (bt_frame.read_limit etc.) says. R11 is lost. */
void emit_check_limit(struct emitter *, uint32_t limit, int size);
#define BT_WRAP_LIMIT ((uint32_t)offsetof(struct bt_vcpu, frame.wrap_limit))
/*
 * m, an offset of so many bytes, becomes the operand of `size` bytes in the segment, once everything that this needs has been emitted:
 * the comparison with its limit.
 */
void emit_in_segment(struct emitter *, enum seg, unsigned offset_size, unsigned size, bool write,
		     struct host_memory_operand *m);
/* m becomes an operand in the segment, and nothing is compared. */
void emit_add_base(struct emitter *, enum seg, struct host_memory_operand *m);
/* The instruction's memory operand. False: it has none that this knows the size of. */
bool emit32_operand(struct emitter *, const struct insn *, const struct insn_host *, struct host_memory_operand *);
/* The same, with another size and use. */
void emit32_operand_sized(struct emitter *, const struct insn *, unsigned size, bool write,
			  struct host_memory_operand *);
/*
 * The far pointer, a word and a selector, that the memory operand is, into R12's low 32 bits. False: nothing was emitted, for its parts
 * may have to be looked at one by one.
 */
bool emit_load_far_pointer(struct emitter *, const struct insn *);
/* May the segment's base be other than 0? */
static inline bool emit_is_based(const struct emitter *e, enum seg seg)
{
	return seg == CS ? e->code_base : e->based_segments >> seg & 1;
}
/* Is it all of the linear addresses? */
static inline bool emit_is_flat(const struct emitter *e, enum seg seg)
{
	return (e->plain_segments >> seg & 1) && !emit_is_based(e, seg);
}
/* May parts of an operand in this segment be accessed as one, once they are compared with BT_WRAP_LIMIT? */
static inline bool emit_spans_parts(const struct emitter *e, enum seg seg)
{
	return (e->plain_segments | e->wide_segments) >> seg & 1;
}

/* ---- emit_stack32.c: the stack of 16- and 32-bit code ---- */

/* The `size` bytes at the stack pointer + disp. With a 16-bit stack R10 is their offset. */
struct host_memory_operand emit_stack_operand(struct emitter *, int32_t disp, unsigned size, bool write);
/* The same for parts of an operand: only where emit_spans_parts(). */
struct host_memory_operand emit_stack_parts(struct emitter *, int32_t disp, unsigned size);
void emit_move_stack(struct emitter *, int32_t by);
void emit32_push_register(struct emitter *, unsigned reg, unsigned size);
enum emit_result emit32_stack(struct emitter *, const struct insn *);

/* ---- emit_real.c: segments, and what they mean in real-address and virtual-8086 mode ---- */

/* How an instruction that ends a block with segments goes on. */
enum emit_far {
	FAR_CALLOUT,  /* nothing was emitted */
	FAR_NEXT,     /* behind it */
	FAR_DIRECT,   /* at *target */
	FAR_COMPUTED, /* at the address of code in R10 */
};
/* May a segment register be loaded by setting its base? */
bool emit_sets_base_alone(const struct emitter *, enum seg);
/* The return address of a far transfer, CS above IP, to R12. */
void emit_far_return_r12(struct emitter *, uint32_t next);
/* To the far pointer in R12's low 32 bits: CS is loaded, R10 is the address of code. No flags are written. R11 is lost. */
void emit_go_far(struct emitter *);
/* next: EIP behind the instruction. Other instructions that end a block in real-address mode too: emit_interrupt.c. */
enum emit_far emit_segment_insn(struct emitter *, const struct insn *, uint32_t next, uint64_t *target);

/* ---- emit_interrupt.c ---- */

/* False: nothing was emitted. */
bool emit_pushf(struct emitter *, const struct insn *);
/* The emitter's `slow` may have jumps then. */
enum emit_far emit_interrupt_insn(struct emitter *, const struct insn *, uint32_t next);

/* ---- emit_string16.c ---- */

/* String instructions of 16- and 32-bit code, as far as emit_string() does not do them. False: nothing was emitted. */
bool emit_string_element(struct emitter *, const struct insn *, uint8_t opcode, uint8_t pointers);
bool emit_string_repeated16(struct emitter *, const struct insn *, uint8_t opcode, uint8_t pointers);

/* ---- emit_address.c ---- */

/* The guest's operand in register numbers of the guest. */
struct host_memory_operand guest_operand(const struct insn *);

/* Where a memory operand is, in host terms, once everything that it needs has been emitted. */
struct address {
	struct host_memory_operand operand; /* through R11 or R10 */
	bool uses_r10;
};

/*
 * Emits what leads to the guest's memory operand. False: no access can be emitted, the caller takes back what was (an absolute
 * address that is not canonical, an operand too large for the TLB's look-up).
 */
bool emit_address(struct emitter *, const struct insn *, const struct insn_host *, uint64_t rip, struct address *);
/* The same for `size` bytes at an absolute address. */
bool emit_absolute(struct emitter *, const struct insn *, uint64_t address, unsigned size, bool write,
		   struct address *);
/*
 * The effective address alone, for LEA: registers, with the spilled ones loaded into R10 and R11. False when it is a
 * constant, which is then in *constant.
 */
bool emit_effective(struct emitter *, const struct insn *, const struct insn_host *, uint64_t rip,
		    struct host_memory_operand *, uint64_t *constant);

/* ---- emit_special.c ---- */

/* Instructions of any mode that need no code; that are left to C. */
bool emit_is_nothing(enum op);
bool emit_is_for_c(const struct insn *);

/* Instructions that are not simply copied. SPECIAL_NONE: copy it. */
enum special_result { SPECIAL_DONE, SPECIAL_CALLOUT, SPECIAL_NONE };
enum special_result emit_special(struct emitter *, const struct insn *, const struct insn_host *, uint64_t rip);

#endif
