/*
 * What a loader knows of an ELF executable once every number of its headers is checked.
 */
#ifndef DOPPEL_BOOT_ELF_H
#define DOPPEL_BOOT_ELF_H

#include "boot/private.h"

#define SEGMENTS_MAX 64 /* real kernels have fewer than ten; a bound on the work that a file can cause */

/* A program header of either class. */
struct segment {
	uint32_t type;
	uint64_t offset, vaddr, paddr, file_size, memory_size;
};

struct elf {
	bool wide; /* ELF64 */
	uint64_t entry;
	unsigned count;
	struct segment segments[SEGMENTS_MAX];
	uint64_t start, end; /* of all loaded segments */
};

/*
 * Headers of an x86 executable: what is to be loaded lies in the file, and its place in memory that is a kernel's, from `lowest` on (see
 * boot_check_range()).
 */
int elf_parse(const struct boot_image *, uint64_t lowest, struct elf *, struct error *);
/* Is this physical address in a loaded segment? */
bool elf_loads(const struct elf *, uint64_t address);
void elf_copy_segments(const struct boot_image *, const struct elf *);

#endif
