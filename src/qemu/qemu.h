/*
 * qemu: QEMU's command line (qemu(1), "Options"), as scripts and tools write it, in doppel's words. What each of its words becomes is said in tables, one row each: options.c, devices.c,
 * and keys.c for what has no effect.
 */
#ifndef DOPPEL_QEMU_H
#define DOPPEL_QEMU_H

#include "base/base.h"

/* The QEMU whose command line and QMP commands these are. */
#define QEMU_MAJOR 7
#define QEMU_MINOR 2

struct qemu_text;
struct qemu_line {
	/* Arguments of `doppel run`, ended by NULL; they live as long as the line and the words that it was made of. */
	char **words;
	unsigned count;
	bool prints;	  /* -doppel-print: they are only to be shown */
	const char *help; /* what -help, -version or "help" as a value ask for, instead of running; NULL: nothing */
	struct qemu_text *texts;
};

/*
 * argv[1...]: 0, or -errno and a sentence that names the option and what would work. What has another effect than the user may expect is a warning of the log. To be freed either way.
 */
int qemu_translate(struct qemu_line *, int argc, char *const *argv, struct error *);
void qemu_free(struct qemu_line *);

#endif
