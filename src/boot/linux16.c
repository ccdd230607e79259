/*
 * Linux images of boot protocol 2.00 to 2.05 (Linux Documentation/arch/x86/boot.rst), and others that call themselves so (memdisk): started as
 * a PC's boot loader starts them, at the real-mode code, which asks the BIOS what machine it is and enters protected mode by itself.
 */
#include "boot/linux.h"

#include <errno.h>
#include <inttypes.h>

/* Where loaders have always put the real-mode part, and behind it, in the same segment, its heap, its stack and the command line. */
#define SETUP_SEGMENT	 0x9000u
#define SETUP_AT	 (SETUP_SEGMENT << 4)
#define SETUP_MAX	 0x8000u
#define STACK_TOP	 0x9000u
#define COMMAND_LINE_AT	 0x9000u
#define COMMAND_LINE_MAX 255u
#define HIGH_AT		 0x100000u /* the rest: bzImage */
#define LOW_AT		 0x10000u  /* zImage */

/* Of the boot sector, until 2.02 */
#define OLD_COMMAND_LINE_MAGIC	0xa33fu
#define OLD_COMMAND_LINE_AT	0x20
#define OLD_COMMAND_LINE_OFFSET 0x22

#define HDR_HEAP_END_PTR  0x224
#define LOADFLAG_HEAP	  0x80
#define HEAP_END_OFFSET	  0x200 /* the field is less by so much */
#define INITRD_LIMIT_2_02 0x37ffffffu

static int check_file(const struct boot_image *image, unsigned version, uint32_t setup_size, struct error *err)
{
	uint64_t payload = version >= 0x204 ? (uint64_t)load_le32(image->kernel + HDR_SYSSIZE) * 16 : 1;

	if (setup_size > SETUP_MAX)
		return kernel_error(image, err, ENOEXEC, "its real-mode part has %u bytes; 32 KiB is the most",
				    setup_size);
	/* The last paragraph need not be complete. */
	if (image->kernel_size <= setup_size || image->kernel_size + 15 < setup_size + payload)
		return kernel_error(image, err, ENOEXEC,
				    "truncated: the file has %zu bytes, its header promises %" PRIu64,
				    image->kernel_size, setup_size + payload);
	return 0;
}

static void write_header(const struct boot_image *image, unsigned version, uint32_t initrd)
{
	uint8_t header[HDR_MIN_END] = { 0 };

	BUG_ON(mem_read(image->mem, gpa(SETUP_AT), header, sizeof(header)));
	header[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	store_le16(header + HDR_VID_MODE, VID_MODE_NORMAL);
	store_le32(header + HDR_RAMDISK_IMAGE, initrd);
	store_le32(header + HDR_RAMDISK_SIZE, initrd ? (uint32_t)image->initrd_size : 0);
	if (version >= 0x201) {
		store_le16(header + HDR_HEAP_END_PTR, STACK_TOP - HEAP_END_OFFSET);
		header[HDR_LOADFLAGS] |= LOADFLAG_HEAP;
	}
	if (version >= 0x202) {
		store_le32(header + HDR_CMD_LINE_PTR, SETUP_AT + COMMAND_LINE_AT);
	} else {
		store_le16(header + OLD_COMMAND_LINE_AT, OLD_COMMAND_LINE_MAGIC);
		store_le16(header + OLD_COMMAND_LINE_OFFSET, COMMAND_LINE_AT);
	}
	boot_write(image->mem, SETUP_AT, header, sizeof(header));
}

/* 32 KiB of room for real-mode code behind the header, whatever the file has of it. */
static void write_setup(const struct boot_image *image, uint32_t setup_size)
{
	BUG_ON(mem_fill(image->mem, gpa(SETUP_AT), 0, SETUP_MAX));
	boot_write(image->mem, SETUP_AT, image->kernel, setup_size);
	boot_write(image->mem, SETUP_AT + COMMAND_LINE_AT, image->config->command_line,
		   strlen(image->config->command_line) + 1);
}

static void set_state(struct cpu_state *state)
{
	boot_state_real_mode(state, SETUP_SEGMENT, STACK_TOP);
	state->seg_sel[CS] = SETUP_SEGMENT + 0x20;
	state->seg_base[CS] = SETUP_AT + 0x200;
	state->rip = 0;
}

int linux_load_real_mode(const struct boot_image *image, unsigned version, struct cpu_state *state, struct error *err)
{
	const uint8_t *k = image->kernel;
	uint32_t setup_size = ((k[HDR_SETUP_SECTS] ? k[HDR_SETUP_SECTS] : 4) + 1u) * 512;
	uint64_t start = k[HDR_LOADFLAGS] & LOADFLAG_LOADED_HIGH ? HIGH_AT : LOW_AT, size, initrd = 0;
	uint64_t limit = version >= 0x203 ? load_le32(k + HDR_INITRD_ADDR_MAX) : INITRD_LIMIT_2_02;
	int rc = check_file(image, version, setup_size, err);

	if (rc)
		return rc;
	size = image->kernel_size - setup_size;
	if (strlen(image->config->command_line) > COMMAND_LINE_MAX)
		return error_set(err, E2BIG, "the kernel command line has %zu bytes; kernel '%s' takes at most %u",
				 strlen(image->config->command_line), image->name, COMMAND_LINE_MAX);
	if (start == LOW_AT && size > SETUP_AT - LOW_AT)
		return kernel_error(image, err, ENOEXEC, "a zImage of %" PRIu64 " KiB; it cannot have more than 512",
				    size >> 10);
	rc = boot_check_range(image, "its protected-mode part", start, size, LOW_AT, err);
	if (!rc) /* nothing says how much room unpacking takes: be generous */
		rc = boot_place_initrd(image, limit + 1, HIGH_AT, MAX(start + size * 6, HIGH_AT), &initrd, err);
	if (rc)
		return rc;
	boot_write(image->mem, start, k + setup_size, size);
	write_setup(image, setup_size);
	write_header(image, version, (uint32_t)initrd);
	set_state(state);
	return 0;
}
