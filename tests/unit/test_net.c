/*
 * Networks without the user network's process: specs, checksums, segments, fragments, the raised MSS, framing, rings, streams between two nets, the walls.
 */
#define _GNU_SOURCE
#include "lib/net_peer.h"
#include "net/framing.h"
#include "net/helper.h"
#include "net/mss.h"
#include "net/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- specs ---- */

static void refused(const char *text, const char *why)
{
	struct error err = { 0 };

	assert_int_equal(net_check(text, &err), -EINVAL);
	if (!strstr(err.text, why))
		fail_msg("'%s': %s", text, err.text);
}

static void test_spec(void **state)
{
	struct net_spec s;
	char text[256];

	(void)state;
	assert_int_equal(net_spec_parse("user,forward=tcp:127.0.0.1:2222-22,forward=udp:53-10.0.2.20:5353,restrict,"
					"forward=unix:/run/a-b:c-80,hostname=a.b,dns=1.2.3.4,mtu=9000,ipv6=off,"
					"mac=52:54:00:ab:cd:ef,capture=/tmp/x.pcap",
					&s, NULL),
			 0);
	assert_int_equal(s.kind, NET_USER);
	assert_int_equal(s.user.forward_count, 3);
	net_forward_print(&s.user.forwards[0], text, sizeof(text));
	assert_string_equal(text, "tcp:127.0.0.1:2222-22");
	net_forward_print(&s.user.forwards[1], text, sizeof(text));
	assert_string_equal(text, "udp:53-10.0.2.20:5353");
	net_forward_print(&s.user.forwards[2], text, sizeof(text));
	assert_string_equal(text, "unix:/run/a-b:c-80");
	assert_true(s.user.restricted && !s.user.ip6 && s.user.mtu == 9000 && s.mtu == 9000 && s.mac[5] == 0xef);
	assert_int_equal(net_spec_parse("user,forward=tcp:[::1]:2222-:22,forward=udp:53-[fec0::15]:5353,"
					"forward=tcp::80-:8080",
					&s, NULL),
			 0);
	net_forward_print(&s.user.forwards[0], text, sizeof(text));
	assert_string_equal(text, "tcp:[::1]:2222-[::]:22");
	net_forward_print(&s.user.forwards[1], text, sizeof(text));
	assert_string_equal(text, "udp:[::]:53-[fec0::15]:5353");
	net_forward_print(&s.user.forwards[2], text, sizeof(text));
	assert_string_equal(text, "tcp:80-8080");
	assert_int_equal(net_spec_parse("stream:tcp:[::1]:99,server", &s, NULL), 0);
	assert_string_equal(s.where, "::1");
	assert_string_equal(s.port, "99");
	assert_true(s.server);
	assert_int_equal(net_spec_parse("stream:unix:/a", &s, NULL), 0);
	assert_string_equal(s.where, "/a");
	assert_int_equal(net_spec_parse("user,net=169.254.7.7/16", &s, NULL), 0);
	assert_int_equal(ntohl(s.user.network.s_addr), 0xa9fe0000);
	assert_int_equal(ntohl(s.user.mask.s_addr), 0xffff0000);
	assert_int_equal(net_spec_parse("tap:doppel0", &s, NULL), 0);
	assert_int_equal(net_spec_parse("none", &s, NULL), 0);
}

static void test_bad_specs(void **state)
{
	(void)state;
	refused("", "is no network; expected user");
	refused("use", "'use' is no network");
	refused("stream:unix:", "is no network");
	refused("stream:tcp:localhost", "is no network");
	refused("stream:tcp:localhost:0", "is no network");
	refused("stream:tcp::80", "is no network");
	refused("tap:name-that-is-too-long", "is no network");
	refused("none,restrict", "option 'restrict' is unknown; expected hostname, mtu, mac, capture, capture-size");
	refused("user,forward", "option 'forward' has no value");
	refused("user,forward=tcp:22", "expected tcp:[HOSTADDRESS:]PORT-[GUESTADDRESS:]PORT");
	refused("user,forward=tcp:65536-22", "option 'forward' is 'tcp:65536-22'");
	refused("user,forward=tcp:0-22", "option 'forward'");
	refused("user,forward=tcp:1.2.3:80-22", "option 'forward'");
	refused("user,forward=sctp:80-22", "option 'forward'");
	refused("user,forward=unix:-22", "option 'forward'");
	refused("user,forward=tcp:[::1:80-22", "option 'forward'");
	refused("user,forward=tcp:[1.2.3.4]:80-22", "option 'forward'");
	refused("user,forward=tcp:[::1]:80-10.0.2.15:22", "either IPv4 addresses or IPv6 addresses in brackets");
	refused("user,forward=tcp:127.0.0.1:80-[fec0::15]:22", "option 'forward'");
	refused("user,forward=unix:/a-[fec0::15]:22", "option 'forward'");
	refused("user,forward=tcp:[::1]:80-22,ipv6=off",
		"option 'forward' is 'tcp:[::1]:80-[::]:22', but 'ipv6' is off");
	refused("user,mtu=1279", "option 'mtu' is '1279'; expected a number from 1280 to 65520");
	refused("user,mtu=1500x", "option 'mtu'");
	refused("user,capture-size=0", "option 'capture-size' is '0'; expected a number of MiB");
	refused("user,dns=dns.example", "expected an IPv4 address");
	refused("user,net=10.0.0.0", "expected an IPv4 address and 8 to 27 bits");
	refused("user,net=10.0.0.0/28", "option 'net'");
	refused("user,net=10.0.0/24", "option 'net'");
	refused("tap:x,net=10.0.0.0/24", "option 'net' is unknown");
	refused("user,mac=53:54:00:00:00:01", "option 'mac'");
	refused("user,mac=52:54:00:00:00:1", "option 'mac'");
	refused("user,hostname=a b", "option 'hostname'");
	refused("user,restrict=perhaps", "expected on or off");
	refused("user,server", "option 'server' is unknown");
}

/* ---- frames ---- */

struct collector {
	struct frame_sink sink;
	unsigned count;
	size_t sizes[4096];
	uint8_t *frames[4096];
	struct net_offload offloads[4096];
};

static void collect(struct frame_sink *sink, const uint8_t *frame, size_t size, const struct net_offload *offload)
{
	struct collector *c = (struct collector *)sink;

	c->sizes[c->count] = size;
	c->frames[c->count] = malloc(size);
	memcpy(c->frames[c->count], frame, size);
	c->offloads[c->count++] = *offload;
}

static void forget(struct collector *c)
{
	while (c->count)
		free(c->frames[--c->count]);
}

static struct collector collector = { .sink = { collect } };

static void test_checksum(void **state)
{
	uint8_t data[301];

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 89 + 7);
	for (size_t size = 0; size <= sizeof(data); size++) {
		uint8_t sum[2];

		store_le16(sum, checksum_add(0, data, size));
		assert_int_equal(get16(sum), slow_sum(0, data, size));
	}
	memset(data, 0xff, sizeof(data));
	assert_int_equal(checksum_add(0xffff, data, 300), 0xffff);
}

#define PAYLOAD 5000

/* A TCP frame over IPv4 or IPv6 with options, whose checksum is left to others. */
static size_t tcp_frame(uint8_t *frame, bool ip6, size_t payload, struct net_offload *offload)
{
	size_t ip_size = ip6 ? 40 : 20, tcp_at = 14 + ip_size, size = tcp_at + 32 + payload;
	struct tcp_frame f;

	memset(frame, 0, size);
	if (ip6) {
		put16(frame + 12, 0x86dd);
		frame[14] = 0x60;
		put16(frame + 18, (unsigned)(32 + payload));
		frame[20] = 6;
		for (unsigned i = 0; i < 32; i++)
			frame[22 + i] = (uint8_t)(i * 3);
	} else {
		put_ip(frame, size, PEER_ADDRESS, PEER_HOST, 6);
		put16(frame + 18, 0xfffe); /* its number will wrap */
		put16(frame + 24, 0);
		put16(frame + 24, (uint16_t)~slow_sum(0, frame + 14, 20));
	}
	put32(frame + tcp_at, 0x12345678);
	put32(frame + tcp_at + 4, 0xfffffff0);
	frame[tcp_at + 12] = 0x80;
	frame[tcp_at + 13] = 0x80 | PEER_FIN | PEER_PSH | PEER_ACK;
	for (size_t i = 0; i < payload; i++)
		frame[tcp_at + 32 + i] = (uint8_t)(i * 7 + i / 256);
	assert_true(tcp_frame_find(frame, size, &f));
	assert_int_equal(f.payload, tcp_at + 32);
	store_le16(frame + tcp_at + 16, tcp_pseudo_sum(frame, &f, size - tcp_at));
	*offload = (struct net_offload){
		NET_NEEDS_CHECKSUM, ip6 ? NET_GSO_TCP6 : NET_GSO_TCP4, 0, 1000, (uint16_t)tcp_at, 16
	};
	return size;
}

static void check_tcp(const uint8_t *frame, size_t size, bool ip6)
{
	size_t tcp_at = ip6 ? 54 : 34;
	uint16_t pseudo =
		ip6 ? slow_sum((uint32_t)(6 + size - tcp_at), frame + 22, 32) : slow_pseudo(frame + 14, size - tcp_at);

	assert_int_equal(slow_sum(pseudo, frame + tcp_at, size - tcp_at), 0xffff);
	assert_int_equal(ip6 ? get16(frame + 18) + 54 : get16(frame + 16) + 14, size);
	if (!ip6)
		assert_int_equal(slow_sum(0, frame + 14, 20), 0xffff);
}

static void check_cut(bool ip6)
{
	static uint8_t frame[NET_FRAME_MAX];
	struct net_offload offload;
	size_t size = tcp_frame(frame, ip6, PAYLOAD + 1, &offload), tcp_at = ip6 ? 54 : 34;

	offload.gso_type |= NET_GSO_ECN;
	offload_apply(frame, size, &offload, NET_CAN_TCP4 | NET_CAN_TCP6, &collector.sink);
	assert_int_equal(collector.count, 6);
	for (unsigned i = 0; i < 6; i++) {
		const uint8_t *f = collector.frames[i];
		size_t part = i < 5 ? 1000 : 1;

		assert_int_equal(collector.sizes[i], tcp_at + 32 + part);
		check_tcp(f, collector.sizes[i], ip6);
		assert_int_equal(get32(f + tcp_at + 4), (uint32_t)(0xfffffff0 + i * 1000));
		assert_memory_equal(f + tcp_at + 32, frame + tcp_at + 32 + i * 1000, part);
		assert_int_equal(f[tcp_at + 13], PEER_ACK | (i ? 0 : 0x80) | (i < 5 ? 0 : PEER_FIN | PEER_PSH));
		if (!ip6)
			assert_int_equal(get16(f + 18), (uint16_t)(0xfffe + i));
	}
	forget(&collector);
}

static void test_segments(void **state)
{
	(void)state;
	check_cut(false);
	check_cut(true);
}

static void test_offload(void **state)
{
	static uint8_t frame[NET_FRAME_MAX];
	struct net_offload offload, bad;
	size_t size = tcp_frame(frame, false, PAYLOAD, &offload);

	(void)state;
	/* Who can do it all gets it as it is. */
	offload_apply(frame, size, &offload, NET_CAN_CHECKSUM | NET_CAN_TCP4, &collector.sink);
	assert_int_equal(collector.count, 1);
	assert_memory_equal(&collector.offloads[0], &offload, sizeof(offload));
	forget(&collector);
	/* A checksum alone. */
	offload.gso_type = 0;
	offload_apply(frame, size, &offload, 0, &collector.sink);
	assert_int_equal(collector.count, 1);
	check_tcp(collector.frames[0], collector.sizes[0], false);
	forget(&collector);
	/* What makes no sense. */
	bad = offload, bad.csum_start = 65535;
	offload_apply(frame, size, &bad, 0, &collector.sink);
	bad = offload, bad.csum_offset = (uint16_t)(size - 34 - 1);
	offload_apply(frame, size, &bad, 0, &collector.sink);
	bad = offload, bad.gso_type = NET_GSO_TCP4, bad.gso_size = 0;
	offload_apply(frame, size, &bad, 0, &collector.sink);
	bad.gso_size = GSO_SIZE_MIN - 1;
	offload_apply(frame, size, &bad, 0, &collector.sink);
	bad = offload, bad.gso_type = 3, bad.gso_size = 1000;
	offload_apply(frame, size, &bad, 0, &collector.sink);
	bad.gso_type = NET_GSO_TCP6; /* of an IPv4 frame: cut as what it is */
	offload_apply(frame, size, &bad, 0, &collector.sink);
	assert_int_equal(collector.count, 5);
	forget(&collector);
}

static void test_fragments(void **state)
{
	uint8_t frame[14 + 20 + 4000], whole[4000];

	(void)state;
	put_ip(frame, sizeof(frame), PEER_HOST, PEER_ADDRESS, 17);
	for (size_t i = 34; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 13);
	ip4_fragment(frame, sizeof(frame), 1500, &collector.sink);
	assert_int_equal(collector.count, 3);
	for (unsigned i = 0; i < 3; i++) {
		const uint8_t *f = collector.frames[i];

		assert_true(collector.sizes[i] <= 1514);
		assert_int_equal(slow_sum(0, f + 14, 20), 0xffff);
		assert_int_equal(get16(f + 16) + 14, collector.sizes[i]);
		assert_int_equal(get16(f + 20) >> 13, i < 2);
		memcpy(whole + (get16(f + 20) & 0x1fff) * 8, f + 34, collector.sizes[i] - 34);
	}
	assert_memory_equal(whole, frame + 34, 4000);
	forget(&collector);
	put16(frame + 12, 0x86dd);
	ip4_fragment(frame, sizeof(frame), 1500, &collector.sink);
	assert_int_equal(collector.count, 0);
}

/* ---- the MSS ---- */

/* A SYN whose option is at an odd or even place. */
static size_t syn_frame(uint8_t *frame, bool odd, unsigned mss)
{
	uint8_t *tcp = frame + 34;

	memset(frame, 0, 62);
	put_ip(frame, 62, PEER_ADDRESS, PEER_HOST, 6);
	put16(tcp, 1234);
	put16(tcp + 2, 80);
	tcp[12] = 0x70;
	tcp[13] = PEER_SYN;
	memset(tcp + 20, 1, 8);
	memcpy(tcp + 21 - !odd, (const uint8_t[]){ 2, 4, (uint8_t)(mss >> 8), (uint8_t)mss }, 4);
	put16(tcp + 16, (uint16_t)~slow_sum(slow_pseudo(frame + 14, 28), tcp, 28));
	return 62;
}

static void test_mss(void **state)
{
	static uint8_t frame[NET_FRAME_MAX], data[NET_FRAME_MAX];
	static struct mss_table table;
	const struct net_offload none = { 0 };
	struct net_offload offload;
	struct tcp_frame f;
	size_t size;

	(void)state;
	for (unsigned odd = 0; odd < 2; odd++) {
		size = syn_frame(frame, odd, 1000);
		mss_raise(&table, frame, size, &none, 65481);
		assert_int_equal(get16(frame + 34 + 22 + odd), 65481);
		check_tcp(frame, size, false);
	}
	/* The other direction. */
	tcp_frame(data, false, 3000, &offload);
	memcpy(data + 26, frame + 30, 4);
	memcpy(data + 30, frame + 26, 4);
	memcpy(data + 34, (const uint8_t[]){ 0, 80, 1234 >> 8, 1234 & 255 }, 4);
	assert_true(tcp_frame_find(data, 34 + 32 + 3000, &f));
	mss_mark(&table, data, &f, 1500, &offload);
	assert_int_equal(offload.gso_type, NET_GSO_TCP4);
	assert_int_equal(offload.gso_size, 1000 - 12); /* it has options */
	assert_int_equal(offload.csum_start, 34);
	/* Of a connection that nobody knows. */
	data[37]++;
	mss_mark(&table, data, &f, 1500, &offload);
	assert_int_equal(offload.gso_size, 1460 - 12);
	/* The least. */
	size = syn_frame(frame, false, 1);
	frame[35]++;
	put16(frame + 50, 0);
	put16(frame + 50, (uint16_t)~slow_sum(slow_pseudo(frame + 14, 28), frame + 34, 28));
	mss_raise(&table, frame, size, &none, 65481);
	data[37] = frame[35];
	mss_mark(&table, data, &f, 1500, &offload);
	assert_true(offload.gso_size >= GSO_SIZE_MIN && offload.gso_size < 200);
	/* One that is not below what it would be raised to stays. */
	size = syn_frame(frame, false, 65500);
	mss_raise(&table, frame, size, &none, 65481);
	assert_int_equal(get16(frame + 34 + 22), 65500);
}

/* ---- framing ---- */

static void test_framing(void **state)
{
	uint8_t data[300] = { 0 };
	struct net_frame frames[4];
	size_t used;

	(void)state;
	framing_header(data, 20);
	assert_int_equal(get32(data), 20);
	put32(data + 24, 5); /* too short to be a frame */
	put32(data + 33, 100);
	for (size_t size = 0; size < 24; size++) {
		assert_int_equal(framing_parse(data, size, frames, 4, &used), 0);
		assert_int_equal(used, 0);
	}
	assert_int_equal(framing_parse(data, 136, frames, 4, &used), 1);
	assert_int_equal(used, 33);
	assert_ptr_equal(frames[0].data, data + 4);
	assert_int_equal(frames[0].size, 20);
	assert_int_equal(framing_parse(data, 137, frames, 4, &used), 2);
	assert_int_equal(framing_parse(data, 137, frames, 1, &used), 1);
	put32(data + 33, NET_FRAME_MAX + 1);
	assert_int_equal(framing_parse(data, 137, frames, 4, &used), -EPROTO);
	put32(data, UINT32_MAX);
	assert_int_equal(framing_parse(data, 4, frames, 4, &used), -EPROTO);
}

/* ---- rings ---- */

static void write_one(struct ring *r, size_t size, unsigned seed)
{
	struct net_offload offload = { .hdr_len = (uint16_t)seed };
	int code;
	uint8_t *place = ring_reserve(r, size, &code);

	assert_non_null(place);
	memset(place, (int)seed & 255, size);
	ring_write(r, size, &offload);
}

static void test_ring(void **state)
{
	struct net_frame frames[8];
	struct channel ch;
	struct ring reader;
	unsigned wrote = 0, read = 0;
	eventfd_t wakes;
	int code;

	(void)state;
	assert_int_equal(channel_create(&ch, NULL), 0);
	reader = ch.to_guest;
	/* Round and round, with every alignment. */
	while (read < 2000) {
		for (unsigned n = 0; n < 8; n++, wrote++)
			write_one(&ch.to_guest, 14 + wrote * 31 % 60000, wrote);
		assert_int_equal(ring_peek(&reader, frames, 8), 8);
		for (unsigned n = 0; n < 8; n++, read++) {
			assert_int_equal(frames[n].size, 14 + read * 31 % 60000);
			assert_int_equal(frames[n].offload.hdr_len, (uint16_t)read);
			assert_int_equal(frames[n].data[0], read & 255);
			assert_int_equal(frames[n].data[frames[n].size - 1], read & 255);
		}
		ring_release(&reader, frames, 8);
	}
	assert_true(ring_sleep(&reader));
	/* Several frames, one wake. */
	write_one(&ch.to_guest, 100, 1);
	write_one(&ch.to_guest, 100, 2);
	assert_int_equal(eventfd_read(ch.helper_event, &wakes), -1);
	ring_wake(&ch.to_guest);
	ring_wake(&ch.to_guest);
	assert_int_equal(eventfd_read(ch.helper_event, &wakes), 0);
	assert_int_equal(wakes, 1);
	assert_int_equal(ring_peek(&reader, frames, 8), 2);
	ring_release(&reader, frames, 2);
	ring_awake(&reader);
	/* Full. */
	while (ring_reserve(&ch.to_guest, 60000, &code))
		write_one(&ch.to_guest, 60000, 1);
	assert_int_equal(code, 0);
	assert_false(ring_has_room(&ch.to_guest, RING_SIZE / 4));
	assert_false(ring_sleep(&reader));
	channel_close(&ch);
}

/* What the other end may write. */
static void test_broken_ring(void **state)
{
	struct net_frame frames[8];
	struct channel ch;
	struct ring reader;
	int code;

	(void)state;
	assert_int_equal(channel_create(&ch, NULL), 0);
	assert_int_equal(ftruncate(ch.fd, 0), -1);
	reader = ch.to_guest;
	atomic_store(&ch.shared->to_guest.written, RING_SIZE + 16);
	assert_int_equal(ring_peek(&reader, frames, 8), -EPROTO);
	atomic_store(&ch.shared->to_guest.written, 8);
	assert_int_equal(ring_peek(&reader, frames, 8), -EPROTO);
	atomic_store(&ch.shared->to_guest.written, 64);
	for (unsigned i = 0; i < 3; i++) {
		store_le32(ch.to_guest.data, (const uint32_t[]){ 13, NET_FRAME_MAX + 1, 49 }[i]);
		assert_int_equal(ring_peek(&reader, frames, 8), -EPROTO);
	}
	store_le32(ch.to_guest.data, 48);
	assert_int_equal(ring_peek(&reader, frames, 8), 1);
	atomic_store(&ch.shared->from_guest.read, 16);
	assert_null(ring_reserve(&ch.from_guest, 100, &code));
	assert_int_equal(code, -EPROTO);
	channel_close(&ch);
}

/* ---- streams ---- */

static void send_and_receive(struct net_peer *from, struct net_peer *to, unsigned seed)
{
	uint8_t frame[100];
	struct peer_frame f;

	memset(frame, (int)seed, sizeof(frame));
	peer_send(from, frame, sizeof(frame), NULL);
	f = peer_next(to);
	assert_int_equal(f.size, sizeof(frame));
	assert_memory_equal(f.data, frame, sizeof(frame));
	free(f.data);
}

static void check_streams(const char *server_spec, const char *client_spec)
{
	static uint8_t frame[NET_FRAME_MAX];
	struct net_peer server, client;
	struct net_offload offload;
	struct peer_frame f;
	size_t size;

	peer_open(&server, server_spec);
	assert_false(net_link_is_up(server.net));
	peer_open(&client, client_spec);
	assert_true(net_link_is_up(client.net));
	peer_wait_for(&server, &server.ups, 1);
	send_and_receive(&client, &server, 1);
	send_and_receive(&server, &client, 2);
	/* Cut and summed up on the way. */
	size = tcp_frame(frame, false, PAYLOAD, &offload);
	peer_send(&client, frame, size, &offload);
	for (unsigned i = 0; i < 5; i++) {
		f = peer_next(&server);
		check_tcp(f.data, f.size, false);
		free(f.data);
	}
	/* The client goes and comes back; then the server, and the client finds it again. */
	peer_close(&client);
	peer_wait_for(&server, &server.downs, 1);
	peer_open(&client, client_spec);
	peer_wait_for(&server, &server.ups, 2);
	send_and_receive(&server, &client, 3);
	peer_close(&server);
	peer_wait_for(&client, &client.downs, 1);
	peer_open(&server, server_spec);
	peer_wait_for(&client, &client.ups, 1);
	peer_wait_for(&server, &server.ups, 1);
	send_and_receive(&client, &server, 4);
	peer_close(&client);
	peer_close(&server);
}

static void test_stream_unix(void **state)
{
	char folder[] = "/tmp/doppel-net-XXXXXX", server[80], client[64];

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(client, sizeof(client), "stream:unix:%s/s", folder);
	snprintf(server, sizeof(server), "%s,server", client);
	assert_null(net_open(client, NULL));
	check_streams(server, client);
	assert_int_equal(rmdir(folder), 0);
}

static void test_stream_tcp(void **state)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char server[80], client[64];

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
	getsockname(fd, (struct sockaddr *)&address, &size);
	close(fd);
	snprintf(client, sizeof(client), "stream:tcp:127.0.0.1:%u", ntohs(address.sin_port));
	snprintf(server, sizeof(server), "%s,server", client);
	check_streams(server, client);
}

/* One that sends nonsense is let go, and the next one is welcome; one that does not read stops nobody. */
static void test_stream_hostile(void **state)
{
	char folder[] = "/tmp/doppel-net-XXXXXX", spec[160];
	struct net_offload none = { 0 };
	static uint8_t frame[60000];
	struct iovec iov = { frame, sizeof(frame) };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct net_peer p;
	uint8_t bytes[4];
	unsigned sent = 0;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", folder);
	snprintf(spec, sizeof(spec), "stream:unix:%s,server", address.sun_path);
	peer_open(&p, spec);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	put32(bytes, 0x7fffffff);
	assert_int_equal(write(fd, bytes, 4), 4);
	peer_wait_for(&p, &p.downs, 1);
	assert_int_equal(read(fd, bytes, 4), 0);
	close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	peer_wait_for(&p, &p.ups, 2);
	while (!net_send(p.net, &iov, 1, &none))
		sent++;
	pthread_mutex_lock(&p.lock);
	assert_int_equal(p.writables, 0);
	pthread_mutex_unlock(&p.lock);
	for (size_t left = sent * (sizeof(frame) + 4); left;) {
		static uint8_t sink[65536];
		ssize_t n = read(fd, sink, MIN(left, sizeof(sink)));

		assert_true(n > 0);
		left -= (size_t)n;
	}
	peer_wait_for(&p, &p.writables, 1);
	assert_int_equal(net_send(p.net, &iov, 1, &none), 0);
	close(fd);
	peer_close(&p);
	rmdir(folder);
}

static void test_mac(void **state)
{
	uint8_t a[6], b[6], c[6];
	struct net *net = net_open("none,hostname=web", NULL), *other = net_open("none,hostname=db", NULL);

	(void)state;
	net_mac(net, "", 0, a);
	net_mac(net, "", 0, b);
	assert_memory_equal(a, b, 6);
	net_mac(net, "", 1, b);
	net_mac(other, "", 0, c);
	assert_memory_not_equal(a, b, 6);
	assert_memory_not_equal(a, c, 6);
	net_mac(net, "web1", 0, b);
	net_mac(net, "web2", 0, c);
	assert_memory_not_equal(a, b, 6);
	assert_memory_not_equal(b, c, 6);
	assert_memory_equal(a, ((const uint8_t[]){ 0x52, 0x54, 0 }), 3);
	net_close(net);
	net_close(other);
	net = net_open("none,mac=02:00:00:00:00:07", NULL);
	net_mac(net, "", 3, a);
	assert_memory_equal(a, ((const uint8_t[]){ 2, 0, 0, 0, 0, 7 }), 6);
	net_close(net);
}

/* A frame each way between a tap device and the kernel, in a network of this process's own. */
static void check_tap(struct net_peer *p)
{
	struct ifreq request = { .ifr_name = "doppel-test" };
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	uint8_t frame[NET_FRAME_MAX], got[NET_FRAME_MAX];
	struct net_offload offload;
	struct peer_frame f;
	size_t size;
	ssize_t n;

	assert_int_equal(ioctl(fd, SIOCGIFINDEX, &request), 0);
	address.sll_ifindex = request.ifr_ifindex;
	request.ifr_flags = IFF_UP;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	size = tcp_frame(frame, false, PAYLOAD, &offload);
	peer_send(p, frame, size, &offload);
	do
		n = recv(fd, got, sizeof(got), 0);
	while (n > 0 && (size_t)n != size); /* the kernel's own greetings */
	assert_memory_equal(got, frame, size);
	assert_int_equal(send(fd, frame, 100, 0), 100);
	do {
		f = peer_next(p);
		n = f.size == 100 ? memcmp(f.data, frame, 100) : 1;
		free(f.data);
	} while (n);
	close(fd);
}

static void test_tap(void **state)
{
	struct error err = { 0 };
	struct net_peer p;
	struct net *net;

	(void)state;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET)) {
		print_message("no network of its own for this test here: %s\n", strerror(errno));
		return;
	}
	net = net_open("tap:doppel-test", &err);
	if (!net) {
		assert_non_null(strstr(err.text, "tap device 'doppel-test'"));
		print_message("%s\n", err.text);
		return;
	}
	net_close(net);
	peer_open(&p, "tap:doppel-test");
	check_tap(&p);
	peer_close(&p);
}

/* ---- walls ---- */

/* Each ends with what it got: nothing, an error, or something that it must not have. */
enum { NOTHING = 10, REFUSED, GOT_IT };

static int of_descriptor(int fd) { return fd < 0 ? REFUSED : GOT_IT; }
static int try_exec(void) { return execl("/bin/true", "true", NULL), NOTHING; }
static int try_fork(void) { return fork() < 0 ? REFUSED : GOT_IT; }
static int try_unix(void) { return of_descriptor(socket(AF_UNIX, SOCK_STREAM, 0)); }
static int try_raw(void) { return of_descriptor(socket(AF_INET, SOCK_RAW, 1)); }
static int try_internet(void) { return of_descriptor(socket(AF_INET, SOCK_STREAM, 0)); }
static int try_create(void) { return of_descriptor(open("/tmp/doppel-walls", O_CREAT | O_WRONLY, 0600)); }
static int try_read(void) { return of_descriptor(open("/proc/self/maps", O_RDONLY)); }
static int try_resolv_conf(void) { return of_descriptor(open("/etc/resolv.conf", O_RDONLY)); }
static int try_unlink(void) { return unlink("/tmp/doppel-walls") ? REFUSED : GOT_IT; }
static int try_protect(void) { return mprotect((void *)4096, 4096, PROT_READ | PROT_EXEC) ? REFUSED : GOT_IT; }
static int try_heap(void) { return malloc(100000) ? GOT_IT : REFUSED; }
static int try_map(void)
{
	return mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? REFUSED : GOT_IT;
}

static const struct {
	const char *what;
	int (*fn)(void);
	int result; /* or -signal */
} walls[] = {
	{ "a program", try_exec, -SIGSYS },
	{ "a process", try_fork, -SIGSYS },
	{ "a Unix socket", try_unix, -SIGSYS },
	{ "a raw socket", try_raw, -SIGSYS },
	{ "a connection", try_internet, GOT_IT },
	{ "a new file", try_create, REFUSED },
	{ "a file", try_read, REFUSED },
	{ "removing a file", try_unlink, -SIGSYS },
	{ "executable memory", try_protect, -SIGSYS },
	{ "memory", try_map, REFUSED },
	{ "heap", try_heap, GOT_IT },
};

/* Status of a child that does this behind the walls; or -signal. */
static int behind_walls(int (*fn)(void))
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(walls_up(NULL) ? 1 : fn());
	waitpid(child, &status, 0);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void test_walls(void **state)
{
	(void)state;
	if (behind_walls(try_exec) != -SIGSYS) {
		print_message("no walls: sanitizers need what they forbid, or this host has no seccomp\n");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(walls); i++) {
		int result = behind_walls(walls[i].fn);

		if (result != walls[i].result)
			fail_msg("%s: %d instead of %d", walls[i].what, result, walls[i].result);
	}
	if (!access("/etc/resolv.conf", R_OK))
		assert_int_equal(behind_walls(try_resolv_conf), GOT_IT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spec),
		cmocka_unit_test(test_bad_specs),
		cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_segments),
		cmocka_unit_test(test_offload),
		cmocka_unit_test(test_fragments),
		cmocka_unit_test(test_mss),
		cmocka_unit_test(test_framing),
		cmocka_unit_test(test_ring),
		cmocka_unit_test(test_broken_ring),
		cmocka_unit_test(test_stream_unix),
		cmocka_unit_test(test_stream_tcp),
		cmocka_unit_test(test_stream_hostile),
		cmocka_unit_test(test_mac),
		cmocka_unit_test(test_tap),
		cmocka_unit_test(test_walls),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
