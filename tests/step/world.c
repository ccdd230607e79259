/*
 * The processor's surroundings. Devices answer by a function of what they were asked before, so that two engines that ask the same hear
 * the same. While they are asked they may write to memory, raise interrupts, and want the processor to stop.
 */
#include "lib/no_machine.h"
#include "step.h"

#include <errno.h>
#include <stdlib.h>

enum question { PORT_READ, PORT_WRITE, MEMORY_READ, MEMORY_WRITE, PENDING, TPR, MSR_READ, MSR_WRITE, EXCLUSIVE };

static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* A device that writes to memory, as it may at any time: code, tables, data. */
static void write_memory(struct world *w, uint64_t answer)
{
	uint64_t value = mix(answer);

	mem_write(w->mem, gpa(answer >> 20 & (IMAGE_SIZE - 8)), &value, 1 + (answer >> 40 & 7));
}

static uint64_t ask(struct vcpu *v, enum question question, uint64_t a, uint64_t b)
{
	struct world *w = v->env_opaque;
	uint64_t answer = mix(w->noise ^ mix(w->heard ^ (uint64_t)question << 56 ^ mix(a) ^ b));

	w->heard = answer;
	w->all_calls++;
	/* A repeated instruction on a device may be endless: then the machine wants something. */
	if (++w->calls > CALLS_MAX)
		vcpu_post(v, EVENT_EXIT);
	if (w->meddling && answer % 16 == 0)
		write_memory(w, answer);
	/* Where one interrupt follows the other at once, engines may run an instruction of the first one's handler or not. */
	if (w->meddling && (w->others_meddle || (question <= MEMORY_WRITE && !v->delivering))) {
		if (answer % 32 == 1)
			vcpu_post(v, EVENT_INTERRUPT);
		if (answer % 64 == 2)
			vcpu_post(v, EVENT_NMI);
	}
	return mix(answer);
}

static uint32_t pio_read(struct vcpu *v, uint16_t port, unsigned size)
{
	return (uint32_t)ask(v, PORT_READ, port, size);
}
static void pio_write(struct vcpu *v, uint16_t port, unsigned size, uint32_t value)
{
	ask(v, PORT_WRITE, (uint64_t)value << 16 | port, size);
}
static uint64_t mmio_read(struct vcpu *v, gpa_t at, unsigned size) { return ask(v, MEMORY_READ, at.v, size); }
static void mmio_write(struct vcpu *v, gpa_t at, unsigned size, uint64_t value)
{
	ask(v, MEMORY_WRITE, at.v ^ mix(value), size);
}
/* By how many instructions there were, not by how often it was asked before: an engine may look in vain. */
static int interrupt_take(struct vcpu *v)
{
	const struct world *w = v->env_opaque;
	uint64_t answer = mix(w->noise ^ mix(v->s.icount));

	return answer % 4 ? (int)(answer >> 8 & 0xff) : -1;
}
/* The same here. */
static bool interrupt_pending(struct vcpu *v)
{
	const struct world *w = v->env_opaque;

	return w->others_meddle && ask(v, PENDING, 0, 0) % 8 == 0;
}
static uint8_t tpr_read(struct vcpu *v) { return ask(v, TPR, 0, 0) & 15; }
static void tpr_write(struct vcpu *v, uint8_t tpr) { ask(v, TPR, 1, tpr); }
static int apic_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	uint64_t answer = ask(v, MSR_READ, msr, 0);

	*value = answer;
	return answer % 3 ? 0 : -1;
}
static int apic_msr_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	return ask(v, MSR_WRITE, msr, value) % 3 ? 0 : -1;
}

/* What others did before they stopped: their page tables are ours, and they made us forget what we knew of them. */
static void exclusive(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg)
{
	struct world *w = v->env_opaque;
	uint64_t answer;

	if (w->others_meddle) {
		answer = ask(v, EXCLUSIVE, 0, 0);
		if (answer % 4 == 0) {
			mem_write(w->mem, gpa(TABLES + (answer >> 20) % (TABLE_PAGES * PAGE_SIZE - 8)), &answer, 1);
			cpu_tlb_flush(v);
		}
	}
	fn(v, arg);
}

static const struct vcpu_env environment = {
	.pio_read = pio_read,
	.pio_write = pio_write,
	.mmio_read = mmio_read,
	.mmio_write = mmio_write,
	.interrupt_take = interrupt_take,
	.interrupt_pending = interrupt_pending,
	.tpr_read = tpr_read,
	.tpr_write = tpr_write,
	.apic_msr_read = apic_msr_read,
	.apic_msr_write = apic_msr_write,
	.exclusive = exclusive,
};

static int create_vcpu(struct world *w, const char *engine, const char *model, struct error *err)
{
	int ret;

	w->ops = engine_find(engine, &w->engine.options, err);
	if (!w->ops)
		return -EINVAL;
	ret = cpu_model_init(&w->model, model, false, 1, err);
	if (ret)
		return ret;
	w->mem = mem_create(RAM_SIZE, err);
	w->clock = w->mem ? clock_create(CLOCK_VIRTUAL, 1, err) : NULL;
	w->v = w->clock
		       ? vcpu_create(w->ops->vcpu_size, 0, &w->model, w->mem, w->clock, &w->trace, &environment, w, err)
		       : NULL;
	if (!w->v)
		return -ENOMEM;
	return alone_on_engine(&w->engine, w->v, w->peers, w->ops, &w->engine.options, err);
}

struct world *world_create(const char *engine, const char *model, struct error *err)
{
	struct world *w = calloc(1, sizeof(*w));

	if (w && create_vcpu(w, engine, model, err)) {
		free(w);
		return NULL;
	}
	return w;
}

void world_destroy(struct world *w)
{
	alone_destroy(w->v);
	clock_destroy(w->clock);
	mem_destroy(w->mem);
	free(w);
}

void world_start(struct world *w, const uint8_t image[IMAGE_SIZE], const struct cpu_state *state, uint64_t noise,
		 bool meddling, bool others_meddle)
{
	w->noise = noise;
	w->heard = 0;
	w->calls = 0;
	w->meddling = w->others_meddle = false;
	mem_write(w->mem, gpa(0), image, IMAGE_SIZE);
	mem_fill(w->mem, gpa(IMAGE_SIZE), 0, 0xa0000 - IMAGE_SIZE);
	mem_fill(w->mem, gpa(0xc0000), 0, RAM_SIZE - 0xc0000);
	cpu_reset(w->v, false);
	atomic_store(&w->v->events, 0);
	w->ops->push(w->v, state);
	w->ops->invalidate(w->v, gpa(0), RAM_SIZE);
	w->meddling = meddling;
	w->others_meddle = others_meddle;
}
