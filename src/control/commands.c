/*
 * QMP's commands: one table says what each wants and does; checks and query-commands come from it. Names, members and error classes are those of QEMU's
 * QMP Reference Manual; what QEMU has not begins with "x-doppel-".
 */
#include "control/private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#define CLASS_GENERIC	"GenericError"
#define CLASS_NOT_FOUND "CommandNotFound"
#define CLASS_NO_DEVICE "DeviceNotActive"

/* What clients of QMP expect of QEMU: the version whose commands these are. */
#define QEMU_MAJOR 7
#define QEMU_MINOR 2

static void __attribute__((format(printf, 3, 4))) fail(struct call *call, const char *class, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(call->why, sizeof(call->why), format, ap);
	va_end(ap);
	call->class = class;
}

static json_t *nothing(void) { return json_object(); }

static struct machine *of(const struct call *call) { return call->machine; }

/* ---- the protocol's own ---- */

static json_t *version(void)
{
	return json_pack("{s:{s:i,s:i,s:i},s:s}", "qemu", "major", QEMU_MAJOR, "minor", QEMU_MINOR, "micro", 0,
			 "package", "doppel " DOPPEL_VERSION);
}

json_t *command_greeting(void) { return json_pack("{s:{s:o,s:[]}}", "QMP", "version", version(), "capabilities"); }

static json_t *qmp_capabilities(struct call *call)
{
	const json_t *enable = json_object_get(call->arguments, "enable");

	if (json_array_size(enable)) {
		fail(call, CLASS_GENERIC, "There are no capabilities to enable");
		return NULL;
	}
	call->negotiates = true;
	return nothing();
}

static json_t *query_version(struct call *call)
{
	(void)call;
	return version();
}

/* ---- what it is ---- */

static json_t *query_name(struct call *call)
{
	const char *name = machine_config(of(call))->name;

	return name ? json_pack("{s:s}", "name", name) : nothing();
}

static json_t *query_status(struct call *call)
{
	static const char *const names[] = { [MACHINE_RUNNING] = "running",
					     [MACHINE_PAUSED] = "paused",
					     [MACHINE_IO_ERROR] = "io-error",
					     [MACHINE_DEBUG] = "debug" };
	enum machine_status state = machine_status(of(call));

	return json_pack("{s:s,s:b,s:b}", "status", names[state], "running", state == MACHINE_RUNNING, "singlestep", 0);
}

static json_t *query_kvm(struct call *call)
{
	(void)call;
	return json_pack("{s:b,s:b}", "enabled", 0, "present", 0);
}

static json_t *query_cpus_fast(struct call *call)
{
	unsigned count = machine_config(of(call))->cpus;
	json_t *cpus = json_array();

	for (unsigned n = 0; n < count; n++) {
		char path[64];

		snprintf(path, sizeof(path), "/machine/unattached/device[%u]", n);
		json_array_append_new(cpus,
				      json_pack("{s:i,s:s,s:i,s:s,s:{s:i,s:i,s:i}}", "cpu-index", (int)n, "qom-path",
						path, "thread-id", machine_cpu_thread_id(of(call), n), "target",
						"x86_64", "props", "socket-id", (int)n, "core-id", 0, "thread-id", 0));
	}
	return cpus;
}

static json_t *query_memory_size_summary(struct call *call)
{
	return json_pack("{s:I}", "base-memory", (json_int_t)machine_config(of(call))->memory);
}

static json_t *info(struct call *call)
{
	const struct machine_config *c = machine_config(of(call));

	return json_pack("{s:s?,s:i,s:s,s:i,s:I,s:I,s:s?,s:s?}", "name", c->name, "pid", (int)getpid(), "engine",
			 machine_engine(of(call)), "cpus", (int)c->cpus, "memory", (json_int_t)c->memory,
			 "guest-time-ns", (json_int_t)machine_time(of(call)), "kernel", c->kernel, "firmware",
			 c->firmware);
}

/* ---- what it does ---- */

static json_t *stop(struct call *call)
{
	machine_stop(of(call));
	return nothing();
}

static json_t *cont(struct call *call)
{
	machine_go_on(of(call));
	return nothing();
}

static json_t *system_reset(struct call *call)
{
	machine_reset_button(of(call));
	return nothing();
}

static json_t *system_powerdown(struct call *call)
{
	machine_power_button(of(call));
	return nothing();
}

static json_t *quit(struct call *call)
{
	machine_quit(of(call));
	return nothing();
}

static json_t *query_balloon(struct call *call)
{
	struct balloon_info info;
	struct error err = { 0 };

	if (machine_query_balloon(of(call), &info, &err)) {
		fail(call, CLASS_NO_DEVICE, "%s", err.text);
		return NULL;
	}
	return json_pack("{s:I}", "actual", (json_int_t)(machine_config(of(call))->memory - info.actual));
}

static json_t *balloon(struct call *call)
{
	uint64_t memory = machine_config(of(call))->memory, value;
	struct error err = { 0 };

	value = (uint64_t)json_integer_value(json_object_get(call->arguments, "value"));
	value = MIN(value, memory) & ~UINT64_C(4095);
	if (machine_set_balloon(of(call), memory - value, &err)) {
		fail(call, CLASS_NO_DEVICE, "%s", err.text);
		return NULL;
	}
	return nothing();
}

/* ---- the table ---- */

enum type { TYPE_NUMBER, TYPE_LIST };
struct argument {
	const char *name;
	enum type type;
	bool optional;
	int64_t least, most; /* of a number */
};
#define ARGUMENTS_MOST 4
struct command {
	const char *name;
	json_t *(*run)(struct call *);
	struct argument arguments[ARGUMENTS_MOST]; /* ended by one without a name */
};

static json_t *query_commands(struct call *call);

static const struct command commands[] = {
	{ "qmp_capabilities", qmp_capabilities, { { "enable", TYPE_LIST, true, 0, 0 } } },
	{ "query-commands", query_commands, { { 0 } } },
	{ "query-version", query_version, { { 0 } } },
	{ "query-name", query_name, { { 0 } } },
	{ "query-status", query_status, { { 0 } } },
	{ "query-kvm", query_kvm, { { 0 } } },
	{ "query-cpus-fast", query_cpus_fast, { { 0 } } },
	{ "query-memory-size-summary", query_memory_size_summary, { { 0 } } },
	{ "query-balloon", query_balloon, { { 0 } } },
	{ "balloon", balloon, { { "value", TYPE_NUMBER, false, 0, INT64_MAX } } },
	{ "stop", stop, { { 0 } } },
	{ "cont", cont, { { 0 } } },
	{ "system_reset", system_reset, { { 0 } } },
	{ "system_powerdown", system_powerdown, { { 0 } } },
	{ "quit", quit, { { 0 } } },
	{ "x-doppel-info", info, { { 0 } } },
};

static json_t *query_commands(struct call *call)
{
	json_t *list = json_array();

	(void)call;
	for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
		json_array_append_new(list, json_pack("{s:s}", "name", commands[n].name));
	return list;
}

/* ---- checks ---- */

static bool is_number(const json_t *v) { return json_is_integer(v); }
static bool is_list(const json_t *v) { return json_is_array(v); }

static const struct {
	const char *name;
	bool (*is)(const json_t *);
} types[] = {
	[TYPE_NUMBER] = { "integer", is_number },
	[TYPE_LIST] = { "array", is_list },
};

static const struct argument *find_argument(const struct command *command, const char *name)
{
	for (const struct argument *a = command->arguments; a < command->arguments + ARGUMENTS_MOST && a->name; a++)
		if (!strcmp(a->name, name))
			return a;
	return NULL;
}

static bool check_value(struct call *call, const struct argument *a, const json_t *value)
{
	if (!types[a->type].is(value)) {
		fail(call, CLASS_GENERIC, "Invalid parameter type for '%s', expected: %s", a->name,
		     types[a->type].name);
		return false;
	}
	if (a->type == TYPE_NUMBER && (json_integer_value(value) < a->least || json_integer_value(value) > a->most)) {
		fail(call, CLASS_GENERIC,
		     "Parameter '%s' is %" JSON_INTEGER_FORMAT ", expected: %" PRId64 " to %" PRId64, a->name,
		     json_integer_value(value), a->least, a->most);
		return false;
	}
	return true;
}

static bool check_arguments(struct call *call, const struct command *command)
{
	const char *name;
	json_t *value;

	json_object_foreach(call->arguments, name, value)
	{
		const struct argument *a = find_argument(command, name);

		if (!a) {
			fail(call, CLASS_GENERIC, "Parameter '%.64s' is unexpected", name);
			return false;
		}
		if (!check_value(call, a, value))
			return false;
	}
	for (const struct argument *a = command->arguments; a < command->arguments + ARGUMENTS_MOST && a->name; a++) {
		if (a->optional || json_object_get(call->arguments, a->name))
			continue;
		fail(call, CLASS_GENERIC, "Parameter '%s' is missing", a->name);
		return false;
	}
	return true;
}

static const struct command *find_command(struct call *call, const json_t *request, bool ready)
{
	const char *name = json_string_value(json_object_get(request, "execute"));

	if (!name) {
		fail(call, CLASS_GENERIC, "QMP input lacks member 'execute'");
		return NULL;
	}
	if (!ready && strcmp(name, "qmp_capabilities") != 0) {
		fail(call, CLASS_NOT_FOUND,
		     "Expecting capabilities negotiation with 'qmp_capabilities' before command '%.64s'", name);
		return NULL;
	}
	for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
		if (!strcmp(commands[n].name, name))
			return &commands[n];
	fail(call, CLASS_NOT_FOUND, "The command %.64s has not been found", name);
	return NULL;
}

static bool check_members(struct call *call, json_t *request)
{
	const char *name;
	json_t *value;

	json_object_foreach(request, name, value)
	{
		if (!strcmp(name, "execute") || !strcmp(name, "id"))
			continue;
		if (strcmp(name, "arguments") != 0) {
			fail(call, CLASS_GENERIC, "QMP input member '%.64s' is unexpected", name);
			return false;
		}
		if (!json_is_object(value)) {
			fail(call, CLASS_GENERIC, "QMP input member 'arguments' must be an object");
			return false;
		}
	}
	return true;
}

/* ---- answers ---- */

json_t *command_error(const char *class, const char *why, json_t *id)
{
	return json_pack("{s:{s:s,s:s},s:O*}", "error", "class", class, "desc", why, "id", id);
}

json_t *command_answer(struct machine *machine, json_t *request, bool *ready)
{
	struct call call = { .machine = machine, .arguments = json_object_get(request, "arguments") };
	json_t *id = json_object_get(request, "id"), *answer = NULL;
	const struct command *command;

	if (!json_is_object(request))
		return command_error(CLASS_GENERIC, "QMP input must be a JSON object", NULL);
	command = check_members(&call, request) ? find_command(&call, request, *ready) : NULL;
	if (command && check_arguments(&call, command))
		answer = command->run(&call);
	if (!answer)
		return command_error(call.class ? call.class : CLASS_GENERIC, call.class ? call.why : "Out of memory",
				     id);
	*ready |= call.negotiates;
	return json_pack("{s:o,s:O*}", "return", answer, "id", id);
}

json_t *command_run_named(struct machine *machine, const char *name, json_t *arguments, struct error *err)
{
	json_t *request = json_pack("{s:s,s:o*}", "execute", name, "arguments", arguments), *answer, *result;
	const char *why;
	bool ready = true;

	answer = request ? command_answer(machine, request, &ready) : NULL;
	result = json_incref(json_object_get(answer, "return"));
	why = json_string_value(json_object_get(json_object_get(answer, "error"), "desc"));
	if (!result)
		error_set(err, EINVAL, "%.300s", why ? why : "Out of memory");
	json_decref(answer);
	json_decref(request);
	return result;
}

/* ---- events ---- */

const char *command_event(enum machine_event event)
{
	static const char *const names[] = {
		[MACHINE_STOPS] = "STOP",	[MACHINE_GOES_ON] = "RESUME", [MACHINE_RESETS] = "RESET",
		[MACHINE_BUTTON] = "POWERDOWN", [MACHINE_ENDS] = "SHUTDOWN",  [MACHINE_IO_FAILS] = "BLOCK_IO_ERROR",
	};

	return names[event];
}
