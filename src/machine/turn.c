/*
 * Virtual time: one vCPU at a time has the turn and runs a fixed number of instructions, or until it has nothing to do or spins;
 * then the next that has something to do. Guest time is the sum of instructions that all vCPUs executed plus the idle time jumped
 * over. A turn is cut where the next timer is due, and the timers run in the thread of the vCPU whose turn it is. Nothing here depends on
 * the host's time or scheduling, so the same run gives the same trace; input from outside alone can make a difference.
 */
#include "machine/private.h"

void turn_deadline_moved(void *machine)
{
	struct machine *m = machine;

	/* Armed in the middle of what the holder runs: it comes back at the end of the block and is given a shorter budget. */
	if (clock_next_deadline(m->clock) < atomic_load(&m->turn.end))
		machine_post(&m->cpus[atomic_load(&m->turn.holder)], EVENT_EXIT);
}

void turn_wake_all(struct machine *m)
{
	pthread_mutex_lock(&m->turn.lock);
	for (unsigned i = 0; i < m->cpu_count; i++)
		pthread_cond_signal(&m->cpus[i].turn_begins);
	pthread_mutex_unlock(&m->turn.lock);
	sleeper_wake(&m->turn.idle);
}

/* False when the machine was paused first. */
static bool wait_for_turn(struct machine_cpu *mc)
{
	struct machine *m = mc->machine;

	pthread_mutex_lock(&m->turn.lock);
	while (&m->cpus[m->turn.holder] != mc && !m->paused)
		pthread_cond_wait(&mc->turn_begins, &m->turn.lock);
	pthread_mutex_unlock(&m->turn.lock);
	return !atomic_load(&m->paused);
}

static void run_due_timers(struct machine *m)
{
	if (clock_next_deadline(m->clock) > clock_now(m->clock))
		return;
	clock_run(m->clock);
	bus_settle(m->bus);
}

/* Runs up to the instruction at which guest time is `end`. */
static enum exit_kind run_until(struct machine_cpu *mc, vtime_t end)
{
	struct machine *m = mc->machine;
	struct exit exit = { 0 };
	vtime_t now = clock_now(m->clock);
	enum exit_kind kind;

	mc->turn_base = now - mc->cpu->s.icount;
	mc->cpu->budget = (int64_t)(end - now);
	atomic_store(&m->turn.end, end);
	exclusive_enter_run(mc);
	kind = m->engine.ops->run(mc->cpu, &exit);
	exclusive_leave_run(mc);
	atomic_store(&m->turn.end, 0);
	clock_set(m->clock, mc->turn_base + mc->cpu->s.icount);
	machine_cpu_exit(mc, kind, &exit);
	return kind;
}

static void use_turn(struct machine_cpu *mc)
{
	struct machine *m = mc->machine;

	if (!m->turn.begun) {
		m->turn.begun = true;
		m->turn.over = false;
		m->turn.last = clock_now(m->clock) + TURN_QUANTUM;
	}
	while (!m->turn.over && !atomic_load(&m->paused)) {
		vtime_t now = clock_now(m->clock), most;

		run_due_timers(m);
		if (now >= m->turn.last || !machine_cpu_runnable(mc))
			return;
		most = m->turn.last - now;
		if (m->config.observer) {
			most = MIN(most, m->config.observer->before_run(m->config.observer->opaque, mc->cpu));
			if (atomic_load(&m->paused))
				return;
		}
		if (run_until(mc, MIN(now + most, MAX(clock_next_deadline(m->clock), now + 1))) == EXIT_HALT)
			return;
	}
}

/* The next after this one, in a circle, that has something to do; NULL when none. */
static struct machine_cpu *next_runnable(struct machine_cpu *mc)
{
	struct machine *m = mc->machine;
	unsigned self = mc->cpu->index;

	for (unsigned i = 1; i <= m->cpu_count; i++) {
		struct machine_cpu *other = &m->cpus[(self + i) % m->cpu_count];

		if (machine_cpu_runnable(other))
			return other;
	}
	return NULL;
}

/* All vCPUs sleep: time jumps to the next timer; without one, only somebody outside can wake them. */
static void pass_idle_time(struct machine *m)
{
	uint32_t sequence = sleeper_prepare(&m->turn.idle);
	vtime_t next = clock_next_deadline(m->clock);

	if (next != VTIME_NEVER) {
		sleeper_cancel(&m->turn.idle);
		clock_set(m->clock, MAX(next, clock_now(m->clock)));
		run_due_timers(m);
		return;
	}
	for (unsigned i = 0; i < m->cpu_count; i++) {
		if (machine_cpu_runnable(&m->cpus[i]) || atomic_load(&m->paused)) {
			sleeper_cancel(&m->turn.idle);
			return;
		}
	}
	sleeper_wait(&m->turn.idle, sequence);
}

static void pass_turn(struct machine_cpu *mc)
{
	struct machine *m = mc->machine;
	struct machine_cpu *next = next_runnable(mc);

	m->turn.begun = false;
	while (!next && !atomic_load(&m->paused)) {
		pass_idle_time(m);
		next = next_runnable(mc);
	}
	if (!next || next == mc)
		return;
	pthread_mutex_lock(&m->turn.lock);
	m->turn.holder = next->cpu->index;
	pthread_cond_signal(&next->turn_begins);
	pthread_mutex_unlock(&m->turn.lock);
}

void turn_run(struct machine_cpu *mc)
{
	struct machine *m = mc->machine;

	if (!wait_for_turn(mc))
		return;
	use_turn(mc);
	/* A pause is none of the guest's business: what ended the turn besides ends it again behind it. */
	if (!atomic_load(&m->paused))
		pass_turn(mc);
}

void turn_give(struct machine *m, unsigned holder)
{
	atomic_store(&m->turn.holder, holder);
	m->turn.begun = false;
}
