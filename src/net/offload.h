/*
 * What a card or its guest left to be done with a frame: checksums, cutting into segments, fragments. Pure functions on frames in private memory.
 */
#ifndef DOPPEL_NET_OFFLOAD_H
#define DOPPEL_NET_OFFLOAD_H

#include "net/net.h"

/* Smaller segments would make thousands of frames of one; Linux's smallest is 48. */
#define GSO_SIZE_MIN 40

/* Where the parts of a TCP frame begin; offsets into it. */
struct tcp_frame {
	bool ip6;
	uint16_t ip, tcp, payload;
	size_t end; /* of the IP packet; behind it there may be padding */
};

/* The one's complement sum of the bytes as 16-bit words in memory order, added to `sum`; not complemented. */
uint16_t checksum_add(uint16_t sum, const void *, size_t);
/* False: no TCP over IPv4 or IPv6 without extension headers, a fragment of it, or damaged. */
bool tcp_frame_find(const uint8_t *frame, size_t size, struct tcp_frame *);
/* The sum of the pseudo header, for a segment (TCP header and payload) of so many bytes. */
uint16_t tcp_pseudo_sum(const uint8_t *frame, const struct tcp_frame *, size_t segment_size);

/* Does it make sense for a frame of this size? Of those that do not, nothing is done. */
bool offload_valid(const struct net_offload *, size_t size);

/*
 * Hands over what a receiver gets that takes offloads `can` (NET_CAN_...): the frame itself, or with its checksum filled in, or the segments that
 * it is cut into. The frame is changed. What makes no sense is dropped.
 */
struct frame_sink {
	void (*put)(struct frame_sink *, const uint8_t *frame, size_t size, const struct net_offload *);
};
void offload_apply(uint8_t *frame, size_t size, const struct net_offload *, unsigned can, struct frame_sink *);
/* An IPv4 packet larger than the MTU, in fragments (RFC 791, 3.2); all else is dropped. */
void ip4_fragment(const uint8_t *frame, size_t size, unsigned mtu, struct frame_sink *);

#endif
