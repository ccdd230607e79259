/*
 * From the guest's offsets to the file's, and changes of that.
 */
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>

uint64_t table_entry(const struct qcow2 *q, const struct table *table, uint64_t index)
{
	return load_be64(table->data + (index << entry_bits(q->extended)));
}

uint64_t table_bitmap(const struct table *table, uint64_t index) { return load_be64(table->data + (index << 4) + 8); }

static uint64_t l1_index(const struct qcow2 *q, uint64_t offset) { return offset >> (q->cluster_bits + q->l2_bits); }

static uint64_t l2_index(const struct qcow2 *q, uint64_t offset)
{
	return (offset >> q->cluster_bits) & (BIT(q->l2_bits) - 1);
}

void compressed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *size)
{
	unsigned bits_of_offset = 62 - (q->cluster_bits - 8);
	uint64_t sectors = bits(entry, 61, bits_of_offset) + 1;

	*offset = entry & (BIT(bits_of_offset) - 1);
	*size = sectors * 512 - (*offset & 511);
}

/* ---- looking up ---- */

static int get_table(struct qcow2 *q, uint64_t index, bool nowait, struct table **table)
{
	uint64_t offset = q->l1[index] & ENTRY_OFFSET;

	*table = NULL;
	if (!offset)
		return 0;
	if (in_cluster(q, offset))
		return qcow2_is_corrupt(q, "the L2 table of L1 entry %llu is at %#llx", (unsigned long long)index,
					(unsigned long long)offset);
	return cache_get(q, &q->l2, offset, nowait, table);
}

static int subcluster(struct qcow2 *q, const struct table *table, uint64_t offset, struct mapping *m)
{
	uint64_t bitmap = table_bitmap(table, l2_index(q, offset));
	unsigned bytes_bits = q->cluster_bits - 5, n = (unsigned)(in_cluster(q, offset) >> bytes_bits);
	bool allocated = bitmap & BIT(n), zero = bitmap & BIT(n + SUBCLUSTERS);

	m->length = BIT(bytes_bits) - (offset & (BIT(bytes_bits) - 1));
	if (allocated && (zero || !m->host))
		return qcow2_is_corrupt(q, "the bits of a subcluster at guest offset %#llx contradict each other",
					(unsigned long long)offset);
	m->kind = zero ? MAP_ZERO : allocated ? MAP_DATA : MAP_BACKING;
	return 0;
}

/* What one entry says of the bytes from `offset` on. */
static int piece(struct qcow2 *q, const struct table *table, uint64_t offset, struct mapping *m)
{
	uint64_t entry = table_entry(q, table, l2_index(q, offset));

	*m = (struct mapping){ .length = q->cluster_size - in_cluster(q, offset), .entry = entry };
	if (entry & ENTRY_COMPRESSED) {
		m->kind = MAP_COMPRESSED;
		return 0;
	}
	m->host = entry & ENTRY_OFFSET;
	if (in_cluster(q, m->host))
		return qcow2_is_corrupt(q, "the cluster of guest offset %#llx is at %#llx", (unsigned long long)offset,
					(unsigned long long)m->host);
	m->copied = (entry & ENTRY_COPIED) && (q->l1[l1_index(q, offset)] & ENTRY_COPIED);
	if (q->extended) {
		int rc = subcluster(q, table, offset, m);

		if (rc)
			return rc;
	} else if ((entry & ENTRY_ZERO) && q->header.version >= 3) {
		m->kind = MAP_ZERO;
	} else {
		m->kind = m->host ? MAP_DATA : MAP_BACKING;
	}
	if (m->kind == MAP_DATA)
		m->host += in_cluster(q, offset);
	return 0;
}

static bool goes_on(const struct mapping *m, const struct mapping *next, uint64_t bytes)
{
	if (m->kind != next->kind || m->kind == MAP_COMPRESSED)
		return false;
	if (m->kind != MAP_DATA)
		return !m->host == !next->host;
	return m->copied == next->copied && m->host + bytes == next->host;
}

int qcow2_lookup(struct qcow2 *q, uint64_t offset, uint64_t size, bool nowait, struct mapping *m)
{
	uint64_t span = BIT(q->cluster_bits + q->l2_bits), done;
	struct mapping next;
	struct table *table;
	int rc = get_table(q, l1_index(q, offset), nowait, &table);

	size = MIN(size, span - (offset & (span - 1)));
	*m = (struct mapping){ .kind = MAP_BACKING, .length = size };
	if (rc || !table)
		return rc;
	for (done = 0; done < size; done += next.length) {
		rc = piece(q, table, offset + done, &next);
		if (rc)
			return rc;
		if (done == 0)
			*m = next;
		else if (!goes_on(m, &next, done))
			break;
	}
	m->length = MIN(done, size);
	return 0;
}

/* ---- changing ---- */

/* A new table, with what the old one has, of which snapshots are users too. */
static int new_table(struct qcow2 *q, uint64_t index, const struct table *old, bool nowait, struct table **table)
{
	uint64_t old_offset = q->l1[index] & ENTRY_OFFSET;
	uint8_t *copy = NULL;
	struct clusters c = { 0 };
	bool fresh;
	int rc;

	if (old) {
		copy = malloc(q->cluster_size);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, old->data, q->cluster_size);
	}
	rc = qcow2_alloc(q, 1, nowait, &c, &fresh);
	if (!rc) {
		rc = cache_new(q, &q->l2, c.first << q->cluster_bits, nowait, table);
		if (!rc)
			rc = set_add(&q->metadata, c.first);
		if (rc)
			qcow2_release(q, c);
	}
	if (!rc && old) {
		memcpy((*table)->data, copy, q->cluster_size);
		set_remove(&q->metadata, old_offset >> q->cluster_bits);
		rc = qcow2_free_later(q, (struct clusters){ old_offset >> q->cluster_bits, 1 });
	}
	free(copy);
	if (rc)
		return rc;
	q->l1[index] = c.first << q->cluster_bits | ENTRY_COPIED;
	qcow2_note_l1(q, index);
	return 0;
}

int qcow2_table_for_write(struct qcow2 *q, uint64_t offset, bool nowait, struct table **table, uint64_t *index)
{
	uint64_t n = l1_index(q, offset);
	struct table *old;
	int rc = get_table(q, n, nowait, &old);

	*index = l2_index(q, offset);
	*table = old;
	if (rc || (old && (q->l1[n] & ENTRY_COPIED)))
		return rc;
	return new_table(q, n, old, nowait, table);
}

static int free_entry(struct qcow2 *q, uint64_t entry)
{
	uint64_t offset = entry & ENTRY_OFFSET, size = q->cluster_size, first, last;

	if (entry & ENTRY_COMPRESSED) {
		compressed_place(q, entry, &offset, &size);
	} else if (!offset) {
		return 0;
	}
	first = offset >> q->cluster_bits;
	last = (offset + size - 1) >> q->cluster_bits;
	return qcow2_free_later(q, (struct clusters){ first, last - first + 1 });
}

int qcow2_set_entry(struct qcow2 *q, struct table *table, uint64_t index, uint64_t entry, uint64_t bitmap)
{
	uint64_t old = table_entry(q, table, index);

	store_be64(table->data + (index << entry_bits(q->extended)), entry);
	if (q->extended)
		store_be64(table->data + (index << 4) + 8, bitmap);
	table->dirty = true;
	if (!(old & ENTRY_COMPRESSED) && (old & ENTRY_OFFSET) == (entry & ENTRY_OFFSET))
		return 0;
	return free_entry(q, old);
}
