/*
 * Requests as they come: checked, given to whom they are for, answered. The session's own are here: version, attach, walk, clunk, flush; and locks, which are
 * the guest's own affair: whatever it asks for it has, since nobody else could hold one.
 */
#define _GNU_SOURCE
#include "share/private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/xattr.h>
#include <unistd.h>

#define VERSION	      "9P2000.L"
#define ERROR_SIZE    (HEADER_SIZE + 4u)
#define LOCK_SUCCESS  0
#define LOCK_UNLOCKED 2
/* Open files: of what the process may have, what is left for others, and how many shares there may be. */
#define FILES_FOR_OTHERS 256u
#define SHARES		 8u
#define FIDS_MOST	 65536u
#define FIDS_LEAST	 16u

/* ---- the session ---- */

int serve_version(struct request *r)
{
	char version[32];
	uint32_t size = (uint32_t)get(r, 4);

	get_string(r, version, sizeof(version));
	if (r->bad)
		return -EINVAL;
	if (size < MESSAGE_LEAST)
		return -EMSGSIZE;
	share_reset(r->share);
	if (!strcmp(version, VERSION))
		r->share->message_size = MIN(size, SHARE_MESSAGE_MOST);
	else
		strcpy(version, "unknown");
	put(r, MIN(size, SHARE_MESSAGE_MOST), 4);
	put(r, strlen(version), 2);
	put_bytes(r, version, strlen(version));
	return 0;
}

int serve_attach(struct request *r)
{
	char user[NAME_MAX + 1], tree[PATH_MAX];
	uint32_t id = (uint32_t)get(r, 4), auth = (uint32_t)get(r, 4), uid;
	struct stat st;
	int fd, rc;

	get_string(r, user, sizeof(user));
	get_string(r, tree, sizeof(tree)); /* there is one: its name does not matter */
	uid = (uint32_t)get(r, 4);
	if (r->bad || auth != NO_FID)
		return -EINVAL;
	rc = attr_stat(r->share, r->share->root, &st);
	if (rc)
		return rc;
	fd = path_step(r->share->root, ".");
	if (fd < 0)
		return fd;
	rc = fid_add(r->share, id, uid == NO_FID ? 0 : uid, fd, NULL);
	if (!rc)
		put_qid(r, &st);
	return rc;
}

/* One name on: *at is replaced, and closed where that fails. */
static int walk_name(struct request *r, int *at)
{
	char name[NAME_MAX + 1];
	struct stat st;
	int next, rc;

	get_string(r, name, sizeof(name));
	if (!*name || strchr(name, '/') || !strcmp(name, "."))
		r->bad = true;
	if (r->bad)
		next = -EINVAL;
	else
		next = strcmp(name, "..") ? path_step(*at, name) : path_up(r->share, *at);
	close(*at);
	*at = next;
	if (next < 0)
		return next;
	rc = attr_stat(r->share, next, &st);
	if (rc) {
		close(next);
		return rc;
	}
	put_qid(r, &st);
	return 0;
}

static int walked(struct share *share, struct fid *fid, uint32_t id, int at)
{
	if (id != fid->id)
		return fid_add(share, id, fid->uid, at, NULL);
	close(fid->fd);
	fid->fd = at;
	return 0;
}

int serve_walk(struct request *r)
{
	struct fid *fid;
	int rc = get_fid(r, &fid), at;
	uint32_t id = (uint32_t)get(r, 4);
	uint16_t count = (uint16_t)get(r, 2), done;
	size_t count_at = r->reply_at;

	if (r->bad || count > WALK_MOST || (!rc && id == fid->id && fid->kind == FID_OPEN))
		return -EINVAL;
	if (rc)
		return rc;
	if (id != fid->id && fid_find(r->share, id))
		return -EINVAL;
	at = path_clone(fid);
	if (at < 0)
		return at;
	put(r, 0, 2);
	for (done = 0; done < count; done++) {
		rc = walk_name(r, &at);
		if (rc)
			break;
	}
	memcpy(r->share->reply + count_at, &done, sizeof(done));
	if (rc)
		return done && !r->bad ? 0 : rc; /* a part of the way: what there is of it, and no fid */
	return walked(r->share, fid, id, at);
}

int serve_clunk(struct request *r)
{
	struct fid *fid = fid_find(r->share, (uint32_t)get(r, 4));
	int rc = 0;

	if (r->bad)
		return -EINVAL;
	if (!fid)
		return -EBADF;
	if (fid->kind == FID_XATTR_WRITE)
		rc = xattr_clunk(fid);
	fid_remove(r->share, fid);
	return rc;
}

/* Requests are served in their order: what is to be flushed has been answered. */
int serve_flush(struct request *r)
{
	get(r, 2);
	return r->bad ? -EINVAL : 0;
}

int serve_lock(struct request *r)
{
	char client[NAME_MAX + 1];
	struct fid *fid;
	int rc = get_fid(r, &fid);

	get(r, 1 + 4); /* type, flags */
	get(r, 8);     /* start */
	get(r, 8);     /* length */
	get(r, 4);     /* process */
	get_string(r, client, sizeof(client));
	if (r->bad)
		return -EINVAL;
	if (!rc)
		put(r, LOCK_SUCCESS, 1);
	return rc;
}

int serve_getlock(struct request *r)
{
	char client[NAME_MAX + 1];
	uint64_t start, length;
	uint32_t process;
	struct fid *fid;
	int rc = get_fid(r, &fid);

	get(r, 1);
	start = get(r, 8);
	length = get(r, 8);
	process = (uint32_t)get(r, 4);
	get_string(r, client, sizeof(client));
	if (r->bad)
		return -EINVAL;
	if (rc)
		return rc;
	put(r, LOCK_UNLOCKED, 1);
	put(r, start, 8);
	put(r, length, 8);
	put(r, process, 4);
	put(r, strlen(client), 2);
	put_bytes(r, client, strlen(client));
	return 0;
}

/* ---- all of them ---- */

static int (*const functions[256])(struct request *) = {
#define _(type, name, changes) [type] = serve_##name,
	REQUESTS(_)
#undef _
};

static const bool changes_something[256] = {
#define _(type, name, changes) [type] = changes,
	REQUESTS(_)
#undef _
};

static int serve(struct request *r, uint8_t type)
{
	const struct share *share = r->share;

	if (!functions[type])
		return -EOPNOTSUPP;
	if (!share->message_size && functions[type] != serve_version)
		return -EPROTO;
	if (r->size > (share->message_size ? share->message_size : MESSAGE_LEAST))
		return -EMSGSIZE;
	return changes_something[type] && share->readonly ? -EROFS : functions[type](r);
}

static void set_header(uint8_t *reply, size_t size, unsigned type, uint16_t tag)
{
	store_le32(reply, (uint32_t)size);
	reply[4] = (uint8_t)type;
	store_le16(reply + 5, tag);
}

static size_t copy_out(const struct share_message *m, const void *reply, size_t size)
{
	return pieces_copy(m->reply, m->reply_count, 0, (void *)reply, size, true);
}

static int refuse(const struct share_message *m, uint16_t tag, int code, size_t *written)
{
	uint8_t reply[ERROR_SIZE];

	set_header(reply, ERROR_SIZE, RLERROR, tag);
	store_le32(reply + HEADER_SIZE, (uint32_t)code);
	*written = copy_out(m, reply, ERROR_SIZE);
	return 0;
}

static bool has_no_reply(const struct share_message *m)
{
	return m->request_size < HEADER_SIZE || m->reply_size < ERROR_SIZE;
}

int share_refuse(const struct share_message *m, int code, size_t *written)
{
	uint8_t header[HEADER_SIZE];

	if (has_no_reply(m))
		return -EPROTO;
	pieces_copy(m->request, m->request_count, 0, header, HEADER_SIZE, false);
	return refuse(m, load_le16(header + 5), code, written);
}

int share_serve(struct share *share, const struct share_message *m, bool wait, size_t *written)
{
	struct request r = { .share = share, .message = m, .at = HEADER_SIZE, .reply_at = HEADER_SIZE, .wait = wait };
	uint16_t tag;
	int rc;

	if (has_no_reply(m))
		return -EPROTO;
	r.have =
		pieces_copy(m->request, m->request_count, 0, share->request, MIN(m->request_size, REQUEST_MOST), false);
	r.size = load_le32(share->request);
	tag = load_le16(share->request + 5);
	if (r.size < HEADER_SIZE || r.size > m->request_size)
		return refuse(m, tag, EPROTO, written);
	r.have = MIN(r.have, r.size);
	r.room = (uint32_t)MIN(m->reply_size, share->message_size ? share->message_size : MESSAGE_LEAST);
	rc = serve(&r, share->request[4]);
	if (rc == -EAGAIN && !wait)
		return rc;
	if (!rc && r.reply_at + r.data_size > r.room)
		rc = -EMSGSIZE;
	if (rc)
		return refuse(m, tag, -rc, written);
	set_header(share->reply, r.reply_at + r.data_size, share->request[4] + 1u, tag);
	*written = copy_out(m, share->reply, r.reply_at) + r.data_size;
	return 0;
}

/* ---- life ---- */

void share_reset(struct share *share)
{
	fids_remove_all(share);
	share->message_size = 0;
}

unsigned share_fid_count(const struct share *share) { return share->fid_count; }

/* Clients that cache keep many files: as many as the host's administrator lets this process have. */
static unsigned fids_that_fit(void)
{
	struct rlimit limit;
	uint64_t most;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return FIDS_LEAST;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		getrlimit(RLIMIT_NOFILE, &limit);
	most = limit.rlim_cur > FILES_FOR_OTHERS ? (limit.rlim_cur - FILES_FOR_OTHERS) / SHARES : 0;
	return (unsigned)MAX(MIN(most, FIDS_MOST), FIDS_LEAST);
}

static int check_mapped(const struct share *share, const char *folder, struct error *err)
{
	char value[8];

	if (share->security != SHARE_SECURITY_MAPPED ||
	    getxattr(fd_path(share->root).text, "user.virtfs.uid", value, sizeof(value)) >= 0 || errno != EOPNOTSUPP)
		return 0;
	return error_set(err, EOPNOTSUPP,
			 "share '%s': its file system has no user attributes, which security=mapped needs; expected "
			 "another folder, or security=none",
			 folder);
}

static int open_root(struct share *share, const char *folder, struct error *err)
{
	struct stat st;
	char path[2];

	share->root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (share->root < 0 || fstat(share->root, &st))
		return error_set_errno(err, errno, "share '%s': open the folder", folder);
	if (readlink(fd_path(share->root).text, path, sizeof(path)) < 0)
		return error_set_errno(err, errno, "share '%s': /proc is needed", folder);
	share->device = st.st_dev;
	return check_mapped(share, folder, err);
}

struct share *share_open(const struct share_options *options, struct error *err)
{
	struct share *share = calloc(1, sizeof(*share));

	if (!share) {
		error_set_errno(err, ENOMEM, "share '%s'", options->folder);
		return NULL;
	}
	for (unsigned n = 0; n < FID_BUCKETS; n++)
		list_init(&share->fids[n]);
	share->security = options->security;
	share->readonly = options->readonly;
	share->fids_most = options->fids ? options->fids : fids_that_fit();
	if (open_root(share, options->folder, err)) {
		share_close(share);
		return NULL;
	}
	return share;
}

void share_close(struct share *share)
{
	if (!share)
		return;
	fids_remove_all(share);
	if (share->root >= 0)
		close(share->root);
	free(share);
}
