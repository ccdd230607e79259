#include "base/base.h"

#include <stdlib.h>

uint8_t *bytes_extend(struct bytes *b, size_t size)
{
	uint8_t *data;

	if (!b->data || b->size + size > b->capacity) {
		size_t capacity = MAX(b->size + size, MAX(2 * b->capacity, 16));

		data = realloc(b->data, capacity);
		if (!data)
			return NULL;
		b->data = data;
		b->capacity = capacity;
	}
	data = b->data + b->size;
	b->size += size;
	return data;
}

bool bytes_add(struct bytes *b, const void *data, size_t size)
{
	uint8_t *to = bytes_extend(b, size);

	if (to && size)
		memcpy(to, data, size);
	return to;
}

void bytes_cut_front(struct bytes *b, size_t size)
{
	b->size -= size;
	memmove(b->data, b->data + size, b->size);
}
