/*
 * host_exec: execution of MMX, SSE, AVX and x87 instructions by the host's own instruction, and the vector instructions
 * that touch memory by elements. The interpreter's other files need the first part only.
 */
#ifndef DOPPEL_INTERP_HOST_EXEC_H
#define DOPPEL_INTERP_HOST_EXEC_H

#include "engine/interp/vcpu.h"

/*
 * host.c. Once per vCPU, before it runs: room for stubs, and the process's handlers of SIGFPE
 * and SIGILL, which turn the host's exceptions in stubs into the guest's.
 */
int interp_host_init(struct vcpu *, struct error *);
void interp_host_destroy(struct vcpu *);
/* This thread is going to run this vCPU: at the start of each run(); and does so no more: at its end. */
void interp_host_enter(struct vcpu *);
void interp_host_leave(struct vcpu *);
/*
 * Stubs live until interp_host_reset() forgets them all and advances the epoch, which begins with 1: whoever keeps instructions with
 * an aux of interp_host_prepare() keeps the epoch beside them, and makes them again when it has passed.
 */
bool interp_host_has_room(const struct vcpu *, unsigned stubs);
uint64_t interp_host_epoch(const struct vcpu *);
void interp_host_reset(struct vcpu *);
/* Sets aux of an INSN_HOST instruction for interp_host_run(). There is room for its stub. */
void interp_host_prepare(struct vcpu *, struct insn *, const struct insn_host *);

/*
 * The host's processor does not execute this instruction, whatever it and the CPU model say of it: #UD in the guest, at s.rip or
 * v->current, and one warning a vCPU.
 */
_Noreturn void interp_host_refuse(struct vcpu *, const struct insn *);

/* Run one instruction, s.rip at it; may raise; does not touch rip. */
void interp_host_run(struct vcpu *, const struct insn *);
/* simd_memory.c: OP_GATHER, OP_MASKMOV, OP_VZERO */
void interp_gather(struct vcpu *, const struct insn *);
void interp_maskmov(struct vcpu *, const struct insn *);
void interp_vzero(struct vcpu *, const struct insn *);

/* ---- private to host.c and host_stub.c ---- */

/* Generated code: the vCPU in rdi, the memory operand's host address in rsi. */
typedef void host_stub_fn(struct vcpu *, void *);

/* Room that one stub needs at most: eight vector registers in and out, flags, three general registers. */
#define HOST_STUB_MAX 320

/*
 * The instruction as a stub executes it: prefixes in canonical order, memory operand (%rsi), explicit general register
 * %rcx. What this leaves out (which general register) is in the key beside it.
 */
struct host_key {
	uint8_t bytes[15];
	uint8_t len;
	uint8_t gpr;	   /* the explicit general register, 0 if none */
	uint8_t code_mode; /* MODE_16 may be real mode, where VEX is #UD whatever the control registers say */
};

void host_key_make(struct host_key *, const struct vcpu *, const struct insn *, const struct insn_host *);
/* Writes the stub's code, at most HOST_STUB_MAX bytes; returns its end. */
uint8_t *host_stub_emit(uint8_t *, const struct host_key *, const struct insn_host *);

#endif
