/*
 * Do the tables of an image agree? Everything that names clusters is walked and counted, and compared with the refcounts. Repairs set
 * refcounts and the flags that follow from them; they never change which cluster a guest's offset is.
 */
#define _GNU_SOURCE
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LINES	   20	   /* reported one by one */
#define COUNTS_MAX BIT(36) /* clusters of a file that are counted: 16 TiB of the smallest */

struct walk {
	struct qcow2 *q;
	const struct check *check;
	uint32_t *counts; /* of the file's clusters; pages that nothing names cost nothing */
	uint64_t clusters;
	unsigned lines;
	uint8_t *l2; /* room for a table */
	int rc;
};

static void say(struct walk *w, const char *fmt, ...) printf_like(2, 3);

static void say(struct walk *w, const char *fmt, ...)
{
	char line[256];
	va_list args;

	if (!w->check->report || w->lines > LINES)
		return;
	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	w->check->report(w->check->opaque, w->lines++ == LINES ? "and so on" : line);
}

/* False: there are no such clusters. */
static bool count(struct walk *w, const char *what, uint64_t offset, uint64_t bytes)
{
	struct qcow2 *q = w->q;
	uint64_t first = offset >> q->cluster_bits, n = clusters_for(q, in_cluster(q, offset) + bytes);

	if (!range_ok(first, n, w->clusters)) {
		say(w, "%s at %#llx is not inside of the file", what, (unsigned long long)offset);
		w->check->result->errors++;
		return false;
	}
	for (uint64_t c = first; c < first + n; c++)
		if (w->counts[c] < UINT32_MAX)
			w->counts[c]++;
	return true;
}

static bool count_aligned(struct walk *w, const char *what, uint64_t offset, uint64_t bytes)
{
	if (!in_cluster(w->q, offset))
		return count(w, what, offset, bytes);
	say(w, "%s at %#llx does not begin with a cluster", what, (unsigned long long)offset);
	w->check->result->errors++;
	return false;
}

/* ---- walking ---- */

static uint64_t entries_of(const struct qcow2 *q) { return BIT(q->l2_bits); }

static uint64_t entry_in(const struct walk *w, uint64_t n)
{
	return load_be64(w->l2 + (n << entry_bits(w->q->extended)));
}

static int read_l2(struct walk *w, uint64_t l1_entry)
{
	int rc = file_read_bytes(w->q->image.file, l1_entry & ENTRY_OFFSET, w->l2, w->q->cluster_size);

	if (rc)
		w->rc = rc;
	return rc;
}

/* Parts of a cluster are there, or zeros, or neither; of one that is nowhere, or compressed, none are there. */
static void check_bitmap(struct walk *w, uint64_t n, uint64_t entry)
{
	uint64_t bitmap = load_be64(w->l2 + (n << 4) + 8), there = bitmap & SUBCLUSTERS_THERE;

	if (!(there & bitmap >> SUBCLUSTERS) && (entry & ENTRY_COMPRESSED ? !bitmap : !there || (entry & ENTRY_OFFSET)))
		return;
	say(w, "the bitmap of an extended L2 entry is %#llx, which contradicts itself, or the entry %#llx",
	    (unsigned long long)bitmap, (unsigned long long)entry);
	w->check->result->errors++;
}

static void walk_l2(struct walk *w, uint64_t l1_entry, bool active)
{
	struct block_check_result *result = w->check->result;

	if (read_l2(w, l1_entry))
		return;
	for (uint64_t n = 0; n < entries_of(w->q); n++) {
		uint64_t entry = entry_in(w, n), offset = entry & ENTRY_OFFSET, size;

		if (entry & ENTRY_COMPRESSED) {
			compressed_place(w->q, entry, &offset, &size);
			/* Of its last sector the file may have only the beginning. */
			count(w, "a compressed cluster", offset & ~511ull, size + (offset & 511));
			result->compressed += active;
		} else if (offset) {
			count_aligned(w, "a cluster of data", offset, w->q->cluster_size);
		}
		if (w->q->extended)
			check_bitmap(w, n, entry);
		result->allocated += active && ((entry & ENTRY_COMPRESSED) || offset);
	}
}

static void walk_l1(struct walk *w, const uint64_t *l1, uint64_t size, bool active)
{
	struct cluster_set seen = { 0 };

	for (uint64_t n = 0; n < size && !w->rc; n++) {
		uint64_t offset = l1[n] & ENTRY_OFFSET;
		int rc;

		if (!offset || !count_aligned(w, "an L2 table", offset, w->q->cluster_size))
			continue;
		rc = set_add(&seen, offset >> w->q->cluster_bits);
		if (!rc) {
			walk_l2(w, l1[n], active);
			continue;
		}
		if (rc == -ENOMEM)
			w->rc = rc;
		say(w, "two L1 entries name the L2 table at %#llx", (unsigned long long)offset);
		w->check->result->errors++;
	}
	set_free(&seen);
}

static int walk_snapshot(void *opaque, const struct qcow2_snapshot *s, struct error *err)
{
	struct walk *w = opaque;
	uint64_t *l1;

	if (!s->l1_size || !count_aligned(w, "the L1 table of a snapshot", s->l1_offset, s->l1_size * 8ull))
		return 0;
	l1 = malloc(s->l1_size * 8ull);
	if (!l1)
		return error_set_errno(err, ENOMEM, "check '%s'", w->q->image.file->path);
	w->rc = file_read_bytes(w->q->image.file, s->l1_offset, l1, s->l1_size * 8ull);
	for (uint32_t n = 0; n < s->l1_size && !w->rc; n++)
		l1[n] = load_be64(&l1[n]);
	walk_l1(w, l1, s->l1_size, false);
	free(l1);
	return 0;
}

static int walk_all(struct walk *w, struct error *err)
{
	struct qcow2 *q = w->q;
	const struct qcow2_header *h = &q->header;
	uint64_t snapshots = qcow2_snapshot_table_size(q->image.file, h);

	count(w, "the header", 0, 1);
	count_aligned(w, "the L1 table", h->l1_offset, h->l1_size * 8ull);
	count_aligned(w, "the refcount table", h->reftable_offset, q->reftable_size * 8);
	for (uint64_t n = 0; n < q->reftable_size; n++)
		if (q->reftable[n])
			count_aligned(w, "a refcount block", q->reftable[n] & REFTABLE_OFFSET, q->cluster_size);
	if (snapshots)
		count_aligned(w, "the snapshot table", h->snapshot_offset, snapshots);
	walk_l1(w, q->l1, h->l1_size, true);
	return qcow2_snapshots(q->image.file, h, err, walk_snapshot, w);
}

/* ---- comparing ---- */

static bool may_fix(const struct walk *w, bool leak)
{
	return w->check->repair == BLOCK_REPAIR_ALL || (leak && w->check->repair == BLOCK_REPAIR_LEAKS);
}

static void compare(struct walk *w, uint64_t cluster, uint64_t value)
{
	struct block_check_result *result = w->check->result;
	uint64_t wanted = cluster < w->clusters ? w->counts[cluster] : 0, most = ~0ull;
	bool leak = value > wanted, fixed = false;

	if (value == wanted)
		return;
	/* Whoever keeps bitmaps in the image uses clusters that are not counted here. */
	if (leak && w->q->header.bitmaps)
		return;
	if (w->q->header.refcount_order < 6)
		most = BIT(1u << w->q->header.refcount_order) - 1;
	say(w, "%s: cluster %llu is used %llu times and has refcount %llu", leak ? "leak" : "error",
	    (unsigned long long)cluster, (unsigned long long)wanted, (unsigned long long)value);
	if (may_fix(w, leak) && wanted <= most) {
		w->rc = qcow2_set_refcount(w->q, cluster, wanted);
		fixed = !w->rc;
	}
	if (leak)
		fixed ? result->leaks_fixed++ : result->leaks++;
	else
		fixed ? result->errors_fixed++ : result->errors++;
}

/* The blocks that are there, and clusters in use that none counts. */
static void compare_block(struct walk *w, uint64_t block)
{
	uint64_t first = block << w->q->refblock_bits, last = first + BIT(w->q->refblock_bits);
	bool there = w->q->reftable[block] && !in_cluster(w->q, w->q->reftable[block] & REFTABLE_OFFSET);

	for (uint64_t n = first; n < (there ? last : MIN(last, w->clusters)) && !w->rc; n++) {
		uint64_t value = 0;

		if (there)
			w->rc = qcow2_refcount(w->q, n, &value);
		if (!w->rc)
			compare(w, n, value);
	}
}

static void compare_refcounts(struct walk *w)
{
	uint64_t counted = w->q->reftable_size << w->q->refblock_bits;

	for (uint64_t n = 0; n < w->q->reftable_size && !w->rc; n++)
		if (w->q->reftable[n] || n << w->q->refblock_bits < w->clusters)
			compare_block(w, n);
	for (uint64_t n = counted; n < w->clusters && !w->rc; n++)
		if (w->counts[n])
			compare(w, n, 0);
}

/* Who is the only one to use a cluster says so, and nobody else does: else it is written to, or copied, wrongly. True: to be changed. */
static bool flag_is_wrong(struct walk *w, const char *what, uint64_t entry)
{
	uint64_t cluster = (entry & ENTRY_OFFSET) >> w->q->cluster_bits;
	bool flag = entry & ENTRY_COPIED, alone = cluster < w->clusters && w->counts[cluster] == 1;

	if (!(entry & ENTRY_OFFSET) || flag == alone)
		return false;
	say(w, "error: %s cluster %llu is%s the only user of it by its flag", what, (unsigned long long)cluster,
	    flag ? "" : " not");
	if (may_fix(w, false))
		w->check->result->errors_fixed++;
	else
		w->check->result->errors++;
	return may_fix(w, false);
}

static void check_l2_flags(struct walk *w, uint64_t l1_entry)
{
	bool changed = false;

	if (read_l2(w, l1_entry))
		return;
	for (uint64_t n = 0; n < entries_of(w->q); n++) {
		uint64_t entry = entry_in(w, n);

		if ((entry & ENTRY_COMPRESSED) || !flag_is_wrong(w, "an L2 entry for", entry))
			continue;
		store_be64(w->l2 + (n << entry_bits(w->q->extended)), entry ^ ENTRY_COPIED);
		changed = true;
	}
	if (changed) {
		cache_forget(&w->q->l2, l1_entry & ENTRY_OFFSET);
		w->rc = file_write_bytes(w->q->image.file, l1_entry & ENTRY_OFFSET, w->l2, w->q->cluster_size);
	}
}

static void check_flags(struct walk *w)
{
	struct qcow2 *q = w->q;

	for (uint64_t n = 0; n < q->header.l1_size && !w->rc; n++) {
		uint64_t offset = q->l1[n] & ENTRY_OFFSET;

		if (!offset || in_cluster(q, offset) || offset >> q->cluster_bits >= w->clusters)
			continue;
		if (flag_is_wrong(w, "an L1 entry for", q->l1[n])) {
			q->l1[n] ^= ENTRY_COPIED;
			qcow2_note_l1(q, n);
		}
		check_l2_flags(w, q->l1[n]);
	}
}

/* ---- all of it ---- */

static int run(struct walk *w, struct error *err)
{
	struct block_check_result *result = w->check->result;
	int rc = walk_all(w, err);

	if (rc)
		return rc;
	/* With tables that lie on each other, or anywhere, a repair would make it worse. */
	if (!w->rc && result->errors && w->check->repair != BLOCK_REPAIR_NONE)
		return error_set(err, EIO,
				 "'%s': its tables are damaged, not only its refcounts: doppel does not repair that",
				 w->q->image.file->path);
	if (!w->rc)
		compare_refcounts(w);
	if (!w->rc)
		check_flags(w);
	if (!w->rc && w->check->repair != BLOCK_REPAIR_NONE)
		w->rc = qcow2_flush(&w->q->image);
	return w->rc ? error_set_errno(err, -w->rc, "check '%s'", w->q->image.file->path) : 0;
}

int qcow2_check(struct qcow2 *q, const struct check *check, struct error *err)
{
	struct walk w = { .q = q, .check = check, .clusters = clusters_for(q, atomic_load(&q->image.file->size)) };
	size_t bytes = w.clusters * sizeof(*w.counts);
	int rc;

	if (w.clusters > COUNTS_MAX)
		return error_set(err, EFBIG, "'%s' has %llu clusters: too many to be checked", q->image.file->path,
				 (unsigned long long)w.clusters);
	w.l2 = malloc(q->cluster_size);
	w.counts =
		mmap(NULL, MAX(bytes, 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!w.l2 || w.counts == MAP_FAILED) {
		free(w.l2);
		return error_set_errno(err, ENOMEM, "check '%s'", q->image.file->path);
	}
	check->result->total = clusters_for(q, q->header.size);
	rc = run(&w, err);
	munmap(w.counts, MAX(bytes, 1));
	free(w.l2);
	return rc;
}
