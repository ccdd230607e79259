/*
 * Registers and their bits, vectors and error codes, and the architectural state as a whole: with the names of the manuals.
 */
#ifndef DOPPEL_CPU_REGS_H
#define DOPPEL_CPU_REGS_H

#include "base/base.h"
#include "state/state.h"

enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
#define REG_NONE 16 /* cpu_state.zero: an absent base or index */
#define REG_IP	 17 /* cpu_state.ip_base: base of RIP-relative operands, see struct insn */

/* In the order of the Sreg field, then the two system segments. */
enum seg { ES, CS, SS, DS, FS, GS, LDTR, TR, SEG_COUNT };

/* RFLAGS, SDM vol. 1 3.4.3 */
#define FLAG_CF	     BIT(0)
#define FLAG_PF	     BIT(2)
#define FLAG_AF	     BIT(4)
#define FLAG_ZF	     BIT(6)
#define FLAG_SF	     BIT(7)
#define FLAG_TF	     BIT(8)
#define FLAG_IF	     BIT(9)
#define FLAG_DF	     BIT(10)
#define FLAG_OF	     BIT(11)
#define FLAG_IOPL    (3ull << 12)
#define FLAG_NT	     BIT(14)
#define FLAG_RF	     BIT(16)
#define FLAG_VM	     BIT(17)
#define FLAG_AC	     BIT(18)
#define FLAG_VIF     BIT(19)
#define FLAG_VIP     BIT(20)
#define FLAG_ID	     BIT(21)
#define FLAGS_STATUS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

/* MAXPHYADDR: what CPUID 0x80000008 says, page walks and MTRR masks check. */
#define CPU_PHYS_BITS 40
#define CPU_PHYS_MASK (BIT(CPU_PHYS_BITS) - 1)

/* A page-table entry of any format; the same bits in all of them. SDM vol. 3A 4.3 to 4.5 */
#define PTE_P  BIT(0)
#define PTE_W  BIT(1)
#define PTE_U  BIT(2)
#define PTE_A  BIT(5)
#define PTE_D  BIT(6)
#define PTE_PS BIT(7)
#define PTE_G  BIT(8)
#define PTE_NX BIT(63)
/* The address in one of 8 bytes; what is beyond MAXPHYADDR of it is reserved, and refused before it is used. */
#define PTE_FRAME (BIT(52) - BIT(12))

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR4_VME	       BIT(0)
#define CR4_PVI	       BIT(1)
#define CR4_TSD	       BIT(2)
#define CR4_DE	       BIT(3)
#define CR4_PSE	       BIT(4)
#define CR4_PAE	       BIT(5)
#define CR4_MCE	       BIT(6)
#define CR4_PGE	       BIT(7)
#define CR4_PCE	       BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_LA57       BIT(12)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)
#define CR4_PKE	       BIT(22)

#define EFER_SCE    BIT(0)
#define EFER_LME    BIT(8)
#define EFER_LMA    BIT(10)
#define EFER_NXE    BIT(11)
#define EFER_AIBRSE BIT(21) /* AMD: automatic IBRS */

#define XCR0_X87 BIT(0)
#define XCR0_SSE BIT(1)
#define XCR0_AVX BIT(2)

/* seg_attr: bits 8..23 of a descriptor's second dword shifted down: access byte in 0..7, flags in 12..15. */
#define ATTR_TYPE	 0x000f
#define ATTR_ACCESSED	 0x0001
#define ATTR_WRITABLE	 0x0002 /* data: writable; code: readable */
#define ATTR_EXPAND_DOWN 0x0004 /* data; code: conforming */
#define ATTR_CODE	 0x0008
#define ATTR_S		 0x0010 /* code or data, not a system segment */
#define ATTR_DPL	 0x0060
#define ATTR_DPL_SHIFT	 5
#define ATTR_P		 0x0080
#define ATTR_AVL	 0x1000
#define ATTR_L		 0x2000
#define ATTR_DB		 0x4000
#define ATTR_G		 0x8000
/* A null or unusable segment has seg_attr 0 (P clear). */

/* Exceptions, SDM vol. 3A 6.3.1 */
enum vector {
	EXC_DE = 0,
	EXC_DB = 1,
	EXC_NMI = 2,
	EXC_BP = 3,
	EXC_OF = 4,
	EXC_BR = 5,
	EXC_UD = 6,
	EXC_NM = 7,
	EXC_DF = 8,
	EXC_TS = 10,
	EXC_NP = 11,
	EXC_SS = 12,
	EXC_GP = 13,
	EXC_PF = 14,
	EXC_MF = 16,
	EXC_AC = 17,
	EXC_MC = 18,
	EXC_XM = 19,
};

/* Page-fault error code, SDM vol. 3A 4.7 */
#define PF_P	BIT(0)
#define PF_W	BIT(1)
#define PF_U	BIT(2)
#define PF_RSVD BIT(3)
#define PF_I	BIT(4)

enum activity { CPU_RUNNING, CPU_HALTED, CPU_WAIT_SIPI, CPU_SHUTDOWN };

/*
 * The architectural state: what a snapshot holds, what engines pull and push. Values are those after power-on reset
 * (SDM vol. 3A table 9-1). Columns as in state.h.
 */
/* clang-format off */
#define CPU_STATE(_, T)                                                                                                \
	_(T, uint64_t, gpr, 16, 1, 0, UINT64_MAX)                                                                      \
	_(T, uint64_t, zero, 1, 2, 0, 0)		 /* gpr-indexed slot REG_NONE: always 0 */                     \
	_(T, uint64_t, ip_base, 1, 3, 0, UINT64_MAX)	 /* gpr-indexed slot REG_IP: see struct insn */                \
	_(T, uint64_t, rip, 1, 4, 0xfff0, UINT64_MAX)                                                                  \
	_(T, uint64_t, rflags, 1, 5, 2, 0x3fffff)	 /* status flags: see cpu_rflags() */                          \
	_(T, uint16_t, seg_sel, 8, 6, 0, 0xffff)                                                                       \
	_(T, uint64_t, seg_base, 8, 7, 0, UINT64_MAX)                                                                  \
	_(T, uint32_t, seg_limit, 8, 8, 0xffff, UINT32_MAX) /* in bytes, granularity applied */                        \
	_(T, uint16_t, seg_attr, 8, 9, 0, 0xffff)                                                                      \
	_(T, uint64_t, gdtr_base, 1, 10, 0, UINT64_MAX)                                                                \
	_(T, uint16_t, gdtr_limit, 1, 11, 0xffff, 0xffff)                                                              \
	_(T, uint64_t, idtr_base, 1, 12, 0, UINT64_MAX)                                                                \
	_(T, uint16_t, idtr_limit, 1, 13, 0xffff, 0xffff)                                                              \
	_(T, uint64_t, cr0, 1, 14, 0x60000010, UINT32_MAX)                                                             \
	_(T, uint64_t, cr2, 1, 15, 0, UINT64_MAX)                                                                      \
	_(T, uint64_t, cr3, 1, 16, 0, UINT64_MAX)                                                                      \
	_(T, uint64_t, cr4, 1, 17, 0, UINT32_MAX)                                                                      \
	_(T, uint64_t, efer, 1, 18, 0, UINT32_MAX)                                                                     \
	_(T, uint64_t, xcr0, 1, 19, 1, UINT64_MAX)                                                                     \
	_(T, uint64_t, dr, 8, 20, 0, UINT64_MAX)	 /* 6 and 7 are set by cpu_reset() */                          \
	_(T, uint64_t, pdpte, 4, 21, 0, UINT64_MAX)	 /* PAE paging: loaded with CR3 */                             \
	_(T, uint64_t, msr_star, 1, 22, 0, UINT64_MAX)                                                                 \
	_(T, uint64_t, msr_lstar, 1, 23, 0, UINT64_MAX)                                                                \
	_(T, uint64_t, msr_cstar, 1, 24, 0, UINT64_MAX)                                                                \
	_(T, uint64_t, msr_fmask, 1, 25, 0, UINT64_MAX)                                                                \
	_(T, uint64_t, msr_kernel_gs_base, 1, 26, 0, UINT64_MAX)                                                       \
	_(T, uint64_t, msr_sysenter_cs, 1, 27, 0, UINT64_MAX)                                                          \
	_(T, uint64_t, msr_sysenter_esp, 1, 28, 0, UINT64_MAX)                                                         \
	_(T, uint64_t, msr_sysenter_eip, 1, 29, 0, UINT64_MAX)                                                         \
	_(T, uint64_t, msr_tsc_aux, 1, 30, 0, UINT32_MAX)                                                              \
	_(T, uint64_t, tsc_offset, 1, 31, 0, UINT64_MAX) /* guest TSC - clock_tsc() */                                \
	_(T, uint64_t, msr_tsc_adjust, 1, 32, 0, UINT64_MAX)                                                           \
	_(T, uint64_t, msr_pat, 1, 33, 0x0007040600070406, UINT64_MAX)                                                 \
	_(T, uint64_t, msr_misc_enable, 1, 34, 1, UINT64_MAX)                                                          \
	_(T, uint64_t, msr_debugctl, 1, 35, 0, UINT64_MAX)                                                             \
	_(T, uint64_t, mtrr_def_type, 1, 36, 0, UINT64_MAX)                                                            \
	_(T, uint64_t, mtrr_fixed, 11, 37, 0, UINT64_MAX)                                                              \
	_(T, uint64_t, mtrr_var, 16, 38, 0, UINT64_MAX)	 /* 8 pairs of base, mask */                                   \
	_(T, uint64_t, mcg_status, 1, 39, 0, UINT64_MAX)                                                               \
	_(T, uint64_t, kvm_system_time, 1, 40, 0, UINT64_MAX)                                                          \
	_(T, uint64_t, kvm_wall_clock, 1, 41, 0, UINT64_MAX)                                                           \
	_(T, uint64_t, kvm_pv_eoi, 1, 42, 0, UINT64_MAX)                                                               \
	_(T, uint64_t, kvm_poll_control, 1, 43, 1, UINT64_MAX)                                                         \
	_(T, uint64_t, msr_spec_ctrl, 1, 44, 0, 0x403)                                                                 \
	/* XMM/YMM: 4 quadwords a register, low first */                                                               \
	_(T, uint64_t, vec, 64, 50, 0, UINT64_MAX)                                                                     \
	_(T, uint32_t, mxcsr, 1, 51, 0x1f80, 0xffff)                                                                   \
	/* x87, physical registers as FSAVE orders them: st_*[i] is ST(i) */                                           \
	_(T, uint64_t, st_mantissa, 8, 52, 0, UINT64_MAX)                                                              \
	_(T, uint16_t, st_exponent, 8, 53, 0, 0xffff)                                                                  \
	_(T, uint16_t, fcw, 1, 54, 0x40, 0xffff)                                                                       \
	_(T, uint16_t, fsw, 1, 55, 0, 0xffff)                                                                          \
	_(T, uint16_t, ftw, 1, 56, 0x5555, 0xffff)	 /* full 2-bit tags, physical order */                         \
	_(T, uint16_t, fop, 1, 57, 0, 0x7ff)                                                                           \
	_(T, uint16_t, fcs, 1, 58, 0, 0xffff)                                                                          \
	_(T, uint16_t, fds, 1, 59, 0, 0xffff)                                                                          \
	_(T, uint64_t, fip, 1, 60, 0, UINT64_MAX)                                                                      \
	_(T, uint64_t, fdp, 1, 61, 0, UINT64_MAX)                                                                      \
	/* what the manuals call state between instructions */                                                         \
	_(T, uint8_t, activity, 1, 70, CPU_RUNNING, CPU_SHUTDOWN)                                                      \
	_(T, uint8_t, nmi_blocked, 1, 71, 0, 1)		 /* until the next IRET */                                     \
	_(T, uint8_t, nmi_pending, 1, 72, 0, 2)		 /* how many */                                                \
	_(T, uint8_t, shadow, 1, 73, 0, 2)		 /* enum shadow */                                             \
	_(T, uint64_t, pending_debug, 1, 74, 0, UINT64_MAX) /* DR6 bits of a debug trap due after this instruction */  \
	_(T, uint64_t, icount, 1, 75, 0, UINT64_MAX)	 /* instructions completed since power-on */                   \
	_(T, uint8_t, ferr, 1, 76, 0, 1)		 /* FERR# is asserted: an x87 error waits with CR0.NE = 0 */
/* clang-format on */

/* Interrupts are held off for one instruction after STI (interrupts) and after loads of SS (debug traps too). */
enum shadow { SHADOW_NONE, SHADOW_STI, SHADOW_MOV_SS };

struct cpu_state {
	STATE_FIELDS(CPU_STATE)
};
extern const struct state_desc *const cpu_state_desc;

/* Of linear addresses with four levels of paging. */
static inline bool is_canonical(uint64_t a) { return (uint64_t)sign_extend(a, 48) == a; }

#endif
