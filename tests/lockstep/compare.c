/* Comparing both sides at a position: registers of all vCPUs, pages that were written, all of the memory. */
#include "lockstep.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Pages that the reference may have written since the last comparison: those that its TLBs let it. */
struct page_log {
	struct vcpu_hooks hooks; /* first: what struct vcpu points to */
	uint64_t *noted;	 /* bit a page of RAM */
	uint32_t *list;
	unsigned count;
};

struct comparison {
	const struct plan *plan;
	struct difference *difference;
	struct vcpu *const *cpus[SIDES]; /* of the machines; NULL before the first step */
	unsigned cpu_count;
	unsigned running; /* which ran, or is about to */
	struct page_log log;
	bool injected;
	uint64_t position, whole_at, first_whole_page;
	struct comparison_counts counts;
};

/* ---- saying what differs ---- */

static __attribute__((format(printf, 2, 3))) void say(struct comparison *c, const char *format, ...)
{
	struct difference *d = c->difference;
	size_t used = strlen(d->text);
	va_list args;

	d->found = true;
	va_start(args, format);
	vsnprintf(d->text + used, sizeof(d->text) - used, format, args);
	va_end(args);
}

/* ---- memory ---- */

static uint8_t *page_of(struct comparison *c, unsigned side, uint64_t page)
{
	return mem_map(c->cpus[side][0]->mem, gpa(page), PAGE_SIZE, false);
}

static void say_page(struct comparison *c, uint64_t page, const uint8_t *a, const uint8_t *b)
{
	struct difference *d = c->difference;
	unsigned said = 0;

	d->found = true;
	if (d->page_count == MAX_PAGES)
		return;
	d->page[d->page_count++] = page;
	for (unsigned n = 0; n < PAGE_SIZE; n += 8)
		if (load_le64(a + n) != load_le64(b + n) && said++ < 4)
			say(c, "memory at %#llx: %#llx, %#llx\n", (unsigned long long)(page + n),
			    (unsigned long long)load_le64(a + n), (unsigned long long)load_le64(b + n));
}

static bool only_accessed_bits(const struct comparison *c, uint64_t page, const uint8_t *a, const uint8_t *b)
{
	if (page < c->plan->accessed_from || page >= c->plan->accessed_to)
		return false;
	for (unsigned n = 0; n < PAGE_SIZE; n += 8)
		if ((load_le64(a + n) ^ load_le64(b + n)) & ~BIT(5))
			return false;
	return true;
}

static void compare_page(struct comparison *c, uint64_t page)
{
	const uint8_t *a = page_of(c, REFERENCE, page), *b = page_of(c, TESTED, page);

	c->counts.pages++;
	if (a && b && memcmp(a, b, PAGE_SIZE) && !only_accessed_bits(c, page, a, b))
		say_page(c, page, a, b);
}

static void compare_all_memory(struct comparison *c)
{
	uint64_t starts[4], sizes[4];
	unsigned ranges = mem_ram_ranges(c->cpus[REFERENCE][0]->mem, starts, sizes);

	c->counts.wholes++;
	for (unsigned n = 0; n < ranges; n++)
		for (uint64_t at = starts[n]; at < starts[n] + sizes[n]; at += PAGE_SIZE)
			compare_page(c, at);
}

/* ---- which pages the reference writes ---- */

static void note_writable(struct vcpu *v, gpa_t page)
{
	struct page_log *log = (struct page_log *)v->hooks;
	uint64_t number = page.v >> PAGE_SHIFT;

	if (log->noted[number / 64] >> (number % 64) & 1)
		return;
	log->noted[number / 64] |= BIT(number % 64);
	log->list[log->count++] = (uint32_t)number;
}

/* Their next writes are noted again. */
static void drop_write_entries(struct vcpu *v)
{
	for (unsigned view = 0; view < TLB_VIEWS; view++)
		for (unsigned n = 0; n < TLB_SIZE; n++)
			v->tlbs[view][n].write_tag = 0;
}

static bool log_is_possible(const struct vcpu *v) { return v->engine->ops->can & ENGINE_TLB_ALONE; }

static void start_log(struct comparison *c)
{
	const struct guest_mem *mem = c->cpus[REFERENCE][0]->mem;
	uint64_t starts[4], sizes[4], pages;
	unsigned ranges = mem_ram_ranges(mem, starts, sizes);

	pages = (starts[ranges - 1] + sizes[ranges - 1]) >> PAGE_SHIFT;
	c->log.noted = calloc(pages / 64 + 1, sizeof(*c->log.noted));
	c->log.list = calloc(pages, sizeof(*c->log.list));
	BUG_ON(!c->log.noted || !c->log.list);
	c->log.hooks = *c->cpus[REFERENCE][0]->hooks;
	c->log.hooks.tlb_writable = note_writable;
	for (unsigned n = 0; n < c->cpu_count; n++) {
		c->cpus[REFERENCE][n]->hooks = &c->log.hooks;
		drop_write_entries(c->cpus[REFERENCE][n]);
	}
}

static void compare_written(struct comparison *c)
{
	struct page_log *log = &c->log;

	if (!log->list)
		return;
	for (unsigned n = 0; n < log->count; n++) {
		uint64_t number = log->list[n];

		compare_page(c, number << PAGE_SHIFT);
		log->noted[number / 64] &= ~BIT(number % 64);
	}
	log->count = 0;
	for (unsigned n = 0; n < c->cpu_count; n++)
		drop_write_entries(c->cpus[REFERENCE][n]);
}

/* ---- registers ---- */

static void pull(const struct vcpu *cpu, struct cpu_state *s)
{
	struct vcpu *v = (struct vcpu *)cpu;

	v->engine->ops->pull(v, s);
	s->ip_base = 0; /* engines' own */
	/* Translated code notes it of the x87 instruction executed last alone; processors are about to forget it. */
	s->fds = 0;
}

static void say_state(struct comparison *c, unsigned cpu, const struct cpu_state *a, const struct cpu_state *b)
{
	/* clang-format off */
#define _(t, type, name, count, ...)                                                                                   \
	for (unsigned n = 0; n < (count); n++) {                                                                       \
		const type *x = (const type *)((const char *)a + offsetof(struct cpu_state, name)) + n;                \
		const type *y = (const type *)((const char *)b + offsetof(struct cpu_state, name)) + n;                \
		if (*x != *y)                                                                                          \
			say(c, "CPU %u %s[%u]: %#llx, %#llx\n", cpu, #name, n, (unsigned long long)*x,                 \
			    (unsigned long long)*y);                                                                   \
	}
	CPU_STATE(_, unused)
#undef _
	/* clang-format on */
}

static void compare_registers(struct comparison *c)
{
	for (unsigned n = 0; n < c->cpu_count; n++) {
		struct cpu_state state[SIDES];

		for (unsigned side = 0; side < SIDES; side++)
			pull(c->cpus[side][n], &state[side]);
		if (!memcmp(&state[REFERENCE], &state[TESTED], sizeof(state[0])))
			continue;
		say_state(c, n, &state[REFERENCE], &state[TESTED]);
	}
}

/* ---- positions ---- */

uint64_t machine_position(struct vcpu *const *cpus, unsigned count)
{
	uint64_t sum = 0;

	for (unsigned n = 0; n < count; n++)
		sum += cpus[n]->s.icount;
	return sum;
}

static uint64_t position_of(const struct comparison *c, unsigned side)
{
	return machine_position(c->cpus[side], c->cpu_count);
}

/* Bytes at RIP of the vCPU that is about to run. */
static unsigned read_code(struct vcpu *v, uint8_t *bytes, unsigned len)
{
	uint64_t at = v->code_mode == MODE_64 ? v->s.rip : (uint32_t)(v->s.seg_base[CS] + v->s.rip);
	unsigned done = 0;

	while (done < len) {
		unsigned part = MIN(len - done, (unsigned)(PAGE_SIZE - ((at + done) & ~PAGE_MASK)));
		gpa_t physical;

		if (cpu_translate_debug(v, gva(at + done), &physical) || mem_read(v->mem, physical, bytes + done, part))
			break;
		done += part;
	}
	return done;
}

/* Instructions up to the next branch or the end of the page. */
static uint64_t block_length(const struct vcpu *v, const uint8_t *code, unsigned len)
{
	unsigned at = 0;
	uint64_t count = 0;
	struct insn i;

	len = MIN(len, (unsigned)(PAGE_SIZE - (v->s.rip & ~PAGE_MASK)));
	while (at < len && cpu_decode(v->model, v->code_mode, code + at, len - at, 0, &i, NULL)) {
		count++;
		at += i.len;
		if (i.flags & INSN_ENDS)
			break;
	}
	return MAX(count, 1);
}

/* What `difference` needs to know of where both sides are still the same. */
static void remember(struct comparison *c, struct vcpu *v)
{
	struct difference *d = c->difference;

	d->from = c->position;
	d->cpu = v->index;
	d->mode = v->code_mode;
	d->model = *v->model;
	pull(v, &d->before);
	d->code_len = c->position >= c->plan->fine_from ? read_code(v, d->code, sizeof(d->code)) : 0;
}

static uint64_t next_step(const struct comparison *c, const struct vcpu *v)
{
	const struct plan *p = c->plan;
	uint64_t step = p->step;

	if (c->position < p->fine_from)
		step = MIN(step, p->fine_from - c->position);
	else
		step = p->fine_step ? p->fine_step : block_length(v, c->difference->code, c->difference->code_len);
	if (p->inject_at > c->position)
		step = MIN(step, p->inject_at - c->position);
	return step;
}

/* ---- a step ---- */

static void first_step(struct comparison *c, struct vcpu *const v[SIDES])
{
	c->cpu_count = v[REFERENCE]->peer_count;
	for (unsigned side = 0; side < SIDES; side++)
		c->cpus[side] = v[side]->peers;
	if (log_is_possible(v[REFERENCE]))
		start_log(c);
}

static void inject(struct comparison *c)
{
	if (!c->plan->inject_at || c->injected || c->position < c->plan->inject_at)
		return;
	c->injected = true;
	c->cpus[TESTED][c->running]->s.gpr[RBX] ^= BIT(40);
}

static void compare_now(struct comparison *c)
{
	const struct plan *p = c->plan;

	c->counts.steps++;
	compare_registers(c);
	compare_written(c);
	for (unsigned n = 0; n < p->watch_count; n++)
		compare_page(c, p->watch[n]);
}

static void compare_everything(struct comparison *c)
{
	bool before = c->difference->found;

	compare_all_memory(c);
	/* Made at some time since all was compared last. */
	if (!before && c->difference->found)
		c->difference->from = c->whole_at;
	c->whole_at = c->position;
}

static void finish(struct comparison *c)
{
	struct difference *d = c->difference;

	d->to = c->position;
	for (unsigned side = 0; side < SIDES; side++)
		pull(c->cpus[side][c->running], &d->after[side]);
}

uint64_t comparison_step(struct comparison *c, struct vcpu *const v[SIDES])
{
	const struct plan *p = c->plan;

	if (!c->cpu_count) {
		first_step(c, v);
		remember(c, v[REFERENCE]);
		c->running = v[REFERENCE]->index;
	}
	c->position = position_of(c, REFERENCE);
	c->counts.instructions = c->position;
	inject(c);
	if (position_of(c, TESTED) != c->position)
		say(c, "instructions: %llu, %llu\n", (unsigned long long)c->position,
		    (unsigned long long)position_of(c, TESTED));
	if (v[REFERENCE]->index != v[TESTED]->index)
		say(c, "about to run: CPU %u, CPU %u\n", v[REFERENCE]->index, v[TESTED]->index);
	compare_now(c);
	if (!c->difference->found && c->position - c->whole_at >= p->whole_every)
		compare_everything(c);
	if (c->difference->found) {
		finish(c);
		return 0;
	}
	c->running = v[REFERENCE]->index;
	remember(c, v[REFERENCE]);
	return c->position >= p->end ? 0 : next_step(c, v[REFERENCE]);
}

void comparison_end(struct comparison *c, const bool ended[SIDES], const int status[SIDES])
{
	if (!c->cpu_count || c->difference->found)
		return;
	c->position = position_of(c, REFERENCE);
	c->counts.instructions = c->position;
	if (ended[REFERENCE] != ended[TESTED])
		say(c, "%s ends, %s does not\n", ended[REFERENCE] ? "the reference" : "the tested side",
		    ended[REFERENCE] ? "the tested side" : "the reference");
	else if (status[REFERENCE] != status[TESTED])
		say(c, "exit status: %d, %d\n", status[REFERENCE], status[TESTED]);
	compare_now(c);
	if (!c->difference->found)
		compare_everything(c);
	if (c->difference->found)
		finish(c);
}

/* ---- life ---- */

struct comparison *comparison_create(const struct plan *plan, struct difference *d)
{
	struct comparison *c = calloc(1, sizeof(*c));

	BUG_ON(!c);
	*d = (struct difference){ 0 };
	c->plan = plan;
	c->difference = d;
	return c;
}

void comparison_destroy(struct comparison *c)
{
	free(c->log.noted);
	free(c->log.list);
	free(c);
}

struct comparison_counts comparison_counts(const struct comparison *c) { return c->counts; }
