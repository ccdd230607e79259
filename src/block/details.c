/*
 * What an image says of itself, and whether it contradicts itself.
 */
#include "block/private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

static int examine_raw(struct file *file, struct block_details *d, struct error *err)
{
	struct stat st;

	if (fstat(file->fd, &st))
		return error_set_errno(err, errno, "cannot examine '%s'", file->path);
	d->file_size = d->size = atomic_load(&file->size);
	d->disk_size = (uint64_t)st.st_blocks * 512;
	return 0;
}

static int open_to_look(const struct block_options *options, struct file **file, const char **format, struct error *err)
{
	struct block_options look = *options;
	int rc;

	look.readonly = true;
	rc = file_open(file, options->file, &look, err);
	if (rc)
		return rc;
	*format = file_format(*file, options->format, err);
	if (*format)
		return 0;
	file_close(*file);
	return -EIO;
}

int block_examine(const struct block_options *options, struct block_details *d, struct error *err)
{
	const char *format;
	struct file *file;
	int rc;

	memset(d, 0, sizeof(*d));
	rc = open_to_look(options, &file, &format, err);
	if (rc)
		return rc;
	snprintf(d->format, sizeof(d->format), "%s", format);
	rc = examine_raw(file, d, err);
	if (!rc && !strcmp(format, "qcow2"))
		rc = qcow2_examine(file, d, err);
	else if (!rc && strcmp(format, "raw") != 0)
		rc = error_set(err, EINVAL, "'%s': format '%s' is unknown; expected auto, raw or qcow2", options->file,
			       format);
	file_close(file);
	return rc;
}

void block_details_free(struct block_details *d)
{
	free(d->snapshots);
	d->snapshots = NULL;
}

int block_check(const struct block_options *options, enum block_repair repair, struct block_check_result *result,
		void (*report)(void *opaque, const char *line), void *opaque, struct error *err)
{
	struct block_options open = *options;
	const char *format;
	struct file *file;
	int rc = open_to_look(options, &file, &format, err);

	memset(result, 0, sizeof(*result));
	if (rc)
		return rc;
	if (strcmp(format, "qcow2") != 0) {
		file_close(file);
		return error_set(err, EINVAL, "'%s' is %s: such images have nothing to check", options->file, format);
	}
	open.readonly = repair == BLOCK_REPAIR_NONE;
	if (!open.readonly) {
		file_close(file);
		rc = file_open(&file, options->file, &open, err);
	}
	return rc ? rc : qcow2_check_file(file, &open, repair, result, report, opaque, err);
}
