/*
 * block: disk images of the host: raw files and block devices, qcow2 with backing files. What a disk's device asks of them: read, write,
 * flush, discard, write zeroes. Knows of no guest and no bus; every byte of an image is hostile.
 */
#ifndef DOPPEL_BLOCK_BLOCK_H
#define DOPPEL_BLOCK_BLOCK_H

#include "host/host.h"

#include <sys/uio.h>

/* Offsets and sizes of requests, and sizes of disks, are multiples of it. */
#define BLOCK_SECTOR 512u

struct block;

enum block_cache {
	BLOCK_WRITEBACK, /* the host's page cache; a flush is durable */
	BLOCK_NONE,	 /* O_DIRECT; a flush is durable */
	BLOCK_UNSAFE,	 /* the host's page cache; a flush is nothing: for what may be lost */
};

/* Which files an image may name as its backing file: such a name is the word of whoever made the image. */
enum block_backing {
	BLOCK_BACKING_NEAR, /* regular files in the image's own folder or below, by their real paths */
	BLOCK_BACKING_ANY,  /* any regular file or block device that may be opened */
	BLOCK_BACKING_NONE,
};

/* Whose memory it is that images keep tables in. Any thread. */
struct block_memory {
	/* False: there is no room for so many bytes more. An image of which this is so makes do with a few tables. */
	bool (*take)(void *opaque, uint64_t size);
	void (*give)(void *opaque, uint64_t size);
	void *opaque; /* outlives the disk */
};

/* All zeros but the file: the default. */
struct block_options {
	const char *file;
	const char *format; /* "raw", "qcow2"; NULL or "auto": what the first bytes say, see docs/images.md */
	bool readonly;
	bool snapshot; /* writes go to a file without a name and are gone when it is closed; the image is only read */
	bool discard;  /* what is discarded is given back to the host; else a discard does nothing */
	bool unlocked; /* for looking at an image that somebody else may be writing to; nothing without readonly */
	enum block_cache cache;
	enum block_backing backing;
	const struct block_memory *memory; /* NULL: nobody counts it */
};

struct block_info {
	uint64_t size;		/* bytes, a multiple of BLOCK_SECTOR; does not change */
	uint32_t logical_size;	/* bytes: sectors as the host's disk has them, or BLOCK_SECTOR */
	uint32_t physical_size; /* bytes: writes in multiples of it need no reads */
	uint32_t discard_size;	/* bytes: what is discarded in aligned multiples of it is given back */
	bool readonly, can_discard;
	bool writeback; /* flushes mean something */
	const char *format, *file;
};

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

/*
 * The caller's, with what iov describes, until it is done. Requests that are on their way at the same time are in no order; a flush is for
 * those that were done before it began.
 */
struct block_request {
	enum block_op op;
	uint64_t offset, size;	 /* bytes, multiples of BLOCK_SECTOR; not for a flush */
	const struct iovec *iov; /* of reads and writes; its lengths add up to size */
	int iov_count;
	bool fua;	/* a write or zeroes that are durable when it is done */
	bool may_unmap; /* zeroes need no room on the host */
	int result; /* 0 or -errno: -EINVAL outside of the disk or no multiple, -EPERM not allowed, -EIO, -ENOSPC ... */
	void (*done)(struct block_request *);
	struct list node; /* private */
};

/* NULL with a sentence. Ended by block_close(). */
struct block *block_open(const struct block_options *, struct error *);
const struct block_info *block_info(const struct block *);
/*
 * Any thread may call these at any time. block_try() does in the calling thread what is there in memory: 0 with the result set, or
 * -EAGAIN and nothing has happened, as it might block; done() is not called. It takes microseconds.
 */
int block_try(struct block *, struct block_request *);
/* Done by a worker, in whose thread done() is called, once; the request is the caller's again then. Never blocks. */
void block_submit(struct block *, struct block_request *);
/* In the calling thread, however long it takes; returns the result. done() is not called. */
int block_do(struct block *, struct block_request *);
/* A sync has failed: what the host has dropped does not come back, and requests that must be durable fail from now on. */
bool block_has_lost(const struct block *);
/* Waits until what was submitted is done. */
void block_drain(struct block *);
/* For who cannot wait any longer: what a server has not answered fails. Nothing is under way when it returns, some seconds later at most unless the host's own disk takes longer. */
void block_give_up(struct block *);
/* Drains; what was written and not flushed is written down. NULL is fine. */
void block_close(struct block *);

/*
 * Who opens a file for what, told to others as QEMU does: -EBUSY with a sentence, if one of them does not go with it. block_open() does so; for files that are used
 * otherwise. The lock is the descriptor's.
 */
int file_lock(int fd, const char *path, bool readonly, struct error *);

#include "block/image.h"

#endif
