/*
 * What a net's spec says.
 */
#ifndef DOPPEL_NET_SPEC_H
#define DOPPEL_NET_SPEC_H

#include "net/net.h"

#include <netinet/in.h>

#define NET_MOST_FORWARDS 32
#define NET_CAPTURE_MIB	  1024 /* unless the spec says so */
#define NET_PATH_SIZE	  108  /* of struct sockaddr_un */

struct net_place {
	union {
		struct in_addr ip4;
		struct in6_addr ip6;
	} address; /* 0: all of the host's; in the guest, the one that DHCP gives, or the first one with IPv6 that is seen */
	uint16_t port;
};

/* A port of the host, or a socket's path, whose connections come out in the guest. */
struct net_forward {
	enum { FORWARD_TCP, FORWARD_UDP, FORWARD_UNIX } kind;
	bool ip6; /* both addresses: libslirp translates none */
	struct net_place host, guest;
	char path[NET_PATH_SIZE];
};

/* What the user network's process has to know. */
struct net_user_spec {
	char hostname[64];	      /* "": none */
	struct in_addr network, mask; /* of IPv4; the host's order has no part in it */
	struct in_addr dns;	      /* 0: the host's resolver, as 10.0.2.3 */
	bool restricted;	      /* only forwards */
	bool ip6;
	unsigned mtu;
	unsigned forward_count;
	struct net_forward forwards[NET_MOST_FORWARDS];
};

struct net_spec {
	enum { NET_USER, NET_STREAM_UNIX, NET_STREAM_TCP, NET_TAP, NET_VHOST_USER, NET_NONE } kind;
	char where[256]; /* a path, HOST, or a device's name */
	char port[8];	 /* of stream:tcp */
	bool server;
	char capture[256]; /* path; "": none */
	unsigned capture_mib;
	bool has_mac;
	uint8_t mac[NET_MAC_SIZE];
	unsigned mtu; /* 0: not given */
	struct net_user_spec user;
};

int net_spec_parse(const char *spec, struct net_spec *, struct error *);
/* "tcp:127.0.0.1:2222-22" again. */
void net_forward_print(const struct net_forward *, char *text, size_t size);

#endif
