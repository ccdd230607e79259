/*
 * The translator between its blocks, in real-address mode: instructions that the host's processor does not know, single steps when
 * there is no room.
 */
#define _GNU_SOURCE
#include "engine/bt/runtime.h"
#include "lib/no_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define RAM	   (2ull << 20)
#define CODE	   0x1000u
#define HANDLER_AT 0x2000u
#define STACK	   0x8000u
#define UD2	   0x0b0fu

struct fixture {
	struct cpu_model model;
	struct trace trace;
	struct guest_mem *mem;
	struct clock *clock;
	struct engine engine;
	struct vcpu *v, *peers[1];
	struct cpu_state start;
};

static const struct vcpu_env environment = { NO_DEVICES, NO_INTERRUPTS, ALONE };

static void set_segment(struct cpu_state *s, enum seg seg)
{
	s->seg_sel[seg] = 0;
	s->seg_base[seg] = 0;
	s->seg_limit[seg] = 0xffff;
	s->seg_attr[seg] = ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED | (seg == CS ? ATTR_CODE : 0);
}

/* In the test itself: the test library's handlers of signals come before each. */
static struct fixture *create(void)
{
	struct fixture *f = test_calloc(1, sizeof(*f));
	struct error err = { 0 };

	if (bt_engine.probe(&err)) {
		print_message("no engine bt here: %s\n", err.text);
		exit(0);
	}
	assert_int_equal(cpu_model_init(&f->model, "v2", true, 1, &err), 0);
	f->mem = mem_create(RAM, &err);
	f->clock = clock_create(CLOCK_HOST, 0, &err);
	assert_true(f->mem && f->clock);
	f->v = vcpu_create(bt_engine.vcpu_size, 0, &f->model, f->mem, f->clock, &f->trace, &environment, f, &err);
	assert_non_null(f->v);
	assert_int_equal(alone_on_engine(&f->engine, f->v, f->peers, &bt_engine, &engine_defaults, &err), 0);
	bt_engine.pull(f->v, &f->start);
	for (enum seg seg = ES; seg <= GS; seg++)
		set_segment(&f->start, seg);
	f->start.idtr_base = 0;
	f->start.idtr_limit = 0x3ff;
	return f;
}

static void destroy(struct fixture *f)
{
	alone_destroy(f->v);
	clock_destroy(f->clock);
	mem_destroy(f->mem);
	test_free(f);
}

static void put(struct fixture *f, uint64_t at, const void *bytes, size_t size)
{
	assert_int_equal(mem_write(f->mem, gpa(at), bytes, size), 0);
}

static void put_handler(struct fixture *f, enum vector vector, const void *bytes, size_t size)
{
	const uint32_t handler = HANDLER_AT;

	put(f, 4 * vector, &handler, sizeof(handler));
	put(f, HANDLER_AT, bytes, size);
}

/* From CODE until it halts, with AX and BX 0. */
static const struct cpu_state *run(struct fixture *f, uint64_t flags)
{
	struct cpu_state s = f->start;
	struct exit exit;

	s.rip = CODE;
	s.rflags = 2 | flags;
	s.gpr[RAX] = s.gpr[RBX] = 0;
	s.gpr[RSP] = STACK;
	bt_engine.push(f->v, &s);
	f->v->budget = 1000000;
	assert_int_equal(bt_engine.run(f->v, &exit), EXIT_HALT);
	return &f->v->s;
}

static struct bt_block *block_at(struct fixture *f, uint64_t at)
{
	struct bt_cpu *bt = bt_of(f->v);

	for (uint32_t n = 0; n < bt->block_count; n++)
		if (bt_block(bt, n)->gpa == at && !bt_block(bt, n)->dead)
			return bt_block(bt, n);
	fail_msg("nothing was translated at %#lx", at);
	return NULL;
}

/* What is printed meanwhile. */
struct capture {
	int before;
	FILE *file;
};

static void capture_begin(struct capture *c)
{
	c->before = dup(STDERR_FILENO);
	c->file = tmpfile();
	assert_true(c->before >= 0 && c->file);
	dup2(fileno(c->file), STDERR_FILENO);
}

/* How many lines of it have this in them. */
static unsigned capture_end(struct capture *c, const char *wanted)
{
	char line[512];
	unsigned count = 0;

	dup2(c->before, STDERR_FILENO);
	close(c->before);
	rewind(c->file);
	while (fgets(line, sizeof(line), c->file))
		count += strstr(line, wanted) != NULL;
	fclose(c->file);
	return count;
}

/* The host code of a translated instruction becomes one that no processor knows. */
static void test_unknown_to_the_host(void **state)
{
	static const uint8_t code[] = { 0x40, 0x40, 0x40, 0xf4 }; /* inc %ax, three times; hlt */
	static const uint8_t handler[] = {
		0x43, 0x5a, 0x42, 0x52, 0xcf, 0xf4
	}; /* inc %bx; pop %dx; inc %dx; push %dx; iret */
	struct fixture *f = create();
	const struct cpu_state *s;
	struct bt_block *b;
	struct capture c;

	(void)state;
	put(f, CODE, code, sizeof(code));
	put_handler(f, EXC_UD, handler, sizeof(handler));
	s = run(f, 0);
	assert_int_equal(s->gpr[RAX], 3);
	assert_int_equal(s->gpr[RBX], 0);

	b = block_at(f, CODE);
	assert_true(b->count >= 3);
	store_le16(bt_of(f->v)->cache.write + b->code + b->insns[1].host, UD2);
	capture_begin(&c);
	for (unsigned n = 0; n < 3; n++) {
		s = run(f, 0);
		assert_int_equal(s->gpr[RAX], 2); /* the handler passes over it */
		assert_int_equal(s->gpr[RBX], 1);
		assert_int_equal(s->gpr[RDX] & 0xffff, CODE + 2);
		assert_int_equal(s->gpr[RSP], STACK);
	}
	assert_int_equal(capture_end(&c, "does not execute 40"), 1);
	destroy(f);
}

/* A block that is there is stepped through, while there is no room for what steps need: nothing is left out, or counted twice. */
static void test_steps_without_room(void **state)
{
	enum { COUNT = 20 };
	/* inc %bx; cmp $COUNT, %bl; je 1f; iret; 1: hlt */
	static const uint8_t handler[] = { 0x43, 0x80, 0xfb, COUNT, 0x74, 0x01, 0xcf, 0xf4 };
	struct fixture *f = create();
	struct bt_cpu *bt = bt_of(f->v);
	const struct cpu_state *s;
	uint8_t code[COUNT + 1];

	(void)state;
	memset(code, 0x40, COUNT);
	code[COUNT] = 0xf4;
	put(f, CODE, code, sizeof(code));
	put_handler(f, EXC_DB, handler, sizeof(handler));
	for (unsigned left = 0; left < 3 * BT_SINGLE_SIZE; left += 48) {
		s = run(f, 0);
		assert_int_equal(s->gpr[RAX], COUNT);
		bt->meta_used = bt->meta_size - left;
		s = run(f, FLAG_TF);
		assert_int_equal(s->gpr[RAX], COUNT);
		assert_int_equal(s->gpr[RBX], COUNT);
	}
	assert_true(bt->stats.flushes > 1);
	destroy(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_unknown_to_the_host),
					    cmocka_unit_test(test_steps_without_room) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
