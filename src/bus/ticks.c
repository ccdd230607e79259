/*
 * Edges of periodic timers that could not be interrupts at their time, because the host ran neither the monitor nor the
 * guest in time: they come later, one after the other as the guest takes them, so that a guest that counts them keeps time. What is
 * more than TICKS_MOST is lost, and what a guest masks, as on hardware; but guests mask an interrupt while they serve it, and the host
 * may take the processor away then, too.
 */
#include "bus/private.h"

static void set(uint32_t *field, uint32_t value) { __atomic_store_n(field, value, __ATOMIC_RELAXED); }

bool ticks_deliver(struct bus *bus, struct ticks ticks, uint64_t edges, enum irq_receiver receiver)
{
	bool late = *ticks.owed, deliver = receiver == IRQ_READY && (late || edges);
	uint64_t left = *ticks.owed + MIN(edges, UINT32_MAX) - deliver;

	*ticks.masked = receiver == IRQ_NOBODY ? (uint32_t)MIN(*ticks.masked + edges, TICKS_MOST) : 0;
	if (*ticks.masked > TICKS_MASKED) {
		ticks_forget(bus, ticks);
		*ticks.masked = TICKS_MOST;
		return edges;
	}
	bus->ticks.late += edges - (deliver && !late);
	bus->ticks.reinjected += deliver && late;
	bus->ticks.given_up += left - MIN(left, TICKS_MOST);
	set(ticks.owed, (uint32_t)MIN(left, TICKS_MOST));
	return deliver;
}

void ticks_forget(struct bus *bus, struct ticks ticks)
{
	bus->ticks.given_up += *ticks.owed;
	set(ticks.owed, 0);
	*ticks.masked = 0;
}
