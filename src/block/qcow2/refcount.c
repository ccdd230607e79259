/*
 * Who uses which cluster: counts, clusters given out and taken back, and the table of refcount blocks, which grows with the file.
 */
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>

#define CLUSTER_MAX (BIT(56) >> 9) /* an entry has room for offsets up to 2^56 */
#define QUICK_STEPS 4096	   /* refcounts that are looked at without a wait */

uint64_t refcount_load(const uint8_t *block, unsigned order, uint64_t index)
{
	switch (order) {
	case 6: return load_be64(block + index * 8);
	case 5: return load_be32(block + index * 4);
	case 4: return load_be16(block + index * 2);
	case 3: return block[index];
	default: break;
	}
	/* Smaller ones from the lowest bits on. */
	return (uint64_t)(block[index << order >> 3] >> ((index << order) & 7)) & (BIT(1u << order) - 1);
}

void refcount_store(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
	uint8_t *byte = &block[index << order >> 3], mask;
	unsigned shift = (unsigned)(index << order) & 7;

	switch (order) {
	case 6: store_be64(block + index * 8, value); return;
	case 5: store_be32(block + index * 4, (uint32_t)value); return;
	case 4: store_be16(block + index * 2, (uint16_t)value); return;
	case 3: block[index] = (uint8_t)value; return;
	default: break;
	}
	mask = (uint8_t)((BIT(1u << order) - 1) << shift);
	*byte = (uint8_t)((*byte & ~mask) | (value << shift));
}

/* The block that has a cluster's refcount; NULL: there is none, and so they are all 0. */
static int get_block(struct qcow2 *q, uint64_t cluster, bool nowait, struct table **block)
{
	uint64_t n = cluster >> q->refblock_bits, offset;

	*block = NULL;
	if (n >= q->reftable_size || !q->reftable[n])
		return 0;
	offset = q->reftable[n] & REFTABLE_OFFSET;
	if (in_cluster(q, offset) || !offset)
		return qcow2_is_corrupt(q, "refcount block %llu is at %#llx", (unsigned long long)n,
					(unsigned long long)offset);
	return cache_get(q, &q->refblocks, offset, nowait, block);
}

static uint64_t in_block(const struct qcow2 *q, uint64_t cluster) { return cluster & (BIT(q->refblock_bits) - 1); }

int qcow2_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *value)
{
	struct table *block;
	int rc = get_block(q, cluster, false, &block);

	if (rc)
		return rc;
	*value = block ? refcount_load(block->data, q->header.refcount_order, in_block(q, cluster)) : 0;
	return 0;
}

/* From 0 to 1, or one less. */
static int change(struct qcow2 *q, uint64_t cluster, bool more, bool *unused)
{
	unsigned order = q->header.refcount_order;
	struct table *block;
	uint64_t value = 0;
	int rc = get_block(q, cluster, false, &block);

	if (rc)
		return rc;
	if (block)
		value = refcount_load(block->data, order, in_block(q, cluster));
	if (more ? !block || value : !value)
		return qcow2_is_corrupt(q, "cluster %llu, which %s, has refcount %llu", (unsigned long long)cluster,
					more ? "should be free" : "is in use", (unsigned long long)value);
	value += more ? 1 : -1ull;
	refcount_store(block->data, order, in_block(q, cluster), value);
	block->dirty = true;
	*unused = !value;
	return 0;
}

/* ---- taking back ---- */

int qcow2_release(struct qcow2 *q, struct clusters c)
{
	for (uint64_t n = c.first; n < c.first + c.count; n++) {
		bool unused = false;
		int rc;

		if (set_has(&q->metadata, n))
			return qcow2_is_corrupt(q, "cluster %llu is of a table and would be free",
						(unsigned long long)n);
		rc = change(q, n, false, &unused);
		if (rc)
			return rc;
		if (!unused)
			continue;
		q->free_from = MIN(q->free_from, n);
		cache_forget(&q->l2, n << q->cluster_bits);
		file_discard(q->image.file, n << q->cluster_bits, q->cluster_size);
	}
	return 0;
}

int qcow2_free_later(struct qcow2 *q, struct clusters c)
{
	struct clusters *last = q->freed_count ? &q->freed[q->freed_count - 1] : NULL;

	if (last && last->first + last->count == c.first) {
		last->count += c.count;
		return 0;
	}
	if (!q->freed || q->freed_count == q->freed_room) {
		size_t room = q->freed_room ? q->freed_room * 2 : 64;
		struct clusters *larger = realloc(q->freed, room * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		q->freed = larger;
		q->freed_room = room;
	}
	q->freed[q->freed_count++] = c;
	return 0;
}

/* ---- giving out ---- */

/* A block for refcounts that are all 0, in a cluster that is free, and that it may count itself. */
static int make_block(struct qcow2 *q, uint64_t n, uint64_t cluster)
{
	struct table *block;
	bool unused, wrote = false;
	uint8_t entry[8];
	int rc = set_add(&q->metadata, cluster);

	if (rc)
		return rc == -EEXIST
			       ? qcow2_is_corrupt(q, "cluster %llu is of a table and free", (unsigned long long)cluster)
			       : rc;
	rc = cache_new(q, &q->refblocks, cluster << q->cluster_bits, false, &block);
	if (rc)
		goto failed;
	q->reftable[n] = cluster << q->cluster_bits;
	q->end = MAX(q->end, cluster + 1);
	q->fresh_from = MAX(q->fresh_from, cluster + 1);
	rc = change(q, cluster, true, &unused);
	/* The block, then what names it. */
	if (!rc)
		rc = cache_write(q, &q->refblocks, true, &wrote);
	if (!rc)
		rc = file_sync(q->image.file);
	store_be64(entry, q->reftable[n]);
	if (!rc)
		rc = file_write_bytes(q->image.file, q->header.reftable_offset + n * 8, entry, 8);
	if (!rc)
		return 0;
	q->reftable[n] = 0;
	cache_forget(&q->refblocks, cluster << q->cluster_bits);
failed:
	set_remove(&q->metadata, cluster);
	return rc;
}

/* Takes what is free from `first` on and in one block, at least that one. */
static int take(struct qcow2 *q, struct table *block, uint64_t first, uint64_t want, struct clusters *taken)
{
	unsigned order = q->header.refcount_order;
	uint64_t last = (first | (BIT(q->refblock_bits) - 1)) + 1, n = first;

	for (; n < last && n - first < want; n++) {
		if (refcount_load(block->data, order, in_block(q, n)))
			break;
		if (set_has(&q->metadata, n))
			return qcow2_is_corrupt(q, "cluster %llu is of a table and has refcount 0",
						(unsigned long long)n);
		refcount_store(block->data, order, in_block(q, n), 1);
	}
	block->dirty = true;
	*taken = (struct clusters){ first, n - first };
	q->free_from = n;
	q->end = MAX(q->end, n);
	return 0;
}

/* free_from goes to the first free cluster of a block, or behind the block. */
static bool find_in_block(struct qcow2 *q, struct table *block, unsigned *steps)
{
	uint64_t last = (q->free_from | (BIT(q->refblock_bits) - 1)) + 1;

	for (; q->free_from < last; q->free_from++, ++*steps)
		if (!refcount_load(block->data, q->header.refcount_order, in_block(q, q->free_from)))
			return true;
	return false;
}

static int grow_table(struct qcow2 *q);

int qcow2_alloc(struct qcow2 *q, uint64_t want, bool nowait, struct clusters *taken, bool *fresh)
{
	unsigned steps = 0;

	for (;;) {
		struct table *block;
		int rc;

		if (q->free_from >= CLUSTER_MAX)
			return -EFBIG;
		if (nowait && steps > QUICK_STEPS)
			return -EAGAIN;
		rc = get_block(q, q->free_from, nowait, &block);
		if (rc)
			return rc;
		if (!block) {
			if (nowait)
				return -EAGAIN;
			rc = q->free_from >> q->refblock_bits >= q->reftable_size
				     ? grow_table(q)
				     : make_block(q, q->free_from >> q->refblock_bits, q->free_from);
			if (rc)
				return rc;
			continue;
		}
		if (!find_in_block(q, block, &steps))
			continue;
		*fresh = q->free_from >= q->fresh_from;
		rc = take(q, block, q->free_from, want, taken);
		if (!rc && *fresh)
			q->fresh_from = taken->first + taken->count;
		return rc;
	}
}

/* ---- at the end of the file: tables that need clusters side by side, and their own refcount blocks ---- */

/* What is put behind everything else, in this order. */
struct extent {
	uint64_t first, blocks, table, want; /* clusters */
	uint64_t entries;		     /* that the table of blocks then has */
};

static uint64_t extent_end(const struct extent *e) { return e->first + e->blocks + e->table + e->want; }

/* Blocks that are needed depend on what they count, which they are part of: until it is right. */
static void plan(const struct qcow2 *q, struct extent *e)
{
	uint64_t before;

	do {
		uint64_t first = e->first >> q->refblock_bits, last;

		before = e->blocks + e->table;
		last = (extent_end(e) - 1) >> q->refblock_bits;
		e->blocks = 0;
		for (uint64_t n = first; n <= last; n++)
			e->blocks += n >= q->reftable_size || !q->reftable[n];
		if (last >= e->entries) {
			e->table = clusters_for(q, (last + 1 + (last + 1) / 2) * 8);
			e->entries = e->table << q->cluster_bits >> 3;
		}
	} while (e->blocks + e->table != before);
}

/* The new table is written down where it will be, then the header is told. */
static int move_table(struct qcow2 *q, const struct extent *e, uint64_t *table)
{
	uint64_t offset = (e->first + e->blocks) << q->cluster_bits;
	struct clusters old = { q->header.reftable_offset >> q->cluster_bits, q->header.reftable_clusters };
	uint8_t *bytes = malloc(e->entries * 8), place[12];
	int rc = bytes ? 0 : -ENOMEM;

	for (uint64_t n = 0; !rc && n < e->entries; n++)
		store_be64(bytes + n * 8, table[n]);
	if (!rc)
		rc = file_write_bytes(q->image.file, offset, bytes, e->entries * 8);
	free(bytes);
	if (!rc)
		rc = file_sync(q->image.file);
	store_be64(place, offset);
	store_be32(place + 8, (uint32_t)e->table);
	if (!rc)
		rc = file_write_bytes(q->image.file, 48, place, sizeof(place));
	if (rc)
		return rc;
	q->header.reftable_offset = offset;
	q->header.reftable_clusters = (uint32_t)e->table;
	for (uint64_t n = old.first; n < old.first + old.count; n++)
		set_remove(&q->metadata, n);
	return qcow2_free_later(q, old);
}

/* The entries of new blocks in a table that stays where it is. */
static int write_table_part(struct qcow2 *q, const struct extent *e)
{
	uint64_t first = e->first >> q->refblock_bits, last = (extent_end(e) - 1) >> q->refblock_bits;
	int rc = 0;

	for (uint64_t n = first; n <= last && !rc; n++) {
		uint8_t entry[8];

		store_be64(entry, q->reftable[n]);
		rc = file_write_bytes(q->image.file, q->header.reftable_offset + n * 8, entry, 8);
	}
	return rc;
}

/* New blocks in the cache and in the table in memory, everything in the extent counted. */
static int count_extent(struct qcow2 *q, const struct extent *e)
{
	uint64_t next = e->first;
	struct table *block;
	bool unused;
	int rc = 0;

	for (uint64_t n = e->first >> q->refblock_bits; n <= (extent_end(e) - 1) >> q->refblock_bits && !rc; n++) {
		if (q->reftable[n])
			continue;
		q->reftable[n] = next << q->cluster_bits;
		rc = cache_new(q, &q->refblocks, next++ << q->cluster_bits, false, &block);
	}
	for (uint64_t n = e->first; n < extent_end(e) && !rc; n++) {
		rc = change(q, n, true, &unused);
		if (!rc && n < e->first + e->blocks + e->table) {
			rc = set_add(&q->metadata, n);
			rc = rc == -EEXIST ? qcow2_is_corrupt(q, "tables lie on each other") : rc;
		}
	}
	return rc;
}

static int place_extent(struct qcow2 *q, struct extent *e)
{
	bool moves = e->table != 0, wrote;
	int rc;

	if (extent_end(e) >= CLUSTER_MAX || e->entries * 8 > REFTABLE_MAX)
		return -EFBIG;
	if (moves) {
		uint64_t *larger = realloc(q->reftable, e->entries * 8);

		if (!larger)
			return -ENOMEM;
		memset(larger + q->reftable_size, 0, (e->entries - q->reftable_size) * 8);
		q->reftable = larger;
		q->reftable_size = e->entries;
	}
	rc = count_extent(q, e);
	q->end = MAX(q->end, extent_end(e));
	if (q->fresh_from != UINT64_MAX)
		q->fresh_from = MAX(q->fresh_from, q->end);
	if (!rc)
		rc = cache_write(q, &q->refblocks, false, &wrote);
	if (!rc)
		rc = file_sync(q->image.file);
	if (!rc)
		rc = moves ? move_table(q, e, q->reftable) : write_table_part(q, e);
	if (!rc)
		rc = file_sync(q->image.file);
	if (rc)
		atomic_store(&q->failed, true);
	return rc;
}

int qcow2_alloc_at_end(struct qcow2 *q, uint64_t want, uint64_t *first)
{
	struct extent e = { .first = q->end, .want = want, .entries = q->reftable_size };
	int rc;

	plan(q, &e);
	rc = place_extent(q, &e);
	*first = e.first + e.blocks + e.table;
	return rc;
}

/* There is no room in the table for the block of what comes next: a cluster at the end has a block, wherever that is. */
static int grow_table(struct qcow2 *q)
{
	uint64_t first;
	int rc;

	q->end = MAX(q->end, q->free_from);
	rc = qcow2_alloc_at_end(q, 1, &first);
	return rc ? rc : qcow2_release(q, (struct clusters){ first, 1 });
}

int qcow2_set_refcount(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
	uint64_t n = cluster >> q->refblock_bits, at;
	struct table *block;
	int rc = get_block(q, cluster, false, &block);

	if (!rc && !block) {
		if (n >= q->reftable_size)
			return -EIO;
		rc = qcow2_alloc_at_end(q, 1, &at);
		if (!rc)
			rc = qcow2_release(q, (struct clusters){ at, 1 });
		if (!rc)
			rc = make_block(q, n, at);
		if (!rc)
			rc = get_block(q, cluster, false, &block);
	}
	if (rc || !block)
		return rc ? rc : -EIO;
	refcount_store(block->data, q->header.refcount_order, in_block(q, cluster), value);
	block->dirty = true;
	return 0;
}
