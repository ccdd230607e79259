/*
 * Requests: checked, done where the caller is or by a worker. Knows no format.
 */
#include "block/private.h"

#include <errno.h>
#include <stdlib.h>

/* Reads and writes up to this size are done in the caller's thread where the page cache has them: that costs less than to wake another. */
#define INLINE_MAX (256u << 10)

struct block {
	struct image *image;
	struct workers *workers;
	struct block_info info;
	bool guard; /* nobody said that it is raw */
};

/* ---- what is wrong with a request ---- */

static int check(const struct block *block, const struct block_request *r)
{
	if (r->op == BLOCK_FLUSH)
		return 0;
	if ((r->offset | r->size) % BLOCK_SECTOR || !range_ok(r->offset, r->size, block->info.size))
		return -EINVAL;
	if (r->op != BLOCK_READ && block->info.readonly)
		return -EPERM;
	return 0;
}

/* ---- doing it ---- */

/*
 * A disk that was taken for raw by its first bytes stays what it is: a guest cannot write a header there with which the next who opens it
 * would follow its file names. What is looked at is what is written, whatever becomes of the guest's memory meanwhile.
 */
static int write_beginning(struct block *block, struct span *span, bool nowait)
{
	uint8_t head[BLOCK_SECTOR];
	struct iovec iov = { head, sizeof(head) };

	span_copy(*span, head, sizeof(head));
	span_advance(span, sizeof(head));
	if (probe_is_dangerous(head, sizeof(head)))
		return -EPERM;
	return block->image->ops->write(block->image, 0, sizeof(head), span_of(&iov), nowait);
}

static int transfer(struct block *block, struct block_request *r, bool nowait)
{
	const struct image_ops *ops = block->image->ops;
	struct span span = { r->iov, r->iov_count, 0 };

	if (r->op == BLOCK_READ)
		return image_read(block->image, r->offset, r->size, span, nowait);
	if (block->guard && !r->offset) {
		int rc = write_beginning(block, &span, nowait);

		if (rc || r->size == BLOCK_SECTOR)
			return rc;
		return ops->write(block->image, BLOCK_SECTOR, r->size - BLOCK_SECTOR, span, nowait);
	}
	return ops->write(block->image, r->offset, r->size, span, nowait);
}

static int perform(struct block *block, struct block_request *r)
{
	const struct image_ops *ops = block->image->ops;
	bool durable = r->fua && (r->op == BLOCK_WRITE || r->op == BLOCK_WRITE_ZEROES);
	int rc = check(block, r);

	if (rc || (!r->size && r->op != BLOCK_FLUSH))
		return rc;
	switch (r->op) {
	case BLOCK_READ:
	case BLOCK_WRITE: rc = transfer(block, r, false); break;
	case BLOCK_FLUSH: return block->info.readonly ? 0 : ops->flush(block->image);
	case BLOCK_DISCARD: return block->info.can_discard ? ops->discard(block->image, r->offset, r->size) : 0;
	case BLOCK_WRITE_ZEROES:
		rc = ops->zero(block->image, r->offset, r->size, r->may_unmap && block->info.can_discard);
		break;
	default: return -EINVAL;
	}
	return !rc && durable ? ops->flush(block->image) : rc;
}

/* Is there nothing to wait for, as far as the request alone says? */
static bool is_quick(const struct block *block, const struct block_request *r)
{
	switch (r->op) {
	case BLOCK_READ: return r->size <= INLINE_MAX;
	case BLOCK_WRITE: return r->size <= INLINE_MAX && !(r->fua && block->info.writeback);
	case BLOCK_FLUSH: return !block->info.writeback;
	case BLOCK_DISCARD: return !block->info.can_discard;
	default: return false;
	}
}

int block_try(struct block *block, struct block_request *r)
{
	int rc = check(block, r);

	if (!rc && !is_quick(block, r))
		return -EAGAIN;
	if (!rc && r->size && (r->op == BLOCK_READ || r->op == BLOCK_WRITE))
		rc = transfer(block, r, true);
	if (rc == -EAGAIN)
		return rc;
	r->result = rc;
	return 0;
}

int block_do(struct block *block, struct block_request *r)
{
	r->result = perform(block, r);
	return r->result;
}

static void run(void *opaque, struct block_request *r)
{
	r->result = perform(opaque, r);
	r->done(r);
}

void block_submit(struct block *block, struct block_request *r) { workers_submit(block->workers, r); }

bool block_has_lost(const struct block *block) { return atomic_load(&block->image->file->sync_failed); }

void block_drain(struct block *block) { workers_drain(block->workers); }

static void give_up(struct block *block, bool begins)
{
	for (struct image *image = block->image; image; image = image->backing)
		if (image->ops->give_up)
			image->ops->give_up(image, begins);
}

void block_give_up(struct block *block)
{
	give_up(block, true);
	workers_drain(block->workers);
	give_up(block, false);
}

/* ---- life ---- */

const struct block_info *block_info(const struct block *block) { return &block->info; }

static void describe(struct block *block, const struct block_options *options)
{
	const struct image *image = block->image;
	uint32_t sector = MAX(image->file->sector, BLOCK_SECTOR);
	bool readonly = options->readonly && !options->snapshot;

	block->info = (struct block_info){
		.size = image->size,
		.logical_size = sector,
		.physical_size = MAX(sector, PAGE_SIZE),
		.discard_size = MAX(image->cluster, PAGE_SIZE),
		.readonly = readonly,
		.can_discard = !readonly && (options->discard || options->snapshot),
		.writeback = !readonly && !image->file->unsafe,
		.format = image->ops->name,
		.file = image->file->path,
	};
}

struct block *block_open(const struct block_options *options, struct error *err)
{
	struct block *block = calloc(1, sizeof(*block));
	bool probed = false;

	if (!block) {
		error_set_errno(err, ENOMEM, "open '%s'", options->file);
		return NULL;
	}
	block->image = image_open_for_use(options, &probed, err);
	block->workers = block->image ? workers_create(run, block, err) : NULL;
	if (!block->workers) {
		image_close(block->image);
		free(block);
		return NULL;
	}
	describe(block, options);
	block->guard = probed && !options->snapshot;
	return block;
}

void block_close(struct block *block)
{
	if (!block)
		return;
	workers_drain(block->workers);
	workers_destroy(block->workers);
	image_close(block->image);
	free(block);
}
