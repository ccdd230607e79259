/*
 * Inside virtio-net (virtio 1.2, 5.1): net.c is the device, net_frames.c what goes through its queues, net_control.c what its driver orders.
 */
#ifndef DOPPEL_DEVICES_VIRTIO_NET_CARD_H
#define DOPPEL_DEVICES_VIRTIO_NET_CARD_H

#include "devices/virtio/back_end.h"
#include "net/net.h"

/* Features, 5.1.3 */
enum {
	NET_F_CSUM = 0,
	NET_F_GUEST_CSUM = 1,
	NET_F_CTRL_GUEST_OFFLOADS = 2,
	NET_F_MTU = 3,
	NET_F_MAC = 5,
	NET_F_GUEST_TSO4 = 7,
	NET_F_GUEST_TSO6 = 8,
	NET_F_GUEST_ECN = 9,
	NET_F_HOST_TSO4 = 11,
	NET_F_HOST_TSO6 = 12,
	NET_F_HOST_ECN = 13,
	NET_F_MRG_RXBUF = 15,
	NET_F_STATUS = 16,
	NET_F_CTRL_VQ = 17,
	NET_F_CTRL_RX = 18,
	NET_F_CTRL_VLAN = 19,
	NET_F_CTRL_RX_EXTRA = 20,
	NET_F_GUEST_ANNOUNCE = 21,
	NET_F_MQ = 22,
	NET_F_CTRL_MAC_ADDR = 23,
};
/* Those that VIRTIO_NET_CTRL_GUEST_OFFLOADS switches, too: their numbers are bits of its command. */
#define NET_GUEST_OFFLOADS                                                                                             \
	(BIT(NET_F_GUEST_CSUM) | BIT(NET_F_GUEST_TSO4) | BIT(NET_F_GUEST_TSO6) | BIT(NET_F_GUEST_ECN))

/* Configuration space, 5.1.4 */
#define NET_CONFIG_MAC	  0u
#define NET_CONFIG_STATUS 6u
#define NET_CONFIG_PAIRS  8u
#define NET_CONFIG_MTU	  10u
#define NET_CONFIG_SIZE	  12u
#define NET_S_LINK_UP	  1u
#define NET_S_ANNOUNCE	  2u

#define NET_MAX_PAIRS	8
#define NET_MAX_MACS	64 /* that the driver lists; with more of a kind, all of it is let through */
#define NET_VLANS	4096
#define NET_FLOWS	256
#define NET_QUEUE_RX(n) (2u * (n))
#define NET_QUEUE_TX(n) (2u * (n) + 1)

/* What the driver orders; modes as bits of the commands of VIRTIO_NET_CTRL_RX. */
/* clang-format off */
#define NET_STATE(_, T)                                                                                                \
	_(T, uint8_t, mac, 6, 1, 0, 0xff)                                                                              \
	_(T, uint8_t, modes, 1, 2, 0, 0x3f)                                                                            \
	_(T, uint8_t, unicast_count, 1, 3, 0, NET_MAX_MACS)                                                            \
	_(T, uint8_t, multicast_count, 1, 4, 0, NET_MAX_MACS)                                                          \
	_(T, uint8_t, unicast, NET_MAX_MACS * 6, 5, 0, 0xff)                                                           \
	_(T, uint8_t, multicast, NET_MAX_MACS * 6, 6, 0, 0xff)                                                         \
	_(T, uint8_t, vlans, NET_VLANS / 8, 7, 0, 0xff)                                                                \
	_(T, uint8_t, pairs, 1, 8, 1, NET_MAX_PAIRS)                                                                   \
	_(T, bool, announces, 1, 9, 0, 1)                                                                              \
	_(T, uint64_t, offloads, 1, 10, 0, NET_GUEST_OFFLOADS)
/* clang-format on */

struct virtio_net {
	struct virtio_device virtio;
	struct net *net;
	struct bus_look_out look_out;
	struct back_end *back_end; /* which has the queues of frames; NULL: the net has */
	unsigned max_pairs;
	uint8_t first_mac[NET_MAC_SIZE];
	_Atomic bool paused;		  /* no frame is exchanged; looked at under a queue's lock */
	_Atomic uint32_t tx_waits;	  /* bit n: TX queue n waits for the net to be writable */
	_Atomic uint8_t flows[NET_FLOWS]; /* which pair a connection was last sent by */
	pthread_mutex_t orders_lock;	  /* the innermost: all that follows */
	STATE_FIELDS(NET_STATE)
};

static inline struct virtio_net *net_of(struct virtio_device *v) { return (struct virtio_net *)v; }

/* Under a queue's lock: */
void net_kick_rx(struct virtio_queue *);
void net_kick_tx(struct virtio_queue *);
void net_kick_control(struct virtio_queue *);
/* struct net_ops */
unsigned net_received(void *card, const struct net_frame *, unsigned count);
void net_is_writable(void *card);

/* orders_lock held: as behind a reset; the frame is for this card; the net learns what frames may come. */
void net_orders_reset(struct virtio_net *);
bool net_wants(const struct virtio_net *, const uint8_t *frame);
void net_tell_offloads(struct virtio_net *);
/* The back end learns which queues are used. */
void net_tell_pairs(struct virtio_net *);

#endif
