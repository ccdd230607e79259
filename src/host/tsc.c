/*
 * The processor's time-stamp counter as a clock: cheaper to read than the kernel's, also by translated code.
 */
#include "host/host.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#define SPAN_NS 4000000 /* two readings lie so far apart */
#define TRIES	16

/* A reading of both clocks at one moment, as nearly as several tries can tell. */
struct reading {
	uint64_t tsc, ns;
};

static struct reading read_both(void)
{
	struct reading best = { 0 };
	uint64_t shortest = UINT64_MAX;

	for (unsigned n = 0; n < TRIES; n++) {
		uint64_t before = __rdtsc(), ns = host_monotonic_ns(), took = __rdtsc() - before;

		if (took < shortest) {
			shortest = took;
			best = (struct reading){ before + took / 2, ns };
		}
	}
	return best;
}

/* It runs at one rate whatever the processor does: CPUID.80000007H:EDX[8]. */
static bool is_invariant(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & BIT(8));
}

/* A kernel that found it wanting uses another one. */
static bool is_trusted(void)
{
	FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
	char name[64] = "";

	if (!file)
		return true;
	if (!fgets(name, sizeof(name), file))
		name[0] = 0;
	fclose(file);
	return !strncmp(name, "tsc", 3) || !strncmp(name, "kvm-clock", 9) || !strncmp(name, "hyperv", 6);
}

uint64_t host_tsc_hz(void)
{
	struct timespec pause = { 0, SPAN_NS };
	struct reading start, end;

	if (!is_invariant() || !is_trusted())
		return 0;
	start = read_both();
	nanosleep(&pause, NULL);
	end = read_both();
	if (end.tsc <= start.tsc || end.ns <= start.ns)
		return 0;
	return (uint64_t)((__uint128_t)(end.tsc - start.tsc) * 1000000000 / (end.ns - start.ns));
}
