/*
 * Frames in a stream of bytes that somebody else wrote.
 */
#include "net/framing.h"

#include <errno.h>

int framing_parse(const uint8_t *data, size_t size, struct net_frame *frames, unsigned most, size_t *used)
{
	unsigned count = 0;

	*used = 0;
	while (count < most && size - *used >= FRAMING_HEADER) {
		const uint8_t *at = data + *used;
		uint32_t length = load_be32(at);

		if (length > NET_FRAME_MAX)
			return -EPROTO;
		if (size - *used - FRAMING_HEADER < length)
			break;
		if (length >= NET_FRAME_MIN)
			frames[count++] = (struct net_frame){ .data = at + FRAMING_HEADER, .size = length };
		*used += FRAMING_HEADER + length;
	}
	return (int)count;
}

void framing_header(uint8_t header[FRAMING_HEADER], size_t size) { store_be32(header, (uint32_t)size); }
