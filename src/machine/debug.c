/*
 * A debugger outside of the guest: all vCPUs stand still while it looks, each does what it is told when they go on, and all stop when one does.
 */
#include "machine/private.h"

#include <errno.h>

/* ---- standing still ---- */

static void begin_to_stand(struct machine *m, void *arg)
{
	(void)arg;
	if (m->debug.stands)
		return;
	m->debug.stands = true;
	m->debug.hold.retry = pause_nothing_to_retry;
	pause_set_hold(m, &m->debug.hold, true);
}

static void end_standing(struct machine *m)
{
	if (m->debug.stands)
		pause_set_hold(m, &m->debug.hold, false);
	m->debug.stands = false;
}

void machine_debug_stop(struct machine *m) { pause_call(m, begin_to_stand, NULL); }

bool machine_debug_stands(const struct machine *m) { return m->debug.stands; }

/* Nobody's are the stops that the debugger has let go on or that were on their way when it went. */
void debug_begin(struct machine *m)
{
	for (unsigned n = 0; n < m->cpu_count; n++)
		if (m->debug.fn && m->cpus[n].cpu->stop.kind)
			begin_to_stand(m, NULL);
}

void debug_told(struct machine *m)
{
	if (m->debug.fn && m->debug.stands && !m->over)
		m->debug.fn(m->debug.opaque);
}

struct vcpu *machine_vcpu(struct machine *m, unsigned cpu) { return cpu < m->cpu_count ? m->cpus[cpu].cpu : NULL; }

/* ---- going on ---- */

/* Cuts only come: those that nobody needs any more cost little, and what is decoded may stay. True: there are new ones. */
static bool take_stops(struct stops *to, const struct stops *from)
{
	bool new_cuts = false;

	to->breakpoint_count = from->breakpoint_count;
	to->watch_count = from->watch_count;
	memcpy(to->breakpoints, from->breakpoints, sizeof(to->breakpoints));
	memcpy(to->watches, from->watches, sizeof(to->watches));
	for (unsigned n = 0; n < to->breakpoint_count; n++) {
		uint64_t offset = to->breakpoints[n] & ~PAGE_MASK, *word = &to->cuts[offset / 64];

		new_cuts |= !(*word & BIT(offset % 64));
		*word |= BIT(offset % 64);
	}
	return new_cuts;
}

static void let_go(struct machine_cpu *mc, enum debug_action action, bool quiet)
{
	struct vcpu *v = mc->cpu;
	bool step = action == DEBUG_STEP, seen = v->stop.kind == STOP_BREAKPOINT && v->stop.seen;

	/* A breakpoint that was shown to somebody is no reason to stop again, though he may not know it as one. */
	cpu_stop_let_go(v, step, step || seen, step ? quiet : seen);
	mc->stays = action == DEBUG_STAY;
	cpu_stops_changed(v);
}

static void go_on(struct machine *m, void *arg)
{
	const struct debug_plan *plan = arg;
	bool new_cuts = take_stops(&m->debug.stops, &plan->stops);

	for (unsigned n = 0; n < m->cpu_count; n++) {
		if (new_cuts)
			m->engine.ops->invalidate(m->cpus[n].cpu, gpa(0), SIZE_MAX);
		let_go(&m->cpus[n], plan->actions[n], plan->quiet);
	}
	end_standing(m);
}

void machine_debug_go_on(struct machine *m, const struct debug_plan *plan)
{
	pause_call(m, go_on, (void *)(uintptr_t)plan);
}

/* ---- coming and going ---- */

static void set_stops(struct machine *m, void *stops)
{
	for (unsigned n = 0; n < m->cpu_count; n++) {
		m->cpus[n].cpu->stops = stops;
		m->cpus[n].cpu->stop.seen = false;
		let_go(&m->cpus[n], DEBUG_GO_ON, false);
	}
	if (!stops)
		end_standing(m);
}

int machine_debug_attach(struct machine *m, void (*fn)(void *), void *opaque, struct error *err)
{
	if (m->debug.fn)
		return error_set(err, EBUSY, "the machine has a debugger already");
	m->debug.stops = (struct stops){ 0 };
	m->debug.fn = fn;
	m->debug.opaque = opaque;
	pause_call(m, set_stops, &m->debug.stops);
	return 0;
}

void machine_debug_detach(struct machine *m)
{
	m->debug.fn = NULL;
	pause_call(m, set_stops, NULL);
}
