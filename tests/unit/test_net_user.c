/*
 * The user network without a guest: frames written by hand to the real process, which this program runs as, too.
 */
#define _GNU_SOURCE
#include "lib/net_peer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define BIG (300u << 10)

/* A server of this host, on a port that nobody had. */
static int host_server(uint16_t *port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	*port = ntohs(address.sin_port);
	return fd;
}

static uint16_t free_port(void)
{
	uint16_t port;

	close(host_server(&port));
	return port;
}

static void test_arp(void **state)
{
	struct net_peer p;
	struct peer_frame f;

	(void)state;
	peer_open(&p, "user");
	assert_true(net_link_is_up(p.net));
	peer_arp(&p, PEER_HOST);
	do {
		f = peer_next(&p);
		if (get16(f.data + 12) == 0x0806)
			break;
		free(f.data);
	} while (true);
	assert_int_equal(get16(f.data + 20), 2);
	assert_int_equal(get32(f.data + 28), PEER_HOST);
	assert_memory_equal(f.data, peer_mac, 6);
	free(f.data);
	peer_close(&p);
}

/* DHCPDISCOVER; what the offer's option says; its length. */
static unsigned dhcp_option(struct net_peer *p, unsigned wanted, uint8_t *value)
{
	uint8_t frame[14 + 20 + 8 + 300] = { 0 };
	struct peer_frame f;
	unsigned length = 0;

	put_ip(frame, sizeof(frame), 0, 0xffffffff, 17);
	memset(frame, 0xff, 6);
	put16(frame + 34, 68);
	put16(frame + 36, 67);
	put16(frame + 38, 308);
	memcpy(frame + 42, (const uint8_t[]){ 1, 1, 6 }, 3);
	memcpy(frame + 42 + 28, peer_mac, 6);
	memcpy(frame + 42 + 236, (const uint8_t[]){ 99, 130, 83, 99, 53, 1, 1, 255 }, 8);
	peer_send(p, frame, sizeof(frame), NULL);
	for (;;) {
		f = peer_next(p);
		if (f.size > 300 && f.data[23] == 17 && get16(f.data + 36) == 68)
			break;
		free(f.data);
	}
	assert_int_equal(get32(f.data + 42 + 16), PEER_ADDRESS);
	for (const uint8_t *at = f.data + 42 + 240; *at != 255; at += 2 + at[1])
		if (*at == wanted) {
			length = at[1];
			memcpy(value, at + 2, length);
		}
	free(f.data);
	return length;
}

static void test_dhcp(void **state)
{
	uint8_t value[256];
	struct net_peer p;

	(void)state;
	peer_open(&p, "user,hostname=guest-7");
	assert_int_equal(dhcp_option(&p, 12, value), 7);
	assert_memory_equal(value, "guest-7", 7);
	assert_int_equal(dhcp_option(&p, 6, value), 4);
	assert_int_equal(get32(value), 0x0a000203);
	peer_close(&p);
	peer_open(&p, "user,dns=9.8.7.6");
	assert_int_equal(dhcp_option(&p, 6, value), 4);
	assert_int_equal(get32(value), 0x09080706);
	peer_close(&p);
}

static struct peer_tcp peer_connect(struct net_peer *p, uint16_t port)
{
	struct peer_tcp c = { .to = PEER_HOST, .here = 4711, .there = port, .next = 1000 };
	struct peer_frame f;

	peer_arp(p, PEER_HOST);
	peer_segment(p, &c, PEER_SYN, NULL, 0, 0);
	f = peer_next_tcp(p, c.here);
	assert_int_equal(f.data[47], PEER_SYN | PEER_ACK);
	assert_int_equal(get32(f.data + 42), 1001);
	c.seen = get32(f.data + 38) + 1;
	free(f.data);
	peer_segment(p, &c, PEER_ACK, NULL, 0, 0);
	return c;
}

static uint8_t *pattern(size_t size)
{
	uint8_t *data = malloc(size);

	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(i * 7 + i / 251);
	return data;
}

/* Segments of up to 60,000 bytes that a card would have cut, with half a checksum. */
static void test_guest_to_host(void **state)
{
	uint8_t *data = pattern(BIG), *got = malloc(BIG);
	struct net_peer p;
	struct peer_tcp c;
	uint16_t port;
	int server = host_server(&port), fd;
	size_t part;

	(void)state;
	peer_open(&p, "user");
	c = peer_connect(&p, port);
	fd = accept(server, NULL, NULL);
	assert_true(fd >= 0);
	for (size_t at = 0; at < BIG; at += part) {
		uint32_t acknowledged;

		part = MIN(BIG - at, (size_t)60000);
		peer_segment(&p, &c, PEER_ACK | PEER_PSH, data + at, part, 1460);
		assert_int_equal(recv(fd, got + at, part, MSG_WAITALL), part);
		do {
			struct peer_frame f = peer_next_tcp(&p, c.here);

			acknowledged = get32(f.data + 42);
			free(f.data);
		} while (acknowledged != c.next);
	}
	assert_memory_equal(data, got, BIG);
	close(fd);
	close(server);
	peer_close(&p);
	free(data);
	free(got);
}

/* What came is whole: its checksum, or that of the pseudo header and how it is to be cut. */
static void check_segment(const struct peer_frame *f, unsigned can)
{
	size_t size = f->size - 34;
	uint16_t pseudo = slow_pseudo(f->data + 14, size);

	assert_int_equal(slow_sum(0, f->data + 14, 20), 0xffff);
	assert_int_equal(get16(f->data + 16), f->size - 14);
	if (f->offload.flags & NET_NEEDS_CHECKSUM) {
		assert_true(can & NET_CAN_TCP4);
		assert_int_equal(f->offload.gso_type, NET_GSO_TCP4);
		assert_int_equal(f->offload.gso_size, 1460);
		assert_int_equal(f->offload.csum_start, 34);
		assert_int_equal(f->offload.csum_offset, 16);
		assert_int_equal(get16(f->data + 50), pseudo);
		return;
	}
	assert_int_equal(f->offload.flags, can & NET_CAN_CHECKSUM ? NET_CHECKSUM_GOOD : 0);
	assert_true(f->size <= 1514);
	assert_int_equal(slow_sum(pseudo, f->data + 34, size), 0xffff);
}

static size_t receive_all(struct net_peer *p, struct peer_tcp *c, uint8_t *got, size_t size, unsigned can)
{
	size_t largest = 0;

	for (size_t at = 0; at < size;) {
		struct peer_frame f = peer_next_tcp(p, c->here);
		size_t header = 34 + (f.data[46] >> 4) * 4u, part = f.size - header;

		check_segment(&f, can);
		/* Nothing is lost here: what comes twice was slow to be acknowledged. */
		if (get32(f.data + 38) == c->seen && part) {
			memcpy(got + at, f.data + header, part);
			at += part;
			c->seen += (uint32_t)part;
			peer_segment(p, c, PEER_ACK, NULL, 0, 0);
		}
		largest = MAX(largest, f.size);
		free(f.data);
	}
	return largest;
}

static void host_to_guest(unsigned can, size_t least, size_t most)
{
	uint8_t *data = pattern(BIG), *got = malloc(BIG);
	struct net_peer p;
	struct peer_tcp c;
	size_t largest;
	uint16_t port;
	int server = host_server(&port), fd;
	pid_t child;

	peer_open(&p, "user");
	net_set_offloads(p.net, can);
	c = peer_connect(&p, port);
	fd = accept(server, NULL, NULL);
	child = fork();
	if (!child) {
		host_write_all(fd, data, BIG);
		_exit(0);
	}
	largest = receive_all(&p, &c, got, BIG, can);
	assert_memory_equal(data, got, BIG);
	assert_true(largest >= least && largest <= most);
	waitpid(child, NULL, 0);
	close(fd);
	close(server);
	peer_close(&p);
	free(data);
	free(got);
}

static void test_host_to_guest(void **state)
{
	(void)state;
	host_to_guest(0, 1514, 1514);
	host_to_guest(NET_CAN_CHECKSUM, 1514, 1514);
	host_to_guest(NET_CAN_CHECKSUM | NET_CAN_TCP4, 8000, NET_FRAME_MAX);
}

/* A connection from the host arrives as a SYN. */
static void check_forward(struct net_peer *p, int fd, const struct sockaddr *address, socklen_t size, uint16_t port)
{
	struct peer_tcp c = { .to = PEER_HOST, .here = port, .next = 5000 };
	struct peer_frame f;
	char text[8];

	assert_int_equal(connect(fd, address, size), 0);
	f = peer_next_tcp(p, port);
	assert_int_equal(f.data[47], PEER_SYN);
	c.to = get32(f.data + 26);
	c.there = (uint16_t)get16(f.data + 34);
	c.seen = get32(f.data + 38) + 1;
	free(f.data);
	peer_segment(p, &c, PEER_SYN | PEER_ACK, NULL, 0, 0);
	peer_segment(p, &c, PEER_ACK | PEER_PSH, "hello", 5, 0);
	assert_int_equal(recv(fd, text, 5, MSG_WAITALL), 5);
	assert_memory_equal(text, "hello", 5);
	close(fd);
}

static void test_forwards(void **state)
{
	struct sockaddr_in inet = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	char folder[] = "/tmp/doppel-net-XXXXXX", spec[300];
	uint16_t port = free_port();
	struct net_peer p;
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(local.sun_path, sizeof(local.sun_path), "%s/socket", folder);
	snprintf(spec, sizeof(spec), "user,restrict,forward=tcp:127.0.0.1:%u-22,forward=unix:%s-10.0.2.15:80", port,
		 local.sun_path);
	inet.sin_port = htons(port);
	peer_open(&p, spec);
	check_forward(&p, socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&inet, sizeof(inet), 22);
	check_forward(&p, socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&local, sizeof(local), 80);
	peer_close(&p);
	assert_int_equal(stat(local.sun_path, &st), -1);
	rmdir(folder);
}

/* A datagram of the guest's, without a checksum. */
static void send_datagram(struct net_peer *p, uint32_t to, uint16_t here, uint16_t there, const char *text)
{
	size_t size = strlen(text);
	uint8_t frame[128] = { 0 };

	memcpy(frame + 42, text, size);
	put_ip(frame, 42 + size, PEER_ADDRESS, to, 17);
	put16(frame + 34, here);
	put16(frame + 36, there);
	put16(frame + 38, (unsigned)(8 + size));
	peer_send(p, frame, 42 + size, NULL);
}

static void test_udp_forward(void **state)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const struct timeval patience = { .tv_sec = PEER_GIVE_UP };
	uint16_t port = free_port();
	struct peer_frame f;
	struct net_peer p;
	char spec[64], text[8];

	(void)state;
	snprintf(spec, sizeof(spec), "user,forward=udp:127.0.0.1:%u-:5353", port);
	peer_open(&p, spec);
	to.sin_port = htons(port);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	assert_int_equal(send(fd, "ask", 3, 0), 3);
	f = peer_next_to(&p, 17, 5353);
	assert_int_equal(get32(f.data + 30), PEER_ADDRESS);
	assert_int_equal(get16(f.data + 38), 8 + 3);
	assert_memory_equal(f.data + 42, "ask", 3);
	send_datagram(&p, get32(f.data + 26), 5353, (uint16_t)get16(f.data + 34), "told");
	assert_int_equal(recv(fd, text, sizeof(text), 0), 4);
	assert_memory_equal(text, "told", 4);
	free(f.data);
	close(fd);
	peer_close(&p);
}

/* Not the one that has the same port by IPv4. */
static void test_taken_port_ip6(void **state)
{
	struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int server = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(address);
	struct error err = { 0 };
	char spec[64], who[64];

	(void)state;
	if (server < 0 || bind(server, (struct sockaddr *)&address, size)) {
		close(server);
		skip();
	}
	assert_int_equal(listen(server, 1), 0);
	assert_int_equal(getsockname(server, (struct sockaddr *)&address, &size), 0);
	snprintf(spec, sizeof(spec), "user,forward=tcp:[::1]:%u-22", ntohs(address.sin6_port));
	assert_null(net_open(spec, &err));
	assert_int_equal(err.code, EADDRINUSE);
	snprintf(who, sizeof(who), "port %u is already in use by", ntohs(address.sin6_port));
	assert_non_null(strstr(err.text, who));
	snprintf(who, sizeof(who), "(process %d)", getpid());
	assert_non_null(strstr(err.text, who));
	close(server);
}

static void test_taken_port(void **state)
{
	char spec[64], who[64], expected[64];
	struct error err = { 0 };
	uint16_t port;
	int server = host_server(&port);

	(void)state;
	snprintf(spec, sizeof(spec), "user,forward=tcp:127.0.0.1:%u-22", port);
	assert_null(net_open(spec, &err));
	assert_int_equal(err.code, EADDRINUSE);
	snprintf(expected, sizeof(expected), "port %u is already in use by ", port);
	assert_non_null(strstr(err.text, expected));
	snprintf(who, sizeof(who), "(process %d)", getpid());
	assert_non_null(strstr(err.text, who));
	close(server);
}

/* Children of this process. */
static pid_t find_child(void)
{
	char path[64];
	FILE *file;
	int child = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	file = fopen(path, "r");
	if (file) {
		if (fscanf(file, "%d", &child) != 1)
			child = 0;
		fclose(file);
	}
	return child;
}

static void test_death(void **state)
{
	uint8_t value[256];
	struct net_peer p;
	pid_t first;

	(void)state;
	peer_open(&p, "user,hostname=again");
	dhcp_option(&p, 12, value);
	first = find_child();
	if (!first) {
		print_message("this kernel does not list children: skipped\n");
		peer_close(&p);
		return;
	}
	kill(first, SIGKILL);
	peer_wait_for(&p, &p.downs, 1);
	peer_wait_for(&p, &p.ups, 1);
	assert_true(net_link_is_up(p.net));
	assert_int_equal(dhcp_option(&p, 12, value), 5);
	peer_close(&p);
	assert_int_equal(find_child(), 0);
}

static bool never(void *opaque) { return (void)opaque, false; }

static bool at_once(void *opaque)
{
	++*(unsigned *)opaque;
	return true;
}

static void hear_arp(struct net_peer *p)
{
	bool arp;

	do {
		struct peer_frame f = peer_next(p);

		arp = get16(f.data + 12) == 0x0806;
		free(f.data);
	} while (!arp);
}

/* Who looks out for the answer gets it sooner or later, and none is lost or comes twice. */
static void test_look_out(void **state)
{
	unsigned asked = 0, mine = 0;
	struct net_peer p;

	(void)state;
	peer_open(&p, "user,ipv6=off");
	for (unsigned n = 0; n < 20000 && mine < 3; n++) {
		peer_arp(&p, PEER_HOST);
		net_look_out(p.net, never, NULL);
		hear_arp(&p);
		mine += pthread_equal(p.receiver, pthread_self()) != 0;
	}
	assert_int_equal(mine, 3);
	assert_int_equal(p.count, 0);
	/* Nothing was sent: nothing is waited for. */
	net_look_out(p.net, at_once, &asked);
	assert_int_equal(asked, 0);
	peer_close(&p);
}

/* A card that takes nothing gets everything later, in order. */
static void test_hold(void **state)
{
	struct net_peer p;

	(void)state;
	peer_open(&p, "user,ipv6=off");
	p.accepts = 0;
	for (unsigned i = 0; i < 100; i++)
		peer_arp(&p, PEER_HOST + (i & 1));
	pthread_mutex_lock(&p.lock);
	p.accepts = 60;
	pthread_mutex_unlock(&p.lock);
	net_resume(p.net);
	peer_wait_for(&p, &p.count, 60);
	pthread_mutex_lock(&p.lock);
	p.accepts = 1000;
	pthread_mutex_unlock(&p.lock);
	net_resume(p.net);
	for (unsigned i = 0; i < 100; i++) {
		struct peer_frame f = peer_next(&p);

		assert_int_equal(get32(f.data + 28), PEER_HOST + (i & 1));
		free(f.data);
	}
	peer_close(&p);
}

/* Whole records to its end, by the format's description; how many. */
static unsigned count_packets(int fd)
{
	uint32_t header[6], packet[4];
	unsigned count = 0;
	struct stat st;
	off_t at = 24;

	assert_int_equal(pread(fd, header, 24, 0), 24);
	assert_int_equal(header[0], 0xa1b23c4d);
	assert_int_equal(header[1], 2 | 4 << 16);
	assert_int_equal(header[4], NET_FRAME_MAX);
	assert_int_equal(header[5], 1);
	for (; pread(fd, packet, 16, at) == 16; count++) {
		uint8_t frame[14];

		assert_true(packet[1] < 1000000000);
		assert_int_equal(packet[2], packet[3]);
		assert_int_equal(pread(fd, frame, 14, at + 16), 14);
		assert_true(!memcmp(frame, peer_mac, 6) || !memcmp(frame + 6, peer_mac, 6));
		at += 16 + packet[2];
	}
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, at);
	return count;
}

static void ask_and_hear(struct net_peer *p)
{
	peer_arp(p, PEER_HOST);
	free(peer_next(p).data);
}

static void test_capture(void **state)
{
	char path[] = "/tmp/doppel-capture-XXXXXX", spec[64];
	struct net_peer p;
	int fd = mkstemp(path);

	(void)state;
	snprintf(spec, sizeof(spec), "user,ipv6=off,capture=%s", path);
	peer_open(&p, spec);
	ask_and_hear(&p);
	peer_close(&p);
	assert_int_equal(count_packets(fd), 2);
	close(fd);
	unlink(path);
}

/* Both a file that may not grow any more and one that is as large as was asked for; the network goes on. */
static void test_capture_ends(void **state)
{
	char path[] = "/tmp/doppel-capture-XXXXXX", spec[64];
	static uint8_t frame[60000];
	struct rlimit before, limit;
	struct net_peer p;
	int fd = mkstemp(path);

	(void)state;
	snprintf(spec, sizeof(spec), "user,ipv6=off,capture=%s,capture-size=1", path);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	limit.rlim_cur = 24 + 3 * (16 + 42) + 20;
	peer_open(&p, spec);
	setrlimit(RLIMIT_FSIZE, &limit);
	for (unsigned i = 0; i < 4; i++)
		ask_and_hear(&p);
	peer_close(&p);
	setrlimit(RLIMIT_FSIZE, &before);
	assert_in_range(count_packets(fd), 2, 3);
	memcpy(frame + 6, peer_mac, 6);
	peer_open(&p, spec);
	for (unsigned i = 0; i < 30; i++)
		peer_send(&p, frame, sizeof(frame), NULL);
	ask_and_hear(&p);
	peer_close(&p);
	assert_int_equal(count_packets(fd), 17);
	close(fd);
	unlink(path);
	signal(SIGXFSZ, SIG_DFL);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arp),	      cmocka_unit_test(test_dhcp),
		cmocka_unit_test(test_guest_to_host), cmocka_unit_test(test_host_to_guest),
		cmocka_unit_test(test_forwards),      cmocka_unit_test(test_taken_port),
		cmocka_unit_test(test_death),	      cmocka_unit_test(test_hold),
		cmocka_unit_test(test_capture),	      cmocka_unit_test(test_capture_ends),
		cmocka_unit_test(test_udp_forward),   cmocka_unit_test(test_taken_port_ip6),
		cmocka_unit_test(test_look_out),
	};

	if (argc > 1 && !strcmp(argv[1], NET_HELPER_COMMAND))
		return net_helper_main();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
