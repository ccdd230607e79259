/*
 * Who runs and who is stopped: the one place where vCPUs and devices' threads are paused, resumed and ended, in this order:
 *
 *	pause	vCPUs park between instructions; then devices' threads stop, in order of the devices' creation
 *	resume	devices' threads go on, the last created first; then vCPUs
 *	end	pause, then vCPUs' threads end; devices' threads end with their devices
 *
 * vCPUs stop first because one that is in the middle of an access may wait for a device's thread; a device's thread never waits for a vCPU to run.
 */
#include "machine/private.h"

#define RETRY_APART 1000000000u /* ns, of holds */
#define HOLDS_MOST  64		/* that are retried at once */

struct call {
	struct list node;
	void (*fn)(struct machine *, void *);
	void *arg;
	bool done;
};

void pause_begin(struct machine *m)
{
	pthread_mutex_lock(&m->run_lock);
	m->paused = true;
	pthread_mutex_unlock(&m->run_lock);
	for (unsigned i = 0; i < m->cpu_count; i++)
		machine_post(&m->cpus[i], EVENT_EXIT);
	turn_wake_all(m);
}

static void stop_devices(struct machine *m)
{
	if (m->devices_run)
		bus_pause(m->bus);
	m->devices_run = false;
}

void pause_wait(struct machine *m)
{
	unsigned started = 0;

	for (unsigned i = 0; i < m->cpu_count; i++)
		started += m->cpus[i].started;
	pthread_mutex_lock(&m->run_lock);
	while (m->parked < started)
		pthread_cond_wait(&m->run_changed, &m->run_lock);
	pthread_mutex_unlock(&m->run_lock);
	stop_devices(m);
}

/* Guest time, with the vCPUs. */
static void stand_still(struct machine *m, bool still)
{
	if (still == (m->retry_at != 0))
		return;
	m->retry_at = still ? host_monotonic_ns() + RETRY_APART : 0;
	if (still)
		clock_stop(m->clock);
	else
		clock_start(m->clock);
	machine_tell(m, &(struct machine_news){ .event = still ? MACHINE_STOPS : MACHINE_GOES_ON });
}

/* One of those that nobody was told of. */
static bool next_failure(struct machine *m, struct bus_failure *failure)
{
	struct bus_hold *hold;
	bool found = false;

	pthread_mutex_lock(&m->run_lock);
	list_for_each (hold, &m->holds, node) {
		found = hold->why.error && !hold->told;
		hold->told = true;
		*failure = hold->why;
		if (found)
			break;
	}
	pthread_mutex_unlock(&m->run_lock);
	return found;
}

static void tell_failures(struct machine *m)
{
	struct machine_news news = { .event = MACHINE_IO_FAILS };

	while (next_failure(m, &news.failure))
		machine_tell(m, &news);
}

void pause_end(struct machine *m)
{
	if (!m->devices_run)
		bus_resume(m->bus);
	m->devices_run = true;
	pthread_mutex_lock(&m->run_lock);
	m->paused = !list_empty(&m->holds);
	pthread_cond_broadcast(&m->run_changed);
	pthread_mutex_unlock(&m->run_lock);
	tell_failures(m);
	stand_still(m, m->paused);
}

/* ---- holds ---- */

void pause_set_hold(struct machine *m, struct bus_hold *hold, bool begins)
{
	pthread_mutex_lock(&m->run_lock);
	hold->told = false;
	if (begins)
		list_append(&m->holds, &hold->node);
	else
		list_remove(&hold->node);
	pthread_mutex_unlock(&m->run_lock);
}

void pause_hold(void *machine, struct bus_hold *hold, bool begins)
{
	pause_set_hold(machine, hold, begins);
	machine_request(machine, REQUEST_HOLD);
}

/* Devices come and go in this thread alone. A device's function takes its locks, and run_lock comes behind these. */
uint64_t pause_retry(struct machine *m)
{
	struct bus_hold *holds[HOLDS_MOST], *hold;
	unsigned count = 0;

	if (!m->retry_at)
		return UINT64_MAX;
	if (host_monotonic_ns() < m->retry_at)
		return m->retry_at;
	pthread_mutex_lock(&m->run_lock);
	list_for_each (hold, &m->holds, node)
		if (count < HOLDS_MOST)
			holds[count++] = hold;
	pthread_mutex_unlock(&m->run_lock);
	for (unsigned n = 0; n < count; n++)
		holds[n]->retry(holds[n]);
	m->retry_at = host_monotonic_ns() + RETRY_APART;
	return m->retry_at;
}

void pause_nothing_to_retry(struct bus_hold *hold) { (void)hold; }

static bool set_stopped(struct machine *m, bool stopped)
{
	if (m->stopped == stopped)
		return false;
	m->stopped = stopped;
	m->stop.retry = pause_nothing_to_retry;
	pause_hold(m, &m->stop, stopped);
	return true;
}

bool machine_stop(struct machine *m) { return set_stopped(m, true); }

bool machine_go_on(struct machine *m) { return set_stopped(m, false); }

enum machine_status machine_status(struct machine *m)
{
	bool held;

	pthread_mutex_lock(&m->run_lock);
	held = !list_empty(&m->holds);
	pthread_mutex_unlock(&m->run_lock);
	return m->stopped	 ? MACHINE_PAUSED
	       : m->debug.stands ? MACHINE_DEBUG
	       : held		 ? MACHINE_IO_ERROR
				 : MACHINE_RUNNING;
}

/* ---- threads ---- */

int pause_start_threads(struct machine *m, struct error *err)
{
	for (unsigned i = 0; i < m->cpu_count; i++) {
		char name[16];
		int rc;

		snprintf(name, sizeof(name), "cpu%u", i);
		rc = host_thread_create(&m->cpus[i].thread, name, machine_cpu_thread, &m->cpus[i], err);
		if (rc)
			return rc;
		m->cpus[i].started = true;
	}
	return 0;
}

void pause_end_threads(struct machine *m)
{
	pause_begin(m);
	pthread_mutex_lock(&m->run_lock);
	m->ending = true;
	pthread_cond_broadcast(&m->run_changed);
	pthread_mutex_unlock(&m->run_lock);
	for (unsigned i = 0; i < m->cpu_count; i++) {
		if (m->cpus[i].started)
			pthread_join(m->cpus[i].thread, NULL);
		m->cpus[i].started = false;
	}
	stop_devices(m);
}

/* ---- calls ---- */

/* Everything is stopped. */
static void run_calls(struct machine *m)
{
	pthread_mutex_lock(&m->run_lock);
	while (!list_empty(&m->calls)) {
		struct call *call = list_entry(m->calls.next, struct call, node);

		list_remove(&call->node);
		pthread_mutex_unlock(&m->run_lock);
		call->fn(m, call->arg);
		pthread_mutex_lock(&m->run_lock);
		call->done = true;
		pthread_cond_broadcast(&m->run_changed);
	}
	pthread_mutex_unlock(&m->run_lock);
}

static void calls_posted(void *machine)
{
	struct machine *m = machine;

	pause_begin(m);
	pause_wait(m);
	run_calls(m);
	/* A request that came meanwhile pauses once more. */
	if (!m->over)
		pause_end(m);
}

/* While the loop does not run, who calls something carries it out: one at a time, and the loop does not begin meanwhile. */
static void wait_for_direct(struct machine *m)
{
	while (m->direct_call)
		pthread_cond_wait(&m->run_changed, &m->run_lock);
}

static void end_direct(struct machine *m)
{
	pthread_mutex_lock(&m->run_lock);
	m->direct_call = false;
	pthread_cond_broadcast(&m->run_changed);
	pthread_mutex_unlock(&m->run_lock);
}

void pause_loop_begins(struct machine *m)
{
	pthread_mutex_lock(&m->run_lock);
	wait_for_direct(m);
	m->loop_runs = true;
	m->loop_thread = pthread_self();
	pthread_mutex_unlock(&m->run_lock);
}

void pause_loop_ended(struct machine *m)
{
	pthread_mutex_lock(&m->run_lock);
	m->loop_runs = false;
	m->direct_call = true;
	pthread_mutex_unlock(&m->run_lock);
	run_calls(m);
	end_direct(m);
}

void pause_call(struct machine *m, void (*fn)(struct machine *, void *), void *arg)
{
	struct call call = { .fn = fn, .arg = arg };

	pthread_mutex_lock(&m->run_lock);
	wait_for_direct(m);
	if (!m->loop_runs) {
		m->direct_call = true;
		pthread_mutex_unlock(&m->run_lock);
		fn(m, arg);
		end_direct(m);
		return;
	}
	list_append(&m->calls, &call.node);
	if (pthread_equal(m->loop_thread, pthread_self())) {
		pthread_mutex_unlock(&m->run_lock);
		calls_posted(m);
		return;
	}
	event_loop_post(m->loop, calls_posted, m);
	while (!call.done)
		pthread_cond_wait(&m->run_changed, &m->run_lock);
	pthread_mutex_unlock(&m->run_lock);
}
