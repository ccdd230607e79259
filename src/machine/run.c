/*
 * A machine's life from power-on to its end: starting, stopping and resetting its vCPUs, and the event loop, whose thread carries
 * out what the guest, its devices and the user ask for.
 */
#include "machine/private.h"

#include "devices/devices.h"

#include <poll.h>
#include <stdlib.h>

/* ---- requests: any thread asks, the event loop's thread carries out ---- */

static void reset_cpus(struct machine *m, bool init)
{
	for (unsigned i = 0; i < m->cpu_count; i++) {
		struct vcpu *v = m->cpus[i].cpu;

		lapic_reset(m->cpus[i].lapic, init && i != 0); /* the boot processor's as firmware leaves it */
		cpu_reset(v, init);
		m->engine.ops->invalidate(v, gpa(0), SIZE_MAX);
	}
	turn_give(m, 0);
}

/*
 * Memory keeps its contents, as over a real warm reset; but here no firmware starts anew and fetches the kernel, so the
 * machine does.
 */
static int reset(struct machine *m, struct error *err)
{
	bus_reset(m->bus);
	machine_apply_a20(m);
	reset_cpus(m, false);
	return machine_boot(m, err);
}

void machine_tell(struct machine *m, const struct machine_news *news)
{
	if (m->listener)
		m->listener(m->listener_opaque, news);
}

static void tell(struct machine *m, enum machine_event event, bool by_guest)
{
	machine_tell(m, &(struct machine_news){ .event = event, .by_guest = by_guest });
}

static void end(struct machine *m, int status, bool by_guest)
{
	m->status = status;
	m->over = true;
	event_loop_stop(m->loop);
	tell(m, MACHINE_ENDS, by_guest);
}

/*
 * Only the processors are reset by these; what they do then is up to the code at the reset vector, which either goes on where the guest
 * wants it to, or starts the machine anew: that, the machine does at once.
 */
static bool resets_cpus_alone(struct machine *m, unsigned requests)
{
	return !(requests & REQUEST_RESET) && machine_warm_reset(m);
}

/* What a reset of either kind comes to. */
static void restart(struct machine *m, unsigned requests)
{
	struct error err = { 0 };

	if (resets_cpus_alone(m, requests)) {
		reset_cpus(m, true);
		pause_end(m);
	} else if (m->config.no_reboot) {
		end(m, MACHINE_POWEROFF, true);
	} else if (reset(m, &err)) {
		m->failure = err;
		end(m, MACHINE_ENGINE_ERROR, false);
	} else {
		tell(m, MACHINE_RESETS, !(requests & REQUEST_BUTTON));
		pause_end(m);
	}
}

static void report_reset(struct machine *m)
{
	unsigned index;

	pthread_mutex_lock(&m->run_lock);
	index = m->failed->index;
	m->failed = NULL;
	pthread_mutex_unlock(&m->run_lock);
	log_guest("triple fault of vCPU %u, which resets the machine", index);
}

static void handle_requests(void *machine)
{
	struct machine *m = machine;
	unsigned requests;

	if (!atomic_load(&m->requests))
		return;
	/* Once more: a request that came before machine_run(), or while another was carried out, has been resumed over. */
	pause_begin(m);
	pause_wait(m);
	requests = atomic_exchange(&m->requests, 0);
	if (requests & REQUEST_DEBUG)
		debug_begin(m);
	if (requests & REQUEST_SIGNAL) {
		end(m, MACHINE_SIGNAL + m->signal_number, false);
	} else if (requests & REQUEST_QUIT) {
		atomic_fetch_or(&m->requests,
				requests & GUEST_REQUESTS); /* they are part of what machine_save() saves */
		end(m, MACHINE_QUIT, false);
	} else if (requests & REQUEST_ENGINE_ERROR) {
		end(m, MACHINE_ENGINE_ERROR, false);
	} else if ((requests & REQUEST_TRIPLE_FAULT) && !m->config.triple_fault_resets) {
		end(m, MACHINE_TRIPLE_FAULT, true);
	} else if (requests & REQUEST_EXIT) {
		end(m, m->bus->exit_code, true);
	} else if (requests & REQUEST_POWEROFF) {
		end(m, MACHINE_POWEROFF, true);
	} else if (requests & ~(REQUEST_HOLD | REQUEST_DEBUG)) {
		if (requests & REQUEST_TRIPLE_FAULT)
			report_reset(m);
		restart(m, requests);
	} else {
		pause_end(m);
	}
	if (requests & REQUEST_DEBUG)
		debug_told(m);
}

void machine_request(struct machine *m, enum machine_request request)
{
	bool posted = atomic_fetch_or(&m->requests, request);

	pause_begin(m);
	/* Once, however often a guest asks. */
	if (!posted)
		event_loop_post(m->loop, handle_requests, m);
}

void machine_bus_request(void *machine, enum bus_request request)
{
	static const enum machine_request requests[] = {
		[BUS_REQUEST_RESET] = REQUEST_RESET,	   [BUS_REQUEST_INIT] = REQUEST_INIT,
		[BUS_REQUEST_POWEROFF] = REQUEST_POWEROFF, [BUS_REQUEST_EXIT] = REQUEST_EXIT,
		[BUS_REQUEST_QUIT] = REQUEST_QUIT,
	};

	machine_request(machine, requests[request]);
}

void machine_memory_lost(void *machine, const struct error *why)
{
	struct machine *m = machine;

	pthread_mutex_lock(&m->run_lock);
	m->failure = *why;
	pthread_mutex_unlock(&m->run_lock);
	machine_request(m, REQUEST_ENGINE_ERROR);
}

void machine_quit(struct machine *m) { machine_request(m, REQUEST_QUIT); }

void machine_reset_button(struct machine *m) { machine_request(m, REQUEST_RESET | REQUEST_BUTTON); }

static void press_power_button(void *machine)
{
	struct machine *m = machine;

	piix_power_button(m->bus);
	tell(m, MACHINE_BUTTON, false);
}

/* Devices come and go in the loop's thread. */
void machine_power_button(struct machine *m) { event_loop_post(m->loop, press_power_button, m); }

/* ---- for who controls it ---- */

void machine_listen(struct machine *m, machine_listener *fn, void *opaque)
{
	m->listener = fn;
	m->listener_opaque = opaque;
}

struct event_loop *machine_loop(struct machine *m) { return m->loop; }

const struct machine_config *machine_config(const struct machine *m) { return &m->config; }

uint64_t machine_time(const struct machine *m) { return clock_now(m->clock); }

int machine_cpu_thread_id(const struct machine *m, unsigned cpu) { return atomic_load(&m->cpus[cpu].thread_id); }

/* ---- running ---- */

/* Of the event loop, before each wait. Under virtual time timers are the vCPUs'. */
static uint64_t tick(void *machine)
{
	struct machine *m = machine;
	uint64_t retry = pause_retry(m);
	vtime_t next;

	if (m->virtual_time)
		return retry;
	next = clock_run(m->clock);
	bus_settle(m->bus);
	return MIN(retry, clock_host_deadline(m->clock, next));
}

static void wake_loop(void *machine)
{
	struct machine *m = machine;

	event_loop_wake(m->loop);
}

static void signal_ready(void *machine, short revents)
{
	struct machine *m = machine;
	int number = host_signals_read(&m->signals);

	(void)revents;
	if (!number || m->signal_number)
		return;
	host_signal_insist(number, MACHINE_SIGNAL_PATIENCE);
	m->signal_number = number;
	machine_request(m, REQUEST_SIGNAL);
}

static int watch_signals(struct machine *m, struct error *err)
{
	int rc;

	m->signals.fd = -1;
	m->signals_source = (struct event_source){ .events = POLLIN, .ready = signal_ready, .opaque = m };
	if (!m->config.ends_on_signals)
		return 0;
	rc = host_signals_open(&m->signals, err);
	if (rc)
		return rc;
	m->signals_source.fd = m->signals.fd;
	event_loop_add(m->loop, &m->signals_source);
	return 0;
}

static void ignore_signals(struct machine *m)
{
	event_loop_remove(m->loop, &m->signals_source);
	host_signals_close(&m->signals);
}

static void report_end(struct machine *m)
{
	if (m->status == MACHINE_TRIPLE_FAULT && m->failed) {
		host_terminal_restore();
		fprintf(stderr, "doppel: vCPU %u: triple fault\n", m->failed->index);
		cpu_print(m->failed, stderr);
	} else if (m->status > MACHINE_SIGNAL) {
		host_terminal_restore();
		fprintf(stderr, "doppel: %s, the machine is stopped\n", strsignal(m->status - MACHINE_SIGNAL));
	} else if (m->status == MACHINE_ENGINE_ERROR) {
		host_terminal_restore();
		fprintf(stderr, "doppel: %s\n", m->failure.text);
		if (m->failed)
			cpu_print(m->failed, stderr);
	}
}

int machine_run(struct machine *m)
{
	int rc;

	event_loop_set_tick(m->loop, tick, m);
	clock_set_notify(m->clock, m->virtual_time ? turn_deadline_moved : wake_loop, m);
	m->over = false;
	m->retry_at = 0;
	clock_start(m->clock);
	rc = watch_signals(m, &m->failure);
	if (!rc)
		rc = mem_loss(m->mem, &m->failure);
	if (!rc)
		rc = pause_start_threads(m, &m->failure);
	if (rc) {
		m->status = MACHINE_ENGINE_ERROR;
	} else {
		pause_loop_begins(m);
		pause_end(m);
		event_loop_run(m->loop);
	}
	pause_end_threads(m);
	pause_loop_ended(m);
	ignore_signals(m);
	clock_stop(m->clock);
	views_end(m);
	report_end(m);
	return m->status;
}

/* ---- statistics ---- */

void machine_print_stats(struct machine *m, FILE *out)
{
	static const char *const names[COUNT_COUNT] = {
#define _(id, what) [COUNT_##id] = what,
		CPU_COUNTERS(_)
#undef _
	};
	uint64_t instructions = 0;

	for (unsigned i = 0; i < m->cpu_count; i++)
		instructions += m->cpus[i].cpu->s.icount;
	fprintf(out, "engine %s, guest time %.6f s, %llu instructions counted\n", m->engine.ops->name,
		(double)clock_now(m->clock) / 1e9, (unsigned long long)instructions);
	for (unsigned i = 0; i < m->cpu_count; i++)
		fprintf(out, "  cpu %u: %llu instructions counted\n", i, (unsigned long long)m->cpus[i].cpu->s.icount);
	for (unsigned c = 0; c < COUNT_COUNT; c++) {
		uint64_t sum = 0;

		for (unsigned i = 0; i < m->cpu_count; i++)
			sum += m->cpus[i].cpu->count[c];
		if (sum)
			fprintf(out, "  %-30s %14llu\n", names[c], (unsigned long long)sum);
	}
	if (m->bus->ticks.late)
		fprintf(out, "  timer ticks late: %llu, delivered later: %llu, given up: %llu\n",
			(unsigned long long)m->bus->ticks.late, (unsigned long long)m->bus->ticks.reinjected,
			(unsigned long long)m->bus->ticks.given_up);
	overhead_print(&m->mem->overhead, out);
	balloon_print(m->bus, out);
	for (unsigned i = 0; m->engine.ops->stats && i < m->cpu_count; i++)
		m->engine.ops->stats(m->cpus[i].cpu, out);
}
