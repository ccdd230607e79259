/*
 * From one image to another: converted, committed to what it stands on, or put on something else.
 */
#include "block/private.h"

#include <errno.h>
#include <stdlib.h>

#define CHUNK	   (2u << 20)	/* bytes that are copied at once */
#define ZERO_CHUNK 4096u	/* bytes of zeros, aligned, that are left out */
#define LOOK	   (1ull << 30) /* bytes that are looked at in one go where there is nothing */

struct copy {
	const struct block_progress *progress;
	uint64_t all;
	uint8_t *data, *other;
};

static int copy_init(struct copy *c, const struct block_progress *progress, uint64_t all)
{
	*c = (struct copy){ .progress = progress, .all = all };
	c->data = aligned_alloc(PAGE_SIZE, CHUNK);
	c->other = aligned_alloc(PAGE_SIZE, CHUNK);
	return c->data && c->other ? 0 : -ENOMEM;
}

static void copy_free(struct copy *c)
{
	free(c->data);
	free(c->other);
}

static void tell(const struct copy *c, uint64_t done)
{
	if (c->progress && c->progress->tell)
		c->progress->tell(c->progress->opaque, done, c->all);
}

static bool is_zero(const uint8_t *data, size_t size) { return !data[0] && !memcmp(data, data + 1, size - 1); }

static int write_bytes(struct image *to, uint64_t offset, void *data, uint64_t size)
{
	struct iovec iov = { data, size };

	return to->ops->write(to, offset, size, span_of(&iov), false);
}

/* How many bytes from the beginning are zeros, or none of them, in whole pieces. */
static uint64_t run_of(const uint8_t *data, uint64_t size, bool *zeros)
{
	uint64_t at = MIN(ZERO_CHUNK, size);

	*zeros = is_zero(data, at);
	while (at < size && is_zero(data + at, MIN(ZERO_CHUNK, size - at)) == *zeros)
		at += MIN(ZERO_CHUNK, size - at);
	return at;
}

/* empty: zeros are there already. */
static int write_sparse(struct image *to, uint64_t offset, uint8_t *data, uint64_t size, bool empty)
{
	while (size) {
		bool zeros;
		uint64_t part = run_of(data, size, &zeros);
		int rc = 0;

		if (!zeros)
			rc = write_bytes(to, offset, data, part);
		else if (!empty)
			rc = to->ops->zero(to, offset, part, true);
		if (rc)
			return rc;
		offset += part;
		data += part;
		size -= part;
	}
	return 0;
}

/* ---- convert ---- */

static int convert_all(struct copy *c, struct image *from, struct image *to)
{
	bool empty = !to->file->is_device || to->cluster;
	uint64_t length;

	for (uint64_t offset = 0; offset < from->size; offset += length) {
		enum image_content content;
		int rc = image_content(from, offset, MIN(LOOK, from->size - offset), &content, &length);

		if (!rc && content == IMAGE_ZEROS && !empty)
			rc = to->ops->zero(to, offset, length, true);
		if (!rc && content == IMAGE_DATA) {
			length = MIN(length, CHUNK);
			rc = image_read_bytes(from, offset, c->data, length);
			if (!rc)
				rc = write_sparse(to, offset, c->data, length, empty);
		}
		if (rc)
			return rc;
		tell(c, offset + length);
	}
	return to->ops->flush(to);
}

static int convert_to(struct image *from, const struct block_create_options *create,
		      const struct block_progress *progress, struct error *err)
{
	struct block_options open = { .file = create->file, .format = create->format };
	struct image *to;
	struct copy c;
	bool probed;
	int rc = block_create(create, err);

	if (rc)
		return rc;
	to = image_open(&open, 0, &probed, err);
	if (!to)
		return err ? -err->code : -EIO;
	rc = copy_init(&c, progress, from->size);
	if (!rc)
		rc = convert_all(&c, from, to);
	copy_free(&c);
	image_close(to);
	return rc ? error_set_errno(err, -rc, "cannot copy '%s' to '%s'", from->file->path, create->file) : 0;
}

int block_convert(const struct block_options *options, const struct block_create_options *to,
		  const struct block_progress *progress, struct error *err)
{
	struct block_create_options create = *to;
	struct block_options open = *options;
	struct image *from;
	bool probed;
	int rc;

	open.readonly = true;
	from = image_open(&open, 0, &probed, err);
	if (!from)
		return err ? -err->code : -EIO;
	create.size = from->size;
	rc = convert_to(from, &create, progress, err);
	image_close(from);
	return rc;
}

/* ---- commit ---- */

static int commit_part(struct copy *c, struct image *image, uint64_t offset, uint64_t *length,
		       enum image_content content)
{
	struct image *base = image->backing;
	int rc;

	if (content == IMAGE_BACKING)
		return 0;
	if (content == IMAGE_ZEROS)
		return base->ops->zero(base, offset, *length, true);
	*length = MIN(*length, CHUNK);
	rc = image_read_bytes(image, offset, c->data, *length);
	return rc ? rc : write_bytes(base, offset, c->data, *length);
}

static int commit_all(struct copy *c, struct image *image)
{
	uint64_t length;
	int rc;

	for (uint64_t offset = 0; offset < image->size; offset += length) {
		enum image_content content;

		rc = image->ops->content(image, offset, MIN(LOOK, image->size - offset), &content, &length);
		if (!rc)
			rc = commit_part(c, image, offset, &length, content);
		if (rc)
			return rc;
		tell(c, offset + length);
	}
	rc = image->backing->ops->flush(image->backing);
	return rc ? rc : qcow2_make_empty(image);
}

static int commit(struct image *image, const struct block_progress *progress, struct error *err)
{
	struct image *base = image->backing;
	struct copy c;
	int rc = 0;

	if (base->size < image->size)
		rc = base->ops->resize(base, image->size, err);
	if (rc)
		return rc;
	rc = copy_init(&c, progress, image->size);
	if (!rc)
		rc = commit_all(&c, image);
	copy_free(&c);
	return rc ? error_set_errno(err, -rc, "cannot commit '%s' to '%s'", image->file->path, base->file->path) : 0;
}

/* An image that has, or may have, something to stand on. */
static int open_qcow2_file(const struct block_options *options, struct file **file, struct error *err)
{
	const char *format;
	int rc = file_open(file, options->file, options, err);

	if (rc)
		return rc;
	format = file_format(*file, options->format, err);
	if (format && !strcmp(format, "qcow2"))
		return 0;
	rc = format ? error_set(err, EINVAL, "'%s' is %s: only qcow2 images stand on others", options->file, format)
		    : -EIO;
	file_close(*file);
	return rc;
}

int block_commit(const struct block_options *options, const struct block_progress *progress, struct error *err)
{
	struct image *image;
	struct file *file;
	int rc = open_qcow2_file(options, &file, err);

	if (rc)
		return rc;
	image = qcow2_open_for_commit(file, options, err);
	if (!image)
		return err ? -err->code : -EIO;
	rc = commit(image, progress, err);
	image_close(image);
	return rc;
}

/* ---- rebase ---- */

/* Where the image has nothing itself, and the new one would not show the same as the old, it gets what it showed. */
static int rebase_part(struct copy *c, struct image *image, struct image *below, uint64_t offset, uint64_t size)
{
	struct iovec other = { c->other, size };
	int rc = image_read_bytes(image, offset, c->data, size);

	if (!rc && below)
		rc = image_read(below, offset, size, span_of(&other), false);
	else if (!rc)
		memset(c->other, 0, size);
	for (uint64_t at = 0; at < size && !rc; at += ZERO_CHUNK) {
		uint64_t part = MIN(ZERO_CHUNK, size - at);

		if (memcmp(c->data + at, c->other + at, part) != 0)
			rc = write_bytes(image, offset + at, c->data + at, part);
	}
	return rc;
}

static int rebase_all(struct copy *c, struct image *image, struct image *below)
{
	uint64_t length;

	for (uint64_t offset = 0; offset < image->size; offset += length) {
		enum image_content content;
		int rc = image->ops->content(image, offset, MIN(CHUNK, image->size - offset), &content, &length);

		if (!rc && content == IMAGE_BACKING)
			rc = rebase_part(c, image, below, offset, length);
		if (rc)
			return rc;
		tell(c, offset + length);
	}
	return image->ops->flush(image);
}

static int open_new_base(const struct block_options *options, const char *backing, const char *format,
			 struct image **below, struct error *err)
{
	struct block_options open = { .readonly = true, .format = format, .backing = options->backing };
	char *name = qcow2_full_name(options->file, backing);
	bool probed;

	if (!name)
		return error_set_errno(err, ENOMEM, "rebase '%s'", options->file);
	open.file = name;
	*below = image_open(&open, 0, &probed, err);
	free(name);
	return *below ? 0 : -EINVAL;
}

static int rebase(struct image *image, const struct block_options *options, const char *backing, const char *format,
		  const struct block_progress *progress, struct error *err)
{
	struct image *below = NULL;
	struct copy c;
	int rc = backing ? open_new_base(options, backing, format, &below, err) : 0;

	if (rc)
		return rc;
	rc = copy_init(&c, progress, image->size);
	if (!rc)
		rc = rebase_all(&c, image, below);
	copy_free(&c);
	image_close(below);
	return rc ? error_set_errno(err, -rc, "cannot rebase '%s'", options->file) : 0;
}

int block_rebase(const struct block_options *options, const char *backing, const char *format, bool trust,
		 const struct block_progress *progress, struct error *err)
{
	struct image *image;
	struct file *file;
	int rc = 0;

	if (backing && !format)
		return error_set(err, EINVAL, "'%s': its new backing file needs a format (-F raw or -F qcow2)",
				 options->file);
	if (open_qcow2_file(options, &file, err))
		return err ? -err->code : -EIO;
	image = trust ? qcow2_open_top(file, options, err) : qcow2_open(file, options, 0, err);
	if (!image)
		return err ? -err->code : -EIO;
	if (!trust)
		rc = rebase(image, options, backing, format, progress, err);
	if (!rc)
		rc = qcow2_set_backing(image, backing, format, err);
	image_close(image);
	return rc;
}
