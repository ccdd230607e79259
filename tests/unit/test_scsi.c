/*
 * SCSI targets by the book: what each command says, what it does to the disk, and how it fails: sense data to the byte (SPC-4, SBC-3, MMC-6). No transport is between.
 */
#define _GNU_SOURCE
#include "devices/scsi/scsi.h"
#include "lib/virtio_driver.h"

#include <sys/mman.h>
#include <unistd.h>

#define DISK_SIZE (4u << 20)
#define BLOCKS	  (DISK_SIZE / 512)

struct setup {
	struct driver d;
	struct scsi_bus *bus;
	struct scsi_target *target;
	int fd;
	uint8_t data[DISK_SIZE]; /* of the last command */
	struct scsi_command c;
};

/* The file behind it has so many bytes; of the first DISK_SIZE block n begins with n. */
static struct setup *plug_sized(const char *type, const char *options, uint64_t size)
{
	struct setup *s = calloc(1, sizeof(*s));
	struct error err = { 0 };
	char spec[160];

	s->d = driver_board();
	s->fd = memfd_create("disk", 0);
	assert_int_equal(ftruncate(s->fd, (off_t)size), 0);
	for (uint32_t n = 0; n < BLOCKS; n++)
		assert_int_equal(pwrite(s->fd, &n, 4, n * 512), 4);
	snprintf(spec, sizeof(spec), "%s,file=/proc/self/fd/%d,format=raw%s", type, s->fd, options);
	if (!device_plug(s->d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
	s->bus = virtio_scsi_bus(s->d.b->bus, NULL);
	s->target = s->bus->targets[0];
	bus_reset(s->d.b->bus);
	bus_resume(s->d.b->bus);
	return s;
}

static struct setup *plug(const char *type, const char *options) { return plug_sized(type, options, DISK_SIZE); }

static void unplug(struct setup *s)
{
	bus_pause(s->d.b->bus);
	devices_unplug(s->d.b->bus);
	driver_end(&s->d);
	close(s->fd);
	free(s);
}

static void run(struct setup *s)
{
	bool more = scsi_begin(&s->c);

	while (more) {
		block_do(scsi_block(s->target), &s->c.block);
		more = scsi_go_on(&s->c);
	}
}

/* A CDB, with room for so many bytes one way or the other in two pieces; data are in s->data. Returns the status. */
static unsigned command_of(struct setup *s, const uint8_t *cdb, size_t cdb_size, size_t out, size_t in)
{
	size_t size = out + in;
	struct iovec iov[2] = { { s->data, size / 3 }, { s->data + size / 3, size - size / 3 } };
	struct scsi_data data = { iov, 2, size };

	s->c = (struct scsi_command){ .target = s->target };
	memcpy(s->c.cdb, cdb, cdb_size);
	if (out)
		s->c.out = data;
	if (in)
		s->c.in = data;
	run(s);
	return s->c.status;
}
#define CDB(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

static void good_of(struct setup *s, size_t moved, int line)
{
	if (s->c.status || s->c.overrun || s->c.moved != moved)
		fail_msg("line %d: status %u, sense %02x %02x %02x, overrun %d, %zu bytes", line, s->c.status,
			 s->c.sense[2], s->c.sense[12], s->c.sense[13], s->c.overrun, s->c.moved);
}
/* GOOD, and so many bytes were moved. */
#define GOOD(s, cdb, out, in, moved)                                                                                   \
	do {                                                                                                           \
		command_of(s, cdb, out, in);                                                                           \
		good_of(s, moved, __LINE__);                                                                           \
	} while (0)

static void bad_of(struct setup *s, uint32_t code, int field, int line)
{
	uint8_t expected[18] = { 0x70, 0, (uint8_t)(code >> 16), [7] = 10, [12] = (uint8_t)(code >> 8), (uint8_t)code };

	if (field >= 0) {
		expected[15] = (uint8_t)(field >> 16);
		store_be16(expected + 16, (uint16_t)field);
	}
	if (s->c.status != SCSI_CHECK_CONDITION || s->c.moved || s->c.sense_size != 18 ||
	    memcmp(s->c.sense, expected, 18) != 0)
		fail_msg("line %d: status %u, sense %02x %02x %02x, field %02x %02x %02x", line, s->c.status,
			 s->c.sense[2], s->c.sense[12], s->c.sense[13], s->c.sense[15], s->c.sense[16], s->c.sense[17]);
}
/* CHECK CONDITION with 0xKKAAQQ, and no sense key specific bytes; or with those for a byte of the CDB, or of the parameter list. */
#define BAD_FIELD(s, cdb, out, in, code, field)                                                                        \
	do {                                                                                                           \
		command_of(s, cdb, out, in);                                                                           \
		bad_of(s, code, field, __LINE__);                                                                      \
	} while (0)
#define BAD(s, cdb, out, in, code) BAD_FIELD(s, PASS(cdb), out, in, code, -1)
#define PASS(...)		   __VA_ARGS__
#define IN_CDB(byte, bit)	   (0xc80000 | (bit) << 16 | (byte))
#define IN_CDB_BYTE(byte)	   (0xc00000 | (byte))
#define IN_LIST(byte, bit)	   (0x880000 | (bit) << 16 | (byte))
#define IN_LIST_BYTE(byte)	   (0x800000 | (byte))

/* A target that has nothing to say of its reset any more. */
static struct setup *ready(const char *type, const char *options)
{
	struct setup *s = plug(type, options);

	BAD(s, CDB(0), 0, 0, 0x062900);
	GOOD(s, CDB(0), 0, 0, 0);
	return s;
}

static uint32_t first_of(struct setup *s, uint64_t block)
{
	uint32_t value;

	assert_int_equal(pread(s->fd, &value, 4, (off_t)block * 512), 4);
	return value;
}

/* ---- all targets ---- */

static void attention(void **state)
{
	struct setup *s = plug("scsi-disk", "");

	(void)state;
	/* These are served, and do not take it away */
	GOOD(s, CDB(0x12, 0, 0, 0, 36), 0, 36, 36);
	GOOD(s, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16), 0, 16, 16);
	/* this tells it as data */
	GOOD(s, CDB(0x03, 0, 0, 0, 18), 0, 18, 18);
	assert_int_equal(s->data[2], 6);
	assert_int_equal(s->data[12], 0x29);
	GOOD(s, CDB(0), 0, 0, 0);
	GOOD(s, CDB(0x03, 0, 0, 0, 18), 0, 18, 18);
	assert_int_equal(s->data[2], 0);
	scsi_target_reset(s->target);
	BAD(s, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 512, 0x062903);
	GOOD(s, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 512, 512);
	unplug(s);
}

static void what_is_no_command(void **state)
{
	static const uint8_t refused[] = { 0x01, 0x04, 0x16, 0x17, 0x5e, 0x5f, 0x7f, 0x83, 0x89, 0xff, 0x42 };
	struct setup *s = ready("scsi-disk", "");

	(void)state;
	for (unsigned n = 0; n < sizeof(refused); n++)
		BAD(s, CDB(refused[n]), 0, 0, 0x052000);
	BAD_FIELD(s, CDB(0x9e, 0x12), 0, 32, 0x052400, IN_CDB(1, 4));
	BAD_FIELD(s, CDB(0x9e, 0x30, [13] = 32), 0, 32, 0x052400, IN_CDB(1, 5));
	BAD_FIELD(s, CDB(0x28, 0x20, 0, 0, 0, 0, 0, 0, 1), 0, 512, 0x052400, IN_CDB(1, 5)); /* RDPROTECT */
	BAD_FIELD(s, CDB(0x00, 0, 0, 0, 0, 0x04), 0, 0, 0x052400, IN_CDB(5, 2));	    /* NACA */
	BAD_FIELD(s, CDB(0x12, 0, 0x80, 0, 36), 0, 36, 0x052400, IN_CDB_BYTE(2));
	unplug(s);
}

static void another_unit(void **state)
{
	struct setup *s = plug("scsi-disk", "");
	uint8_t room[64];
	struct iovec iov = { room, sizeof(room) };

	(void)state;
	s->c = (struct scsi_command){
		.target = s->target, .other_unit = true, .cdb = { 0x12, 0, 0, 0, 36 }, .in = { &iov, 1, 64 }
	};
	run(s);
	good_of(s, 36, __LINE__);
	assert_int_equal(room[0], 0x7f);
	s->c = (struct scsi_command){
		.target = s->target, .other_unit = true, .cdb = { 0x03, 0, 0, 0, 18 }, .in = { &iov, 1, 64 }
	};
	run(s);
	good_of(s, 18, __LINE__);
	assert_int_equal(room[12], 0x25);
	for (unsigned code = 0; code < 0x100; code++) {
		if (code == 0x03 || code == 0x12 || code == 0xa0)
			continue;
		s->c = (struct scsi_command){ .target = s->target, .other_unit = true, .cdb = { (uint8_t)code } };
		run(s);
		bad_of(s, 0x052500, -1, __LINE__);
	}
	unplug(s);
}

static void inquiry(void **state)
{
	struct setup *s = ready("scsi-disk", ",serial=S123,discard");

	(void)state;
	GOOD(s, CDB(0x12, 0, 0, 0, 255), 0, 255, 74);
	assert_memory_equal(s->data, "\0\0\6\x12\x45", 5);
	assert_memory_equal(s->data + 8, "DOPPEL  DISK            1   ", 28);
	GOOD(s, CDB(0x12, 0, 0, 0, 5), 0, 96, 5);
	GOOD(s, CDB(0x12, 0, 0, 0, 0), 0, 0, 0);
	GOOD(s, CDB(0x12, 1, 0, 0, 255), 0, 255, 10);
	assert_memory_equal(s->data, "\0\0\0\6\0\x80\x83\xb0\xb1\xb2", 10);
	GOOD(s, CDB(0x12, 1, 0x80, 0, 255), 0, 255, 8);
	assert_memory_equal(s->data, "\0\x80\0\4S123", 8);
	GOOD(s, CDB(0x12, 1, 0x83, 0, 255), 0, 255, 20);
	assert_memory_equal(s->data,
			    "\0\x83\0\x10\2\1\0\x0c"
			    "DOPPEL  S123",
			    20);
	GOOD(s, CDB(0x12, 1, 0xb0, 0, 255), 0, 255, 64);
	assert_int_equal(s->data[4], 1);
	assert_int_equal(load_be32(s->data + 20), 1u << 22);
	assert_int_equal(load_be32(s->data + 24), 256);
	assert_int_equal(load_be64(s->data + 36), 1u << 22);
	GOOD(s, CDB(0x12, 1, 0xb1, 0, 255), 0, 255, 64);
	assert_int_equal(load_be16(s->data + 4), 1);
	GOOD(s, CDB(0x12, 1, 0xb2, 0, 255), 0, 255, 8);
	assert_memory_equal(s->data, "\0\xb2\0\4\0\xe0\2\0", 8);
	BAD_FIELD(s, CDB(0x12, 1, 0xb3, 0, 255), 0, 255, 0x052400, IN_CDB_BYTE(2));
	/* More is asked for than there is room */
	command_of(s, CDB(0x12, 0, 0, 0, 97), 0, 96);
	assert_true(s->c.overrun);
	assert_int_equal(s->c.moved, 0);
	unplug(s);
	s = ready("scsi-disk", "");
	GOOD(s, CDB(0x12, 1, 0, 0, 255), 0, 255, 9);
	BAD_FIELD(s, CDB(0x12, 1, 0x80, 0, 255), 0, 255, 0x052400, IN_CDB_BYTE(2));
	GOOD(s, CDB(0x12, 1, 0x83, 0, 255), 0, 255, 24);
	assert_memory_equal(s->data + 8, "DOPPEL  target-0", 16);
	GOOD(s, CDB(0x12, 1, 0xb2, 0, 255), 0, 255, 8);
	assert_memory_equal(s->data + 4, "\0\0\0\0", 4);
	unplug(s);
}

static void units_and_commands_are_reported(void **state)
{
	struct setup *s = ready("scsi-disk", "");

	(void)state;
	GOOD(s, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0), 0, 256, 16);
	assert_memory_equal(s->data, "\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0", 16);
	GOOD(s, CDB(0xa0, 0, 1, 0, 0, 0, 0, 0, 1, 0), 0, 256, 8);
	assert_memory_equal(s->data, "\0\0\0\0\0\0\0\0", 8);
	BAD_FIELD(s, CDB(0xa0, 0, 3, 0, 0, 0, 0, 0, 1, 0), 0, 256, 0x052400, IN_CDB_BYTE(2));
	/* All of them; UNMAP is none */
	command_of(s, CDB(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0), 0, 4096);
	assert_int_equal(load_be32(s->data) + 4, s->c.moved);
	for (unsigned n = 4; n < s->c.moved; n += 8)
		assert_int_not_equal(s->data[n], 0x42);
	command_of(s, CDB(0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 0x10, 0), 0, 4096);
	assert_int_equal(load_be32(s->data) % 20, 0);
	/* READ (10), one with a service action, one that there is not */
	GOOD(s, CDB(0xa3, 0x0c, 1, 0x28, 0, 0, 0, 0, 1, 0), 0, 256, 14);
	assert_memory_equal(s->data, "\0\3\0\x0a\x28\x18\xff\xff\xff\xff\0\xff\xff\0", 14);
	GOOD(s, CDB(0xa3, 0x0c, 0x82, 0x9e, 0, 0x10, 0, 0, 1, 0), 0, 256, 32);
	assert_memory_equal(s->data, "\0\x83\0\x10\x9e\x10", 6);
	GOOD(s, CDB(0xa3, 0x0c, 3, 0x42, 0, 0, 0, 0, 1, 0), 0, 256, 4);
	assert_int_equal(s->data[1], 1);
	BAD_FIELD(s, CDB(0xa3, 0x0c, 1, 0x9e, 0, 0, 0, 0, 1, 0), 0, 256, 0x052400, IN_CDB(2, 2));
	BAD_FIELD(s, CDB(0xa3, 0x0c, 2, 0x28, 0, 0, 0, 0, 1, 0), 0, 256, 0x052400, IN_CDB(2, 2));
	BAD_FIELD(s, CDB(0xa3, 0x0c, 4, 0x28, 0, 0, 0, 0, 1, 0), 0, 256, 0x052400, IN_CDB(2, 2));
	unplug(s);
}

/* ---- mode parameters ---- */

static void mode_sense(void **state)
{
	struct setup *s = ready("scsi-disk", ",readonly");

	(void)state;
	GOOD(s, CDB(0x1a, 0, 0x08, 0, 255), 0, 255, 32);
	assert_memory_equal(s->data, "\x1f\0\x90\x08\0\0\x20\0\0\0\2\0\x08\x12\4\0", 16);
	GOOD(s, CDB(0x1a, 8, 0x0a, 0, 255), 0, 255, 16);
	assert_memory_equal(s->data, "\x0f\0\x90\0\x0a\x0a\0\x10\0\0\0\0\xff\xff\0\0", 16);
	GOOD(s, CDB(0x5a, 8, 0x3f, 0xff, 0, 0, 0, 1, 0), 0, 256, 8 + 12 + 20 + 12);
	assert_memory_equal(s->data, "\0\x32\0\x90\0\0\0\0\1\x0a", 10);
	GOOD(s, CDB(0x5a, 0, 0x48, 0, 0, 0, 0, 1, 0), 0, 256, 36); /* changeable */
	assert_memory_equal(s->data + 16, "\x08\x12\4\0", 4);
	GOOD(s, CDB(0x1a, 0, 0x3f, 0, 4), 0, 4, 4);
	BAD(s, CDB(0x1a, 0, 0xc8, 0, 255), 0, 255, 0x053900);
	BAD_FIELD(s, CDB(0x1a, 0, 0x1c, 0, 255), 0, 255, 0x052400, IN_CDB(2, 5));
	BAD_FIELD(s, CDB(0x1a, 0, 0x0a, 5, 255), 0, 255, 0x052400, IN_CDB_BYTE(3));
	unplug(s);
}

static void mode_select(void **state)
{
	static const uint8_t caching[24] = { [4] = 0x08, 0x12 }; /* WCE off */
	struct setup *s = ready("scsi-disk", "");

	(void)state;
	memcpy(s->data, caching, 24);
	GOOD(s, CDB(0x15, 0x10, 0, 0, 24), 24, 0, 24);
	GOOD(s, CDB(0x1a, 8, 0x08, 0, 255), 0, 255, 24);
	assert_int_equal(s->data[6], 0);
	GOOD(s, CDB(0x1a, 8, 0x88, 0, 255), 0, 255, 24); /* the default */
	assert_int_equal(s->data[6], 4);
	GOOD(s, CDB(0x2a, 0, 0, 0, 0, 1, 0, 0, 1), 512, 0, 512);
	assert_true(s->c.block.fua);
	/* As one does it: changed, and written back with the descriptor */
	GOOD(s, CDB(0x5a, 0, 0x08, 0, 0, 0, 0, 1, 0), 0, 256, 36);
	s->data[18] = 4;
	s->data[3] = 0;
	GOOD(s, CDB(0x55, 0x10, 0, 0, 0, 0, 0, 0, 36), 36, 0, 36);
	GOOD(s, CDB(0x2a, 0, 0, 0, 0, 1, 0, 0, 1), 512, 0, 512);
	assert_false(s->c.block.fua);
	GOOD(s, CDB(0x2a, 8, 0, 0, 0, 1, 0, 0, 1), 512, 0, 512);
	assert_true(s->c.block.fua);
	/* What cannot be changed, or is none */
	memcpy(s->data, caching, 24);
	s->data[6] = 0x05;
	BAD_FIELD(s, CDB(0x15, 0x10, 0, 0, 24), 24, 0, 0x052600, IN_LIST(6, 0));
	memcpy(s->data, caching, 24);
	s->data[5] = 0x11;
	BAD_FIELD(s, CDB(0x15, 0x10, 0, 0, 24), 24, 0, 0x052600, IN_LIST_BYTE(5));
	memcpy(s->data, caching, 24);
	s->data[4] = 0x1c;
	BAD_FIELD(s, CDB(0x15, 0x10, 0, 0, 24), 24, 0, 0x052600, IN_LIST_BYTE(4));
	memcpy(s->data, caching, 24);
	s->data[3] = 16;
	BAD_FIELD(s, CDB(0x15, 0x10, 0, 0, 24), 24, 0, 0x052600, IN_LIST_BYTE(3));
	memcpy(s->data, caching, 24);
	BAD(s, CDB(0x15, 0x10, 0, 0, 23), 23, 0, 0x051a00);
	BAD(s, CDB(0x15, 0x10, 0, 0, 3), 3, 0, 0x051a00);
	BAD(s, CDB(0x55, 0x10, 0, 0, 0, 0, 0, 2, 0), 512, 0, 0x051a00);
	BAD_FIELD(s, CDB(0x15, 0x00, 0, 0, 24), 24, 0, 0x052400, IN_CDB(1, 4));
	BAD_FIELD(s, CDB(0x15, 0x11, 0, 0, 24), 24, 0, 0x052400, IN_CDB(1, 0));
	command_of(s, CDB(0x15, 0x10, 0, 0, 24), 20, 0);
	assert_true(s->c.overrun);
	GOOD(s, CDB(0x15, 0x10, 0, 0, 0), 0, 0, 0);
	/* Nothing of it was taken */
	GOOD(s, CDB(0x1a, 8, 0x08, 0, 255), 0, 255, 24);
	assert_int_equal(s->data[6], 4);
	unplug(s);
}

static void sense_as_descriptors(void **state)
{
	static const uint8_t control[16] = { [4] = 0x0a, 0x0a, 4, 0x10, [12] = 0xff, 0xff };
	struct setup *s = ready("scsi-disk", "");

	(void)state;
	memcpy(s->data, control, 16);
	GOOD(s, CDB(0x15, 0x10, 0, 0, 16), 16, 0, 16);
	command_of(s, CDB(0xff), 0, 0);
	assert_int_equal(s->c.sense_size, 8);
	assert_memory_equal(s->c.sense, "\x72\5\x20\0\0\0\0\0", 8);
	command_of(s, CDB(0x00, 0, 0, 1), 0, 0);
	assert_int_equal(s->c.sense_size, 16);
	assert_memory_equal(s->c.sense, "\x72\5\x24\0\0\0\0\x08\2\6\0\0\xc8\0\3\0", 16);
	s->data[5] = 1;
	command_of(s, CDB(0x2f, 2, 0, 0, 0, 0, 0, 0, 1), 512, 0);
	assert_int_equal(s->c.sense_size, 20);
	assert_memory_equal(s->c.sense, "\x72\x0e\x1d\0\0\0\0\x0c\0\x0a\x80\0\0\0\0\0\0\0\0\4", 20);
	GOOD(s, CDB(0x03, 1, 0, 0, 255), 0, 255, 8);
	assert_int_equal(s->data[0], 0x72);
	GOOD(s, CDB(0x03, 0, 0, 0, 255), 0, 255, 18);
	assert_int_equal(s->data[0], 0x70);
	unplug(s);
}

/* ---- a disk ---- */

static void reads_and_writes(void **state)
{
	struct setup *s = ready("scsi-disk", "");

	(void)state;
	GOOD(s, CDB(0x08, 0, 0, 5, 2), 0, 1024, 1024);
	assert_int_equal(load_le32(s->data), 5);
	assert_int_equal(load_le32(s->data + 512), 6);
	GOOD(s, CDB(0x08, 0, 0, 5, 0), 0, 256 * 512, 256 * 512);
	GOOD(s, CDB(0x28, 0, 0, 0, 0x10, 0, 0, 0, 1), 0, 4096, 512); /* less than there is room for */
	assert_int_equal(load_le32(s->data), 0x1000);
	GOOD(s, CDB(0xa8, 0, 0, 0, 0x10, 1, 0, 0, 0, 1), 0, 512, 512);
	assert_int_equal(load_le32(s->data), 0x1001);
	GOOD(s, CDB(0x88, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0xff, 0, 0, 0, 1), 0, 512, 512);
	assert_int_equal(load_le32(s->data), BLOCKS - 1);
	GOOD(s, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 0), 0, 0, 0);
	memset(s->data, 0xab, 4096);
	GOOD(s, CDB(0x0a, 0, 0, 1, 1), 512, 0, 512);
	GOOD(s, CDB(0x2a, 0x18, 0, 0, 0, 3, 0, 0, 2), 1024, 0, 1024);
	GOOD(s, CDB(0xaa, 0, 0, 0, 0, 6, 0, 0, 0, 1), 512, 0, 512);
	GOOD(s, CDB(0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1), 4096, 0, 512);
	for (unsigned n = 0; n < 10; n++)
		assert_int_equal(first_of(s, n), 0x15a >> n & 1 ? 0xabababab : n);
	/* Where there is nothing */
	BAD(s, CDB(0x28, 0, 0, 0, 0x20, 0, 0, 0, 1), 0, 512, 0x052100);
	BAD(s, CDB(0x28, 0, 0, 0, 0x1f, 0xff, 0, 0, 2), 0, 1024, 0x052100);
	BAD(s, CDB(0x2a, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff), 512, 0, 0x052100);
	BAD(s, CDB(0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 0, 512, 0x052100);
	/* Without room */
	command_of(s, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 2), 0, 1023);
	assert_true(s->c.overrun);
	command_of(s, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 512, 0);
	assert_true(s->c.overrun);
	command_of(s, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 0, 512);
	assert_true(s->c.overrun);
	assert_int_equal(first_of(s, 0), 0);
	unplug(s);
}

static void capacity_and_cache(void **state)
{
	struct setup *s = ready("scsi-disk", ",discard");

	(void)state;
	GOOD(s, CDB(0x25), 0, 8, 8);
	assert_memory_equal(s->data, "\0\0\x1f\xff\0\0\2\0", 8);
	GOOD(s, CDB(0x9e, 0x10, [13] = 32), 0, 32, 32);
	assert_memory_equal(s->data, "\0\0\0\0\0\0\x1f\xff\0\0\2\0\0\3\x80\0", 16);
	GOOD(s, CDB(0x9e, 0x10, [13] = 12), 0, 32, 12);
	GOOD(s, CDB(0x35), 0, 0, 0);
	GOOD(s, CDB(0x35, 2, 0, 0, 0, 1, 0, 0, 9), 0, 0, 0);
	GOOD(s, CDB(0x91), 0, 0, 0);
	BAD(s, CDB(0x35, 0, 0xff), 0, 0, 0x052100);
	GOOD(s, CDB(0x1e, 0, 0, 0, 1), 0, 0, 0);
	/* Stopped, and started */
	GOOD(s, CDB(0x1b, 0, 0, 0, 0), 0, 0, 0);
	BAD(s, CDB(0), 0, 0, 0x020402);
	BAD(s, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 512, 0x020402);
	GOOD(s, CDB(0x03, 0, 0, 0, 18), 0, 18, 18);
	assert_int_equal(s->data[12], 4);
	GOOD(s, CDB(0x1b, 0, 0, 0, 1), 0, 0, 0);
	GOOD(s, CDB(0), 0, 0, 0);
	BAD_FIELD(s, CDB(0x1b, 0, 0, 0, 0x31), 0, 0, 0x052400, IN_CDB(4, 7));
	unplug(s);
}

static void verify(void **state)
{
	struct setup *s = ready("scsi-disk", "");

	(void)state;
	GOOD(s, CDB(0x2f, 0, 0, 0, 0, 0, 0, 0x10, 0), 0, 0, 0);
	BAD(s, CDB(0x2f, 0, 0, 0, 0x1f, 0xff, 0, 0, 2), 0, 0, 0x052100);
	assert_int_equal(pread(s->fd, s->data, 1u << 20, 512), 1 << 20); /* more than one chunk */
	GOOD(s, CDB(0x8f, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 8, 0), 1u << 20, 0, 1u << 20);
	s->data[(1u << 20) - 3] ^= 1;
	command_of(s, CDB(0xaf, 2, 0, 0, 0, 1, 0, 0, 8, 0), 1u << 20, 0);
	assert_memory_equal(s->c.sense, "\xf0\0\x0e\0\x0f\xff\xfd\x0a\0\0\0\0\x1d", 13);
	BAD_FIELD(s, CDB(0x2f, 6, 0, 0, 0, 1, 0, 0, 1), 512, 0, 0x052400, IN_CDB(1, 2));
	command_of(s, CDB(0x2f, 2, 0, 0, 0, 1, 0, 0, 2), 512, 0);
	assert_true(s->c.overrun);
	unplug(s);
}

static void write_same(void **state)
{
	struct setup *s = ready("scsi-disk", ",discard");

	(void)state;
	memset(s->data, 0x5a, 512);
	GOOD(s, CDB(0x41, 0, 0, 0, 0, 4, 0, 0x03, 0), 512, 0, 512); /* more than one chunk */
	assert_int_equal(first_of(s, 3), 3);
	for (unsigned n = 4; n < 4 + 768; n++)
		assert_int_equal(first_of(s, n), 0x5a5a5a5a);
	assert_int_equal(first_of(s, 772), 772);
	memset(s->data, 0, 512);
	GOOD(s, CDB(0x41, 8, 0, 0, 0, 4, 0, 0, 2), 512, 0, 512);
	GOOD(s, CDB(0x93, 9, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1), 0, 0, 0);
	for (unsigned n = 4; n < 8; n++)
		assert_int_equal(first_of(s, n), n == 6 ? 0x5a5a5a5a : 0);
	BAD_FIELD(s, CDB(0x41, 0, 0, 0, 0, 4, 0, 0, 0), 512, 0, 0x052400, IN_CDB_BYTE(7));
	BAD_FIELD(s, CDB(0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 1), 512, 0, 0x052400, IN_CDB_BYTE(10));
	BAD(s, CDB(0x41, 0, 0, 0, 0x1f, 0xff, 0, 0, 2), 512, 0, 0x052100);
	command_of(s, CDB(0x41, 0, 0, 0, 0, 4, 0, 0, 1), 511, 0);
	assert_true(s->c.overrun);
	unplug(s);
	s = ready("scsi-disk", "");
	BAD_FIELD(s, CDB(0x41, 8, 0, 0, 0, 4, 0, 0, 1), 512, 0, 0x052400, IN_CDB(1, 3));
	unplug(s);
}

static void put_descriptor(struct setup *s, unsigned n, uint64_t first, uint32_t count)
{
	store_be64(s->data + 8 + 16 * n, first);
	store_be32(s->data + 16 + 16 * n, count);
}

static void unmap(void **state)
{
	struct setup *s = ready("scsi-disk", ",discard");

	(void)state;
	store_be16(s->data, 38);
	store_be16(s->data + 2, 32);
	put_descriptor(s, 0, 8, 8);
	put_descriptor(s, 1, 32, 16);
	GOOD(s, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40), 40, 0, 40);
	for (unsigned n = 0; n < 64; n++)
		assert_int_equal(first_of(s, n), (n >= 8 && n < 16) || (n >= 32 && n < 48) ? 0 : n);
	/* One that is cut off is none; nothing is done if one is wrong */
	put_descriptor(s, 0, 64, 8);
	put_descriptor(s, 1, 80, 8);
	GOOD(s, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 39), 40, 0, 24);
	assert_int_equal(first_of(s, 64), 0);
	assert_int_equal(first_of(s, 80), 80);
	put_descriptor(s, 0, 80, 8);
	put_descriptor(s, 1, BLOCKS - 1, 2);
	BAD(s, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40), 40, 0, 0x052100);
	put_descriptor(s, 1, 0, (1u << 22) + 1);
	BAD_FIELD(s, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40), 40, 0, 0x052600, IN_LIST_BYTE(32));
	store_be16(s->data + 2, 257 * 16);
	BAD_FIELD(s, CDB(0x42, 0, 0, 0, 0, 0, 0, 0x20, 0), 0x2000, 0, 0x052600, IN_LIST_BYTE(2));
	assert_int_equal(first_of(s, 80), 80);
	BAD(s, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 7), 40, 0, 0x051a00);
	GOOD(s, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 0), 0, 0, 0);
	GOOD(s, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 8), 8, 0, 8);
	unplug(s);
}

/* The host's errors are the medium's. */
static void what_the_host_says(void **state)
{
	struct setup *s = ready("scsi-disk", ",readonly");

	(void)state;
	BAD(s, CDB(0x2a, 0, 0, 0, 0, 1, 0, 0, 1), 512, 0, 0x072700);
	BAD(s, CDB(0x41, 0, 0, 0, 0, 1, 0, 0, 1), 512, 0, 0x072700);
	BAD(s, CDB(0x42), 0, 0, 0x052000);
	GOOD(s, CDB(0x35), 0, 0, 0);
	assert_int_equal(ftruncate(s->fd, 4096), 0);
	BAD(s, CDB(0x28, 0, 0, 0, 0, 64, 0, 0, 1), 0, 512, 0x031100);
	BAD(s, CDB(0x2f, 2, 0, 0, 0, 64, 0, 0, 1), 512, 0, 0x031100);
	unplug(s);
}

/* ---- a CD ---- */

static void a_disc(void **state)
{
	struct setup *s = ready("scsi-cd", "");

	(void)state;
	GOOD(s, CDB(0x12, 0, 0, 0, 36), 0, 36, 36);
	assert_memory_equal(s->data, "\5\x80", 2);
	GOOD(s, CDB(0x25), 0, 8, 8);
	assert_memory_equal(s->data, "\0\0\7\xff\0\0\x08\0", 8);
	GOOD(s, CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 2), 0, 4096, 4096);
	assert_int_equal(load_le32(s->data), 36);
	GOOD(s, CDB(0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 1), 0, 2048, 2048);
	GOOD(s, CDB(0xbe, 0, 0, 0, 0, 10, 0, 0, 1, 0x10), 0, 2048, 2048);
	assert_int_equal(load_le32(s->data), 40);
	GOOD(s, CDB(0xbe, 8, 0, 0, 0, 10, 0, 0, 1, 0), 0, 0, 0);
	BAD_FIELD(s, CDB(0xbe, 0, 0, 0, 0, 10, 0, 0, 1, 0xf8), 0, 2352, 0x052400, IN_CDB(9, 7));
	BAD_FIELD(s, CDB(0xbe, 4, 0, 0, 0, 10, 0, 0, 1, 0x10), 0, 2352, 0x052400, IN_CDB(1, 4));
	BAD(s, CDB(0x28, 0, 0, 0, 8, 0, 0, 0, 1), 0, 2048, 0x052100);
	BAD(s, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 2048, 0, 0x052000);
	GOOD(s, CDB(0x2b, 0, 0, 0, 7, 0xff), 0, 0, 0);
	BAD(s, CDB(0x2b, 0, 0, 0, 8, 0), 0, 0, 0x052100);
	GOOD(s, CDB(0x43, 0, 0, 0, 0, 0, 0, 0, 255), 0, 255, 20);
	assert_memory_equal(s->data, "\0\x12\1\1\0\x14\1\0\0\0\0\0\0\x14\xaa\0\0\0\x08\0", 20);
	GOOD(s, CDB(0x43, 2, 0, 0, 0, 0, 0xaa, 0, 255), 0, 255, 12);
	assert_memory_equal(s->data, "\0\x0a\1\1\0\x14\xaa\0\0\0\x1d\x17", 12); /* 2,048 + 150 blocks: 29 s, 23 */
	GOOD(s, CDB(0x43, 0, 1, 0, 0, 0, 0, 0, 255), 0, 255, 12);
	BAD_FIELD(s, CDB(0x43, 0, 0, 0, 0, 0, 2, 0, 255), 0, 255, 0x052400, IN_CDB_BYTE(6));
	BAD_FIELD(s, CDB(0x43, 0, 4, 0, 0, 0, 0, 0, 255), 0, 255, 0x052400, IN_CDB(2, 3));
	GOOD(s, CDB(0x46, 0, 0, 0, 0, 0, 0, 0, 255), 0, 255, 64);
	assert_memory_equal(s->data, "\0\0\0\x3c\0\0\0\x08\0\0\3\x08\0\x10\0\0\0\x08\1\0", 20);
	GOOD(s, CDB(0x46, 2, 0, 0x1f, 0, 0, 0, 0, 255), 0, 255, 12);
	GOOD(s, CDB(0x46, 1, 0, 0x10, 0, 0, 0, 0, 255), 0, 255, 8 + 12 + 8);
	GOOD(s, CDB(0x51, 0, 0, 0, 0, 0, 0, 0, 255), 0, 255, 34);
	GOOD(s, CDB(0x52, 1, 0, 0, 0, 1, 0, 0, 255), 0, 255, 36);
	assert_int_equal(load_be32(s->data + 24), 2048);
	BAD_FIELD(s, CDB(0x52, 1, 0, 0, 0, 2, 0, 0, 255), 0, 255, 0x052400, IN_CDB_BYTE(2));
	GOOD(s, CDB(0xbd, [9] = 8), 0, 8, 8);
	GOOD(s, CDB(0xbb, 0, 0xff, 0xff), 0, 0, 0);
	GOOD(s, CDB(0x5a, 0, 0x2a, 0, 0, 0, 0, 1, 0), 0, 256, 8 + 22);
	assert_memory_equal(s->data, "\0\x1c\0\0\0\0\0\0\x2a\x14\x3b", 11);
	unplug(s);
}

static void a_dvd(void **state)
{
	struct setup *s = plug_sized("scsi-cd", "", 800u << 20);

	(void)state;
	BAD(s, CDB(0), 0, 0, 0x062900);
	GOOD(s, CDB(0x25), 0, 8, 8);
	assert_memory_equal(s->data, "\0\6\x3f\xff\0\0\x08\0", 8);
	GOOD(s, CDB(0x46, 0, 0, 0, 0, 0, 0, 0, 255), 0, 255, 64);
	assert_memory_equal(s->data + 6, "\0\x10\0\0\3\x08\0\x10\1\0\0\x08\0\0", 14);
	GOOD(s, CDB(0x46, 1, 0, 0x1e, 0, 0, 0, 0, 255), 0, 255, 12);
	assert_memory_equal(s->data + 8, "\0\x1f\1\0", 4);
	GOOD(s, CDB(0xad, [8] = 0x10, 0), 0, 4096, 2052);
	assert_memory_equal(s->data, "\x08\2\0\0\1\x0f\1\0\0\3\0\0\0\x09\x3f\xff", 16);
	GOOD(s, CDB(0xad, [7] = 1, 0, 8), 0, 8, 8);
	BAD_FIELD(s, CDB(0xad, [7] = 2, 0, 8), 0, 8, 0x052400, IN_CDB_BYTE(7));
	unplug(s);
	s = ready("scsi-cd", "");
	BAD(s, CDB(0xad, [9] = 8), 0, 8, 0x053000);
	unplug(s);
}

static void the_tray(void **state)
{
	struct setup *s = ready("scsi-cd", "");

	(void)state;
	GOOD(s, CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0, 8, 8);
	assert_memory_equal(s->data, "\0\6\4\x10\0\2\0\0", 8);
	BAD_FIELD(s, CDB(0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8), 0, 8, 0x052400, IN_CDB(1, 0));
	GOOD(s, CDB(0x4a, 1, 0, 0, 0x02, 0, 0, 0, 8), 0, 8, 4);
	assert_int_equal(s->data[2], 0x80);
	GOOD(s, CDB(0x1e, 0, 0, 0, 1), 0, 0, 0);
	BAD(s, CDB(0x1b, 0, 0, 0, 2), 0, 0, 0x055302);
	GOOD(s, CDB(0), 0, 0, 0);
	GOOD(s, CDB(0x1e, 0, 0, 0, 0), 0, 0, 0);
	GOOD(s, CDB(0x1b, 0, 0, 0, 2), 0, 0, 0);
	BAD(s, CDB(0), 0, 0, 0x023a02);
	BAD(s, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 2048, 0x023a02);
	GOOD(s, CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0, 8, 8);
	assert_memory_equal(s->data, "\0\6\4\x10\3\1\0\0", 8);
	GOOD(s, CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0, 8, 8);
	assert_int_equal(s->data[4], 0);
	GOOD(s, CDB(0x46, 1, 0, 0, 0, 0, 0, 0, 255), 0, 255, 8 + 12 + 12 + 8);
	assert_int_equal(load_be16(s->data + 6), 0);
	GOOD(s, CDB(0x1b, 0, 0, 0, 3), 0, 0, 0);
	BAD(s, CDB(0), 0, 0, 0x062800);
	GOOD(s, CDB(0), 0, 0, 0);
	GOOD(s, CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0, 8, 8);
	assert_memory_equal(s->data + 4, "\2\2", 2);
	unplug(s);
}

/* ---- places, and what was saved ---- */

static void numbers(void **state)
{
	struct setup *s = plug("scsi-disk", ",target=5,readonly");
	int small = memfd_create("small", 0);
	struct error err = { 0 };
	char spec[100];

	(void)state;
	assert_null(s->bus->targets[0]);
	assert_non_null(s->bus->targets[5]);
	snprintf(spec, sizeof(spec), "scsi-cd,file=/proc/self/fd/%d,target=5", s->fd);
	assert_null(device_plug(s->d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err));
	assert_string_equal(err.text, "scsi-cd: there is a target 5 already");
	assert_int_equal(ftruncate(small, 512), 0);
	snprintf(spec, sizeof(spec), "scsi-cd,file=/proc/self/fd/%d", small);
	assert_null(device_plug(s->d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err));
	assert_non_null(strstr(err.text, "has 512 bytes; expected at least 2048"));
	close(small);
	snprintf(spec, sizeof(spec), "virtio-blk,bus=isa,file=/proc/self/fd/%d", s->fd);
	assert_null(device_plug(s->d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err));
	assert_string_equal(err.text, "virtio-blk: option 'bus' is 'isa'; expected virtio, scsi, ide, sata or nvme");
	snprintf(spec, sizeof(spec), "virtio-blk,bus=scsi,queues=2,file=/proc/self/fd/%d", s->fd);
	assert_null(device_plug(s->d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err));
	assert_non_null(strstr(err.text, "--device virtio-scsi,queues=2"));
	snprintf(spec, sizeof(spec), "virtio-blk,bus=scsi,readonly,file=/proc/self/fd/%d", s->fd);
	assert_non_null(device_plug(s->d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err));
	assert_non_null(s->bus->targets[0]);
	unplug(s);
}

static const struct state_desc *state_of(struct setup *s)
{
	return bus_find_device(s->d.b->bus, "scsi-cd", 0)->ops->state;
}

static void saved(void **state)
{
	struct setup *s = ready("scsi-cd", ""), *other = plug("scsi-cd", ",target=1");
	struct writer writer = { 0 };
	struct reader reader;
	struct error err = { 0 };

	(void)state;
	GOOD(s, CDB(0x1b, 0, 0, 0, 2), 0, 0, 0);
	assert_int_equal(state_save(state_of(s), 0, s->target, &writer), 0);
	GOOD(s, CDB(0x1b, 0, 0, 0, 3), 0, 0, 0);
	reader = (struct reader){ writer.data, writer.size, 0 };
	assert_int_equal(state_load(state_of(s), 0, s->target, &reader, &err), 0);
	BAD(s, CDB(0), 0, 0, 0x023a02);
	/* Another's, and damaged ones */
	reader.offset = 0;
	assert_int_not_equal(state_load(state_of(other), 0, other->bus->targets[1], &reader, &err), 0);
	assert_non_null(strstr(err.text, "was target 0; it is 1"));
	for (size_t size = 0; size < writer.size; size++) {
		reader = (struct reader){ writer.data, size, 0 };
		assert_int_not_equal(state_load(state_of(s), 0, s->target, &reader, &err), 0);
	}
	for (size_t n = 0; n < writer.size * 8; n++) {
		writer.data[n / 8] ^= (uint8_t)BIT(n % 8);
		reader = (struct reader){ writer.data, writer.size, 0 };
		state_load(state_of(s), 0, s->target, &reader, &err);
		command_of(s, CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0, 8);
		writer.data[n / 8] ^= (uint8_t)BIT(n % 8);
	}
	writer_free(&writer);
	unplug(s);
	unplug(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attention),
		cmocka_unit_test(what_is_no_command),
		cmocka_unit_test(another_unit),
		cmocka_unit_test(inquiry),
		cmocka_unit_test(units_and_commands_are_reported),
		cmocka_unit_test(mode_sense),
		cmocka_unit_test(mode_select),
		cmocka_unit_test(sense_as_descriptors),
		cmocka_unit_test(reads_and_writes),
		cmocka_unit_test(capacity_and_cache),
		cmocka_unit_test(verify),
		cmocka_unit_test(write_same),
		cmocka_unit_test(unmap),
		cmocka_unit_test(what_the_host_says),
		cmocka_unit_test(a_disc),
		cmocka_unit_test(a_dvd),
		cmocka_unit_test(the_tray),
		cmocka_unit_test(numbers),
		cmocka_unit_test(saved),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
