/*
 * Sleeping and waking without a lock, on a futex: a vCPU is woken by whoever posts an event to it, and that may be inside of
 * any other lock.
 *
 * No wake-up is lost: if the waker reads `waiting` as false, then the sleeper's store of true comes after in the one order of
 * sequentially consistent operations, so the sleeper's look at the reason comes after the waker made it visible.
 */
#define _GNU_SOURCE
#include "machine/private.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

uint32_t sleeper_prepare(struct sleeper *s)
{
	atomic_store(&s->waiting, true);
	return atomic_load(&s->sequence);
}

void sleeper_wait(struct sleeper *s, uint32_t sequence)
{
	debug_yield();
	/* Returns at once when the sequence moved on; spurious returns are the caller's loop's business. */
	syscall(SYS_futex, &s->sequence, FUTEX_WAIT_PRIVATE, sequence, NULL, NULL, 0);
	atomic_store(&s->waiting, false);
}

void sleeper_cancel(struct sleeper *s) { atomic_store(&s->waiting, false); }

void sleeper_wake(struct sleeper *s)
{
	atomic_fetch_add(&s->sequence, 1);
	debug_yield();
	if (atomic_load(&s->waiting))
		syscall(SYS_futex, &s->sequence, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
