/*
 * machine: assembles one virtual PC from its configuration, runs, resets and powers it off.
 */
#ifndef DOPPEL_MACHINE_H
#define DOPPEL_MACHINE_H

#include "base/base.h"
#include "clock/clock.h"
#include "cpu/cpu.h"
#include "engine/engine.h"

#define MACHINE_MAX_CPUS    64
#define MACHINE_MAX_SERIAL  4
#define MACHINE_MAX_MODULES 32
#define MACHINE_MAX_DEVICES 16

struct bus;

/* A device that a machine has when it is asked for. */
struct machine_device {
	const char *name, *what;
	int (*create)(struct bus *, struct error *);
};
extern const struct machine_device machine_devices[]; /* ended by a row without a name */
/* NULL and a sentence: there is none of that name. */
const struct machine_device *machine_device_find(const char *name, struct error *);

/* A guest that comes from no file. */
struct machine_guest {
	/* Puts it into memory and sets the first vCPU's state, which is fresh from a reset; after each reset again. */
	int (*load)(void *opaque, struct guest_mem *, struct cpu_state *, struct error *);
	void *opaque;
};

struct machine_config {
	const struct machine_guest *guest;	  /* instead of a kernel, or NULL */
	const char *firmware;			  /* instead of a kernel: a ROM, or NULL */
	const char *kernel, *initrd, *append;	  /* kernel is required, or one of the above */
	const char *modules[MACHINE_MAX_MODULES]; /* "FILE[,ARGUMENTS]", of a multiboot kernel */
	unsigned module_count;
	uint64_t memory;   /* bytes */
	uint64_t overhead; /* bytes that doppel may take besides; 0: overhead_default() */
	unsigned cpus;
	const char *engine;    /* see engine_find() */
	const char *cpu_model; /* "host", "v2", "v3" */
	enum clock_kind clock;
	bool pure; /* the guest is told nothing of doppel */
	const char *serial
		[MACHINE_MAX_SERIAL]; /* chardev specs; NULL: that UART does not exist (COM1: exists, unconnected) */
	bool no_reboot;		      /* a reset powers off */
	bool triple_fault_resets;     /* as a PC's chipset does it; otherwise it ends the run */
	bool debug_exit;	      /* port 0xf4 */
	const char *debug_console;    /* chardev spec for port 0xe9, or NULL */
	const struct machine_device *devices[MACHINE_MAX_DEVICES];
	unsigned device_count;
	const char *trace;	   /* categories, or NULL */
	const char *trace_file;	   /* NULL: standard error */
	uint64_t trace_limit;	   /* bytes */
	const char *guest_symbols; /* file with names of the guest's code, or NULL */
	bool perf_map;		   /* write /tmp/perf-PID.map */
	bool stats;
	bool ends_on_signals;			 /* SIGHUP, SIGINT, SIGTERM, while it runs */
	const struct machine_observer *observer; /* CLOCK_VIRTUAL; NULL: none */
};

/* Who watches a machine run, under virtual time: what the tests compare engines with. */
struct machine_observer {
	/*
	 * The vCPU that has the turn is about to run; nobody else of the machine does, so that all of it may be looked at. Returns after
	 * how many instructions at most to be called again, at least 1. When turns end and timers are due does not depend on it.
	 */
	uint64_t (*before_run)(void *opaque, struct vcpu *);
	void *opaque;
};

/* What ended a run. Odd numbers up to 255 are the guest's, by the debug-exit port: value << 1 | 1, as QEMU's. */
enum machine_end {
	MACHINE_POWEROFF = 0,
	MACHINE_QUIT = 0, /* the user's Ctrl-A x */
	MACHINE_TRIPLE_FAULT = 256,
	MACHINE_ENGINE_ERROR,
	MACHINE_SIGNAL =
		512, /* plus its number; the process is expected to end by it, and within MACHINE_SIGNAL_PATIENCE does */
};
#define MACHINE_SIGNAL_PATIENCE 30 /* seconds */

struct machine;

int machine_create(struct machine **, const struct machine_config *, struct error *);
/*
 * Runs until it ends; returns a machine_end, or the guest's number. In the calling thread the event loop, in threads of their own the vCPUs. A triple
 * fault prints the CPU's state on standard error.
 */
int machine_run(struct machine *);
/* Any thread. */
void machine_quit(struct machine *);
void machine_power_button(struct machine *);
/* While it does not run. */
int machine_read_memory(struct machine *, gpa_t, void *, size_t, struct error *);
/*
 * The whole machine as bytes, while it does not run: its configuration, guest time, vCPUs, devices, RAM (record.c). The same machine gives the
 * same bytes, whichever engine runs it. 0 or -errno.
 */
int machine_save(struct machine *, struct writer *, struct error *);
/*
 * Before machine_run(), into a machine that was created by the same configuration: it goes on where the other was. The engine may be
 * another one. -EINVAL names what is wrong with a record, by its field; the machine is then as it was.
 */
int machine_load(struct machine *, struct reader *, struct error *);
/* The name of the engine that was taken. */
const char *machine_engine(const struct machine *);
void machine_print_stats(struct machine *, FILE *);
void machine_destroy(struct machine *);

#endif
