/*
 * net: the host's side of a network card: the user network (a process of its own), a stream to another program, a tap device. Knows of Ethernet
 * frames, not of guests' memory nor of any card.
 *
 * Threads: a net has one of its own, which waits for the host; it makes all calls of struct net_ops, but for what net_look_out() says. Everybody else may call any
 * function from any thread, with locks of his own held, but for net_close(), which waits for that thread.
 */
#ifndef DOPPEL_NET_H
#define DOPPEL_NET_H

#include "base/base.h"
#include "host/host.h"

#include <sys/uio.h>

#define NET_MAC_SIZE  6
#define NET_FRAME_MIN 14	       /* bytes: the Ethernet header */
#define NET_FRAME_MAX (14 + 4 + 65535) /* header, VLAN tag, the largest IP packet */
#define NET_MTU_MIN   1280	       /* IPv6 asks for that */
#define NET_MTU_MAX   65520
#define NET_SPEC_HELP "user[,...], stream:unix:PATH, stream:tcp:HOST:PORT, tap:NAME, vhost-user:PATH or none"

/*
 * What is still to be done with a frame: the fields of struct virtio_net_hdr (virtio 1.2, 5.1.6), in the host's byte order. All zeros: nothing.
 * Of what a guest says here everything is checked.
 */
struct net_offload {
	uint8_t flags;	  /* NET_NEEDS_CHECKSUM, NET_CHECKSUM_GOOD */
	uint8_t gso_type; /* NET_GSO_...: to be cut into segments of gso_size bytes behind the headers */
	uint16_t hdr_len; /* of all headers; a hint, nobody relies on it */
	uint16_t gso_size;
	uint16_t csum_start; /* the sum from here to the end belongs, complemented, at csum_start + csum_offset */
	uint16_t csum_offset;
};
#define NET_NEEDS_CHECKSUM 1 /* VIRTIO_NET_HDR_F_NEEDS_CSUM */
#define NET_CHECKSUM_GOOD  2 /* VIRTIO_NET_HDR_F_DATA_VALID */
#define NET_GSO_NONE	   0
#define NET_GSO_TCP4	   1
#define NET_GSO_TCP6	   4
#define NET_GSO_ECN	   0x80 /* with one of the two: the first segment alone has CWR */

/* A frame on its way to the guest. */
struct net_frame {
	const uint8_t *data; /* may be memory that another process still writes: copy, do not parse */
	size_t size;	     /* NET_FRAME_MIN to NET_FRAME_MAX */
	struct net_offload offload;
};

struct net_ops {
	/*
	 * Frames came, in this order; returns how many were taken. The others are offered again after net_resume(); meanwhile the net reads
	 * nothing more. Their memory is the net's, and is gone when this returns.
	 */
	unsigned (*received)(void *opaque, const struct net_frame *, unsigned count);
	/* net_send() said -EAGAIN, and there is room again. */
	void (*writable)(void *opaque);
	/* The cable is in, or out. It is in when a net was opened, but for a stream that nobody has connected to. */
	void (*link)(void *opaque, bool up);
};

/* What a guest takes of offloads with the frames that it receives. */
#define NET_CAN_CHECKSUM BIT(0) /* NET_NEEDS_CHECKSUM, NET_CHECKSUM_GOOD */
#define NET_CAN_TCP4	 BIT(1) /* NET_GSO_TCP4, and frames larger than the MTU with that */
#define NET_CAN_TCP6	 BIT(2)
#define NET_CAN_ECN	 BIT(3)

struct net;

/*
 * spec: KIND[:WHERE][,OPTION=VALUE...], NET_SPEC_HELP; docs/network.md has the options. NULL with a sentence that names the option, its value and what was expected; or
 * the port that is taken, and who has it. Files and ports are open when this returns.
 */
struct net *net_open(const char *spec, struct error *);
/* The spec alone, nothing is opened: 0 or -EINVAL. */
int net_check(const char *spec, struct error *);
/* Starts the net's thread: ops may be called from now on. Once. */
int net_attach(struct net *, const struct net_ops *, void *opaque, struct error *);
/* Ends the thread, frees everything. No ops are called behind it; net may be NULL. */
void net_close(struct net *);

/*
 * One frame to the host, all offloads allowed whatever its kind is. 0: sent, or dropped, because nothing is at the other end or because frame
 * or offload make no sense. -EAGAIN: no room, writable() will be called. Never blocks for long. The memory may be a guest's.
 */
int net_send(struct net *, const struct iovec *, unsigned count, const struct net_offload *);
/* received() would take frames again. */
void net_resume(struct net *);
/*
 * For a thread that has nothing else to do: when something was sent, so that an answer may come, and as far as that pays, waits for it awake, a fraction of a millisecond at
 * most, until frames came or stop(stop_opaque) says so. received() is called in this thread, one at a time as ever. Without locks.
 */
void net_look_out(struct net *, bool (*stop)(void *), void *stop_opaque);
/* NET_CAN_... from now on; 0 at first. Frames that are on their way may still come with what was allowed before. */
void net_set_offloads(struct net *, unsigned can);

/* ---- what the spec says about the card ---- */

/* Where a vhost-user back end is, which has the card's frames: none go through this net. NULL: they do. */
const char *net_back_end(const struct net *);
/* The MTU asked for, or 0. */
unsigned net_mtu(const struct net *);
/* The address asked for; else one made of the machine's name, of the guest's (hostname=), and of `instance`, so that it is the same each time. */
void net_mac(const struct net *, const char *machine, unsigned instance, uint8_t mac[NET_MAC_SIZE]);
bool net_link_is_up(const struct net *);

/* ---- the user network's process ---- */

/* What `doppel net-helper` runs: serves the net that started it, on descriptors that it left; returns the exit status. */
#define NET_HELPER_COMMAND "net-helper"
int net_helper_main(void);

#endif
