/*
 * qcow2 images as wholes: what their headers say, checks, other sizes and other backing files.
 */
#define _GNU_SOURCE
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>

/* ---- what it is ---- */

static int add_snapshot(void *opaque, const struct qcow2_snapshot *s, struct error *err)
{
	struct block_details *d = opaque;
	struct block_snapshot *more = realloc(d->snapshots, (d->snapshot_count + 1) * sizeof(*more));

	if (!more)
		return error_set_errno(err, ENOMEM, "list snapshots");
	d->snapshots = more;
	more += d->snapshot_count++;
	*more = (struct block_snapshot){ .seconds = s->seconds, .state_size = s->state_size };
	memcpy(more->id, s->id, sizeof(more->id));
	memcpy(more->name, s->name, sizeof(more->name));
	return 0;
}

int qcow2_examine(struct file *file, struct block_details *d, struct error *err)
{
	struct qcow2_header h;
	int rc;

	file->zeros_behind_end = true;
	rc = qcow2_header_read(file, &h, err);
	if (rc)
		return rc;
	d->size = h.size;
	d->version = h.version;
	d->refcount_bits = 1u << h.refcount_order;
	d->cluster_size = BIT(h.cluster_bits);
	d->lazy_refcounts = h.compatible & COMPATIBLE_LAZY;
	d->dirty = h.incompatible & INCOMPATIBLE_DIRTY;
	d->corrupt = h.incompatible & INCOMPATIBLE_CORRUPT;
	d->extended_l2 = h.incompatible & INCOMPATIBLE_EXTENDED_L2;
	d->compression = h.compression ? "zstd" : "zlib";
	memcpy(d->backing, h.backing, sizeof(d->backing));
	memcpy(d->backing_format, h.backing_format, sizeof(d->backing_format));
	return qcow2_snapshots(file, &h, err, add_snapshot, d);
}

int qcow2_check_file(struct file *file, const struct block_options *options, enum block_repair repair,
		     struct block_check_result *result, void (*report)(void *opaque, const char *line), void *opaque,
		     struct error *err)
{
	struct check check = { .repair = repair, .result = result, .report = report, .opaque = opaque };
	struct qcow2 *q = qcow2_open_to_check(file, options, err);
	int rc;

	if (!q)
		return err ? -err->code : -EIO;
	rc = qcow2_check(q, &check, err);
	/* What is whole now says so. */
	if (!rc && repair == BLOCK_REPAIR_ALL && !result->errors) {
		q->header.incompatible &= ~INCOMPATIBLE_CORRUPT;
		q->marked = true;
	}
	qcow2_free(&q->image);
	return rc;
}

/* ---- sizes ---- */

static int write_geometry(struct qcow2 *q)
{
	uint8_t bytes[24];

	store_be64(bytes, q->header.size);
	store_be32(bytes + 8, q->header.crypt);
	store_be32(bytes + 12, q->header.l1_size);
	store_be64(bytes + 16, q->header.l1_offset);
	return file_write_bytes(q->image.file, 24, bytes, sizeof(bytes));
}

/* A larger L1 table, written down before the header names it. */
static int grow_l1(struct qcow2 *q, uint64_t entries)
{
	struct clusters old = { q->header.l1_offset >> q->cluster_bits, clusters_for(q, q->header.l1_size * 8ull) };
	uint64_t want = clusters_for(q, entries * 8), first, *l1;
	uint8_t *dirty;
	int rc = qcow2_write_metadata(q);

	if (!rc)
		rc = qcow2_alloc_at_end(q, want, &first);
	if (rc)
		return rc;
	l1 = realloc(q->l1, entries * 8);
	if (!l1)
		return -ENOMEM;
	memset(l1 + q->header.l1_size, 0, (entries - q->header.l1_size) * 8);
	q->l1 = l1;
	dirty = realloc(q->l1_dirty, entries / L1_PIECE + 1);
	if (!dirty)
		return -ENOMEM;
	memset(dirty, 1, entries / L1_PIECE + 1);
	q->l1_dirty = dirty;
	for (uint64_t n = 0; n < old.count; n++)
		set_remove(&q->metadata, old.first + n);
	for (uint64_t n = 0; n < want && !rc; n++)
		rc = set_add(&q->metadata, first + n);
	q->header.l1_size = (uint32_t)entries;
	q->header.l1_offset = first << q->cluster_bits;
	if (!rc)
		rc = qcow2_write_metadata(q);
	if (!rc)
		rc = file_sync(q->image.file);
	/* The one of a new, empty image of no size has no cluster of its own. */
	return rc || !old.count ? rc : qcow2_free_later(q, old);
}

static int change_size(struct qcow2 *q, uint64_t size)
{
	unsigned span = q->cluster_bits + q->l2_bits;
	uint64_t entries = (size >> span) + ((size & (BIT(span) - 1)) != 0);
	int rc;

	if (entries > L1_MAX / 8)
		return -EFBIG;
	pthread_mutex_lock(&q->lock);
	rc = qcow2_mark(q, false);
	if (!rc && entries > q->header.l1_size)
		rc = grow_l1(q, entries);
	if (!rc) {
		q->header.size = size;
		q->image.size = size;
		rc = write_geometry(q);
	}
	pthread_mutex_unlock(&q->lock);
	return rc;
}

int qcow2_resize(struct image *image, uint64_t size, struct error *err)
{
	struct qcow2 *q = container_of(image, struct qcow2, image);
	uint64_t before = image->size, below = image->backing ? image->backing->size : 0;
	int rc = 0;

	if (size < before && q->header.snapshot_count)
		return error_set(err, ENOTSUP, "'%s' has snapshots: it cannot be made smaller", image->file->path);
	if (size < before)
		rc = image->ops->zero(image, size, before - size, true);
	if (!rc)
		rc = change_size(q, size);
	/* What it stands on may be longer: that was not seen, and is not now. */
	if (!rc && size > before && below > before)
		rc = image->ops->zero(image, before, MIN(size, below) - before, true);
	return rc ? error_set_errno(err, -rc, "cannot change the size of '%s'", image->file->path) : 0;
}

/* ---- what it stands on ---- */

struct image *qcow2_open_top(struct file *file, const struct block_options *options, struct error *err)
{
	struct qcow2 *q = qcow2_open_alone(file, options, err);

	return q ? &q->image : NULL;
}

struct image *qcow2_open_for_commit(struct file *file, const struct block_options *options, struct error *err)
{
	struct qcow2 *q = qcow2_open_alone(file, options, err);

	if (!q)
		return NULL;
	if (q->header.backing[0])
		q->image.backing = qcow2_open_backing(q, options, false, 0, err);
	else
		error_set(err, EINVAL, "'%s' has no backing file to commit to", file->path);
	if (q->image.backing)
		return &q->image;
	qcow2_free(&q->image);
	return NULL;
}

static int empty_cluster(struct qcow2 *q, uint64_t offset)
{
	struct mapping m;
	struct table *table;
	uint64_t index;
	int rc = qcow2_lookup(q, offset, q->cluster_size, false, &m);

	if (rc || (m.kind == MAP_BACKING && !m.host && m.length == q->cluster_size))
		return rc;
	rc = qcow2_mark(q, false);
	if (!rc)
		rc = qcow2_table_for_write(q, offset, false, &table, &index);
	return rc ? rc : qcow2_set_entry(q, table, index, 0, 0);
}

int qcow2_make_empty(struct image *image)
{
	struct qcow2 *q = container_of(image, struct qcow2, image);
	int rc = 0;

	pthread_mutex_lock(&q->lock);
	for (uint64_t at = 0; at < image->size && !rc; at += q->cluster_size) {
		if (q->l1[at >> (q->cluster_bits + q->l2_bits)] & ENTRY_OFFSET)
			rc = empty_cluster(q, at);
		else
			at |= BIT(q->cluster_bits + q->l2_bits) - q->cluster_size;
	}
	pthread_mutex_unlock(&q->lock);
	return rc ? rc : qcow2_flush(image);
}

/* The extensions that stay move up; returns where they end. */
static uint64_t keep_extensions(const struct qcow2 *q, uint8_t *cluster)
{
	uint64_t end = q->header.backing_offset ? q->header.backing_offset : q->cluster_size;
	uint64_t at = q->header.length, to = at, size;

	for (; at + 8 <= end && load_be32(cluster + at); at += size) {
		size = 8 + align_up(load_be32(cluster + at + 4), 8);
		if (!range_ok(at, size, end))
			break;
		if (load_be32(cluster + at) == EXTENSION_BACKING_FORMAT)
			continue;
		memmove(cluster + to, cluster + at, size);
		to += size;
	}
	return to;
}

int qcow2_set_backing(struct image *image, const char *backing, const char *format, struct error *err)
{
	struct qcow2 *q = container_of(image, struct qcow2, image);
	uint8_t *cluster = malloc(q->cluster_size);
	int rc = cluster ? file_read_bytes(image->file, 0, cluster, q->cluster_size) : -ENOMEM;

	if (!rc)
		rc = qcow2_put_names(cluster, q->cluster_size, keep_extensions(q, cluster), backing, format);
	if (!rc)
		rc = file_write_bytes(image->file, 0, cluster, q->cluster_size);
	if (!rc)
		rc = file_sync(image->file);
	free(cluster);
	if (rc)
		return error_set_errno(err, -rc, "cannot write the backing file's name to '%s'", image->file->path);
	snprintf(q->header.backing, sizeof(q->header.backing), "%s", backing ? backing : "");
	return 0;
}
