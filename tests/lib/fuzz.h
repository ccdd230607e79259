/*
 * What fuzzers of devices share: bytes of the input, and disks.
 */
#ifndef TESTS_LIB_FUZZ_H
#define TESTS_LIB_FUZZ_H

#ifndef _GNU_SOURCE
#error "memfd_create() needs _GNU_SOURCE"
#endif
#include "devices/devices.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The next bytes, the lowest first; what is behind the input is zero. */
static inline uint64_t fuzz_take(struct reader *input, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes && input->offset < input->size; i++)
		value |= (uint64_t)input->data[input->offset++] << (8 * i);
	return value;
}

#define FUZZ_DISK_SIZE (1u << 20)

/* A device with an image of its own, of zeros; %d in the format is a descriptor of it. */
static inline void fuzz_plug_disk(struct bus *bus, const char *format)
{
	int fd = memfd_create("disk", 0);
	struct error err = { 0 };
	char spec[128];

	snprintf(spec, sizeof(spec), format, fd);
	if (ftruncate(fd, FUZZ_DISK_SIZE) || !device_plug(bus, NULL, &(struct device_request){ .spec = spec }, &err)) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	close(fd);
}

#endif
