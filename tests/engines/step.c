/*
 * An engine for tests: runs the interpreter one instruction after the other, and counts. What it needs of the rest of doppel is what
 * engine.h says, and a row in table.c.
 */
#include "engine/interp/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

extern const struct engine_ops step_engine;

/* All vCPUs of a machine. */
struct step_machine {
	_Atomic uint64_t steps;
	_Atomic unsigned vcpus;
};

struct step_vcpu {
	struct interp_vcpu interp; /* first: it has that inside */
	uint64_t steps;
	uint64_t code_writes, flushes; /* that cpu/ told it of */
};

static struct step_vcpu *step_vcpu(struct vcpu *v) { return (struct step_vcpu *)v; }
static struct step_machine *step_machine(const struct vcpu *v) { return v->engine->shared; }

/* ---- what cpu/ tells it ---- */

static uint64_t code_written(struct vcpu *v, gpa_t at, size_t len, bool *hit)
{
	step_vcpu(v)->code_writes++;
	return interp_engine.hooks->code_written(v, at, len, hit);
}

static void events_posted(struct vcpu *v) { interp_engine.hooks->events_posted(v); }

static void sync_icount(struct vcpu *v) { interp_engine.hooks->sync_icount(v); }

static void tlb_flush(struct vcpu *v) { step_vcpu(v)->flushes++; }

static const struct vcpu_hooks hooks = {
	.code_written = code_written,
	.events_posted = events_posted,
	.sync_icount = sync_icount,
	.tlb_flush = tlb_flush,
};

/* ---- its operations ---- */

static int step_probe(struct error *err)
{
	error_set(err, 0, "interprets one instruction at a time: for tests");
	return 0;
}

static int step_open(struct engine *e, struct error *err)
{
	e->shared = calloc(1, sizeof(struct step_machine));
	return e->shared ? 0 : error_set(err, ENOMEM, "no memory for engine step");
}

static void step_close(struct engine *e)
{
	const struct step_machine *m = e->shared;

	BUG_ON(m->vcpus);
	free(e->shared);
}

static int step_create(struct vcpu *v, struct error *err)
{
	int ret = interp_engine.create(v, err);

	if (!ret)
		step_machine(v)->vcpus++;
	return ret;
}

static void step_destroy(struct vcpu *v)
{
	step_machine(v)->vcpus--;
	interp_engine.destroy(v);
}

static enum exit_kind step_run(struct vcpu *v, struct exit *exit)
{
	int64_t left = v->budget;
	enum exit_kind kind;

	do {
		int64_t one = left > 0;

		v->budget = one;
		kind = interp_engine.run(v, exit);
		one -= v->budget;
		left -= one;
		step_vcpu(v)->steps += (uint64_t)one;
		step_machine(v)->steps += (uint64_t)one;
	} while (kind == EXIT_BUDGET && left > 0);
	v->budget = left;
	return kind;
}

static void step_kick(struct vcpu *v) { interp_engine.kick(v); }

static int step_pull(struct vcpu *v, struct cpu_state *s) { return interp_engine.pull(v, s); }

static int step_push(struct vcpu *v, const struct cpu_state *s) { return interp_engine.push(v, s); }

static void step_invalidate(struct vcpu *v, gpa_t start, size_t size) { interp_engine.invalidate(v, start, size); }

static void step_stats(struct vcpu *v, FILE *out)
{
	const struct step_vcpu *s = step_vcpu(v);

	fprintf(out,
		"  %" PRIu64 " single steps, of %" PRIu64 "; told of %" PRIu64 " writes to code, %" PRIu64 " flushes\n",
		s->steps, step_machine(v)->steps, s->code_writes, s->flushes);
}

const struct engine_ops step_engine = {
	.name = "step",
	.what = "the interpreter, one instruction at a time: for tests",
	.can = ENGINE_COUNTS | ENGINE_VIRTUAL_CLOCK | ENGINE_TLB_ALONE,
	.vcpu_size = sizeof(struct step_vcpu),
	.hooks = &hooks,
	.probe = step_probe,
	.open = step_open,
	.close = step_close,
	.create = step_create,
	.destroy = step_destroy,
	.run = step_run,
	.kick = step_kick,
	.pull = step_pull,
	.push = step_push,
	.invalidate = step_invalidate,
	.stats = step_stats,
};
