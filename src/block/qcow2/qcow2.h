/*
 * qcow2: what its files share. The format is docs/interop/qcow2.txt of QEMU.
 *
 * An image is made of clusters. Guest offsets are looked up in two steps: L1, in memory as a whole, names L2 tables, which name clusters.
 * A table of refcount blocks, in memory too, counts who uses each cluster. L2 tables and refcount blocks are read into caches and
 * written back later (qcow2_write_metadata).
 *
 * Locks: `lock` is for everything about tables and is held while those are read and written, but not while data is; ranges.c keeps
 * requests apart that must not meet, and is asked first.
 */
#ifndef DOPPEL_BLOCK_QCOW2_QCOW2_H
#define DOPPEL_BLOCK_QCOW2_QCOW2_H

#include "block/private.h"

/* ---- header.c ---- */

#define QCOW2_MAGIC 0x514649fbu

#define INCOMPATIBLE_DIRTY	 BIT(0)
#define INCOMPATIBLE_CORRUPT	 BIT(1)
#define INCOMPATIBLE_DATA_FILE	 BIT(2)
#define INCOMPATIBLE_COMPRESSION BIT(3)
#define INCOMPATIBLE_EXTENDED_L2 BIT(4)
#define COMPATIBLE_LAZY		 BIT(0)

#define EXTENSION_BACKING_FORMAT 0xe2792acau
#define EXTENSION_FEATURE_NAMES	 0x6803f857u
#define EXTENSION_BITMAPS	 0x23852875u

#define L1_MAX	      (32u << 20) /* bytes, as QEMU */
#define REFTABLE_MAX  (8u << 20)  /* bytes, as QEMU */
#define SNAPSHOTS_MAX 65536u

struct qcow2_header {
	uint32_t version, length, cluster_bits, crypt, l1_size, reftable_clusters, snapshot_count, refcount_order;
	uint64_t size, l1_offset, reftable_offset, snapshot_offset;
	uint64_t incompatible, compatible, autoclear;
	uint64_t backing_offset;
	uint32_t backing_length;
	uint8_t compression; /* 0 zlib, 1 zstd */
	bool bitmaps;
	char backing[1024], backing_format[32];
};

/* -EINVAL with a sentence for what is wrong or unknown; what is refused of that is so by name. */
int qcow2_header_read(struct file *, struct qcow2_header *, struct error *);

/* ---- set.c: numbers of clusters ---- */

struct cluster_set {
	uint64_t *slots; /* number + 1, 0: none */
	size_t count, room;
	uint64_t factor;
};
/* 0, -EEXIST or -ENOMEM. */
int set_add(struct cluster_set *, uint64_t cluster);
bool set_has(const struct cluster_set *, uint64_t cluster);
void set_remove(struct cluster_set *, uint64_t cluster);
void set_free(struct cluster_set *);

/* ---- cache.c: L2 tables, refcount blocks ---- */

struct table {
	uint64_t offset; /* in the file; 0: nothing */
	uint8_t *data;
	bool dirty;
	bool fresh; /* nothing in the file names it yet */
	bool used;  /* since the hand came by */
	int next;   /* of the same hash */
};

struct table_cache {
	struct table *tables;
	int *buckets;
	unsigned count, max, hand;
	uint64_t taken; /* bytes, of struct block_memory */
};

struct qcow2;
int cache_init(struct table_cache *, uint64_t tables, unsigned max);
void cache_free(struct qcow2 *, struct table_cache *);
/* The table at an offset; it stays there until the next one of the same cache is got. -EAGAIN with nowait if that needs the file. */
int cache_get(struct qcow2 *, struct table_cache *, uint64_t offset, bool nowait, struct table **);
/* A table of zeros that will be at that offset: dirty, and fresh. */
int cache_new(struct qcow2 *, struct table_cache *, uint64_t offset, bool nowait, struct table **);
/* The cluster is no table any more. */
void cache_forget(struct table_cache *, uint64_t offset);
/* Writes what is dirty; fresh ones alone, or all. *wrote is set when anything was. */
int cache_write(struct qcow2 *, struct table_cache *, bool fresh_only, bool *wrote);

/* ---- the image ---- */

struct range {
	uint64_t first, last; /* clusters of the guest */
	bool exclusive;
	struct list node;
};

struct clusters {
	uint64_t first, count;
};

struct qcow2 {
	struct image image;
	struct qcow2_header header;
	unsigned cluster_bits, l2_bits,
		refblock_bits; /* logarithms: bytes of a cluster, entries of an L2 table, of a refcount block */
	uint32_t cluster_size;
	bool readonly, extended, lazy;
	bool checked;		    /* opened for a check, which repairs */
	struct block_memory memory; /* take NULL: nobody counts it */

	pthread_mutex_t lock;
	uint64_t *l1, *reftable; /* as numbers of this host */
	uint64_t reftable_size;
	uint8_t *l1_dirty; /* a byte each L1_PIECE entries */
	struct table_cache l2, refblocks;
	struct cluster_set metadata; /* clusters that hold tables: no data is written there */
	uint64_t free_from;	     /* clusters below it are in use */
	uint64_t end;		     /* clusters from there on are not in use, and not in the file */
	uint64_t fresh_from;	     /* those from there on were never written: zeros */
	struct clusters *freed;	     /* in use until what no longer names them is durable */
	size_t freed_count, freed_room;
	/* What must be durable before the tables that name it are written: new clusters and tables, counted, and how many of them are. */
	uint64_t fresh, durable;
	bool marked; /* as written to, in the file */
	bool corrupt;
	_Atomic bool failed; /* metadata could not be written: the mark stays */

	pthread_mutex_t range_lock;
	pthread_cond_t range_gone;
	struct list ranges;

	pthread_mutex_t unpack_lock; /* of the last compressed cluster that was unpacked */
	uint64_t unpacked;	     /* its entry, 0: none */
	uint8_t *unpacked_data;
};

#define L1_PIECE 64 /* entries that are written at once */

#define ENTRY_COPIED	 BIT(63) /* nobody else uses what it names: it may be written in place */
#define ENTRY_COMPRESSED BIT(62)
#define ENTRY_ZERO	 BIT(0)
#define ENTRY_OFFSET	 0x00fffffffffffe00ull
#define REFTABLE_OFFSET	 0xfffffffffffffe00ull

/* Extended entries have a bitmap besides: for each part of a cluster a bit that says that it is there, and one that says that it is zeros. */
#define SUBCLUSTERS	  32
#define SUBCLUSTERS_THERE 0x00000000ffffffffull
#define SUBCLUSTERS_ZERO  0xffffffff00000000ull
#define EXTENDED_BITS	  14 /* logarithm of the smallest cluster: its parts are sectors */

/* A logarithm: bytes of an L2 table's entry. */
static inline unsigned entry_bits(bool extended) { return extended ? 4 : 3; }

static inline uint64_t in_cluster(const struct qcow2 *q, uint64_t offset) { return offset & (q->cluster_size - 1); }
static inline uint64_t clusters_for(const struct qcow2 *q, uint64_t bytes)
{
	return (bytes >> q->cluster_bits) + (in_cluster(q, bytes) != 0);
}

/* open.c */
/* Without what is below it. Takes the file in any case. */
struct qcow2 *qcow2_open_alone(struct file *, const struct block_options *, struct error *);
/* The same for who checks it: whatever state it is in, and nothing is repaired at once. */
struct qcow2 *qcow2_open_to_check(struct file *, const struct block_options *, struct error *);
/* Whoever finds that the tables contradict each other: says so, marks the image; -EIO. Lock held. */
int qcow2_is_corrupt(struct qcow2 *, const char *fmt, ...) printf_like(2, 3);
/* Before the first change of the tables. Lock held. */
int qcow2_mark(struct qcow2 *, bool nowait);
int qcow2_write_features(struct qcow2 *);
void qcow2_free(struct image *);

/* meta.c: everything down in an order that makes sense at any moment. Lock held. */
int qcow2_write_metadata(struct qcow2 *);
int qcow2_flush(struct image *);
/* At the end: the same, and the image is marked as whole. */
int qcow2_finish(struct qcow2 *);
void qcow2_note_l1(struct qcow2 *, uint64_t index);

/* refcount.c. Lock held. */
uint64_t refcount_load(const uint8_t *block, unsigned order, uint64_t index);
void refcount_store(uint8_t *block, unsigned order, uint64_t index, uint64_t value);
int qcow2_refcount(struct qcow2 *, uint64_t cluster, uint64_t *value);
/* For repairs: any value; a block that is not there is made. */
int qcow2_set_refcount(struct qcow2 *, uint64_t cluster, uint64_t value);
/* Up to `want` free clusters that are side by side are in use from now on; *fresh: they are zeros in the file. */
int qcow2_alloc(struct qcow2 *, uint64_t want, bool nowait, struct clusters *, bool *fresh);
/* Exactly so many, behind everything else. */
int qcow2_alloc_at_end(struct qcow2 *, uint64_t want, uint64_t *first);
/* One user less, at once: nothing in the file names them. */
int qcow2_release(struct qcow2 *, struct clusters);
/* One user less, when what the file says is durable. */
int qcow2_free_later(struct qcow2 *, struct clusters);

/* table.c. Lock held. */
enum mapping_kind { MAP_BACKING, MAP_ZERO, MAP_DATA, MAP_COMPRESSED };
struct mapping {
	enum mapping_kind kind;
	bool copied;
	uint64_t host;	 /* of data: in the file; of zeros: the cluster that is kept for it, or 0 */
	uint64_t entry;	 /* of a compressed cluster */
	uint64_t length; /* bytes for which this is so */
};
int qcow2_lookup(struct qcow2 *, uint64_t offset, uint64_t size, bool nowait, struct mapping *);
/* The table for a guest's offset, which may be changed; *index is that of the entry in it. */
int qcow2_table_for_write(struct qcow2 *, uint64_t offset, bool nowait, struct table **, uint64_t *index);
/* Changes an entry of such a table; who was named before has one user less. bitmap: of extended entries. */
int qcow2_set_entry(struct qcow2 *, struct table *, uint64_t index, uint64_t entry, uint64_t bitmap);
uint64_t table_entry(const struct qcow2 *, const struct table *, uint64_t index);
uint64_t table_bitmap(const struct table *, uint64_t index);
/* Which clusters a compressed cluster's entry names, and how its bytes lie. */
void compressed_place(const struct qcow2 *, uint64_t entry, uint64_t *offset, uint64_t *size);

/* ranges.c */
int range_begin(struct qcow2 *, struct range *, uint64_t offset, uint64_t size, bool exclusive, bool nowait);
void range_end(struct qcow2 *, struct range *);

/* unpack.c */
int qcow2_read_compressed(struct qcow2 *, uint64_t entry, uint64_t at, uint64_t size, struct span);

/* snapshot.c */
struct qcow2_snapshot {
	char id[64], name[128];
	uint64_t l1_offset, seconds, disk_size, state_size;
	uint32_t l1_size;
};
/* Calls fn for each; a value other than 0 ends it and is returned. */
int qcow2_snapshots(struct file *, const struct qcow2_header *, struct error *,
		    int (*fn)(void *opaque, const struct qcow2_snapshot *, struct error *), void *opaque);
/* Bytes of the table; for a damaged one up to where it makes sense. */
uint64_t qcow2_snapshot_table_size(struct file *, const struct qcow2_header *);

/* check.c */
struct check {
	enum block_repair repair;
	struct block_check_result *result;
	void (*report)(void *opaque, const char *line);
	void *opaque;
};
int qcow2_check(struct qcow2 *, const struct check *, struct error *);

/* io.c */
extern const struct image_ops qcow2_ops;

/* create.c */
/* From `at` on in a header's cluster of `size` bytes: the backing file's format and name, or none (NULL). -ENOSPC: no room. */
int qcow2_put_names(uint8_t *cluster, uint64_t size, uint64_t at, const char *backing, const char *format);

/* manage.c */
int qcow2_resize(struct image *, uint64_t size, struct error *);

/* backing.c */
struct image *qcow2_open_backing(const struct qcow2 *, const struct block_options *, bool readonly, unsigned depth,
				 struct error *);

#endif
