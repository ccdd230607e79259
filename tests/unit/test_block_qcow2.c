/*
 * qcow2 images that doppel makes: random requests against a disk in memory with all sizes of clusters and refcounts, with and without
 * something below; afterwards the tables agree, nothing is leaked, and a second opening shows the same.
 */
#include "lib/block_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>

#define DISK (3u << 20)

static int setup(void **state)
{
	struct disk_folder *f = calloc(1, sizeof(*f));

	folder_make(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	folder_remove(*state);
	free(*state);
	return 0;
}

static void create(struct block_create_options o)
{
	struct error err = { 0 };

	if (!o.format)
		o.format = "qcow2";
	unlink(o.file);
	if (block_create(&o, &err))
		print_message("%s\n", err.text);
	assert_int_equal(err.code, 0);
}

static void print_line(void *opaque, const char *line)
{
	(void)opaque;
	print_message("%s\n", line);
}

static struct block_check_result check(const char *file)
{
	struct block_options options = { .file = file };
	struct block_check_result result;
	struct error err = { 0 };

	if (block_check(&options, BLOCK_REPAIR_NONE, &result, print_line, NULL, &err))
		print_message("%s\n", err.text);
	assert_int_equal(err.code, 0);
	return result;
}

static void assert_whole(const char *file)
{
	struct block_check_result result = check(file);

	assert_int_equal(result.errors, 0);
	assert_int_equal(result.leaks, 0);
}

/* Nobody loses power here: without syncs, but for those who are for them. */
#define QUICK .cache = BLOCK_UNSAFE

static void random_session(const char *file, struct random_disk *d, struct block_options options, int steps)
{
	d->block = open_disk(file, options);
	for (int step = 0; step < steps; step++)
		random_step(d);
	random_compare(d);
	block_close(d->block);
	if (!options.format)
		assert_whole(file);
	options.readonly = true;
	d->block = open_disk(file, options);
	random_compare(d);
	block_close(d->block);
}

/* What has one thread needs no thread sanitizer, which slows it down twenty times: little of it. */
#ifdef __SANITIZE_THREAD__
#define SANITIZED_STEPS 8
#else
#define SANITIZED_STEPS 1000000
#endif

static void random_image(const char *file, uint64_t seed, struct block_options options, int steps)
{
	struct random_disk d;
	struct block *block = open_disk(file, options);

	random_init(&d, block, seed, 1 << 18);
	block_close(block);
	for (int session = 0; session < 2; session++)
		random_session(file, &d, options, MIN(steps, SANITIZED_STEPS));
	free(d.model);
}

static void test_cluster_sizes(void **state)
{
	struct disk_folder *f = *state;

	for (uint64_t size = 512; size <= 2u << 20; size *= 2) {
		create((struct block_create_options){ .file = f->file[0], .size = DISK + 512, .cluster_size = size });
		random_image(f->file[0], size, (struct block_options){ QUICK, .discard = size != 4096 }, 120);
	}
}

static void test_extended_entries(void **state)
{
	struct disk_folder *f = *state;

	for (uint64_t size = 16384; size <= 2u << 20; size *= 2) {
		create((struct block_create_options){
			.file = f->file[0], .size = DISK + 512, .cluster_size = size, .extended_l2 = true });
		random_image(f->file[0], size, (struct block_options){ QUICK, .discard = size != 65536 }, 200);
	}
	/* On another image */
	create((struct block_create_options){ .file = f->file[0], .format = "raw", .size = DISK - 1024 });
	random_image(f->file[0], 1, (struct block_options){ QUICK, .format = "raw" }, 100);
	create((struct block_create_options){ .file = f->file[1],
					      .size = DISK,
					      .cluster_size = 16384,
					      .extended_l2 = true,
					      .backing = "image0",
					      .backing_format = "raw" });
	random_image(f->file[1], 2, (struct block_options){ QUICK, .discard = true }, 300);
}

static uint64_t number_at(const char *file, uint64_t offset)
{
	int fd = open(file, O_RDONLY);
	uint8_t bytes[8];

	assert_int_equal(pread(fd, bytes, 8, (off_t)offset), 8);
	close(fd);
	return load_be64(bytes);
}

/* What is written takes nothing along of what is beside it: a bit for each part of a cluster says so. */
static void test_parts_of_clusters(void **state)
{
	struct disk_folder *f = *state;
	uint8_t data[1024] = { 1 };
	uint64_t table;
	struct block *b;

	create((struct block_create_options){ .file = f->file[0], .format = "raw", .size = DISK });
	create((struct block_create_options){ .file = f->file[1],
					      .size = DISK,
					      .cluster_size = 16384,
					      .extended_l2 = true,
					      .backing = "image0",
					      .backing_format = "raw" });
	b = open_disk(f->file[1], (struct block_options){ .discard = true });
	assert_int_equal(disk_io(b, BLOCK_WRITE, 16384 + 4096, data, 512), 0);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 16384 + 6144, data, 1024), 0);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 32768 - 512, data, 1024), 0); /* of two clusters, one is there */
	assert_int_equal(disk_io(b, BLOCK_WRITE_ZEROES, 65536, NULL, 16384), 0);
	assert_int_equal(disk_io(b, BLOCK_WRITE, 65536, data, 512), 0);
	block_close(b);
	table = number_at(f->file[1], number_at(f->file[1], 40)) & 0x00fffffffffffe00;
	assert_int_equal(number_at(f->file[1], table + 16 + 8), 0x80003100);
	assert_int_equal(number_at(f->file[1], table + 32 + 8), 1);
	assert_int_equal(number_at(f->file[1], table + 64 + 8), 0xfffffffe00000001);
}

static void test_refcount_widths(void **state)
{
	struct disk_folder *f = *state;

	for (unsigned n = 1; n <= 64; n *= 2) {
		create((struct block_create_options){
			.file = f->file[0], .size = DISK, .cluster_size = n % 3 ? 512 : 4096, .refcount_bits = n });
		random_image(f->file[0], n, (struct block_options){ QUICK, .discard = true }, 120);
	}
}

static void test_versions_and_caches(void **state)
{
	struct disk_folder *f = *state;

	create((struct block_create_options){ .file = f->file[0], .size = DISK, .version = 2, .cluster_size = 1024 });
	random_image(f->file[0], 1, (struct block_options){ .discard = true }, 60);
	create((struct block_create_options){
		.file = f->file[0], .size = DISK, .lazy_refcounts = true, .cluster_size = 512 });
	random_image(f->file[0], 2, (struct block_options){ QUICK, .discard = true }, 200);
	create((struct block_create_options){ .file = f->file[0], .size = DISK, .cluster_size = 4096 });
	random_image(f->file[0], 3, (struct block_options){ .cache = BLOCK_NONE }, 60);
	create((struct block_create_options){ .file = f->file[0], .size = DISK, .cluster_size = 512 });
	random_image(f->file[0], 4, (struct block_options){ .cache = BLOCK_UNSAFE }, 200);
}

/* What tables may take, and have taken. */
struct budget {
	_Atomic uint64_t limit, taken, most;
};

static bool budget_take(void *opaque, uint64_t size)
{
	struct budget *b = opaque;

	if (b->taken + size > b->limit)
		return false;
	b->taken += size;
	b->most = MAX(b->most, b->taken);
	return true;
}

static void budget_give(void *opaque, uint64_t size) { ((struct budget *)opaque)->taken -= size; }

/* With a few tables in memory it takes longer, no more; what was taken is given back. */
static void test_budget(void **state)
{
	static const uint64_t limits[] = { 0, 5 * 512, 1 << 20 };
	struct disk_folder *f = *state;

	for (unsigned n = 0; n < ARRAY_SIZE(limits); n++) {
		struct budget budget = { .limit = limits[n] };
		struct block_memory memory = { budget_take, budget_give, &budget };

		create((struct block_create_options){ .file = f->file[0], .size = DISK, .cluster_size = 512 });
		random_image(f->file[0], n + 1, (struct block_options){ QUICK, .discard = true, .memory = &memory },
			     150);
		assert_int_equal(budget.taken, 0);
		assert_true(n ? budget.most > 0 && budget.most % 512 == 0 : !budget.most);
	}
}

/* Layers: what the lower ones have shows where the upper ones have nothing, and they do not change. */
static void test_layers(void **state)
{
	struct disk_folder *f = *state;
	struct random_disk base;

	for (unsigned version = 2; version <= 3; version++) {
		create((struct block_create_options){ .file = f->file[0], .format = "raw", .size = DISK - 1024 });
		random_image(f->file[0], 1, (struct block_options){ QUICK, .format = "raw" }, 100);
		create((struct block_create_options){ .file = f->file[1],
						      .size = DISK - 65536,
						      .cluster_size = 2048,
						      .version = version,
						      .backing = "image0",
						      .backing_format = "raw" });
		random_image(f->file[1], 2, (struct block_options){ QUICK, .discard = true }, 40);
		random_init(&base, open_disk(f->file[1], (struct block_options){ .readonly = true }), 1, 1);
		block_close(base.block);
		create((struct block_create_options){ .file = f->file[2],
						      .size = DISK,
						      .version = version,
						      .backing = "image1",
						      .backing_format = "qcow2" });
		random_image(f->file[2], 3, (struct block_options){ QUICK, .discard = true }, 200);
		base.block = open_disk(f->file[1], (struct block_options){ .readonly = true });
		random_compare(&base);
		block_close(base.block);
		free(base.model);
	}
}

/* A disk that is only a snapshot takes writes, and forgets them. */
static void test_snapshot(void **state)
{
	struct disk_folder *f = *state;
	struct block_options options = { .snapshot = true };
	struct random_disk d, before;

	create((struct block_create_options){ .file = f->file[0], .size = DISK });
	random_image(f->file[0], 5, (struct block_options){ QUICK }, 100);
	random_init(&before, open_disk(f->file[0], (struct block_options){ .readonly = true }), 1, 1);
	d.block = open_disk(f->file[0], options);
	random_init(&d, d.block, 6, 1 << 18);
	assert_false(block_info(d.block)->readonly);
	for (int step = 0; step < 300; step++)
		random_step(&d);
	random_compare(&d);
	block_close(d.block);
	random_compare(&before);
	block_close(before.block);
	free(before.model);
	free(d.model);
}

/* ---- what is given back ---- */

static uint64_t blocks_of(const char *file)
{
	struct stat st;

	assert_int_equal(stat(file, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void test_discard(void **state)
{
	struct disk_folder *f = *state;
	static uint8_t data[DISK];
	struct block *b;

	create((struct block_create_options){ .file = f->file[0], .size = DISK });
	b = open_disk(f->file[0], (struct block_options){ .discard = true });
	memset(data, 1, sizeof(data));
	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, sizeof(data)), 0);
	assert_int_equal(disk_io(b, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_true(blocks_of(f->file[0]) >= DISK);
	assert_int_equal(disk_io(b, BLOCK_DISCARD, 0, NULL, DISK), 0);
	assert_int_equal(disk_io(b, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_true(blocks_of(f->file[0]) <= 512 << 10);
	/* And used again. */
	assert_int_equal(disk_io(b, BLOCK_WRITE, 0, data, sizeof(data)), 0);
	block_close(b);
	assert_whole(f->file[0]);
	assert_true(blocks_of(f->file[0]) <= DISK + (512 << 10));
}

/* Where nothing blocks: the second write to a table that is in memory, to a cluster that is there or not. */
static void test_in_line(void **state)
{
	struct disk_folder *f = *state;
	static uint8_t data[4096] = { 5 };
	struct iovec iov = { data, sizeof(data) };
	struct block_request r = { .op = BLOCK_WRITE, .size = sizeof(data), .iov = &iov, .iov_count = 1 };
	struct block *b;

	create((struct block_create_options){ .file = f->file[0], .size = DISK });
	b = open_disk(f->file[0], (struct block_options){ 0 });
	assert_int_equal(block_do(b, &r), 0);
	for (r.offset = 4096; r.offset < DISK; r.offset += 4096) {
		assert_int_equal(block_try(b, &r), 0);
		assert_int_equal(r.result, 0);
	}
	r.op = BLOCK_READ;
	memset(data, 0, sizeof(data));
	r.offset = 8192;
	if (block_try(b, &r) == 0) {
		assert_int_equal(r.result, 0);
		assert_int_equal(data[0], 5);
	}
	block_close(b);
	assert_whole(f->file[0]);
}

/* ---- many threads ---- */

#define THREADS 4

struct writer {
	struct block *block;
	pthread_barrier_t *together;
	unsigned n;
	int failed;
};

/* Each has every fourth sector: they meet in all clusters, at the same time. */
static void *write_sectors(void *opaque)
{
	struct writer *w = opaque;
	uint8_t data[BLOCK_SECTOR];

	for (uint64_t at = w->n * BLOCK_SECTOR; at < DISK; at += THREADS * BLOCK_SECTOR) {
		pthread_barrier_wait(w->together);
		memset(data, (int)(at / BLOCK_SECTOR % 251), sizeof(data));
		w->failed |= disk_io(w->block, BLOCK_WRITE, at, data, sizeof(data));
		if (at % 65536 == w->n * BLOCK_SECTOR)
			w->failed |= disk_io(w->block, BLOCK_FLUSH, 0, NULL, 0);
		memset(data, 0, sizeof(data));
		w->failed |= disk_io(w->block, BLOCK_READ, at, data, sizeof(data));
		w->failed |= data[77] != at / BLOCK_SECTOR % 251;
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct disk_folder *f = *state;
	struct writer writers[THREADS];
	struct random_disk seen;
	pthread_barrier_t together;
	pthread_t threads[THREADS];
	struct block *b;

	create((struct block_create_options){ .file = f->file[0], .size = DISK, .cluster_size = 4096 });
	b = open_disk(f->file[0], (struct block_options){ .cache = BLOCK_UNSAFE });
	pthread_barrier_init(&together, NULL, THREADS);
	for (unsigned n = 0; n < THREADS; n++) {
		writers[n] = (struct writer){ b, &together, n, 0 };
		assert_int_equal(host_thread_create(&threads[n], "writer", write_sectors, &writers[n], NULL), 0);
	}
	for (unsigned n = 0; n < THREADS; n++) {
		pthread_join(threads[n], NULL);
		assert_int_equal(writers[n].failed, 0);
	}
	pthread_barrier_destroy(&together);
	random_init(&seen, b, 1, 1);
	for (uint64_t at = 0; at < DISK; at += BLOCK_SECTOR)
		assert_int_equal(seen.model[at + 77], at / BLOCK_SECTOR % 251);
	free(seen.model);
	block_close(b);
	assert_whole(f->file[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cluster_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_extended_entries, setup, teardown),
		cmocka_unit_test_setup_teardown(test_parts_of_clusters, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refcount_widths, setup, teardown),
		cmocka_unit_test_setup_teardown(test_versions_and_caches, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_layers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_snapshot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_discard, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
