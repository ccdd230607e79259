/*
 * What a vCPU asks of the machine around it (struct vcpu_env), and what a local APIC does to its CPU (struct lapic_ops).
 */
#define _GNU_SOURCE
#include "machine/private.h"

#include "devices/devices.h"

#include <sched.h>

#define PAUSES_BEFORE_YIELD 64

void machine_post(struct machine_cpu *mc, uint32_t events)
{
	struct machine *m = mc->machine;

	vcpu_post(mc->cpu, events);
	m->engine.ops->kick(mc->cpu);
	sleeper_wake(m->virtual_time ? &m->turn.idle : &mc->sleeper);
}

void machine_sync_time(struct vcpu *v)
{
	struct machine_cpu *mc = cpu_of(v);

	if (!mc->machine->virtual_time)
		return;
	if (v->hooks->sync_icount)
		v->hooks->sync_icount(v);
	clock_set(v->clock, mc->turn_base + v->s.icount);
}

/* ---- the A20 gate ---- */

#define A20 BIT(20)

void machine_apply_a20(struct machine *m)
{
	m->mem->address_lines = atomic_load(&m->bus->a20_closed) ? ~A20 : UINT64_MAX;
	for (unsigned i = 0; i < m->cpu_count; i++)
		cpu_tlb_flush(m->cpus[i].cpu);
}

void machine_a20_moved(struct bus_work *work)
{
	struct machine *m = container_of(work, struct bus, a20)->stopped_opaque;

	machine_apply_a20(m);
	for (unsigned i = 0; i < m->cpu_count; i++)
		vcpu_post(m->cpus[i].cpu, EVENT_EXIT); /* what follows is looked up anew */
}

static void call_with_bus(struct vcpu *v, void *fn) { ((void (*)(struct bus *))fn)(cpu_of(v)->machine->bus); }

void machine_stopped(void *machine, void (*fn)(struct bus *))
{
	exclusive_section(((struct machine *)machine)->vcpus[0], call_with_bus, (void *)fn);
}

/* ---- devices ---- */

static uint64_t access_bus(struct vcpu *v, struct bus_access access)
{
	machine_sync_time(v);
	bus_access(cpu_of(v)->machine->bus, &access);
	return access.value;
}

static uint32_t env_pio_read(struct vcpu *v, uint16_t port, unsigned size)
{
	return (uint32_t)access_bus(v, (struct bus_access){ BUS_PIO, port, (uint8_t)size, false, 0 });
}

static void env_devices_lock(struct vcpu *v, bool lock)
{
	struct bus *bus = cpu_of(v)->machine->bus;

	if (lock)
		bus_lock(bus);
	else
		bus_unlock(bus);
}

static void env_pio_write(struct vcpu *v, uint16_t port, unsigned size, uint32_t value)
{
	access_bus(v, (struct bus_access){ BUS_PIO, port, (uint8_t)size, true, value });
}

static uint64_t env_mmio_read(struct vcpu *v, gpa_t address, unsigned size)
{
	struct lapic *lapic = cpu_of(v)->lapic;

	if (lapic_claims(lapic, address)) {
		machine_sync_time(v);
		return lapic_mmio_read(lapic, address.v & ~PAGE_MASK, size);
	}
	return access_bus(v, (struct bus_access){ BUS_MMIO, address.v, (uint8_t)size, false, 0 });
}

static void env_mmio_write(struct vcpu *v, gpa_t address, unsigned size, uint64_t value)
{
	struct lapic *lapic = cpu_of(v)->lapic;

	if (lapic_claims(lapic, address)) {
		machine_sync_time(v);
		lapic_mmio_write(lapic, address.v & ~PAGE_MASK, size, value);
		return;
	}
	access_bus(v, (struct bus_access){ BUS_MMIO, address.v, (uint8_t)size, true, value });
}

/* ---- interrupts ---- */

static int env_interrupt_take(struct vcpu *v)
{
	machine_sync_time(v);
	return lapic_take(cpu_of(v)->lapic);
}

static bool env_interrupt_pending(struct vcpu *v) { return lapic_pending(cpu_of(v)->lapic); }

static uint8_t env_tpr_read(struct vcpu *v) { return lapic_tpr(cpu_of(v)->lapic); }

static void env_tpr_write(struct vcpu *v, uint8_t cr8) { lapic_set_tpr(cpu_of(v)->lapic, cr8); }

static bool env_fpu_error(struct vcpu *v, bool asserted)
{
	machine_sync_time(v);
	return v->index == 0 && coprocessor_error(cpu_of(v)->machine->bus, asserted);
}

static int env_apic_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	machine_sync_time(v);
	return lapic_msr_read(cpu_of(v)->lapic, msr, value);
}

static int env_apic_msr_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	machine_sync_time(v);
	return lapic_msr_write(cpu_of(v)->lapic, msr, value);
}

/*
 * The guest waits for another vCPU: under virtual time that one gets the turn; otherwise, when this goes on, its thread may
 * be waiting for this host CPU.
 */
static void env_pause(struct vcpu *v)
{
	struct machine_cpu *mc = cpu_of(v);

	if (mc->machine->cpu_count == 1)
		return;
	if (mc->machine->virtual_time) {
		mc->machine->turn.over = true;
		vcpu_post(v, EVENT_EXIT);
	} else if (++mc->pauses >= PAUSES_BEFORE_YIELD) {
		mc->pauses = 0;
		sched_yield();
	}
}

const struct vcpu_env machine_env = {
	.pio_read = env_pio_read,
	.pio_write = env_pio_write,
	.mmio_read = env_mmio_read,
	.mmio_write = env_mmio_write,
	.interrupt_take = env_interrupt_take,
	.interrupt_pending = env_interrupt_pending,
	.tpr_read = env_tpr_read,
	.tpr_write = env_tpr_write,
	.fpu_error = env_fpu_error,
	.apic_msr_read = env_apic_msr_read,
	.apic_msr_write = env_apic_msr_write,
	.exclusive = exclusive_section,
	.devices_lock = env_devices_lock,
	.pause = env_pause,
	.time_sync = machine_sync_time,
};

/* ---- from the local APIC, any thread ---- */

static void lapic_interrupt(void *cpu) { machine_post(cpu, EVENT_INTERRUPT); }

static void lapic_nmi(void *cpu) { machine_post(cpu, EVENT_NMI); }

static void lapic_init(void *cpu) { machine_post(cpu, EVENT_INIT); }

static void lapic_sipi(void *cpu, uint8_t vector)
{
	struct machine_cpu *mc = cpu;

	__atomic_store_n(&mc->cpu->sipi_vector, vector, __ATOMIC_SEQ_CST);
	machine_post(mc, EVENT_SIPI);
}

static uint64_t lapic_tsc_offset(void *cpu)
{
	struct machine_cpu *mc = cpu;

	return __atomic_load_n(&mc->cpu->s.tsc_offset, __ATOMIC_RELAXED);
}

const struct lapic_ops machine_lapic_ops = {
	.interrupt = lapic_interrupt,
	.nmi = lapic_nmi,
	.init = lapic_init,
	.sipi = lapic_sipi,
	.tsc_offset = lapic_tsc_offset,
};
