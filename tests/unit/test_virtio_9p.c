/*
 * virtio-9p as a device: requests that are served where the driver kicks, and by the thread that the device has (host_thread_create()); requests that are none; a saved
 * machine. What messages say is test_share.c's.
 */
#include "lib/virtio_driver.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Guest memory, which the driver writes when it sees by a read of it that the thread is done, as on hardware. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:mem_write\nrace:mem_read\nrace:pieces_copy\n"; }
#endif

#define REQUEST	   0x200000u
#define REPLY	   0x210000u
#define QUEUE_SIZE 64u

struct guest {
	struct driver d;
	struct driver_queue *q; /* of d */
	char folder[32];
};

static void ready(struct guest *g)
{
	assert_int_equal(driver_features(&g->d, BIT(VIRTIO_F_VERSION_1)) & VIRTIO_FEATURES_OK, VIRTIO_FEATURES_OK);
	g->q = driver_queue(&g->d, 0, QUEUE_SIZE);
	driver_ok(&g->d);
}

/* By the host's clock, whose guests have the thread. */
static void start(struct guest *g)
{
	char spec[128];
	struct error err;

	*g = (struct guest){ .d = driver_board_with(CLOCK_HOST), .folder = "/tmp/test_9p.XXXXXX" };
	assert_non_null(mkdtemp(g->folder));
	snprintf(spec, sizeof(spec), "virtio-9p,folder=%s,tag=shared", g->folder);
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
	rmdir(g->folder);
}

static void put(struct guest *g, const void *message, size_t size, uint32_t room)
{
	assert_int_equal(mem_write(g->d.mem, gpa(REQUEST), message, size), 0);
	driver_descriptor(&g->d, g->q->descriptors, 0, REQUEST, (uint32_t)size, D_NEXT, 1);
	driver_descriptor(&g->d, g->q->descriptors, 1, REPLY, room, D_WRITE, 0);
	driver_add(&g->d, g->q, 0);
	driver_kick(&g->d, g->q);
}

static const uint8_t version[] = { 21, 0, 0, 0, 100, 1, 0, 0, 32, 0, 0, 8, 0, '9', 'P', '2', '0', '0', '0', '.', 'L' };
static const uint8_t attach[] = { 23, 0, 0, 0, 104, 2, 0, 1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0 };
static const uint8_t fsync_root[] = { 15, 0, 0, 0, 50, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0 };

static uint8_t reply_type(struct guest *g)
{
	uint8_t reply[7];

	assert_int_equal(mem_read(g->d.mem, gpa(REPLY), reply, sizeof(reply)), 0);
	return reply[4];
}

static void attach_root(struct guest *g)
{
	uint32_t length;

	put(g, version, sizeof(version), 4096);
	assert_int_equal(driver_used(&g->d, g->q, &length), 0);
	assert_int_equal(length, 21);
	put(g, attach, sizeof(attach), 4096);
	assert_int_equal(driver_used(&g->d, g->q, &length), 0);
	assert_int_equal(length, 20);
	assert_int_equal(reply_type(g), 105);
}

static void mount_tag(void **state)
{
	struct guest g;
	char tag[7] = "";

	(void)state;
	start(&g);
	assert_int_equal(driver_offered(&g.d) & 1, 1);
	assert_int_equal(driver_rd(&g.d, DRIVER_CONFIG, 2), 6);
	for (unsigned n = 0; n < 6; n++)
		tag[n] = (char)driver_rd(&g.d, DRIVER_CONFIG + 2 + n, 1);
	assert_string_equal(tag, "shared");
	end(&g);
}

/* What may wait for a disk is done when a pause returns, at the latest; what comes meanwhile, behind it. */
static void in_the_thread(void **state)
{
	struct guest g;
	uint32_t length;

	(void)state;
	start(&g);
	attach_root(&g);
	for (unsigned n = 0; n < 8; n++)
		put(&g, fsync_root, sizeof(fsync_root), 4096);
	put(&g, attach, sizeof(attach), 4096);
	bus_pause(g.d.b->bus);
	for (unsigned n = 0; n < 9; n++)
		assert_int_equal(driver_used(&g.d, g.q, &length), 0);
	assert_int_equal(length, 11); /* an error: the fid was taken, and an O_PATH descriptor is nothing to fsync() */
	assert_int_equal(driver_used(&g.d, g.q, NULL), -1);
	bus_resume(g.d.b->bus);
	end(&g);
}

static void no_requests(void **state)
{
	struct guest g;

	(void)state;
	start(&g);
	put(&g, version, 6, 4096);
	assert_true(driver_status(&g.d) & VIRTIO_NEEDS_RESET);
	ready(&g);
	put(&g, version, sizeof(version), 10);
	assert_true(driver_status(&g.d) & VIRTIO_NEEDS_RESET);
	ready(&g);
	attach_root(&g);
	ready(&g); /* a reset: the fid is gone */
	attach_root(&g);
	end(&g);
}

static void saved(void **state)
{
	struct guest g;
	struct writer mounted, unmounted;
	struct error err;

	(void)state;
	start(&g);
	bus_pause(g.d.b->bus);
	unmounted = board_save(g.d.b);
	bus_resume(g.d.b->bus);
	attach_root(&g);
	bus_pause(g.d.b->bus);
	mounted = board_save(g.d.b);
	assert_int_equal(board_load(g.d.b, &mounted, 0, &err), -EINVAL);
	assert_non_null(strstr(err.text, "had mounted the share"));
	assert_int_equal(board_load(g.d.b, &unmounted, 0, &err), 0);
	bus_resume(g.d.b->bus);
	writer_free(&mounted);
	writer_free(&unmounted);
	end(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mount_tag),
		cmocka_unit_test(in_the_thread),
		cmocka_unit_test(no_requests),
		cmocka_unit_test(saved),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
