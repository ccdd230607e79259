/*
 * CPUID: what the guest reads of its processor model. Feature bits come from CPU_FEATURES (model.h), everything else from the
 * table of leaves at the end. SDM vol. 2A CPUID; APM vol. 3 appendix E.
 */
#include "cpu/private.h"

/* ---- topology and caches: one package, one thread a core, APIC ID = index ---- */

static unsigned log2_up(unsigned n) { return n > 1 ? 32 - (unsigned)__builtin_clz(n - 1) : 0; }

enum cache_type { CACHE_DATA = 1, CACHE_CODE, CACHE_UNIFIED };

/* A plausible server part: what guests size their algorithms by. */
static const struct cache {
	uint8_t level, type, ways;
	uint32_t kib;
	bool shared; /* by all cores */
} caches[] = {
	{ 1, CACHE_DATA, 8, 32, false },
	{ 1, CACHE_CODE, 8, 32, false },
	{ 2, CACHE_UNIFIED, 8, 512, false },
	{ 3, CACHE_UNIFIED, 16, 16384, true },
};

/* Leaf 4, and AMD's 0x8000001d in the same layout. */
static void cache_parameters(const struct vcpu *v, uint32_t index, struct cpuid_regs *r)
{
	unsigned shift = log2_up(v->model->cpu_count);

	if (index >= ARRAY_SIZE(caches))
		return;
	const struct cache *c = &caches[index];

	r->eax = (uint32_t)c->type | (uint32_t)c->level << 5 | 1u << 8 | (c->shared ? (1u << shift) - 1 : 0) << 14;
	if (!is_amd(v->model))
		r->eax |= ((1u << shift) - 1) << 26;
	r->ebx = (CACHE_LINE - 1) | (c->ways - 1u) << 22;
	r->ecx = c->kib * 1024 / CACHE_LINE / c->ways - 1;
}

static void topology(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	enum { LEVEL_SMT = 1, LEVEL_CORE = 2 };

	r->ecx = sub & 0xff;
	r->edx = v->index;
	if (sub == 0) {
		r->ebx = 1;
		r->ecx |= LEVEL_SMT << 8;
	} else if (sub == 1) {
		r->eax = log2_up(v->model->cpu_count);
		r->ebx = v->model->cpu_count;
		r->ecx |= LEVEL_CORE << 8;
	}
}

/* ---- basic leaves ---- */

#define MAX_BASIC_INTEL	   0x16u
#define MAX_BASIC_LIMITED  2u
#define MAX_BASIC_AMD	   0xdu
#define MAX_EXTENDED_INTEL 0x80000008u
#define MAX_EXTENDED_AMD   0x80000021u

static uint32_t max_basic(const struct vcpu *v)
{
	if (is_amd(v->model))
		return MAX_BASIC_AMD;
	return v->s.msr_misc_enable & MISC_ENABLE_LIMIT_CPUID ? MAX_BASIC_LIMITED : MAX_BASIC_INTEL;
}

static void vendor_string(const struct vcpu *v, struct cpuid_regs *r)
{
	const char *vendor = v->model->vendor;

	r->ebx = load_le32(vendor);
	r->edx = load_le32(vendor + 4);
	r->ecx = load_le32(vendor + 8);
}

static void leaf_0(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)sub;
	r->eax = max_basic(v);
	vendor_string(v, r);
}

/* IA32_APIC_BASE's enable bit shows in CPUID, SDM vol. 3A 11.4.3. */
static bool apic_enabled(struct vcpu *v)
{
	uint64_t base;

	if (!v->env || !v->env->apic_msr_read || v->env->apic_msr_read(v, 0x1b, &base))
		return true;
	return base & BIT(11);
}

static void leaf_1(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	unsigned ids = 1u << log2_up(v->model->cpu_count);

	(void)sub;
	r->eax = v->model->signature;
	r->ebx = v->index << 24 | (ids & 0xff) << 16 | (CACHE_LINE / 8) << 8;
}

/* One descriptor, 0xff: "see leaf 4". The low byte, 1, says that one CPUID is enough. */
static void leaf_2(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)v;
	(void)sub;
	r->eax = 0xff01;
}

static void leaf_6(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)v;
	(void)sub;
	r->eax = BIT(2); /* ARAT: the APIC timer runs in every idle state */
}

static void leaf_7(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	if (sub == 0 && !is_amd(v->model))
		r->eax = 2; /* last subleaf */
}

/* The image of xsave.c: legacy area, header, then YMM's upper halves, where both formats have them. */
enum { XSAVE_LEGACY_SIZE = 512 + 64, XSAVE_YMM_SIZE = 256 };

static uint32_t xsave_size(uint64_t xcr0) { return XSAVE_LEGACY_SIZE + (xcr0 & XCR0_AVX ? XSAVE_YMM_SIZE : 0); }

static void leaf_d(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	if (!has_feature(v, FEATURE_XSAVE))
		return;
	if (sub == 0) {
		r->eax = (uint32_t)cpu_xcr0_offered(v);
		r->ebx = xsave_size(v->s.xcr0);
		r->ecx = xsave_size(cpu_xcr0_offered(v));
	} else if (sub == 1 && has_feature(v, FEATURE_XSAVEC)) {
		r->ebx = xsave_size(v->s.xcr0);
	} else if (sub == 2 && has_feature(v, FEATURE_AVX)) {
		r->eax = XSAVE_YMM_SIZE;
		r->ebx = XSAVE_LEGACY_SIZE;
	}
}

/* TSC = crystal * EBX / EAX */
static void leaf_15(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)sub;
	r->eax = 1;
	r->ebx = (uint32_t)(clock_tsc_hz(v->clock) / clock_crystal_hz(v->clock));
	r->ecx = (uint32_t)clock_crystal_hz(v->clock);
}

static void leaf_16(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)sub;
	r->eax = r->ebx = (uint32_t)((clock_tsc_hz(v->clock) + 500000) / 1000000); /* base and maximum, MHz */
	r->ecx = 100;								   /* bus, MHz */
}

/* ---- paravirtual leaves ---- */

static void leaf_kvm_signature(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)v;
	(void)sub;
	r->eax = KVM_CPUID_BASE + 0x10;
	r->ebx = load_le32("KVMK");
	r->ecx = load_le32("VMKV");
	r->edx = load_le32("M\0\0\0");
}

static void leaf_kvm_features(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)v;
	(void)sub;
	r->eax = KVM_FEATURES;
}

static void leaf_kvm_rates(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)sub;
	r->eax = (uint32_t)(clock_tsc_hz(v->clock) / 1000);	/* TSC, kHz */
	r->ebx = (uint32_t)(clock_crystal_hz(v->clock) / 1000); /* APIC timer's input, kHz */
}

/* ---- extended leaves ---- */

static void leaf_80000000(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)sub;
	r->eax = is_amd(v->model) ? MAX_EXTENDED_AMD : MAX_EXTENDED_INTEL;
	if (is_amd(v->model))
		vendor_string(v, r);
}

static void leaf_80000001(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	/* AMD repeats these of leaf 1's EDX. */
	static const uint8_t repeated[] = {
		FEATURE_FPU, FEATURE_VME,  FEATURE_DE,	FEATURE_PSE,   FEATURE_TSC,  FEATURE_MSR,
		FEATURE_PAE, FEATURE_MCE,  FEATURE_CX8, FEATURE_APIC,  FEATURE_MTRR, FEATURE_PGE,
		FEATURE_MCA, FEATURE_CMOV, FEATURE_PAT, FEATURE_PSE36, FEATURE_MMX,  FEATURE_FXSR,
	};

	(void)sub;
	if (!is_amd(v->model))
		return;
	r->eax = v->model->signature;
	for (size_t i = 0; i < ARRAY_SIZE(repeated); i++)
		if (has_feature(v, repeated[i]))
			r->edx |= (uint32_t)BIT(cpu_feature_bits[repeated[i]].bit);
	r->edx |= BIT(22); /* MmxExt: part of SSE */
	r->ecx |= BIT(22); /* TopologyExtensions: 0x8000001d, 0x8000001e */
	if (v->model->cpu_count > 1)
		r->ecx |= BIT(1); /* CmpLegacy: cores, not threads */
}

static void leaf_brand(const struct vcpu *v, uint32_t leaf, struct cpuid_regs *r)
{
	const char *part = v->model->brand + 16 * (leaf - 0x80000002);

	r->eax = load_le32(part);
	r->ebx = load_le32(part + 4);
	r->ecx = load_le32(part + 8);
	r->edx = load_le32(part + 12);
}

static void leaf_80000002(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)sub;
	leaf_brand(v, 0x80000002, r);
}
static void leaf_80000003(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)sub;
	leaf_brand(v, 0x80000003, r);
}
static void leaf_80000004(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)sub;
	leaf_brand(v, 0x80000004, r);
}

/* AMD's L1 caches: KiB, ways, lines per tag, line size. */
static void leaf_80000005(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)v;
	(void)sub;
	r->ecx = caches[0].kib << 24 | (uint32_t)caches[0].ways << 16 | 1u << 8 | CACHE_LINE;
	r->edx = caches[1].kib << 24 | (uint32_t)caches[1].ways << 16 | 1u << 8 | CACHE_LINE;
}

static void leaf_80000006(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	enum { WAYS_8 = 6, WAYS_16 = 8 }; /* codes of the associativity field */

	(void)sub;
	r->ecx = caches[2].kib << 16 | WAYS_8 << 12 | CACHE_LINE;
	if (!is_amd(v->model))
		return;
	r->ecx |= 1u << 8; /* lines a tag */
	r->edx = caches[3].kib / 512 << 18 | WAYS_16 << 12 | 1u << 8 | CACHE_LINE;
}

static void leaf_80000008(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)sub;
	r->eax = CPU_PHYS_BITS | 48 << 8;
	if (!is_amd(v->model))
		return;
	r->ecx = (v->model->cpu_count - 1) | log2_up(v->model->cpu_count) << 12;
}

static void leaf_8000001e(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)sub;
	r->eax = v->index;
	r->ebx = v->index & 0xff; /* core ID; one thread a core */
}

static void leaf_80000021(const struct vcpu *v, uint32_t sub, struct cpuid_regs *r)
{
	(void)v;
	(void)sub;
	r->eax = BIT(2) | BIT(6); /* LFENCE always serialises, null selectors clear the base */
}

/* ---- the table ---- */

enum vendor { ANY, INTEL, AMD, KVM };

static const struct leaf {
	uint32_t leaf;
	uint8_t vendor;
	void (*fill)(const struct vcpu *, uint32_t subleaf, struct cpuid_regs *);
} leaves[] = {
	{ 0, ANY, leaf_0 },
	{ 1, ANY, leaf_1 },
	{ 2, INTEL, leaf_2 },
	{ 4, INTEL, cache_parameters },
	{ 6, ANY, leaf_6 },
	{ 7, ANY, leaf_7 },
	{ 0xb, ANY, topology },
	{ 0xd, ANY, leaf_d },
	{ 0x15, INTEL, leaf_15 },
	{ 0x16, INTEL, leaf_16 },
	{ KVM_CPUID_BASE, KVM, leaf_kvm_signature },
	{ KVM_CPUID_BASE + 1, KVM, leaf_kvm_features },
	{ KVM_CPUID_BASE + 0x10, KVM, leaf_kvm_rates },
	{ 0x80000000, ANY, leaf_80000000 },
	{ 0x80000001, ANY, leaf_80000001 },
	{ 0x80000002, ANY, leaf_80000002 },
	{ 0x80000003, ANY, leaf_80000003 },
	{ 0x80000004, ANY, leaf_80000004 },
	{ 0x80000005, AMD, leaf_80000005 },
	{ 0x80000006, ANY, leaf_80000006 },
	{ 0x80000008, ANY, leaf_80000008 },
	{ 0x8000001d, AMD, cache_parameters },
	{ 0x8000001e, AMD, leaf_8000001e },
	{ 0x80000021, AMD, leaf_80000021 },
};

static bool vendor_matches(const struct cpu_model *m, enum vendor vendor)
{
	switch (vendor) {
	case INTEL: return !is_amd(m);
	case AMD: return is_amd(m);
	case KVM: return m->kvm_pv;
	default: return true;
	}
}

/* Feature bits of a leaf without subleaves are in each of them. */
static void add_features(const struct vcpu *v, uint32_t leaf, uint32_t sub, struct cpuid_regs *r)
{
	uint32_t *reg[] = { &r->eax, &r->ebx, &r->ecx, &r->edx };

	if (leaf != 7 && leaf != 0xd)
		sub = 0;
	for (unsigned f = 0; f < FEATURE_COUNT; f++) {
		const struct cpu_feature_bit *b = &cpu_feature_bits[f];
		if (b->leaf == leaf && b->subleaf == sub && v->model->features[f])
			*reg[b->reg] |= (uint32_t)BIT(b->bit);
	}
}

/* Bits that mirror registers and the mode rather than the model. */
static uint32_t mask_of(enum cpu_feature f) { return (uint32_t)BIT(cpu_feature_bits[f].bit); }

static void add_live_bits(struct vcpu *v, uint32_t leaf, struct cpuid_regs *r)
{
	if (leaf == 1) {
		if (v->s.cr4 & CR4_OSXSAVE)
			r->ecx |= mask_of(FEATURE_OSXSAVE);
		if (!apic_enabled(v))
			r->edx &= ~mask_of(FEATURE_APIC);
	} else if (leaf == 0x80000001 && is_amd(v->model)) {
		if (!apic_enabled(v))
			r->edx &= ~mask_of(FEATURE_APIC);
	} else if (leaf == 0x80000001) {
		/* Intel's have SYSCALL in 64-bit mode alone. */
		if (v->code_mode != MODE_64)
			r->edx &= ~mask_of(FEATURE_SYSCALL);
		if (v->s.msr_misc_enable & MISC_ENABLE_XD_DISABLE)
			r->edx &= ~mask_of(FEATURE_NX);
	}
}

struct cpuid_regs cpu_cpuid(struct vcpu *v, uint32_t leaf, uint32_t sub)
{
	bool extended = leaf >= 0x80000000 && leaf <= (is_amd(v->model) ? MAX_EXTENDED_AMD : MAX_EXTENDED_INTEL);
	bool kvm = v->model->kvm_pv && leaf >= KVM_CPUID_BASE && leaf < KVM_CPUID_BASE + 0x100;
	struct cpuid_regs r = { 0 };

	/* Beyond the last leaf Intel answers as for the last basic one, AMD with zeros. */
	if (leaf > max_basic(v) && !extended && !kvm) {
		if (is_amd(v->model))
			return r;
		leaf = max_basic(v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		if (leaves[i].leaf == leaf && vendor_matches(v->model, leaves[i].vendor))
			leaves[i].fill(v, sub, &r);
	add_features(v, leaf, sub, &r);
	add_live_bits(v, leaf, &r);
	return r;
}

void op_cpuid(struct vcpu *v, const struct insn *i)
{
	uint32_t leaf = (uint32_t)v->s.gpr[RAX], sub = (uint32_t)v->s.gpr[RCX];
	struct cpuid_regs r = cpu_cpuid(v, leaf, sub);

	v->count[COUNT_CPUIDS]++;
	TRACE(v->trace, CPUID, "cpu%u cpuid %#x.%#x = %#x %#x %#x %#x", v->index, leaf, sub, r.eax, r.ebx, r.ecx,
	      r.edx);
	v->s.gpr[RAX] = r.eax;
	v->s.gpr[RBX] = r.ebx;
	v->s.gpr[RCX] = r.ecx;
	v->s.gpr[RDX] = r.edx;
	v->s.rip = cpu_next_rip(v, i);
}
