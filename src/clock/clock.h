/*
 * clock: guest time and timers. One clock a machine, of two kinds: `host` follows the host's monotonic clock, `virtual`
 * counts executed instructions (1 instruction = 1 ns), so that the same run gives the same trace. Nothing else reads
 * the host's clock.
 */
#ifndef DOPPEL_CLOCK_H
#define DOPPEL_CLOCK_H

#include "base/base.h"
#include "host/host.h"
#include "state/state.h"

typedef uint64_t vtime_t; /* ns of guest time since the machine was first powered on */
#define VTIME_NEVER UINT64_MAX

enum clock_kind { CLOCK_HOST, CLOCK_VIRTUAL };

/* The rate of a virtual clock's TSC: one tick a nanosecond, an instruction. */
#define CLOCK_VIRTUAL_TSC_HZ 1000000000ull

struct clock;

/*
 * wall_base_ns: UTC at guest time 0, in ns since 1970 (0: the host's date for CLOCK_HOST; 2026-01-01 00:00:00 for CLOCK_VIRTUAL,
 * where nothing may depend on the host).
 */
struct clock *clock_create(enum clock_kind, uint64_t wall_base_ns, struct error *);
void clock_destroy(struct clock *);
enum clock_kind clock_kind(const struct clock *);

/* Any thread. Monotonic. CLOCK_HOST stands still between clock_stop and clock_start; it starts stopped at 0. */
vtime_t clock_now(struct clock *);
void clock_start(struct clock *);
void clock_stop(struct clock *);
/* UTC in ns since 1970. */
uint64_t clock_wall_ns(struct clock *);

/*
 * The machine's TSC, which every vCPU's is but for an offset of its own: 0 when the machine was first powered on, and still while the
 * clock is. vtime_t is this number times a constant. CLOCK_HOST: it counts as the host's does, where that is a clock; elsewhere, and
 * for CLOCK_VIRTUAL, nanoseconds. It is a multiple (smallest, so that a tick is no shorter than 1 ns) of the core crystal clock, which is
 * what local APICs' timers count, and whole kHz. SDM vol. 3B 18.17.
 */
uint64_t clock_tsc(struct clock *);
uint64_t clock_tsc_hz(const struct clock *);
uint64_t clock_crystal_hz(const struct clock *);
/*
 * Before it starts: the rate that the guest knows, of a machine that began on another host. What differs from this host's by as
 * little as its measure may is taken for the same; else the TSC is scaled. -EINVAL for what no processor has.
 */
int clock_set_tsc_hz(struct clock *, uint64_t hz, struct error *);
/* Would it take this rate? */
int clock_check_tsc_hz(uint64_t hz, struct error *);
/* The guest time when the TSC reads so; the first one from which on it does. */
vtime_t clock_tsc_time(const struct clock *, uint64_t tsc);
vtime_t clock_tsc_deadline(const struct clock *, uint64_t tsc);
/* Ticks of the crystal that are over after ns; ns after which so many are over (rounded up). */
uint64_t clock_crystal_ticks(const struct clock *, uint64_t ns);
uint64_t clock_crystal_ns(const struct clock *, uint64_t ticks);

/*
 * While it stands still, and after clock_set_tsc_hz(): the TSC, and with it guest time, and UTC are from now on those of a snapshot.
 * Guest time may go back by this; the deadlines of timers that are armed stay as they are.
 */
void clock_load(struct clock *, uint64_t tsc, uint64_t wall_ns);

/* CLOCK_VIRTUAL: whoever executes instructions moves time on (one thread at a time). Never backwards. */
void clock_set(struct clock *, vtime_t);

/*
 * Timers. A timer belongs to its owner's struct. The callback runs with the timer's lock, if it names one, and without the clock's, in the
 * thread that calls clock_run (the machine's event loop for CLOCK_HOST, the running vCPU for CLOCK_VIRTUAL), with the timer disarmed; it
 * may arm any timer. Equal deadlines fire in the order armed.
 */
struct timer {
	struct clock *clock;
	const char *name;
	void (*fire)(void *opaque);
	void *opaque;
	struct lock *lock; /* what the callback is called under; NULL: nothing, and it waits for nobody who has one */
	vtime_t deadline;  /* VTIME_NEVER: not armed; read by timer_deadline */
	uint64_t sequence;
	size_t heap_index;
};
void timer_init(struct timer *, struct clock *, const char *name, void (*fire)(void *), void *opaque);
/* Any thread. Re-arming moves it. A deadline in the past fires at the next clock_run. */
void timer_arm(struct timer *, vtime_t deadline);
/* After this, with its lock held, the callback does not start. One without a lock that runs now in another thread may still be running. */
void timer_disarm(struct timer *);
vtime_t timer_deadline(struct timer *);

/* Earliest deadline or VTIME_NEVER; cheap (one atomic load). */
vtime_t clock_next_deadline(struct clock *);
/* Run everything due at clock_now; returns the next deadline. One thread at a time; the caller has no lock, or all. */
vtime_t clock_run(struct clock *);
/* Called (with no lock held) in the arming thread when the earliest deadline moved nearer. */
void clock_set_notify(struct clock *, void (*fn)(void *), void *opaque);
/* For translated code: the TSC is the host's plus *offset until clock_stop. False: it is not. */
bool clock_tsc_native(struct clock *, uint64_t *offset);
/* The host monotonic time at which guest time t comes (CLOCK_HOST, running), UINT64_MAX for VTIME_NEVER. */
uint64_t clock_host_deadline(struct clock *, vtime_t t);

#endif
