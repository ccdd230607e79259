/*
 * A scheduler that preempts at the worst moments: see debug_yield() in base.h.
 */
#include "base/base.h"

#ifdef DEBUG_YIELDS
#include <sched.h>
#include <time.h>

void debug_yield(void)
{
	static _Thread_local uint32_t random;

	if (!random)
		random = (uint32_t)(uintptr_t)&random | 1; /* another sequence in each thread */
	random ^= random << 13;
	random ^= random >> 17;
	random ^= random << 5;
	if (random % 64 == 0)
		nanosleep(&(struct timespec){ .tv_nsec = random >> 12 & 0xffff }, NULL);
	else if (random % 4 == 0)
		sched_yield();
}
#endif
