/*
 * The header of a qcow2 image, and what it is refused for.
 */
#define _GNU_SOURCE
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define HEADER_2    72	/* bytes of version 2's */
#define HEADER_3    104 /* the least of version 3's */
#define HEADER_MAX  (2u << 20)
#define NAME_LENGTH 46 /* of a feature */

/* A header's bytes, and where sentences are said to be from. */
struct raw_header {
	const uint8_t *bytes;
	uint64_t size;
	const char *path;
};

static int bad(const struct raw_header *raw, struct error *err, const char *fmt, ...) printf_like(3, 4);

static int bad(const struct raw_header *raw, struct error *err, const char *fmt, ...)
{
	char text[320];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return error_set(err, EINVAL, "'%s': %s", raw->path, text);
}

static void take_fields(const struct raw_header *raw, struct qcow2_header *h)
{
	const uint8_t *b = raw->bytes;

	h->version = load_be32(b + 4);
	h->backing_offset = load_be64(b + 8);
	h->backing_length = load_be32(b + 16);
	h->cluster_bits = load_be32(b + 20);
	h->size = load_be64(b + 24);
	h->crypt = load_be32(b + 32);
	h->l1_size = load_be32(b + 36);
	h->l1_offset = load_be64(b + 40);
	h->reftable_offset = load_be64(b + 48);
	h->reftable_clusters = load_be32(b + 56);
	h->snapshot_count = load_be32(b + 60);
	h->snapshot_offset = load_be64(b + 64);
	h->length = HEADER_2;
	h->refcount_order = 4;
	if (h->version == 2)
		return;
	h->incompatible = load_be64(b + 72);
	h->compatible = load_be64(b + 80);
	h->autoclear = load_be64(b + 88);
	h->refcount_order = load_be32(b + 96);
	h->length = load_be32(b + 100);
	if ((h->incompatible & INCOMPATIBLE_COMPRESSION) && h->length > HEADER_3)
		h->compression = b[104];
}

static int check_place(const struct raw_header *raw, const char *what, uint64_t offset, uint64_t bytes,
		       const struct qcow2_header *h, uint64_t file_size, struct error *err)
{
	uint64_t end = align_up(MIN(file_size, (uint64_t)INT64_MAX), BIT(h->cluster_bits));

	if (!offset || offset & (BIT(h->cluster_bits) - 1))
		return bad(raw, err, "%s is at %#" PRIx64 "; expected a multiple of the cluster size %llu, not 0", what,
			   offset, BIT(h->cluster_bits));
	if (!range_ok(offset, bytes, end))
		return bad(raw, err,
			   "%s, %" PRIu64 " bytes at %#" PRIx64 ", is not inside the file, which has %" PRIu64, what,
			   bytes, offset, file_size);
	return 0;
}

static int check_geometry(const struct raw_header *raw, const struct qcow2_header *h, struct error *err)
{
	if (h->cluster_bits < 9 || h->cluster_bits > 21)
		return bad(raw, err, "clusters of 2^%u bytes; expected 2^9 to 2^21", h->cluster_bits);
	if (h->version == 3 && h->length < HEADER_3)
		return bad(raw, err, "its header says it has %u bytes; expected at least %u", h->length, HEADER_3);
	if (h->length > BIT(h->cluster_bits))
		return bad(raw, err, "its header says it has %u bytes; expected at most a cluster", h->length);
	if (h->refcount_order > 6)
		return bad(raw, err, "refcounts of 2^%u bits; expected 2^0 to 2^6", h->refcount_order);
	if (h->size > INT64_MAX - BIT(21))
		return bad(raw, err, "a disk of %" PRIu64 " bytes is too large", h->size);
	return 0;
}

static int check_tables(const struct raw_header *raw, const struct qcow2_header *h, uint64_t file_size,
			struct error *err)
{
	bool extended = h->incompatible & INCOMPATIBLE_EXTENDED_L2;
	unsigned l2_span = 2 * h->cluster_bits - entry_bits(extended); /* a logarithm of at most 39 */
	uint64_t needed = (h->size >> l2_span) + ((h->size & (BIT(l2_span) - 1)) != 0);
	uint64_t reftable = (uint64_t)h->reftable_clusters << h->cluster_bits;

	if (extended && h->cluster_bits < EXTENDED_BITS)
		return bad(raw, err, "extended L2 entries with clusters of %u bytes; expected at least %u",
			   1u << h->cluster_bits, 1u << EXTENDED_BITS);
	if (h->l1_size < needed)
		return bad(raw, err, "its L1 table has %u entries; a disk of %" PRIu64 " bytes needs %" PRIu64,
			   h->l1_size, h->size, needed);
	if (h->l1_size > L1_MAX / 8)
		return bad(raw, err, "its L1 table has %u entries; at most %u are possible", h->l1_size, L1_MAX / 8);
	if (!h->reftable_clusters || reftable > REFTABLE_MAX)
		return bad(raw, err, "its refcount table has %u clusters; expected 1 to %" PRIu64, h->reftable_clusters,
			   (uint64_t)REFTABLE_MAX >> h->cluster_bits);
	if (h->snapshot_count > SNAPSHOTS_MAX)
		return bad(raw, err, "%u snapshots; at most %u are possible", h->snapshot_count, SNAPSHOTS_MAX);
	if ((h->l1_size && check_place(raw, "the L1 table", h->l1_offset, h->l1_size * 8ull, h, file_size, err)) ||
	    check_place(raw, "the refcount table", h->reftable_offset, reftable, h, file_size, err))
		return -EINVAL;
	return h->snapshot_count ? check_place(raw, "the snapshot table", h->snapshot_offset, 1, h, file_size, err) : 0;
}

static int check_features(const struct raw_header *raw, const struct qcow2_header *h, const char *names,
			  uint64_t names_size, struct error *err)
{
	uint64_t known = INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT | INCOMPATIBLE_DATA_FILE | INCOMPATIBLE_COMPRESSION |
			 INCOMPATIBLE_EXTENDED_L2;
	uint64_t unknown = h->incompatible & ~known;
	unsigned bit;

	if (h->crypt)
		return bad(raw, err, "it is encrypted (%s); doppel opens no encrypted images",
			   h->crypt == 1   ? "AES"
			   : h->crypt == 2 ? "LUKS"
					   : "an unknown method");
	if (h->incompatible & INCOMPATIBLE_DATA_FILE)
		return bad(raw, err,
			   "its data is in another file (feature 'external data file'), which is not possible");
	if (h->compression > 1)
		return bad(raw, err, "compression of type %u is unknown; expected 0 (zlib) or 1 (zstd)",
			   h->compression);
	if (!unknown)
		return 0;
	bit = (unsigned)__builtin_ctzll(unknown);
	for (uint64_t at = 0; at + 48 <= names_size; at += 48)
		if (!names[at] && (uint8_t)names[at + 1] == bit)
			return bad(raw, err, "it needs the feature '%.*s', which doppel does not have",
				   (int)strnlen(names + at + 2, NAME_LENGTH), names + at + 2);
	return bad(raw, err, "it needs a feature without a name (bit %u), which doppel does not have", bit);
}

static int take_backing(const struct raw_header *raw, struct qcow2_header *h, struct error *err)
{
	if (!h->backing_offset)
		return 0;
	if (h->backing_length > 1023 || !range_ok(h->backing_offset, h->backing_length, raw->size) ||
	    h->backing_offset < h->length)
		return bad(raw, err, "the name of its backing file, %u bytes at %#" PRIx64 ", is not inside its header",
			   h->backing_length, h->backing_offset);
	if (memchr(raw->bytes + h->backing_offset, 0, h->backing_length))
		return bad(raw, err, "the name of its backing file has a NUL character in it");
	memcpy(h->backing, raw->bytes + h->backing_offset, h->backing_length);
	return 0;
}

static int take_extensions(const struct raw_header *raw, struct qcow2_header *h, struct error *err)
{
	uint64_t end = h->backing_offset ? h->backing_offset : raw->size, at = h->length, names = 0, names_size = 0;

	while (at + 8 <= end) {
		uint32_t type = load_be32(raw->bytes + at), length = load_be32(raw->bytes + at + 4);

		at += 8;
		if (!type)
			break;
		if (!range_ok(at, length, end))
			return bad(raw, err, "a header extension of %u bytes is not inside its header", length);
		if (type == EXTENSION_BACKING_FORMAT)
			snprintf(h->backing_format, sizeof(h->backing_format), "%.*s", (int)MIN(length, 31),
				 (const char *)raw->bytes + at);
		if (type == EXTENSION_FEATURE_NAMES) {
			names = at;
			names_size = length;
		}
		h->bitmaps |= type == EXTENSION_BITMAPS;
		at += align_up(length, 8);
	}
	return check_features(raw, h, (const char *)raw->bytes + names, names_size, err);
}

static int parse(struct raw_header *raw, struct qcow2_header *h, uint64_t file_size, struct error *err)
{
	int rc;

	if (load_be32(raw->bytes) != QCOW2_MAGIC)
		return bad(raw, err, "it is no qcow2 image: it begins with %#x", load_be32(raw->bytes));
	take_fields(raw, h);
	if (h->version != 2 && h->version != 3)
		return bad(raw, err, "version %u of the format; expected 2 or 3", h->version);
	rc = check_geometry(raw, h, err);
	if (rc)
		return rc;
	raw->size = MIN(raw->size, BIT(h->cluster_bits));
	rc = take_backing(raw, h, err);
	if (!rc)
		rc = take_extensions(raw, h, err);
	return rc ? rc : check_tables(raw, h, file_size, err);
}

int qcow2_header_read(struct file *file, struct qcow2_header *h, struct error *err)
{
	uint64_t file_size = atomic_load(&file->size);
	uint8_t *bytes = calloc(1, HEADER_MAX);
	struct raw_header raw = { bytes, HEADER_MAX, file->path };
	int rc = bytes ? file_read_bytes(file, 0, bytes, MIN(file_size, HEADER_MAX)) : -ENOMEM;

	memset(h, 0, sizeof(*h));
	if (rc)
		rc = error_set_errno(err, -rc, "cannot read the header of '%s'", file->path);
	else
		rc = parse(&raw, h, file_size, err);
	free(bytes);
	return rc;
}
