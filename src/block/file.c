/*
 * A file of the host, or a block device, as images are made of: reading and writing at offsets by the page cache or past it, holes, syncs.
 */
#define _GNU_SOURCE
#include "block/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PIECES	     64		/* for one system call */
#define BOUNCE	     (1u << 20) /* bytes that are copied at once where O_DIRECT wants other addresses */
#define DIRECT_LARGE 4096u	/* what every disk's O_DIRECT takes */

/* ---- by the page cache, or where everything is aligned ---- */

/* Nothing is there to be read: that is right behind the end, and means below it that somebody else has made the file shorter. */
static int read_behind_end(const struct file *f, uint64_t offset, uint64_t size, struct span span)
{
	if (!f->zeros_behind_end && offset < atomic_load(&f->size))
		return -EIO;
	span_zero(span, size);
	return 0;
}

static int read_pieces(struct file *f, uint64_t offset, uint64_t size, struct span span, int flags)
{
	while (size) {
		struct iovec pieces[PIECES];
		uint64_t bytes;
		int count = span_pieces(span, size, pieces, PIECES, &bytes);
		ssize_t n = preadv2(f->fd, pieces, count, (off_t)offset, flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EOPNOTSUPP && flags) {
			atomic_store(&f->no_nowait, true);
			return -EAGAIN;
		}
		if (n < 0)
			return -errno;
		span_advance(&span, (uint64_t)n);
		offset += (uint64_t)n;
		size -= (uint64_t)n;
		if (!n || (f->direct && (uint64_t)n % f->alignment))
			return read_behind_end(f, offset, size, span);
	}
	return 0;
}

static void grew(struct file *f, uint64_t end)
{
	uint64_t size = atomic_load(&f->size);

	while (size < end && !atomic_compare_exchange_weak(&f->size, &size, end))
		;
	atomic_store(&f->written, true);
}

static int write_pieces(struct file *f, uint64_t offset, uint64_t size, struct span span)
{
	while (size) {
		struct iovec pieces[PIECES];
		uint64_t bytes;
		int count = span_pieces(span, size, pieces, PIECES, &bytes);
		ssize_t n = pwritev(f->fd, pieces, count, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		span_advance(&span, (uint64_t)n);
		offset += (uint64_t)n;
		size -= (uint64_t)n;
		grew(f, offset);
	}
	return 0;
}

/* ---- O_DIRECT with any address ---- */

static bool is_aligned(const struct file *f, uint64_t offset, uint64_t size, struct span span)
{
	uint64_t all = offset | size, bytes;

	while (size) {
		struct iovec piece;

		span_pieces(span, size, &piece, 1, &bytes);
		all |= (uintptr_t)piece.iov_base | piece.iov_len;
		span_advance(&span, bytes);
		size -= bytes;
	}
	return !(all & (f->alignment - 1));
}

/* Part of a transfer: what is wanted, and the aligned range around it in a buffer of our own. */
struct bounce {
	uint64_t offset, size, start, length;
	uint8_t *buffer;
	struct iovec iov;
};

static int bounce_init(struct bounce *b)
{
	*b = (struct bounce){ .buffer = aligned_alloc(DIRECT_LARGE, BOUNCE) };
	return b->buffer ? 0 : -ENOMEM;
}

static void bounce_part(struct bounce *b, const struct file *f, uint64_t offset, uint64_t size)
{
	b->offset = offset;
	b->start = align_down(offset, f->alignment);
	b->size = MIN(size, BOUNCE - (offset - b->start));
	b->length = align_up(offset + b->size, f->alignment) - b->start;
	b->iov = (struct iovec){ b->buffer, b->length };
}

static int bounce_read(struct file *f, uint64_t offset, uint64_t size, struct span span)
{
	struct bounce b;
	int rc = bounce_init(&b);

	while (size && !rc) {
		bounce_part(&b, f, offset, size);
		rc = read_pieces(f, b.start, b.length, span_of(&b.iov), 0);
		if (rc)
			break;
		span_fill(span, b.buffer + (b.offset - b.start), b.size);
		span_advance(&span, b.size);
		offset += b.size;
		size -= b.size;
	}
	free(b.buffer);
	return rc;
}

/* What is around the range stays: the caller is alone. A file that ended inside of it ends with it. */
static int bounce_write_part(struct file *f, struct bounce *b, struct span span)
{
	uint64_t end = MAX(atomic_load(&f->size), b->offset + b->size);
	int rc = read_pieces(f, b->start, b->length, span_of(&b->iov), 0);

	if (rc)
		return rc;
	span_copy(span, b->buffer + (b->offset - b->start), b->size);
	rc = write_pieces(f, b->start, b->length, span_of(&b->iov));
	if (!rc && !f->is_device && b->start + b->length > end) {
		rc = ftruncate(f->fd, (off_t)end) ? -errno : 0;
		atomic_store(&f->size, end);
	}
	return rc;
}

static int bounce_write(struct file *f, uint64_t offset, uint64_t size, struct span span)
{
	struct bounce b;
	int rc = bounce_init(&b);

	while (size && !rc) {
		bounce_part(&b, f, offset, size);
		rc = bounce_write_part(f, &b, span);
		span_advance(&span, b.size);
		offset += b.size;
		size -= b.size;
	}
	free(b.buffer);
	return rc;
}

static int direct_write(struct file *f, uint64_t offset, uint64_t size, struct span span)
{
	int rc;

	if (is_aligned(f, offset, size, span)) {
		pthread_rwlock_rdlock(&f->partial);
		rc = write_pieces(f, offset, size, span);
	} else {
		pthread_rwlock_wrlock(&f->partial);
		rc = bounce_write(f, offset, size, span);
	}
	pthread_rwlock_unlock(&f->partial);
	return rc;
}

/* ---- reading and writing ---- */

int file_read(struct file *f, uint64_t offset, uint64_t size, struct span span, bool nowait)
{
	if (f->direct && nowait)
		return -EAGAIN;
	if (f->direct && !is_aligned(f, offset, size, span))
		return bounce_read(f, offset, size, span);
	if (!nowait || f->in_memory)
		return read_pieces(f, offset, size, span, 0);
	return atomic_load(&f->no_nowait) ? -EAGAIN : read_pieces(f, offset, size, span, RWF_NOWAIT);
}

int file_write(struct file *f, uint64_t offset, uint64_t size, struct span span)
{
	return f->direct ? direct_write(f, offset, size, span) : write_pieces(f, offset, size, span);
}

int file_read_bytes(struct file *f, uint64_t offset, void *to, size_t size)
{
	struct iovec iov = { to, size };

	return file_read(f, offset, size, span_of(&iov), false);
}

int file_write_bytes(struct file *f, uint64_t offset, const void *from, size_t size)
{
	struct iovec iov = { (void *)(uintptr_t)from, size };

	return file_write(f, offset, size, span_of(&iov));
}

/* ---- zeros, holes ---- */

static int write_zeros(struct file *f, uint64_t offset, uint64_t size)
{
	size_t room = MIN(size, BOUNCE);
	void *zeros = aligned_alloc(DIRECT_LARGE, align_up(room, DIRECT_LARGE));
	int rc = zeros ? 0 : -ENOMEM;

	if (zeros)
		memset(zeros, 0, room);
	while (size && !rc) {
		size_t part = MIN(size, room);

		rc = file_write_bytes(f, offset, zeros, part);
		offset += part;
		size -= part;
	}
	free(zeros);
	return rc;
}

/* False: the host has no such thing here, or not for this range. */
static bool allocate(struct file *f, int mode, uint64_t offset, uint64_t size, int *rc)
{
	int code;

	do
		code = fallocate(f->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) ? errno : 0;
	while (code == EINTR);
	atomic_store(&f->written, true);
	*rc = -code;
	return code != EOPNOTSUPP && code != EINVAL && code != ENOSYS && code != ENODEV && code != EPERM;
}

int file_zero(struct file *f, uint64_t offset, uint64_t size, bool unmap)
{
	int rc;

	if (unmap && f->punch && allocate(f, FALLOC_FL_PUNCH_HOLE, offset, size, &rc))
		return rc;
	if (allocate(f, FALLOC_FL_ZERO_RANGE, offset, size, &rc))
		return rc;
	return write_zeros(f, offset, size);
}

void file_discard(struct file *f, uint64_t offset, uint64_t size)
{
	int rc;

	if (f->punch)
		allocate(f, FALLOC_FL_PUNCH_HOLE, offset, size, &rc);
}

bool file_has_data(struct file *f, uint64_t offset, uint64_t size, uint64_t *length)
{
	off_t data = lseek(f->fd, (off_t)offset, SEEK_DATA), hole;

	*length = size;
	if (data < 0)
		return errno != ENXIO;
	if ((uint64_t)data > offset) {
		*length = MIN(size, (uint64_t)data - offset);
		return false;
	}
	hole = lseek(f->fd, (off_t)offset, SEEK_HOLE);
	if (hole > data)
		*length = MIN(size, (uint64_t)hole - offset);
	return true;
}

int file_sync(struct file *f)
{
	int rc = 0;

	if (f->unsafe)
		return 0;
	pthread_mutex_lock(&f->syncing);
	if (atomic_load(&f->sync_failed)) {
		rc = -EIO;
	} else if (atomic_exchange(&f->written, false) && fdatasync(f->fd)) {
		rc = -errno;
		atomic_store(&f->sync_failed, true);
	}
	pthread_mutex_unlock(&f->syncing);
	return rc;
}

int file_set_size(struct file *f, uint64_t size)
{
	if (f->is_device)
		return size > atomic_load(&f->size) ? -ENOSPC : 0;
	if (ftruncate(f->fd, (off_t)size))
		return -errno;
	atomic_store(&f->size, size);
	atomic_store(&f->written, true);
	return 0;
}

/* ---- opening ---- */

static int find_size(struct file *f, const struct stat *st, struct error *err)
{
	uint64_t size = (uint64_t)st->st_size;
	int sector = BLOCK_SECTOR;

	if (f->is_device && (ioctl(f->fd, BLKGETSIZE64, &size) || ioctl(f->fd, BLKSSZGET, &sector)))
		return error_set_errno(err, errno, "cannot find out the size of '%s'", f->path);
	atomic_store(&f->size, size);
	f->sector = (uint32_t)sector;
	return 0;
}

/* What the host tells of it alone is not to be trusted: a small read says whether it is taken. */
static void find_alignment(struct file *f)
{
	uint8_t *buffer = aligned_alloc(DIRECT_LARGE, 2 * DIRECT_LARGE);

	f->alignment = DIRECT_LARGE;
	if (buffer && atomic_load(&f->size) >= BLOCK_SECTOR &&
	    pread(f->fd, buffer + BLOCK_SECTOR, BLOCK_SECTOR, 0) == BLOCK_SECTOR)
		f->alignment = BLOCK_SECTOR;
	free(buffer);
}

static int examine(struct file *f, struct error *err)
{
	struct statfs fs;
	struct stat st;

	if (fstat(f->fd, &st))
		return error_set_errno(err, errno, "cannot examine '%s'", f->path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return error_set(err, EINVAL, "'%s' is %s; expected a regular file or a block device", f->path,
				 S_ISDIR(st.st_mode) ? "a directory" : "neither file nor disk");
	f->is_device = S_ISBLK(st.st_mode);
	f->in_memory = !f->is_device && !fstatfs(f->fd, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
	f->alignment = 1;
	if (f->direct)
		find_alignment(f);
	return find_size(f, &st, err);
}

static struct file *file_new(int fd, const char *path)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->fd = fd;
	f->path = strdup(path);
	pthread_rwlock_init(&f->partial, NULL);
	pthread_mutex_init(&f->syncing, NULL);
	if (f->path)
		return f;
	f->fd = -1;
	file_close(f);
	return NULL;
}

static int open_flags(const char *path, const struct block_options *options)
{
	int flags = (options->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	struct stat st;

	/* Of a disk: refused by the host while it is mounted. */
	if (!options->readonly && !stat(path, &st) && S_ISBLK(st.st_mode))
		flags |= O_EXCL;
	return options->cache == BLOCK_NONE ? flags | O_DIRECT : flags;
}

static int cannot_open(const char *path, const struct block_options *options, int code, struct error *err)
{
	if (code == EINVAL && options->cache == BLOCK_NONE)
		return error_set(err, EINVAL, "cannot open '%s' with cache=none: its file system has no O_DIRECT",
				 path);
	if (!options->readonly && (code == EACCES || code == EROFS || code == EPERM))
		return error_set(err, code, "cannot open '%s' for writing: %s; readonly or snapshot only reads it",
				 path, strerror(code));
	return error_set_errno(err, code, "cannot open '%s'", path);
}

int file_open(struct file **result, const char *path, const struct block_options *options, struct error *err)
{
	int fd = open(path, open_flags(path, options)), rc;
	struct file *f;

	*result = NULL;
	if (fd < 0)
		return cannot_open(path, options, errno, err);
	f = file_new(fd, path);
	if (!f) {
		close(fd);
		return error_set_errno(err, ENOMEM, "open '%s'", path);
	}
	f->readonly = options->readonly;
	f->direct = options->cache == BLOCK_NONE;
	f->unsafe = options->cache == BLOCK_UNSAFE;
	f->punch = options->discard;
	rc = examine(f, err);
	if (!rc && !(options->unlocked && options->readonly))
		rc = file_lock(fd, path, options->readonly, err);
	if (rc) {
		file_close(f);
		return rc;
	}
	*result = f;
	return 0;
}

int file_adopt(struct file **result, int fd, const char *path, struct error *err)
{
	struct file *f = file_new(fd, path);
	int rc;

	*result = NULL;
	if (!f) {
		close(fd);
		return error_set_errno(err, ENOMEM, "open '%s'", path);
	}
	f->unsafe = f->punch = true;
	rc = examine(f, err);
	if (rc)
		file_close(f);
	else
		*result = f;
	return rc;
}

int file_name_only(struct file **result, const struct block_options *options)
{
	*result = file_new(-1, options->file);
	if (!*result)
		return -ENOMEM;
	(*result)->unsafe = options->cache == BLOCK_UNSAFE;
	(*result)->sector = BLOCK_SECTOR;
	return 0;
}

void file_close(struct file *f)
{
	if (!f)
		return;
	if (f->fd >= 0)
		close(f->fd);
	pthread_rwlock_destroy(&f->partial);
	pthread_mutex_destroy(&f->syncing);
	free(f->path);
	free(f);
}
