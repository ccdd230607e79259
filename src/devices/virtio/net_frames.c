/*
 * virtio-net's queues of frames: from the driver to the net in the thread of the vCPU that kicks, from the net to the driver in the net's thread.
 */
#include "devices/virtio/net_card.h"

#include <errno.h>

/* In front of each frame, 5.1.6: struct net_offload, and the number of buffers that it fills where drivers know of that. */
#define HEADER_SIZE   sizeof(struct net_offload)
#define HEADER_LARGER (HEADER_SIZE + 2)

static size_t header_size(const struct virtio_device *v)
{
	return virtio_has(v, NET_F_MRG_RXBUF) || !virtio_is_legacy(v) ? HEADER_LARGER : HEADER_SIZE;
}

/* ---- which queue a connection's frames come in by: that of the vCPU which sends them ---- */

/* The same for both directions. Frames that are no TCP or UDP over IPv4 have some hash as well. */
static unsigned flow_of(const uint8_t frame[42])
{
	uint32_t h = load_le32(frame + 26) ^ load_le32(frame + 30) ^ load_le16(frame + 34) ^ load_le16(frame + 36);

	h *= 0x9e3779b1u;
	return h >> 24;
}

static void note_flow(struct virtio_net *n, const struct virtio_chain *c, size_t header, unsigned pair)
{
	uint8_t frame[42];

	if (n->max_pairs > 1 && virtio_chain_read(c, header, frame, sizeof(frame)) == sizeof(frame))
		n->flows[flow_of(frame)] = (uint8_t)pair;
}

static unsigned pair_for(struct virtio_net *n, const struct net_frame *frame)
{
	unsigned pair = n->max_pairs > 1 && frame->size >= 42 ? n->flows[flow_of(frame->data)] : 0;

	return pair < n->pairs ? pair : 0;
}

/* ---- from the driver ---- */

/* What it may ask for is what it has negotiated. */
static struct net_offload offload_of(const struct virtio_device *v, struct net_offload o)
{
	unsigned type = o.gso_type & (unsigned)~NET_GSO_ECN;

	o.flags &= NET_NEEDS_CHECKSUM;
	if (!virtio_has(v, NET_F_CSUM) || (type == NET_GSO_TCP4 && !virtio_has(v, NET_F_HOST_TSO4)) ||
	    (type == NET_GSO_TCP6 && !virtio_has(v, NET_F_HOST_TSO6)))
		return (struct net_offload){ 0 };
	if (!virtio_has(v, NET_F_HOST_ECN))
		o.gso_type &= (uint8_t)~NET_GSO_ECN;
	return o;
}

/* What is behind the header. */
static unsigned frame_pieces(const struct virtio_chain *c, size_t header, struct iovec *pieces)
{
	unsigned count = 0;

	for (unsigned i = 0; i < c->out_count; i++) {
		size_t skip = MIN(header, c->out[i].iov_len);

		header -= skip;
		if (skip < c->out[i].iov_len)
			pieces[count++] =
				(struct iovec){ (uint8_t *)c->out[i].iov_base + skip, c->out[i].iov_len - skip };
	}
	return count;
}

/* False: the net has no room. */
static bool send_chain(struct virtio_net *n, const struct virtio_queue *q, const struct virtio_chain *c)
{
	size_t header = header_size(&n->virtio);
	struct iovec pieces[VIRTIO_MAX_PIECES];
	struct net_offload offload;
	unsigned count;

	if (virtio_chain_read(c, 0, &offload, sizeof(offload)) < sizeof(offload))
		return true;
	offload = offload_of(&n->virtio, offload);
	count = frame_pieces(c, header, pieces);
	note_flow(n, c, header, q->index / 2);
	return net_send(n->net, pieces, count, &offload) != -EAGAIN;
}

/* False: the rest waits, for the net or for its turn. */
static bool send_chains(struct virtio_net *n, struct virtio_queue *q)
{
	struct virtio_chain c;

	for (unsigned left = 2u * q->size; virtqueue_pop(q, &c); left--) {
		if (!left) {
			virtqueue_unpop(q, &c);
			virtqueue_later(q);
			return false;
		}
		/* The bit is there before the net is asked: it may be writable again at once. */
		atomic_fetch_or(&n->tx_waits, BIT(q->index / 2));
		if (!send_chain(n, q, &c)) {
			virtqueue_unpop(q, &c);
			return false;
		}
		atomic_fetch_and(&n->tx_waits, ~(uint32_t)BIT(q->index / 2));
		virtqueue_push(q, &c, 0);
	}
	return true;
}

void net_kick_tx(struct virtio_queue *q)
{
	struct virtio_net *n = net_of(q->virtio);
	bool all;

	if (n->paused)
		return;
	do {
		virtqueue_want_kicks(q, false);
		all = send_chains(n, q);
		virtqueue_publish(q);
	} while (all && virtqueue_want_kicks(q, true));
}

void net_is_writable(void *card)
{
	struct virtio_net *n = card;
	uint32_t waits = atomic_exchange(&n->tx_waits, 0);

	for (unsigned pair = 0; pair < n->max_pairs; pair++)
		if (waits & BIT(pair))
			virtio_queue_kick(&n->virtio.queues[NET_QUEUE_TX(pair)]);
}

/* ---- to the driver ---- */

/* Buffers that one frame fills, all popped. */
struct buffers {
	unsigned count, pieces_used;
	size_t size;
	struct virtio_chain chains[VIRTIO_QUEUE_SIZE];
	struct iovec pieces[VIRTIO_MAX_PIECES];
};

enum fill { FILLED, NO_BUFFERS, TOO_LARGE };

static void give_back(struct virtio_queue *q, struct buffers *b)
{
	while (b->count)
		virtqueue_unpop(q, &b->chains[--b->count]);
}

/* Room for header and frame, the header in the first buffer; in one buffer unless they may be merged. */
static enum fill collect(struct virtio_queue *q, size_t header, size_t size, struct buffers *b)
{
	bool merges = virtio_has(q->virtio, NET_F_MRG_RXBUF);
	struct virtio_chain c;

	b->count = b->pieces_used = 0;
	do {
		if (b->count && (!merges || b->count == q->size))
			return TOO_LARGE;
		if (!virtqueue_pop(q, &c))
			return NO_BUFFERS;
		b->size = (b->count ? b->size : 0) + c.in_size;
		b->chains[b->count++] = c;
		if (b->size < header || virtio_chain_pieces(&c) > VIRTIO_MAX_PIECES - b->pieces_used)
			return TOO_LARGE;
		virtio_chain_copy(&b->chains[b->count - 1], &c, b->pieces + b->pieces_used);
		b->pieces_used += (unsigned)virtio_chain_pieces(&c);
	} while (b->size < header + size);
	return FILLED;
}

static void write_frame(struct virtio_queue *q, const struct buffers *b, size_t header_bytes,
			const struct net_frame *frame)
{
	uint8_t header[HEADER_LARGER];
	size_t done = 0, at;

	memcpy(header, &frame->offload, HEADER_SIZE);
	store_le16(header + HEADER_SIZE, (uint16_t)b->count);
	at = virtio_chain_write(&b->chains[0], 0, header, header_bytes);
	for (unsigned i = 0; i < b->count; i++, at = 0) {
		size_t part = virtio_chain_write(&b->chains[i], at, frame->data + done, frame->size - done);

		virtqueue_push(q, &b->chains[i], at + part);
		done += part;
	}
}

static enum fill fill_buffers(struct virtio_queue *q, const struct net_frame *frame, struct buffers *b)
{
	size_t header = header_size(q->virtio);
	enum fill rc = collect(q, header, frame->size, b);

	if (rc == FILLED)
		write_frame(q, b, header, frame);
	else
		give_back(q, b);
	return rc;
}

/* May it come to this driver? It was told of what it takes, but frames may have been on their way. */
static bool acceptable(struct virtio_net *n, const struct net_frame *frame)
{
	uint8_t type = frame->offload.gso_type & (uint8_t)~NET_GSO_ECN;
	uint8_t beginning[18] = { 0 };
	bool wanted;

	memcpy(beginning, frame->data, MIN(frame->size, sizeof(beginning)));
	pthread_mutex_lock(&n->orders_lock);
	wanted = net_wants(n, beginning) && (!frame->offload.flags || n->offloads & BIT(NET_F_GUEST_CSUM)) &&
		 (type != NET_GSO_TCP4 || n->offloads & BIT(NET_F_GUEST_TSO4)) &&
		 (type != NET_GSO_TCP6 || n->offloads & BIT(NET_F_GUEST_TSO6));
	pthread_mutex_unlock(&n->orders_lock);
	return wanted;
}

/* False: there are no buffers; the driver will kick when there are. */
static bool receive_one(struct virtio_net *n, struct virtio_queue *q, const struct net_frame *frame)
{
	struct buffers b;

	if (!acceptable(n, frame))
		return true;
	while (fill_buffers(q, frame, &b) == NO_BUFFERS) {
		virtqueue_publish(q);
		if (!virtqueue_want_kicks(q, true))
			return false;
		virtqueue_want_kicks(q, false);
	}
	return true;
}

/* Of the frames from the first one on, those for one queue: how many of them it took, *all: there was room for them. */
static unsigned receive_run(struct virtio_net *n, unsigned pair, const struct net_frame *frames, unsigned count,
			    bool *all)
{
	struct virtio_queue *q = &n->virtio.queues[NET_QUEUE_RX(pair)];
	unsigned taken = 0;

	lock_take(&q->lock);
	*all = !n->paused;
	while (*all && taken < count && pair_for(n, &frames[taken]) == pair) {
		/* A driver that is not there, or has no queue, hears nothing. */
		*all = !q->enabled || receive_one(n, q, &frames[taken]);
		taken += *all;
	}
	virtqueue_publish(q);
	lock_drop(&q->lock);
	return taken;
}

unsigned net_received(void *card, const struct net_frame *frames, unsigned count)
{
	struct virtio_net *n = card;
	unsigned taken = 0;
	bool all = true;

	while (all && taken < count)
		taken += receive_run(n, pair_for(n, &frames[taken]), frames + taken, count - taken, &all);
	return taken;
}

void net_kick_rx(struct virtio_queue *q) { net_resume(net_of(q->virtio)->net); }
