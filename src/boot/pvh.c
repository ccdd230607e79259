/*
 * The start information of the PVH boot ABI (Xen's docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h, version 1): what a
 * PVH kernel finds through EBX, and our bare-metal ELF guests through RDI.
 */
#include "boot/private.h"

#define START_INFO_MAGIC   0x336ec578u
#define START_INFO_VERSION 1

struct start_info {
	uint32_t magic, version, flags, module_count;
	uint64_t modules, command_line, rsdp, memory_map;
	uint32_t memory_map_entries, reserved;
};

struct start_info_module {
	uint64_t start, size, command_line, reserved;
};

struct start_info_memory {
	uint64_t start, size;
	uint32_t type, reserved;
};

#define PVH_MODULES_AT	  (LOW_START_INFO + 0x100u)
#define PVH_MEMORY_MAP_AT (LOW_START_INFO + 0x200u)

void pvh_write_start_info(const struct boot_image *image, uint64_t initrd)
{
	struct memory_range map[MEMORY_RANGES_MAX];
	unsigned entries = boot_memory_map(image->mem, map);
	struct start_info_module module = { .start = initrd, .size = image->initrd_size };
	struct start_info info = {
		.magic = START_INFO_MAGIC,
		.version = START_INFO_VERSION,
		.module_count = initrd != 0,
		.modules = initrd ? PVH_MODULES_AT : 0,
		.command_line = LOW_COMMAND_LINE,
		.rsdp = image->rsdp.v,
		.memory_map = PVH_MEMORY_MAP_AT,
		.memory_map_entries = entries,
	};

	boot_write(image->mem, LOW_START_INFO, &info, sizeof(info));
	if (initrd)
		boot_write(image->mem, PVH_MODULES_AT, &module, sizeof(module));
	for (unsigned i = 0; i < entries; i++) {
		struct start_info_memory entry = { map[i].start, map[i].size, map[i].type, 0 };

		boot_write(image->mem, PVH_MEMORY_MAP_AT + i * sizeof(entry), &entry, sizeof(entry));
	}
}
