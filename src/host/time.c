/*
 * The host's clocks.
 */
#include "host/host.h"

#include <time.h>

static uint64_t read_clock_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t host_monotonic_ns(void) { return read_clock_ns(CLOCK_MONOTONIC); }

uint64_t host_realtime_ns(void) { return read_clock_ns(CLOCK_REALTIME); }
