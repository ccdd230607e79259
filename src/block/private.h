/*
 * What the files of block/ share: bytes in pieces of memory, files of the host, images in layers, workers.
 */
#ifndef DOPPEL_BLOCK_PRIVATE_H
#define DOPPEL_BLOCK_PRIVATE_H

#include "block/block.h"

/* ---- span.c: bytes in pieces of memory, from one of them on ---- */

struct span {
	const struct iovec *iov;
	int count;
	size_t skip; /* bytes of the first piece that are not part of it */
};

static inline struct span span_of(const struct iovec *iov) { return (struct span){ iov, 1, 0 }; }
/* All of these want the span to have `size` bytes. */
void span_advance(struct span *, uint64_t size);
void span_zero(struct span, uint64_t size);
void span_fill(struct span, const void *from, uint64_t size);
void span_copy(struct span, void *to, uint64_t size);
/* Pieces for one system call: at most `room`, and at most `size` bytes; *bytes says how many those are. Returns their number. */
int span_pieces(struct span, uint64_t size, struct iovec *out, int room, uint64_t *bytes);

/* ---- file.c: a file of the host, or a block device ---- */

struct file {
	int fd;
	char *path; /* for sentences */
	bool readonly, direct, unsafe;
	bool is_device;
	bool in_memory;	       /* of a file system that has no disk: reading does not block */
	bool zeros_behind_end; /* reading behind the end gives zeros; otherwise it is -EIO below the size that the file had */
	bool punch;	       /* what is of no use any more is given back to the host */
	uint32_t alignment;    /* of offsets, sizes and addresses with O_DIRECT */
	uint32_t sector;       /* of the device, or BLOCK_SECTOR */
	_Atomic uint64_t size; /* bytes that it is known to have */
	_Atomic bool no_nowait;
	_Atomic bool written;	  /* since the last sync began */
	pthread_mutex_t syncing;  /* who syncs: others wait for it, as what they wrote may be part of it */
	_Atomic bool sync_failed; /* the host has dropped what it could not write: nothing can be promised any more */
	pthread_rwlock_t partial; /* with O_DIRECT: who writes parts of what is written at once, alone */
};

int file_open(struct file **, const char *path, const struct block_options *, struct error *);
/* Takes the descriptor of a file that nobody else can open: as open as with cache=unsafe. */
int file_adopt(struct file **, int fd, const char *path, struct error *);
/* No file at all: what is known of one, for a disk that has none on this host. */
int file_name_only(struct file **, const struct block_options *);
void file_close(struct file *);
/* With nowait: -EAGAIN when it would block; a part may have been done. Short files: see above. */
int file_read(struct file *, uint64_t offset, uint64_t size, struct span, bool nowait);
int file_write(struct file *, uint64_t offset, uint64_t size, struct span);
int file_read_bytes(struct file *, uint64_t offset, void *to, size_t size);
int file_write_bytes(struct file *, uint64_t offset, const void *from, size_t size);
/* Reads as zeros afterwards; unmap: the room on the host is given back, where it takes it. */
int file_zero(struct file *, uint64_t offset, uint64_t size, bool unmap);
/* Gives the room back; whether zeros are read afterwards is not said. */
void file_discard(struct file *, uint64_t offset, uint64_t size);
int file_sync(struct file *);
/* A device keeps its size: -ENOSPC if that is less. */
int file_set_size(struct file *, uint64_t size);
/* Are there holes from `offset` on, or data, and for how many bytes (of `size`)? What cannot be found out is data. */
bool file_has_data(struct file *, uint64_t offset, uint64_t size, uint64_t *length);

/* ---- layers ---- */

enum image_content {
	IMAGE_DATA,
	IMAGE_ZEROS,
	IMAGE_BACKING, /* what the backing image has there, or zeros */
};

struct image;
struct image_ops {
	const char *name;
	int (*read)(struct image *, uint64_t offset, uint64_t size, struct span, bool nowait);
	int (*write)(struct image *, uint64_t offset, uint64_t size, struct span, bool nowait);
	int (*zero)(struct image *, uint64_t offset, uint64_t size, bool unmap);
	int (*discard)(struct image *, uint64_t offset, uint64_t size);
	int (*flush)(struct image *);
	/* What is there, for how many bytes of `size`? */
	int (*content)(struct image *, uint64_t offset, uint64_t size, enum image_content *, uint64_t *length);
	int (*resize)(struct image *, uint64_t size, struct error *);
	/* Until it ends what waits for somebody else fails, and what begins; any thread. NULL: nothing does. */
	void (*give_up)(struct image *, bool begins);
	void (*close)(struct image *); /* frees the image; not its backing image */
};

struct image {
	const struct image_ops *ops;
	struct image *backing; /* owned, or NULL */
	struct file *file;     /* owned */
	uint64_t size;	       /* bytes, a multiple of BLOCK_SECTOR */
	uint32_t cluster;      /* bytes that are given or taken at once; 0: any */
};

/* nbd.c: a disk of a server's, which is raw. */
bool nbd_is_address(const char *file);
struct image *nbd_open(const struct block_options *, struct error *);

/* Takes the file in any case. */
struct image *raw_open(struct file *, struct error *);
struct image *qcow2_open(struct file *, const struct block_options *, unsigned depth, struct error *);

/* Makes an empty image of the file, which is empty. The other only looks whether that is possible. */
int qcow2_can_create(const struct block_create_options *, struct error *);
int qcow2_create(struct file *, const struct block_create_options *, struct error *);

/* The same file from the outside: -EINVAL with a sentence unless it is a qcow2 image. Takes the file in any case where it makes an image. */
int qcow2_examine(struct file *, struct block_details *, struct error *);
int qcow2_check_file(struct file *, const struct block_options *, enum block_repair, struct block_check_result *,
		     void (*report)(void *opaque, const char *line), void *opaque, struct error *);
/* An image and what it stands on, both to be written to. */
struct image *qcow2_open_for_commit(struct file *, const struct block_options *, struct error *);
/* All of it shows what is below. */
int qcow2_make_empty(struct image *);
int qcow2_set_backing(struct image *, const char *backing, const char *format, struct error *);
/* The name by which an image's header means a file. */
char *qcow2_full_name(const char *image, const char *name);
/* Only the image itself, without what it stands on. */
struct image *qcow2_open_top(struct file *, const struct block_options *, struct error *);

/* What a file's format is called: as wanted, or by its first bytes; NULL with a sentence. */
const char *file_format(struct file *, const char *wanted, struct error *);
/* open.c: an image with all that is below it; *probed: nobody said the format, and it is raw. */
struct image *image_open(const struct block_options *, unsigned depth, bool *probed, struct error *);
/* The same, with a layer on top for writes if it is only a snapshot. */
struct image *image_open_for_use(const struct block_options *, bool *probed, struct error *);
void image_close(struct image *);
/* What is behind the image's end reads as zeros. */
int image_read(struct image *, uint64_t offset, uint64_t size, struct span, bool nowait);
int image_read_bytes(struct image *, uint64_t offset, void *to, size_t size);
/* The same for all layers: data or zeros, at least for *length bytes. */
int image_content(struct image *, uint64_t offset, uint64_t size, enum image_content *, uint64_t *length);

/* Largest number of images that stand on each other. */
#define IMAGE_LAYERS 64

/* ---- probe.c ---- */

/* The format that these first bytes of a file say. */
const char *probe_format(const uint8_t *head, size_t size);
/* Would a program that is not told the format take a disk that begins so for one that names other files? */
bool probe_is_dangerous(const uint8_t *head, size_t size);

/* ---- workers.c: workers ---- */

struct workers;
struct workers *workers_create(void (*run)(void *opaque, struct block_request *), void *opaque, struct error *);
void workers_submit(struct workers *, struct block_request *);
void workers_drain(struct workers *);
void workers_destroy(struct workers *);

#endif
