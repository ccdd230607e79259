/*
 * Images in layers: which format a file has, what it stands on, a temporary layer on top. Reading that does not end with a layer.
 */
#define _GNU_SOURCE
#include "block/private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#define HEAD 4096 /* bytes that say the format */

struct format {
	const char *name;
	struct image *(*open)(struct file *, const struct block_options *, unsigned depth, struct error *);
};

static struct image *open_raw(struct file *file, const struct block_options *options, unsigned depth, struct error *err)
{
	(void)options;
	(void)depth;
	return raw_open(file, err);
}

static const struct format formats[] = {
	{ "raw", open_raw },
	{ "qcow2", qcow2_open },
};

const char *file_format(struct file *file, const char *wanted, struct error *err)
{
	uint8_t *head;
	size_t size = MIN(atomic_load(&file->size), HEAD);
	const char *name = NULL;
	int rc;

	if (wanted && strcmp(wanted, "auto") != 0)
		return wanted;
	head = calloc(1, HEAD);
	rc = head ? file_read_bytes(file, 0, head, size) : -ENOMEM;
	if (rc)
		error_set_errno(err, -rc, "cannot read '%s'", file->path);
	else
		name = probe_format(head, size);
	free(head);
	return name;
}

static struct image *open_format(struct file *file, const char *name, const struct block_options *options,
				 unsigned depth, struct error *err)
{
	for (size_t n = 0; n < ARRAY_SIZE(formats); n++)
		if (!strcmp(formats[n].name, name))
			return formats[n].open(file, options, depth, err);
	error_set(err, EINVAL, "'%s': format '%s' is unknown; expected auto, raw or qcow2", file->path, name);
	file_close(file);
	return NULL;
}

static struct image *open_nbd(const struct block_options *options, bool *probed, struct error *err)
{
	bool any = !options->format || !strcmp(options->format, "auto");

	*probed = any;
	if (any || !strcmp(options->format, "raw"))
		return nbd_open(options, err);
	error_set(err, EINVAL, "'%s': format '%s' is not possible; expected raw", options->file, options->format);
	return NULL;
}

struct image *image_open(const struct block_options *options, unsigned depth, bool *probed, struct error *err)
{
	const char *name;
	struct file *file;

	if (nbd_is_address(options->file))
		return open_nbd(options, probed, err);
	if (file_open(&file, options->file, options, err))
		return NULL;
	name = file_format(file, options->format, err);
	if (!name) {
		file_close(file);
		return NULL;
	}
	*probed = name != options->format && !strcmp(name, "raw");
	return open_format(file, name, options, depth, err);
}

/* ---- a layer that is gone when it is closed ---- */

static int open_nameless(const struct block_options *options, struct file **file, struct error *err)
{
	const char *folder = getenv("TMPDIR");
	int fd;

	if (!folder || !*folder)
		folder = "/var/tmp";
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot make a temporary file for '%s' in '%s' (TMPDIR)",
				       options->file, folder);
	return file_adopt(file, fd, options->file, err);
}

/* Takes the base in any case. */
static struct image *put_on_top(struct image *base, const struct block_options *options, struct error *err)
{
	struct block_create_options create = { .file = options->file, .size = base->size };
	struct block_options open = { .cache = BLOCK_UNSAFE, .discard = true, .memory = options->memory };
	struct image *image = NULL;
	struct file *file = NULL;
	int rc = open_nameless(options, &file, err);

	if (!rc)
		rc = qcow2_create(file, &create, err);
	if (!rc)
		image = qcow2_open(file, &open, 0, err);
	else
		file_close(file);
	if (image)
		image->backing = base;
	else
		image_close(base);
	return image;
}

struct image *image_open_for_use(const struct block_options *options, bool *probed, struct error *err)
{
	struct block_options base = *options;
	struct image *image;

	if (!options->snapshot)
		return image_open(options, 0, probed, err);
	base.readonly = true;
	image = image_open(&base, 0, probed, err);
	return image ? put_on_top(image, options, err) : NULL;
}

void image_close(struct image *image)
{
	while (image) {
		struct image *backing = image->backing;

		image->ops->close(image);
		image = backing;
	}
}

int image_read(struct image *image, uint64_t offset, uint64_t size, struct span span, bool nowait)
{
	uint64_t inside = offset < image->size ? MIN(size, image->size - offset) : 0;
	int rc = inside ? image->ops->read(image, offset, inside, span, nowait) : 0;

	if (!rc && inside < size) {
		span_advance(&span, inside);
		span_zero(span, size - inside);
	}
	return rc;
}

int image_read_bytes(struct image *image, uint64_t offset, void *to, size_t size)
{
	struct iovec iov = { to, size };

	return image_read(image, offset, size, span_of(&iov), false);
}

int image_content(struct image *image, uint64_t offset, uint64_t size, enum image_content *content, uint64_t *length)
{
	*length = size;
	for (; image; image = image->backing) {
		int rc;

		*content = IMAGE_ZEROS;
		if (offset >= image->size)
			return 0;
		rc = image->ops->content(image, offset, MIN(*length, image->size - offset), content, length);
		if (rc || *content != IMAGE_BACKING)
			return rc;
	}
	*content = IMAGE_ZEROS;
	return 0;
}
