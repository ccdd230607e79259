/*
 * Extended attributes: user.* alone, without those in which mapped security keeps what is its own. A fid stands for the value of one, or for the list of all.
 */
#include "share/private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#define VALUE_OFFSET 23u /* in Twrite */

static bool is_guests(const char *name) { return !strncmp(name, "user.", 5) && strncmp(name, "user.virtfs.", 12) != 0; }

/* The names without those that are not the guest's; returns how many bytes are left. */
static ssize_t filter(char *names, ssize_t size)
{
	ssize_t kept = 0;

	for (ssize_t at = 0, length; at < size; at += length) {
		length = (ssize_t)strlen(names + at) + 1;
		if (!is_guests(names + at))
			continue;
		memmove(names + kept, names + at, (size_t)length);
		kept += length;
	}
	return kept;
}

/* name "": the list. Its size, or -errno; *value is the caller's to free. */
static ssize_t fetch(int fd, const char *name, uint8_t **value)
{
	ssize_t size;

	if (*name && !is_guests(name))
		return -EOPNOTSUPP;
	*value = malloc(XATTR_SIZE_MOST);
	if (!*value)
		return -ENOMEM;
	size = *name ? getxattr(fd_path(fd).text, name, *value, XATTR_SIZE_MOST)
		     : listxattr(fd_path(fd).text, (char *)*value, XATTR_SIZE_MOST);
	if (size < 0)
		return -errno;
	return *name ? size : filter((char *)*value, size);
}

static int keep(struct request *r, uint32_t id, uint32_t uid, uint8_t *value, size_t size)
{
	struct fid *made;
	int rc = r->share->xattr_total + size > XATTR_TOTAL_MOST ? -ENOSPC : fid_add(r->share, id, uid, -1, &made);
	uint8_t *smaller = rc ? NULL : realloc(value, size + 1);

	if (rc || !smaller) {
		free(value);
		if (!rc)
			fid_remove(r->share, made);
		return rc ? rc : -ENOMEM;
	}
	made->kind = FID_XATTR_READ;
	made->data = smaller;
	made->size = size;
	r->share->xattr_total += size;
	put(r, size, 8);
	return 0;
}

int serve_xattrwalk(struct request *r)
{
	char name[NAME_MAX + 1];
	uint8_t *value = NULL;
	struct fid *fid;
	uint32_t id;
	ssize_t size;
	int rc = get_fid(r, &fid);

	id = (uint32_t)get(r, 4);
	get_string(r, name, sizeof(name));
	if (r->bad)
		return -EINVAL;
	if (rc)
		return rc;
	size = fetch(fid->fd, name, &value);
	if (size >= 0)
		return keep(r, id, fid->uid, value, (size_t)size);
	free(value);
	return (int)size;
}

int serve_xattrcreate(struct request *r)
{
	struct name name;
	struct fid *fid;
	int rc = get_fid(r, &fid);
	uint64_t size;
	uint32_t flags;

	get_name(r, &name);
	size = get(r, 8);
	flags = (uint32_t)get(r, 4);
	if (r->bad || flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE) || (!rc && fid->kind == FID_OPEN))
		return -EINVAL;
	if (rc)
		return rc;
	if (!is_guests(name.text))
		return -EOPNOTSUPP;
	if (size > XATTR_SIZE_MOST || r->share->xattr_total + size > XATTR_TOTAL_MOST)
		return -ENOSPC;
	fid->name = strdup(name.text);
	fid->data = malloc(size + 1);
	if (!fid->name || !fid->data) {
		free(fid->name);
		free(fid->data);
		fid->name = NULL;
		fid->data = NULL;
		return -ENOMEM;
	}
	fid->kind = FID_XATTR_WRITE;
	fid->size = size;
	fid->flags = (int)flags;
	r->share->xattr_total += size;
	return 0;
}

int xattr_read(struct request *r, const struct fid *fid, uint64_t offset, uint32_t count)
{
	size_t left = offset < fid->size ? fid->size - offset : 0, part = MIN(count, left);

	put(r, part, 4);
	if (part)
		pieces_copy(r->message->reply, r->message->reply_count, DATA_OFFSET, fid->data + offset, part, true);
	r->data_size = part;
	return 0;
}

/* One piece after the other. */
int xattr_write(struct request *r, struct fid *fid, uint64_t offset, uint32_t count)
{
	if (offset != fid->done || count > fid->size - fid->done)
		return -EINVAL;
	fid->done += pieces_copy(r->message->request, r->message->request_count, VALUE_OFFSET, fid->data + offset,
				 count, false);
	put(r, count, 4);
	return 0;
}

/* An attribute of no bytes is one that is removed: clients have no other way to say so. */
int xattr_clunk(struct fid *fid)
{
	if (fid->done != fid->size)
		return -EINVAL;
	if (!fid->size)
		return removexattr(fd_path(fid->fd).text, fid->name) ? -errno : 0;
	return setxattr(fd_path(fid->fd).text, fid->name, fid->data, fid->size, fid->flags) ? -errno : 0;
}
