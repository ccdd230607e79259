/*
 * The event loop: sources, removal during dispatch, posts from other threads, deadlines, stop.
 */
#include "host/host.h"

#include <poll.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	struct event_loop *loop;
	struct event_source sources[40];
	int pipes[40][2];
	unsigned ready[40], ready_count;
	int last_revents;
	unsigned values[1000], value_count;
};

static struct fixture *create(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->loop = event_loop_create(NULL);
	assert_non_null(f->loop);
	return f;
}

static void destroy(struct fixture *f)
{
	unsigned i;

	event_loop_destroy(f->loop);
	for (i = 0; i < ARRAY_SIZE(f->pipes); i++) {
		if (f->pipes[i][1]) {
			close(f->pipes[i][0]);
			close(f->pipes[i][1]);
		}
	}
	free(f);
}

static void add_pipe(struct fixture *f, unsigned n, void (*ready)(void *, short), void *opaque)
{
	assert_int_equal(pipe(f->pipes[n]), 0);
	f->sources[n] =
		(struct event_source){ .fd = f->pipes[n][0], .events = POLLIN, .ready = ready, .opaque = opaque };
	event_loop_add(f->loop, &f->sources[n]);
}

static void stop(void *opaque) { event_loop_stop(((struct fixture *)opaque)->loop); }

/* ---- sources ---- */

static void read_and_stop(void *opaque, short revents)
{
	struct fixture *f = opaque;
	char c;

	f->last_revents = revents;
	f->ready_count++;
	assert_int_equal(read(f->sources[0].fd, &c, 1), 1);
	event_loop_stop(f->loop);
}

static void a_source_is_told_of_its_events(void **state)
{
	struct fixture *f = create();

	(void)state;
	add_pipe(f, 0, read_and_stop, f);
	assert_int_equal(write(f->pipes[0][1], "ab", 2), 2);
	event_loop_run(f->loop);
	assert_int_equal(f->ready_count, 1);
	assert_true(f->last_revents & POLLIN);
	event_loop_run(f->loop);
	assert_int_equal(f->ready_count, 2);
	event_loop_remove(f->loop, &f->sources[0]);
	event_loop_remove(f->loop, &f->sources[0]);
	assert_int_equal(write(f->pipes[0][1], "c", 1), 1);
	event_loop_post(f->loop, stop, f);
	event_loop_run(f->loop);
	assert_int_equal(f->ready_count, 2);
	destroy(f);
}

static void hang_up(void *opaque, short revents)
{
	struct fixture *f = opaque;

	f->last_revents = revents;
	event_loop_stop(f->loop);
}

static void without_events_only_hang_up_is_told(void **state)
{
	struct fixture *f = create();

	(void)state;
	add_pipe(f, 0, hang_up, f);
	event_loop_modify(f->loop, &f->sources[0], 0);
	assert_int_equal(write(f->pipes[0][1], "a", 1), 1);
	event_loop_post(f->loop, stop, f);
	event_loop_run(f->loop);
	assert_int_equal(f->last_revents, 0);
	close(f->pipes[0][1]);
	event_loop_run(f->loop);
	assert_int_equal(f->last_revents, POLLHUP);
	f->pipes[0][1] = dup(f->pipes[0][0]);
	event_loop_remove(f->loop, &f->sources[0]);
	/* A source without a descriptor is silent. */
	f->sources[1] = (struct event_source){ .fd = -1, .ready = hang_up, .opaque = f };
	f->last_revents = 0;
	event_loop_add(f->loop, &f->sources[1]);
	event_loop_post(f->loop, stop, f);
	event_loop_run(f->loop);
	assert_int_equal(f->last_revents, 0);
	destroy(f);
}

/* The first of two ready sources removes and wipes the other, which must not be told any more. */
static void remove_other(void *opaque, short revents)
{
	struct fixture *f = opaque;
	unsigned i;

	(void)revents;
	f->ready_count++;
	for (i = 1; i < 40; i++) {
		event_loop_remove(f->loop, &f->sources[i]);
		memset(&f->sources[i], 0xff, sizeof(f->sources[i]));
	}
	event_loop_stop(f->loop);
}

static void must_not_run(void *opaque, short revents)
{
	(void)opaque;
	(void)revents;
	fail();
}

static void removal_during_dispatch(void **state)
{
	struct fixture *f = create();
	unsigned i;

	(void)state;
	for (i = 0; i < 40; i++) {
		add_pipe(f, i, i ? must_not_run : remove_other, f);
		assert_int_equal(write(f->pipes[i][1], "x", 1), 1);
	}
	event_loop_run(f->loop);
	assert_int_equal(f->ready_count, 1);
	destroy(f);
}

static void note_added(void *opaque, short revents)
{
	struct fixture *f = opaque;

	(void)revents;
	if (++f->ready_count == 38)
		event_loop_stop(f->loop);
	event_loop_remove(f->loop, &f->sources[f->ready_count + 1]);
}

/* So many are added in a callback that the arrays that are being gone through must move. */
static void add_others(void *opaque, short revents)
{
	struct fixture *f = opaque;
	unsigned i;

	(void)revents;
	event_loop_remove(f->loop, &f->sources[0]);
	for (i = 2; i < 40; i++) {
		add_pipe(f, i, note_added, f);
		assert_int_equal(write(f->pipes[i][1], "x", 1), 1);
	}
}

static void adding_during_dispatch(void **state)
{
	struct fixture *f = create();

	(void)state;
	add_pipe(f, 0, add_others, f);
	add_pipe(f, 1, must_not_run, f);
	assert_int_equal(write(f->pipes[0][1], "x", 1), 1);
	event_loop_run(f->loop);
	assert_int_equal(f->ready_count, 38);
	destroy(f);
}

/* ---- posts ---- */

struct numbered {
	struct fixture *f;
	unsigned number;
};

static void note_number(void *opaque)
{
	struct numbered *n = opaque;

	n->f->values[n->f->value_count++] = n->number;
	if (n->f->value_count == ARRAY_SIZE(n->f->values))
		event_loop_stop(n->f->loop);
}

static void *post_numbers(void *opaque)
{
	struct numbered *numbers = opaque;
	unsigned i;

	for (i = 0; i < 500; i++)
		event_loop_post(numbers->f->loop, note_number, &numbers[i]);
	return NULL;
}

static void posts_run_in_order(void **state)
{
	static struct numbered numbers[1000];
	struct fixture *f = create();
	unsigned i, next[2] = { 0, 500 };
	pthread_t threads[2];

	(void)state;
	for (i = 0; i < 1000; i++)
		numbers[i] = (struct numbered){ f, i };
	for (i = 0; i < 2; i++)
		assert_int_equal(host_thread_create(&threads[i], "poster", post_numbers, &numbers[500 * i], NULL), 0);
	event_loop_run(f->loop);
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(f->value_count, 1000);
	for (i = 0; i < 1000; i++)
		assert_int_equal(f->values[i], next[f->values[i] / 500]++);
	destroy(f);
}

static void post_again(void *opaque)
{
	struct fixture *f = opaque;

	f->value_count++;
	event_loop_post(f->loop, post_again, f);
}

static void a_post_that_posts_starves_nobody(void **state)
{
	struct fixture *f = create();

	(void)state;
	add_pipe(f, 0, read_and_stop, f);
	assert_int_equal(write(f->pipes[0][1], "x", 1), 1);
	event_loop_post(f->loop, post_again, f);
	event_loop_run(f->loop);
	assert_int_equal(f->ready_count, 1);
	assert_true(f->value_count >= 1);
	destroy(f);
}

static void cancel_number(void *opaque)
{
	struct numbered *n = opaque;

	event_loop_cancel_posts(n->f->loop, n + 1);
}

static void cancelled_posts_do_not_run(void **state)
{
	struct fixture *f = create();
	struct numbered numbers[3] = { { f, 0 }, { f, 1 }, { f, 2 } };

	(void)state;
	event_loop_post(f->loop, cancel_number, &numbers[0]);
	event_loop_post(f->loop, note_number, &numbers[1]);
	event_loop_post(f->loop, note_number, &numbers[2]);
	event_loop_post(f->loop, note_number, &numbers[1]);
	event_loop_post(f->loop, stop, f);
	event_loop_run(f->loop);
	assert_int_equal(f->value_count, 1);
	assert_int_equal(f->values[0], 2);
	destroy(f);
}

/* ---- deadlines, stop, wake ---- */

struct ticker {
	struct event_loop *loop;
	uint64_t deadline;
	unsigned calls;
	_Atomic bool done;
};

static uint64_t tick(void *opaque)
{
	struct ticker *t = opaque;

	t->calls++;
	if (host_monotonic_ns() < t->deadline)
		return t->deadline;
	event_loop_stop(t->loop);
	return UINT64_MAX;
}

static void tick_is_called_at_its_deadline(void **state)
{
	struct ticker t = { .loop = event_loop_create(NULL) };

	(void)state;
	event_loop_set_tick(t.loop, tick, &t);
	event_loop_run(t.loop);
	assert_int_equal(t.calls, 1);
	t.deadline = host_monotonic_ns() + 3000000;
	t.calls = 0;
	event_loop_run(t.loop);
	assert_true(host_monotonic_ns() >= t.deadline);
	/* It waited; it did not ask over and over. */
	assert_in_range(t.calls, 2, 5);
	event_loop_destroy(t.loop);
}

static uint64_t tick_until_done(void *opaque)
{
	struct ticker *t = opaque;

	t->calls++;
	if (atomic_load(&t->done))
		event_loop_stop(t->loop);
	return UINT64_MAX;
}

static void *finish_and_wake(void *opaque)
{
	struct ticker *t = opaque;
	int i;

	for (i = 0; i < 1000; i++)
		event_loop_wake(t->loop);
	atomic_store(&t->done, true);
	event_loop_wake(t->loop);
	return NULL;
}

/* Often, because a lost wake would hang the loop only now and then. */
static void no_wake_is_lost(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < 100; i++) {
		struct ticker t = { .loop = event_loop_create(NULL) };
		pthread_t thread;

		event_loop_set_tick(t.loop, tick_until_done, &t);
		assert_int_equal(host_thread_create(&thread, "waker", finish_and_wake, &t, NULL), 0);
		event_loop_run(t.loop);
		pthread_join(thread, NULL);
		event_loop_destroy(t.loop);
	}
}

static void *stop_thread(void *opaque)
{
	event_loop_stop(opaque);
	return NULL;
}

static void stop_from_another_thread_or_beforehand(void **state)
{
	struct event_loop *loop = event_loop_create(NULL);
	pthread_t thread;

	(void)state;
	event_loop_stop(loop);
	event_loop_run(loop);
	assert_int_equal(host_thread_create(&thread, "stopper", stop_thread, loop, NULL), 0);
	event_loop_run(loop);
	pthread_join(thread, NULL);
	event_loop_destroy(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_source_is_told_of_its_events),
		cmocka_unit_test(without_events_only_hang_up_is_told),
		cmocka_unit_test(removal_during_dispatch),
		cmocka_unit_test(adding_during_dispatch),
		cmocka_unit_test(posts_run_in_order),
		cmocka_unit_test(a_post_that_posts_starves_nobody),
		cmocka_unit_test(cancelled_posts_do_not_run),
		cmocka_unit_test(tick_is_called_at_its_deadline),
		cmocka_unit_test(no_wake_is_lost),
		cmocka_unit_test(stop_from_another_thread_or_beforehand),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
