/*
 * Decoding from memory is decoding: whatever the bytes, cpu_decode_cached() says what cpu_decode() says, when it sees a form for
 * the first time and when it knows it. All opcodes of all maps with all ModRM bytes, then random prefixes, VEX and lengths.
 */
#include "lib/same_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static struct cpu_model models[] = {
	{ .vendor = "GenuineIntel" },
	{ .vendor = "AuthenticAMD" },
	{ .vendor = "GenuineIntel" },
};

struct setting {
	const struct cpu_model *model;
	enum code_mode mode;
	struct decode_cache *cache;
	uint64_t random;
};

static uint64_t next_random(struct setting *s)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return s->random;
}

static void print_bytes(const struct setting *s, const uint8_t *bytes, size_t avail)
{
	print_message("# %s, mode %d, %zu bytes:", s->model->vendor, s->mode, avail);
	for (size_t n = 0; n < avail; n++)
		print_message(" %02x", bytes[n]);
	print_message("\n");
}

static void compare(struct setting *s, const uint8_t *bytes, size_t avail)
{
	unsigned offset = next_random(s) & 0xfff;
	struct insn plain = { 0 }, cached = { 0 };
	struct insn_host plain_host, cached_host;
	const char *difference = NULL;

	memset(&plain_host, 1, sizeof(plain_host));
	memset(&cached_host, 1, sizeof(cached_host));
	unsigned len = cpu_decode(s->model, s->mode, bytes, avail, offset, &plain, &plain_host);
	unsigned cached_len = cpu_decode_cached(s->cache, s->mode, bytes, avail, offset, &cached, &cached_host);
	if (len != cached_len)
		difference = "the length";
	else if (len && !(difference = insn_difference(&plain, &cached)))
		difference = insn_host_difference(&plain_host, &cached_host);
	if (difference) {
		print_bytes(s, bytes, avail);
		fail_msg("%s differs", difference);
	}
}

/* bytes[0..fixed) with several tails behind them: known forms with other data, and cut short. */
static void compare_tails(struct setting *s, uint8_t bytes[24], unsigned fixed, unsigned tails)
{
	while (tails--) {
		for (unsigned n = fixed; n < 24; n++)
			bytes[n] = (uint8_t)(next_random(s) >> 11);
		compare(s, bytes, 24);
	}
	compare(s, bytes, next_random(s) % 16);
}

static void every_opcode(struct setting *s)
{
	static const uint8_t maps[][2] = { { 0 }, { 0x0f }, { 0x0f, 0x38 }, { 0x0f, 0x3a } };
	static const unsigned map_length[] = { 0, 1, 2, 2 };
	uint8_t bytes[24];

	for (unsigned map = 0; map < ARRAY_SIZE(maps); map++) {
		memcpy(bytes, maps[map], 2);
		for (unsigned n = 0; n < 256 * 256; n++) {
			bytes[map_length[map]] = (uint8_t)(n >> 8);
			bytes[map_length[map] + 1] = (uint8_t)n;
			compare_tails(s, bytes, map_length[map] + 2, 1);
		}
	}
}

static unsigned random_prefixes(struct setting *s, uint8_t *bytes)
{
	static const uint8_t prefixes[] = { 0x66, 0x66, 0xf2, 0xf3, 0x67, 0x2e, 0x64, 0x65, 0xf0, 0x36, 0x3e, 0x26 };
	unsigned count = next_random(s) % 16 ? next_random(s) % 3 : next_random(s) % 12, rex = 0;

	for (unsigned n = 0; n < count; n++)
		bytes[n] = prefixes[next_random(s) % ARRAY_SIZE(prefixes)];
	if (next_random(s) & 1)
		bytes[count + rex++] = (uint8_t)(0x40 | (next_random(s) & 15));
	return count + rex;
}

static unsigned random_opcode(struct setting *s, uint8_t *bytes)
{
	unsigned at = 0;

	switch (next_random(s) % 6) {
	case 0: bytes[at++] = 0xc5; break;
	case 1:
		bytes[at++] = 0xc4;
		bytes[at++] = (uint8_t)((next_random(s) & 0xe0) | (1 + next_random(s) % 3));
		break;
	case 2: bytes[at++] = 0x0f; break;
	case 3:
		bytes[at++] = 0x0f;
		bytes[at++] = next_random(s) & 1 ? 0x38 : 0x3a;
		break;
	default: return at;
	}
	if (bytes[0] != 0x0f) {
		bytes[at++] = (uint8_t)next_random(s);
		if (next_random(s) & 1) /* no second source */
			bytes[at - 1] |= 0x78;
	}
	return at;
}

static void random_forms(struct setting *s)
{
	uint8_t bytes[24];

	for (unsigned round = 0; round < 60000; round++) {
		unsigned at = random_prefixes(s, bytes);

		at += random_opcode(s, bytes + at);
		for (unsigned n = 0; n < 3; n++)
			bytes[at + n] = (uint8_t)(next_random(s) >> 7);
		compare_tails(s, bytes, MIN(at + (unsigned)(next_random(s) % 4), 20u), 2);
	}
}

static void in_every_setting(void (*test)(struct setting *))
{
	uint64_t seed = 0x9e3779b97f4a7c15;

	for (unsigned m = 0; m < ARRAY_SIZE(models); m++) {
		for (unsigned f = 0; f < FEATURE_COUNT; f++)
			models[m].features[f] = m < 2 || (f * 7 + m) % 3;
		for (unsigned mode = MODE_16; mode <= MODE_64; mode++) {
			struct setting s = { &models[m], mode, decode_cache_create(&models[m]), seed + m * 3 + mode };

			assert_non_null(s.cache);
			test(&s);
			decode_cache_destroy(s.cache);
		}
	}
}

static void opcodes_and_modrm(void **state)
{
	(void)state;
	in_every_setting(every_opcode);
}

static void prefixes_and_vex(void **state)
{
	(void)state;
	in_every_setting(random_forms);
}

/* Modes share a cache: the same bytes mean other things in them. */
static void modes_in_turn(void **state)
{
	struct setting s = { &models[0], MODE_64, decode_cache_create(&models[0]), 7 };
	uint8_t bytes[24];

	(void)state;
	for (unsigned n = 0; n < 256 * 64; n++) {
		s.mode = n % 3;
		if (!s.mode)
			for (unsigned k = 0; k < 24; k++)
				bytes[k] = (uint8_t)(next_random(&s) >> 5);
		compare(&s, bytes, 24);
	}
	decode_cache_destroy(s.cache);
}

/* What is usual in code is decoded once. */
static void forms_are_remembered(void **state)
{
	static const uint8_t samples[][12] = {
		{ 0x48, 0x8b, 0x44, 0x24, 0x08 },		    /* mov 8(%rsp), %rax */
		{ 0x48, 0x8d, 0x05, 1, 2, 3, 4 },		    /* lea disp(%rip), %rax */
		{ 0xe8, 1, 2, 3, 4 },				    /* call */
		{ 0x74, 5 },					    /* je */
		{ 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8 },		    /* movabs */
		{ 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0 },	    /* nopw */
		{ 0xc5, 0xf9, 0x6f, 0x44, 0x98, 0x20 },		    /* vmovdqa */
		{ 0xc5, 0xf8, 0x77 },				    /* vzeroupper */
		{ 0xf3, 0x48, 0xab },				    /* rep stosq */
		{ 0x66, 0x0f, 0x3a, 0x0f, 0xc1, 0x08 },		    /* palignr */
		{ 0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0 },    /* mov %gs:0x28, %rax */
		{ 0x48, 0x81, 0xbc, 0x83, 1, 0, 0, 0, 5, 6, 7, 8 }, /* cmpq $imm, disp(%rbx,%rax,4) */
	};
	struct decode_cache *c = decode_cache_create(&models[0]);
	struct insn i;
	struct insn_host h;

	(void)state;
	for (unsigned round = 0; round < 3; round++)
		for (unsigned n = 0; n < ARRAY_SIZE(samples); n++)
			assert_true(cpu_decode_cached(c, MODE_64, samples[n], sizeof(samples[n]), 0, &i, &h));
	assert_int_equal(decode_cache_missed(c), ARRAY_SIZE(samples));
	decode_cache_destroy(c);
}

/* Near 2 GiB the displacement that is told does not fit, by the bytes and by where the instruction stands. */
static void far_from_rip(void **state)
{
	struct setting s = { &models[0], MODE_64, decode_cache_create(&models[0]), 11 };
	uint8_t bytes[16] = { 0x48, 0x8b, 0x05 };

	(void)state;
	for (unsigned n = 0; n < 1000; n++) {
		store_le32(bytes + 3, next_random(&s) & 1 ? 0x7ffff000 + (next_random(&s) & 0xfff) : 16);
		compare(&s, bytes, sizeof(bytes));
	}
	decode_cache_destroy(s.cache);
}

/* mov disp(,%ecx,2), %eax with a REX.B that means nothing: the decoding library takes R13 for a base. */
static void sib_without_base(void **state)
{
	static const uint8_t bytes[15] = { 0x67, 0x41, 0x8b, 0x04, 0x4d, 0x78, 0x56, 0x34, 0x12 };
	struct insn i;

	(void)state;
	assert_int_equal(cpu_decode(&models[0], MODE_64, bytes, sizeof(bytes), 0, &i, NULL), 9);
	assert_int_equal(i.base, 8 * REG_NONE);
	assert_int_equal(i.index, 8 * RCX);
	assert_int_equal(i.scale, 1);
	assert_int_equal(i.disp, 0x12345678);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opcodes_and_modrm), cmocka_unit_test(prefixes_and_vex),
		cmocka_unit_test(modes_in_turn),     cmocka_unit_test(forms_are_remembered),
		cmocka_unit_test(far_from_rip),	     cmocka_unit_test(sib_without_base),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
