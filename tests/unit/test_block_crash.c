/*
 * qcow2 images when things go wrong below them: a host that loses power, which has kept any of the writes since the last sync, and one that
 * fails a write or a sync. The image is whole again, or can be made so, and what was flushed is there.
 *
 * The system calls that change files are this file's own. One thread makes them all.
 */
#define _GNU_SOURCE
#include "lib/block_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DISK  (256u << 10)
#define SLOTS (DISK / BLOCK_SECTOR)

/* ---- what happens to writes ---- */

struct kept_write {
	uint64_t offset;
	size_t size;
	uint8_t *data;
};

static struct host {
	bool recording;
	struct kept_write writes[4096]; /* since the last sync */
	size_t count;
	uint8_t *durable; /* the file at the last sync */
	size_t size;
	int countdown; /* until a call fails; below 0: none does */
	int code;
	bool hit;
	void (*before_sync)(void *opaque);
	void *opaque;
} host = { .countdown = -1 };

static void apply(const struct kept_write *w)
{
	if (w->offset + w->size > host.size) {
		host.durable = realloc(host.durable, w->offset + w->size);
		assert_non_null(host.durable);
		memset(host.durable + host.size, 0, w->offset + w->size - host.size);
		host.size = w->offset + w->size;
	}
	memcpy(host.durable + w->offset, w->data, w->size);
}

static void forget_writes(void)
{
	for (size_t n = 0; n < host.count; n++)
		free(host.writes[n].data);
	host.count = 0;
}

static void record(const struct iovec *iov, int count, off_t offset)
{
	struct kept_write *w = &host.writes[host.count++];
	size_t at = 0;

	assert_true(host.count <= ARRAY_SIZE(host.writes));
	*w = (struct kept_write){ .offset = (uint64_t)offset };
	for (int n = 0; n < count; n++)
		w->size += iov[n].iov_len;
	w->data = malloc(w->size);
	assert_non_null(w->data);
	for (int n = 0; n < count; at += iov[n++].iov_len)
		memcpy(w->data + at, iov[n].iov_base, iov[n].iov_len);
}

/* Is it this call's turn to fail? */
static bool fails(void)
{
	bool now = host.countdown >= 0 && host.countdown-- == 0;

	host.hit |= now;
	if (now)
		errno = host.code;
	return now;
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	ssize_t n = -1;

	if (!fails()) {
		if (host.recording)
			record(iov, count, offset);
		n = syscall(SYS_pwritev, fd, iov, count, offset, 0);
	}
	return n;
}

/* Holes are zeros. */
int fallocate(int fd, int mode, off_t offset, off_t size)
{
	struct iovec zeros = { calloc(1, (size_t)size), (size_t)size };

	assert_int_equal(mode, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	assert_non_null(zeros.iov_base);
	if (host.recording)
		record(&zeros, 1, offset);
	free(zeros.iov_base);
	return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

int fdatasync(int fd)
{
	int rc = -1;

	(void)fd;
	if (!fails()) {
		rc = 0;
		if (host.recording)
			host.before_sync(host.opaque);
		for (size_t n = 0; n < host.count; n++)
			apply(&host.writes[n]);
		forget_writes();
	}
	return rc;
}

static void read_whole(const char *file)
{
	struct stat st;
	int fd = open(file, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	host.size = (size_t)st.st_size;
	host.durable = realloc(host.durable, host.size);
	assert_int_equal(pread(fd, host.durable, host.size, 0), st.st_size);
	close(fd);
}

/* ---- a guest, which knows what it wrote and flushed ---- */

struct guest {
	struct block *block;
	uint64_t state;
	uint64_t begun[SLOTS], done[SLOTS], flushed[SLOTS];
	uint64_t zeroed[SLOTS]; /* the last write that was of zeros */
	uint64_t base;		/* what a slot has that was never written: its stamp, or 0 for zeros */
};

struct stamp {
	uint64_t slot, write;
};

static void put_stamp(uint8_t *sector, uint64_t slot, uint64_t write)
{
	memset(sector, 0, BLOCK_SECTOR);
	memcpy(sector, &(struct stamp){ slot + 1, write }, sizeof(struct stamp));
}

static int guest_write(struct guest *g)
{
	uint8_t data[16 * BLOCK_SECTOR];
	uint64_t slot = random_next(&g->state) % SLOTS, count = 1 + random_next(&g->state) % MIN(16, SLOTS - slot);
	struct iovec iov = { data, count * BLOCK_SECTOR };
	struct block_request r = { .op = BLOCK_WRITE,
				   .offset = slot * BLOCK_SECTOR,
				   .size = count * BLOCK_SECTOR,
				   .iov = &iov,
				   .iov_count = 1,
				   .may_unmap = true };
	int rc;

	if (random_next(&g->state) % 4 == 0)
		r.op = BLOCK_WRITE_ZEROES;
	for (uint64_t n = 0; n < count; n++) {
		put_stamp(data + n * BLOCK_SECTOR, slot + n, ++g->begun[slot + n]);
		if (r.op == BLOCK_WRITE_ZEROES)
			g->zeroed[slot + n] = g->begun[slot + n];
	}
	rc = block_do(g->block, &r);
	for (uint64_t n = 0; n < count && !rc; n++)
		g->done[slot + n] = g->begun[slot + n];
	return rc;
}

static int guest_flush(struct guest *g)
{
	int rc = disk_io(g->block, BLOCK_FLUSH, 0, NULL, 0);

	if (!rc)
		memcpy(g->flushed, g->done, sizeof(g->done));
	return rc;
}

static int guest_step(struct guest *g) { return random_next(&g->state) % 10 ? guest_write(g) : guest_flush(g); }

static void guest_verify(const struct guest *g, struct block *b)
{
	uint8_t sector[BLOCK_SECTOR];
	struct stamp stamp;

	for (uint64_t slot = 0; slot < SLOTS; slot++) {
		assert_int_equal(disk_io(b, BLOCK_READ, slot * BLOCK_SECTOR, sector, sizeof(sector)), 0);
		memcpy(&stamp, sector, sizeof(stamp));
		if (!stamp.slot && g->zeroed[slot] && g->zeroed[slot] >= g->flushed[slot])
			continue;
		if (!g->flushed[slot] && stamp.write == g->base)
			assert_int_equal(stamp.slot, g->base ? slot + 1 : 0);
		else {
			assert_int_equal(stamp.slot, slot + 1);
			assert_in_range(stamp.write, MAX(g->flushed[slot], 1), g->begun[slot]);
		}
	}
}

/* ---- images ---- */

static int setup(void **state)
{
	struct disk_folder *f = calloc(1, sizeof(*f));

	folder_make(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	host.recording = false;
	host.countdown = -1;
	forget_writes();
	free(host.durable);
	host.durable = NULL;
	folder_remove(*state);
	free(*state);
	return 0;
}

#define BASE_STAMP 1000000

/* image0, and image2 below it if it has a backing file: every slot has a stamp there. */
static void make_image(struct disk_folder *f, struct block_create_options o, bool backing)
{
	struct block_create_options base = { .file = f->file[2], .format = "raw", .size = DISK };
	uint8_t sector[BLOCK_SECTOR];
	struct block *b;

	unlink(f->file[0]);
	unlink(f->file[2]);
	assert_int_equal(block_create(&base, NULL), 0);
	b = open_disk(f->file[2], (struct block_options){ 0 });
	for (uint64_t slot = 0; slot < SLOTS; slot++) {
		put_stamp(sector, slot, BASE_STAMP);
		assert_int_equal(disk_io(b, BLOCK_WRITE, slot * BLOCK_SECTOR, sector, sizeof(sector)), 0);
	}
	block_close(b);
	o.file = f->file[0];
	o.format = "qcow2";
	o.size = DISK;
	o.backing = backing ? "image2" : NULL;
	o.backing_format = backing ? "raw" : NULL;
	assert_int_equal(block_create(&o, NULL), 0);
}

static void assert_no_errors(const char *file)
{
	struct block_options options = { .file = file };
	struct block_check_result result;
	struct error err = { 0 };

	assert_int_equal(block_check(&options, BLOCK_REPAIR_NONE, &result, NULL, NULL, &err), 0);
	assert_int_equal(result.errors, 0);
}

/* ---- power is lost ---- */

struct power {
	struct disk_folder *folder;
	struct guest *guest;
	uint64_t state;
};

/* Any of the writes since the last sync, as a whole or only some sectors of it, are there. */
static void lose_power(void *opaque)
{
	struct power *power = opaque;
	struct disk_folder *f = power->folder;
	uint64_t *state = &power->state;
	struct block *b;
	size_t size = host.size;
	uint8_t *before = malloc(size);
	int fd;

	assert_non_null(before);
	memcpy(before, host.durable, size);
	for (size_t n = 0; n < host.count; n++) {
		uint64_t how = random_next(state) % 3;

		for (uint64_t at = 0; how && at < host.writes[n].size; at += BLOCK_SECTOR) {
			struct kept_write part = { host.writes[n].offset + at,
						   MIN(BLOCK_SECTOR, host.writes[n].size - at),
						   host.writes[n].data + at };

			if (how == 1 || random_next(state) % 2)
				apply(&part);
		}
	}
	unlink(f->file[1]);
	fd = open(f->file[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, host.durable, host.size), (ssize_t)host.size);
	close(fd);
	memcpy(host.durable, before, size);
	host.size = size;
	free(before);
	host.recording = false;
	block_close(open_disk(f->file[1], (struct block_options){ .cache = BLOCK_UNSAFE }));
	assert_no_errors(f->file[1]);
	b = open_disk(f->file[1], (struct block_options){ .readonly = true });
	guest_verify(power->guest, b);
	block_close(b);
	host.recording = true;
}

static void power_session(struct disk_folder *f, struct block_create_options o, bool backing, uint64_t seed)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct power power = { f, g, seed * 77777 + 1 };

	assert_non_null(g);
	host.before_sync = lose_power;
	host.opaque = &power;
	print_message("seed %llu\n", (unsigned long long)seed);
	make_image(f, o, backing);
	read_whole(f->file[0]);
	g->base = backing ? BASE_STAMP : 0;
	g->state = seed * 0x9e3779b97f4a7c15u + 1;
	host.recording = true;
	g->block = open_disk(f->file[0], (struct block_options){ .discard = true });
	for (int step = 0; step < 150; step++) {
		assert_int_equal(guest_step(g), 0);
		if (random_next(&power.state) % 8 == 0)
			lose_power(&power);
	}
	block_close(g->block);
	host.recording = false;
	forget_writes();
	free(g);
}

static void test_power(void **state)
{
	for (uint64_t seed = 1; seed <= 3; seed++) {
		power_session(*state, (struct block_create_options){ .cluster_size = 512 }, false, seed);
		power_session(*state, (struct block_create_options){ .cluster_size = 2048 }, true, seed);
		power_session(*state, (struct block_create_options){ .cluster_size = 4096, .lazy_refcounts = true },
			      true, seed);
		power_session(*state, (struct block_create_options){ .cluster_size = 1024, .version = 2 }, true, seed);
		power_session(*state, (struct block_create_options){ .cluster_size = 16384, .extended_l2 = true }, true,
			      seed);
	}
}

/* ---- writes and syncs fail ---- */

static void fault_session(struct disk_folder *f, struct block_create_options o, int countdown, int code)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct block *b;

	assert_non_null(g);
	make_image(f, o, false);
	g->state = 99;
	g->block = open_disk(f->file[0], (struct block_options){ .discard = true });
	host.hit = false;
	host.code = code;
	host.countdown = countdown;
	for (int step = 0; step < 60; step++)
		guest_step(g);
	block_close(g->block);
	host.countdown = -1;
	block_close(open_disk(f->file[0], (struct block_options){ 0 }));
	assert_no_errors(f->file[0]);
	b = open_disk(f->file[0], (struct block_options){ .readonly = true });
	guest_verify(g, b);
	block_close(b);
	free(g);
}

static void test_faults(void **state)
{
	static const int codes[] = { ENOSPC, EIO };

	for (unsigned version = 2; version <= 3; version++) {
		int n = 0;

		do
			fault_session(*state, (struct block_create_options){ .cluster_size = 512, .version = version },
				      n, codes[n % 2]);
		while (n++, host.hit);
		assert_true(n > 60);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_power, setup, teardown),
		cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
	};

	/* What is told of failed writes is many lines. */
	freopen("/dev/null", "we", stderr);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
