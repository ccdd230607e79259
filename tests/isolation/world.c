/*
 * A machine of one vCPU in long mode: descriptor tables like Linux's, an interrupt table whose handlers halt or go on, and
 * a device that counts. Its clock stands still, so that what the guest reads from it is the same every time.
 */
#include "isolation.h"
#include "lib/no_machine.h"

#include <errno.h>
#include <stdlib.h>

#define GDT	   SYSTEM
#define TSS	   (SYSTEM + 0x1000)
#define IDT	   (SYSTEM + 0x2000)
#define HANDLERS   (SYSTEM + 0x3000)
#define STACKS_TOP (SYSTEM + 0x6000)
#define LEFT	   (TSS + 0x800)		  /* how often the handlers still go on */
#define COMMON	   (HANDLERS + HANDLER_SIZE * 40) /* what they have in common */

#define GDT_LIMIT    127
#define SEL_KERNEL   0x10
#define SEL_TSS	     0x40
#define HANDLER_SIZE 16
#define HLT	     0xf4

static uint64_t to_linear(uint64_t physical) { return SYSTEM_LIN + (physical - SYSTEM); }

/* ---- the environment ---- */

static void note_device(struct vcpu *v, uint64_t what, uint64_t at, unsigned size, uint64_t value)
{
	struct world *w = v->env_opaque;

	w->device_hash = (w->device_hash ^ (what << 60 ^ at << 4 ^ size)) * 0x9e3779b97f4a7c15ull;
	w->device_hash = (w->device_hash ^ value) * 0x9e3779b97f4a7c15ull;
}

static uint32_t pio_read(struct vcpu *v, uint16_t port, unsigned size)
{
	note_device(v, 1, port, size, 0);
	return (uint32_t)(port * 0x01010101u);
}
static void pio_write(struct vcpu *v, uint16_t port, unsigned size, uint32_t value)
{
	note_device(v, 2, port, size, value);
}
static uint64_t mmio_read(struct vcpu *v, gpa_t at, unsigned size)
{
	note_device(v, 3, at.v, size, 0);
	return at.v * 0x0101010101010101ull;
}
static void mmio_write(struct vcpu *v, gpa_t at, unsigned size, uint64_t value)
{
	note_device(v, 4, at.v, size, value);
}
static const struct vcpu_env environment = {
	.pio_read = pio_read,
	.pio_write = pio_write,
	.mmio_read = mmio_read,
	.mmio_write = mmio_write,
	NO_INTERRUPTS,
	NO_APIC,
	ALONE,
};

/* ---- descriptor tables ---- */

static void poke(struct world *w, uint64_t at, uint64_t value) { mem_write(w->mem, gpa(at), &value, sizeof(value)); }

static uint64_t descriptor(uint16_t attr) { return (uint64_t)attr << 40 | (attr & ATTR_G ? 0xf00000000ffffull : 0); }

static void make_gdt(struct world *w)
{
	const uint16_t data = ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED | ATTR_G, code = data | ATTR_CODE;
	const uint64_t tss = to_linear(TSS);

	poke(w, GDT + 0x08, descriptor(code | ATTR_DB));
	poke(w, GDT + 0x10, descriptor(code | ATTR_L));
	poke(w, GDT + 0x18, descriptor(data | ATTR_DB));
	poke(w, GDT + 0x20, descriptor(code | ATTR_DB | ATTR_DPL));
	poke(w, GDT + 0x28, descriptor(data | ATTR_DB | ATTR_DPL));
	poke(w, GDT + 0x30, descriptor(code | ATTR_L | ATTR_DPL));
	poke(w, GDT + SEL_TSS, (uint64_t)(ATTR_P | 11) << 40 | 103 | (tss & 0xffffff) << 16 | (tss >> 24 & 0xff) << 56);
	poke(w, GDT + SEL_TSS + 8, tss >> 32);
	poke(w, TSS + 4, to_linear(STACKS_TOP));
	/* IST 1: RSP of ring 0 may be anything. */
	poke(w, TSS + 0x24, to_linear(STACKS_TOP - 0x800));
	poke(w, TSS + 0x60, 104ull << 48);
}

static void make_idt(struct world *w)
{
	for (unsigned n = 0; n < 256; n++) {
		uint64_t handler = to_linear(HANDLERS + HANDLER_SIZE * n), dpl = n >= 32 || n == EXC_BP ? 3 : 0;

		poke(w, IDT + 16 * n,
		     (handler & 0xffff) | SEL_KERNEL << 16 | 1ull << 32 | (0x8eull | dpl << 5) << 40 |
			     (handler >> 16 & 0xffff) << 48);
		poke(w, IDT + 16 * n + 8, handler >> 32);
	}
}

/* Vectors that go on: whether the processor pushes an error code. */
static const struct {
	uint8_t vector;
	bool error;
} skipping[] = { { EXC_DE, false }, { EXC_DB, false }, { EXC_UD, false }, { EXC_NM, false }, { EXC_SS, true },
		 { EXC_GP, true },  { EXC_PF, true },  { EXC_MF, false }, { EXC_XM, false } };

void world_set_handlers(struct world *w, enum handlers kind, unsigned skip, uint64_t times)
{
	/* addq $skip, (%rsp); decl LEFT(%rip); js 1f; iretq; 1: hlt */
	uint8_t common[] = { 0x48, 0x83, 0x04, 0x24, (uint8_t)skip, 0xff, 0x0d, 0, 0, 0, 0, 0x78, 2, 0x48, 0xcf, HLT };

	mem_fill(w->mem, gpa(HANDLERS), HLT, HANDLER_SIZE * 256);
	store_le32(common + 7, (uint32_t)(LEFT - (COMMON + 11)));
	mem_write(w->mem, gpa(COMMON), common, sizeof(common));
	for (unsigned n = 0; kind == HANDLERS_SKIP && n < ARRAY_SIZE(skipping); n++) {
		uint64_t at = HANDLERS + HANDLER_SIZE * skipping[n].vector;
		uint8_t code[9] = { 0x48, 0x83, 0xc4, 8, 0xe9 }; /* add $8, %rsp; jmp COMMON */

		store_le32(code + 5, (uint32_t)(COMMON - (at + sizeof(code))));
		if (skipping[n].error)
			mem_write(w->mem, gpa(at), code, sizeof(code));
		else
			mem_write(w->mem, gpa(at),
				  (uint8_t[]){ 0xe9, (uint8_t)(COMMON - at - 5), (uint8_t)((COMMON - at - 5) >> 8), 0,
					       0 },
				  5);
	}
	poke(w, LEFT, times);
	w->ops->invalidate(w->v, gpa(HANDLERS), HANDLER_SIZE * 256);
}

void world_fill_system(struct world *w)
{
	make_gdt(w);
	make_idt(w);
	world_set_handlers(w, HANDLERS_HALT, 0, 0);
}

/* ---- the state that rounds start from ---- */

static void make_start(struct world *w)
{
	struct cpu_state *s = &w->start;

	w->ops->pull(w->v, s);
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s->cr3 = TABLES;
	s->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	if (w->model.features[FEATURE_XSAVE]) {
		s->cr4 |= CR4_OSXSAVE;
		s->xcr0 = XCR0_X87 | XCR0_SSE | (w->model.features[FEATURE_AVX] ? XCR0_AVX : 0);
	}
	s->gdtr_base = to_linear(GDT);
	s->gdtr_limit = GDT_LIMIT;
	s->idtr_base = to_linear(IDT);
	s->idtr_limit = 0xfff;
	s->seg_sel[TR] = SEL_TSS;
	s->seg_attr[TR] = ATTR_P | 11;
	s->seg_base[TR] = to_linear(TSS);
	s->seg_limit[TR] = 103;
	s->seg_attr[LDTR] = 0;
	s->msr_star = (uint64_t)0x23 << 48 | (uint64_t)SEL_KERNEL << 32;
	s->msr_lstar = to_linear(HANDLERS + HANDLER_SIZE * 255);
	s->msr_cstar = s->msr_lstar;
}

/* ---- life ---- */

static int create_vcpu(struct world *w, enum clock_kind clock, struct error *err)
{
	int ret;

	w->ops = engine_find(w->name, &w->engine.options, err);
	if (!w->ops)
		return -EINVAL;
	ret = cpu_model_init(&w->model, "host", true, 1, err);
	if (ret)
		return ret;
	w->model.features[FEATURE_RDRAND] = w->model.features[FEATURE_RDSEED] = false;
	w->mem = mem_create(RAM_SIZE, err);
	w->clock = w->mem ? clock_create(clock, 1, err) : NULL;
	w->v = w->clock
		       ? vcpu_create(w->ops->vcpu_size, 0, &w->model, w->mem, w->clock, &w->trace, &environment, w, err)
		       : NULL;
	if (!w->v)
		return -ENOMEM;
	return alone_on_engine(&w->engine, w->v, w->peers, w->ops, &w->engine.options, err);
}

struct world *world_create(const char *engine, enum clock_kind clock, struct error *err)
{
	struct world *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->name = engine;
	if (create_vcpu(w, clock, err)) {
		free(w);
		return NULL;
	}
	world_fill_system(w);
	make_start(w);
	return w;
}

void world_destroy(struct world *w)
{
	alone_destroy(w->v);
	clock_destroy(w->clock);
	mem_destroy(w->mem);
	free(w);
}

void world_write(struct world *w, uint64_t at, const void *data, size_t size)
{
	mem_write(w->mem, gpa(at), data, size);
}
