/*
 * String instructions against a model that moves one byte after the other and knows nothing of runs, TLBs or pages but
 * their rights.
 */
#include "lib/cpu_fixture.h"

enum kind { MOVS, STOS, LODS, CMPS, SCAS, KINDS };
static cpu_op_fn *const ops[KINDS] = { op_movs, op_stos, op_lods, op_cmps, op_scas };
static const char *const kind_names[KINDS] = { "movs", "stos", "lods", "cmps", "scas" };

/* The window: physical pages in disorder, one hole, one page that cannot be written; page 7 is page 0 again. */
#define PAGES 8u
enum { HOLE = 3, READ_ONLY = 5 };
static const struct {
	uint32_t page;
	uint8_t rights;
} window[PAGES] = {
	{ 0x105000, 3 }, { 0x101000, 3 }, { 0x102000, 3 }, { 0, 0 },
	{ 0x107000, 3 }, { 0x103000, 1 }, { 0x104000, 3 }, { 0x105000, 3 },
};
#define FRAMES	    0x101000u
#define FRAMES_SIZE 0x7000u

struct run {
	enum kind kind;
	unsigned size, addrsize, rep; /* INSN_REP, INSN_REPNE or 0 */
	bool down;
	uint64_t rax, rcx, rsi, rdi;
};

/* What the model changes. */
struct outcome {
	uint64_t rax, rcx, rsi, rdi, flags;
	bool fault;
	uint64_t address;
	bool write;
	uint8_t frames[FRAMES_SIZE];
};

static int setup(void **state)
{
	struct cpu_fixture *f = malloc(sizeof(*f));

	fixture_setup(f, "v2", true, NULL);
	fixture_long_mode(f);
	for (unsigned n = 0; n < PAGES; n++)
		if (n != HOLE)
			fixture_map(f, n, window[n].page, window[n].rights);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_teardown(*state);
	free(*state);
	return 0;
}

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* ---- the model ---- */

static bool model_check(struct outcome *o, uint64_t lin, unsigned size, bool write)
{
	for (unsigned k = 0; k < size; k++) {
		unsigned n = (unsigned)((lin + k - FIXTURE_LIN) >> PAGE_SHIFT);
		if (n < PAGES && (window[n].rights & (write ? 3 : 1)) == (write ? 3 : 1))
			continue;
		o->fault = true;
		o->address = lin + k;
		o->write = write;
		return false;
	}
	return true;
}

static uint8_t *model_byte(struct outcome *o, uint64_t lin)
{
	return &o->frames[window[(lin - FIXTURE_LIN) >> PAGE_SHIFT].page + (lin & 0xfff) - FRAMES];
}

static bool model_load(struct outcome *o, uint64_t lin, unsigned size, uint64_t *value)
{
	*value = 0;
	if (!model_check(o, lin, size, false))
		return false;
	for (unsigned k = 0; k < size; k++)
		*value |= (uint64_t)*model_byte(o, lin + k) << 8 * k;
	return true;
}

static bool model_store(struct outcome *o, uint64_t lin, unsigned size, uint64_t value)
{
	if (!model_check(o, lin, size, true))
		return false;
	for (unsigned k = 0; k < size; k++)
		*model_byte(o, lin + k) = (uint8_t)(value >> 8 * k);
	return true;
}

/* The host's own CMP says what the flags are. */
static uint64_t compare_flags(uint64_t x, uint64_t y, unsigned size)
{
	uint64_t f;

	switch (size) {
	case 1: __asm__("cmpb %b2, %b1; pushfq; pop %0" : "=r"(f) : "q"(x), "q"(y) : "cc"); break;
	case 2: __asm__("cmpw %w2, %w1; pushfq; pop %0" : "=r"(f) : "r"(x), "r"(y) : "cc"); break;
	case 4: __asm__("cmpl %k2, %k1; pushfq; pop %0" : "=r"(f) : "r"(x), "r"(y) : "cc"); break;
	default: __asm__("cmpq %2, %1; pushfq; pop %0" : "=r"(f) : "r"(x), "r"(y) : "cc"); break;
	}
	return f & FLAGS_STATUS;
}

static uint64_t truncate(uint64_t value, unsigned size) { return size == 8 ? value : value & ((1ull << size * 8) - 1); }

/* One element; false: it faulted. *stop: REPE or REPNE ends. */
static bool model_element(const struct run *r, struct outcome *o, bool *stop)
{
	uint64_t step = r->down ? -(uint64_t)r->size : r->size, x = truncate(o->rax, r->size), y = 0;
	bool source = r->kind == MOVS || r->kind == LODS || r->kind == CMPS;
	bool compares = r->kind == CMPS || r->kind == SCAS;

	/* CMPS: ES:rDI first, see docs/fidelity.md. */
	if (compares && !model_load(o, o->rdi, r->size, &y))
		return false;
	if (source && !model_load(o, o->rsi, r->size, &x))
		return false;
	if ((r->kind == MOVS || r->kind == STOS) && !model_store(o, o->rdi, r->size, x))
		return false;
	if (compares) {
		o->flags = compare_flags(x, y, r->size);
		*stop = (x == y) != (r->rep == INSN_REP);
	}
	if (r->kind == LODS)
		o->rax = r->size == 4 ? x : (o->rax & ~truncate(UINT64_MAX, r->size)) | x;
	if (source)
		o->rsi = truncate(o->rsi + step, r->addrsize);
	if (r->kind != LODS)
		o->rdi = truncate(o->rdi + step, r->addrsize);
	return true;
}

static void model_run(const struct run *r, struct outcome *o)
{
	bool stop = false;

	if (!r->rep) {
		model_element(r, o, &stop);
		return;
	}
	while (truncate(o->rcx, r->addrsize) && !stop) {
		if (!model_element(r, o, &stop))
			return;
		o->rcx = truncate(o->rcx - 1, r->addrsize);
	}
}

/* ---- comparison ---- */

static void check(struct cpu_fixture *f, const struct run *r, unsigned *restarts)
{
	static struct outcome want;
	struct vcpu *v = f->v;
	uint8_t *frames = mem_map(f->mem, gpa(FRAMES), FRAMES_SIZE, true);
	struct insn i = { .opsize = (uint8_t)r->size,
			  .addrsize = (uint8_t)r->addrsize,
			  .seg = DS,
			  .flags = (uint16_t)(INSN_SYSTEM | r->rep),
			  .len = 2 };
	uint64_t start_flags = FLAG_CF | FLAG_AF;

	want = (struct outcome){ .rax = r->rax, .rcx = r->rcx, .rsi = r->rsi, .rdi = r->rdi, .flags = start_flags };
	memcpy(want.frames, frames, FRAMES_SIZE);
	model_run(r, &want);

	v->s.gpr[RAX] = r->rax;
	v->s.gpr[RCX] = r->rcx;
	v->s.gpr[RSI] = r->rsi;
	v->s.gpr[RDI] = r->rdi;
	v->s.rflags = 2 | (r->down ? FLAG_DF : 0);
	cpu_set_status(v, start_flags);
	bool ok = fixture_run(v, ops[r->kind], &i, restarts);

	if (ok == want.fault || v->s.gpr[RCX] != want.rcx || memcmp(frames, want.frames, FRAMES_SIZE))
		print_message("# %s size %u address size %u rep %#x %s rcx %#lx rsi %#lx rdi %#lx\n",
			      kind_names[r->kind], r->size, r->addrsize, r->rep, r->down ? "down" : "up", r->rcx,
			      r->rsi, r->rdi);
	assert_int_equal(ok, !want.fault);
	assert_int_equal(v->s.gpr[RAX], want.rax);
	assert_int_equal(v->s.gpr[RCX], want.rcx);
	assert_int_equal(v->s.gpr[RSI], want.rsi);
	assert_int_equal(v->s.gpr[RDI], want.rdi);
	assert_memory_equal(frames, want.frames, FRAMES_SIZE);
	if (ok) {
		assert_int_equal(cpu_status(v), want.flags);
		return;
	}
	assert_int_equal(v->fault.vector, EXC_PF);
	assert_int_equal(v->fault.address, want.address);
	assert_int_equal(!!(v->fault.error & PF_W), want.write);
}

/* Few different bytes, so that comparisons go on for a while. */
static void scramble(struct cpu_fixture *f, uint64_t *seed)
{
	uint8_t *frames = mem_map(f->mem, gpa(FRAMES), FRAMES_SIZE, true);
	uint64_t mask = next_random(seed) & 1 ? 0x3f : 0;

	for (unsigned k = 0; k < FRAMES_SIZE; k++)
		frames[k] = (next_random(seed) & mask) == 1 ? (uint8_t)next_random(seed) : 0x55;
}

static uint64_t random_address(uint64_t *seed)
{
	uint64_t r = next_random(seed), page = FIXTURE_LIN + (r % PAGES) * PAGE_SIZE;

	switch (r >> 20 & 3) {
	case 0: return page + (r >> 32) % 32 - (page > FIXTURE_LIN ? 16 : 0); /* about the border */
	default: return page + (r >> 32) % PAGE_SIZE;
	}
}

static void random_runs(void **state)
{
	struct cpu_fixture *f = *state;
	uint64_t seed = 0x9e3779b97f4a7c15;

	for (unsigned n = 0; n < 4000; n++) {
		uint64_t r = next_random(&seed);
		struct run run = {
			.kind = (enum kind)(r % KINDS),
			.size = 1u << (r >> 8) % 4,
			.addrsize = r >> 16 & 1 ? 8 : 4,
			.rep = r >> 20 & 3 ? (r >> 22 & 1 ? INSN_REP : INSN_REPNE) : 0,
			.down = (r >> 24 & 3) == 0,
			.rax = r >> 28 & 1 ? 0x5555555555555555 : next_random(&seed),
			.rcx = (r >> 32) % (3 * PAGE_SIZE) >> (r >> 48) % 12,
			.rsi = random_address(&seed),
			.rdi = random_address(&seed),
		};
		if (run.kind == MOVS && r >> 50 & 1)
			run.rdi = run.rsi + (r >> 52 & 31); /* overlapping closely */
		if (run.addrsize == 4)
			run.rcx |= next_random(&seed) << 32; /* not part of the count, and left alone when that is 0 */
		scramble(f, &seed);
		cpu_tlb_flush(f->v);
		if (r >> 51 & 1)
			vcpu_post(f->v, EVENT_INTERRUPT);
		else
			atomic_store(&f->v->events, 0);
		check(f, &run, NULL);
	}
}

static void overlap_repeats_pattern(void **state)
{
	struct cpu_fixture *f = *state;
	uint8_t *p = mem_map(f->mem, gpa(window[1].page), PAGE_SIZE, true);
	struct run run = { .kind = MOVS, .size = 1, .addrsize = 8, .rep = INSN_REP, .rcx = 100 };

	memcpy(p, "abc", 3);
	run.rsi = FIXTURE_LIN + PAGE_SIZE;
	run.rdi = run.rsi + 3;
	check(f, &run, NULL);
	assert_memory_equal(p, "abcabcabcabc", 12);
	/* The second time the TLB knows both pages. */
	memcpy(p, "xyz", 3);
	check(f, &run, NULL);
	assert_memory_equal(p, "xyzxyzxyzxyz", 12);
}

static void overlap_through_alias(void **state)
{
	struct cpu_fixture *f = *state;
	struct run run = { .kind = MOVS,
			   .size = 2,
			   .addrsize = 8,
			   .rep = INSN_REP,
			   .rcx = 500,
			   .rsi = FIXTURE_LIN + 8,
			   .rdi = FIXTURE_LIN + 7 * PAGE_SIZE + 13 };
	uint64_t seed = 1;

	for (unsigned n = 0; n < 3; n++) {
		scramble(f, &seed);
		check(f, &run, NULL);
	}
}

static void fault_in_the_middle(void **state)
{
	struct cpu_fixture *f = *state;
	struct run run = { .kind = STOS,
			   .size = 8,
			   .addrsize = 8,
			   .rep = INSN_REP,
			   .rcx = 2000,
			   .rax = 0x1122334455667788,
			   .rdi = FIXTURE_LIN + 4 };

	check(f, &run, NULL);
	assert_int_equal(f->v->fault.address, FIXTURE_LIN + HOLE * PAGE_SIZE);
	assert_int_equal(f->v->s.gpr[RCX], 2000 - (HOLE * PAGE_SIZE - 4) / 8);
}

static void events_are_let_in(void **state)
{
	struct cpu_fixture *f = *state;
	struct run run = {
		.kind = STOS, .size = 1, .addrsize = 8, .rep = INSN_REP, .rcx = 3 * PAGE_SIZE, .rdi = FIXTURE_LIN
	};
	unsigned restarts = 0;

	check(f, &run, &restarts);
	assert_int_equal(restarts, 0);
	vcpu_post(f->v, EVENT_NMI);
	check(f, &run, &restarts);
	assert_in_range(restarts, 2, 6); /* pages, and their first elements when the TLB did not know them */
	atomic_store(&f->v->events, 0);
}

static void single_step_is_one_element(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;
	struct insn i = { .opsize = 1, .addrsize = 8, .seg = DS, .flags = INSN_REP };

	v->s.rflags = 2 | FLAG_TF;
	v->s.gpr[RCX] = 2;
	v->s.gpr[RDI] = FIXTURE_LIN;
	op_stos(v, &i);
	assert_true(v->restart);
	assert_int_equal(v->s.gpr[RCX], 1);
	v->restart = false;
	op_stos(v, &i);
	assert_false(v->restart);
	assert_int_equal(v->s.gpr[RCX], 0);
}

static void segment_override(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;
	struct insn i = { .opsize = 4, .addrsize = 8, .seg = GS };

	fixture_poke(f, window[2].page + 8, 0xcafebabe);
	v->s.rflags = 2;
	v->s.seg_base[GS] = FIXTURE_LIN + 2 * PAGE_SIZE;
	v->s.gpr[RSI] = 8;
	v->s.gpr[RAX] = UINT64_MAX;
	assert_true(fixture_run(v, op_lods, &i, NULL));
	assert_int_equal(v->s.gpr[RAX], 0xcafebabe);
}

/* 16-bit code: the index wraps at 64 KiB and stays below the segment's limit. */
static void real_mode(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;
	struct insn i = { .opsize = 1, .addrsize = 2, .seg = DS, .flags = INSN_REP };

	cpu_reset(v, false);
	v->s.seg_base[ES] = 0x10000;
	cpu_update_mode(v);
	v->s.gpr[RAX] = 0xab;
	v->s.gpr[RCX] = 0x770020;
	v->s.gpr[RDI] = 0x55fff0;
	assert_true(fixture_run(v, op_stos, &i, NULL));
	assert_int_equal(v->s.gpr[RCX], 0x770000);
	assert_int_equal(v->s.gpr[RDI], 0x550010);
	uint8_t *p = mem_map(f->mem, gpa(0x10000), 0x10000, false);
	assert_int_equal(p[0xffef], 0);
	assert_int_equal(p[0xfff0], 0xab);
	assert_int_equal(p[0xffff], 0xab);
	assert_int_equal(p[0xf], 0xab);
	assert_int_equal(p[0x10], 0);

	v->s.seg_limit[ES] = 0xfff;
	cpu_update_mode(v);
	v->s.gpr[RCX] = 0x20;
	v->s.gpr[RDI] = 0xff0;
	assert_false(fixture_run(v, op_stos, &i, NULL));
	assert_int_equal(v->fault.vector, EXC_GP);
	assert_int_equal(v->s.gpr[RCX], 0x10);
	assert_int_equal(v->s.gpr[RDI], 0x1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(random_runs, setup, teardown),
		cmocka_unit_test_setup_teardown(overlap_repeats_pattern, setup, teardown),
		cmocka_unit_test_setup_teardown(overlap_through_alias, setup, teardown),
		cmocka_unit_test_setup_teardown(fault_in_the_middle, setup, teardown),
		cmocka_unit_test_setup_teardown(events_are_let_in, setup, teardown),
		cmocka_unit_test_setup_teardown(single_step_is_one_element, setup, teardown),
		cmocka_unit_test_setup_teardown(segment_override, setup, teardown),
		cmocka_unit_test_setup_teardown(real_mode, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
