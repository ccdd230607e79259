/*
 * Lines of the log and of traces that a thread must not write yet: it has a lock that others wait for, and who reads what is written may take
 * his time.
 */
#define _GNU_SOURCE
#include "base/base.h"

#include <stdlib.h>

#define MOST_LINES 1000u /* an access makes a handful, a reset of everything some hundred */

struct output_line {
	struct output_line *next;
	output_fn *write;
	void *opaque;
	int kind;
	char *text;
};

_Thread_local struct output this_output;

static void append(struct output *o, struct output_line *line)
{
	line->next = NULL;
	if (o->last)
		o->last->next = line;
	else
		o->first = line;
	o->last = line;
	o->count++;
}

static void keep(struct output_line line, const char *fmt, va_list args)
{
	struct output *o = &this_output;
	struct output_line *kept = o->count < MOST_LINES ? malloc(sizeof(*kept)) : NULL;

	if (!kept || vasprintf(&line.text, fmt, args) < 0) {
		free(kept);
		o->dropped++;
		return;
	}
	*kept = line;
	append(o, kept);
}

void output_line(output_fn *write, void *opaque, int kind, const char *fmt, va_list args)
{
	if (this_output.holds)
		keep((struct output_line){ .write = write, .opaque = opaque, .kind = kind }, fmt, args);
	else
		write(opaque, kind, fmt, args);
}

static void write_kept(const struct output_line *line, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	line->write(line->opaque, line->kind, fmt, args);
	va_end(args);
}

void output_write(void)
{
	struct output *o = &this_output;
	struct output_line *line = o->first, *next;
	unsigned dropped = o->dropped;

	o->first = o->last = NULL;
	o->count = o->dropped = 0;
	for (; line; line = next) {
		next = line->next;
		write_kept(line, "%s", line->text);
		free(line->text);
		free(line);
	}
	if (dropped)
		log_warning("%u lines of the log or a trace were too many, and are lost", dropped);
}
