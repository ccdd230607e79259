/*
 * Exclusive sections: somebody does something while every vCPU stands between instructions, or at a place inside of one where it holds
 * no direct pointer to guest memory: where it waits for a section of its own, or for a device's lock.
 *
 * Who asks for a section gets it, and who wants to run runs, whoever else asks:
 *
 *   - Sections run in the order in which they were asked for.
 *   - A vCPU that is about to run waits for the sections that were asked for before it came, and for no other. The end of a
 *     section lets in all whose wait is over, and counts them as running, before the next section can begin.
 *   - What was let in executes at least one instruction before it stops again (engine.h, run()).
 *
 * So between two sections that one vCPU asks for each other vCPU that wants to run gets on, and a section waits for at most one
 * section of each other thread. To get on by more than an instruction at a time, vCPUs run after a section for as long as it had
 * stopped them, before the next one stops them again.
 *
 * Nobody takes a lock in a section that somebody may hold who waits for a section, or to run: devices' locks come first.
 */
#define _GNU_SOURCE
#include "machine/private.h"

#include <sched.h>

#define MAX_REST_NS 1000000

static _Thread_local struct machine_cpu *this_cpu;    /* whose thread this is, while it is in engine.ops->run() */
static _Thread_local const struct machine *this_owns; /* this thread is in a section of that machine */

/* ---- running: lock held ---- */

static void stop_running(struct machine_cpu *mc)
{
	struct machine *m = mc->machine;

	BUG_ON(mc->run_state != RUN_RUNS);
	mc->run_state = RUN_STOPPED;
	if (!--m->exclusive.running)
		pthread_cond_broadcast(&m->exclusive.turn);
}

static void let_in(struct machine_cpu *mc)
{
	mc->run_state = RUN_RUNS;
	mc->machine->exclusive.running++;
}

static void start_running(struct machine_cpu *mc)
{
	struct machine *m = mc->machine;

	mc->run_behind = m->exclusive.asked;
	if (m->exclusive.ended == mc->run_behind) {
		let_in(mc);
		return;
	}
	mc->run_state = RUN_WAITS;
	while (mc->run_state == RUN_WAITS)
		pthread_cond_wait(&m->exclusive.let_in, &m->exclusive.lock);
}

void exclusive_enter_run(struct machine_cpu *mc)
{
	debug_yield();
	pthread_mutex_lock(&mc->machine->exclusive.lock);
	start_running(mc);
	pthread_mutex_unlock(&mc->machine->exclusive.lock);
	this_cpu = mc;
}

void exclusive_leave_run(struct machine_cpu *mc)
{
	this_cpu = NULL;
	debug_yield();
	pthread_mutex_lock(&mc->machine->exclusive.lock);
	stop_running(mc);
	pthread_mutex_unlock(&mc->machine->exclusive.lock);
}

void exclusive_wait(void *machine, bool begins)
{
	struct machine_cpu *mc = this_cpu;

	if (!mc || mc->machine != machine || this_owns == machine)
		return;
	pthread_mutex_lock(&mc->machine->exclusive.lock);
	if (begins)
		stop_running(mc);
	else
		start_running(mc);
	pthread_mutex_unlock(&mc->machine->exclusive.lock);
}

/* ---- sections ---- */

/* Lock held, but not all of the time. Those who run shall do so for as long as they were stopped last. */
static void let_run(struct machine *m)
{
	while (m->exclusive.running && host_monotonic_ns() < m->exclusive.rest_until) {
		pthread_mutex_unlock(&m->exclusive.lock);
		sched_yield();
		pthread_mutex_lock(&m->exclusive.lock);
	}
}

/* Lock held. Who does not run now comes to run behind this section. */
static void stop_others(struct machine *m)
{
	for (unsigned i = 0; i < m->cpu_count; i++) {
		if (m->cpus[i].run_state != RUN_RUNS)
			continue;
		vcpu_post(m->cpus[i].cpu, EVENT_EXCLUSIVE);
		m->engine.ops->kick(m->cpus[i].cpu);
	}
	while (m->exclusive.running)
		pthread_cond_wait(&m->exclusive.turn, &m->exclusive.lock);
}

/* self: the caller's vCPU; NULL: the thread is none of a vCPU. */
static void begin_section(struct machine *m, struct machine_cpu *self)
{
	uint64_t number;

	debug_yield();
	pthread_mutex_lock(&m->exclusive.lock);
	number = m->exclusive.asked++;
	if (self)
		stop_running(self);
	while (m->exclusive.ended != number)
		pthread_cond_wait(&m->exclusive.turn, &m->exclusive.lock);
	m->exclusive.began = 0;
	if (m->exclusive.running) {
		let_run(m);
		m->exclusive.began = host_monotonic_ns();
		stop_others(m);
	}
	pthread_mutex_unlock(&m->exclusive.lock);
	this_owns = m;
}

static void end_section(struct machine *m, struct machine_cpu *self)
{
	uint64_t now = host_monotonic_ns();

	this_owns = NULL;
	debug_yield();
	pthread_mutex_lock(&m->exclusive.lock);
	m->exclusive.ended++;
	if (m->exclusive.began)
		m->exclusive.rest_until = now + MIN(now - m->exclusive.began, MAX_REST_NS);
	for (unsigned i = 0; i < m->cpu_count; i++)
		if (m->cpus[i].run_state == RUN_WAITS && m->cpus[i].run_behind <= m->exclusive.ended)
			let_in(&m->cpus[i]);
	pthread_cond_broadcast(&m->exclusive.let_in);
	pthread_cond_broadcast(&m->exclusive.turn);
	if (self)
		start_running(self);
	pthread_mutex_unlock(&m->exclusive.lock);
}

void exclusive_section(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg)
{
	struct machine *m = cpu_of(v)->machine;
	struct machine_cpu *self = this_cpu && this_cpu->machine == m ? this_cpu : NULL;

	if (self)
		self->cpu->count[COUNT_EXCLUSIVE]++;
	/* Inside a section of its own (a locked store that changes code), and where no other vCPU runs: nobody is left to stop. */
	if (this_owns == m || (self && (m->cpu_count == 1 || m->virtual_time))) {
		fn(v, arg);
		return;
	}
	begin_section(m, self);
	fn(v, arg);
	end_section(m, self);
}
