/*
 * A disk for cloud-init (its NoCloud data source): the files that it looks for, on a disc called "cidata" that is in memory, and that the guest cannot write to. The same files make
 * the same disk, and so the same instance.
 */
#define _GNU_SOURCE
#include "devices/disk.h"
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define HOSTNAME  "doppel"
#define FILE_MOST (16u << 20) /* bytes */

/* _(name, as the user and cloud-init call it, help), in the order of those names */
#define SEED_FILES(_)                                                                                                  \
	_(meta_data, "meta-data", "the instance's name and the like; made by doppel if not given")                     \
	_(network_config, "network-config", "its network")                                                             \
	_(user_data, "user-data", "what is to be done: #cloud-config, or a script")                                    \
	_(vendor_data, "vendor-data", "the same by whoever made the image")

struct seed_options {
#define _(name, text, help) const char *name;
	SEED_FILES(_)
#undef _
};

enum {
#define _(name, text, help) SEED_##name,
	SEED_FILES(_)
#undef _
		SEED_COUNT
};

static const struct device_option options[] = {
#define _(name, text, help) { text, DEVICE_TEXT, 0, 0, NULL, help, offsetof(struct seed_options, name) },
	SEED_FILES(_)
#undef _
		{ .name = NULL },
};

struct seed {
	struct {
		void *content; /* NULL: it is not there */
		size_t size;
	} files[SEED_COUNT];
};

static void free_seed(struct seed *seed)
{
	for (unsigned n = 0; n < SEED_COUNT; n++)
		free(seed->files[n].content);
}

static int read_all(int fd, const char *path, void **file, size_t *file_size, struct error *err)
{
	char *content = malloc(FILE_MOST + 1);
	size_t size = 0;
	ssize_t n = 1;

	if (!content)
		return error_set_errno(err, ENOMEM, "cloud-init: '%s'", path);
	while (n > 0 && size <= FILE_MOST) {
		n = read(fd, content + size, FILE_MOST + 1 - size);
		if (n > 0)
			size += (size_t)n;
		else if (n < 0 && errno == EINTR)
			n = 1;
	}
	if (n < 0 || size > FILE_MOST) {
		int rc = n < 0 ? error_set_errno(err, errno, "cloud-init: cannot read '%s'", path)
			       : error_set(err, EFBIG, "cloud-init: '%s' has more than %u bytes", path, FILE_MOST);

		free(content);
		return rc;
	}
	*file = content;
	*file_size = size;
	return 0;
}

static int read_file(const char *path, void **file, size_t *size, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

	if (fd < 0)
		return error_set_errno(err, errno, "cloud-init: cannot open '%s'", path);
	rc = read_all(fd, path, file, size, err);
	close(fd);
	return rc;
}

/* FNV-1a: other files are another instance, for which cloud-init does its work anew. */
static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
	const uint8_t *bytes = data;

	for (size_t n = 0; n < size; n++)
		hash = (hash ^ bytes[n]) * 0x100000001b3;
	return hash;
}

static int make_meta_data(struct seed *seed, struct error *err)
{
	uint64_t hash = 0xcbf29ce484222325;
	char *text;
	int size;

	for (unsigned n = 0; n < SEED_COUNT; n++) {
		if (!seed->files[n].content)
			continue;
		hash = mix(hash, options[n].name, strlen(options[n].name) + 1);
		hash = mix(hash, seed->files[n].content, seed->files[n].size);
	}
	size = asprintf(&text, "instance-id: iid-%016" PRIx64 "\nlocal-hostname: " HOSTNAME "\n", hash);
	if (size < 0)
		return error_set_errno(err, ENOMEM, "cloud-init");
	seed->files[SEED_meta_data].content = text;
	seed->files[SEED_meta_data].size = (size_t)size;
	return 0;
}

static int read_seed(struct seed *seed, const struct seed_options *o, struct error *err)
{
	int rc = 0;

	for (unsigned n = 0; !rc && n < SEED_COUNT; n++) {
		const char *path = *(const char *const *)((const char *)o + options[n].offset);

		if (path)
			rc = read_file(path, &seed->files[n].content, &seed->files[n].size, err);
	}
	return rc || o->meta_data ? rc : make_meta_data(seed, err);
}

static uint8_t *make_iso(const struct seed *seed, size_t *size, struct error *err)
{
	struct block_iso_file files[SEED_COUNT];
	unsigned count = 0;

	for (unsigned n = 0; n < SEED_COUNT; n++)
		if (seed->files[n].content)
			files[count++] =
				(struct block_iso_file){ options[n].name, seed->files[n].content, seed->files[n].size };
	return block_make_iso("cidata", files, count, size, err);
}

static int write_all(int fd, const uint8_t *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

/* A file in memory that holds the disc: its descriptor, or -errno. */
static int make_disc(const struct seed *seed, struct error *err)
{
	size_t size;
	uint8_t *image = make_iso(seed, &size, err);
	int fd, rc;

	if (!image)
		return err ? -err->code : -ENOMEM;
	fd = memfd_create("cidata", MFD_CLOEXEC);
	rc = fd < 0 ? -errno : write_all(fd, image, size);
	free(image);
	if (!rc)
		return fd;
	if (fd >= 0)
		close(fd);
	return error_set_errno(err, -rc, "cloud-init: a disk of %zu bytes in memory", size);
}

static int cloud_init_create(struct bus *bus, const void *given, struct error *err)
{
	const struct seed_options *o = given;
	struct seed seed = { 0 };
	char path[32];
	int fd, rc;

	if (!o->user_data)
		return error_set(err, EINVAL, "cloud-init: option 'user-data' is not given; expected a file");
	rc = read_seed(&seed, o, err);
	fd = rc ? rc : make_disc(&seed, err);
	free_seed(&seed);
	if (fd < 0)
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	rc = blk_disk_create(
		bus,
		&(struct disk_options){
			.file = path, .format = "raw", .cache = "unsafe", .backing = "none", .readonly = true },
		1, &(struct virtio_options){ .legacy = true }, err);
	close(fd);
	return rc;
}

const struct device_type cloud_init_type = {
	.name = "cloud-init",
	.help = "a disk with what cloud-init is to do",
	.most = 1,
	.options = options,
	.options_size = sizeof(struct seed_options),
	.short_form = { .name = "--cloud-init",
			.argument = "user-data=FILE[,...]",
			.help = "a disk with what cloud-init is to do (NoCloud); also meta-data, network-config, "
				"vendor-data" },
	.create = cloud_init_create,
};
