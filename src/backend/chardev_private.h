/*
 * Character devices, private: what the kinds (stdio, pty, file, unix, null) and the common part know of each other.
 *
 * The common part (chardev.c) queues output, tells received bytes to the device and keeps the sources of the event
 * loop. A kind opens descriptors and moves bytes in and out of them.
 */
#ifndef DOPPEL_BACKEND_CHARDEV_PRIVATE_H
#define DOPPEL_BACKEND_CHARDEV_PRIVATE_H

#include "backend/backend.h"

#include <stdatomic.h>
#include <sys/types.h>

#define CHARDEV_QUEUE_SIZE ((size_t)1 << 20)
#define CHARDEV_INPUT_SIZE 4096u
#define CHARDEV_READ_SIZE  256u
#define CHARDEV_BREAKS	   16u

struct chardev_kind {
	const char *name;
	/* What a spec has after "name:", e.g. "PATH"; NULL: nothing. */
	const char *argument;
	/*
	 * Whether anybody reads cannot be known (a pseudo-terminal), or readers come and go (a socket). Output that
	 * nobody takes then waits, the newest part of it, and the guest goes on. Otherwise the queue fills up and
	 * the guest is told that there is no room, or the reader is gone for good and output is dropped.
	 */
	bool reader_unknown, reader_returns;
	/* Sets the kind's data and starts input and output. */
	int (*open)(struct chardev *, const char *argument, struct error *);
	/* Closes what open made. The sources were removed. */
	void (*close)(struct chardev *);
	/* Lock held, any thread: bytes taken, 0 when it would block, -errno when output is over. */
	ssize_t (*send)(struct chardev *, const uint8_t *, size_t);
	/*
	 * Loop's thread, no lock: turns what was read into what the device gets, in place; returns how much that
	 * is. NULL: as is. A kind with a filter is read even while the device takes nothing.
	 */
	size_t (*filter)(struct chardev *, uint8_t *, size_t);
	/* Loop's thread, no lock: input ended (errno, or 0 at end-of-file). NULL: nothing more to do. */
	void (*input_ended)(struct chardev *, int code);
	/* Loop's thread, no lock: output failed with this errno, once per connection. */
	void (*output_failed)(struct chardev *, int code);
};

struct chardev {
	const struct chardev_kind *kind;
	struct event_loop *loop;
	char *description;
	const struct chardev_ops *ops;
	void *opaque;

	/* Input; loop's thread. `pending` was read but not yet taken by the device. */
	struct event_source in;
	bool input_open;
	uint8_t pending[CHARDEV_INPUT_SIZE];
	size_t pending_count;
	size_t breaks[CHARDEV_BREAKS]; /* before which bytes of `pending` a break comes, in order */
	unsigned break_count;
	_Atomic bool paused;	   /* the device took less than it was offered */
	_Atomic bool resume_asked; /* since it was last offered something */

	/* Output; the source is the loop's thread's, its fd changes under lock. */
	struct event_source out;
	bool watch_hangup; /* keep `out` registered with nothing to write, to hear of a reader that went away */

	pthread_mutex_t lock; /* covers what follows */
	bool writable;	      /* there is a reader, and writing to it has not failed */
	int failure;	      /* errno of the failed write, until the loop's thread has dealt with it */
	bool out_posted;      /* the loop's thread was asked to look at output, or waits for room in it */
	const char *loss;     /* to be reported, as soon as the lock is dropped */
	bool loss_reported;
	uint8_t *queue; /* ring of CHARDEV_QUEUE_SIZE bytes */
	size_t queue_first, queue_count;
	_Atomic size_t room; /* see chardev_room(); written under the lock */

	/* The kind's. */
	void *data;
	int fd;
};

extern const struct chardev_kind chardev_stdio, chardev_pty, chardev_file, chardev_unix, chardev_tcp,
	chardev_unix_connect, chardev_tcp_connect, chardev_null;

/* For kinds: loop's thread, no lock. */
void chardev_input_start(struct chardev *, int fd);
void chardev_input_stop(struct chardev *);
/* In a filter: a break, in front of data[at]; where there are too many already it is dropped. */
void chardev_input_break(struct chardev *, const uint8_t *data, size_t at);
void chardev_output_start(struct chardev *, int fd, bool watch_hangup);
void chardev_output_stop(struct chardev *);
/* Sets the description; -ENOMEM. */
int chardev_set_description(struct chardev *, const char *fmt, ...) printf_like(2, 3);
/* write() to a descriptor that does not block: bytes taken, 0 when there is no room, -errno. */
ssize_t chardev_write_fd(int fd, const uint8_t *, size_t);

#endif
