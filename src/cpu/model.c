/*
 * Processor models: which features each one offers, and who carries them out. What the guest reads of them is cpuid.c's
 * business. A model other than `host` is the same on every host, so that a snapshot or a migration works elsewhere.
 */
#include "cpu/private.h"

#include <cpuid.h>
#include <errno.h>

/* The lowest model that offers a feature; LEVEL_HOST: only `host`. Levels v2, v3: System V x86-64 psABI, 3.1.1. */
enum level { LEVEL_V2, LEVEL_V3, LEVEL_HOST };

/* Who carries it out: doppel by itself on any x86-64 host, or the host with its own instruction. */
enum executor { DOPPEL, HOST };

/*
 * Not offered: AVX-512, MPX, CET, TSX, LA57, protection keys; MONITOR, because an idle guest is to use HLT. OSXSAVE
 * mirrors CR4 and HYPERVISOR the command line.
 */
#define OFFERS(_)                                                                                                      \
	_(FPU, V2, DOPPEL)                                                                                             \
	_(VME, V2, DOPPEL)                                                                                             \
	_(DE, V2, DOPPEL)                                                                                              \
	_(PSE, V2, DOPPEL)                                                                                             \
	_(TSC, V2, DOPPEL)                                                                                             \
	_(MSR, V2, DOPPEL)                                                                                             \
	_(PAE, V2, DOPPEL)                                                                                             \
	_(MCE, V2, DOPPEL)                                                                                             \
	_(CX8, V2, DOPPEL)                                                                                             \
	_(APIC, V2, DOPPEL)                                                                                            \
	_(SEP, V2, DOPPEL)                                                                                             \
	_(MTRR, V2, DOPPEL)                                                                                            \
	_(PGE, V2, DOPPEL)                                                                                             \
	_(MCA, V2, DOPPEL)                                                                                             \
	_(CMOV, V2, DOPPEL)                                                                                            \
	_(PAT, V2, DOPPEL)                                                                                             \
	_(PSE36, V2, DOPPEL)                                                                                           \
	_(CLFSH, V2, DOPPEL)                                                                                           \
	_(MMX, V2, DOPPEL)                                                                                             \
	_(FXSR, V2, DOPPEL)                                                                                            \
	_(SSE, V2, DOPPEL)                                                                                             \
	_(SSE2, V2, DOPPEL)                                                                                            \
	_(SYSCALL, V2, DOPPEL)                                                                                         \
	_(NX, V2, DOPPEL)                                                                                              \
	_(LM, V2, DOPPEL)                                                                                              \
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

static const struct offer {
	uint8_t feature, level, executor;
} offers[] = {
#define _(name, lowest, who) { FEATURE_##name, LEVEL_##lowest, who },
	OFFERS(_)
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

/* AVX is the foundation of every 256-bit extension: without it (its state not enabled by the host's system) none is there. */
static void drop_orphans(struct cpu_model *m)
{
	static const uint8_t need_avx[] = { FEATURE_AVX2, FEATURE_FMA, FEATURE_F16C, FEATURE_VAES, FEATURE_VPCLMULQDQ };

	if (m->features[FEATURE_AVX])
		return;
	for (size_t i = 0; i < ARRAY_SIZE(need_avx); i++)
		m->features[need_avx[i]] = false;
}

static int unknown_model(const char *name, struct error *err)
{
	char names[128];
	size_t len = 0;

	names[0] = '\0';
	for (const struct cpu_model_info *i = cpu_models; i->name && len < sizeof(names); i++)
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", len ? ", " : "", i->name);
	return error_set(err, EINVAL, "unknown CPU model '%s': expected one of %s", name, names);
}

int cpu_model_init(struct cpu_model *m, const char *name, bool pure, unsigned cpu_count, struct error *err)
{
	int level = -1;

	for (int i = 0; cpu_models[i].name; i++)
		if (!strcmp(cpu_models[i].name, name))
			level = i;
	if (level < 0)
		return unknown_model(name, err);

	memset(m, 0, sizeof(*m));
	snprintf(m->name, sizeof(m->name), "%s", name);
	m->kvm_pv = !pure;
	m->cpu_count = cpu_count;
	if (level == LEVEL_HOST)
		take_host_identity(m);
	else
		take_fixed_identity(m, (enum level)level);

	for (size_t i = 0; i < ARRAY_SIZE(offers); i++) {
		const struct offer *o = &offers[i];
		bool have = o->executor == DOPPEL || cpu_host_has(o->feature);

		if (o->level > level)
			continue;
		if (!have && level != LEVEL_HOST)
			return error_set(
				err, ENOTSUP,
				"CPU model '%s' needs the host's %s instructions, which this host does not have: "
				"expected model 'host' or a lower level",
				name, cpu_feature_bits[o->feature].name);
		m->features[o->feature] = have;
	}
	drop_orphans(m);
	m->features[FEATURE_HTT] = cpu_count > 1;
	m->features[FEATURE_HYPERVISOR] = !pure;
	return 0;
}
