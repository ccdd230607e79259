/*
 * Flash memory: read as memory, commands by writes, what programming and erasing do, the file that is made and kept, hostile sequences, records.
 */
#include "lib/board.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROM_SIZE 0x10000u
#define SIZE	 0x4000u
#define START	 (MEM_HIGH_BASE - ROM_SIZE - SIZE)

struct files {
	char folder[32], template[48], file[48], spec[160];
};

static void put_file(const char *path, size_t size)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	for (size_t n = 0; n < size; n++)
		fputc(n < 4 ? "FLSH"[n] : 0xff, f);
	assert_int_equal(fclose(f), 0);
}

static void make_files(struct files *f, const char *file_option)
{
	snprintf(f->folder, sizeof(f->folder), "/tmp/test_pflash.XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->template, sizeof(f->template), "%s/template", f->folder);
	snprintf(f->file, sizeof(f->file), "%s/file", f->folder);
	snprintf(f->spec, sizeof(f->spec), "pflash,template=%s%s%s", f->template, file_option,
		 *file_option ? f->file : "");
	put_file(f->template, SIZE);
}

static void remove_files(const struct files *f)
{
	unlink(f->template);
	unlink(f->file);
	assert_int_equal(rmdir(f->folder), 0); /* nothing else was left there */
}

static struct board *board(void)
{
	static const uint8_t rom[ROM_SIZE] = { 0 };
	struct board *b = board_create(1);

	board_add_memory(b, MEM_MIN);
	assert_int_equal(mem_add_rom(b->mem, gpa(MEM_HIGH_BASE - ROM_SIZE), rom, ROM_SIZE, NULL), 0);
	return b;
}

static struct device_plug *plug(struct board *b, const char *spec, struct error *err)
{
	return device_plug(b->bus, NULL, &(struct device_request){ .spec = spec }, err);
}

static void command(struct board *b, uint64_t offset, uint8_t value)
{
	board_write(b, BUS_MMIO, START + offset, 1, value);
}

/* As a processor reads it: from memory, or, where there is none, from the bus. */
static uint8_t byte_at(struct board *b, uint64_t offset)
{
	uint8_t value;

	if (mem_read(b->mem, gpa(START + offset), &value, 1))
		value = (uint8_t)board_read(b, BUS_MMIO, START + offset, 1);
	return value;
}

static void commands(void **state)
{
	struct board *b = board();
	struct files f;

	(void)state;
	make_files(&f, "");
	assert_non_null(plug(b, f.spec, NULL));
	bus_reset(b->bus);
	bus_settle(b->bus);
	assert_int_equal(byte_at(b, 1), 'L');
	assert_int_equal(mem_write(b->mem, gpa(START), "x", 1), 0); /* a device's write is no command */
	assert_int_equal(byte_at(b, 0), 'F');
	command(b, 0, 0x50); /* how OVMF tells flash from RAM and ROM */
	assert_int_equal(byte_at(b, 0), 'F');
	command(b, 0, 0x70);
	assert_int_equal(byte_at(b, 0), 0);
	command(b, 0, 0xff);
	command(b, 0, 0x90);
	assert_int_equal(byte_at(b, 0), 0x89);
	assert_int_equal(byte_at(b, 0x100), 0);
	command(b, 0, 0xff);
	command(b, 0x1000, 0x10);
	command(b, 0x1000, 0x5a);
	assert_int_equal(byte_at(b, 0), 0x80);
	command(b, 0x1000, 0x40);
	command(b, 0x1000, 0xf0);
	command(b, 0x1000, 0xff);
	assert_int_equal(byte_at(b, 0x1000), 0x50); /* bits are cleared alone */
	command(b, 0x1010, 0x10);
	board_write(b, BUS_MMIO, START + 0x1010, 4, 0x44332211);
	command(b, 0, 0xff);
	assert_int_equal(byte_at(b, 0x1013), 0x44);
	command(b, 0x1fff, 0x20);
	command(b, 0x1fff, 0x12); /* not confirmed */
	assert_int_equal(byte_at(b, 0) & 0x30, 0x30);
	command(b, 0, 0xff);
	assert_int_equal(byte_at(b, 0x1000), 0x50);
	command(b, 0x1fff, 0x20);
	command(b, 0x1fff, 0xd0);
	command(b, 0, 0xff);
	assert_int_equal(byte_at(b, 0x1000), 0xff);
	assert_int_equal(byte_at(b, 0), 'F');
	for (unsigned n = 0; n < 256; n++) { /* any byte in any state */
		command(b, SIZE - 1, (uint8_t)n);
		byte_at(b, SIZE - 1);
	}
	bus_reset(b->bus);
	bus_settle(b->bus);
	assert_int_equal(byte_at(b, 0), 'F');
	remove_files(&f);
	board_unplug(b);
}

static void the_file(void **state)
{
	struct board *b = board(), *other = board();
	struct error error;
	struct stat status;
	struct files f;

	(void)state;
	make_files(&f, ",file=");
	assert_non_null(plug(b, f.spec, NULL));
	assert_null(plug(other, f.spec, &error));
	assert_non_null(strstr(error.text, "in use"));
	command(b, 8, 0x10);
	command(b, 8, 0x42);
	board_unplug(b);
	assert_int_equal(stat(f.file, &status), 0);
	assert_int_equal(status.st_size, SIZE);
	assert_int_equal(status.st_mode & 0777, 0600);
	unlink(f.template); /* it is not needed any more */
	assert_non_null(plug(other, f.spec, NULL));
	assert_int_equal(byte_at(other, 8), 0x42);
	board_unplug(other);
	assert_int_equal(truncate(f.file, SIZE - 1), 0);
	b = board();
	assert_null(plug(b, f.spec, &error));
	assert_non_null(strstr(error.text, "multiple of 4096"));
	unlink(f.file);
	assert_null(plug(b, f.spec, &error)); /* from nothing, nothing is made */
	assert_non_null(strstr(error.text, f.template));
	remove_files(&f);
	board_unplug(b);
	b = board_create(1);
	board_add_memory(b, MEM_MIN);
	make_files(&f, "");
	assert_null(plug(b, f.spec, &error));
	assert_non_null(strstr(error.text, "no firmware"));
	remove_files(&f);
	board_unplug(b);
}

static void records(void **state)
{
	struct board *b = board();
	struct writer records;
	struct files f;

	(void)state;
	make_files(&f, "");
	assert_non_null(plug(b, f.spec, NULL));
	bus_reset(b->bus);
	command(b, 0x2000, 0x10);
	records = board_save(b); /* between a command and its byte */
	bus_reset(b->bus);
	assert_int_equal(board_load(b, &records, 0, NULL), 0);
	bus_settle(b->bus);
	command(b, 0x2000, 0x21);
	assert_int_equal(byte_at(b, 0), 0x80);
	command(b, 0, 0xff);
	assert_int_equal(byte_at(b, 0x2000), 0x21);
	writer_free(&records);
	remove_files(&f);
	board_unplug(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands),
		cmocka_unit_test(the_file),
		cmocka_unit_test(records),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
