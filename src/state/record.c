/*
 * The record codec: a table's fields to bytes and back. What is read is hostile until every byte of it was checked.
 *
 * The name in a record is "<desc->name>.<instance>".
 */
#include "state/state.h"

#include "state/private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define NAME_MAX_LENGTH 255
#define FIELD_HEADER	7 /* tag, element size, count */

struct record_name {
	char text[NAME_MAX_LENGTH + 1];
	uint8_t length;
};

static void make_name(struct record_name *name, const struct state_desc *desc, unsigned instance)
{
	int length = snprintf(name->text, sizeof(name->text), "%s.%u", desc->name, instance);

	BUG_ON(length < 1 || length > NAME_MAX_LENGTH);
	name->length = (uint8_t)length;
}

/* ---- save ---- */

static void write_le16(struct writer *writer, uint16_t v) { writer_bytes(writer, &v, 2); }
static void write_le32(struct writer *writer, uint32_t v) { writer_bytes(writer, &v, 4); }

int state_save(const struct state_desc *desc, unsigned instance, const void *object, struct writer *writer)
{
	struct record_name name;
	uint64_t payload = 0;
	size_t i;

	if (desc->saving)
		desc->saving(object);
	make_name(&name, desc, instance);
	for (i = 0; i < desc->field_count; i++)
		payload += FIELD_HEADER + state_field_bytes(&desc->fields[i]);
	BUG_ON(payload > UINT32_MAX);

	writer_bytes(writer, &name.length, 1);
	writer_bytes(writer, name.text, name.length);
	write_le16(writer, desc->version);
	write_le32(writer, (uint32_t)payload);
	for (i = 0; i < desc->field_count; i++) {
		const struct state_field *field = &desc->fields[i];

		write_le16(writer, field->tag);
		writer_bytes(writer, &field->size, 1);
		write_le32(writer, field->count);
		writer_bytes(writer, (const uint8_t *)object + field->offset, state_field_bytes(field));
	}
	return writer->failed ? -ENOMEM : 0;
}

/* ---- load ---- */

/* Values of all fields, one after the other in the table's order, and which of them the record had. */
struct scratch {
	uint8_t *values;
	size_t *at; /* offset in values of each field */
	bool *seen;
};

static void scratch_free(struct scratch *scratch)
{
	free(scratch->values);
	free(scratch->at);
	free(scratch->seen);
}

/* Starts out with the reset values: what a field has that the record's writer did not know. */
static int scratch_init(struct scratch *scratch, const struct state_desc *desc)
{
	size_t i, size = 0;

	for (i = 0; i < desc->field_count; i++)
		size += state_field_bytes(&desc->fields[i]);
	scratch->values = malloc(size + 1);
	scratch->at = calloc(desc->field_count + 1, sizeof(*scratch->at));
	scratch->seen = calloc(desc->field_count + 1, sizeof(*scratch->seen));
	if (!scratch->values || !scratch->at || !scratch->seen) {
		scratch_free(scratch);
		return -ENOMEM;
	}
	for (i = 0, size = 0; i < desc->field_count; i++) {
		scratch->at[i] = size;
		state_reset_field(&desc->fields[i], scratch->values + size);
		size += state_field_bytes(&desc->fields[i]);
	}
	return 0;
}

/* Exchanges the object's fields with scratch's: a commit, and done again its undoing. */
static void scratch_swap(struct scratch *scratch, const struct state_desc *desc, void *object)
{
	size_t i, k;

	for (i = 0; i < desc->field_count; i++) {
		uint8_t *a = (uint8_t *)object + desc->fields[i].offset, *b = scratch->values + scratch->at[i];

		for (k = 0; k < state_field_bytes(&desc->fields[i]); k++) {
			uint8_t byte = a[k];

			a[k] = b[k];
			b[k] = byte;
		}
	}
}

static const uint8_t *take(struct reader *reader, size_t size)
{
	const uint8_t *at = reader->data + reader->offset;

	if (!range_ok(reader->offset, size, reader->size))
		return NULL;
	reader->offset += size;
	return at;
}

static int check_values(const struct record_name *name, const struct state_field *field, const uint8_t *values,
			struct error *err)
{
	size_t i;

	for (i = 0; i < field->count; i++) {
		uint64_t value = state_get(field, values, i);

		if (value > field->max)
			return error_set(err, EINVAL,
					 "record '%s': field '%s'[%zu] is 0x%" PRIx64 "; at most 0x%" PRIx64
					 " is allowed",
					 name->text, field->name, i, value, field->max);
	}
	return 0;
}

/* One field of the payload into scratch. */
static int load_field(const struct record_name *name, const struct state_desc *desc, struct scratch *scratch,
		      struct reader *payload, struct error *err)
{
	const uint8_t *header = take(payload, FIELD_HEADER), *values;
	const struct state_field *field;
	uint32_t count;
	uint16_t tag;
	size_t i;

	if (!header)
		return error_set(err, EINVAL, "record '%s' ends inside a field's header", name->text);
	tag = load_le16(header);
	count = load_le32(header + 3);
	for (i = 0; i < desc->field_count && desc->fields[i].tag != tag; i++)
		;
	if (i == desc->field_count)
		return error_set(err, EINVAL, "record '%s' has a field with the unknown tag %u", name->text, tag);
	field = &desc->fields[i];
	if (scratch->seen[i])
		return error_set(err, EINVAL, "record '%s' has the field '%s' twice", name->text, field->name);
	scratch->seen[i] = true;
	if (header[2] != field->size || count != field->count)
		return error_set(err, EINVAL,
				 "record '%s': field '%s' has %" PRIu32 " elements of %u bytes; expected %" PRIu32
				 " of %u",
				 name->text, field->name, count, header[2], field->count, field->size);
	values = take(payload, state_field_bytes(field));
	if (!values)
		return error_set(err, EINVAL, "record '%s' ends inside the field '%s'", name->text, field->name);
	memcpy(scratch->values + scratch->at[i], values, state_field_bytes(field));
	return check_values(name, field, values, err);
}

/* The record's frame: checks that it is the one expected and leaves its payload. */
static int load_header(const struct record_name *name, const struct state_desc *desc, struct reader *reader,
		       struct reader *payload, struct error *err)
{
	const uint8_t *length = take(reader, 1), *text = length ? take(reader, *length) : NULL;
	const uint8_t *header = text ? take(reader, 6) : NULL;
	uint16_t version;
	uint32_t size;

	if (!header)
		return error_set(err, EINVAL, "record '%s' is cut off in its header", name->text);
	if (*length != name->length || memcmp(text, name->text, *length) != 0) {
		char found[64];
		size_t i;

		/* A hostile name may not reach the terminal as it is. */
		for (i = 0; i < MIN(*length, sizeof(found) - 1); i++)
			found[i] = text[i] >= 0x20 && text[i] < 0x7f ? (char)text[i] : '?';
		found[i] = 0;
		return error_set(err, EINVAL, "found a record '%s'; expected '%s'", found, name->text);
	}
	version = load_le16(header);
	size = load_le32(header + 2);
	if (version > desc->version)
		return error_set(err, EINVAL, "record '%s' has version %u; at most %u is known", name->text, version,
				 desc->version);
	payload->data = take(reader, size);
	payload->size = size;
	payload->offset = 0;
	if (!payload->data)
		return error_set(err, EINVAL, "record '%s' has %" PRIu32 " bytes, of which only %zu are there",
				 name->text, size, reader->size - reader->offset);
	return 0;
}

int state_load(const struct state_desc *desc, unsigned instance, void *object, struct reader *reader, struct error *err)
{
	struct reader at = *reader, payload = { 0 };
	struct record_name name;
	struct scratch scratch;
	int rc;

	make_name(&name, desc, instance);
	rc = load_header(&name, desc, &at, &payload, err);
	if (rc)
		return rc;
	if (scratch_init(&scratch, desc))
		return error_set_errno(err, ENOMEM, "record '%s'", name.text);
	while (!rc && payload.offset < payload.size)
		rc = load_field(&name, desc, &scratch, &payload, err);
	if (!rc) {
		scratch_swap(&scratch, desc, object);
		if (desc->loaded)
			rc = desc->loaded(object, err);
		if (rc) {
			scratch_swap(&scratch, desc, object);
			error_prefix(err, "record '%s'", name.text);
		}
	}
	scratch_free(&scratch);
	if (!rc)
		*reader = at;
	return rc;
}
