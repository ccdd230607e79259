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
 * When the interpreter does an instruction for translated code: a hint that linear address lin is used, which may be wrong; makes a window
 * for its slot in the current table if the slot has none, and fills the page if that is allowed. Raises nothing, and sets no accessed or
 * dirty bits: where they are missing the page is not filled.
 */
enum window_result bt_windows_touch(struct bt_windows *, struct vcpu *, uint64_t lin, bool write);
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
	_(evictions, "evictions") _(trims, "host page tables emptied")
/* clang-format on */

struct bt_window_stats {
#define _(field, what) uint64_t field;
	BT_WINDOW_COUNTERS(_)
#undef _
};
void bt_windows_stats(struct bt_windows *, struct bt_window_stats *);

/* ---- emitting (emit.c) ---- */

/* How translated code reaches guest memory. */
enum memory_way {
	BY_WINDOWS,
	/*
	 * By the software TLB that C uses too (cpu/access.h), in line: slower, but what it misses costs no signal and no host mapping.
	 * For code whose address space is too young to be worth windows, and instructions that windows keep failing.
	 */
	BY_TLB,
};

struct tlb_lookup; /* emit_tlb.c */

/* Where code is written: the writable view; the host runs it at exec. */
struct emitter {
	uint8_t *at, *end; /* end: leave EMIT_SLACK free */
	int64_t to_exec;   /* exec address = at + to_exec */
	bool full;	   /* something did not fit: nothing more was written */
	/* The slot that R11 holds the window of: linear base register (0..15) whose value it was computed from, or -1. */
	int window_base;
	/*
	 * While window_base >= 0, emit*.c's own: bit n: register n points into that slot too, or less than EMIT_MAX_DRIFT
	 * beside it; the sum of all distances by which these registers were moved since R11 was computed.
	 */
	uint16_t window_regs;
	uint32_t window_drift;
	enum memory_way way;
	const struct tlb_lookup *tlb_lookup; /* for BY_TLB: ready-made code */
	/* The string instruction that was emitted last, and which pointers it moves. */
	uint8_t *string_at;
	uint8_t string_pointers; /* BT_STRING_* */
	uint32_t
		exit_arg; /* BY_TLB: what the code leaves to C with when the TLB has no entry, for reading; + 1: for writing */
	/*
	 * 16- or 32-bit code: emit32.c. Segments are bits by enum seg: those that may be used up to 4 GiB without a look at
	 * limit and rights, those that may be used for reading and writing up to 64 KiB, and those whose base may be other than 0.
	 */
	bool code32;
	uint8_t plain_segments, wide_segments, based_segments;
	bool stack16;	     /* the stack pointer is SP */
	bool real;	     /* real-address or virtual-8086 mode: a segment's base is its selector times 16 */
	bool no_paging;	     /* real-address mode */
	bool down;	     /* RFLAGS.DF */
	uint32_t code_base;  /* of CS */
	uint32_t code_limit; /* of CS, too */
	/* The rel32 of jumps to where C does the instruction at hand, which that ends its block with. */
	uint8_t *slow[3];
	unsigned slow_count;
	/*
	 * The block may be at any linear address. Its addresses of code are relative to the page it begins in, which is in
	 * bt_frame.code_base. BY_TLB alone.
	 */
	bool anywhere;
};
#define BT_STRING_SOURCE      BIT(0) /* RSI, in R10's window */
#define BT_STRING_DESTINATION BIT(1) /* RDI, in R11's window */
#define BT_STRING_16	      BIT(2) /* SI, DI and CX: the rest of their registers is in bt_frame.string_saved and R12 */

/* With a 32-bit displacement and an operand still inside WINDOW_GUARD. */
#define EMIT_MAX_DRIFT (1u << 30)
#define EMIT_SLACK     64

/* How emit_insn() dealt with an instruction. */
enum emit_result {
	EMIT_DONE,    /* translated; falls through to what follows */
	EMIT_CALLOUT, /* nothing was emitted: the caller lets C do it */
};

/*
 * Translate one instruction that does not end a block (branches are the caller's, see translate.c) at linear
 * address rip. Everything it emits keeps the invariants at the head of this file at every host instruction that may fault:
 * guest registers (as defined above) have the values they had before the guest instruction, so that it can be restarted.
 */
enum emit_result emit_insn(struct emitter *, const struct insn *, const struct insn_host *, uint64_t rip);

/* Pieces that translate.c uses for branches. Host registers are numbered as the guest's. */
void emit_bytes(struct emitter *, const void *, size_t);
/* mov $imm, offset(state), 32 bits; jmp *offset(state). offset: from the start of struct bt_vcpu. */
void emit_set_state(struct emitter *, uint32_t offset, uint32_t imm);
void emit_jump_state(struct emitter *, uint32_t offset);
/* mov reg, imm: the shortest form. */
void emit_mov_imm(struct emitter *, unsigned reg, uint64_t imm);
/* An address of code, or that of a RIP-relative operand, to reg. */
void emit_code_address(struct emitter *, unsigned reg, uint64_t address);
/* State -> reg, 64 bits; and the other way. */
void emit_load_state(struct emitter *, unsigned reg, uint32_t offset);
void emit_store_state(struct emitter *, unsigned reg, uint32_t offset);
/* RCX - 1, or ECX - 1, without flags; w: 64 bits. */
void emit_count_down(struct emitter *, bool w);
/* lea disp(base) -> reg, 64 bits, no flags. */
void emit_lea(struct emitter *, unsigned reg, unsigned base, int32_t disp);
/* Faults if the register's value is not canonical: reads the slot table. R11 is lost. */
void emit_check_canonical(struct emitter *, unsigned reg);
/* Guest memory at disp(base) -> reg, 64 bits. */
void emit_load_guest(struct emitter *, unsigned reg, unsigned base, int32_t disp);
/* The value to -8(RSP), then RSP - 8. A register may be R10. R10 and R11 are lost. */
void emit_push_register(struct emitter *, unsigned reg);
void emit_push_constant(struct emitter *, uint64_t value);
void emit_push_code_address(struct emitter *, uint64_t address);
/* Return address into R10, then RSP moves behind it and `more` bytes. */
void emit_pop_target(struct emitter *, unsigned more);
/*
 * The value of an instruction's only operand (register or memory, e.g. of an indirect JMP or CALL, or the r/m of
 * PUSH) into R10. EMIT_CALLOUT if it cannot.
 */
enum emit_result emit_operand_r10(struct emitter *, const struct insn *, const struct insn_host *, uint64_t rip);
/* The effective address of the instruction's memory operand of 16- or 32-bit code into R10. */
void emit32_effective_r10(struct emitter *, const struct insn *);
/* A return address of 16- or 32-bit code of `size` bytes onto the stack. R12 is kept. */
void emit32_push_constant(struct emitter *, uint32_t value, unsigned size);
/* One from the stack into R10, compared with the limit of CS; then the stack pointer moves behind it and `more` bytes. */
void emit32_pop_target(struct emitter *, unsigned size, unsigned more);
/* R10 is EIP after a near transfer with operands of this size: compared with the limit of CS. R11 is lost. */
void emit32_check_target(struct emitter *, unsigned opsize);
/* R10 is EIP, and becomes an address of code (bt_address()). R11 is lost. */
void emit32_code_address(struct emitter *);
/* jmp/jcc rel32 to an exec address; returns where the rel32 is (writable view), NULL when full. cc: 0..15 as in the opcode, -1 for jmp */
uint8_t *emit_jump(struct emitter *, int cc, const void *exec_target);

/* Makes the code of the TLB's look-up once for each kind of code; NULL: no memory. Freed with free(). */
struct tlb_lookup *bt_tlb_lookup_create(bool code32);

/* The three guest registers that live in memory. */
static inline bool bt_spilled(unsigned reg) { return reg == R10 || reg == R11 || reg == R15; }
#define BT_GPR(reg) ((uint32_t)(offsetof(struct vcpu, s.gpr) + 8 * (reg)))

#endif
