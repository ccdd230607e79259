/*
 * Random code: the machines of one vCPU, the hostile page tables, code and registers of tests/isolation, in rounds. Here instructions are
 * counted, so rounds that would never end are compared as well, after every step.
 */
#include "random.h"

#include <stdio.h>

#define ROUND_MOST 3000 /* instructions */

struct session {
	struct choices choices;
	struct world *world[SIDES];
	struct page_tables tables;
	uint8_t code[CODE_SIZE];
	unsigned entry;
	struct generator generator;
	struct cpu_state start; /* what rounds have in common */
};

static void write_both(struct session *s, uint64_t at, const void *data, size_t size)
{
	for (unsigned n = 0; n < SIDES; n++) {
		world_write(s->world[n], at, data, size);
		s->world[n]->ops->invalidate(s->world[n]->v, gpa(at), size);
	}
}

/* ---- a round's beginning ---- */

static void new_tables(struct session *s, bool first)
{
	if (first)
		tables_make(&s->tables, &s->choices, false);
	else
		tables_change(&s->tables, &s->choices);
	write_both(s, TABLES, s->tables.entry, sizeof(s->tables.entry));
}

static void new_code(struct session *s)
{
	s->generator.code32 = choose_one_in(&s->choices, 4);
	s->generator.kernel = !s->generator.code32 && choose_one_in(&s->choices, 2);
	generate_code(&s->generator, s->code, &s->entry);
	write_both(s, CODE, s->code, CODE_SIZE);
}

static void new_handlers(struct session *s)
{
	enum handlers kind = choose_below(&s->choices, 2);
	unsigned skip = 1 + choose_below(&s->choices, 8), times = choose_below(&s->choices, 40);

	for (unsigned n = 0; n < SIDES; n++)
		world_set_handlers(s->world[n], kind, skip, times);
}

static void new_control(struct session *s)
{
	const struct world *w = s->world[TESTED];
	struct cpu_state *start = &s->start;

	*start = w->start;
	start->cr0 ^= choose_one_in(&s->choices, 8) ? CR0_WP : 0;
	start->cr4 ^= choose_one_in(&s->choices, 3) && w->model.features[FEATURE_SMEP] ? CR4_SMEP : 0;
	start->cr4 ^= choose_one_in(&s->choices, 3) && w->model.features[FEATURE_SMAP] ? CR4_SMAP : 0;
	start->cr4 ^= choose_one_in(&s->choices, 4) && w->model.features[FEATURE_PCID] ? CR4_PCIDE : 0;
	start->cr4 ^= choose_one_in(&s->choices, 8) ? CR4_PGE : 0;
}

/* Mostly one where the code may be executed; of 32-bit code, one that it can reach. */
static unsigned start_spot(struct session *s)
{
	if (s->generator.code32)
		return 1;
	return choose_one_in(&s->choices, 16) ? choose_below(&s->choices, CODE_SPOTS)
					      : 2 * choose_below(&s->choices, CODE_SPOTS / 2) + !s->generator.kernel;
}

static void begin_round(struct session *s, bool first)
{
	struct cpu_state state;

	if (first || choose_one_in(&s->choices, 4))
		new_tables(s, first);
	if (first || choose_one_in(&s->choices, 6))
		new_control(s);
	if (first || choose_one_in(&s->choices, 3))
		new_handlers(s);
	if (first || choose_one_in(&s->choices, 2))
		new_code(s);
	state = s->start;
	generate_registers(&s->generator, &state);
	state.rip = spots[start_spot(s)].lin + s->entry;
	for (unsigned n = 0; n < SIDES; n++) {
		state.icount = s->world[n]->v->s.icount;
		s->world[n]->ops->push(s->world[n]->v, &state);
	}
}

/* ---- running ---- */

static enum exit_kind run_world(struct world *w, uint64_t most)
{
	struct exit exit = { 0 };

	w->v->budget = (int64_t)most;
	return w->ops->run(w->v, &exit);
}

/* False: the comparison is over. */
static bool run_round(struct session *s, struct comparison *c)
{
	struct vcpu *const v[SIDES] = { s->world[REFERENCE]->v, s->world[TESTED]->v };
	uint64_t end = v[REFERENCE]->s.icount + 1 + choose_below(&s->choices, ROUND_MOST), step;
	enum exit_kind kind = EXIT_BUDGET;

	while (v[REFERENCE]->s.icount < end && kind == EXIT_BUDGET) {
		step = comparison_step(c, v);
		if (!step)
			return false;
		step = MIN(step, end - v[REFERENCE]->s.icount);
		kind = run_world(s->world[REFERENCE], step);
		run_world(s->world[TESTED], step);
	}
	return comparison_step(c, v) != 0;
}

static void fill_data(struct session *s)
{
	static uint8_t data[RAM_SIZE - DATA];

	for (unsigned n = 0; n + 8 <= sizeof(data); n += 8)
		store_le64(data + n, n & 0x3f ? n * 0x9e3779b97f4a7c15ull : hostile_address(&s->generator));
	write_both(s, DATA, data, sizeof(data));
}

static bool create_worlds(struct session *s, const char *const names[SIDES])
{
	struct error err = { 0 };

	for (unsigned n = 0; n < SIDES; n++) {
		s->world[n] = world_create(names[n], CLOCK_VIRTUAL, &err);
		if (!s->world[n]) {
			fprintf(stderr, "lockstep: engine %s: %s\n", names[n], err.text);
			return false;
		}
	}
	return true;
}

static bool run(struct subject *subject, const struct plan *plan, struct difference *d,
		struct comparison_counts *counts)
{
	/* Numbers that mean nothing here, but the same ones every time. */
	static const uint64_t secrets[] = { 0x7f0012345000, 0x560087654000, 0x7ffe00001000 };
	struct random_code *r = container_of(subject, struct random_code, subject);
	const char *const names[SIDES] = { r->reference, plan->engine };
	static struct session s;
	struct comparison *c;

	s = (struct session){ .choices = { .state = r->seed } };
	if (!create_worlds(&s, names))
		return false;
	s.generator = (struct generator){ .choices = &s.choices,
					  .model = &s.world[TESTED]->model,
					  .secrets = secrets,
					  .secret_count = ARRAY_SIZE(secrets) };
	fill_data(&s);
	c = comparison_create(plan, d);
	for (unsigned n = 0; n < r->rounds; n++) {
		begin_round(&s, n == 0);
		if (!run_round(&s, c))
			break;
	}
	*counts = comparison_counts(c);
	comparison_destroy(c);
	for (unsigned n = 0; n < SIDES; n++)
		world_destroy(s.world[n]);
	return true;
}

void random_code_init(struct random_code *r) { r->subject.run = run; }

/* A processor may set accessed bits of what is then not accessed (SDM vol. 3A 4.8). */
void random_code_plan(struct plan *p)
{
	p->accessed_from = TABLES;
	p->accessed_to = TABLES + sizeof(((struct page_tables *)0)->entry);
}
