/*
 * Kernel files from anywhere: loaded into a small machine, with an initrd and modules made of the same bytes. Either an error with a
 * sentence, or a state whose first instruction is in memory. The first byte can put a multiboot header in front, whose magic number and
 * checksum would rarely come by chance.
 */
#include "boot/boot.h"

#include <stdlib.h>

#define MULTIBOOT_MAGIC 0x1badb002u
#define MULTIBOOT_ROOM	64 /* for an ELF header before it */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bits 0 and 1 of `how`: no header, one at the file's start, or behind what may be an ELF header; the flags are the file's. */
static void put_header(uint8_t how, uint8_t *kernel, size_t size)
{
	size_t at = how & 2 ? MULTIBOOT_ROOM : 0;
	uint32_t flags;

	if (!(how & 1) || size < at + 12)
		return;
	flags = load_le32(kernel + at + 4) & (how & 4 ? 0x10003 : UINT32_MAX);
	store_le32(kernel + at, MULTIBOOT_MAGIC);
	store_le32(kernel + at + 4, flags);
	store_le32(kernel + at + 8, -(MULTIBOOT_MAGIC + flags));
}

static void load(const uint8_t *bytes, size_t size)
{
	static const char *const modules[] = { "m,arguments", "n" };
	const struct boot_config config = { .kernel = "k",
					    .initrd = "i",
					    .command_line = "console=ttyS0",
					    .cpu_count = 1,
					    .modules = modules,
					    .module_count = size & 2 ? ARRAY_SIZE(modules) : 0 };
	const struct boot_bytes kernel = { bytes, size }, module_files[] = { kernel, { bytes, size / 2 } };
	const struct boot_files files = { .kernel = kernel,
					  .initrd = { bytes, size & 1 ? size : 0 },
					  .modules = module_files };
	struct guest_mem *mem = mem_create(8 << 20, NULL);
	struct cpu_state state;
	struct error err = { 0 };

	if (!mem || bios_map(mem, NULL))
		abort();
	memset(&state, 0, sizeof(state));
	if (boot_load_bytes(&config, &files, mem, &state, &err)) {
		if (!*err.text || strchr(err.text, '\n'))
			abort();
	} else if (!mem_find(mem, gpa(state.rip)) || !mem_find(mem, gpa(state.gdtr_base))) {
		abort();
	}
	mem_destroy(mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *kernel;

	if (!size)
		return 0;
	kernel = malloc(size - 1 ? size - 1 : 1); /* of its own size: the address sanitizer sees a read beyond */
	if (!kernel)
		abort();
	memcpy(kernel, data + 1, size - 1);
	put_header(data[0], kernel, size - 1);
	load(kernel, size - 1);
	free(kernel);
	return 0;
}
