/*
 * Windows: the host addresses at which translated code finds the guest's memory, and the slot tables that lead there (bt.h says how
 * they are used). What they are inside is in window_private.h.
 */
#ifndef DOPPEL_BT_WINDOW_H
#define DOPPEL_BT_WINDOW_H

#include "engine/engine.h"

#define SLOT_SHIFT  39
#define WINDOW_SIZE (1ull << SLOT_SHIFT)
/*
 * Every access adds at most a 32-bit displacement and an operand to an address inside the slot: 4 GiB on either side is
 * more than that can reach.
 */
#define WINDOW_GUARD (4ull << 30)

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

/* What a fault in translated code turned out to be. */
enum window_result {
	WINDOW_FILLED, /* the access will work now: retry */
	WINDOW_SLOW,   /* let the interpreter do this instruction: guest fault, device, code page, another slot ... */
};

/* Is there enough address space for the fewest windows that translated code can run with? */
int bt_windows_probe(struct error *);
/* One a machine: what its engine shares. It outlives the vCPUs. */
struct bt_windows *bt_windows_create(struct guest_mem *, const struct engine_options *, struct error *);
void bt_windows_destroy(struct bt_windows *);
/* bt_limits_create()'s, for all vCPUs. */
uint64_t bt_windows_limits(const struct bt_windows *);

/*
 * The slot table for what v is now: CR3, view (v->tlb_view: user, kernel, kernel with AC); narrow, if that is no 64-bit code.
 * Creates it empty if need be. NULL when translated code must not run in this state (5-level paging, alignment checks or data breakpoints
 * on): then the interpreter goes on.
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

/*
 * Nanoseconds that calls of the host have taken v so far for user windows that were out of date: after flushes what differs from the guest's
 * tables is unmapped or protected, which may take longer than the program's own work.
 */
uint64_t bt_windows_churn(struct bt_windows *, const struct vcpu *);
/* v's address space, of long mode, gives its windows of user addresses up. v is not in translated code. */
void bt_windows_shed(struct bt_windows *, struct vcpu *);

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

#endif
