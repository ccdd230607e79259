/*
 * Disk images from the outside: what the test scripts run beside qemu-img and others.
 */
#ifndef DOPPEL_TESTS_BLOCK_BLOCK_H
#define DOPPEL_TESTS_BLOCK_BLOCK_H

#include "block/block.h"

uint64_t next_random(uint64_t *state);
struct block *must_open(const struct block_options *);
/* Ends the process with a sentence if it fails. */
void must_do(struct block *, enum block_op, uint64_t offset, void *data, uint64_t size);

/* random.c: random requests, compared with a disk in memory, which is written to FILE.model. */
int random_requests(const struct block_options *, uint64_t seed, unsigned steps);
/* many.c: requests that are on their way together. */
int many_requests(const struct block_options *, unsigned rounds);
/* kill.c: a process that writes is killed, again and again; what it flushed is there. */
int kill_writers(const struct block_options *, uint64_t seed, unsigned rounds, const char *checker);
/* speed.c: writes and reads of one kind, in a row; prints microseconds for one. */
int measure(const struct block_options *, const char *kind, uint64_t size, unsigned count);

#endif
