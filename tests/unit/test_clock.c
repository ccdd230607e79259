/*
 * clock: virtual and host time, the heap of timers against a plain list, arming from callbacks and from other
 * threads.
 */
#include "clock/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <x86intrin.h>

#include <cmocka.h>

/* ---- firing in order ---- */

struct journal {
	int fired[64];
	unsigned count;
};

struct alarm {
	struct timer timer;
	struct journal *journal;
	int id;
	vtime_t rearm; /* in the callback; VTIME_NEVER: not */
};

static void alarm_fire(void *opaque)
{
	struct alarm *alarm = opaque;

	assert_true(timer_deadline(&alarm->timer) == VTIME_NEVER);
	assert_true(alarm->journal->count < ARRAY_SIZE(alarm->journal->fired));
	alarm->journal->fired[alarm->journal->count++] = alarm->id;
	if (alarm->rearm != VTIME_NEVER)
		timer_arm(&alarm->timer, alarm->rearm);
}

static void alarm_init(struct alarm *alarm, struct clock *clock, struct journal *journal, int id)
{
	*alarm = (struct alarm){ .journal = journal, .id = id, .rearm = VTIME_NEVER };
	timer_init(&alarm->timer, clock, "alarm", alarm_fire, alarm);
}

static void virtual_time_is_what_was_set(void **state)
{
	struct clock *clock = clock_create(CLOCK_VIRTUAL, 0, NULL);

	(void)state;
	assert_int_equal(clock_kind(clock), CLOCK_VIRTUAL);
	assert_true(clock_now(clock) == 0);
	assert_true(clock_wall_ns(clock) == 1767225600ull * 1000000000);
	clock_set(clock, 1000);
	clock_start(clock);
	clock_stop(clock);
	assert_true(clock_now(clock) == 1000);
	clock_set(clock, 10);
	assert_true(clock_now(clock) == 1000);
	assert_true(clock_wall_ns(clock) == 1767225600ull * 1000000000 + 1000);
	assert_true(clock_host_deadline(clock, 5) == UINT64_MAX);
	clock_destroy(clock);
	clock = clock_create(CLOCK_VIRTUAL, 42, NULL);
	assert_true(clock_wall_ns(clock) == 42);
	clock_destroy(clock);
}

static void timers_fire_in_order(void **state)
{
	struct clock *clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	struct journal journal = { .count = 0 };
	struct alarm alarms[5];
	int i;

	(void)state;
	for (i = 0; i < 5; i++)
		alarm_init(&alarms[i], clock, &journal, i);
	assert_true(clock_next_deadline(clock) == VTIME_NEVER);
	timer_arm(&alarms[0].timer, 300);
	timer_arm(&alarms[1].timer, 100);
	timer_arm(&alarms[2].timer, 200);
	timer_arm(&alarms[3].timer, 200);
	timer_arm(&alarms[4].timer, 150);
	assert_true(clock_next_deadline(clock) == 100);
	assert_true(timer_deadline(&alarms[4].timer) == 150);
	timer_disarm(&alarms[4].timer);
	timer_disarm(&alarms[4].timer);
	assert_true(timer_deadline(&alarms[4].timer) == VTIME_NEVER);
	clock_set(clock, 99);
	assert_true(clock_run(clock) == 100);
	assert_int_equal(journal.count, 0);
	clock_set(clock, 200);
	assert_true(clock_run(clock) == 300);
	assert_int_equal(journal.count, 3);
	assert_int_equal(journal.fired[0], 1);
	assert_int_equal(journal.fired[1], 2);
	assert_int_equal(journal.fired[2], 3);
	/* Armed again with the same deadline it goes behind its equals. */
	timer_arm(&alarms[1].timer, 300);
	timer_arm(&alarms[0].timer, 300);
	clock_set(clock, UINT64_MAX - 1);
	assert_true(clock_run(clock) == VTIME_NEVER);
	assert_int_equal(journal.count, 5);
	assert_int_equal(journal.fired[3], 1);
	assert_int_equal(journal.fired[4], 0);
	clock_destroy(clock);
}

static void arming_in_the_past_fires_in_the_next_run(void **state)
{
	struct clock *clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	struct journal journal = { .count = 0 };
	struct alarm alarm;

	(void)state;
	alarm_init(&alarm, clock, &journal, 1);
	alarm.rearm = 5;
	timer_arm(&alarm.timer, 10);
	clock_set(clock, 100);
	assert_true(clock_run(clock) == 5);
	assert_int_equal(journal.count, 1);
	alarm.rearm = VTIME_NEVER;
	assert_true(clock_run(clock) == VTIME_NEVER);
	assert_int_equal(journal.count, 2);
	clock_destroy(clock);
}

static void count_call(void *opaque) { ++*(int *)opaque; }

static void notify_when_the_earliest_moves_nearer(void **state)
{
	struct clock *clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	struct timer a, b;
	int notified = 0, fired = 0;

	(void)state;
	clock_set_notify(clock, count_call, &notified);
	timer_init(&a, clock, "a", count_call, &fired);
	timer_init(&b, clock, "b", count_call, &fired);
	timer_arm(&a, 100);
	assert_int_equal(notified, 1);
	timer_arm(&b, 200);
	timer_arm(&a, 150);
	timer_disarm(&b);
	assert_int_equal(notified, 1);
	timer_arm(&b, 149);
	assert_int_equal(notified, 2);
	timer_disarm(&b);
	timer_disarm(&a);
	assert_true(clock_next_deadline(clock) == VTIME_NEVER);
	assert_int_equal(notified, 2);
	assert_int_equal(fired, 0);
	clock_destroy(clock);
}

/* ---- the heap against a model ---- */

#define MODEL_TIMERS 600 /* more than the heap starts out with */

struct model {
	struct timer timer;
	vtime_t deadline;
	uint64_t order;
	bool fired;
};

static struct model *last_fired;

static void model_fire(void *opaque)
{
	struct model *model = opaque;

	/* None before: they fire in the order of deadline, then of arming. */
	if (last_fired)
		assert_true(last_fired->deadline < model->deadline ||
			    (last_fired->deadline == model->deadline && last_fired->order < model->order));
	model->fired = true;
	last_fired = model;
}

static void heap_equals_model(void **state)
{
	static struct model models[MODEL_TIMERS];
	struct clock *clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	unsigned seed = 12345, round, i;
	uint64_t order = 0;
	vtime_t now = 0;

	(void)state;
	for (i = 0; i < MODEL_TIMERS; i++) {
		timer_init(&models[i].timer, clock, "m", model_fire, &models[i]);
		models[i].deadline = VTIME_NEVER;
	}
	for (round = 0; round < 300; round++) {
		vtime_t next = VTIME_NEVER;

		for (i = 0; i < MODEL_TIMERS; i++) {
			unsigned choice = (unsigned)rand_r(&seed) % 8;

			if (choice > 1 && round)
				continue;
			models[i].deadline =
				choice == 0 && round ? VTIME_NEVER : now + 1 + (unsigned)rand_r(&seed) % 300;
			models[i].order = order++;
			timer_arm(&models[i].timer, models[i].deadline);
		}
		now += (unsigned)rand_r(&seed) % 60;
		clock_set(clock, now);
		last_fired = NULL;
		clock_run(clock);
		for (i = 0; i < MODEL_TIMERS; i++) {
			assert_int_equal(models[i].fired, models[i].deadline <= now);
			models[i].fired = false;
			if (models[i].deadline <= now)
				models[i].deadline = VTIME_NEVER;
			next = MIN(next, models[i].deadline);
			assert_true(timer_deadline(&models[i].timer) == models[i].deadline);
		}
		assert_true(clock_next_deadline(clock) == next);
	}
	clock_destroy(clock);
}

/* ---- host time ---- */

static void host_time_stands_still_while_stopped(void **state)
{
	struct clock *clock = clock_create(CLOCK_HOST, 0, NULL);
	uint64_t host = host_monotonic_ns();
	vtime_t stopped;

	(void)state;
	assert_true(clock_now(clock) == 0);
	assert_true(clock_host_deadline(clock, 5) == UINT64_MAX);
	while (host_monotonic_ns() == host)
		;
	assert_true(clock_now(clock) == 0);
	clock_start(clock);
	clock_start(clock);
	while (clock_now(clock) < 1000)
		;
	assert_true(clock_now(clock) < 60000000000ull);
	clock_stop(clock);
	stopped = clock_now(clock);
	clock_stop(clock);
	for (host = host_monotonic_ns(); host_monotonic_ns() < host + 100000;)
		assert_true(clock_now(clock) == stopped);
	clock_start(clock);
	assert_true(clock_now(clock) >= stopped);
	clock_destroy(clock);
}

static void wall_time_follows_the_host(void **state)
{
	struct clock *clock = clock_create(CLOCK_HOST, 0, NULL);
	uint64_t real = host_realtime_ns(), wall;

	(void)state;
	clock_start(clock);
	wall = clock_wall_ns(clock);
	assert_true(wall + 5000000000ull > real && wall < real + 60000000000ull);
	clock_destroy(clock);
	clock = clock_create(CLOCK_HOST, 1000, NULL);
	assert_true(clock_wall_ns(clock) == 1000);
	clock_destroy(clock);
}

static void host_deadline_is_host_time(void **state)
{
	struct clock *clock = clock_create(CLOCK_HOST, 0, NULL);
	uint64_t before, at, after, took;
	vtime_t now;

	(void)state;
	clock_start(clock);
	assert_true(clock_host_deadline(clock, VTIME_NEVER) == UINT64_MAX);
	before = host_monotonic_ns();
	now = clock_now(clock);
	after = host_monotonic_ns();
	at = clock_host_deadline(clock, now + 1000000000);
	took = host_monotonic_ns() - before;
	assert_true(at + took + took / 1000 >= before + 1000000000 && at <= after + 1000000000);
	assert_true(clock_host_deadline(clock, 0) <= host_monotonic_ns());
	assert_true(clock_host_deadline(clock, VTIME_NEVER - 1) > host_monotonic_ns());
	clock_destroy(clock);
}

/* ---- the TSC ---- */

static void a_virtual_tsc_counts_nanoseconds(void **state)
{
	struct clock *clock = clock_create(CLOCK_VIRTUAL, 0, NULL);

	(void)state;
	assert_true(clock_tsc_hz(clock) == CLOCK_VIRTUAL_TSC_HZ && clock_crystal_hz(clock) == CLOCK_VIRTUAL_TSC_HZ);
	clock_set(clock, 0x123456789abcdef);
	assert_true(clock_tsc(clock) == 0x123456789abcdef);
	assert_true(clock_tsc_time(clock, 0x123456789abcdef) == 0x123456789abcdef);
	assert_true(clock_tsc_deadline(clock, 0x123456789abcdef) == 0x123456789abcdef);
	assert_true(clock_crystal_ticks(clock, 12345) == 12345 && clock_crystal_ns(clock, 12345) == 12345);
	clock_destroy(clock);
}

/* Between the units nothing comes too early, and nothing later than the next one. */
static void rates_are_kept(void **state)
{
	static const uint64_t rates[] = { 1000000,    800000000,  1000000000,  1000001000, 2000000000,
					  2000000500, 3000001000, 2599999000,  2994374000, 3000300000,
					  4700000000, 6200000000, 100000000000 };
	struct clock *clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	struct error err = { 0 };

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(rates); n++) {
		uint64_t hz, crystal, at = 0;

		assert_int_equal(clock_set_tsc_hz(clock, rates[n], NULL), 0);
		hz = clock_tsc_hz(clock);
		crystal = clock_crystal_hz(clock);
		assert_true(crystal <= 1000000000 && crystal % 1000 == 0 && hz % crystal == 0);
		/* Set again, it is the same. */
		assert_int_equal(clock_set_tsc_hz(clock, hz, NULL), 0);
		assert_true(clock_tsc_hz(clock) == hz && clock_crystal_hz(clock) == crystal);
		assert_true(hz <= rates[n] && rates[n] - hz <= 1000 * (hz / crystal));
		for (uint64_t tsc = 1; tsc < BIT(61); tsc = tsc * 3 + 1) {
			vtime_t exact = (vtime_t)((unsigned __int128)tsc * 1000000000 / hz);
			vtime_t deadline = clock_tsc_deadline(clock, tsc);

			if (exact >= BIT(61))
				break;
			assert_true(clock_tsc_time(clock, tsc) - exact <= 1);
			assert_true(deadline - exact <= 1);
			assert_true((unsigned __int128)deadline * hz >= (unsigned __int128)tsc * 1000000000);
			assert_int_equal(clock_crystal_ticks(clock, clock_crystal_ns(clock, tsc)), tsc);
			/* The same clock: when the deadline is there the TSC is, too. */
			at = MAX(at, deadline);
			clock_set(clock, at);
			assert_true(clock_tsc(clock) >= tsc);
		}
		clock_destroy(clock);
		clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	}
	clock_destroy(clock);
	clock = clock_create(CLOCK_HOST, 0, NULL);
	assert_int_equal(clock_set_tsc_hz(clock, 999999, &err), -EINVAL);
	assert_non_null(strstr(err.text, "999999 Hz"));
	assert_int_equal(clock_set_tsc_hz(clock, UINT64_MAX, &err), -EINVAL);
	clock_destroy(clock);
}

/* Of how many ticks of the TSC a nanosecond of the same clock is, in millionths; read at the ends of a span of 2 ms. */
static uint64_t measured_hz(struct clock *clock)
{
	uint64_t tsc = clock_tsc(clock);
	vtime_t start = clock_now(clock), now;

	while ((now = clock_now(clock)) < start + 2000000)
		;
	return (uint64_t)((unsigned __int128)(clock_tsc(clock) - tsc) * 1000000000 / (now - start));
}

static void a_host_tsc_is_the_hosts_or_scaled(void **state)
{
	struct clock *clock = clock_create(CLOCK_HOST, 0, NULL);
	uint64_t host = clock_tsc_hz(clock), offset;
	bool native;

	(void)state;
	assert_int_equal(clock_tsc(clock), 0);
	assert_false(clock_tsc_native(clock, &offset));
	clock_start(clock);
	native = clock_tsc_native(clock, &offset);
	if (native) {
		uint64_t before = clock_tsc(clock), between = __builtin_ia32_rdtsc() + offset;

		assert_true(between >= before);
		_mm_lfence();
		assert_true(clock_tsc(clock) >= between);
	}
	clock_destroy(clock);

	/* From a host whose kernel measured a little differently: as it is, but called what the guest knows. */
	clock = clock_create(CLOCK_HOST, 0, NULL);
	assert_int_equal(clock_set_tsc_hz(clock, host + host / 10000, NULL), 0);
	clock_start(clock);
	assert_int_equal(clock_tsc_native(clock, &offset), native);
	assert_true(clock_tsc_hz(clock) > host);
	clock_stop(clock);
	clock_destroy(clock);

	/* From another one. A host that is busy makes what is measured here larger. */
	for (unsigned n = 0; n < 2; n++) {
		uint64_t wanted = n ? host / 3 : host * 2, least = UINT64_MAX, stopped;

		clock = clock_create(CLOCK_HOST, 0, NULL);
		assert_int_equal(clock_set_tsc_hz(clock, wanted, NULL), 0);
		clock_start(clock);
		assert_false(clock_tsc_native(clock, &offset));
		for (unsigned tries = 0; tries < 100 && least > wanted + wanted / 1000; tries++)
			least = MIN(least, measured_hz(clock));
		assert_true(least > wanted - wanted / 1000 && least < wanted + wanted / 1000);
		clock_stop(clock);
		stopped = clock_tsc(clock);
		clock_start(clock);
		assert_true(clock_tsc(clock) - stopped < wanted * 60);
		clock_destroy(clock);
	}
}

static _Atomic bool stop_reading;
static _Atomic unsigned readers_started;

static void *read_forward(void *opaque)
{
	vtime_t last = 0;

	atomic_fetch_add(&readers_started, 1);
	while (!atomic_load(&stop_reading)) {
		vtime_t now = clock_now(opaque);

		if (now < last)
			return opaque;
		last = now;
	}
	return NULL;
}

static void host_time_never_goes_back(void **state)
{
	struct clock *clock = clock_create(CLOCK_HOST, 0, NULL);
	pthread_t threads[2];
	void *result;
	int i;

	(void)state;
	for (i = 0; i < 2; i++)
		assert_int_equal(host_thread_create(&threads[i], "reader", read_forward, clock, NULL), 0);
	while (atomic_load(&readers_started) < 2)
		;
	for (i = 0; i < 20000; i++) {
		clock_start(clock);
		clock_stop(clock);
	}
	atomic_store(&stop_reading, true);
	for (i = 0; i < 2; i++) {
		pthread_join(threads[i], &result);
		assert_null(result);
	}
	clock_destroy(clock);
}

/* ---- threads ---- */

static void atomic_count(void *opaque) { atomic_fetch_add((_Atomic unsigned *)opaque, 1); }

#define ARMS 3000

static void *arm_many(void *opaque)
{
	struct clock *clock = opaque;
	_Atomic unsigned fired = 0;
	struct timer timer;
	unsigned i;

	timer_init(&timer, clock, "t", atomic_count, &fired);
	for (i = 0; i < ARMS; i++) {
		timer_arm(&timer, i & 1 ? 0 : 5);
		while (atomic_load(&fired) == i)
			;
	}
	timer_arm(&timer, 1ull << 60);
	timer_disarm(&timer);
	return atomic_load(&fired) == ARMS ? NULL : opaque;
}

static _Atomic unsigned arming;

static void *arm_and_leave(void *opaque)
{
	void *result = arm_many(opaque);

	atomic_fetch_sub(&arming, 1);
	return result;
}

static void other_threads_arm_timers(void **state)
{
	struct clock *clock = clock_create(CLOCK_VIRTUAL, 0, NULL);
	pthread_t threads[2];
	void *result;
	int i;

	(void)state;
	clock_set(clock, 10);
	atomic_store(&arming, 2);
	for (i = 0; i < 2; i++)
		assert_int_equal(host_thread_create(&threads[i], "armer", arm_and_leave, clock, NULL), 0);
	while (atomic_load(&arming))
		clock_run(clock);
	for (i = 0; i < 2; i++) {
		pthread_join(threads[i], &result);
		assert_null(result);
	}
	assert_true(clock_next_deadline(clock) == VTIME_NEVER);
	clock_destroy(clock);
}

/* A lock that somebody waits for, and a timer that must not. */
struct waiting {
	struct clock *clock;
	struct lock_group group;
	struct lock lock;
	pthread_barrier_t fired;
	int locked;
};

static void fire_freely(void *opaque) { pthread_barrier_wait(&((struct waiting *)opaque)->fired); }

static void fire_locked(void *opaque)
{
	struct waiting *w = opaque;

	assert_false(pthread_mutex_trylock(&w->lock.mutex) == 0); /* it is held */
	w->locked++;
}

static void *run_clock(void *clock)
{
	clock_run(clock);
	return NULL;
}

static void what_has_no_lock_waits_for_nobody(void **state)
{
	struct waiting w = { .clock = clock_create(CLOCK_VIRTUAL, 0, NULL) };
	struct timer locked, stopped, freely;
	pthread_t thread;

	(void)state;
	pthread_barrier_init(&w.fired, NULL, 2);
	lock_group_init(&w.group);
	lock_init(&w.lock, &w.group, 0);
	timer_init(&locked, w.clock, "locked", fire_locked, &w);
	timer_init(&stopped, w.clock, "stopped", fire_locked, &w);
	timer_init(&freely, w.clock, "freely", fire_freely, &w);
	locked.lock = stopped.lock = &w.lock;
	timer_arm(&stopped, 1);
	timer_arm(&locked, 2);
	timer_arm(&freely, 3);
	clock_set(w.clock, 10);
	lock_take(&w.lock);
	assert_int_equal(pthread_create(&thread, NULL, run_clock, w.clock), 0);
	pthread_barrier_wait(&w.fired);
	timer_disarm(&stopped); /* with its lock: it does not fire any more */
	assert_int_equal(w.locked, 0);
	lock_drop(&w.lock);
	pthread_join(thread, NULL);
	assert_int_equal(w.locked, 1);
	lock_destroy(&w.lock);
	pthread_barrier_destroy(&w.fired);
	clock_destroy(w.clock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(virtual_time_is_what_was_set),
		cmocka_unit_test(timers_fire_in_order),
		cmocka_unit_test(arming_in_the_past_fires_in_the_next_run),
		cmocka_unit_test(notify_when_the_earliest_moves_nearer),
		cmocka_unit_test(heap_equals_model),
		cmocka_unit_test(host_time_stands_still_while_stopped),
		cmocka_unit_test(wall_time_follows_the_host),
		cmocka_unit_test(host_deadline_is_host_time),
		cmocka_unit_test(a_virtual_tsc_counts_nanoseconds),
		cmocka_unit_test(rates_are_kept),
		cmocka_unit_test(a_host_tsc_is_the_hosts_or_scaled),
		cmocka_unit_test(host_time_never_goes_back),
		cmocka_unit_test(other_threads_arm_timers),
		cmocka_unit_test(what_has_no_lock_waits_for_nobody),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
