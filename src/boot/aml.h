/*
 * aml: writes ACPI Machine Language (ACPI 6.4 chapter 20) into a buffer: only the terms that our DSDT uses. What has a
 * length is opened with a function that returns its place and closed with aml_end().
 */
#ifndef DOPPEL_BOOT_AML_H
#define DOPPEL_BOOT_AML_H

#include "base/base.h"

struct aml {
	uint8_t *data;
	size_t size, capacity; /* running over is our own mistake */
};

enum aml_region_space { AML_SYSTEM_IO = 1, AML_PCI_CONFIG = 2 };

/* Operands without arguments. */
#define AML_ZERO 0x00
#define AML_ONE	 0x01
#define AML_ARG0 0x68
/* Operators: an opcode, then operands. */
#define AML_STORE  0x70 /* source, target */
#define AML_AND	   0x7b /* a, b, target (AML_ZERO: none) */
#define AML_OR	   0x7d
#define AML_NOTIFY 0x86 /* object, value */
#define AML_LEQUAL 0x93
#define AML_LLESS  0x95
#define AML_RETURN 0xa4

void aml_byte(struct aml *, unsigned);
void aml_word(struct aml *, unsigned);
void aml_dword(struct aml *, uint32_t);
/* "\\_SB_.PCI0": root prefix and segments of four characters. */
void aml_path(struct aml *, const char *path);
void aml_integer(struct aml *, uint32_t);
/* Name (path, ...): the value follows. */
void aml_name(struct aml *, const char *path);
/* Name (_HID, EisaId (id)) and the like; id as "PNP0A03". */
void aml_name_eisa_id(struct aml *, const char *path, const char *id);
void aml_name_string(struct aml *, const char *path, const char *);
void aml_name_integer(struct aml *, const char *path, uint32_t);

size_t aml_scope(struct aml *, const char *path);
size_t aml_device(struct aml *, const char *name);
size_t aml_method(struct aml *, const char *name, unsigned arguments);
size_t aml_package(struct aml *, unsigned elements);
size_t aml_if(struct aml *);
void aml_end(struct aml *, size_t place);

void aml_processor(struct aml *, const char *name, unsigned id);
void aml_region(struct aml *, const char *name, enum aml_region_space, uint32_t offset, uint32_t size);
/* Field of bytes, one a name, over a region from its start. */
void aml_byte_fields(struct aml *, const char *region, const char *const names[], unsigned count);
/* CreateDWordField (source, offset, name); source NULL: Arg0. */
void aml_create_dword_field(struct aml *, const char *source, unsigned offset, const char *name);

/* ---- resource templates (ACPI 6.4, 6.4): buffers of descriptors ---- */

size_t aml_resources(struct aml *);
void aml_resources_end(struct aml *, size_t place);
void aml_resource_io(struct aml *, unsigned first, unsigned length);
void aml_resource_irq(struct aml *, unsigned irq);
/* Level-triggered, active high, shared. */
void aml_resource_interrupts(struct aml *, const uint32_t *interrupts, unsigned count);
/* Read and write. */
void aml_resource_memory(struct aml *, uint32_t first, uint32_t length);
void aml_resource_bus_numbers(struct aml *, unsigned first, unsigned last);
void aml_resource_io_window(struct aml *, unsigned first, unsigned last);
void aml_resource_memory_window(struct aml *, uint32_t first, uint32_t last, bool cacheable);
/* The same with addresses of 64 bits, not cacheable. */
void aml_resource_wide_window(struct aml *, uint64_t first, uint64_t last);

#endif
