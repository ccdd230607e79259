/*
 * Bytes in pieces of memory.
 */
#include "block/private.h"

void span_advance(struct span *span, uint64_t size)
{
	while (size) {
		uint64_t part = MIN(size, span->iov->iov_len - span->skip);

		span->skip += part;
		size -= part;
		if (span->skip == span->iov->iov_len) {
			span->iov++;
			span->count--;
			span->skip = 0;
		}
	}
}

int span_pieces(struct span span, uint64_t size, struct iovec *out, int room, uint64_t *bytes)
{
	int count = 0;

	*bytes = 0;
	while (*bytes < size && count < room && span.count) {
		uint64_t part = MIN(size - *bytes, span.iov->iov_len - span.skip);

		if (part)
			out[count++] = (struct iovec){ (char *)span.iov->iov_base + span.skip, part };
		*bytes += part;
		span.iov++;
		span.count--;
		span.skip = 0;
	}
	return count;
}

/* The next piece, at most `size` bytes of it. */
static struct iovec span_next(struct span *span, uint64_t size)
{
	struct iovec piece = { 0 };
	uint64_t bytes;

	span_pieces(*span, size, &piece, 1, &bytes);
	BUG_ON(!bytes);
	span_advance(span, bytes);
	return piece;
}

void span_zero(struct span span, uint64_t size)
{
	while (size) {
		struct iovec piece = span_next(&span, size);

		memset(piece.iov_base, 0, piece.iov_len);
		size -= piece.iov_len;
	}
}

void span_fill(struct span span, const void *from, uint64_t size)
{
	const char *at = from;

	while (size) {
		struct iovec piece = span_next(&span, size);

		memcpy(piece.iov_base, at, piece.iov_len);
		at += piece.iov_len;
		size -= piece.iov_len;
	}
}

void span_copy(struct span span, void *to, uint64_t size)
{
	char *at = to;

	while (size) {
		struct iovec piece = span_next(&span, size);

		memcpy(at, piece.iov_base, piece.iov_len);
		at += piece.iov_len;
		size -= piece.iov_len;
	}
}
