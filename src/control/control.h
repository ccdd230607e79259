/*
 * control: machines that have names. Each has a folder of its own with a socket that speaks QMP, QEMU's machine protocol (QEMU Machine Protocol
 * Specification): JSON objects both ways, a greeting, commands with ids, errors with classes, events. Whoever asks is this user.
 */
#ifndef DOPPEL_CONTROL_H
#define DOPPEL_CONTROL_H

#include "machine/machine.h"

#include <jansson.h>

/* ---- the machine's side ---- */

struct control;

/*
 * Sockets that control a machine, in its event loop; before machine_run(). If the machine has a name: its folder, and a socket there. -EEXIST: a
 * machine of that name runs. Also each of the `count` specs.
 */
struct control_spec {
	const char *
		where; /* "unix:PATH", "tcp:HOST:PORT", or who is served at once: "stdio", "unix-connect:PATH", "tcp-connect:HOST:PORT" */
	bool human; /* lines that people type, as to QEMU's monitor; not QMP */
};
int control_create(struct control **, struct machine *, const struct control_spec *specs, unsigned count,
		   struct error *);
/* Where another socket of the machine's may be, in its folder. False: it has no name. */
#define CONTROL_QMP	  "control.sock"
#define CONTROL_GDB	  "gdb.sock"
#define CONTROL_PATH_SIZE 64
bool control_path(const struct control *, const char *file, char path[CONTROL_PATH_SIZE]);
/* After machine_run(), before machine_destroy(): clients are told of the end, sockets and folder go. NULL: nothing. */
void control_destroy(struct control *);

/* ---- the clients' side ---- */

/* Calls fn with the name of each machine that runs, in order of names; what dead ones left is cleared. 0 or -errno. */
int control_each(void (*fn)(void *opaque, const char *name), void *opaque, struct error *);

/* A connection to a socket in a machine's folder, blocking. A descriptor, or -ENOENT. */
int control_connect(const char *name, const char *file, struct error *);

/* A conversation with a machine, in the calling thread. */
struct control_client {
	int fd; /* -1: none */
	const char *name;
};
/* -ENOENT: no machine of that name runs; -EPROTO: it does not answer as one. The name is the caller's. */
int control_open(struct control_client *, const char *name, struct error *);
void control_close(struct control_client *);
/*
 * Executes a command; takes the arguments, an object or NULL. What it returns is the caller's, or NULL with the machine's sentence. Events that come meanwhile are
 * lost. A machine that does not answer within 10 s is given up.
 */
json_t *control_execute(struct control_client *, const char *command, json_t *arguments, struct error *);
/* Waits until the machine ends, `seconds` at most (0: as long as it takes). False: it has not. */
bool control_await_end(struct control_client *, unsigned seconds);

#endif
