/*
 * What a table of fields is good for besides the codec: reset and print.
 */
#include "state/state.h"

#include "state/private.h"

#include <inttypes.h>

uint64_t state_get(const struct state_field *field, const void *bytes, size_t index)
{
	uint64_t value = 0;

	/* Little endian, as the host is. */
	memcpy(&value, (const uint8_t *)bytes + index * field->size, field->size);
	return value;
}

void state_put(const struct state_field *field, void *bytes, size_t index, uint64_t value)
{
	memcpy((uint8_t *)bytes + index * field->size, &value, field->size);
}

void state_reset_field(const struct state_field *field, void *bytes)
{
	size_t i;

	for (i = 0; i < field->count; i++)
		state_put(field, bytes, i, field->reset);
}

void state_reset(const struct state_desc *desc, void *object)
{
	size_t i;

	for (i = 0; i < desc->field_count; i++)
		state_reset_field(&desc->fields[i], (uint8_t *)object + desc->fields[i].offset);
}

static void print_field(const struct state_field *field, const void *bytes, FILE *out)
{
	size_t first = 0, next;

	if (field->count == 1) {
		fprintf(out, "%s = 0x%" PRIx64 "\n", field->name, state_get(field, bytes, 0));
		return;
	}
	for (; first < field->count; first = next) {
		uint64_t value = state_get(field, bytes, first);

		for (next = first + 1; next < field->count && state_get(field, bytes, next) == value; next++)
			;
		if (next == first + 1)
			fprintf(out, "%s[%zu] = 0x%" PRIx64 "\n", field->name, first, value);
		else
			fprintf(out, "%s[%zu..%zu] = 0x%" PRIx64 "\n", field->name, first, next - 1, value);
	}
}

void state_print(const struct state_desc *desc, const void *object, FILE *out)
{
	size_t i;

	for (i = 0; i < desc->field_count; i++)
		print_field(&desc->fields[i], (const uint8_t *)object + desc->fields[i].offset, out);
}
