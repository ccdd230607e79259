/*
 * Opening and closing of qcow2 images, and the marks that say what state they are in.
 */
#define _GNU_SOURCE
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>

#define L2_CACHE   (16u << 20) /* bytes */
#define L2_TABLES  4096u
#define REF_CACHE  (2u << 20) /* bytes */
#define REF_BLOCKS 64u

/* ---- marks ---- */

int qcow2_write_features(struct qcow2 *q)
{
	uint8_t bytes[24];

	if (q->header.version == 2)
		return 0;
	store_be64(bytes, q->header.incompatible);
	store_be64(bytes + 8, q->header.compatible);
	store_be64(bytes + 16, q->header.autoclear);
	return file_write_bytes(q->image.file, 72, bytes, sizeof(bytes));
}

int qcow2_mark(struct qcow2 *q, bool nowait)
{
	int rc;

	if (q->marked)
		return 0;
	if (nowait)
		return -EAGAIN;
	q->header.incompatible |= INCOMPATIBLE_DIRTY;
	/* Such features are of those who change nothing without keeping them true. */
	q->header.autoclear = 0;
	rc = qcow2_write_features(q);
	if (!rc)
		rc = file_sync(q->image.file);
	q->marked = !rc;
	return rc;
}

int qcow2_is_corrupt(struct qcow2 *q, const char *fmt, ...)
{
	char text[256];
	va_list args;

	if (q->corrupt)
		return -EIO;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_error("'%s' is damaged: %s%s", q->image.file->path, text,
		  q->readonly ? "" : "; it is not written to any more");
	q->corrupt = true;
	if (q->readonly)
		return -EIO;
	q->header.incompatible |= INCOMPATIBLE_CORRUPT;
	qcow2_write_features(q);
	return -EIO;
}

/* ---- tables in memory ---- */

static int load_table(struct qcow2 *q, const char *what, uint64_t offset, uint64_t entries, uint64_t **table,
		      struct error *err)
{
	uint64_t *loaded = malloc(MAX(entries, 1) * 8);
	int rc = loaded ? file_read_bytes(q->image.file, offset, loaded, entries * 8) : -ENOMEM;

	*table = loaded;
	if (rc)
		return error_set_errno(err, -rc, "cannot read the %s of '%s'", what, q->image.file->path);
	for (uint64_t n = 0; n < entries; n++)
		loaded[n] = load_be64(&loaded[n]);
	return 0;
}

static int init_caches(struct qcow2 *q, struct error *err)
{
	unsigned tables = (unsigned)MIN(L2_TABLES, MAX(L2_CACHE >> q->cluster_bits, 4));
	unsigned blocks = MIN(REF_BLOCKS, MAX(REF_CACHE >> q->cluster_bits, 4));

	if (cache_init(&q->l2, q->header.l1_size, tables) || cache_init(&q->refblocks, blocks, blocks))
		return error_set_errno(err, ENOMEM, "open '%s'", q->image.file->path);
	return 0;
}

/* ---- what is needed to write ---- */

/* Notes that clusters hold a table; two that lie on each other are an error. */
static int claim(struct qcow2 *q, const char *what, uint64_t offset, uint64_t bytes, struct error *err)
{
	uint64_t first = offset >> q->cluster_bits;

	if (!offset)
		return 0;
	if (in_cluster(q, offset) || first >= clusters_for(q, atomic_load(&q->image.file->size)))
		return error_set(err, EINVAL, "'%s' is damaged: %s at %#llx; 'doppel image check' tells more",
				 q->image.file->path, what, (unsigned long long)offset);
	for (uint64_t n = first; n < first + clusters_for(q, bytes); n++) {
		int rc = set_add(&q->metadata, n);

		if (rc == -EEXIST)
			return error_set(err, EINVAL,
					 "'%s' is damaged: two tables lie on each other at %#llx; 'doppel image check' "
					 "tells more",
					 q->image.file->path, (unsigned long long)n << q->cluster_bits);
		if (rc)
			return error_set_errno(err, -rc, "open '%s'", q->image.file->path);
	}
	return 0;
}

static int claim_snapshot(void *opaque, const struct qcow2_snapshot *s, struct error *err)
{
	return claim(opaque, "L1 table of a snapshot", s->l1_offset, s->l1_size * 8ull, err);
}

static int claim_snapshots(struct qcow2 *q, struct error *err)
{
	uint64_t size = qcow2_snapshot_table_size(q->image.file, &q->header);
	int rc = size ? claim(q, "snapshot table", q->header.snapshot_offset, size, err) : 0;

	return rc ? rc : qcow2_snapshots(q->image.file, &q->header, err, claim_snapshot, q);
}

/* Every cluster that holds a table: no data may be written there, whatever the tables say. */
static int claim_tables(struct qcow2 *q, struct error *err)
{
	const struct qcow2_header *h = &q->header;
	int rc = set_add(&q->metadata, 0); /* the header */

	if (rc)
		return error_set_errno(err, -rc, "open '%s'", q->image.file->path);
	rc = claim(q, "L1 table", h->l1_offset, h->l1_size * 8ull, err);
	if (!rc)
		rc = claim(q, "refcount table", h->reftable_offset, q->reftable_size * 8, err);
	for (uint64_t n = 0; n < q->reftable_size && !rc; n++)
		rc = claim(q, "refcount block", q->reftable[n] & REFTABLE_OFFSET, 1, err);
	for (uint64_t n = 0; n < h->l1_size && !rc; n++)
		rc = claim(q, "L2 table", q->l1[n] & ENTRY_OFFSET, 1, err);
	return rc ? rc : claim_snapshots(q, err);
}

/* Where the file ends, by its size, which a disk's says nothing of, and by what is counted: clusters may be in use that were never written. */
static int find_end(struct qcow2 *q, struct error *err)
{
	bool device = q->image.file->is_device;
	uint64_t last = q->reftable_size;
	int rc = 0;

	q->end = device ? 0 : clusters_for(q, atomic_load(&q->image.file->size));
	q->fresh_from = device ? UINT64_MAX : q->end;
	while (last && !q->reftable[last - 1])
		last--;
	for (uint64_t n = last << q->refblock_bits; last && n > (last - 1) << q->refblock_bits && n > q->end; n--) {
		uint64_t value;

		rc = qcow2_refcount(q, n - 1, &value);
		if (rc)
			return error_set_errno(err, -rc, "cannot read the refcounts of '%s'", q->image.file->path);
		if (!value)
			continue;
		if (n - q->end > BIT(q->refblock_bits) && !device && !q->checked)
			return error_set(err, EINVAL,
					 "'%s' is damaged: cluster %llu, far behind its end, is counted; 'doppel image "
					 "check -r leaks' repairs it",
					 q->image.file->path, (unsigned long long)n - 1);
		q->end = n;
		break;
	}
	return 0;
}

static int repair(struct qcow2 *q, struct error *err)
{
	struct block_check_result result = { 0 };
	struct check check = { .repair = BLOCK_REPAIR_ALL, .result = &result };
	int rc;

	q->marked = true;
	rc = qcow2_check(q, &check, err);
	if (rc)
		return rc;
	log_warning("'%s' was not closed when it was written to last: %llu refcounts repaired", q->image.file->path,
		    (unsigned long long)(result.errors_fixed + result.leaks_fixed));
	return 0;
}

static int prepare_to_write(struct qcow2 *q, struct error *err)
{
	const char *path = q->image.file->path;
	int rc;

	if ((q->header.incompatible & INCOMPATIBLE_CORRUPT) && !q->checked)
		return error_set(err, EINVAL, "'%s' is marked as damaged; 'doppel image check -r all' repairs it",
				 path);
	q->l1_dirty = calloc(1, q->header.l1_size / L1_PIECE + 1);
	if (!q->l1_dirty)
		return error_set_errno(err, ENOMEM, "open '%s'", path);
	rc = claim_tables(q, err);
	if (!rc)
		rc = find_end(q, err);
	/* Who wrote to it last came to no end: what is counted may be wrong, in either direction. */
	if (!rc && (q->header.incompatible & INCOMPATIBLE_DIRTY) && !q->checked)
		rc = repair(q, err);
	return rc;
}

/* ---- life ---- */

static void init_locks(struct qcow2 *q)
{
	pthread_mutex_init(&q->lock, NULL);
	pthread_mutex_init(&q->range_lock, NULL);
	pthread_mutex_init(&q->unpack_lock, NULL);
	pthread_cond_init(&q->range_gone, NULL);
	list_init(&q->ranges);
}

static int load(struct qcow2 *q, struct error *err)
{
	int rc = load_table(q, "L1 table", q->header.l1_offset, q->header.l1_size, &q->l1, err);

	if (!rc)
		rc = load_table(q, "refcount table", q->header.reftable_offset, q->reftable_size, &q->reftable, err);
	if (!rc)
		rc = init_caches(q, err);
	return rc || q->readonly ? rc : prepare_to_write(q, err);
}

static void set_geometry(struct qcow2 *q, const struct block_options *options)
{
	q->cluster_bits = q->header.cluster_bits;
	q->cluster_size = 1u << q->cluster_bits;
	q->extended = q->header.incompatible & INCOMPATIBLE_EXTENDED_L2;
	q->l2_bits = q->cluster_bits - entry_bits(q->extended);
	q->refblock_bits = q->cluster_bits + 3 - q->header.refcount_order;
	q->lazy = q->header.version >= 3 && (q->header.compatible & COMPATIBLE_LAZY);
	q->reftable_size = (uint64_t)q->header.reftable_clusters << q->cluster_bits >> 3;
	q->readonly = options->readonly;
	if (options->memory)
		q->memory = *options->memory;
	q->image.size = align_up(q->header.size, BLOCK_SECTOR);
	q->image.cluster = q->cluster_size;
}

static struct qcow2 *open_alone(struct file *file, const struct block_options *options, bool checked, struct error *err)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	int rc;

	if (!q) {
		error_set_errno(err, ENOMEM, "open '%s'", file->path);
		file_close(file);
		return NULL;
	}
	file->zeros_behind_end = true;
	q->image.ops = &qcow2_ops;
	q->image.file = file;
	init_locks(q);
	q->checked = checked;
	q->readonly = true;
	rc = qcow2_header_read(file, &q->header, err);
	if (!rc) {
		set_geometry(q, options);
		rc = load(q, err);
	}
	if (!rc)
		return q;
	q->readonly = true;
	qcow2_free(&q->image);
	return NULL;
}

struct qcow2 *qcow2_open_alone(struct file *file, const struct block_options *options, struct error *err)
{
	return open_alone(file, options, false, err);
}

struct qcow2 *qcow2_open_to_check(struct file *file, const struct block_options *options, struct error *err)
{
	return open_alone(file, options, true, err);
}

struct image *qcow2_open(struct file *file, const struct block_options *options, unsigned depth, struct error *err)
{
	struct qcow2 *q = qcow2_open_alone(file, options, err);

	if (!q)
		return NULL;
	if (!q->header.backing[0])
		return &q->image;
	q->image.backing = qcow2_open_backing(q, options, true, depth, err);
	if (q->image.backing)
		return &q->image;
	qcow2_free(&q->image);
	return NULL;
}

void qcow2_free(struct image *image)
{
	struct qcow2 *q = container_of(image, struct qcow2, image);
	int rc = q->readonly ? 0 : qcow2_finish(q);

	if (rc)
		log_error("'%s': what was written last may be lost: %s", image->file->path, strerror(-rc));
	cache_free(q, &q->l2);
	cache_free(q, &q->refblocks);
	set_free(&q->metadata);
	free(q->l1);
	free(q->reftable);
	free(q->l1_dirty);
	free(q->freed);
	free(q->unpacked_data);
	pthread_mutex_destroy(&q->lock);
	pthread_mutex_destroy(&q->range_lock);
	pthread_mutex_destroy(&q->unpack_lock);
	pthread_cond_destroy(&q->range_gone);
	file_close(image->file);
	free(q);
}
