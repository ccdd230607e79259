/*
 * doppel doctor: what this host offers, and what follows. One list of findings, printed as text or as JSON.
 */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <asm/hwcap2.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

enum verdict { GOOD, FAIR, BAD };
static const char *const verdict_names[] = { [GOOD] = "ok", [FAIR] = "fair", [BAD] = "bad" };

struct finding {
	const char *topic; /* "engine" */
	char name[32];	   /* "kvm" */
	enum verdict verdict;
	char text[256];
	char advice[256]; /* empty: none */
};

struct report {
	struct finding findings[48];
	unsigned count;
	bool engine_works;
};

static struct finding *add(struct report *r, const char *topic, const char *name, enum verdict verdict, const char *fmt,
			   ...) printf_like(5, 6);

static struct finding *add(struct report *r, const char *topic, const char *name, enum verdict verdict, const char *fmt,
			   ...)
{
	struct finding *f = &r->findings[r->count++];
	va_list args;

	BUG_ON(r->count > ARRAY_SIZE(r->findings));
	f->topic = topic;
	f->verdict = verdict;
	snprintf(f->name, sizeof(f->name), "%s", name);
	va_start(args, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, args);
	va_end(args);
	return f;
}

static void advise(struct finding *f, const char *advice) { snprintf(f->advice, sizeof(f->advice), "%s", advice); }

/* ---- processor ---- */

static void look_at_processor(struct report *r)
{
	struct cpu_model host;
	struct error err = { 0 };

	if (cpu_model_init(&host, "host", true, 1, &err))
		advise(add(r, "cpu", "host", BAD, "%s", err.text), "doppel needs an x86-64 processor that it knows");
	else
		add(r, "cpu", "host", GOOD, "%s, %u CPUs usable", host.brand, host_cpu_count());
	for (const struct cpu_model_info *m = cpu_models; m->name; m++) {
		struct cpu_model model;
		struct finding *f;

		if (!strcmp(m->name, "host"))
			continue;
		if (!cpu_model_init(&model, m->name, true, 1, &err)) {
			add(r, "cpu model", m->name, GOOD, "guests can have it: %s", m->what);
			continue;
		}
		f = add(r, "cpu model", m->name, FAIR, "%s", err.text);
		advise(f, "use --cpu host, or a model with less");
	}
}

/* ---- engines ---- */

static void look_at_kvm(struct report *r)
{
	struct kvm_timing t = { 0 };
	struct error err = { 0 };
	double ratio;
	struct finding *f;

	if (access("/dev/kvm", F_OK)) {
		advise(add(r, "kvm", "timed run", FAIR, "no /dev/kvm"),
		       "nothing is lost now: doppel does not use KVM yet");
		return;
	}
	if (kvm_measure(&t, &err)) {
		advise(add(r, "kvm", "timed run", FAIR, "%s", err.text),
		       err.code == EACCES ? "add yourself to the group that owns /dev/kvm (usually kvm)"
					  : "KVM is of no use on this host");
		return;
	}
	ratio = t.arithmetic_ns / t.native_ns;
	f = add(r, "kvm", "timed run", ratio <= KVM_ARITHMETIC_LIMIT && t.cr3_ns <= KVM_CR3_LIMIT_NS ? GOOD : FAIR,
		"kernel-mode arithmetic %.1f times native time (up to %.0f is good), a CR3 load %.0f ns (up to %.0f is "
		"good)",
		ratio, KVM_ARITHMETIC_LIMIT, t.cr3_ns, KVM_CR3_LIMIT_NS);
	if (f->verdict != GOOD)
		advise(f, "/dev/kvm is there, but something underneath emulates it: slower than doppel without it");
}

static void look_at_engines(struct report *r)
{
	const struct engine_ops *automatic;
	struct engine_options options;
	struct error err = { 0 };

	for (size_t i = 0; engines[i]; i++) {
		bool usable = !engines[i]->probe(&err);

		add(r, "engine", engines[i]->name, usable ? GOOD : FAIR, "%s: %s", usable ? "usable" : "not usable",
		    err.text);
		r->engine_works |= usable;
	}
	automatic = engine_find("auto", &options, &err);
	if (automatic)
		add(r, "engine", "auto", GOOD, "takes %s", automatic->name);
}

/* ---- limits of the host ---- */

/* First line of a file as a number; UINT64_MAX for "max" or what is unreadable: no limit that we know of. */
static uint64_t read_limit(const char *path)
{
	int64_t number = host_proc_number(path);

	return number < 0 ? UINT64_MAX : (uint64_t)number;
}

static void look_at_memory(struct report *r)
{
	uint64_t total = host_memory_total(), limit = read_limit("/sys/fs/cgroup/memory.max");
	struct finding *f;

	if (limit == UINT64_MAX)
		limit = read_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"); /* cgroup version 1 */
	if (limit < total)
		f = add(r, "limit", "memory", GOOD,
			"%" PRIu64 " MiB, of which this control group may use %" PRIu64 " MiB", total >> 20,
			limit >> 20);
	else
		f = add(r, "limit", "memory", GOOD, "%" PRIu64 " MiB", total >> 20);
	if (MIN(total, limit) < 1ull << 30) {
		f->verdict = FAIR;
		advise(f, "keep --memory well below that: a Debian guest needs 256M");
	}
}

static void look_at_mappings(struct report *r)
{
	int64_t maps = host_proc_number("/proc/sys/vm/max_map_count");
	struct finding *f = add(r, "limit", "vm.max_map_count", maps >= 65530 ? GOOD : FAIR,
				"%" PRId64 " mappings a process", maps);

	if (maps < 65530)
		advise(f, "sysctl vm.max_map_count=65530 or more; with fewer, engine bt is slower");
}

/* What limits of this process (ulimit) stand in the way of. Below `enough` it is worth a word; 0: any limit is. */
static const struct process_limit {
	int resource;
	const char *name, *unit;
	rlim_t enough;
	unsigned shift;
	const char *advice;
} process_limits[] = {
	{ RLIMIT_AS, "address space", " MiB", (rlim_t)70 << 40, 20,
	  "ulimit -v unlimited; engine bt needs 5 TiB at least, and 70 TiB for all of its windows" },
	{ RLIMIT_FSIZE, "file size", " MiB", (rlim_t)1 << 40, 20,
	  "ulimit -f unlimited; --memory must be below it, and traces end there" },
	{ RLIMIT_SIGPENDING, "signals pending", "", 256, 0,
	  "ulimit -i 256 or more; each CPU has a timer that takes one" },
	{ RLIMIT_NPROC, "threads of this user", "", 1024, 0, "ulimit -u 1024 or more; each CPU is a thread" },
	{ RLIMIT_NOFILE, "open files", "", 64, 0, "ulimit -n 64 or more" },
};

static void look_at_process_limits(struct report *r)
{
	for (size_t n = 0; n < ARRAY_SIZE(process_limits); n++) {
		const struct process_limit *p = &process_limits[n];
		struct rlimit limit;
		struct finding *f;

		if (getrlimit((__rlimit_resource_t)p->resource, &limit))
			continue;
		if (limit.rlim_cur == RLIM_INFINITY) {
			add(r, "limit", p->name, GOOD, "none");
			continue;
		}
		f = add(r, "limit", p->name, limit.rlim_cur >= p->enough ? GOOD : FAIR, "%" PRIu64 "%s",
			(uint64_t)limit.rlim_cur >> p->shift, p->unit);
		if (f->verdict == FAIR)
			advise(f, p->advice);
	}
}

static void look_at_system_calls(struct report *r)
{
	int fd = memfd_create("doppel-doctor", MFD_CLOEXEC);
	struct finding *f;

	if (fd >= 0) {
		add(r, "system call", "memfd_create", GOOD, "works: guest memory can be shared and mapped twice");
		close(fd);
	} else {
		f = add(r, "system call", "memfd_create", BAD, "%s", strerror(errno));
		advise(f, "allow it in the sandbox's filter: guest memory is made with it");
	}
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */);
	if (fd >= 0) {
		add(r, "system call", "userfaultfd", GOOD, "works for user-mode faults");
		close(fd);
	} else {
		f = add(r, "system call", "userfaultfd", FAIR, "%s", strerror(errno));
		advise(f, "not needed yet: only for lazy restoring and migration, later");
	}
}

/* ---- what kernels and processors differ in ---- */

/* The oldest that doppel is tested with. */
#define KERNEL_MAJOR 5
#define KERNEL_MINOR 10

static void look_at_kernel(struct report *r)
{
	unsigned major = 0, minor = 0;
	struct utsname host;
	struct finding *f;
	bool old;

	if (uname(&host) || sscanf(host.release, "%u.%u", &major, &minor) != 2)
		return;
	old = major < KERNEL_MAJOR || (major == KERNEL_MAJOR && minor < KERNEL_MINOR);
	f = add(r, "host", "kernel", old ? FAIR : GOOD, "Linux %s", host.release);
	if (old)
		advise(f, "older than any that doppel is tested with (5.10)");
}

static void look_at_bases(struct report *r)
{
	if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)
		add(r, "host", "FSGSBASE", GOOD, "there: translated code is entered without a system call");
	else
		advise(add(r, "host", "FSGSBASE", FAIR, "not there, or not allowed by this kernel (Linux 5.9)"),
		       "another address space then costs engine bt a system call");
}

static void look_at_split_locks(struct report *r)
{
	int64_t mitigated = host_proc_number("/proc/sys/kernel/split_lock_mitigate");
	struct finding *f;

	if (!host_detects_split_locks()) {
		add(r, "host", "split locks", GOOD, "allowed");
		return;
	}
	f = add(r, "host", "split locks", mitigated == 0 ? GOOD : FAIR,
		"detected: a guest that locks memory across cache lines %s",
		mitigated == 0 ? "is not slowed down"
			       : "may be slowed down by the host's kernel, some 10 ms each time");
	if (mitigated != 0)
		advise(f, "sysctl kernel.split_lock_mitigate=0, or start the host with split_lock_detect=off");
}

static void look_at_processor_modes(struct report *r)
{
	if (host_cpu_flag("la57"))
		add(r, "host", "5-level paging", GOOD, "there: doppel uses the lower 47 bits, guests have 4 levels");
	if (host_cpu_flag("avx512f") || host_cpu_flag("amx_tile"))
		add(r, "host", "AVX-512, AMX", GOOD, "there: no model offers it to guests");
}

/* The choice in brackets, of a file like "always [madvise] never". */
static void read_choice(const char *path, char *choice, size_t room)
{
	FILE *file = fopen(path, "re");
	char line[128] = "", *from, *to;

	if (!file || !fgets(line, sizeof(line), file))
		line[0] = 0;
	if (file)
		fclose(file);
	from = strchr(line, '[');
	to = from ? strchr(from, ']') : NULL;
	snprintf(choice, room, "%.*s", to ? (int)(to - from - 1) : 7, to ? from + 1 : "unknown");
}

static void look_at_huge_pages(struct report *r)
{
	char own[16], shared[16];

	read_choice("/sys/kernel/mm/transparent_hugepage/enabled", own, sizeof(own));
	read_choice("/sys/kernel/mm/transparent_hugepage/shmem_enabled", shared, sizeof(shared));
	add(r, "host", "huge pages", GOOD, "%s, of shared memory, which guests' is: %s", own, shared);
}

/* ---- output ---- */

static void print_text(const struct report *r)
{
	for (unsigned i = 0; i < r->count; i++) {
		const struct finding *f = &r->findings[i];
		char label[64];

		snprintf(label, sizeof(label), "%s %s", f->topic, f->name);
		printf("%-4s  %-26s %s\n", verdict_names[f->verdict], label, f->text);
		if (*f->advice)
			printf("      %-26s -> %s\n", "", f->advice);
	}
}

static void print_json(const struct report *r)
{
	printf("{\"usable\": %s, \"findings\": [\n", r->engine_works ? "true" : "false");
	for (unsigned i = 0; i < r->count; i++) {
		const struct finding *f = &r->findings[i];

		printf("  {");
		cli_json_member("topic", f->topic, ", ");
		cli_json_member("name", f->name, ", ");
		cli_json_member("verdict", verdict_names[f->verdict], ", ");
		cli_json_member("text", f->text, ", ");
		cli_json_member("advice", f->advice, i + 1 < r->count ? "},\n" : "}\n");
	}
	printf("]}\n");
}

/* ---- the command ---- */

static int set_json(void *target, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	*(bool *)target = true;
	return 0;
}

const struct cli_option doctor_options[] = {
	{ "--json", NULL, "for programs: one JSON object", set_json, NULL, false },
	{ NULL, NULL, NULL, NULL, NULL, false },
};

int command_doctor(int argc, char **argv)
{
	struct report report = { 0 };
	bool json = false;
	int status = cli_parse(cli_find("doctor"), argc, argv, &json);

	if (status)
		return status;
	look_at_processor(&report);
	look_at_engines(&report);
	look_at_kvm(&report);
	look_at_memory(&report);
	look_at_mappings(&report);
	look_at_process_limits(&report);
	look_at_system_calls(&report);
	look_at_kernel(&report);
	look_at_bases(&report);
	look_at_split_locks(&report);
	look_at_processor_modes(&report);
	look_at_huge_pages(&report);
	if (json)
		print_json(&report);
	else
		print_text(&report);
	status = cli_finish_output("doctor");
	if (status)
		return status;
	return report.engine_works ? 0 : EXIT_FAILED;
}
