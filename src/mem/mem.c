/*
 * Guest RAM and the map of physical addresses.
 */
#include "mem/private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* The VGA's window, which RAM leaves out. */
#define VGA_START 0xa0000ull
#define VGA_END	  0xc0000ull

/* For how many processors there is room until somebody says how many there will be. */
#define DEFAULT_CPUS 4

/* RAM at [start, end), which begins at `offset` of the memfd. */
static void add_ram(struct guest_mem *mem, unsigned n, uint64_t start, uint64_t end, uint64_t offset)
{
	mem->ram_layers[n] = (struct mem_layer){ .memory = &mem->ram,
						 .start = start,
						 .size = end - start,
						 .offset = offset,
						 .priority = MEM_PRIORITY_RAM,
						 .reads = true,
						 .writes = true };
	BUG_ON(mem_layer_add(mem, &mem->ram_layers[n], NULL));
}

struct guest_mem *mem_create(uint64_t ram_size, struct error *err)
{
	struct guest_mem *mem;

	if (ram_size < MEM_MIN || ram_size > MEM_MAX || ram_size % MEM_MIN) {
		error_set(err, EINVAL,
			  "memory of %" PRIu64 " bytes: expected a multiple of 1 MiB from 1 MiB to 1023 GiB", ram_size);
		return NULL;
	}
	mem = calloc(1, sizeof(*mem));
	if (!mem) {
		error_set_errno(err, ENOMEM, "cannot create guest memory");
		return NULL;
	}
	mem->ram_size = ram_size;
	mem->address_lines = UINT64_MAX;
	overhead_init(&mem->overhead, overhead_default(ram_size, DEFAULT_CPUS), ram_size, DEFAULT_CPUS);
	if (mem_map_create(mem, err)) {
		free(mem);
		return NULL;
	}
	if (memory_init(mem, &mem->ram, MEMORY_KIND_RAM, "guest-ram", ram_size, err)) {
		mem_map_destroy(mem);
		free(mem);
		return NULL;
	}
	add_ram(mem, 0, 0, VGA_START, 0);
	add_ram(mem, 1, VGA_END, MIN(ram_size, MEM_LOW_TOP), VGA_END);
	if (ram_size > MEM_LOW_TOP)
		add_ram(mem, 2, MEM_HIGH_BASE, MEM_HIGH_BASE + ram_size - MEM_LOW_TOP, MEM_LOW_TOP);
	mem_commit(mem);
	return mem;
}

void mem_destroy(struct guest_mem *mem)
{
	if (!mem)
		return;
	mem_map_destroy(mem);
	free(mem);
}

int mem_add_rom(struct guest_mem *mem, gpa_t start, const uint8_t *contents, uint64_t size, struct error *err)
{
	struct mem_layer *layer;
	struct memory *rom;
	int rc;

	if (!size || (start.v | size) & (PAGE_SIZE - 1) || !range_ok(start.v, size, UINT64_MAX))
		return error_set(err, EINVAL,
				 "ROM of %" PRIu64 " bytes at 0x%" PRIx64 ": expected whole pages of %u bytes", size,
				 start.v, PAGE_SIZE);
	if (mem->rom_count == MEM_MAX_ROMS)
		return error_set(err, ENOSPC, "ROM at 0x%" PRIx64 ": there are %d already", start.v, MEM_MAX_ROMS);
	rom = memory_create(mem, MEMORY_KIND_ROM, "guest-rom", size, err);
	if (!rom)
		return error_prefix(err, "ROM at 0x%" PRIx64, start.v);
	memcpy(rom->file.base, contents, size);
	layer = &mem->rom_layers[mem->rom_count];
	*layer = (struct mem_layer){ .memory = rom,
				     .start = start.v,
				     .size = size,
				     .priority = MEM_PRIORITY_ROM,
				     .reads = true,
				     .writes = true };
	rc = mem_layer_add(mem, layer, err);
	if (rc) {
		memory_destroy(mem, rom);
		return rc;
	}
	mem->rom_count++;
	mem_commit(mem);
	return 0;
}

unsigned mem_ram_ranges(const struct guest_mem *mem, uint64_t starts[4], uint64_t sizes[4])
{
	unsigned n;

	for (n = 0; n < ARRAY_SIZE(mem->ram_layers) && mem->ram_layers[n].added; n++) {
		starts[n] = mem->ram_layers[n].start;
		sizes[n] = mem->ram_layers[n].size;
	}
	return n;
}

/* ---- copies ---- */

/* Is there something to read in all of the range, or something that takes what is written? */
static bool range_present(struct guest_mem *mem, gpa_t addr, size_t len, bool write)
{
	bool present = range_ok(addr.v, len, UINT64_MAX);

	map_enter(mem);
	while (present && len) {
		const struct mem_region *region = mem_find(mem, addr);
		uint64_t part;

		present = region && (region->host || (write && region->write_host));
		if (!present)
			break;
		part = map_part(mem, region, addr, len);
		len -= part;
		addr.v += part;
	}
	map_leave(mem);
	return present;
}

int mem_read(struct guest_mem *mem, gpa_t addr, void *data, size_t len)
{
	uint8_t *to = data;

	if (!range_present(mem, addr, len, false))
		return -EFAULT;
	while (len) {
		const struct mem_region *region;
		size_t part = len;

		map_enter(mem);
		region = mem_find(mem, addr);
		if (region)
			part = map_part(mem, region, addr, len);
		if (region && region->host)
			memcpy(to, region->host + (addr.v - region->start), part);
		map_leave(mem);
		to += part;
		addr.v += part;
		len -= part;
	}
	return 0;
}

/* One part of a write, in one region. Returns how long it is. */
static size_t write_part(struct guest_mem *mem, gpa_t addr, const uint8_t *from, uint8_t value, size_t len)
{
	const struct mem_region *region;

	map_enter(mem);
	region = mem_find(mem, addr);
	if (region) {
		uint64_t offset = addr.v - region->start;

		len = map_part(mem, region, addr, len);
		if (region->write_host && from)
			memcpy(region->write_host + offset, from, len);
		else if (region->write_host)
			memset(region->write_host + offset, value, len);
	}
	map_leave(mem);
	mem_note_write(mem, addr, len);
	return len;
}

/* from: NULL for a value. */
static int write_all(struct guest_mem *mem, gpa_t addr, const uint8_t *from, uint8_t value, size_t len)
{
	if (!range_present(mem, addr, len, true))
		return -EFAULT;
	while (len) {
		size_t part = write_part(mem, addr, from, value, len);

		if (from)
			from += part;
		addr.v += part;
		len -= part;
	}
	return 0;
}

int mem_write(struct guest_mem *mem, gpa_t addr, const void *data, size_t len)
{
	return write_all(mem, addr, data, 0, len);
}

int mem_fill(struct guest_mem *mem, gpa_t addr, uint8_t value, size_t len)
{
	return write_all(mem, addr, NULL, value, len);
}
