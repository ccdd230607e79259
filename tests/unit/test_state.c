/*
 * state: reset, save, load and print from one table; records cut off at every length and with every byte changed.
 */
#include "state/state.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#define THING_STATE(_, T)                                                                                              \
	_(T, uint8_t, index, 1, 1, 0, 127)                                                                             \
	_(T, uint16_t, words, 5, 2, 0x1234, 0xfff0)                                                                    \
	_(T, bool, enabled, 1, 3, 1, 1)                                                                                \
	_(T, uint32_t, counter, 1, 7, 9, UINT32_MAX)                                                                   \
	_(T, uint64_t, deadline, 1, 0x1234, UINT64_MAX, UINT64_MAX)                                                    \
	_(T, uint8_t, small, 1, 5, 2, 3)

struct thing {
	int before; /* not guest-visible: never touched */
	STATE_FIELDS(THING_STATE)
	int loads, version;
};

static int thing_loaded(void *object, uint16_t version, struct error *err)
{
	struct thing *thing = object;

	thing->loads++;
	thing->version = version;
	if (thing->small == 3 && thing->enabled)
		return error_set(err, EINVAL, "small is 3 though enabled");
	return 0;
}

STATE_DESC(thing_desc, "thing", 3, struct thing, THING_STATE, .loaded = thing_loaded);

/* The same device as an older version knew it. */
#define OLD_STATE(_, T)                                                                                                \
	_(T, uint8_t, index, 1, 1, 0, 127)                                                                             \
	_(T, uint16_t, words, 5, 2, 0x1234, 0xfff0)
STATE_DESC(old_desc, "thing", 2, struct thing, OLD_STATE);

static const struct thing sample = {
	.before = 11,
	.index = 100,
	.words = { 1, 2, 3, 3, 0xfff0 },
	.enabled = true,
	.counter = 0xdeadbeef,
	.deadline = 0x123456789abcdef0,
	.small = 1,
};

static struct writer saved(const struct state_desc *desc, unsigned instance, const struct thing *thing)
{
	struct writer writer = { 0 };

	assert_int_equal(state_save(desc, instance, thing, &writer), 0);
	return writer;
}

static int load(struct thing *thing, unsigned instance, const uint8_t *data, size_t size, struct error *err)
{
	struct reader reader = { data, size, 0 };
	int rc = state_load(&thing_desc, instance, thing, &reader, err);

	if (rc)
		assert_int_equal(reader.offset, 0);
	else
		assert_in_range(reader.offset, 14, size);
	return rc;
}

static bool same_fields(const struct thing *a, const struct thing *b)
{
	return a->before == b->before && a->index == b->index && !memcmp(a->words, b->words, sizeof(a->words)) &&
	       a->enabled == b->enabled && a->counter == b->counter && a->deadline == b->deadline &&
	       a->small == b->small;
}

static void reset_sets_every_field(void **state)
{
	struct thing thing = sample;
	int i;

	(void)state;
	state_reset(&thing_desc, &thing);
	assert_int_equal(thing.before, 11);
	assert_int_equal(thing.index, 0);
	for (i = 0; i < 5; i++)
		assert_int_equal(thing.words[i], 0x1234);
	assert_true(thing.enabled);
	assert_int_equal(thing.counter, 9);
	assert_true(thing.deadline == UINT64_MAX);
	assert_int_equal(thing.small, 2);
}

static void saved_is_loaded(void **state)
{
	struct writer writer = saved(&thing_desc, 1, &sample);
	struct thing thing = { .before = 11 };
	struct error err;

	(void)state;
	assert_int_equal(load(&thing, 1, writer.data, writer.size, &err), 0);
	assert_true(same_fields(&thing, &sample));
	assert_int_equal(thing.loads, 1);
	assert_int_equal(thing.version, 3);
	writer_free(&writer);
	assert_null(writer.data);
}

/* The bytes of the format: a change of them is a change for every snapshot there is. */
static void record_has_its_documented_bytes(void **state)
{
	static const uint8_t expected[] = {
		7, 't', 'h', 'i', 'n', 'g', '.', '4', 2, 0, 25, 0, 0, 0, /* name, version, payload length */
		1, 0,	1,   1,	  0,   0,   0,	 100,			 /* index */
		2, 0,	2,   5,	  0,   0,   0,	 1,   0, 2, 0,	3, 0, 3, 0, 0xf0, 0xff, /* words */
	};
	struct writer writer = saved(&old_desc, 4, &sample);

	(void)state;
	assert_int_equal(writer.size, sizeof(expected));
	assert_memory_equal(writer.data, expected, sizeof(expected));
	writer_free(&writer);
}

static void records_follow_each_other(void **state)
{
	struct thing other = sample, thing = { .before = 11 };
	struct writer writer = saved(&thing_desc, 0, &sample);
	struct reader reader;

	(void)state;
	other.index = 3;
	assert_int_equal(state_save(&thing_desc, 1, &other, &writer), 0);
	reader = (struct reader){ writer.data, writer.size, 0 };
	assert_int_equal(state_load(&thing_desc, 0, &thing, &reader, NULL), 0);
	assert_true(same_fields(&thing, &sample));
	assert_int_equal(state_load(&thing_desc, 1, &thing, &reader, NULL), 0);
	assert_true(same_fields(&thing, &other));
	assert_int_equal(reader.offset, writer.size);
	assert_true(state_load(&thing_desc, 1, &thing, &reader, NULL) < 0);
	writer_free(&writer);
}

static void missing_fields_get_reset_values(void **state)
{
	struct writer writer = saved(&old_desc, 0, &sample);
	struct thing thing = sample;

	(void)state;
	thing.index = 1;
	thing.counter = 77;
	assert_int_equal(load(&thing, 0, writer.data, writer.size, NULL), 0);
	assert_int_equal(thing.index, 100);
	assert_int_equal(thing.counter, 9);
	assert_int_equal(thing.small, 2);
	writer_free(&writer);
}

/* One byte of sample's record changed: the load fails, nothing has changed, and the error says so. */
static void refuse(size_t at, uint8_t value, const char *first, const char *second, const char *third)
{
	struct writer writer = saved(&thing_desc, 0, &sample);
	struct thing thing = { .before = 5, .index = 6, .small = 2 }, before = thing;
	struct error err = { 0 };

	assert_true(at < writer.size);
	writer.data[at] = value;
	assert_int_equal(load(&thing, 0, writer.data, writer.size, &err), -EINVAL);
	assert_true(same_fields(&thing, &before));
	assert_non_null(strstr(err.text, first));
	assert_non_null(strstr(err.text, second));
	assert_non_null(strstr(err.text, third));
	writer_free(&writer);
}

/* Offsets in sample's record: header 14 bytes, index 14..21, words 22..38, enabled 39..46. */
static void errors_name_what_is_wrong(void **state)
{
	(void)state;
	refuse(1, 'T', "'Thing.0'", "expected", "'thing.0'");
	refuse(1, '\33', "'?hing.0'", "expected", "'thing.0'");
	refuse(7, '1', "'thing.1'", "expected", "'thing.0'");
	refuse(8, 4, "'thing.0'", "version 4", "expected 1 to 3");
	refuse(8, 0, "'thing.0'", "version 0", "expected 1 to 3");
	refuse(14, 99, "'thing.0'", "unknown tag", "99");
	refuse(16, 2, "'thing.0'", "'index'", "expected 1 of 1");
	refuse(17, 2, "'thing.0'", "'index'", "2 elements");
	refuse(21, 128, "'thing.0'", "'index'[0] is 0x80", "at most 0x7f");
	refuse(37, 0xff, "'thing.0'", "'words'[4] is 0xffff", "at most 0xfff0");
	refuse(46, 2, "'thing.0'", "'enabled'[0] is 0x2", "at most 0x1");
}

static void field_twice_is_refused(void **state)
{
	struct writer writer = saved(&old_desc, 0, &sample);
	struct thing thing = { 0 };
	struct error err;

	(void)state;
	writer_bytes(&writer, writer.data + 14, 8);
	writer.data[10] += 8;
	assert_int_equal(load(&thing, 0, writer.data, writer.size, &err), -EINVAL);
	assert_non_null(strstr(err.text, "'index' twice"));
	assert_int_equal(thing.index, 0);
	writer_free(&writer);
}

static void refusal_by_loaded_restores(void **state)
{
	struct thing bad = sample, thing = { .before = 5, .index = 6, .small = 2 }, before = thing;
	struct writer writer;
	struct error err;

	(void)state;
	bad.small = 3;
	writer = saved(&thing_desc, 0, &bad);
	assert_int_equal(load(&thing, 0, writer.data, writer.size, &err), -EINVAL);
	assert_int_equal(thing.loads, 1);
	assert_true(same_fields(&thing, &before));
	assert_string_equal(err.text, "record 'thing.0': small is 3 though enabled");
	writer_free(&writer);
}

/* A copy in memory of just that size, so that a sanitizer sees any read beyond it. */
static int load_copy(struct thing *thing, const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	struct error err;
	int rc;

	assert_non_null(copy);
	memcpy(copy, data, size);
	rc = load(thing, 0, copy, size, &err);
	free(copy);
	return rc;
}

static void every_truncation_is_refused(void **state)
{
	struct writer writer = saved(&thing_desc, 0, &sample);
	struct thing thing = { .before = 5, .index = 6, .small = 2 }, before = thing;
	size_t size;

	(void)state;
	for (size = 0; size < writer.size; size++) {
		assert_true(load_copy(&thing, writer.data, size) < 0);
		assert_true(same_fields(&thing, &before));
	}
	/* Cut off, with a payload length that fits: a cut between two fields is an older record. */
	for (size = 14; size < writer.size; size++) {
		uint8_t full = writer.data[10];
		int rc;

		writer.data[10] = (uint8_t)(size - 14);
		rc = load_copy(&thing, writer.data, size);
		assert_true(rc ? same_fields(&thing, &before) : thing.before == 5);
		assert_int_equal(rc == 0,
				 size == 14 || size == 22 || size == 39 || size == 47 || size == 58 || size == 73);
		thing = before;
		writer.data[10] = full;
	}
	writer_free(&writer);
}

static void every_changed_byte_is_checked(void **state)
{
	struct writer writer = saved(&thing_desc, 0, &sample), again;
	struct thing before = { .before = 5, .index = 6, .small = 2 };
	size_t at, accepted = 0;
	unsigned change;

	(void)state;
	for (at = 0; at < writer.size; at++) {
		for (change = 1; change < 256; change++) {
			struct thing thing = before;

			writer.data[at] ^= (uint8_t)change;
			if (load_copy(&thing, writer.data, writer.size)) {
				assert_true(same_fields(&thing, &before));
			} else if (at != 10) { /* a shorter payload may be a record without the last fields */
				/* Then it is what a save gives, version apart, which may be older. */
				accepted++;
				again = saved(&thing_desc, 0, &thing);
				assert_int_equal(again.size, writer.size);
				again.data[8] = writer.data[8];
				assert_memory_equal(again.data, writer.data, writer.size);
				writer_free(&again);
			}
			writer.data[at] ^= (uint8_t)change;
		}
	}
	assert_true(accepted > 1000);
	writer_free(&writer);
}

static void print_shows_ranges(void **state)
{
	char text[512] = "";
	FILE *out = fmemopen(text, sizeof(text), "w");

	(void)state;
	assert_non_null(out);
	state_print(&thing_desc, &sample, out);
	fclose(out);
	assert_string_equal(text, "index = 0x64\n"
				  "words[0] = 0x1\nwords[1] = 0x2\nwords[2..3] = 0x3\nwords[4] = 0xfff0\n"
				  "enabled = 0x1\ncounter = 0xdeadbeef\ndeadline = 0x123456789abcdef0\nsmall = 0x1\n");
}

static void writer_that_failed_stays_so(void **state)
{
	struct writer writer = { 0 };

	(void)state;
	writer_bytes(&writer, "abc", 3);
	writer_bytes(&writer, "x", SIZE_MAX - 1);
	assert_true(writer.failed);
	writer_bytes(&writer, "abc", 3);
	assert_int_equal(writer.size, 3);
	assert_int_equal(state_save(&thing_desc, 0, &sample, &writer), -ENOMEM);
	writer_free(&writer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reset_sets_every_field),
		cmocka_unit_test(saved_is_loaded),
		cmocka_unit_test(record_has_its_documented_bytes),
		cmocka_unit_test(records_follow_each_other),
		cmocka_unit_test(missing_fields_get_reset_values),
		cmocka_unit_test(errors_name_what_is_wrong),
		cmocka_unit_test(field_twice_is_refused),
		cmocka_unit_test(refusal_by_loaded_restores),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(every_changed_byte_is_checked),
		cmocka_unit_test(print_shows_ranges),
		cmocka_unit_test(writer_that_failed_stays_so),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
