/* A session: one pair of worlds, attacked again and again, and compared. */
#include "isolation.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BUDGET	    4000  /* instructions of a round, by the interpreter */
#define ENDLESS_MS  2	  /* of a round that does not end by itself */
#define HUNG_MS	    30000 /* of one that should */
#define CHECK_EVERY 8
#define MAX_SECRETS 32

enum { INTERP, BT, WORLDS };

struct session {
	struct choices *choices;
	struct world *world[WORLDS];
	struct page_tables tables;
	uint8_t code[CODE_SIZE];
	unsigned entry;
	struct generator generator;
	uint64_t secrets[MAX_SECRETS];
	uint64_t cr0, cr4, efer;
	bool flush; /* the next start is by a push, which flushes everything */
	bool compare;
	unsigned step;
	struct session_counts *counts;
};

/* ---- findings ---- */

static char context[6][2048];

void found_context(unsigned line, const char *format, ...)
{
	va_list args;

	context[line][0] = 0;
	if (!format)
		return;
	va_start(args, format);
	vsnprintf(context[line], sizeof(context[line]), format, args);
	va_end(args);
}

void found(const char *format, ...)
{
	char text[768];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fflush(NULL);
	dprintf(STDERR_FILENO, "# FOUND: %s\n", text);
	for (unsigned n = 0; n < ARRAY_SIZE(context); n++)
		if (context[n][0])
			dprintf(STDERR_FILENO, "#   %s\n", context[n]);
	abort();
}

/* ---- setting up a round ---- */

static void write_both(struct session *s, uint64_t at, const void *data, size_t size)
{
	for (unsigned n = 0; n < WORLDS; n++) {
		world_write(s->world[n], at, data, size);
		s->world[n]->ops->invalidate(s->world[n]->v, gpa(at), size);
	}
}

static void new_tables(struct session *s, bool first)
{
	if (first)
		tables_make(&s->tables, s->choices, s->tables.open);
	else
		tables_change(&s->tables, s->choices);
	write_both(s, TABLES, s->tables.entry, sizeof(s->tables.entry));
	s->flush = true;
}

static void new_code(struct session *s)
{
	generate_code(&s->generator, s->code, &s->entry);
	write_both(s, CODE, s->code, CODE_SIZE);
}

static void new_handlers(struct session *s)
{
	enum handlers kind = choose_one_in(s->choices, 4) ? HANDLERS_HALT : HANDLERS_SKIP;
	unsigned skip = 1 + choose_below(s->choices, 8), times = choose_below(s->choices, 60);

	for (unsigned n = 0; n < WORLDS; n++)
		world_set_handlers(s->world[n], kind, skip, times);
}

static void new_control(struct session *s)
{
	const struct world *w = s->world[BT];

	s->cr0 = w->start.cr0 ^ (choose_one_in(s->choices, 8) ? CR0_WP : 0) ^
		 (choose_one_in(s->choices, 8) ? CR0_AM : 0);
	s->cr4 = w->start.cr4;
	s->cr4 ^= choose_one_in(s->choices, 3) && w->model.features[FEATURE_SMEP] ? CR4_SMEP : 0;
	s->cr4 ^= choose_one_in(s->choices, 3) && w->model.features[FEATURE_SMAP] ? CR4_SMAP : 0;
	s->cr4 ^= choose_one_in(s->choices, 4) && w->model.features[FEATURE_PCID] ? CR4_PCIDE : 0;
	s->cr4 ^= choose_one_in(s->choices, 8) ? CR4_PGE : 0;
	s->efer = w->start.efer ^ (choose_one_in(s->choices, 8) ? EFER_NXE : 0);
	s->flush = true;
}

static void start_world(struct world *w, const struct cpu_state *state, bool flush)
{
	if (flush) {
		w->ops->push(w->v, state);
		return;
	}
	/* As push does, but what the TLBs hold stays. */
	w->v->s = *state;
	cpu_set_status(w->v, state->rflags);
	w->v->fpu_live = false;
	cpu_update_mode(w->v);
	vcpu_post(w->v, EVENT_STEP | EVENT_INTERRUPT | EVENT_HALTED);
}

static bool controls_are(const struct world *w, const struct cpu_state *s)
{
	const struct cpu_state *now = &w->v->s;

	return now->cr0 == s->cr0 && now->cr3 == s->cr3 && now->cr4 == s->cr4 && now->efer == s->efer &&
	       now->xcr0 == s->xcr0;
}

static enum code_mode mode_of(const struct generator *g) { return g->code16 ? MODE_16 : g->code32 ? MODE_32 : MODE_64; }

/* For found(): what the round begins with. */
static void say_code(const struct session *s, const struct cpu_state *state)
{
	char text[1900];
	const uint8_t *code = mem_map(s->world[BT]->mem, gpa(CODE), CODE_SIZE, false);
	size_t used = 0;
	struct insn i;

	for (unsigned at = s->entry; at < CODE_SIZE && used < sizeof(text) - 160; at += i.len) {
		char one[128];

		if (!cpu_decode(s->generator.model, mode_of(&s->generator), code + at, CODE_SIZE - at, 0, &i, NULL))
			break;
		cpu_disassemble(mode_of(&s->generator), code + at, CODE_SIZE - at, state->rip + (at - s->entry), one,
				sizeof(one));
		used += (size_t)snprintf(text + used, sizeof(text) - used, "\n#     %llx: %s",
					 (unsigned long long)(state->rip + (at - s->entry)), one);
		if (code[at] == 0xf4)
			break;
	}
	text[used] = 0;
	found_context(4, "CS %x, CR0 %llx, CR4 %llx, RFLAGS %llx, code at first:%s", state->seg_sel[CS],
		      (unsigned long long)state->cr0, (unsigned long long)state->cr4, (unsigned long long)state->rflags,
		      text);
}

/* Mostly one where the code may be executed. */
static unsigned start_spot(struct session *s)
{
	if (s->generator.code32)
		return 1;
	return choose_one_in(s->choices, 16) ? choose_below(s->choices, CODE_SPOTS)
					     : 2 * choose_below(s->choices, CODE_SPOTS / 2) + !s->generator.kernel;
}

static void start_round(struct session *s)
{
	struct cpu_state state = s->world[BT]->start;

	state.cr0 = s->cr0;
	state.cr4 = s->cr4;
	state.efer = s->efer;
	state.rip = spots[start_spot(s)].lin + s->entry;
	generate_registers(&s->generator, &state);
	say_code(s, &state);
	for (unsigned n = 0; n < WORLDS; n++)
		if (s->world[n]->trace.out)
			fprintf(s->world[n]->trace.out, "---- round %llu\n", (unsigned long long)s->counts->rounds);
	for (unsigned n = 0; n < WORLDS; n++)
		s->flush |= !controls_are(s->world[n], &state);
	for (unsigned n = 0; n < WORLDS; n++)
		start_world(s->world[n], &state, s->flush);
	s->flush = false;
}

/* ---- comparing ---- */

static void clean_state(struct world *w, struct cpu_state *s)
{
	w->ops->pull(w->v, s);
	s->icount = 0;
	s->ip_base = 0;
	/* The translator knows it of the x87 instruction executed last alone; processors are about to forget it. */
	s->fds = 0;
}

static void name_differences(const struct cpu_state *a, const struct cpu_state *b)
{
	char text[640];
	size_t used = 0;

	/* clang-format off */
#define _(t, type, name, count, ...)                                                                                   \
	for (unsigned n = 0; n < (count) && used < sizeof(text) - 80; n++) {                                           \
		const type *x = (const type *)((const char *)a + offsetof(struct cpu_state, name)) + n;                \
		const type *y = (const type *)((const char *)b + offsetof(struct cpu_state, name)) + n;                \
		if (*x != *y)                                                                                          \
			used += (size_t)snprintf(text + used, sizeof(text) - used, " %s[%u] %llx, %llx;", #name, n,    \
						 (unsigned long long)*x, (unsigned long long)*y);                      \
	}
	CPU_STATE(_, unused)
#undef _
	/* clang-format on */
	text[used] = 0;
	found_context(3, "interp, bt:%s", text);
}

static void compare_states(struct session *s)
{
	struct cpu_state state[WORLDS];

	for (unsigned n = 0; n < WORLDS; n++)
		clean_state(s->world[n], &state[n]);
	if (!memcmp(&state[INTERP], &state[BT], sizeof(state[0])))
		return;
	name_differences(&state[INTERP], &state[BT]);
	found("the processor is not what the interpreter makes of it");
}

/* A processor may set accessed bits of what is then not accessed (SDM vol. 3A 4.8). */
static bool same_quadword(uint64_t at, uint64_t a, uint64_t b)
{
	return a == b || (at - TABLES < sizeof(((struct page_tables *)0)->entry) && (a ^ b) == BIT(5));
}

static void compare_memory(struct session *s)
{
	const uint8_t *a = s->world[INTERP]->mem->ram.file.base, *b = s->world[BT]->mem->ram.file.base;

	if (!memcmp(a, b, RAM_SIZE))
		return;
	for (uint64_t at = 0; at < RAM_SIZE; at += 8)
		if (!same_quadword(at, load_le64(a + at), load_le64(b + at)))
			found("memory at %#llx is %#llx, by the interpreter %#llx", (unsigned long long)at,
			      (unsigned long long)load_le64(b + at), (unsigned long long)load_le64(a + at));
}

static void fill_data(struct session *s)
{
	uint8_t *data = malloc(RAM_SIZE - DATA);

	BUG_ON(!data);
	for (unsigned n = 0; n + 8 <= RAM_SIZE - DATA; n += 8)
		store_le64(data + n, n & 0x3f ? n * 0x9e3779b97f4a7c15ull : hostile_address(&s->generator));
	write_both(s, DATA, data, RAM_SIZE - DATA);
	free(data);
}

/* After a round whose end is a matter of time: what it made of the memory must not decide about the next ones. */
static void begin_anew(struct session *s)
{
	static const uint8_t zeros[DATA];

	write_both(s, 0, zeros, DEVICE);
	for (unsigned n = 0; n < WORLDS; n++) {
		world_fill_system(s->world[n]);
		s->world[n]->device_hash = 0;
	}
	new_handlers(s);
	write_both(s, TABLES, s->tables.entry, sizeof(s->tables.entry));
	write_both(s, CODE, s->code, CODE_SIZE);
	fill_data(s);
	s->flush = true;
}

/* ---- a round ---- */

static enum exit_kind run_world(struct world *w, int64_t budget)
{
	struct exit exit;
	enum exit_kind kind;

	w->v->budget = budget;
	kind = w->ops->run(w->v, &exit);
	if (kind == EXIT_ERROR)
		found("engine %s gives up: %s", w->name, exit.error.text);
	return kind;
}

static void run_round(struct session *s)
{
	enum exit_kind reference = run_world(s->world[INTERP], BUDGET), kind;
	bool ends = s->compare && reference != EXIT_BUDGET;

	watch_run(choose_below(s->choices, 100) < s->step, ends ? HUNG_MS : ENDLESS_MS, ends);
	kind = run_world(s->world[BT], INT64_MAX / 2);
	watch_stop();
	s->counts->rounds++;
	if (!ends) {
		s->counts->endless++;
		begin_anew(s);
		return;
	}
	if (kind != reference)
		found("the interpreter ends with exit %d, translated code with %d", reference, kind);
	s->counts->compared++;
	s->counts->halted += kind == EXIT_HALT;
	s->counts->shut_down += kind == EXIT_SHUTDOWN;
	compare_states(s);
	compare_memory(s);
	if (s->world[INTERP]->device_hash != s->world[BT]->device_hash)
		found("devices were accessed in another way");
}

static void one_round(struct session *s, unsigned number)
{
	bool first = !number;
	const char *wrong;

	if (first || choose_one_in(s->choices, 4))
		new_tables(s, first);
	if (first || choose_one_in(s->choices, 6))
		new_control(s);
	new_handlers(s);
	if (first || choose_one_in(s->choices, 2)) {
		s->generator.code32 = choose_one_in(s->choices, 4);
		s->generator.code16 = s->generator.code32 && choose_one_in(s->choices, 2);
		s->generator.kernel = !s->generator.code32 && choose_one_in(s->choices, 2);
		new_code(s);
	} else if (!s->generator.code32) {
		s->generator.kernel = choose_one_in(s->choices, 2);
	}
	start_round(s);
	run_round(s);
	wrong = number % CHECK_EVERY ? NULL : check_records(s->world[BT]->v);
	if (wrong)
		found("%s", wrong);
}

/* ---- a session ---- */

static const char *any_translator(struct choices *c)
{
	switch (choose_below(c, 8)) {
	case 0: return "bt,block=1";
	case 1: return "bt,link=off";
	default: return "bt";
	}
}

static void create_worlds(struct session *s, const struct session_options *o)
{
	const char *any = any_translator(s->choices);
	const char *names[WORLDS] = { o->interp ? o->interp : "interp", o->engine ? o->engine : any };
	struct error err;

	for (unsigned n = 0; n < WORLDS; n++) {
		s->world[n] = world_create(names[n], CLOCK_HOST, &err);
		if (!s->world[n]) {
			fprintf(stderr, "cannot create a machine with engine %s: %s\n", names[n], err.text);
			exit(1);
		}
	}
}

/* Where each world writes what happens in it: <path>.interp and <path>.bt */
static void open_traces(struct session *s, const char *path)
{
	struct error err;

	for (unsigned n = 0; n < WORLDS; n++) {
		char name[512];

		snprintf(name, sizeof(name), "%s.%s", path, n == BT ? "bt" : "interp");
		if (trace_open(&s->world[n]->trace, "exceptions,page-faults,control,msr,mmio,pio,code", name,
			       UINT64_MAX, &err))
			fprintf(stderr, "# %s\n", err.text);
	}
}

void session_run(struct choices *c, const char *name, const struct session_options *options,
		 struct session_counts *counts)
{
	struct session *s = calloc(1, sizeof(*s));

	BUG_ON(!s);
	s->choices = c;
	s->counts = counts;
	s->step = options->step;
	s->tables.open = choose_one_in(c, 5);
	s->compare = !s->tables.open;
	create_worlds(s, options);
	if (options->trace)
		open_traces(s, options->trace);
	watch_begin(s->world[BT]->v);
	watch_young(s->world[BT]->v, choose_one_in(c, 4));
	s->generator = (struct generator){
		.choices = c,
		.model = &s->world[BT]->model,
		.secrets = s->secrets,
		.secret_count = watch_secrets(s->world[BT]->v, s->secrets, MAX_SECRETS),
	};
	fill_data(s);
	for (unsigned n = 0; n < options->rounds; n++) {
		found_context(0, "%s, round %u", name, n);
		one_round(s, n);
	}
	watch_end();
	for (unsigned n = WORLDS; n--;) {
		trace_close(&s->world[n]->trace);
		world_destroy(s->world[n]);
	}
	free(s);
}
