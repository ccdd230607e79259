/* Decoding: what the oracle and the guests do not reach. */
#include "lib/cpu_fixture.h"

#define BASE 0x7ffff0000000ull

/* Code as far from its operand as a displacement says, which counts from the instruction's end and not from the block's start. */
static void rip_relative_operands_near_2_gib(void **state)
{
	static const struct {
		int32_t disp;
		uint16_t offset;
	} cases[] = { { INT32_MAX, 0 },	  { INT32_MAX, 959 }, { INT32_MAX - 7, 0 }, { INT32_MAX - 8, 1 },
		      { INT32_MIN, 959 }, { INT32_MIN, 0 },   { -1, 959 } };
	struct cpu_fixture f;

	(void)state;
	fixture_setup(&f, "v2", false, NULL);
	for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
		uint8_t code[15] = { 0x48, 0x8d, 0x05 }; /* lea disp(%rip), %rax */
		struct insn i;

		store_le32(code + 3, (uint32_t)cases[n].disp);
		assert_int_equal(cpu_decode(&f.model, MODE_64, code, sizeof(code), cases[n].offset, &i, NULL), 7);
		f.v->s.ip_base = BASE;
		assert_int_equal(cpu_ea(f.v, &i), BASE + cases[n].offset + 7 + (uint64_t)(int64_t)cases[n].disp);
		if (i.ea_flat)
			assert_int_equal(cpu_operand(f.v, &i, 1, ACCESS_READ), cpu_ea(f.v, &i));
	}
	fixture_teardown(&f);
}

/* Features that Zydis's instruction sets do not tell apart. */
static void flags_of_their_own(void **state)
{
	static const struct {
		uint8_t code[2];
		enum code_mode mode;
		bool offered; /* without SEP and LAHF64 */
	} cases[] = {
		{ { 0x0f, 0x34 }, MODE_64, false }, /* SYSENTER */
		{ { 0x0f, 0x35 }, MODE_32, false }, /* SYSEXIT */
		{ { 0x9f }, MODE_64, false },	    /* LAHF */
		{ { 0x9e }, MODE_64, false },	    /* SAHF */
		{ { 0x9f }, MODE_32, true },	    { { 0x9e }, MODE_16, true },
	};
	struct cpu_model with, without;

	(void)state;
	assert_int_equal(cpu_model_init(&with, "v2", true, 1, NULL), 0);
	assert_int_equal(cpu_model_init(&without, "v2,-SEP,-LAHF64", true, 1, NULL), 0);
	for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
		uint8_t code[15] = { cases[n].code[0], cases[n].code[1] };
		struct insn i;

		cpu_decode(&with, cases[n].mode, code, sizeof(code), 0, &i, NULL);
		assert_int_not_equal(i.op, OP_INVALID);
		cpu_decode(&without, cases[n].mode, code, sizeof(code), 0, &i, NULL);
		assert_int_equal(i.op != OP_INVALID, cases[n].offered);
	}
}

/* All bytes that were looked at belong to it: when one of them changes it may be an instruction. */
static void undefined_encodings_have_a_length(void **state)
{
	static const struct {
		uint8_t code[15];
		enum code_mode mode;
		unsigned len;
	} cases[] = {
		{ { 0x06 }, MODE_64, 1 },				/* PUSH ES */
		{ { 0x4d, 0x60, 0xf0 }, MODE_64, 2 },			/* PUSHA behind REX */
		{ { 0x0f, 0x04 }, MODE_32, 2 },				/* none */
		{ { 0xf0, 0x01, 0xc0 }, MODE_64, 3 },			/* LOCK of a register */
		{ { 0x66, 0x66, 0xf0, 0x89, 0x04, 0x24 }, MODE_64, 6 }, /* LOCK of a MOV */
		{ { 0x8c, 0xf8 }, MODE_64, 2 },				/* the seventh segment register */
	};
	static const uint8_t prefixes[15] = { [0 ... 14] = 0x66 };
	struct cpu_model model;
	struct insn i;

	(void)state;
	assert_int_equal(cpu_model_init(&model, "v2", true, 1, NULL), 0);
	for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
		assert_int_equal(cpu_decode(&model, cases[n].mode, cases[n].code, 15, 0, &i, NULL), cases[n].len);
		assert_int_equal(i.op, OP_INVALID);
		assert_int_equal(i.len, cases[n].len);
		assert_memory_equal(i.bytes, cases[n].code, i.len);
		/* With fewer than that it cannot be told. */
		assert_int_equal(cpu_decode(&model, cases[n].mode, cases[n].code, cases[n].len - 1, 0, &i, NULL), 0);
	}
	assert_int_equal(cpu_decode(&model, MODE_64, prefixes, 15, 0, &i, NULL), 15);
	assert_int_equal(i.op, OP_TOO_LONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rip_relative_operands_near_2_gib),
		cmocka_unit_test(flags_of_their_own),
		cmocka_unit_test(undefined_encodings_have_a_length),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
