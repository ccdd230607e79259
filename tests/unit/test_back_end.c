/*
 * virtio devices whose queues a vhost-user back end serves (devices/virtio/back_end.h), with one that is a thread of the test (host_thread_create() is for those of the devices): requests
 * there and back, a back end that goes away with some, comes back or not, says senseless things or nothing; resets, pauses, saved machines.
 */
#include "lib/vhost_peer.h"
#include "lib/virtio_driver.h"

#include <errno.h>
#include <stdlib.h>

/* Rings and buffers are memory that several write, who see by other means when they may. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:peer_\nrace:vhost_ring_\nrace:mem_write\nrace:mem_read\nrace:pieces_copy\nrace:serve_disk\n";
}
#endif

#define SECTORS	   64u
#define QUEUE_SIZE 64u
#define HEADERS	   0x200000u
#define DATA	   0x210000u
#define STATUS	   0x260000u
#define LIMIT_MS   60000u
#define MANY	   400u /* requests of three descriptors, more than VHOST_RING_SIZE has room for, by less than QUEUE_SIZE */
#define BLK_RO	   BIT(5)
#define BLK_FLUSH  BIT(9)
#define BLK_WCE	   BIT(11)
#define WRITEBACK  32u /* in the configuration space */

struct guest {
	struct driver d;
	struct driver_queue *q; /* of d */
	struct vhost_peer peer;
	pthread_t thread;
	char folder[32];
	uint8_t disk[SECTORS * 512];
	_Atomic bool holds;	   /* requests stay in the ring */
	_Atomic bool goes;	   /* to be poked: the connection ends */
	_Atomic bool lies;	   /* to be poked: something senseless is in the ring */
	_Atomic unsigned done;	   /* requests */
	_Atomic uint8_t writeback; /* as it was when the last one was */
};

/* ---- the back end: a disk ---- */

static void serve_disk(struct vhost_peer *p, unsigned ring)
{
	struct guest *g = p->opaque;
	struct peer_chain c;
	uint8_t header[16];

	while (!atomic_load(&g->holds) && peer_pop(p, ring, &c)) {
		uint64_t at;
		uint8_t status = 0;
		size_t in = 0;

		peer_copy(c.out, c.out_count, 0, header, 16, false);
		at = (peer_load(header + 8, 8) * 512) % sizeof(g->disk);
		for (unsigned n = 0; n < c.in_count; n++)
			in += c.in[n].iov_len;
		if (peer_load(header, 4) == 1)
			peer_copy(c.out, c.out_count, 16, g->disk + at, sizeof(g->disk) - at, false);
		else
			peer_copy(c.in, c.in_count, 0, g->disk + at, MIN(in - 1, sizeof(g->disk) - at), true);
		peer_copy(c.in, c.in_count, in - 1, &status, 1, true);
		atomic_store(&g->writeback, p->config[WRITEBACK]);
		atomic_fetch_add(&g->done, 1);
		peer_push(p, ring, c.head, (uint32_t)in);
	}
}

static void do_as_told(struct vhost_peer *p)
{
	struct guest *g = p->opaque;

	if (atomic_exchange(&g->goes, false)) {
		peer_disconnect(p);
	} else if (atomic_exchange(&g->lies, false) && p->rings[0].used) {
		peer_push_raw(&p->rings[0], 12345, 1, (uint16_t)(p->rings[0].next_used + 1));
		peer_signal(p->rings[0].call_fd);
	} else {
		serve_disk(p, 0);
	}
}

/* As if it had ended. */
static void forget_writeback(struct vhost_peer *p)
{
	p->config[WRITEBACK] = 1;
	peer_disconnect(p);
}

static void poke(struct guest *g, _Atomic bool *what)
{
	if (what)
		atomic_store(what, true);
	peer_poke(&g->peer);
}

/* ---- the guest ---- */

static void create(struct guest *g, const char *spec, uint64_t features)
{
	char path[64];

	strcpy(g->folder, "/tmp/test_vhost.XXXXXX");
	assert_non_null(mkdtemp(g->folder));
	snprintf(path, sizeof(path), "%s/socket", g->folder);
	peer_init(&g->peer);
	g->peer.opaque = g;
	g->peer.features |= features;
	g->peer.kicked = serve_disk;
	g->peer.poked = do_as_told;
	store_le64(g->peer.config, SECTORS);
	for (unsigned n = 0; n < sizeof(g->disk); n++)
		g->disk[n] = (uint8_t)(n * 7 + n / 512);
	assert_true(peer_listen(&g->peer, path));
	assert_int_equal(pthread_create(&g->thread, NULL, peer_thread, &g->peer), 0);
	g->d = driver_board_with(CLOCK_HOST);
	{
		char text[256];
		struct error err;

		snprintf(text, sizeof(text), spec, path);
		if (!device_plug(g->d.b->bus, NULL, &(struct device_request){ .spec = text }, &err))
			fail_msg("%s", err.text);
	}
	driver_reset_board(&g->d);
}

static void ready(struct guest *g, unsigned queues, uint64_t features)
{
	assert_int_equal(driver_features(&g->d, BIT(VIRTIO_F_VERSION_1) | features) & VIRTIO_FEATURES_OK,
			 VIRTIO_FEATURES_OK);
	for (unsigned n = 0; n < queues; n++)
		driver_queue(&g->d, n, QUEUE_SIZE);
	g->q = &g->d.queues[0];
	driver_ok(&g->d);
}

static struct guest *disk(void)
{
	struct guest *g = calloc(1, sizeof(*g));

	create(g, "virtio-blk,file=vhost-user:%s", BLK_RO | BLK_FLUSH | BIT(VIRTIO_F_EVENT_IDX));
	ready(g, 1, BLK_FLUSH);
	return g;
}

static void end(struct guest *g)
{
	bus_pause(g->d.b->bus);
	devices_unplug(g->d.b->bus);
	peer_end(&g->peer);
	pthread_join(g->thread, NULL);
	peer_free(&g->peer);
	driver_end(&g->d);
	rmdir(g->folder);
	free(g);
}

/* A request for a disk by descriptors 3n to 3n + 2. */
static void put(struct guest *g, unsigned n, unsigned type, uint64_t sector, uint64_t data, uint32_t size)
{
	uint8_t header[16] = { (uint8_t)type };
	uint64_t at = HEADERS + 16 * n;

	store_le64(header + 8, sector);
	assert_int_equal(mem_write(g->d.mem, gpa(at), header, 16), 0);
	mem_fill(g->d.mem, gpa(STATUS + n), 0xff, 1);
	driver_descriptor(&g->d, g->q->descriptors, 3 * n, at, 16, D_NEXT, 3 * n + 1);
	driver_descriptor(&g->d, g->q->descriptors, 3 * n + 1, data, size, D_NEXT | (type ? 0 : D_WRITE), 3 * n + 2);
	driver_descriptor(&g->d, g->q->descriptors, 3 * n + 2, STATUS + n, 1, D_WRITE, 0);
	driver_add(&g->d, g->q, 3 * n);
	driver_kick(&g->d, g->q);
}

/* The next that is done, in so much time as it takes. */
static int wait_used(struct guest *g, struct driver_queue *q, uint32_t *length)
{
	int head = -1;

	for (unsigned ms = 0; head < 0 && ms < LIMIT_MS; ms++) {
		head = driver_used(&g->d, q, length);
		if (head < 0)
			usleep(1000);
	}
	return head;
}

static uint8_t status_of(struct guest *g, unsigned n)
{
	uint8_t status;

	assert_int_equal(mem_read(g->d.mem, gpa(STATUS + n), &status, 1), 0);
	return status;
}

static void expect_sector(struct guest *g, uint64_t sector, uint64_t at)
{
	uint8_t data[512];

	assert_int_equal(mem_read(g->d.mem, gpa(at), data, 512), 0);
	assert_memory_equal(data, g->disk + 512 * sector, 512);
}

static void read_one(struct guest *g, unsigned n, uint64_t sector)
{
	uint32_t length;

	put(g, n, 0, sector, DATA + 512 * n, 512);
	assert_int_equal(wait_used(g, g->q, &length), 3 * n);
	assert_int_equal(length, 513);
	assert_int_equal(status_of(g, n), 0);
	expect_sector(g, sector, DATA + 512 * n);
}

static void wait_connections(struct guest *g, unsigned count)
{
	for (unsigned ms = 0; atomic_load(&g->peer.connections) < count && ms < LIMIT_MS; ms++)
		usleep(1000);
	assert_true(atomic_load(&g->peer.connections) >= count);
}

/* ---- disks ---- */

static void reads_and_writes(void **state)
{
	struct guest *g = disk();
	uint8_t data[1024];

	(void)state;
	assert_int_equal(driver_rd(&g->d, DRIVER_CONFIG, 4), SECTORS);
	assert_int_equal(driver_offered(&g->d) & (BLK_RO | BLK_FLUSH | BIT(12)), BLK_RO | BLK_FLUSH);
	/* What is the queue's is not the back end's. */
	read_one(g, 0, 3);
	assert_int_equal(atomic_load(&g->peer.driver_features), PEER_F_PROTOCOL | PEER_F_VERSION_1 | BLK_FLUSH);
	memset(data, 0x77, sizeof(data));
	assert_int_equal(mem_write(g->d.mem, gpa(DATA), data, sizeof(data)), 0);
	put(g, 1, 1, 10, DATA, 1024);
	assert_int_equal(wait_used(g, g->q, NULL), 3);
	assert_memory_equal(g->disk + 5120, data, sizeof(data));
	read_one(g, 2, 11);
	for (unsigned n = 0; n < 200; n++)
		read_one(g, n % 20, n % SECTORS);
	assert_true(driver_pin(&g->d));
	end(g);
}

/* What the back end has written is known: to who has decoded code there, and to who wants to know which pages are written. */
static void notes_writes(void **state)
{
	struct guest *g = disk();
	struct mem_page *page = mem_page(g->d.mem, gpa(DATA + 3 * 512));
	uint64_t bitmap[DRIVER_RAM / PAGE_SIZE / 64];
	uint32_t generation;
	uint16_t direct = 0;

	(void)state;
	generation = mem_code_begin(page, gpa(DATA + 3 * 512), 16, &direct);
	read_one(g, 2, 5);
	assert_int_equal(page->code_gen, generation);
	mem_dirty_start(g->d.mem);
	read_one(g, 3, 5);
	assert_int_not_equal(page->code_gen, generation);
	mem_dirty_collect(g->d.mem, 0, DRIVER_RAM / PAGE_SIZE, bitmap);
	assert_true(bitmap[DATA / PAGE_SIZE / 64] & BIT(DATA / PAGE_SIZE % 64));
	mem_dirty_stop(g->d.mem);
	end(g);
}

/* It goes away with requests, of which none is done: whoever comes back gets them, in their order, and once. */
static void comes_back(void **state)
{
	struct guest *g = disk();

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		unsigned done = atomic_load(&g->done);

		atomic_store(&g->holds, true);
		for (unsigned n = 0; n < 10; n++)
			put(g, n, 0, n, DATA + 512 * n, 512);
		poke(g, &g->goes);
		wait_connections(g, round + 2);
		assert_int_equal(driver_used(&g->d, g->q, NULL), -1);
		atomic_store(&g->holds, false);
		poke(g, NULL);
		for (unsigned n = 0; n < 10; n++) {
			assert_int_equal(wait_used(g, g->q, NULL), 3 * n);
			assert_int_equal(status_of(g, n), 0);
			expect_sector(g, n, DATA + 512 * n);
		}
		assert_int_equal(atomic_load(&g->done), done + 10);
	}
	end(g);
}

static void senseless_ring(void **state)
{
	struct guest *g = disk();

	(void)state;
	read_one(g, 0, 1);
	atomic_store(&g->holds, true);
	put(g, 1, 0, 7, DATA, 512);
	poke(g, &g->lies);
	wait_connections(g, 2);
	assert_int_equal(driver_used(&g->d, g->q, NULL), -1);
	atomic_store(&g->holds, false);
	poke(g, NULL);
	assert_int_equal(wait_used(g, g->q, NULL), 3);
	expect_sector(g, 7, DATA);
	end(g);
}

/* A reset takes back what the back end does not do, in time; the driver's memory is its own again. */
static void reset_with_requests(void **state)
{
	struct guest *g = disk();

	(void)state;
	read_one(g, 0, 1);
	atomic_store(&g->holds, true);
	put(g, 1, 0, 7, DATA, 512);
	put(g, 2, 0, 8, DATA, 512);
	driver_wr(&g->d, 0x14, 1, 0);
	assert_int_equal(driver_status(&g->d), 0);
	atomic_store(&g->holds, false);
	ready(g, 1, 0);
	read_one(g, 3, 9);
	assert_int_equal(atomic_load(&g->done), 2);
	/* Nothing under way: with other features */
	ready(g, 1, BLK_FLUSH);
	read_one(g, 4, 9);
	assert_int_equal(atomic_load(&g->peer.driver_features), PEER_F_PROTOCOL | PEER_F_VERSION_1 | BLK_FLUSH);
	end(g);
}

static void bad_requests(void **state)
{
	struct guest *g = disk();

	(void)state;
	driver_descriptor(&g->d, g->q->descriptors, 0, HEADERS, 16, 0, 0);
	driver_add(&g->d, g->q, 0);
	driver_kick(&g->d, g->q);
	for (unsigned ms = 0; !(driver_status(&g->d) & VIRTIO_NEEDS_RESET) && ms < LIMIT_MS; ms++)
		usleep(1000);
	assert_true(driver_status(&g->d) & VIRTIO_NEEDS_RESET);
	ready(g, 1, 0);
	read_one(g, 0, 9);
	end(g);
}

/* More requests than the ring has descriptors for: those that it has no room for wait in the driver's. */
static void many_at_once(void **state)
{
	struct guest *g = disk();
	unsigned seen = 0;

	(void)state;
	read_one(g, 1, 1);
	atomic_store(&g->holds, true);
	put(g, 0, 0, 0, DATA, 512);
	for (unsigned n = 0; n < MANY; n++) { /* the same one again and again, against all rules but ours */
		driver_add(&g->d, g->q, 0);
		driver_kick(&g->d, g->q);
	}
	atomic_store(&g->holds, false);
	poke(g, NULL);
	while (seen <= MANY && wait_used(g, g->q, NULL) == 0)
		seen++;
	assert_int_equal(seen, MANY + 1);
	end(g);
}

static void say_larger(struct vhost_peer *p)
{
	store_le64(p->config, 2 * SECTORS);
	peer_say_config(p, 2, 1);
}

static void grows(void **state)
{
	struct guest *g = disk();
	unsigned generation = driver_rd(&g->d, 0x15, 1);

	(void)state;
	g->peer.poked = say_larger;
	peer_poke(&g->peer);
	for (unsigned ms = 0; driver_rd(&g->d, DRIVER_CONFIG, 4) == SECTORS && ms < LIMIT_MS; ms++)
		usleep(1000);
	assert_int_equal(driver_rd(&g->d, DRIVER_CONFIG, 4), 2 * SECTORS);
	assert_int_not_equal(driver_rd(&g->d, 0x15, 1), generation);
	assert_int_equal(driver_isr(&g->d) & 2, 2);
	end(g);
}

/* ---- pauses, and saved machines ---- */

static void *release(void *opaque)
{
	struct guest *g = opaque;

	usleep(50000);
	atomic_store(&g->holds, false);
	poke(g, NULL);
	return NULL;
}

/* A pause waits for what is under way. */
static void pause_waits(void **state)
{
	struct guest *g = disk();
	pthread_t thread;

	(void)state;
	read_one(g, 0, 1);
	atomic_store(&g->holds, true);
	put(g, 1, 0, 7, DATA, 512);
	assert_int_equal(pthread_create(&thread, NULL, release, g), 0);
	bus_pause(g->d.b->bus);
	assert_int_equal(driver_used(&g->d, g->q, NULL), 3);
	pthread_join(thread, NULL);
	bus_resume(g->d.b->bus);
	read_one(g, 2, 1);
	end(g);
}

/* Without a back end, what it had not done is as if it had not been sent: it is done by whoever is there when the machine goes on. */
static void saved_without(void **state)
{
	struct guest *g = disk();
	struct writer saved;
	struct error err;

	(void)state;
	read_one(g, 0, 1);
	atomic_store(&g->holds, true);
	for (unsigned n = 1; n < 4; n++)
		put(g, n, 0, n, DATA + 512 * n, 512);
	atomic_store(&g->peer.wrong, PEER_CLOSES); /* nobody who comes back stays */
	poke(g, &g->goes);
	wait_connections(g, 3);
	bus_pause(g->d.b->bus);
	saved = board_save(g->d.b);
	assert_int_equal(driver_used(&g->d, g->q, NULL), -1);
	atomic_store(&g->holds, false);
	atomic_store(&g->peer.wrong, PEER_RIGHT);
	assert_int_equal(board_load(g->d.b, &saved, 0, &err), 0);
	bus_resume(g->d.b->bus);
	for (unsigned n = 1; n < 4; n++) {
		assert_int_equal(wait_used(g, g->q, NULL), 3 * n);
		expect_sector(g, n, DATA + 512 * n);
	}
	assert_int_equal(atomic_load(&g->done), 4);
	writer_free(&saved);
	end(g);
}

static void other_disk(void **state)
{
	struct guest *g = disk();
	struct writer saved;
	struct error err;

	(void)state;
	bus_pause(g->d.b->bus);
	saved = board_save(g->d.b);
	bus_resume(g->d.b->bus);
	g->peer.poked = say_larger;
	peer_poke(&g->peer);
	for (unsigned ms = 0; driver_rd(&g->d, DRIVER_CONFIG, 4) == SECTORS && ms < LIMIT_MS; ms++)
		usleep(1000);
	bus_pause(g->d.b->bus);
	assert_int_equal(board_load(g->d.b, &saved, 0, &err), -EINVAL);
	assert_non_null(strstr(err.text, "had 64 sectors"));
	bus_resume(g->d.b->bus);
	writer_free(&saved);
	end(g);
}

static void set_writeback(struct guest *g, uint8_t value) { driver_wr(&g->d, DRIVER_CONFIG + WRITEBACK, 1, value); }

/* What comes behind the driver's write to it is done as that says, also by a back end that came back, and in a machine that was loaded; a reset undoes it. */
static void write_cache(void **state)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct writer saved;
	struct error err;

	(void)state;
	create(g, "virtio-blk,file=vhost-user:%s", BLK_FLUSH | BLK_WCE);
	ready(g, 1, BLK_FLUSH | BLK_WCE);
	assert_int_equal(driver_rd(&g->d, DRIVER_CONFIG + WRITEBACK, 1), 1);
	read_one(g, 0, 1);
	assert_int_equal(atomic_load(&g->writeback), 1);
	for (unsigned n = 1; n <= 100; n++) {
		set_writeback(g, n & 1);
		assert_int_equal(driver_rd(&g->d, DRIVER_CONFIG + WRITEBACK, 1), n & 1);
		read_one(g, n % 20, 1);
		assert_int_equal(atomic_load(&g->writeback), n & 1);
	}
	bus_pause(g->d.b->bus);
	saved = board_save(g->d.b);
	bus_resume(g->d.b->bus);
	g->peer.poked = forget_writeback;
	peer_poke(&g->peer);
	wait_connections(g, 2);
	read_one(g, 2, 2);
	assert_int_equal(atomic_load(&g->writeback), 0);
	driver_set_status(&g->d, 0);
	assert_int_equal(driver_rd(&g->d, DRIVER_CONFIG + WRITEBACK, 1), 1);
	ready(g, 1, BLK_FLUSH | BLK_WCE);
	read_one(g, 3, 3);
	assert_int_equal(atomic_load(&g->writeback), 1);
	bus_pause(g->d.b->bus);
	assert_int_equal(board_load(g->d.b, &saved, 0, &err), 0);
	bus_resume(g->d.b->bus);
	assert_int_equal(driver_rd(&g->d, DRIVER_CONFIG + WRITEBACK, 1), 0);
	writer_free(&saved);
	end(g);
}

/* ---- network cards: the back end sends back what it gets ---- */

static void reflect(struct vhost_peer *p, unsigned ring)
{
	struct guest *g = p->opaque;
	struct peer_chain in, out;
	uint8_t frame[2048];

	(void)ring;
	/* Queues start one after the other: what is sent waits for a buffer. */
	while (!atomic_load(&g->holds) && peer_has(&p->rings[0]) && peer_pop(p, 1, &out)) {
		size_t size = peer_copy(out.out, out.out_count, 0, frame, sizeof(frame), false);

		peer_push(p, 1, out.head, 0);
		if (peer_pop(p, 0, &in))
			peer_push(p, 0, in.head, (uint32_t)peer_copy(in.in, in.in_count, 0, frame, size, true));
	}
}

static void offer_buffers(struct guest *g)
{
	for (unsigned n = 0; n < 16; n++) {
		driver_descriptor(&g->d, g->d.queues[0].descriptors, n, DATA + 2048 * n, 2048, D_WRITE, 0);
		driver_add(&g->d, &g->d.queues[0], n);
	}
	driver_kick(&g->d, &g->d.queues[0]);
}

static void send_frame(struct guest *g, unsigned n)
{
	char frame[100] = "";
	uint32_t length;

	snprintf(frame + 12, 20, "frame %u", n);
	assert_int_equal(mem_write(g->d.mem, gpa(HEADERS), frame, sizeof(frame)), 0);
	driver_descriptor(&g->d, g->d.queues[1].descriptors, 0, HEADERS, sizeof(frame), 0, 0);
	driver_add(&g->d, &g->d.queues[1], 0);
	driver_kick(&g->d, &g->d.queues[1]);
	assert_int_equal(wait_used(g, &g->d.queues[1], NULL), 0);
	/* Buffers are used in their order, whatever happened meanwhile. */
	assert_int_equal(wait_used(g, &g->d.queues[0], &length), n);
	assert_int_equal(length, sizeof(frame));
	assert_int_equal(mem_read(g->d.mem, gpa(DATA + 2048 * n), frame + 50, 32), 0);
	assert_string_equal(frame + 62, frame + 12);
}

static void wait_link(struct guest *g, bool up)
{
	for (unsigned ms = 0; (driver_rd(&g->d, DRIVER_CONFIG + 6, 2) & 1) != up && ms < LIMIT_MS; ms++)
		usleep(1000);
	assert_int_equal(driver_rd(&g->d, DRIVER_CONFIG + 6, 2) & 1, up);
}

static void frames(void **state)
{
	struct guest *g = calloc(1, sizeof(*g));

	(void)state;
	create(g, "virtio-net,net=vhost-user:%s", BIT(15));
	g->peer.kicked = reflect;
	assert_int_equal(driver_offered(&g->d) & (BIT(15) | BIT(5) | BIT(16) | BIT(17) | BIT(1)),
			 BIT(15) | BIT(5) | BIT(16) | BIT(17));
	ready(g, 3, BIT(15) | BIT(16) | BIT(17));
	offer_buffers(g);
	send_frame(g, 0);
	send_frame(g, 1);
	/* Buffers that are with the back end in a pause are the queue's again. */
	bus_pause(g->d.b->bus);
	bus_resume(g->d.b->bus);
	send_frame(g, 2);
	/* The cable is out while it is away. */
	atomic_store(&g->peer.wrong, PEER_CLOSES);
	poke(g, &g->goes);
	wait_link(g, false);
	atomic_store(&g->peer.wrong, PEER_RIGHT);
	wait_link(g, true);
	send_frame(g, 3);
	/* Buffers are never done by themselves: a reset takes them back. */
	ready(g, 3, BIT(15) | BIT(16) | BIT(17));
	offer_buffers(g);
	send_frame(g, 0);
	end(g);
}

static void wait_enabled(struct guest *g, unsigned rings)
{
	for (unsigned n = 0; n < 4; n++) {
		for (unsigned ms = 0; atomic_load(&g->peer.rings[n].enabled) != (n < rings) && ms < LIMIT_MS; ms++)
			usleep(1000);
		assert_int_equal(atomic_load(&g->peer.rings[n].enabled), n < rings);
	}
}

static void use_pairs(struct guest *g, unsigned pairs)
{
	struct driver_queue *q = &g->d.queues[4];
	uint8_t order[4] = { 4, 0, (uint8_t)pairs };

	assert_int_equal(mem_write(g->d.mem, gpa(HEADERS + 256), order, sizeof(order)), 0);
	driver_descriptor(&g->d, q->descriptors, 0, HEADERS + 256, 4, D_NEXT, 1);
	driver_descriptor(&g->d, q->descriptors, 1, STATUS, 1, D_WRITE, 0);
	driver_add(&g->d, q, 0);
	driver_kick(&g->d, q);
	assert_int_equal(wait_used(g, q, NULL), 0);
	assert_int_equal(status_of(g, 0), 0);
}

/* The back end uses as many pairs of queues as the driver does, also one that came back. */
static void pairs(void **state)
{
	const uint64_t features = BIT(15) | BIT(16) | BIT(17) | BIT(22);
	struct guest *g = calloc(1, sizeof(*g));

	(void)state;
	create(g, "virtio-net,net=vhost-user:%s,queues=2", BIT(15) | BIT(22));
	g->peer.kicked = reflect;
	assert_int_equal(driver_rd(&g->d, DRIVER_CONFIG + 8, 2), 2);
	ready(g, 5, features);
	offer_buffers(g);
	driver_kick(&g->d, &g->d.queues[2]);
	driver_kick(&g->d, &g->d.queues[3]);
	wait_enabled(g, 2);
	send_frame(g, 0);
	use_pairs(g, 2);
	wait_enabled(g, 4);
	poke(g, &g->goes);
	wait_connections(g, 2);
	wait_enabled(g, 4);
	use_pairs(g, 1);
	wait_enabled(g, 2);
	send_frame(g, 1);
	end(g);
}

/* ---- folders: whose back end cannot be had again ---- */

static void fuse(struct guest *g, unsigned queue, unsigned n)
{
	uint8_t request[40] = { 40 };
	struct driver_queue *q = &g->d.queues[queue];

	store_le64(request + 8, 0x1234500 + n);
	assert_int_equal(mem_write(g->d.mem, gpa(HEADERS + 64 * n), request, sizeof(request)), 0);
	driver_descriptor(&g->d, q->descriptors, 2 * n, HEADERS + 64 * n, 40, D_NEXT, 2 * n + 1);
	driver_descriptor(&g->d, q->descriptors, 2 * n + 1, DATA + 64 * n, 64, D_WRITE, 0);
	driver_add(&g->d, q, 2 * n);
	driver_kick(&g->d, q);
}

static void expect_error(struct guest *g, struct driver_queue *q, unsigned n)
{
	uint8_t reply[16];
	uint32_t length;

	assert_int_equal(wait_used(g, q, &length), 2 * n);
	assert_int_equal(length, 16);
	assert_int_equal(mem_read(g->d.mem, gpa(DATA + 64 * n), reply, 16), 0);
	assert_int_equal(load_le32(reply), 16);
	assert_int_equal((int32_t)load_le32(reply + 4), -EIO);
	assert_int_equal(load_le64(reply + 8), 0x1234500 + n);
}

static void folder(void **state)
{
	struct guest *g = calloc(1, sizeof(*g));
	char tag[40] = "";

	(void)state;
	create(g, "virtio-9p,folder=vhost-user:%s,tag=shared", 0);
	for (unsigned n = 0; n < 36; n++)
		tag[n] = (char)driver_rd(&g->d, DRIVER_CONFIG + n, 1);
	assert_string_equal(tag, "shared");
	assert_int_equal(driver_rd(&g->d, DRIVER_CONFIG + 36, 4), 1);
	ready(g, 2, 0);
	atomic_store(&g->holds, true);
	fuse(g, 1, 0);
	fuse(g, 1, 1);
	poke(g, &g->goes);
	expect_error(g, &g->d.queues[1], 0);
	expect_error(g, &g->d.queues[1], 1);
	fuse(g, 1, 2);
	expect_error(g, &g->d.queues[1], 2);
	fuse(g, 0, 3);
	expect_error(g, &g->d.queues[0], 3);
	ready(g, 2, 0);
	fuse(g, 1, 0);
	expect_error(g, &g->d.queues[1], 0);
	assert_int_equal(atomic_load(&g->peer.connections), 1);
	end(g);
}

static void folder_is_not_saved(void **state)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct writer before, used;
	struct error err;

	(void)state;
	create(g, "virtio-9p,folder=vhost-user:%s,tag=shared", 0);
	bus_pause(g->d.b->bus);
	before = board_save(g->d.b);
	bus_resume(g->d.b->bus);
	ready(g, 2, 0);
	bus_pause(g->d.b->bus);
	used = board_save(g->d.b);
	assert_int_equal(board_load(g->d.b, &used, 0, &err), -EINVAL);
	assert_non_null(strstr(err.text, "the guest used the share"));
	assert_int_equal(board_load(g->d.b, &before, 0, &err), 0);
	bus_resume(g->d.b->bus);
	writer_free(&before);
	writer_free(&used);
	end(g);
}

/* ---- what is refused ---- */

static void refused(void **state)
{
	static const struct {
		const char *spec, *text;
	} rows[] = {
		{ "virtio-blk,file=vhost-user:/nowhere/at all", "/nowhere/at all" },
		{ "virtio-blk,file=vhost-user:/nowhere,format=raw", "option 'format'" },
		{ "virtio-blk,file=vhost-user:/nowhere,readonly=on", "option 'readonly'" },
		{ "virtio-blk,file=vhost-user:/nowhere,serial=1", "option 'serial'" },
		{ "virtio-9p,folder=vhost-user:/nowhere", "option 'tag'" },
		{ "virtio-9p,folder=vhost-user:/nowhere,tag=1234567890123456789012345678901234567", "option 'tag'" },
		{ "virtio-9p,folder=vhost-user:/nowhere,tag=t,security=mapped", "option 'security'" },
		{ "virtio-net,net=vhost-user:/nowhere", "/nowhere" },
	};
	struct driver d = driver_board_with(CLOCK_HOST), v = driver_board();
	struct error err;

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		assert_null(device_plug(d.b->bus, NULL, &(struct device_request){ .spec = rows[n].spec }, &err));
		if (!strstr(err.text, rows[n].text))
			fail_msg("%s: %s", rows[n].spec, err.text);
	}
	assert_null(device_plug(v.b->bus, NULL,
				&(struct device_request){ .spec = "virtio-blk,file=vhost-user:/nowhere" }, &err));
	assert_non_null(strstr(err.text, "virtual time"));
	driver_end(&d);
	driver_end(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_and_writes),
		cmocka_unit_test(notes_writes),
		cmocka_unit_test(comes_back),
		cmocka_unit_test(senseless_ring),
		cmocka_unit_test(reset_with_requests),
		cmocka_unit_test(bad_requests),
		cmocka_unit_test(many_at_once),
		cmocka_unit_test(grows),
		cmocka_unit_test(pause_waits),
		cmocka_unit_test(saved_without),
		cmocka_unit_test(other_disk),
		cmocka_unit_test(write_cache),
		cmocka_unit_test(frames),
		cmocka_unit_test(pairs),
		cmocka_unit_test(folder),
		cmocka_unit_test(folder_is_not_saved),
		cmocka_unit_test(refused),
	};

	log_set_level(LOG_ERROR);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
