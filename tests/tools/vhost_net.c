/*
 * vhost_net PATH: a vhost-user back end for a network card, at whose other end is one host, 10.0.9.1, that answers ARP and pings. It serves until it is killed.
 */
#include "../lib/vhost_peer.h"

#include <stdlib.h>

#define HEADER 12u /* struct virtio_net_hdr of virtio 1.0 */
#define FRAME  (HEADER + 14u)

static const uint8_t address[4] = { 10, 0, 9, 1 }, mac[6] = { 0x52, 0x55, 10, 0, 9, 1 };

static void swap(uint8_t *a, uint8_t *b, size_t size)
{
	while (size--) {
		uint8_t byte = *a;

		*a++ = *b;
		*b++ = byte;
	}
}

/* False: nothing to say. */
static bool answer_arp(uint8_t *arp)
{
	if (arp[7] != 1 || memcmp(arp + 24, address, 4) != 0)
		return false;
	arp[7] = 2;
	swap(arp + 8, arp + 18, 10);
	memcpy(arp + 8, mac, 6);
	return true;
}

static bool answer_ping(uint8_t *ip, size_t size)
{
	uint8_t *icmp = ip + 4u * (ip[0] & 15);
	unsigned sum;

	if (icmp + 8 > ip + size || ip[9] != 1 || icmp[0] != 8 || memcmp(ip + 16, address, 4) != 0)
		return false;
	swap(ip + 12, ip + 16, 4);
	icmp[0] = 0;
	sum = (unsigned)(icmp[2] << 8 | icmp[3]) + 0x800; /* what the type was */
	sum += sum >> 16;
	icmp[2] = (uint8_t)(sum >> 8);
	icmp[3] = (uint8_t)sum;
	return true;
}

static bool answer(uint8_t *frame, size_t size)
{
	uint8_t *ethernet = frame + HEADER, *packet = frame + FRAME;
	unsigned type;

	if (size < FRAME + 28)
		return false;
	type = (unsigned)(ethernet[12] << 8 | ethernet[13]);
	if (!(type == 0x806 ? answer_arp(packet) : type == 0x800 && answer_ping(packet, size - FRAME)))
		return false;
	memcpy(ethernet, ethernet + 6, 6);
	memcpy(ethernet + 6, mac, 6);
	memset(frame, 0, HEADER);
	frame[10] = 1; /* it fills one buffer */
	return true;
}

/* Answers come by the pair of queues that the question came by. */
static void kicked(struct vhost_peer *p, unsigned ring)
{
	unsigned to_guest = ring & ~1u, from_guest = ring | 1;
	struct peer_chain in, out;
	uint8_t frame[4096];

	while (p->rings[from_guest].enabled && peer_pop(p, from_guest, &out)) {
		size_t size = peer_copy(out.out, out.out_count, 0, frame, sizeof(frame), false);

		peer_push(p, from_guest, out.head, 0);
		if (answer(frame, size) && p->rings[to_guest].enabled && peer_pop(p, to_guest, &in))
			peer_push(p, to_guest, in.head, (uint32_t)peer_copy(in.in, in.in_count, 0, frame, size, true));
	}
}

int main(int argc, char **argv)
{
	struct vhost_peer p;

	peer_init(&p);
	p.features |= 1ull << 15 | 1ull << 22; /* VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MQ */
	p.queues = PEER_RINGS / 2;	       /* pairs */
	p.kicked = kicked;
	if (argc != 2 || !peer_listen(&p, argv[1]))
		return 1;
	peer_run(&p);
	return 0;
}
