/*
 * Exclusive sections: one vCPU does something while all others stand between instructions (or wait for a section of their own,
 * which is as good: a vCPU waits at a place where it holds no direct pointer to guest memory).
 */
#include "machine/private.h"

/* A vCPU is about to execute guest code: not while anybody wants or has a section. */
void exclusive_enter_run(struct machine *m)
{
	pthread_mutex_lock(&m->exclusive.lock);
	while (m->exclusive.waiting)
		pthread_cond_wait(&m->exclusive.changed, &m->exclusive.lock);
	m->exclusive.running++;
	pthread_mutex_unlock(&m->exclusive.lock);
}

void exclusive_leave_run(struct machine *m)
{
	pthread_mutex_lock(&m->exclusive.lock);
	m->exclusive.running--;
	if (m->exclusive.waiting)
		pthread_cond_broadcast(&m->exclusive.changed);
	pthread_mutex_unlock(&m->exclusive.lock);
}

/* Lock held. The others' loops clear the event before they ask exclusive_enter_run, which then sees `waiting`. */
static void stop_others(struct vcpu *v)
{
	struct machine *m = cpu_of(v)->machine;

	for (unsigned i = 0; i < m->cpu_count; i++) {
		struct vcpu *other = m->cpus[i].cpu;

		if (other == v)
			continue;
		vcpu_post(other, EVENT_EXCLUSIVE);
		m->engine->kick(other);
	}
}

void exclusive_section(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg)
{
	struct machine *m = cpu_of(v)->machine;

	v->count[COUNT_EXCLUSIVE]++;
	/*
	 * Under virtual time the others wait for their turns. Inside a section of its own (a locked store that changes code) there
	 * is nobody left to stop; only this thread writes itself there, so reading without the lock is enough.
	 */
	if (m->cpu_count == 1 || m->virtual_time || atomic_load(&m->exclusive.owner) == v) {
		fn(v, arg);
		return;
	}
	pthread_mutex_lock(&m->exclusive.lock);
	m->exclusive.running--;
	m->exclusive.waiting++;
	stop_others(v);
	pthread_cond_broadcast(&m->exclusive.changed);
	while (m->exclusive.active || m->exclusive.running)
		pthread_cond_wait(&m->exclusive.changed, &m->exclusive.lock);
	m->exclusive.active = true;
	atomic_store(&m->exclusive.owner, v);
	pthread_mutex_unlock(&m->exclusive.lock);

	fn(v, arg);

	pthread_mutex_lock(&m->exclusive.lock);
	m->exclusive.active = false;
	atomic_store(&m->exclusive.owner, NULL);
	m->exclusive.waiting--;
	pthread_cond_broadcast(&m->exclusive.changed);
	/* Back into guest code only after those who wait have had theirs. */
	while (m->exclusive.waiting)
		pthread_cond_wait(&m->exclusive.changed, &m->exclusive.lock);
	m->exclusive.running++;
	pthread_mutex_unlock(&m->exclusive.lock);
}
