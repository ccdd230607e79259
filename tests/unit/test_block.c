/*
 * Requests of disks, and raw images: every way to ask, sizes that are no multiple of a sector, a file that others lock, shorten or fill up,
 * and a guest that writes another format's header.
 */
#include "lib/block_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static void make_file(const char *path, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

static int setup(void **state)
{
	struct disk_folder *f = calloc(1, sizeof(*f));

	folder_make(f);
	make_file(f->file[0], 1 << 20);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	folder_remove(*state);
	free(*state);
	return 0;
}

static const char *refusal(const char *file, struct block_options options)
{
	static struct error err;
	struct block *block;

	err = (struct error){ 0 };
	options.file = file;
	block = block_open(&options, &err);
	assert_null(block);
	assert_true(err.code > 0);
	return err.text;
}

static void test_info(void **state)
{
	struct disk_folder *f = *state;
	struct block *b = open_disk(f->file[0], (struct block_options){ .format = "auto" });

	assert_int_equal(block_info(b)->size, 1 << 20);
	assert_string_equal(block_info(b)->format, "raw");
	assert_false(block_info(b)->can_discard);
	assert_true(block_info(b)->writeback);
	block_close(b);
}

static void test_bad_requests(void **state)
{
	struct disk_folder *f = *state;
	uint8_t data[1024] = { 0 };
	struct block *b = open_disk(f->file[0], (struct block_options){ 0 });
	struct block_request r = { .op = BLOCK_READ, .offset = UINT64_MAX - 511, .size = 1024 };

	assert_int_equal(disk_io(b, BLOCK_READ, 1, data, 512), -EINVAL);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, 100), -EINVAL);
	assert_int_equal(disk_io(b, BLOCK_WRITE, (1 << 20) - 512, data, 1024), -EINVAL);
	assert_int_equal(disk_io(b, BLOCK_DISCARD, 1 << 20, NULL, 512), -EINVAL);
	assert_int_equal(block_try(b, &r), 0);
	assert_int_equal(r.result, -EINVAL);
	block_close(b);
	b = open_disk(f->file[0], (struct block_options){ .readonly = true });
	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, 512), -EPERM);
	assert_int_equal(disk_io(b, BLOCK_WRITE_ZEROES, 0, NULL, 512), -EPERM);
	assert_int_equal(disk_io(b, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(disk_io(b, BLOCK_READ, 0, data, 512), 0);
	block_close(b);
}

/* The size is rounded up, the rest reads as zeros, and can be written. */
static void test_odd_size(void **state)
{
	struct disk_folder *f = *state;
	uint8_t data[1024], zeros[512] = { 0 };
	struct block *b;

	for (int direct = 0; direct < 2; direct++) {
		struct block_options options = { .cache = direct ? BLOCK_NONE : BLOCK_WRITEBACK };
		struct stat st;

		make_file(f->file[0], 5000);
		b = open_disk(f->file[0], options);
		assert_int_equal(block_info(b)->size, 5120);
		memset(data, 7, sizeof(data));
		assert_int_equal(disk_io(b, BLOCK_READ, 4096, data, 1024), 0);
		assert_memory_equal(data + 512, zeros, 512);
		memset(data, 9, sizeof(data));
		assert_int_equal(disk_io(b, BLOCK_WRITE, 4608, data, 512), 0);
		memset(data, 7, sizeof(data));
		assert_int_equal(disk_io(b, BLOCK_READ, 4096, data, 1024), 0);
		assert_memory_equal(data, zeros, 512);
		assert_int_equal(data[512], 9);
		assert_int_equal(data[1023], 9);
		block_close(b);
		assert_int_equal(stat(f->file[0], &st), 0);
		assert_int_equal(st.st_size, 5120);
	}
}

static void test_file_that_shrinks(void **state)
{
	struct disk_folder *f = *state;
	uint8_t data[8192];
	struct block *b = open_disk(f->file[0], (struct block_options){ 0 });

	assert_int_equal(disk_io(b, BLOCK_READ, 65536, data, 8192), 0);
	assert_int_equal(truncate(f->file[0], 65536 + 4096), 0);
	assert_int_equal(disk_io(b, BLOCK_READ, 65536, data, 8192), -EIO);
	assert_int_equal(disk_io(b, BLOCK_READ, 65536, data, 4096), 0);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 1 << 19, data, 8192), 0);
	assert_int_equal(disk_io(b, BLOCK_READ, 1 << 19, data, 8192), 0);
	block_close(b);
}

/* The host does not let the file become so large: an error of that request, and of no other. */
static void test_file_that_is_full(void **state)
{
	struct disk_folder *f = *state;
	struct rlimit limit, small = { 0 };
	uint8_t data[8192] = { 1 };
	struct block *b = open_disk(f->file[0], (struct block_options){ 0 });

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = (struct rlimit){ .rlim_cur = 65536, .rlim_max = limit.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 131072, data, 8192), -EFBIG);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, 8192), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	block_close(b);
}

static void test_locks(void **state)
{
	struct disk_folder *f = *state;
	struct block_options readonly = { .readonly = true }, writable = { 0 },
			     look = { .readonly = true, .unlocked = true };
	struct block *b = open_disk(f->file[0], writable), *second;

	assert_non_null(strstr(refusal(f->file[0], writable), "in use by another program"));
	assert_non_null(strstr(refusal(f->file[0], readonly), "in use by another program"));
	second = open_disk(f->file[0], look);
	block_close(second);
	block_close(b);
	b = open_disk(f->file[0], readonly);
	second = open_disk(f->file[0], readonly);
	assert_non_null(strstr(refusal(f->file[0], writable), "in use by another program"));
	block_close(second);
	block_close(b);
	block_close(open_disk(f->file[0], writable));
}

static void test_errors_of_opening(void **state)
{
	struct disk_folder *f = *state;

	assert_non_null(strstr(refusal(f->file[3], (struct block_options){ 0 }), "No such file"));
	assert_non_null(strstr(refusal(f->path, (struct block_options){ .readonly = true }), "directory"));
	assert_non_null(strstr(refusal("/dev/null", (struct block_options){ 0 }), "neither file nor disk"));
	assert_non_null(strstr(refusal(f->file[0], (struct block_options){ .format = "vmdk" }), "'vmdk' is unknown"));
}

/* A disk whose format nobody said cannot be made into one of another format. */
static void test_forged_header(void **state)
{
	struct disk_folder *f = *state;
	uint8_t data[1024] = "QFI\xfb";
	struct block *b = open_disk(f->file[0], (struct block_options){ 0 });
	struct iovec pieces[] = { { data, 2 }, { data + 2, 1022 } };
	struct block_request r = { .op = BLOCK_WRITE, .size = 1024, .iov = pieces, .iov_count = 2 };

	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, 1024), -EPERM);
	assert_int_equal(block_do(b, &r), -EPERM);
	assert_int_equal(block_try(b, &r), 0);
	assert_int_equal(r.result, -EPERM);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 512, data, 512), 0);
	memcpy(data, "# Disk DescriptorFile", 21);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, 512), -EPERM);
	memcpy(data, "\n# any\nversion=1", 17);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, 512), -EPERM);
	memcpy(data, "LUKS\xba\xbe", 6);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, 512), 0);
	block_close(b);
	b = open_disk(f->file[0], (struct block_options){ .format = "raw" });
	memcpy(data, "QFI\xfb", 4);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, 512), 0);
	block_close(b);
}

static uint64_t blocks_of(const char *file)
{
	struct stat st;

	assert_int_equal(stat(file, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void test_holes(void **state)
{
	struct disk_folder *f = *state;
	static uint8_t data[1 << 20];
	struct block_request r = { .op = BLOCK_WRITE_ZEROES, .size = 1 << 20, .may_unmap = true };
	struct block *b = open_disk(f->file[0], (struct block_options){ .discard = true });

	assert_true(block_info(b)->can_discard);
	memset(data, 1, sizeof(data));
	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, sizeof(data)), 0);
	assert_int_equal(disk_io(b, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(disk_io(b, BLOCK_DISCARD, 0, NULL, 1 << 19), 0);
	assert_true(blocks_of(f->file[0]) <= (1 << 19) + 65536);
	assert_int_equal(block_do(b, &r), 0);
	assert_true(blocks_of(f->file[0]) <= 65536);
	assert_int_equal(disk_io(b, BLOCK_READ, 0, data, sizeof(data)), 0);
	for (size_t n = 0; n < sizeof(data); n++)
		assert_int_equal(data[n], 0);
	block_close(b);
}

static void test_random(void **state)
{
	struct disk_folder *f = *state;
	static const struct block_options ways[] = {
		{ .discard = true },
		{ .cache = BLOCK_NONE },
		{ .cache = BLOCK_UNSAFE, .discard = true },
	};

	for (size_t n = 0; n < ARRAY_SIZE(ways); n++) {
		struct random_disk d;

		make_file(f->file[0], (1 << 20) - 1000);
		random_init(&d, open_disk(f->file[0], ways[n]), n + 1, 1 << 18);
		for (int step = 0; step < (ways[n].cache == BLOCK_UNSAFE ? 600 : 150); step++)
			random_step(&d);
		random_compare(&d);
		block_close(d.block);
		d.block = open_disk(f->file[0], ways[n]);
		random_compare(&d);
		block_close(d.block);
		free(d.model);
	}
}

/* ---- many requests at once ---- */

#define MANY 200

struct many {
	_Atomic unsigned done, failed;
};
struct one {
	struct block_request request;
	struct iovec iov;
	struct many *all;
	uint8_t data[4096];
};

static void one_done(struct block_request *r)
{
	struct one *one = container_of(r, struct one, request);

	if (r->result)
		atomic_fetch_add(&one->all->failed, 1);
	atomic_fetch_add(&one->all->done, 1);
}

static void submit_all(struct block *b, struct one *ones, struct many *all, enum block_op op)
{
	for (unsigned n = 0; n < MANY; n++) {
		ones[n].iov = (struct iovec){ ones[n].data, sizeof(ones[n].data) };
		ones[n].all = all;
		ones[n].request = (struct block_request){
			.op = op,
			.offset = n * sizeof(ones[n].data),
			.size = sizeof(ones[n].data),
			.iov = &ones[n].iov,
			.iov_count = 1,
			.done = one_done,
		};
		block_submit(b, &ones[n].request);
	}
	block_drain(b);
}

static void test_many(void **state)
{
	struct disk_folder *f = *state;
	struct one *ones = calloc(MANY, sizeof(*ones));
	struct block *b = open_disk(f->file[0], (struct block_options){ 0 });
	struct many all = { 0 };

	assert_non_null(ones);
	for (unsigned n = 0; n < MANY; n++)
		memset(ones[n].data, (int)n, sizeof(ones[n].data));
	submit_all(b, ones, &all, BLOCK_WRITE);
	assert_int_equal(all.done, MANY);
	for (unsigned n = 0; n < MANY; n++)
		memset(ones[n].data, 0xff, sizeof(ones[n].data));
	submit_all(b, ones, &all, BLOCK_READ);
	assert_int_equal(all.done, 2 * MANY);
	assert_int_equal(all.failed, 0);
	for (unsigned n = 0; n < MANY; n++)
		for (size_t at = 0; at < sizeof(ones[n].data); at++)
			assert_int_equal(ones[n].data[at], (uint8_t)n);
	block_close(b);
	free(ones);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_info, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_that_shrinks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_that_is_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_locks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors_of_opening, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forged_header, setup, teardown),
		cmocka_unit_test_setup_teardown(test_holes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
