/*
 * virtio-net by its book: a driver written by hand on one side, a socket that speaks the stream protocol on the other.
 */
#define _GNU_SOURCE
#include "lib/virtio_driver.h"
#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The queues are memory that driver and device share without locks, as on hardware. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:mem_write\nrace:mem_read\n"; }
#endif

#define RX	0
#define TX	1
#define BUFFERS 0x300000ull /* of the driver: 4 KiB each */
#define HEADER	12
#define GIVE_UP 60000 /* ms */

#define CSUM	       (1ull << 0)
#define GUEST_CSUM     (1ull << 1)
#define GUEST_OFFLOADS (1ull << 2)
#define GUEST_TSO4     (1ull << 7)
#define HOST_TSO4      (1ull << 11)
#define MERGE	       (1ull << 15)
#define STATUS	       (1ull << 16)
#define CONTROL	       (1ull << 17)
#define CONTROL_RX     (1ull << 18)
#define CONTROL_VLAN   (1ull << 19)
#define MQ	       (1ull << 22)
#define MODERN	       (1ull << 32)

struct fixture {
	struct driver d;
	char folder[32], path[64];
	int wire;
	struct driver_queue *rx, *tx, *control;
	unsigned pairs;
};

static const uint8_t mac[6] = { 0x52, 0x54, 0, 0xaa, 0xbb, 0xcc };

static void plug_wire(struct fixture *f)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, f->path);
	f->wire = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(f->wire, (struct sockaddr *)&address, sizeof(address)), 0);
}

static void create(struct fixture *f, unsigned pairs)
{
	struct error err = { 0 };
	char spec[200];

	memset(f, 0, sizeof(*f));
	f->pairs = pairs;
	f->d = driver_board();
	strcpy(f->folder, "/tmp/doppel-card-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/s", f->folder);
	snprintf(spec, sizeof(spec), "virtio-net,queues=%u,legacy=off", pairs);
	{
		char net[160];
		struct device_request request = { .spec = spec, .option = "net", .value = net };

		snprintf(net, sizeof(net), "stream:unix:%s,server,mac=52:54:00:aa:bb:cc,mtu=1500", f->path);
		if (!device_plug(f->d.b->bus, NULL, &request, &err))
			fail_msg("%s", err.text);
	}
	driver_reset_board(&f->d);
}

static unsigned config(struct fixture *f, unsigned offset, unsigned size)
{
	return driver_rd(&f->d, DRIVER_CONFIG + offset, size);
}

/* The net's thread sees it soon. */
static void wait_for_status(struct fixture *f, unsigned status)
{
	for (unsigned n = 0; n < GIVE_UP && config(f, 6, 2) != status; n++)
		poll(NULL, 0, 1);
	assert_int_equal(config(f, 6, 2), status);
}

static void start(struct fixture *f, uint64_t features)
{
	unsigned control = features & MQ ? 2 * f->pairs : 2;

	assert_true(driver_features(&f->d, features | MODERN) & VIRTIO_FEATURES_OK);
	f->rx = driver_queue(&f->d, RX, 16);
	f->tx = driver_queue(&f->d, TX, 16);
	if (features & CONTROL)
		f->control = driver_queue(&f->d, control, 16);
	driver_ok(&f->d);
	plug_wire(f);
	wait_for_status(f, 1);
}

static void destroy(struct fixture *f)
{
	close(f->wire);
	bus_pause(f->d.b->bus);
	devices_unplug(f->d.b->bus);
	driver_end(&f->d);
	assert_int_equal(rmdir(f->folder), 0);
}

/* ---- the wire ---- */

static void wire_send(struct fixture *f, const void *frame, size_t size)
{
	uint8_t header[4];

	store_le32(header, htonl((uint32_t)size));
	assert_int_equal(host_write_all(f->wire, header, 4), 0);
	assert_int_equal(host_write_all(f->wire, frame, size), 0);
}

static size_t wire_receive(struct fixture *f, uint8_t *frame)
{
	uint32_t size;

	assert_int_equal(recv(f->wire, &size, 4, MSG_WAITALL), 4);
	size = ntohl(size);
	assert_int_equal(recv(f->wire, frame, size, MSG_WAITALL), size);
	return size;
}

static void make_frame(uint8_t *frame, size_t size, const uint8_t to[6])
{
	for (size_t i = 0; i < size; i++)
		frame[i] = (uint8_t)(i * 11 + size);
	memcpy(frame, to, 6);
	frame[12] = 8;
}

/* ---- the driver ---- */

static uint64_t buffer(unsigned n) { return BUFFERS + 0x1000ull * n; }

static void give_buffer(struct fixture *f, unsigned n, unsigned size)
{
	driver_descriptor(&f->d, f->rx->descriptors, n, buffer(n), size, D_WRITE, 0);
	driver_add(&f->d, f->rx, n);
}

/* Waits for a used buffer. */
static int next_used(struct fixture *f, struct driver_queue *q, uint32_t *length)
{
	int head = -1;

	for (unsigned n = 0; n < GIVE_UP && head < 0; n++) {
		head = driver_used(&f->d, q, length);
		if (head < 0)
			poll(NULL, 0, 1);
	}
	assert_true(head >= 0);
	return head;
}

static void expect_frame(struct fixture *f, const uint8_t *frame, size_t size, unsigned buffers)
{
	uint8_t got[HEADER + 8000];
	size_t at = 0;

	for (unsigned n = 0; n < buffers; n++) {
		uint32_t length;
		int head = next_used(f, f->rx, &length);

		assert_int_equal(mem_read(f->d.mem, gpa(buffer((unsigned)head)), got + at, length), 0);
		at += length;
	}
	assert_int_equal(at, HEADER + size);
	assert_int_equal(load_le16(got + 10), buffers);
	assert_memory_equal(got + HEADER, frame, size);
}

/* Nothing is on its way: what was sent behind it has come. */
static void order(struct fixture *f, unsigned class, unsigned command, const void *data, size_t size, unsigned answer)
{
	struct driver *d = &f->d;
	uint8_t head[2] = { (uint8_t) class, (uint8_t)command }, ack = 0xee;
	uint64_t at = buffer(64);

	assert_int_equal(mem_write(d->mem, gpa(at), head, 2), 0);
	if (size)
		assert_int_equal(mem_write(d->mem, gpa(at + 2), data, size), 0);
	driver_descriptor(d, f->control->descriptors, 0, at, 2, D_NEXT, 1);
	driver_descriptor(d, f->control->descriptors, 1, at + 2, (uint32_t)size, D_NEXT, 2);
	driver_descriptor(d, f->control->descriptors, 2, at + 0xfff, 1, D_WRITE, 0);
	driver_add(d, f->control, 0);
	driver_kick(d, f->control);
	assert_int_equal(next_used(f, f->control, NULL), 0);
	assert_int_equal(mem_read(d->mem, gpa(at + 0xfff), &ack, 1), 0);
	assert_int_equal(ack, answer);
}

/* ---- tests ---- */

static void test_config(void **state)
{
	struct fixture f;
	uint64_t offered;

	(void)state;
	create(&f, 2);
	offered = driver_offered(&f.d);
	assert_int_equal(offered & (CSUM | GUEST_CSUM | GUEST_OFFLOADS | GUEST_TSO4 | HOST_TSO4 | MERGE | STATUS |
				    CONTROL | MQ | MODERN | 1 << 3 | 1 << 5),
			 CSUM | GUEST_CSUM | GUEST_OFFLOADS | GUEST_TSO4 | HOST_TSO4 | MERGE | STATUS | CONTROL | MQ |
				 MODERN | 1 << 3 | 1 << 5);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(config(&f, i, 1), mac[i]);
	assert_int_equal(config(&f, 6, 2), 0);
	assert_int_equal(config(&f, 8, 2), 2);
	assert_int_equal(config(&f, 10, 2), 1500);
	start(&f, STATUS);
	assert_true(driver_isr(&f.d) & 2);
	close(f.wire);
	wait_for_status(&f, 0);
	assert_true(driver_isr(&f.d) & 2);
	plug_wire(&f);
	wait_for_status(&f, 1);
	destroy(&f);
}

static void test_send(void **state)
{
	uint8_t frame[3000] = { 0 }, got[3000];
	struct fixture f;

	(void)state;
	create(&f, 1);
	start(&f, MERGE);
	make_frame(frame + HEADER, 1000, mac);
	assert_int_equal(mem_write(f.d.mem, gpa(buffer(0)), frame, HEADER + 1000), 0);
	/* Header and frame in one piece, and in four that break both. */
	driver_descriptor(&f.d, f.tx->descriptors, 0, buffer(0), HEADER + 1000, 0, 0);
	driver_descriptor(&f.d, f.tx->descriptors, 1, buffer(0), 7, D_NEXT, 2);
	driver_descriptor(&f.d, f.tx->descriptors, 2, buffer(0) + 7, 9, D_NEXT, 3);
	driver_descriptor(&f.d, f.tx->descriptors, 3, buffer(0) + 16, 900, D_NEXT, 4);
	driver_descriptor(&f.d, f.tx->descriptors, 4, buffer(0) + 916, HEADER + 1000 - 916, 0, 0);
	driver_add(&f.d, f.tx, 0);
	driver_add(&f.d, f.tx, 1);
	/* Too short to be anything: it is used all the same. */
	driver_descriptor(&f.d, f.tx->descriptors, 5, buffer(0), HEADER + 3, 0, 0);
	driver_descriptor(&f.d, f.tx->descriptors, 6, buffer(0), 5, 0, 0);
	driver_add(&f.d, f.tx, 5);
	driver_add(&f.d, f.tx, 6);
	driver_kick(&f.d, f.tx);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(wire_receive(&f, got), 1000);
		assert_memory_equal(got, frame + HEADER, 1000);
	}
	for (unsigned i = 0; i < 4; i++)
		next_used(&f, f.tx, NULL);
	destroy(&f);
}

/* An IPv4 frame whose TCP checksum is left to the card: what was not negotiated is not done. */
static void test_send_offload(void **state)
{
	uint8_t frame[HEADER + 100] = { NET_NEEDS_CHECKSUM, 0, 0, 0, 0, 0, 34, 0, 16, 0 }, got[100];
	struct fixture f;

	(void)state;
	for (unsigned negotiated = 0; negotiated < 2; negotiated++) {
		create(&f, 1);
		start(&f, negotiated ? CSUM : 0);
		make_frame(frame + HEADER, 100, mac);
		assert_int_equal(mem_write(f.d.mem, gpa(buffer(0)), frame, sizeof(frame)), 0);
		driver_descriptor(&f.d, f.tx->descriptors, 0, buffer(0), sizeof(frame), 0, 0);
		driver_add(&f.d, f.tx, 0);
		driver_kick(&f.d, f.tx);
		assert_int_equal(wire_receive(&f, got), 100);
		assert_int_equal(!memcmp(got, frame + HEADER, 100), !negotiated);
		memcpy(got + 50, frame + HEADER + 50, 2);
		assert_memory_equal(got, frame + HEADER, 100);
		destroy(&f);
	}
}

static void test_receive(void **state)
{
	uint8_t frame[4000];
	struct fixture f;

	(void)state;
	create(&f, 1);
	start(&f, MERGE);
	make_frame(frame, sizeof(frame), mac);
	/* No buffers yet: it waits. */
	wire_send(&f, frame, 200);
	wire_send(&f, frame, 4000);
	give_buffer(&f, 0, 300);
	give_buffer(&f, 1, 1000);
	give_buffer(&f, 2, 1000);
	driver_kick(&f.d, f.rx);
	expect_frame(&f, frame, 200, 1);
	assert_int_equal(driver_used(&f.d, f.rx, NULL), -1);
	for (unsigned i = 3; i < 8; i++)
		give_buffer(&f, i, 1000);
	driver_kick(&f.d, f.rx);
	expect_frame(&f, frame, 4000, 5);
	/* Buffers 6 and 7 are left. */
	wire_send(&f, frame, 500);
	expect_frame(&f, frame, 500, 1);
	destroy(&f);
}

/* A frame that waits for more buffers than there are keeps nobody from the queue: the driver may kick, the machine may end. */
static void test_too_few_buffers(void **state)
{
	uint8_t frame[4000];
	struct fixture f;

	(void)state;
	create(&f, 1);
	start(&f, MERGE);
	make_frame(frame, sizeof(frame), mac);
	for (unsigned n = 0; n < 3; n++)
		give_buffer(&f, n, 1000);
	driver_kick(&f.d, f.rx);
	wire_send(&f, frame, 200);
	wire_send(&f, frame, 4000);
	expect_frame(&f, frame, 200, 1);
	poll(NULL, 0, 20);
	driver_kick(&f.d, f.rx);
	destroy(&f);
}

/* Without merging: what is too large for a buffer is lost, what comes behind it is not. */
static void test_receive_unmerged(void **state)
{
	uint8_t frame[1514];
	struct fixture f;

	(void)state;
	create(&f, 1);
	start(&f, 0);
	make_frame(frame, sizeof(frame), mac);
	give_buffer(&f, 0, 1000);
	give_buffer(&f, 1, HEADER + 1514);
	driver_kick(&f.d, f.rx);
	wire_send(&f, frame, 1514);
	wire_send(&f, frame, 600);
	wire_send(&f, frame, 1514);
	expect_frame(&f, frame, 600, 1);
	expect_frame(&f, frame, 1514, 1);
	destroy(&f);
}

/* The frame for `to` is the card's, or is not: the one for all behind it comes anyway. */
static void expect_wanted(struct fixture *f, const uint8_t to[6], bool wanted)
{
	static const uint8_t all[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint8_t frame[60], last[61];

	make_frame(frame, sizeof(frame), to);
	make_frame(last, sizeof(last), all);
	give_buffer(f, 0, 1000);
	give_buffer(f, 1, 1000);
	driver_kick(&f->d, f->rx);
	wire_send(f, frame, sizeof(frame));
	wire_send(f, last, sizeof(last));
	if (wanted)
		expect_frame(f, frame, sizeof(frame), 1);
	expect_frame(f, last, sizeof(last), 1);
	if (!wanted) {
		wire_send(f, last, sizeof(last));
		expect_frame(f, last, sizeof(last), 1);
	}
}

static void test_filter(void **state)
{
	static const uint8_t other[6] = { 2, 0, 0, 0, 0, 1 }, group[6] = { 0x33, 0x33, 0, 0, 0, 1 };
	uint8_t table[4 + 6 + 4 + 6] = { 0 };
	struct fixture f;

	(void)state;
	create(&f, 1);
	start(&f, MERGE | CONTROL | CONTROL_RX);
	expect_wanted(&f, mac, true);
	expect_wanted(&f, other, false);
	expect_wanted(&f, group, false);
	order(&f, 0, 0, "\1", 1, 0); /* promiscuous */
	expect_wanted(&f, other, true);
	order(&f, 0, 0, "\0", 1, 0);
	order(&f, 0, 1, "\1", 1, 0); /* all multicast */
	expect_wanted(&f, group, true);
	expect_wanted(&f, other, false);
	order(&f, 0, 1, "\0", 1, 0);
	table[0] = table[10] = 1;
	memcpy(table + 4, other, 6);
	memcpy(table + 14, group, 6);
	order(&f, 1, 0, table, sizeof(table), 0);
	expect_wanted(&f, other, true);
	expect_wanted(&f, group, true);
	order(&f, 1, 1, other, 6, 0); /* its own address */
	order(&f, 1, 0, "\0\0\0\0\0\0\0\0", 8, 0);
	expect_wanted(&f, other, true);
	expect_wanted(&f, mac, false);
	destroy(&f);
}

static void test_bad_orders(void **state)
{
	uint8_t offloads[8] = { 0 };
	struct fixture f;

	(void)state;
	create(&f, 2);
	start(&f, CONTROL | CONTROL_RX | CONTROL_VLAN | MQ | GUEST_OFFLOADS | GUEST_CSUM);
	order(&f, 9, 0, "\1", 1, 1);
	order(&f, 0, 6, "\1", 1, 1);
	order(&f, 0, 0, NULL, 0, 1);
	order(&f, 1, 1, mac, 5, 1);
	order(&f, 1, 0,
	      "\2\0\0\0"
	      "abcdef",
	      10, 1);
	order(&f, 1, 0,
	      "\377\377\377\377"
	      "abcdef",
	      10, 1);
	order(&f, 2, 0, "\0\20", 2, 1); /* VLAN 4096 */
	order(&f, 2, 0, "\377\17", 2, 0);
	order(&f, 2, 1, "\377\17", 2, 0);
	order(&f, 4, 0, "\0\0", 2, 1); /* pairs */
	order(&f, 4, 0, "\3\0", 2, 1);
	order(&f, 4, 0, "\2\0", 2, 0);
	store_le64(offloads, GUEST_TSO4);
	order(&f, 5, 0, offloads, 8, 1);
	store_le64(offloads, GUEST_CSUM);
	order(&f, 5, 0, offloads, 8, 0);
	order(&f, 5, 0, offloads, 7, 1);
	destroy(&f);
}

/* While it is paused nothing of the machine changes; afterwards all of it comes. */
static void test_pause(void **state)
{
	uint8_t frame[100];
	struct fixture f;

	(void)state;
	create(&f, 1);
	start(&f, MERGE | STATUS);
	make_frame(frame, sizeof(frame), mac);
	give_buffer(&f, 0, 1000);
	driver_kick(&f.d, f.rx);
	bus_pause(f.d.b->bus);
	wire_send(&f, frame, sizeof(frame));
	close(f.wire);
	poll(NULL, 0, 20);
	assert_int_equal(driver_used(&f.d, f.rx, NULL), -1);
	assert_int_equal(config(&f, 6, 2), 1);
	bus_resume(f.d.b->bus);
	expect_frame(&f, frame, sizeof(frame), 1);
	wait_for_status(&f, 0);
	plug_wire(&f);
	wait_for_status(&f, 1);
	destroy(&f);
}

/* What was saved goes on where it was, though the driver has reset the card since: queues, filter, buffers. */
static void test_saved(void **state)
{
	static const uint8_t other[6] = { 2, 0, 0, 0, 0, 1 };
	uint8_t table[4 + 6 + 4] = { 1 }, frame[100];
	struct writer saved, again;
	struct fixture f;

	(void)state;
	create(&f, 1);
	start(&f, MERGE | STATUS | CONTROL | CONTROL_RX);
	memcpy(table + 4, other, 6);
	order(&f, 1, 0, table, sizeof(table), 0);
	give_buffer(&f, 0, 1000);
	driver_kick(&f.d, f.rx);
	bus_pause(f.d.b->bus);
	saved = board_save(f.d.b);
	driver_wr(&f.d, 0x14, 1, 0);
	assert_int_equal(board_load(f.d.b, &saved, clock_now(f.d.b->clock), NULL), 0);
	again = board_save(f.d.b);
	assert_int_equal(again.size, saved.size);
	assert_memory_equal(again.data, saved.data, saved.size);
	bus_resume(f.d.b->bus);
	make_frame(frame, sizeof(frame), other);
	wire_send(&f, frame, sizeof(frame));
	expect_frame(&f, frame, sizeof(frame), 1);
	expect_wanted(&f, mac, true);
	free(saved.data);
	free(again.data);
	destroy(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),		cmocka_unit_test(test_send),
		cmocka_unit_test(test_send_offload),	cmocka_unit_test(test_receive),
		cmocka_unit_test(test_too_few_buffers), cmocka_unit_test(test_receive_unmerged),
		cmocka_unit_test(test_filter),		cmocka_unit_test(test_bad_orders),
		cmocka_unit_test(test_pause),		cmocka_unit_test(test_saved),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
