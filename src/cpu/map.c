/*
 * What a vCPU keeps of the map of physical addresses, when that changes.
 */
#include "cpu/private.h"

static void map_changed(void *vcpu, uint64_t start, uint64_t size)
{
	struct vcpu *v = vcpu;

	(void)start, (void)size;
	cpu_tlb_flush(v);
	vcpu_post(v, EVENT_CODE);
}

static void withdraw(void *vcpu)
{
	struct vcpu *v = vcpu;

	for (unsigned view = 0; view < TLB_VIEWS; view++)
		for (unsigned slot = 0; slot < TLB_SIZE; slot++)
			v->tlbs[view][slot].write_tag = 0;
}

void cpu_map_listen(struct vcpu *v)
{
	v->mem_listener = (struct mem_listener){ .changed = map_changed, .withdraw = withdraw, .opaque = v };
	mem_listen(v->mem, &v->mem_listener);
}
