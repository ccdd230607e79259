/*
 * The growing buffer that records are written to.
 */
#include "state/state.h"

#include <stdlib.h>

void writer_free(struct writer *writer)
{
	free(writer->data);
	*writer = (struct writer){ 0 };
}

void writer_bytes(struct writer *writer, const void *data, size_t size)
{
	if (writer->failed || !size)
		return;
	if (size > writer->capacity - writer->size) {
		size_t needed, capacity;
		uint8_t *moved;

		if (__builtin_add_overflow(writer->size, size, &needed) ||
		    __builtin_add_overflow(needed, needed / 2 + 64, &capacity)) {
			writer->failed = true;
			return;
		}
		moved = realloc(writer->data, capacity);
		if (!moved) {
			writer->failed = true;
			return;
		}
		writer->data = moved;
		writer->capacity = capacity;
	}
	memcpy(writer->data + writer->size, data, size);
	writer->size += size;
}
