/*
 * What disks have in common, whatever bus they are on: how the user describes the image, and what becomes of the host's errors.
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

/* clang-format off */
/* Behind them, of those whose requests can wait for the host. */
#define WAITING_DISK_OPTIONS(_, T)                                                                                     \
	DISK_OPTIONS(_, T)                                                                                             \
	_(T, TEXT, on_error, 0, 0, "report", "the guest gets the host's errors; stop: the machine waits; enospc: for room")
/* clang-format on */

struct disk_options {
	DEVICE_OPTION_FIELDS(DISK_OPTIONS)
	const char *on_error; /* NULL: report */
};

/* Those of a device's own options (a pointer) that are in the list above. */
#define DISK_OPTION_COPY_(options, kind, name, ...) .name = (options)->name,
#define DISK_OPTIONS_OF(options)                                                                                       \
	(struct disk_options) { DISK_OPTIONS(DISK_OPTION_COPY_, options) }
#define WAITING_DISK_OPTIONS_OF(options)                                                                               \
	(struct disk_options) { WAITING_DISK_OPTIONS(DISK_OPTION_COPY_, options) }

/* Those of a drive's own options (a pointer to file, format, boot) as of a disk that cannot be written. */
#define DISC_OPTIONS_OF(options)                                                                                       \
	(struct disk_options)                                                                                          \
	{                                                                                                              \
		.file = (options)->file, .format = (options)->format, .cache = "writeback", .backing = "near",         \
		.readonly = true, .boot = (options)->boot                                                              \
	}

/* Device: its name, for sentences. Tables that the image keeps are in the machine's budget. NULL with a sentence. */
struct block *disk_open(struct bus *, const char *device, const struct disk_options *, struct error *);

/* ---- errors of the host that the machine waits for ---- */

/* What becomes of a request that the host cannot do. */
enum disk_on_error { DISK_REPORT, DISK_STOP, DISK_ENOSPC };
/* As the options say; or -EINVAL. */
int disk_on_error(const char *device, const struct disk_options *, struct error *);
/* Is the request, which is done, to be done again when the host can? */
bool disk_waits(enum disk_on_error, const struct block *, const struct block_request *);

/* Of a disk, or a controller with several: how many requests wait, or are tried again now. The machine is held while there are any. Any thread, with locks or not. */
struct disk_hold {
	struct bus_hold hold;
	struct bus *bus;
	pthread_mutex_t lock;
	unsigned count;
};
void disk_hold_init(struct disk_hold *, struct bus *, void (*retry)(struct bus_hold *));
/* None waits any more. */
void disk_hold_fini(struct disk_hold *);
/* One more, for which disk_waits() was true; the first one is said. */
void disk_hold_add(struct disk_hold *, const struct device *, const struct block *, const struct block_request *);
/* One fewer, that could be done: of the last one that is said, unless block is NULL. */
void disk_hold_done(struct disk_hold *, const struct block *);
/* So many fewer, that nobody wants any more. */
void disk_hold_forget(struct disk_hold *, unsigned count);
/* So many, as they were saved. */
void disk_hold_set(struct disk_hold *, unsigned count);

/* ata/: on the machine's IDE controller, at the first place that is free. */
int ide_disk_create(struct bus *, const struct disk_options *, struct error *);
int ide_cd_create(struct bus *, const struct disk_options *, struct error *);
/* The same on its AHCI controller. */
int sata_disk_create(struct bus *, const struct disk_options *, struct error *);
int sata_cd_create(struct bus *, const struct disk_options *, struct error *);
/* nvme/: a controller of its own. */
int nvme_disk_create(struct bus *, const struct disk_options *, struct error *);

struct virtio_options;
/* virtio/blk.c. queues 0: as many as there are processors. */
int blk_disk_create(struct bus *, const struct disk_options *, unsigned queues, const struct virtio_options *,
		    struct error *);

#endif
