/*
 * The contents of RAM, and of devices' memories, as bytes: runs of pages that are not all zeros.
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

/* The checksum is that of what comes before it. */
struct memory_header {
	char name[32]; /* as struct memory's, filled up with zeros */
	uint64_t pages;
	uint32_t instance;
	uint32_t checksum;
} __attribute__((packed));

static bool comes_before(const struct memory *a, const struct memory *b)
{
	int order = strcmp(a->name, b->name);

	return order < 0 || (!order && a->instance < b->instance);
}

/* ---- save ---- */

static bool is_zero(const uint8_t *page) { return !page[0] && !memcmp(page, page + 1, PAGE_SIZE - 1); }

static uint64_t page_count(const struct memory *memory) { return memory->file.size >> PAGE_SHIFT; }

static uint8_t *page_of(const struct memory *memory, uint64_t page) { return memory->file.base + (page << PAGE_SHIFT); }

static void save_run(const struct memory *memory, uint64_t first, uint64_t end, struct writer *writer)
{
	const uint8_t *data = page_of(memory, first);
	struct run run = { .first = first, .pages = (uint32_t)(end - first) };

	run.checksum = checksum(&run, data);
	writer_bytes(writer, &run, sizeof(run));
	writer_bytes(writer, data, (size_t)run.pages << PAGE_SHIFT);
}

/* The first page at or behind this one that is not all zeros. */
static uint64_t next_used(const struct memory *memory, uint64_t page)
{
	uint64_t end = page_count(memory);

	while (page < end) {
		size_t size = 0, start = host_memory_data(&memory->file, page << PAGE_SHIFT, &size);
		uint64_t piece_end = (start + size) >> PAGE_SHIFT;

		for (page = start >> PAGE_SHIFT; page < piece_end; page++)
			if (!is_zero(page_of(memory, page)))
				return page;
	}
	return end;
}

static void save_runs(const struct memory *memory, struct writer *writer)
{
	uint64_t end = page_count(memory), first = next_used(memory, 0);

	while (first < end) {
		uint64_t next = first + 1, used = next_used(memory, next);

		while (used == next && used < end && next - first < MOST_PAGES)
			used = next_used(memory, ++next);
		save_run(memory, first, next, writer);
		first = used;
	}
	save_run(memory, end, end, writer);
}

/* The memory behind this one (NULL: the first) in the order of names and instances, of those that change and are not RAM; NULL: there is none. */
static struct memory *next_memory(const struct guest_mem *mem, const struct memory *before)
{
	struct memory *memory, *next = NULL;

	list_for_each (memory, &mem->memories, node) {
		if (memory->kind != MEMORY_KIND_VIDEO && memory->kind != MEMORY_KIND_DEVICE)
			continue;
		if ((!before || comes_before(before, memory)) && (!next || comes_before(memory, next)))
			next = memory;
	}
	return next;
}

static struct memory_header header_of(const struct memory *memory)
{
	struct memory_header header = { .instance = memory ? memory->instance : 0,
					.pages = memory ? page_count(memory) : 0 };

	if (memory)
		memcpy(header.name, memory->name, sizeof(header.name));
	header.checksum = state_checksum(0, &header, offsetof(struct memory_header, checksum));
	return header;
}

static bool fetch_all(struct guest_mem *mem)
{
	struct memory *memory;

	list_for_each (memory, &mem->memories, node)
		if (!origin_fetch_all(mem, memory))
			return false;
	return !mem_has_lost(mem);
}

int mem_save(struct guest_mem *mem, struct writer *writer, struct error *err)
{
	const struct memory *memory = NULL;

	if (!fetch_all(mem))
		return mem_loss(mem, err);
	save_runs(&mem->ram, writer);
	do {
		struct memory_header header;

		memory = next_memory(mem, memory);
		header = header_of(memory);
		writer_bytes(writer, &header, sizeof(header));
		if (memory)
			save_runs(memory, writer);
	} while (memory);
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

static int check_run(const struct memory *memory, const struct run *run, const uint8_t *data, uint64_t least,
		     struct error *err)
{
	uint64_t end = page_count(memory);

	if (run->first < least || !range_ok(run->first, run->pages, end))
		return error_set(err, EINVAL,
				 "memory '%s': a run of %" PRIu32 " pages at page 0x%" PRIx64
				 "; expected one in 0x%" PRIx64 " to 0x%" PRIx64,
				 memory->name, run->pages, run->first, least, end);
	if (run->pages > MOST_PAGES || (!run->pages && run->first != end))
		return error_set(err, EINVAL,
				 "memory '%s': a run of %" PRIu32 " pages at page 0x%" PRIx64
				 "; expected 1 to %u, or none at the end",
				 memory->name, run->pages, run->first, MOST_PAGES);
	if (run->checksum != checksum(run, data))
		return error_set(err, EINVAL,
				 "memory '%s': the run at page 0x%" PRIx64 " has the checksum 0x%08" PRIx32
				 "; expected 0x%08" PRIx32,
				 memory->name, run->first, run->checksum, checksum(run, data));
	return 0;
}

static int check_runs(const struct memory *memory, struct reader *reader, struct error *err)
{
	uint64_t least = 0;
	struct run run;

	do {
		const uint8_t *data = take_run(reader, &run);
		int rc;

		if (!data)
			return error_set(err, EINVAL, "memory '%s': cut off in a run behind page 0x%" PRIx64,
					 memory->name, least);
		rc = check_run(memory, &run, data, least, err);
		if (rc)
			return rc;
		least = run.first + run.pages;
	} while (run.pages);
	return 0;
}

/* memory NULL: the end is expected. */
static int check_header(const struct memory *memory, struct reader *reader, struct error *err)
{
	const struct memory_header expected = header_of(memory);

	if (!range_ok(reader->offset, sizeof(expected), reader->size) ||
	    memcmp(reader->data + reader->offset, &expected, sizeof(expected)) != 0)
		return memory ? error_set(err, EINVAL,
					  "memory '%s.%u' of %" PRIu64
					  " pages, which this machine has, is not the next one in the record",
					  memory->name, memory->instance, page_count(memory))
			      : error_set(err, EINVAL, "memory: one more in the record than this machine has");
	reader->offset += sizeof(expected);
	return 0;
}

int mem_check(const struct guest_mem *mem, struct reader *reader, struct error *err)
{
	const struct memory *memory = NULL;
	struct reader at = *reader;
	int rc = check_runs(&mem->ram, &at, err);

	while (!rc) {
		memory = next_memory(mem, memory);
		rc = check_header(memory, &at, err);
		if (!memory)
			break;
		if (!rc)
			rc = check_runs(memory, &at, err);
	}
	if (!rc)
		*reader = at;
	return rc;
}

static void load_runs(struct guest_mem *mem, struct memory *memory, struct reader *reader)
{
	struct run run;

	origin_forget(mem, memory);
	host_memory_clear(&memory->file, 0, memory->file.size);
	do {
		const uint8_t *data = take_run(reader, &run);

		BUG_ON(!data);
		memcpy(page_of(memory, run.first), data, (size_t)run.pages << PAGE_SHIFT);
	} while (run.pages);
	for (uint64_t n = 0; mem_is_logging(mem) && n < page_count(memory); n++)
		mem_mark_dirty(mem, &mem->pages[memory->first + n]);
}

void mem_load(struct guest_mem *mem, struct reader *reader)
{
	const struct mem_map *map = atomic_load(&mem->map);
	struct memory *memory = NULL;

	load_runs(mem, &mem->ram, reader);
	while ((memory = next_memory(mem, memory))) {
		reader->offset += sizeof(struct memory_header);
		load_runs(mem, memory, reader);
	}
	reader->offset += sizeof(struct memory_header);
	/* What nothing shows has no code. */
	for (unsigned i = 0; i < map->count; i++)
		if (map->regions[i].write_host)
			mem_note_write(mem, gpa(map->regions[i].start), map->regions[i].size);
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
