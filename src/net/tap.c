/*
 * A net that is a tap device of the host's. The kernel does offloads both ways (TUN_F_..., struct virtio_net_hdr in front of each frame).
 */
#define _GNU_SOURCE
#include "net/net_private.h"
#include "net/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TUN_DEVICE "/dev/net/tun"
#define HEADER	   sizeof(struct net_offload)
#define IN_SIZE	   (256u << 10)

struct tap {
	int fd;
	/* The net's thread's: frames that were read, and those of them that the card has taken. */
	struct net_frame frames[NET_BATCH];
	unsigned count, taken;
	uint8_t *in;
	/* Under send_lock: */
	bool full;
	uint8_t out[HEADER + NET_FRAME_MAX];
};

_Static_assert(sizeof(struct net_offload) == 10, "what TUNSETVNETHDRSZ is told");

static int tap_send(struct net *net, const struct iovec *iov, unsigned count, size_t size,
		    const struct net_offload *offload)
{
	struct tap *t = net->data;
	ssize_t n;

	memcpy(t->out, offload, HEADER);
	net_gather(t->out + HEADER, iov, count, 0, size);
	do
		n = write(t->fd, t->out, HEADER + size);
	while (n < 0 && errno == EINTR);
	if (n >= 0 || errno != EAGAIN)
		return 0; /* or dropped: the device is down, or the kernel finds the frame bad */
	t->full = true;
	wake_event(net->wake_fd);
	return -EAGAIN;
}

static void tap_offloads_changed(struct net *net)
{
	static const struct {
		unsigned can, tun;
	} flags[] = {
		{ NET_CAN_CHECKSUM, TUN_F_CSUM },
		{ NET_CAN_TCP4, TUN_F_TSO4 },
		{ NET_CAN_TCP6, TUN_F_TSO6 },
		{ NET_CAN_ECN, TUN_F_TSO_ECN },
	};
	unsigned can = atomic_load(&net->can);
	unsigned long tun = 0;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (can & flags[i].can)
			tun |= flags[i].tun;
	ioctl(((struct tap *)net->data)->fd, TUNSETOFFLOAD, tun);
}

/* As many as there are and fit. */
static void read_frames(struct tap *t)
{
	size_t used = 0;

	t->count = t->taken = 0;
	while (t->count < NET_BATCH && IN_SIZE - used >= HEADER + NET_FRAME_MAX) {
		struct net_frame *frame = &t->frames[t->count];
		ssize_t n = read(t->fd, t->in + used, HEADER + NET_FRAME_MAX);

		if (n < (ssize_t)(HEADER + NET_FRAME_MIN))
			return;
		*frame = (struct net_frame){ .data = t->in + used + HEADER, .size = (size_t)n - HEADER };
		memcpy(&frame->offload, t->in + used, HEADER);
		used += align_up((size_t)n, 16);
		t->count++;
	}
}

static unsigned tap_prepare(struct net *net, struct pollfd *fds, int *timeout)
{
	struct tap *t = net->data;
	bool holds = net_holds(net);

	if (!holds && t->taken < t->count)
		*timeout = 0;
	pthread_mutex_lock(&net->send_lock);
	fds[0] = (struct pollfd){ .fd = t->fd, .events = (short)((holds ? 0 : POLLIN) | (t->full ? POLLOUT : 0)) };
	pthread_mutex_unlock(&net->send_lock);
	if (!fds[0].events)
		fds[0].fd = -1;
	return 1;
}

static void tap_ready(struct net *net, const struct pollfd *fds)
{
	struct tap *t = net->data;

	if (fds[0].revents & POLLOUT) {
		pthread_mutex_lock(&net->send_lock);
		t->full = false;
		pthread_mutex_unlock(&net->send_lock);
		net_writable(net);
	}
	if (net_holds(net))
		return;
	if (t->taken == t->count && fds[0].revents & POLLIN)
		read_frames(t);
	if (t->taken < t->count)
		t->taken += net_deliver(net, t->frames + t->taken, t->count - t->taken);
}

static void tap_close(struct net *net)
{
	struct tap *t = net->data;

	if (t->fd >= 0)
		close(t->fd);
	free(t->in);
	free(t);
}

static int open_device(struct tap *t, const char *name, struct error *err)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int size = HEADER;

	t->fd = open(TUN_DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (t->fd < 0)
		return error_set_errno(err, errno, "tap device '%s': cannot open %s", name, TUN_DEVICE);
	memcpy(request.ifr_name, name, MIN(strlen(name), sizeof(request.ifr_name) - 1));
	if (!ioctl(t->fd, TUNSETIFF, &request) && !ioctl(t->fd, TUNSETVNETHDRSZ, &size))
		return 0;
	if (errno == EPERM)
		return error_set(err, EPERM,
				 "tap device '%s' is not for this user; its administrator makes one that is by "
				 "'ip tuntap add %s mode tap user NAME'",
				 name, name);
	return error_set_errno(err, errno, "tap device '%s'", name);
}

static int tap_open(struct net *net, struct error *err)
{
	struct tap *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return error_set_errno(err, ENOMEM, "network");
	net->data = t;
	t->fd = -1;
	t->in = malloc(IN_SIZE);
	rc = t->in ? open_device(t, net->spec.where, err) : error_set_errno(err, ENOMEM, "network");
	if (rc)
		tap_close(net);
	else
		tap_offloads_changed(net);
	return rc;
}

const struct net_kind net_tap = {
	.open = tap_open,
	.close = tap_close,
	.send = tap_send,
	.prepare = tap_prepare,
	.ready = tap_ready,
	.offloads_changed = tap_offloads_changed,
};
