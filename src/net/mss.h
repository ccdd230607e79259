/*
 * Large TCP segments to a guest whose network has a small MTU: the guest's maximum segment size is raised on its way in, so that the host's side sends large frames,
 * which are marked on their way out, to be cut into what the guest had asked for.
 */
#ifndef DOPPEL_NET_MSS_H
#define DOPPEL_NET_MSS_H

#include "net/offload.h"

#define MSS_CONNECTIONS 4096

/* What guests asked for, by connection; of those that fall on one place, the last one. */
struct mss_table {
	uint32_t keys[MSS_CONNECTIONS]; /* hash of both addresses and ports; 0: nobody's */
	uint16_t sizes[MSS_CONNECTIONS];
};

/* A frame from the guest: if it begins a connection, its MSS is noted, and raised to `raised`. A checksum that is there stays right. */
void mss_raise(struct mss_table *, uint8_t *frame, size_t size, const struct net_offload *, uint16_t raised);
/*
 * A TCP frame to the guest, with a good checksum: *offload says so, or how it is to be cut (the checksum in it is then that of the pseudo header).
 * mtu: for connections that are not in the table.
 */
void mss_mark(const struct mss_table *, uint8_t *frame, const struct tcp_frame *, unsigned mtu, struct net_offload *);

#endif
