/*
 * Edges of periodic timers that could not be interrupts at their time, because the host ran neither the monitor nor the
 * guest in time: they come later, one after the other as the guest takes them, so that a guest that counts them keeps time. What
 * a guest masks, and what is more than TICKS_MOST, is lost, as on hardware.
 */
#include "bus/private.h"

bool ticks_deliver(struct bus *bus, uint32_t *owed, uint64_t edges, enum irq_receiver receiver)
{
	bool late = *owed, deliver = receiver == IRQ_READY && (late || edges);
	uint64_t left = *owed + MIN(edges, UINT32_MAX) - deliver;

	if (receiver == IRQ_NOBODY) {
		ticks_forget(bus, owed);
		return edges;
	}
	bus->ticks.late += edges - (deliver && !late);
	bus->ticks.reinjected += deliver && late;
	bus->ticks.given_up += left - MIN(left, TICKS_MOST);
	__atomic_store_n(owed, (uint32_t)MIN(left, TICKS_MOST), __ATOMIC_RELAXED);
	return deliver;
}

void ticks_forget(struct bus *bus, uint32_t *owed)
{
	bus->ticks.given_up += *owed;
	__atomic_store_n(owed, 0, __ATOMIC_RELAXED);
}
