/*
 * A vCPU with RAM, a virtual clock and page tables of its own, for tests that call the processor's functions directly.
 */
#ifndef CPU_FIXTURE_H
#define CPU_FIXTURE_H

#include "cpu/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define FIXTURE_RAM  (4ull << 20)
#define FIXTURE_PML4 0x1000u
#define FIXTURE_PDPT 0x2000u
#define FIXTURE_PD   0x3000u
#define FIXTURE_PT   0x4000u
#define FIXTURE_LIN  0x400000ull /* linear addresses that the page table at FIXTURE_PT maps: 2 MiB */

struct cpu_fixture {
	struct guest_mem *mem;
	struct clock *clock;
	struct trace trace;
	struct cpu_model model;
	struct vcpu *v, *peers[1];
};

static inline void fixture_setup(struct cpu_fixture *f, const char *model, bool pure, const struct vcpu_env *env)
{
	struct error err = { 0 };

	memset(f, 0, sizeof(*f));
	assert_int_equal(cpu_model_init(&f->model, model, pure, 1, &err), 0);
	f->mem = mem_create(FIXTURE_RAM, &err);
	assert_non_null(f->mem);
	f->clock = clock_create(CLOCK_VIRTUAL, 0, &err);
	assert_non_null(f->clock);
	clock_start(f->clock);
	f->v = vcpu_create(sizeof(struct vcpu), 0, &f->model, f->mem, f->clock, &f->trace, env, f, &err);
	assert_non_null(f->v);
	f->peers[0] = f->v;
	f->v->peers = f->peers;
	f->v->peer_count = 1;
}

static inline void fixture_teardown(struct cpu_fixture *f)
{
	vcpu_destroy(f->v);
	clock_destroy(f->clock);
	mem_destroy(f->mem);
}

static inline void fixture_poke(struct cpu_fixture *f, uint64_t at, uint64_t value)
{
	assert_int_equal(mem_write(f->mem, gpa(at), &value, sizeof(value)), 0);
}

/* Page n of the linear window: a guest physical page and the rights of its entry (1 present, 2 writable, 4 user). */
static inline void fixture_map(struct cpu_fixture *f, unsigned n, uint64_t page, uint64_t rights)
{
	fixture_poke(f, FIXTURE_PT + 8 * n, page | rights);
	cpu_tlb_flush(f->v);
}

/* 64-bit mode at CPL 0 with CR0.WP, nothing mapped but the window's tables. */
static inline void fixture_long_mode(struct cpu_fixture *f)
{
	struct vcpu *v = f->v;

	fixture_poke(f, FIXTURE_PML4, FIXTURE_PDPT | 7);
	fixture_poke(f, FIXTURE_PDPT, FIXTURE_PD | 7);
	fixture_poke(f, FIXTURE_PD + 8 * (FIXTURE_LIN >> 21), FIXTURE_PT | 7);
	v->s.cr3 = FIXTURE_PML4;
	v->s.cr4 = CR4_PAE;
	v->s.cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET;
	v->s.efer = EFER_LME | EFER_LMA;
	v->s.seg_attr[CS] = ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | ATTR_ACCESSED | ATTR_L | ATTR_G;
	for (enum seg s = ES; s <= GS; s++) {
		v->s.seg_base[s] = 0;
		v->s.seg_limit[s] = UINT32_MAX;
		if (s != CS)
			v->s.seg_attr[s] = ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED | ATTR_DB | ATTR_G;
	}
	cpu_tlb_flush(v);
	cpu_update_mode(v);
}

/* Run a callout as an engine does; false if it raised v->fault. Restarts are counted in *restarts if given. */
static inline bool fixture_run(struct vcpu *v, cpu_op_fn *op, const struct insn *i, unsigned *restarts)
{
	if (setjmp(v->fault_jmp))
		return false;
	for (;;) {
		op(v, i);
		if (!v->restart)
			return true;
		v->restart = false;
		if (restarts)
			++*restarts;
	}
}

#endif
