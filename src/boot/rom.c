/*
 * A firmware's ROM: ends at 4 GiB, where the processor starts (SDM vol. 3A 9.1.4); its last part is below 1 MiB too, where firmware of
 * 16 bits runs.
 */
#include "boot/private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define ROM_MAX	   (16u << 20) /* what is below are APICs */
#define SHADOW_MAX (128u << 10)

int rom_load(struct guest_mem *mem, const char *path, uint8_t **rom, size_t *size, struct error *err)
{
	int rc = boot_read_file("firmware", path, ROM_MAX, rom, size, err);

	if (rc && rc != -EFBIG)
		return rc;
	if (rc || !*size || *size % PAGE_SIZE)
		return error_set(err, ENOEXEC, "firmware '%s': a ROM has a multiple of 4096 bytes, at most 16 MiB%s",
				 path, rc ? "; this one is larger" : "");
	return mem_add_rom(mem, gpa(MEM_HIGH_BASE - *size), *rom, *size, err);
}

void rom_shadow(struct guest_mem *mem, const uint8_t *rom, size_t size)
{
	size_t part = MIN(size, SHADOW_MAX);

	boot_write(mem, FIRMWARE_END - part, rom + size - part, part);
}
