/*
 * fids: the numbers by which a client names what it has walked to. Each is one descriptor of the host's, or the value of an attribute, and their number is bounded.
 */
#include "share/private.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static struct list *bucket(struct share *share, uint32_t id) { return &share->fids[id % FID_BUCKETS]; }

struct fid *fid_find(struct share *share, uint32_t id)
{
	struct fid *fid;

	list_for_each (fid, bucket(share, id), node)
		if (fid->id == id)
			return fid;
	return NULL;
}

int get_fid(struct request *r, struct fid **fid)
{
	*fid = fid_find(r->share, (uint32_t)get(r, 4));
	return !*fid || (*fid)->kind >= FID_XATTR_READ ? -EBADF : 0;
}

static int check_room(struct share *share, uint32_t id)
{
	if (id == NO_FID || fid_find(share, id))
		return -EINVAL;
	return share->fid_count < share->fids_most ? 0 : -ENFILE;
}

int fid_add(struct share *share, uint32_t id, uint32_t uid, int fd, struct fid **made)
{
	struct fid *fid = NULL;
	int rc = check_room(share, id);

	if (!rc) {
		fid = calloc(1, sizeof(*fid));
		rc = fid ? 0 : -ENOMEM;
	}
	if (rc) {
		if (fd >= 0)
			close(fd);
		return rc;
	}
	fid->id = id;
	fid->uid = uid;
	fid->fd = fd;
	list_append(bucket(share, id), &fid->node);
	share->fid_count++;
	if (made)
		*made = fid;
	return 0;
}

void fid_remove(struct share *share, struct fid *fid)
{
	list_remove(&fid->node);
	share->fid_count--;
	if (fid->fd >= 0)
		close(fid->fd);
	if (fid->kind >= FID_XATTR_READ)
		share->xattr_total -= fid->size;
	free(fid->name);
	free(fid->data);
	free(fid);
}

void fids_remove_all(struct share *share)
{
	struct fid *fid, *next;

	for (unsigned n = 0; n < FID_BUCKETS; n++)
		list_for_each_safe (fid, next, &share->fids[n], node)
			fid_remove(share, fid);
}
