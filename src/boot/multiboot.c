/*
 * Multiboot 1 images (Multiboot Specification 0.6.96): the header is looked for in the first 8 KiB; the image is loaded where the header's
 * address fields say (the a.out kludge) or, without these, as the ELF executable that it is, of either class; modules follow
 * it page by page, and the CPU starts in flat 32-bit protected mode with the multiboot information in EBX. Every number of
 * the file is checked before use.
 */
#include "boot/elf.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>

/* 3.1: the header lies in so much of the file, at a multiple of 4. */
#define HEADER_SEARCH 8192u

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u /* 3.2: in EAX */

/* 3.1.2: what the image demands. Modules are always page-aligned, and memory information is always there. */
#define HEADER_PAGE_ALIGN  BIT(0)
#define HEADER_MEMORY_INFO BIT(1)
#define HEADER_VIDEO	   BIT(2)  /* a video mode: a wish, which what there is answers */
#define HEADER_DEMANDS	   0xffffu /* what a loader that cannot meet it must refuse */
#define HEADER_ADDRESSES   BIT(16)

/* 3.3: which fields of the information are valid. */
#define INFO_MEMORY	  BIT(0)
#define INFO_COMMAND_LINE BIT(2)
#define INFO_MODULES	  BIT(3)
#define INFO_MEMORY_MAP	  BIT(6)
#define INFO_LOADER_NAME  BIT(9)
#define INFO_FRAMEBUFFER  BIT(12)

struct information {
	uint32_t flags, memory_lower, memory_upper; /* KiB */
	uint32_t boot_device, command_line, module_count, modules;
	uint32_t symbols[4];
	uint32_t memory_map_length, memory_map;
	uint32_t drives[2], config_table, loader_name, apm_table;
	uint32_t vbe[4];
	uint64_t framebuffer;
	uint32_t pitch, width, height;
	uint8_t depth, framebuffer_type, colors[6];
} __attribute__((packed));
#define FRAMEBUFFER_TEXT 2 /* EGA text: characters and attributes */
#define TEXT_ADDRESS	 0xb8000
#define TEXT_COLUMNS	 80
#define TEXT_ROWS	 25

struct module_entry {
	uint32_t start, end, string, reserved;
};

struct memory_entry {
	uint32_t size; /* of what follows */
	uint64_t start, length;
	uint32_t type;
} __attribute__((packed));

/* Our structures are one block: the information, with what it points to at these offsets, the GDT, and strings. */
#define MEMORY_MAP_AT 0x100u
#define MODULES_AT    0x400u
#define GDT_AT	      0xf00u
#define STRINGS_AT    0x1000u
_Static_assert(sizeof(struct information) <= MEMORY_MAP_AT, "the memory map follows the information");
_Static_assert(MEMORY_RANGES_MAX * sizeof(struct memory_entry) <= MODULES_AT - MEMORY_MAP_AT, "modules follow it");
/* The initrd counts as one. */
_Static_assert((BOOT_MODULES_MAX + 1) * sizeof(struct module_entry) <= GDT_AT - MODULES_AT, "the GDT follows them");
_Static_assert(GDT_AT + BOOT_GDT_SIZE <= STRINGS_AT, "and strings follow it");

struct header {
	uint32_t offset; /* in the file */
	uint32_t flags;
	uint32_t header_address, load_address, load_end, bss_end, entry; /* with HEADER_ADDRESSES */
};

/* What is written while the machine is made ready. */
struct handover {
	const struct boot_image *image;
	uint64_t modules_at; /* where the next module goes */
	uint32_t module_count;
	uint32_t block;	     /* of our structures */
	uint32_t strings_at; /* where the next string goes */
};

/* ---- the header ---- */

static bool find_header(const uint8_t *kernel, size_t size, struct header *h)
{
	for (uint32_t at = 0; range_ok(at, 12, MIN(size, HEADER_SEARCH)); at += 4) {
		uint32_t flags = load_le32(kernel + at + 4);

		if (load_le32(kernel + at) != HEADER_MAGIC || HEADER_MAGIC + flags + load_le32(kernel + at + 8))
			continue;
		*h = (struct header){ .offset = at, .flags = flags };
		return true;
	}
	return false;
}

bool multiboot_recognise(const uint8_t *kernel, size_t size)
{
	struct header h;

	return find_header(kernel, size, &h);
}

static int check_demands(const struct boot_image *image, const struct header *h, struct error *err)
{
	uint32_t unmet = h->flags & HEADER_DEMANDS & ~(uint32_t)(HEADER_PAGE_ALIGN | HEADER_MEMORY_INFO | HEADER_VIDEO);

	if (!unmet)
		return 0;
	return kernel_error(image, err, ENOTSUP,
			    "its multiboot header demands 0x%x, bits that no specification defines; it can have "
			    "page-aligned modules (bit 0), memory information (bit 1) and text mode (bit 2)",
			    unmet);
}

/* ---- the a.out kludge: 3.1.3 ---- */

static int read_addresses(const struct boot_image *image, struct header *h, struct error *err)
{
	const uint8_t *fields = image->kernel + h->offset + 12;

	if (!range_ok(h->offset, 32, MIN(image->kernel_size, HEADER_SEARCH)))
		return kernel_error(image, err, ENOEXEC, "truncated in the multiboot header's address fields");
	h->header_address = load_le32(fields);
	h->load_address = load_le32(fields + 4);
	h->load_end = load_le32(fields + 8);
	h->bss_end = load_le32(fields + 12);
	h->entry = load_le32(fields + 16);
	return 0;
}

/* Loads [load_address, load_end) from the file, zeroes up to bss_end. *elf: what an executable of one such segment would be. */
static int load_by_addresses(const struct boot_image *image, const struct header *h, struct elf *elf, struct error *err)
{
	int rc;

	uint64_t offset, size, memory_size;

	if (h->load_address > h->header_address || h->header_address - h->load_address > h->offset)
		return kernel_error(
			image, err, ENOEXEC,
			"multiboot load_addr 0x%x does not fit header_addr 0x%x of a header at file offset 0x%x",
			h->load_address, h->header_address, h->offset);
	offset = h->offset - (h->header_address - h->load_address);
	size = image->kernel_size - offset;
	if (h->load_end && (h->load_end <= h->load_address || h->load_end - h->load_address > size))
		return kernel_error(image, err, ENOEXEC,
				    "multiboot load_end_addr 0x%x; with load_addr 0x%x it can be 0x%x to 0x%" PRIx64,
				    h->load_end, h->load_address, h->load_address + 1, h->load_address + size);
	if (h->load_end)
		size = h->load_end - h->load_address;
	if (h->bss_end && h->bss_end < h->load_address + size)
		return kernel_error(image, err, ENOEXEC,
				    "multiboot bss_end_addr 0x%x lies before the data's end 0x%" PRIx64, h->bss_end,
				    h->load_address + size);
	memory_size = h->bss_end ? h->bss_end - h->load_address : size;
	rc = boot_check_range(image, "its image", h->load_address, memory_size, 0, err);
	if (rc)
		return rc;
	if (h->entry < h->load_address || h->entry - h->load_address >= memory_size)
		return kernel_error(image, err, ENOEXEC, "entry point 0x%x is not in the loaded image", h->entry);
	boot_write(image->mem, h->load_address, image->kernel + offset, size);
	BUG_ON(mem_fill(image->mem, gpa(h->load_address + size), 0, memory_size - size));
	*elf = (struct elf){ .count = 1, .start = h->load_address, .end = h->load_address + memory_size };
	elf->segments[0] = (struct segment){ .type = PT_LOAD, .paddr = h->load_address, .memory_size = memory_size };
	return 0;
}

/* ---- ELF ---- */

/* ELF's entry is a virtual address, the CPU starts with paging off: the segment that it lies in says where it is loaded. */
static uint64_t physical_entry(const struct elf *elf)
{
	for (unsigned i = 0; i < elf->count; i++) {
		const struct segment *s = &elf->segments[i];

		if (elf_loads(elf, s->paddr) && elf->entry >= s->vaddr && elf->entry - s->vaddr < s->memory_size)
			return elf->entry - s->vaddr + s->paddr;
	}
	return elf->entry;
}

static int load_elf(const struct boot_image *image, struct header *h, struct elf *elf, struct error *err)
{
	uint64_t entry;
	int rc;

	if (!elf_recognise(image->kernel, image->kernel_size))
		return kernel_error(
			image, err, ENOEXEC,
			"a multiboot header without address fields (bit 16) in a file that is no ELF executable");
	rc = elf_parse(image, 0, elf, err);
	if (rc)
		return rc;
	entry = physical_entry(elf);
	if (!elf_loads(elf, entry) || entry > UINT32_MAX)
		return kernel_error(image, err, ENOEXEC,
				    "entry point 0x%" PRIx64 " is not in a segment loaded below 4 GiB", elf->entry);
	elf_copy_segments(image, elf);
	h->entry = (uint32_t)entry;
	return 0;
}

/* ---- what the kernel is told ---- */

/* "FIRST SECOND" and a NUL. */
static size_t string_size(size_t first_length, const char *second)
{
	return first_length + !!*second + strlen(second) + 1;
}

/* A module's arguments, behind the path that its specification begins with. */
static const char *module_arguments(const char *spec, size_t path_length)
{
	return spec[path_length] ? spec + path_length + 1 : "";
}

static size_t path_length(const char *spec) { return strcspn(spec, ","); }

#define LOADER_NAME "doppel"

static size_t strings_size(const struct boot_image *image)
{
	const struct boot_config *config = image->config;
	size_t size = string_size(strlen(image->name), config->command_line) + sizeof(LOADER_NAME);

	if (image->initrd)
		size += string_size(strlen(config->initrd), "");
	for (unsigned i = 0; i < config->module_count; i++) {
		size_t length = path_length(config->modules[i]);

		size += string_size(length, module_arguments(config->modules[i], length));
	}
	return size;
}

static const struct segment *overlapping(const struct elf *elf, uint64_t start, uint64_t size)
{
	for (unsigned i = 0; i < elf->count; i++) {
		const struct segment *s = &elf->segments[i];

		if (s->type == PT_LOAD && s->memory_size && start < s->paddr + s->memory_size &&
		    s->paddr < start + size)
			return s;
	}
	return NULL;
}

/* Where our structures go: in base memory, where kernels look first, or, if the image is there, in front of the modules. */
static int place_block(struct handover *w, const struct elf *elf, struct error *err)
{
	size_t strings = strings_size(w->image), size = STRINGS_AT + strings;
	uint64_t start = LOW_START_INFO;
	const struct segment *s;

	if (strings > COMMAND_LINE_ROOM)
		return error_set(
			err, E2BIG,
			"the command line and the modules' strings are too long; kernel '%s' takes %u bytes in all",
			w->image->name, COMMAND_LINE_ROOM);
	while ((s = overlapping(elf, start, size)))
		start = align_up(s->paddr + s->memory_size, PAGE_SIZE);
	if (start + size > EBDA_START) {
		start = w->modules_at;
		w->modules_at = align_up(start + size, PAGE_SIZE);
		if (!boot_range_usable(w->image->mem, start, size) || w->modules_at > MEM_LOW_TOP)
			return kernel_error(w->image, err, ENOMEM,
					    "leaves no memory for what it is told, of %" PRIu64 " MiB",
					    w->image->mem->ram_size >> 20);
	}
	w->block = (uint32_t)start;
	w->strings_at = w->block + STRINGS_AT;
	return 0;
}

/* "FIRST SECOND": a path, then what is for the kernel or module itself, as GRUB 0.97 passes it. Returns where it is. */
static uint32_t write_string(struct handover *w, const char *first, size_t first_length, const char *second)
{
	size_t second_length = strlen(second), size = string_size(first_length, second);
	uint32_t where = w->strings_at;

	BUG_ON(mem_fill(w->image->mem, gpa(where), ' ', size - 1));
	BUG_ON(mem_fill(w->image->mem, gpa(where + size - 1), 0, 1));
	boot_write(w->image->mem, where, first, first_length);
	boot_write(w->image->mem, where + size - 1 - second_length, second, second_length);
	w->strings_at += (uint32_t)size;
	return where;
}

/* spec: "PATH[,ARGUMENTS]", but where path_length says that all of it is a path. */
static int add_module(struct handover *w, const char *spec, size_t length, struct boot_bytes file, struct error *err)
{
	struct module_entry entry = { .start = (uint32_t)w->modules_at, .end = (uint32_t)(w->modules_at + file.size) };

	if (!boot_range_usable(w->image->mem, w->modules_at, file.size) || w->modules_at + file.size > MEM_LOW_TOP)
		return error_set(err, ENOMEM,
				 "module '%.*s' of %zu KiB does not fit behind the kernel in %" PRIu64 " MiB of memory",
				 (int)length, spec, file.size >> 10, w->image->mem->ram_size >> 20);
	entry.string = write_string(w, spec, length, module_arguments(spec, length));
	boot_write(w->image->mem, w->modules_at, file.data, file.size);
	boot_write(w->image->mem, w->block + MODULES_AT + w->module_count++ * sizeof(entry), &entry, sizeof(entry));
	w->modules_at = align_up(w->modules_at + file.size, PAGE_SIZE);
	return 0;
}

static int add_modules(struct handover *w, struct error *err)
{
	const struct boot_config *config = w->image->config;
	int rc = 0;

	if (w->image->initrd)
		rc = add_module(w, config->initrd, strlen(config->initrd),
				(struct boot_bytes){ w->image->initrd, w->image->initrd_size }, err);
	for (unsigned i = 0; !rc && i < config->module_count; i++)
		rc = add_module(w, config->modules[i], path_length(config->modules[i]), w->image->modules[i], err);
	return rc;
}

static uint32_t write_memory_map(const struct boot_image *image, uint64_t where)
{
	struct memory_range map[MEMORY_RANGES_MAX];
	unsigned n = boot_memory_map(image->mem, map);

	for (unsigned i = 0; i < n; i++) {
		struct memory_entry entry = { sizeof(entry) - sizeof(entry.size), map[i].start, map[i].size,
					      map[i].type };

		boot_write(image->mem, where + i * sizeof(entry), &entry, sizeof(entry));
	}
	return (uint32_t)(n * sizeof(struct memory_entry));
}

static void describe_text_mode(struct information *info)
{
	info->flags |= INFO_FRAMEBUFFER;
	info->framebuffer = TEXT_ADDRESS;
	info->framebuffer_type = FRAMEBUFFER_TEXT;
	info->width = TEXT_COLUMNS;
	info->height = TEXT_ROWS;
	info->depth = 16;
	info->pitch = TEXT_COLUMNS * 2;
}

/* *block: where our structures are. */
static int write_information(const struct boot_image *image, const struct header *h, const struct elf *elf,
			     uint32_t *block, struct error *err)
{
	struct handover w = { .image = image, .modules_at = align_up(MAX(elf->end, FIRMWARE_END), PAGE_SIZE) };
	struct information info = {
		.flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MODULES | INFO_MEMORY_MAP | INFO_LOADER_NAME,
		.memory_lower = EBDA_START >> 10,
		.memory_upper = (uint32_t)((boot_low_ram_end(image->mem) - FIRMWARE_END) >> 10),
	};
	int rc = place_block(&w, elf, err);

	if (rc)
		return rc;
	info.command_line = write_string(&w, image->name, strlen(image->name), image->config->command_line);
	info.loader_name = write_string(&w, LOADER_NAME, strlen(LOADER_NAME), "");
	info.modules = w.block + MODULES_AT;
	info.memory_map = w.block + MEMORY_MAP_AT;
	info.memory_map_length = write_memory_map(image, info.memory_map);
	if (h->flags & HEADER_VIDEO)
		describe_text_mode(&info);
	rc = add_modules(&w, err);
	if (rc)
		return rc;
	info.module_count = w.module_count;
	boot_write(image->mem, w.block, &info, sizeof(info));
	*block = w.block;
	return 0;
}

int multiboot_load(const struct boot_image *image, struct cpu_state *state, struct error *err)
{
	struct header h = { 0 };
	struct elf elf = { 0 };
	uint32_t block = 0;
	int rc;

	BUG_ON(!find_header(image->kernel, image->kernel_size, &h));
	rc = check_demands(image, &h, err);
	if (!rc && (h.flags & HEADER_ADDRESSES)) {
		rc = read_addresses(image, &h, err);
		if (!rc)
			rc = load_by_addresses(image, &h, &elf, err);
	} else if (!rc) {
		rc = load_elf(image, &h, &elf, err);
	}
	if (!rc)
		rc = write_information(image, &h, &elf, &block, err);
	if (rc)
		return rc;
	/* 3.2: flat segments, protected mode, no paging, interrupts off; A20 is open after reset. */
	boot_state_protected_mode_at(image->mem, state, h.entry, block + GDT_AT);
	state->gpr[RAX] = LOADER_MAGIC;
	state->gpr[RBX] = block;
	return 0;
}
