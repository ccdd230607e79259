/*
 * boot: loaders that put a kernel into guest memory and say with which CPU state it starts, and the tables that firmware
 * would have left there (ACPI, memory map). Everything in a file is hostile.
 */
#ifndef DOPPEL_BOOT_H
#define DOPPEL_BOOT_H

#include "base/base.h"
#include "cpu/cpu.h"
#include "mem/mem.h"

struct boot_config {
	const char *kernel;	  /* path: bzImage, or ELF with a PVH note, or an ELF64/ELF32 for bare-metal tests */
	const char *initrd;	  /* path or NULL */
	const char *command_line; /* "" if none */
	unsigned cpu_count;
};

/*
 * Load into mem and set *state (fresh from cpu_reset's values) to the BSP's first instruction. Detects the format:
 *   bzImage (magic "HdrS", protocol >= 2.06, 64-bit entry): the 64-bit boot protocol, long mode, identity page tables;
 *   ELF with XEN_ELFNOTE_PHYS32_ENTRY: PVH, 32-bit protected mode, hvm_start_info in EBX;
 *   other ELF64 executables (x86-64): started at e_entry in long mode with 4 GiB identity-mapped, RDI = hvm_start_info.
 * Also writes ACPI tables, the zero page or start info, memory map. Errors are sentences with the path in them.
 */
int boot_load(const struct boot_config *, struct guest_mem *, struct cpu_state *, struct error *);

/* The same on bytes in memory, for the fuzzers. */
int boot_load_bytes(const struct boot_config *, const uint8_t *kernel, size_t kernel_size, const uint8_t *initrd,
		    size_t initrd_size, struct guest_mem *, struct cpu_state *, struct error *);

/* A guest's first instruction in flat 32-bit protected mode: writes a GDT; all general registers are 0, interrupts off. */
void boot_state_protected_mode(struct guest_mem *, struct cpu_state *, uint32_t eip);

/* RSDP in 0xe0000..0xfffff, the tables near it: FADT, FACS, DSDT, MADT. Returns the RSDP's address. */
gpa_t acpi_build(struct guest_mem *, unsigned cpu_count);

#endif
