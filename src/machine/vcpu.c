/*
 * A vCPU's thread: runs guest code, sleeps when there is none to run, parks while the machine is paused.
 */
#include "machine/private.h"

/* More instructions than any run will see, and far from overflow. */
#define BUDGET_UNLIMITED (INT64_MAX / 2)

bool machine_cpu_runnable(struct machine_cpu *mc)
{
	return !mc->stays && (mc->cpu->s.activity == CPU_RUNNING || cpu_has_work(mc->cpu));
}

void machine_cpu_exit(struct machine_cpu *mc, enum exit_kind kind, const struct exit *exit)
{
	struct machine *m = mc->machine;

	switch (kind) {
	case EXIT_HALT:
	case EXIT_BUDGET: break;
	case EXIT_KICK: atomic_fetch_and(&mc->cpu->events, ~(EVENT_EXIT | EVENT_EXCLUSIVE)); break;
	case EXIT_DEBUG: machine_request(m, REQUEST_DEBUG); break;
	case EXIT_SHUTDOWN:
	case EXIT_ERROR:
		pthread_mutex_lock(&m->run_lock);
		if (!m->failed) {
			m->failed = mc->cpu;
			m->failure = exit->error;
		}
		pthread_mutex_unlock(&m->run_lock);
		machine_request(m, kind == EXIT_SHUTDOWN ? REQUEST_TRIPLE_FAULT : REQUEST_ENGINE_ERROR);
		break;
	}
}

static bool has_work(void *machine_cpu)
{
	struct machine_cpu *mc = machine_cpu;

	return machine_cpu_runnable(mc) || atomic_load(&mc->machine->paused);
}

static void sleep_until_work(struct machine_cpu *mc)
{
	if (!has_work(mc))
		bus_look_out(mc->machine->bus, has_work, mc);
	for (;;) {
		uint32_t sequence = sleeper_prepare(&mc->sleeper);

		if (has_work(mc))
			break;
		sleeper_wait(&mc->sleeper, sequence);
	}
	sleeper_cancel(&mc->sleeper);
}

static void run_freely(struct machine_cpu *mc)
{
	struct exit exit = { 0 };
	enum exit_kind kind;

	if (mc->stays) {
		sleep_until_work(mc);
		return;
	}
	exclusive_enter_run(mc);
	mc->cpu->budget = BUDGET_UNLIMITED;
	kind = mc->machine->engine.ops->run(mc->cpu, &exit);
	exclusive_leave_run(mc);
	machine_cpu_exit(mc, kind, &exit);
	if (kind == EXIT_HALT)
		sleep_until_work(mc);
}

/* Waits while the machine is paused; false when the thread is to end. */
static bool may_run(struct machine *m)
{
	bool run;

	if (!atomic_load(&m->paused))
		return true;
	pthread_mutex_lock(&m->run_lock);
	m->parked++;
	pthread_cond_broadcast(&m->run_changed);
	while (m->paused && !m->ending)
		pthread_cond_wait(&m->run_changed, &m->run_lock);
	m->parked--;
	run = !m->ending;
	pthread_mutex_unlock(&m->run_lock);
	return run;
}

void *machine_cpu_thread(void *machine_cpu)
{
	struct machine_cpu *mc = machine_cpu;

	atomic_store(&mc->thread_id, host_thread_id());
	while (may_run(mc->machine)) {
		if (mc->machine->virtual_time)
			turn_run(mc);
		else
			run_freely(mc);
	}
	return NULL;
}
