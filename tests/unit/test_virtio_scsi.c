/*
 * virtio-scsi: commands and their responses, served where the driver kicks (virtual time) and by workers; addresses of units, residuals, task management, events; what is no
 * request; a reset in the middle of many.
 */
#define _GNU_SOURCE
#include "lib/virtio_driver.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define DISK_SIZE (4u << 20)
#define HEADER	  0x200000u
#define RESPONSE  0x208000u
#define DATA	  0x210000u
#define V1	  BIT(VIRTIO_F_VERSION_1)
#define HOTPLUG	  BIT(1)

enum { CONTROL, EVENT, REQUEST };

struct controller {
	struct driver d;
	int fd;
	uint8_t response[12 + 96];
	uint32_t used;
};

static struct driver_queue *queue(struct controller *s, unsigned n) { return &s->d.queues[n]; }

static void start(struct controller *s, uint64_t features)
{
	assert_int_equal(driver_features(&s->d, V1 | features), 0xb);
	for (unsigned n = 0; n < 3; n++)
		driver_queue(&s->d, n, 256);
	driver_ok(&s->d);
}

/* A disk as target 0, and a CD of the same file as target 1. */
static struct controller *plug(enum clock_kind clock, uint64_t features)
{
	static const char *const specs[] = { "scsi-disk,file=/proc/self/fd/%d,format=raw,readonly=%s",
					     "scsi-cd,file=/proc/self/fd/%d%.0s" };
	struct controller *s = calloc(1, sizeof(*s));
	struct error err = { 0 };

	s->d = driver_board_with(clock);
	s->fd = memfd_create("disk", 0);
	assert_int_equal(ftruncate(s->fd, DISK_SIZE), 0);
	for (unsigned n = 0; n < 2; n++) {
		char spec[160];

		snprintf(spec, sizeof(spec), specs[n], s->fd, "on");
		if (!device_plug(s->d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
			fail_msg("%s", err.text);
	}
	driver_reset_board(&s->d);
	start(s, features);
	return s;
}

/* The same with a disk alone that can be written to. */
static struct controller *plug_disk(enum clock_kind clock, const char *options)
{
	struct controller *s = calloc(1, sizeof(*s));
	struct error err = { 0 };
	char spec[160];

	s->d = driver_board_with(clock);
	s->fd = memfd_create("disk", 0);
	assert_int_equal(ftruncate(s->fd, DISK_SIZE), 0);
	snprintf(spec, sizeof(spec), "virtio-blk,bus=scsi,file=/proc/self/fd/%d,format=raw,discard%s", s->fd, options);
	if (!device_plug(s->d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
	driver_reset_board(&s->d);
	start(s, 0);
	return s;
}

static void unplug(struct controller *s)
{
	bus_pause(s->d.b->bus);
	devices_unplug(s->d.b->bus);
	driver_end(&s->d);
	close(s->fd);
	free(s);
}

static int used(struct controller *s, unsigned n)
{
	int head;

	bus_pause(s->d.b->bus);
	head = driver_used(&s->d, queue(s, n), &s->used);
	bus_resume(s->d.b->bus);
	return head;
}

static void header(struct controller *s, uint64_t at, const uint8_t lun[8], uint64_t tag, const uint8_t *cdb,
		   size_t cdb_size)
{
	uint8_t bytes[19 + 32] = { 0 };

	memcpy(bytes, lun, 8);
	store_le64(bytes + 8, tag);
	memcpy(bytes + 19, cdb, cdb_size);
	assert_int_equal(mem_write(s->d.mem, gpa(at), bytes, sizeof(bytes)), 0);
}

/* Header, data out, response, data in; the data in two pieces that are no neighbours. */
static void add(struct controller *s, unsigned first, uint64_t at_header, uint64_t at_response, uint32_t out,
		uint32_t in)
{
	uint64_t table = queue(s, REQUEST)->descriptors;
	unsigned n = first;

	driver_descriptor(&s->d, table, n, at_header, 51, D_NEXT, n + 1);
	n++;
	if (out) {
		driver_descriptor(&s->d, table, n, DATA, out / 2, D_NEXT, n + 1);
		driver_descriptor(&s->d, table, n + 1, DATA + 0x40000, out - out / 2, D_NEXT, n + 2);
		n += 2;
	}
	driver_descriptor(&s->d, table, n, at_response, 12 + 96, D_WRITE | (in ? D_NEXT : 0), n + 1);
	n++;
	if (in) {
		driver_descriptor(&s->d, table, n, DATA, in / 2, D_NEXT | D_WRITE, n + 1);
		driver_descriptor(&s->d, table, n + 1, DATA + 0x40000, in - in / 2, D_WRITE, 0);
	}
	driver_add(&s->d, queue(s, REQUEST), first);
}

/* Returns response << 8 | status. */
static unsigned command_to(struct controller *s, const uint8_t lun[8], const uint8_t *cdb, size_t cdb_size,
			   uint32_t out, uint32_t in)
{
	mem_fill(s->d.mem, gpa(RESPONSE), 0x99, sizeof(s->response));
	header(s, HEADER, lun, 1, cdb, cdb_size);
	add(s, 0, HEADER, RESPONSE, out, in);
	driver_kick(&s->d, queue(s, REQUEST));
	assert_int_equal(used(s, REQUEST), 0);
	assert_int_equal(mem_read(s->d.mem, gpa(RESPONSE), s->response, sizeof(s->response)), 0);
	return (unsigned)s->response[11] << 8 | s->response[10];
}

static const uint8_t disk[8] = { 1, 0, 0x40, 0 }, cd[8] = { 1, 1 };
#define CDB(...)	(const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })
#define COMMAND(s, ...) command_to(s, disk, __VA_ARGS__)
#define RESIDUAL(s)	load_le32((s)->response + 4)
#define SENSE_LENGTH(s) load_le32((s)->response)
#define CHECK_CONDITION 2u
#define OVERRUN		0x100u
#define BAD_TARGET	0x300u
#define FAILURE		0x900u

static void fill_data(struct controller *s, uint8_t first, uint8_t second)
{
	mem_fill(s->d.mem, gpa(DATA), first, 0x40000);
	mem_fill(s->d.mem, gpa(DATA + 0x40000), second, 0x40000);
}

static void commands(void **state)
{
	struct controller *s = plug_disk(*(enum clock_kind *)*state, "");
	static const uint8_t ones[1024] = { [0 ... 511] = 1, [512 ... 1023] = 2 };
	uint8_t bytes[1024];

	/* The first one is told of the reset */
	assert_int_equal(COMMAND(s, CDB(0), 0, 0), CHECK_CONDITION);
	assert_int_equal(SENSE_LENGTH(s), 18);
	assert_memory_equal(s->response + 12, "\x70\0\6\0\0\0\0\x0a\0\0\0\0\x29\0", 14);
	assert_int_equal(s->used, 108);
	assert_int_equal(COMMAND(s, CDB(0), 0, 0), 0);
	assert_int_equal(SENSE_LENGTH(s), 0);
	assert_int_equal(RESIDUAL(s), 0);
	fill_data(s, 1, 2);
	assert_int_equal(COMMAND(s, CDB(0x2a, 0, 0, 0, 0, 3, 0, 0, 2), 1024, 0), 0);
	assert_int_equal(pread(s->fd, bytes, 1024, 1536), 1024);
	assert_memory_equal(bytes, ones, 1024);
	fill_data(s, 9, 9);
	assert_int_equal(COMMAND(s, CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 2), 0, 1024), 0);
	assert_int_equal(mem_read(s->d.mem, gpa(DATA + 510), bytes, 4), 0);
	assert_memory_equal(bytes, "\1\1\x09\x09", 4);
	assert_int_equal(COMMAND(s, CDB(0x28, 0, 0, 0, 0, 0, 0, 4, 0), 0, 0x80000), 0); /* long enough for a worker */
	assert_int_equal(COMMAND(s, CDB(0x35), 0, 0), 0);
	assert_int_equal(COMMAND(s, CDB(0x2a, 8, 0, 0, 0, 3, 0, 0, 2), 1024, 0), 0);
	/* Less than there is room for; more; both ways at once */
	assert_int_equal(COMMAND(s, CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 1), 0, 1024), 0);
	assert_int_equal(RESIDUAL(s), 512);
	assert_int_equal(COMMAND(s, CDB(0x12, 0, 0, 0, 36), 0, 100), 0);
	assert_int_equal(RESIDUAL(s), 64);
	assert_int_equal(COMMAND(s, CDB(0x2a, 0, 0, 0, 0, 3, 0, 0, 2), 1536, 0), 0);
	assert_int_equal(RESIDUAL(s), 512);
	assert_int_equal(COMMAND(s, CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 3), 0, 1024), OVERRUN);
	assert_int_equal(RESIDUAL(s), 1024);
	assert_int_equal(COMMAND(s, CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 1), 512, 0), OVERRUN);
	assert_int_equal(COMMAND(s, CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 1), 512, 512), FAILURE);
	assert_int_equal(COMMAND(s, CDB(0x28, 0, 0xff, 0, 0, 3, 0, 0, 1), 0, 512), CHECK_CONDITION);
	assert_int_equal(RESIDUAL(s), 512);
	/* Many steps: compared, written, discarded */
	fill_data(s, 0, 0);
	assert_int_equal(COMMAND(s, CDB(0x2f, 2, 0, 0, 0, 5, 0, 4, 0), 0x80000, 0), 0);
	mem_fill(s->d.mem, gpa(DATA + 0x7ffff), 1, 1);
	assert_int_equal(COMMAND(s, CDB(0x2f, 2, 0, 0, 0, 5, 0, 4, 0), 0x80000, 0), CHECK_CONDITION);
	assert_int_equal(s->response[12 + 12], 0x1d);
	fill_data(s, 3, 3);
	assert_int_equal(COMMAND(s, CDB(0x41, 0, 0, 0, 0, 0, 0, 4, 0), 512, 0), 0);
	assert_int_equal(pread(s->fd, bytes, 1, 0x7ffff), 1);
	assert_int_equal(bytes[0], 3);
	assert_int_equal(driver_status(&s->d), 0xf);
	unplug(s);
}

static void addresses(void **state)
{
	static const uint8_t other_target[8] = { 1, 2 }, no_target[8] = { 1, 0xff }, other_unit[8] = { 1, 0, 0x40, 1 },
			     other_format[8] = { 2, 0 };
	struct controller *s = plug(*(enum clock_kind *)*state, 0);
	uint8_t type;

	assert_int_equal(command_to(s, other_target, CDB(0), 0, 0), BAD_TARGET);
	assert_int_equal(command_to(s, no_target, CDB(0), 0, 0), BAD_TARGET);
	assert_int_equal(command_to(s, other_format, CDB(0), 0, 0), BAD_TARGET);
	assert_int_equal(command_to(s, other_unit, CDB(0), 0, 0), CHECK_CONDITION);
	assert_int_equal(s->response[12 + 12], 0x25);
	assert_int_equal(command_to(s, other_unit, CDB(0x12, 0, 0, 0, 1), 0, 1), 0);
	mem_read(s->d.mem, gpa(DATA + 0x40000), &type, 1);
	assert_int_equal(type, 0x7f);
	assert_int_equal(command_to(s, cd, CDB(0x12, 0, 0, 0, 1), 0, 1), 0);
	mem_read(s->d.mem, gpa(DATA + 0x40000), &type, 1);
	assert_int_equal(type, 5);
	unplug(s);
}

/* ---- control ---- */

static void control(struct controller *s, const uint8_t *request, uint32_t size, uint32_t answer)
{
	uint64_t table = queue(s, CONTROL)->descriptors;

	mem_fill(s->d.mem, gpa(RESPONSE), 0x99, 8);
	assert_int_equal(mem_write(s->d.mem, gpa(HEADER), request, size), 0);
	driver_descriptor(&s->d, table, 0, HEADER, size, D_NEXT, 1);
	driver_descriptor(&s->d, table, 1, RESPONSE, answer, D_WRITE, 0);
	driver_add(&s->d, queue(s, CONTROL), 0);
	driver_kick(&s->d, queue(s, CONTROL));
}

static unsigned manage(struct controller *s, uint32_t function, const uint8_t lun[8], uint64_t tag)
{
	uint8_t request[24] = { 0 }, answer;

	store_le32(request + 4, function);
	memcpy(request + 8, lun, 8);
	store_le64(request + 16, tag);
	control(s, request, sizeof(request), 1);
	assert_int_equal(used(s, CONTROL), 0);
	assert_int_equal(s->used, 1);
	mem_read(s->d.mem, gpa(RESPONSE), &answer, 1);
	return answer;
}

static void task_management(void **state)
{
	static const uint8_t other_target[8] = { 1, 9 }, other_unit[8] = { 1, 0, 0x40, 1 };
	struct controller *s = plug(*(enum clock_kind *)*state, 0);
	uint8_t query[16] = { 1, [4] = 1, [12] = 0xff }, answer[5];

	COMMAND(s, CDB(0), 0, 0);
	for (unsigned function = 0; function < 10; function++) {
		static const uint8_t answers[] = { 0, 0, 11, 0, 0, 0, 0, 0, 11, 11 };

		assert_int_equal(manage(s, function, disk, 1), answers[function]);
		assert_int_equal(manage(s, function, other_target, 1), 3);
		assert_int_equal(manage(s, function, other_unit, 1), function == 4 ? 0 : 12);
	}
	assert_int_equal(COMMAND(s, CDB(0), 0, 0), CHECK_CONDITION);
	assert_memory_equal(s->response + 12 + 12, "\x29\3", 2);
	assert_int_equal(COMMAND(s, CDB(0), 0, 0), 0);
	/* Notifications: there are none */
	for (query[0] = 1; query[0] < 3; query[0]++) {
		control(s, query, sizeof(query), 5);
		assert_int_equal(used(s, CONTROL), 0);
		mem_read(s->d.mem, gpa(RESPONSE), answer, 5);
		assert_memory_equal(answer, "\0\0\0\0\0", 5);
	}
	unplug(s);
}

/* Of the used ring, which a worker may be writing to. */
static uint16_t used_index(struct controller *s, unsigned n)
{
	struct virtio_device *v = (struct virtio_device *)bus_find_device(s->d.b->bus, "virtio-scsi", 0);
	uint16_t index;

	lock_take(&v->queues[n].lock);
	index = driver_load16(&s->d, queue(s, n)->used + 2);
	lock_drop(&v->queues[n].lock);
	return index;
}

/* A reset's answer comes behind those of all commands that were there before it. */
static void an_abort_waits(void **state)
{
	for (unsigned round = 0; round < 20; round++) {
		struct controller *s = plug_disk(*(enum clock_kind *)*state, "");
		uint8_t request[24] = { [4] = 5, [8] = 1 };

		COMMAND(s, CDB(0), 0, 0);
		header(s, HEADER + 0x100, disk, 7, CDB(0x35));
		for (unsigned n = 0; n < 60; n++)
			add(s, 4 * n, HEADER + 0x100, RESPONSE + 0x100 + 128 * n, 0, 0);
		driver_kick(&s->d, queue(s, REQUEST));
		control(s, request, sizeof(request), 1);
		while (!used_index(s, CONTROL))
			usleep(100);
		assert_int_equal(used_index(s, REQUEST), 61);
		unplug(s);
	}
}

/* ---- errors that the machine waits for ---- */

/* READ (10) of what is not in the file any more, held. The device's threads are paused. */
static struct controller *plug_and_hold(enum clock_kind clock)
{
	struct controller *s = plug_disk(clock, ",on-error=stop");

	COMMAND(s, CDB(0), 0, 0);
	assert_int_equal(pwrite(s->fd, "something", 9, 1024), 9);
	assert_int_equal(ftruncate(s->fd, 0), 0);
	mem_fill(s->d.mem, gpa(RESPONSE), 0x99, sizeof(s->response));
	header(s, HEADER, disk, 7, CDB(0x28, 0, 0, 0, 0, 2, 0, 0, 1));
	add(s, 5, HEADER, RESPONSE, 0, 512);
	driver_kick(&s->d, queue(s, REQUEST));
	bus_pause(s->d.b->bus);
	assert_non_null(s->d.b->hold);
	assert_string_equal(s->d.b->hold->why.device, "scsi-disk");
	assert_int_equal(s->d.b->hold->why.error, -EIO);
	assert_false(s->d.b->hold->why.writes);
	assert_int_equal(driver_used(&s->d, queue(s, REQUEST), NULL), -1);
	return s;
}

static void heal(struct controller *s)
{
	assert_int_equal(pwrite(s->fd, "something", 9, 1024), 9);
	assert_int_equal(ftruncate(s->fd, DISK_SIZE), 0);
}

static unsigned answer(struct controller *s)
{
	bus_pause(s->d.b->bus);
	assert_null(s->d.b->hold);
	bus_resume(s->d.b->bus);
	assert_int_equal(used(s, REQUEST), 5);
	assert_int_equal(mem_read(s->d.mem, gpa(RESPONSE), s->response, sizeof(s->response)), 0);
	return (unsigned)s->response[11] << 8 | s->response[10];
}

static void check_answered(struct controller *s)
{
	char text[10] = "";

	assert_int_equal(answer(s), 0);
	assert_int_equal(mem_read(s->d.mem, gpa(DATA), text, 9), 0);
	assert_string_equal(text, "something");
}

static void waits_for_the_host(void **state)
{
	struct controller *s = plug_and_hold(*(enum clock_kind *)*state);
	struct bus_hold *hold = s->d.b->hold;

	bus_resume(s->d.b->bus);
	hold->retry(hold);
	bus_pause(s->d.b->bus);
	assert_ptr_equal(s->d.b->hold, hold);
	assert_int_equal(driver_used(&s->d, queue(s, REQUEST), NULL), -1);
	bus_resume(s->d.b->bus);
	heal(s);
	hold->retry(hold);
	check_answered(s);
	hold->retry(hold);
	assert_int_equal(used(s, REQUEST), -1);
	unplug(s);
}

/* Each step of a long command may fail: it is done again from its beginning. */
static void waits_in_the_middle(void **state)
{
	struct controller *s = plug_disk(*(enum clock_kind *)*state, ",on-error=stop");
	struct bus_hold *hold;

	COMMAND(s, CDB(0), 0, 0);
	fill_data(s, 0, 0);
	assert_int_equal(ftruncate(s->fd, 0x60000), 0);
	header(s, HEADER, disk, 7, CDB(0x2f, 2, 0, 0, 0, 0, 0, 4, 0));
	add(s, 5, HEADER, RESPONSE, 0x80000, 0);
	driver_kick(&s->d, queue(s, REQUEST));
	bus_pause(s->d.b->bus);
	hold = s->d.b->hold;
	assert_non_null(hold);
	bus_resume(s->d.b->bus);
	heal(s);
	hold->retry(hold);
	assert_int_equal(answer(s), CHECK_CONDITION); /* "something" is no zeros */
	assert_int_equal(s->response[12 + 12], 0x1d);
	unplug(s);
}

static void waits_over_a_load(void **state)
{
	struct controller *s = plug_and_hold(*(enum clock_kind *)*state);
	struct writer saved = board_save(s->d.b);

	heal(s);
	bus_resume(s->d.b->bus);
	check_answered(s);
	assert_int_equal(ftruncate(s->fd, 0), 0);
	bus_pause(s->d.b->bus);
	assert_int_equal(board_load(s->d.b, &saved, clock_now(s->d.b->clock), NULL), 0);
	assert_non_null(s->d.b->hold);
	mem_fill(s->d.mem, gpa(DATA), 0, 512);
	mem_fill(s->d.mem, gpa(queue(s, REQUEST)->used + 2), 0, 2);
	driver_store16(&s->d, queue(s, REQUEST)->used + 2, 1);
	queue(s, REQUEST)->seen = 1;
	heal(s);
	bus_resume(s->d.b->bus);
	check_answered(s);
	writer_free(&saved);
	unplug(s);
}

static void reset_while_it_waits(void **state)
{
	struct controller *s = plug_and_hold(*(enum clock_kind *)*state);

	bus_resume(s->d.b->bus);
	driver_wr(&s->d, 0x14, 1, 0);
	assert_int_equal(driver_status(&s->d), 0);
	assert_null(s->d.b->hold);
	heal(s);
	start(s, 0);
	COMMAND(s, CDB(0), 0, 0);
	assert_int_equal(COMMAND(s, CDB(0x28, 0, 0, 0, 0, 2, 0, 0, 1), 0, 512), 0);
	unplug(s);
}

/* Who wants it to end gets it back, and others do not. */
static void an_abort_while_it_waits(void **state)
{
	static const struct {
		uint32_t function;
		uint64_t tag;
		bool ends;
	} cases[] = { { 0, 7, true }, { 0, 8, false }, { 1, 0, true }, { 5, 0, true } };

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		struct controller *s = plug_and_hold(*(enum clock_kind *)*state);
		uint64_t table = queue(s, REQUEST)->descriptors;

		/* What is sent now goes where its header was */
		header(s, HEADER + 0x100, disk, 7, CDB(0x28, 0, 0, 0, 0, 2, 0, 0, 1));
		driver_descriptor(&s->d, table, 5, HEADER + 0x100, 51, D_NEXT, 6);
		driver_descriptor(&s->d, table, 6, RESPONSE + 0x100, 108, D_NEXT | D_WRITE, 7);
		assert_int_equal(manage(s, cases[n].function, disk, cases[n].tag), 0);
		bus_pause(s->d.b->bus);
		assert_true(!s->d.b->hold == cases[n].ends);
		bus_resume(s->d.b->bus);
		assert_int_equal(used(s, REQUEST), cases[n].ends ? 5 : -1);
		mem_read(s->d.mem, gpa(RESPONSE + 0x100), s->response, 12);
		assert_true(!cases[n].ends || s->response[11] == 2);
		unplug(s);
	}
}

/* The target goes: there is nobody to wait for. */
static void a_target_that_goes_while_it_waits(void **state)
{
	struct controller *s = plug_and_hold(*(enum clock_kind *)*state);

	device_unplug(device_plug_find(s->d.b->bus, "scsi-disk", 0));
	bus_resume(s->d.b->bus);
	assert_int_equal(answer(s), BAD_TARGET);
	unplug(s);
}

static void what_waits_for_nothing(void **state)
{
	static const char *const options[] = { "", ",on-error=report", ",on-error=enospc" };
	struct error err = { 0 };
	struct driver d;

	for (unsigned n = 0; n < ARRAY_SIZE(options); n++) {
		struct controller *s = plug_disk(*(enum clock_kind *)*state, options[n]);

		COMMAND(s, CDB(0), 0, 0);
		assert_int_equal(ftruncate(s->fd, 0), 0);
		assert_int_equal(COMMAND(s, CDB(0x28, 0, 0, 0, 0, 2, 0, 0, 1), 0, 512), CHECK_CONDITION);
		assert_null(s->d.b->hold);
		unplug(s);
	}
	d = driver_board_with(*(enum clock_kind *)*state);
	assert_non_null(device_plug(d.b->bus, NULL, &(struct device_request){ .spec = "virtio-scsi,packed=on" }, &err));
	assert_null(device_plug(
		d.b->bus, NULL,
		&(struct device_request){ .spec = "scsi-disk,file=/proc/self/exe,readonly,on-error=stop" }, &err));
	assert_non_null(strstr(err.text, "expected report on a controller with packed=on"));
	devices_unplug(d.b->bus);
	driver_end(&d);
}

/* ---- events ---- */

static void targets_come_and_go(void **state)
{
	struct controller *s = plug(*(enum clock_kind *)*state, HOTPLUG);
	struct bus *bus = s->d.b->bus;
	struct device_plug *third;
	uint8_t event[16];
	char spec[100];

	driver_descriptor(&s->d, queue(s, EVENT)->descriptors, 0, DATA, 16, D_WRITE, 0);
	driver_add(&s->d, queue(s, EVENT), 0);
	driver_kick(&s->d, queue(s, EVENT));
	assert_int_equal(used(s, EVENT), -1);
	bus_pause(bus);
	snprintf(spec, sizeof(spec), "scsi-cd,file=/proc/self/fd/%d", s->fd);
	third = device_plug(bus, NULL, &(struct device_request){ .spec = spec }, NULL);
	assert_non_null(third);
	bus_resume(bus);
	clock_run(s->d.b->clock);
	assert_int_equal(used(s, EVENT), 0);
	assert_int_equal(s->used, 16);
	mem_read(s->d.mem, gpa(DATA), event, 16);
	assert_memory_equal(event, "\1\0\0\0\1\2\x40\0\0\0\0\0\1\0\0\0", 16);
	/* Without room it is told when there is some */
	bus_pause(bus);
	device_unplug(third);
	bus_resume(bus);
	clock_run(s->d.b->clock);
	assert_int_equal(used(s, EVENT), -1);
	driver_add(&s->d, queue(s, EVENT), 0);
	driver_kick(&s->d, queue(s, EVENT));
	assert_int_equal(used(s, EVENT), 0);
	mem_read(s->d.mem, gpa(DATA), event, 16);
	assert_memory_equal(event, "\1\0\0\0\1\2\x40\0\0\0\0\0\2\0\0\0", 16);
	unplug(s);
}

/* A saved machine goes on in another one: no reset is told of, an event that waited for room still does. */
static void goes_on_in_another(void **state)
{
	struct controller *s = plug(*(enum clock_kind *)*state, HOTPLUG), *other;
	struct bus *bus = s->d.b->bus;
	struct device_plug *third;
	uint8_t *memory = malloc(DRIVER_RAM), event[16];
	struct writer saved;
	struct error err = { 0 };
	char spec[100];

	assert_int_equal(COMMAND(s, CDB(0), 0, 0), CHECK_CONDITION);
	driver_wr(&s->d, DRIVER_CONFIG + 20, 4, 64);
	bus_pause(bus);
	snprintf(spec, sizeof(spec), "scsi-cd,file=/proc/self/fd/%d", s->fd);
	third = device_plug(bus, NULL, &(struct device_request){ .spec = spec }, NULL);
	device_unplug(third);
	saved = board_save(s->d.b);
	other = plug(*(enum clock_kind *)*state, HOTPLUG);
	bus_pause(other->d.b->bus);
	assert_int_equal(mem_read(s->d.mem, gpa(MIB), memory, DRIVER_RAM - MIB), 0);
	assert_int_equal(mem_write(other->d.mem, gpa(MIB), memory, DRIVER_RAM - MIB), 0);
	if (board_load(other->d.b, &saved, clock_now(s->d.b->clock), &err))
		fail_msg("%s", err.text);
	memcpy(other->d.queues, s->d.queues, sizeof(s->d.queues));
	bus_resume(other->d.b->bus);
	bus_resume(bus);
	assert_int_equal(COMMAND(other, CDB(0), 0, 0), 0);
	assert_int_equal(driver_rd(&other->d, DRIVER_CONFIG + 20, 4), 64);
	driver_descriptor(&other->d, queue(other, EVENT)->descriptors, 0, DATA, 16, D_WRITE, 0);
	driver_add(&other->d, queue(other, EVENT), 0);
	driver_kick(&other->d, queue(other, EVENT));
	clock_run(other->d.b->clock);
	assert_int_equal(used(other, EVENT), 0);
	mem_read(other->d.mem, gpa(DATA), event, 16);
	assert_memory_equal(event, "\1\0\0\0\1\2\x40\0\0\0\0\0\2\0\0\0", 16);
	writer_free(&saved);
	free(memory);
	unplug(s);
	unplug(other);
}

/* ---- what is no request ---- */

static void no_requests(void **state)
{
	static const struct {
		unsigned queue;
		uint32_t out, in;
	} wrong[] = { { REQUEST, 50, 108 }, { REQUEST, 51, 107 }, { REQUEST, 51, 0 }, { CONTROL, 23, 1 },
		      { CONTROL, 24, 0 },   { CONTROL, 3, 1 },	  { CONTROL, 100, 0 } };

	for (unsigned n = 0; n < ARRAY_SIZE(wrong); n++) {
		struct controller *s = plug(*(enum clock_kind *)*state, 0);
		uint64_t table = queue(s, wrong[n].queue)->descriptors;

		driver_descriptor(&s->d, table, 0, HEADER, wrong[n].out, D_NEXT, 1);
		driver_descriptor(&s->d, table, 1, RESPONSE, wrong[n].in, D_WRITE, 0);
		driver_add(&s->d, queue(s, wrong[n].queue), 0);
		driver_kick(&s->d, queue(s, wrong[n].queue));
		assert_int_equal(driver_status(&s->d), 0x4f);
		assert_int_equal(driver_used(&s->d, queue(s, wrong[n].queue), NULL), -1);
		unplug(s);
	}
}

static void the_configuration(void **state)
{
	static const struct {
		unsigned offset, size;
		uint32_t value;
	} fields[] = { { 0, 4, 4 },   { 4, 4, 254 }, { 12, 4, 128 }, { 16, 4, 16 },   { 20, 4, 96 },
		       { 24, 4, 32 }, { 28, 2, 0 },  { 30, 2, 63 },  { 32, 4, 16383 } };
	struct controller *s = plug(*(enum clock_kind *)*state, 0);
	uint64_t table = queue(s, REQUEST)->descriptors;

	for (unsigned n = 0; n < ARRAY_SIZE(fields); n++)
		assert_int_equal(driver_rd(&s->d, DRIVER_CONFIG + fields[n].offset, fields[n].size), fields[n].value);
	assert_int_equal(driver_rd(&s->d, 0x12, 2), 6); /* queues */
	/* A driver may have them smaller, or larger than there is any use for */
	driver_wr(&s->d, DRIVER_CONFIG + 20, 4, 14);
	driver_wr(&s->d, DRIVER_CONFIG + 24, 4, 6);
	header(s, HEADER, disk, 1, CDB(0));
	mem_fill(s->d.mem, gpa(RESPONSE), 0x99, 108);
	driver_descriptor(&s->d, table, 0, HEADER, 25, D_NEXT, 1);
	driver_descriptor(&s->d, table, 1, RESPONSE, 26, D_WRITE, 0);
	driver_add(&s->d, queue(s, REQUEST), 0);
	driver_kick(&s->d, queue(s, REQUEST));
	assert_int_equal(used(s, REQUEST), 0);
	mem_read(s->d.mem, gpa(RESPONSE), s->response, 27);
	assert_int_equal(SENSE_LENGTH(s), 14);
	assert_int_equal(s->response[26], 0x99);
	driver_wr(&s->d, DRIVER_CONFIG + 24, 4, UINT32_MAX);
	driver_add(&s->d, queue(s, REQUEST), 0);
	driver_kick(&s->d, queue(s, REQUEST));
	assert_int_equal(driver_status(&s->d), 0x4f);
	driver_wr(&s->d, 0x14, 1, 0);
	assert_int_equal(driver_rd(&s->d, DRIVER_CONFIG + 20, 4), 96);
	assert_int_equal(driver_rd(&s->d, DRIVER_CONFIG + 24, 4), 32);
	unplug(s);
}

/* When it is over nothing is under way, and the ring is not touched any more. */
static void reset_in_the_middle(void **state)
{
	for (unsigned round = 0; round < 20; round++) {
		struct controller *s = plug_disk(*(enum clock_kind *)*state, "");
		uint8_t request[24] = { [4] = 1, [8] = 1 };
		uint16_t seen;

		COMMAND(s, CDB(0), 0, 0);
		header(s, HEADER + 0x100, disk, 7, CDB(0x35));
		for (unsigned n = 0; n < 60; n++)
			add(s, 4 * n, HEADER + 0x100, RESPONSE + 0x100 + 128 * n, 0, 0);
		driver_kick(&s->d, queue(s, REQUEST));
		control(s, request, sizeof(request), 1);
		driver_wr(&s->d, 0x14, 1, 0);
		assert_int_equal(driver_status(&s->d), 0);
		seen = driver_load16(&s->d, queue(s, REQUEST)->used + 2);
		bus_pause(s->d.b->bus);
		assert_int_equal(driver_load16(&s->d, queue(s, REQUEST)->used + 2), seen);
		bus_resume(s->d.b->bus);
		start(s, 0);
		assert_int_equal(COMMAND(s, CDB(0), 0, 0), CHECK_CONDITION);
		assert_int_equal(COMMAND(s, CDB(0), 0, 0), 0);
		unplug(s);
	}
}

/* The controller goes first: its targets stay, for nobody. */
static void a_controller_that_goes(void **state)
{
	struct driver d = driver_board_with(*(enum clock_kind *)*state);
	struct device_plug *controller, *target;
	int fd = memfd_create("disk", 0);
	char spec[100];

	assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
	snprintf(spec, sizeof(spec), "scsi-cd,file=/proc/self/fd/%d", fd);
	controller = device_plug(d.b->bus, NULL, &(struct device_request){ .spec = "virtio-scsi,queues=2" }, NULL);
	target = device_plug(d.b->bus, NULL, &(struct device_request){ .spec = spec }, NULL);
	assert_true(controller && target);
	assert_null(device_plug(d.b->bus, NULL, &(struct device_request){ .spec = "virtio-scsi" }, NULL));
	device_unplug(controller);
	device_unplug(target);
	driver_end(&d);
	close(fd);
}

int main(void)
{
	static enum clock_kind in_line = CLOCK_VIRTUAL, by_workers = CLOCK_HOST; /* host_thread_create() */
	const struct CMUnitTest tests[] = {
#define BOTH(name)                                                                                                     \
	{ #name " in line", name, NULL, NULL, &in_line }, { #name " by workers", name, NULL, NULL, &by_workers }
		BOTH(commands),
		BOTH(addresses),
		BOTH(task_management),
		BOTH(an_abort_waits),
		BOTH(waits_for_the_host),
		BOTH(waits_in_the_middle),
		BOTH(waits_over_a_load),
		BOTH(reset_while_it_waits),
		BOTH(an_abort_while_it_waits),
		BOTH(a_target_that_goes_while_it_waits),
		BOTH(what_waits_for_nothing),
		BOTH(targets_come_and_go),
		BOTH(no_requests),
		BOTH(goes_on_in_another),
		BOTH(the_configuration),
		BOTH(reset_in_the_middle),
		BOTH(a_controller_that_goes),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
