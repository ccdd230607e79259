/*
 * The isolation fuzzer (tests/isolation) with the choices of libFuzzer: code, registers and page tables are what its bytes say, and
 * random when they are used up.
 */
#include "isolation/isolation.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct session_options all_room = { .rounds = 6, .step = 5 };
	static const struct session_options no_room = {
		.rounds = 6,
		.step = 5,
		.interp = "interp,stubs=64,arena=8",
		.engine = "bt,stubs=64,arena=8,cache=1,blocks=8,tables=1,windows=8,mappings=1024",
	};
	struct choices choices = { .bytes = data, .left = size };
	struct session_counts counts = { 0 };

	session_run(&choices, "this input", size & 1 ? &no_room : &all_room, &counts);
	return 0;
}
