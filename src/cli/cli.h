/*
 * What the commands of doppel's command line share. One file a command; the table of all is in commands.c.
 */
#ifndef DOPPEL_CLI_CLI_H
#define DOPPEL_CLI_CLI_H

#include "machine/machine.h"

#define EXIT_FAILED 1
#define EXIT_USAGE  2

/* An option of a command. One table a command makes its parser, its help and its completion. */
struct cli_option {
	const char *name;     /* "--memory" */
	const char *argument; /* "SIZE"; NULL: a switch */
	const char *help;
	/* value: NULL for a switch. -EINVAL with a sentence when it is wrong. */
	int (*set)(void *target, const char *value, struct error *);
	/* For help and completion: the n-th word that the argument can be, NULL behind the last; or NULL: anything. */
	const char *(*word)(unsigned n);
	bool files; /* completion offers files */
};

struct cli_command {
	const char *name, *synopsis, *what;
	const struct cli_option *options;  /* ended by a row without a name; NULL: none */
	int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit status */
	const char *notes;		   /* more paragraphs for help, or NULL */
	/* What it does with the short forms of device types (devices.h), which are options of it, too; NULL: they are not. */
	int (*short_form)(void *target, const struct device_type *, const char *value, struct error *);
	/* What it does with words that are no options; NULL: there are none. */
	int (*operand)(void *target, const char *word, struct error *);
};

extern const struct cli_command cli_commands[]; /* ended by a row without a name */
const struct cli_command *cli_find(const char *name);

/* The n-th option of a command: those of its table, then short forms, of whose type *type is then. False: there are no more. */
bool cli_option_at(const struct cli_command *, unsigned n, struct cli_option *, const struct device_type **type);
/* Words of options that are character devices. */
const char *cli_chardev_word(unsigned n);

/* Parses argv[1...]; prints one line and returns EXIT_USAGE when something is wrong, else 0. */
int cli_parse(const struct cli_command *, int argc, char **argv, void *target);
/* Bytes: a number with K, M, G or T. -EINVAL with a sentence. */
int cli_parse_size(const char *text, uint64_t *size, struct error *);
/* "doppel COMMAND: sentence" on standard error. */
void cli_complain(const char *command, const struct error *);
void cli_print_help(const struct cli_command *, FILE *);
/* Standard output is closed and its errors seen: a full disk must not look like success. Returns the exit status. */
int cli_finish_output(const char *command);
/* Words of cli_option: engines, CPU models. */
const char *cli_engine_word(unsigned n);
const char *cli_cpu_word(unsigned n);
/* One member of a JSON object, both strings, and what follows it. */
void cli_json_member(const char *name, const char *value, const char *after);

/*
 * Forks, before there are threads. True: this is the process that was started, and *status its exit status, when the other one has said that it runs, or ended before. False: this is the other
 * one, without a terminal; *ready is for cli_detached() (-1: it does nothing).
 */
bool cli_detach(int *ready, int *status);
void cli_detached(int ready);
/* This process's number, and a newline, in a file. */
int cli_write_pid(const char *path, struct error *);

extern const struct cli_option run_options[], audit_options[], image_options[], doctor_options[], list_options[],
	stop_options[], wait_options[], gdb_options[];
extern const char image_notes[];
int image_operand(void *target, const char *word, struct error *);
int run_operand(void *target, const char *word, struct error *err);
int run_short_form(void *target, const struct device_type *, const char *value, struct error *);
int command_run(int argc, char **argv);
int command_qemu(int argc, char **argv); /* argv[0]: the program's name */
int command_audit(int argc, char **argv);
int command_image(int argc, char **argv);
int command_doctor(int argc, char **argv);
int machine_operand(void *target, const char *word, struct error *);
int qmp_operand(void *target, const char *word, struct error *);
int command_list(int argc, char **argv);
int command_info(int argc, char **argv);
int command_simple(int argc, char **argv); /* pause, resume, reset */
int command_stop(int argc, char **argv);
int command_wait(int argc, char **argv);
int command_qmp(int argc, char **argv);
int gdb_operand(void *target, const char *word, struct error *);
int command_gdb(int argc, char **argv);
int command_help(int argc, char **argv);
int command_version(int argc, char **argv);
int command_completion(int argc, char **argv);

#endif
