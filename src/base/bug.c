/*
 * The end of a process that found itself wrong.
 */
#include "base/base.h"

#include <stdlib.h>

_Noreturn void bug_report(const char *file, int line, const char *what)
{
	output_write(); /* what led here */
	fprintf(stderr, "doppel: bug at %s:%d: %s\n", file, line, what);
	abort();
}
