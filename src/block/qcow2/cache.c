/*
 * L2 tables and refcount blocks in memory: a hash by their place in the file, and a hand that goes round for one that was not used lately.
 */
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>

#define TABLES_LEAST 4u

int cache_init(struct table_cache *cache, uint64_t tables, unsigned max)
{
	cache->max = (unsigned)MIN(MAX(tables, TABLES_LEAST), max);
	cache->tables = calloc(cache->max, sizeof(*cache->tables));
	cache->buckets = malloc(cache->max * sizeof(*cache->buckets));
	if (!cache->tables || !cache->buckets)
		return -ENOMEM;
	memset(cache->buckets, 0xff, cache->max * sizeof(*cache->buckets));
	return 0;
}

void cache_free(struct qcow2 *q, struct table_cache *cache)
{
	if (cache->taken)
		q->memory.give(q->memory.opaque, cache->taken);
	for (unsigned n = 0; n < cache->count; n++)
		free(cache->tables[n].data);
	free(cache->tables);
	free(cache->buckets);
}

static int *bucket_of(struct table_cache *cache, uint64_t offset)
{
	return &cache->buckets[(offset >> 9) * 0x9e3779b97f4a7c15u % cache->max];
}

static struct table *find(struct table_cache *cache, uint64_t offset)
{
	for (int n = *bucket_of(cache, offset); n >= 0; n = cache->tables[n].next)
		if (cache->tables[n].offset == offset)
			return &cache->tables[n];
	return NULL;
}

static void unhash(struct table_cache *cache, struct table *table)
{
	int me = (int)(table - cache->tables), *at = bucket_of(cache, table->offset);

	while (*at != me)
		at = &cache->tables[*at].next;
	*at = table->next;
	table->offset = 0;
	table->dirty = table->fresh = false;
}

static void hash(struct table_cache *cache, struct table *table, uint64_t offset)
{
	int *bucket = bucket_of(cache, offset);

	table->offset = offset;
	table->used = true;
	table->next = *bucket;
	*bucket = (int)(table - cache->tables);
}

/* One that was not used lately, best one that needs not be written. */
static struct table *choose(struct table_cache *cache)
{
	for (unsigned n = 0; n < 3 * cache->count; n++) {
		struct table *table = &cache->tables[cache->hand++ % cache->count];

		if (!table->offset || (!table->used && (!table->dirty || n >= 2 * cache->count)))
			return table;
		table->used = false;
	}
	return &cache->tables[cache->hand++ % cache->count];
}

/* May there be another one? The first few may be, in any case. */
static bool may_grow(struct qcow2 *q, struct table_cache *cache)
{
	if (cache->count == cache->max)
		return false;
	if (!q->memory.take)
		return true;
	if (!q->memory.take(q->memory.opaque, q->cluster_size))
		return cache->count < TABLES_LEAST;
	cache->taken += q->cluster_size;
	return true;
}

/* A place for another table. */
static int make_room(struct qcow2 *q, struct table_cache *cache, bool nowait, struct table **result)
{
	struct table *table;
	int rc;

	if (may_grow(q, cache)) {
		table = &cache->tables[cache->count];
		table->data = aligned_alloc(PAGE_SIZE, MAX(q->cluster_size, PAGE_SIZE));
		if (!table->data)
			return -ENOMEM;
		cache->count++;
		*result = table;
		return 0;
	}
	table = choose(cache);
	if (table->dirty && nowait)
		return -EAGAIN;
	rc = table->dirty ? qcow2_write_metadata(q) : 0;
	/* Refcounts that may be late are not among it. */
	if (!rc && table->dirty) {
		rc = file_write_bytes(q->image.file, table->offset, table->data, q->cluster_size);
		table->dirty = false;
	}
	if (rc)
		return rc;
	if (table->offset)
		unhash(cache, table);
	*result = table;
	return 0;
}

int cache_get(struct qcow2 *q, struct table_cache *cache, uint64_t offset, bool nowait, struct table **table)
{
	int rc;

	*table = find(cache, offset);
	if (*table) {
		(*table)->used = true;
		return 0;
	}
	if (nowait)
		return -EAGAIN;
	rc = make_room(q, cache, false, table);
	if (!rc)
		rc = file_read_bytes(q->image.file, offset, (*table)->data, q->cluster_size);
	if (!rc)
		hash(cache, *table, offset);
	return rc;
}

int cache_new(struct qcow2 *q, struct table_cache *cache, uint64_t offset, bool nowait, struct table **table)
{
	int rc = make_room(q, cache, nowait, table);

	if (rc)
		return rc;
	memset((*table)->data, 0, q->cluster_size);
	hash(cache, *table, offset);
	(*table)->dirty = (*table)->fresh = true;
	return 0;
}

void cache_forget(struct table_cache *cache, uint64_t offset)
{
	struct table *table = find(cache, offset);

	if (table)
		unhash(cache, table);
}

int cache_write(struct qcow2 *q, struct table_cache *cache, bool fresh_only, bool *wrote)
{
	for (unsigned n = 0; n < cache->count; n++) {
		struct table *table = &cache->tables[n];
		int rc;

		if (!table->dirty || (fresh_only && !table->fresh))
			continue;
		rc = file_write_bytes(q->image.file, table->offset, table->data, q->cluster_size);
		if (rc)
			return rc;
		table->dirty = table->fresh = false;
		*wrote = true;
	}
	return 0;
}
