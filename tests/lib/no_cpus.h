/*
 * CPUs that nothing impresses, for an interrupt controller without processors.
 */
#ifndef DOPPEL_TESTS_NO_CPUS_H
#define DOPPEL_TESTS_NO_CPUS_H

#include "bus/bus.h"

static inline void no_cpu_ignores(void *cpu) { (void)cpu; }

static inline void no_cpu_ignores_sipi(void *cpu, uint8_t vector) { (void)cpu, (void)vector; }

static inline uint64_t no_cpu_offset(void *cpu)
{
	(void)cpu;
	return 0;
}

static const struct lapic_ops no_cpus = { .interrupt = no_cpu_ignores,
					  .nmi = no_cpu_ignores,
					  .init = no_cpu_ignores,
					  .sipi = no_cpu_ignores_sipi,
					  .tsc_offset = no_cpu_offset };

#endif
