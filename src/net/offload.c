/*
 * Checksums, segments and fragments, in software: for receivers that do not do them.
 */
#include "net/offload.h"

#define ETH_HEADER    14
#define ETHERTYPE_IP4 0x0800
#define ETHERTYPE_IP6 0x86dd
#define ETHERTYPE_TAG 0x8100
#define PROTOCOL_TCP  6
#define TCP_FIN	      0x01
#define TCP_PSH	      0x08
#define TCP_CWR	      0x80

/* ---- checksums (RFC 1071): in memory order, so without swapping bytes ---- */

uint16_t checksum_add(uint16_t sum, const void *data, size_t size)
{
	const uint8_t *at = data;
	uint64_t total = sum;

	for (; size >= 4; at += 4, size -= 4)
		total += load_le32(at);
	if (size >= 2) {
		total += load_le16(at);
		at += 2;
		size -= 2;
	}
	if (size)
		total += *at;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint16_t)total;
}

/* As it is stored; a sum of 0 would say in UDP that there is none. */
static uint16_t checksum_end(uint16_t sum) { return sum == 0xffff ? 0xffff : (uint16_t)~sum; }

uint16_t tcp_pseudo_sum(const uint8_t *frame, const struct tcp_frame *f, size_t segment_size)
{
	uint8_t rest[8] = { 0 };
	uint16_t sum;

	sum = f->ip6 ? checksum_add(0, frame + f->ip + 8, 32) : checksum_add(0, frame + f->ip + 12, 8);
	store_be16(rest + 2, (uint16_t)segment_size);
	rest[7] = PROTOCOL_TCP;
	return checksum_add(sum, rest, sizeof(rest));
}

static void fill_in_checksum(uint8_t *frame, size_t size, const struct net_offload *offload)
{
	uint16_t sum = checksum_add(0, frame + offload->csum_start, size - offload->csum_start);

	store_le16(frame + offload->csum_start + offload->csum_offset, checksum_end(sum));
}

/* ---- headers ---- */

/* Offset of the IP header, its type in *type; 0: too short. */
static uint16_t find_ip(const uint8_t *frame, size_t size, uint16_t *type)
{
	uint16_t at = ETH_HEADER;

	if (size < ETH_HEADER + 20)
		return 0;
	*type = load_be16(frame + 12);
	if (*type == ETHERTYPE_TAG) {
		*type = load_be16(frame + 16);
		at += 4;
	}
	return size < at + 20u ? 0 : at;
}

static bool find_tcp4(const uint8_t *frame, size_t size, struct tcp_frame *f)
{
	const uint8_t *ip = frame + f->ip;
	unsigned header = (ip[0] & 15) * 4u, length = load_be16(ip + 2);

	f->ip6 = false;
	f->tcp = (uint16_t)(f->ip + header);
	f->end = (size_t)f->ip + length;
	return ip[0] >> 4 == 4 && header >= 20 && length >= header + 20 && f->end <= size && ip[9] == PROTOCOL_TCP &&
	       !(load_be16(ip + 6) & 0x3fff);
}

static bool find_tcp6(const uint8_t *frame, size_t size, struct tcp_frame *f)
{
	const uint8_t *ip = frame + f->ip;

	if (size < f->ip + 60u)
		return false;
	f->ip6 = true;
	f->tcp = (uint16_t)(f->ip + 40);
	f->end = (size_t)f->tcp + load_be16(ip + 4);
	return ip[0] >> 4 == 6 && ip[6] == PROTOCOL_TCP && f->end >= f->tcp + 20u && f->end <= size;
}

bool tcp_frame_find(const uint8_t *frame, size_t size, struct tcp_frame *f)
{
	unsigned header;
	uint16_t type;

	f->ip = find_ip(frame, size, &type);
	if (!f->ip)
		return false;
	if (type != ETHERTYPE_IP4 && type != ETHERTYPE_IP6)
		return false;
	if (type == ETHERTYPE_IP4 ? !find_tcp4(frame, size, f) : !find_tcp6(frame, size, f))
		return false;
	header = (frame[f->tcp + 12] >> 4) * 4u;
	f->payload = (uint16_t)(f->tcp + header);
	return header >= 20 && f->payload <= f->end;
}

/* ---- segments ---- */

bool offload_valid(const struct net_offload *o, size_t size)
{
	unsigned type = o->gso_type & (unsigned)~NET_GSO_ECN;

	if (o->flags & NET_NEEDS_CHECKSUM && !range_ok((size_t)o->csum_start + o->csum_offset, 2, size))
		return false;
	if (type == NET_GSO_NONE)
		return o->gso_type == NET_GSO_NONE;
	return (type == NET_GSO_TCP4 || type == NET_GSO_TCP6) && o->flags & NET_NEEDS_CHECKSUM &&
	       o->gso_size >= GSO_SIZE_MIN;
}

/* The headers of the segment that is in `out`; so many bytes of payload were before it. */
static void fix_headers(uint8_t *out, size_t size, const struct tcp_frame *f, size_t before, unsigned number, bool last)
{
	uint8_t *ip = out + f->ip, *tcp = out + f->tcp;

	if (f->ip6) {
		store_be16(ip + 4, (uint16_t)(size - f->tcp));
	} else {
		store_be16(ip + 2, (uint16_t)(size - f->ip));
		store_be16(ip + 4, load_be16(ip + 4) + number);
		store_le16(ip + 10, 0);
		store_le16(ip + 10, (uint16_t)~checksum_add(0, ip, (size_t)(f->tcp - f->ip)));
	}
	store_be32(tcp + 4, load_be32(tcp + 4) + (uint32_t)before);
	if (!last)
		tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	if (number)
		tcp[13] &= (uint8_t)~TCP_CWR;
	store_le16(tcp + 16, 0);
	store_le16(tcp + 16, checksum_end(checksum_add(tcp_pseudo_sum(out, f, size - f->tcp), tcp, size - f->tcp)));
}

static void cut(const uint8_t *frame, size_t size, unsigned gso_size, unsigned can, struct frame_sink *sink)
{
	const struct net_offload done = { .flags = can & NET_CAN_CHECKSUM ? NET_CHECKSUM_GOOD : 0 };
	uint8_t out[NET_FRAME_MAX];
	struct tcp_frame f;
	unsigned number = 0;
	size_t at, part;

	if (!tcp_frame_find(frame, size, &f))
		return;
	at = f.payload;
	do {
		part = MIN((size_t)gso_size, f.end - at);
		memcpy(out, frame, f.payload);
		memcpy(out + f.payload, frame + at, part);
		fix_headers(out, f.payload + part, &f, at - f.payload, number++, at + part == f.end);
		sink->put(sink, out, f.payload + part, &done);
		at += part;
	} while (at < f.end);
}

void offload_apply(uint8_t *frame, size_t size, const struct net_offload *offload, unsigned can,
		   struct frame_sink *sink)
{
	static const struct net_offload nothing;
	unsigned type = offload->gso_type & (unsigned)~NET_GSO_ECN;
	unsigned needs = type == NET_GSO_TCP4 ? NET_CAN_TCP4 : type == NET_GSO_TCP6 ? NET_CAN_TCP6 : 0;

	if (offload->gso_type & NET_GSO_ECN)
		needs |= NET_CAN_ECN;
	if (!offload_valid(offload, size))
		return;
	if (needs & ~can) {
		cut(frame, size, offload->gso_size, can, sink);
		return;
	}
	if (can & NET_CAN_CHECKSUM || !offload->flags) {
		sink->put(sink, frame, size, offload);
		return;
	}
	if (offload->flags & NET_NEEDS_CHECKSUM)
		fill_in_checksum(frame, size, offload);
	sink->put(sink, frame, size, &nothing);
}

/* ---- fragments ---- */

#define IP_DONT_FRAGMENT  0x4000
#define IP_MORE_FRAGMENTS 0x2000

static void put_fragment(const uint8_t *frame, unsigned ip, unsigned header, size_t at, size_t part, bool more,
			 struct frame_sink *sink)
{
	static const struct net_offload nothing;
	unsigned offset = (unsigned)(at - ip - header) / 8 + (load_be16(frame + ip + 6) & 0x1fff);
	uint8_t out[NET_FRAME_MAX];

	memcpy(out, frame, ip + header);
	memcpy(out + ip + header, frame + at, part);
	store_be16(out + ip + 2, (uint16_t)(header + part));
	if (load_be16(frame + ip + 6) & IP_MORE_FRAGMENTS)
		more = true;
	store_be16(out + ip + 6, offset | (more ? IP_MORE_FRAGMENTS : 0));
	store_le16(out + ip + 10, 0);
	store_le16(out + ip + 10, (uint16_t)~checksum_add(0, out + ip, header));
	sink->put(sink, out, ip + header + part, &nothing);
}

void ip4_fragment(const uint8_t *frame, size_t size, unsigned mtu, struct frame_sink *sink)
{
	unsigned header, length;
	size_t at, end, part;
	uint16_t type, ip;

	ip = find_ip(frame, size, &type);
	if (!ip || type != ETHERTYPE_IP4 || frame[ip] >> 4 != 4)
		return;
	header = (frame[ip] & 15) * 4u;
	length = load_be16(frame + ip + 2);
	if (header < 20 || length <= header || ip + length > size || mtu < header + 8)
		return;
	end = (size_t)ip + length;
	for (at = ip + header; at < end; at += part) {
		part = MIN(end - at, (size_t)(mtu - header) & ~(size_t)7);
		put_fragment(frame, ip, header, at, part, at + part < end, sink);
	}
}
