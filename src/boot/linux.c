/*
 * Linux bzImage by the 64-bit boot protocol, or the 32-bit one (Linux Documentation/arch/x86/boot.rst and zero-page.rst): the setup
 * header is checked and copied into a zero page, the protected-mode part goes where the kernel prefers, and the CPU starts at its 64-bit
 * entry, or at the 32-bit one where the kernel has no other or is too old to say. Protocols before 2.06: linux16.c.
 */
#include "boot/linux.h"

#include <errno.h>
#include <inttypes.h>

struct linux_header {
	uint16_t version, xloadflags;
	uint32_t setup_size; /* bytes of boot sector and real-mode code, in front of the kernel */
	uint32_t header_end;
	uint64_t
		payload_size; /* that the header promises; what follows it in the file, e.g. a signature, is loaded too */
	uint32_t initrd_addr_max, alignment, cmdline_size, init_size;
	uint64_t pref_address;
	bool relocatable;
};

bool linux_recognise(const uint8_t *kernel, size_t size)
{
	return size >= HDR_MAGIC + 4 && memcmp(kernel + HDR_MAGIC, "HdrS", 4) == 0;
}

static int parse_header(const struct boot_image *image, struct linux_header *h, struct error *err)
{
	const uint8_t *k = image->kernel;
	unsigned setup_sects = k[HDR_SETUP_SECTS] ? k[HDR_SETUP_SECTS] : 4;

	*h = (struct linux_header){
		.version = load_le16(k + HDR_VERSION),
		.xloadflags = load_le16(k + HDR_XLOADFLAGS),
		.setup_size = (setup_sects + 1) * 512,
		.payload_size = (uint64_t)load_le32(k + HDR_SYSSIZE) * 16,
		.header_end = MIN(0x202u + k[HDR_JUMP_LENGTH], HDR_MAX_END),
		.initrd_addr_max = load_le32(k + HDR_INITRD_ADDR_MAX),
		.alignment = load_le32(k + HDR_KERNEL_ALIGNMENT),
		.cmdline_size = load_le32(k + HDR_CMDLINE_SIZE),
		.relocatable = k[HDR_RELOCATABLE],
		.pref_address = 0x100000,
	};
	if (!(k[HDR_LOADFLAGS] & LOADFLAG_LOADED_HIGH))
		return kernel_error(image, err, ENOTSUP, "a zImage (loaded low); a bzImage is needed");
	/*
	 * The first 0x200 bytes are the 32-bit entry: there must be something at the 64-bit one. The last paragraph need not be
	 * complete.
	 */
	if (image->kernel_size <= (uint64_t)h->setup_size + ENTRY_64_OFFSET ||
	    image->kernel_size + 15 < h->setup_size + h->payload_size)
		return kernel_error(image, err, ENOEXEC,
				    "truncated: the file has %zu bytes, its header promises %" PRIu64,
				    image->kernel_size, h->setup_size + MAX(h->payload_size, ENTRY_64_OFFSET + 1));
	if (h->version >= 0x20a) {
		if (h->header_end < HDR_INIT_SIZE + 4)
			return kernel_error(image, err, ENOEXEC, "setup header ends at 0x%x, before init_size",
					    h->header_end);
		h->pref_address = load_le64(k + HDR_PREF_ADDRESS);
		h->init_size = load_le32(k + HDR_INIT_SIZE);
	}
	if (h->relocatable && (h->alignment < PAGE_SIZE || (h->alignment & (h->alignment - 1))))
		return kernel_error(image, err, ENOEXEC, "kernel_alignment 0x%x is not a power of two of at least 4096",
				    h->alignment);
	return 0;
}

/*
 * Where the protected-mode part goes: *size bytes from *start on are the kernel's until it has unpacked itself. Relocatable
 * kernels can go higher than their preferred address, never lower (boot.rst, init_size): there is nothing to gain.
 */
static int choose_place(const struct boot_image *image, const struct linux_header *h, uint64_t *start, uint64_t *size,
			struct error *err)
{
	uint64_t payload = image->kernel_size - h->setup_size;

	/* Before protocol 2.10 nothing said how much room unpacking takes: be generous. */
	*size = MAX(h->init_size ? h->init_size : payload * 6, payload);
	*start = h->relocatable ? align_up(h->pref_address, h->alignment) : h->pref_address;
	if (*start >= FIRMWARE_END && boot_range_usable(image->mem, *start, *size))
		return 0;
	return kernel_error(image, err, ENOMEM,
			    "needs %" PRIu64 " MiB of memory from 0x%" PRIx64 " on; the machine has %" PRIu64 " MiB",
			    (*size >> 20) + 1, *start, image->mem->ram_size >> 20);
}

static void write_e820(const struct guest_mem *mem, uint8_t *zero_page)
{
	struct memory_range map[MEMORY_RANGES_MAX];
	unsigned n = boot_memory_map(mem, map);

	zero_page[ZERO_E820_ENTRIES] = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *entry = zero_page + ZERO_E820_TABLE + i * E820_ENTRY_SIZE;

		store_le64(entry, map[i].start);
		store_le64(entry + 8, map[i].size);
		store_le32(entry + 16, map[i].type);
	}
}

static void write_zero_page(const struct boot_image *image, const struct linux_header *h, uint64_t start,
			    uint64_t initrd)
{
	uint8_t page[PAGE_SIZE] = { 0 };

	memcpy(page + HDR_START, image->kernel + HDR_START, h->header_end - HDR_START);
	page[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	store_le16(page + HDR_VID_MODE, VID_MODE_NORMAL);
	store_le32(page + HDR_CODE32_START, (uint32_t)start);
	store_le32(page + HDR_RAMDISK_IMAGE, (uint32_t)initrd);
	store_le32(page + HDR_RAMDISK_SIZE, (uint32_t)(initrd ? image->initrd_size : 0));
	store_le32(page + HDR_CMD_LINE_PTR, LOW_COMMAND_LINE);
	store_le64(page + HDR_SETUP_DATA, 0); /* a file cannot know of any */
	store_le64(page + ZERO_ACPI_RSDP, image->rsdp.v);
	write_e820(image->mem, page);
	boot_write(image->mem, LOW_ZERO_PAGE, page, sizeof(page));
}

static int load_protected_mode(const struct boot_image *image, struct cpu_state *state, struct error *err)
{
	struct linux_header h = { 0 };
	uint64_t start = 0, size = 0, initrd = 0;
	int rc = parse_header(image, &h, err);

	if (!rc)
		rc = choose_place(image, &h, &start, &size, err);
	if (!rc)
		rc = boot_place_command_line(image, h.cmdline_size ? h.cmdline_size : 255, err);
	if (!rc)
		rc = boot_place_initrd(image, (uint64_t)h.initrd_addr_max + 1, start, start + size, &initrd, err);
	if (rc)
		return rc;
	boot_write(image->mem, start, image->kernel + h.setup_size, image->kernel_size - h.setup_size);
	write_zero_page(image, &h, start, initrd);
	if (h.version >= 0x20c && (h.xloadflags & XLF_KERNEL_64))
		boot_state_long_mode(image->mem, state, start + ENTRY_64_OFFSET);
	else
		boot_state_protected_mode(image->mem, state, (uint32_t)start);
	state->gpr[RSI] = LOW_ZERO_PAGE;
	return 0;
}

int linux_load(const struct boot_image *image, struct cpu_state *state, struct error *err)
{
	const uint8_t *k = image->kernel;
	unsigned version;

	if (image->kernel_size < HDR_MIN_END)
		return kernel_error(image, err, ENOEXEC, "truncated in the setup header");
	version = load_le16(k + HDR_VERSION);
	if (load_le16(k + HDR_BOOT_FLAG) != 0xaa55)
		return kernel_error(image, err, ENOEXEC, "boot flag is 0x%04x, expected 0xaa55",
				    load_le16(k + HDR_BOOT_FLAG));
	if (version < 0x200)
		return kernel_error(image, err, ENOEXEC, "boot protocol %u.%02u, which never was; 2.00 is the first",
				    version >> 8, version & 0xff);
	return version < 0x206 ? linux_load_real_mode(image, version, state, err)
			       : load_protected_mode(image, state, err);
}
