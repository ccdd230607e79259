/*
 * virtio-fs, which --share stands for where a vhost-user back end has the folder.
 */
#ifndef DOPPEL_DEVICES_VIRTIO_FS_H
#define DOPPEL_DEVICES_VIRTIO_FS_H

#include "devices/virtio/virtio.h"

#define FS_TAG_SIZE 36u /* bytes */

/* As create of struct device_type. tag: 1 to FS_TAG_SIZE bytes. */
int fs_create(struct bus *, const char *path, const char *tag, struct error *);

#endif
