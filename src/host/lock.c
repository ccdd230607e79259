/*
 * Locks of devices, in groups: a machine's. Not recursive; but who has the whole group may go where single locks are taken. That threads
 * take them in one order, so that none waits for another in a circle, is looked at each time: the locks that a thread has are a stack.
 */
#define _GNU_SOURCE
#include "host/host.h"

static _Thread_local const struct lock_group *this_has; /* this thread has all locks of that group */
static _Thread_local struct lock *this_last;		/* that it has taken, singly */

void lock_group_init(struct lock_group *group)
{
	*group = (struct lock_group){ .waits = NULL };
	list_init(&group->locks);
}

/* Where it belongs among the others. */
static void insert(struct lock_group *group, struct lock *lock)
{
	struct lock *other;

	list_for_each (other, &group->locks, node)
		if (other->order > lock->order)
			break;
	list_insert_before(&other->node, &lock->node);
}

void lock_init(struct lock *lock, struct lock_group *group, unsigned rank)
{
	pthread_mutex_init(&lock->mutex, NULL);
	lock->group = group;
	lock->order = (uint64_t)rank << 32 | group->made++;
	lock->outer = NULL;
	insert(group, lock);
	if (this_has == group)
		pthread_mutex_lock(&lock->mutex);
}

void lock_destroy(struct lock *lock)
{
	if (this_has == lock->group)
		pthread_mutex_unlock(&lock->mutex);
	list_remove(&lock->node);
	pthread_mutex_destroy(&lock->mutex);
}

void lock_waits(struct lock_group *group, bool begins)
{
	if (group->waits)
		group->waits(group->waits_opaque, begins);
}

static void wait_for(struct lock *lock)
{
	lock_waits(lock->group, true);
	pthread_mutex_lock(&lock->mutex);
	lock_waits(lock->group, false);
}

static void write_output(struct lock_group *group)
{
	lock_waits(group, true);
	output_write();
	lock_waits(group, false);
}

/* The locks of two machines have no order. */
static bool in_order(const struct lock *lock)
{
	return !this_last || this_last->group != lock->group || this_last->order < lock->order;
}

static void push(struct lock *lock)
{
	if (!this_last)
		output_hold();
	lock->outer = this_last;
	this_last = lock;
}

bool lock_try(struct lock *lock)
{
	if (this_has == lock->group)
		return true;
	BUG_ON(!in_order(lock));
	if (pthread_mutex_trylock(&lock->mutex))
		return false;
	push(lock);
	return true;
}

void lock_take(struct lock *lock)
{
	if (this_has == lock->group)
		return;
	BUG_ON(!in_order(lock));
	if (unlikely(pthread_mutex_trylock(&lock->mutex)))
		wait_for(lock);
	push(lock);
}

void lock_drop(struct lock *lock)
{
	if (this_has == lock->group)
		return;
	BUG_ON(this_last != lock);
	this_last = lock->outer;
	pthread_mutex_unlock(&lock->mutex);
	if (!this_last && output_release())
		write_output(lock->group);
}

/* NULL: without end. */
static bool wait_until(struct lock *lock, pthread_cond_t *changed, const struct timespec *end)
{
	struct lock *outer = lock->outer; /* others have the lock meanwhile */
	int rc;

	BUG_ON(this_has == lock->group || this_last != lock);
	lock_waits(lock->group, true);
	rc = end ? pthread_cond_clockwait(changed, &lock->mutex, CLOCK_MONOTONIC, end)
		 : pthread_cond_wait(changed, &lock->mutex);
	lock_waits(lock->group, false);
	lock->outer = outer;
	return !rc;
}

void lock_wait(struct lock *lock, pthread_cond_t *changed) { wait_until(lock, changed, NULL); }

bool lock_wait_for(struct lock *lock, pthread_cond_t *changed, uint64_t ns)
{
	uint64_t end = host_monotonic_ns() + ns;

	return wait_until(lock, changed, &(struct timespec){ (time_t)(end / 1000000000), (long)(end % 1000000000) });
}

void lock_take_all(struct lock_group *group)
{
	struct lock *lock;

	BUG_ON(this_has || (this_last && this_last->group == group));
	list_for_each (lock, &group->locks, node)
		if (pthread_mutex_trylock(&lock->mutex))
			wait_for(lock);
	this_has = group;
	output_hold();
}

void lock_drop_all(struct lock_group *group)
{
	struct lock *lock;

	BUG_ON(this_has != group);
	this_has = NULL;
	list_for_each (lock, &group->locks, node)
		pthread_mutex_unlock(&lock->mutex);
	if (output_release())
		write_output(group);
}
