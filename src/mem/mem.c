/*
 * Guest RAM and the map of physical addresses.
 */
#include "mem/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* The VGA's window, which RAM leaves out. */
#define VGA_START 0xa0000ull
#define VGA_END	  0xc0000ull

/* For how many processors there is room until somebody says how many there will be. */
#define DEFAULT_CPUS 4

/* ---- the map ---- */

static void insert_region(struct guest_mem *mem, struct mem_region region)
{
	unsigned i = mem->region_count++;

	for (; i > 0 && mem->regions[i - 1].start > region.start; i--)
		mem->regions[i] = mem->regions[i - 1];
	mem->regions[i] = region;
}

static void remove_region(struct guest_mem *mem, struct mem_region *region)
{
	struct mem_region *end = mem->regions + mem->region_count--;

	memmove(region, region + 1, (size_t)(end - (region + 1)) * sizeof(*region));
}

/* RAM at [start, end), which begins at `offset` of the memfd. */
static void add_ram(struct guest_mem *mem, uint64_t start, uint64_t end, uint64_t offset)
{
	insert_region(mem, (struct mem_region){
				   .start = start,
				   .size = end - start,
				   .host = mem->ram.base + offset,
				   .writable = true,
				   .pages = mem->ram_pages + (offset >> PAGE_SHIFT),
			   });
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
	mem->ram_pages = calloc(ram_size >> PAGE_SHIFT, sizeof(*mem->ram_pages));
	if (!mem->ram_pages) {
		error_set_errno(err, ENOMEM, "cannot create the page records of %" PRIu64 " MiB of guest memory",
				ram_size >> 20);
		free(mem);
		return NULL;
	}
	if (host_memory_create(&mem->ram, "guest-ram", ram_size, err)) {
		free(mem->ram_pages);
		free(mem);
		return NULL;
	}
	add_ram(mem, 0, VGA_START, 0);
	add_ram(mem, VGA_END, MIN(ram_size, MEM_LOW_TOP), VGA_END);
	if (ram_size > MEM_LOW_TOP)
		add_ram(mem, MEM_HIGH_BASE, MEM_HIGH_BASE + ram_size - MEM_LOW_TOP, MEM_LOW_TOP);
	return mem;
}

void mem_destroy(struct guest_mem *mem)
{
	unsigned i;

	if (!mem)
		return;
	for (i = 0; i < mem->region_count; i++)
		if (!mem->regions[i].writable)
			free(mem->regions[i].pages);
	host_memory_destroy(&mem->ram);
	free(mem->ram_pages);
	free(mem);
}

int mem_hide_ram(struct guest_mem *mem, gpa_t start, uint64_t size, struct error *err)
{
	struct mem_region *region = mem_find(mem, start), behind;
	uint64_t before;

	if (!region || !region->writable || !size || (start.v | size) & (PAGE_SIZE - 1) ||
	    !range_ok(start.v - region->start, size, region->size))
		return error_set(err, EINVAL, "0x%" PRIx64 " bytes at 0x%" PRIx64 " are not whole pages of RAM", size,
				 start.v);
	if (mem->region_count + 1 > MEM_MAX_REGIONS)
		return error_set(err, ENOSPC, "RAM at 0x%" PRIx64 ": there are %d memory regions already", start.v,
				 MEM_MAX_REGIONS);
	before = start.v - region->start;
	behind = *region;
	behind.start = start.v + size;
	behind.size -= before + size;
	behind.host += before + size;
	behind.pages += (before + size) >> PAGE_SHIFT;
	region->size = before;
	if (!before)
		remove_region(mem, region);
	if (behind.size)
		insert_region(mem, behind);
	return 0;
}

int mem_add_rom(struct guest_mem *mem, gpa_t start, const uint8_t *host, uint64_t size, struct error *err)
{
	struct mem_page *pages;
	unsigned i;

	if (!size || (start.v | size) & (PAGE_SIZE - 1) || !range_ok(start.v, size, UINT64_MAX))
		return error_set(err, EINVAL,
				 "ROM of %" PRIu64 " bytes at 0x%" PRIx64 ": expected whole pages of %u bytes", size,
				 start.v, PAGE_SIZE);
	for (i = 0; i < mem->region_count; i++) {
		const struct mem_region *region = &mem->regions[i];

		if (start.v < region->start + region->size && region->start < start.v + size)
			return error_set(err, EBUSY,
					 "ROM of %" PRIu64 " bytes at 0x%" PRIx64 " overlaps memory at 0x%" PRIx64,
					 size, start.v, region->start);
	}
	if (mem->region_count == MEM_MAX_REGIONS)
		return error_set(err, ENOSPC, "ROM at 0x%" PRIx64 ": there are %d memory regions already", start.v,
				 MEM_MAX_REGIONS);
	pages = calloc(size >> PAGE_SHIFT, sizeof(*pages));
	if (!pages)
		return error_set_errno(err, ENOMEM, "ROM at 0x%" PRIx64, start.v);
	/* Nobody writes through the pointer: the region is not writable. */
	insert_region(mem,
		      (struct mem_region){
			      .start = start.v, .size = size, .host = (uint8_t *)(uintptr_t)host, .pages = pages });
	return 0;
}

struct mem_region *mem_find(struct guest_mem *mem, gpa_t addr)
{
	struct mem_region *region = mem->regions, *end = region + mem->region_count;

	for (; region < end && region->start <= addr.v; region++)
		if (addr.v - region->start < region->size)
			return region;
	return NULL;
}

uint8_t *mem_map(struct guest_mem *mem, gpa_t addr, size_t len, bool write)
{
	struct mem_region *region = mem_find(mem, addr);

	if (!region || (write && !region->writable) || !range_ok(addr.v - region->start, len, region->size))
		return NULL;
	return region->host + (addr.v - region->start);
}

struct mem_page *mem_page(struct guest_mem *mem, gpa_t addr)
{
	struct mem_region *region = mem_find(mem, addr);

	return region ? &region->pages[(addr.v - region->start) >> PAGE_SHIFT] : NULL;
}

unsigned mem_ram_ranges(const struct guest_mem *mem, uint64_t starts[4], uint64_t sizes[4])
{
	unsigned i, n = 0;

	for (i = 0; i < mem->region_count && n < 4; i++) {
		if (!mem->regions[i].writable)
			continue;
		starts[n] = mem->regions[i].start;
		sizes[n++] = mem->regions[i].size;
	}
	return n;
}

/* ---- copies ---- */

/* Is all of the range RAM or ROM? */
static bool range_present(struct guest_mem *mem, gpa_t addr, size_t len)
{
	if (!range_ok(addr.v, len, UINT64_MAX))
		return false;
	while (len) {
		struct mem_region *region = mem_find(mem, addr);
		uint64_t left;

		if (!region)
			return false;
		left = region->start + region->size - addr.v;
		if (len <= left)
			return true;
		len -= left;
		addr.v += left;
	}
	return true;
}

/*
 * The range's part that lies in one region: its host address and in *part how long it is. The range was found
 * present, and the map does not change while vCPUs run.
 */
static struct mem_region *next_part(struct guest_mem *mem, gpa_t addr, size_t len, uint8_t **host, size_t *part)
{
	struct mem_region *region = mem_find(mem, addr);

	*host = region->host + (addr.v - region->start);
	*part = MIN(len, region->start + region->size - addr.v);
	return region;
}

int mem_read(struct guest_mem *mem, gpa_t addr, void *data, size_t len)
{
	uint8_t *to = data, *host;
	size_t part;

	if (!range_present(mem, addr, len))
		return -EFAULT;
	for (; len; len -= part, to += part, addr.v += part) {
		next_part(mem, addr, len, &host, &part);
		memcpy(to, host, part);
	}
	return 0;
}

int mem_write(struct guest_mem *mem, gpa_t addr, const void *data, size_t len)
{
	const uint8_t *from = data;
	uint8_t *host;
	size_t part;

	if (!range_present(mem, addr, len))
		return -EFAULT;
	for (; len; len -= part, from += part, addr.v += part) {
		if (!next_part(mem, addr, len, &host, &part)->writable)
			continue;
		memcpy(host, from, part);
		mem_note_write(mem, addr, part);
	}
	return 0;
}

int mem_fill(struct guest_mem *mem, gpa_t addr, uint8_t value, size_t len)
{
	uint8_t *host;
	size_t part;

	if (!range_present(mem, addr, len))
		return -EFAULT;
	for (; len; len -= part, addr.v += part) {
		if (!next_part(mem, addr, len, &host, &part)->writable)
			continue;
		memset(host, value, part);
		mem_note_write(mem, addr, part);
	}
	return 0;
}
