/*
 * New images, and new sizes.
 */
#define _GNU_SOURCE
#include "block/private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The size of the disk that the new one will show where it has nothing itself. */
static int find_backing_size(struct block_create_options *o, struct error *err)
{
	char *name = qcow2_full_name(o->file, o->backing);
	struct block_options options = {
		.file = name, .format = o->backing_format, .readonly = true, .backing = o->rule
	};
	struct image *image;
	bool probed;

	if (!name)
		return error_set_errno(err, ENOMEM, "make '%s'", o->file);
	image = image_open(&options, 0, &probed, err);
	free(name);
	if (!image)
		return err ? error_prefix(err, "backing file of '%s'", o->file) : -EINVAL;
	if (!o->size)
		o->size = image->size;
	image_close(image);
	return 0;
}

static int create_raw(struct file *file, const struct block_create_options *o, struct error *err)
{
	int rc = file_set_size(file, align_up(o->size, BLOCK_SECTOR));

	return rc ? error_set_errno(err, -rc, "cannot make '%s' %llu bytes large", o->file, (unsigned long long)o->size)
		  : 0;
}

static int check_create(const struct block_create_options *o, struct error *err)
{
	bool raw = !strcmp(o->format, "raw");

	if (!raw && strcmp(o->format, "qcow2") != 0)
		return error_set(err, EINVAL, "'%s': format '%s' cannot be made; expected raw or qcow2", o->file,
				 o->format);
	if (raw && (o->backing || o->cluster_size || o->refcount_bits || o->version || o->lazy_refcounts))
		return error_set(err, EINVAL, "'%s': a raw image has no options and no backing file", o->file);
	if (o->size > INT64_MAX - BLOCK_SECTOR)
		return error_set(err, EFBIG, "'%s': a disk of %llu bytes is too large", o->file,
				 (unsigned long long)o->size);
	if (o->backing && !o->backing_format)
		return error_set(err, EINVAL, "'%s': its backing file needs a format (-F raw or -F qcow2)", o->file);
	return 0;
}

/* Whoever else has it open would see it change under them: locked first. */
static int fill(const struct block_create_options *o, struct error *err)
{
	struct block_options options = { .file = o->file };
	struct file *file;
	int rc = file_open(&file, o->file, &options, err);

	if (rc)
		return rc;
	rc = file_set_size(file, 0);
	if (rc)
		error_set_errno(err, -rc, "cannot empty '%s'", o->file);
	else
		rc = strcmp(o->format, "raw") ? qcow2_create(file, o, err) : create_raw(file, o, err);
	if (!rc && file_sync(file))
		rc = error_set_errno(err, EIO, "cannot write '%s'", o->file);
	file_close(file);
	return rc;
}

int block_create(const struct block_create_options *options, struct error *err)
{
	struct block_create_options o = *options;
	bool made;
	int fd, rc = check_create(&o, err);

	if (!rc && o.backing)
		rc = find_backing_size(&o, err);
	if (!rc && strcmp(o.format, "raw") != 0)
		rc = qcow2_can_create(&o, err);
	if (rc)
		return rc;
	fd = open(o.file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	made = fd >= 0;
	if (!made && errno != EEXIST)
		return error_set_errno(err, errno, "cannot make '%s'", o.file);
	if (made)
		close(fd);
	rc = fill(&o, err);
	if (rc && made)
		unlink(o.file);
	return rc;
}

int block_resize(const struct block_options *options, uint64_t size, bool shrink, struct error *err)
{
	bool probed;
	struct image *image = image_open(options, 0, &probed, err);
	uint64_t before;
	int rc;

	if (!image)
		return err ? -err->code : -EINVAL;
	before = image->size;
	if (size > INT64_MAX - BLOCK_SECTOR)
		rc = error_set(err, EFBIG, "'%s': a disk of %llu bytes is too large", options->file,
			       (unsigned long long)size);
	else if (size < before && !shrink)
		rc = error_set(err, EINVAL,
			       "'%s' has %llu bytes; --shrink makes it smaller, which loses what is behind %llu",
			       options->file, (unsigned long long)before, (unsigned long long)size);
	else
		rc = image->ops->resize(image, align_up(size, BLOCK_SECTOR), err);
	if (!rc && image->ops->flush(image))
		rc = error_set_errno(err, EIO, "cannot write '%s'", options->file);
	image_close(image);
	return rc;
}
