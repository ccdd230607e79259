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
 */
#ifndef DOPPEL_CPU_H
#define DOPPEL_CPU_H

#include "base/base.h"
#include "clock/clock.h"
#include "mem/mem.h"
#include "state/state.h"

#include <setjmp.h>
#include <stdatomic.h>

/* ---- registers and their bits ---- */

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
struct vcpu;
/* While it does not run. */
void cpu_pending_pull(const struct vcpu *, struct cpu_pending *);
void cpu_pending_push(struct vcpu *, const struct cpu_pending *);
/* -EINVAL when a state has something enabled that the vCPU's model has not. */
int cpu_state_offered(const struct vcpu *, const struct cpu_state *, struct error *);

/* ---- processor models ---- */

/*
 * CPUID as the guest sees it. Everything that depends on a feature asks has_feature(): decoding (#UD), CR4 and XCR0
 * reserved bits, MSRs (#GP). Rows: (name, leaf, subleaf, register, bit); register 0..3 = EAX, EBX, ECX, EDX. The names are what
 * --cpu takes. Leaf IN_ARCH_CAPABILITIES: a bit of that MSR.
 */
#define IN_ARCH_CAPABILITIES 0x10a
/* clang-format off */
#define CPU_FEATURES(_)                                                                                                \
	_(FPU, 1, 0, 3, 0) _(VME, 1, 0, 3, 1) _(DE, 1, 0, 3, 2) _(PSE, 1, 0, 3, 3) _(TSC, 1, 0, 3, 4)                  \
	_(MSR, 1, 0, 3, 5) _(PAE, 1, 0, 3, 6) _(MCE, 1, 0, 3, 7) _(CX8, 1, 0, 3, 8) _(APIC, 1, 0, 3, 9)                \
	_(SEP, 1, 0, 3, 11) _(MTRR, 1, 0, 3, 12) _(PGE, 1, 0, 3, 13) _(MCA, 1, 0, 3, 14) _(CMOV, 1, 0, 3, 15)          \
	_(PAT, 1, 0, 3, 16) _(PSE36, 1, 0, 3, 17) _(CLFSH, 1, 0, 3, 19) _(MMX, 1, 0, 3, 23) _(FXSR, 1, 0, 3, 24)       \
	_(SSE, 1, 0, 3, 25) _(SSE2, 1, 0, 3, 26) _(HTT, 1, 0, 3, 28)                                                   \
	_(SSE3, 1, 0, 2, 0) _(PCLMULQDQ, 1, 0, 2, 1) _(MONITOR, 1, 0, 2, 3) _(SSSE3, 1, 0, 2, 9) _(FMA, 1, 0, 2, 12)   \
	_(CX16, 1, 0, 2, 13) _(PCID, 1, 0, 2, 17) _(SSE41, 1, 0, 2, 19) _(SSE42, 1, 0, 2, 20) _(X2APIC, 1, 0, 2, 21)   \
	_(MOVBE, 1, 0, 2, 22) _(POPCNT, 1, 0, 2, 23) _(TSC_DEADLINE, 1, 0, 2, 24) _(AES, 1, 0, 2, 25)                  \
	_(XSAVE, 1, 0, 2, 26) _(OSXSAVE, 1, 0, 2, 27) _(AVX, 1, 0, 2, 28) _(F16C, 1, 0, 2, 29) _(RDRAND, 1, 0, 2, 30)  \
	_(HYPERVISOR, 1, 0, 2, 31)                                                                                     \
	_(FSGSBASE, 7, 0, 1, 0) _(TSC_ADJUST, 7, 0, 1, 1) _(BMI1, 7, 0, 1, 3) _(AVX2, 7, 0, 1, 5) _(SMEP, 7, 0, 1, 7)  \
	_(BMI2, 7, 0, 1, 8) _(ERMS, 7, 0, 1, 9) _(INVPCID, 7, 0, 1, 10) _(RDSEED, 7, 0, 1, 18) _(ADX, 7, 0, 1, 19)     \
	_(SMAP, 7, 0, 1, 20) _(CLFLUSHOPT, 7, 0, 1, 23) _(CLWB, 7, 0, 1, 24) _(SHA, 7, 0, 1, 29)                       \
	_(UMIP, 7, 0, 2, 2) _(VAES, 7, 0, 2, 9) _(VPCLMULQDQ, 7, 0, 2, 10) _(RDPID, 7, 0, 2, 22) _(FSRM, 7, 0, 3, 4)   \
	_(XSAVEOPT, 0xd, 1, 0, 0) _(XSAVEC, 0xd, 1, 0, 1) _(XGETBV1, 0xd, 1, 0, 2)                                     \
	_(SYSCALL, 0x80000001, 0, 3, 11) _(NX, 0x80000001, 0, 3, 20) _(PDPE1GB, 0x80000001, 0, 3, 26)                  \
	_(RDTSCP, 0x80000001, 0, 3, 27) _(LM, 0x80000001, 0, 3, 29) _(LAHF64, 0x80000001, 0, 2, 0)                     \
	_(ABM, 0x80000001, 0, 2, 5) _(PREFETCHW, 0x80000001, 0, 2, 8) _(INVTSC, 0x80000007, 0, 3, 8)                   \
	/* defences against speculation, and what needs none: see docs/fidelity.md */                                  \
	_(MD_CLEAR, 7, 0, 3, 10) _(SPEC_CTRL, 7, 0, 3, 26) _(ARCH_CAPABILITIES, 7, 0, 3, 29) _(BHI_CTRL, 7, 2, 3, 4)   \
	_(AMD_SSB_NO, 0x80000008, 0, 1, 26) _(BTC_NO, 0x80000008, 0, 1, 29) _(VERW_CLEAR, 0x80000021, 0, 0, 5)         \
	_(AUTO_IBRS, 0x80000021, 0, 0, 8) _(SRSO_NO, 0x80000021, 0, 0, 29) _(TSA_SQ_NO, 0x80000021, 0, 2, 1)           \
	_(TSA_L1_NO, 0x80000021, 0, 2, 2)                                                                              \
	_(RDCL_NO, IN_ARCH_CAPABILITIES, 0, 0, 0) _(IBRS_ALL, IN_ARCH_CAPABILITIES, 0, 0, 1)                           \
	_(SKIP_L1DFL, IN_ARCH_CAPABILITIES, 0, 0, 3) _(SSB_NO, IN_ARCH_CAPABILITIES, 0, 0, 4)                          \
	_(MDS_NO, IN_ARCH_CAPABILITIES, 0, 0, 5) _(PSCHANGE_MC_NO, IN_ARCH_CAPABILITIES, 0, 0, 6)                      \
	_(TAA_NO, IN_ARCH_CAPABILITIES, 0, 0, 8) _(SBDR_SSDP_NO, IN_ARCH_CAPABILITIES, 0, 0, 13)                       \
	_(FBSDP_NO, IN_ARCH_CAPABILITIES, 0, 0, 14) _(PSDP_NO, IN_ARCH_CAPABILITIES, 0, 0, 15)                         \
	_(BHI_NO, IN_ARCH_CAPABILITIES, 0, 0, 20) _(PBRSB_NO, IN_ARCH_CAPABILITIES, 0, 0, 24)                          \
	_(GDS_NO, IN_ARCH_CAPABILITIES, 0, 0, 26) _(RFDS_NO, IN_ARCH_CAPABILITIES, 0, 0, 27)                           \
	_(ITS_NO, IN_ARCH_CAPABILITIES, 0, 0, 62)
/* clang-format on */

enum cpu_feature {
#define _(name, leaf, sub, reg, bit) FEATURE_##name,
	CPU_FEATURES(_)
#undef _
		FEATURE_COUNT
};

struct cpuid_regs {
	uint32_t eax, ebx, ecx, edx;
};

struct cpu_model {
	char name[16]; /* "v2", "v3", "host" */
	char vendor[13];
	char brand[49];
	uint32_t signature; /* CPUID.1:EAX */
	bool kvm_pv;	    /* announce KVM's paravirtual interface (not --pure) */
	unsigned cpu_count;
	bool features[FEATURE_COUNT];
};

/*
 * Fill a model from NAME[,+FLAG|,-FLAG]..., the flags by their names in CPU_FEATURES. -EINVAL with the list of names for an unknown
 * model, and for flags that are unknown, not doppel's to give, not to be missed, of the other vendor, or without what they need;
 * -ENOTSUP when this host lacks an instruction set that is promised and that doppel executes with the host's own instructions.
 */
int cpu_model_init(struct cpu_model *, const char *spec, bool pure, unsigned cpu_count, struct error *);
/*
 * Vendors differ in SYSCALL and SYSENTER of compatibility mode, model-specific registers, CPUID leaves, breakpoints behind MOV SS. All
 * others are Intel's kind.
 */
static inline bool is_amd(const struct cpu_model *m)
{
	return !memcmp(m->vendor, "AuthenticAMD", 12) || !memcmp(m->vendor, "HygonGenuine", 12);
}

/* Names for help, NULL-terminated, with a line of description each. */
struct cpu_model_info {
	const char *name, *what;
};
extern const struct cpu_model_info cpu_models[];
/* Has the host's processor, and its system where that must take part, this feature? */
bool cpu_host_has(enum cpu_feature);
const char *cpu_feature_name(enum cpu_feature);

/* ---- decoded instructions ---- */

/*
 * Instructions whose semantics live in this folder, called by any engine through cpu_system_ops[]. The first column is
 * the mnemonic (as Zydis spells it), the second the function op_<name>, the third INSN_* flags.
 */
/* clang-format off */
#define CPU_SYSTEM_OPS(_)                                                                                              \
	/* far.c: far transfers, software interrupts, fast system calls */                                             \
	_(INT, int_n, INSN_ENDS) _(INT1, int1, INSN_ENDS) _(INT3, int3, INSN_ENDS) _(INTO, into, INSN_ENDS)            \
	_(IRET, iret, INSN_ENDS) _(IRETD, iret, INSN_ENDS) _(IRETQ, iret, INSN_ENDS)                                   \
	_(SYSCALL, syscall, INSN_ENDS) _(SYSRET, sysret, INSN_ENDS)                                                    \
	_(SYSENTER, sysenter, INSN_ENDS) _(SYSEXIT, sysexit, INSN_ENDS)                                                \
	/* segment.c */                                                                                                \
	_(LDS, load_far_pointer, INSN_ENDS) _(LES, load_far_pointer, INSN_ENDS) _(LFS, load_far_pointer, INSN_ENDS)    \
	_(LGS, load_far_pointer, INSN_ENDS) _(LSS, load_far_pointer, INSN_ENDS)                                        \
	_(LGDT, lgdt, INSN_ENDS) _(LIDT, lidt, INSN_ENDS) _(SGDT, sgdt, 0) _(SIDT, sidt, 0)                            \
	_(LLDT, lldt, INSN_ENDS) _(LTR, ltr, INSN_ENDS) _(SLDT, sldt, 0) _(STR, str, 0)                                \
	_(LAR, lar, 0) _(LSL, lsl, 0) _(VERR, verr, 0) _(VERW, verw, 0) _(ARPL, arpl, 0)                               \
	_(SWAPGS, swapgs, 0) _(RDFSBASE, rdfsbase, 0) _(RDGSBASE, rdgsbase, 0)                                         \
	_(WRFSBASE, wrfsbase, 0) _(WRGSBASE, wrgsbase, 0)                                                              \
	/* control.c: control and debug registers, flags that matter to the machine */                                 \
	_(LMSW, lmsw, INSN_ENDS) _(SMSW, smsw, 0) _(CLTS, clts, INSN_ENDS)                                             \
	_(INVLPG, invlpg, INSN_ENDS) _(INVPCID, invpcid, INSN_ENDS) _(INVD, invd, 0) _(WBINVD, wbinvd, 0)              \
	_(CLI, cli, INSN_ENDS) _(STI, sti, INSN_ENDS) _(CLAC, clac, INSN_ENDS) _(STAC, stac, INSN_ENDS)                \
	_(PUSHF, pushf, 0) _(PUSHFD, pushf, 0) _(PUSHFQ, pushf, 0)                                                     \
	_(POPF, popf, INSN_ENDS) _(POPFD, popf, INSN_ENDS) _(POPFQ, popf, INSN_ENDS)                                   \
	_(HLT, hlt, INSN_ENDS) _(MONITOR, monitor, 0) _(MWAIT, mwait, INSN_ENDS)                                       \
	_(XGETBV, xgetbv, 0) _(XSETBV, xsetbv, INSN_ENDS) _(RSM, ud, INSN_ENDS)                                        \
	/* msr.c, cpuid.c */                                                                                           \
	_(RDMSR, rdmsr, INSN_TIME) _(WRMSR, wrmsr, INSN_ENDS) _(RDTSC, rdtsc, INSN_TIME) _(RDTSCP, rdtscp, INSN_TIME)  \
	_(RDPMC, rdpmc, INSN_TIME) _(RDPID, rdpid, 0) _(CPUID, cpuid, INSN_ENDS)                                       \
	_(RDRAND, rdrand, INSN_TIME) _(RDSEED, rdseed, INSN_TIME)                                                                      \
	/* kvm_pv.c: hypercalls */                                                                                     \
	_(VMCALL, hypercall, 0) _(VMMCALL, hypercall, 0)                                                               \
	/* io.c */                                                                                                     \
	_(IN, in, INSN_IO) _(OUT, out, INSN_IO) _(INSB, ins, INSN_IO) _(INSW, ins, INSN_IO) _(INSD, ins, INSN_IO)      \
	_(OUTSB, outs, INSN_IO) _(OUTSW, outs, INSN_IO) _(OUTSD, outs, INSN_IO)                                        \
	/* string.c: size from insn.opsize, address size from insn.addrsize */                                         \
	_(MOVSB, movs, 0) _(MOVSW, movs, 0) _(MOVSQ, movs, 0)                                                          \
	_(STOSB, stos, 0) _(STOSW, stos, 0) _(STOSD, stos, 0) _(STOSQ, stos, 0)                                        \
	_(LODSB, lods, 0) _(LODSW, lods, 0) _(LODSD, lods, 0) _(LODSQ, lods, 0)                                        \
	_(CMPSB, cmps, 0) _(CMPSW, cmps, 0) _(CMPSQ, cmps, 0)                                                          \
	_(SCASB, scas, 0) _(SCASW, scas, 0) _(SCASD, scas, 0) _(SCASQ, scas, 0)                                        \
	/* fpu.c: state of the floating-point unit */                                                                  \
	_(FXSAVE, fxsave, 0) _(FXSAVE64, fxsave, 0) _(FXRSTOR, fxrstor, 0) _(FXRSTOR64, fxrstor, 0)                    \
	_(XSAVE, xsave, 0) _(XSAVE64, xsave, 0) _(XSAVEC, xsavec, 0) _(XSAVEC64, xsavec, 0)                            \
	_(XSAVEOPT, xsaveopt, 0) _(XSAVEOPT64, xsaveopt, 0) _(XRSTOR, xrstor, 0) _(XRSTOR64, xrstor, 0)                \
	_(LDMXCSR, ldmxcsr, 0) _(VLDMXCSR, ldmxcsr, 0) _(STMXCSR, stmxcsr, 0) _(VSTMXCSR, stmxcsr, 0)                  \
	_(FNSAVE, fnsave, 0) _(FRSTOR, frstor, 0) _(FNSTENV, fnstenv, 0) _(FLDENV, fldenv, 0)                          \
	_(FWAIT, fwait, 0) _(EMMS, emms, 0)
/* clang-format on */

#define INSN_LOCK   BIT(0)  /* LOCK prefix, on a memory destination */
#define INSN_REP    BIT(1)  /* F3 */
#define INSN_REPNE  BIT(2)  /* F2 */
#define INSN_MEM    BIT(3)  /* has a memory operand (base, index, scale, disp, seg, addrsize) */
#define INSN_ENDS   BIT(4)  /* ends a block: sets rip or changes what later instructions mean */
#define INSN_IO	    BIT(5)  /* may reach a device */
#define INSN_TIME   BIT(6)  /* reads guest time or the instruction count: counters must be exact */
#define INSN_SYSTEM BIT(7)  /* run by cpu_system_ops[op] */
#define INSN_HOST   BIT(8)  /* MMX, SSE, AVX or x87 computation, done by the host's own instruction */
#define INSN_RIPREL BIT(9)  /* the memory operand is RIP-relative: base is REG_IP */
#define INSN_FAR    BIT(10) /* JMP, CALL or RET to another code segment */
#define INSN_VEX    BIT(12) /* VEX-encoded: undefined in real and virtual-8086 mode, whatever the code segment's size */
#define INSN_FAR_IP BIT(11) /* RIP-relative, near 2 GiB: the displacement is 4 GiB more than disp, see insn_disp() */

/* Everything else that decoding can yield: what an engine implements itself. */
/* clang-format off */
#define CPU_INTEGER_OPS(_)                                                                                             \
	_(ADD) _(ADC) _(AND) _(OR) _(XOR) _(SUB) _(SBB) _(CMP) _(TEST) _(INC) _(DEC) _(NEG) _(NOT) _(MUL) _(IMUL)      \
	_(DIV) _(IDIV) _(MOV) _(MOVZX) _(MOVSX) _(MOVSXD) _(LEA) _(XCHG) _(XADD) _(CMPXCHG) _(CMPXCHG8B)               \
	_(CMPXCHG16B) _(PUSH) _(POP) _(PUSHA) _(PUSHAD) _(POPA) _(POPAD) _(ENTER) _(LEAVE) _(CALL) _(RET) _(JMP)       \
	_(JO) _(JNO) _(JB) _(JNB) _(JZ) _(JNZ) _(JBE) _(JNBE) _(JS) _(JNS) _(JP) _(JNP) _(JL) _(JNL) _(JLE) _(JNLE)    \
	_(JCXZ) _(JECXZ) _(JRCXZ) _(LOOP) _(LOOPE) _(LOOPNE)                                                           \
	_(SETO) _(SETNO) _(SETB) _(SETNB) _(SETZ) _(SETNZ) _(SETBE) _(SETNBE)                                          \
	_(SETS) _(SETNS) _(SETP) _(SETNP) _(SETL) _(SETNL) _(SETLE) _(SETNLE)                                          \
	_(CMOVO) _(CMOVNO) _(CMOVB) _(CMOVNB) _(CMOVZ) _(CMOVNZ) _(CMOVBE) _(CMOVNBE)                                  \
	_(CMOVS) _(CMOVNS) _(CMOVP) _(CMOVNP) _(CMOVL) _(CMOVNL) _(CMOVLE) _(CMOVNLE)                                  \
	_(ROL) _(ROR) _(RCL) _(RCR) _(SHL) _(SHR) _(SAR) _(SHLD) _(SHRD)                                               \
	_(BT) _(BTS) _(BTR) _(BTC) _(BSF) _(BSR) _(TZCNT) _(LZCNT) _(POPCNT) _(BSWAP) _(MOVBE) _(CRC32)                \
	_(ANDN) _(BEXTR) _(BLSI) _(BLSMSK) _(BLSR) _(BZHI) _(MULX) _(PDEP) _(PEXT) _(RORX) _(SARX) _(SHLX) _(SHRX)     \
	_(ADCX) _(ADOX) _(CBW) _(CWDE) _(CDQE) _(CWD) _(CDQ) _(CQO) _(CLC) _(STC) _(CMC) _(CLD) _(STD)                 \
	_(LAHF) _(SAHF) _(NOP) _(PAUSE) _(LFENCE) _(MFENCE) _(SFENCE) _(CLFLUSH) _(CLFLUSHOPT) _(CLWB)                 \
	_(PREFETCH) _(PREFETCHW) _(PREFETCHNTA) _(PREFETCHT0) _(PREFETCHT1) _(PREFETCHT2) _(MOVNTI)                    \
	_(XLAT) _(SALC) _(AAA) _(AAS) _(AAD) _(AAM) _(DAA) _(DAS) _(BOUND) _(UD0) _(UD1) _(UD2)                        \
	_(ENDBR32) _(ENDBR64)
/* clang-format on */

enum op {
	OP_INVALID,  /* #UD */
	OP_TOO_LONG, /* over 15 bytes: #GP(0) */
	/* mnemonics that mean two instructions */
	OP_MOVSD_STRING,
	OP_CMPSD_STRING, /* MOVSD, CMPSD of the string kind; run by op_movs, op_cmps */
	OP_MOV_SREG,	 /* MOV to or from a segment register: op_mov_sreg */
	OP_PUSH_SREG,
	OP_POP_SREG, /* op_push_sreg, op_pop_sreg */
	OP_MOV_CR,
	OP_MOV_DR, /* op_mov_cr, op_mov_dr */
	OP_JMP_FAR,
	OP_CALL_FAR,
	OP_RET_FAR, /* op_jmp_far, op_call_far, op_ret_far */
	OP_HOST,    /* INSN_HOST: see struct insn_host */
	OP_GATHER,  /* VPGATHER*, VGATHER* */
	OP_MASKMOV, /* VMASKMOV*, VPMASKMOV*, MASKMOVDQU, MASKMOVQ */
	OP_VZERO,   /* VZEROUPPER, VZEROALL: imm 0 or 1 */
#define _(mnemonic, ...) OP_##mnemonic,
	CPU_SYSTEM_OPS(_) CPU_INTEGER_OPS(_)
#undef _
		OP_COUNT
};

/* How an instruction's explicit operands are laid out in struct insn. */
enum form {
	FORM_NONE,  /* no explicit operands (implicit ones as the manual says) */
	FORM_R,	    /* reg */
	FORM_M,	    /* memory */
	FORM_I,	    /* imm */
	FORM_RR,    /* reg, rm: both registers, reg is the first operand whatever the encoding */
	FORM_RI,    /* reg, imm */
	FORM_RM,    /* reg, memory */
	FORM_MR,    /* memory, reg */
	FORM_MI,    /* memory, imm */
	FORM_RRI,   /* reg, rm, imm */
	FORM_RMI,   /* reg, memory, imm */
	FORM_MRI,   /* memory, reg, imm */
	FORM_RRR,   /* reg, rm, reg2: three registers in the order written */
	FORM_RRM,   /* reg, reg2, memory  (e.g. ANDN, MULX, PDEP: second operand VEX.vvvv) */
	FORM_RMR,   /* reg, memory, reg2  (e.g. BEXTR, SHLX) */
	FORM_HOST,  /* see struct insn_host */
	FORM_OTHER, /* e.g. far pointers (imm = selector << 32 | offset), ENTER (imm = size | nesting << 16) */
};

/*
 * An instruction, decoded. Engine-neutral but for `handler` and `aux`. Registers are byte offsets from
 * cpu_state.gpr[0]: 8 * number, plus 1 for AH, CH, DH, BH. The implicit CL count of shifts is FORM_RR/FORM_MR with reg/rm 8.
 */
struct insn {
	const void *handler; /* the engine's */
	const void *aux;     /* the engine's */
	uint64_t imm;	     /* sign-extended to 64 bits; for direct branches the displacement; moffs: the address */
	int32_t disp;	     /* sign-extended; RIP-relative: relative to ip_base, i.e. disp + offset + len */
	uint16_t op;	     /* enum op */
	uint16_t offset;     /* of the first byte from the start of the block */
	uint16_t flags;	     /* INSN_* */
	uint8_t len;	     /* 1..15 */
	uint8_t form;	     /* enum form */
	uint8_t opsize;	     /* bytes of the (first) operand: 1, 2, 4, 8, 16, 32; memory operand size for LEA-like: 0 */
	uint8_t srcsize; /* bytes of the source of MOVZX, MOVSX, MOVSXD, CRC32, of a far pointer's offset; else opsize */
	uint8_t addrsize;      /* 2, 4, 8 */
	uint8_t seg;	       /* enum seg of the memory operand, defaults applied */
	uint8_t reg, rm, reg2; /* byte offsets */
	uint8_t base, index;   /* byte offsets; 8 * REG_NONE when absent */
	uint8_t scale;	       /* shift: 0..3 */
	uint8_t sreg;	       /* segment, control or debug register number of the MOV/PUSH/POP/L?S forms */
	uint8_t ea_flat;       /* 1: effective address is base + (index << scale) + disp, 64-bit, no segment base */
	uint8_t bytes[15];
	uint8_t store; /* MOV_SREG, MOV_CR, MOV_DR: 1 when the special register is the source */
};

/*
 * How an instruction is encoded and which registers it uses: for engines that run it with the host's own instruction. Filled on
 * request by decoding, for all but string instructions.
 */
struct insn_host {
	uint16_t vec_read, vec_written; /* bit n: XMM/YMM n */
	bool x87, mmx;			/* touches that unit; MMX registers alias ST mantissas */
	bool vex;			/* VEX-encoded: a written register is zeroed above the result */
	bool wide;			/* some operand has 256 bits */
	bool writes_flags;		/* COMISS, PTEST, FCOMI, PCMPISTRI...: the status flags; the rest are kept */
	bool reads_flags;		/* FCMOVcc */
	uint16_t gpr_read, gpr_written; /* bit n: general registers, explicit and implicit, without address registers */
	uint8_t gpr_place;		/* explicit one's field: 0 none, 1 ModRM.reg, 2 ModRM.rm */
	uint8_t mem_size;		/* bytes; 0 without a memory operand */
	bool mem_read, mem_written;
	uint8_t mem_align;	       /* bytes of alignment required on pain of #GP(0), else 1 */
	uint8_t prefix_len;	       /* legacy prefixes before REX/VEX/opcode */
	uint8_t modrm_offset;	       /* 0: no ModRM */
	uint8_t disp_offset, disp_len; /* displacement bytes, to be cut out */
	uint8_t imm_offset, imm_len;
	bool control;	   /* x87: FNINIT, FLDCW, FNSTCW, FNCLEX, FNSTSW...: does not set FIP/FDP/FOP */
	bool initial;	   /* FNINIT: clears them */
	bool waiting;	   /* x87/MMX: a pending unmasked exception is reported first (#MF) */
	uint16_t mnemonic; /* of the decoding library: for messages and tables only */
};

/* Code segment's mode, and what else decoding depends on. */
enum code_mode { MODE_16, MODE_32, MODE_64 };

struct cpu_model;

/*
 * Decode one instruction from `avail` bytes. Returns its length, or 0 when avail bytes are too few to tell (never when
 * avail >= 15). Undefined encodings and instructions that the model does not offer yield OP_INVALID with length 1 or more.
 * block_offset: offset of this instruction from the block's start, for RIP-relative operands. flat_segments: DS, ES, SS
 * and CS have base 0 and 4 GiB limits (32-bit code); ea_flat is set for 64-bit code when no FS/GS override applies.
 * host may be NULL.
 */
unsigned cpu_decode(const struct cpu_model *, enum code_mode, const uint8_t *bytes, size_t avail, unsigned block_offset,
		    struct insn *, struct insn_host *host);

/*
 * The same result, mostly from memory: decode_cache.c. A cache belongs to one vCPU; the model must outlive it.
 */
struct decode_cache;
struct decode_cache *decode_cache_create(const struct cpu_model *); /* NULL: no memory */
void decode_cache_destroy(struct decode_cache *);
unsigned cpu_decode_cached(struct decode_cache *, enum code_mode, const uint8_t *bytes, size_t avail,
			   unsigned block_offset, struct insn *, struct insn_host *host);
/* How many instructions it had to decode. */
uint64_t decode_cache_missed(const struct decode_cache *);

/* Disassembly in Intel syntax, for traces and messages, and how long it is: 1 for what is none. */
unsigned cpu_disassemble(enum code_mode, const uint8_t *bytes, size_t avail, uint64_t rip, char *text, size_t size);

/* ---- the vCPU ---- */

enum access { ACCESS_READ = 0, ACCESS_WRITE = 1, ACCESS_FETCH = 2 };

struct fault {
	uint8_t vector;
	bool has_error;
	bool freeze; /* none: see cpu_freeze() */
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

/* Reasons to leave the fast path, set from any thread; polled by engines between blocks. */
#define EVENT_INTERRUPT BIT(0) /* ask the environment for an interrupt */
#define EVENT_NMI	BIT(1)
#define EVENT_INIT	BIT(2)
#define EVENT_SIPI	BIT(3)
#define EVENT_EXIT	BIT(4) /* return EXIT_KICK from run() */
#define EVENT_EXCLUSIVE                                                                                                \
	BIT(5) /* another thread wants every vCPU stopped: return EXIT_KICK, but not before something was executed */
#define EVENT_STEP   BIT(6) /* shadow, TF, debug trap: next instruction runs alone */
#define EVENT_HALTED BIT(7) /* activity is not CPU_RUNNING */
#define EVENT_CODE   BIT(8) /* this vCPU wrote to code: the engine looks whether its current block is still good */
#define EVENT_NMI_2  BIT(9) /* vcpu_post()'s: an NMI came while EVENT_NMI was set */
#define EVENT_NMIS   (EVENT_NMI | EVENT_NMI_2)
#define EVENTS_SAVED (EVENT_NMIS | EVENT_INIT | EVENT_SIPI) /* the others follow from the state, or are the monitor's */

struct vcpu;

/* What a vCPU asks of the machine around it. Every function but exclusive is called in the vCPU's own thread. */
struct vcpu_env {
	uint32_t (*pio_read)(struct vcpu *, uint16_t port, unsigned size);
	void (*pio_write)(struct vcpu *, uint16_t port, unsigned size, uint32_t value);
	uint64_t (*mmio_read)(struct vcpu *, gpa_t, unsigned size); /* size 1, 2, 4, 8, not crossing a page */
	void (*mmio_write)(struct vcpu *, gpa_t, unsigned size, uint64_t value);
	/* Highest-priority interrupt that the local APIC (or the 8259 through it) would deliver now: its vector, and it is
	 * then in service; -1 none. */
	int (*interrupt_take)(struct vcpu *);
	bool (*interrupt_pending)(struct vcpu *);
	uint8_t (*tpr_read)(struct vcpu *); /* CR8 */
	void (*tpr_write)(struct vcpu *, uint8_t);
	/*
	 * CR0.NE = 0: the processor asserts or releases FERR# (SDM vol. 1 D.2.1). Is IGNNE# asserted? May be NULL: both pins are
	 * left open.
	 */
	bool (*fpu_error)(struct vcpu *, bool asserted);
	/* x2APIC registers 0x800..0x8ff, IA32_APIC_BASE 0x1b, IA32_TSC_DEADLINE 0x6e0: 0, or -1 for #GP(0). */
	int (*apic_msr_read)(struct vcpu *, uint32_t msr, uint64_t *value);
	int (*apic_msr_write)(struct vcpu *, uint32_t msr, uint64_t value);
	/*
	 * Run fn with every vCPU stopped, but that of the calling thread: between instructions, or where it waits for a section of its own or
	 * for a device. Any thread; fn does not raise. Cheap when there is one vCPU.
	 */
	void (*exclusive)(struct vcpu *, void (*fn)(struct vcpu *, void *), void *arg);
	/* Around a section in which devices are accessed. NULL: nothing to do. */
	void (*devices_lock)(struct vcpu *, bool lock);
	/* PAUSE in a loop: let others run (virtual time hands the turn over). May be NULL. */
	void (*pause)(struct vcpu *);
	/*
	 * CLOCK_VIRTUAL: bring the clock up to date with the instructions executed (v->sync_icount). Called before cpu/ itself reads
	 * the clock (RDTSC, the paravirtual clock). NULL: nothing to do, the clock moves by itself.
	 */
	void (*time_sync)(struct vcpu *);
};

/*
 * For an engine that keeps translations of its own (bt's windows): called by paging.c after each change of this vCPU's TLB, in
 * its thread, or in an exclusive section for protect. What each allows to go on being used is what the architecture allows.
 */
struct tlb_hooks {
	void (*flush)(struct vcpu *); /* everything, global pages too */
	void (*flush_page)(struct vcpu *,
			   gva_t); /* INVLPG: this page in the current PCID, global or not; a whole large page */
	void (*switched)(struct vcpu *, bool keep); /* CR3 was written; keep: nothing of the new PCID became invalid */
	void (*flush_pcid)(struct vcpu *,
			   uint16_t pcid);	    /* INVPCID of another or the current PCID's non-global pages */
	void (*protect)(struct vcpu *, gpa_t page); /* this physical page now holds code: no write may go unnoticed */
	/* NULL, or: an entry of the TLB lets this page be written, or the access at hand writes it without one */
	void (*writable)(struct vcpu *, gpa_t page);
};

struct engine_ops;
struct engine_options;

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

	const struct engine_ops *engine;
	const struct engine_options *engine_options; /* set before the engine's create(); NULL: the defaults */
	void *engine_data;
	/*
	 * The engine's: code in [gpa, gpa + len), inside one page, has changed. For each vCPU of the machine, in an exclusive section, by the
	 * thread that wrote; this vCPU may be in the middle of the instruction that did, or of one that waits for a device. Returns the
	 * chunks of the page in which code lives on (mem_chunks()) though the page's generation has changed; *hit: some was forgotten.
	 */
	uint64_t (*code_written)(struct vcpu *, gpa_t, size_t len, bool *hit);
	/*
	 * The engine's: a device access of the instruction that runs made something pending, which is to be looked at behind it and
	 * not only at the end of a block. NULL: nothing to do.
	 */
	void (*events_posted)(struct vcpu *);
	const struct tlb_hooks *tlb_hooks; /* the engine's, NULL: none */
	/* The engine's: make s.icount exact in the middle of a block. The environment calls it before it looks at icount. */
	void (*sync_icount)(struct vcpu *);

	uint64_t count[COUNT_COUNT];

	uint8_t x87_watch; /* X87_*: what the live unit's control and status words ask for; see fpu.c */
	bool splits_trap;  /* the host's kernel punishes locked accesses across cache lines: interpreter, rmw.c */
	struct host_exec *host_exec; /* the interpreter's stubs that run host instructions, NULL until it made them */

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
	 * (CR0.AM, RFLAGS.AC, CPL 3) and data breakpoints. tlb_view is still the view that the slow path then uses.
	 */
	struct tlb_entry tlb_never[TLB_SIZE];

	/* event.c: as they were when the instruction that runs alone began; see cpu_after_step() */
	bool step_trap;	  /* RFLAGS.TF */
	bool step_resume; /* RFLAGS.RF */
	uint64_t step_rip;
	uint64_t step_next;  /* where the instruction ends: the engine says it before it runs it */
	uint8_t step_shadow; /* s.shadow */

	/* engine/bt: what translated code reaches by %gs: (see bt.h) */
	uint64_t slot_r15; /* R15 of translated code: the current slot table */
	struct {
		void *self;			 /* this vCPU */
		uint64_t tsc_native, tsc_offset; /* see clock_tsc_native(); 0: C reads the time */
		uint64_t host_rsp;		 /* of the C code that entered translated code */
		uint64_t resume;		 /* where to enter it */
		uint64_t r11;			 /* R11 to enter with */
		uint64_t exit_arg;		 /* why it was left */
		uint64_t
			target; /* a computed target that was not found; a linear address that the TLB has no entry for */
		uint64_t call;	/* an indirect call's target while the return address is pushed */
		uint64_t value; /* what is pushed while its place is looked up */
		uint32_t
			x87; /* the x87 instruction executed last, as an exit argument; 0: what s.fip etc. say is right */
		uint64_t jump;	    /* the current jump table, or the one where nothing is found */
		uint64_t code_base; /* linear page of the block that runs, if it may be anywhere */
		uint64_t x87_base;  /* the same when `x87` was set */
		uint32_t x87_data;  /* 1 + segment of the x87 memory operand met last; 0: what s.fds says is right */
		/* 16- and 32-bit code, see limits.c: of the segments ES to GS; of CS for EIP; of 64 KiB; of the vector table */
		uint64_t read_limit[6], write_limit[6], code_limit, wrap_limit, idt_limit;
		uint64_t string_saved
			[2]; /* ESI and EDI while a 16-bit string instruction has the host's pointers there */
		void *fast_glue;
		void *exit_glue; /* bt_exit_*, bt_miss: too far away for a direct jump */
		void *miss_glue;
		void *reload_glue;
	} bt_frame;
	struct bt_cpu *bt;
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

/* state.c: creation, reset, derived state */

/* Allocates (page-aligned, zeroed) and resets. The caller fills model, mem, clock, trace, env, peers first via params. */
struct vcpu *vcpu_create(unsigned index, const struct cpu_model *, struct guest_mem *, struct clock *, struct trace *,
			 const struct vcpu_env *, void *env_opaque, struct error *);
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
/* Is there anything that ends HLT or wait-for-SIPI? Any thread. */
bool cpu_has_work(struct vcpu *);

/* ---- paging.c ---- */

struct page_walk {
	gpa_t page;	/* guest physical address of the 4 KiB page */
	unsigned shift; /* 12, 21, 22, 30: size of the mapping */
	bool user, writable, executable, dirty, global;
};

/*
 * Walk the guest's tables for one access, set accessed and dirty bits, check rights. user: as CPL 3; for supervisor
 * accesses ac says whether SMAP lets user pages pass. 0, or -1 with *fault filled (#PF, or #GP/#SS for a non-canonical address:
 * fault->vector GP, error 0).
 */
int cpu_walk(struct vcpu *, gva_t, enum access, bool user, bool ac, struct page_walk *, struct fault *);
/* The same for a debugger: no rights, no accessed bits, no faults; 0 or -1. */
int cpu_translate_debug(struct vcpu *, gva_t, gpa_t *);

/*
 * TLB maintenance. All act on this vCPU's TLB only. v->address_space changes whenever a fetch translation of the current
 * address space may have changed: engines may cache linear address -> code under (address_space, mode_key) and need not be
 * told more; under (global_space, mode_key) where v->fetched_global says so. Data translations may change under the same number (INVLPG of a page that was never fetched from). An asid is
 * used again after TLB_ASIDS flushes.
 */
void cpu_tlb_flush(struct vcpu *);	       /* everything */
void cpu_tlb_flush_page(struct vcpu *, gva_t); /* INVLPG */
void cpu_tlb_switch(struct vcpu *, bool keep); /* after CR3 changed; keep: PCID no-flush bit */
/*
 * Drop write entries for this guest physical page. direct: of which kind there may be any, as in mem_page.direct: those of one slot of
 * the TLB, those of the engine (tlb_hooks), or all.
 */
void cpu_tlb_protect(struct vcpu *, gpa_t page, uint16_t direct);
#define DIRECT_TLB(slot) ((uint16_t)(1 + (slot)))
#define DIRECT_ENGINE	 (MEM_DIRECT_ANY - 1)

/*
 * Instruction fetch: guest physical address of the byte at linear address a under the current CPL, or raises #PF/#GP. The page
 * is RAM or ROM iff *host is not NULL, then it is the host address of that byte.
 */
gpa_t cpu_fetch_translate(struct vcpu *, gva_t a, uint8_t **host);
/* May this number be that of the current address space, now or again? */
bool cpu_space_is_alive(const struct vcpu *, uint64_t space);

/* ---- access.c: guest memory accesses by linear address. size 1, 2, 4, 8 ---- */

/*
 * Slow paths: TLB miss, page crossing, devices, code pages. Raise #PF. ss: report a non-canonical address as #SS(0), not
 * #GP(0). These take the current view (cpl, AC).
 */
uint64_t cpu_load_slow(struct vcpu *, uint64_t lin, unsigned size, bool ss);
void cpu_store_slow(struct vcpu *, uint64_t lin, uint64_t value, unsigned size, bool ss);
/*
 * Enter the page of an access into the current view's TLB, for an engine that looks into it by itself. True: it is there now and was not
 * before. False: the slow paths must do the access (a device, ROM or code to be written, two pages, not canonical). Raises #PF.
 */
bool cpu_tlb_fill(struct vcpu *, uint64_t lin, bool write);
/* The same where it needs no accessed or dirty bit to be set and raises nothing; else false. Keeps to general registers (engine/bt/fast.c). */
bool cpu_tlb_fill_marked(struct vcpu *, uint64_t lin, bool write);
/*
 * Before an engine decodes code from [addr, addr + len), which lies in this page: marks it as code, and if it was not, makes
 * every vCPU (through env->exclusive) drop its direct write entries. Returns the generation to keep with the decoded code.
 */
uint32_t cpu_code_begin(struct vcpu *, struct mem_page *, gpa_t addr, size_t len);
/* Raise what a store would raise, write nothing: the first half of a read-modify-write or a restartable push. */
void cpu_probe_write(struct vcpu *, uint64_t lin, unsigned size, bool ss);
/*
 * Host pointer for a read-modify-write of [lin, lin+size), write rights checked and dirty bit set, good until the vCPU's next access; NULL
 * when part of it is a device or ROM, or holds code, or when it is in two pages and the host does not show them side by side: then use
 * load/store_slow (and cpu_exclusive for a locked one).
 */
void *cpu_rmw_map(struct vcpu *, uint64_t lin, unsigned size, bool ss);
/*
 * env->exclusive for functions that may raise: what fn raises is raised again when the others run. Until the section begins they
 * may unmap what this vCPU has looked at before, so even what was probed may fault.
 */
void cpu_exclusive(struct vcpu *, void (*fn)(struct vcpu *, void *), void *arg);
/*
 * #AC(0) if the processor checks alignment now and the address is no multiple of `alignment`, a power of two. The accesses above
 * check that of their size themselves, what follows does not. SDM vol. 3A 6.15: CPL 3, CR0.AM, RFLAGS.AC. An address that is
 * not canonical is left to the access, which faults.
 */
static inline void cpu_check_alignment(struct vcpu *v, uint64_t lin, unsigned alignment)
{
	if (unlikely(lin & (alignment - 1)) && v->cpl == 3 && (v->s.rflags & FLAG_AC) && (v->s.cr0 & CR0_AM) &&
	    (uint64_t)sign_extend(lin, 48) == lin)
		cpu_raise_error(v, EXC_AC, 0);
}
/* Copies of any length, page by page, all pages checked before the first byte is written. Raise #PF. */
void cpu_load_bytes(struct vcpu *, uint64_t lin, void *, unsigned len, bool ss);
void cpu_store_bytes(struct vcpu *, uint64_t lin, const void *, unsigned len, bool ss);
/* Implicit supervisor accesses (descriptor tables, TSS, IDT, stacks of new privilege levels): CPL and AC do not matter. */
uint64_t cpu_system_load(struct vcpu *, uint64_t lin, unsigned size);
void cpu_system_store(struct vcpu *, uint64_t lin, uint64_t value, unsigned size);

static inline struct tlb_entry *tlb_slot(struct vcpu *v, uint64_t lin)
{
	return &v->tlb[(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
}

/* One host access: x86 keeps naturally aligned ones whole, as the guest expects. */
static inline uint64_t host_load(const void *p, unsigned size)
{
	switch (size) {
	case 1: return *(const volatile uint8_t *)p;
	case 2: return *(const volatile u16_any *)p;
	case 4: return *(const volatile u32_any *)p;
	default: return *(const volatile u64_any *)p;
	}
}

static inline void host_store(void *p, uint64_t value, unsigned size)
{
	switch (size) {
	case 1: *(volatile uint8_t *)p = (uint8_t)value; break;
	case 2: *(volatile u16_any *)p = (uint16_t)value; break;
	case 4: *(volatile u32_any *)p = (uint32_t)value; break;
	default: *(volatile u64_any *)p = value; break;
	}
}

static inline __attribute__((always_inline)) uint64_t cpu_load(struct vcpu *v, uint64_t lin, unsigned size, bool ss)
{
	const struct tlb_entry *e = tlb_slot(v, lin);
	if (likely(e->read_tag == (((lin + size - 1) & PAGE_MASK) | v->asid)))
		return host_load((const void *)(lin + e->addend), size);
	return cpu_load_slow(v, lin, size, ss);
}

static inline __attribute__((always_inline)) void cpu_store(struct vcpu *v, uint64_t lin, uint64_t value, unsigned size,
							    bool ss)
{
	const struct tlb_entry *e = tlb_slot(v, lin);
	if (likely(e->write_tag == (((lin + size - 1) & PAGE_MASK) | v->asid)))
		host_store((void *)(lin + e->addend), value, size);
	else
		cpu_store_slow(v, lin, value, size, ss);
}

static inline __attribute__((always_inline)) void *cpu_rmw(struct vcpu *v, uint64_t lin, unsigned size, bool ss)
{
	const struct tlb_entry *e = tlb_slot(v, lin);
	if (likely(e->write_tag == (((lin + size - 1) & PAGE_MASK) | v->asid)))
		return (void *)(lin + e->addend);
	return cpu_rmw_map(v, lin, size, ss);
}

/* ---- segment.c ---- */

static inline uint64_t insn_disp(const struct insn *i)
{
	return (uint64_t)(int64_t)i->disp + (i->flags & INSN_FAR_IP ? BIT(32) : 0);
}

/* Effective address (offset) of the memory operand, before segmentation, truncated to addrsize. */
static inline uint64_t cpu_ea(const struct vcpu *v, const struct insn *i)
{
	uint64_t ea = REG64(v, i->base) + (REG64(v, i->index) << i->scale) + insn_disp(i);
	if (unlikely(i->addrsize != 8))
		ea = i->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
	return ea;
}

/*
 * Linear address of an operand of `size` bytes at seg:offset: adds the base, checks limit, type and (64-bit mode) nothing
 * more: canonicality is found by the access. Raises #GP(0) or #SS(0).
 */
uint64_t cpu_linear(struct vcpu *, enum seg, uint64_t offset, unsigned size, enum access);
/*
 * #GP(0) for a memory operand that must be aligned and is not. To be asked before cpu_operand(): the manuals do not say which is
 * found first, and processors find this before a stack segment's limit (#SS).
 */
void cpu_check_aligned(struct vcpu *, const struct insn *, unsigned alignment);

/* Linear address of the memory operand of an instruction. */
static inline __attribute__((always_inline)) uint64_t cpu_operand(struct vcpu *v, const struct insn *i, unsigned size,
								  enum access access)
{
	if (likely(i->ea_flat))
		return REG64(v, i->base) + (REG64(v, i->index) << i->scale) + (uint64_t)(int64_t)i->disp;
	return cpu_linear(v, i->seg, cpu_ea(v, i), size, access);
}

/* Of the part of it that begins `delta` bytes in: each access of several wraps at the address size by itself. */
static inline uint64_t cpu_operand_part(struct vcpu *v, const struct insn *i, unsigned delta, unsigned size,
					enum access access)
{
	uint64_t ea = cpu_ea(v, i) + delta;

	if (i->addrsize != 8)
		ea = i->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
	return i->ea_flat ? ea : cpu_linear(v, i->seg, ea, size, access);
}

/* Load a data segment register or SS with a selector, with all of the manual's checks (real, V86 and protected mode). */
void cpu_load_segment(struct vcpu *, enum seg, uint16_t selector);
/* Stack pushes and pops of `size` bytes with segment checks; rsp is written after the access succeeded. */
void cpu_push(struct vcpu *, uint64_t value, unsigned size);
uint64_t cpu_pop(struct vcpu *, unsigned size);
/* Set rip for a near transfer: truncated to size, #GP(0) if beyond the limit or not canonical (before rip changes). */
void cpu_jump(struct vcpu *, uint64_t target, unsigned opsize);

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
