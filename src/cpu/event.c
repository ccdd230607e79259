/*
 * What happens to a processor between instructions, and when one of them faults: raising, the double-fault rules, the order
 * of INIT, debug traps, NMI and interrupts (SDM vol. 3A 6.9), interrupt shadows, single steps and breakpoints.
 */
#include "cpu/private.h"

/* ---- raising ---- */

void cpu_raise_again(struct vcpu *v)
{
	if (v->fast_catch)
		__builtin_longjmp(v->fast_catch, 1);
	longjmp(v->fault_jmp, 1);
}

void cpu_raise_fault(struct vcpu *v, struct fault fault)
{
	v->fault = fault;
	cpu_raise_again(v);
}

void cpu_raise(struct vcpu *v, enum vector vector) { cpu_raise_fault(v, (struct fault){ .vector = (uint8_t)vector }); }

void cpu_raise_error(struct vcpu *v, enum vector vector, uint32_t error)
{
	cpu_raise_fault(v, (struct fault){ .vector = (uint8_t)vector, .has_error = true, .error = error });
}

void cpu_raise_page_fault(struct vcpu *v, gva_t address, uint32_t error)
{
	cpu_raise_fault(v, (struct fault){ .vector = EXC_PF, .has_error = true, .error = error, .address = address.v });
}

void cpu_freeze(struct vcpu *v) { cpu_raise_fault(v, (struct fault){ .freeze = true }); }

void cpu_give_up(struct vcpu *v) { cpu_raise_fault(v, (struct fault){ .lost = true }); }

/* ---- delivery, and faults on the way ---- */

enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT }; /* table 6-5 */

static enum fault_class fault_class(const struct delivery *d)
{
	if (d->kind != DELIVERY_EXCEPTION)
		return BENIGN;
	switch (d->vector) {
	case EXC_DE:
	case EXC_TS:
	case EXC_NP:
	case EXC_SS:
	case EXC_GP: return CONTRIBUTORY;
	case EXC_PF: return PAGE_FAULT;
	default: return BENIGN;
	}
}

/* Faults restart their instruction, with RF set so that its breakpoint does not strike again; traps and aborts do not. */
static bool is_fault(uint8_t vector)
{
	return vector != EXC_NMI && vector != EXC_BP && vector != EXC_OF && vector != EXC_DF && vector != EXC_MC;
}

/* An exception takes shape: what is counted, traced and seen in CR2, whether or not a double fault swallows it. */
static struct delivery exception(struct vcpu *v, const struct fault *f)
{
	v->switching = false;
	if (f->vector == EXC_PF) {
		v->s.cr2 = f->address;
		v->count[COUNT_PAGE_FAULTS]++;
		TRACE(v->trace, PAGE_FAULTS, "cpu%u rip %#lx address %#lx error %#x", v->index, v->s.rip, f->address,
		      f->error);
	} else {
		TRACE(v->trace, EXCEPTIONS, "cpu%u rip %#lx vector %u error %#x", v->index, v->s.rip, f->vector,
		      f->error);
	}
	v->count[COUNT_EXCEPTIONS]++;
	return (struct delivery){
		.vector = f->vector,
		.kind = f->soft ? DELIVERY_SOFTWARE : DELIVERY_EXCEPTION,
		.has_error = f->has_error,
		.error = f->error,
		.resume = !f->soft && is_fault(f->vector),
		.return_rip = v->s.rip,
	};
}

/* Own function: nothing that lives across the longjmp may be a local variable beside setjmp. */
static bool __attribute__((noinline)) try_delivery(struct vcpu *v, const struct delivery *d)
{
	if (setjmp(v->fault_jmp))
		return false;
	cpu_deliver(v, d);
	return true;
}

static bool triple_fault(struct vcpu *v)
{
	TRACE(v->trace, EXCEPTIONS, "cpu%u rip %#lx triple fault", v->index, v->s.rip);
	v->s.shadow = SHADOW_NONE;
	v->s.activity = CPU_SHUTDOWN;
	vcpu_post(v, EVENT_HALTED);
	return false;
}

/*
 * Faults on the way to one handler. Benign ones are handled one after the other, which may go on for ever: an alignment check on the way to
 * the handler of alignment checks, where that is of CPL 3, comes back. A processor hangs; here the instruction is begun again, so that
 * the monitor gets its turn.
 */
#define ENDLESS_FAULTS 16

/* Deliver, with what table 6-5 makes of faults on the way. False: triple fault. */
static bool deliver(struct vcpu *v, struct delivery d)
{
	struct landing outer;
	bool alive = true;

	landing_put_aside(v, &outer);
	d.resume |= v->repeating;
	v->repeating = false;
	v->delivering = true;
	v->delivered = (struct fault){ .vector = d.vector, .has_error = d.has_error, .error = d.error };
	for (unsigned n = 0; alive && n < ENDLESS_FAULTS && !try_delivery(v, &d) && !v->fault.lost; n++) {
		enum fault_class first = fault_class(&d);
		bool was_double = d.kind == DELIVERY_EXCEPTION && d.vector == EXC_DF;
		struct delivery next = exception(v, &v->fault);
		enum fault_class second = fault_class(&next);

		if (was_double && second != BENIGN) {
			alive = triple_fault(v);
		} else if ((first == CONTRIBUTORY && second == CONTRIBUTORY) ||
			   (first == PAGE_FAULT && second != BENIGN)) {
			const struct fault double_fault = { .vector = EXC_DF, .has_error = true };

			next = exception(v, &double_fault);
		}
		d = next;
		v->delivered = (struct fault){ .vector = d.vector, .has_error = d.has_error, .error = d.error };
	}
	v->delivering = false;
	landing_put_back(v, &outer);
	return alive;
}

/* As in HLT, but before the instruction, which was no step. */
static bool freeze(struct vcpu *v)
{
	v->step_trap = v->step_resume = false;
	v->s.shadow = SHADOW_NONE; /* what it waits for must get in */
	v->s.activity = CPU_HALTED;
	vcpu_post(v, EVENT_HALTED);
	return true;
}

bool cpu_deliver_fault(struct vcpu *v)
{
	if (v->fault.freeze)
		return freeze(v);
	if (v->fault.lost)
		return true;
	/*
	 * Data breakpoints that the instruction met before it faulted strike when it is run again; those that a load of SS held back
	 * are lost (SDM vol. 3B 17.3.1.2).
	 */
	v->s.pending_debug &= ~DR6_B;
	return deliver(v, exception(v, &v->fault));
}

bool cpu_deliver_interrupt(struct vcpu *v, uint8_t vector, bool nmi)
{
	struct delivery d = { .vector = vector, .kind = DELIVERY_EXTERNAL, .return_rip = v->s.rip };

	v->count[nmi ? COUNT_NMIS : COUNT_INTERRUPTS]++;
	TRACE(v->trace, INTERRUPTS, "cpu%u rip %#lx %s %u", v->index, v->s.rip, nmi ? "NMI" : "vector", vector);
	if (nmi)
		v->s.nmi_blocked = 1;
	return deliver(v, d);
}

void cpu_unblock_nmi(struct vcpu *v)
{
	v->s.nmi_blocked = 0;
	if (v->s.nmi_pending)
		vcpu_post(v, EVENT_STEP);
}

/* ---- debug exceptions ---- */

void cpu_report_debug(struct vcpu *v, uint64_t dr6)
{
	dr6 |= v->s.pending_debug;
	v->s.pending_debug = 0;
	if (dr6)
		v->s.dr[6] = (v->s.dr[6] & ~DR6_B) | dr6;
	v->s.msr_debugctl &= ~(DEBUGCTL_LBR | DEBUGCTL_BTF);
}

static bool deliver_debug(struct vcpu *v, uint64_t dr6)
{
	struct fault f = { .vector = EXC_DB };
	struct delivery d = exception(v, &f);

	cpu_report_debug(v, dr6);
	d.resume = false; /* a trap, or an instruction breakpoint: its handler decides */
	return deliver(v, d);
}

/*
 * Breakpoints on the instruction at CS:RIP: R/W is 00. Behind a load of SS Intel's processors suppress them (SDM vol. 3B 17.3.1.1),
 * AMD's take them.
 */
static uint64_t instruction_breakpoints(const struct vcpu *v)
{
	uint64_t hit = 0, lin = v->s.rip;

	if ((v->s.rflags & FLAG_RF) || (v->s.shadow == SHADOW_MOV_SS && !is_amd(v->model)))
		return 0;
	if (v->code_mode != MODE_64)
		lin = (uint32_t)(lin + v->s.seg_base[CS]);
	for (unsigned n = 0; n < 4; n++)
		if (bits(v->s.dr[7], 2 * n + 1, 2 * n) && !bits(v->s.dr[7], 17 + 4 * n, 16 + 4 * n) &&
		    v->s.dr[n] == lin)
			hit |= BIT(n);
	return hit;
}

/*
 * Remember what the next instruction begins with, or that nothing needs it to run alone. A shadow is ended by
 * cpu_after_step() and not here: the engine may return between the two, and the shadow must still be there then.
 */
static void prepare_step(struct vcpu *v)
{
	v->step_trap = v->s.rflags & FLAG_TF;
	v->step_resume = v->s.rflags & FLAG_RF;
	v->step_rip = v->s.rip;
	v->step_shadow = v->s.shadow;
	if (v->step_trap || v->step_resume || v->stop.step || v->stop.pass || v->s.shadow || v->s.pending_debug ||
	    (v->s.dr[7] & DR7_ENABLES))
		vcpu_post(v, EVENT_STEP);
	else
		atomic_fetch_and(&v->events, ~(uint32_t)EVENT_STEP);
}

/*
 * With DEBUGCTL.BTF, TF traps after branches alone (SDM vol. 3B 17.4.3). An iteration of a repeated instruction
 * is none; a branch to the very next instruction passes for none too.
 */
static bool step_traps(const struct vcpu *v)
{
	bool branched = v->s.rip != v->step_rip && v->s.rip != v->step_next;

	return v->step_trap && v->s.shadow != SHADOW_MOV_SS && (branched || !(v->s.msr_debugctl & DEBUGCTL_BTF));
}

void cpu_after_step(struct vcpu *v)
{
	/* A shadow of another kind is a new one. Of two loads of SS in a row only the first has one, as the manual allows. */
	if (v->s.shadow == v->step_shadow)
		v->s.shadow = SHADOW_NONE;
	if (step_traps(v))
		v->s.pending_debug |= DR6_BS;
	if (v->step_resume)
		v->s.rflags &= ~FLAG_RF;
	v->step_trap = v->step_resume = false;
	v->step_shadow = SHADOW_NONE;
	if (unlikely(v->stops))
		cpu_stop_after_step(v);
}

/* ---- events ---- */

/* True if it was there. */
static bool take_event(struct vcpu *v, uint32_t event) { return atomic_fetch_and(&v->events, ~event) & event; }

static void start_at_sipi(struct vcpu *v)
{
	v->s.seg_sel[CS] = (uint16_t)(v->sipi_vector << 8);
	v->s.seg_base[CS] = (uint64_t)v->sipi_vector << 12;
	v->s.rip = 0;
	v->s.activity = CPU_RUNNING;
	cpu_update_mode(v);
}

static void handle_init_and_sipi(struct vcpu *v, uint32_t events)
{
	if ((events & EVENT_INIT) && take_event(v, EVENT_INIT)) {
		TRACE(v->trace, APIC, "cpu%u INIT", v->index);
		cpu_reset(v, true);
	}
	/* A SIPI counts only while it is waited for. */
	if ((events & EVENT_SIPI) && take_event(v, EVENT_SIPI) && v->s.activity == CPU_WAIT_SIPI) {
		TRACE(v->trace, APIC, "cpu%u SIPI, vector %#x", v->index, v->sipi_vector);
		start_at_sipi(v);
	}
}

static bool accepts_interrupts(const struct vcpu *v)
{
	return v->s.activity == CPU_RUNNING || v->s.activity == CPU_HALTED;
}

static bool handle_interrupt(struct vcpu *v)
{
	int vector;

	if (!(v->s.rflags & FLAG_IF) || !accepts_interrupts(v)) {
		take_event(v, EVENT_INTERRUPT);
		v->interrupt_wanted = true;
		return true;
	}
	/* It comes back after the instruction, which runs alone. */
	if (v->s.shadow || (v->stop.quiet && v->s.activity == CPU_RUNNING))
		return true;
	/* Before asking: a line that rises from here on posts again. */
	take_event(v, EVENT_INTERRUPT);
	vector = v->env->interrupt_take(v);
	v->interrupt_wanted = false;
	if (vector < 0)
		return true;
	if (!cpu_deliver_interrupt(v, (uint8_t)vector, false))
		return false;
	if (v->env->interrupt_pending(v)) {
		v->interrupt_wanted = true;
		if (v->s.rflags & FLAG_IF)
			vcpu_post(v, EVENT_INTERRUPT);
	}
	return true;
}

static bool deliver_pending_debug(struct vcpu *v)
{
	if (!v->s.pending_debug || v->s.shadow == SHADOW_MOV_SS || !accepts_interrupts(v))
		return true;
	return deliver_debug(v, 0);
}

/*
 * While NMIs are blocked one is kept, any more are lost. Of two that meet at one boundary, which a processor would have seen one
 * after the other, the first is taken and the second kept.
 */
static void collect_nmis(struct vcpu *v)
{
	unsigned arrived = take_event(v, EVENT_NMI) + take_event(v, EVENT_NMI_2);

	v->s.nmi_pending = (uint8_t)MIN(v->s.nmi_pending + arrived, v->s.nmi_blocked ? 1u : 2u);
}

bool cpu_handle_events(struct vcpu *v)
{
	uint32_t events = atomic_load(&v->events);
	bool alive;

	handle_init_and_sipi(v, events);
	if (v->s.activity != CPU_RUNNING) /* a snapshot may say otherwise: no next instruction, nothing to hold back */
		v->s.shadow = SHADOW_NONE;
	alive = deliver_pending_debug(v);
	if (events & EVENT_NMIS)
		collect_nmis(v);
	if (alive && v->s.nmi_pending && !v->s.nmi_blocked && v->s.shadow != SHADOW_MOV_SS && accepts_interrupts(v)) {
		v->s.nmi_pending--;
		alive = cpu_deliver_interrupt(v, EXC_NMI, true);
	}
	/* Asked anew: what was delivered may have set IF. */
	if (alive && (atomic_load(&v->events) & EVENT_INTERRUPT))
		alive = handle_interrupt(v);
	/* Of delivery itself: a new task's T bit, a data breakpoint on the stack. */
	if (alive)
		alive = deliver_pending_debug(v);
	if (alive && v->s.activity == CPU_RUNNING && unlikely(v->s.dr[7] & DR7_ENABLES)) {
		uint64_t dr6 = instruction_breakpoints(v);

		if (dr6)
			alive = deliver_debug(v, dr6);
	}

	prepare_step(v);
	if (v->s.activity != CPU_RUNNING)
		vcpu_post(v, EVENT_HALTED);
	else
		take_event(v, EVENT_HALTED);
	return alive;
}

bool cpu_has_work(struct vcpu *v)
{
	uint32_t events = atomic_load(&v->events);

	switch (v->s.activity) {
	case CPU_WAIT_SIPI: return events & (EVENT_INIT | EVENT_SIPI);
	case CPU_SHUTDOWN: return events & EVENT_INIT;
	case CPU_HALTED:
		return (events & (EVENT_INIT | EVENT_NMIS | EVENT_INTERRUPT)) ||
		       (v->s.nmi_pending && !v->s.nmi_blocked) || v->s.pending_debug;
	default: return true;
	}
}
