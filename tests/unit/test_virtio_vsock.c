/*
 * virtio-vsock: its connections (vsock_link.h) by packets and sockets, credit both ways, what is against the rules; then the device with its thread, and a saved machine.
 */
#define _GNU_SOURCE
#include "devices/virtio/vsock_link.h"
#include "lib/virtio_driver.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Guest memory, which the driver reads when it sees by a read of it that the thread is done, as on hardware. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:mem_write\nrace:mem_read\nrace:driver_\nrace:mem_fill\n"; }
#endif

#define CID    5u
#define PORT   1234u
#define CREDIT 100000u

/* ---- sockets of the host's programs ---- */

static char folder[] = "/tmp/test_vsock.XXXXXX", path[64];

static struct sockaddr_un address_of(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
	return address;
}

static int client(void)
{
	struct sockaddr_un address = address_of(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* Where the guest's connections to this port go. */
static int server(unsigned port)
{
	char name[80];
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(name, sizeof(name), "%s_%u", path, port);
	unlink(name);
	address = address_of(name);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 8), 0);
	return fd;
}

static void unlink_server(unsigned port)
{
	char name[80];

	snprintf(name, sizeof(name), "%s_%u", path, port);
	unlink(name);
}

static void say_line(int fd, const char *line) { assert_int_equal(send(fd, line, strlen(line), 0), strlen(line)); }

/* What is there now. */
static void expect_bytes(int fd, const char *bytes)
{
	char got[64] = "";

	assert_int_equal(recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT), strlen(bytes));
	assert_string_equal(got, bytes);
}

static void expect_end(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
}

static void expect_nothing(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

/* ---- connections without a device ---- */

static int setup(void **state)
{
	struct vsock_links *l = calloc(1, sizeof(*l));
	struct error err;

	if (vsock_open(l, path, CID, &err))
		fail_msg("%s", err.text);
	*state = l;
	return 0;
}

static int teardown(void **state)
{
	vsock_close(*state);
	free(*state);
	assert_int_equal(access(path, F_OK), -1);
	return 0;
}

/* What the device's thread does, until sockets have nothing new. */
static void settle_with(struct vsock_links *l, bool started)
{
	struct pollfd fds[VSOCK_LINKS_MOST + 1];
	char to[VSOCK_PATH_SIZE];
	struct vsock_link *link;
	int ready;

	do {
		unsigned count = vsock_prepare(l, fds, true);

		ready = poll(fds, count, 0);
		vsock_ready(l, fds, started);
		while ((link = vsock_connects(l, to)))
			vsock_connected(l, link, host_unix_connect(to, NULL));
		vsock_reap(l);
	} while (ready > 0);
}

static void settle(struct vsock_links *l) { settle_with(l, true); }

static struct vsock_header packet(enum vsock_op op, uint32_t guest_port, uint32_t host_port)
{
	return (struct vsock_header){
		.src_cid = CID,
		.dst_cid = VSOCK_HOST_CID,
		.src_port = guest_port,
		.dst_port = host_port,
		.type = VSOCK_TYPE_STREAM,
		.op = (uint16_t)op,
		.buf_alloc = CREDIT,
	};
}

static void hear(struct vsock_links *l, struct vsock_header h) { vsock_hear(l, &h, NULL, 0, 0); }

static void hear_bytes(struct vsock_links *l, uint32_t guest_port, uint32_t host_port, const void *bytes, size_t size)
{
	struct vsock_header h = packet(VSOCK_OP_RW, guest_port, host_port);
	struct iovec pieces[2] = { { &h, sizeof(h) }, { (void *)bytes, size } };

	h.len = (uint32_t)size;
	vsock_hear(l, &h, pieces, 2, sizeof(h));
}

static struct vsock_header expect_word(struct vsock_links *l, enum vsock_op op)
{
	struct vsock_header h;

	assert_true(vsock_has_words(l));
	h = vsock_say(l);
	assert_int_equal(h.op, op);
	assert_int_equal(h.dst_cid, CID);
	assert_int_equal(h.len, 0);
	return h;
}

static void expect_silence(struct vsock_links *l)
{
	settle(l);
	assert_false(vsock_has_words(l));
	assert_false(vsock_has_data(l));
}

/* A client of the host's whose connection the guest has accepted; *host_port: its port. */
static int connected_client(struct vsock_links *l, uint32_t *host_port)
{
	int fd = client();
	struct vsock_header h;
	char line[32];

	say_line(fd, "CONNECT 1234\nand");
	settle(l);
	h = expect_word(l, VSOCK_OP_REQUEST);
	assert_int_equal(h.src_cid, VSOCK_HOST_CID);
	assert_int_equal(h.dst_port, PORT);
	assert_int_equal(h.type, VSOCK_TYPE_STREAM);
	assert_int_equal(h.buf_alloc, VSOCK_BUFFER);
	expect_silence(l);
	expect_nothing(fd);
	hear(l, packet(VSOCK_OP_RESPONSE, PORT, h.src_port));
	snprintf(line, sizeof(line), "OK %u\n", h.src_port);
	expect_bytes(fd, line);
	*host_port = h.src_port;
	return fd;
}

/* A connection of the guest's to port 80; *listener: what is to be closed. */
static int connected_server(struct vsock_links *l, uint32_t guest_port, int *listener)
{
	int fd;

	*listener = server(80);
	hear(l, packet(VSOCK_OP_REQUEST, guest_port, 80));
	settle(l);
	expect_word(l, VSOCK_OP_RESPONSE);
	fd = accept(*listener, NULL, NULL);
	assert_true(fd >= 0);
	return fd;
}

static void end_server(int fd, int listener)
{
	close(fd);
	close(listener);
	unlink_server(80);
}

static size_t read_data(struct vsock_links *l, struct vsock_header *h, void *to, size_t size)
{
	struct iovec piece = { to, size };

	settle(l);
	return vsock_read(l, h, &piece, 1);
}

static void from_the_host(void **state)
{
	struct vsock_links *l = *state;
	struct vsock_header h;
	uint32_t port, second;
	char bytes[16] = "";
	int fd = connected_client(l, &port), other;

	assert_int_equal(read_data(l, &h, bytes, sizeof(bytes)), 3);
	assert_string_equal(bytes, "and");
	assert_int_equal(h.op, VSOCK_OP_RW);
	assert_int_equal(h.len, 3);
	assert_int_equal(h.src_port, port);
	hear_bytes(l, PORT, port, "hello", 5);
	expect_bytes(fd, "hello");
	other = connected_client(l, &second);
	assert_int_not_equal(port, second);
	/* Half of it ends, then the other. */
	shutdown(fd, SHUT_WR);
	settle(l);
	assert_true(vsock_has_data(l));		/* so it seems */
	read_data(l, &h, bytes, sizeof(bytes)); /* of the other one */
	assert_int_equal(read_data(l, &h, bytes, sizeof(bytes)), 0);
	assert_int_equal(expect_word(l, VSOCK_OP_SHUTDOWN).flags, VSOCK_NO_SEND);
	hear_bytes(l, PORT, port, "still", 5);
	expect_bytes(fd, "still");
	h = packet(VSOCK_OP_SHUTDOWN, PORT, port);
	h.flags = VSOCK_NO_RECEIVE | VSOCK_NO_SEND;
	hear(l, h);
	settle(l);
	expect_word(l, VSOCK_OP_RST);
	settle(l);
	expect_end(fd);
	assert_int_equal(l->count, 1);
	close(fd);
	close(other);
}

static void refused(void **state)
{
	static const char *const lines[] = {
		"GET / HTTP/1.0\n",
		"CONNECT\n",
		"CONNECT -1\n",
		"CONNECT 1x\n",
		"CONNECT 4294967295\n",
		"CONNECT 99999999999\n",
		"CONNECT                        1\n",
		"\n",
		"CONNECT 1234567890123456789012345678901234567890",
	};
	struct vsock_links *l = *state;
	uint32_t port;
	int fd;

	for (unsigned n = 0; n < ARRAY_SIZE(lines); n++) {
		fd = client();
		say_line(fd, lines[n]);
		expect_silence(l);
		assert_int_equal(l->count, 0);
		close(fd);
	}
	/* In pieces; nobody listens there. */
	fd = client();
	say_line(fd, "CONN");
	expect_silence(l);
	say_line(fd, "ECT 1234");
	expect_silence(l);
	say_line(fd, "\n");
	settle(l);
	port = expect_word(l, VSOCK_OP_REQUEST).src_port;
	hear(l, packet(VSOCK_OP_RST, PORT, port));
	settle(l);
	expect_end(fd);
	close(fd);
	/* Gone before the guest knew of it; and after. */
	for (unsigned told = 0; told < 2; told++) {
		fd = client();
		say_line(fd, "CONNECT 1234\n");
		settle(l);
		if (told)
			expect_word(l, VSOCK_OP_REQUEST);
		close(fd);
		settle(l);
		if (told)
			expect_word(l, VSOCK_OP_RST);
		expect_silence(l);
		assert_int_equal(l->count, 0);
	}
	/* Without a driver. */
	fd = client();
	say_line(fd, "CONNECT 1234\n");
	settle_with(l, false);
	assert_false(vsock_has_words(l));
	expect_end(fd);
	close(fd);
}

/* More clients than may be without a line: the oldest ones are closed. */
static void silent_clients(void **state)
{
	struct vsock_links *l = *state;
	int fds[VSOCK_LINES_MOST + 3];
	uint32_t port;

	for (unsigned n = 0; n < ARRAY_SIZE(fds); n++) {
		fds[n] = client();
		settle(l);
	}
	assert_int_equal(l->count, VSOCK_LINES_MOST);
	expect_end(fds[0]);
	expect_end(fds[2]);
	expect_nothing(fds[3]);
	close(connected_client(l, &port));
	for (unsigned n = 0; n < ARRAY_SIZE(fds); n++)
		close(fds[n]);
	settle(l);
}

static void from_the_guest(void **state)
{
	struct vsock_links *l = *state;
	struct vsock_header h;
	char bytes[16] = "";
	int listener, fd = connected_server(l, 7, &listener);

	hear_bytes(l, 7, 80, "question", 8);
	expect_bytes(fd, "question");
	say_line(fd, "answer");
	assert_int_equal(read_data(l, &h, bytes, sizeof(bytes)), 6);
	assert_int_equal(h.src_port, 80);
	assert_int_equal(h.dst_port, 7);
	assert_int_equal(h.fwd_cnt, 8);
	/* The guest sends no more, and still receives. */
	h = packet(VSOCK_OP_SHUTDOWN, 7, 80);
	h.flags = VSOCK_NO_SEND;
	hear(l, h);
	expect_end(fd);
	say_line(fd, "more");
	assert_int_equal(read_data(l, &h, bytes, sizeof(bytes)), 4);
	close(fd);
	settle(l);
	assert_int_equal(read_data(l, &h, bytes, sizeof(bytes)), 0);
	assert_int_equal(expect_word(l, VSOCK_OP_SHUTDOWN).flags, VSOCK_NO_SEND | VSOCK_NO_RECEIVE);
	hear(l, packet(VSOCK_OP_RST, 7, 80));
	expect_silence(l);
	assert_int_equal(l->count, 0);
	close(listener);
	unlink_server(80);
	/* Nobody listens. */
	hear(l, packet(VSOCK_OP_REQUEST, 8, 81));
	settle(l);
	h = expect_word(l, VSOCK_OP_RST);
	assert_int_equal(h.src_port, 81);
	assert_int_equal(h.dst_port, 8);
	expect_silence(l);
	assert_int_equal(l->count, 0);
}

/* To the guest: not a byte more than it has room for. */
static void credit_of_the_guest(void **state)
{
	struct vsock_links *l = *state;
	static char bytes[2 * CREDIT];
	struct vsock_header h;
	size_t got = 0, part;
	int listener, fd = connected_server(l, 7, &listener), size = 4 << 20;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	for (size_t n = 0; n < 150000; n += 10000)
		assert_int_equal(send(fd, bytes, 10000, MSG_DONTWAIT), 10000);
	while ((part = read_data(l, &h, bytes, 4096)))
		got += part;
	assert_int_equal(got, CREDIT);
	expect_word(l, VSOCK_OP_CREDIT_REQUEST);
	expect_silence(l);
	h = packet(VSOCK_OP_CREDIT_UPDATE, 7, 80);
	h.fwd_cnt = 10;
	hear(l, h);
	assert_int_equal(read_data(l, &h, bytes, 4096), 10);
	expect_word(l, VSOCK_OP_CREDIT_REQUEST);
	/* More than was sent: nothing that it could be. */
	h = packet(VSOCK_OP_CREDIT_UPDATE, 7, 80);
	h.fwd_cnt = CREDIT + 11;
	hear(l, h);
	assert_int_equal(read_data(l, &h, bytes, 4096), 0);
	h = packet(VSOCK_OP_CREDIT_UPDATE, 7, 80);
	h.fwd_cnt = CREDIT + 10;
	hear(l, h);
	for (got = 0; (part = read_data(l, &h, bytes, 4096));)
		got += part;
	assert_int_equal(got, 150000 - CREDIT - 10);
	hear(l, packet(VSOCK_OP_CREDIT_REQUEST, 7, 80));
	expect_word(l, VSOCK_OP_CREDIT_UPDATE);
	end_server(fd, listener);
}

/* From the guest: what a slow reader leaves is kept, up to what was promised, and written before the connection ends. */
static void credit_of_the_host(void **state)
{
	struct vsock_links *l = *state;
	static uint8_t bytes[65536], back[4 * sizeof(bytes)];
	struct vsock_header h;
	uint32_t sent = 0, taken = 0, room;
	size_t got = 0;
	int listener, fd = connected_server(l, 7, &listener);
	ssize_t n;

	for (;;) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)((sent + i) * 31 >> 3);
		settle(l);
		while (vsock_has_words(l))
			taken = expect_word(l, VSOCK_OP_CREDIT_UPDATE).fwd_cnt;
		room = VSOCK_BUFFER - (sent - taken);
		if (!room)
			break;
		room = MIN(room, (uint32_t)sizeof(bytes));
		hear_bytes(l, 7, 80, bytes, room);
		sent += room;
	}
	assert_true(sent >= VSOCK_BUFFER && sent < sizeof(back) + VSOCK_BUFFER);
	h = packet(VSOCK_OP_SHUTDOWN, 7, 80);
	h.flags = VSOCK_NO_SEND | VSOCK_NO_RECEIVE;
	hear(l, h);
	expect_word(l, VSOCK_OP_RST);
	hear(l, packet(VSOCK_OP_RST, 7, 80));
	while ((n = recv(fd, back, sizeof(back), MSG_DONTWAIT)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(back[i], (uint8_t)((got + (size_t)i) * 31 >> 3));
		got += (size_t)n;
		settle(l);
	}
	assert_int_equal(n, 0);
	assert_int_equal(got, sent);
	assert_int_equal(l->count, 0);
	expect_silence(l);
	end_server(fd, listener);
}

static void against_the_rules(void **state)
{
	static uint8_t bytes[VSOCK_BUFFER + 1];
	static const enum vsock_op ops[] = { VSOCK_OP_INVALID, VSOCK_OP_REQUEST, VSOCK_OP_RESPONSE, (enum vsock_op)8,
					     (enum vsock_op)0xffff };
	struct vsock_links *l = *state;
	struct vsock_header h;
	int listener, fd;

	/* On a connection */
	for (unsigned n = 0; n < ARRAY_SIZE(ops); n++) {
		fd = connected_server(l, 7, &listener);
		hear(l, packet(ops[n], 7, 80));
		settle(l);
		expect_word(l, VSOCK_OP_RST);
		expect_silence(l);
		expect_end(fd);
		end_server(fd, listener);
	}
	fd = connected_server(l, 7, &listener);
	hear_bytes(l, 7, 80, bytes, sizeof(bytes)); /* no credit for that */
	expect_word(l, VSOCK_OP_RST);
	end_server(fd, listener);
	settle(l);
	fd = connected_server(l, 7, &listener);
	h = packet(VSOCK_OP_SHUTDOWN, 7, 80);
	h.flags = VSOCK_NO_SEND;
	hear(l, h);
	hear_bytes(l, 7, 80, bytes, 1); /* behind its end */
	expect_word(l, VSOCK_OP_RST);
	end_server(fd, listener);
	settle(l);
	/* Without one */
	for (unsigned op = 0; op < 9; op++) {
		if (op == VSOCK_OP_REQUEST)
			continue;
		hear(l, packet((enum vsock_op)op, 7, 80));
		if (op != VSOCK_OP_RST)
			expect_word(l, VSOCK_OP_RST);
		expect_silence(l);
	}
	/* For somebody else; of another type; from somebody else. */
	h = packet(VSOCK_OP_REQUEST, 7, 80);
	h.dst_cid = 9;
	hear(l, h);
	assert_int_equal(expect_word(l, VSOCK_OP_RST).src_cid, 9);
	h = packet(VSOCK_OP_REQUEST, 7, 80);
	h.type = 2;
	hear(l, h);
	assert_int_equal(expect_word(l, VSOCK_OP_RST).type, 2);
	h.src_cid = 6;
	hear(l, h);
	expect_silence(l);
	assert_int_equal(l->count, 0);
}

/* More connections than there may be; more replies than there is room for. */
static void floods(void **state)
{
	struct vsock_links *l = *state;

	for (uint32_t n = 0; n < VSOCK_LINKS_MOST + 5; n++)
		hear(l, packet(VSOCK_OP_REQUEST, n, 81));
	assert_int_equal(l->count, VSOCK_LINKS_MOST);
	for (unsigned n = 0; n < 5; n++)
		expect_word(l, VSOCK_OP_RST);
	settle(l);
	for (unsigned n = 0; n < VSOCK_LINKS_MOST; n++)
		expect_word(l, VSOCK_OP_RST);
	expect_silence(l);
	assert_int_equal(l->count, 0);
	for (unsigned n = 0; vsock_hears(l); n++)
		hear(l, packet(VSOCK_OP_RW, n, 81));
	for (unsigned n = 0; n < VSOCK_REPLIES_MOST; n++)
		assert_int_equal(expect_word(l, VSOCK_OP_RST).dst_port, n);
	expect_silence(l);
}

static void addresses(void **state)
{
	struct vsock_links other;
	struct error err;
	struct stat st;
	char longer[128];

	(void)state;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(vsock_open(&other, path, CID, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "another process listens"));
	memset(longer, 'x', sizeof(longer) - 1);
	longer[97] = 0;
	assert_int_equal(vsock_open(&other, longer, CID, &err), -EINVAL);
	assert_int_equal(vsock_open(&other, "", CID, &err), -EINVAL);
}

/* ---- the device ---- */

#define PACKETS 0x200000u
#define BUFFERS 0x300000u
#define BUFFER	4140u
#define RING	16u

struct guest {
	struct driver d;
	unsigned filled; /* receive buffers, ever */
};

static void ready(struct guest *g)
{
	assert_int_equal(driver_features(&g->d, BIT(VIRTIO_F_VERSION_1)) & VIRTIO_FEATURES_OK, VIRTIO_FEATURES_OK);
	for (unsigned n = 0; n < 3; n++)
		driver_queue(&g->d, n, RING);
	for (unsigned n = 0; n < RING; n++)
		driver_descriptor(&g->d, g->d.queues[0].descriptors, n, BUFFERS + n * 0x2000, BUFFER, D_WRITE, 0);
	driver_descriptor(&g->d, g->d.queues[2].descriptors, 0, BUFFERS - 0x1000, 8, D_WRITE, 0);
	driver_ok(&g->d);
}

static void start(struct guest *g)
{
	char spec[128];
	struct error err;

	*g = (struct guest){ .d = driver_board_with(CLOCK_HOST) };
	snprintf(spec, sizeof(spec), "virtio-vsock,socket=unix:%s,guest-cid=%u", path, CID);
	if (!device_plug(g->d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
	driver_reset_board(&g->d);
	ready(g);
}

static void end(struct guest *g)
{
	bus_pause(g->d.b->bus);
	devices_unplug(g->d.b->bus);
	driver_end(&g->d);
	assert_int_equal(access(path, F_OK), -1);
}

static void add_buffers(struct guest *g, unsigned count)
{
	while (count--)
		driver_add(&g->d, &g->d.queues[0], g->filled++ % RING);
	driver_kick(&g->d, &g->d.queues[0]);
}

static void put(struct guest *g, struct vsock_header h, uint32_t size)
{
	struct driver_queue *q = &g->d.queues[1];

	assert_int_equal(mem_write(g->d.mem, gpa(PACKETS), &h, sizeof(h)), 0);
	driver_descriptor(&g->d, q->descriptors, 0, PACKETS, size, 0, 0);
	driver_add(&g->d, q, 0);
	driver_kick(&g->d, q);
}

/* The next packet; the thread may need a while. */
static struct vsock_header get(struct guest *g)
{
	struct vsock_header h;
	uint32_t length;
	int head;

	while ((head = driver_used(&g->d, &g->d.queues[0], &length)) < 0)
		sched_yield();
	assert_int_equal(mem_read(g->d.mem, gpa(BUFFERS + (unsigned)head * 0x2000), &h, sizeof(h)), 0);
	assert_int_equal(length, sizeof(h) + h.len);
	return h;
}

static void device(void **state)
{
	struct guest g;
	struct vsock_header h;
	int fd;
	char byte;

	(void)state;
	start(&g);
	assert_int_equal(driver_rd(&g.d, DRIVER_CONFIG, 4), CID);
	assert_int_equal(driver_rd(&g.d, DRIVER_CONFIG + 4, 4), 0);
	fd = client();
	say_line(fd, "CONNECT 1234\nabc");
	add_buffers(&g, 1);
	h = get(&g);
	assert_int_equal(h.op, VSOCK_OP_REQUEST);
	put(&g, packet(VSOCK_OP_RESPONSE, PORT, h.src_port), sizeof(h));
	assert_int_equal(driver_used(&g.d, &g.d.queues[1], NULL), 0);
	add_buffers(&g, 1);
	h = get(&g);
	assert_int_equal(h.op, VSOCK_OP_RW);
	assert_int_equal(h.len, 3);
	h = packet(VSOCK_OP_SHUTDOWN, PORT, h.src_port);
	h.flags = 3;
	put(&g, h, sizeof(h));
	add_buffers(&g, 1);
	assert_int_equal(get(&g).op, VSOCK_OP_RST);
	assert_int_equal(driver_used(&g.d, &g.d.queues[1], NULL), 0);
	while (recv(fd, &byte, 1, 0) > 0)
		;
	close(fd);
	/* Not as much as it says; no header; a buffer without room. */
	h.op = VSOCK_OP_RW;
	h.len = 1;
	put(&g, h, sizeof(h));
	assert_true(driver_status(&g.d) & VIRTIO_NEEDS_RESET);
	g.filled = 0;
	ready(&g);
	put(&g, h, sizeof(h) - 1);
	assert_true(driver_status(&g.d) & VIRTIO_NEEDS_RESET);
	g.filled = 0;
	ready(&g);
	driver_descriptor(&g.d, g.d.queues[0].descriptors, 0, BUFFERS, sizeof(h), D_WRITE, 0);
	add_buffers(&g, 1);
	put(&g, packet(VSOCK_OP_RW, 1, 2), sizeof(h));
	while (!(driver_status(&g.d) & VIRTIO_NEEDS_RESET))
		sched_yield();
	end(&g);
}

/* Replies wait for buffers; then the packets that waited for replies are heard. */
static void no_buffers(void **state)
{
	struct guest g;
	unsigned sent = 0, heard = 0, got = 0;

	(void)state;
	start(&g);
	while (sent < VSOCK_REPLIES_MOST + RING / 2) {
		put(&g, packet(VSOCK_OP_RW, sent++, 2), sizeof(struct vsock_header));
		heard += driver_used(&g.d, &g.d.queues[1], NULL) >= 0;
	}
	assert_int_equal(heard, VSOCK_REPLIES_MOST);
	while (got < sent) {
		add_buffers(&g, 1);
		assert_int_equal(get(&g).op, VSOCK_OP_RST);
		got++;
	}
	while (driver_used(&g.d, &g.d.queues[1], NULL) >= 0)
		heard++;
	assert_int_equal(heard, sent);
	end(&g);
}

/* Connections end where the machine is loaded, and the driver is told, once. */
static void saved(void **state)
{
	struct guest g;
	struct writer records;
	struct vsock_header h;
	struct error err;
	uint32_t length, event = 7;
	int fd;
	char byte;

	(void)state;
	start(&g);
	fd = client();
	say_line(fd, "CONNECT 1234\n");
	add_buffers(&g, 1);
	h = get(&g);
	put(&g, packet(VSOCK_OP_RESPONSE, PORT, h.src_port), sizeof(h));
	driver_add(&g.d, &g.d.queues[2], 0);
	driver_kick(&g.d, &g.d.queues[2]);
	assert_int_equal(driver_used(&g.d, &g.d.queues[2], NULL), -1);
	bus_pause(g.d.b->bus);
	records = board_save(g.d.b);
	if (board_load(g.d.b, &records, 0, &err))
		fail_msg("%s", err.text);
	bus_resume(g.d.b->bus);
	assert_int_equal(driver_used(&g.d, &g.d.queues[2], &length), 0);
	assert_int_equal(length, 4);
	assert_int_equal(mem_read(g.d.mem, gpa(BUFFERS - 0x1000), &event, 4), 0);
	assert_int_equal(event, 0);
	driver_add(&g.d, &g.d.queues[2], 0);
	driver_kick(&g.d, &g.d.queues[2]);
	assert_int_equal(driver_used(&g.d, &g.d.queues[2], NULL), -1);
	while (recv(fd, &byte, 1, 0) > 0)
		;
	close(fd);
	/* Damaged: more than a bit. */
	bus_pause(g.d.b->bus);
	for (size_t n = 0; n + 8 < records.size; n++)
		if (!memcmp(records.data + n, "virtio-vsock.0", 14)) {
			const uint8_t tag[] = { 1, 0, 1, 1, 0, 0, 0 };
			uint8_t *field = memmem(records.data + n, records.size - n, tag, sizeof(tag));

			assert_non_null(field);
			field[sizeof(tag)] = 2;
		}
	assert_int_equal(board_load(g.d.b, &records, 0, &err), -EINVAL);
	assert_non_null(strstr(err.text, "lost"));
	bus_resume(g.d.b->bus);
	writer_free(&records);
	end(&g);
}

static void options(void **state)
{
	static const char *const wrong[] = { "virtio-vsock", "virtio-vsock,socket=tcp:1",
					     "virtio-vsock,socket=unix:", "virtio-vsock,socket=unix:/tmp/x,guest-cid=2",
					     "virtio-vsock,socket=unix:/nowhere/x" };
	struct error err;

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(wrong); n++) {
		struct driver d = driver_board();

		assert_null(device_plug(d.b->bus, NULL, &(struct device_request){ .spec = wrong[n] }, &err));
		assert_non_null(strstr(err.text, "virtio-vsock"));
		driver_end(&d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(from_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(refused, setup, teardown),
		cmocka_unit_test_setup_teardown(silent_clients, setup, teardown),
		cmocka_unit_test_setup_teardown(from_the_guest, setup, teardown),
		cmocka_unit_test_setup_teardown(credit_of_the_guest, setup, teardown),
		cmocka_unit_test_setup_teardown(credit_of_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(against_the_rules, setup, teardown),
		cmocka_unit_test_setup_teardown(floods, setup, teardown),
		cmocka_unit_test_setup_teardown(addresses, setup, teardown),
		cmocka_unit_test(device),
		cmocka_unit_test(no_buffers),
		cmocka_unit_test(saved),
		cmocka_unit_test(options),
	};
	int rc;

	cmocka_set_message_output(CM_OUTPUT_TAP);
	log_set_level(LOG_ERROR);
	if (!mkdtemp(folder))
		return 1;
	snprintf(path, sizeof(path), "%s/socket", folder);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(folder);
	return rc;
}
