/*
 * A new, empty qcow2 image: header, refcounts of what there is, an L1 table of zeros.
 */
#define _GNU_SOURCE
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define HEADER_LENGTH 112 /* version 3, with the type of compression */

struct layout {
	unsigned cluster_bits, order;
	uint64_t size, l1_entries;
	uint64_t table, blocks,
		l1; /* clusters of the refcount table, its blocks, the L1 table; in this order behind the header */
};

static int wrong(const struct block_create_options *o, struct error *err, const char *what, uint64_t value,
		 const char *expected)
{
	return error_set(err, EINVAL, "'%s': %s is %" PRIu64 "; expected %s", o->file, what, value, expected);
}

static bool is_power(uint64_t v) { return v && !(v & (v - 1)); }

static int check_options(const struct block_create_options *o, struct error *err)
{
	if (o->cluster_size && (!is_power(o->cluster_size) || o->cluster_size < 512 || o->cluster_size > 2u << 20))
		return wrong(o, err, "cluster_size", o->cluster_size, "a power of two from 512 to 2M");
	if (o->refcount_bits && (!is_power(o->refcount_bits) || o->refcount_bits > 64))
		return wrong(o, err, "refcount_bits", o->refcount_bits, "1, 2, 4, 8, 16, 32 or 64");
	if (o->version && o->version != 2 && o->version != 3)
		return wrong(o, err, "the version", o->version, "2 or 3 (compat=0.10 or 1.1)");
	if (o->version == 2 && o->refcount_bits && o->refcount_bits != 16)
		return wrong(o, err, "refcount_bits", o->refcount_bits, "16 for compat=0.10");
	if (o->version == 2 && o->lazy_refcounts)
		return error_set(err, EINVAL, "'%s': lazy_refcounts needs compat=1.1", o->file);
	if (o->version == 2 && o->extended_l2)
		return error_set(err, EINVAL, "'%s': extended_l2 needs compat=1.1", o->file);
	if (o->extended_l2 && o->cluster_size && o->cluster_size < BIT(EXTENDED_BITS))
		return wrong(o, err, "cluster_size", o->cluster_size, "at least 16k with extended_l2");
	if (o->backing && (!*o->backing || strlen(o->backing) > 1023))
		return error_set(err, EINVAL, "'%s': a backing file's name has 1 to 1023 bytes", o->file);
	if (o->backing && !o->backing_format)
		return error_set(err, EINVAL, "'%s': its backing file needs a format (-F raw or -F qcow2)", o->file);
	return 0;
}

static uint64_t divide_up(uint64_t v, unsigned shift) { return (v >> shift) + ((v & (BIT(shift) - 1)) != 0); }

static uint64_t total(const struct layout *l) { return 1 + l->table + l->blocks + l->l1; }

/* The table has room for what the image will have at most, as far as that is allowed: else it grows later. */
static int plan(const struct block_create_options *o, struct layout *l, struct error *err)
{
	unsigned bits_of = (unsigned)__builtin_ctzll(o->cluster_size ? o->cluster_size : 65536);
	unsigned block_bits;
	uint64_t most;

	*l = (struct layout){ .cluster_bits = bits_of, .size = align_up(o->size, BLOCK_SECTOR) };
	l->order = (unsigned)__builtin_ctz(o->refcount_bits ? o->refcount_bits : 16);
	block_bits = bits_of + 3 - l->order;
	l->l1_entries = divide_up(l->size, 2 * bits_of - entry_bits(o->extended_l2));
	if (o->size > (uint64_t)INT64_MAX / 2 || l->l1_entries > L1_MAX / 8)
		return error_set(err, EFBIG, "'%s': %" PRIu64 " bytes are too many for clusters of %llu bytes", o->file,
				 o->size, BIT(bits_of));
	l->l1 = divide_up(l->l1_entries * 8, bits_of);
	most = MIN(divide_up(l->size, bits_of) + l->l1_entries, BIT(40));
	l->table = MAX(MIN(divide_up(divide_up(most, block_bits) * 8 + 64, bits_of), REFTABLE_MAX >> bits_of), 1);
	for (uint64_t before = UINT64_MAX; before != l->blocks;) {
		before = l->blocks;
		l->blocks = divide_up(total(l), block_bits);
	}
	return 0;
}

static size_t put_extension(uint8_t *at, uint32_t type, const void *data, size_t size)
{
	store_be32(at, type);
	store_be32(at + 4, (uint32_t)size);
	memcpy(at + 8, data, size);
	return 8 + align_up(size, 8);
}

int qcow2_put_names(uint8_t *cluster, uint64_t size, uint64_t at, const char *backing, const char *format)
{
	size_t length = backing ? strlen(backing) : 0;
	size_t room = backing ? 8 + align_up(strlen(format), 8) + 8 + length + 1 : 8;

	if (!range_ok(at, room, size))
		return -ENOSPC;
	memset(cluster + at, 0, size - at);
	store_be64(cluster + 8, 0);
	store_be32(cluster + 16, 0);
	if (!backing)
		return 0;
	at += put_extension(cluster + at, EXTENSION_BACKING_FORMAT, format, strlen(format));
	at += 8; /* the end of the extensions: zeros */
	memcpy(cluster + at, backing, length + 1);
	store_be64(cluster + 8, at);
	store_be32(cluster + 16, (uint32_t)length);
	return 0;
}

static int put_header(uint8_t *b, const struct block_create_options *o, const struct layout *l, struct error *err)
{
	unsigned version = o->version ? o->version : 3;

	store_be32(b, QCOW2_MAGIC);
	store_be32(b + 4, version);
	store_be32(b + 20, l->cluster_bits);
	store_be64(b + 24, l->size);
	store_be32(b + 36, (uint32_t)l->l1_entries);
	store_be64(b + 40, l->l1 ? (1 + l->table + l->blocks) << l->cluster_bits : 0);
	store_be64(b + 48, 1ull << l->cluster_bits);
	store_be32(b + 56, (uint32_t)l->table);
	if (version == 3) {
		store_be64(b + 72, o->extended_l2 ? INCOMPATIBLE_EXTENDED_L2 : 0);
		store_be64(b + 80, o->lazy_refcounts ? COMPATIBLE_LAZY : 0);
		store_be32(b + 96, l->order);
		store_be32(b + 100, HEADER_LENGTH);
	}
	if (!qcow2_put_names(b, BIT(l->cluster_bits), version == 3 ? HEADER_LENGTH : 72, o->backing, o->backing_format))
		return 0;
	return error_set(err, EINVAL, "'%s': a backing file's name of %zu bytes has no room in a cluster of %llu",
			 o->file, strlen(o->backing), BIT(l->cluster_bits));
}

/* The refcount table and its blocks, each with 1 for the clusters there are. */
static int write_refcounts(struct file *file, const struct layout *l)
{
	uint64_t size = BIT(l->cluster_bits), per_block = BIT(l->cluster_bits + 3 - l->order), entries = l->blocks * 8;
	uint8_t *block = calloc(1, size), *table = malloc(entries);
	int rc = block && table ? 0 : -ENOMEM;

	for (uint64_t n = 0; n < l->blocks && !rc; n++) {
		uint64_t offset = (1 + l->table + n) << l->cluster_bits, first = n * per_block;

		memset(block, 0, size);
		for (uint64_t c = first; c < MIN(total(l), first + per_block); c++)
			refcount_store(block, l->order, c - first, 1);
		rc = file_write_bytes(file, offset, block, size);
		store_be64(table + n * 8, offset);
	}
	if (!rc)
		rc = file_write_bytes(file, size, table, entries);
	free(block);
	free(table);
	return rc;
}

static int write_all(struct file *file, const struct layout *l, const uint8_t *header)
{
	int rc = file_set_size(file, total(l) << l->cluster_bits);

	if (!rc)
		rc = write_refcounts(file, l);
	/* A new file has zeros there; a disk may have anything. */
	if (!rc && file->is_device)
		rc = file_zero(file, (total(l) - l->l1) << l->cluster_bits, l->l1 << l->cluster_bits, false);
	return rc ? rc : file_write_bytes(file, 0, header, BIT(l->cluster_bits));
}

/* What is to be written, and its header's cluster, which is the caller's to free. */
static int prepare(const struct block_create_options *o, struct layout *l, uint8_t **header, struct error *err)
{
	int rc = check_options(o, err);

	*header = NULL;
	if (!rc)
		rc = plan(o, l, err);
	if (rc)
		return rc;
	*header = calloc(1, BIT(l->cluster_bits));
	return *header ? put_header(*header, o, l, err) : error_set_errno(err, ENOMEM, "make '%s'", o->file);
}

int qcow2_can_create(const struct block_create_options *o, struct error *err)
{
	struct layout l;
	uint8_t *header;
	int rc = prepare(o, &l, &header, err);

	free(header);
	return rc;
}

int qcow2_create(struct file *file, const struct block_create_options *o, struct error *err)
{
	struct layout l;
	uint8_t *header;
	int rc = prepare(o, &l, &header, err);

	if (!rc) {
		rc = write_all(file, &l, header);
		if (rc)
			error_set_errno(err, -rc, "cannot write '%s'", o->file);
	}
	free(header);
	return rc;
}
