/*
 * Guest time: how it follows the host's clock or the count of instructions, and the heap of timers.
 *
 * Locks: clock->lock covers the heap. The time of a CLOCK_HOST clock is read without it, under a sequence count that
 * only start and stop (serialised by clock->lock) change.
 */
#include "clock/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <x86intrin.h>

/* 2026-01-01 00:00:00 UTC in ns since 1970: what a virtual clock begins with. */
#define VIRTUAL_WALL_BASE_NS (1767225600ull * 1000000000ull)
#define NOT_IN_HEAP	     SIZE_MAX
#define INITIAL_TIMERS	     256

/* A measured rate may be off by so much, and two kernels' ideas of a second differ; what KVM allows, too. */
#define RATE_TOLERANCE_PPM 250
#define MIN_TSC_HZ	   1000000ull
#define MAX_TSC_HZ	   100000000000ull

/* n units of one rate are n * multiplier / 2^shift of another. */
struct scale {
	uint64_t multiplier;
	unsigned shift;
};

struct clock {
	enum clock_kind kind;
	uint64_t host_tsc_hz; /* the host's TSC is read; 0: its monotonic clock */
	uint64_t crystal_hz, tsc_multiple;
	bool scaled; /* the guest's TSC has another rate than what is read */
	struct scale guest_ticks, nanoseconds;

	/* Odd while the four below change. */
	_Atomic uint32_t time_sequence;
	_Atomic bool running;
	_Atomic uint64_t stopped_at;  /* TSC while it stands still */
	_Atomic uint64_t host_offset; /* running: what read_host() gives when the TSC is 0, modulo 2^64 */
	_Atomic uint64_t wall_base;   /* UTC of guest time 0 */
	bool wall_follows_host;	      /* wall_base is the host's date at the first start */

	_Atomic uint64_t virtual_now;

	_Atomic uint64_t next; /* earliest deadline; written under lock */
	pthread_mutex_t lock;
	struct timer **heap; /* binary, ordered by timer_before */
	size_t count, capacity;
	uint64_t sequence;
	void (*notify)(void *);
	void *notify_opaque;
};

/* ---- rates ---- */

/* To some 60 bits, and rather more than less: what scale_up() says is never too early. */
static struct scale scale_make(uint64_t from, uint64_t to)
{
	struct scale scale = { .shift = 63 };

	for (; (to / from + 1) >> (64 - scale.shift); scale.shift--)
		;
	scale.multiplier = (uint64_t)((((unsigned __int128)to << scale.shift) + from - 1) / from);
	return scale;
}

static uint64_t scale_down(struct scale scale, uint64_t n)
{
	return (uint64_t)((unsigned __int128)n * scale.multiplier >> scale.shift);
}

static uint64_t scale_up(struct scale scale, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)n * scale.multiplier + BIT(scale.shift) - 1) >> scale.shift);
}

static uint64_t host_rate(const struct clock *clock)
{
	return clock->host_tsc_hz ? clock->host_tsc_hz : CLOCK_VIRTUAL_TSC_HZ;
}

#define MAX_CRYSTAL_KHZ 1000000u

static void set_rate(struct clock *clock, uint64_t hz)
{
	uint64_t host = host_rate(clock), difference = hz > host ? hz - host : host - hz, khz = hz / 1000;
	uint64_t measure = clock->host_tsc_hz * RATE_TOLERANCE_PPM / 1000000;

	/* Kernels reckon in kHz. The rate that comes out gives itself when it is set again, by a machine that is loaded. */
	clock->tsc_multiple = (khz + MAX_CRYSTAL_KHZ - 1) / MAX_CRYSTAL_KHZ;
	if (khz / clock->tsc_multiple * clock->tsc_multiple <= (clock->tsc_multiple - 1) * MAX_CRYSTAL_KHZ)
		clock->tsc_multiple--;
	clock->crystal_hz = MIN(khz / clock->tsc_multiple, MAX_CRYSTAL_KHZ) * 1000;
	clock->scaled = difference > measure;
	clock->guest_ticks = scale_make(host, clock_tsc_hz(clock));
	clock->nanoseconds = scale_make(clock_tsc_hz(clock), NS_PER_S);
}

uint64_t clock_tsc_hz(const struct clock *clock) { return clock->crystal_hz * clock->tsc_multiple; }

uint64_t clock_crystal_hz(const struct clock *clock) { return clock->crystal_hz; }

int clock_check_tsc_hz(uint64_t hz, struct error *err)
{
	if (hz < MIN_TSC_HZ || hz > MAX_TSC_HZ)
		return error_set(err, EINVAL, "the TSC's rate of %llu Hz is not possible; expected %llu to %llu",
				 (unsigned long long)hz, MIN_TSC_HZ, MAX_TSC_HZ);
	return 0;
}

int clock_set_tsc_hz(struct clock *clock, uint64_t hz, struct error *err)
{
	int rc = clock_check_tsc_hz(hz, err);

	BUG_ON(clock->running);
	if (!rc)
		set_rate(clock, hz);
	return rc;
}

vtime_t clock_tsc_time(const struct clock *clock, uint64_t tsc) { return scale_down(clock->nanoseconds, tsc); }

vtime_t clock_tsc_deadline(const struct clock *clock, uint64_t tsc) { return scale_up(clock->nanoseconds, tsc); }

uint64_t clock_crystal_ticks(const struct clock *clock, uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * clock->crystal_hz / NS_PER_S);
}

uint64_t clock_crystal_ns(const struct clock *clock, uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * NS_PER_S + clock->crystal_hz - 1) / clock->crystal_hz);
}

/* ---- life ---- */

struct clock *clock_create(enum clock_kind kind, uint64_t wall_base_ns, struct error *err)
{
	struct clock *clock = calloc(1, sizeof(*clock));

	if (!clock)
		goto no_memory;
	clock->capacity = INITIAL_TIMERS;
	clock->heap = calloc(clock->capacity, sizeof(struct timer *));
	if (!clock->heap)
		goto no_memory;
	clock->kind = kind;
	clock->host_tsc_hz = kind == CLOCK_HOST ? host_tsc_hz() : 0;
	set_rate(clock, host_rate(clock));
	clock->next = VTIME_NEVER;
	clock->wall_base = wall_base_ns;
	if (!wall_base_ns) {
		clock->wall_follows_host = kind == CLOCK_HOST;
		clock->wall_base = kind == CLOCK_HOST ? host_realtime_ns() : VIRTUAL_WALL_BASE_NS;
	}
	pthread_mutex_init(&clock->lock, NULL);
	return clock;

no_memory:
	free(clock);
	error_set_errno(err, ENOMEM, "cannot create the clock");
	return NULL;
}

void clock_destroy(struct clock *clock)
{
	if (!clock)
		return;
	pthread_mutex_destroy(&clock->lock);
	free(clock->heap);
	free(clock);
}

enum clock_kind clock_kind(const struct clock *clock) { return clock->kind; }

/* ---- time ---- */

static uint64_t to_guest_ticks(const struct clock *clock, uint64_t ticks)
{
	return clock->scaled ? scale_down(clock->guest_ticks, ticks) : ticks;
}

/* In ticks of the guest's TSC. */
static uint64_t read_host(const struct clock *clock)
{
	uint64_t ticks;

	if (clock->host_tsc_hz) {
		/* RDTSC alone may be executed before or behind the loads around it. */
		_mm_lfence();
		ticks = __rdtsc();
		_mm_lfence();
	} else {
		ticks = host_monotonic_ns();
	}
	return to_guest_ticks(clock, ticks);
}

struct time_view {
	bool running;
	uint64_t tsc;
	vtime_t now;
	uint64_t host_offset, wall_base;
};

/*
 * The host's clock is read inside the sequence: a reader that overlaps a stop starts over, so it cannot return a
 * later time than the one at which the clock then stands.
 */
static struct time_view read_time(struct clock *clock)
{
	struct time_view view;
	uint32_t sequence;

	for (;;) {
		sequence = atomic_load(&clock->time_sequence);
		view.running = atomic_load(&clock->running);
		view.host_offset = atomic_load(&clock->host_offset);
		view.wall_base = atomic_load(&clock->wall_base);
		if (clock->kind == CLOCK_VIRTUAL)
			view.tsc = clock_tsc(clock);
		else if (view.running)
			view.tsc = read_host(clock) - view.host_offset;
		else
			view.tsc = atomic_load(&clock->stopped_at);
		if (!(sequence & 1) && sequence == atomic_load(&clock->time_sequence))
			break;
	}
	view.now = clock->kind == CLOCK_VIRTUAL ? clock_now(clock) : clock_tsc_time(clock, view.tsc);
	return view;
}

uint64_t clock_tsc(struct clock *clock)
{
	if (clock->kind == CLOCK_VIRTUAL)
		return to_guest_ticks(clock, clock_now(clock));
	return read_time(clock).tsc;
}

vtime_t clock_now(struct clock *clock)
{
	if (clock->kind == CLOCK_VIRTUAL)
		return atomic_load_explicit(&clock->virtual_now, memory_order_acquire);
	return read_time(clock).now;
}

static void notify(struct clock *clock)
{
	if (clock->notify)
		clock->notify(clock->notify_opaque);
}

void clock_start(struct clock *clock)
{
	if (clock->kind == CLOCK_VIRTUAL)
		return;
	pthread_mutex_lock(&clock->lock);
	if (!clock->running) {
		atomic_fetch_add(&clock->time_sequence, 1);
		clock->host_offset = read_host(clock) - clock->stopped_at;
		if (clock->wall_follows_host)
			clock->wall_base = host_realtime_ns() - clock_tsc_time(clock, clock->stopped_at);
		clock->wall_follows_host = false;
		clock->running = true;
		atomic_fetch_add(&clock->time_sequence, 1);
	}
	pthread_mutex_unlock(&clock->lock);
	/* Deadlines have host times again. */
	notify(clock);
}

void clock_stop(struct clock *clock)
{
	if (clock->kind == CLOCK_VIRTUAL)
		return;
	pthread_mutex_lock(&clock->lock);
	if (clock->running) {
		atomic_fetch_add(&clock->time_sequence, 1);
		clock->stopped_at = read_host(clock) - clock->host_offset;
		clock->running = false;
		atomic_fetch_add(&clock->time_sequence, 1);
	}
	pthread_mutex_unlock(&clock->lock);
}

uint64_t clock_wall_ns(struct clock *clock)
{
	struct time_view view = read_time(clock);

	return view.wall_base + view.now;
}

void clock_set(struct clock *clock, vtime_t now)
{
	BUG_ON(clock->kind != CLOCK_VIRTUAL);
	/* One thread at a time writes it. */
	if (now > atomic_load_explicit(&clock->virtual_now, memory_order_relaxed))
		atomic_store_explicit(&clock->virtual_now, now, memory_order_release);
}

void clock_load(struct clock *clock, uint64_t tsc, uint64_t wall_ns)
{
	pthread_mutex_lock(&clock->lock);
	BUG_ON(clock->running);
	atomic_fetch_add(&clock->time_sequence, 1);
	clock->stopped_at = tsc;
	clock->virtual_now = clock_tsc_time(clock, tsc);
	clock->wall_base = wall_ns - clock_tsc_time(clock, tsc);
	clock->wall_follows_host = false;
	atomic_fetch_add(&clock->time_sequence, 1);
	pthread_mutex_unlock(&clock->lock);
}

bool clock_tsc_native(struct clock *clock, uint64_t *offset)
{
	struct time_view view = read_time(clock);

	*offset = -view.host_offset;
	return view.running && clock->host_tsc_hz && !clock->scaled;
}

uint64_t clock_host_deadline(struct clock *clock, vtime_t t)
{
	struct time_view view;
	uint64_t now;

	if (t == VTIME_NEVER || clock->kind == CLOCK_VIRTUAL)
		return UINT64_MAX;
	/* In this order: whoever loses the processor in between wakes too early rather than late. */
	now = host_monotonic_ns();
	view = read_time(clock);
	if (!view.running)
		return UINT64_MAX;
	if (t <= view.now)
		return now;
	return t - view.now > UINT64_MAX - now ? UINT64_MAX : now + (t - view.now);
}

/* ---- the heap; all under lock ---- */

/* Equal deadlines fire in the order armed. */
static bool timer_before(const struct timer *a, const struct timer *b)
{
	return a->deadline != b->deadline ? a->deadline < b->deadline : a->sequence < b->sequence;
}

static void heap_place(struct clock *clock, size_t at, struct timer *timer)
{
	clock->heap[at] = timer;
	timer->heap_index = at;
}

/* Moves the timer that belongs at `at` up or down until the heap is one again. */
static void heap_fix(struct clock *clock, size_t at, struct timer *timer)
{
	while (at > 0 && timer_before(timer, clock->heap[(at - 1) / 2])) {
		heap_place(clock, at, clock->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= clock->count)
			break;
		if (child + 1 < clock->count && timer_before(clock->heap[child + 1], clock->heap[child]))
			child++;
		if (!timer_before(clock->heap[child], timer))
			break;
		heap_place(clock, at, clock->heap[child]);
		at = child;
	}
	heap_place(clock, at, timer);
}

static void heap_remove(struct clock *clock, struct timer *timer)
{
	size_t at = timer->heap_index;
	struct timer *last;

	timer->deadline = VTIME_NEVER;
	if (at == NOT_IN_HEAP)
		return;
	timer->heap_index = NOT_IN_HEAP;
	last = clock->heap[--clock->count];
	if (last != timer)
		heap_fix(clock, at, last);
}

static void heap_insert(struct clock *clock, struct timer *timer, vtime_t deadline)
{
	if (clock->count == clock->capacity) {
		clock->capacity *= 2;
		clock->heap = realloc(clock->heap, clock->capacity * sizeof(struct timer *));
		BUG_ON(!clock->heap);
	}
	timer->deadline = deadline;
	timer->sequence = clock->sequence++;
	heap_fix(clock, clock->count++, timer);
}

static vtime_t publish_next(struct clock *clock)
{
	vtime_t next = clock->count ? clock->heap[0]->deadline : VTIME_NEVER;

	atomic_store(&clock->next, next);
	return next;
}

/* ---- timers ---- */

void timer_init(struct timer *timer, struct clock *clock, const char *name, void (*fire)(void *), void *opaque)
{
	*timer = (struct timer){
		.clock = clock,
		.name = name,
		.fire = fire,
		.opaque = opaque,
		.deadline = VTIME_NEVER,
		.heap_index = NOT_IN_HEAP,
	};
}

void timer_arm(struct timer *timer, vtime_t deadline)
{
	struct clock *clock = timer->clock;
	vtime_t before;
	bool nearer;

	pthread_mutex_lock(&clock->lock);
	before = atomic_load(&clock->next);
	heap_remove(clock, timer);
	if (deadline != VTIME_NEVER)
		heap_insert(clock, timer, deadline);
	nearer = publish_next(clock) < before;
	pthread_mutex_unlock(&clock->lock);
	if (nearer)
		notify(clock);
}

void timer_disarm(struct timer *timer) { timer_arm(timer, VTIME_NEVER); }

vtime_t timer_deadline(struct timer *timer)
{
	vtime_t deadline;

	pthread_mutex_lock(&timer->clock->lock);
	deadline = timer->deadline;
	pthread_mutex_unlock(&timer->clock->lock);
	return deadline;
}

vtime_t clock_next_deadline(struct clock *clock) { return atomic_load_explicit(&clock->next, memory_order_acquire); }

/* What callbacks arm waits for the next run, even if it is due: this one ends. */
struct due {
	vtime_t now;
	uint64_t limit;
};

static bool is_due(const struct timer *timer, struct due due)
{
	return timer->heap_index != NOT_IN_HEAP && timer->deadline <= due.now && timer->sequence < due.limit;
}

/* Lock held, but not while the callback runs. */
static void fire(struct clock *clock, struct timer *timer)
{
	void (*callback)(void *) = timer->fire;
	void *opaque = timer->opaque;

	heap_remove(clock, timer);
	publish_next(clock);
	pthread_mutex_unlock(&clock->lock);
	callback(opaque);
	pthread_mutex_lock(&clock->lock);
}

static struct timer *first_without_lock(const struct clock *clock, struct due due)
{
	struct timer *first = NULL;

	for (size_t i = 0; i < clock->count; i++) {
		struct timer *timer = clock->heap[i];

		if (!timer->lock && is_due(timer, due) && (!first || timer_before(timer, first)))
			first = timer;
	}
	return first;
}

/*
 * Lock held, but not all of the time. Whoever has the timer's lock may have stopped it meanwhile; while he lets us wait, what waits for nobody
 * goes first.
 */
static void fire_locked(struct clock *clock, struct timer *timer, struct due due)
{
	struct lock *lock = timer->lock;

	if (!lock_try(lock)) {
		struct timer *free;

		while ((free = first_without_lock(clock, due)))
			fire(clock, free);
		pthread_mutex_unlock(&clock->lock);
		lock_take(lock);
		pthread_mutex_lock(&clock->lock);
	}
	if (is_due(timer, due))
		fire(clock, timer);
	pthread_mutex_unlock(&clock->lock);
	lock_drop(lock);
	pthread_mutex_lock(&clock->lock);
}

vtime_t clock_run(struct clock *clock)
{
	struct due due = { .now = clock_now(clock) };
	vtime_t next;

	if (clock_next_deadline(clock) > due.now)
		return clock_next_deadline(clock);
	pthread_mutex_lock(&clock->lock);
	due.limit = clock->sequence;
	while (clock->count && is_due(clock->heap[0], due)) {
		if (clock->heap[0]->lock)
			fire_locked(clock, clock->heap[0], due);
		else
			fire(clock, clock->heap[0]);
	}
	next = publish_next(clock);
	pthread_mutex_unlock(&clock->lock);
	return next;
}

void clock_set_notify(struct clock *clock, void (*fn)(void *), void *opaque)
{
	clock->notify = fn;
	clock->notify_opaque = opaque;
}
