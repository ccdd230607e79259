/*
 * Commands for machines with names: each asks the machine's control socket.
 */
#include "cli/cli.h"
#include "control/control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct machine_arguments {
	const char *name, *text;
	bool json, force;
	unsigned timeout; /* seconds; 0: none */
};

/* ---- options ---- */

static int set_json(void *target, const char *value, struct error *err)
{
	(void)value, (void)err;
	((struct machine_arguments *)target)->json = true;
	return 0;
}

static int set_force(void *target, const char *value, struct error *err)
{
	(void)value, (void)err;
	((struct machine_arguments *)target)->force = true;
	return 0;
}

#define TIMEOUT_MOST 1000000u
static int set_timeout(void *target, const char *value, struct error *err)
{
	char *rest;
	unsigned long seconds = strtoul(value, &rest, 10);

	if (*value < '0' || *value > '9' || *rest || seconds < 1 || seconds > TIMEOUT_MOST)
		return error_set(err, EINVAL, "'%s' is not possible; expected seconds, 1 to %u", value, TIMEOUT_MOST);
	((struct machine_arguments *)target)->timeout = (unsigned)seconds;
	return 0;
}

int machine_operand(void *target, const char *word, struct error *err)
{
	struct machine_arguments *a = target;

	if (a->name)
		return error_set(err, EINVAL, "unexpected argument '%.80s'; expected one NAME", word);
	a->name = word;
	return 0;
}

int qmp_operand(void *target, const char *word, struct error *err)
{
	struct machine_arguments *a = target;

	if (!a->name)
		return machine_operand(target, word, err);
	if (a->text)
		return error_set(err, EINVAL, "unexpected argument '%.80s'; expected NAME and one COMMAND", word);
	a->text = word;
	return 0;
}

#define JSON_OPTION                                                                                                    \
	{                                                                                                              \
		"--json", NULL, "as JSON", set_json, NULL, false                                                       \
	}
#define TIMEOUT_OPTION                                                                                                 \
	{                                                                                                              \
		"--timeout", "SECONDS", "how long to wait (default: as long as it takes)", set_timeout, NULL, false    \
	}
#define NO_MORE_OPTIONS                                                                                                \
	{                                                                                                              \
		NULL, NULL, NULL, NULL, NULL, false                                                                    \
	}
const struct cli_option list_options[] = { JSON_OPTION, NO_MORE_OPTIONS };
const struct cli_option stop_options[] = { { "--force", NULL, "end it at once, as by pulling the plug", set_force, NULL,
					     false },
					   TIMEOUT_OPTION,
					   NO_MORE_OPTIONS };
const struct cli_option wait_options[] = { TIMEOUT_OPTION, NO_MORE_OPTIONS };

/* Returns 0, or the exit status. */
static int parse(int argc, char **argv, struct machine_arguments *a)
{
	const struct cli_command *command = cli_find(argv[0]);
	int status = cli_parse(command, argc, argv, a);

	if (status || a->name || !command->operand)
		return status;
	fprintf(stderr, "doppel %s: no machine; expected its NAME\n", argv[0]);
	return EXIT_USAGE;
}

static int fail(const char *command, const struct error *err)
{
	cli_complain(command, err);
	return EXIT_FAILED;
}

/* ---- list, info ---- */

/* What a machine says of itself: an object, or NULL. */
static json_t *ask(const char *name, struct error *err)
{
	struct control_client c;
	json_t *info = NULL, *status = NULL;

	if (control_open(&c, name, err))
		return NULL;
	info = control_execute(&c, "x-doppel-info", NULL, err);
	status = info ? control_execute(&c, "query-status", NULL, err) : NULL;
	control_close(&c);
	if (info && status)
		json_object_set(info, "status", json_object_get(status, "status"));
	json_decref(status);
	return info;
}

struct listing {
	bool json;
	json_t *all; /* of --json */
	unsigned count;
};

static const char *text_of(const json_t *info, const char *member)
{
	const char *text = json_string_value(json_object_get(info, member));

	return text ? text : "-";
}

static int64_t number_of(const json_t *info, const char *member)
{
	return json_integer_value(json_object_get(info, member));
}

static void list_one(void *opaque, const char *name)
{
	struct listing *l = opaque;
	struct error err = { 0 };
	json_t *info = ask(name, &err);

	if (l->json) {
		json_array_append_new(l->all, info ? info : json_pack("{s:s,s:n}", "name", name, "status"));
		return;
	}
	if (!l->count++)
		printf("%-24s %-10s %8s %-8s %4s %10s %12s\n", "NAME", "STATUS", "PID", "ENGINE", "CPUS", "MEMORY",
		       "GUEST TIME");
	if (info)
		printf("%-24s %-10s %8" PRId64 " %-8s %4" PRId64 " %8" PRId64 " M %10" PRId64 " s\n", name,
		       text_of(info, "status"), number_of(info, "pid"), text_of(info, "engine"),
		       number_of(info, "cpus"), number_of(info, "memory") >> 20,
		       number_of(info, "guest-time-ns") / 1000000000);
	else
		printf("%-24s %s\n", name, err.text);
	json_decref(info);
}

static void print_json(const json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
}

int command_list(int argc, char **argv)
{
	struct machine_arguments a = { 0 };
	struct listing l = { 0 };
	struct error err = { 0 };
	int rc = parse(argc, argv, &a);

	if (rc)
		return rc;
	l.json = a.json;
	l.all = json_array();
	if (control_each(list_one, &l, &err))
		rc = fail(argv[0], &err);
	else if (l.json)
		print_json(l.all);
	json_decref(l.all);
	return rc ? rc : cli_finish_output(argv[0]);
}

static void print_member(const char *name, const json_t *value)
{
	printf("%-16s ", name);
	if (json_is_integer(value))
		printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
	else
		printf("%s\n", json_is_string(value) ? json_string_value(value) : "-");
}

int command_info(int argc, char **argv)
{
	struct machine_arguments a = { 0 };
	struct error err = { 0 };
	int status = parse(argc, argv, &a);
	const char *name;
	json_t *info, *value;

	if (status)
		return status;
	info = ask(a.name, &err);
	if (!info)
		return fail(argv[0], &err);
	if (a.json)
		print_json(info);
	else
		json_object_foreach(info, name, value) print_member(name, value);
	json_decref(info);
	return cli_finish_output(argv[0]);
}

/* ---- what they do ---- */

/* The QMP command that a command of the command line is. */
static const char *qmp_name(const char *command)
{
	return !strcmp(command, "pause") ? "stop" : !strcmp(command, "resume") ? "cont" : "system_reset";
}

int command_simple(int argc, char **argv)
{
	struct machine_arguments a = { 0 };
	struct control_client c;
	struct error err = { 0 };
	int status = parse(argc, argv, &a);
	json_t *answer = NULL;

	if (status)
		return status;
	if (!control_open(&c, a.name, &err)) {
		answer = control_execute(&c, qmp_name(argv[0]), NULL, &err);
		control_close(&c);
	}
	json_decref(answer);
	return answer ? 0 : fail(argv[0], &err);
}

static int await_end(const char *command, const struct machine_arguments *a, struct control_client *c)
{
	struct error err = { 0 };

	if (control_await_end(c, a->timeout))
		return 0;
	error_set(&err, ETIMEDOUT, "machine '%s' still runs after %u seconds", a->name, a->timeout);
	return fail(command, &err);
}

int command_stop(int argc, char **argv)
{
	struct machine_arguments a = { 0 };
	struct control_client c;
	struct error err = { 0 };
	int status = parse(argc, argv, &a);
	json_t *answer;

	if (status)
		return status;
	if (control_open(&c, a.name, &err))
		return fail(argv[0], &err);
	answer = control_execute(&c, a.force ? "quit" : "system_powerdown", NULL, &err);
	/* Having been told, it may be gone before it says so. */
	status = answer || a.force ? await_end(argv[0], &a, &c) : fail(argv[0], &err);
	json_decref(answer);
	control_close(&c);
	return status;
}

int command_wait(int argc, char **argv)
{
	struct machine_arguments a = { 0 };
	struct control_client c;
	struct error err = { 0 };
	int status = parse(argc, argv, &a);

	if (status)
		return status;
	if (control_open(&c, a.name, &err))
		return fail(argv[0], &err);
	status = await_end(argv[0], &a, &c);
	control_close(&c);
	return status;
}

/* "NAME", or an object as QMP has it: {"execute": ..., "arguments": ...}. */
int command_qmp(int argc, char **argv)
{
	struct machine_arguments a = { 0 };
	struct control_client c;
	struct error err = { 0 };
	int status = parse(argc, argv, &a);
	json_t *request = NULL, *answer = NULL;
	const char *command;

	if (status)
		return status;
	if (a.text && a.text[0] == '{')
		request = json_loads(a.text, JSON_REJECT_DUPLICATES, NULL);
	command = request ? json_string_value(json_object_get(request, "execute")) : a.text;
	if (!command || command[0] == '{') {
		error_set(&err, EINVAL, "'%.80s' is no command; expected its name, or a JSON object with \"execute\"",
			  a.text ? a.text : "");
		json_decref(request);
		cli_complain(argv[0], &err);
		return EXIT_USAGE;
	}
	if (!control_open(&c, a.name, &err)) {
		answer = control_execute(&c, command, json_incref(json_object_get(request, "arguments")), &err);
		control_close(&c);
	}
	json_decref(request);
	if (!answer)
		return fail(argv[0], &err);
	print_json(answer);
	json_decref(answer);
	return cli_finish_output(argv[0]);
}
