/*
 * Private to the translator, engine `bt`: guest code becomes host code that runs with the guest's registers in the host's. What
 * follows is said of 64-bit code; for 16- and 32-bit code see emit32.c.
 *
 * Registers while translated code runs:
 *   - all general registers but R10, R11, R15 hold the guest's (RSP too: nothing of the host's may be pushed);
 *   - the guest's R10, R11, R15 are in vcpu.s.gpr[];
 *   - R15 = slot table + 39 (struct slot_table), R10 and R11 are scratch, and keep windows meanwhile (struct emit_window);
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
 * What no window maps gives SIGSEGV: the handler fills the window, or leaves translated code, and the interpreter runs that one
 * instruction.
 */
#ifndef DOPPEL_BT_H
#define DOPPEL_BT_H

#include "engine/bt/window.h"
#include "engine/interp/interp.h"

/* What translated code reaches by %gs:, besides the registers. */
struct bt_frame {
	void *self;			 /* this vCPU */
	uint64_t tsc_native, tsc_offset; /* see clock_tsc_native(); 0: C reads the time */
	uint64_t host_rsp;		 /* of the C code that entered translated code */
	uint64_t resume;		 /* where to enter it */
	uint64_t r11, r10;		 /* R11 and R10 to enter with */
	uint64_t exit_arg;		 /* why it was left */
	uint64_t return_rip, return_rsp; /* of bt_return() */
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
	struct interp_vcpu interp; /* first: what is not translated runs by it */
	/* R15 of translated code: the current slot table. A cache line begins here. */
	_Alignas(64) uint64_t slot_r15;
	struct bt_frame frame;
	struct bt_cpu *bt;
};
static inline struct bt_vcpu *bt_vcpu(const struct vcpu *v) { return (struct bt_vcpu *)(uintptr_t)v; }
static inline struct bt_frame *bt_frame(const struct vcpu *v) { return &bt_vcpu(v)->frame; }
static inline struct bt_cpu *bt_of(const struct vcpu *v) { return bt_vcpu(v)->bt; }

/* The three guest registers that live in memory. */
static inline bool bt_spilled(unsigned reg) { return reg == R10 || reg == R11 || reg == R15; }
#define BT_GPR(reg) ((uint32_t)(offsetof(struct vcpu, s.gpr) + 8 * (reg)))

/* ---- limits.c ---- */

#define BT_LIMITS_REACH (4ull << 30) /* offsets have 32 bits */
#define BT_LIMITS_SIZE	(2 * BT_LIMITS_REACH + WINDOW_GUARD)
/* What limits of segments are compared with: the boundary between what can be read and what cannot. 0: not enough address space. */
uint64_t bt_limits_create(struct error *);
void bt_limits_destroy(uint64_t boundary);

#endif
