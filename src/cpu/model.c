/*
 * Processor models: which features each one offers, and who carries them out. What the guest reads of them is cpuid.c's
 * business. A model other than `host` is the same on every host, so that a snapshot or a migration works elsewhere.
 */
#include "cpu/private.h"

#include <cpuid.h>
#include <errno.h>
#include <strings.h>

/*
 * The lowest model that offers a feature. LEVEL_BASE: every x86-64 processor has it, and it cannot be taken away. LEVEL_HOST: only
 * `host`. LEVEL_ASKED: who asks for it. Levels v2, v3: System V x86-64 psABI, 3.1.1.
 */
enum level { LEVEL_BASE, LEVEL_V2, LEVEL_V3, LEVEL_HOST, LEVEL_ASKED };

/* Who carries it out: doppel by itself on any x86-64 host, or the host with its own instruction. */
enum executor { DOPPEL, HOST };

/*
 * Not offered: AVX-512, MPX, CET, TSX, LA57, protection keys; MONITOR, because an idle guest is to use HLT. OSXSAVE
 * mirrors CR4 and HYPERVISOR the command line.
 */
#define OFFERS(_)                                                                                                      \
	_(FPU, BASE, DOPPEL)                                                                                           \
	_(VME, V2, DOPPEL)                                                                                             \
	_(DE, V2, DOPPEL)                                                                                              \
	_(PSE, V2, DOPPEL)                                                                                             \
	_(TSC, BASE, DOPPEL)                                                                                           \
	_(MSR, BASE, DOPPEL)                                                                                           \
	_(PAE, BASE, DOPPEL)                                                                                           \
	_(MCE, V2, DOPPEL)                                                                                             \
	_(CX8, BASE, DOPPEL)                                                                                           \
	_(APIC, BASE, DOPPEL)                                                                                          \
	_(SEP, V2, DOPPEL)                                                                                             \
	_(MTRR, V2, DOPPEL)                                                                                            \
	_(PGE, V2, DOPPEL)                                                                                             \
	_(MCA, V2, DOPPEL)                                                                                             \
	_(CMOV, BASE, DOPPEL)                                                                                          \
	_(PAT, V2, DOPPEL)                                                                                             \
	_(PSE36, V2, DOPPEL)                                                                                           \
	_(CLFSH, V2, DOPPEL)                                                                                           \
	_(MMX, BASE, DOPPEL)                                                                                           \
	_(FXSR, BASE, DOPPEL)                                                                                          \
	_(SSE, BASE, DOPPEL)                                                                                           \
	_(SSE2, BASE, DOPPEL)                                                                                          \
	_(SYSCALL, BASE, DOPPEL)                                                                                       \
	_(NX, V2, DOPPEL)                                                                                              \
	_(LM, BASE, DOPPEL)                                                                                            \
	_(LAHF64, V2, DOPPEL)                                                                                          \
	_(PCID, V2, DOPPEL)                                                                                            \
	_(X2APIC, V2, DOPPEL)                                                                                          \
	_(TSC_DEADLINE, V2, DOPPEL)                                                                                    \
	_(INVTSC, V2, DOPPEL)                                                                                          \
	_(FSGSBASE, V2, DOPPEL)                                                                                        \
	_(TSC_ADJUST, V2, DOPPEL)                                                                                      \
	_(SMEP, V2, DOPPEL)                                                                                            \
	_(SMAP, V2, DOPPEL)                                                                                            \
	_(UMIP, V2, DOPPEL)                                                                                            \
	_(INVPCID, V2, DOPPEL)                                                                                         \
	_(ERMS, V2, DOPPEL)                                                                                            \
	_(FSRM, V2, DOPPEL)                                                                                            \
	_(RDPID, V2, DOPPEL)                                                                                           \
	_(RDTSCP, V2, DOPPEL)                                                                                          \
	_(PDPE1GB, V2, DOPPEL)                                                                                         \
	_(CLFLUSHOPT, V2, DOPPEL)                                                                                      \
	_(CLWB, V2, DOPPEL)                                                                                            \
	_(PREFETCHW, V2, DOPPEL)                                                                                       \
	_(CX16, V2, HOST)                                                                                              \
	_(POPCNT, V2, HOST)                                                                                            \
	_(SSE3, V2, HOST)                                                                                              \
	_(SSSE3, V2, HOST)                                                                                             \
	_(SSE41, V2, HOST)                                                                                             \
	_(SSE42, V2, HOST)                                                                                             \
	_(XSAVE, V3, DOPPEL)                                                                                           \
	_(XSAVEOPT, V3, DOPPEL)                                                                                        \
	_(XSAVEC, V3, DOPPEL)                                                                                          \
	_(XGETBV1, V3, DOPPEL)                                                                                         \
	_(RDRAND, V3, DOPPEL)                                                                                          \
	_(RDSEED, V3, DOPPEL)                                                                                          \
	_(AVX, V3, HOST)                                                                                               \
	_(AVX2, V3, HOST)                                                                                              \
	_(BMI1, V3, HOST)                                                                                              \
	_(BMI2, V3, HOST)                                                                                              \
	_(F16C, V3, HOST)                                                                                              \
	_(FMA, V3, HOST)                                                                                               \
	_(ABM, V3, HOST)                                                                                               \
	_(MOVBE, V3, HOST)                                                                                             \
	_(ADX, HOST, HOST)                                                                                             \
	_(AES, HOST, HOST)                                                                                             \
	_(PCLMULQDQ, HOST, HOST)                                                                                       \
	_(SHA, HOST, HOST)                                                                                             \
	_(VAES, HOST, HOST)                                                                                            \
	_(VPCLMULQDQ, HOST, HOST)

/* Of one vendor's models alone. docs/fidelity.md says what is claimed and what is true of it. */
#define VENDOR_OFFERS(_)                                                                                               \
	_(SPEC_CTRL, V2, DOPPEL, INTEL)                                                                                \
	_(ARCH_CAPABILITIES, V2, DOPPEL, INTEL)                                                                        \
	_(BHI_CTRL, V2, DOPPEL, INTEL)                                                                                 \
	_(RDCL_NO, V2, DOPPEL, INTEL)                                                                                  \
	_(IBRS_ALL, V2, DOPPEL, INTEL)                                                                                 \
	_(SKIP_L1DFL, V2, DOPPEL, INTEL)                                                                               \
	_(MDS_NO, V2, DOPPEL, INTEL)                                                                                   \
	_(PSCHANGE_MC_NO, V2, DOPPEL, INTEL)                                                                           \
	_(TAA_NO, V2, DOPPEL, INTEL)                                                                                   \
	_(SBDR_SSDP_NO, V2, DOPPEL, INTEL)                                                                             \
	_(FBSDP_NO, V2, DOPPEL, INTEL)                                                                                 \
	_(PSDP_NO, V2, DOPPEL, INTEL)                                                                                  \
	_(BHI_NO, V2, DOPPEL, INTEL)                                                                                   \
	_(PBRSB_NO, V2, DOPPEL, INTEL)                                                                                 \
	_(GDS_NO, V2, DOPPEL, INTEL)                                                                                   \
	_(RFDS_NO, V2, DOPPEL, INTEL)                                                                                  \
	_(ITS_NO, V2, DOPPEL, INTEL)                                                                                   \
	_(SSB_NO, ASKED, DOPPEL, INTEL)                                                                                \
	_(MD_CLEAR, HOST, HOST, INTEL)                                                                                 \
	_(BTC_NO, V2, DOPPEL, AMD)                                                                                     \
	_(AUTO_IBRS, V2, DOPPEL, AMD)                                                                                  \
	_(SRSO_NO, V2, DOPPEL, AMD)                                                                                    \
	_(TSA_SQ_NO, V2, DOPPEL, AMD)                                                                                  \
	_(TSA_L1_NO, V2, DOPPEL, AMD)                                                                                  \
	_(AMD_SSB_NO, HOST, HOST, AMD)                                                                                 \
	_(VERW_CLEAR, HOST, HOST, AMD)

enum vendor { ANY, INTEL, AMD };

static const struct offer {
	uint8_t feature, level, executor, vendor;
} offers[] = {
#define _(name, lowest, who) { FEATURE_##name, LEVEL_##lowest, who, ANY },
	OFFERS(_)
#undef _
#define _(name, lowest, who, vendor) { FEATURE_##name, LEVEL_##lowest, who, vendor },
		VENDOR_OFFERS(_)
#undef _
};

/* What a feature is nothing without; those of LEVEL_BASE go without saying. */
/* clang-format off */
#define REQUIREMENTS(_)                                                                                                \
	_(SSSE3, SSE3) _(SSE41, SSSE3) _(SSE42, SSE41) _(XSAVEOPT, XSAVE) _(XSAVEC, XSAVE) _(XGETBV1, XSAVE)           \
	_(AVX, XSAVE) _(AVX, SSE42) _(AVX2, AVX) _(FMA, AVX) _(F16C, AVX) _(VAES, AVX) _(VAES, AES)                    \
	_(VPCLMULQDQ, AVX) _(VPCLMULQDQ, PCLMULQDQ) _(RDPID, RDTSCP) _(BHI_CTRL, SPEC_CTRL) _(IBRS_ALL, SPEC_CTRL)     \
	_(RDCL_NO, ARCH_CAPABILITIES) _(IBRS_ALL, ARCH_CAPABILITIES) _(SKIP_L1DFL, ARCH_CAPABILITIES)                  \
	_(SSB_NO, ARCH_CAPABILITIES) _(MDS_NO, ARCH_CAPABILITIES) _(PSCHANGE_MC_NO, ARCH_CAPABILITIES)                 \
	_(TAA_NO, ARCH_CAPABILITIES) _(SBDR_SSDP_NO, ARCH_CAPABILITIES) _(FBSDP_NO, ARCH_CAPABILITIES)                 \
	_(PSDP_NO, ARCH_CAPABILITIES) _(BHI_NO, ARCH_CAPABILITIES) _(PBRSB_NO, ARCH_CAPABILITIES)                      \
	_(GDS_NO, ARCH_CAPABILITIES) _(RFDS_NO, ARCH_CAPABILITIES) _(ITS_NO, ARCH_CAPABILITIES)
/* clang-format on */

static const struct requirement {
	uint8_t feature, needed;
} requirements[] = {
#define _(name, needed) { FEATURE_##name, FEATURE_##needed },
	REQUIREMENTS(_)
#undef _
};

const struct cpu_feature_bit cpu_feature_bits[FEATURE_COUNT] = {
#define _(name, leaf, sub, reg, bit) { #name, leaf, sub, reg, bit },
	CPU_FEATURES(_)
#undef _
};

const struct cpu_model_info cpu_models[] = {
	{ "v2", "x86-64-v2: SSE4.2, POPCNT, CMPXCHG16B; runs on any host of this level" },
	{ "v3", "x86-64-v3: v2 and AVX2, BMI, FMA, XSAVE, RDRAND; runs on any host of this level" },
	{ "host", "whatever this host's processor and doppel both have" },
	{ NULL, NULL },
};

/*
 * v2 and v3 are Intel's kind of processor: its CPUID says the TSC's rate (leaf 0x15), which spares the guest a calibration,
 * and kernels know its ARCH_CAPABILITIES the longest. No product has these model numbers (06_F2H, 06_F3H): guests keep to
 * the features announced instead of a table of some product's errata, counters and power registers.
 */
static const struct fixed_identity {
	const char *brand;
	uint32_t signature;
} fixed_identities[] = {
	[LEVEL_V2] = { "x86-64-v2 Processor", 0x000f0621 },
	[LEVEL_V3] = { "x86-64-v3 Processor", 0x000f0631 },
};

const char *cpu_feature_name(enum cpu_feature feature) { return cpu_feature_bits[feature].name; }

bool cpu_host_has(enum cpu_feature feature)
{
	const struct cpu_feature_bit *b = &cpu_feature_bits[feature];
	uint32_t r[4];

	if (!__get_cpuid_count(b->leaf, b->subleaf, &r[0], &r[1], &r[2], &r[3]))
		return false;
	if (feature == FEATURE_AVX) {
		/* The host's system must switch the upper halves too. */
		uint32_t lo, hi, a, bx, c, d;
		__cpuid(1, a, bx, c, d);
		if (!(c & bit_OSXSAVE))
			return false;
		__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		if ((lo & (XCR0_SSE | XCR0_AVX)) != (XCR0_SSE | XCR0_AVX))
			return false;
	}
	return r[b->reg] >> b->bit & 1;
}

static void take_host_identity(struct cpu_model *m)
{
	uint32_t r[4], max;

	__cpuid(0, max, r[0], r[2], r[1]);
	memcpy(m->vendor, r, 12);
	__cpuid(1, m->signature, r[0], r[1], r[2]);
	max = __get_cpuid_max(0x80000000, NULL);
	for (unsigned i = 0; i < 3 && max >= 0x80000004; i++) {
		__cpuid(0x80000002 + i, r[0], r[1], r[2], r[3]);
		memcpy(m->brand + 16 * i, r, 16);
	}
}

static void take_fixed_identity(struct cpu_model *m, enum level level)
{
	const struct fixed_identity *f = &fixed_identities[level];

	memcpy(m->vendor, "GenuineIntel", sizeof(m->vendor));
	m->signature = f->signature;
	snprintf(m->brand, sizeof(m->brand), "%s", f->brand);
}

static const struct requirement *find_orphan(const struct cpu_model *m)
{
	for (const struct requirement *r = requirements; r < requirements + ARRAY_SIZE(requirements); r++)
		if (m->features[r->feature] && !m->features[r->needed])
			return r;
	return NULL;
}

static bool host_executes(const struct offer *o) { return o->executor == DOPPEL || cpu_host_has(o->feature); }

static bool suits_vendor(const struct cpu_model *m, const struct offer *o)
{
	return o->vendor == ANY || (o->vendor == AMD) == is_amd(m);
}

static int unknown_model(const char *spec, size_t length, struct error *err)
{
	char names[128];
	size_t len = 0;

	names[0] = '\0';
	for (const struct cpu_model_info *i = cpu_models; i->name && len < sizeof(names); i++)
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", len ? ", " : "", i->name);
	return error_set(err, EINVAL, "unknown CPU model '%.*s': expected one of %s", (int)length, spec, names);
}

/* ---- flags ---- */

static int find_feature(const char *name, size_t length)
{
	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		if (strlen(cpu_feature_bits[f].name) == length && !strncasecmp(cpu_feature_bits[f].name, name, length))
			return (int)f;
	return -1;
}

static const struct offer *find_offer(int feature)
{
	for (size_t i = 0; i < ARRAY_SIZE(offers); i++)
		if (offers[i].feature == feature)
			return &offers[i];
	return NULL;
}

static int refuse_flag(const char *flag, size_t length, const char *why, int code, struct error *err)
{
	return error_set(err, code, "CPU flag '%.*s' %s", (int)length, flag, why);
}

/* One +FLAG or -FLAG. */
static int choose(struct cpu_model *m, const char *flag, size_t length, struct error *err)
{
	bool add = flag[0] == '+';
	const struct offer *o;
	int feature;

	if (length < 2 || (flag[0] != '+' && flag[0] != '-'))
		return refuse_flag(flag, length, "is none: expected +FLAG or -FLAG", EINVAL, err);
	feature = find_feature(flag + 1, length - 1);
	if (feature < 0)
		return refuse_flag(flag, length, "is unknown: expected one of those in doppel(1), such as -AVX2",
				   EINVAL, err);
	if (feature == FEATURE_HTT || feature == FEATURE_OSXSAVE || feature == FEATURE_HYPERVISOR)
		return refuse_flag(flag, length, "cannot be chosen: it follows --cpus, CR4 or --pure", EINVAL, err);
	o = find_offer(feature);
	if (!o)
		return refuse_flag(flag, length, "cannot be chosen: doppel does not implement it", EINVAL, err);
	if (!suits_vendor(m, o))
		return refuse_flag(flag, length,
				   o->vendor == AMD ? "is AMD's, and this model is not"
						    : "is Intel's, and this model is not",
				   EINVAL, err);
	if (!add && o->level == LEVEL_BASE)
		return refuse_flag(flag, length, "cannot be taken away: every x86-64 processor has it", EINVAL, err);
	if (add && !host_executes(o))
		return refuse_flag(flag, length, "cannot be had: this host's processor does not have it", ENOTSUP, err);
	m->features[feature] = add;
	return 0;
}

/* All of ",FLAG,FLAG...". */
static int choose_flags(struct cpu_model *m, const char *flags, struct error *err)
{
	const struct requirement *orphan;

	while (*flags) {
		size_t length = strcspn(++flags, ",");
		int ret = choose(m, flags, length, err);

		if (ret)
			return ret;
		flags += length;
	}
	orphan = find_orphan(m);
	if (orphan)
		return error_set(err, EINVAL, "CPU flag %s needs %s: expected both or neither",
				 cpu_feature_bits[orphan->feature].name, cpu_feature_bits[orphan->needed].name);
	return 0;
}

/* ---- models ---- */

static int find_level(const char *spec, size_t length)
{
	for (int i = 0; cpu_models[i].name; i++)
		if (strlen(cpu_models[i].name) == length && !memcmp(cpu_models[i].name, spec, length))
			return LEVEL_V2 + i;
	return -1;
}

int cpu_model_init(struct cpu_model *m, const char *spec, bool pure, unsigned cpu_count, struct error *err)
{
	size_t length = strcspn(spec, ",");
	const struct requirement *orphan;
	int level = find_level(spec, length);

	if (level < 0)
		return unknown_model(spec, length, err);

	memset(m, 0, sizeof(*m));
	snprintf(m->name, sizeof(m->name), "%.*s", (int)length, spec);
	m->kvm_pv = !pure;
	m->cpu_count = cpu_count;
	if (level == LEVEL_HOST)
		take_host_identity(m);
	else
		take_fixed_identity(m, (enum level)level);

	for (size_t i = 0; i < ARRAY_SIZE(offers); i++) {
		const struct offer *o = &offers[i];

		if ((int)o->level > level || !suits_vendor(m, o))
			continue;
		if (!host_executes(o) && level != LEVEL_HOST)
			return error_set(
				err, ENOTSUP,
				"CPU model '%s' needs the host's %s instructions, which this host does not have: "
				"expected model 'host' or a lower level",
				m->name, cpu_feature_bits[o->feature].name);
		m->features[o->feature] = host_executes(o);
	}
	/* AVX whose state the host's system does not switch, and what there is with it. */
	while ((orphan = find_orphan(m)))
		m->features[orphan->feature] = false;
	m->features[FEATURE_HTT] = cpu_count > 1;
	m->features[FEATURE_HYPERVISOR] = !pure;
	return choose_flags(m, spec + length, err);
}
