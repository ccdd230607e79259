/*
 * QEMU's stream protocol: 4 bytes of length, big-endian, and a frame; then the next one.
 */
#ifndef DOPPEL_NET_FRAMING_H
#define DOPPEL_NET_FRAMING_H

#include "net/net.h"

#define FRAMING_HEADER 4

/*
 * The whole frames at the beginning of `size` bytes, at most `most`, where *used says how many bytes they are. How many; -EPROTO: a length that no frame
 * has. Those too short to be frames are passed over.
 */
int framing_parse(const uint8_t *data, size_t size, struct net_frame *, unsigned most, size_t *used);
void framing_header(uint8_t header[FRAMING_HEADER], size_t size);

#endif
