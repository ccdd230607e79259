/* Processor models and CPUID: what they promise, and that the leaves agree with each other. */
#include "lib/cpu_fixture.h"

#include <errno.h>

static struct cpuid_regs get(struct cpu_fixture *f, uint32_t leaf, uint32_t sub) { return cpu_cpuid(f->v, leaf, sub); }

static void set_vendor(struct cpu_fixture *f, const char *vendor) { memcpy(f->model.vendor, vendor, 13); }

static void unknown_model_is_refused(void **state)
{
	struct cpu_model m;
	struct error err = { 0 };

	(void)state;
	assert_int_equal(cpu_model_init(&m, "v9", false, 1, &err), -EINVAL);
	assert_non_null(strstr(err.text, "v9"));
	assert_non_null(strstr(err.text, "v2, v3, host"));
}

static void models_have_their_level(void **state)
{
	struct cpu_model v2, v3, host;

	(void)state;
	assert_int_equal(cpu_model_init(&v2, "v2", false, 1, NULL), 0);
	assert_true(v2.features[FEATURE_SSE42] && v2.features[FEATURE_POPCNT] && v2.features[FEATURE_CX16]);
	assert_true(v2.features[FEATURE_X2APIC] && v2.features[FEATURE_PCID] && v2.features[FEATURE_NX]);
	assert_false(v2.features[FEATURE_AVX] || v2.features[FEATURE_XSAVE] || v2.features[FEATURE_BMI1]);
	assert_false(v2.features[FEATURE_MONITOR] || v2.features[FEATURE_OSXSAVE] || v2.features[FEATURE_HTT]);

	int ret = cpu_model_init(&v3, "v3", false, 2, NULL);
	assert_true(ret == 0 || ret == -ENOTSUP);
	if (ret == 0) {
		assert_true(v3.features[FEATURE_AVX2] && v3.features[FEATURE_MOVBE] && v3.features[FEATURE_XSAVE]);
		assert_true(v3.features[FEATURE_HTT]);
		assert_false(v3.features[FEATURE_AES]);
	}

	assert_int_equal(cpu_model_init(&host, "host", true, 1, NULL), 0);
	for (unsigned i = 0; i < FEATURE_MD_CLEAR; i++) /* the rest are one vendor's */
		if (v2.features[i] && i != FEATURE_HYPERVISOR)
			assert_true(host.features[i]);
}

static void flags_choose_features(void **state)
{
	struct cpu_model m, plain;

	(void)state;
	assert_int_equal(cpu_model_init(&plain, "v2", true, 1, NULL), 0);
	assert_int_equal(cpu_model_init(&m, "v2,-SSE42,+RDRAND,-pcid", true, 1, NULL), 0);
	assert_string_equal(m.name, "v2");
	for (unsigned i = 0; i < FEATURE_COUNT; i++) {
		bool changed = i == FEATURE_SSE42 || i == FEATURE_RDRAND || i == FEATURE_PCID;

		assert_int_equal(m.features[i], plain.features[i] ^ changed);
	}
	/* The last word counts; what is there already may be added. */
	assert_int_equal(cpu_model_init(&m, "v2,-NX,+NX,+PAT", true, 1, NULL), 0);
	assert_memory_equal(m.features, plain.features, sizeof(m.features));
	assert_int_equal(cpu_model_init(&m, "v2,+XSAVE,+XSAVEOPT", true, 1, NULL), 0);
	assert_int_equal(cpu_model_init(&m, "v2,-SSE42,-SSE41,-SSSE3,-SSE3", true, 1, NULL), 0);
}

static void wrong_flags_are_refused(void **state)
{
	static const struct {
		const char *spec, *text;
	} cases[] = {
		{ "v2,", "expected +FLAG" },
		{ "v2,SSE3", "'SSE3'" },
		{ "v2,+", "'+'" },
		{ "v2,+SSE3,,-NX", "''" },
		{ "v2,+SSE", "" }, /* there already */
		{ "v2,+SSE9", "'+SSE9' is unknown" },
		{ "v2,+SSE4", "'+SSE4' is unknown" },
		{ "v9,+SSE3", "v2, v3, host" },
		{ "v2,+MONITOR", "does not implement" },
		{ "v2,-MONITOR", "does not implement" },
		{ "v2,-HTT", "--cpus" },
		{ "v2,-HYPERVISOR", "--pure" },
		{ "v2,-LM", "every x86-64 processor" },
		{ "v2,-SSE2", "every x86-64 processor" },
		{ "v2,+BTC_NO", "is AMD's" },
		{ "v2,-SRSO_NO", "is AMD's" },
		{ "v2,+XSAVEOPT", "XSAVEOPT needs XSAVE" },
		{ "v2,-SSE41", "SSE42 needs SSE41" },
		{ "v2,-ARCH_CAPABILITIES", "needs ARCH_CAPABILITIES" },
	};
	struct cpu_model m;

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
		struct error err = { 0 };

		assert_int_equal(cpu_model_init(&m, cases[n].spec, true, 1, &err), *cases[n].text ? -EINVAL : 0);
		assert_non_null(strstr(err.text, cases[n].text));
	}
}

/* What is said of attacks on speculation is what --cpu says; nothing else goes with it. */
static void defences_can_be_chosen(void **state)
{
	struct cpu_fixture f;
	uint64_t all, value;

	(void)state;
	fixture_setup(&f, "v2", true, NULL);
	assert_int_equal(get(&f, 7, 0).edx & (1u << 10 | 1u << 26 | 1u << 29), 1u << 26 | 1u << 29);
	assert_int_equal(get(&f, 7, 2).edx, 1u << 4);
	assert_int_equal(cpu_read_msr(f.v, 0x10a, &all), 0);
	assert_int_equal(all & 0x3b, 0x2b); /* RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO; not SSB_NO */
	assert_true(all >> 62 & 1);
	fixture_teardown(&f);

	fixture_setup(&f, "v2,-RDCL_NO,+SSB_NO", true, NULL);
	assert_int_equal(cpu_read_msr(f.v, 0x10a, &value), 0);
	assert_true(value == (all ^ 0x11));
	fixture_teardown(&f);

	fixture_setup(&f, "v2,-BHI_CTRL", true, NULL);
	assert_int_equal(get(&f, 7, 2).edx, 0);
	assert_int_equal(cpu_write_msr(f.v, 0x48, 3), 0);
	assert_int_equal(cpu_write_msr(f.v, 0x48, 1 << 10), -1);
	fixture_teardown(&f);

	fixture_setup(&f, "v2,-IBRS_ALL,-BHI_CTRL,-SPEC_CTRL", true, NULL);
	assert_int_equal(get(&f, 7, 0).edx & 1u << 26, 0);
	assert_int_equal(cpu_read_msr(f.v, 0x48, &value), -1);
	assert_int_equal(cpu_write_msr(f.v, 0x49, 1), -1);
	fixture_teardown(&f);
}

static void vendors_agree_on_signature_and_limits(void **state)
{
	static const char *const vendors[] = { "GenuineIntel", "AuthenticAMD" };
	struct cpu_fixture f;

	(void)state;
	fixture_setup(&f, "v2", false, NULL);
	for (size_t n = 0; n < ARRAY_SIZE(vendors); n++) {
		set_vendor(&f, vendors[n]);
		struct cpuid_regs r = get(&f, 0, 0);
		assert_memory_equal(&r.ebx, vendors[n], 4);
		assert_memory_equal(&r.edx, vendors[n] + 4, 4);
		assert_memory_equal(&r.ecx, vendors[n] + 8, 4);
		assert_true(r.eax >= 0xd);
		assert_int_equal(get(&f, 1, 0).eax, f.model.signature);
		r = get(&f, 0x80000008, 0);
		assert_int_equal(r.eax, 40 | 48 << 8);
		assert_true(get(&f, 0x80000007, 0).edx & BIT(8));
	}
	fixture_teardown(&f);
}

static void leaves_beyond_the_last(void **state)
{
	struct cpu_fixture f;

	(void)state;
	fixture_setup(&f, "v2", true, NULL);
	set_vendor(&f, "GenuineIntel");
	struct cpuid_regs last = get(&f, get(&f, 0, 0).eax, 7), r = get(&f, 0x12345678, 7);
	assert_memory_equal(&r, &last, sizeof(r));
	r = get(&f, 0x40000000, 7);
	assert_memory_equal(&r, &last, sizeof(r));
	set_vendor(&f, "AuthenticAMD");
	r = get(&f, 0x40000000, 0);
	assert_int_equal(r.eax | r.ebx | r.ecx | r.edx, 0);
	fixture_teardown(&f);
}

/* Nothing tells a --pure guest. */
static void pure_hides_the_hypervisor(void **state)
{
	struct cpu_fixture f;

	(void)state;
	fixture_setup(&f, "v2", true, NULL);
	assert_false(get(&f, 1, 0).ecx & BIT(31));
	fixture_teardown(&f);

	fixture_setup(&f, "v2", false, NULL);
	struct cpuid_regs r = get(&f, 0x40000000, 0);
	assert_true(get(&f, 1, 0).ecx & BIT(31));
	assert_memory_equal(&r.ebx, "KVMK", 4);
	assert_memory_equal(&r.ecx, "VMKV", 4);
	assert_memory_equal(&r.edx, "M\0\0\0", 4);
	assert_true(r.eax >= 0x40000010);
	assert_true(get(&f, 0x40000001, 0).eax & BIT(3));
	assert_int_equal(get(&f, 0x40000010, 0).eax, 1000000);
	fixture_teardown(&f);
}

/* What the leaves say of the TSC is the clock's own rate, exactly: a guest need not measure. */
static void tsc_rate(void **state)
{
	static const uint64_t rates[] = { 800000000, 1000000000, 2596122142, 4300000000, 4700000000 };
	struct cpu_fixture f;

	(void)state;
	fixture_setup(&f, "v2", false, NULL);
	for (unsigned n = 0; n < ARRAY_SIZE(rates); n++) {
		struct cpuid_regs crystal, kvm;

		assert_int_equal(clock_set_tsc_hz(f.clock, rates[n], NULL), 0);
		crystal = get(&f, 0x15, 0);
		kvm = get(&f, 0x40000010, 0);
		assert_int_equal((uint64_t)crystal.ecx * crystal.ebx / crystal.eax, clock_tsc_hz(f.clock));
		/* Linux computes so, in 32 bits. */
		assert_int_equal(crystal.ecx / 1000 * crystal.ebx / crystal.eax, clock_tsc_hz(f.clock) / 1000);
		assert_int_equal(crystal.ecx, clock_crystal_hz(f.clock));
		assert_int_equal(get(&f, 0x16, 0).eax, (clock_tsc_hz(f.clock) + 500000) / 1000000);
		assert_int_equal(kvm.eax * 1000ull, clock_tsc_hz(f.clock));
		assert_int_equal(kvm.ebx * 1000ull, clock_crystal_hz(f.clock));
	}
	fixture_teardown(&f);
}

static void live_bits(void **state)
{
	struct cpu_fixture f;

	(void)state;
	fixture_setup(&f, "host", true, NULL);
	f.model.features[FEATURE_XSAVE] = f.model.features[FEATURE_AVX] = true;
	assert_false(get(&f, 1, 0).ecx & BIT(27));
	f.v->s.cr4 |= CR4_OSXSAVE;
	assert_true(get(&f, 1, 0).ecx & BIT(27));

	f.v->s.xcr0 = XCR0_X87;
	assert_int_equal(get(&f, 0xd, 0).ebx, 576);
	f.v->s.xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
	struct cpuid_regs r = get(&f, 0xd, 0);
	assert_int_equal(r.eax, 7);
	assert_int_equal(r.ebx, 832);
	assert_int_equal(r.ecx, 832);
	r = get(&f, 0xd, 2);
	assert_int_equal(r.eax, 256);
	assert_int_equal(r.ebx, 576);
	r = get(&f, 0xd, 3);
	assert_int_equal(r.eax | r.ebx, 0);
	fixture_teardown(&f);
}

static void topology_of_six_cpus(void **state)
{
	struct cpu_fixture f;

	(void)state;
	fixture_setup(&f, "v2", true, NULL);
	f.model.cpu_count = 6;
	f.v->index = 5;
	set_vendor(&f, "GenuineIntel");
	assert_int_equal(get(&f, 1, 0).ebx, 5u << 24 | 8 << 16 | 8 << 8);
	struct cpuid_regs r = get(&f, 0xb, 0);
	assert_int_equal(r.eax, 0);
	assert_int_equal(r.ebx, 1);
	assert_int_equal(r.ecx, 1 << 8);
	r = get(&f, 0xb, 1);
	assert_int_equal(r.eax, 3);
	assert_int_equal(r.ebx, 6);
	assert_int_equal(r.ecx, 2 << 8 | 1);
	assert_int_equal(r.edx, 5);
	r = get(&f, 0xb, 2);
	assert_int_equal(r.ebx, 0);
	assert_int_equal(r.ecx, 2);
	assert_int_equal(get(&f, 4, 0).eax >> 26, 7);
	assert_int_equal(get(&f, 4, 3).eax >> 14 & 0xfff, 7);
	assert_int_equal(get(&f, 4, 4).eax, 0);
	set_vendor(&f, "AuthenticAMD");
	assert_int_equal(get(&f, 0x80000008, 0).ecx, 5 | 3 << 12);
	assert_int_equal(get(&f, 0x8000001e, 0).eax, 5);
	fixture_teardown(&f);
}

static void brand_string(void **state)
{
	struct cpu_fixture f;
	char brand[49] = "";

	(void)state;
	fixture_setup(&f, "v2", true, NULL);
	for (unsigned n = 0; n < 3; n++) {
		struct cpuid_regs r = get(&f, 0x80000002 + n, 0);
		memcpy(brand + 16 * n, &r, 16);
	}
	assert_string_equal(brand, f.model.brand);
	fixture_teardown(&f);
}

static void instruction(void **state)
{
	struct cpu_fixture f;
	struct insn i = { .len = 2 };

	(void)state;
	fixture_setup(&f, "v2", true, NULL);
	fixture_long_mode(&f);
	f.v->s.rip = 0x1000;
	f.v->s.gpr[RAX] = 0xffffffff00000001;
	f.v->s.gpr[RCX] = UINT64_MAX;
	f.v->s.gpr[RBX] = UINT64_MAX;
	assert_true(fixture_run(f.v, op_cpuid, &i, NULL));
	assert_int_equal(f.v->s.gpr[RAX], f.model.signature);
	assert_int_equal(f.v->s.gpr[RBX] >> 32, 0);
	assert_int_equal(f.v->s.rip, 0x1002);
	assert_int_equal(f.v->count[COUNT_CPUIDS], 1);
	fixture_teardown(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unknown_model_is_refused),
		cmocka_unit_test(models_have_their_level),
		cmocka_unit_test(flags_choose_features),
		cmocka_unit_test(wrong_flags_are_refused),
		cmocka_unit_test(defences_can_be_chosen),
		cmocka_unit_test(vendors_agree_on_signature_and_limits),
		cmocka_unit_test(leaves_beyond_the_last),
		cmocka_unit_test(pure_hides_the_hypervisor),
		cmocka_unit_test(tsc_rate),
		cmocka_unit_test(live_bits),
		cmocka_unit_test(topology_of_six_cpus),
		cmocka_unit_test(brand_string),
		cmocka_unit_test(instruction),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
