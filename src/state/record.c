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

#define NAME_MAX_LENGTH (STATE_NAME_SIZE - 1)
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

/* Values of all fields, one after the other in the table's order. Those of the record, or the object's while the record's are in it. */
struct state_change {
	const struct state_desc *desc;
	void *object;
	uint8_t *values;
};

static size_t values_before(const struct state_desc *desc, size_t field)
{
	size_t size = 0;

	for (size_t i = 0; i < field; i++)
		size += state_field_bytes(&desc->fields[i]);
	return size;
}

/* Starts out with the reset values: what a field has that the record's writer did not know. */
static int change_init(struct state_change *change, const struct state_desc *desc, void *object)
{
	change->desc = desc;
	change->object = object;
	change->values = malloc(values_before(desc, desc->field_count) + 1);
	if (!change->values)
		return -ENOMEM;
	for (size_t i = 0; i < desc->field_count; i++)
		state_reset_field(&desc->fields[i], change->values + values_before(desc, i));
	return 0;
}

/* Exchanges the object's values with those kept: a commit, and done again its undoing. */
static void change_swap(struct state_change *change)
{
	const struct state_desc *desc = change->desc;
	uint8_t *kept = change->values;

	for (size_t i = 0; i < desc->field_count; i++) {
		uint8_t *value = (uint8_t *)change->object + desc->fields[i].offset;

		for (size_t k = 0; k < state_field_bytes(&desc->fields[i]); k++, kept++) {
			uint8_t byte = value[k];

			value[k] = *kept;
			*kept = byte;
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
static int load_field(const struct record_name *name, struct state_change *change, bool *seen, struct reader *payload,
		      struct error *err)
{
	const struct state_desc *desc = change->desc;
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
	if (seen[i])
		return error_set(err, EINVAL, "record '%s' has the field '%s' twice", name->text, field->name);
	seen[i] = true;
	if (header[2] != field->size || count != field->count)
		return error_set(err, EINVAL,
				 "record '%s': field '%s' has %" PRIu32 " elements of %u bytes; expected %" PRIu32
				 " of %u",
				 name->text, field->name, count, header[2], field->count, field->size);
	values = take(payload, state_field_bytes(field));
	if (!values)
		return error_set(err, EINVAL, "record '%s' ends inside the field '%s'", name->text, field->name);
	memcpy(change->values + values_before(desc, i), values, state_field_bytes(field));
	return check_values(name, field, values, err);
}

/* A hostile name may not reach the terminal as it is. */
static void make_printable(char name[STATE_NAME_SIZE], const uint8_t *text, uint8_t length)
{
	for (size_t i = 0; i < length; i++)
		name[i] = text[i] >= 0x20 && text[i] < 0x7f ? (char)text[i] : '?';
	name[length] = 0;
}

bool state_peek(const struct reader *reader, char name[STATE_NAME_SIZE], size_t *size)
{
	struct reader at = *reader;
	const uint8_t *length = take(&at, 1), *text = length ? take(&at, *length) : NULL;
	const uint8_t *header = text ? take(&at, 6) : NULL;

	if (!header || !take(&at, load_le32(header + 2)))
		return false;
	make_printable(name, text, *length);
	*size = at.offset - reader->offset;
	return true;
}

/* The record's frame: checks that it is the one expected and leaves its payload. */
static int load_header(const struct record_name *name, const struct state_desc *desc, struct reader *reader,
		       struct reader *payload, uint16_t *found_version, struct error *err)
{
	const uint8_t *length = take(reader, 1), *text = length ? take(reader, *length) : NULL;
	const uint8_t *header = text ? take(reader, 6) : NULL;
	uint16_t version;
	uint32_t size;

	if (!header)
		return error_set(err, EINVAL, "record '%s' is cut off in its header", name->text);
	if (*length != name->length || memcmp(text, name->text, *length) != 0) {
		char found[STATE_NAME_SIZE];

		make_printable(found, text, *length);
		return error_set(err, EINVAL, "found a record '%.64s'; expected '%s'", found, name->text);
	}
	version = load_le16(header);
	size = load_le32(header + 2);
	if (!version || version > desc->version)
		return error_set(err, EINVAL, "record '%s' has version %u; expected 1 to %u", name->text, version,
				 desc->version);
	*found_version = version;
	payload->data = take(reader, size);
	payload->size = size;
	payload->offset = 0;
	if (!payload->data)
		return error_set(err, EINVAL, "record '%s' has %" PRIu32 " bytes, of which only %zu are there",
				 name->text, size, reader->size - reader->offset);
	return 0;
}

static int load_fields(const struct record_name *name, struct state_change *change, struct reader *payload,
		       struct error *err)
{
	bool *seen = calloc(change->desc->field_count + 1, sizeof(*seen));
	int rc = seen ? 0 : error_set_errno(err, ENOMEM, "record '%s'", name->text);

	while (!rc && payload->offset < payload->size)
		rc = load_field(name, change, seen, payload, err);
	free(seen);
	return rc;
}

/* Leaves the record's values in the object, the object's in *change. On error neither is so, and there is nothing to free. */
static int load(struct state_change *change, const struct state_desc *desc, unsigned instance, void *object,
		struct reader *reader, struct error *err)
{
	struct reader at = *reader, payload = { 0 };
	struct record_name name;
	uint16_t version = 0;
	int rc;

	make_name(&name, desc, instance);
	rc = load_header(&name, desc, &at, &payload, &version, err);
	if (rc)
		return rc;
	if (change_init(change, desc, object))
		return error_set_errno(err, ENOMEM, "record '%s'", name.text);
	rc = load_fields(&name, change, &payload, err);
	if (!rc) {
		change_swap(change);
		if (desc->loaded)
			rc = desc->loaded(object, version, err);
		if (rc) {
			change_swap(change);
			error_prefix(err, "record '%s'", name.text);
		}
	}
	if (rc)
		free(change->values);
	else
		*reader = at;
	return rc;
}

int state_load(const struct state_desc *desc, unsigned instance, void *object, struct reader *reader, struct error *err)
{
	struct state_change change;
	int rc = load(&change, desc, instance, object, reader, err);

	if (!rc)
		free(change.values);
	return rc;
}

int state_load_part(struct state_changes *changes, const struct state_desc *desc, unsigned instance, void *object,
		    struct reader *reader, struct error *err)
{
	int rc;

	if (changes->count == changes->capacity) {
		size_t capacity = changes->capacity * 2 + 16;
		struct state_change *list = realloc(changes->list, capacity * sizeof(*list));

		if (!list)
			return error_set_errno(err, ENOMEM, "record '%s.%u'", desc->name, instance);
		changes->list = list;
		changes->capacity = capacity;
	}
	rc = load(&changes->list[changes->count], desc, instance, object, reader, err);
	if (!rc)
		changes->count++;
	return rc;
}

void state_load_undo(struct state_changes *changes)
{
	/* The last one first: an object may have been loaded twice. */
	for (size_t i = changes->count; i-- > 0;)
		change_swap(&changes->list[i]);
	state_load_keep(changes);
}

void state_load_keep(struct state_changes *changes)
{
	for (size_t i = 0; i < changes->count; i++)
		free(changes->list[i].values);
	free(changes->list);
	*changes = (struct state_changes){ 0 };
}

/* ---- checksum ---- */

uint32_t state_checksum(uint32_t before, const void *data, size_t size)
{
	/* The remainders of four bits. */
	static const uint32_t table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
		0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	const uint8_t *bytes = data;
	uint32_t crc = ~before;

	for (size_t i = 0; i < size; i++) {
		crc = crc >> 4 ^ table[(crc ^ bytes[i]) & 15];
		crc = crc >> 4 ^ table[(crc ^ bytes[i] >> 4) & 15];
	}
	return ~crc;
}
