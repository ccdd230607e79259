/*
 * The 82077AA and the DMA controllers by the book: resets, seeks, transfers by DMA and without, what is refused, formatting, the disk change line; saved in the middle of a sector.
 */
#define _GNU_SOURCE
#include "lib/board.h"

#include <sys/mman.h>
#include <unistd.h>

#define SIZE (1440u << 10)
#define DATA 0x12000u

struct setup {
	struct board *b;
	int fd;
};

static struct setup *create(void)
{
	struct setup *s = calloc(1, sizeof(*s));
	struct error err = { 0 };
	char spec[128];

	s->b = board_create(1);
	s->fd = memfd_create("floppy", 0);
	assert_int_equal(ftruncate(s->fd, SIZE), 0);
	for (uint32_t n = 0; n < SIZE / 512; n++)
		assert_int_equal(pwrite(s->fd, &n, 4, (off_t)n * 512), 4);
	board_add_memory(s->b, MEM_MIN);
	snprintf(spec, sizeof(spec), "floppy,file=/proc/self/fd/%d,format=raw", s->fd);
	if (!device_plug(s->b->bus, NULL, &(struct device_request){ .spec = spec }, &err))
		fail_msg("%s", err.text);
	assert_int_equal(dma_type.create(s->b->bus, NULL, NULL), 0);
	bus_reset(s->b->bus);
	bus_resume(s->b->bus);
	board_pic_init(s->b);
	outb(s->b, 0x3f2, 0x1c);
	outb(s->b, 0x3f7, 0);
	return s;
}

static void destroy(struct setup *s)
{
	bus_pause(s->b->bus);
	devices_unplug(s->b->bus);
	board_destroy(s->b);
	close(s->fd);
	free(s);
}

static int setup(void **state)
{
	*state = create();
	return 0;
}

static int teardown(void **state)
{
	destroy(*state);
	return 0;
}

static bool interrupt(struct setup *s)
{
	int vector = board_take(s->b);

	if (vector < 0)
		return false;
	assert_int_equal(vector, 0x26);
	outb(s->b, 0x20, 0x20);
	return true;
}

static void command(struct setup *s, const char *bytes, unsigned size)
{
	for (unsigned n = 0; n < size; n++) {
		assert_int_equal(inb(s->b, 0x3f4) & 0xc0, 0x80);
		outb(s->b, 0x3f5, (uint8_t)bytes[n]);
	}
}
#define COMMAND(s, bytes) command(s, bytes, sizeof(bytes) - 1)

static void check_result(struct setup *s, const char *bytes, unsigned size, int line)
{
	for (unsigned n = 0; n < size; n++) {
		uint8_t msr = inb(s->b, 0x3f4), byte = inb(s->b, 0x3f5);

		if (msr != 0xd0 || byte != (uint8_t)bytes[n])
			fail_msg("line %d: byte %u is %02x, MSR %02x", line, n, byte, msr);
	}
	assert_int_equal(inb(s->b, 0x3f4), 0x80);
}
#define RESULT(s, bytes) check_result(s, bytes, sizeof(bytes) - 1, __LINE__)

static void set_dma(struct setup *s, uint8_t mode, uint32_t address, unsigned size)
{
	outb(s->b, 0x0a, 6);
	outb(s->b, 0x0c, 0);
	outb(s->b, 0x0b, mode);
	outb(s->b, 0x04, (uint8_t)address);
	outb(s->b, 0x04, (uint8_t)(address >> 8));
	outb(s->b, 0x81, (uint8_t)(address >> 16));
	outb(s->b, 0x05, (uint8_t)(size - 1));
	outb(s->b, 0x05, (uint8_t)((size - 1) >> 8));
	outb(s->b, 0xd6, 0xc0);
	outb(s->b, 0xd4, 0);
	outb(s->b, 0x0a, 2);
}

static uint32_t number_at(struct setup *s, uint32_t address)
{
	uint32_t value = 0;

	mem_read(s->b->mem, gpa(address), &value, 4);
	return value;
}

static void resets_and_seeks(void **state)
{
	struct setup *s = *state;

	outb(s->b, 0x3f2, 0x18);
	assert_int_equal(inb(s->b, 0x3f4), 0);
	interrupt(s);
	outb(s->b, 0x3f2, 0x1c);
	assert_true(interrupt(s));
	for (unsigned n = 0; n < 4; n++) {
		COMMAND(s, "\x08");
		assert_int_equal(inb(s->b, 0x3f5), 0xc0 | n);
		inb(s->b, 0x3f5);
	}
	COMMAND(s, "\x08");
	RESULT(s, "\x80");
	assert_int_equal(inb(s->b, 0x3f7) & 0x80, 0x80);
	COMMAND(s, "\x0f\0\5");
	assert_true(interrupt(s));
	COMMAND(s, "\x08");
	RESULT(s, "\x20\5");
	assert_int_equal(inb(s->b, 0x3f7) & 0x80, 0);
	COMMAND(s, "\x07\0");
	assert_true(interrupt(s));
	COMMAND(s, "\x08");
	RESULT(s, "\x20\0");
	COMMAND(s, "\x04\0");
	RESULT(s, "\x38");
	COMMAND(s, "\x10");
	RESULT(s, "\x90");
	COMMAND(s, "\x94");
	RESULT(s, "\x10");
	COMMAND(s, "\x1f");
	RESULT(s, "\x80");
}

static void reads_and_writes(void **state)
{
	struct setup *s = *state;
	uint8_t sector[512];

	/* Both heads of track 0, from sector 17 on: 4 sectors. */
	set_dma(s, 0x46, DATA, 4 * 512);
	COMMAND(s, "\xe6\0\0\0\x11\2\x12\x1b\xff");
	assert_true(interrupt(s));
	RESULT(s, "\4\0\0\0\1\3\2");
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(number_at(s, DATA + 512 * n), 16 + n);
	/* The end of the track before the terminal count */
	set_dma(s, 0x46, DATA, 4 * 512);
	COMMAND(s, "\x46\0\0\0\x12\2\x12\x1b\xff");
	RESULT(s, "\x40\x80\0\1\0\1\2");
	/* Written */
	mem_fill(s->b->mem, gpa(DATA), 0x77, 512);
	set_dma(s, 0x4a, DATA, 512);
	COMMAND(s, "\x45\0\0\0\3\2\x12\x1b\xff");
	RESULT(s, "\0\0\0\0\0\4\2");
	assert_int_equal(pread(s->fd, sector, 512, 2 * 512), 512);
	assert_int_equal(sector[0] | sector[511] << 8, 0x7777);
	/* No such sector, another cylinder, another rate, a channel that is masked */
	COMMAND(s, "\x46\0\0\0\x13\2\x24\x1b\xff");
	RESULT(s, "\x40\4\0\0\0\x13\2");
	COMMAND(s, "\x46\0\7\0\1\2\x12\x1b\xff");
	RESULT(s, "\x40\4\x10\7\0\1\2");
	COMMAND(s, "\x46\0\0\0\1\2\x12\x1b\xff");
	RESULT(s, "\x40\x10\0\0\0\1\2");
	outb(s->b, 0x3f7, 2);
	COMMAND(s, "\x4a\0");
	RESULT(s, "\x40\1\0\0\0\0\0");
	/* No disk */
	COMMAND(s, "\x4a\1");
	RESULT(s, "\x41\1\0\0\0\0\0");
}

static void formats(void **state)
{
	struct setup *s = *state;
	uint8_t ids[18][4], track[18 * 512], expected[18 * 512];

	for (unsigned n = 0; n < 18; n++)
		memcpy(ids[n], (const uint8_t[]){ 0, 1, (uint8_t)(n + 1), 2 }, 4);
	mem_write(s->b->mem, gpa(DATA), ids, sizeof(ids));
	set_dma(s, 0x4a, DATA, sizeof(ids));
	COMMAND(s, "\x4d\4\2\x12\x1b\xf6");
	assert_true(interrupt(s));
	assert_int_equal(inb(s->b, 0x3f5), 4);
	memset(expected, 0xf6, sizeof(expected));
	assert_int_equal(pread(s->fd, track, sizeof(track), 18 * 512), sizeof(track));
	assert_memory_equal(track, expected, sizeof(track));
}

static void without_dma(void **state)
{
	struct setup *s = *state, *copy = create();
	struct writer saved;
	struct error err = { 0 };

	COMMAND(s, "\x03\xaf\x03");
	COMMAND(s, "\x46\0\0\0\2\2\3\x1b\xff");
	for (unsigned n = 0; n < 100; n++) {
		assert_int_equal(inb(s->b, 0x3f4), 0xf0);
		assert_int_equal(inb(s->b, 0x3f5), n ? 0 : 1);
	}
	saved = board_save(s->b);
	if (board_load(copy->b, &saved, clock_now(s->b->clock), &err))
		fail_msg("%s", err.text);
	for (unsigned n = 100; n < 1024; n++)
		assert_int_equal(inb(copy->b, 0x3f5), n == 512 ? 2 : 0);
	RESULT(copy, "\x40\x80\0\1\0\1\2");
	for (unsigned n = 0; n < 3000; n++) {
		struct writer bad = { 0 };

		writer_bytes(&bad, saved.data, saved.size);
		bad.data[n * 7919 % bad.size] ^= (uint8_t)(1 << n % 8);
		board_load(copy->b, &bad, clock_now(copy->b->clock), &err);
		for (unsigned m = 0; m < 20; m++) {
			inb(copy->b, 0x3f5);
			outb(copy->b, 0x3f5, (uint8_t)(n * m));
		}
		writer_free(&bad);
	}
	writer_free(&saved);
	destroy(copy);
}

/* Its drive goes with its disk while the guest reads: what was to be read is no more; another one is another disk. */
static void drives_go(void **state)
{
	struct setup *s = *state;
	struct error err = { 0 };
	struct board *b = board_create(1);
	char spec[64];

	COMMAND(s, "\x03\xaf\x03");
	COMMAND(s, "\x0f\0\1");
	COMMAND(s, "\x08");
	RESULT(s, "\x20\1");
	assert_int_equal(inb(s->b, 0x3f7) & 0x80, 0);
	COMMAND(s, "\x46\0\1\0\1\2\x12\x1b\xff");
	assert_int_equal(inb(s->b, 0x3f4), 0xf0);
	devices_unplug(s->b->bus);
	assert_int_equal(inb(s->b, 0x3f4), 0x80);
	assert_int_equal(inb(s->b, 0x3f7) & 0x80, 0x80);
	COMMAND(s, "\x4a\0");
	RESULT(s, "\x40\1\0\0\0\0\0");
	snprintf(spec, sizeof(spec), "floppy,file=/proc/self/fd/%d,format=raw", s->fd);
	assert_non_null(device_plug(s->b->bus, NULL, &(struct device_request){ .spec = spec }, &err));
	assert_int_equal(inb(s->b, 0x3f7) & 0x80, 0x80);
	COMMAND(s, "\x4a\0");
	RESULT(s, "\0\0\0\1\0\1\2");
	/* Its image is another drive's; one where there is no controller; one of another size */
	assert_null(device_plug(s->b->bus, NULL, &(struct device_request){ .spec = spec }, &err));
	assert_int_equal(dma_type.create(b->bus, NULL, NULL), 0);
	assert_null(device_plug(b->bus, NULL, &(struct device_request){ .spec = spec }, &err));
	assert_non_null(strstr(err.text, "without a controller"));
	board_destroy(b);
	devices_unplug(s->b->bus);
	assert_int_equal(ftruncate(s->fd, SIZE - 512), 0);
	assert_null(device_plug(s->b->bus, NULL, &(struct device_request){ .spec = spec }, &err));
	assert_non_null(strstr(err.text, "has 1474048 bytes; expected 160"));
}

static void dma_registers(void **state)
{
	struct setup *s = *state;

	outb(s->b, 0x0d, 0);
	assert_int_equal(inb(s->b, 0x0f), 0xff);
	outb(s->b, 0x02, 0x34);
	outb(s->b, 0x02, 0x12);
	outb(s->b, 0xd8, 0);
	outb(s->b, 0xc6, 0x78);
	outb(s->b, 0xc6, 0x56);
	outb(s->b, 0x0c, 0);
	assert_int_equal(inb(s->b, 0x02), 0x34);
	assert_int_equal(inb(s->b, 0x02), 0x12);
	assert_int_equal(inb(s->b, 0xc6), 0x78);
	assert_int_equal(inb(s->b, 0xc6), 0x56);
	outb(s->b, 0x0e, 0);
	assert_int_equal(inb(s->b, 0x0f), 0xf0);
	outb(s->b, 0x8a, 0x5a);
	assert_int_equal(inb(s->b, 0x8a), 0x5a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(resets_and_seeks), TEST(reads_and_writes), TEST(formats),
		TEST(without_dma),	TEST(dma_registers),	TEST(drives_go),
	};

	log_set_level(LOG_ERROR);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
