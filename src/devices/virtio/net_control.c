/*
 * virtio-net's control queue (virtio 1.2, 5.1.6.5), and what its orders mean: which frames are the card's, what it leaves to the driver, how many queues it uses.
 */
#include "devices/virtio/net_card.h"

#define OK    0
#define ERROR 1

/* Classes and commands */
enum { CLASS_RX, CLASS_MAC, CLASS_VLAN, CLASS_ANNOUNCE, CLASS_MQ, CLASS_OFFLOADS };
enum { RX_PROMISCUOUS, RX_ALL_MULTICAST, RX_ALL_UNICAST, RX_NO_MULTICAST, RX_NO_UNICAST, RX_NO_BROADCAST, RX_MODES };
enum { MAC_TABLE, MAC_ADDRESS };
enum { VLAN_ADD, VLAN_REMOVE };

/* Further multicast addresses, too many to list: all of them. */
static void set_mode(struct virtio_net *n, unsigned mode, bool on)
{
	n->modes = (uint8_t)(on ? n->modes | BIT(mode) : n->modes & ~BIT(mode));
}

static bool has_mode(const struct virtio_net *n, unsigned mode) { return n->modes & BIT(mode); }

/* ---- the filter ---- */

static bool listed(const uint8_t *list, unsigned count, const uint8_t *mac)
{
	for (unsigned i = 0; i < count; i++)
		if (!memcmp(list + (size_t)i * NET_MAC_SIZE, mac, NET_MAC_SIZE))
			return true;
	return false;
}

static bool wants_vlan(const struct virtio_net *n, const uint8_t *frame)
{
	unsigned id = (unsigned)(frame[14] << 8 | frame[15]) & (NET_VLANS - 1);

	if (!virtio_has(&n->virtio, NET_F_CTRL_VLAN) || frame[12] != 0x81 || frame[13])
		return true;
	return n->vlans[id / 8] & BIT(id % 8);
}

bool net_wants(const struct virtio_net *n, const uint8_t *frame)
{
	static const uint8_t broadcast[NET_MAC_SIZE] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	if (has_mode(n, RX_PROMISCUOUS))
		return true;
	if (!wants_vlan(n, frame))
		return false;
	if (!memcmp(frame, broadcast, NET_MAC_SIZE))
		return !has_mode(n, RX_NO_BROADCAST);
	if (frame[0] & 1)
		return !has_mode(n, RX_NO_MULTICAST) &&
		       (has_mode(n, RX_ALL_MULTICAST) || listed(n->multicast, n->multicast_count, frame));
	if (has_mode(n, RX_NO_UNICAST))
		return false;
	return has_mode(n, RX_ALL_UNICAST) || !memcmp(frame, n->mac, NET_MAC_SIZE) ||
	       listed(n->unicast, n->unicast_count, frame);
}

/* ---- orders; orders_lock held ---- */

void net_tell_offloads(struct virtio_net *n)
{
	static const struct {
		unsigned feature, can;
	} rows[] = {
		{ NET_F_GUEST_CSUM, NET_CAN_CHECKSUM },
		{ NET_F_GUEST_TSO4, NET_CAN_TCP4 },
		{ NET_F_GUEST_TSO6, NET_CAN_TCP6 },
		{ NET_F_GUEST_ECN, NET_CAN_ECN },
	};
	unsigned can = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (n->offloads & BIT(rows[i].feature))
			can |= rows[i].can;
	/* Segments have half a checksum. */
	net_set_offloads(n->net, can & NET_CAN_CHECKSUM ? can : 0);
}

static void set_pairs(struct virtio_net *n, unsigned pairs)
{
	n->pairs = (uint8_t)pairs;
	net_tell_pairs(n);
}

void net_tell_pairs(struct virtio_net *n)
{
	if (n->back_end)
		back_end_enable(n->back_end, 2u * n->pairs);
}

/* A driver that cannot say what it wants gets everything. */
void net_orders_reset(struct virtio_net *n)
{
	memcpy(n->mac, n->first_mac, NET_MAC_SIZE);
	n->modes = BIT(RX_PROMISCUOUS);
	n->unicast_count = n->multicast_count = 0;
	memset(n->unicast, 0, sizeof(n->unicast));
	memset(n->multicast, 0, sizeof(n->multicast));
	memset(n->vlans, 0, sizeof(n->vlans));
	set_pairs(n, 1);
	n->announces = false;
	n->offloads = 0;
	net_tell_offloads(n);
}

/* An order's data, taken from its beginning. False: there is less. */
struct order {
	const struct virtio_chain *chain;
	size_t at;
};

static bool take(struct order *o, void *data, size_t size)
{
	size_t got = virtio_chain_read(o->chain, o->at, data, size);

	o->at += got;
	return got == size;
}

static bool order_rx(struct virtio_net *n, unsigned command, struct order *o)
{
	uint8_t on;

	if (command >= RX_MODES || !take(o, &on, 1))
		return false;
	set_mode(n, command, on);
	return true;
}

/* A count of 32 bits, and so many addresses; too many are as if all were listed. */
static bool take_list(struct virtio_net *n, struct order *o, uint8_t *list, uint8_t *count, unsigned all_mode)
{
	uint8_t word[4];
	uint32_t entries;

	if (!take(o, word, sizeof(word)))
		return false;
	entries = load_le32(word);
	if (entries > NET_MAX_MACS) {
		*count = 0;
		set_mode(n, all_mode, true);
		o->at += MIN((size_t)entries * NET_MAC_SIZE, o->chain->out_size);
		return true;
	}
	*count = 0;
	if (!take(o, list, (size_t)entries * NET_MAC_SIZE))
		return false;
	*count = (uint8_t)entries;
	return true;
}

static bool order_mac(struct virtio_net *n, unsigned command, struct order *o)
{
	uint8_t mac[NET_MAC_SIZE];

	if (command == MAC_TABLE)
		return take_list(n, o, n->unicast, &n->unicast_count, RX_ALL_UNICAST) &&
		       take_list(n, o, n->multicast, &n->multicast_count, RX_ALL_MULTICAST);
	if (command != MAC_ADDRESS || !take(o, mac, sizeof(mac)))
		return false;
	memcpy(n->mac, mac, sizeof(mac));
	return true;
}

static bool order_vlan(struct virtio_net *n, unsigned command, struct order *o)
{
	uint8_t word[2];
	unsigned id;

	if (command > VLAN_REMOVE || !take(o, word, sizeof(word)))
		return false;
	id = load_le16(word);
	if (id >= NET_VLANS)
		return false;
	if (command == VLAN_ADD)
		n->vlans[id / 8] |= (uint8_t)BIT(id % 8);
	else
		n->vlans[id / 8] &= (uint8_t)~BIT(id % 8);
	return true;
}

static bool order_pairs(struct virtio_net *n, unsigned command, struct order *o)
{
	uint8_t word[2];
	unsigned pairs;

	if (command || !virtio_has(&n->virtio, NET_F_MQ) || !take(o, word, sizeof(word)))
		return false;
	pairs = load_le16(word);
	if (!pairs || pairs > n->max_pairs)
		return false;
	set_pairs(n, pairs);
	return true;
}

static bool order_offloads(struct virtio_net *n, unsigned command, struct order *o)
{
	uint8_t word[8];

	if (command || !virtio_has(&n->virtio, NET_F_CTRL_GUEST_OFFLOADS) || !take(o, word, sizeof(word)))
		return false;
	if (load_le64(word) & ~(n->virtio.features & NET_GUEST_OFFLOADS))
		return false;
	n->offloads = load_le64(word);
	net_tell_offloads(n);
	return true;
}

static bool order(struct virtio_net *n, const struct virtio_chain *c)
{
	struct order o = { .chain = c };
	uint8_t head[2]; /* class, command */

	if (!take(&o, head, sizeof(head)))
		return false;
	switch (head[0]) {
	case CLASS_RX: return order_rx(n, head[1], &o);
	case CLASS_MAC: return order_mac(n, head[1], &o);
	case CLASS_VLAN: return order_vlan(n, head[1], &o);
	case CLASS_ANNOUNCE: n->announces = false; return !head[1];
	case CLASS_MQ: return order_pairs(n, head[1], &o);
	case CLASS_OFFLOADS: return order_offloads(n, head[1], &o);
	default: return false;
	}
}

static void serve(struct virtio_queue *q, const struct virtio_chain *c)
{
	struct virtio_net *n = net_of(q->virtio);
	uint8_t answer;

	pthread_mutex_lock(&n->orders_lock);
	answer = order(n, c) ? OK : ERROR;
	pthread_mutex_unlock(&n->orders_lock);
	virtqueue_push(q, c, virtio_chain_write(c, 0, &answer, 1));
}

void net_kick_control(struct virtio_queue *q) { virtqueue_serve(q, serve); }
