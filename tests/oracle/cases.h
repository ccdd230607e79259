/* What cases.c and operands.c share. */
#ifndef DOPPEL_ORACLE_CASES_H
#define DOPPEL_ORACLE_CASES_H

#include "oracle.h"

#define POOL_SIZE (64u << 10)

#define BASE_NONE 16
#define BASE_RIP  17

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
	uint64_t target; /* linear address of the memory operand */
	unsigned body;	 /* bytes of the instruction without its immediate */
	uint64_t code_at;
	unsigned code_len;	 /* what the last case left in the code area */
	uint8_t pool[POOL_SIZE]; /* memory's contents are cut out of this */
};

uint64_t edge_value(struct rng *);
uint64_t lane_value(struct rng *, enum lanes);
uint64_t data_address(struct rng *, unsigned align);
uint64_t stack_address(struct rng *);

/*
 * The offset in this segment that reaches a linear address. One that is not canonical by itself faults on AMD's processors,
 * whatever the sum: then the bases become 0.
 */
uint64_t segment_offset(enum code_mode, struct user_state *, unsigned seg, uint64_t at);

/* Both sides' memory, by linear address; nothing happens unless all of it is data or stack. */
void put_bytes(struct cases *, uint64_t at, const void *, unsigned len);
void put_value(struct cases *, uint64_t at, uint64_t value, unsigned len);
uint64_t peek_value(struct cases *, uint64_t at, unsigned len);

/* ---- operands.c: what an instruction asks for, beyond random values ---- */

/* Alignment that a memory operand needs, 1 for any. */
unsigned operand_alignment(const struct test_case *);
/* Before the memory operand is placed: registers that others depend on. */
void operands_before(struct cases *, struct test_case *);
/* After: memory's contents, implicit operands, branch targets. false: the case is not to be run. */
bool operands_after(struct cases *, struct test_case *);

#endif
