/*
 * Ways through the folder. A name is looked up below a descriptor, without following it; that is all there is, so that there is no way out. Where something is now is asked
 * of the kernel, and believed only when the way from the root leads to the same thing.
 */
#define _GNU_SOURCE
#include "share/private.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct fd_path fd_path(int fd)
{
	struct fd_path path;

	snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", fd);
	return path;
}

int path_step(int folder, const char *name)
{
	int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int path_clone(const struct fid *fid)
{
	int fd = fid->kind == FID_PATH ? fcntl(fid->fd, F_DUPFD_CLOEXEC, 3)
				       : open(fd_path(fid->fd).text, O_PATH | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int path_open(int fd, int flags)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISLNK(st.st_mode))
		return -ELOOP;
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return -ENXIO;
	fd = open(fd_path(fd).text, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static bool same_thing(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* What the kernel calls it; 0 or -errno. */
static int path_of(int fd, char *path, size_t size)
{
	ssize_t length = readlink(fd_path(fd).text, path, size);

	if (length < 0)
		return -errno;
	if ((size_t)length == size)
		return -ENAMETOOLONG;
	path[length] = 0;
	return 0;
}

/* Below the root, from name to name, up to the last one: a descriptor of what that is in, or -errno. */
static int walk_to_last(struct share *share, char *path, struct name *name)
{
	char *rest, *next = strtok_r(path, "/", &rest), *last;
	int at = openat(share->root, ".", O_PATH | O_CLOEXEC), below;

	if (at < 0)
		return -errno;
	while ((last = next) && (next = strtok_r(NULL, "/", &rest))) {
		below = path_step(at, last);
		close(at);
		if (below < 0)
			return below;
		at = below;
	}
	if (!last || strlen(last) > NAME_MAX) {
		close(at);
		return -ENOENT;
	}
	strcpy(name->text, last);
	return at;
}

int path_parent(struct share *share, int fd, int *parent, struct name *name)
{
	char root[PATH_MAX], path[PATH_MAX];
	struct stat is, there, top;
	size_t length;
	int rc = path_of(share->root, root, sizeof(root));

	*parent = -1;
	if (!rc)
		rc = path_of(fd, path, sizeof(path));
	if (rc)
		return rc;
	if (fstat(fd, &is) || fstat(share->root, &top))
		return -errno;
	if (same_thing(&is, &top))
		return -EBUSY;
	length = strcmp(root, "/") ? strlen(root) : 0;
	if (strncmp(path, root, length) || path[length] != '/')
		return -ENOENT;
	*parent = walk_to_last(share, path + length, name);
	if (*parent < 0)
		return *parent;
	if (!fstatat(*parent, name->text, &there, AT_SYMLINK_NOFOLLOW) && same_thing(&is, &there))
		return 0;
	close(*parent);
	return -ENOENT;
}

int path_up(struct share *share, int folder)
{
	struct name name;
	struct stat st;
	int parent, rc;

	if (fstat(folder, &st))
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	rc = path_parent(share, folder, &parent, &name);
	if (rc == -EBUSY)
		return path_step(share->root, ".");
	return rc ? rc : parent;
}
