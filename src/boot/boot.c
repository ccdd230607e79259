/*
 * What all kernels need whatever their format: files read and recognised, the memory map, places for initrd and command line,
 * and the CPU state at the first instruction.
 */
#include "boot/pc.h"
#include "boot/private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define KERNEL_FILE_MAX (256ull << 20)

void boot_write(struct guest_mem *mem, uint64_t where, const void *data, size_t size)
{
	BUG_ON(mem_write(mem, gpa(where), data, size));
}

unsigned boot_memory_map(const struct guest_mem *mem, struct memory_range map[MEMORY_RANGES_MAX])
{
	uint64_t starts[4], sizes[4];
	unsigned ranges = mem_ram_ranges(mem, starts, sizes);
	unsigned n = 0;

	map[n++] = (struct memory_range){ 0, EBDA_START, MEMORY_RAM };
	map[n++] = (struct memory_range){ EBDA_START, BASE_MEMORY_END - EBDA_START, MEMORY_RESERVED };
	map[n++] = (struct memory_range){ FIRMWARE_START, FIRMWARE_END - FIRMWARE_START, MEMORY_RESERVED };
	for (unsigned i = 0; i < ranges; i++) {
		uint64_t start = MAX(starts[i], FIRMWARE_END);
		uint64_t end = starts[i] + sizes[i];

		if (end > start)
			map[n++] = (struct memory_range){ start, end - start, MEMORY_RAM };
	}
	return n;
}

uint64_t boot_low_ram_end(const struct guest_mem *mem)
{
	struct memory_range map[MEMORY_RANGES_MAX];
	unsigned n = boot_memory_map(mem, map);

	for (unsigned i = 0; i < n; i++)
		if (map[i].start == FIRMWARE_END)
			return map[i].start + map[i].size;
	return FIRMWARE_END;
}

/* In one range of RAM? */
static bool range_is_ram(const struct guest_mem *mem, uint64_t start, uint64_t size)
{
	struct memory_range map[MEMORY_RANGES_MAX];
	unsigned n = boot_memory_map(mem, map);

	for (unsigned i = 0; i < n; i++)
		if (map[i].type == MEMORY_RAM && start >= map[i].start &&
		    range_ok(start - map[i].start, size, map[i].size))
			return true;
	return false;
}

bool boot_range_usable(const struct guest_mem *mem, uint64_t start, uint64_t size)
{
	return start >= LOW_END && range_is_ram(mem, start, size);
}

int boot_check_range(const struct boot_image *image, const char *what, uint64_t start, uint64_t size, uint64_t lowest,
		     struct error *err)
{
	if (start < lowest)
		return kernel_error(image, err, ENOMEM,
				    "%s (0x%" PRIx64 " bytes at 0x%" PRIx64 ") lies in memory below 0x%" PRIx64
				    ", where the kernel finds what it is told",
				    what, size, start, lowest);
	if (range_is_ram(image->mem, start, size))
		return 0;
	if (start < FIRMWARE_END && size > EBDA_START - MIN(start, EBDA_START))
		return kernel_error(image, err, ENOMEM,
				    "%s (0x%" PRIx64 " bytes at 0x%" PRIx64
				    ") lies in memory from 0x%x to 1 MiB, which is the BIOS's and the video adapter's",
				    what, size, start, EBDA_START);
	return kernel_error(image, err, ENOMEM,
			    "%s (0x%" PRIx64 " bytes at 0x%" PRIx64 ") does not lie in the machine's %" PRIu64
			    " MiB of memory",
			    what, size, start, image->mem->ram_size >> 20);
}

int boot_place_initrd(const struct boot_image *image, uint64_t limit, uint64_t kernel_start, uint64_t kernel_end,
		      uint64_t *where, struct error *err)
{
	uint64_t top = MIN(limit, boot_low_ram_end(image->mem));
	uint64_t size = image->initrd_size;
	uint64_t start;

	*where = 0;
	if (!image->initrd)
		return 0;
	start = align_down(top - MIN(size, top), PAGE_SIZE);
	if (start < kernel_end && start + size > kernel_start) /* no room above the kernel: below it? */
		start = align_down(kernel_start - MIN(size, kernel_start), PAGE_SIZE);
	if (start < FIRMWARE_END || !boot_range_usable(image->mem, start, size))
		return error_set(err, ENOMEM,
				 "initrd '%s' of %" PRIu64 " KiB does not fit beside the kernel in %" PRIu64
				 " MiB of memory",
				 image->config->initrd, size >> 10, image->mem->ram_size / MIB);
	boot_write(image->mem, start, image->initrd, size);
	*where = start;
	return 0;
}

/* ---- CPU states ---- */

/* Segment attributes as in a descriptor (SDM vol. 3A 3.4.5): access byte, G, D/B and L. */
#define ATTR_CODE_64  (ATTR_G | ATTR_L | ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | ATTR_ACCESSED)
#define ATTR_CODE_32  (ATTR_G | ATTR_DB | ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | ATTR_ACCESSED)
#define ATTR_DATA     (ATTR_G | ATTR_DB | ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED)
#define ATTR_TSS_BUSY (ATTR_P | 0xb)

/* A descriptor with base 0 and a limit of 4 GiB. */
static uint64_t flat_descriptor(unsigned attr) { return 0x000f00000000ffffull | (uint64_t)attr << 40; }

static void set_flat_segments(struct guest_mem *mem, struct cpu_state *s, unsigned code_attr, uint64_t gdt_at)
{
	uint64_t gdt[4] = { [BOOT_CS / 8] = flat_descriptor(code_attr), [BOOT_DS / 8] = flat_descriptor(ATTR_DATA) };

	_Static_assert(sizeof(gdt) == BOOT_GDT_SIZE, "who places it leaves this room");
	boot_write(mem, gdt_at, gdt, sizeof(gdt));
	s->gdtr_base = gdt_at;
	s->gdtr_limit = sizeof(gdt) - 1;
	s->idtr_base = 0;
	s->idtr_limit = 0;
	for (enum seg seg = ES; seg <= GS; seg++) {
		s->seg_sel[seg] = seg == CS ? BOOT_CS : BOOT_DS;
		s->seg_base[seg] = 0;
		s->seg_limit[seg] = UINT32_MAX;
		s->seg_attr[seg] = (uint16_t)(seg == CS ? code_attr : ATTR_DATA);
	}
	s->seg_sel[LDTR] = 0;
	s->seg_attr[LDTR] = 0;
	/* VT-x and PVH alike want a busy 32-bit TSS here, though nothing uses it. */
	s->seg_sel[TR] = 0;
	s->seg_base[TR] = 0;
	s->seg_limit[TR] = 0x67;
	s->seg_attr[TR] = ATTR_TSS_BUSY;
}

static void clear_registers(struct cpu_state *s)
{
	memset(s->gpr, 0, sizeof(s->gpr));
	s->rflags = 2;
	s->activity = CPU_RUNNING;
}

/* The first 4 GiB identity-mapped with 2 MiB pages, writable, executable (SDM vol. 3A 4.5). */
static void write_page_tables(struct guest_mem *mem)
{
	const uint64_t table = 0x3, large = 0x83; /* present, writable; page size */
	uint64_t entries[512] = { 0 };

	entries[0] = (LOW_PAGE_TABLES + PAGE_SIZE) | table;
	boot_write(mem, LOW_PAGE_TABLES, entries, sizeof(entries));
	for (unsigned i = 0; i < 4; i++)
		entries[i] = (LOW_PAGE_TABLES + (2 + i) * PAGE_SIZE) | table;
	boot_write(mem, LOW_PAGE_TABLES + PAGE_SIZE, entries, sizeof(entries));
	for (unsigned directory = 0; directory < 4; directory++) {
		for (uint64_t i = 0; i < 512; i++)
			entries[i] = (directory * 512 + i) << 21 | large;
		boot_write(mem, LOW_PAGE_TABLES + (2 + directory) * PAGE_SIZE, entries, sizeof(entries));
	}
}

void boot_state_long_mode(struct guest_mem *mem, struct cpu_state *s, uint64_t rip)
{
	write_page_tables(mem);
	clear_registers(s);
	set_flat_segments(mem, s, ATTR_CODE_64, LOW_GDT);
	/* WP: as UEFI firmware leaves it, and as the translator wants it. */
	s->cr0 = CR0_PG | CR0_PE | CR0_ET | CR0_NE | CR0_WP;
	s->cr3 = LOW_PAGE_TABLES;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
	s->rip = rip;
}

void boot_state_protected_mode(struct guest_mem *mem, struct cpu_state *s, uint32_t eip)
{
	boot_state_protected_mode_at(mem, s, eip, LOW_GDT);
}

void boot_state_protected_mode_at(struct guest_mem *mem, struct cpu_state *s, uint32_t eip, uint64_t gdt)
{
	clear_registers(s);
	set_flat_segments(mem, s, ATTR_CODE_32, gdt);
	s->cr0 = CR0_PE | CR0_ET;
	s->cr3 = 0;
	s->cr4 = 0;
	s->efer = 0;
	s->rip = eip;
}

/* Control registers and attributes of segments are the reset's. */
void boot_state_real_mode(struct cpu_state *s, uint16_t segment, uint16_t sp)
{
	clear_registers(s);
	for (enum seg seg = ES; seg <= GS; seg++) {
		s->seg_sel[seg] = segment;
		s->seg_base[seg] = (uint64_t)segment << 4;
	}
	s->idtr_base = 0;
	s->idtr_limit = 0x3ff;
	s->gpr[RSP] = sp;
}

/* ---- tables ---- */

gpa_t boot_write_tables(const struct boot_config *config, struct guest_mem *mem)
{
	struct table_area legacy = { mem, LEGACY_TABLES_START, LEGACY_TABLES_END };
	struct pc pc;

	pc_describe(&pc, config, mem);
	bios_write(mem, &pc);
	mp_build(&legacy, &pc);
	pir_build(&legacy);
	smbios_build(&legacy, &pc);
	return acpi_build(mem, &pc);
}

int boot_tell_firmware(const struct boot_config *config, struct bus *bus, struct error *err)
{
	uint8_t entry[SMBIOS_ENTRY_SIZE], tables[SMBIOS_ROOM];
	struct pc pc;
	size_t size;
	int rc;

	pc_describe(&pc, config, bus->mem);
	smbios_make(bus->mem, &pc, entry, tables, &size);
	rc = fw_cfg_add_file(bus, "etc/smbios/smbios-anchor", entry, sizeof(entry), err);
	return rc ? rc : fw_cfg_add_file(bus, "etc/smbios/smbios-tables", tables, size, err);
}

/* ---- from files ---- */

static bool is_gzip(const uint8_t *data, size_t size) { return size >= 2 && data[0] == 0x1f && data[1] == 0x8b; }

int boot_load_bytes(const struct boot_config *config, const struct boot_files *files, struct guest_mem *mem,
		    struct cpu_state *state, struct error *err)
{
	const uint8_t *kernel = files->kernel.data;
	size_t kernel_size = files->kernel.size;
	struct boot_image image = {
		.config = config,
		.name = config->kernel,
		.kernel = kernel,
		.kernel_size = kernel_size,
		.initrd = files->initrd.size ? files->initrd.data : NULL,
		.initrd_size = files->initrd.size,
		.modules = files->modules,
		.mem = mem,
	};
	bool is_linux = linux_recognise(kernel, kernel_size);

	image.rsdp = boot_write_tables(config, mem);
	if (!is_linux && multiboot_recognise(kernel, kernel_size))
		return multiboot_load(&image, state, err);
	if (config->module_count)
		return kernel_error(&image, err, ENOEXEC, "no multiboot kernel, so it takes no modules");
	if (is_linux)
		return linux_load(&image, state, err);
	if (elf_recognise(kernel, kernel_size))
		return elf_load(&image, state, err);
	if (is_gzip(kernel, kernel_size))
		return kernel_error(&image, err, ENOEXEC, "compressed by gzip; it must be unpacked first");
	return kernel_error(&image, err, ENOEXEC,
			    "neither a Linux bzImage nor a multiboot image nor an ELF executable");
}

/* A folder or a device is as little a kernel as any other wrong file: not the caller's mistake, so not EINVAL. */
int boot_read_file(const char *what, const char *path, size_t max, uint8_t **data, size_t *size, struct error *err)
{
	int rc = host_file_read(path, max, data, size, err);

	if (!rc)
		return 0;
	error_prefix(err, "%s", what);
	if (rc == -EINVAL && err)
		err->code = ENOEXEC;
	return rc == -EINVAL ? -ENOEXEC : rc;
}

/* More than memory holds is not even read. */
static int read_payload(const char *what, const char *path, const struct guest_mem *mem, uint8_t **data, size_t *size,
			struct error *err)
{
	int rc = boot_read_file(what, path, mem->ram_size, data, size, err);

	if (rc == -EFBIG)
		error_set(err, EFBIG, "%s '%s' is larger than the machine's %" PRIu64 " MiB of memory", what, path,
			  mem->ram_size / MIB);
	return rc;
}

static int read_module(const char *spec, const struct guest_mem *mem, struct boot_bytes *module, struct error *err)
{
	char *path = strndup(spec, strcspn(spec, ","));
	uint8_t *data = NULL;
	int rc;

	if (!path)
		return error_set_errno(err, ENOMEM, "read module '%s'", spec);
	rc = read_payload("module", path, mem, &data, &module->size, err);
	module->data = data;
	free(path);
	return rc;
}

int boot_load(const struct boot_config *config, struct guest_mem *mem, struct cpu_state *state, struct error *err)
{
	struct boot_bytes modules[BOOT_MODULES_MAX] = { { NULL, 0 } };
	struct boot_files files = { .modules = modules };
	uint8_t *kernel = NULL, *initrd = NULL;
	int rc = boot_read_file("kernel", config->kernel, KERNEL_FILE_MAX, &kernel, &files.kernel.size, err);

	if (!rc && config->initrd)
		rc = read_payload("initrd", config->initrd, mem, &initrd, &files.initrd.size, err);
	for (unsigned i = 0; !rc && i < config->module_count; i++)
		rc = read_module(config->modules[i], mem, &modules[i], err);
	files.kernel.data = kernel;
	files.initrd.data = initrd;
	if (!rc)
		rc = boot_load_bytes(config, &files, mem, state, err);
	for (unsigned i = 0; i < config->module_count; i++)
		free((void *)modules[i].data);
	free(initrd);
	free(kernel);
	return rc;
}
