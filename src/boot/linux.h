/*
 * The setup header of a Linux image (Linux Documentation/arch/x86/boot.rst and zero-page.rst): what the loaders of its protocols share.
 */
#ifndef DOPPEL_BOOT_LINUX_H
#define DOPPEL_BOOT_LINUX_H

#include "boot/private.h"

/* Offsets in the file and, alike, in the zero page. */
#define HDR_START	     0x1f1
#define HDR_SETUP_SECTS	     0x1f1
#define HDR_SYSSIZE	     0x1f4 /* of the protected-mode part, in paragraphs of 16 bytes */
#define HDR_VID_MODE	     0x1fa
#define HDR_BOOT_FLAG	     0x1fe
#define HDR_JUMP_LENGTH	     0x201 /* the header ends at 0x202 + this byte */
#define HDR_MAGIC	     0x202
#define HDR_VERSION	     0x206
#define HDR_TYPE_OF_LOADER   0x210
#define HDR_LOADFLAGS	     0x211
#define HDR_CODE32_START     0x214
#define HDR_RAMDISK_IMAGE    0x218
#define HDR_RAMDISK_SIZE     0x21c
#define HDR_CMD_LINE_PTR     0x228
#define HDR_INITRD_ADDR_MAX  0x22c
#define HDR_KERNEL_ALIGNMENT 0x230
#define HDR_RELOCATABLE	     0x234
#define HDR_XLOADFLAGS	     0x236
#define HDR_CMDLINE_SIZE     0x238
#define HDR_SETUP_DATA	     0x250
#define HDR_PREF_ADDRESS     0x258
#define HDR_INIT_SIZE	     0x260
#define HDR_MIN_END	     0x23c /* protocol 2.06 has everything up to cmdline_size */
#define HDR_MAX_END	     0x290 /* where the zero page has something else */

/* Zero page only. */
#define ZERO_ACPI_RSDP	  0x070
#define ZERO_E820_ENTRIES 0x1e8
#define ZERO_E820_TABLE	  0x2d0
#define E820_ENTRY_SIZE	  20

#define LOADFLAG_LOADED_HIGH 0x01
#define XLF_KERNEL_64	     0x01
#define LOADER_UNDEFINED     0xff
#define VID_MODE_NORMAL	     0xffff
#define ENTRY_64_OFFSET	     0x200

/* Protocols 2.00 to 2.05. The file has a header of at least that. */
int linux_load_real_mode(const struct boot_image *, unsigned version, struct cpu_state *, struct error *);

#endif
