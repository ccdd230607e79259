/*
 * A qcow2 image of which any bytes are changed, then looked at, checked, read, written to and repaired. Whatever its tables say, nothing
 * outside of the monitor's memory is touched, nothing goes on for ever, and a table never becomes data of the disk.
 */
#define _GNU_SOURCE
#include "block/block.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK	(160u << 10)
#define LARGEST 8192u /* clusters that an image may grow to */

/* Good images: data, zeros, holes, and (of the first) L2 tables in more than one cluster. */
static struct template
{
	uint32_t cluster;
	bool extended;
	uint8_t *bytes;
	size_t size;
	char path[64];
	int fd;
}
templates[] = { { .cluster = 512 }, { .cluster = 16384, .extended = true } }, template; /* the one at hand */

static void request(struct block *b, enum block_op op, uint64_t offset, void *data, uint64_t size)
{
	struct iovec iov = { data, size };
	struct block_request r = { .op = op, .offset = offset, .size = size, .iov = &iov, .iov_count = 1 };

	if (block_try(b, &r))
		block_do(b, &r);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make_template(void)
{
	struct block_create_options create = {
		.format = "qcow2", .size = DISK, .cluster_size = template.cluster, .extended_l2 = template.extended
	};
	struct block_options open = { .format = "qcow2", .cache = BLOCK_UNSAFE };
	static uint8_t data[DISK / 4];
	struct stat st;
	struct block *b;

	template.fd = memfd_create("image", 0);
	snprintf(template.path, sizeof(template.path), "/proc/self/fd/%d", template.fd);
	create.file = open.file = template.path;
	if (block_create(&create, NULL) || !(b = block_open(&open, NULL)))
		abort();
	memset(data, 0x55, sizeof(data));
	for (unsigned n = 0; n < 3; n++)
		request(b, BLOCK_WRITE, n * (DISK / 3), data, sizeof(data) / 2);
	request(b, BLOCK_WRITE_ZEROES, 4096, NULL, 4096);
	block_close(b);
	if (fstat(template.fd, &st))
		abort();
	template.size = (size_t)st.st_size;
	template.bytes = malloc(template.size);
	if (!template.bytes || pread(template.fd, template.bytes, template.size, 0) != st.st_size)
		abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	for (unsigned n = 0; n < ARRAY_SIZE(templates); n++) {
		template = templates[n];
		make_template();
		templates[n] = template;
	}
	return 0;
}

struct input {
	const uint8_t *data;
	size_t size;
};

static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (; bytes; bytes--)
		v = v << 8 | (in->size ? (in->size--, *in->data++) : 0);
	return v;
}

/* Values as tables have them: clusters of the image with and without flags, or anything. */
static uint64_t take_value(struct input *in)
{
	uint64_t v = take(in, 2);

	switch (v >> 14) {
	case 0: return (v & 0xff) * template.cluster | 1ull << 63;
	case 1: return (v & 0xff) * template.cluster | (v >> 8 & 1) | (uint64_t)(v >> 9 & 1) << 62;
	case 2: return v & 0x3fff;
	default: return take(in, 8);
	}
}

static void change(struct input *in, uint8_t *image)
{
	unsigned count = (unsigned)take(in, 1) % 16;

	for (; count && in->size; count--) {
		uint64_t place = take(in, 2), value = take_value(in);
		unsigned width = 1u << (place >> 14);
		/* The header; tables are in the first 16 clusters, and at their beginning. */
		size_t table = (place >> 9 & 15) * template.cluster + (place & 0x1ff);
		size_t at = (place & 0x2000 ? place & 0x7f : table) % (template.size - 8) & ~(size_t)(width - 1);

		for (unsigned n = 0; n < width; n++)
			image[at + n] = (uint8_t)(value >> 8 * (width - 1 - n));
	}
}

static void use(struct input *in, struct block *b)
{
	uint64_t sectors = block_info(b)->size / BLOCK_SECTOR;
	static uint8_t data[64 * BLOCK_SECTOR];

	for (unsigned n = 0; n < 16 && in->size && sectors; n++) {
		uint64_t what = take(in, 1), first = take(in, 2) % sectors,
			 count = 1 + what / 8 % MIN(64, sectors - first);

		request(b, (enum block_op)(what % 5), first * BLOCK_SECTOR, data, count * BLOCK_SECTOR);
	}
}

static void run(struct input *in)
{
	struct block_options options = { .file = template.path,
					 .format = "qcow2",
					 .readonly = true,
					 .discard = true,
					 .cache = BLOCK_UNSAFE,
					 .backing = BLOCK_BACKING_NONE };
	struct block_check_result result;
	struct block_details details;
	struct error err = { 0 };
	struct block *b;

	block_examine(&options, &details, &err);
	block_details_free(&details);
	block_check(&options, BLOCK_REPAIR_NONE, &result, NULL, NULL, &err);
	for (int writable = 0; writable < 2; writable++) {
		options.readonly = !writable;
		b = block_open(&options, &err);
		if (b)
			use(in, b);
		block_close(b);
	}
	block_check(&options, BLOCK_REPAIR_ALL, &result, NULL, NULL, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct stat st;
	uint8_t *image;

	template = templates[take(&in, 1) % ARRAY_SIZE(templates)];
	image = malloc(template.size);
	memcpy(image, template.bytes, template.size);
	change(&in, image);
	if (ftruncate(template.fd, 0) || pwrite(template.fd, image, template.size, 0) != (ssize_t) template.size)
		abort();
	free(image);
	log_set_level(LOG_ERROR);
	run(&in);
	if (fstat(template.fd, &st) || (uint64_t)st.st_size > (uint64_t)LARGEST * template.cluster)
		abort();
	return 0;
}
