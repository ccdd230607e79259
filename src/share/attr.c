/*
 * Attributes: what a file is, whose, and how large. With mapped security owner, mode and device number are in attributes of the host's file, in QEMU's format: numbers,
 * little-endian, in user.virtfs.uid, .gid, .mode (32 bits) and .rdev (64).
 */
#define _GNU_SOURCE
#include "share/private.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define GETATTR_BASIC 0x7ffu

/* Of setattr */
enum {
	SET_MODE = 1,
	SET_UID = 2,
	SET_GID = 4,
	SET_SIZE = 8,
	SET_ATIME = 16,
	SET_MTIME = 32,
	SET_ATIME_TO = 128,
	SET_MTIME_TO = 256,
};

/* Types in a qid */
#define QID_FOLDER  0x80
#define QID_SYMLINK 0x02

/* ---- user.virtfs.* ---- */

static bool get_mapped(int fd, const char *name, void *value, size_t size)
{
	uint8_t bytes[8];

	if (getxattr(fd_path(fd).text, name, bytes, sizeof(bytes)) != (ssize_t)size)
		return false;
	memcpy(value, bytes, size);
	return true;
}

static int set_mapped(int fd, const char *name, const void *value, size_t size)
{
	return setxattr(fd_path(fd).text, name, value, size, 0) ? -errno : 0;
}

int attr_stat(struct share *share, int fd, struct stat *st)
{
	uint32_t value;
	uint64_t rdev;

	if (fstat(fd, st))
		return -errno;
	if (share->security != SHARE_SECURITY_MAPPED)
		return 0;
	if (get_mapped(fd, "user.virtfs.uid", &value, 4))
		st->st_uid = value;
	if (get_mapped(fd, "user.virtfs.gid", &value, 4))
		st->st_gid = value;
	if (get_mapped(fd, "user.virtfs.mode", &value, 4))
		st->st_mode = value;
	if (get_mapped(fd, "user.virtfs.rdev", &rdev, 8))
		st->st_rdev = rdev;
	return 0;
}

int attr_set_owner(struct share *share, int fd, const struct owner *owner)
{
	int rc;

	if (share->security != SHARE_SECURITY_MAPPED)
		return 0;
	rc = set_mapped(fd, "user.virtfs.uid", &owner->uid, 4);
	if (!rc)
		rc = set_mapped(fd, "user.virtfs.gid", &owner->gid, 4);
	if (!rc)
		rc = set_mapped(fd, "user.virtfs.mode", &owner->mode, 4);
	if (!rc && owner->rdev)
		rc = set_mapped(fd, "user.virtfs.rdev", &owner->rdev, 8);
	return rc;
}

mode_t attr_host_mode(const struct share *share, mode_t mode)
{
	if (share->security == SHARE_SECURITY_MAPPED)
		return S_ISDIR(mode) ? 0700 : 0600;
	/* A guest does not make programs that others on the host would run as this user. */
	return mode & (S_ISDIR(mode) ? 07777 : 01777);
}

/* ---- inode numbers and qids ---- */

/* Files of several devices have different numbers: devices beyond the root's have a byte of it. Whatever does not fit is mixed, and unlikely to meet another. */
uint64_t attr_inode(struct share *share, dev_t device, ino_t inode)
{
	unsigned n;

	if (device == share->device && !(inode >> 56))
		return inode;
	for (n = 0; n < share->other_count && share->others[n] != device; n++)
		;
	if (n == OTHER_DEVICES || inode >> 56)
		return ~((inode ^ device << 32) * 0x9e3779b97f4a7c15u >> 8);
	if (n == share->other_count)
		share->others[share->other_count++] = device;
	return inode | (uint64_t)(n + 1) << 56;
}

void put_qid(struct request *r, const struct stat *st)
{
	put(r, S_ISDIR(st->st_mode) ? QID_FOLDER : S_ISLNK(st->st_mode) ? QID_SYMLINK : 0, 1);
	put(r, (uint32_t)(st->st_mtime ^ st->st_size << 8), 4);
	put(r, attr_inode(r->share, st->st_dev, st->st_ino), 8);
}

int put_qid_of(struct request *r, int folder, const char *name)
{
	struct stat st;
	int fd = path_step(folder, name), rc = fd < 0 ? fd : attr_stat(r->share, fd, &st);

	if (fd >= 0)
		close(fd);
	if (!rc)
		put_qid(r, &st);
	return rc;
}

/* ---- requests ---- */

static void put_time(struct request *r, const struct timespec *t)
{
	put(r, (uint64_t)t->tv_sec, 8);
	put(r, (uint64_t)t->tv_nsec, 8);
}

int serve_getattr(struct request *r)
{
	struct fid *fid;
	struct stat st;
	int rc = get_fid(r, &fid);

	get(r, 8); /* which of them: all are as cheap */
	if (r->bad)
		return -EINVAL;
	if (!rc)
		rc = attr_stat(r->share, fid->fd, &st);
	if (rc)
		return rc;
	put(r, GETATTR_BASIC, 8);
	put_qid(r, &st);
	put(r, st.st_mode, 4);
	put(r, st.st_uid, 4);
	put(r, st.st_gid, 4);
	put(r, st.st_nlink, 8);
	put(r, st.st_rdev, 8);
	put(r, (uint64_t)st.st_size, 8);
	put(r, (uint64_t)st.st_blksize, 8);
	put(r, (uint64_t)st.st_blocks, 8);
	put_time(r, &st.st_atim);
	put_time(r, &st.st_mtim);
	put_time(r, &st.st_ctim);
	put_time(r, &(struct timespec){ 0, 0 }); /* birth, generation and data version are not among what is valid */
	put(r, 0, 8);
	put(r, 0, 8);
	return 0;
}

struct setattr {
	uint32_t valid, mode, uid, gid;
	uint64_t size;
	struct timespec times[2];
};

static struct timespec get_time(struct request *r, uint32_t valid, uint32_t set, uint32_t set_to)
{
	uint64_t seconds = get(r, 8), ns = get(r, 8);

	if (!(valid & set))
		return (struct timespec){ 0, UTIME_OMIT };
	if (!(valid & set_to))
		return (struct timespec){ 0, UTIME_NOW };
	if (ns >= 1000000000)
		r->bad = true;
	return (struct timespec){ (time_t)seconds, (long)ns };
}

static int set_mode(struct share *share, int fd, uint32_t mode)
{
	struct stat st;
	int rc = attr_stat(share, fd, &st);

	if (rc)
		return rc;
	mode = (st.st_mode & S_IFMT) | (mode & 07777);
	if (share->security == SHARE_SECURITY_MAPPED)
		return set_mapped(fd, "user.virtfs.mode", &mode, 4);
	return chmod(fd_path(fd).text, attr_host_mode(share, mode) & 07777) ? -errno : 0;
}

static int set_owner(struct share *share, int fd, const struct setattr *to)
{
	bool uid = to->valid & SET_UID, gid = to->valid & SET_GID;
	int rc = 0;

	if (share->security == SHARE_SECURITY_MAPPED) {
		if (uid)
			rc = set_mapped(fd, "user.virtfs.uid", &to->uid, 4);
		return !rc && gid ? set_mapped(fd, "user.virtfs.gid", &to->gid, 4) : rc;
	}
	/* Files stay the user's where the user may not give them away. */
	if (fchownat(fd, "", uid ? to->uid : (uid_t)-1, gid ? to->gid : (gid_t)-1, AT_EMPTY_PATH) && errno != EPERM)
		return -errno;
	return 0;
}

static int set_size(const struct fid *fid, uint64_t size)
{
	int fd, rc;

	if (size > INT64_MAX)
		return -EFBIG;
	if (fid->kind == FID_OPEN && !ftruncate(fid->fd, (off_t)size))
		return 0;
	fd = path_open(fid->fd, O_WRONLY);
	if (fd < 0)
		return fd;
	rc = ftruncate(fd, (off_t)size) ? -errno : 0;
	close(fd);
	return rc;
}

static int set_times(int fd, const struct timespec times[2])
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISLNK(st.st_mode))
		return utimensat(fd, "", times, AT_EMPTY_PATH) ? -errno : 0;
	return utimensat(AT_FDCWD, fd_path(fd).text, times, 0) ? -errno : 0;
}

int serve_setattr(struct request *r)
{
	struct setattr to;
	struct fid *fid;
	int rc = get_fid(r, &fid);

	to.valid = (uint32_t)get(r, 4);
	to.mode = (uint32_t)get(r, 4);
	to.uid = (uint32_t)get(r, 4);
	to.gid = (uint32_t)get(r, 4);
	to.size = get(r, 8);
	to.times[0] = get_time(r, to.valid, SET_ATIME, SET_ATIME_TO);
	to.times[1] = get_time(r, to.valid, SET_MTIME, SET_MTIME_TO);
	if (r->bad)
		return -EINVAL;
	if (rc)
		return rc;
	if (to.valid & SET_SIZE && !r->wait)
		return -EAGAIN;
	if (to.valid & SET_SIZE)
		rc = set_size(fid, to.size);
	if (!rc && to.valid & (SET_UID | SET_GID))
		rc = set_owner(r->share, fid->fd, &to);
	if (!rc && to.valid & SET_MODE)
		rc = set_mode(r->share, fid->fd, to.mode);
	if (!rc && to.valid & (SET_ATIME | SET_MTIME))
		rc = set_times(fid->fd, to.times);
	return rc;
}

int serve_statfs(struct request *r)
{
	struct statfs s;
	struct fid *fid;
	int rc = get_fid(r, &fid);

	if (r->bad)
		return -EINVAL;
	if (rc)
		return rc;
	if (fstatfs(fid->fd, &s))
		return -errno;
	put(r, (uint32_t)s.f_type, 4);
	put(r, (uint32_t)s.f_bsize, 4);
	put(r, s.f_blocks, 8);
	put(r, s.f_bfree, 8);
	put(r, s.f_bavail, 8);
	put(r, s.f_files, 8);
	put(r, s.f_ffree, 8);
	put(r, (uint32_t)s.f_fsid.__val[0] | (uint64_t)(uint32_t)s.f_fsid.__val[1] << 32, 8);
	put(r, NAME_MAX, 4);
	return 0;
}
