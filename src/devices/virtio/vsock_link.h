/*
 * Inside virtio-vsock (virtio 1.2, 5.10): connections between programs of the guest's and Unix sockets of the host's, without queues. vsock.c is the device.
 *
 * A program of the host's connects to the socket PATH, sends "CONNECT PORT\n", and gets "OK PORT\n" when a program of the guest's has accepted. A program of the
 * guest's that connects to port P of the host is connected to the socket PATH_P.
 *
 * All under one lock, the caller's. Only the device's thread waits for sockets, opens and closes them: vsock_prepare(), vsock_ready(). What is said to the
 * driver follows from each connection's state, so that nothing is queued: its bits in `says`.
 */
#ifndef DOPPEL_DEVICES_VIRTIO_VSOCK_LINK_H
#define DOPPEL_DEVICES_VIRTIO_VSOCK_LINK_H

#include "base/base.h"
#include "host/host.h"

#include <poll.h>
#include <sys/uio.h>

#define VSOCK_HOST_CID	   2u
#define VSOCK_LINKS_MOST   512u
#define VSOCK_LINES_MOST   32u /* clients that have not sent their line yet: one more, and the first one is closed */
#define VSOCK_REPLIES_MOST 64u
#define VSOCK_BUFFER	   (128u << 10) /* bytes of the guest's that wait for a socket, for each connection */
#define VSOCK_LINE_MOST	   32u

/* In front of each packet, 5.10.6 */
struct vsock_header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags;
	uint32_t buf_alloc, fwd_cnt;
} __attribute__((packed));

#define VSOCK_TYPE_STREAM 1u

enum vsock_op {
	VSOCK_OP_INVALID,
	VSOCK_OP_REQUEST,
	VSOCK_OP_RESPONSE,
	VSOCK_OP_RST,
	VSOCK_OP_SHUTDOWN,
	VSOCK_OP_RW,
	VSOCK_OP_CREDIT_UPDATE,
	VSOCK_OP_CREDIT_REQUEST,
};

/* Of VSOCK_OP_SHUTDOWN: the sender will receive, or send, no more. */
#define VSOCK_NO_RECEIVE 1u
#define VSOCK_NO_SEND	 2u

enum vsock_state {
	VSOCK_LINE,	/* a client of the host's: its line is not whole */
	VSOCK_ASKED,	/* the guest is, or will be, asked to accept it */
	VSOCK_CONNECTS, /* the guest asks for a socket, which the thread is to connect to */
	VSOCK_CONNECTED,
	VSOCK_OVER, /* for the guest; it may have to be told, and what it sent may have to be written */
};

struct vsock_link {
	struct list node;
	enum vsock_state state;
	uint32_t host_port, guest_port;
	int fd;	       /* -1: none */
	uint32_t says; /* bits by enum vsock_op, that the driver is to be told */
	/* To the guest: bytes sent, and what it said of its buffer */
	uint32_t sent, guest_buffer, guest_taken;
	/* From it: bytes that came, that the socket took, and how many of these the guest knows of */
	uint32_t came, taken, told;
	uint8_t *waits; /* of VSOCK_BUFFER bytes, what waits is [first, end); NULL: nothing does */
	uint32_t first, end;
	uint32_t guest_flags; /* of its VSOCK_OP_SHUTDOWN */
	bool ended;	      /* the socket has nothing more to read */
	bool deaf;	      /* nor takes anything */
	bool shut;	      /* what the guest's VSOCK_NO_SEND means was done */
	bool readable;	      /* as far as is known */
	bool hung;	      /* poll() has nothing new to say */
	char line[VSOCK_LINE_MOST];
	unsigned line_size;
	struct pollfd *polled; /* between prepare and ready; NULL: it is not */
};

struct vsock_links {
	struct host_listener listener;
	uint64_t guest_cid;
	struct list links; /* what was served last at the end */
	unsigned count;
	uint32_t next_port;
	bool out_of_files; /* nobody is let in until somebody leaves */
	bool thread_wanted; /* something is to be connected, closed or waited for: the device wakes it, and clears this */
	struct vsock_header replies[VSOCK_REPLIES_MOST]; /* to what belongs to no connection */
	unsigned reply_first, reply_count;
};

/* Listens at the path. 0 or -errno. */
int vsock_open(struct vsock_links *, const char *path, uint64_t guest_cid, struct error *);
void vsock_close(struct vsock_links *);
/* The guest has forgotten all connections. */
void vsock_forget(struct vsock_links *);

/*
 * A packet of the guest's; its header was fetched, len bytes are there, behind `skip` bytes of the pieces. Only while vsock_hears(): each packet may need a reply
 * that has no connection.
 */
static inline bool vsock_hears(const struct vsock_links *l) { return l->reply_count < VSOCK_REPLIES_MOST; }
void vsock_hear(struct vsock_links *, const struct vsock_header *, const struct iovec *pieces, unsigned count,
		size_t skip);

/* Is there something to tell the guest? Data may turn out not to be there. */
bool vsock_has_words(const struct vsock_links *);
bool vsock_has_data(const struct vsock_links *);
/* The next one's header, without data; only while vsock_has_words(). */
struct vsock_header vsock_say(struct vsock_links *);
/* Bytes of some connection into the pieces, and their header; 0: there were none. */
size_t vsock_read(struct vsock_links *, struct vsock_header *, const struct iovec *pieces, unsigned count);

/* Sockets to be waited for, at most VSOCK_LINKS_MOST + 1. receives: the driver has room for data. */
unsigned vsock_prepare(struct vsock_links *, struct pollfd *, bool receives);
/* What came of it. started: there is a driver. */
void vsock_ready(struct vsock_links *, const struct pollfd *, bool started);
/* One that the guest asks for: a descriptor, or -errno, of the socket at the path is wanted, by vsock_connected(). NULL: none. */
#define VSOCK_PATH_SIZE 128
struct vsock_link *vsock_connects(struct vsock_links *, char path[VSOCK_PATH_SIZE]);
void vsock_connected(struct vsock_links *, struct vsock_link *, int fd);
/* Closes what is done with, and frees what the guest knows of. */
void vsock_reap(struct vsock_links *);

#endif
