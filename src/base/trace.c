/*
 * Trace points: which categories are on, and where their lines go.
 */
#include "base/base.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const trace_names[TRACE_COUNT] = {
#define _(id, name, what) [TRACE_##id] = name,
	TRACE_CATEGORIES(_)
#undef _
};

#define TRACE_NAMES_TEXT(id, name, what) ", " name

static int trace_parse(uint32_t *mask, const char *categories, struct error *err)
{
	const char *at = categories;

	*mask = 0;
	for (;;) {
		size_t length = strcspn(at, ",");
		unsigned i;

		if (length == 3 && !memcmp(at, "all", 3)) {
			*mask = (uint32_t)(BIT(TRACE_COUNT) - 1);
		} else if (length == 4 && !memcmp(at, "help", 4)) {
			return error_set(err, EINVAL, "trace categories are: all" TRACE_CATEGORIES(TRACE_NAMES_TEXT));
		} else {
			for (i = 0; i < TRACE_COUNT; i++)
				if (strlen(trace_names[i]) == length && !memcmp(trace_names[i], at, length))
					break;
			if (i == TRACE_COUNT)
				return error_set(err, EINVAL,
						 "'%.*s' is not a trace category; expected a list of: "
						 "all" TRACE_CATEGORIES(TRACE_NAMES_TEXT),
						 (int)MIN(length, 64), at);
			*mask |= (uint32_t)BIT(i);
		}
		if (!at[length])
			return 0;
		at += length + 1;
	}
}

int trace_open(struct trace *trace, const char *categories, const char *path, uint64_t limit, struct error *err)
{
	uint32_t mask;
	int rc = trace_parse(&mask, categories, err);

	if (rc)
		return rc;
	if (path) {
		trace->out = fopen(path, "we");
	} else {
		int fd = dup(STDERR_FILENO);

		/* A stream of its own, so that closing it leaves standard error alone. */
		trace->out = fd < 0 ? NULL : fdopen(fd, "w");
		if (!trace->out && fd >= 0)
			close(fd);
	}
	if (!trace->out)
		return error_set_errno(err, errno, "cannot open trace file '%s'", path ? path : "standard error");
	if (!path)
		setvbuf(trace->out, NULL, _IOLBF, BUFSIZ);
	trace->left = limit;
	trace->mask = mask;
	return 0;
}

void trace_close(struct trace *trace)
{
	trace->mask = 0;
	if (trace->out && fclose(trace->out))
		log_error("trace file: %s", strerror(errno));
	trace->out = NULL;
}

void trace_lock(struct trace *trace) { flockfile(trace->out); }

void trace_unlock(struct trace *trace) { funlockfile(trace->out); }

static void write_line(void *opaque, int category, const char *fmt, va_list args)
{
	struct trace *trace = opaque;
	int written;

	trace_lock(trace);
	if (trace->left) {
		written = fprintf(trace->out, "%s: ", trace_names[category]) + vfprintf(trace->out, fmt, args) + 1;
		putc_unlocked('\n', trace->out);
		trace->left -= MIN(trace->left, (uint64_t)written);
		if (!trace->left) {
			fputs("trace: its limit is reached, it ends here\n", trace->out);
			trace->mask = 0;
		}
	}
	trace_unlock(trace);
}

void trace_emit(struct trace *trace, enum trace_category category, const char *fmt, ...)
{
	va_list args;

	if (!trace->out)
		return;
	va_start(args, fmt);
	output_line(write_line, trace, category, fmt, args);
	va_end(args);
}
