/*
 * The file that an image stands on. Its name was written by whoever made the image, so that it may lead anywhere: rules first
 * (enum block_backing).
 */
#define _GNU_SOURCE
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

/* "nbd:..." names no file; "file:" does. */
static int strip_protocol(const struct qcow2 *q, const char **name, struct error *err)
{
	size_t length = strcspn(*name, ":/");

	if ((*name)[length] != ':')
		return 0;
	if (length != 4 || strncmp(*name, "file", 4) != 0)
		return error_set(err, EINVAL,
				 "'%s': its backing file is '%.128s', of the protocol '%.*s'; expected a file's name",
				 q->image.file->path, *name, (int)MIN(length, 32), *name);
	*name += 5;
	return 0;
}

/* Relative to the folder of the image, as it was named. */
char *qcow2_full_name(const char *image, const char *name)
{
	const char *slash = strrchr(image, '/');
	char *full;

	if (name[0] == '/' || !slash)
		return strdup(name);
	return asprintf(&full, "%.*s/%s", (int)(slash - image), image, name) < 0 ? NULL : full;
}

static bool is_below(const char *real_image, const char *real_backing)
{
	size_t folder = (size_t)(strrchr(real_image, '/') - real_image) + 1;

	return !strncmp(real_image, real_backing, folder);
}

static int check_near(const struct qcow2 *q, const char *real, struct error *err)
{
	char *image = realpath(q->image.file->path, NULL);
	struct stat st;
	int rc = 0;

	if (!image || stat(real, &st))
		rc = error_set_errno(err, errno, "'%s': cannot examine its backing file '%s'", q->image.file->path,
				     real);
	else if (!is_below(image, real) || !S_ISREG(st.st_mode))
		rc = error_set(err, EPERM,
			       "'%s': its backing file '%.160s' is not a regular file in its own folder or below; "
			       "backing=any allows it",
			       q->image.file->path, real);
	free(image);
	return rc;
}

/* The name to open, which is the caller's to free; NULL with a sentence. */
static char *find(const struct qcow2 *q, enum block_backing rule, struct error *err)
{
	const char *name = q->header.backing;
	char *full, *real;

	if (rule == BLOCK_BACKING_NONE) {
		error_set(err, EPERM, "'%s': it has a backing file, '%.160s', and none is allowed", q->image.file->path,
			  name);
		return NULL;
	}
	if (strip_protocol(q, &name, err))
		return NULL;
	full = qcow2_full_name(q->image.file->path, name);
	real = full ? realpath(full, NULL) : NULL;
	if (!real)
		error_set_errno(err, full ? errno : ENOMEM, "'%s': cannot find its backing file '%.160s'",
				q->image.file->path, name);
	free(full);
	if (real && rule == BLOCK_BACKING_NEAR && check_near(q, real, err)) {
		free(real);
		return NULL;
	}
	return real;
}

struct image *qcow2_open_backing(const struct qcow2 *q, const struct block_options *options, bool readonly,
				 unsigned depth, struct error *err)
{
	struct block_options below = { .readonly = readonly,
				       .unlocked = options->unlocked && readonly,
				       .cache = options->cache,
				       .backing = options->backing,
				       .memory = options->memory };
	struct image *image;
	bool probed;
	char *file;

	if (depth >= IMAGE_LAYERS) {
		error_set(err, ELOOP, "'%s': more than %d images stand on each other, or in a circle",
			  q->image.file->path, IMAGE_LAYERS);
		return NULL;
	}
	file = find(q, options->backing, err);
	if (!file)
		return NULL;
	below.file = file;
	below.format = q->header.backing_format[0] ? q->header.backing_format : NULL;
	image = image_open(&below, depth + 1, &probed, err);
	free(file);
	return image;
}
