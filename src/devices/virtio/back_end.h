/*
 * A virtio device whose queues another process serves (vhost/vhost.h): chains of the driver's go into rings that the back end has, and come back from there. A thread of the device's does
 * all that may wait for the back end; a vCPU that kicks copies descriptors and writes an eventfd.
 *
 * A back end that goes away is connected to again, and what it had not done is given to it once more. So nothing is lost that the driver was told is done, and nothing that
 * was not; while it is away the driver waits. Or, for a kind of device whose back end cannot be had again, everything fails from then on.
 */
#ifndef DOPPEL_DEVICES_VIRTIO_BACK_END_H
#define DOPPEL_DEVICES_VIRTIO_BACK_END_H

#include "devices/virtio/virtio.h"
#include "vhost/vhost.h"

struct back_end_ops {
	unsigned config_size; /* of the configuration space that the back end has */
	bool once;	      /* it is not connected to again */
	bool pairs;	      /* struct vhost_setup's */
	bool drains;	      /* requests come to an end by themselves: a queue stops behind that */
	/* Could the back end do anything with it? NULL: with anything. */
	bool (*valid)(const struct virtio_chain *);
	/* The chain, which the back end will never do, is pushed. Under the queue's lock. */
	void (*fail)(struct virtio_queue *, const struct virtio_chain *);
	/* The back end has come or gone, or has another configuration. In the device's thread, under the device's lock. NULL: nothing. */
	void (*changed)(struct virtio_device *);
};

struct back_end_queue {
	/*
	 * Under the queue's lock. WANTED: the thread is to start it at the back end, with those requests that another one was given; STOPPING: to stop it.
	 */
	enum { QUEUE_IDLE, QUEUE_WANTED, QUEUE_RUNNING, QUEUE_STOPPING } state;
	struct list requests;	 /* under way, in the order in which they were popped */
	struct vhost_ring *ring; /* that the back end serves; or NULL */
	/* The thread's */
	bool started, enabled;
	uint64_t give_up; /* host_monotonic_ns(): requests that are not done by then never will be; 0: not set */
};

struct back_end {
	struct virtio_device *virtio;
	const struct back_end_ops *ops;
	struct vhost_setup setup;
	uint64_t features;	       /* that it had at first, and has to have */
	unsigned rings_offered, rings; /* that it could serve, and that it does: the device's first queues */
	struct back_end_queue queues[VHOST_RINGS_MOST];
	_Atomic bool up;    /* it is connected */
	_Atomic bool dead;  /* and never will be again */
	_Atomic bool ready; /* the driver is; its features are: */
	_Atomic uint64_t driver_features;
	_Atomic unsigned enabled; /* of its first rings so many, whether they are started or not; all at first */
	_Atomic bool
		config_waits; /* the back end does not have config_wanted yet: nothing is taken from queues, since what comes behind a driver's write relies on that */
	int wake_fd;
	bool has_thread;
	pthread_t thread;
	pthread_mutex_t lock; /* the innermost: what follows */
	pthread_cond_t is_paused;
	bool pauses, paused, ends;
	struct {
		bool is_set;
		unsigned offset;
		uint8_t value;
	} config_wanted; /* the byte of the configuration space that the driver may write */
	/* The thread's */
	struct vhost *vhost;
	uint8_t config[VHOST_CONFIG_MOST];
	uint64_t sent_features, connected_at, retry_at;
	unsigned retry_ms, quick_losses;
	bool features_sent, news;
};

/*
 * Connects to the back end at the path, which lives as long as `b`. features, config and rings_offered, at least `rings`, are what it says. The struct is zero. Behind
 * virtio_init(). When it fails back_end_close() is to be called as well.
 */
int back_end_open(struct back_end *, struct virtio_device *, const struct back_end_ops *, const char *path,
		  unsigned rings, struct error *);
/* Its thread; paused at first. The device has its queues, of which it serves the first `rings`, at most rings_offered. */
int back_end_start(struct back_end *, unsigned rings, struct error *);
/* Paused. */
void back_end_close(struct back_end *);

/* Of the queue's kick, and of virtio_ops. */
void back_end_kick(struct back_end *, struct virtio_queue *);
/* The back end uses so many of its rings from now on, soon. Any thread, with any locks. */
void back_end_enable(struct back_end *, unsigned rings);
/* The one byte of the configuration space that the driver may write: requests that follow on this wait until the back end has it, and each one that comes back does. Under the device's lock. */
void back_end_set_config(struct back_end *, unsigned offset, uint8_t value);
void back_end_driver_ready(struct back_end *);
void back_end_loaded(struct back_end *);
void back_end_queue_stops(struct back_end *, struct virtio_queue *);
void back_end_reset(struct back_end *);
void back_end_pause(struct back_end *);
void back_end_resume(struct back_end *);

#endif
