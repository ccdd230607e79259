/*
 * The contents of RAM as bytes: runs of pages that are not all zeros.
 */
#include "mem/private.h"

#include <errno.h>
#include <inttypes.h>

#define MOST_PAGES 256u /* of a run */

/* All little endian. The checksum is that of the two other fields and the pages. */
struct run {
	uint64_t first;
	uint32_t pages;
	uint32_t checksum;
} __attribute__((packed));

static uint32_t checksum(const struct run *run, const uint8_t *data)
{
	return state_checksum(state_checksum(0, run, offsetof(struct run, checksum)), data,
			      (size_t)run->pages << PAGE_SHIFT);
}

/* ---- save ---- */

static bool is_zero(const uint8_t *page) { return !page[0] && !memcmp(page, page + 1, PAGE_SIZE - 1); }

static void save_run(const struct guest_mem *mem, uint64_t first, uint64_t end, struct writer *writer)
{
	const uint8_t *data = mem->ram.file.base + (first << PAGE_SHIFT);
	struct run run = { .first = first, .pages = (uint32_t)(end - first) };

	run.checksum = checksum(&run, data);
	writer_bytes(writer, &run, sizeof(run));
	writer_bytes(writer, data, (size_t)run.pages << PAGE_SHIFT);
}

/* The first page at or behind this one that is not all zeros. */
static uint64_t next_used(const struct guest_mem *mem, uint64_t page)
{
	uint64_t end = mem->ram_size >> PAGE_SHIFT;

	while (page < end) {
		size_t size = 0, start = host_memory_data(&mem->ram.file, page << PAGE_SHIFT, &size);
		uint64_t piece_end = (start + size) >> PAGE_SHIFT;

		for (page = start >> PAGE_SHIFT; page < piece_end; page++)
			if (!is_zero(mem->ram.file.base + (page << PAGE_SHIFT)))
				return page;
	}
	return end;
}

int mem_save(struct guest_mem *mem, struct writer *writer, struct error *err)
{
	uint64_t end = mem->ram_size >> PAGE_SHIFT, first;

	if (mem_has_lost(mem) || !origin_fetch_all(mem, &mem->ram))
		return mem_loss(mem, err);
	first = next_used(mem, 0);
	while (first < end) {
		uint64_t next = first + 1, used = next_used(mem, next);

		while (used == next && used < end && next - first < MOST_PAGES)
			used = next_used(mem, ++next);
		save_run(mem, first, next, writer);
		first = used;
	}
	save_run(mem, end, end, writer);
	return 0;
}

/* ---- load ---- */

/* The next run's header, and its pages in *data; NULL when it is not all there. */
static const uint8_t *take_run(struct reader *reader, struct run *run)
{
	const uint8_t *data;
	size_t size;

	if (!range_ok(reader->offset, sizeof(*run), reader->size))
		return NULL;
	memcpy(run, reader->data + reader->offset, sizeof(*run));
	data = reader->data + reader->offset + sizeof(*run);
	size = (size_t)run->pages << PAGE_SHIFT;
	if (!range_ok(reader->offset + sizeof(*run), size, reader->size))
		return NULL;
	reader->offset += sizeof(*run) + size;
	return data;
}

static int check_run(const struct guest_mem *mem, const struct run *run, const uint8_t *data, uint64_t least,
		     struct error *err)
{
	uint64_t end = mem->ram_size >> PAGE_SHIFT;

	if (run->first < least || !range_ok(run->first, run->pages, end))
		return error_set(err, EINVAL,
				 "memory: a run of %" PRIu32 " pages at page 0x%" PRIx64 "; expected one in 0x%" PRIx64
				 " to 0x%" PRIx64,
				 run->pages, run->first, least, end);
	if (run->pages > MOST_PAGES || (!run->pages && run->first != end))
		return error_set(err, EINVAL,
				 "memory: a run of %" PRIu32 " pages at page 0x%" PRIx64
				 "; expected 1 to %u, or none at the end",
				 run->pages, run->first, MOST_PAGES);
	if (run->checksum != checksum(run, data))
		return error_set(err, EINVAL,
				 "memory: the run at page 0x%" PRIx64 " has the checksum 0x%08" PRIx32
				 "; expected 0x%08" PRIx32,
				 run->first, run->checksum, checksum(run, data));
	return 0;
}

int mem_check(const struct guest_mem *mem, struct reader *reader, struct error *err)
{
	struct reader at = *reader;
	uint64_t least = 0;
	struct run run;

	do {
		const uint8_t *data = take_run(&at, &run);
		int rc;

		if (!data)
			return error_set(err, EINVAL, "memory: cut off in a run behind page 0x%" PRIx64, least);
		rc = check_run(mem, &run, data, least, err);
		if (rc)
			return rc;
		least = run.first + run.pages;
	} while (run.pages);
	*reader = at;
	return 0;
}

void mem_load(struct guest_mem *mem, struct reader *reader)
{
	struct run run;

	origin_forget(mem, &mem->ram);
	host_memory_clear(&mem->ram.file);
	do {
		const uint8_t *data = take_run(reader, &run);

		BUG_ON(!data);
		memcpy(mem->ram.file.base + (run.first << PAGE_SHIFT), data, (size_t)run.pages << PAGE_SHIFT);
	} while (run.pages);
	for (uint64_t n = 0; mem_is_logging(mem) && n < mem->ram_size >> PAGE_SHIFT; n++)
		mem_mark_dirty(mem, &mem->pages[mem->ram.first + n]);
	for (unsigned i = 0; i < ARRAY_SIZE(mem->ram_layers); i++)
		mem_note_write(mem, gpa(mem->ram_layers[i].start), mem->ram_layers[i].size);
}

/* ---- ROM ---- */

uint32_t mem_rom_checksum(const struct guest_mem *mem)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < mem->rom_count; i++) {
		const struct mem_layer *rom = &mem->rom_layers[i];

		sum = state_checksum(sum, &rom->start, sizeof(rom->start));
		sum = state_checksum(sum, rom->memory->file.base, rom->size);
	}
	return sum;
}
