/*
 * Private to the translator, engine `bt`: guest code becomes host code that runs with the guest's registers in the host's. What
 * follows is said of 64-bit code; for 16- and 32-bit code see emit32.c.
 *
 * Registers while translated code runs:
 *   - all general registers but R10, R11, R15 hold the guest's (RSP too: nothing of the host's may be pushed);
 *   - the guest's R10, R11, R15 are in vcpu.s.gpr[];
 *   - R15 = slot table + 39 (struct slot_table), R10 and R11 are scratch;
 *   - GS base = the vCPU: state is addressed as %gs:offset (struct bt_vcpu);
 *   - status flags are the host's; DF is 0, TF is 0, AC is 0; the guest's other flags are in vcpu.s.rflags;
 *   - x87, MMX, YMM and MXCSR are the guest's.
 *
 * Memory: the 48-bit linear space is 512 slots of 512 GiB. A slot that is in use has a window: 512 GiB of the host's address
 * space with guard zones of WINDOW_GUARD around, into which guest pages are mapped as they are touched. A translated access is
 *
 *	sarx  ea, r15, r11		r11 = slot number, sign-extended (the count is r15 mod 64 = 39)
 *	mov   -39(r15,r11,8), r11	r11 = window's host address minus the slot's linear address
 *	op    disp(ea,r11)
 *
 * What no window maps gives SIGSEGV: the handler fills the window, or ends in bt_fault(), which has the interpreter run
 * that one instruction.
 */
#ifndef DOPPEL_BT_H
#define DOPPEL_BT_H

#include "engine/engine.h"

#define SLOT_SHIFT  39
#define WINDOW_SIZE (1ull << SLOT_SHIFT)
/*
 * Every access adds at most a 32-bit displacement and an operand to an address inside the slot: 4 GiB on either side is
 * more than that can reach.
 */
#define WINDOW_GUARD (4ull << 30)

/* What translated code reaches by %gs:, besides the registers. */
struct bt_frame {
	void *self;			 /* this vCPU */
	uint64_t tsc_native, tsc_offset; /* see clock_tsc_native(); 0: C reads the time */
	uint64_t host_rsp;		 /* of the C code that entered translated code */
	uint64_t resume;		 /* where to enter it */
	uint64_t r11;			 /* R11 to enter with */
	uint64_t exit_arg;		 /* why it was left */
	uint64_t target; /* a computed target that was not found; a linear address that the TLB has no entry for */
	uint64_t call;	 /* an indirect call's target while the return address is pushed */
	uint64_t value;	 /* what is pushed while its place is looked up */
	uint32_t x87;	 /* the x87 instruction executed last, as an exit argument; 0: what s.fip etc. say is right */
	uint64_t jump;	 /* the current jump table, or the one where nothing is found */
	uint64_t code_base; /* linear page of the block that runs, if it may be anywhere */
	uint64_t x87_base;  /* the same when `x87` was set */
	uint32_t x87_data;  /* 1 + segment of the x87 memory operand met last; 0: what s.fds says is right */
	/* 16- and 32-bit code, see limits.c: of the segments ES to GS; of CS for EIP; of 64 KiB; of the vector table */
	uint64_t read_limit[6], write_limit[6], code_limit, wrap_limit, idt_limit;
	uint64_t string_saved[2]; /* ESI and EDI while a 16-bit string instruction has the host's pointers there */
	void *fast_glue;
	void *exit_glue; /* bt_exit_*, bt_miss: too far away for a direct jump */
	void *miss_glue;
	void *reload_glue;
};

struct bt_cpu;

/* A vCPU of this engine: GS base points here while translated code runs. */
struct bt_vcpu {
	struct vcpu v; /* first */
	/* R15 of translated code: the current slot table. A cache line begins here. */
	_Alignas(64) uint64_t slot_r15;
	struct bt_frame frame;
	struct bt_cpu *bt;
};
static inline struct bt_vcpu *bt_vcpu(const struct vcpu *v) { return (struct bt_vcpu *)(uintptr_t)v; }
static inline struct bt_frame *bt_frame(const struct vcpu *v) { return &bt_vcpu(v)->frame; }
static inline struct bt_cpu *bt_of(const struct vcpu *v) { return bt_vcpu(v)->bt; }

/* ---- slot tables (window.c) ---- */

/*
 * Entry n (-256..255, as SARX leaves it) of a slot table: what is added to a linear address of slot n. Absent slots hold
 * an offset that leads into a reserved, never mapped window. The table lies in the middle of 256 MiB of reserved address
 * space, since the slot number of a non-canonical address has 25 bits: looking it up faults.
 */
struct slot_table {
	int64_t *entry;	     /* entry[-256..255] */
	uint64_t r15;	     /* (uintptr_t)entry + 39 */
	_Atomic bool narrow; /* slot 0 may be used by 16- and 32-bit code: see window_narrow() */
};

struct bt_windows; /* a machine's: shared by its vCPUs */

#define BT_LIMITS_REACH (4ull << 30) /* offsets have 32 bits */
#define BT_LIMITS_SIZE	(2 * BT_LIMITS_REACH + WINDOW_GUARD)
/* What limits of segments are compared with (limits.c): the boundary between what can be read and what cannot. 0: not enough address space. */
uint64_t bt_limits_create(struct error *);
void bt_limits_destroy(uint64_t boundary);

/* What a fault in translated code turned out to be. */
enum window_result {
	WINDOW_FILLED, /* the access will work now: retry */
	WINDOW_SLOW,   /* let the interpreter do this instruction: guest fault, device, code page, another slot ... */
};

/* Is there enough address space for the fewest windows that translated code can run with? */
int bt_windows_probe(struct error *);
/* One a machine: the first vCPU creates it, the last one destroys it. */
struct bt_windows *bt_windows_create(struct guest_mem *, const struct engine_options *, struct error *);
void bt_windows_destroy(struct bt_windows *);
/* bt_limits_create()'s, for all vCPUs. */
uint64_t bt_windows_limits(const struct bt_windows *);

/*
 * The slot table for what v is now: CR3, view (v->tlb_view: user, kernel, kernel with AC); narrow, if that is no 64-bit code.
 * Creates it empty if need be.
 * NULL when translated code must not run in this state (paging off, not 4-level, alignment checks or data
 * breakpoints on): then the interpreter goes on.
 */
const struct slot_table *bt_windows_table(struct bt_windows *, struct vcpu *);

/*
 * v is outside translated code until it asks for a table again: before it waits, and before run() returns. Windows that are given
 * a new meaning wait for vCPUs that are neither outside nor have asked for a table since.
 */
void bt_windows_leave(struct bt_windows *, struct vcpu *);

/*
 * In the SIGSEGV handler of v's thread (translated code only, never inside C code): host address `at` was accessed. Uses only
 * async-signal-safe calls.
 */
enum window_result bt_windows_fault(struct bt_windows *, struct vcpu *, uint64_t at, bool write);

/*
 * The interpreter is about to do an instruction for translated code: a hint that linear address lin is used, which may be wrong. Behind the
 * instruction bt_windows_fill_missed() makes a window for its slot in the current table if the slot has none, and fills the page if that is
 * allowed, which it is if the access came about. If it raised a page fault instead, that is tried when a table is asked for in this view again: by
 * then the guest may have put the page there. Both raise nothing, and set no accessed or dirty bits: where they are missing the page is not filled.
 */
void bt_windows_missed(struct bt_windows *, struct vcpu *, uint64_t lin, bool write);
enum window_result bt_windows_fill_missed(struct bt_windows *, struct vcpu *);
/*
 * Which linear address an access to host address `at` was to. Where it went to an absent slot's window, that is known within the slot
 * only, and *lin, a guess, has to agree. False: not known.
 */
bool bt_windows_accessed(struct bt_windows *, uint64_t at, uint64_t *lin);

/*
 * v's address space is worth windows from now on: map the user pages that it has used, in few calls of the host and in about a
 * millisecond at most. v is not in translated code; it may be in any view.
 */
void bt_windows_graduate(struct bt_windows *, struct vcpu *);

/*
 * The address space that v is in is young: its user addresses are not mapped into windows, accesses to them are WINDOW_SLOW. After
 * each bt_windows_table() that followed a change of CR3.
 */
void bt_windows_young(struct bt_windows *, struct vcpu *, bool young);

/* TLB maintenance of v: the tlb_ of vcpu_hooks. */
extern const struct vcpu_hooks bt_window_hooks;

/* (field, what it counts) */
/* clang-format off */
#define BT_WINDOW_COUNTERS(_)                                                                                          \
	_(windows, "in use now") _(spaces, "address spaces now") _(mappings, "host mappings now")                      \
	_(faults, "faults looked at") _(slow, "not filled") _(fills, "fills") _(pages_filled, "pages filled")          \
	_(pages_dropped, "pages dropped") _(revalidations, "comparisons with the guest's tables")                      \
	_(walks, "walks of the guest's tables") _(evictions, "evictions") _(trims, "host page tables emptied")
/* clang-format on */

struct bt_window_stats {
#define _(field, what) uint64_t field;
	BT_WINDOW_COUNTERS(_)
#undef _
};
void bt_windows_stats(struct bt_windows *, struct bt_window_stats *);

/* The three guest registers that live in memory. */
static inline bool bt_spilled(unsigned reg) { return reg == R10 || reg == R11 || reg == R15; }
#define BT_GPR(reg) ((uint32_t)(offsetof(struct vcpu, s.gpr) + 8 * (reg)))

#endif
