/*
 * map.c for bus.c: where an address leads.
 */
#ifndef DOPPEL_BUS_MAP_H
#define DOPPEL_BUS_MAP_H

#include "bus/bus.h"

#define BUS_PORTS 0x10000u

/* What a range was when it was mapped: where, and under which lock; NULL: its functions take what they need. */
struct bus_entry {
	uint64_t start, size;
	struct bus_range *range;
	struct lock *lock;
};

int bus_map_create(struct bus *);
void bus_map_destroy(struct bus *);
/*
 * Without a lock, from a vCPU's thread, or while vCPUs are stopped. The entry is true until bus->map_generation changes; its range is a device's, which
 * goes only while vCPUs and devices are paused. False: nobody answers.
 */
bool map_find(struct bus *, enum bus_space, uint64_t address, struct bus_entry *);
void map_remove_what_moves(struct bus *);

#endif
