/*
 * Code that changed: engines forget what was decoded from the bytes written, and no more, since kernels patch single instructions in
 * pages full of others. But who writes over and over beside code (a page that gets another use, or new code behind the old) is served
 * better by a page without any: it can then be written directly.
 */
#include "cpu/private.h"

#define NEAR	    64 /* bytes */
#define MISSES_MOST 3  /* writes near each other that met no code */

struct code_change {
	gpa_t at;
	size_t len;
	bool hit;
	uint64_t living;
};

static void ask_engine(struct vcpu *v, struct code_change *c)
{
	if (v->hooks->code_written)
		c->living |= v->hooks->code_written(v, c->at, c->len, &c->hit);
}

static void ask_engines(struct vcpu *v, struct code_change *c)
{
	c->living = 0;
	for (unsigned n = 0; n < v->peer_count; n++)
		ask_engine(v->peers[n], c);
	if (!v->peer_count)
		ask_engine(v, c);
}

static bool is_one_too_many(struct guest_mem *mem, const struct code_change *c)
{
	bool near = c->at.v - mem->code_missed.at + NEAR <= 2 * NEAR;

	mem->code_missed.count = c->hit ? 0 : near ? mem->code_missed.count + 1 : 1;
	mem->code_missed.at = c->at.v;
	return mem->code_missed.count >= MISSES_MOST;
}

static void tell_engines(struct vcpu *v, void *arg)
{
	struct code_change *c = arg;

	ask_engines(v, c);
	if (!c->living || !is_one_too_many(v->mem, c))
		return;
	c->at.v &= PAGE_MASK;
	c->len = PAGE_SIZE;
	ask_engines(v, c);
}

/* Before whoever wrote goes on, no vCPU runs what was overwritten. */
uint64_t cpu_code_changed(void *vcpu, gpa_t at, size_t len)
{
	struct vcpu *v = vcpu;
	struct code_change c = { .at = at, .len = len };

	v->env->exclusive(v, tell_engines, &c);
	return c.living;
}
