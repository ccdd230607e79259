/*
 * Images as wholes: made, looked at, checked, copied. What `doppel image` does. Part of block.h.
 */
#ifndef DOPPEL_BLOCK_IMAGE_H
#define DOPPEL_BLOCK_IMAGE_H

/* All zeros but file, format and size: the default. */
struct block_create_options {
	const char *file, *format; /* "raw", "qcow2" */
	uint64_t size;		   /* bytes, rounded up to a sector; 0 with a backing file: its size */
	/* qcow2's: */
	unsigned version;	/* 2 or 3; 0: 3 */
	uint64_t cluster_size;	/* 512 to 2 MiB, a power of two; 0: 64 KiB */
	unsigned refcount_bits; /* 1 to 64, a power of two; 0: 16 */
	bool lazy_refcounts;	/* version 3 */
	bool extended_l2;	/* version 3, clusters of at least 16 KiB */
	const char *backing; /* as it will be in the header: a relative name is from the image's own folder; or NULL */
	const char *backing_format; /* of it; needed */
	enum block_backing rule;    /* for what it stands on itself, if that must be looked at */
};
int block_create(const struct block_create_options *, struct error *);

struct block_snapshot {
	char id[64], name[128];
	uint64_t seconds, state_size; /* when it was made, since 1970; bytes of the machine's state */
};

/* What an image says of itself, without what is below it. */
struct block_details {
	char format[16];
	uint64_t size, file_size, disk_size; /* of the disk; of the file; what the host keeps of it */
	/* qcow2's: */
	unsigned version, refcount_bits;
	uint64_t cluster_size;
	bool lazy_refcounts, dirty, corrupt, extended_l2;
	const char *compression;
	char backing[1024], backing_format[32];
	unsigned snapshot_count;
	struct block_snapshot *snapshots; /* block_details_free() */
};
int block_examine(const struct block_options *, struct block_details *, struct error *);
void block_details_free(struct block_details *);

enum block_repair { BLOCK_REPAIR_NONE, BLOCK_REPAIR_LEAKS, BLOCK_REPAIR_ALL };
struct block_check_result {
	uint64_t errors, leaks;		       /* that are left */
	uint64_t errors_fixed, leaks_fixed;    /* clusters, or entries */
	uint64_t total, allocated, compressed; /* clusters of the disk */
};
/* report: a line about each of the first things that are wrong; may be NULL. */
int block_check(const struct block_options *, enum block_repair, struct block_check_result *,
		void (*report)(void *opaque, const char *line), void *opaque, struct error *);

/* Told now and then how much is done; NULL: nobody. */
struct block_progress {
	void (*tell)(void *opaque, uint64_t done, uint64_t all);
	void *opaque;
};
/* Everything that `from` shows, to an image that is made; zeros and holes are left out. */
int block_convert(const struct block_options *from, const struct block_create_options *to,
		  const struct block_progress *, struct error *);
/* shrink: it may become smaller, which loses what is behind its new end. */
int block_resize(const struct block_options *, uint64_t size, bool shrink, struct error *);
/* What is in the image goes to its backing file; the image is empty then. */
int block_commit(const struct block_options *, const struct block_progress *, struct error *);
/*
 * Another backing file, or none (NULL). The image shows the same as before: what differs is copied into it. trust: only the name is changed,
 * nothing is read.
 */
int block_rebase(const struct block_options *, const char *backing, const char *backing_format, bool trust,
		 const struct block_progress *, struct error *);

/* ---- discs ---- */

struct block_iso_file {
	const char *name; /* at most 24 characters of ASCII, without '/' and ';' */
	const void *data;
	size_t size;
};
/*
 * A disc's image in memory, free()d by the caller, with these files, at most 8, in the order of their names; volume: its name, at most 16 characters. NULL with a sentence.
 */
void *block_make_iso(const char *volume, const struct block_iso_file *, unsigned count, size_t *size, struct error *);

#endif
