/*
 * Locks of devices, in groups: a machine's. Not recursive; but who has the whole group may go where single locks are taken.
 */
#include "host/host.h"

#include <errno.h>

static _Thread_local const struct lock_group *this_has; /* this thread has all locks of that group */

void lock_group_init(struct lock_group *group)
{
	*group = (struct lock_group){ .waits = NULL };
	list_init(&group->locks);
}

void lock_init(struct lock *lock, struct lock_group *group)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&lock->mutex, &attr);
	pthread_mutexattr_destroy(&attr);
	lock->group = group;
	/* The first one is the last in their order. */
	list_insert_before(list_empty(&group->locks) ? &group->locks : group->locks.prev, &lock->node);
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

bool lock_try(struct lock *lock) { return this_has == lock->group || !pthread_mutex_trylock(&lock->mutex); }

static void wait_for(struct lock *lock)
{
	struct lock_group *group = lock->group;

	if (group->waits)
		group->waits(group->waits_opaque, true);
	BUG_ON(pthread_mutex_lock(&lock->mutex));
	if (group->waits)
		group->waits(group->waits_opaque, false);
}

void lock_take(struct lock *lock)
{
	if (!lock_try(lock))
		wait_for(lock);
}

void lock_drop(struct lock *lock)
{
	if (this_has != lock->group)
		BUG_ON(pthread_mutex_unlock(&lock->mutex));
}

void lock_wait(struct lock *lock, pthread_cond_t *changed)
{
	struct lock_group *group = lock->group;

	BUG_ON(this_has == group);
	if (group->waits)
		group->waits(group->waits_opaque, true);
	pthread_cond_wait(changed, &lock->mutex);
	if (group->waits)
		group->waits(group->waits_opaque, false);
}

void lock_take_all(struct lock_group *group)
{
	struct lock *lock;

	BUG_ON(this_has);
	list_for_each (lock, &group->locks, node)
		lock_take(lock);
	this_has = group;
}

void lock_drop_all(struct lock_group *group)
{
	struct lock *lock;

	BUG_ON(this_has != group);
	this_has = NULL;
	list_for_each (lock, &group->locks, node)
		lock_drop(lock);
}
