/*
 * engine: what executes a vCPU's instructions, behind one ops struct. All that a machine knows of an engine is here.
 */
#ifndef DOPPEL_ENGINE_H
#define DOPPEL_ENGINE_H

#include "cpu/cpu.h"

/*
 * Why run() returned. Device accesses are not exits: they are calls through vcpu->env in the middle of an instruction, because
 * one instruction may make several.
 */
enum exit_kind {
	EXIT_HALT,     /* activity is not CPU_RUNNING and nothing is pending: sleep until there is */
	EXIT_KICK,     /* EVENT_EXIT or EVENT_EXCLUSIVE was posted */
	EXIT_BUDGET,   /* vcpu->budget is used up */
	EXIT_SHUTDOWN, /* triple fault */
	EXIT_DEBUG,    /* vcpu->stop.kind: the debugger's turn */
	EXIT_ERROR,    /* the engine cannot go on; see struct exit */
};

struct exit {
	struct error error; /* EXIT_ERROR */
};

/*
 * What can be chosen about how an engine works, for finding its mistakes: written behind its name, with commas. Rows: engine,
 * option, what its value may be, least, most, default, what it is for. A range of 0 to 1 is written off or on. Rows of `all` are
 * of every engine: each has the interpreter in it.
 */
/* clang-format off */
#define ENGINE_OPTIONS(_)                                                                                              \
	_(all, stubs, "64 to 12288", 64, 12288, 12288, "kinds of vector and x87 instructions that a CPU keeps host code for") \
	_(all, arena, "8 to 32768", 8, 32768, 32768, "KiB of decoded blocks that a CPU keeps")                         \
	_(bt, block, "1 to 64", 1, 64, 64, "instructions in a translated block at most")                               \
	_(bt, link, "on or off", 0, 1, 1, "whether translated blocks lead to each other without the loop in between")  \
	_(bt, tlb, "0 to 2", 0, 2, 1, "memory by the software TLB: 0 as little as possible, 1 for young address spaces, 2 all") \
	_(bt, cache, "1 to 512", 1, 512, 104, "MiB of translated code, and of what is known about it, that a CPU keeps") \
	_(bt, blocks, "8 to 2097152", 8, 2097152, 2097152, "translated blocks that a CPU keeps at most")               \
	_(bt, tables, "1 to 16", 1, 16, 16, "jump tables, each of a mode and address space, that a CPU keeps")         \
	_(bt, windows, "8 to 128", 8, 128, 128, "512 GiB windows onto guest memory at most")                           \
	_(bt, mappings, "1024 to 1000000", 1024, 1000000, 1000000, "host mappings in them at most, where the host allows so many")
/* clang-format on */

struct engine_options {
#define _(engine, name, values, least, most, by_default, what) unsigned name;
	ENGINE_OPTIONS(_)
#undef _
};
extern const struct engine_options engine_defaults;

struct engine;

/* What an engine can do, beyond running guests. */
#define ENGINE_COUNTS	     BIT(0) /* vcpu.s.icount and vcpu.budget are exact, whatever the clock */
#define ENGINE_VIRTUAL_CLOCK BIT(1) /* they are under CLOCK_VIRTUAL: it can drive that */
#define ENGINE_TLB_ALONE                                                                                               \
	BIT(2) /* guest memory is written by the software TLB only: vcpu_hooks.tlb_writable sees every such page */

struct engine_ops {
	const char *name, *what;
	unsigned can; /* ENGINE_* */
	/* Of its own struct for a vCPU, which begins with struct vcpu: what vcpu_create() is given. */
	size_t vcpu_size;
	const struct vcpu_hooks *hooks;
	/* Can this host run it, and how well? 0 or -errno; in both cases err->text has a sentence for `doppel doctor`. */
	int (*probe)(struct error *);
	/* What all vCPUs of a machine share, engine->shared: before the first is created, behind the last one. NULL: nothing. */
	int (*open)(struct engine *, struct error *);
	void (*close)(struct engine *);
	/* Per vCPU, in the creating thread; reads vcpu->engine. destroy() is called only for what was created. */
	int (*create)(struct vcpu *, struct error *);
	void (*destroy)(struct vcpu *);
	/*
	 * In the vCPU's thread only. EVENT_EXCLUSIVE ends it only when it has executed an instruction or delivered an event since it was
	 * called: so a guest gets on however often it is stopped.
	 */
	enum exit_kind (*run)(struct vcpu *, struct exit *);
	/* Any thread, async-signal-safe: make run() look at vcpu->events soon. */
	void (*kick)(struct vcpu *);
	/* Engine's state -> architectural state and back; vCPU stopped. Copies all of cpu_state, floating point included. */
	int (*pull)(struct vcpu *, struct cpu_state *);
	int (*push)(struct vcpu *, const struct cpu_state *);
	/* Guest code or tables changed under it by other means than this vCPU's stores; vCPU stopped. */
	void (*invalidate)(struct vcpu *, gpa_t, size_t);
	/* Engine's own lines of --stats. */
	void (*stats)(struct vcpu *, FILE *);
};

extern const struct engine_ops interp_engine, bt_engine;

/* table.c: NULL-terminated, best last; "auto" takes the best whose probe succeeds. */
extern const struct engine_ops *const engines[];
/* "NAME[,OPTION=VALUE]...": NULL and -EINVAL in err->code for what there is not. */
const struct engine_ops *engine_find(const char *spec, struct engine_options *, struct error *);

/* ---- a machine's engine: one for all of its vCPUs ---- */

struct engine {
	const struct engine_ops *ops;
	struct engine_options options;
	struct guest_mem *mem;
	void *shared; /* the engine's own: what all vCPUs have in common */
};
/* The engine is the caller's, and outlives its vCPUs; mem outlives it. options are copied. */
int engine_open(struct engine *, const struct engine_ops *, const struct engine_options *, struct guest_mem *,
		struct error *);
void engine_close(struct engine *);
/* The vCPU, made with ops->vcpu_size and in nobody's thread yet, is run by it from now on. On error it has no engine, as before. */
int engine_add_vcpu(struct engine *, struct vcpu *, struct error *);
void engine_remove_vcpu(struct vcpu *);
static inline const struct engine_options *engine_options_of(const struct vcpu *v)
{
	return v->engine ? &v->engine->options : &engine_defaults;
}

/* ---- perf_map.c: what generated code is, for profilers ---- */

struct perf_map;
/* /tmp/perf-PID.map; NULL on error. It stays when it is closed: profiles are looked at later. */
struct perf_map *perf_map_open(struct error *);
/* Any thread; NULL does nothing. The code at start is the guest's at rip, in v's present mode; nothing else ever was there or will be. */
void perf_map_add(struct perf_map *, const void *start, size_t size, const struct vcpu *v, uint64_t rip);
void perf_map_close(struct perf_map *);
/* "k64:do_syscall_64+0x10" or "u32:0x8048000": privilege, code size, and a symbol or the linear address. Returns name. */
const char *guest_code_name(const struct vcpu *v, uint64_t rip, char *name, size_t size);

/* ---- kvm/probe.c: whether KVM runs kernel-mode code at speed, found by running some ---- */

struct kvm_timing {
	double native_ns;     /* an iteration of a loop of plain arithmetic, in this process */
	double arithmetic_ns; /* the same in a guest's ring 0 */
	double cr3_ns;	      /* a guest's reload of CR3 */
};
/* Beyond these a hypervisor underneath emulates or traps what the processor should do. */
#define KVM_ARITHMETIC_LIMIT 3.0 /* times native */
#define KVM_CR3_LIMIT_NS     2000.0
/* Takes milliseconds, at most some seconds. 0, or -errno when it does not work at all. */
int kvm_measure(struct kvm_timing *, struct error *);

#endif
