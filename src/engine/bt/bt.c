/*
 * The translator, engine `bt`: what the machine and cpu/ call.
 */
#include "engine/bt/runtime.h"

#include <errno.h>
#include <stdlib.h>

/* ---- what cpu/ tells about the TLB ---- */

static void tlb_flush(struct vcpu *v)
{
	bt_window_hooks.tlb_flush(v);
	bt_of(v)->tlb_changed = true;
}

static void tlb_flush_page(struct vcpu *v, gva_t a)
{
	bt_window_hooks.tlb_flush_page(v, a);
	bt_of(v)->tlb_changed = true;
}

static void tlb_switched(struct vcpu *v, bool keep)
{
	bt_window_hooks.tlb_switched(v, keep);
	bt_of(v)->tlb_changed = true;
}

static void tlb_flush_pcid(struct vcpu *v, uint16_t pcid)
{
	bt_window_hooks.tlb_flush_pcid(v, pcid);
	bt_of(v)->tlb_changed = true;
}

static void tlb_protect(struct vcpu *v, gpa_t page) { bt_window_hooks.tlb_protect(v, page); }

/* ---- code that changes ---- */

static uint64_t code_written(struct vcpu *v, gpa_t at, size_t len, bool *hit)
{
	return bt_invalidate_bytes(v, at.v, len, hit) | interp_code_written(v, at, len, hit);
}

/* ---- the engine's operations ---- */

/*
 * What surrounds the guest's instructions: SARX, SHLX, RORX; CRC32; LAHF and SAHF. The guest's own are no question here: a CPU model offers
 * what this processor has (cpu/model.c).
 */
static int probe_processor(struct error *err)
{
	static const uint8_t needed[] = { FEATURE_BMI2, FEATURE_LAHF64, FEATURE_SSE42 };
	char missing[64] = "";
	size_t used = 0;

	for (size_t n = 0; n < ARRAY_SIZE(needed); n++)
		if (!cpu_host_has(needed[n]))
			used += (size_t)snprintf(missing + used, sizeof(missing) - used, "%s%s", used ? " and " : "",
						 cpu_feature_name(needed[n]));
	return used ? error_set(err, ENOTSUP, "needs a processor with %s, which this one lacks", missing) : 0;
}

static int probe_code(struct error *err)
{
	struct host_code code;
	int ret = host_code_create(&code, PAGE_SIZE, err);

	if (!ret)
		host_code_destroy(&code);
	return ret;
}

static int bt_probe(struct error *err)
{
	int ret;

	if ((ret = probe_processor(err)) || (ret = probe_code(err)) || (ret = bt_signals_probe(err)) ||
	    (ret = bt_windows_probe(err)))
		return ret;
	error_set(err, 0, "translates blocks of guest code to this processor's own instructions");
	return 0;
}

static void bt_destroy(struct vcpu *v)
{
	bt_code_destroy(v);
	bt_signals_destroy(v);
	free(bt_of(v));
	bt_vcpu(v)->bt = NULL;
	interp_engine.destroy(v);
}

static int bt_open(struct engine *e, struct error *err)
{
	e->shared = bt_windows_create(e->mem, &e->options, err);
	return e->shared ? 0 : -ENOMEM;
}

static void bt_close(struct engine *e) { bt_windows_destroy(e->shared); }

static void choose_glue(struct bt_cpu *bt)
{
	bool avx = __builtin_cpu_supports("avx");

	bt->glues[0] = avx ? &bt_glue_avx : &bt_glue_sse;
	bt->glues[1] = avx ? &bt_glue32_avx : &bt_glue32_sse;
}

static int bt_create(struct vcpu *v, struct error *err)
{
	struct bt_cpu *bt;
	int ret = interp_engine.create(v, err);

	if (ret)
		return ret;
	bt = bt_vcpu(v)->bt = calloc(1, sizeof(*bt));
	if (!bt) {
		interp_engine.destroy(v);
		return error_set(err, ENOMEM, "no memory for the translator");
	}
	bt->options = v->engine->options;
	bt->windows = v->engine->shared;
	bt->limits.boundary = bt_windows_limits(bt->windows);
	bt->counting = clock_kind(v->clock) == CLOCK_VIRTUAL;
	bt->tlb_changed = true;
	choose_glue(bt);
	bt_frame(v)->self = v;
	if ((ret = bt_code_create(v, err)) || (ret = bt_signals_install(err)) || (ret = bt_signals_create(v, err)))
		bt_destroy(v);
	return ret;
}

static void bt_kick(struct vcpu *v) { bt_signals_kick(v); }

static int bt_pull(struct vcpu *v, struct cpu_state *s) { return interp_engine.pull(v, s); }

static int bt_push(struct vcpu *v, const struct cpu_state *s) { return interp_engine.push(v, s); }

static void bt_invalidate(struct vcpu *v, gpa_t start, size_t size)
{
	interp_engine.invalidate(v, start, size);
	bt_code_flush(v);
}

static const struct vcpu_hooks hooks = {
	.code_written = code_written,
	.events_posted = interp_events_posted,
	.sync_icount = interp_sync_icount,
	.tlb_flush = tlb_flush,
	.tlb_flush_page = tlb_flush_page,
	.tlb_switched = tlb_switched,
	.tlb_flush_pcid = tlb_flush_pcid,
	.tlb_protect = tlb_protect,
};

const struct engine_ops bt_engine = {
	.name = "bt",
	.what = "binary translation to this processor's own instructions",
	.can = ENGINE_VIRTUAL_CLOCK,
	.vcpu_size = sizeof(struct bt_vcpu),
	.hooks = &hooks,
	.probe = bt_probe,
	.open = bt_open,
	.close = bt_close,
	.create = bt_create,
	.run = bt_run,
	.kick = bt_kick,
	.pull = bt_pull,
	.push = bt_push,
	.invalidate = bt_invalidate,
	.stats = bt_stats_print,
	.destroy = bt_destroy,
};
