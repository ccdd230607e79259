/*
 * The user network's process: libslirp between the rings of a channel and the host's sockets. It is started by the net (user.c), told what to do in one
 * message, and ends when the other end of its socket is closed. libslirp is loaded here, and only here: the monitor has none of it.
 *
 * libslirp is told of an MTU of 64 KiB, so that a connection's data comes in large pieces: mss.h. Frames from the guest go in as large as they come: it ends
 * TCP itself. slirp_input() is never called inside of its callbacks.
 */
#define _GNU_SOURCE
#include "net/helper.h"
#include "net/look_out.h"
#include "net/mss.h"
#include "net/ring.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LIBSLIRP     "libslirp.so.0"
#define SLIRP_MTU    65521 /* the largest that it takes */
#define MSS_RAISED   (SLIRP_MTU - 40)
#define INPUT_BATCH  64
#define HOLD_BELOW   (RING_SIZE / 4) /* free bytes of the ring to the guest */
#define WAKE_AT	     (RING_SIZE / 8) /* bytes for the guest, in the middle of a turn */
#define MOST_FDS     1024	     /* walls.c lets it have no more */
#define FIXED_FDS    2		     /* in front of libslirp's: the event, the socket */
#define IDLE_TIMEOUT 1000	     /* ms: what libslirp says when it has nothing to do */
#define LOOK_OUT_NS  50000	     /* for what follows on frames */

#define SLIRP_FUNCTIONS(_)                                                                                             \
	_(slirp_new)                                                                                                   \
	_(slirp_input)                                                                                                 \
	_(slirp_pollfds_fill)                                                                                          \
	_(slirp_pollfds_poll)                                                                                          \
	_(slirp_add_hostxfwd)

struct slirp_library {
#define _(name) __typeof__(name) *name;
	SLIRP_FUNCTIONS(_)
#undef _
};

/* libslirp has one: router advertisements. */
struct helper_timer {
	SlirpTimerCb fire;
	void *opaque;
	int64_t due; /* ms; INT64_MAX: not armed */
};

struct helper {
	struct slirp_library lib;
	Slirp *slirp;
	struct net_user_spec spec;
	struct channel channel;
	struct helper_timer timer;
	struct pollfd fds[MOST_FDS];
	unsigned fd_count;
	struct look_out look_out;
	bool active;	  /* the last turn had frames */
	bool holds;	  /* the guest is slow: sockets are not read */
	uint32_t unheard; /* bytes for the guest that the monitor was not woken for */
	struct frame_sink to_guest, to_slirp;
	struct mss_table mss;
	uint8_t frame[NET_FRAME_MAX]; /* that is worked on */
};

static int64_t now_ms(void) { return (int64_t)(host_monotonic_ns() / 1000000); }

/* ---- frames ---- */

static unsigned guest_can(const struct helper *h) { return atomic_load(&h->channel.shared->can); }

static void wake_monitor(struct helper *h)
{
	h->unheard = 0;
	ring_wake(&h->channel.to_guest);
}

static void put_to_guest(struct frame_sink *sink, const uint8_t *frame, size_t size, const struct net_offload *offload)
{
	struct helper *h = container_of(sink, struct helper, to_guest);
	int code;
	uint8_t *place = ring_reserve(&h->channel.to_guest, size, &code);

	if (code)
		_exit(EXIT_FAILURE);
	/* No room although sockets were held: TCP sends it again. */
	if (!place)
		return;
	memcpy(place, frame, size);
	ring_write(&h->channel.to_guest, size, offload);
	h->active = true;
	/* Once a turn, unless that would fill the ring. */
	h->unheard += (uint32_t)size;
	if (h->unheard >= WAKE_AT)
		wake_monitor(h);
}

static ssize_t send_packet(const void *data, size_t size, void *opaque)
{
	struct helper *h = opaque;
	struct net_offload offload = { 0 };
	struct tcp_frame tcp;

	if (size < NET_FRAME_MIN || size > NET_FRAME_MAX)
		return (ssize_t)size;
	memcpy(h->frame, data, size);
	if (tcp_frame_find(h->frame, size, &tcp)) {
		mss_mark(&h->mss, h->frame, &tcp, h->spec.mtu, &offload);
	} else if (size > NET_FRAME_MIN + h->spec.mtu) {
		ip4_fragment(h->frame, size, h->spec.mtu, &h->to_guest);
		return (ssize_t)size;
	}
	offload_apply(h->frame, size, &offload, guest_can(h), &h->to_guest);
	return (ssize_t)size;
}

static void put_to_slirp(struct frame_sink *sink, const uint8_t *frame, size_t size, const struct net_offload *offload)
{
	struct helper *h = container_of(sink, struct helper, to_slirp);

	(void)offload;
	h->lib.slirp_input(h->slirp, frame, (int)size);
}

static void input_frame(struct helper *h, const struct net_frame *frame)
{
	memcpy(h->frame, frame->data, frame->size);
	if (!offload_valid(&frame->offload, frame->size))
		return;
	mss_raise(&h->mss, h->frame, frame->size, &frame->offload, MSS_RAISED);
	/* Whole, but with its checksum. */
	offload_apply(h->frame, frame->size, &frame->offload, NET_CAN_TCP4 | NET_CAN_TCP6 | NET_CAN_ECN, &h->to_slirp);
}

/* At most a batch: sockets have their turn, too. */
static void input_frames(struct helper *h)
{
	struct net_frame frames[INPUT_BATCH];
	int count = ring_peek(&h->channel.from_guest, frames, INPUT_BATCH);

	if (count < 0)
		_exit(EXIT_FAILURE);
	h->active |= count;
	for (int i = 0; i < count; i++) {
		input_frame(h, &frames[i]);
		ring_release(&h->channel.from_guest, &frames[i], 1);
	}
}

/* ---- libslirp's other callbacks ---- */

static void guest_error(const char *message, void *opaque) { (void)message, (void)opaque; }
static int64_t clock_get_ns(void *opaque) { return (void)opaque, (int64_t)host_monotonic_ns(); }
static void register_poll_fd(int fd, void *opaque) { (void)fd, (void)opaque; }
static void notify(void *opaque) { (void)opaque; }

static void *timer_new(SlirpTimerCb fire, void *fire_opaque, void *opaque)
{
	struct helper *h = opaque;

	if (h->timer.fire)
		_exit(EXIT_FAILURE);
	h->timer = (struct helper_timer){ fire, fire_opaque, INT64_MAX };
	return &h->timer;
}

static void timer_free(void *timer, void *opaque) { (void)opaque, ((struct helper_timer *)timer)->fire = NULL; }
static void timer_mod(void *timer, int64_t due, void *opaque)
{
	(void)opaque, ((struct helper_timer *)timer)->due = due;
}

static const SlirpCb callbacks = {
	.send_packet = send_packet,
	.guest_error = guest_error,
	.clock_get_ns = clock_get_ns,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = register_poll_fd,
	.unregister_poll_fd = register_poll_fd,
	.notify = notify,
};

/* ---- waiting ---- */

/* SLIRP_POLL_... are poll's own, but for their numbers. */
static const struct {
	int slirp;
	short host;
} events[] = {
	{ SLIRP_POLL_IN, POLLIN },   { SLIRP_POLL_OUT, POLLOUT }, { SLIRP_POLL_PRI, POLLPRI },
	{ SLIRP_POLL_ERR, POLLERR }, { SLIRP_POLL_HUP, POLLHUP },
};

static int add_poll(int fd, int wanted, void *opaque)
{
	struct helper *h = opaque;
	struct pollfd *p;

	/* What is not in the array is not ready: -1 is libslirp's own word for it. */
	if (h->fd_count == MOST_FDS)
		return -1;
	if (h->holds)
		wanted &= SLIRP_POLL_OUT;
	p = &h->fds[h->fd_count];
	*p = (struct pollfd){ .fd = wanted ? fd : -1 };
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (wanted & events[i].slirp)
			p->events |= events[i].host;
	return (int)h->fd_count++;
}

static int get_revents(int index, void *opaque)
{
	struct helper *h = opaque;
	int ready = 0;

	if (index < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (h->fds[index].revents & events[i].host)
			ready |= events[i].slirp;
	return ready;
}

/* In ms, as poll() has it. */
static int wait_time(struct helper *h, uint32_t slirp_timeout)
{
	int64_t left, timeout = slirp_timeout >= IDLE_TIMEOUT ? INT64_MAX : slirp_timeout;

	if (h->timer.fire && h->timer.due != INT64_MAX) {
		left = h->timer.due - now_ms();
		timeout = MIN(timeout, MAX(left, 0));
	}
	if (!ring_sleep(&h->channel.from_guest))
		timeout = 0;
	return timeout == INT64_MAX ? -1 : (int)MIN(timeout, 1000000);
}

static void run_timer(struct helper *h)
{
	if (!h->timer.fire || h->timer.due > now_ms())
		return;
	h->timer.due = INT64_MAX;
	h->timer.fire(h->timer.opaque);
}

/* How many descriptors are ready; or frames are there. */
static int look_out(struct helper *h)
{
	uint64_t until;
	bool came = false;
	int ready = 0;

	if (!h->active || !look_out_pays(&h->look_out))
		return 0;
	until = host_monotonic_ns() + LOOK_OUT_NS;
	do {
		look_out_pause();
		came = ring_has_frames(&h->channel.from_guest);
		ready = came ? 0 : poll(h->fds, h->fd_count, 0);
	} while (!came && !ready && host_monotonic_ns() < until);
	look_out_ended(&h->look_out, came || ready > 0);
	return ready;
}

static void serve(struct helper *h)
{
	for (;;) {
		uint32_t timeout = UINT32_MAX;
		int ready;

		h->fds[0] = (struct pollfd){ .fd = h->channel.helper_event, .events = POLLIN };
		h->fds[1] = (struct pollfd){ .fd = HELPER_SOCKET, .events = POLLIN };
		h->fd_count = FIXED_FDS;
		h->holds = !ring_has_room(&h->channel.to_guest, HOLD_BELOW);
		h->lib.slirp_pollfds_fill(h->slirp, &timeout, add_poll, h);
		ready = look_out(h);
		if (!ready)
			ready = poll(h->fds, h->fd_count, wait_time(h, timeout));
		ring_awake(&h->channel.from_guest);
		if (ready > 0 && h->fds[0].revents)
			drain_event(h->channel.helper_event);
		if (ready > 0 && h->fds[1].revents)
			return;
		/* In front of it, since it sends what a frame made possible: packets that waited for an ARP reply. */
		h->active = false;
		input_frames(h);
		h->lib.slirp_pollfds_poll(h->slirp, ready < 0, get_revents, h);
		run_timer(h);
		wake_monitor(h);
	}
}

/* ---- the beginning ---- */

static int load_slirp(struct helper *h, struct error *err)
{
	void *library = dlopen(LIBSLIRP, RTLD_NOW);

	if (!library)
		return error_set(err, ENOENT, "the user network needs %s (Debian's package libslirp0): %s", LIBSLIRP,
				 dlerror());
#define _(name)                                                                                                        \
	h->lib.name = (__typeof__(name) *)dlsym(library, #name);                                                       \
	if (!h->lib.name)                                                                                              \
		return error_set(err, ENOENT, "%s has no %s: 4.7 or newer is needed", LIBSLIRP, #name);
	SLIRP_FUNCTIONS(_)
#undef _
	return 0;
}

/* An address of the network's: the last bits of x.x.2.n, as many as it has. */
static struct in_addr address_in(const struct net_user_spec *spec, uint32_t n)
{
	return (struct in_addr){ spec->network.s_addr | (htonl(0x200 | n) & ~spec->mask.s_addr) };
}

static int make_slirp(struct helper *h, struct error *err)
{
	SlirpConfig config = {
		.version = 4,
		.restricted = h->spec.restricted,
		.in_enabled = true,
		.vnetwork = h->spec.network,
		.vnetmask = h->spec.mask,
		.vhost = address_in(&h->spec, 2),
		.vdhcp_start = address_in(&h->spec, 15),
		.vnameserver = h->spec.dns.s_addr ? h->spec.dns : address_in(&h->spec, 3),
		.in6_enabled = h->spec.ip6,
		.vprefix_len = 64,
		.vhostname = *h->spec.hostname ? h->spec.hostname : NULL,
		.if_mtu = SLIRP_MTU,
		.if_mru = SLIRP_MTU,
	};

	inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &config.vhost6);
	inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
	h->slirp = h->lib.slirp_new(&config, &callbacks, h);
	return h->slirp ? 0 : error_set(err, EINVAL, "libslirp refuses its configuration");
}

union address {
	struct sockaddr any;
	struct sockaddr_in ip4;
	struct sockaddr_in6 ip6;
	struct sockaddr_un local;
};

static socklen_t set_address(union address *a, const struct net_place *place, bool ip6)
{
	if (ip6) {
		a->ip6 = (struct sockaddr_in6){ .sin6_family = AF_INET6,
						.sin6_port = htons(place->port),
						.sin6_addr = place->address.ip6 };
		return sizeof(a->ip6);
	}
	a->ip4 = (struct sockaddr_in){ .sin_family = AF_INET,
				       .sin_port = htons(place->port),
				       .sin_addr = place->address.ip4 };
	return sizeof(a->ip4);
}

static int add_forward(struct helper *h, const struct net_forward *f)
{
	union address guest, host;
	socklen_t guest_size = set_address(&guest, &f->guest, f->ip6), host_size = set_address(&host, &f->host, f->ip6);
	/* An IPv6 socket for IPv4 connections, too, would give them addresses that no guest can answer. */
	int flags = (f->kind == FORWARD_UDP ? SLIRP_HOSTFWD_UDP : 0) | (f->ip6 ? SLIRP_HOSTFWD_V6ONLY : 0);

	if (f->kind == FORWARD_UNIX) {
		host.local = (struct sockaddr_un){ .sun_family = AF_UNIX };
		strcpy(host.local.sun_path, f->path);
		host_size = sizeof(host.local);
	}
	errno = 0;
	if (!h->lib.slirp_add_hostxfwd(h->slirp, &host.any, host_size, &guest.any, guest_size, flags))
		return 0;
	return errno ? -errno : -EINVAL;
}

static int open_all(struct helper *h, const int fds[HELPER_FDS], struct helper_answer *answer, struct error *err)
{
	int rc;

	rc = channel_open(&h->channel, fds[HELPER_FD_MEMORY], fds[HELPER_FD_MONITOR_EVENT], fds[HELPER_FD_HELPER_EVENT],
			  err);
	if (!rc)
		rc = load_slirp(h, err);
	if (!rc)
		rc = make_slirp(h, err);
	for (unsigned i = 0; !rc && i < h->spec.forward_count; i++) {
		rc = add_forward(h, &h->spec.forwards[i]);
		if (rc) {
			answer->forward = (int)i;
			error_set_errno(err, -rc, "cannot listen");
		}
	}
	return rc ? rc : walls_up(err);
}

static int receive_spec(struct net_user_spec *spec, int fds[HELPER_FDS])
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * HELPER_FDS)];
	} control;
	struct iovec iov = { spec, sizeof(*spec) };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	const struct cmsghdr *c;

	if (recvmsg(HELPER_SOCKET, &message, 0) != (ssize_t)sizeof(*spec))
		return -EPROTO;
	c = CMSG_FIRSTHDR(&message);
	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int) * HELPER_FDS))
		return -EPROTO;
	memcpy(fds, CMSG_DATA(c), sizeof(int) * HELPER_FDS);
	return 0;
}

/* The terminal's signals are the monitor's. Its heap is the only memory that will grow: see walls.c. */
static void settle(void)
{
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	mallopt(M_MMAP_MAX, 0);
	mallopt(M_ARENA_MAX, 1);
	close_range(HELPER_SOCKET + 1, ~0u, 0);
	clearenv();
}

int net_helper_main(void)
{
	struct helper_answer answer = { .forward = -1 };
	struct helper *h = calloc(1, sizeof(*h));
	struct error err = { 0 };
	int fds[HELPER_FDS];

	settle();
	if (!h || receive_spec(&h->spec, fds)) {
		fprintf(stderr, "doppel: the command '%s' is for doppel itself\n", NET_HELPER_COMMAND);
		return EXIT_FAILURE;
	}
	h->to_guest.put = put_to_guest;
	h->to_slirp.put = put_to_slirp;
	h->timer.due = INT64_MAX;
	open_all(h, fds, &answer, &err);
	answer.code = err.code;
	snprintf(answer.text, sizeof(answer.text), "%.255s", err.text);
	if (send(HELPER_SOCKET, &answer, sizeof(answer), MSG_NOSIGNAL) != (ssize_t)sizeof(answer) || err.code)
		_exit(EXIT_FAILURE);
	serve(h);
	_exit(EXIT_SUCCESS);
}
