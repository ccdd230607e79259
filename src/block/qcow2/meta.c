/*
 * Tables on their way to the file. What is read after a crash at any moment makes sense when everything is there before what names it: first
 * refcounts and new L2 tables, then the L2 tables that name what was counted, and L1, which names new L2 tables. A cluster that nobody names
 * any more is given out again only when that is durable.
 *
 * A process that is killed has written in this order; a host that loses power may not have, so a sync comes between: data and what is new, then
 * what names it.
 */
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>

void qcow2_note_l1(struct qcow2 *q, uint64_t index) { q->l1_dirty[index / L1_PIECE] = 1; }

static int write_l1(struct qcow2 *q)
{
	for (uint64_t first = 0; first < q->header.l1_size; first += L1_PIECE) {
		uint64_t count = MIN(L1_PIECE, q->header.l1_size - first);
		uint8_t bytes[L1_PIECE * 8];
		int rc;

		if (!q->l1_dirty[first / L1_PIECE])
			continue;
		for (uint64_t n = 0; n < count; n++)
			store_be64(bytes + n * 8, q->l1[first + n]);
		rc = file_write_bytes(q->image.file, q->header.l1_offset + first * 8, bytes, count * 8);
		if (rc)
			return rc;
		q->l1_dirty[first / L1_PIECE] = 0;
	}
	return 0;
}

/* What is to be durable before anything names it. */
static int write_unnamed(struct qcow2 *q, bool refcounts)
{
	bool fresh = false, any = false;
	int rc = refcounts ? cache_write(q, &q->refblocks, false, &any) : 0;

	if (!rc)
		rc = cache_write(q, &q->l2, true, &fresh);
	q->fresh += fresh;
	return rc;
}

static int write_all(struct qcow2 *q, bool refcounts)
{
	bool any = false;
	int rc = write_unnamed(q, refcounts);

	if (!rc && q->durable != q->fresh)
		rc = file_sync(q->image.file);
	if (!rc)
		q->durable = q->fresh;
	if (!rc)
		rc = cache_write(q, &q->l2, false, &any);
	if (!rc)
		rc = write_l1(q);
	if (rc)
		atomic_store(&q->failed, true);
	return rc;
}

int qcow2_write_metadata(struct qcow2 *q) { return write_all(q, !q->lazy); }

/* What nobody names any more, as it is durable now. */
static int release_freed(struct qcow2 *q, struct clusters *freed, size_t count)
{
	int rc = 0;

	for (size_t n = 0; n < count && !rc; n++)
		rc = qcow2_release(q, freed[n]);
	free(freed);
	return rc;
}

static struct clusters *take_freed(struct qcow2 *q, size_t *count)
{
	struct clusters *freed = q->freed;

	*count = q->freed_count;
	q->freed = NULL;
	q->freed_count = q->freed_room = 0;
	return freed;
}

/*
 * What is to be durable first, while others use the tables: the lock is dropped for the sync. What they add meanwhile is synced under it, which is
 * little, and most often nothing. Lock held.
 */
static int sync_early(struct qcow2 *q)
{
	int rc = write_unnamed(q, !q->lazy);
	uint64_t fresh = q->fresh;

	if (!rc && q->durable != fresh) {
		pthread_mutex_unlock(&q->lock);
		rc = file_sync(q->image.file);
		pthread_mutex_lock(&q->lock);
		if (!rc)
			q->durable = MAX(q->durable, fresh);
	}
	if (rc)
		atomic_store(&q->failed, true);
	return rc;
}

int qcow2_flush(struct image *image)
{
	struct qcow2 *q = container_of(image, struct qcow2, image);
	struct clusters *freed = NULL;
	size_t count = 0;
	int rc;

	pthread_mutex_lock(&q->lock);
	rc = sync_early(q);
	if (!rc)
		rc = qcow2_write_metadata(q);
	if (!rc)
		freed = take_freed(q, &count);
	pthread_mutex_unlock(&q->lock);
	if (!rc)
		rc = file_sync(image->file);
	if (rc) {
		/* They are in use for ever, or until the next check. */
		free(freed);
		return rc;
	}
	pthread_mutex_lock(&q->lock);
	rc = release_freed(q, freed, count);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

int qcow2_finish(struct qcow2 *q)
{
	int rc = qcow2_flush(&q->image);

	if (!rc)
		rc = write_all(q, true);
	if (!rc)
		rc = file_sync(q->image.file);
	if (rc || atomic_load(&q->failed) || q->corrupt || !q->marked)
		return rc;
	q->header.incompatible &= ~INCOMPATIBLE_DIRTY;
	q->marked = false;
	rc = qcow2_write_features(q);
	return rc ? rc : file_sync(q->image.file);
}
