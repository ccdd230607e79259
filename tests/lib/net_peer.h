/*
 * A guest for a net, made of the frames that a test writes by hand: ARP, DHCP, UDP and as much of TCP as one connection without losses needs. Frames that
 * come are kept in a queue; the net's thread fills it.
 */
#ifndef TESTS_NET_PEER_H
#define TESTS_NET_PEER_H

#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define PEER_GIVE_UP 60 /* seconds */
#define PEER_KEEPS   256

struct peer_frame {
	size_t size;
	struct net_offload offload;
	uint8_t *data;
};

struct net_peer {
	struct net *net;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct peer_frame frames[PEER_KEEPS];
	unsigned first, count;
	unsigned accepts; /* frames: that many more are taken */
	unsigned downs, ups, writables;
	pthread_t receiver; /* the thread that brought the last frames */
};

static inline unsigned peer_received(void *opaque, const struct net_frame *frames, unsigned count)
{
	struct net_peer *p = opaque;
	unsigned n;

	pthread_mutex_lock(&p->lock);
	p->receiver = pthread_self();
	for (n = 0; n < count && p->accepts && p->count < PEER_KEEPS; n++) {
		struct peer_frame *f = &p->frames[(p->first + p->count++) % PEER_KEEPS];

		*f = (struct peer_frame){ frames[n].size, frames[n].offload, malloc(frames[n].size) };
		memcpy(f->data, frames[n].data, f->size);
		p->accepts--;
	}
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	return n;
}

static inline void peer_link(void *opaque, bool up)
{
	struct net_peer *p = opaque;

	pthread_mutex_lock(&p->lock);
	p->ups += up;
	p->downs += !up;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static inline void peer_writable(void *opaque)
{
	struct net_peer *p = opaque;

	pthread_mutex_lock(&p->lock);
	p->writables++;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static const struct net_ops peer_ops = { .received = peer_received, .link = peer_link, .writable = peer_writable };

static inline void peer_open(struct net_peer *p, const char *spec)
{
	struct error err = { 0 };

	memset(p, 0, sizeof(*p));
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	p->accepts = UINT32_MAX;
	p->net = net_open(spec, &err);
	if (!p->net || net_attach(p->net, &peer_ops, p, &err))
		fail_msg("%s: %s", spec, err.text);
}

static inline void peer_close(struct net_peer *p)
{
	net_close(p->net);
	for (; p->count; p->count--)
		free(p->frames[p->first++ % PEER_KEEPS].data);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
}

/* Waits for a change; the lock is held. */
static inline void peer_wait(struct net_peer *p)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PEER_GIVE_UP;
	if (pthread_cond_timedwait(&p->changed, &p->lock, &end))
		fail_msg("nothing happens for %d s", PEER_GIVE_UP);
}

/* Until the counter is at least so high. */
static inline void peer_wait_for(struct net_peer *p, const unsigned *counter, unsigned least)
{
	pthread_mutex_lock(&p->lock);
	while (*counter < least)
		peer_wait(p);
	pthread_mutex_unlock(&p->lock);
}

/* The next frame, whose data is the caller's. */
static inline struct peer_frame peer_next(struct net_peer *p)
{
	struct peer_frame f;

	pthread_mutex_lock(&p->lock);
	while (!p->count)
		peer_wait(p);
	f = p->frames[p->first++ % PEER_KEEPS];
	p->count--;
	pthread_mutex_unlock(&p->lock);
	return f;
}

static inline void peer_send(struct net_peer *p, const void *frame, size_t size, const struct net_offload *offload)
{
	/* In pieces, as a guest's. */
	struct iovec iov[2] = { { (void *)frame, 10 }, { (uint8_t *)frame + 10, size - 10 } };
	unsigned writables;
	int rc;

	do {
		pthread_mutex_lock(&p->lock);
		writables = p->writables;
		pthread_mutex_unlock(&p->lock);
		rc = net_send(p->net, iov, 2, offload ? offload : &(struct net_offload){ 0 });
		if (rc == -EAGAIN)
			peer_wait_for(p, &p->writables, writables + 1);
	} while (rc == -EAGAIN);
	assert_int_equal(rc, 0);
}

/* ---- frames ---- */

static const uint8_t peer_mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };

#define PEER_ADDRESS 0x0a00020fu /* 10.0.2.15 */
#define PEER_HOST    0x0a000202u

static inline void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}
static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}
static inline unsigned get16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }
static inline uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }

/* The plain way, to compare with. */
static inline uint16_t slow_sum(uint32_t sum, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		sum += i & 1 ? data[i] : (uint32_t)data[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static inline uint16_t slow_pseudo(const uint8_t *ip, size_t size)
{
	return slow_sum((uint32_t)ip[9] + (uint32_t)size, ip + 12, 8);
}

/* Ethernet and IPv4 headers at the beginning of a frame of `size` bytes. */
static inline void put_ip(uint8_t *frame, size_t size, uint32_t from, uint32_t to, uint8_t protocol)
{
	uint8_t *ip = frame + 14;

	memcpy(frame, (const uint8_t[]){ 0x52, 0x55, 0x0a, 0, 2, 2 }, 6);
	memcpy(frame + 6, peer_mac, 6);
	put16(frame + 12, 0x0800);
	memset(ip, 0, 20);
	ip[0] = 0x45;
	put16(ip + 2, (unsigned)size - 14);
	ip[8] = 64;
	ip[9] = protocol;
	put32(ip + 12, from);
	put32(ip + 16, to);
	put16(ip + 10, (uint16_t)~slow_sum(0, ip, 20));
}

#define PEER_FIN 1
#define PEER_SYN 2
#define PEER_RST 4
#define PEER_PSH 8
#define PEER_ACK 16

struct peer_tcp {
	uint32_t to;
	uint16_t here, there;
	uint32_t next, seen; /* sequence numbers: ours, and what of theirs is acknowledged */
};

/* A segment with a good checksum, or one that a card is to cut (gso_size not 0). SYNs have an MSS of 1460. */
static inline void peer_segment(struct net_peer *p, struct peer_tcp *c, unsigned flags, const void *data, size_t size,
				unsigned gso_size)
{
	unsigned header = flags & PEER_SYN ? 24 : 20;
	struct net_offload offload = { 0 };
	uint8_t *frame = calloc(1, 14 + 20 + header + size), *tcp = frame + 34;
	size_t all = header + size;

	put_ip(frame, 34 + all, PEER_ADDRESS, c->to, 6);
	put16(tcp, c->here);
	put16(tcp + 2, c->there);
	put32(tcp + 4, c->next);
	put32(tcp + 8, flags & PEER_ACK ? c->seen : 0);
	tcp[12] = (uint8_t)(header / 4 << 4);
	tcp[13] = (uint8_t)flags;
	put16(tcp + 14, 65535);
	if (flags & PEER_SYN)
		put32(tcp + 20, 0x020405b4);
	if (size)
		memcpy(tcp + header, data, size);
	put16(tcp + 16, slow_pseudo(frame + 14, all));
	if (gso_size)
		offload = (struct net_offload){ NET_NEEDS_CHECKSUM, NET_GSO_TCP4, (uint16_t)(34 + header),
						(uint16_t)gso_size, 34,		  16 };
	else
		put16(tcp + 16, (uint16_t)~slow_sum(0, tcp, all));
	peer_send(p, frame, 34 + all, &offload);
	c->next += (uint32_t)size + !!(flags & (PEER_SYN | PEER_FIN));
	free(frame);
}

/* The next segment or datagram for the port; other frames are passed over, but for ARP requests, which are answered. */
static inline struct peer_frame peer_next_to(struct net_peer *p, uint8_t protocol, uint16_t port)
{
	for (;;) {
		struct peer_frame f = peer_next(p);

		if (f.size >= 42 && get16(f.data + 12) == 0x0800 && f.data[23] == protocol &&
		    get16(f.data + 36) == port)
			return f;
		if (get16(f.data + 12) == 0x0806 && f.data[21] == 1) {
			uint8_t reply[42];

			memcpy(reply, f.data, 42);
			memcpy(reply, f.data + 6, 6);
			memcpy(reply + 6, peer_mac, 6);
			reply[21] = 2;
			memcpy(reply + 22, peer_mac, 6);
			memcpy(reply + 28, f.data + 38, 4);
			memcpy(reply + 32, f.data + 22, 10);
			peer_send(p, reply, sizeof(reply), NULL);
		}
		free(f.data);
	}
}

static inline struct peer_frame peer_next_tcp(struct net_peer *p, uint16_t port) { return peer_next_to(p, 6, port); }

static inline void peer_arp(struct net_peer *p, uint32_t who)
{
	uint8_t frame[42] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	memcpy(frame + 6, peer_mac, 6);
	put16(frame + 12, 0x0806);
	memcpy(frame + 14, (const uint8_t[]){ 0, 1, 8, 0, 6, 4, 0, 1 }, 8);
	memcpy(frame + 22, peer_mac, 6);
	put32(frame + 28, PEER_ADDRESS);
	put32(frame + 38, who);
	peer_send(p, frame, sizeof(frame), NULL);
}

#endif
