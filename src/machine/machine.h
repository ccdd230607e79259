/*
 * machine: assembles one virtual PC from its configuration, runs, resets and powers it off.
 */
#ifndef DOPPEL_MACHINE_H
#define DOPPEL_MACHINE_H

#include "base/base.h"
#include "clock/clock.h"
#include "cpu/cpu.h"
#include "devices/devices.h"
#include "display/display.h"
#include "engine/engine.h"

#define MACHINE_MAX_CPUS	64
#define MACHINE_MAX_MODULES	32
#define MACHINE_MAX_DEVICES	32
#define MACHINE_MAX_SCREENSHOTS 8
#define MACHINE_MAX_SMBIOS	16

/* A guest that comes from no file. */
struct machine_guest {
	/* Puts it into memory and sets the first vCPU's state, which is fresh from a reset; after each reset again. */
	int (*load)(void *opaque, struct guest_mem *, struct cpu_state *, struct error *);
	void *opaque;
};

#define MACHINE_NAME_MAX 63

struct machine_config {
	const char *name; /* MACHINE_NAME_MAX characters at most; NULL: none. Its cards' addresses follow it */
	const struct machine_guest *guest;	  /* instead of a kernel, or NULL */
	const char *firmware;			  /* instead of a kernel: its name or a ROM (rom_load()), or NULL */
	const char *kernel, *initrd, *append;	  /* kernel is required, or one of the above */
	const char *modules[MACHINE_MAX_MODULES]; /* "FILE[,ARGUMENTS]", of a multiboot kernel */
	unsigned module_count;
	uint64_t memory;   /* bytes */
	uint64_t overhead; /* bytes that doppel may take besides; 0: overhead_default() */
	unsigned cpus;
	const char *engine;    /* see engine_find() */
	const char *cpu_model; /* "host", "v2", "v3" */
	enum clock_kind clock;
	bool pure;		  /* the guest is told nothing of doppel */
	bool no_reboot;		  /* a reset powers off */
	bool triple_fault_resets; /* as a PC's chipset does it; otherwise it ends the run */
	struct device_request
		devices[MACHINE_MAX_DEVICES]; /* besides, or instead of, those of every PC: machine_ask_for() */
	unsigned device_count;
	const char *screenshots[MACHINE_MAX_SCREENSHOTS]; /* screenshot_open() */
	unsigned screenshot_count;
	const char *smbios[MACHINE_MAX_SMBIOS]; /* machine_check_smbios() */
	unsigned smbios_count;
	const char *displays[DISPLAY_MOST]; /* display_show() */
	unsigned display_count;
	const char *keyboard;	   /* display_set_keyboard(); NULL: that of the United States */
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

/* Adds a device, of which there are not more than there may be. -EINVAL names option, value and what was expected. */
int machine_ask_for(struct machine_config *, struct device_request, struct error *);
/* How many requests are for devices of this type. */
unsigned machine_asks_for(const struct machine_config *, const struct device_type *);
/* Is there one from which a firmware may start a system? */
bool machine_has_disk(const struct machine_config *);
/* The n-th firmware that has a name; NULL behind the last. */
const char *machine_firmware_name(unsigned n);
/* "type=N,FIELD=VALUE...", of the SMBIOS tables. */
int machine_check_smbios(const char *, struct error *);
int machine_create(struct machine **, const struct machine_config *, struct error *);
/*
 * Runs until it ends; returns a machine_end, or the guest's number. In the calling thread the event loop, in threads of their own the vCPUs. A triple
 * fault prints the CPU's state on standard error.
 */
int machine_run(struct machine *);
/* Any thread. */
void machine_quit(struct machine *);
void machine_power_button(struct machine *);
/* As by the button of a PC. */
void machine_reset_button(struct machine *);
/* From stop to go_on vCPUs and guest time stand still; the event loop's thread. True: it was otherwise. */
bool machine_stop(struct machine *);
bool machine_go_on(struct machine *);
enum machine_status {
	MACHINE_RUNNING,
	MACHINE_PAUSED,	  /* by machine_stop() */
	MACHINE_IO_ERROR, /* a disk waits for the host */
	MACHINE_DEBUG,	  /* a debugger has it */
};
/* The event loop's thread. */
enum machine_status machine_status(struct machine *);
/* What happens to it, for one who listens; in the event loop's thread. */
enum machine_event {
	MACHINE_STOPS,
	MACHINE_GOES_ON,
	MACHINE_RESETS,
	MACHINE_BUTTON,
	MACHINE_ENDS,
	MACHINE_IO_FAILS, /* a disk waits for the host from now on */
};
struct machine_news {
	enum machine_event event;
	bool by_guest;		    /* it wanted that itself; of resets and ends */
	struct bus_failure failure; /* of MACHINE_IO_FAILS */
};
typedef void machine_listener(void *opaque, const struct machine_news *);
void machine_listen(struct machine *, machine_listener *, void *opaque);
struct event_loop *machine_loop(struct machine *);
/* The creator's; valid while the machine is. */
const struct machine_config *machine_config(const struct machine *);
/* ns of guest time; the thread of the CPU, as the host's kernel numbers it (0: it has not begun). Any thread. */
uint64_t machine_time(const struct machine *);
int machine_cpu_thread_id(const struct machine *, unsigned cpu);
/*
 * ---- debug.c: a debugger outside of the guest, one at a time; the event loop's thread, or before machine_run() ----
 *
 * Has all vCPUs stand still, when this returns or from the start on, until machine_debug_go_on() or ..._detach().
 */
void machine_debug_stop(struct machine *);
bool machine_debug_stands(const struct machine *);
/* fn is told when a vCPU has stopped by itself (vcpu.stop.kind) and all stand still. -EBUSY: there is one. */
int machine_debug_attach(struct machine *, void (*fn)(void *opaque), void *opaque, struct error *);
/* Nothing stops any more, and all go on. */
void machine_debug_detach(struct machine *);
struct vcpu *machine_vcpu(struct machine *, unsigned cpu);
/* While they stand still: what each does, and what it stops at besides: all but stops.cuts counts. quiet: of steps, as in struct stop. */
enum debug_action { DEBUG_STAY, DEBUG_GO_ON, DEBUG_STEP };
struct debug_plan {
	uint8_t actions[MACHINE_MAX_CPUS]; /* enum debug_action */
	bool quiet;
	struct stops stops;
};
void machine_debug_go_on(struct machine *, const struct debug_plan *);
/*
 * While it runs or not, from any thread but a vCPU's or a device's own: a device comes, or goes with all that belongs to it, while vCPUs
 * and devices' threads are stopped. The guest is told nothing of it. -ENOENT: there is no such device, or it is a part of the PC.
 */
int machine_plug(struct machine *, const struct device_request *, struct error *);
int machine_unplug(struct machine *, const char *name, unsigned instance, struct error *);
/* balloon_set() and balloon_query(), likewise. */
int machine_set_balloon(struct machine *, uint64_t bytes, struct error *);
int machine_query_balloon(struct machine *, struct balloon_info *, struct error *);
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
