/*
 * What the loaders of boot/ share: where the monitor's own structures lie in low memory, the memory map, the places
 * of kernel and initrd, and the CPU states in which kernels start.
 */
#ifndef DOPPEL_BOOT_PRIVATE_H
#define DOPPEL_BOOT_PRIVATE_H

#include "boot/boot.h"

/*
 * Low memory as a loader leaves it. Kernels' own images may lie anywhere above LOW_END (and outside of what firmware
 * keeps): everything below is ours until the kernel has taken over.
 */
#define LOW_BDA		    0x400u /* BIOS data area, behind the interrupt vectors */
#define LOW_GDT		    0x500u
#define LOW_START_INFO	    0x6000u /* PVH: struct hvm_start_info, multiboot: information; module list and memory map */
#define LOW_ZERO_PAGE	    0x7000u /* Linux: struct boot_params */
#define LOW_PAGE_TABLES	    0x9000u /* PML4, PDPT, 4 page directories */
#define LOW_COMMAND_LINE    0x20000u
#define COMMAND_LINE_ROOM   0x10000u
#define LOW_END		    0x30000u
#define EBDA_START	    0x9fc00u /* where base memory ends on a PC with 1 KiB of extended BIOS data */
#define BASE_MEMORY_END	    0xa0000u
#define FIRMWARE_START	    0xe0000u /* ACPI tables */
#define LEGACY_TABLES_START 0xf0000u /* those that are searched for in this segment alone: MP, $PIR, SMBIOS */
#define LEGACY_TABLES_END   0xfe000u /* what the ROM answers, and the ROM: bios.h */
#define FIRMWARE_END	    0x100000u

/* Selectors of the GDT at LOW_GDT: the numbers are the Linux boot protocol's __BOOT_CS and __BOOT_DS. */
#define BOOT_CS	      0x10
#define BOOT_DS	      0x18
#define BOOT_GDT_SIZE 0x20u

/* Types as in ACPI's and Linux's E820 map and PVH's memory map alike. */
enum memory_type { MEMORY_RAM = 1, MEMORY_RESERVED = 2 };

struct memory_range {
	uint64_t start, size;
	enum memory_type type;
};
#define MEMORY_RANGES_MAX 8

/* All that a loader gets. */
struct boot_image {
	const struct boot_config *config;
	const char *name; /* the kernel's path, for errors */
	const uint8_t *kernel;
	size_t kernel_size;
	const uint8_t *initrd; /* NULL: none */
	size_t initrd_size;
	const struct boot_bytes *modules; /* config->module_count */
	struct guest_mem *mem;
	gpa_t rsdp;
};

/* Every error about the kernel file starts alike. */
#define kernel_error(image, err, code, fmt, ...) error_set(err, code, "kernel '%s': " fmt, (image)->name, ##__VA_ARGS__)

unsigned boot_memory_map(const struct guest_mem *, struct memory_range map[MEMORY_RANGES_MAX]);
/* End of the RAM that starts at 1 MiB, or 1 MiB when there is none. */
uint64_t boot_low_ram_end(const struct guest_mem *);
/* May a kernel's image or data lie at [start, start + size)? Only in RAM that is neither ours nor the firmware's. */
bool boot_range_usable(const struct guest_mem *, uint64_t start, uint64_t size);
/*
 * The same for a part of a kernel's image, with a sentence that says why not; `what` begins it. Nothing of it may lie below `lowest`: LOW_END,
 * or 0 where the loader puts its own structures elsewhere.
 */
int boot_check_range(const struct boot_image *, const char *what, uint64_t start, uint64_t size, uint64_t lowest,
		     struct error *);

/*
 * Copies the initrd as high as it fits below `limit` and outside of the kernel's [kernel_start, kernel_end). *where is its
 * address, 0 without an initrd.
 */
int boot_place_initrd(const struct boot_image *, uint64_t limit, uint64_t kernel_start, uint64_t kernel_end,
		      uint64_t *where, struct error *);
/* Copies the command line to LOW_COMMAND_LINE; at most max bytes without the NUL. With virtio devices that are announced there alone. */
int boot_place_command_line(const struct boot_image *, size_t max, struct error *);

/* boot_state_protected_mode() with the GDT, BOOT_GDT_SIZE bytes, elsewhere than at LOW_GDT. */
void boot_state_protected_mode_at(struct guest_mem *, struct cpu_state *, uint32_t eip, uint64_t gdt);
/* Real mode, interrupts off: all segments but CS are this one; where it starts is the caller's. */
void boot_state_real_mode(struct cpu_state *, uint16_t segment, uint16_t sp);
/* As boot_state_protected_mode(), in long mode, with identity page tables for the first 4 GiB. */
void boot_state_long_mode(struct guest_mem *, struct cpu_state *, uint64_t rip);

/* host_file_read(); what is no file, such as a folder, is -ENOEXEC. `what` begins the sentence of an error. */
int boot_read_file(const char *what, const char *path, size_t max, uint8_t **data, size_t *size, struct error *);
/* Writes to places that the memory map has for sure: failing is our own mistake. */
void boot_write(struct guest_mem *, uint64_t where, const void *, size_t);

struct pc;
/* Interrupt vectors, the BIOS's data areas, and what its ROM answers. */
void bios_write(struct guest_mem *, const struct pc *);
/* RSDP in FIRMWARE_START..LEGACY_TABLES_START, the tables near it: FADT, FACS, DSDT, MADT. Returns the RSDP's address. */
gpa_t acpi_build(struct guest_mem *, const struct pc *);

bool linux_recognise(const uint8_t *kernel, size_t size);
int linux_load(const struct boot_image *, struct cpu_state *, struct error *);
bool multiboot_recognise(const uint8_t *kernel, size_t size);
int multiboot_load(const struct boot_image *, struct cpu_state *, struct error *);
bool elf_recognise(const uint8_t *kernel, size_t size);
int elf_load(const struct boot_image *, struct cpu_state *, struct error *);
/* Writes hvm_start_info (Xen's public/arch-x86/hvm/start_info.h, version 1) at LOW_START_INFO. */
void pvh_write_start_info(const struct boot_image *, uint64_t initrd);

#endif
