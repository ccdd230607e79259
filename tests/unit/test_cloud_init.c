/*
 * The disk for cloud-init: what is on it, to the sector; the same files make the same disk, others another instance; and that the guest cannot write to it.
 */
#define _GNU_SOURCE
#include "block/block.h"
#include "lib/virtio_driver.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define SECTOR 2048u

static const struct block_iso_file files[] = { { "meta-data", "", 0 },
					       { "user-data", "#cloud-config\n", 14 },
					       { "vendor-data", "x", 1 } };

/* The record of a directory that is the n-th. */
static const uint8_t *record(const uint8_t *directory, unsigned n)
{
	while (n--)
		directory += directory[0];
	return directory;
}

static void the_disc(void **state)
{
	size_t size, again;
	uint8_t *image = block_make_iso("cidata", files, 3, &size, NULL),
		*same = block_make_iso("cidata", files, 3, &again, NULL);
	const uint8_t *primary = image + 16 * SECTOR, *joliet = primary + SECTOR, *root;

	(void)state;
	assert_int_equal(size % SECTOR, 0);
	assert_int_equal(size, again);
	assert_memory_equal(image, same, size);
	assert_memory_equal(primary, "\1CD001\1", 7);
	assert_memory_equal(primary + 40, "cidata                          ", 32);
	assert_int_equal(load_le32(primary + 80), size / SECTOR);
	assert_int_equal(load_be32(primary + 84), size / SECTOR);
	assert_int_equal(load_be16(primary + 130), SECTOR);
	assert_memory_equal(joliet, "\2CD001\1", 7);
	assert_memory_equal(joliet + 40, "\0c\0i\0d\0a\0t\0a\0 ", 14);
	assert_memory_equal(joliet + 88, "%/E", 3);
	assert_memory_equal(joliet + SECTOR,
			    "\xff"
			    "CD001\1",
			    7);
	root = image + (size_t)load_le32(primary + 158) * SECTOR;
	assert_memory_equal(record(root, 0) + 34, "SP\7\1\xbe\xef", 6);
	assert_memory_equal(record(root, 3) + 32, "\x0cUSER_DATA.;1", 13);
	assert_memory_equal(record(root, 3) + 46 + 36, "NM\x0e\1\0user-data", 14);
	assert_int_equal(load_le32(record(root, 3) + 10), 14);
	assert_memory_equal(image + (size_t)load_be32(record(root, 3) + 6) * SECTOR, "#cloud-config\n\0", 15);
	assert_int_equal(record(root, 5)[0], 0);
	root = image + (size_t)load_le32(joliet + 158) * SECTOR;
	assert_memory_equal(record(root, 4) + 33, "\0v\0e\0n\0d\0o\0r\0-\0d\0a\0t\0a\0;\0001", 26);
	assert_memory_equal(image + (size_t)load_le32(record(root, 4) + 2) * SECTOR, "x\0", 2);
	free(image);
	free(same);
}

static void too_large(void **state)
{
	const struct block_iso_file file = { "user-data", NULL, (64u << 20) + 1 };
	struct error err = { 0 };
	size_t size;

	(void)state;
	assert_null(block_make_iso("cidata", &file, 1, &size, &err));
	assert_int_equal(err.code, EFBIG);
}

/* ---- as a device ---- */

#define DATA   0x210000u
#define STATUS 0x2f0000u

static unsigned request(struct driver *d, uint32_t type, uint64_t sector, void *data, size_t size)
{
	uint64_t table = d->queues[0].descriptors;
	uint8_t header[16] = { 0 }, status;

	store_le32(header, type);
	store_le64(header + 8, sector);
	assert_int_equal(mem_write(d->mem, gpa(DATA - 16), header, 16), 0);
	driver_descriptor(d, table, 0, DATA - 16, 16, D_NEXT, 1);
	driver_descriptor(d, table, 1, DATA, (uint32_t)size, D_NEXT | (type ? 0 : D_WRITE), 2);
	driver_descriptor(d, table, 2, STATUS, 1, D_WRITE, 0);
	driver_add(d, &d->queues[0], 0);
	driver_kick(d, &d->queues[0]);
	assert_int_equal(driver_used(d, &d->queues[0], NULL), 0);
	assert_int_equal(mem_read(d->mem, gpa(STATUS), &status, 1), 0);
	assert_int_equal(mem_read(d->mem, gpa(DATA), data, size), 0);
	return status;
}

/* What the first file, meta-data, says for this user-data: 64 characters. */
static void meta_data(const char *user_data, char text[65])
{
	struct driver d = driver_board();
	int fd = memfd_create("user-data", 0);
	uint8_t root[SECTOR];
	struct error err = { 0 };
	char spec[100];

	assert_int_equal(write(fd, user_data, strlen(user_data)), strlen(user_data));
	snprintf(spec, sizeof(spec), "cloud-init,user-data=/proc/self/fd/%d", fd);
	if (!device_plug(d.b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
	driver_reset_board(&d);
	assert_true(driver_offered(&d) & BIT(5));
	driver_features(&d, BIT(VIRTIO_F_VERSION_1));
	driver_queue(&d, 0, 256);
	driver_ok(&d);
	assert_int_equal(request(&d, 0, 23 * 4, root, SECTOR), 0);
	assert_int_equal(request(&d, 0, 4 * load_le32(record(root, 2) + 2), text, 64), 1); /* no sector */
	assert_int_equal(request(&d, 0, 4 * load_le32(record(root, 2) + 2), root, SECTOR), 0);
	memcpy(text, root, 64);
	text[64] = 0;
	assert_int_equal(request(&d, 1, 0, root, 512), 1);
	bus_pause(d.b->bus);
	devices_unplug(d.b->bus);
	driver_end(&d);
	close(fd);
}

static void instances(void **state)
{
	char one[65], same[65], other[65];

	(void)state;
	meta_data("#cloud-config\n", one);
	meta_data("#cloud-config\n", same);
	meta_data("#cloud-config\n#\n", other);
	assert_memory_equal(one, "instance-id: iid-", 17);
	assert_string_equal(one + 33, "\nlocal-hostname: doppel\n");
	assert_string_equal(one, same);
	assert_string_not_equal(one, other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_disc),
		cmocka_unit_test(too_large),
		cmocka_unit_test(instances),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
