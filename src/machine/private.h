/*
 * What the files of machine/ share.
 *
 * Locks, in the order in which they may be taken: devices' locks (bus.h), then an exclusive section (exclusive.c), then run_lock or exclusive.lock or turn.lock
 * (never two of these).
 */
#ifndef DOPPEL_MACHINE_PRIVATE_H
#define DOPPEL_MACHINE_PRIVATE_H

#include "bus/bus.h"
#include "display/display.h"
#include "machine/machine.h"

#include <pthread.h>
#include <stdatomic.h>

/*
 * Where a vCPU thread sleeps. The waker makes the reason visible first, then calls sleeper_wake; the sleeper calls sleeper_prepare,
 * then looks for a reason, then sleeper_wait with what prepare returned, or sleeper_cancel. No lock: wakers may hold any.
 */
struct sleeper {
	_Atomic uint32_t sequence;
	_Atomic bool waiting;
};
uint32_t sleeper_prepare(struct sleeper *);
void sleeper_wait(struct sleeper *, uint32_t sequence);
void sleeper_cancel(struct sleeper *);
void sleeper_wake(struct sleeper *);

/* A vCPU as the machine sees it: vcpu->env_opaque, and what the local APIC calls its CPU. */
struct machine_cpu {
	struct machine *machine;
	struct vcpu *cpu;
	struct lapic *lapic;
	pthread_t thread;
	_Atomic int thread_id; /* the host kernel's; 0: it has not begun */
	bool started;
	bool stays; /* the debugger does not let it run; written while vCPUs are stopped */
	struct sleeper sleeper;
	/* exclusive.c, under machine.exclusive.lock */
	enum { RUN_STOPPED, RUN_WAITS, RUN_RUNS } run_state;
	uint64_t run_behind; /* RUN_WAITS: until so many sections have ended */
	unsigned pauses;     /* PAUSEs since the last sched_yield() */
	/* virtual time, see turn.c: guest time is turn_base + s.icount while this vCPU has its turn */
	uint64_t turn_base;
	pthread_cond_t turn_begins;
};

/* Why the event loop is to look at the machine: bits of machine.requests. */
enum machine_request {
	REQUEST_RESET = 1,
	REQUEST_POWEROFF = 2,
	REQUEST_EXIT = 4,
	REQUEST_QUIT = 8,
	REQUEST_TRIPLE_FAULT = 16,
	REQUEST_ENGINE_ERROR = 32,
	REQUEST_INIT = 64,
	REQUEST_SIGNAL = 128,
	REQUEST_HOLD = 256,   /* one began, or ended */
	REQUEST_BUTTON = 512, /* with REQUEST_RESET: it is the button's */
	REQUEST_DEBUG = 1024, /* a vCPU stopped for the debugger */
};

struct machine {
	struct machine_config config; /* strings are the creator's */
	struct cpu_model model;
	struct trace trace;
	struct symbols *symbols;   /* of the guest; NULL: none were given */
	struct perf_map *perf_map; /* NULL: none is wanted */
	struct guest_mem *mem;
	struct clock *clock;
	struct bus *bus;
	struct event_loop *loop;
	struct display *display;
	struct screenshot *screenshots[MACHINE_MAX_SCREENSHOTS];
	struct host_signals signals; /* config.ends_on_signals */
	struct event_source signals_source;
	int signal_number;    /* of REQUEST_SIGNAL; event loop's thread */
	struct engine engine; /* ops NULL: not opened yet */

	struct machine_cpu *cpus;
	struct vcpu **vcpus; /* cpus[i].cpu: the vCPUs' peers */
	unsigned cpu_count;  /* created so far */
	bool virtual_time;

	/* Stopping, see pause.c: vCPU threads park while `paused`. */
	pthread_mutex_t run_lock;
	pthread_cond_t run_changed;
	_Atomic bool paused; /* written under run_lock */
	bool ending;
	unsigned parked;
	bool over;	   /* the machine's end has been decided; event loop's thread */
	bool devices_run;  /* devices' threads do; event loop's thread */
	bool loop_runs;	   /* calls are for the event loop's thread; under run_lock, as they are */
	bool direct_call;  /* one is carried out where it came from; likewise */
	struct list calls; /* pause_call() */
	struct list holds; /* of devices (bus_hold), and stop; under run_lock */
	struct bus_hold stop;
	bool stopped; /* stop is a hold; event loop's thread */
	struct {
		void (*fn)(void *opaque); /* NULL: no debugger */
		void *opaque;
		struct bus_hold hold;
		bool stands; /* it is a hold */
		struct stops stops;
	} debug;	       /* event loop's thread; stops while vCPUs are stopped */
	pthread_t loop_thread; /* while loop_runs */
	machine_listener *listener;
	void *listener_opaque;
	uint64_t retry_at; /* host_monotonic_ns() at which holds are retried; 0: there are none; event loop's thread */

	_Atomic unsigned requests;
	int status;
	struct vcpu *failed; /* of REQUEST_TRIPLE_FAULT and REQUEST_ENGINE_ERROR; under run_lock */
	struct error failure;

	/* Exclusive sections, see exclusive.c. */
	struct {
		pthread_mutex_t lock;
		pthread_cond_t let_in; /* a section ended */
		pthread_cond_t turn;   /* that, or the last vCPU stopped */
		unsigned running;      /* vCPUs that are RUN_RUNS */
		uint64_t asked,
			ended;	/* sections, in the order of their numbers: one begins when all before it have ended */
		uint64_t began; /* host_monotonic_ns() when the present one stopped the vCPUs; 0: none ran */
		uint64_t rest_until; /* the next one stops none before that */
	} exclusive;

	/* Virtual time: who may run. A turn that a pause interrupts goes on behind it. */
	struct {
		pthread_mutex_t lock;
		_Atomic unsigned holder;
		bool begun;	     /* the holder's turn; by its thread, or while no vCPU runs, as the next two */
		bool over;	     /* the holder gives the rest of it away */
		vtime_t last;	     /* when it ends, at the latest */
		_Atomic vtime_t end; /* of what the holder runs now */
		struct sleeper idle; /* the holder's, when no vCPU has anything to do */
	} turn;
};

static inline struct machine_cpu *cpu_of(const struct vcpu *v) { return v->env_opaque; }

/* ---- env.c ---- */
extern const struct vcpu_env machine_env;
extern const struct lapic_ops machine_lapic_ops;
/* Any thread: make the vCPU look at its events soon, whether it runs or sleeps. */
void machine_post(struct machine_cpu *, uint32_t events);
/* Of the bus: calls fn with all vCPUs stopped; the A20 gate moved. */
void machine_stopped(void *machine, void (*fn)(struct bus *));
void machine_a20_moved(struct bus_work *);
/* All vCPUs stopped between instructions, or in their own callouts. */
void machine_apply_a20(struct machine *);
/* Virtual time, in the thread of the vCPU that has the turn: guest time catches up with its instructions. */
void machine_sync_time(struct vcpu *);

/* ---- vcpu.c ---- */
void *machine_cpu_thread(void *machine_cpu);
/* Is it running, or has it something to wake up for? */
bool machine_cpu_runnable(struct machine_cpu *);
/* What run() returned, but for EXIT_HALT. */
void machine_cpu_exit(struct machine_cpu *, enum exit_kind, const struct exit *);

/* ---- exclusive.c ---- */
/* Around engine->run(), in the vCPU's thread. */
void exclusive_enter_run(struct machine_cpu *);
void exclusive_leave_run(struct machine_cpu *);
/* Any thread, which may be in engine->run(): it is about to wait for a device's lock, or has it. */
void exclusive_wait(void *machine, bool begins);
/*
 * Runs fn(v, arg) with all vCPUs stopped but the caller's, if it is the thread of one. Any thread, v any vCPU; fn takes no device's lock
 * (devices_lock() comes before) and does not raise.
 */
void exclusive_section(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg);

/* ---- turn.c: virtual time ---- */
#define TURN_QUANTUM 20000 /* instructions; 20 us of guest time */
void turn_run(struct machine_cpu *);
/* Of the clock: the earliest deadline moved nearer. */
void turn_deadline_moved(void *machine);
/* Makes threads that wait for their turn look at machine->paused. */
void turn_wake_all(struct machine *);
/* While no vCPU runs: the turn is this one's, and begins anew. */
void turn_give(struct machine *, unsigned holder);

/* ---- pause.c ---- */
/* Any thread: vCPUs park at the next instruction boundary; returns without waiting for that. */
void pause_begin(struct machine *);
/* Event loop's thread: until vCPUs are parked, then devices' threads are stopped. */
void pause_wait(struct machine *);
/* Event loop's thread; the other way round. While there are holds, vCPUs stay parked and guest time stands still. */
void pause_end(struct machine *);
/* From the machine's thread: creates vCPUs' threads, which are paused; ends them, and stops the devices'. */
int pause_start_threads(struct machine *, struct error *);
void pause_end_threads(struct machine *);
/* Calls of other threads are carried out in the event loop's from now on; they are carried out where they come from, what is left of them here. */
void pause_loop_begins(struct machine *);
void pause_loop_ended(struct machine *);
/* Any thread that vCPUs and devices do not wait for: runs fn while both are stopped, and waits for it. */
void pause_call(struct machine *, void (*fn)(struct machine *, void *), void *arg);

/* A hold that no device has, without a request: vCPUs are stopped. */
void pause_set_hold(struct machine *, struct bus_hold *, bool begins);
/* bus_hold.retry of what waits for a person. */
void pause_nothing_to_retry(struct bus_hold *);
/* Of the bus. */
void pause_hold(void *machine, struct bus_hold *, bool begins);
/* Of the event loop, before each wait: holds are retried if it is time; until when it may wait then, or UINT64_MAX. */
uint64_t pause_retry(struct machine *);

/* ---- debug.c ---- */
/* REQUEST_DEBUG; vCPUs are stopped. debug_told() when they are to stay so. */
void debug_begin(struct machine *);
void debug_told(struct machine *);

/* ---- plug.c ---- */
/* All of m->config's, and what every PC has. */
int plug_devices(struct machine *, struct error *);

/* ---- views.c ---- */
/* Viewers that m->config asks for; when its run is over; and away with them. */
int views_open(struct machine *, struct error *);
void views_end(struct machine *);
void views_close(struct machine *);

/* ---- run.c ---- */
/* Any thread. */
void machine_request(struct machine *, enum machine_request);
/* Whoever listens; the event loop's thread. */
void machine_tell(struct machine *, const struct machine_news *);
void machine_bus_request(void *machine, enum bus_request);
/* Of the memory: mem_loss(). Any thread. */
void machine_memory_lost(void *machine, const struct error *);
/* What guests ask for; the other requests are the user's, or ends that the machine has come to. */
#define GUEST_REQUESTS (REQUEST_RESET | REQUEST_POWEROFF | REQUEST_EXIT | REQUEST_INIT)

/* ---- firmware.c ---- */
/* Behind the creation of devices: what a firmware asks for. */
int machine_tell_firmware(struct machine *, struct error *);
/* Loads the kernel and leaves CPUs and interrupt controllers as firmware would. All vCPUs stopped and reset. */
int machine_boot(struct machine *, struct error *);
/* Has the guest asked for a processor's reset to go on at its own code? All vCPUs stopped. Leaves the RTC's index changed. */
bool machine_warm_reset(struct machine *);

#endif
