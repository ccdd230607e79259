/*
 * A processor in any state executes anything (tests/step), with the choices of libFuzzer: the first bytes are a seed for whatever the
 * others do not decide.
 */
#include "step/step.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct case_options options = {
		.name = "this input",
		.first = size & 1 ? "interp,stubs=64,arena=8" : "interp",
	};
	struct case_counts counts = { 0 };
	struct choices choices = { 0 };
	size_t seed = MIN(size, sizeof(choices.state));

	memcpy(&choices.state, data, seed);
	choices.bytes = data + seed;
	choices.left = size - seed;
	case_run(&choices, &options, &counts);
	return 0;
}
