/*
 * What one request after the other costs.
 */
#include "block.h"

#include <errno.h>
#include <stdlib.h>

static void request(struct block *b, enum block_op op, uint64_t offset, void *data, uint64_t size)
{
	struct iovec iov = { data, size };
	struct block_request r = { .op = op, .offset = offset, .size = size, .iov = &iov, .iov_count = 1 };

	if (block_try(b, &r) == -EAGAIN)
		must_do(b, op, offset, data, size);
}

int measure(const struct block_options *options, const char *kind, uint64_t size, unsigned count)
{
	enum block_op op = strcmp(kind, "write") ? BLOCK_READ : BLOCK_WRITE;
	struct block *b = must_open(options);
	uint8_t *data = aligned_alloc(PAGE_SIZE, size);
	uint64_t from;

	if (!data || count * size > block_info(b)->size)
		return 1;
	memset(data, 1, size);
	from = host_monotonic_ns();
	for (unsigned n = 0; n < count; n++)
		request(b, op, n * size, data, size);
	printf("%.2f\n", (double)(host_monotonic_ns() - from) / count / 1000);
	block_close(b);
	free(data);
	return 0;
}
