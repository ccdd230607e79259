/*
 * Kernel files from anywhere: loaded into a small machine, with an initrd and modules made of the same bytes. Either an error with a
 * sentence, or a state whose first instruction is in memory.
 */
#include "boot/boot.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const modules[] = { "m,arguments", "n" };
	const struct boot_config config = { .kernel = "k",
					    .initrd = "i",
					    .command_line = "console=ttyS0",
					    .cpu_count = 1,
					    .modules = modules,
					    .module_count = size & 2 ? ARRAY_SIZE(modules) : 0 };
	const struct boot_bytes kernel = { data, size }, module_files[] = { kernel, { data, size / 2 } };
	const struct boot_files files = { .kernel = kernel,
					  .initrd = { data, size & 1 ? size : 0 },
					  .modules = module_files };
	struct guest_mem *mem = mem_create(8 << 20, NULL);
	struct cpu_state state;
	struct error err = { 0 };

	if (!mem)
		abort();
	memset(&state, 0, sizeof(state));
	if (boot_load_bytes(&config, &files, mem, &state, &err)) {
		if (!*err.text || strchr(err.text, '\n'))
			abort();
	} else if (!mem_find(mem, gpa(state.rip)) || !mem_find(mem, gpa(state.gdtr_base))) {
		abort();
	}
	mem_destroy(mem);
	return 0;
}
