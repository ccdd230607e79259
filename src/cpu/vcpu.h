/*
 * The vCPU: a processor's state and all that is derived from it, its creation and reset, its faults and events.
 */
#ifndef DOPPEL_CPU_VCPU_H
#define DOPPEL_CPU_VCPU_H

#include "clock/clock.h"
#include "cpu/env.h"
#include "cpu/insn.h"
#include "cpu/model.h"
#include "cpu/regs.h"
#include "mem/mem.h"

#include <setjmp.h>
#include <stdatomic.h>

enum access { ACCESS_READ = 0, ACCESS_WRITE = 1, ACCESS_FETCH = 2 };

struct fault {
	uint8_t vector;
	bool has_error;
	bool freeze; /* none: see cpu_freeze() */
	bool lost;   /* none: see cpu_check_memory() */
	bool soft; /* INT n, INT3, INTO: rip to push is that of the next instruction; already in s.rip by convention */
	uint32_t error;
	uint64_t address; /* CR2 of a page fault */
};

/*
 * Software TLB. The tag of a usable entry is page | asid, where asid (1..TLB_ASIDS-1) stands for an address space: a
 * flush takes a new one. Looking up compares (address + size - 1) & PAGE_MASK | asid, so that an access that leaves the
 * page never hits. View: see enum tlb_view.
 */
#define TLB_BITS  10
#define TLB_SIZE  (1u << TLB_BITS)
#define TLB_ASIDS 4096u

enum tlb_view {
	TLB_USER,      /* CPL 3 */
	TLB_KERNEL,    /* CPL 0..2; no user pages when CR4.SMAP */
	TLB_KERNEL_AC, /* the same with RFLAGS.AC: user pages too */
	TLB_VIEWS
};

struct tlb_entry {
	uint64_t read_tag, write_tag; /* 0: none */
	uint64_t addend;	      /* host address - linear address, modulo 2^64 */
	uint64_t gpa; /* page's guest physical address; in the low bits vcpu.global_tag, 0 if not global */
};

/* Instruction TLB. host is NULL when the page is neither RAM nor ROM. */
#define FETCH_TLB_SIZE	256u
#define FETCHED_BITS	16384u
#define LARGE_PAGE_BITS 2048u
struct fetch_entry {
	uint64_t tag; /* page | asid; 0: none */
	uint64_t gpa; /* as in struct tlb_entry */
	uint8_t *host;
};

/* Address spaces that a CR3 write with the no-flush bit may come back to. space 0: free. */
#define PCID_SLOTS 16
struct pcid_slot {
	uint16_t pcid;
	uint64_t space; /* as vcpu.address_space */
};

struct engine;

/* A direct-mapped statistics row set; see CPU_COUNTERS. */
/* clang-format off */
#define CPU_COUNTERS(_)                                                                                                \
	_(EXIT_HALT, "halts") _(EXIT_KICK, "kicks") _(INTERRUPTS, "interrupts taken") _(NMIS, "NMIs taken")            \
	_(EXCEPTIONS, "exceptions") _(PAGE_FAULTS, "page faults") _(PIO_READS, "port reads")                           \
	_(PIO_WRITES, "port writes") _(MMIO_READS, "device memory reads") _(MMIO_WRITES, "device memory writes")       \
	_(MSR_READS, "RDMSR") _(MSR_WRITES, "WRMSR") _(CPUIDS, "CPUID") _(TLB_MISSES, "TLB misses")                    \
	_(TLB_FLUSHES, "TLB flushes") _(CR3_WRITES, "CR3 writes") _(CODE_WRITES, "writes to code")                     \
	_(BLOCKS, "blocks decoded") _(BLOCK_LOOKUPS, "block lookups past the jump cache") _(EXCLUSIVE, "exclusive sections")
/* clang-format on */

enum cpu_counter {
#define _(id, what) COUNT_##id,
	CPU_COUNTERS(_)
#undef _
		COUNT_COUNT
};

/*
 * Where a debugger outside of the guest has vCPUs stop: stops.c. Of all vCPUs of a machine; changes while they stand still, and cpu_stops_changed()
 * tells them. The guest's debug registers have no part in it, nor has its memory.
 */
#define STOPS_MOST  256
#define WATCH_READ  BIT(0)
#define WATCH_WRITE BIT(1)
struct stops {
	unsigned breakpoint_count, watch_count;
	uint64_t breakpoints[STOPS_MOST]; /* linear addresses of instructions */
	struct watchpoint {
		uint64_t start, size; /* linear; size at least 1, and it does not wrap */
		unsigned kinds;	      /* WATCH_* */
	} watches[STOPS_MOST];
	/*
	 * Offsets in pages at which a breakpoint may be, whichever page: decoded code is cut there, and found anew each time. Those that are
	 * new mean that what was decoded is to be forgotten; any more do no harm.
	 */
	uint64_t cuts[PAGE_SIZE / 64];
};

enum stop_kind {
	STOP_NONE,
	STOP_STEP,	 /* an instruction was executed, or an event delivered */
	STOP_BREAKPOINT, /* the instruction at s.rip has one, and was not begun */
	STOP_WATCH,	 /* the instruction before made the access */
};
/* A vCPU's: what it was told when it was let go, and why it stopped. */
struct stop {
	bool step;		/* stop behind one instruction */
	bool pass;		/* the next instruction's breakpoint does not count */
	bool quiet;		/* no interrupt comes before the next instruction, unless it is waited for */
	uint8_t kind;		/* enum stop_kind */
	bool seen;		/* the debugger's: it was reported */
	uint8_t watch_kinds;	/* STOP_WATCH: of the watch */
	uint64_t watch_address; /* and the first byte accessed in it */
	uint64_t deliveries;	/* private */
};

struct vcpu {
	struct cpu_state s; /* first: engines index registers from here */

	/*
	 * Status flags while an engine runs: as LAHF leaves them in bits 8..15 (SF ZF 0 AF 0 PF 1 CF) and OF in bit 0.
	 * s.rflags has the other flags; its status bits are stale. See cpu_rflags() and cpu_set_rflags().
	 */
	uint16_t status;

	_Atomic uint32_t events; /* EVENT_* */
	int64_t budget;		 /* instructions this vCPU may still run before run() returns EXIT_BUDGET */

	/* derived from s by cpu_update_mode() */
	uint8_t cpl;	    /* 0..3 */
	uint8_t code_mode;  /* enum code_mode */
	uint8_t tlb_view;   /* of data accesses now */
	bool stack_64;	    /* stack pointer size: 8 */
	uint8_t stack_size; /* bytes of the stack pointer: 2, 4, 8 */
	bool flat; /* outside 64-bit mode: CS, DS, ES, SS have base 0, limit 4 GiB, and are usable as what they are */
	uint32_t mode_key;     /* everything about the mode that decoding and block lookup depend on; MODE_KEY_BITS */
	struct tlb_entry *tlb; /* the current view's */
	uint64_t asid;	       /* of the current address space, in tags */

	struct tlb_entry tlbs[TLB_VIEWS][TLB_SIZE];
	uint64_t address_space; /* its number, never used again after a flush: asid is its low bits */
	uint64_t last_space;	/* number given last */
	/*
	 * The same for global translations of the upper half of addresses, which outlive changes of CR3: a number that changes when
	 * any of them may have, and its low bits in entries.
	 */
	uint64_t global_space;
	uint16_t global_tag;
	bool fetched_global; /* the translation that cpu_fetch_translate() returned last is one of them */

	jmp_buf fault_jmp; /* where cpu_raise goes: set by the engine */
	void **fast_catch; /* if not NULL, __builtin_longjmp there instead: for callouts that keep to general registers */
	struct fault fault;	    /* what it raised */
	bool delivering;	    /* an exception is being delivered: faults now are contributory, double or triple */
	struct fault delivered;	    /* which one */
	const struct insn *current; /* the instruction of the callout that runs; NULL outside */
	bool switching; /* its task switch has committed: a fault from here on is the new task's, and s.rip that task's */

	const struct cpu_model *model;
	struct guest_mem *mem;
	struct clock *clock;
	struct trace *trace;
	const struct symbols *symbols; /* of the guest, for traces and profiles; NULL: none are known */
	struct perf_map *perf_map;     /* see engine.h; NULL: none is wanted */
	const struct vcpu_env *env;
	void *env_opaque;    /* the environment's */
	unsigned index;	     /* = initial APIC ID */
	struct vcpu **peers; /* all vCPUs of the machine, this one too */
	unsigned peer_count;

	uint8_t sipi_vector;
	bool interrupt_wanted; /* an interrupt waits for IF: cpu_set_rflags posts EVENT_INTERRUPT when IF rises */

	/*
	 * Host floating-point unit: while fpu_live, the x87/MMX registers, control, status and tags and MXCSR are in this
	 * thread's host unit, and the fields in s are stale: cpu_fpu_save() brings them home, cpu_fpu_load() puts them there.
	 * No code of the monitor that a vCPU thread runs uses x87, MMX or floating-point arithmetic.
	 */
	bool fpu_live;

	struct engine *engine;		/* that of the machine, see engine.h; NULL: none */
	const struct vcpu_hooks *hooks; /* the engine's; never NULL */

	uint64_t count[COUNT_COUNT];

	uint8_t x87_watch; /* X87_*: what the live unit's control and status words ask for; see fpu.c */

	/*
	 * A callout without INSN_ENDS (repeated string instructions and INS/OUTS) sets this when it returns with the instruction
	 * unfinished, so that an event gets its turn: the engine clears it, ends the block and leaves s.rip at the instruction.
	 */
	bool restart;
	bool repeating; /* it is such an instruction that is left: an interrupt taken now pushes RF set (SDM vol. 3B 17.3.1.1) */

	/* paging.c: translations of instruction fetches, [cpl == 3]; filters of what the TLBs may hold */
	struct fetch_entry fetch_tlb[2][FETCH_TLB_SIZE];
	struct tlb_filter {
		uint64_t fetched[FETCHED_BITS / 64]; /* pages fetched from, by number modulo FETCHED_BITS */
		uint64_t large_pages[LARGE_PAGE_BITS /
				     64]; /* 2 MiB regions mapped by large pages, modulo LARGE_PAGE_BITS */
		uint64_t huge_pages;	  /* 1 GiB regions mapped by one page, modulo 64 */
	} tlb_filter[2];		  /* lower, upper half of addresses */
	struct pcid_slot pcids[PCID_SLOTS];
	unsigned next_pcid; /* slot to replace */

	struct mem_listener mem_listener;
	struct mem_pairs *pairs; /* access.c: of operands in two pages */

	/*
	 * access.c: v->tlb points here, where nothing ever is, while every data access must be looked at: alignment checks
	 * (CR0.AM, RFLAGS.AC, CPL 3), data breakpoints, a debugger's watches. tlb_view is still the view that the slow path then uses.
	 */
	struct tlb_entry tlb_never[TLB_SIZE];

	const struct stops *stops; /* NULL: no debugger */
	struct stop stop;

	/* event.c: as they were when the instruction that runs alone began; see cpu_after_step() */
	bool step_trap;	  /* RFLAGS.TF */
	bool step_resume; /* RFLAGS.RF */
	uint64_t step_rip;
	uint64_t step_next;  /* where the instruction ends: the engine says it before it runs it */
	uint8_t step_shadow; /* s.shadow */
};

/* vcpu.mode_key: the last two bits say whether CS has base 0, and no limit. */
#define MODE_KEY_BITS	   11
#define MODE_KEY_PROTECTED BIT(8)
#define MODE_KEY_BASE_0	   BIT(9)
#define MODE_KEY_NO_LIMIT  BIT(10)

#define X87_UNMASKED BIT(0) /* FCW unmasks an exception: look at FSW after every x87 instruction */
#define X87_PENDING  BIT(1) /* FSW.ES: the next waiting x87 or MMX instruction raises #MF */

static inline bool has_feature(const struct vcpu *v, enum cpu_feature f) { return v->model->features[f]; }
static inline bool in_long_mode(const struct vcpu *v) { return v->s.efer & EFER_LMA; }
static inline bool in_protected_mode(const struct vcpu *v) { return (v->s.cr0 & CR0_PE) && !(v->s.rflags & FLAG_VM); }

/* Parts of registers and guest memory, which alias objects of other types. */
typedef uint16_t __attribute__((may_alias, aligned(1))) u16_any;
typedef uint32_t __attribute__((may_alias, aligned(1))) u32_any;
typedef uint64_t __attribute__((may_alias, aligned(1))) u64_any;

/* Register operands by byte offset (struct insn). */
#define REG8(v, off)  (*(uint8_t *)((char *)(v)->s.gpr + (off)))
#define REG16(v, off) (*(u16_any *)((char *)(v)->s.gpr + (off)))
#define REG32(v, off) (*(u32_any *)((char *)(v)->s.gpr + (off)))
#define REG64(v, off) (*(uint64_t *)((char *)(v)->s.gpr + (off)))

/* Read or write a general register operand of 1, 2, 4 or 8 bytes; 4-byte writes clear the upper half. */
static inline uint64_t cpu_reg(const struct vcpu *v, unsigned off, unsigned size)
{
	switch (size) {
	case 1: return REG8(v, off);
	case 2: return REG16(v, off);
	case 4: return REG32(v, off);
	default: return REG64(v, off);
	}
}

static inline void cpu_set_reg(struct vcpu *v, unsigned off, unsigned size, uint64_t value)
{
	switch (size) {
	case 1: REG8(v, off) = (uint8_t)value; break;
	case 2: REG16(v, off) = (uint16_t)value; break;
	case 4: REG64(v, off) = (uint32_t)value; break;
	default: REG64(v, off) = value; break;
	}
}

/*
 * What a vCPU has besides cpu_state that outlives an instruction: events on their way to it, and where it stands in a repeated
 * instruction. Its engine is to be given a cpu_state before or behind.
 */
#define CPU_PENDING_STATE(_, T)                                                                                        \
	_(T, uint32_t, events, 1, 1, 0, UINT32_MAX) /* of EVENTS_SAVED */                                              \
	_(T, uint8_t, sipi_vector, 1, 2, 0, 0xff)                                                                      \
	_(T, bool, repeating, 1, 3, 0, 1)
struct cpu_pending {
	STATE_FIELDS(CPU_PENDING_STATE)
};
extern const struct state_desc *const cpu_pending_desc;
/* While it does not run. */
void cpu_pending_pull(const struct vcpu *, struct cpu_pending *);
void cpu_pending_push(struct vcpu *, const struct cpu_pending *);
/* -EINVAL when a state has something enabled that the vCPU's model has not. */
int cpu_state_offered(const struct vcpu *, const struct cpu_state *, struct error *);

/* state.c: creation, reset, derived state */

/*
 * Allocates (page-aligned, zeroed) and resets. size: of the engine's own struct, which begins with a struct vcpu (engine_ops.vcpu_size).
 * peers and engine are the caller's to fill.
 */
struct vcpu *vcpu_create(size_t size, unsigned index, const struct cpu_model *, struct guest_mem *, struct clock *,
			 struct trace *, const struct vcpu_env *, void *env_opaque, struct error *);
void vcpu_destroy(struct vcpu *);
/* Power-on reset, or INIT (SDM vol. 3A 9.1): INIT keeps x87/SSE state, MTRRs, TSC, CR0.CD/NW, and waits for a SIPI if not the BSP. */
void cpu_reset(struct vcpu *, bool init);
/* Recompute everything derived after CS, SS, CR0, CR4, EFER, RFLAGS.VM/AC, DR7 or CPL changed (outside 64-bit mode DS, ES too). */
void cpu_update_mode(struct vcpu *);
/* Any thread: post events; the vCPU's engine is kicked and its thread woken by the machine (see vcpu.kick). */
static inline void vcpu_post(struct vcpu *v, uint32_t events)
{
	if (atomic_fetch_or(&v->events, events) & events & EVENT_NMI)
		atomic_fetch_or(&v->events, EVENT_NMI_2);
}

uint64_t cpu_rflags(const struct vcpu *); /* all of RFLAGS, status flags included */
void cpu_set_rflags(struct vcpu *,
		    uint64_t rflags); /* all of it; bit 1 set, reserved bits cleared; updates mode and events */
static inline void cpu_set_status(struct vcpu *v, uint64_t f)
{
	v->status = (uint16_t)((f & 0xff) << 8 | 0x200 | ((f >> 11) & 1));
}
static inline uint64_t cpu_status(const struct vcpu *v) /* just the status flags */
{
	return ((v->status >> 8) & 0xd5) | (uint64_t)(v->status & 1) << 11;
}
/* Machine state for a person: registers, segments, control registers, code bytes at RIP if readable. */
void cpu_print(struct vcpu *, FILE *);

/* ---- faults: never return ---- */
_Noreturn void cpu_raise(struct vcpu *, enum vector); /* no error code */
_Noreturn void cpu_raise_error(struct vcpu *, enum vector, uint32_t error);
_Noreturn void cpu_raise_page_fault(struct vcpu *, gva_t, uint32_t error);
/* v->fault once more, where somebody caught it on the way. All raising ends here. */
_Noreturn void cpu_raise_again(struct vcpu *);
/* No fault: the instruction does not begin, and the processor waits for an interrupt before it. */
_Noreturn void cpu_freeze(struct vcpu *);
_Noreturn void cpu_give_up(struct vcpu *);
/*
 * Behind looking for memory, before anything is made of the answer. Returns unless memory is lost (mem_loss()): then the instruction does not run, and the machine
 * has been told to stop; what could not be read is seen by no guest.
 */
static inline void cpu_check_memory(struct vcpu *v)
{
	if (mem_has_lost(v->mem))
		cpu_give_up(v);
}

/*
 * event.c. By convention s.rip is the address of the current instruction when a callout starts. After a callout with
 * INSN_ENDS the callout has set s.rip (cpu_next_rip() if it goes on); after any other the engine advances it.
 * Outside 64-bit mode EIP has 32 bits in 16-bit code too: branches of 16 bits wrap, what runs on meets the segment's limit.
 */
static inline uint64_t cpu_next_rip(const struct vcpu *v, const struct insn *i)
{
	return v->code_mode == MODE_64 ? v->s.rip + i->len : (uint32_t)(v->s.rip + i->len);
}

/*
 * Deliver v->fault, which cpu_raise left there, with s.rip at the faulting instruction: through the IDT, with the double-fault
 * rules (SDM vol. 3A table 6-5). Sets up its own landing place for faults on the way (saving and restoring v->fault_jmp).
 * Returns false on a triple fault (then activity is CPU_SHUTDOWN).
 */
bool cpu_deliver_fault(struct vcpu *);
/* Deliver an external interrupt or NMI likewise, s.rip at the next instruction. */
bool cpu_deliver_interrupt(struct vcpu *, uint8_t vector, bool nmi);

/*
 * Handle v->events between instructions, in the priority of SDM vol. 3A 6.9: INIT, SIPI, debug traps, NMI, interrupts
 * (honouring IF, shadows, activity). Clears the events it handled; EVENT_EXIT, EVENT_EXCLUSIVE and EVENT_CODE are the engine's.
 * Returns false on a triple fault. After it, activity tells whether to run.
 */
bool cpu_handle_events(struct vcpu *);
/*
 * When EVENT_STEP is still set after cpu_handle_events(), the engine runs exactly one instruction and calls this: it ends the
 * interrupt shadow that covered the instruction and finds its debug traps (single step, data breakpoints), which the next
 * cpu_handle_events() delivers. Call it as well after the instruction faulted and the fault was delivered.
 */
void cpu_after_step(struct vcpu *);
/* ---- stops.c ---- */

/* Is decoded code to be cut before this address, linear or physical? */
static inline bool cpu_is_cut(const struct vcpu *v, uint64_t address)
{
	uint64_t offset = address & ~PAGE_MASK;

	return unlikely(v->stops) && v->stops->cuts[offset / 64] >> offset % 64 & 1;
}
/* While it stands still: v->stops, or what it says, is another. */
void cpu_stops_changed(struct vcpu *);
/* While it stands still: what it does when it runs again; the reason of its last stop is forgotten. */
void cpu_stop_let_go(struct vcpu *, bool step, bool pass, bool quiet);
/*
 * For an engine, between instructions. After EVENT_STOP was taken, or when this is true behind cpu_handle_events(), before anything is run at s.rip: run() returns
 * EXIT_DEBUG.
 */
bool cpu_stops_here(struct vcpu *);

/* Is there anything that ends HLT or wait-for-SIPI? Any thread. */
bool cpu_has_work(struct vcpu *);

#endif
