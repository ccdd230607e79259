/*
 * The isolation fuzzer (tests/isolation) with the choices of libFuzzer: code, registers and page tables are what its bytes say, and
 * random when they are used up.
 */
#include "isolation/isolation.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct session_options options = { .rounds = 6, .step = 5 };
	struct choices choices = { .bytes = data, .left = size };
	struct session_counts counts = { 0 };

	session_run(&choices, "this input", &options, &counts);
	return 0;
}
