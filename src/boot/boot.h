/*
 * boot: loaders that put a kernel into guest memory and say with which CPU state it starts, and the tables that firmware
 * would have left there (ACPI, memory map). Everything in a file is hostile.
 */
#ifndef DOPPEL_BOOT_H
#define DOPPEL_BOOT_H

#include "base/base.h"
#include "cpu/cpu.h"
#include "devices/devices.h"
#include "mem/mem.h"

struct boot_config {
	const char *kernel; /* path: bzImage, multiboot image, ELF with a PVH note, or an ELF64 for bare-metal tests */
	const char *initrd; /* path or NULL */
	const char *command_line;   /* "" if none */
	const char *const *modules; /* "PATH[,ARGUMENTS]" each, for multiboot kernels */
	unsigned module_count;	    /* at most BOOT_MODULES_MAX */
	unsigned cpu_count;
	uint32_t cpu_signature, cpu_features; /* CPUID 1: EAX and EDX of every processor */
	unsigned serial_ports;		      /* bit n: COM(n + 1) exists */
	uint32_t virtio_windows;	      /* bit n: a virtio device is in window n (devices.h) */
	bool fw_cfg;			      /* there is a firmware configuration device */
	bool hpet, vmgenid;		      /* there are such devices */
	const char *const *smbios;	      /* smbios_check() each */
	unsigned smbios_count;
};
#define BOOT_MODULES_MAX 64
#define BOOT_SMBIOS_MOST 16

/* Contents of a file; data NULL: there is none. */
struct boot_bytes {
	const uint8_t *data;
	size_t size;
};

struct boot_files {
	struct boot_bytes kernel, initrd;
	const struct boot_bytes *modules; /* config->module_count of them */
};

/*
 * Load into mem and set *state (fresh from cpu_reset's values) to the BSP's first instruction. Detects the format:
 *   bzImage (magic "HdrS", protocol >= 2.06, 64-bit entry): the 64-bit boot protocol, long mode, identity page tables;
 *   anything with a multiboot 1 header in its first 8 KiB: 32-bit protected mode, multiboot information in EBX;
 *   ELF with XEN_ELFNOTE_PHYS32_ENTRY: PVH, 32-bit protected mode, hvm_start_info in EBX;
 *   other ELF64 executables (x86-64): started at e_entry in long mode with 4 GiB identity-mapped, RDI = hvm_start_info.
 * Also writes ACPI tables, the zero page or start info, memory map. Errors are sentences with the path in them.
 */
int boot_load(const struct boot_config *, struct guest_mem *, struct cpu_state *, struct error *);

/* The same on bytes in memory, for the fuzzers. */
int boot_load_bytes(const struct boot_config *, const struct boot_files *, struct guest_mem *, struct cpu_state *,
		    struct error *);

/* A guest's first instruction in flat 32-bit protected mode: writes a GDT; all general registers are 0, interrupts off. */
void boot_state_protected_mode(struct guest_mem *, struct cpu_state *, uint32_t eip);

/*
 * Instead of a kernel: reads a firmware, by its name or from a file, and maps it as ROM that ends at 4 GiB, its last 128 KiB also below 1 MiB; a multiple of 4 KiB, at
 * most 16 MiB. The first instruction is the processor's own after a reset.
 */
int rom_load(struct guest_mem *, const char *firmware, struct error *);
/* The n-th name that there is; NULL behind the last. */
const char *rom_name(unsigned n);

/*
 * Instead of a firmware: its ROM, at the top of 4 GiB and of 1 MiB, with code at the reset vector that asks for a reset
 * of the machine or honours the warm-reset vector 40:67, and what the interrupt vectors lead to. Once, when the machine is made.
 */
int bios_map(struct guest_mem *, struct error *);
/* At each reset, while the RAM behind the lower one can be written: a copy in it. */
void bios_shadow(struct guest_mem *);
/* With this in CMOS register BOOT_SHUTDOWN_CODE, does a processor that was reset go on where 40:67 says? */
#define BOOT_SHUTDOWN_CODE 0x0f
bool bios_resumes(uint8_t shutdown_code);
/*
 * What firmware leaves in low memory for operating systems: interrupt vectors, the BIOS data area and its extension; ACPI, MP, $PIR and
 * SMBIOS tables. All from one description of the machine (pc.h). Returns the address of ACPI's RSDP.
 */
gpa_t boot_write_tables(const struct boot_config *, struct guest_mem *);
/* The same for a firmware: ACPI's files, from what it has decided. */
void boot_make_acpi(const struct boot_config *, const struct guest_mem *, const struct fw_cfg_choices *,
		    struct fw_cfg_acpi *);
/* Files of the firmware configuration device that do not change; and, with a kernel in config, what it is to be started with. */
int boot_tell_firmware(const struct boot_config *, struct bus *, struct error *);
/* "type=N,FIELD=VALUE...", what the SMBIOS tables have in a structure instead of what they have by themselves. -EINVAL names what is wrong. */
int smbios_check(const char *spec, struct error *);
/* The I/O APIC's ID in the tables; firmware writes it to its register. No local APIC's where four bits allow that. */
uint8_t boot_ioapic_id(unsigned cpu_count);

#endif
