/*
 * A disk's image, opened as its options say.
 */
#include "devices/disk.h"

#include <errno.h>

static const char *const cache_names[] = {
	[BLOCK_WRITEBACK] = "writeback", [BLOCK_NONE] = "none", [BLOCK_UNSAFE] = "unsafe", NULL
};
static const char *const backing_names[] = {
	[BLOCK_BACKING_NEAR] = "near", [BLOCK_BACKING_ANY] = "any", [BLOCK_BACKING_NONE] = "none", NULL
};

int disk_option(const char *device, const char *option, const char *value, const char *const names[], struct error *err)
{
	for (int n = 0; names[n]; n++)
		if (!strcmp(value, names[n]))
			return n;
	return error_set(err, EINVAL, "%s: option '%s' is '%.64s'; expected %s, %s or %s", device, option, value,
			 names[0], names[1], names[2]);
}

static int check_options(const char *device, const struct disk_options *o, struct error *err)
{
	if (!o->file || !*o->file)
		return error_set(err, EINVAL, "%s: option 'file' is not given; expected an image, or a block device",
				 device);
	if (o->serial && strlen(o->serial) > DISK_SERIAL_SIZE)
		return error_set(err, EINVAL, "%s: option 'serial' is '%.64s'; expected at most %u characters", device,
				 o->serial, DISK_SERIAL_SIZE);
	return 0;
}

struct block *disk_open(const char *device, const struct disk_options *o, const struct block_memory *memory,
			struct error *err)
{
	struct block_options options = {
		.file = o->file,
		.format = o->format,
		.readonly = o->readonly,
		.snapshot = o->snapshot,
		.discard = o->discard,
		.memory = memory,
	};
	int cache = disk_option(device, "cache", o->cache, cache_names, err);
	int backing = disk_option(device, "backing", o->backing, backing_names, err);
	int rc = check_options(device, o, err);

	if (cache < 0 || backing < 0 || rc)
		return NULL;
	options.cache = (enum block_cache)cache;
	options.backing = (enum block_backing)backing;
	return block_open(&options, err);
}
