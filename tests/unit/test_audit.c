/*
 * The audit can fail: whatever a check looks at, when the guest had seen something else there the verdict is "not ok".
 */
#include "audit/private.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct audit_run good, run;

static enum audit_verdict verdict(unsigned n)
{
	struct audit_row row;

	audit_judge(&run, n, &row);
	assert_true(*row.instruction && *row.where && *row.naive && *row.shown);
	assert_int_equal(row.verdict == AUDIT_NOT_OK, *row.expected != 0);
	return row.verdict;
}

static void assert_not_ok(unsigned n, const char *what)
{
	if (verdict(n) != AUDIT_NOT_OK)
		fail_msg("%s, %s: %s changed, and still ok", audit_checks[n].instruction, audit_checks[n].where, what);
	run = good;
}

static int set_up(void **state)
{
	struct error err = { 0 };

	(void)state;
	if (audit_execute("interp", "host", &good, &err))
		fail_msg("%s", err.text);
	run = good;
	return 0;
}

static void test_all_ok(void **state)
{
	(void)state;
	assert_string_equal(run.engine, "interp");
	assert_int_equal(run.count, audit_check_count);
	for (unsigned n = 0; n < run.count; n++)
		assert_int_not_equal(verdict(n), AUDIT_NOT_OK);
}

static uint64_t *field(struct audit_record *r, enum field f)
{
	uint64_t *const fields[] = {
		[FIELD_RAX] = &r->rax, [FIELD_RBX] = &r->rbx, [FIELD_FLAGS] = &r->rflags, [FIELD_CS] = &r->cs
	};

	return fields[f];
}

static void test_values(void **state)
{
	(void)state;
	for (unsigned n = 0; n < run.count; n++)
		for (unsigned i = 0; run.offered[n] && i < ARRAY_SIZE(audit_checks[n].values); i++) {
			const struct value *v = &audit_checks[n].values[i];

			for (unsigned bit = 0; v->field != NO_FIELD && bit < 64; bit++) {
				if (v->mask && !(v->mask >> bit & 1))
					continue;
				*field(&run.records[n], v->field) ^= BIT(bit);
				assert_not_ok(n, v->name);
			}
		}
}

/* Faults that do not come, come with another code, or are another instruction's; no fault expected, and one comes. */
static void test_vectors(void **state)
{
	(void)state;
	for (unsigned n = 0; n < run.count; n++) {
		const struct check *c = &audit_checks[n];
		uint64_t start = run.records[n].rip;

		if (!run.offered[n])
			continue;
		run.records[n].vector = c->vector ? VECTOR_END : EXC_GP;
		assert_not_ok(n, "the vector");
		run.records[n].error ^= 8;
		assert_not_ok(n, "the error code");
		run.records[n].done = 0;
		assert_not_ok(n, "whether it came back");
		if (c->vector && c->vector < VECTOR_END && c->vector != EXC_BP && c->vector != EXC_OF) {
			run.records[n].rip = start + (uint64_t)(c->code.end - c->code.start);
			assert_not_ok(n, "where it faulted");
		}
	}
}

/* Nothing is virtualized when the host's processor just executes user mode. */
static void test_naive(void **state)
{
	struct error err = { 0 };
	unsigned executed = 0, failed = 0;

	(void)state;
	if (audit_execute_naively(&run, &err))
		fail_msg("%s", err.text);
	for (unsigned n = 0; n < run.count; n++) {
		executed += run.offered[n];
		failed += verdict(n) == AUDIT_NOT_OK;
	}
	assert_true(executed > 40 && failed > 20);
	run = good;
}

static void test_errors(void **state)
{
	struct error err = { 0 };

	(void)state;
	assert_int_equal(audit_execute("nothing", "host", &run, &err), -EINVAL);
	assert_non_null(strstr(err.text, "nothing"));
	assert_int_equal(audit_execute("interp", "v9", &run, &err), -EINVAL);
	assert_non_null(strstr(err.text, "v9"));
	run = good;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_ok), cmocka_unit_test(test_values), cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_naive),  cmocka_unit_test(test_errors),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, set_up, NULL);
}
