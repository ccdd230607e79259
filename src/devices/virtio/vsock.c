/*
 * virtio-vsock (virtio 1.2, 5.10): sockets between programs of the guest's and of the host's; vsock_link.c has the connections. What the guest sends is written to the
 * host's sockets where it kicks; a thread waits for these, opens them, and fills the guest's buffers.
 *
 * Connections do not survive a machine that is saved and loaded: the driver is told so by an event.
 */
#include "devices/virtio/virtio.h"
#include "devices/virtio/vsock_link.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { RECEIVE, TRANSMIT, EVENT };

#define EVENT_TRANSPORT_RESET 0u
#define EVENT_SIZE	      4u
#define AT_ONCE		      64u /* packets, before others get at the connections */

#define VSOCK_STATE(_, T) _(T, uint8_t, lost, 1, 1, 0, 1) /* connections: the driver has not been told yet */

/* clang-format off */
#define VSOCK_OPTIONS(_, T)                                                                                            \
	_(T, TEXT, socket, 0, 0, NULL, "unix:PATH: a socket that programs of the host's connect to")                   \
	_(T, NUMBER, guest_cid, 3, 0xfffffffe, "3", "the guest's address; the host's is 2")                            \
	VIRTIO_OPTIONS(_, T)
/* clang-format on */

struct virtio_vsock_options {
	DEVICE_OPTION_FIELDS(VSOCK_OPTIONS)
};

struct virtio_vsock {
	struct virtio_device virtio;
	STATE_FIELDS(VSOCK_STATE)
	struct lock lock; /* what follows; taken with a queue's held */
	struct vsock_links links;
	bool starved;  /* the driver's receive queue is empty */
	bool tx_waits; /* the driver's packets do, for replies to be said */
	/* The thread's */
	pthread_t thread;
	bool has_thread;
	int wake_fd;
	_Atomic bool woken, paused;
	pthread_mutex_t park_lock; /* what follows, and to change `paused` */
	pthread_cond_t parks;
	bool parked, stops;
	struct pollfd fds[2 + VSOCK_LINKS_MOST];
};

static struct virtio_vsock *of(struct virtio_device *v) { return (struct virtio_vsock *)v; }

static void wake(struct virtio_vsock *s)
{
	const uint64_t one = 1;

	if (!atomic_exchange(&s->woken, true) && write(s->wake_fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, which wakes as well. */
	}
}

static void drain_wake(struct virtio_vsock *s)
{
	uint64_t count;

	if (read(s->wake_fd, &count, sizeof(count)) < 0) {
		/* EAGAIN: nothing to drain. */
	}
	atomic_store(&s->woken, false);
}

static void wake_if_wanted(struct virtio_vsock *s)
{
	if (!s->links.thread_wanted)
		return;
	s->links.thread_wanted = false;
	wake(s);
}

/* ---- from the driver ---- */

/* Under both locks. False: it has no header, or says that more is there than is. */
static bool hear(struct virtio_vsock *s, const struct virtio_chain *c)
{
	struct vsock_header h;

	if (virtio_chain_read(c, 0, &h, sizeof(h)) != sizeof(h) || h.len > c->out_size - sizeof(h)) {
		virtio_break(&s->virtio, "a packet without a header, or shorter than that says");
		return false;
	}
	vsock_hear(&s->links, &h, c->out, c->out_count, sizeof(h));
	return true;
}

/* False: the rest waits, for replies to be said or for its turn. */
static bool hear_some(struct virtio_vsock *s, struct virtio_queue *q)
{
	struct virtio_chain c;

	for (unsigned left = 2u * q->size; vsock_hears(&s->links) && virtqueue_pop(q, &c); left--) {
		if (!left) {
			virtqueue_unpop(q, &c);
			virtqueue_later(q);
			return false;
		}
		if (hear(s, &c))
			virtqueue_push(q, &c, 0);
		else
			virtqueue_drop(q);
	}
	s->tx_waits = !vsock_hears(&s->links);
	return !s->tx_waits;
}

static void kick_transmit(struct virtio_queue *q)
{
	struct virtio_vsock *s = of(q->virtio);
	bool all;

	if (s->paused)
		return;
	lock_take(&s->lock);
	do {
		virtqueue_want_kicks(q, false);
		all = hear_some(s, q);
		virtqueue_publish(q);
	} while (all && virtqueue_want_kicks(q, true));
	s->links.thread_wanted |= s->tx_waits;
	wake_if_wanted(s);
	lock_drop(&s->lock);
}

/* ---- to the driver; in the thread ---- */

/* What is behind the header. */
static unsigned room_of(const struct virtio_chain *c, struct iovec pieces[VIRTIO_MAX_PIECES])
{
	size_t header = sizeof(struct vsock_header);
	unsigned count = 0;

	for (unsigned n = 0; n < c->in_count; n++) {
		size_t skip = MIN(header, c->in[n].iov_len);

		header -= skip;
		if (skip < c->in[n].iov_len)
			pieces[count++] =
				(struct iovec){ (uint8_t *)c->in[n].iov_base + skip, c->in[n].iov_len - skip };
	}
	return count;
}

/* One packet, or what turns out not to be one. */
static void fill(struct virtio_vsock *s, struct virtio_queue *q, const struct virtio_chain *c)
{
	struct iovec pieces[VIRTIO_MAX_PIECES];
	struct vsock_header h;
	size_t size = 0;

	if (c->in_size <= sizeof(h)) {
		virtio_break(&s->virtio, "a receive buffer without room for a header and data");
		virtqueue_drop(q);
		return;
	}
	if (vsock_has_words(&s->links)) {
		h = vsock_say(&s->links);
	} else {
		size = vsock_read(&s->links, &h, pieces, room_of(c, pieces));
		if (!size) {
			virtqueue_unpop(q, c);
			return;
		}
	}
	virtio_chain_write(c, 0, &h, sizeof(h));
	virtqueue_push(q, c, sizeof(h) + size);
}

static bool has_something(const struct virtio_vsock *s)
{
	return vsock_has_words(&s->links) || vsock_has_data(&s->links);
}

/* True: there is more, and there are buffers. */
static bool fill_buffers(struct virtio_vsock *s, struct virtio_queue *q)
{
	struct virtio_chain c;
	bool more;

	s->starved = false;
	do {
		bool empty = false;

		virtqueue_want_kicks(q, false);
		for (unsigned n = 0; n < AT_ONCE && !empty && has_something(s); n++) {
			empty = !virtqueue_pop(q, &c);
			if (!empty)
				fill(s, q, &c);
		}
		virtqueue_publish(q);
		more = has_something(s);
		if (more && !empty)
			return true;
	} while (more && virtqueue_want_kicks(q, true));
	s->starved = more;
	return false;
}

static bool serve_receive(struct virtio_vsock *s)
{
	struct virtio_queue *q = &s->virtio.queues[RECEIVE];
	bool more;

	lock_take(&q->lock);
	lock_take(&s->lock);
	more = fill_buffers(s, q);
	lock_drop(&s->lock);
	lock_drop(&q->lock);
	return more;
}

static void kick_receive(struct virtio_queue *q)
{
	struct virtio_vsock *s = of(q->virtio);

	lock_take(&s->lock);
	if (s->starved)
		wake(s);
	lock_drop(&s->lock);
}

static void kick_event(struct virtio_queue *q)
{
	struct virtio_vsock *s = of(q->virtio);
	uint8_t event[EVENT_SIZE];
	struct virtio_chain c;

	while (__atomic_load_n(&s->lost, __ATOMIC_RELAXED) && virtqueue_pop(q, &c)) {
		store_le32(event, EVENT_TRANSPORT_RESET);
		virtqueue_push(q, &c, virtio_chain_write(&c, 0, event, sizeof(event)));
		__atomic_store_n(&s->lost, 0, __ATOMIC_RELAXED);
	}
	virtqueue_publish(q);
	virtqueue_want_kicks(q, true);
}

/* ---- the thread ---- */

static unsigned prepare(struct virtio_vsock *s)
{
	unsigned count = 1;

	s->fds[0] = (struct pollfd){ .fd = s->wake_fd, .events = POLLIN };
	lock_take(&s->lock);
	count += vsock_prepare(&s->links, s->fds + 1, !s->starved);
	lock_drop(&s->lock);
	return count;
}

/* The way to a socket may be long: without the lock. */
static void connect_all(struct virtio_vsock *s)
{
	char path[VSOCK_PATH_SIZE];
	struct vsock_link *link;

	lock_take(&s->lock);
	while ((link = vsock_connects(&s->links, path))) {
		int fd;

		lock_drop(&s->lock);
		fd = host_unix_connect(path, NULL);
		lock_take(&s->lock);
		vsock_connected(&s->links, link, fd);
	}
	lock_drop(&s->lock);
}

static void ready(struct virtio_vsock *s)
{
	lock_take(&s->lock);
	vsock_ready(&s->links, s->fds + 1, virtio_is_started(&s->virtio));
	lock_drop(&s->lock);
}

/* What was said makes room. */
static void clean_up(struct virtio_vsock *s)
{
	bool again;

	lock_take(&s->lock);
	vsock_reap(&s->links);
	again = s->tx_waits && vsock_hears(&s->links);
	lock_drop(&s->lock);
	if (again)
		virtio_queue_kick(&s->virtio.queues[TRANSMIT]);
}

/* While devices are paused, without any lock. False: this is the end. */
static bool go_on(struct virtio_vsock *s)
{
	bool stops;

	pthread_mutex_lock(&s->park_lock);
	s->parked = true;
	pthread_cond_broadcast(&s->parks);
	while (s->paused && !s->stops)
		pthread_cond_wait(&s->parks, &s->park_lock);
	s->parked = false;
	stops = s->stops;
	pthread_mutex_unlock(&s->park_lock);
	return !stops;
}

static void *vsock_thread(void *opaque)
{
	struct virtio_vsock *s = opaque;
	bool more = false;

	while (go_on(s)) {
		unsigned count = prepare(s);

		/* No memory, or a signal: nothing is ready, then. */
		if (poll(s->fds, count, more ? 0 : -1) < 0)
			for (unsigned n = 0; n < count; n++)
				s->fds[n].revents = 0;
		if (s->fds[0].revents)
			drain_wake(s);
		ready(s);
		connect_all(s);
		more = serve_receive(s);
		clean_up(s);
	}
	return NULL;
}

/* ---- virtio_ops ---- */

static void vsock_reset(struct virtio_device *v)
{
	struct virtio_vsock *s = of(v);

	lock_take(&s->lock);
	vsock_forget(&s->links);
	s->tx_waits = false;
	wake(s);
	lock_drop(&s->lock);
	__atomic_store_n(&s->lost, 0, __ATOMIC_RELAXED);
}

static void vsock_loaded(struct virtio_device *v)
{
	struct virtio_vsock *s = of(v);
	bool started = virtio_is_started(v);

	vsock_reset(v);
	s->lost = started;
}

static void vsock_pause(struct virtio_device *v)
{
	struct virtio_vsock *s = of(v);

	pthread_mutex_lock(&s->park_lock);
	s->paused = true;
	wake(s);
	while (!s->parked)
		pthread_cond_wait(&s->parks, &s->park_lock);
	pthread_mutex_unlock(&s->park_lock);
}

static void vsock_resume(struct virtio_device *v)
{
	struct virtio_vsock *s = of(v);

	pthread_mutex_lock(&s->park_lock);
	s->paused = false;
	pthread_cond_broadcast(&s->parks);
	pthread_mutex_unlock(&s->park_lock);
	/* virtio_resume() does so only where time is the host's. */
	virtio_queue_kick(&v->queues[TRANSMIT]);
	virtio_queue_kick(&v->queues[EVENT]);
}

static const struct virtio_ops vsock_ops = {
	.id = VIRTIO_ID_VSOCK,
	.pci_name = "virtio-vsock-pci",
	.pci_class = 0x07800000,
	.modern_only = true,
	.reset = vsock_reset,
	.loaded = vsock_loaded,
	.pause = vsock_pause,
	.resume = vsock_resume,
};

/* ---- life ---- */

static void vsock_destroy(struct device *device)
{
	struct virtio_vsock *s = (struct virtio_vsock *)device;

	if (s->has_thread) {
		pthread_mutex_lock(&s->park_lock);
		s->stops = true;
		pthread_cond_broadcast(&s->parks);
		pthread_mutex_unlock(&s->park_lock);
		pthread_join(s->thread, NULL);
	}
	vsock_close(&s->links);
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	pthread_cond_destroy(&s->parks);
	pthread_mutex_destroy(&s->park_lock);
	lock_destroy(&s->lock);
	virtio_fini(&s->virtio);
	free(s);
}

#define VSOCK_ALL_STATE(_, T)                                                                                          \
	VIRTIO_STATE(_, T)                                                                                             \
	VSOCK_STATE(_, T)
STATE_DESC(vsock_state_desc, "virtio-vsock", 1, struct virtio_vsock, VSOCK_ALL_STATE, .loaded = virtio_loaded,
	   .saving = virtio_saving);

static const struct device_ops vsock_device_ops = { .state = &vsock_state_desc,
						    VIRTIO_DEVICE_OPS,
						    .destroy = vsock_destroy };

static int open_host(struct virtio_vsock *s, const struct virtio_vsock_options *o, struct error *err)
{
	static const char kind[] = "unix:";
	int rc;

	if (!o->socket || strncmp(o->socket, kind, sizeof(kind) - 1) != 0)
		return error_set(err, EINVAL, "virtio-vsock: option 'socket' is '%.128s'; expected unix:PATH",
				 o->socket ? o->socket : "");
	rc = vsock_open(&s->links, o->socket + sizeof(kind) - 1, o->guest_cid, err);
	if (rc)
		return error_prefix(err, "virtio-vsock");
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->wake_fd < 0 ? error_set_errno(err, errno, "virtio-vsock: cannot create an eventfd") : 0;
}

static int vsock_create(struct bus *bus, const void *options, struct error *err)
{
	static void (*const kicks[])(struct virtio_queue *) = {
		[RECEIVE] = kick_receive,
		[TRANSMIT] = kick_transmit,
		[EVENT] = kick_event,
	};
	const struct virtio_vsock_options *o = options;
	struct virtio_vsock *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return error_set_errno(err, ENOMEM, "virtio-vsock");
	virtio_init(&s->virtio, bus, "virtio-vsock", &vsock_device_ops, &vsock_ops);
	lock_init(&s->lock, &bus->locks, LOCK_DEVICE);
	pthread_mutex_init(&s->park_lock, NULL);
	pthread_cond_init(&s->parks, NULL);
	s->wake_fd = s->links.listener.fd = -1;
	list_init(&s->links.links);
	atomic_init(&s->paused, true);
	store_le64(s->virtio.config, o->guest_cid);
	s->virtio.config_size = sizeof(uint64_t);
	rc = open_host(s, o, err);
	for (unsigned n = 0; !rc && n < ARRAY_SIZE(kicks); n++)
		rc = virtio_add_queue(&s->virtio, VIRTIO_QUEUE_SIZE, kicks[n], err);
	if (!rc)
		rc = host_thread_create(&s->thread, "vsock", vsock_thread, s, err);
	if (rc)
		return rc;
	s->has_thread = true;
	return virtio_plug(&s->virtio, VIRTIO_OPTIONS_OF(o), err);
}

const struct device_type virtio_vsock_type = {
	.name = "virtio-vsock",
	.help = "sockets between programs of the guest's and the host's",
	.most = 1,
	DEVICE_OPTIONS(VSOCK_OPTIONS, struct virtio_vsock_options),
	.short_form = { .name = "--vsock",
			.option = "socket",
			.options_follow = true,
			.argument = "unix:PATH[,...]",
			.help = "sockets between guest and host (virtio-vsock): programs of the host's connect to "
				"PATH" },
	.create = vsock_create,
};
