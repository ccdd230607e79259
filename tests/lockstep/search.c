/*
 * From a difference somewhere to the instruction that makes it: the same run again from the start, in smaller steps around where the
 * difference came to light. Each level's steps go into what the level before could not tell apart.
 */
#include "lockstep.h"

#include <stdio.h>

#define BLOCK_MAX 64 /* instructions */

static void count(const struct comparison_counts *n, const char *what)
{
	printf("# %s: %llu instructions in %llu steps, %llu pages compared, all memory %llu times\n", what,
	       (unsigned long long)n->instructions, (unsigned long long)n->steps, (unsigned long long)n->pages,
	       (unsigned long long)n->wholes);
	fflush(stdout);
}

/* Again, with steps of this size where d is, and a look at what d found different. True: found there. */
static bool look_closer(struct subject *s, const struct plan *plan, const char *engine, uint64_t step,
			struct difference *d)
{
	struct plan p = *plan;
	struct difference closer;
	struct comparison_counts counts;
	char what[96];

	p.engine = engine;
	p.fine_from = d->from;
	p.fine_step = step;
	p.end = d->to + MAX(step, BLOCK_MAX);
	p.whole_every = UINT64_MAX;
	p.watch_count = d->page_count;
	memcpy(p.watch, d->page, sizeof(p.watch));
	if (!s->run(s, &p, &closer, &counts) || !closer.found)
		return false;
	snprintf(what, sizeof(what), "again, engine %s, steps of %llu%s", engine, (unsigned long long)step,
		 step ? "" : " (blocks)");
	count(&counts, what);
	*d = closer;
	return true;
}

/* Blocks of at most so many instructions: how long they must be for the difference to come. */
static bool look_with_blocks(struct subject *s, const struct plan *plan, unsigned block, struct difference *d)
{
	char engine[64];

	snprintf(engine, sizeof(engine), "%s%s", plan->engine, "");
	if (!strncmp(plan->engine, "bt", 2))
		snprintf(engine, sizeof(engine), "%s,block=%u", plan->engine, block);
	return look_closer(s, plan, engine, block, d);
}

/* A difference that a single translated instruction makes, or else the shortest block that does. */
static void find_instruction(struct subject *s, const struct plan *plan, struct difference *d)
{
	uint64_t low = 1, high = MIN(d->to - d->from, BLOCK_MAX);
	const struct difference block = *d;

	if (look_with_blocks(s, plan, 1, d))
		return;
	printf("# It takes more than one instruction translated together.\n");
	while (high - low > 1) {
		unsigned middle = (unsigned)(low + high) / 2;
		struct difference shorter = block;

		if (look_with_blocks(s, plan, middle, &shorter)) {
			*d = shorter;
			high = middle;
		} else {
			low = middle;
		}
	}
}

bool search(struct subject *s, const struct plan *plan, struct comparison_counts *counts)
{
	static const uint64_t steps[] = { 1000, 100, 0 };
	struct difference d;
	bool blocks = false;

	if (!s->run(s, plan, &d, counts))
		return false;
	if (!plan->quiet || d.found)
		count(counts, plan->engine);
	if (!d.found)
		return true;
	printf("# They differ at instruction %llu; they were the same at %llu.\n%s", (unsigned long long)d.to,
	       (unsigned long long)d.from, d.text);
	if (d.to - d.from > plan->step)
		look_closer(s, plan, plan->engine, plan->step, &d);
	for (unsigned n = 0; n < ARRAY_SIZE(steps) && !blocks; n++)
		if (!steps[n] || (d.to - d.from > 20 * steps[n] && steps[n] < plan->step))
			blocks = look_closer(s, plan, plan->engine, steps[n], &d) && !steps[n];
	if (blocks)
		find_instruction(s, plan, &d);
	else
		printf("# In steps of a block they do not differ there.\n");
	report(&d);
	return false;
}
