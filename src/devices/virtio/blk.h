/*
 * Inside virtio-blk: what the other form of it is, whose queues a vhost-user back end serves.
 */
#ifndef DOPPEL_DEVICES_VIRTIO_BLK_H
#define DOPPEL_DEVICES_VIRTIO_BLK_H

#include "devices/virtio/virtio.h"

/* As create of struct device_type. queues: at most; the back end may serve fewer. */
int blk_back_end_create(struct bus *, const char *path, unsigned queues, const struct virtio_options *, struct error *);

#endif
