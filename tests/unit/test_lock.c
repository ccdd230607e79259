/*
 * Devices' locks: their order, which is looked at when one is taken; all of them at once.
 */
#include "host/host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* By age; the second has the smaller rank. */
struct locks {
	struct lock_group group;
	struct lock later, first, second;
};

static int setup(void **state)
{
	struct locks *l = calloc(1, sizeof(*l));

	lock_group_init(&l->group);
	lock_init(&l->later, &l->group, 2);
	lock_init(&l->first, &l->group, 1);
	lock_init(&l->second, &l->group, 1);
	*state = l;
	return 0;
}

static int teardown(void **state)
{
	struct locks *l = *state;

	lock_destroy(&l->second);
	lock_destroy(&l->later);
	lock_destroy(&l->first);
	free(l);
	return 0;
}

static void *others_find_it_taken(void *lock)
{
	if (!lock_try(lock))
		return lock;
	lock_drop(lock);
	return NULL;
}

static bool taken(struct lock *lock)
{
	pthread_t thread;
	void *result;

	assert_int_equal(pthread_create(&thread, NULL, others_find_it_taken, lock), 0);
	pthread_join(thread, &result);
	return result != NULL;
}

static void in_their_order(void **state)
{
	struct locks *l = *state;

	lock_take(&l->first);
	lock_take(&l->second);
	lock_take(&l->later);
	lock_drop(&l->later);
	lock_drop(&l->second);
	assert_true(taken(&l->first));
	assert_false(taken(&l->second));
	lock_take(&l->later);
	lock_drop(&l->later);
	lock_drop(&l->first);
	assert_false(taken(&l->first));
}

/* A mistake of ours ends the process, which is another one here. */
static void assert_found(void (*mistake)(struct locks *), struct locks *l)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		mistake(l);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void smaller_rank(struct locks *l)
{
	lock_take(&l->later);
	lock_take(&l->first);
}

static void older(struct locks *l)
{
	lock_take(&l->second);
	lock_take(&l->first);
}

static void twice(struct locks *l)
{
	lock_take(&l->first);
	lock_try(&l->first);
}

static void dropped_out_of_order(struct locks *l)
{
	lock_take(&l->first);
	lock_take(&l->later);
	lock_drop(&l->first);
}

static void all_behind_one(struct locks *l)
{
	lock_take(&l->later);
	lock_take_all(&l->group);
}

static void others_are_found(void **state)
{
	void (*const mistakes[])(struct locks *) = { smaller_rank, older, twice, dropped_out_of_order, all_behind_one };

	for (unsigned n = 0; n < ARRAY_SIZE(mistakes); n++)
		assert_found(mistakes[n], *state);
}

static void all_at_once(void **state)
{
	struct locks *l = *state;
	struct lock more;

	lock_take_all(&l->group);
	assert_true(taken(&l->first) && taken(&l->second) && taken(&l->later));
	/* One of them is nothing then, whichever; nor does it give it back. */
	lock_take(&l->later);
	lock_take(&l->first);
	lock_drop(&l->later);
	lock_drop(&l->first);
	assert_true(taken(&l->first) && taken(&l->later));
	lock_init(&more, &l->group, 0);
	assert_true(taken(&more));
	lock_drop_all(&l->group);
	assert_false(taken(&more) || taken(&l->first) || taken(&l->second) || taken(&l->later));
	lock_destroy(&more);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { T(in_their_order), T(others_are_found), T(all_at_once) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
