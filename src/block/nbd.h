/*
 * What the two files of the NBD client share: a disk of a server's. The protocol is doc/proto.md of the NBD project.
 */
#ifndef DOPPEL_BLOCK_NBD_H
#define DOPPEL_BLOCK_NBD_H

#include "block/private.h"

/* Of an export. */
#define NBD_READ_ONLY	 BIT(1)
#define NBD_FLUSH	 BIT(2)
#define NBD_FUA		 BIT(3)
#define NBD_TRIM	 BIT(5)
#define NBD_WRITE_ZEROES BIT(6)

struct nbd_address {
	char *path;	   /* of a Unix socket, or NULL */
	char *host, *port; /* if it is none */
	char *export;
};

struct nbd_export {
	uint64_t size;
	uint16_t flags;
	bool structured;      /* replies in chunks */
	uint32_t least, most; /* bytes of a request */
};

/* nbd_connect.c: "nbd:unix:PATH[:exportname=NAME]", "nbd:HOST:PORT[:exportname=NAME]", "nbd://HOST[:PORT]/NAME", "nbd+unix:///NAME?socket=PATH" */
int nbd_parse(const char *uri, struct nbd_address *, struct error *);
void nbd_address_free(struct nbd_address *);
/* A connection that is ready for requests: its descriptor, or -errno with a sentence. */
int nbd_connect(const struct nbd_address *, struct nbd_export *, unsigned patience, struct error *);
/* Seconds without a byte of a server from which something is wanted: -ETIMEDOUT. */
void nbd_set_patience(int fd, unsigned seconds);
/* All of it; 0 or -errno. */
int nbd_receive(int fd, void *to, size_t size);
int nbd_send(int fd, const void *from, size_t size);

#endif
