/*
 * Locked accesses across cache lines on a host whose kernel does not have that (split_lock_detect): the interpreter, which the translator
 * asks, too, when the host refuses, makes them in an exclusive section. The same results, and no other access pays.
 */
#include "engine/interp/vcpu.h"
#include "lib/no_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define RAM	(1u << 20)
#define CODE	0x1000u
#define OPERAND 0x2000u /* addressed by BX */

struct setting {
	struct cpu_model model;
	struct engine engine;
	struct trace trace;
	struct guest_mem *mem;
	struct clock *clock;
	struct vcpu *v, *peers[2];
	unsigned sections;
};

static void count_section(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg)
{
	((struct setting *)v->env_opaque)->sections++;
	fn(v, arg);
}

static const struct vcpu_env environment = { NO_DEVICES, NO_INTERRUPTS, .exclusive = count_section };

static int setup(void **state)
{
	struct setting *s = calloc(1, sizeof(*s));

	assert_int_equal(cpu_model_init(&s->model, "v2", true, 1, NULL), 0);
	s->mem = mem_create(RAM, NULL);
	s->clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	s->v = vcpu_create(interp_engine.vcpu_size, 0, &s->model, s->mem, s->clock, &s->trace, &environment, s, NULL);
	assert_int_equal(alone_on_engine(&s->engine, s->v, s->peers, &interp_engine, &engine_defaults, NULL), 0);
	s->peers[1] = s->v; /* as if there were another to stop */
	s->v->peer_count = 2;
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct setting *s = *state;

	s->v->peer_count = 1;
	alone_destroy(s->v);
	clock_destroy(s->clock);
	mem_destroy(s->mem);
	free(s);
	return 0;
}

/* 16-bit code, without LOCK. */
static const struct {
	const char *name;
	uint8_t bytes[8];
	unsigned length, size;
} instructions[] = {
	{ "add [bx], ax", { 0x01, 0x07 }, 2, 2 },
	{ "add dword [bx], imm", { 0x66, 0x83, 0x07, 0x7f }, 4, 4 },
	{ "neg dword [bx]", { 0x66, 0xf7, 0x1f }, 3, 4 },
	{ "inc word [bx]", { 0xff, 0x07 }, 2, 2 },
	{ "bts dword [bx], 31", { 0x66, 0x0f, 0xba, 0x2f, 31 }, 5, 4 },
	{ "btc [bx], cx", { 0x0f, 0xbb, 0x0f }, 3, 2 },
	{ "not dword [bx]", { 0x66, 0xf7, 0x17 }, 3, 4 },
	{ "xchg [bx], eax", { 0x66, 0x87, 0x07 }, 3, 4 },
	{ "xadd [bx], eax", { 0x66, 0x0f, 0xc1, 0x07 }, 4, 4 },
	{ "cmpxchg [bx], ecx", { 0x66, 0x0f, 0xb1, 0x0f }, 4, 4 },
	{ "cmpxchg8b [bx]", { 0x0f, 0xc7, 0x0f }, 3, 8 },
};

/* Runs one at CODE, on memory and registers that are always the same. */
static void run(struct setting *s, unsigned n, bool lock, unsigned at, struct cpu_state *after, uint8_t memory[128])
{
	const uint8_t prefix = 0xf0;
	struct cpu_state state;
	struct exit exit;

	for (unsigned k = 0; k < 128; k++)
		memory[k] = (uint8_t)(0x91 * k + 7);
	mem_write(s->mem, gpa(OPERAND), memory, 128);
	mem_write(s->mem, gpa(CODE), &prefix, 1);
	mem_write(s->mem, gpa(CODE + lock), instructions[n].bytes, instructions[n].length);
	s->v->engine->ops->pull(s->v, &state);
	state.seg_sel[CS] = state.seg_sel[DS] = 0;
	state.seg_base[CS] = state.seg_base[DS] = 0;
	state.rip = CODE;
	state.rflags = 2;
	state.gpr[RAX] = 0x11223344;
	state.gpr[RBX] = OPERAND + at;
	state.gpr[RCX] = 0x5566000b; /* BTC: a bit of the word */
	state.gpr[RDX] = 0x99aabbcc;
	s->v->engine->ops->push(s->v, &state);
	s->v->budget = 1;
	s->sections = 0;
	s->v->engine->ops->run(s->v, &exit);
	s->v->engine->ops->pull(s->v, after);
	assert_int_equal(after->rip, CODE + lock + instructions[n].length);
	mem_read(s->mem, gpa(OPERAND), memory, 128);
}

static void a_split_lock_is_an_exclusive_section(void **state)
{
	struct setting *s = *state;

	for (unsigned n = 0; n < ARRAY_SIZE(instructions); n++) {
		struct cpu_state trapped, native;
		uint8_t memory[2][128];

		for (unsigned at = 50; at < 70; at++) {
			bool splits = at < 64 && at + instructions[n].size > 64;

			interp_vcpu(s->v)->splits_trap = true;
			run(s, n, true, at, &trapped, memory[0]);
			assert_int_equal(s->sections, splits);
			interp_vcpu(s->v)->splits_trap = false;
			run(s, n, true, at, &native, memory[1]);
			assert_int_equal(s->sections, 0);
			assert_memory_equal(memory[0], memory[1], 128);
			assert_memory_equal(trapped.gpr, native.gpr, sizeof(native.gpr));
			assert_int_equal(trapped.rflags, native.rflags);
		}
	}
}

static void without_lock_nobody_is_stopped(void **state)
{
	struct setting *s = *state;

	interp_vcpu(s->v)->splits_trap = true;
	for (unsigned n = 0; n < ARRAY_SIZE(instructions); n++) {
		struct cpu_state plain, locked;
		uint8_t memory[2][128];

		if (!strncmp(instructions[n].name, "xchg", 4)) /* locks by itself */
			continue;
		run(s, n, false, 63, &plain, memory[0]);
		assert_int_equal(s->sections, 0);
		run(s, n, true, 63, &locked, memory[1]);
		assert_int_equal(s->sections, 1);
		assert_memory_equal(memory[0], memory[1], 128);
		assert_int_equal(plain.rflags, locked.rflags);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(a_split_lock_is_an_exclusive_section),
		T(without_lock_nobody_is_stopped),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
