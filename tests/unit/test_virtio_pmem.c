/*
 * virtio-pmem: the file is what the guest's memory shows, both ways; flushes; files that are none; one that somebody cuts meanwhile; a saved machine.
 */
#define _GNU_SOURCE
#include "lib/virtio_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* Guest memory, which the driver reads when it sees by a read of it that the thread is done, as on hardware. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:mem_write\nrace:mem_read\nrace:driver_\nrace:mem_fill\n"; }
#endif

#define START	(MEM_HIGH_BASE)
#define SIZE	(4 * MIB)
#define REQUEST 0x200000u
#define REPLY	0x201000u

static char path[32];
static struct sigaction bus_error; /* host/fault.c's, in place of cmocka's */

static int make_file(off_t size)
{
	int fd;

	strcpy(path, "/tmp/test_pmem.XXXXXX");
	fd = mkstemp(path);
	assert_int_equal(ftruncate(fd, size), 0);
	return fd;
}

static void ready(struct driver *d)
{
	assert_int_equal(driver_features(d, BIT(VIRTIO_F_VERSION_1)) & VIRTIO_FEATURES_OK, VIRTIO_FEATURES_OK);
	driver_queue(d, 0, 16);
	driver_ok(d);
}

static struct driver start(enum clock_kind clock, const char *more)
{
	struct driver d = driver_board_with(clock);
	struct error err;
	char spec[80];

	snprintf(spec, sizeof(spec), "virtio-pmem,file=%s%s", path, more);
	if (!device_plug(d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
	assert_int_equal(sigaction(SIGBUS, &bus_error, NULL), 0);
	bus_settle(d.b->bus);
	mem_commit(d.mem);
	driver_reset_board(&d);
	ready(&d);
	return d;
}

static void end(struct driver *d)
{
	bus_pause(d->b->bus);
	devices_unplug(d->b->bus);
	assert_null(mem_find(d->mem, gpa(START)));
	driver_end(d);
}

/* The reply. */
static uint32_t request(struct driver *d, uint32_t type)
{
	struct driver_queue *q = &d->queues[0];
	uint32_t reply = 99, length;

	assert_int_equal(mem_write(d->mem, gpa(REQUEST), &type, 4), 0);
	driver_descriptor(d, q->descriptors, 0, REQUEST, 4, D_NEXT, 1);
	driver_descriptor(d, q->descriptors, 1, REPLY, 4, D_WRITE, 0);
	driver_add(d, q, 0);
	driver_kick(d, q);
	while (driver_used(d, q, &length) < 0)
		sched_yield();
	assert_int_equal(length, 4);
	assert_int_equal(mem_read(d->mem, gpa(REPLY), &reply, 4), 0);
	return reply;
}

static void both_ways(enum clock_kind clock)
{
	int fd = make_file(SIZE);
	struct driver d;
	char bytes[6] = "";

	assert_int_equal(pwrite(fd, "hello", 5, 0x1000), 5);
	d = start(clock, "");
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG, 4), (uint32_t)START);
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG + 4, 4), START >> 32);
	assert_int_equal(driver_rd(&d, DRIVER_CONFIG + 8, 4), SIZE);
	assert_int_equal(mem_read(d.mem, gpa(START + 0x1000), bytes, 5), 0);
	assert_string_equal(bytes, "hello");
	assert_int_equal(mem_write(d.mem, gpa(START + SIZE - 5), "world", 5), 0);
	assert_int_equal(mem_write(d.mem, gpa(START + SIZE - 4), "world", 5), -EFAULT);
	assert_int_equal(request(&d, 0), 0);
	assert_int_equal(pread(fd, bytes, 5, SIZE - 5), 5);
	assert_string_equal(bytes, "world");
	assert_int_equal(request(&d, 1), 1); /* there is no such one */
	/* Nothing to read: nothing to write. */
	driver_descriptor(&d, d.queues[0].descriptors, 0, REPLY, 4, D_WRITE, 0);
	driver_add(&d, &d.queues[0], 0);
	driver_kick(&d, &d.queues[0]);
	while (driver_used(&d, &d.queues[0], NULL) < 0)
		sched_yield();
	end(&d);
	close(fd);
	unlink(path);
}

static void by_the_thread(void **state)
{
	(void)state;
	both_ways(CLOCK_HOST);
}

static void in_line(void **state)
{
	(void)state;
	both_ways(CLOCK_VIRTUAL);
}

static void only_read(void **state)
{
	int fd = make_file(SIZE);
	struct driver d = start(CLOCK_HOST, ",readonly");
	char byte = 1;

	(void)state;
	assert_int_equal(mem_write(d.mem, gpa(START), "x", 1), 0);
	assert_int_equal(mem_read(d.mem, gpa(START), &byte, 1), 0);
	assert_int_equal(byte, 0);
	assert_int_equal(request(&d, 0), 0);
	/* Cut, it reads as zeros. */
	assert_int_equal(pwrite(fd, "y", 1, SIZE - 1), 1);
	assert_int_equal(ftruncate(fd, MIB), 0);
	byte = 1;
	assert_int_equal(mem_read(d.mem, gpa(START + SIZE - 1), &byte, 1), 0);
	assert_int_equal(byte, 0);
	end(&d);
	close(fd);
	unlink(path);
}

static void cut(void **state)
{
	int fd = make_file(SIZE);
	struct driver d = start(CLOCK_HOST, "");
	char byte = 1;

	(void)state;
	assert_int_equal(mem_write(d.mem, gpa(START + SIZE - 1), "x", 1), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(mem_read(d.mem, gpa(START + SIZE - 1), &byte, 1), 0);
	assert_int_equal(byte, 0);
	assert_int_equal(lseek(fd, 0, SEEK_END), SIZE);
	assert_int_equal(mem_write(d.mem, gpa(START + 7), "x", 1), 0);
	assert_int_equal(request(&d, 0), 0);
	assert_int_equal(pread(fd, &byte, 1, 7), 1);
	assert_int_equal(byte, 'x');
	end(&d);
	close(fd);
	unlink(path);
}

static void refused(const char *spec, const char *why)
{
	struct driver d = driver_board();
	struct error err;

	if (device_plug(d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", spec);
	if (!strstr(err.text, why))
		fail_msg("%s", err.text);
	devices_unplug(d.b->bus);
	driver_end(&d);
}

static void no_files(void **state)
{
	int fd = make_file(3 * MIB);
	struct driver d;
	char spec[80];

	(void)state;
	snprintf(spec, sizeof(spec), "virtio-pmem,file=%s", path);
	refused(spec, "multiple of 2 MiB");
	assert_int_equal(ftruncate(fd, 0), 0);
	refused(spec, "multiple of 2 MiB");
	refused("virtio-pmem", "expected a file");
	refused("virtio-pmem,file=/tmp", "Is a directory");
	refused("virtio-pmem,file=/tmp,readonly", "no regular file");
	refused("virtio-pmem,file=/nowhere", "No such file");
	/* More than what is known of its pages may take. */
	assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0);
	snprintf(spec, sizeof(spec), "virtio-pmem,readonly,file=%s", path);
	refused(spec, "devices have");
	/* In use */
	assert_int_equal(ftruncate(fd, 2 * MIB), 0);
	d = start(CLOCK_HOST, "");
	refused(spec, "in use by another program");
	end(&d);
	close(fd);
	unlink(path);
}

static void saved(void **state)
{
	int fd = make_file(SIZE);
	struct driver d = start(CLOCK_HOST, "");
	struct writer records;
	struct error err;
	char byte = 0;

	(void)state;
	bus_pause(d.b->bus);
	records = board_save(d.b);
	assert_int_equal(mem_write(d.mem, gpa(START), "x", 1), 0);
	if (board_load(d.b, &records, 0, &err))
		fail_msg("%s", err.text);
	bus_resume(d.b->bus);
	assert_int_equal(mem_read(d.mem, gpa(START), &byte, 1), 0);
	assert_int_equal(byte, 'x');
	assert_int_equal(request(&d, 0), 0);
	end(&d);
	assert_int_equal(ftruncate(fd, 2 * MIB), 0);
	d = start(CLOCK_HOST, "");
	bus_pause(d.b->bus);
	assert_int_equal(board_load(d.b, &records, 0, &err), -EINVAL);
	assert_non_null(strstr(err.text, "a file of 4194304 bytes"));
	bus_resume(d.b->bus);
	end(&d);
	writer_free(&records);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_the_thread), cmocka_unit_test(in_line),  cmocka_unit_test(only_read),
		cmocka_unit_test(cut),		 cmocka_unit_test(no_files), cmocka_unit_test(saved),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	mem_destroy(mem_create(MEM_MIN, NULL));
	sigaction(SIGBUS, NULL, &bus_error);
	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
