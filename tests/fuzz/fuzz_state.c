/*
 * Records from anywhere: a load either fails and changes nothing, or gives what a save turns into the same values
 * again.
 */
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>

#define THING_STATE(_, T)                                                                                              \
	_(T, uint8_t, index, 1, 1, 0, 127)                                                                             \
	_(T, uint16_t, words, 5, 2, 4, 0xfff0)                                                                         \
	_(T, bool, enabled, 1, 3, 1, 1)                                                                                \
	_(T, uint64_t, deadline, 1, 4, 0, UINT64_MAX)

struct thing {
	STATE_FIELDS(THING_STATE)
};

static int thing_loaded(void *object, uint16_t version, struct error *err)
{
	const struct thing *thing = object;

	(void)version;
	return thing->index == 5 ? error_set(err, EINVAL, "index is 5") : 0;
}

STATE_DESC(thing_desc, "t", 1, struct thing, THING_STATE, .loaded = thing_loaded);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader reader = { data, size, 0 }, second;
	struct thing thing, before, again;
	struct writer writer = { 0 };
	struct error err;

	memset(&before, 0, sizeof(before));
	state_reset(&thing_desc, &before);
	before.index = 77;
	memcpy(&thing, &before, sizeof(thing));
	memset(&again, 0, sizeof(again));
	if (state_load(&thing_desc, 0, &thing, &reader, &err)) {
		if (memcmp(&thing, &before, sizeof(thing)) || reader.offset || err.code <= 0 || !err.text[0])
			abort();
		return 0;
	}
	if (thing.index > 127 || thing.index == 5 || reader.offset > size)
		abort();
	if (state_save(&thing_desc, 0, &thing, &writer))
		abort();
	second = (struct reader){ writer.data, writer.size, 0 };
	if (state_load(&thing_desc, 0, &again, &second, &err) || memcmp(&again, &thing, sizeof(thing)))
		abort();
	writer_free(&writer);
	return 0;
}
