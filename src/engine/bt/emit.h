/* Private to emit*.c: host instructions before they are bytes. */
#ifndef DOPPEL_BT_EMIT_H
#define DOPPEL_BT_EMIT_H

#include "engine/bt/bt.h"

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
/* The register does not hold what it did: what R11 is the window of may be unknown now. */
void emit_forget(struct emitter *, unsigned reg);
/* Is R11 the window of the slot that `reg` points into, give or take EMIT_MAX_DRIFT? */
bool emit_window_known(const struct emitter *, unsigned reg);
/* The register was set to `from` (itself, or another) plus or minus at most so many bytes. */
void emit_moved(struct emitter *, unsigned reg, unsigned from, uint64_t distance);

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
/* In the window that R11 leads to: base's slot. */
static inline struct host_memory_operand windowed_operand(unsigned base, int32_t disp)
{
	return (struct host_memory_operand){ .base = R11, .index = (uint8_t)base, .disp = disp };
}

/* R11 = window displacement for the slot of host register `base` (or known to be so already: window_base). */
void emit_window(struct emitter *, unsigned base);

/* NOT of 64 bits. */
void emit_not(struct emitter *, unsigned reg);

/* ---- emit_string.c ---- */

/* False: this one is C's. */
bool emit_string(struct emitter *, const struct insn *);

/* ---- emit_time.c ---- */

/* RDTSC; with_aux: RDTSCP. */
void emit_tsc(struct emitter *, bool with_aux);

/* ---- emit_tlb.c ---- */

/* R10 is a linear address: R11 = host address of `size` bytes there, or the code leaves to C. R15 is kept, RCX too. */
void emit_tlb_lookup(struct emitter *, unsigned size, bool write);
/* The guest's `size` bytes at disp(base), by the emitter's way; R10 is lost. */
struct host_memory_operand emit_guest_operand(struct emitter *, unsigned base, int32_t disp, unsigned size, bool write);

/* ---- emit32.c ---- */

/* What emit_insn() and the pieces of bt.h are in 16- and 32-bit code. */
enum emit_result emit32_insn(struct emitter *, const struct insn *, const struct insn_host *);
enum emit_result emit32_operand_r10(struct emitter *, const struct insn *, const struct insn_host *);
void emit32_push_constant(struct emitter *, uint32_t value);
void emit32_pop(struct emitter *, unsigned reg, unsigned more);

/* ---- emit_address.c ---- */

/* The guest's operand in register numbers of the guest. */
struct host_memory_operand guest_operand(const struct insn *);

/* Where a memory operand is, in host terms, once everything that it needs has been emitted. */
struct address {
	struct host_memory_operand operand; /* through R11 */
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
