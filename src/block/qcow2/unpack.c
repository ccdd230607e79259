/*
 * Compressed clusters: read alone. The last one is kept unpacked, as the next request is likely to want the rest of it.
 */
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

static int unpack_zlib(const uint8_t *from, size_t size, uint8_t *to, size_t room)
{
	z_stream stream = { .next_in = (uint8_t *)(uintptr_t)from,
			    .avail_in = (unsigned)size,
			    .next_out = to,
			    .avail_out = (unsigned)room };
	int rc;

	if (inflateInit2(&stream, -12) != Z_OK)
		return -ENOMEM;
	rc = inflate(&stream, Z_FINISH);
	inflateEnd(&stream);
	/* What is behind the data in the last sector is not part of it. */
	return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !stream.avail_out ? 0 : -EIO;
}

static int unpack_zstd(const uint8_t *from, size_t size, uint8_t *to, size_t room)
{
	ZSTD_DStream *stream = ZSTD_createDStream();
	ZSTD_inBuffer in = { from, size, 0 };
	ZSTD_outBuffer out = { to, room, 0 };

	if (!stream)
		return -ENOMEM;
	while (out.pos < out.size) {
		size_t before = in.pos + out.pos, rc = ZSTD_decompressStream(stream, &out, &in);

		if (ZSTD_isError(rc) || in.pos + out.pos == before)
			break;
	}
	ZSTD_freeDStream(stream);
	return out.pos == out.size ? 0 : -EIO;
}

/* unpack_lock held. */
static int unpack(struct qcow2 *q, uint64_t entry)
{
	uint64_t offset, size;
	uint8_t *packed;
	int rc;

	if (q->unpacked == entry)
		return 0;
	q->unpacked = 0;
	compressed_place(q, entry, &offset, &size);
	if (!q->unpacked_data)
		q->unpacked_data = malloc(q->cluster_size);
	packed = malloc(size);
	rc = packed && q->unpacked_data ? file_read_bytes(q->image.file, offset, packed, size) : -ENOMEM;
	if (!rc && q->header.compression)
		rc = unpack_zstd(packed, size, q->unpacked_data, q->cluster_size);
	else if (!rc)
		rc = unpack_zlib(packed, size, q->unpacked_data, q->cluster_size);
	free(packed);
	if (!rc)
		q->unpacked = entry;
	return rc;
}

int qcow2_read_compressed(struct qcow2 *q, uint64_t entry, uint64_t at, uint64_t size, struct span span)
{
	int rc;

	pthread_mutex_lock(&q->unpack_lock);
	rc = unpack(q, entry);
	if (!rc)
		span_fill(span, q->unpacked_data + at, size);
	pthread_mutex_unlock(&q->unpack_lock);
	return rc;
}
