/*
 * share: a folder of the host for a guest: a server of 9P2000.L (the 9P of Plan 9 with Linux's messages, as in Linux' include/net/9p/9p.h and diod's protocol.md).
 * Request bytes in, reply bytes out; knows of no device.
 *
 * The guest never gets out of the folder. It has descriptors of what it has walked to (fids); names are looked up one at a time, below such a descriptor, and no
 * symbolic link is ever followed: what links say is the guest's business. So nothing that is renamed or replaced meanwhile leads anywhere else. What the host mounts
 * in the folder, or moves into it, is in it; what it moves out is reached by fids that were there before, but by no name.
 */
#ifndef DOPPEL_SHARE_SHARE_H
#define DOPPEL_SHARE_SHARE_H

#include "host/host.h"

#include <sys/uio.h>

/* Bytes of a message, the largest that a client gets. */
#define SHARE_MESSAGE_MOST (512u << 10)

struct share;

/* Who owns files, what mode they have, and which are special. */
enum share_security {
	SHARE_SECURITY_NONE,   /* as on the host: new files are the user's, owners stay, there are no devices */
	SHARE_SECURITY_MAPPED, /* what attributes user.virtfs.* of plain files say, as QEMU's mapped-xattr */
};

struct share_options {
	const char *folder;
	enum share_security security;
	bool readonly;
	unsigned fids; /* at most; 0: what the limit of open files lets */
};

/* NULL, and a sentence. */
struct share *share_open(const struct share_options *, struct error *);
void share_close(struct share *);

/* Host memory: the request, room for the reply; they are not in the same place. */
struct share_message {
	const struct iovec *request, *reply;
	unsigned request_count, reply_count; /* at most 1024 */
	size_t request_size, reply_size;
};

/*
 * Serves one request. One thread at a time. *written: bytes of the reply, which is an error's where the request is wrong or the host says no. wait false: what may keep
 * the caller waiting for a disk is not done, -EAGAIN, and nothing has happened. -EPROTO: it is so wrong that there is no reply.
 */
int share_serve(struct share *, const struct share_message *, bool wait, size_t *written);
/* A reply that the request failed. 0 or -EPROTO. */
int share_refuse(const struct share_message *, int code, size_t *written);
/* The client is gone: its fids are. */
void share_reset(struct share *);
/* What the client has, the folder itself among it. */
unsigned share_fid_count(const struct share *);

#endif
