/*
 * Requests of a qcow2 image. With nowait nothing waits for the file but writes that the page cache takes, or for another thread.
 */
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>

#define PIECES	  64   /* of memory, for one write with what is around it */
#define FREED_MAX 4096 /* that wait for a flush */

static struct qcow2 *qcow2_of(struct image *image) { return container_of(image, struct qcow2, image); }

static int take_lock(struct qcow2 *q, bool nowait)
{
	if (!nowait)
		return -pthread_mutex_lock(&q->lock);
	return pthread_mutex_trylock(&q->lock) ? -EAGAIN : 0;
}

static int lookup(struct qcow2 *q, uint64_t offset, uint64_t size, bool nowait, struct mapping *m)
{
	int rc = take_lock(q, nowait);

	if (rc)
		return rc;
	rc = qcow2_lookup(q, offset, size, nowait, m);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

/* ---- reading ---- */

static int read_mapped(struct qcow2 *q, uint64_t offset, const struct mapping *m, struct span span, bool nowait)
{
	switch (m->kind) {
	case MAP_DATA: return file_read(q->image.file, m->host, m->length, span, nowait);
	case MAP_ZERO: break;
	case MAP_BACKING:
		if (q->image.backing)
			return image_read(q->image.backing, offset, m->length, span, nowait);
		break;
	case MAP_COMPRESSED:
		if (nowait)
			return -EAGAIN;
		return qcow2_read_compressed(q, m->entry, in_cluster(q, offset), m->length, span);
	}
	span_zero(span, m->length);
	return 0;
}

static int read_range(struct qcow2 *q, uint64_t offset, uint64_t size, struct span span, bool nowait)
{
	while (size) {
		struct mapping m;
		int rc = lookup(q, offset, size, nowait, &m);

		if (!rc)
			rc = read_mapped(q, offset, &m, span, nowait);
		if (rc)
			return rc;
		span_advance(&span, m.length);
		offset += m.length;
		size -= m.length;
	}
	return 0;
}

static int qcow2_read(struct image *image, uint64_t offset, uint64_t size, struct span span, bool nowait)
{
	struct qcow2 *q = qcow2_of(image);
	struct range range;
	int rc = range_begin(q, &range, offset, size, false, nowait);

	if (rc)
		return rc;
	rc = read_range(q, offset, size, span, nowait);
	range_end(q, &range);
	return rc;
}

/* ---- writing to clusters that are there ---- */

#define ELSE_ALONE 1 /* not there: the caller must be alone */

static int check_place(struct qcow2 *q, const struct mapping *m)
{
	if ((m->host + m->length - 1) >> q->cluster_bits >= q->end)
		return qcow2_is_corrupt(q, "a cluster of data is at %#llx, behind the end of the file",
					(unsigned long long)m->host);
	for (uint64_t n = m->host >> q->cluster_bits; n <= (m->host + m->length - 1) >> q->cluster_bits; n++)
		if (set_has(&q->metadata, n))
			return qcow2_is_corrupt(q, "cluster %llu is of a table and of data", (unsigned long long)n);
	return 0;
}

static int look_for_place(struct qcow2 *q, uint64_t offset, uint64_t size, bool nowait, struct mapping *m)
{
	int rc = take_lock(q, nowait);

	if (rc)
		return rc;
	rc = q->corrupt ? -EIO : qcow2_lookup(q, offset, size, nowait, m);
	if (!rc && m->kind == MAP_DATA && m->copied)
		rc = check_place(q, m);
	else if (!rc)
		rc = ELSE_ALONE;
	pthread_mutex_unlock(&q->lock);
	return rc;
}

/* As far as clusters are there; what was done is taken off *offset, *size and the span. */
static int write_in_place(struct qcow2 *q, uint64_t *offset, uint64_t *size, struct span *span, bool nowait)
{
	while (*size) {
		struct mapping m;
		int rc = look_for_place(q, *offset, *size, nowait, &m);

		if (!rc)
			rc = file_write(q->image.file, m.host, m.length, *span);
		if (rc)
			return rc;
		span_advance(span, m.length);
		*offset += m.length;
		*size -= m.length;
	}
	return 0;
}

/* ---- writing to new clusters; the caller is alone in their range ---- */

/* A write of [offset, offset + size), and what is around it in the clusters that it touches. */
struct fill {
	uint64_t offset, size, head, tail; /* bytes; of those around too */
	struct span span;
	uint64_t at;	     /* where the head begins in the first cluster */
	bool whole;	     /* clusters; else parts of some, of which the others stay as they are */
	bool there;	     /* the cluster is the guest's already */
	bool zeros;	     /* around it are zeros */
	uint8_t *around;     /* the head, then the tail; NULL: nothing, or zeros that are not made yet */
	struct clusters new; /* where it goes */
	bool fresh;
};

static void fill_plan(const struct qcow2 *q, struct fill *f, const struct mapping *m)
{
	bool nothing = m->kind == MAP_ZERO || m->kind == MAP_BACKING; /* is there */
	uint64_t grain, after;

	f->whole = !q->extended || !nothing || (m->host && !m->copied);
	f->there = !f->whole && m->host;
	if (f->there)
		f->new = (struct clusters){ m->host >> q->cluster_bits, 1 };
	if (q->extended && nothing && m->host)
		f->size = MIN(f->size, q->cluster_size - in_cluster(q, f->offset));
	grain = f->whole ? q->cluster_size : q->cluster_size / SUBCLUSTERS;
	after = (f->offset + f->size) & (grain - 1);
	f->head = f->offset & (grain - 1);
	f->tail = after ? grain - after : 0;
	f->at = in_cluster(q, f->offset - f->head);
	/* Around a part that is not there others may be. */
	f->zeros = (m->kind == MAP_ZERO || (m->kind == MAP_BACKING && !q->image.backing)) && !(q->extended && f->whole);
}

/* Read before anything changes: with nowait that is where it may end. */
static int fill_around(struct qcow2 *q, struct fill *f, bool nowait)
{
	struct iovec head, tail;
	int rc = 0;

	if (f->zeros || !(f->head + f->tail))
		return 0;
	f->around = malloc(f->head + f->tail);
	if (!f->around)
		return -ENOMEM;
	head = (struct iovec){ f->around, f->head };
	tail = (struct iovec){ f->around + f->head, f->tail };
	if (f->head)
		rc = read_range(q, f->offset - f->head, f->head, span_of(&head), nowait);
	if (!rc && f->tail)
		rc = read_range(q, f->offset + f->size, f->tail, span_of(&tail), nowait);
	return rc;
}

static int fill_write(struct qcow2 *q, struct fill *f)
{
	uint64_t at = (f->new.first << q->cluster_bits) + f->at, bytes;
	struct iovec pieces[PIECES];
	int count = 0, n;

	if (f->zeros && f->fresh)
		return file_write(q->image.file, at + f->head, f->size, f->span);
	if (f->zeros && f->head + f->tail) {
		f->around = calloc(1, f->head + f->tail);
		if (!f->around)
			return -ENOMEM;
	}
	if (f->head)
		pieces[count++] = (struct iovec){ f->around, f->head };
	n = span_pieces(f->span, f->size, pieces + count, PIECES - 2, &bytes);
	count += n;
	if (bytes < f->size) {
		int rc = file_write_bytes(q->image.file, at, f->around, f->head);

		if (!rc)
			rc = file_write(q->image.file, at + f->head, f->size, f->span);
		return rc ? rc : file_write_bytes(q->image.file, at + f->head + f->size, f->around + f->head, f->tail);
	}
	if (f->tail)
		pieces[count++] = (struct iovec){ f->around + f->head, f->tail };
	return file_write(q->image.file, at, f->head + f->size + f->tail, (struct span){ pieces, count, 0 });
}

/* Clusters that wait for a flush to be free are not many. */
static int bound_freed(struct qcow2 *q, bool nowait)
{
	bool many;
	int rc = take_lock(q, nowait);

	if (rc)
		return rc;
	many = q->freed_count > FREED_MAX;
	pthread_mutex_unlock(&q->lock);
	if (!many)
		return 0;
	return nowait ? -EAGAIN : qcow2_flush(&q->image);
}

/* Lock held. The clusters may be fewer than wanted: the write ends with the last one then. */
static int fill_alloc(struct qcow2 *q, struct fill *f, bool nowait)
{
	uint64_t want = clusters_for(q, f->at + f->head + f->size + f->tail), index;
	struct table *table;
	int rc = qcow2_mark(q, nowait);

	if (!rc)
		rc = qcow2_table_for_write(q, f->offset, nowait, &table, &index);
	if (!rc && f->there)
		return check_place(q, &(struct mapping){ .host = f->new.first << q->cluster_bits, .length = 1 });
	if (!rc)
		rc = qcow2_alloc(q, want, nowait, &f->new, &f->fresh);
	if (!rc && f->new.count < want) {
		f->size = (f->new.count << q->cluster_bits) - f->at - f->head;
		f->tail = 0;
	}
	return rc;
}

/* Of the n-th cluster, when what is written to it is there. */
static uint64_t fill_bitmap(const struct qcow2 *q, const struct fill *f, const struct table *table, uint64_t index,
			    uint64_t n)
{
	unsigned part_bits = q->cluster_bits - 5;
	uint64_t end = f->at + f->head + f->size + f->tail - (n << q->cluster_bits), old, written;

	if (f->whole)
		return SUBCLUSTERS_THERE;
	old = table_bitmap(table, index + n) & (f->there ? ~0ull : SUBCLUSTERS_ZERO);
	written = BIT(MIN(end, q->cluster_size) >> part_bits) - (n ? 1 : BIT(f->at >> part_bits));
	return (old | written) & ~(written << SUBCLUSTERS);
}

/* Lock held; the data is there. */
static int fill_name(struct qcow2 *q, const struct fill *f)
{
	struct table *table;
	uint64_t index;
	int rc = qcow2_table_for_write(q, f->offset, false, &table, &index);

	q->fresh++;
	for (uint64_t n = 0; n < f->new.count && !rc; n++)
		rc = qcow2_set_entry(q, table, index + n, (f->new.first + n) << q->cluster_bits | ENTRY_COPIED,
				     q->extended ? fill_bitmap(q, f, table, index, n) : 0);
	return rc;
}

/* With nowait the lock is kept: whoever waits for it waits for a write to the page cache. */
static int fill_do(struct qcow2 *q, struct fill *f, bool nowait)
{
	int rc = take_lock(q, nowait);

	if (rc)
		return rc;
	rc = q->corrupt ? -EIO : fill_alloc(q, f, nowait);
	if (rc) {
		pthread_mutex_unlock(&q->lock);
		return rc;
	}
	if (!nowait)
		pthread_mutex_unlock(&q->lock);
	debug_yield();
	rc = fill_write(q, f);
	if (!nowait)
		pthread_mutex_lock(&q->lock);
	if (!rc)
		rc = fill_name(q, f);
	else if (!f->there)
		qcow2_release(q, f->new);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

static int write_new(struct qcow2 *q, uint64_t *offset, uint64_t *size, struct span *span, const struct mapping *m,
		     bool nowait)
{
	struct fill f = { .offset = *offset, .size = m->length, .span = *span };
	int rc;

	fill_plan(q, &f, m);
	rc = fill_around(q, &f, nowait);
	if (!rc)
		rc = fill_do(q, &f, nowait);
	free(f.around);
	if (rc)
		return rc;
	span_advance(span, f.size);
	*offset += f.size;
	*size -= f.size;
	return 0;
}

static int write_alone(struct qcow2 *q, uint64_t offset, uint64_t size, struct span span, bool nowait)
{
	while (size) {
		struct mapping m;
		int rc = write_in_place(q, &offset, &size, &span, nowait);

		if (rc == ELSE_ALONE)
			rc = lookup(q, offset, size, nowait, &m);
		else
			return rc;
		if (!rc)
			rc = write_new(q, &offset, &size, &span, &m, nowait);
		if (rc)
			return rc;
	}
	return 0;
}

static int qcow2_write(struct image *image, uint64_t offset, uint64_t size, struct span span, bool nowait)
{
	struct qcow2 *q = qcow2_of(image);
	struct range range;
	int rc;

	if (nowait && image->file->direct)
		return -EAGAIN;
	rc = range_begin(q, &range, offset, size, false, nowait);
	if (rc)
		return rc;
	rc = write_in_place(q, &offset, &size, &span, nowait);
	range_end(q, &range);
	if (rc != ELSE_ALONE)
		return rc;
	rc = bound_freed(q, nowait);
	if (!rc)
		rc = range_begin(q, &range, offset, size, true, nowait);
	if (rc)
		return rc;
	rc = write_alone(q, offset, size, span, nowait);
	range_end(q, &range);
	return rc;
}

/* ---- zeros and discarded clusters ---- */

/* What an entry becomes; *keep: it stays. */
static uint64_t zero_entry(const struct qcow2 *q, const struct mapping *m, bool unmap, bool *keep)
{
	bool backing = q->image.backing != NULL;
	uint64_t zero = !q->extended && (backing || q->header.version >= 3) ? ENTRY_ZERO : 0;

	*keep = m->kind == MAP_ZERO ? !unmap || !m->host : m->kind == MAP_BACKING && !backing;
	*keep &= m->length == q->cluster_size;
	if (!unmap && m->host && m->copied && q->header.version >= 3)
		return m->host | ENTRY_COPIED | zero;
	return zero;
}

/* One cluster, of which the caller is alone. Lock held. */
static int zero_cluster(struct qcow2 *q, uint64_t offset, bool unmap, bool discard)
{
	struct mapping m;
	struct table *table;
	uint64_t index, entry;
	bool keep;
	int rc = qcow2_lookup(q, offset, q->cluster_size, false, &m);

	if (rc)
		return rc;
	entry = zero_entry(q, &m, unmap, &keep);
	/* A discard needs not make zeros of what the backing image has. */
	if (keep || (discard && m.kind == MAP_BACKING && m.length == q->cluster_size))
		return 0;
	rc = qcow2_mark(q, false);
	if (!rc)
		rc = qcow2_table_for_write(q, offset, false, &table, &index);
	return rc ? rc : qcow2_set_entry(q, table, index, entry, SUBCLUSTERS_ZERO);
}

static int zero_clusters(struct qcow2 *q, uint64_t offset, uint64_t size, bool unmap, bool discard)
{
	struct range range;
	int rc = 0;

	if (size)
		rc = bound_freed(q, false);
	if (rc || !size)
		return rc;
	range_begin(q, &range, offset, size, true, false);
	for (uint64_t at = offset; at < offset + size && !rc; at += q->cluster_size) {
		pthread_mutex_lock(&q->lock);
		rc = q->corrupt ? -EIO : zero_cluster(q, at, unmap, discard);
		pthread_mutex_unlock(&q->lock);
	}
	range_end(q, &range);
	return rc;
}

static int write_zero_bytes(struct image *image, uint64_t offset, uint64_t size)
{
	uint64_t room = MIN(size, 1u << 20);
	struct iovec zeros = { calloc(1, room), room };
	int rc = zeros.iov_base ? 0 : -ENOMEM;

	while (size && !rc) {
		uint64_t part = MIN(size, room);

		rc = qcow2_write(image, offset, part, span_of(&zeros), false);
		offset += part;
		size -= part;
	}
	free(zeros.iov_base);
	return rc;
}

/* Part of a cluster: zeros are written, unless they are there. */
static int zero_part(struct image *image, uint64_t offset, uint64_t size)
{
	while (size) {
		enum image_content content;
		uint64_t length;
		int rc = image_content(image, offset, size, &content, &length);

		if (!rc && content != IMAGE_ZEROS)
			rc = write_zero_bytes(image, offset, length);
		if (rc)
			return rc;
		offset += length;
		size -= length;
	}
	return 0;
}

/* The last cluster of a disk is a whole one, even if the disk ends in it. */
static void whole_clusters(const struct qcow2 *q, uint64_t offset, uint64_t size, uint64_t *first, uint64_t *last)
{
	uint64_t end = offset + size;

	*first = MIN(align_up(offset, q->cluster_size), end);
	*last = end == q->image.size ? align_up(end, q->cluster_size) : align_down(end, q->cluster_size);
	*last = MAX(*first, *last);
}

static int qcow2_zero(struct image *image, uint64_t offset, uint64_t size, bool unmap)
{
	struct qcow2 *q = qcow2_of(image);
	uint64_t first, last;
	int rc;

	/* Version 2 has no zeros but those of what is not there. */
	if (q->header.version == 2 && (!unmap || image->backing))
		return zero_part(image, offset, size);
	whole_clusters(q, offset, size, &first, &last);
	rc = zero_part(image, offset, first - offset);
	if (!rc)
		rc = zero_clusters(q, first, last - first, unmap, false);
	if (!rc && last < offset + size)
		rc = zero_part(image, last, offset + size - last);
	return rc;
}

static int qcow2_discard(struct image *image, uint64_t offset, uint64_t size)
{
	struct qcow2 *q = qcow2_of(image);
	uint64_t first, last;

	/* Version 2 would show again what the backing image has. */
	if (q->header.version == 2 && image->backing)
		return 0;
	whole_clusters(q, offset, size, &first, &last);
	return zero_clusters(q, first, last - first, true, true);
}

static int qcow2_content(struct image *image, uint64_t offset, uint64_t size, enum image_content *content,
			 uint64_t *length)
{
	struct mapping m;
	int rc = lookup(qcow2_of(image), offset, size, false, &m);

	if (rc)
		return rc;
	*length = m.length;
	*content = m.kind == MAP_ZERO ? IMAGE_ZEROS : m.kind == MAP_BACKING ? IMAGE_BACKING : IMAGE_DATA;
	return 0;
}

const struct image_ops qcow2_ops = {
	.name = "qcow2",
	.read = qcow2_read,
	.write = qcow2_write,
	.zero = qcow2_zero,
	.discard = qcow2_discard,
	.flush = qcow2_flush,
	.content = qcow2_content,
	.resize = qcow2_resize,
	.close = qcow2_free,
};
