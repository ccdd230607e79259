/*
 * Names in folders: made, moved, removed.
 */
#define _GNU_SOURCE
#include "share/private.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The file that stands for a link, or for what is special, where security is mapped; also that a FIFO, which is not opened, gets its owner. */
static int own(struct share *share, int folder, const char *name, const struct owner *owner)
{
	int fd, rc;

	if (share->security != SHARE_SECURITY_MAPPED)
		return 0;
	fd = path_step(folder, name);
	if (fd < 0)
		return fd;
	rc = attr_set_owner(share, fd, owner);
	close(fd);
	return rc;
}

/* The umask is the host's, not the guest's, which has applied its own. */
static int set_exact_mode(struct share *share, int folder, const char *name, mode_t mode)
{
	int fd = path_step(folder, name), rc;

	if (fd < 0)
		return fd;
	rc = chmod(fd_path(fd).text, attr_host_mode(share, mode) & 07777) ? -errno : 0;
	close(fd);
	return rc;
}

/* Something new, of the name in the folder, or nothing. */
static int finish(struct request *r, int folder, const char *name, const struct owner *owner)
{
	int rc = S_ISLNK(owner->mode) ? 0 : set_exact_mode(r->share, folder, name, owner->mode);

	if (!rc)
		rc = own(r->share, folder, name, owner);
	if (rc) {
		unlinkat(folder, name, S_ISDIR(owner->mode) ? AT_REMOVEDIR : 0);
		return rc;
	}
	return put_qid_of(r, folder, name);
}

int serve_mkdir(struct request *r)
{
	struct owner owner = { .rdev = 0 };
	struct name name;
	struct fid *fid;
	int rc = get_fid(r, &fid);

	get_name(r, &name);
	owner.mode = S_IFDIR | (get(r, 4) & 07777);
	owner.gid = (uint32_t)get(r, 4);
	if (r->bad)
		return -EINVAL;
	if (rc)
		return rc;
	owner.uid = fid->uid;
	if (mkdirat(fid->fd, name.text, 0700))
		return -errno;
	return finish(r, fid->fd, name.text, &owner);
}

/* Where security is none there are no devices: on the host they would be the host's. */
static int make_node(struct share *share, int folder, const char *name, const struct owner *owner)
{
	bool mapped = share->security == SHARE_SECURITY_MAPPED;
	mode_t type = owner->mode & S_IFMT;

	if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && !(mapped && (type == S_IFCHR || type == S_IFBLK)))
		return -EPERM;
	return mknodat(folder, name, (mapped ? S_IFREG : type) | 0600, 0) ? -errno : 0;
}

int serve_mknod(struct request *r)
{
	struct owner owner = { .rdev = 0 };
	struct name name;
	struct fid *fid;
	unsigned device[2];
	int rc = get_fid(r, &fid);

	get_name(r, &name);
	owner.mode = (uint32_t)get(r, 4);
	device[0] = (unsigned)get(r, 4);
	device[1] = (unsigned)get(r, 4);
	owner.gid = (uint32_t)get(r, 4);
	if (r->bad)
		return -EINVAL;
	if (rc)
		return rc;
	owner.uid = fid->uid;
	if (!(owner.mode & S_IFMT))
		owner.mode |= S_IFREG;
	owner.rdev = makedev(device[0], device[1]);
	rc = make_node(r->share, fid->fd, name.text, &owner);
	return rc ? rc : finish(r, fid->fd, name.text, &owner);
}

/* As QEMU does: a file with the target in it. */
static int make_mapped_link(int folder, const char *name, const char *target)
{
	int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return -errno;
	rc = host_write_all(fd, target, strlen(target));
	close(fd);
	if (rc)
		unlinkat(folder, name, 0);
	return rc;
}

int serve_symlink(struct request *r)
{
	struct owner owner = { .mode = S_IFLNK | 0777 };
	char target[PATH_MAX];
	struct name name;
	struct fid *fid;
	int rc = get_fid(r, &fid);

	get_name(r, &name);
	get_string(r, target, sizeof(target));
	owner.gid = (uint32_t)get(r, 4);
	if (r->bad)
		return -EINVAL;
	if (rc)
		return rc;
	owner.uid = fid->uid;
	if (r->share->security == SHARE_SECURITY_MAPPED)
		rc = make_mapped_link(fid->fd, name.text, target);
	else if (symlinkat(target, fid->fd, name.text))
		rc = -errno;
	return rc ? rc : finish(r, fid->fd, name.text, &owner);
}

static ssize_t read_mapped_link(int path, char *target, size_t size)
{
	int fd = path_open(path, O_RDONLY);
	ssize_t length;

	if (fd < 0)
		return fd;
	length = pread(fd, target, size, 0);
	length = length < 0 ? -errno : length;
	close(fd);
	return length;
}

int serve_readlink(struct request *r)
{
	char target[PATH_MAX];
	struct fid *fid;
	struct stat st;
	ssize_t length;
	int rc = get_fid(r, &fid);

	if (r->bad)
		return -EINVAL;
	if (!rc)
		rc = attr_stat(r->share, fid->fd, &st);
	if (rc)
		return rc;
	if (!S_ISLNK(st.st_mode))
		return -EINVAL;
	length = readlinkat(fid->fd, "", target, sizeof(target));
	if (length < 0 && r->share->security == SHARE_SECURITY_MAPPED) /* it stands for a link */
		length = read_mapped_link(fid->fd, target, sizeof(target));
	else if (length < 0)
		length = -errno;
	if (length < 0)
		return (int)length;
	put(r, (uint64_t)length, 2);
	put_bytes(r, target, (size_t)length);
	return 0;
}

int serve_link(struct request *r)
{
	struct fid *folder, *fid;
	struct name name;
	int rc = get_fid(r, &folder), rc2 = get_fid(r, &fid);

	get_name(r, &name);
	if (r->bad)
		return -EINVAL;
	if (rc || rc2)
		return -EBADF;
	if (linkat(AT_FDCWD, fd_path(fid->fd).text, folder->fd, name.text, AT_SYMLINK_FOLLOW))
		return -errno;
	return 0;
}

int serve_renameat(struct request *r)
{
	struct fid *from, *to;
	struct name before, after;
	int rc = get_fid(r, &from), rc2;

	get_name(r, &before);
	rc2 = get_fid(r, &to);
	get_name(r, &after);
	if (r->bad)
		return -EINVAL;
	if (rc || rc2)
		return -EBADF;
	if (!r->wait)
		return -EAGAIN;
	return renameat(from->fd, before.text, to->fd, after.text) ? -errno : 0;
}

int serve_rename(struct request *r)
{
	struct fid *fid, *to;
	struct name before, after;
	int rc = get_fid(r, &fid), rc2 = get_fid(r, &to), parent;

	get_name(r, &after);
	if (r->bad)
		return -EINVAL;
	if (rc || rc2)
		return -EBADF;
	if (!r->wait)
		return -EAGAIN;
	rc = path_parent(r->share, fid->fd, &parent, &before);
	if (rc)
		return rc;
	rc = renameat(parent, before.text, to->fd, after.text) ? -errno : 0;
	close(parent);
	return rc;
}

int serve_unlinkat(struct request *r)
{
	struct fid *fid;
	struct name name;
	int rc = get_fid(r, &fid);
	uint32_t flags;

	get_name(r, &name);
	flags = (uint32_t)get(r, 4);
	if (r->bad || flags & ~(uint32_t)AT_REMOVEDIR)
		return -EINVAL;
	if (rc)
		return rc;
	if (!r->wait)
		return -EAGAIN;
	return unlinkat(fid->fd, name.text, (int)flags) ? -errno : 0;
}

static int remove_fid(struct share *share, const struct fid *fid)
{
	struct name name;
	struct stat st;
	int parent, rc = path_parent(share, fid->fd, &parent, &name);

	if (rc)
		return rc;
	rc = fstat(fid->fd, &st) || unlinkat(parent, name.text, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) ? -errno : 0;
	close(parent);
	return rc;
}

/* The fid is gone, whatever becomes of the file. */
int serve_remove(struct request *r)
{
	struct fid *fid;
	int rc = get_fid(r, &fid);

	if (r->bad)
		return -EINVAL;
	if (rc)
		return rc;
	if (!r->wait)
		return -EAGAIN;
	rc = remove_fid(r->share, fid);
	fid_remove(r->share, fid);
	return rc;
}
