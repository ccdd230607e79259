/*
 * The firmware configuration device (QEMU's docs/specs/fw_cfg): what a firmware is told of the machine, as items with a key and files with a name.
 * Functions that add to it are called while the machine is put together; without such a device in the machine they are not called, or do nothing where that is said.
 */
#ifndef DOPPEL_DEVICES_FW_CFG_H
#define DOPPEL_DEVICES_FW_CFG_H

#include "bus/bus.h"

#define FW_CFG_PORT	 0x510 /* selector and data; DMA from 0x514 on */
#define FW_CFG_PORTS	 12
#define FW_CFG_NAME_SIZE 56 /* of a file, with a NUL */

/* _(key's suffix, key) of items without a name */
#define FW_CFG_KEYS(_)                                                                                                 \
	_(SIGNATURE, 0x00)                                                                                             \
	_(ID, 0x01)                                                                                                    \
	_(UUID, 0x02)                                                                                                  \
	_(RAM_SIZE, 0x03)                                                                                              \
	_(NOGRAPHIC, 0x04)                                                                                             \
	_(CPUS, 0x05)                                                                                                  \
	_(KERNEL_SIZE, 0x08)                                                                                           \
	_(INITRD_SIZE, 0x0b)                                                                                           \
	_(NUMA, 0x0d)                                                                                                  \
	_(BOOT_MENU, 0x0e)                                                                                             \
	_(MAX_CPUS, 0x0f)                                                                                              \
	_(KERNEL_DATA, 0x11)                                                                                           \
	_(INITRD_DATA, 0x12)                                                                                           \
	_(COMMAND_LINE_SIZE, 0x14)                                                                                     \
	_(COMMAND_LINE_DATA, 0x15)                                                                                     \
	_(SETUP_SIZE, 0x17)                                                                                            \
	_(SETUP_DATA, 0x18)                                                                                            \
	_(DIRECTORY, 0x19)                                                                                             \
	_(FIRST_FILE, 0x20)
enum fw_cfg_key {
#define _(suffix, key) FW_CFG_##suffix = (key),
	FW_CFG_KEYS(_)
#undef _
};

/* Is there one? */
bool fw_cfg_is_here(struct bus *);
/* An item's contents, copied. 0 or -errno. */
int fw_cfg_set(struct bus *, enum fw_cfg_key, const void *, size_t, struct error *);
int fw_cfg_set_number(struct bus *, enum fw_cfg_key, uint32_t, struct error *);
/* A file, copied. -EINVAL: such a name cannot be; -EEXIST: it is there already; -ENOSPC: there are too many. */
int fw_cfg_add_file(struct bus *, const char *name, const void *, size_t, struct error *);
/* The same of what is the caller's and stays there; a firmware may write it, and written is called then, under fw_cfg's lock in a vCPU's thread. Nothing without a device. */
int fw_cfg_add_shared(struct bus *, const char *name, void *, size_t, void (*written)(void *opaque), void *opaque,
		      struct error *);
/* While nobody uses the bus. Nothing, if it is not there. */
void fw_cfg_remove_file(struct bus *, const char *name);

/* What ACPI tables say that is the firmware's to decide: the rest is known when the machine is made. */
struct fw_cfg_choices {
	uint16_t pm_base;
	uint64_t window_first, window_last; /* addresses from 4 GiB on that BARs have been given; last 0: none */
};
/* The contents of etc/acpi/rsdp, etc/acpi/tables and etc/table-loader, of fixed sizes; zeros at first. */
#define FW_CFG_RSDP_SIZE   36u
#define FW_CFG_TABLES_SIZE 0x10000u
#define FW_CFG_LOADER_SIZE 0x2000u
struct fw_cfg_acpi {
	uint8_t *rsdp, *tables, *loader;
};
/*
 * Those files; make() is called when one of them is first selected behind a reset, in a vCPU's thread with fw_cfg's lock, and when a machine is loaded in which that was so.
 */
int fw_cfg_add_acpi(struct bus *, void (*make)(void *opaque, const struct fw_cfg_choices *, struct fw_cfg_acpi *),
		    void *opaque, struct error *);

#endif
