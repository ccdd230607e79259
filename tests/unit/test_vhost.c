/*
 * vhost: the front end against a back end that does what it should, and one that does not: wrong replies, none, descriptors that nobody asked for, rings whose contents make no sense.
 * (host_thread_create(): for those who look for tests with threads.)
 */
#include "lib/vhost_peer.h"
#include "vhost/vhost.h"

#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>

#include <cmocka.h>

/* Rings are memory that two parties write without asking each other. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:peer_\nrace:vhost_ring_\n"; }
#endif

#define CONFIG_SIZE 60u
#define TIMEOUT_MS  20000u
#define SHORT_MS    100u

struct fixture {
	struct host_memory ram;
	struct vhost_peer peer;
	pthread_t thread;
	char folder[32], path[64];
};

static void start(struct fixture *f)
{
	*f = (struct fixture){ .folder = "/tmp/test_vhost.XXXXXX" };
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/socket", f->folder);
	assert_int_equal(host_memory_create(&f->ram, "test-ram", 1 << 20, NULL), 0);
	peer_init(&f->peer);
	for (unsigned n = 0; n < sizeof(f->peer.config); n++)
		f->peer.config[n] = (uint8_t)(n ^ 0x5a);
	assert_true(peer_listen(&f->peer, f->path));
}

static void go(struct fixture *f) { assert_int_equal(pthread_create(&f->thread, NULL, peer_thread, &f->peer), 0); }

static void end(struct fixture *f)
{
	peer_end(&f->peer);
	pthread_join(f->thread, NULL);
	peer_free(&f->peer);
	host_memory_destroy(&f->ram);
	rmdir(f->folder);
}

static struct vhost *open_with(struct fixture *f, unsigned rings, unsigned timeout, struct error *err)
{
	struct vhost_setup setup = {
		.path = f->path, .ram = &f->ram, .rings = rings, .config_size = CONFIG_SIZE, .timeout_ms = timeout
	};

	return vhost_open(&setup, err);
}

static struct vhost *open_good(struct fixture *f)
{
	struct error err;
	struct vhost *v = open_with(f, 2, TIMEOUT_MS, &err);

	if (!v)
		fail_msg("%s", err.text);
	return v;
}

static unsigned open_fds(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

/* ---- the protocol ---- */

static void agrees(void **state)
{
	uint8_t config[CONFIG_SIZE];
	struct fixture f;
	struct vhost *v;

	(void)state;
	start(&f);
	f.peer.features |= BIT(9);
	go(&f);
	v = open_good(&f);
	assert_int_equal(vhost_features(v), BIT(9) | PEER_F_VERSION_1);
	assert_int_equal(vhost_ring_count(v), PEER_RINGS);
	assert_int_equal(vhost_get_config(v, config, CONFIG_SIZE, NULL), 0);
	assert_memory_equal(config, f.peer.config, CONFIG_SIZE);
	assert_int_equal(vhost_set_features(v, BIT(9) | PEER_F_VERSION_1, NULL), 0);
	assert_int_equal(f.peer.driver_features, BIT(9) | PEER_F_VERSION_1 | PEER_F_PROTOCOL);
	vhost_close(v);
	end(&f);
}

/* Each request that is replied to, in each wrong way: an error that names the path, in time, and no descriptor is left behind. */
static void wrong_replies(void **state)
{
	static const unsigned requests[] = { PEER_GET_FEATURES,	 PEER_GET_PROTOCOL_FEATURES,
					     PEER_SET_MEM_TABLE, PEER_GET_QUEUE_NUM,
					     PEER_SET_OWNER,	 PEER_SET_BACKEND_REQ_FD };
	struct fixture f;
	unsigned fds;

	(void)state;
	start(&f);
	go(&f);
	fds = open_fds();
	for (unsigned n = 0; n < ARRAY_SIZE(requests); n++)
		for (int wrong = PEER_SILENT; wrong < PEER_WRONGS; wrong++) {
			bool asks = requests[n] == PEER_GET_FEATURES || requests[n] == PEER_GET_PROTOCOL_FEATURES ||
				    requests[n] == PEER_GET_QUEUE_NUM;
			struct error err = { .text = "" };
			struct vhost *v;

			atomic_store(&f.peer.wrong_request, requests[n]);
			atomic_store(&f.peer.wrong, wrong);
			v = open_with(&f, 2, wrong == PEER_SILENT ? SHORT_MS : TIMEOUT_MS, &err);
			/* A reply too many behind the last request is seen by who asks next, or waits. */
			if (wrong == PEER_WITH_FDS || (wrong == PEER_REFUSES && asks) ||
			    (wrong == PEER_TWICE && requests[n] == PEER_SET_MEM_TABLE)) {
				if (!v)
					fail_msg("request %u, wrong %d: %s", requests[n], wrong, err.text);
			} else {
				if (v)
					fail_msg("request %u, wrong %d: taken", requests[n], wrong);
				assert_non_null(strstr(err.text, f.path));
			}
			vhost_close(v);
		}
	atomic_store(&f.peer.wrong, PEER_RIGHT);
	vhost_close(open_good(&f));
	/* The peer closes its ends when it sees ours closed. */
	for (unsigned n = 0; n < 1000 && open_fds() > fds; n++)
		usleep(10000);
	assert_true(open_fds() <= fds);
	end(&f);
}

static void too_little(void **state)
{
	struct error err;
	struct fixture f;

	(void)state;
	start(&f);
	assert_null(open_with(&(struct fixture){ .path = "/tmp/there is no such socket", .ram = f.ram }, 2, 100, &err));
	assert_non_null(strstr(err.text, "/tmp/there is no such socket"));
	f.peer.features = PEER_F_PROTOCOL;
	go(&f);
	assert_null(open_with(&f, 2, TIMEOUT_MS, &err));
	assert_non_null(strstr(err.text, "VIRTIO_F_VERSION_1"));
	end(&f);
	start(&f);
	f.peer.protocol &= ~PEER_P_CONFIG;
	go(&f);
	assert_null(open_with(&f, 2, TIMEOUT_MS, &err));
	assert_non_null(strstr(err.text, "CONFIG"));
	end(&f);
	start(&f);
	f.peer.queues = 1;
	go(&f);
	assert_null(open_with(&f, 2, TIMEOUT_MS, &err));
	assert_non_null(strstr(err.text, "serves 1 queues"));
	end(&f);
}

/* A number of queues that is none of this world is as many as there may be. */
static void many_queues(void **state)
{
	struct fixture f;
	struct vhost *v;

	(void)state;
	start(&f);
	f.peer.queues = UINT64_MAX;
	go(&f);
	v = open_good(&f);
	assert_int_equal(vhost_ring_count(v), VHOST_RINGS_MOST);
	vhost_close(v);
	end(&f);
}

/* Without the protocol's features, and without acknowledgements. */
static void old_back_ends(void **state)
{
	struct vhost_setup setup;
	struct fixture f;
	struct vhost *v;

	(void)state;
	start(&f);
	f.peer.features = PEER_F_VERSION_1;
	go(&f);
	setup = (struct vhost_setup){ .path = f.path, .ram = &f.ram, .rings = 2, .timeout_ms = TIMEOUT_MS };
	v = vhost_open(&setup, NULL);
	assert_non_null(v);
	assert_int_equal(vhost_requests_fd(v), -1);
	assert_int_equal(vhost_ring_start(v, 1, true, NULL), 0);
	assert_int_equal(vhost_ring_stop(v, 1, NULL), 0);
	vhost_close(v);
	end(&f);
}

/* ---- rings ---- */

static void echo(struct vhost_peer *p, unsigned n)
{
	uint8_t data[4096];
	struct peer_chain c;

	while (peer_pop(p, n, &c)) {
		size_t size = peer_copy(c.out, c.out_count, 0, data, sizeof(data), false);

		peer_push(p, n, c.head, (uint32_t)peer_copy(c.in, c.in_count, 0, data, size, true));
	}
}

static void *wait_done(struct vhost_ring *r, uint32_t *written)
{
	struct pollfd fd = { r->call_fd, POLLIN, 0 };
	void *owner = NULL;
	int rc;

	while (!(rc = vhost_ring_done(r, &owner, written))) {
		assert_int_equal(poll(&fd, 1, (int)TIMEOUT_MS), 1);
		peer_drain(r->call_fd);
	}
	assert_int_equal(rc, 1);
	return owner;
}

/* Chains of many lengths, more than the ring has descriptors in all. */
static void echoes(void **state)
{
	struct vhost_ring *r;
	struct fixture f;
	struct vhost *v;

	(void)state;
	start(&f);
	f.peer.kicked = echo;
	go(&f);
	v = open_good(&f);
	assert_int_equal(vhost_ring_start(v, 1, true, NULL), 0);
	r = vhost_ring(v, 1);
	for (unsigned n = 0; n < 1000; n++) {
		struct iovec pieces[8];
		unsigned out = 1 + n % 4;
		uint32_t written;
		char text[32] = "";

		for (unsigned i = 0; i < out; i++) {
			pieces[i] = (struct iovec){ f.ram.base + 100 * i + n, 4 };
			memcpy(pieces[i].iov_base, "abcd", 4);
			pieces[out + i] = (struct iovec){ f.ram.base + 0x10000 + 4 * i, 4 };
		}
		assert_int_equal(vhost_ring_need(&f.ram, pieces, 2 * out), 2 * out);
		vhost_ring_add(r, pieces, out, out, &pieces[0]);
		if (vhost_ring_wants_kick(r))
			vhost_ring_kick(r);
		assert_ptr_equal(wait_done(r, &written), &pieces[0]);
		assert_int_equal(written, 4 * out);
		memcpy(text, f.ram.base + 0x10000, 4 * out);
		assert_int_equal(strncmp(text, "abcdabcdabcdabcd", 4 * out), 0);
		assert_int_equal(r->free, VHOST_RING_SIZE);
	}
	assert_int_equal(vhost_ring_stop(v, 1, NULL), 0);
	vhost_close(v);
	end(&f);
}

static void outside_of_ram(void **state)
{
	struct host_memory ram;
	struct iovec piece;
	char elsewhere;

	(void)state;
	assert_int_equal(host_memory_create(&ram, "test-ram", 1 << 20, NULL), 0);
	piece = (struct iovec){ &elsewhere, 1 };
	assert_int_equal(vhost_ring_need(&ram, &piece, 1), 0);
	piece = (struct iovec){ ram.base + ram.size - 1, 1 };
	assert_int_equal(vhost_ring_need(&ram, &piece, 1), 1);
	piece.iov_len = 2;
	assert_int_equal(vhost_ring_need(&ram, &piece, 1), 0);
	host_memory_destroy(&ram);
	/* Larger than a descriptor's length */
	ram = (struct host_memory){ -1, (uint8_t *)0x100000000ull, 8ull << 30 };
	piece = (struct iovec){ ram.base, 5ull << 30 };
	assert_int_equal(vhost_ring_need(&ram, &piece, 1), 5);
}

/* A ring whose other side is the test. */
struct lone_ring {
	struct vhost_ring r;
	struct host_memory ram, memory;
	struct iovec piece;
};

static struct lone_ring *lone_ring(void)
{
	struct lone_ring *l = calloc(1, sizeof(*l));

	assert_int_equal(host_memory_create(&l->ram, "test-ram", 1 << 20, NULL), 0);
	assert_int_equal(host_memory_create(&l->memory, "test-ring", VHOST_RING_BYTES, NULL), 0);
	vhost_ring_init(&l->r, l->memory.base, &l->ram);
	l->piece = (struct iovec){ l->ram.base, 512 };
	return l;
}

static void free_lone_ring(struct lone_ring *l)
{
	host_memory_destroy(&l->ram);
	host_memory_destroy(&l->memory);
	free(l);
}

static void say_used(struct lone_ring *l, unsigned place, uint32_t head, uint32_t written, uint16_t index)
{
	uint8_t *used = l->memory.base + VHOST_RING_USED;

	store_le32(used + 4 + 8 * place, head);
	store_le32(used + 8 + 8 * place, written);
	store_le16(used + 2, index);
}

static void senseless_rings(void **state)
{
	struct lone_ring *l = lone_ring();
	uint32_t written;
	void *owner;

	(void)state;
	vhost_ring_add(&l->r, &l->piece, 0, 1, &l->piece);
	say_used(l, 0, VHOST_RING_SIZE, 0, 1);
	assert_int_equal(vhost_ring_done(&l->r, &owner, &written), -EPROTO);
	say_used(l, 0, 5, 0, 1); /* nothing begins there */
	assert_int_equal(vhost_ring_done(&l->r, &owner, &written), -EPROTO);
	say_used(l, 0, UINT32_MAX, 0, 1);
	assert_int_equal(vhost_ring_done(&l->r, &owner, &written), -EPROTO);
	say_used(l, 0, 0, UINT32_MAX, 1);
	assert_int_equal(vhost_ring_done(&l->r, &owner, &written), 1);
	assert_ptr_equal(owner, &l->piece);
	say_used(l, 1, 0, 0, 2); /* once more */
	assert_int_equal(vhost_ring_done(&l->r, &owner, &written), -EPROTO);
	say_used(l, 1, 0, 0, 40000); /* an index that jumped */
	assert_int_equal(vhost_ring_done(&l->r, &owner, &written), -EPROTO);
	free_lone_ring(l);
}

/* Descriptors that the back end has written over: what is free, and where chains end, is not read from there. */
static void overwritten(void **state)
{
	struct lone_ring *l = lone_ring();
	struct iovec pieces[VHOST_RING_SIZE];
	uint32_t written;
	void *owner;

	(void)state;
	for (unsigned n = 0; n < VHOST_RING_SIZE; n++)
		pieces[n] = (struct iovec){ l->ram.base + 2 * n, 1 };
	for (unsigned round = 0; round < 5; round++) {
		vhost_ring_add(&l->r, pieces, 100, VHOST_RING_SIZE - 100, l);
		assert_int_equal(l->r.free, 0);
		memset(l->memory.base, 0xff, VHOST_RING_AVAILABLE);
		say_used(l, round, load_le16(l->memory.base + VHOST_RING_AVAILABLE + 4 + 2 * round), 1,
			 (uint16_t)(round + 1));
		assert_int_equal(vhost_ring_done(&l->r, &owner, &written), 1);
		assert_int_equal(l->r.free, VHOST_RING_SIZE);
	}
	free_lone_ring(l);
}

/* ---- requests of the back end's ---- */

static void say_things(struct vhost_peer *p)
{
	peer_say_config(p, 2, 1);
	peer_say_config(p, 2, 1 | 8);
	peer_say_config(p, 99, 1 | 8);
	peer_say_config(p, 2, 2);
}

static void requests(void **state)
{
	struct peer_message reply;
	struct error err;
	struct fixture f;
	struct vhost *v;
	bool config;

	(void)state;
	start(&f);
	f.peer.poked = say_things;
	go(&f);
	v = open_good(&f);
	peer_poke(&f.peer);
	assert_int_equal(vhost_serve_request(v, &config, NULL), 0);
	assert_true(config);
	assert_int_equal(vhost_serve_request(v, &config, NULL), 0);
	assert_true(config);
	assert_true(peer_read_all(f.peer.requests_fd, &reply, 20));
	assert_int_equal(peer_load(reply.data, 8), 0);
	assert_int_equal(vhost_serve_request(v, &config, NULL), 0);
	assert_false(config);
	assert_true(peer_read_all(f.peer.requests_fd, &reply, 20));
	assert_int_equal(reply.request, 99);
	assert_int_equal(reply.flags, 1 | 4);
	assert_int_equal(peer_load(reply.data, 8), 1);
	assert_int_equal(vhost_serve_request(v, &config, &err), -EPROTO);
	vhost_close(v);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees),	  cmocka_unit_test(wrong_replies),   cmocka_unit_test(too_little),
		cmocka_unit_test(many_queues),	  cmocka_unit_test(old_back_ends),   cmocka_unit_test(echoes),
		cmocka_unit_test(outside_of_ram), cmocka_unit_test(senseless_rings), cmocka_unit_test(overwritten),
		cmocka_unit_test(requests),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
