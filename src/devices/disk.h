/*
 * What disks have in common, whatever bus they are on: how the user describes the image.
 */
#ifndef DOPPEL_DEVICES_DISK_H
#define DOPPEL_DEVICES_DISK_H

#include "block/block.h"
#include "devices/devices.h"

#define DISK_SERIAL_SIZE 20u /* characters, at most */

/* clang-format off */
/* In front of the options of each device that is a disk. */
#define DISK_OPTIONS(_, T)                                                                                             \
	_(T, TEXT, file, 0, 0, NULL, "the image, a block device, nbd:..., or vhost-user:PATH")                       \
	_(T, TEXT, format, 0, 0, "auto", "raw, qcow2, or auto: what its first bytes say")                              \
	_(T, TEXT, cache, 0, 0, "writeback", "the host's page cache; none: not that; unsafe: and no flushes")          \
	_(T, TEXT, backing, 0, 0, "near", "backing files in the image's own folder; any: anywhere; none")              \
	_(T, SWITCH, readonly, 0, 0, "off", "the guest cannot write to it")                                            \
	_(T, SWITCH, snapshot, 0, 0, "off", "what the guest writes is gone at the end")                                \
	_(T, SWITCH, discard, 0, 0, "off", "what the guest discards is given back to the host")                        \
	_(T, TEXT, serial, 0, 0, NULL, "serial number, at most 20 characters")                                         \
	_(T, NUMBER, boot, 1, DEVICE_BOOT_ORDER_MOST, NULL, "its turn when a firmware looks for a system")
/* clang-format on */

struct disk_options {
	DEVICE_OPTION_FIELDS(DISK_OPTIONS)
};

/* Those of a device's own options (a pointer) that are in the list above. */
#define DISK_OPTION_COPY_(options, kind, name, ...) .name = (options)->name,
#define DISK_OPTIONS_OF(options)                                                                                       \
	(struct disk_options) { DISK_OPTIONS(DISK_OPTION_COPY_, options) }

/* Those of a drive's own options (a pointer to file, format, boot) as of a disk that cannot be written. */
#define DISC_OPTIONS_OF(options)                                                                                       \
	(struct disk_options)                                                                                          \
	{                                                                                                              \
		.file = (options)->file, .format = (options)->format, .cache = "writeback", .backing = "near",         \
		.readonly = true, .boot = (options)->boot                                                              \
	}

/* Device: its name, for sentences. memory: see struct block_options. NULL with a sentence. */
struct block *disk_open(const char *device, const struct disk_options *, const struct block_memory *memory,
			struct error *);
/* Which of three names an option's value is; or -EINVAL. */
int disk_option(const char *device, const char *option, const char *value, const char *const names[], struct error *);

/* ata/: on the machine's IDE controller, at the first place that is free. */
int ide_disk_create(struct bus *, const struct disk_options *, struct error *);
int ide_cd_create(struct bus *, const struct disk_options *, struct error *);

struct virtio_options;
/* virtio/blk.c. on_error: the name of what is done about the host's errors; queues 0: as many as there are processors. */
int blk_disk_create(struct bus *, const struct disk_options *, const char *on_error, unsigned queues,
		    const struct virtio_options *, struct error *);

#endif
