/*
 * Where machines with names are found: $XDG_RUNTIME_DIR/doppel/NAME/, or /tmp/doppel-UID/NAME/ where there is no such variable; for this user alone. Who has locked
 * NAME/lock is the machine. The kernel takes the lock from a process that was killed; what it left is removed by whoever looks next.
 */
#define _GNU_SOURCE /* O_PATH, scandirat */
#include "control/private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK "lock"

static const char *const files[] = { CONTROL_QMP, CONTROL_GDB, LOCK };

/* Another user's, or open to others: not to be trusted. */
static int check_folder(int fd, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return error_set_errno(err, errno, "cannot examine '%s'", path);
	if (st.st_uid != geteuid() || (st.st_mode & 077))
		return error_set(err, EPERM, "'%s' belongs to user %u with mode %03o; expected user %u and 700", path,
				 st.st_uid, st.st_mode & 0777, geteuid());
	return 0;
}

static void print_path(char *path, size_t size)
{
	const char *run = getenv("XDG_RUNTIME_DIR");

	if (run && *run == '/')
		snprintf(path, size, "%s/doppel", run);
	else
		snprintf(path, size, "/tmp/doppel-%u", geteuid());
}

/* The folder of all machines. A descriptor, -ENOENT if there is none and it is not to be made, or another -errno. */
static int open_all(bool make, struct error *err)
{
	char path[4096];
	int fd, rc;

	print_path(path, sizeof(path));
	if (make && mkdir(path, 0700) && errno != EEXIST)
		return error_set_errno(err, errno, "cannot make the folder '%s' for machines with names", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot open '%s'", path);
	rc = check_folder(fd, path, err);
	if (rc) {
		close(fd);
		return rc;
	}
	return fd;
}

static void close_folder(struct folder *folder)
{
	if (folder->lock >= 0)
		close(folder->lock);
	if (folder->fd >= 0)
		close(folder->fd);
	if (folder->all >= 0)
		close(folder->all);
	*folder = (struct folder){ .all = -1, .fd = -1, .lock = -1 };
}

/* Does the name still lead to the folder that fd is? */
static bool is_there(const struct folder *folder)
{
	struct stat mine, there;

	return !fstat(folder->fd, &mine) && !fstatat(folder->all, folder->name, &there, AT_SYMLINK_NOFOLLOW) &&
	       mine.st_ino == there.st_ino && mine.st_dev == there.st_dev;
}

/* -EWOULDBLOCK: a machine has it; -ESTALE: it went away meanwhile. */
static int lock(struct folder *folder, bool make)
{
	folder->fd = openat(folder->all, folder->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder->fd < 0)
		return -errno;
	folder->lock = openat(folder->fd, LOCK, O_RDWR | O_NOFOLLOW | O_CLOEXEC | (make ? O_CREAT : 0), 0600);
	if (folder->lock < 0)
		return -errno;
	if (flock(folder->lock, LOCK_EX | LOCK_NB))
		return -errno;
	return is_there(folder) ? 0 : -ESTALE;
}

static void unlock(struct folder *folder)
{
	if (folder->lock >= 0)
		close(folder->lock);
	if (folder->fd >= 0)
		close(folder->fd);
	folder->lock = folder->fd = -1;
}

int folder_claim(struct folder *folder, const char *name, struct error *err)
{
	int rc;

	*folder = (struct folder){ .fd = -1, .lock = -1, .name = name };
	folder->all = open_all(true, err);
	if (folder->all < 0)
		return folder->all;
	/* Who removes a dead one's folder may come between. */
	do {
		unlock(folder);
		rc = mkdirat(folder->all, name, 0700) && errno != EEXIST ? -errno : lock(folder, true);
	} while (rc == -ESTALE || rc == -ENOENT);
	if (rc) {
		close_folder(folder);
		return rc == -EWOULDBLOCK ? error_set(err, EEXIST, "a machine with the name '%s' runs", name)
					  : error_set_errno(err, -rc, "cannot make the folder of machine '%s'", name);
	}
	(void)unlinkat(folder->fd, CONTROL_QMP, 0);
	(void)unlinkat(folder->fd, CONTROL_GDB, 0);
	return 0;
}

void folder_remove(struct folder *folder)
{
	if (folder->fd >= 0) {
		for (unsigned n = 0; n < ARRAY_SIZE(files); n++)
			(void)unlinkat(folder->fd, files[n], 0);
		if (is_there(folder))
			(void)unlinkat(folder->all, folder->name, AT_REMOVEDIR);
	}
	close_folder(folder);
}

void folder_path(const struct folder *folder, const char *file, char path[FOLDER_PATH_SIZE])
{
	snprintf(path, FOLDER_PATH_SIZE, "/proc/self/fd/%d/%s", folder->fd, file);
}

/* ---- the clients' side ---- */

/* True: a machine has it. What a dead one left is gone then. */
static bool is_alive(int all, const char *name)
{
	struct folder folder = { .all = dup(all), .fd = -1, .lock = -1, .name = name };
	int rc = lock(&folder, false);

	if (!rc || rc == -ENOENT)
		folder_remove(&folder);
	close_folder(&folder);
	return rc == -EWOULDBLOCK;
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

int control_each(void (*fn)(void *opaque, const char *name), void *opaque, struct error *err)
{
	int all = open_all(false, err), count;
	struct dirent **entries = NULL;

	if (all < 0)
		return all == -ENOENT ? 0 : all;
	count = scandirat(all, ".", &entries, is_visible, alphasort);
	for (int n = 0; n < count; n++) {
		if (is_alive(all, entries[n]->d_name))
			fn(opaque, entries[n]->d_name);
		free(entries[n]);
	}
	free(entries);
	close(all);
	return count < 0 ? error_set_errno(err, errno, "cannot read the folder of machines") : 0;
}

int control_connect(const char *name, const char *file, struct error *err)
{
	struct folder folder = { .fd = -1, .lock = -1, .name = name };
	char path[FOLDER_PATH_SIZE];
	int fd = -ENOENT;

	folder.all = strchr(name, '/') || name[0] == '.' ? -1 : open_all(false, NULL);
	if (folder.all >= 0 && is_alive(folder.all, name))
		folder.fd = openat(folder.all, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder.fd >= 0) {
		folder_path(&folder, file, path);
		fd = host_unix_connect(path, NULL);
	}
	close_folder(&folder);
	if (fd >= 0 && host_set_nonblocking(fd, false) == 0)
		return fd;
	return error_set(err, ENOENT, "no machine '%s' runs; 'doppel list' shows those that do", name);
}
