/*
 * What people type, as to QEMU's monitor: words, most of which are a command of QMP's. Their answers are text, which scripts look into as well.
 */
#include "control/private.h"

#include <inttypes.h>
#include <stdlib.h>

const char human_prompt[] = "(qemu) ";
const char human_greeting[] = "QEMU 7.2.0 monitor - type 'help' for more information\r\n(qemu) ";

struct answer {
	struct machine *machine;
	const char *rest; /* of the line, behind the word */
	struct bytes text;
};

static void __attribute__((format(printf, 2, 3))) say(struct answer *a, const char *format, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	bytes_add(&a->text, line, strlen(line));
	bytes_add(&a->text, "\r\n", 2);
}

/* Of a command without arguments; its sentence is said. The caller's. */
static json_t *ask(struct answer *a, const char *command, json_t *arguments)
{
	struct error err = { 0 };
	json_t *result = command_run_named(a->machine, command, arguments, &err);

	if (!result)
		say(a, "Error: %s", err.text);
	return result;
}

/* ---- info ---- */

static void info_status(struct answer *a)
{
	json_t *status = ask(a, "query-status", NULL);
	const char *text = json_string_value(json_object_get(status, "status"));

	if (text)
		say(a, "VM status: %s%s%s%s", strcmp(text, "running") ? "paused" : "running",
		    strcmp(text, "io-error") ? "" : " (", strcmp(text, "io-error") ? "" : text,
		    strcmp(text, "io-error") ? "" : ")");
	json_decref(status);
}

static void info_name(struct answer *a)
{
	const char *name = machine_config(a->machine)->name;

	if (name)
		say(a, "%s", name);
}

static void info_version(struct answer *a)
{
	json_t *version = ask(a, "query-version", NULL), *qemu = json_object_get(version, "qemu");

	say(a, "%d.%d.%d (%s)", (int)json_integer_value(json_object_get(qemu, "major")),
	    (int)json_integer_value(json_object_get(qemu, "minor")),
	    (int)json_integer_value(json_object_get(qemu, "micro")),
	    json_string_value(json_object_get(version, "package")));
	json_decref(version);
}

static void info_kvm(struct answer *a) { say(a, "kvm support: not compiled"); }

static void info_cpus(struct answer *a)
{
	for (unsigned n = 0; n < machine_config(a->machine)->cpus; n++)
		say(a, "%c CPU #%u: thread_id=%d", n ? ' ' : '*', n, machine_cpu_thread_id(a->machine, n));
}

static void info_balloon(struct answer *a)
{
	json_t *balloon = ask(a, "query-balloon", NULL);

	if (balloon)
		say(a, "balloon: actual=%" PRId64,
		    (int64_t)json_integer_value(json_object_get(balloon, "actual")) >> 20);
	json_decref(balloon);
}

/* ---- words ---- */

static void simple(struct answer *a, const char *command) { json_decref(ask(a, command, NULL)); }

static void stop(struct answer *a) { simple(a, "stop"); }
static void cont(struct answer *a) { simple(a, "cont"); }
static void quit(struct answer *a) { simple(a, "quit"); }
static void reset(struct answer *a) { simple(a, "system_reset"); }
static void powerdown(struct answer *a) { simple(a, "system_powerdown"); }

static void balloon(struct answer *a)
{
	json_decref(ask(a, "balloon", json_pack("{s:I}", "value", (json_int_t)strtoul(a->rest, NULL, 10) << 20)));
}

static void help(struct answer *a);
static void info(struct answer *a);

struct word {
	const char *name, *argument, *what;
	void (*run)(struct answer *);
};
static const struct word words[] = {
	{ "help", "", "these words", help },
	{ "?", "", "the same", help },
	{ "info", "[subcommand]", "what the machine is and does", info },
	{ "stop", "", "its processors and its time stand still", stop },
	{ "cont", "", "they go on", cont },
	{ "c", "", "the same", cont },
	{ "system_reset", "", "its reset button", reset },
	{ "system_powerdown", "", "its power button", powerdown },
	{ "quit", "", "its plug", quit },
	{ "q", "", "the same", quit },
	{ "balloon", "target", "so many MiB are the guest's", balloon },
};
static const struct word infos[] = {
	{ "balloon", "", "how much memory the guest has", info_balloon },
	{ "cpus", "", "threads of processors", info_cpus },
	{ "kvm", "", "whether KVM is used", info_kvm },
	{ "name", "", "the machine's name", info_name },
	{ "status", "", "whether it runs", info_status },
	{ "version", "", "whose words these are", info_version },
};

static void list(struct answer *a, const char *before, const struct word *table, size_t count)
{
	for (size_t n = 0; n < count; n++)
		say(a, "%s%s%s%s -- %s", before, table[n].name, *table[n].argument ? " " : "", table[n].argument,
		    table[n].what);
}

static void help(struct answer *a) { list(a, "", words, ARRAY_SIZE(words)); }

/* The word that the line begins with. */
static bool run(struct answer *a, const struct word *table, size_t count, const char *line)
{
	size_t length = strcspn(line, " \t");

	for (size_t n = 0; n < count; n++)
		if (strlen(table[n].name) == length && !strncmp(table[n].name, line, length)) {
			a->rest = line + length + strspn(line + length, " \t");
			table[n].run(a);
			return true;
		}
	return false;
}

static void info(struct answer *a)
{
	const char *line = a->rest;

	if (!*line || !strncmp(line, "help", 4))
		list(a, "info ", infos, ARRAY_SIZE(infos));
	else if (!run(a, infos, ARRAY_SIZE(infos), line))
		say(a, "unknown command: 'info %.80s'", line);
}

char *human_answer(struct machine *machine, const char *line)
{
	struct answer a = { .machine = machine };

	line += strspn(line, " \t");
	if (*line && !run(&a, words, ARRAY_SIZE(words), line))
		say(&a, "unknown command: '%.*s'", (int)MIN(strcspn(line, " \t"), 80), line);
	bytes_add(&a.text, "", 1);
	return (char *)a.text.data;
}
