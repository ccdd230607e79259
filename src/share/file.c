/*
 * Files that are open: made, read, written, and folders listed. Data goes between the file and the caller's memory, without a copy.
 */
#define _GNU_SOURCE
#include "share/private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Flags are Linux' own numbers, as on this host. The others are the guest's affair, or none of its business. */
#define FLAGS_TAKEN (O_ACCMODE | O_TRUNC | O_APPEND | O_DSYNC | O_SYNC | O_DIRECTORY)

#define WRITE_HEADER_SIZE 23u /* in front of Twrite's data */
#define ENTRY_SIZE	  24u /* of Rreaddir's, and the name */

static int check_flags(const struct share *share, uint32_t flags)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;

	if ((flags & O_ACCMODE) == O_ACCMODE)
		return -EINVAL;
	return writes && share->readonly ? -EROFS : 0;
}

static int opened(struct request *r, struct fid *fid, int fd, int flags)
{
	struct stat st;
	int rc = attr_stat(r->share, fd, &st);

	if (rc) {
		close(fd);
		return rc;
	}
	close(fid->fd);
	fid->fd = fd;
	fid->kind = FID_OPEN;
	fid->flags = flags;
	put_qid(r, &st);
	put(r, 0, 4); /* as much at once as a message has room for */
	return 0;
}

int serve_lopen(struct request *r)
{
	struct fid *fid;
	int rc = get_fid(r, &fid), flags = (int)get(r, 4), fd;

	if (r->bad || (!rc && fid->kind == FID_OPEN))
		return -EINVAL;
	if (!rc)
		rc = check_flags(r->share, (uint32_t)flags);
	if (rc)
		return rc;
	if (flags & O_TRUNC && !r->wait)
		return -EAGAIN;
	flags &= FLAGS_TAKEN;
	fd = path_open(fid->fd, flags);
	return fd < 0 ? fd : opened(r, fid, fd, flags);
}

/* What openat() made has the mode and owner that it is to have; else it is removed again. */
static int complete(struct share *share, int folder, const char *name, int fd, const struct owner *owner)
{
	int rc = fchmod(fd, attr_host_mode(share, owner->mode) & 07777) ? -errno : 0;

	if (!rc)
		rc = attr_set_owner(share, fd, owner);
	if (!rc)
		return fd;
	unlinkat(folder, name, 0);
	close(fd);
	return rc;
}

static int open_existing(int folder, const char *name, int flags)
{
	int fd, path = path_step(folder, name);

	if (path < 0)
		return path;
	fd = path_open(path, flags);
	close(path);
	return fd;
}

static int create(struct share *share, int folder, const char *name, uint32_t flags, const struct owner *owner)
{
	int taken = (int)flags & FLAGS_TAKEN & ~O_DIRECTORY;
	int fd = openat(folder, name, taken | O_CREAT | O_EXCL | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);

	if (fd >= 0)
		return complete(share, folder, name, fd, owner);
	return errno == EEXIST && !(flags & O_EXCL) ? open_existing(folder, name, taken) : -errno;
}

int serve_lcreate(struct request *r)
{
	struct owner owner = { .rdev = 0 };
	struct name name;
	struct fid *fid;
	uint32_t flags;
	int fd, rc = get_fid(r, &fid);

	get_name(r, &name);
	flags = (uint32_t)get(r, 4);
	owner.mode = S_IFREG | (get(r, 4) & 07777);
	owner.gid = (uint32_t)get(r, 4);
	if (r->bad || (!rc && fid->kind == FID_OPEN))
		return -EINVAL;
	if (!rc)
		rc = check_flags(r->share, flags);
	if (rc)
		return rc;
	owner.uid = fid->uid;
	fd = create(r->share, fid->fd, name.text, flags, &owner);
	return fd < 0 ? fd : opened(r, fid, fd, (int)flags & FLAGS_TAKEN);
}

/* ---- data ---- */

/* All that there is up to the file's end, of what does not make one wait; else -EAGAIN. */
static ssize_t read_in_line(int fd, const struct iovec *pieces, int count, size_t size, uint64_t offset)
{
	ssize_t got = preadv2(fd, pieces, count, (off_t)offset, RWF_NOWAIT);
	struct stat st;

	if (got < 0 && errno == EOPNOTSUPP && size <= IN_LINE_MOST) /* the file system cannot say */
		got = preadv(fd, pieces, count, (off_t)offset);
	if (got < 0)
		return errno == EOPNOTSUPP ? -EAGAIN : -errno;
	if ((size_t)got < size && !fstat(fd, &st) && offset + (uint64_t)got < (uint64_t)st.st_size)
		return -EAGAIN;
	return got;
}

int serve_read(struct request *r)
{
	struct fid *fid = fid_find(r->share, (uint32_t)get(r, 4));
	uint64_t offset = get(r, 8);
	uint32_t count = (uint32_t)get(r, 4);
	struct iovec pieces[PIECES_MOST];
	int used;
	ssize_t got;

	if (r->bad)
		return -EINVAL;
	if (!fid || fid->kind == FID_PATH || fid->kind == FID_XATTR_WRITE)
		return -EBADF;
	if (offset > INT64_MAX) /* -1 would be where the descriptor is */
		return -EINVAL;
	count = MIN(count, r->room - MIN(r->room, DATA_OFFSET));
	if (fid->kind == FID_XATTR_READ)
		return xattr_read(r, fid, offset, count);
	used = (int)message_pieces(r->message->reply, r->message->reply_count, DATA_OFFSET, count, pieces);
	if (r->wait) {
		got = preadv(fid->fd, pieces, used, (off_t)offset);
		got = got < 0 ? -errno : got;
	} else {
		got = read_in_line(fid->fd, pieces, used, count, offset);
	}
	if (got < 0)
		return (int)got;
	put(r, (uint64_t)got, 4);
	r->data_size = (size_t)got;
	return 0;
}

int serve_write(struct request *r)
{
	struct fid *fid = fid_find(r->share, (uint32_t)get(r, 4));
	uint64_t offset = get(r, 8);
	uint32_t count = (uint32_t)get(r, 4);
	struct iovec pieces[PIECES_MOST];
	int used;
	ssize_t done;

	if (r->bad || offset > INT64_MAX || !range_ok(WRITE_HEADER_SIZE, count, r->size))
		return -EINVAL;
	if (!fid || fid->kind == FID_PATH || fid->kind == FID_XATTR_READ)
		return -EBADF;
	if (fid->kind == FID_XATTR_WRITE)
		return xattr_write(r, fid, offset, count);
	if (!r->wait && (count > IN_LINE_MOST || fid->flags & O_DSYNC))
		return -EAGAIN;
	used = (int)message_pieces(r->message->request, r->message->request_count, WRITE_HEADER_SIZE, count, pieces);
	done = pwritev(fid->fd, pieces, used, (off_t)offset);
	if (done < 0)
		return -errno;
	put(r, (uint64_t)done, 4);
	return 0;
}

int serve_fsync(struct request *r)
{
	struct fid *fid;
	int rc = get_fid(r, &fid);
	bool data = r->have > r->at && get(r, 4); /* older clients do not say */

	if (r->bad)
		return -EINVAL;
	if (rc)
		return rc;
	if (!r->wait)
		return -EAGAIN;
	return (data ? fdatasync(fid->fd) : fsync(fid->fd)) ? -errno : 0;
}

/* ---- folders ---- */

/* False: there is no room for it. */
static bool put_entry(struct request *r, const struct dirent64 *entry, dev_t device, size_t end)
{
	size_t length = strlen(entry->d_name);
	bool mapped = r->share->security == SHARE_SECURITY_MAPPED && entry->d_type == DT_REG;

	if (!range_ok(r->reply_at, ENTRY_SIZE + length, end))
		return false;
	put(r, entry->d_type == DT_DIR ? 0x80 : entry->d_type == DT_LNK ? 2 : 0, 1);
	put(r, 0, 4);
	put(r, attr_inode(r->share, device, entry->d_ino), 8);
	put(r, (uint64_t)entry->d_off, 8);
	put(r, mapped ? DT_UNKNOWN : entry->d_type, 1);
	put(r, length, 2);
	put_bytes(r, entry->d_name, length);
	return true;
}

/* From a place on that the host gave out with the entry before: it stays good while names come and go. */
static int list(struct request *r, int fd, uint64_t from, size_t end)
{
	struct stat st;
	size_t start = r->reply_at;
	long got;

	if (fstat(fd, &st) || lseek(fd, (off_t)from, SEEK_SET) < 0)
		return -errno;
	got = syscall(SYS_getdents64, fd, r->share->entries, ENTRIES_SIZE);
	if (got < 0)
		return -errno;
	for (long at = 0; at < got;) {
		const struct dirent64 *entry = (const struct dirent64 *)(r->share->entries + at);

		if (!put_entry(r, entry, st.st_dev, end))
			return r->reply_at == start ? -EINVAL : 0;
		at += entry->d_reclen;
	}
	return 0;
}

int serve_readdir(struct request *r)
{
	size_t count_at = r->reply_at, end;
	struct fid *fid;
	int rc = get_fid(r, &fid);
	uint64_t offset = get(r, 8);
	uint32_t count = (uint32_t)get(r, 4), size;

	if (r->bad)
		return -EINVAL;
	if (rc || fid->kind != FID_OPEN)
		return -EBADF;
	put(r, 0, 4);
	end = MIN(MIN(r->reply_at + (size_t)count, r->room), REPLY_MOST);
	rc = list(r, fid->fd, offset, end);
	size = (uint32_t)(r->reply_at - DATA_OFFSET);
	memcpy(r->share->reply + count_at, &size, sizeof(size));
	return rc;
}
