/*
 * Messages: numbers, little-endian, and strings, two bytes of length in front, out of requests and into replies.
 */
#include "share/private.h"

#include <errno.h>

uint64_t get(struct request *r, unsigned size)
{
	uint64_t value = 0;

	if (!range_ok(r->at, size, r->have)) {
		r->bad = true;
		return 0;
	}
	memcpy(&value, r->share->request + r->at, size);
	r->at += size;
	return value;
}

size_t get_string(struct request *r, char *text, size_t size)
{
	size_t length = get(r, 2);

	*text = 0;
	if (length >= size || !range_ok(r->at, length, r->have) || memchr(r->share->request + r->at, 0, length)) {
		r->bad = true;
		return 0;
	}
	memcpy(text, r->share->request + r->at, length);
	text[length] = 0;
	r->at += length;
	return length;
}

void get_name(struct request *r, struct name *name)
{
	size_t length = get_string(r, name->text, sizeof(name->text));

	if (!length || strchr(name->text, '/') || !strcmp(name->text, ".") || !strcmp(name->text, ".."))
		r->bad = true;
}

void put(struct request *r, uint64_t value, unsigned size) { put_bytes(r, &value, size); }

void put_bytes(struct request *r, const void *bytes, size_t size)
{
	BUG_ON(!range_ok(r->reply_at, size, REPLY_MOST));
	memcpy(r->share->reply + r->reply_at, bytes, size);
	r->reply_at += size;
}

unsigned message_pieces(const struct iovec *pieces, unsigned count, size_t offset, size_t size, struct iovec *to)
{
	unsigned used = 0;

	for (unsigned n = 0; n < count && size; n++) {
		size_t skip = MIN(offset, pieces[n].iov_len), part = MIN(size, pieces[n].iov_len - skip);

		offset -= skip;
		size -= part;
		if (part)
			to[used++] = (struct iovec){ (uint8_t *)pieces[n].iov_base + skip, part };
	}
	return used;
}

size_t pieces_copy(const struct iovec *pieces, unsigned count, size_t offset, void *data, size_t size, bool write)
{
	size_t done = 0;

	for (unsigned n = 0; n < count && done < size; n++) {
		size_t skip = MIN(offset, pieces[n].iov_len), part = MIN(size - done, pieces[n].iov_len - skip);
		uint8_t *piece = (uint8_t *)pieces[n].iov_base + skip, *here = (uint8_t *)data + done;

		memcpy(write ? piece : here, write ? here : piece, part);
		offset -= skip;
		done += part;
	}
	return done;
}
