/* random.c: what runs is random code instead of a guest. */
#ifndef DOPPEL_LOCKSTEP_RANDOM_H
#define DOPPEL_LOCKSTEP_RANDOM_H

#include "../isolation/isolation.h"
#include "lockstep.h"

struct random_code {
	struct subject subject;
	const char *reference; /* engine */
	uint64_t seed;
	unsigned rounds;
};
void random_code_init(struct random_code *);
/* What a plan needs for it. */
void random_code_plan(struct plan *);

#endif
