/*
 * backend: the host's side of devices. Knows of files, terminals and sockets, not of guests.
 */
#ifndef DOPPEL_BACKEND_H
#define DOPPEL_BACKEND_H

#include "base/base.h"
#include "host/host.h"

/* ---- character devices ---- */

/*
 * A byte stream to and from the host: stdio, a pseudo-terminal, a file, a Unix socket. Everything runs in the event loop's
 * thread, except chardev_write, chardev_room and chardev_resume, which any thread may call. chardev_write is I/O of the host's: without a
 * device's lock.
 */
struct chardev;

struct chardev_ops {
	/* Bytes came in; returns how many were taken. When fewer than size: no more are read until chardev_resume(). */
	size_t (*receive)(void *opaque, const uint8_t *data, size_t size);
	/* A break came behind the bytes received so far. False: not taken, nothing more until chardev_resume(). */
	bool (*receive_break)(void *opaque);
	/* Stdio only: the user typed the quit sequence. */
	void (*quit)(void *opaque);
};

/*
 * spec: "stdio", "pty", "file:PATH", "unix:PATH" and "tcp:HOST:PORT" (listen; one client at a time), "unix-connect:PATH" and "tcp-connect:HOST:PORT" (connect
 * to who listens there), "null". Errors name the spec and say what is
 * allowed. For "pty" the name of the terminal is logged (LOG_INFO) and told by chardev_describe.
 */
struct chardev *chardev_open(const char *spec, struct event_loop *, struct error *);
/* Before the loop runs. */
void chardev_attach(struct chardev *, const struct chardev_ops *, void *opaque);
/*
 * Never blocks the caller for long and never loses a byte silently: what the host does not take is queued (bounded: 1 MiB; a
 * file that fails, e.g. a full disk, drops bytes from then on and logs one error that names the file). Returns bytes of room
 * left in the queue, so that a UART can stop being ready.
 */
size_t chardev_write(struct chardev *, const void *, size_t);
/* The room when something was last written, here or to the host. Any thread; waits for nobody. */
size_t chardev_room(struct chardev *);
void chardev_resume(struct chardev *);
const char *chardev_describe(const struct chardev *);
/* Writes out what is queued (waits at most a second), restores the terminal, frees. */
void chardev_close(struct chardev *);

#endif
