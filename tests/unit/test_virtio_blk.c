/*
 * virtio-blk: each request and its outcome, done where the driver kicks (virtual time) and by workers; requests that make no sense; a reset in the middle of many.
 */
#define _GNU_SOURCE
#include "lib/virtio_driver.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DISK_SIZE (4u << 20)
#define HEADER	  0x200000u
#define DATA	  0x210000u
#define STATUS	  0x2f0000u
#define V1	  BIT(VIRTIO_F_VERSION_1)
#define FLUSH	  BIT(9)
#define WCE	  BIT(11)
#define DISCARD	  BIT(13)
#define ZEROES	  BIT(14)

enum { IN, OUT, FLUSH_OP = 4, GET_ID = 8, DISCARD_OP = 11, ZEROES_OP = 13 };
enum { OK, IOERR, UNSUPP };

struct disk {
	struct driver d;
	int fd;
};

static struct driver_queue *queue(struct disk *disk) { return &disk->d.queues[0]; }

static struct disk plug(enum clock_kind clock, const char *options, uint64_t features)
{
	struct disk disk = { .d = driver_board_with(clock), .fd = memfd_create("disk", 0) };
	struct error err = { 0 };
	char spec[160];

	assert_int_equal(ftruncate(disk.fd, DISK_SIZE), 0);
	snprintf(spec, sizeof(spec), "virtio-blk,file=/proc/self/fd/%d,format=raw%s", disk.fd, options);
	if (!device_plug(disk.d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
	driver_reset_board(&disk.d);
	assert_int_equal(driver_features(&disk.d, V1 | features), 0xb);
	driver_queue(&disk.d, 0, 256);
	driver_ok(&disk.d);
	return disk;
}

static void unplug(struct disk *disk)
{
	bus_pause(disk->d.b->bus);
	devices_unplug(disk->d.b->bus);
	driver_end(&disk->d);
	close(disk->fd);
}

static void header(struct disk *disk, uint32_t type, uint64_t sector)
{
	uint8_t bytes[16] = { 0 };

	store_le32(bytes, type);
	store_le64(bytes + 8, sector);
	assert_int_equal(mem_write(disk->d.mem, gpa(HEADER), bytes, 16), 0);
}

/* Waits for the one that was kicked; returns its status. */
static unsigned outcome(struct disk *disk, uint32_t *length)
{
	uint8_t status;

	bus_pause(disk->d.b->bus);
	assert_int_equal(driver_used(&disk->d, queue(disk), length), 0);
	bus_resume(disk->d.b->bus);
	assert_int_equal(mem_read(disk->d.mem, gpa(STATUS), &status, 1), 0);
	return status;
}

/* `size` bytes at DATA, in two pieces that are no neighbours. */
static unsigned request(struct disk *disk, uint32_t type, uint64_t sector, uint32_t size)
{
	unsigned flags = D_NEXT | (type == IN || type == GET_ID ? D_WRITE : 0);
	uint64_t table = queue(disk)->descriptors;

	mem_fill(disk->d.mem, gpa(STATUS), 0x99, 1);
	header(disk, type, sector);
	driver_descriptor(&disk->d, table, 0, HEADER, 16, D_NEXT, 1);
	driver_descriptor(&disk->d, table, 1, DATA, size / 2, flags, 2);
	driver_descriptor(&disk->d, table, 2, DATA + 0x20000, size - size / 2, flags, 3);
	driver_descriptor(&disk->d, table, 3, STATUS, 1, D_WRITE, 0);
	driver_add(&disk->d, queue(disk), 0);
	driver_kick(&disk->d, queue(disk));
	return outcome(disk, NULL);
}

static unsigned segment(struct disk *disk, uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
	uint8_t bytes[16];

	store_le64(bytes, sector);
	store_le32(bytes + 8, count);
	store_le32(bytes + 12, flags);
	assert_int_equal(mem_write(disk->d.mem, gpa(DATA), bytes, 8), 0);
	assert_int_equal(mem_write(disk->d.mem, gpa(DATA + 0x20000), bytes + 8, 8), 0);
	return request(disk, type, 0, 16);
}

static void check_disk(struct disk *disk, uint64_t at, const void *expected, size_t size)
{
	uint8_t bytes[8192];

	assert_int_equal(pread(disk->fd, bytes, size, (off_t)at), size);
	assert_memory_equal(bytes, expected, size);
}

static void fill_data(struct disk *disk, uint8_t first, uint8_t second)
{
	mem_fill(disk->d.mem, gpa(DATA), first, 0x20000);
	mem_fill(disk->d.mem, gpa(DATA + 0x20000), second, 0x20000);
}

static void reads_and_writes(void **state)
{
	struct disk disk = plug(*(enum clock_kind *)*state, ",serial=0123456789abcdefghij", FLUSH | WCE);
	static const uint8_t ones[1024] = { [0 ... 511] = 1, [512 ... 1023] = 2 };
	char id[21] = "";
	uint8_t bytes[4];

	fill_data(&disk, 1, 2);
	assert_int_equal(request(&disk, OUT, 3, 1024), OK);
	check_disk(&disk, 1536, ones, 1024);
	fill_data(&disk, 9, 9);
	assert_int_equal(request(&disk, IN, 3, 1024), OK);
	assert_int_equal(mem_read(disk.d.mem, gpa(DATA + 510), bytes, 4), 0);
	assert_memory_equal(bytes, "\1\1\x09\x09", 4);
	assert_int_equal(mem_read(disk.d.mem, gpa(DATA + 0x20000 + 510), bytes, 4), 0);
	assert_memory_equal(bytes, "\2\2\x09\x09", 4);
	assert_int_equal(request(&disk, IN, 0, 0x40000), OK); /* long enough for a worker */
	assert_int_equal(request(&disk, FLUSH_OP, 0, 0), OK);
	assert_int_equal(request(&disk, OUT, 8191, 512), OK);
	assert_int_equal(request(&disk, IN, 0, 0), OK);
	assert_int_equal(request(&disk, GET_ID, 0, 20), OK);
	mem_read(disk.d.mem, gpa(DATA), id, 10);
	mem_read(disk.d.mem, gpa(DATA + 0x20000), id + 10, 10);
	assert_string_equal(id, "0123456789abcdefghij");
	/* what cannot be */
	assert_int_equal(request(&disk, OUT, 8191, 1024), IOERR);
	assert_int_equal(request(&disk, IN, 8192, 512), IOERR);
	assert_int_equal(request(&disk, IN, UINT64_MAX / 512 + 2, 512), IOERR);
	assert_int_equal(request(&disk, IN, UINT64_MAX, 512), IOERR);
	assert_int_equal(request(&disk, OUT, 0, 511), IOERR);
	assert_int_equal(request(&disk, 2, 0, 512), UNSUPP);
	assert_int_equal(request(&disk, 0xffff, 0, 512), UNSUPP);
	assert_int_equal(segment(&disk, DISCARD_OP, 0, 8, 0), UNSUPP); /* not negotiated */
	assert_int_equal(driver_status(&disk.d), 0xf);
	unplug(&disk);
}

static void discard_and_zeroes(void **state)
{
	struct disk disk = plug(*(enum clock_kind *)*state, ",discard=on", FLUSH | DISCARD | ZEROES);
	static const uint8_t zeroes[8192];

	fill_data(&disk, 7, 7);
	assert_int_equal(request(&disk, OUT, 0, 0x4000), OK);
	assert_int_equal(segment(&disk, ZEROES_OP, 8, 16, 0), OK);
	check_disk(&disk, 4096, zeroes, 8192);
	assert_int_equal(segment(&disk, ZEROES_OP, 0, 8, 1), OK);
	check_disk(&disk, 0, zeroes, 4096);
	assert_int_equal(segment(&disk, DISCARD_OP, 24, 8, 0), OK);
	check_disk(&disk, 12288, zeroes, 4096);
	assert_int_equal(segment(&disk, DISCARD_OP, 24, 8, 1), UNSUPP);
	assert_int_equal(segment(&disk, ZEROES_OP, 24, 8, 2), UNSUPP);
	assert_int_equal(segment(&disk, ZEROES_OP, 8185, 8, 0), IOERR);
	assert_int_equal(segment(&disk, DISCARD_OP, UINT64_MAX, 8, 0), IOERR);
	assert_int_equal(segment(&disk, ZEROES_OP, 0, UINT32_MAX, 0), IOERR);
	assert_int_equal(request(&disk, DISCARD_OP, 0, 32), IOERR); /* two of them */
	assert_int_equal(request(&disk, DISCARD_OP, 0, 8), IOERR);
	unplug(&disk);
}

static void what_is_read_only_stays(void **state)
{
	struct disk disk = plug(*(enum clock_kind *)*state, ",readonly", FLUSH);
	static const uint8_t zeroes[512];

	assert_true(driver_offered(&disk.d) & BIT(5));
	assert_false(driver_offered(&disk.d) & (DISCARD | ZEROES));
	assert_int_equal(request(&disk, OUT, 0, 512), IOERR);
	assert_int_equal(request(&disk, IN, 0, 512), OK);
	assert_int_equal(request(&disk, FLUSH_OP, 0, 0), OK);
	check_disk(&disk, 0, zeroes, 512);
	unplug(&disk);
}

/* The host's errors are the guest's. */
static void a_file_that_shrinks(void **state)
{
	struct disk disk = plug(*(enum clock_kind *)*state, "", FLUSH);

	assert_int_equal(ftruncate(disk.fd, 4096), 0);
	assert_int_equal(request(&disk, IN, 64, 512), IOERR);
	assert_int_equal(request(&disk, IN, 0, 0x40000), IOERR);
	assert_int_equal(request(&disk, IN, 0, 4096), OK);
	unplug(&disk);
}

/* Those that are no requests break the device. */
static void no_requests(void **state)
{
	static const struct {
		uint32_t out, in;
	} sizes[] = { { 15, 1 }, { 16, 0 }, { 0, 64 } };

	for (unsigned n = 0; n < ARRAY_SIZE(sizes); n++) {
		struct disk disk = plug(*(enum clock_kind *)*state, "", FLUSH);

		driver_descriptor(&disk.d, queue(&disk)->descriptors, 0, HEADER, sizes[n].out, D_NEXT, 1);
		driver_descriptor(&disk.d, queue(&disk)->descriptors, 1, STATUS, sizes[n].in, D_WRITE, 0);
		driver_add(&disk.d, queue(&disk), 0);
		driver_kick(&disk.d, queue(&disk));
		assert_int_equal(driver_status(&disk.d), 0x4f);
		assert_int_equal(driver_used(&disk.d, queue(&disk), NULL), -1);
		unplug(&disk);
	}
}

static void the_configuration_says_what_it_is(void **state)
{
	struct disk disk = plug(*(enum clock_kind *)*state, ",queues=4", FLUSH | WCE | BIT(12));

	assert_int_equal(driver_rd(&disk.d, DRIVER_CONFIG, 4), DISK_SIZE / 512);
	assert_int_equal(driver_rd(&disk.d, DRIVER_CONFIG + 20, 4), 512);
	assert_int_equal(driver_rd(&disk.d, DRIVER_CONFIG + 24, 1), 3);
	assert_int_equal(driver_rd(&disk.d, DRIVER_CONFIG + 32, 1), 1);
	assert_int_equal(driver_rd(&disk.d, DRIVER_CONFIG + 34, 2), 4);
	assert_int_equal(driver_rd(&disk.d, 0x12, 2), 4);
	driver_wr(&disk.d, DRIVER_CONFIG + 32, 1, 0);
	assert_int_equal(driver_rd(&disk.d, DRIVER_CONFIG + 32, 1), 0);
	fill_data(&disk, 1, 1);
	assert_int_equal(request(&disk, OUT, 0, 512), OK); /* and durable */
	driver_wr(&disk.d, 0x14, 1, 0);
	assert_int_equal(driver_rd(&disk.d, DRIVER_CONFIG + 32, 1), 1);
	unplug(&disk);
}

/* A queue full of writes that workers do, and a reset: when it is over nothing is under way, and the ring is not touched any more. */
static void reset_in_the_middle(void **state)
{
	for (unsigned round = 0; round < 20; round++) {
		struct disk disk = plug(*(enum clock_kind *)*state, "", FLUSH);
		uint16_t used;

		header(&disk, FLUSH_OP, 0);
		for (unsigned n = 0; n < 100; n++) {
			driver_descriptor(&disk.d, queue(&disk)->descriptors, 2 * n, HEADER, 16, D_NEXT, 2 * n + 1);
			driver_descriptor(&disk.d, queue(&disk)->descriptors, 2 * n + 1, STATUS + n, 1, D_WRITE, 0);
			driver_add(&disk.d, queue(&disk), 2 * n);
		}
		driver_kick(&disk.d, queue(&disk));
		driver_wr(&disk.d, 0x14, 1, 0);
		assert_int_equal(driver_status(&disk.d), 0);
		used = driver_load16(&disk.d, queue(&disk)->used + 2);
		bus_pause(disk.d.b->bus);
		assert_int_equal(driver_load16(&disk.d, queue(&disk)->used + 2), used);
		bus_resume(disk.d.b->bus);
		driver_features(&disk.d, V1);
		driver_queue(&disk.d, 0, 256);
		driver_ok(&disk.d);
		assert_int_equal(request(&disk, IN, 0, 512), OK);
		unplug(&disk);
	}
}

/* ---- a server that hangs ---- */

static void send_option_reply(int fd, uint32_t option, uint32_t type, const void *data, uint32_t size)
{
	uint8_t head[20];

	store_be64(head, 0x3e889045565a9);
	store_be32(head + 8, option);
	store_be32(head + 12, type);
	store_be32(head + 16, size);
	send(fd, head, sizeof(head), MSG_NOSIGNAL);
	send(fd, data, size, MSG_NOSIGNAL);
}

/* An NBD server that lets one in, and answers nothing that is asked of it then. */
static void *serve_nothing(void *listener)
{
	uint8_t hello[18], in[64], export[12] = { 0 };
	int fd = accept(*(int *)listener, NULL, NULL);

	memcpy(hello, "NBDMAGICIHAVEOPT", 16);
	store_be16(hello + 16, 1);
	store_be64(export + 2, DISK_SIZE);
	store_be16(export + 10, 1);
	send(fd, hello, sizeof(hello), MSG_NOSIGNAL);
	recv(fd, in, 4 + 16, MSG_WAITALL);
	send_option_reply(fd, 8, BIT(31) + 1, NULL, 0);
	recv(fd, in, 16 + 8, MSG_WAITALL);
	send_option_reply(fd, 7, 3, export, sizeof(export));
	send_option_reply(fd, 7, 1, NULL, 0);
	while (recv(fd, in, sizeof(in), 0) > 0)
		;
	close(fd);
	return NULL;
}

/* A reset does not wait as long as a server is waited for. */
static void reset_of_what_hangs(void **state)
{
	struct disk disk = { .d = driver_board_with(CLOCK_HOST), .fd = -1 };
	char folder[] = "/tmp/doppel-blk-XXXXXX", spec[160];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct error err = { 0 };
	pthread_t server;
	uint64_t began;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/nbd", folder);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 5), 0);
	assert_int_equal(pthread_create(&server, NULL, serve_nothing, &listener), 0);
	snprintf(spec, sizeof(spec), "virtio-blk,file=nbd:unix:%s", address.sun_path);
	if (!device_plug(disk.d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
	driver_reset_board(&disk.d);
	driver_features(&disk.d, V1);
	driver_queue(&disk.d, 0, 256);
	driver_ok(&disk.d);
	header(&disk, IN, 0);
	driver_descriptor(&disk.d, queue(&disk)->descriptors, 0, HEADER, 16, D_NEXT, 1);
	driver_descriptor(&disk.d, queue(&disk)->descriptors, 1, DATA, 512, D_NEXT | D_WRITE, 2);
	driver_descriptor(&disk.d, queue(&disk)->descriptors, 2, STATUS, 1, D_WRITE, 0);
	/* More than there are workers */
	for (unsigned n = 0; n < 9; n++)
		driver_add(&disk.d, queue(&disk), 0);
	driver_kick(&disk.d, queue(&disk));
	began = host_monotonic_ns();
	driver_wr(&disk.d, 0x14, 1, 0);
	assert_int_equal(driver_status(&disk.d), 0);
	assert_true(host_monotonic_ns() - began < 25000000000);
	assert_int_equal(driver_load16(&disk.d, queue(&disk)->used + 2), 0);
	bus_pause(disk.d.b->bus);
	devices_unplug(disk.d.b->bus);
	driver_end(&disk.d);
	pthread_join(server, NULL);
	close(listener);
	unlink(address.sun_path);
	rmdir(folder);
}

/* ---- errors that the machine waits for ---- */

/* A read of what is not in the file any more. */
static struct disk plug_and_hold(enum clock_kind clock)
{
	struct disk disk = plug(clock, ",on-error=stop", FLUSH);
	uint64_t table = queue(&disk)->descriptors;

	assert_int_equal(pwrite(disk.fd, "something", 9, 1024), 9);
	assert_int_equal(ftruncate(disk.fd, 0), 0);
	header(&disk, IN, 2);
	driver_descriptor(&disk.d, table, 5, HEADER, 16, D_NEXT, 6);
	driver_descriptor(&disk.d, table, 6, DATA, 512, D_NEXT | D_WRITE, 7);
	driver_descriptor(&disk.d, table, 7, STATUS, 1, D_WRITE, 0);
	driver_add(&disk.d, queue(&disk), 5);
	driver_kick(&disk.d, queue(&disk));
	bus_pause(disk.d.b->bus);
	assert_non_null(disk.d.b->hold);
	assert_int_equal(driver_used(&disk.d, queue(&disk), NULL), -1);
	return disk;
}

static void heal(struct disk *disk)
{
	assert_int_equal(ftruncate(disk->fd, DISK_SIZE), 0);
	assert_int_equal(pwrite(disk->fd, "something", 9, 1024), 9);
}

static void check_answered(struct disk *disk)
{
	char text[10] = "";
	uint8_t status;

	bus_pause(disk->d.b->bus);
	assert_null(disk->d.b->hold);
	assert_int_equal(driver_used(&disk->d, queue(disk), NULL), 5);
	assert_int_equal(mem_read(disk->d.mem, gpa(STATUS), &status, 1), 0);
	assert_int_equal(status, OK);
	assert_int_equal(mem_read(disk->d.mem, gpa(DATA), text, 9), 0);
	assert_string_equal(text, "something");
	bus_resume(disk->d.b->bus);
}

static void waits_for_the_host(void **state)
{
	struct disk disk = plug_and_hold(*(enum clock_kind *)*state);
	struct bus_hold *hold = disk.d.b->hold;

	/* It is tried again when the devices go on, and each time that it is to be. */
	bus_resume(disk.d.b->bus);
	hold->retry(hold);
	bus_pause(disk.d.b->bus);
	assert_ptr_equal(disk.d.b->hold, hold);
	assert_int_equal(driver_used(&disk.d, queue(&disk), NULL), -1);
	bus_resume(disk.d.b->bus);
	heal(&disk);
	hold->retry(hold);
	check_answered(&disk);
	/* Too late, which is fine. */
	hold->retry(hold);
	assert_int_equal(driver_used(&disk.d, queue(&disk), NULL), -1);
	unplug(&disk);
}

/* Another machine, which was not held, goes on with what waits. */
static void waits_over_a_load(void **state)
{
	struct disk disk = plug_and_hold(*(enum clock_kind *)*state);
	struct writer saved = board_save(disk.d.b);

	heal(&disk);
	bus_resume(disk.d.b->bus);
	check_answered(&disk);
	assert_int_equal(ftruncate(disk.fd, 0), 0);
	bus_pause(disk.d.b->bus);
	assert_int_equal(board_load(disk.d.b, &saved, clock_now(disk.d.b->clock), NULL), 0);
	assert_non_null(disk.d.b->hold);
	mem_fill(disk.d.mem, gpa(DATA), 0, 512);
	mem_fill(disk.d.mem, gpa(queue(&disk)->used + 2), 0, 2);
	queue(&disk)->seen = 0;
	heal(&disk);
	bus_resume(disk.d.b->bus);
	check_answered(&disk);
	free(saved.data);
	unplug(&disk);
}

static void reset_while_it_waits(void **state)
{
	struct disk disk = plug_and_hold(*(enum clock_kind *)*state);

	bus_resume(disk.d.b->bus);
	driver_wr(&disk.d, 0x14, 1, 0);
	assert_int_equal(driver_status(&disk.d), 0);
	assert_null(disk.d.b->hold);
	heal(&disk);
	driver_features(&disk.d, V1);
	driver_queue(&disk.d, 0, 256);
	driver_ok(&disk.d);
	assert_int_equal(request(&disk, IN, 0, 512), OK);
	unplug(&disk);
}

/* The driver writes other chains where one waits: what is no request breaks the device; none is answered that was not asked for. */
static void chains_that_change_meanwhile(void **state)
{
	struct disk disk = plug_and_hold(*(enum clock_kind *)*state);

	driver_descriptor(&disk.d, queue(&disk)->descriptors, 5, HEADER, 16, 0, 0);
	bus_resume(disk.d.b->bus);
	bus_pause(disk.d.b->bus);
	assert_null(disk.d.b->hold);
	assert_true(driver_status(&disk.d) & VIRTIO_NEEDS_RESET);
	bus_resume(disk.d.b->bus);
	unplug(&disk);
}

/* Room is what enospc waits for, and report waits for nothing. */
static void reports_to_the_guest(void **state)
{
	static const char *const options[] = { "", ",on-error=report", ",on-error=enospc" };

	for (unsigned n = 0; n < ARRAY_SIZE(options); n++) {
		struct disk disk = plug(*(enum clock_kind *)*state, options[n], FLUSH);

		assert_int_equal(ftruncate(disk.fd, 0), 0);
		assert_int_equal(request(&disk, IN, 0, 512), IOERR);
		assert_null(disk.d.b->hold);
		unplug(&disk);
	}
}

static void options_are_checked(void **state)
{
	static const struct {
		const char *spec, *says;
	} wrong[] = {
		{ "virtio-blk", "option 'file' is not given" },
		{ "virtio-blk,file=/nonexistent/disk", "/nonexistent/disk" },
		{ "virtio-blk,file=/dev/null,cache=write",
		  "option 'cache' is 'write'; expected writeback, none or unsafe" },
		{ "virtio-blk,file=/dev/null,backing=far", "option 'backing' is 'far'; expected near, any or none" },
		{ "virtio-blk,file=/dev/null,on-error=go",
		  "option 'on-error' is 'go'; expected report, stop or enospc" },
		{ "virtio-blk,file=/dev/null,bus=ide,on-error=go",
		  "option 'on-error' is 'go'; expected report, stop or enospc" },
		{ "virtio-blk,file=/dev/null,packed=on,on-error=stop",
		  "option 'on-error' is 'stop'; expected report with packed=on" },
		{ "virtio-blk,file=/dev/null,serial=0123456789abcdefghijk", "expected at most 20 characters" },
		{ "virtio-blk,file=/dev/null,queues=17", "expected a number from 1 to 16" },
	};
	struct driver d = driver_board();

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(wrong); n++) {
		struct error err = { 0 };

		assert_null(device_plug(d.b->bus, NULL, &(struct device_request){ .spec = wrong[n].spec }, &err));
		if (!strstr(err.text, wrong[n].says))
			fail_msg("%s", err.text);
	}
	driver_end(&d);
}

int main(void)
{
	static enum clock_kind in_line = CLOCK_VIRTUAL, by_workers = CLOCK_HOST; /* host_thread_create() */
	const struct CMUnitTest tests[] = {
#define BOTH(name)                                                                                                     \
	{ #name " in line", name, NULL, NULL, &in_line }, { #name " by workers", name, NULL, NULL, &by_workers }
		BOTH(reads_and_writes),
		BOTH(discard_and_zeroes),
		BOTH(what_is_read_only_stays),
		BOTH(a_file_that_shrinks),
		BOTH(no_requests),
		BOTH(the_configuration_says_what_it_is),
		BOTH(reset_in_the_middle),
		BOTH(waits_for_the_host),
		BOTH(waits_over_a_load),
		BOTH(reset_while_it_waits),
		BOTH(chains_that_change_meanwhile),
		BOTH(reports_to_the_guest),
		cmocka_unit_test(reset_of_what_hangs),
		cmocka_unit_test(options_are_checked),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
