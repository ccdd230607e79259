/*
 * Inside net/: what a net is made of, and what a kind of net does for it.
 */
#ifndef DOPPEL_NET_PRIVATE_H
#define DOPPEL_NET_PRIVATE_H

#include "net/look_out.h"
#include "net/net.h"
#include "net/spec.h"

#include <poll.h>

#define NET_MOST_FDS 3	/* that a kind waits for */
#define NET_BATCH    64 /* frames that the card gets at once */

struct net;

/* Everything but send is called in the net's thread, or while it does not run. */
struct net_kind {
	int (*open)(struct net *, struct error *);
	void (*close)(struct net *);
	/*
	 * Any thread, net->send_lock held: a frame of `size` bytes, offload_valid(). 0 or -EAGAIN, after which net_writable() is called
	 * when there is room.
	 */
	int (*send)(struct net *, const struct iovec *, unsigned count, size_t size, const struct net_offload *);
	/* Before each wait: what to wait for, at most NET_MOST_FDS; how many. *timeout in ms may be made smaller. Frames are not waited for while net_holds(). */
	unsigned (*prepare)(struct net *, struct pollfd *, int *timeout);
	/* Behind each wait. */
	void (*ready)(struct net *, const struct pollfd *);
	/*
	 * Between prepare and ready, in the net's thread's place: frames are delivered until some came, the time is over or stop() says so; did some come? NULL: this kind
	 * cannot tell soon enough that they do.
	 */
	bool (*look_out)(struct net *, uint64_t until, bool (*stop)(void *), void *stop_opaque);
	/* The guest takes others now: net->can. Any thread. NULL: nothing to do. */
	void (*offloads_changed)(struct net *);
};
extern const struct net_kind net_user, net_stream, net_tap, net_none;

struct net {
	const struct net_kind *kind;
	struct net_spec spec;
	void *data;		 /* the kind's */
	struct capture *capture; /* NULL: none */
	const struct net_ops *ops;
	void *opaque;
	pthread_t thread;
	bool attached;
	int wake_fd; /* eventfd */
	_Atomic bool stopping, holds, up;
	_Atomic unsigned can;
	pthread_mutex_t send_lock;
	bool wants_writable; /* under send_lock */
	/* Who makes calls of ops has it: the net's thread while it does not wait, or who looks out. Under it: */
	pthread_mutex_t turn_lock;
	struct look_out look_out;
	_Atomic bool expects; /* something was sent since frames came last */
};

/* Frames for the card; how many it took. The kind offers the rest again when ready() is called next and net_holds() is false. */
unsigned net_deliver(struct net *, const struct net_frame *, unsigned count);
static inline bool net_holds(struct net *net) { return atomic_load(&net->holds); }
/* There is room again for who was told -EAGAIN; without send_lock. */
void net_writable(struct net *);
void net_set_link(struct net *, bool up);
/* Copies [from, from + size) of what the iov has. */
void net_gather(void *to, const struct iovec *, unsigned count, size_t from, size_t size);

/* ---- capture.c: a file in pcap's format, of so many bytes at most; whatever becomes of it, the net goes on ---- */
struct capture *capture_open(const char *path, uint64_t most, struct error *);
void capture_frame(struct capture *, const struct iovec *, unsigned count, size_t size);
void capture_close(struct capture *);

#endif
