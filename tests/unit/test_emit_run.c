/*
 * Emitted code, executed: random instructions of the whole encoding space, alone and in sequences, are translated and run on
 * windows onto guest memory; registers, flags, vector and x87 state and memory must then be what the interpreter leaves. Where
 * the host faults, everything must still be as before that instruction, and the address inside windows, guards or the
 * surroundings of the slot table, whatever the registers were.
 */
#define _GNU_SOURCE /* REG_RIP */
#include "engine/bt/emit.h"
#include "engine/bt/runtime.h"
#include "engine/interp/host_exec.h"

#include <asm/prctl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <Zydis/Zydis.h>

#include <cmocka.h>

#define RAM	  (4u << 20)
#define TABLES	  0x10000u  /* physical: page tables */
#define DATA	  0x100000u /* physical: what all locations map */
#define DATA_SIZE (4 * PAGE_SIZE)
#define MAX_INSNS 6
#define ROUNDS	  8
#define RESERVED  (256ull << 20) /* around the slot table */
#define GAP	  (64ull << 30)	 /* around each window and its guards: nothing may get there */

/* ---- random numbers ---- */

static uint64_t rng_state;

static uint64_t rng(void) /* SplitMix64 */
{
	uint64_t z = rng_state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static unsigned below(unsigned n) { return (unsigned)((rng() >> 32) * n >> 32); }
static bool chance(unsigned percent) { return below(100) < percent; }

static uint64_t edge_value(void)
{
	uint64_t v = rng();

	switch (below(8)) {
	case 0: return v & 31;
	case 1: return -(v & 15);
	case 2: return BIT(v & 63);
	case 3: return ~BIT(v & 63) + (v >> 62);
	case 4: return v >> (v & 63);
	case 5: return (uint64_t)((int64_t)v >> (v & 63));
	default: return v;
	}
}

/* ---- the world: a vCPU with windows ---- */

/* Slots with different signs, with and without addresses that fit displacements. */
static const struct location {
	uint64_t code, data;
} locations[] = {
	{ 0x10000000, 0x20000000 },
	{ 0x555555554000, 0x555555600000 },
	{ 0xffffffff81000000, 0xffffffff82000000 },
	{ 0xffff888001000000, 0xffff888002000000 },
	{ 0x7fffff000000, 0x7fffffffc000 }, /* the end of its slot */
};
#define LAST_LOCATION (LOCATIONS - 1)
#define LOCATIONS     ARRAY_SIZE(locations)

struct range {
	uint64_t start, size;
};

struct world {
	struct cpu_model model;
	struct trace trace;
	struct guest_mem *mem;
	struct vcpu *v;
	struct host_code cache;
	struct bt_cpu bt;    /* for what limits are compared with */
	struct block *block; /* one instruction for the interpreter */
	struct slot_table table;
	struct range reserved[LOCATIONS + 2]; /* windows with guards, one for absent slots, around the table */
	uint8_t *data, pristine[DATA_SIZE];
	uint64_t next_table;
	enum code_mode mode; /* MODE_64 or MODE_32 */
};

/* What the signal handler must know. */
static struct {
	struct world *w;
	bool faulted;
	uint64_t offset; /* in the code */
	uint64_t address;
	int signal;
	uint64_t trap;
} fault;

static void on_signal(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t offset = fault.w ? (uint64_t)regs[REG_RIP] - (uint64_t)(uintptr_t)fault.w->cache.exec : UINT64_MAX;

	if (fault.w && bt_return_was_refused(regs, fault.w->v))
		return;
	if (offset >= PAGE_SIZE) { /* not emitted code: happens again, and ends the program */
		sigaction(signal, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
		return;
	}
	fault.faulted = true;
	fault.signal = signal;
	fault.offset = offset;
	fault.address = (uint64_t)(uintptr_t)info->si_addr;
	fault.trap = (uint64_t)regs[REG_TRAPNO];
	regs[REG_RIP] = (greg_t)(uintptr_t)bt_frame(fault.w->v)->exit_glue;
}

static void *reserve(struct world *w, unsigned n, uint64_t size)
{
	uint8_t *p = mmap(NULL, size + 2 * GAP, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(p != MAP_FAILED);
	w->reserved[n] = (struct range){ (uint64_t)(uintptr_t)(p + GAP), size };
	return p + GAP;
}

static void put_entry(struct world *w, uint64_t at, uint64_t value) { mem_write(w->mem, gpa(at), &value, 8); }

static void map_guest_page(struct world *w, uint64_t lin, uint64_t page)
{
	uint64_t table = TABLES, entry;

	for (unsigned shift = 39; shift > 12; shift -= 9) {
		uint64_t at = table + 8 * (lin >> shift & 511);

		mem_read(w->mem, gpa(at), &entry, 8);
		if (!entry) {
			entry = w->next_table | 7;
			w->next_table += PAGE_SIZE;
			put_entry(w, at, entry);
		}
		table = entry & PAGE_MASK;
	}
	put_entry(w, table + 8 * (lin >> 12 & 511), page | 7);
}

static void make_windows(struct world *w)
{
	uint64_t size = WINDOW_SIZE + 2 * WINDOW_GUARD, absent;
	uint8_t *surroundings = reserve(w, LOCATIONS + 1, 2 * RESERVED);

	w->table.entry = (int64_t *)(surroundings + RESERVED);
	assert_int_equal(mprotect(surroundings + RESERVED - PAGE_SIZE, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
	w->table.r15 = (uint64_t)(uintptr_t)w->table.entry + SLOT_SHIFT;
	absent = (uint64_t)(uintptr_t)reserve(w, LOCATIONS, size) + WINDOW_GUARD;
	for (int64_t slot = -512; slot < 512; slot++) /* as large as the pages are */
		w->table.entry[slot] = (int64_t)(absent - ((uint64_t)slot << SLOT_SHIFT));
	for (unsigned n = 0; n < LOCATIONS; n++) {
		uint64_t lin = locations[n].data, window = (uint64_t)(uintptr_t)reserve(w, n, size) + WINDOW_GUARD;
		int64_t slot = (int64_t)lin >> SLOT_SHIFT;
		void *at = (void *)(uintptr_t)(window + (lin & (WINDOW_SIZE - 1)));

		w->table.entry[slot] = (int64_t)(window - ((uint64_t)slot << SLOT_SHIFT));
		assert_true(mmap(at, DATA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, w->mem->ram.file.fd,
				 w->data - w->mem->ram.file.base) == at);
		for (unsigned page = 0; page < DATA_SIZE; page += PAGE_SIZE)
			map_guest_page(w, lin + page, DATA + page);
	}
}

static const struct bt_glue *glue(enum code_mode mode) { return mode == MODE_64 ? &bt_glue_avx : &bt_glue32_avx; }

static void long_mode(struct vcpu *v)
{
	v->s.cr0 = CR0_PE | CR0_MP | CR0_NE | CR0_PG | CR0_ET | CR0_WP;
	v->s.cr3 = TABLES;
	v->s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	v->s.xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
	v->s.efer = EFER_LME | EFER_LMA | EFER_NXE;
}

/* Code of this mode, run through GS base and glue as the engine does. */
static void set_mode(struct world *w, enum code_mode mode)
{
	const uint16_t data = ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_DB;
	struct vcpu *v = w->v;
	bool wide = mode == MODE_64;

	w->mode = mode;
	for (enum seg seg = ES; seg <= GS; seg++) {
		v->s.seg_attr[seg] = seg == CS ? (data ^ (wide ? ATTR_L | ATTR_DB : 0)) | ATTR_CODE : data;
		v->s.seg_limit[seg] = UINT32_MAX;
		v->s.seg_base[seg] = 0;
	}
	cpu_update_mode(v);
	assert_int_equal(v->code_mode, mode);
	bt_limits_update(v);
	bt_frame(v)->exit_glue = (void *)(uintptr_t)glue(mode)->exit;
	assert_int_equal(
		syscall(SYS_arch_prctl, ARCH_SET_GS, wide ? (uint64_t)(uintptr_t)v : (uint64_t)w->table.entry[0]), 0);
}

static void exclusive(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg) { fn(v, arg); }
static const struct vcpu_env no_machine = { .exclusive = exclusive };

/* At the start of each test: cmocka installs its own before. */
static void catch_signals(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };

	for (unsigned n = 0; n < ARRAY_SIZE(signals); n++)
		sigaction(signals[n],
			  &(struct sigaction){ .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK }, NULL);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	stack_t stack = { .ss_sp = malloc(65536), .ss_size = 65536 };
	struct error err;

	assert_int_equal(cpu_model_init(&w->model, "host", false, 1, &err), 0);
	w->mem = mem_create(RAM, &err);
	assert_non_null(w->mem);
	w->v = vcpu_create(sizeof(struct bt_vcpu), 0, &w->model, w->mem, NULL, &w->trace, &no_machine, w, &err);
	assert_non_null(w->v);
	assert_int_equal(interp_engine.create(w->v, &err), 0);
	assert_int_equal(host_code_create(&w->cache, PAGE_SIZE, &err), 0);
	assert_true(w->bt.limits.boundary = bt_limits_create(&err));
	bt_vcpu(w->v)->bt = &w->bt;
	w->block = calloc(1, sizeof(*w->block) + 2 * sizeof(struct insn));
	w->data = mem_map(w->mem, gpa(DATA), DATA_SIZE, true);
	w->next_table = TABLES + PAGE_SIZE;
	make_windows(w);
	long_mode(w->v);
	bt_vcpu(w->v)->slot_r15 = w->table.r15;
	bt_frame(w->v)->self = w->v;
	bt_frame(w->v)->r11 = 0xdeaddeaddeadull << 16;
	bt_frame(w->v)->resume = (uint64_t)(uintptr_t)w->cache.exec;
	interp_host_enter(w->v);
	sigaltstack(&stack, NULL);
	set_mode(w, MODE_64);
	fault.w = w;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	stack_t stack;

	fault.w = NULL;
	for (unsigned n = 0; n < ARRAY_SIZE(w->reserved); n++)
		munmap((void *)(uintptr_t)(w->reserved[n].start - GAP), w->reserved[n].size + 2 * GAP);
	interp_engine.destroy(w->v);
	vcpu_destroy(w->v);
	mem_destroy(w->mem);
	host_code_destroy(&w->cache);
	bt_limits_destroy(w->bt.limits.boundary);
	free(w->block);
	sigaltstack(&(stack_t){ .ss_flags = SS_DISABLE }, &stack);
	free(stack.ss_sp);
	free(w);
	return 0;
}

/* ---- a case: instructions and the state they start from ---- */

struct test_case {
	struct insn insns[MAX_INSNS * ROUNDS];
	struct insn_host hosts[MAX_INSNS * ROUNDS];
	uint16_t host_at[MAX_INSNS * ROUNDS + 1]; /* where the code of each begins */
	unsigned count;
	unsigned body; /* the instructions are rounds of a loop with so many; 0: of none */
	uint64_t rip;
	struct cpu_state s;
	uint64_t flags;
	enum code_mode mode;
	struct emitter e;
};

static unsigned decode(struct world *w, struct test_case *c, unsigned n, const uint8_t *bytes)
{
	return cpu_decode(&w->model, w->mode, bytes, 15, 0, &c->insns[n], &c->hosts[n]);
}

/* Registers of 32 bits; every segment may have a base. */
static void random_state32(struct test_case *c, const struct location *l)
{
	static const enum seg segs[] = { ES, SS, DS, FS, GS };

	for (unsigned n = 0; n < 8; n++)
		c->s.gpr[n] = (uint32_t)c->s.gpr[n];
	for (unsigned n = 0; n < ARRAY_SIZE(segs); n++)
		c->s.seg_base[segs[n]] = chance(70) ? 0 : (uint32_t)edge_value();
	if (chance(90)) {
		c->s.gpr[RSP] = (uint32_t)(l->data + 256 + (below(DATA_SIZE - 512) & ~7u) - c->s.seg_base[SS]);
		c->s.gpr[RBP] = (uint32_t)(c->s.gpr[RSP] + below(64));
	}
}

static void random_state(struct world *w, struct test_case *c, const struct location *l)
{
	static const uint64_t ordinary[] = { 0x3ff0000000000000, 0xc008000000000000, 0x3f8000003e000000,
					     0x4045000000000000 };

	c->s = w->v->s;
	c->flags = rng() & FLAGS_STATUS;
	for (unsigned n = 0; n < 16; n++)
		c->s.gpr[n] = chance(30) ? l->data + below(DATA_SIZE) : edge_value();
	for (unsigned n = 0; n < 2; n++)
		if (chance(90))
			c->s.gpr[n ? RSP : RBP] = l->data + 64 + (below(DATA_SIZE - 128) & ~7u);
	for (unsigned n = 0; n < 64; n++)
		c->s.vec[n] = chance(50) ? rng() : ordinary[below(4)] ^ rng() >> 20;
	c->s.mxcsr = 0x1f80 | below(4) << 13 | (chance(10) ? 0x8040 : 0);
	c->s.fcw = 0x37f;
	c->s.fsw = 0;
	c->s.ftw = 0;
	for (unsigned n = 0; n < 8; n++) {
		c->s.st_mantissa[n] = rng() | BIT(63);
		c->s.st_exponent[n] = (uint16_t)(0x3fff + below(8) - 4);
	}
	c->s.seg_base[FS] = l->data + below(DATA_SIZE);
	c->s.seg_base[GS] = chance(50) ? edge_value() : l->data;
	c->rip = l->code + below(PAGE_SIZE);
	if (w->mode == MODE_32)
		random_state32(c, l);
}

static void fill_memory(struct world *w)
{
	for (unsigned n = 0; n < DATA_SIZE; n += 8)
		store_le64(w->pristine + n, chance(70) ? rng() : edge_value());
}

/* ---- running it ---- */

struct result {
	struct cpu_state s;
	uint64_t flags;
	uint8_t data[DATA_SIZE];
};

static void start(struct world *w, const struct test_case *c)
{
	w->v->s = c->s;
	w->v->fpu_live = false;
	cpu_set_status(w->v, c->flags);
	memcpy(w->data, w->pristine, DATA_SIZE);
}

static void finish(struct world *w, struct result *r)
{
	cpu_fpu_save(w->v);
	r->s = w->v->s;
	r->flags = cpu_status(w->v);
	memcpy(r->data, w->data, DATA_SIZE);
}

static void run_emitted(struct world *w, struct test_case *c, struct result *r)
{
	start(w, c);
	cpu_fpu_load(w->v);
	fault.faulted = false;
	glue(w->mode)->enter(w->v);
	finish(w, r);
}

/* Returns how many instructions completed. */
static unsigned run_interpreted(struct world *w, const struct test_case *c, unsigned count, struct result *r)
{
	volatile unsigned done = 0;

	start(w, c);
	w->v->s.rip = c->rip;
	w->v->budget = 0;
	if (!setjmp(w->v->fault_jmp))
		for (; done < count; done++) {
			const struct insn *i = &c->insns[done];

			interp_single(w->v, w->block, i);
			interp_run_single(w->v, w->block);
		}
	w->v->current = NULL;
	finish(w, r);
	return done;
}

/* ---- comparing ---- */

static uint64_t undefined_flags(const struct test_case *c, const struct insn *i)
{
	ZydisDecoder decoder;
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t f;

	if (c->mode == MODE_64)
		ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else
		ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, i->bytes, i->len, &in, o)) || !in.cpu_flags)
		return 0;
	f = in.cpu_flags->undefined & FLAGS_STATUS;
	/* Shifts by as many bits as there are, or more. */
	if (i->op >= OP_ROL && i->op <= OP_SHRD)
		f |= FLAG_OF | (i->op >= OP_SHL ? FLAG_AF | (i->opsize < 4 ? FLAG_CF : 0) : 0);
	if (i->op == OP_SHLD || i->op == OP_SHRD)
		f |= i->opsize < 4 ? FLAGS_STATUS : 0;
	return f;
}

static void fail_case(const struct test_case *c, const char *what)
{
	char text[128];
	uint8_t *at = c->e.at;

	for (unsigned n = 0; n < c->count; n++) {
		cpu_disassemble(c->mode, c->insns[n].bytes, c->insns[n].len, c->rip, text, sizeof(text));
		print_message("# %s\n", text);
	}
	for (uint8_t *p = fault.w->cache.write; p < at;) {
		struct insn i;
		unsigned len = cpu_decode(&fault.w->model, MODE_64, p, 15, 0, &i, NULL);

		cpu_disassemble(MODE_64, p, 15, 0, text, sizeof(text));
		print_message("#     %s\n", text);
		p += len;
	}
	for (unsigned n = 0; n < 16; n++)
		print_message("# before: r%u %016lx\n", n, c->s.gpr[n]);
	fail_msg("%s", what);
}

static void compare(const struct test_case *c, const struct result *emitted, const struct result *interpreted,
		    uint64_t undefined)
{
	const struct cpu_state *a = &emitted->s, *b = &interpreted->s;
	char text[128];

	for (unsigned n = 0; n < 16; n++)
		if (a->gpr[n] != b->gpr[n]) {
			snprintf(text, sizeof(text), "r%u is %016lx, expected %016lx", n, a->gpr[n], b->gpr[n]);
			fail_case(c, text);
		}
	if ((emitted->flags ^ interpreted->flags) & ~undefined) {
		snprintf(text, sizeof(text), "flags are %lx, expected %lx", emitted->flags, interpreted->flags);
		fail_case(c, text);
	}
	for (unsigned n = 0; n < 64; n++)
		if (a->vec[n] != b->vec[n]) {
			snprintf(text, sizeof(text), "vec[%u] is %016lx, expected %016lx", n, a->vec[n], b->vec[n]);
			fail_case(c, text);
		}
	if (a->mxcsr != b->mxcsr || a->fcw != b->fcw || a->fsw != b->fsw || a->ftw != b->ftw ||
	    memcmp(a->st_mantissa, b->st_mantissa, sizeof(a->st_mantissa)) ||
	    memcmp(a->st_exponent, b->st_exponent, sizeof(a->st_exponent)))
		fail_case(c, "x87 state or MXCSR");
	for (unsigned n = 0; n < DATA_SIZE; n++)
		if (emitted->data[n] != interpreted->data[n]) {
			snprintf(text, sizeof(text), "memory at %x", n);
			fail_case(c, text);
		}
}

/* ---- translating and checking ---- */

struct counts {
	unsigned done, faulted, slow, callouts, callout_of[OP_COUNT];
	bool translated[OP_COUNT];
	bool seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	unsigned forms;
};

static void emit_exit(struct emitter *e)
{
	emit_mov_imm(e, R11, 1);
	emit_jump_state(e, offsetof(struct bt_vcpu, frame.exit_glue));
}

static uint8_t based_segments(const struct cpu_state *s)
{
	unsigned based = 1u << FS | 1u << GS;

	for (enum seg seg = ES; seg <= DS; seg++)
		based |= (s->seg_base[seg] != 0) << seg;
	return (uint8_t)based;
}

/* False: some instruction is a callout. */
static bool translate(struct world *w, struct test_case *c, struct counts *counts)
{
	uint64_t rip = c->rip;

	c->e = (struct emitter){ .at = w->cache.write,
				 .end = w->cache.write + PAGE_SIZE,
				 .to_exec = w->cache.exec - w->cache.write,
				 .code32 = w->mode != MODE_64,
				 .plain_segments = 63,
				 .based_segments = based_segments(&c->s) };
	c->mode = w->mode;
	if (c->body && !emit_loop_begin(&c->e, c->insns, c->hosts, c->body))
		return false;
	for (unsigned n = 0; n < c->count; n++) {
		uint8_t *before = c->e.at;
		unsigned left = c->body ? c->body - n % c->body : c->count - n;

		if (c->body && n && left == c->body && !emit_loop_holds(&c->e)) {
			c->count = n;
			break;
		}
		if (left == c->body)
			memcpy(c->e.window, c->e.loop, sizeof(c->e.window));
		c->host_at[n] = (uint16_t)(c->e.at - w->cache.write);
		c->e.later = &c->insns[n + 1];
		c->e.later_hosts = &c->hosts[n + 1];
		c->e.later_count = left - 1;
		if (emit_insn(&c->e, &c->insns[n], &c->hosts[n], rip) != EMIT_DONE) {
			assert_ptr_equal(before, c->e.at);
			counts->callouts++;
			if (!(c->insns[n].flags & (INSN_SYSTEM | INSN_ENDS)))
				counts->callout_of[c->insns[n].op]++;
			return false;
		}
		rip += c->insns[n].len;
	}
	c->host_at[c->count] = (uint16_t)(c->e.at - w->cache.write);
	emit_exit(&c->e);
	assert_false(c->e.full);
	return true;
}

/* Where an access of 32-bit code may fault: it begins below 4 GiB, in one window. */
static bool in_32_bit_range(const struct world *w, uint64_t address)
{
	return address - (uint64_t)w->table.entry[0] < (4ull << 30) + 512; /* the largest operand: FXSAVE's */
}

static void check_fault_address(struct world *w, const struct test_case *c)
{
	if (fault.signal == SIGFPE || fault.trap == EXC_GP || fault.trap == EXC_SS || fault.trap == EXC_AC)
		return; /* division; not canonical or not aligned */
	if (fault.signal == SIGSEGV && w->mode == MODE_32 && fault.address - w->bt.limits.boundary < 512)
		return; /* the offset goes on beyond 4 GiB */
	if (fault.signal == SIGSEGV)
		for (unsigned n = 0; n < ARRAY_SIZE(w->reserved); n++)
			if (fault.address - w->reserved[n].start < w->reserved[n].size &&
			    (w->mode == MODE_64 || in_32_bit_range(w, fault.address)))
				return;
	print_message("# signal %d trap %lu at %lx, code offset %lx\n", fault.signal, fault.trap, fault.address,
		      fault.offset);
	fail_case(c, "an access outside of windows and guards");
}

static void check(struct world *w, struct test_case *c, struct counts *counts)
{
	static struct result emitted, interpreted;
	unsigned completed, n;

	if (!translate(w, c, counts))
		return;
	completed = c->count;
	run_emitted(w, c, &emitted);
	if (fault.faulted) {
		check_fault_address(w, c);
		for (completed = 0; c->host_at[completed + 1] <= fault.offset; completed++)
			;
	}
	n = run_interpreted(w, c, completed, &interpreted);
	if (n != completed) {
		print_message("# instruction %u of %u raised %u\n", n, c->count, w->v->fault.vector);
		fail_case(c, "the interpreter faults, emitted code does not");
	}
	/* What is undefined is in the last instruction: see make_sequence(). */
	compare(c, &emitted, &interpreted, completed == c->count ? undefined_flags(c, &c->insns[c->count - 1]) : 0);
	if (fault.faulted) {
		counts->faulted++;
		counts->slow += run_interpreted(w, c, completed + 1, &interpreted) > completed;
	} else {
		counts->done++;
		for (n = 0; n < c->count; n++)
			if (!counts->seen[c->hosts[n].mnemonic]) {
				counts->seen[c->hosts[n].mnemonic] = true;
				counts->forms++;
			}
	}
}

/* ---- random instructions ---- */

static unsigned put_prefixes(uint8_t *p)
{
	static const struct {
		uint8_t byte, percent;
	} prefixes[] = { { 0x66, 25 }, { 0xf2, 8 }, { 0xf3, 10 }, { 0xf0, 8 },
			 { 0x64, 4 },  { 0x65, 5 }, { 0x3e, 1 },  { 0x67, 6 } };
	unsigned len = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(prefixes); n++)
		if (chance(prefixes[n].percent))
			p[len++] = prefixes[n].byte;
	return len;
}

/* Opcode, and random bytes behind it; returns where ModRM is, if the opcode has one. */
static unsigned put_opcode(uint8_t *p, enum code_mode mode)
{
	unsigned at = 0;

	if (chance(20)) {
		bool two = chance(40);

		p[at++] = two ? 0xc5 : 0xc4;
		if (!two)
			p[at++] = (uint8_t)((rng() & 0xe0) | (mode == MODE_64 ? 0 : 0xe0) | (1 + below(3)));
		p[at++] = (uint8_t)(rng() | (mode == MODE_64 ? 0 : two ? 0xc0 : 0x40));
		p[at++] = (uint8_t)rng();
		return at;
	}
	at = put_prefixes(p);
	if (mode == MODE_64 && chance(65))
		p[at++] = (uint8_t)(0x40 | below(16));
	switch (below(10)) {
	case 0:
	case 1:
	case 2:
	case 3: break;
	case 4:
		p[at++] = 0x0f;
		p[at++] = 0x38;
		break;
	case 5:
		p[at++] = 0x0f;
		p[at++] = 0x3a;
		break;
	default: p[at++] = 0x0f; break;
	}
	p[at++] = (uint8_t)rng();
	return at;
}

static void random_bytes(uint8_t bytes[32], enum code_mode mode)
{
	static const uint32_t disps[] = { 0,	      8,	  0xfffffff8, 0x1000,  0xfffe0000,
					  0x7ffffff0, 0x80000000, 0x82000010, 0x100000 };
	unsigned at;

	for (unsigned n = 0; n < 32; n += 8)
		store_le64(bytes + n, rng());
	at = put_opcode(bytes, mode);
	if (chance(50))
		bytes[at] |= 0xc0;
	/* The place of a displacement with and without SIB. */
	if (chance(60))
		store_le32(bytes + at + ((bytes[at] & 7) == 4 ? 2 : 1), disps[below(ARRAY_SIZE(disps))]);
}

static bool runnable(const struct insn *i, const struct insn_host *h)
{
	if (i->op == OP_INVALID || i->op == OP_TOO_LONG)
		return false;
	/* Would unmask x87 exceptions: the caller's business (unit_usable). */
	return !(h->control && h->mem_read);
}

/* A random instruction that exists. */
static void make_insn(struct world *w, struct test_case *c, unsigned n)
{
	uint8_t bytes[32];

	do
		random_bytes(bytes, w->mode);
	while (!decode(w, c, n, bytes) || !runnable(&c->insns[n], &c->hosts[n]));
}

/* Make its displacement this. */
static void patch_displacement(struct world *w, struct test_case *c, unsigned n, uint32_t disp)
{
	uint8_t bytes[32] = { 0 };

	memcpy(bytes, c->insns[n].bytes, 15);
	store_le32(bytes + c->hosts[n].disp_offset, disp);
	decode(w, c, n, bytes);
}

/* Bit offsets near, memory equal to what is compared with it: what random values seldom are. */
static void tune_operands(struct world *w, struct test_case *c, uint64_t target)
{
	const struct insn *i = &c->insns[0];
	unsigned reg = i->reg / 8u;
	const uint8_t *at = w->pristine + (target & (DATA_SIZE - 1));

	if (i->op >= OP_BT && i->op <= OP_BTC && i->form == FORM_MR && reg != i->base / 8u && reg != i->index / 8u &&
	    chance(80)) {
		uint64_t offset = (uint64_t)(int64_t)((int)below(8000) - 4000);

		c->s.gpr[reg] = i->opsize == 8	 ? offset
				: i->opsize == 4 ? rng() << 32 | (uint32_t)offset
						 : rng() << 16 | (uint16_t)offset;
	}
	if (i->op >= OP_CMPXCHG && i->op <= OP_CMPXCHG16B && chance(50)) {
		if (i->base != 8 * RAX && i->index != 8 * RAX)
			c->s.gpr[RAX] = load_le64(at);
		if (i->op != OP_CMPXCHG && i->base != 8 * RDX && i->index != 8 * RDX) {
			c->s.gpr[RDX] = load_le64(at + (i->op == OP_CMPXCHG8B ? 4 : 8));
			c->s.gpr[RAX] = i->op == OP_CMPXCHG8B ? (uint32_t)c->s.gpr[RAX] : c->s.gpr[RAX];
		}
	}
	if ((i->op == OP_DIV || i->op == OP_IDIV) && i->base != 8 * RDX && i->index != 8 * RDX && chance(70))
		c->s.gpr[RDX] = 0;
}

/* The segment's base makes up for what the rest comes to. */
static void direct_operand32(struct test_case *c, uint64_t target)
{
	const struct insn *i = &c->insns[0];
	struct vcpu *v = fault.w->v;
	uint32_t base;

	v->s = c->s;
	base = (uint32_t)(target - cpu_ea(v, i));
	if (i->seg == CS)
		return;
	c->s.seg_base[i->seg] = base;
}

/* Registers, or the displacement, such that the memory operand of the first instruction is in the data pages. */
static void direct_operand(struct world *w, struct test_case *c, const struct location *l)
{
	const struct insn *i = &c->insns[0];
	unsigned base = i->base / 8u, index = i->index / 8u;
	uint64_t target = l->data + 1024 + (below(DATA_SIZE - 2048) & (chance(75) ? ~31u : ~0u)), rest;
	bool small = i->addrsize == 4;

	if (w->mode == MODE_32) {
		direct_operand32(c, target);
	} else if (i->seg >= FS) {
		struct vcpu *v = w->v;

		v->s = c->s;
		v->s.ip_base = c->rip;
		c->s.seg_base[i->seg] = target - cpu_ea(v, i);
	} else if (i->flags & INSN_RIPREL) {
		patch_displacement(w, c, 0, (uint32_t)(target - c->rip - i->len));
	} else if (base >= 16 && index >= 16) {
		patch_displacement(w, c, 0, (uint32_t)target);
	} else {
		rest = target - (uint64_t)(int64_t)i->disp;
		if (base >= 16) {
			c->s.gpr[index] = (small ? (uint32_t)rest : rest) >> i->scale;
		} else if (index >= 16) {
			c->s.gpr[base] = rest;
		} else if (base == index) {
			c->s.gpr[base] = (small ? (uint32_t)rest : rest) / (1 + (1u << i->scale));
		} else {
			if (index != RSP)
				c->s.gpr[index] = (uint64_t)(int16_t)rng();
			c->s.gpr[base] = rest - (c->s.gpr[index] << i->scale);
		}
		if (small && base < 16)
			c->s.gpr[base] = (uint32_t)c->s.gpr[base] | rng() << 32;
	}
	tune_operands(w, c, target);
	for (unsigned n = 0; n < 8 && w->mode == MODE_32; n++)
		c->s.gpr[n] = (uint32_t)c->s.gpr[n];
}

/* ---- the tests ---- */

static void print_counts(const char *what, const struct counts *counts)
{
	print_message("# %s: %u cases ran, of %u mnemonics; %u faulted, %u of which the interpreter does; %u callouts, "
		      "besides system "
		      "instructions and branches:",
		      what, counts->done, counts->forms, counts->faulted, counts->slow, counts->callouts);
	for (unsigned op = 0; op < OP_COUNT; op++)
		if (counts->callout_of[op])
			print_message(" %s %u", cpu_op_name(op), counts->callout_of[op]);
	print_message("\n");
}

static unsigned scale(unsigned n)
{
	const char *factor = getenv("EMIT_CASES"); /* times as many */

	return factor ? n * (unsigned)atoi(factor) : n;
}

static void seed_random(unsigned n)
{
	const char *seed = getenv("EMIT_SEED");

	rng_state = (seed ? strtoull(seed, NULL, 0) : 1) << 8 | n;
}

static void run_single(struct world *w, struct counts *counts)
{
	struct test_case c = { .count = 1 };

	for (unsigned n = 0; n < scale(20000); n++) {
		const struct location *l;

		make_insn(w, &c, 0);
		/* Addresses of 32 bits, or by displacement alone, are not everywhere. */
		l = &locations[c.insns[0].addrsize != 8 ? 0 : below(LOCATIONS)];
		if (c.insns[0].base >= 8 * 16 && c.insns[0].index >= 8 * 16 && !(c.insns[0].flags & INSN_RIPREL) &&
		    c.insns[0].addrsize == 8)
			l = &locations[chance(50) ? 0 : 2];
		random_state(w, &c, l);
		if (n % 256 == 0)
			fill_memory(w);
		if ((c.insns[0].flags & INSN_MEM) && c.insns[0].form != FORM_OTHER && chance(90))
			direct_operand(w, &c, l);
		check(w, &c, counts);
	}
	/* Most of what has memory operands must have found its memory. */
	assert_true(counts->done > counts->faulted * 8);
	assert_true(counts->forms > 400);
}

static void test_single(void **state)
{
	static struct counts counts;

	catch_signals();
	seed_random(1);
	set_mode(*state, MODE_64);
	run_single(*state, &counts);
	print_counts("single instructions", &counts);
}

static void test_single32(void **state)
{
	static struct counts counts;

	catch_signals();
	seed_random(5);
	set_mode(*state, MODE_32);
	run_single(*state, &counts);
	print_counts("single instructions of 32-bit code", &counts);
}

/* The instructions that blocks are made of, where what is known about R11 is kept, changed and lost. */
static void make_common_insn(struct world *w, struct test_case *c, unsigned n)
{
	static const uint8_t opcodes[] = { 0x8b, 0x8b, 0x89, 0x89, 0x01, 0x03, 0x8d, 0x83,
					   0x81, 0x81, 0x50, 0x58, 0xc9, 0x87, 0xff, 0x6a };
	uint8_t bytes[32];

	do {
		uint8_t opcode = opcodes[below(ARRAY_SIZE(opcodes))], *p = bytes;

		for (unsigned k = 0; k < 32; k += 8)
			store_le64(bytes + k, rng());
		*p++ = (uint8_t)(0x48 | (chance(30) ? below(8) : 0));
		*p++ = opcode;
		if (opcode == 0x50 || opcode == 0x58)
			p[-1] |= below(8);
		else if (opcode == 0xc9 || opcode == 0x6a)
			continue;
		else if (opcode == 0x83 || opcode == 0x81 || opcode == 0xff)
			*p = chance(50) ? 0xc4 : (uint8_t)(0xc0 | (*p & 0x3f)); /* RSP often */
		else if (chance(60))						/* disp8(base), the base one of a few */
			*p = (uint8_t)(0x44 + (*p & 0x38) + below(4)), p[1] = 0x24;
		else if (chance(25)) /* disp8(base,index): RDX, RBX, RSP or RBP, and RSI */
			*p = (uint8_t)(0x44 + (*p & 0x38)), p[1] = (uint8_t)((p[1] & 0xc0) | RSI << 3 | (2 + below(4)));
	} while (!decode(w, c, n, bytes) || !runnable(&c->insns[n], &c->hosts[n]));
}

static void make_sequence(struct world *w, struct test_case *c)
{
	bool common = chance(70);

	c->count = 2 + below(MAX_INSNS - 1);
	for (unsigned n = 0; n < c->count; n++) {
		if (common || chance(50))
			make_common_insn(w, c, n);
		else
			make_insn(w, c, n);
		if (undefined_flags(c, &c->insns[n]))
			c->count = n + 1;
	}
}

static void test_sequences(void **state)
{
	static struct counts counts;
	struct world *w = *state;
	struct test_case c = { .body = 0 };

	catch_signals();
	seed_random(2);
	set_mode(w, MODE_64);
	for (unsigned n = 0; n < scale(12000); n++) {
		const struct location *l = &locations[below(LOCATIONS)];

		make_sequence(w, &c);
		random_state(w, &c, l);
		/* Nearly all point to memory, some near the ends. */
		for (unsigned reg = 0; reg < 16; reg++)
			if (chance(85))
				c.s.gpr[reg] = l->data + (chance(90) ? 256 + below(DATA_SIZE - 512) : below(DATA_SIZE));
		if (chance(50)) /* the index */
			c.s.gpr[RSI] = below(16);
		if (n % 256 == 0)
			fill_memory(w);
		check(w, &c, &counts);
	}
	print_counts("sequences", &counts);
	assert_true(counts.done > counts.faulted);
}

static void hostile_registers(struct test_case *c)
{
	for (unsigned reg = 0; reg < 16; reg++) {
		uint64_t slot_edge = (rng() % 520 - 260) << SLOT_SHIFT;

		c->s.gpr[reg] = chance(40) ? slot_edge + (uint64_t)((int64_t)rng() >> (32 + below(31))) : edge_value();
	}
	c->s.seg_base[FS] = edge_value();
}

/* Registers as a hostile guest would have them: no access leaves what is reserved. */
static void test_hostile(void **state)
{
	static struct counts counts;
	struct world *w = *state;
	struct test_case c = { .body = 0 };

	catch_signals();
	seed_random(3);
	set_mode(w, MODE_64);
	for (unsigned n = 0; n < scale(12000); n++) {
		const struct location *l = &locations[below(LOCATIONS)];

		if (chance(50)) {
			c.count = 1;
			make_insn(w, &c, 0);
		} else {
			make_sequence(w, &c);
		}
		random_state(w, &c, l);
		hostile_registers(&c);
		if (n % 256 == 0)
			fill_memory(w);
		check(w, &c, &counts);
	}
	print_counts("hostile registers", &counts);
	assert_true(counts.faulted > 1000);
}

/* In 32-bit code: all that is reached begins in the first 4 GiB of one window. */
static void test_hostile32(void **state)
{
	static struct counts counts;
	struct world *w = *state;
	struct test_case c = { .count = 1 };

	catch_signals();
	seed_random(6);
	set_mode(w, MODE_32);
	for (unsigned n = 0; n < scale(12000); n++) {
		make_insn(w, &c, 0);
		random_state(w, &c, &locations[0]);
		for (unsigned reg = 0; reg < 8; reg++)
			c.s.gpr[reg] = (uint32_t)edge_value();
		for (enum seg seg = ES; seg <= GS; seg++)
			c.s.seg_base[seg] = seg == CS || chance(50) ? 0 : edge_value();
		if (n % 256 == 0)
			fill_memory(w);
		check(w, &c, &counts);
	}
	print_counts("hostile registers of 32-bit code", &counts);
	assert_true(counts.faulted > 1000);
}

/* What random sequences seldom are: each begins and ends with an access through RBX, which points to the end of a slot. */
/* clang-format off */
#define SEQUENCES(_)												\
	_("mov (%rbx), %eax; add %r10, %r11; mov (%rbx), %ecx")							\
	_("mov (%rbx), %eax; andn %r10, %r11, %r15; mov (%rbx), %ecx")						\
	_("mov (%rbx), %eax; lea (%r10,%r11), %rdx; mov (%rbx), %ecx")						\
	_("mov (%rbx), %eax; add $0x7fffffff, %rbx; mov 0x7ffffff0(%rbx), %ecx")				\
	_("mov (%rbx), %eax; add $0x3fffffff, %rbx; add $0x3fffffff, %rbx; add $0x3fffffff, %rbx; mov 0x7ffffff0(%rbx), %ecx") \
	_("mov (%rbx), %eax; lea 0x3ffffff0(%rbx), %rbx; lea 0x7fffffff(%rbx), %rbx; lea 0x7fffffff(%rbx), %rbx; mov 0x7ffffff0(%rbx), %ecx") \
	_("mov (%rbx), %eax; mov %rbx, %rdx; add $0x40000000, %rdx; mov %rdx, %rbx; add $0x40000000, %rbx; mov 0x7ffffff0(%rbx), %ecx") \
	_("mov (%rbx), %eax; sub $-0x80000000, %rbx; sub $-0x80000000, %rbx; mov 0x7ffffff0(%rbx), %ecx")	\
	_("mov (%rbx), %eax; and $-0x80000000, %rbx; and $-64, %rbx; mov -0x80000(%rbx), %ecx")			\
	_("mov (%rbx), %eax; and $0x40000000, %rbx; mov (%rbx), %ecx")						\
	_("mov (%rbx), %eax; add %ebx, %ebx; mov (%rbx), %ecx")							\
	_("mov (%rbx), %eax; xchg %rbx, %rsi; mov (%rbx), %ecx")						\
	_("mov (%rbx), %eax; bswap %rbx; mov (%rbx), %ecx")							\
	_("mov (%rbx), %eax; mulx %rsi, %rbx, %rdx; mov (%rbx), %ecx")						\
	_("mov (%rbx), %eax; mov %rsi, %rbx; mov (%rbx), %ecx")							\
	_("mov (%rbx), %eax; movq %xmm1, %rbx; mov (%rbx), %ecx")						\
	_("mov (%rbx), %eax; mov $3, %bh; mov (%rbx), %ecx")							\
	_("mov (%rbx), %ebx; mov (%rbx), %ecx")									\
	_("mov (%rbx), %eax; xadd %rbx, (%rbx); mov (%rbx), %ecx")						\
	_("mov (%rbx), %eax; pop %rbx; mov (%rbx), %ecx")							\
	_("mov (%rbx), %eax; lea (%rbx,%rsi,8), %rbx; mov (%rbx), %ecx")					\
	_("mov (%rbx), %eax; lea 8(%ebx), %rbx; mov (%rbx), %ecx")						\
	_("mov (%rbx), %eax; mov (%rsp), %edx; mov %rdi, %rbx; mov (%rbx), %ecx; mov (%rsp), %edx")		\
	_("mov (%rbx), %eax; mov (%rsp), %edx; push %r10; mov (%rsp), %edx; mov (%rbx), %ecx")			\
	_("mov (%rsp), %edx; mov (%rbx), %eax; pushq $0x7f; add %r10, (%rsp); mov (%rbx), %ecx")		\
	_("mov (%rsp), %edx; mov (%rbx), %eax; mov (%rbx), %r10; mov (%rbx), %ecx")				\
	_("mov (%rbx,%rsi,8), %eax; add $0x7fffffff, %rsi; mov 0x7ffffff0(%rbx,%rsi,8), %ecx")			\
	_("mov (%rbx,%rsi,8), %eax; mov (%rbx,%rsi,8), %eax; add $0x7ffffff, %rsi; add $0x7ffffff, %rsi; mov 0x7ffffff0(%rbx,%rsi,8), %ecx") \
	_("mov (%rbx,%rsi,8), %eax; mov (%rbx,%rsi,8), %eax; add $0x8000001, %rsi; mov 0x7ffffff0(%rbx,%rsi,8), %ecx") \
	_("mov (%rbx,%rsi,8), %eax; mov 8(%rbx,%rsi,8), %eax; mov %ecx, %esi; mov (%rbx,%rsi,8), %ecx")	\
	_("mov (%rbx,%rsi,8), %eax; mov 8(%rbx,%rsi,8), %eax; lea 8(%rbx), %rbx; mov (%rbx,%rsi,8), %ecx")	\
	_("mov (%rbx,%rsi,2), %eax; mov 8(%rbx,%rsi,2), %eax; mov (%rbx,%rsi,8), %ecx; mov (%rbx,%rdi,2), %ecx")	\
	_("mov (%rbx,%rbx), %eax; mov 8(%rbx,%rbx), %eax; add $0x3fffffff, %rbx; mov (%rbx,%rbx), %ecx")	\
	_("mov (%rbx,%rsi), %eax; mov (%rbx,%rsi), %r10; mov (%rbx,%rsi), %ecx")				\
	_("mov (%rbx,%rsi), %eax; add %r10, (%rbx,%rsi); mov (%rbx,%rsi), %ecx; mov %dh, (%rbx,%rsi)")

extern const uint8_t sequence_bytes[];
__asm__(".pushsection .rodata\n.globl sequence_bytes\nsequence_bytes:\n"
#define _(text) ".byte 2f-1f\n1: " text "\n2:\n"
	SEQUENCES(_)
#undef _
	".byte 0\n.popsection");
/* clang-format on */

static void test_written(void **state)
{
	static struct counts counts;
	struct world *w = *state;

	catch_signals();
	seed_random(4);
	set_mode(w, MODE_64);
	fill_memory(w);
	for (const uint8_t *p = sequence_bytes; *p; p += 1 + *p) {
		struct test_case c = { .count = 0 };

		for (unsigned at = 0; at < *p; at += c.insns[c.count++].len)
			decode(w, &c, c.count, p + 1 + at);
		for (unsigned n = 0; n < 20; n++) {
			random_state(w, &c, &locations[LAST_LOCATION]);
			c.s.gpr[RBX] = locations[LAST_LOCATION].data + DATA_SIZE - 64;
			check(w, &c, &counts);
		}
	}
	print_counts("sequences written down", &counts);
}

/* Rounds of loops. Where they keep what is looked up, a round may move by 512 MiB less what an access reaches. */
/* clang-format off */
#define LOOPS(_)												\
	_("mov (%rbx), %eax; add $8, %rbx")									\
	_("mov (%rbx), %eax; mov %eax, (%rdi); add $4, %rbx; add $4, %rdi")					\
	_("mov (%rbx), %eax; add $0x1fffffbf, %rbx")								\
	_("mov (%rbx), %eax; add $0x1fffffc1, %rbx")								\
	_("add $0x1fffffbf, %rbx; mov 0x7ffffff0(%rbx), %eax; mov -0x10(%rbx), %eax")				\
	_("mov (%rbx), %eax; sub $-0x80, %rbx; sub $0x10000000, %rdi; mov (%rdi), %eax")			\
	_("movups (%rbx,%rsi,8), %xmm0; addps (%rdi,%rsi,8), %xmm1; movups %xmm0, (%rbx,%rsi,8); add $2, %rsi")	\
	_("mov (%rbx,%rsi,8), %eax; add $0x3fffff0, %rsi")							\
	_("mov (%rbx,%rsi,8), %eax; add $0x4000000, %rsi")							\
	_("mov (%rbx,%rsi,8), %eax; add $0x3fffff0, %rsi; add $8, %rbx")					\
	_("mov (%rbx,%rbx), %eax; inc %rbx")									\
	_("mov (%rbx), %rbx; mov 8(%rdi), %eax")								\
	_("mov (%rbx,%rsi), %al; mov (%rdi,%rsi), %cl; mov %al, (%rbp,%rsi); inc %rsi")				\
	_("mov (%rbx), %r10; add %r10, (%rdi); add $8, %rbx; add $8, %rdi")					\
	_("andn %r10, %r11, %r15; mov (%rbx), %eax; add $8, %rbx")						\
	_("mov (%rbx), %eax; andn %r10, %r11, %r15; add $8, %rbx")						\
	_("mov (%rbx), %eax; mov (%rdi), %ecx; mov %rsi, %rbx")							\
	_("mov (%rbx), %eax; mov (%rdi), %edi")									\
	_("mov (%rbx,%rsi,8), %eax; mov (%rdi), %esi")								\
	_("mov (%rbx), %eax; lea 8(%rbx), %rbx; mov (%rdi), %ecx")						\
	_("mov (%rbx), %eax; mov %rbx, %rdx; mov (%rdx), %ecx; add $16, %rbx")					\
	_("bt %rcx, (%rbx); add $0x10000000, %rbx")								\
	_("cmovz (%rbx), %eax; add $0x10000000, %rbx")

extern const uint8_t loop_bytes[];
__asm__(".pushsection .rodata\n.globl loop_bytes\nloop_bytes:\n"
#define _(text) ".byte 2f-1f\n1: " text "\n2:\n"
	LOOPS(_)
#undef _
	".byte 0\n.popsection");
/* clang-format on */

static void repeat_body(struct test_case *c)
{
	c->body = c->count;
	for (c->count = c->body * ROUNDS; c->count > MAX_INSNS * ROUNDS;)
		c->count -= c->body;
	for (unsigned n = c->body; n < c->count; n++) {
		c->insns[n] = c->insns[n - c->body];
		c->hosts[n] = c->hosts[n - c->body];
	}
}

static void test_loops(void **state)
{
	static struct counts counts;
	static struct test_case c;
	struct world *w = *state;

	catch_signals();
	seed_random(7);
	set_mode(w, MODE_64);
	fill_memory(w);
	for (const uint8_t *p = loop_bytes; *p; p += 1 + *p)
		for (unsigned n = 0; n < 40; n++) {
			c.count = 0;
			for (unsigned at = 0; at < *p; at += c.insns[c.count++].len)
				decode(w, &c, c.count, p + 1 + at);
			repeat_body(&c);
			random_state(w, &c, &locations[LAST_LOCATION]);
			c.s.gpr[RBX] = c.s.gpr[RDI] = c.s.gpr[RBP] =
				locations[LAST_LOCATION].data + below(DATA_SIZE - 128);
			c.s.gpr[RSI] = below(8);
			if (chance(30))
				hostile_registers(&c);
			check(w, &c, &counts);
		}
	for (unsigned n = 0; n < scale(6000); n++) {
		const struct location *l = &locations[below(LOCATIONS)];

		c.body = 0;
		make_sequence(w, &c);
		repeat_body(&c);
		random_state(w, &c, l);
		if (chance(30))
			hostile_registers(&c);
		check(w, &c, &counts);
	}
	print_counts("loops", &counts);
	assert_true(counts.done > 300 && counts.faulted > 300);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_single),	cmocka_unit_test(test_sequences), cmocka_unit_test(test_written),
		cmocka_unit_test(test_hostile), cmocka_unit_test(test_single32),  cmocka_unit_test(test_hostile32),
		cmocka_unit_test(test_loops),
	};

	if (!__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("avx")) {
		printf("1..0 # SKIP this host cannot run translated code\n");
		return 0;
	}
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
