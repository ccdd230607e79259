/*
 * Disk images in tests: a folder for them, single requests, and random ones of all kinds that are compared with a disk in memory.
 */
#ifndef DOPPEL_TESTS_BLOCK_FIXTURE_H
#define DOPPEL_TESTS_BLOCK_FIXTURE_H

#include "block/block.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct disk_folder {
	char path[64];
	char file[4][96]; /* names in it */
};

static inline void folder_make(struct disk_folder *f)
{
	snprintf(f->path, sizeof(f->path), "%s", "/var/tmp/doppel-block-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	for (size_t n = 0; n < ARRAY_SIZE(f->file); n++)
		snprintf(f->file[n], sizeof(f->file[n]), "%s/image%zu", f->path, n);
}

static inline void folder_remove(struct disk_folder *f)
{
	for (size_t n = 0; n < ARRAY_SIZE(f->file); n++)
		unlink(f->file[n]);
	assert_int_equal(rmdir(f->path), 0);
}

static inline struct block *open_disk(const char *file, struct block_options options)
{
	struct error err = { 0 };
	struct block *block;

	options.file = file;
	block = block_open(&options, &err);
	if (!block)
		print_message("%s\n", err.text);
	assert_non_null(block);
	return block;
}

static inline int disk_io(struct block *block, enum block_op op, uint64_t offset, void *data, uint64_t size)
{
	struct iovec iov = { data, size };
	struct block_request r = { .op = op, .offset = offset, .size = size, .iov = &iov, .iov_count = 1 };

	return block_do(block, &r);
}

static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ---- random requests ---- */

struct random_disk {
	struct block *block;
	uint8_t *model; /* of the disk's size */
	uint64_t state; /* of the random numbers */
	uint64_t size, longest;
};

struct waited {
	struct block_request request;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static inline void waited_done(struct block_request *r)
{
	struct waited *w = container_of(r, struct waited, request);

	pthread_mutex_lock(&w->lock);
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

/* In one of the three ways. */
static inline int random_way(struct random_disk *d, struct block_request *r)
{
	struct waited w = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	uint64_t way = random_next(&d->state) % 3;

	if (way == 0)
		return block_do(d->block, r);
	if (way == 1 && !block_try(d->block, r))
		return r->result;
	w.request = *r;
	w.request.done = waited_done;
	block_submit(d->block, &w.request);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	return w.request.result;
}

/* What was discarded is as before or zeros, sector by sector; the model learns which. */
static inline void learn_discarded(struct random_disk *d, uint64_t offset, uint64_t size)
{
	static const uint8_t zeros[BLOCK_SECTOR];
	uint8_t *seen = malloc(size);

	assert_non_null(seen);
	assert_int_equal(disk_io(d->block, BLOCK_READ, offset, seen, size), 0);
	for (uint64_t at = 0; at < size; at += BLOCK_SECTOR) {
		if (memcmp(seen + at, d->model + offset + at, BLOCK_SECTOR) != 0)
			assert_memory_equal(seen + at, zeros, BLOCK_SECTOR);
	}
	memcpy(d->model + offset, seen, size);
	free(seen);
}

static inline void random_step(struct random_disk *d)
{
	enum block_op op = (enum block_op[]){
		BLOCK_READ,  BLOCK_READ,  BLOCK_WRITE,	 BLOCK_WRITE,
		BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES
	}[random_next(&d->state) % 8];
	uint64_t sectors = d->size / BLOCK_SECTOR, first = random_next(&d->state) % sectors;
	uint64_t longest = random_next(&d->state) % 4 ? 16 : d->longest / BLOCK_SECTOR;
	uint64_t count = 1 + random_next(&d->state) % MIN(longest, sectors - first);
	uint64_t offset = first * BLOCK_SECTOR, size = count * BLOCK_SECTOR, cut;
	uint8_t *data = malloc(size + 1), *at = data + random_next(&d->state) % 2;
	struct iovec iov[3];
	struct block_request r = { .op = op, .offset = offset, .size = size, .iov = iov, .iov_count = 3 };

	assert_non_null(data);
	cut = random_next(&d->state) % size;
	iov[0] = (struct iovec){ at, cut };
	iov[1] = (struct iovec){ at + cut, 0 };
	iov[2] = (struct iovec){ at + cut, size - cut };
	for (uint64_t n = 0; n < size; n++)
		at[n] = (uint8_t)(n % 64 ? at[n - 1] : random_next(&d->state));
	r.fua = random_next(&d->state) % 8 == 0;
	r.may_unmap = random_next(&d->state) % 2;
	if (op == BLOCK_WRITE)
		memcpy(d->model + offset, at, size);
	if (op == BLOCK_WRITE_ZEROES)
		memset(d->model + offset, 0, size);
	assert_int_equal(random_way(d, &r), 0);
	if (op == BLOCK_READ)
		assert_memory_equal(at, d->model + offset, size);
	if (op == BLOCK_DISCARD)
		learn_discarded(d, offset, size);
	free(data);
}

static inline void random_compare(struct random_disk *d)
{
	uint8_t *seen = malloc(d->size);

	assert_non_null(seen);
	assert_int_equal(disk_io(d->block, BLOCK_READ, 0, seen, d->size), 0);
	assert_memory_equal(seen, d->model, d->size);
	free(seen);
}

static inline void random_init(struct random_disk *d, struct block *block, uint64_t seed, uint64_t longest)
{
	*d = (struct random_disk){ .block = block, .state = seed * 2654435761u + 88172645463325252u };
	d->size = block_info(block)->size;
	d->longest = longest;
	d->model = malloc(d->size);
	assert_non_null(d->model);
	assert_int_equal(disk_io(block, BLOCK_READ, 0, d->model, d->size), 0);
}

#endif
