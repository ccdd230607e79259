/*
 * ELF executables: 32 or 64 bits with a PVH entry note (started in flat 32-bit protected mode, as Linux's vmlinux), or
 * plain x86-64 ones (started at e_entry in long mode). Every number of the file is checked before use.
 */
#include "boot/elf.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>

#define NOTE_PHYS32_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY */

bool elf_recognise(const uint8_t *kernel, size_t size)
{
	return size >= EI_NIDENT && memcmp(kernel, ELFMAG, SELFMAG) == 0;
}

static struct segment read_segment(bool wide, const uint8_t *p)
{
	if (wide) {
		Elf64_Phdr h;

		memcpy(&h, p, sizeof(h));
		return (struct segment){ h.p_type, h.p_offset, h.p_vaddr, h.p_paddr, h.p_filesz, h.p_memsz };
	}
	Elf32_Phdr h;

	memcpy(&h, p, sizeof(h));
	return (struct segment){ h.p_type, h.p_offset, h.p_vaddr, h.p_paddr, h.p_filesz, h.p_memsz };
}

static int check_segment(const struct boot_image *image, uint64_t lowest, unsigned i, const struct segment *s,
			 struct error *err)
{
	char what[24];

	if (s->type != PT_LOAD && s->type != PT_NOTE)
		return 0;
	if (!range_ok(s->offset, s->file_size, image->kernel_size))
		return kernel_error(image, err, ENOEXEC,
				    "segment %u (0x%" PRIx64 " bytes at file offset 0x%" PRIx64
				    ") goes beyond the file's end",
				    i, s->file_size, s->offset);
	if (s->type == PT_NOTE || !s->memory_size)
		return 0;
	if (s->file_size > s->memory_size)
		return kernel_error(image, err, ENOEXEC, "segment %u is larger in the file than in memory", i);
	snprintf(what, sizeof(what), "segment %u", i);
	return boot_check_range(image, what, s->paddr, s->memory_size, lowest, err);
}

static int read_segments(const struct boot_image *image, uint64_t lowest, struct elf *elf, uint64_t offset,
			 unsigned count, unsigned entry_size, struct error *err)
{
	unsigned expected = elf->wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);

	if (entry_size != expected || !count || count > SEGMENTS_MAX)
		return kernel_error(image, err, ENOEXEC,
				    "%u program headers of %u bytes, expected 1 to %u headers of %u bytes", count,
				    entry_size, SEGMENTS_MAX, expected);
	if (!range_ok(offset, (uint64_t)count * entry_size, image->kernel_size))
		return kernel_error(image, err, ENOEXEC, "program headers go beyond the file's end");
	elf->start = UINT64_MAX;
	elf->count = count;
	for (unsigned i = 0; i < count; i++) {
		struct segment *s = &elf->segments[i];
		int rc;

		*s = read_segment(elf->wide, image->kernel + offset + (uint64_t)i * entry_size);
		rc = check_segment(image, lowest, i, s, err);
		if (rc)
			return rc;
		if (s->type != PT_LOAD || !s->memory_size)
			continue;
		elf->start = MIN(elf->start, s->paddr);
		elf->end = MAX(elf->end, s->paddr + s->memory_size);
	}
	if (!elf->end)
		return kernel_error(image, err, ENOEXEC, "no loadable segment");
	return 0;
}

static int check_machine(const struct boot_image *image, bool wide, unsigned machine, unsigned type, struct error *err)
{
	unsigned expected = wide ? EM_X86_64 : EM_386;

	if (image->kernel[EI_DATA] != ELFDATA2LSB || machine != expected)
		return kernel_error(image, err, ENOEXEC, "ELF machine %u, expected %u (x86%s)", machine, expected,
				    wide ? "-64" : "");
	if (type != ET_EXEC && type != ET_DYN)
		return kernel_error(image, err, ENOEXEC, "ELF type %u, expected an executable (2)", type);
	return 0;
}

int elf_parse(const struct boot_image *image, uint64_t lowest, struct elf *elf, struct error *err)
{
	int rc;

	*elf = (struct elf){ 0 };
	elf->wide = image->kernel[EI_CLASS] == ELFCLASS64;
	if (image->kernel_size < (elf->wide ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
		return kernel_error(image, err, ENOEXEC, "truncated in the ELF header");
	if (elf->wide) {
		Elf64_Ehdr h;

		memcpy(&h, image->kernel, sizeof(h));
		elf->entry = h.e_entry;
		rc = check_machine(image, true, h.e_machine, h.e_type, err);
		return rc ? rc : read_segments(image, lowest, elf, h.e_phoff, h.e_phnum, h.e_phentsize, err);
	}
	Elf32_Ehdr h;

	memcpy(&h, image->kernel, sizeof(h));
	elf->entry = h.e_entry;
	rc = check_machine(image, false, h.e_machine, h.e_type, err);
	return rc ? rc : read_segments(image, lowest, elf, h.e_phoff, h.e_phnum, h.e_phentsize, err);
}

/* Looks through one note segment, already known to lie in the file. */
static bool find_entry_note(const uint8_t *p, uint64_t size, uint32_t *entry)
{
	uint64_t at = 0;

	while (range_ok(at, 12, size)) {
		uint64_t name_size = load_le32(p + at), desc_size = load_le32(p + at + 4);
		uint32_t type = load_le32(p + at + 8);
		uint64_t name = at + 12, desc = name + align_up(name_size, 4);

		if (!range_ok(name, name_size, size) || !range_ok(desc, desc_size, size))
			return false;
		/* The description is an address of 4 or 8 bytes; the entry is in the first 4 GiB by the ABI. */
		if (type == NOTE_PHYS32_ENTRY && name_size == 4 && !memcmp(p + name, "Xen", 4) && desc_size >= 4) {
			*entry = load_le32(p + desc);
			return true;
		}
		at = desc + align_up(desc_size, 4);
	}
	return false;
}

static bool find_pvh_entry(const struct boot_image *image, const struct elf *elf, uint32_t *entry)
{
	for (unsigned i = 0; i < elf->count; i++) {
		const struct segment *s = &elf->segments[i];

		if (s->type == PT_NOTE && find_entry_note(image->kernel + s->offset, s->file_size, entry))
			return true;
	}
	return false;
}

bool elf_loads(const struct elf *elf, uint64_t address)
{
	for (unsigned i = 0; i < elf->count; i++) {
		const struct segment *s = &elf->segments[i];

		if (s->type == PT_LOAD && address >= s->paddr && address - s->paddr < s->memory_size)
			return true;
	}
	return false;
}

void elf_copy_segments(const struct boot_image *image, const struct elf *elf)
{
	for (unsigned i = 0; i < elf->count; i++) {
		const struct segment *s = &elf->segments[i];

		if (s->type != PT_LOAD || !s->memory_size)
			continue;
		boot_write(image->mem, s->paddr, image->kernel + s->offset, s->file_size);
		BUG_ON(mem_fill(image->mem, gpa(s->paddr + s->file_size), 0, s->memory_size - s->file_size));
	}
}

int elf_load(const struct boot_image *image, struct cpu_state *state, struct error *err)
{
	struct elf elf;
	uint64_t entry, initrd = 0;
	uint32_t pvh_entry = 0;
	bool pvh;
	int rc = elf_parse(image, LOW_END, &elf, err);

	if (rc)
		return rc;
	pvh = find_pvh_entry(image, &elf, &pvh_entry);
	entry = pvh ? pvh_entry : elf.entry;
	if (!pvh && !elf.wide)
		return kernel_error(
			image, err, ENOTSUP,
			"a 32-bit ELF file without a PVH entry note; a PVH kernel or an x86-64 one is needed");
	if (!elf_loads(&elf, entry))
		return kernel_error(image, err, ENOEXEC, "entry point 0x%" PRIx64 " is not in a loaded segment", entry);
	rc = boot_place_command_line(image, COMMAND_LINE_ROOM - 1, err);
	if (!rc)
		rc = boot_place_initrd(image, MEM_LOW_TOP, elf.start, elf.end, &initrd, err);
	if (rc)
		return rc;
	elf_copy_segments(image, &elf);
	pvh_write_start_info(image, initrd);
	if (pvh) {
		boot_state_protected_mode(image->mem, state, pvh_entry);
		state->gpr[RBX] = LOW_START_INFO;
	} else {
		boot_state_long_mode(image->mem, state, entry);
		state->gpr[RDI] = LOW_START_INFO;
	}
	return 0;
}
