/* What the files of share/ know of each other. */
#ifndef DOPPEL_SHARE_PRIVATE_H
#define DOPPEL_SHARE_PRIVATE_H

#include "share/share.h"

#include <limits.h>
#include <sys/stat.h>
#include <sys/types.h>

#define HEADER_SIZE	 7u		    /* size[4] type[1] tag[2] */
#define REQUEST_MOST	 8192u		    /* bytes of a request, but for data that is written */
#define REPLY_MOST	 (64u << 10)	    /* bytes of a reply, but for data that is read */
#define DATA_OFFSET	 (HEADER_SIZE + 4u) /* of Rread's data: behind its count */
#define MESSAGE_LEAST	 4096u
#define XATTR_SIZE_MOST	 (64u << 10) /* bytes of an attribute: Linux' own bound */
#define XATTR_TOTAL_MOST (1u << 20)  /* of all that are being read and written */
#define PIECES_MOST	 1024u	     /* of a message: what preadv() takes */
#define NO_FID		 0xffffffffu
#define ENTRIES_SIZE	 (32u << 10) /* bytes of a folder that are read at once */
#define IN_LINE_MOST	 (64u << 10) /* bytes of data: more may keep one waiting */
#define WALK_MOST	 16u
#define FID_BUCKETS	 1024u
#define OTHER_DEVICES	 254u

/* Types of requests; a reply's is one more. _(type, name, changes something) */
#define REQUESTS(_)                                                                                                    \
	_(8, statfs, 0)                                                                                                \
	_(12, lopen, 0) /* says no by itself, to writing */                                                            \
	_(14, lcreate, 1)                                                                                              \
	_(16, symlink, 1)                                                                                              \
	_(18, mknod, 1)                                                                                                \
	_(20, rename, 1)                                                                                               \
	_(22, readlink, 0)                                                                                             \
	_(24, getattr, 0)                                                                                              \
	_(26, setattr, 1)                                                                                              \
	_(30, xattrwalk, 0)                                                                                            \
	_(32, xattrcreate, 1)                                                                                          \
	_(40, readdir, 0)                                                                                              \
	_(50, fsync, 0)                                                                                                \
	_(52, lock, 0)                                                                                                 \
	_(54, getlock, 0)                                                                                              \
	_(70, link, 1)                                                                                                 \
	_(72, mkdir, 1)                                                                                                \
	_(74, renameat, 1)                                                                                             \
	_(76, unlinkat, 1)                                                                                             \
	_(100, version, 0)                                                                                             \
	_(104, attach, 0)                                                                                              \
	_(108, flush, 0)                                                                                               \
	_(110, walk, 0)                                                                                                \
	_(116, read, 0)                                                                                                \
	_(118, write, 1)                                                                                               \
	_(120, clunk, 0)                                                                                               \
	_(122, remove, 1)

#define RLERROR 7u

enum fid_kind {
	FID_PATH,	 /* O_PATH */
	FID_OPEN,	 /* by lopen or lcreate */
	FID_XATTR_READ,	 /* data, size */
	FID_XATTR_WRITE, /* done of size bytes of data are there; they are set when it is clunked */
};

struct fid {
	struct list node;
	uint32_t id, uid; /* uid: of who attached, for what it makes */
	enum fid_kind kind;
	int fd; /* -1: of an attribute that is read */
	char *name;
	uint8_t *data;
	size_t size, done;
	int flags; /* of open(2) or setxattr(2) */
};

struct share {
	int root;
	dev_t device; /* of the root */
	enum share_security security;
	bool readonly;
	uint32_t message_size; /* 0: no version was agreed on yet */
	unsigned fid_count, fids_most;
	size_t xattr_total;
	struct list fids[FID_BUCKETS];
	dev_t others
		[OTHER_DEVICES]; /* devices met in the folder; the first has 1 in the uppermost byte of its inodes' numbers */
	unsigned other_count;
	uint8_t request[REQUEST_MOST], reply[REPLY_MOST];
	_Alignas(8) uint8_t entries[ENTRIES_SIZE]; /* as getdents64(2) gives them */
};

/* One request being served. Numbers and names are taken from it one after the other; what is taken beyond its end is 0 or "", and bad set. */
struct request {
	struct share *share;
	const struct share_message *message;
	uint32_t size; /* of all of it */
	uint32_t room; /* for the reply */
	size_t at, have;
	size_t reply_at;
	size_t data_size; /* that went to the reply's memory, at DATA_OFFSET */
	bool bad, wait;
};

struct name {
	char text[NAME_MAX + 1];
};

/* ---- message.c ---- */

uint64_t get(struct request *, unsigned size);
/* A name in a folder: else bad is set. */
void get_name(struct request *, struct name *);
/* Any string that fits; else bad is set. Returns its length. */
size_t get_string(struct request *, char *text, size_t size);
void put(struct request *, uint64_t value, unsigned size);
void put_bytes(struct request *, const void *, size_t);
/* Pieces of [offset, offset + size) of the message; as much as there is. Returns their number. */
unsigned message_pieces(const struct iovec *, unsigned count, size_t offset, size_t size, struct iovec *to);
size_t pieces_copy(const struct iovec *, unsigned count, size_t offset, void *, size_t size, bool write);

/* ---- serve.c: one function a request: 0 or -errno; the reply's body is put ---- */

#define _(type, name, changes) int serve_##name(struct request *);
REQUESTS(_)
#undef _

/* ---- fid.c ---- */

/* NULL: there is none. */
struct fid *fid_find(struct share *, uint32_t id);
/* -EBADF or 0. fd of a fid that the request names next: not of an attribute's. */
int get_fid(struct request *, struct fid **);
/* The descriptor is the fid's, closed also where it fails: -EINVAL, the id is taken; -ENFILE, the client has all it may have; -ENOMEM. */
int fid_add(struct share *, uint32_t id, uint32_t uid, int fd, struct fid **);
void fid_remove(struct share *, struct fid *);
void fids_remove_all(struct share *);

/* ---- path.c ---- */

/* "/proc/self/fd/N", for calls that take no descriptor: what it is open for, whatever it is called now. */
struct fd_path {
	char text[32];
};
struct fd_path fd_path(int fd);
/* One name below a folder: an O_PATH descriptor of it, be it a symbolic link; or -errno. */
int path_step(int folder, const char *name);
/* The same, of what ".." is: the root's is itself. */
int path_up(struct share *, int folder);
/* The same, of the same thing again. */
int path_clone(const struct fid *);
/* Where it is in the folder now: a new O_PATH descriptor of its parent, and its name there. -ENOENT when it is nowhere, -EBUSY for the root. */
int path_parent(struct share *, int fd, int *parent, struct name *);
/* Opened anew; a plain file or a folder only, since devices, FIFOs and sockets are the guest's own affair. */
int path_open(int fd, int flags);

/* ---- attr.c ---- */

/* As the guest is to see it. 0 or -errno. */
int attr_stat(struct share *, int fd, struct stat *);
uint64_t attr_inode(struct share *, dev_t, ino_t);
void put_qid(struct request *, const struct stat *);
/* Of something new, or -errno of the look at it. */
int put_qid_of(struct request *, int folder, const char *name);
/* What a new thing has in user.virtfs.*: where security is mapped; else nothing. */
struct owner {
	uint32_t uid, gid, mode;
	uint64_t rdev;
};
int attr_set_owner(struct share *, int fd, const struct owner *);
/* The mode that the host's file gets. */
mode_t attr_host_mode(const struct share *, mode_t mode);

/* ---- xattr.c ---- */

/* Of fids of attributes. */
int xattr_read(struct request *, const struct fid *, uint64_t offset, uint32_t count);
int xattr_write(struct request *, struct fid *, uint64_t offset, uint32_t count);
/* What was written is set. */
int xattr_clunk(struct fid *);

#endif
