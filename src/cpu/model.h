/*
 * Processor models: what CPUID says, and so what the guest may use.
 */
#ifndef DOPPEL_CPU_MODEL_H
#define DOPPEL_CPU_MODEL_H

#include "base/base.h"

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

#endif
