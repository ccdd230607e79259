/*
 * The local APIC's timer (SDM vol. 3A 11.5.4): one-shot and periodic on the core crystal clock, and TSC-deadline.
 */
#include "bus/lapic.h"

#include <errno.h>

/*
 * A periodic timer can be programmed to fire every nanosecond, which no monitor can follow: interrupts come at true multiples of
 * the period, but no closer than this (ns). The counter that the guest reads is exact.
 */
#define MIN_PERIOD 10000

static enum timer_mode mode(const struct lapic *lapic) { return TIMER_MODE(lapic->lvt[LVT_TIMER]); }

/* Divide configuration register, figure 11-10: 2, 4, ... 128, 1. */
static unsigned divide_shift(const struct lapic *lapic)
{
	unsigned n = (lapic->timer_divide & 3) | (lapic->timer_divide >> 1 & 4);

	return (n + 1) & 7;
}

static const struct clock *clock_of(const struct lapic *lapic) { return lapic->device.bus->clock; }

/* Ticks of the crystal. */
static uint64_t period(const struct lapic *lapic) { return (uint64_t)lapic->timer_initial << divide_shift(lapic); }

/* When n periods are over. */
static vtime_t expiry(const struct lapic *lapic, uint64_t n)
{
	return lapic->timer_start + clock_crystal_ns(clock_of(lapic), n * period(lapic));
}

static void arm(struct lapic *lapic, vtime_t deadline)
{
	lapic->timer_next = deadline;
	if (deadline == VTIME_NEVER)
		timer_disarm(&lapic->timer);
	else
		timer_arm(&lapic->timer, deadline);
}

static struct ticks ticks_of(struct lapic *lapic) { return (struct ticks){ &lapic->owed, &lapic->masked }; }

/* First expiry of the periodic timer after `now`, kept MIN_PERIOD away. */
static vtime_t next_expiry(const struct lapic *lapic, vtime_t now)
{
	vtime_t after = now + (expiry(lapic, 1) - lapic->timer_start < MIN_PERIOD ? MIN_PERIOD - 1 : 0);

	return expiry(lapic, clock_crystal_ticks(clock_of(lapic), after - lapic->timer_start) / period(lapic) + 1);
}

/* Arm for tsc_deadline; true when it has passed already: the caller delivers, without timer_lock. */
static bool arm_deadline(struct lapic *lapic)
{
	uint64_t now = clock_tsc(lapic->device.bus->clock), tsc = now + lapic->ops->tsc_offset(lapic->cpu);
	uint64_t left = lapic->tsc_deadline - tsc;

	if (!lapic->tsc_deadline) {
		arm(lapic, VTIME_NEVER);
		return false;
	}
	if (lapic->tsc_deadline <= tsc) {
		lapic->tsc_deadline = 0; /* the timer disarms itself when it fires */
		arm(lapic, VTIME_NEVER);
		return true;
	}
	arm(lapic, left < UINT64_MAX - now ? clock_tsc_deadline(clock_of(lapic), now + left) : VTIME_NEVER);
	return false;
}

static enum irq_receiver receiver(struct lapic *lapic)
{
	uint32_t lvt = lapic->lvt[LVT_TIMER];

	if ((lvt & LVT_MASKED) || LVT_MODE(lvt) != DELIVER_FIXED || !lapic_enabled(lapic))
		return IRQ_NOBODY;
	return lapic_requested(lapic, (uint8_t)lvt) ? IRQ_WAITS : IRQ_READY;
}

static uint64_t periods_at(const struct lapic *lapic, vtime_t t)
{
	return clock_crystal_ticks(clock_of(lapic), t - lapic->timer_start) / period(lapic);
}

/* The periodic timer's expiries up to now; under timer_lock, so that two threads do not deliver the same one. True: it has. */
static bool periodic_due(struct lapic *lapic, vtime_t now)
{
	uint64_t expiries = 0;
	bool deliver;

	if (lapic->timer_next <= now) {
		expiries = periods_at(lapic, now) - periods_at(lapic, lapic->timer_next) + 1;
		arm(lapic, next_expiry(lapic, now));
	}
	deliver = !lapic->device.bus->reinject || expiry(lapic, 1) - lapic->timer_start < MIN_PERIOD
			  ? expiries
			  : ticks_deliver(lapic->device.bus, ticks_of(lapic), expiries, receiver(lapic));
	if (deliver)
		lapic_local_interrupt(lapic, LVT_TIMER);
	return deliver;
}

/* Without timer_lock. */
static void trace_fired(const struct lapic *lapic)
{
	TRACE(lapic->device.bus->trace, TIMERS, "cpu %u: local APIC timer fired", lapic->id);
}

void lapic_timer_taken(struct lapic *lapic)
{
	bool fired = false;

	pthread_mutex_lock(&lapic->timer_lock);
	if (lapic->owed && mode(lapic) == TIMER_PERIODIC && lapic->timer_next != VTIME_NEVER)
		fired = periodic_due(lapic, clock_now(lapic->device.bus->clock));
	pthread_mutex_unlock(&lapic->timer_lock);
	if (fired)
		trace_fired(lapic);
}

/* In the thread that runs the clock; a write of the CPU's may have come first and moved or stopped the timer. */
static void timer_fired(void *opaque)
{
	struct lapic *lapic = opaque;
	vtime_t now = clock_now(lapic->device.bus->clock);
	bool deliver = false, fired = false;

	pthread_mutex_lock(&lapic->timer_lock);
	if (lapic->timer_next != VTIME_NEVER && lapic->timer_next > now) {
		arm(lapic, lapic->timer_next);
	} else if (lapic->timer_next != VTIME_NEVER) {
		switch (mode(lapic)) {
		case TIMER_TSC_DEADLINE: deliver = arm_deadline(lapic); break;
		case TIMER_PERIODIC: fired = periodic_due(lapic, now); break;
		default:
			deliver = true;
			arm(lapic, VTIME_NEVER);
			break;
		}
	}
	pthread_mutex_unlock(&lapic->timer_lock);
	if (deliver || fired)
		trace_fired(lapic);
	if (deliver)
		lapic_local_interrupt(lapic, LVT_TIMER);
}

void lapic_timer_init(struct lapic *lapic)
{
	timer_init(&lapic->timer, lapic->device.bus->clock, "lapic", timer_fired, lapic);
}

int lapic_timer_loaded(struct lapic *lapic, struct error *err)
{
	if (lapic->timer_next != VTIME_NEVER && mode(lapic) != TIMER_TSC_DEADLINE && !lapic->timer_initial)
		return error_set(err, EINVAL, "lapic %u: timer_next 0x%llx, but timer_initial is 0", lapic->id,
				 (unsigned long long)lapic->timer_next);
	return 0;
}

void lapic_timer_attach(struct lapic *lapic)
{
	vtime_t now = clock_now(lapic->device.bus->clock);

	/* Only a made-up record tells of the future. A divider that was changed soon after power-on may have put it before that. */
	if ((int64_t)(now - lapic->timer_start) < 0)
		lapic->timer_start = now;
	pthread_mutex_lock(&lapic->timer_lock);
	arm(lapic, lapic->timer_next);
	pthread_mutex_unlock(&lapic->timer_lock);
}

/* Of a count that is over, 0, also when the mode has become periodic since: only a new initial count starts it (11.5.4). */
static uint32_t current_count(const struct lapic *lapic, vtime_t now)
{
	uint64_t ticks = clock_crystal_ticks(clock_of(lapic), now - lapic->timer_start) >> divide_shift(lapic);

	if (lapic->timer_next == VTIME_NEVER || mode(lapic) > TIMER_PERIODIC)
		return 0;
	if (mode(lapic) == TIMER_PERIODIC)
		return lapic->timer_initial - (uint32_t)(ticks % lapic->timer_initial);
	return ticks >= lapic->timer_initial ? 0 : lapic->timer_initial - (uint32_t)ticks;
}

uint32_t lapic_timer_current(struct lapic *lapic)
{
	uint32_t count;

	pthread_mutex_lock(&lapic->timer_lock);
	count = current_count(lapic, clock_now(lapic->device.bus->clock));
	pthread_mutex_unlock(&lapic->timer_lock);
	return count;
}

/* As if the count had begun, by today's registers, when it would have come to `count` now. */
static void go_on_from(struct lapic *lapic, uint32_t count, vtime_t now)
{
	uint64_t over = (uint64_t)(lapic->timer_initial - count) << divide_shift(lapic);

	lapic->timer_start = now - clock_crystal_ns(clock_of(lapic), over);
	if (lapic->timer_next != VTIME_NEVER && mode(lapic) <= TIMER_PERIODIC)
		arm(lapic, expiry(lapic, 1));
}

/* The count in progress becomes what the registers say: the timer expires when the first `initial` ticks are over. */
static void restart(struct lapic *lapic, vtime_t now)
{
	lapic->timer_start = now;
	ticks_forget(lapic->device.bus, ticks_of(lapic));
	if (!lapic->timer_initial || mode(lapic) > TIMER_PERIODIC)
		arm(lapic, VTIME_NEVER);
	else
		arm(lapic, expiry(lapic, 1));
}

void lapic_timer_set_initial(struct lapic *lapic, uint32_t value)
{
	if (mode(lapic) == TIMER_TSC_DEADLINE) /* ignored, 11.5.4.1 */
		return;
	pthread_mutex_lock(&lapic->timer_lock);
	lapic->timer_initial = value;
	restart(lapic, clock_now(lapic->device.bus->clock));
	pthread_mutex_unlock(&lapic->timer_lock);
}

/* A new divider applies to what is left of the count. */
void lapic_timer_set_divide(struct lapic *lapic, uint32_t value)
{
	vtime_t now = clock_now(lapic->device.bus->clock);
	uint32_t count;

	pthread_mutex_lock(&lapic->timer_lock);
	count = current_count(lapic, now);
	lapic->timer_divide = value & 0xb;
	go_on_from(lapic, count, now);
	pthread_mutex_unlock(&lapic->timer_lock);
}

void lapic_timer_set_lvt(struct lapic *lapic, uint32_t value)
{
	vtime_t now = clock_now(lapic->device.bus->clock);
	enum timer_mode old;
	uint32_t count;

	timer_fired(lapic); /* what is due expires in the mode that it was due in */
	pthread_mutex_lock(&lapic->timer_lock);
	old = mode(lapic);
	count = current_count(lapic, now);
	lapic_put(lapic->lvt[LVT_TIMER], value);
	if (mode(lapic) != old)
		ticks_forget(lapic->device.bus, ticks_of(lapic));
	if (mode(lapic) != old && (mode(lapic) > TIMER_PERIODIC || old > TIMER_PERIODIC)) {
		/* Between TSC-deadline and the others the timer is disarmed. */
		lapic->tsc_deadline = 0;
		lapic->timer_initial = 0;
		arm(lapic, VTIME_NEVER);
	} else if (mode(lapic) != old) {
		/* The count in progress goes on, as the last or the first of its kind. */
		go_on_from(lapic, count, now);
	}
	pthread_mutex_unlock(&lapic->timer_lock);
}

uint64_t lapic_timer_deadline(struct lapic *lapic)
{
	uint64_t deadline;

	pthread_mutex_lock(&lapic->timer_lock);
	deadline = mode(lapic) == TIMER_TSC_DEADLINE ? lapic->tsc_deadline : 0;
	pthread_mutex_unlock(&lapic->timer_lock);
	return deadline;
}

void lapic_timer_set_deadline(struct lapic *lapic, uint64_t tsc)
{
	bool deliver;

	if (mode(lapic) != TIMER_TSC_DEADLINE) /* ignored, 11.5.4.1 */
		return;
	pthread_mutex_lock(&lapic->timer_lock);
	lapic->tsc_deadline = tsc;
	deliver = arm_deadline(lapic);
	pthread_mutex_unlock(&lapic->timer_lock);
	if (deliver)
		lapic_local_interrupt(lapic, LVT_TIMER);
}

void lapic_tsc_changed(struct lapic *lapic) { lapic_timer_set_deadline(lapic, lapic_timer_deadline(lapic)); }
