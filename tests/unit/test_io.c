/* IN, OUT, INS, OUTS: operands, permissions, and order of faults and device accesses. */
#include "lib/cpu_fixture.h"

/* Every port remembers what was written last; reads count up. */
static struct {
	uint16_t port;
	unsigned size, reads, writes;
	uint32_t value, next;
} device;

static uint32_t pio_read(struct vcpu *v, uint16_t port, unsigned size)
{
	(void)v;
	device.port = port;
	device.size = size;
	device.reads++;
	return device.next++;
}

static void pio_write(struct vcpu *v, uint16_t port, unsigned size, uint32_t value)
{
	(void)v;
	device.port = port;
	device.size = size;
	device.writes++;
	device.value = value;
}

static const struct vcpu_env env = { .pio_read = pio_read, .pio_write = pio_write };

#define TSS_PAGE 0x110000u
#define TSS	 (FIXTURE_LIN + PAGE_SIZE)
#define IO_MAP	 0x68u

static int setup(void **state)
{
	struct cpu_fixture *f = malloc(sizeof(*f));

	fixture_setup(f, "v2", true, &env);
	fixture_long_mode(f);
	fixture_map(f, 0, 0x108000, 7);
	fixture_map(f, 1, TSS_PAGE, 3);
	memset(&device, 0, sizeof(device));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_teardown(*state);
	free(*state);
	return 0;
}

static void operands(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;
	struct insn i = { .form = FORM_RI, .opsize = 1, .reg = 8 * RAX, .imm = (uint64_t)-2 };

	device.next = 0x12345678;
	v->s.gpr[RAX] = 0x1111111111111111;
	v->s.gpr[RDX] = 0xffff03f8;
	assert_true(fixture_run(v, op_in, &i, NULL));
	assert_int_equal(device.port, 0xfe);
	assert_int_equal(device.size, 1);
	assert_int_equal(v->s.gpr[RAX], 0x1111111111111178);

	i = (struct insn){ .form = FORM_RR, .opsize = 4, .reg = 8 * RAX, .rm = 8 * RDX };
	assert_true(fixture_run(v, op_in, &i, NULL));
	assert_int_equal(device.port, 0x3f8);
	assert_int_equal(v->s.gpr[RAX], 0x12345679);

	i.opsize = 2;
	v->s.gpr[RAX] = 0xaabbccdd;
	assert_true(fixture_run(v, op_out, &i, NULL));
	assert_int_equal(device.value, 0xccdd);
	assert_int_equal(v->count[COUNT_PIO_READS], 2);
	assert_int_equal(v->count[COUNT_PIO_WRITES], 1);
}

static bool may_out(struct vcpu *v, uint16_t port, unsigned size)
{
	struct insn i = { .form = FORM_RR, .opsize = (uint8_t)size, .reg = 8 * RAX, .rm = 8 * RDX };
	unsigned before = device.writes;

	v->s.gpr[RDX] = port;
	bool ok = fixture_run(v, op_out, &i, NULL);
	assert_int_equal(device.writes, before + ok);
	if (!ok) {
		assert_int_equal(v->fault.vector, EXC_GP);
		assert_int_equal(v->fault.error, 0);
	}
	return ok;
}

static void permissions(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;
	uint8_t *tss = mem_map(f->mem, gpa(TSS_PAGE), PAGE_SIZE, true);

	v->cpl = 3;
	v->s.seg_attr[TR] = 0;
	assert_false(may_out(v, 0x80, 1)); /* no TSS */
	v->s.rflags |= FLAG_IOPL;
	assert_true(may_out(v, 0x80, 1));
	v->s.rflags &= ~FLAG_IOPL;

	v->s.seg_base[TR] = TSS;
	v->s.seg_attr[TR] = ATTR_P | 0xb;
	v->s.seg_limit[TR] = IO_MAP + 0x20; /* 32 bytes of map and the byte of ones */
	store_le16(tss + 102, IO_MAP);
	memset(tss + IO_MAP, 0xff, 33);
	tss[IO_MAP + 0x10] = 0xfe; /* port 0x80 */
	assert_true(may_out(v, 0x80, 1));
	assert_false(may_out(v, 0x80, 2));
	assert_false(may_out(v, 0x81, 1));
	tss[IO_MAP + 0x10] = 0x7f;
	tss[IO_MAP + 0x11] = 0xfe; /* 0x87 and 0x88: two bytes of the map */
	assert_true(may_out(v, 0x87, 2));
	assert_false(may_out(v, 0x87, 4));

	tss[IO_MAP + 0x1f] = 0;
	assert_true(may_out(v, 0xff, 1));
	assert_false(may_out(v, 0xff, 2));
	assert_false(may_out(v, 0x100, 1)); /* its second byte is beyond the limit */
	assert_false(may_out(v, 0xffff, 1));

	store_le16(tss + 102, 0xffff);
	assert_false(may_out(v, 0, 1));
	store_le16(tss + 102, IO_MAP);
	v->s.seg_limit[TR] = 102;
	assert_false(may_out(v, 0x80, 1));
	v->s.seg_limit[TR] = IO_MAP + 0x20;
	tss[IO_MAP + 0x10] = 0;
	v->s.seg_attr[TR] = ATTR_P | 0x3; /* 16-bit TSS: has no map */
	assert_false(may_out(v, 0x80, 1));
	v->cpl = 0;
	assert_true(may_out(v, 0x80, 1));
}

static void string_io(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;
	struct insn i = { .opsize = 2, .addrsize = 8, .seg = DS, .flags = INSN_REP };
	uint8_t *p = mem_map(f->mem, gpa(0x108000), PAGE_SIZE, true);

	device.next = 0x4142;
	v->s.rflags = 2;
	v->s.gpr[RDX] = 0x1f0;
	v->s.gpr[RCX] = 4;
	v->s.gpr[RDI] = FIXTURE_LIN + 0x10;
	assert_true(fixture_run(v, op_ins, &i, NULL));
	assert_int_equal(load_le64(p + 0x10), 0x4145414441434142);
	assert_int_equal(v->s.gpr[RDI], FIXTURE_LIN + 0x18);
	assert_int_equal(v->s.gpr[RCX], 0);

	v->s.gpr[RCX] = 4;
	v->s.gpr[RSI] = FIXTURE_LIN + 0x16;
	v->s.rflags = 2 | FLAG_DF;
	assert_true(fixture_run(v, op_outs, &i, NULL));
	assert_int_equal(device.writes, 4);
	assert_int_equal(device.value, 0x4142);
	assert_int_equal(v->s.gpr[RSI], FIXTURE_LIN + 0xe);

	/* An event gets its turn after each element. */
	unsigned restarts = 0;
	vcpu_post(v, EVENT_EXIT);
	v->s.gpr[RCX] = 4;
	v->s.gpr[RSI] = FIXTURE_LIN + 0x16;
	assert_true(fixture_run(v, op_outs, &i, &restarts));
	assert_int_equal(restarts, 3);
}

/* A destination that cannot be written is found before the device is read. */
static void ins_faults_before_the_device(void **state)
{
	struct cpu_fixture *f = *state;
	struct vcpu *v = f->v;
	struct insn i = { .opsize = 2, .addrsize = 8, .seg = DS, .flags = INSN_REP };

	fixture_map(f, 1, 0, 0);
	v->s.rflags = 2;
	v->s.gpr[RCX] = 4;
	v->s.gpr[RDI] = FIXTURE_LIN + PAGE_SIZE - 4;
	assert_false(fixture_run(v, op_ins, &i, NULL));
	assert_int_equal(v->fault.vector, EXC_PF);
	assert_int_equal(v->fault.address, FIXTURE_LIN + PAGE_SIZE);
	assert_int_equal(device.reads, 2);
	assert_int_equal(v->s.gpr[RCX], 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(operands, setup, teardown),
		cmocka_unit_test_setup_teardown(permissions, setup, teardown),
		cmocka_unit_test_setup_teardown(string_io, setup, teardown),
		cmocka_unit_test_setup_teardown(ins_faults_before_the_device, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
