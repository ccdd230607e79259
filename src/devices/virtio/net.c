/*
 * virtio-net: the device. Its host's side is a net (net/net.h).
 */
#include "devices/virtio/net_card.h"

#include <errno.h>
#include <stdlib.h>

/* clang-format off */
#define NET_OPTIONS(_, T)                                                                                              \
	VIRTIO_OPTIONS(_, T)                                                                                           \
	_(T, NUMBER, queues, 1, NET_MAX_PAIRS, "1", "pairs of queues")                                                 \
	_(T, TEXT, net, 0, 0, "user", NET_SPEC_HELP)
/* clang-format on */

struct net_options {
	DEVICE_OPTION_FIELDS(NET_OPTIONS)
};

static void lock_orders(struct virtio_net *n) { pthread_mutex_lock(&n->orders_lock); }
static void unlock_orders(struct virtio_net *n) { pthread_mutex_unlock(&n->orders_lock); }

/* ---- configuration space; the device's lock is held ---- */

static bool link_is_up(const struct virtio_net *n)
{
	return n->back_end ? atomic_load(&n->back_end->up) : net_link_is_up(n->net);
}

static void set_status(struct virtio_net *n)
{
	unsigned status = link_is_up(n) ? NET_S_LINK_UP : 0;

	lock_orders(n);
	status |= n->announces ? NET_S_ANNOUNCE : 0;
	memcpy(n->virtio.config + NET_CONFIG_MAC, n->mac, NET_MAC_SIZE);
	unlock_orders(n);
	store_le16(n->virtio.config + NET_CONFIG_STATUS, (uint16_t)status);
}

/* What the link is by now: others have to find out where the guest is when it comes up. */
static void follow_link(struct virtio_net *n)
{
	bool was_up = n->virtio.config[NET_CONFIG_STATUS] & NET_S_LINK_UP, up = link_is_up(n);

	if (was_up == up)
		return;
	lock_orders(n);
	n->announces = up && virtio_has(&n->virtio, NET_F_GUEST_ANNOUNCE);
	unlock_orders(n);
	set_status(n);
	virtio_config_changed(&n->virtio);
}

static void follow_link_of(struct virtio_device *v) { follow_link(net_of(v)); }

/* In the net's thread. While the device is paused, the change waits for resume. */
static void link_changed(void *card, bool up)
{
	struct virtio_net *n = card;

	(void)up;
	lock_take(&n->virtio.lock);
	if (!n->paused)
		follow_link(n);
	lock_drop(&n->virtio.lock);
}

/* ---- virtio_ops ---- */

static void started(struct virtio_device *v)
{
	struct virtio_net *n = net_of(v);

	lock_orders(n);
	n->offloads = v->features & NET_GUEST_OFFLOADS;
	/* Until it says so, a driver with a filter is sent what is its own. */
	n->modes = virtio_has(v, NET_F_CTRL_RX) ? 0 : n->modes;
	net_tell_offloads(n);
	unlock_orders(n);
	if (n->back_end)
		back_end_driver_ready(n->back_end);
}

/* Without a back end, and of the control queue, all chains are pushed where they are popped. */
static void queue_stops(struct virtio_queue *q)
{
	if (net_of(q->virtio)->back_end)
		back_end_queue_stops(net_of(q->virtio)->back_end, q);
}

static void reset(struct virtio_device *v)
{
	struct virtio_net *n = net_of(v);

	lock_orders(n);
	net_orders_reset(n);
	unlock_orders(n);
	atomic_store(&n->tx_waits, 0);
	if (n->back_end)
		back_end_reset(n->back_end);
	set_status(n);
}

/* A legacy driver may set its address. */
static void config_written(struct virtio_device *v, unsigned offset, unsigned size)
{
	struct virtio_net *n = net_of(v);

	(void)offset, (void)size;
	lock_orders(n);
	memcpy(n->mac, v->config + NET_CONFIG_MAC, NET_MAC_SIZE);
	unlock_orders(n);
}

static void loaded(struct virtio_device *v)
{
	struct virtio_net *n = net_of(v);

	lock_orders(n);
	net_tell_offloads(n);
	net_tell_pairs(n);
	unlock_orders(n);
	atomic_store(&n->tx_waits, 0);
	if (n->back_end)
		back_end_loaded(n->back_end);
	set_status(n);
}

/* Frames are exchanged under a queue's lock: behind this, nobody is in the middle of it. */
static void pause_frames(struct virtio_device *v)
{
	struct virtio_net *n = net_of(v);

	if (n->back_end)
		back_end_pause(n->back_end);
	atomic_store(&n->paused, true);
	lock_take(&v->lock);
	lock_drop(&v->lock);
	for (unsigned i = 0; i < v->queue_count; i++) {
		lock_take(&v->queues[i].lock);
		lock_drop(&v->queues[i].lock);
	}
}

static void resume_frames(struct virtio_device *v)
{
	struct virtio_net *n = net_of(v);

	lock_take(&v->lock);
	atomic_store(&n->paused, false);
	follow_link(n);
	lock_drop(&v->lock);
	if (n->back_end)
		back_end_resume(n->back_end);
	net_resume(n->net);
	/* virtio_resume() does so only where time is the host's. */
	for (unsigned pair = 0; pair < n->max_pairs; pair++)
		virtio_queue_kick(&v->queues[NET_QUEUE_TX(pair)]);
}

static const struct virtio_ops net_virtio_ops = {
	.id = VIRTIO_ID_NET,
	.pci_name = "virtio-net-pci",
	.pci_class = 0x02000000,
	.started = started,
	.queue_stops = queue_stops,
	.reset = reset,
	.config_written = config_written,
	.loaded = loaded,
	.pause = pause_frames,
	.resume = resume_frames,
};

/* ---- the device ---- */

#define NET_ALL_STATE(_, T)                                                                                            \
	VIRTIO_STATE(_, T)                                                                                             \
	NET_STATE(_, T)
STATE_DESC(net_state_desc, "virtio-net", 1, struct virtio_net, NET_ALL_STATE, .loaded = virtio_loaded,
	   .saving = virtio_saving);

/* No frame comes any more when the net is closed. */
static void net_destroy(struct device *device)
{
	struct virtio_net *n = (struct virtio_net *)device;

	bus_remove_look_out(&n->look_out);
	if (n->back_end)
		back_end_close(n->back_end);
	free(n->back_end);
	net_close(n->net);
	virtio_fini(&n->virtio);
	pthread_mutex_destroy(&n->orders_lock);
	free(n);
}

static bool net_boots(const struct device *device, struct device_boot *boot)
{
	*boot = (struct device_boot){ .kind = DEVICE_BOOT_NET };
	return virtio_boot_path(&((const struct virtio_net *)device)->virtio, "ethernet", "/ethernet-phy@0", boot);
}

static const struct device_ops net_device_ops = {
	.state = &net_state_desc, VIRTIO_DEVICE_OPS, .boots = net_boots, .destroy = net_destroy
};
static const struct net_ops net_frame_ops = {
	.received = net_received,
	.writable = net_is_writable,
	.link = link_changed,
};

static void look_out(struct bus_look_out *l, bool (*stop)(void *), void *opaque)
{
	net_look_out(container_of(l, struct virtio_net, look_out)->net, stop, opaque);
}

/* A driver that does not use several pairs has its control queue behind the first one (5.1.2). */
static void kick(struct virtio_queue *q)
{
	struct virtio_net *n = net_of(q->virtio);
	unsigned control = virtio_has(q->virtio, NET_F_MQ) ? 2 * n->max_pairs : 2;

	if (q->index == control)
		net_kick_control(q);
	else if (n->back_end)
		back_end_kick(n->back_end, q);
	else if (q->index % 2)
		net_kick_tx(q);
	else
		net_kick_rx(q);
}

/* A frame that is lost is nothing new to a network; a buffer without a frame, which drivers drop, too. */
static void fail(struct virtio_queue *q, const struct virtio_chain *c) { virtqueue_push(q, c, 0); }

static const struct back_end_ops back_end_ops = { .pairs = true, .fail = fail, .changed = follow_link_of };

static int open_back_end(struct virtio_net *n, struct error *err)
{
	int rc;

	n->back_end = calloc(1, sizeof(*n->back_end));
	if (!n->back_end)
		return error_set_errno(err, ENOMEM, "virtio-net");
	rc = back_end_open(n->back_end, &n->virtio, &back_end_ops, net_back_end(n->net), 2 * n->max_pairs, err);
	if (!rc && n->max_pairs > 1 && !(n->back_end->features & BIT(NET_F_MQ)))
		rc = error_set(err, ENOTSUP,
			       "option 'queues' is %u; the back end '%s' has one pair (no VIRTIO_NET_F_MQ)",
			       n->max_pairs, net_back_end(n->net));
	return rc;
}

/* What a back end does of itself, if it says so; and what is ours. */
static uint64_t back_end_features(const struct virtio_net *n)
{
	return (n->back_end->features & (BIT(NET_F_CSUM) | NET_GUEST_OFFLOADS | BIT(NET_F_HOST_TSO4) |
					 BIT(NET_F_HOST_TSO6) | BIT(NET_F_HOST_ECN) | BIT(NET_F_MRG_RXBUF))) |
	       BIT(NET_F_MAC) | BIT(NET_F_STATUS) | BIT(NET_F_CTRL_VQ) | BIT(NET_F_GUEST_ANNOUNCE);
}

static void set_features(struct virtio_net *n)
{
	uint64_t features = BIT(NET_F_CSUM) | BIT(NET_F_HOST_TSO4) | BIT(NET_F_HOST_TSO6) | BIT(NET_F_HOST_ECN) |
			    NET_GUEST_OFFLOADS | BIT(NET_F_CTRL_GUEST_OFFLOADS) | BIT(NET_F_MAC) |
			    BIT(NET_F_MRG_RXBUF) | BIT(NET_F_STATUS) | BIT(NET_F_CTRL_VQ) | BIT(NET_F_CTRL_RX) |
			    BIT(NET_F_CTRL_RX_EXTRA) | BIT(NET_F_CTRL_VLAN) | BIT(NET_F_CTRL_MAC_ADDR) |
			    BIT(NET_F_GUEST_ANNOUNCE);

	if (n->back_end)
		features = back_end_features(n);
	if (n->max_pairs > 1)
		features |= BIT(NET_F_MQ);
	if (net_mtu(n->net))
		features |= BIT(NET_F_MTU);
	n->virtio.offered |= features;
	n->virtio.config_size = NET_CONFIG_SIZE;
	store_le16(n->virtio.config + NET_CONFIG_PAIRS, (uint16_t)n->max_pairs);
	store_le16(n->virtio.config + NET_CONFIG_MTU, (uint16_t)net_mtu(n->net));
	memset(n->virtio.config_mask + NET_CONFIG_MAC, 0xff, NET_MAC_SIZE);
}

static int add_queues(struct virtio_net *n, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < 2 * n->max_pairs + 1; i++)
		rc = virtio_add_queue(&n->virtio, VIRTIO_QUEUE_SIZE, kick, err);
	return rc;
}

static int net_create(struct bus *bus, const void *opaque, struct error *err)
{
	const struct net_options *options = opaque;
	struct virtio_net *n = calloc(1, sizeof(*n));
	int rc;

	if (!n)
		return error_set_errno(err, ENOMEM, "virtio-net");
	n->max_pairs = (unsigned)options->queues;
	atomic_store(&n->paused, true);
	pthread_mutex_init(&n->orders_lock, NULL);
	n->net = net_open(options->net, err);
	if (!n->net) {
		free(n);
		return err ? error_prefix(err, "network") : -EINVAL;
	}
	virtio_init(&n->virtio, bus, "virtio-net", &net_device_ops, &net_virtio_ops);
	net_mac(n->net, bus->name, n->virtio.device.instance, n->first_mac);
	rc = net_back_end(n->net) ? open_back_end(n, err) : 0;
	if (rc)
		return rc;
	set_features(n);
	reset(&n->virtio);
	rc = add_queues(n, err);
	if (!rc)
		rc = virtio_plug(&n->virtio, VIRTIO_OPTIONS_OF(options), err);
	if (rc)
		return rc;
	n->look_out.look_out = look_out;
	bus_add_look_out(bus, &n->look_out);
	return n->back_end ? back_end_start(n->back_end, 2 * n->max_pairs, err)
			   : net_attach(n->net, &net_frame_ops, n, err);
}

const struct device_type virtio_net_type = {
	.name = "virtio-net",
	.help = "network card",
	.most = 8,
	DEVICE_OPTIONS(NET_OPTIONS, struct net_options),
	.short_form = { .name = "--net", .option = "net", .argument = "SPEC", .help = "network card: " NET_SPEC_HELP },
	.create = net_create,
};
