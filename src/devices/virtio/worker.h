/*
 * A thread of a virtio device's for what would keep a vCPU: it is told that there is something to do, and pops what that is by itself. It stops, and takes no lock, while
 * the device is paused.
 */
#ifndef DOPPEL_DEVICES_VIRTIO_WORKER_H
#define DOPPEL_DEVICES_VIRTIO_WORKER_H

#include "base/base.h"
#include "host/host.h"

struct virtio_worker {
	void (*serve)(void *opaque); /* all that there is; it looks at `paused` every now and then */
	void *opaque;
	_Atomic bool paused;
	/* private */
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool kicked, busy, stops;
};

/* Paused at first. 0 or -errno. Ended by virtio_worker_end(), also where it failed. */
int virtio_worker_start(struct virtio_worker *, const char *name, void (*serve)(void *), void *opaque, struct error *);
/* Of one that never started: nothing. */
void virtio_worker_end(struct virtio_worker *);
/* Any lock may be held. */
void virtio_worker_kick(struct virtio_worker *);
/* It is idle when this returns: no lock of a device is held. */
void virtio_worker_pause(struct virtio_worker *);
/* It looks whether there is something. */
void virtio_worker_resume(struct virtio_worker *);

#endif
