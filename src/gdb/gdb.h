/*
 * gdb: a machine's side of a debugger: GDB's remote serial protocol (GDB's manual, appendix E). Processors are threads; the guest's own debug
 * registers and memory have no part in its breakpoints.
 */
#ifndef DOPPEL_GDB_H
#define DOPPEL_GDB_H

#include "machine/machine.h"

struct gdb;

/*
 * Sockets for one debugger at a time, in the machine's event loop; before machine_run(). path: of one more, NULL: none. specs: "unix:PATH" or "tcp:[ADDR:]PORT",
 * behind it ",wait" if the machine is not to begin before a debugger lets it, ",i386" or ",i8086" for code of 32 or 16 bits. -EINVAL: a spec is none.
 */
int gdb_create(struct gdb **, struct machine *, const char *path, const char *const *specs, unsigned count,
	       struct error *);
/* After machine_run(), before machine_destroy(): a debugger is told of the end. status: an exit status. NULL: nothing. */
void gdb_destroy(struct gdb *, int status);

#endif
