/*
 * cpu: the processor as the manuals define it, whatever engine runs it: architectural state, decoded instructions, page
 * walks and the software TLB, segmentation, exceptions and interrupts, control registers, MSRs, CPUID.
 *
 * The functions of this folder are the one set of semantics of everything that touches the machine. An engine runs them
 * for whatever it does not do itself ("callouts"). SDM = Intel 64 and IA-32 Architectures Software Developer's Manual,
 * APM = AMD64 Architecture Programmer's Manual.
 *
 * Faults: a callout that faults does not return; it calls cpu_raise(), which longjmps to the engine. Hence the rule for
 * every function here: no architectural state is written before the last access that may fault (string instructions
 * write back after each iteration, as the manual says).
 *
 * This is the folder's public header, for all others to include; its parts are for who reads them.
 */
#ifndef DOPPEL_CPU_H
#define DOPPEL_CPU_H

#include "cpu/access.h"
#include "cpu/env.h"
#include "cpu/insn.h"
#include "cpu/model.h"
#include "cpu/regs.h"
#include "cpu/vcpu.h"

/* ---- control registers and MSRs, for instructions and for loaders ---- */
void cpu_write_cr0(struct vcpu *, uint64_t);
void cpu_write_cr3(struct vcpu *, uint64_t);
void cpu_write_cr4(struct vcpu *, uint64_t);
int cpu_read_msr(struct vcpu *, uint32_t msr, uint64_t *); /* 0, or -1: #GP(0) */
int cpu_write_msr(struct vcpu *, uint32_t msr, uint64_t);
struct cpuid_regs cpu_cpuid(struct vcpu *, uint32_t leaf, uint32_t subleaf);
/* The guest's TSC now; v->s.icount must be exact under a virtual clock. */
uint64_t cpu_tsc(struct vcpu *);
/* kvm_pv.c: update the clock page the guest registered; after its MSR was written. */
void cpu_kvm_clock_update(struct vcpu *);

/* ---- fpu.c ---- */
void cpu_fpu_load(struct vcpu *); /* state -> host unit of this thread */
void cpu_fpu_save(struct vcpu *); /* host unit -> state, if live; the host unit is then clean for C code */
/*
 * What precedes each x87 (or MMX) and SSE/AVX instruction: #UD and #NM by CR0.EM/TS/MP, CR4.OSFXSR, OSXSAVE and XCR0. Raises,
 * or returns with fpu_live set.
 */
void cpu_fpu_check_x87(struct vcpu *, bool waiting);
void cpu_fpu_check_mmx(struct vcpu *);
void cpu_fpu_check_sse(struct vcpu *);
void cpu_fpu_check_avx(struct vcpu *);
/*
 * An exception waits (X87_PENDING) and a waiting instruction is about to run: #MF, or with CR0.NE = 0 FERR#, and the instruction does
 * not begin before an interrupt (SDM vol. 1 8.7, D.2.1). Returns only if IGNNE# says to go on nevertheless: then the host's unit
 * may run it between cpu_fpu_hide_pending(), which puts aside what the host would report, and cpu_fpu_show_pending().
 */
void cpu_fpu_report(struct vcpu *);
uint16_t cpu_fpu_hide_pending(struct vcpu *); /* 0: nothing was pending */
void cpu_fpu_show_pending(uint16_t hidden);
/* After x87 instructions that compute: where it was (FIP, FCS, FOP, FDP, FDS). */
void cpu_fpu_note(struct vcpu *, const struct insn *, uint64_t data_offset);
/* After FNINIT. */
void cpu_fpu_clear_pointers(struct vcpu *);
/* After an instruction that changed the live unit's FCW or FSW: sets x87_watch. */
void cpu_fpu_watch(struct vcpu *);
/* XCR0 bits of the components that are not in their initial configuration: XGETBV with ECX = 1 (SDM vol. 1 13.6). */
uint64_t cpu_xinuse(struct vcpu *);

/* ---- system operations by enum op; NULL for those an engine implements ---- */
typedef void cpu_op_fn(struct vcpu *, const struct insn *);
extern cpu_op_fn *const cpu_system_ops[OP_COUNT];
#define _(mnemonic, name, flags) cpu_op_fn op_##name;
CPU_SYSTEM_OPS(_)
#undef _
cpu_op_fn op_mov_sreg, op_push_sreg, op_pop_sreg, op_mov_cr, op_mov_dr, op_jmp_far, op_call_far, op_ret_far;
/* Name of an op, for statistics and traces. */
const char *cpu_op_name(enum op);

#endif
