/* Model-specific registers: which there are, what they accept, and what follows the time stamp counter. */
#include "lib/cpu_fixture.h"

/* A local APIC of three registers. */
static uint64_t apic_base, deadline;
static unsigned deadline_writes;

static int apic_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	(void)v;
	if (msr != 0x1b && msr != 0x6e0)
		return -1;
	*value = msr == 0x1b ? apic_base : deadline;
	return 0;
}

static int apic_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	(void)v;
	if (msr == 0x1b)
		apic_base = value;
	else if (msr == 0x6e0)
		deadline_writes++, deadline = value;
	else
		return -1;
	return 0;
}

static void sync_time(struct vcpu *v) { clock_set(v->clock, v->s.icount); }

static const struct vcpu_env env = { .apic_msr_read = apic_read, .apic_msr_write = apic_write, .time_sync = sync_time };

static int setup_model(void **state, bool pure)
{
	struct cpu_fixture *f = malloc(sizeof(*f));

	fixture_setup(f, "v2", pure, &env);
	fixture_long_mode(f);
	apic_base = 0xfee00900;
	deadline = 0;
	deadline_writes = 0;
	*state = f;
	return 0;
}

static int setup(void **state) { return setup_model(state, false); }
static int setup_pure(void **state) { return setup_model(state, true); }

static int teardown(void **state)
{
	fixture_teardown(*state);
	free(*state);
	return 0;
}

static uint64_t read_msr(struct cpu_fixture *f, uint32_t msr)
{
	uint64_t value;

	assert_int_equal(cpu_read_msr(f->v, msr, &value), 0);
	return value;
}

#define accepts(f, msr, value) assert_int_equal(cpu_write_msr((f)->v, msr, value), 0)
#define refuses(f, msr, value) assert_int_equal(cpu_write_msr((f)->v, msr, value), -1)

static void set_amd(struct cpu_fixture *f)
{
	memcpy(f->model.vendor, "AuthenticAMD", 13);
	f->model.features[FEATURE_AUTO_IBRS] = true;
}

static void plain_registers_keep_what_is_written(void **state)
{
	static const struct {
		uint32_t msr;
		uint64_t value;
	} cases[] = {
		{ 0xc0000081, 0x0023001000000000 },
		{ 0xc0000082, 0xffffffff81000000 },
		{ 0xc0000084, 0x47700 },
		{ 0x174, 0x10 },
		{ 0x175, 0xfffffe0000003000 },
		{ 0xc0000100, 0x7fffdeadb000 },
		{ 0xc0000102, 0xffff888000000000 },
		{ 0xc0000103, 7 },
		{ 0x277, 0x0407050600070106 },
		{ 0x2ff, 0xc06 },
		{ 0x200, 0x80000006 },
		{ 0x20f, 0xff80000800 },
		{ 0x250, 0x0606060606060606 },
		{ 0x259, 0 },
		{ 0x26f, 0x0505050505050505 },
		{ 0x48, 0x401 },
		{ 0x17a, 4 },
	};
	struct cpu_fixture *f = *state;

	for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
		accepts(f, cases[n].msr, cases[n].value);
		assert_int_equal(read_msr(f, cases[n].msr), cases[n].value);
	}
	assert_int_equal(f->v->s.seg_base[FS], 0x7fffdeadb000);
	assert_int_equal(f->v->s.mtrr_fixed[10], 0x0505050505050505);
}

static void x2apic_mode_is_a_feature(void **state)
{
	struct cpu_fixture *f = *state;

	accepts(f, 0x1b, 0xfee00d00);
	f->model.features[FEATURE_X2APIC] = false;
	refuses(f, 0x1b, 0xfee00d00);
	accepts(f, 0x1b, 0xfee00900);
}

static void bad_values_are_refused(void **state)
{
	static const struct {
		uint32_t msr;
		uint64_t value;
	} cases[] = {
		{ 0xc0000082, 0x800000000000 }, /* not canonical */
		{ 0xc0000100, 1ull << 63 },
		{ 0x176, 0xffff7fffffffffff },
		{ 0xc0000084, 1ull << 32 },
		{ 0xc0000103, 1ull << 32 },
		{ 0x277, 0x0207040600070406 }, /* PAT type 2 */
		{ 0x2ff, 0x1006 },
		{ 0x2ff, 7 }, /* reserved bit; UC- is no MTRR type */
		{ 0x200, 1ull << 40 },
		{ 0x200, 0x106 },
		{ 0x201, 0x400 },
		{ 0x210, 0 },
		{ 0x250, 2 },
		{ 0xc0000080, 1ull << 63 },
		{ 0xc0000080, 1 << 12 },
		{ 0xc0000080, 0x200000 },
		{ 0x10a, 0 },
		{ 0xfe, 0 },
		{ 0x3a, 0 },
		{ 0x1a0, 1ull << 35 },
		{ 0x49, 2 },
		{ 0x48, 4 },
	};
	struct cpu_fixture *f = *state;

	for (size_t n = 0; n < ARRAY_SIZE(cases); n++)
		refuses(f, cases[n].msr, cases[n].value);
}

static void absent_registers_fault(void **state)
{
	static const uint32_t absent[] = { 0x2,	  0xc1,	 0x186,	     0x345,	 0x38f,	     0x400,	 0x480,
					   0x606, 0xda0, 0x4b564d02, 0x4b564d04, 0xc0010015, 0xc0010117, 0xffffffff };
	struct cpu_fixture *f = *state;
	uint64_t value;

	for (size_t n = 0; n < ARRAY_SIZE(absent); n++) {
		assert_int_equal(cpu_read_msr(f->v, absent[n], &value), -1);
		assert_int_equal(value, 0);
		refuses(f, absent[n], 0);
	}
	assert_int_equal(cpu_read_msr(f->v, 0x49, &value), -1); /* write-only */
}

/* What Linux 6.1 reads without being ready for a fault. */
static void vendors_have_their_own(void **state)
{
	static const uint32_t intel[] = { 0x17, 0x8b, 0x1a0, 0x10a, 0xce, 0x2a },
			      amd[] = { 0x8b,	    0xc0010010, 0xc0010015, 0xc001001a, 0xc001001d,
					0xc001001f, 0xc0010055, 0xc0010058, 0xc0011020, 0xc0011029 };
	struct cpu_fixture *f = *state;
	uint64_t value;

	for (size_t n = 0; n < ARRAY_SIZE(intel); n++)
		read_msr(f, intel[n]);
	assert_true(read_msr(f, 0x1a0) & BIT(11));
	assert_true(read_msr(f, 0x10a) & BIT(0));
	assert_int_equal(read_msr(f, 0x8b), 0x7fffffffull << 32);

	set_amd(f);
	f->model.signature = 0x00a00f11;
	for (size_t n = 0; n < ARRAY_SIZE(amd); n++)
		read_msr(f, amd[n]);
	assert_int_equal(cpu_read_msr(f->v, 0x1a0, &value), -1);
	assert_int_equal(read_msr(f, 0x8b), 0x0a0011ff);
	assert_int_equal(read_msr(f, 0xc001001a), FIXTURE_RAM);
	accepts(f, 0xc0010015, BIT(24));
	refuses(f, 0xc0010015, BIT(63));
	accepts(f, 0xc0000080, EFER_LME | EFER_LMA | EFER_AIBRSE);
}

static void efer(void **state)
{
	struct cpu_fixture *f = *state;

	/* LMA cannot be written, LME not changed while paging is on. */
	accepts(f, 0xc0000080, EFER_LME | EFER_SCE | EFER_NXE);
	assert_int_equal(read_msr(f, 0xc0000080), EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE);
	refuses(f, 0xc0000080, EFER_SCE);
}

static void time_stamp_counter(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;

	v->s.icount = 1000;
	assert_int_equal(cpu_tsc(v), 1000); /* the clock was brought up to date */
	deadline = 5000;
	accepts(f, 0x10, 1000000);
	assert_int_equal(cpu_tsc(v), 1000000);
	assert_int_equal(read_msr(f, 0x3b), 999000);
	assert_int_equal(deadline_writes, 1);
	accepts(f, 0x3b, 0);
	assert_int_equal(cpu_tsc(v), 1000);
	assert_int_equal(deadline_writes, 2);
	v->s.icount = 1500;
	assert_int_equal(read_msr(f, 0x10), 1500);
}

static void instructions(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;
	struct insn i = { .len = 2, .reg = 8 * RBX };

	v->s.icount = 0x123456789ab;
	v->s.msr_tsc_aux = 3;
	assert_true(fixture_run(v, op_rdtscp, &i, NULL));
	assert_int_equal(v->s.gpr[RAX], 0x456789ab);
	assert_int_equal(v->s.gpr[RDX], 0x123);
	assert_int_equal(v->s.gpr[RCX], 3);
	assert_true(fixture_run(v, op_rdpid, &i, NULL));
	assert_int_equal(v->s.gpr[RBX], 3);
	assert_false(fixture_run(v, op_rdpmc, &i, NULL));
	assert_int_equal(v->fault.vector, EXC_GP);

	v->s.rip = 0x1000;
	v->s.gpr[RCX] = 0xffffffffc0000102;
	v->s.gpr[RAX] = 0xdead80000000;
	v->s.gpr[RDX] = 0xffff8880;
	assert_true(fixture_run(v, op_wrmsr, &i, NULL));
	assert_int_equal(v->s.rip, 0x1002);
	assert_int_equal(v->s.msr_kernel_gs_base, 0xffff888080000000);
	v->s.gpr[RAX] = UINT64_MAX;
	assert_true(fixture_run(v, op_rdmsr, &i, NULL));
	assert_int_equal(v->s.gpr[RAX], 0x80000000);
	assert_int_equal(v->s.gpr[RDX], 0xffff8880);

	v->s.gpr[RCX] = 0x480;
	assert_false(fixture_run(v, op_rdmsr, &i, NULL));
	assert_int_equal(v->fault.vector, EXC_GP);
	assert_int_equal(v->fault.error, 0);
	assert_int_equal(v->s.gpr[RAX], 0x80000000);

	v->cpl = 3;
	v->s.gpr[RCX] = 0xc0000102;
	assert_false(fixture_run(v, op_rdmsr, &i, NULL));
	assert_false(fixture_run(v, op_wrmsr, &i, NULL));
	assert_true(fixture_run(v, op_rdtsc, &i, NULL));
	v->s.cr4 |= CR4_TSD;
	assert_false(fixture_run(v, op_rdtsc, &i, NULL));
	v->cpl = 0;
	assert_true(fixture_run(v, op_rdtsc, &i, NULL));
}

/* Documentation/virt/kvm/x86/msr.rst: the guest's own formula. */
static uint64_t guest_time(struct cpu_fixture *f, uint64_t at)
{
	const uint8_t *p = mem_map(f->mem, gpa(at), 32, false);
	uint64_t delta = cpu_tsc(f->v) - load_le64(p + 8);

	assert_int_equal(load_le32(p) & 1, 0);
	assert_int_equal(p[29], 1); /* stable */
	delta = (int8_t)p[28] >= 0 ? delta << p[28] : delta >> -(int8_t)p[28];
	return load_le64(p + 16) + (uint64_t)((unsigned __int128)delta * load_le32(p + 24) >> 32);
}

static void paravirtual_clock(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;

	v->s.icount = 5000000000;
	accepts(f, 0x4b564d01, 0x8000 | 1);
	assert_int_equal(guest_time(f, 0x8000), 5000000000);
	v->s.icount = 7000000003;
	assert_int_equal(guest_time(f, 0x8000), 7000000003);
	/* It stays right when the guest sets its TSC. */
	accepts(f, 0x10, 42);
	v->s.icount += 1000;
	assert_int_equal(guest_time(f, 0x8000), 7000001003);

	accepts(f, 0x4b564d00, 0x9000);
	const uint8_t *p = mem_map(f->mem, gpa(0x9000), 12, false);
	assert_int_equal(load_le32(p) & 1, 0);
	assert_int_equal(load_le32(p + 4) * 1000000000ull + load_le32(p + 8) + v->s.icount, clock_wall_ns(f->clock));

	/* An address without RAM is the guest's mistake alone. */
	log_set_level(LOG_ERROR);
	accepts(f, 0x4b564d01, 0xfffffffffffffff1);
	accepts(f, 0x4b564d01, 0xf0000001);
	accepts(f, 0x4b564d00, UINT64_MAX);
	accepts(f, 0x4b564d01, 0);
}

/* Whatever the TSC's rate, the page tells guest time; what 32 bits of multiplier leave out is the same for all vCPUs. */
static void paravirtual_clock_rates(void **state)
{
	static const uint64_t rates[] = { 1000000,    999999000,  1000001000,  2596122000,
					  4000000000, 4700000000, 100000000000 };
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;

	for (unsigned n = 0; n < ARRAY_SIZE(rates); n++) {
		uint64_t now, hz;

		assert_int_equal(clock_set_tsc_hz(f->clock, rates[n], NULL), 0);
		hz = clock_tsc_hz(f->clock);
		v->s.icount += 1000000000000 + n;
		accepts(f, 0x4b564d01, 0x8000 | 1);
		accepts(f, 0x10, n ? 1000 : UINT64_MAX - 1000);
		now = clock_now(f->clock);
		/* 2^-31, and two ticks. */
		assert_true(guest_time(f, 0x8000) - now + now / BIT(31) + 3000000000 / hz + 1 <=
			    2 * (now / BIT(31) + 3000000000 / hz + 1));
		accepts(f, 0x4b564d00, 0x9000);
		const uint8_t *p = mem_map(f->mem, gpa(0x9000), 12, false);
		uint64_t wall = load_le32(p + 4) * 1000000000ull + load_le32(p + 8) + now;

		assert_true(wall - clock_wall_ns(f->clock) + 1000000000 / hz + 1 <= 2 * (1000000000 / hz + 1));
	}
}

static void hypercall(void **state)
{
	struct cpu_fixture *f = *state;
	struct insn i = { .len = 3 };

	f->v->s.gpr[RAX] = 9;
	assert_true(fixture_run(f->v, op_hypercall, &i, NULL));
	assert_int_equal(f->v->s.gpr[RAX], (uint64_t)-1000);
	f->v->cpl = 3;
	assert_true(fixture_run(f->v, op_hypercall, &i, NULL));
	assert_int_equal(f->v->s.gpr[RAX], (uint64_t)-1);
}

static void pure_has_no_paravirtual_registers(void **state)
{
	static const uint32_t absent[] = { 0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d05 };
	struct cpu_fixture *f = *state;
	struct insn i = { .len = 3 };
	uint64_t value;

	for (size_t n = 0; n < ARRAY_SIZE(absent); n++)
		assert_int_equal(cpu_read_msr(f->v, absent[n], &value), -1);
	assert_false(fixture_run(f->v, op_hypercall, &i, NULL));
	assert_int_equal(f->v->fault.vector, EXC_UD);
}

static void random_numbers(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;
	struct insn i = { .opsize = 8, .reg = 8 * RBX };

	assert_true(fixture_run(v, op_rdrand, &i, NULL));
	uint64_t first = v->s.gpr[RBX];
	assert_int_equal(cpu_status(v), FLAG_CF);
	assert_true(fixture_run(v, op_rdseed, &i, NULL));
	assert_int_equal(v->s.gpr[RBX], first); /* virtual time: a function of the instruction count */
	v->s.icount++;
	i.opsize = 4;
	assert_true(fixture_run(v, op_rdrand, &i, NULL));
	assert_int_equal(v->s.gpr[RBX] >> 32, 0);
	assert_int_not_equal(v->s.gpr[RBX], (uint32_t)first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(plain_registers_keep_what_is_written, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_values_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(x2apic_mode_is_a_feature, setup, teardown),
		cmocka_unit_test_setup_teardown(absent_registers_fault, setup, teardown),
		cmocka_unit_test_setup_teardown(vendors_have_their_own, setup, teardown),
		cmocka_unit_test_setup_teardown(efer, setup, teardown),
		cmocka_unit_test_setup_teardown(time_stamp_counter, setup, teardown),
		cmocka_unit_test_setup_teardown(instructions, setup, teardown),
		cmocka_unit_test_setup_teardown(paravirtual_clock, setup, teardown),
		cmocka_unit_test_setup_teardown(paravirtual_clock_rates, setup, teardown),
		cmocka_unit_test_setup_teardown(hypercall, setup, teardown),
		cmocka_unit_test_setup_teardown(pure_has_no_paravirtual_registers, setup_pure, teardown),
		cmocka_unit_test_setup_teardown(random_numbers, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
