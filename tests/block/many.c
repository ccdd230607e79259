/*
 * Requests that are on their way together: each writes its own place and reads it again.
 */
#include "block.h"

#include <stdlib.h>

#define MANY 64
#define SIZE 16384u

struct one {
	struct block_request request;
	struct iovec iov;
	_Atomic bool done;
	uint8_t data[SIZE];
};

static void one_done(struct block_request *r) { atomic_store(&container_of(r, struct one, request)->done, true); }

static int together(struct block *b, struct one *ones, enum block_op op)
{
	int wrong = 0;

	for (unsigned n = 0; n < MANY; n++) {
		ones[n].iov = (struct iovec){ ones[n].data, SIZE };
		ones[n].done = false;
		ones[n].request = (struct block_request){ .op = op,
							  .offset = n * SIZE,
							  .size = SIZE,
							  .iov = &ones[n].iov,
							  .iov_count = 1,
							  .done = one_done };
		block_submit(b, &ones[n].request);
	}
	block_drain(b);
	for (unsigned n = 0; n < MANY; n++)
		wrong |= !atomic_load(&ones[n].done) || ones[n].request.result;
	return wrong;
}

int many_requests(const struct block_options *options, unsigned rounds)
{
	struct block *b = must_open(options);
	struct one *ones = calloc(MANY, sizeof(*ones));
	int wrong = !ones;

	for (unsigned round = 0; round < rounds && !wrong; round++) {
		for (unsigned n = 0; n < MANY; n++)
			memset(ones[n].data, (int)(n + round), SIZE);
		wrong = together(b, ones, BLOCK_WRITE);
		for (unsigned n = 0; n < MANY; n++)
			memset(ones[n].data, 0, SIZE);
		wrong |= together(b, ones, BLOCK_READ);
		for (unsigned n = 0; n < MANY; n++)
			for (unsigned at = 0; at < SIZE; at++)
				wrong |= ones[n].data[at] != (uint8_t)(n + round);
	}
	block_close(b);
	free(ones);
	return wrong;
}
