/* control: what its files share. */
#ifndef DOPPEL_CONTROL_PRIVATE_H
#define DOPPEL_CONTROL_PRIVATE_H

#include "control/control.h"

/* ---- folder.c ---- */

/* A machine's folder, and that it is this machine's: a lock, which the kernel gives back however the process ends. */
struct folder {
	int all;  /* descriptor of the folder of all machines; -1: there is none */
	int fd;	  /* of this one */
	int lock; /* of the file in it */
	const char *name;
};

int folder_claim(struct folder *, const char *name, struct error *);
/* Removes it with all that a machine may have there. */
void folder_remove(struct folder *);
/* A path to a file of the folder that is short, however long the folder's own is. */
#define FOLDER_PATH_SIZE CONTROL_PATH_SIZE
void folder_path(const struct folder *, const char *file, char path[FOLDER_PATH_SIZE]);

/* ---- split.c: where a JSON text ends in a stream of bytes ---- */

struct split {
	unsigned depth;
	bool in_string, escaped, garbage;
};
enum split_result { SPLIT_MORE, SPLIT_WHOLE, SPLIT_BAD };
/*
 * Takes bytes of data from *used on, from zeros. WHOLE: data[*begin] to data[*used - 1] are an object or array. BAD: a line of what is neither, nested too
 * deeply, or too long. MORE: all is used, nothing is whole. Begins anew behind WHOLE and BAD.
 */
enum split_result split_next(struct split *, const uint8_t *data, size_t size, size_t *begin, size_t *used);

/* ---- commands.c ---- */

/* What a command works on, and its outcome. */
struct call {
	struct machine *machine;
	json_t *arguments; /* an object, checked by the command's table; or NULL */
	/* If it returns NULL: */
	const char *class;
	char why[256];
	bool negotiates; /* it was qmp_capabilities */
};
/* A JSON object of the client: the answer, which is the caller's. ready: the client has sent qmp_capabilities. */
json_t *command_answer(struct machine *, json_t *request, bool *ready);
json_t *command_error(const char *class, const char *why, json_t *id);
json_t *command_greeting(void);
/*
 * Executes a command by its name, as if qmp_capabilities had been said; takes the arguments, an object or NULL. What it returns is the caller's, or NULL with its sentence.
 */
json_t *command_run_named(struct machine *, const char *name, json_t *arguments, struct error *);
/* The name QMP has for it; NULL: it is none of QMP's. */
const char *command_event(enum machine_event);

/* ---- human.c: what people type, as to QEMU's monitor ---- */

extern const char human_greeting[], human_prompt[];
/* What a line is answered with, lines ended by CR LF; the caller's. NULL: no memory. */
char *human_answer(struct machine *, const char *line);

#endif
