/*
 * Sentences about what went wrong. The only file that knows how struct error is filled.
 */
#include "base/base.h"

#include <errno.h>

/* Formats into a buffer of its own first, so that arguments may point into err->text. */
static int error_fill(struct error *err, int code, const char *suffix, const char *fmt, va_list args)
{
	char text[sizeof(err->text)];
	size_t length;

	if (!err)
		return -code;
	vsnprintf(text, sizeof(text), fmt, args);
	length = strlen(text);
	if (suffix)
		snprintf(text + length, sizeof(text) - length, ": %s", suffix);
	memcpy(err->text, text, sizeof(text));
	err->code = code;
	return -code;
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	error_fill(err, code, NULL, fmt, args);
	va_end(args);
	return -code;
}

int error_set_errno(struct error *err, int code, const char *fmt, ...)
{
	char buffer[128];
	va_list args;

	if (strerror_r(code, buffer, sizeof(buffer)))
		snprintf(buffer, sizeof(buffer), "error %d", code);
	va_start(args, fmt);
	error_fill(err, code, buffer, fmt, args);
	va_end(args);
	return -code;
}

int error_prefix(struct error *err, const char *fmt, ...)
{
	char old[sizeof(err->text)];
	va_list args;

	if (!err)
		return -EIO;
	memcpy(old, err->text, sizeof(old));
	va_start(args, fmt);
	error_fill(err, err->code, old, fmt, args);
	va_end(args);
	return -err->code;
}
