/*
 * A vCPU with memory and nothing else, for unit tests of cpu/: no engine, a device that answers a pattern, interrupts
 * from a variable.
 */
#ifndef TESTS_BARE_CPU_H
#define TESTS_BARE_CPU_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/cpu.h"

#define BARE_RAM (16ull << 20)

struct bare_cpu {
	struct vcpu *v;
	struct guest_mem *mem;
	struct trace trace;
	struct cpu_model model;
	int interrupt; /* what interrupt_take answers; -1 none */
	unsigned interrupts_taken;
	gpa_t device_address; /* of the last device access */
	unsigned device_size, device_accesses;
	uint64_t device_value; /* last one written */
	unsigned exclusive_sections, sections_left;
	void (*in_exclusive)(struct bare_cpu *); /* runs before the section */
};

static uint64_t bare_mmio_read(struct vcpu *v, gpa_t a, unsigned size)
{
	struct bare_cpu *b = v->env_opaque;
	uint64_t value = 0;

	b->device_address = a;
	b->device_size = size;
	b->device_accesses++;
	for (unsigned n = 0; n < size; n++)
		value |= (uint64_t)(uint8_t)(a.v + n) << 8 * n;
	return value;
}

static void bare_mmio_write(struct vcpu *v, gpa_t a, unsigned size, uint64_t value)
{
	struct bare_cpu *b = v->env_opaque;

	b->device_address = a;
	b->device_size = size;
	b->device_accesses++;
	b->device_value = value;
}

static int bare_interrupt_take(struct vcpu *v)
{
	struct bare_cpu *b = v->env_opaque;
	int vector = b->interrupt;

	if (vector >= 0)
		b->interrupts_taken++;
	b->interrupt = -1;
	return vector;
}

static bool bare_interrupt_pending(struct vcpu *v)
{
	struct bare_cpu *b = v->env_opaque;

	return b->interrupt >= 0;
}

static void bare_exclusive(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg)
{
	struct bare_cpu *b = v->env_opaque;

	b->exclusive_sections++;
	if (b->in_exclusive)
		b->in_exclusive(b);
	fn(v, arg);
	b->sections_left++;
}

static const struct vcpu_env bare_env = {
	.mmio_read = bare_mmio_read,
	.mmio_write = bare_mmio_write,
	.interrupt_take = bare_interrupt_take,
	.interrupt_pending = bare_interrupt_pending,
	.exclusive = bare_exclusive,
};

static inline int bare_cpu_setup(void **state)
{
	struct bare_cpu *b = test_calloc(1, sizeof(*b));
	struct error err;

	for (unsigned n = 0; n < FEATURE_COUNT; n++)
		b->model.features[n] = true;
	b->model.signature = 0x306c3;
	b->interrupt = -1;
	b->mem = mem_create(BARE_RAM, &err);
	assert_non_null(b->mem);
	b->v = vcpu_create(sizeof(struct vcpu), 0, &b->model, b->mem, NULL, &b->trace, &bare_env, b, &err);
	assert_non_null(b->v);
	*state = b;
	return 0;
}

static inline int bare_cpu_teardown(void **state)
{
	struct bare_cpu *b = *state;

	vcpu_destroy(b->v);
	mem_destroy(b->mem);
	test_free(b);
	return 0;
}

static inline void put(struct bare_cpu *b, uint64_t address, uint64_t value, unsigned size)
{
	assert_int_equal(mem_write(b->mem, gpa(address), &value, size), 0);
}

static inline uint64_t get(struct bare_cpu *b, uint64_t address, unsigned size)
{
	uint64_t value = 0;

	assert_int_equal(mem_read(b->mem, gpa(address), &value, size), 0);
	return value;
}

/* Run `statement`; true if it raised, with the fault in v->fault. */
#define RAISES(v, statement)                                                                                           \
	({                                                                                                             \
		volatile bool raised_ = true;                                                                          \
		if (!setjmp((v)->fault_jmp)) {                                                                         \
			statement;                                                                                     \
			raised_ = false;                                                                               \
		}                                                                                                      \
		raised_;                                                                                               \
	})

#endif
