/*
 * fpu: what the files of the floating-point unit share: fpu.c (the live unit), fpu_env.c (FNSTENV, FNSAVE and back)
 * and xsave.c (FXSAVE, XSAVE and back).
 */
#ifndef DOPPEL_CPU_FPU_H
#define DOPPEL_CPU_FPU_H

#include "cpu/cpu.h"

#define MXCSR_DEFAULT  0x1f80u
#define MXCSR_MASK     0xffffu /* bits that may be set; others: #GP(0) */
#define FCW_DEFAULT    0x37f
#define FSW_ES	       BIT(7)
#define FSW_BUSY       BIT(15)
#define FSW_EXCEPTIONS 0x80ff /* IE to PE, stack fault, and their summaries ES and B */
#define TAGS_EMPTY     0xffff

/* The 512 bytes of FXSAVE64 (SDM vol. 1 table 10-2); 4 bytes of FCS or FDS follow the pointers in the 32-bit form. */
struct fxsave_image {
	uint16_t fcw, fsw;
	uint8_t tags; /* one bit a physical register: not empty */
	uint8_t reserved;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	struct {
		uint64_t mantissa;
		uint16_t exponent;
		uint8_t reserved[6];
	} st[8];
	uint64_t xmm[16][2];
	uint8_t software[96];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct fxsave_image) == 512, "SDM vol. 1 table 10-2");

/* Bring the state up to date; the unit stays live. */
void fpu_sync(struct vcpu *);
/* One bit a register <-> two bits a register, by the registers' contents (SDM vol. 1 10.5.1.1). */
uint8_t fpu_short_tags(uint16_t tags);
uint16_t fpu_full_tags(const struct cpu_state *, uint8_t short_tags);
/*
 * Are the last instruction's opcode and pointers part of what FXSAVE and XSAVE store, and of XINUSE? With AMD's processors only
 * while an unmasked exception waits, else they count as zeros (APM vol. 2 11.4.4); with Intel's always.
 */
bool fpu_keeps_pointers(const struct vcpu *);
/* #NM by CR0.EM and CR0.TS: what FXSAVE and FXRSTOR ask. */
void fpu_check_available(struct vcpu *, uint64_t cr0_bits);

#endif
