/*
 * The log: lines on standard error for the person who runs doppel. One a process, as standard error is.
 */
#include "base/base.h"

#include <stdatomic.h>

#define LOG_GUEST_BURST 10u

static _Atomic int log_level = LOG_INFO;

static const char *const log_prefixes[] = {
	[LOG_ERROR] = "error: ",
	[LOG_WARNING] = "warning: ",
	[LOG_INFO] = "",
	[LOG_DEBUG] = "debug: ",
};

static bool log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

void log_set_level(enum log_level level) { atomic_store_explicit(&log_level, (int)level, memory_order_relaxed); }

/* The stream's lock keeps the parts of a line together. */
static void write_line(void *opaque, int level, const char *fmt, va_list args)
{
	(void)opaque;
	flockfile(stderr);
	fprintf(stderr, "doppel: %s", log_prefixes[level]);
	vfprintf(stderr, fmt, args);
	putc_unlocked('\n', stderr);
	fflush(stderr);
	funlockfile(stderr);
}

static void log_line(enum log_level level, const char *fmt, va_list args)
{
	output_line(write_line, NULL, level, fmt, args);
}

void log_print(enum log_level level, const char *fmt, ...)
{
	va_list args;

	if (!log_enabled(level))
		return;
	va_start(args, fmt);
	log_line(level, fmt, args);
	va_end(args);
}

void log_guest_print(struct log_limit *limit, const char *fmt, ...)
{
	va_list args;
	unsigned n;

	/* The first test keeps the counter from wrapping around, however often the guest comes here. */
	if (!log_enabled(LOG_WARNING) || __atomic_load_n(&limit->count, __ATOMIC_RELAXED) > LOG_GUEST_BURST)
		return;
	n = __atomic_fetch_add(&limit->count, 1, __ATOMIC_RELAXED);
	if (n > LOG_GUEST_BURST)
		return;
	if (n == LOG_GUEST_BURST) {
		log_print(LOG_WARNING, "guest: further messages suppressed");
		return;
	}
	va_start(args, fmt);
	log_line(LOG_WARNING, fmt, args);
	va_end(args);
}
