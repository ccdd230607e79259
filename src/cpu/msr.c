/*
 * Model-specific registers, the time stamp counter and what else reads the processor's identity. One table says which
 * registers there are, whose they are and what they accept; all others give #GP(0), as a part without them does. SDM vol. 4;
 * APM vol. 2 appendix A.
 */
#include "cpu/private.h"

/* ---- who has a register: a feature, or one of these ---- */

enum { ALWAYS = FEATURE_COUNT, INTEL, AMD, KVM };

static bool offered(const struct vcpu *v, unsigned who)
{
	switch (who) {
	case ALWAYS: return true;
	case INTEL: return !is_amd(v->model);
	case AMD: return is_amd(v->model);
	case KVM: return v->model->kvm_pv;
	default: return has_feature(v, (enum cpu_feature)who);
	}
}

/* ---- registers with a behaviour; 0, or -1 for #GP(0) ---- */

uint64_t cpu_tsc(struct vcpu *v)
{
	if (v->env && v->env->time_sync)
		v->env->time_sync(v);
	return clock_tsc(v->clock) + v->s.tsc_offset;
}

#define MSR_IA32_APIC_BASE    0x1bu
#define APIC_BASE_X2APIC      BIT(10)
#define MSR_IA32_TSC_DEADLINE 0x6e0u

static int apic_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	if (!v->env || !v->env->apic_msr_read)
		return -1;
	return v->env->apic_msr_read(v, msr, value);
}

/* The APIC does not know how many address bits there are, nor whether x2APIC mode is offered. */
static int apic_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	uint64_t reserved = ~CPU_PHYS_MASK | (has_feature(v, FEATURE_X2APIC) ? 0 : APIC_BASE_X2APIC);

	if (msr == MSR_IA32_APIC_BASE && value & reserved)
		return -1;
	if (!v->env || !v->env->apic_msr_write)
		return -1;
	return v->env->apic_msr_write(v, msr, value);
}

/* What depends on the TSC's offset follows it: the armed deadline (by arming it again) and the paravirtual clock page. */
static void move_tsc(struct vcpu *v, uint64_t delta)
{
	uint64_t deadline;

	v->s.tsc_offset += delta;
	if (!apic_read(v, MSR_IA32_TSC_DEADLINE, &deadline) && deadline)
		apic_write(v, MSR_IA32_TSC_DEADLINE, deadline);
	cpu_kvm_clock_update(v);
}

static int tsc_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	(void)msr;
	*value = cpu_tsc(v);
	return 0;
}

/* A write moves TSC_ADJUST by as much, SDM vol. 3B 18.17.3. */
static int tsc_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	uint64_t delta = value - cpu_tsc(v);

	(void)msr;
	v->s.msr_tsc_adjust += delta;
	move_tsc(v, delta);
	return 0;
}

static int tsc_adjust_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	uint64_t delta = value - v->s.msr_tsc_adjust;

	(void)msr;
	v->s.msr_tsc_adjust = value;
	move_tsc(v, delta);
	return 0;
}

static int efer_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA;

	(void)msr;
	if (has_feature(v, FEATURE_NX) && !(v->s.msr_misc_enable & MISC_ENABLE_XD_DISABLE))
		allowed |= EFER_NXE;
	if (has_feature(v, FEATURE_AUTO_IBRS))
		allowed |= EFER_AIBRSE;
	if (value & ~allowed)
		return -1;
	if ((value ^ v->s.efer) & EFER_LME && v->s.cr0 & CR0_PG)
		return -1;
	/* LMA cannot be written: Intel's ignore the bit, AMD's insist on its value (APM vol. 2 3.1.7). */
	if (is_amd(v->model) && (value ^ v->s.efer) & EFER_LMA)
		return -1;
	value = (value & ~EFER_LMA) | (v->s.efer & EFER_LMA);
	TRACE(v->trace, CONTROL, "cpu%u EFER %#lx -> %#lx", v->index, (unsigned long)v->s.efer, (unsigned long)value);
	bool nx_changed = (value ^ v->s.efer) & EFER_NXE;
	v->s.efer = value;
	cpu_update_mode(v);
	if (nx_changed)
		cpu_tlb_flush(v);
	return 0;
}

static int segment_base_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	*value = v->s.seg_base[msr == 0xc0000100 ? FS : GS];
	return 0;
}

static int segment_base_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	if (!is_canonical(value))
		return -1;
	v->s.seg_base[msr == 0xc0000100 ? FS : GS] = value;
	return 0;
}

/* SYSENTER_CS, ESP and EIP. What is above 32 bits: of the first, and of all of AMD's, writes ignore it. */
#define MSR_SYSENTER_CS 0x174u

static int sysenter_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	uint64_t *const fields[] = { &v->s.msr_sysenter_cs, &v->s.msr_sysenter_esp, &v->s.msr_sysenter_eip };

	if (msr == MSR_SYSENTER_CS || is_amd(v->model))
		value = (uint32_t)value;
	else if (!is_canonical(value))
		return -1;
	*fields[msr - MSR_SYSENTER_CS] = value;
	return 0;
}

/* Of 32 bits: above them Intel's are reserved, AMD's ignored. */
static int tsc_aux_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	(void)msr;
	if (!is_amd(v->model) && value >> 32)
		return -1;
	v->s.msr_tsc_aux = (uint32_t)value;
	return 0;
}

/* Memory types, SDM vol. 3A 12.3: UC, WC, WT, WP, WB; the page attribute table has UC- (7) too. */
static bool memory_type_ok(uint64_t type, bool pat) { return type < 8 && (pat ? 0xf3 : 0x73) >> type & 1; }

static bool memory_types_ok(uint64_t value, bool pat)
{
	for (unsigned i = 0; i < 64; i += 8)
		if (!memory_type_ok(value >> i & 0xff, pat))
			return false;
	return true;
}

static int pat_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	(void)msr;
	if (!memory_types_ok(value, true))
		return -1;
	v->s.msr_pat = value;
	return 0;
}

/* The types that MTRRs say change nothing here: all of the guest's memory is as coherent as the host's. */
static int mtrr_def_type_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	(void)msr;
	if (value & ~(BIT(11) | BIT(10) | 0xff) || !memory_type_ok(value & 0xff, false))
		return -1;
	v->s.mtrr_def_type = value;
	return 0;
}

#define MTRR_VAR_FIRST 0x200u
#define MTRR_VAR_COUNT 16u

static int mtrr_var_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	*value = v->s.mtrr_var[msr - MTRR_VAR_FIRST];
	return 0;
}

static int mtrr_var_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	bool mask = msr & 1;
	uint64_t allowed = (CPU_PHYS_MASK & PAGE_MASK) | (mask ? BIT(11) : 0xff);

	if (value & ~allowed || (!mask && !memory_type_ok(value & 0xff, false)))
		return -1;
	v->s.mtrr_var[msr - MTRR_VAR_FIRST] = value;
	return 0;
}

/* 0x250: 64 KiB each; 0x258, 0x259: 16 KiB; 0x268..0x26f: 4 KiB. In mtrr_fixed in this order. */
static unsigned mtrr_fixed_index(uint32_t msr)
{
	return msr == 0x250 ? 0 : msr < 0x260 ? 1 + (msr - 0x258) : 3 + (msr - 0x268);
}

static int mtrr_fixed_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	*value = v->s.mtrr_fixed[mtrr_fixed_index(msr)];
	return 0;
}

static int mtrr_fixed_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	if (!memory_types_ok(value, false))
		return -1;
	v->s.mtrr_fixed[mtrr_fixed_index(msr)] = value;
	return 0;
}

/*
 * IA32_MISC_ENABLE: no branch trace store, no PEBS (read-only ones), no performance monitoring (bit 7, a read-only zero); CPUID's last
 * leaf can be limited and NX hidden; fast strings, thermal control, SpeedStep, MONITOR, xTPR change nothing.
 */
#define MISC_ENABLE_FIXED     (BIT(11) | BIT(12))
#define MISC_ENABLE_READ_ONLY (BIT(7) | MISC_ENABLE_FIXED)
#define MISC_ENABLE_WRITABLE                                                                                           \
	(BIT(0) | BIT(3) | BIT(16) | BIT(18) | MISC_ENABLE_LIMIT_CPUID | BIT(23) | MISC_ENABLE_XD_DISABLE)

static int misc_enable_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	(void)msr;
	*value = v->s.msr_misc_enable | MISC_ENABLE_FIXED;
	return 0;
}

static int misc_enable_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	(void)msr;
	if (value & ~(MISC_ENABLE_WRITABLE | MISC_ENABLE_READ_ONLY))
		return -1;
	v->s.msr_misc_enable = value & MISC_ENABLE_WRITABLE;
	return 0;
}

/* IBRS; STIBP, which is accepted with it (SDM vol. 4); BHI_DIS_S. They are kept, and change nothing: see docs/fidelity.md. */
static int spec_ctrl_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	uint64_t allowed = BIT(0) | BIT(1) | (has_feature(v, FEATURE_BHI_CTRL) ? BIT(10) : 0);

	(void)msr;
	if (value & ~allowed)
		return -1;
	v->s.msr_spec_ctrl = value;
	return 0;
}

static int arch_capabilities_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	(void)msr;
	*value = 0;
	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		if (cpu_feature_bits[f].leaf == IN_ARCH_CAPABILITIES && has_feature(v, (enum cpu_feature)f))
			*value |= BIT(cpu_feature_bits[f].bit);
	return 0;
}

/* IBPB: no program can flush the host's predictors. */
static int pred_cmd_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	(void)v;
	(void)msr;
	return value & ~BIT(0) ? -1 : 0;
}

/* A microcode update is accepted and changes nothing. */
static int microcode_load(struct vcpu *v, uint32_t msr, uint64_t value)
{
	(void)v;
	(void)msr;
	(void)value;
	return 0;
}

/*
 * The revision of a microcode that never needs an update: no guest looks for errata that its number would have fixed. AMD's
 * repeats the family, model and stepping.
 */
static int microcode_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	uint64_t s = v->model->signature;

	(void)msr;
	if (is_amd(v->model))
		*value =
			bits(s, 27, 20) << 24 | bits(s, 19, 16) << 20 | bits(s, 7, 4) << 12 | bits(s, 3, 0) << 8 | 0xff;
	else
		*value = 0x7fffffffull << 32;
	return 0;
}

/* AMD's TOP_MEM and TOP_MEM2: the ends of RAM below and above 4 GiB. */
static int top_mem_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	uint64_t size = v->mem->ram_size;

	if (msr == 0xc001001a)
		*value = MIN(size, MEM_LOW_TOP);
	else
		*value = size > MEM_LOW_TOP ? MEM_HIGH_BASE + (size - MEM_LOW_TOP) : 0;
	return 0;
}

static int kvm_clock_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	(void)msr;
	v->s.kvm_system_time = value;
	cpu_kvm_clock_update(v);
	return 0;
}

static int kvm_wall_clock_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	(void)msr;
	v->s.kvm_wall_clock = value;
	cpu_kvm_wall_clock_update(v);
	return 0;
}

/* ---- the table ---- */

/*
 * A register is a field of cpu_state, a pair of functions, or a constant. `writable` has the bits that a write may set without
 * #GP(0); those of a constant are accepted and forgotten. A missing write function with writable 0: any write is #GP(0).
 */
struct msr {
	uint32_t first, last;
	const char *name;
	uint16_t who;	/* feature or ALWAYS, INTEL, AMD, KVM */
	uint16_t field; /* offset in cpu_state; 0 (which is RAX): none */
	bool canonical;
	uint64_t writable;
	uint64_t value; /* constants */
	int (*read)(struct vcpu *, uint32_t msr, uint64_t *);
	int (*write)(struct vcpu *, uint32_t msr, uint64_t);
};

#define ANY UINT64_MAX
#define FIELD(n, who_, f, mask)                                                                                        \
	{                                                                                                              \
		.first = n, .last = n, .name = #f, .who = who_, .field = offsetof(struct cpu_state, f),                \
		.writable = mask                                                                                       \
	}
#define CANONICAL(n, who_, f)                                                                                          \
	{                                                                                                              \
		.first = n, .last = n, .name = #f, .who = who_, .field = offsetof(struct cpu_state, f),                \
		.canonical = true, .writable = ANY                                                                     \
	}
#define CONSTANT(n, name_, who_, value_, mask)                                                                         \
	{                                                                                                              \
		.first = n, .last = n, .name = name_, .who = who_, .value = value_, .writable = mask                   \
	}
#define WRITTEN(n, f, who_, w)                                                                                         \
	{                                                                                                              \
		.first = n, .last = n, .name = #f, .who = who_, .field = offsetof(struct cpu_state, f), .write = w     \
	}
#define RANGE(from, to, name_, who_, r, w)                                                                             \
	{                                                                                                              \
		.first = from, .last = to, .name = name_, .who = who_, .read = r, .write = w                           \
	}
#define FUNCTION(n, name_, who_, r, w) RANGE(n, n, name_, who_, r, w)

static const struct msr msrs[] = {
	/* In the order of how often guests use them. */
	FUNCTION(MSR_IA32_TSC_DEADLINE, "TSC_DEADLINE", FEATURE_TSC_DEADLINE, apic_read, apic_write),
	RANGE(0x800, 0x8ff, "X2APIC", FEATURE_X2APIC, apic_read, apic_write),
	RANGE(0xc0000100, 0xc0000101, "SEGMENT_BASE", FEATURE_LM, segment_base_read, segment_base_write),
	CANONICAL(0xc0000102, FEATURE_LM, msr_kernel_gs_base),
	WRITTEN(0x48, msr_spec_ctrl, FEATURE_SPEC_CTRL, spec_ctrl_write),
	FUNCTION(0x49, "PRED_CMD", FEATURE_SPEC_CTRL, NULL, pred_cmd_write),
	FUNCTION(0x10, "TSC", ALWAYS, tsc_read, tsc_write),
	WRITTEN(0x3b, msr_tsc_adjust, FEATURE_TSC_ADJUST, tsc_adjust_write),
	FUNCTION(MSR_IA32_APIC_BASE, "APIC_BASE", FEATURE_APIC, apic_read, apic_write),

	WRITTEN(0xc0000080, efer, ALWAYS, efer_write),
	FIELD(0xc0000081, FEATURE_SYSCALL, msr_star, ANY),
	CANONICAL(0xc0000082, FEATURE_LM, msr_lstar),
	CANONICAL(0xc0000083, FEATURE_LM, msr_cstar),
	FIELD(0xc0000084, FEATURE_LM, msr_fmask, UINT32_MAX),
	WRITTEN(0xc0000103, msr_tsc_aux, FEATURE_RDTSCP, tsc_aux_write),
	WRITTEN(MSR_SYSENTER_CS, msr_sysenter_cs, FEATURE_SEP, sysenter_write),
	WRITTEN(MSR_SYSENTER_CS + 1, msr_sysenter_esp, FEATURE_SEP, sysenter_write),
	WRITTEN(MSR_SYSENTER_CS + 2, msr_sysenter_eip, FEATURE_SEP, sysenter_write),
	FIELD(0x1d9, ALWAYS, msr_debugctl, DEBUGCTL_LBR | DEBUGCTL_BTF),

	WRITTEN(0x277, msr_pat, FEATURE_PAT, pat_write),
	CONSTANT(0xfe, "MTRRCAP", FEATURE_MTRR, BIT(10) | BIT(8) | MTRR_VAR_COUNT / 2, 0), /* WC, fixed ranges */
	WRITTEN(0x2ff, mtrr_def_type, FEATURE_MTRR, mtrr_def_type_write),
	RANGE(MTRR_VAR_FIRST, MTRR_VAR_FIRST + MTRR_VAR_COUNT - 1, "MTRR_PHYS", FEATURE_MTRR, mtrr_var_read,
	      mtrr_var_write),
	FUNCTION(0x250, "MTRR_FIX64K", FEATURE_MTRR, mtrr_fixed_read, mtrr_fixed_write),
	RANGE(0x258, 0x259, "MTRR_FIX16K", FEATURE_MTRR, mtrr_fixed_read, mtrr_fixed_write),
	RANGE(0x268, 0x26f, "MTRR_FIX4K", FEATURE_MTRR, mtrr_fixed_read, mtrr_fixed_write),

	/* A machine-check architecture without banks: no error is ever reported. */
	CONSTANT(0x179, "MCG_CAP", FEATURE_MCA, 0, 0),
	FIELD(0x17a, FEATURE_MCA, mcg_status, 7),
	CONSTANT(0x0, "P5_MC_ADDR", FEATURE_MCE, 0, 0),
	CONSTANT(0x1, "P5_MC_TYPE", FEATURE_MCE, 0, 0),

	{ .first = 0x8b, .last = 0x8b, .name = "BIOS_SIGN_ID", .who = ALWAYS, .read = microcode_read, .writable = ANY },
	FUNCTION(0x10a, "ARCH_CAPABILITIES", FEATURE_ARCH_CAPABILITIES, arch_capabilities_read, NULL),
	CONSTANT(0x17, "PLATFORM_ID", INTEL, 0, 0),
	CONSTANT(0x2a, "EBL_CR_POWERON", INTEL, 0, 0),
	CONSTANT(0x34, "SMI_COUNT", INTEL, 0, 0),
	CONSTANT(0x3a, "FEATURE_CONTROL", INTEL, BIT(0), 0), /* locked; no VMX, no SGX */
	FUNCTION(0x79, "BIOS_UPDT_TRIG", INTEL, NULL, microcode_load),
	/* Ratios to 100 MHz: highest without turbo, lowest. */
	CONSTANT(0xce, "PLATFORM_INFO", INTEL, 10ull << 8 | 10ull << 40, 0),
	FUNCTION(0x1a0, "MISC_ENABLE", INTEL, misc_enable_read, misc_enable_write),

	CONSTANT(0x1db, "LAST_BRANCH_FROM", AMD, 0, 0),
	CONSTANT(0x1dc, "LAST_BRANCH_TO", AMD, 0, 0),
	CONSTANT(0x1dd, "LAST_INT_FROM", AMD, 0, 0),
	CONSTANT(0x1de, "LAST_INT_TO", AMD, 0, 0),
	/* PERF_CTL and PERF_CTR 0 to 3, which no CPUID bit announces: they are there and count nothing. */
	{ .first = 0xc0010000, .last = 0xc0010007, .name = "PERF", .who = AMD, .writable = ANY },
	CONSTANT(0xc0010010, "SYSCFG", AMD, 0, BIT(18) | BIT(19) | BIT(20) | BIT(21) | BIT(22)),
	/* TscFreqSel: the TSC counts at the rate of P0. */
	CONSTANT(0xc0010015, "HWCR", AMD, BIT(24), BIT(3) | BIT(4) | BIT(6) | BIT(8) | BIT(18) | BIT(24)),
	FUNCTION(0xc001001a, "TOP_MEM", AMD, top_mem_read, NULL),
	FUNCTION(0xc001001d, "TOP_MEM2", AMD, top_mem_read, NULL),
	CONSTANT(0xc001001f, "NB_CFG", AMD, 0, ANY),
	FUNCTION(0xc0010020, "PATCH_LOADER", AMD, NULL, microcode_load),
	CONSTANT(0xc0010055, "INT_PENDING", AMD, 0, ANY),
	CONSTANT(0xc0010058, "MMIO_CFG_BASE", AMD, 0, 0),
	CONSTANT(0xc0010112, "TSEG_BASE", AMD, 0, 0),
	CONSTANT(0xc0010113, "TSEG_MASK", AMD, 0, 0),
	CONSTANT(0xc0011020, "LS_CFG", AMD, 0, ANY),
	CONSTANT(0xc0011021, "IC_CFG", AMD, 0, ANY),
	CONSTANT(0xc0011022, "DC_CFG", AMD, 0, ANY),
	CONSTANT(0xc0011023, "TW_CFG", AMD, 0, ANY),
	CONSTANT(0xc0011029, "DE_CFG", AMD, BIT(1), ANY), /* LFENCE serialises */
	CONSTANT(0xc001102a, "BU_CFG2", AMD, 0, ANY),

	WRITTEN(0x4b564d01, kvm_system_time, KVM, kvm_clock_write),
	WRITTEN(0x4b564d00, kvm_wall_clock, KVM, kvm_wall_clock_write),
	WRITTEN(0x12, kvm_system_time, KVM, kvm_clock_write),
	WRITTEN(0x11, kvm_wall_clock, KVM, kvm_wall_clock_write),
	FIELD(0x4b564d05, KVM, kvm_poll_control, BIT(0)),
};

static const struct msr *find_msr(const struct vcpu *v, uint32_t msr)
{
	for (size_t i = 0; i < ARRAY_SIZE(msrs); i++)
		if (msr >= msrs[i].first && msr <= msrs[i].last)
			return offered(v, msrs[i].who) ? &msrs[i] : NULL;
	return NULL;
}

static uint64_t *field_of(struct vcpu *v, const struct msr *m) { return (uint64_t *)((char *)&v->s + m->field); }

int cpu_read_msr(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	const struct msr *m = find_msr(v, msr);

	*value = 0;
	if (!m)
		return -1;
	if (m->read)
		return m->read(v, msr, value);
	if (m->field)
		*value = *field_of(v, m);
	else if (m->write)
		return -1; /* write-only */
	else
		*value = m->value;
	return 0;
}

int cpu_write_msr(struct vcpu *v, uint32_t msr, uint64_t value)
{
	const struct msr *m = find_msr(v, msr);

	if (!m)
		return -1;
	if (m->write)
		return m->write(v, msr, value);
	if (!m->writable || value & ~m->writable || (m->canonical && !is_canonical(value)))
		return -1;
	if (m->field)
		*field_of(v, m) = value;
	return 0;
}

/* ---- instructions: kernels probe for registers that may be absent, so a #GP is worth a trace line but no log ---- */

static const char *msr_name(const struct vcpu *v, uint32_t msr)
{
	const struct msr *m = find_msr(v, msr);

	return m ? m->name : "?";
}

void op_rdmsr(struct vcpu *v, const struct insn *i)
{
	uint32_t msr = (uint32_t)v->s.gpr[RCX];
	uint64_t value;

	(void)i;
	if (v->cpl)
		cpu_raise_error(v, EXC_GP, 0);
	v->count[COUNT_MSR_READS]++;
	int ret = cpu_read_msr(v, msr, &value);
	TRACE(v->trace, MSR, "cpu%u rdmsr %#x %s = %#lx%s", v->index, msr, msr_name(v, msr), (unsigned long)value,
	      ret ? ": #GP" : "");
	if (ret)
		cpu_raise_error(v, EXC_GP, 0);
	v->s.gpr[RAX] = (uint32_t)value;
	v->s.gpr[RDX] = value >> 32;
}

void op_wrmsr(struct vcpu *v, const struct insn *i)
{
	uint32_t msr = (uint32_t)v->s.gpr[RCX];
	uint64_t value = (uint32_t)v->s.gpr[RAX] | v->s.gpr[RDX] << 32;

	if (v->cpl)
		cpu_raise_error(v, EXC_GP, 0);
	v->count[COUNT_MSR_WRITES]++;
	int ret = cpu_write_msr(v, msr, value);
	TRACE(v->trace, MSR, "cpu%u wrmsr %#x %s = %#lx%s", v->index, msr, msr_name(v, msr), (unsigned long)value,
	      ret ? ": #GP" : "");
	if (ret)
		cpu_raise_error(v, EXC_GP, 0);
	v->s.rip = cpu_next_rip(v, i);
}

static void load_tsc(struct vcpu *v)
{
	if (v->s.cr4 & CR4_TSD && v->cpl)
		cpu_raise_error(v, EXC_GP, 0);
	uint64_t tsc = cpu_tsc(v);
	v->s.gpr[RAX] = (uint32_t)tsc;
	v->s.gpr[RDX] = tsc >> 32;
}

void op_rdtsc(struct vcpu *v, const struct insn *i)
{
	(void)i;
	load_tsc(v);
}

void op_rdtscp(struct vcpu *v, const struct insn *i)
{
	(void)i;
	load_tsc(v);
	v->s.gpr[RCX] = (uint32_t)v->s.msr_tsc_aux;
}

void op_rdpid(struct vcpu *v, const struct insn *i) { REG64(v, i->reg) = (uint32_t)v->s.msr_tsc_aux; }

/* AMD's four counters, which stand still. Intel's models have none, so that ECX never names one. */
void op_rdpmc(struct vcpu *v, const struct insn *i)
{
	(void)i;
	if ((v->cpl && !(v->s.cr4 & CR4_PCE)) || !is_amd(v->model) || (uint32_t)v->s.gpr[RCX] > 3)
		cpu_raise_error(v, EXC_GP, 0);
	v->s.gpr[RAX] = v->s.gpr[RDX] = 0;
}
