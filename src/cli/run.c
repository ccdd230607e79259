/*
 * doppel run: options to a machine's configuration, then the machine.
 */
#include "cli/cli.h"
#include "control/control.h"
#include "display/display.h"
#include "gdb/gdb.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONTROLS_MOST 3
#define GDB_MOST      3

/* What the options fill. */
struct run_arguments {
	struct machine_config config;
	struct control_spec controls[CONTROLS_MOST];
	unsigned control_count;
	const char *gdb[GDB_MOST];
	unsigned gdb_count;
	const char *pid_file;
	bool paused, detach;
	bool signals_end; /* doppel ends with signal_status instead of by the signal */
	unsigned signal_status;
	const char *device_help; /* "help" or "NAME,help" */
	bool disk_alone;	 /* one was named without an option */
	enum { VGA_DEFAULT, VGA_STD, VGA_NONE } vga;
	enum { ON_TRIPLE_FAULT_DEFAULT, ON_TRIPLE_FAULT_REPORT, ON_TRIPLE_FAULT_RESET } on_triple_fault;
};

/* ---- values ---- */

static int set_name(void *target, const char *value, struct error *err)
{
	size_t length = strlen(value);

	if (!isalnum((unsigned char)*value) || length > MACHINE_NAME_MAX ||
	    strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != length)
		return error_set(err, EINVAL,
				 "'%.80s' is no name; expected a letter or digit, and at most %u more of these, dots, "
				 "hyphens and underscores",
				 value, MACHINE_NAME_MAX - 1);
	((struct run_arguments *)target)->config.name = value;
	return 0;
}

static int set_memory(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;
	uint64_t size = 0;
	int rc = cli_parse_size(value, &size, err);

	if (rc)
		return rc;
	if (size < MEM_MIN || size > MEM_MAX || size % (1 << 20))
		return error_set(
			err, EINVAL,
			"'%s' is not possible; expected a whole number of megabytes from 1M to 1023G, which is "
			"what the guest's 40 bits of physical address have room for",
			value);
	run->config.memory = size;
	return 0;
}

static int set_overhead(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;
	uint64_t size = 0;
	int rc = cli_parse_size(value, &size, err);

	if (rc)
		return rc;
	if (size < MEM_MIN || size > MEM_MAX)
		return error_set(err, EINVAL, "'%s' is not possible; expected a size from 1M to 1T", value);
	run->config.overhead = size;
	return 0;
}

static int set_trace_limit(void *target, const char *value, struct error *err)
{
	return cli_parse_size(value, &((struct run_arguments *)target)->config.trace_limit, err);
}

static int set_cpus(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;
	char *rest;
	unsigned long number = strtoul(value, &rest, 10);

	if (*value < '0' || *value > '9' || *rest || number < 1 || number > MACHINE_MAX_CPUS)
		return error_set(err, EINVAL, "'%s' is not possible; expected a number from 1 to %d", value,
				 MACHINE_MAX_CPUS);
	run->config.cpus = (unsigned)number;
	return 0;
}

static int set_clock(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;

	if (!strcmp(value, "host"))
		run->config.clock = CLOCK_HOST;
	else if (!strcmp(value, "virtual"))
		run->config.clock = CLOCK_VIRTUAL;
	else
		return error_set(err, EINVAL, "'%s' is unknown; expected host or virtual", value);
	return 0;
}

static int set_on_triple_fault(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;

	if (!strcmp(value, "report"))
		run->on_triple_fault = ON_TRIPLE_FAULT_REPORT;
	else if (!strcmp(value, "reset"))
		run->on_triple_fault = ON_TRIPLE_FAULT_RESET;
	else
		return error_set(err, EINVAL, "'%s' is unknown; expected report or reset", value);
	return 0;
}

static int set_module(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;

	if (run->config.module_count == MACHINE_MAX_MODULES)
		return error_set(err, EINVAL, "a kernel gets at most %d modules", MACHINE_MAX_MODULES);
	run->config.modules[run->config.module_count++] = value;
	return 0;
}

static int set_vga(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;

	if (!strcmp(value, "std"))
		run->vga = VGA_STD;
	else if (!strcmp(value, "none"))
		run->vga = VGA_NONE;
	else
		return error_set(err, EINVAL, "'%s' is unknown; expected std or none", value);
	return 0;
}

static int add_screenshot(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;

	if (run->config.screenshot_count == MACHINE_MAX_SCREENSHOTS)
		return error_set(err, EINVAL, "at most %d can be asked for", MACHINE_MAX_SCREENSHOTS);
	run->config.screenshots[run->config.screenshot_count++] = value;
	return screenshot_check(value, err);
}

static int add_smbios(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;

	if (run->config.smbios_count == MACHINE_MAX_SMBIOS)
		return error_set(err, EINVAL, "at most %d can be given", MACHINE_MAX_SMBIOS);
	run->config.smbios[run->config.smbios_count++] = value;
	return machine_check_smbios(value, err);
}

static int add_control(void *target, const char *value, bool human, struct error *err)
{
	struct run_arguments *run = target;

	if (run->control_count == CONTROLS_MOST)
		return error_set(err, EINVAL, "--qmp and --monitor together are at most %d", CONTROLS_MOST);
	run->controls[run->control_count++] = (struct control_spec){ .where = value, .human = human };
	return 0;
}

static int set_gdb(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;

	if (run->gdb_count == GDB_MOST)
		return error_set(err, EINVAL, "there are at most %d such sockets", GDB_MOST);
	run->gdb[run->gdb_count++] = value;
	return 0;
}

static int set_qmp(void *target, const char *value, struct error *err)
{
	return add_control(target, value, false, err);
}

static int set_monitor(void *target, const char *value, struct error *err)
{
	return add_control(target, value, true, err);
}

static int set_signal_status(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;
	char *rest;
	unsigned long number = strtoul(value, &rest, 10);

	if (*value < '0' || *value > '9' || *rest || number > 255)
		return error_set(err, EINVAL, "'%s' is not possible; expected a number from 0 to 255", value);
	run->signals_end = true;
	run->signal_status = (unsigned)number;
	return 0;
}

#define SET(name, field, what)                                                                                         \
	static int set_##name(void *target, const char *value, struct error *err)                                      \
	{                                                                                                              \
		(void)value, (void)err;                                                                                \
		((struct run_arguments *)target)->field = what;                                                        \
		return 0;                                                                                              \
	}
SET(paused, paused, true)
SET(detach, detach, true)
SET(pid_file, pid_file, value)

static int set_device(void *target, const char *value, struct error *err)
{
	struct run_arguments *run = target;
	const char *option = strchr(value, ',');

	if (!strcmp(value, "help") || (option && !strcmp(option, ",help"))) {
		run->device_help = value;
		return 0;
	}
	return machine_ask_for(&run->config, (struct device_request){ .spec = value }, err);
}

static int set_display(void *target, const char *value, struct error *err)
{
	struct machine_config *config = &((struct run_arguments *)target)->config;
	int rc = display_check(value, err);

	if (rc || !strcmp(value, "none"))
		return rc;
	if (config->display_count == DISPLAY_MOST)
		return error_set(err, EINVAL, "a machine has at most %d", DISPLAY_MOST);
	config->displays[config->display_count++] = value;
	return 0;
}

static int set_keyboard(void *target, const char *value, struct error *err)
{
	for (unsigned n = 0; display_keyboard_name(n); n++)
		if (!strcmp(display_keyboard_name(n), value)) {
			((struct run_arguments *)target)->config.keyboard = value;
			return 0;
		}
	return error_set(err, EINVAL, "'%.32s' is unknown; expected a layout such as us, uk, de or fr", value);
}

int run_short_form(void *target, const struct device_type *type, const char *value, struct error *err)
{
	return machine_ask_for(&((struct run_arguments *)target)->config,
			       (struct device_request){ type->name, type->short_form.option, value, NULL }, err);
}

int run_operand(void *target, const char *word, struct error *err)
{
	((struct run_arguments *)target)->disk_alone = true;
	return run_short_form(target, &virtio_blk_type, word, err);
}

/* A field of the configuration that is the option's argument as it is, or a switch. */
#define SET_STRING(field)                                                                                              \
	static int set_##field(void *target, const char *value, struct error *err)                                     \
	{                                                                                                              \
		(void)err;                                                                                             \
		((struct run_arguments *)target)->config.field = value;                                                \
		return 0;                                                                                              \
	}
#define SET_SWITCH(field)                                                                                              \
	static int set_##field(void *target, const char *value, struct error *err)                                     \
	{                                                                                                              \
		(void)value;                                                                                           \
		(void)err;                                                                                             \
		((struct run_arguments *)target)->config.field = true;                                                 \
		return 0;                                                                                              \
	}
SET_STRING(kernel)
SET_STRING(firmware)
SET_STRING(initrd)
SET_STRING(append)
SET_STRING(engine)
SET_STRING(cpu_model)
SET_STRING(trace)
SET_STRING(trace_file)
SET_STRING(guest_symbols)
SET_SWITCH(pure)
SET_SWITCH(no_reboot)
SET_SWITCH(stats)
SET_SWITCH(perf_map)

/* ---- words for help and completion ---- */

static const char *clock_word(unsigned n)
{
	static const char *const words[] = { "host", "virtual", NULL };

	return words[n];
}

static const char *device_word(unsigned n)
{
	return n ? device_types[n - 1] ? device_types[n - 1]->name : NULL : "help";
}

static const char *vga_word(unsigned n)
{
	static const char *const words[] = { "std", "none", NULL };

	return words[n];
}

static const char *display_word(unsigned n)
{
	static const char *const words[] = { "none", "text", "vnc:", "vnc:unix:", "web:", NULL };

	return words[n];
}

static const char *gdb_word(unsigned n)
{
	static const char *const words[] = { "unix:", "tcp:", NULL };

	return words[n];
}

static const char *triple_fault_word(unsigned n)
{
	static const char *const words[] = { "report", "reset", NULL };

	return words[n];
}

static const char *trace_word(unsigned n)
{
	static const char *const words[] = {
		"all",
		"help",
#define _(id, name, what) name,
		TRACE_CATEGORIES(_)
#undef _
			NULL,
	};

	return words[n];
}

/* ---- the command ---- */

const struct cli_option run_options[] = {
	{ "--kernel", "FILE", "Linux bzImage, multiboot or PVH kernel, or x86-64 ELF executable", set_kernel, NULL,
	  true },
	{ "--initrd", "FILE", "initial RAM disk; a multiboot kernel's first module", set_initrd, NULL, true },
	{ "--module", "FILE[,ARGS]", "module of a multiboot kernel, and the string for it; again for more", set_module,
	  NULL, true },
	{ "--append", "STRING", "kernel command line", set_append, NULL, false },
	{ "--firmware", "FILE", "instead of a kernel: bios (the default with a disk), uefi, or a ROM", set_firmware,
	  machine_firmware_name, true },
	{ "--name", "NAME", "the machine's name: 'doppel list' shows it, and its network cards' addresses follow it",
	  set_name, NULL, false },
	{ "--qmp", "unix:PATH", "a socket that speaks QMP, or tcp:HOST:PORT, stdio; again for more", set_qmp, NULL,
	  true },
	{ "--monitor", "unix:PATH", "the same for words that people type to QEMU's monitor", set_monitor, NULL, true },
	{ "--gdb", "KIND:ADDR[,...]", "where GDB may connect: unix:PATH or tcp:[ADDR:]PORT; 'wait': before it begins",
	  set_gdb, gdb_word, true },
	{ "--memory", "SIZE", "guest memory (default 512M)", set_memory, NULL, false },
	{ "--overhead", "SIZE", "memory beyond the guest's at most (default by --memory and --cpus)", set_overhead,
	  NULL, false },
	{ "--cpus", "N", "number of virtual CPUs, 1 to 64 (default 1)", set_cpus, NULL, false },
	{ "--engine", "NAME[,...]", "what executes the guest (default auto)", set_engine, cli_engine_word, false },
	{ "--cpu", "MODEL[,...]", "CPU that the guest sees, with +FLAG, -FLAG (default host)", set_cpu_model,
	  cli_cpu_word, false },
	{ "--clock", "KIND", "guest time: the host's, or virtual, which counts instructions (default host)", set_clock,
	  clock_word, false },
	{ "--pure", NULL, "tell the guest nothing of doppel: no paravirtual interface", set_pure, NULL, false },
	{ "--device", "NAME[,...]", "a device, with OPTION=VALUE; 'help' and 'NAME,help' list them; again for more",
	  set_device, device_word, false },
	{ "--vga", "KIND", "std, or none (default std with a firmware or if something shows the screen)", set_vga,
	  vga_word, false },
	{ "--screenshot", "FILE[,...]",
	  "the screen as a PNG at the end, or with at=SECONDS, every=SECONDS; again for more", add_screenshot, NULL,
	  true },
	{ "--display", "KIND:[ADDR:]PORT[,...]",
	  "where the screen is seen and typed into: by VNC or a browser, or text on the terminal; again for more",
	  set_display, display_word, false },
	{ "--keyboard", "LAYOUT", "the guest's, for viewers that send characters (default us)", set_keyboard,
	  display_keyboard_name, false },
	{ "--smbios", "type=N[,...]",
	  "what the SMBIOS tables say of the machine: FIELD=VALUE by QEMU's names; again for more", add_smbios, NULL,
	  false },
	{ "--paused", NULL, "it waits for 'doppel resume', or cont of QMP", set_paused, NULL, false },
	{ "--detach", NULL, "in the background: doppel returns when the machine runs", set_detach, NULL, false },
	{ "--pid-file", "FILE", "has the number of the machine's process while it runs", set_pid_file, NULL, true },
	{ "--signal-status", "STATUS", "what SIGHUP, SIGINT, SIGTERM end doppel with (default: by the signal)",
	  set_signal_status, NULL, false },
	{ "--no-reboot", NULL, "a reset ends doppel instead", set_no_reboot, NULL, false },
	{ "--on-triple-fault", "WHAT", "end with a status, or reset (default; with --no-reboot: report)",
	  set_on_triple_fault, triple_fault_word, false },
	{ "--trace", "LIST", "trace points, with commas between; 'help' lists them", set_trace, trace_word, false },
	{ "--trace-file", "FILE", "where traces go (default standard error)", set_trace_file, NULL, true },
	{ "--trace-limit", "SIZE", "after so much the trace ends (default 1G)", set_trace_limit, NULL, false },
	{ "--guest-symbols", "FILE", "names of the guest's code for traces and profiles: a System.map or kallsyms",
	  set_guest_symbols, NULL, true },
	{ "--perf-map", NULL, "write /tmp/perf-PID.map, so that perf names guest code", set_perf_map, NULL, false },
	{ "--stats", NULL, "print statistics at the end", set_stats, NULL, false },
	{ NULL, NULL, NULL, NULL, NULL, false },
};

/* With --debug-exit every odd status is the guest's, so that none of doppel's own can be taken for it. */
#define EXIT_TRIPLE_FAULT      3
#define EXIT_ENGINE_ERROR      4
#define EXIT_TRIPLE_FAULT_EVEN 6
#define EXIT_FAILED_EVEN       8

static int failed_status(const struct run_arguments *run)
{
	return machine_asks_for(&run->config, &debug_exit_type) ? EXIT_FAILED_EVEN : EXIT_FAILED;
}

static int exit_status(const struct run_arguments *run, int end)
{
	switch (end) {
	case MACHINE_TRIPLE_FAULT:
		return machine_asks_for(&run->config, &debug_exit_type) ? EXIT_TRIPLE_FAULT_EVEN : EXIT_TRIPLE_FAULT;
	case MACHINE_ENGINE_ERROR: return EXIT_ENGINE_ERROR;
	default: return end;
	}
}

/* What the user wrote is wrong (EINVAL), or what he wants is not possible. */
static int report(const struct run_arguments *run, const struct error *err, int rc)
{
	cli_complain("run", err);
	return rc == -EINVAL ? EXIT_USAGE : failed_status(run);
}

static int print_device_help(const struct run_arguments *run)
{
	struct error err = { 0 };
	int rc = device_print_help(run->device_help, stdout, &err);

	if (!rc)
		return cli_finish_output("run");
	error_prefix(&err, "--device");
	return report(run, &err, rc);
}

/* A kernel with a serial console needs none, and starts sooner without. */
static int add_vga(struct run_arguments *run, struct error *err)
{
	bool wanted = run->vga == VGA_STD ||
		      (run->vga == VGA_DEFAULT &&
		       (run->config.firmware || run->config.screenshot_count || run->config.display_count));

	if (!wanted || machine_asks_for(&run->config, &vga_type))
		return 0;
	return machine_ask_for(&run->config, (struct device_request){ .spec = vga_type.name }, err);
}

/* Then the terminal is the screen's. */
static bool shows_text(const struct machine_config *c)
{
	for (unsigned n = 0; n < c->display_count; n++)
		if (display_is_text(c->displays[n]))
			return true;
	return false;
}

static int open_gdb(struct gdb **gdb, const struct run_arguments *run, struct machine *machine,
		    const struct control *control, struct error *err)
{
	char path[CONTROL_PATH_SIZE];

	return gdb_create(gdb, machine, control_path(control, CONTROL_GDB, path) ? path : NULL, run->gdb,
			  run->gdb_count, err);
}

/* What is not said follows from what is. */
static int complete(struct run_arguments *run, struct error *err)
{
	if (!run->config.kernel && !run->config.firmware && machine_has_disk(&run->config))
		run->config.firmware = "bios";
	if (!run->config.kernel && !run->config.firmware)
		return error_set(err, EINVAL, "nothing to start; expected a disk, --kernel FILE, or --firmware FILE");
	if (run->disk_alone && !machine_asks_for(&run->config, &virtio_net_type))
		run_short_form(run, &virtio_net_type, "user", NULL);
	if (!machine_asks_for(&run->config, &uart_type))
		run_short_form(run, &uart_type, run->detach || shows_text(&run->config) ? "null" : "stdio", NULL);
	run->config.triple_fault_resets = run->on_triple_fault == ON_TRIPLE_FAULT_DEFAULT
						  ? !run->config.no_reboot
						  : run->on_triple_fault == ON_TRIPLE_FAULT_RESET;
	return add_vga(run, err);
}

/* 0 or -errno; `ready`: of cli_detach(), or -1. */
static int run_machine(struct run_arguments *run, int ready, int *status, struct error *err)
{
	struct control *control = NULL;
	struct gdb *gdb = NULL;
	struct machine *machine;
	int rc = machine_create(&machine, &run->config, err);

	if (rc)
		return rc;
	rc = control_create(&control, machine, run->controls, run->control_count, err);
	if (!rc)
		rc = open_gdb(&gdb, run, machine, control, err);
	if (!rc && run->pid_file)
		rc = cli_write_pid(run->pid_file, err);
	if (!rc) {
		if (run->paused)
			machine_stop(machine);
		cli_detached(ready);
		*status = machine_run(machine);
		if (run->pid_file)
			(void)unlink(run->pid_file);
	}
	gdb_destroy(gdb, *status);
	control_destroy(control);
	if (!rc && run->config.stats)
		machine_print_stats(machine, stderr);
	machine_destroy(machine);
	return rc;
}

int command_run(int argc, char **argv)
{
	struct run_arguments run = {
		.config = { .memory = 512ull << 20,
			    .cpus = 1,
			    .engine = "auto",
			    .cpu_model = "host",
			    .clock = CLOCK_HOST,
			    .trace_limit = 1ull << 30,
			    .ends_on_signals = true },
	};
	struct error err = { 0 };
	int status = cli_parse(cli_find("run"), argc, argv, &run), ready = -1, rc;

	if (status)
		return status;
	if (run.device_help)
		return print_device_help(&run);
	rc = complete(&run, &err);
	if (rc)
		return report(&run, &err, rc);
	if (run.detach && cli_detach(&ready, &status))
		return status;
	rc = run_machine(&run, ready, &status, &err);
	if (rc)
		return report(&run, &err, rc);
	if (status > MACHINE_SIGNAL) {
		if (run.signals_end)
			return (int)run.signal_status;
		host_signal_die(status - MACHINE_SIGNAL);
	}
	return exit_status(&run, status);
}
