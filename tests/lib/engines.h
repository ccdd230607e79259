/*
 * For unit tests that run machines under each engine.
 */
#ifndef DOPPEL_TESTS_LIB_ENGINES_H
#define DOPPEL_TESTS_LIB_ENGINES_H

#include "engine/engine.h"

#include <cmocka.h>

/* Does it run on this host? If not, the output says so. */
static inline bool engine_is_here(const char *engine)
{
	struct engine_options options;

	if (engine_find(engine, &options, NULL))
		return true;
	print_message("# engine %s does not run on this host\n", engine);
	return false;
}

#endif
