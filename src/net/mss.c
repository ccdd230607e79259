/*
 * The maximum segment size: RFC 9293, 3.7.1.
 */
#include "net/mss.h"

#define TCP_SYN	   0x02
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_MSS 2
#define MSS_LEAST  (GSO_SIZE_MIN + 40) /* with all options that fit a header; who asks for less gets that */

static uint32_t hash(uint32_t h, const uint8_t *bytes, size_t count)
{
	while (count--)
		h = (h ^ *bytes++) * 16777619u; /* FNV-1a */
	return h;
}

/* The same for both directions of a connection: near is the guest's end. */
static uint32_t connection(const uint8_t *frame, const struct tcp_frame *f, bool from_guest)
{
	unsigned length = f->ip6 ? 16 : 4;
	const uint8_t *source = frame + f->ip + (f->ip6 ? 8 : 12), *target = source + length;
	const uint8_t *ports = frame + f->tcp;
	uint32_t h = hash(2166136261u, from_guest ? source : target, length);

	h = hash(h, from_guest ? target : source, length);
	h = hash(h, ports + (from_guest ? 0 : 2), 2);
	h = hash(h, ports + (from_guest ? 2 : 0), 2);
	return h ? h : 1;
}

/* Offset of the option's value; 0: there is none. */
static unsigned find_mss(const uint8_t *frame, const struct tcp_frame *f)
{
	unsigned at = f->tcp + 20u, length;

	while (at + 4 <= f->payload && frame[at] != OPTION_END) {
		if (frame[at] == OPTION_NOP) {
			at++;
			continue;
		}
		length = frame[at + 1];
		if (frame[at] == OPTION_MSS)
			return length == 4 ? at + 2 : 0;
		if (length < 2)
			return 0;
		at += length;
	}
	return 0;
}

static void replace(uint8_t *frame, const struct tcp_frame *f, unsigned at, uint16_t value,
		    const struct net_offload *offload)
{
	uint8_t bytes[2] = { (uint8_t)(value >> 8), (uint8_t)value };
	uint8_t *sum = frame + f->tcp + 16;
	uint16_t changed;

	/* RFC 1624, in words; the value may be at an odd address, where its bytes count the other way round. */
	if (!(offload->flags & NET_NEEDS_CHECKSUM)) {
		uint8_t old[2] = { (uint8_t)~frame[at], (uint8_t)~frame[at + 1] };
		bool odd = (at - f->tcp) & 1;

		changed = checksum_add((uint16_t)~load_le16(sum), (uint8_t[]){ old[odd], old[!odd] }, 2);
		changed = checksum_add(changed, (uint8_t[]){ bytes[odd], bytes[!odd] }, 2);
		store_le16(sum, (uint16_t)~changed);
	}
	memcpy(frame + at, bytes, 2);
}

void mss_raise(struct mss_table *table, uint8_t *frame, size_t size, const struct net_offload *offload, uint16_t raised)
{
	struct tcp_frame f;
	unsigned at, mss;
	uint32_t key;

	if (!tcp_frame_find(frame, size, &f) || !(frame[f.tcp + 13] & TCP_SYN))
		return;
	at = find_mss(frame, &f);
	if (!at)
		return;
	mss = (unsigned)(frame[at] << 8 | frame[at + 1]);
	key = connection(frame, &f, true);
	table->keys[key % MSS_CONNECTIONS] = key;
	table->sizes[key % MSS_CONNECTIONS] = (uint16_t)MAX(mss, (unsigned)MSS_LEAST);
	if (mss < raised)
		replace(frame, &f, at, raised, offload);
}

void mss_mark(const struct mss_table *table, uint8_t *frame, const struct tcp_frame *f, unsigned mtu,
	      struct net_offload *offload)
{
	uint32_t key = connection(frame, f, false);
	bool known = table->keys[key % MSS_CONNECTIONS] == key;
	unsigned headers = f->payload - f->ip, mss = mtu - (f->ip6 ? 60 : 40);

	if (known)
		mss = MIN(mss, table->sizes[key % MSS_CONNECTIONS]);
	/* Options count as well: a segment with its headers is no larger than the MTU. */
	mss -= MIN(mss - GSO_SIZE_MIN, headers - (f->ip6 ? 60 : 40));
	*offload = (struct net_offload){ .flags = NET_CHECKSUM_GOOD };
	if (f->end - f->payload <= mss)
		return;
	*offload = (struct net_offload){
		.flags = NET_NEEDS_CHECKSUM,
		.gso_type = f->ip6 ? NET_GSO_TCP6 : NET_GSO_TCP4,
		.hdr_len = f->payload,
		.gso_size = (uint16_t)mss,
		.csum_start = f->tcp,
		.csum_offset = 16,
	};
	store_le16(frame + f->tcp + 16, tcp_pseudo_sum(frame, f, f->end - f->tcp));
}
