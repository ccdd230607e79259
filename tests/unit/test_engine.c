/*
 * What a machine does with its engine: opened before its vCPUs, closed behind them, whatever fails on the way; and that it is not asked
 * for what it cannot do. The engines here run nothing.
 */
#include "machine/machine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* What was called, a letter each. */
static struct {
	char calls[32];
	bool no_open;
	unsigned vcpus_most;
	unsigned vcpus;
} seen;

static void note(char what)
{
	size_t length = strlen(seen.calls);

	assert_true(length + 1 < sizeof(seen.calls));
	seen.calls[length] = what;
}

static int probe(struct error *err)
{
	(void)err;
	return 0;
}

static int open_(struct engine *e, struct error *err)
{
	note('o');
	e->shared = &seen;
	return seen.no_open ? error_set(err, ENOMEM, "not opened") : 0;
}

static void close_(struct engine *e)
{
	assert_ptr_equal(e->shared, &seen);
	assert_int_equal(seen.vcpus, 0);
	note('c');
}

struct big_vcpu {
	struct vcpu v;
	char more[3 * PAGE_SIZE];
};

static int create(struct vcpu *v, struct error *err)
{
	struct big_vcpu *big = (struct big_vcpu *)v;

	assert_ptr_equal(v->engine->shared, &seen);
	note('v');
	if (seen.vcpus == seen.vcpus_most)
		return error_set(err, ENOMEM, "too many");
	memset(big->more, 0xee, sizeof(big->more));
	seen.vcpus++;
	return 0;
}

static void destroy(struct vcpu *v)
{
	assert_ptr_equal(v->hooks, &vcpu_no_hooks);
	note('d');
	seen.vcpus--;
}

static int pull(struct vcpu *v, struct cpu_state *state)
{
	*state = v->s;
	return 0;
}

static int push(struct vcpu *v, const struct cpu_state *state)
{
	v->s = *state;
	return 0;
}

static void invalidate(struct vcpu *v, gpa_t start, size_t size) { (void)v, (void)start, (void)size; }

static const struct vcpu_hooks hooks;

#define IDLE                                                                                                           \
	.what = "runs nothing", .hooks = &hooks, .vcpu_size = sizeof(struct big_vcpu), .probe = probe, .open = open_,  \
	.close = close_, .create = create, .destroy = destroy, .pull = pull, .push = push, .invalidate = invalidate

static const struct engine_ops idle = { .name = "idle", .can = ENGINE_VIRTUAL_CLOCK, IDLE };
static const struct engine_ops timeless = { .name = "timeless", IDLE };

/* In place of src/engine/table.c. */
const struct engine_ops *const engines[] = { &idle, &timeless, NULL };

static int load_nothing(void *opaque, struct guest_mem *mem, struct cpu_state *state, struct error *err)
{
	(void)opaque, (void)mem, (void)state, (void)err;
	return 0;
}

/* Three vCPUs; what was called to make the machine and to take it apart. */
static int make_machine(const char *engine, enum clock_kind clock, struct error *err)
{
	static const struct machine_guest guest = { load_nothing, NULL };
	const struct machine_config config = {
		.guest = &guest, .engine = engine, .clock = clock, .memory = 2 << 20, .cpus = 3
	};
	struct machine *m;
	int ret = machine_create(&m, &config, err);

	machine_destroy(m);
	return ret;
}

static int setup(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	seen.vcpus_most = 3;
	return 0;
}

static void opened_before_vcpus_and_closed_behind_them(void **state)
{
	struct error err = { 0 };

	(void)state;
	assert_int_equal(make_machine("idle", CLOCK_VIRTUAL, &err), 0);
	assert_string_equal(seen.calls, "ovvvdddc");
}

static void not_opened(void **state)
{
	struct error err = { 0 };

	(void)state;
	seen.no_open = true;
	assert_int_equal(make_machine("idle", CLOCK_HOST, &err), -ENOMEM);
	assert_string_equal(seen.calls, "o");
	assert_string_equal(err.text, "not opened");
}

static void without_its_last_vcpu(void **state)
{
	struct error err = { 0 };

	(void)state;
	seen.vcpus_most = 2;
	assert_int_equal(make_machine("idle", CLOCK_HOST, &err), -ENOMEM);
	assert_string_equal(seen.calls, "ovvvddc");
	assert_string_equal(err.text, "too many");
}

static void not_asked_for_what_it_cannot_do(void **state)
{
	struct error err = { 0 };

	(void)state;
	assert_int_equal(make_machine("timeless", CLOCK_VIRTUAL, &err), -ENOTSUP);
	assert_string_equal(seen.calls, "");
	assert_non_null(strstr(err.text, "timeless"));
	assert_int_equal(make_machine("timeless", CLOCK_HOST, &err), 0);
	assert_string_equal(seen.calls, "ovvvdddc");
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(opened_before_vcpus_and_closed_behind_them),
		TEST(not_opened),
		TEST(without_its_last_vcpu),
		TEST(not_asked_for_what_it_cannot_do),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
