/*
 * A firmware's ROM: ends at 4 GiB, where the processor starts (SDM vol. 3A 9.1.4); its last part is below 1 MiB too, where firmware of
 * 16 bits runs.
 */
#include "boot/private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define ROM_MAX	     (16u << 20) /* what is below are APICs */
#define BELOW_1M_MAX (128u << 10)

static const struct rom_name {
	const char *name, *path, *package;
} rom_names[] = {
	{ "bios", "/usr/share/seabios/bios-256k.bin", "seabios" },
	{ "uefi", "/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf" },
};

const char *rom_name(unsigned n) { return n < ARRAY_SIZE(rom_names) ? rom_names[n].name : NULL; }

/* NULL: a file of its own. */
static const struct rom_name *find_name(const char *firmware)
{
	for (unsigned n = 0; n < ARRAY_SIZE(rom_names); n++)
		if (!strcmp(firmware, rom_names[n].name))
			return &rom_names[n];
	return NULL;
}

int rom_load(struct guest_mem *mem, const char *firmware, struct error *err)
{
	const struct rom_name *name = find_name(firmware);
	const char *path = name ? name->path : firmware;
	uint8_t *rom = NULL;
	size_t size, part;
	int rc = boot_read_file("firmware", path, ROM_MAX, &rom, &size, err);

	if (rc == -ENOENT && name)
		return error_set(err, ENOENT, "firmware '%s' is not installed; expected %s, of the package %s",
				 name->name, name->path, name->package);
	if (rc && rc != -EFBIG)
		return rc;
	if (rc || !size || size % PAGE_SIZE) {
		free(rom);
		return error_set(err, ENOEXEC, "firmware '%s': a ROM has a multiple of 4096 bytes, at most 16 MiB%s",
				 path, rc ? "; this one is larger" : "");
	}
	part = MIN(size, BELOW_1M_MAX);
	rc = mem_add_rom(mem, gpa(MEM_HIGH_BASE - size), rom, size, err);
	if (!rc)
		rc = mem_add_rom(mem, gpa(FIRMWARE_END - part), rom + size - part, part, err);
	free(rom);
	return rc;
}
