/*
 * The engines there are, and choosing one by name.
 */
#include "engine/engine.h"

#include <errno.h>

/* Best last: "auto" takes the last whose probe succeeds. */
const struct engine_ops *const engines[] = { &interp_engine, &bt_engine, NULL };

static const struct engine_ops *best_engine(struct error *err)
{
	const struct engine_ops *best = NULL;

	for (size_t i = 0; engines[i]; i++)
		if (!engines[i]->probe(err))
			best = engines[i];
	if (!best)
		error_prefix(err, "no engine works on this host");
	return best;
}

const struct engine_ops *engine_find(const char *name, struct error *err)
{
	char names[128] = "auto";
	size_t used = strlen(names);

	if (!strcmp(name, "auto"))
		return best_engine(err);
	for (size_t i = 0; engines[i]; i++) {
		if (!strcmp(name, engines[i]->name)) {
			if (!engines[i]->probe(err))
				return engines[i];
			error_prefix(err, "engine '%s'", name);
			return NULL;
		}
		used += (size_t)snprintf(names + used, sizeof(names) - used, ", %s", engines[i]->name);
		BUG_ON(used >= sizeof(names));
	}
	error_set(err, EINVAL, "engine '%s' is unknown; there are: %s", name, names);
	return NULL;
}
