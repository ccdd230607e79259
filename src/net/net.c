/*
 * What all kinds of nets have in common: the choice by spec, the thread, holding back what the card does not take, the capture.
 *
 * A card that takes fewer frames than there are makes the net hold: nothing is read until net_resume(). `holds` is set before the card is
 * asked, so that a resume from another thread in between is not lost.
 */
#include "net/net_private.h"
#include "net/offload.h"
#include "net/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LOOK_OUT_NS 200000 /* an answer of the user network's process, if it has to be woken on a busy host */

static const struct net_kind *const kinds[] = {
	[NET_USER] = &net_user, [NET_STREAM_UNIX] = &net_stream, [NET_STREAM_TCP] = &net_stream,
	[NET_TAP] = &net_tap,	[NET_NONE] = &net_none,		 [NET_VHOST_USER] = &net_none,
};

/* ---- to the guest; the net's thread ---- */

unsigned net_deliver(struct net *net, const struct net_frame *frames, unsigned count)
{
	unsigned taken;

	atomic_store(&net->holds, true);
	atomic_store(&net->expects, false);
	taken = net->ops->received(net->opaque, frames, count);
	BUG_ON(taken > count);
	if (taken == count)
		atomic_store(&net->holds, false);
	for (unsigned i = 0; net->capture && i < taken; i++) {
		struct iovec iov = { (void *)frames[i].data, frames[i].size };

		capture_frame(net->capture, &iov, 1, frames[i].size);
	}
	return taken;
}

/* Under the lock: who is about to say -EAGAIN has said so when this looks. */
void net_writable(struct net *net)
{
	bool wanted;

	pthread_mutex_lock(&net->send_lock);
	wanted = net->wants_writable;
	net->wants_writable = false;
	pthread_mutex_unlock(&net->send_lock);
	if (wanted)
		net->ops->writable(net->opaque);
}

void net_set_link(struct net *net, bool up)
{
	if (atomic_exchange(&net->up, up) != up && net->ops)
		net->ops->link(net->opaque, up);
}

static void *net_thread(void *opaque)
{
	struct net *net = opaque;
	struct pollfd fds[1 + NET_MOST_FDS];

	fds[0] = (struct pollfd){ .fd = net->wake_fd, .events = POLLIN };
	pthread_mutex_lock(&net->turn_lock);
	while (!atomic_load(&net->stopping)) {
		int timeout = -1;
		unsigned count = net->kind->prepare(net, fds + 1, &timeout);

		pthread_mutex_unlock(&net->turn_lock);
		/* No memory, or a signal: nothing is ready, then. */
		if (poll(fds, 1 + count, timeout) < 0)
			for (unsigned i = 0; i <= count; i++)
				fds[i].revents = 0;
		if (fds[0].revents)
			drain_event(net->wake_fd);
		pthread_mutex_lock(&net->turn_lock);
		net->kind->ready(net, fds + 1);
	}
	pthread_mutex_unlock(&net->turn_lock);
	return NULL;
}

void net_look_out(struct net *net, bool (*stop)(void *), void *stop_opaque)
{
	bool came;

	if (!net->kind->look_out || !atomic_load(&net->expects) || pthread_mutex_trylock(&net->turn_lock))
		return;
	if (atomic_exchange(&net->expects, false) && look_out_pays(&net->look_out)) {
		came = net->kind->look_out(net, host_monotonic_ns() + LOOK_OUT_NS, stop, stop_opaque);
		look_out_ended(&net->look_out, came);
	}
	pthread_mutex_unlock(&net->turn_lock);
}

/* ---- from the guest; any thread ---- */

void net_gather(void *to, const struct iovec *iov, unsigned count, size_t from, size_t size)
{
	uint8_t *at = to;

	for (unsigned i = 0; i < count && size; i++) {
		size_t skip = MIN(from, iov[i].iov_len), part = MIN(iov[i].iov_len - skip, size);

		memcpy(at, (const uint8_t *)iov[i].iov_base + skip, part);
		at += part;
		size -= part;
		from -= skip;
	}
}

int net_send(struct net *net, const struct iovec *iov, unsigned count, const struct net_offload *offload)
{
	size_t size = 0;
	int rc;

	for (unsigned i = 0; i < count && size <= NET_FRAME_MAX; i++)
		size += MIN(iov[i].iov_len, (size_t)NET_FRAME_MAX + 1);
	if (size < NET_FRAME_MIN || size > NET_FRAME_MAX || !offload_valid(offload, size))
		return 0;
	pthread_mutex_lock(&net->send_lock);
	rc = net->kind->send(net, iov, count, size, offload);
	if (rc)
		net->wants_writable = true;
	/* There will be no answer to what was not sent; and the net's thread has its turn, to say that there is room. */
	atomic_store(&net->expects, !rc);
	pthread_mutex_unlock(&net->send_lock);
	if (!rc && net->capture)
		capture_frame(net->capture, iov, count, size);
	return rc;
}

void net_resume(struct net *net)
{
	if (atomic_exchange(&net->holds, false))
		wake_event(net->wake_fd);
}

void net_set_offloads(struct net *net, unsigned can)
{
	atomic_store(&net->can, can);
	if (net->kind->offloads_changed)
		net->kind->offloads_changed(net);
}

/* ---- life ---- */

int net_check(const char *text, struct error *err)
{
	struct net_spec *spec = malloc(sizeof(*spec));
	int rc = spec ? net_spec_parse(text, spec, err) : error_set_errno(err, ENOMEM, "network");

	free(spec);
	return rc;
}

static int open_all(struct net *net, const char *text, struct error *err)
{
	int rc = net_spec_parse(text, &net->spec, err);

	if (rc)
		return rc;
	net->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (net->wake_fd < 0)
		return error_set_errno(err, errno, "cannot create the network's eventfd");
	if (*net->spec.capture) {
		net->capture = capture_open(net->spec.capture, (uint64_t)net->spec.capture_mib << 20, err);
		if (!net->capture)
			return err ? -err->code : -EINVAL;
	}
	net->kind = kinds[net->spec.kind];
	rc = net->kind->open(net, err);
	if (rc)
		net->kind = NULL;
	return rc;
}

struct net *net_open(const char *spec, struct error *err)
{
	struct net *net = calloc(1, sizeof(*net));

	if (!net) {
		error_set_errno(err, ENOMEM, "network");
		return NULL;
	}
	net->wake_fd = -1;
	atomic_init(&net->up, true);
	pthread_mutex_init(&net->send_lock, NULL);
	pthread_mutex_init(&net->turn_lock, NULL);
	if (!open_all(net, spec, err))
		return net;
	net_close(net);
	return NULL;
}

int net_attach(struct net *net, const struct net_ops *ops, void *opaque, struct error *err)
{
	int rc;

	net->ops = ops;
	net->opaque = opaque;
	net->attached = true;
	rc = host_thread_create(&net->thread, "net", net_thread, net, err);
	net->attached = !rc;
	return rc;
}

void net_close(struct net *net)
{
	if (!net)
		return;
	if (net->attached) {
		atomic_store(&net->stopping, true);
		wake_event(net->wake_fd);
		pthread_join(net->thread, NULL);
	}
	net->attached = false;
	if (net->kind)
		net->kind->close(net);
	capture_close(net->capture);
	if (net->wake_fd >= 0)
		close(net->wake_fd);
	pthread_mutex_destroy(&net->send_lock);
	pthread_mutex_destroy(&net->turn_lock);
	free(net);
}

/* ---- what the spec says about the card ---- */

const char *net_back_end(const struct net *net) { return net->spec.kind == NET_VHOST_USER ? net->spec.where : NULL; }

unsigned net_mtu(const struct net *net) { return net->spec.mtu; }
bool net_link_is_up(const struct net *net) { return atomic_load(&net->up); }

static uint64_t hash_text(uint64_t hash, const char *text) /* FNV-1a */
{
	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * 1099511628211ull;
	return hash;
}

void net_mac(const struct net *net, const char *machine, unsigned instance, uint8_t mac[NET_MAC_SIZE])
{
	uint64_t hash = hash_text(hash_text(14695981039346656037ull, machine), net->spec.user.hostname);

	hash = (hash ^ instance) * 1099511628211ull;
	/* Locally administered, as other monitors' cards. */
	memcpy(mac,
	       (const uint8_t[]){ 0x52, 0x54, 0x00, (uint8_t)(hash >> 40), (uint8_t)(hash >> 32),
				  (uint8_t)(hash >> 24) },
	       NET_MAC_SIZE);
	if (net->spec.has_mac)
		memcpy(mac, net->spec.mac, NET_MAC_SIZE);
}

/* ---- none: the cable is out ---- */

static int none_open(struct net *net, struct error *err)
{
	(void)err;
	atomic_store(&net->up, false);
	return 0;
}

static void none_close(struct net *net) { (void)net; }

static int none_send(struct net *net, const struct iovec *iov, unsigned count, size_t size,
		     const struct net_offload *offload)
{
	(void)net, (void)iov, (void)count, (void)size, (void)offload;
	return 0;
}

static unsigned none_prepare(struct net *net, struct pollfd *fds, int *timeout)
{
	(void)net, (void)fds, (void)timeout;
	return 0;
}

static void none_ready(struct net *net, const struct pollfd *fds) { (void)net, (void)fds; }

const struct net_kind net_none = {
	.open = none_open,
	.close = none_close,
	.send = none_send,
	.prepare = none_prepare,
	.ready = none_ready,
};
