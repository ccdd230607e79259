/*
 * Everything of src/net that looks at bytes of others: frames of a guest with any offload, cut, summed up, fragmented, with a raised MSS; a stream; the rings' records;
 * specs.
 */
#include "net/framing.h"
#include "net/mss.h"
#include "net/ring.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

struct checker {
	struct frame_sink sink;
	unsigned can;
	unsigned count;
};

static void check(struct frame_sink *sink, const uint8_t *frame, size_t size, const struct net_offload *offload)
{
	struct checker *c = (struct checker *)sink;
	uint8_t *copy = malloc(size); /* all of it is there */

	BUG_ON(size > NET_FRAME_MAX);
	BUG_ON(offload->flags && !(c->can & NET_CAN_CHECKSUM));
	BUG_ON(offload->gso_type == NET_GSO_TCP4 && !(c->can & NET_CAN_TCP4));
	memcpy(copy, frame, size);
	free(copy);
	c->count++;
}

static void frames(const uint8_t *data, size_t size)
{
	static struct mss_table table;
	struct checker c = { .sink = { check } };
	struct net_offload offload, marked;
	struct tcp_frame tcp;
	uint8_t *frame;

	if (size < sizeof(offload) + 1)
		return;
	/* A guest that takes segments takes half a checksum. */
	c.can = data[0] & 1 ? data[0] & 15 : 0;
	memcpy(&offload, data + 1, sizeof(offload));
	data += 1 + sizeof(offload);
	size -= 1 + sizeof(offload);
	/* In memory of its own size, so that what is behind it is seen. */
	frame = malloc(MAX(size, (size_t)1));
	memcpy(frame, data, size);
	mss_raise(&table, frame, size, &offload, 65481);
	offload_apply(frame, size, &offload, c.can, &c.sink);
	memcpy(frame, data, size);
	if (tcp_frame_find(frame, size, &tcp)) {
		mss_mark(&table, frame, &tcp, 1500, &marked);
		BUG_ON(!offload_valid(&marked, size));
		offload_apply(frame, size, &marked, c.can, &c.sink);
	}
	ip4_fragment(frame, size, 68 + c.can * 100, &c.sink);
	BUG_ON(c.count > 4 * NET_FRAME_MAX / 8);
	free(frame);
}

static void stream(const uint8_t *data, size_t size)
{
	struct net_frame found[4];
	size_t used;
	int count;

	while ((count = framing_parse(data, size, found, 4, &used)) >= 0 && used) {
		for (int i = 0; i < count; i++)
			BUG_ON(found[i].data < data || found[i].data + found[i].size > data + used);
		data += used;
		size -= used;
	}
}

static void ring(const uint8_t *data, size_t size)
{
	static struct channel ch;
	struct net_frame found[8];
	struct ring reader;
	int count;

	if (size < 8)
		return;
	BUG_ON(!ch.shared && channel_create(&ch, NULL));
	reader = ch.to_guest;
	reader.at = load_le32(data);
	atomic_store(&ch.shared->to_guest.written, load_le32(data + 4));
	for (size_t i = 8; i < size; i++)
		reader.data[(reader.at + i - 8) % RING_SIZE] = data[i];
	while ((count = ring_peek(&reader, found, 8)) > 0) {
		for (int i = 0; i < count; i++)
			BUG_ON(found[i].data < reader.data ||
			       found[i].data + found[i].size > reader.data + 2 * RING_SIZE);
		ring_release(&reader, found, (unsigned)count);
	}
}

static void spec(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);

	net_check(text, NULL);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const targets[])(const uint8_t *, size_t) = { frames, stream, ring, spec };

	if (size)
		targets[data[0] % ARRAY_SIZE(targets)](data + 1, size - 1);
	return 0;
}
