/*
 * The one description of the machine that all tables for operating systems are made of: ACPI, MP, $PIR, SMBIOS and the BIOS's data
 * area. (The memory map: boot_memory_map().)
 */
#ifndef DOPPEL_BOOT_PC_H
#define DOPPEL_BOOT_PC_H

#include "boot/boot.h"
#include "devices/devices.h"

#define PC_LAPIC_ADDRESS  0xfee00000u
#define PC_LAPIC_VERSION  0x14
#define PC_IOAPIC_ADDRESS IOAPIC_ADDRESS
#define PC_IOAPIC_VERSION 0x20
#define PC_ISA_LINES	  16
#define PC_CASCADE	  2 /* this line is the slave 8259's */
#define PC_PCI_SLOTS	  32
#define PC_PCI_PINS	  4 /* 0: INTA */
#define PC_PIRQS	  4

struct pc {
	unsigned cpu_count;		      /* APIC IDs are the processors' numbers, 0 is the boot processor */
	uint32_t cpu_signature, cpu_features; /* CPUID 1: EAX, EDX */
	unsigned serial_ports;		      /* bit n: COM(n + 1) is there */
	uint32_t virtio_windows;	      /* bit n: a virtio device is in window n */
	uint64_t memory;		      /* bytes of RAM */
	uint16_t pm_base;		      /* of the power management registers */
	uint64_t window_first, window_last;   /* addresses from 4 GiB on for PCI; last 0: none */
	bool fw_cfg, hpet, vmgenid;
	const char *const *smbios; /* as of boot_config */
	unsigned smbios_count;
	uint8_t ioapic_id;
};

void pc_describe(struct pc *, const struct boot_config *, const struct guest_mem *);
uint16_t pc_serial_port(unsigned n);
uint8_t pc_serial_irq(unsigned n);
/* The I/O APIC's input for an ISA line. */
unsigned pc_ioapic_input(unsigned isa_line);
/* Is the line, or may it become, a PCI interrupt's or the SCI? Those are level-triggered, active high. */
bool pc_line_is_level(unsigned isa_line);
/* To which PIRQ a slot's pin goes: see pci_set_pirqs(). */
unsigned pc_pirq(unsigned slot, unsigned pin);
/* Where a PIRQ goes after a reset. */
unsigned pc_pirq_line(unsigned pirq);

/* Where tables are written one after the other. Running over is our own mistake. */
struct table_area {
	struct guest_mem *mem;
	uint64_t next, end;
};
/* Returns the address, a multiple of `alignment`. */
uint32_t table_place(struct table_area *, const void *, size_t, unsigned alignment);
/* What makes the sum of these bytes and itself 0. */
uint8_t table_checksum(const void *, size_t);

/* MP configuration table (MultiProcessor Specification 1.4), $PIR (PCI IRQ Routing Table Specification 1.0), SMBIOS 2.8. */
void mp_build(struct table_area *, const struct pc *);
void pir_build(struct table_area *);
void smbios_build(struct table_area *, const struct pc *);
/* SMBIOS's entry point, without the address of its structures, and these. */
#define SMBIOS_ENTRY_SIZE 31u
#define SMBIOS_ROOM	  0x8000u
void smbios_make(const struct guest_mem *, const struct pc *, uint8_t entry[SMBIOS_ENTRY_SIZE],
		 uint8_t tables[SMBIOS_ROOM], size_t *size);

#endif
