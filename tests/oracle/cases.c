/*
 * cases: what an instruction is tried on. Each case is a function of seed, form and number: an encoding of the form with
 * registers, address and immediate filled in, a state and memory of edge values and random ones, with what the instruction
 * asks for in its place (operands.c).
 */
#include "cases.h"

#include <stdlib.h>

/* ---- memory ---- */

static uint8_t *side_at(const struct areas *a, uint64_t at, unsigned len)
{
	if (at - DATA < DATA_SIZE && len <= DATA + DATA_SIZE - at)
		return a->data + (at - DATA);
	if (at - STACK < STACK_SIZE && len <= STACK + STACK_SIZE - at)
		return a->stack + (at - STACK);
	return NULL;
}

void put_bytes(struct cases *c, uint64_t at, const void *bytes, unsigned len)
{
	for (unsigned n = 0; n < 2; n++) {
		uint8_t *p = side_at(c->sides[n], at, len);

		if (p)
			memcpy(p, bytes, len);
	}
}

void put_value(struct cases *c, uint64_t at, uint64_t value, unsigned len) { put_bytes(c, at, &value, len); }

uint64_t peek_value(struct cases *c, uint64_t at, unsigned len)
{
	const uint8_t *p = side_at(c->sides[0], at, len);
	uint64_t value = 0;

	if (p)
		memcpy(&value, p, len);
	return value;
}

static void make_memory(struct cases *c)
{
	size_t from = 8 * rng_below(&c->rng, (POOL_SIZE - DATA_SIZE - STACK_SIZE) / 8);

	for (unsigned n = 0; n < 2; n++) {
		memcpy(c->sides[n]->data, c->pool + from, DATA_SIZE);
		memcpy(c->sides[n]->stack, c->pool + from + DATA_SIZE, STACK_SIZE);
	}
}

static void put_code(struct cases *c, const struct test_case *t)
{
	uint64_t at = linear_of(&t->before, CS, t->before.rip) - CODE;
	unsigned len = (unsigned)MIN(t->len, CODE_SIZE - at);

	for (unsigned n = 0; n < 2; n++) {
		memset(c->sides[n]->code + c->code_at, FILLER, c->code_len);
		memcpy(c->sides[n]->code + at, t->bytes, len);
	}
	c->code_at = at;
	c->code_len = len;
}

/* ---- one case ---- */

static uint64_t case_seed(uint64_t seed, const char *name, uint64_t number)
{
	uint64_t h = seed ^ 14695981039346656037ull;

	while (*name)
		h = (h ^ (uint8_t)*name++) * 1099511628211ull;
	return h ^ number * 0x9e3779b97f4a7c15ull;
}

/* Where the instruction is: mostly inside a page, sometimes across two, sometimes where code ends. */
static uint64_t code_address(struct rng *r, unsigned len)
{
	switch (rng_below(r, 24)) {
	case 0:
	case 1: return CODE + PAGE_SIZE - rng_below(r, len + 1);
	case 2: return CODE + CODE_SIZE - len;
	case 3: return CODE + CODE_SIZE - 1 - rng_below(r, len);
	default: return CODE + 256 + rng_below(r, CODE_SIZE - 512);
	}
}

void put_instruction(struct cases *c, struct test_case *t, bool whole)
{
	struct segment cs = segment_of(t->before.sel[CS]);
	uint64_t at = whole ? CODE + rng_below(&c->rng, CODE_SIZE - 64) : code_address(&c->rng, t->len);

	t->before.rip = c->mode == MODE_64 ? at : (uint32_t)(at - cs.base);
	if (c->mode == MODE_64)
		return;
	if (whole && t->before.rip > cs.limit - 64)
		t->before.rip = cs.limit - 64;
	else if (t->before.rip > cs.limit)
		t->before.rip = cs.limit - rng_below(&c->rng, t->len + 1);
}

/* EAX may have become an address: components that the host alone has would be in its image alone. */
static bool asks_for_more(const struct cases *c, const struct test_case *t)
{
	return has_component_mask(t->insn.op) && (t->before.gpr[RAX] & c->traits.xcr0 & ~MODEL_COMPONENTS & UINT32_MAX);
}

static bool can_be_entered(const struct cases *c, const struct user_state *s)
{
	return !c->traits.pvm || is_canonical(s->gpr[RSP]);
}

static bool instruction_case(struct cases *c, struct test_case *t, uint64_t number)
{
	const struct insn_form *form = t->form;
	const struct encoding *e = &form->encodings[number % form->encoding_count];
	struct encoding_fields f;
	bool made = false, too_long;

	for (unsigned attempt = 0; attempt < 8 && !made; attempt++)
		made = make_instruction(c, form, e, &f, t);
	if (!made)
		return false;
	too_long = t->insn.op == OP_TOO_LONG;
	if (!form->undefined && !too_long)
		t->form = forms_of(c->forms, t->bytes, t->len);
	if (!t->form || t->form->reason)
		return false;
	make_state(c, &t->before);
	if (c->mode != MODE_64)
		narrow_registers(&t->before);
	/* Where an undefined instruction ends nobody can say: all of it is there to be fetched. */
	put_instruction(c, t, form->undefined || too_long || t->insn.op == OP_UD0 || t->insn.op == OP_UD1);
	if (rng_one_in(&c->rng, 24)) {
		t->before.rflags |= FLAG_TF;
		t->mode = RUN_TRAP;
	}
	c->target = segment_address(c, &t->before, t->insn.seg, operand_alignment(t));
	if (!too_long) {
		operands_before(c, t);
		if (e->memory && !form->undefined)
			place_operand(c, e, &f, t);
		if (!form->undefined && (!operands_after(c, t) || asks_for_more(c, t)))
			return false;
	}
	return can_be_entered(c, &t->before);
}

bool cases_make(struct cases *c, struct insn_form *form, uint64_t number, struct test_case *t,
		const struct areas *sides[2])
{
	bool made;

	c->rng.state = case_seed(c->seed, form->name, number);
	c->sides[0] = sides[0];
	c->sides[1] = sides[1];
	memset(t, 0, sizeof(*t));
	t->traits = c->traits;
	t->code_mode = c->mode;
	t->form = t->made_for = form;
	t->mode = rng_below(&c->rng, RUN_MODES);
	make_memory(c);
	made = form->sequence ? sequence_make(c, t, form->x87) : instruction_case(c, t, number);
	if (!made)
		return false;
	if (c->mode != MODE_64)
		narrow_registers(&t->before);
	put_code(c, t);
	return true;
}
/* ---- life ---- */

struct cases *cases_create(struct forms *forms, const struct cpu_model *model, const struct user_state *start,
			   struct host_traits traits, uint64_t seed)
{
	struct cases *c = calloc(1, sizeof(*c));
	struct rng r = { seed };

	if (!c)
		return NULL;
	c->forms = forms;
	c->mode = forms->mode;
	c->model = model;
	c->start = *start;
	c->traits = traits;
	c->seed = seed;
	for (unsigned n = 0; n < POOL_SIZE; n += 8)
		store_le64(c->pool + n, lane_value(&r, (n >> 6) % LANES_KINDS));
	if (!sequence_prepare(c)) {
		cases_destroy(c);
		return NULL;
	}
	return c;
}

void cases_begin(struct cases *c)
{
	c->code_at = 0;
	c->code_len = CODE_SIZE;
}

void cases_destroy(struct cases *c)
{
	if (!c)
		return;
	free(c->x87_forms);
	free(c->environment_forms);
	free(c);
}
