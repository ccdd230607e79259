/*
 * Raw images: the file is the disk. One whose size is no multiple of a sector is rounded up; what is behind its end are zeros.
 */
#include "block/private.h"

#include <errno.h>
#include <stdlib.h>

static int raw_read(struct image *image, uint64_t offset, uint64_t size, struct span span, bool nowait)
{
	return file_read(image->file, offset, size, span, nowait);
}

static int raw_write(struct image *image, uint64_t offset, uint64_t size, struct span span, bool nowait)
{
	/* The page cache takes it without a wait, as far as the host knows beforehand. */
	return nowait && image->file->direct ? -EAGAIN : file_write(image->file, offset, size, span);
}

static int raw_zero(struct image *image, uint64_t offset, uint64_t size, bool unmap)
{
	return file_zero(image->file, offset, size, unmap);
}

static int raw_discard(struct image *image, uint64_t offset, uint64_t size)
{
	file_discard(image->file, offset, size);
	return 0;
}

static int raw_flush(struct image *image) { return file_sync(image->file); }

static int raw_content(struct image *image, uint64_t offset, uint64_t size, enum image_content *content,
		       uint64_t *length)
{
	*content = file_has_data(image->file, offset, size, length) ? IMAGE_DATA : IMAGE_ZEROS;
	/* Holes and data in whole sectors; a part of one is data. */
	*length =
		*content == IMAGE_DATA ? MIN(size, align_up(*length, BLOCK_SECTOR)) : align_down(*length, BLOCK_SECTOR);
	if (!*length) {
		*content = IMAGE_DATA;
		*length = MIN(size, BLOCK_SECTOR);
	}
	return 0;
}

static int raw_resize(struct image *image, uint64_t size, struct error *err)
{
	int rc;

	if (image->file->is_device)
		return error_set(err, EINVAL, "'%s' is a block device: its size does not change", image->file->path);
	rc = file_set_size(image->file, size);
	if (rc)
		return error_set_errno(err, -rc, "cannot change the size of '%s'", image->file->path);
	image->size = size;
	return 0;
}

static void raw_close(struct image *image)
{
	file_close(image->file);
	free(image);
}

static const struct image_ops raw_ops = {
	.name = "raw",
	.read = raw_read,
	.write = raw_write,
	.zero = raw_zero,
	.discard = raw_discard,
	.flush = raw_flush,
	.content = raw_content,
	.resize = raw_resize,
	.close = raw_close,
};

struct image *raw_open(struct file *file, struct error *err)
{
	struct image *image = calloc(1, sizeof(*image));

	if (!image) {
		error_set_errno(err, ENOMEM, "open '%s'", file->path);
		file_close(file);
		return NULL;
	}
	image->ops = &raw_ops;
	image->file = file;
	image->size = align_up(atomic_load(&file->size), BLOCK_SECTOR);
	return image;
}
