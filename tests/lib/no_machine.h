/*
 * Parts of an environment (struct vcpu_env) for a vCPU without a machine around it: a bus that nobody drives, no interrupts, no other vCPU.
 */
#ifndef TESTS_NO_MACHINE_H
#define TESTS_NO_MACHINE_H

#include "engine/engine.h"

static inline uint32_t no_pio_read(struct vcpu *v, uint16_t port, unsigned size)
{
	(void)v, (void)port, (void)size;
	return UINT32_MAX;
}
static inline void no_pio_write(struct vcpu *v, uint16_t port, unsigned size, uint32_t value)
{
	(void)v, (void)port, (void)size, (void)value;
}
static inline uint64_t no_mmio_read(struct vcpu *v, gpa_t at, unsigned size)
{
	(void)v, (void)at, (void)size;
	return UINT64_MAX;
}
static inline void no_mmio_write(struct vcpu *v, gpa_t at, unsigned size, uint64_t value)
{
	(void)v, (void)at, (void)size, (void)value;
}
#define NO_DEVICES                                                                                                     \
	.pio_read = no_pio_read, .pio_write = no_pio_write, .mmio_read = no_mmio_read, .mmio_write = no_mmio_write

static inline int no_interrupt_take(struct vcpu *v)
{
	(void)v;
	return -1;
}
static inline bool no_interrupt_pending(struct vcpu *v)
{
	(void)v;
	return false;
}
static inline uint8_t no_tpr_read(struct vcpu *v)
{
	(void)v;
	return 0;
}
static inline void no_tpr_write(struct vcpu *v, uint8_t tpr) { (void)v, (void)tpr; }
static inline int no_apic_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	(void)v, (void)msr, (void)value;
	return -1;
}
static inline int no_apic_msr_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	(void)v, (void)msr, (void)value;
	return -1;
}
#define NO_INTERRUPTS .interrupt_take = no_interrupt_take, .interrupt_pending = no_interrupt_pending
#define NO_APIC                                                                                                        \
	.tpr_read = no_tpr_read, .tpr_write = no_tpr_write, .apic_msr_read = no_apic_msr_read,                         \
	.apic_msr_write = no_apic_msr_write

static inline void alone_exclusive(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg) { fn(v, arg); }
#define ALONE .exclusive = alone_exclusive

/* The machine's one vCPU, which nothing has been made for yet and has ops->vcpu_size, gets its engine. engine and peers outlive it. */
static inline int alone_on_engine(struct engine *engine, struct vcpu *v, struct vcpu *peers[1],
				  const struct engine_ops *ops, const struct engine_options *options, struct error *err)
{
	int ret = engine_open(engine, ops, options, v->mem, err);

	if (ret)
		return ret;
	peers[0] = v;
	v->peers = peers;
	v->peer_count = 1;
	ret = engine_add_vcpu(engine, v, err);
	if (ret)
		engine_close(engine);
	return ret;
}

/* Frees the vCPU, too. */
static inline void alone_destroy(struct vcpu *v)
{
	struct engine *engine = v->engine;

	engine_remove_vcpu(v);
	engine_close(engine);
	vcpu_destroy(v);
}

#endif
