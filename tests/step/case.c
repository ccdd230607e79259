/* A case: one plan, carried out step by step, by one engine or by two that must come to the same. */
#include "step.h"

#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#define MAX_STEPS 24
/* A processor may set accessed bits of what is then not accessed (SDM vol. 3A 4.8). */
#define PTE_ACCESSED 0x20

static const char *const mode_names[] = {
	"real mode",	      "virtual-8086 mode", "16-bit protected mode", "32-bit protected mode",
	"compatibility mode", "64-bit mode"
};
static const char *const models[] = { "v2", "v3", "host" };

/* ---- findings ---- */

static char context[4096];
static struct {
	const char *name;
	const struct plan *plan;
	const struct vcpu *v;
	struct cpu_state before;
	uint8_t bytes[15];
	enum code_mode code_mode;
} step;

void found_context(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(context, sizeof(context), format, args);
	va_end(args);
}

void found(const char *format, ...)
{
	char text[128];
	va_list args;

	fprintf(stderr, "# FOUND: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n#   case: %s\n", step.name);
	if (context[0])
		fprintf(stderr, "#   %s\n", context);
	if (step.plan) {
		cpu_disassemble(step.code_mode, step.bytes, sizeof(step.bytes), step.before.rip, text, sizeof(text));
		fprintf(stderr, "#   %s%s, CPL %u at first; the step began at %#llx with: %s\n",
			mode_names[step.plan->mode], step.plan->hostile ? " (hostile)" : "", step.plan->cpl,
			(unsigned long long)step.before.rip, text);
		fprintf(stderr, "# before:\n");
		state_print(cpu_state_desc, &step.before, stderr);
		fprintf(stderr, "# after:\n");
		state_print(cpu_state_desc, &step.v->s, stderr);
	}
	fflush(stderr);
	abort();
}

/* What found() shows if this step is the one. */
static void remember(struct world *w)
{
	struct vcpu *v = w->v;
	uint64_t lin = v->code_mode == MODE_64 ? v->s.rip : (uint32_t)(v->s.seg_base[CS] + v->s.rip);
	gpa_t at;

	step.v = v;
	w->ops->pull(v, &step.before);
	step.code_mode = v->code_mode;
	memset(step.bytes, 0, sizeof(step.bytes));
	for (unsigned n = 0; n < sizeof(step.bytes) && !cpu_translate_debug(v, gva(lin + n), &at); n++)
		mem_read(w->mem, at, &step.bytes[n], 1);
}

/* ---- worlds: one for each engine and model, used again and again ---- */

static struct world *get_world(const char *engine, unsigned model)
{
	static struct {
		const char *engine;
		struct world *world;
	} worlds[2][ARRAY_SIZE(models)];
	struct error err;

	for (unsigned n = 0; n < 2; n++) {
		if (worlds[n][model].engine && !strcmp(worlds[n][model].engine, engine))
			return worlds[n][model].world;
		if (worlds[n][model].engine)
			continue;
		worlds[n][model].engine = engine;
		worlds[n][model].world = world_create(engine, models[model], &err);
		if (!worlds[n][model].world)
			found("no processor %s by %s: %s", models[model], engine, err.text);
		return worlds[n][model].world;
	}
	found("three engines");
}

/* ---- steps ---- */

struct step_plan {
	int64_t budget;
	uint32_t events;
};

static struct step_plan choose_step(struct choices *c)
{
	struct step_plan s = { .budget = choose_one_in(c, 5) ? 2 + choose_below(c, 30) : 1 };

	if (choose_one_in(c, 8))
		s.events |= EVENT_INTERRUPT;
	if (choose_one_in(c, 24))
		s.events |= EVENT_NMI;
	if (choose_one_in(c, 100))
		s.events |= EVENT_INIT;
	if (choose_one_in(c, 50))
		s.events |= EVENT_SIPI;
	if (choose_one_in(c, 50))
		s.events |= EVENT_EXIT;
	return s;
}

static enum exit_kind run_step(struct world *w, const struct step_plan *s)
{
	struct exit exit;
	enum exit_kind kind;

	w->v->sipi_vector = CODE >> 12;
	vcpu_post(w->v, s->events);
	w->v->budget = s->budget;
	kind = w->ops->run(w->v, &exit);
	if (kind == EXIT_ERROR)
		found("the engine gives up: %s", exit.error.text);
	return kind;
}

/* Has the processor nothing more to do? */
static bool is_over(struct world *w, enum exit_kind kind)
{
	return kind == EXIT_SHUTDOWN || (w->v->s.activity == CPU_SHUTDOWN && !cpu_has_work(w->v));
}

/* ---- two engines ---- */

static void clean_state(struct world *w, struct cpu_state *s)
{
	w->ops->pull(w->v, s);
	s->ip_base = 0;
	/* The translator knows it of the x87 instruction executed last alone; processors are about to forget it. */
	s->fds = 0;
}

static void compare_states(struct world *a, struct world *b)
{
	struct cpu_state x, y;
	char text[1024];
	size_t used = 0;

	clean_state(a, &x);
	clean_state(b, &y);
	if (!memcmp(&x, &y, sizeof(x)))
		return;
		/* clang-format off */
#define _(t, type, name, count, ...)                                                                                   \
	for (unsigned n = 0; n < (count) && used < sizeof(text) - 100; n++) {                                          \
		const type *p = (const type *)((const char *)&x + offsetof(struct cpu_state, name)) + n;               \
		const type *q = (const type *)((const char *)&y + offsetof(struct cpu_state, name)) + n;               \
		if (*p != *q)                                                                                          \
			used += (size_t)snprintf(text + used, sizeof(text) - used, " %s[%u] %llx, %llx;", #name, n,    \
						 (unsigned long long)*p, (unsigned long long)*q);                      \
	}
	CPU_STATE(_, unused)
#undef _
	/* clang-format on */
	found("the engines differ:%s", text);
}

/* Which engine has set an accessed bit of what was not accessed must not decide about what programs read in their tables. */
static void share_accessed(struct world *a, struct world *b, uint64_t at)
{
	const uint8_t both = a->mem->ram.file.base[at] | b->mem->ram.file.base[at];

	mem_write(a->mem, gpa(at), &both, 1);
	mem_write(b->mem, gpa(at), &both, 1);
}

static void compare_worlds(struct world *a, struct world *b)
{
	const uint8_t *x = a->mem->ram.file.base, *y = b->mem->ram.file.base;

	compare_states(a, b);
	if (a->heard != b->heard)
		found("the engines asked devices something else");
	for (uint64_t at = 0; memcmp(x, y, RAM_SIZE) && at < RAM_SIZE; at++) {
		if (x[at] == y[at])
			continue;
		if (at - TABLES >= TABLE_PAGES * PAGE_SIZE || (x[at] ^ y[at]) != PTE_ACCESSED)
			found("the engines differ: memory at %#llx is %#x, %#x", (unsigned long long)at, x[at], y[at]);
		share_accessed(a, b, at);
	}
}

/* One on the first instruction of its own handler strikes as often as an engine looks: engines may differ. */
static bool has_code_breakpoints(const struct vcpu *v)
{
	for (unsigned n = 0; n < 4; n++)
		if (bits(v->s.dr[7], 2 * n + 1, 2 * n) && !bits(v->s.dr[7], 17 + 4 * n, 16 + 4 * n))
			return true;
	return false;
}

/* Whatever the TLB may still know, both forget it: what may be kept is the engine's choice. */
static void run_other(struct world *w, struct world *other, const struct step_plan *s, enum exit_kind kind,
		      struct case_counts *counts)
{
	enum exit_kind other_kind = run_step(other, s);

	if (kind != other_kind)
		found("one engine ends with exit %d, the other with %d", kind, other_kind);
	compare_worlds(w, other);
	cpu_tlb_flush(w->v);
	cpu_tlb_flush(other->v);
	counts->compared++;
}

/* ---- the case ---- */

static void count_case(const struct plan *p, const struct world *w, struct case_counts *counts, const uint64_t *before)
{
	const uint64_t *now = w->v->count;

	counts->cases++;
	counts->by_mode[p->mode]++;
	counts->instructions += w->v->s.icount;
	counts->faults += now[COUNT_EXCEPTIONS] - before[COUNT_EXCEPTIONS];
	counts->interrupts += now[COUNT_INTERRUPTS] + now[COUNT_NMIS] - before[COUNT_INTERRUPTS] - before[COUNT_NMIS];
}

static void trace_to(struct world *w, const char *file, const char *which)
{
	char name[256];
	struct error err;

	if (!file || w->trace.out)
		return;
	snprintf(name, sizeof(name), "%s.%s", file, which);
	if (trace_open(&w->trace, "exceptions,page-faults,interrupts,control,msr,mmio,pio", name, UINT64_MAX, &err))
		found("%s", err.text);
	setvbuf(w->trace.out, NULL, _IOLBF, 0);
}

void case_run(struct choices *choices, const struct case_options *o, struct case_counts *counts)
{
	static struct plan plan;
	/* A thread may have one processor of engine bt. */
	unsigned model = o->other ? ARRAY_SIZE(models) - 1 : choose_below(choices, ARRAY_SIZE(models));
	unsigned steps = 1 + choose_below(choices, MAX_STEPS);
	struct world *w = get_world(o->first, model), *other = o->other ? get_world(o->other, model) : NULL;
	uint64_t before[COUNT_COUNT];
	struct checked checked;

	step.name = o->name;
	step.plan = NULL;
	memset(&plan, 0, sizeof(plan));
	plan.choices = choices;
	plan.model = &w->model;
	plan_make(&plan);
	step.plan = &plan;
	if (other)
		plan.state.dr[7] |= 0x11110000;
	world_start(w, plan.image, &plan.state, plan.noise, plan.meddling, plan.meddling && !other);
	if (other)
		world_start(other, plan.image, &plan.state, plan.noise, plan.meddling, false);
	trace_to(w, o->trace, "first");
	if (other)
		trace_to(other, o->trace, "other");
	memcpy(before, w->v->count, sizeof(before));
	for (unsigned n = 0; n < steps; n++) {
		struct step_plan s = choose_step(choices);
		enum exit_kind kind;

		remember(w);
		check_begin(w, &checked);
		if (other)
			other->calls = 0;
		kind = run_step(w, &s);
		check_step(w, &checked, &plan, s.budget, s.events);
		counts->steps++;
		if (other && has_code_breakpoints(w->v))
			break;
		if (other)
			run_other(w, other, &s, kind, counts);
		if (is_over(w, kind)) {
			counts->shutdowns++;
			break;
		}
	}
	count_case(&plan, w, counts, before);
}
