/*
 * Stops that a debugger outside of the guest asks for. Breakpoints cost nothing where there are none: decoded code is cut at them, so that the engine comes
 * by. Watches are found where every data access is looked at; steps, where single instructions run alone (EVENT_STEP).
 */
#include "cpu/private.h"

void cpu_stops_changed(struct vcpu *v) { cpu_update_mode(v); }

static uint64_t deliveries(const struct vcpu *v)
{
	return v->count[COUNT_INTERRUPTS] + v->count[COUNT_NMIS] + v->count[COUNT_EXCEPTIONS];
}

void cpu_stop_let_go(struct vcpu *v, bool step, bool pass, bool quiet)
{
	atomic_fetch_and(&v->events, ~(uint32_t)EVENT_STOP);
	v->stop = (struct stop){ .step = step, .pass = pass, .quiet = quiet, .deliveries = deliveries(v) };
	if (step || pass)
		vcpu_post(v, EVENT_STEP);
}

static bool has_breakpoint(const struct vcpu *v, uint64_t lin)
{
	if (!cpu_is_cut(v, lin))
		return false;
	for (unsigned n = 0; n < v->stops->breakpoint_count; n++)
		if (v->stops->breakpoints[n] == lin)
			return true;
	return false;
}

bool cpu_stops_here(struct vcpu *v)
{
	uint64_t lin = v->code_mode == MODE_64 ? v->s.rip : (uint32_t)(v->s.seg_base[CS] + v->s.rip);

	if (likely(!v->stops))
		return false;
	if (v->stop.step && deliveries(v) != v->stop.deliveries)
		v->stop.kind = STOP_STEP;
	else if (!v->stop.pass && !v->repeating && has_breakpoint(v, lin))
		v->stop.kind = STOP_BREAKPOINT;
	return v->stop.kind;
}

void cpu_stop_after_step(struct vcpu *v)
{
	v->stop.pass = false;
	if (!v->stop.step) {
		v->stop.quiet = false;
		return;
	}
	if (!v->stop.kind)
		v->stop.kind = STOP_STEP;
	vcpu_post(v, EVENT_STOP);
}

void cpu_note_watches(struct vcpu *v, uint64_t lin, unsigned size, unsigned kinds)
{
	for (unsigned n = 0; n < v->stops->watch_count; n++) {
		const struct watchpoint *w = &v->stops->watches[n];

		if (!(w->kinds & kinds) || lin > w->start + (w->size - 1) || w->start > lin + (size - 1))
			continue;
		v->stop.kind = STOP_WATCH;
		v->stop.watch_kinds = (uint8_t)w->kinds;
		v->stop.watch_address = MAX(lin, w->start);
		vcpu_post(v, EVENT_STOP);
		/* The rest of the block is for later. */
		if (v->hooks->events_posted)
			v->hooks->events_posted(v);
		return;
	}
}
