/* What cases.c and operands.c share. */
#ifndef DOPPEL_ORACLE_CASES_H
#define DOPPEL_ORACLE_CASES_H

#include "oracle.h"

#define POOL_SIZE (64u << 10)

#define BASE_NONE 16
#define BASE_RIP  17

/* That models can have; a host has others besides, which an image is not to hold. */
#define MODEL_COMPONENTS (XCR0_X87 | XCR0_SSE | XCR0_AVX)

enum lanes { LANES_RANDOM, LANES_EDGE, LANES_FLOAT, LANES_DOUBLE, LANES_SMALL, LANES_KINDS };

struct cases {
	struct forms *forms;
	enum code_mode mode;
	const struct cpu_model *model;
	struct user_state start;
	struct host_traits traits;
	uint64_t seed;
	struct rng rng;
	const struct areas *sides[2];
	bool no_address_registers; /* memory operands have none, because earlier instructions may change them */
	uint64_t target;	   /* linear address of the memory operand */
	unsigned body;		   /* bytes of the instruction without its immediate */
	uint64_t code_at;
	uint32_t *x87_forms, *environment_forms; /* places in forms->form[], by sequence.c */
	unsigned x87_count, environment_count;
	unsigned code_len;	 /* what the last case left in the code area */
	uint8_t pool[POOL_SIZE]; /* memory's contents are cut out of this */
};

/* ---- state.c ---- */

void make_state(struct cases *, struct user_state *);
/* 32-bit and 16-bit code: eight registers of 32 bits. */
void narrow_registers(struct user_state *);
uint64_t edge_value(struct rng *);
uint64_t lane_value(struct rng *, enum lanes);

/* ---- instruction.c ---- */

/* Fills in registers and immediate of an encoding, at random. false: it is another instruction then, or none. */
bool make_instruction(struct cases *, const struct insn_form *, const struct encoding *, struct encoding_fields *,
		      struct test_case *);
/* Make the memory operand lie at c->target, by registers or displacement; or near it, then c->target is where. */
void place_operand(struct cases *, const struct encoding *, struct encoding_fields *, struct test_case *);
uint64_t data_address(struct rng *, unsigned align);
uint64_t stack_address(struct rng *);
/* A linear address for data in what the segment can reach: as data_address(), in another area if need be, or where its limit is. */
uint64_t segment_address(struct cases *, const struct user_state *, enum seg, unsigned align);
/* An offset in SS for a stack pointer of its size; what that leaves of the register is random. */
uint64_t stack_offset(struct cases *, const struct user_state *);

/*
 * The offset in this segment that reaches a linear address. One that is not canonical by itself faults on AMD's processors,
 * whatever the sum: then the bases become 0.
 */
uint64_t segment_offset(enum code_mode, struct user_state *, enum seg, uint64_t at);
/* Linear address of the top of the stack. */
uint64_t stack_top(const struct user_state *);

/* ---- cases.c ---- */

/* Somewhere in the code area, or where the code segment ends, if that is before it; whole: with more to fetch behind it. */
void put_instruction(struct cases *, struct test_case *, bool whole);

/* Both sides' memory, by linear address; nothing happens unless all of it is data or stack. */
void put_bytes(struct cases *, uint64_t at, const void *, unsigned len);
void put_value(struct cases *, uint64_t at, uint64_t value, unsigned len);
uint64_t peek_value(struct cases *, uint64_t at, unsigned len);

/* Element values of one kind at the memory operand. operands.c */
void element_values(struct cases *);

/* ---- sequence.c ---- */

/*
 * Some instructions in a row, none of which should fault or leave the row. x87: those of x87 and MMX, with what saves and
 * restores their state.
 */
bool sequence_make(struct cases *, struct test_case *, bool x87);
/* Once, before the first: false for no memory. */
bool sequence_prepare(struct cases *);

/* Images that instructions restore, so that most of them can: the x87 environment (step: 2 or 4), FXSAVE's, XSAVE's. operands.c */
void fix_environment(struct cases *, uint64_t at, unsigned step);
void fix_xsave(struct cases *, uint64_t at);

/* ---- operands.c: what an instruction asks for, beyond random values ---- */

/* Alignment that a memory operand needs, 1 for any. */
unsigned operand_alignment(const struct test_case *);
static inline bool has_component_mask(enum op op) { return op >= OP_XSAVE && op <= OP_XRSTOR64; }
/* Before the memory operand is placed: registers that others depend on. */
void operands_before(struct cases *, struct test_case *);
/* After: memory's contents, implicit operands, branch targets. false: the case is not to be run. */
bool operands_after(struct cases *, struct test_case *);

#endif
